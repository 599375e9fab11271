//! How much of the ledger is kept.

use super::LedgerEntry;

/// Open predictions of one instance.
pub const MAX_OPEN_OF_INSTANCE: usize = 100;
/// Predictions of all instances, whatever came of them.
pub const MAX_ENTRIES: usize = 10_000;
/// How long what came of a prediction is kept after it was made: 90 days, in seconds.
pub const KEPT_SECONDS: f64 = 90.0 * 86_400.0;

/// Which of the open predictions of an instance a new one takes the place of, as places in `open`: those about the same
/// change, and the oldest where there are too many.
pub fn superseded(open: &[LedgerEntry], new: &LedgerEntry) -> Vec<usize> {
    let (mut gone, mut stay): (Vec<usize>, Vec<(usize, &LedgerEntry)>) = Default::default();
    for (at, entry) in open.iter().enumerate() {
        match entry.is_about_the_same_as(new) {
            true => gone.push(at),
            false => stay.push((at, entry)),
        }
    }
    stay.sort_by(|(_, one), (_, other)| {
        one.made_at_unix_seconds
            .total_cmp(&other.made_at_unix_seconds)
    });
    let too_many = (stay.len() + 1).saturating_sub(MAX_OPEN_OF_INSTANCE);
    gone.extend(stay.iter().take(too_many).map(|(at, _)| at));
    gone
}
