//! The best of a family, by the twin.

use crate::analysis::{Cause, Treatment};

use super::constraints;
use super::custom::CustomProposal;
use super::proposal::{Expectation, Family, ModelChange, Proposal};
use super::recommendation::{LeftOut, Priority};
use super::score::Service;
use super::situation::Situation;
use super::twin::Twin;

/// What was chosen of a family.
#[derive(Debug, Clone)]
pub(super) struct Chosen {
    pub(super) lever: String,
    pub(super) proposal: Proposal,
    /// None where the operator's optimizer has none.
    pub(super) kind: Option<Treatment>,
    /// As the operator says.
    pub(super) priority: Option<Priority>,
    /// By how much it serves better; none where nothing can be said.
    pub(super) gain: Option<f64>,
}

/// A family of settings, as far as the model has it.
struct LookedAt {
    lever: String,
    alternatives: Vec<(f64, Proposal)>,
}

/// Looks for the best of each family.
pub(super) struct Search<'s> {
    situation: &'s Situation<'s>,
    twin: Option<&'s Twin>,
    now: Option<Service>,
    /// Tokens that may still be simulated.
    tokens_left: u64,
    /// Alternatives that the model has, of each family of settings.
    looked_at: Vec<LookedAt>,
    /// What stands beside the choice of its family: the best with numbers, where the choice has none.
    beside: Vec<Chosen>,
}

/// Tokens that a search may cost: about a second of one core.
const SEARCH_TOKENS: u64 = 40_000_000;
/// What is expected to bring less is not worth a change.
const LEAST_GAIN: f64 = 0.04;
/// What takes a bound away is taken if it brings this share of the best.
const UNBOUND: f64 = 0.8;
/// A smaller change is taken if it brings nearly as much as the best.
const NEARLY: f64 = 0.98;

impl<'s> Search<'s> {
    pub(super) fn new(situation: &'s Situation<'s>, twin: Option<&'s Twin>) -> Self {
        Self {
            situation,
            twin,
            now: twin.map(Twin::now),
            tokens_left: SEARCH_TOKENS,
            looked_at: Vec::new(),
            beside: Vec::new(),
        }
    }

    /// The best of a family.
    ///
    /// # Errors
    /// What was looked at, and why none of it is worth doing.
    pub(super) fn best_of(&mut self, family: Family) -> Result<Chosen, Vec<LeftOut>> {
        let lever = family.lever.to_string();
        let mut left_out = Vec::new();
        let mut leave = |title: &str, reason: String| {
            left_out.push(LeftOut {
                lever: lever.clone(),
                title: title.to_owned(),
                reason,
            });
        };
        let guide = family.without_prediction;
        let mut allowed: Vec<(usize, Proposal)> = Vec::new();
        for (at, mut one) in family.alternatives.into_iter().enumerate() {
            match self.checked(&mut one) {
                Ok(()) => allowed.push((at, one)),
                Err(reason) => leave(&one.title, reason),
            }
        }
        let by_guide = |allowed: Vec<(usize, Proposal)>| {
            let nearest = allowed.into_iter().min_by_key(|(at, _)| at.abs_diff(guide));
            nearest.map(|(_, proposal)| proposal)
        };
        let modelled = |one: &Proposal| one.expectation.model_changes().is_some();
        let (Some(twin), Some(now), true) = (
            self.twin,
            self.now,
            allowed.iter().any(|(_, one)| modelled(one)),
        ) else {
            return match by_guide(allowed) {
                Some(proposal) => Ok(Chosen {
                    kind: Some(proposal.kind),
                    lever,
                    proposal,
                    priority: None,
                    gain: None,
                }),
                None => Err(left_out),
            };
        };
        let targets = self.situation.targets;
        let mut gains: Vec<(f64, Proposal)> = Vec::new();
        for (_, one) in allowed {
            let Some(changes) = one.expectation.model_changes() else {
                continue;
            };
            if self.tokens_left == 0 {
                leave(
                    &one.title,
                    "there was no time left to simulate it".to_owned(),
                );
                continue;
            }
            match twin.glance(changes) {
                Ok(glance) => {
                    self.tokens_left = self.tokens_left.saturating_sub(glance.work_tokens);
                    if let Some(broken) = self.breaks(&now, &glance.service) {
                        leave(&one.title, broken);
                        continue;
                    }
                    gains.push((glance.service.gain_over(&now, targets), one));
                }
                Err(reason) => leave(&one.title, reason),
            }
        }
        if gains
            .iter()
            .all(|(_, one)| one.replicas.is_none() && !one.changes_answers)
        {
            self.looked_at.push(LookedAt {
                lever: lever.clone(),
                alternatives: gains.clone(),
            });
        }
        let best = gains.iter().map(|(gain, _)| *gain).fold(f64::MIN, f64::max);
        if gains.is_empty() {
            return Err(left_out);
        }
        if best < LEAST_GAIN {
            let (_, one) = gains.swap_remove(0);
            leave(
                &one.title,
                "the model expects nothing of it worth a change".to_owned(),
            );
            return Err(left_out);
        }
        // without a bound there is no guess at how much memory is free
        let unbound = |(gain, one): &(f64, Proposal)| {
            let assumed = matches!(one.expectation, Expectation::Assumed { .. });
            assumed && *gain >= UNBOUND * best
        };
        if let Some(at) = gains.iter().position(unbound) {
            let (gain, proposal) = gains.swap_remove(at);
            gains.retain(|(gain, one)| *gain >= LEAST_GAIN && is_modelled(one));
            if let Some((gain, numbered)) = least_that_does(gains) {
                self.beside.push(chosen_of(lever.clone(), numbered, gain));
            }
            return Ok(chosen_of(lever, proposal, gain));
        }
        match least_that_does(gains) {
            Some((gain, proposal)) => Ok(chosen_of(lever, proposal, gain)),
            None => Err(left_out),
        }
    }

    /// Puts what has numbers behind what has none of the same family.
    pub(super) fn put_beside(&mut self, chosen: &mut Vec<Chosen>) {
        for one in self.beside.drain(..) {
            let place = chosen.iter().position(|other| other.lever == one.lever);
            if let Some(place) = place {
                chosen.insert(place + 1, one);
            }
        }
    }

    /// The alternative of each family that does most, however little that is.
    pub(super) fn starts(&self) -> Vec<Chosen> {
        let best = self.looked_at.iter().filter_map(|family| {
            let alternatives = family.alternatives.iter();
            let (gain, proposal) = alternatives.max_by(|one, other| one.0.total_cmp(&other.0))?;
            Some(Chosen {
                lever: family.lever.clone(),
                kind: Some(proposal.kind),
                proposal: proposal.clone(),
                priority: None,
                gain: Some(*gain),
            })
        });
        best.collect()
    }

    /// Families other than these, with the alternatives that the model has.
    pub(super) fn others(&self, levers: &[String]) -> Vec<(String, Vec<Proposal>)> {
        let others = self.looked_at.iter();
        others
            .filter(|one| !levers.contains(&one.lever))
            .map(|one| {
                let alternatives = one.alternatives.iter().map(|(_, one)| one.clone());
                (one.lever.clone(), alternatives.collect())
            })
            .collect()
    }

    /// By how much the instance would serve better; none where it breaks a rule or an SLO that must hold, or there is no
    /// time left to simulate it.
    pub(super) fn gain_of(&mut self, one: &mut Proposal) -> Option<f64> {
        let (twin, now) = self.twin.zip(self.now)?;
        if self.tokens_left == 0 || self.checked(one).is_err() {
            return None;
        }
        let changes = one.expectation.model_changes()?;
        let glance = twin.glance(changes).ok()?;
        self.tokens_left = self.tokens_left.saturating_sub(glance.work_tokens);
        let broken = self.breaks(&now, &glance.service).is_some();
        (!broken).then(|| glance.service.gain_over(&now, self.situation.targets))
    }

    /// A proposal of the operator's own, weighed like the others; it is theirs whatever the model expects.
    ///
    /// # Errors
    /// An SLO that must hold and would be broken.
    pub(super) fn weighed(&mut self, of: CustomProposal) -> Result<Chosen, LeftOut> {
        let CustomProposal {
            optimizer,
            kind,
            priority,
            proposal,
        } = of;
        let mut proposal = proposal;
        if let Err(reason) = self.checked(&mut proposal) {
            return Err(LeftOut {
                lever: optimizer,
                title: proposal.title,
                reason,
            });
        }
        let mut gain = None;
        if let (Some(twin), Some(now), Some(changes)) =
            (self.twin, self.now, proposal.expectation.model_changes())
            && let Ok(glance) = twin.glance(changes)
        {
            self.tokens_left = self.tokens_left.saturating_sub(glance.work_tokens);
            if let Some(reason) = self.breaks(&now, &glance.service) {
                return Err(LeftOut {
                    lever: optimizer,
                    title: proposal.title,
                    reason,
                });
            }
            gain = Some(glance.service.gain_over(&now, self.situation.targets));
        }
        Ok(Chosen {
            lever: optimizer,
            proposal,
            kind,
            priority: Some(priority),
            gain,
        })
    }

    /// Holds a proposal against the engine's rules, and adds what they ask for.
    ///
    /// # Errors
    /// The rule that it breaks, as a sentence.
    fn checked(&self, one: &mut Proposal) -> Result<(), String> {
        let (profile, in_force) = (self.situation.profile, self.situation.in_force);
        let checked = constraints::check(profile, in_force, &one.changes)
            .map_err(|error| error.to_string())?;
        if checked.changes.is_empty() && !one.changes.is_empty() {
            return Err("it is in force already".to_owned());
        }
        let companions = checked.companions.iter();
        let said = companions.map(|one| format!("{} changes with it: {}.", one.name, one.rule));
        for text in said.chain(checked.prerequisites) {
            if !one.prerequisites.contains(&text) {
                one.prerequisites.push(text);
            }
        }
        one.changes = checked.changes;
        Ok(())
    }

    /// The SLO that must hold and that a change would break, as a sentence.
    fn breaks(&self, now: &Service, after: &Service) -> Option<String> {
        self.situation.limits.must_hold.iter().find_map(|slo| {
            let (before, then) = (now.is_broken(slo)?, after.is_broken(slo)?);
            (then && !before).then(|| {
                format!(
                    "`{}` holds now and would be broken, and the request says that it must hold",
                    slo.name
                )
            })
        })
    }
}

/// Of changes with what they bring, what does nearly as much as the best: the least change, or with some room where more is
/// given.
fn least_that_does(gains: Vec<(f64, Proposal)>) -> Option<(f64, Proposal)> {
    let best = gains.iter().map(|(gain, _)| *gain).fold(f64::MIN, f64::max);
    let mut nearly: Vec<(f64, Proposal)> = gains
        .into_iter()
        .filter(|(gain, _)| *gain >= NEARLY * best)
        .collect();
    nearly.sort_by(|(_, one), (_, other)| size(one).total_cmp(&size(other)));
    let roomy = nearly.get(1).is_some_and(|(_, one)| raises(one));
    match nearly.iter().all(|(_, one)| lets_wait(one)) {
        // waiting takes no memory, and bursts differ
        true => nearly.pop(),
        false => nearly.into_iter().nth(usize::from(roomy)),
    }
}

fn is_modelled(one: &Proposal) -> bool {
    matches!(one.expectation, Expectation::Modelled(_))
}

fn chosen_of(lever: String, proposal: Proposal, gain: f64) -> Chosen {
    Chosen {
        kind: Some(proposal.kind),
        lever,
        proposal,
        priority: None,
        gain: Some(gain),
    }
}

/// Whether it only lets more requests wait.
fn lets_wait(proposal: &Proposal) -> bool {
    let bounds = proposal.expectation.model_changes();
    let more = bounds.is_some_and(|all| matches!(all, [ModelChange::QueueBound(Some(_))]));
    let unknown = proposal.changes.iter().all(|change| change.from.is_none());
    more && proposal.treats.contains(&Cause::AdmissionLimit) && (unknown || raises(proposal))
}

/// Whether it gives more of a setting: load grows, and what is just enough today is not tomorrow.
fn raises(proposal: &Proposal) -> bool {
    let number = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<f64>().ok());
    let changes = proposal.changes.iter();
    let mut known = changes.filter_map(|change| number(&change.from).zip(number(&change.to)));
    known.next().is_some_and(|(from, to)| to > from)
}

/// How far a change goes: the sum of its logarithms.
fn size(proposal: &Proposal) -> f64 {
    let number = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<f64>().ok());
    let of_settings = proposal.changes.iter().filter_map(|change| {
        let (from, to) = number(&change.from).zip(number(&change.to))?;
        (from > 0.0 && to > 0.0).then(|| (to / from).ln().abs())
    });
    let of_replicas = proposal.replicas.map_or(0.0, |(from, to)| {
        (f64::from(to) / f64::from(from.max(1))).ln().abs()
    });
    of_settings.sum::<f64>() + of_replicas
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::engine::Quantity as Q;
    use crate::optimization::lever::example::Case;

    #[test]
    fn only_a_longer_queue_is_for_the_taking() {
        let refused = |cause| {
            Case::new("vllm", "0.33.0", &[cause])
                .set("max_num_queued_reqs", "8")
                .set("max_num_seqs", "32")
                .measured()
                .gauge(Q::RequestsRunning, 31.0, 32.0)
                .value("requests_finished_increase", 600.0)
                .value("requests_finished_per_second", 10.0)
        };
        let all = |case: &Case, lever: &str| case.of(lever)[0].alternatives.clone();
        let case = refused(Cause::AdmissionLimit);
        assert!(all(&case, "admission").iter().all(lets_wait));
        assert!(!all(&case, "sequence_cap").iter().any(lets_wait));
        // a shorter one refuses more
        let case = refused(Cause::Capacity);
        assert!(!all(&case, "admission").iter().any(lets_wait));
    }
}
