//! Series of one replica → one value: over data-parallel engines, ranks, processes and all other labels.
//!
//! vLLM has one series a data-parallel engine (`engine`). SGLang has `dp_rank`, and with
//! `--enable-metrics-for-all-schedulers` every tensor-parallel rank repeats the same values, so of each `dp_rank`
//! only the lowest rank counts. (With DP attention `tp_rank` differs between `dp_rank`s, so "rank 0 only" would
//! lose all but the first.) `pid` marks copies of one gauge, of which the largest is the one that lives. A gauge
//! with `priority` has its total under the empty priority.

use std::sync::Arc;

use crate::engine::{Merge, Quantity, QuantityKind};
use crate::exposition::{Label, Role};

use super::collect::merge_values;
use super::sample::DistributionReading;

/// What tells the series of one family apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct SeriesId<'a> {
    engine: &'a str,
    dp_rank: &'a str,
    /// Position of the process within a data-parallel rank.
    rank: (u32, u32, u32),
    has_pid: bool,
    /// Part of a total that stands beside it.
    is_share: bool,
    /// Not of the labels at hand.
    pub(super) stale: bool,
}

impl Default for SeriesId<'_> {
    fn default() -> Self {
        Self {
            engine: "",
            dp_rank: "",
            rank: (0, 0, 0),
            has_pid: false,
            is_share: false,
            stale: true,
        }
    }
}

impl<'a> SeriesId<'a> {
    pub(super) fn of(labels: &[Label<'a>]) -> Self {
        let mut id = Self {
            stale: false,
            ..Self::default()
        };
        for label in labels {
            let (Some(name), Some(value)) = (label.name.as_plain(), label.value.as_plain()) else {
                continue;
            };
            let rank = || value.parse().unwrap_or(u32::MAX);
            match name {
                "engine" => id.engine = value,
                "dp_rank" => id.dp_rank = value,
                "pp_rank" => id.rank.0 = rank(),
                "tp_rank" => id.rank.1 = rank(),
                "moe_ep_rank" => id.rank.2 = rank(),
                "pid" => id.has_pid = true,
                "priority" => id.is_share = !value.is_empty(),
                _ => {}
            }
        }
        id
    }

    fn same_engine(&self, other: &Self) -> bool {
        same(self.engine, other.engine) && same(self.dp_rank, other.dp_rank)
    }
}

/// Comparing two empty slices costs a hundred times what this does where libc compares by masked loads: they read
/// at the dangling address of an empty slice, and the suppressed fault is slow.
#[inline]
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && (a.is_empty() || a == b)
}

/// Data-parallel engines behind one endpoint. Real ones have some dozens; each series is looked for among them.
pub(super) const MAX_GROUPS: usize = 256;
/// Buckets of one distribution. TGI has 1,025 at most.
pub(super) const MAX_BUCKETS: usize = 4_096;

/// Finds the group of a series, or says that another rank of it counts.
fn group_of<'g, 'a, T: Default>(
    groups: &'g mut Vec<(SeriesId<'a>, T)>,
    series: &SeriesId<'a>,
) -> Option<&'g mut T> {
    let at = match groups
        .iter()
        .position(|(known, _)| known.same_engine(series))
    {
        Some(at) => at,
        None if groups.len() >= MAX_GROUPS => return None,
        None => {
            groups.push((*series, T::default()));
            groups.len() - 1
        }
    };
    let (known, group) = groups.get_mut(at)?;
    if series.rank < known.rank {
        *known = *series;
        *group = T::default();
    }
    (series.rank == known.rank).then_some(group)
}

/// The series of one counter or gauge.
#[derive(Debug, Clone, Default)]
pub(super) struct ScalarSeries<'a> {
    groups: Vec<(SeriesId<'a>, Scalar)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Scalar {
    sum: f64,
    count: u32,
    /// Largest of the copies that differ only in `pid`.
    copy: Option<f64>,
}

impl Scalar {
    fn value(&self, merge: Merge) -> f64 {
        let copies = self.copy.into_iter();
        match merge {
            Merge::Sum => self.sum + copies.sum::<f64>(),
            Merge::Mean => {
                let count = self.count + u32::from(self.copy.is_some());
                (self.sum + copies.sum::<f64>()) / f64::from(count.max(1))
            }
        }
    }
}

impl<'a> ScalarSeries<'a> {
    pub(super) fn add(&mut self, series: &SeriesId<'a>, quantity: Quantity, value: f64) {
        let is_gauge = quantity.kind() == QuantityKind::Gauge;
        if value.is_nan() || (is_gauge && series.is_share) {
            return;
        }
        let Some(group) = group_of(&mut self.groups, series) else {
            return;
        };
        if is_gauge && series.has_pid {
            group.copy = Some(group.copy.map_or(value, |known| known.max(value)));
        } else {
            group.sum += value;
            group.count += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.groups.len() >= MAX_GROUPS
    }

    pub(super) fn merged(&self, merge: Merge) -> f64 {
        let values = self.groups.iter().map(|(_, group)| group.value(merge));
        merge_values(merge, values)
    }

    /// Engine by engine the product with another; none where they do not have the same engines.
    pub(super) fn times(&self, other: &Self) -> Option<Self> {
        let mut product = self.clone();
        for (id, group) in &mut product.groups {
            let (_, factor) = other
                .groups
                .iter()
                .find(|(known, _)| known.same_engine(id))?;
            group.sum *= factor.sum;
        }
        Some(product)
    }
}

/// The series of one distribution.
#[derive(Debug, Clone, Default)]
pub(super) struct DistributionSeries<'a> {
    groups: Vec<(SeriesId<'a>, Buckets)>,
}

#[derive(Debug, Clone, Default)]
struct Buckets {
    bounds: Vec<f64>,
    cumulative: Vec<f64>,
    /// Where the next bucket is expected: series of one family come with the same bounds in the same order.
    cursor: usize,
    /// A second series of the same group has begun: bounds are fixed.
    sealed: bool,
    uneven: bool,
    sum: Option<f64>,
    count: Option<f64>,
}

impl Buckets {
    fn add_bucket(&mut self, le: f64, value: f64) {
        if self.bounds.last().is_none_or(|last| *last < le) && !self.sealed {
            if self.bounds.len() >= MAX_BUCKETS {
                self.uneven = true;
                return;
            }
            self.bounds.push(le);
            self.cumulative.push(value);
            self.cursor = self.bounds.len();
            return;
        }
        self.sealed = true;
        if self.bounds.first() == Some(&le) {
            // the series before must have had them all
            self.uneven |= self.cursor != self.bounds.len();
            self.cursor = 0;
        }
        match (
            self.bounds.get(self.cursor),
            self.cumulative.get_mut(self.cursor),
        ) {
            (Some(bound), Some(total)) if *bound == le => {
                *total += value;
                self.cursor += 1;
            }
            _ => self.uneven = true,
        }
    }

    /// Complete, and in agreement with the count; without an infinite bucket nobody knows what lies above the last.
    fn has_usable_buckets(&self, count: f64) -> bool {
        let ends_at_infinity = self.bounds.last().is_some_and(|bound| bound.is_infinite());
        let holds_all = self.cumulative.last() == Some(&count);
        let rises_from_zero = self.bounds.first().is_some_and(|bound| *bound >= 0.0);
        !self.uneven
            && self.cursor == self.bounds.len()
            && ends_at_infinity
            && holds_all
            && rises_from_zero
    }
}

impl<'a> DistributionSeries<'a> {
    pub(super) fn add(&mut self, series: &SeriesId<'a>, role: Role, value: f64) {
        if !value.is_finite() {
            return;
        }
        let Some(group) = group_of(&mut self.groups, series) else {
            return;
        };
        let add = |total: &mut Option<f64>| *total = Some(total.unwrap_or(0.0) + value);
        match role {
            Role::Bucket { le } => group.add_bucket(le, value),
            Role::Sum => add(&mut group.sum),
            Role::Count => add(&mut group.count),
            Role::Value | Role::Quantile { .. } | Role::Created => {}
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.groups.len() >= MAX_GROUPS
            || self
                .groups
                .iter()
                .any(|(_, group)| group.bounds.len() >= MAX_BUCKETS)
    }

    /// All engines together. Buckets only where all have the same bounds.
    pub(super) fn merged(self, alias: usize) -> Option<DistributionReading> {
        let mut all: Option<DistributionReading> = None;
        for (_, group) in self.groups {
            let top = group
                .bounds
                .last()
                .filter(|bound| bound.is_infinite())
                .and(group.cumulative.last());
            let Some(count) = group.count.or(top.copied()) else {
                continue;
            };
            let (bounds, cumulative) = if group.has_usable_buckets(count) {
                (group.bounds, group.cumulative)
            } else {
                (Vec::new(), Vec::new())
            };
            match &mut all {
                None => {
                    all = Some(DistributionReading {
                        alias,
                        count,
                        // durations and lengths are not negative
                        sum: group.sum.filter(|sum| *sum >= 0.0),
                        bounds: bounds.into(),
                        cumulative,
                    });
                }
                Some(known) => {
                    known.count += count;
                    known.sum = known.sum.zip(group.sum).map(|(a, b)| a + b);
                    if *known.bounds == *bounds {
                        for (total, more) in known.cumulative.iter_mut().zip(cumulative) {
                            *total += more;
                        }
                    } else {
                        known.bounds = Arc::default();
                        known.cumulative.clear();
                    }
                }
            }
        }
        all
    }
}
