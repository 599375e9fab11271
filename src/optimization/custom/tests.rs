//! Optimizers of the operator's own, from the file to the proposal.

use crate::analysis::{Cause, Treatment};
use crate::engine::Quantity as Q;
use crate::measure::NoteCode;
use crate::optimization::lever::example::Case;
use crate::optimization::{Expectation, ModelChange};

use super::*;

const EXAMPLE: &str = include_str!("../../../tests/fixtures/config/optimizers.toml");

#[derive(serde::Deserialize)]
struct File {
    optimizers: Vec<OptimizerEntry>,
}

fn read(text: &str) -> Result<Vec<CustomOptimizer>, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    CustomOptimizer::all(&file.optimizers, &["vllm", "sglang", "tgi"])
        .map_err(|error| error.to_string())
}

fn waiting(version: &str) -> Case {
    Case::new("vllm", version, &[Cause::SequenceCap])
        .set("max_num_seqs", "32")
        .set("max_num_batched_tokens", "2048")
        .measured()
        .gauge(Q::KvCacheUsage, 0.1, 0.2)
        .value("requests_finished_increase", 100.0)
}

#[test]
fn the_example_of_the_readme_proposes_with_numbers() {
    let optimizers = read(EXAMPLE).unwrap();
    let case = waiting("0.33.0");
    let (proposals, left_out) = custom_proposals(&optimizers, &case.situation());
    assert_eq!(left_out, []);
    let [one] = &proposals[..] else {
        panic!("{proposals:?}");
    };
    assert_eq!(
        (one.optimizer.as_str(), one.kind, one.priority),
        ("half-empty-cache", Some(Treatment::Batching), Priority::Low)
    );
    let changes: Vec<_> = one
        .proposal
        .changes
        .iter()
        .map(|change| {
            (
                change.flag.as_str(),
                change.from.as_deref(),
                change.to.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        changes,
        [
            ("--max-num-batched-tokens", Some("2048"), Some("4096")),
            ("--max-num-seqs", Some("32"), Some("64"))
        ]
    );
    let modelled = vec![ModelChange::TokenBudget(4_096), ModelChange::MaxNumSeqs(64)];
    assert_eq!(one.proposal.expectation, Expectation::Modelled(modelled));
    assert_eq!(one.proposal.treats, [Cause::SequenceCap]);
    // not for other engines, and not where the condition is false
    let other = Case::new("sglang", "0.5.23", &[Cause::SequenceCap]);
    assert_eq!(
        custom_proposals(&optimizers, &other.situation()),
        (Vec::new(), Vec::new())
    );
    let fuller = waiting("0.33.0")
        .gauge(Q::RequestsRunning, 1.0, 1.0)
        .limited(|_| {});
    assert_eq!(
        custom_proposals(&optimizers, &fuller.situation()).0.len(),
        1
    );
}

#[test]
fn the_readme_shows_the_example() {
    let readme = include_str!("../../../README.md");
    assert!(readme.contains(EXAMPLE.trim_end()));
}

fn row(lines: &str) -> String {
    format!("[[optimizers]]\nname = \"own\"\ntitle = \"T\"\nreason = \"R.\"\n{lines}\n")
}

fn left_out(lines: &str, case: &Case) -> String {
    let optimizers = read(&row(lines)).unwrap();
    let (proposals, left_out) = custom_proposals(&optimizers, &case.situation());
    assert_eq!(proposals, [], "{lines}");
    left_out.into_iter().map(|one| one.reason).collect()
}

#[test]
fn what_cannot_be_told_or_done_is_left_out_with_the_reason() {
    let case = waiting("0.23.0");
    let changes = "changes = { max-num-seqs = 64 }";
    let missing = format!("when = \"metrics.preemptions_increase > 0\"\n{changes}");
    assert!(left_out(&missing, &case).contains("preemptions_increase, which is not known here"));
    let number = format!("when = \"1\"\n{changes}");
    assert!(left_out(&number, &case).contains("neither true nor false"));
    let always = |changes: &str| format!("when = \"true\"\nchanges = {{ {changes} }}");
    assert!(left_out(&always("prefill-schedule-interval = 2"), &case).contains("came with 0.24.0"));
    assert!(left_out(&always("max-num-seq = 64"), &case).contains("has no setting max_num_seq"));
    assert!(left_out(&always("max-num-seqs = 32"), &case).contains("in force already"));
    assert!(
        left_out(&always("max-num-seqs = { cel = \"settings.none\" }"), &case)
            .contains("asks for none")
    );
    assert!(
        left_out(&always("max-num-seqs = { cel = \"1 / 0\" }"), &case).contains("gives no number")
    );
    let full = waiting("0.23.0").value("preemptions_increase", 9.0);
    assert!(left_out(&always("max-num-seqs = 64"), &full).contains("would only be preempted"));
    let restarted = waiting("0.23.0").noted(NoteCode::Restarted);
    assert!(left_out(&always("max-num-seqs = 64"), &restarted).contains("restarted"));
    let fixed = waiting("0.23.0").limited(|limits| limits.no_restart = true);
    assert!(left_out(&always("max-num-seqs = 64"), &fixed).contains("needs a restart"));
    let gpus = waiting("0.23.0").limited(|limits| limits.fixed_gpu_count = true);
    assert!(left_out(&always("tensor-parallel-size = 2"), &gpus).contains("number of GPUs"));
    let same = waiting("0.23.0").limited(|limits| limits.no_answer_change = true);
    assert!(
        left_out(&always("kv-cache-dtype = \"fp8\""), &same).contains("answers may become others")
    );
    assert_eq!(left_out(&format!("when = \"false\"\n{changes}"), &case), "");
}

#[test]
fn what_is_changed_while_it_serves_needs_no_restart_and_may_change_answers() {
    let lines = "when = \"true\"\nchanges = { speculative-accept-threshold-single = 0.9 }";
    let served = || {
        Case::new("sglang", "0.5.23", &[Cause::SequenceCap])
            .set("speculative_accept_threshold_single", "1")
            .measured()
            .value("requests_finished_increase", 100.0)
    };
    let case = served().limited(|limits| limits.no_restart = true);
    let optimizers = read(&row(lines)).unwrap();
    let (proposals, left) = custom_proposals(&optimizers, &case.situation());
    let [one] = proposals.as_slice() else {
        panic!("{left:?}");
    };
    let one = &one.proposal;
    assert!(!one.needs_restart && one.changes_answers, "{one:?}");
    assert_eq!(
        one.undo,
        "Set --speculative-accept-threshold-single back to 1."
    );
    assert!(
        !one.prerequisites
            .iter()
            .any(|text| text.contains("restart"))
    );
    let same = served().limited(|limits| limits.no_answer_change = true);
    assert!(left_out(lines, &same).contains("answers may become others"));
}

#[test]
fn wrong_entries_are_named_with_their_place() {
    let changes = "changes = { max-num-seqs = 64 }";
    for (lines, why) in [
        (
            format!("when = \"replica > 1\"\n{changes}"),
            "`own`: when: line 1, column 1: there is no `replica`; did you mean `replicas`?",
        ),
        (
            "when = \"true\"\nchanges = { a = { cel = \"1 +\" } }".to_owned(),
            "`own`: changes.a: line 1, column ",
        ),
        (
            format!("when = \"true\"\nwhat = 1\n{changes}"),
            "unknown field `what`",
        ),
        (
            "when = \"true\"\nchanges = { a = { cal = \"1\" } }".to_owned(),
            "expected a number, a text, true or false, or { cel",
        ),
        (
            "when = \"true\"\nchanges = {}".to_owned(),
            "from 1 to 16 settings",
        ),
        (
            format!("when = \"true\"\nkind = \"BATCH\"\n{changes}"),
            "kind: there is no `BATCH`; did you mean `BATCHING`?",
        ),
        (
            format!("when = \"true\"\nengines = [\"vlm\"]\n{changes}"),
            "did you mean `vllm`?",
        ),
        (
            format!("when = \"true\"\ntreats = [\"KV\"]\n{changes}"),
            "treats: there is no `KV`",
        ),
    ] {
        let error = read(&row(&lines)).unwrap_err();
        assert!(error.contains(why), "{lines}: {error}");
    }
    let twice = row(&format!("when = \"true\"\n{changes}")).repeat(2);
    assert!(read(&twice).unwrap_err().contains("two of this name"));
    let many: String = (0..65)
        .map(|at| row(&format!("when = \"true\"\n{changes}")).replace("own", &format!("o{at}")))
        .collect();
    assert!(read(&many).unwrap_err().contains("at most 64"));
}
