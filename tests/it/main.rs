//! Tests that cross a boundary: recorded engines, the wire, the command line.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing
)]

mod board;
mod bounds;
mod captures;
mod cli;
mod corpus;
mod errors;
mod fake;
mod http;
mod instances;
mod peers;
mod profiles;
mod services;
mod truth;
mod watching;
mod windows;
