//! Each numbered invariant of the ledger, on a ledger that was damaged in one way.

use alloy::{
    consensus::{SignableTransaction, TxEip1559},
    eips::eip2718::Encodable2718,
    network::TxSignerSync,
    primitives::{Address, B256, TxKind, keccak256},
    signers::local::PrivateKeySigner,
};
use ledger::{
    Units,
    book::{Obligation, Outcome, SourceFile, TxReceipt},
    chain::Event,
    invariants,
    read::{Attempt, AttemptKind, SignedStatement},
    rules::{Fee, Limits, Purse, Verdict},
};
use sqlx::{
    Connection, Row, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteRow},
};

use crate::world::{
    FEE_BPS, OPERATOR, ORGANISATION, World, attester, deposit_key, identity, payout, record,
    secret, settle, tariff, token,
};

/// A second connection to a world's file, as somebody with a database tool has it.
pub(crate) struct Damage(SqliteConnection);

impl Damage {
    /// Takes the triggers, the unique indexes and the foreign keys away first.
    pub(crate) async fn to(world: &World) -> Self {
        world.folder.is_damaged();
        let mut damage = Self::open(world, false).await;
        let guards = damage
            .rows(
                "select 'drop ' || type || ' ' || name as sql from sqlite_schema
                 where type = 'trigger' or name in ('statement_candidate', 'settled_by_statement')",
            )
            .await;
        for guard in guards {
            damage.run(&guard.get::<String, _>("sql")).await.unwrap();
        }
        damage
    }

    pub(crate) async fn without_dropping(world: &World) -> Self {
        Self::open(world, true).await
    }

    async fn open(world: &World, foreign_keys: bool) -> Self {
        let options =
            SqliteConnectOptions::new().filename(world.folder.file()).foreign_keys(foreign_keys);
        Self(SqliteConnection::connect_with(&options).await.unwrap())
    }

    pub(crate) async fn run(&mut self, sql: &str) -> Result<u64, sqlx::Error> {
        let done = sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut self.0).await?;
        Ok(done.rows_affected())
    }

    pub(crate) async fn rows(&mut self, sql: &str) -> Vec<SqliteRow> {
        sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).fetch_all(&mut self.0).await.unwrap()
    }

    pub(crate) async fn count(&mut self, table: &str) -> i64 {
        self.rows(&format!("select count(*) as n from \"{table}\"")).await[0].get("n")
    }

    pub(crate) async fn first_column(&mut self, table: &str) -> String {
        self.rows(&format!("select name from pragma_table_info('{table}')")).await[0].get("name")
    }
}

pub(crate) fn sender() -> PrivateKeySigner {
    PrivateKeySigner::from_slice(&[3; 32]).unwrap()
}

/// A signed transaction as the sender stores it.
pub(crate) fn attempt(tx_nonce: u64, max_fee: u128, tip: u128) -> Attempt {
    attempt_by(&sender(), tx_nonce, (max_fee, tip))
}

/// The same, signed by this account.
pub(crate) fn attempt_by(
    account: &PrivateKeySigner,
    tx_nonce: u64,
    (max_fee, tip): (u128, u128),
) -> Attempt {
    let mut tx = TxEip1559 {
        chain_id: identity().chain_id,
        nonce: tx_nonce,
        gas_limit: 100_000,
        max_fee_per_gas: max_fee,
        max_priority_fee_per_gas: tip,
        to: TxKind::Call(identity().contract),
        ..Default::default()
    };
    let signature = account.sign_transaction_sync(&mut tx).unwrap();
    let raw = tx.into_signed(signature).encoded_2718();
    let (kind, hash) = (AttemptKind::Work, keccak256(&raw));
    Attempt { id: 0, kind, hash, raw, max_fee, tip, gas_limit: 100_000, at: 0 }
}

/// States what is payable from a deposit, signed.
pub(crate) async fn state(world: &World, deposit: u8) -> SignedStatement {
    let books = world.reader.books(ORGANISATION).await.unwrap().unwrap();
    let secret = secret().of_organisation(ORGANISATION);
    let id = deposit_key(deposit).id();
    let deposit = books.deposits.iter().find(|known| known.id == id).unwrap();
    let place = (id, deposit.state.epoch + 1);
    let payables: Vec<_> =
        books.open.iter().filter_map(|item| item.to_payable(&secret, place).unwrap()).collect();
    let purse = Purse {
        unit: books.token.unwrap().unit,
        spendable: deposit.state.spendable(),
        carries: deposit.carries.clone(),
        is_thawing: deposit.state.is_thawing(),
    };
    let fee = Fee { bps: FEE_BPS, operator: Some(OPERATOR) };
    let proposal = ledger::rules::propose(&payables, &purse, fee, Limits::default()).unwrap();
    assert!(!proposal.rows.is_empty(), "nothing is payable");
    let signed = world.book.record_statement(id, &deposit.state, &proposal, FEE_BPS).await.unwrap();
    world.book.sign_statement(signed.id, &attester()).await.unwrap()
}

/// A ledger with something of everything: two statements final (1 and 2), one settled above finality (3), one signed (4),
/// claims, a thaw, open and closed items, two slots, one of them with a replacement.
pub(crate) async fn sound_world() -> World {
    let mut world = World::new().await;
    world.fund(1, 100_000_000).await;
    world.fund(2, 100_000_000).await;
    world.finalise(0).await;
    let take = async |world: &World, works: std::ops::Range<u64>| {
        let records: Vec<_> = works
            .map(|work| record(work, 2 + u32::try_from(work % 3).unwrap(), 0, 1_000_000 + work))
            .collect();
        world.book.take_in(&records, &tariff(), 0).await.unwrap();
    };
    for (works, deposit) in [(1..10, 1), (10..20, 1), (20..30, 2), (30..40, 1)] {
        take(&world, works).await;
        let signed = state(&world, deposit).await;
        if signed.id < 4 {
            settle(&mut world, &signed).await;
        }
        if signed.id < 3 {
            world.finalise(0).await;
        }
    }
    take(&world, 40..45).await;
    let credit = world.reader.credits().await.unwrap()[1];
    world
        .mine(vec![
            Event::Claimed {
                provider: credit.provider,
                token: token(),
                recipient: payout(credit.provider),
                units: Units::new(credit.units.get() - 1),
                claim_nonce: 0,
            },
            Event::Thawed { deposit: deposit_key(1).id(), units: Units::new(5), ends: 9 },
        ])
        .await;
    let open = world.reader.books(ORGANISATION).await.unwrap().unwrap().open;
    let item = open.last().unwrap().item;
    world.book.decide(item, Verdict::Hold, "a look is due", (100, 0)).await.unwrap();
    world.book.close_until(100, 0).await.unwrap();
    let file = SourceFile {
        source: "salad".into(),
        name: "20261120-20261121.json".into(),
        first_day: "20261120".into(),
        until_day: "20261121".into(),
        sha256: B256::ZERO,
    };
    let payees = [("machine-2".to_owned(), payout(2))];
    world.book.name_payees((B256::ZERO, 0), &payees, (0, 0)).await.unwrap();
    let known = [record(1, 3, 0, 1_000_001)];
    world.book.take_in_file(&file, &known, &tariff(), 0).await.unwrap();
    open_slots(&world).await;
    world
}

/// Slots 1 to 4: a settlement that was mined, one that was replaced, a claim, a registration.
async fn open_slots(world: &World) {
    let sender = sender().address();
    let lease = world.book.take_lease().await.unwrap();
    let mined = Obligation::Settle(vec![3]);
    let slot =
        world.book.open_slot(lease, (sender, 6), &mined, &attempt(6, 800, 80)).await.unwrap();
    let (block_hash, block) = (B256::repeat_byte(1), 5);
    let receipt = TxReceipt { attempt: 1, block_hash, block, succeeded: true, gas_used: 1, fee: 1 };
    world.book.add_tx_receipt(&receipt).await.unwrap();
    let hash = attempt(6, 800, 80).hash;
    let outcome = Outcome { slot, attempt: Some(1), hash, block, block_hash, succeeded: true };
    world.book.add_outcome(&outcome, 0).await.unwrap();
    let settle = Obligation::Settle(vec![4]);
    let slot =
        world.book.open_slot(lease, (sender, 7), &settle, &attempt(7, 800, 80)).await.unwrap();
    world.book.add_attempt(lease, slot, &attempt(7, 900, 90)).await.unwrap();
    let claim = Obligation::Claim(token(), vec![2, 3]);
    world.book.open_slot(lease, (sender, 8), &claim, &attempt(8, 800, 80)).await.unwrap();
    let register = Obligation::Register(vec![Address::repeat_byte(0x11)]);
    world.book.open_slot(lease, (sender, 9), &register, &attempt(9, 800, 80)).await.unwrap();
}

/// One damage, and what has to be found: the number, and the row.
struct Case {
    sql: &'static [&'static str],
    invariant: &'static str,
    row: &'static str,
    /// Other invariants that cannot hold either.
    also: &'static [&'static str],
}

const fn case(
    sql: &'static [&'static str],
    invariant: &'static str,
    row: &'static str,
    also: &'static [&'static str],
) -> Case {
    Case { sql, invariant, row, also }
}

/// Every invariant at least once, in order.
const CASES: &[Case] = &[
    case(&["update thawed set block = 1000"], "L1", "thawed at block 1000 log 1", &["L34"]),
    case(
        &["update block set parent = zeroblob(32) where number = (select max(number) from block)"],
        "L2",
        "block 7",
        &[],
    ),
    case(&["update chain set finalised = 99"], "L3", "chain", &["L23"]),
    case(
        &["update registered set provider = 9 where provider = 4"],
        "L4",
        "registered, provider 9",
        &["L5"],
    ),
    case(
        &["delete from registered where provider = 4"],
        "L5",
        "row of statement 1, provider 4",
        &[],
    ),
    case(
        &["update registered set block = 7, log_index = 5 where provider = 4"],
        "L5",
        "row of statement 1, provider 4",
        &[],
    ),
    case(
        &["update \"row\" set units = zeroblob(8) where statement = 1 and provider = 2"],
        "L5",
        "row of statement 1, provider 2",
        &["L8", "L10", "L11", "L14", "L30"],
    ),
    case(
        &["update statement set epoch = 1 where id = 2"],
        "L6",
        "statement 2",
        &["L7", "L12", "L14", "L30"],
    ),
    case(&["update statement set epoch = 5 where id = 2"], "L7", "statement 2", &["L14", "L30"]),
    case(
        &["update statement set spent = x'0000000000ffffff' where id = 2"],
        "L8",
        "statement 2",
        &["L9", "L14", "L30"],
    ),
    case(
        &["update funded set units = x'0000000000000001' where block = 2"],
        "L9",
        "deposit",
        &["L7", "L8"],
    ),
    case(
        &["update claimed set units = x'7000000000000000'"],
        "L10",
        "claimed at block 7 log 0",
        &[],
    ),
    case(
        &[
            "update leaf set amount = x'00000000000000000000000000000001' where statement = 4 and position = 0",
        ],
        "L11",
        "row of statement 4, provider 1",
        &["L12", "L32"],
    ),
    case(
        &["delete from \"row\" where statement = 4 and provider = 3"],
        "L11",
        "row of statement 4, provider 3",
        &["L14", "L30"],
    ),
    case(
        &[
            "update \"row\" set carry_in = x'000000000000000000000000000000ff' where statement = 2 and provider = 3",
        ],
        "L12",
        "row of statement 2, provider 3",
        &["L11"],
    ),
    case(
        &[
            "update \"row\" set carry_in = x'000000000000000000000000000000ff' where statement = 4 and provider = 3",
        ],
        "L12",
        "row of statement 4, provider 3",
        &["L11"],
    ),
    case(
        &[
            "insert into statement select 9, deposit, epoch, spent, manifest, randomblob(32), 1, fee_bps from statement where id = 4",
            "insert into \"row\" select 9, provider, units, carry_in, carry_out from \"row\" where statement = 4",
            "insert into leaf select 9, position, item, revision, workload, provider, amount, settled from leaf where statement = 4",
        ],
        "L13",
        "statement 9",
        &["L30"],
    ),
    case(
        &[
            "delete from settled where statement = 2",
            "delete from \"row\" where statement = 2",
            "delete from leaf where statement = 2",
            "delete from signature where statement = 2",
            "delete from statement where id = 2",
        ],
        "L14",
        "statement 4",
        &["L10", "L23"],
    ),
    case(
        &[
            "update leaf set item = (select min(item) from leaf where statement = 4) where statement = 4 and item is not null",
        ],
        "L15",
        "leaf of statement 4, item ",
        &["L23"],
    ),
    case(
        &[
            "insert into organisation select 'other', token, attester from organisation",
            "update item set organisation = 'other' where id = 31",
        ],
        "L15",
        "statement 4",
        &[],
    ),
    case(
        &["update leaf set item = 30 where statement = 3 and item = 21"],
        "L16",
        "item 30",
        &["L17", "L23"],
    ),
    case(
        &["update accepted set amount = x'00000000000000000000000000000001' where item = 1"],
        "L17",
        "item 1",
        &["L23"],
    ),
    case(
        &["update leaf set revision = 7 where statement = 4 and item = 30"],
        "L18",
        "leaf of statement 4, item 30",
        &[],
    ),
    case(&["update statement set fee_bps = 99 where id = 4"], "L19", "leaf of statement 4", &[]),
    case(
        &[
            "update signature set signer = x'0000000000000000000000000000000000000009' where statement = 4",
        ],
        "L20",
        "signature of statement 4 by 0x",
        &["L31"],
    ),
    case(
        &[
            "alter table funding rename to old",
            "create table funding (organisation text, position integer, deposit blob)",
            "insert into organisation select 'other', token, attester from organisation",
            "insert into funding select * from old",
            "insert into funding select 'other', 0, deposit from old limit 1",
        ],
        "L21",
        "funding, deposit 0x",
        &[],
    ),
    case(&["delete from workload where item = 41"], "L22", "item 41", &["L34"]),
    case(
        &["delete from organisation", "delete from funding", "delete from paid_for"],
        "L22",
        "item 1",
        &[],
    ),
    case(&["delete from open where item = 41"], "L23", "open, item 41", &[]),
    case(&["insert into open values (1)"], "L23", "open, item 1", &[]),
    case(&["update payee set address = zeroblob(20) where id = 1"], "L24", "payee 1", &["L37"]),
    case(&["delete from attempt where slot = 3"], "L25", "slot 3", &[]),
    case(&["update slot set tx_nonce = 12 where id = 4"], "L26", "slot 4", &["L33"]),
    case(
        &["update attempt set max_fee = x'00000000000000000000000000000383' where id = 3"],
        "L27",
        "attempt 3",
        &["L33"],
    ),
    case(
        &["update attempt set tip = x'00000000000000000000000000000059' where id = 3"],
        "L27",
        "attempt 3",
        &["L33"],
    ),
    case(&["insert into carried_statement values (3, 4)"], "L28", "statement 4", &[]),
    case(
        &["insert into carried_claim values (4, (select token from carried_claim limit 1), 2)"],
        "L28",
        "claim of provider 2 in 0x",
        &[],
    ),
    case(&["update audit set detail = 'nothing' where seq = 1"], "L29", "audit 1", &[]),
    case(
        &["update statement set digest = randomblob(32) where id = 1"],
        "L30",
        "statement 1",
        &["L31"],
    ),
    case(
        &["update signature set signature = randomblob(65) where statement = 1"],
        "L31",
        "signature of statement 1 by 0x",
        &[],
    ),
    case(
        &["update leaf set workload = randomblob(32) where statement = 1 and item = 1"],
        "L32",
        "statement 1",
        &[],
    ),
    case(&["update attempt set raw = x'02' where id = 1"], "L33", "attempt 1", &[]),
    case(&["update attempt set gas_limit = 1 where id = 1"], "L33", "attempt 1", &[]),
    case(&["update slot set sender = zeroblob(20) where id = 4"], "L33", "attempt 5", &[]),
    case(
        &["update leaf set item = 999 where statement = 4 and item = 30"],
        "L34",
        "leaf",
        &["L18", "L23"],
    ),
    case(
        &[
            "pragma writable_schema = on",
            "delete from sqlite_schema where name = 'payee_by_machine'",
            "pragma schema_version = 999",
        ],
        "L35",
        "the file",
        &[],
    ),
    case(&["update payee set effective_ms = 1 where id = 2"], "L37", "payee 2", &[]),
    case(&["update decision set verdict = 'dispute' where id = 1"], "L37", "decision 1", &[]),
    case(&["update closing set until_ms = until_ms + 1 where id = 1"], "L37", "closing 1", &[]),
];

async fn found_in(world: &World) -> Vec<invariants::Violation> {
    let mut found = invariants::violations(&world.ledger).await.unwrap();
    found.extend(invariants::deep_violations(&world.ledger).await.unwrap());
    found
}

#[tokio::test]
async fn a_damage_is_found_under_its_number_and_named() {
    let mut wrong = Vec::new();
    for case in CASES {
        let world = sound_world().await;
        assert_eq!(found_in(&world).await, [], "before any damage");
        let mut damage = Damage::to(&world).await;
        for sql in case.sql {
            let done = damage.run(sql).await;
            assert!(done.is_ok(), "{sql}: {done:?}");
        }
        let found = found_in(&world).await;
        let is_named = |found: &invariants::Violation| {
            found.invariant == case.invariant && found.row.contains(case.row)
        };
        let is_expected = |found: &invariants::Violation| {
            found.invariant == case.invariant || case.also.contains(&found.invariant.as_str())
        };
        if !found.iter().any(is_named) || !found.iter().all(is_expected) {
            wrong.push(format!("{} {:?}: {found:#?}", case.invariant, case.sql));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What would break it: asking for an eighth more in both fields of what no pool has taken, so that nothing has to be outbid.
#[tokio::test]
async fn an_attempt_that_raises_its_tip_alone_is_sound_and_one_that_raises_nothing_is_not() {
    for (tip, is_sound) in [(81, true), (80, false)] {
        let world = sound_world().await;
        let fees = format!("max_fee = x'{:032x}', tip = x'{tip:032x}'", 800);
        let sql = format!("update attempt set {fees} where id = 3");
        Damage::to(&world).await.run(&sql).await.unwrap();
        let found = invariants::violations(&world.ledger).await.unwrap();
        assert_eq!(found.is_empty(), is_sound, "{found:?}");
    }
}

#[tokio::test]
async fn every_invariant_has_a_damage_and_a_paragraph() {
    let text = std::fs::read_to_string("../docs/protocol.md").unwrap();
    for number in (1..=35).chain([37]) {
        let number = format!("L{number}");
        assert!(CASES.iter().any(|case| case.invariant == number), "{number} is not damaged");
        assert!(text.contains(&format!("**{number}**")), "{number} is not in docs/protocol.md");
    }
}
