//! A recommendation for tests.

use crate::edge::grpc::pb;

/// Raise the cap of a vLLM that may run 4.
pub(in crate::edge::cli) fn answer() -> pb::RecommendOptimizationsResponse {
    let text = str::to_owned;
    pb::RecommendOptimizationsResponse {
        advice: pb::OptimizationAdvice::Change.into(),
        headline: text("Raise --max-num-seqs from 4 to 32"),
        optimizations: vec![optimization()],
        left_out: vec![pb::LeftOutOptimization {
            lever: text("quantization"),
            title: text("Store the KV cache as fp8"),
            reason: text("it may change answers"),
        }],
        remarks: vec![text(
            "no setting `max_batch`; the nearest is `max_num_seqs`",
        )],
        instance_id: text("vllm-1"),
        instance_type: text("vllm"),
        ..pb::RecommendOptimizationsResponse::default()
    }
}

fn optimization() -> pb::Optimization {
    let text = str::to_owned;
    pb::Optimization {
        optimization_id: text("sequence_cap-1f3a9c02"),
        lever: text("sequence_cap"),
        r#type: pb::OptimizationType::Batching.into(),
        priority: pb::OptimizationPriority::High.into(),
        title: text("Raise --max-num-seqs from 4 to 32"),
        reason: text("22 requests wait for one of 4 places."),
        treats: vec![text("SEQUENCE_CAP")],
        changes: vec![pb::KnobChange {
            name: text("max_num_seqs"),
            flag: text("--max-num-seqs"),
            from_value: Some(text("4")),
            to_value: Some(text("32")),
        }],
        prediction: Some(prediction()),
        trade_off: Some(text("Tokens come 10 % later.")),
        risks: vec![text("The KV cache may fill.")],
        watch: vec![text("kv_cache_usage_ratio"), text("preemptions")],
        undo: text("Set --max-num-seqs back to 4."),
        needs_restart: true,
        ..pb::Optimization::default()
    }
}

fn prediction() -> pb::Prediction {
    pb::Prediction {
        quantities: vec![pb::QuantityPrediction {
            quantity: "time_to_first_token_seconds".to_owned(),
            statistic: "mean".to_owned(),
            before: 4.7,
            ratio: 0.0681,
            ratio_low: 0.04,
            ratio_high: 0.1277,
            after: 0.32,
            after_low: 0.19,
            after_high: 0.6,
        }],
        unpredicted: vec![pb::UnpredictedQuantity {
            quantity: "kv_cache_usage_ratio".to_owned(),
            statistic: "mean".to_owned(),
            reason: "its capacity is not told".to_owned(),
        }],
        basis: Some(pb::PredictionBasis {
            windows: 3,
            observed_requests: 120.0,
            simulated_requests: 4_000,
            simulations: 8,
            mismatch_ratio: 0.05,
            assumptions: vec!["Clients ask again once they are answered.".to_owned()],
            track_record: 0,
        }),
    }
}
