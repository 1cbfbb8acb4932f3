//! Opening the file: settings, migrations, identity and the lock.

use std::{fs::File, path::Path, sync::Arc, time::Duration};

use alloy::{
    dyn_abi::Eip712Domain,
    primitives::{Address, B256},
};
use sqlx::{
    Sqlite, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::{
    Error, Result,
    point::{self, Side},
    sql::{Columns, integer},
};

/// What a ledger file belongs to, fixed when it is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Address of the Settlement contract.
    pub contract: Address,
    /// Hash of block 0.
    pub genesis: B256,
    /// Block from which the contract's events are read.
    pub start_block: u64,
}

impl Identity {
    /// The EIP-712 domain of the contract.
    pub fn domain(&self) -> Eip712Domain {
        contracts::eip712::domain(self.chain_id, self.contract)
    }
}

/// An open ledger: one writer, several readers, one file. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ledger {
    identity: Identity,
    write: SqlitePool,
    read: SqlitePool,
    // Held for as long as any clone lives.
    _lock: Option<Arc<File>>,
}

/// How long a caller waits for a connection: the longest write, many times over.
const PATIENCE: Duration = Duration::from_secs(300);

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations");

impl Ledger {
    /// Opens the file for writing, creating it if it does not exist. Fails if another process has it open for writing,
    /// or if it belongs to another deployment.
    pub async fn open(path: &Path, identity: Identity) -> Result<Self> {
        let lock = lock(path)?;
        let options = options(path).create_if_missing(true);
        let write = SqlitePoolOptions::new()
            .acquire_timeout(PATIENCE)
            .max_connections(1)
            .connect_with(options.clone())
            .await?;
        MIGRATIONS.run(&write).await?;
        let read = SqlitePoolOptions::new()
            .acquire_timeout(PATIENCE)
            .max_connections(4)
            .connect_with(options.read_only(true).create_if_missing(false))
            .await?;
        let ledger = Self { identity, write, read, _lock: Some(Arc::new(lock)) };
        ledger.claim_identity().await?;
        Ok(ledger)
    }

    /// Opens an existing file for reading, whether or not another process writes to it. Writing functions fail.
    pub async fn open_read_only(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Err(Error::NoDatabase(path.display().to_string()));
        }
        let options = options(path).read_only(true);
        let read = SqlitePoolOptions::new()
            .acquire_timeout(PATIENCE)
            .max_connections(4)
            .connect_with(options)
            .await?;
        let identity = stored_identity(&read).await?.ok_or(Error::Corrupt("chain identity"))?;
        Ok(Self { identity, write: read.clone(), read, _lock: None })
    }

    /// What the file belongs to.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Waits for running queries and closes the file.
    pub async fn close(self) {
        self.read.close().await;
        self.write.close().await;
    }

    /// A write transaction. There is one writer, so that it never meets a lock.
    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Sqlite>> {
        Ok(self.write.begin_with("begin immediate").await?)
    }

    /// Connections for reading.
    pub(crate) const fn reader(&self) -> &SqlitePool {
        &self.read
    }

    async fn claim_identity(&self) -> Result<()> {
        let Identity { chain_id, contract, genesis, start_block } = self.identity;
        sqlx::query(
            "insert into chain (one, chain_id, contract, genesis, start_block, finalised)
             values (1, ?, ?, ?, ?, 0) on conflict do nothing",
        )
        .bind(integer(chain_id)?)
        .bind(contract.to_vec())
        .bind(genesis.to_vec())
        .bind(integer(start_block)?)
        .execute(&self.write)
        .await?;
        let found = stored_identity(&self.write).await?.ok_or(Error::Corrupt("chain identity"))?;
        differ("chain id", &chain_id, &found.chain_id)?;
        differ("contract", &contract, &found.contract)?;
        differ("genesis block", &genesis, &found.genesis)?;
        differ("start block", &start_block, &found.start_block)
    }
}

/// Commits. Every write of the ledger ends here, so that tests can end a run on either side of each.
pub(crate) async fn commit(tx: Transaction<'static, Sqlite>, name: &str) -> Result<()> {
    let name = format!("commit {name}");
    point::reach(&name, Side::Before).await;
    tx.commit().await?;
    point::reach(&name, Side::After).await;
    Ok(())
}

fn differ<T: PartialEq + ToString>(field: &'static str, expected: &T, found: &T) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::Identity { field, expected: expected.to_string(), found: found.to_string() })
}

async fn stored_identity(pool: &SqlitePool) -> Result<Option<Identity>> {
    let row = sqlx::query("select chain_id, contract, genesis, start_block from chain")
        .fetch_optional(pool)
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Identity {
        chain_id: row.u64("chain_id")?,
        contract: row.address("contract")?,
        genesis: row.b256("genesis")?,
        start_block: row.u64("start_block")?,
    }))
}

/// Takes the lock file beside the database. The system frees it when the process ends, however it ends.
fn lock(path: &Path) -> Result<File> {
    let name = path.with_extension("lock");
    let failed = |source| Error::File { path: name.display().to_string(), source };
    let file = File::create(&name).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::Locked(path.display().to_string())),
        Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        // Promises exist nowhere else: an answered commit has to survive a power cut.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(10))
}
