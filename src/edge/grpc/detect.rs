//! DetectBottlenecks and EvaluateSlos, which are asked about the same: the request read, the agent asked, and the answer written.

use std::collections::BTreeMap;

use super::deadline::Deadline;
use super::{convert, convert_analysis, convert_slo, pb, receive};
use crate::agent::{Agent, Caller, Error, FieldViolation, Target, WindowRequest};
use crate::measure::Measurement;

/// What a request is about.
pub(super) enum Subject {
    /// To be measured, or measured in the background.
    Target(Target, WindowRequest),
    /// Measured before.
    Measurement(Box<Measurement>),
}

/// The answer to a request, for every edge.
///
/// # Errors
/// A request that is wrong, and what [`Agent::detect`] gives.
pub(in crate::edge) async fn answer(
    agent: &Agent,
    caller: &Caller,
    mut request: pb::DetectBottlenecksRequest,
    deadline: Option<Deadline>,
) -> Result<pb::DetectBottlenecksResponse, Error> {
    let thresholds: BTreeMap<String, f64> = std::mem::take(&mut request.thresholds)
        .into_iter()
        .collect();
    let found = match subject_of(request)? {
        Subject::Measurement(measurement) => agent.diagnose(&measurement, &thresholds)?,
        Subject::Target(target, mut window) => {
            window.deadline_in = deadline.map(Deadline::left);
            agent.detect(caller, &target, window, &thresholds).await?
        }
    };
    Ok(convert_analysis::diagnosis(&found))
}

/// The answer to EvaluateSlos, for every edge.
///
/// # Errors
/// A request that is wrong, and what [`Agent::evaluate_slos`] gives.
pub(in crate::edge) async fn evaluated(
    agent: &Agent,
    caller: &Caller,
    request: pb::EvaluateSlosRequest,
    deadline: Option<Deadline>,
) -> Result<pb::EvaluateSlosResponse, Error> {
    let slos = convert_slo::slos_of("slos", request.slos);
    let slos = slos.map_err(|violation| Error::Invalid(vec![violation]))?;
    let about = pb::DetectBottlenecksRequest {
        instance_id: request.instance_id,
        instance_type: request.instance_type,
        metrics_url: request.metrics_url,
        metrics_urls: request.metrics_urls,
        window: request.window,
        measurement: request.measurement,
        thresholds: Default::default(),
    };
    let found = match subject_of(about)? {
        Subject::Measurement(measurement) => agent.evaluate_measured(&measurement, slos)?,
        Subject::Target(target, mut window) => {
            window.deadline_in = deadline.map(Deadline::left);
            agent.evaluate_slos(caller, &target, window, slos).await?
        }
    };
    Ok(convert_slo::evaluated(&found))
}

/// What a request is about.
///
/// # Errors
/// Fields that are wrong, or must not stand beside each other.
pub(super) fn subject_of(mut request: pb::DetectBottlenecksRequest) -> Result<Subject, Error> {
    if let Some(given) = request.measurement.take() {
        let mut violations = beside(&request, &given);
        if violations.is_empty() {
            match receive::measurement("measurement", Some(given)) {
                Ok(measurement) => return Ok(Subject::Measurement(Box::new(measurement))),
                Err(violation) => violations.push(violation),
            }
        }
        return Err(Error::Invalid(violations));
    }
    let (target, window) = convert::target_of(pb::CollectMetricsRequest {
        instance_id: request.instance_id,
        instance_type: request.instance_type,
        metrics_url: request.metrics_url,
        metrics_urls: request.metrics_urls,
        window: request.window,
        view: pb::MeasurementView::Full.into(),
    });
    let window = window.map_err(|violation| Error::Invalid(vec![violation]))?;
    Ok(Subject::Target(target, window))
}

/// What must not stand beside a measurement, and what it must have to be told anything from.
fn beside(request: &pb::DetectBottlenecksRequest, given: &pb::Measurement) -> Vec<FieldViolation> {
    let mut violations = Vec::new();
    let mut wrong = |field: &str, why: &str| violations.push(FieldViolation::new(field, why));
    if !request.metrics_url.is_empty() || !request.metrics_urls.is_empty() {
        let why = "must be empty beside a measurement: what was measured is not measured again";
        wrong("metrics_url", why);
    }
    if request.window.is_some() {
        wrong(
            "window",
            "must be unset beside a measurement, which has its own",
        );
    }
    if !request.instance_id.is_empty() && request.instance_id != given.instance_id {
        wrong("instance_id", "must be empty or that of the measurement");
    }
    if !["", "auto", &given.instance_type].contains(&request.instance_type.as_str()) {
        wrong("instance_type", "must be empty or that of the measurement");
    }
    if given.figures.is_none() {
        let why = "must be set: this is a measurement in view BASIC, which has too little to tell from; ask \
                   CollectMetrics for view FULL";
        wrong("measurement.figures", why);
    }
    violations
}
