//! Transitions: all of one or nothing, in order, one workflow an instance, and none twice for one request.

use super::support::{
    With, advance, advance_with, delivery, end, evolved, failed, id, paused, resumed, revision,
    rollback_failed, snapshot, start, started, whole_log,
};
use super::{at, once, spec};
use crate::store::{Committed, NewWorkflow, Once, Store, StoreError, WorkflowFilter};
use crate::workflow::{RecordedEvent, Status, Workflow, WorkflowKind};

pub(super) async fn conform(store: &dyn Store) {
    a_transition_is_event_and_state(store).await;
    a_transition_that_fails_leaves_nothing(store).await;
    what_cannot_be_read_again_is_not_written(store).await;
    one_workflow_holds_an_instance(store).await;
    an_instance_is_registered_with_its_workflow(store).await;
    requests_are_carried_out_once(store).await;
    workflows_are_listed(store).await;
}

async fn a_transition_is_event_and_state(store: &dyn Store) {
    let before = revision(store).await;
    assert_eq!(store.workflow(&id(1)).await, Ok(None));
    let begun = start(store, &id(1), "t", None, at(4)).await.unwrap();
    let first = begun.event.clone().unwrap();
    assert_eq!(begun.registered, None);
    assert_eq!(
        first,
        RecordedEvent {
            workflow_id: id(1),
            instance_id: "t".to_owned(),
            revision: before + 1,
            sequence: 1,
            at_us: 1_700_000_004_000_000,
            actor: "alice".to_owned(),
            event: started("t", WorkflowKind::Optimization),
        }
    );
    let place = |workflow: &Workflow| (workflow.sequence, workflow.revision);
    assert_eq!(place(&begun.workflow), (1, before + 1));
    assert_eq!(
        store.workflow(&id(1)).await,
        Ok(Some(begun.workflow.clone()))
    );

    let held = advance(store, &begun.workflow, &paused()).await.unwrap();
    assert_eq!(place(&held.workflow), (2, before + 2));
    assert_eq!(held.workflow.status(), Status::Paused);
    assert_eq!(
        store.workflow(&id(1)).await,
        Ok(Some(held.workflow.clone()))
    );
    let second = held.event.clone().unwrap();
    assert_eq!((second.actor.as_str(), second.sequence), ("bob", 2));
    assert_eq!(
        whole_log(store, before).await,
        [first.clone(), second.clone()]
    );
    // the state is what the log leads to
    let replayed = evolved(None, &first).and_then(|state| evolved(Some(&state), &second));
    assert_eq!(replayed, Ok(held.workflow.clone()));

    // who has not read the last event decides on what is not so
    let late = advance(store, &begun.workflow, &failed()).await;
    assert_eq!(late, Err(StoreError::Moved(id(1))));
    let ahead = Workflow {
        sequence: 3,
        ..held.workflow.clone()
    };
    let early = advance(store, &ahead, &failed()).await;
    assert_eq!(early, Err(StoreError::Moved(id(1))));
    let nobody = Workflow {
        workflow_id: id(0),
        ..begun.workflow.clone()
    };
    let none = advance(store, &nobody, &failed()).await;
    assert_eq!(none, Err(StoreError::NoWorkflow(id(0))));
    let again = start(store, &id(1), "t", None, at(9)).await;
    assert_eq!(again, Err(StoreError::Moved(id(1))));
    assert_eq!(revision(store).await, before + 2);
    assert!(store.unfinished_workflows().await.unwrap().contains(&id(1)));
    end(store, &id(1)).await;
    assert!(!store.unfinished_workflows().await.unwrap().contains(&id(1)));
}

async fn a_transition_that_fails_leaves_nothing(store: &dyn Store) {
    super::webhooks::create(store, "pager").await;
    let begun = start(store, &id(2), "t", None, at(0))
        .await
        .unwrap()
        .workflow;
    let before = revision(store).await;
    let why = StoreError::Unreadable("no state comes of it".to_owned());
    let refused = advance_with(
        store,
        &begun,
        &paused(),
        With {
            fails: Some(why.clone()),
            snapshots: &[snapshot("0190-lost", "t")],
            deliveries: &[delivery("lost")],
            once: Some(&once("lost", 1)),
            ..With::default()
        },
    )
    .await;
    assert_eq!(refused, Err(why.clone()));
    // a snapshot that is another is found last of all
    store
        .put_snapshot(&snapshot("0190-there", "t"))
        .await
        .unwrap();
    let refused = advance_with(
        store,
        &begun,
        &paused(),
        With {
            snapshots: &[snapshot("0190-lost", "t"), snapshot("0190-there", "u")],
            deliveries: &[delivery("lost")],
            once: Some(&once("lost", 1)),
            ..With::default()
        },
    )
    .await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
    let event = started("new", WorkflowKind::Optimization);
    let begins = NewWorkflow {
        workflow_id: &id(3),
        instance_id: "new",
        register: Some(&spec("new")),
        actor: "alice",
        event: &event,
        begin: &|_| Err(why.clone()),
        deliver: &|_, _, _| vec![delivery("lost")],
    };
    let lost = once("lost", 1);
    let refused = store.start_workflow(&begins, Some(&lost), at(0)).await;
    assert_eq!(refused, Err(why.clone()));

    assert_eq!(store.workflow(&id(2)).await, Ok(Some(begun.clone())));
    assert_eq!(store.workflow(&id(3)).await, Ok(None));
    assert_eq!(whole_log(store, before).await, []);
    assert_eq!(store.snapshot("0190-lost").await, Ok(None));
    let none = Err(StoreError::NoDelivery("lost".to_owned()));
    assert_eq!(store.delivery("lost").await, none);
    assert_eq!(
        store.answered_workflow(&once("lost", 1), at(0)).await,
        Ok(None)
    );
    let instances = store.instances().await.unwrap();
    assert!(!instances.iter().any(|instance| instance.id() == "new"));
    // and no gap
    let next = advance(store, &begun, &paused()).await.unwrap();
    assert_eq!(next.event.unwrap().revision, before + 1);
    end(store, &id(2)).await;
}

async fn what_cannot_be_read_again_is_not_written(store: &dyn Store) {
    let begun = start(store, &id(4), "t", None, at(0))
        .await
        .unwrap()
        .workflow;
    let before = revision(store).await;
    let mut event = started("t2", WorkflowKind::Optimization);
    if let crate::workflow::Event::Started { spec } = &mut event {
        // JSON has no form for it
        spec.timeouts.plan_seconds = f64::NAN;
    }
    let begins = NewWorkflow {
        workflow_id: &id(5),
        instance_id: "t2",
        register: None,
        actor: "alice",
        event: &event,
        begin: &|recorded| evolved(None, recorded),
        deliver: &|_, _, _| Vec::new(),
    };
    let refused = store.start_workflow(&begins, None, at(0)).await;
    assert!(
        matches!(&refused, Err(StoreError::Unreadable(why)) if why.contains(&id(5))),
        "{refused:?}"
    );
    // a state that is not the one after this event
    let stale = NewWorkflow {
        begin: &|_| Ok(begun.clone()),
        event: &started("t2", WorkflowKind::Optimization),
        ..begins
    };
    let refused = store.start_workflow(&stale, None, at(0)).await;
    assert!(
        matches!(refused, Err(StoreError::Unreadable(_))),
        "{refused:?}"
    );
    assert_eq!(revision(store).await, before);
    end(store, &id(4)).await;
}

async fn one_workflow_holds_an_instance(store: &dyn Store) {
    let locked = |instance_id: &str, by: u32| {
        Err(StoreError::Locked {
            instance_id: instance_id.to_owned(),
            workflow_id: id(by),
        })
    };
    store
        .create_instance(&spec("l"), None, at(0))
        .await
        .unwrap();
    let first = start(store, &id(10), "l", None, at(0)).await.unwrap();
    let before = revision(store).await;
    let refused = start(store, &id(11), "l", None, at(0)).await;
    assert_eq!(refused.map(|_| ()), locked("l", 10));
    assert_eq!(
        store
            .delete_instance("l", None, None, at(0))
            .await
            .map(|_| ()),
        locked("l", 10)
    );
    assert_eq!(revision(store).await, before);
    // another instance is another's
    start(store, &id(12), "l2", None, at(0)).await.unwrap();
    end(store, &id(12)).await;
    // held while paused, and where the way back failed
    let first = advance(store, &first.workflow, &paused()).await.unwrap();
    assert_eq!(
        start(store, &id(11), "l", None, at(0)).await.map(|_| ()),
        locked("l", 10)
    );
    let first = advance(store, &first.workflow, &resumed()).await.unwrap();
    let first = advance(store, &first.workflow, &rollback_failed())
        .await
        .unwrap();
    assert_eq!(
        start(store, &id(11), "l", None, at(0)).await.map(|_| ()),
        locked("l", 10)
    );
    assert!(
        !store
            .unfinished_workflows()
            .await
            .unwrap()
            .contains(&id(10))
    );
    let taken_over = crate::workflow::Event::Cancelled {
        abandons: true,
        note: String::new(),
    };
    let first = advance(store, &first.workflow, &taken_over).await.unwrap();
    // free
    let second = start(store, &id(11), "l", None, at(0)).await.unwrap();
    // and one that wants it again has to wait for it
    let before = revision(store).await;
    let refused = advance(store, &first.workflow, &rollback_failed()).await;
    assert_eq!(refused.map(|_| ()), locked("l", 11));
    assert_eq!(revision(store).await, before);
    assert_eq!(
        store.workflow(&id(10)).await,
        Ok(Some(first.workflow.clone()))
    );
    advance(store, &second.workflow, &failed()).await.unwrap();
    advance(store, &first.workflow, &rollback_failed())
        .await
        .unwrap();
    let taken = store.workflow(&id(10)).await.unwrap().unwrap();
    advance(store, &taken, &taken_over).await.unwrap();
    // an instance that is gone leaves what was done to it
    store.delete_instance("l", None, None, at(0)).await.unwrap();
    assert!(store.workflow(&id(10)).await.unwrap().is_some());
    let of_l = |event: &RecordedEvent| event.instance_id == "l";
    assert!(
        whole_log(store, 0)
            .await
            .iter()
            .filter(|event| of_l(event))
            .count()
            > 5
    );
}

async fn an_instance_is_registered_with_its_workflow(store: &dyn Store) {
    let begin = async |number: u32, with: &crate::instance::InstanceSpec| {
        let event = started("i", WorkflowKind::Analysis);
        let begins = NewWorkflow {
            workflow_id: &id(number),
            instance_id: "i",
            register: Some(with),
            actor: "alice",
            event: &event,
            begin: &|recorded| evolved(None, recorded),
            deliver: &|_, _, _| Vec::new(),
        };
        store.start_workflow(&begins, None, at(7)).await
    };
    let there = async || {
        let all = store.instances().await.unwrap();
        all.into_iter().find(|instance| instance.id() == "i")
    };
    let marker = store
        .create_instance(&spec("i-1"), None, at(0))
        .await
        .unwrap();
    let committed = begin(20, &spec("i")).await.unwrap();
    let registered = committed.registered.unwrap();
    // it has its turn among the changes of instances
    assert_eq!(
        registered.revision.map(|revision| revision - 1),
        marker.instance.revision
    );
    assert_eq!(
        (registered.created_at, &registered.spec),
        (Some(at(7)), &spec("i"))
    );
    assert_eq!(there().await, Some(registered.clone()));
    end(store, &id(20)).await;
    // the same is left as it is
    assert_eq!(begin(21, &spec("i")).await.unwrap().registered, None);
    assert_eq!(there().await, Some(registered.clone()));
    end(store, &id(21)).await;
    let mut other = spec("i");
    other.actuator = None;
    let before = revision(store).await;
    let refused = begin(22, &other).await;
    assert_eq!(refused, Err(StoreError::Exists("i".to_owned())));
    assert_eq!(there().await, Some(registered));
    assert_eq!(store.workflow(&id(22)).await, Ok(None));
    assert_eq!(revision(store).await, before);
}

async fn requests_are_carried_out_once(store: &dyn Store) {
    let of = |request_id: &str, digest: u8, method: &'static str| Once {
        method,
        ..once(request_id, digest)
    };
    let begins = of("w", 1, "StartWorkflow");
    let begun = start(store, &id(30), "r", Some(&begins), at(0))
        .await
        .unwrap();
    let pauses = of("w", 2, "PauseWorkflow");
    let with = || With {
        once: Some(&pauses),
        ..With::default()
    };
    let held = advance_with(store, &begun.workflow, &paused(), with())
        .await
        .unwrap();
    let now = advance(store, &held.workflow, &resumed()).await.unwrap();
    let before = revision(store).await;
    // the answer of then, whatever else there has been, and whatever is locked or moved by now
    let then = |workflow: &Workflow| {
        Ok(Committed {
            deliveries: 0,
            workflow: workflow.clone(),
            event: None,
            registered: None,
        })
    };
    let again = start(store, &id(31), "r", Some(&begins), at(1)).await;
    assert_eq!(again, then(&begun.workflow));
    let again = advance_with(store, &begun.workflow, &paused(), with()).await;
    assert_eq!(again, then(&held.workflow));
    let again = store.answered_workflow(&pauses, at(5)).await;
    assert_eq!(again, Ok(Some(held.workflow.clone())));
    // another content, another method, another caller
    let other = of("w", 3, "StartWorkflow");
    let reused = Err(StoreError::RequestIdReused("w".to_owned()));
    assert_eq!(
        start(store, &id(31), "r", Some(&other), at(1)).await,
        reused
    );
    let reused = Err(StoreError::RequestIdReused("w".to_owned()));
    assert_eq!(store.answered_workflow(&other, at(1)).await, reused);
    let verb = of("w", 2, "ResumeWorkflow");
    assert_eq!(store.answered_workflow(&verb, at(1)).await, Ok(None));
    let of_bob = Once {
        principal: "bob".to_owned(),
        ..begins.clone()
    };
    assert_eq!(store.answered_workflow(&of_bob, at(1)).await, Ok(None));
    assert_eq!(revision(store).await, before);
    assert_eq!(store.workflow(&id(30)).await, Ok(Some(now.workflow)));
    // what was refused is not remembered
    let fresh = of("x", 1, "StartWorkflow");
    let refused = start(store, &id(31), "r", Some(&fresh), at(1)).await;
    assert!(
        matches!(refused, Err(StoreError::Locked { .. })),
        "{refused:?}"
    );
    assert_eq!(store.answered_workflow(&fresh, at(1)).await, Ok(None));
    end(store, &id(30)).await;
    // a day later the id is another request's
    let day = at(24 * 3_600 + 1);
    assert_eq!(store.answered_workflow(&begins, day).await, Ok(None));
    let new = start(store, &id(31), "r", Some(&begins), day)
        .await
        .unwrap();
    assert!(new.event.is_some());
    end(store, &id(31)).await;
}

async fn workflows_are_listed(store: &dyn Store) {
    let ids = async |filter: &WorkflowFilter, before: Option<&str>, size| {
        let found = store.workflows(filter, before, size).await.unwrap();
        let ids = found.into_iter().map(|workflow| workflow.workflow_id);
        ids.collect::<Vec<String>>()
    };
    // ids say which is newer, not the order in which they came
    for number in [42, 40, 41] {
        start(store, &id(number), "s", None, at(0)).await.unwrap();
        end(store, &id(number)).await;
    }
    let last = start(store, &id(43), "s", None, at(0)).await.unwrap();
    let of_s = WorkflowFilter {
        instance_id: Some("s".to_owned()),
        ..WorkflowFilter::default()
    };
    assert_eq!(ids(&of_s, None, 10).await, [id(43), id(42), id(41), id(40)]);
    assert_eq!(ids(&of_s, None, 2).await, [id(43), id(42)]);
    // a page goes on where the one before ended, whatever comes in between
    advance(store, &last.workflow, &failed()).await.unwrap();
    start(store, &id(44), "s", None, at(0)).await.unwrap();
    assert_eq!(ids(&of_s, Some(&id(42)), 10).await, [id(41), id(40)]);
    assert_eq!(ids(&of_s, None, 0).await, Vec::<String>::new());
    let in_work = WorkflowFilter {
        statuses: vec![Status::Paused, Status::InProgress],
        ..of_s.clone()
    };
    assert_eq!(ids(&in_work, None, 10).await, [id(44)]);
    let state = store.workflow(&id(44)).await.unwrap().unwrap();
    advance(store, &state, &paused()).await.unwrap();
    assert_eq!(ids(&in_work, None, 10).await, [id(44)]);
    let analyses = WorkflowFilter {
        kind: Some(WorkflowKind::Analysis),
        ..of_s.clone()
    };
    assert_eq!(ids(&analyses, None, 10).await, Vec::<String>::new());
    let optimizations = WorkflowFilter {
        kind: Some(WorkflowKind::Optimization),
        statuses: vec![Status::Failed],
        ..of_s
    };
    assert_eq!(ids(&optimizations, Some(&id(43)), 1).await, [id(42)]);
    let all = ids(&WorkflowFilter::default(), None, 1_000).await;
    assert!(all.contains(&id(44)) && all.contains(&id(1)), "{all:?}");
    let unfinished = store.unfinished_workflows().await.unwrap();
    assert!(
        unfinished.contains(&id(44)) && !unfinished.contains(&id(43)),
        "{unfinished:?}"
    );
    assert!(unfinished.is_sorted(), "{unfinished:?}");
    end(store, &id(44)).await;
}
