//! Random launch arguments and changes for property tests.

use proptest::prelude::*;

use crate::engine::{Knob, KnobType, Registry};

use super::change::KnobChange;

/// A word of a launch line: something odd, a value, or a flag.
pub(super) fn word() -> impl Strategy<Value = String> {
    let flags: Vec<String> = Registry::builtin()
        .iter()
        .flat_map(|profile| profile.knobs.iter().map(|knob| knob.flag.to_string()))
        .filter(|flag| !flag.is_empty())
        .collect();
    let flags = prop::sample::select(flags);
    prop_oneof![
        2 => ".{0,8}",
        4 => prop::sample::select(vec!["4", "2048", "-1", "0.9", "true", "False", "fp8", "x", "--", "-tp", "{\"method\":\"ngram\"}", "MAX_BATCH_SIZE=3"])
            .prop_map(str::to_owned),
        4 => flags.clone(),
        1 => flags.clone().prop_map(|flag| flag.replacen("--", "--no-", 1)),
        2 => (flags, "[a-z0-9=]{1,4}").prop_map(|(flag, value)| format!("{flag}={value}")),
    ]
}

/// A value that the knob takes.
pub(super) fn value(kind: KnobType) -> BoxedStrategy<String> {
    match kind {
        KnobType::Integer { min, .. } => {
            prop_oneof![(min..min + 40).boxed(), (min..40_000).boxed(),]
                .prop_map(|number| number.to_string())
                .boxed()
        }
        KnobType::Number { min, max, .. } => {
            let max = max.min(min + 100.0);
            (1_u32..100)
                .prop_map(move |part| (min + (max - min) * f64::from(part) / 100.0).to_string())
                .boxed()
        }
        KnobType::Switch(_) => any::<bool>().prop_map(|on| on.to_string()).boxed(),
        KnobType::Choice(choices) => prop::sample::select(choices)
            .prop_map(str::to_owned)
            .boxed(),
        KnobType::Text => "[a-z][a-z0-9_.]{0,6}".boxed(),
        KnobType::Integers(separator) => prop::collection::vec(0_u32..600, 1..4)
            .prop_map(move |numbers| {
                let numbers = numbers.iter().map(u32::to_string);
                numbers.collect::<Vec<_>>().join(&separator.to_string())
            })
            .boxed(),
        KnobType::Json => Just("{}".to_owned()).boxed(),
    }
}

/// An engine, and changes of different knobs of it.
pub(super) fn changes() -> impl Strategy<Value = (&'static str, Vec<KnobChange>)> {
    prop::sample::select(vec!["vllm", "sglang", "tgi"]).prop_flat_map(|engine| {
        let registry = Registry::builtin();
        let knobs = registry.get(engine).map(|profile| profile.knobs.clone());
        let knobs: Vec<Knob> = knobs
            .unwrap_or_default()
            .into_iter()
            .filter(|knob| !knob.derived)
            .collect();
        let some = prop::sample::subsequence(knobs, 1..5);
        let changes = some.prop_flat_map(|knobs| {
            knobs
                .into_iter()
                .map(|knob| {
                    prop::option::weighted(0.8, value(knob.kind)).prop_map(move |to| KnobChange {
                        name: knob.name.to_string(),
                        flag: knob.flag.to_string(),
                        from: None,
                        to: to.and_then(|to| knob.check(&to).ok()),
                    })
                })
                .collect::<Vec<_>>()
        });
        (Just(engine), changes)
    })
}
