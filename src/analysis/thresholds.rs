//! The numbers that checks hold values against: data, each with its reason.

use crate::units::nearest;

/// A threshold, as it is listed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ThresholdInfo {
    /// Name with its unit; the key in the config file and in requests.
    pub name: &'static str,
    /// What holds where nobody says otherwise.
    pub default: f64,
    /// Smallest that makes sense.
    pub min: f64,
    /// Largest that makes sense.
    pub max: f64,
    /// What it decides, and why it is what it is.
    pub reason: &'static str,
}

/// A threshold that cannot be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ThresholdError {
    /// There is none of that name.
    #[error("there is no threshold `{name}`; did you mean `{nearest}`?")]
    Unknown {
        /// What was asked for.
        name: String,
        /// The nearest there is.
        nearest: &'static str,
    },
    /// A value that makes no sense.
    #[error("{name} = {value}: a number from {min} to {max} is meant")]
    OutOfRange {
        /// Which.
        name: &'static str,
        /// What it was to be.
        value: f64,
        /// Smallest.
        min: f64,
        /// Largest.
        max: f64,
    },
}

macro_rules! thresholds {
    ($($(#[doc = $doc:literal])+ $name:ident = $default:literal in $min:literal..$max:literal,)+) => {
        /// Thresholds in force.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Thresholds {
            $($(#[doc = $doc])+ pub $name: f64,)+
        }

        impl Default for Thresholds {
            fn default() -> Self {
                Self { $($name: $default,)+ }
            }
        }

        impl Thresholds {
            /// All of them, in the order of the table.
            pub const TABLE: &'static [ThresholdInfo] = &[$(ThresholdInfo {
                name: stringify!($name),
                default: $default,
                min: $min,
                max: $max,
                reason: concat!($($doc),+).trim_ascii(),
            },)+];

            /// The value of this name.
            pub fn get(&self, name: &str) -> Option<f64> {
                match name {
                    $(stringify!($name) => Some(self.$name),)+
                    _ => None,
                }
            }

            fn slot(&mut self, name: &str) -> Option<&mut f64> {
                match name {
                    $(stringify!($name) => Some(&mut self.$name),)+
                    _ => None,
                }
            }
        }
    };
}

thresholds! {
    /// Seconds without a token and a step while requests are held, from which on an engine is stalled. A step of a long prefill takes a few seconds at most.
    stall_seconds = 15.0 in 1.0..300.0,
    /// Requests that ended or got a first token in the window, below which nothing is said of latency: a handful tells nothing of its tail.
    min_requests = 5.0 in 1.0..10000.0,
    /// Mean number of waiting requests from which on there is a queue. TGI's flickers between 0 and 3 on a healthy server; what counts is the time that it costs.
    queue_requests = 0.5 in 0.0..100000.0,
    /// Share of waiting requests from which on they wait for an adapter, a grammar or a transfer and not for room: most of them.
    deferred_share_ratio = 0.5 in 0.0..1.0,
    /// Share of the sequence cap from which on the batch is at it. Gauges are read between steps, when a place may just be free.
    cap_share_ratio = 0.95 in 0.5..1.0,
    /// Most that the batch may vary below its peak, as a share of it, to show a cap that nobody tells.
    plateau_ratio = 0.1 in 0.0..1.0,
    /// Share of the KV cache below which it does not hold requests back (design: a sequence cap is one only below it).
    kv_room_ratio = 0.8 in 0.0..1.0,
    /// Peak share of the KV cache from which on it is full: the last block is rarely given away, as one that grows needs it.
    kv_full_ratio = 0.85 in 0.0..1.0,
    /// Peak share of the KV cache from which on an engine that reserves room for outputs to come (SGLang) holds requests back.
    kv_reserving_full_ratio = 0.6 in 0.0..1.0,
    /// Range of what an engine reserves (TGI), as a share of its peak, below which the reservation is full while requests wait: within a request or so of its limit.
    reservation_range_ratio = 0.2 in 0.0..1.0,
    /// Mean share of the KV cache from which on it is nearly full though nobody waits: the next burst is preempted.
    kv_near_ratio = 0.9 in 0.0..1.0,
    /// Preemptions for each finished request from which on they matter: each computes a request anew.
    preemption_ratio = 0.01 in 0.0..10.0,
    /// Token budget of a step below which it is small: the smallest default of vLLM and SGLang on accelerators.
    small_token_budget = 2048.0 in 1.0..1000000.0,
    /// Share of the token budget that steps use on average from which on they are cut at it.
    budget_share_ratio = 0.6 in 0.1..1.0,
    /// Share of the mean time to first token that makes a part of it the cause.
    ttft_share_ratio = 0.5 in 0.1..1.0,
    /// Share of the mean time to first token outside queue and prefill from which on the front end is the cause.
    frontend_share_ratio = 0.4 in 0.1..1.0,
    /// Mean prompt length over the median from which on a few long prompts make up most of the work.
    prompt_skew_ratio = 2.5 in 1.0..1000.0,
    /// 99th percentile of the gap between tokens over its median from which on single steps stumble. Equal steps give less than 2.
    itl_tail_ratio = 3.0 in 1.0..1000.0,
    /// Share of computed tokens that are of prompts from which on these can make decodes stumble.
    prefill_share_ratio = 0.2 in 0.0..1.0,
    /// Share of a step in which the accelerator waits for the host from which on the host is the cause: more than half.
    host_share_ratio = 0.5 in 0.0..1.0,
    /// Share of decode passes launched kernel by kernel from which on batches are beyond the captured graphs.
    eager_pass_ratio = 0.2 in 0.0..1.0,
    /// Batch at its largest over its smallest in the window from which on throughput can be held against it.
    batch_spread_ratio = 1.5 in 1.0..100.0,
    /// Percent of throughput for a percent of batch, among large batches, below which larger ones give nothing. Where steps are bound by memory it is near 1, where by computing near 0: half-way between.
    flat_elasticity_ratio = 0.5 in 0.0..1.0,
    /// Share of guessed tokens accepted below which guessing loses: users report losses at 0.4 and below (vLLM issue 19254).
    speculation_acceptance_ratio = 0.4 in 0.0..1.0,
    /// Hit ratio of the prefix cache below which it is cold while it rises.
    cold_hit_ratio = 0.5 in 0.0..1.0,
    /// By how much the hit ratio rises from the first to the last third of the window while a cache fills.
    hit_rise_ratio = 0.1 in 0.0..1.0,
    /// Share of requests whose client went away from which on it is said.
    abort_ratio = 0.05 in 0.0..1.0,
    /// Step time of one replica over the median of the others from which on it is slow. Replicas of one kind differ by a few percent.
    slow_replica_ratio = 1.4 in 1.0..100.0,
    /// Requests at the fullest replica over the median of the others from which on the load is uneven.
    imbalance_ratio = 1.8 in 1.0..100.0,
    /// Seconds of the window from which on capacity that is never used is told: less may be a quiet hour.
    overprovisioned_window_seconds = 1800.0 in 60.0..1000000.0,
    /// Share of the time in prefills, on engines where they stop all else (TGI), from which on neither more places nor more memory let requests begin sooner.
    prefill_saturated_ratio = 0.7 in 0.0..1.0,
    /// Preemptions below which nothing is said: one request that was thrown out is an accident.
    min_preemptions = 2.0 in 1.0..10000.0,
    /// Requests in their prefill on average below which prompts are not what keeps the engine busy: for half of the time there is none.
    prefilling_requests = 0.5 in 0.0..100.0,
    /// Share of its peak by which a batch may stay below it on average to be one that stays.
    still_ratio = 0.02 in 0.0..1.0,
    /// Share of computed tokens that are of prompts from which on these make tokens late, and throughput is flat because requests come no faster.
    mostly_prompts_ratio = 0.5 in 0.0..1.0,
    /// Share of the time outside queue and prefill that requests are seen to be deferred from which on that is what they do there: scrapes see few of them.
    deferred_seen_ratio = 0.3 in 0.0..1.0,
    /// Requests that a replica serves over the median of the others from which on it has more to do, and is not only slower.
    serves_more_ratio = 1.25 in 1.0..100.0,
    /// Tokens of a step below which more of them cost next to nothing: reading the weights takes longer than computing.
    speculation_free_tokens = 64.0 in 0.0..10000.0,
    /// Tokens of a round from which on guessing pays while its tokens are free: drafting them takes up to a third of a step.
    speculation_paying_length_tokens = 1.3 in 1.0..100.0,
    /// Share of the sequence cap used at the peak below which there is far more than is needed.
    overprovisioned_cap_ratio = 0.1 in 0.0..1.0,
    /// Peak share of the KV cache below which there is far more than is needed.
    overprovisioned_kv_ratio = 0.2 in 0.0..1.0,
}

impl Thresholds {
    /// Changes one.
    ///
    /// # Errors
    /// A name that is none, or a value out of its range; nothing changes.
    pub fn set(&mut self, name: &str, value: f64) -> Result<(), ThresholdError> {
        let Some(info) = Self::TABLE.iter().find(|info| info.name == name) else {
            let nearest = nearest(name, Self::TABLE.iter().map(|info| info.name));
            return Err(ThresholdError::Unknown {
                // what is longer is no name
                name: name.chars().take(80).collect(),
                nearest: nearest.unwrap_or_default(),
            });
        };
        // a NaN is in no range
        if !(info.min..=info.max).contains(&value) {
            return Err(ThresholdError::OutOfRange {
                name: info.name,
                value,
                min: info.min,
                max: info.max,
            });
        }
        if let Some(slot) = self.slot(name) {
            *slot = value;
        }
        Ok(())
    }
}

/// What users were promised, as far as checks of latency go by it. Follows from an instance's SLOs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Targets {
    /// Median time to first token, in seconds.
    pub ttft_p50_seconds: f64,
    /// Its 99th percentile.
    pub ttft_p99_seconds: f64,
    /// 99th percentile of the gap between tokens, in seconds.
    pub itl_p99_seconds: f64,
    /// Share of requests that may fail, 0 to 1.
    pub error_ratio: f64,
}

impl Default for Targets {
    fn default() -> Self {
        Self {
            ttft_p50_seconds: 0.1,
            ttft_p99_seconds: 0.5,
            itl_p99_seconds: 0.1,
            error_ratio: 0.01,
        }
    }
}
