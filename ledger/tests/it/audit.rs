//! The audit log, and what can never be changed.

use alloy::primitives::{Address, B256};
use ledger::{Units, audit, book::SourceFile, chain::Event, invariants};
use sqlx::Row;

use crate::{
    invariants::{Damage, sound_world},
    world::{World, payout},
};

/// Tables of which no row is ever updated or deleted.
const APPEND_ONLY: [&str; 20] = [
    "audit",
    "source_file",
    "item",
    "workload",
    "accepted",
    "decision",
    "payee",
    "payee_file",
    "closing",
    "deposit",
    "statement",
    "row",
    "leaf",
    "signature",
    "slot",
    "carried_statement",
    "carried_claim",
    "carried_registration",
    "attempt",
    "tx_receipt",
];
/// Tables whose rows hang on blocks.
const FACTS: [&str; 10] = [
    "token_registered",
    "funded",
    "thawed",
    "withdrawn",
    "settled",
    "skipped",
    "registered",
    "payout_set",
    "claimed",
    "claim_failed",
];

#[tokio::test]
async fn refuses_to_update_or_delete_what_is_append_only() {
    let world = sound_world().await;
    let mut damage = Damage::without_dropping(&world).await;
    for table in APPEND_ONLY {
        assert!(damage.count(table).await > 0, "{table} is empty");
        let column = damage.first_column(table).await;
        for sql in [
            format!("update \"{table}\" set \"{column}\" = \"{column}\""),
            format!("delete from \"{table}\""),
        ] {
            let error = damage.run(&sql).await.unwrap_err().to_string();
            assert!(error.contains(&format!("{table} is append-only")), "{sql}: {error}");
        }
    }
}

#[tokio::test]
async fn refuses_to_change_a_fact_or_to_delete_one_without_its_block() {
    let mut world = sound_world().await;
    world.mine(vec![Event::Thawed { deposit: B256::ZERO, units: Units::ZERO, ends: 0 }]).await;
    let mut damage = Damage::without_dropping(&world).await;
    for table in FACTS {
        if damage.count(table).await == 0 {
            continue;
        }
        let error =
            damage.run(&format!("update {table} set log_index = log_index + 1")).await.unwrap_err();
        assert!(error.to_string().contains("a fact is not changed"), "{table}: {error}");
        let error = damage.run(&format!("delete from {table}")).await.unwrap_err();
        assert!(error.to_string().contains("deleted with its block"), "{table}: {error}");
    }
    let final_block = "delete from block where number = (select min(block) from registered)";
    let error = damage.run(final_block).await.unwrap_err();
    assert!(error.to_string().contains("only above finality"), "{error}");
    // Above finality, a block takes its facts along.
    let before = damage.count("thawed").await;
    assert_eq!(world.reorg(1).await, 1);
    assert_eq!(damage.count("thawed").await, before - 1);
}

#[tokio::test]
async fn no_table_of_promises_content_or_intents_lacks_its_triggers() {
    let world = World::new().await;
    let mut damage = Damage::without_dropping(&world).await;
    let unguarded = damage
        .rows(
            "select name from sqlite_schema t where type = 'table' and name not like 'sqlite_%' and (
                select count(*) from sqlite_schema g where g.type = 'trigger' and g.tbl_name = t.name) < 2 order by name",
        )
        .await;
    let unguarded: Vec<String> = unguarded.iter().map(|row| row.get("name")).collect();
    // Identity and checkpoint, blocks and their journals, comparisons, the lease, the configuration's tables, the cache, and the
    // migrations' own.
    assert_eq!(
        unguarded,
        [
            "_sqlx_migrations",
            "block",
            "chain",
            "comparison",
            "differing",
            "funding",
            "journal",
            "lease",
            "open",
            "organisation"
        ]
    );
}

#[tokio::test]
async fn an_altered_removed_or_inserted_entry_is_named() {
    let cases = [
        ("update audit set detail = 'nothing' where seq = 3", "audit 3"),
        ("update audit set at = at + 1 where seq = 2", "audit 2"),
        ("update audit set hash = randomblob(32) where seq = 2", "audit 2"),
        ("delete from audit where seq = 2", "audit 3"),
        ("delete from audit where seq = 1", "audit 2"),
        ("delete from audit where seq = (select max(seq) from audit)", "audit LAST"),
        ("delete from audit", "audit LAST"),
        (
            "insert into audit select seq + 1, at, actor, action, subject, detail, previous, randomblob(32)
             from audit order by seq desc limit 1",
            "audit NEXT",
        ),
    ];
    for (sql, name) in cases {
        let world = World::new().await;
        let entries = audit::entries(&world.ledger).await.unwrap();
        let last = entries.last().unwrap().seq;
        let name = name.replace("LAST", &last.to_string()).replace("NEXT", &(last + 1).to_string());
        Damage::to(&world).await.run(sql).await.unwrap();
        let found = invariants::violations(&world.ledger).await.unwrap();
        assert!(
            found.iter().any(|found| found.invariant == "L29" && found.row == name),
            "{sql}: {found:?}"
        );
    }
}

#[tokio::test]
async fn tells_what_was_decided_in_order_and_only_changes() {
    let world = World::new().await;
    let before = audit::entries(&world.ledger).await.unwrap();
    world.book.set_payee("machine-2", payout(2), (0, 5)).await.unwrap();
    world.book.set_payee("machine-2", Address::repeat_byte(3), (0, 6)).await.unwrap();
    world.book.close_until(100, 7).await.unwrap();
    world.book.close_until(90, 8).await.unwrap();
    // The same address as early as before is not new.
    world.book.set_payee("machine-2", Address::repeat_byte(3), (0, 6)).await.unwrap();
    let file = SourceFile {
        source: "salad".into(),
        name: "a day.json".into(),
        first_day: "20261120".into(),
        until_day: "20261121".into(),
        sha256: B256::ZERO,
    };
    world.hand_in(&file, 1, 9).await.unwrap();
    world.hand_in(&file, 1, 10).await.unwrap();
    let told: Vec<_> = audit::entries(&world.ledger).await.unwrap();
    let told: Vec<_> = told[before.len()..]
        .iter()
        .map(|entry| {
            (entry.at, entry.actor.as_str(), entry.action.as_str(), entry.subject.as_str())
        })
        .collect();
    assert_eq!(
        told,
        [
            (6, "operator", "payee", "machine-2"),
            (7, "operator", "closing", "100"),
            (9, "intake", "source file", "salad")
        ]
    );
    assert_eq!(before[0].action, "organisation");
    assert_eq!(before[0].previous, B256::ZERO);
}
