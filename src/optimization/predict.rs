//! What if: the effect of changes that somebody names.

use crate::model::StepWindow;

use super::change::KnobChange;
use super::expectation;
use super::prediction::Effect;
use super::proposal::Expectation;
use super::situation::Situation;
use super::twin::Twin;

/// What is predicted of changes that somebody names. The record of predictions of this kind so far widens or narrows
/// the intervals: by which factor, and of how many.
pub fn predict(
    situation: &Situation<'_>,
    windows: &[StepWindow],
    changes: &[KnobChange],
    record: (f64, u32),
) -> Effect {
    let Some(measurement) = situation.measurement else {
        return Effect::NotPredictable(
            "there is no measurement: a prediction rests on what was measured of this instance"
                .to_owned(),
        );
    };
    let modelled = match expectation::of(situation.in_force, changes) {
        Expectation::Modelled(modelled) => modelled,
        Expectation::Assumed { unknown, .. } => return Effect::NotPredictable(unknown),
        Expectation::NotPredictable(reason) => return Effect::NotPredictable(reason),
    };
    match Twin::fit(measurement, situation.in_force, windows) {
        Ok(twin) => twin.effect(&modelled, record),
        Err(reason) => Effect::NotPredictable(reason),
    }
}
