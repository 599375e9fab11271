//! `[webhook]`, how deliveries are made; `[[webhooks]]`, who is told of what.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::{Config, ConfigError};
use crate::analysis::Severity;
use crate::instance::violations_text;
use crate::scrape::{AllowRule, FetchLimits, Purpose, UrlPolicy};
use crate::webhook::{
    ConfiguredWebhook, EventType, MAX_WEBHOOKS, RetryPolicy, Secret, WebhookSpec,
};

/// `[webhook]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookConfig {
    /// Where deliveries may go beside public addresses: `10.0.0.0/8`, `hooks.example`, `*.example`.
    pub allow: Vec<String>,
    /// Time for a connection.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Time for a whole attempt.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Time before each try, the first's first; as many as there are tries.
    pub retries: Vec<String>,
    /// Nothing but failures for so long disables a webhook.
    #[serde(with = "humantime_serde")]
    pub disable_after: Duration,
    /// How long deliveries that have ended are kept.
    #[serde(with = "humantime_serde")]
    pub kept: Duration,
    /// How many deliveries are kept at most, beside those that are pending.
    pub most_kept: u32,
}

/// `[[webhooks]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookEntry {
    /// Its id.
    pub webhook_id: String,
    /// Where deliveries are posted to.
    pub url: String,
    /// File with its secret; with two, one a line, while receivers learn the new one. Read for each delivery.
    pub secret_file: PathBuf,
    /// Of what it is told; none for `workflow.status_changed`.
    #[serde(default)]
    pub types: Vec<EventType>,
    /// Of which instances; none for all.
    #[serde(default)]
    pub instance_ids: Vec<String>,
    /// Of instances with all of these labels; none for all.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Of bottlenecks that are at least so severe: `LOW`, `MEDIUM`, `HIGH`, `CRITICAL`; none for all.
    pub min_severity: Option<Severity>,
    /// In the operator's words.
    #[serde(default)]
    pub description: String,
    /// Whether it is told anything.
    #[serde(default = "yes")]
    pub enabled: bool,
}

/// How deliveries are made.
#[derive(Debug, Clone, Default)]
pub struct WebhookPolicy {
    /// Where they may go.
    pub urls: UrlPolicy,
    /// Time for a connection.
    pub connect_timeout: Duration,
    /// Time for a whole attempt.
    pub timeout: Duration,
    /// When they are tried.
    pub retries: RetryPolicy,
    /// How long those that have ended are kept.
    pub kept: Duration,
    /// How many are kept at most.
    pub most_kept: u32,
}

const KEYS: [&str; 9] = [
    "description",
    "enabled",
    "instance_ids",
    "labels",
    "min_severity",
    "secret_file",
    "types",
    "url",
    "webhook_id",
];
/// Longest that an attempt may take: so long it has a place.
const MAX_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_TRIES: usize = 50;
const DAY: Duration = Duration::from_secs(86_400);

impl Default for WebhookConfig {
    fn default() -> Self {
        let retries = RetryPolicy::default();
        let text = |time: &Duration| humantime::format_duration(*time).to_string();
        Self {
            allow: Vec::new(),
            connect_timeout: FetchLimits::default().connect_timeout,
            // what Standard Webhooks asks for at least
            timeout: Duration::from_secs(15),
            retries: retries.slots.iter().map(text).collect(),
            disable_after: retries.disable_after,
            kept: 7 * DAY,
            most_kept: 10_000,
        }
    }
}

impl Config {
    /// How deliveries are made.
    ///
    /// # Errors
    /// An entry of `[webhook] allow` that is none, a time that cannot be.
    pub fn webhook_policy(&self) -> Result<WebhookPolicy, ConfigError> {
        let of = &self.webhook;
        let allow = of.allow.iter().map(|rule| rule.parse::<AllowRule>());
        let allow: Result<_, _> = allow.collect();
        let most = Duration::from_millis(1);
        for (name, time) in [
            ("webhook.connect_timeout", of.connect_timeout),
            ("webhook.timeout", of.timeout),
        ] {
            if !(most..=MAX_TIMEOUT).contains(&time) {
                return Err(ConfigError::Time {
                    name,
                    least: most,
                    most: MAX_TIMEOUT,
                });
            }
        }
        for (name, time) in [
            ("webhook.disable_after", of.disable_after),
            ("webhook.kept", of.kept),
        ] {
            if time.is_zero() {
                return Err(ConfigError::ZeroTime(name));
            }
        }
        Ok(WebhookPolicy {
            urls: UrlPolicy {
                serves_loopback_only: false,
                allow: allow.map_err(ConfigError::WebhookAllow)?,
                purpose: Purpose::Webhook,
            },
            connect_timeout: of.connect_timeout,
            timeout: of.timeout,
            retries: RetryPolicy {
                slots: self.slots()?,
                disable_after: of.disable_after,
            },
            kept: of.kept,
            most_kept: of.most_kept,
        })
    }

    fn slots(&self) -> Result<Vec<Duration>, ConfigError> {
        let retries = &self.webhook.retries;
        if !(1..=MAX_TRIES).contains(&retries.len()) {
            return Err(ConfigError::Retries);
        }
        let slots = retries.iter().map(|text| {
            let time = humantime::parse_duration(text).map_err(|_| ConfigError::Retries)?;
            (time <= 30 * DAY)
                .then_some(time)
                .ok_or(ConfigError::Retries)
        });
        slots.collect()
    }

    /// The webhooks of the file.
    ///
    /// # Errors
    /// One that cannot be used, that is given twice, or whose URL deliveries may not go to; a secret file that cannot be
    /// used.
    pub fn configured_webhooks(&self) -> Result<Vec<ConfiguredWebhook>, ConfigError> {
        let policy = self.webhook_policy()?;
        let mut ids = BTreeSet::new();
        let checked = self.webhooks.iter().map(|entry| {
            let wrong = |problem: String| ConfigError::Webhook {
                webhook_id: entry.webhook_id.clone(),
                problem,
            };
            let spec = entry.spec();
            let violations = spec.violations();
            if !violations.is_empty() {
                return Err(wrong(violations_text(&violations)));
            }
            policy.urls.check(&spec.url).map_err(|refusal| {
                let hint = refusal.hint().unwrap_or_default();
                wrong(format!("{refusal}; {hint}"))
            })?;
            if !ids.insert(spec.webhook_id.clone()) {
                return Err(wrong("there are two of this id".to_owned()));
            }
            let file = entry.secret_file.display();
            let text = std::fs::read_to_string(&entry.secret_file);
            let text = text.map_err(|error| wrong(format!("cannot read {file}: {error}")))?;
            Secret::all_of(&text).map_err(|error| wrong(format!("{file} {error}")))?;
            Ok(ConfiguredWebhook {
                spec,
                is_enabled: entry.enabled,
            })
        });
        match self.webhooks.len() > MAX_WEBHOOKS {
            true => Err(ConfigError::TooManyWebhooks),
            false => checked.collect(),
        }
    }
}

impl WebhookEntry {
    fn spec(&self) -> WebhookSpec {
        WebhookSpec {
            webhook_id: self.webhook_id.clone(),
            url: self.url.clone(),
            types: match self.types.is_empty() {
                true => vec![EventType::DEFAULT],
                false => self.types.clone(),
            },
            instance_ids: self.instance_ids.clone(),
            labels: self.labels.clone(),
            min_severity: self.min_severity,
            description: self.description.clone(),
        }
    }
}

fn yes() -> bool {
    true
}

/// The first key of an entry that there is not, and those that there are.
pub(super) fn unknown_key(entries: &Value) -> Option<(String, Vec<String>)> {
    let entries = entries.as_array()?.iter().filter_map(Value::as_table);
    let mut keys = entries.flat_map(Table::keys);
    let key = keys.find(|key| !KEYS.contains(&key.as_str()))?;
    let known = KEYS.map(|known| format!("webhooks.{known}"));
    Some((format!("webhooks.{key}"), known.to_vec()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Write;

    const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

    /// What comes of a file, in which SECRET stands for a file with a secret.
    fn load(text: &str, secret: &str) -> Result<Config, ConfigError> {
        let (mut file, mut key) = (
            tempfile::NamedTempFile::new().unwrap(),
            tempfile::NamedTempFile::new().unwrap(),
        );
        key.write_all(secret.as_bytes()).unwrap();
        let text = text.replace("SECRET", key.path().to_str().unwrap());
        file.write_all(text.as_bytes()).unwrap();
        let config = Config::load(Some(file.path()), [])?;
        config.check().map(|()| config)
    }

    fn message(text: &str) -> String {
        load(text, SECRET).unwrap_err().to_string()
    }

    const HOOK: &str = "[[webhooks]]\nwebhook_id = \"pager\"\nurl = \"https://hooks.example/x\"\nsecret_file = \"SECRET\"\n";

    #[test]
    fn a_webhook_of_the_file_is_told_of_statuses_unless_it_says_more() {
        let config = load(HOOK, SECRET).unwrap();
        assert_eq!(config.webhooks.len(), 1);
        let spec = config.webhooks.first().unwrap().spec();
        assert_eq!(spec.types, [EventType::WorkflowStatusChanged]);
        let more = HOOK.to_owned()
            + "types = [\"bottleneck.opened\"]\nmin_severity = \"HIGH\"\nenabled = false\n";
        let entry = load(&more, SECRET).unwrap().webhooks.remove(0);
        assert_eq!(entry.spec().min_severity, Some(Severity::High));
        assert!(!entry.enabled);
    }

    #[test]
    fn the_schedule_is_that_of_the_standard_unless_it_is_said() {
        let policy = Config::default().webhook_policy().unwrap();
        assert_eq!(policy.retries, RetryPolicy::default());
        let text = "[webhook]\nretries = [\"0s\", \"1s\"]\nallow = [\"127.0.0.1\"]\n";
        let policy = load(text, SECRET).unwrap().webhook_policy().unwrap();
        let seconds: Vec<u64> = policy.retries.slots.iter().map(Duration::as_secs).collect();
        assert_eq!(seconds, [0, 1]);
    }

    #[test]
    fn wrong_ones_are_named() {
        let typo = message(&HOOK.replace("secret_file", "secret_fil"));
        assert!(typo.ends_with("is `webhooks.secret_file`"), "{typo}");
        let twice = message(&(HOOK.to_owned() + HOOK));
        assert_eq!(twice, "webhooks: pager: there are two of this id");
        let url = message(&HOOK.replace("hooks.example", "10.1.2.3"));
        assert!(url.contains("[webhook] allow"), "{url}");
        let secret = load(HOOK, "password").unwrap_err().to_string();
        assert!(
            secret.contains("whsec_") && !secret.contains("password"),
            "{secret}"
        );
        let none = message(&HOOK.replace("SECRET", "/nowhere"));
        assert!(none.contains("cannot read /nowhere"), "{none}");
        let kind = message(&(HOOK.to_owned() + "types = [\"workflow.started\"]\n"));
        assert!(kind.contains("workflow.stage_changed"), "{kind}");
        for (line, told) in [
            ("retries = []", "webhook.retries"),
            ("retries = [\"soon\"]", "webhook.retries"),
            ("timeout = \"2h\"", "webhook.timeout"),
            ("kept = \"0s\"", "webhook.kept"),
            ("allow = [\"http://x\"]", "webhook.allow"),
        ] {
            let told_of = message(&format!("[webhook]\n{line}\n"));
            assert!(told_of.contains(told), "{told_of}");
        }
        // a section and a list of nearly the same name
        let mixed = message("[webhok]\nkept = \"1s\"\n");
        assert!(mixed.ends_with("is `webhook`"), "{mixed}");
    }
}
