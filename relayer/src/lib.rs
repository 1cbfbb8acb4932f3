//! The relayer: intake, statements, sender, HTTP, command line. The binary is `quittance`.

mod address;
pub mod anvil;
pub mod attester;
mod case;
pub mod cli;
pub mod config;
pub mod decide;
pub mod demo;
pub mod doctor;
mod error;
mod files;
pub mod generate;
pub mod install;
pub mod intake;
pub mod keys;
pub mod manifests;
pub mod opinion;
mod orders;
pub mod reconcile;
pub mod recover;
pub mod remote;
pub mod screen;
pub mod sender;
pub mod serve;
pub mod status;
pub mod trust;
pub mod turn;

pub use error::{Error, Result};
pub use indexer::chain_of;
