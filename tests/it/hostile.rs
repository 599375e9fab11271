//! Measurements that are sent back with numbers that no engine has: told from, or said to be too large, never a panic and
//! never a number that is none.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use perfagent::agent::Agent;
use perfagent::config::Config;
use perfagent::edge::grpc::pb::{quantile, quantity};
use perfagent::edge::grpc::{convert_analysis, convert_slo, pb, receive};
use proptest::prelude::*;

use crate::compare::wire;

/// What is changed, where, and the numbers that it becomes.
type Change = (u8, prop::sample::Index, f64, f64);

fn number() -> impl Strategy<Value = f64> {
    let edges = [0.0, -0.0, 1.0, -1.0, f64::MAX, f64::MIN_POSITIVE, 5e-324];
    prop_oneof![any::<f64>(), prop::sample::select(edges.to_vec()), 0.0..1e3]
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let one = (0u8..7, any::<prop::sample::Index>(), number(), number());
    prop::collection::vec(one, 0..14)
}

fn recorded() -> &'static [pb::Measurement] {
    static RECORDED: OnceLock<Vec<pb::Measurement>> = OnceLock::new();
    RECORDED.get_or_init(|| {
        let names = [
            "vllm-0.32.0/c-saturation",
            "vllm-0.32.0/d-kv-pressure",
            "sglang-0.5.23/c-saturation",
            "tgi-3.3.6/c-saturation",
        ];
        names.iter().map(|name| wire(name)).collect()
    })
}

fn change(figures: &mut pb::Figures, changes: &[Change]) {
    fn one<'a, T>(of: &'a mut [T], at: &prop::sample::Index) -> Option<&'a mut T> {
        (!of.is_empty()).then(|| &mut of[at.index(of.len())])
    }
    for (kind, at, x, y) in changes {
        let (x, y) = (*x, *y);
        match kind {
            0 => {
                let Some(one) = one(&mut figures.quantities, at) else {
                    continue;
                };
                one.bound = Some(quantity::Bound::Value(x));
            }
            1 => {
                let Some(one) = one(&mut figures.quantities, at) else {
                    continue;
                };
                one.bound = Some(quantity::Bound::AtLeast(x));
            }
            2 => {
                let Some(one) = one(&mut figures.distributions, at) else {
                    continue;
                };
                (one.count, one.mean) = (Some(x), Some(y));
            }
            3 => {
                let Some(one) = one(&mut figures.gauges, at) else {
                    continue;
                };
                let (low, high) = (Some(x.min(y)), Some(x.max(y)));
                (one.min, one.mean, one.max, one.last) = (low, low, high, high);
            }
            4 => {
                let Some(one) = one(&mut figures.distributions, at) else {
                    continue;
                };
                for known in &mut one.quantiles {
                    known.bound = Some(quantile::Bound::Value(x));
                }
                for bucket in &mut one.buckets {
                    bucket.count = y.abs();
                }
            }
            5 => {
                let Some(one) = one(&mut figures.series, at) else {
                    continue;
                };
                one.numerators.fill(x);
                one.denominators.fill(y);
            }
            _ if figures.gauges.is_empty() => {}
            _ => {
                let at = at.index(figures.gauges.len());
                figures.gauges.remove(at);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]
    #[test]
    fn no_numbers_make_a_diagnosis_panic_or_give_what_is_none(
        base in any::<prop::sample::Index>(),
        changed in changes(),
        other in prop::option::of(changes()),
        seconds in prop::option::of(number()),
    ) {
        static AGENT: OnceLock<Agent> = OnceLock::new();
        let agent = AGENT.get_or_init(|| Agent::new(&Config::default()).unwrap());
        let mut sent = recorded()[base.index(recorded().len())].clone();
        if let Some(seconds) = seconds {
            sent.window.as_mut().unwrap().observed_seconds = Some(seconds);
        }
        change(sent.figures.as_mut().unwrap(), &changed);
        if let Some(other) = other {
            let mut one = sent.replicas.remove(0);
            one.figures = sent.figures.clone();
            let mut two = one.clone();
            two.metrics_url = "http://other/metrics".to_owned();
            change(two.figures.as_mut().unwrap(), &other);
            sent.replicas = vec![one, two];
        }
        let Ok(read) = receive::measurement("measurement", Some(sent)) else {
            return Ok(());
        };
        let found = agent.diagnose(&read, &BTreeMap::new()).unwrap();
        let held = agent.evaluate_measured(&read, Vec::new()).unwrap();
        let told = format!("{:?}{:?}", convert_analysis::diagnosis(&found), convert_slo::evaluated(&held));
        // numbers as Debug writes them, not words in a sentence
        for none in ["(NaN", ": NaN", "(inf)", "(-inf)", ": inf,", ": -inf,", ": inf }", ": -inf }"] {
            prop_assert!(!told.contains(none), "{none} in {told}");
        }
    }
}
