//! The ledger of predictions → protobuf.

use super::convert::timestamp;
use super::convert_optimization::{change, quantity, replicas};
use super::pb;
use crate::optimization::{
    ActualQuantity, Ended, LedgerEntry, LedgerState, LeverRecord, Origin, QuantityPrediction,
    TrackRecord,
};

/// A prediction that was kept.
pub fn kept(of: &LedgerEntry) -> pb::KeptPrediction {
    let (end, reason, actual) = match &of.state {
        LedgerState::Open { .. } => (None, "", &[][..]),
        LedgerState::Closed {
            at_unix_seconds,
            actual,
            ..
        } => (Some(*at_unix_seconds), "", actual.as_slice()),
        LedgerState::Expired {
            at_unix_seconds,
            reason,
        } => (Some(*at_unix_seconds), reason.as_str(), &[][..]),
    };
    pb::KeptPrediction {
        prediction_id: of.prediction_id.clone(),
        instance_id: of.instance_id.clone(),
        instance_type: of.engine.clone(),
        engine_version: of.engine_version.clone(),
        model_name: of.model_name.clone(),
        simulated: of.simulated,
        lever: of.lever.clone(),
        origin: match of.origin {
            Origin::Recommended => pb::PredictionOrigin::Recommended,
            Origin::Asked => pb::PredictionOrigin::Asked,
        }
        .into(),
        changes: of.changes.iter().map(change).collect(),
        replicas: replicas(of.replicas),
        state: state(of.state.ended()).into(),
        reason: reason.to_owned(),
        quantities: of
            .predicted
            .iter()
            .map(|predicted| beside(predicted, actual))
            .collect(),
        predict_time: timestamp(of.made_at_unix_seconds),
        end_time: end.and_then(timestamp),
    }
}

fn beside(predicted: &QuantityPrediction, actual: &[ActualQuantity]) -> pb::PredictedAndActual {
    let mut measured = actual.iter();
    let actual = measured.find(|actual| actual.quantity == predicted.quantity);
    pb::PredictedAndActual {
        predicted: Some(quantity(predicted)),
        actual: actual.map(|actual| actual.after),
        actual_ratio: actual.map(|actual| actual.ratio),
        covered: actual.map(|actual| actual.covered),
    }
}

/// Which state a prediction is in.
fn state(of: Ended) -> pb::PredictionState {
    match of {
        Ended::Open => pb::PredictionState::Open,
        Ended::Closed => pb::PredictionState::Closed,
        Ended::Expired => pb::PredictionState::Expired,
    }
}

/// How predictions fared: a record for each lever, or for one.
pub fn records(of: &TrackRecord, simulated: bool, lever: Option<&str>) -> Vec<pb::LeverRecord> {
    of.levers()
        .filter(|(name, _)| lever.is_none_or(|lever| lever == *name))
        .map(|(name, of)| record(name, of, simulated))
        .collect()
}

fn record(lever: &str, of: &LeverRecord, simulated: bool) -> pb::LeverRecord {
    let sum = |count: fn(&crate::optimization::Coverage) -> u32| -> u32 {
        of.coverage.values().map(count).sum()
    };
    let (judged, covered) = (sum(|one| one.judged), sum(|one| one.covered));
    pb::LeverRecord {
        lever: lever.to_owned(),
        simulated,
        closed: of.closed,
        covered_ratio: (judged > 0).then(|| f64::from(covered) / f64::from(judged)),
        interval_factor: of.factor(),
        coverage: of
            .coverage
            .iter()
            .map(|(quantity, coverage)| pb::QuantityCoverage {
                quantity: quantity.quantity().to_owned(),
                statistic: quantity.statistic().to_owned(),
                judged: coverage.judged,
                covered: coverage.covered,
            })
            .collect(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::optimization::{Baseline, PredictedQuantity, example};

    fn entry(state: LedgerState) -> LedgerEntry {
        let ttft = (PredictedQuantity::TimeToFirstTokenMean, 4.0, 0.25);
        let rate = (PredictedQuantity::GenerationTokensPerSecond, 400.0, 2.0);
        LedgerEntry {
            prediction_id: "0198".to_owned(),
            instance_id: "vllm-1".to_owned(),
            engine: "vllm".to_owned(),
            engine_version: None,
            model_name: None,
            simulated: true,
            lever: "sequence_cap".to_owned(),
            changes: Vec::new(),
            replicas: Some((1, 2)),
            settings_before: Default::default(),
            predicted: example::prediction(&[ttft, rate]).quantities,
            widened_by: 1.0,
            made_at_unix_seconds: 1e9,
            baseline: Baseline {
                start_unix_seconds: 0.0,
                end_unix_seconds: 60.0,
                replicas: 1,
                requests_per_second: None,
                prompt_tokens: None,
                generation_tokens: None,
            },
            origin: Origin::Asked,
            state,
        }
    }

    fn closed(covered: bool) -> LedgerEntry {
        entry(LedgerState::Closed {
            at_unix_seconds: 2e9,
            start_unix_seconds: 1.9e9,
            end_unix_seconds: 2e9,
            actual: vec![ActualQuantity {
                quantity: PredictedQuantity::TimeToFirstTokenMean,
                after: 1.2,
                ratio: 0.3,
                covered,
            }],
        })
    }

    #[test]
    fn what_was_measured_stands_beside_its_prediction() {
        let told = kept(&closed(true));
        assert_eq!(told.state(), pb::PredictionState::Closed);
        assert_eq!(told.origin(), pb::PredictionOrigin::Asked);
        assert_eq!(told.end_time.unwrap().seconds, 2_000_000_000);
        let ttft = &told.quantities[0];
        assert_eq!(ttft.predicted.as_ref().unwrap().after, 1.0);
        assert_eq!((ttft.actual, ttft.covered), (Some(1.2), Some(true)));
        let rate = &told.quantities[1];
        assert_eq!(
            (rate.actual, rate.actual_ratio, rate.covered),
            (None, None, None)
        );
    }

    #[test]
    fn an_open_one_has_no_end_and_an_expired_one_says_why() {
        let open = kept(&entry(LedgerState::Open {
            seen_in_force_at_unix_seconds: None,
        }));
        assert_eq!((open.end_time, open.reason.as_str()), (None, ""));
        assert_eq!(open.quantities[0].actual, None);
        let expired = kept(&entry(LedgerState::Expired {
            at_unix_seconds: 2e9,
            reason: "the load is another one".to_owned(),
        }));
        assert_eq!(expired.reason, "the load is another one");
        assert!(expired.end_time.is_some());
        for one in [Ended::Open, Ended::Closed, Ended::Expired] {
            let word = state(one).as_str_name();
            assert_eq!(word, format!("PREDICTION_STATE_{}", one.as_str()));
        }
    }

    #[test]
    fn a_record_counts_what_lies_in_the_interval() {
        let entries = [closed(true), closed(false)];
        let record = TrackRecord::of(&entries, true);
        let told = records(&record, true, None);
        assert_eq!((told[0].closed, told[0].covered_ratio), (2, Some(0.5)));
        assert_eq!(
            (told[0].coverage[0].judged, told[0].coverage[0].covered),
            (2, 1)
        );
        assert!(told[0].simulated);
        assert!(records(&record, true, Some("kv_capacity")).is_empty());
        assert!(records(&TrackRecord::of(&entries, false), false, None).is_empty());
    }
}
