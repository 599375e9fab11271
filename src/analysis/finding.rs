//! What a check finds.

use std::sync::Arc;

use crate::measure::Bounded;

/// Something that holds an engine back.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Why.
    pub cause: Cause,
    /// How much it costs the users.
    pub severity: Severity,
    /// How sure it is, 0 to 1: by how much evidence there is, and how far it agrees.
    pub confidence: f64,
    /// One sentence with the numbers.
    pub description: String,
    /// What it was told from; the deciding one first.
    pub evidence: Vec<Evidence>,
    /// What it costs.
    pub costs: Vec<Cost>,
    /// One sentence: what to do.
    pub recommendation: String,
    /// Kinds of changes that treat it.
    pub treatments: Vec<Treatment>,
    /// The finding that it is an effect of.
    pub explained_by: Option<Cause>,
    /// Metrics URLs of the replicas that it is about; empty where it is about all.
    pub replicas: Vec<String>,
}

/// Nothing measured is as large; and a share of it can be written as a percentage.
const BEYOND: f64 = 1e100;

impl Finding {
    /// The symptom, as users know it.
    pub fn kind(&self) -> BottleneckType {
        self.cause.kind()
    }

    /// Whether all its numbers are some that anything can have.
    pub(super) fn is_computed(&self) -> bool {
        let evidence = self
            .evidence
            .iter()
            .flat_map(|one| [Some(one.value.number()), one.threshold]);
        let costs = self.costs.iter().map(|cost| Some(cost.value));
        let mut all = evidence.chain(costs).chain([Some(self.confidence)]);
        all.all(|number| number.is_none_or(|number| number.abs() < BEYOND))
    }
}

/// A value that a finding rests on.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// The value's name with its unit, as in a measurement: `kv_cache_usage_ratio`, or `ttft_queue_share_ratio`, which
    /// follows from others.
    pub quantity: String,
    /// What of it: `mean`, `max`, `p99`, `last`, `increase`; empty for a single value.
    pub statistic: &'static str,
    /// The value.
    pub value: Bounded,
    /// How it stands to the threshold.
    pub comparison: Comparison,
    /// The value that it was held against; none where it only explains.
    pub threshold: Option<f64>,
    /// Name of the threshold or setting that this is; empty where it is none.
    pub threshold_name: String,
    /// The engine's metrics that the value comes from.
    pub source_metric: Arc<str>,
}

/// How a value stands to its threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// At or above it.
    AtLeast,
    /// Below it.
    Below,
    /// It only explains.
    None,
}

impl Comparison {
    /// Whether a value stands so to a threshold.
    pub fn holds(self, value: f64, threshold: f64) -> bool {
        match self {
            Self::AtLeast => value >= threshold,
            Self::Below => value < threshold,
            Self::None => true,
        }
    }
}

/// What something costs the users.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Of what.
    pub kind: CostKind,
    /// How much, in the unit of the kind.
    pub value: f64,
}

/// In which terms a cost is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CostKind {
    /// Seconds of a request's mean time to first token.
    TtftSeconds,
    /// Seconds between two tokens.
    ItlSeconds,
    /// Generated tokens a second that are not generated.
    TokensPerSecond,
    /// Requests that failed or were given up in the window.
    FailedRequests,
}

impl CostKind {
    /// Name with its unit.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TtftSeconds => "ttft_seconds",
            Self::ItlSeconds => "itl_seconds",
            Self::TokensPerSecond => "tokens_per_second",
            Self::FailedRequests => "failed_requests",
        }
    }
}

/// A check that could not be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unclear {
    /// What it would have told.
    pub cause: Cause,
    /// The quantity or setting that is missing.
    pub missing: String,
    /// Why it is missing, as a sentence.
    pub reason: String,
    /// What would make it appear.
    pub hint: Option<String>,
}

/// How much something costs the users.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize, serde::Serialize,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Severity {
    /// A risk, or hardly felt.
    Low,
    /// Felt.
    Medium,
    /// Targets are missed by far.
    High,
    /// Users are not served.
    Critical,
}

/// A kind of change.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize, serde::Serialize,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Treatment {
    /// Size and use of the KV cache.
    KvCache,
    /// Number formats of weights or KV cache.
    Quantization,
    /// How many requests and tokens a step takes.
    Batching,
    /// Memory of the accelerator.
    Memory,
    /// Parallelism and front-end processes.
    Parallelism,
    /// Guessing tokens ahead.
    SpeculativeDecoding,
    /// Order and admission of requests.
    Scheduling,
    /// More or fewer replicas.
    Scaling,
}

macro_rules! causes {
    ($($(#[doc = $doc:literal])+ $variant:ident $name:literal $kind:ident,)+) => {
        /// Why an engine is held back.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize, serde::Serialize,
        )]
        pub enum Cause {
            $($(#[doc = $doc])+ #[serde(rename = $name)] $variant,)+
        }

        impl Cause {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The symptom that it is listed under.
            pub fn kind(self) -> BottleneckType {
                match self { $(Self::$variant => BottleneckType::$kind,)+ }
            }

            /// What it is, in a sentence.
            pub fn description(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

causes! {
    /// Requests are held, and no token and no engine step is counted.
    Stall "STALL" EngineStalled,
    /// The engine ends requests with errors.
    Errors "ERRORS" RequestFailures,
    /// Requests are refused at the door, at a limit that was set.
    AdmissionLimit "ADMISSION_LIMIT" RequestFailures,
    /// Clients go away before they are served.
    Aborts "ABORTS" RequestFailures,
    /// The KV cache is full: requests are preempted or held back.
    KvCapacity "KV_CAPACITY" MemoryPressure,
    /// The KV cache is nearly full, and nobody waits yet.
    KvNearCapacity "KV_NEAR_CAPACITY" MemoryPressure,
    /// Requests wait because only so many may run at once, though there is room for more.
    SequenceCap "SEQUENCE_CAP" QueueBuildup,
    /// Steps are cut at a token budget that is too small.
    TokenBudget "TOKEN_BUDGET" QueueBuildup,
    /// Requests wait for a LoRA adapter, a grammar or a KV transfer, not for room.
    Deferred "DEFERRED" QueueBuildup,
    /// More comes in than this much hardware serves: no setting is enough.
    Capacity "CAPACITY" QueueBuildup,
    /// The first token waits for prompts to be computed.
    PrefillBound "PREFILL_BOUND" HighLatency,
    /// A few long prompts make the many short ones wait.
    HeadOfLine "HEAD_OF_LINE" HighLatency,
    /// Prompts share steps with requests that decode, and those stumble.
    PrefillInterference "PREFILL_INTERFERENCE" HighLatency,
    /// Each step takes too long for the tokens that it gives.
    DecodeBound "DECODE_BOUND" HighLatency,
    /// Requests spend their time outside the scheduler: tokeniser, HTTP, streaming.
    Frontend "FRONTEND" HighLatency,
    /// The accelerator waits for the host in each step.
    HostBound "HOST_BOUND" HighLatency,
    /// Batches are larger than the captured graphs, and run kernel by kernel.
    GraphCeiling "GRAPH_CEILING" HighLatency,
    /// Larger batches cost latency and give no throughput.
    BatchTooLarge "BATCH_TOO_LARGE" BatchSizeSuboptimal,
    /// Guessing tokens ahead costs more than it gives.
    SpeculationLoss "SPECULATION_LOSS" LowThroughput,
    /// The prefix cache is off, and prompts cost time that it might save.
    PrefixCacheOff "PREFIX_CACHE_OFF" CacheInefficiency,
    /// The prefix cache is still filling, or forgets what comes again.
    ColdPrefixCache "COLD_PREFIX_CACHE" CacheInefficiency,
    /// One replica gets more than the others.
    Imbalance "IMBALANCE" ReplicaSkew,
    /// One replica is slower than the others.
    SlowReplica "SLOW_REPLICA" ReplicaSkew,
    /// There is far more capacity than was ever used.
    Overprovisioned "OVERPROVISIONED" Overprovisioned,
}

macro_rules! words {
    ($type:ident: $($variant:ident $name:literal,)+) => {
        impl $type {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word on the wire, without its prefix.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

/// A symptom, as users know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BottleneckType {
    /// Nothing moves.
    EngineStalled,
    /// Requests fail.
    RequestFailures,
    /// The KV cache is short.
    MemoryPressure,
    /// Requests wait.
    QueueBuildup,
    /// Tokens come late.
    HighLatency,
    /// Batches are of the wrong size.
    BatchSizeSuboptimal,
    /// Fewer tokens than could be.
    LowThroughput,
    /// The prefix cache does not help as it could.
    CacheInefficiency,
    /// Replicas differ.
    ReplicaSkew,
    /// More than is needed.
    Overprovisioned,
}

words! { BottleneckType:
    EngineStalled "ENGINE_STALLED",
    RequestFailures "REQUEST_FAILURES",
    MemoryPressure "MEMORY_PRESSURE",
    QueueBuildup "QUEUE_BUILDUP",
    HighLatency "HIGH_LATENCY",
    BatchSizeSuboptimal "BATCH_SIZE_SUBOPTIMAL",
    LowThroughput "LOW_THROUGHPUT",
    CacheInefficiency "CACHE_INEFFICIENCY",
    ReplicaSkew "REPLICA_SKEW",
    Overprovisioned "OVERPROVISIONED",
}

words! { Severity:
    Low "LOW",
    Medium "MEDIUM",
    High "HIGH",
    Critical "CRITICAL",
}

words! { Treatment:
    KvCache "KV_CACHE",
    Quantization "QUANTIZATION",
    Batching "BATCHING",
    Memory "MEMORY",
    Parallelism "PARALLELISM",
    SpeculativeDecoding "SPECULATIVE_DECODING",
    Scheduling "SCHEDULING",
    Scaling "SCALING",
}
