//! What values a knob takes, by the engine's own rules.

use crate::units::nearest;

/// What values a knob takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum KnobType {
    /// An integer.
    Integer {
        /// Smallest.
        min: i64,
        /// Largest.
        max: i64,
        /// `2k` is 2000 and `2K` is 2048 (vLLM, SGLang).
        with_units: bool,
    },
    /// A number.
    Number {
        /// Smallest.
        min: f64,
        /// Largest.
        max: f64,
        /// Neither the smallest nor the largest is one of them.
        open: (bool, bool),
    },
    /// On or off: `true` or `false`.
    Switch(SwitchForm),
    /// One of these.
    Choice(&'static [&'static str]),
    /// A word; the engine and its plugins know which.
    Text,
    /// Integers from 0, with this between them on the command line.
    Integers(char),
    /// A JSON object.
    Json,
}

/// How a switch stands among launch arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwitchForm {
    /// `--flag` and `--no-flag` (vLLM).
    OnOff,
    /// `--flag`, or nothing (SGLang).
    OnOnly,
    /// `--flag true` (TGI).
    Value,
}

/// A value that the engine would refuse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} = {value}: expected {expected}")]
pub struct KnobError {
    /// Name of the knob.
    pub name: String,
    /// What it was to be.
    pub value: String,
    /// What it takes, in words.
    pub expected: String,
}

/// Longest word that is taken for a value, in bytes.
const MAX_TEXT_BYTES: usize = 256;
/// Longest JSON object.
const MAX_JSON_BYTES: usize = 4096;

impl KnobType {
    /// Integers from here on.
    pub(super) const fn from(min: i64) -> Self {
        Self::Integer {
            min,
            max: i64::MAX,
            with_units: false,
        }
    }

    /// The same, with units.
    pub(super) const fn from_with_units(min: i64) -> Self {
        Self::Integer {
            min,
            max: i64::MAX,
            with_units: true,
        }
    }

    /// Numbers above 0, up to 1.
    pub(super) const SHARE: Self = Self::Number {
        min: 0.0,
        max: 1.0,
        open: (true, false),
    };

    /// Numbers between 0 and 1.
    pub(super) const INNER_SHARE: Self = Self::Number {
        min: 0.0,
        max: 1.0,
        open: (true, true),
    };

    /// The value in one spelling.
    ///
    /// # Errors
    /// What is expected instead, in words.
    pub(super) fn check(&self, value: &str) -> Result<String, String> {
        let text = value.trim();
        match self {
            Self::Integer {
                min,
                max,
                with_units,
            } => integer(text, *with_units)
                .filter(|number| (*min..=*max).contains(number))
                .map(|number| number.to_string()),
            Self::Number { min, max, open } => text
                .parse::<f64>()
                .ok()
                .filter(|number| number.is_finite())
                .filter(|number| if open.0 { number > min } else { number >= min })
                .filter(|number| if open.1 { number < max } else { number <= max })
                .map(|number| number.to_string()),
            Self::Switch(_) => match text {
                "true" | "True" => Some("true".to_owned()),
                "false" | "False" => Some("false".to_owned()),
                _ => None,
            },
            Self::Choice(choices) => choices.contains(&text).then(|| text.to_owned()),
            Self::Text => is_word(text).then(|| text.to_owned()),
            Self::Integers(separator) => integers(text, *separator),
            Self::Json => (text.len() <= MAX_JSON_BYTES)
                .then(|| serde_json::from_str::<serde_json::Map<_, _>>(text).ok())
                .flatten()
                .map(|object| serde_json::Value::Object(object).to_string()),
        }
        .ok_or_else(|| self.expected(text))
    }

    fn expected(&self, value: &str) -> String {
        match self {
            Self::Integer { min, max, .. } if *max == i64::MAX => format!("an integer from {min}"),
            Self::Integer { min, max, .. } => format!("an integer from {min} to {max}"),
            Self::Number { min, max, open } => {
                let least = if open.0 { "above" } else { "from" };
                match (*max == f64::MAX, open.1) {
                    (true, _) => format!("a number {least} {min}"),
                    (false, true) => format!("a number {least} {min} and below {max}"),
                    (false, false) => format!("a number {least} {min} to {max}"),
                }
            }
            Self::Switch(_) => "true or false".to_owned(),
            Self::Choice(choices) => {
                let nearest = nearest(value, choices.iter().copied()).unwrap_or_default();
                format!("one of {}; the nearest is {nearest}", choices.join(", "))
            }
            Self::Text => "a word without spaces".to_owned(),
            Self::Integers(',') => "integers with commas between them".to_owned(),
            Self::Integers(_) => "integers with spaces between them".to_owned(),
            Self::Json => "a JSON object".to_owned(),
        }
    }
}

/// An integer as Python and vLLM read it: small letters are powers of 1000 and may have a fraction, capitals of 1024.
fn integer(text: &str, with_units: bool) -> Option<i64> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    // a gauge or a JSON number may come as `4096.0`
    if let Some((whole, fraction)) = text.split_once('.')
        && !fraction.is_empty()
        && fraction.bytes().all(|byte| byte == b'0')
    {
        return whole.parse().ok();
    }
    let unit = text.chars().last().filter(|_| with_units)?;
    let number = text.strip_suffix(unit)?;
    let power = match unit.to_ascii_lowercase() {
        'k' => 1,
        'm' => 2,
        'g' => 3,
        't' => 4,
        _ => return None,
    };
    if unit.is_ascii_uppercase() {
        let whole: i64 = unsigned(number)?;
        return whole.checked_mul(1024_i64.checked_pow(power)?);
    }
    let scaled = unsigned::<f64>(number)? * 1000_f64.powi(power.try_into().ok()?);
    // beyond this a float does not hold every integer
    (scaled < 9e15).then_some(scaled as i64)
}

/// Digits, with a point in between where the type takes one.
fn unsigned<T: std::str::FromStr>(text: &str) -> Option<T> {
    let digits = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    digits.then(|| text.parse().ok()).flatten()
}

fn integers(text: &str, separator: char) -> Option<String> {
    let numbers = text
        .split([' ', ','])
        .filter(|part| !part.is_empty())
        .map(|part| part.parse::<u32>().ok().map(|number| number.to_string()))
        .collect::<Option<Vec<_>>>()?;
    (!numbers.is_empty()).then(|| numbers.join(&separator.to_string()))
}

/// What can stand as one launch argument, and is none itself.
fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_TEXT_BYTES
        && !text.starts_with('-')
        && !text
            .chars()
            .any(|char| char.is_whitespace() || char.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_the_engine_reads_them() {
        let kind = KnobType::from_with_units(1);
        for (text, value) in [
            ("2048", "2048"),
            ("2k", "2000"),
            ("2K", "2048"),
            ("25.6k", "25600"),
            ("4096.0", "4096"),
            (" 16 ", "16"),
        ] {
            assert_eq!(kind.check(text).as_deref(), Ok(value), "{text}");
        }
        for text in [
            "", "0", "-1", "2.5K", "k", "1e3", "2.5", "9999999T", "1kk", "+k", "-1k",
        ] {
            assert!(kind.check(text).is_err(), "{text}");
        }
        assert!(KnobType::from(1).check("2k").is_err());
        assert_eq!(
            KnobType::from(-1).check("x"),
            Err("an integer from -1".to_owned())
        );
    }

    #[test]
    fn numbers_keep_to_their_ends() {
        assert_eq!(KnobType::SHARE.check("1"), Ok("1".to_owned()));
        assert_eq!(KnobType::SHARE.check("0.90"), Ok("0.9".to_owned()));
        for text in ["0", "1.01", "nan", "inf", "-0.1", ""] {
            assert!(KnobType::SHARE.check(text).is_err(), "{text}");
        }
        assert!(KnobType::INNER_SHARE.check("1").is_err());
    }

    #[test]
    fn words_lists_and_objects() {
        let switch = KnobType::Switch(SwitchForm::OnOff);
        assert_eq!(switch.check("True"), Ok("true".to_owned()));
        assert!(switch.check("yes").is_err());
        let choice = KnobType::Choice(&["fcfs", "priority"]);
        assert_eq!(choice.check("fcfs"), Ok("fcfs".to_owned()));
        assert_eq!(
            choice.check("fcf"),
            Err("one of fcfs, priority; the nearest is fcfs".to_owned())
        );
        assert!(KnobType::Text.check("--x").is_err());
        assert!(KnobType::Text.check("a b").is_err());
        assert_eq!(
            KnobType::Integers(',').check("1 2,4"),
            Ok("1,2,4".to_owned())
        );
        assert!(KnobType::Integers(',').check("1,x").is_err());
        assert_eq!(
            KnobType::Json.check("{\"a\": 1}"),
            Ok("{\"a\":1}".to_owned())
        );
        assert!(KnobType::Json.check("[1]").is_err());
    }
}
