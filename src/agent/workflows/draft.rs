//! A plan as it is approved, and the snapshots of settings that it rests on.

use std::time::SystemTime;

use uuid::Uuid;

use super::came::Came;
use super::plan::{Aim, Become};
use super::site::{ACTOR, Site};
use crate::actuator::{TargetSettings, content_digest};
use crate::agent::Agent;
use crate::store::{Snapshot, SnapshotTarget};
use crate::workflow::{Command, PlanDraft, PlanTarget, Strategy, Workflow};

impl Agent {
    /// The plan, and the snapshots that it rests on.
    pub(super) fn draft(
        &self,
        site: &Site,
        state: &Workflow,
        mut aim: Aim,
        targets: Vec<Become>,
    ) -> Came {
        let drives = !targets.is_empty();
        let targets: Vec<Become> = targets
            .into_iter()
            .filter(|target| target.content != target.before.content)
            .collect();
        if drives && targets.is_empty() {
            let headline = "The settings of all targets are so already.".to_owned();
            return Came::command(Command::NothingToDo { headline });
        }
        let planned = |target: &Become| PlanTarget {
            name: target.before.name.clone(),
            revision: target.before.revision.clone(),
            digest_before: content_digest(&target.before.content),
            digest_after: content_digest(&target.content),
            needs_restart: target.needs_restart,
            launch_args: target.launch_args.clone(),
        };
        let kept = |target: &Become, content: &[u8], launch_args: &[String]| SnapshotTarget {
            name: target.before.name.clone(),
            revision: target.before.revision.clone(),
            digest: content_digest(content),
            launch_args: launch_args.to_vec(),
            content: content.to_vec(),
        };
        let id = Some(state.workflow_id.as_str());
        let snapshots = match drives {
            true => {
                let before = targets
                    .iter()
                    .map(|target| kept(target, &target.before.content, &target.launch_args_before))
                    .collect();
                let after = targets
                    .iter()
                    .map(|target| kept(target, &target.content, &target.launch_args))
                    .collect();
                let note = format!("Before: {}", aim.headline);
                let mut after = snapshot(site, ACTOR, id, "", after);
                after.is_planned = true;
                vec![snapshot(site, ACTOR, id, &note, before), after]
            }
            false => Vec::new(),
        };
        let mut ids = snapshots
            .iter()
            .map(|snapshot| snapshot.snapshot_id.clone());
        let urls: Vec<Option<String>> = targets
            .iter()
            .map(|target| target.before.metrics_url.clone())
            .collect();
        let (strategy, note) = match drives {
            true => self.strategy_of(state, aim.chosen.as_ref().map(|_| &aim.effect), &urls),
            false => (Strategy::InPlace, None),
        };
        aim.notes.extend(note);
        let compares = strategy.canary().map(|canary| canary.quality.is_some());
        if aim.changes_answers && compares == Some(false) {
            aim.notes.push(
                "Answers may become others, and nothing compares them: somebody has to agree after the first part. Set \
                 workflows.quality_prompts to have them compared."
                    .to_owned(),
            );
        }
        let draft = PlanDraft {
            headline: aim.headline,
            optimizations: aim.optimizations,
            chosen: aim.chosen,
            changes: aim.changes,
            effect: aim.effect,
            prediction_id: aim.prediction_id,
            needs_restart: targets.iter().any(|target| target.needs_restart),
            targets: targets.iter().map(planned).collect(),
            snapshot_id: ids.next(),
            planned_snapshot_id: ids.next(),
            strategy,
            changes_answers: aim.changes_answers,
            notes: aim.notes,
        };
        Came::Command(Box::new(Command::Planned(Box::new(draft))), snapshots)
    }

    /// A snapshot of settings as they are.
    pub(super) fn snapshot_of(
        &self,
        site: &Site,
        settings: &[TargetSettings],
        created_by: &str,
        note: &str,
    ) -> Snapshot {
        let target = |settings: &TargetSettings| SnapshotTarget {
            name: settings.name.clone(),
            revision: settings.revision.clone(),
            digest: content_digest(&settings.content),
            launch_args: self.shown(site, &settings.launch_args),
            content: settings.content.clone(),
        };
        snapshot(
            site,
            created_by,
            None,
            note,
            settings.iter().map(target).collect(),
        )
    }
}

fn snapshot(
    site: &Site,
    created_by: &str,
    workflow_id: Option<&str>,
    note: &str,
    targets: Vec<SnapshotTarget>,
) -> Snapshot {
    Snapshot {
        snapshot_id: Uuid::now_v7().to_string(),
        instance_id: site.instance.instance_id.clone(),
        actuator: site.actuator.name().to_owned(),
        created_us: super::micros(SystemTime::now()),
        created_by: created_by.to_owned(),
        workflow_id: workflow_id.map(str::to_owned),
        note: note.to_owned(),
        is_planned: false,
        targets,
    }
}
