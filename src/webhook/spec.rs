//! Who is told, of what, and how it goes with the telling.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::kind::EventType;
use crate::analysis::Severity;
use crate::instance::{FieldViolation, label_violations, shortened};
use crate::scrape::parse_url;
use crate::units::is_id;

/// Most webhooks: each transition looks at all of them.
pub const MAX_WEBHOOKS: usize = 100;
const MAX_URL_BYTES: usize = 2_048;
const MAX_INSTANCE_IDS: usize = 100;
const MAX_DESCRIPTION_BYTES: usize = 1_024;

/// Who is told, and of what. The secret stands elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookSpec {
    /// Its id.
    pub webhook_id: String,
    /// Where deliveries are posted to. May hold secrets.
    pub url: String,
    /// Of what it is told; never empty.
    pub types: Vec<EventType>,
    /// Of which instances; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instance_ids: Vec<String>,
    /// Of instances with all of these labels; empty for all.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Of bottlenecks that are at least so severe; none for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_severity: Option<Severity>,
    /// In the operator's words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// A webhook as the config file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfiguredWebhook {
    /// Who is told, and of what.
    pub spec: WebhookSpec,
    /// Whether it is told anything.
    pub is_enabled: bool,
}

/// Where a webhook is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WebhookSource {
    /// The config file: its secret is in a file, and it is changed there.
    ConfigFile,
    /// A call.
    Created,
}

/// A webhook.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Webhook {
    /// Who is told, and of what.
    pub spec: WebhookSpec,
    /// Where it is from.
    pub source: WebhookSource,
    /// When it was created, unix time in microseconds.
    pub created_us: i64,
    /// It is told nothing; none where it is.
    pub disabled: Option<Disabled>,
    /// How it goes.
    pub health: WebhookHealth,
}

/// A webhook is told nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub struct Disabled {
    /// Why.
    pub reason: DisabledReason,
    /// Since when, unix time in microseconds.
    pub since_us: i64,
}

/// Why a webhook is told nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DisabledReason {
    /// Somebody asked for it.
    Requested,
    /// The config file says so.
    Configured,
    /// The receiver answered that it is gone (410).
    Gone,
    /// Nothing but failures for too long.
    Failing,
}

/// How deliveries to a webhook go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct WebhookHealth {
    /// There were nothing but failures since then, unix time in microseconds; none where the last attempt was taken.
    pub failing_since_us: Option<i64>,
    /// The receiver wants nothing before, unix time in microseconds.
    pub not_before_us: Option<i64>,
}

impl DisabledReason {
    /// All of them.
    pub const ALL: &'static [Self] =
        &[Self::Requested, Self::Configured, Self::Gone, Self::Failing];

    /// The word in the store, and on the wire without its prefix.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "REQUESTED",
            Self::Configured => "CONFIGURED",
            Self::Gone => "GONE",
            Self::Failing => "FAILING",
        }
    }
}

impl Webhook {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.spec.webhook_id
    }

    /// Whether it is told of this, of an instance with these labels.
    pub fn wants(
        &self,
        kind: EventType,
        instance_id: &str,
        labels: &BTreeMap<String, String>,
    ) -> bool {
        let spec = &self.spec;
        let of_instance =
            spec.instance_ids.is_empty() || spec.instance_ids.iter().any(|id| id == instance_id);
        let mut asked = spec.labels.iter();
        let has_labels = asked.all(|(name, value)| labels.get(name) == Some(value));
        self.disabled.is_none() && spec.types.contains(&kind) && of_instance && has_labels
    }
}

impl WebhookSpec {
    /// Everything that is wrong with it. Where its URL leads is not looked at.
    pub fn violations(&self) -> Vec<FieldViolation> {
        let mut wrong = Vec::new();
        let mut say = |field: String, why: String| wrong.push(FieldViolation::new(field, why));
        if !is_id(&self.webhook_id) {
            let why = "must be 1 to 63 lower-case letters, digits, `-` and `.`, the first and the last no sign";
            say("webhook_id".to_owned(), why.to_owned());
        }
        if self.url.len() > MAX_URL_BYTES {
            let why = format!("{} bytes; at most {MAX_URL_BYTES}", self.url.len());
            say("url".to_owned(), why);
        } else if let Err(refusal) = parse_url(&self.url) {
            let why =
                format!("{refusal}: give a whole URL, such as https://hooks.example/perfagent");
            say("url".to_owned(), why);
        }
        let different: BTreeSet<&EventType> = self.types.iter().collect();
        if self.types.is_empty() || different.len() != self.types.len() {
            say(
                "types".to_owned(),
                "must be one or more, each once".to_owned(),
            );
        }
        if self.instance_ids.len() > MAX_INSTANCE_IDS {
            let why = format!(
                "{} ids; at most {MAX_INSTANCE_IDS}",
                self.instance_ids.len()
            );
            say("instance_ids".to_owned(), why);
        }
        let ids = self.instance_ids.iter().take(MAX_INSTANCE_IDS);
        for (place, id) in ids.enumerate().filter(|(_, id)| !is_id(id)) {
            let why = format!("`{}` is no id that an instance can have", shortened(id));
            say(format!("instance_ids[{place}]"), why);
        }
        if self.description.len() > MAX_DESCRIPTION_BYTES {
            let length = self.description.len();
            let why = format!("{length} bytes; at most {MAX_DESCRIPTION_BYTES}");
            say("description".to_owned(), why);
        }
        wrong.extend(label_violations(&self.labels));
        wrong
    }
}
