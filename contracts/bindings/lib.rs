//! The Settlement contract as Rust sees it. This crate is the only place that knows an ABI.
//!
//! `Settlement` and `TestToken` are bound from what `build.rs` compiled, so that bindings, tests and deployments share
//! one bytecode. [`eip712`] holds the messages that people and keys sign, [`rows`] the packed rows of a statement,
//! [`journal`] the running hash over the contract's events, [`deploy`](mod@deploy) the one way to put the contract on a
//! chain.

pub mod abi;
pub mod deploy;
pub mod eip712;
pub mod journal;
pub mod rows;

pub use abi::{Settlement, TestToken};
pub use deploy::{Deployment, deploy};
