//! What `perfagent instances` prints for people.

use std::time::{Duration, SystemTime};

use super::terminal::clean;
use crate::edge::grpc::{convert_slo, pb};

/// Instances and how they are, one a line.
pub(super) fn table(instances: &[pb::Instance], now: SystemTime) -> String {
    if instances.is_empty() {
        return "no instances; register one with `perfagent instances register`, or in [[instances]] of the agent's \
                config file\n"
            .to_owned();
    }
    let mut rows = vec![
        [
            "INSTANCE", "STATE", "SINCE", "ENGINE", "REPLICAS", "INTERVAL", "FROM", "PROBLEM",
        ]
        .map(str::to_owned),
    ];
    for instance in instances {
        let empty = pb::InstanceStatus::default();
        let status = instance.status.as_ref().unwrap_or(&empty);
        let up = status.replicas.iter();
        let up = up.filter(|replica| replica.up == Some(true)).count();
        let replicas = match status.measured_by.is_empty() {
            true => format!("{up}/{}", instance.metrics_urls.len()),
            // another agent knows how many
            false => format!("-/{}", instance.metrics_urls.len()),
        };
        let problem = status
            .replicas
            .iter()
            .find_map(|replica| replica.failure.as_ref());
        rows.push([
            clean(&instance.instance_id),
            state_word(status.state()).to_owned(),
            status
                .since_time
                .map_or_else(String::new, |since| ago(since, now)),
            engine_text(instance, status),
            replicas,
            time_text(instance.scrape_interval),
            source_word(instance.source()).to_owned(),
            problem.map_or_else(String::new, |failure| clean(&failure.message)),
        ]);
    }
    aligned(&rows)
}

/// Columns as wide as what is in them; the last one ends where it ends.
pub(super) fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line += &format!("{cell:<width$}  ");
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// All that is known of an instance.
pub(super) fn details(instance: &pb::Instance) -> String {
    let empty = pb::InstanceStatus::default();
    let status = instance.status.as_ref().unwrap_or(&empty);
    let mut labels: Vec<String> = instance
        .labels
        .iter()
        .map(|(name, value)| clean(&format!("{name}={value}")))
        .collect();
    labels.sort();
    let mut text = String::new();
    for (name, value) in [
        ("instance", clean(&instance.instance_id)),
        ("state", state_word(status.state()).to_owned()),
        (
            "since",
            status
                .since_time
                .map(|since| since.to_string())
                .unwrap_or_default(),
        ),
        ("engine", engine_text(instance, status)),
        (
            "model",
            status.model_name.as_deref().map(clean).unwrap_or_default(),
        ),
        ("interval", time_text(instance.scrape_interval)),
        ("window", time_text(instance.window)),
        ("labels", labels.join(", ")),
        ("args", clean(&instance.launch_args.join(" "))),
        ("from", source_word(instance.source()).to_owned()),
        ("etag", clean(&instance.etag)),
    ] {
        if !value.is_empty() {
            text += &format!("{name:<9} {value}\n");
        }
    }
    for slo in convert_slo::slos_of("slos", instance.slos.clone()).unwrap_or_default() {
        text += &format!(
            "slo       {}: {}\n",
            clean(&slo.name),
            clean(&slo.promise())
        );
    }
    for (at, url) in instance.metrics_urls.iter().enumerate() {
        let replica = status.replicas.get(at);
        let state = match replica.and_then(|replica| replica.up) {
            None if !status.measured_by.is_empty() => {
                format!("measured by agent {}", clean(&status.measured_by))
            }
            None => "not scraped yet".to_owned(),
            Some(true) => "up".to_owned(),
            Some(false) => {
                let failure = replica.and_then(|replica| replica.failure.as_ref());
                let failure = failure
                    .map(|failure| clean(&failure.message))
                    .unwrap_or_default();
                format!("down: {failure}")
            }
        };
        text += &format!("replica   {}  {state}\n", clean(url));
    }
    text
}

/// The engine that was found, else the one that was named.
fn engine_text(instance: &pb::Instance, status: &pb::InstanceStatus) -> String {
    let name = status.engine.as_ref().unwrap_or(&instance.instance_type);
    let simulated = if status.simulated { " SIMULATED" } else { "" };
    match &status.engine_version {
        Some(version) => format!("{} {}{simulated}", clean(name), clean(version)),
        None => clean(name) + simulated,
    }
}

pub(super) fn state_word(state: pb::InstanceState) -> &'static str {
    match state {
        pb::InstanceState::Unspecified => "-",
        pb::InstanceState::Pending => "PENDING",
        pb::InstanceState::Up => "UP",
        pb::InstanceState::Degraded => "DEGRADED",
        pb::InstanceState::Down => "DOWN",
    }
}

fn source_word(source: pb::InstanceSource) -> &'static str {
    match source {
        pb::InstanceSource::Unspecified => "-",
        pb::InstanceSource::ConfigFile => "config file",
        pb::InstanceSource::Registered => "registration",
    }
}

fn time_text(time: Option<prost_types::Duration>) -> String {
    let time = time.and_then(|time| Duration::try_from(time).ok());
    time.map_or_else(
        || "-".to_owned(),
        |time| humantime::format_duration(time).to_string(),
    )
}

/// How long ago, to the second.
fn ago(then: prost_types::Timestamp, now: SystemTime) -> String {
    let then = SystemTime::try_from(then).unwrap_or(now);
    let seconds = now.duration_since(then).unwrap_or_default().as_secs();
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

/// Whose values were not kept of declared launch arguments; empty where all were.
pub(super) fn hidden_line(flags: &[String]) -> String {
    match flags.is_empty() {
        true => String::new(),
        false => format!(
            "values not kept, since they set nothing that the agent knows of this engine: {}\n",
            clean(&flags.join(", "))
        ),
    }
}
