//! A power cut at every sector: what had been acknowledged is there, whatever of the write-ahead log reached the disk.

use std::{fs, path::Path};

use ledger::{
    Ledger, invariants,
    read::{Reader, Table},
};
use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

use crate::world::{World, identity, record, tariff};

/// Commits of the run.
const COMMITS: u64 = 300;
/// Commits between two moments at which the log is moved into the database.
const SEGMENT: u64 = 10;
/// What a disk writes as a whole.
const SECTOR: usize = 512;
/// Every so many prefixes the whole ledger is opened and checked; between them, SQLite alone.
const THOROUGH: usize = 256;
/// Every so many prefixes SQLite checks all pages, too.
const CHECKED: usize = 8;
const WAL_HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// How much is there: records, closings. Each commit adds one of either.
type State = (i64, i64);

/// Database and log as they were before the log was moved into the database.
struct Segment {
    database: Vec<u8>,
    log: Vec<u8>,
    before: State,
    /// Length of the log when each commit was acknowledged, and what was there from then on.
    acknowledged: Vec<(usize, State)>,
}

/// Commits records and closings one by one, and notes how long the log was when each was answered.
async fn run() -> Vec<Segment> {
    let mut world = World::new().await;
    world.fund(1, 100_000_000).await;
    world.finalise(0).await;
    let log = world.folder.file().with_extension("db-wal");
    let mut state = (0, 0);
    let mut segments = Vec::new();
    for first in (0..COMMITS).step_by(usize::try_from(SEGMENT).unwrap()) {
        checkpoint(&world).await;
        let database = fs::read(world.folder.file()).unwrap();
        let (before, mut acknowledged) = (state, Vec::new());
        for commit in first..first + SEGMENT {
            if commit % 10 == 0 {
                world.book.take_in(&[record(commit, 2, 0, 10)], &tariff(), 0).await.unwrap();
                state.0 += 1;
            } else {
                world.book.close_until(i64::try_from(commit).unwrap(), 0).await.unwrap();
                state.1 += 1;
            }
            let length = fs::metadata(&log).unwrap().len().try_into().unwrap();
            acknowledged.push((length, state));
        }
        segments.push(Segment { database, log: fs::read(&log).unwrap(), before, acknowledged });
    }
    segments
}

/// Moves the log into the database and starts it over.
async fn checkpoint(world: &World) {
    let options = SqliteConnectOptions::new().filename(world.folder.file());
    let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query("pragma wal_checkpoint(truncate)").execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
}

/// A folder in memory, if the system has one: nothing here is about how long a disk takes.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_power_cut_at_any_sector() {
    let folder = scratch();
    let file = folder.path().join("cut.db");
    let (mut prefixes, mut torn, mut thorough) = (0, 0, 0);
    for Segment { database, log, before, acknowledged } in run().await {
        let page = usize::from(u16::from_be_bytes([database[16], database[17]]));
        for length in (0..=log.len()).step_by(SECTOR) {
            for suffix in ["-wal", "-shm"] {
                // Not there the first time.
                drop(fs::remove_file(folder.path().join(format!("cut.db{suffix}"))));
            }
            fs::write(&file, &database).unwrap();
            fs::write(folder.path().join("cut.db-wal"), &log[..length]).unwrap();
            let promised = acknowledged.iter().filter(|(end, _)| *end <= length).count();
            let is_torn = length.saturating_sub(WAL_HEADER) % (page + FRAME_HEADER) != 0;
            torn += usize::from(is_torn);
            let found = if prefixes % THOROUGH == 0 || length + SECTOR > log.len() {
                thorough += 1;
                reopened(&file).await
            } else {
                counted(&file, prefixes % CHECKED == 0).await
            };
            let after = |commits: usize| match commits {
                0 => Some(before),
                _ => acknowledged.get(commits - 1).map(|(_, state)| *state),
            };
            // What is whole on disk may be there although nobody had been told yet.
            assert!(
                Some(found) == after(promised) || Some(found) == after(promised + 1),
                "after {length} bytes {found:?} is there, acknowledged was {:?}",
                after(promised)
            );
            prefixes += 1;
        }
    }
    println!("{prefixes} prefixes, {torn} of them within a frame, {thorough} opened as a ledger");
    assert!(prefixes >= 4_500, "only {prefixes} prefixes; the run writes too little");
    assert!(torn > prefixes / 2, "only {torn} cuts tore a frame");
}

/// Opens a database as SQLite does after a crash: how much is there. It must be whole.
async fn counted(file: &Path, is_checked: bool) -> State {
    let options = SqliteConnectOptions::new().filename(file).read_only(true);
    let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
    let row = sqlx::query(
        "select (select count(*) from workload) as n, (select count(*) from closing) as closings,
            (select count(*) from accepted) as accepted, (select count(*) from open) as open,
            (select max(seq) from audit) as audit, (select seq from sqlite_sequence where name = 'audit') as written",
    )
    .fetch_one(&mut conn)
    .await
    .unwrap();
    if is_checked {
        let said = sqlx::query_scalar::<_, String>("pragma quick_check").fetch_one(&mut conn);
        assert_eq!(said.await.unwrap(), "ok");
    }
    let number = |column| row.get::<i64, _>(column);
    let n = number("n");
    assert_eq!((n, n), (number("accepted"), number("open")), "half of a commit is there");
    assert_eq!(number("audit"), number("written"), "half of a commit is there");
    conn.close().await.unwrap();
    (n, number("closings"))
}

/// Opens it as the ledger: identity, migrations, every invariant, SQLite's whole integrity check.
async fn reopened(file: &Path) -> State {
    let ledger = Ledger::open(file, identity()).await.unwrap();
    assert_eq!(invariants::violations(&ledger).await.unwrap(), []);
    assert_eq!(invariants::deep_violations(&ledger).await.unwrap(), []);
    let reader = Reader::new(ledger.clone());
    let n = reader.count(Table::Workloads).await.unwrap();
    let closings = reader.closings().await.unwrap().len();
    drop(reader);
    ledger.close().await;
    (n.try_into().unwrap(), closings.try_into().unwrap())
}
