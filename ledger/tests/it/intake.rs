//! What becomes of records: every outcome, and that nothing changes when they come again.

use alloy::primitives::{Address, B256};
use contracts::eip712::DepositKey;
use ledger::{
    Amount, Error, Units,
    book::{BookWriter, Organisation, SourceFile},
    chain::Event,
    rules::Verdict,
    verify,
    workload::{Outcome, Price, Record, WorkResult},
};
use tokio::task::JoinSet;

use crate::{
    traps::{books, funded, later_tariff, state, take},
    world::{
        FEE_BPS, ORGANISATION, World, day_file, deposit_key, payout, record, secret, settle,
        tariff, work_of,
    },
};

/// Base units that `micro_usd` come to at the test's rate.
fn amount(micro_usd: u64) -> Amount {
    Amount::new(u128::from(micro_usd) * 1_000_000_000_000_000 / 247)
}

#[tokio::test]
async fn rejects_an_organisation_that_is_not_configured() {
    let world = funded(100_000_000, 0).await;
    let mut stranger = record(1, 2, 0, 10);
    stranger.item.organisation = "nobody".into();
    let outcomes = take(&world, &[stranger, record(2, 2, 0, 10)]).await;
    assert!(matches!(&outcomes[0], Outcome::Rejected { field, .. } if field == "organisation"));
    assert_eq!(outcomes[1], Outcome::Accepted { amount: amount(10) });
}

#[tokio::test]
async fn rejects_a_payout_address_that_differs_from_the_known_one() {
    let world = funded(100_000_000, 0).await;
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
    let world = funded(100_000_000, 0).await;
    take(&world, &[record(1, 2, 0, 10)]).await;
    assert_eq!(take(&world, &[record(1, 2, 0, 10)]).await, [Outcome::Duplicate]);
    assert!(matches!(take(&world, &[record(1, 2, 0, 11)]).await[0], Outcome::Conflict { .. }));
    let books = world.reader.books(ORGANISATION).await.unwrap().unwrap();
    assert_eq!(books.position.reserved, amount(10));
}

#[tokio::test]
async fn a_revision_may_change_the_amount_and_nothing_else() {
    let world = funded(100_000_000, 0).await;
    take(&world, &[record(1, 2, 0, 10)]).await;
    assert!(matches!(take(&world, &[record(1, 3, 1, 10)]).await[0], Outcome::Conflict { .. }));
    assert_eq!(
        take(&world, &[record(1, 2, 2, 4)]).await,
        [Outcome::Accepted { amount: amount(4) }]
    );
    // A lower revision that arrives late is kept without effect.
    let late = take(&world, &[record(1, 2, 1, 9)]).await;
    assert_eq!(late, [Outcome::Accepted { amount: Amount::ZERO }]);
    let books = world.reader.books(ORGANISATION).await.unwrap().unwrap();
    assert_eq!(books.position.reserved, amount(4));
}

#[tokio::test]
async fn work_without_an_address_is_owed_and_reserved() {
    let world = funded(100_000_000, 0).await;
    assert_eq!(
        take(&world, &[record(1, 99, 0, 10)]).await,
        [Outcome::Unaddressed { amount: amount(10) }]
    );
    let books = world.reader.books(ORGANISATION).await.unwrap().unwrap();
    assert_eq!(books.position.reserved, amount(10));
    assert_eq!(books.open[0].provider, None);
    let mut failed = record(2, 99, 0, 10);
    failed.revision.result = WorkResult::Failed;
    assert_eq!(take(&world, &[failed]).await, [Outcome::Accepted { amount: Amount::ZERO }]);
}

#[tokio::test]
async fn what_is_not_completed_is_kept_and_not_paid() {
    let world = funded(100_000_000, 0).await;
    let mut failed = record(1, 2, 0, 10);
    failed.revision.result = WorkResult::Failed;
    assert_eq!(take(&world, &[failed]).await, [Outcome::Accepted { amount: Amount::ZERO }]);
    let books = world.reader.books(ORGANISATION).await.unwrap().unwrap();
    assert_eq!(books.open, []);
}

#[tokio::test]
async fn unfunded_work_says_what_is_missing_and_is_accepted_when_it_comes() {
    let mut world = funded(50, 0).await;
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
async fn a_revision_without_a_rate_is_converted_at_the_rate_of_the_one_before_it() {
    let world = funded(100_000_000, 0).await;
    take(&world, &[record(1, 2, 0, 1_000)]).await;
    let (first, other, mut none) = (tariff(), later_tariff(), tariff());
    none.rates.clear();
    let later = async |tariff, record: Record| {
        world.book.take_in(&[record], tariff, 1).await.unwrap().remove(0)
    };
    let mut proved = record(1, 2, 1, 1_000);
    proved.revision.evidence.digest = Some(B256::repeat_byte(1));
    let same = Outcome::Accepted { amount: amount(1_000) };
    assert_eq!(later(&other, proved).await, same, "evidence costs nothing");
    let more = Outcome::Accepted { amount: amount(2_000) };
    assert_eq!(later(&other, record(1, 2, 2, 2_000)).await, more);
    assert_eq!(later(&none, record(1, 2, 3, 1_000)).await, same, "no rate is needed any more");

    // A rate of its own still counts, from that revision on.
    let mut own = record(1, 2, 4, 1_000);
    own.revision.rate = other.rates.values().next().cloned();
    let halved = Outcome::Accepted { amount: Amount::new(2_000_000_000_000_000) };
    assert_eq!(later(&none, own).await, halved);
    assert_eq!(later(&first, record(1, 2, 5, 1_000)).await, halved);

    // Base units convert nothing, whatever led to them.
    let mut in_units = record(1, 2, 6, 1_000);
    in_units.revision.price = Price::Token(amount(7));
    in_units.revision.rate = first.rates.values().next().cloned();
    assert_eq!(later(&none, in_units).await, Outcome::Accepted { amount: amount(7) });
    assert_eq!(later(&none, record(1, 2, 7, 1_000)).await, halved);
}

/// The most that a record may come to: what a row can hold beside a remainder, in units of 10¹² base units.
const MOST: u128 = ((1 << 48) - 2) * 1_000_000_000_000;

/// A record whose source names its amount in base units.
fn priced(external_id: u64, base_units: u128) -> Record {
    let mut record = record(external_id, 2, 0, 0);
    record.revision.price = Price::Token(Amount::new(base_units));
    record
}

#[tokio::test]
async fn rejects_a_price_that_no_row_can_hold_and_takes_the_highest_that_one_can() {
    let world = funded(1_010_000_000_000_000_000, 0).await;
    let outcomes = take(&world, &[priced(1, MOST + 1), priced(2, MOST)]).await;
    assert!(matches!(&outcomes[0], Outcome::Rejected { field, .. } if field == "price"));
    assert_eq!(outcomes[1], Outcome::Accepted { amount: Amount::new(MOST) });
}

#[tokio::test]
async fn work_kept_before_its_token_was_known_is_accepted_only_at_a_price_that_a_row_can_hold() {
    let mut world = World::new().await;
    let token = Address::repeat_byte(0x71);
    let key = DepositKey { token, ..deposit_key(3) };
    let late = Organisation { name: "late".into(), token, deposits: vec![key.id()] };
    world.book.set_organisations(&[late], key.signer, 0).await.unwrap();
    let records = [priced(1, MOST), priced(2, MOST + 1)].map(|mut record| {
        record.item.organisation = "late".into();
        record.revision.rate = tariff().rates.into_values().next();
        record
    });
    for outcome in take(&world, &records).await {
        assert_eq!(outcome, Outcome::Unfunded { missing: Amount::ZERO });
    }
    let units = Units::new(3_000_000_000_000_000_000);
    let funded = Event::Funded { sender: key.requestor, key, units };
    world.mine(vec![Event::TokenRegistered { token, decimals: 18 }, funded]).await;
    world.finalise(0).await;
    assert_eq!(world.book.accept_unfunded("late", &tariff(), 0).await.unwrap(), 1);
    let books = world.reader.books("late").await.unwrap().unwrap();
    assert_eq!(books.position.reserved, Amount::new(MOST));
}

/// What would break it: pricing by decimals that one block, or one endpoint, says before it is final.
#[tokio::test]
async fn work_is_priced_by_a_registration_that_nothing_can_undo() {
    let mut world = World::new().await;
    let token = Address::repeat_byte(0x71);
    let key = DepositKey { token, ..deposit_key(3) };
    let late = Organisation { name: "late".into(), token, deposits: vec![key.id()] };
    world.book.set_organisations(&[late], key.signer, 0).await.unwrap();
    let mut cheap = record(1, 2, 0, 1_000);
    cheap.item.organisation = "late".into();
    cheap.revision.rate = tariff().rates.into_values().next();
    let waits = [Outcome::Unfunded { missing: Amount::ZERO }];

    // It comes to nothing in whole tokens, for which no money is needed.
    world.mine(vec![Event::TokenRegistered { token, decimals: 0 }]).await;
    assert_eq!(take(&world, &[cheap.clone()]).await, waits);
    world.reorg(1).await;
    let funded = Event::Funded { sender: key.requestor, key, units: Units::new(1_000_000) };
    world.mine(vec![Event::TokenRegistered { token, decimals: 18 }, funded]).await;
    world.finalise(0).await;
    assert_eq!(world.book.accept_unfunded("late", &tariff(), 0).await.unwrap(), 1);
    let books = world.reader.books("late").await.unwrap().unwrap();
    assert_eq!(books.open[0].accepted, Some((0, amount(1_000))));
    assert_eq!(verify::book(&world.ledger, &secret()).await.unwrap(), []);
}

#[tokio::test]
async fn a_revision_that_reserves_no_more_is_taken_whatever_is_missing() {
    let mut world = funded(10_000, 0).await;
    take(&world, &[record(1, 2, 0, 1_000)]).await;
    let key = deposit_key(1);
    world.mine(vec![Event::Thawed { deposit: key.id(), units: Units::new(10_000), ends: 9 }]).await;
    assert_eq!(
        take(&world, &[record(1, 2, 1, 1_000)]).await,
        [Outcome::Accepted { amount: amount(1_000) }]
    );
    assert_eq!(
        take(&world, &[record(1, 2, 2, 999)]).await,
        [Outcome::Accepted { amount: amount(999) }]
    );
    assert!(matches!(take(&world, &[record(1, 2, 3, 1_000)]).await[0], Outcome::Unfunded { .. }));
}

#[tokio::test]
async fn a_record_that_names_the_contract_as_its_payout_address_is_rejected() {
    let world = funded(100_000_000, 0).await;
    let mut unpayable = record(1, 99, 0, 10);
    unpayable.payout = Some(crate::world::identity().contract);
    assert!(
        matches!(&take(&world, &[unpayable]).await[0], Outcome::Rejected { field, .. } if field == "provider")
    );
}

async fn take_at(world: &World, record: Record, now: i64) -> Outcome {
    world.book.take_in(&[record], &tariff(), now).await.unwrap().remove(0)
}

/// A record whose output is another one on the decentralised network.
fn differing(external_id: u64, revision: u32) -> Record {
    let mut mirrored = record(external_id, 2, revision, 10);
    mirrored.revision.evidence.digest = Some(B256::repeat_byte(1));
    mirrored.revision.evidence.mirror_digest = Some(B256::repeat_byte(2));
    mirrored
}

#[tokio::test]
async fn differing_output_digests_of_the_newest_revision_hold_the_work() {
    let world = funded(100_000_000, 0).await;
    take(&world, &[record(1, 2, 0, 10), differing(1, 1)]).await;
    take(&world, &[record(2, 2, 2, 10), differing(2, 1)]).await;
    let open = world.reader.books(ORGANISATION).await.unwrap().unwrap().open;
    assert_eq!(open.iter().map(|item| item.is_held()).collect::<Vec<_>>(), [true, false]);
}

#[tokio::test]
async fn differing_output_digests_hold_the_work() {
    let world = funded(100_000_000, 0).await;
    take(&world, &[differing(1, 0)]).await;
    let item = world.reader.books(ORGANISATION).await.unwrap().unwrap().open[0].clone();
    assert!(item.is_held());
    let place = (B256::repeat_byte(3), 1);
    assert_eq!(item.payable(place).unwrap(), None);
    world.book.decide(item.item, Verdict::Pay, "reviewed", (FEE_BPS, 1)).await.unwrap();
    let item = world.reader.books(ORGANISATION).await.unwrap().unwrap().open[0].clone();
    assert!(item.payable(place).unwrap().is_some());
}

/// A world in which the first work was let go, and the second took its money.
async fn let_go_and_promised_again() -> (World, i64) {
    let deposit = amount(10).base_units() * 12 / 10 / 1_000_000_000_000;
    let world = funded(u64::try_from(deposit).unwrap(), 0).await;
    take(&world, &[differing(1, 0)]).await;
    let item = books(&world).await.open[0].item;
    world.book.decide(item, Verdict::Release, "reviewed", (FEE_BPS, 1)).await.unwrap();
    let second = take(&world, &[record(2, 2, 0, 10)]).await;
    assert_eq!(second, [Outcome::Accepted { amount: amount(10) }]);
    (world, item)
}

/// What would break it: an answer that promises what nobody will ever see again.
#[tokio::test]
async fn a_revision_of_work_that_was_let_go_is_not_called_accepted() {
    let world = funded(100_000_000, 0).await;
    take(&world, &[differing(1, 0)]).await;
    let item = books(&world).await.open[0].item;
    world.book.decide(item, Verdict::Release, "reviewed", (FEE_BPS, 1)).await.unwrap();
    let again = take(&world, &[record(1, 2, 1, 10)]).await;
    assert_eq!(again, [Outcome::Released { amount: amount(10) }]);
    assert_eq!(books(&world).await.position.reserved, Amount::ZERO);
    world.book.decide(item, Verdict::Pay, "done anew", (FEE_BPS, 2)).await.unwrap();
    assert_eq!(books(&world).await.position.reserved, amount(10));
}

/// What would break it: an answer by what has settled, of which a statement that can settle takes back.
#[tokio::test]
async fn a_revision_of_work_that_was_let_go_is_not_called_accepted_for_what_is_taken_back() {
    let mut world = funded(100_000_000, 0).await;
    take(&world, &[record(1, 2, 0, 1_000_000)]).await;
    let item = books(&world).await.open[0].item;
    let paid = state(&world, 1, None).await;
    settle(&mut world, &paid).await;
    world.finalise(0).await;
    take(&world, &[record(1, 2, 1, 1_500_000)]).await;
    world.book.decide(item, Verdict::Release, "reviewed", (FEE_BPS, 1)).await.unwrap();
    take(&world, &[record(1, 2, 2, 400_000), record(2, 2, 0, 2_000_000)]).await;
    let netted = state(&world, 1, None).await;

    let amounts = [400_000, 1_000_000].map(amount);
    let proved = |revision: u32, micro_usd| {
        let mut proved = record(1, 2, revision, micro_usd);
        proved.revision.evidence.digest = Some(B256::repeat_byte(1));
        proved
    };
    let again = take(&world, &[proved(3, 400_000), record(1, 2, 4, 1_000_000)]).await;
    let released = Outcome::Released { amount: amounts[1] };
    assert_eq!(again, [Outcome::Accepted { amount: amounts[0] }, released]);
    settle(&mut world, &netted).await;
    world.finalise(0).await;
    assert_eq!(books(&world).await.open, [], "it is owed no more than it got");
}

async fn verdicts(world: &World) -> Vec<String> {
    let decisions = world.reader.decisions().await.unwrap();
    decisions.into_iter().map(|decision| decision.verdict).collect()
}

#[tokio::test]
async fn a_revision_of_work_that_was_let_go_is_unfunded_once_its_money_is_promised() {
    let (mut world, item) = let_go_and_promised_again().await;
    let Outcome::Unfunded { missing } = take_at(&world, differing(1, 1), 2).await else {
        panic!("it is accepted on money that is promised");
    };
    assert!(missing > Amount::ZERO);
    assert_eq!(books(&world).await.position.reserved, amount(10));
    assert!(books(&world).await.available(FEE_BPS).unwrap() >= 0);
    assert_eq!(verdicts(&world).await, ["hold", "release"]);
    assert_eq!(world.book.accept_unfunded(ORGANISATION, &tariff(), 3).await.unwrap(), 0);

    world.fund(2, 1_000).await;
    world.finalise(0).await;
    assert_eq!(world.book.accept_unfunded(ORGANISATION, &tariff(), 4).await.unwrap(), 1);
    assert_eq!(books(&world).await.position.reserved.base_units(), 2 * amount(10).base_units());
    let held = books(&world).await.open[0].clone();
    assert!(held.is_held() && held.item == item, "it goes to review again");
}

#[tokio::test]
async fn a_revision_of_work_that_was_let_go_is_held_again_where_money_is_left() {
    let world = funded(100_000_000, 0).await;
    take(&world, &[differing(1, 0)]).await;
    let item = books(&world).await.open[0].item;
    world.book.decide(item, Verdict::Release, "reviewed", (FEE_BPS, 1)).await.unwrap();
    let outcomes = take(&world, &[differing(1, 1), record(2, 2, 0, 10)]).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Accepted { amount: amount(10) }));
    assert_eq!(books(&world).await.position.reserved.base_units(), 2 * amount(10).base_units());
    assert!(books(&world).await.open[0].is_held());
}

#[tokio::test]
async fn work_that_was_let_go_while_its_revision_waited_for_money_stays_let_go() {
    let mut world = funded(60, 0).await;
    take(&world, &[record(1, 2, 0, 10)]).await;
    let mut dearer = differing(1, 1);
    dearer.revision.price = record(1, 2, 1, 1_000).revision.price;
    assert!(matches!(take_at(&world, dearer, 1).await, Outcome::Unfunded { .. }));
    let item = books(&world).await.open[0].item;
    world.book.decide(item, Verdict::Release, "reviewed", (FEE_BPS, 2)).await.unwrap();
    world.fund(1, 1_000_000).await;
    world.finalise(0).await;
    world.book.accept_unfunded(ORGANISATION, &tariff(), 3).await.unwrap();
    assert_eq!(books(&world).await.position.reserved, Amount::ZERO);
    assert_eq!(verdicts(&world).await, ["hold", "release"]);
}

#[tokio::test]
async fn refuses_a_file_that_overlaps_another_of_its_source() {
    let world = funded(100_000_000, 0).await;
    world.hand_in(&day_file("20261120", "20261122"), 1, 0).await.unwrap();
    for (first, until) in [
        ("20261121", "20261123"),
        ("20261119", "20261121"),
        ("20261120", "20261121"),
        ("20261120", "20261123"),
        ("20260101", "20271231"),
    ] {
        let error = world.hand_in(&day_file(first, until), 2, 0).await.unwrap_err();
        assert!(matches!(error, Error::FileOverlap { .. }), "{first}-{until}: {error}");
    }
    for (first, until) in
        [("20261120", "20261122"), ("20261122", "20261123"), ("20261119", "20261120")]
    {
        world.hand_in(&day_file(first, until), 1, 0).await.unwrap();
    }
    let (source, sha256) = ("other".into(), B256::repeat_byte(1));
    let other = SourceFile { source, sha256, ..day_file("20261121", "20261123") };
    world.hand_in(&other, 1, 0).await.unwrap();
}

/// What would break it: taking what begins with digits for days, or passing over days that come behind it.
#[tokio::test]
async fn ids_that_are_no_days_take_none_and_hide_none() {
    let world = funded(100_000_000, 0).await;
    world.hand_in(&day_file("20251101", "20251202"), 1, 0).await.unwrap();
    world.hand_in(&day_file("20261120", "20261121"), 1, 0).await.unwrap();
    let ids = [
        "2",
        "20000000-99999999/1",
        "20251001-20251202/1",
        "20251101",
        "20251101-0001",
        "20251101-20251202",
        "20251101-20251202093000/1",
        "2025110a-20251202/1",
        "20251201-20251299x",
        "20251231\u{10ffff}",
        "20261119-7f3a",
        "20261120-20261120/1",
        "20261120-20261121093000/1",
        "20261120-3/1",
        "20261120x",
        "2026112",
        "2f000000-0000-0000",
    ];
    let mut records = Vec::new();
    for id in ids {
        let mut record = record(1, 2, 0, 10);
        record.item.external_id = id.into();
        records.push(record);
    }
    take(&world, &records).await;
    for (first, until) in [("20251001", "20251101"), ("20251202", "20251203")] {
        world.hand_in(&day_file(first, until), 1, 0).await.unwrap();
    }
    for (first, until) in [("20251130", "20251202"), ("20261120", "20261122")] {
        let error = world.hand_in(&day_file(first, until), 1, 0).await.unwrap_err();
        assert!(matches!(error, Error::FileOverlap { .. }), "{first}-{until}: {error}");
    }
    world.hand_in(&day_file("20261121", "20261122"), 1, 0).await.unwrap();
}

/// Goal: a file that was refused for its days is not taken in the place of the right one when the database is lost.
/// Method: a day that is paid, its manifest brought back into an empty ledger, and files over that day before it.
/// What would break it: knowing which days were taken by a table that is in no file, or from any id that begins with digits.
#[tokio::test]
async fn days_stay_taken_after_a_loss_by_the_work_that_manifests_bring_back() {
    let mut world = funded(100_000_000, 0).await;
    let right = day_file("20261125", "20261126");
    world.hand_in(&right, 1, 0).await.unwrap();
    for id in ["20261101-20261201/bonus/machine-2", "20000000-99999999/1"] {
        let mut alone = record(1, 2, 0, 1_000_000);
        alone.item.external_id = id.into();
        take(&world, &[alone]).await;
    }
    let paid = state(&world, 1, None).await;
    settle(&mut world, &paid).await;
    world.finalise(0).await;
    let manifest = world.reader.export(paid.id).await.unwrap();

    let lost = world.after_loss(None).await;
    assert!(lost.book.import(&manifest, &secret(), 0).await.unwrap());
    for (first, until) in [("20261124", "20261126"), ("20260101", "20270101")] {
        let error = lost.hand_in(&day_file(first, until), 1, 0).await.unwrap_err().to_string();
        assert!(error.contains("which overlap 20261125-20261126.json"), "{error}");
    }
    lost.hand_in(&right, 1, 0).await.unwrap();
    assert_eq!(books(&lost).await.open, [], "it was paid");
    lost.hand_in(&day_file("20261124", "20261125"), 1, 0).await.unwrap();
}

/// What would break it: two files that are looked at before either is remembered; a refusal that takes others with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_files_that_overlap_and_come_at_once_one_is_taken_in() {
    let world = funded(100_000_000, 0).await;
    let mut tasks = JoinSet::new();
    for day in 10..30 {
        let file = day_file(&format!("202611{day}"), "20261201");
        let book = BookWriter::new(world.ledger.clone());
        tasks.spawn(async move {
            let works = [work_of(&file, day)];
            book.take_in_file(&file, &works, &tariff(), 0).await
        });
    }
    let answers = tasks.join_all().await;
    let refused = answers.iter().flat_map(|answer| answer.as_ref().err());
    assert_eq!(refused.clone().count(), 19);
    for error in refused {
        assert!(matches!(error, Error::FileOverlap { .. }), "{error}");
    }
    assert_eq!(books(&world).await.open.len(), 1);
}
