//! What happens in an engine, for whoever counts it.

use super::request::RequestSpec;
use super::step_time::Batch;

/// Something that happened.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
    /// A request came in, and was not refused.
    Arrived(RequestSpec),
    /// A request was refused at the door.
    Rejected,
    /// A request runs for the first time.
    Scheduled {
        /// Since it arrived.
        queue_seconds: f64,
        /// Tokens of its prompt.
        prompt_tokens: u32,
        /// Of them, those that were in the cache.
        cached_tokens: u32,
    },
    /// A request lost its place and its blocks, and waits again.
    Preempted,
    /// One step of the engine.
    Step {
        /// What was computed.
        batch: Batch,
        /// How long it took.
        seconds: f64,
        /// Of it, how long the accelerator took.
        device_seconds: f64,
        /// Whether it was a decode step that no captured graph holds.
        eager: bool,
        /// Requests that got something out of it.
        outputs: u32,
    },
    /// A request had its first token.
    FirstToken {
        /// Since it arrived.
        seconds: f64,
        /// Tokens of its prompt.
        prompt_tokens: u32,
        /// Of them, those that were in the cache.
        cached_tokens: u32,
    },
    /// A request had tokens after its first.
    Tokens {
        /// How many came at once: more than one only by speculation.
        count: u32,
        /// Since the last ones.
        gap_seconds: f64,
    },
    /// Tokens were guessed ahead.
    Speculated {
        /// How many.
        guessed: u32,
        /// How many were right.
        accepted: u32,
    },
    /// A request left the engine.
    Finished(Finished),
}

/// A request that left the engine. Times are seconds of the simulation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Finished {
    /// As it arrived.
    pub request: RequestSpec,
    /// Why.
    pub reason: FinishReason,
    /// When it arrived.
    pub arrived: f64,
    /// When it first ran, if it did.
    pub first_scheduled: Option<f64>,
    /// When it had its first token, if it had one.
    pub first_token: Option<f64>,
    /// When it ended.
    pub ended: f64,
    /// Tokens that it had.
    pub output_tokens: u32,
    /// Tokens of its prompt that were in the cache.
    pub cached_tokens: u32,
    /// How often it was preempted.
    pub preemptions: u32,
}

/// Why a request left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FinishReason {
    /// A stop token.
    Stop,
    /// As long as was asked for.
    Length,
    /// Its client went.
    Abort,
    /// It failed in the engine.
    Error,
}

/// Who counts.
pub trait Sink {
    /// Something happened at `now`, in seconds of the simulation.
    fn event(&mut self, now: f64, event: &Event);
}

impl Sink for () {
    fn event(&mut self, _: f64, _: &Event) {}
}

impl<A: Sink, B: Sink> Sink for (A, B) {
    fn event(&mut self, now: f64, event: &Event) {
        self.0.event(now, event);
        self.1.event(now, event);
    }
}

impl<S: Sink> Sink for &mut S {
    fn event(&mut self, now: f64, event: &Event) {
        (**self).event(now, event);
    }
}
