//! Opening the file: settings, migrations, identity and the lock.

use std::{
    collections::BTreeMap,
    fs::{File, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, LazyLock},
    time::Duration,
};

use alloy::{
    dyn_abi::Eip712Domain,
    primitives::{Address, B256, hex},
};
use sqlx::{
    SqlSafeStr as _, Sqlite, SqlitePool, Transaction,
    migrate::{Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use tokio::{sync::OnceCell, time::timeout};

use crate::{
    Error, Result,
    book::Group,
    invariants::{self, Violation},
    point::{self, Side},
    read,
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
    group: Arc<Group>,
    // Held for as long as any clone lives.
    _lock: Option<Arc<File>>,
}

/// How long a caller waits for a connection: the longest write, many times over.
const PATIENCE: Duration = Duration::from_secs(300);

/// Longest that closing waits.
const CLOSING: Duration = Duration::from_secs(30);

/// How long SQLite waits for a lock that another process holds, before it says so.
const BUSY: Duration = Duration::from_secs(10);

/// The files of `migrations/`. Not by sqlx's macro, for which SQLite would be compiled a second time.
const STEPS: [(&str, &str); 16] = [
    ("facts", include_str!("../../migrations/0001_facts.sql")),
    ("book", include_str!("../../migrations/0002_book.sql")),
    ("audit", include_str!("../../migrations/0003_audit.sql")),
    ("recovery", include_str!("../../migrations/0004_recovery.sql")),
    ("chain proof", include_str!("../../migrations/0005_chain_proof.sql")),
    ("sender", include_str!("../../migrations/0006_sender.sql")),
    ("paid for", include_str!("../../migrations/0007_paid_for.sql")),
    ("halts", include_str!("../../migrations/0008_halts.sql")),
    ("attested", include_str!("../../migrations/0009_attested.sql")),
    ("comparison", include_str!("../../migrations/0010_comparison.sql")),
    ("restated", include_str!("../../migrations/0011_restated.sql")),
    ("remembered", include_str!("../../migrations/0012_remembered.sql")),
    ("settled before", include_str!("../../migrations/0013_settled_before.sql")),
    ("registrations", include_str!("../../migrations/0014_registrations.sql")),
    ("payee files", include_str!("../../migrations/0015_payee_files.sql")),
    ("cut offs", include_str!("../../migrations/0016_cut_offs.sql")),
];

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| up_to(known_schema()));

/// The migrations up to a version.
fn up_to(version: i64) -> Migrator {
    let step = |(version, (name, sql)): (i64, (&'static str, &'static str))| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    let steps = (1..).zip(STEPS).filter(|(number, _)| *number <= version);
    Migrator::with_migrations(steps.map(step).collect())
}

impl Ledger {
    /// Opens the file for writing, creating it if it does not exist. Fails if another process has it open for writing,
    /// or if it belongs to another deployment.
    pub async fn open(path: &Path, identity: Identity) -> Result<Self> {
        let lock = lock(path)?;
        let options = to_write(path).create_if_missing(true);
        let write = connections(1).connect_with(options).await?;
        refuse_old_sqlite(&write).await?;
        refuse_damage(&write, path).await?;
        let found = schema(&write).await?;
        if found.is_some_and(|found| found > known_schema()) {
            return Err(newer(&write).await?);
        }
        if let Some(found) = found {
            refuse_damaged_schema(&write, found, path).await?;
        }
        if found.is_some_and(|found| found < LISTS_DEBTS) {
            list_debts(&write).await?;
        }
        MIGRATIONS.run(&write).await?;
        let read = readers(path).await?;
        let ledger =
            Self { identity, write, read, group: Arc::default(), _lock: Some(Arc::new(lock)) };
        ledger.claim_identity().await?;
        Ok(ledger)
    }

    /// Opens an existing file for reading, whether or not another process writes to it. Writing functions fail.
    pub async fn open_read_only(path: &Path) -> Result<Self> {
        let ledger = Self::open_unsound(path).await?;
        refuse_damaged_schema(&ledger.read, known_schema(), path).await?;
        Ok(ledger)
    }

    /// The same, whatever became of its tables.
    async fn open_unsound(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Err(Error::NoDatabase(path.display().to_string()));
        }
        let read = readers(path).await?;
        refuse_old_sqlite(&read).await?;
        let (found, known) = (schema(&read).await?.unwrap_or_default(), known_schema());
        if found > known {
            return Err(newer(&read).await?);
        }
        if found < known {
            let hint = "quittance serve brings it up to date";
            return Err(Error::Schema { found, known, hint });
        }
        let identity = stored_identity(&read).await?.ok_or(Error::Corrupt("chain identity"))?;
        Ok(Self { identity, write: read.clone(), read, group: Arc::default(), _lock: None })
    }

    /// What the file belongs to.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Waits for running queries and closes the file. A connection whose thread died over a damaged file never comes back, so
    /// that this does not wait for ever.
    pub async fn close(self) {
        for pool in [&self.read, &self.write] {
            timeout(CLOSING, pool.close()).await.unwrap_or_default();
        }
    }

    /// Copies the database as it is now into a new file, also while somebody writes, and syncs the copy. Returns the rows of
    /// the copy that break an invariant: a backup of an unsound ledger is made, and told.
    pub async fn backup(&self, path: &Path) -> Result<Vec<Violation>> {
        let failed = |source| Error::File { path: path.display().to_string(), source };
        if path.exists() {
            return Err(failed(std::io::ErrorKind::AlreadyExists.into()));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        // Under a name that nothing else has: whatever lies beside the copy is somebody's.
        let draft = tempfile::Builder::new()
            .suffix(".draft")
            .permissions(Permissions::from_mode(0o644))
            .tempfile_in(folder)
            .map_err(failed)?
            .into_temp_path();
        sqlx::query("vacuum into ?")
            .bind(draft.display().to_string())
            .execute(self.reader())
            .await?;
        // SQLite leaves it to the caller to sync what it wrote.
        File::open(&draft).and_then(|file| file.sync_all()).map_err(failed)?;
        let copy = Self::open_unsound(&draft).await?;
        let mut found = invariants::violations(&copy).await?;
        found.extend(invariants::deep_violations(&copy).await?);
        copy.close().await;
        draft.persist_noclobber(path).map_err(|error| failed(error.error))?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(found)
    }

    /// A write transaction. There is one writer, so that it never meets a lock.
    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Sqlite>> {
        Ok(self.write.begin_with("begin immediate").await?)
    }

    /// Where calls that take records in meet, so that they share commits.
    pub(crate) fn group(&self) -> &Group {
        &self.group
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

/// Oldest SQLite that is used: earlier ones can corrupt a write-ahead log that is reset while somebody reads.
const OLDEST_SQLITE: [u32; 3] = [3, 51, 3];

async fn refuse_old_sqlite(pool: &SqlitePool) -> Result<()> {
    let version =
        sqlx::query("select sqlite_version() as version").fetch_one(pool).await?.text("version")?;
    let numbers: Vec<u32> = version.split('.').filter_map(|part| part.parse().ok()).collect();
    if numbers.as_slice() < OLDEST_SQLITE.as_slice() {
        return Err(Error::OldSqlite(version));
    }
    Ok(())
}

/// Reads every page once, so that a file that was damaged on disk is refused and not believed.
async fn refuse_damage(pool: &SqlitePool, path: &Path) -> Result<()> {
    let said = sqlx::query("pragma quick_check(1)").fetch_all(pool).await?;
    for row in said {
        let problem = row.text("quick_check")?;
        if problem != "ok" {
            return Err(Error::Damaged { path: path.display().to_string(), problem });
        }
    }
    Ok(())
}

/// First schema of which every file lists what is owed back of work that was let go. It counted as nothing before.
const LISTS_DEBTS: i64 = 15;

/// Lists what is owed back of work that was let go. Not by a migration, as SQL adds no amounts; and before the one that says that
/// it is done, so that a process that ends in between begins again.
async fn list_debts(pool: &SqlitePool) -> Result<()> {
    up_to(LISTS_DEBTS - 1).run(pool).await?;
    let mut tx = pool.begin_with("begin immediate").await?;
    let let_go = sqlx::query(
        "select item from decision d
         where verdict = 'release' and id = (select max(id) from decision last where last.item = d.item)",
    )
    .fetch_all(&mut *tx)
    .await?;
    for row in let_go {
        read::refresh_open(&mut tx, row.int("item")?).await?;
    }
    commit(tx, "debts").await
}

/// Newest migration of the file, if it has any.
async fn schema(pool: &SqlitePool) -> Result<Option<i64>> {
    let migrated = sqlx::query("select 1 from sqlite_schema where name = '_sqlx_migrations'")
        .fetch_optional(pool)
        .await?;
    if migrated.is_none() {
        return Ok(None);
    }
    sqlx::query("select max(version) as version from _sqlx_migrations where success = 1")
        .fetch_one(pool)
        .await?
        .maybe_int("version")
}

/// Newest migration of this program.
fn known_schema() -> i64 {
    (1..).zip(STEPS).map(|(version, _)| version).last().unwrap_or_default()
}

/// Refuses a file whose tables are not those of its version: a bit that flipped in what describes them passes SQLite's own
/// check, and what it does to a query is anybody's guess.
async fn refuse_damaged_schema(pool: &SqlitePool, version: i64, path: &Path) -> Result<()> {
    static KNOWN: OnceCell<Definitions> = OnceCell::const_new();
    let older;
    let expected = if version == known_schema() {
        KNOWN.get_or_try_init(|| made_by(version)).await?
    } else {
        older = made_by(version).await?;
        &older
    };
    let found = definitions(pool).await?;
    // What somebody added, as a view for reports, is not ours to judge.
    let differs = |name: &&String| expected.get(*name) != found.get(*name);
    let Some(name) = expected.keys().find(differs) else { return Ok(()) };
    let name = hex::decode(name).map_err(|_| Error::Corrupt("name of a table"))?;
    let problem =
        format!("what defines {:?} is not of this program", String::from_utf8_lossy(&name));
    Err(Error::Damaged { path: path.display().to_string(), problem })
}

/// Definitions of tables, indices and triggers by name, all as hexadecimal: what is damaged may be no text.
type Definitions = BTreeMap<String, String>;

/// What migrations up to a version make.
async fn made_by(version: i64) -> Result<Definitions> {
    let fresh = connections(1).connect_with(SqliteConnectOptions::new().in_memory(true)).await?;
    up_to(version).run(&fresh).await?;
    let made = definitions(&fresh).await?;
    fresh.close().await;
    Ok(made)
}

async fn definitions(pool: &SqlitePool) -> Result<Definitions> {
    let rows = sqlx::query(
        "select hex(name) as name, hex(type) || ' ' || hex(coalesce(sql, '')) as definition from sqlite_schema
         where name <> '_sqlx_migrations' and name not like 'sqlite_stat%'",
    )
    .fetch_all(pool)
    .await?;
    rows.iter().map(|row| Ok((row.text("name")?, row.text("definition")?))).collect()
}

async fn newer(pool: &SqlitePool) -> Result<Error> {
    let (found, known) = (schema(pool).await?.unwrap_or_default(), known_schema());
    Ok(Error::Schema { found, known, hint: "use the program that wrote it, or a newer one" })
}

/// Prepared statements that a connection keeps: more than the program has, so that each is prepared once.
const STATEMENTS: usize = 512;

fn to_write(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .statement_cache_capacity(STATEMENTS)
        .journal_mode(SqliteJournalMode::Wal)
        // Promises exist nowhere else: an answered commit has to survive a power cut.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY)
}

async fn readers(path: &Path) -> Result<SqlitePool> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .statement_cache_capacity(STATEMENTS)
        .read_only(true)
        .busy_timeout(BUSY);
    Ok(connections(4).connect_with(options).await?)
}

/// A pool of at most so many connections. A file of this machine does not make them stale, and the task that would look for old
/// ones (sqlx 0.9) reads a count which is below zero for moments, and then goes on for as good as ever.
fn connections(most: u32) -> SqlitePoolOptions {
    let pool = SqlitePoolOptions::new().max_lifetime(None).idle_timeout(None);
    pool.acquire_timeout(PATIENCE).test_before_acquire(false).max_connections(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_every_file_of_the_migrations_in_order() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
        let mut found: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
            .collect();
        found.sort();
        let files = found.iter().map(|path| {
            (
                path.file_stem().unwrap().to_str().unwrap().to_owned(),
                std::fs::read_to_string(path).unwrap(),
            )
        });
        let known = MIGRATIONS.iter().map(|step| {
            let name = step.description.replace(' ', "_");
            (format!("{:04}_{name}", step.version), step.sql.as_str().to_owned())
        });
        assert_eq!(known.collect::<Vec<_>>(), files.collect::<Vec<_>>());
    }
}
