//! Fields of a request, read one by one: the first that is wrong is named by its path.

use std::collections::HashSet;
use std::fmt::{self, Display};

use crate::agent::FieldViolation;

/// A value, or what is wrong with its field.
pub(super) type Read<T> = Result<T, FieldViolation>;

/// More entries than any list of ours has, where nothing else bounds it.
const MAX_ENTRIES: usize = 4_096;

/// Where a field is. Written out only when it is wrong.
#[derive(Clone, Copy)]
pub(super) struct Path<'p> {
    above: Option<&'p Path<'p>>,
    name: &'p str,
    at: Option<usize>,
}

impl<'p> Path<'p> {
    pub(super) fn root(name: &'p str) -> Self {
        Self {
            above: None,
            name,
            at: None,
        }
    }

    pub(super) fn field(&'p self, name: &'p str) -> Self {
        Self {
            above: Some(self),
            ..Self::root(name)
        }
    }

    pub(super) fn at(&self, at: usize) -> Self {
        Self {
            at: Some(at),
            ..*self
        }
    }

    pub(super) fn wrong(&self, why: impl Into<String>) -> FieldViolation {
        FieldViolation::new(self.to_string(), why)
    }
}

impl Display for Path<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(above) = self.above {
            write!(out, "{above}.")?;
        }
        out.write_str(self.name)?;
        match self.at {
            Some(at) => write!(out, "[{at}]"),
            None => Ok(()),
        }
    }
}

pub(super) fn required<T>(path: &Path<'_>, value: Option<T>) -> Read<T> {
    value.ok_or_else(|| path.wrong("must be set"))
}

pub(super) fn finite(path: &Path<'_>, value: f64) -> Read<f64> {
    if value.is_finite() {
        Ok(value)
    } else {
        Err(path.wrong(format!("must be a finite number, not {value}")))
    }
}

pub(super) fn count(path: &Path<'_>, value: f64) -> Read<f64> {
    if value >= 0.0 {
        finite(path, value)
    } else {
        Err(path.wrong(format!("must be 0 or more, not {value}")))
    }
}

pub(super) fn set(path: &Path<'_>, value: Option<f64>) -> Read<f64> {
    finite(path, required(path, value)?)
}

pub(super) fn list<T, U>(
    path: &Path<'_>,
    items: Vec<T>,
    read: impl Fn(&Path<'_>, T) -> Read<U>,
) -> Read<Vec<U>> {
    list_of(path, items, MAX_ENTRIES, read)
}

pub(super) fn list_of<T, U>(
    path: &Path<'_>,
    items: Vec<T>,
    most: usize,
    read: impl Fn(&Path<'_>, T) -> Read<U>,
) -> Read<Vec<U>> {
    if items.len() > most {
        return Err(path.wrong(format!("{} entries; at most {most}", items.len())));
    }
    let items = items.into_iter().enumerate();
    items.map(|(at, item)| read(&path.at(at), item)).collect()
}

/// A list in which every name stands once.
pub(super) fn named<T, U>(
    path: &Path<'_>,
    items: Vec<T>,
    name: impl Fn(&U) -> &str,
    read: impl Fn(&Path<'_>, T) -> Read<U>,
) -> Read<Vec<U>> {
    let items = list(path, items, read)?;
    let mut seen = HashSet::new();
    for (at, item) in items.iter().enumerate() {
        let name = name(item);
        let one = path.at(at);
        if name.is_empty() {
            return Err(one.field("name").wrong("must be set"));
        }
        if !seen.insert(name) {
            return Err(one
                .field("name")
                .wrong(format!("`{}` stands twice", short(name))));
        }
    }
    Ok(items)
}

/// Text of a client in a message to it.
pub(super) fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_written_as_google_rpc_has_them() {
        let request = Path::root("baseline");
        let figures = request.field("figures");
        let quantities = figures.field("quantities");
        let third = quantities.at(3);
        let bound = third.field("bound");
        assert_eq!(bound.to_string(), "baseline.figures.quantities[3].bound");
    }
}
