//! Why a line, or a whole body, was not accepted.

/// A line that could not be read, or a bound that the body exceeds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct ParseError {
    /// 1-based line number.
    pub line: u64,
    /// What is wrong with it.
    pub reason: Reason,
}

/// What is wrong with a line or a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The body is longer than [`Limits::body_bytes`](super::Limits::body_bytes).
    #[error("body is {bytes} bytes long, the limit is {limit}")]
    BodyTooLong {
        /// Length of the body.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// More lines than [`Limits::lines`](super::Limits::lines).
    #[error("more than {limit} lines")]
    TooManyLines {
        /// The limit.
        limit: u64,
    },
    /// The line is longer than [`Limits::line_bytes`](super::Limits::line_bytes).
    #[error("line is {bytes} bytes long, the limit is {limit}")]
    LineTooLong {
        /// Length of the line.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// More labels than [`Limits::labels`](super::Limits::labels).
    #[error("more than {limit} labels")]
    TooManyLabels {
        /// The limit.
        limit: usize,
    },
    /// A metric or label name longer than [`Limits::name_bytes`](super::Limits::name_bytes).
    #[error("name is {bytes} bytes long, the limit is {limit}")]
    NameTooLong {
        /// Length of the name.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A label value longer than [`Limits::value_bytes`](super::Limits::value_bytes).
    #[error("label value is {bytes} bytes long, the limit is {limit}")]
    ValueTooLong {
        /// Length of the value.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Bytes that are not UTF-8.
    #[error("not valid UTF-8")]
    NotUtf8,
    /// No metric name where one must stand.
    #[error("expected a metric name")]
    ExpectedMetricName,
    /// A second metric name inside the braces.
    #[error("a second metric name stands inside the braces")]
    SecondMetricName,
    /// No label name where one must stand.
    #[error("expected a label name or `}}`")]
    ExpectedLabelName,
    /// A label name without `=`.
    #[error("expected `=` after the label name")]
    ExpectedEquals,
    /// A label value that is not quoted.
    #[error("expected a quoted label value")]
    ExpectedQuote,
    /// A quoted string that does not end.
    #[error("quoted string does not end")]
    UnterminatedString,
    /// A backslash before anything but `\`, `"` and `n`.
    #[error("unknown escape sequence")]
    InvalidEscape,
    /// Neither `,` nor `}` after a label.
    #[error("expected `,` or `}}` after the label")]
    ExpectedCommaOrBrace,
    /// The same label twice.
    #[error("the same label stands twice")]
    DuplicateLabel,
    /// No value.
    #[error("expected a value")]
    ExpectedValue,
    /// A value that is no number.
    #[error("value is not a number")]
    InvalidValue,
    /// A timestamp that is no number: milliseconds in the Prometheus format, seconds in OpenMetrics.
    #[error("timestamp is not a number")]
    InvalidTimestamp,
    /// An exemplar that does not follow `# {labels} value [timestamp]`.
    #[error("malformed exemplar")]
    InvalidExemplar,
    /// An exemplar in a body that does not end with `# EOF`.
    #[error("exemplar in a body without `# EOF`: an OpenMetrics body that was cut short")]
    ExemplarWithoutEof,
    /// Text behind a complete sample.
    #[error("unexpected text after the sample")]
    TrailingText,
    /// `# TYPE`, `# HELP` or `# UNIT` without a metric name.
    #[error("expected a metric name after the keyword")]
    MalformedMetadata,
    /// A type that neither format knows.
    #[error("unknown metric type")]
    UnknownType,
    /// A `_bucket` sample of a histogram without a numeric `le` label.
    #[error("histogram bucket without a numeric `le` label")]
    BucketWithoutBound,
    /// A quantile sample of a summary without a numeric `quantile` label.
    #[error("summary sample without a numeric `quantile` label")]
    QuantileWithoutLabel,
    /// Anything but blank lines after `# EOF`.
    #[error("text after `# EOF`")]
    TextAfterEof,
}

impl Reason {
    /// Bounds of the whole body end the parse even when bad lines are tolerated.
    pub(super) fn is_fatal(self) -> bool {
        matches!(
            self,
            Self::BodyTooLong { .. } | Self::TooManyLines { .. } | Self::TextAfterEof
        )
    }
}
