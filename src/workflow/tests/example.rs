//! Workflows for tests.

use crate::optimization::{Effect, KnobChange, PredictedQuantity};
use crate::workflow::{
    Analysis, Command, Event, Failure, FindingSummary, MeasuredEffect, MeasuredEffects,
    MeasuredValue, PlanDraft, PlanTarget, RecordedEvent, Refusal, Strategy, Workflow, WorkflowKind,
    WorkflowSpec, decide, decode_event, encode_event, evolve,
};

/// Who starts workflows in tests.
pub(crate) const STARTER: &str = "ada";
/// Who runs them.
pub(crate) const RUNNER: &str = "perfagent";
/// When tests begin, unix time in microseconds.
pub(crate) const BEGIN_US: i64 = 1_800_000_000_000_000;
/// A second in microseconds.
pub(crate) const SECOND_US: i64 = 1_000_000;

pub(crate) fn spec(kind: WorkflowKind) -> WorkflowSpec {
    WorkflowSpec {
        instance_id: "chat".to_owned(),
        kind,
        actuator: "unit".to_owned(),
        changes: [("max_num_seqs".to_owned(), Some("256".to_owned()))].into(),
        snapshot_id: None,
        optimization_id: None,
        no_restart: false,
        no_answer_change: false,
        auto_approve: false,
        gate: crate::workflow::GatePolicy::default(),
        strategy: Strategy::InPlace,
        timeouts: crate::workflow::Timeouts::default(),
        note: String::new(),
    }
}

pub(crate) fn start(spec: WorkflowSpec) -> Command {
    Command::Start {
        workflow_id: "w".to_owned(),
        spec: Box::new(spec),
    }
}

pub(crate) fn analysis() -> Analysis {
    Analysis {
        headline: "Too few sequences run at once.".to_owned(),
        findings: vec![FindingSummary {
            cause: "SEQUENCE_CAP".to_owned(),
            severity: "HIGH".to_owned(),
            description: "12 requests wait while the KV cache is half empty.".to_owned(),
        }],
        start_unix_seconds: 1_800_000_000.1,
        end_unix_seconds: 1_800_000_060.3,
        simulated: true,
        before: vec![MeasuredValue {
            quantity: PredictedQuantity::TimeToFirstTokenMean,
            value: 1.0 / 3.0,
        }],
    }
}

/// A plan for so many targets.
pub(crate) fn draft(targets: usize) -> PlanDraft {
    let target = |place: usize| PlanTarget {
        name: format!("replica-{place}"),
        revision: format!("r{place}"),
        digest_before: format!("{:064}", place),
        digest_after: format!("{:064}", 100 + place),
        needs_restart: true,
        launch_args: vec!["--max-num-seqs".to_owned(), "256".to_owned()],
    };
    PlanDraft {
        headline: "--max-num-seqs from 64 to 256".to_owned(),
        optimizations: Vec::new(),
        chosen: None,
        changes: vec![KnobChange {
            name: "max_num_seqs".to_owned(),
            flag: "--max-num-seqs".to_owned(),
            from: Some("64".to_owned()),
            to: Some("256".to_owned()),
        }],
        effect: Effect::NotPredictable("nothing was fitted yet".to_owned()),
        prediction_id: None,
        targets: (0..targets).map(target).collect(),
        snapshot_id: (targets > 0).then(|| "before".to_owned()),
        planned_snapshot_id: (targets > 0).then(|| "after".to_owned()),
        strategy: Strategy::InPlace,
        changes_answers: false,
        needs_restart: true,
        notes: Vec::new(),
    }
}

pub(crate) fn effects() -> MeasuredEffects {
    MeasuredEffects {
        before_start_unix_seconds: 1_800_000_000.0,
        before_end_unix_seconds: 1_800_000_060.0,
        after_start_unix_seconds: 1_800_000_100.0,
        after_end_unix_seconds: 1_800_000_160.0,
        quantities: vec![MeasuredEffect {
            quantity: PredictedQuantity::GenerationTokensPerSecond,
            before: 101.3,
            after: 303.7,
            ratio: 303.7 / 101.3,
            predicted: Some([3.0, 2.5, 3.5]),
        }],
        headline: "Nothing holds it back.".to_owned(),
    }
}

pub(crate) fn failure() -> Failure {
    Failure {
        reason: "ACTUATOR_FAILED".to_owned(),
        message: "unit failed at `write`: no space left".to_owned(),
        hint: "Make room.".to_owned(),
    }
}

pub(crate) fn drifted(target: Option<u32>) -> Command {
    Command::Drifted {
        target,
        digest: "f00d".to_owned(),
        message: "Somebody else changed replica-0.".to_owned(),
    }
}

pub(crate) fn written() -> Command {
    Command::Written {
        revision: "r9".to_owned(),
    }
}

/// A workflow with its log, to which commands are put one after the other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Run {
    /// How it is; none before it began.
    pub(crate) state: Option<Workflow>,
    /// All events so far.
    pub(crate) log: Vec<RecordedEvent>,
    /// What time it is, unix time in microseconds.
    pub(crate) now_us: i64,
}

impl Run {
    pub(crate) fn begin(spec: WorkflowSpec) -> Self {
        let mut run = Self {
            state: None,
            log: Vec::new(),
            now_us: BEGIN_US,
        };
        run.ask(STARTER, &start(spec)).unwrap();
        run
    }

    /// One for so many targets whose plan is ready.
    pub(crate) fn planned(spec: WorkflowSpec, targets: usize) -> Self {
        let mut run = Self::begin(spec);
        run.report(Command::Analysed(Box::new(analysis())));
        run.report(Command::Planned(Box::new(draft(targets))));
        run
    }

    /// One for so many targets whose plan is approved.
    pub(crate) fn approved(targets: usize) -> Self {
        let mut run = Self::planned(spec(WorkflowKind::Optimization), targets);
        run.approve("bob").unwrap();
        run
    }

    /// One for so many targets of which the first is about to be written.
    pub(crate) fn writing(targets: usize) -> Self {
        let mut run = Self::approved(targets);
        run.report(Command::Intend {
            epoch: 1,
            baseline: None,
        });
        run
    }

    /// One whose targets, so many, all have their settings.
    pub(crate) fn measuring(targets: usize) -> Self {
        let mut run = Self::writing(targets);
        for place in 0..targets {
            if place > 0 {
                run.report(Command::Intend {
                    epoch: 1,
                    baseline: None,
                });
            }
            run.report(written());
            run.report(Command::Ready);
        }
        run
    }

    pub(crate) fn state(&self) -> &Workflow {
        self.state.as_ref().unwrap()
    }

    pub(crate) fn approve(&mut self, who: &str) -> Result<Event, Refusal> {
        let etag = self.state().plan.as_ref().map(|plan| plan.etag.clone());
        self.ask(
            who,
            &Command::Approve {
                etag: etag.unwrap_or_default(),
                note: String::new(),
            },
        )
    }

    /// What the runner reports, and has to be taken.
    pub(crate) fn report(&mut self, command: Command) -> Event {
        let asked = self.ask(RUNNER, &command);
        asked.unwrap_or_else(|refusal| panic!("{command:?}: {refusal:?} in {:?}", self.state))
    }

    /// Puts a command. What is decided is encoded, decoded and taken.
    pub(crate) fn ask(&mut self, who: &str, command: &Command) -> Result<Event, Refusal> {
        let event = decide(self.state.as_ref(), command, who, self.now_us)?;
        let text = encode_event(&event).unwrap();
        assert_eq!(decode_event(&text).as_ref(), Ok(&event), "{text}");
        let sequence = self.log.len() as u64 + 1;
        let recorded = RecordedEvent {
            workflow_id: "w".to_owned(),
            instance_id: "chat".to_owned(),
            // others write to the log too
            revision: 7 * sequence,
            sequence,
            at_us: self.now_us,
            actor: who.to_owned(),
            event: event.clone(),
        };
        let after = evolve(self.state.take(), &recorded);
        self.state = Some(after.unwrap_or_else(|error| panic!("{command:?}: {error}")));
        self.log.push(recorded);
        Ok(event)
    }

    pub(crate) fn wait_seconds(&mut self, seconds: i64) {
        self.now_us += seconds * SECOND_US;
    }
}
