//! How a plan is made: settings are read and kept, what is to change is worked out, and what they become.

use std::collections::BTreeMap;
use std::time::Duration;

use super::came::Came;
use super::site::{Site, caller, failed};
use crate::actuator::{ActuatorError, TargetSettings};
use crate::agent::{Agent, Error, Subject, WindowRequest};
use crate::engine::EngineProfile;
use crate::instance::LaunchArgs;
use crate::optimization::{
    Advice, Effect, KnobChange, LaunchArguments, Limits, Optimization, Recommendation,
};
use crate::workflow::{Command, Failure, Workflow, WorkflowKind};

/// Between two tries where something passes by itself.
const AGAIN: Duration = Duration::from_millis(500);

/// What is to change, before it is known where.
pub(super) struct Aim {
    pub(super) headline: String,
    pub(super) optimizations: Vec<Optimization>,
    pub(super) chosen: Option<String>,
    pub(super) changes: Vec<KnobChange>,
    pub(super) effect: Effect,
    pub(super) prediction_id: Option<String>,
    pub(super) changes_answers: bool,
    pub(super) notes: Vec<String>,
}

/// Why there is no aim.
enum NoAim {
    Nothing(String),
    Failed(Failure),
    Later(String),
}

/// Settings of a target after the change.
pub(super) struct Become {
    pub(super) before: TargetSettings,
    pub(super) content: Vec<u8>,
    /// Before and after, without what may be secret.
    pub(super) launch_args_before: Vec<String>,
    pub(super) launch_args: Vec<String>,
    pub(super) needs_restart: bool,
}

impl Agent {
    /// Makes the plan of a workflow. `keeps`: what is predicted is kept.
    pub(super) async fn make_plan(&self, site: &Site, state: &Workflow, keeps: bool) -> Came {
        let settings = match site.actuator.drives() && state.spec.kind.changes() {
            true => match site.actuator.read(&site.instance).await {
                Ok(settings) => settings,
                Err(error) => return Came::later(AGAIN, &error),
            },
            false => Vec::new(),
        };
        if let Some(first) = settings.first() {
            self.heard(site, &first.launch_args);
        }
        let refused = site.actuator.refuses().await;
        let aim = match state.spec.kind {
            WorkflowKind::Optimization | WorkflowKind::Analysis => {
                self.recommended(site, state, keeps).await
            }
            WorkflowKind::ConfigChange => self.asked(site, state, &state.spec.changes, keeps).await,
            WorkflowKind::Restore => return self.restoring(site, state, settings, keeps).await,
        };
        let mut aim = match aim {
            Ok(aim) => aim,
            Err(no_aim) => return no_aim.came(),
        };
        aim.notes.extend(
            refused.map(|error| format!("It cannot be carried out as things are: {error}.")),
        );
        let mut become_ = Vec::new();
        for before in settings {
            match self.becomes(site, before, &aim.changes).await {
                Ok(after) => become_.push(after),
                Err(error) => return Came::later(AGAIN, &error),
            }
        }
        self.draft(site, state, aim, become_)
    }

    /// What is recommended.
    async fn recommended(&self, site: &Site, state: &Workflow, keeps: bool) -> Result<Aim, NoAim> {
        let limits = limits_of(state);
        let subject = Subject::Target(site.target.clone(), WindowRequest::default());
        let advised = self
            .advise(&caller(), subject, &BTreeMap::new(), limits, keeps)
            .await;
        let advised = advised.map_err(NoAim::of)?;
        let (recommendation, mut kept) = (advised.recommendation, advised.predictions);
        let is_analysis = state.spec.kind == WorkflowKind::Analysis;
        let chosen = match (&state.spec.optimization_id, is_analysis) {
            (_, true) => None,
            (Some(id), _) => Some(named(&recommendation, id)?),
            (None, _) => Some(first_of_settings(&recommendation)?),
        };
        let mut aim = Aim {
            headline: recommendation.headline,
            optimizations: recommendation.optimizations,
            chosen: None,
            changes: Vec::new(),
            effect: Effect::NotPredictable("nothing is changed".to_owned()),
            prediction_id: None,
            changes_answers: false,
            notes: recommendation.notes,
        };
        if let Some(chosen) = chosen {
            aim.headline.clone_from(&chosen.title);
            aim.prediction_id = kept.remove(&chosen.id);
            aim.changes_answers = chosen.changes_answers;
            aim.chosen = Some(chosen.id);
            aim.changes = chosen.changes;
            aim.effect = chosen.effect;
        }
        Ok(aim)
    }

    /// What the caller asked for.
    async fn asked(
        &self,
        site: &Site,
        state: &Workflow,
        changes: &BTreeMap<String, Option<String>>,
        keeps: bool,
    ) -> Result<Aim, NoAim> {
        let limits = limits_of(state);
        let subject = Subject::Target(site.target.clone(), WindowRequest::default());
        let predicted = self
            .foresee(&caller(), subject, &BTreeMap::new(), changes, limits, keeps)
            .await;
        let predicted = predicted.map_err(NoAim::of)?;
        if predicted.changes.is_empty() {
            return Err(NoAim::Nothing(
                "These settings are in force: nothing is to be changed.".to_owned(),
            ));
        }
        let profile = self.engines().get(&predicted.engine);
        let knobs = || {
            let changes = predicted.changes.iter();
            changes.filter_map(|change| profile?.knob(&change.name))
        };
        let spec = &state.spec;
        let changes_answers = knobs().any(|knob| knob.changes_answers);
        let refused = match () {
            () if spec.no_restart && knobs().any(|knob| !knob.live) => {
                Some("It takes a restart, which the request rules out.")
            }
            () if spec.no_answer_change && changes_answers => {
                Some("It may change answers, which the request rules out.")
            }
            () => None,
        };
        if let Some(message) = refused {
            return Err(NoAim::Failed(Failure {
                reason: "INVALID".to_owned(),
                message: message.to_owned(),
                hint: "Start it again without that constraint, or with other settings.".to_owned(),
            }));
        }
        Ok(Aim {
            headline: title(&predicted.changes),
            optimizations: Vec::new(),
            chosen: None,
            changes_answers,
            changes: predicted.changes,
            effect: predicted.effect,
            prediction_id: predicted.prediction_id,
            notes: predicted.remarks,
        })
    }

    /// Settings as a snapshot has them.
    async fn restoring(
        &self,
        site: &Site,
        state: &Workflow,
        settings: Vec<TargetSettings>,
        keeps: bool,
    ) -> Came {
        let fail = |message: String, hint: &str| {
            Came::command(Command::Fail(Failure {
                reason: "INVALID".to_owned(),
                message,
                hint: hint.to_owned(),
            }))
        };
        let id = state.spec.snapshot_id.as_deref().unwrap_or_default();
        let snapshot = match self.stored_snapshot(id).await {
            Ok(snapshot) => snapshot,
            Err(error @ Error::NoSnapshot(_)) => {
                return Came::command(Command::Fail(failed(&error)));
            }
            Err(error) => return Came::later(AGAIN, &error),
        };
        let mut become_ = Vec::new();
        for before in settings {
            let Some(target) = snapshot
                .targets
                .iter()
                .find(|target| target.name == before.name)
            else {
                let message = format!("The snapshot has no settings of {}.", before.name);
                return fail(
                    message,
                    "Take a snapshot of the targets that there are now.",
                );
            };
            become_.push(Become {
                content: target.content.clone(),
                launch_args: target.launch_args.clone(),
                launch_args_before: self.shown(site, &before.launch_args),
                needs_restart: target.content != before.content,
                before,
            });
        }
        let changes = self.difference(site, become_.first());
        let (effect, prediction_id, changes) = match self.asked(site, state, &changes, keeps).await
        {
            Ok(aim) => (aim.effect, aim.prediction_id, aim.changes),
            Err(NoAim::Later(problem)) => return Came::later(AGAIN, &problem),
            Err(NoAim::Failed(failure)) => {
                (Effect::NotPredictable(failure.message), None, Vec::new())
            }
            Err(NoAim::Nothing(_)) => {
                let why = "the settings that the agent knows stay as they are".to_owned();
                (Effect::NotPredictable(why), None, Vec::new())
            }
        };
        let aim = Aim {
            headline: format!("Restore the settings of snapshot {id}."),
            optimizations: Vec::new(),
            chosen: None,
            changes,
            effect,
            prediction_id,
            changes_answers: false,
            notes: Vec::new(),
        };
        self.draft(site, state, aim, become_)
    }

    /// What settings of the snapshot are others than now, by name.
    fn difference(&self, site: &Site, target: Option<&Become>) -> BTreeMap<String, Option<String>> {
        let profile = self.profile_of(site);
        let (Some(profile), Some(target)) = (profile, target) else {
            return BTreeMap::new();
        };
        let settings = |words: &[String]| -> BTreeMap<String, Option<String>> {
            let arguments = LaunchArguments::parse(profile, words);
            let settings = arguments.settings();
            settings
                .map(|(name, value)| (name.to_owned(), Some(value.to_owned())))
                .collect()
        };
        let (now, then) = (
            settings(&target.before.launch_args),
            settings(&target.launch_args),
        );
        let gone = now.keys().filter(|name| !then.contains_key(*name));
        let gone = gone.map(|name| (name.clone(), None));
        let new = then
            .iter()
            .filter(|(name, value)| now.get(*name) != Some(*value));
        let new = new.map(|(name, value)| (name.clone(), value.clone()));
        new.chain(gone).collect()
    }

    fn profile_of(&self, site: &Site) -> Option<&EngineProfile> {
        let engine = site.instance.engine.as_deref()?;
        self.engines().get(engine).map(AsRef::as_ref)
    }

    /// What the settings of a target become.
    async fn becomes(
        &self,
        site: &Site,
        before: TargetSettings,
        changes: &[KnobChange],
    ) -> Result<Become, ActuatorError> {
        let launch_args = match self.profile_of(site) {
            Some(profile) => {
                let arguments = LaunchArguments::parse(profile, &before.launch_args);
                let changed = arguments.apply(profile, changes).arguments;
                changed.words().map(str::to_owned).collect()
            }
            None => before.launch_args.clone(),
        };
        let planned = site
            .actuator
            .plan(&site.instance, &before, &launch_args)
            .await?;
        Ok(Become {
            launch_args: self.shown(site, &launch_args),
            launch_args_before: self.shown(site, &before.launch_args),
            content: planned.content,
            needs_restart: planned.needs_restart,
            before,
        })
    }

    /// Launch arguments without what may be secret.
    pub(super) fn shown(&self, site: &Site, launch_args: &[String]) -> Vec<String> {
        let engine = site.instance.engine.as_deref();
        LaunchArgs::of(launch_args, engine, &self.registry).kept
    }
}

fn limits_of(state: &Workflow) -> Limits {
    Limits {
        no_restart: state.spec.no_restart,
        no_answer_change: state.spec.no_answer_change,
        ..Limits::default()
    }
}

/// The optimization that the caller named.
fn named(recommendation: &Recommendation, id: &str) -> Result<Optimization, NoAim> {
    let all = &recommendation.optimizations;
    let found = all
        .iter()
        .find(|one| one.id == id && !one.changes.is_empty());
    found.cloned().ok_or_else(|| {
        let ids: Vec<&str> = all.iter().map(|one| one.id.as_str()).collect();
        NoAim::Failed(Failure {
            reason: "INVALID".to_owned(),
            message: match ids.as_slice() {
                [] => format!("{id} is not recommended: {}", recommendation.headline),
                ids => format!(
                    "{id} is not recommended as a change of settings; recommended are {}.",
                    ids.join(", ")
                ),
            },
            hint: "See RecommendOptimizations.".to_owned(),
        })
    })
}

/// The first that changes settings alone: the number of replicas is nothing that an actuator changes.
fn first_of_settings(recommendation: &Recommendation) -> Result<Optimization, NoAim> {
    let all = recommendation.optimizations.iter();
    let mut of_settings = all.filter(|one| !one.changes.is_empty() && one.replicas.is_none());
    match (recommendation.advice, of_settings.next()) {
        (Advice::Change | Advice::AddCapacity, Some(first)) => Ok(first.clone()),
        (Advice::CannotTell, _) => Err(NoAim::Later(recommendation.headline.clone())),
        _ => Err(NoAim::Nothing(recommendation.headline.clone())),
    }
}

/// Changes in a line.
fn title(changes: &[KnobChange]) -> String {
    let one = |change: &KnobChange| {
        let to = change.to.as_deref().unwrap_or("the engine's default");
        match &change.from {
            Some(from) => format!("{} {from} → {to}", change.flag),
            None => format!("{} {to}", change.flag),
        }
    };
    let all: Vec<String> = changes.iter().map(one).collect();
    format!("Set {}.", all.join(", "))
}

impl NoAim {
    fn of(error: Error) -> Self {
        match error {
            Error::Invalid(_) => Self::Failed(failed(&error)),
            error => Self::Later(error.to_string()),
        }
    }

    fn came(self) -> Came {
        match self {
            Self::Nothing(headline) => Came::command(Command::NothingToDo { headline }),
            Self::Failed(failure) => Came::command(Command::Fail(failure)),
            Self::Later(problem) => Came::later(AGAIN, &problem),
        }
    }
}
