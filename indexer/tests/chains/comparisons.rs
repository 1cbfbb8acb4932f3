//! What the ledger holds against what the contract shows: enough operators say it, whoever is asked first, and all final blocks
//! are compared.

use indexer::{Error, Finality, Indexer, State, Turn, chain_of};
use ledger::{audit, chain::ChainWriter};

use crate::{
    chain::{Lie, endpoints},
    lies::World,
};

const NAMES: [&str; 3] = ["anna", "bert", "cleo"];

/// Turns until nothing is to be done, or until a difference is found, which is returned.
async fn difference(indexer: &mut Indexer) -> Option<Error> {
    for _ in 0..500 {
        match indexer.turn().await {
            Ok(Turn::Idle) => return None,
            Ok(_) => {}
            Err(error @ Error::StateDiffers { .. }) => return Some(error),
            Err(error) => assert!(error.is_transient(), "{}", chain_of(&error)),
        }
    }
    panic!("no end of turns");
}

async fn is_halted(world: &World) -> bool {
    audit::halt(&world.ledger).await.unwrap().is_some()
}

#[tokio::test]
async fn two_of_three_that_show_another_balance_halt_money_whoever_is_asked_first() {
    let untrue = Some(Lie::Misstates);
    for lies in [[untrue, None, untrue], [None, untrue, untrue], [untrue, untrue, None]] {
        let mut world = World::new(lies).await;
        let mut indexer = world.indexer().await;
        assert!(difference(&mut indexer).await.is_some(), "{lies:?}");
        assert!(is_halted(&world).await);
        assert!(!world.states().contains(&State::Lying), "{lies:?}: {:?}", world.states());

        // One that shows what the ledger holds lifts no halt.
        world.grow(1);
        assert!(difference(&mut indexer).await.is_some(), "{lies:?}");
        assert!(is_halted(&world).await);
        for server in &world.servers {
            server.lock().lie = None;
        }
        world.grow(1);
        assert!(difference(&mut indexer).await.is_none());
        assert!(!is_halted(&world).await);
    }
}

#[tokio::test]
async fn one_of_three_that_shows_another_balance_is_outvoted_and_lies_only_if_it_says_so_again() {
    for (lie, state) in [(Lie::Misstates, State::Lying), (Lie::MisstatesEveryOtherTime, State::Ok)]
    {
        for place in 0..3 {
            let mut lies = [None; 3];
            lies[place] = Some(lie);
            let world = World::new(lies).await;
            let mut indexer = world.indexer().await;
            assert!(difference(&mut indexer).await.is_none());
            assert!(!is_halted(&world).await);
            let mut states = [State::Ok; 3];
            states[place] = state;
            assert_eq!(world.states(), states, "{lie:?}: {}", world.reason(place));
        }
    }
}

#[tokio::test]
async fn where_too_few_show_a_balance_nothing_is_concluded() {
    for (lie, other) in
        [(Lie::Misstates, Lie::StatesNothing), (Lie::StatesNothing, Lie::StatesNothing)]
    {
        let mut world = World::new([Some(Lie::Misstates); 3]).await;
        let mut indexer = world.indexer().await;
        assert!(difference(&mut indexer).await.is_some());
        for (server, lie) in world.servers.iter().zip([Some(lie), Some(other), None]) {
            server.lock().lie = lie;
        }
        world.grow(1);
        assert!(difference(&mut indexer).await.is_none());
        assert!(is_halted(&world).await, "{lie:?} {other:?}: one alone lifted the halt");
        assert_eq!(world.states(), [State::Ok; 3]);
    }
}

#[tokio::test]
async fn an_account_that_an_endpoint_says_nothing_of_is_asked_for_once_more() {
    let world = World::of(&[Some(Lie::StatesNothingEveryOtherTime)]).await;
    let mut indexer = world.indexer().await;
    assert!(difference(&mut indexer).await.is_none());
    let writer = ChainWriter::new(world.ledger.clone());
    assert_eq!(writer.compared_to().await.unwrap(), writer.finalised().await.unwrap());
}

/// Goal: an endpoint that says nothing of accounts, at once or after long, is not waited for at each of them.
#[cfg(feature = "crash-points")]
#[tokio::test]
async fn an_endpoint_that_says_nothing_of_accounts_is_soon_asked_no_more() {
    const DEPOSITS: u8 = 12;
    for (lie, asked) in [
        (Lie::StatesNothing, 2),
        // What it answers in between is not worth more than so long a wait in all.
        (Lie::StallsEveryOtherTime(7), 5),
        (Lie::StallsEveryOtherTime(0), u64::from(DEPOSITS) + 1),
    ] {
        for place in 0..3 {
            let mut world = World::new([None; 3]).await;
            world.grow_deposits(DEPOSITS);
            world.grow(20);
            world.servers[place].lock().lie = Some(lie);
            let mut indexer = world.indexer().await;
            assert!(difference(&mut indexer).await.is_none());
            let calls: Vec<_> = world.servers.iter().map(|server| server.lock().calls).collect();
            let mut expected = vec![u64::from(DEPOSITS) + 1; 3];
            expected[place] = asked;
            assert_eq!(calls, expected, "{lie:?}");
            let writer = ChainWriter::new(world.ledger.clone());
            assert_eq!(writer.compared_to().await.unwrap(), writer.finalised().await.unwrap());
            ledger::point::set_clock(None);
        }
    }
}

#[tokio::test]
async fn a_difference_is_found_and_lifted_where_the_newest_block_is_final() {
    let mut world = World::of(&[Some(Lie::Misstates)]).await;
    let named: Vec<_> = NAMES.into_iter().zip(&world.servers).collect();
    world.endpoints = endpoints(&named, Finality::Depth(0));
    let mut indexer = world.indexer().await;
    assert!(difference(&mut indexer).await.is_some());
    assert!(is_halted(&world).await);

    // Started again, it reads on until there is something new to compare.
    let mut indexer = world.indexer().await;
    assert!(difference(&mut indexer).await.is_none());
    assert!(is_halted(&world).await);

    world.servers[0].lock().lie = None;
    world.grow(1);
    assert!(difference(&mut indexer).await.is_none());
    assert!(!is_halted(&world).await);
}

#[tokio::test]
async fn a_comparison_that_came_to_nothing_is_made_again_at_the_next_final_block() {
    let mut world = World::of(&[Some(Lie::StatesNothing)]).await;
    let mut indexer = world.indexer().await;
    assert!(difference(&mut indexer).await.is_none());
    let asked = world.servers[0].lock().requests;
    indexer.turn().await.unwrap();
    let told = indexer.standing().borrow().waiting.join(" ");
    assert!(told.contains("compared with the contract up to block 0 of 50"), "{told}");
    let asked_again = world.servers[0].lock().requests - asked;
    assert!(asked_again < 5, "{asked_again} requests of a turn without anything new");
    world.servers[0].lock().lie = Some(Lie::Misstates);
    world.grow(1);
    assert!(difference(&mut indexer).await.is_some());
    world.servers[0].lock().lie = None;
    world.grow(1);
    assert!(difference(&mut indexer).await.is_none());
    assert!(indexer.standing().borrow().waiting.is_empty());
}

/// Goal: much that was read at once is compared as fast as there are accounts, not as there are events.
#[tokio::test]
async fn an_account_of_a_backlog_is_asked_for_once_per_final_block() {
    let mut world = World::of(&[None]).await;
    world.grow(500);
    let mut indexer = world.indexer().await;
    let writer = ChainWriter::new(world.ledger.clone());
    for calls in [1, 2] {
        for _ in 0..30 {
            indexer.turn().await.unwrap();
        }
        assert_eq!(writer.compared_to().await.unwrap(), writer.finalised().await.unwrap());
        assert_eq!(world.servers[0].lock().calls, calls, "there is one deposit");
        world.grow(1);
    }
}
