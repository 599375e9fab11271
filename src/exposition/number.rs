//! Numbers as the text formats write them.

/// Powers of ten that an `f64` holds exactly.
const EXACT_POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

/// Reads a number: decimal, exponent, `NaN`, `Inf` with or without sign.
#[inline]
pub(super) fn parse(text: &str) -> Option<f64> {
    match leading_decimal(text.as_bytes()) {
        (value, length) if length > 0 && length == text.len() => Some(value),
        _ => parse_any(text),
    }
}

/// The same by the standard library alone.
pub(super) fn parse_any(text: &str) -> Option<f64> {
    text.parse().ok()
}

/// The plain decimal at the front and its length; length 0 where there is none that this path can read.
///
/// One multiplication chain and one division give the exact value, since both operands fit an `f64` without
/// rounding (Clinger 1990): at most 15 digits stay below 2^53.
#[inline]
pub(super) fn leading_decimal(bytes: &[u8]) -> (f64, usize) {
    let mut mantissa: u64 = 0;
    let mut digits = 0usize;
    let mut point = None;
    let mut length = 0usize;
    for &byte in bytes {
        match byte {
            b'0'..=b'9' => {
                mantissa = mantissa
                    .wrapping_mul(10)
                    .wrapping_add(u64::from(byte - b'0'));
                digits += 1;
            }
            b'.' if point.is_none() => point = Some(digits),
            _ => break,
        }
        length += 1;
    }
    if digits == 0 || digits > 15 {
        return (0.0, 0);
    }
    match point {
        None => (mantissa as f64, length),
        Some(whole) => match EXACT_POWERS.get(digits - whole) {
            Some(power) => (mantissa as f64 / power, length),
            None => (0.0, 0),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_engines_print() {
        for (text, value) in [
            ("0", 0.0),
            ("83.0", 83.0),
            ("0.003910068426197455", 0.003910068426197455),
            ("1.7955004869503481e+09", 1.7955004869503481e9),
            ("+Inf", f64::INFINITY),
            ("-Inf", f64::NEG_INFINITY),
            ("1e-05", 1e-5),
            ("-3", -3.0),
        ] {
            assert_eq!(parse(text), Some(value), "{text}");
        }
        assert!(parse("NaN").is_some_and(f64::is_nan));
    }

    #[test]
    fn refuses_what_is_no_number() {
        for text in ["", ".", "-", "1_000", "0x10", "1.2.3", "one", "1 "] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_standard_library(text in "[0-9]{0,9}\\.?[0-9]{0,9}") {
            prop_assert_eq!(parse(&text), text.parse::<f64>().ok());
        }
    }
}
