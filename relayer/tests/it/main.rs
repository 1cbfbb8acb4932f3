//! Tests of the binary `quittance` on real chains, real files and real processes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::float_arithmetic,
    reason = "tests fail by panicking"
)]

mod backup;
mod crash;
mod demo;
mod env;
mod fees;
mod folders;
mod halt;
mod ingest;
mod install;
mod leaving;
mod outcome;
mod proxy;
mod ranges;
mod reorg;
mod sender;
mod signer;
mod tools;
mod verify;
mod voting;
