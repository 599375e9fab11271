//! Messages as JSON: snake_case names, enum values without their prefix, integers as numbers, unset fields left out.

use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage, Value as Field,
};
use serde_json::{Map, Value};

use super::terminal::controls;
use crate::edge::grpc::DESCRIPTORS;
use crate::units::hex;

/// The message as JSON. `name` is its full protobuf name.
///
/// # Errors
/// A name that our own descriptors do not have.
pub(super) fn to_json(name: &str, message: &impl Message) -> Result<Value, String> {
    let pool = DescriptorPool::decode(DESCRIPTORS).map_err(|error| error.to_string())?;
    let descriptor = pool
        .get_message_by_name(name)
        .ok_or_else(|| format!("no message {name}"))?;
    let bytes = message.encode_to_vec();
    let message = DynamicMessage::decode(descriptor, bytes.as_slice());
    Ok(object(&message.map_err(|error| error.to_string())?))
}

/// The text of a JSON value, with nothing in it that controls a terminal: JSON itself escapes only what is below
/// U+0020.
pub(super) fn text_of(value: &Value) -> String {
    harmless(&format!("{value:#}\n"))
}

/// The same on one line.
pub(super) fn line_of(value: &Value) -> String {
    harmless(&format!("{value}\n"))
}

fn harmless(json: &str) -> String {
    let mut text = String::new();
    for char in json.chars() {
        match char {
            '\n' => text.push('\n'),
            other if controls(other) => text += &format!("\\u{:04x}", u32::from(other)),
            other => text.push(other),
        }
    }
    text
}

fn object(message: &DynamicMessage) -> Value {
    match message.descriptor().full_name() {
        "google.protobuf.Timestamp" => return well_known::<prost_types::Timestamp>(message),
        "google.protobuf.Duration" => return well_known::<prost_types::Duration>(message),
        "google.protobuf.Struct" => {
            let known = message.transcode_to::<prost_types::Struct>();
            return known.map_or(Value::Null, plain_object);
        }
        _ => {}
    }
    let mut fields: Vec<(FieldDescriptor, &Field)> = message.fields().collect();
    fields.sort_by_key(|(descriptor, _)| descriptor.number());
    let object: Map<String, Value> = fields
        .into_iter()
        .map(|(descriptor, field)| (descriptor.name().to_owned(), value(&descriptor, field)))
        .collect();
    Value::Object(object)
}

fn well_known<T: Message + Default + ToString>(message: &DynamicMessage) -> Value {
    match message.transcode_to::<T>() {
        Ok(known) => Value::String(known.to_string()),
        Err(_) => Value::Null,
    }
}

fn plain_object(of: prost_types::Struct) -> Value {
    let fields = of.fields.into_iter();
    Value::Object(fields.map(|(name, value)| (name, plain(value))).collect())
}

fn plain(of: prost_types::Value) -> Value {
    use prost_types::value::Kind as Of;
    match of.kind {
        None | Some(Of::NullValue(_)) => Value::Null,
        Some(Of::BoolValue(on)) => Value::Bool(on),
        Some(Of::NumberValue(number)) => plain_number(number),
        Some(Of::StringValue(text)) => Value::String(text),
        Some(Of::StructValue(of)) => plain_object(of),
        Some(Of::ListValue(of)) => of.values.into_iter().map(plain).collect(),
    }
}

/// Integers as such, as those of fields are.
fn plain_number(number: f64) -> Value {
    // beyond this a float does not hold every integer
    match number.fract() == 0.0 && number.abs() < 9e15 {
        true => (number as i64).into(),
        false => float(number),
    }
}

fn value(descriptor: &FieldDescriptor, field: &Field) -> Value {
    match field {
        Field::Bool(flag) => Value::Bool(*flag),
        Field::I32(number) => (*number).into(),
        Field::I64(number) => (*number).into(),
        Field::U32(number) => (*number).into(),
        Field::U64(number) => (*number).into(),
        Field::F32(number) => float(f64::from(*number)),
        Field::F64(number) => float(*number),
        Field::String(text) => Value::String(text.clone()),
        Field::Bytes(bytes) => hex(bytes).into(),
        Field::EnumNumber(number) => enum_word(&descriptor.kind(), *number),
        Field::Message(message) => object(message),
        Field::List(items) => items.iter().map(|item| value(descriptor, item)).collect(),
        Field::Map(entries) => {
            let Kind::Message(entry) = descriptor.kind() else {
                return Value::Null;
            };
            let of = entry.map_entry_value_field();
            let mut entries: Vec<(String, Value)> = entries
                .iter()
                .map(|(key, item)| (key_text(key), value(&of, item)))
                .collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(entries.into_iter().collect())
        }
    }
}

/// JSON has no infinity and no NaN; as protobuf's own JSON has it they are words.
fn float(number: f64) -> Value {
    match serde_json::Number::from_f64(number) {
        Some(number) => Value::Number(number),
        None if number.is_nan() => "NaN".into(),
        None if number > 0.0 => "Infinity".into(),
        None => "-Infinity".into(),
    }
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::String(text) => text.clone(),
        MapKey::Bool(flag) => flag.to_string(),
        MapKey::I32(number) => number.to_string(),
        MapKey::I64(number) => number.to_string(),
        MapKey::U32(number) => number.to_string(),
        MapKey::U64(number) => number.to_string(),
    }
}

/// `BASIS_IMPLIED_ZERO` of `Basis` → `IMPLIED_ZERO`; a number that is not known stays one.
fn enum_word(kind: &Kind, number: i32) -> Value {
    let Kind::Enum(descriptor) = kind else {
        return number.into();
    };
    let Some(known) = descriptor.get_value(number) else {
        return number.into();
    };
    let prefix = format!("{}_", upper_snake(descriptor.name()));
    let word = known.name();
    word.strip_prefix(&prefix).unwrap_or(word).into()
}

pub(super) fn upper_snake(name: &str) -> String {
    let mut snake = String::new();
    for char in name.chars() {
        if char.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(char.to_ascii_uppercase());
    }
    snake
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::edge::grpc::pb;
    use serde_json::json;

    #[test]
    fn one_form_for_all_messages() {
        let message = pb::Measurement {
            instance_id: "a".to_owned(),
            window: Some(pb::Window {
                start_time: Some(prost_types::Timestamp {
                    seconds: 0,
                    nanos: 500_000_000,
                }),
                kind: pb::WindowKind::SinceStart.into(),
                observed_seconds: Some(1.5),
                samples: 3,
                ..pb::Window::default()
            }),
            figures: Some(pb::Figures {
                distributions: vec![pb::Distribution {
                    mean: Some(0.0),
                    buckets: vec![pb::Bucket {
                        above: None,
                        at_most: f64::INFINITY,
                        count: 2.0,
                    }],
                    basis: pb::Basis::ImpliedZero.into(),
                    ..pb::Distribution::default()
                }],
                ..pb::Figures::default()
            }),
            ..pb::Measurement::default()
        };
        assert_eq!(
            to_json("perfagent.v1.Measurement", &message).unwrap(),
            json!({
                "instance_id": "a",
                "window": {
                    "start_time": "1970-01-01T00:00:00.500Z",
                    "kind": "SINCE_START",
                    "observed_seconds": 1.5,
                    "samples": 3,
                },
                "figures": {
                    "distributions": [{
                        "mean": 0.0,
                        "buckets": [{ "at_most": "Infinity", "count": 2.0 }],
                        "basis": "IMPLIED_ZERO",
                    }],
                },
            })
        );
        assert!(to_json("perfagent.v1.Nothing", &message).is_err());
        assert_eq!(text_of(&json!("a\u{9b}b\u{7f}")), "\"a\\u009bb\\u007f\"\n");
    }
    #[test]
    fn settings_are_a_plain_object() {
        let answer = pb::GetInstanceConfigResponse {
            config: Some(crate::edge::grpc::convert_struct::struct_of([
                ("max_num_seqs", Some("32")),
                ("gpu_memory_utilization", Some("0.9")),
                ("enable_prefix_caching", Some("true")),
                ("kv_cache_dtype", Some("fp8")),
                ("quantization", None),
            ])),
            ..pb::GetInstanceConfigResponse::default()
        };
        assert_eq!(
            to_json("perfagent.v1.GetInstanceConfigResponse", &answer).unwrap(),
            json!({ "config": {
                "max_num_seqs": 32,
                "gpu_memory_utilization": 0.9,
                "enable_prefix_caching": true,
                "kv_cache_dtype": "fp8",
                "quantization": null,
            } })
        );
    }
}
