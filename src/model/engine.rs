//! One engine: requests wait, run, have tokens, and leave.

use std::collections::VecDeque;

use super::cache::KvCache;
use super::event::{Event, FinishReason, Finished, Sink};
use super::policy;
use super::random::{Random, Use};
use super::request::{Id, Request, RequestSpec, Slots};
use super::settings::{Policy, Settings, SettingsError};
use super::step_time::{Batch, StepTime};

/// One engine. Its time moves by [`Engine::step`] and [`Engine::wait_until`].
#[derive(Debug, Clone)]
pub struct Engine {
    pub(super) settings: Settings,
    step_time: StepTime,
    random: Random,
    now: f64,
    pub(super) requests: Slots,
    pub(super) waiting: VecDeque<Id>,
    /// Those that the scheduler may not take yet, as they arrived.
    deferred: Vec<Id>,
    /// In the order in which they began.
    pub(super) running: Vec<Id>,
    pub(super) cache: KvCache,
    pub(super) plan: Vec<Planned>,
    /// Share of what running requests may still have that is set aside (SGLang).
    pub(super) new_token_ratio: f64,
    /// Decode steps since the last prefill (TGI).
    pub(super) decodes_in_a_row: u32,
    someone_is_impatient: bool,
    without_hits: bool,
    /// Steps take this many times as long.
    pub(super) slowness: f64,
    /// Share of requests that fail.
    pub(super) failure_ratio: f64,
    ended: Vec<Ended>,
    steps: u64,
}

/// What a request gets in the next step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Planned {
    pub(super) id: Id,
    /// Tokens computed for it, those guessed ahead included.
    pub(super) tokens: u32,
    /// Of them, those guessed ahead.
    pub(super) guessed: u32,
}

/// A request that has ended, for the client that waits for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ended {
    pub(super) at: f64,
    pub(super) index: u64,
    pub(super) refused: bool,
}

/// How an engine is at one instant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gauges {
    /// Requests that run.
    pub running: u32,
    /// Requests that wait for room.
    pub waiting: u32,
    /// Requests that wait for an adapter, a grammar or a KV transfer.
    pub deferred: u32,
    /// Share of the KV cache that requests hold.
    pub kv_usage_ratio: f64,
    /// Tokens that requests hold or have set aside.
    pub reserved_tokens: u64,
    /// SGLang's estimate of the share of their outputs that requests will have.
    pub new_token_ratio: f64,
}

impl Engine {
    /// An engine that has just started; its cache is empty.
    ///
    /// # Errors
    /// Settings that no engine can have.
    pub fn new(settings: Settings, step_time: StepTime, seed: u64) -> Result<Self, SettingsError> {
        settings.check()?;
        Ok(Self {
            cache: KvCache::new(
                settings.kv_blocks,
                settings.block_size,
                settings.prefix_caching,
            ),
            new_token_ratio: policy::initial_new_token_ratio(&settings),
            settings,
            step_time,
            random: Random::new(seed),
            now: 0.0,
            requests: Slots::default(),
            waiting: VecDeque::new(),
            deferred: Vec::new(),
            running: Vec::new(),
            plan: Vec::new(),
            decodes_in_a_row: 0,
            someone_is_impatient: false,
            without_hits: false,
            slowness: 1.0,
            failure_ratio: 0.0,
            ended: Vec::new(),
            steps: 0,
        })
    }

    /// Seconds of the simulation.
    pub fn now(&self) -> f64 {
        self.now
    }

    /// Steps so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Whether any request waits or runs.
    pub fn has_work(&self) -> bool {
        !(self.waiting.is_empty() && self.deferred.is_empty() && self.running.is_empty())
    }

    /// How it is now.
    pub fn gauges(&self) -> Gauges {
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        Gauges {
            running: count(self.running.len()),
            waiting: count(self.waiting.len()),
            deferred: count(self.deferred.len()),
            kv_usage_ratio: self.cache.usage_ratio(),
            reserved_tokens: policy::reserved_tokens(self),
            new_token_ratio: self.new_token_ratio,
        }
    }

    /// Its settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Time passes and nothing is done.
    pub fn wait_until(&mut self, time: f64) {
        self.now = self.now.max(time);
    }

    /// A request arrives, at a time that is not after now.
    pub fn submit(&mut self, spec: RequestSpec, arrived: f64, sink: &mut impl Sink) {
        let bound = self.settings.max_num_queued_reqs;
        let counted = match self.settings.policy {
            // TGI bounds all that are inside
            Policy::Tgi => self.waiting.len() + self.deferred.len() + self.running.len(),
            Policy::Vllm => self.waiting.len() + self.deferred.len(),
            // a queue of its own
            Policy::Sglang => self.waiting.len(),
        };
        if bound.is_some_and(|most| counted >= most as usize) {
            sink.event(arrived, &Event::Rejected);
            self.ended.push(Ended {
                at: arrived,
                index: spec.index,
                refused: true,
            });
            return;
        }
        sink.event(arrived, &Event::Arrived(spec));
        self.someone_is_impatient |= spec.patience_seconds.is_some();
        let id = self.requests.add(Request::new(spec, arrived));
        if spec.deferred_seconds > 0.0 {
            self.deferred.push(id);
        } else {
            self.waiting.push_back(id);
        }
    }

    /// When the scheduler may take the next request that it may not take yet.
    pub(super) fn next_ready(&self) -> Option<f64> {
        let ready = self
            .deferred
            .iter()
            .map(|id| self.requests.look(*id).ready());
        ready.min_by(f64::total_cmp)
    }

    /// One step; false where there is nothing that could be done.
    pub fn step(&mut self, sink: &mut impl Sink) -> bool {
        if self.someone_is_impatient {
            self.let_go(sink);
        }
        self.release_deferred();
        self.plan.clear();
        policy::schedule(self, sink);
        if self.plan.is_empty() && self.running.is_empty() && !self.waiting.is_empty() {
            // what its beginning would keep of the cache is what it needs
            self.without_hits = true;
            policy::schedule(self, sink);
            self.without_hits = false;
        }
        if self.plan.is_empty() {
            return false;
        }
        self.execute(sink);
        true
    }

    /// Requests that have ended since the last time.
    pub(super) fn take_ended(&mut self) -> std::vec::Drain<'_, Ended> {
        self.ended.drain(..)
    }

    /// Every request ends with an error: the engine is restarted.
    pub(super) fn fail_all(&mut self, sink: &mut impl Sink) {
        let all: Vec<Id> = self
            .running
            .drain(..)
            .chain(self.waiting.drain(..))
            .chain(self.deferred.drain(..))
            .collect();
        for id in all {
            self.finish(id, FinishReason::Error, sink);
            self.requests.remove(id);
        }
    }

    /// Tokens at the beginning of a waiting request that are in the cache.
    pub(super) fn hit_tokens(&self, id: Id) -> u32 {
        let request = self.requests.look(id);
        match self.without_hits {
            true => 0,
            false => self.cache.hit_tokens(request.spec.prefix, request.tokens()),
        }
    }

    /// A request runs that did not.
    pub(super) fn note_scheduled(&mut self, id: Id, hit: u32, sink: &mut impl Sink) {
        let now = self.now;
        let request = self.requests.get(id);
        if request.first_scheduled.is_some() {
            return;
        }
        request.first_scheduled = Some(now);
        request.cached_tokens = hit;
        let queued = match self.settings.policy {
            // its grammar queue is before its queue
            Policy::Sglang => request.ready(),
            _ => request.arrived,
        };
        let event = Event::Scheduled {
            queue_seconds: now - queued,
            prompt_tokens: request.spec.prompt_tokens,
            cached_tokens: hit,
        };
        sink.event(now, &event);
    }

    /// A running request loses its blocks; it is put back by whoever took it out of the row.
    pub(super) fn preempt(&mut self, id: Id, sink: &mut impl Sink) {
        let request = self.requests.get(id);
        self.cache
            .release(std::mem::take(&mut request.held), request.spec.prefix);
        request.computed = 0;
        request.reserved_tokens = 0;
        request.preemptions += 1;
        sink.event(self.now, &Event::Preempted);
    }

    /// Requests whose time has come wait with the others: on vLLM in the place that they would have had, elsewhere
    /// behind them.
    fn release_deferred(&mut self) {
        let now = self.now;
        let in_place = self.settings.policy == Policy::Vllm;
        let (requests, waiting) = (&self.requests, &mut self.waiting);
        self.deferred.retain(|id| {
            let request = requests.look(*id);
            if request.ready() > now {
                return true;
            }
            let before = |other: &Id| requests.look(*other).arrived <= request.arrived;
            let place = if in_place {
                waiting.iter().rposition(before).map_or(0, |at| at + 1)
            } else {
                waiting.len()
            };
            waiting.insert(place, *id);
            false
        });
    }

    /// Computes what is planned.
    fn execute(&mut self, sink: &mut impl Sink) {
        let mut batch = Batch::default();
        for planned in &self.plan {
            let request = self.requests.get(planned.id);
            let (before, tokens) = (u64::from(request.computed), u64::from(planned.tokens));
            if request.generated > 0
                && request.missing() + planned.guessed == planned.tokens
                && request.missing() == 1
            {
                batch.decode_sequences += 1;
                batch.speculated_tokens += planned.guessed;
                batch.decode_context_tokens += before;
            } else {
                batch.prefill_tokens += planned.tokens;
                batch.prefill_context_tokens += tokens * before + tokens * tokens / 2;
            }
        }
        let jitter = self.step_time.jitter.draw(self.random, self.steps);
        let slowness = self.slowness * jitter.factor;
        let seconds = self.step_time.seconds(&batch) * slowness + jitter.pause_seconds;
        self.now += seconds;
        self.steps += 1;
        let plan = std::mem::take(&mut self.plan);
        let mut outputs = 0;
        let mut any_ended = false;
        for planned in &plan {
            let (has_output, has_ended) = self.advance(*planned, sink);
            outputs += u32::from(has_output);
            any_ended |= has_ended;
        }
        self.plan = plan;
        if any_ended {
            let requests = &mut self.requests;
            self.running.retain(|id| !requests.get(*id).ended);
            for planned in &self.plan {
                if self.requests.get(planned.id).ended {
                    self.requests.remove(planned.id);
                }
            }
        }
        sink.event(
            self.now,
            &Event::Step {
                batch,
                seconds,
                device_seconds: self.step_time.device_seconds(&batch) * slowness,
                eager: self.step_time.is_eager(&batch),
                outputs,
            },
        );
    }

    /// A request had its part of a step: whether a token came out of it, and whether it has ended.
    fn advance(&mut self, planned: Planned, sink: &mut impl Sink) -> (bool, bool) {
        let now = self.now;
        let accepted = self.accepted(planned);
        let request = self.requests.get(planned.id);
        request.computed += planned.tokens - planned.guessed;
        let computed = request.computed;
        self.cache
            .computed(&mut request.held, request.spec.prefix, computed);
        if request.computed < request.tokens() {
            return (false, false);
        }
        // a request that fails does so at its first token
        if request.generated == 0 && self.failure_ratio > 0.0 {
            let index = request.spec.index;
            if self.random.unit(Use::Failure, index) < self.failure_ratio {
                self.finish(planned.id, FinishReason::Error, sink);
                return (false, true);
            }
        }
        let left = request.spec.output_tokens - request.generated;
        let count = (1 + accepted).min(left);
        if planned.guessed > 0 {
            let event = Event::Speculated {
                guessed: planned.guessed,
                accepted: count - 1,
            };
            sink.event(now, &event);
        }
        let gap_seconds = now - request.last_token;
        request.last_token = now;
        request.generated += count;
        // what was guessed right is computed already
        request.computed += count - 1;
        match request.first_token {
            Some(_) => sink.event(now, &Event::Tokens { count, gap_seconds }),
            None => {
                request.first_token = Some(now);
                let event = Event::FirstToken {
                    seconds: now - request.arrived + self.step_time.frontend_seconds,
                    prompt_tokens: request.spec.prompt_tokens,
                    cached_tokens: request.cached_tokens,
                };
                sink.event(now, &event);
            }
        }
        let request = self.requests.get(planned.id);
        if request.generated >= request.spec.output_tokens {
            let reason = if request.spec.ends_by_length {
                FinishReason::Length
            } else {
                FinishReason::Stop
            };
            self.finish(planned.id, reason, sink);
            return (true, true);
        }
        if request
            .spec
            .abort_after
            .is_some_and(|tokens| request.generated >= tokens)
        {
            self.finish(planned.id, FinishReason::Abort, sink);
            return (true, true);
        }
        (true, false)
    }

    /// How many of the guesses are right.
    fn accepted(&mut self, planned: Planned) -> u32 {
        let Some(speculation) = self.settings.speculation.filter(|_| planned.guessed > 0) else {
            return 0;
        };
        let request = self.requests.get(planned.id);
        let first = (request.spec.index << 20) + u64::from(request.generated);
        let right = |guess: &u32| {
            let index = first.wrapping_mul(31).wrapping_add(u64::from(*guess));
            self.random.unit(Use::Speculation, index) < speculation.acceptance_ratio
        };
        let right = (0..planned.guessed).take_while(right).count();
        u32::try_from(right).unwrap_or(0)
    }

    /// A request leaves. Its slot is given up by whoever takes it out of its row.
    fn finish(&mut self, id: Id, reason: FinishReason, sink: &mut impl Sink) {
        let ended = self.now;
        let request = self.requests.get(id);
        self.cache
            .release(std::mem::take(&mut request.held), request.spec.prefix);
        request.ended = true;
        let finished = Finished {
            request: request.spec,
            reason,
            arrived: request.arrived,
            first_scheduled: request.first_scheduled,
            first_token: request.first_token,
            ended,
            output_tokens: request.generated,
            cached_tokens: request.cached_tokens,
            preemptions: request.preemptions,
        };
        let refused = reason == FinishReason::Error;
        self.ended.push(Ended {
            at: ended + self.step_time.frontend_seconds,
            index: request.spec.index,
            refused,
        });
        sink.event(ended, &Event::Finished(finished));
    }

    /// Clients go that have waited long enough for a first token.
    fn let_go(&mut self, sink: &mut impl Sink) {
        let now = self.now;
        let mut gone = Vec::new();
        for id in self
            .waiting
            .iter()
            .chain(&self.running)
            .chain(&self.deferred)
        {
            let request = self.requests.get(*id);
            let patience = request
                .spec
                .patience_seconds
                .filter(|_| request.first_token.is_none());
            if patience.is_some_and(|seconds| now - request.arrived > seconds) {
                gone.push(*id);
            }
        }
        if gone.is_empty() {
            return;
        }
        for id in &gone {
            self.finish(*id, FinishReason::Abort, sink);
        }
        let requests = &mut self.requests;
        self.waiting.retain(|id| !requests.get(*id).ended);
        self.deferred.retain(|id| !requests.get(*id).ended);
        self.running.retain(|id| !requests.get(*id).ended);
        for id in gone {
            self.requests.remove(id);
        }
    }
}
