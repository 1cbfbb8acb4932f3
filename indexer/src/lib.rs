//! Follows the contract's events into the ledger.
//!
//! Each turn asks the endpoint for its head, compares the last indexed block with what the chain has at that height now,
//! and then does one thing: roll back to the fork point, catch up through final blocks in ranges, or follow new blocks
//! one by one ([`follow`]). Every step is safe to repeat, so that a restart resumes where the last commit ended.

mod compare;
mod decode;
mod endpoint;
mod endpoints;
pub mod follow;
mod history;
mod proof;
pub mod replay;

use alloy::{
    primitives::{Address, B256},
    transports::{RpcError, TransportErrorKind},
};

pub use decode::fact;
pub use endpoint::{Finality, without_url};
pub use endpoints::{
    EndpointReport, Endpoints, HeaderHash, Settings, State, Upstream, asks_for_patience, is_known,
    is_refusal,
};
pub use follow::{Indexer, Standing, Turn, chain_of, run};

/// Result of indexer functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can stop a turn.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An endpoint did not answer, or with an error. The next turn tries again.
    #[error("endpoint {operator} failed at {request}")]
    Endpoint {
        /// Who runs it.
        operator: String,
        /// What was asked.
        request: &'static str,
        /// What it said.
        source: Box<RpcError<TransportErrorKind>>,
    },
    /// An endpoint does not know a block that it has to know. The next turn tries again.
    #[error("endpoint {operator} does not know block {block}")]
    NoBlock {
        /// Who runs it.
        operator: String,
        /// The block.
        block: String,
    },
    /// An endpoint contradicts itself. The next turn tries again.
    #[error("endpoint {operator} contradicts itself: {problem}")]
    Inconsistent {
        /// Who runs it.
        operator: String,
        /// How.
        problem: String,
    },
    /// An endpoint served what the header of its own block contradicts. Nothing of it was stored.
    #[error("what endpoint {operator} serves of block {block} does not verify: {problem}")]
    Unverified {
        /// Who runs it.
        operator: String,
        /// Number of the block.
        block: u64,
        /// Its hash.
        hash: B256,
        /// What does not.
        problem: String,
    },
    /// Logs do not fold to the contract's journal, and no endpoint serves such that do. Nothing becomes final until one
    /// does; the next turn tries again, after some such turns from the last final block on.
    #[error(
        "the logs of block {block} do not fold to the contract's journal, and no endpoint serves others: {problem}"
    )]
    Incomplete {
        /// Number of the first block that they do not fit.
        block: u64,
        /// Counts on both sides.
        problem: String,
    },
    /// A reorg goes deeper than is followed.
    #[error(
        "a reorg goes deeper than {max} blocks: block {number} was {ours}, it is {theirs}; find out what the chain did, \
         then raise chain.max_reorg_depth"
    )]
    ReorgTooDeep {
        /// Deepest reorg that is followed.
        max: u64,
        /// A block below that depth.
        number: u64,
        /// Its hash as indexed.
        ours: B256,
        /// Its hash on the chain now.
        theirs: B256,
    },
    /// The chain replaced a block that had been final.
    #[error("block {number} was final as {ours}, the chain has {theirs} in its place")]
    FinalBlockChanged {
        /// Its number.
        number: u64,
        /// Its hash as indexed.
        ours: B256,
        /// Its hash on the chain now.
        theirs: B256,
    },
    /// The contract holds something else than the ledger, as of a final block.
    #[error("as of block {block}, {account} is {ours} in the ledger and {theirs} in the contract")]
    StateDiffers {
        /// The block.
        block: u64,
        /// Which deposit or credit.
        account: String,
        /// What the ledger says.
        ours: String,
        /// What the contract says.
        theirs: String,
    },
    /// Too few operators agree. The next turn tries again; fewer never suffice.
    #[error("no {needed} of {operators} operators agree {on}: {said}")]
    NoAgreement {
        /// Operators that have to agree.
        needed: usize,
        /// Operators there are.
        operators: usize,
        /// What on.
        on: String,
        /// Where each endpoint stands.
        said: String,
    },
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
    #[error("endpoint {operator} serves chain {found}, not {expected}")]
    WrongChain {
        /// Who runs it.
        operator: String,
        /// Chain id of the ledger.
        expected: u64,
        /// Chain id of the endpoint.
        found: u64,
    },
    /// The endpoint serves a chain of the same id that began otherwise.
    #[error("block 0 of endpoint {operator} is {found}, not {expected}")]
    WrongGenesis {
        /// Who runs it.
        operator: String,
        /// Hash of block 0 that the ledger belongs to.
        expected: B256,
        /// Hash of the endpoint's block 0.
        found: B256,
    },
    /// The ledger refused or failed.
    #[error("ledger")]
    Ledger(#[from] ledger::Error),
}

impl Error {
    /// Whether another endpoint may fare better with the same request.
    pub(crate) const fn is_of_endpoint(&self) -> bool {
        matches!(
            self,
            Self::Endpoint { .. }
                | Self::NoBlock { .. }
                | Self::Inconsistent { .. }
                | Self::Unverified { .. }
        )
    }

    /// Whether fewer blocks at once may fare better. What is untrue of logs is so at any width, and the last block of a
    /// narrower range may be one whose journal nobody tells.
    pub(crate) const fn is_of_width(&self) -> bool {
        matches!(
            self,
            Self::Endpoint { .. }
                | Self::NoBlock { .. }
                | Self::Unverified { .. }
                | Self::NoAgreement { .. }
        )
    }

    /// Whether the next turn may fare better without anybody's help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Endpoint { .. }
            | Self::NoBlock { .. }
            | Self::Inconsistent { .. }
            | Self::Unverified { .. }
            | Self::Incomplete { .. }
            | Self::NoAgreement { .. } => true,
            Self::Ledger(error) => error.is_transient(),
            _ => false,
        }
    }
}
