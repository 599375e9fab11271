//! What the RPCs of OptimizationService do: the request read, the agent asked, and the answer written.

use prost::Message;

use super::convert_optimization as write;
use super::convert_slo::slos_of;
use super::convert_struct::{config as config_of, settings_of};
use super::deadline::Deadline;
use super::receive_findings::findings_of;
use super::status::scrape_failure;
use super::{convert, convert_ledger, detect, pb};
use crate::agent::{
    Advised, Agent, Caller, ConfigAnswer, Error, FieldViolation, LIMITS, MAX_PREDICTIONS_PAGE,
    Predicted, Subject,
};
use crate::optimization::{Ended, Limits};
use crate::store::{PredictionFilter, PredictionPlace};

/// The answer to RecommendOptimizations, for every edge.
///
/// # Errors
/// A request that is wrong, and what [`Agent::recommend`] gives.
pub(in crate::edge) async fn recommended(
    agent: &Agent,
    caller: &Caller,
    request: pb::RecommendOptimizationsRequest,
    deadline: Option<Deadline>,
) -> Result<pb::RecommendOptimizationsResponse, Error> {
    let has_config = request.current_config.is_some();
    let given = settings_of("current_config", request.current_config).map_err(invalid)?;
    let limits = limits_of(request.constraints)?;
    let about = pb::DetectBottlenecksRequest {
        instance_id: request.instance_id,
        instance_type: request.instance_type,
        metrics_url: request.metrics_url,
        metrics_urls: request.metrics_urls,
        window: request.window,
        measurement: request.measurement,
        thresholds: Default::default(),
    };
    // who found no bottleneck sends none, of an engine that nobody registered
    let none_found =
        has_config && nothing_to_measure(&about) && agent.instance(&about.instance_id).is_err();
    let subject = match request.bottlenecks.is_empty() && !none_found {
        true => subject_of(about, deadline)?,
        false => told(about, request.bottlenecks)?,
    };
    let advised = agent.recommend(caller, subject, &given, limits).await?;
    Ok(told_advice(&advised))
}

/// The answer to GetInstanceConfig, for every edge.
///
/// # Errors
/// A request that is wrong, and what [`Agent::instance_config`] gives.
pub(in crate::edge) async fn config(
    agent: &Agent,
    caller: &Caller,
    request: pb::GetInstanceConfigRequest,
    deadline: Option<Deadline>,
) -> Result<pb::GetInstanceConfigResponse, Error> {
    let (target, window) = convert::target_of(pb::CollectMetricsRequest {
        instance_id: request.instance_id,
        instance_type: request.instance_type,
        metrics_url: request.metrics_url,
        metrics_urls: request.metrics_urls,
        window: request.window,
        view: pb::MeasurementView::Full.into(),
    });
    let mut window = window.map_err(invalid)?;
    window.deadline_in = deadline.map(Deadline::left);
    let answer = agent.instance_config(caller, &target, window).await?;
    Ok(told_config(&answer))
}

/// The answer to PredictPerformance, for every edge.
///
/// # Errors
/// A request that is wrong, and what [`Agent::predict`] gives.
pub(in crate::edge) async fn predicted(
    agent: &Agent,
    caller: &Caller,
    request: pb::PredictPerformanceRequest,
    deadline: Option<Deadline>,
) -> Result<pb::PredictPerformanceResponse, Error> {
    let changes = settings_of("changes", request.changes).map_err(invalid)?;
    if changes.is_empty() {
        let why = "must be set: what each setting becomes, or null to take its flag away";
        return Err(invalid(FieldViolation::new("changes", why)));
    }
    let given = settings_of("current_config", request.current_config).map_err(invalid)?;
    let limits = limits_of(request.constraints)?;
    let about = pb::DetectBottlenecksRequest {
        instance_id: request.instance_id,
        instance_type: request.instance_type,
        metrics_url: request.metrics_url,
        metrics_urls: request.metrics_urls,
        window: request.window,
        measurement: request.measurement,
        thresholds: Default::default(),
    };
    let subject = subject_of(about, deadline)?;
    let predicted = agent
        .predict(caller, subject, &given, &changes, limits)
        .await?;
    Ok(told_prediction(&predicted))
}

/// The answer to ListPredictions, for every edge.
///
/// # Errors
/// A request that is wrong, and what [`Agent::predictions`] gives.
pub(in crate::edge) async fn listed(
    agent: &Agent,
    request: pb::ListPredictionsRequest,
) -> Result<pb::ListPredictionsResponse, Error> {
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    let filter = PredictionFilter {
        instance_id: given(request.instance_id),
        lever: given(request.lever),
        state: match pb::PredictionState::try_from(request.state) {
            Ok(pb::PredictionState::Unspecified) => None,
            Ok(pb::PredictionState::Open) => Some(Ended::Open),
            Ok(pb::PredictionState::Closed) => Some(Ended::Closed),
            Ok(pb::PredictionState::Expired) => Some(Ended::Expired),
            Err(_) => {
                let why = format!("{} is none of the enum", request.state);
                return Err(invalid(FieldViolation::new("state", why)));
            }
        },
    };
    let after = match request.page_token.as_str() {
        "" => None,
        token => Some(place_of(token)?),
    };
    let size = match request.page_size {
        0 => DEFAULT_PAGE,
        size => size.min(MAX_PREDICTIONS_PAGE),
    };
    let page = agent.predictions(&filter, after.as_ref(), size).await?;
    let lever = filter.lever.as_deref();
    let mut answer = pb::ListPredictionsResponse {
        records: convert_ledger::records(&page.record, false, lever),
        ..pb::ListPredictionsResponse::default()
    };
    let simulated = convert_ledger::records(&page.simulated_record, true, lever);
    answer.records.extend(simulated);
    let (mut more, mut last) = (page.more, None);
    let mut bytes = answer.encoded_len();
    for entry in &page.predictions {
        let next = convert_ledger::kept(entry);
        bytes += next.encoded_len() + ENTRY_BYTES;
        if bytes > LIMITS.response_bytes - PAGE_MARGIN_BYTES && last.is_some() {
            more = true;
            break;
        }
        answer.predictions.push(next);
        last = Some(entry);
    }
    if let Some(last) = last.filter(|_| more) {
        answer.next_page_token = token_of(&PredictionPlace::of(last));
    }
    Ok(answer)
}

const DEFAULT_PAGE: u32 = 100;
/// Room for the token.
const PAGE_MARGIN_BYTES: usize = 1_024;
/// What tells one entry of a list from the next.
const ENTRY_BYTES: usize = 8;

/// A token that begins the page after this place.
fn token_of(place: &PredictionPlace) -> String {
    format!("{:x}.{}", place.made_us, place.prediction_id)
}

fn place_of(token: &str) -> Result<PredictionPlace, Error> {
    let read = |token: &str| {
        let (made_us, prediction_id) = token.split_once('.')?;
        Some(PredictionPlace {
            made_us: i64::from_str_radix(made_us, 16).ok()?,
            prediction_id: prediction_id.to_owned(),
        })
    };
    let place = read(token).filter(|place| token_of(place) == token);
    place.ok_or_else(|| {
        let why = "must be next_page_token of an answer, or empty";
        invalid(FieldViolation::new("page_token", why))
    })
}

fn invalid(violation: FieldViolation) -> Error {
    Error::Invalid(vec![violation])
}

fn limits_of(of: Option<pb::OptimizationConstraints>) -> Result<Limits, Error> {
    let of = of.unwrap_or_default();
    Ok(Limits {
        no_restart: of.no_restart,
        no_answer_change: of.no_answer_change,
        fixed_gpu_count: of.fixed_gpu_count,
        must_hold: slos_of("constraints.must_hold", of.must_hold).map_err(invalid)?,
    })
}

fn subject_of(
    about: pb::DetectBottlenecksRequest,
    deadline: Option<Deadline>,
) -> Result<Subject, Error> {
    Ok(match detect::subject_of(about)? {
        detect::Subject::Measurement(measurement) => Subject::Measurement(measurement),
        detect::Subject::Target(target, mut window) => {
            window.deadline_in = deadline.map(Deadline::left);
            Subject::Target(target, window)
        }
    })
}

/// Whether an engine is named, and nothing to measure it by.
fn nothing_to_measure(about: &pb::DetectBottlenecksRequest) -> bool {
    let named = !["", "auto"].contains(&about.instance_type.as_str());
    named
        && about.metrics_url.is_empty()
        && about.metrics_urls.is_empty()
        && about.measurement.is_none()
        && about.window.is_none()
}

/// Bottlenecks that the caller knows of, with nothing measured.
fn told(
    about: pb::DetectBottlenecksRequest,
    bottlenecks: Vec<pb::Bottleneck>,
) -> Result<Subject, Error> {
    let mut violations = Vec::new();
    let mut wrong = |field: &str, why: &str| violations.push(FieldViolation::new(field, why));
    if !about.metrics_url.is_empty() || !about.metrics_urls.is_empty() {
        let why = "must be empty beside bottlenecks: either the agent measures and finds out, or it is told";
        wrong("metrics_url", why);
    }
    if about.measurement.is_some() {
        wrong(
            "measurement",
            "must be unset beside bottlenecks: it has its own",
        );
    }
    if about.window.is_some() {
        wrong(
            "window",
            "must be unset beside bottlenecks: nothing is measured",
        );
    }
    if ["", "auto"].contains(&about.instance_type.as_str()) {
        let why = "must name the engine beside bottlenecks, such as vllm: nothing is measured that would tell";
        wrong("instance_type", why);
    }
    if !violations.is_empty() {
        return Err(Error::Invalid(violations));
    }
    Ok(Subject::Findings {
        instance_id: about.instance_id,
        engine: about.instance_type,
        findings: findings_of("bottlenecks", bottlenecks).map_err(invalid)?,
    })
}

fn told_advice(of: &Advised) -> pb::RecommendOptimizationsResponse {
    let mut advice = write::recommendation(&of.recommendation);
    for one in &mut advice.optimizations {
        let kept = of.predictions.get(&one.optimization_id);
        one.prediction_id = kept.cloned().unwrap_or_default();
    }
    pb::RecommendOptimizationsResponse {
        settings: write::settings(&of.in_force),
        window: of.window.as_ref().map(convert::window),
        instance_id: of.instance_id.clone(),
        instance_type: of.engine.clone(),
        engine_version: of.engine_version.clone(),
        simulated: of.simulated,
        stale: of.stale,
        last_failure: of.failure.as_ref().map(scrape_failure),
        notes: of.notes.iter().map(convert::note).collect(),
        ..advice
    }
}

fn told_config(of: &ConfigAnswer) -> pb::GetInstanceConfigResponse {
    pb::GetInstanceConfigResponse {
        settings: write::settings(&of.in_force),
        config: Some(config_of(&of.in_force)),
        window: of.window.as_ref().map(convert::window),
        instance_id: of.instance_id.clone(),
        instance_type: of.engine.clone(),
        engine_version: of.engine_version.clone(),
        simulated: of.simulated,
        stale: of.stale,
        last_failure: of.failure.as_ref().map(scrape_failure),
        notes: of.notes.iter().map(convert::note).collect(),
    }
}

fn told_prediction(of: &Predicted) -> pb::PredictPerformanceResponse {
    pb::PredictPerformanceResponse {
        changes: of.changes.iter().map(write::change).collect(),
        settings: write::settings(&of.in_force),
        window: of.window.as_ref().map(convert::window),
        instance_id: of.instance_id.clone(),
        instance_type: of.engine.clone(),
        engine_version: of.engine_version.clone(),
        simulated: of.simulated,
        stale: of.stale,
        last_failure: of.failure.as_ref().map(scrape_failure),
        notes: of.notes.iter().map(convert::note).collect(),
        remarks: of.remarks.clone(),
        prediction_id: of.prediction_id.clone().unwrap_or_default(),
        ..write::effect(&of.effect)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn bare() -> Vec<pb::Bottleneck> {
        vec![pb::Bottleneck {
            cause: "SEQUENCE_CAP".to_owned(),
            ..pb::Bottleneck::default()
        }]
    }

    fn about(change: fn(&mut pb::DetectBottlenecksRequest)) -> pb::DetectBottlenecksRequest {
        let mut about = pb::DetectBottlenecksRequest {
            instance_id: "vllm-1".to_owned(),
            instance_type: "vllm".to_owned(),
            ..pb::DetectBottlenecksRequest::default()
        };
        change(&mut about);
        about
    }

    #[test]
    fn bottlenecks_stand_for_a_measurement() {
        let Subject::Findings {
            instance_id,
            engine,
            findings,
        } = told(about(|_| {}), bare()).unwrap()
        else {
            panic!("no findings");
        };
        assert_eq!((instance_id.as_str(), engine.as_str()), ("vllm-1", "vllm"));
        assert_eq!(findings.len(), 1);
    }

    #[test]
    fn nothing_that_measures_stands_beside_them() {
        let field = |change| match told(about(change), bare()) {
            Err(Error::Invalid(violations)) => {
                violations.into_iter().map(|one| one.field).collect()
            }
            other => panic!("{:?}", other.is_ok()),
        };
        let fields = |change| -> Vec<String> { field(change) };
        assert_eq!(
            fields(|one| one.metrics_url = "http://a".into()),
            ["metrics_url"]
        );
        assert_eq!(
            fields(|one| one.measurement = Some(Default::default())),
            ["measurement"]
        );
        assert_eq!(
            fields(|one| one.window = Some(Default::default())),
            ["window"]
        );
        assert_eq!(fields(|one| one.instance_type.clear()), ["instance_type"]);
    }

    #[test]
    fn constraints_are_read_whole() {
        assert_eq!(limits_of(None).unwrap(), Limits::default());
        let limits = limits_of(Some(pb::OptimizationConstraints {
            no_restart: true,
            no_answer_change: true,
            fixed_gpu_count: true,
            must_hold: Vec::new(),
        }));
        let limits = limits.unwrap();
        assert!(limits.no_restart && limits.no_answer_change && limits.fixed_gpu_count);
        let empty = pb::OptimizationConstraints {
            must_hold: vec![pb::Slo::default()],
            ..pb::OptimizationConstraints::default()
        };
        let Err(Error::Invalid(violations)) = limits_of(Some(empty)) else {
            panic!("taken");
        };
        let fields: Vec<&str> = violations.iter().map(|one| one.field.as_str()).collect();
        assert_eq!(fields, ["constraints.must_hold[0].target"]);
    }

    #[test]
    fn page_tokens_come_back() {
        for made_us in [0, 1_790_000_000_123_456, -1] {
            let place = PredictionPlace {
                made_us,
                prediction_id: "0198-a".to_owned(),
            };
            let token = token_of(&place);
            assert_eq!(place_of(&token).ok(), (made_us >= 0).then_some(place));
        }
        for token in ["x", "1", "zz.a", "+1.a", "1F.a", "é.a"] {
            assert!(place_of(token).is_err(), "{token}");
        }
    }
}
