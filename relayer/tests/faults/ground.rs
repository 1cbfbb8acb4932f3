//! A chain and an installation that has deposits and has not begun: the ground that every run starts from.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, RandomState},
    path::Path,
};

use alloy::{
    primitives::{Address, U256, address, keccak256},
    signers::local::PrivateKeySigner,
    sol_types::SolCall,
};
use contracts::{Settlement, TestToken, eip712::DepositKey};
use ledger::{Amount, Decimal, Unit, workload::Rate};
use relayer::{
    config::{OrganisationConfig, Pace, TokenConfig},
    generate::{self, File, Shape},
    intake::{self, Parsed},
};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::env::{Env, assert_success, rpc};

/// Blocks below the head that are final: what a reorg of these tests may not reach.
pub(crate) const FINALITY: u64 = 8;
/// Pays for everything, at the node's own keys.
const REQUESTOR: Address = address!("0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266");
const OPERATOR: Address = address!("0x00000000000000000000000000000000000f33f3");
/// Name, symbol, decimals, USD per whole token.
const TOKENS: [(&str, &str, u8, &str); 2] =
    [("Test GLM", "TGLM", 18, "0.247"), ("Test USD", "TUSD", 6, "1")];

/// Lets hundreds of runs fit into minutes.
const FAST: Pace = Pace { idle_ms: 20, push_ms: 100 };

/// What is handed in, in this order, each file settled before the next.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    pub(crate) payees: File,
    pub(crate) files: Vec<File>,
    /// Whether the chain is eventful: a reorg after the first file, money for half of the first organisation's second file
    /// only after it was handed in, a base fee that overtakes a sent transaction at the third.
    pub(crate) is_eventful: bool,
    /// How often the server looks.
    pub(crate) pace: Pace,
}

impl Script {
    /// Three days of daily earnings, small and eventful.
    pub(crate) fn three_days() -> Self {
        let shape = shape(8, 3, 2);
        let (payees, files) = (generate::payees(&shape), generate::earnings(&shape));
        Self { payees, files, is_eventful: true, pace: FAST }
    }

    /// `workload/1` records of so many machines, in files of about `records` each, oldest work first.
    pub(crate) fn workloads(machines: u32, organisations: u32, records: usize) -> Self {
        let shape = shape(machines, 3, organisations);
        let content: String =
            generate::workloads(&shape).into_iter().map(|file| file.content).collect();
        let mut lines: Vec<_> = content.lines().collect();
        let end = |line: &&str| {
            let parsed: Option<Value> = serde_json::from_str(line).ok();
            parsed.map(|record| record["ended_at"].to_string())
        };
        lines.sort_by_cached_key(end);
        let file = |(index, lines): (usize, &[&str])| File {
            name: format!("work-{index:04}.jsonl"),
            content: lines.join("\n") + "\n",
        };
        let files = lines.chunks(records).enumerate().map(file).collect();
        Self { payees: generate::payees(&shape), files, is_eventful: false, pace: FAST }
    }

    pub(crate) fn at_default_pace(self) -> Self {
        Self { pace: Pace::default(), ..self }
    }

    pub(crate) fn records(&self) -> usize {
        parsed(&self.files).len()
    }

    /// Addresses that can be paid, without the operator's.
    fn payouts(&self) -> BTreeSet<Address> {
        let address = |line: &str| {
            let entry: Value = serde_json::from_str(line).unwrap();
            entry["address"].as_str().unwrap().parse().unwrap()
        };
        self.payees.content.lines().map(address).collect()
    }
}

fn parsed(files: &[File]) -> Vec<ledger::workload::Record> {
    let parse = |file: &File| intake::parse(&file.name, file.content.as_bytes(), "salad");
    let records = |parsed| match parsed {
        Parsed::Work { records, .. } => records,
        Parsed::Payees { .. } => Vec::new(),
    };
    files.iter().flat_map(|file| records(parse(file).unwrap())).flatten().collect()
}

fn shape(machines: u32, days: u32, organisations: u32) -> Shape {
    Shape { seed: 1, first_day: "2026-11-18".parse().unwrap(), days, machines, organisations }
}

/// What must never be seen outside of key files and configuration.
#[derive(Default)]
pub(crate) struct Canaries(Vec<(&'static str, Vec<u8>)>);

impl Canaries {
    /// The secrets of an installation.
    fn of(folder: &Path) -> Self {
        let read = |name: &str| {
            std::fs::read_to_string(folder.join("keys").join(name)).unwrap().trim().to_owned()
        };
        let password = read("password");
        let mut canaries = Self::default();
        for (name, file) in
            [("the attester's key", "attester.json"), ("the sender's key", "sender.json")]
        {
            let path = folder.join("keys").join(file);
            let key = PrivateKeySigner::decrypt_keystore(path, &password).unwrap().to_bytes();
            canaries.add(name, key.to_vec());
            canaries.add(name, alloy::hex::encode(key).into_bytes());
        }
        let secret = read("secret");
        canaries.add("the secret", alloy::hex::decode(&secret).unwrap());
        canaries.add("the secret", secret.trim_start_matches("0x").as_bytes().to_vec());
        canaries.add("the password", password.into_bytes());
        canaries.add("the endpoint's key", crate::proxy::KEY.as_bytes().to_vec());
        canaries
    }

    fn add(&mut self, name: &'static str, bytes: Vec<u8>) {
        assert!(bytes.len() >= 16, "{name} could be anywhere by chance");
        self.0.push((name, bytes));
    }

    /// Fails if one is in there.
    pub(crate) fn look_for(&self, what: &str, content: &[u8]) {
        for (name, canary) in &self.0 {
            assert!(!holds(content, canary), "{what} holds {name}");
        }
    }
}

/// Whether bytes occur in others.
pub(crate) fn holds(content: &[u8], part: &[u8]) -> bool {
    let first = part[0];
    let mut rest = content;
    while let Some(at) = rest.iter().position(|byte| *byte == first) {
        if rest[at..].starts_with(part) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

/// A chain, an installation on it, and the snapshot that every run goes back to.
pub(crate) struct Ground {
    pub(crate) env: Env,
    pub(crate) script: Script,
    pub(crate) payouts: BTreeSet<Address>,
    pub(crate) canaries: Canaries,
    pub(crate) sender: String,
    snapshot: Mutex<String>,
    contract: Address,
    tokens: Vec<Address>,
    keys: BTreeMap<String, DepositKey>,
    top_up: Option<(DepositKey, u64)>,
}

impl Ground {
    pub(crate) async fn new(script: Script) -> Self {
        let env = Env::new().await;
        let mut ground = Self {
            payouts: script.payouts().into_iter().chain([OPERATOR]).collect(),
            canaries: Canaries::default(),
            sender: String::new(),
            snapshot: Mutex::default(),
            contract: Address::ZERO,
            tokens: Vec::new(),
            keys: BTreeMap::new(),
            top_up: None,
            env,
            script,
        };
        ground.install().await;
        ground.fund().await;
        let chain = ground.env.provider();
        rpc(&chain, "evm_setAutomine", "[false]").await;
        // A reorg at the very start of a run must not undo the money.
        rpc(&chain, "anvil_mine", &json!([FINALITY]).to_string()).await;
        *ground.snapshot.get_mut() = ground.take_snapshot().await;
        ground
    }

    /// Puts the chain back to where it was when the ground was laid.
    pub(crate) async fn revert(&self) {
        let chain = self.env.provider();
        let mut snapshot = self.snapshot.lock().await;
        let done = rpc(&chain, "evm_revert", &format!("[{snapshot}]")).await;
        assert_eq!(done, Value::Bool(true));
        rpc(&chain, "anvil_dropAllTransactions", "[]").await;
        *snapshot = self.take_snapshot().await;
    }

    async fn take_snapshot(&self) -> String {
        rpc(&self.env.provider(), "evm_snapshot", "[]").await.to_string()
    }

    /// `init`, tokens, `deploy`.
    async fn install(&mut self) {
        let env = &self.env;
        let (operator, finality) = (OPERATOR.to_string(), FINALITY.to_string());
        let arguments = [
            "--rpc-url",
            &env.anvil.url,
            "--operator-payout",
            &operator,
            "--finality-depth",
            &finality,
        ];
        let output = env.run("init", &arguments).await;
        assert_success(&output);
        let told = String::from_utf8(output.stdout).unwrap();
        let sender = told.split_whitespace().skip_while(|word| *word != "sender").nth(1).unwrap();
        self.sender = sender.to_owned();
        self.canaries = Canaries::of(&env.dir());
        let params = format!("[\"{sender}\", \"0x56bc75e2d63100000\"]");
        rpc(&env.provider(), "anvil_setBalance", &params).await;
        let mut config = env.config();
        for (name, symbol, decimals, usd_per_token) in TOKENS {
            let deploy = TestToken::deploy_builder(
                env.provider(),
                name.to_owned(),
                symbol.to_owned(),
                decimals,
            );
            let address = self.transact(None, deploy.calldata()).await.unwrap();
            self.tokens.push(address);
            config.tokens.push(TokenConfig {
                address,
                symbol: symbol.into(),
                usd_per_token: usd_per_token.parse().unwrap(),
                rate_source: "static".into(),
                rate_at_ms: 0,
                push_threshold_units: 0,
            });
        }
        self.contract = config.chain.contract;
        config.policy.fee_bps = 100;
        config.policy.bump_after_seconds = 1;
        config.pace = self.script.pace;
        config.write().unwrap();
        assert_success(&env.run("deploy", &[]).await);
    }

    /// A deposit for each organisation, with the fee and a twentieth more than its work costs. In an eventful script, the first
    /// one gets what the first file and half of the second cost at first.
    async fn fund(&mut self) {
        let mut config = self.env.config();
        let attester = config.policy.attester;
        let files = &self.script.files;
        for (index, (name, units)) in needs(files).into_iter().enumerate() {
            let place = index % TOKENS.len();
            let token = self.tokens[place];
            let key = DepositKey {
                requestor: REQUESTOR,
                signer: attester,
                cosigner: Address::ZERO,
                token,
                salt: keccak256(&name),
            };
            let is_in_two = self.script.is_eventful && index == 0;
            let first = if is_in_two {
                (needs(&files[..1])[&name] + needs(&files[..2])[&name]) / 2
            } else {
                units
            };
            self.deposit(&key, first).await;
            if is_in_two {
                self.top_up = Some((key.clone(), units - first));
            }
            let deposits = vec![key.id()];
            self.keys.insert(name.clone(), key);
            config.organisations.push(OrganisationConfig { name, token, deposits });
        }
        config.write().unwrap();
    }

    /// Sends the money that the first organisation lacks.
    pub(crate) async fn top_up(&self) {
        if let Some((key, units)) = &self.top_up {
            self.deposit(key, *units).await;
        }
    }

    async fn deposit(&self, key: &DepositKey, units: u64) {
        let place = self.tokens.iter().position(|token| *token == key.token).unwrap();
        let unit = Unit::of_decimals(TOKENS[place].2).unwrap();
        let amount = U256::from(unit.amount(ledger::Units::new(units)).base_units());
        let mint = TestToken::mintCall { to: key.requestor, amount };
        let approve = TestToken::approveCall { spender: self.contract, value: amount };
        let deposit = Settlement::depositCall { key: key.clone().into(), units };
        self.transact(Some(key.token), &mint.abi_encode()).await;
        self.transact(Some(key.token), &approve.abi_encode()).await;
        self.transact(Some(self.contract), &deposit.abi_encode()).await;
    }

    /// Has the requestor thaw nothing: an event that moves no money.
    pub(crate) async fn thaw_nothing(&self) {
        let key = self.keys.values().next().unwrap().clone();
        let thaw = Settlement::thawCall { key: key.into(), units: 0 };
        self.send(Some(self.contract), &thaw.abi_encode()).await;
    }

    /// Sends a transaction from the requestor. Returns its hash.
    async fn send(&self, to: Option<Address>, data: &[u8]) -> Value {
        let request = json!([{
            "from": REQUESTOR, "to": to, "data": alloy::hex::encode_prefixed(data), "gas": "0x4c4b40",
            "maxFeePerGas": "0x174876e800", "maxPriorityFeePerGas": "0x77359400",
        }]);
        rpc(&self.env.provider(), "eth_sendTransaction", &request.to_string()).await
    }

    /// Sends a transaction from the requestor and mines it. Returns the address of what it created.
    async fn transact(&self, to: Option<Address>, data: &[u8]) -> Option<Address> {
        let chain = self.env.provider();
        let hash = self.send(to, data).await;
        for _ in 0..50 {
            rpc(&chain, "anvil_mine", "[1]").await;
            let receipt =
                rpc(&chain, "eth_getTransactionReceipt", &json!([hash]).to_string()).await;
            if receipt.is_object() {
                assert_eq!(receipt["status"], "0x1", "{receipt}");
                return receipt["contractAddress"].as_str().map(|text| text.parse().unwrap());
            }
        }
        panic!("a transaction of the requestor was not mined");
    }

    /// All money as the chain has it: each organisation's deposit, each payout address's credits and wallet. Payout
    /// addresses stand for providers, whose numbers depend on the order of registration.
    pub(crate) async fn money(&self) -> Value {
        let chain = self.env.provider();
        let contract = Settlement::new(self.contract, chain.clone());
        let mut deposits = BTreeMap::new();
        for (name, key) in &self.keys {
            let state = contract.depositOf(key.id()).call().await.unwrap();
            let state = json!([state.balance, state.thawing, state.spent, state.epoch]);
            deposits.insert(name, state);
        }
        let mut wallets = BTreeMap::new();
        for (token, (_, symbol, ..)) in self.tokens.iter().zip(TOKENS) {
            let erc20 = TestToken::new(*token, chain.clone());
            for payout in &self.payouts {
                let balance = erc20.balanceOf(*payout).call().await.unwrap();
                wallets.insert(format!("{symbol} {payout}"), balance.to_string());
            }
        }
        let mut credits: BTreeMap<String, u64> = BTreeMap::new();
        for provider in 1..=contract.providerCount().call().await.unwrap() {
            let payout = contract.payoutOf(provider).call().await.unwrap().payout;
            for (token, (_, symbol, ..)) in self.tokens.iter().zip(TOKENS) {
                let units = contract.creditOf(*token, provider).call().await.unwrap();
                *credits.entry(format!("{symbol} {payout}")).or_default() += units;
            }
        }
        json!({ "deposits": deposits, "wallets": wallets, "credits": credits })
    }

    /// Copies the installation into a folder, listening on a port of its own. Other endpoints, if some are given, are of as
    /// many operators.
    pub(crate) fn copy_to(&self, folder: &Path, endpoints: &[&str]) {
        let from = self.env.dir();
        std::fs::create_dir_all(folder.join("keys")).unwrap();
        for entry in std::fs::read_dir(from.join("keys")).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, folder.join("keys").join(path.file_name().unwrap())).unwrap();
        }
        // It accounts for the transactions of the deployment.
        for name in ["quittance.db", "quittance.db-wal"] {
            if from.join(name).exists() {
                std::fs::copy(from.join(name), folder.join(name)).unwrap();
            }
        }
        let port = quiet_port();
        let text = std::fs::read_to_string(from.join("quittance.toml")).unwrap();
        let mut text = text.replace("127.0.0.1:8437", &format!("127.0.0.1:{port}"));
        if !endpoints.is_empty() {
            text = text.replace(&format!("rpc_url = \"{}\"\n", self.env.anvil.url), "");
        }
        for (index, url) in endpoints.iter().enumerate() {
            text += &format!("\n[[endpoint]]\noperator = \"operator {index}\"\nurl = \"{url}\"\n");
        }
        std::fs::write(folder.join("quittance.toml"), text).unwrap();
    }

    /// One of the tokens.
    pub(crate) fn token(&self) -> Address {
        self.tokens[0]
    }
}

/// Units that each organisation's work in some files costs, with the fee and a twentieth more.
fn needs(files: &[File]) -> BTreeMap<String, u64> {
    let records = parsed(files);
    let names: BTreeSet<_> = records.iter().map(|record| &record.item.organisation).collect();
    let mut needs = BTreeMap::new();
    for (index, name) in names.into_iter().enumerate() {
        let (_, _, decimals, usd) = TOKENS[index % TOKENS.len()];
        let usd_per_token: Decimal = usd.parse().unwrap();
        let rate = Rate { usd_per_token, source: "static".into(), at_ms: 0 };
        // Each piece of work once, at the dearest of its revisions.
        let mut dearest: BTreeMap<_, Amount> = BTreeMap::new();
        for record in records.iter().filter(|record| record.item.organisation == *name) {
            let amount = dearest.entry(&record.item.external_id).or_default();
            *amount = record.amount(&rate, decimals).unwrap().max(*amount);
        }
        let amount =
            dearest.into_values().fold(Amount::ZERO, |sum, amount| sum.add(amount).unwrap());
        let amount = amount.add(amount.share(600).unwrap()).unwrap();
        let unit = Unit::of_decimals(decimals).unwrap();
        needs.insert(name.clone(), unit.split(amount).unwrap().0.get() + 1);
    }
    needs
}

/// A port for a server that is stopped and started again: below those that a system gives out by itself, so that nobody
/// else has it meanwhile.
fn quiet_port() -> u16 {
    loop {
        let chance = RandomState::new().hash_one(());
        let port = 10_000 + u16::try_from(chance % 22_000).unwrap();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
