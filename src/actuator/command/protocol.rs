//! Protocol 1: what programs are asked, and what of their answers is believed.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::actuator::{
    ActuatedInstance, MAX_CONTENT_BYTES, PlannedSettings, ROUTE, Routing, SettingsWrite,
    TargetSettings,
};

/// Its number.
pub(super) const PROTOCOL: u64 = 1;

const MAX_TARGETS: usize = 256;
const MAX_NAME_CHARS: usize = 128;
const MAX_LAUNCH_ARGS: usize = 4_096;

/// What a program is asked.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ask<'a> {
    /// The settings of all targets.
    Read,
    /// What they become with other launch arguments.
    Plan {
        target: &'a TargetSettings,
        launch_args: &'a [String],
    },
    /// To write them.
    Write(&'a SettingsWrite),
    /// To have a target take new requests, or none.
    Route(&'a Routing),
}

/// What a program says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Said {
    /// It did what it was asked.
    Ok(Map<String, Value>),
    /// It did not.
    Error(SaidError),
}

/// Why a program did not do what it was asked.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum SaidError {
    /// The settings are at this revision.
    StaleRevision(String),
    /// A later holder wrote, with this epoch.
    StaleEpoch(u64),
    /// There is no such target.
    NoTarget,
    /// Anything else, in its own words.
    Failed(String),
}

impl Ask<'_> {
    /// Its word.
    pub(super) fn op(&self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Plan { .. } => "plan",
            Self::Write(write) => write.purpose.op(),
            Self::Route(_) => ROUTE,
        }
    }

    /// The request, as the program reads it.
    pub(super) fn request(&self, actuator: &str, instance: &ActuatedInstance) -> Vec<u8> {
        let mut request = json!({
            "protocol": PROTOCOL,
            "op": self.op(),
            "actuator": actuator,
            "instance": {
                "instance_id": instance.instance_id,
                "engine": instance.engine,
                "metrics_urls": instance.metrics_urls,
                "labels": instance.labels,
            },
        });
        let more = match self {
            Self::Read => json!({}),
            Self::Plan {
                target,
                launch_args,
            } => json!({
                "target": target.name,
                "content_base64": STANDARD.encode(&target.content),
                "launch_args": launch_args,
            }),
            Self::Write(write) => json!({
                "target": write.target,
                "operation_id": write.operation_id,
                "epoch": write.epoch,
                "expect_revision": write.expect_revision,
                "content_base64": STANDARD.encode(&write.content),
            }),
            Self::Route(routing) => json!({
                "target": routing.target,
                "takes_requests": routing.takes_requests,
                "epoch": routing.epoch,
            }),
        };
        if let (Value::Object(request), Value::Object(more)) = (&mut request, more) {
            request.extend(more);
        }
        let mut line = request.to_string().into_bytes();
        line.push(b'\n');
        line
    }
}

/// What an answer says. Messages never repeat what is in it: it may hold secrets.
pub(super) fn said(answer: &[u8]) -> Result<Said, String> {
    if answer.iter().all(u8::is_ascii_whitespace) {
        return Err("nothing".to_owned());
    }
    let value: Value = serde_json::from_slice(answer).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("no JSON, from line {line}, column {column} on")
    })?;
    let Value::Object(mut fields) = value else {
        return Err("no JSON object".to_owned());
    };
    if fields.get("protocol").and_then(Value::as_u64) != Some(PROTOCOL) {
        return Err(format!("protocol: must be {PROTOCOL}"));
    }
    known(&fields, "", &["protocol", "ok", "error"])?;
    match (fields.remove("ok"), fields.remove("error")) {
        (Some(Value::Object(ok)), None) => Ok(Said::Ok(ok)),
        (None, Some(Value::Object(error))) => said_error(&error).map(Said::Error),
        (None, None) => Err("neither ok nor error".to_owned()),
        (Some(_), Some(_)) => Err("both ok and error".to_owned()),
        (Some(_), None) => Err("ok: must be an object".to_owned()),
        (None, Some(_)) => Err("error: must be an object".to_owned()),
    }
}

fn said_error(error: &Map<String, Value>) -> Result<SaidError, String> {
    let fields = ["code", "message", "current_revision", "current_epoch"];
    known(error, "error.", &fields)?;
    let message = || match error.get("message") {
        Some(Value::String(message)) => Ok(message.clone()),
        _ => Err("error.message: must be text".to_owned()),
    };
    match error.get("code").and_then(Value::as_str) {
        Some("STALE_REVISION") => {
            name(error, "error.", "current_revision").map(SaidError::StaleRevision)
        }
        Some("STALE_EPOCH") => {
            let epoch = error.get("current_epoch").and_then(Value::as_u64);
            let epoch = epoch.ok_or("error.current_epoch: must be a whole number")?;
            Ok(SaidError::StaleEpoch(epoch))
        }
        Some("NO_TARGET") => Ok(SaidError::NoTarget),
        Some("FAILED") => message().map(SaidError::Failed),
        _ => Err("error.code: must be STALE_REVISION, STALE_EPOCH, NO_TARGET or FAILED".to_owned()),
    }
}

/// The targets of an answer to `read`.
pub(super) fn targets(ok: &Map<String, Value>) -> Result<Vec<TargetSettings>, String> {
    known(ok, "ok.", &["targets"])?;
    let Some(Value::Array(list)) = ok.get("targets") else {
        return Err("ok.targets: must be a list".to_owned());
    };
    if list.is_empty() || list.len() > MAX_TARGETS {
        return Err(format!("ok.targets: must have 1 to {MAX_TARGETS} entries"));
    }
    let mut names = BTreeSet::new();
    let mut found = Vec::with_capacity(list.len());
    for (at, value) in list.iter().enumerate() {
        let path = format!("ok.targets[{at}]");
        let target = settings(value, &path)?;
        if !names.insert(target.name.clone()) {
            return Err(format!("{path}.name: another target has this name"));
        }
        found.push(target);
    }
    Ok(found)
}

/// The settings of an answer to `plan`.
pub(super) fn planned(ok: &Map<String, Value>) -> Result<PlannedSettings, String> {
    known(ok, "ok.", &["content_base64", "needs_restart"])?;
    let needs_restart = ok.get("needs_restart").and_then(Value::as_bool);
    Ok(PlannedSettings {
        content: content(ok, "ok.")?,
        needs_restart: needs_restart.ok_or("ok.needs_restart: must be true or false")?,
    })
}

/// The target of an answer to `apply` or `restore`, which must be what was written.
pub(super) fn written(
    ok: &Map<String, Value>,
    write: &SettingsWrite,
) -> Result<TargetSettings, String> {
    known(ok, "ok.", &["target"])?;
    let target = ok.get("target").ok_or("ok.target: must be an object")?;
    let target = settings(target, "ok.target")?;
    match target.is_not(write) {
        None => Ok(target),
        Some(field) => Err(format!(
            "ok.target.{field}: is not what was to be written, although it says that it did"
        )),
    }
}

/// The target of an answer to `route`, which must be routed as was asked.
pub(super) fn routed(ok: &Map<String, Value>, routing: &Routing) -> Result<TargetSettings, String> {
    known(ok, "ok.", &["target"])?;
    let target = ok.get("target").ok_or("ok.target: must be an object")?;
    let target = settings(target, "ok.target")?;
    if target.name != routing.target {
        return Err("ok.target.name: is not what was to be routed".to_owned());
    }
    match target.takes_requests == Some(routing.takes_requests) {
        true => Ok(target),
        false => Err(
            "ok.target.takes_requests: is not what was asked for, although it says that it did"
                .to_owned(),
        ),
    }
}

fn settings(value: &Value, path: &str) -> Result<TargetSettings, String> {
    let Value::Object(fields) = value else {
        return Err(format!("{path}: must be an object"));
    };
    let path = format!("{path}.");
    let names = [
        "name",
        "revision",
        "content_base64",
        "launch_args",
        "ready",
        "operation_id",
        "epoch",
        "metrics_url",
        "takes_requests",
    ];
    known(fields, &path, &names)?;
    let ready = fields.get("ready").and_then(Value::as_bool);
    Ok(TargetSettings {
        name: name(fields, &path, "name")?,
        revision: name(fields, &path, "revision")?,
        content: content(fields, &path)?,
        launch_args: launch_args(fields, &path)?,
        ready: ready.ok_or_else(|| format!("{path}ready: must be true or false"))?,
        operation_id: match fields.get("operation_id") {
            None | Some(Value::Null) => None,
            Some(_) => Some(name(fields, &path, "operation_id")?),
        },
        epoch: match fields.get("epoch") {
            None | Some(Value::Null) => None,
            Some(value) => {
                let epoch = value.as_u64();
                Some(epoch.ok_or_else(|| format!("{path}epoch: must be a whole number"))?)
            }
        },
        metrics_url: match fields.get("metrics_url") {
            None | Some(Value::Null) => None,
            Some(Value::String(url)) => Some(url.clone()),
            Some(_) => return Err(format!("{path}metrics_url: must be text")),
        },
        takes_requests: match fields.get("takes_requests") {
            None | Some(Value::Null) => None,
            Some(Value::Bool(takes)) => Some(*takes),
            Some(_) => return Err(format!("{path}takes_requests: must be true or false")),
        },
    })
}

/// Something that is told by its name in messages: short and printable.
fn name(fields: &Map<String, Value>, path: &str, key: &str) -> Result<String, String> {
    let text = fields.get(key).and_then(Value::as_str).unwrap_or_default();
    let is_name = (1..=MAX_NAME_CHARS).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    match is_name {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "{path}{key}: must be 1 to {MAX_NAME_CHARS} printable ASCII characters without spaces"
        )),
    }
}

fn content(fields: &Map<String, Value>, path: &str) -> Result<Vec<u8>, String> {
    let text = fields.get("content_base64").and_then(Value::as_str);
    let content = text
        .and_then(|text| STANDARD.decode(text).ok())
        .ok_or_else(|| format!("{path}content_base64: must be base64, padded"))?;
    match content.len() <= MAX_CONTENT_BYTES {
        true => Ok(content),
        false => Err(format!(
            "{path}content_base64: must stand for at most {MAX_CONTENT_BYTES} bytes"
        )),
    }
}

fn launch_args(fields: &Map<String, Value>, path: &str) -> Result<Vec<String>, String> {
    let bad = || format!("{path}launch_args: must be a list of at most {MAX_LAUNCH_ARGS} texts");
    let Some(Value::Array(list)) = fields.get("launch_args") else {
        return Err(bad());
    };
    if list.len() > MAX_LAUNCH_ARGS {
        return Err(bad());
    }
    let words = list.iter().map(|word| match word {
        Value::String(word) if !word.contains('\0') => Ok(word.clone()),
        _ => Err(bad()),
    });
    words.collect()
}

/// A field that is misspelt would else be a field that is missing.
fn known(fields: &Map<String, Value>, path: &str, names: &[&str]) -> Result<(), String> {
    match fields.keys().all(|key| names.contains(&key.as_str())) {
        true => Ok(()),
        false => Err(format!(
            "{}: has fields other than {}",
            match path.trim_end_matches('.') {
                "" => "the answer",
                path => path,
            },
            names.join(", ")
        )),
    }
}
