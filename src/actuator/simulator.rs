//! The actuator of `perfagent simulate`: each replica has its settings at its own port.

use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    ActuatedInstance, Actuator, ActuatorError, PlannedSettings, ROUTE, Routing, SettingsWrite,
    TargetSettings,
};
use crate::scrape::{Fetcher, ScrapeFailure, parse_url};
use crate::simulator::content_of;

const PATH: &str = "/control/settings";
const ROUTE_PATH: &str = "/control/route";
const KIND: &str = "simulator";

/// Drives `perfagent simulate`.
#[derive(Debug)]
pub struct SimulatorActuator {
    name: String,
    timeout: Duration,
    fetcher: Fetcher,
}

/// What a replica says of its settings.
#[derive(Deserialize)]
struct Shown {
    revision: String,
    content_base64: String,
    launch_args: Vec<String>,
    ready: bool,
    operation_id: Option<String>,
    epoch: Option<u64>,
    takes_requests: Option<bool>,
}

/// A replica: its name and where its settings are.
struct Place {
    name: String,
    metrics_url: String,
    url: String,
    route_url: String,
}

impl SimulatorActuator {
    /// An actuator that asks with this fetcher.
    pub(super) fn new(name: &str, timeout: Duration, fetcher: Fetcher) -> Self {
        Self {
            name: name.to_owned(),
            timeout,
            fetcher,
        }
    }

    fn failed(&self, op: &'static str, message: impl ToString) -> ActuatorError {
        ActuatorError::Failed {
            actuator: self.name.clone(),
            op,
            message: message.to_string(),
        }
    }

    fn protocol(&self, op: &'static str, message: impl Into<String>) -> ActuatorError {
        ActuatorError::Protocol {
            actuator: self.name.clone(),
            op,
            message: message.into(),
        }
    }

    async fn within<T>(
        &self,
        op: &'static str,
        call: impl Future<Output = Result<T, ActuatorError>>,
    ) -> Result<T, ActuatorError> {
        let late = |_| ActuatorError::TimedOut {
            actuator: self.name.clone(),
            op,
            seconds: self.timeout.as_secs_f64(),
        };
        tokio::time::timeout(self.timeout, call)
            .await
            .map_err(late)?
    }

    fn places(&self, instance: &ActuatedInstance) -> Result<Vec<Place>, ActuatorError> {
        let place = |metrics_url: &String| {
            let url = metrics_url;
            let mut url = parse_url(url).map_err(|refusal| self.failed("read", refusal))?;
            url.set_path(PATH);
            url.set_query(None);
            url.set_fragment(None);
            let mut route_url = url.clone();
            route_url.set_path(ROUTE_PATH);
            Ok(Place {
                name: url.authority().to_owned(),
                metrics_url: metrics_url.clone(),
                url: url.into(),
                route_url: route_url.into(),
            })
        };
        instance.metrics_urls.iter().map(place).collect()
    }

    fn place(&self, instance: &ActuatedInstance, target: &str) -> Result<Place, ActuatorError> {
        let mut places = self.places(instance)?.into_iter();
        let found = places.find(|place| place.name == target);
        found.ok_or_else(|| ActuatorError::NoTarget {
            actuator: self.name.clone(),
            instance_id: instance.instance_id.clone(),
            target: target.to_owned(),
        })
    }

    async fn route_one(
        &self,
        instance: &ActuatedInstance,
        routing: &Routing,
    ) -> Result<TargetSettings, ActuatorError> {
        let place = self.place(instance, &routing.target)?;
        let failed =
            |failure: ScrapeFailure| self.failed(ROUTE, format!("{}: {failure}", place.name));
        let body = json!({ "takes_requests": routing.takes_requests, "epoch": routing.epoch });
        let answer = self.fetcher.control_put(&place.route_url, &body).await;
        let answer = answer.map_err(failed)?;
        let current_epoch = answer.body.get("current_epoch").and_then(Value::as_u64);
        match answer.status {
            200 => self.settings(ROUTE, &place, answer.body),
            409 => Err(ActuatorError::StaleEpoch {
                target: routing.target.clone(),
                epoch: routing.epoch,
                current: current_epoch.unwrap_or(u64::MAX),
            }),
            status => Err(self.failed(ROUTE, format!("{}: HTTP status {status}", place.name))),
        }
    }

    /// The settings of an answer; its other fields are for people.
    fn settings(
        &self,
        op: &'static str,
        place: &Place,
        body: Value,
    ) -> Result<TargetSettings, ActuatorError> {
        let none = || {
            let message = format!(
                "{} has no settings: is it `perfagent simulate`?",
                place.name
            );
            self.protocol(op, message)
        };
        let shown: Shown = serde_json::from_value(body).map_err(|_| none())?;
        let content = STANDARD.decode(&shown.content_base64);
        Ok(TargetSettings {
            name: place.name.clone(),
            revision: shown.revision,
            content: content.map_err(|_| none())?,
            launch_args: shown.launch_args,
            ready: shown.ready,
            operation_id: shown.operation_id,
            epoch: shown.epoch,
            metrics_url: Some(place.metrics_url.clone()),
            takes_requests: shown.takes_requests,
        })
    }

    async fn read_one(&self, place: &Place) -> Result<TargetSettings, ActuatorError> {
        let failed =
            |failure: ScrapeFailure| self.failed("read", format!("{}: {failure}", place.name));
        let answer = self.fetcher.control_get(&place.url).await.map_err(failed)?;
        match answer.status {
            200 => self.settings("read", place, answer.body),
            status => Err(self.failed("read", format!("{}: HTTP status {status}", place.name))),
        }
    }

    async fn write_one(
        &self,
        instance: &ActuatedInstance,
        write: &SettingsWrite,
    ) -> Result<TargetSettings, ActuatorError> {
        let op = write.purpose.op();
        let place = &self.place(instance, &write.target)?;
        let body = json!({
            "operation_id": write.operation_id,
            "epoch": write.epoch,
            "expect_revision": write.expect_revision,
            "content_base64": STANDARD.encode(&write.content),
        });
        let failed = |failure: ScrapeFailure| self.failed(op, format!("{}: {failure}", place.name));
        let answer = self.fetcher.control_put(&place.url, &body).await;
        let answer = answer.map_err(failed)?;
        let body = &answer.body;
        let current_revision = || body.get("current_revision").and_then(Value::as_str);
        let current_epoch = || body.get("current_epoch").and_then(Value::as_u64);
        match (answer.status, body.get("code").and_then(Value::as_str)) {
            (200, _) => {
                let target = self.settings(op, place, answer.body)?;
                match target.is_not(write) {
                    None => Ok(target),
                    Some(field) => {
                        Err(self.protocol(op, format!("{field} is not what was written")))
                    }
                }
            }
            (409, Some("STALE_REVISION")) => Err(ActuatorError::StaleRevision {
                target: write.target.clone(),
                expected: write.expect_revision.clone(),
                current: current_revision().unwrap_or("another").to_owned(),
            }),
            (409, Some("STALE_EPOCH")) => Err(ActuatorError::StaleEpoch {
                target: write.target.clone(),
                epoch: write.epoch,
                current: current_epoch().unwrap_or(u64::MAX),
            }),
            (status, _) => {
                // flags are no secrets where the engine is none
                let error = body.get("error").and_then(Value::as_str);
                let error = error.map_or_else(|| format!("HTTP status {status}"), str::to_owned);
                Err(self.failed(op, format!("{}: {error}", place.name)))
            }
        }
    }
}

#[async_trait]
impl Actuator for SimulatorActuator {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        KIND
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }

    async fn read(
        &self,
        instance: &ActuatedInstance,
    ) -> Result<Vec<TargetSettings>, ActuatorError> {
        let places = self.places(instance)?;
        self.within("read", async {
            let mut targets = Vec::with_capacity(places.len());
            for place in &places {
                targets.push(self.read_one(place).await?);
            }
            Ok(targets)
        })
        .await
    }

    async fn plan(
        &self,
        _: &ActuatedInstance,
        target: &TargetSettings,
        launch_args: &[String],
    ) -> Result<PlannedSettings, ActuatorError> {
        let content = match target.launch_args == launch_args {
            true => target.content.clone(),
            false => content_of(launch_args),
        };
        Ok(PlannedSettings {
            needs_restart: content != target.content,
            content,
        })
    }

    async fn write(
        &self,
        instance: &ActuatedInstance,
        write: &SettingsWrite,
    ) -> Result<TargetSettings, ActuatorError> {
        let call = self.write_one(instance, write);
        self.within(write.purpose.op(), call).await
    }

    async fn route(
        &self,
        instance: &ActuatedInstance,
        routing: &Routing,
    ) -> Result<TargetSettings, ActuatorError> {
        self.within(ROUTE, self.route_one(instance, routing)).await
    }
}
