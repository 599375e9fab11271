//! One attempt at a delivery, and what came of it.

/// Most bytes of what is kept of what went wrong.
pub const MAX_PROBLEM_BYTES: usize = 256;

/// One attempt at a delivery.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Which, from 1.
    pub number: u32,
    /// When it began, unix time in microseconds.
    pub started_us: i64,
    /// How long it took.
    pub duration_seconds: f64,
    /// What came of it.
    pub answer: Answer,
}

/// What came of an attempt. What the receiver wrote is not kept: it may be anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The receiver answered.
    Status {
        /// HTTP status.
        status: u16,
        /// Its `Retry-After`, as it came.
        retry_after: Option<String>,
    },
    /// It did not.
    None {
        /// Why, in a sentence.
        problem: String,
    },
}

impl Answer {
    /// The receiver took it.
    pub fn is_taken(&self) -> bool {
        matches!(self, Self::Status { status, .. } if (200..300).contains(status))
    }

    /// HTTP status, where there was an answer.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(*status),
            Self::None { .. } => None,
        }
    }

    /// What went wrong, where there was no answer.
    pub fn problem(&self) -> Option<&str> {
        match self {
            Self::Status { .. } => None,
            Self::None { problem } => Some(problem),
        }
    }

    /// In a few words.
    pub fn in_words(&self) -> String {
        match self {
            Self::Status { status, .. } => format!("HTTP {status}"),
            Self::None { problem } => problem.clone(),
        }
    }
}
