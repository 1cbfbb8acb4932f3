//! The relayer: intake, statements, sender, HTTP, command line. The binary is `quittance`.

pub mod attester;
pub mod config;
mod error;
pub mod intake;
pub mod keys;
pub mod sender;
pub mod turn;

pub use error::{Error, Result, chain_of};
