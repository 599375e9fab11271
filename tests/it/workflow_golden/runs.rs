//! The runs of the golden logs.

use perfagent::workflow::{
    Command, Failure, GatePolicy, OnTimeout, RecordedEvent, Workflow, WorkflowKind, decide, evolve,
};

use super::plans::{analysis, applied, bare, baseline, effects, spec};

/// A workflow that goes on, a second a step.
struct Run {
    state: Option<Workflow>,
    log: Vec<RecordedEvent>,
    now_us: i64,
}

fn note(text: &str) -> String {
    text.to_owned()
}

fn intend() -> Command {
    Command::Intend {
        epoch: 17,
        baseline: None,
    }
}

/// Before the first write of all.
fn intend_first() -> Command {
    Command::Intend {
        epoch: 17,
        baseline: Some(Box::new(baseline())),
    }
}

fn written(revision: &str) -> Command {
    Command::Written {
        revision: revision.to_owned(),
    }
}

fn fail(reason: &str) -> Command {
    Command::Fail(Failure {
        reason: reason.to_owned(),
        message: "unit failed at `write`: \"no space left\"".to_owned(),
        hint: "Make room, and roll back to try again.".to_owned(),
    })
}

impl Run {
    fn begin(kind: WorkflowKind, place: u32) -> Self {
        Self::begin_with(super::plans::spec(kind), place)
    }

    fn begin_with(spec: perfagent::workflow::WorkflowSpec, place: u32) -> Self {
        let run = Self {
            state: None,
            log: Vec::new(),
            now_us: 1_795_000_000_000_000,
        };
        let start = Command::Start {
            workflow_id: format!("019ac9a0-7c00-7000-8000-{place:012x}"),
            spec: Box::new(spec),
        };
        run.by("ada", start)
    }

    fn by(mut self, actor: &str, command: Command) -> Self {
        self.now_us += 1_000_000;
        let event = decide(self.state.as_ref(), &command, actor, self.now_us)
            .unwrap_or_else(|refusal| panic!("{command:?}: {refusal}"));
        let sequence = self.log.len() as u64 + 1;
        let workflow_id = match (&self.state, command) {
            (Some(state), _) => state.workflow_id.clone(),
            (None, Command::Start { workflow_id, .. }) => workflow_id,
            (None, command) => panic!("{command:?}"),
        };
        let recorded = RecordedEvent {
            workflow_id,
            instance_id: "chat".to_owned(),
            revision: 40 + 3 * sequence,
            sequence,
            at_us: self.now_us,
            actor: actor.to_owned(),
            event,
        };
        self.state = Some(evolve(self.state.take(), &recorded).unwrap());
        self.log.push(recorded);
        self
    }

    /// What its runner reports, one after the other.
    fn reports(self, commands: impl IntoIterator<Item = Command>) -> Self {
        let report = |run: Self, command| run.by("perfagent", command);
        commands.into_iter().fold(self, report)
    }

    fn planned(self, draft: perfagent::workflow::PlanDraft) -> Self {
        self.reports([
            Command::Analysed(Box::new(analysis())),
            Command::Planned(Box::new(draft)),
        ])
    }

    fn approve(self, actor: &str) -> Self {
        let plan = self.state.as_ref().unwrap().plan.as_ref();
        let etag = plan.unwrap().etag.clone();
        let note = note("Go ahead.");
        self.by(actor, Command::Approve { etag, note })
    }

    fn wait_seconds(mut self, seconds: i64) -> Self {
        self.now_us += seconds * 1_000_000;
        self
    }
}

fn rollback() -> Command {
    Command::Rollback {
        note: note("Users complain."),
    }
}

fn drifted() -> Command {
    Command::Drifted {
        target: Some(0),
        digest: "5f".repeat(32),
        message: "chat-0 has settings that this workflow did not write.".to_owned(),
    }
}

fn two_approvals() -> GatePolicy {
    GatePolicy {
        approvals: 2,
        approvers: vec![note("bob"), note("carol")],
        separate_requester: true,
        timeout_seconds: 3_600.0,
        on_timeout: OnTimeout::Hold,
    }
}

/// All of them, by the name of their file.
pub(super) fn all() -> Vec<(&'static str, Vec<RecordedEvent>)> {
    use WorkflowKind::{Analysis, ConfigChange, Optimization, Restore};
    let one_target = || {
        let mut draft = bare();
        draft.targets.truncate(1);
        draft
    };
    let failed_back = || {
        Run::begin(ConfigChange, 5)
            .planned(one_target())
            .approve("bob")
            .reports([intend(), written("r2"), Command::Ready])
            .by("bob", rollback())
            .reports([intend(), fail("ACTUATOR_FAILED")])
    };
    let runs = [
        (
            "optimization_applied",
            Run::begin(Optimization, 1)
                .planned(applied())
                .approve("bob")
                .reports([intend_first(), written("r2"), Command::Ready])
                .reports([intend(), written("r2"), Command::Ready])
                .reports([Command::Measured(Some(Box::new(effects())))]),
        ),
        (
            "rejected",
            Run::begin_with(
                perfagent::workflow::WorkflowSpec {
                    gate: two_approvals(),
                    ..spec(Optimization)
                },
                2,
            )
            .planned(applied())
            .approve("bob")
            .by(
                "carol",
                Command::Reject {
                    note: note("Not today."),
                },
            ),
        ),
        (
            "rolled_back_by_failure",
            Run::begin(Optimization, 3)
                .planned(applied())
                .approve("bob")
                .reports([intend(), written("r2"), Command::Ready])
                .reports([intend(), fail("ACTUATOR_FAILED")])
                .reports([intend(), written("r1"), Command::Ready])
                .reports([intend(), written("r1"), Command::Ready])
                .reports([Command::AllRestored]),
        ),
        (
            "drift_resumed",
            Run::begin(ConfigChange, 4)
                .planned(one_target())
                .approve("bob")
                .reports([intend(), drifted()])
                .by(
                    "bob",
                    Command::Resume {
                        note: note("That was me."),
                    },
                )
                .reports([written("r3"), Command::Ready])
                .wait_seconds(3_600)
                .reports([Command::TimeOver { problem: None }]),
        ),
        (
            "rollback_failed_then_done",
            failed_back()
                .by("carol", Command::Rollback { note: note("") })
                .reports([intend(), written("r1"), Command::Ready])
                .reports([Command::AllRestored]),
        ),
        (
            "rollback_failed_then_abandoned",
            failed_back().by(
                "carol",
                Command::Cancel {
                    acknowledge: true,
                    note: note("Restored by hand."),
                },
            ),
        ),
        ("analysis", Run::begin(Analysis, 7).planned(applied())),
        (
            "nothing_to_do",
            Run::begin(Optimization, 8).reports([
                Command::Analysed(Box::new(analysis())),
                Command::NothingToDo {
                    headline: note("Nothing that would help is left to change."),
                },
            ]),
        ),
        (
            "not_applied",
            Run::begin(Optimization, 9)
                .planned({
                    let mut draft = applied();
                    draft.targets.clear();
                    draft.snapshot_id = None;
                    draft.planned_snapshot_id = None;
                    draft
                })
                .approve("bob"),
        ),
        (
            "restore",
            Run::begin_with(
                perfagent::workflow::WorkflowSpec {
                    auto_approve: true,
                    changes: [].into(),
                    snapshot_id: Some(note("019ac9a0-0000-7000-8000-000000000001")),
                    ..spec(Restore)
                },
                10,
            )
            .planned(one_target())
            .reports([intend(), written("r2"), Command::Ready])
            .reports([Command::Measured(None)])
            .by("bob", rollback())
            .reports([intend(), written("r1"), Command::Ready])
            .reports([Command::AllRestored]),
        ),
        (
            "planned_anew_then_cancelled",
            Run::begin_with(
                perfagent::workflow::WorkflowSpec {
                    gate: two_approvals(),
                    ..spec(ConfigChange)
                },
                11,
            )
            .planned(one_target())
            .approve("bob")
            .approve("carol")
            .reports([Command::PlanOutdated {
                message: note("The settings of chat-0 are others than the plan was made for."),
            }])
            .by("ada", Command::Pause { note: note("") })
            .by("ada", Command::Resume { note: note("") })
            .reports([Command::Planned(Box::new(one_target()))])
            .by(
                "ada",
                Command::Cancel {
                    acknowledge: false,
                    note: note(""),
                },
            ),
        ),
        (
            "failed",
            Run::begin(Optimization, 12)
                .reports([Command::Analysed(Box::new(analysis())), fail("INTERNAL")]),
        ),
        (
            "held_and_rolled_back_by_cancel",
            Run::begin_with(
                perfagent::workflow::WorkflowSpec {
                    gate: GatePolicy {
                        on_timeout: OnTimeout::Hold,
                        ..GatePolicy::default()
                    },
                    ..spec(ConfigChange)
                },
                13,
            )
            .planned(one_target())
            .wait_seconds(8 * 86_400)
            .reports([Command::TimeOver { problem: None }])
            .by("ada", Command::Resume { note: note("") })
            .approve("bob")
            .reports([intend()])
            .by(
                "ada",
                Command::Pause {
                    note: note("Wait."),
                },
            )
            .reports([written("r2")])
            .by(
                "ada",
                Command::Cancel {
                    acknowledge: false,
                    note: note(""),
                },
            )
            .reports([intend(), written("r1"), Command::Ready])
            .reports([Command::AllRestored]),
        ),
    ];
    runs.map(|(name, run)| (name, run.log)).into()
}
