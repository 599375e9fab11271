//! Samples of all replicas → the measurement of an instance.

use std::sync::Arc;

use crate::engine::{EngineProfile, Probed, Quantity, Setting};

use super::intervals::series_of;
use super::measurement::{
    Figures, Measurement, Note, NoteCode, Replica, ReplicaFailure, Window, WindowKind,
};
use super::sample::Sample;
use super::view::{DropCause, Knowledge, View};

/// What was collected of one replica.
#[derive(Debug, Clone)]
pub struct ReplicaSamples {
    /// Its metrics URL.
    pub metrics_url: String,
    /// Scrapes that were read, in order of time.
    pub samples: Vec<Arc<Sample>>,
    /// Scrapes that failed.
    pub failed_scrapes: u32,
    /// The last failure, if any scrape failed.
    pub last_failure: Option<ReplicaFailure>,
    /// What its endpoints said.
    pub probed: Arc<Probed>,
}

/// What was collected of an instance.
#[derive(Debug, Clone)]
pub struct InstanceSamples<'p> {
    /// Id that the caller gave it.
    pub instance_id: String,
    /// The engine that all replicas run.
    pub profile: &'p EngineProfile,
    /// Whether a window was asked for, or totals since the start.
    pub kind: WindowKind,
    /// Its replicas.
    pub replicas: Vec<ReplicaSamples>,
}

impl InstanceSamples<'_> {
    /// The measurement. Replicas without enough samples are shown with their failure.
    pub fn measure(&self) -> Measurement {
        let views: Vec<Option<View>> = self
            .replicas
            .iter()
            .map(|replica| self.view_of(replica))
            .collect();
        let measured: Vec<&View> = views.iter().flatten().collect();
        let merged = View::merged(&measured);
        let observed_seconds = merged.observed_seconds;
        let series = series_of(&merged);
        let figures = Figures::of(merged);
        // of one replica they are the instance's
        let only = measured.len() == 1;
        let replicas: Vec<Replica> = self
            .replicas
            .iter()
            .zip(&views)
            .map(|(replica, view)| {
                let figures_of = |view: &View| match only {
                    true => figures.clone(),
                    false => Figures::of(view.clone()),
                };
                replica_of(replica, view.as_ref(), figures_of)
            })
            .collect();
        let newest = self
            .replicas
            .iter()
            .flat_map(|replica| replica.samples.last())
            .find(|sample| sample.model_name.is_some());
        Measurement {
            instance_id: self.instance_id.clone(),
            engine: self.profile.name.to_string(),
            engine_version: self
                .replicas
                .iter()
                .find_map(|replica| replica.probed.version_text.clone()),
            model_name: newest.and_then(|sample| sample.model_name.clone()),
            simulated: self
                .replicas
                .iter()
                .flat_map(|replica| &replica.samples)
                .any(|sample| sample.simulated),
            window: self.window(observed_seconds),
            // of the instance only
            figures: Figures { series, ..figures },
            settings: self
                .replicas
                .iter()
                .map(settings_of)
                .find(|settings| !settings.is_empty())
                .unwrap_or_default(),
            notes: self.notes(&views, &replicas),
            replicas,
        }
    }

    fn view_of(&self, replica: &ReplicaSamples) -> Option<View> {
        let needed = match self.kind {
            WindowKind::Interval => 2,
            WindowKind::SinceStart => 1,
        };
        let knowledge = Knowledge {
            version: replica.probed.version,
            proven: replica.probed.proves_engine,
        };
        let samples = match self.kind {
            WindowKind::Interval => replica.samples.as_slice(),
            WindowKind::SinceStart => replica
                .samples
                .split_last()
                .map_or(&[][..], |(last, _)| std::slice::from_ref(last)),
        };
        (samples.len() >= needed).then(|| View::over(self.profile, samples, knowledge))
    }

    fn window(&self, observed_seconds: f64) -> Window {
        let times = || {
            self.replicas
                .iter()
                .flat_map(|replica| &replica.samples)
                .map(|sample| sample.at_unix_seconds)
        };
        let end = times().fold(f64::NEG_INFINITY, f64::max);
        Window {
            start_unix_seconds: match self.kind {
                WindowKind::Interval => times().fold(f64::INFINITY, f64::min),
                WindowKind::SinceStart => end,
            },
            end_unix_seconds: end,
            kind: self.kind,
            observed_seconds,
            samples: self
                .replicas
                .iter()
                .map(|replica| u32::try_from(replica.samples.len()).unwrap_or(u32::MAX))
                .max()
                .unwrap_or(0),
        }
    }

    fn notes(&self, views: &[Option<View>], replicas: &[Replica]) -> Vec<Note> {
        let mut notes = Vec::new();
        for ((samples, view), replica) in self.replicas.iter().zip(views).zip(replicas) {
            let mut push = |code, message: String| {
                notes.push(Note {
                    code,
                    metrics_url: Some(samples.metrics_url.clone()),
                    message,
                });
            };
            match &replica.outcome {
                Err(failure) => push(NoteCode::ReplicaFailed, failure.message.clone()),
                Ok(_) if samples.failed_scrapes > 0 => {
                    let total = samples.failed_scrapes + replica.samples;
                    let last = samples
                        .last_failure
                        .as_ref()
                        .map_or("", |failure| &failure.message);
                    push(
                        NoteCode::ScrapesFailed,
                        format!(
                            "{} of {total} scrapes failed, the last with: {last}",
                            samples.failed_scrapes
                        ),
                    );
                }
                Ok(_) => {}
            }
            for (code, message) in view.iter().flat_map(drop_notes) {
                push(code, message);
            }
            let bad_lines: u64 = samples
                .samples
                .iter()
                .map(|sample| sample.bad_lines)
                .max()
                .unwrap_or(0);
            if bad_lines > 0 {
                push(
                    NoteCode::BadLines,
                    format!("{bad_lines} lines of a scrape could not be read and were passed over"),
                );
            }
            if view.as_ref().is_some_and(holds_without_progress) {
                push(
                    NoteCode::HeldWithoutProgress,
                    "requests are held, but no token and no step was counted in this window: the \
                     engine stalls, or its gauges are stale"
                        .to_owned(),
                );
            }
            let silent = |sample: &Arc<Sample>| sample.families_recognised == 0;
            if self.profile.empty_when_idle
                && samples.samples.iter().all(silent)
                && !samples.samples.is_empty()
            {
                push(
                    NoteCode::Idle,
                    format!(
                        "{} has served no request yet and exports nothing until it does",
                        self.profile.title
                    ),
                );
            }
        }
        notes.extend(self.settings_note());
        notes.extend(self.same_process_note());
        notes
    }

    /// Replicas whose series were created at the same microsecond are one.
    fn same_process_note(&self) -> Option<Note> {
        let born = |replica: &ReplicaSamples| {
            let incarnation = replica.samples.last()?.incarnation;
            incarnation
                .created_unix_seconds
                .zip(incarnation.process_start_unix_seconds)
        };
        for (at, replica) in self.replicas.iter().enumerate() {
            let twin = self
                .replicas
                .iter()
                .take(at)
                .find(|other| born(other).is_some() && born(other) == born(replica));
            if let Some(twin) = twin {
                return Some(Note {
                    code: NoteCode::SameProcess,
                    metrics_url: Some(replica.metrics_url.clone()),
                    message: format!(
                        "this is the same process as {}, and is counted twice: give each replica one URL",
                        twin.metrics_url
                    ),
                });
            }
        }
        None
    }

    fn settings_note(&self) -> Option<Note> {
        let all: Vec<Vec<Setting>> = self
            .replicas
            .iter()
            .map(settings_of)
            .filter(|settings| !settings.is_empty())
            .collect();
        let first = all.first()?;
        let differing: Vec<&str> = first
            .iter()
            .filter(|setting| {
                all.iter().any(|other| {
                    other
                        .iter()
                        .any(|known| known.name == setting.name && known.value != setting.value)
                })
            })
            .map(|setting| setting.name.as_str())
            .collect();
        (!differing.is_empty()).then(|| Note {
            code: NoteCode::SettingsDiffer,
            metrics_url: None,
            message: format!("replicas differ in {}", differing.join(", ")),
        })
    }
}

fn settings_of(replica: &ReplicaSamples) -> Vec<Setting> {
    let mut known = Probed {
        settings: replica
            .samples
            .last()
            .map(|sample| sample.settings.to_vec())
            .unwrap_or_default(),
        ..Probed::default()
    };
    known.merge(Probed::clone(&replica.probed));
    known.settings
}

fn replica_of(
    replica: &ReplicaSamples,
    view: Option<&View>,
    figures_of: impl Fn(&View) -> Figures,
) -> Replica {
    let outcome = match view {
        Some(view) => Ok(figures_of(view)),
        None => Err(replica
            .last_failure
            .clone()
            .unwrap_or_else(|| ReplicaFailure {
                reason: "TOO_FEW_SAMPLES".to_owned(),
                message: "fewer than two scrapes succeeded in this window".to_owned(),
            })),
    };
    Replica {
        metrics_url: replica.metrics_url.clone(),
        outcome,
        samples: u32::try_from(replica.samples.len()).unwrap_or(u32::MAX),
        failed_scrapes: replica.failed_scrapes,
        dropped: view.map(|view| view.dropped.clone()).unwrap_or_default(),
    }
}

fn drop_notes(view: &View) -> Vec<(NoteCode, String)> {
    let mut notes = Vec::new();
    let mut stood_still = 0;
    for dropped in &view.dropped {
        match &dropped.cause {
            DropCause::Restart { evidence } => notes.push((
                NoteCode::Restarted,
                format!(
                    "the engine restarted in this window ({evidence}); that interval does not count"
                ),
            )),
            DropCause::NotAdvanced => stood_still += 1,
        }
    }
    if stood_still > 0 {
        notes.push((
            NoteCode::NotAdvanced,
            format!("the exposition's timestamps stood still in {stood_still} intervals, which do not count"),
        ));
    }
    notes
}

/// Requests were held at every sample, yet nothing moved.
fn holds_without_progress(view: &View) -> bool {
    let held = |quantity| {
        view.gauges.get(&quantity).is_some_and(|track| {
            track.values.len() > 1 && track.values.iter().all(|(_, value)| *value > 0.0)
        })
    };
    let moved = |quantity| {
        let rise = view.counters.get(&quantity)?.increase?;
        Some(rise.amount > 0.0)
    };
    let steps = view
        .distributions
        .get(&Quantity::StepTokens)
        .map(|steps| steps.count > 0.0);
    let signs = [
        moved(Quantity::GenerationTokens),
        moved(Quantity::PrefillTokens),
        moved(Quantity::PromptTokens),
        steps,
    ];
    let any_known = signs.iter().any(Option::is_some);
    (held(Quantity::RequestsRunning) || held(Quantity::RequestsWaiting))
        && any_known
        && !signs.into_iter().flatten().any(|moved| moved)
}
