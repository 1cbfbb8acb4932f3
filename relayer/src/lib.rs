//! The relayer: intake, statements, sender, HTTP, command line. The binary is `quittance`.

pub mod anvil;
pub mod attester;
pub mod config;
pub mod demo;
mod error;
pub mod generate;
pub mod intake;
pub mod keys;
pub mod reconcile;
pub mod screen;
pub mod sender;
pub mod turn;

pub use error::{Error, Result, chain_of};
