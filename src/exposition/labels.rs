//! The `{…}` block of a sample.

use super::scan::Cursor;
use super::{Label, Limits, Reason, Text};

/// The labels of the sample at hand, and what of them the next line is likely to repeat.
///
/// Neighbouring lines mostly have the same block, or differ only in `le`. The block is kept with its one hole, so
/// that such a line costs two comparisons and not a second reading.
#[derive(Default)]
pub(super) struct LabelBlock<'a> {
    labels: Vec<Label<'a>>,
    /// A metric name inside the braces (Prometheus text 1.0.0).
    quoted_name: Option<Text<'a>>,
    repeat: Option<Repeat<'a>>,
}

#[derive(Clone, Copy)]
struct Repeat<'a> {
    before: &'a str,
    /// Index of the label in the hole, and the block's text behind the hole.
    hole: Option<(usize, &'a str)>,
}

impl<'a> LabelBlock<'a> {
    pub(super) fn labels(&self) -> &[Label<'a>] {
        &self.labels
    }

    pub(super) fn quoted_name(&self) -> Option<Text<'a>> {
        self.quoted_name
    }

    /// The value of `le` or `quantile`, which is mostly where the block's hole is.
    #[inline]
    pub(super) fn bound(&self, name: &str) -> Option<Text<'a>> {
        self.repeat
            .and_then(|repeat| self.labels.get(repeat.hole?.0))
            .filter(|label| label.name.is(name))
            .or_else(|| self.labels.iter().find(|label| label.name.is(name)))
            .map(|label| label.value)
    }

    pub(super) fn clear(&mut self) {
        self.labels.clear();
        self.quoted_name = None;
        self.repeat = None;
    }

    /// Whether the block at the cursor is the last one again, but for its hole. Moves past it if so.
    #[inline]
    pub(super) fn read_repeated(&mut self, cursor: &mut Cursor<'a>, limits: &Limits) -> bool {
        let Some(Repeat { before, hole }) = self.repeat else {
            return false;
        };
        let Some(rest) = cursor.rest().strip_prefix(before) else {
            return false;
        };
        let Some((index, after)) = hole else {
            cursor.at += before.len();
            return true;
        };
        let Some(end) = rest.bytes().position(|byte| matches!(byte, b'"' | b'\\')) else {
            return false;
        };
        let (Some(value), Some(tail)) = (rest.get(..end), rest.get(end..)) else {
            return false;
        };
        if end > limits.value_bytes || !tail.starts_with(after) {
            return false;
        }
        let Some(label) = self.labels.get_mut(index) else {
            return false;
        };
        label.value = Text::plain(value);
        cursor.at += before.len() + end + after.len();
        true
    }

    /// Reads a block whose `{` is next.
    pub(super) fn read(&mut self, cursor: &mut Cursor<'a>, limits: &Limits) -> Result<(), Reason> {
        self.clear();
        let start = cursor.at;
        let mut hole = None;
        cursor.at += 1;
        loop {
            cursor.skip_spaces();
            if cursor.eat(b'}') {
                break;
            }
            let (name, quoted) = if cursor.eat(b'"') {
                (cursor.quoted()?, true)
            } else {
                (Text::plain(cursor.label_name()), false)
            };
            check_name(name, limits)?;
            if name.raw.is_empty() && !quoted {
                return Err(Reason::ExpectedLabelName);
            }
            cursor.skip_spaces();
            if cursor.eat(b'=') {
                let value_start = self.read_value(name, cursor, limits)?;
                if hole.is_none() && (name.raw == "le" || name.raw == "quantile") {
                    hole = Some((self.labels.len() - 1, value_start));
                }
            } else if !quoted {
                return Err(Reason::ExpectedEquals);
            } else if self.quoted_name.replace(name).is_some() {
                return Err(Reason::SecondMetricName);
            }
            cursor.skip_spaces();
            if !cursor.eat(b',') {
                if cursor.eat(b'}') {
                    break;
                }
                return Err(Reason::ExpectedCommaOrBrace);
            }
        }
        check_duplicates(&self.labels)?;
        self.repeat = self.find_repeat(cursor, start, hole);
        Ok(())
    }

    /// Reads `"value"` and returns where the value begins.
    fn read_value(
        &mut self,
        name: Text<'a>,
        cursor: &mut Cursor<'a>,
        limits: &Limits,
    ) -> Result<usize, Reason> {
        cursor.skip_spaces();
        if !cursor.eat(b'"') {
            return Err(Reason::ExpectedQuote);
        }
        let start = cursor.at;
        let value = cursor.quoted()?;
        if value.raw.len() > limits.value_bytes {
            return Err(Reason::ValueTooLong {
                bytes: value.raw.len(),
                limit: limits.value_bytes,
            });
        }
        if self.labels.len() >= limits.labels {
            return Err(Reason::TooManyLabels {
                limit: limits.labels,
            });
        }
        self.labels.push(Label { name, value });
        Ok(start)
    }

    fn find_repeat(
        &self,
        cursor: &Cursor<'a>,
        start: usize,
        hole: Option<(usize, usize)>,
    ) -> Option<Repeat<'a>> {
        if self.quoted_name.is_some() {
            return None;
        }
        let Some((index, value_start)) = hole else {
            return Some(Repeat {
                before: cursor.line.get(start..cursor.at)?,
                hole: None,
            });
        };
        let value_end = value_start + self.labels.get(index)?.value.raw.len();
        Some(Repeat {
            before: cursor.line.get(start..value_start)?,
            hole: Some((index, cursor.line.get(value_end..cursor.at)?)),
        })
    }
}

pub(super) fn check_name(name: Text<'_>, limits: &Limits) -> Result<(), Reason> {
    if name.raw.len() > limits.name_bytes {
        return Err(Reason::NameTooLong {
            bytes: name.raw.len(),
            limit: limits.name_bytes,
        });
    }
    Ok(())
}

/// Labels mostly come sorted, and then neighbours tell.
fn check_duplicates(labels: &[Label<'_>]) -> Result<(), Reason> {
    let sorted = labels.windows(2).all(|pair| match pair {
        [a, b] => !a.name.escaped && !b.name.escaped && a.name.raw < b.name.raw,
        _ => true,
    });
    if sorted {
        return Ok(());
    }
    for (index, label) in labels.iter().enumerate() {
        if labels
            .iter()
            .skip(index + 1)
            .any(|other| other.name == label.name)
        {
            return Err(Reason::DuplicateLabel);
        }
    }
    Ok(())
}
