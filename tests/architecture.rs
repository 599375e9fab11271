//! The rules of the tree: who may use whom, and how long a file may be.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};

/// A source file: path below `src/`, and its text without comments.
struct Source {
    path: String,
    code: String,
    lines: usize,
}

fn sources() -> Vec<Source> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    assert!(paths.len() > 20, "sources are missing");
    paths
        .iter()
        .map(|path| {
            let text = fs::read_to_string(path).unwrap();
            let code: Vec<&str> = text
                .lines()
                .map(|line| line.split("//").next().unwrap_or(""))
                .collect();
            Source {
                path: path
                    .strip_prefix(&root)
                    .unwrap()
                    .to_string_lossy()
                    .into_owned(),
                code: code.join("\n"),
                lines: text.lines().count(),
            }
        })
        .collect()
}

fn uses(code: &str, name: &str) -> bool {
    code.match_indices(&format!("{name}::"))
        .any(|(at, _)| !code[..at].ends_with(|char: char| char.is_alphanumeric() || char == '_'))
}

fn assert_only_in(name: &str, allowed: &[&str]) {
    for source in sources() {
        let may = allowed.iter().any(|dir| source.path.starts_with(dir));
        assert!(
            may || !uses(&source.code, name),
            "{name} is used in {}",
            source.path
        );
    }
}

#[test]
fn protobuf_and_transport_stay_at_the_edge() {
    for name in [
        "pb",
        "prost",
        "prost_types",
        "prost_reflect",
        "tonic",
        "tonic_types",
        "axum",
    ] {
        assert_only_in(name, &["edge/"]);
    }
    assert_only_in("reqwest", &["scrape/", "edge/"]);
    assert_only_in("sqlx", &["store/"]);
    assert_only_in("clap", &["edge/", "telemetry.rs"]);
}

#[test]
fn the_core_is_pure() {
    for source in sources() {
        let pure = [
            "units",
            "exposition",
            "engine",
            "measure",
            "analysis",
            "model",
            "optimization",
            "simulator",
            "workflow",
            "webhook",
        ]
        .iter()
        .any(|module| source.path.starts_with(module));
        if !pure {
            continue;
        }
        for name in [
            "tokio",
            "Instant",
            "SystemTime",
            "std::fs",
            "std::net",
            "std::env",
        ] {
            assert!(
                !uses(&source.code, name),
                "{name} is used in {}",
                source.path
            );
        }
    }
}

#[test]
fn modules_use_only_those_above_them() {
    let lib = sources()
        .into_iter()
        .find(|source| source.path == "lib.rs")
        .unwrap();
    let order: Vec<&str> = lib
        .code
        .lines()
        .filter_map(|line| {
            let line = line.strip_prefix("pub ").unwrap_or(line);
            line.strip_prefix("mod ")?.strip_suffix(';')
        })
        .collect();
    assert!(order.len() >= 9, "{order:?}");
    let place = |module: &str| order.iter().position(|known| *known == module);
    for source in sources() {
        let module = source.path.split(['/', '.']).next().unwrap();
        let Some(own) = place(module) else { continue };
        for (at, _) in source.code.match_indices("crate::") {
            let used = source.code[at + 7..]
                .split(|char: char| !(char.is_alphanumeric() || char == '_'))
                .next()
                .unwrap();
            let used_at = place(used).unwrap_or_else(|| panic!("{}: crate::{used}", source.path));
            assert!(
                used_at <= own,
                "{} uses {used}, which lib.rs lists below it",
                source.path
            );
        }
    }
}

#[test]
fn files_hold_one_idea() {
    for source in sources() {
        assert!(
            source.lines <= 500,
            "{} has {} lines",
            source.path,
            source.lines
        );
    }
}
