//! What expressions can say, and what they cannot do.

use cel::Value;

use super::expression::Expression;
use super::variables::Variables;

fn value(source: &str) -> Result<Value, String> {
    let expression = Expression::parse(source).map_err(|error| error.to_string())?;
    let value = expression.value(&Variables::example());
    value.map_err(|why| format!("{why:?}"))
}

#[test]
fn numbers_mix() {
    assert_eq!(value("settings.max_num_seqs * 2"), Ok(Value::Float(64.0)));
    assert_eq!(value("settings.max_num_seqs * 1.5"), Ok(Value::Float(48.0)));
    assert_eq!(
        value("round(min(settings.max_num_seqs / 3, 100))"),
        Ok(Value::Float(11.0))
    );
    assert_eq!(
        value("metrics.kv_cache_usage_ratio.mean < 0.8 && replicas == 1"),
        Ok(Value::Bool(true))
    );
    assert_eq!(
        value("size(bottlenecks) > 0 && bottlenecks[0] == 'SEQUENCE_CAP'"),
        Ok(Value::Bool(true))
    );
    assert_eq!(
        value("'SEQUENCE_CAP' in bottlenecks"),
        Ok(Value::Bool(true))
    );
    assert_eq!(
        value("bottlenecks.exists(one, one.startsWith('KV_'))"),
        Ok(Value::Bool(false))
    );
    assert_eq!(
        value("engine == 'vllm' && at_least(version, '0.9') && !at_least(version, '0.100')"),
        Ok(Value::Bool(true))
    );
}

#[test]
fn what_is_missing_is_named() {
    assert_eq!(value("has(metrics.unheard_of)"), Ok(Value::Bool(false)));
    let missing = |source: &str| value(source).unwrap_err();
    assert_eq!(
        missing("metrics.preemptions_increase > 0"),
        "Missing(\"preemptions_increase\")"
    );
    assert_eq!(missing("settings.nothing == true"), "Missing(\"nothing\")");
    assert!(missing("engine > 1").starts_with("Failed"));
}

#[test]
fn what_there_is_not_is_refused_with_its_place() {
    for (source, message) in [
        (
            "metric.x > 1",
            "line 1, column 1: there is no `metric`; did you mean `metrics`?",
        ),
        (
            "true &&\n metrics.kv_cache_usage > 1",
            "did you mean metrics.kv_cache_usage_ratio?",
        ),
        ("1 +", "line 1, column "),
        ("engine.matches('(a+)+$')", "`matches` cannot be used here"),
        ("int('1') > 1", "`int` cannot be used here"),
        ("X{a: 1}", "cannot"),
    ] {
        let error = Expression::parse(source).unwrap_err().to_string();
        assert!(error.contains(message), "{source}: {error}");
    }
    let error = Expression::parse("true &&\n metrics.kv_cache_usage > 1").unwrap_err();
    assert_eq!(error.line, 2);
}

#[test]
fn hostile_ones_are_refused_or_end_soon() {
    let loops = "[1,2,3].all(a, [1,2,3].all(b, [1,2,3].all(c, a + b + c > 0)))";
    let chain = |one: &str, times: usize| format!("true{}", one.repeat(times));
    let sources = [
        loops.to_owned(),
        "bottlenecks.map(a, a + a).map(b, b + b).size() > 0".to_owned(),
        "metrics.all(a, true)".to_owned(),
        format!("{}1{}", "(".repeat(2_000), ")".repeat(2_000)),
        format!("{}1", "[".repeat(4_000)),
        format!("{}true", "!".repeat(4_000)),
        format!("{}1 > 0", "-".repeat(4_000)),
        format!("metrics{}", ".a".repeat(2_000)),
        chain(" && true", 500),
        chain(" in a", 800),
        chain(" a", 2_000),
        chain(" ? true : true", 120),
        chain("", 1) + &" || true".repeat(3_000),
        "'a'.matches('(a*)*b')".to_owned(),
        format!("\"{}", "\\".repeat(4_000)),
        "\u{0}\u{1}{{{((".to_owned(),
        String::new(),
    ];
    for source in sources {
        let head: String = source.chars().take(40).collect();
        // a small stack, as threads of the server have
        let thread = std::thread::Builder::new().stack_size(2 << 20);
        let parsed = thread
            .spawn(move || Expression::parse(&source).is_err())
            .unwrap();
        assert!(parsed.join().unwrap(), "{head}");
    }
    // as much as is allowed
    let deepest = format!("1{} < 2", " - 1".repeat(45));
    let half = std::thread::Builder::new().stack_size(1 << 20);
    let evaluated = half.spawn(move || value(&deepest).map(|_| ())).unwrap();
    assert_eq!(evaluated.join().unwrap(), Ok(()));
    for source in [
        format!("1{} < 2", " - 1".repeat(190)),
        format!("settings{}", ".a".repeat(190)),
    ] {
        assert!(
            value(&source)
                .unwrap_err()
                .contains("operators in each other")
        );
    }
    let widest = format!("[{}].all(a, a + a + a < 9)", vec!["1"; 150].join(","));
    assert_eq!(value(&widest), Ok(Value::Bool(true)));
    let doubled = format!("size('{}') > 0", "a".repeat(3_000));
    assert_eq!(value(&doubled), Ok(Value::Bool(true)));
}

proptest::proptest! {
    #[test]
    fn no_text_is_too_much(text in "[a-z0-9 .()\\[\\]{}?:&|!<>=+*/'\",-]{0,300}") {
        if let Ok(expression) = Expression::parse(&text) {
            let _ = expression.value(&Variables::example());
        }
    }
}
