//! Domain → protobuf of what is recommended, predicted and set.

use super::{convert_analysis, pb};
use crate::analysis::Cause;
use crate::optimization::{
    Advice, Effect, InForce, KnobChange, LeftOut, Optimization, Prediction, PredictionBasis,
    Priority, QuantityPrediction, Recommendation, SettingInForce, SettingSource, SettingValue,
    Unpredicted,
};

/// The part of the answer to RecommendOptimizations that says what to do.
pub fn recommendation(of: &Recommendation) -> pb::RecommendOptimizationsResponse {
    pb::RecommendOptimizationsResponse {
        advice: advice(of.advice).into(),
        headline: of.headline.clone(),
        optimizations: of.optimizations.iter().map(optimization).collect(),
        left_out: of.left_out.iter().map(left_out).collect(),
        remarks: of.notes.clone(),
        ..pb::RecommendOptimizationsResponse::default()
    }
}

/// What is recommended, without the id under which its prediction is kept.
pub(super) fn optimization(of: &Optimization) -> pb::Optimization {
    let effect = effect(&of.effect);
    pb::Optimization {
        optimization_id: of.id.clone(),
        lever: of.lever.clone(),
        r#type: match of.kind {
            Some(kind) => convert_analysis::treatment(kind),
            None => pb::OptimizationType::Other,
        }
        .into(),
        priority: priority(of.priority).into(),
        title: of.title.clone(),
        description: of.description(),
        reason: of.reason.clone(),
        treats: of
            .treats
            .iter()
            .map(|cause: &Cause| cause.as_str().to_owned())
            .collect(),
        changes: of.changes.iter().map(change).collect(),
        replicas: replicas(of.replicas),
        prediction: effect.prediction,
        not_predictable_reason: effect.not_predictable_reason,
        estimated_improvement: effect.estimated_improvement,
        trade_off: of.trade_off.clone(),
        risks: of.risks.clone(),
        watch: of.watch.clone(),
        undo: of.undo.clone(),
        prerequisites: of.prerequisites.clone(),
        changes_answers: of.changes_answers,
        needs_restart: of.needs_restart,
        // it is known where it is kept
        prediction_id: String::new(),
    }
}

/// What is predicted, in the fields that answers have for it.
pub fn effect(of: &Effect) -> pb::PredictPerformanceResponse {
    match of {
        Effect::Predicted(of) => pb::PredictPerformanceResponse {
            prediction: Some(prediction(of)),
            estimated_improvement: of
                .improvements()
                .into_iter()
                .map(|(name, share)| (name.to_owned(), share))
                .collect(),
            ..pb::PredictPerformanceResponse::default()
        },
        Effect::NotPredictable(reason) => pb::PredictPerformanceResponse {
            not_predictable_reason: reason.clone(),
            ..pb::PredictPerformanceResponse::default()
        },
    }
}

fn prediction(of: &Prediction) -> pb::Prediction {
    pb::Prediction {
        quantities: of.quantities.iter().map(quantity).collect(),
        unpredicted: of.unpredicted.iter().map(unpredicted).collect(),
        basis: Some(basis(&of.basis)),
    }
}

/// A quantity that is predicted.
pub(super) fn quantity(of: &QuantityPrediction) -> pb::QuantityPrediction {
    let [after, after_low, after_high] = of.after();
    pb::QuantityPrediction {
        quantity: of.quantity.quantity().to_owned(),
        statistic: of.quantity.statistic().to_owned(),
        before: of.before,
        ratio: of.ratio,
        ratio_low: of.ratio_low,
        ratio_high: of.ratio_high,
        after,
        after_low,
        after_high,
    }
}

fn unpredicted(of: &Unpredicted) -> pb::UnpredictedQuantity {
    pb::UnpredictedQuantity {
        quantity: of.quantity.quantity().to_owned(),
        statistic: of.quantity.statistic().to_owned(),
        reason: of.reason.clone(),
    }
}

fn basis(of: &PredictionBasis) -> pb::PredictionBasis {
    pb::PredictionBasis {
        windows: of.windows,
        observed_requests: of.observed_requests,
        simulated_requests: of.simulated_requests,
        simulations: of.simulations,
        mismatch_ratio: of.mismatch_ratio,
        assumptions: of.assumptions.clone(),
        track_record: of.track_record,
    }
}

/// A change of one setting.
pub fn change(of: &KnobChange) -> pb::KnobChange {
    pb::KnobChange {
        name: of.name.clone(),
        flag: of.flag.clone(),
        from_value: of.from.clone(),
        to_value: of.to.clone(),
    }
}

/// A change of the number of replicas.
pub(super) fn replicas(of: Option<(u32, u32)>) -> Option<pb::ReplicaChange> {
    of.map(|(from_count, to_count)| pb::ReplicaChange {
        from_count,
        to_count,
    })
}

fn left_out(of: &LeftOut) -> pb::LeftOutOptimization {
    pb::LeftOutOptimization {
        lever: of.lever.clone(),
        title: of.title.clone(),
        reason: of.reason.clone(),
    }
}

/// The settings in force, in the order of the engine's table.
pub fn settings(of: &InForce) -> Vec<pb::SettingInForce> {
    of.settings.iter().map(setting).collect()
}

fn setting(of: &SettingInForce) -> pb::SettingInForce {
    let (state, value) = match &of.value {
        SettingValue::Known(value) => (pb::SettingState::Known, Some(value.clone())),
        SettingValue::NotSet => (pb::SettingState::NotSet, None),
        SettingValue::Unknown => (pb::SettingState::Unknown, None),
    };
    let (source, detail) = match &of.source {
        SettingSource::Metric(family) => (pb::SettingSource::Metric, family.as_str()),
        SettingSource::Endpoint(path) => (pb::SettingSource::Endpoint, path.as_str()),
        SettingSource::Declared => (pb::SettingSource::Declared, ""),
        SettingSource::Inferred(from) => (pb::SettingSource::Inferred, from.as_str()),
        SettingSource::Default(of) => (pb::SettingSource::Default, of.as_str()),
        SettingSource::Unknown => (pb::SettingSource::Unknown, ""),
    };
    pb::SettingInForce {
        name: of.name.clone(),
        flag: of.flag.clone(),
        state: state.into(),
        value,
        source: source.into(),
        source_detail: detail.to_owned(),
        hint: of.hint.clone(),
    }
}

fn advice(of: Advice) -> pb::OptimizationAdvice {
    match of {
        Advice::Change => pb::OptimizationAdvice::Change,
        Advice::NothingToDo => pb::OptimizationAdvice::NothingToDo,
        Advice::AddCapacity => pb::OptimizationAdvice::AddCapacity,
        Advice::Repair => pb::OptimizationAdvice::Repair,
        Advice::CannotTell => pb::OptimizationAdvice::CannotTell,
    }
}

fn priority(of: Priority) -> pb::OptimizationPriority {
    match of {
        Priority::Low => pb::OptimizationPriority::Low,
        Priority::Medium => pb::OptimizationPriority::Medium,
        Priority::High => pb::OptimizationPriority::High,
        Priority::Critical => pb::OptimizationPriority::Critical,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::optimization::PredictedQuantity;
    use crate::optimization::example;

    #[test]
    fn words_are_those_of_the_protos() {
        for one in [
            Advice::Change,
            Advice::NothingToDo,
            Advice::AddCapacity,
            Advice::Repair,
            Advice::CannotTell,
        ] {
            let word = advice(one).as_str_name();
            assert_eq!(word, format!("OPTIMIZATION_ADVICE_{}", one.as_str()));
        }
        for one in [
            Priority::Low,
            Priority::Medium,
            Priority::High,
            Priority::Critical,
        ] {
            let word = priority(one).as_str_name();
            assert_eq!(word, format!("OPTIMIZATION_PRIORITY_{}", one.as_str()));
        }
    }

    #[test]
    fn an_effect_has_numbers_or_a_reason() {
        let ttft = (PredictedQuantity::TimeToFirstTokenMean, 4.0, 0.25);
        let told = effect(&Effect::Predicted(example::prediction(&[ttft])));
        let numbers = &told.prediction.unwrap().quantities[0];
        assert_eq!(numbers.quantity, "time_to_first_token_seconds");
        assert_eq!(numbers.statistic, "mean");
        assert_eq!(
            (numbers.before, numbers.ratio, numbers.after),
            (4.0, 0.25, 1.0)
        );
        assert_eq!(told.estimated_improvement["ttft"], 0.75);
        assert_eq!(told.not_predictable_reason, "");

        let told = effect(&Effect::NotPredictable("nothing was measured".to_owned()));
        assert_eq!(told.prediction, None);
        assert!(told.estimated_improvement.is_empty());
        assert_eq!(told.not_predictable_reason, "nothing was measured");
    }

    #[test]
    fn settings_say_who_says_so() {
        let of = |value, source| {
            setting(&SettingInForce {
                name: "max_num_seqs".to_owned(),
                flag: "--max-num-seqs".to_owned(),
                value,
                source,
                hint: None,
            })
        };
        let family = "vllm:cache_config_info".to_owned();
        let told = of(
            SettingValue::Known("4".to_owned()),
            SettingSource::Metric(family.clone()),
        );
        assert_eq!(told.state(), pb::SettingState::Known);
        assert_eq!(told.value.as_deref(), Some("4"));
        assert_eq!(told.source(), pb::SettingSource::Metric);
        assert_eq!(told.source_detail, family);
        let told = of(SettingValue::Unknown, SettingSource::Unknown);
        assert_eq!(told.state(), pb::SettingState::Unknown);
        assert_eq!((told.value, told.source_detail.as_str()), (None, ""));
    }
}
