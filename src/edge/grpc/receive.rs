//! Protobuf → domain of a measurement that a client sends back: the way back of what `convert` sends.
//!
//! Whatever a client can write is either a measurement that we could have made or a violation with the path of the first
//! field that is wrong. The summaries (`request_metrics` and its like) follow from `figures` and are not read.

use prost_types::Timestamp;

use super::fields::{Path, Read, count, finite, list, list_of, named, required, set, short};
use super::pb;
use crate::agent::LIMITS;
use crate::engine::{Quantity, QuantityKind, Setting};
use crate::measure::{
    Absence, Basis, Bounded, Bucket, Distribution, DropCause, DroppedInterval, Figures, Gauge,
    Interval, Measurement, Note, NoteCode, Quantile, QuantityValue, Replica, ReplicaFailure,
    Series, Window, WindowKind,
};
use crate::units::{is_id, nearest};

/// More than any text of ours has that is written into many others.
const MAX_TEXT_BYTES: usize = 4_096;

/// A window of 5 minutes has 300.
const MAX_INTERVALS: usize = 4_096;

/// The measurement in this field of a request.
///
/// # Errors
/// The first field that is wrong.
pub fn measurement(field: &str, of: Option<pb::Measurement>) -> Read<Measurement> {
    let path = Path::root(field);
    let of = required(&path, of)?;
    if !is_id(&of.instance_id) {
        return Err(path.field("instance_id").wrong(
            "must be 1 to 63 lower-case letters, digits, `-` and `.`, as CollectMetrics gave it",
        ));
    }
    if of.instance_type.is_empty() {
        return Err(path
            .field("instance_type")
            .wrong("must be set, such as vllm"));
    }
    bounded(&path.field("instance_type"), &of.instance_type)?;
    for (name, text) in [
        ("engine_version", &of.engine_version),
        ("model_name", &of.model_name),
    ] {
        bounded(&path.field(name), text.as_deref().unwrap_or_default())?;
    }
    let replicas = path.field("replicas");
    let window = window(&path.field("window"), of.window)?;
    let figures = figures(&path.field("figures"), of.figures)?;
    let only = (of.replicas.len() == 1).then(|| Figures {
        // of the instance only
        series: Vec::new(),
        ..figures.clone()
    });
    let of_replica = |path: &Path<'_>, one| replica(path, one, only.as_ref());
    Ok(Measurement {
        window,
        replicas: list_of(&replicas, of.replicas, LIMITS.replicas, of_replica)?,
        figures,
        settings: list(&path.field("settings"), of.settings, |_, one| {
            Ok(setting(one))
        })?,
        notes: list(&path.field("notes"), of.notes, note)?,
        instance_id: of.instance_id,
        engine: of.instance_type,
        engine_version: of.engine_version,
        model_name: of.model_name,
        simulated: of.simulated,
    })
}

fn bounded(path: &Path<'_>, text: &str) -> Read<()> {
    match text.len() {
        0..=MAX_TEXT_BYTES => Ok(()),
        bytes => Err(path.wrong(format!("{bytes} bytes; at most {MAX_TEXT_BYTES}"))),
    }
}

fn quantity_named(path: &Path<'_>, name: &str) -> Read<Quantity> {
    Quantity::from_name(name).ok_or_else(|| {
        let known = Quantity::ALL.iter().map(|quantity| quantity.name());
        let name = short(name);
        let meant = nearest(&name, known).unwrap_or_default();
        path.wrong(format!(
            "no quantity `{name}`; the nearest is `{meant}`, and GetCapabilities lists all"
        ))
    })
}

fn of_kind(path: &Path<'_>, name: &str, kind: QuantityKind) -> Read<()> {
    let path = path.field("name");
    if quantity_named(&path, name)?.kind() == kind {
        Ok(())
    } else {
        Err(path.wrong(format!("`{name}` is none of this kind")))
    }
}

fn basis(path: &Path<'_>, number: i32) -> Read<Basis> {
    match pb::Basis::try_from(number) {
        Ok(pb::Basis::Exact) => Ok(Basis::Exact),
        Ok(pb::Basis::Interpolated) => Ok(Basis::Interpolated),
        Ok(pb::Basis::Approximate) => Ok(Basis::Approximate),
        Ok(pb::Basis::ImpliedZero) => Ok(Basis::ImpliedZero),
        Ok(pb::Basis::Unspecified) | Err(_) => Err(path
            .field("basis")
            .wrong(format!("{number} is no basis: EXACT is 1, IMPLIED_ZERO 4"))),
    }
}

fn unix_seconds(path: &Path<'_>, at: Option<Timestamp>) -> Read<f64> {
    let at = required(path, at)?;
    // the years 1 to 9999, as the type defines it
    let valid = (-62_135_596_800..=253_402_300_799).contains(&at.seconds)
        && (0..1_000_000_000).contains(&at.nanos);
    if !valid {
        return Err(path.wrong("is no valid timestamp"));
    }
    Ok(at.seconds as f64 + f64::from(at.nanos) / 1e9)
}

fn window(path: &Path<'_>, of: Option<pb::Window>) -> Read<Window> {
    let of = required(path, of)?;
    let kind = match pb::WindowKind::try_from(of.kind) {
        Ok(pb::WindowKind::Interval) => WindowKind::Interval,
        Ok(pb::WindowKind::SinceStart) => WindowKind::SinceStart,
        Ok(pb::WindowKind::Unspecified) | Err(_) => {
            return Err(path
                .field("kind")
                .wrong(format!("{} is none: INTERVAL is 1, SINCE_START 2", of.kind)));
        }
    };
    let observed = path.field("observed_seconds");
    let window = Window {
        start_unix_seconds: unix_seconds(&path.field("start_time"), of.start_time)?,
        end_unix_seconds: unix_seconds(&path.field("end_time"), of.end_time)?,
        kind,
        observed_seconds: count(&observed, required(&observed, of.observed_seconds)?)?,
        samples: of.samples,
    };
    if window.end_unix_seconds < window.start_unix_seconds {
        return Err(path.field("end_time").wrong("is before start_time"));
    }
    Ok(window)
}

fn figures(path: &Path<'_>, of: Option<pb::Figures>) -> Read<Figures> {
    let of = required(path, of)?;
    Ok(Figures {
        quantities: named(
            &path.field("quantities"),
            of.quantities,
            |one: &QuantityValue| &one.name,
            quantity,
        )?,
        distributions: named(
            &path.field("distributions"),
            of.distributions,
            |one: &Distribution| &one.name,
            distribution,
        )?,
        gauges: named(
            &path.field("gauges"),
            of.gauges,
            |one: &Gauge| &one.name,
            gauge,
        )?,
        absent: list(&path.field("absent"), of.absent, absence)?,
        series: named(
            &path.field("series"),
            of.series,
            |one: &Series| &one.name,
            series,
        )?,
    })
}

fn quantity(path: &Path<'_>, of: pb::Quantity) -> Read<QuantityValue> {
    use pb::quantity::Bound;
    let bound = path.field("bound");
    let value = match required(&bound, of.bound)? {
        Bound::Value(value) => Bounded::Value(finite(&bound, value)?),
        Bound::AtMost(value) => Bounded::AtMost(finite(&bound, value)?),
        Bound::AtLeast(value) => Bounded::AtLeast(finite(&bound, value)?),
    };
    Ok(QuantityValue {
        value,
        basis: basis(path, of.basis)?,
        name: of.name.into(),
        source: of.source_metric.into(),
    })
}

fn distribution(path: &Path<'_>, of: pb::Distribution) -> Read<Distribution> {
    of_kind(path, &of.name, QuantityKind::Distribution)?;
    let (counted, mean) = (path.field("count"), path.field("mean"));
    let at = path.field("buckets");
    let buckets = list(&at, of.buckets, bucket)?;
    let neighbours = buckets.iter().zip(buckets.iter().skip(1)).enumerate();
    for (before, (one, next)) in neighbours {
        if next.above.is_none_or(|above| above < one.at_most) {
            return Err(at.at(before + 1).wrong("overlaps the bucket before it"));
        }
    }
    Ok(Distribution {
        count: count(&counted, required(&counted, of.count)?)?,
        mean: of.mean.map(|value| finite(&mean, value)).transpose()?,
        quantiles: list(&path.field("quantiles"), of.quantiles, quantile)?,
        buckets,
        basis: basis(path, of.basis)?,
        name: of.name.into(),
        source: of.source_metric.into(),
    })
}

fn quantile(path: &Path<'_>, of: pb::Quantile) -> Read<Quantile> {
    use pb::quantile::Bound;
    if !(0.0..=1.0).contains(&of.quantile) {
        return Err(path.field("quantile").wrong("must be between 0 and 1"));
    }
    let bound = path.field("bound");
    let value = match required(&bound, of.bound)? {
        Bound::Value(value) => Bounded::Value(finite(&bound, value)?),
        Bound::AtMost(value) => Bounded::AtMost(finite(&bound, value)?),
        Bound::AtLeast(value) => Bounded::AtLeast(finite(&bound, value)?),
    };
    // whether it is interpolated or a bound follows from which it is
    Ok(Quantile {
        q: of.quantile,
        value,
    })
}

fn bucket(path: &Path<'_>, of: pb::Bucket) -> Read<Bucket> {
    let above = path.field("above");
    let above = of.above.map(|value| finite(&above, value)).transpose()?;
    let is_above = |bound: f64| above.is_none_or(|above| above < bound);
    // the last bucket is infinite
    if !is_above(of.at_most) || of.at_most.is_nan() || of.at_most == f64::NEG_INFINITY {
        return Err(path
            .field("at_most")
            .wrong("must be a number beyond `above`"));
    }
    Ok(Bucket {
        above,
        at_most: of.at_most,
        count: count(&path.field("count"), of.count)?,
    })
}

fn gauge(path: &Path<'_>, of: pb::Gauge) -> Read<Gauge> {
    of_kind(path, &of.name, QuantityKind::Gauge)?;
    let gauge = Gauge {
        min: set(&path.field("min"), of.min)?,
        mean: set(&path.field("mean"), of.mean)?,
        max: set(&path.field("max"), of.max)?,
        last: set(&path.field("last"), of.last)?,
        samples: of.samples,
        basis: basis(path, of.basis)?,
        name: of.name.into(),
        source: of.source_metric.into(),
    };
    if !(gauge.min <= gauge.last && gauge.last <= gauge.max) {
        return Err(path.field("last").wrong("must lie between min and max"));
    }
    Ok(gauge)
}

fn absence(path: &Path<'_>, of: pb::Absence) -> Read<Absence> {
    bounded(&path.field("reason"), &of.reason)?;
    bounded(&path.field("hint"), of.hint.as_deref().unwrap_or_default())?;
    Ok(Absence {
        quantity: quantity_named(&path.field("name"), &of.name)?,
        reason: of.reason.into(),
        hint: of.hint.map(Into::into),
    })
}

fn series(path: &Path<'_>, of: pb::Series) -> Read<Series> {
    let length = of.start_ticks.len();
    if length > MAX_INTERVALS {
        let most = format!("{length} intervals; at most {MAX_INTERVALS}");
        return Err(path.field("start_ticks").wrong(most));
    }
    for (name, other) in [
        ("end_ticks", of.end_ticks.len()),
        ("numerators", of.numerators.len()),
        ("denominators", of.denominators.len()),
    ] {
        if other != length {
            let wrong = format!("{other} entries, and start_ticks has {length}");
            return Err(path.field(name).wrong(wrong));
        }
    }
    let ticks = of.start_ticks.into_iter().zip(of.end_ticks);
    let values = of.numerators.into_iter().zip(of.denominators);
    let mut intervals: Vec<Interval> = Vec::with_capacity(length);
    for (at, ((start_tick, end_tick), (numerator, denominator))) in ticks.zip(values).enumerate() {
        let before = intervals.last().map_or(0, |before| before.end_tick);
        if end_tick <= start_tick || end_tick < before {
            let wrong = "must be after its start tick, and not before the one before it";
            return Err(path.field("end_ticks").at(at).wrong(wrong));
        }
        intervals.push(Interval {
            start_tick,
            end_tick,
            numerator: finite(&path.field("numerators").at(at), numerator)?,
            denominator: finite(&path.field("denominators").at(at), denominator)?,
        });
    }
    Ok(Series {
        name: of.name,
        intervals,
    })
}

/// A replica; the figures of an only one may stand in the measurement alone.
fn replica(path: &Path<'_>, of: pb::ReplicaMeasurement, only: Option<&Figures>) -> Read<Replica> {
    bounded(&path.field("metrics_url"), &of.metrics_url)?;
    let outcome = match (of.figures, of.failure) {
        (Some(found), None) => Ok(figures(&path.field("figures"), Some(found))?),
        (None, None) if only.is_some() => Ok(only.cloned().unwrap_or_default()),
        (None, Some(failure)) => Err(ReplicaFailure {
            reason: failure.reason,
            message: failure.message,
        }),
        _ => {
            let wrong = "must be set where `failure` is not, and only there";
            return Err(path.field("figures").wrong(wrong));
        }
    };
    Ok(Replica {
        metrics_url: of.metrics_url,
        outcome,
        samples: of.samples,
        failed_scrapes: of.failed_scrapes,
        dropped: list(
            &path.field("dropped_intervals"),
            of.dropped_intervals,
            dropped,
        )?,
    })
}

fn dropped(path: &Path<'_>, of: pb::DroppedInterval) -> Read<DroppedInterval> {
    Ok(DroppedInterval {
        start_unix_seconds: unix_seconds(&path.field("start_time"), of.start_time)?,
        end_unix_seconds: unix_seconds(&path.field("end_time"), of.end_time)?,
        cause: match of.cause.as_str() {
            "RESTARTED" => DropCause::Restart {
                evidence: of.evidence,
            },
            "NOT_ADVANCED" => DropCause::NotAdvanced,
            _ => {
                let wrong = "must be RESTARTED or NOT_ADVANCED";
                return Err(path.field("cause").wrong(wrong));
            }
        },
    })
}

fn setting(of: pb::Setting) -> Setting {
    Setting {
        name: of.name,
        flag: of.flag,
        value: of.value,
        source: of.source,
    }
}

fn note(path: &Path<'_>, of: pb::Note) -> Read<Note> {
    let known = || NoteCode::ALL.iter().copied();
    let code = known()
        .find(|code| code.as_str() == of.code)
        .ok_or_else(|| {
            let words: Vec<&str> = known().map(NoteCode::as_str).collect();
            path.field("code")
                .wrong(format!("must be one of {}", words.join(", ")))
        })?;
    Ok(Note {
        code,
        metrics_url: of.metrics_url,
        message: of.message,
    })
}
