//! The worked traps: days on which money could be lost or paid twice, played through on the ledger.

use std::collections::BTreeSet;

use alloy::primitives::{Address, B256};
use ledger::{
    Amount, Error, Unit, Units,
    book::{Copied, Import, Order, SourceFile},
    chain::Event,
    invariants,
    read::{Books, SignedStatement},
    rules::{self, DepositState, Fee, Limits, Next, Proposal, Prospect, Purse, Verdict},
    workload::{Outcome, Record},
};

use crate::{
    recovery::signed_once,
    world::{
        FEE_BPS, OPERATOR, ORGANISATION, World, attester, day_file, deposit_key, payout, record,
        secret, settle, tariff, token, work_of,
    },
};

const UNIT: u128 = 1_000_000_000_000;

fn id(number: u8) -> B256 {
    deposit_key(number).id()
}

pub(crate) async fn books(world: &World) -> Books {
    world.reader.books(ORGANISATION).await.unwrap().unwrap()
}

pub(crate) async fn take(world: &World, records: &[Record]) -> Vec<Outcome> {
    world.book.take_in(records, &tariff(), 0).await.unwrap()
}

/// What a deposit can state now, of the work with these external ids, or of all.
pub(crate) async fn propose(
    world: &World,
    number: u8,
    only: Option<&[&str]>,
) -> (DepositState, Proposal) {
    let books = books(world).await;
    let state = world.reader.deposit_state(id(number)).await.unwrap();
    let place = (id(number), state.epoch + 1);
    let secret = secret().of_organisation(ORGANISATION);
    let payables: Vec<_> = books
        .open
        .iter()
        .filter(|item| only.is_none_or(|only| only.contains(&item.external_id.as_str())))
        .filter_map(|item| item.to_payable(&secret, place).unwrap())
        .collect();
    let purse = Purse {
        unit: Unit::of_decimals(18).unwrap(),
        spendable: state.spendable(),
        carries: world.reader.carries(id(number)).await.unwrap(),
        is_thawing: state.is_thawing(),
    };
    let candidates = world.reader.next_candidates(id(number)).await.unwrap();
    let taken: BTreeSet<_> = candidates.iter().map(|candidate| candidate.spent).collect();
    let fee = Fee { bps: FEE_BPS, operator: Some(OPERATOR) };
    let policy = (fee, Limits::default());
    (state, rules::propose_apart(&payables, &purse, policy, (state.spent, &taken)).unwrap())
}

pub(crate) async fn sign(
    world: &World,
    number: u8,
    (state, proposal): (DepositState, Proposal),
) -> SignedStatement {
    let recorded =
        world.book.record_statement(id(number), &state, &proposal, FEE_BPS).await.unwrap();
    world.book.sign_statement(recorded.id, &attester()).await.unwrap()
}

/// Records and signs what can be stated of this work.
pub(crate) async fn state(world: &World, number: u8, only: Option<&[&str]>) -> SignedStatement {
    sign(world, number, propose(world, number, only).await).await
}

/// Σ that settled statements credited to a provider, units.
async fn credited(world: &World, provider: u32) -> u64 {
    let credits = world.reader.credits().await.unwrap();
    credits.iter().filter(|credit| credit.provider == provider).map(|c| c.units.get()).sum()
}

pub(crate) async fn funded(first: u64, second: u64) -> World {
    let mut world = World::new().await;
    for (number, units) in [(1, first), (2, second)] {
        if units > 0 {
            world.fund(number, units).await;
        }
    }
    world.finalise(0).await;
    world
}

/// Units that a record of `micro_usd` comes to, the fee left out.
fn units(micro_usd: u64) -> u64 {
    u64::try_from(u128::from(micro_usd) * 1_000_000_000_000_000 / 247 / UNIT).unwrap()
}

async fn fits(world: &World, number: u8, statement: &SignedStatement) -> bool {
    let candidates = world.reader.next_candidates(id(number)).await.unwrap();
    candidates.iter().any(|candidate| candidate.id == statement.id && candidate.fits)
}

#[tokio::test]
async fn two_candidates_of_equal_total_and_a_reorg_between_them() {
    let mut world = funded(100_000_000, 0).await;
    take(&world, &[record(1, 2, 0, 1_000_000), record(2, 3, 0, 1_000_000)]).await;
    let (deposit, rival) = propose(&world, 1, Some(&["2"])).await;
    let a = state(&world, 1, Some(&["1"])).await;

    // Another statement that brings the deposit to the same sum: a successor could follow either.
    let error = world.book.record_statement(id(1), &deposit, &rival, FEE_BPS).await.unwrap_err();
    assert!(matches!(&error, Error::Unsignable(why) if why.contains("successor")), "{error}");

    // A larger one has another sum. The smaller settles first, and its successor follows it and nothing else.
    let b = state(&world, 1, None).await;
    assert_ne!(a.statement.spent, b.statement.spent);
    settle(&mut world, &a).await;
    take(&world, &[record(3, 4, 0, 1_000_000)]).await;
    let c = state(&world, 1, Some(&["3"])).await;
    world.reorg(1).await;
    settle(&mut world, &b).await;
    assert!(!fits(&world, 1, &c).await, "the successor of a cannot settle after b");

    // Its work is stated again in the same epoch, which c's successor may still take on another fork.
    let d = state(&world, 1, None).await;
    assert_eq!((c.statement.epoch, d.statement.epoch), (2, 2));
    settle(&mut world, &d).await;
    world.finalise(0).await;
    for provider in [2, 3, 4] {
        assert_eq!(credited(&world, provider).await, units(1_000_000));
    }
    assert_eq!(books(&world).await.open, []);
}

#[tokio::test]
async fn overlapping_daily_files() {
    let world = funded(100_000_000, 0).await;
    let file = |first: &str, until: &str, hash: u8| SourceFile {
        sha256: B256::repeat_byte(hash),
        ..day_file(first, until)
    };
    world.hand_in(&file("20261118", "20261119", 1), 1, 0).await.unwrap();
    let error = world.hand_in(&file("20261118", "20261120", 2), 1, 0).await.unwrap_err();
    assert!(matches!(error, Error::FileOverlap { .. }), "{error}");
    // The same days again are a revision of the file: each record says whether it is new.
    world.hand_in(&file("20261118", "20261119", 3), 1, 0).await.unwrap();
    let mut longer = work_of(&file("20261118", "20261119", 3), 1);
    longer.item.stopped_ms += 1;
    assert!(matches!(take(&world, &[longer]).await[0], Outcome::Conflict { .. }));
    assert_eq!(books(&world).await.open.len(), 1);
}

#[tokio::test]
async fn a_revision_after_settlement_whose_statement_a_reorg_then_drops() {
    let mut world = funded(100_000_000, 100_000_000).await;
    take(&world, &[record(1, 2, 0, 1_000_000)]).await;
    let first = state(&world, 1, None).await;
    settle(&mut world, &first).await;
    take(&world, &[record(1, 2, 1, 1_500_000)]).await;
    for number in [1, 2] {
        let (_, early) = propose(&world, number, None).await;
        assert_eq!(early.rows, [], "the difference waits until what was paid is final");
    }
    world.reorg(1).await;
    let item = books(&world).await.open[0].clone();
    assert_eq!(item.due().unwrap(), i128::try_from(item.reserved().unwrap().base_units()).unwrap());

    // The larger candidate takes the smaller one's place; the other deposit may not name the work at all.
    assert_eq!(propose(&world, 2, None).await.1.rows, []);
    let second = state(&world, 1, None).await;
    settle(&mut world, &second).await;
    world.finalise(0).await;
    assert_eq!(credited(&world, 2).await, units(1_500_000));
    assert_eq!(books(&world).await.open, []);
}

#[tokio::test]
async fn a_deposit_emptied_under_a_live_candidate_and_work_moved_on() {
    let mut world = funded(5_000_000, 5_000_000).await;
    take(&world, &[record(1, 2, 0, 1_000_000)]).await;
    let stuck = state(&world, 1, None).await;
    let key = deposit_key(1);
    let all = Units::new(5_000_000);
    world.mine(vec![Event::Thawed { deposit: id(1), units: all, ends: 1 }]).await;
    world
        .mine(vec![Event::Withdrawn { deposit: id(1), recipient: key.requestor, units: all }])
        .await;
    assert!(!fits(&world, 1, &stuck).await);
    assert_eq!(propose(&world, 1, None).await.1.rows, []);
    assert_eq!(propose(&world, 2, None).await.1.rows, [], "it is live in the first deposit");

    let deposit = world.reader.deposit_state(id(1)).await.unwrap();
    let candidates: Vec<_> = world
        .reader
        .next_candidates(id(1))
        .await
        .unwrap()
        .iter()
        .map(|c| rules::Candidate {
            spent: c.spent,
            total: c.total,
            is_signed: c.is_signed,
            is_sent: false,
            has_waited: true,
            pays_again: c.pays_again,
        })
        .collect();
    let prospect = Prospect { state: deposit, fresh: Units::ZERO, can_move: true };
    assert_eq!(rules::next_candidate(&candidates, &prospect), Next::Retire);
    let empty = sign(&world, 1, (deposit, Proposal::default())).await;
    let ready = world.reader.ready_deposits().await.unwrap();
    assert_eq!(ready[0].candidates, [empty.id]);
    let at_stake = world.reader.at_stake(ready[0].deposit).await.unwrap();
    assert!(at_stake > Units::ZERO, "what it frees bounds its fee");

    settle(&mut world, &empty).await;
    assert_eq!(propose(&world, 2, None).await.1.rows, [], "a reorg could still drop the empty one");
    world.finalise(0).await;
    let moved = state(&world, 2, None).await;
    settle(&mut world, &moved).await;
    world.finalise(0).await;
    assert_eq!(credited(&world, 2).await, units(1_000_000));
    assert_eq!(books(&world).await.open, []);
}

#[tokio::test]
async fn the_fee_bound_against_a_thaw() {
    let mut world = funded(50_000_000, 0).await;
    take(&world, &[record(1, 2, 0, 1_000_000), record(2, 3, 0, 1_000_000)]).await;
    let small = state(&world, 1, Some(&["1"])).await;

    // While a signed statement waits under the fee policy, a little more work makes no other one.
    let deposit = world.reader.deposit_state(id(1)).await.unwrap();
    let known = |total: u64| rules::Candidate {
        spent: deposit.spent.add(Units::new(total)).unwrap(),
        total: Units::new(total),
        is_signed: true,
        is_sent: false,
        has_waited: true,
        pays_again: false,
    };
    let prospect = |state, fresh| Prospect { state, fresh: Units::new(fresh), can_move: false };
    assert_eq!(rules::next_candidate(&[known(100)], &prospect(deposit, 124)), Next::Nothing);
    let young = rules::Candidate { has_waited: false, ..known(100) };
    assert_eq!(rules::next_candidate(&[young], &prospect(deposit, 900)), Next::Nothing);
    assert_eq!(rules::next_candidate(&[known(100)], &prospect(deposit, 125)), Next::State);

    // Once the requestor thaws, everything is stated at once, and the sender knows by when it has to settle.
    let event = Event::Thawed { deposit: id(1), units: Units::new(1), ends: 700_000 };
    world.mine(vec![event]).await;
    let deposit = world.reader.deposit_state(id(1)).await.unwrap();
    assert_eq!(rules::next_candidate(&[known(100)], &prospect(deposit, 101)), Next::State);
    let large = state(&world, 1, None).await;
    let ready = world.reader.ready_deposits().await.unwrap();
    assert_eq!(ready[0].candidates, [large.id, small.id], "best first");
    let state = world.reader.deposit_state(ready[0].deposit).await.unwrap();
    assert_eq!((state.is_thawing(), state.thaw_ends), (true, 700_000));
}

#[tokio::test]
async fn one_percent_fee_against_an_exactly_funded_deposit() {
    // 100 units of work and one of fee; the work alone is covered by one unit less, and would stay unpaid for ever.
    let micro_usd = 25; // 101.2 units: its fee is 1.01 units.
    let work = Amount::new(u128::from(micro_usd) * 1_000_000_000_000_000_u128 / 247);
    let need = work.base_units() + work.share(FEE_BPS).unwrap().base_units();
    let exact = u64::try_from(need.div_ceil(UNIT)).unwrap();
    let short = funded(exact - 1, 0).await;
    assert!(matches!(
        take(&short, &[record(1, 2, 0, micro_usd)]).await[0],
        Outcome::Unfunded { .. }
    ));

    let mut world = funded(exact, 0).await;
    assert!(matches!(
        take(&world, &[record(1, 2, 0, micro_usd)]).await[0],
        Outcome::Accepted { .. }
    ));
    assert!(books(&world).await.available(FEE_BPS).unwrap() >= 0);
    let signed = state(&world, 1, None).await;
    settle(&mut world, &signed).await;
    world.finalise(0).await;
    assert_eq!(credited(&world, 2).await, units(micro_usd));
    assert_eq!(credited(&world, OPERATOR).await, 1);
    let after = books(&world).await;
    assert_eq!(after.open, []);
    assert!(after.available(FEE_BPS).unwrap() >= 0);
}

#[tokio::test]
async fn a_deposit_reorged_away_before_finality() {
    let mut world = funded(0, 0).await;
    world.fund(1, 50_000_000).await;
    assert!(matches!(
        take(&world, &[record(1, 2, 0, 1_000_000)]).await[0],
        Outcome::Unfunded { .. }
    ));
    assert_eq!(world.book.accept_unfunded(ORGANISATION, &tariff(), 0).await.unwrap(), 0);
    world.reorg(1).await;
    let lost = world.reader.deposit_state(id(1)).await.unwrap();
    assert_eq!((lost.balance, lost.spendable()), (Units::ZERO, Units::ZERO));
    assert_eq!(books(&world).await.available(FEE_BPS).unwrap(), 0);

    world.fund(1, 50_000_000).await;
    world.finalise(0).await;
    assert_eq!(world.book.accept_unfunded(ORGANISATION, &tariff(), 0).await.unwrap(), 1);
    // Money on top that is not final yet is not spent either.
    world.fund(1, 1).await;
    let deposit = world.reader.deposit_state(id(1)).await.unwrap();
    assert_eq!(deposit.spendable(), Units::new(50_000_000));
    let signed = state(&world, 1, None).await;
    settle(&mut world, &signed).await;
    assert_eq!(credited(&world, 2).await, units(1_000_000));
}

/// Another price of the token than when the work was accepted first.
pub(crate) fn later_tariff() -> ledger::book::Tariff {
    let mut tariff = tariff();
    for rate in tariff.rates.values_mut() {
        rate.usd_per_token = "0.5".parse().unwrap();
    }
    tariff
}

async fn assert_unsignable(world: &World, number: u8, (state, proposal): (DepositState, Proposal)) {
    let refused = world.book.record_statement(id(number), &state, &proposal, FEE_BPS).await;
    assert!(matches!(refused, Err(Error::Unsignable(_))), "{refused:?}");
}

#[tokio::test]
async fn the_database_lost_after_a_statement_settled_and_the_same_day_ingested_again() {
    let mut world = funded(100_000_000, 100_000_000).await;
    let day: Vec<_> = (1..=3).map(|n| record(n, 2, 0, 1_000_000)).collect();
    take(&world, &day).await;
    let paid = state(&world, 1, None).await;
    settle(&mut world, &paid).await;
    world.finalise(0).await;
    take(&world, &[record(4, 3, 0, 1_000_000)]).await;
    let unsettled = state(&world, 1, None).await;
    let mut manifests = Vec::new();
    for statement in [&paid, &unsettled] {
        manifests.push(world.reader.export(statement.id).await.unwrap());
    }

    // Without its database the ledger is frozen by the chain alone, and promises nothing.
    let mut lost = world.after_loss(None).await;
    let (deposit, _) = propose(&lost, 2, None).await;
    for again in take(&lost, &day).await {
        assert_eq!(again, Outcome::Unfunded { missing: Amount::ZERO });
    }
    assert_eq!(books(&lost).await.freezes.len(), 1);
    assert_unsignable(&lost, 2, (deposit, Proposal::default())).await;

    // One manifest brings back one epoch; the folder still knows another.
    let seen = ledger::book::Sighting {
        deposit: id(1),
        epoch: 2,
        digest: unsettled.digest,
        seen: "a file".into(),
        organisation: Some(ORGANISATION.into()),
    };
    assert_eq!(lost.book.notice(std::slice::from_ref(&seen), 0).await.unwrap(), 2);
    assert_eq!(lost.book.notice(&[seen], 0).await.unwrap(), 0, "it is noticed once");
    let secret = secret();
    let mut forged = manifests[0].clone();
    let work = forged.leaves.iter_mut().find_map(|(_, work)| work.as_mut()).unwrap();
    work.external_id = "99".into();
    let refused = lost.book.import(&forged, &secret, 0).await;
    assert!(matches!(refused, Err(Error::Unimportable(_))), "{refused:?}");
    assert!(lost.book.import(&manifests[0], &secret, 0).await.unwrap());
    assert!(!lost.book.import(&manifests[0], &secret, 0).await.unwrap(), "it is known now");
    assert_eq!(books(&lost).await.freezes[0].epoch, 2);
    lost.mine(Vec::new()).await;
    assert!(lost.book.import(&manifests[1], &secret, 0).await.unwrap());
    assert_eq!(books(&lost).await.freezes.len(), 1, "what came since may be unknown as well");
    lost.finalise(0).await;
    assert_eq!(books(&lost).await.freezes, []);

    // The same day again, though the token has another price by now: nothing is due. A revision is paid the difference.
    lost.book.accept_unfunded(ORGANISATION, &later_tariff(), 0).await.unwrap();
    assert_eq!(propose(&lost, 2, None).await.1.rows, []);
    let work = [record(4, 3, 0, 1_000_000), record(5, 4, 0, 1_000_000), record(1, 2, 1, 1_500_000)];
    take(&lost, &work).await;
    let second = state(&lost, 2, None).await;
    settle(&mut lost, &second).await;
    let next = lost.reader.next_candidates(id(1)).await.unwrap()[0].id;
    let candidate = lost.book.sign_statement(next, &attester()).await.unwrap();
    settle(&mut lost, &candidate).await;
    lost.finalise(0).await;
    assert_eq!(credited(&lost, 2).await, units(3_000_000) + units(500_000));
    assert_eq!(credited(&lost, 3).await, units(1_000_000));
    assert_eq!(credited(&lost, 4).await, units(1_000_000));
    assert_eq!(books(&lost).await.open, []);
}

#[tokio::test]
async fn work_of_a_deposit_that_is_configured_no_more_is_not_paid_again_after_a_loss() {
    let (world, signed, manifest) = signed_once().await;

    // Nothing but its manifest tells of the statement yet, which whoever holds it may still settle.
    let mut lost = world.after_loss_with(None, &[2]).await;
    let seen = ledger::book::Sighting {
        deposit: id(1),
        epoch: 1,
        digest: signed.digest,
        seen: "a file".into(),
        organisation: Some(ORGANISATION.into()),
    };
    lost.book.notice(&[seen], 0).await.unwrap();
    let again = take(&lost, &[record(1, 2, 0, 1_000_000)]).await;
    assert_eq!(again, [Outcome::Unfunded { missing: Amount::ZERO }], "it may be paid already");
    settle(&mut lost, &signed).await;
    assert!(lost.book.import(&manifest, &secret(), 0).await.unwrap());
    assert_eq!(books(&lost).await.freezes.len(), 1, "what came since may be unknown as well");
    lost.finalise(0).await;
    lost.book.accept_unfunded(ORGANISATION, &tariff(), 0).await.unwrap();
    assert_eq!(books(&lost).await.open, []);
    assert_eq!(credited(&lost, 2).await, units(1_000_000));
}

#[tokio::test]
async fn work_corrected_downwards_after_payment_is_sound_after_a_loss() {
    let mut world = funded(100_000_000, 100_000_000).await;
    take(&world, &[record(1, 2, 0, 1_000_000)]).await;
    let paid = state(&world, 1, None).await;
    settle(&mut world, &paid).await;
    world.finalise(0).await;
    let manifest = world.reader.export(paid.id).await.unwrap();

    // The source sends what it has, of which the last revision alone is accepted, and that comes to less than was paid.
    let lost = world.after_loss(None).await;
    take(&lost, &[record(1, 2, 0, 1_000_000), record(1, 2, 1, 400_000)]).await;
    assert!(lost.book.import(&manifest, &secret(), 0).await.unwrap());
    lost.finalise(0).await;
    assert_eq!(lost.book.accept_unfunded(ORGANISATION, &tariff(), 0).await.unwrap(), 1);
    assert_eq!(ledger::invariants::violations(&lost.ledger).await.unwrap(), []);
    let open = books(&lost).await.open;
    assert_eq!(open[0].due().unwrap(), -2_429_149_797_570_850_203, "it nets against later work");
}

#[tokio::test]
async fn a_correction_that_was_paid_comes_to_all_that_was_said_after_a_loss() {
    let mut world = funded(100_000_000, 0).await;
    let mut manifests = Vec::new();
    let day = [record(1, 2, 0, 1_000_000), record(1, 2, 1, 1_500_000)];
    for revision in &day {
        take(&world, std::slice::from_ref(revision)).await;
        let paid = state(&world, 1, None).await;
        settle(&mut world, &paid).await;
        world.finalise(0).await;
        manifests.push(world.reader.export(paid.id).await.unwrap());
    }

    let lost = world.after_loss(None).await;
    take(&lost, &day).await;
    for manifest in &manifests {
        assert!(lost.book.import(manifest, &secret(), 0).await.unwrap());
    }
    lost.finalise(0).await;
    assert_eq!(lost.book.accept_unfunded(ORGANISATION, &later_tariff(), 0).await.unwrap(), 1);
    assert_eq!(books(&lost).await.open, [], "the difference came on top of what was paid before");
}

#[tokio::test]
async fn new_evidence_of_paid_work_is_not_paid_at_another_rate_after_a_loss() {
    let mut world = funded(100_000_000, 0).await;
    take(&world, &[record(1, 2, 0, 1_000_000)]).await;
    let paid = state(&world, 1, None).await;
    settle(&mut world, &paid).await;
    world.finalise(0).await;
    let manifest = world.reader.export(paid.id).await.unwrap();

    let proved = |revision: u8| {
        let mut proved = record(1, 2, revision.into(), 1_000_000);
        proved.revision.evidence.digest = Some(B256::repeat_byte(revision));
        proved
    };
    let lost = world.after_loss(None).await;
    take(&lost, &[record(1, 2, 0, 1_000_000), proved(1)]).await;
    assert!(lost.book.import(&manifest, &secret(), 0).await.unwrap());
    lost.finalise(0).await;
    assert_eq!(lost.book.accept_unfunded(ORGANISATION, &later_tariff(), 0).await.unwrap(), 1);
    assert_eq!(books(&lost).await.open, [], "the same work at the same price is paid");
    lost.book.take_in(&[proved(2)], &later_tariff(), 0).await.unwrap();
    assert_eq!(books(&lost).await.open, []);
}

/// What would break it: what was accepted at today's rate standing against what the manifest says that was paid.
#[tokio::test]
async fn a_manifest_that_turns_up_after_its_work_was_accepted_at_another_rate_says_what_it_came_to()
{
    let mut world = funded(100_000_000, 0).await;
    take(&world, &[record(1, 2, 0, 1_000_000)]).await;
    let paid = state(&world, 1, None).await;
    settle(&mut world, &paid).await;
    world.finalise(0).await;
    let manifest = world.reader.export(paid.id).await.unwrap();

    // Whether or not the cut-off takes the work for paid already.
    for (usd_per_token, until) in [("0.5", 1), ("0.5", 2), ("0.1", 1), ("0.1", 2)] {
        let lost = world.after_loss(None).await;
        assert_eq!(lost.book.cut_off(id(1), until, "it is lost", 0).await.unwrap(), 1);
        let mut tariff = later_tariff();
        tariff.rates.get_mut(&token()).unwrap().usd_per_token = usd_per_token.parse().unwrap();
        lost.book.take_in(&[record(1, 2, 0, 1_000_000)], &tariff, 0).await.unwrap();
        assert!(lost.book.import(&manifest, &secret(), 0).await.unwrap());
        lost.finalise(0).await;
        assert_eq!(invariants::violations(&lost.ledger).await.unwrap(), []);
        assert_eq!(books(&lost).await.open, [], "it was paid, whatever it came to here");
        let mut proved = record(1, 2, 1, 1_000_000);
        proved.revision.evidence.digest = Some(B256::repeat_byte(1));
        lost.book.take_in(&[proved], &tariff, 0).await.unwrap();
        assert_eq!(books(&lost).await.open, [], "the same work at the same price is paid");
    }
}

/// What would break it: an acceptance at another rate standing for what two statements paid.
#[tokio::test]
async fn a_manifest_that_turns_up_after_its_work_was_paid_again_at_another_rate_leaves_a_debt() {
    let mut world = funded(100_000_000, 0).await;
    take(&world, &[record(1, 2, 0, 1_000_000)]).await;
    let paid = state(&world, 1, None).await;
    settle(&mut world, &paid).await;
    world.finalise(0).await;
    let manifest = world.reader.export(paid.id).await.unwrap();

    for usd_per_token in ["0.247", "0.5", "0.1"] {
        // The cut-off is set too early, so that the work is taken for unpaid; its manifest comes when it has settled again, or
        // before.
        for is_settled_before in [true, false] {
            let mut lost = world.after_loss(None).await;
            assert_eq!(lost.book.cut_off(id(1), 1, "it is lost", 0).await.unwrap(), 1);
            let mut tariff = later_tariff();
            tariff.rates.get_mut(&token()).unwrap().usd_per_token = usd_per_token.parse().unwrap();
            lost.book.take_in(&[record(1, 2, 0, 1_000_000)], &tariff, 0).await.unwrap();
            let again = state(&lost, 1, None).await;
            if is_settled_before {
                settle(&mut lost, &again).await;
            }
            assert!(lost.book.import(&manifest, &secret(), 0).await.unwrap());
            if !is_settled_before {
                settle(&mut lost, &again).await;
            }
            lost.finalise(0).await;
            assert_eq!(invariants::violations(&lost.ledger).await.unwrap(), [], "{usd_per_token}");
            let leaves = lost.reader.named_leaves(again.id).await.unwrap();
            let excess = leaves.iter().find(|named| named.name.is_some()).unwrap().leaf.amount;
            assert_eq!(books(&lost).await.open[0].due().unwrap(), -excess, "what came second");
            lost.book.take_in(&[record(5, 2, 0, 5_000_000)], &tariff, 0).await.unwrap();
            let next = state(&lost, 1, None).await;
            settle(&mut lost, &next).await;
            lost.finalise(0).await;
            assert_eq!(invariants::violations(&lost.ledger).await.unwrap(), [], "{usd_per_token}");
            assert_eq!(books(&lost).await.open, []);
        }
    }
}

/// A ledger that stated work 1 anew at this rate, while the manifest of another candidate of that epoch was missing, and that
/// has brought it back; the candidate that came back, and its own, with their manifests.
async fn rivals(usd_per_token: &str) -> (World, [SignedStatement; 2], Vec<Import>) {
    let (world, first, manifest) = signed_once().await;
    let lost = world.after_loss(None).await;
    let mut tariff = tariff();
    tariff.rates.get_mut(&token()).unwrap().usd_per_token = usd_per_token.parse().unwrap();
    lost.book.take_in(&[record(1, 2, 0, 1_000_000)], &tariff, 0).await.unwrap();
    let own = state(&lost, 1, None).await;
    assert!(lost.book.import(&manifest, &secret(), 0).await.unwrap());
    assert_eq!(first.statement.epoch, own.statement.epoch);
    let manifests = vec![manifest, lost.reader.export(own.id).await.unwrap()];
    (lost, [first, own], manifests)
}

/// What would break it: taking what one of the two says for the price, and what the other one says for a payment besides.
#[tokio::test]
async fn of_two_candidates_that_price_a_work_differently_either_settles_and_the_larger_price_is_paid()
 {
    for (usd_per_token, larger) in [("0.5", 0), ("0.1", 1)] {
        for settles in [0, 1] {
            let (mut lost, rivals, mut manifests) = rivals(usd_per_token).await;
            settle(&mut lost, &rivals[settles]).await;
            lost.finalise(0).await;
            let name = format!("{usd_per_token}, {settles} settles");
            assert_eq!(invariants::violations(&lost.ledger).await.unwrap(), [], "{name}");
            if settles != larger {
                let rest = state(&lost, 1, None).await;
                settle(&mut lost, &rest).await;
                lost.finalise(0).await;
                manifests.push(lost.reader.export(rest.id).await.unwrap());
            }
            assert_eq!(books(&lost).await.open, [], "{name}");

            // A second loss changes nothing of what it comes to, whether or not what settled tells what had settled before.
            for is_told in [true, false] {
                for work in
                    manifests[settles].leaves.iter_mut().filter_map(|(_, work)| work.as_mut())
                {
                    work.settled = work.settled.filter(|_| is_told);
                }
                let again = lost.after_loss(None).await;
                for manifest in &manifests {
                    assert!(again.book.import(manifest, &secret(), 0).await.unwrap(), "{name}");
                }
                take(&again, &[record(1, 2, 0, 1_000_000)]).await;
                assert_eq!(invariants::violations(&again.ledger).await.unwrap(), [], "{name}");
                assert_eq!(books(&again).await.open, [], "{name}, told: {is_told}");
            }
        }
    }
}

/// What would break it: taking what a block that is not final has settled for the price.
#[tokio::test]
async fn a_rival_that_a_reorg_puts_in_the_place_of_what_had_settled_leaves_the_ledger_sound() {
    for usd_per_token in ["0.5", "0.1"] {
        let (world, first, manifest) = signed_once().await;
        let mut lost = world.after_loss(None).await;
        let mut tariff = tariff();
        tariff.rates.get_mut(&token()).unwrap().usd_per_token = usd_per_token.parse().unwrap();
        lost.book.take_in(&[record(1, 2, 0, 1_000_000)], &tariff, 0).await.unwrap();
        let own = state(&lost, 1, None).await;
        settle(&mut lost, &own).await;
        assert!(lost.book.import(&manifest, &secret(), 0).await.unwrap());
        lost.reorg(1).await;
        settle(&mut lost, &first).await;
        lost.finalise(0).await;
        assert_eq!(invariants::violations(&lost.ledger).await.unwrap(), [], "{usd_per_token}");
    }
}

#[tokio::test]
async fn a_correction_that_only_a_losing_candidate_named_comes_to_what_that_said_after_a_loss() {
    let mut world = funded(100_000_000, 100_000_000).await;
    take(&world, &[record(1, 2, 0, 1_000_000)]).await;
    let winner = state(&world, 1, None).await;
    take(&world, &[record(1, 2, 1, 1_500_000)]).await;
    let loser = state(&world, 1, None).await;
    assert_eq!((winner.statement.epoch, loser.statement.epoch), (1, 1));
    settle(&mut world, &winner).await;
    world.finalise(0).await;

    // Whether or not the manifests tell what had settled before.
    for is_told in [true, false] {
        let mut lost = world.after_loss(None).await;
        take(&lost, &[record(1, 2, 0, 1_000_000), record(1, 2, 1, 1_500_000)]).await;
        for statement in [&winner, &loser] {
            let mut manifest = world.reader.export(statement.id).await.unwrap();
            for work in manifest.leaves.iter_mut().filter_map(|(_, work)| work.as_mut()) {
                work.settled = work.settled.filter(|_| is_told);
            }
            assert!(lost.book.import(&manifest, &secret(), 0).await.unwrap());
        }
        lost.mine(Vec::new()).await;
        lost.finalise(0).await;
        assert_eq!(lost.book.accept_unfunded(ORGANISATION, &later_tariff(), 0).await.unwrap(), 1);
        let difference = state(&lost, 1, None).await;
        settle(&mut lost, &difference).await;
        lost.finalise(0).await;
        assert_eq!(credited(&lost, 2).await, units(1_500_000));
        assert_eq!(books(&lost).await.open, []);
    }
}

/// What would break it: keeping what people said nowhere but in the database.
#[tokio::test]
async fn a_dispute_and_a_replaced_address_come_back_after_a_loss_before_anything_is_paid() {
    let world = funded(100_000_000, 0).await;
    take(&world, &[record(1, 2, 0, 1_000_000), record(2, 3, 0, 1_000_000)]).await;
    let backup = world.backup();
    let (before, copied) = world.book.orders(Copied::NONE).await.unwrap();
    let item = books(&world).await.open[0].item;
    world.book.decide(item, Verdict::Dispute, "it is black", (FEE_BPS, 5)).await.unwrap();
    assert!(world.book.set_payee("machine-3", payout(4), (0, 7)).await.unwrap());
    let (after, reached) = world.book.orders(copied).await.unwrap();
    assert_eq!((before.len(), after.len()), (3, 2));
    assert_eq!(world.book.orders(reached).await.unwrap(), (vec![], reached));

    for backup in [None, Some(backup.path())] {
        let lost = world.after_loss(backup).await;
        // A copy may hold a line twice.
        let orders = [&before[..], &before[..], &after[..], &before[..]].concat();
        assert_eq!(lost.book.bring_back(&orders, 9).await.unwrap(), 2, "the rest is known");
        assert_eq!(lost.book.bring_back(&orders, 9).await.unwrap(), 0);
        take(&lost, &[record(1, 2, 0, 1_000_000), record(2, 3, 0, 1_000_000)]).await;
        lost.finalise(0).await;
        let open = books(&lost).await.open;
        assert_eq!((open[0].verdict, open[0].is_held()), (Some(Verdict::Dispute), true));
        assert_eq!((open[1].verdict, open[1].provider), (None, Some(4)));
        assert_eq!(invariants::violations(&lost.ledger).await.unwrap(), []);
    }
}

/// What would break it: taking what comes back last for what was said last.
#[tokio::test]
async fn orders_that_come_back_late_do_not_replace_what_was_said_meanwhile() {
    let day = [record(1, 2, 0, 1_000_000), record(2, 3, 0, 1_000_000)];
    let world = funded(100_000_000, 0).await;
    take(&world, &day).await;
    let first = books(&world).await.open[0].item;
    let decide = async |world: &World, item, verdict, reason: &str| {
        world.book.decide(item, verdict, reason, (FEE_BPS, 5)).await.unwrap();
    };
    decide(&world, first, Verdict::Hold, "a review").await;
    world.book.set_payee("machine-3", payout(4), (0, 7)).await.unwrap();
    world.book.set_payee("machine-2", payout(4), (0, 7)).await.unwrap();
    let (orders, _) = world.book.orders(Copied::NONE).await.unwrap();

    // Its folder is not there at first. Machine 2 gets another address meanwhile, and nobody says anything of machine 3.
    let lost = world.after_loss(None).await;
    take(&lost, &day).await;
    let first = books(&lost).await.open[0].item;
    decide(&lost, first, Verdict::Pay, "reviewed").await;
    lost.book.set_payee("machine-2", payout(1), (0, 8)).await.unwrap();
    lost.book.bring_back(&orders, 9).await.unwrap();
    let open = books(&lost).await.open;
    assert_eq!((open[0].verdict, open[0].provider), (Some(Verdict::Pay), Some(1)));
    assert_eq!(open[1].provider, Some(4), "the records' own address was replaced before");
    assert_eq!(lost.book.bring_back(&orders, 10).await.unwrap(), 0);
    assert_eq!(invariants::violations(&lost.ledger).await.unwrap(), []);

    // A copy that has all of it tells it in the same order.
    let (all, _) = lost.book.orders(Copied::NONE).await.unwrap();
    let again = lost.after_loss(None).await;
    again.book.bring_back(&all, 11).await.unwrap();
    take(&again, &day).await;
    assert_eq!(
        books(&again)
            .await
            .open
            .iter()
            .map(|item| (item.verdict, item.provider))
            .collect::<Vec<_>>(),
        open.iter().map(|item| (item.verdict, item.provider)).collect::<Vec<_>>()
    );
}

/// What would break it: telling by words alone, or by which copy is read first, what was said last.
#[tokio::test]
async fn of_what_is_told_in_two_places_what_people_said_last_counts() {
    let said = |verdict, reason: &str, at_ms| Order::Decision {
        source: "salad".into(),
        external_id: "1".into(),
        verdict,
        reason: reason.into(),
        at_ms,
    };
    let world = funded(100_000_000, 0).await;
    let day = [record(1, 2, 0, 1_000_000)];
    let verdict =
        async |world: &World| world.reader.work("salad", "1").await.unwrap().unwrap().verdict;

    // Somebody says the same as once before.
    let lost = world.after_loss(None).await;
    take(&lost, &day).await;
    let item = books(&lost).await.open[0].item;
    lost.book.decide(item, Verdict::Dispute, "it is black", (FEE_BPS, 10)).await.unwrap();
    let before = [said(Verdict::Dispute, "it is black", 1), said(Verdict::Pay, "seen", 2)];
    lost.book.bring_back(&before, 20).await.unwrap();
    assert_eq!(verdict(&lost).await, Some(Verdict::Dispute));

    let hold = said(Verdict::Hold, "a review", 1);
    let mut copies = [
        [hold.clone(), said(Verdict::Pay, "seen", 2)],
        [hold, said(Verdict::Dispute, "it is black", 10)],
    ];
    for is_known in [true, false, true, false] {
        copies.reverse();
        let lost = world.after_loss(None).await;
        if is_known {
            take(&lost, &day).await;
        }
        for copy in &copies {
            lost.book.bring_back(copy, 20).await.unwrap();
        }
        take(&lost, &day).await;
        assert_eq!(verdict(&lost).await, Some(Verdict::Dispute), "{copies:?}");
    }

    // What a record names is nobody's order.
    let lost = world.after_loss(None).await;
    let mut naming = record(1, 9, 0, 1_000_000);
    naming.payout = Some(payout(4));
    lost.book.take_in(&[naming], &tariff(), 50).await.unwrap();
    let (machine, address) = ("machine-9".into(), payout(3));
    let named = Order::Payee { machine, address, effective_ms: 0, at_ms: 1 };
    lost.book.bring_back(&[named], 60).await.unwrap();
    assert_eq!(books(&lost).await.open[0].provider, Some(3));
}

/// Goal: what was called off under a clock that was set right stays called off when older files are brought back.
/// Method: a decision and an address stamped by a clock that was ahead, a backup, and what corrects them at the true time; the
/// copy meets the backup, and, as one that lacks the first of them would leave it, a ledger that knows the last ones alone.
/// What would break it: ordering what one copy tells by the times in it.
#[tokio::test]
async fn what_was_said_after_a_clock_was_set_back_stays_the_last() {
    let world = funded(100_000_000, 0).await;
    let day = [record(1, 2, 0, 1_000_000)];
    take(&world, &day).await;
    let item = books(&world).await.open[0].item;
    let decide = async |verdict, at| {
        world.book.decide(item, verdict, "seen", (FEE_BPS, at)).await.unwrap();
    };
    let name = async |provider, at| {
        assert!(world.book.set_payee("machine-2", payout(provider), (0, at)).await.unwrap());
    };
    let says = async |world: &World| {
        let work = world.reader.work("salad", "1").await.unwrap().unwrap();
        (work.verdict, books(world).await.open[0].provider)
    };
    decide(Verdict::Dispute, 100).await;
    decide(Verdict::Pay, 110).await;
    name(1, 100).await;
    let backup = world.backup();
    decide(Verdict::Hold, 50).await;
    name(3, 50).await;
    let (orders, _) = world.book.orders(Copied::NONE).await.unwrap();

    let lost = world.after_loss(Some(backup.path())).await;
    lost.book.bring_back(&orders, 200).await.unwrap();
    assert_eq!(says(&lost).await, (Some(Verdict::Hold), Some(3)));

    let lost = world.after_loss(None).await;
    take(&lost, &day).await;
    let is_last = |order: &&Order| {
        matches!(order, Order::Decision { at_ms: 50, .. } | Order::Payee { at_ms: 50, .. })
    };
    let last: Vec<_> = orders.iter().filter(is_last).cloned().collect();
    lost.book.bring_back(&last, 150).await.unwrap();
    lost.book.bring_back(&orders, 200).await.unwrap();
    assert_eq!(says(&lost).await, (Some(Verdict::Hold), Some(3)));
}

/// What would break it: two rows that are equal, of which a copy keeps one.
#[tokio::test]
async fn an_address_that_a_file_names_twice_with_another_between_is_the_last_after_a_loss() {
    let world = funded(100_000_000, 0).await;
    let payees = [3, 2, 3].map(|provider| ("machine-9".to_owned(), payout(provider)));
    world.book.name_payees((B256::ZERO, 0), &payees, (10_000, 1)).await.unwrap();
    let (orders, _) = world.book.orders(Copied::NONE).await.unwrap();
    let mut copy: Vec<Order> = Vec::new();
    for order in orders {
        if !copy.contains(&order) {
            copy.push(order);
        }
    }
    let mut lost = world.after_loss(None).await;
    lost.book.bring_back(&copy, 9).await.unwrap();
    lost.mine_at(1_000_000, Vec::new()).await;
    take(&lost, &[record(1, 9, 0, 1_000_000)]).await;
    assert_eq!(books(&lost).await.open[0].provider, Some(3));
}

/// What would break it: comparing an address with the newest one alone, which comes back before the records do.
#[tokio::test]
async fn a_record_that_names_an_address_replaced_since_is_taken_in_again_after_a_loss() {
    let naming = |number: u64, address: Address| {
        let mut naming = record(number, 9, 0, 1_000_000);
        naming.payout = Some(address);
        naming
    };
    let day = [naming(1, payout(2)), naming(2, payout(2))];
    let world = funded(100_000_000, 0).await;
    let taken = take(&world, &day).await;
    assert!(world.book.set_payee("machine-9", payout(3), (0, 7)).await.unwrap());
    let (orders, _) = world.book.orders(Copied::NONE).await.unwrap();

    let lost = world.after_loss(None).await;
    lost.book.bring_back(&orders, 9).await.unwrap();
    assert_eq!(take(&lost, &day).await, taken);
    let paid_at: Vec<_> = books(&lost).await.open.iter().map(|item| item.provider).collect();
    assert_eq!(paid_at, [Some(3), Some(3)], "the operator named it last");
    let unheard = take(&lost, &[naming(3, payout(4))]).await;
    assert!(matches!(&unheard[..], [Outcome::Rejected { .. }]), "{unheard:?}");
}

/// What would break it: holding work anew for a reason that the operator has decided upon.
#[tokio::test]
async fn work_that_was_held_and_then_paid_is_not_held_anew_after_a_loss() {
    let differing = |revision: u32, micro_usd: u64| {
        let mut differing = record(1, 2, revision, micro_usd);
        differing.revision.evidence.digest = Some(B256::repeat_byte(1));
        differing.revision.evidence.mirror_digest = Some(B256::repeat_byte(2));
        differing
    };
    let verdict = async |world: &World| books(world).await.open[0].verdict;
    for decided in [Verdict::Pay, Verdict::Release] {
        let world = funded(100_000_000, 0).await;
        let backup = world.backup();
        take(&world, &[differing(0, 1_000_000)]).await;
        assert_eq!(verdict(&world).await, Some(Verdict::Hold));
        let item = books(&world).await.open[0].item;
        world.book.decide(item, decided, "seen", (FEE_BPS, 5)).await.unwrap();
        let (orders, _) = world.book.orders(Copied::NONE).await.unwrap();

        for backup in [None, Some(backup.path())] {
            let lost = world.after_loss(backup).await;
            lost.book.bring_back(&orders, 9).await.unwrap();
            take(&lost, &[differing(0, 1_000_000)]).await;
            let item = lost.reader.work("salad", "1").await.unwrap().unwrap();
            assert_eq!(item.verdict, Some(decided), "it was decided");
            assert_eq!(lost.book.accept_unfunded(ORGANISATION, &tariff(), 9).await.unwrap(), 0);
            // Nobody has decided about a revision that came since.
            take(&lost, &[differing(1, 1_500_000)]).await;
            let item = lost.reader.work("salad", "1").await.unwrap().unwrap();
            assert_eq!(item.verdict, Some(Verdict::Hold), "{decided:?}");
        }
        // The order comes back behind the hold that it was about, and is about no other.
        let lost = world.after_loss(None).await;
        for (revision, expected) in [(0, decided), (1, Verdict::Hold)] {
            lost.book.take_in(&[differing(revision, 1_000_000)], &tariff(), 10).await.unwrap();
            lost.book.bring_back(&orders, 20).await.unwrap();
            let item = lost.reader.work("salad", "1").await.unwrap().unwrap();
            assert_eq!(item.verdict, Some(expected), "revision {revision}");
        }
    }
}

#[tokio::test]
async fn a_backup_older_than_the_last_settlement() {
    let mut world = funded(100_000_000, 100_000_000).await;
    take(&world, &[record(1, 2, 0, 1_000_000), record(2, 3, 0, 1_000_000)]).await;
    let backup = world.backup();
    let paid = state(&world, 1, None).await;
    settle(&mut world, &paid).await;
    world.finalise(0).await;
    let manifest = world.reader.export(paid.id).await.unwrap();

    let mut restored = world.after_loss(Some(backup.path())).await;
    let stale = propose(&restored, 2, None).await;
    assert_eq!(stale.1.rows.len(), 3, "the old books say that all of it is due");
    assert_unsignable(&restored, 2, stale).await;
    assert!(restored.book.import(&manifest, &secret(), 0).await.unwrap());
    assert_eq!(books(&restored).await.freezes, []);
    assert_eq!(books(&restored).await.open, []);
    take(&restored, &[record(3, 4, 0, 1_000_000)]).await;
    let next = state(&restored, 1, None).await;
    assert_eq!(next.statement.epoch, 2);
    settle(&mut restored, &next).await;
    for provider in [2, 3, 4] {
        assert_eq!(credited(&restored, provider).await, units(1_000_000));
    }
}

#[tokio::test]
async fn without_manifests_a_cut_off_says_what_is_paid() {
    let mut world = funded(100_000_000, 0).await;
    take(&world, &[record(1, 2, 0, 1_000_000)]).await;
    let paid = state(&world, 1, None).await;
    settle(&mut world, &paid).await;
    world.finalise(0).await;

    let mut lost = world.after_loss(None).await;
    let refused = lost.book.cut_off(id(2), 10, "no manifests", 0).await;
    assert!(matches!(refused, Err(Error::Unimportable(_))), "the other deposit is not frozen");
    take(&lost, &[record(1, 2, 0, 1_000_000), record(20, 3, 0, 1_000_000)]).await;
    assert_eq!(lost.book.cut_off(id(1), 10, "no manifests", 0).await.unwrap(), 1);
    assert_eq!(books(&lost).await.freezes, []);
    lost.book.accept_unfunded(ORGANISATION, &tariff(), 0).await.unwrap();
    let next = state(&lost, 1, None).await;
    settle(&mut lost, &next).await;
    assert_eq!(credited(&lost, 2).await, units(1_000_000), "work 1 ended before the cut-off");
    assert_eq!(credited(&lost, 3).await, units(1_000_000));
}
