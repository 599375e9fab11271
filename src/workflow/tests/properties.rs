//! Whatever is asked, in whatever order.

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::example::{Run, draft, spec};
use super::invariants::{Witness, asked, check, is_its_log};
use super::random::{CALLERS, Luck, act, acts, report, specs};
use crate::optimization::KnobChange;
use crate::workflow::{
    Command, Phase, PlanDraft, Status, Step, Verb, WorkflowKind, next_step, waiting_for,
};

/// A runner that always succeeds brings it to an end, or to where it waits for a caller.
fn runs_on(run: &mut Run, targets: usize) {
    for _ in 0..200 {
        if run.state().phase == Phase::Observing {
            // what does not tell ends with its time
            run.wait_seconds(60);
        }
        match report(run, Luck::Well, targets) {
            Some(command) => {
                let at = run.state().phase;
                let asked = run.ask("perfagent", &command);
                assert!(asked.is_ok(), "{command:?} in {at:?}: {asked:?}");
                check(run);
            }
            None => return,
        }
    }
    panic!("it goes round in circles: {:?}", run.state());
}

/// And with callers who do what they are told it comes to an end.
fn comes_to_an_end(run: &mut Run, targets: usize) {
    for _ in 0..16 {
        runs_on(run, targets);
        let state = run.state();
        if next_step(state) == Step::Nothing {
            return;
        }
        let waits = waiting_for(state).unwrap();
        let verb = *waits.verbs.first().unwrap();
        let command = asked(state, verb);
        let taken = CALLERS.iter().any(|who| run.ask(who, &command).is_ok());
        if !taken {
            assert_eq!(verb, Verb::Approve, "{:?}", run.state());
            // nobody may: it ends in time, or waits for ever and can be cancelled
            let cancel = asked(run.state(), Verb::Cancel);
            run.ask("ada", &cancel).unwrap();
        }
        check(run);
    }
    panic!("it comes to no end: {:?}", run.state());
}

#[test]
fn what_holds_always_holds() {
    let ends: RefCell<BTreeMap<Status, u32>> = RefCell::default();
    let config = ProptestConfig {
        cases: 1_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |((spec, targets) in specs(), acts in acts())| {
        let mut run = Run::begin(spec);
        let mut witness = Witness::default();
        witness.saw(None, &run);
        check(&run);
        for one in &acts {
            let before = run.state.clone();
            match act(&mut run, one, targets) {
                Some(Ok(_)) => witness.saw(before.as_ref(), &run),
                // what is refused or only waits changes nothing
                _ => prop_assert_eq!(&before, &run.state),
            }
            check(&run);
        }
        is_its_log(&run);
        comes_to_an_end(&mut run, targets);
        is_its_log(&run);
        *ends.borrow_mut().entry(run.state().status()).or_default() += 1;
    });
    // the acts must be able to lead everywhere, or nothing is proven
    let ends = ends.into_inner();
    for status in Status::ALL.iter().filter(|status| status.has_ended()) {
        assert!(
            ends.contains_key(status),
            "{status:?} never reached: {ends:?}"
        );
    }
}

fn etag_of(draft: PlanDraft) -> String {
    let mut run = Run::begin(spec(WorkflowKind::Optimization));
    run.report(Command::Analysed(Box::new(super::example::analysis())));
    run.report(Command::Planned(Box::new(draft)));
    assert_eq!(run.state().phase, Phase::AwaitingApproval);
    run.state().plan.as_ref().unwrap().etag.clone()
}

/// What an approval is bound to.
fn bound(draft: &PlanDraft) -> impl PartialEq + std::fmt::Debug {
    (
        draft.changes.clone(),
        draft.targets.clone(),
        draft.strategy.clone(),
    )
}

fn drafts() -> impl Strategy<Value = PlanDraft> {
    let word = prop::sample::select(vec!["", "a", "b", "a\"", "a,b"]);
    let to = prop::option::of(word.clone());
    (
        1_usize..3,
        0_usize..3,
        prop::collection::vec(word, 5),
        to,
        any::<[bool; 2]>(),
    )
        .prop_map(|(targets, at, words, to, [restart, other])| {
            let mut draft = draft(targets);
            draft.changes.push(KnobChange {
                name: words[0].to_owned(),
                flag: words[1].to_owned(),
                from: None,
                to: to.map(str::to_owned),
            });
            if let Some(target) = draft.targets.get_mut(at) {
                target.revision = words[2].to_owned();
                target.digest_before = words[3].to_owned();
                target.launch_args = vec![words[4].to_owned()];
                target.needs_restart = restart;
            }
            if other {
                // what is said of a plan, and where it is kept, is not what is approved
                draft.headline = "The same in other words".to_owned();
                draft.snapshot_id = Some("kept elsewhere".to_owned());
                draft.planned_snapshot_id = Some("here too".to_owned());
                draft.notes = vec!["Mind the gap.".to_owned()];
            }
            draft
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_etag_is_of_one_plan_only(one in drafts(), other in drafts()) {
        let same = bound(&one) == bound(&other);
        prop_assert_eq!(etag_of(one.clone()) == etag_of(other), same);
        let mut again = one.clone();
        again.headline.push('!');
        again.snapshot_id = Some("again".to_owned());
        prop_assert_eq!(etag_of(one), etag_of(again));
    }
}
