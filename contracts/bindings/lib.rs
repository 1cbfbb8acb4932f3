//! The Settlement contract as Rust sees it. This crate is the only place that knows an ABI.
//!
//! `Settlement`, `DepositHelper` and `TestToken` are bound from what `build.rs` compiled, so that bindings, tests and
//! deployments share one bytecode. [`eip712`] holds the messages that people and keys sign, [`rows`] the packed rows of a
//! statement, [`journal`] the running hash over the contract's events, [`deploy`](mod@deploy) the one way to put the
//! contracts on a chain, [`metatx`] the approval of GLM on Polygon that its owner signs and anybody relays.

pub mod abi;
pub mod deploy;
pub mod eip712;
pub mod journal;
pub mod metatx;
pub mod rows;

pub use abi::{DepositHelper, Settlement, TestToken};
pub use deploy::{Deployment, deploy};
