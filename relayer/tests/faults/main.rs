//! Faults against the binary `quittance` as a process, on real chains and real files. Needs the feature `crash-points`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::float_arithmetic,
    reason = "tests fail by panicking"
)]

mod day;
#[path = "../it/env.rs"]
#[allow(dead_code, reason = "shared with the other tests, which use more of it")]
mod env;
mod ground;
mod kills;
mod node;
mod proxy;
mod soak;
mod sweep;
mod wrong;
