//! The simulated chain against a real anvil: the same calls go to both, and the answers must be the same.
//!
//! Hashes of blocks differ, because headers do; they are compared by the numbers of their blocks. `QUITTANCE_ANVIL` names
//! the anvil.

use std::{collections::BTreeMap, time::Duration};

use alloy::{
    consensus::{SignableTransaction, Transaction, TxEip1559},
    eips::eip2718::Encodable2718,
    network::TxSignerSync,
    primitives::{Address, B256, Bytes, TxKind, U256, hex},
    providers::{DynProvider, Provider},
    signers::local::{MnemonicBuilder, PrivateKeySigner, coins_bip39::English},
    sol_types::{SolCall, SolConstructor},
    transports::RpcError,
};
use contracts::{Settlement, TestToken, deploy, eip712::DepositKey};
use k256::ecdsa::SigningKey;
use ledger::statement;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use relayer::anvil::{Anvil, GENESIS_TIME, MNEMONIC};
use revm::state::AccountInfo;
use serde_json::{Value, json};

use crate::{
    chain::{CHAIN_ID, Chain, Tx},
    evm::{State, TX_GAS},
    rpc::{self, Failure, View},
};

const CALLS: u64 = 10_000;
const THAW: u32 = 600;
/// How often anvil is asked again, a hundredth of a second later, for a history of prices that lacks blocks.
const ENTERED: u32 = 500;
/// Kinds of questions that are asked besides the plain ones.
const KINDS: [&str; 6] = [
    "eth_feeHistory",
    "eth_getBlockByHash",
    "eth_call by block hash",
    "eth_getLogs by block hash",
    "eth_getBlockByNumber with transactions",
    "eth_getBlockByHash with transactions",
];

/// Both chains, and what is known of them.
struct Pair {
    anvil: DynProvider,
    ours: Chain,
    keys: Vec<PrivateKeySigner>,
    rng: ChaCha8Rng,
    settlement: Address,
    token: Address,
    /// Transactions sent, mined or not.
    sent: Vec<B256>,
    calls: u64,
    by_method: BTreeMap<String, u64>,
    /// Numbers of blocks by hash, on either side, reorged ones included.
    numbers: BTreeMap<String, u64>,
    /// Hashes of blocks as each side has them now, ours and anvil's, by number.
    hashes: BTreeMap<u64, [B256; 2]>,
    deepest_reorg: u64,
    statement: (u32, u64),
}

#[tokio::test]
async fn the_simulated_chain_answers_as_anvil_does() {
    let process = Anvil::start(None).await.unwrap();
    let anvil = process.provider();
    let mut pair = Pair::new(anvil).await;
    while pair.calls < CALLS {
        pair.step().await;
    }
    println!(
        "{} calls compared, reorgs of up to {} blocks: {:?}",
        pair.calls, pair.deepest_reorg, pair.by_method
    );
    for kind in KINDS {
        assert!(pair.by_method.contains_key(kind), "not compared: {kind} of {:?}", pair.by_method);
    }
    assert!(pair.deepest_reorg > 1);
}

fn key(index: u32) -> PrivateKeySigner {
    MnemonicBuilder::<English>::default().phrase(MNEMONIC).index(index).unwrap().build().unwrap()
}

fn attester() -> SigningKey {
    SigningKey::from_slice(&[7; 32]).unwrap()
}

impl Pair {
    async fn new(anvil: DynProvider) -> Self {
        let keys: Vec<_> = (0..4).map(key).collect();
        let mut state = State::default();
        let balance = U256::from(10_000) * U256::from(10).pow(U256::from(18));
        for index in 0..10 {
            let info = AccountInfo { balance, ..Default::default() };
            state.insert_account_info(key(index).address(), info);
        }
        let deployer = keys[0].address();
        let mut pair = Self {
            anvil,
            ours: Chain::new(state, GENESIS_TIME),
            rng: ChaCha8Rng::seed_from_u64(1),
            settlement: deployer.create(0),
            token: deployer.create(1),
            keys,
            sent: Vec::new(),
            calls: 0,
            by_method: BTreeMap::new(),
            numbers: BTreeMap::new(),
            hashes: BTreeMap::new(),
            deepest_reorg: 0,
            statement: (0, 0),
        };
        pair.anvil_only("evm_setAutomine", json!([false])).await;
        let genesis = pair.ask_anvil("eth_getBlockByNumber", json!(["0x0", false])).await.unwrap();
        pair.numbers.insert(genesis["hash"].as_str().unwrap().to_owned(), 0);
        pair.numbers.insert(pair.ours.head().hash.to_string(), 0);
        let token =
            TestToken::constructorCall { name: "T".into(), symbol: "T".into(), decimals_: 6 };
        let token = [TestToken::BYTECODE.as_ref(), &token.abi_encode()].concat();
        for code in [deploy::init_code(THAW), token.into()] {
            pair.send(0, TxKind::Create, code).await;
            pair.mine().await;
        }
        let calls = [
            Settlement::registerTokenCall { token: pair.token }.abi_encode(),
            Settlement::registerCall { payouts: vec![deployer] }.abi_encode(),
        ];
        for call in calls {
            pair.send(0, TxKind::Call(pair.settlement), call.into()).await;
            pair.mine().await;
        }
        for who in 0..4 {
            let (to, settlement) = (pair.keys[who].address(), pair.settlement);
            let token = TxKind::Call(pair.token);
            let mint = TestToken::mintCall { to, amount: U256::from(u64::MAX) };
            pair.send(who, token, mint.abi_encode().into()).await;
            pair.mine().await;
            let approve = TestToken::approveCall { spender: settlement, value: U256::MAX };
            pair.send(who, token, approve.abi_encode().into()).await;
            pair.mine().await;
        }
        pair
    }

    async fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..22 => self.transact().await,
            22..34 => self.mine().await,
            34..36 => self.reorganise().await,
            36..38 => self.replace().await,
            38..62 => self.view().await,
            62..70 => self.estimate().await,
            70..74 => self.logs().await,
            74..80 => self.by_hash().await,
            80..82 => self.fee_history().await,
            82..91 => self.transaction().await,
            _ => self.accounts_and_blocks().await,
        }
    }

    fn deposit_key(&self, who: usize, salt: u8) -> DepositKey {
        DepositKey {
            requestor: self.keys[who].address(),
            signer: statement::address_of(attester().verifying_key()),
            cosigner: Address::ZERO,
            token: self.token,
            salt: B256::repeat_byte(salt),
        }
    }

    /// Some call of the contract, sensible or not.
    fn input(&mut self, who: usize) -> Bytes {
        let to = self.keys[self.rng.random_range(0..4)].address();
        let salt = self.rng.random_range(1..3);
        let owner = if self.rng.random_bool(0.9) { who } else { 0 };
        let key = self.deposit_key(owner, salt);
        let units = self.rng.random_range(0..1000);
        let number = self.rng.random_range(0..6);
        match self.rng.random_range(0..8) {
            0 | 1 => Settlement::depositCall { key: key.into(), units }.abi_encode(),
            2 => Settlement::thawCall { key: key.into(), units }.abi_encode(),
            3 => Settlement::withdrawCall { key: key.into(), to }.abi_encode(),
            4 => Settlement::registerCall { payouts: vec![to; usize::from(salt)] }.abi_encode(),
            5 => {
                let providers = vec![1, number];
                Settlement::claimCall { token: self.token, providers }.abi_encode()
            }
            6 => Settlement::setPayoutCall {
                provider: number,
                payout: to,
                deadline: 0,
                signature: Bytes::new(),
            }
            .abi_encode(),
            _ => self.settle_call().abi_encode(),
        }
        .into()
    }

    /// A batch of one statement of the first account's first deposit, now and then spoiled.
    fn settle_call(&mut self) -> Settlement::settleCall {
        let key = self.deposit_key(0, 1);
        let settlement = Settlement::depositOfCall { id: key.id() };
        let state = self.ours_call(settlement.abi_encode().into()).unwrap_or_default();
        let state = Settlement::depositOfCall::abi_decode_returns(&state);
        let (epoch, spent) = state.map_or((0, 0), |state| (state.epoch, state.spent));
        let units = self.rng.random_range(1..20);
        let rows = contracts::rows::encode(&[(1, units)]).unwrap();
        let manifest = B256::repeat_byte(self.rng.random());
        let signed = statement::Statement {
            key: key.clone(),
            epoch: epoch + 1,
            spent: ledger::Units::new(spent + units),
            manifest,
            rows: rows.clone(),
        };
        self.statement = (epoch, spent);
        let domain = contracts::eip712::domain(CHAIN_ID, self.settlement);
        let mut signature = statement::sign(&attester(), signed.digest(&domain)).unwrap().to_vec();
        if self.rng.random_bool(0.2) {
            signature[3] ^= 1;
        }
        let statement = Settlement::Statement {
            key: key.into(),
            epoch: epoch + 1,
            manifest,
            rows: rows.into(),
            signature: signature.into(),
            cosignature: Bytes::new(),
        };
        Settlement::settleCall { statements: vec![statement] }
    }

    fn ours_call(&self, input: Bytes) -> Option<Vec<u8>> {
        let request = json!({ "to": self.settlement, "input": input });
        let view = View::of(&self.ours);
        let answer = rpc::answer(&view, &self.ours.pool, "eth_call", &json!([request, "latest"]));
        hex::decode(answer.ok()?.as_str()?).ok()
    }

    async fn transact(&mut self) {
        let who = self.rng.random_range(0..4);
        let input = self.input(who);
        self.send(who, TxKind::Call(self.settlement), input).await;
    }

    /// Signs and sends the same bytes to both.
    async fn send(&mut self, who: usize, to: TxKind, input: Bytes) {
        let account = self.keys[who].address();
        let mined = self.ours.head().account(account).0;
        let mut nonce = mined;
        while self.ours.pool.contains_key(&(account, nonce)) {
            nonce += 1;
        }
        let chance = self.rng.random_range(0..40);
        if self.ours.height() > 14 && chance < 2 {
            // A used one, or one ahead.
            let other = if chance == 0 { mined.saturating_sub(1) } else { nonce + 1 };
            if !self.ours.pool.contains_key(&(account, other)) {
                nonce = other;
            }
        }
        let tip = 1_000_000_000 + u128::from(self.rng.random_range(0..1_000_000_u64));
        self.send_with(who, to, input, nonce, (10_000_000_000 + tip, tip)).await;
    }

    async fn send_with(
        &mut self,
        who: usize,
        to: TxKind,
        input: Bytes,
        nonce: u64,
        (max_fee, tip): (u128, u128),
    ) {
        let mut tx = TxEip1559 {
            chain_id: CHAIN_ID,
            nonce,
            gas_limit: if to.is_create() { TX_GAS } else { 600_000 },
            max_fee_per_gas: max_fee,
            max_priority_fee_per_gas: tip,
            to,
            input,
            ..Default::default()
        };
        let signature = self.keys[who].sign_transaction_sync(&mut tx).unwrap();
        let raw: Bytes = tx.into_signed(signature).encoded_2718().into();
        let ours = rpc::decode(&raw).and_then(|tx| {
            let hash = *tx.tx_hash();
            self.sent.push(hash);
            self.ours
                .submit(tx)
                .map(|hash| json!(hash))
                .map_err(|refusal| rpc::failure(-32000, refusal.message()))
        });
        let theirs = self.ask_anvil("eth_sendRawTransaction", json!([raw])).await;
        self.agree("eth_sendRawTransaction", &json!([raw]), refusals(ours), refusals(theirs));
    }

    /// Sends another transaction for a tx nonce that waits: for a quarter more, or for the same.
    async fn replace(&mut self) {
        let waiting: Vec<_> =
            self.ours.pool.iter().map(|(place, tx)| (*place, tx.clone())).collect();
        let Some(((account, nonce), tx)) = waiting.first().cloned() else { return };
        let who = self.keys.iter().position(|key| key.address() == account).unwrap();
        let (max_fee, tip) = (tx.max_fee_per_gas(), tx.max_priority_fee_per_gas().unwrap());
        let raised = |fee: u128| fee + fee / 4;
        let fees =
            if self.rng.random_bool(0.6) { (raised(max_fee), raised(tip)) } else { (max_fee, tip) };
        let input = self.input(who);
        self.send_with(who, TxKind::Call(self.settlement), input, nonce, fees).await;
    }

    /// One block on both, of the same transactions at the same time.
    async fn mine(&mut self) {
        let pause = [1, 12, 12, 400][self.rng.random_range(0..4)];
        let time = self.ours.head().header.timestamp + pause;
        self.anvil_only("evm_setNextBlockTimestamp", json!([time])).await;
        self.anvil_only("evm_mine", json!([])).await;
        // The base fee that anvil begins with is that of its first block after the genesis too.
        let base_fee =
            if self.ours.height() == 0 { 1_000_000_000 } else { self.ours.next_base_fee() };
        let txs = self.by_arrival(self.ours.ready(base_fee, &|_| false));
        let block = self.ours.mine(&txs, time, base_fee);
        let height = self.ours.height();
        self.ours.finalise(height.saturating_sub(2));
        let theirs =
            self.ask_anvil("eth_getBlockByNumber", json!(["latest", false])).await.unwrap();
        self.numbers.insert(block.hash.to_string(), height);
        self.numbers.insert(theirs["hash"].as_str().unwrap().to_owned(), height);
        self.hashes.insert(height, [block.hash, theirs["hash"].as_str().unwrap().parse().unwrap()]);
        self.compare("eth_getBlockByNumber", json!([format!("0x{height:x}"), false])).await;
        self.compare("eth_getBlockReceipts", json!([format!("0x{height:x}")])).await;
    }

    /// Transactions in the order in which they came, those of one sender by tx nonce: what this anvil is told to do.
    fn by_arrival(&self, mut ready: Vec<Tx>) -> Vec<Tx> {
        let arrived = |tx: &Tx| self.sent.iter().rposition(|hash| hash == tx.tx_hash());
        let mut ordered: Vec<Tx> = Vec::new();
        while !ready.is_empty() {
            let is_next = |tx: &&Tx| {
                ready
                    .iter()
                    .all(|other| other.signer() != tx.signer() || other.nonce() >= tx.nonce())
            };
            let next = ready.iter().filter(is_next).min_by_key(|tx| arrived(tx)).unwrap().clone();
            ready.retain(|tx| tx.tx_hash() != next.tx_hash());
            ordered.push(next);
        }
        ordered
    }

    /// Takes one block or both that are not final off both, with what they held, and empties both pools.
    async fn reorganise(&mut self) {
        if self.ours.height() < 20 {
            return;
        }
        let depth = self.rng.random_range(1..=2);
        self.deepest_reorg = self.deepest_reorg.max(depth);
        self.hashes.split_off(&(self.ours.height() + 1 - depth));
        self.anvil_only("anvil_rollback", json!([depth])).await;
        self.anvil_only("anvil_dropAllTransactions", json!([])).await;
        self.ours.roll_back(depth);
        self.ours.pool.clear();
        // It goes on from the base fee of the block that it has just taken off.
        let base_fee = self.ours.next_base_fee();
        self.anvil_only("anvil_setNextBlockBaseFeePerGas", json!([base_fee])).await;
        for _ in 0..depth {
            self.mine().await;
        }
    }

    async fn view(&mut self) {
        let who = self.rng.random_range(0..4);
        let from = self.keys[who].address();
        let number = self.rng.random_range(0..6);
        let token = self.token;
        let salt = self.rng.random_range(1..3);
        let id = self.deposit_key(who, salt).id();
        let (to, input): (Address, Bytes) = match self.rng.random_range(0..7) {
            0 => (self.settlement, Settlement::depositOfCall { id }.abi_encode().into()),
            1 => {
                let call = Settlement::creditOfCall { token, provider: number };
                (self.settlement, call.abi_encode().into())
            }
            2 => (self.settlement, Settlement::providerCountCall {}.abi_encode().into()),
            3 => {
                (self.settlement, Settlement::payoutOfCall { provider: number }.abi_encode().into())
            }
            4 => (token, TestToken::balanceOfCall { account: from }.abi_encode().into()),
            _ => (self.settlement, self.input(who)),
        };
        let request = json!({ "from": from, "to": to, "input": input });
        let at = self.some_block();
        self.compare("eth_call", json!([request, at])).await;
    }

    fn some_block(&mut self) -> String {
        let height = self.ours.height();
        if self.rng.random_bool(0.5) {
            return "latest".into();
        }
        format!("0x{:x}", height - self.rng.random_range(0..height.min(10)))
    }

    async fn estimate(&mut self) {
        let who = self.rng.random_range(0..4);
        let from = self.keys[who].address();
        let input = self.input(who);
        let request = json!({ "from": from, "to": self.settlement, "input": input });
        self.compare("eth_estimateGas", json!([request, "latest"])).await;
    }

    async fn logs(&mut self) {
        let height = self.ours.height();
        let from = height - self.rng.random_range(0..height.min(12));
        let to = self.rng.random_range(from..=height + 1);
        let filter = json!({
            "address": self.settlement,
            "fromBlock": format!("0x{from:x}"),
            "toBlock": format!("0x{to:x}"),
        });
        self.compare("eth_getLogs", json!([filter])).await;
    }

    /// Something that is asked of a block by its hash, which is another one on either side, or of a block with its transactions.
    async fn by_hash(&mut self) {
        let height = self.ours.height();
        let number = height - self.rng.random_range(0..10);
        let Some(hashes) = self.hashes.get(&number).copied() else { return };
        let (settlement, account) = (self.settlement, self.keys[0].address());
        let input: Bytes = TestToken::balanceOfCall { account }.abi_encode().into();
        let call = json!({ "from": account, "to": self.token, "input": input });
        let (kind, method, params): (_, _, Box<dyn Fn(B256) -> Value>) = match self
            .rng
            .random_range(0..5)
        {
            0 => (KINDS[1], "eth_getBlockByHash", Box::new(|hash| json!([hash, false]))),
            1 => (KINDS[2], "eth_call", Box::new(move |hash| json!([call, { "blockHash": hash }]))),
            2 => {
                let filter = move |hash| json!([{ "address": settlement, "blockHash": hash }]);
                (KINDS[3], "eth_getLogs", Box::new(filter))
            }
            3 => {
                let params = json!([format!("0x{number:x}"), true]);
                (KINDS[4], "eth_getBlockByNumber", Box::new(move |_| params.clone()))
            }
            _ => (KINDS[5], "eth_getBlockByHash", Box::new(|hash| json!([hash, true]))),
        };
        let [ours, theirs] = hashes.map(params);
        *self.by_method.entry(kind.to_owned()).or_default() += 1;
        self.compare_as(method, ours, theirs).await;
    }

    async fn fee_history(&mut self) {
        // Behind an older block anvil names the price of the newest.
        let count = self.rng.random_range(1..8);
        let params = json!([format!("0x{count:x}"), "latest", [50.0]]);
        let (method, view) = ("eth_feeHistory", View::of(&self.ours));
        let ours = rpc::answer(&view, &self.ours.pool, method, &params);
        let prices = |answer: &Result<Value, Failure>| {
            answer
                .as_ref()
                .ok()
                .and_then(|history| Some(history["baseFeePerGas"].as_array()?.len()))
        };
        let mut theirs = self.ask_anvil(method, params.clone()).await;
        // Anvil enters a block into this history some time after it is mined, and leaves out what it has not entered.
        for _ in 0..ENTERED {
            if prices(&theirs) == prices(&ours) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            theirs = self.ask_anvil(method, params.clone()).await;
        }
        self.agree(method, &params, ours, theirs);
    }

    async fn transaction(&mut self) {
        let hash = match self.rng.random_range(0..20) {
            0 => B256::repeat_byte(0x55),
            _ => self.sent[self.sent.len() - 1 - self.rng.random_range(0..self.sent.len().min(40))],
        };
        let is_receipt = self.rng.random_bool(0.5);
        let method =
            if is_receipt { "eth_getTransactionReceipt" } else { "eth_getTransactionByHash" };
        self.compare(method, json!([hash])).await;
    }

    async fn accounts_and_blocks(&mut self) {
        let account = self.keys[self.rng.random_range(0..4)].address();
        let at = self.some_block();
        match self.rng.random_range(0..9) {
            0 => self.compare("eth_chainId", json!([])).await,
            1 => self.compare("eth_blockNumber", json!([])).await,
            2 => self.compare("eth_getTransactionCount", json!([account, at])).await,
            3 => self.compare("eth_getTransactionCount", json!([account, "pending"])).await,
            4 => self.compare("eth_getBalance", json!([account, at])).await,
            5 => self.compare("eth_getCode", json!([self.token, at])).await,
            6 => self.compare("eth_getStorageAt", json!([self.settlement, "0x0", at])).await,
            7 => {
                let tag = ["latest", "finalized", "0x7fffff"][self.rng.random_range(0..3)];
                self.compare("eth_getBlockByNumber", json!([tag, false])).await;
            }
            _ => self.compare("eth_getBlockByHash", json!([B256::repeat_byte(1), false])).await,
        }
    }

    async fn compare(&mut self, method: &'static str, params: Value) {
        self.compare_as(method, params.clone(), params).await;
    }

    /// Asks both the same, each in its own words.
    async fn compare_as(&mut self, method: &'static str, ours: Value, theirs: Value) {
        let view = View::of(&self.ours);
        let answer = rpc::answer(&view, &self.ours.pool, method, &ours);
        let theirs = self.ask_anvil(method, theirs).await;
        self.agree(method, &ours, answer, theirs);
    }

    fn agree(
        &mut self,
        method: &str,
        params: &Value,
        ours: Result<Value, Failure>,
        theirs: Result<Value, Failure>,
    ) {
        self.calls += 1;
        *self.by_method.entry(method.to_owned()).or_default() += 1;
        let context = format!("call {}: {method} {params}", self.calls);
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) if method == "eth_estimateGas" => {
                let number = |value: &Value| {
                    u64::from_str_radix(value.as_str().unwrap().trim_start_matches("0x"), 16)
                        .unwrap()
                };
                let (ours, theirs) = (number(&ours), number(&theirs));
                assert!(ours.abs_diff(theirs) * 10 <= theirs, "{context}: {ours}, anvil {theirs}");
            }
            (Ok(ours), Ok(theirs)) => {
                let (ours, theirs) = (self.plain(method, &ours), self.plain(method, &theirs));
                assert_eq!(ours, theirs, "{context}\n(left: simulated, right: anvil)");
            }
            (Err(ours), Err(theirs)) => {
                let bare = |failure: &Failure| failure.data.clone().unwrap_or_default();
                assert_eq!(bare(&ours), bare(&theirs), "{context}: {ours:?}, anvil {theirs:?}");
                if method == "eth_sendRawTransaction" {
                    assert_eq!(ours.message, theirs.message, "{context}");
                }
            }
            (ours, theirs) => panic!("{context}: {ours:?}, anvil {theirs:?}"),
        }
    }

    /// What both sides have to agree on: the fields that follow from the calls, with block hashes as numbers.
    fn plain(&self, method: &str, value: &Value) -> Value {
        const BLOCK: &[&str] = &[
            "number",
            "timestamp",
            "gasUsed",
            "gasLimit",
            "baseFeePerGas",
            "transactions",
            "receiptsRoot",
            "transactionsRoot",
            "logsBloom",
            "parentHash",
        ];
        const RECEIPT: &[&str] = &[
            "status",
            "cumulativeGasUsed",
            "gasUsed",
            "logs",
            "logsBloom",
            "type",
            "from",
            "to",
            "contractAddress",
            "transactionHash",
            "transactionIndex",
            "blockHash",
            "blockNumber",
            "effectiveGasPrice",
            "address",
            "topics",
            "data",
            "logIndex",
            "removed",
        ];
        const TX: &[&str] = &[
            "hash",
            "from",
            "to",
            "nonce",
            "input",
            "gas",
            "maxFeePerGas",
            "maxPriorityFeePerGas",
            "type",
            "value",
            "chainId",
            "blockHash",
            "blockNumber",
            "transactionIndex",
            "r",
            "s",
        ];
        match method {
            "eth_getBlockByNumber" | "eth_getBlockByHash" => {
                self.pick(value, &[BLOCK, TX].concat())
            }
            // What the relayer reads of it, but for tips, which anvil draws from what was mined.
            "eth_feeHistory" => self.pick(value, &["oldestBlock", "baseFeePerGas"]),
            "eth_getLogs" | "eth_getBlockReceipts" | "eth_getTransactionReceipt" => {
                self.pick(value, RECEIPT)
            }
            "eth_getTransactionByHash" => self.pick(value, TX),
            _ => value.clone(),
        }
    }

    fn pick(&self, value: &Value, fields: &[&str]) -> Value {
        match value {
            Value::Object(object) => object
                .iter()
                .filter(|(name, value)| fields.contains(&name.as_str()) && !value.is_null())
                .map(|(name, value)| (name.clone(), self.pick(value, fields)))
                .collect(),
            Value::Array(values) => values.iter().map(|value| self.pick(value, fields)).collect(),
            Value::String(text) => match self.numbers.get(text) {
                Some(number) => json!(format!("block {number}")),
                None => value.clone(),
            },
            _ => value.clone(),
        }
    }

    async fn ask_anvil(&self, method: &'static str, params: Value) -> Result<Value, Failure> {
        let params = serde_json::value::to_raw_value(&params).unwrap();
        match self.anvil.raw_request_dyn(method.into(), &params).await {
            Ok(answer) => Ok(serde_json::from_str(answer.get()).unwrap()),
            Err(RpcError::ErrorResp(error)) => Err(Failure {
                code: error.code,
                message: error.message.to_string(),
                data: error.data.and_then(|data| serde_json::from_str(data.get()).ok()),
            }),
            Err(other) => panic!("anvil does not answer {method}: {other}"),
        }
    }

    /// What only anvil has to be told.
    async fn anvil_only(&self, method: &'static str, params: Value) {
        self.ask_anvil(method, params).await.unwrap();
    }
}

/// Refusals of a transaction by their kind, since every node words them its own way.
fn refusals(answer: Result<Value, Failure>) -> Result<Value, Failure> {
    answer.map_err(|failure| {
        let text = failure.message.to_lowercase();
        let kinds = [
            ("already", "already known"),
            ("too low", "nonce too low"),
            ("underpriced", "underpriced"),
            ("insufficient funds", "no money"),
        ];
        let kind = kinds.iter().find(|(word, _)| text.contains(word));
        Failure {
            message: kind.map_or(text.as_str(), |(_, kind)| kind).to_owned(),
            code: 0,
            data: None,
        }
    })
}
