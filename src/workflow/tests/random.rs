//! Random workflows: callers that ask for anything at any time, and a runner to whom anything may happen.

use proptest::prelude::*;

use super::example::{
    ANSWERS, RUNNER, Run, analysis, draft, draft_of, drifted, effects, failure, observation,
    report as report_of, spec, written,
};
use crate::workflow::{
    Canary, Command, Event, GatePolicy, OnTimeout, QualityPolicy, Refusal, Step, StepEffect,
    Strategy as How, Timeouts, Workflow, WorkflowKind, WorkflowSpec, next_step,
};

/// Who may ask; the first starts the workflow.
pub(super) const CALLERS: [&str; 4] = ["ada", "bob", "carol", "dave"];

/// One thing that happens.
#[derive(Debug, Clone)]
pub(super) enum Act {
    /// The runner does what is next, with this luck.
    Step(Luck),
    /// A caller asks.
    Ask(usize, Verb),
    /// A report comes, whatever the workflow is at.
    Stray(Command),
    /// Time passes, in seconds.
    Wait(i64),
}

/// How what the runner does goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Luck {
    Well,
    Fails,
    /// Somebody else changed settings: of this target, or of the one that it is about.
    Drift(Option<u32>),
    /// Nothing comes of it.
    Nothing,
    /// The change does harm.
    Worse,
}

/// What callers ask.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verb {
    Approve,
    ApproveAnother,
    Reject,
    Pause,
    Resume,
    Cancel,
    CancelKnowing,
    Rollback,
}

/// What a workflow is asked to do, and how many targets its instance has.
pub(super) fn specs() -> impl Strategy<Value = (WorkflowSpec, usize)> {
    let kinds = prop_oneof![
        4 => Just(WorkflowKind::Optimization),
        2 => Just(WorkflowKind::ConfigChange),
        2 => Just(WorkflowKind::Restore),
        1 => Just(WorkflowKind::Analysis),
    ];
    let gate = (
        1_u32..=3,
        proptest::sample::subsequence(&CALLERS[..], 0..=4),
        any::<bool>(),
        any::<bool>(),
    );
    let times = [5_u32..100, 5..100, 5..100, 5..100, 5..100];
    let kinds = (kinds, strategies());
    (kinds, gate, times, prop::bool::weighted(0.2), 0_usize..=4).prop_map(
        |(
            (kind, strategy),
            (approvals, approvers, separate, hold),
            times,
            auto_approve,
            targets,
        )| {
            let [plan, ready, observe, rollback, gate] = times.map(f64::from);
            let spec = WorkflowSpec {
                note: if times[0] % 2 == 0 {
                    ANSWERS.to_owned()
                } else {
                    String::new()
                },
                strategy,
                auto_approve,
                gate: GatePolicy {
                    approvals,
                    approvers: approvers.into_iter().map(str::to_owned).collect(),
                    separate_requester: separate,
                    timeout_seconds: gate,
                    on_timeout: if hold {
                        OnTimeout::Hold
                    } else {
                        OnTimeout::Reject
                    },
                },
                timeouts: Timeouts {
                    plan_seconds: plan,
                    ready_seconds: ready,
                    observe_seconds: observe,
                    rollback_seconds: rollback,
                },
                ..spec(kind)
            };
            (spec, targets)
        },
    )
}

fn strategies() -> impl Strategy<Value = How> {
    let gates = any::<[bool; 4]>();
    (any::<bool>(), gates, 10_u32..400).prop_map(
        |(canary, [rollout, step, drains, compares], observe)| match canary {
            false => How::InPlace,
            true => How::Canary(Box::new(Canary {
                shares: vec![0.3, 0.6],
                observe_seconds: f64::from(observe),
                decision_seconds: 50.0,
                drain_seconds: if drains { 10.0 } else { 0.0 },
                gate_before_rollout: rollout,
                gate_each_step: step,
                quality: compares.then(QualityPolicy::default),
                ..Canary::default()
            })),
        },
    )
}

pub(super) fn acts() -> impl Strategy<Value = Vec<Act>> {
    let target = prop::option::of(0_u32..5);
    let luck = prop_oneof![
        20 => Just(Luck::Well),
        1 => Just(Luck::Fails),
        2 => target.prop_map(Luck::Drift),
        1 => Just(Luck::Nothing),
        1 => Just(Luck::Worse),
    ];
    let verb = prop_oneof![
        8 => Just(Verb::Approve),
        1 => Just(Verb::ApproveAnother),
        1 => Just(Verb::Reject),
        3 => Just(Verb::Pause),
        6 => Just(Verb::Resume),
        1 => Just(Verb::Cancel),
        1 => Just(Verb::CancelKnowing),
        2 => Just(Verb::Rollback),
    ];
    let act = prop_oneof![
        20 => luck.prop_map(Act::Step),
        10 => (0..CALLERS.len(), verb).prop_map(|(who, verb)| Act::Ask(who, verb)),
        3 => strays().prop_map(Act::Stray),
        3 => (0_i64..40).prop_map(Act::Wait),
    ];
    prop::collection::vec(act, 0..60)
}

fn strays() -> impl Strategy<Value = Command> {
    prop_oneof![
        Just(Command::Analysed(Box::new(analysis()))),
        (0_usize..4).prop_map(|targets| Command::Planned(Box::new(draft(targets)))),
        Just(Command::NothingToDo {
            headline: "Nothing.".to_owned()
        }),
        (0_u64..9).prop_map(|epoch| Command::Intend {
            epoch,
            baseline: None
        }),
        Just(Command::PlanOutdated {
            message: "Others changed it.".to_owned()
        }),
        Just(written()),
        Just(Command::Ready),
        any::<bool>().prop_map(|leaves_traffic| Command::Drain { leaves_traffic }),
        any::<bool>().prop_map(|passed| Command::QualityChecked(Box::new(report_of(passed)))),
        (0_u32..9).prop_map(|at| Command::Observed(Box::new(observation(at, 1.0)))),
        Just(Command::Measured(None)),
        prop::option::of(0_u32..5).prop_map(drifted),
        Just(Command::AllRestored),
        Just(Command::Fail(failure())),
        Just(Command::TimeOver { problem: None }),
    ]
}

/// What the runner reports of what is next; none where it waits, or has nothing to do.
pub(super) fn report(run: &Run, luck: Luck, targets: usize) -> Option<Command> {
    let state = run.state();
    let effect = match next_step(state) {
        Step::Do(effect) => effect,
        Step::Wait { until_us } => {
            return until_us
                .is_some_and(|until| until <= run.now_us)
                .then_some(Command::TimeOver { problem: None });
        }
        Step::Nothing => return None,
    };
    if state
        .deadline_us
        .is_some_and(|deadline| deadline <= run.now_us)
    {
        return Some(Command::TimeOver { problem: None });
    }
    Some(match (luck, effect) {
        (Luck::Fails, _) => Command::Fail(failure()),
        (Luck::Drift(_), StepEffect::BeginWrite) if !state.has_touched() => Command::PlanOutdated {
            message: "Others changed it.".to_owned(),
        },
        (Luck::Drift(target), _) => drifted(target),
        (Luck::Nothing, StepEffect::Analyse | StepEffect::Plan) => Command::NothingToDo {
            headline: "Nothing.".to_owned(),
        },
        (Luck::Nothing, StepEffect::Measure) => Command::Measured(None),
        (_, StepEffect::Analyse) => Command::Analysed(Box::new(analysis())),
        (_, StepEffect::Plan) => Command::Planned(Box::new(draft_of(&state.spec, targets))),
        (_, StepEffect::BeginWrite) if drains(state) => Command::Drain {
            // as the target says whether it takes requests, and some do not
            leaves_traffic: targets.is_multiple_of(2),
        },
        (_, StepEffect::BeginWrite) => Command::Intend {
            epoch: 4,
            baseline: None,
        },
        (_, StepEffect::Write { .. } | StepEffect::Restore { .. }) => written(),
        (_, StepEffect::AwaitReady { .. } | StepEffect::AwaitRestored { .. }) => Command::Ready,
        (_, StepEffect::Drain { .. }) => Command::Intend {
            epoch: 4,
            baseline: None,
        },
        (luck, StepEffect::Observe) => {
            let ratio = match luck {
                Luck::Worse => 2.0,
                _ => 0.5,
            };
            let windows = u32::try_from(state.observations.len()).unwrap();
            Command::Observed(Box::new(observation(windows, ratio)))
        }
        (luck, StepEffect::CheckQuality) => {
            let passed = !matches!(luck, Luck::Worse);
            Command::QualityChecked(Box::new(report_of(passed)))
        }
        (_, StepEffect::Measure) => Command::Measured(Some(Box::new(effects()))),
        (_, StepEffect::BeginRestore) => match state.next_to_restore() {
            Some(_) => Command::Intend {
                epoch: 5,
                baseline: None,
            },
            None => Command::AllRestored,
        },
    })
}

fn drains(state: &Workflow) -> bool {
    state
        .canary()
        .is_some_and(|canary| canary.drain_seconds > 0.0)
}

/// What a caller asks of this workflow.
pub(super) fn command(run: &Run, verb: Verb) -> Command {
    let note = String::new();
    match verb {
        Verb::Approve => Command::Approve {
            etag: run
                .state()
                .plan
                .as_ref()
                .map_or(String::new(), |plan| plan.etag.clone()),
            note,
        },
        Verb::ApproveAnother => Command::Approve {
            etag: "another".to_owned(),
            note,
        },
        Verb::Reject => Command::Reject { note },
        Verb::Pause => Command::Pause { note },
        Verb::Resume => Command::Resume { note },
        Verb::Cancel => Command::Cancel {
            acknowledge: false,
            note,
        },
        Verb::CancelKnowing => Command::Cancel {
            acknowledge: true,
            note,
        },
        Verb::Rollback => Command::Rollback { note },
    }
}

/// Lets it happen, and says what came of it; none where nothing was asked.
pub(super) fn act(run: &mut Run, act: &Act, targets: usize) -> Option<Result<Event, Refusal>> {
    match act {
        Act::Wait(seconds) => {
            run.wait_seconds(*seconds);
            None
        }
        Act::Step(luck) => report(run, *luck, targets).map(|command| run.ask(RUNNER, &command)),
        Act::Ask(who, verb) => {
            let command = command(run, *verb);
            Some(run.ask(CALLERS[*who], &command))
        }
        Act::Stray(command) => Some(run.ask(RUNNER, command)),
    }
}
