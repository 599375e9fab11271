use super::*;
use std::io::Write;

fn load(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::load(Some(file.path()), variables)
}

fn message(text: &str, variables: &[(&str, &str)]) -> String {
    let checked = load(text, variables).and_then(|config| config.check());
    checked.unwrap_err().to_string()
}

#[test]
fn variables_win_over_the_file() {
    let config = load(
        "[server]\nlisten = \"127.0.0.1:9000\"\n[scrape]\ntimeout = \"2s\"\n",
        &[
            ("PERFAGENT_SERVER__LISTEN", "127.0.0.1:9001"),
            ("PERFAGENT_SCRAPE__ALLOW", "[\"10.0.0.0/8\"]"),
            ("PERFAGENT_SERVER", "127.0.0.1:1"),
            ("HOME", "/"),
        ],
    )
    .unwrap();
    config.check().unwrap();
    assert_eq!(config.server.listen.port(), 9001);
    assert_eq!(config.scrape.timeout, Duration::from_secs(2));
    assert_eq!(config.scrape.allow, ["10.0.0.0/8"]);
    assert_eq!(Config::load(None, []).unwrap().server.listen.port(), 8002);
}

#[test]
fn thresholds_are_those_of_the_file_with_variables_over_them() {
    let file = "[thresholds]\nstall_seconds = 20\n";
    let thresholds =
        |text, variables: &[(&str, &str)]| load(text, variables).unwrap().thresholds().unwrap();
    assert_eq!(thresholds(file, &[]).stall_seconds, 20.0);
    let variable = [("PERFAGENT_THRESHOLDS__STALL_SECONDS", "2.5")];
    assert_eq!(thresholds(file, &variable).stall_seconds, 2.5);
    assert_eq!(thresholds("", &[]), Thresholds::default());
    assert!(
        message("", &[("PERFAGENT_THRESHOLDS__STALL_SECOND", "1")])
            .ends_with("the nearest known one is `thresholds.stall_seconds`")
    );
}

#[test]
fn approvals_that_nobody_could_give_are_refused() {
    let workflows = |text: &str| format!("[workflows]\n{text}\n");
    let defaults = load("", &[]).unwrap().workflows;
    assert_eq!((defaults.approvals, defaults.auto_approve), (1, false));
    for text in ["approvals = 2", "separate_requester = true"] {
        let message = message(&workflows(text), &[]);
        assert!(message.contains("set auth.credentials_file"), "{message}");
        let with = format!("[auth]\ncredentials_file = \"/c\"\n{}", workflows(text));
        load(&with, &[]).unwrap().check().unwrap();
    }
    for (text, message) in [
        ("approvals = 0", "workflows.approvals must be from 1 to 10"),
        (
            "ready_timeout = \"0s\"",
            "workflows.ready_timeout must be from 1s to 1day",
        ),
        (
            "events_kept = \"0s\"",
            "workflows.events_kept must be longer than zero",
        ),
    ] {
        assert_eq!(self::message(&workflows(text), &[]), message);
    }
    let hold = load(&workflows("on_timeout = \"hold\""), &[]).unwrap();
    assert_eq!(hold.workflows.on_timeout, TimeoutPolicy::Hold);
}

#[test]
fn optimizers_are_checked_with_the_rest() {
    let text = include_str!("../../tests/fixtures/config/optimizers.toml");
    let config = load(text, &[]).unwrap();
    config.check().unwrap();
    let optimizers = config.optimizers().unwrap();
    let names: Vec<&str> = optimizers.iter().map(CustomOptimizer::name).collect();
    assert_eq!(names, ["half-empty-cache"]);
    let wrong = text.replace("bottlenecks", "bottleneck");
    assert!(message(&wrong, &[]).starts_with(
        "optimizers: `half-empty-cache`: when: line 1, column 19: there is no `bottleneck`; did you"
    ));
    assert!(message(&text.replace("priority", "prio"), &[]).contains("unknown field `prio`"));
    assert!(message("[[optimizer]]\n", &[]).ends_with("is `optimizers`"));
}

#[test]
fn unknown_keys_name_the_nearest() {
    assert!(
        message("[server]\nlisten_on = \"x\"", &[])
            .ends_with("unknown key `server.listen_on`; the nearest known one is `server.listen`")
    );
    assert!(message("[scrap]\n", &[]).ends_with("the nearest known one is `scrape`"));
    assert_eq!(
        message("", &[("PERFAGENT_SCRAPE__TIMEOUTS", "1s")]),
        "PERFAGENT_SCRAPE__TIMEOUTS: unknown key `scrape.timeouts`; the nearest known one is \
         `scrape.timeout`"
    );
}

#[test]
fn wrong_values_say_where() {
    assert!(message("[server]\nlisten = 8002", &[]).contains("line 2"));
    assert!(message("[server\n", &[]).contains("line 1"));
    assert!(
        message("", &[("PERFAGENT_SERVER__LISTEN", "8002")])
            .starts_with("PERFAGENT_SERVER__LISTEN: ")
    );
    assert!(message("[scrape]\nallow = [\"10.0.0.0/99\"]", &[]).contains("10.0.0.0/99"));
    assert!(message("[server]\ntrusted_proxies = [\"proxy\"]", &[]).contains("no address"));
    assert!(message("[scrape]\ntimeout = \"0s\"", &[]).contains("longer than zero"));
    assert!(message("[server]\nlisten = \"0.0.0.0:8002\"", &[]).contains("--insecure-listen"));
    assert!(
        message(
            "[[engines]]\nname = \"x\"\nprefixes = []\n[engines.quantities]\n",
            &[]
        )
        .contains("prefixes")
    );
    assert!(message("[thresholds]\nstall_seconds = 0.5", &[]).contains("a number from 1 to 300"));
    assert!(message("[thresholds]\nstall_seconds = \"long\"", &[]).contains("line 2"));
    assert!(message("[server]\nmax_calls = 0", &[]).contains("from 1 to 1000000"));
    assert!(message("[server]\nmax_calls = 9223372036854775807", &[]).contains("1000000"));
    assert!(message("[server]\nkeepalive_interval = \"1ns\"", &[]).contains("10ms"));
    assert!(
        message("", &[("PERFAGENT_SERVER_LISTEN", "127.0.0.1:1")])
            .ends_with("two underscores; the nearest known one is PERFAGENT_SERVER__LISTEN")
    );
    let instance = |line: &str| {
        format!(
            "[[instances]]\ninstance_id = \"a\"\nmetrics_url = \"http://127.0.0.1:1/metrics\"\n{line}\n"
        )
    };
    assert!(
        load(&instance(""), &[])
            .and_then(|config| config.check())
            .is_ok()
    );
    assert!(message(&instance("windw = \"1m\""), &[]).contains("unknown field `windw`"));
    assert!(message(&instance("instance_type = \"vlm\""), &[]).contains("the nearest is `vllm`"));
    assert!(message(&(instance("") + &instance("")), &[]).contains("two of this id"));
    let exposed = "[server]\nlisten = \"0.0.0.0:1\"\ninsecure_listen = true\n".to_owned();
    assert!(message(&(exposed + &instance("")), &[]).contains("[scrape] allow"));
    let missing = Config::load(Some(Path::new("/nowhere/perfagent.toml")), []).unwrap_err();
    assert!(
        missing
            .to_string()
            .starts_with("cannot read /nowhere/perfagent.toml")
    );
}
