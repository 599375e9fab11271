//! PostgreSQL: what every store must do, with more than one agent at it, and what only one that is shared has to do.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::support::{self, id};
use super::unreadable::{self, Tamper};
use super::{at, concurrent, conforms, once, spec};
use crate::config::PostgresOptions;
use crate::store::{OpenError, PostgresStore, Store, StoreError, WebhookStore, WorkflowStore};

#[path = "../../../tests/support/postgres.rs"]
mod server;

pub(super) use server::Postgres;

pub(super) fn options(url: &str) -> PostgresOptions {
    PostgresOptions {
        url: url.to_owned(),
        password_file: None,
        listen_url: None,
    }
}

pub(super) async fn open(url: &str) -> PostgresStore {
    PostgresStore::open(&options(url)).await.unwrap()
}

/// Runs SQL that no store would.
async fn run(url: &str, sql: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let sql = AssertSqlSafe(sql.to_owned());
    sqlx::query(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

impl Tamper for PostgresStore {
    async fn tamper(&self, sql: &str) {
        self.run(sql).await;
    }
}

#[tokio::test]
async fn postgres_conforms() {
    let url = Postgres::shared().database().await;
    let store = open(&url).await;
    conforms(&store).await;
    let before = store.instances().await.unwrap();
    // another agent sees the same
    let other = open(&url).await;
    assert_eq!(other.instances().await.unwrap(), before);
    drop(store);
    unreadable::a_state_stops_its_own_workflow(&other).await;
    unreadable::an_event_stops_who_would_miss_it(&other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_conforms_under_many_at_once() {
    let url = Postgres::shared().database().await;
    let mut stores: Vec<Arc<dyn Store>> = Vec::new();
    for _ in 0..3 {
        stores.push(Arc::new(open(&url).await));
    }
    concurrent::the_log_is_followed_without_a_gap(&stores).await;
}

#[tokio::test]
async fn reads_wait_for_no_write_and_leases_outlast_who_opens() {
    let url = Postgres::shared().database().await;
    let store = open(&url).await;
    let begun = support::start(&store, &id(1), "a", None, at(0)).await;
    let begun = begun.unwrap().workflow;
    let long = Duration::from_secs(3_600);
    let held = store.acquire_lease(&id(1), "one", long).await.unwrap();
    let writing = store.keep_writing().await;
    // who is renewed acts on, whoever writes
    support::renew(&store, &held, long).await.unwrap();
    assert_eq!(store.workflow(&id(1)).await, Ok(Some(begun)));
    assert_eq!(support::whole_log(&store, 0).await.len(), 1);
    assert_eq!(store.answered(&once("1", 1), at(0)).await, Ok(None));
    drop(writing);
    let other = open(&url).await;
    let refused = other.acquire_lease(&id(1), "two", long).await.unwrap_err();
    assert!(matches!(refused, StoreError::Leased { .. }), "{refused}");
    support::end(&other, &id(1)).await;
}

/// All of them open an empty database at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_makes_the_schema_while_the_others_wait() {
    let url = Postgres::shared().database().await;
    let opening: Vec<_> = (0..8)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move { PostgresStore::open(&options(&url)).await })
        })
        .collect();
    for (number, opened) in opening.into_iter().enumerate() {
        let store = opened.await.unwrap().unwrap();
        let spec = spec(&format!("i{number}"));
        store.create_instance(&spec, None, at(0)).await.unwrap();
    }
    assert_eq!(open(&url).await.instances().await.unwrap().len(), 8);
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_does_not_stop_who_is_there() {
    let url = Postgres::shared().database().await;
    let there = open(&url).await;
    run(
        &url,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (7, 'later', TRUE, '', 0)",
    )
    .await;
    // as a later version would, which goes forwards only
    run(&url, "ALTER TABLE instances ADD COLUMN later TEXT").await;
    run(&url, "ALTER TABLE workflows ADD COLUMN later TEXT").await;
    let refused = PostgresStore::open(&options(&url)).await.unwrap_err();
    let is_newer = matches!(refused, OpenError::Newer { found: 7, .. });
    assert!(is_newer, "{refused}");
    assert!(refused.to_string().contains("newer perfagent"), "{refused}");
    there
        .create_instance(&spec("a"), None, at(0))
        .await
        .unwrap();
    support::start(&there, &id(1), "a", None, at(0))
        .await
        .unwrap();
    support::end(&there, &id(1)).await;
}

#[tokio::test]
async fn two_installations_live_in_one_database() {
    let url = Postgres::shared().database().await;
    run(&url, "CREATE SCHEMA other").await;
    let one = open(&url).await;
    let two = open(&format!("{url}?options=-c%20search_path%3Dother")).await;
    one.create_instance(&spec("a"), None, at(0)).await.unwrap();
    assert_eq!(two.instances().await.unwrap(), []);
    let writing = one.keep_writing().await;
    two.create_instance(&spec("b"), None, at(0)).await.unwrap();
    drop(writing);
}

/// What was acknowledged is there afterwards, and what was refused is told as such.
#[tokio::test]
async fn a_server_that_stops_is_unavailable_until_it_is_back() {
    let server = Postgres::start();
    let url = server.database().await;
    let store = open(&url).await;
    let state = support::start(&store, &id(1), "a", None, at(0)).await;
    let state = state.unwrap().workflow;
    server.stop();
    for failed in [
        store.instances().await.map(|_| ()),
        store.workflow(&id(1)).await.map(|_| ()),
        store
            .create_instance(&spec("a"), None, at(0))
            .await
            .map(|_| ()),
    ] {
        assert!(
            matches!(failed, Err(StoreError::Unavailable(_))),
            "{failed:?}"
        );
    }
    server.start_again();
    assert_eq!(store.workflow(&id(1)).await, Ok(Some(state)));
    store
        .create_instance(&spec("a"), None, at(0))
        .await
        .unwrap();
}

/// Who waits for its turn in vain, or hangs up while it waits, leaves nothing behind that is in the way of the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_in_vain_can_write_afterwards() {
    let url = Postgres::shared().database().await;
    let store = open(&url).await;
    // by somebody whom nothing ends
    let mut other = PgConnection::connect(&url).await.unwrap();
    let hold = "BEGIN; SELECT pg_advisory_xact_lock(1885696614, hashtext(current_schema()))";
    sqlx::raw_sql(hold).execute(&mut other).await.unwrap();
    for _ in 0..4 {
        let short = Duration::from_millis(50);
        let waits = store.delete_webhook("none");
        assert!(tokio::time::timeout(short, waits).await.is_err());
    }
    // as many as there are connections, and longer than it is waited for
    let spec = spec("a");
    let (one, two) = tokio::join!(
        store.create_instance(&spec, None, at(0)),
        store.create_instance(&spec, None, at(0))
    );
    for refused in [one, two] {
        let is_told = matches!(refused, Err(StoreError::Unavailable(_)));
        assert!(is_told, "{refused:?}");
    }
    other.close().await.unwrap();
    store.create_instance(&spec, None, at(0)).await.unwrap();
    for _ in 0..4 {
        assert_eq!(store.instances().await.unwrap().len(), 1);
        support::start(&store, &id(1), "a", None, at(0)).await.ok();
    }
    support::end(&store, &id(1)).await;
}

/// Without waiting until it is looked anyway: nobody looks here.
#[tokio::test]
async fn agents_hear_of_what_others_write() {
    let url = Postgres::shared().database().await;
    let (one, other) = (open(&url).await, open(&url).await);
    let mut heard = WorkflowStore::hints(&other).unwrap();
    let soon = Duration::from_secs(30);
    // it listens
    let listens = heard.wait_for(|count| *count > 0);
    let before = *tokio::time::timeout(soon, listens).await.unwrap().unwrap();
    support::start(&one, &id(1), "a", None, at(0))
        .await
        .unwrap();
    let more = heard.wait_for(|count| *count > before);
    tokio::time::timeout(soon, more).await.unwrap().unwrap();
}

#[tokio::test]
async fn text_that_is_none_is_the_callers_fault() {
    let url = Postgres::shared().database().await;
    let store = open(&url).await;
    let refused = store.workflow("a\0b").await.unwrap_err();
    assert!(matches!(refused, StoreError::Invalid(_)), "{refused}");
}

/// A writer that stands still in the middle of a write loses its turn and what it wrote.
#[tokio::test]
async fn who_stands_still_in_a_write_holds_up_nobody_for_long() {
    let url = Postgres::shared().database().await;
    let (still, other) = (open(&url).await, open(&url).await);
    let writing = still.keep_writing().await;
    // longer than it is waited for in one call
    let written = loop {
        match other.create_instance(&spec("a"), None, at(0)).await {
            Err(StoreError::Unavailable(_)) => {}
            written => break written,
        }
    };
    written.unwrap();
    drop(writing);
    still
        .create_instance(&spec("b"), None, at(0))
        .await
        .unwrap();
    assert_eq!(other.instances().await.unwrap().len(), 2);
}
