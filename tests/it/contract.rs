//! What the protos say of themselves: units, presence, errors, retries, deadlines, paths.

use std::collections::BTreeSet;

use perfagent::agent::Reason;
use perfagent::edge::grpc::DESCRIPTORS;
use prost_reflect::{
    DescriptorPool, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor, MethodDescriptor,
    Value,
};

pub fn pool() -> DescriptorPool {
    DescriptorPool::decode(DESCRIPTORS).unwrap()
}

/// Files that are ours.
pub fn files(pool: &DescriptorPool) -> Vec<FileDescriptor> {
    let files: Vec<FileDescriptor> = pool
        .files()
        .filter(|file| file.package_name().starts_with("perfagent."))
        .collect();
    assert!(files.len() >= 5, "{files:?}");
    files
}

fn methods(pool: &DescriptorPool) -> Vec<MethodDescriptor> {
    let services = files(pool)
        .into_iter()
        .flat_map(|file| file.services().collect::<Vec<_>>());
    let methods: Vec<MethodDescriptor> = services
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .collect();
    assert!(methods.len() >= 11, "{methods:?}");
    methods
}

fn messages(pool: &DescriptorPool) -> Vec<MessageDescriptor> {
    pool.all_messages()
        .filter(|message| message.package_name().starts_with("perfagent."))
        .filter(|message| !message.is_map_entry())
        .collect()
}

/// The comment above something, on one line.
pub fn comment(file: &FileDescriptor, path: &[i32]) -> String {
    let info = file
        .file_descriptor_proto()
        .source_code_info
        .as_ref()
        .unwrap();
    let location = info.location.iter().find(|location| location.path == path);
    let text = location.unwrap().leading_comments.clone();
    let text = text.unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn says(text: &str, words: &[&str]) -> bool {
    words.iter().any(|word| text.contains(word))
}

/// Words in capitals: codes, reasons, enum values.
fn capitals(text: &str) -> impl Iterator<Item = &str> {
    text.split(|char: char| !(char.is_ascii_alphanumeric() || char == '_'))
        .filter(|word| word.len() > 4 && word.contains(|char: char| char.is_ascii_uppercase()))
        .filter(|word| {
            word.bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte == b'_')
        })
}

const CODES: [&str; 16] = [
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

#[test]
fn every_rpc_tells_its_errors_whether_to_retry_and_its_deadline() {
    let pool = pool();
    let mut wrong = Vec::new();
    for method in methods(&pool) {
        let text = comment(&method.parent_service().parent_file(), method.path());
        let errors = text.split_once("Errors: ").map(|(_, after)| after);
        let told = errors.is_some_and(|text| CODES.iter().any(|code| text.contains(code)));
        if !told {
            wrong.push(format!("{}: no errors", method.name()));
        }
        if !says(&text, &["Safe to retry", "Not safe to retry"]) {
            wrong.push(format!("{}: no word on retries", method.name()));
        }
        let deadline = text.split_once("Deadline: ").map(|(_, after)| after);
        if !deadline.is_some_and(|text| says(text, &["second", "none"])) {
            wrong.push(format!("{}: no deadline", method.name()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_errors_that_comments_name_are_those_that_there_are() {
    let pool = pool();
    let reasons: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    let values: BTreeSet<String> = pool
        .all_enums()
        .flat_map(|one| {
            let prefix = format!("{}_", screaming(one.name()));
            let values: Vec<String> = one
                .values()
                .map(|value| value.name().trim_start_matches(&prefix).to_owned())
                .collect();
            values
        })
        .collect();
    let mut texts = Vec::new();
    for method in methods(&pool) {
        let file = method.parent_service().parent_file();
        texts.push(comment(&file, method.parent_service().path()));
        texts.push(comment(&file, method.path()));
    }
    let text = texts.join(" ");
    let named: BTreeSet<&str> = capitals(&text).collect();
    let strange: Vec<_> = named
        .iter()
        .filter(|word| !reasons.contains(**word) && !CODES.contains(word))
        .filter(|word| !values.contains(**word))
        .collect();
    assert!(strange.is_empty(), "there is no {strange:?}");
    let mut untold: Vec<_> = reasons
        .iter()
        .filter(|word| !named.contains(**word))
        .collect();
    // of grpc.health.v1, whose proto is not ours
    untold.retain(|word| **word != Reason::UnknownService.as_str());
    assert!(untold.is_empty(), "no RPC names {untold:?}");
}

/// `WatchEvent` as the prefix of its values: `WATCH_EVENT`.
fn screaming(name: &str) -> String {
    let mut out = String::new();
    for char in name.chars() {
        if char.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(char.to_ascii_uppercase());
    }
    out
}

fn is_number(field: &FieldDescriptor) -> bool {
    !matches!(
        field.kind(),
        Kind::Message(_) | Kind::Enum(_) | Kind::String | Kind::Bytes | Kind::Bool
    )
}

#[test]
fn every_number_has_a_unit() {
    const UNITS: [&str; 21] = [
        // of time, size and shares
        "econd",
        "ytes",
        "in the unit of",
        "in the same unit",
        "percent",
        "0 to 1",
        "etween 0 and 1",
        "Share of",
        "andidate over baseline",
        "above 1",
        // counts and places
        "umber of times",
        "evision",
        "poch of",
        "lace among",
        "lace in",
        "ow many",
        "as many",
        "umber of",
        "Requests",
        "tokens",
        "lace of",
    ];
    let pool = pool();
    let mut wrong = Vec::new();
    for message in messages(&pool) {
        for field in message.fields().filter(is_number) {
            let text = comment(&message.parent_file(), field.path());
            if !says(&text, &UNITS) {
                wrong.push(format!("{}: {text}", field.full_name()));
            }
        }
    }
    assert!(wrong.is_empty(), "without a unit: {wrong:#?}");
}

#[test]
fn whatever_can_be_unset_says_when() {
    const ANSWERED: [&str; 3] = ["nset", "lways set", "Set in"];
    const ASKED: [&str; 6] = ["nset", "Required", "Empty", "means", "nspecified", "1 to"];
    let pool = pool();
    let mut wrong = Vec::new();
    for message in messages(&pool) {
        let file = message.parent_file();
        let asked = message.name().ends_with("Request");
        for field in message.fields() {
            let oneof = field
                .containing_oneof()
                .filter(|oneof| !oneof.is_synthetic());
            let path = oneof.as_ref().map_or(field.path(), |oneof| oneof.path());
            let text = comment(&file, path);
            let must = match asked {
                true => !says(&text, &ASKED),
                false => {
                    let can_be_unset = field.supports_presence() && !field.is_list();
                    can_be_unset && !says(&text, &ANSWERED)
                }
            };
            if must {
                wrong.push(format!("{}: {text}", field.full_name()));
            }
        }
    }
    assert!(wrong.is_empty(), "without a word on presence: {wrong:#?}");
}

#[test]
fn every_rpc_has_a_path_of_its_own_and_those_that_users_know_stay() {
    let pool = pool();
    let http = pool.get_extension_by_name("google.api.http").unwrap();
    let mut paths = BTreeSet::new();
    for method in methods(&pool) {
        let options = method.options();
        let rule = options.get_extension(&http).into_owned();
        let Value::Message(rule) = rule else {
            panic!("{method:?}")
        };
        let verbs = ["get", "put", "post", "delete", "patch"];
        let verb = verbs
            .iter()
            .find(|verb| rule.has_field_by_name(verb))
            .unwrap_or_else(|| panic!("{} has no path", method.full_name()));
        let path = rule.get_field_by_name(verb).unwrap().into_owned();
        let path = format!("{verb} {}", path.as_str().unwrap());
        assert!(paths.insert(path.clone()), "{path} is there twice");
    }
    for known in [
        "post /api/v1/metrics/collect",
        "post /api/v1/instances",
        "get /api/v1/instances",
        "get /api/v1/instances/{instance_id}",
        "delete /api/v1/instances/{instance_id}",
        "patch /api/v1/instances/{instance.instance_id}",
        "post /api/v1/metrics/batch-collect",
        "post /api/v1/metrics/watch",
        "post /api/v1/metrics/compare",
        "post /api/v1/analysis/detect-bottlenecks",
        "post /api/v1/analysis/evaluate-slos",
        "post /api/v1/analysis/watch-bottlenecks",
        "post /api/v1/optimization/recommend",
        "post /api/v1/optimization/config",
        "post /api/v1/optimization/predict",
        "get /api/v1/optimization/predictions",
        "post /api/v1/workflows",
        "get /api/v1/workflows",
        "get /api/v1/workflows/{workflow_id}",
        "post /api/v1/workflows/{workflow_id}/approve",
        "post /api/v1/workflows/{workflow_id}/reject",
        "post /api/v1/workflows/{workflow_id}/pause",
        "post /api/v1/workflows/{workflow_id}/resume",
        "post /api/v1/workflows/{workflow_id}/cancel",
        "post /api/v1/workflows/{workflow_id}/rollback",
        "get /api/v1/workflows/{workflow_id}/watch",
        "get /api/v1/workflows:watch",
        "get /api/v1/workflow-events",
        "post /api/v1/instances/{instance_id}/snapshots",
        "get /api/v1/snapshots",
        "post /api/v1/webhooks",
        "get /api/v1/webhooks",
        "get /api/v1/webhooks/{webhook_id}",
        "delete /api/v1/webhooks/{webhook_id}",
        "post /api/v1/webhooks/{webhook_id}/enable",
        "post /api/v1/webhooks/{webhook_id}/disable",
        "post /api/v1/webhooks/{webhook_id}/rotate",
        "post /api/v1/webhooks/{webhook_id}/test",
        "get /api/v1/webhook-deliveries",
        "get /api/v1/webhook-deliveries/{delivery_id}",
        "post /api/v1/webhook-deliveries/{delivery_id}/redeliver",
        "get /api/v1/agent",
        "get /api/v1/capabilities",
    ] {
        assert!(paths.contains(known), "{known} is gone; v1 only ever adds");
    }
}

#[test]
fn the_rules_for_protos_have_no_exception() {
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/proto/buf.yaml");
    let rules = std::fs::read_to_string(rules).unwrap();
    for line in rules.lines().map(str::trim_start) {
        assert!(
            !says(line.split(':').next().unwrap(), &["except"]),
            "{line}"
        );
        assert!(!line.starts_with("ignore"), "{line}");
    }
    for rule in [
        "STANDARD",
        "COMMENTS",
        "FILE",
        "disallow_comment_ignores: true",
    ] {
        assert!(rules.contains(rule), "{rule}");
    }
}
