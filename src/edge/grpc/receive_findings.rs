//! Bottlenecks that a client sends back, or has from elsewhere → findings: whole, or bare with nothing but a cause or a type.

use std::sync::Arc;

use super::fields::{Path, Read, finite, list_of, short};
use super::pb;
use crate::analysis::{
    BottleneckType, Cause, Comparison, Cost, CostKind, Evidence, Finding, Severity, Treatment,
};
use crate::measure::Bounded;
use crate::units::nearest;

/// One a cause, and no more than there are.
const MAX_BOTTLENECKS: usize = 64;
/// Evidence and costs of one bottleneck: more than any of ours has.
const MAX_PARTS: usize = 64;
/// More than any text of ours has.
const MAX_TEXT_BYTES: usize = 4_096;
/// Statistics that evidence has; what is none of them says nothing to us.
const STATISTICS: [&str; 7] = ["min", "mean", "max", "p50", "p99", "last", "increase"];

/// The findings in this field of a request.
///
/// # Errors
/// The first field that is wrong.
pub fn findings_of(field: &str, of: Vec<pb::Bottleneck>) -> Read<Vec<Finding>> {
    list_of(&Path::root(field), of, MAX_BOTTLENECKS, finding)
}

fn finding(path: &Path<'_>, of: pb::Bottleneck) -> Read<Finding> {
    let cause = cause(path, &of)?;
    let confidence = path.field("confidence");
    let texts = [
        ("description", &of.description),
        ("recommendation", &of.recommendation),
    ];
    for (name, text) in texts {
        bounded(&path.field(name), text)?;
    }
    let treatments = of.treatments.iter().filter_map(|number| treatment(*number));
    Ok(Finding {
        cause,
        severity: severity(path, of.severity)?,
        // who sends nothing but a cause is sure of it
        confidence: match finite(&confidence, of.confidence)? {
            0.0 => 1.0,
            told if (0.0..=1.0).contains(&told) => told,
            told => return Err(confidence.wrong(format!("must be between 0 and 1, not {told}"))),
        },
        evidence: list_of(&path.field("evidence"), of.evidence, MAX_PARTS, evidence)?,
        costs: list_of(&path.field("costs"), of.costs, MAX_PARTS, cost)?,
        treatments: treatments.collect(),
        explained_by: match of.explained_by.as_str() {
            "" => None,
            name => Some(named(&path.field("explained_by"), name)?),
        },
        description: of.description,
        recommendation: of.recommendation,
        replicas: list_of(
            &path.field("metrics_urls"),
            of.metrics_urls,
            MAX_PARTS,
            |at, url| bounded(at, &url).map(|()| url),
        )?,
    })
}

/// The cause that is named, else the first that is listed under the type.
fn cause(path: &Path<'_>, of: &pb::Bottleneck) -> Read<Cause> {
    let at = path.field("type");
    let kind = pb::BottleneckType::try_from(of.r#type)
        .map_err(|_| at.wrong(format!("{} is none of the enum", of.r#type)))?;
    let kind = bottleneck_type(kind);
    if of.cause.is_empty() {
        let first = kind.and_then(|kind| Cause::ALL.iter().find(|cause| cause.kind() == kind));
        return first.copied().ok_or_else(|| {
            let why = "must be set where no type tells it; GetCapabilities lists all causes";
            path.field("cause").wrong(why)
        });
    }
    let cause = named(&path.field("cause"), &of.cause)?;
    match kind {
        Some(kind) if kind != cause.kind() => Err(at.wrong(format!(
            "{} is listed under {}, not under {}",
            cause.as_str(),
            cause.kind().as_str(),
            kind.as_str()
        ))),
        _ => Ok(cause),
    }
}

fn named(path: &Path<'_>, name: &str) -> Read<Cause> {
    let found = Cause::ALL.iter().find(|cause| cause.as_str() == name);
    found.copied().ok_or_else(|| {
        let name = short(name);
        let known = Cause::ALL.iter().map(|cause| cause.as_str());
        let meant = nearest(&name, known).unwrap_or_default();
        path.wrong(format!(
            "no cause `{name}`; the nearest is `{meant}`, and GetCapabilities lists all"
        ))
    })
}

fn bottleneck_type(of: pb::BottleneckType) -> Option<BottleneckType> {
    let word = of.as_str_name().strip_prefix("BOTTLENECK_TYPE_")?;
    let found = BottleneckType::ALL.iter().find(|one| one.as_str() == word);
    found.copied()
}

/// A bare one is felt: how much is not told.
fn severity(path: &Path<'_>, number: i32) -> Read<Severity> {
    match pb::Severity::try_from(number) {
        Ok(pb::Severity::Low) => Ok(Severity::Low),
        Ok(pb::Severity::Medium | pb::Severity::Unspecified) => Ok(Severity::Medium),
        Ok(pb::Severity::High) => Ok(Severity::High),
        Ok(pb::Severity::Critical) => Ok(Severity::Critical),
        Err(_) => Err(path
            .field("severity")
            .wrong(format!("{number} is none of the enum"))),
    }
}

/// A kind of change that we know; others say nothing to us.
fn treatment(number: i32) -> Option<Treatment> {
    let word = pb::OptimizationType::try_from(number).ok()?.as_str_name();
    let word = word.strip_prefix("OPTIMIZATION_TYPE_")?;
    let found = Treatment::ALL.iter().find(|one| one.as_str() == word);
    found.copied()
}

fn evidence(path: &Path<'_>, of: pb::Evidence) -> Read<Evidence> {
    use pb::evidence::Bound;
    let at = path.field("bound");
    let value = match of.bound {
        Some(Bound::Value(value)) => Bounded::Value(finite(&at, value)?),
        Some(Bound::AtMost(value)) => Bounded::AtMost(finite(&at, value)?),
        Some(Bound::AtLeast(value)) => Bounded::AtLeast(finite(&at, value)?),
        None => return Err(at.wrong("must be set: value, at_most or at_least")),
    };
    let texts = [
        ("quantity", &of.quantity),
        ("threshold_name", &of.threshold_name),
        ("source_metric", &of.source_metric),
    ];
    for (name, text) in texts {
        bounded(&path.field(name), text)?;
    }
    let threshold = path.field("threshold");
    Ok(Evidence {
        statistic: STATISTICS
            .into_iter()
            .find(|known| *known == of.statistic)
            .unwrap_or_default(),
        value,
        comparison: match of.comparison() {
            pb::EvidenceComparison::AtLeast => Comparison::AtLeast,
            pb::EvidenceComparison::Below => Comparison::Below,
            pb::EvidenceComparison::Unspecified => Comparison::None,
        },
        threshold: match of.threshold {
            Some(value) => Some(finite(&threshold, value)?),
            None => None,
        },
        quantity: of.quantity,
        threshold_name: of.threshold_name,
        source_metric: Arc::from(of.source_metric),
    })
}

fn cost(path: &Path<'_>, of: pb::BottleneckCost) -> Read<Cost> {
    let kinds = [
        CostKind::TtftSeconds,
        CostKind::ItlSeconds,
        CostKind::TokensPerSecond,
        CostKind::FailedRequests,
    ];
    let kind = kinds.into_iter().find(|kind| kind.as_str() == of.name);
    Ok(Cost {
        kind: kind.ok_or_else(|| {
            let words = kinds.map(CostKind::as_str).join(", ");
            path.field("name").wrong(format!("must be one of {words}"))
        })?,
        value: finite(&path.field("value"), of.value)?,
    })
}

fn bounded(path: &Path<'_>, text: &str) -> Read<()> {
    match text.len() {
        0..=MAX_TEXT_BYTES => Ok(()),
        bytes => Err(path.wrong(format!("{bytes} bytes; at most {MAX_TEXT_BYTES}"))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::super::convert_analysis;
    use super::*;

    fn whole() -> Finding {
        Finding {
            cause: Cause::SequenceCap,
            severity: Severity::High,
            confidence: 0.9,
            description: "22 wait.".to_owned(),
            evidence: vec![Evidence {
                quantity: "requests_running".to_owned(),
                statistic: "max",
                value: Bounded::AtLeast(4.0),
                comparison: Comparison::AtLeast,
                threshold: Some(4.0),
                threshold_name: "setting:max_num_seqs".to_owned(),
                source_metric: "vllm:num_requests_running".into(),
            }],
            costs: vec![Cost {
                kind: CostKind::TtftSeconds,
                value: 4.5,
            }],
            recommendation: "Raise --max-num-seqs.".to_owned(),
            treatments: vec![Treatment::Batching],
            explained_by: Some(Cause::Capacity),
            replicas: vec!["http://a/metrics".to_owned()],
        }
    }

    #[test]
    fn what_was_told_comes_back() {
        let sent = convert_analysis::bottleneck(&whole(), 0.0);
        assert_eq!(findings_of("bottlenecks", vec![sent]).unwrap(), [whole()]);
    }

    #[test]
    fn a_bare_one_has_a_cause_or_a_type() {
        let read = |r#type: pb::BottleneckType, cause: &str| {
            let bare = pb::Bottleneck {
                r#type: r#type.into(),
                cause: cause.to_owned(),
                ..pb::Bottleneck::default()
            };
            findings_of("bottlenecks", vec![bare]).map(|mut all| all.remove(0))
        };
        use pb::BottleneckType as Type;
        let found = read(Type::Unspecified, "KV_CAPACITY").unwrap();
        assert_eq!(
            (found.cause, found.severity),
            (Cause::KvCapacity, Severity::Medium)
        );
        assert_eq!(found.confidence, 1.0);
        assert_eq!(
            read(Type::QueueBuildup, "").unwrap().cause,
            Cause::SequenceCap
        );
        let field = |r#type, cause| read(r#type, cause).unwrap_err().field;
        assert_eq!(field(Type::Unspecified, ""), "bottlenecks[0].cause");
        assert_eq!(field(Type::Other, ""), "bottlenecks[0].cause");
        assert_eq!(field(Type::Other, "KV_CAPACTY"), "bottlenecks[0].cause");
        assert_eq!(
            field(Type::QueueBuildup, "KV_CAPACITY"),
            "bottlenecks[0].type"
        );
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let field = |change: fn(&mut pb::Bottleneck)| {
            let mut one = convert_analysis::bottleneck(&whole(), 0.0);
            change(&mut one);
            findings_of("bottlenecks", vec![one]).unwrap_err().field
        };
        let at = |place: &str| format!("bottlenecks[0].{place}");
        assert_eq!(field(|one| one.severity = 9), at("severity"));
        assert_eq!(field(|one| one.confidence = 2.0), at("confidence"));
        assert_eq!(field(|one| one.confidence = f64::NAN), at("confidence"));
        assert_eq!(
            field(|one| one.evidence[0].bound = None),
            at("evidence[0].bound")
        );
        assert_eq!(field(|one| one.costs[0].name.clear()), at("costs[0].name"));
        assert_eq!(
            field(|one| one.explained_by = "X".into()),
            at("explained_by")
        );
        assert_eq!(
            field(|one| one.description = "x".repeat(MAX_TEXT_BYTES + 1)),
            at("description")
        );
    }
}
