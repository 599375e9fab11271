//! SLOs from their registration to the error budget: kept, held against, refused with the field that is wrong.

use std::sync::Arc;
use std::time::Duration;

use perfagent::analysis::Slo;
use perfagent::config::{Config, SloEntry};
use perfagent::edge::grpc::{convert_slo, pb};
use perfagent::store::SqliteStore;
use serde_json::Value;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::cli::{command, run, text};
use crate::diagnosing::recorded;
use crate::fake::{Answer, FakeEngine, TestAgent, vllm_body};
use crate::instances::{configured, millis, registration};

/// A vLLM of which in each second scrape 90 first tokens came within 0.1 s, 9 within 0.5 s and one later.
async fn engine() -> FakeEngine {
    FakeEngine::start(|path, count| match path {
        "/metrics" => Answer::ok(body(count as u64 + 1)),
        _ => Answer::Plain(404, Vec::new()),
    })
    .await
}

fn body(n: u64) -> String {
    let labels = "engine=\"0\",model_name=\"m\"";
    let bucket = |le: &str, count: u64| {
        format!("vllm:time_to_first_token_seconds_bucket{{{labels},le=\"{le}\"}} {count}\n")
    };
    let histogram = [("0.1", 90), ("0.5", 99), ("1.0", 100), ("+Inf", 100)];
    let buckets: String = histogram.map(|(le, count)| bucket(le, count * n)).concat();
    format!(
        "{}# TYPE vllm:time_to_first_token_seconds histogram\n{buckets}\
         vllm:time_to_first_token_seconds_sum{{{labels}}} {}\n\
         vllm:time_to_first_token_seconds_count{{{labels}}} {}\n",
        vllm_body(7 * n),
        20 * n,
        100 * n
    )
}

fn slo(line: &str) -> pb::Slo {
    convert_slo::slo(&line.parse::<Slo>().unwrap())
}

fn own() -> Vec<pb::Slo> {
    vec![
        slo("kept: p90 time_to_first_token_seconds <= 0.5"),
        slo("missed: p99.9 time_to_first_token_seconds <= 0.5"),
        slo("coarse: p50 time_to_first_token_seconds <= 0.05"),
        slo("bounded: p50 time_to_first_token_seconds <= 0.1"),
    ]
}

async fn evaluate(
    agent: &TestAgent,
    request: pb::EvaluateSlosRequest,
) -> Result<pb::EvaluateSlosResponse, Status> {
    let answer = agent.analysis().await.evaluate_slos(request).await?;
    Ok(answer.into_inner())
}

fn of_instance(id: &str) -> pb::EvaluateSlosRequest {
    pb::EvaluateSlosRequest {
        instance_id: id.to_owned(),
        ..Default::default()
    }
}

/// The answer once a window is there and its minute is counted.
async fn counted(agent: &TestAgent, id: &str) -> pb::EvaluateSlosResponse {
    let known = |answer: &pb::EvaluateSlosResponse| {
        let window = answer.window.as_ref().unwrap();
        let budgets = &answer.error_budgets;
        window.kind() == pb::WindowKind::Interval
            && budgets.iter().any(|budget| budget.left_ratio.is_some())
    };
    let wait = async {
        loop {
            match evaluate(agent, of_instance(id)).await {
                Ok(answer) if known(&answer) => return answer,
                Ok(_) => {}
                Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait)
        .await
        .unwrap()
}

fn statuses(answer: &pb::EvaluateSlosResponse) -> Vec<(String, pb::SloStatus)> {
    let one = |one: &pb::SloCompliance| (one.slo.as_ref().unwrap().name.clone(), one.status());
    answer.slos.iter().map(one).collect()
}

fn fields(status: &Status) -> Vec<String> {
    let details = status.get_details_bad_request().unwrap();
    let violations = details.field_violations.into_iter();
    violations.map(|violation| violation.field).collect()
}

#[tokio::test]
async fn an_instance_is_held_against_its_own_slos_and_their_budgets_are_counted() {
    use pb::SloStatus::{Met, Unknown, Violated};
    let (agent, engine) = (TestAgent::start().await, engine().await);
    let request = pb::RegisterInstanceRequest {
        slos: own(),
        ..registration("vllm-1", &engine.url())
    };
    agent
        .instances()
        .await
        .register_instance(request)
        .await
        .unwrap();
    let answer = counted(&agent, "vllm-1").await;
    let named = |name: &str, status| (name.to_owned(), status);
    assert_eq!(
        statuses(&answer),
        [
            named("kept", Met),
            named("missed", Violated),
            named("coarse", Unknown),
            named("bounded", Met)
        ]
    );
    assert_eq!(answer.status(), Violated);
    let [_, missed, coarse, bounded] = answer.slos.as_slice() else {
        panic!("{answer:?}");
    };
    let share = missed.share_beyond.unwrap();
    assert!((share.at_least_ratio - 0.01).abs() < 1e-9, "{share:?}");
    assert_eq!(share.at_least_ratio, share.at_most_ratio);
    let bound = |one: &pb::SloCompliance| one.measured.as_ref().unwrap().bound;
    assert_eq!(bound(coarse), Some(pb::quantity::Bound::AtMost(0.1)));
    assert_eq!(
        bounded.margin,
        Some(pb::slo_compliance::Margin::MarginAtLeastRatio(0.0))
    );
    // 1 % beyond a target with a budget of 0.1 %; and what buckets cannot divide is not counted
    let budgets = &answer.error_budgets;
    let short = |at: usize| budgets[at].fast.unwrap().short.unwrap();
    assert_eq!(budgets[1].slo, "missed");
    assert!((budgets[1].budget_ratio - 0.001).abs() < 1e-9);
    assert!((short(1).rate.unwrap() - 10.0).abs() < 1e-3, "{budgets:?}");
    assert!(short(1).covered_minutes < 5, "{budgets:?}");
    assert_eq!((short(2).rate, short(2).covered_minutes), (None, 0));
    assert_eq!(budgets[1].slow.unwrap().long.unwrap().window_minutes, 360);

    // those of one call are held against, and nothing was counted for them
    let other = pb::EvaluateSlosRequest {
        slos: vec![slo(
            "rate: generation_tokens_per_second >= 1e9 while requests wait",
        )],
        ..of_instance("vllm-1")
    };
    let other = evaluate(&agent, other).await.unwrap();
    assert_eq!(statuses(&other), [named("rate", Violated)]);
    assert!(other.error_budgets.is_empty());

    // what was changed holds at once, though its minutes are yet to come
    let change = pb::UpdateInstanceRequest {
        instance: Some(pb::Instance {
            instance_id: "vllm-1".to_owned(),
            slos: vec![slo("new: p90 time_to_first_token_seconds <= 3")],
            ..Default::default()
        }),
        ..Default::default()
    };
    agent
        .instances()
        .await
        .update_instance(change)
        .await
        .unwrap();
    let changed = evaluate(&agent, of_instance("vllm-1")).await.unwrap();
    assert_eq!(statuses(&changed), [named("new", Met)]);
    assert_eq!(changed.error_budgets.len(), 1);
    let detected = agent
        .analysis()
        .await
        .detect_bottlenecks(pb::DetectBottlenecksRequest {
            instance_id: "vllm-1".to_owned(),
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner();
    let names: Vec<&str> = detected
        .slos
        .iter()
        .map(|one| one.slo.as_ref().unwrap().name.as_str())
        .collect();
    assert_eq!(names, ["new"]);
    let health = detected.health.unwrap();
    let taken: u32 = health.deductions.iter().map(|one| one.points).sum();
    assert_eq!(health.score, 100_u32.saturating_sub(taken));
}

#[tokio::test]
async fn slos_outlive_the_agent_and_are_taken_away_by_name() {
    let state = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.server.listen = ([127, 0, 0, 1], 0).into();
    let start = || async {
        let store = Arc::new(SqliteStore::open(state.path()).await.unwrap());
        TestAgent::over(&config, store, None).await
    };
    let get = || pb::GetInstanceRequest {
        instance_id: "a".to_owned(),
    };
    let before = start().await;
    let request = pb::RegisterInstanceRequest {
        slos: own(),
        ..registration("a", "http://127.0.0.1:1/metrics")
    };
    before
        .instances()
        .await
        .register_instance(request)
        .await
        .unwrap();
    before.handle.stop();
    before.served.await.unwrap();

    let after = start().await;
    let mut client = after.instances().await;
    let read = client.get_instance(get()).await.unwrap().into_inner();
    let mut instance = read.instance.unwrap();
    assert_eq!(instance.slos, own());
    instance.slos.clear();
    // without its name in the mask nothing becomes of it
    for (path, left) in [("labels", own()), ("slos", Vec::new())] {
        let update = pb::UpdateInstanceRequest {
            instance: Some(pb::Instance {
                etag: String::new(),
                ..instance.clone()
            }),
            update_mask: Some(prost_types::FieldMask {
                paths: vec![path.to_owned()],
            }),
            ..Default::default()
        };
        let updated = client.update_instance(update).await.unwrap();
        assert_eq!(updated.into_inner().instance.unwrap().slos, left);
    }
}

#[tokio::test]
async fn wrong_slos_are_refused_with_their_fields() {
    let agent = TestAgent::start().await;
    let wrong = |change: fn(&mut pb::Slo)| {
        let mut slos = own();
        change(&mut slos[1]);
        slos
    };
    let cases: [(Vec<pb::Slo>, &[&str]); 5] = [
        (wrong(|slo| slo.target = None), &["slos[1].target"]),
        (
            wrong(|slo| slo.quantity = "ttft".to_owned()),
            &["slos[1].quantity"],
        ),
        (wrong(|slo| slo.name = "kept".to_owned()), &["slos[1].name"]),
        (
            wrong(|slo| slo.target = Some(pb::slo::Target::AtMost(f64::NAN))),
            &["slos[1].at_most"],
        ),
        (vec![own().remove(0); 9], &["slos"]),
    ];
    for (slos, expected) in cases {
        let request = pb::RegisterInstanceRequest {
            slos: slos.clone(),
            ..registration("a", "http://127.0.0.1:1/metrics")
        };
        let refused = agent.instances().await.register_instance(request).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert_eq!(fields(&refused), expected);
        let request = pb::EvaluateSlosRequest {
            metrics_url: "http://127.0.0.1:1/metrics".to_owned(),
            slos,
            ..of_instance("a")
        };
        let refused = evaluate(&agent, request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert_eq!(fields(&refused), expected);
    }
    let nobody = evaluate(&agent, of_instance("nobody")).await.unwrap_err();
    assert_eq!(nobody.code(), Code::NotFound);
}

#[tokio::test]
async fn a_target_and_its_measurement_are_judged_alike() {
    let agent = TestAgent::start().await;
    for name in [
        "vllm-0.32.0/c-saturation",
        "sglang-0.5.23/c-saturation",
        "tgi-3.3.6/c-saturation",
    ] {
        let (asked, measured) = (recorded(name).await, recorded(name).await);
        let of_target = pb::EvaluateSlosRequest {
            metrics_url: asked.url(),
            window: Some(millis(1_000)),
            ..of_instance("engine-1")
        };
        let of_target = evaluate(&agent, of_target).await.unwrap();
        let collect = pb::CollectMetricsRequest {
            instance_id: "engine-1".to_owned(),
            metrics_url: measured.url(),
            window: Some(millis(1_000)),
            ..Default::default()
        };
        let collected = agent
            .metrics()
            .await
            .collect_metrics(collect)
            .await
            .unwrap();
        let given = pb::EvaluateSlosRequest {
            measurement: collected.into_inner().measurement,
            ..Default::default()
        };
        assert_eq!(evaluate(&agent, given).await.unwrap(), of_target, "{name}");
        let defaults: Vec<String> = Slo::defaults().into_iter().map(|slo| slo.name).collect();
        let told: Vec<String> = statuses(&of_target)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(told, defaults);
        // TGI has no first-token histogram: that is said, and not guessed
        let p99 = &of_target.slos[1];
        match name.starts_with("tgi") {
            true => {
                assert_eq!(p99.status(), pb::SloStatus::Unknown, "{p99:?}");
                assert_eq!(p99.missing, "time_to_first_token_seconds");
            }
            false => assert_eq!(p99.status(), pb::SloStatus::Violated, "{p99:?}"),
        }
    }
}

#[tokio::test]
async fn the_config_file_sets_slos_for_all_and_for_one() {
    let engine = engine().await;
    let row = |instance_id: Option<&str>, at_most: f64| SloEntry {
        instance_id: instance_id.map(str::to_owned),
        name: "ttft".to_owned(),
        quantity: "time_to_first_token_seconds".to_owned(),
        aggregation: Some("p95".to_owned()),
        at_most: Some(at_most),
        at_least: None,
        only_while_requests_wait: false,
    };
    let agent = TestAgent::with(|config| {
        config.slos = vec![row(None, 0.5), row(Some("strict"), 0.1)];
        config.instances = vec![
            configured("strict", &engine.url()),
            configured("usual", &engine.url()),
        ];
    })
    .await;
    let status = |answer: pb::EvaluateSlosResponse| answer.status();
    assert_eq!(status(counted(&agent, "usual").await), pb::SloStatus::Met);
    assert_eq!(
        status(counted(&agent, "strict").await),
        pb::SloStatus::Violated
    );
}

#[tokio::test]
async fn the_command_says_it_and_its_exit_code_too() {
    let engine = engine().await;
    let url = engine.url();
    let slo = |line: &'static str| {
        let url = url.clone();
        async move {
            let arguments = [
                "slo", "--url", &url, "--window", "1s", "--output", "json", "--slo", line,
            ];
            let output = run(&arguments).await;
            let answer: Value = serde_json::from_slice(&output.stdout)
                .unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)));
            (output.status.code().unwrap(), answer)
        }
    };
    for (line, code, status) in [
        ("a: p90 time_to_first_token_seconds <= 0.5", 0, "MET"),
        (
            "a: p99.9 time_to_first_token_seconds <= 0.5",
            10,
            "VIOLATED",
        ),
        ("a: p50 time_to_first_token_seconds <= 0.05", 11, "UNKNOWN"),
    ] {
        let (exit, answer) = slo(line).await;
        assert_eq!(
            (exit, answer["status"].as_str()),
            (code, Some(status)),
            "{answer}"
        );
        assert_eq!(answer["slos"][0]["status"], status);
    }
    let wrong = run(&["slo", "--url", &url, "--slo", "a: ttft <= 1"]).await;
    assert_eq!(wrong.status.code(), Some(2));
    assert!(
        text(&wrong.stderr).contains("slos[0].quantity"),
        "{}",
        text(&wrong.stderr)
    );
    let unread = run(&["slo", "--url", &url, "--slo", "ttft"]).await;
    assert_eq!(unread.status.code(), Some(2));

    let agent = TestAgent::start().await;
    let address = agent.address.to_string();
    let registered = run(&[
        "instances",
        "register",
        "vllm-1",
        "--url",
        &url,
        "--interval",
        "200ms",
        "--window",
        "2s",
        "--slo",
        "ttft: p99.9 time_to_first_token_seconds <= 0.5",
        "--server",
        &address,
    ])
    .await;
    assert!(registered.status.success(), "{}", text(&registered.stderr));
    counted(&agent, "vllm-1").await;
    let page = run(&["slo", "vllm-1", "--server", &address]).await;
    assert_eq!(page.status.code(), Some(10));
    let shown = text(&page.stdout);
    for part in [
        "VIOLATED",
        "p99.9 of time_to_first_token_seconds at most 0.5",
        "1 % are beyond it",
        "Error budgets",
        "/360)",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let details = run(&["instances", "get", "vllm-1", "--server", &address]).await;
    assert!(
        text(&details.stdout).contains("slo       ttft: p99.9"),
        "{}",
        text(&details.stdout)
    );
    let diagnosed = command()
        .args(["diagnose", "vllm-1", "--server", &address])
        .output()
        .await
        .unwrap();
    let shown = text(&diagnosed.stdout);
    assert!(
        shown.contains("SLOs") && shown.contains("health "),
        "{shown}"
    );
}
