//! From a view to the numbers that are shown: totals, increases, rates, quantiles, and what follows from them.

use crate::engine::{Quantity as Q, QuantityKind};

use super::histogram::Bounded;
use super::measurement::{Bucket, Distribution, Figures, Gauge, Quantile, QuantityValue};
use super::merge::merge_basis;
use super::view::{Basis, Counter, DistributionIncrease, GaugeTrack, View};

/// Quantiles that are shown of each distribution.
pub const QUANTILES: [f64; 4] = [0.5, 0.9, 0.95, 0.99];

/// Values that follow from others, beside the quantities themselves: name and meaning.
pub const DERIVED: [(&str, &str); 9] = [
    (
        "prefix_cache_hit_ratio",
        "Share of looked-up prefix tokens that were found, over the window.",
    ),
    (
        "external_cache_hit_ratio",
        "Share of tokens looked up in an outside KV store that were found, over the window.",
    ),
    (
        "speculation_acceptance_ratio",
        "Share of drafted tokens that were accepted, bonus tokens left out, over the window.",
    ),
    (
        "speculation_accepted_length_tokens",
        "Tokens that a draft round gave on average, bonus token included, over the window.",
    ),
    (
        "graph_pass_ratio",
        "Share of forward passes replayed from a captured CUDA graph, over the window.",
    ),
    (
        "graph_decode_pass_ratio",
        "Share of decode passes replayed from a captured CUDA graph, over the window.",
    ),
    (
        "request_failure_ratio",
        "Errors and rejections over all requests that ended or were rejected, over the window.",
    ),
    (
        "requests_disconnected_increase",
        "Requests whose client went away, over the window, where the engine counts them only by what is missing (vLLM).",
    ),
    (
        "held_without_progress_seconds",
        "Seconds at the end of the window in which requests were held and no token and no step was counted; of several replicas the longest.",
    ),
];

impl Figures {
    /// The numbers of a view, without the series.
    pub fn of(mut view: View) -> Self {
        derive_distributions(&mut view);
        let mut figures = Self {
            quantities: counters(&view),
            distributions: view
                .distributions
                .iter()
                .map(|(quantity, increase)| distribution(*quantity, increase))
                .collect(),
            gauges: view
                .gauges
                .iter()
                .filter_map(|(quantity, track)| gauge(*quantity, track))
                .collect(),
            absent: std::mem::take(&mut view.absent),
            series: Vec::new(),
        };
        let prefill = prefill_tokens(&view);
        if !prefill.is_empty() {
            figures
                .absent
                .retain(|absence| absence.quantity != Q::PrefillTokens);
        }
        figures.quantities.extend(prefill);
        figures.quantities.extend(ratios(&view));
        figures
            .quantities
            .extend(view.disconnected.map(|value| disconnected(&view, value)));
        figures.quantities.extend(
            view.standstill_seconds
                .map(|value| standstill(&view, value)),
        );
        // it is kept until the next window
        figures.quantities.shrink_to_fit();
        figures.gauges.shrink_to_fit();
        figures.absent.shrink_to_fit();
        figures
    }
}

/// Of each counter the total, and over a window its increase and rate.
fn counters(view: &View) -> Vec<QuantityValue> {
    let mut values = Vec::new();
    for (quantity, counter) in &view.counters {
        let [total, increase, per_second] = quantity.counter_names();
        let mut push = |name: &'static str, value| {
            values.push(QuantityValue {
                name: name.into(),
                value: Bounded::Value(value),
                basis: counter.basis,
                source: counter.source.clone(),
            });
        };
        push(total, counter.total);
        if let Some(rise) = counter.increase {
            push(increase, rise.amount);
            push(per_second, rise.per_second);
        }
    }
    values
}

fn disconnected(view: &View, value: Bounded) -> QuantityValue {
    let source = |quantity| {
        let found: Option<&DistributionIncrease> = view.distributions.get(&quantity);
        found.map_or("", |increase| &*increase.source)
    };
    QuantityValue {
        name: "requests_disconnected_increase".into(),
        value,
        basis: Basis::Exact,
        source: format!(
            "{}_count - {}_count",
            source(Q::TimeToFirstToken),
            source(Q::EndToEndLatency)
        )
        .into(),
    }
}

fn standstill(view: &View, seconds: f64) -> QuantityValue {
    let gauges = [Q::RequestsRunning, Q::RequestsWaiting];
    let held = gauges.iter().filter_map(|one| view.gauges.get(one));
    let tokens = view.counters.get(&Q::GenerationTokens);
    let sources: Vec<&str> = held
        .map(|track| &*track.source)
        .chain(tokens.map(|counter| &*counter.source))
        .collect();
    QuantityValue {
        name: "held_without_progress_seconds".into(),
        value: Bounded::Value(seconds),
        basis: Basis::Exact,
        source: sources.join(", ").into(),
    }
}

fn distribution(quantity: Q, increase: &DistributionIncrease) -> Distribution {
    let quantiles = increase.buckets.iter().flat_map(|buckets| {
        QUANTILES
            .iter()
            .filter_map(|q| buckets.quantile(*q).map(|value| Quantile { q: *q, value }))
    });
    let mut buckets = Vec::new();
    if let Some(increments) = &increase.buckets {
        let mut above = None;
        for (bound, count) in increments.bounds.iter().zip(&increments.counts) {
            if *count > 0.0 {
                buckets.push(Bucket {
                    above,
                    at_most: *bound,
                    count: *count,
                });
            }
            above = Some(*bound);
        }
    }
    Distribution {
        name: quantity.name().into(),
        count: increase.count,
        mean: mean(increase),
        quantiles: quantiles.collect(),
        buckets,
        basis: increase.basis,
        source: increase.source.clone(),
    }
}

fn mean(increase: &DistributionIncrease) -> Option<f64> {
    (increase.count > 0.0)
        .then(|| increase.sum.map(|sum| sum / increase.count))
        .flatten()
}

fn gauge(quantity: Q, track: &GaugeTrack) -> Option<Gauge> {
    let values = || track.values.iter().map(|(_, value)| *value);
    let (_, last) = track.values.last()?;
    Some(Gauge {
        name: quantity.name().into(),
        min: values().reduce(f64::min)?,
        mean: values().sum::<f64>() / track.values.len() as f64,
        max: values().reduce(f64::max)?,
        last: *last,
        samples: u32::try_from(track.values.len()).unwrap_or(u32::MAX),
        basis: track.basis,
        source: track.source.clone(),
    })
}

/// Distributions that an engine does not export and whose mean follows from others.
fn derive_distributions(view: &mut View) {
    if !view.distributions.contains_key(&Q::TimePerOutputToken)
        && let Some(derived) = time_per_output_token(view)
    {
        view.insert_derived(Q::TimePerOutputToken, derived);
    }
    if !view.distributions.contains_key(&Q::TimeToFirstToken)
        && let Some(derived) = time_to_first_token(view)
    {
        view.insert_derived(Q::TimeToFirstToken, derived);
    }
    if !view.gauges.contains_key(&Q::KvCacheUsage)
        && let Some(track) = reserved_share(view)
    {
        view.absent
            .retain(|absence| absence.quantity != Q::KvCacheUsage);
        view.gauges.insert(Q::KvCacheUsage, track);
    }
}

impl View {
    fn insert_derived(&mut self, quantity: Q, increase: DistributionIncrease) {
        debug_assert_eq!(quantity.kind(), QuantityKind::Distribution);
        self.absent.retain(|absence| absence.quantity != quantity);
        self.distributions.insert(quantity, increase);
    }

    fn observed(&self, quantity: Q) -> Option<(f64, f64, &str)> {
        let increase = self.distributions.get(&quantity)?;
        Some((increase.count, increase.sum?, &increase.source))
    }

    fn rise(&self, quantity: Q) -> Option<f64> {
        Some(self.counters.get(&quantity)?.increase?.amount)
    }
}

/// Decode time over the tokens after the first (vLLM before 0.11): a mean weighted by length.
fn time_per_output_token(view: &View) -> Option<DistributionIncrease> {
    let (requests, decode_seconds, source) = view.observed(Q::DecodeTime)?;
    let (_, tokens, lengths) = view.observed(Q::GenerationLength)?;
    let gaps = tokens - requests;
    (gaps > 0.0).then(|| DistributionIncrease {
        count: requests,
        sum: Some(decode_seconds / gaps * requests),
        buckets: None,
        intervals: Vec::new(),
        basis: Basis::Approximate,
        source: format!("{source} / ({lengths} - requests)").into(),
    })
}

/// TGI: mean wait, validation and prefill step one after the other. Low by up to 8 %, and by half where long
/// prompts are chunked.
fn time_to_first_token(view: &View) -> Option<DistributionIncrease> {
    let parts = [Q::QueueTime, Q::ValidationTime, Q::PrefillStepTime];
    let mut total = 0.0;
    let mut sources = Vec::new();
    for part in parts {
        let (count, sum, source) = view.observed(part)?;
        if count <= 0.0 {
            return None;
        }
        total += sum / count;
        sources.push(source);
    }
    let (requests, _, _) = view.observed(Q::QueueTime)?;
    Some(DistributionIncrease {
        count: requests,
        sum: Some(total * requests),
        buckets: None,
        intervals: Vec::new(),
        basis: Basis::Approximate,
        source: format!("means of {}", sources.join(" + ")).into(),
    })
}

/// Reserved tokens over capacity, where both are told.
fn reserved_share(view: &View) -> Option<GaugeTrack> {
    let reserved = view.gauges.get(&Q::KvReservedTokens)?;
    let capacity = view.gauges.get(&Q::KvCapacityTokens)?;
    let (_, capacity_tokens) = capacity.values.last().filter(|(_, tokens)| *tokens > 0.0)?;
    Some(GaugeTrack {
        values: reserved
            .values
            .iter()
            .map(|(tick, tokens)| (*tick, tokens / capacity_tokens))
            .collect(),
        basis: Basis::Approximate,
        source: format!("{} / {}", reserved.source, capacity.source).into(),
    })
}

/// Shares and means that follow from the increases of counters. Nothing over nothing is not shown.
fn ratios(view: &View) -> Vec<QuantityValue> {
    let shares = [
        share(
            view,
            "prefix_cache_hit_ratio",
            &[Q::PrefixCacheHits],
            &[Q::PrefixCacheQueries],
        ),
        share(
            view,
            "external_cache_hit_ratio",
            &[Q::ExternalCacheHits],
            &[Q::ExternalCacheQueries],
        ),
        share(
            view,
            "speculation_acceptance_ratio",
            &[Q::SpeculationAcceptedTokens],
            &[Q::SpeculationDraftTokens],
        ),
        // the bonus token of each round counts
        share(
            view,
            "speculation_accepted_length_tokens",
            &[Q::SpeculationAcceptedTokens, Q::SpeculationDrafts],
            &[Q::SpeculationDrafts],
        ),
        share(
            view,
            "graph_pass_ratio",
            &[Q::GraphPasses],
            &[Q::GraphPasses, Q::EagerPasses],
        ),
        share(
            view,
            "graph_decode_pass_ratio",
            &[Q::GraphDecodePasses],
            &[Q::GraphDecodePasses, Q::EagerDecodePasses],
        ),
        share(
            view,
            "request_failure_ratio",
            &[Q::RequestsErrored, Q::RequestsRejected],
            &[Q::RequestsFinished, Q::RequestsRejected],
        ),
    ];
    shares.into_iter().flatten().collect()
}

/// Computed prompt tokens where the engine tells prompts and prefix hits only (vLLM before 0.16).
fn prefill_tokens(view: &View) -> Vec<QuantityValue> {
    let told = |quantity: Q| view.counters.get(&quantity);
    let (None, Some(prompts), Some(hits), Some(queries)) = (
        told(Q::PrefillTokens),
        told(Q::PromptTokens),
        told(Q::PrefixCacheHits),
        told(Q::PrefixCacheQueries),
    ) else {
        return Vec::new();
    };
    let (Some(rise), Some(hit), Some(asked)) = (prompts.increase, hits.increase, queries.increase)
    else {
        return Vec::new();
    };
    // nothing looked up: nothing found
    let missed = if asked.amount > 0.0 {
        1.0 - hit.amount / asked.amount
    } else {
        1.0
    };
    let [_, increase, per_second] = Q::PrefillTokens.counter_names();
    let value = |name: &'static str, value| QuantityValue {
        name: name.into(),
        value: Bounded::Value(value),
        basis: Basis::Approximate,
        source: format!(
            "{} × (1 - {} / {})",
            prompts.source, hits.source, queries.source
        )
        .into(),
    };
    vec![
        value(increase, rise.amount * missed),
        value(per_second, rise.per_second * missed),
    ]
}

/// What the parts rose by over what the whole did. Of several counters those count that the engine exports; the
/// first of the whole must be there.
fn share(view: &View, name: &'static str, parts: &[Q], whole: &[Q]) -> Option<QuantityValue> {
    let told = |quantities: &[Q]| -> Vec<&Counter> {
        let counters = quantities
            .iter()
            .filter_map(|quantity| view.counters.get(quantity));
        counters
            .filter(|counter| counter.increase.is_some())
            .collect()
    };
    let (parts, whole_told) = (told(parts), told(whole));
    view.rise(*whole.first()?)?;
    let sum = |counters: &[&Counter]| -> f64 {
        counters
            .iter()
            .filter_map(|counter| Some(counter.increase?.amount))
            .sum()
    };
    let source = |counters: &[&Counter]| {
        let sources: Vec<&str> = counters.iter().map(|counter| &*counter.source).collect();
        sources.join(" + ")
    };
    let total = sum(&whole_told);
    (total > 0.0 && !parts.is_empty()).then(|| QuantityValue {
        name: name.into(),
        value: Bounded::Value(sum(&parts) / total),
        basis: merge_basis(parts.iter().chain(&whole_told).map(|counter| counter.basis)),
        source: format!("({}) / ({})", source(&parts), source(&whole_told)).into(),
    })
}
