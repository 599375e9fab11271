//! Answers of two engines, compared as a workflow does.

use std::io::Write;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::bench::{Bench, until};
use crate::agent::workflows::came::Came;
use crate::scrape::shown_url;
use crate::workflow::tests::example::{Run, canaried};
use crate::workflow::{Command, QualityPolicy, QualityReport, Strategy, Workflow};

/// A vLLM with metrics, that answers each prompt with its words and this one.
async fn engine(word: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "http://{}/metrics?token=s3cret",
        listener.local_addr().unwrap()
    );
    tokio::spawn(async move {
        let mut tokens = 0;
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = Vec::new();
            let mut part = [0; 4_096];
            while !is_whole(&asked) {
                match stream.read(&mut part).await {
                    Ok(0) | Err(_) => break,
                    Ok(read) => asked.extend_from_slice(&part[..read]),
                }
            }
            tokens += 10;
            let asked = String::from_utf8_lossy(&asked).into_owned();
            let body = match asked.split_once("\r\n\r\n") {
                Some((head, body)) if head.starts_with("POST /v1/completions ") => {
                    let asked: serde_json::Value = serde_json::from_str(body).unwrap();
                    assert_eq!(
                        (&asked["model"], &asked["temperature"]),
                        (&"m".into(), &0.into())
                    );
                    let text = format!("{} {word}", asked["prompt"].as_str().unwrap());
                    serde_json::json!({"choices": [{"text": text}]}).to_string()
                }
                _ => format!(
                    "# TYPE vllm:generation_tokens_total counter\n\
                     vllm:generation_tokens_total{{engine=\"0\",model_name=\"m\"}} {tokens}\n"
                ),
            };
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    url
}

/// Whether all of a request is there.
fn is_whole(asked: &[u8]) -> bool {
    let text = String::from_utf8_lossy(asked);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>())
    });
    body.len() >= length.and_then(Result::ok).unwrap_or(0)
}

/// A workflow whose first target has the change, over these engines.
fn checking(urls: &[String]) -> Workflow {
    let mut state = Run::planned(canaried(), urls.len()).state().clone();
    state.spec.instance_id = "a".to_owned();
    state.spec.actuator = "desk".to_owned();
    let plan = state.plan.as_mut().unwrap();
    if let Strategy::Canary(canary) = &mut plan.draft.strategy {
        canary.replicas = urls.iter().map(|url| shown_url(url)).collect();
        canary.quality = Some(QualityPolicy::default());
    }
    state
}

async fn report(words: [&'static str; 2]) -> QualityReport {
    let urls = vec![engine(words[0]).await, engine(words[1]).await];
    let mut prompts = tempfile::NamedTempFile::new().unwrap();
    write!(
        prompts,
        "{{\"prompt\": \"One\"}}\n{{\"prompt\": \"Two\"}}\n"
    )
    .unwrap();
    let bench = Bench::with(2, |config| {
        config.instances[0].metrics_url = None;
        config.instances[0].metrics_urls.clone_from(&urls);
        config.workflows.quality_prompts = Some(prompts.path().to_owned());
    })
    .await;
    let agent = Arc::clone(bench.agent());
    until(async || {
        agent
            .latest("a")
            .ok()
            .filter(|answer| answer.latest.model_name().is_some())
    })
    .await;
    let state = checking(&urls);
    let site = agent.site_of(&state).unwrap();
    match agent.check_quality(&site, &state).await {
        Came::Command(command, _) => match *command {
            Command::QualityChecked(report) => *report,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn engines_that_answer_the_same_pass_and_others_do_not() {
    let same = report(["yes", "yes"]).await;
    assert!(same.passed, "{same:?}");
    assert_eq!((same.prompts, same.agreed, same.agreed_without), (2, 2, 2));
    let other = report(["no", "yes"]).await;
    assert!(!other.passed, "{other:?}");
    assert_eq!((other.agreed, other.agreed_without), (0, 2));
    assert!((other.common_ratio - 0.5).abs() < 1e-9, "{other:?}");
}
