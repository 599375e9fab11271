//! What follows from an attempt: for the delivery, and for its webhook.

use std::time::{Duration, UNIX_EPOCH};

use super::attempt::Answer;
use super::spec::{DisabledReason, WebhookHealth};

/// When a delivery is tried, and when a receiver is given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Time before each try: the first is the first try's. As many as there are tries.
    pub slots: Vec<Duration>,
    /// Nothing but failures for so long disables a webhook.
    pub disable_after: Duration,
}

/// Longest `Retry-After` that is heeded; what asks for more is tried after it.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(86_400);

/// Each time is longer by up to this share of it, so that what failed together is not tried together.
const JITTER: f64 = 0.2;

/// HTTP status of a receiver that wants nothing any more.
const GONE: u16 = 410;
/// And of those that say when they want more.
const SLOW_DOWN: [u16; 4] = [429, 502, 503, 504];

impl Default for RetryPolicy {
    /// The schedule of the Standard Webhooks specification: ten tries over 75 hours. Five days of nothing but failures.
    fn default() -> Self {
        let seconds = [
            0, 5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400,
        ];
        Self {
            slots: seconds.map(Duration::from_secs).to_vec(),
            disable_after: Duration::from_secs(120 * 3_600),
        }
    }
}

/// What becomes of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The receiver has it.
    Delivered,
    /// It is tried again at this time, unix time in microseconds.
    Retry {
        /// When.
        due_us: i64,
    },
    /// It is given up; the next of its order goes on.
    Failed,
}

/// What follows from an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    /// For the delivery.
    pub next: Next,
    /// For its webhook.
    pub health: WebhookHealth,
    /// The webhook is disabled with it.
    pub disables: Option<DisabledReason>,
}

/// What follows from an attempt that ended at `now_us`, unix time in microseconds, as try number `tries` (from 1).
/// `random` is from 0 to 1.
pub fn judge(
    answer: &Answer,
    tries: u32,
    health: WebhookHealth,
    now_us: i64,
    policy: &RetryPolicy,
    random: f64,
) -> Judgement {
    if answer.is_taken() {
        let health = WebhookHealth {
            failing_since_us: None,
            ..health
        };
        return Judgement {
            next: Next::Delivered,
            health,
            disables: None,
        };
    }
    let failing_since_us = health.failing_since_us.unwrap_or(now_us);
    let wanted = asked_for(answer, now_us).map(|wait| after(now_us, wait));
    let slot = usize::try_from(tries)
        .ok()
        .and_then(|place| policy.slots.get(place));
    let next = match slot {
        // what the receiver asks for is the least that it is left alone
        Some(slot) => Next::Retry {
            due_us: after(now_us, slot.mul_f64(1.0 + JITTER * random))
                .max(wanted.unwrap_or(now_us)),
        },
        None => Next::Failed,
    };
    let disables = match answer.status() {
        Some(GONE) => Some(DisabledReason::Gone),
        _ if after(failing_since_us, policy.disable_after) <= now_us => {
            Some(DisabledReason::Failing)
        }
        _ => None,
    };
    Judgement {
        next,
        health: WebhookHealth {
            failing_since_us: Some(failing_since_us),
            not_before_us: wanted.max(health.not_before_us.filter(|at| *at > now_us)),
        },
        disables,
    }
}

/// How long a receiver wants to be left alone: seconds or an HTTP date (RFC 9110, 10.2.3). What is neither says nothing.
fn asked_for(answer: &Answer, now_us: i64) -> Option<Duration> {
    let Answer::Status {
        status,
        retry_after: Some(text),
    } = answer
    else {
        return None;
    };
    if !SLOW_DOWN.contains(status) {
        return None;
    }
    let text = text.trim();
    let wait = match text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        // digits beyond any number ask for longer than is heeded
        true => Duration::from_secs(text.parse().unwrap_or(u64::MAX)),
        false => {
            let at = httpdate::parse_http_date(text).ok()?;
            let now = UNIX_EPOCH + Duration::from_micros(u64::try_from(now_us).ok()?);
            at.duration_since(now).unwrap_or_default()
        }
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

fn after(us: i64, wait: Duration) -> i64 {
    us.saturating_add(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX))
}
