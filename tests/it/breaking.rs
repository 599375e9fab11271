//! A change that breaks who uses the contract is found, whatever it is, and where nothing can be compared that is said.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;

use tempfile::TempDir;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A tree with our protos and the check, and a history of its own.
struct Tree(TempDir);

impl Tree {
    /// With one commit.
    fn committed() -> Self {
        let tree = Self::bare();
        tree.git(&["init", "--quiet", "--initial-branch=main"]);
        tree.commit();
        tree
    }

    /// Without history.
    fn bare() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        copy(&Path::new(ROOT).join("proto"), &tree.path("proto"));
        fs::create_dir(tree.path("tests")).unwrap();
        for file in ["breaking", "python", "requirements.txt"] {
            let from = Path::new(ROOT).join("tests").join(file);
            fs::copy(from, tree.path("tests").join(file)).unwrap();
        }
        tree
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn git(&self, arguments: &[&str]) -> String {
        let output = isolated("git", self.0.path())
            .args(["-c", "user.name=x", "-c", "user.email=x@example.com"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn commit(&self) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", "x"]);
    }

    fn commit_empty(&self) {
        self.git(&["commit", "--quiet", "--allow-empty", "--message", "x"]);
    }

    /// Replaces what must stand there once.
    fn replace(&self, file: &str, from: &str, to: &str) {
        let path = self.path("proto/perfagent/v1").join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.matches(from).count(), 1, "`{from}` in {file}");
        fs::write(&path, text.replace(from, to)).unwrap();
    }

    fn check(&self, arguments: &[&str]) -> Output {
        isolated(self.path("tests/breaking"), self.0.path())
            .args(arguments)
            .output()
            .unwrap()
    }

    fn must(&self, what: &str, breaks: bool) {
        let output = self.check(&[]);
        let code = output.status.code().unwrap();
        assert_eq!(code, i32::from(breaks), "{what}: {}", told(&output));
        let said = told(&output);
        assert_eq!(said.contains("breaks who uses"), breaks, "{what}: {said}");
        assert_eq!(said.contains("breaks nothing"), !breaks, "{what}: {said}");
    }
}

/// Without what a hook of git, or a user's configuration, would have it see.
fn isolated(program: impl AsRef<std::ffi::OsStr>, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CEILING_DIRECTORIES", std::env::temp_dir());
    for name in ["GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE", "GIT_PREFIX"] {
        command.env_remove(name);
    }
    command
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => {
                fs::copy(entry.path(), target).unwrap();
            }
        }
    }
}

fn told(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(both).unwrap()
}

/// What is done to a file: its name, what stands there, what is put there.
type Change = (&'static str, &'static str, &'static str);

/// Changes that break somebody.
const BREAKING: &[(&str, &[Change])] = &[
    (
        "a field is deleted",
        &[("agent.proto", "  string version = 1;\n", "")],
    ),
    (
        "a field is deleted and its number and name reserved",
        &[(
            "agent.proto",
            "  string version = 1;\n",
            "  reserved 1;\n  reserved \"version\";\n",
        )],
    ),
    (
        "a field has another type",
        &[("agent.proto", "uint32 max_labels", "uint64 max_labels")],
    ),
    (
        "a field has another name, which JSON shows",
        &[("agent.proto", "uint32 max_labels", "uint32 most_labels")],
    ),
    (
        "a field has another number",
        &[("agent.proto", "max_labels = 11", "max_labels = 12")],
    ),
    (
        "a field is of another message",
        &[(
            "agent.proto",
            "Limits limits = 4",
            "EngineCapability limits = 4",
        )],
    ),
    (
        "a single field becomes a list",
        &[(
            "agent.proto",
            "  string title = 2",
            "  repeated string title = 2",
        )],
    ),
    (
        "a list becomes a single field",
        &[("agent.proto", "repeated string settings", "string settings")],
    ),
    (
        "a field loses its presence",
        &[(
            "comparison.proto",
            "optional double p_value",
            "double p_value",
        )],
    ),
    (
        "a field leaves its oneof",
        &[(
            "metrics.proto",
            "    // Why there is none.\n    CollectFailure failure = 4;\n  }\n",
            "  }\n  // Why there is none.\n  CollectFailure failure = 4;\n",
        )],
    ),
    (
        "a value of a map has another type",
        &[(
            "metrics.proto",
            "map<string, string> labels",
            "map<string, bytes> labels",
        )],
    ),
    (
        "a value of an enum is removed",
        &[("comparison.proto", "  DIRECTION_HIGHER = 2;\n", "")],
    ),
    (
        "a value of an enum has another name",
        &[(
            "comparison.proto",
            "DIRECTION_HIGHER = 2",
            "DIRECTION_MORE = 2",
        )],
    ),
    (
        "values of an enum change numbers",
        &[(
            "comparison.proto",
            "DIRECTION_LOWER = 1",
            "DIRECTION_LOWER = 3",
        )],
    ),
    (
        "an RPC has another name",
        &[("metrics.proto", "rpc CompareMetrics(", "rpc HoldMetrics(")],
    ),
    (
        "an RPC asks for another message",
        &[(
            "agent.proto",
            "rpc GetAgentInfo(GetAgentInfoRequest)",
            "rpc GetAgentInfo(GetCapabilitiesRequest)",
        )],
    ),
    (
        "an RPC answers with another message",
        &[(
            "agent.proto",
            "returns (GetAgentInfoResponse)",
            "returns (GetCapabilitiesResponse)",
        )],
    ),
    (
        "a stream becomes a single answer",
        &[(
            "metrics.proto",
            "returns (stream WatchMetricsResponse)",
            "returns (WatchMetricsResponse)",
        )],
    ),
    (
        "a service has another name",
        &[("agent.proto", "service AgentService", "service InfoService")],
    ),
    (
        "a message has another name",
        &[
            ("agent.proto", "message Limits", "message Bounds"),
            ("agent.proto", "  Limits limits", "  Bounds limits"),
        ],
    ),
    (
        "a file has another package",
        &[(
            "agent.proto",
            "package perfagent.v1;",
            "package perfagent.v2;",
        )],
    ),
];

/// Changes that break nobody.
const HARMLESS: &[(&str, &[Change])] = &[
    (
        "a comment",
        &[("agent.proto", "// The agent itself.", "// The agent.")],
    ),
    (
        "a field more",
        &[(
            "agent.proto",
            "  string version = 1;\n",
            "  string version = 1;\n  // More.\n  optional double more_seconds = 500;\n",
        )],
    ),
    (
        "a value more",
        &[(
            "comparison.proto",
            "  DIRECTION_HIGHER = 2;\n",
            "  DIRECTION_HIGHER = 2;\n  // Neither.\n  DIRECTION_NEITHER = 3;\n",
        )],
    ),
    (
        "an RPC more",
        &[(
            "agent.proto",
            "  // The engines that can be",
            "  // More.\n  rpc More(GetAgentInfoRequest) returns (GetAgentInfoResponse);\n\n  // The engines that can be",
        )],
    ),
];

#[test]
fn whatever_breaks_is_found_and_what_adds_is_let_through() {
    let cases = BREAKING
        .iter()
        .map(|(what, changes)| (*what, *changes, true));
    let harmless = HARMLESS
        .iter()
        .map(|(what, changes)| (*what, *changes, false));
    let cases = Mutex::new(cases.chain(harmless));
    let work = || {
        let tree = Tree::committed();
        loop {
            let Some((what, changes, breaks)) = cases.lock().unwrap().next() else {
                return;
            };
            for (file, from, to) in changes {
                tree.replace(file, from, to);
            }
            tree.must(what, breaks);
            tree.git(&["checkout", "--quiet", "HEAD", "--", "proto"]);
        }
    };
    std::thread::scope(|scope| {
        for worker in [scope.spawn(work), scope.spawn(work)] {
            worker.join().unwrap();
        }
    });
}

#[test]
fn files_do_not_go_or_move_and_the_rules_are_not_taken_away() {
    let tree = Tree::committed();
    let reset = || {
        tree.git(&["reset", "--quiet", "--hard"]);
        tree.git(&["clean", "--quiet", "--force", "-d"]);
    };
    // nobody needs it but those who use it
    let importing = "import \"perfagent/v1/comparison.proto\";\n";
    let answer = "  // Each quantity that at least one of them has, throughput first.\n  repeated Comparison comparisons = 1;\n  \
                  // What else differs, so that a difference need not come from what was changed.\n  \
                  repeated Caution cautions = 2;\n";
    tree.replace("metrics.proto", importing, "");
    tree.replace("metrics.proto", answer, "");
    fs::remove_file(tree.path("proto/perfagent/v1/comparison.proto")).unwrap();
    tree.must("a file is deleted", true);
    reset();
    tree.replace(
        "metrics.proto",
        importing,
        "import \"perfagent/v1/compared.proto\";\n",
    );
    let directory = tree.path("proto/perfagent/v1");
    fs::rename(
        directory.join("comparison.proto"),
        directory.join("compared.proto"),
    )
    .unwrap();
    tree.must("a file has another name", true);
    reset();
    fs::remove_dir_all(tree.path("proto/perfagent")).unwrap();
    let output = tree.check(&[]);
    assert_eq!(output.status.code(), Some(1), "all is deleted");
    assert!(told(&output).contains("no .proto files"), "{output:?}");
    reset();
    fs::remove_file(tree.path("proto/buf.yaml")).unwrap();
    tree.replace("agent.proto", "max_labels = 11", "max_labels = 12");
    tree.must("the rules are deleted too", true);
}

#[test]
fn what_is_compared_with_is_the_last_release_or_what_came_before() {
    let tree = Tree::committed();
    let rename = |from: &str, to: &str| {
        let (from, to) = (format!("uint32 {from} ="), format!("uint32 {to} ="));
        tree.replace("agent.proto", &from, &to);
    };
    rename("max_labels", "most_labels");
    tree.must("before it is committed", true);
    tree.commit();
    tree.must("when it is committed", true);
    tree.commit_empty();
    tree.must("after it was let through", false);
    // on a branch of several commits, where they are to land
    tree.git(&["update-ref", "refs/remotes/origin/main", "HEAD~2"]);
    tree.git(&[
        "symbolic-ref",
        "refs/remotes/origin/HEAD",
        "refs/remotes/origin/main",
    ]);
    tree.must("while it has not landed", true);
    assert_eq!(tree.check(&["HEAD^"]).status.code(), Some(0));
    assert_eq!(tree.check(&["HEAD~2"]).status.code(), Some(1));
    assert_eq!(tree.check(&["nowhere"]).status.code(), Some(2));
    tree.git(&["symbolic-ref", "--delete", "refs/remotes/origin/HEAD"]);
    // a release is what counts, however long ago
    tree.git(&["tag", "v1.0.0", "HEAD~2"]);
    tree.git(&["tag", "vendored", "HEAD"]);
    tree.must("after the release", true);
    rename("most_labels", "max_labels");
    tree.must("it is taken back", false);
    tree.commit();
    tree.git(&["tag", "v1.1.0"]);
    rename("max_labels", "most_labels");
    tree.commit();
    tree.git(&["tag", "v1.2.0"]);
    tree.must("the release itself is compared with the one before", true);
}

#[test]
fn where_there_is_nothing_to_compare_with_that_is_said() {
    let unchecked = |tree: &Tree, why: &str| {
        let output = tree.check(&[]);
        let text = told(&output);
        assert!(output.status.success(), "{text}");
        assert!(
            text.contains("NOT CHECKED") && text.contains(why),
            "{why}: {text}"
        );
        assert!(!text.contains("breaks nothing"), "{text}");
    };
    let tree = Tree::bare();
    unchecked(&tree, "not a git repository");
    tree.git(&["init", "--quiet"]);
    unchecked(&tree, "nothing is committed");
    tree.commit();
    unchecked(&tree, "no parent");
    tree.commit_empty();
    let shallow = Tree(tempfile::tempdir().unwrap());
    let from = format!("file://{}", tree.0.path().display());
    shallow.git(&["clone", "--quiet", "--depth=1", &from, "."]);
    unchecked(&shallow, "shallow clone");
    // what is not committed is compared there too
    shallow.replace("agent.proto", "max_labels = 11", "max_labels = 12");
    shallow.must("in a shallow clone", true);
    tree.git(&["rm", "--quiet", "-r", "--cached", "proto"]);
    tree.git(&["commit", "--quiet", "--message", "x"]);
    unchecked(&tree, "has no proto/");
}
