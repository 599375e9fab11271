//! What carries workflows on: a task for each that has not ended.
//!
//! A task asks what comes next, does it, and commits what came of it; then it asks again. It keeps nothing that the store
//! does not have, so that it can be ended at any point and begun again.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::came::Came;
use super::lease::Held;
use super::site::{ACTOR, Site};
use super::waits::{SELDOM, broken_off, left, no_room, since, spaced, takes_room};
use super::{Workflows, micros};
use crate::actuator::Slot;
use crate::agent::fleet::Hold;
use crate::agent::{Agent, Error};
use crate::store::{Snapshot, Store, StoreError};
use crate::workflow::{Command, Phase, Step, StepEffect, Workflow, next_step};

/// After a store or a lease that cannot be had.
const AFTER_TROUBLE: Duration = Duration::from_secs(1);
/// Between two looks at a workflow that another agent may know how to carry on; and how long it is waited for one that does.
const ELSEWHERE: Duration = Duration::from_secs(5);
const NOBODY_KNOWS: Duration = Duration::from_secs(120);
/// For how long a workflow that nobody holds is left to the agent that measures its instance.
const LEFT_TO_OWNER: Duration = Duration::from_secs(2);
/// Between two looks of the guards at a workflow that is paused.
const GUARD: Duration = Duration::from_secs(1);

/// Carries a workflow on until it has ended.
pub(super) async fn carry_on(agent: Weak<Agent>, id: String, wake: Arc<Notify>) {
    let mut runner = Runner {
        id,
        wake,
        held: None,
        left_since: None,
        measured: None,
        tries: (Phase::Analysing, 0),
        problem: None,
        unready_since: None,
        unknown_since: None,
    };
    loop {
        let Some(strong) = agent.upgrade() else {
            return;
        };
        let Some((store, workflows)) = strong.store.clone().zip(strong.workflows.clone()) else {
            return;
        };
        if workflows.stop.is_cancelled() {
            runner.let_go(&*store).await;
            return;
        }
        let turn = runner.turn(&strong, store.clone(), &workflows).await;
        drop(strong);
        let pause = match turn {
            Turn::Again => continue,
            Turn::Ended => return,
            Turn::Wait(until) => until,
        };
        let stop = workflows.stop.clone();
        drop(workflows);
        let slept = async {
            match pause {
                Some(time) => tokio::time::sleep(time).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => {
                // so that another agent need not wait until its time is over
                runner.let_go(&*store).await;
                return;
            }
            () = runner.wake.notified() => {}
            () = slept => {}
        }
    }
}

/// What a turn came to.
enum Turn {
    /// There is more to do.
    Again,
    /// Nothing to do for so long, or until somebody asks for something.
    Wait(Option<Duration>),
    /// Nothing more.
    Ended,
}

struct Runner {
    id: String,
    wake: Arc<Notify>,
    held: Option<Held>,
    /// Since when it is left to the agent that measures its instance.
    left_since: Option<Instant>,
    /// While it is held its instance is measured here.
    measured: Option<Hold>,
    /// How often the effect of this phase was tried.
    tries: (Phase, u32),
    /// What stood in the way last.
    problem: Option<String>,
    /// Since when a target that has the change does not serve.
    unready_since: Option<Instant>,
    /// Since when this agent does not know its instance or its actuator.
    unknown_since: Option<Instant>,
}

impl Runner {
    async fn turn(
        &mut self,
        agent: &Arc<Agent>,
        store: Arc<dyn Store>,
        workflows: &Workflows,
    ) -> Turn {
        let state = match store.workflow(&self.id).await {
            Ok(Some(state)) => state,
            Ok(None) => return Turn::Ended,
            Err(error @ StoreError::Unreadable(_)) => {
                // another version may read it: nothing is done to it
                tracing::error!(workflow_id = self.id, "the workflow is stopped: {error}");
                return Turn::Ended;
            }
            Err(error) => {
                tracing::warn!(
                    workflow_id = self.id,
                    "the workflow cannot be read: {error}"
                );
                return Turn::Wait(Some(AFTER_TROUBLE));
            }
        };
        if self.tries.0 != state.phase {
            self.tries = (state.phase, 0);
            self.problem = None;
            self.unready_since = None;
        }
        let now_us = micros(SystemTime::now());
        let left = state.deadline_us.map(|deadline| left(deadline, now_us));
        let effect = match next_step(&state) {
            Step::Nothing => {
                self.let_go(&*store).await;
                return Turn::Ended;
            }
            Step::Wait { .. } => {
                self.let_go(&*store).await;
                if left == Some(Duration::ZERO) {
                    return self
                        .commit(agent, &state, self.time_over(), Vec::new())
                        .await;
                }
                return self.guard(agent, &state, left).await;
            }
            Step::Do(effect) => effect,
        };
        let site = agent.site_of(&state);
        if site.is_err()
            && store.is_shared()
            && left != Some(Duration::ZERO)
            && self
                .unknown_since
                .get_or_insert_with(Instant::now)
                .elapsed()
                < NOBODY_KNOWS
        {
            // another agent may have what the config file of this one lacks, or lacks still
            tracing::debug!(
                workflow_id = self.id,
                "it is left to an agent that knows its instance"
            );
            self.let_go(&*store).await;
            return Turn::Wait(Some(ELSEWHERE));
        }
        if let Err(error) = agent.may_act() {
            tracing::debug!(workflow_id = self.id, "it is left to other agents: {error}");
            self.let_go(&*store).await;
            return Turn::Wait(Some(AFTER_TROUBLE));
        }
        // who measures the instance knows it for longer; nobody waits for it for long
        if self.held.is_none() && !agent.fleet.is_ours(&state.spec.instance_id) {
            let left_since = *self.left_since.get_or_insert_with(Instant::now);
            let left = LEFT_TO_OWNER.saturating_sub(left_since.elapsed());
            if !left.is_zero() {
                return Turn::Wait(Some(left));
            }
        }
        if let Err(turn) = self.hold(store, workflows).await {
            return turn;
        }
        self.left_since = None;
        if self.measured.is_none() {
            self.measured = agent.fleet.hold(&state.spec.instance_id);
        }
        let site = match site {
            Ok(site) => site,
            Err(failure) => {
                return self
                    .commit(agent, &state, Command::Fail(failure), Vec::new())
                    .await;
            }
        };
        // measuring ends by itself: what is known at the end counts
        if left == Some(Duration::ZERO) && effect != StepEffect::Measure {
            return self
                .commit(agent, &state, self.time_over(), Vec::new())
                .await;
        }
        let stop = &workflows.stop;
        match self
            .do_it(agent, &state, &site, (effect, stop), now_us)
            .await
        {
            Some(Came::Command(command, snapshots)) => {
                self.commit(agent, &state, *command, snapshots).await
            }
            Some(Came::Later { after, problem }) => {
                self.tries.1 = self.tries.1.saturating_add(1);
                self.problem = Some(problem);
                let seldom = match effect {
                    // a canary that does harm is undone soon
                    StepEffect::Observe => GUARD,
                    _ => SELDOM,
                };
                let after = spaced(after, since(state.phase_since_us, now_us), seldom);
                Turn::Wait(Some(left.map_or(after, |left| after.min(left))))
            }
            Some(Came::NotOurs) => {
                tracing::warn!(
                    workflow_id = self.id,
                    "a later holder acts for the workflow"
                );
                self.held = None;
                Turn::Wait(Some(AFTER_TROUBLE))
            }
            // somebody has asked for something meanwhile, or the time is over
            None => Turn::Again,
        }
    }

    /// Does it; none where it was broken off because the workflow may be elsewhere by now. What may be under way at an
    /// engine is not broken off.
    async fn do_it(
        &mut self,
        agent: &Arc<Agent>,
        state: &Workflow,
        site: &Site,
        (effect, stop): (StepEffect, &CancellationToken),
        now_us: i64,
    ) -> Option<Came> {
        let held = self.held.as_ref()?;
        let tries = self.tries.1;
        let unready_since = &mut self.unready_since;
        let left = state.deadline_us.map(|deadline| left(deadline, now_us));
        let broken_off = broken_off(&self.wake, stop, left);
        tokio::pin!(broken_off);
        let is_over = left == Some(Duration::ZERO);
        let slot = match takes_room(effect) && !is_over {
            true => site.actuator.slot().now_or_never(),
            false => Some(Slot::free()),
        };
        let _slot = match slot {
            Some(slot) => slot,
            None => {
                // a canary's harm is seen whether or not there is room
                if effect == StepEffect::Observe
                    && let Some(harm) = agent.harm_now(site, state).await
                {
                    return Some(Came::command(Command::Fail(harm)));
                }
                tokio::select! {
                    slot = site.actuator.slot() => slot,
                    () = &mut broken_off => {
                        self.problem.get_or_insert_with(|| no_room(site));
                        return None;
                    }
                }
            }
        };
        let now_us = micros(SystemTime::now());
        let work = async {
            match effect {
                StepEffect::Analyse => agent.analyse(site).await,
                StepEffect::Plan => agent.make_plan(site, state, true).await,
                StepEffect::BeginWrite => agent.begin_write(site, state, held).await,
                StepEffect::Write { target } => agent.write_target(site, state, target, held).await,
                StepEffect::AwaitReady { target } | StepEffect::AwaitRestored { target } => {
                    agent.await_ready(site, state, target, held).await
                }
                StepEffect::Drain { target } => {
                    agent.drain(site, state, target, held, now_us).await
                }
                StepEffect::CheckQuality => agent.check_quality(site, state).await,
                StepEffect::Observe => agent.observe(site, state, unready_since).await,
                StepEffect::Measure => match agent.drift_while_measuring(site, state).await {
                    Some(drift) => drift,
                    None => agent.measure_effects(site, state, now_us).await,
                },
                StepEffect::BeginRestore => Came::command(match state.next_to_restore() {
                    Some(_) => Command::Intend {
                        epoch: held.epoch(),
                        baseline: None,
                    },
                    None => Command::AllRestored,
                }),
                StepEffect::Restore { target } => {
                    agent.restore_target(site, state, target, held, tries).await
                }
            }
        };
        if state.phase.has_intent() {
            return Some(work.await);
        }
        tokio::select! {
            came = work => Some(came),
            () = broken_off => None,
        }
    }

    fn time_over(&self) -> Command {
        Command::TimeOver {
            problem: self.problem.clone(),
        }
    }

    /// Guards act while a workflow is paused, too: a change that does harm is not left in force until somebody looks.
    async fn guard(
        &mut self,
        agent: &Arc<Agent>,
        state: &Workflow,
        left: Option<Duration>,
    ) -> Turn {
        let stands_still = state.pause.is_some() || state.phase == Phase::AwaitingPromotion;
        let watched = stands_still && state.has_touched();
        let (true, Ok(site)) = (watched, agent.site_of(state)) else {
            return Turn::Wait(left);
        };
        // of several agents the one that measures the instance guards it
        if !agent.fleet.is_ours(&state.spec.instance_id) {
            return Turn::Wait(Some(left.map_or(ELSEWHERE, |left| left.min(ELSEWHERE))));
        }
        match agent.harm_now(&site, state).await {
            Some(harm) => {
                self.commit(agent, state, Command::Fail(harm), Vec::new())
                    .await
            }
            None => Turn::Wait(Some(left.map_or(GUARD, |left| left.min(GUARD)))),
        }
    }

    /// Takes the lease, if it is not held already.
    async fn hold(&mut self, store: Arc<dyn Store>, workflows: &Workflows) -> Result<(), Turn> {
        if self.held.as_ref().is_some_and(Held::may_act) {
            return Ok(());
        }
        let is_shared = store.is_shared();
        let taken = workflows.leases.take(store, &self.id, &workflows.holder);
        match taken.await {
            Ok(held) => {
                self.held = Some(held);
                Ok(())
            }
            // it is looked at again when nobody holds it
            Err(StoreError::Leased { holder, .. }) if is_shared => {
                tracing::debug!(workflow_id = self.id, holder, "another agent carries it on");
                self.held = None;
                Err(Turn::Ended)
            }
            Err(error) => {
                tracing::warn!(workflow_id = self.id, "no lease of the workflow: {error}");
                self.held = None;
                Err(Turn::Wait(Some(AFTER_TROUBLE)))
            }
        }
    }

    async fn let_go(&mut self, store: &dyn Store) {
        self.measured = None;
        if let Some(held) = self.held.take()
            && let Err(error) = store.release_lease(held.lease()).await
        {
            tracing::warn!(workflow_id = self.id, "a lease was not released: {error}");
        }
    }

    async fn commit(
        &mut self,
        agent: &Arc<Agent>,
        state: &Workflow,
        command: Command,
        snapshots: Vec<Snapshot>,
    ) -> Turn {
        let epoch = self.held.as_ref().map(Held::epoch);
        match agent
            .commit(state, &command, ACTOR, epoch, &snapshots, None)
            .await
        {
            Ok(_) => Turn::Again,
            // somebody was faster: what comes next is looked up again
            Err(Error::Workflow(_)) => Turn::Again,
            Err(Error::Store(StoreError::Moved(_))) => {
                if self.held.as_ref().is_some_and(|held| !held.may_act()) {
                    self.held = None;
                }
                self.tries.1 = self.tries.1.saturating_add(1);
                match self.tries.1 > 3 {
                    true => {
                        self.held = None;
                        Turn::Wait(Some(AFTER_TROUBLE))
                    }
                    false => Turn::Again,
                }
            }
            Err(error @ Error::Store(StoreError::Unreadable(_))) => {
                tracing::error!(workflow_id = self.id, "the workflow is stopped: {error}");
                Turn::Ended
            }
            Err(error) => {
                tracing::warn!(
                    workflow_id = self.id,
                    "a step of the workflow could not be committed: {error}"
                );
                Turn::Wait(Some(AFTER_TROUBLE))
            }
        }
    }
}
