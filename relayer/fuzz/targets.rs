//! What must hold for any bytes from outside: one function for each parser that reads them. The fuzzer drives them with
//! bytes of its own; `cargo test` replays the committed corpus, and changes of it.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "each target uses one function and fails by panicking"
)]

use std::{
    collections::BTreeMap,
    fs,
    future::ready,
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use alloy::{
    consensus::TxEnvelope,
    eips::eip2718::{Decodable2718, Encodable2718},
    primitives::{Address, B256, LogData, Signature, U256, address},
    providers::{Provider, ProviderBuilder},
    rpc::{
        client::RpcClient,
        json_rpc::{
            ErrorPayload, RequestPacket, Response, ResponsePacket, ResponsePayload,
            SerializedRequest,
        },
        types::Log,
    },
    transports::{TransportError, TransportFut},
};
use contracts::journal::Journal;
use indexer::{Endpoints, Finality, Indexer, Turn, Upstream};
use ledger::{
    Amount, Decimal, Identity, Ledger,
    book::{BookWriter, Copied, Order, Sighting},
    chain::ChainWriter,
    invariants,
    manifest::Secret,
    statement,
    workload::Record,
};
use relayer::{
    config::{Config, SignerConfig},
    decide::Decision,
    intake::{self, Parsed},
    keys::{RemoteKey, TxKey},
    manifests::Manifests,
    opinion,
    recover::CutOff,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json, value::RawValue};

/// What holds for any bytes.
pub type Target = fn(&[u8]);

/// Every target by name.
pub const ALL: [(&str, Target); 16] = [
    ("earnings", earnings),
    ("workloads", workloads),
    ("payees", payees),
    ("manifests", manifests),
    ("imports", imports),
    ("orders", orders),
    ("bodies", bodies),
    ("signers", signers),
    ("configs", configs),
    ("rows", rows),
    ("logs", logs),
    ("signatures", signatures),
    ("amounts", amounts),
    ("transactions", transactions),
    ("answers", answers),
    ("nodes", nodes),
];

/// Daily earnings.
pub fn earnings(data: &[u8]) {
    file("20261120-20261121.json", data);
}

/// `workload/1`.
pub fn workloads(data: &[u8]) {
    file("day.jsonl", data);
}

/// `payee/1`: the first line decides, so that one is put before the bytes.
pub fn payees(data: &[u8]) {
    let first = br#"{"schema":"payee/1","machine":"m","address":"0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed"}"#;
    file("payees.jsonl", &[first.as_slice(), b"\n", data].concat());
}

/// Both readings agree on every record; what is taken comes back from its stored form.
fn file(name: &str, data: &[u8]) {
    let product = intake::parse(name, data, "salad");
    let second = opinion::file(name, data, "salad");
    let (product, second) = match (product, second) {
        (Ok(product), Ok(second)) => (product, second.records),
        (Err(_), Err(_)) => return,
        (product, second) => panic!("one takes the file: {} {}", product.is_ok(), second.is_ok()),
    };
    match product {
        Parsed::Payees { entries, .. } => {
            assert_eq!(entries.len(), second.len());
            for (entry, second) in entries.iter().zip(&second) {
                match (entry, second) {
                    (Ok((machine, address)), Ok(opinion::Said::Payee(other, payout))) => {
                        assert_eq!((machine, address), (other, payout));
                    }
                    (Err(rejection), Err(_)) => assert!(!rejection.reason.is_empty()),
                    other => panic!("{other:?}"),
                }
            }
        }
        Parsed::Work { records, .. } => {
            assert_eq!(records.len(), second.len());
            for (record, second) in records.iter().zip(&second) {
                match (record, second) {
                    (Ok(record), Ok(opinion::Said::Work(work))) => same(record, work),
                    (Err(rejection), Err(_)) => assert!(!rejection.reason.is_empty()),
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

fn same(record: &Record, work: &opinion::Work) {
    let item = &record.item;
    assert_eq!((&item.source, &item.external_id), (&work.source, &work.external_id));
    assert_eq!((&item.organisation, &item.machine), (&work.organisation, &work.machine));
    assert_eq!((item.stopped_ms, record.payout), (work.stopped_ms, work.payout));
    assert_eq!(record.revision.revision, work.revision);
    assert_eq!(record.hold_reason().is_some(), work.digests_differ);
    let stored = Record::from_body(&record.body().unwrap()).unwrap();
    assert_eq!(stored, *record);
    assert_eq!(stored.content().unwrap(), record.content().unwrap());
}

/// What is read of a manifest is what was written, or nothing.
pub fn manifests(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(manifest) = opinion::Manifest::read(text) else { return };
    let case = opinion::Case { manifests: vec![manifest.clone()], ..Default::default() };
    let opinion = opinion::judge(&case);
    // Without events nothing settled; a manifest can differ from itself alone.
    assert_eq!(opinion.statements, 0);
    assert!(opinion.differences.iter().all(|difference| difference.epoch == Some(manifest.epoch)));
}

/// An installation in a folder, whose orders and manifests lie where its configuration says.
fn installation(folder: &Path) -> (Manifests, std::path::PathBuf) {
    let config = Config::parse(include_str!("corpus/configs/good"), folder).unwrap();
    let place = config.path(&config.files.manifests);
    fs::create_dir_all(&place).unwrap();
    (Manifests::new(&config, SECRET), place)
}

/// Seals the orders here.
const SECRET: Secret = Secret::new(B256::repeat_byte(5));

/// Runs a future to its end.
fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

/// A ledger without a past of the recorded node's chain, in a folder. It is made once, then copied.
async fn empty_ledger(folder: &Path) -> Ledger {
    static MADE: OnceLock<Vec<u8>> = OnceLock::new();
    let Node { contract, genesis, .. } = Node::recorded();
    let identity = Identity { chain_id: 31_337, contract, genesis, start_block: 1 };
    let file = folder.join("ledger.db");
    if let Some(made) = MADE.get() {
        fs::write(&file, made).unwrap();
        return Ledger::open(&file, identity).await.unwrap();
    }
    let first = folder.join("first.db");
    Ledger::open(&first, identity).await.unwrap().backup(&file).await.unwrap();
    MADE.get_or_init(|| fs::read(&file).unwrap());
    Ledger::open(&file, identity).await.unwrap()
}

/// What names a manifest's file.
#[derive(Deserialize)]
struct Named {
    deposit: B256,
    epoch: u32,
    digest: B256,
}

/// A manifest that recovery takes is written again as it was read, and the second opinion reads the same of it.
pub fn imports(data: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let (manifests, place) = installation(folder.path());
    let zero = Named { deposit: B256::ZERO, epoch: 0, digest: B256::ZERO };
    let Named { deposit, epoch, digest } = serde_json::from_slice(data).unwrap_or(zero);
    let seen = |name: &str| {
        let (seen, organisation) = (name.to_owned(), None);
        Sighting { deposit, epoch, digest, seen, organisation }
    };
    fs::write(place.join("some.json"), data).unwrap();
    let import = match manifests.read(&seen("some.json")) {
        Ok(import) => import,
        Err(error) => {
            let said = error.to_string();
            let (_, reason) =
                said.split_once(&format!("{}: ", place.join("some.json").display())).unwrap();
            assert!(!reason.is_empty());
            return;
        }
    };
    assert_eq!((import.statement.key.id(), import.digest), (deposit, digest));
    run(manifests.publish(&import)).unwrap();
    let again = manifests.read(&seen(&format!("{deposit}-{epoch}-{digest}.json"))).unwrap();
    assert_eq!(format!("{again:?}"), format!("{import:?}"));
    let text = std::str::from_utf8(data).unwrap();
    let Ok(second) = opinion::Manifest::read(text) else { return };
    let statement = &import.statement;
    assert_eq!(
        (second.digest, second.key.id(), second.epoch, second.spent, second.root),
        (digest, deposit, epoch, statement.spent.get(), statement.manifest)
    );
    assert_eq!(second.rows, contracts::rows::decode(&statement.rows).unwrap());
    let leaf = |leaf: &opinion::Leaf| (leaf.workload, leaf.provider, leaf.amount.to_string());
    let leaves = import.leaves.iter().map(|(leaf, _)| leaf);
    let leaves = leaves.map(|leaf| (leaf.workload, leaf.provider, leaf.amount.to_string()));
    assert!(second.leaves.iter().map(leaf).eq(leaves));
}

/// Lines of orders: sealed ones are brought back, each once, and the file is left as it is; what bears no seal of ours is
/// passed over. Bytes: lines, each an order that is then sealed, or anything.
pub fn orders(data: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let (manifests, place) = installation(folder.path());
    let file = place.join("orders.jsonl");
    let (mut text, mut sealed) = (Vec::new(), Vec::new());
    for line in data.split(|byte| *byte == b'\n') {
        if let Ok(order) = serde_json::from_slice::<Order>(line) {
            let seal = SECRET.seal(&serde_json::to_vec(&order).unwrap());
            text.extend(json!({ "order": order, "seal": seal }).to_string().into_bytes());
            sealed.push(order);
        } else {
            text.extend(line);
        }
        text.push(b'\n');
    }
    fs::write(&file, &text).unwrap();
    run(async {
        let book = BookWriter::new(empty_ledger(folder.path()).await);
        manifests.keep_orders(&book, 0).await.unwrap();
        let (kept, _) = book.orders(Copied::NONE).await.unwrap();
        assert!(kept.iter().all(|order| sealed.contains(order)), "{kept:?}");
        let left = fs::read(&file).unwrap();
        // A process that begins anew finds nothing new in it.
        installation(folder.path()).0.keep_orders(&book, 1).await.unwrap();
        assert_eq!(book.orders(Copied::NONE).await.unwrap().0, kept);
        assert_eq!(fs::read(&file).unwrap(), left);
    });
}

/// Bodies of requests: a decision or a cut-off that is taken is written again as it was read.
pub fn bodies(data: &[u8]) {
    fn body<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(data: &[u8]) {
        match serde_json::from_slice::<T>(data) {
            Ok(read) => {
                let written = serde_json::to_vec(&read).unwrap();
                assert_eq!(serde_json::from_slice::<T>(&written).unwrap(), read);
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    body::<Decision>(data);
    body::<CutOff>(data);
}

/// A signer's answers lead to the account's own signature with low s, or to an error. Bytes: whether the address is told
/// truly, then the answer to everything else.
pub fn signers(data: &[u8]) {
    const DIGEST: B256 = B256::repeat_byte(1);
    let Some((first, answer)) = data.split_first() else { return };
    let (is_honest, answer) = (first % 2 == 0, answer.to_vec());
    let account = address!("0x7e5f4552091a69125d5dfcb7b8c2659029395bdf");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let listens = listener.local_addr().unwrap();
    // Two questions at most, each over a connection of its own.
    std::thread::spawn(move || {
        for stream in listener.incoming().take(2) {
            let mut stream = stream.unwrap();
            let mut question = [0; 1024];
            let mut read = 0;
            while !question[..read].ends_with(b"}") {
                let more = stream.read(&mut question[read..]).unwrap();
                if more == 0 {
                    return;
                }
                read += more;
            }
            let asks_address = question[..read].ends_with(b"{\"method\":\"address\"}");
            let honest = json!({ "address": account }).to_string().into_bytes();
            let body = if asks_address && is_honest { &honest } else { &answer };
            let head = format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            drop(stream.write_all(&[head.as_bytes(), body].concat()));
        }
    });
    let config = SignerConfig { listens, address: account, timeout_ms: 2_000 };
    let key = TxKey::Remote(RemoteKey::new(&config).unwrap());
    match run(key.sign(DIGEST)) {
        Ok(signature) => {
            assert_eq!(signature.recover_address_from_prehash(&DIGEST).unwrap(), account);
            assert!(signature.normalize_s().is_none());
        }
        Err(error) => assert!(error.to_string().starts_with("the signer of the sender failed: ")),
    }
    // Wakes the thread if it was asked once only.
    drop(std::net::TcpStream::connect(listens));
}

/// A configuration that is taken comes back from its written form; a complaint names no address of an endpoint.
pub fn configs(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Config::parse(text, std::path::Path::new("inst")) {
        Ok(config) => {
            let written = toml::to_string(&config).unwrap();
            let again = Config::parse(&written, std::path::Path::new("inst")).unwrap();
            assert_eq!(toml::to_string(&again).unwrap(), written);
            assert!(config.policy.fee_bps <= 10_000);
            assert!(config.tokens.iter().all(|token| !token.usd_per_token.is_zero()));
        }
        Err(error) => {
            // What an address begins with is said as advice; no address is.
            let said = error.to_string().replace("http:// or https://", "");
            assert!(!said.contains("://"), "{error}");
        }
    }
}

/// Rows are taken or refused by both, and packed rows are the only form.
pub fn rows(data: &[u8]) {
    let product = contracts::rows::decode(data);
    let second = opinion::rows(data);
    assert_eq!(product.clone().ok(), second.ok());
    if let Ok(rows) = product {
        assert_eq!(contracts::rows::encode(&rows).unwrap(), data);
    }
}

/// A log is decoded by its first topic and its data as a whole, or not at all. Bytes: number of topics, topics, data.
pub fn logs(data: &[u8]) {
    let Some((count, rest)) = data.split_first() else { return };
    let count = usize::from(count % 5);
    let Some((topics, rest)) = rest.split_at_checked(count * 32) else { return };
    let topics: Vec<B256> = topics.chunks(32).map(B256::from_slice).collect();
    let contract = Address::repeat_byte(7);
    let inner = LogData::new_unchecked(topics, rest.to_vec().into());
    let log =
        Log { inner: alloy::primitives::Log { address: contract, data: inner }, ..Log::default() };
    fact(&log, contract);
}

fn fact(log: &Log, contract: Address) {
    let first = indexer::fact(log, contract);
    assert_eq!(first.is_ok(), indexer::fact(log, contract).is_ok());
    if let Ok(fact) = first {
        assert!(!log.inner.data.topics().is_empty());
        assert_eq!(Some(fact.log_index), log.log_index.or(Some(0)));
    }
}

/// A signature is taken in one form only, and leads to the address that another library finds.
pub fn signatures(data: &[u8]) {
    let Some((digest, signature)) = data.split_at_checked(32) else { return };
    let digest = B256::from_slice(digest);
    let Ok(address) = statement::recover(digest, signature) else { return };
    assert_eq!(signature.len(), 65);
    assert!(matches!(signature[64], 27 | 28));
    let half: U256 =
        "57896044618658097711785492504343953926418782139537452191302581570759080747168"
            .parse()
            .unwrap();
    assert!(U256::from_be_slice(&signature[32..64]) <= half);
    let other = Signature::from_raw(signature).unwrap().recover_address_from_prehash(&digest);
    assert_eq!(other.unwrap(), address);
}

/// Decimals and amounts are read, printed and converted alike on both sides. Bytes: decimals, price, 0, rate.
pub fn amounts(data: &[u8]) {
    let Some((decimals, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let (price, rate) = text.split_once('\0').unwrap_or((text, "1"));
    if let Ok(amount) = price.parse::<Amount>() {
        assert_eq!(amount.to_string().parse::<Amount>().unwrap(), amount);
        assert!(price.parse::<Decimal>().is_ok() || amount.base_units() >= 10_u128.pow(30));
    }
    let product = price.parse::<Decimal>();
    let second = opinion::Decimal::read(price);
    assert_eq!(product.is_ok(), second.is_some(), "{price:?}");
    let (Ok(product), Some(second)) = (product, second) else { return };
    assert_eq!(product.to_string().parse::<Decimal>().unwrap(), product);
    assert_eq!(product.is_zero(), second.is_zero());
    let (Ok(rate), Some(second_rate)) = (rate.parse::<Decimal>(), opinion::Decimal::read(rate))
    else {
        return;
    };
    let decimals = decimals % 25;
    let most = U256::from(u128::MAX);
    let converted =
        product.convert(&rate, decimals).ok().map(|amount| U256::from(amount.base_units()));
    let bought = second.buys(&second_rate, decimals).filter(|amount| *amount <= most);
    assert_eq!(converted, bought, "{price} at {rate} with {decimals} decimals");
}

/// The bytes of a transaction have one meaning and one form.
pub fn transactions(data: &[u8]) {
    let mut rest = data;
    let Ok(transaction) = TxEnvelope::decode_2718(&mut rest) else { return };
    let used = data.len() - rest.len();
    let bytes = transaction.encoded_2718();
    let again = TxEnvelope::decode_2718(&mut bytes.as_slice()).unwrap();
    assert_eq!(again.tx_hash(), transaction.tx_hash());
    assert!(bytes.len() <= used.max(bytes.len()));
}

/// Answers of an endpoint: logs.
pub fn answers(data: &[u8]) {
    let Ok(logs) = serde_json::from_slice::<Vec<Log>>(data) else { return };
    for log in &logs {
        fact(log, log.address());
        let again: Log = serde_json::from_str(&serde_json::to_string(log).unwrap()).unwrap();
        assert_eq!(again, *log);
    }
}

/// A node: what it answers to each request, by method and block.
#[derive(Deserialize)]
struct Node {
    contract: Address,
    genesis: B256,
    answers: BTreeMap<String, Box<RawValue>>,
}

impl Node {
    fn answer(&self, request: &SerializedRequest) -> ResponsePayload {
        let params: Value =
            serde_json::from_str(request.params().map_or("[]", |params| params.get())).unwrap();
        // The block is what is named last: by number, by hash, or as a range.
        let place = params.as_array().into_iter().flatten().rev().find_map(|param| {
            let text = |name: &str| param[name].as_str();
            match (param.as_str().or(text("blockHash")), text("fromBlock"), text("toBlock")) {
                (Some(block), ..) => Some(format!(" {block}")),
                (None, Some(from), Some(to)) => Some(format!(" {from}-{to}")),
                _ => None,
            }
        });
        let name = format!("{}{}", request.method(), place.unwrap_or_default());
        match self.answers.get(&name) {
            Some(answer) => ResponsePayload::Success(answer.clone()),
            None => {
                let message = "the method does not exist".into();
                ResponsePayload::Failure(ErrorPayload { code: -32_601, message, data: None })
            }
        }
    }
}

/// The way to a recorded node.
#[derive(Clone)]
struct Wire(Arc<Node>);

impl tower::Service<RequestPacket> for Wire {
    type Response = ResponsePacket;
    type Error = TransportError;
    type Future = TransportFut<'static>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, packet: RequestPacket) -> Self::Future {
        let answer = |request: &SerializedRequest| Response {
            id: request.id().clone(),
            payload: self.0.answer(request),
        };
        let answers = match &packet {
            RequestPacket::Single(request) => ResponsePacket::Single(answer(request)),
            RequestPacket::Batch(requests) => {
                requests.iter().map(answer).collect::<Vec<_>>().into()
            }
        };
        Box::pin(ready(Ok(answers)))
    }
}

/// Blocks, logs, tx receipts and proofs of three endpoints that say the same: whatever they say, what becomes final folds to
/// the journal of the chain, and the ledger stays sound.
pub fn nodes(data: &[u8]) {
    follow(data);
}

/// Follows a node for some turns. Returns the last block that became final.
pub fn follow(data: &[u8]) -> u64 {
    let Ok(node) = serde_json::from_slice::<Node>(data) else { return 0 };
    let (node, truth, folder) = (Arc::new(node), Node::recorded(), tempfile::tempdir().unwrap());
    let upstream = |operator: &str| {
        let client = RpcClient::new(Wire(node.clone()), true);
        let provider = ProviderBuilder::new().disable_recommended_fillers().connect_client(client);
        Upstream { operator: operator.into(), provider: provider.erased(), hidden: Vec::new() }
    };
    let upstreams = ["anna", "bert", "cleo"].map(upstream).into();
    let endpoints = Endpoints::new(upstreams, truth.contract, Finality::Depth(2));
    endpoints.expect_chain(31_337, truth.genesis);
    run(async {
        let ledger = empty_ledger(folder.path()).await;
        let Ok(mut indexer) = Indexer::new(endpoints, ledger.clone()).await else { return 0 };
        for _ in 0..8 {
            match indexer.turn().await {
                Ok(Turn::Idle) | Err(_) => break,
                Ok(_) => {}
            }
        }
        assert_eq!(invariants::violations(&ledger).await.unwrap(), []);
        let writer = ChainWriter::new(ledger);
        let last = writer.finalised().await.unwrap();
        if last > 0 {
            let journal = writer.journal_at(last).await.unwrap();
            assert_eq!(journal, truth.journal(last), "at block {last}");
        }
        last
    })
}

impl Node {
    /// A node as it was recorded, over a chain of six blocks.
    fn recorded() -> Self {
        serde_json::from_str(include_str!("corpus/nodes/good")).unwrap()
    }

    /// The contract's journal after a block.
    fn journal(&self, number: u64) -> Journal {
        let answer = |name: &str| serde_json::from_str::<Value>(self.answers[name].get()).unwrap();
        let block = answer(&format!("eth_getBlockByNumber {number:#x}"));
        let word = answer(&format!("eth_getStorageAt {}", block["hash"].as_str().unwrap()));
        Journal::from_word(word.as_str().unwrap().parse().unwrap())
    }
}
