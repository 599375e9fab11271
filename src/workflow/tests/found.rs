//! What was once wrong.

use super::example::{RUNNER, Run, SECOND_US, draft, drifted, effects, failure, spec, written};
use crate::workflow::{
    Command, Event, EventError, PauseReason, RefusalReason, Status, WorkflowKind, decode_event,
    encode_event,
};

fn pause() -> Command {
    Command::Pause {
        note: String::new(),
    }
}

#[test]
fn drift_of_a_target_that_there_is_not_is_refused() {
    let mut run = Run::writing(1);
    let refusal = run.ask(RUNNER, &drifted(Some(1))).unwrap_err();
    assert_eq!(refusal.reason, RefusalReason::Late);
    assert_eq!(run.report(drifted(Some(0))).kind(), "paused");
}

#[test]
fn drift_while_paused_takes_no_time_and_gives_none() {
    let mut run = Run::writing(1);
    let deadline = run.state().deadline_us.unwrap();
    run.wait_seconds(100);
    run.ask("bob", &pause()).unwrap();
    run.wait_seconds(50);
    run.report(drifted(None));
    let left = run.state().pause.as_ref().unwrap().left_us;
    assert_eq!(left, Some(deadline - run.now_us + 50 * SECOND_US));
}

#[test]
fn why_it_was_rolled_back_is_still_said_afterwards() {
    let mut run = Run::writing(1);
    run.report(Command::Fail(failure()));
    run.report(Command::Intend {
        epoch: 2,
        baseline: None,
    });
    run.report(written());
    run.report(Command::Ready);
    run.report(Command::AllRestored);
    assert_eq!(run.state().status(), Status::RolledBack);
    assert_eq!(run.state().failure, Some(failure()));
}

#[test]
fn what_could_not_be_read_again_is_not_written() {
    for number in [f64::NAN, f64::INFINITY] {
        let mut effects = effects();
        effects.quantities[0].ratio = number;
        let event = Event::Completed {
            effects: Some(Box::new(effects)),
        };
        assert!(matches!(
            encode_event(&event),
            Err(EventError::Unreadable(_))
        ));
    }
}

#[test]
fn the_same_plan_made_again_has_the_same_etag() {
    let etag = |snapshot: &str| {
        let mut run = Run::begin(spec(WorkflowKind::ConfigChange));
        let mut draft = draft(1);
        draft.snapshot_id = Some(snapshot.to_owned());
        run.report(Command::Analysed(Box::new(super::example::analysis())));
        run.report(Command::Planned(Box::new(draft)));
        run.state().plan.as_ref().unwrap().etag.clone()
    };
    assert_eq!(etag("one"), etag("two"));
}

#[test]
fn what_a_newer_version_wrote_says_so() {
    let error = decode_event(r#"{"v":1,"type":"promoted"}"#).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("promoted") && text.contains("newer"),
        "{text}"
    );
    let error = decode_event(r#"{"v":2,"type":"started"}"#).unwrap_err();
    assert_eq!(error, EventError::Newer { found: 2 });
    assert!(decode_event(r#"{"type":"rolled_back"}"#).is_err());
    assert!(decode_event("[]").is_err());
}

#[test]
fn what_was_being_written_is_brought_to_its_end_while_paused() {
    let mut run = Run::writing(2);
    run.wait_seconds(1);
    run.ask("bob", &pause()).unwrap();
    run.report(written());
    assert_eq!(run.state().status(), Status::Paused);
    assert!(run.ask(RUNNER, &Command::Ready).is_err());
    run.report(drifted(None));
    assert_eq!(
        run.state().pause.as_ref().unwrap().reason,
        PauseReason::Drift
    );
}
