//! A predicted effect for people: before, after, and the interval.

use crate::edge::cli::table::{duration, number};
use crate::edge::cli::terminal::clean;
use crate::edge::grpc::pb;

/// The quantities that change most, on one line: `TTFT 4.7 s → 0.3 s (0.2–0.6)`.
pub(in crate::edge::cli) fn in_short(of: &pb::Optimization) -> String {
    let Some(prediction) = &of.prediction else {
        return "not predictable".to_owned();
    };
    let mut most: Vec<&pb::QuantityPrediction> = prediction.quantities.iter().collect();
    // how full the cache is nobody feels
    most.sort_by(|one, other| {
        let felt = |of: &pb::QuantityPrediction| match of.quantity.as_str() {
            "kv_cache_usage_ratio" => 0.0,
            _ => of.ratio.max(f64::MIN_POSITIVE).ln().abs(),
        };
        felt(other).total_cmp(&felt(one))
    });
    let told: Vec<String> = most.into_iter().take(SHOWN).map(line).collect();
    match told.is_empty() {
        true => "nothing of it is predictable".to_owned(),
        false => told.join(", "),
    }
}

/// As many as a line of a terminal has room for.
const SHOWN: usize = 2;

/// One quantity: its name, before, after, and the 90 % interval.
pub(in crate::edge::cli) fn line(of: &pb::QuantityPrediction) -> String {
    let name = name_of(&of.quantity, &of.statistic);
    let (before, after) = (
        shown(&of.quantity, of.before),
        shown(&of.quantity, of.after),
    );
    format!("{name} {before} → {after} ({})", interval(of))
}

/// The ends of the interval, in the unit of the middle.
pub(in crate::edge::cli) fn interval(of: &pb::QuantityPrediction) -> String {
    let unit = unit_of(&of.quantity, of.after);
    let ends = [of.after_low, of.after_high].map(|value| short(value * unit.times));
    ends.join("–")
}

/// What people call a quantity.
pub(in crate::edge::cli) fn name_of(quantity: &str, statistic: &str) -> String {
    let name = match quantity {
        "generation_tokens_per_second" => "throughput",
        "time_to_first_token_seconds" => "TTFT",
        "inter_token_latency_seconds" => "ITL",
        "kv_cache_usage_ratio" => "KV cache in use",
        other => return format!("{} {}", clean(other), clean(statistic)),
    };
    match statistic {
        "" | "value" | "mean" => name.to_owned(),
        other => format!("{name} {}", clean(other)),
    }
}

/// A value in the unit that its name says.
pub(in crate::edge::cli) fn shown(quantity: &str, value: f64) -> String {
    let unit = unit_of(quantity, value);
    match unit.name {
        "" => number(value),
        _ if unit.times == 1.0 && unit.name == "s" && value >= 1000.0 => duration(value),
        name => format!("{} {name}", short(value * unit.times)),
    }
}

struct Unit {
    name: &'static str,
    times: f64,
}

fn unit_of(quantity: &str, value: f64) -> Unit {
    let unit = |name, times| Unit { name, times };
    match quantity.rsplit_once('_') {
        _ if quantity.ends_with("_tokens_per_second") => unit("tokens/s", 1.0),
        _ if quantity.ends_with("_per_second") => unit("/s", 1.0),
        Some((_, "seconds")) if value.abs() < 0.1 => unit("ms", 1e3),
        Some((_, "seconds")) => unit("s", 1.0),
        Some((_, "ratio")) => unit("%", 100.0),
        _ => unit("", 1.0),
    }
}

/// Two digits that count; a prediction has no more.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 9.95 => format!("{value:.0}"),
        size if size >= 0.995 => format!("{value:.1}"),
        0.0 => "0".to_owned(),
        _ => {
            let text = format!("{value:.2}");
            match text.trim_end_matches('0').trim_end_matches('.') {
                "0" | "-0" | "" => "<0.01".to_owned(),
                text => text.to_owned(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn predicted(
        quantity: &str,
        statistic: &str,
        before: f64,
        ratio: f64,
    ) -> pb::QuantityPrediction {
        pb::QuantityPrediction {
            quantity: quantity.to_owned(),
            statistic: statistic.to_owned(),
            before,
            ratio,
            ratio_low: 0.5 * ratio,
            ratio_high: 2.0 * ratio,
            after: before * ratio,
            after_low: 0.5 * before * ratio,
            after_high: 2.0 * before * ratio,
        }
    }

    #[test]
    fn a_quantity_reads_as_people_say_it() {
        let ttft = predicted("time_to_first_token_seconds", "mean", 4.7, 0.0681);
        assert_eq!(line(&ttft), "TTFT 4.7 s → 0.32 s (0.16–0.64)");
        let itl = predicted("inter_token_latency_seconds", "p99", 0.009, 1.6);
        assert_eq!(line(&itl), "ITL p99 9.0 ms → 14 ms (7.2–29)");
        let rate = predicted("generation_tokens_per_second", "value", 448.0, 2.0);
        assert_eq!(
            line(&rate),
            "throughput 448 tokens/s → 896 tokens/s (448–1792)"
        );
        let kv = predicted("kv_cache_usage_ratio", "mean", 0.004, 8.0);
        assert_eq!(line(&kv), "KV cache in use 0.4 % → 3.2 % (1.6–6.4)");
    }

    #[test]
    fn what_changes_most_stands_on_the_line() {
        let mut one = pb::Optimization {
            prediction: Some(pb::Prediction {
                quantities: vec![
                    predicted("generation_tokens_per_second", "value", 400.0, 2.0),
                    predicted("time_to_first_token_seconds", "mean", 4.0, 0.1),
                    predicted("inter_token_latency_seconds", "mean", 0.01, 1.1),
                    predicted("kv_cache_usage_ratio", "mean", 0.01, 50.0),
                ],
                ..pb::Prediction::default()
            }),
            ..pb::Optimization::default()
        };
        let told = in_short(&one);
        assert!(told.starts_with("TTFT"), "{told}");
        assert!(told.contains(", throughput"), "{told}");
        assert!(!told.contains("KV") && !told.contains("ITL"), "{told}");
        one.prediction = None;
        assert_eq!(in_short(&one), "not predictable");
    }
}
