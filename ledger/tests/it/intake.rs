//! What becomes of records: every outcome, and that nothing changes when they come again.

use alloy::primitives::{Address, B256};
use ledger::{
    Amount, Error,
    book::SourceFile,
    workload::{Outcome, WorkResult},
};

use crate::world::{ORGANISATION, World, payout, record, tariff};

/// Base units that `micro_usd` come to at the test's rate.
fn amount(micro_usd: u64) -> Amount {
    Amount::new(u128::from(micro_usd) * 1_000_000_000_000_000 / 247)
}

async fn take(world: &World, records: &[ledger::workload::Record]) -> Vec<Outcome> {
    world.book.take_in(records, &tariff(), 0).await.unwrap()
}

async fn funded_world() -> World {
    let mut world = World::new().await;
    world.fund(1, 100_000_000).await;
    world.finalise(0).await;
    world
}

#[tokio::test]
async fn rejects_an_organisation_that_is_not_configured() {
    let world = funded_world().await;
    let mut stranger = record(1, 2, 0, 10);
    stranger.item.organisation = "nobody".into();
    let outcomes = take(&world, &[stranger, record(2, 2, 0, 10)]).await;
    assert!(matches!(&outcomes[0], Outcome::Rejected { field, .. } if field == "organisation"));
    assert_eq!(outcomes[1], Outcome::Accepted { amount: amount(10) });
}

#[tokio::test]
async fn rejects_a_payout_address_that_differs_from_the_known_one() {
    let world = funded_world().await;
    let mut hijack = record(1, 2, 0, 10);
    hijack.payout = Some(Address::repeat_byte(0xee));
    assert!(
        matches!(&take(&world, &[hijack]).await[0], Outcome::Rejected { field, .. } if field == "provider")
    );
    let mut same = record(2, 2, 0, 10);
    same.payout = Some(payout(2));
    assert!(matches!(take(&world, &[same]).await[0], Outcome::Accepted { .. }));
}

#[tokio::test]
async fn the_same_record_again_is_a_duplicate_and_another_a_conflict() {
    let world = funded_world().await;
    take(&world, &[record(1, 2, 0, 10)]).await;
    assert_eq!(take(&world, &[record(1, 2, 0, 10)]).await, [Outcome::Duplicate]);
    assert!(matches!(take(&world, &[record(1, 2, 0, 11)]).await[0], Outcome::Conflict { .. }));
    let books = world.reader.books(ORGANISATION).await.unwrap().unwrap();
    assert_eq!(books.position.reserved, amount(10));
}

#[tokio::test]
async fn a_revision_may_change_the_amount_and_nothing_else() {
    let world = funded_world().await;
    take(&world, &[record(1, 2, 0, 10)]).await;
    assert!(matches!(take(&world, &[record(1, 3, 1, 10)]).await[0], Outcome::Conflict { .. }));
    assert_eq!(
        take(&world, &[record(1, 2, 2, 4)]).await,
        [Outcome::Accepted { amount: amount(4) }]
    );
    // A lower revision that arrives late is kept without effect.
    take(&world, &[record(1, 2, 1, 9)]).await;
    let books = world.reader.books(ORGANISATION).await.unwrap().unwrap();
    assert_eq!(books.position.reserved, amount(4));
}

#[tokio::test]
async fn work_without_an_address_is_owed_and_reserved() {
    let world = funded_world().await;
    assert_eq!(
        take(&world, &[record(1, 99, 0, 10)]).await,
        [Outcome::Unaddressed { amount: amount(10) }]
    );
    let books = world.reader.books(ORGANISATION).await.unwrap().unwrap();
    assert_eq!(books.position.reserved, amount(10));
    assert_eq!(books.open[0].provider, None);
}

#[tokio::test]
async fn what_is_not_completed_is_kept_and_not_paid() {
    let world = funded_world().await;
    let mut failed = record(1, 2, 0, 10);
    failed.revision.result = WorkResult::Failed;
    assert_eq!(take(&world, &[failed]).await, [Outcome::Accepted { amount: Amount::ZERO }]);
    let books = world.reader.books(ORGANISATION).await.unwrap().unwrap();
    assert_eq!(books.open, []);
}

#[tokio::test]
async fn unfunded_work_says_what_is_missing_and_is_accepted_when_it_comes() {
    let mut world = World::new().await;
    world.fund(1, 50).await;
    world.finalise(0).await;
    let need = amount(1000);
    let unit = 1_000_000_000_000;
    let missing = need.base_units() + need.share(100).unwrap().base_units() - 50 * unit;
    assert_eq!(
        take(&world, &[record(1, 2, 0, 1000)]).await,
        [Outcome::Unfunded { missing: Amount::new(missing) }]
    );
    assert_eq!(world.book.accept_unfunded(ORGANISATION, &tariff(), 0).await.unwrap(), 0);

    world.fund(2, 10_000).await;
    assert_eq!(
        world.book.accept_unfunded(ORGANISATION, &tariff(), 0).await.unwrap(),
        0,
        "not final yet"
    );
    world.finalise(0).await;
    assert_eq!(world.book.accept_unfunded(ORGANISATION, &tariff(), 0).await.unwrap(), 1);
    let books = world.reader.books(ORGANISATION).await.unwrap().unwrap();
    assert_eq!(books.position.reserved, need);
}

#[tokio::test]
async fn unfunded_work_that_is_revised_to_nothing_is_not_open_any_more() {
    let world = World::new().await;
    let outcomes = take(&world, &[record(1, 2, 0, 10)]).await;
    assert!(matches!(outcomes[0], Outcome::Unfunded { .. }));
    let mut failed = record(1, 2, 1, 10);
    failed.revision.result = WorkResult::Failed;
    assert_eq!(take(&world, &[failed]).await, [Outcome::Accepted { amount: Amount::ZERO }]);
    assert_eq!(ledger::invariants::violations(&world.ledger).await.unwrap(), []);
}

#[tokio::test]
async fn differing_output_digests_hold_the_work() {
    let world = funded_world().await;
    let mut mirrored = record(1, 2, 0, 10);
    mirrored.revision.evidence.digest = Some(B256::repeat_byte(1));
    mirrored.revision.evidence.mirror_digest = Some(B256::repeat_byte(2));
    take(&world, &[mirrored]).await;
    let item = world.reader.books(ORGANISATION).await.unwrap().unwrap().open[0].clone();
    assert!(item.is_held);
    world.book.decide(item.item, "release", "reviewed", 1).await.unwrap();
    assert!(!world.reader.books(ORGANISATION).await.unwrap().unwrap().open[0].is_held);
}

#[tokio::test]
async fn refuses_a_file_that_overlaps_another_of_its_source() {
    let world = funded_world().await;
    let file = |first: &str, until: &str| SourceFile {
        source: "salad".into(),
        name: format!("{first}-{until}.json"),
        first_day: first.into(),
        until_day: until.into(),
        sha256: B256::ZERO,
    };
    world.book.add_source_file(&file("20261120", "20261122"), 0).await.unwrap();
    for (first, until) in
        [("20261121", "20261123"), ("20261119", "20261121"), ("20261120", "20261121")]
    {
        let error = world.book.add_source_file(&file(first, until), 0).await.unwrap_err();
        assert!(matches!(error, Error::FileOverlap { .. }), "{first}-{until}: {error}");
    }
    for (first, until) in
        [("20261120", "20261122"), ("20261122", "20261123"), ("20261119", "20261120")]
    {
        world.book.add_source_file(&file(first, until), 0).await.unwrap();
    }
    let other = SourceFile { source: "other".into(), ..file("20261121", "20261123") };
    world.book.add_source_file(&other, 0).await.unwrap();
}
