//! What truly comes of a change: long runs without it and with it, of the same requests, counted by the simulator itself.

use std::collections::BTreeMap;

use perfagent::model::{Event, FinishReason, Policy, Sink, Tally};
use perfagent::simulator::Deployment;
use perfagent::workflow::{Bounds, JudgedQuantity};

use super::rollout::{bounds, deployment};
use super::{Changed, Class, Kind, Trial};

/// What one side does, of each quantity its mean or share.
type Values = BTreeMap<JudgedQuantity, f64>;

/// What a change truly does.
#[derive(Debug, Clone)]
pub(crate) struct Effects {
    pub(crate) before: Values,
    pub(crate) after: Values,
    /// Of the first token and of gaps, after over before.
    pub(crate) p99: [Option<f64>; 2],
    /// The engine exports when first tokens come: TGI does not.
    tells_first_tokens: bool,
    pub(crate) bounds: Bounds,
}

/// How long each run is, without what warms it up.
const SECONDS: f64 = 2_400.0;
/// Of other requests than those of the trial.
const OTHER_SEED: u64 = 77_000_000;

const MEANS: [JudgedQuantity; 3] = [
    JudgedQuantity::TimeToFirstTokenMean,
    JudgedQuantity::InterTokenLatencyMean,
    JudgedQuantity::EndToEndLatencyMean,
];
const TAILS: [JudgedQuantity; 3] = [
    JudgedQuantity::TimeToFirstTokenBeyond,
    JudgedQuantity::InterTokenLatencyBeyond,
    JudgedQuantity::EndToEndLatencyBeyond,
];

/// What the change of a trial truly does; the text says why its engine does not run.
pub(crate) fn effects(trial: &Trial) -> Result<Effects, String> {
    let bounds = bounds(trial)?;
    let late = Changed {
        from_share: None,
        ..trial.change.clone()
    };
    let (before, tails_before) = run(trial, &deployment(trial, None)?, &bounds)?;
    let (after, tails_after) = run(trial, &deployment(trial, Some(&late))?, &bounds)?;
    Ok(Effects {
        before,
        after,
        tells_first_tokens: trial.before.engine.as_deref() != Some("tgi"),
        p99: [0, 1].map(|of| Some(tails_after[of]? / tails_before[of]?)),
        bounds,
    })
}

fn run(
    trial: &Trial,
    of: &Deployment,
    bounds: &Bounds,
) -> Result<(Values, [Option<f64>; 2]), String> {
    let mut other = of.clone();
    other.load.seed += OTHER_SEED;
    let mut replica =
        perfagent::simulator::Replica::new(&other, 0, 0.0).map_err(|error| error.to_string())?;
    let mut count = Count {
        from: trial.warm_seconds,
        bounds: *bounds,
        tells_gaps: of.engine != Policy::Tgi,
        first: Values3::default(),
        gaps: Values3::default(),
        whole: Values3::default(),
        failed: 0.0,
        ended: 0.0,
        tally: Tally::from(trial.warm_seconds),
    };
    let end = trial.warm_seconds + SECONDS;
    replica.run_until_with(end, &mut count);
    let summary = count.tally.summary(end);
    let tails = [
        summary.time_to_first_token_seconds,
        summary.inter_token_seconds,
    ];
    Ok((count.values()?, tails.map(|of| Some(of?.p99))))
}

struct Count {
    from: f64,
    bounds: Bounds,
    tells_gaps: bool,
    first: Values3,
    gaps: Values3,
    whole: Values3,
    failed: f64,
    ended: f64,
    tally: Tally,
}

/// How many, their sum, and how many beyond the bound.
#[derive(Default)]
struct Values3 {
    count: f64,
    sum: f64,
    beyond: f64,
}

impl Values3 {
    fn add(&mut self, value: f64, times: f64, bound: Option<f64>) {
        self.count += times;
        self.sum += value * times;
        if bound.is_some_and(|bound| value > bound) {
            self.beyond += times;
        }
    }
}

impl Sink for Count {
    fn event(&mut self, now: f64, event: &Event) {
        self.tally.event(now, event);
        if now <= self.from {
            return;
        }
        match *event {
            Event::FirstToken { seconds, .. } => {
                let bound = self.bounds.time_to_first_token_seconds;
                self.first.add(seconds, 1.0, bound);
            }
            Event::Tokens { gap_seconds, .. } => {
                let bound = self.bounds.inter_token_latency_seconds;
                self.gaps.add(gap_seconds, 1.0, bound);
            }
            Event::Rejected => {
                self.failed += 1.0;
                self.ended += 1.0;
            }
            Event::Finished(finished) => match finished.reason {
                FinishReason::Stop | FinishReason::Length => {
                    self.ended += 1.0;
                    let bound = self.bounds.end_to_end_latency_seconds;
                    self.whole
                        .add(finished.ended - finished.arrived, 1.0, bound);
                }
                FinishReason::Error => {
                    self.failed += 1.0;
                    self.ended += 1.0;
                }
                FinishReason::Abort => {}
            },
            _ => {}
        }
    }
}

impl Count {
    fn values(&self) -> Result<Values, String> {
        if self.whole.count < 500.0 || self.gaps.count < 500.0 {
            return Err(format!("only {} requests end", self.whole.count));
        }
        let mut values = Values::new();
        // an engine that exports no gaps, but their mean of each request, tells nothing of their tail
        let of_gaps = self.bounds.inter_token_latency_seconds;
        let of_gaps = of_gaps.filter(|_| self.tells_gaps);
        for (quantities, of, bound) in [
            (0, &self.first, self.bounds.time_to_first_token_seconds),
            (1, &self.gaps, of_gaps),
            (2, &self.whole, self.bounds.end_to_end_latency_seconds),
        ] {
            values.insert(MEANS[quantities], of.sum / of.count);
            if bound.is_some() {
                values.insert(TAILS[quantities], of.beyond / of.count);
            }
        }
        values.insert(JudgedQuantity::FailureShare, self.failed / self.ended);
        Ok(values)
    }
}

/// A mean that becomes worse by less is not worse.
const EQUAL: f64 = 0.01;
/// A share that becomes larger by less is not worse.
const EQUAL_SHARE: f64 = 0.003;
/// What harms a tail only leaves means within what is tolerated.
const TOLERATED: f64 = 0.04;
/// So much more is beyond where a tail is worse: twice what is tolerated, as 10 % of a mean are.
const WORSE_SHARE: f64 = 0.02;
/// What helps makes something better by this at least.
const HELPS: f64 = 0.1;

impl Effects {
    /// After over before.
    pub(crate) fn ratio(&self, of: JudgedQuantity) -> Option<f64> {
        Some(self.after.get(&of)? / self.before.get(&of)?)
    }

    pub(crate) fn more(&self, of: JudgedQuantity) -> f64 {
        let value = |of_side: &Values| of_side.get(&of).copied().unwrap_or(0.0);
        value(&self.after) - value(&self.before)
    }

    fn means(&self) -> impl Iterator<Item = f64> {
        MEANS.into_iter().filter_map(|of| self.ratio(of))
    }

    /// Of what the engine exports: nothing can be held against what nobody sees.
    fn worst_told_mean(&self) -> f64 {
        let told = MEANS
            .into_iter()
            .filter(|of| self.tells_first_tokens || *of != JudgedQuantity::TimeToFirstTokenMean);
        told.filter_map(|of| self.ratio(of)).fold(0.0, f64::max) - 1.0
    }

    fn worst_mean(&self) -> f64 {
        self.means().fold(0.0, f64::max) - 1.0
    }

    fn best_mean(&self) -> f64 {
        1.0 - self.means().fold(f64::INFINITY, f64::min)
    }

    /// Which class a trial of this kind is of; the text says why it is not of its kind.
    pub(crate) fn class(&self, kind: Kind) -> Result<Class, String> {
        let waited = self.before.get(&JudgedQuantity::TimeToFirstTokenMean);
        let failures = self.more(JudgedQuantity::FailureShare);
        let worst_tail = TAILS
            .into_iter()
            .map(|of| self.more(of))
            .fold(0.0, f64::max);
        // what has no settled queue is another load on either side
        let most = self.after.get(&JudgedQuantity::TimeToFirstTokenMean);
        if waited
            .into_iter()
            .chain(most)
            .any(|seconds| *seconds > 20.0)
        {
            return Err("its queue does not settle".to_owned());
        }
        match kind {
            Kind::Same => Ok(Class::None),
            Kind::Slower | Kind::Worse | Kind::Late => {
                graded(self.worst_told_mean(), [0.1, 0.2, 0.5])
            }
            Kind::ErrorsOnly => graded(failures, [0.005, 0.02, 0.1]),
            Kind::TailOnly => {
                if self.worst_mean() > TOLERATED {
                    return Err("means become worse too".to_owned());
                }
                let worse = TAILS
                    .into_iter()
                    .filter(|of| self.more(*of) >= WORSE_SHARE)
                    .filter_map(|of| Some(self.ratio(of)? - 1.0));
                graded(worse.fold(0.0, f64::max), [0.1, 0.2, 0.5])
            }
            Kind::Faster | Kind::Better | Kind::Traded => {
                if self.best_mean() < HELPS {
                    return Err("it helps too little".to_owned());
                }
                let is_clean = self.worst_mean() < EQUAL
                    && worst_tail < EQUAL_SHARE
                    && failures < EQUAL_SHARE / 10.0;
                match (kind, is_clean) {
                    (Kind::Traded, false) if failures > EQUAL_SHARE / 10.0 => {
                        Err("it fails".to_owned())
                    }
                    (Kind::Traded, is_clean) => match is_clean || self.worst_mean() < 0.03 {
                        true => Err("it costs nothing".to_owned()),
                        false => Ok(Class::None),
                    },
                    (_, true) => Ok(Class::None),
                    (_, false) => Err("it costs something else".to_owned()),
                }
            }
        }
    }
}

fn graded(worse: f64, [mild, clear, gross]: [f64; 3]) -> Result<Class, String> {
    match worse {
        _ if worse < mild => Err(format!("worse by {:.1} % only", worse * 100.0)),
        _ if worse < clear => Ok(Class::Mild),
        _ if worse < gross => Ok(Class::Clear),
        _ => Ok(Class::Gross),
    }
}
