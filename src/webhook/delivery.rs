//! What is delivered: an id that stays, and a body that is thin. Who wants to know more asks the agent.

use std::time::{Duration, UNIX_EPOCH};

use ring::digest::{SHA256, digest};
use serde_json::{Map, Value};

use super::spec::Webhook;
use crate::units::hex;

/// Most bytes of a body, as Standard Webhooks recommends. Ids are bounded, so that none comes near.
pub const MAX_BODY_BYTES: usize = 20_000;
/// Bytes of the digest that make an id.
const ID_BYTES: usize = 16;

/// A delivery that is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDelivery {
    /// `msg_` and 32 hexadecimal digits: the same for the same event and webhook, over all attempts.
    pub delivery_id: String,
    /// To whom.
    pub webhook_id: String,
    /// What it is in order with.
    pub ordered_by: String,
    /// Its type.
    pub kind: String,
    /// Of which workflow; none where it is of none.
    pub workflow_id: Option<String>,
    /// Of which instance.
    pub instance_id: String,
    /// Revision of the event; none where it is of no workflow.
    pub revision: Option<u64>,
    /// JSON, `{"type", "timestamp", "data"}`.
    pub body: String,
}

/// A delivery and how it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// What is delivered.
    pub what: NewDelivery,
    /// Place among all, in the order in which they came to be.
    pub place: u64,
    /// How it is.
    pub state: DeliveryState,
    /// How many attempts there were.
    pub attempts: u32,
    /// How many of them since it was last asked for: its place in the schedule.
    pub tries: u32,
    /// When it came to be, unix time in microseconds.
    pub created_us: i64,
    /// When it is tried next, unix time in microseconds; none where others of its order come before it, or it has ended.
    pub due_us: Option<i64>,
    /// When it ended, unix time in microseconds.
    pub ended_us: Option<i64>,
}

/// How a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliveryState {
    /// It is tried, or waits for those before it.
    Pending,
    /// The receiver took it.
    Delivered,
    /// It was given up.
    Failed,
}

/// What tells a delivery from all others.
pub(super) struct Identity {
    pub(super) event: String,
    pub(super) ordered_by: String,
    pub(super) workflow_id: Option<String>,
    pub(super) instance_id: String,
    pub(super) revision: Option<u64>,
}

impl DeliveryState {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Pending, Self::Delivered, Self::Failed];

    /// The word in the store, and on the wire without its prefix.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Delivered => "DELIVERED",
            Self::Failed => "FAILED",
        }
    }
}

impl NewDelivery {
    pub(super) fn new(
        webhook: &Webhook,
        kind: &str,
        at_us: i64,
        data: Map<String, Value>,
        of: Identity,
    ) -> Self {
        let name = format!("{}\n{}\n{kind}", webhook.id(), of.event);
        let digest = digest(&SHA256, name.as_bytes());
        let id = digest.as_ref().get(..ID_BYTES).unwrap_or_default();
        Self {
            // no full stop within: it is what a signature's parts are told apart by
            delivery_id: format!("msg_{}", hex(id)),
            webhook_id: webhook.id().to_owned(),
            ordered_by: of.ordered_by,
            kind: kind.to_owned(),
            workflow_id: of.workflow_id,
            instance_id: of.instance_id,
            revision: of.revision,
            body: body(kind, at_us, data),
        }
    }
}

/// Body of a ping, by which an operator tries a webhook. At this time, unix time in microseconds.
pub fn test_body(webhook_id: &str, at_us: i64) -> String {
    let mut data = Map::new();
    data.insert("webhook_id".to_owned(), webhook_id.into());
    body("webhook.test", at_us, data)
}

fn body(kind: &str, at_us: i64, data: Map<String, Value>) -> String {
    let mut body = Map::new();
    body.insert("type".to_owned(), kind.into());
    body.insert("timestamp".to_owned(), instant(at_us).into());
    body.insert("data".to_owned(), Value::Object(data));
    Value::Object(body).to_string()
}

/// RFC 3339 of unix time in microseconds.
pub(super) fn instant(us: i64) -> String {
    let since = Duration::from_micros(u64::try_from(us).unwrap_or_default());
    humantime::format_rfc3339_micros(UNIX_EPOCH + since).to_string()
}
