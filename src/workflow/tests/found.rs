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
