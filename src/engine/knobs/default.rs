//! What a knob is where nobody sets it.

use crate::engine::Version;

/// What a knob is where nobody sets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DefaultValue {
    /// This.
    Certain(String),
    /// One of these, by hardware or by what the version is.
    OneOf(Vec<String>),
    /// The engine computes it at its start.
    Chosen,
    /// Nothing: there is no bound, or the feature is off.
    NotSet,
    /// It is not known.
    Unknown,
}

/// A default from a version on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DefaultRule {
    /// First version that it holds in; none for all that have the knob.
    pub(super) since: Option<Version>,
    pub(super) fact: DefaultFact,
}

/// What a table says of a default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DefaultFact {
    Is(&'static str),
    OneOf(&'static [&'static str], &'static str),
    Chosen(&'static str),
    NotSet,
}

/// The default of this version. Rules stand in the order of their versions; the last that has begun holds.
pub(super) fn default_in(rules: &[DefaultRule], version: Option<Version>) -> DefaultValue {
    let Some(version) = version else {
        return common(rules);
    };
    match in_version(rules, version) {
        None => DefaultValue::Unknown,
        Some(fact) => value(fact),
    }
}

/// What it goes by.
pub(super) fn goes_by(rules: &[DefaultRule], version: Option<Version>) -> Option<&'static str> {
    let fact = match version {
        Some(version) => in_version(rules, version)?,
        None => rules.last()?.fact,
    };
    match fact {
        DefaultFact::OneOf(_, by) | DefaultFact::Chosen(by) => Some(by),
        DefaultFact::Is(_) | DefaultFact::NotSet => None,
    }
}

fn in_version(rules: &[DefaultRule], version: Version) -> Option<DefaultFact> {
    let begun = |rule: &&DefaultRule| rule.since.is_none_or(|since| version >= since);
    rules.iter().rev().find(begun).map(|rule| rule.fact)
}

fn value(fact: DefaultFact) -> DefaultValue {
    match fact {
        DefaultFact::Is(value) => DefaultValue::Certain(value.to_owned()),
        DefaultFact::OneOf(values, _) => {
            DefaultValue::OneOf(values.iter().map(|value| (*value).to_owned()).collect())
        }
        DefaultFact::Chosen(_) => DefaultValue::Chosen,
        DefaultFact::NotSet => DefaultValue::NotSet,
    }
}

/// What all versions agree on, or all that they say.
fn common(rules: &[DefaultRule]) -> DefaultValue {
    let mut values: Vec<DefaultValue> = rules.iter().map(|rule| value(rule.fact)).collect();
    values.dedup();
    match values.as_slice() {
        [] => DefaultValue::Unknown,
        [one] => one.clone(),
        several => {
            let mut all = Vec::new();
            for one in several {
                match one {
                    DefaultValue::Certain(value) => all.push(value.clone()),
                    DefaultValue::OneOf(values) => all.extend(values.iter().cloned()),
                    // what one version chooses is in no list
                    _ => return DefaultValue::Unknown,
                }
            }
            let mut seen: Vec<String> = Vec::new();
            all.retain(|value| {
                let new = !seen.contains(value);
                seen.extend(new.then(|| value.clone()));
                new
            });
            DefaultValue::OneOf(all)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_is_that_of_the_version() {
        let rules = [
            DefaultRule {
                since: None,
                fact: DefaultFact::Is("0.9"),
            },
            DefaultRule {
                since: Some(Version::new(0, 20, 0)),
                fact: DefaultFact::Is("0.92"),
            },
        ];
        let of = |version| default_in(&rules, version);
        let certain = |value: &str| DefaultValue::Certain(value.to_owned());
        assert_eq!(of(Some(Version::new(0, 19, 9))), certain("0.9"));
        assert_eq!(of(Some(Version::new(0, 20, 0))), certain("0.92"));
        assert_eq!(
            of(None),
            DefaultValue::OneOf(vec!["0.9".to_owned(), "0.92".to_owned()])
        );
        let later = rules.get(1..).unwrap_or_default();
        assert_eq!(
            default_in(later, Some(Version::new(0, 1, 0))),
            DefaultValue::Unknown
        );
    }
}
