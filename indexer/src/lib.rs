//! Follows the contract's events into the ledger.
//!
//! Each turn asks the endpoint for its head, compares the last indexed block with what the chain has at that height now,
//! and then does one thing: roll back to the fork point, catch up through final blocks in ranges, or follow new blocks
//! one by one ([`follow`]). Every step is safe to repeat, so that a restart resumes where the last commit ended.

mod decode;
mod endpoint;
pub mod follow;
pub mod replay;

use alloy::{
    primitives::{Address, B256},
    transports::{RpcError, TransportErrorKind},
};

pub use endpoint::{Endpoint, Finality, without_url};
pub use follow::{Indexer, Turn, chain_of, run};

/// Result of indexer functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can stop a turn.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The endpoint did not answer, or with an error. The next turn tries again.
    #[error("the endpoint failed at {request}")]
    Endpoint {
        /// What was asked.
        request: &'static str,
        /// What it said.
        source: Box<RpcError<TransportErrorKind>>,
    },
    /// The endpoint does not know a block that it has to know. The next turn tries again.
    #[error("the endpoint does not know block {0}")]
    NoBlock(String),
    /// The endpoint contradicts itself. The next turn tries again.
    #[error("the endpoint contradicts itself: {0}")]
    Inconsistent(String),
    /// A log of the contract that is none of its events.
    #[error("log {log_index} of block {block} is not an event of the contract at {contract}")]
    UnknownEvent {
        /// Hash of the block.
        block: B256,
        /// Index of the log in it.
        log_index: u64,
        /// The contract.
        contract: Address,
    },
    /// The endpoint serves another chain.
    #[error("the endpoint serves chain {found}, not {expected}")]
    WrongChain {
        /// Chain id of the ledger.
        expected: u64,
        /// Chain id of the endpoint.
        found: u64,
    },
    /// The endpoint serves a chain of the same id that began otherwise.
    #[error("the endpoint's block 0 is {found:?}, not {expected}")]
    WrongGenesis {
        /// Hash of block 0 that the ledger belongs to.
        expected: B256,
        /// Hash of the endpoint's block 0.
        found: Option<B256>,
    },
    /// The ledger refused or failed.
    #[error("ledger")]
    Ledger(#[from] ledger::Error),
}

impl Error {
    /// Whether the next turn may fare better without anybody's help.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Endpoint { .. } | Self::NoBlock(_) | Self::Inconsistent(_) => true,
            Self::Ledger(error) => error.is_transient(),
            _ => false,
        }
    }
}
