//! Which engine a scrape is of.

use std::sync::Arc;

use crate::engine::{EngineProfile, Registry};
use crate::exposition::{Family, Mode, Options, Sample, Sink, parse};

/// The engine whose metric names the body has most of; none where it has none of any.
pub fn detect_engine<'r>(
    registry: &'r Registry,
    body: &[u8],
    options: &Options,
) -> Option<&'r Arc<EngineProfile>> {
    let profiles: Vec<&Arc<EngineProfile>> = registry.iter().collect();
    let mut census = Census {
        families: vec![0; profiles.len()],
        profiles,
    };
    let options = Options {
        mode: Mode::Lenient,
        ..*options
    };
    parse(body, &options, &mut census).ok()?;
    // of equals the first counts: engines of the config file come before built-in ones
    let (at, families) = census
        .families
        .iter()
        .enumerate()
        .rev()
        .max_by_key(|(_, families)| **families)?;
    if *families == 0 {
        return None;
    }
    census.profiles.get(at).copied()
}

struct Census<'r> {
    profiles: Vec<&'r Arc<EngineProfile>>,
    families: Vec<usize>,
}

impl<'a> Sink<'a> for Census<'_> {
    fn family(&mut self, family: &Family<'a>) {
        for (profile, families) in self.profiles.iter().zip(&mut self.families) {
            *families += usize::from(profile.owns(family.base_name()));
        }
    }

    fn sample(&mut self, _: &Family<'a>, _: &Sample<'_, 'a>) {}
}
