//! How long an engine's steps take, from what its metrics say.
//!
//! No engine exports the times of its steps. But it counts steps and tokens, and the gap between two tokens of a request
//! is the step in between. So each window gives one equation: the mean step time is linear in what a step computed on
//! average. Windows at different load give different equations; least squares over the relative errors, with no part
//! below zero, solves them.

use crate::engine::Quantity;
use crate::measure::{Figures, Measurement};

use super::step_time::StepTime;

/// What a window says of the engine's steps: their mean time, and what one computed on average.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepWindow {
    /// Steps in it.
    pub steps: f64,
    /// Mean time of a step, in seconds.
    pub step_seconds: f64,
    /// Tokens of prompts that a step computed.
    pub prefill_tokens: f64,
    /// Tokens before each of them, summed.
    pub prefill_context_tokens: f64,
    /// Requests that decoded.
    pub decode_sequences: f64,
    /// Tokens before them, summed.
    pub decode_context_tokens: f64,
    /// From a request's arrival to its first token, what is neither queue nor prefill, in seconds. Its parts are means
    /// of different requests, those that got a first token and those that finished: so it may fall below zero by chance.
    pub frontend_seconds: Option<f64>,
}

/// Why nothing can be fitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FitError {
    /// The engine does not say enough.
    #[error("{0} is missing: the times of steps cannot be told without it")]
    Missing(&'static str),
    /// Nothing happened.
    #[error("no tokens were generated in the window: measure under load")]
    Idle,
    /// There is no window.
    #[error("there is no window to fit to")]
    NoWindow,
}

/// What was fitted, and how well it explains the windows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// The times.
    pub step_time: StepTime,
    /// Windows that it was fitted to.
    pub windows: usize,
    /// Root of the mean squared relative error of their step times.
    pub residual_ratio: f64,
    /// The time in front of the scheduler is known: windows tell it, and it does not drown in their chance. Else it is
    /// left out, as 0, and times to the first token come out too low by it.
    pub frontend_known: bool,
    /// Fewest and most requests that decoded at once in a window: beyond them the times are extrapolated.
    pub decode_sequences_range: (f64, f64),
}

/// The engine had something to do in all of the window, if at least so many requests ran at each scrape.
const RUNNING_THROUGHOUT: f64 = 2.0;

impl StepWindow {
    /// Of a measurement of one replica.
    ///
    /// # Errors
    /// What the engine does not say, or that it was idle.
    pub fn of(measurement: &Measurement) -> Result<Self, FitError> {
        Self::of_figures(&measurement.figures, measurement.window.observed_seconds)
    }

    /// Of one replica's figures, over so many seconds.
    ///
    /// # Errors
    /// What the engine does not say, or that it was idle.
    pub fn of_figures(figures: &Figures, observed_seconds: f64) -> Result<Self, FitError> {
        let gap = figures
            .distribution(Quantity::InterTokenLatency)
            .ok_or(FitError::Missing("the inter-token latency"))?;
        let (Some(gap_seconds), true) = (gap.mean, gap.count > 0.0) else {
            return Err(FitError::Idle);
        };
        let running = figures
            .gauge(Quantity::RequestsRunning)
            .ok_or(FitError::Missing("the number of running requests"))?;
        let mean = |quantity| {
            figures
                .distribution(quantity)
                .and_then(|distribution| distribution.mean)
        };
        let prompt =
            mean(Quantity::PromptLength).ok_or(FitError::Missing("the length of prompts"))?;
        let output =
            mean(Quantity::GenerationLength).ok_or(FitError::Missing("the length of outputs"))?;
        let prefill = figures
            .value("prefill_tokens_increase")
            .ok_or(FitError::Missing("the number of computed prompt tokens"))?;
        let counted = figures
            .distribution(Quantity::StepTokens)
            .map(|steps| steps.count)
            .filter(|steps| *steps > 0.0);
        let steps = match counted {
            Some(steps) => steps,
            // each running request has a token in each step; where less than one ran, there was no step for most of
            // the time
            None if running.mean >= 1.0 => gap.count / running.mean,
            None => return Err(FitError::Idle),
        };
        let busy = running.min >= RUNNING_THROUGHOUT && running.samples > 2;
        let step_seconds = match counted {
            // all time is some step's
            Some(steps) if busy => observed_seconds / steps,
            // the steps that requests decoded in, those of many requests more than once
            _ => gap_seconds,
        };
        let decode_sequences = gap.count / steps;
        Ok(Self {
            steps,
            step_seconds,
            prefill_tokens: prefill / steps,
            prefill_context_tokens: prefill / steps * prompt / 2.0,
            decode_sequences,
            decode_context_tokens: decode_sequences * (prompt + output / 2.0),
            frontend_seconds: mean(Quantity::TimeToFirstToken)
                .zip(mean(Quantity::QueueTime).zip(mean(Quantity::PrefillTime)))
                .map(|(first, (queue, prefill))| first - queue - prefill),
        })
    }

    /// What the parts of a step's time are multiplied by, if fewer tokens than `knee` take as long as so many. Prompts
    /// come on top of requests that decode.
    fn row(&self, knee: f64) -> [f64; PARTS] {
        [
            1.0,
            self.decode_sequences.max(knee) + self.prefill_tokens,
            self.decode_sequences,
            self.decode_context_tokens,
            self.prefill_context_tokens,
        ]
    }
}

impl StepTime {
    /// The mean time of a step of a window: linear in what it computed on average.
    pub fn mean_seconds(&self, window: &StepWindow) -> f64 {
        let parts = [
            self.fixed_seconds + self.host_seconds,
            self.token_seconds,
            self.decode_sequence_seconds,
            self.decode_context_token_seconds,
            self.prefill_context_token_seconds,
        ];
        dot(&window.row(self.knee_tokens), &parts)
    }
}

/// Parts of a step's time that are found by least squares; the knee is tried out.
const PARTS: usize = 5;

/// Knees that are tried: from a CPU, which computes slowly for its memory, to the newest accelerators.
const KNEES: [f64; 20] = [
    0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 11.0, 16.0, 23.0, 32.0, 45.0, 64.0, 91.0, 128.0, 181.0,
    256.0, 362.0, 512.0, 724.0,
];

/// How much the parts are held back, of their squares: little for what every step has, more for what may only seem to
/// matter because it rises and falls with the rest.
const HELD_BACK: [f64; PARTS] = [0.0, 0.0, 0.01, 0.01, 0.01];

/// Passes over the parts; far more than are needed to settle.
const PASSES: usize = 20_000;

impl Fit {
    /// The times that explain the windows best.
    ///
    /// # Errors
    /// No window.
    pub fn to(windows: &[StepWindow]) -> Result<Self, FitError> {
        if windows.is_empty() {
            return Err(FitError::NoWindow);
        }
        let (knee_tokens, parts, squares) = KNEES
            .iter()
            .map(|knee| {
                let rows: Vec<[f64; PARTS]> = windows
                    .iter()
                    .map(|window| window.row(*knee).map(|part| part / window.step_seconds))
                    .collect();
                let parts = non_negative(&rows);
                let squares = rows.iter().map(|row| (dot(row, &parts) - 1.0).powi(2));
                (*knee, parts, squares.sum::<f64>())
            })
            .min_by(|a, b| a.2.total_cmp(&b.2))
            .ok_or(FitError::NoWindow)?;
        let [fixed, token, decode, decode_context, prefill_context] = parts;
        let told: Vec<f64> = windows
            .iter()
            .filter_map(|window| window.frontend_seconds)
            .collect();
        let frontend_seconds = median(told).filter(|seconds| *seconds >= 0.0);
        let step_time = StepTime {
            // a step that takes no time would never end
            fixed_seconds: fixed.max(1e-6),
            token_seconds: token,
            knee_tokens,
            decode_sequence_seconds: decode,
            decode_context_token_seconds: decode_context,
            prefill_context_token_seconds: prefill_context,
            frontend_seconds: frontend_seconds.unwrap_or(0.0),
            // windows do not tell the host from the fixed part, nor a curve or jitter
            ..StepTime::default()
        };
        let sequences = windows.iter().map(|window| window.decode_sequences);
        Ok(Self {
            step_time,
            windows: windows.len(),
            frontend_known: frontend_seconds.is_some(),
            residual_ratio: (squares / windows.len() as f64).sqrt(),
            decode_sequences_range: (
                sequences.clone().fold(f64::INFINITY, f64::min),
                sequences.fold(0.0, f64::max),
            ),
        })
    }
}

/// Parts, none below zero, with which each row comes nearest to 1: by coordinate descent, which converges since the sum
/// of squares is convex.
fn non_negative(rows: &[[f64; PARTS]]) -> [f64; PARTS] {
    let mut parts = [0.0; PARTS];
    let mut left: Vec<f64> = vec![1.0; rows.len()];
    for _ in 0..PASSES {
        let mut moved = 0.0_f64;
        for (at, part) in parts.iter_mut().enumerate() {
            let column = rows.iter().map(|row| row.get(at).copied().unwrap_or(0.0));
            let norm: f64 = column.clone().map(|value| value * value).sum();
            if norm <= 0.0 {
                continue;
            }
            let slope: f64 = column
                .clone()
                .zip(&left)
                .map(|(value, rest)| value * rest)
                .sum();
            let held_back = HELD_BACK.get(at).copied().unwrap_or(0.0);
            let wanted = ((*part * norm + slope) / (norm * (1.0 + held_back))).max(0.0);
            let step = wanted - *part;
            for (rest, value) in left.iter_mut().zip(column) {
                *rest -= step * value;
            }
            *part = wanted;
            moved = moved.max((step * norm.sqrt()).abs());
        }
        if moved < 1e-12 {
            break;
        }
    }
    parts
}

fn dot(row: &[f64; PARTS], parts: &[f64; PARTS]) -> f64 {
    row.iter().zip(parts).map(|(a, b)| a * b).sum()
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn window(step_time: &StepTime, prefill: f64, sequences: f64, context: f64) -> StepWindow {
        let mut window = StepWindow {
            steps: 100.0,
            step_seconds: 0.0,
            prefill_tokens: prefill,
            prefill_context_tokens: prefill * 40.0,
            decode_sequences: sequences,
            decode_context_tokens: sequences * context,
            frontend_seconds: Some(2e-3),
        };
        window.step_seconds = step_time.fixed_seconds
            + step_time.token_seconds * (prefill + sequences.max(step_time.knee_tokens))
            + step_time.decode_sequence_seconds * window.decode_sequences
            + step_time.decode_context_token_seconds * window.decode_context_tokens;
        window
    }

    #[test]
    fn times_are_found_from_windows_at_different_load() {
        let truth = StepTime {
            fixed_seconds: 6e-3,
            token_seconds: 0.4e-3,
            knee_tokens: 6.0,
            decode_sequence_seconds: 0.0,
            decode_context_token_seconds: 0.4e-6,
            prefill_context_token_seconds: 0.0,
            frontend_seconds: 2e-3,
            ..StepTime::default()
        };
        let windows = [
            window(&truth, 1.0, 1.0, 100.0),
            window(&truth, 5.0, 4.0, 110.0),
            window(&truth, 0.2, 4.0, 900.0),
            window(&truth, 12.0, 12.0, 300.0),
            window(&truth, 40.0, 24.0, 90.0),
            window(&truth, 100.0, 6.0, 500.0),
        ];
        let fit = Fit::to(&windows).unwrap();
        assert!(fit.residual_ratio < 0.01, "{fit:?}");
        assert_eq!(fit.decode_sequences_range, (1.0, 24.0));
        assert!(fit.frontend_known);
        assert_eq!(fit.step_time.knee_tokens, 6.0);
        for (found, truth) in [
            (fit.step_time.fixed_seconds, truth.fixed_seconds),
            (fit.step_time.token_seconds, truth.token_seconds),
        ] {
            assert!(
                (found / truth - 1.0).abs() < 0.1,
                "{found} for {truth}: {fit:?}"
            );
        }
        assert_eq!(Fit::to(&[]), Err(FitError::NoWindow));
    }

    #[test]
    fn a_time_in_front_that_nobody_tells_is_not_taken_for_known() {
        let mut windows =
            [10.0, 20.0, 30.0].map(|prefill| window(&StepTime::default(), prefill, 8.0, 100.0));
        for (window, seconds) in windows.iter_mut().zip([Some(-4e-3), None, Some(-2e-3)]) {
            window.frontend_seconds = seconds;
        }
        let fit = Fit::to(&windows).unwrap();
        assert!(!fit.frontend_known && fit.step_time.frontend_seconds == 0.0);
    }

    #[test]
    fn one_window_is_explained_and_no_part_is_below_zero() {
        let only = window(&StepTime::default(), 10.0, 8.0, 100.0);
        let fit = Fit::to(&[only]).unwrap();
        assert!(fit.residual_ratio < 1e-6);
        assert_eq!(fit.step_time.check(), Ok(()));
    }
}
