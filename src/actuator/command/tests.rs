use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rustix::process::test_kill_process;
use serde_json::{Value, json};

use super::super::{ActuatorKind, Purpose};
use super::*;

const CANARY: &str = "canary-secret";

/// A program of one line of the shell.
fn program(script: &str) -> CommandActuator {
    CommandActuator::to_be_checked(&entry(script, Duration::from_secs(60)))
}

fn entry(script: &str, timeout: Duration) -> ActuatorEntry {
    ActuatorEntry {
        name: "host".to_owned(),
        kind: ActuatorKind::Command,
        command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: Vec::new(),
        timeout,
        max_concurrent: None,
        is_unsafe: false,
    }
}

/// A program that reads what it is asked and answers this.
fn answering(answer: &Value) -> CommandActuator {
    let answer = answer.to_string();
    assert!(!answer.contains('\''));
    program(&format!("cat >/dev/null; printf %s '{answer}'"))
}

fn instance() -> ActuatedInstance {
    ActuatedInstance {
        instance_id: "vllm-1".to_owned(),
        engine: None,
        metrics_urls: vec!["http://127.0.0.1:1/metrics".to_owned()],
        labels: [("team".to_owned(), "a".to_owned())].into(),
    }
}

fn target() -> Value {
    json!({
        "name": "r0", "revision": "1", "content_base64": "eA==", "launch_args": ["--a", "b"],
        "ready": true, "operation_id": null,
    })
}

fn with(mut target: Value, key: &str, value: Value) -> Value {
    target[key] = value;
    target
}

fn ok(ok: Value) -> Value {
    json!({ "protocol": 1, "ok": ok })
}

fn write() -> SettingsWrite {
    SettingsWrite {
        target: "r0".to_owned(),
        purpose: Purpose::Apply,
        operation_id: "op".to_owned(),
        epoch: 2,
        expect_revision: "1".to_owned(),
        content: b"x".to_vec(),
    }
}

async fn read_problem(answer: &Value) -> String {
    let read = answering(answer).read(&instance()).await;
    read.unwrap_err().to_string()
}

async fn write_problem(answer: &Value) -> ActuatorError {
    let written = answering(answer).write(&instance(), &write()).await;
    written.unwrap_err()
}

#[tokio::test]
async fn what_a_program_reads_and_answers() {
    // the request itself comes back, as settings
    let script = r#"content=$(base64 -w0); printf '{"protocol":1,"ok":{"targets":[{"name":"r0","revision":"1","content_base64":"%s","launch_args":[],"ready":false,"operation_id":"o","epoch":7}]}}' "$content""#;
    let echo = CommandActuator {
        env: vec!["PATH".to_owned()],
        ..program(script)
    };
    let targets = echo.read(&instance()).await.unwrap();
    let [target] = targets.as_slice() else {
        panic!("{targets:?}")
    };
    assert_eq!(
        (target.operation_id.as_deref(), target.epoch, target.ready),
        (Some("o"), Some(7), false)
    );
    let request: Value = serde_json::from_slice(&target.content).unwrap();
    let asked = json!({
        "protocol": 1, "op": "read", "actuator": "host",
        "instance": {
            "instance_id": "vllm-1", "engine": null, "metrics_urls": ["http://127.0.0.1:1/metrics"],
            "labels": {"team": "a"},
        },
    });
    assert_eq!(request, asked);
    let request: Value =
        serde_json::from_slice(&Ask::Write(&write()).request("host", &instance())).unwrap();
    assert_eq!(request["op"], "apply");
    assert_eq!(request["content_base64"], "eA==");
    assert_eq!(
        (&request["epoch"], &request["expect_revision"]),
        (&json!(2), &json!("1"))
    );
}

#[tokio::test]
async fn a_program_has_the_variables_that_are_listed_and_no_others() {
    let script = r#"cat >/dev/null; content=$(env | cut -d= -f1 | grep -vx -e PWD -e SHLVL -e _ -e OLDPWD | base64 -w0); printf '{"protocol":1,"ok":{"content_base64":"%s","needs_restart":true}}' "$content""#;
    let named = CommandActuator {
        env: vec!["PATH".to_owned(), "PERFAGENT_NO_SUCH".to_owned()],
        ..program(script)
    };
    let settings = answering(&ok(json!({"targets": [target()]})))
        .read(&instance())
        .await
        .unwrap();
    let planned = named.plan(&instance(), &settings[0], &[]).await.unwrap();
    assert_eq!(planned.content, b"PATH\n");
    assert!(planned.needs_restart);
}

#[tokio::test]
async fn answers_that_are_none_are_named() {
    let of = |target: Value| ok(json!({ "targets": [target] }));
    for (answer, why) in [
        (json!([]), "no JSON object"),
        (json!({"protocol": 2, "ok": {}}), "protocol: must be 1"),
        (json!({"protocol": 1}), "neither ok nor error"),
        (
            json!({"protocol": 1, "ok": {}, "error": {}}),
            "both ok and error",
        ),
        (
            json!({"protocol": 1, "okay": {}}),
            "the answer: has fields other than",
        ),
        (ok(json!({})), "ok.targets: must be a list"),
        (ok(json!({"targets": []})), "1 to 256"),
        (
            ok(json!({"targets": [target(), target()]})),
            "ok.targets[1].name: another target has this name",
        ),
        (
            of(with(target(), "revision", json!(""))),
            "ok.targets[0].revision",
        ),
        (
            of(with(target(), "revision", json!(7))),
            "ok.targets[0].revision",
        ),
        (
            of(with(target(), "name", json!("a b"))),
            "ok.targets[0].name",
        ),
        (
            of(with(target(), "name", json!("\u{1b}"))),
            "ok.targets[0].name",
        ),
        (
            of(with(target(), "ready", json!("yes"))),
            "ready: must be true or false",
        ),
        (
            of(with(target(), "epoch", json!(-1))),
            "epoch: must be a whole number",
        ),
        (
            of(with(target(), "launch_args", json!("a"))),
            "launch_args: must be a list",
        ),
        (
            of(with(target(), "content_base64", json!("ä"))),
            "must be base64",
        ),
        (
            of(with(target(), "content_base64", json!("A".repeat(352_000)))),
            "at most 262144 bytes",
        ),
        (
            of(with(target(), "revisoin", json!("1"))),
            "has fields other than name",
        ),
        (
            json!({"protocol": 1, "error": {"code": "WRONG", "message": "x"}}),
            "error.code: must be",
        ),
        (
            json!({"protocol": 1, "error": {"code": "STALE_EPOCH", "current_epoch": 9}}),
            "only apply, restore and route can be stale",
        ),
    ] {
        // an argument of a program has at most 128 KiB
        let problem = match answer.to_string().len() > 100_000 {
            true => protocol::said(answer.to_string().as_bytes())
                .and_then(|said| match said {
                    Said::Ok(ok) => protocol::targets(&ok),
                    Said::Error(_) => Ok(Vec::new()),
                })
                .unwrap_err(),
            false => read_problem(&answer).await,
        };
        assert!(problem.contains(why), "{why}: {problem}");
    }
    let silent = program("cat >/dev/null")
        .read(&instance())
        .await
        .unwrap_err();
    assert!(matches!(&silent, ActuatorError::Protocol { message, .. } if message == "nothing"));
    let half = program("echo '{\"protocol\":1'").read(&instance()).await;
    assert!(half.unwrap_err().to_string().contains("no JSON, from line"));
}

#[tokio::test]
async fn a_write_that_says_what_is_not_so_is_no_answer() {
    let good = with(
        with(target(), "operation_id", json!("op")),
        "epoch",
        json!(2),
    );
    let of = |target: Value| ok(json!({ "target": target }));
    let written = answering(&of(good.clone()))
        .write(&instance(), &write())
        .await;
    assert_eq!(written.unwrap().content, b"x");
    for (key, value) in [
        ("name", json!("r1")),
        ("content_base64", json!("eQ==")),
        ("operation_id", json!("other")),
        ("operation_id", Value::Null),
        ("epoch", json!(3)),
        ("epoch", Value::Null),
    ] {
        let error = write_problem(&of(with(good.clone(), key, value))).await;
        assert!(matches!(&error, ActuatorError::Protocol { .. }), "{error}");
        assert!(
            error
                .to_string()
                .contains(&format!("ok.target.{key}: is not")),
            "{error}"
        );
    }
    for error in [
        json!({"code": "STALE_REVISION", "current_revision": "1"}),
        json!({"code": "STALE_EPOCH", "current_epoch": 2}),
    ] {
        let error = write_problem(&json!({"protocol": 1, "error": error})).await;
        assert!(!error.changed_nothing(), "{error}");
        assert!(matches!(&error, ActuatorError::Protocol { .. }), "{error}");
    }
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let error = |error: Value| json!({ "protocol": 1, "error": error });
    let stale = json!({"code": "STALE_REVISION", "message": "m", "current_revision": "2"});
    let stale = write_problem(&error(stale)).await;
    assert_eq!(
        stale.to_string(),
        "the settings of r0 are at revision 2, not at 1"
    );
    let epoch = json!({"code": "STALE_EPOCH", "current_epoch": 9});
    let epoch = write_problem(&error(epoch)).await;
    assert_eq!(epoch.to_string(), "r0 was written with epoch 9, after 2");
    assert!(stale.changed_nothing() && epoch.changed_nothing());
    let missing = write_problem(&error(json!({"code": "NO_TARGET"}))).await;
    assert_eq!(missing.to_string(), "host has no target r0 for vllm-1");
    let failed = json!({"code": "FAILED", "message": "no\nspace \u{1b}[1mleft"});
    let failed = write_problem(&error(failed)).await;
    assert_eq!(
        failed.to_string(),
        "host failed at `apply`: no space [1mleft"
    );
}

#[tokio::test]
async fn a_program_that_fails_says_so_and_gives_no_secret_away() {
    let mut secret = write();
    secret.content = format!("ExecStart=/opt/vllm --api-key {CANARY} --port 80").into_bytes();
    let complaint =
        format!("cat >/dev/null; echo \"cannot use --api-key={CANARY} at 80\" >&2; exit 3");
    let failed = program(&complaint).write(&instance(), &secret).await;
    assert_eq!(
        failed.unwrap_err().to_string(),
        "host failed at `apply`: exit status: 3: cannot use --api-key=*** at 80"
    );
    let said = format!(
        "cat >/dev/null; echo '{{\"protocol\":1,\"error\":{{\"code\":\"FAILED\",\"message\":\"got {CANARY}\"}}}}'"
    );
    let failed = program(&said).write(&instance(), &secret).await;
    assert!(failed.unwrap_err().to_string().ends_with("got ***"));
    // no answer is repeated, not even one that is wrong
    let junk =
        format!("cat >/dev/null; echo '{{\"protocol\":\"{CANARY}\",\"{CANARY}\":\"{CANARY}\"}}'");
    for script in [
        junk.clone(),
        junk.replace("protocol\":\"", "protocol\":1,\"x\":\""),
    ] {
        let error = program(&script)
            .write(&instance(), &secret)
            .await
            .unwrap_err();
        assert!(!format!("{error} {error:?}").contains(CANARY), "{error:?}");
    }
    assert!(!format!("{secret:?}").contains(CANARY));
    let canary = entry(CANARY, Duration::from_secs(60));
    let actuator = CommandActuator::to_be_checked(&canary);
    let shown = format!("{actuator:?} {canary:?}");
    assert!(
        !shown.contains(CANARY) && shown.contains("/bin/sh"),
        "{shown}"
    );
    let settings = super::super::PlannedSettings {
        content: secret.content.clone(),
        needs_restart: true,
    };
    assert!(!format!("{settings:?}").contains(CANARY));
    let killed = program("kill -9 $$").read(&instance()).await.unwrap_err();
    assert!(killed.to_string().contains("signal: 9"), "{killed}");
    // who answers and then fails has not done it
    let both = format!(
        "cat >/dev/null; printf %s '{}'; exit 1",
        ok(json!({"targets": [target()]}))
    );
    let both = program(&both).read(&instance()).await.unwrap_err();
    assert!(matches!(both, ActuatorError::Failed { .. }), "{both}");
    let missing = CommandActuator {
        argv: vec!["/nowhere/settings".to_owned()],
        ..program("")
    };
    let missing = missing.read(&instance()).await.unwrap_err();
    assert!(
        missing.to_string().contains("cannot be started"),
        "{missing}"
    );
}

/// Once the file has a line, the process of that number.
async fn process_of(file: &Path) -> rustix::process::Pid {
    loop {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        if text.ends_with('\n') {
            let pid = text.trim().parse().unwrap();
            return rustix::process::Pid::from_raw(pid).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Returns once the process is gone, or nothing but its number is left.
async fn gone(pid: rustix::process::Pid) {
    let status = format!("/proc/{}/stat", pid.as_raw_nonzero());
    let is_left = || {
        let stat = std::fs::read_to_string(&status).unwrap_or_default();
        test_kill_process(pid).is_ok() && !stat.contains(") Z ")
    };
    while is_left() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_hangs_is_ended_with_all_that_it_started() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pid");
    let script = format!(
        "cat >/dev/null; (trap '' TERM; sleep 600 & echo $! >{}; wait)",
        file.display()
    );
    let hung = CommandActuator::to_be_checked(&entry(&script, Duration::from_secs(1)));
    let started = Instant::now();
    let error = hung.read(&instance()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "host did not answer `read` within 1 s, and was ended"
    );
    assert!(started.elapsed() < Duration::from_secs(300));
    gone(process_of(&file).await).await;
}

#[tokio::test]
async fn nothing_is_left_of_a_call_that_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pid");
    let script = format!("sleep 600 & echo $! >{}; wait", file.display());
    let hung = Arc::new(program(&script));
    let call = tokio::spawn(async move { hung.read(&instance()).await });
    let pid = process_of(&file).await;
    call.abort();
    gone(pid).await;
}

#[tokio::test]
async fn what_a_program_leaves_behind_does_not_hold_its_answer_up() {
    let directory = tempfile::tempdir().unwrap();
    let (child, daemon) = (
        directory.path().join("child"),
        directory.path().join("daemon"),
    );
    let answer = ok(json!({"targets": [target()]}));
    // both hold standard output open; one has left the group, as an engine that was started has
    let script = format!(
        "cat >/dev/null; sleep 600 & echo $! >{}; setsid sleep 600 & echo $! >{}; printf %s '{answer}'",
        child.display(),
        daemon.display()
    );
    let leaves = CommandActuator {
        env: vec!["PATH".to_owned()],
        ..program(&script)
    };
    assert_eq!(leaves.read(&instance()).await.unwrap().len(), 1);
    gone(process_of(&child).await).await;
    let daemon = process_of(&daemon).await;
    rustix::process::kill_process(daemon, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn too_much_is_no_answer() {
    let endless = program("cat >/dev/null; exec cat /dev/zero")
        .read(&instance())
        .await;
    let error = endless.unwrap_err().to_string();
    assert!(error.ends_with("more than 1048576 bytes"), "{error}");
    // complaints are not bounded by the pipe, nor in what they take
    let loud = program("cat >/dev/null; head -c 3000000 /dev/zero >&2; echo end >&2; exit 1");
    let error = loud.read(&instance()).await.unwrap_err().to_string();
    assert!(error.ends_with("end") && error.len() < 1_500, "{error}");
}

#[tokio::test]
async fn who_does_not_read_may_answer() {
    let mut large = write();
    large.content = vec![b'x'; super::super::MAX_CONTENT_BYTES];
    let answer = json!({"protocol": 1, "error": {"code": "NO_TARGET"}});
    let deaf = program(&format!("exec <&-; echo '{answer}'"));
    let error = deaf.write(&instance(), &large).await.unwrap_err();
    assert!(matches!(error, ActuatorError::NoTarget { .. }), "{error}");
}

#[tokio::test]
async fn a_program_without_its_check_writes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let marker = directory.path().join("ran");
    let script = directory.path().join("settings");
    std::fs::write(&script, format!("touch {}\n", marker.display())).unwrap();
    let mut entry = entry("", Duration::from_secs(60));
    entry.command = vec!["/bin/sh".to_owned(), script.display().to_string()];
    let actuator = |entry: &ActuatorEntry| CommandActuator::new(entry, Some(directory.path()));
    let refused = actuator(&entry)
        .write(&instance(), &write())
        .await
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "host writes no settings: it has not passed its check; run `perfagent actuator check host`, or set `unsafe = true`"
    );
    assert!(refused.changed_nothing() && !marker.exists());
    assert!(CommandActuator::new(&entry, None).refuses().await.is_some());

    let record = CommandActuator::to_be_checked(&entry)
        .record_passed(directory.path())
        .unwrap();
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(&record).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(actuator(&entry).refuses().await, None);

    let mut other = entry.clone();
    other.command.push("--force".to_owned());
    assert!(actuator(&other).refuses().await.is_some());
    other.is_unsafe = true;
    assert_eq!(actuator(&other).refuses().await, None);
    std::fs::write(&script, "exit 0\n").unwrap();
    let changed = actuator(&entry).refuses().await.unwrap().to_string();
    assert!(
        changed.contains("not as it was when it passed"),
        "{changed}"
    );
    std::fs::write(&record, "{").unwrap();
    assert!(actuator(&entry).refuses().await.is_some());
}
