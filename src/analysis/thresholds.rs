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
                name: name.to_owned(),
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
