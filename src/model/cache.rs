//! The KV cache: blocks that are free, held by requests, or free and still of use.
//!
//! As in vLLM's V1 block pool: free blocks stand in one row, those freed longest ago in front; a block is handed out
//! from the front, and what was computed into it is lost only then. Of a request's blocks the last ones are freed first.
//! What is shared is the beginning that requests of one group have in common, in whole blocks; blocks of one group are
//! in use as long as one request uses any of them.

use std::collections::{HashMap, VecDeque};

use super::request::Prefix;

/// The blocks of one engine.
#[derive(Debug, Clone)]
pub(super) struct KvCache {
    blocks: u32,
    block_size: u32,
    caching: bool,
    /// Free blocks in their row. A chunk that was taken out of the middle has none left.
    free: VecDeque<Chunk>,
    /// Number of the chunk in front.
    front: u64,
    free_blocks: u32,
    groups: HashMap<u32, Group>,
}

/// What a request holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// Blocks of its own.
    pub(super) own: u32,
    /// Blocks at its beginning that are its group's.
    pub(super) shared: u32,
}

impl Held {
    pub(super) fn blocks(self) -> u32 {
        self.own + self.shared
    }
}

#[derive(Debug, Clone, Copy)]
struct Chunk {
    blocks: u32,
    /// Whose beginning it is.
    group: Option<u32>,
}

/// A beginning that is in the cache.
#[derive(Debug, Clone, Copy, Default)]
struct Group {
    blocks: u32,
    users: u32,
    /// Where it stands in the row while nobody uses it.
    chunk: Option<u64>,
}

impl KvCache {
    pub(super) fn new(blocks: u32, block_size: u32, caching: bool) -> Self {
        let all = Chunk {
            blocks,
            group: None,
        };
        Self {
            blocks,
            block_size,
            caching,
            free: VecDeque::from([all]),
            front: 0,
            free_blocks: blocks,
            groups: HashMap::new(),
        }
    }

    /// Share of the blocks that requests hold.
    pub(super) fn usage_ratio(&self) -> f64 {
        f64::from(self.blocks - self.free_blocks) / f64::from(self.blocks)
    }

    /// Blocks that so many tokens need.
    pub(super) fn blocks_of(&self, tokens: u32) -> u32 {
        tokens.div_ceil(self.block_size)
    }

    /// Blocks that nobody holds.
    pub(super) fn free_blocks(&self) -> u32 {
        self.free_blocks
    }

    /// Tokens at the beginning of a request that are in the cache; never all of it, since the last one has to be
    /// computed for the next to come out.
    pub(super) fn hit_tokens(&self, prefix: Option<Prefix>, tokens: u32) -> u32 {
        let Some(prefix) = prefix.filter(|_| self.caching) else {
            return 0;
        };
        let cached = self
            .groups
            .get(&prefix.group)
            .map_or(0, |group| group.blocks);
        let whole = prefix.tokens.min(tokens.saturating_sub(1)) / self.block_size;
        cached.min(whole) * self.block_size
    }

    /// Has a request begin with `hit` tokens out of the cache and room for `tokens` in all, if `wanted` tokens would fit.
    pub(super) fn begin(
        &mut self,
        prefix: Option<Prefix>,
        hit: u32,
        tokens: u32,
        wanted: u32,
    ) -> Option<Held> {
        let shared = hit / self.block_size;
        let unused = prefix
            .filter(|_| shared > 0)
            .and_then(|prefix| self.groups.get(&prefix.group));
        // those that it uses again are not free any more
        let taken = unused
            .filter(|group| group.users == 0)
            .map_or(0, |group| group.blocks);
        let left = self.free_blocks.checked_sub(taken)?;
        if self.blocks_of(wanted.max(tokens)).saturating_sub(shared) > left {
            return None;
        }
        if shared > 0
            && let Some(prefix) = prefix
        {
            self.use_group(prefix.group);
        }
        let own = self.blocks_of(tokens).saturating_sub(shared);
        self.take(own);
        Some(Held { own, shared })
    }

    /// Has room for `tokens` of a request that holds this; false, and nothing is changed, where there is not enough.
    pub(super) fn grow(&mut self, held: &mut Held, tokens: u32) -> bool {
        let more = self.blocks_of(tokens).saturating_sub(held.blocks());
        if more > self.free_blocks {
            return false;
        }
        self.take(more);
        held.own += more;
        true
    }

    /// So many tokens of a request are computed: what is common to its group others can use from now on.
    pub(super) fn computed(&mut self, held: &mut Held, prefix: Option<Prefix>, tokens: u32) {
        let Some(prefix) = prefix.filter(|_| self.caching) else {
            return;
        };
        let whole = prefix.tokens.min(tokens) / self.block_size;
        if whole <= held.shared {
            return;
        }
        let group = self.groups.entry(prefix.group).or_default();
        // another request went ahead: what this one computes beside it stays its own
        if group.blocks != held.shared || (group.blocks > 0 && group.users == 0) {
            return;
        }
        let more = (whole - held.shared).min(held.own);
        if held.shared == 0 {
            group.users += 1;
        }
        group.blocks += more;
        held.own -= more;
        held.shared += more;
    }

    /// Takes back what a request holds.
    pub(super) fn release(&mut self, held: Held, prefix: Option<Prefix>) {
        if held.own > 0 {
            self.push(Chunk {
                blocks: held.own,
                group: None,
            });
        }
        let Some(prefix) = prefix.filter(|_| held.shared > 0) else {
            return;
        };
        let Some(group) = self.groups.get_mut(&prefix.group) else {
            return;
        };
        group.users -= 1;
        if group.users == 0 {
            let blocks = group.blocks;
            let number = self.front + self.free.len() as u64;
            group.chunk = Some(number);
            self.free_blocks += blocks;
            self.free.push_back(Chunk {
                blocks,
                group: Some(prefix.group),
            });
        }
    }

    fn push(&mut self, chunk: Chunk) {
        self.free_blocks += chunk.blocks;
        match self.free.back_mut() {
            Some(last) if last.group.is_none() => last.blocks += chunk.blocks,
            _ => self.free.push_back(chunk),
        }
    }

    /// Takes a group's blocks out of the row, if they stand in it.
    fn use_group(&mut self, id: u32) {
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        group.users += 1;
        let Some(number) = group.chunk.take() else {
            return;
        };
        let at = usize::try_from(number - self.front).unwrap_or(usize::MAX);
        if let Some(chunk) = self.free.get_mut(at) {
            self.free_blocks -= chunk.blocks;
            *chunk = Chunk {
                blocks: 0,
                group: None,
            };
        }
    }

    /// Hands out free blocks, of which there are enough.
    fn take(&mut self, mut blocks: u32) {
        self.free_blocks -= blocks;
        while blocks > 0 {
            let Some(chunk) = self.free.front_mut() else {
                return;
            };
            let from_this = blocks.min(chunk.blocks);
            chunk.blocks -= from_this;
            blocks -= from_this;
            let (group, left) = (chunk.group, chunk.blocks);
            if left == 0 {
                chunk.group = None;
            }
            if left == 0 && self.free.len() > 1 {
                self.free.pop_front();
                self.front += 1;
            } else if from_this == 0 {
                return;
            }
            if let Some(id) = group
                && let Some(group) = self.groups.get_mut(&id)
            {
                // its last blocks stand in front
                group.blocks = left;
                if left == 0 {
                    self.groups.remove(&id);
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counted(cache: &KvCache) -> u32 {
        cache.free.iter().map(|chunk| chunk.blocks).sum()
    }

    #[test]
    fn a_beginning_is_computed_once_and_used_again_until_its_blocks_are_needed() {
        let mut cache = KvCache::new(10, 16, true);
        let prefix = Some(Prefix {
            group: 1,
            tokens: 40,
        });
        assert_eq!(cache.hit_tokens(prefix, 100), 0);
        let mut first = cache.begin(prefix, 0, 50, 50).unwrap();
        cache.computed(&mut first, prefix, 50);
        // two whole blocks of the 40 tokens
        assert_eq!(first, Held { own: 2, shared: 2 });
        assert_eq!(cache.hit_tokens(prefix, 100), 32);
        assert_eq!(
            cache.hit_tokens(prefix, 32),
            16,
            "one token is left to compute"
        );
        let second = cache.begin(prefix, 32, 50, 50).unwrap();
        assert_eq!(second, Held { own: 2, shared: 2 });
        assert_eq!(cache.free_blocks(), 4);
        cache.release(first, prefix);
        cache.release(second, prefix);
        assert_eq!(cache.free_blocks(), 10);
        assert_eq!(cache.hit_tokens(prefix, 100), 32, "free and still of use");
        // blocks that were never used, then those freed, the beginning last
        let big = cache.begin(None, 0, 16 * 9, 16 * 9).unwrap();
        assert_eq!(cache.hit_tokens(prefix, 100), 16);
        assert_eq!(
            cache.begin(prefix, 16, 32, 32),
            None,
            "the block that is left cannot be both"
        );
        cache.release(big, None);
        assert_eq!(counted(&cache), 10);
    }

    proptest! {
        /// No block is lost or made, whatever requests do.
        #[test]
        fn blocks_are_conserved(
            steps in prop::collection::vec((0..4_u8, 0..6_u32, 1..200_u32), 1..400),
            caching: bool,
        ) {
            let mut cache = KvCache::new(40, 16, caching);
            let mut held: Vec<(Held, Option<Prefix>, u32)> = Vec::new();
            for (what, group, tokens) in steps {
                match what {
                    0 => {
                        let prefix = (group > 0).then_some(Prefix { group, tokens: 37 });
                        let hit = cache.hit_tokens(prefix, tokens);
                        prop_assert!(hit < tokens);
                        if let Some(mut one) = cache.begin(prefix, hit, tokens, tokens) {
                            cache.computed(&mut one, prefix, tokens);
                            held.push((one, prefix, tokens));
                        }
                    }
                    1 if !held.is_empty() => {
                        let at = tokens as usize % held.len();
                        let (one, prefix, length) = &mut held[at];
                        if cache.grow(one, *length + tokens) {
                            *length += tokens;
                            cache.computed(one, *prefix, *length);
                        }
                    }
                    _ if !held.is_empty() => {
                        let at = tokens as usize % held.len();
                        let (one, prefix, _) = held.swap_remove(at);
                        cache.release(one, prefix);
                    }
                    _ => {}
                }
                prop_assert_eq!(counted(&cache), cache.free_blocks());
                let own: u32 = held.iter().map(|(one, ..)| one.own).sum();
                let used = |group: &&Group| group.users > 0;
                let shared: u32 = cache.groups.values().filter(used).map(|group| group.blocks).sum();
                prop_assert_eq!(own + shared + cache.free_blocks(), 40);
                for (one, _, length) in &held {
                    prop_assert!(one.blocks() >= cache.blocks_of(*length));
                }
            }
            for (one, prefix, _) in held {
                cache.release(one, prefix);
            }
            prop_assert_eq!(cache.free_blocks(), 40);
        }
    }
}
