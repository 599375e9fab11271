//! Engine versions.

use std::fmt;
use std::str::FromStr;

/// Major, minor, patch. Suffixes such as `.post1` or `-dev0` do not order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number, 0 where none is given.
    pub patch: u32,
}

impl Version {
    /// A version from its numbers.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }
}

/// Text that is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no version: expected numbers such as 0.10.2")]
pub struct NotAVersion(String);

impl FromStr for Version {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || NotAVersion(text.chars().take(40).collect());
        let mut numbers = text
            .trim_start_matches('v')
            .split(['.', '-', '+'])
            .map(|part| {
                let end = part
                    .find(|char: char| !char.is_ascii_digit())
                    .unwrap_or(part.len());
                part.get(..end).and_then(|digits| digits.parse().ok())
            });
        let major = numbers.next().flatten().ok_or_else(bad)?;
        let minor = numbers.next().flatten().ok_or_else(bad)?;
        let patch = numbers.next().flatten().unwrap_or(0);
        Ok(Self::new(major, minor, patch))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_engines_say() {
        for (text, version) in [
            ("0.32.0", Version::new(0, 32, 0)),
            ("3.3.6-dev0", Version::new(3, 3, 6)),
            ("0.8.5.post1", Version::new(0, 8, 5)),
            ("0.10.1rc2.dev3+gabc", Version::new(0, 10, 1)),
            ("v0.5", Version::new(0, 5, 0)),
        ] {
            assert_eq!(text.parse(), Ok(version), "{text}");
        }
        for text in ["", "main", "1", "x.y.z"] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
        assert!(Version::new(0, 9, 2) < Version::new(0, 10, 0));
    }
}
