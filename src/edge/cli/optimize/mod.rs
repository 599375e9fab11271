//! What `recommend`, `predict`, `settings` and `predictions` share.

pub(super) mod asked;
pub(super) mod effect;
#[cfg(test)]
pub(super) mod example;
pub(super) mod sheet;
