//! Decisions about work: which are refused, and which the ledger takes by itself before a thaw ends.

use alloy::primitives::B256;
use ledger::{
    Units,
    book::Sighting,
    chain::Event,
    read::SignedStatement,
    rules::Verdict,
    workload::{Outcome, Record, WorkResult},
};

use crate::{
    traps::{books, funded, propose, sign, state, take},
    world::{FEE_BPS, ORGANISATION, World, deposit_key, record, settle},
};

/// A record that comes to one token: 1,000,000 units, and 10,000 of fee.
fn token_of_work(external_id: u64) -> Record {
    record(external_id, 2, 0, 247_000)
}

/// Row id of the work with this external id.
async fn item(world: &World, external_id: &str) -> i64 {
    let open = books(world).await.open;
    open.iter().find(|item| item.external_id == external_id).unwrap().item
}

async fn verdicts(world: &World) -> Vec<(String, Option<Verdict>)> {
    let open = books(world).await.open;
    open.iter().map(|item| (item.external_id.clone(), item.verdict)).collect()
}

async fn decide(world: &World, item: i64, verdict: Verdict) -> Result<(), String> {
    let decided = world.book.decide(item, verdict, "a reason", (FEE_BPS, 0)).await;
    decided.map_err(|error| error.to_string())
}

#[tokio::test]
async fn refuses_to_decide_about_work_that_is_not_known() {
    let world = funded(3_000_000, 0).await;
    let error = decide(&world, 77, Verdict::Hold).await.unwrap_err();
    assert!(error.contains("there is no such work"), "{error}");
}

#[tokio::test]
async fn refuses_to_keep_back_work_that_a_statement_can_pay_and_to_decide_about_what_is_paid() {
    let mut world = funded(3_000_000, 0).await;
    take(&world, &[token_of_work(1)]).await;
    let work = item(&world, "1").await;
    let signed = state(&world, 1, None).await;
    for verdict in [Verdict::Hold, Verdict::Dispute, Verdict::Release] {
        let error = decide(&world, work, verdict).await.unwrap_err();
        assert!(error.contains("a statement that can settle names it"), "{error}");
    }
    decide(&world, work, Verdict::Pay).await.unwrap();

    settle(&mut world, &signed).await;
    let error = decide(&world, work, Verdict::Release).await.unwrap_err();
    assert!(error.contains("a statement that can settle names it"), "a reorg drops it: {error}");
    world.finalise(0).await;
    for verdict in [Verdict::Hold, Verdict::Pay] {
        let error = decide(&world, work, verdict).await.unwrap_err();
        assert!(error.contains("nothing is owed for it"), "{error}");
    }
}

/// Work 1, which was paid one token and then revised to half of it, and the signed statement that takes back the other half.
async fn taken_back() -> (World, i64, SignedStatement) {
    let mut world = funded(9_000_000, 0).await;
    take(&world, &[token_of_work(1)]).await;
    let work = item(&world, "1").await;
    let signed = state(&world, 1, None).await;
    settle(&mut world, &signed).await;
    world.finalise(0).await;
    take(&world, &[record(1, 2, 1, 123_500), token_of_work(2)]).await;
    let stated = propose(&world, 1, None).await;
    assert!(stated.1.leaves.iter().any(|leaf| leaf.amount == -500_000_000_000_000_000));
    let signed = sign(&world, 1, stated).await;
    (world, work, signed)
}

#[tokio::test]
async fn work_of_which_a_statement_only_takes_back_can_be_held() {
    let (world, work, _) = taken_back().await;
    decide(&world, work, Verdict::Hold).await.unwrap();
}

/// What would break it: letting go what is due, when more of it is once what takes back has settled.
#[tokio::test]
async fn refuses_a_release_while_a_statement_takes_back_of_the_work() {
    let (mut world, work, signed) = taken_back().await;
    take(&world, &[record(1, 2, 2, 370_500)]).await;
    let due = async |world: &World| books(world).await.open[0].due().unwrap();
    assert_eq!(due(&world).await, 500_000_000_000_000_000);
    decide(&world, work, Verdict::Hold).await.unwrap();
    let error = decide(&world, work, Verdict::Release).await.unwrap_err();
    assert!(error.contains("a statement that can settle takes back of it"), "{error}");
    settle(&mut world, &signed).await;
    let error = decide(&world, work, Verdict::Release).await.unwrap_err();
    assert!(error.contains("a statement that can settle names it"), "a reorg drops it: {error}");
    world.finalise(0).await;
    assert_eq!(due(&world).await, 1_000_000_000_000_000_000);
    decide(&world, work, Verdict::Release).await.unwrap();
}

/// What would break it: taking a hold for a reason to forget what was paid too much, or letting a debt go with what is unpaid.
#[tokio::test]
async fn what_was_paid_too_much_nets_whatever_is_decided() {
    let mut world = funded(9_000_000, 0).await;
    take(&world, &[token_of_work(1)]).await;
    let work = item(&world, "1").await;
    let signed = state(&world, 1, None).await;
    settle(&mut world, &signed).await;
    world.finalise(0).await;
    let revised = |number, amount, mirror| {
        let mut record = record(1, 2, number, amount);
        record.revision.evidence.digest = Some(B256::repeat_byte(1));
        record.revision.evidence.mirror_digest = Some(B256::repeat_byte(mirror));
        record
    };
    // Held for its digests while more was due; what is due of it since is negative.
    take(&world, &[revised(1, 370_500, 2), revised(2, 123_500, 2), token_of_work(2)]).await;
    let half = -500_000_000_000_000_000;
    let owed_back = async || {
        let (_, proposal) = propose(&world, 1, None).await;
        proposal.leaves.iter().map(|leaf| leaf.amount).find(|amount| *amount < 0)
    };
    assert_eq!(owed_back().await, Some(half));

    let error = decide(&world, work, Verdict::Release).await.unwrap_err();
    assert!(error.contains("what was paid too much nets"), "{error}");
    // Let go when more was due than was paid, and revised below that since.
    take(&world, &[revised(3, 494_000, 2)]).await;
    decide(&world, work, Verdict::Release).await.unwrap();
    assert_eq!(owed_back().await, None);
    take(&world, &[revised(4, 123_500, 1)]).await;
    assert_eq!(owed_back().await, Some(half));
}

#[tokio::test]
async fn refuses_to_pay_released_work_whose_money_went_to_other_work() {
    let mut world = funded(1_010_000, 0).await;
    take(&world, &[token_of_work(1)]).await;
    let released = item(&world, "1").await;
    decide(&world, released, Verdict::Release).await.unwrap();
    assert!(matches!(take(&world, &[token_of_work(2)]).await[..], [Outcome::Accepted { .. }]));
    let error = decide(&world, released, Verdict::Pay).await.unwrap_err();
    assert!(error.contains("1010000000000000000 base units are missing"), "{error}");
    // Money for one of them and its fee, to the unit.
    world.fund(1, 1_009_999).await;
    world.finalise(0).await;
    decide(&world, released, Verdict::Pay).await.unwrap_err();
    world.fund(1, 1).await;
    world.finalise(0).await;
    decide(&world, released, Verdict::Pay).await.unwrap();
}

#[tokio::test]
async fn work_that_waits_for_money_or_came_to_nothing_can_be_held_for_when_that_changes() {
    let world = funded(0, 0).await;
    let mut failed = token_of_work(1);
    failed.revision.result = WorkResult::Failed;
    take(&world, &[failed, token_of_work(2)]).await;
    // The first item of a ledger has row id 1; nothing is open of it.
    decide(&world, 1, Verdict::Hold).await.unwrap();
    let unfunded = item(&world, "2").await;
    decide(&world, unfunded, Verdict::Hold).await.unwrap();
    assert_eq!(verdicts(&world).await, [("2".to_owned(), Some(Verdict::Hold))]);
}

/// Two held pieces of work, the second with equal output digests, of a deposit of 3,000,000 units, of which so many can be
/// withdrawn from second 100 on. The chain's time is 3.
async fn held_under_a_thaw(thawing: u64) -> World {
    let mut world = funded(3_000_000, 0).await;
    let mut equal = token_of_work(2);
    equal.revision.evidence.digest = Some(B256::repeat_byte(1));
    equal.revision.evidence.mirror_digest = Some(B256::repeat_byte(1));
    take(&world, &[token_of_work(1), equal]).await;
    for external_id in ["1", "2"] {
        decide(&world, item(&world, external_id).await, Verdict::Hold).await.unwrap();
    }
    let deposit = deposit_key(1).id();
    world.mine(vec![Event::Thawed { deposit, units: Units::new(thawing), ends: 100 }]).await;
    assert_eq!(world.reader.progress().await.unwrap().time, 3);
    world
}

async fn decide_before_thaw_ends(world: &World, margin: u64) -> u64 {
    world.book.decide_before_thaw_ends(ORGANISATION, (margin, FEE_BPS), 0).await.unwrap()
}

#[tokio::test]
async fn held_work_is_decided_when_the_end_of_a_thaw_nears_that_takes_its_money() {
    let world = held_under_a_thaw(980_001).await;
    let both = |first, second| vec![("1".to_owned(), Some(first)), ("2".to_owned(), Some(second))];
    // What reserves no more is decided whatever is missing.
    decide(&world, item(&world, "1").await, Verdict::Hold).await.unwrap();
    assert_eq!(decide_before_thaw_ends(&world, 96).await, 0);
    assert_eq!(verdicts(&world).await, both(Verdict::Hold, Verdict::Hold));
    assert_eq!(decide_before_thaw_ends(&world, 97).await, 2);
    let told = ledger::audit::entries(&world.ledger).await.unwrap();
    let told: Vec<_> = told.iter().rev().take(2).map(|entry| entry.actor.as_str()).collect();
    assert_eq!(told, ["thaw rule", "thaw rule"]);
    // What was let go is not open any more.
    assert_eq!(verdicts(&world).await, [("2".to_owned(), Some(Verdict::Pay))]);
    assert_eq!(decide_before_thaw_ends(&world, 97).await, 0);
}

/// What would break it: deciding by books that are known to lack what was paid.
#[tokio::test]
async fn nothing_is_decided_before_a_thaw_ends_while_it_is_not_known_what_was_paid() {
    let world = held_under_a_thaw(980_001).await;
    let (deposit, digest) = (deposit_key(1).id(), B256::repeat_byte(7));
    let (epoch, seen) = (1, "a file".to_owned());
    let sighting = Sighting { deposit, epoch, digest, seen, organisation: None };
    assert_eq!(world.book.notice(&[sighting], 0).await.unwrap(), 1);
    assert_eq!(decide_before_thaw_ends(&world, 97).await, 0);
    assert_eq!(world.book.cut_off(deposit, 0, "it paid nothing", 0).await.unwrap(), 1);
    assert_eq!(decide_before_thaw_ends(&world, 97).await, 2);
}

#[tokio::test]
async fn held_work_stays_held_when_what_a_thaw_leaves_covers_it() {
    let world = held_under_a_thaw(980_000).await;
    assert_eq!(decide_before_thaw_ends(&world, 97).await, 0);
    let held = Some(Verdict::Hold);
    assert_eq!(verdicts(&world).await, [("1".to_owned(), held), ("2".to_owned(), held)]);
}
