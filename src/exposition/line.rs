//! One line: a comment, metadata, or a sample.

use std::collections::HashMap;

use super::labels::{LabelBlock, check_name};
use super::number;
use super::scan::Cursor;
use super::{
    Description, Exemplar, Family, Format, Kind, Limits, Reason, Role, Sample, Sink, Text,
};

/// Reads lines one after the other and remembers which family they belong to.
pub(super) struct LineReader<'a> {
    format: Format,
    limits: Limits,
    family: Option<Family<'a>>,
    /// The family's name needs no quotes, so that a line may be matched by its first bytes.
    family_is_plain: bool,
    /// Families that came earlier, searched only when a body returns to one.
    earlier: Vec<Family<'a>>,
    by_name: HashMap<&'a str, Kind>,
    indexed: usize,
    block: LabelBlock<'a>,
    block_delivered: bool,
    exemplar: LabelBlock<'a>,
    bounds: BoundCache<'a>,
}

/// Bounds that are slow to read, in the order in which the last family had them.
///
/// Families of one engine share their bounds, and TGI prints them with up to 20 digits.
#[derive(Default)]
struct BoundCache<'a> {
    known: Vec<(&'a str, f64)>,
    next: usize,
}

impl<'a> BoundCache<'a> {
    const CAPACITY: usize = 128;

    fn read(&mut self, text: &'a str) -> Option<f64> {
        let expected = self.known.get(self.next).or_else(|| self.known.first());
        if let Some((known, value)) = expected
            && *known == text
        {
            self.next = if self.next < self.known.len() {
                self.next + 1
            } else {
                1
            };
            return Some(*value);
        }
        if let Some((known, value)) = self.known.first()
            && *known == text
        {
            self.next = 1;
            return Some(*value);
        }
        let value = number::parse_any(text)?;
        if self.known.len() >= Self::CAPACITY {
            self.known.clear();
        }
        let at = self.next.min(self.known.len());
        self.known.truncate(at);
        self.known.push((text, value));
        self.next = self.known.len();
        Some(value)
    }
}

impl<'a> LineReader<'a> {
    pub(super) fn new(format: Format, limits: Limits) -> Self {
        Self {
            format,
            limits,
            family: None,
            family_is_plain: false,
            earlier: Vec::new(),
            by_name: HashMap::new(),
            indexed: 0,
            block: LabelBlock::default(),
            block_delivered: false,
            exemplar: LabelBlock::default(),
            bounds: BoundCache::default(),
        }
    }

    /// Whether the line was a sample.
    pub(super) fn read<S: Sink<'a>>(
        &mut self,
        line: &'a str,
        sink: &mut S,
    ) -> Result<bool, Reason> {
        let mut cursor = Cursor::new(line, 0);
        if matches!(cursor.peek(), Some(b' ' | b'\t')) {
            cursor.skip_spaces();
        }
        match cursor.peek() {
            None => Ok(false),
            Some(b'#') => self.comment(cursor, sink).map(|()| false),
            Some(_) => self.sample(cursor, sink).map(|()| true),
        }
    }

    fn comment<S: Sink<'a>>(&mut self, mut cursor: Cursor<'a>, sink: &mut S) -> Result<(), Reason> {
        cursor.at += 1;
        if !matches!(cursor.peek(), Some(b' ' | b'\t')) {
            return Ok(());
        }
        cursor.skip_spaces();
        let keyword = cursor.token();
        if !matches!(keyword, "TYPE" | "HELP" | "UNIT") {
            return Ok(());
        }
        cursor.skip_spaces();
        let quoted = cursor.eat(b'"');
        let name = if quoted {
            cursor.quoted()?
        } else {
            Text::plain(cursor.metric_name())
        };
        if name.raw.is_empty() || !matches!(cursor.peek(), None | Some(b' ' | b'\t')) {
            return Err(Reason::MalformedMetadata);
        }
        check_name(name, &self.limits)?;
        cursor.skip_spaces();
        match keyword {
            "TYPE" => {
                let kind = Kind::from_word(cursor.rest().trim_end()).ok_or(Reason::UnknownType)?;
                let family = Family { name, kind };
                self.earlier.push(family);
                self.enter(family, sink);
                self.family_is_plain = !quoted || is_plain(name);
            }
            "HELP" => {
                // whether there are escapes is looked up by those who read it
                let text = Text {
                    raw: cursor.rest(),
                    escaped: true,
                };
                sink.describe(name, Description::Help(text));
            }
            _ => sink.describe(name, Description::Unit(cursor.rest().trim_end())),
        }
        Ok(())
    }

    fn enter<S: Sink<'a>>(&mut self, family: Family<'a>, sink: &mut S) {
        self.family = Some(family);
        sink.family(&family);
    }

    fn sample<S: Sink<'a>>(&mut self, mut cursor: Cursor<'a>, sink: &mut S) -> Result<(), Reason> {
        let (plain_name, suffix) = self.plain_name(&mut cursor);
        if plain_name.len() > self.limits.name_bytes {
            return check_name(Text::plain(plain_name), &self.limits);
        }
        let repeated = self.labels(&mut cursor, plain_name)?;
        let name = match (plain_name, self.block.quoted_name()) {
            ("", Some(quoted)) if !quoted.raw.is_empty() => quoted,
            ("", _) => return Err(Reason::ExpectedMetricName),
            (plain, None) => Text::plain(plain),
            (_, Some(_)) => return Err(Reason::SecondMetricName),
        };
        cursor.skip_spaces();
        let value = read_value(&mut cursor)?;
        let (timestamp_seconds, has_exemplar) = if cursor.at == cursor.line.len() {
            (None, false)
        } else {
            self.behind_value(&mut cursor)?
        };
        let role = match self.role_in_family(name, suffix)? {
            Some(role) => role,
            None => {
                let (family, role) = self.other_family(name)?;
                self.enter(family, sink);
                self.family_is_plain = is_plain(family.name);
                role
            }
        };
        let Some(family) = &self.family else {
            return Err(Reason::ExpectedMetricName);
        };
        let exemplar = if has_exemplar {
            Some(read_exemplar(&mut self.exemplar, cursor, &self.limits)?)
        } else {
            None
        };
        sink.sample(
            family,
            &Sample {
                name,
                role,
                labels: self.block.labels(),
                same_labels: repeated && self.block_delivered,
                value,
                timestamp_seconds,
                exemplar,
            },
        );
        self.block_delivered = true;
        Ok(())
    }

    /// The name in front of the braces, and what of it goes beyond the current family's name.
    #[inline]
    fn plain_name(&self, cursor: &mut Cursor<'a>) -> (&'a str, Option<&'a str>) {
        let start = cursor.at;
        if let Some(family) = &self.family
            && self.family_is_plain
            && cursor.rest().starts_with(family.name.raw)
        {
            cursor.at += family.name.raw.len();
            let suffix_start = cursor.at;
            cursor.skip_name_bytes();
            let name = cursor.line.get(start..cursor.at).unwrap_or("");
            return (name, cursor.line.get(suffix_start..cursor.at));
        }
        (cursor.metric_name(), None)
    }

    /// Reads the label block, if one stands here. Whether it is the last one again, but for `le`.
    #[inline]
    fn labels(&mut self, cursor: &mut Cursor<'a>, plain_name: &str) -> Result<bool, Reason> {
        if cursor.peek() != Some(b'{') {
            let spaced = matches!(cursor.peek(), Some(b' ' | b'\t'));
            if plain_name.is_empty() {
                return Err(Reason::ExpectedMetricName);
            }
            if spaced {
                cursor.skip_spaces();
            }
            if cursor.peek() != Some(b'{') {
                self.block.clear();
                self.block_delivered = false;
                return if spaced {
                    Ok(false)
                } else if cursor.peek().is_none() {
                    Err(Reason::ExpectedValue)
                } else {
                    Err(Reason::ExpectedMetricName)
                };
            }
        }
        if self.block.read_repeated(cursor, &self.limits) {
            return Ok(true);
        }
        self.block_delivered = false;
        let result = self.block.read(cursor, &self.limits);
        if result.is_err() {
            self.block.clear();
        }
        result.map(|()| false)
    }

    /// Timestamp, and whether an exemplar follows at the cursor.
    fn behind_value(&self, cursor: &mut Cursor<'a>) -> Result<(Option<f64>, bool), Reason> {
        cursor.skip_spaces();
        let mut timestamp = None;
        if !matches!(cursor.peek(), None | Some(b'#')) {
            timestamp = Some(read_timestamp(cursor.token(), self.format)?);
            cursor.skip_spaces();
        }
        match cursor.peek() {
            None => Ok((timestamp, false)),
            Some(b'#') if self.format == Format::OpenMetrics => Ok((timestamp, true)),
            Some(b'#') if cursor.rest().starts_with("# {") => Err(Reason::ExemplarWithoutEof),
            Some(_) => Err(Reason::TrailingText),
        }
    }

    /// What the sample is in the family at hand, if it belongs there.
    #[inline]
    fn role_in_family(
        &mut self,
        name: Text<'a>,
        suffix: Option<&'a str>,
    ) -> Result<Option<Role>, Reason> {
        let Some(family) = self.family else {
            return Ok(None);
        };
        let Some(suffix) = suffix.or_else(|| suffix_of(family, name)) else {
            return Ok(None);
        };
        part_of(family.kind, suffix)
            .map(|part| part.role(&self.block, &mut self.bounds))
            .transpose()
    }

    /// The family a sample belongs to that does not continue the one at hand.
    fn other_family(&mut self, name: Text<'a>) -> Result<(Family<'a>, Role), Reason> {
        let family = self.find_earlier(name).unwrap_or(Family {
            name,
            kind: Kind::Unknown,
        });
        let suffix = suffix_of(family, name).unwrap_or("");
        let role = match part_of(family.kind, suffix) {
            Some(part) => part.role(&self.block, &mut self.bounds)?,
            None => Role::Value,
        };
        Ok((family, role))
    }

    /// A family whose TYPE line came before another family's.
    fn find_earlier(&mut self, name: Text<'a>) -> Option<Family<'a>> {
        for family in self.earlier.iter().skip(self.indexed) {
            self.by_name.insert(family.name.raw, family.kind);
        }
        self.indexed = self.earlier.len();
        const SUFFIXES: [&str; 8] = [
            "", "_bucket", "_sum", "_count", "_total", "_created", "_info", "_gsum",
        ];
        SUFFIXES
            .iter()
            .chain(&["_gcount"])
            .filter_map(|suffix| Some((suffix, name.raw.strip_suffix(suffix)?)))
            .find_map(|(suffix, base)| {
                let (base, kind) = self.by_name.get_key_value(base)?;
                part_of(*kind, suffix)?;
                Some(Family {
                    name: Text {
                        raw: base,
                        escaped: name.escaped,
                    },
                    kind: *kind,
                })
            })
    }
}

fn is_plain(name: Text<'_>) -> bool {
    let mut cursor = Cursor::new(name.raw, 0);
    !name.escaped && !name.raw.is_empty() && cursor.metric_name() == name.raw
}

#[inline]
fn suffix_of<'a>(family: Family<'a>, name: Text<'a>) -> Option<&'a str> {
    if family.name.escaped != name.escaped {
        return None;
    }
    name.raw.strip_prefix(family.name.raw)
}

/// What a suffix makes of a sample, before its labels are looked at.
#[derive(Clone, Copy)]
enum Part {
    Plain(Role),
    Bucket,
    Quantile,
}

impl Part {
    #[inline]
    fn role<'a>(self, block: &LabelBlock<'a>, known: &mut BoundCache<'a>) -> Result<Role, Reason> {
        match self {
            Self::Plain(role) => Ok(role),
            Self::Bucket => match bound(block, "le", known) {
                Some(le) => Ok(Role::Bucket { le }),
                None => Err(Reason::BucketWithoutBound),
            },
            Self::Quantile => match bound(block, "quantile", known) {
                Some(q) => Ok(Role::Quantile { q }),
                None => Err(Reason::QuantileWithoutLabel),
            },
        }
    }
}

#[inline]
fn bound<'a>(block: &LabelBlock<'a>, name: &str, known: &mut BoundCache<'a>) -> Option<f64> {
    let text = block.bound(name)?.as_plain()?;
    match number::leading_decimal(text.as_bytes()) {
        (value, length) if length > 0 && length == text.len() => Some(value),
        _ if text == "+Inf" => Some(f64::INFINITY),
        _ => known.read(text).filter(|bound| !bound.is_nan()),
    }
}

/// The sample's value, up to a space or the line's end.
#[inline]
fn read_value(cursor: &mut Cursor<'_>) -> Result<f64, Reason> {
    let bytes = cursor.rest().as_bytes();
    let (value, length) = number::leading_decimal(bytes);
    if length > 0 && matches!(bytes.get(length), None | Some(b' ' | b'\t')) {
        cursor.at += length;
        return Ok(value);
    }
    let token = cursor.token();
    if token.is_empty() {
        return Err(Reason::ExpectedValue);
    }
    number::parse_any(token).ok_or(Reason::InvalidValue)
}

#[inline]
fn part_of(kind: Kind, suffix: &str) -> Option<Part> {
    let role = match (kind, suffix) {
        (Kind::Histogram | Kind::GaugeHistogram, "_bucket") => return Some(Part::Bucket),
        (Kind::Histogram | Kind::GaugeHistogram | Kind::Summary, "_sum") => Role::Sum,
        (Kind::Histogram | Kind::GaugeHistogram | Kind::Summary, "_count") => Role::Count,
        (Kind::GaugeHistogram, "_gsum") => Role::Sum,
        (Kind::GaugeHistogram, "_gcount") => Role::Count,
        (Kind::Histogram | Kind::Summary | Kind::Counter, "_created") => Role::Created,
        (Kind::Summary, "") => return Some(Part::Quantile),
        (Kind::Counter, "" | "_total") => Role::Value,
        (Kind::Gauge | Kind::Unknown | Kind::StateSet, "") => Role::Value,
        (Kind::Info, "" | "_info") => Role::Value,
        _ => return None,
    };
    Some(Part::Plain(role))
}

/// Milliseconds in the Prometheus format, seconds in OpenMetrics.
fn read_timestamp(token: &str, format: Format) -> Result<f64, Reason> {
    let seconds = match format {
        Format::Prometheus => token.parse::<i64>().ok().map(|millis| millis as f64 / 1e3),
        Format::OpenMetrics => number::parse(token),
    };
    seconds
        .filter(|seconds| seconds.is_finite())
        .ok_or(Reason::InvalidTimestamp)
}

/// `# {labels} value [timestamp]`, with the cursor at the `#`.
fn read_exemplar<'s, 'a>(
    block: &'s mut LabelBlock<'a>,
    mut cursor: Cursor<'a>,
    limits: &Limits,
) -> Result<Exemplar<'s, 'a>, Reason> {
    cursor.at += 1;
    cursor.skip_spaces();
    if cursor.peek() != Some(b'{') {
        return Err(Reason::InvalidExemplar);
    }
    block.read(&mut cursor, limits)?;
    if block.quoted_name().is_some() {
        return Err(Reason::InvalidExemplar);
    }
    cursor.skip_spaces();
    let value = number::parse(cursor.token()).ok_or(Reason::InvalidExemplar)?;
    cursor.skip_spaces();
    let timestamp_seconds = match cursor.token() {
        "" => None,
        token => Some(read_timestamp(token, Format::OpenMetrics)?),
    };
    cursor.skip_spaces();
    if cursor.peek().is_some() {
        return Err(Reason::TrailingText);
    }
    Ok(Exemplar {
        labels: block.labels(),
        value,
        timestamp_seconds,
    })
}
