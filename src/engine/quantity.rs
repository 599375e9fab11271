//! The canonical quantities: one name for what every engine calls differently.

/// How a quantity behaves over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuantityKind {
    /// Only rises, but for restarts; differenced over the window.
    Counter,
    /// An instant; judged over the window.
    Gauge,
    /// Counted observations with a sum and mostly buckets; differenced over the window.
    Distribution,
}

/// How values of several replicas, or of several data-parallel engines in one replica, become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// They add up.
    Sum,
    /// A mean, over replicas weighted by KV capacity where all of them tell it.
    Mean,
}

macro_rules! quantities {
    ($($(#[doc = $doc:literal])+ $variant:ident $name:literal $kind:ident $merge:ident,)+) => {
        /// A canonical quantity. Names carry the unit; where they have none, it is requests or events.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Quantity {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Quantity {
            /// All of them, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name on the wire and in the config file.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The name of its total, its increase and its rate, of a counter.
            pub(crate) fn counter_names(self) -> [&'static str; 3] {
                match self {
                    $(Self::$variant => [
                        concat!($name, "_total"),
                        concat!($name, "_increase"),
                        concat!($name, "_per_second"),
                    ],)+
                }
            }

            /// How it behaves over time.
            pub fn kind(self) -> QuantityKind {
                match self { $(Self::$variant => QuantityKind::$kind,)+ }
            }

            /// How several become one.
            pub fn merge(self) -> Merge {
                match self { $(Self::$variant => Merge::$merge,)+ }
            }

            /// What it is, in a sentence.
            pub fn description(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

quantities! {
    // tokens
    /// Prompt tokens taken in, cached ones included.
    PromptTokens "prompt_tokens" Counter Sum,
    /// Prompt tokens that were computed and not found in a cache.
    PrefillTokens "prefill_tokens" Counter Sum,
    /// Generated tokens, by the counter that moves while requests run.
    GenerationTokens "generation_tokens" Counter Sum,
    /// Tokens looked up in the prefix cache (blocks on vLLM up to 0.8).
    PrefixCacheQueries "prefix_cache_queries" Counter Sum,
    /// Of those, found.
    PrefixCacheHits "prefix_cache_hits" Counter Sum,
    /// Tokens looked up in a KV store outside the engine.
    ExternalCacheQueries "external_cache_queries" Counter Sum,
    /// Of those, found.
    ExternalCacheHits "external_cache_hits" Counter Sum,
    // requests
    /// Finished requests, whatever the reason.
    RequestsFinished "requests_finished" Counter Sum,
    /// Finished by a stop condition or at the length asked for.
    RequestsSucceeded "requests_succeeded" Counter Sum,
    /// Finished by a stop condition.
    RequestsStopped "requests_stopped" Counter Sum,
    /// Finished at the length limit: no failure.
    RequestsLength "requests_length" Counter Sum,
    /// Ended because the client went away.
    RequestsAborted "requests_aborted" Counter Sum,
    /// Ended by an error in the engine.
    RequestsErrored "requests_errored" Counter Sum,
    /// Ended because the output repeated itself.
    RequestsRepetition "requests_repetition" Counter Sum,
    /// Refused at the door for want of room.
    RequestsRejected "requests_rejected" Counter Sum,
    /// Refused because the request itself was wrong.
    RequestsInvalid "requests_invalid" Counter Sum,
    /// Answers of the HTTP layer with a status of 500 and above.
    HttpServerErrors "http_server_errors" Counter Sum,
    // scheduler
    /// Requests thrown out of the batch for want of KV cache (SGLang: retracted).
    Preemptions "preemptions" Counter Sum,
    /// Draft rounds of speculative decoding.
    SpeculationDrafts "speculation_drafts" Counter Sum,
    /// Tokens proposed by the draft.
    SpeculationDraftTokens "speculation_draft_tokens" Counter Sum,
    /// Proposed tokens that were accepted.
    SpeculationAcceptedTokens "speculation_accepted_tokens" Counter Sum,
    /// Forward passes replayed from a captured CUDA graph.
    GraphPasses "graph_passes" Counter Sum,
    /// Forward passes launched kernel by kernel.
    EagerPasses "eager_passes" Counter Sum,
    /// Decode passes replayed from a captured CUDA graph.
    GraphDecodePasses "graph_decode_passes" Counter Sum,
    /// Decode passes launched kernel by kernel: batches beyond what was captured, or graphs are off.
    EagerDecodePasses "eager_decode_passes" Counter Sum,
    /// Time in which the accelerator ran forward passes.
    ForwardSeconds "forward_seconds" Counter Sum,
    /// Time in which the scheduler had nothing to run.
    SchedulerIdleSeconds "scheduler_idle_seconds" Counter Sum,
    // gauges
    /// Requests in the running batch.
    RequestsRunning "requests_running" Gauge Sum,
    /// Requests waiting for a place in it, deferred ones included.
    RequestsWaiting "requests_waiting" Gauge Sum,
    /// Waiting for want of room.
    RequestsWaitingCapacity "requests_waiting_capacity" Gauge Sum,
    /// Waiting for a LoRA slot, a grammar, or a KV transfer.
    RequestsWaitingDeferred "requests_waiting_deferred" Gauge Sum,
    /// Swapped out to host memory (vLLM V0).
    RequestsSwapped "requests_swapped" Gauge Sum,
    /// Share of the KV cache held by live requests, 0 to 1 (TGI: reserved for the worst case).
    KvCacheUsage "kv_cache_usage_ratio" Gauge Mean,
    /// Tokens of KV cache reserved by the running batch.
    KvReservedTokens "kv_reserved_tokens" Gauge Sum,
    /// Tokens that the KV cache holds.
    KvCapacityTokens "kv_capacity_tokens" Gauge Sum,
    /// Generated tokens a second as the engine itself reports them.
    ReportedTokensPerSecond "reported_generation_tokens_per_second" Gauge Sum,
    /// Hit ratio of the prefix cache as the engine itself reports it, 0 to 1.
    ReportedHitRatio "reported_prefix_cache_hit_ratio" Gauge Mean,
    /// Share of drafted tokens accepted as the engine itself reports it, 0 to 1.
    ReportedAcceptanceRatio "reported_speculation_acceptance_ratio" Gauge Mean,
    /// Tokens a forward pass gives under speculation as the engine itself reports it, bonus token included.
    ReportedAcceptedLength "reported_speculation_accepted_length_tokens" Gauge Mean,
    /// Share of the output limit that the scheduler expects requests to use (SGLang), 0 to 1.
    NewTokenRatio "new_token_ratio" Gauge Mean,
    /// 1 while the engine is awake, 0 while it sleeps.
    EngineAwake "engine_awake" Gauge Mean,
    // distributions
    /// Arrival to first token, queueing included.
    TimeToFirstToken "time_to_first_token_seconds" Distribution Sum,
    /// Gap between output events of a request.
    InterTokenLatency "inter_token_latency_seconds" Distribution Sum,
    /// Decode time per token after the first, request by request.
    TimePerOutputToken "time_per_output_token_seconds" Distribution Sum,
    /// Arrival to last token.
    EndToEndLatency "e2e_request_latency_seconds" Distribution Sum,
    /// Arrival to the first place in a batch.
    QueueTime "queue_time_seconds" Distribution Sum,
    /// First place in a batch to first token.
    PrefillTime "prefill_time_seconds" Distribution Sum,
    /// First token to last token.
    DecodeTime "decode_time_seconds" Distribution Sum,
    /// First place in a batch to last token.
    InferenceTime "inference_time_seconds" Distribution Sum,
    /// Tokenisation and checks at the front end.
    ValidationTime "validation_time_seconds" Distribution Sum,
    /// One prefill step of the engine.
    PrefillStepTime "prefill_step_seconds" Distribution Sum,
    /// One decode step of the engine (TGI: its forward pass).
    DecodeStepTime "decode_step_seconds" Distribution Sum,
    /// One decode step from end to end, with what the host does before and after the forward pass.
    DecodeStepTotalTime "decode_step_total_seconds" Distribution Sum,
    /// Tokens of one engine step, computed prompt and output.
    StepTokens "step_tokens" Distribution Sum,
    /// Requests taken from the queue at a time.
    BatchSize "batch_size_requests" Distribution Sum,
    /// Prompt length of a request.
    PromptLength "request_prompt_tokens" Distribution Sum,
    /// Output length of a request.
    GenerationLength "request_generation_tokens" Distribution Sum,
    /// Output length that a request asked for at most.
    MaxTokensAsked "request_max_tokens" Distribution Sum,
    /// Preemptions that a finished request went through.
    RequestPreemptions "request_preemptions" Distribution Sum,
}

impl Quantity {
    /// The quantity of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|quantity| quantity.name() == name)
    }

    /// Whether values are shares that lie between 0 and 1. Engines have been seen to print others.
    pub fn is_ratio(self) -> bool {
        self.name().ends_with("_ratio")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found_again() {
        for quantity in Quantity::ALL {
            assert_eq!(Quantity::from_name(quantity.name()), Some(*quantity));
            assert!(!quantity.description().is_empty());
        }
    }
}
