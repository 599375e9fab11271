//! One engine's names, as data with an index over it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use rustc_hash::FxHashMap;

use super::alias::{Alias, Term};
use super::knobs::{Knob, KnobSource};
use super::quantity::{Quantity, QuantityKind};
use super::settings::Endpoint;
use super::version::Version;

/// Maps one engine's metrics to quantities and its settings to knobs.
#[derive(Debug, Clone)]
pub struct EngineProfile {
    /// Name, as in `instance_type`.
    pub name: Cow<'static, str>,
    /// Name as people write it.
    pub title: Cow<'static, str>,
    /// Versions for which the profile is complete, for people.
    pub versions: Cow<'static, str>,
    /// First letters of its metric names.
    pub prefixes: Vec<Cow<'static, str>>,
    /// How it exports each quantity, in order of preference.
    pub aliases: Vec<Alias>,
    /// Families that are no quantity but prove a version.
    pub markers: Vec<(Cow<'static, str>, Version)>,
    /// Info family whose labels are settings.
    pub settings_family: Option<Cow<'static, str>>,
    /// Settings that may be shown.
    pub knobs: Vec<Knob>,
    /// Where else it shows settings and version.
    pub endpoints: Vec<Endpoint>,
    /// Where its version stands.
    pub version_sources: Vec<VersionSource>,
    /// What makes settings known that an endpoint would show, as a sentence; empty where nothing is to be done.
    pub settings_hint: Cow<'static, str>,
    /// A value that only this engine's answers hold, by JSON pointer; where none is given a version is proof enough.
    pub proof: Option<(Cow<'static, str>, Cow<'static, str>)>,
    /// A request whose client goes away is counted at its first token and never as finished, not even as aborted
    /// (vLLM V1): the difference tells how many went.
    pub disconnects_leave_no_finish: bool,
    /// Counts a prompt and its first token again after each preemption (vLLM V0).
    pub recounts_after_preemption: bool,
    /// An idle engine may answer with an empty body (TGI).
    pub empty_when_idle: bool,
    /// What to do when its metrics are not there.
    pub no_metrics_hint: Cow<'static, str>,
    index: FxHashMap<Cow<'static, str>, Vec<TermId>>,
    terms: Vec<(usize, usize)>,
    setting_gauges: HashMap<Cow<'static, str>, usize>,
    /// By alias; made at first use, when the aliases are complete.
    sources: OnceLock<Vec<Arc<str>>>,
}

/// Position of a term among all terms of the profile.
pub(crate) type TermId = usize;

/// Where an engine shows its version.
#[derive(Debug, Clone)]
pub struct VersionSource {
    /// Path of the endpoint.
    pub path: Cow<'static, str>,
    /// JSON pointer into its answer.
    pub pointer: Cow<'static, str>,
}

/// The parts of a profile that have no sensible default.
#[derive(Debug)]
pub struct ProfileBuilder {
    /// See [`EngineProfile::name`].
    pub name: Cow<'static, str>,
    /// See [`EngineProfile::title`].
    pub title: Cow<'static, str>,
    /// See [`EngineProfile::versions`].
    pub versions: Cow<'static, str>,
    /// See [`EngineProfile::prefixes`].
    pub prefixes: Vec<Cow<'static, str>>,
    /// See [`EngineProfile::aliases`].
    pub aliases: Vec<Alias>,
    /// See [`EngineProfile::no_metrics_hint`].
    pub no_metrics_hint: Cow<'static, str>,
}

impl ProfileBuilder {
    /// The profile, indexed.
    pub fn build(self) -> EngineProfile {
        let mut index: FxHashMap<_, Vec<TermId>> = FxHashMap::default();
        let mut terms = Vec::new();
        for (alias_at, alias) in self.aliases.iter().enumerate() {
            for (term_at, term) in alias.terms.iter().enumerate() {
                index
                    .entry(term.family.clone())
                    .or_default()
                    .push(terms.len());
                terms.push((alias_at, term_at));
            }
        }
        EngineProfile {
            name: self.name,
            title: self.title,
            versions: self.versions,
            prefixes: self.prefixes,
            aliases: self.aliases,
            markers: Vec::new(),
            settings_family: None,
            knobs: Vec::new(),
            endpoints: Vec::new(),
            version_sources: Vec::new(),
            settings_hint: "".into(),
            proof: None,
            disconnects_leave_no_finish: false,
            recounts_after_preemption: false,
            empty_when_idle: false,
            no_metrics_hint: self.no_metrics_hint,
            index,
            terms,
            setting_gauges: HashMap::new(),
            sources: OnceLock::new(),
        }
    }
}

impl EngineProfile {
    /// Counters of this engine end in `_total` on the wire, so they are shown that way.
    pub fn with_total_suffix(mut self) -> Self {
        for alias in &mut self.aliases {
            if alias.quantity.kind() == QuantityKind::Counter {
                for term in &mut alias.terms {
                    term.shown_with_total = true;
                }
            }
        }
        self
    }

    /// Adds the knob table.
    pub fn with_knobs(mut self, knobs: Vec<Knob>) -> Self {
        self.setting_gauges = knobs
            .iter()
            .enumerate()
            .flat_map(|(at, knob)| {
                knob.sources.iter().filter_map(move |source| match source {
                    KnobSource::Gauge(family) => Some((family.clone(), at)),
                    _ => None,
                })
            })
            .collect();
        self.knobs = knobs;
        self
    }

    /// Terms that a family feeds.
    pub(crate) fn terms_of(&self, family: &str) -> &[TermId] {
        self.index.get(family).map_or(&[], Vec::as_slice)
    }

    /// How many terms there are.
    pub(crate) fn term_count(&self) -> usize {
        self.terms.len()
    }

    /// A term and the alias that it belongs to, with its position.
    pub(crate) fn term(&self, id: TermId) -> Option<(usize, &Alias, &Term)> {
        let (at, term) = self.terms.get(id)?;
        let alias = self.aliases.get(*at)?;
        Some((*at, alias, alias.terms.get(*term)?))
    }

    /// The knob whose value a gauge shows.
    pub(crate) fn knob_of_gauge(&self, family: &str) -> Option<&Knob> {
        self.knobs.get(*self.setting_gauges.get(family)?)
    }

    /// Whether a metric name is one of this engine's.
    pub fn owns(&self, metric_name: &str) -> bool {
        self.prefixes
            .iter()
            .any(|prefix| metric_name.starts_with(&**prefix))
    }

    /// Where the value of an alias comes from, for people: [`Alias::describe`], once for all measurements.
    pub(crate) fn source_of(&self, alias_at: usize) -> Arc<str> {
        let describe = || {
            let described = self.aliases.iter().map(|alias| alias.describe().into());
            described.collect::<Vec<_>>()
        };
        let sources = self.sources.get_or_init(describe);
        sources.get(alias_at).cloned().unwrap_or_default()
    }

    /// The aliases of a quantity, in order of preference.
    pub fn aliases_of(&self, quantity: Quantity) -> impl Iterator<Item = (usize, &Alias)> {
        self.aliases
            .iter()
            .enumerate()
            .filter(move |(_, alias)| alias.quantity == quantity)
    }

    /// Quantities of which the profile says anything, each once, in the order of [`Quantity::ALL`].
    pub fn quantities(&self) -> impl Iterator<Item = Quantity> {
        Quantity::ALL
            .iter()
            .copied()
            .filter(|quantity| self.aliases_of(*quantity).next().is_some())
    }
}
