//! Webhooks: who is told of what, in what words, how often it is tried, and in what order. Pure.
//!
//! ```text
//! transition of a workflow ┐
//! bottleneck of an instance ┴→ notices → filter of each webhook → deliveries → signed → attempt → next state
//! ```
//!
//! As [Standard Webhooks](https://www.standardwebhooks.com) says: a delivery keeps its id over all attempts, each attempt
//! is signed anew, and a receiver that is gone (410) is not told any more. Deliveries of one workflow, or of the
//! bottlenecks of one instance, come strictly in order; what one gives up does not hold up the next.

mod attempt;
mod delivery;
mod kind;
mod notice;
mod schedule;
mod secret;
mod spec;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
mod tests;

pub use attempt::{Answer, Attempt, MAX_PROBLEM_BYTES};
pub use delivery::{Delivery, DeliveryState, MAX_BODY_BYTES, NewDelivery, test_body};
pub use kind::EventType;
pub use notice::{BottleneckTurn, bottleneck_turns, of_bottlenecks, of_transition};
pub use schedule::{Judgement, MAX_RETRY_AFTER, Next, RetryPolicy, judge};
pub use secret::{BadSecret, OLD_SECRET_KEPT, SECRET_BYTES, Secret, Signed, sign};
pub use spec::{
    ConfiguredWebhook, Disabled, DisabledReason, MAX_WEBHOOKS, Webhook, WebhookHealth,
    WebhookSource, WebhookSpec,
};
