use std::sync::Mutex;

use async_trait::async_trait;

use super::super::{PlannedSettings, Routing};
use super::*;

/// An actuator that breaks one promise.
#[derive(Debug)]
struct Fake {
    target: Mutex<TargetSettings>,
    lie: Lie,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Lie {
    None,
    ReadsDiffer,
    NotReady,
    PlanWrites,
    PlanIgnores,
    WritesElsewhere,
    NeverReady,
    RevisionStays,
    RepeatWrites,
    RepeatRestarts,
    TakesAnyRevision,
    TakesAnyEpoch,
    RestoresHalf,
    RefusesRestore,
    RoutesNothing,
    RoutesForAnyEpoch,
}

impl Fake {
    fn new(lie: Lie) -> Self {
        Self {
            target: Mutex::new(TargetSettings {
                name: "r0".to_owned(),
                revision: "1".to_owned(),
                content: b"--max-num-seqs 4".to_vec(),
                launch_args: words("--max-num-seqs 4"),
                ready: lie != Lie::NotReady,
                operation_id: None,
                epoch: Some(7),
                metrics_url: None,
                takes_requests: Some(true),
            }),
            lie,
        }
    }

    fn next(target: &mut TargetSettings) {
        let revision: u32 = target.revision.parse().unwrap();
        target.revision = (revision + 1).to_string();
    }
}

#[async_trait]
impl Actuator for Fake {
    fn name(&self) -> &str {
        "fake"
    }

    fn kind(&self) -> &'static str {
        "fake"
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(1)
    }

    async fn read(&self, _: &ActuatedInstance) -> Result<Vec<TargetSettings>, ActuatorError> {
        let mut target = self.target.lock().unwrap();
        if self.lie == Lie::ReadsDiffer {
            Self::next(&mut target);
        }
        Ok(vec![target.clone()])
    }

    async fn plan(
        &self,
        _: &ActuatedInstance,
        _: &TargetSettings,
        launch_args: &[String],
    ) -> Result<PlannedSettings, ActuatorError> {
        let mut target = self.target.lock().unwrap();
        if self.lie == Lie::PlanWrites {
            Self::next(&mut target);
        }
        let content = match self.lie {
            Lie::PlanIgnores => target.content.clone(),
            _ => launch_args.join(" ").into_bytes(),
        };
        Ok(PlannedSettings {
            content,
            needs_restart: true,
        })
    }

    async fn write(
        &self,
        _: &ActuatedInstance,
        write: &SettingsWrite,
    ) -> Result<TargetSettings, ActuatorError> {
        let mut target = self.target.lock().unwrap();
        let current = target.epoch.unwrap_or(0);
        if write.epoch < current && self.lie != Lie::TakesAnyEpoch {
            return Err(ActuatorError::StaleEpoch {
                target: write.target.clone(),
                epoch: write.epoch,
                current,
            });
        }
        if target.operation_id.as_ref() == Some(&write.operation_id) {
            match self.lie {
                Lie::RepeatWrites => Self::next(&mut target),
                Lie::RepeatRestarts => {
                    let mut restarting = target.clone();
                    restarting.ready = false;
                    return Ok(restarting);
                }
                _ => {}
            }
            return Ok(target.clone());
        }
        if write.expect_revision != target.revision && self.lie != Lie::TakesAnyRevision {
            return Err(ActuatorError::StaleRevision {
                target: write.target.clone(),
                expected: write.expect_revision.clone(),
                current: target.revision.clone(),
            });
        }
        if write.purpose == Purpose::Restore && self.lie == Lie::RefusesRestore {
            return Err(ActuatorError::DrivesNothing);
        }
        target.content.clone_from(&write.content);
        let text = String::from_utf8(write.content.clone()).unwrap();
        target.launch_args = words(&text);
        target.operation_id = Some(write.operation_id.clone());
        target.epoch = Some(write.epoch);
        if self.lie != Lie::RevisionStays {
            Self::next(&mut target);
        }
        target.ready = self.lie != Lie::NeverReady || write.purpose == Purpose::Restore;
        let answer = target.clone();
        match (self.lie, write.purpose) {
            (Lie::WritesElsewhere, Purpose::Apply) => target.content = b"--other".to_vec(),
            (Lie::RestoresHalf, Purpose::Restore) => target.content.truncate(3),
            _ => {}
        }
        Ok(answer)
    }

    async fn route(
        &self,
        _: &ActuatedInstance,
        routing: &Routing,
    ) -> Result<TargetSettings, ActuatorError> {
        let mut target = self.target.lock().unwrap();
        let current = target.epoch.unwrap_or(0);
        if routing.epoch < current && self.lie != Lie::RoutesForAnyEpoch {
            return Err(ActuatorError::StaleEpoch {
                target: routing.target.clone(),
                epoch: routing.epoch,
                current,
            });
        }
        if self.lie != Lie::RoutesNothing {
            target.takes_requests = Some(routing.takes_requests);
        }
        Ok(target.clone())
    }
}

/// What is found, but for what passed.
async fn broken(lie: Lie, stop: &CancellationToken) -> (Vec<(Step, Outcome)>, Fake) {
    let fake = Fake::new(lie);
    let instance = ActuatedInstance {
        instance_id: "a".to_owned(),
        engine: None,
        metrics_urls: Vec::new(),
        labels: std::collections::BTreeMap::new(),
    };
    let checked = Checked {
        actuator: &fake,
        program: None,
        instance: &instance,
        target: None,
        set: None,
        ready_timeout: Duration::ZERO,
    };
    let mut told = Vec::new();
    let found = check(checked, stop, |finding| told.push(finding.clone())).await;
    assert_eq!(found, told);
    assert_eq!(found.len(), 8);
    let broken = found
        .iter()
        .filter(|finding| finding.outcome != Outcome::Passed)
        .map(|finding| (finding.step, finding.outcome))
        .collect();
    (broken, fake)
}

#[tokio::test]
async fn each_broken_promise_is_found_and_settings_are_left_as_they_were() {
    use Lie::*;
    use Outcome::{Failed, Skipped};
    let before = Fake::new(None).target.into_inner().unwrap();
    let all = |first: Step| {
        let skipped = Step::ALL.into_iter().skip_while(move |step| *step != first);
        let skipped = skipped.filter(|step| *step != Step::Hang).skip(1);
        let mut all = vec![(first, Failed)];
        all.extend(skipped.map(|step| (step, Skipped)));
        all
    };
    let apply = vec![
        (Step::Apply, Failed),
        (Step::Repeat, Skipped),
        (Step::StaleRevision, Skipped),
        (Step::StaleEpoch, Skipped),
    ];
    for (lie, expected) in [
        (None, vec![]),
        (ReadsDiffer, all(Step::Read)),
        (NotReady, all(Step::Read)),
        (PlanWrites, all(Step::Plan)),
        (PlanIgnores, all(Step::Plan)),
        (WritesElsewhere, apply.clone()),
        (NeverReady, apply.clone()),
        (RevisionStays, apply),
        (RepeatWrites, vec![(Step::Repeat, Failed)]),
        (RepeatRestarts, vec![(Step::Repeat, Failed)]),
        (TakesAnyRevision, vec![(Step::StaleRevision, Failed)]),
        (TakesAnyEpoch, vec![(Step::StaleEpoch, Failed)]),
        (
            RestoresHalf,
            vec![(Step::Restore, Failed), (Step::Route, Skipped)],
        ),
        (
            RefusesRestore,
            vec![(Step::Restore, Failed), (Step::Route, Skipped)],
        ),
        (RoutesNothing, vec![(Step::Route, Failed)]),
        (RoutesForAnyEpoch, vec![(Step::Route, Failed)]),
    ] {
        let (mut found, fake) = broken(lie, &CancellationToken::new()).await;
        found.sort_by_key(|(step, _)| Step::ALL.iter().position(|one| one == step));
        assert_eq!(found, expected, "{lie:?}");
        let after = fake.target.into_inner().unwrap();
        if !matches!(lie, RestoresHalf | RefusesRestore) {
            assert_eq!(after.content, before.content, "{lie:?}");
        }
    }
}

#[tokio::test]
async fn told_to_stop_it_changes_nothing_more() {
    let stop = CancellationToken::new();
    stop.cancel();
    let (found, fake) = broken(Lie::None, &stop).await;
    assert!(
        found.contains(&(Step::Apply, Outcome::Skipped)),
        "{found:?}"
    );
    let after = fake.target.into_inner().unwrap();
    assert_eq!(after, Fake::new(Lie::None).target.into_inner().unwrap());
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn a_flag_is_changed_where_it_stands() {
    let with = |text: &str| with_flag(&words(text), "--cap", "7").join(" ");
    assert_eq!(with("m --cap 8 --x"), "m --cap 7 --x");
    assert_eq!(with("m --cap=8 --x"), "m --cap=7 --x");
    assert_eq!(with("m --capped 8"), "m --capped 8 --cap 7");
}

#[test]
fn the_cap_is_moved_by_one() {
    let cap = |text: &str| moved_cap(&words(text)).map(|(flag, value)| flag + " " + &value);
    assert_eq!(
        cap("--max-num-seqs=64").as_deref(),
        Some("--max-num-seqs 63")
    );
    assert_eq!(
        cap("--max-running-requests 1").as_deref(),
        Some("--max-running-requests 2")
    );
    assert_eq!(cap("--max-num-seqs lots"), None);
    assert_eq!(cap("serve m"), None);
}
