//! Goal: one of three endpoints, preferred and wrong, moves nothing and keeps nothing from moving.
//! Method: turns through three operators' endpoints, the first of which answers one kind of request by itself.
//! What would break it: believing the first answer of the state, an error taken for an answer, a count that goes back.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use alloy::primitives::U256;
use relayer::{config::EndpointConfig, turn::Report};
use serde_json::{Value, json};

use crate::{
    env::rpc,
    proxy::{SILENCE, proxy, refusal},
    sender::{World, says},
};

/// Blocks that make what was sent final.
const FINAL: u32 = 3;

impl World {
    /// The same installation with three operators' endpoints, of which the preferred one follows a rule.
    async fn beside_two(
        mut self,
        rule: impl Fn(&Value) -> Option<Value> + Send + Sync + 'static,
    ) -> Self {
        let chain = self.env.anvil.url.clone();
        let first = proxy(&chain, rule).await;
        self.among([first, chain.clone(), chain]).await;
        self
    }

    /// Gives the installation three operators' endpoints, the preferred one first.
    async fn among(&mut self, urls: [String; 3]) {
        let named = ["anna", "bert", "cleo"].into_iter().zip(urls);
        self.config.endpoints =
            named.map(|(name, url)| EndpointConfig { operator: name.into(), url }).collect();
        self.config.chain.rpc_url = None;
        self.reopen().await;
    }
}

fn asks(request: &Value, method: &str) -> bool {
    request["method"] == method
}

#[tokio::test]
async fn an_endpoint_that_denies_the_senders_transactions_is_outvoted() {
    let world = World::with_one_sent().await;
    let mut world = world
        .beside_two(|request| {
            asks(request, "eth_getTransactionCount").then(|| json!({ "result": "0x0" }))
        })
        .await;
    let settled = world.settled().await;
    world.work(1, 2).await;
    world.turn().await;
    world.finish().await;
    assert_eq!(world.settled().await, settled + 2);
}

#[tokio::test]
async fn an_endpoint_that_denies_what_was_final_is_waited_for() {
    let is_lying = Arc::new(AtomicBool::new(false));
    let lying = is_lying.clone();
    let world = World::with_one_sent().await;
    let mut world = world
        .behind(move |request| {
            let lies = asks(request, "eth_getTransactionCount") && lying.load(Ordering::Relaxed);
            lies.then(|| json!({ "result": "0x0" }))
        })
        .await;
    let settled = world.settled().await;
    world.finish().await;
    is_lying.store(true, Ordering::Relaxed);
    world.work(1, 2).await;
    let report = world.turn().await;
    assert!(report.sent == 0 && says(&report, "transactions wait"), "{report:?}");
    is_lying.store(false, Ordering::Relaxed);
    world.turn().await;
    world.finish().await;
    assert_eq!(world.settled().await, settled + 2);
}

#[tokio::test]
async fn an_endpoint_that_invents_an_outcome_is_outvoted() {
    let forged: Arc<Mutex<Option<Value>>> = Arc::default();
    let served = forged.clone();
    let world = World::with_one_sent().await;
    let slot = world.slots().await.remove(0);
    let count = format!("{:#x}", slot.tx_nonce + 1);
    let mut world = world
        .beside_two(move |request| {
            let receipt = served.lock().unwrap().clone()?;
            match request["method"].as_str()? {
                "eth_getTransactionCount" => Some(json!({ "result": count })),
                "eth_getTransactionReceipt" => Some(json!({ "result": receipt })),
                _ => None,
            }
        })
        .await;
    let settled = world.settled().await;
    world.drop_all().await;
    world.mine(FINAL).await;
    // Whatever was mined before, with the hash of what was not.
    let block = rpc(&world.provider, "eth_getBlockByNumber", "[\"0x1\", false]").await;
    let params = json!([block["transactions"][0]]).to_string();
    let mut receipt = rpc(&world.provider, "eth_getTransactionReceipt", &params).await;
    receipt["transactionHash"] = json!(slot.attempts[0].hash);
    *forged.lock().unwrap() = Some(receipt);

    world.turn().await;
    assert_eq!(world.slots().await.len(), 1, "it is not mined");
    *forged.lock().unwrap() = None;
    world.turn().await;
    world.finish().await;
    assert_eq!(world.settled().await, settled + 1);
}

/// Goal: one of three endpoints hides no theft of the sender's key.
/// Method: a foreign transaction took the tx nonce; the preferred endpoint shows ours in its place, in a true block.
/// What would break it: taking the block's place on the chain for that of the transaction in the block.
#[tokio::test]
async fn an_endpoint_that_shows_our_transaction_in_place_of_a_foreign_one_is_outvoted() {
    let forged: Arc<Mutex<Option<(Value, Value)>>> = Arc::default();
    let served = forged.clone();
    let world = World::with_one_sent().await;
    let ours = world.slots().await[0].attempts[0].hash;
    let mut world = world
        .beside_two(move |request| {
            let (receipt, block) = served.lock().unwrap().clone()?;
            let asked = &request["params"];
            match request["method"].as_str()? {
                "eth_getTransactionReceipt" if asked[0] == json!(ours) => {
                    Some(json!({ "result": receipt }))
                }
                "eth_getTransactionReceipt" => Some(json!({ "result": null })),
                "eth_getBlockByNumber" if asked[0] == block["number"] => {
                    Some(json!({ "result": block }))
                }
                _ => None,
            }
        })
        .await;
    world.drop_all().await;
    let foreign = world.send_something_else().await;
    world.mine(FINAL).await;
    let params = json!([foreign]).to_string();
    let mut receipt = rpc(&world.provider, "eth_getTransactionReceipt", &params).await;
    receipt["transactionHash"] = json!(ours);
    let mut block = world.block_of(foreign).await;
    block["transactions"] = json!([ours]);
    *forged.lock().unwrap() = Some((receipt, block));

    let report = world.turn().await;
    assert!(says(&report, "which this ledger did not"), "{report:?}");
}

#[tokio::test]
async fn an_endpoint_that_invents_what_a_transaction_cost_is_outvoted() {
    let world = World::with_one_sent().await;
    let ours = world.slots().await[0].attempts[0].clone();
    let chain = world.provider.clone();
    let forged: Arc<Mutex<Option<Value>>> = Arc::default();
    let served = forged.clone();
    let mut world = world
        .beside_two(move |request| {
            let receipt = served.lock().unwrap().clone()?;
            asks(request, "eth_getTransactionReceipt").then(|| json!({ "result": receipt }))
        })
        .await;
    let before = world.live.reader.spending().await.unwrap()["settle"];
    world.mine(FINAL).await;
    let params = json!([ours.hash]).to_string();
    let mut receipt = rpc(&chain, "eth_getTransactionReceipt", &params).await;
    receipt["gasUsed"] = json!("0xffffffffff");
    *forged.lock().unwrap() = Some(receipt);
    world.turn().await;
    assert_eq!(world.slots().await, []);
    let after = world.live.reader.spending().await.unwrap()["settle"];
    let spent = after.gas - before.gas;
    assert!(spent > 0 && spent <= ours.gas_limit, "{before:?} {after:?}");
}

/// Goal: what consumed a tx nonce is told although fewer operators than have to agree keep tx receipts.
/// Method: two of three have pruned them; all three still have the block.
/// What would break it: waiting for a vote that cannot come.
#[tokio::test]
async fn an_outcome_is_told_where_two_of_three_have_pruned_tx_receipts() {
    let mut world = World::with_one_sent().await;
    let chain = world.env.anvil.url.clone();
    let pruned = async || {
        let rule = |request: &Value| {
            asks(request, "eth_getTransactionReceipt").then(|| json!({ "result": null }))
        };
        proxy(&chain, rule).await
    };
    let urls = [pruned().await, pruned().await, chain.clone()];
    world.among(urls).await;
    let settled = world.settled().await;
    world.finish().await;
    assert_eq!(world.settled().await, settled + 1);
}

/// Goal: a foreign transaction is found although the preferred endpoint says nothing true of the account's past.
/// Method: it answers every old count by one that was never passed.
/// What would break it: searching by what one endpoint says.
#[tokio::test]
async fn an_endpoint_that_leads_the_search_for_a_foreign_transaction_astray_is_outvoted() {
    let world = World::with_one_sent().await;
    let mut world = world
        .beside_two(|request| {
            let block = request["params"][1].as_str().unwrap_or_default();
            let is_number = block.starts_with("0x") && block.len() < 66;
            (asks(request, "eth_getTransactionCount") && is_number)
                .then(|| json!({ "result": "0xff" }))
        })
        .await;
    world.drop_all().await;
    world.send_something_else().await;
    world.mine(FINAL).await;
    let report = world.turn().await;
    assert!(says(&report, "which this ledger did not"), "{report:?}");
}

/// A turn, which does not wait for an endpoint that keeps silent.
async fn turn_in_time(world: &mut World) -> Report {
    let began = Instant::now();
    let report = world.turn().await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    report
}

/// What an endpoint answers that does not find a transaction, and answers so when it is sent.
fn without_the_transaction(request: &Value, sent: Value) -> Option<Value> {
    match request["method"].as_str()? {
        "eth_getTransactionByHash" => Some(json!({ "result": null })),
        "eth_sendRawTransaction" => Some(sent),
        _ => None,
    }
}

/// What would break it: waiting for all of them, or asking again each time whoever kept silent.
#[tokio::test]
async fn an_endpoint_that_keeps_silent_when_it_is_sent_to_does_not_delay_the_others() {
    let world = World::new().await;
    let mut world = world
        .beside_two(|request| asks(request, "eth_sendRawTransaction").then_some(SILENCE))
        .await;
    world.work(0, 1).await;
    assert_eq!(turn_in_time(&mut world).await.sent, 1);
}

/// What would break it: waiting for all of them when one says that it has the transaction already.
#[tokio::test]
async fn a_silent_endpoint_is_not_waited_for_where_the_others_have_the_transaction() {
    let world = World::with_one_sent().await;
    let mut world = world.beside_two(|request| without_the_transaction(request, SILENCE)).await;
    turn_in_time(&mut world).await;
}

/// Goal: a transaction that the others have is not replaced by a dearer one because one endpoint would take only that.
/// Method: the preferred endpoint does not find it, and refuses it as one that does not outbid another.
/// What would break it: passing on the refusal that comes first.
#[tokio::test]
async fn an_endpoint_that_calls_a_known_transaction_underpriced_makes_nothing_dearer() {
    let world = World::with_one_sent().await;
    let mut world = world
        .beside_two(|request| {
            without_the_transaction(request, refusal("replacement transaction underpriced"))
        })
        .await;
    for _ in 0..3 {
        world.turn().await;
    }
    assert_eq!(world.slots().await[0].attempts.len(), 1);
}

#[tokio::test]
async fn an_endpoint_that_lets_every_call_revert_is_outvoted() {
    let world = World::new().await;
    let mut world = world
        .beside_two(|request| {
            let error = json!({ "code": 3, "message": "execution reverted", "data": "0x" });
            asks(request, "eth_call").then(|| json!({ "error": error }))
        })
        .await;
    let settled = world.settled().await;
    world.work(0, 1).await;
    let report = world.turn().await;
    assert_eq!(report.sent, 1, "{report:?}");
    world.finish().await;
    assert_eq!(world.settled().await, settled + 1);
}

#[tokio::test]
async fn an_endpoint_whose_refusals_are_its_own_is_passed_over() {
    for method in ["eth_getTransactionByHash", "eth_getBalance", "eth_estimateGas", "eth_getCode"] {
        Box::pin(assert_is_passed_over(method, refusal("transaction indexing is in progress")))
            .await;
    }
}

/// That what the preferred endpoint always answers to a method keeps nothing from settling.
async fn assert_is_passed_over(method: &'static str, answer: Value) {
    let world = World::with_one_sent().await;
    let mut world =
        world.beside_two(move |request| asks(request, method).then(|| answer.clone())).await;
    let settled = world.settled().await;
    world.work(1, 2).await;
    let report = world.turn().await;
    assert_eq!(report.sent, 1, "{method}: {report:?}");
    world.finish().await;
    assert_eq!(world.settled().await, settled + 2, "{method}");
}

#[tokio::test]
async fn an_endpoint_whose_answers_cannot_be_read_is_passed_over() {
    for method in [
        "eth_getBalance",
        "eth_getCode",
        "eth_feeHistory",
        "eth_estimateGas",
        "eth_getTransactionByHash",
        "eth_getTransactionCount",
    ] {
        Box::pin(assert_is_passed_over(method, json!({ "result": "x" }))).await;
    }
}

/// Goal: one of three endpoints neither stops the sender for want of money nor makes it pay what it likes.
/// Method: its balance is nothing, its prices are a thousandfold, its tips are others that come to the same in all, and its
/// blocks are fuller than any, or neither is what it should be.
/// What would break it: prices and balance read from one endpoint, however it is chosen.
#[tokio::test]
async fn the_prices_and_the_balance_of_one_endpoint_are_outvoted() {
    const DEAR: &str = "0xd18c2e2800";
    let lies =
        ["eth_getBalance", "eth_feeHistory", "rearranged", "listed", "latest", "full", "odd"];
    for method in lies {
        let world = World::with_one_sent().await;
        let usual = world.slots().await[0].attempts[0].clone();
        let history =
            rpc(&world.provider, "eth_feeHistory", "[\"0xa\", \"latest\", [20, 50, 80]]").await;
        let rearranged = rearranged(&history);
        let header = rpc(&world.provider, "eth_getBlockByNumber", "[\"latest\", false]").await;
        let mut world = world
            .beside_two(move |request| {
                let is_header =
                    asks(request, "eth_getBlockByNumber") && request["params"][0] == "latest";
                match method {
                    "latest" if is_header => {
                        let mut header = header.clone();
                        header["baseFeePerGas"] = json!(DEAR);
                        Some(json!({ "result": header }))
                    }
                    "full" if is_header => {
                        let mut header = header.clone();
                        header["gasUsed"] = json!("0xffffffffffffffff");
                        Some(json!({ "result": header }))
                    }
                    "odd" if is_header => {
                        let mut header = header.clone();
                        header["transactions"] = json!([{ "x": 1 }]);
                        Some(json!({ "result": header }))
                    }
                    "listed" if asks(request, "eth_feeHistory") => {
                        Some(json!({ "result": [[], []] }))
                    }
                    "rearranged" if asks(request, "eth_feeHistory") => {
                        Some(json!({ "result": rearranged }))
                    }
                    "eth_getBalance" if asks(request, method) => Some(json!({ "result": "0x0" })),
                    "eth_feeHistory" if asks(request, method) => Some(json!({ "result": {
                        "oldestBlock": "0x1", "baseFeePerGas": [DEAR, DEAR], "gasUsedRatio": [0.5],
                        "reward": [[DEAR, DEAR, DEAR]],
                    } })),
                    _ => None,
                }
            })
            .await;
        world.work(1, 2).await;
        let report = world.turn().await;
        assert_eq!(report.sent, 1, "{method}: {report:?}");
        let slots = world.slots().await;
        let newest = slots.last().unwrap().attempts.last().unwrap();
        assert!(newest.max_fee <= usual.max_fee * 2, "{method}: {newest:?}, not {usual:?}");
        assert!(newest.tip <= usual.tip * 2, "{method}: {newest:?}, not {usual:?}");
    }
}

/// What would break it: passing on what the first of them said, whatever it was.
#[tokio::test]
async fn one_endpoint_whose_history_cannot_be_read_does_not_keep_those_that_serve_none_from_their_advice()
 {
    let mut world = World::with_one_sent().await;
    let chain = world.env.anvil.url.clone();
    let unreadable =
        proxy(&chain, |request| asks(request, "eth_feeHistory").then(|| json!({ "result": "x" })))
            .await;
    let without = proxy(&chain, |request| {
        let error = json!({ "code": -32601, "message": "the method is not available" });
        asks(request, "eth_feeHistory").then(|| json!({ "error": error }))
    })
    .await;
    world.among([unreadable, without.clone(), without]).await;
    world.work(1, 2).await;
    let report = world.turn().await;
    assert_eq!(report.sent, 1, "{report:?}");
}

/// A history of prices in which all tips and the next base fee come to what they are in another one, as the tips of one block.
fn rearranged(history: &Value) -> Value {
    let number = |value: &Value| serde_json::from_value::<U256>(value.clone()).unwrap();
    let rewards = history["reward"].as_array().unwrap().iter().flat_map(|block| block.as_array());
    let tips = rewards.flatten().map(number).fold(U256::ZERO, |sum, tip| sum + tip);
    let base = number(history["baseFeePerGas"].as_array().unwrap().last().unwrap());
    let (one, half) = (U256::from(1), (base + tips) / U256::from(2) - U256::from(1));
    let rest = base + tips - one - half - half;
    json!({
        "oldestBlock": "0x1", "baseFeePerGas": [one, one], "gasUsedRatio": [0.5],
        "reward": [[rest, half, half]],
    })
}
