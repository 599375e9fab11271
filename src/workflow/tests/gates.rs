//! Gates: who may agree, how many have to, until when, and what then.

use super::example::{RUNNER, Run, spec};
use crate::workflow::{
    Command, GatePolicy, OnTimeout, PauseReason, RefusalReason, Status, WorkflowKind, WorkflowSpec,
};

fn gated(gate: GatePolicy) -> Run {
    let spec = WorkflowSpec {
        gate,
        ..spec(WorkflowKind::ConfigChange)
    };
    Run::planned(spec, 1)
}

fn refused(run: &mut Run, who: &str) -> RefusalReason {
    run.approve(who).unwrap_err().reason
}

#[test]
fn as_many_as_asked_for_have_to_agree_each_once() {
    let mut run = gated(GatePolicy {
        approvals: 2,
        ..GatePolicy::default()
    });
    assert_eq!(run.approve("bob").unwrap().kind(), "approval_given");
    assert_eq!(run.state().status(), Status::PendingApproval);
    assert_eq!(refused(&mut run, "bob"), RefusalReason::ApprovedAlready);
    assert_eq!(run.approve("carol").unwrap().kind(), "approved");
    assert_eq!(run.state().status(), Status::Approved);
    let given = &run.state().gate.as_ref().unwrap().approvals;
    let names: Vec<&str> = given.iter().map(|one| one.principal.as_str()).collect();
    assert_eq!(names, ["bob", "carol"]);
}

#[test]
fn only_approvers_may_agree() {
    let mut run = gated(GatePolicy {
        approvers: vec!["carol".to_owned()],
        ..GatePolicy::default()
    });
    assert_eq!(refused(&mut run, "bob"), RefusalReason::NotAnApprover);
    assert!(run.approve("carol").is_ok());
}

#[test]
fn who_started_it_may_be_shut_out() {
    let mut run = gated(GatePolicy {
        separate_requester: true,
        ..GatePolicy::default()
    });
    assert_eq!(refused(&mut run, "ada"), RefusalReason::NotAnApprover);
    assert!(run.approve("bob").is_ok());
}

#[test]
fn who_may_not_approve_learns_that_the_plan_is_another_first() {
    let mut run = gated(GatePolicy {
        approvers: vec!["carol".to_owned()],
        ..GatePolicy::default()
    });
    let old = Command::Approve {
        etag: "of before".to_owned(),
        note: String::new(),
    };
    let reason = run.ask("carol", &old).unwrap_err().reason;
    assert_eq!(reason, RefusalReason::PlanChanged);
}

#[test]
fn a_new_plan_needs_new_approvals() {
    let mut run = gated(GatePolicy::default());
    run.approve("bob").unwrap();
    run.report(Command::PlanOutdated {
        message: "replica-0 has other settings.".to_owned(),
    });
    assert_eq!(run.state().plan, None);
    let mut draft = super::example::draft(1);
    draft.targets[0].revision = "r7".to_owned();
    run.report(Command::Planned(Box::new(draft)));
    assert_eq!(run.state().status(), Status::PendingApproval);
    assert!(run.state().gate.as_ref().unwrap().approvals.is_empty());
    assert!(run.approve("bob").is_ok());
}

#[test]
fn held_at_the_timeout_it_waits_as_long_again() {
    let mut run = gated(GatePolicy {
        timeout_seconds: 60.0,
        on_timeout: OnTimeout::Hold,
        ..GatePolicy::default()
    });
    run.wait_seconds(60);
    run.report(Command::TimeOver { problem: None });
    let pause = run.state().pause.clone().unwrap();
    assert_eq!(pause.reason, PauseReason::ApprovalTimeout);
    assert_eq!(refused(&mut run, "bob"), RefusalReason::WrongStatus);
    run.wait_seconds(1_000);
    let resume = Command::Resume {
        note: String::new(),
    };
    run.ask("bob", &resume).unwrap();
    assert_eq!(run.state().deadline_us, Some(run.now_us + 60_000_000));
    assert!(run.approve("bob").is_ok());
}

#[test]
fn rejected_at_the_timeout_it_has_ended() {
    let mut run = gated(GatePolicy {
        timeout_seconds: 60.0,
        ..GatePolicy::default()
    });
    run.wait_seconds(59);
    assert!(
        run.ask(RUNNER, &Command::TimeOver { problem: None })
            .is_err()
    );
    run.wait_seconds(1);
    run.report(Command::TimeOver { problem: None });
    assert_eq!(run.state().status(), Status::Rejected);
}

#[test]
fn what_needs_no_approval_has_no_gate() {
    let auto = WorkflowSpec {
        auto_approve: true,
        ..spec(WorkflowKind::Optimization)
    };
    let run = Run::planned(auto.clone(), 1);
    assert_eq!(run.state().status(), Status::Approved);
    assert!(!run.state().requires_approval());
    assert_eq!(Run::planned(auto, 0).state().status(), Status::Completed);
    let analysis = Run::planned(spec(WorkflowKind::Analysis), 2);
    assert_eq!(analysis.state().status(), Status::Completed);
    assert!(!analysis.state().has_touched());
}
