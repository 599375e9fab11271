//! What is judged.

use serde::{Deserialize, Serialize};

/// A quantity that is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum JudgedQuantity {
    /// Mean time to first token, seconds.
    TimeToFirstTokenMean,
    /// Mean gap between tokens, seconds; where the engine has only the time per output token of each request, that.
    InterTokenLatencyMean,
    /// Mean time from arrival to last token, seconds.
    EndToEndLatencyMean,
    /// Share of requests whose first token came after the bound.
    TimeToFirstTokenBeyond,
    /// Share of gaps between tokens above the bound.
    InterTokenLatencyBeyond,
    /// Share of requests that took longer than the bound.
    EndToEndLatencyBeyond,
    /// Share of requests that failed or were refused, of all that ended.
    FailureShare,
    /// Generated tokens a second of a replica, while requests wait on both sides.
    GenerationTokensPerSecond,
}

/// How a quantity is measured and compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A mean or a rate: by its ratio.
    Mean,
    /// A share of 1: by its difference.
    Share,
}

impl JudgedQuantity {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 8] = [
        Self::TimeToFirstTokenMean,
        Self::InterTokenLatencyMean,
        Self::EndToEndLatencyMean,
        Self::TimeToFirstTokenBeyond,
        Self::InterTokenLatencyBeyond,
        Self::EndToEndLatencyBeyond,
        Self::FailureShare,
        Self::GenerationTokensPerSecond,
    ];

    /// The word in events and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TimeToFirstTokenMean => "TIME_TO_FIRST_TOKEN_MEAN",
            Self::InterTokenLatencyMean => "INTER_TOKEN_LATENCY_MEAN",
            Self::EndToEndLatencyMean => "END_TO_END_LATENCY_MEAN",
            Self::TimeToFirstTokenBeyond => "TIME_TO_FIRST_TOKEN_BEYOND",
            Self::InterTokenLatencyBeyond => "INTER_TOKEN_LATENCY_BEYOND",
            Self::EndToEndLatencyBeyond => "END_TO_END_LATENCY_BEYOND",
            Self::FailureShare => "FAILURE_SHARE",
            Self::GenerationTokensPerSecond => "GENERATION_TOKENS_PER_SECOND",
        }
    }

    /// What people call it, for the middle of a sentence.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::TimeToFirstTokenMean => "the mean time to first token",
            Self::InterTokenLatencyMean => "the mean gap between tokens",
            Self::EndToEndLatencyMean => "the mean end-to-end latency",
            Self::TimeToFirstTokenBeyond => "the share of late first tokens",
            Self::InterTokenLatencyBeyond => "the share of long gaps between tokens",
            Self::EndToEndLatencyBeyond => "the share of slow requests",
            Self::FailureShare => "the share of failed requests",
            Self::GenerationTokensPerSecond => "generated tokens a second",
        }
    }

    /// Whether users are better off with more of it.
    pub fn more_is_better(self) -> bool {
        self == Self::GenerationTokensPerSecond
    }

    pub(super) fn kind(self) -> Kind {
        match self {
            Self::TimeToFirstTokenBeyond
            | Self::InterTokenLatencyBeyond
            | Self::EndToEndLatencyBeyond
            | Self::FailureShare => Kind::Share,
            _ => Kind::Mean,
        }
    }
}
