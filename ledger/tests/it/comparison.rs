//! What is compared with the contract's own state: everything that facts touch, in time, and what differed for as long as it
//! does.

use std::collections::BTreeSet;

use alloy::primitives::{Address, B256};
use contracts::eip712::DepositKey;
use ledger::{
    Units, audit,
    chain::{ChainWriter, Event},
    completeness::{Account, Comparison, Holding},
    invariants,
};

use crate::{
    invariants::sound_world,
    world::{World, deposit_key, token},
};

/// Accounts touched by facts that a comparison takes here.
const CHANGED: u64 = 3;

async fn next(world: &World) -> Comparison {
    let finalised = world.chain.finalised().await.unwrap();
    world.chain.comparison(finalised, CHANGED, 0).await.unwrap()
}

fn accounts(comparison: &Comparison) -> Vec<Account> {
    comparison.holdings.iter().map(|(account, _)| *account).collect()
}

/// Compares until nothing is left, and returns what was compared.
async fn compare_all(world: &World) -> Vec<Vec<Account>> {
    let mut compared = Vec::new();
    loop {
        let comparison = next(world).await;
        world.chain.compared(&comparison, 0).await.unwrap();
        if comparison.holdings.is_empty() {
            return compared;
        }
        assert!(comparison.holdings.len() as u64 <= CHANGED, "a comparison asks for too much");
        compared.push(accounts(&comparison));
        assert!(compared.len() < 100, "it does not come to an end");
    }
}

fn deposits(numbers: impl IntoIterator<Item = u8>) -> BTreeSet<Account> {
    numbers.into_iter().map(|number| Account::Deposit(deposit_key(number).id())).collect()
}

#[tokio::test]
async fn every_account_that_facts_touch_is_compared_however_many_they_are() {
    let mut world = sound_world().await;
    for number in 3..=9 {
        world.fund(number, 100).await;
    }
    world.finalise(0).await;
    let mut expected = deposits(1..=9);
    expected.extend((1..=4).map(|provider| Account::Credit(token(), provider)));
    let mut found: BTreeSet<_> = accounts(&next(&world).await).into_iter().collect();

    // What is touched meanwhile is not forgotten either.
    let comparison = next(&world).await;
    world.chain.compared(&comparison, 0).await.unwrap();
    world.fund(10, 100).await;
    world.fund(1, 100).await;
    world.finalise(0).await;
    expected.extend(deposits([10]));
    let compared = compare_all(&world).await;
    found.extend(compared.iter().flatten());
    assert_eq!(found, expected);
    assert!(compared.iter().flatten().any(|account| deposits([1]).contains(account)));
    assert_eq!(compare_all(&world).await, Vec::<Vec<Account>>::new(), "nothing is touched since");
}

#[tokio::test]
async fn deposits_are_compared_before_credits() {
    let world = sound_world().await;
    world.finalise(0).await;
    let first = accounts(&next(&world).await);
    let expected: Vec<_> = deposits([1, 2]).into_iter().collect();
    assert_eq!(first[..2], expected, "of what touched both, the deposits come first");
}

#[tokio::test]
async fn a_halt_is_lifted_only_by_a_comparison_that_includes_what_differed() {
    let world = sound_world().await;
    world.finalise(0).await;
    compare_all(&world).await;
    let halt = async || audit::halt(&world.ledger).await.unwrap();
    let before = next(&world).await;
    let differing = [Account::Credit(token(), 4), Account::Deposit(deposit_key(2).id())];
    for (account, reason) in differing.iter().zip(["the first", "the second"]) {
        world.chain.halt(account, reason, 1).await.unwrap();
    }
    world.chain.compared(&before, 2).await.unwrap();
    assert_eq!(halt().await.as_deref(), Some("the second"), "it did not look at them");

    // Every later one looks at both, whoever makes it.
    let restarted = ChainWriter::new(world.ledger.clone());
    let finalised = restarted.finalised().await.unwrap();
    let comparison = restarted.comparison(finalised, CHANGED, 0).await.unwrap();
    let included: BTreeSet<_> = accounts(&comparison).into_iter().collect();
    assert_eq!(included, differing.into_iter().collect());
    restarted.compared(&comparison, 3).await.unwrap();
    assert_eq!(halt().await, None);
    assert_eq!(accounts(&next(&world).await), [], "what agreed is looked at no more");
}

/// What would break it: keeping what came in over a whole life in the 64 bits that bound what there is at one time.
#[tokio::test]
async fn a_strangers_money_that_comes_and_goes_for_ever_wedges_nothing() {
    let mut world = sound_world().await;
    let (worthless, requestor) = (Address::repeat_byte(0x71), Address::repeat_byte(0xbb));
    let salt = B256::ZERO;
    let key =
        DepositKey { requestor, signer: requestor, cosigner: requestor, token: worthless, salt };
    let (deposit, units) = (key.id(), Units::new(1 << 63));
    world.mine(vec![Event::TokenRegistered { token: worthless, decimals: 0 }]).await;
    for _ in 0..3 {
        let funded = Event::Funded { key: key.clone(), sender: requestor, units };
        let thawed = Event::Thawed { deposit, units, ends: 1 };
        world
            .mine(vec![funded, thawed, Event::Withdrawn { deposit, recipient: requestor, units }])
            .await;
    }
    world.mine(vec![Event::Funded { key, sender: requestor, units }]).await;
    world.finalise(0).await;

    assert_eq!(invariants::violations(&world.ledger).await.unwrap(), []);
    let state = world.reader.deposit_state(deposit).await.unwrap();
    assert_eq!((state.balance, state.spendable()), (units, units));
    let finalised = world.chain.finalised().await.unwrap();
    let comparison = world.chain.comparison(finalised, 100, 0).await.unwrap();
    assert!(comparison.holdings.contains(&(Account::Deposit(deposit), Holding::Deposit(state))));
}
