//! Goal: what consumed a tx nonce is found out whatever the endpoint keeps back, and nothing else is delayed by it.
//! Method: a sent transaction becomes final behind a proxy that keeps back or forges what one request tells.
//! What would break it: one way of asking, a tx receipt believed, an error of one slot taken for that of the turn.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use alloy::{
    eips::eip7702::Authorization,
    network::{TransactionBuilder, TransactionBuilder7702},
    primitives::{Address, B256, U256, hex},
    providers::{DynProvider, Provider},
    rpc::types::TransactionRequest,
    signers::SignerSync,
    sol_types::SolCall,
};
use contracts::Settlement;
use ledger::{
    book::BookWriter,
    invariants::violations,
    read::{Reader, Slot},
};
use relayer::{
    Error,
    keys::{Keys, TxKey},
    sender::{Sender, outcome::Recovered},
};
use serde_json::{Value, json};
use sqlx::Connection;

use crate::{
    env::{assert_success, rpc},
    proxy::{proxy, refusal},
    sender::{World, says, stranger},
};

/// Blocks that make what was sent final.
const FINAL: u32 = 3;

impl World {
    /// The same installation, behind a proxy.
    pub(crate) async fn behind(
        mut self,
        rule: impl Fn(&Value) -> Option<Value> + Send + Sync + 'static,
    ) -> Self {
        self.config.chain.rpc_url = Some(proxy(&self.env.anvil.url, rule).await);
        self.reopen().await;
        self
    }

    /// A sender over the open ledger, to be asked directly.
    fn sender(&self) -> Sender {
        let (ledger, key) = (&self.live.ledger, Keys::open(&self.config).unwrap().sender);
        let (reader, book) = (Reader::new(ledger.clone()), BookWriter::new(ledger.clone()));
        let provider = self.config.endpoints().unwrap().provider();
        Sender::new(provider, key, self.config.sending_limits(), reader, book)
    }

    /// Hash of the block in which a slot ended, as it was recorded.
    async fn end_of(&self, slot: &Slot) -> B256 {
        let path = self.config.path(&self.config.files.database);
        let url = format!("sqlite://{}?mode=ro", path.display());
        let mut db = sqlx::SqliteConnection::connect(&url).await.unwrap();
        let query = sqlx::query_scalar("select block_hash from outcome where slot = ?");
        let hash: Vec<u8> = query.bind(slot.id).fetch_one(&mut db).await.unwrap();
        B256::from_slice(&hash)
    }

    /// Sends something with the sender's own key that has nothing to do with the contract.
    pub(crate) async fn send_something_else(&self) -> B256 {
        let request = TransactionRequest::default().with_to(Address::ZERO);
        *self.with_the_senders_key().send_transaction(request).await.unwrap().tx_hash()
    }

    /// Sends a transaction by `from` that carries authorizations of the sender, for no delegation, and so consumes these tx
    /// nonces of the sender; it goes before all others.
    async fn authorize(
        &self,
        from: &DynProvider,
        tx_nonces: &[u64],
        request: TransactionRequest,
    ) -> B256 {
        let TxKey::Local(key) = Keys::open(&self.config).unwrap().sender else { panic!("a file") };
        let chain_id = U256::from(self.config.chain.id);
        let sign = |nonce: &u64| {
            let authorization = Authorization { chain_id, address: Address::ZERO, nonce: *nonce };
            let signature = key.sign_hash_sync(&authorization.signature_hash()).unwrap();
            authorization.into_signed(signature)
        };
        let request = request
            .with_authorization_list(tx_nonces.iter().map(sign).collect())
            .with_gas_limit(1_000_000)
            .with_max_priority_fee_per_gas(1_000_000_000)
            .with_max_fee_per_gas(2_000_000_000);
        *from.send_transaction(request).await.unwrap().tx_hash()
    }

    /// The block that holds a transaction, with all of its transactions, as the chain tells it.
    pub(crate) async fn block_of(&self, tx: B256) -> Value {
        let params = json!([tx]).to_string();
        let receipt = rpc(&self.provider, "eth_getTransactionReceipt", &params).await;
        let params = json!([receipt["blockNumber"], true]).to_string();
        rpc(&self.provider, "eth_getBlockByNumber", &params).await
    }
}

fn asks_for_receipt(request: &Value) -> bool {
    request["method"] == "eth_getTransactionReceipt"
}

/// Whether a whole block is asked for, which is done to look for a transaction.
fn asks_for_transactions(request: &Value) -> bool {
    request["method"] == "eth_getBlockByNumber" && request["params"][1] == true
}

#[tokio::test]
async fn an_outcome_is_told_by_its_tx_receipt_where_old_state_is_pruned() {
    let world = World::with_one_sent().await.behind(|request| {
        let block = request["params"][1].as_str().unwrap_or_default();
        // Blocks that the relayer decides by are named by their hashes, which are longer.
        let is_number = block.starts_with("0x") && block.len() < 66;
        let is_old = request["method"] == "eth_getTransactionCount" && is_number;
        is_old.then(|| refusal("missing trie node"))
    });
    let mut world = world.await;
    let settled = world.settled().await;
    world.finish().await;
    assert_eq!(world.settled().await, settled + 1);
}

/// A world with one statement sent, behind an endpoint that serves tx receipts only once it was asked for a whole block.
async fn with_one_sent_and_late_receipts() -> World {
    let is_served = AtomicBool::new(false);
    let world = World::with_one_sent().await.behind(move |request| {
        if asks_for_transactions(request) {
            is_served.store(true, Ordering::Relaxed);
        }
        let is_null = asks_for_receipt(request) && !is_served.load(Ordering::Relaxed);
        is_null.then(|| json!({ "result": null }))
    });
    world.await
}

#[tokio::test]
async fn what_a_transaction_cost_is_counted_if_it_is_found_in_its_block() {
    let mut world = with_one_sent_and_late_receipts().await;
    let before = world.live.reader.spending().await.unwrap()["settle"];
    let hash = world.slots().await[0].attempts[0].hash;
    world.mine(FINAL).await;
    world.turn().await;
    assert_eq!(world.slots().await, []);
    let after = world.live.reader.spending().await.unwrap()["settle"];
    let receipt = world.provider.get_transaction_receipt(hash).await.unwrap().unwrap();
    assert_eq!(after.gas, before.gas + receipt.gas_used);
}

#[tokio::test]
async fn a_tx_receipt_that_is_not_served_at_first_does_not_make_our_own_transaction_foreign() {
    let mut world = with_one_sent_and_late_receipts().await;
    world.mine(FINAL).await;
    let report = world.turn().await;
    assert_eq!(world.slots().await, []);
    assert!(!says(&report, "frozen"), "{report:?}");
}

#[tokio::test]
async fn a_tx_receipt_that_names_a_block_which_is_not_on_the_chain_is_no_outcome() {
    let forged: Arc<Mutex<Option<Value>>> = Arc::default();
    let served = forged.clone();
    let world = World::with_one_sent().await.behind(move |request| {
        let mut forged = served.lock().unwrap();
        if asks_for_transactions(request) {
            *forged = None;
        }
        forged
            .clone()
            .filter(|_| asks_for_receipt(request))
            .map(|receipt| json!({ "result": receipt }))
    });
    let mut world = world.await;
    world.mine(FINAL).await;
    let slot = world.slots().await.remove(0);
    let params = json!([slot.attempts[0].hash]).to_string();
    let mut receipt = rpc(&world.provider, "eth_getTransactionReceipt", &params).await;
    let truth: B256 = receipt["blockHash"].as_str().unwrap().parse().unwrap();
    receipt["blockHash"] = json!(hex::encode_prefixed([0x11; 32]));
    *forged.lock().unwrap() = Some(receipt);

    world.turn().await;
    assert_eq!(world.slots().await, []);
    assert_eq!(world.end_of(&slot).await, truth);
}

/// Goal: an endpoint cannot make up a transaction of the sender, which would stop it.
/// Method: tx receipts of ours are kept back; the block that holds our transaction shows another in its place.
/// What would break it: believing whom the endpoint says that a transaction is from.
#[tokio::test]
async fn a_transaction_that_the_sender_did_not_sign_is_no_outcome() {
    let forged: Arc<Mutex<Option<(Value, Value)>>> = Arc::default();
    let served = forged.clone();
    let world = World::with_one_sent().await.behind(move |request| {
        let (block, receipt) = served.lock().unwrap().clone()?;
        let is_ours = request["params"][0] != receipt["transactionHash"];
        if asks_for_transactions(request) {
            return Some(json!({ "result": block }));
        }
        let receipt = if is_ours { Value::Null } else { receipt };
        asks_for_receipt(request).then(|| json!({ "result": receipt }))
    });
    let mut world = world.await;
    world.mine(FINAL).await;
    let slot = world.slots().await.remove(0);
    let params = json!([slot.attempts[0].hash]).to_string();
    let mut receipt = rpc(&world.provider, "eth_getTransactionReceipt", &params).await;
    let params = json!([receipt["blockNumber"], true]).to_string();
    let mut block = rpc(&world.provider, "eth_getBlockByNumber", &params).await;
    let hash = json!(B256::repeat_byte(0x11));
    receipt["transactionHash"] = hash.clone();
    let ours = block["transactions"].as_array_mut().unwrap().iter_mut();
    let ours = ours.filter(|tx| tx["nonce"] == json!(format!("{:#x}", slot.tx_nonce)));
    for tx in ours {
        (tx["hash"], tx["value"]) = (hash.clone(), json!("0x1"));
    }
    *forged.lock().unwrap() = Some((block, receipt));

    let report = world.turn().await;
    assert!(!says(&report, "frozen"), "{report:?}");
    assert_eq!(world.slots().await.len(), 1, "unknown, so nothing is freed");
    *forged.lock().unwrap() = None;
    world.turn().await;
    assert_eq!(world.slots().await, []);
}

/// Goal: what took a tx nonce is found on chains whose blocks hold transactions of types of their own.
/// Method: a foreign transaction takes the tx nonce; its block shows a state-sync transaction before it.
/// What would break it: reading all transactions of a block or none.
#[tokio::test]
async fn a_block_that_holds_a_transaction_of_an_unknown_type_is_searched_all_the_same() {
    let system = json!({
        "type": "0x7f", "hash": B256::repeat_byte(0x7f), "from": Address::ZERO, "to": Address::ZERO, "input": "0x",
        "gas": "0x0", "nonce": "0x0", "value": "0x0",
    });
    let shown: Arc<Mutex<Option<Value>>> = Arc::default();
    let served = shown.clone();
    let world = World::with_one_sent().await.behind(move |request| {
        let block = served.lock().unwrap().clone()?;
        let is_asked = asks_for_transactions(request) && request["params"][0] == block["number"];
        is_asked.then(|| json!({ "result": block }))
    });
    let mut world = world.await;
    world.drop_all().await;
    let foreign = world.send_something_else().await;
    world.mine(FINAL).await;
    let mut block = world.block_of(foreign).await;
    block["transactions"].as_array_mut().unwrap().insert(0, system);
    *shown.lock().unwrap() = Some(block);

    let report = world.turn().await;
    assert!(says(&report, "which this ledger did not"), "{report:?}");
    assert_eq!(world.slots().await, []);
}

#[tokio::test]
async fn an_endpoint_that_serves_no_tx_receipts_delays_outcomes_and_nothing_else() {
    let is_served = Arc::new(AtomicBool::new(false));
    let served = is_served.clone();
    let world = World::with_one_sent().await.behind(move |request| {
        let is_refused = asks_for_receipt(request) && !served.load(Ordering::Relaxed);
        is_refused.then(|| refusal("tx receipts are not served"))
    });
    let mut world = world.await;
    let settled = world.settled().await;
    world.mine(FINAL).await;
    world.work(1, 2).await;
    assert_eq!(world.turn().await.sent, 1);
    assert_eq!(world.slots().await.len(), 2, "unknown, so nothing is freed");
    is_served.store(true, Ordering::Relaxed);
    world.finish().await;
    assert_eq!(world.settled().await, settled + 2);
}

#[tokio::test]
async fn a_recovery_says_what_it_took_in_and_what_it_only_accounted_for() {
    let mut world = World::new().await;
    let imported = world.provider.get_transaction_count(world.live.sender).await.unwrap();
    world.send_something_else().await;
    world.mine(FINAL).await;
    world.lose_database().await;
    let recovered = world.sender().recover(0).await.unwrap();
    assert_eq!(recovered, Recovered { imported, other: 1, until: imported + 1 });

    world.send_something_else().await;
    world.mine(1).await;
    assert_eq!(world.sender().adopt("a test of the key", 0).await.unwrap(), imported + 2);
    let report = world.turn().await;
    assert!(!says(&report, "the sender"), "{report:?}");
}

/// Goal: a recovery may end anywhere and leaves a ledger that is sound.
/// Method: a foreign transaction, then two of ours, of which the endpoint keeps the last one's tx receipt back.
/// What would break it: accounting for what is not ours at the end only.
#[tokio::test]
async fn a_recovery_that_is_interrupted_leaves_no_hole_between_slots() {
    let mut world = World::new().await;
    world.send_something_else().await;
    world.mine(FINAL).await;
    world.sender().adopt("a test of the key", 0).await.unwrap();
    let mut last = B256::ZERO;
    for organisation in 0..2 {
        world.work(organisation, 1 + u32::try_from(organisation).unwrap()).await;
        assert_eq!(world.turn().await.sent, 1);
        last = world.slots().await[0].attempts[0].hash;
        world.finish().await;
    }
    let world = world.behind(move |request| {
        let is_last = request["params"][0] == json!(last);
        (asks_for_receipt(request) && is_last).then(|| refusal("not now"))
    });
    let mut world = world.await;
    world.lose_database().await;
    world.sender().recover(0).await.unwrap_err();
    assert_eq!(violations(&world.live.ledger).await.unwrap(), []);
}

#[tokio::test]
async fn a_recovery_waits_until_every_transaction_is_final() {
    let mut world = World::new().await;
    world.mine(FINAL).await;
    world.lose_database().await;
    world.send_something_else().await;
    world.mine(1).await;
    let refused = world.sender().recover(0).await;
    let Err(Error::Usage(reason)) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("are not final yet; wait until they are"), "{reason}");
    world.mine(FINAL).await;
    assert_eq!(world.sender().recover(0).await.unwrap().other, 1);
}

#[tokio::test]
async fn more_unknown_transactions_than_are_an_accident_are_not_recovered() {
    let mut world = World::new().await;
    let known = world.provider.get_transaction_count(world.live.sender).await.unwrap();
    let set = async |world: &mut World, unknown: u64| {
        let params = json!([world.live.sender, format!("{:#x}", known + unknown)]).to_string();
        world.meddle("anvil_setNonce", &params).await;
        world.sender().recover(0).await
    };
    // Nothing sent them, so that none of them is found.
    let tried = set(&mut world, 10_000).await;
    let Err(Error::Stalled(reason)) = tried else { panic!("{tried:?}") };
    assert!(reason.contains(&format!("had tx nonce {known}")), "{reason}");
    let refused = set(&mut world, 10_001).await;
    let Err(Error::Usage(reason)) = refused else { panic!("{refused:?}") };
    assert!(
        reason.contains("has 10001 transactions") && reason.contains("sender adopt"),
        "{reason}"
    );
}

/// Goal: a tx nonce that no transaction of the account consumed is explained all the same, and what it carried goes again.
/// Method: a stranger's transaction carries the sender's authorization (EIP-7702); ours is dropped or comes too late.
/// What would break it: looking for a transaction of the account only, so that the slot is never over.
#[tokio::test]
async fn a_tx_nonce_that_an_authorization_took_is_foreign_at_finality_and_its_statement_goes_again()
{
    for is_dropped in [true, false] {
        let mut world = World::with_one_sent().await;
        let settled = world.settled().await;
        let slot = world.slots().await.remove(0);
        world.drop_all().await;
        let request = TransactionRequest::default().with_to(Address::ZERO);
        let hash = world.authorize(&stranger(&world.env), &[slot.tx_nonce], request).await;
        if !is_dropped {
            // Ours is sent again, behind it.
            world.turn().await;
            let ours = slot.attempts[0].hash;
            assert!(world.provider.get_transaction_by_hash(ours).await.unwrap().is_some());
        }
        world.mine(1).await;
        world.turn().await;
        assert_eq!((world.slots().await.len(), world.settled().await), (1, settled), "not final");
        world.mine(FINAL).await;
        let report = world.turn().await;
        assert!(says(&report, &format!("was consumed by {hash}")), "{report:?}");
        assert_eq!((report.sent, world.slots().await), (0, vec![]));

        assert_success(&world.sender_command(&["adopt", "--reason", "known"]).await);
        let report = world.turn().await;
        assert_eq!(report.sent, 1, "{report:?}");
        assert_eq!(world.slots().await[0].tx_nonce, slot.tx_nonce + 1);
        world.finish().await;
        assert_eq!(world.settled().await, settled + 1);
        assert_eq!(violations(&world.live.ledger).await.unwrap(), []);
    }
}

#[tokio::test]
async fn one_transaction_that_took_several_tx_nonces_ends_each_of_their_slots() {
    let mut world = World::with_one_sent().await;
    world.work(1, 2).await;
    assert_eq!(world.turn().await.sent, 1);
    let tx_nonces: Vec<_> = world.slots().await.iter().map(|slot| slot.tx_nonce).collect();
    assert_eq!(tx_nonces.len(), 2);
    world.drop_all().await;
    let request = TransactionRequest::default().with_to(Address::ZERO);
    world.authorize(&stranger(&world.env), &tx_nonces, request).await;
    world.mine(FINAL + 1).await;
    world.turn().await;
    assert_eq!(world.slots().await, []);
    assert_eq!(violations(&world.live.ledger).await.unwrap(), []);
}

/// What would break it: taking somebody else's call of the contract for ours because it carries an authorization of ours.
#[tokio::test]
async fn a_recovery_accounts_for_authorizations_and_takes_in_nobody_elses_call() {
    let mut world = World::new().await;
    let imported = world.provider.get_transaction_count(world.live.sender).await.unwrap();
    let call = Settlement::registerCall { payouts: vec![Address::repeat_byte(0x5c)] };
    let request = TransactionRequest::default()
        .with_to(world.config.chain.contract)
        .with_input(call.abi_encode());
    world.authorize(&stranger(&world.env), &[imported], request).await;
    world.mine(1).await;
    // One of the sender's own consumes its tx nonce and, by what it carries, the next.
    let request = TransactionRequest::default().with_to(Address::ZERO);
    world.authorize(&world.with_the_senders_key(), &[imported + 2], request).await;
    world.mine(FINAL).await;
    world.lose_database().await;
    let recovered = world.sender().recover(0).await.unwrap();
    assert_eq!(recovered, Recovered { imported, other: 3, until: imported + 3 });
    assert_eq!(violations(&world.live.ledger).await.unwrap(), []);
}
