//! What an engine calls a quantity: which series, in which versions, and how far the value can be trusted.

use std::borrow::Cow;

use super::quantity::Quantity;
use super::version::Version;

/// One way in which an engine exports a quantity. Of several, the first that is present counts; they are never
/// added up, since old and new names stand side by side for some versions.
#[derive(Debug, Clone)]
pub struct Alias {
    /// What it means.
    pub quantity: Quantity,
    /// The series that make it up.
    pub terms: Vec<Term>,
    /// How the terms become one value.
    pub combine: Combine,
    /// First version known to export it.
    pub since: Option<Version>,
    /// Last version known to export it.
    pub until: Option<Version>,
    /// Appears at first use: absent means zero once the engine is known to be of a version that has it.
    pub lazy: bool,
    /// Zero only where the family itself is there and merely lacks the labels: not every engine of a covered
    /// version has it.
    pub needs_family: bool,
    /// Whether the value is exactly the quantity, or stands in for it.
    pub approximate: bool,
    /// Why no name is given where `terms` is empty: the engine does not export this.
    pub unsupported: Option<Cow<'static, str>>,
    /// What an operator does to make it appear.
    pub hint: Option<Cow<'static, str>>,
}

/// How the terms of an alias become one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combine {
    /// Their weighted sum.
    Sum,
    /// The largest.
    Max,
    /// Their product, per series group (numbers that stand in labels).
    Product,
}

/// Series of one family.
#[derive(Debug, Clone)]
pub struct Term {
    /// Family by [`base_name`](crate::exposition::Family::base_name).
    pub family: Cow<'static, str>,
    /// Which of its samples.
    pub part: Part,
    /// Only series with these labels.
    pub only: Vec<LabelFilter>,
    /// Factor: 0.01 turns a percentage into a share, -1 subtracts.
    pub weight: f64,
    /// Without this one the alias is not there, whatever other terms are.
    pub required: bool,
    /// The exposition has `_total` behind the family's name. For people only.
    pub shown_with_total: bool,
}

/// Which number of a family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The value of a counter or gauge.
    Value,
    /// The whole histogram or summary.
    Distribution,
    /// Sum of a histogram or summary.
    Sum,
    /// Count of a histogram or summary.
    Count,
    /// A number in a label of an info series.
    Label(Cow<'static, str>),
}

/// Keeps series whose label has one of the values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelFilter {
    /// The label.
    pub label: Cow<'static, str>,
    /// The values, any of which will do.
    pub values: Vec<Cow<'static, str>>,
}

impl Term {
    /// The value of a family.
    pub fn value(family: impl Into<Cow<'static, str>>) -> Self {
        Self::part(family, Part::Value)
    }

    /// One number of a family.
    pub fn part(family: impl Into<Cow<'static, str>>, part: Part) -> Self {
        Self {
            family: family.into(),
            part,
            only: Vec::new(),
            weight: 1.0,
            required: false,
            shown_with_total: false,
        }
    }

    /// Only series whose label has one of the values.
    pub fn only(mut self, label: &'static str, values: &[&'static str]) -> Self {
        self.only.push(LabelFilter {
            label: label.into(),
            values: values.iter().map(|value| (*value).into()).collect(),
        });
        self
    }

    /// With a factor.
    pub fn weight(mut self, weight: f64) -> Self {
        self.weight = weight;
        self
    }

    /// Without this one the alias is not there; others that are missing then count as nothing.
    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// How the series would be written in a query: for people, and for `source_metric`.
    pub fn describe(&self) -> String {
        let mut text = self.family.to_string();
        match &self.part {
            Part::Value if self.shown_with_total => text += "_total",
            Part::Value | Part::Distribution => {}
            Part::Sum => text += "_sum",
            Part::Count => text += "_count",
            Part::Label(label) => text += &format!("[{label}]"),
        }
        if !self.only.is_empty() {
            let filters: Vec<String> = self
                .only
                .iter()
                .map(|filter| format!("{}=\"{}\"", filter.label, filter.values.join("|")))
                .collect();
            text += &format!("{{{}}}", filters.join(","));
        }
        text
    }
}

impl Alias {
    /// The quantity is the sum of the terms.
    pub fn new(quantity: Quantity, terms: Vec<Term>) -> Self {
        Self {
            quantity,
            terms,
            combine: Combine::Sum,
            since: None,
            until: None,
            lazy: false,
            needs_family: false,
            approximate: false,
            unsupported: None,
            hint: None,
        }
    }

    /// The quantity is the value of one family.
    pub fn value(quantity: Quantity, family: &'static str) -> Self {
        Self::new(quantity, vec![Term::value(family)])
    }

    /// The quantity is one whole histogram or summary.
    pub fn distribution(quantity: Quantity, family: &'static str) -> Self {
        Self::new(quantity, vec![Term::part(family, Part::Distribution)])
    }

    /// The engine does not export the quantity, and this is why.
    pub fn unsupported(quantity: Quantity, why: &'static str) -> Self {
        Self {
            unsupported: Some(why.into()),
            ..Self::new(quantity, Vec::new())
        }
    }

    /// First version known to export it.
    pub fn since(mut self, major: u32, minor: u32, patch: u32) -> Self {
        self.since = Some(Version::new(major, minor, patch));
        self
    }

    /// Last version known to export it.
    pub fn until(mut self, major: u32, minor: u32, patch: u32) -> Self {
        self.until = Some(Version::new(major, minor, patch));
        self
    }

    /// Appears at first use.
    pub fn lazy(mut self) -> Self {
        self.lazy = true;
        self
    }

    /// Series appear at first use, but only where the family is there at all.
    pub fn lazy_in_family(mut self) -> Self {
        self.lazy = true;
        self.needs_family = true;
        self
    }

    /// Stands in for the quantity.
    pub fn approximate(mut self) -> Self {
        self.approximate = true;
        self
    }

    /// How the terms become one value.
    pub fn combine(mut self, combine: Combine) -> Self {
        self.combine = combine;
        self
    }

    /// What makes it appear.
    pub fn hint(mut self, hint: &'static str) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Only series whose label has one of the values, in every term.
    pub fn only(mut self, label: &'static str, values: &[&'static str]) -> Self {
        self.terms = self
            .terms
            .into_iter()
            .map(|term| term.only(label, values))
            .collect();
        self
    }

    /// Whether a value that falls means a restart. Differences of counters fall for other reasons.
    pub fn is_monotonic(&self) -> bool {
        self.terms.iter().all(|term| term.weight > 0.0)
    }

    /// Whether the version lies in the known range.
    pub fn covers(&self, version: Version) -> bool {
        self.since.is_none_or(|since| since <= version)
            && self.until.is_none_or(|until| version <= until)
    }

    /// Where the value comes from, for people.
    pub fn describe(&self) -> String {
        let join = match self.combine {
            Combine::Sum => " + ",
            Combine::Max => " or ",
            Combine::Product => " × ",
        };
        let mut text = String::new();
        for term in &self.terms {
            if !text.is_empty() {
                text += if term.weight < 0.0 { " - " } else { join };
            }
            text += &term.describe();
        }
        text
    }
}
