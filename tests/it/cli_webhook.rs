//! `perfagent webhook` as a user types it.

use std::process::Output;

use serde_json::Value;

use crate::cli::{golden, run, text};
use crate::receiver::{Does, Receiver};
use crate::workflows::{over, pause, pending, store};

const SECRET_SHOWN: &str = "whsec_";

/// What is another each time, as it stands in golden files.
fn steady(out: &str, url: &str) -> String {
    let mut value: Value = serde_json::from_str(out).unwrap();
    fn walk(value: &mut Value, url: &str) {
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    match name.as_str() {
                        "secret" => *field = "whsec_…".into(),
                        "delivery_id" | "workflow_id" => *field = "…".into(),
                        "body" => *field = "{…}".into(),
                        "duration_seconds" => *field = 0.25.into(),
                        name if name.ends_with("_time") => *field = "2027-01-15T08:00:00Z".into(),
                        _ => walk(field, url),
                    }
                }
            }
            Value::Array(all) => all.iter_mut().for_each(|one| walk(one, url)),
            Value::String(text) => *text = text.replace(url, "https://hooks.example/"),
            _ => {}
        }
    }
    walk(&mut value, url);
    serde_json::to_string_pretty(&value).unwrap() + "\n"
}

#[tokio::test]
async fn a_webhook_from_its_creation_to_its_end() {
    let (store, _state) = store().await;
    let id = pending(&*store, "a").await;
    let agent = over(&store, |config| {
        config.webhook.allow = vec!["127.0.0.1".to_owned()];
    })
    .await;
    let receiver = Receiver::start(|_| Does::Answers(204)).await;
    let (url, server) = (receiver.url(), agent.address.to_string());
    let typed = async |words: &[&str]| -> Output {
        let mut all = vec!["webhook"];
        all.extend(words);
        all.extend(["--server", &server]);
        run(&all).await
    };
    let done = async |words: &[&str]| -> String {
        let output = typed(words).await;
        assert!(
            output.status.success(),
            "{words:?}: {}",
            text(&output.stderr)
        );
        text(&output.stdout)
    };
    let none = done(&["list"]).await;
    assert!(none.contains("perfagent webhook create"), "{none}");
    let created = done(&["create", "pager", "--url", &url, "--label", "team=a"]).await;
    assert!(created.contains(SECRET_SHOWN), "{created}");
    assert!(
        created.contains("perfagent webhook test pager"),
        "{created}"
    );
    let json = done(&[
        "create",
        "chat",
        "--url",
        &url,
        "--type",
        "bottleneck.opened",
        "--min-severity",
        "high",
        "-o",
        "json",
    ])
    .await;
    golden("webhook-create.json", &steady(&json, &url));
    let tested = done(&["test", "pager"]).await;
    assert!(tested.contains("taken, HTTP 204"), "{tested}");
    golden(
        "webhook-test.json",
        &steady(&done(&["test", "pager", "-o", "json"]).await, &url),
    );
    done(&["create", "all", "--url", &url]).await;
    pause(&agent, &id).await;
    receiver.taken(3).await;
    let shown = loop {
        let shown = done(&["deliveries", "all", "-o", "json"]).await;
        if shown.contains("DELIVERED") {
            break shown;
        }
    };
    golden("webhook-deliveries.json", &steady(&shown, &url));
    let value: Value = serde_json::from_str(&shown).unwrap();
    let delivery = value["deliveries"][0]["delivery_id"].as_str().unwrap();
    let one = done(&["deliveries", "--id", delivery]).await;
    assert!(
        one.contains(&format!("perfagent webhook redeliver {delivery}")),
        "{one}"
    );
    golden(
        "webhook-delivery.json",
        &steady(
            &done(&["deliveries", "--id", delivery, "-o", "json"]).await,
            &url,
        ),
    );
    let again = done(&["redeliver", delivery]).await;
    assert!(again.starts_with("it is tried now\n"), "{again}");
    receiver.posted(4).await;
    let table = done(&["deliveries"]).await;
    assert!(table.contains("workflow.status_changed"), "{table}");
    let rotated = done(&["rotate", "all"]).await;
    assert!(rotated.contains(SECRET_SHOWN), "{rotated}");
    done(&["disable", "all"]).await;
    let listed = done(&["list"]).await;
    assert!(
        listed.contains("disabled") && listed.contains("team=a"),
        "{listed}"
    );
    assert!(!listed.contains(SECRET_SHOWN), "{listed}");
    let refused = typed(&["redeliver", delivery]).await;
    assert_eq!(refused.status.code(), Some(1));
    let told = text(&refused.stderr);
    assert!(told.contains("EnableWebhook"), "{told}");
    golden(
        "webhook-get.json",
        &steady(&done(&["get", "all", "-o", "json"]).await, &url),
    );
    done(&["enable", "all"]).await;
    golden(
        "webhook-list.json",
        &steady(&done(&["list", "-o", "json"]).await, &url),
    );
    assert_eq!(done(&["delete", "all"]).await, "deleted all\n");
    let gone = typed(&["get", "all"]).await;
    assert_eq!(gone.status.code(), Some(1));
    let wrong = typed(&["create", "x", "--url", "http://10.1.2.3/"]).await;
    assert!(
        text(&wrong.stderr).contains("[webhook] allow"),
        "{}",
        text(&wrong.stderr)
    );
    // a receiver that does not take it
    drop(receiver);
    let tested = typed(&["test", "pager"]).await;
    assert_eq!(tested.status.code(), Some(1));
    assert!(
        text(&tested.stdout).contains("no answer: "),
        "{}",
        text(&tested.stdout)
    );
}
