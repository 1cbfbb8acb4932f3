//! What can go wrong in the relayer.

use std::path::Path;

use alloy::{
    providers::PendingTransactionError,
    transports::{RpcError, TransportErrorKind},
};
use indexer::without_url;

/// Result of relayer functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that a command can fail at. Messages carry no secrets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("file {path}")]
    File {
        /// Its path.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The configuration is not what it should be.
    #[error("configuration {path}: {reason}")]
    Config {
        /// Its path.
        path: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// A key could not be opened.
    #[error("key {path}: {reason}")]
    Key {
        /// Path of the key file.
        path: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// The sender's key did not sign. Nothing was stored or sent.
    #[error("the signer of the sender failed: {0}")]
    Signer(String),
    /// An input file cannot be read as what it claims to be. None of it was taken in.
    #[error("{name}: {reason}")]
    Input {
        /// Name of the file.
        name: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// A running server did not take what was handed to it, for no fault of that.
    #[error("{name}: {reason}")]
    Server {
        /// Name of what was handed to it.
        name: String,
        /// What it said, or that it said nothing.
        reason: String,
    },
    /// A command cannot be carried out as asked.
    #[error("{0}")]
    Usage(String),
    /// Checks found differences.
    #[error("{0}")]
    Differences(String),
    /// The ledger breaks an invariant; no money moves.
    #[error("halted: {0}")]
    Halted(String),
    /// The endpoint did not answer, or with an error.
    #[error("the endpoint failed at {request}")]
    Endpoint {
        /// What was asked.
        request: &'static str,
        /// What it said.
        source: Box<RpcError<TransportErrorKind>>,
    },
    /// A contract call failed.
    #[error("the contract refused {call}")]
    Call {
        /// What was called.
        call: &'static str,
        /// What came back.
        source: Box<alloy::contract::Error>,
    },
    /// Nothing moved although something should have.
    #[error("no progress: {0}")]
    Stalled(String),
    /// A local chain could not be started.
    #[error("anvil: {0}")]
    Anvil(String),
    /// A deployment failed.
    #[error("deployment")]
    Deploy(#[source] Box<contracts::deploy::DeployError>),
    /// The indexer failed.
    #[error("indexer")]
    Indexer(#[from] indexer::Error),
    /// The ledger refused or failed.
    #[error("ledger")]
    Ledger(#[from] ledger::Error),
    /// Writing JSON failed.
    #[error("JSON")]
    Json(#[from] serde_json::Error),
    /// A task of the process ended without being asked to.
    #[error("the {task} stopped: {reason}")]
    Task {
        /// Which one.
        task: &'static str,
        /// Why.
        reason: String,
    },
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl From<contracts::deploy::DeployError> for Error {
    fn from(error: contracts::deploy::DeployError) -> Self {
        use contracts::deploy::DeployError;
        Self::Deploy(Box::new(match error {
            DeployError::Rpc(error) => DeployError::Rpc(without_url(error)),
            DeployError::Pending(PendingTransactionError::TransportError(error)) => {
                DeployError::Pending(PendingTransactionError::TransportError(without_url(error)))
            }
            other => other,
        }))
    }
}

impl Error {
    /// A file error with its path.
    pub(crate) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::File { path, source }
    }

    /// An endpoint error with the request that met it.
    pub(crate) fn endpoint(
        request: &'static str,
    ) -> impl FnOnce(RpcError<TransportErrorKind>) -> Self {
        move |source| Self::Endpoint { request, source: Box::new(without_url(source)) }
    }

    /// A contract error with the call that met it.
    pub(crate) fn call(call: &'static str) -> impl FnOnce(alloy::contract::Error) -> Self {
        move |source| {
            let source = match source {
                alloy::contract::Error::TransportError(error) => {
                    alloy::contract::Error::TransportError(without_url(error))
                }
                other => other,
            };
            Self::Call { call, source: Box::new(source) }
        }
    }

    /// Whether the next turn may fare better without anybody's help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Endpoint { .. } => true,
            // An answer that cannot be decoded, or an empty one, is that of a node that lacks the state.
            Self::Call { source, .. } => matches!(
                **source,
                alloy::contract::Error::TransportError(_)
                    | alloy::contract::Error::ZeroData(..)
                    | alloy::contract::Error::AbiError(_)
            ),
            Self::Indexer(error) => error.is_transient(),
            Self::Ledger(error) => error.is_transient(),
            _ => false,
        }
    }

    /// What is wrong with the disk below the database, if that is what failed.
    pub fn disk_problem(&self) -> Option<&'static str> {
        match self {
            Self::Ledger(error) | Self::Indexer(indexer::Error::Ledger(error)) => {
                error.disk_problem()
            }
            _ => None,
        }
    }

    /// Exit code of the process: 2 usage, 3 configuration or keys, 4 chain, 5 differences or a halt, 130 interrupted, 1
    /// anything else.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_)
            | Self::Input { .. }
            | Self::Ledger(
                ledger::Error::FileOverlap { .. }
                | ledger::Error::FileAgain { .. }
                | ledger::Error::Undecidable(_)
                | ledger::Error::Unimportable(_),
            ) => 2,
            Self::Config { .. } | Self::Key { .. } => 3,
            Self::Endpoint { .. }
            | Self::Call { .. }
            | Self::Anvil(_)
            | Self::Deploy(_)
            | Self::Indexer(_) => 4,
            Self::Differences(_) | Self::Halted(_) => 5,
            Self::Interrupted => 130,
            _ => 1,
        }
    }
}
