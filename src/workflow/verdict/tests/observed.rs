//! What becomes of samples.

use std::ops::RangeInclusive;
use std::sync::{Arc, LazyLock};

use super::*;
use crate::engine::{EngineProfile, Probed, Registry};
use crate::exposition::Options;
use crate::measure::{ReplicaSamples, Sample};
use crate::simulator::{Deployment, Replica, Scenario};

const START: f64 = 1_790_000_000.0;

fn profile() -> Arc<EngineProfile> {
    Registry::builtin().get("vllm").unwrap().clone()
}

/// Two replicas of one engine, scraped each 5 s; all tests share them.
fn scraped() -> &'static [ReplicaSamples] {
    static ALL: LazyLock<Vec<ReplicaSamples>> = LazyLock::new(|| {
        let text = r#"
            replicas = 2
            load = { rate = 8, prompt_tokens = "20..60", output_tokens = "4..24" }
            timing = { fixed_seconds = 0.04 }
        "#;
        let scenario = toml::from_str::<Scenario>(text).unwrap();
        let deployment = scenario.deployment().unwrap();
        (0..2).map(|number| scrape(&deployment, number)).collect()
    });
    &ALL
}

fn scrape(deployment: &Deployment, number: u32) -> ReplicaSamples {
    let mut replica = Replica::new(deployment, number, START).unwrap();
    let samples = (0..=120).map(|tick| {
        let at = f64::from(tick) * 5.0;
        replica.run_until(at);
        let page = replica.metrics(false);
        let options = Options::default();
        let read = Sample::read(&profile(), page.as_bytes(), START + at, &options);
        let (mut sample, _) = read.unwrap();
        sample.tick = tick;
        Arc::new(sample)
    });
    ReplicaSamples {
        metrics_url: format!("http://127.0.0.1:{number}/metrics"),
        samples: samples.collect(),
        failed_scrapes: 0,
        last_failure: None,
        probed: Arc::new(Probed::default()),
    }
}

/// Those of these ticks.
fn samples(ticks: RangeInclusive<u32>) -> Vec<ReplicaSamples> {
    let mut all = scraped().to_vec();
    for replica in &mut all {
        replica
            .samples
            .retain(|sample| ticks.contains(&sample.tick));
    }
    all
}

fn observed(
    canary: &ReplicaSamples,
    control: &ReplicaSamples,
    after: f64,
) -> Result<Observation, NotObserved> {
    let bounds = Bounds {
        end_to_end_latency_seconds: Some(0.5),
        ..Bounds::default()
    };
    observe(&[canary], &[control], &profile(), &bounds, START + after)
}

#[test]
fn intervals_after_the_change_are_paired_by_their_scrapes() {
    let all = samples(0..=40);
    let found = observed(&all[0], &all[1], 50.0).unwrap();
    assert_eq!((found.first_tick, found.last_tick), (10, 40));
    assert_eq!(found.start_unix_seconds, START + 50.0);
    assert_eq!(found.evidence, Evidence::SameTime);
    assert!(found.simulated && found.control_simulated);
    for quantity in [
        J::TimeToFirstTokenMean,
        J::InterTokenLatencyMean,
        J::EndToEndLatencyMean,
        J::EndToEndLatencyBeyond,
        J::FailureShare,
        J::GenerationTokensPerSecond,
    ] {
        assert_eq!(found.pairs[&quantity].len(), 30, "{quantity:?}");
    }
    // no bound, nothing beyond it
    assert!(!found.pairs.contains_key(&J::TimeToFirstTokenBeyond));
    let requests: f64 = found.pairs[&J::TimeToFirstTokenMean]
        .iter()
        .map(|pair| pair.canary.denominator)
        .sum();
    assert_eq!(requests, found.traffic.requests[0]);
    let beyond = &found.pairs[&J::EndToEndLatencyBeyond];
    assert!(
        beyond
            .iter()
            .all(|pair| pair.canary.numerator <= pair.canary.denominator)
    );
    assert!(beyond.iter().any(|pair| pair.canary.numerator > 0.0));
    assert_eq!(found.traffic.replica_seconds, [150.0, 150.0]);
}

#[test]
fn restarts_and_gaps_count_on_neither_side_and_are_said() {
    let all = samples(0..=30);
    let mut gap = all[0].clone();
    gap.samples.retain(|sample| sample.tick != 12);
    let found = observed(&gap, &all[1], 0.0).unwrap();
    assert_eq!(found.pairs[&J::TimeToFirstTokenMean].len(), 28);
    assert!(
        found.dropped[0].contains("one side only"),
        "{:?}",
        found.dropped
    );
    let mut restarted = all[0].clone();
    let began = all[0].samples[3].clone();
    let mut began = Sample::clone(&began);
    began.tick = 20;
    began.at_unix_seconds = START + 100.0;
    restarted.samples[20] = Arc::new(began);
    let found = observed(&restarted, &all[1], 0.0).unwrap();
    assert!(found.pairs[&J::TimeToFirstTokenMean].len() < 30);
    assert!(
        found.dropped.iter().any(|why| why.contains("restarted")),
        "{:?}",
        found.dropped
    );
}

#[test]
fn samples_of_before_are_paired_by_order() {
    let all = samples(0..=60);
    let (mut before, mut after) = (all[0].clone(), all[0].clone());
    before.samples.retain(|sample| sample.tick <= 30);
    after.samples.retain(|sample| sample.tick >= 30);
    let found = observed(&after, &before, 150.0).unwrap();
    assert_eq!(found.evidence, Evidence::BeforeAfter);
    assert_eq!(found.pairs[&J::TimeToFirstTokenMean].len(), 30);
    assert_eq!(
        (
            found.control_start_unix_seconds,
            found.control_end_unix_seconds
        ),
        (START, START + 150.0)
    );
    assert_eq!(found.start_unix_seconds, START + 150.0);
}

#[test]
fn many_intervals_are_added_up() {
    let all = samples(0..=120);
    let found = observed(&all[0], &all[1], 0.0).unwrap();
    let pairs = &found.pairs[&J::TimeToFirstTokenMean];
    assert_eq!(pairs.len(), 40);
    let requests: f64 = pairs.iter().map(|pair| pair.control.denominator).sum();
    assert_eq!(requests, found.traffic.requests[1]);
    let text = serde_json::to_string(&found).unwrap();
    assert!(text.len() < 16_000, "{}", text.len());
}

#[test]
fn a_control_that_is_mostly_gone_is_left_out() {
    let all = samples(0..=30);
    let mut gone = all[1].clone();
    gone.samples.truncate(8);
    let found = observe(
        &[&all[0]],
        &[&all[1], &gone],
        &profile(),
        &Bounds::default(),
        START,
    )
    .unwrap();
    assert_eq!(
        (
            found.control_replicas,
            found.pairs[&J::TimeToFirstTokenMean].len()
        ),
        (1, 30)
    );
    assert!(found.dropped[0].contains("left out"), "{:?}", found.dropped);
}

#[test]
fn sides_that_are_missing_are_refused_with_what_to_do() {
    let all = samples(0..=3);
    let none: [&ReplicaSamples; 0] = [];
    let bounds = Bounds::default();
    let of = |canary: &[&ReplicaSamples], control: &[&ReplicaSamples], after| {
        observe(canary, control, &profile(), &bounds, after).unwrap_err()
    };
    assert_eq!(of(&none, &[&all[0]], START), NotObserved::NoCanary);
    assert_eq!(of(&[&all[0]], &none, START), NotObserved::NoControl);
    let nothing = of(&[&all[0]], &[&all[1]], START + 14.0);
    assert!(
        nothing.to_string().contains("wait for more scrapes"),
        "{nothing}"
    );
}

#[test]
fn bounds_are_chosen_from_the_control() {
    let all = samples(0..=60);
    let chosen = |slos: &[_], accepted: &BTreeMap<J, f64>| {
        Bounds::of(slos, &[&all[0], &all[1]], &profile(), accepted)
    };
    let usual = chosen(&[], &BTreeMap::new());
    let whole = usual.end_to_end_latency_seconds.unwrap();
    assert!(
        usual.time_to_first_token_seconds.is_some() && usual.inter_token_latency_seconds.is_some()
    );
    assert_eq!(usual.canary_end_to_end_latency_seconds, None);
    let moved = chosen(&[], &[(J::EndToEndLatencyBeyond, 1.2)].into());
    assert_eq!(moved.end_to_end_latency_seconds, Some(whole));
    assert!(moved.canary_end_to_end_latency_seconds.unwrap() > whole);
    assert_eq!(
        chosen(&crate::analysis::Slo::defaults(), &BTreeMap::new()),
        usual,
        "nobody comes near the defaults"
    );
}
