//! Slots: fenced, never two for one statement, free only by an outcome.

use alloy::{
    primitives::{Address, B256},
    signers::local::PrivateKeySigner,
};
use ledger::{
    Error, Units,
    book::{Lease, Obligation, Outcome, TxReceipt},
    chain::Event,
    read::{Attempt, Memory},
};

use crate::{
    invariants,
    statement::{proposal, world_with_work},
    world::{FEE_BPS, World, attester, deposit_key, payout, token},
};

/// The first attempt at a tx nonce.
fn attempt(tx_nonce: u64) -> Attempt {
    invariants::attempt(tx_nonce, 800, 80)
}

fn account() -> Address {
    invariants::sender().address()
}

/// A world with one signed statement, and a lease on sending.
async fn signed() -> (World, i64, Lease) {
    let world = world_with_work().await;
    let (state, proposal) = proposal(&world, 1).await;
    let id = deposit_key(1).id();
    let statement = world.book.record_statement(id, &state, &proposal, FEE_BPS).await.unwrap().id;
    world.book.sign_statement(statement, &attester()).await.unwrap();
    let lease = world.book.take_lease().await.unwrap();
    (world, statement, lease)
}

fn outcome(slot: i64, attempt: Option<i64>) -> Outcome {
    let (hash, block_hash) = (B256::repeat_byte(1), B256::repeat_byte(2));
    Outcome { slot, attempt, hash, block: 9, block_hash, succeeded: true }
}

#[tokio::test]
async fn a_process_that_lost_its_lease_commits_no_slot_and_no_attempt() {
    let (world, statement, old) = signed().await;
    let settle = Obligation::Settle(vec![statement]);
    let slot = world.book.open_slot(old, (account(), 0), &settle, &attempt(0)).await.unwrap();
    let new = world.book.take_lease().await.unwrap();
    let dearer = invariants::attempt(0, 1000, 100);
    let register = Obligation::Register(vec![payout(9)]);
    let refused = world.book.open_slot(old, (account(), 1), &register, &attempt(1)).await;
    assert!(matches!(refused, Err(Error::Fenced)), "{refused:?}");
    let refused = world.book.add_attempt(old, slot, &dearer).await;
    assert!(matches!(refused, Err(Error::Fenced)), "{refused:?}");
    world.book.add_attempt(new, slot, &dearer).await.unwrap();
    let slots = world.reader.open_slots(account()).await.unwrap();
    let hashes: Vec<_> = slots[0].attempts.iter().map(|attempt| attempt.hash).collect();
    assert_eq!(hashes, [attempt(0).hash, dearer.hash]);
}

#[tokio::test]
async fn a_statement_gets_a_second_slot_only_after_an_outcome_of_the_first() {
    let (world, statement, lease) = signed().await;
    let settle = Obligation::Settle(vec![statement]);
    let slot = world.book.open_slot(lease, (account(), 4), &settle, &attempt(4)).await.unwrap();
    let again = world.book.open_slot(lease, (account(), 5), &settle, &attempt(5)).await;
    assert!(matches!(again, Err(Error::Busy { tx_nonce: 4, .. })), "{again:?}");
    assert_eq!(world.reader.open_slots(account()).await.unwrap().len(), 1);

    let first = world.reader.open_slots(account()).await.unwrap()[0].attempts[0].id;
    world.book.add_outcome(&outcome(slot, Some(first)), 0).await.unwrap();
    assert_eq!(world.reader.open_slots(account()).await.unwrap(), []);
    assert_eq!(world.reader.last_carried(statement).await.unwrap(), Some(9));
    world.book.open_slot(lease, (account(), 5), &settle, &attempt(5)).await.unwrap();
}

#[tokio::test]
async fn a_statement_may_be_carried_by_an_open_slot_of_each_account_and_by_one_only() {
    let (world, statement, lease) = signed().await;
    let settle = Obligation::Settle(vec![statement]);
    let old = PrivateKeySigner::from_slice(&[4; 32]).unwrap();
    let first = invariants::attempt_by(&old, 0, (800, 80));
    world.book.open_slot(lease, (old.address(), 0), &settle, &first).await.unwrap();
    world.book.open_slot(lease, (account(), 0), &settle, &attempt(0)).await.unwrap();
    assert_eq!(ledger::invariants::violations(&world.ledger).await.unwrap(), []);

    let register = Obligation::Register(vec![payout(9)]);
    let again = world.book.open_slot(lease, (account(), 1), &register, &attempt(1)).await.unwrap();
    let twice = format!("insert into carried_statement values ({again}, {statement})");
    invariants::Damage::to(&world).await.run(&twice).await.unwrap();
    let found = ledger::invariants::violations(&world.ledger).await.unwrap();
    let broken: Vec<_> = found.iter().map(|found| found.invariant.as_str()).collect();
    assert_eq!(broken, ["L28"]);
}

#[tokio::test]
async fn a_foreign_outcome_is_remembered_until_it_is_adopted() {
    let (world, statement, lease) = signed().await;
    let settle = Obligation::Settle(vec![statement]);
    let slot = world.book.open_slot(lease, (account(), 4), &settle, &attempt(4)).await.unwrap();
    let memory = Memory { slotted: 5, adopted: 0, ended: 0, foreign: None };
    assert_eq!(world.reader.memory(account()).await.unwrap(), memory);
    world.book.add_outcome(&outcome(slot, None), 0).await.unwrap();
    let foreign = Some((4, B256::repeat_byte(1)));
    assert_eq!(
        world.reader.memory(account()).await.unwrap(),
        Memory { ended: 5, foreign, ..memory }
    );
    world.book.adopt(account(), 7, "the treasurer paid the rent", 0).await.unwrap();
    let adopted = Memory { slotted: 5, adopted: 7, ended: 5, foreign: None };
    assert_eq!(world.reader.memory(account()).await.unwrap(), adopted);
    assert_eq!(adopted.next(), 7);
    assert_eq!(world.reader.memory(Address::ZERO).await.unwrap(), Memory::default());
}

#[tokio::test]
async fn what_a_slot_carries_is_void_exactly_while_facts_say_that_it_is_done() {
    let (mut world, statement, _) = signed().await;
    let settle = Obligation::Settle(vec![statement]);
    let claim = Obligation::Claim(token(), vec![2]);
    let register = Obligation::Register(vec![payout(2), payout(9)]);
    let is_void = async |world: &World, obligation: &Obligation| {
        world.reader.is_void(obligation).await.unwrap()
    };
    assert!(!is_void(&world, &settle).await);
    assert!(is_void(&world, &claim).await, "there is no credit yet");
    assert!(!is_void(&world, &register).await);

    let signed = world.reader.signed_statement(statement).await.unwrap().statement;
    let rows = contracts::rows::decode(&signed.rows).unwrap();
    let credit = rows.iter().find(|(provider, _)| *provider == 2).unwrap().1;
    world
        .mine(vec![
            Event::Settled {
                deposit: signed.key.id(),
                epoch: signed.epoch,
                spent: signed.spent,
                manifest: signed.manifest,
                rows: signed.rows,
            },
            Event::Registered { provider: 5, payout: payout(9) },
        ])
        .await;
    assert!(is_void(&world, &settle).await);
    assert!(is_void(&world, &register).await);
    assert!(!is_void(&world, &claim).await);
    assert_eq!(world.reader.credit(token(), 2).await.unwrap(), Units::new(credit));

    let claimed = Event::Claimed {
        provider: 2,
        token: token(),
        recipient: payout(2),
        units: Units::new(credit),
        claim_nonce: 0,
    };
    world.mine(vec![claimed]).await;
    assert!(is_void(&world, &claim).await);
    world.reorg(1).await;
    assert!(!is_void(&world, &claim).await, "the reorg undid the claim");
    world.reorg(1).await;
    assert!(!is_void(&world, &settle).await, "the reorg undid the settlement");
}

#[tokio::test]
async fn an_imported_slot_is_over_and_accounts_for_its_tx_nonce() {
    let (world, statement, _) = signed().await;
    let mined = TxReceipt {
        attempt: 0,
        block_hash: B256::repeat_byte(2),
        block: 3,
        succeeded: true,
        gas_used: 21_000,
        fee: 42,
    };
    let settle = Obligation::Settle(vec![statement]);
    world.book.import_slot((account(), 2), &settle, &attempt(2), &mined).await.unwrap();
    assert_eq!(world.reader.open_slots(account()).await.unwrap(), []);
    assert!(world.reader.has_slot(account(), 2).await.unwrap());
    assert_eq!(world.reader.memory(account()).await.unwrap().next(), 3);
    assert_eq!(world.reader.last_carried(statement).await.unwrap(), Some(3));
    assert_eq!(world.reader.spending().await.unwrap()["settle"].gas, 21_000);
}

#[tokio::test]
async fn a_slot_is_read_back_with_all_that_it_carries() {
    let (world, statement, lease) = signed().await;
    let obligations = [
        Obligation::Settle(vec![statement]),
        Obligation::Claim(token(), vec![2, 3]),
        Obligation::Register(vec![payout(8)]),
    ];
    for (tx_nonce, obligation) in (0..).zip(&obligations) {
        let place = (account(), tx_nonce);
        world.book.open_slot(lease, place, obligation, &attempt(tx_nonce)).await.unwrap();
    }
    let slots = world.reader.open_slots(account()).await.unwrap();
    let carried: Vec<_> = slots.into_iter().map(|slot| slot.obligation).collect();
    assert_eq!(carried, obligations);
}

#[tokio::test]
async fn a_tx_receipt_is_asked_for_until_one_of_the_slots_attempts_has_it() {
    let (world, statement, lease) = signed().await;
    let settle = Obligation::Settle(vec![statement]);
    let slot = world.book.open_slot(lease, (account(), 0), &settle, &attempt(0)).await.unwrap();
    let missing = async || world.reader.attempts_without_receipt(account(), 1).await.unwrap();
    let asked = missing().await;
    assert_eq!(asked.len(), 1);
    let receipt = TxReceipt {
        attempt: asked[0].0,
        block_hash: B256::repeat_byte(2),
        block: 3,
        succeeded: false,
        gas_used: 30_000,
        fee: 42,
    };
    world.book.add_tx_receipt(&receipt).await.unwrap();
    assert_eq!(missing().await, []);
    assert_eq!(world.reader.open_slots(account()).await.unwrap()[0].id, slot);
}

#[tokio::test]
async fn a_transaction_that_a_reorg_mined_twice_is_counted_once() {
    let (world, statement, lease) = signed().await;
    let settle = Obligation::Settle(vec![statement]);
    let slot = world.book.open_slot(lease, (account(), 0), &settle, &attempt(0)).await.unwrap();
    let id = world.reader.open_slots(account()).await.unwrap()[0].attempts[0].id;
    let spent = async || {
        let spending = world.reader.spending().await.unwrap();
        (spending["settle"].transactions, spending["settle"].gas)
    };
    let receipt = |block, gas_used| {
        let block_hash = outcome(slot, None).block_hash;
        let block_hash = if block == 9 { block_hash } else { B256::repeat_byte(7) };
        TxReceipt { attempt: id, block_hash, block, succeeded: true, gas_used, fee: 42 }
    };
    world.book.add_tx_receipt(&receipt(9, 30_000)).await.unwrap();
    assert_eq!(spent().await, (1, 30_000));
    world.book.add_tx_receipt(&receipt(10, 50_000)).await.unwrap();
    assert_eq!(spent().await, (1, 50_000));
    world.book.add_outcome(&outcome(slot, Some(id)), 0).await.unwrap();
    assert_eq!(spent().await, (1, 30_000), "the block that became final");
}
