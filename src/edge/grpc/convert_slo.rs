//! SLOs ↔ protobuf, and what became of them → protobuf.

use super::convert::{basis, note, window};
use super::fields::{Path, Read, list_of};
use super::pb;
use super::status::scrape_failure;
use crate::agent::SloAnswer;
use crate::analysis::{
    Aggregation, Burn, BurnPair, Compliance, ComplianceStatus, Deduction, DeductionSource,
    ErrorBudget, HealthScore, MAX_SLOS, Measured, Side, Slo,
};
use crate::measure::Bounded;

/// SLOs of a request; what they must be is checked where they are used.
pub fn slos_of(field: &str, slos: Vec<pb::Slo>) -> Read<Vec<Slo>> {
    list_of(&Path::root(field), slos, MAX_SLOS, slo_of)
}

fn slo_of(path: &Path<'_>, of: pb::Slo) -> Read<Slo> {
    use pb::SloAggregation as Wire;
    let at = path.field("aggregation");
    let unknown = |_| at.wrong(format!("{} is none of the enum", of.aggregation));
    let aggregation = match (
        Wire::try_from(of.aggregation).map_err(unknown)?,
        of.quantile,
    ) {
        (Wire::Quantile | Wire::Unspecified, Some(q)) => Aggregation::quantile(q),
        (Wire::Quantile, None) => {
            return Err(path.field("quantile").wrong("must be set for QUANTILE"));
        }
        (Wire::Mean | Wire::Value, Some(_)) => {
            return Err(path
                .field("quantile")
                .wrong("must be set for QUANTILE only"));
        }
        (Wire::Mean, None) => Aggregation::Mean,
        (Wire::Value | Wire::Unspecified, None) => Aggregation::Value,
    };
    let (comparison, target) = match of.target {
        Some(pb::slo::Target::AtMost(target)) => (Side::AtMost, target),
        Some(pb::slo::Target::AtLeast(target)) => (Side::AtLeast, target),
        None => {
            let target = path.field("target");
            return Err(target.wrong("must be set: at_most or at_least"));
        }
    };
    Ok(Slo {
        name: of.name,
        quantity: of.quantity,
        aggregation,
        comparison,
        target,
        only_while_requests_wait: of.only_while_requests_wait,
    })
}

/// An SLO on the wire.
pub fn slo(of: &Slo) -> pb::Slo {
    let (aggregation, quantile) = match of.aggregation {
        Aggregation::Mean => (pb::SloAggregation::Mean, None),
        Aggregation::Quantile(q) => (pb::SloAggregation::Quantile, Some(q)),
        Aggregation::Value => (pb::SloAggregation::Value, None),
    };
    pb::Slo {
        name: of.name.clone(),
        quantity: of.quantity.clone(),
        aggregation: aggregation.into(),
        quantile,
        target: Some(match of.comparison {
            Side::AtMost => pb::slo::Target::AtMost(of.target),
            Side::AtLeast => pb::slo::Target::AtLeast(of.target),
        }),
        only_while_requests_wait: of.only_while_requests_wait,
    }
}

/// The answer to EvaluateSlos, for every edge.
pub fn evaluated(of: &SloAnswer) -> pb::EvaluateSlosResponse {
    pb::EvaluateSlosResponse {
        status: status(of.status()).into(),
        slos: of.compliances.iter().map(compliance).collect(),
        error_budgets: of.budgets.iter().map(error_budget).collect(),
        window: Some(window(&of.window)),
        instance_id: of.instance_id.clone(),
        instance_type: of.engine.clone(),
        simulated: of.simulated,
        stale: of.stale,
        last_failure: of.failure.as_ref().map(scrape_failure),
        notes: of.notes.iter().map(note).collect(),
    }
}

/// How an SLO was kept.
pub(super) fn compliance(of: &Compliance) -> pb::SloCompliance {
    use pb::slo_compliance::Margin;
    pb::SloCompliance {
        slo: Some(slo(&of.slo)),
        status: status(of.status).into(),
        reason: of.reason.clone(),
        measured: of.value.as_ref().map(|value| measured(&of.slo, value)),
        margin: of.margin_ratio.map(|margin| match margin {
            Bounded::Value(ratio) => Margin::MarginRatio(ratio),
            Bounded::AtMost(ratio) => Margin::MarginAtMostRatio(ratio),
            Bounded::AtLeast(ratio) => Margin::MarginAtLeastRatio(ratio),
        }),
        share_beyond: of.share_beyond.map(|share| pb::ShareBeyond {
            at_least_ratio: share.at_least,
            at_most_ratio: share.at_most,
        }),
        missing: of
            .missing
            .as_ref()
            .map_or_else(String::new, |missing| missing.quantity.clone()),
        hint: of.missing.as_ref().and_then(|missing| missing.hint.clone()),
    }
}

fn measured(slo: &Slo, of: &Measured) -> pb::Quantity {
    use pb::quantity::Bound;
    pb::Quantity {
        name: slo.quantity.clone(),
        bound: Some(match of.value {
            Bounded::Value(value) => Bound::Value(value),
            Bounded::AtMost(value) => Bound::AtMost(value),
            Bounded::AtLeast(value) => Bound::AtLeast(value),
        }),
        basis: basis(of.basis),
        source_metric: of.source.to_string(),
    }
}

fn status(of: ComplianceStatus) -> pb::SloStatus {
    match of {
        ComplianceStatus::Met => pb::SloStatus::Met,
        ComplianceStatus::Violated => pb::SloStatus::Violated,
        ComplianceStatus::NotApplicable => pb::SloStatus::NotApplicable,
        ComplianceStatus::Unknown => pb::SloStatus::Unknown,
    }
}

fn error_budget(of: &ErrorBudget) -> pb::ErrorBudget {
    pb::ErrorBudget {
        slo: of.slo.clone(),
        budget_ratio: of.budget_ratio,
        fast: Some(burn_pair(&of.fast)),
        slow: Some(burn_pair(&of.slow)),
        left_ratio: of.left_ratio,
    }
}

fn burn_pair(of: &BurnPair) -> pb::BurnPair {
    pb::BurnPair {
        short: Some(burn(&of.short)),
        long: Some(burn(&of.long)),
        threshold: of.threshold,
        firing: of.firing,
    }
}

fn burn(of: &Burn) -> pb::BurnRate {
    pb::BurnRate {
        window_minutes: of.window_minutes,
        covered_minutes: of.covered_minutes,
        rate: of.rate,
    }
}

/// How healthy an instance is.
pub(super) fn health(of: &HealthScore) -> pb::HealthScore {
    pb::HealthScore {
        score: of.score,
        deductions: of.deductions.iter().map(deduction).collect(),
    }
}

fn deduction(of: &Deduction) -> pb::HealthDeduction {
    use pb::health_deduction::Source;
    pb::HealthDeduction {
        source: Some(match &of.source {
            DeductionSource::Finding(cause) => Source::Cause(cause.as_str().to_owned()),
            DeductionSource::Slo(name) => Source::Slo(name.clone()),
        }),
        points: of.points,
        reason: of.reason.clone(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_proto() {
        for one in ComplianceStatus::ALL {
            let word = status(*one).as_str_name();
            assert_eq!(word, format!("SLO_STATUS_{}", one.as_str()));
        }
    }

    #[test]
    fn an_slo_comes_back() {
        let sent: Vec<pb::Slo> = Slo::defaults().iter().map(slo).collect();
        assert_eq!(slos_of("slos", sent).unwrap(), Slo::defaults());
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let field = |change: fn(&mut pb::Slo)| {
            let mut one = slo(&Slo::defaults().remove(0));
            change(&mut one);
            slos_of("instance.slos", vec![one]).unwrap_err().field
        };
        assert_eq!(field(|slo| slo.target = None), "instance.slos[0].target");
        assert_eq!(
            field(|slo| slo.quantile = None),
            "instance.slos[0].quantile"
        );
        assert_eq!(
            field(|slo| slo.aggregation = 1),
            "instance.slos[0].quantile"
        );
        assert_eq!(
            field(|slo| slo.aggregation = 9),
            "instance.slos[0].aggregation"
        );
    }
}
