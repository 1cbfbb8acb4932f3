//! Endpoints that fail for a moment: what is asked again, how often and for how long, and what is not.

use std::time::Duration;

use alloy::{
    providers::Provider,
    rpc::types::TransactionRequest,
    transports::{RpcError, TransportErrorKind},
};
use indexer::{State, Turn};
use tokio::time::sleep;

use crate::{
    chain::{CODE, CONTRACT, Lie},
    lies::{World, settle},
};

impl World {
    /// Requests that an endpoint answers while something is asked.
    async fn requests_of<T>(&self, place: usize, asking: impl Future<Output = T>) -> (T, u64) {
        let before = self.servers[place].lock().requests;
        let answer = asking.await;
        (answer, self.servers[place].lock().requests - before)
    }

    /// A world of which everything is indexed, and whose first endpoint then does something else.
    async fn turned(endpoints: usize, lie: Lie) -> Self {
        let world = Self::of(&[None, None, None][..endpoints]).await;
        assert!(settle(&mut world.indexer().await, 1).await.is_none());
        world.servers[0].lock().lie = Some(lie);
        world
    }
}

/// Goal: an endpoint whose gateway takes long to fail costs a read about as long once, not eight times.
/// What would break it: a bound on how often is asked, and none on how long.
#[cfg(feature = "crash-points")]
#[tokio::test]
async fn a_gateway_that_takes_long_to_fail_is_asked_again_for_a_while_only() {
    for (endpoints, seconds, times) in [(3, 15, 1), (3, 1, 2), (1, 15, 2), (1, 5, 4)] {
        let world = World::turned(endpoints, Lie::TimesOutAfter(seconds)).await;
        let provider = world.endpoints.provider();
        let (id, requests) = world.requests_of(0, provider.get_chain_id().into_future()).await;
        assert_eq!(id.is_ok(), endpoints > 1, "{id:?}");
        assert_eq!(requests, times, "{endpoints} endpoints, {seconds} s");
        ledger::point::set_clock(None);
    }
}

#[tokio::test]
async fn a_refusal_by_the_contract_is_an_answer_whatever_its_code() {
    for endpoints in [1, 3] {
        let world = World::turned(endpoints, Lie::Reverts).await;
        let provider = world.endpoints.provider();
        let call = provider.call(TransactionRequest::default().to(CONTRACT)).into_future();
        let (answer, requests) = world.requests_of(0, call).await;
        let error = answer.unwrap_err().to_string();
        assert!(error.contains("execution reverted") && requests == 1, "{requests}: {error}");
    }
}

/// Goal: what is read through the only endpoint gets through although hardly any request does.
/// What would break it: taking what cannot be read for an answer because it came as one.
#[tokio::test]
async fn the_only_endpoint_is_asked_until_its_answer_can_be_read() {
    let world = World::turned(1, Lie::AnswersEvery(10)).await;
    world.servers[0].lock().requests = 0;
    let provider = world.endpoints.provider();
    assert_eq!(provider.get_chain_id().await.unwrap(), 31_337);
    assert_eq!(provider.get_code_at(CONTRACT).await.unwrap(), CODE);
    assert_eq!(world.servers[0].lock().requests, 20);
}

#[tokio::test]
async fn a_block_that_the_only_endpoint_lacks_for_a_moment_is_asked_for_once_more() {
    let world = World::of(&[Some(Lie::HasNoBlocksEveryOtherTime)]).await;
    world.servers[0].lock().serves_receipts = true;
    let mut indexer = world.indexer().await;
    assert!(settle(&mut indexer, 1).await.is_none());
    world.assert_is_head().await;
    assert_eq!(world.states(), [State::Ok]);
}

#[tokio::test]
async fn a_short_pause_of_the_only_endpoint_costs_the_indexer_no_turn() {
    let mut world = World::of(&[None]).await;
    let mut indexer = world.indexer().await;
    assert!(settle(&mut indexer, 1).await.is_none());
    world.grow(1);
    world.servers[0].lock().lie = Some(Lie::AsksForPatience);
    let relents = async {
        sleep(Duration::from_millis(300)).await;
        world.servers[0].lock().lie = None;
    };
    let (turn, ()) = tokio::join!(indexer.turn(), relents);
    assert!(matches!(turn, Ok(Turn::Advanced(_))), "{turn:?}");
}

#[tokio::test]
async fn the_only_endpoint_is_waited_for_once_and_not_by_each_who_asks() {
    let world = World::turned(1, Lie::AsksForPatience).await;
    let provider = world.endpoints.provider();
    let (id, requests) = world.requests_of(0, provider.get_chain_id().into_future()).await;
    // After one second, after two, and not after four.
    assert!(id.is_err() && requests == 3, "{requests}: {id:?}");
}

/// Goal: a transaction that some have already is not taken for one that has to outbid another.
/// What would break it: passing on whichever refusal comes first.
#[tokio::test]
async fn that_a_transaction_is_known_says_more_than_any_other_refusal() {
    const UNDERPRICED: Lie = Lie::RefusesTransactions("replacement transaction underpriced");
    const KNOWN: Lie = Lie::RefusesTransactions("already known");
    for lies in [[UNDERPRICED, KNOWN, KNOWN], [KNOWN, UNDERPRICED, UNDERPRICED]] {
        let world = World::of(&lies.map(Some)).await;
        let error = world.endpoints.provider().send_raw_transaction(&[1]).await.unwrap_err();
        assert_eq!(told(&error), "already known", "{lies:?}");
    }
}

fn told(error: &RpcError<TransportErrorKind>) -> &str {
    error.as_error_resp().map_or("no answer", |answer| &answer.message)
}
