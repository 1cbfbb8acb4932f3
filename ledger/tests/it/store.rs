//! Opening, locking and identity of the file; facts and their undoing.

use alloy::primitives::{Address, B256};
use ledger::{Error, Identity, Ledger, Units, chain::Event, verify};

use crate::world::{World, deposit_key, identity, reopen, secret};

#[tokio::test]
async fn refuses_the_file_of_another_deployment() {
    let world = World::new().await;
    let path = world.folder.path().join("ledger.db");
    drop(world.reader);
    drop(world.chain);
    drop(world.book);
    world.ledger.close().await;
    let other = Identity { chain_id: 1, ..identity() };
    let error = Ledger::open(&path, other).await.unwrap_err();
    assert!(matches!(error, Error::Identity { field: "chain id", .. }), "{error}");
    reopen(&path).await.unwrap();
}

#[tokio::test]
async fn refuses_a_second_writer() {
    let world = World::new().await;
    let path = world.folder.path().join("ledger.db");
    let error = Ledger::open(&path, identity()).await.unwrap_err();
    assert!(matches!(error, Error::Locked(_)), "{error}");
    Ledger::open_read_only(&path).await.unwrap();
}

#[tokio::test]
async fn refuses_a_block_that_does_not_follow() {
    let mut world = World::new().await;
    let mut orphan = world.blocks[0].clone();
    orphan.block.number = 2;
    orphan.facts.clear();
    let error = world.chain.apply(&[orphan]).await.unwrap_err();
    assert!(matches!(error, Error::NotTheNextBlock { number: 2, .. }), "{error}");
    world.mine(vec![]).await;
}

#[tokio::test]
async fn refuses_to_undo_what_is_final() {
    let mut world = World::new().await;
    world.mine(vec![]).await;
    world.mine(vec![]).await;
    world.finalise(1).await;
    let error = world.chain.rollback_to(1).await.unwrap_err();
    assert!(matches!(error, Error::FinalityViolated { fork: 1, finalised: 2 }), "{error}");
}

#[tokio::test]
async fn deposits_count_once_they_are_final_and_withdrawals_at_once() {
    let mut world = World::new().await;
    let id = deposit_key(1).id();
    world.fund(1, 100).await;
    assert_eq!(world.reader.deposit_state(id).await.unwrap().spendable(), Units::ZERO);
    world.finalise(0).await;
    assert_eq!(world.reader.deposit_state(id).await.unwrap().spendable(), Units::new(100));

    let (units, recipient) = (Units::new(30), deposit_key(1).requestor);
    world.mine(vec![Event::Thawed { deposit: id, units, ends: 5 }]).await;
    world.mine(vec![Event::Withdrawn { deposit: id, recipient, units }]).await;
    assert_eq!(world.reader.deposit_state(id).await.unwrap().spendable(), Units::new(70));
    world.reorg(2).await;
    assert_eq!(world.reader.deposit_state(id).await.unwrap().spendable(), Units::new(100));
}

#[tokio::test]
async fn verification_names_a_fact_that_the_chain_does_not_have() {
    let mut world = World::new().await;
    world.fund(1, 100).await;
    assert_eq!(verify::facts(&world.ledger, &world.blocks, u64::MAX).await.unwrap(), []);
    assert_eq!(verify::book(&world.ledger, &secret()).await.unwrap(), []);
    let without = &world.blocks[..1];
    let differences = verify::facts(&world.ledger, without, u64::MAX).await.unwrap();
    assert_eq!(differences.len(), 1);
    assert_eq!(differences[0].row, "funded at block 2 log 0");
}

#[tokio::test]
async fn a_token_is_what_the_registration_says_that_stands() {
    let mut world = World::new().await;
    let token = Address::repeat_byte(0x71);
    let known = async |world: &World| {
        let tokens = world.reader.tokens().await.unwrap();
        tokens.iter().find(|known| known.address == token).map(|known| known.decimals)
    };
    world.mine(vec![Event::TokenRegistered { token, decimals: 8 }]).await;
    assert_eq!(known(&world).await, Some(8));
    world.reorg(1).await;
    assert_eq!(known(&world).await, None);
    world.mine(vec![Event::TokenRegistered { token, decimals: 18 }]).await;
    assert_eq!(known(&world).await, Some(18));
    assert_eq!(verify::facts(&world.ledger, &world.blocks, u64::MAX).await.unwrap(), []);
}

#[tokio::test]
async fn takes_what_strangers_do_to_deposits_that_were_never_funded() {
    let mut world = World::new().await;
    let deposit = B256::repeat_byte(0x66);
    world.mine(vec![Event::Thawed { deposit, units: Units::ZERO, ends: 0 }]).await;
    let (spent, manifest, rows) = (Units::ZERO, B256::ZERO, Vec::new());
    world.mine(vec![Event::Settled { deposit, epoch: 1, spent, manifest, rows }]).await;
    assert_eq!(world.reader.deposit_state(deposit).await.unwrap().epoch, 1);
    assert_eq!(verify::facts(&world.ledger, &world.blocks, u64::MAX).await.unwrap(), []);
    assert_eq!(verify::book(&world.ledger, &secret()).await.unwrap(), []);
}
