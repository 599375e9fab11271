//! What the golden logs carry.

use perfagent::analysis::{Cause, Treatment};
use perfagent::optimization::{
    Effect, KnobChange, Optimization, PredictedQuantity, Prediction, PredictionBasis, Priority,
    QuantityPrediction, Unpredicted,
};
use perfagent::workflow::{
    Analysis, Baseline, FindingSummary, GatePolicy, MeasuredEffect, MeasuredEffects, MeasuredValue,
    PlanDraft, PlanTarget, Strategy, Timeouts, WorkflowKind, WorkflowSpec,
};

pub(super) fn spec(kind: WorkflowKind) -> WorkflowSpec {
    let changes = match kind {
        WorkflowKind::ConfigChange => [
            ("max_num_seqs".to_owned(), Some("256".to_owned())),
            ("--enforce-eager".to_owned(), None),
        ]
        .into(),
        _ => [].into(),
    };
    WorkflowSpec {
        instance_id: "chat".to_owned(),
        kind,
        actuator: "unit".to_owned(),
        changes,
        snapshot_id: None,
        optimization_id: None,
        no_restart: false,
        no_answer_change: true,
        auto_approve: false,
        gate: GatePolicy::default(),
        strategy: Strategy::InPlace,
        timeouts: Timeouts::default(),
        note: "Chat is slow in the morning.".to_owned(),
    }
}

pub(super) fn analysis() -> Analysis {
    Analysis {
        headline: "Too few sequences run at once: 12.5 requests wait.".to_owned(),
        findings: vec![FindingSummary {
            cause: "SEQUENCE_CAP".to_owned(),
            severity: "HIGH".to_owned(),
            description: "12.5 requests wait while the KV cache is 41 % full.".to_owned(),
        }],
        start_unix_seconds: 1_794_999_900.25,
        end_unix_seconds: 1_794_999_960.75,
        simulated: true,
        before: vec![MeasuredValue {
            quantity: PredictedQuantity::TimeToFirstTokenMean,
            value: 2.0 / 3.0,
        }],
    }
}

fn target(place: u32) -> PlanTarget {
    PlanTarget {
        name: format!("chat-{place}"),
        revision: "r1".to_owned(),
        digest_before: format!("a{place}").repeat(32),
        digest_after: format!("b{place}").repeat(32),
        needs_restart: true,
        launch_args: ["--max-num-seqs", "256", "--api-key", "***"]
            .map(str::to_owned)
            .into(),
    }
}

fn changes() -> Vec<KnobChange> {
    vec![KnobChange {
        name: "max_num_seqs".to_owned(),
        flag: "--max-num-seqs".to_owned(),
        from: Some("64".to_owned()),
        to: Some("256".to_owned()),
    }]
}

/// Of the caller's settings: nothing is recommended, and nothing predicted.
pub(super) fn bare() -> PlanDraft {
    PlanDraft {
        headline: "--max-num-seqs from 64 to 256".to_owned(),
        optimizations: Vec::new(),
        chosen: None,
        changes: changes(),
        effect: Effect::NotPredictable("Too few requests were measured.".to_owned()),
        prediction_id: None,
        targets: vec![target(0), target(1)],
        snapshot_id: Some("019ac9a0-1111-7000-8000-000000000001".to_owned()),
        planned_snapshot_id: Some("019ac9a0-1111-7000-8000-000000000002".to_owned()),
        strategy: Strategy::InPlace,
        changes_answers: false,
        needs_restart: true,
        notes: vec!["Each engine is restarted, one after the other.".to_owned()],
    }
}

fn predicted() -> Effect {
    Effect::Predicted(Prediction {
        quantities: vec![QuantityPrediction {
            quantity: PredictedQuantity::GenerationTokensPerSecond,
            before: 101.3,
            ratio: 3.1,
            ratio_low: 2.7,
            ratio_high: 3.45,
        }],
        unpredicted: vec![Unpredicted {
            quantity: PredictedQuantity::TimeToFirstTokenP99,
            reason: "Too few requests were slow.".to_owned(),
        }],
        basis: PredictionBasis {
            windows: 6,
            observed_requests: 240.0,
            simulated_requests: 8_000,
            simulations: 16,
            mismatch_ratio: 0.041,
            assumptions: vec!["Requests come as they came.".to_owned()],
            track_record: 2,
        },
    })
}

/// Of an optimization, with all that can be in a plan.
pub(super) fn applied() -> PlanDraft {
    let optimization = Optimization {
        id: "sequence_cap-1f3a9c02".to_owned(),
        lever: "sequence_cap".to_owned(),
        kind: Some(Treatment::Batching),
        priority: Priority::High,
        title: "Let 256 sequences run at once instead of 64".to_owned(),
        reason: "Requests wait while the KV cache is 41 % full.".to_owned(),
        treats: vec![Cause::SequenceCap],
        changes: changes(),
        replicas: None,
        effect: predicted(),
        trade_off: Some("Tokens come 12 % slower to each.".to_owned()),
        risks: vec!["The KV cache may fill up.".to_owned()],
        watch: vec!["kv_cache_usage_ratio".to_owned()],
        undo: "--max-num-seqs 64".to_owned(),
        prerequisites: Vec::new(),
        changes_answers: false,
        needs_restart: true,
    };
    PlanDraft {
        chosen: Some(optimization.id.clone()),
        optimizations: vec![optimization],
        effect: predicted(),
        prediction_id: Some("019ac9a0-2222-7000-8000-000000000001".to_owned()),
        ..bare()
    }
}

pub(super) fn effects() -> MeasuredEffects {
    MeasuredEffects {
        before_start_unix_seconds: 1_794_999_900.25,
        before_end_unix_seconds: 1_794_999_960.75,
        after_start_unix_seconds: 1_795_000_100.5,
        after_end_unix_seconds: 1_795_000_160.5,
        quantities: vec![MeasuredEffect {
            quantity: PredictedQuantity::GenerationTokensPerSecond,
            before: 101.3,
            after: 314.9,
            ratio: 314.9 / 101.3,
            predicted: Some([3.1, 2.7, 3.45]),
        }],
        headline: "Nothing holds it back.".to_owned(),
    }
}

pub(super) fn baseline() -> Baseline {
    Baseline {
        start_unix_seconds: 1_794_999_990.5,
        end_unix_seconds: 1_795_000_050.5,
        values: vec![MeasuredValue {
            quantity: PredictedQuantity::InterTokenLatencyMean,
            value: 1.0 / 30.0,
        }],
    }
}
