//! From exposition samples to the readings of one scrape.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::engine::{
    Alias, Combine, EngineProfile, Merge, Part, QuantityKind, SIMULATED_FAMILY, Setting, Term,
    TermId, python_text, setting,
};
use crate::exposition::{Family, Kind, Label, Role, Sample as Line, Sink};

use super::sample::{Incarnation, Sample, ScalarReading};
use super::series::{DistributionSeries, ScalarSeries, SeriesId};

/// Takes from an exposition what a profile maps, and nothing else.
pub(super) struct Collector<'p, 'a> {
    profile: &'p EngineProfile,
    /// By term.
    scalars: Vec<ScalarSeries<'a>>,
    /// By term.
    distributions: Vec<DistributionSeries<'a>>,
    targets: Vec<Target<'p>>,
    /// The targets have not seen the labels at hand.
    fresh: bool,
    role: FamilyRole<'p>,
    series: SeriesId<'a>,
    sample: Sample,
    settings: Vec<Setting>,
    explicit_time: Option<f64>,
}

/// A term that the family at hand feeds.
struct Target<'p> {
    /// Position of the alias.
    at: usize,
    id: TermId,
    alias: &'p Alias,
    term: &'p Term,
    /// Whether the labels at hand pass the term's filters.
    passes: bool,
}

/// What else the family at hand is good for.
#[derive(Clone, Copy, PartialEq)]
enum FamilyRole<'p> {
    None,
    /// Creation times of series that count.
    Created,
    ProcessStart,
    Settings,
    SettingGauge(&'p str),
    Simulated,
}

impl<'p, 'a> Collector<'p, 'a> {
    pub(super) fn new(profile: &'p EngineProfile) -> Self {
        Self {
            profile,
            scalars: vec![ScalarSeries::default(); profile.term_count()],
            distributions: vec![DistributionSeries::default(); profile.term_count()],
            targets: Vec::new(),
            fresh: true,
            role: FamilyRole::None,
            series: SeriesId::default(),
            sample: Sample::default(),
            settings: Vec::new(),
            explicit_time: None,
        }
    }

    fn role_of(&self, base: &'a str, kind: Kind) -> FamilyRole<'p> {
        if base == "process_start_time_seconds" {
            return FamilyRole::ProcessStart;
        }
        if base == SIMULATED_FAMILY {
            return FamilyRole::Simulated;
        }
        if self.profile.settings_family.as_deref() == Some(base) {
            return FamilyRole::Settings;
        }
        if let Some(knob) = self.profile.knob_of_gauge(base) {
            return FamilyRole::SettingGauge(&knob.name);
        }
        // Python's client exports creation times as families of their own, typed as gauges
        match base.strip_suffix("_created") {
            Some(of)
                if matches!(kind, Kind::Gauge | Kind::Unknown)
                    && !self.profile.terms_of(of).is_empty() =>
            {
                FamilyRole::Created
            }
            _ => FamilyRole::None,
        }
    }

    fn created(&mut self, unix_seconds: f64) {
        let earliest = &mut self.sample.incarnation.created_unix_seconds;
        if unix_seconds.is_finite() {
            *earliest = Some(earliest.map_or(unix_seconds, |known| known.min(unix_seconds)));
        }
    }

    fn for_role(&mut self, line: &Line<'_, 'a>) {
        match self.role {
            FamilyRole::None => {}
            FamilyRole::Created => self.created(line.value),
            FamilyRole::ProcessStart => {
                self.sample.incarnation.process_start_unix_seconds = Some(line.value);
            }
            FamilyRole::Simulated => self.sample.simulated = line.value == 1.0,
            FamilyRole::Settings => self.settings_family(line.labels),
            FamilyRole::SettingGauge(name) => {
                let known = self.settings.iter().any(|setting| setting.name == name);
                let knob = self.profile.knobs.iter().find(|knob| knob.name == name);
                if let (Some(knob), false, true) = (knob, known, line.value.is_finite()) {
                    let source = line.name.get().into_owned();
                    let value = Some(line.value.to_string());
                    self.settings.push(setting(knob, value, source));
                }
            }
        }
    }

    /// Labels of the settings family; of several engines in one process the first counts.
    fn settings_family(&mut self, labels: &[Label<'a>]) {
        let mut digest = DefaultHasher::new();
        for label in labels {
            label.name.get().hash(&mut digest);
            label.value.get().hash(&mut digest);
        }
        let digest = digest.finish();
        let known = &mut self.sample.incarnation.config_digest;
        // order of the series does not matter
        *known = Some(known.map_or(digest, |known| known ^ digest));
        if !self.settings.is_empty() {
            return;
        }
        let Some(source) = self.profile.settings_family.as_deref() else {
            return;
        };
        for knob in &self.profile.knobs {
            let value = knob.sources.iter().find_map(|from| match from {
                crate::engine::KnobSource::Label(name) => labels
                    .iter()
                    .find(|label| label.name.is(name))
                    .map(|label| python_text(&label.value.get())),
                _ => None,
            });
            if let Some(value) = value {
                self.settings.push(setting(knob, value, source.to_owned()));
            }
        }
    }

    /// Everything that was taken.
    pub(super) fn finish(mut self, fetched_unix_seconds: f64) -> Sample {
        self.sample.settings = std::mem::take(&mut self.settings).into();
        self.sample.at_unix_seconds = self.explicit_time.unwrap_or(fetched_unix_seconds);
        self.sample.overflow = self.scalars.iter().any(ScalarSeries::is_full)
            || self.distributions.iter().any(DistributionSeries::is_full);
        let mut term_id = 0;
        for (at, alias) in self.profile.aliases.iter().enumerate() {
            let ids = term_id..term_id + alias.terms.len();
            term_id = ids.end;
            let present = match alias.quantity.kind() {
                QuantityKind::Distribution => self.finish_distribution(at, ids),
                QuantityKind::Counter | QuantityKind::Gauge => self.finish_scalar(at, alias, ids),
            };
            if present {
                self.sample.version_floor = self.sample.version_floor.max(alias.since);
            }
        }
        self.sample
    }

    fn finish_distribution(&mut self, at: usize, ids: std::ops::Range<TermId>) -> bool {
        if self.sample.unreadable.contains(&at) {
            return false;
        }
        let reading = self
            .distributions
            .get_mut(ids)
            .into_iter()
            .flatten()
            .find_map(|series| std::mem::take(series).merged(at));
        let present = reading.is_some();
        self.sample.distributions.extend(reading);
        present
    }

    fn finish_scalar(&mut self, at: usize, alias: &Alias, ids: std::ops::Range<TermId>) -> bool {
        let series = self.scalars.get(ids).unwrap_or_default();
        let Some(value) = combined(alias, series) else {
            return false;
        };
        let reading = ScalarReading { alias: at, value };
        if self.sample.unreadable.contains(&at) {
            return false;
        }
        // a hair above 1 is rounding, anything else is no ratio
        if alias.quantity.is_ratio() && !(-1e-6..=1.0 + 1e-6).contains(&value) {
            self.sample.out_of_range.push(reading);
            return false;
        }
        self.sample.scalars.push(reading);
        true
    }
}

/// One value from the terms of an alias, or none where one that is needed is missing.
fn combined(alias: &Alias, series: &[ScalarSeries<'_>]) -> Option<f64> {
    let merge = alias.quantity.merge();
    let present = series.iter().filter(|one| !one.is_empty()).count();
    let all_needed = match alias.combine {
        // where some terms are required, the others may be missing
        Combine::Sum => !alias.lazy && !alias.terms.iter().any(|term| term.required),
        Combine::Max => false,
        Combine::Product => true,
    };
    let lacks_required = alias
        .terms
        .iter()
        .zip(series)
        .any(|(term, one)| term.required && one.is_empty());
    if present == 0 || lacks_required || (all_needed && present < series.len()) {
        return None;
    }
    let values = alias
        .terms
        .iter()
        .zip(series)
        .filter(|(_, one)| !one.is_empty())
        .map(|(term, one)| term.weight * one.merged(merge));
    match alias.combine {
        Combine::Sum => Some(values.sum()),
        Combine::Max => values.reduce(f64::max),
        Combine::Product => {
            let (first, rest) = series.split_first()?;
            let product = rest
                .iter()
                .try_fold(first.clone(), |product, one| product.times(one))?;
            Some(product.merged(merge))
        }
    }
}

impl<'a> Sink<'a> for Collector<'_, 'a> {
    fn family(&mut self, family: &Family<'a>) {
        let base = family.base_name();
        self.role = self.role_of(base, family.kind);
        self.targets.clear();
        self.fresh = true;
        let profile = self.profile;
        let mut terms = profile.terms_of(base);
        if terms.is_empty() {
            // without a TYPE line nothing tells a counter but its suffix, and with a wrong one it is to be told
            terms = profile.terms_of(base.strip_suffix("_total").unwrap_or(base));
        }
        for id in terms {
            if let Some((alias_at, alias, term)) = profile.term(*id) {
                if !fits(family.kind, alias, term) {
                    mark(&mut self.sample.unreadable, alias_at);
                    continue;
                }
                if alias.needs_family {
                    mark(&mut self.sample.families_of, alias_at);
                }
                self.targets.push(Target {
                    at: alias_at,
                    id: *id,
                    alias,
                    term,
                    passes: false,
                });
            }
        }
        if profile.owns(base) {
            self.sample.families_recognised += 1;
            for (marker, since) in &profile.markers {
                if *marker == base {
                    self.sample.version_floor = self.sample.version_floor.max(Some(*since));
                }
            }
        }
    }

    fn sample(&mut self, _: &Family<'a>, line: &Line<'_, 'a>) {
        self.for_role(line);
        if self.targets.is_empty() {
            self.series.stale |= !line.same_labels;
            return;
        }
        if !line.same_labels || self.series.stale || self.fresh {
            self.fresh = false;
            self.series = SeriesId::of(line.labels);
            for target in &mut self.targets {
                target.passes = passes(target.term, line.labels);
            }
            if self.sample.model_name.is_none() {
                self.sample.model_name =
                    line.label("model_name").map(|name| name.get().into_owned());
            }
        }
        if line.role == Role::Created {
            self.created(line.value);
            return;
        }
        if let Some(seconds) = line
            .timestamp_seconds
            .filter(|seconds| TIMES.contains(seconds))
        {
            self.explicit_time = Some(
                self.explicit_time
                    .map_or(seconds, |known| known.max(seconds)),
            );
        }
        for target in &self.targets {
            if !target.passes {
                continue;
            }
            let value = match (&target.term.part, line.role) {
                (Part::Distribution, role) => {
                    if matches!(role, Role::Count | Role::Bucket { .. })
                        && !plausible(target.alias, line.value)
                    {
                        mark(&mut self.sample.unreadable, target.at);
                    } else if let Some(series) = self.distributions.get_mut(target.id) {
                        series.add(&self.series, role, line.value);
                    }
                    None
                }
                (Part::Value, Role::Value)
                | (Part::Sum, Role::Sum)
                | (Part::Count, Role::Count) => Some(line.value),
                (Part::Label(name), Role::Value) => line
                    .label(name)
                    .and_then(|text| text.as_plain()?.parse().ok()),
                _ => None,
            };
            if let (Some(value), Some(series)) = (value, self.scalars.get_mut(target.id)) {
                if plausible(target.alias, value) {
                    series.add(&self.series, target.alias.quantity, value);
                } else {
                    mark(&mut self.sample.unreadable, target.at);
                }
            }
        }
    }
}

/// Notes an alias once: a body may give thousands of reasons.
fn mark(aliases: &mut Vec<usize>, at: usize) {
    if !aliases.contains(&at) {
        aliases.push(at);
    }
}

/// Times that an exposition may claim: from the year 2001 to 2100. Others are of a broken clock.
const TIMES: std::ops::Range<f64> = 978_307_200.0..4_102_444_800.0;

/// No engine counts below zero, nor as far as sums over replicas lose their integers. Ratios are judged by their own
/// range, with the value in the message.
fn plausible(alias: &Alias, value: f64) -> bool {
    (0.0..=1e18).contains(&value) || (alias.quantity.is_ratio() && value.is_finite())
}

/// Whether a family of this type can be what the term says. A family without TYPE may be anything.
fn fits(kind: Kind, alias: &Alias, term: &Term) -> bool {
    match term.part {
        Part::Distribution | Part::Sum | Part::Count => {
            matches!(kind, Kind::Histogram | Kind::Summary)
        }
        Part::Label(_) => matches!(kind, Kind::Gauge | Kind::Info | Kind::Unknown),
        Part::Value => match alias.quantity.kind() {
            QuantityKind::Counter => matches!(kind, Kind::Counter | Kind::Unknown),
            _ => matches!(kind, Kind::Gauge | Kind::Unknown),
        },
    }
}

fn passes(term: &Term, labels: &[Label<'_>]) -> bool {
    term.only.iter().all(|filter| {
        labels
            .iter()
            .find(|label| label.name.is(&filter.label))
            .is_some_and(|label| filter.values.iter().any(|value| label.value.is(value)))
    })
}

impl Incarnation {
    /// Why the later scrape is of another run than this one, if it is.
    pub(super) fn differs(&self, later: &Self) -> Option<&'static str> {
        fn changed<T: PartialEq>(before: Option<T>, after: Option<T>) -> bool {
            matches!((before, after), (Some(before), Some(after)) if before != after)
        }
        if changed(
            self.process_start_unix_seconds,
            later.process_start_unix_seconds,
        ) {
            return Some("the process start time changed");
        }
        // series that appear later have later creation times and do not move the earliest
        if matches!(
            (self.created_unix_seconds, later.created_unix_seconds),
            (Some(before), Some(after)) if after > before
        ) {
            return Some("the series were created anew");
        }
        if changed(self.config_digest, later.config_digest) {
            return Some("the engine's configuration changed");
        }
        None
    }
}

/// The merge rule as the series apply it.
pub(super) fn merge_values(merge: Merge, values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len();
    let sum: f64 = values.sum();
    match merge {
        Merge::Sum => sum,
        Merge::Mean => sum / count.max(1) as f64,
    }
}
