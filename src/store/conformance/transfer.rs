//! A store that is moved is the same store.

use std::io::BufReader;

use super::postgres::{Postgres, open};
use super::support::{self, id};
use super::{at, conforms, once, spec};
use crate::store::{
    EventFilter, SqliteStore, Store, TransferError, WorkflowFilter, WorkflowStore, read_all,
};

async fn exported(store: &dyn Store) -> Vec<u8> {
    let mut text = Vec::new();
    store.export(&mut text).await.unwrap();
    text
}

async fn import(store: &dyn Store, text: &[u8]) -> Result<(), TransferError> {
    store.import(&mut BufReader::new(text)).await.map(|_| ())
}

/// All that can be asked of one is the same of the other.
async fn is_the_same(store: &dyn Store, other: &dyn Store) {
    assert_eq!(store.instances().await, other.instances().await);
    let all = WorkflowFilter::default();
    assert_eq!(
        store.workflows(&all, None, 10_000).await,
        other.workflows(&all, None, 10_000).await
    );
    let end = support::revision(store).await;
    assert_eq!(end, support::revision(other).await);
    let gone = store.compact_events(0).await.unwrap();
    let log = EventFilter::default();
    let whole = store.events(gone, &log, 100_000).await.unwrap();
    assert!(!whole.events.is_empty());
    assert_eq!(Ok(whole), other.events(gone, &log, 100_000).await);
    let list = store.snapshots(None, None, 1_000).await.unwrap();
    assert!(!list.is_empty());
    for one in &list {
        let id = &one.snapshot_id;
        assert_eq!(store.snapshot(id).await, other.snapshot(id).await);
    }
    assert_eq!(store.webhooks().await, other.webhooks().await);
    for webhook in store.webhooks().await.unwrap() {
        let of = webhook.id();
        assert_eq!(
            store.webhook_secrets(of, at(9)).await,
            other.webhook_secrets(of, at(9)).await
        );
    }
    let all = Default::default();
    let deliveries = store.deliveries(&all, None, 10_000).await.unwrap();
    for one in &deliveries {
        let id = &one.what.delivery_id;
        assert_eq!(store.delivery(id).await, other.delivery(id).await);
    }
    assert_eq!(
        store.webhook_counts().await.unwrap(),
        other.webhook_counts().await.unwrap()
    );
}

#[tokio::test]
async fn an_embedded_store_moves_to_postgres_and_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path()).await.unwrap();
    conforms(&store).await;
    let begun = support::start(&store, &id(900), "moved", Some(&once("moved", 1)), at(0)).await;
    let begun = begun.unwrap().workflow;
    store
        .put_snapshot(&support::snapshot("0190-moved", "moved"))
        .await
        .unwrap();
    let text = exported(&store).await;

    let postgres = open(&Postgres::shared().database().await).await;
    import(&postgres, &text).await.unwrap();
    is_the_same(&store, &postgres).await;
    assert_eq!(exported(&postgres).await, text, "and byte for byte");
    // a repeat is known, and what is new comes after what came
    let again = support::start(&postgres, &id(900), "moved", Some(&once("moved", 1)), at(1)).await;
    assert_eq!(again.unwrap().event, None);
    let next = support::advance(&postgres, &begun, &support::failed())
        .await
        .unwrap();
    assert_eq!(next.workflow.revision, support::revision(&store).await + 1);
    assert_eq!(read_all(&postgres).await, [""; 0]);

    // twice, or into one that is used, is refused
    let refused = import(&postgres, &text).await.unwrap_err();
    assert!(matches!(refused, TransferError::NotEmpty(_)), "{refused}");

    let home = tempfile::tempdir().unwrap();
    let back = SqliteStore::open(home.path()).await.unwrap();
    import(&back, &exported(&postgres).await).await.unwrap();
    is_the_same(&postgres, &back).await;
    // deliveries and secrets go on in both
    for store in [&back as &dyn Store, &postgres] {
        let first = store.instances().await.unwrap().len();
        store
            .create_instance(&spec("new"), None, at(9))
            .await
            .unwrap();
        assert_eq!(store.instances().await.unwrap().len(), first + 1);
    }
}

/// Cut off anywhere, changed anywhere, of another version: nothing of it is taken.
#[tokio::test]
async fn what_is_not_whole_is_refused_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path()).await.unwrap();
    store
        .create_instance(&spec("a"), None, at(0))
        .await
        .unwrap();
    support::start(&store, &id(1), "a", None, at(0))
        .await
        .unwrap();
    let text = String::from_utf8(exported(&store).await).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let target = open(&Postgres::shared().database().await).await;
    let joined = |lines: &[&str]| lines.join("\n") + "\n";
    let mut bad: Vec<String> = (0..lines.len()).map(|n| joined(&lines[..n])).collect();
    bad.extend((1..lines.len() - 1).map(|without| {
        let mut rest = lines.clone();
        rest.remove(without);
        joined(&rest)
    }));
    bad.push(text.replace("\"team\\\":\\\"a\\\"", "\"team\\\":\\\"b\\\""));
    bad.push(text.replace("\"values\"", "\"valves\""));
    bad.push(format!("{text}{text}"));
    bad.push("{\"no\": \"export\"}\n".to_owned());
    bad.push("\u{0}".to_owned());
    for bad in bad {
        assert_ne!(bad, text);
        let refused = import(&target, bad.as_bytes()).await.unwrap_err();
        assert!(
            matches!(refused, TransferError::Malformed { .. }),
            "{refused}"
        );
        assert_eq!(target.instances().await, Ok(Vec::new()));
    }
    for (from, to, hint) in [("6", "7", "a newer one"), ("6", "5", "export it again")] {
        let other = text.replacen(
            &format!("\"schema\":{from}"),
            &format!("\"schema\":{to}"),
            1,
        );
        let refused = import(&target, other.as_bytes())
            .await
            .unwrap_err()
            .to_string();
        assert!(refused.contains(hint), "{refused}");
    }
    import(&target, text.as_bytes()).await.unwrap();
    assert_eq!(target.instances().await, store.instances().await);
}
