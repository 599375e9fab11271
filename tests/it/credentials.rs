//! Credentials and TLS as a user meets them: `token`, `config check`, and commands that call an agent.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use perfagent::auth::{Credentials, Digest, Identity, Proof, Role, Token};
use perfagent::config::Config;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::cli::{command, run, terminate, text};
use crate::fake::{FakeEngine, TestAgent, counting_vllm};
use crate::pki::{Authority, Files};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn owner<'a>(credentials: &'a Credentials, token: &str) -> Option<&'a Identity> {
    credentials.by_proof(Proof::of_token(token.as_bytes())?)
}

async fn create(file: &str, name: &str, role: &str) -> String {
    let made = run(&[
        "token", "create", "--name", name, "--role", role, "--file", file,
    ])
    .await;
    assert!(made.status.success(), "{}", text(&made.stderr));
    text(&made.stdout).trim_end().to_owned()
}

#[tokio::test]
async fn tokens_are_made_listed_and_revoked() {
    let files = Files::new();
    let file = &files.text("credentials");
    let token = create(file, "ann", "operator").await;
    assert!(token.starts_with("pa_") && token.len() == 67, "{token}");
    assert_eq!(mode(&files.path("credentials")), 0o600);
    let kept = fs::read_to_string(file).unwrap();
    assert!(!kept.contains(&token[3..]), "the file keeps the token");
    let found = Credentials::parse(&kept).unwrap();
    let ann = owner(&found, &token).unwrap();
    assert_eq!((ann.principal.as_str(), ann.role), ("ann", Role::Operator));

    // a second one, to replace the first while it still works; but not with another role
    let second = create(file, "ann", "operator").await;
    let other = [
        "token", "create", "--name", "ann", "--role", "admin", "--file", file,
    ];
    let refused = run(&other).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("has the role operator"));
    assert!(refused.stdout.is_empty());

    let cert = Authority::new("ours").sign("deployer");
    files.write("client.pem", &cert.cert);
    let added = run(&[
        "token",
        "add-certificate",
        "--name",
        "deployer",
        "--role",
        "viewer",
        "--cert",
        &files.text("client.pem"),
        "--file",
        file,
    ])
    .await;
    assert!(added.status.success(), "{}", text(&added.stderr));
    let listed = text(&run(&["token", "list", "--file", file]).await.stdout);
    let id = Digest::of(token.as_bytes()).short_hex();
    for word in [
        "ann",
        "deployer",
        "certificate",
        &id,
        &cert.digest.short_hex(),
    ] {
        assert!(listed.contains(word), "{word} is missing in\n{listed}");
    }

    let revoked = run(&["token", "revoke", "ann", "--id", &id, "--file", file]).await;
    assert!(text(&revoked.stderr).contains("1 credential of ann"));
    let found = Credentials::parse(&fs::read_to_string(file).unwrap()).unwrap();
    assert!(owner(&found, &token).is_none());
    assert!(owner(&found, &second).is_some());
    assert!(found.by_proof(Proof::Certificate(cert.digest)).is_some());
    let nobody = run(&["token", "revoke", "eve", "--file", file]).await;
    assert_eq!(nobody.status.code(), Some(1));
    let nowhere = run(&["token", "list"]).await;
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(text(&nowhere.stderr).contains("--file"));
}

#[tokio::test]
async fn the_file_keeps_its_mode_its_comments_and_its_link() {
    let files = Files::new();
    let real = files.write("real", "# who may\n\n");
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    symlink(&real, files.path("credentials")).unwrap();
    // ten at once: none loses what another wrote
    let made = (0..10).map(|at| {
        let file = files.text("credentials");
        async move { create(&file, &format!("user-{at}"), "viewer").await }
    });
    let tokens = futures_util::future::join_all(made).await;
    assert!(
        fs::symlink_metadata(files.path("credentials"))
            .unwrap()
            .is_symlink()
    );
    assert_eq!(mode(&real), 0o640);
    let kept = fs::read_to_string(&real).unwrap();
    assert!(kept.starts_with("# who may\n\n"), "{kept}");
    let found = Credentials::parse(&kept).unwrap();
    assert_eq!(found.entries().len(), 10);
    for token in tokens {
        assert!(owner(&found, &token).is_some());
    }
    let left: Vec<_> = fs::read_dir(real.parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 2, "{left:?}");
    // a file that cannot be read is not written over
    fs::write(&real, "nonsense\n").unwrap();
    let file = files.text("credentials");
    let refused = run(&[
        "token", "create", "--name", "x", "--role", "admin", "--file", &file,
    ])
    .await;
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(fs::read_to_string(&real).unwrap(), "nonsense\n");
}

#[tokio::test]
async fn the_configuration_is_checked_with_its_files() {
    let authority = Authority::new("ours");
    let files = Files::new();
    files.write_pair(&authority.sign("localhost"));
    files.write("client-ca.pem", &authority.pem());
    files.token("ann", Role::Viewer);
    let config = format!(
        "[server]\nlisten = \"0.0.0.0:8002\"\ntls_cert = {0:?}\ntls_key = {1:?}\ntls_client_ca = {2:?}\n[auth]\ncredentials_file = {3:?}\n",
        files.text("cert.pem"),
        files.text("key.pem"),
        files.text("client-ca.pem"),
        files.text("credentials"),
    );
    let config = files.write("perfagent.toml", &config);
    let check = async || {
        let checked = run(&["config", "check", "--config", config.to_str().unwrap()]).await;
        (
            checked.status.code(),
            text(&checked.stdout),
            text(&checked.stderr),
        )
    };
    let (code, report, complaint) = check().await;
    assert_eq!((code, complaint.as_str()), (Some(0), ""));
    assert!(
        report.contains("on, client certificates required"),
        "{report}"
    );
    assert!(report.contains("credentials of 1 in"), "{report}");

    fs::set_permissions(files.path("key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    let (code, _, complaint) = check().await;
    assert_eq!(code, Some(0));
    assert!(complaint.contains("warning: every user") && complaint.contains("key.pem"));
    for (name, content, told) in [
        ("credentials", "# none\n", "warning"),
        ("credentials", "ann root sha256:00\n", "line 1: roles are"),
        ("client-ca.pem", "x", "no certificate in it"),
        (
            "key.pem",
            &authority.sign("localhost").key,
            "not the key of the certificate",
        ),
        ("key.pem", "x", "no private key in it"),
        ("cert.pem", "", "no certificate in it"),
    ] {
        let good = fs::read_to_string(files.path(name)).unwrap();
        files.write(name, content);
        let (code, _, complaint) = check().await;
        assert_eq!(
            code,
            Some(if told == "warning" { 0 } else { 2 }),
            "{complaint}"
        );
        assert!(
            complaint.contains(told) && complaint.contains(name),
            "{complaint}"
        );
        files.write(name, &good);
    }
    files.write("cert.pem", "");
    // and an agent does not start with them
    let started = run(&[
        "serve",
        "--config",
        config.to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
    ])
    .await;
    assert_eq!(started.status.code(), Some(2));
    assert!(text(&started.stderr).contains("no certificate in it"));
}

/// `collect` through an agent; its exit code and what it says on standard error.
async fn collect(url: &str, server: &str, more: &[&str], token: &str) -> (Option<i32>, String) {
    let collected = command()
        .args([
            "collect", "--url", url, "--window", "0s", "--server", server,
        ])
        .args(more)
        .env("PERFAGENT_TOKEN", token)
        .output()
        .await
        .unwrap();
    (collected.status.code(), text(&collected.stderr))
}

#[tokio::test]
async fn commands_show_who_calls_and_say_what_is_wrong() {
    let (authority, other) = (Authority::new("ours"), Authority::new("other"));
    let files = Files::new();
    files.write_pair(&authority.sign("localhost"));
    files.write("ca.pem", &authority.pem());
    files.write("other.pem", &other.pem());
    let client = authority.sign("client");
    files.write("client.pem", &client.cert);
    files.write("client.key", &client.key);
    let token = files.token("ann", Role::Operator);
    let viewer = files.token("bob", Role::Viewer);
    files.write("token", &format!("{}\n", token.expose()));
    let protect = |config: &mut Config| {
        files.with_tls(config);
        files.with_credentials(config);
    };
    let agent = TestAgent::with(protect).await;
    let mutual = TestAgent::with(|config| {
        protect(config);
        files.with_client_ca(config, &authority);
    })
    .await;
    let plain = TestAgent::start().await;
    let engine = counting_vllm(|_| 1).await;
    let page = FakeEngine::of("").await;
    let (url, ca, other) = (engine.url(), files.text("ca.pem"), files.text("other.pem"));
    let secure = format!("https://localhost:{}", agent.address.port());
    let both = format!("https://localhost:{}", mutual.address.port());
    let trusting = ["--ca-cert", ca.as_str()];
    let (cert, key) = (files.text("client.pem"), files.text("client.key"));
    let known = [
        "--ca-cert",
        &ca,
        "--client-cert",
        &cert,
        "--client-key",
        &key,
    ];

    let ok = (Some(0), String::new());
    assert_eq!(collect(&url, &secure, &trusting, token.expose()).await, ok);
    assert_eq!(collect(&url, &both, &known, token.expose()).await, ok);
    let token_file = files.text("token");
    let from_file = ["--ca-cert", &ca, "--token-file", &token_file];
    assert_eq!(collect(&url, &secure, &from_file, "").await, ok);
    // with certificates to trust, HOST:PORT means https
    let bare = secure.trim_start_matches("https://");
    assert_eq!(collect(&url, bare, &trusting, token.expose()).await, ok);

    let clear = format!("http://{bare}");
    let wrong_scheme = format!("https://localhost:{}", plain.address.port());
    let no_agent = page.address.to_string();
    for (server, more, token, code, told) in [
        (&secure, &trusting[..], "", 1, "set PERFAGENT_TOKEN"),
        (
            &secure,
            &trusting,
            "pa_unknown",
            1,
            "does not know this token",
        ),
        (&secure, &trusting, viewer.expose(), 1, "operator or admin"),
        (&secure, &["--ca-cert", &other], "", 1, "with --ca-cert"),
        (&both, &trusting, "", 1, "give --client-cert"),
        (&clear, &[], "", 1, "https:// before it"),
        (&wrong_scheme, &trusting, "", 1, "http:// before it"),
        (&no_agent, &[], "", 1, "no agent"),
        (&"127.0.0.1:1".to_owned(), &[], "", 1, "perfagent serve"),
        (&"localhost".to_owned(), &[], "", 2, "no port"),
        (
            &"ftp://localhost:1".to_owned(),
            &[],
            "",
            2,
            "must begin with",
        ),
        (
            &clear,
            &["--client-cert", &cert, "--client-key", &key],
            "",
            2,
            "needs https",
        ),
        (&secure, &["--ca-cert", "/nowhere"], "", 2, "/nowhere"),
        (&secure, &trusting, "a\u{1}b", 2, "no token has"),
    ] {
        let (exit, complaint) = collect(&url, server, more, token).await;
        assert_eq!(exit, Some(code), "{server} {more:?}: {complaint}");
        assert!(
            complaint.contains(told),
            "{told} is missing in: {complaint}"
        );
        assert!(
            token.is_empty() || !complaint.contains(token),
            "{complaint}"
        );
    }
    // the default is the variable, then this machine; measuring by URL needs neither
    let alone = command()
        .args(["collect", "--url", &url, "--window", "0s"])
        .env("PERFAGENT_SERVER", "127.0.0.1:1")
        .output()
        .await
        .unwrap();
    assert!(alone.status.success(), "{}", text(&alone.stderr));
}

#[tokio::test]
async fn logs_name_the_caller_and_show_no_secret() {
    let authority = Authority::new("ours");
    let files = Files::new();
    let pair = authority.sign("localhost");
    files.write_pair(&pair);
    files.write("ca.pem", &authority.pem());
    let known = files.token("ann-the-operator", Role::Operator);
    let viewer = files.token("bob-the-viewer", Role::Viewer);
    let unknown = Token::generate().unwrap();
    let mut child = command()
        .args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json"])
        .args([
            "--tls-cert",
            &files.text("cert.pem"),
            "--tls-key",
            &files.text("key.pem"),
        ])
        .args(["--credentials-file", &files.text("credentials")])
        // everything that anybody has to say
        .env("RUST_LOG", "trace")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = Arc::new(Mutex::new(String::new()));
    // read all the while: nobody may be held up by a full pipe
    let reader = tokio::spawn({
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = log.clone();
        async move {
            while let Some(line) = lines.next_line().await.unwrap() {
                *log.lock().unwrap() += &format!("{line}\n");
            }
        }
    });
    let logged = async |text: &str, times: usize| {
        let waiting = async {
            while log.lock().unwrap().matches(text).count() < times {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(30), waiting).await;
        waited.unwrap_or_else(|_| panic!("{text:?} is not logged {times} times"));
    };
    logged("listening on 127.0.0.1:", 1).await;
    let port = {
        let log = log.lock().unwrap();
        let (_, rest) = log.split_once("listening on 127.0.0.1:").unwrap();
        rest.split('"').next().unwrap().to_owned()
    };
    let engine = counting_vllm(|_| 1).await;
    let server = format!("https://localhost:{port}");
    let ca = files.text("ca.pem");
    let trusting = ["--ca-cert", ca.as_str()];
    for (token, code) in [(&known, 0), (&viewer, 1), (&unknown, 1)] {
        let (exit, complaint) = collect(&engine.url(), &server, &trusting, token.expose()).await;
        assert_eq!(exit, Some(code), "{complaint}");
        *log.lock().unwrap() += &complaint;
    }
    // while it runs: a line with a secret where none should be, and a key that is none
    files.write("credentials", &format!("ann operator {}\n", known.expose()));
    files.write("key.pem", &pair.key.replace("PRIVATE", "PRIVAT"));
    logged("the last that could be read stays in force", 2).await;
    let (exit, _) = collect(&engine.url(), &server, &trusting, known.expose()).await;
    assert_eq!(exit, Some(0));
    terminate(&child);
    assert!(child.wait().await.unwrap().success());
    reader.await.unwrap();
    let log = log.lock().unwrap();
    for principal in ["ann-the-operator", "bob-the-viewer"] {
        let call = format!("\"principal\":\"{principal}\"");
        assert!(log.contains(&call), "{principal} is not in the log");
    }
    assert!(
        log.contains("rustls") && log.contains("h2"),
        "not everything is logged"
    );
    let key_line = pair.key.lines().nth(1).unwrap();
    let mut secrets = vec![("the key".to_owned(), key_line.to_owned())];
    for (name, token) in [
        ("known", &known),
        ("viewer", &viewer),
        ("unknown", &unknown),
    ] {
        secrets.push((format!("token {name}"), token.expose()[3..].to_owned()));
        secrets.push((format!("digest of {name}"), token.digest().hex()));
    }
    for (name, secret) in secrets {
        if let Some(at) = log.find(&secret) {
            panic!("{name} is in the log: {}", &log[at.saturating_sub(300)..at]);
        }
    }
}

#[tokio::test]
async fn an_agent_that_is_open_to_others_says_so() {
    let listen = ["serve", "--listen", "0.0.0.0:0"];
    let refused = run(&listen).await;
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("--insecure-listen"));
    let authority = Authority::new("ours");
    let files = Files::new();
    files.write_pair(&authority.sign("localhost"));
    files.token("ann", Role::Viewer);
    let (cert, key) = (files.text("cert.pem"), files.text("key.pem"));
    let tls = ["--tls-cert", cert.as_str(), "--tls-key", key.as_str()];
    let credentials = files.text("credentials");
    let known = ["--credentials-file", credentials.as_str()];
    const CLEAR: &str = "are not encrypted";
    const OPEN: &str = "may do everything";
    for (more, said, unsaid) in [
        (&["--insecure-listen"][..], vec![CLEAR, OPEN], vec![]),
        (
            &[&["--insecure-listen"], &known[..]].concat(),
            vec![CLEAR],
            vec![OPEN],
        ),
        (&tls, vec![OPEN], vec![CLEAR]),
        (&[&tls[..], &known].concat(), vec![], vec![CLEAR, OPEN]),
    ] {
        let mut child = command()
            .args(listen)
            .args(more)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut log = String::new();
        while !log.contains("listening on") {
            log += &lines.next_line().await.unwrap().expect("it listens");
        }
        assert!(
            said.iter().all(|text| log.contains(text)),
            "{more:?}: {log}"
        );
        assert!(
            !unsaid.iter().any(|text| log.contains(text)),
            "{more:?}: {log}"
        );
    }
}
