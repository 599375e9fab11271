//! The config file (TOML), variables over it, flags over both.
//!
//! Variables are `PERFAGENT_SECTION__KEY`, their values TOML: `PERFAGENT_SCRAPE__ALLOW='["10.0.0.0/8"]'`; text that
//! is no TOML value is taken as a string.

mod actuators;
mod error;
mod postgres;
mod sections;
pub mod security;
mod slos;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod webhooks;
mod workflows;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::actuator::ActuatorEntry;
use crate::analysis::Thresholds;
use crate::engine::custom::CustomEngine;
use crate::engine::{EngineProfile, Registry};
use crate::instance::{Instance, violations_text};
use crate::optimization::{CustomOptimizer, OptimizerEntry};
use crate::scrape::{AllowRule, FetchLimits, UrlPolicy};
use crate::units::nearest;

use security::AuthConfig;

pub use actuators::CHECKED_ACTUATORS;
pub use error::ConfigError;
pub use postgres::PostgresOptions;
pub use sections::{InstanceEntry, ScrapeConfig, ServerConfig, SloEntry, StoreConfig};
pub use webhooks::{WebhookConfig, WebhookEntry, WebhookPolicy};
pub use workflows::{APPROVAL_TIMES, MAX_APPROVALS, STEP_TIMES, TimeoutPolicy, WorkflowsConfig};

/// Everything that can be configured.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The agent as a server.
    pub server: ServerConfig,
    /// Who may call.
    pub auth: AuthConfig,
    /// How engines are asked.
    pub scrape: ScrapeConfig,
    /// Where state lives.
    pub store: StoreConfig,
    /// What workflows need before they change anything, and how long they may take.
    pub workflows: WorkflowsConfig,
    /// How deliveries of webhooks are made.
    pub webhook: WebhookConfig,
    /// Numbers that values are held against, by name, where they are not to be the defaults.
    pub thresholds: BTreeMap<String, f64>,
    /// What users were promised, of instances that bring no SLOs of their own.
    #[serde(skip_serializing)]
    pub slos: Vec<SloEntry>,
    /// Instances that are known from the start; read-only rows.
    #[serde(skip_serializing)]
    pub instances: Vec<InstanceEntry>,
    /// Engines beside the built-in ones.
    #[serde(skip_serializing)]
    pub engines: Vec<CustomEngine>,
    /// Optimizers beside the built-in levers.
    #[serde(skip_serializing)]
    pub optimizers: Vec<OptimizerEntry>,
    /// What reads and writes the settings of instances.
    #[serde(skip_serializing)]
    pub actuators: Vec<ActuatorEntry>,
    /// Who is told of what happens.
    #[serde(skip_serializing)]
    pub webhooks: Vec<WebhookEntry>,
}

const MAX_WORKERS: usize = 1_024;

impl Config {
    /// Reads the file, if any, and lays the variables over it.
    ///
    /// # Errors
    /// See [`ConfigError`]; the first problem found.
    pub fn load(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let mut table = Table::new();
        if let Some(path) = file {
            let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
                path: path.to_owned(),
                source,
            })?;
            let origin = path.display().to_string();
            table = parse(&text, &origin)?;
            check_keys(&table, &origin)?;
            // once from the text, for messages with line and column
            config = parse(&text, &origin)?;
        }
        for (name, value) in variables {
            let Some((section, key)) = section_and_key(&name) else {
                if name.starts_with("PERFAGENT_") && !OTHER_VARIABLES.contains(&name.as_str()) {
                    return Err(unknown_variable(name));
                }
                continue;
            };
            let mut entry = Table::new();
            entry.insert(key, value_of(&value));
            let mut one = Table::new();
            one.insert(section.clone(), Value::Table(entry.clone()));
            check_keys(&one, &name)?;
            let merged = table
                .entry(section)
                .or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(merged) = merged {
                merged.extend(entry);
            }
            config =
                table
                    .clone()
                    .try_into()
                    .map_err(|error: toml::de::Error| ConfigError::Syntax {
                        origin: name,
                        message: error.message().to_owned(),
                    })?;
        }
        Ok(config)
    }

    /// Checks what types alone cannot: rules, engines, times, exposure.
    ///
    /// # Errors
    /// See [`ConfigError`]; the first problem found.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.instances()?;
        self.thresholds()?;
        self.slos()?;
        self.optimizers()?;
        self.configured_webhooks()?;
        self.store.check()?;
        for (name, time) in [
            ("scrape.timeout", self.scrape.timeout),
            ("scrape.connect_timeout", self.scrape.connect_timeout),
            ("server.drain_timeout", self.server.drain_timeout),
            ("server.stream_lifetime", self.server.stream_lifetime),
            ("server.stream_stall", self.server.stream_stall),
        ] {
            if time.is_zero() {
                return Err(ConfigError::ZeroTime(name));
            }
        }
        for (name, bound) in [
            ("server.max_calls", self.server.max_calls),
            ("server.max_connections", self.server.max_connections),
        ] {
            if !(1..=1_000_000).contains(&bound) {
                return Err(ConfigError::Bound(name));
            }
        }
        let workers = self.server.workers;
        if workers.is_some_and(|workers| !(1..=MAX_WORKERS).contains(&workers)) {
            return Err(ConfigError::Workers);
        }
        let keepalive = Duration::from_millis(10)..=Duration::from_secs(86_400);
        for (name, time) in [
            ("server.keepalive_interval", self.server.keepalive_interval),
            ("server.keepalive_timeout", self.server.keepalive_timeout),
        ] {
            if !keepalive.contains(&time) {
                return Err(ConfigError::Keepalive(name));
            }
        }
        self.workflows.check(self.auth.credentials_file.is_some())?;
        security::check(&self.server)
    }

    /// The built-in engines and those of the file.
    ///
    /// # Errors
    /// An engine that cannot be used.
    pub fn registry(&self) -> Result<Registry, ConfigError> {
        let mut registry = Registry::builtin();
        for engine in &self.engines {
            let profile: EngineProfile = engine.profile()?;
            registry.add(profile);
        }
        Ok(registry)
    }

    /// The instances of the file.
    ///
    /// # Errors
    /// One that cannot be used, that is given twice, or whose URLs may not be fetched.
    pub fn instances(&self) -> Result<Vec<Instance>, ConfigError> {
        let (registry, policy) = (self.registry()?, self.url_policy()?);
        let actuators = self.actuators()?;
        let mut ids = BTreeSet::new();
        let checked = self.instances.iter().map(|entry| {
            let mut spec = entry.spec();
            let wrong = |problem: String| ConfigError::Instance {
                instance_id: entry.instance_id.clone(),
                problem,
            };
            let mut violations = spec.violations(&registry);
            let actuator = spec.actuator.as_deref();
            violations.extend(actuator.and_then(|name| actuators.violation(name)));
            if !violations.is_empty() {
                return Err(wrong(violations_text(&violations)));
            }
            for url in &spec.metrics_urls {
                policy.check(url).map_err(|refusal| {
                    let hint = refusal.hint().unwrap_or_default();
                    wrong(format!("{refusal}; {hint}"))
                })?;
            }
            if !ids.insert(spec.instance_id.clone()) {
                return Err(wrong("there are two of this id".to_owned()));
            }
            spec.hide_launch_args(&registry);
            Ok(Instance::configured(spec))
        });
        checked.collect()
    }

    /// The optimizers of the file.
    ///
    /// # Errors
    /// One that cannot be used, by its name and place.
    pub fn optimizers(&self) -> Result<Vec<CustomOptimizer>, ConfigError> {
        let registry = self.registry()?;
        Ok(CustomOptimizer::all(&self.optimizers, &registry.names())?)
    }

    /// The thresholds in force.
    ///
    /// # Errors
    /// One that there is not, or a value that makes no sense.
    pub fn thresholds(&self) -> Result<Thresholds, ConfigError> {
        let mut thresholds = Thresholds::default();
        for (name, value) in &self.thresholds {
            thresholds.set(name, *value)?;
        }
        Ok(thresholds)
    }

    /// Which URLs may be fetched.
    ///
    /// # Errors
    /// An entry of `[scrape] allow` that is none.
    pub fn url_policy(&self) -> Result<UrlPolicy, ConfigError> {
        let allow = self
            .scrape
            .allow
            .iter()
            .map(|rule| rule.parse::<AllowRule>())
            .collect::<Result<_, _>>()?;
        Ok(UrlPolicy {
            serves_loopback_only: self.server.listen.ip().is_loopback(),
            allow,
            ..UrlPolicy::default()
        })
    }

    /// Limits of a request to an engine.
    pub fn fetch_limits(&self) -> FetchLimits {
        FetchLimits {
            connect_timeout: self.scrape.connect_timeout,
            timeout: self.scrape.timeout,
            ..FetchLimits::default()
        }
    }
}

fn parse<T: for<'de> Deserialize<'de>>(text: &str, origin: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| ConfigError::Syntax {
        origin: origin.to_owned(),
        message: error.to_string(),
    })
}

/// `PERFAGENT_SCRAPE__TIMEOUT` → `scrape`, `timeout`.
fn section_and_key(name: &str) -> Option<(String, String)> {
    let (section, key) = name.strip_prefix("PERFAGENT_")?.split_once("__")?;
    Some((section.to_ascii_lowercase(), key.to_ascii_lowercase()))
}

/// Variables that are no keys: flags of the command line.
const OTHER_VARIABLES: [&str; 4] = [
    "PERFAGENT_CA_CERT",
    "PERFAGENT_CONFIG",
    "PERFAGENT_SERVER",
    "PERFAGENT_TOKEN",
];

fn unknown_variable(name: String) -> ConfigError {
    let known = every_key();
    let keys = known.iter().flat_map(|(section, keys)| {
        let keys = keys.as_table().into_iter().flat_map(Table::keys);
        keys.map(move |key| format!("PERFAGENT_{section}__{key}").to_ascii_uppercase())
    });
    let candidates: Vec<String> = keys.chain(OTHER_VARIABLES.map(str::to_owned)).collect();
    let nearest = nearest(&name, candidates.iter().map(String::as_str)).unwrap_or_default();
    ConfigError::UnknownVariable {
        nearest: nearest.to_owned(),
        name,
    }
}

fn value_of(text: &str) -> Value {
    let parsed = toml::from_str::<Table>(&format!("value = {text}"));
    parsed
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

/// A table with every section and key.
fn every_key() -> Table {
    let mut config = Config::default();
    // what is unset would not show
    security::set_all(&mut config);
    config.store.state_dir = Some(PathBuf::new());
    config.store.url = Some(String::new());
    config.store.password_file = Some(PathBuf::new());
    config.store.listen_url = Some(String::new());
    config.server.otlp_endpoint = Some(String::new());
    config.server.workers = Some(1);
    let thresholds = Thresholds::TABLE.iter();
    config.thresholds = thresholds
        .map(|one| (one.name.to_owned(), one.default))
        .collect();
    Table::try_from(config).unwrap_or_default()
}

/// Sections and keys against those that there are.
fn check_keys(table: &Table, origin: &str) -> Result<(), ConfigError> {
    let mut known = every_key();
    for list in [
        "actuators",
        "engines",
        "instances",
        "optimizers",
        "slos",
        "webhooks",
    ] {
        known.insert(list.to_owned(), Value::Array(Vec::new()));
    }
    for (section, content) in table {
        let unknown = |key: String, candidates: Vec<String>| ConfigError::UnknownKey {
            origin: origin.to_owned(),
            nearest: nearest(&key, candidates.iter().map(String::as_str))
                .unwrap_or_default()
                .to_owned(),
            key,
        };
        let Some(known_content) = known.get(section) else {
            let sections = known.keys().cloned().collect();
            return Err(unknown(section.clone(), sections));
        };
        let unknown_key = match section.as_str() {
            "actuators" => actuators::unknown_key(content),
            "webhooks" => webhooks::unknown_key(content),
            _ => None,
        };
        if let Some((key, candidates)) = unknown_key {
            return Err(unknown(key, candidates));
        }
        let (Value::Table(content), Value::Table(known_keys)) = (content, known_content) else {
            continue;
        };
        if let Some(key) = content.keys().find(|key| !known_keys.contains_key(*key)) {
            let candidates = known_keys.keys().map(|known| format!("{section}.{known}"));
            return Err(unknown(format!("{section}.{key}"), candidates.collect()));
        }
    }
    Ok(())
}
