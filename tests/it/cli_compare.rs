//! `perfagent compare` as a user types it.

use serde_json::Value;

use crate::cli::{golden, run, text};

fn file(name: &str) -> String {
    format!(
        "{}/tests/fixtures/measurements/{name}",
        env!("CARGO_MANIFEST_DIR")
    )
}

/// To nine digits: logarithms differ in their last ones between mathematical libraries.
pub fn rounded(json: &mut Value) {
    match json {
        Value::Number(number) if number.is_f64() => {
            let short = format!("{:.8e}", number.as_f64().unwrap());
            *json = short.parse::<f64>().unwrap().into();
        }
        Value::Array(items) => items.iter_mut().for_each(rounded),
        Value::Object(entries) => entries.values_mut().for_each(rounded),
        _ => {}
    }
}

#[tokio::test]
async fn two_files_are_compared_as_a_table_and_as_json() {
    let (before, after) = (file("before.json"), file("after.json"));
    let table = run(&["compare", &before, &after]).await;
    assert!(table.status.success(), "{}", text(&table.stderr));
    golden("compare.txt", &text(&table.stdout));
    let json = run(&["compare", &before, &after, "--output", "json"]).await;
    let mut answer: Value = serde_json::from_slice(&json.stdout).unwrap();
    rounded(&mut answer);
    golden("compare.json", &format!("{answer:#}\n"));

    let comparisons = answer["comparisons"].as_array().unwrap();
    let found = |name: &str| comparisons.iter().find(|one| one["name"] == name).unwrap();
    // the second recording has longer answers, and room for few of them at once
    let decode = found("inter_token_latency_seconds");
    assert_eq!(decode["verdict"], "REGRESSED");
    assert_eq!(decode["better"], "LOWER");
    assert_eq!(found("queue_time_seconds")["verdict"], "IMPROVED");
    let throughput = found("generation_tokens_per_second");
    assert_eq!(throughput["verdict"], "NOT_COMPARABLE");
    assert_eq!(throughput["reason"], "FOLLOWS_LOAD");
    let cautions = answer["cautions"].as_array().unwrap();
    assert!(cautions.iter().any(|one| one["code"] == "LOAD_DIFFERS"));
}

#[tokio::test]
async fn a_file_does_not_differ_from_itself() {
    let before = file("before.json");
    let shown = run(&["compare", &before, &before]).await;
    let table = text(&shown.stdout);
    assert!(table.contains("NO_DIFFERENCE_SHOWN"), "{table}");
    for verdict in ["IMPROVED", "REGRESSED", "_DIFFERS"] {
        assert!(!table.contains(verdict), "{table}");
    }
}

#[tokio::test]
async fn files_that_are_none_are_named_with_what_is_wrong() {
    let before = file("before.json");
    let broken = |change: &dyn Fn(&mut Value)| {
        let mut json: Value =
            serde_json::from_str(&std::fs::read_to_string(&before).unwrap()).unwrap();
        change(&mut json["measurement"]);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), json.to_string()).unwrap();
        file
    };
    let no_json = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(no_json.path(), "vllm:num_requests_running 1\n").unwrap();
    let unknown = broken(&|json| json["windw"] = Value::Null);
    let incomplete = broken(&|json| {
        json["figures"]["quantities"][3]
            .as_object_mut()
            .unwrap()
            .remove("value");
    });
    for (path, told) in [
        ("/nowhere.json", "/nowhere.json: No such file"),
        (no_json.path().to_str().unwrap(), "is no JSON"),
        (
            unknown.path().to_str().unwrap(),
            "windw: no such field in Measurement",
        ),
        (
            incomplete.path().to_str().unwrap(),
            "figures.quantities[3].bound: must be set",
        ),
    ] {
        for arguments in [["compare", path, &before], ["compare", &before, path]] {
            let shown = run(&arguments).await;
            let complaint = text(&shown.stderr);
            assert_eq!(shown.status.code(), Some(2), "{complaint}");
            assert!(complaint.contains(path), "{complaint}");
            assert!(complaint.contains(told), "{complaint}");
            assert_eq!(text(&shown.stdout), "");
        }
    }
    let one = run(&["compare", &before]).await;
    assert_eq!(one.status.code(), Some(2));
}

#[tokio::test]
async fn what_collect_writes_can_be_compared_at_once() {
    let engine = crate::fake::counting_vllm(|count| 100 * count as u64).await;
    let url = engine.url();
    let mut files = Vec::new();
    for window in ["300ms", "0s"] {
        let collect = ["collect", "--url", &url, "--window", window, "-o", "json"];
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), run(&collect).await.stdout).unwrap();
        files.push(file);
    }
    let paths: Vec<&str> = files
        .iter()
        .map(|file| file.path().to_str().unwrap())
        .collect();
    let shown = run(&["compare", paths[0], paths[0], "-o", "json"]).await;
    let answer: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let found = &answer["comparisons"][0];
    assert_eq!(found["name"], "generation_tokens_per_second");
    assert_eq!(
        (&found["ratio"], &found["verdict"]),
        (&1.0.into(), &"INCONCLUSIVE".into())
    );
    assert_eq!(found["baseline_intervals"], 1);
    let shown = run(&["compare", paths[0], paths[1], "-o", "json"]).await;
    let answer: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(answer["comparisons"][0]["reason"], "NO_WINDOW");
}

#[tokio::test]
async fn help_teaches() {
    let help = text(&run(&["compare", "--help"]).await.stdout);
    for word in [
        "BEFORE.json",
        "Examples:",
        "perfagent compare before.json after.json",
        "Exit codes:",
        "at least 5 intervals",
    ] {
        assert!(help.contains(word), "{word} is missing in\n{help}");
    }
    let help = text(&run(&["--help"]).await.stdout);
    assert!(help.contains("compare"), "{help}");
}
