//! Requests, one after another, as a load has them arrive at one of its replicas.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::load::{Arrival, Load};
use super::random::{Random, Use};
use super::request::RequestSpec;

/// What arrives at one replica. The load is split by turns: requests, and clients too.
#[derive(Debug, Clone)]
pub struct Arrivals {
    load: Load,
    random: Random,
    max_model_len: u32,
    replica: usize,
    turns: Turns,
    /// Number of the next request of the whole load.
    next: u64,
    /// When that arrives, where it does not depend on the engine.
    due: Option<f64>,
    /// Sum of the exponential gaps so far: time, if the rate were 1.
    unit_time: f64,
    /// When clients send again.
    clients: BinaryHeap<Reverse<Moment>>,
    /// How many clients are this replica's before a load drifts, and now.
    mine: (u32, u32),
    /// Nothing is sent here: what would have come goes elsewhere, and clients wait.
    away: bool,
}

/// Whose turn it is: by smooth weighted round robin, so that the requests of a replica are spread as evenly as its weight
/// lets them be. With even weights that is one after another.
#[derive(Debug, Clone)]
struct Turns {
    weights: Vec<i64>,
    credits: Vec<i64>,
}

impl Turns {
    /// Even where the split says nothing.
    fn new(split: &[u32], replicas: u32) -> Self {
        let weights: Vec<i64> = if split.is_empty() {
            vec![1; replicas.max(1) as usize]
        } else {
            split.iter().copied().map(i64::from).collect()
        };
        Self {
            credits: vec![0; weights.len()],
            weights,
        }
    }

    /// Whether this replica gets anything.
    fn has(&self, replica: usize) -> bool {
        self.weights.get(replica).is_some_and(|weight| *weight > 0)
    }

    /// The replica that gets the next one: that which is owed most, the first of those.
    fn next(&mut self) -> usize {
        let mut owed: Option<(usize, i64)> = None;
        let mut all = 0;
        for (at, (credit, weight)) in self.credits.iter_mut().zip(&self.weights).enumerate() {
            *credit += weight;
            all += weight;
            if owed.is_none_or(|(_, most)| *credit > most) {
                owed = Some((at, *credit));
            }
        }
        let turn = owed.map_or(0, |(at, _)| at);
        if let Some(credit) = self.credits.get_mut(turn) {
            *credit -= all;
        }
        turn
    }
}

/// A time that can be ordered.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Moment(f64);

impl Eq for Moment {}

impl PartialOrd for Moment {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Moment {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// A client that was refused waits this long at least.
const RETRY_SECONDS: f64 = 0.2;

impl Arrivals {
    /// Of a load that was checked, at this replica of so many; no request is longer than `max_model_len` tokens.
    pub fn new(load: Load, max_model_len: u32, (replica, replicas): (u32, u32)) -> Self {
        let mut arrivals = Self {
            random: Random::new(load.seed),
            max_model_len,
            replica: replica as usize,
            turns: Turns::new(&load.split, replicas),
            next: 0,
            due: None,
            unit_time: 0.0,
            clients: BinaryHeap::new(),
            mine: (0, 0),
            away: false,
            load,
        };
        arrivals.begin();
        arrivals
    }

    fn begin(&mut self) {
        if let Arrival::Closed { clients, .. } = self.load.arrival {
            let mut turns = self.turns.clone();
            let drift = self.load.drift;
            let last = drift.map_or(1.0, |drift| drift.factor).max(1.0);
            let all = (f64::from(clients) * last).round() as u32;
            let mine = (0..all).filter(|_| turns.next() == self.replica);
            let begin = |client| match drift {
                // one more when half of it is due
                Some(drift) if client >= clients => {
                    drift.when((f64::from(client) + 0.5) / f64::from(clients))
                }
                _ => 0.0,
            };
            self.clients = mine.map(|client| Reverse(Moment(begin(client)))).collect();
            let first = self.clients.iter().filter(|one| one.0.0 == 0.0).count();
            let first = u32::try_from(first).unwrap_or(u32::MAX);
            self.mine = (first, first);
            self.next = self.others();
        } else {
            self.draw_mine();
        }
    }

    /// When the next request arrives; none where that depends on requests that run, and after the end of a trace.
    pub fn next_at(&self) -> Option<f64> {
        match &self.load.arrival {
            Arrival::Closed { .. } if self.away => None,
            Arrival::Closed { .. } => self.clients.peek().map(|Reverse(Moment(at))| *at),
            _ => self.due,
        }
    }

    /// The next request, if it has arrived by then.
    pub fn pop(&mut self, until: f64) -> Option<(f64, RequestSpec)> {
        while self.away && self.due.is_some_and(|due| due <= until) {
            self.draw_mine();
        }
        let at = self.next_at().filter(|at| *at <= until)?;
        match self.load.arrival {
            Arrival::Closed { .. } => {
                self.clients.pop();
                let request = self
                    .load
                    .request(self.random, self.next, self.max_model_len);
                self.next += 1 + self.others();
                Some((at, request))
            }
            _ => {
                let request = self
                    .load
                    .request(self.random, self.next - 1, self.max_model_len);
                self.draw_mine();
                Some((at, request))
            }
        }
    }

    /// From this time on requests are sent here, or none.
    pub fn send(&mut self, here: bool, now: f64) {
        if here && self.away {
            // clients that have waited send now
            let waited = std::mem::take(&mut self.clients).into_iter();
            let sends = |Reverse(Moment(at)): Reverse<Moment>| Reverse(Moment(at.max(now)));
            self.clients = waited.map(sends).collect();
        }
        self.away = !here;
    }

    /// Whether requests are sent here.
    pub fn is_sent_here(&self) -> bool {
        !self.away
    }

    /// A request has ended: its client sends another one after its pause.
    pub fn ended(&mut self, at: f64, index: u64, refused: bool) {
        if let Arrival::Closed { think_seconds, .. } = self.load.arrival {
            if self.leaves(at) {
                return;
            }
            let pause = think_seconds * self.random.exponential(Use::Think, index);
            let pause = if refused {
                pause.max(RETRY_SECONDS)
            } else {
                pause
            };
            self.clients.push(Reverse(Moment(at + pause)));
        }
    }

    /// Whether there is a client too many since the load drifts down; one stays.
    fn leaves(&mut self, at: f64) -> bool {
        let (first, now) = self.mine;
        let Some(drift) = self.load.drift.filter(|drift| drift.factor < 1.0) else {
            return false;
        };
        let stay = (f64::from(first) * drift.factor_at(at)).round().max(1.0);
        let leaves = f64::from(now) > stay;
        self.mine.1 -= u32::from(leaves);
        leaves
    }

    /// Draws until it is this replica's turn.
    fn draw_mine(&mut self) {
        if !self.turns.has(self.replica) {
            return;
        }
        for _ in 0..=self.others() {
            self.draw();
        }
    }

    /// How many requests of others come before the next one of this replica.
    fn others(&mut self) -> u64 {
        if !self.turns.has(self.replica) {
            return 0;
        }
        let mut others = 0;
        while self.turns.next() != self.replica {
            others += 1;
        }
        others
    }

    /// Draws the time of the next request of the whole load.
    fn draw(&mut self) {
        let index = self.next;
        self.next += 1;
        self.due = match &self.load.arrival {
            Arrival::Trace(times) => usize::try_from(index)
                .ok()
                .and_then(|at| times.get(at).copied()),
            Arrival::Closed { .. } => None,
            Arrival::Poisson { rate_per_second } => {
                self.unit_time += self.random.exponential(Use::Arrival, index);
                Some(self.unit_time / rate_per_second)
            }
            Arrival::Bursty {
                rate_per_second,
                burst_factor,
                burst_seconds,
                period_seconds,
            } => {
                self.unit_time += self.random.exponential(Use::Arrival, index);
                // the time at which so many are expected: a period begins with its burst
                let of_period = rate_per_second * period_seconds;
                let of_burst = rate_per_second * burst_factor * burst_seconds;
                let periods = (self.unit_time / of_period).floor();
                let rest = self.unit_time - periods * of_period;
                let within = if rest <= of_burst {
                    rest / (rate_per_second * burst_factor)
                } else {
                    let calm = (of_period - of_burst) / (period_seconds - burst_seconds);
                    burst_seconds + (rest - of_burst) / calm
                };
                Some(periods * period_seconds + within)
            }
        };
        if let (Some(drift), Some(due)) = (self.load.drift, &mut self.due) {
            *due = drift.reached(*due);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::{Drift, Lengths, RequestClass};

    fn load(arrival: Arrival) -> Load {
        let class = RequestClass::of(Lengths::Uniform { min: 10, max: 20 }, Lengths::Fixed(5));
        let load = Load {
            arrival,
            classes: vec![class],
            split: Vec::new(),
            drift: None,
            seed: 3,
        };
        load.check().unwrap();
        load
    }

    fn times(arrivals: &mut Arrivals, until: f64) -> Vec<(f64, u64)> {
        std::iter::from_fn(|| arrivals.pop(until))
            .map(|(at, request)| (at, request.index))
            .collect()
    }

    #[test]
    fn replicas_share_the_load_evenly_and_nothing_is_lost() {
        let poisson = load(Arrival::Poisson {
            rate_per_second: 50.0,
        });
        let whole = times(&mut Arrivals::new(poisson.clone(), 4_096, (0, 1)), 100.0);
        assert!((whole.len() as f64 - 5_000.0).abs() < 5.0 * 5_000_f64.sqrt());
        let mut parts: Vec<(f64, u64)> = (0..3)
            .flat_map(|replica| {
                times(
                    &mut Arrivals::new(poisson.clone(), 4_096, (replica, 3)),
                    100.0,
                )
            })
            .collect();
        parts.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert_eq!(parts, whole);
        let clients: usize = (0..3)
            .map(|replica| {
                let closed = load(Arrival::Closed {
                    clients: 10,
                    think_seconds: 0.0,
                });
                times(&mut Arrivals::new(closed, 4_096, (replica, 3)), 0.0).len()
            })
            .sum();
        assert_eq!(clients, 10);
    }

    #[test]
    fn weights_divide_the_load_and_nothing_is_lost() {
        let split = |arrival, split: &[u32]| Load {
            split: split.to_vec(),
            ..load(arrival)
        };
        let open = Arrival::Poisson {
            rate_per_second: 50.0,
        };
        let whole = times(&mut Arrivals::new(load(open.clone()), 4_096, (0, 1)), 100.0);
        let part = |weights: &[u32], replica| {
            let load = split(open.clone(), weights);
            let place = (replica, weights.len() as u32);
            times(&mut Arrivals::new(load, 4_096, place), 100.0)
        };
        for weights in [&[3, 1][..], &[0, 2, 5], &[1, 1, 1]] {
            let parts: Vec<_> = (0..weights.len() as u32)
                .map(|replica| part(weights, replica))
                .collect();
            let all: u32 = weights.iter().sum();
            for (part, weight) in parts.iter().zip(weights) {
                let expected = whole.len() as f64 * f64::from(*weight) / f64::from(all);
                assert!((part.len() as f64 - expected).abs() <= 2.0, "{weights:?}");
            }
            let mut parts = parts.concat();
            parts.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert_eq!(parts, whole);
        }
        // weights that are even are none
        let none = times(&mut Arrivals::new(load(open.clone()), 4_096, (1, 3)), 100.0);
        assert_eq!(part(&[2, 2, 2], 1), none);
        assert!(none.iter().all(|(_, index)| index % 3 == 1));
    }

    #[test]
    fn clients_are_divided_too_and_no_request_is_sent_twice() {
        let mut seen = Vec::new();
        let mut counts = Vec::new();
        for replica in 0..3 {
            let closed = Load {
                split: vec![5, 2, 0],
                ..load(Arrival::Closed {
                    clients: 14,
                    think_seconds: 0.0,
                })
            };
            let mut arrivals = Arrivals::new(closed, 4_096, (replica, 3));
            let first = times(&mut arrivals, 0.0);
            counts.push(first.len());
            for (_, index) in &first {
                arrivals.ended(1.0, *index, false);
            }
            let second = times(&mut arrivals, 1.0);
            assert_eq!(second.len(), first.len());
            seen.extend(first.into_iter().chain(second).map(|(_, index)| index));
        }
        assert_eq!(counts, [10, 4, 0]);
        seen.sort_unstable();
        assert_eq!(seen, (0..28).collect::<Vec<u64>>());
    }

    #[test]
    fn bursts_are_bursts_and_keep_the_mean() {
        let bursty = Arrival::Bursty {
            rate_per_second: 40.0,
            burst_factor: 4.0,
            burst_seconds: 2.0,
            period_seconds: 20.0,
        };
        let all = times(&mut Arrivals::new(load(bursty), 4_096, (0, 1)), 1_000.0);
        assert!(
            (all.len() as f64 / 40_000.0 - 1.0).abs() < 0.03,
            "{}",
            all.len()
        );
        let in_bursts = all.iter().filter(|(at, _)| at % 20.0 < 2.0).count();
        // a tenth of the time at four times the rate
        assert!((in_bursts as f64 / all.len() as f64 - 0.4).abs() < 0.02);
        assert!(
            all.windows(2)
                .all(|pair| matches!(pair, [a, b] if a.0 <= b.0))
        );
    }

    #[test]
    fn a_load_drifts_up_and_down() {
        let drift = |factor| Drift {
            factor,
            from_seconds: 100.0,
            over_seconds: 100.0,
        };
        let counts = |arrival: Arrival, factor| {
            let load = Load {
                drift: Some(drift(factor)),
                ..load(arrival)
            };
            load.check().unwrap();
            let mut arrivals = Arrivals::new(load, 4_096, (0, 1));
            [100.0, 200.0, 300.0].map(|until| times(&mut arrivals, until).len() as f64)
        };
        for factor in [3.0, 0.2] {
            let rate_per_second = 200.0;
            let found = counts(Arrival::Poisson { rate_per_second }, factor);
            for (found, times) in found.into_iter().zip([1.0, (1.0 + factor) / 2.0, factor]) {
                let expected = 100.0 * rate_per_second * times;
                assert!((found - expected).abs() < 5.0 * expected.sqrt());
            }
        }
        let closed = Arrival::Closed {
            clients: 10,
            think_seconds: 0.0,
        };
        // each sends once, as none is answered
        assert_eq!(counts(closed.clone(), 3.0), [10.0, 20.0, 0.0]);
        let load = Load {
            drift: Some(drift(0.2)),
            ..load(closed)
        };
        let mut arrivals = Arrivals::new(load, 4_096, (0, 1));
        for (at, clients) in [(50.0, 10), (150.0, 6), (250.0, 2), (260.0, 2)] {
            let sent = times(&mut arrivals, at);
            for (_, index) in &sent {
                arrivals.ended(at, *index, false);
            }
            assert_eq!(times(&mut arrivals.clone(), at).len(), clients, "{at}");
        }
    }

    #[test]
    fn a_client_sends_again_when_its_request_has_ended() {
        let mut arrivals = Arrivals::new(
            load(Arrival::Closed {
                clients: 2,
                think_seconds: 0.0,
            }),
            4_096,
            (0, 1),
        );
        assert_eq!(times(&mut arrivals, 9.0).len(), 2);
        assert_eq!(arrivals.next_at(), None);
        arrivals.ended(4.0, 0, false);
        assert_eq!(arrivals.next_at(), Some(4.0));
        arrivals.ended(4.0, 1, true);
        assert_eq!(times(&mut arrivals, 4.1), [(4.0, 2)]);
        assert_eq!(arrivals.next_at(), Some(4.2));
    }
}
