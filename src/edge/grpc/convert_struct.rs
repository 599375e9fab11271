//! Settings ↔ `google.protobuf.Struct`: texts on our side, numbers, switches and texts on the wire.

use std::collections::BTreeMap;

use prost_types::value::Kind;
use prost_types::{Struct, Value};

use super::fields::{Path, Read, short};
use crate::optimization::{InForce, SettingValue};

/// Settings of one request, far more than an engine has.
const MAX_SETTINGS: usize = 256;
/// The longest name, and the longest value.
const MAX_NAME_BYTES: usize = 128;
const MAX_VALUE_BYTES: usize = 4_096;

/// Settings of a request by name; none for one that is null.
///
/// # Errors
/// The first that cannot be.
pub fn settings_of(field: &str, of: Option<Struct>) -> Read<BTreeMap<String, Option<String>>> {
    let path = Path::root(field);
    let fields = of.unwrap_or_default().fields;
    if fields.len() > MAX_SETTINGS {
        let most = format!("{} settings; at most {MAX_SETTINGS}", fields.len());
        return Err(path.wrong(most));
    }
    let mut settings = BTreeMap::new();
    for (name, value) in fields {
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            let wrong = format!("names have 1 to {MAX_NAME_BYTES} bytes, not {}", name.len());
            return Err(path.wrong(wrong));
        }
        let shown = short(&name);
        let value = text_of(&path.field(&shown), value)?;
        settings.insert(name, value);
    }
    Ok(settings)
}

fn text_of(path: &Path<'_>, value: Value) -> Read<Option<String>> {
    Ok(match value.kind {
        None | Some(Kind::NullValue(_)) => None,
        Some(Kind::BoolValue(on)) => Some(on.to_string()),
        Some(Kind::NumberValue(number)) if number.is_finite() => Some(number.to_string()),
        Some(Kind::NumberValue(number)) => {
            return Err(path.wrong(format!("must be a finite number, not {number}")));
        }
        Some(Kind::StringValue(text)) if text.len() <= MAX_VALUE_BYTES => Some(text),
        Some(Kind::StringValue(text)) => {
            let bytes = text.len();
            return Err(path.wrong(format!("{bytes} bytes; at most {MAX_VALUE_BYTES}")));
        }
        Some(Kind::StructValue(_) | Kind::ListValue(_)) => {
            return Err(path.wrong("must be a number, a text, true, false or null"));
        }
    })
}

/// The settings that are known, and null for those that are known not to be set.
pub fn config(of: &InForce) -> Struct {
    let known = of.settings.iter().filter_map(|setting| {
        let kind = match &setting.value {
            SettingValue::Known(text) => kind_of(text),
            SettingValue::NotSet => Kind::NullValue(0),
            SettingValue::Unknown => return None,
        };
        Some((setting.name.clone(), Value { kind: Some(kind) }))
    });
    Struct {
        fields: known.collect(),
    }
}

/// Settings on the wire; null where there is none.
pub fn struct_of<'s>(settings: impl IntoIterator<Item = (&'s str, Option<&'s str>)>) -> Struct {
    let settings = settings.into_iter().map(|(name, text)| {
        let kind = text.map_or(Kind::NullValue(0), kind_of);
        (name.to_owned(), Value { kind: Some(kind) })
    });
    Struct {
        fields: settings.collect(),
    }
}

/// A number or a switch only where it is written in the one way in which it comes back as the same text.
fn kind_of(text: &str) -> Kind {
    let number = text.parse::<f64>().ok().filter(|number| {
        // what JSON has no number for stays a text
        number.is_finite() && number.to_string() == text
    });
    match (text, number) {
        ("true", _) => Kind::BoolValue(true),
        ("false", _) => Kind::BoolValue(false),
        (_, Some(number)) => Kind::NumberValue(number),
        (text, None) => Kind::StringValue(text.to_owned()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn with(value: Kind) -> Option<Struct> {
        let value = Value { kind: Some(value) };
        Some(Struct {
            fields: [("max_num_seqs".to_owned(), value)].into(),
        })
    }

    #[test]
    fn every_kind_of_value_is_a_text_or_not_set() {
        let read = |kind| {
            let mut settings = settings_of("current_config", with(kind)).unwrap();
            settings.remove("max_num_seqs").unwrap()
        };
        assert_eq!(read(Kind::NumberValue(32.0)).as_deref(), Some("32"));
        assert_eq!(read(Kind::NumberValue(0.9)).as_deref(), Some("0.9"));
        assert_eq!(read(Kind::BoolValue(true)).as_deref(), Some("true"));
        assert_eq!(
            read(Kind::StringValue("fp8".into())).as_deref(),
            Some("fp8")
        );
        assert_eq!(read(Kind::NullValue(0)), None);
        assert!(settings_of("current_config", None).unwrap().is_empty());
    }

    #[test]
    fn what_is_no_setting_is_named() {
        let wrong = |kind| settings_of("changes", with(kind)).unwrap_err().field;
        let list = Kind::ListValue(prost_types::ListValue::default());
        assert_eq!(wrong(list), "changes.max_num_seqs");
        assert_eq!(wrong(Kind::NumberValue(f64::NAN)), "changes.max_num_seqs");
        let long = Kind::StringValue("x".repeat(MAX_VALUE_BYTES + 1));
        assert_eq!(wrong(long), "changes.max_num_seqs");
        let many = (0..=MAX_SETTINGS).map(|n| (n.to_string(), Value::default()));
        let many = Struct {
            fields: many.collect(),
        };
        assert_eq!(
            settings_of("changes", Some(many)).unwrap_err().field,
            "changes"
        );
    }

    #[test]
    fn what_goes_out_comes_back_as_it_was() {
        for text in [
            "32", "0.90", "0.9", "1e3", "true", "True", "fp8", "007", "", "inf",
        ] {
            let sent = struct_of([("a", Some(text)), ("b", None)]);
            let back = settings_of("changes", Some(sent)).unwrap();
            assert_eq!(back["a"].as_deref(), Some(text));
            assert_eq!(back["b"], None);
        }
        assert_eq!(kind_of("32"), Kind::NumberValue(32.0));
        assert_eq!(kind_of("0.90"), Kind::StringValue("0.90".to_owned()));
    }
}
