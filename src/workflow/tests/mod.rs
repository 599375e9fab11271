//! What the machine must do, whatever is asked of it.

pub(crate) mod example;
mod found;
mod gates;
mod invariants;
mod judged;
mod properties;
mod random;
mod table;
mod table_rows;
