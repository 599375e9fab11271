//! Instances ↔ protobuf.

use std::collections::BTreeMap;
use std::time::Duration;

use super::convert::{duration, system_time, timestamp};
use super::status::scrape_failure;
use super::{convert_slo, pb};
use crate::agent::{
    Caller, Error, FieldViolation, Health, InstanceState, Precondition, ReplicaState, SpecChange,
};
use crate::analysis::Slo;
use crate::instance::{DEFAULT_INTERVAL, InstanceSpec, Source, default_window};
use crate::scrape::shown_url;

/// A new instance, with what was left out at its default, and the id of the request.
pub(super) fn spec_of(
    request: pb::RegisterInstanceRequest,
) -> Result<(InstanceSpec, String), Error> {
    let mut wrong = Vec::new();
    let interval = time(request.scrape_interval, "scrape_interval", &mut wrong);
    let window = time(request.window, "window", &mut wrong);
    let slos = slos("slos", request.slos, &mut wrong);
    if !wrong.is_empty() {
        return Err(Error::Invalid(wrong));
    }
    let interval = interval.unwrap_or(DEFAULT_INTERVAL);
    let first = Some(request.metrics_url).filter(|url| !url.is_empty());
    let spec = InstanceSpec {
        instance_id: request.instance_id,
        instance_type: engine(request.instance_type),
        metrics_urls: first.into_iter().chain(request.metrics_urls).collect(),
        scrape_interval: interval,
        window: window.unwrap_or_else(|| default_window(interval)),
        labels: request.labels.into_iter().collect(),
        slos,
        launch_args: request.launch_args,
        actuator: Some(request.actuator).filter(|name| !name.is_empty()),
    };
    Ok((spec, request.request_id))
}

/// Which instance is to be changed, how, and under which conditions.
pub(super) fn change_of(
    request: pb::UpdateInstanceRequest,
) -> Result<(String, SpecChange, Precondition), Error> {
    let Some(instance) = request.instance else {
        let description = "give the instance as it is to be";
        return Err(Error::Invalid(vec![FieldViolation::new(
            "instance",
            description,
        )]));
    };
    let mut wrong = Vec::new();
    let interval = time(
        instance.scrape_interval,
        "instance.scrape_interval",
        &mut wrong,
    );
    let window = time(instance.window, "instance.window", &mut wrong);
    let slos = slos("instance.slos", instance.slos, &mut wrong);
    let paths = request.update_mask.map(|mask| mask.paths);
    if let Some(unknown) = paths
        .iter()
        .flatten()
        .find(|path| !MASK.contains(&path.as_str()))
    {
        let shown = crate::instance::shortened(unknown);
        let description = format!("`{shown}` is none of {}", MASK.join(", "));
        wrong.push(FieldViolation::new("update_mask", description));
    }
    if !wrong.is_empty() {
        return Err(Error::Invalid(wrong));
    }
    // a field that the mask names is set, even to nothing; without a mask those are that are set
    let named = |path: &str, is_set: bool| match &paths {
        Some(paths) => paths.iter().any(|named| named == path),
        None => is_set,
    };
    let labels: BTreeMap<String, String> = instance.labels.into_iter().collect();
    let new_interval = interval.unwrap_or(DEFAULT_INTERVAL);
    let change = SpecChange {
        instance_type: named("instance_type", !instance.instance_type.is_empty())
            .then(|| engine(instance.instance_type)),
        metrics_urls: named("metrics_urls", !instance.metrics_urls.is_empty())
            .then_some(instance.metrics_urls),
        scrape_interval: named("scrape_interval", interval.is_some()).then_some(new_interval),
        window: named("window", window.is_some()).then_some(window),
        labels: named("labels", !labels.is_empty()).then_some(labels),
        slos: named("slos", !slos.is_empty()).then_some(slos),
        launch_args: named("launch_args", !instance.launch_args.is_empty())
            .then_some(instance.launch_args),
        actuator: named("actuator", !instance.actuator.is_empty())
            .then(|| Some(instance.actuator).filter(|name| !name.is_empty())),
    };
    let precondition = Precondition {
        etag: instance.etag,
        request_id: request.request_id,
    };
    Ok((instance.instance_id, change, precondition))
}

const MASK: [&str; 8] = [
    "actuator",
    "instance_type",
    "metrics_urls",
    "scrape_interval",
    "window",
    "labels",
    "slos",
    "launch_args",
];

/// An engine left open or called `auto` is recognised.
fn engine(name: String) -> Option<String> {
    Some(name).filter(|name| !name.is_empty() && name != "auto")
}

fn time(
    of: Option<prost_types::Duration>,
    field: &str,
    wrong: &mut Vec<FieldViolation>,
) -> Option<Duration> {
    match of.map(Duration::try_from).transpose() {
        Ok(time) => time,
        Err(_) => {
            wrong.push(FieldViolation::new(field, "must not be negative"));
            None
        }
    }
}

fn slos(field: &str, of: Vec<pb::Slo>, wrong: &mut Vec<FieldViolation>) -> Vec<Slo> {
    convert_slo::slos_of(field, of).unwrap_or_else(|violation| {
        wrong.push(violation);
        Vec::new()
    })
}

/// An instance on the wire.
pub(super) fn instance(of: &InstanceState, caller: &Caller) -> pb::Instance {
    let spec = &of.instance.spec;
    let url = |url: &String| match caller.sees_queries() {
        true => url.clone(),
        false => shown_url(url),
    };
    pb::Instance {
        instance_id: spec.instance_id.clone(),
        instance_type: spec
            .instance_type
            .clone()
            .unwrap_or_else(|| "auto".to_owned()),
        metrics_urls: spec.metrics_urls.iter().map(url).collect(),
        scrape_interval: duration(spec.scrape_interval),
        window: duration(spec.window),
        labels: spec.labels.clone().into_iter().collect(),
        source: match of.instance.source {
            Source::ConfigFile => pb::InstanceSource::ConfigFile,
            Source::Registered => pb::InstanceSource::Registered,
        }
        .into(),
        etag: of.instance.etag(),
        create_time: of.instance.created_at.map(system_time),
        update_time: of.instance.updated_at.map(system_time),
        status: Some(status(of)),
        slos: spec.slos.iter().map(convert_slo::slo).collect(),
        launch_args: spec.launch_args.clone(),
        actuator: spec.actuator.clone().unwrap_or_default(),
    }
}

fn status(of: &InstanceState) -> pb::InstanceStatus {
    let latest = of.latest.as_ref();
    if let Some(elsewhere) = &of.elsewhere {
        return pb::InstanceStatus {
            state: health(of.health).into(),
            since_time: Some(system_time(of.since)),
            engine: elsewhere.engine.clone(),
            engine_version: elsewhere.engine_version.clone(),
            model_name: elsewhere.model_name.clone(),
            simulated: elsewhere.simulated,
            measured_by: elsewhere.agent_id.clone(),
            ..Default::default()
        };
    }
    pb::InstanceStatus {
        state: health(of.health).into(),
        since_time: Some(system_time(of.since)),
        scrape_time: of.scraped_at.map(system_time),
        window_end_time: window_end(of),
        engine: latest.map(|latest| latest.engine().to_owned()),
        engine_version: latest.and_then(|latest| latest.engine_version().map(str::to_owned)),
        model_name: latest.and_then(|latest| latest.model_name().map(str::to_owned)),
        simulated: latest.is_some_and(|latest| latest.simulated()),
        replicas: of.replicas.iter().map(replica).collect(),
        measured_by: String::new(),
    }
}

/// End of the last window.
pub(super) fn window_end(of: &InstanceState) -> Option<prost_types::Timestamp> {
    let latest = of.latest.as_ref()?;
    timestamp(latest.end_unix_seconds())
}

fn replica(of: &ReplicaState) -> pb::ReplicaStatus {
    pb::ReplicaStatus {
        metrics_url: of.metrics_url.clone(),
        up: of.up,
        failure: of.failure.as_ref().map(scrape_failure),
    }
}

/// How an instance is.
pub(super) fn health(of: Health) -> pb::InstanceState {
    match of {
        Health::Pending => pb::InstanceState::Pending,
        Health::Up => pb::InstanceState::Up,
        Health::Degraded => pb::InstanceState::Degraded,
        Health::Down => pb::InstanceState::Down,
    }
}
