//! Changes that do more together: a larger cap may need more KV cache before it helps.

use super::proposal::Proposal;
use super::search::{Chosen, Search};

/// Families whose changes are put together at most.
const MOST_TOGETHER: usize = 3;
/// What another change has to bring on top, as a share of what there is, and at least.
const WORTH_ANOTHER: (f64, f64) = (0.1, 0.08);

impl Search<'_> {
    /// The best change of settings together with others that add to it; none where nothing adds to it. Where no change
    /// alone is worth it, two may be.
    pub(super) fn combined(&mut self, chosen: &[Chosen]) -> Option<Chosen> {
        let single = chosen
            .iter()
            .filter(|one| one.proposal.replicas.is_none() && !one.proposal.changes_answers)
            .filter(|one| {
                one.priority.is_none() && one.proposal.expectation.model_changes().is_some()
            })
            .max_by(|one, other| gain(one).total_cmp(&gain(other)));
        let starts = match single {
            Some(one) => vec![one.clone()],
            None => self.starts(),
        };
        let combined = starts
            .into_iter()
            .filter_map(|start| self.added_to(start))
            .collect::<Vec<_>>();
        combined
            .into_iter()
            .max_by(|one, other| gain(one).total_cmp(&gain(other)))
    }

    /// A change with others that add to it; none where none does.
    fn added_to(&mut self, start: Chosen) -> Option<Chosen> {
        let mut levers = vec![start.lever.clone()];
        let mut best = start;
        while levers.len() < MOST_TOGETHER {
            let (share, least) = WORTH_ANOTHER;
            let so_far = gain(&best).max(0.0);
            let wanted = so_far + least.max(share * so_far);
            let Some((lever, more)) = self.another(&best, &levers, wanted) else {
                break;
            };
            levers.push(lever);
            best = more;
        }
        (levers.len() > 1).then(|| Chosen {
            lever: levers.join("+"),
            ..best
        })
    }

    /// The change of another family that adds most, if it brings the gain above what is wanted.
    fn another(&mut self, to: &Chosen, levers: &[String], wanted: f64) -> Option<(String, Chosen)> {
        let mut best: Option<(f64, String, Proposal)> = None;
        let families = self.others(levers);
        for (lever, alternatives) in families {
            for one in alternatives {
                let Some(mut both) = together(&to.proposal, &one) else {
                    continue;
                };
                let Some(gain) = self.gain_of(&mut both) else {
                    continue;
                };
                if gain > wanted && best.as_ref().is_none_or(|(most, _, _)| gain > *most) {
                    best = Some((gain, lever.clone(), both));
                }
            }
        }
        let (gain, lever, proposal) = best?;
        let chosen = Chosen {
            proposal,
            gain: Some(gain),
            ..to.clone()
        };
        Some((lever, chosen))
    }
}

fn gain(one: &Chosen) -> f64 {
    one.gain.unwrap_or(0.0)
}

/// Two proposals as one; none where they change the same setting.
fn together(one: &Proposal, other: &Proposal) -> Option<Proposal> {
    let same = |name: &str| one.changes.iter().any(|change| change.name == name);
    if other.changes.iter().any(|change| same(&change.name)) {
        return None;
    }
    let joined = |a: &[String], b: &[String]| {
        let mut all = a.to_vec();
        all.extend(b.iter().filter(|text| !a.contains(text)).cloned());
        all
    };
    let mut treats = one.treats.clone();
    treats.extend(
        other
            .treats
            .iter()
            .filter(|cause| !one.treats.contains(cause)),
    );
    let second = lower_first(&other.title);
    Some(Proposal {
        kind: one.kind,
        title: format!("{}, and {second}", one.title),
        reason: format!("{} {}", one.reason, other.reason),
        treats,
        changes: [&one.changes[..], &other.changes[..]].concat(),
        replicas: None,
        expectation: one.expectation.and(&other.expectation)?,
        risks: joined(&one.risks, &other.risks),
        watch: joined(&one.watch, &other.watch),
        undo: format!("{} {}", one.undo, other.undo),
        prerequisites: joined(&one.prerequisites, &other.prerequisites),
        changes_answers: false,
        needs_restart: one.needs_restart || other.needs_restart,
    })
}

fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(letters).collect()
    })
}
