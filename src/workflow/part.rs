//! What becomes of a change that goes out part by part: further, back, or nowhere until more is known.

use super::command::Failure;
use super::evolve::Change;
use super::gate::{GateKind, GateState};
use super::quality::QualityReport;
use super::state::{Phase, Rollback, RollbackCause};
use super::verdict::{Observation, Verdict, VerdictWord};

impl Change<'_> {
    pub(super) fn observed(
        &mut self,
        step: u32,
        observation: &Observation,
        verdict: Option<&Verdict>,
    ) -> Option<()> {
        if step != self.state.step || self.state.phase != Phase::Observing {
            return None;
        }
        self.state.observations.push(observation.clone());
        self.state.simulated |= observation.simulated;
        let Some(verdict) = verdict else {
            return Some(());
        };
        self.state.verdicts.insert(step, verdict.clone());
        self.state.headline.clone_from(&verdict.reason);
        match verdict.word {
            VerdictWord::Pass if self.state.needs_quality_check() => {
                self.enter(Phase::CheckingQuality);
            }
            VerdictWord::Pass => self.passed(),
            VerdictWord::Fail => self.failed(Failure {
                reason: "HARMED".to_owned(),
                message: verdict.reason.clone(),
                hint: "See the verdict's quantities.".to_owned(),
            }),
            VerdictWord::Inconclusive | VerdictWord::NotComparable => {}
        }
        Some(())
    }

    pub(super) fn quality_checked(&mut self, report: &QualityReport) {
        self.state.quality = Some(report.clone());
        self.state.headline = report.in_words();
        match report.passed {
            true => self.passed(),
            false => self.failed(Failure {
                reason: "ANSWERS_DIFFER".to_owned(),
                message: report.in_words(),
                hint: "Compare answers by hand; start it again without `quality` to decide by yourself.".to_owned(),
            }),
        }
    }

    /// A part stood: the next gets the change, once somebody agrees where that is asked for.
    fn passed(&mut self) {
        if !self.state.needs_promotion() {
            return self.next_part();
        }
        self.state.gate = Some(GateState {
            kind: GateKind::BeforeRollout,
            since_us: self.at_us,
            approvals: Vec::new(),
        });
        self.enter(Phase::AwaitingPromotion);
    }

    /// A part did harm: the way back begins.
    fn failed(&mut self, failure: Failure) {
        let rollback = Rollback {
            attempt: 1,
            cause: RollbackCause::Failure,
            by: self.actor.to_owned(),
            overwrites: false,
        };
        let message = failure.message.clone();
        self.go_back(rollback, &message, Some(failure));
    }

    /// More targets get the change.
    pub(super) fn next_part(&mut self) {
        // of the part that is left behind
        let stage = self.state.stage();
        self.state.step = self.state.step.saturating_add(1);
        self.state.observations.clear();
        let phase = match self.state.next_target() {
            Some(_) => Phase::RollingOut,
            None => Phase::Measuring,
        };
        self.arrive(stage, phase);
        self.state.deadline_us = self.time_of(phase);
    }

    pub(super) fn go_back(&mut self, rollback: Rollback, message: &str, failure: Option<Failure>) {
        self.state.pause = None;
        if failure.is_some() {
            self.state.failure = failure;
        }
        self.state.rollback = Some(rollback);
        self.state.outcome = None;
        message.clone_into(&mut self.state.headline);
        self.enter(Phase::RollingBack);
    }
}
