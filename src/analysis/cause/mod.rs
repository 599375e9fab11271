//! One family of causes a file. A check more is a file, and a line here.

mod batch;
mod cache;
mod decode;
mod failures;
mod first_token;
pub(super) mod fleet;
mod memory;
mod overprovisioned;
mod speculation;
mod stall;
mod steps;
mod waiting;

use super::check::Check;

/// Checks of one replica's numbers.
pub(super) const CHECKS: &[Check] = &[
    stall::check,
    failures::errors,
    failures::admission,
    failures::aborts,
    memory::check,
    waiting::check,
    first_token::check,
    cache::check,
    decode::check,
    steps::check,
    speculation::check,
];

/// Checks of the whole instance's numbers.
pub(super) const OF_INSTANCE: &[Check] = &[batch::check, overprovisioned::check];
