//! The indexer over a chain in memory: trees of blocks with real headers, blooms and tx receipts, served through alloy's
//! transport by endpoints that may lie.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "tests fail by panicking"
)]

mod chain;
mod comparisons;
mod gateways;
mod lies;
mod reorgs;
mod replays;
mod trees;
