//! A tree of blocks, and endpoints that serve a branch of it.

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock},
    task::{Context, Poll},
};

use alloy::{
    consensus::{
        Header, Receipt, ReceiptEnvelope, ReceiptWithBloom, TrieAccount,
        proofs::calculate_receipt_root,
    },
    primitives::{
        Address, B256, Bloom, Bytes, Log as PrimitiveLog, LogData, U256, bytes, keccak256,
    },
    providers::{Provider, ProviderBuilder},
    rlp,
    rpc::{
        client::RpcClient,
        json_rpc::{ErrorPayload, Id, RequestPacket, Response, ResponsePacket, ResponsePayload},
        types::{
            self, BlockTransactions, EIP1186AccountProofResponse, EIP1186StorageProof, Log,
            serde_helpers::JsonStorageKey,
        },
    },
    sol_types::{SolEvent, SolValue},
    transports::{TransportError, TransportFut},
    trie::{HashBuilder, Nibbles, proof::ProofRetainer},
};
use contracts::{Settlement, eip712::DepositKey, journal::Journal};
use indexer::{Endpoints, Finality, Upstream};
use ledger::{
    Identity, Ledger, Units,
    chain::{Block, ChainWriter, Event, Fact, IndexedBlock},
    rules::{DepositEvent, DepositState},
};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::Service;

pub(crate) const CHAIN_ID: u64 = 31_337;
pub(crate) const CONTRACT: Address = Address::repeat_byte(0xcc);
pub(crate) const CODE: Bytes = bytes!("6001");

pub(crate) fn key() -> DepositKey {
    DepositKey {
        requestor: Address::repeat_byte(0xaa),
        signer: Address::repeat_byte(0xbb),
        cosigner: Address::ZERO,
        token: Address::repeat_byte(0x70),
        salt: B256::ZERO,
    }
}

/// A block of the tree.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) header: Header,
    pub(crate) hash: B256,
    parent: Option<usize>,
    /// One transaction per event.
    pub(crate) events: Vec<(Event, LogData)>,
    journal: Journal,
    providers: u32,
    /// Whether the events are of what Polygon's blocks take over from Ethereum: neither roots nor bloom know of them.
    is_state_sync: bool,
}

/// Every block there ever was. The first is number 0.
#[derive(Clone)]
pub(crate) struct Tree {
    pub(crate) nodes: Vec<Node>,
}

impl Tree {
    pub(crate) fn new() -> Self {
        let header = Header { timestamp: 1_795_000_000, ..Header::default() };
        let genesis = Node {
            hash: header.hash_slow(),
            header,
            parent: None,
            events: Vec::new(),
            journal: Journal::default(),
            providers: 0,
            is_state_sync: false,
        };
        Self { nodes: vec![genesis] }
    }

    /// Adds a block with so many random events on top of another.
    pub(crate) fn grow(&mut self, parent: usize, events: usize, rng: &mut ChaCha8Rng) -> usize {
        let mut providers = self.nodes[parent].providers;
        let logged = (0..events).map(|_| event(&mut providers, rng)).collect();
        self.add(parent, logged, providers)
    }

    /// Adds a block with a log that is none of the contract's events, and that nobody can therefore tell as one.
    pub(crate) fn grow_foreign(&mut self, parent: usize, rng: &mut ChaCha8Rng) -> usize {
        let mut providers = self.nodes[parent].providers;
        let (event, _) = event(&mut providers, rng);
        self.add(parent, vec![(event, foreign())], providers)
    }

    /// Adds a block that puts money into so many other deposits.
    pub(crate) fn grow_deposits(&mut self, parent: usize, deposits: u8) -> usize {
        let deposited = |salt: u8| deposited(DepositKey { salt: B256::repeat_byte(salt), ..key() });
        let logged = (1..=deposits).map(deposited).collect();
        self.add(parent, logged, self.nodes[parent].providers)
    }

    /// Adds a block with so many random events of what Polygon takes over from Ethereum.
    pub(crate) fn grow_state_sync(
        &mut self,
        parent: usize,
        events: usize,
        rng: &mut ChaCha8Rng,
    ) -> usize {
        let logged = self.grow(parent, events, rng);
        let Node { events, journal, providers, .. } = self.nodes[logged].clone();
        let node = self.add(parent, Vec::new(), providers);
        let Node { header, hash, .. } = &mut self.nodes[node];
        header.state_root = state(journal).0;
        *hash = header.hash_slow();
        let node = &mut self.nodes[node];
        (node.events, node.journal, node.is_state_sync) = (events, journal, true);
        self.nodes.len() - 1
    }

    fn add(&mut self, parent: usize, logged: Vec<(Event, LogData)>, providers: u32) -> usize {
        let below = &self.nodes[parent];
        let journal = logged.iter().fold(below.journal, |journal, (_, log)| journal.fold(log));
        let receipts: Vec<_> =
            (1..).zip(&logged).map(|(index, (_, log))| envelope(index, log)).collect();
        let bloom =
            receipts.iter().fold(Bloom::ZERO, |bloom, receipt| bloom | *receipt.logs_bloom());
        let header = Header {
            parent_hash: below.hash,
            number: below.header.number + 1,
            timestamp: below.header.timestamp + 2,
            state_root: state(journal).0,
            receipts_root: calculate_receipt_root(&receipts),
            logs_bloom: bloom,
            // Makes blocks differ that say the same.
            mix_hash: B256::from(U256::from(self.nodes.len())),
            ..Header::default()
        };
        let hash = header.hash_slow();
        let (parent, events) = (Some(parent), logged);
        let is_state_sync = false;
        self.nodes.push(Node { header, hash, parent, events, journal, providers, is_state_sync });
        self.nodes.len() - 1
    }

    /// Adds blocks, each with up to three events.
    pub(crate) fn grow_by(&mut self, mut tip: usize, blocks: u64, rng: &mut ChaCha8Rng) -> usize {
        for _ in 0..blocks {
            let events = rng.random_range(0..=3);
            tip = self.grow(tip, events, rng);
        }
        tip
    }

    pub(crate) fn number(&self, node: usize) -> u64 {
        self.nodes[node].header.number
    }

    /// The block at a height, on the branch that ends in `head`.
    pub(crate) fn at(&self, head: usize, number: u64) -> Option<usize> {
        let mut node = head;
        while self.number(node) > number {
            node = self.nodes[node].parent?;
        }
        (self.number(node) == number).then_some(node)
    }

    /// What a replay of the branch says: every block with events, ascending.
    pub(crate) fn replay(&self, head: usize) -> Vec<IndexedBlock> {
        let mut blocks = Vec::new();
        let mut next = Some(head);
        while let Some(node) = next {
            if !self.nodes[node].events.is_empty() {
                blocks.push(self.indexed(node));
            }
            next = self.nodes[node].parent;
        }
        blocks.reverse();
        blocks
    }

    pub(crate) fn indexed(&self, node: usize) -> IndexedBlock {
        let Node { header, hash, events, .. } = &self.nodes[node];
        let block = Block {
            number: header.number,
            hash: *hash,
            parent: header.parent_hash,
            time: header.timestamp,
        };
        let facts = (0..).zip(events).map(|(log_index, (event, _))| Fact {
            log_index,
            tx_hash: self.tx_hash(node, log_index),
            event: event.clone(),
        });
        IndexedBlock { block, facts: facts.collect() }
    }

    pub(crate) fn journal(&self, node: usize) -> Journal {
        self.nodes[node].journal
    }

    /// The journal as it would be if a block had no logs.
    fn journal_without(&self, mut node: usize, number: u64) -> Journal {
        let mut above = Vec::new();
        while self.number(node) > number {
            above.push(node);
            let Some(parent) = self.nodes[node].parent else { break };
            node = parent;
        }
        let is_in = self.number(node) == number;
        let below = self.nodes[node].parent.filter(|_| is_in).unwrap_or(node);
        let logs = above.iter().rev().flat_map(|node| &self.nodes[*node].events);
        logs.fold(self.journal(below), |journal, (_, log)| journal.fold(log))
    }

    /// What a deposit holds after a block.
    fn deposit(&self, node: usize, id: B256) -> DepositState {
        let facts = self.replay(node).into_iter().flat_map(|block| block.facts);
        facts.fold(DepositState::default(), |state, fact| {
            let event = match fact.event {
                Event::Funded { key, units, .. } if key.id() == id => {
                    DepositEvent::Funded(units, true)
                }
                Event::Thawed { deposit, units, ends } if deposit == id => {
                    DepositEvent::Thawed(units, ends)
                }
                _ => return state,
            };
            state.after(event).unwrap()
        })
    }

    fn tx_hash(&self, node: usize, index: u64) -> B256 {
        let Node { header, hash, is_state_sync, .. } = &self.nodes[node];
        if *is_state_sync {
            let key = [b"matic-bor-receipt-", &header.number.to_be_bytes()[..], &hash[..]];
            return keccak256(key.concat());
        }
        keccak256([hash.as_slice(), &index.to_be_bytes()].concat())
    }

    pub(crate) fn logs(&self, node: usize) -> Vec<Log> {
        let Node { header, hash, events, .. } = &self.nodes[node];
        let log = |(index, (_, data)): (u64, &(Event, LogData))| Log {
            inner: PrimitiveLog { address: CONTRACT, data: data.clone() },
            block_hash: Some(*hash),
            block_number: Some(header.number),
            block_timestamp: Some(header.timestamp),
            transaction_hash: Some(self.tx_hash(node, index)),
            transaction_index: Some(index),
            log_index: Some(index),
            removed: false,
        };
        (0..).zip(events).map(log).collect()
    }
}

/// What a log holds that is none of the contract's events.
fn foreign() -> LogData {
    LogData::new_unchecked(vec![keccak256("Rugged()")], "".into())
}

/// The state root where the contract holds this journal, beside another account and another word, and the proof of it.
fn state(journal: Journal) -> (B256, EIP1186AccountProofResponse) {
    let word = U256::from_be_bytes(journal.word().0);
    let mut words = vec![(keccak256(U256::from(1).to_be_bytes::<32>()), rlp::encode(7_u64))];
    let slot = keccak256(B256::ZERO);
    if !word.is_zero() {
        words.push((slot, rlp::encode(word)));
    }
    let (storage_hash, proof) = trie(words, slot);
    let storage_proof =
        vec![EIP1186StorageProof { key: JsonStorageKey::Hash(B256::ZERO), value: word, proof }];
    let (code_hash, nonce, balance) = (keccak256(&CODE), 1, U256::ZERO);
    let account = TrieAccount { nonce, balance, storage_root: storage_hash, code_hash };
    let other = keccak256(Address::ZERO);
    let accounts = vec![
        (keccak256(CONTRACT), rlp::encode(account)),
        (other, rlp::encode(TrieAccount { nonce: 7, ..account })),
    ];
    let (root, account_proof) = trie(accounts, keccak256(CONTRACT));
    let address = CONTRACT;
    let proof = EIP1186AccountProofResponse {
        address,
        balance,
        code_hash,
        nonce,
        storage_hash,
        account_proof,
        storage_proof,
    };
    (root, proof)
}

/// The root of these leaves, and what leads from it to a key.
fn trie(mut leaves: Vec<(B256, Vec<u8>)>, key: B256) -> (B256, Vec<Bytes>) {
    leaves.sort();
    let key = Nibbles::unpack(key);
    let mut builder = HashBuilder::default().with_proof_retainer(ProofRetainer::new(vec![key]));
    for (at, value) in &leaves {
        builder.add_leaf(Nibbles::unpack(at), value);
    }
    let root = builder.root();
    let nodes = builder.take_proof_nodes().matching_nodes_sorted(&key);
    (root, nodes.into_iter().map(|(_, node)| node).collect())
}

fn envelope(index: u64, log: &LogData) -> ReceiptEnvelope {
    let log = PrimitiveLog { address: CONTRACT, data: log.clone() };
    let receipt =
        Receipt { status: true.into(), cumulative_gas_used: 21_000 * index, logs: vec![log] };
    ReceiptEnvelope::Eip1559(ReceiptWithBloom::from(receipt))
}

/// Money of a stranger for a deposit, and its log as the contract writes it.
fn deposited(key: DepositKey) -> (Event, LogData) {
    let (from, units) = (Address::repeat_byte(0xdd), Units::new(7));
    let (id, told) = (key.id(), key.clone().into());
    let log = Settlement::Deposited { id, key: told, from, units: units.get() };
    (Event::Funded { key, sender: from, units }, log.encode_log_data())
}

/// A random event, and its log as the contract writes it.
fn event(providers: &mut u32, rng: &mut ChaCha8Rng) -> (Event, LogData) {
    let units = rng.random_range(1..1_000_000);
    let payout = Address::repeat_byte(rng.random());
    match rng.random_range(0..3) {
        0 => {
            *providers += 1;
            let provider = *providers;
            let log = Settlement::Registered { provider, payout }.encode_log_data();
            (Event::Registered { provider, payout }, log)
        }
        1 => {
            let (key, units) = (key(), Units::new(units));
            let log = Settlement::Deposited {
                id: key.id(),
                key: key.clone().into(),
                from: payout,
                units: units.get(),
            };
            (Event::Funded { key, sender: payout, units }, log.encode_log_data())
        }
        _ => {
            let (deposit, ends) = (key().id(), rng.random_range(1..u32::MAX));
            let log = Settlement::Thawed { id: deposit, units: 0, ends }.encode_log_data();
            (Event::Thawed { deposit, units: Units::ZERO, ends: ends.into() }, log)
        }
    }
}

/// What an endpoint does to what it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    Omits(u64),
    OmitsAll(u64),
    OmitsFromRanges(u64),
    OmitsEveryOtherTime(u64),
    /// Tells a block of another branch every other time.
    Wavers {
        number: u64,
        other: usize,
    },
    Invents(u64),
    InventsAnotherEvent(u64),
    ProvesForOneBlockOnly,
    Repeats(u64),
    Misplaces(u64),
    /// In a place where one can stand, of another transaction.
    Displaces(u64),
    /// Of a height that no chain has, from a block on.
    Heaves(u64),
    Reorders(u64),
    Alters(u64),
    ForgesReceipts(u64),
    ForgesReceiptsOnce(u64),
    HasNoReceipts(u64),
    /// The contract's journal without a block's logs, which it leaves out of ranges too: as if the block had none.
    ProvesWithout(u64),
    /// With the header that they have the root of, under the hash of the true one.
    ForgesReceiptsAndHeader(u64),
    Postdates(u64),
    /// Another block than the true one, which says so of itself: its hash is that of its header.
    Dates {
        number: u64,
        time: u64,
    },
    /// Likewise, of a height that no chain has.
    Heightens(u64),
    Misstates,
    MisstatesEveryOtherTime,
    StatesNothing,
    StatesNothingEveryOtherTime,
    /// Likewise, and takes so many seconds for it, which the thread's clock is moved by.
    #[cfg(feature = "crash-points")]
    StallsEveryOtherTime(u64),
    /// Tells some blocks of another branch.
    Keeps {
        from: u64,
        to: u64,
        other: usize,
    },
    Trails(u64),
    /// By a block, which is final at once, after it was asked for the newest one.
    MovesOn,
    HasNoBlocks,
    Garbles,
    LeavesFieldsOut,
    AnswersOthers,
    IsAnotherChain,
    AsksForPatience,
    RefusesRangesAbove(u64),
    /// As a block with more logs than are served at once, whose tx receipts are of a type that nobody knows.
    RefusesLogsOf(u64),
    /// Each time after so many requests.
    RefusesEvery(u64),
    /// As a gateway that waits for its node for so many seconds, which the thread's clock is moved by.
    #[cfg(feature = "crash-points")]
    TimesOutAfter(u64),
    /// Answers each time after so many requests, and nothing that can be read to those between.
    AnswersEvery(u64),
    HasNoBlocksEveryOtherTime,
    /// With the code of an error inside the server.
    Reverts,
    RefusesTransactions(&'static str),
}

/// An endpoint: a branch of the tree, as it serves it.
#[derive(Clone)]
pub(crate) struct Server(Arc<Mutex<Serving>>);

pub(crate) struct Serving {
    pub(crate) tree: Arc<Mutex<Tree>>,
    pub(crate) head: usize,
    pub(crate) lie: Option<Lie>,
    pub(crate) serves_receipts: bool,
    pub(crate) serves_proofs: bool,
    /// Whether it has no state, and with it no journal.
    pub(crate) lacks_state: bool,
    /// Of how many of its newest blocks it keeps the state, if not of all.
    pub(crate) keeps_state_of: Option<u64>,
    /// Oldest block that it has kept, besides the first one.
    pub(crate) oldest: u64,
    /// Whether it has no block of another branch.
    pub(crate) knows_one_branch: bool,
    /// Widths of the ranges of logs that were served.
    pub(crate) ranges: Vec<u64>,
    pub(crate) requests: u64,
    /// Of them, how many asked what an account holds.
    pub(crate) calls: u64,
    /// How often it was asked for what it tells every other time.
    times: u64,
}

impl Server {
    pub(crate) fn new(tree: &Arc<Mutex<Tree>>, head: usize, lie: Option<Lie>) -> Self {
        let (tree, serves_receipts, lacks_state) = (tree.clone(), false, false);
        let serving = Serving {
            tree,
            head,
            lie,
            serves_receipts,
            serves_proofs: false,
            lacks_state,
            keeps_state_of: None,
            oldest: 0,
            knows_one_branch: false,
            ranges: Vec::new(),
            requests: 0,
            calls: 0,
            times: 0,
        };
        Self(Arc::new(Mutex::new(serving)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Serving> {
        self.0.lock().unwrap()
    }
}

impl Service<RequestPacket> for Server {
    type Response = ResponsePacket;
    type Error = TransportError;
    type Future = TransportFut<'static>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, packet: RequestPacket) -> Self::Future {
        let mut serving = self.lock();
        let request = packet.as_single().unwrap();
        let body: Value = serde_json::from_str(request.serialized().get()).unwrap();
        serving.requests += 1;
        serving.calls += u64::from(request.method() == "eth_call");
        #[cfg(feature = "crash-points")]
        if let Some(Lie::TimesOutAfter(seconds)) = serving.lie {
            let now = ledger::point::now() + std::time::Duration::from_secs(seconds);
            ledger::point::set_clock(Some(now));
            let error =
                alloy::transports::TransportErrorKind::http_error(504, "gateway timeout".into());
            return Box::pin(std::future::ready(Err(error)));
        }
        let payload = match serving.answer(request.method(), &body["params"]) {
            Ok(answer) => {
                ResponsePayload::Success(serde_json::value::to_raw_value(&answer).unwrap())
            }
            Err((code, message)) => {
                ResponsePayload::Failure(ErrorPayload { code, message: message.into(), data: None })
            }
        };
        let is_swapped = serving.lie == Some(Lie::AnswersOthers);
        let id = if is_swapped { Id::Number(u64::MAX) } else { request.id().clone() };
        Box::pin(std::future::ready(Ok(ResponsePacket::Single(Response { id, payload }))))
    }
}

impl Serving {
    /// What is answered for a moment, or to some requests, instead of what is so.
    fn lapse(&mut self, method: &str) -> Option<Result<Value, (i64, String)>> {
        match self.lie? {
            Lie::AnswersEvery(requests) => match self.requests % requests {
                0 => None,
                1 => Some(Ok(json!("garbage"))),
                2 => Some(Ok(Value::Null)),
                _ => Some(Err((-32603, "internal error".into()))),
            },
            Lie::HasNoBlocksEveryOtherTime if method.starts_with("eth_getBlock") => {
                self.times += 1;
                (self.times % 2 == 1).then_some(Ok(Value::Null))
            }
            Lie::StatesNothing if method == "eth_call" => Some(Err((-32000, "not now".into()))),
            Lie::StatesNothingEveryOtherTime if method == "eth_call" => {
                self.times += 1;
                (self.times % 2 == 1).then(|| Err((-32000, "not now".into())))
            }
            #[cfg(feature = "crash-points")]
            Lie::StallsEveryOtherTime(seconds) if method == "eth_call" => {
                self.times += 1;
                (self.times % 2 == 1).then(|| {
                    let now = ledger::point::now() + std::time::Duration::from_secs(seconds);
                    ledger::point::set_clock(Some(now));
                    Err((-32000, "not now".into()))
                })
            }
            Lie::Reverts if method == "eth_call" => {
                Some(Err((-32603, "execution reverted".into())))
            }
            Lie::RefusesTransactions(why) if method == "eth_sendRawTransaction" => {
                Some(Err((-32000, why.into())))
            }
            _ => None,
        }
    }

    fn answer(&mut self, method: &str, params: &Value) -> Result<Value, (i64, String)> {
        if let Some(lapse) = self.lapse(method) {
            return lapse;
        }
        match self.lie {
            Some(Lie::Garbles) => return Ok(json!("garbage")),
            Some(Lie::RefusesEvery(requests)) if self.requests.is_multiple_of(requests) => {
                return Err((-32000, "not now".into()));
            }
            Some(Lie::AsksForPatience) => return Err((429, "too many requests".into())),
            Some(Lie::IsAnotherChain) if method == "eth_chainId" => return Ok(json!("0x1")),
            Some(Lie::OmitsEveryOtherTime(_)) if method == "eth_getLogs" => self.times += 1,
            Some(Lie::MisstatesEveryOtherTime) if method == "eth_call" => self.times += 1,
            Some(Lie::Wavers { number, .. }) if params[0] == format!("{number:#x}") => {
                self.times += 1;
            }
            _ => {}
        }
        let tree = self.tree.clone();
        let tree = tree.lock().unwrap();
        match method {
            "eth_getCode" => Ok(json!(CODE)),
            "eth_chainId" => Ok(json!(format!("0x{CHAIN_ID:x}"))),
            "eth_getBlockByNumber" => Ok(self.by_number(&tree, &params[0])),
            "eth_getBlockByHash" => Ok(self
                .by_hash(&tree, &params[0])
                .map_or(Value::Null, |node| self.block(&tree, node))),
            "eth_getLogs" => self.get_logs(&tree, &params[0]),
            "eth_getStorageAt" if self.lacks_state => Err((-32000, "missing trie node".into())),
            "eth_getStorageAt" => {
                let node = self
                    .by_hash(&tree, &params[2])
                    .ok_or((-32000, "header not found".to_owned()))?;
                let age = tree.number(self.head).saturating_sub(tree.number(node));
                match self.keeps_state_of {
                    Some(blocks) if age >= blocks => Err((-32000, "missing trie node".into())),
                    _ => Ok(json!(tree.nodes[node].journal.word())),
                }
            }
            "eth_call" => {
                let node = self
                    .by_hash(&tree, &params[1])
                    .ok_or((-32000, "header not found".to_owned()))?;
                let call = &params[0];
                let input = call.get("input").or_else(|| call.get("data"));
                let input: Bytes = input.unwrap().as_str().unwrap().parse().unwrap();
                Ok(json!(self.deposit(&tree, node, B256::from_slice(&input[4..36]))))
            }
            // As reth and Nethermind say it.
            "eth_getProof" if self.lie == Some(Lie::ProvesForOneBlockOnly) => {
                Err((-32602, "distance to target block exceeds maximum proof window".into()))
            }
            "eth_getBlockReceipts" if self.lie == Some(Lie::ProvesForOneBlockOnly) => {
                Err((-32002, "No state available for block".into()))
            }
            "eth_getBlockReceipts" if self.serves_receipts => Ok(self.receipts(&tree, &params[0])),
            "eth_getProof" if self.serves_proofs => self.proof(&tree, &params[2]),
            _ => Err((-32601, "the method does not exist".into())),
        }
    }

    fn newest(&self, tree: &Tree) -> u64 {
        let trails = if let Some(Lie::Trails(blocks)) = self.lie { blocks } else { 0 };
        tree.number(self.head).saturating_sub(trails)
    }

    fn by_number(&self, tree: &Tree, number: &Value) -> Value {
        let number = match number.as_str().unwrap() {
            "latest" if self.lie == Some(Lie::MovesOn) => self.newest(tree) - 1,
            "latest" | "finalized" => self.newest(tree),
            "earliest" => self.oldest,
            _ if self.lie == Some(Lie::HasNoBlocks) => return Value::Null,
            number => hex(number),
        };
        if number > self.newest(tree) {
            return Value::Null;
        }
        let head = match self.lie {
            Some(Lie::Wavers { number: at, other }) if at == number && self.times % 2 == 1 => other,
            Some(Lie::Keeps { from, to, other }) if (from..=to).contains(&number) => other,
            _ => self.head,
        };
        tree.at(head, number).map_or(Value::Null, |node| self.block(tree, node))
    }

    /// A block by its hash, of this branch or not.
    fn by_hash(&self, tree: &Tree, hash: &Value) -> Option<usize> {
        let hash: B256 = hash.as_str()?.parse().unwrap();
        let node = tree.nodes.iter().rposition(|node| node.hash == hash)?;
        let is_known =
            !self.knows_one_branch || tree.at(self.head, tree.number(node)) == Some(node);
        is_known.then_some(node)
    }

    fn block(&self, tree: &Tree, node: usize) -> Value {
        let Node { header, hash, .. } = &tree.nodes[node];
        let (mut inner, mut hash) = (header.clone(), *hash);
        match self.lie {
            Some(Lie::Dates { number, time }) if number == inner.number => {
                inner.timestamp = time;
                hash = inner.hash_slow();
            }
            Some(Lie::Heightens(at)) if at == inner.number => {
                inner.number = u64::MAX;
                hash = inner.hash_slow();
            }
            Some(Lie::Postdates(at)) if at == inner.number => inner.timestamp += 1_000_000,
            Some(Lie::ForgesReceiptsAndHeader(at)) if at == inner.number => {
                let forged = |(index, log): (u64, Log)| {
                    let mut data = log.inner.data;
                    alter(&mut data);
                    envelope(index, &data)
                };
                let receipts: Vec<_> = (1..).zip(tree.logs(node)).map(forged).collect();
                inner.receipts_root = calculate_receipt_root(&receipts);
            }
            _ => {}
        }
        let header = types::Header { hash, inner, total_difficulty: None, size: None };
        let block: types::Block = types::Block {
            header,
            uncles: Vec::new(),
            transactions: BlockTransactions::Hashes(Vec::new()),
            withdrawals: None,
        };
        let mut block = serde_json::to_value(block).unwrap();
        if self.lie == Some(Lie::LeavesFieldsOut) {
            block.as_object_mut().unwrap().remove("parentHash");
        }
        block
    }

    /// A deposit, as the contract would answer.
    fn deposit(&self, tree: &Tree, node: usize, id: B256) -> Bytes {
        let DepositState { balance, thawing, spent, epoch, thaw_ends, .. } = tree.deposit(node, id);
        let is_untrue = self.lie == Some(Lie::Misstates)
            || (self.lie == Some(Lie::MisstatesEveryOtherTime) && self.times % 2 == 1);
        let balance = balance.get() + u64::from(is_untrue);
        let words = (balance, thawing.get(), spent.get(), epoch, u32::try_from(thaw_ends).unwrap());
        words.abi_encode().into()
    }

    fn get_logs(&mut self, tree: &Tree, filter: &Value) -> Result<Value, (i64, String)> {
        if !filter["blockHash"].is_null() {
            let node = self
                .by_hash(tree, &filter["blockHash"])
                .ok_or((-32000, "unknown block".to_owned()))?;
            if self.lie == Some(Lie::RefusesLogsOf(tree.number(node))) {
                return Err(too_many());
            }
            return Ok(json!(self.told(tree, node)));
        }
        let (from, to) =
            (hex(filter["fromBlock"].as_str().unwrap()), hex(filter["toBlock"].as_str().unwrap()));
        if let Some(Lie::RefusesLogsOf(number)) = self.lie
            && (from..=to).contains(&number)
        {
            return Err(too_many());
        }
        if let Some(Lie::RefusesRangesAbove(blocks)) = self.lie
            && to - from >= blocks
        {
            return Err((-32005, format!("block range is limited to {blocks} blocks")));
        }
        self.ranges.push(to - from + 1);
        let is_told = |number: &u64| {
            let omissions = [Lie::OmitsFromRanges(*number), Lie::ProvesWithout(*number)];
            self.lie.is_none_or(|lie| !omissions.contains(&lie))
        };
        let nodes = (from..=to).filter(is_told).filter_map(|number| tree.at(self.head, number));
        Ok(json!(nodes.flat_map(|node| self.told(tree, node)).collect::<Vec<_>>()))
    }

    /// The logs of a block, as this endpoint tells them.
    fn told(&self, tree: &Tree, node: usize) -> Vec<Log> {
        let mut logs = tree.logs(node);
        let number = tree.number(node);
        match self.lie {
            Some(Lie::Omits(at)) if at == number => {
                logs.remove(0);
            }
            Some(Lie::OmitsEveryOtherTime(at)) if at == number && self.times % 2 == 1 => {
                logs.remove(0);
            }
            Some(Lie::OmitsAll(at)) if at == number => logs.clear(),
            Some(Lie::Invents(at)) if at == number => {
                let mut invented = logs[0].clone();
                let funded = Settlement::Deposited {
                    id: key().id(),
                    key: key().into(),
                    from: Address::ZERO,
                    units: 1_000_000_000,
                };
                invented.inner.data = funded.encode_log_data();
                logs.push(invented);
            }
            Some(Lie::InventsAnotherEvent(at)) if at == number => {
                let mut invented = logs[0].clone();
                invented.inner.data = foreign();
                logs.push(invented);
            }
            Some(Lie::Repeats(at)) if at == number => {
                // One that the ledger can have once only.
                let mut repeated = logs[0].clone();
                let registered = Settlement::Registered { provider: 1, payout: Address::ZERO };
                repeated.inner.data = registered.encode_log_data();
                logs.push(repeated);
            }
            Some(Lie::Reorders(at)) if at == number => logs.swap(0, 1),
            Some(Lie::Alters(at)) if at == number => alter(&mut logs[0].inner.data),
            _ => {}
        }
        // A careful liar keeps its story straight.
        for (index, log) in (0..).zip(&mut logs) {
            log.log_index = Some(index);
        }
        if self.lie == Some(Lie::Displaces(number)) {
            for log in &mut logs {
                log.log_index = log.log_index.map(|index| index + 7);
                log.transaction_hash = log.transaction_hash.map(keccak256);
            }
        }
        if let (Some(Lie::Heaves(from)), Some(log)) = (self.lie, logs.first_mut())
            && number >= from
        {
            log.block_number = Some(u64::from(u32::MAX));
        }
        if self.lie == Some(Lie::Misplaces(number)) {
            logs[0].log_index = Some(1 << 63);
            logs.truncate(1);
        }
        logs
    }

    fn proof(&self, tree: &Tree, hash: &Value) -> Result<Value, (i64, String)> {
        let node = self.by_hash(tree, hash).ok_or((-32000, "header not found".to_owned()))?;
        let journal = match self.lie {
            Some(Lie::ProvesWithout(number)) => tree.journal_without(node, number),
            _ => tree.journal(node),
        };
        Ok(json!(state(journal).1))
    }

    fn receipts(&mut self, tree: &Tree, hash: &Value) -> Value {
        let node = self.by_hash(tree, hash).unwrap();
        let number = tree.number(node);
        match self.lie {
            Some(Lie::HasNoReceipts(at)) if at == number => return json!([]),
            Some(Lie::ForgesReceiptsOnce(at)) if at == number => self.times += 1,
            _ => {}
        }
        let forgeries = [Lie::ForgesReceipts(number), Lie::ForgesReceiptsAndHeader(number)];
        let is_forged = self.lie.is_some_and(|lie| forgeries.contains(&lie))
            || (self.lie == Some(Lie::ForgesReceiptsOnce(number)) && self.times == 1);
        let logs = tree.logs(node);
        if tree.nodes[node].is_state_sync {
            return json!([{
                "type": "0x0", "status": "0x1", "cumulativeGasUsed": "0x0",
                "transactionHash": logs[0].transaction_hash, "logs": logs,
            }]);
        }
        let kind = if self.lie == Some(Lie::RefusesLogsOf(number)) { "0x7e" } else { "0x2" };
        let receipt = |(index, log): (u64, Log)| {
            let mut log = log;
            if is_forged {
                alter(&mut log.inner.data);
            }
            json!({
                "type": kind, "status": "0x1", "cumulativeGasUsed": format!("0x{:x}", 21_000 * index),
                "transactionHash": log.transaction_hash, "logs": [log],
            })
        };
        (1..).zip(logs).map(receipt).collect()
    }
}

/// Changes what a log says, so that it still is an event of the contract.
fn alter(data: &mut LogData) {
    let id = keccak256("another deposit");
    *data = Settlement::Thawed { id, units: 0, ends: 7 }.encode_log_data();
}

fn too_many() -> (i64, String) {
    (-32005, "query returned more than 10000 results".into())
}

fn hex(text: &str) -> u64 {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
}

pub(crate) fn endpoints(servers: &[(&str, &Server)], finality: Finality) -> Endpoints {
    let upstream = |(operator, server): &(&str, &Server)| {
        let client = RpcClient::new((*server).clone(), true);
        Upstream {
            operator: (*operator).to_owned(),
            provider: ProviderBuilder::new().connect_client(client).erased(),
            hidden: Vec::new(),
        }
    };
    Endpoints::new(servers.iter().map(upstream).collect(), CONTRACT, finality)
}

/// A ledger of the tree's chain, in memory where the system has a file system there. Its tables are made once.
pub(crate) async fn ledger(genesis: B256) -> (TempDir, Ledger) {
    static EMPTY: OnceLock<Vec<u8>> = OnceLock::new();
    let folder = folder();
    let path = folder.path().join("ledger.db");
    let identity = Identity { chain_id: CHAIN_ID, contract: CONTRACT, genesis, start_block: 1 };
    if let Some(empty) = EMPTY.get() {
        std::fs::write(&path, empty).unwrap();
        return (folder, Ledger::open(&path, identity).await.unwrap());
    }
    Ledger::open(&path, identity).await.unwrap().close().await;
    EMPTY.get_or_init(|| std::fs::read(&path).unwrap());
    (folder, Ledger::open(&path, identity).await.unwrap())
}

fn folder() -> TempDir {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// That the ledger holds exactly what a replay of the branch says.
pub(crate) async fn assert_is(ledger: &Ledger, tree: &Tree, head: usize) {
    let blocks = tree.replay(head);
    assert_eq!(ledger::verify::facts(ledger, &blocks, u64::MAX).await.unwrap(), []);
    let writer = ChainWriter::new(ledger.clone());
    let checkpoint = writer.checkpoint().await.unwrap().unwrap();
    assert_eq!(checkpoint.hash, tree.nodes[head].hash, "the checkpoint is the head");
    assert_eq!(writer.journal_at(checkpoint.number).await.unwrap(), tree.journal(head));
}
