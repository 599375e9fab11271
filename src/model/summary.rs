//! What a simulation showed.

use std::collections::BTreeMap;

use super::event::{Event, FinishReason, Sink};

/// Counts events from some time on.
#[derive(Debug, Clone)]
pub struct Tally {
    from: f64,
    last: f64,
    generated_tokens: u64,
    prompt_tokens: u64,
    cached_tokens: u64,
    computed_tokens: u64,
    finished: BTreeMap<FinishReason, u64>,
    rejected: u64,
    preemptions: u64,
    steps: u64,
    busy_seconds: f64,
    queue_seconds: Mean,
    time_to_first_token: Spread,
    inter_token: Spread,
    end_to_end: Spread,
}

/// What a simulation showed, over some time.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// How long.
    pub seconds: f64,
    /// Tokens that came out.
    pub generated_tokens: u64,
    /// Tokens of prompts whose first token came out.
    pub prompt_tokens: u64,
    /// Of the prompts that began, tokens that were in the cache.
    pub cached_tokens: u64,
    /// Tokens of prompts that were computed, again ones included.
    pub computed_tokens: u64,
    /// Requests that left, by reason.
    pub finished: BTreeMap<FinishReason, u64>,
    /// Requests that were refused.
    pub rejected: u64,
    /// Requests that lost their place.
    pub preemptions: u64,
    /// Steps.
    pub steps: u64,
    /// Time in which a step was under way.
    pub busy_seconds: f64,
    /// From arrival until a request first ran.
    pub mean_queue_seconds: Option<f64>,
    /// From arrival to the first token.
    pub time_to_first_token_seconds: Option<Quantiles>,
    /// Between one output of a request and the next.
    pub inter_token_seconds: Option<Quantiles>,
    /// From arrival to the end, of those that ended by themselves.
    pub end_to_end_seconds: Option<Quantiles>,
}

/// How something is spread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantiles {
    /// How many there were.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// Half are below; to 1 %, as the others.
    pub p50: f64,
    /// 90 in 100 are below.
    pub p90: f64,
    /// 99 in 100 are below.
    pub p99: f64,
}

impl Tally {
    /// Counts what happens after this second of the simulation.
    pub fn from(seconds: f64) -> Self {
        Self {
            from: seconds,
            last: seconds,
            generated_tokens: 0,
            prompt_tokens: 0,
            cached_tokens: 0,
            computed_tokens: 0,
            finished: BTreeMap::new(),
            rejected: 0,
            preemptions: 0,
            steps: 0,
            busy_seconds: 0.0,
            queue_seconds: Mean::default(),
            time_to_first_token: Spread::default(),
            inter_token: Spread::default(),
            end_to_end: Spread::default(),
        }
    }

    /// What was counted until then.
    pub fn summary(&self, until: f64) -> Summary {
        Summary {
            seconds: until.max(self.last) - self.from,
            generated_tokens: self.generated_tokens,
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached_tokens,
            computed_tokens: self.computed_tokens,
            finished: self.finished.clone(),
            rejected: self.rejected,
            preemptions: self.preemptions,
            steps: self.steps,
            busy_seconds: self.busy_seconds,
            mean_queue_seconds: self.queue_seconds.value(),
            time_to_first_token_seconds: self.time_to_first_token.quantiles(),
            inter_token_seconds: self.inter_token.quantiles(),
            end_to_end_seconds: self.end_to_end.quantiles(),
        }
    }
}

impl Summary {
    /// Generated tokens a second.
    pub fn tokens_per_second(&self) -> f64 {
        self.generated_tokens as f64 / self.seconds
    }

    /// Requests that ended by themselves, a second.
    pub fn requests_per_second(&self) -> f64 {
        let ended = [FinishReason::Stop, FinishReason::Length];
        let ended: u64 = ended
            .iter()
            .filter_map(|reason| self.finished.get(reason))
            .sum();
        ended as f64 / self.seconds
    }
}

impl Sink for Tally {
    fn event(&mut self, now: f64, event: &Event) {
        if now <= self.from {
            return;
        }
        self.last = self.last.max(now);
        match *event {
            Event::Tokens { count, gap_seconds } => {
                self.generated_tokens += u64::from(count);
                self.inter_token.add(gap_seconds);
            }
            Event::FirstToken {
                seconds,
                prompt_tokens,
                ..
            } => {
                self.generated_tokens += 1;
                self.prompt_tokens += u64::from(prompt_tokens);
                self.time_to_first_token.add(seconds);
            }
            Event::Step { batch, seconds, .. } => {
                self.steps += 1;
                self.busy_seconds += seconds;
                self.computed_tokens += u64::from(batch.prefill_tokens);
            }
            Event::Scheduled {
                queue_seconds,
                cached_tokens,
                ..
            } => {
                self.queue_seconds.add(queue_seconds);
                self.cached_tokens += u64::from(cached_tokens);
            }
            Event::Preempted => self.preemptions += 1,
            Event::Rejected => self.rejected += 1,
            Event::Arrived(_) | Event::Speculated { .. } => {}
            Event::Finished(finished) => {
                *self.finished.entry(finished.reason).or_default() += 1;
                if matches!(finished.reason, FinishReason::Stop | FinishReason::Length) {
                    self.end_to_end.add(finished.ended - finished.arrived);
                }
            }
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    count: u64,
    sum: f64,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
    }

    fn value(self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}

/// Values in bins that are 1 % wide.
#[derive(Debug, Clone, Default)]
struct Spread {
    mean: Mean,
    bins: BTreeMap<i32, u64>,
    /// Values that come one after another are mostly the same: those of one step.
    last: Option<(f64, u64)>,
}

const BIN_RATIO: f64 = 1.01;

impl Spread {
    fn add(&mut self, value: f64) {
        self.mean.add(value);
        match &mut self.last {
            Some((last, count)) if *last == value => *count += 1,
            _ => {
                self.put_away();
                self.last = Some((value, 1));
            }
        }
    }

    fn put_away(&mut self) {
        if let Some((value, count)) = self.last.take() {
            *self.bins.entry(bin(value)).or_default() += count;
        }
    }

    fn quantiles(&self) -> Option<Quantiles> {
        let mut all = self.clone();
        all.put_away();
        let count = all.mean.count;
        let at = |share: f64| {
            let mut left = (share * count as f64).ceil() as u64;
            let found = all.bins.iter().find(|(_, inside)| {
                left = left.saturating_sub(**inside);
                left == 0
            });
            // the middle of the bin
            found.map_or(0.0, |(bin, _)| BIN_RATIO.powf(f64::from(*bin) + 0.5))
        };
        Some(Quantiles {
            count,
            mean: all.mean.value()?,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
        })
    }
}

fn bin(value: f64) -> i32 {
    // `as` saturates; what is below a nanosecond is one bin
    (value.max(1e-9).ln() / BIN_RATIO.ln()).floor() as i32
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_one_percent() {
        let mut spread = Spread::default();
        for value in 1..=1_000 {
            spread.add(f64::from(value) * 1e-3);
        }
        let found = spread.quantiles().unwrap();
        assert_eq!(found.count, 1_000);
        for (found, expected) in [
            (found.mean, 0.5005),
            (found.p50, 0.5),
            (found.p90, 0.9),
            (found.p99, 0.99),
        ] {
            assert!(
                (found / expected - 1.0).abs() < 0.01,
                "{found} for {expected}"
            );
        }
        assert_eq!(Spread::default().quantiles(), None);
    }
}
