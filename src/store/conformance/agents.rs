//! Who is there, and what each found.

use std::time::Duration;

use super::{at, spec};
use crate::store::{Beat, Found, Says, Store};

const MINUTE: Duration = Duration::from_secs(60);

pub(super) async fn conform(store: &dyn Store) {
    agents_come_and_go(store).await;
    what_one_found_the_others_know(store).await;
}

async fn says(store: &dyn Store, agent_id: &str, time: Duration, found: &[(&str, &str)]) -> Beat {
    let found: Vec<(String, String)> = found
        .iter()
        .map(|(instance_id, found)| ((*instance_id).to_owned(), (*found).to_owned()))
        .collect();
    let says = Says {
        agent_id,
        time,
        patience: MINUTE,
        found: &found,
        since_us: 0,
    };
    store.beat(&says).await.unwrap()
}

async fn agents_come_and_go(store: &dyn Store) {
    assert_eq!(says(store, "b", MINUTE, &[]).await.agents, ["b"]);
    let first = says(store, "a", MINUTE, &[]).await;
    assert_eq!(first.agents, ["a", "b"]);
    let second = says(store, "a", MINUTE, &[]).await;
    assert!(second.now_us >= first.now_us);
    // it may be waited for one whose time is over
    says(store, "c", Duration::ZERO, &[]).await;
    let third = says(store, "a", MINUTE, &[]).await;
    assert_eq!(third.agents, ["a", "b", "c"]);
    let impatient = Says {
        agent_id: "a",
        time: MINUTE,
        patience: Duration::ZERO,
        found: &[],
        since_us: 0,
    };
    while store.beat(&impatient).await.unwrap().agents != ["a", "b"] {
        tokio::task::yield_now().await;
    }
    store.leave("b").await.unwrap();
    assert_eq!(says(store, "a", MINUTE, &[]).await.agents, ["a"]);
    store.leave("a").await.unwrap();
}

async fn what_one_found_the_others_know(store: &dyn Store) {
    let is = |instance_id: &str, agent_id: &str, found: &str| Found {
        instance_id: instance_id.to_owned(),
        agent_id: agent_id.to_owned(),
        found: found.to_owned(),
    };
    let sorted = |beat: Beat| {
        let mut found = beat.found;
        found.sort_by(|one, other| one.instance_id.cmp(&other.instance_id));
        found
    };
    let mut many: Vec<(String, String)> = (0..1_200)
        .map(|number| (format!("many-{number:04}"), "{}".to_owned()))
        .collect();
    many.sort();
    let all = Says {
        agent_id: "a",
        time: MINUTE,
        patience: MINUTE,
        found: &many,
        since_us: 0,
    };
    // nothing is news to who found it
    let before = store.beat(&all).await.unwrap();
    assert_eq!(before.found, []);
    assert_eq!(says(store, "b", MINUTE, &[]).await.found.len(), many.len());
    // who found it last is who found it
    says(store, "a", MINUTE, &[("x", "1"), ("y", "1")]).await;
    let found = says(store, "b", MINUTE, &[("x", "2")]).await.found;
    assert!(found.contains(&is("y", "a", "1")));
    assert_eq!(
        sorted(says(store, "a", MINUTE, &[]).await),
        [is("x", "b", "2")]
    );
    // what is known may be told again, what is long known is not
    let late = Says {
        agent_id: "b",
        time: MINUTE,
        patience: MINUTE,
        found: &[],
        since_us: before.now_us + 3_600_000_000,
    };
    assert_eq!(store.beat(&late).await.unwrap().found, []);
    // an instance that is gone was never found
    store
        .create_instance(&spec("y"), None, at(0))
        .await
        .unwrap();
    store.delete_instance("y", None, None, at(1)).await.unwrap();
    let found = says(store, "b", MINUTE, &[]).await.found;
    assert!(!found.iter().any(|one| one.instance_id == "y"));
    for agent in ["a", "b"] {
        store.leave(agent).await.unwrap();
    }
}
