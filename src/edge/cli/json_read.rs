//! JSON as `json` writes it → messages. Names as protobuf's own JSON has them (`camelCase`, `BASIS_EXACT`) are read too,
//! so that what grpcurl printed can be used.

use std::str::FromStr;

use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value as Field,
};
use serde_json::Value;

use super::json::upper_snake;
use crate::edge::grpc::DESCRIPTORS;

/// The message that JSON describes. `name` is its full protobuf name.
///
/// # Errors
/// The path of the first thing that the message cannot have, and what is wrong with it.
pub(super) fn from_json<M: Message + Default>(name: &str, json: &Value) -> Result<M, String> {
    let pool = DescriptorPool::decode(DESCRIPTORS).map_err(|error| error.to_string())?;
    let descriptor = pool
        .get_message_by_name(name)
        .ok_or_else(|| format!("no message {name}"))?;
    let message = message(&descriptor, json, "")?;
    message.transcode_to().map_err(|error| error.to_string())
}

fn message(of: &MessageDescriptor, json: &Value, path: &str) -> Result<DynamicMessage, String> {
    match of.full_name() {
        "google.protobuf.Timestamp" => return well_known::<prost_types::Timestamp>(of, json, path),
        "google.protobuf.Duration" => return well_known::<prost_types::Duration>(of, json, path),
        _ => {}
    }
    let Value::Object(entries) = json else {
        return Err(wrong(path, "an object", json));
    };
    let mut message = DynamicMessage::new(of.clone());
    for (key, json) in entries {
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        let found = of
            .get_field_by_name(key)
            .or_else(|| of.get_field_by_json_name(key));
        let field = found.ok_or_else(|| format!("{path}: no such field in {}", of.name()))?;
        // protobuf's own JSON may write unset fields so
        if json.is_null() {
            continue;
        }
        message.set_field(&field, value(&field, json, &path)?);
    }
    Ok(message)
}

fn well_known<T: Message + Default + FromStr>(
    of: &MessageDescriptor,
    json: &Value,
    path: &str,
) -> Result<DynamicMessage, String> {
    let known: T = json
        .as_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| wrong(path, &format!("a {}", of.name().to_lowercase()), json))?;
    let mut message = DynamicMessage::new(of.clone());
    message
        .transcode_from(&known)
        .map_err(|error| format!("{path}: {error}"))?;
    Ok(message)
}

/// The value of a field. No message that is read has a map.
fn value(field: &FieldDescriptor, json: &Value, path: &str) -> Result<Field, String> {
    if !field.is_list() {
        return one(&field.kind(), json, path);
    }
    let Value::Array(items) = json else {
        return Err(wrong(path, "a list", json));
    };
    let items = items.iter().enumerate();
    let read: Result<Vec<Field>, String> = items
        .map(|(at, item)| one(&field.kind(), item, &format!("{path}[{at}]")))
        .collect();
    Ok(Field::List(read?))
}

fn one(kind: &Kind, json: &Value, path: &str) -> Result<Field, String> {
    let (read, expected) = match kind {
        Kind::Message(of) => return Ok(Field::Message(message(of, json, path)?)),
        Kind::Bool => (json.as_bool().map(Field::Bool), "true or false"),
        Kind::String => (
            json.as_str().map(|text| Field::String(text.to_owned())),
            "text",
        ),
        Kind::Double => (float(json).map(Field::F64), "a number"),
        Kind::Uint32 => (
            json.as_u64()
                .and_then(|number| u32::try_from(number).ok())
                .map(Field::U32),
            "a whole number",
        ),
        Kind::Int32 => (
            json.as_i64()
                .and_then(|number| i32::try_from(number).ok())
                .map(Field::I32),
            "a whole number",
        ),
        Kind::Enum(of) => {
            let prefixed = |word: &str| format!("{}_{word}", upper_snake(of.name()));
            let number = json.as_str().and_then(|word| {
                let known = of
                    .values()
                    .find(|known| known.name() == word || known.name() == prefixed(word));
                Some(known?.number())
            });
            let plain = || json.as_i64().and_then(|number| i32::try_from(number).ok());
            let words: Vec<String> = of
                .values()
                .map(|known| known.name().replace(&prefixed(""), ""))
                .collect();
            let expected = format!("one of {}", words.join(", "));
            return number
                .or_else(plain)
                .map(Field::EnumNumber)
                .ok_or_else(|| wrong(path, &expected, json));
        }
        _ => (None, "of a kind that is read"),
    };
    read.ok_or_else(|| wrong(path, expected, json))
}

/// JSON has no infinity and no NaN; as protobuf's own JSON has it they are words.
fn float(json: &Value) -> Option<f64> {
    match json {
        Value::Number(number) => number.as_f64(),
        Value::String(word) => match word.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

fn wrong(path: &str, expected: &str, found: &Value) -> String {
    let found: String = found.to_string().chars().take(40).collect();
    let place = if path.is_empty() { "the file" } else { path };
    format!("{place}: expected {expected}, found {found}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::edge::cli::json::to_json;
    use crate::edge::grpc::pb;
    use proptest::prelude::*;
    use serde_json::json;

    const NAME: &str = "perfagent.v1.Measurement";

    fn read(json: &Value) -> Result<pb::Measurement, String> {
        from_json(NAME, json)
    }

    #[test]
    fn what_was_written_is_read() {
        let message = pb::Measurement {
            instance_id: "a".to_owned(),
            simulated: true,
            window: Some(pb::Window {
                start_time: Some(prost_types::Timestamp {
                    seconds: 1_700_000_000,
                    nanos: 500_000_000,
                }),
                kind: pb::WindowKind::SinceStart.into(),
                observed_seconds: Some(0.0),
                samples: 3,
                ..pb::Window::default()
            }),
            figures: Some(pb::Figures {
                distributions: vec![pb::Distribution {
                    buckets: vec![pb::Bucket {
                        above: None,
                        at_most: f64::INFINITY,
                        count: 2.0,
                    }],
                    basis: pb::Basis::ImpliedZero.into(),
                    ..pb::Distribution::default()
                }],
                series: vec![pb::Series {
                    start_ticks: vec![0, 1],
                    ..pb::Series::default()
                }],
                ..pb::Figures::default()
            }),
            ..pb::Measurement::default()
        };
        assert_eq!(read(&to_json(NAME, &message).unwrap()), Ok(message));
    }

    #[test]
    fn protobufs_own_json_is_read_too() {
        let read = read(&json!({
            "instanceId": "a",
            "engineVersion": null,
            "window": { "kind": "WINDOW_KIND_INTERVAL", "observedSeconds": 1 },
        }))
        .unwrap();
        assert_eq!(
            (read.instance_id.as_str(), read.engine_version),
            ("a", None)
        );
        let window = read.window.unwrap();
        assert_eq!(window.kind(), pb::WindowKind::Interval);
        assert_eq!(window.observed_seconds, Some(1.0));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        for (json, told) in [
            (json!([]), "the file: expected an object, found []"),
            (
                json!({ "windw": {} }),
                "windw: no such field in Measurement",
            ),
            (
                json!({ "window": { "kind": "SOMETIMES" } }),
                "window.kind: expected one of UNSPECIFIED, INTERVAL, SINCE_START, found \"SOMETIMES\"",
            ),
            (
                json!({ "window": { "start_time": "soon" } }),
                "window.start_time: expected a timestamp, found \"soon\"",
            ),
            (
                json!({ "window": { "samples": -1 } }),
                "window.samples: expected a whole number, found -1",
            ),
            (
                json!({ "figures": { "quantities": [{}, { "value": "much" }] } }),
                "figures.quantities[1].value: expected a number, found \"much\"",
            ),
            (
                json!({ "figures": { "gauges": 3 } }),
                "figures.gauges: expected a list, found 3",
            ),
        ] {
            assert_eq!(read(&json).unwrap_err(), told);
        }
    }

    proptest! {
        #[test]
        fn every_number_comes_back(numbers in prop::collection::vec(any::<f64>(), 0..8)) {
            let message = pb::Series { numerators: numbers, ..pb::Series::default() };
            let json = to_json("perfagent.v1.Series", &message).unwrap();
            let text: Value = serde_json::from_str(&json.to_string()).unwrap();
            let back: pb::Series = from_json("perfagent.v1.Series", &text).unwrap();
            let bits = |of: &pb::Series| -> Vec<u64> {
                let normal = |number: &f64| if number.is_nan() { f64::NAN } else { *number };
                of.numerators.iter().map(|number| normal(number).to_bits()).collect()
            };
            prop_assert_eq!(bits(&back), bits(&message));
        }
    }
}
