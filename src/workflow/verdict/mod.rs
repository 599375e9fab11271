//! Whether a canary may be promoted: judged from what it and its control did at the same time. Pure.
//!
//! ```text
//! samples → observe → Observation, an event each → verdict: PASS, FAIL, INCONCLUSIVE or NOT_COMPARABLE, quantity by quantity
//! ```
//!
//! - PASS needs proof that nothing became worse by more than what is tolerated or accepted; that nothing was shown is no
//!   proof. All quantities have to hold, so no correction for their number is needed (intersection-union test; Berger,
//!   Technometrics 24, 1982). Of the looks that may pass, all together err with the chance that one alone would.
//! - FAIL needs proof of harm, corrected for every quantity, part and look (Bonferroni), so that of canaries that change
//!   nothing at most one in twenty fails.
//! - Nothing passes before [`VerdictPolicy::pass_from_look`], since harm may begin late; the newest part is judged by
//!   itself too. Harm is called as soon as it is proven, and stays called.

mod bounds;
mod intervals;
mod judge;
mod means;
mod observation;
mod observe;
mod outcome;
mod policy;
mod quantity;
mod sequential;
mod shares;
mod sides;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
mod tests;
mod traffic;

pub use bounds::Bounds;
pub use judge::verdict;
pub use observation::{Evidence, Observation, Pair, Side, Traffic};
pub use observe::{NotObserved, observe};
pub use outcome::{QuantityVerdict, Verdict, VerdictWord};
pub use policy::{Mode, PolicyError, VerdictPolicy};
pub use quantity::JudgedQuantity;
