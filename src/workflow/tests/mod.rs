//! What the machine must do, whatever is asked of it.

mod canary;
pub(crate) mod example;
mod found;
mod gates;
mod invariants;
mod judged;
mod properties;
mod random;
mod shared;
mod table;
mod table_rows;
