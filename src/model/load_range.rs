//! Windows at different load, as many as a fit needs: a bounded set that is spread over what was seen.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::measure::{DropCause, Measurement, NoteCode, WindowKind};

use super::fit::StepWindow;

/// Most windows that are kept.
pub const MAX_STEP_WINDOWS: usize = 24;

/// Bins of the decoding requests of a step: half an octave each.
const BINS_PER_OCTAVE: f64 = 2.0;
/// Bins of the share of prompt tokens among a step's tokens.
const SHARE_BINS: f64 = 4.0;

/// Windows of an engine at different load: of each kind of load the newest. They begin anew when it restarts, or runs
/// with other settings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoadRange {
    /// The oldest first.
    windows: Vec<Kept>,
    /// Of the settings that they were measured with.
    settings: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Kept {
    bin: Bin,
    end_unix_seconds: f64,
    window: StepWindow,
}

/// A kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bin {
    decode_sequences: i16,
    prefill_share: i8,
}

impl LoadRange {
    /// The windows, the oldest first.
    pub fn windows(&self) -> Vec<StepWindow> {
        self.windows.iter().map(|kept| kept.window).collect()
    }

    /// The range with what this measurement says; none where it says nothing new.
    ///
    /// A window that overlaps those which are kept says little more than they do: it takes the place of one of its own
    /// kind, and is else left out.
    pub fn with(&self, measurement: &Measurement) -> Option<Self> {
        let settings = settings_of(measurement);
        let window = measurement.window;
        let last = self.windows.iter().map(|kept| kept.end_unix_seconds);
        let last = last.fold(f64::NEG_INFINITY, f64::max);
        // or the clock was set back
        let anew = has_restarted(measurement)
            || settings != self.settings
            || window.end_unix_seconds < last;
        let mut after = match anew {
            true => Self {
                windows: Vec::new(),
                settings,
            },
            false => self.clone(),
        };
        let last = if anew { f64::NEG_INFINITY } else { last };
        // with the end of an engine in it, a window is of two
        let is_whole = window.kind == WindowKind::Interval && !has_restarted(measurement);
        for step in replicas(measurement).filter(|_| is_whole) {
            after.keep(
                step,
                (window.start_unix_seconds, window.end_unix_seconds),
                last,
            );
        }
        (after != *self).then_some(after)
    }

    /// Keeps a window, where those before ended with `last`.
    fn keep(&mut self, window: StepWindow, (start, end): (f64, f64), last: f64) {
        let Some(bin) = Bin::of(&window) else { return };
        let known = self.windows.iter().position(|kept| kept.bin == bin);
        match known {
            Some(at) => drop(self.windows.remove(at)),
            None if start < last => return,
            None => {}
        }
        self.windows.push(Kept {
            bin,
            end_unix_seconds: end,
            window,
        });
        if self.windows.len() > MAX_STEP_WINDOWS {
            self.thin_out();
        }
    }

    /// Drops the oldest of those that have most others near them.
    fn thin_out(&mut self) {
        let near = |kept: &Kept| {
            let others = self.windows.iter();
            others
                .filter(|other| kept.bin.distance(other.bin) <= 1)
                .count()
        };
        let counts: Vec<usize> = self.windows.iter().map(near).collect();
        let most = counts.iter().copied().max();
        let oldest = counts.iter().position(|count| Some(*count) == most);
        if let Some(at) = oldest {
            self.windows.remove(at);
        }
    }
}

impl Bin {
    fn of(window: &StepWindow) -> Option<Self> {
        let tokens = window.prefill_tokens + window.decode_sequences;
        let share = window.prefill_tokens / tokens;
        let octaves = window.decode_sequences.max(1.0).log2();
        let known = share.is_finite() && octaves.is_finite();
        known.then_some(Self {
            decode_sequences: (octaves * BINS_PER_OCTAVE) as i16,
            prefill_share: (share * SHARE_BINS) as i8,
        })
    }

    fn distance(self, other: Self) -> u16 {
        let octaves = self.decode_sequences.abs_diff(other.decode_sequences);
        octaves.max(self.prefill_share.abs_diff(other.prefill_share).into())
    }
}

/// What each replica's steps took; those left out that do not tell.
fn replicas(measurement: &Measurement) -> impl Iterator<Item = StepWindow> {
    let observed_seconds = measurement.window.observed_seconds;
    let figures = measurement.replicas.iter();
    let figures = figures.filter_map(|replica| replica.outcome.as_ref().ok());
    figures.filter_map(move |figures| StepWindow::of_figures(figures, observed_seconds).ok())
}

/// What tells apart two ways in which an engine can run.
fn settings_of(measurement: &Measurement) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&measurement.engine_version, &measurement.model_name).hash(&mut hasher);
    for setting in &measurement.settings {
        (&setting.name, &setting.value).hash(&mut hasher);
    }
    hasher.finish()
}

fn has_restarted(measurement: &Measurement) -> bool {
    let noted = |code| measurement.notes.iter().any(|note| note.code == code);
    let dropped = measurement.replicas.iter().flat_map(|one| &one.dropped);
    let restarted = |cause: &DropCause| matches!(cause, DropCause::Restart { .. });
    noted(NoteCode::Restarted) || dropped.into_iter().any(|one| restarted(&one.cause))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::engine::Setting;
    use crate::measure::{
        Basis, Bounded, Distribution, DroppedInterval, Figures, Gauge, QuantityValue, Replica,
        Window,
    };
    use proptest::prelude::*;

    /// A window in which so many requests decoded at once, and a step computed so many tokens of prompts.
    fn measured(start: f64, sequences: f64, prefill: f64) -> Measurement {
        let steps = 1_000.0;
        let distribution = |name: &'static str, count: f64, mean: f64| Distribution {
            name: name.into(),
            count,
            mean: Some(mean),
            quantiles: Vec::new(),
            buckets: Vec::new(),
            basis: Basis::Exact,
            source: "m".into(),
        };
        let figures = Figures {
            quantities: vec![QuantityValue {
                name: "prefill_tokens_increase".into(),
                value: Bounded::Value(prefill * steps),
                basis: Basis::Exact,
                source: "m".into(),
            }],
            distributions: vec![
                distribution("inter_token_latency_seconds", sequences * steps, 0.06),
                distribution("request_prompt_tokens", 10.0, 300.0),
                distribution("request_generation_tokens", 10.0, 100.0),
                distribution("step_tokens", steps, sequences + prefill),
            ],
            gauges: vec![Gauge {
                name: "requests_running".into(),
                min: sequences,
                mean: sequences,
                max: sequences,
                last: sequences,
                samples: 5,
                basis: Basis::Exact,
                source: "m".into(),
            }],
            ..Figures::default()
        };
        Measurement {
            instance_id: "a".to_owned(),
            engine: "vllm".to_owned(),
            engine_version: None,
            model_name: None,
            simulated: false,
            window: Window {
                start_unix_seconds: start,
                end_unix_seconds: start + 60.0,
                kind: WindowKind::Interval,
                observed_seconds: 60.0,
                samples: 5,
            },
            replicas: vec![Replica {
                metrics_url: "http://a/metrics".to_owned(),
                outcome: Ok(figures),
                samples: 5,
                failed_scrapes: 0,
                dropped: Vec::new(),
            }],
            figures: Figures::default(),
            settings: Vec::new(),
            notes: Vec::new(),
        }
    }

    fn range(of: &[Measurement]) -> LoadRange {
        of.iter().fold(LoadRange::default(), |range, measurement| {
            range.with(measurement).unwrap_or(range)
        })
    }

    fn sequences(range: &LoadRange) -> Vec<f64> {
        let windows = range.windows();
        windows.iter().map(|one| one.decode_sequences).collect()
    }

    #[test]
    fn of_each_kind_of_load_the_newest_is_kept() {
        let seen = range(&[
            measured(0.0, 4.0, 0.0),
            measured(60.0, 16.0, 0.0),
            measured(120.0, 4.1, 0.0),
            measured(180.0, 4.0, 40.0),
        ]);
        assert_eq!(sequences(&seen), [16.0, 4.1, 4.0]);
    }

    #[test]
    fn windows_that_overlap_are_not_taken_for_two() {
        let seen = range(&[
            measured(0.0, 4.0, 0.0),
            measured(15.0, 4.1, 0.0),
            measured(30.0, 16.0, 0.0),
            measured(74.0, 16.0, 0.0),
        ]);
        assert_eq!(sequences(&seen), [4.1]);
        let later = seen.with(&measured(75.0, 16.0, 0.0)).unwrap();
        assert_eq!(sequences(&later), [4.1, 16.0]);
    }

    #[test]
    fn each_replica_counts() {
        let mut two = measured(0.0, 4.0, 0.0);
        two.replicas.extend(measured(0.0, 16.0, 0.0).replicas);
        assert_eq!(sequences(&range(&[two])), [4.0, 16.0]);
    }

    #[test]
    fn a_restart_and_other_settings_begin_anew() {
        let seen = range(&[measured(0.0, 4.0, 0.0)]);
        let mut restarted = measured(60.0, 16.0, 0.0);
        for replica in &mut restarted.replicas {
            replica.dropped.push(DroppedInterval {
                start_unix_seconds: 70.0,
                end_unix_seconds: 80.0,
                cause: DropCause::Restart {
                    evidence: String::new(),
                },
            });
        }
        assert_eq!(
            sequences(&seen.with(&restarted).unwrap()),
            Vec::<f64>::new()
        );
        let mut other = measured(60.0, 16.0, 0.0);
        other.settings.push(Setting {
            name: "max_num_seqs".to_owned(),
            flag: "--max-num-seqs".to_owned(),
            value: Some("16".to_owned()),
            source: "/server_info".to_owned(),
        });
        assert_eq!(sequences(&seen.with(&other).unwrap()), [16.0]);
    }

    #[test]
    fn an_idle_window_and_totals_change_nothing() {
        let seen = range(&[measured(0.0, 4.0, 0.0)]);
        assert_eq!(seen.with(&measured(60.0, 0.0, 0.0)), None);
        let mut totals = measured(60.0, 16.0, 0.0);
        totals.window.kind = WindowKind::SinceStart;
        assert_eq!(seen.with(&totals), None);
    }

    #[test]
    fn it_stays_small() {
        assert!(MAX_STEP_WINDOWS * size_of::<Kept>() <= 2_400);
    }

    proptest! {
        #[test]
        fn it_is_bounded_and_both_ends_of_the_load_stay(
            loads in proptest::collection::vec((1.0..2_000.0_f64, 0.0..4_000.0_f64), 1..120)
        ) {
            let windows: Vec<Measurement> = loads
                .iter()
                .enumerate()
                .map(|(at, (sequences, prefill))| measured(60.0 * at as f64, *sequences, *prefill))
                .collect();
            let seen = range(&windows);
            let kept = seen.windows();
            prop_assert!(!kept.is_empty() && kept.len() <= MAX_STEP_WINDOWS);
            let spread = |of: &mut dyn Iterator<Item = f64>| {
                of.map(f64::log2).fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), one| {
                    (low.min(one), high.max(one))
                })
            };
            let (all_low, all_high) = spread(&mut loads.iter().map(|(sequences, _)| *sequences));
            let (low, high) = spread(&mut sequences(&seen).into_iter());
            // what is dropped has others near it
            prop_assert!(low - all_low <= 2.0 && all_high - high <= 2.0, "{low} {high} of {all_low} {all_high}");
        }
    }
}
