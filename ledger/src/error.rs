//! What can go wrong in the ledger.

/// Result of ledger functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that the ledger refuses or fails at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A number left its range. Nothing was written.
    #[error("{0} does not fit its type")]
    Overflow(&'static str),
    /// Text that is not an amount in base units.
    #[error("{0:?} is not an amount: base units are digits only, below 2^128")]
    NotAnAmount(String),
    /// Text that is not a plain decimal.
    #[error("{text:?} is not a plain decimal: {why}")]
    NotADecimal {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Rows that the contract would not take.
    #[error(transparent)]
    Rows(#[from] contracts::rows::RowsError),
    /// The file belongs to another deployment.
    #[error("the database belongs to {field} {found}, not {expected}")]
    Identity {
        /// Which part of the identity differs.
        field: &'static str,
        /// What the caller runs against.
        expected: String,
        /// What the file says.
        found: String,
    },
    /// The file was written by another version of the program.
    #[error("the database has schema {found}, this program knows schema {known}: {hint}")]
    Schema {
        /// Newest migration of the file.
        found: i64,
        /// Newest migration of the program.
        known: i64,
        /// What to do.
        hint: &'static str,
    },
    /// The file is damaged.
    #[error("the database file {path} is damaged: {problem}; restore a backup")]
    Damaged {
        /// Path of the file.
        path: String,
        /// What SQLite's check said first.
        problem: String,
    },
    /// The SQLite library has known defects.
    #[error("SQLite {0} is too old; 3.51.3 is the oldest that is trusted with a write-ahead log")]
    OldSqlite(String),
    /// There is no file to read.
    #[error("there is no database at {0} yet; quittance serve or ingest makes it")]
    NoDatabase(String),
    /// Another process has the file open for writing.
    #[error("another process is using {0}; stop it first")]
    Locked(String),
    /// A reorg reached below what had been final.
    #[error("a reorg to block {fork} would undo block {finalised}, which was final")]
    FinalityViolated {
        /// Highest block that both chains share.
        fork: u64,
        /// Highest block that had been final.
        finalised: u64,
    },
    /// A block does not follow the checkpoint.
    #[error("block {number} does not follow the checkpoint: its parent is {parent}")]
    NotTheNextBlock {
        /// Number of the refused block.
        number: u64,
        /// Parent that it names.
        parent: alloy::primitives::B256,
    },
    /// A source file overlaps another of the same source without being equal to it.
    #[error("{name} covers days {first} to {until}, which overlap {other} of the same source")]
    FileOverlap {
        /// The refused file.
        name: String,
        /// First day that it covers.
        first: String,
        /// First day that it does not cover any more.
        until: String,
        /// The file that it overlaps.
        other: String,
    },
    /// A source file has the content of one that was taken in under another source or other days.
    #[error(
        "{name} of source {of:?} has the content of {other} of source {other_of:?}, which was taken in: its work would be paid \
         again; leave it out, or hand it in under that source (policy.earnings_source) and name"
    )]
    FileAgain {
        /// The refused file.
        name: String,
        /// Its source.
        of: String,
        /// The file that was taken in.
        other: String,
        /// The source of that one.
        other_of: String,
    },
    /// Another process took the lease on sending.
    #[error("another process has taken over sending for this ledger; this one has to stop")]
    Fenced,
    /// A slot that could still take effect carries the statement.
    #[error(
        "statement {statement} waits for tx nonce {tx_nonce}, which carries it, to be finally consumed"
    )]
    Busy {
        /// Row id of the statement.
        statement: i64,
        /// Tx nonce of the slot.
        tx_nonce: u64,
    },
    /// A signing rule refused a statement.
    #[error("refused to sign: {0}")]
    Unsignable(String),
    /// A decision could change nothing, or promises money that is not there.
    #[error("not decided: {0}")]
    Undecidable(String),
    /// A manifest is not what it claims to be, or there is nothing to recover.
    #[error("not recovered: {0}")]
    Unimportable(String),
    /// The signing key failed or has the wrong form.
    #[error("signature")]
    Signature(#[from] k256::ecdsa::Error),
    /// Stored bytes do not have the form that the ledger gives them.
    #[error("the database holds a malformed {0}")]
    Corrupt(&'static str),
    /// The database failed.
    #[error("database")]
    Database(#[from] sqlx::Error),
    /// A migration failed.
    #[error("migration of the database")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// The file system failed.
    #[error("file {path}")]
    File {
        /// Path of the file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Error {
    /// Whether what was to be stored of the chain is refused for what it says, and not for the state of the file.
    pub fn is_of_facts(&self) -> bool {
        match self {
            Self::Overflow(_) | Self::Rows(_) | Self::NotTheNextBlock { .. } => true,
            // SQLITE_CONSTRAINT and its extended codes have 19 in their lowest byte.
            Self::Database(error) => lowest_byte(error) == Some(19),
            _ => false,
        }
    }

    /// What is wrong with the disk below the database, if that is what failed.
    pub fn disk_problem(&self) -> Option<&'static str> {
        let Self::Database(error) = self else { return None };
        // SQLITE_READONLY, SQLITE_IOERR, SQLITE_FULL and SQLITE_CANTOPEN, with their extended codes.
        match lowest_byte(error)? {
            8 => Some("it is read-only"),
            10 => Some("the disk fails, or takes no more"),
            13 => Some("the disk is full"),
            14 => Some("its file cannot be opened"),
            _ => None,
        }
    }

    /// Whether trying again may fare better without anybody's help: the database was too busy, or somebody else held its lock.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Database(sqlx::Error::PoolTimedOut) => true,
            // SQLITE_BUSY and its extended codes have 5 in their lowest byte.
            Self::Database(error) => lowest_byte(error) == Some(5),
            _ => false,
        }
    }
}

/// What kind of result SQLite's code is of: <https://www.sqlite.org/rescode.html>.
fn lowest_byte(error: &sqlx::Error) -> Option<u32> {
    let code: u32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}
