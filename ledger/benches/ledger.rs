//! How many records a second the ledger takes in, beside what the disk allows: `scripts/bench ledger`. Prints JSON lines.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement ends at its first failure"
)]

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use alloy::primitives::{Address, B256};
use contracts::eip712::DepositKey;
use ledger::{
    Identity, Ledger, Units,
    book::{BookWriter, Organisation, Tariff},
    chain::{Block, ChainWriter, Event, Fact, IndexedBlock},
    invariants,
    workload::{Evidence, Item, Kind, Outcome, Price, Rate, Record, Revision, WorkResult},
};
use serde_json::json;
use sqlx::{
    Connection, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::task::JoinSet;

const TOKEN: Address = Address::repeat_byte(0x70);
const ATTESTER: Address = Address::repeat_byte(0x71);

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let folder =
            tempfile::tempdir_in(std::env::var("QUITTANCE_BENCH_DIR").unwrap_or(".".into()))
                .unwrap();
        let limit = one_commit_per_record(folder.path(), 400).await;
        print("plain SQLite, one commit per record", 400, limit);
        for (callers, records) in [(1, 400), (64, 6_400), (256, 12_800)] {
            let (ledger, name) = ledger(&folder.path().join(format!("{callers}.db"))).await;
            let took = callers_at_once(&ledger, callers, records).await;
            print(&format!("{callers} callers, one record each {name}"), records, took);
            check(&ledger).await;
            ledger.close().await;
        }
        let (ledger, name) = ledger(&folder.path().join("file.db")).await;
        let took = file(&ledger, 50_000).await;
        print(&format!("a file, 5,000 records per commit {name}"), 50_000, took);
        check(&ledger).await;
    });
}

fn print(what: &str, records: u32, took: Duration) {
    let per_second = (u128::from(records) * 1_000_000).checked_div(took.as_micros()).unwrap_or(0);
    println!(
        "{}",
        json!({ "bench": "ledger", "name": what, "records": records, "per_second": per_second })
    );
}

/// Also what the invariants cost at that size.
async fn check(ledger: &Ledger) {
    let began = Instant::now();
    assert_eq!(invariants::violations(ledger).await.unwrap(), []);
    let took = began.elapsed().as_micros();
    println!(
        "{}",
        json!({ "bench": "ledger", "name": "all cheap invariants", "microseconds": took })
    );
}

/// The limit: the smallest durable write there is, over and over.
async fn one_commit_per_record(folder: &Path, records: u32) -> Duration {
    let options = SqliteConnectOptions::new()
        .filename(folder.join("plain.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query("create table plain (id integer primary key, body text)")
        .execute(&mut conn)
        .await
        .unwrap();
    let body = record(0).body().unwrap();
    let began = Instant::now();
    for _ in 0..records {
        sqlx::query("insert into plain (body) values (?)")
            .bind(&body)
            .execute(&mut conn)
            .await
            .unwrap();
    }
    let took = began.elapsed();
    conn.close().await.unwrap();
    took
}

async fn callers_at_once(ledger: &Ledger, callers: u32, records: u32) -> Duration {
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let book = BookWriter::new(ledger.clone());
        tasks.spawn(async move {
            for work in (caller..records).step_by(callers as usize) {
                let outcomes = book.take_in(&[record(work)], &tariff(), 0).await.unwrap();
                assert!(matches!(outcomes[0], Outcome::Unaddressed { .. }), "{outcomes:?}");
            }
        });
    }
    tasks.join_all().await;
    began.elapsed()
}

async fn file(ledger: &Ledger, records: u32) -> Duration {
    let book = BookWriter::new(ledger.clone());
    let records: Vec<_> = (0..records).map(record).collect();
    let began = Instant::now();
    for chunk in records.chunks(5_000) {
        book.take_in(chunk, &tariff(), 0).await.unwrap();
    }
    began.elapsed()
}

fn tariff() -> Tariff {
    let rate = Rate { usd_per_token: "0.247".parse().unwrap(), source: "bench".into(), at_ms: 0 };
    Tariff { fee_bps: 100, address_delay: 0, rates: BTreeMap::from([(TOKEN, rate)]) }
}

fn record(work: u32) -> Record {
    Record {
        item: Item {
            source: "bench".into(),
            external_id: format!("2026-11-18/{work:08}"),
            organisation: "acme".into(),
            machine: format!("machine-{}", work % 4_000),
            kind: Kind::Batch,
            container_group: None,
            gpu_class: Some("rtx4090".into()),
            vcpu: None,
            memory_mb: None,
            priority: None,
            country: None,
            started_ms: 0,
            stopped_ms: i64::from(work),
        },
        revision: Revision {
            revision: 0,
            result: WorkResult::Completed,
            price: Price::Usd("0.01".parse().unwrap()),
            rate: None,
            evidence: Evidence::default(),
        },
        payout: None,
    }
}

/// A ledger with one well-funded organisation, and what its file is synced with.
async fn ledger(path: &Path) -> (Ledger, &'static str) {
    let identity = Identity {
        chain_id: 31_337,
        contract: Address::repeat_byte(0xcc),
        genesis: B256::repeat_byte(9),
        start_block: 1,
    };
    let ledger = Ledger::open(path, identity).await.unwrap();
    let key = DepositKey {
        requestor: Address::repeat_byte(0xaa),
        signer: ATTESTER,
        cosigner: Address::ZERO,
        token: TOKEN,
        salt: B256::ZERO,
    };
    let organisation = Organisation { name: "acme".into(), token: TOKEN, deposits: vec![key.id()] };
    BookWriter::new(ledger.clone()).set_organisations(&[organisation], ATTESTER, 0).await.unwrap();
    let events = [
        Event::TokenRegistered { token: TOKEN, decimals: 18 },
        Event::Funded { sender: key.requestor, key, units: Units::new(1_000_000_000_000_000) },
    ];
    let facts = events.into_iter().enumerate().map(|(index, event)| Fact {
        log_index: index as u64,
        tx_hash: B256::ZERO,
        event,
    });
    let block = Block { number: 1, hash: B256::repeat_byte(1), parent: B256::ZERO, time: 1 };
    let chain = ChainWriter::new(ledger.clone());
    chain.apply(&[IndexedBlock { block, facts: facts.collect() }]).await.unwrap();
    chain.set_finalised(1).await.unwrap();
    (ledger, "(synchronous = full)")
}
