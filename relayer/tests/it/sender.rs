//! Goal: whatever happens to a transaction of the sender, each statement settles once, and what waits says why.
//! Method: an installation on a real chain; turns taken one by one; the chain's own calls drop, replace and reorder.
//! What would break it: freeing a slot early, forgetting a hash, taking an answer for an outcome, replacing too cheaply.

use std::{
    slice,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use alloy::{
    consensus::{Transaction, TxEnvelope},
    eips::eip2718::Decodable2718,
    network::{EthereumWallet, TransactionBuilder},
    primitives::{Address, B256, Bytes, U256, hex},
    providers::{DynProvider, Provider, ProviderBuilder},
    rpc::types::TransactionRequest,
    signers::local::{MnemonicBuilder, PrivateKeySigner, coins_bip39::English},
    sol_types::SolCall,
};
use contracts::{Settlement, TestToken, eip712::DepositKey};
use indexer::{Endpoints, Indexer, Turn};
use ledger::{
    Ledger, Millis, Units,
    book::{BookWriter, Obligation, Sighting},
    invariants::violations,
    read::{AttemptKind, FundingDeposit, Reader, Slot, Table, UnsettledStatement},
    rules::{MovedPayout, OpenItem, Verdict},
    statement::{self, Statement},
};
use relayer::{
    anvil::MNEMONIC,
    config::Config,
    keys::{Keys, TxKey},
    reconcile::reconcile,
    recover::recover,
    status::Status,
    turn::{Relayer, Report},
};
use serde_json::json;
use sqlx::Connection;
use tokio::{process::Command, time::timeout};

use crate::{
    env::{Env, PATIENCE, assert_success, eventually, quittance, rpc},
    proxy::{proxy, refusal},
};

/// Blocks after which one is final on the tests' chain.
const FINAL_WITHIN: u32 = 2;
/// Longer than an attempt is waited for that pays less than the price is now.
pub(crate) const LATE: Millis = 61_000;
/// Longer than any attempt is waited for.
pub(crate) const VERY_LATE: Millis = 301_000;

/// An installation after a small demo, whose turns the test takes itself. Blocks come when the test mines them.
pub(crate) struct World {
    pub(crate) env: Env,
    pub(crate) config: Config,
    pub(crate) provider: DynProvider,
    pub(crate) now: Millis,
    pub(crate) live: Live,
    /// Whether the contract was made to show something that no event tells.
    is_belied: bool,
}

/// What is open of the installation.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) ledger: Ledger,
    pub(crate) reader: Reader,
    pub(crate) endpoints: Endpoints,
    indexer: Indexer,
    pub(crate) relayer: Box<Relayer>,
    pub(crate) sender: Address,
}

impl World {
    pub(crate) async fn new() -> Self {
        let env = Env::after_demo(12).await;
        Self::over(env).await
    }

    /// Over an installation that exists.
    pub(crate) async fn over(env: Env) -> Self {
        let config = env.config();
        let provider = env.provider();
        rpc(&provider, "evm_setAutomine", "[false]").await;
        let live = Live::open(&config).await;
        let mut world = Self { env, config, provider, now: 0, live, is_belied: false };
        world.index().await;
        world
    }

    pub(crate) async fn index(&mut self) {
        loop {
            match self.live.indexer.turn().await {
                Ok(Turn::Idle) => return,
                Err(indexer::Error::StateDiffers { .. }) if self.is_belied => {}
                turned => drop(turned.unwrap()),
            }
        }
    }

    pub(crate) async fn turn(&mut self) -> Report {
        self.live.relayer.turn(self.now, false).await.unwrap()
    }

    /// A turn that looks for claims as well.
    pub(crate) async fn turn_that_pushes(&mut self) -> Report {
        self.live.relayer.turn(self.now, true).await.unwrap()
    }

    /// Mines blocks and indexes them.
    pub(crate) async fn mine(&mut self, blocks: u32) {
        rpc(&self.provider, "anvil_mine", &format!("[{blocks}]")).await;
        self.index().await;
    }

    /// Changes the chain's state behind the back of its blocks, and mines until the block whose root this belies is passed
    /// over: no turn proves anything by it.
    pub(crate) async fn meddle(&mut self, method: &'static str, params: &str) {
        rpc(&self.provider, method, params).await;
        self.mine(FINAL_WITHIN + 1).await;
    }

    /// Takes one more piece of work in for one of the organisations and orders that it be paid.
    pub(crate) async fn work(&mut self, organisation: usize, id: u32) {
        let payout = relayer::generate::payout_address("owner 1 of seed 1");
        self.work_of(organisation, id, payout).await;
    }

    /// The same, for the machine's owner at `payout`.
    async fn work_of(&mut self, organisation: usize, id: u32, payout: Address) {
        self.take_in(&self.line_of(organisation, id, payout)).await;
    }

    pub(crate) async fn take_in(&self, line: &str) {
        let parsed = relayer::intake::parse("more.jsonl", line.as_bytes(), "salad").unwrap();
        let book = BookWriter::new(self.live.ledger.clone());
        relayer::intake::take_in(&book, &parsed, &self.config.tariff(), 0).await.unwrap();
        book.close_until(i64::MAX, 0).await.unwrap();
    }

    /// A record of a piece of work.
    pub(crate) fn line_of(&self, organisation: usize, id: u32, payout: Address) -> String {
        let name = &self.config.organisations[organisation].name;
        format!(
            r#"{{"schema":"workload/1","source":"test","external_id":"{id}","organisation":"{name}","machine":"new {id}","provider":"{payout}","kind":"render","started_at":"2026-11-20T07:00:00Z","ended_at":"2026-11-20T09:00:00Z","result":"completed","price":{{"currency":"USD","amount":"0.050000"}}}}"#,
        )
    }

    /// A world with one statement signed and sent, and not mined.
    pub(crate) async fn with_one_sent() -> Self {
        let mut world = Box::pin(Self::new()).await;
        world.work(0, 1).await;
        let report = world.turn().await;
        assert_eq!((report.signed, report.sent), (1, 1), "{report:?}");
        world
    }

    /// A world with one statement sent, and its slot, behind a tx nonce whose foreign transaction was adopted and then dropped
    /// by a reorg.
    async fn with_a_gap() -> (Self, Slot) {
        let mut world = Self::new().await;
        let request =
            TransactionRequest::default().with_to(Address::ZERO).with_value(U256::from(1));
        let _sent = world.with_the_senders_key().send_transaction(request).await.unwrap();
        world.mine(1).await;
        assert_success(&world.sender_command(&["adopt", "--reason", "a test of the key"]).await);
        world.work(0, 1).await;
        assert_eq!(world.turn().await.sent, 1);
        let behind = world.slots().await.remove(0);
        rpc(&world.provider, "anvil_rollback", "[1]").await;
        world.drop_all().await;
        world.mine(1).await;
        (world, behind)
    }

    pub(crate) async fn settled(&self) -> u64 {
        self.live.reader.count(Table::Settled).await.unwrap()
    }

    pub(crate) async fn slots(&self) -> Vec<Slot> {
        self.live.reader.open_slots(self.live.sender).await.unwrap()
    }

    pub(crate) async fn drop_all(&self) {
        rpc(&self.provider, "anvil_dropAllTransactions", "[]").await;
    }

    async fn send_raw(&self, raw: &[u8]) -> B256 {
        *self.provider.send_raw_transaction(raw).await.unwrap().tx_hash()
    }

    /// Opens everything anew, with the configuration as it is now.
    pub(crate) async fn reopen(&mut self) {
        self.live.ledger.clone().close().await;
        let path = self.config.path(&self.config.files.database).with_extension("lock");
        // The test's own handles still hold it.
        std::fs::remove_file(path).unwrap();
        self.live = Live::open(&self.config).await;
        self.index().await;
    }

    /// Begins with an empty database and indexes the chain again.
    pub(crate) async fn lose_database(&mut self) {
        self.live.ledger.clone().close().await;
        for name in ["quittance.db", "quittance.db-wal", "quittance.db-shm", "quittance.lock"] {
            if let Err(error) = std::fs::remove_file(self.env.dir().join(name)) {
                assert!(name.contains("db-"), "{name}: {error}");
            }
        }
        self.live = Live::open(&self.config).await;
        self.index().await;
    }

    /// The same, and brings back what the manifests tell.
    async fn lose_database_and_recover(&mut self) {
        self.lose_database().await;
        let book = BookWriter::new(self.live.ledger.clone());
        let secret = Keys::open(&self.config).unwrap().secret;
        let manifests = self.live.relayer.manifests();
        let recovery = recover(&manifests, &secret, &book, &self.live.reader, 0).await.unwrap();
        assert_eq!(recovery.refused, Vec::<String>::new());
        self.mine(FINAL_WITHIN + 1).await;
    }

    /// A world whose first organisation's requestor has withdrawn from under a signed statement that no gas was there for, and
    /// its deposit.
    async fn with_an_emptied_deposit() -> (Self, FundingDeposit) {
        let mut world = Box::pin(Self::new()).await;
        let sender = world.live.sender;
        world.meddle("anvil_setBalance", &format!("[\"{sender}\", \"0x5\"]")).await;
        world.work(0, 1).await;
        let report = world.turn().await;
        assert_eq!((report.signed, report.sent), (1, 0), "{report:?}");

        let name = &world.config.organisations[0].name;
        let deposit = world.live.reader.books(name).await.unwrap().unwrap().deposits.remove(0);
        let key: Settlement::DepositKey = deposit.key.clone().unwrap().into();
        let requestor = key.requestor;
        world.meddle("anvil_impersonateAccount", &format!("[\"{requestor}\"]")).await;
        let settlement = Settlement::new(world.config.chain.contract, world.provider.clone());
        let thawing = deposit.state.balance.get() - 7;
        let _sent = settlement.thaw(key.clone(), thawing).from(requestor).send().await.unwrap();
        world.mine(1).await;
        let ends = world.live.reader.deposit_state(deposit.id).await.unwrap().thaw_ends;
        rpc(&world.provider, "evm_setNextBlockTimestamp", &format!("[{ends}]")).await;
        world.mine(1).await;
        let _sent = settlement.withdraw(key, requestor).from(requestor).send().await.unwrap();
        world.mine(1).await;
        (world, deposit)
    }

    /// Opens everything with the configuration as it is now, pays for gas, and checks that an empty statement lets the first
    /// organisation's work go to another deposit.
    async fn assert_retired_and_paid_elsewhere(&mut self) {
        self.reopen().await;
        self.live.endpoints.look().await.unwrap();
        let (sender, settled) = (self.live.sender, self.settled().await);
        self.meddle("anvil_setBalance", &format!("[\"{sender}\", \"0xde0b6b3a7640000\"]")).await;
        let report = self.turn().await;
        assert_eq!(report.sent, 1, "an empty statement, which retires the epoch: {report:?}");
        self.finish().await;
        let name = &self.config.organisations[0].name;
        let books = self.live.reader.books(name).await.unwrap().unwrap();
        assert_eq!(books.open, [], "the other one has paid");
        assert_eq!(self.settled().await, settled + 2);
    }

    /// Funds another deposit of the same requestor, for the same keys.
    async fn deposit_besides(&mut self, key: DepositKey) -> B256 {
        let key = DepositKey { salt: B256::repeat_byte(0xa7), ..key };
        self.meddle("anvil_impersonateAccount", &format!("[\"{}\"]", key.requestor)).await;
        self.fund(&key, 100_000_000).await;
        key.id()
    }

    /// Puts units into a deposit whose requestor the node signs for.
    async fn fund(&mut self, key: &DepositKey, units: u64) {
        let (contract, requestor) = (self.config.chain.contract, key.requestor);
        let token = TestToken::new(key.token, self.provider.clone());
        let settlement = Settlement::new(contract, self.provider.clone());
        let much = U256::from(10).pow(U256::from(21));
        let _sent = token.mint(requestor, much).from(requestor).send().await.unwrap();
        let _sent = token.approve(contract, much).from(requestor).send().await.unwrap();
        self.mine(1).await;
        let deposit = settlement.deposit(key.clone().into(), units).from(requestor);
        let _sent = deposit.send().await.unwrap();
        self.mine(FINAL_WITHIN + 1).await;
    }

    /// Takes the work of the first organisation, which pays from a statement's deposit, for paid by one that is lost.
    async fn cut_off(&self, statement: &UnsettledStatement) {
        let seen = Sighting {
            deposit: statement.deposit,
            epoch: statement.epoch,
            digest: B256::repeat_byte(7),
            seen: "a file".into(),
            organisation: Some(self.config.organisations[0].name.clone()),
        };
        let book = BookWriter::new(self.live.ledger.clone());
        assert_eq!(book.notice(&[seen], 0).await.unwrap(), 1);
        book.cut_off(statement.deposit, Millis::MAX, "it may have been paid", 0).await.unwrap();
    }

    /// The first organisation's work that is open.
    async fn open_work(&self) -> OpenItem {
        let name = &self.config.organisations[0].name;
        self.live.reader.books(name).await.unwrap().unwrap().open.pop().unwrap()
    }

    async fn verdict(&self) -> Option<Verdict> {
        self.open_work().await.verdict
    }

    async fn decide(&self, verdict: Verdict, reason: &str, now: Millis) {
        let book = BookWriter::new(self.live.ledger.clone());
        let item = self.open_work().await.item;
        book.decide(item, verdict, reason, (0, now)).await.unwrap();
    }

    /// Turns and blocks until nothing is open any more.
    pub(crate) async fn finish(&mut self) {
        for _ in 0..12 {
            self.mine(1).await;
            self.turn().await;
            if self.slots().await.is_empty() {
                return;
            }
        }
        panic!("slots stay open: {:?}", self.slots().await);
    }

    /// A provider that signs with the sender's own key, as a thief or a careless operator would.
    pub(crate) fn with_the_senders_key(&self) -> DynProvider {
        let TxKey::Local(key) = Keys::open(&self.config).unwrap().sender else { panic!("a file") };
        wallet(&self.env, key)
    }

    /// Runs `quittance sender` on the installation, with the ledger closed meanwhile.
    pub(crate) async fn sender_command(&mut self, arguments: &[&str]) -> std::process::Output {
        self.live.ledger.clone().close().await;
        let path = self.config.path(&self.config.files.database).with_extension("lock");
        std::fs::remove_file(path).unwrap();
        let mut command = quittance(&["sender"]);
        let output = command.args(arguments).arg("--dir").arg(self.env.dir()).output().await;
        self.reopen().await;
        output.unwrap()
    }
}

impl Live {
    pub(crate) async fn open(config: &Config) -> Self {
        let path = config.path(&config.files.database);
        let ledger = Ledger::open(&path, config.identity()).await.unwrap();
        let endpoints = config.endpoints().unwrap();
        let book = BookWriter::new(ledger.clone());
        book.set_organisations(&config.ledger_organisations(), config.policy.attester, 0)
            .await
            .unwrap();
        let keys = Keys::open(config).unwrap();
        let sender = keys.sender.address();
        let relayer = Relayer::new(config.clone(), keys, ledger.clone(), endpoints.clone());
        let relayer = Box::new(relayer);
        Self {
            indexer: Indexer::new(endpoints.clone(), ledger.clone()).await.unwrap(),
            endpoints,
            reader: Reader::new(ledger.clone()),
            relayer,
            ledger,
            sender,
        }
    }
}

fn wallet(env: &Env, key: PrivateKeySigner) -> DynProvider {
    let url = env.anvil.url.parse().unwrap();
    ProviderBuilder::new().wallet(EthereumWallet::new(key)).connect_http(url).erased()
}

/// An account of the chain that has nothing to do with the installation.
pub(crate) fn stranger(env: &Env) -> DynProvider {
    let builder = MnemonicBuilder::<English>::default().phrase(MNEMONIC).index(9).unwrap();
    wallet(env, builder.build().unwrap())
}

pub(crate) fn calldata(raw: &[u8]) -> Bytes {
    TxEnvelope::decode_2718(&mut &*raw).unwrap().input().clone()
}

pub(crate) fn says(report: &Report, text: &str) -> bool {
    report.waiting.iter().any(|reason| reason.contains(text))
}

/// Replacements of a slot raise both fee fields by an eighth at least, and never more than threefold.
fn assert_rises(slot: &Slot) {
    for pair in slot.attempts.windows(2) {
        let [old, new] = pair else { panic!("windows of two") };
        assert!(new.max_fee * 8 >= old.max_fee * 9 && new.tip * 8 >= old.tip * 9, "{slot:?}");
        assert!(new.max_fee <= old.max_fee * 3 + 1, "{slot:?}");
    }
}

#[tokio::test]
async fn a_dropped_transaction_is_sent_again_with_the_same_bytes() {
    let mut world = World::with_one_sent().await;
    let settled = world.settled().await;
    let hash = world.slots().await[0].attempts[0].hash;
    world.drop_all().await;
    world.mine(3).await;
    assert_eq!(world.settled().await, settled, "it was dropped before a block took it");

    let report = world.turn().await;
    assert_eq!((report.sent, report.in_flight), (0, 1), "{report:?}");
    assert!(world.provider.get_transaction_by_hash(hash).await.unwrap().is_some());
    world.finish().await;
    assert_eq!(world.settled().await, settled + 1);
}

#[tokio::test]
async fn a_spike_of_the_base_fee_is_followed_by_replacements_that_raise_both_fields() {
    let mut world = World::with_one_sent().await;
    let settled = world.settled().await;
    let first = world.slots().await[0].attempts[0].clone();
    let spike = first.max_fee * 20;
    rpc(&world.provider, "anvil_setNextBlockBaseFeePerGas", &format!("[\"{spike:#x}\"]")).await;
    world.mine(1).await;
    assert_eq!(world.settled().await, settled, "it pays less than the base fee");
    let mut slot = world.slots().await.remove(0);
    for _ in 0..20 {
        world.now += LATE;
        world.turn().await;
        slot = world.slots().await.first().cloned().unwrap_or(slot);
        world.mine(1).await;
        if world.settled().await > settled {
            break;
        }
    }
    assert_eq!(world.settled().await, settled + 1);
    assert!(slot.attempts.len() >= 3, "a spike of twentyfold takes three steps of threefold");
    assert_rises(&slot);
    world.finish().await;
}

#[tokio::test]
async fn an_older_attempt_that_is_mined_ends_its_slot() {
    let mut world = World::with_one_sent().await;
    let settled = world.settled().await;
    world.now += VERY_LATE;
    world.turn().await;
    let slot = world.slots().await.remove(0);
    assert_eq!(slot.attempts.len(), 2);
    assert_rises(&slot);
    world.drop_all().await;
    world.send_raw(&slot.attempts[0].raw).await;
    world.finish().await;
    assert_eq!(world.settled().await, settled + 1);
    let report = world.turn().await;
    assert!(report.is_idle() && !says(&report, "frozen"), "{report:?}");
}

#[tokio::test]
async fn a_slot_is_over_only_when_a_final_block_consumed_its_tx_nonce() {
    let mut world = World::with_one_sent().await;
    let slot = world.slots().await.remove(0);
    for _ in 0..FINAL_WITHIN {
        world.mine(1).await;
        world.turn().await;
        assert_eq!(world.slots().await, slice::from_ref(&slot), "a reorg could undo the block");
    }
    world.mine(1).await;
    world.turn().await;
    assert_eq!(world.slots().await, []);
}

#[tokio::test]
async fn a_reorg_that_replaces_a_transaction_by_an_older_attempt_settles_once() {
    let mut world = World::with_one_sent().await;
    let settled = world.settled().await;
    world.now += VERY_LATE;
    world.turn().await;
    let slot = world.slots().await.remove(0);
    world.mine(1).await;
    assert_eq!(world.settled().await, settled + 1);
    assert_eq!(
        world.slots().await,
        slice::from_ref(&slot),
        "what it carries is busy until that is final"
    );

    rpc(&world.provider, "anvil_rollback", "[1]").await;
    world.drop_all().await;
    world.send_raw(&slot.attempts[0].raw).await;
    world.mine(2).await;
    assert_eq!(world.settled().await, settled + 1);
    world.finish().await;
    assert_eq!(world.settled().await, settled + 1);
    assert!(!says(&world.turn().await, "frozen"));
}

#[tokio::test]
async fn a_foreign_transaction_freezes_the_sender_until_it_is_adopted() {
    let mut world = World::new().await;
    let settled = world.settled().await;
    let thief = world.with_the_senders_key();
    let request = TransactionRequest::default().with_to(Address::ZERO).with_value(U256::from(1));
    let _sent = thief.send_transaction(request).await.unwrap();
    world.mine(1).await;
    world.work(0, 1).await;
    for _ in 0..3 {
        let report = world.turn().await;
        assert!(report.sent == 0 && says(&report, "is frozen"), "{report:?}");
        world.mine(1).await;
    }
    let refused = world.sender_command(&["adopt", "--reason", " "]).await;
    assert_eq!(refused.status.code(), Some(2));
    let arguments = ["adopt", "--reason", "a test of the key"];
    assert_success(&world.sender_command(&arguments).await);
    let report = world.turn().await;
    assert_eq!((report.sent, says(&report, "frozen")), (1, false), "{report:?}");
    world.finish().await;
    assert_eq!(world.settled().await, settled + 1);
}

#[tokio::test]
async fn a_tx_nonce_that_a_foreign_transaction_took_is_foreign_at_finality_and_its_statement_goes_again()
 {
    let mut world = World::with_one_sent().await;
    let settled = world.settled().await;
    let slot = world.slots().await.remove(0);
    world.drop_all().await;
    let request = TransactionRequest::default().with_to(Address::ZERO).with_nonce(slot.tx_nonce);
    let _sent = world.with_the_senders_key().send_transaction(request).await.unwrap();
    world.mine(1).await;
    let report = world.turn().await;
    assert_eq!(
        (report.sent, world.slots().await.len()),
        (0, 1),
        "not final: unknown, nothing is freed"
    );
    world.mine(3).await;
    let report = world.turn().await;
    assert!(says(&report, "which this ledger did not") && report.sent == 0, "{report:?}");
    assert_eq!(world.slots().await, []);

    assert_success(&world.sender_command(&["adopt", "--reason", "known"]).await);
    let report = world.turn().await;
    assert_eq!(report.sent, 1, "{report:?}");
    assert_eq!(world.slots().await[0].tx_nonce, slot.tx_nonce + 1);
    world.finish().await;
    assert_eq!(world.settled().await, settled + 1);
}

/// Goal: a tx nonce that a reorg gave back keeps nothing behind it for ever.
/// Method: a foreign transaction is adopted at the head and dropped by a reorg; all that is due has a later tx nonce.
/// What would break it: leaving the gap to an obligation that may never come.
#[tokio::test]
async fn a_gap_that_no_obligation_fills_is_filled_by_a_transaction_that_does_nothing() {
    let (mut world, behind) = Box::pin(World::with_a_gap()).await;
    let settled = world.settled().await;
    let report = world.turn().await;
    assert!(says(&report, "transactions wait for tx nonce"), "{report:?}");
    let slots = world.slots().await;
    let [filling, waiting] = &slots[..] else { panic!("the gap has no slot: {slots:?}") };
    assert_eq!((filling.tx_nonce + 1, waiting), (behind.tx_nonce, &behind));
    assert_eq!(filling.obligation, Obligation::Settle(vec![]));
    let kinds: Vec<_> = filling.attempts.iter().map(|attempt| attempt.kind).collect();
    assert_eq!(kinds, [AttemptKind::Cancel]);
    world.finish().await;
    assert_eq!(world.settled().await, settled + 1);
    assert_eq!(violations(&world.live.ledger).await.unwrap(), []);
}

/// What would break it: a transaction for nothing where an obligation that is due gets the tx nonce.
#[tokio::test]
async fn a_gap_that_an_obligation_fills_is_left_to_it() {
    let (mut world, _) = Box::pin(World::with_a_gap()).await;
    let settled = world.settled().await;
    world.work(1, 2).await;
    assert_eq!(world.turn().await.sent, 1);
    let slots = world.slots().await;
    let attempts = slots.iter().flat_map(|slot| &slot.attempts);
    let kinds: Vec<_> = attempts.map(|attempt| attempt.kind).collect();
    assert_eq!(kinds, [AttemptKind::Work, AttemptKind::Work]);
    world.finish().await;
    assert_eq!(world.settled().await, settled + 2);
}

/// Goal: a word for the sender's transactions is about the chain that the ledger is of, and takes nothing back.
/// Method: the only endpoint names another chain; then it denies what final blocks have consumed.
/// What would break it: taking a count without asking whose it is.
#[tokio::test]
async fn a_count_of_another_chain_or_below_the_ledgers_own_is_not_adopted() {
    for (chain, count, code, said) in [
        ("0x1", "0x1f4", 4, "serves chain 1"),
        ("0x7a69", "0x0", 2, "were consumed in final blocks"),
    ] {
        let mut world = World::with_one_sent().await;
        world.finish().await;
        let before = world.live.reader.memory(world.live.sender).await.unwrap();
        let url = proxy(&world.env.anvil.url, move |request| match request["method"].as_str()? {
            "eth_chainId" => Some(json!({ "result": chain })),
            "eth_getTransactionCount" => Some(json!({ "result": count })),
            _ => None,
        });
        let mut elsewhere = world.config.clone();
        elsewhere.chain.rpc_url = Some(url.await);
        elsewhere.write().unwrap();
        let refused = world.sender_command(&["adopt", "--reason", "a mistake"]).await;
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(code), "{told}");
        assert!(told.contains(said), "{told}");
        assert_eq!(world.live.reader.memory(world.live.sender).await.unwrap(), before);
    }
}

#[tokio::test]
async fn a_sender_without_money_says_how_much_it_needs_and_goes_on_when_it_has_it() {
    let mut world = World::new().await;
    let settled = world.settled().await;
    let sender = world.live.sender;
    // The tips of the demo's transactions are forgotten: the price stays as it is.
    world.mine(12).await;
    world.meddle("anvil_setBalance", &format!("[\"{sender}\", \"0x5\"]")).await;
    world.work(0, 1).await;
    let report = world.turn().await;
    assert!(report.sent == 0 && says(&report, "has 5 wei and needs"), "{report:?}");
    assert_eq!(world.slots().await, []);
    let text = report.waiting.join(" ");
    let more = text.split("send it ").nth(1).unwrap().split(' ').next().unwrap();
    let enough = U256::from(5) + more.parse::<U256>().unwrap();
    world.meddle("anvil_setBalance", &format!("[\"{sender}\", \"{enough:#x}\"]")).await;
    let report = world.turn().await;
    assert_eq!(report.sent, 1, "exactly what it asked for is enough: {report:?}");
    world.finish().await;
    assert_eq!(world.settled().await, settled + 1);
}

/// Goal: a replacement that cannot be paid for does not climb to the bound unseen.
/// Method: enough for the transaction that was sent; then gas costs many times as much.
/// What would break it: taking the pool's answer for all that there is to know.
#[tokio::test]
async fn a_replacement_that_the_balance_does_not_cover_says_how_much_it_needs() {
    let mut world = World::with_one_sent().await;
    let (settled, sender) = (world.settled().await, world.live.sender);
    let first = world.slots().await[0].attempts[0].clone();
    let cost = u128::from(first.gas_limit) * first.max_fee;
    let set = |balance: u128| format!("[\"{sender}\", \"{balance:#x}\"]");
    let params = format!("[\"{:#x}\"]", first.max_fee * 20);
    rpc(&world.provider, "anvil_setNextBlockBaseFeePerGas", &params).await;
    world.mine(1).await;
    world.meddle("anvil_setBalance", &set(cost)).await;
    for _ in 0..3 {
        world.now += LATE;
        let report = world.turn().await;
        assert!(says(&report, &format!("has {cost} wei and needs")), "{report:?}");
        assert_eq!(world.slots().await[0].attempts, slice::from_ref(&first));
    }
    world.meddle("anvil_setBalance", &set(cost * 1000)).await;
    for _ in 0..12 {
        world.mine(1).await;
        world.now += LATE;
        world.turn().await;
    }
    assert_eq!(world.settled().await, settled + 1);
}

/// What would break it: taking work for stated because a candidate names it that its deposit cannot pay any more.
#[tokio::test]
async fn work_whose_deposit_was_emptied_under_its_statement_says_what_it_lacks() {
    let (mut world, deposit) = World::with_an_emptied_deposit().await;
    let report = world.turn().await;
    assert!(says(&report, "units, and the deposits have 7 left"), "{report:?}");

    // Another deposit takes its place in the configuration, and does not get its work.
    let other = world.deposit_besides(deposit.key.clone().unwrap()).await;
    world.config.organisations[0].deposits = vec![other];
    world.reopen().await;
    world.live.endpoints.look().await.unwrap();
    let report = world.turn().await;
    assert!(
        says(&report, "until the deposit is named again, beside one that can pay"),
        "{report:?}"
    );
    world.config.organisations[0].deposits.insert(0, deposit.id);
    world.assert_retired_and_paid_elsewhere().await;
}

/// What would break it: asking of the work of the organisation alone that a deposit pays for now whether it can move.
#[tokio::test]
async fn work_whose_emptied_deposit_pays_for_another_organisation_now_is_paid_elsewhere() {
    let (mut world, deposit) = World::with_an_emptied_deposit().await;
    let other = world.deposit_besides(deposit.key.clone().unwrap()).await;
    let organisations = &mut world.config.organisations;
    organisations[0].deposits = vec![other];
    let token = organisations[0].token;
    let another = organisations[1..].iter_mut().find(|known| known.token == token).unwrap();
    another.deposits.push(deposit.id);
    world.assert_retired_and_paid_elsewhere().await;
}

/// What would break it: ending the process, and with it the reading and the sending, for a disk that holds copies only.
#[tokio::test]
async fn a_copy_of_the_manifests_that_cannot_be_read_keeps_back_signatures_and_nothing_else() {
    let mut world = World::with_one_sent().await;
    let settled = world.settled().await;
    let copies = world.env.folder.path().join("copies");
    std::fs::write(&copies, "not a folder").unwrap();
    world.config.files.manifest_copies.push(copies.clone());
    world.reopen().await;
    world.work(0, 2).await;
    let report = world.turn().await;
    assert!(report.signed == 0 && says(&report, "statements wait for the manifests"), "{report:?}");
    world.finish().await;
    assert_eq!(world.settled().await, settled + 1, "what was sent goes on");
    std::fs::remove_file(&copies).unwrap();
    std::fs::create_dir(&copies).unwrap();
    assert_eq!(world.turn().await.signed, 1);
}

/// What would break it: paying by what is left of the books before what people said is back, or taking anybody's word for it.
#[tokio::test]
async fn held_work_stays_held_after_the_database_is_lost() {
    let mut world = World::new().await;
    world.work(0, 1).await;
    world.decide(Verdict::Hold, "a review", 5).await;
    assert_eq!(world.turn().await.signed, 0);
    // Whoever can write to the folder has no say, and a line that was not finished is no line.
    let orders = world.env.dir().join("manifests/orders.jsonl");
    let text = std::fs::read_to_string(&orders).unwrap();
    let forged = text.lines().last().unwrap().replace("hold", "pay");
    std::fs::write(&orders, format!("{text}{forged}\n{{\"order")).unwrap();

    world.lose_database_and_recover().await;
    world.work(0, 1).await;
    let report = world.turn().await;
    assert_eq!(report.signed, 0, "{report:?}");
    let item = world.open_work().await;
    assert_eq!((item.external_id.as_str(), item.verdict), ("1", Some(Verdict::Hold)));
    // What is said from now on is kept behind what was not finished.
    world.decide(Verdict::Pay, "looked at", 6).await;
    assert_eq!(world.turn().await.signed, 1);
    let kept = std::fs::read_to_string(&orders).unwrap();
    assert!(kept.lines().last().unwrap().contains("looked at"), "{kept}");
}

/// What would break it: beginning with every copy where the one that lags has come.
#[tokio::test]
async fn a_copy_of_the_orders_that_cannot_be_written_does_not_make_the_other_grow() {
    let mut world = World::new().await;
    let copies = world.env.folder.path().join("copies");
    std::fs::create_dir(&copies).unwrap();
    world.config.files.manifest_copies.push(copies.clone());
    world.reopen().await;
    world.turn().await;
    let (first, copy) =
        (world.env.dir().join("manifests/orders.jsonl"), copies.join("orders.jsonl"));
    let lines = |path| std::fs::read_to_string(path).unwrap().lines().count();
    let (before, aside) = (lines(&first), copies.join("aside"));
    assert!(before > 0 && before == lines(&copy));
    std::fs::rename(&copy, &aside).unwrap();
    std::fs::create_dir(&copy).unwrap();
    world.work(0, 1).await;
    for _ in 0..3 {
        let report = world.turn().await;
        assert!(says(&report, "statements wait for the manifests"), "{report:?}");
    }
    assert_eq!(lines(&first), before + 1);
    std::fs::remove_dir(&copy).unwrap();
    std::fs::rename(&aside, &copy).unwrap();
    assert_eq!(world.turn().await.signed, 1);
    assert_eq!((lines(&first), lines(&copy)), (before + 1, before + 1));
}

/// What would break it: reading a copy once, or taking what it tells for what was said last.
#[tokio::test]
async fn orders_that_turn_up_later_come_before_what_was_said_meanwhile() {
    let mut world = World::new().await;
    world.work(0, 1).await;
    world.decide(Verdict::Hold, "a review", 5).await;
    world.turn().await;
    let orders = world.env.dir().join("manifests/orders.jsonl");
    let aside = world.env.folder.path().join("aside");
    std::fs::rename(&orders, &aside).unwrap();
    world.lose_database_and_recover().await;
    world.work(0, 1).await;
    world.decide(Verdict::Dispute, "it is black", 6).await;
    world.turn().await;
    std::fs::rename(&aside, &orders).unwrap();
    world.turn().await;
    assert_eq!(world.verdict().await, Some(Verdict::Dispute));

    // It says the same in the same order, whatever somebody makes of its lines.
    let kept = std::fs::read_to_string(&orders).unwrap();
    let mut lines: Vec<_> = kept.lines().collect();
    assert!(lines[lines.len() - 2].contains("a review") && kept.ends_with('\n'), "{kept}");
    let last = lines.len() - 1;
    lines.swap(last, last - 1);
    std::fs::write(&orders, format!("{}\n", lines.join("\n"))).unwrap();
    world.turn().await;
    assert_eq!(std::fs::read_to_string(&orders).unwrap(), kept);
    world.lose_database_and_recover().await;
    world.work(0, 1).await;
    assert_eq!(world.verdict().await, Some(Verdict::Dispute));
}

/// What would break it: making a folder anew that is not mounted for a while.
#[tokio::test]
async fn a_folder_of_manifests_that_goes_away_is_waited_for() {
    let mut world = World::new().await;
    let (copies, aside) =
        (world.env.folder.path().join("copies"), world.env.folder.path().join("aside"));
    std::fs::create_dir(&copies).unwrap();
    world.config.files.manifest_copies.push(copies.clone());
    world.reopen().await;
    world.turn().await;
    world.work(0, 1).await;
    std::fs::rename(&copies, &aside).unwrap();
    // Where it was mounted there is nothing, or an empty folder.
    for is_mount_point in [false, true] {
        if is_mount_point {
            std::fs::create_dir(&copies).unwrap();
        }
        let report = world.turn().await;
        assert!(says(&report, "statements wait for the manifests"), "{report:?}");
        assert_eq!((report.signed, copies.join("orders.jsonl").exists()), (0, false), "{report:?}");
    }
    std::fs::remove_dir(&copies).unwrap();
    std::fs::rename(&aside, &copies).unwrap();
    assert_eq!(world.turn().await.signed, 1);
}

/// What would break it: looking at the revision that was paid only.
#[tokio::test]
async fn a_revision_that_waits_for_money_is_counted_as_unfunded() {
    let mut world = World::with_one_sent().await;
    world.finish().await;
    let payout = relayer::generate::payout_address("owner 1 of seed 1");
    let line = world.line_of(0, 1, payout).replace("0.050000", "99999.000000");
    let line = line.replace(r#""schema""#, r#""revision":1,"schema""#);
    let parsed = relayer::intake::parse("more.jsonl", line.as_bytes(), "salad").unwrap();
    let book = BookWriter::new(world.live.ledger.clone());
    relayer::intake::take_in(&book, &parsed, &world.config.tariff(), 0).await.unwrap();
    let status = Status::gather(&world.config, &world.live.ledger).await.unwrap();
    let counts = &status.organisations[&world.config.organisations[0].name];
    assert_eq!((counts.unfunded, counts.payable), (1, 0), "{counts:?}");
}

#[tokio::test]
async fn work_that_was_paid_too_much_is_counted_as_owed_back() {
    let mut world = World::with_one_sent().await;
    world.finish().await;
    let payout = relayer::generate::payout_address("owner 1 of seed 1");
    let line = world.line_of(0, 1, payout).replace("0.050000", "0.010000");
    world.take_in(&line.replace(r#""schema""#, r#""revision":1,"schema""#)).await;
    let status = Status::gather(&world.config, &world.live.ledger).await.unwrap();
    let counts = &status.organisations[&world.config.organisations[0].name];
    assert_eq!((counts.owed_back, counts.payable), (1, 0), "{counts:?}");
}

/// What would break it: asking every token that somebody registered what the contract holds of it.
#[tokio::test]
async fn a_token_that_a_stranger_registered_and_that_answers_nothing_keeps_nobody_from_reconciling()
{
    let mut world = World::new().await;
    let stranger = stranger(&world.env);
    let deploying = TestToken::deploy_builder(&stranger, "T".into(), "T".into(), 24);
    let deploying = deploying.send().await.unwrap();
    world.mine(1).await;
    let token = deploying.get_receipt().await.unwrap().contract_address.unwrap();
    let settlement = Settlement::new(world.config.chain.contract, &stranger);
    let _sent = settlement.registerToken(token).gas(500_000).send().await.unwrap();
    world.mine(1).await;
    world.meddle("anvil_setCode", &format!("[\"{token}\", \"0xfe\"]")).await;
    assert!(world.live.reader.tokens().await.unwrap().iter().any(|known| known.address == token));

    let reconciled = reconcile(&world.config, &world.live.ledger, &world.provider).await.unwrap();
    assert_eq!(reconciled.differences, Vec::<String>::new());
    assert_eq!(reconciled.tokens.len(), world.config.tokens.len());
}

#[tokio::test]
async fn a_delegated_account_has_one_transaction_in_flight() {
    let mut world = World::new().await;
    let (settled, sender) = (world.settled().await, world.live.sender);
    let code = format!("0xef0100{}", "11".repeat(20));
    world.meddle("anvil_setCode", &format!("[\"{sender}\", \"{code}\"]")).await;
    // A registration and a statement.
    BookWriter::new(world.live.ledger.clone())
        .set_payee("another machine", Address::repeat_byte(0x77), (0, 0))
        .await
        .unwrap();
    world.work(0, 1).await;
    let report = world.turn().await;
    assert!(report.sent == 1 && says(&report, "EIP-7702"), "{report:?}");
    assert!(says(&report, "it goes when a transaction before it is mined"), "{report:?}");
    assert_eq!(world.turn().await.sent, 0);
    world.mine(1).await;
    assert_eq!(world.turn().await.sent, 1);
    world.finish().await;
    assert_eq!(world.settled().await, settled + 1);
}

#[tokio::test]
async fn a_statement_that_a_stranger_settles_is_ours_and_the_duplicate_is_cancelled() {
    let mut world = World::with_one_sent().await;
    let settled = world.settled().await;
    let slot = world.slots().await.remove(0);
    world.drop_all().await;
    let request = TransactionRequest::default()
        .with_to(world.config.chain.contract)
        .with_input(calldata(&slot.attempts[0].raw))
        .with_gas_limit(5_000_000);
    let _sent = stranger(&world.env).send_transaction(request).await.unwrap();
    world.mine(1).await;
    assert_eq!(world.settled().await, settled + 1);
    let report = world.turn().await;
    assert_eq!(report.sent, 0, "{report:?}");
    let slot = world.slots().await.remove(0);
    let kinds: Vec<_> = slot.attempts.iter().map(|attempt| attempt.kind).collect();
    assert_eq!(kinds, [AttemptKind::Work, AttemptKind::Cancel]);
    assert_rises(&slot);
    world.finish().await;
    let receipt = world.provider.get_transaction_receipt(slot.attempts[1].hash).await.unwrap();
    assert_eq!(receipt.unwrap().gas_used, 21_000);
    assert_eq!(world.settled().await, settled + 1);
    assert!(world.turn().await.is_idle());
}

/// What would break it: paying the gas for whoever settles among his own addresses and waits for us to push.
#[tokio::test]
async fn credits_that_no_deposit_of_ours_paid_are_not_pushed() {
    let mut world = World::new().await;
    let key = PrivateKeySigner::random();
    let token = world.config.organisations[0].token;
    let requestor = world.env.provider().get_accounts().await.unwrap()[8];
    let key_of_stranger = DepositKey {
        token,
        requestor,
        signer: key.address(),
        cosigner: Address::ZERO,
        salt: B256::ZERO,
    };
    let settlement = Settlement::new(world.config.chain.contract, world.provider.clone());
    let payout = Address::repeat_byte(0x5a);
    let _sent = settlement.register(vec![payout]).from(requestor).send().await.unwrap();
    world.mine(1).await;
    let number = u32::try_from(world.live.reader.payouts().await.unwrap().len()).unwrap();
    world.fund(&key_of_stranger, 5_000_000).await;

    let statement = Statement {
        key: key_of_stranger.clone(),
        epoch: 1,
        spent: Units::new(5_000_000),
        manifest: B256::ZERO,
        rows: contracts::rows::encode(&[(number, 5_000_000)]).unwrap(),
    };
    let domain = contracts::eip712::domain(world.config.chain.id, world.config.chain.contract);
    let signature = statement::sign(key.credential(), statement.digest(&domain)).unwrap();
    let statement = Settlement::Statement {
        key: key_of_stranger.into(),
        epoch: 1,
        manifest: B256::ZERO,
        rows: statement.rows.into(),
        signature: signature.into(),
        cosignature: Bytes::new(),
    };
    let _sent = settlement.settle(vec![statement]).from(requestor).send().await.unwrap();
    world.mine(FINAL_WITHIN + 1).await;
    let credits = world.live.reader.credits().await.unwrap();
    assert!(credits.iter().any(|credit| credit.provider == number), "{credits:?}");
    let report = world.live.relayer.turn(world.now, true).await.unwrap();
    assert!(report.is_idle(), "{report:?}");
}

#[tokio::test]
async fn a_lost_database_freezes_the_sender_until_its_transactions_are_recovered() {
    let mut world = World::new().await;
    let transactions = world.provider.get_transaction_count(world.live.sender).await.unwrap();
    assert!(transactions > 2);
    world.mine(3).await;
    world.lose_database().await;
    world.work(0, 1).await;
    let report = world.turn().await;
    assert!(report.sent == 0 && says(&report, "quittance sender recover"), "{report:?}");

    let output = world.sender_command(&["recover"]).await;
    assert_success(&output);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains(&format!("took in {transactions} transactions")), "{text}");
    let report = world.turn().await;
    assert!(!says(&report, "quittance sender recover"), "{report:?}");
    for tx_nonce in 0..transactions {
        assert!(world.live.reader.has_slot(world.live.sender, tx_nonce).await.unwrap());
    }
    let spending = world.live.reader.spending().await.unwrap();
    assert!(spending["settle"].gas > 0 && spending["register"].gas > 0, "{spending:?}");
}

#[tokio::test]
async fn a_statement_that_spoils_the_whole_call_is_isolated_and_the_rest_settles() {
    let mut world = World::new().await;
    let settled = world.settled().await;
    let payouts = world.live.reader.payouts().await.unwrap();
    let (number, poisoned) = payouts.iter().next_back().map(|(n, a)| (*n, *a)).unwrap();
    let healthy = payouts[&2];
    assert_ne!(number / 4, 0, "the two stand in different words");
    let token = world.config.organisations[0].token;
    assert_ne!(token, world.config.organisations[1].token);
    set_lane(&mut world, token, number, FULL_LANE).await;

    world.work_of(0, 1, poisoned).await;
    world.work_of(1, 2, healthy).await;
    world.work_of(3, 3, healthy).await;
    let report = world.turn().await;
    assert_eq!((report.signed, report.sent), (3, 1), "{report:?}");
    assert!(says(&report, "settling it alone fails"), "{report:?}");
    let carried = world.slots().await.remove(0).obligation;
    assert!(matches!(carried, Obligation::Settle(ref ids) if ids.len() == 2), "{carried:?}");
    world.finish().await;
    assert_eq!(world.settled().await, settled + 2);
}

/// Goal: money that a mined transaction has cost is not counted a second time before its block is indexed.
/// Method: enough for one transaction and less than two, since empty blocks made gas cheaper; the first is mined, unread.
/// What would break it: a balance and slots as of different blocks.
#[tokio::test]
async fn what_was_mined_and_is_not_indexed_yet_is_still_to_be_paid() {
    let cost = {
        let world = World::with_one_sent().await;
        let attempt = world.slots().await[0].attempts[0].clone();
        u128::from(attempt.gas_limit) * attempt.max_fee
    };
    let mut world = World::new().await;
    let sender = world.live.sender;
    let money = format!("[\"{sender}\", \"{:#x}\"]", cost);
    world.meddle("anvil_setBalance", &money).await;
    world.work(0, 1).await;
    assert_eq!(world.turn().await.sent, 1);
    rpc(&world.provider, "anvil_mine", "[1]").await;
    world.work(1, 2).await;
    let report = world.turn().await;
    assert!(report.sent == 0 && says(&report, "send it"), "{report:?}");
}

/// Goal: a cheap transaction that is not mined does not keep dear statements from settling.
/// Method: an account that may have one in flight; what that is worth does not pay the new price, what waits does for both.
/// What would break it: a bound that looks only at what has a slot.
#[tokio::test]
async fn what_waits_for_room_pays_for_the_transaction_before_it() {
    const SPIKE: u64 = 2_500_000_000;
    let mut world = World::new().await;
    let (settled, sender) = (world.settled().await, world.live.sender);
    world.config.policy.native_usd = Some("2.00".parse().unwrap());
    world.reopen().await;
    world.live.endpoints.look().await.unwrap();
    let code = format!("0xef0100{}", "11".repeat(20));
    world.meddle("anvil_setCode", &format!("[\"{sender}\", \"{code}\"]")).await;
    world.work(0, 1).await;
    assert_eq!(world.turn().await.sent, 1);
    let mine_dear = async |world: &mut World| {
        let params = format!("[\"{SPIKE:#x}\"]");
        rpc(&world.provider, "anvil_setNextBlockBaseFeePerGas", &params).await;
        world.mine(1).await;
        world.now += LATE;
        world.turn().await
    };
    let mut report = Report::default();
    for _ in 0..6 {
        report = mine_dear(&mut world).await;
    }
    assert!(says(&report, "cannot be replaced within the bound"), "{report:?}");
    assert_eq!(world.settled().await, settled);
    for id in 2..6 {
        world.work(3, id).await;
    }
    for _ in 0..12 {
        report = mine_dear(&mut world).await;
    }
    assert_eq!(world.settled().await, settled + 2, "{report:?}");
}

/// Goal: what is worth less than its gas is not sent, delays nobody, and is not forgotten.
/// Method: work of five hundred-thousandths of a USD beside such of five hundredths, where a row has to move some twenty-five.
/// What would break it: judging whole batches only, so that one dear row carries any number of worthless ones.
#[tokio::test]
async fn a_row_that_is_worth_less_than_its_gas_waits_alone() {
    let mut world = World::new().await;
    let settled = world.settled().await;
    world.config.policy.native_usd = Some("0.40".parse().unwrap());
    world.reopen().await;
    world.live.endpoints.look().await.unwrap();
    let other = relayer::generate::payout_address("owner 2 of seed 1");
    let small = world.line_of(0, 1, other).replace("0.050000", "0.000050");
    world.take_in(&small).await;
    world.work(0, 2).await;
    let turn_at_a_gwei = async |world: &mut World| {
        let params = format!("[\"{:#x}\"]", 1_000_000_000);
        rpc(&world.provider, "anvil_setNextBlockBaseFeePerGas", &params).await;
        world.mine(1).await;
        world.turn().await
    };
    let report = turn_at_a_gwei(&mut world).await;
    assert_eq!((report.signed, report.sent), (1, 1), "{report:?}");
    assert!(says(&report, "rows that wait: 1"), "{report:?}");
    world.finish().await;
    let report = turn_at_a_gwei(&mut world).await;
    assert!(report.signed == 0 && says(&report, "rows that wait: 1"), "{report:?}");
    assert_eq!(world.settled().await, settled + 1);

    world.config.policy.native_usd = None;
    world.reopen().await;
    world.live.endpoints.look().await.unwrap();
    let report = turn_at_a_gwei(&mut world).await;
    assert_eq!((report.signed, report.sent), (1, 1), "{report:?}");
    world.finish().await;
    assert_eq!(world.settled().await, settled + 2);
}

/// Goal: the order in which an operator moves its payout address, on chain and in the configuration, stops nothing.
/// Method: its number is made to pay to the new address before that is configured.
/// What would break it: taking an address that some number pays to for one that has a number.
#[tokio::test]
async fn an_operator_that_moved_its_address_on_chain_first_is_registered_anew() {
    let mut world = World::new().await;
    let settled = world.settled().await;
    let old = world.config.policy.operator_payout.unwrap();
    let number = world.live.reader.final_number_of(old).await.unwrap().unwrap();
    let new = Address::repeat_byte(0x5c);
    world.meddle("anvil_setBalance", &format!("[\"{old}\", \"0xde0b6b3a7640000\"]")).await;
    world.meddle("anvil_impersonateAccount", &format!("[\"{old}\"]")).await;
    let contract = Settlement::new(world.config.chain.contract, &world.provider);
    let call = contract.setPayout(number, new, u64::MAX, Bytes::new()).from(old).gas(200_000);
    let _sent = call.send().await.unwrap();
    world.mine(FINAL_WITHIN + 1).await;
    assert_eq!(world.live.reader.payouts().await.unwrap()[&number], new);
    let status = Status::gather(&world.config, &world.live.ledger).await.unwrap();
    let moved = MovedPayout { provider: number, named: old, payout: new };
    assert_eq!(status.moved_payouts, [moved]);
    let line = format!("provider {number:<6} named {old}, paid at {new}");
    assert!(status.text().contains(&line), "{}", status.text());

    world.config.policy.operator_payout = Some(new);
    world.reopen().await;
    world.live.endpoints.look().await.unwrap();
    world.work(0, 1).await;
    world.turn().await;
    world.mine(FINAL_WITHIN + 1).await;
    assert_ne!(world.live.reader.final_number_of(new).await.unwrap(), None);
    world.turn().await;
    world.finish().await;
    assert_eq!(world.settled().await, settled + 1);
}

/// Goal: what the ledger has come to know as paid is not paid again by what was signed before.
/// Method: a signed statement waits for its gas while a cut-off takes its work for paid.
/// What would break it: judging what a statement pays once, when it is signed; leaving its epoch to whoever sends it.
#[tokio::test]
async fn a_signed_statement_over_work_that_a_cut_off_takes_for_paid_is_retired_instead_of_sent() {
    let mut world = World::new().await;
    let (settled, sender) = (world.settled().await, world.live.sender);
    let credited = world.live.reader.credits_ever().await.unwrap();
    world.meddle("anvil_setBalance", &format!("[\"{sender}\", \"0x0\"]")).await;
    world.work(0, 1).await;
    let report = world.turn().await;
    assert!(report.signed == 1 && report.sent == 0, "{report:?}");

    let signed = world.live.reader.unsettled_statements().await.unwrap().remove(0);
    let submittable = async |world: &World| world.live.reader.submittable().await.unwrap();
    assert_eq!(submittable(&world).await, [signed.id]);
    world.cut_off(&signed).await;
    assert_eq!(submittable(&world).await, [0; 0], "whoever sends it pays the work again");
    world.meddle("anvil_setBalance", &format!("[\"{sender}\", \"0xde0b6b3a7640000\"]")).await;
    let report = world.turn().await;
    assert_eq!((report.signed, report.sent), (1, 1), "an empty one: {report:?}");
    assert_eq!(submittable(&world).await, [signed.id + 1]);
    world.finish().await;
    assert_eq!(world.settled().await, settled + 1);
    assert_eq!(world.live.reader.credits_ever().await.unwrap(), credited);
    world.turn().await;
    assert_eq!(world.slots().await, [], "nothing is left to do");
}

/// What would break it: taking an epoch for free because the statement that is under way should not settle.
#[tokio::test]
async fn an_epoch_is_not_retired_beside_a_statement_that_is_under_way() {
    let mut world = World::with_one_sent().await;
    let settled = world.settled().await;
    let signed = world.live.reader.unsettled_statements().await.unwrap().remove(0);
    world.cut_off(&signed).await;
    let report = world.turn().await;
    assert_eq!((report.signed, report.sent), (1, 0), "{report:?}");
    world.finish().await;
    assert_eq!(world.settled().await, settled + 1);
}

#[tokio::test]
async fn a_payout_address_that_the_token_refuses_waits_alone() {
    let mut world = World::new().await;
    let payouts = world.live.reader.payouts().await.unwrap();
    let (refused, healthy) = (payouts[&1], payouts[&2]);
    let token = world.config.organisations[0].token;
    refuse(&mut world, token, refused).await;

    world.work_of(0, 1, refused).await;
    world.work_of(0, 2, healthy).await;
    world.turn().await;
    world.finish().await;
    let report = world.live.relayer.turn(world.now, true).await.unwrap();
    assert!(says(&report, "the token refuses to pay it"), "{report:?}");
    assert!(says(&report, "the credit of provider 1 in"), "{report:?}");
    let carried = world.slots().await.remove(0).obligation;
    assert!(
        matches!(&carried, Obligation::Claim(_, providers) if providers[..] == [2]),
        "{carried:?}"
    );
    world.finish().await;
    let credit = async |provider| world.live.reader.credit(token, provider).await.unwrap();
    assert_eq!(credit(2).await, Units::ZERO, "paid");
    assert!(credit(1).await > Units::ZERO, "still there");
    for may_push in [true, false] {
        let report = world.live.relayer.turn(world.now, may_push).await.unwrap();
        assert_eq!(report.sent, 0, "it rests: {report:?}");
        assert!(says(&report, "the token refuses to pay it; it is tried again from"), "{report:?}");
    }
}

/// Goal: whoever is paid by code that tells a simulation from a transaction delays nobody else and costs no gas without end.
/// Method: a transfer that uses up all gas when it is mined, and one that fails then, of two that are pushed together.
/// What would break it: believing the simulation again each time.
#[tokio::test]
async fn a_payout_address_that_fails_only_when_it_is_mined_waits_alone_and_says_so() {
    let cases = [("fe", 3, "failed with it"), ("60006000fd", 1, "the token refused to pay it in")];
    for (code, claims, why) in cases {
        let mut world = World::new().await;
        let payouts = world.live.reader.payouts().await.unwrap();
        let token = world.config.organisations[0].token;
        spring(&mut world, token, payouts[&1], code).await;
        world.work_of(0, 1, payouts[&1]).await;
        world.work_of(0, 2, payouts[&2]).await;
        world.turn().await;
        world.finish().await;
        let (mut sent, mut waiting) = (0, Report::default());
        for _ in 0..6 {
            waiting = world.live.relayer.turn(world.now, true).await.unwrap();
            sent += waiting.sent;
            world.finish().await;
        }
        assert_eq!(sent, claims, "{code}: {waiting:?}");
        assert!(says(&waiting, why), "{code}: {waiting:?}");
        let credit = async |provider| world.live.reader.credit(token, provider).await.unwrap();
        assert_eq!(credit(2).await, Units::ZERO, "{code}: paid");
        assert!(credit(1).await > Units::ZERO, "{code}: still there");
    }
}

/// What would break it: a statement that waits for a transfer, or a credit that is given up.
#[tokio::test]
async fn a_paused_token_delays_claims_and_nothing_else() {
    let mut world = World::new().await;
    let settled = world.settled().await;
    let token = world.config.organisations[0].token;
    let payouts = world.live.reader.payouts().await.unwrap();
    let itself = world.provider.get_code_at(token).await.unwrap();
    pause(&mut world, token).await;
    for provider in [1, 2] {
        world.work_of(0, provider, payouts[&provider]).await;
    }
    world.turn().await;
    world.finish().await;
    assert_eq!(world.settled().await, settled + 1);
    let report = world.live.relayer.turn(world.now, true).await.unwrap();
    assert_eq!((report.sent, report.waiting.len()), (0, 2), "{report:?}");
    assert!(says(&report, "the token refuses to pay it; it is tried again from"), "{report:?}");

    world.meddle("anvil_setCode", &format!("[\"{token}\", \"{itself}\"]")).await;
    world.now += 60_000;
    assert_eq!(world.live.relayer.turn(world.now, true).await.unwrap().sent, 1);
    world.finish().await;
    for provider in [1, 2] {
        assert_eq!(world.live.reader.credit(token, provider).await.unwrap(), Units::ZERO);
    }
}

/// What would break it: counting refusals for ever.
#[tokio::test]
async fn a_credit_that_was_paid_again_rests_as_shortly_as_at_first_when_it_is_refused_again() {
    let mut world = World::new().await;
    let token = world.config.organisations[0].token;
    let payout = world.live.reader.payouts().await.unwrap()[&1];
    let itself = world.provider.get_code_at(token).await.unwrap();
    let refused = async |world: &mut World, id: u32, until: &[(Millis, &str)]| {
        refuse(world, token, payout).await;
        world.work_of(0, id, payout).await;
        world.turn().await;
        world.finish().await;
        for (now, until) in until {
            world.now = *now;
            let report = world.live.relayer.turn(world.now, true).await.unwrap();
            let why =
                format!("refuses to pay it; it is tried again from 1970-01-01T00:{until}Z on");
            assert!(says(&report, &why), "{why}: {report:?}");
        }
        world.meddle("anvil_setCode", &format!("[\"{token}\", \"{itself}\"]")).await;
    };
    refused(&mut world, 1, &[(0, "01:00"), (60_000, "03:00")]).await;
    world.now = 180_000;
    assert_eq!(world.live.relayer.turn(world.now, true).await.unwrap().sent, 1);
    world.finish().await;
    assert_eq!(world.live.reader.credit(token, 1).await.unwrap(), Units::ZERO);
    refused(&mut world, 2, &[(180_000, "04:00")]).await;
}

/// What would break it: taking every claim that pays nothing for one that the token refuses.
#[tokio::test]
async fn a_credit_that_is_younger_than_the_block_of_the_turn_was_not_refused() {
    let mut world = World::new().await;
    let token = world.config.organisations[0].token;
    let payout = world.live.reader.payouts().await.unwrap()[&1];
    world.work_of(0, 1, payout).await;
    world.turn().await;
    world.finish().await;
    set_lane(&mut world, token, 1, 0).await;
    let report = world.live.relayer.turn(world.now, true).await.unwrap();
    assert_eq!(report.waiting, Vec::<String>::new());
}

/// Goal: claims that need too much gas together are pushed in parts.
/// Method: a token that burns gas; thirty credits, more than a transaction has gas for.
/// What would break it: putting together again what passed in parts only.
#[tokio::test]
async fn claims_of_a_token_that_needs_much_gas_go_in_several_transactions() {
    const CREDITS: u32 = 30;
    let mut world = World::over(Env::after_demo(120).await).await;
    let token = world.config.organisations[0].token;
    let payouts = world.live.reader.payouts().await.unwrap();
    for provider in 1..=CREDITS {
        world.work_of(0, provider, payouts[&provider]).await;
    }
    world.turn().await;
    world.finish().await;
    make_heavy(&mut world, token).await;
    let report = world.live.relayer.turn(world.now, true).await.unwrap();
    assert_eq!((report.sent, &report.waiting[..]), (2, &[][..]));
    world.finish().await;
    for provider in 1..=CREDITS {
        assert_eq!(world.live.reader.credit(token, provider).await.unwrap(), Units::ZERO);
    }
}

/// Lets a token revert whatever pays one address, as some stablecoins do for addresses on a list.
async fn refuse(world: &mut World, token: Address, recipient: Address) {
    // transfer(recipient, …) jumps to the end and reverts.
    let is_refused = format!("60043573{}1460003560e01c63a9059cbb1416", hex::encode(recipient));
    let jump = 3;
    let there = stand_in(is_refused.len() / 2 + jump);
    let revert_at = is_refused.len() / 2 + jump + there.len() / 2;
    replace_code(world, token, &format!("{is_refused}60{revert_at:02x}57{there}5b60006000fd"))
        .await;
}

/// Goal: a token that stands still between a simulation and its block delays its claims a little, and not by parting them.
/// Method: two credits are claimed together while the token is stopped, and again when it is not.
/// What would break it: sending alone for a day what was refused in good company.
#[tokio::test]
async fn claims_that_a_paused_token_refused_go_together_again() {
    let mut world = World::new().await;
    let payouts = world.live.reader.payouts().await.unwrap();
    let token = world.config.organisations[0].token;
    let itself = world.provider.get_code_at(token).await.unwrap();
    for provider in [1, 2] {
        world.work_of(0, provider, payouts[&provider]).await;
    }
    world.turn().await;
    world.finish().await;
    let push = async |world: &World| world.live.relayer.turn(world.now, true).await.unwrap();
    assert_eq!(push(&world).await.sent, 1);
    world.meddle("anvil_setCode", &format!("[\"{token}\", \"0x60006000fd\"]")).await;
    world.finish().await;
    world.meddle("anvil_setCode", &format!("[\"{token}\", \"{itself}\"]")).await;
    let report = push(&world).await;
    assert!(
        report.sent == 0 && says(&report, "the token refused to pay it in block"),
        "{report:?}"
    );
    world.now += 3_600_000;
    assert_eq!(push(&world).await.sent, 1, "all in one");
    world.finish().await;
    for provider in [1, 2] {
        let credit = world.live.reader.credit(token, provider).await.unwrap();
        assert_eq!(credit, Units::ZERO, "{provider}");
    }
}

/// Lets a token run other code for transfers to one recipient, but in transactions only.
async fn spring(world: &mut World, token: Address, recipient: Address, code: &str) {
    let is_transaction = "3a151516";
    let is_sprung =
        format!("60043573{}1460003560e01c63a9059cbb1416{is_transaction}", hex::encode(recipient));
    let jump = 3;
    let there = stand_in(is_sprung.len() / 2 + jump);
    let at = is_sprung.len() / 2 + jump + there.len() / 2;
    replace_code(world, token, &format!("{is_sprung}60{at:02x}57{there}5b{code}")).await;
}

/// Lets a token revert every transfer.
async fn pause(world: &mut World, token: Address) {
    let is_something_else = "60003560e01c63a9059cbb1415601557";
    let code = format!("{is_something_else}60006000fd5b");
    replace_code(world, token, &format!("{code}{}", stand_in(code.len() / 2))).await;
}

/// Lets each transfer of a token burn some 600,000 gas before it is done.
async fn make_heavy(world: &mut World, token: Address) {
    let is_something_else = "60003560e01c63a9059cbb1415601e57";
    // 23,077 times: 26 gas.
    let burn = "62005a255b600190038060145750";
    let code = format!("{is_something_else}{burn}5b");
    replace_code(world, token, &format!("{code}{}", stand_in(code.len() / 2))).await;
}

/// Where `replace_code` puts what a token was.
const TOKEN_ITSELF: Address = Address::repeat_byte(0xc0);

/// Code that stands at an offset, and has the token itself answer.
fn stand_in(at: usize) -> String {
    let there = hex::encode(TOKEN_ITSELF);
    let delegate = format!("3660006000376000600036600073{there}5af43d600060003e");
    let (revert_with_answer, answer) = ("3d6000fd", "5b3d6000f3");
    let jump = 3;
    let answer_at = at + delegate.len() / 2 + jump + revert_with_answer.len() / 2;
    format!("{delegate}60{answer_at:02x}57{revert_with_answer}{answer}")
}

/// Puts code in the place of a token, whose own is put elsewhere.
async fn replace_code(world: &mut World, token: Address, code: &str) {
    let own = world.provider.get_code_at(token).await.unwrap();
    rpc(&world.provider, "anvil_setCode", &format!("[\"{TOKEN_ITSELF}\", \"{own}\"]")).await;
    world.meddle("anvil_setCode", &format!("[\"{token}\", \"0x{code}\"]")).await;
}

/// The most that a credit can hold, as no real token's amounts could make it: whatever credits it reverts.
const FULL_LANE: u64 = (1 << 63) - 1;

/// Sets a provider's credit behind the contract's back.
async fn set_lane(world: &mut World, token: Address, provider: u32, units: u64) {
    let call = Settlement::creditOfCall { token, provider }.abi_encode();
    let request = TransactionRequest::default()
        .with_to(world.config.chain.contract)
        .with_input(Bytes::from(call));
    let list = world.provider.create_access_list(&request).await.unwrap().access_list;
    let keys: Vec<_> = list.0.iter().flat_map(|item| &item.storage_keys).collect();
    let [key] = keys[..] else { panic!("one word is read: {keys:?}") };
    world.is_belied = true;
    let contract = world.config.chain.contract;
    let word = world.provider.get_storage_at(contract, (*key).into()).await.unwrap();
    let place = usize::try_from(provider & 3).unwrap() * 64;
    let others = word & !(U256::from(FULL_LANE) << place);
    let set = B256::from(others | U256::from(units) << place);
    world.meddle("anvil_setStorageAt", &format!("[\"{contract}\", \"{key}\", \"{set}\"]")).await;
    let settlement = Settlement::new(contract, &world.provider);
    assert_eq!(settlement.creditOf(token, provider).call().await.unwrap(), units);
}

#[tokio::test]
async fn a_paused_process_that_wakes_after_another_took_over_sends_nothing_and_ends() {
    let env = Env::after_demo(12).await;
    let mut paused = env.serve();
    let pid = paused.id().unwrap().to_string();
    let signal = async |name: &str| {
        assert!(Command::new("kill").args([name, &pid]).status().await.unwrap().success());
    };
    let path = env.dir().join("quittance.db");
    eventually("its first turn", async || {
        let url = format!("sqlite://{}?mode=ro", path.display());
        let mut db = sqlx::SqliteConnection::connect(&url).await.ok()?;
        let epoch: i64 =
            sqlx::query_scalar("select epoch from lease").fetch_one(&mut db).await.ok()?;
        // The demo's own process had the first.
        (epoch >= 2).then_some(())
    })
    .await;
    signal("-STOP").await;
    // What only a mistake removes: the lock that keeps a second process away.
    std::fs::remove_file(env.dir().join("quittance.lock")).unwrap();
    let mut world = World::over(env).await;
    let settled = world.settled().await;
    world.turn().await;
    world.work(0, 1).await;
    let before = world.provider.get_transaction_count(world.live.sender).pending().await.unwrap();

    signal("-CONT").await;
    let ended = timeout(PATIENCE, paused.wait()).await.expect("it goes on in vain").unwrap();
    assert!(!ended.success());
    let after = world.provider.get_transaction_count(world.live.sender).pending().await.unwrap();
    assert_eq!((after, world.slots().await), (before, vec![]));
    assert_eq!(world.turn().await.sent, 1, "the one that took over goes on");
    world.finish().await;
    assert_eq!(world.settled().await, settled + 1);
}

impl World {
    /// Behind a node that takes no transaction whose gas could cost more than this, wei.
    pub(crate) async fn behind_a_fee_cap() -> (Self, Arc<AtomicU64>) {
        let cap = Arc::new(AtomicU64::new(0));
        let known = cap.clone();
        let world = Box::pin(Self::new()).await;
        let world = world
            .behind(move |request| {
                let raw = request["params"][0].as_str()?;
                let is_send = request["method"] == "eth_sendRawTransaction";
                let sent = TxEnvelope::decode_2718(&mut &*hex::decode(raw).ok()?).ok()?;
                let cost = u128::from(sent.gas_limit()) * sent.max_fee_per_gas();
                let is_dear = cost > known.load(Ordering::SeqCst).into();
                (is_send && is_dear).then(|| refusal(ABOVE_FEE_CAP))
            })
            .await;
        (world, cap)
    }

    /// Sends a batch that the node refuses, and returns what its gas could have cost, wei.
    pub(crate) async fn refused(&mut self) -> u64 {
        assert_eq!(self.turn().await.sent, 1);
        let attempt = self.slots().await.remove(0).attempts.remove(0);
        u64::try_from(u128::from(attempt.gas_limit) * attempt.max_fee).unwrap()
    }
}

const ABOVE_FEE_CAP: &str = "tx fee (1.20 ether) exceeds the configured cap (1.00 ether)";

/// Goal: a batch that nodes refuse for good shuts nothing, and what it carries settles.
/// Method: a node that refuses transactions by what their gas could cost; both halves of a batch are within that.
/// What would break it: waiting for an answer that does not come, paying more for what costs too much already.
#[tokio::test]
async fn a_batch_that_no_node_takes_makes_way_and_goes_again_in_halves() {
    let (mut world, cap) = World::behind_a_fee_cap().await;
    let settled = world.settled().await;
    world.work(0, 1).await;
    world.work(1, 2).await;
    let cost = world.refused().await;
    cap.store(cost / 4 * 3, Ordering::SeqCst);
    let report = world.turn().await;
    assert!(says(&report, ABOVE_FEE_CAP), "{report:?}");
    assert_eq!(world.slots().await[0].attempts.len(), 1, "it may be taken yet");
    world.now += LATE;
    world.turn().await;
    let slot = world.slots().await.remove(0);
    let kinds: Vec<_> = slot.attempts.iter().map(|attempt| attempt.kind).collect();
    assert_eq!(kinds, [AttemptKind::Work, AttemptKind::Cancel]);
    assert_rises(&slot);
    world.finish().await;
    assert_eq!(world.settled().await, settled + 2);
}

/// What would break it: giving up what is in the pool, because what is to replace it is refused.
#[tokio::test]
async fn a_transaction_whose_replacement_no_node_takes_stays_under_way() {
    let (mut world, cap) = World::behind_a_fee_cap().await;
    let settled = world.settled().await;
    cap.store(u64::MAX, Ordering::SeqCst);
    world.work(0, 1).await;
    assert_eq!(world.turn().await.sent, 1);
    let first = &world.slots().await[0].attempts[0];
    let cost = u128::from(first.gas_limit) * first.max_fee;
    cap.store(u64::try_from(cost).unwrap(), Ordering::SeqCst);
    for _ in 0..4 {
        world.now += VERY_LATE;
        world.turn().await;
        world.turn().await;
    }
    let slot = world.slots().await.remove(0);
    assert!(slot.attempts.len() > 1, "it is replaced: {slot:?}");
    assert!(slot.attempts.iter().all(|attempt| attempt.kind == AttemptKind::Work), "{slot:?}");
    world.finish().await;
    assert_eq!(world.settled().await, settled + 1);
}

/// Goal: where the cap leaves no room for a replacement, a pool that asks for more tip gets it, and money goes on.
/// Method: a node that refuses a tip as low as it advises, in the words of geth, while gas is dear.
/// What would break it: waiting for gas to become cheaper; an invariant that takes the attempt for a mistake.
#[tokio::test]
async fn a_tip_that_is_too_low_at_the_cap_is_raised_alone() {
    let world = Box::pin(World::new()).await;
    let mut world = world
        .behind(|request| {
            let raw = request["params"][0].as_str()?;
            let is_send = request["method"] == "eth_sendRawTransaction";
            let sent = TxEnvelope::decode_2718(&mut &*hex::decode(raw).ok()?).ok()?;
            let is_low = sent.max_priority_fee_per_gas()? < 2;
            let refused = "transaction underpriced: gas tip cap 1, minimum needed 2";
            (is_send && is_low).then(|| refusal(refused))
        })
        .await;
    world.config.policy.max_gas_gwei = 2;
    world.reopen().await;
    let settled = world.settled().await;
    world.work(0, 1).await;
    let dear = "[\"0x59682f00\"]";
    rpc(&world.provider, "anvil_setNextBlockBaseFeePerGas", dear).await;
    world.mine(1).await;
    assert_eq!(world.turn().await.sent, 1);
    world.now += LATE;
    world.turn().await;
    let attempts = world.slots().await.remove(0).attempts;
    let fees: Vec<_> = attempts.iter().map(|attempt| (attempt.max_fee, attempt.tip)).collect();
    assert_eq!(fees, [(2_000_000_000, 1), (2_000_000_000, 3)]);
    world.finish().await;
    assert_eq!(world.settled().await, settled + 1);
    assert_eq!(violations(&world.live.ledger).await.unwrap(), []);
}

/// What would break it: sending the same bytes' content for ever, each time at the cost of a transaction that does nothing.
#[tokio::test]
async fn a_statement_that_no_node_takes_says_why_it_waits_and_is_tried_again_later() {
    let (mut world, cap) = World::behind_a_fee_cap().await;
    let settled = world.settled().await;
    world.work(0, 1).await;
    let cost = world.refused().await;
    cap.store(cost / 2, Ordering::SeqCst);
    world.turn().await;
    world.now += LATE;
    world.turn().await;
    world.finish().await;
    let report = world.turn().await;
    assert!(report.sent == 0 && says(&report, ABOVE_FEE_CAP), "{report:?}");
    assert_eq!(world.settled().await, settled);
    cap.store(u64::MAX, Ordering::SeqCst);
    world.work(1, 2).await;
    assert_eq!(world.turn().await.sent, 1, "it delays nobody");
    world.now += 3_600_000;
    assert_eq!(world.turn().await.sent, 1);
    world.finish().await;
    assert_eq!(world.settled().await, settled + 2);
}
