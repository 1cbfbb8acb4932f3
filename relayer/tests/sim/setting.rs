//! What every run begins with: a chain with the contracts on it, and a migrated ledger file. Made once, then copied.

use std::{
    path::Path,
    sync::{LazyLock, OnceLock},
};

use alloy::{
    consensus::TxEip1559,
    primitives::{Address, B256, Bytes, TxKind, U256, keccak256},
    signers::local::PrivateKeySigner,
    sol_types::{SolCall, SolConstructor, SolValue},
};
use contracts::{Settlement, TestToken, deploy, eip712::DepositKey};
use k256::ecdsa::SigningKey;
use ledger::{Identity, Ledger, manifest::Secret, statement};
use relayer::{config::Config, keys::Keys};
use revm::{database::DbAccount, state::AccountInfo};

use crate::{
    chain::{CHAIN_ID, Chain, unsigned},
    evm::{State, TX_GAS},
};

/// Seconds between a thaw and its withdrawal here.
pub(crate) const THAW_PERIOD: u32 = 2 * 60 * 60;
/// Time of block 0, seconds since 1970.
pub(crate) const GENESIS_TIME: u64 = 1_795_000_000;
/// Decimals of the two tokens.
pub(crate) const DECIMALS: [u8; 2] = [6, 18];
/// Thousandths of a USD that a whole token is worth.
pub(crate) const RATE_MILLIS: [u64; 2] = [1_000, 247];

/// Chain and addresses that all runs share.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) chain: Chain,
    pub(crate) settlement: Address,
    pub(crate) tokens: [Address; 2],
    /// Files of an empty ledger, by name.
    files: Vec<(String, Vec<u8>)>,
}

/// Who pays: requestor `number` owns the deposits of organisation `number`.
pub(crate) fn requestor(number: usize) -> Address {
    address("requestor", number)
}

/// People without a part in this.
pub(crate) fn stranger(number: usize) -> Address {
    address("stranger", number)
}

/// The wallet of a machine's owner.
pub(crate) fn owner(number: usize) -> Address {
    address("owner", number)
}

pub(crate) fn operator() -> Address {
    address("operator", 0)
}

fn address(name: &str, number: usize) -> Address {
    Address::from_word(keccak256(format!("{name} {number}")))
}

pub(crate) fn attester() -> SigningKey {
    static ATTESTER: LazyLock<SigningKey> =
        LazyLock::new(|| SigningKey::from_slice(&[7; 32]).expect("a key"));
    ATTESTER.clone()
}

/// The key of the sender, whose address is derived once.
pub(crate) fn sender() -> PrivateKeySigner {
    static SENDER: LazyLock<PrivateKeySigner> =
        LazyLock::new(|| PrivateKeySigner::from_bytes(&B256::repeat_byte(9)).expect("a key"));
    SENDER.clone()
}

/// The operator's secret behind workload ids.
pub(crate) const SECRET: B256 = B256::repeat_byte(5);

pub(crate) fn secret() -> Secret {
    Secret::new(SECRET)
}

pub(crate) fn keys() -> Keys {
    Keys { attester: attester(), sender: relayer::keys::TxKey::Local(sender()), secret: secret() }
}

impl Setting {
    /// The one setting, made at first use.
    pub(crate) fn get() -> &'static Self {
        static SETTING: OnceLock<Setting> = OnceLock::new();
        SETTING.get_or_init(Self::make)
    }

    fn make() -> Self {
        let mut chain = Chain::new(genesis(), GENESIS_TIME);
        let deployer = stranger(0);
        let create = |nonce: u64, code: Bytes| (TxKind::Create, code, deployer.create(nonce));
        let token = |nonce, decimals: u8| {
            let arguments = TestToken::constructorCall {
                name: "Token".into(),
                symbol: format!("T{decimals}"),
                decimals_: decimals,
            };
            create(nonce, [TestToken::BYTECODE.as_ref(), &arguments.abi_encode()].concat().into())
        };
        let (_, code, settlement) = create(0, deploy::init_code(THAW_PERIOD));
        let (first, second) = (token(1, DECIMALS[0]), token(2, DECIMALS[1]));
        let tokens = [first.2, second.2];
        let mut nonce = 0;
        let mut mine = |calls: Vec<(Address, TxKind, Bytes)>| {
            let txs: Vec<_> = calls
                .into_iter()
                .map(|(from, to, input)| {
                    // Only the deployer sends more than one.
                    let own = if from == deployer { nonce } else { 0 };
                    nonce += u64::from(from == deployer);
                    unsigned(transaction(own, to, input, U256::ZERO), from)
                })
                .collect();
            let (time, base_fee) = (chain.head().header.timestamp + 12, chain.next_base_fee());
            let mut done = 0;
            for txs in txs.chunks(1) {
                let block = chain.mine(txs, time + done, base_fee);
                done += 12;
                assert!(
                    block.receipts.iter().all(|receipt| receipt.status()),
                    "{:?}",
                    block.receipts
                );
                assert_eq!(block.txs.len(), 1);
            }
        };
        mine(vec![(deployer, TxKind::Create, code)]);
        mine(vec![(deployer, TxKind::Create, first.1), (deployer, TxKind::Create, second.1)]);
        for token in tokens {
            let call = Settlement::registerTokenCall { token };
            mine(vec![(deployer, TxKind::Call(settlement), call.abi_encode().into())]);
        }
        let height = chain.height();
        chain.finalise(height);
        let mut state = (*chain.head().state).clone();
        endow(&mut state, settlement, &tokens);
        chain.set_state(state);
        let files = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(empty_ledger(identity(&chain, settlement)));
        Self { chain, settlement, tokens, files }
    }

    /// Key of a deposit.
    pub(crate) fn deposit_key(&self, organisation: usize, number: u8) -> DepositKey {
        DepositKey {
            requestor: requestor(organisation),
            signer: statement::address_of(attester().verifying_key()),
            cosigner: Address::ZERO,
            token: self.tokens[organisation],
            salt: B256::repeat_byte(number + 1),
        }
    }

    /// Puts an empty ledger's files into a folder.
    pub(crate) fn copy_ledger(&self, folder: &Path) {
        for (name, bytes) in &self.files {
            std::fs::write(folder.join(name), bytes).expect("a writable folder");
        }
    }

    /// Configuration of an installation in a folder.
    pub(crate) fn config(&self, folder: &Path, fee_bps: u16, deposits: &[Vec<B256>]) -> Config {
        let mut text = format!(
            "[chain]\nid = {CHAIN_ID}\nrpc_url = \"http://simulated.invalid\"\ncontract = \"{}\"\nstart_block = 1\n\
             genesis = \"{}\"\nfinality = \"tag\"\n[policy]\nattester = \"{}\"\nfee_bps = {fee_bps}\n",
            self.settlement,
            self.chain.blocks[0].hash,
            statement::address_of(attester().verifying_key()),
        );
        if fee_bps > 0 {
            text += &format!("operator_payout = \"{}\"\n", operator());
        }
        for (index, token) in self.tokens.iter().enumerate() {
            text += &format!(
                "[[token]]\naddress = \"{token}\"\nsymbol = \"T{index}\"\nusd_per_token = \"{}.{:03}\"\n\
                 push_threshold_units = 1000000\n",
                RATE_MILLIS[index] / 1000,
                RATE_MILLIS[index] % 1000
            );
        }
        for (index, deposits) in deposits.iter().enumerate() {
            text += &format!(
                "[[organisation]]\nname = \"{}\"\ntoken = \"{}\"\ndeposits = {deposits:?}\n",
                organisation(index),
                self.tokens[index]
            );
        }
        // Hashes print bare; TOML wants them quoted.
        let text = quoted(&text);
        let mut config: Config =
            toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        config.folder = folder.to_owned();
        config
    }
}

/// Quotes the hashes of arrays.
fn quoted(text: &str) -> String {
    let quote = |line: &str| match line.strip_prefix("deposits = [") {
        Some(rest) => {
            let ids = rest.trim_end_matches(']').split(", ").filter(|id| !id.is_empty());
            let ids: Vec<_> = ids.map(|id| format!("{id:?}")).collect();
            format!("deposits = [{}]", ids.join(", "))
        }
        None => line.to_owned(),
    };
    text.lines().map(quote).map(|line| line + "\n").collect()
}

/// Name of an organisation.
pub(crate) fn organisation(number: usize) -> &'static str {
    ["acme", "zeta"][number]
}

fn identity(chain: &Chain, contract: Address) -> Identity {
    Identity { chain_id: CHAIN_ID, contract, genesis: chain.blocks[0].hash, start_block: 1 }
}

/// A transaction of somebody who is not the relayer.
pub(crate) fn transaction(nonce: u64, to: TxKind, input: Bytes, value: U256) -> TxEip1559 {
    TxEip1559 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit: TX_GAS,
        max_fee_per_gas: 1_000_000_000_000_000,
        max_priority_fee_per_gas: 1_000_000_000,
        to,
        value,
        input,
        ..Default::default()
    }
}

fn genesis() -> State {
    let mut state = State::default();
    let rich = U256::from(10).pow(U256::from(30));
    let people = (0..4).flat_map(|number| [requestor(number), stranger(number)]);
    for account in people.chain((0..16).map(owner)).chain([sender().address()]) {
        state.insert_account_info(account, AccountInfo { balance: rich, ..Default::default() });
    }
    state
}

/// Gives requestors and strangers tokens, all of which the contract may pull.
fn endow(state: &mut State, settlement: Address, tokens: &[Address]) {
    let plenty = U256::from(10).pow(U256::from(32));
    let supply = U256::from(2);
    let put = |state: &mut State, token: Address, slot: U256, value: U256| {
        let account: &mut DbAccount = state.cache.accounts.get_mut(&token).expect("a token");
        account.storage.insert(slot, value);
    };
    for &token in tokens {
        let mut total = U256::ZERO;
        for account in (0..3).flat_map(|number| [requestor(number), stranger(number)]) {
            let balance = keccak256((account, U256::ZERO).abi_encode());
            put(state, token, balance.into(), plenty);
            let by_owner = keccak256((account, U256::from(1)).abi_encode());
            let allowance = keccak256((settlement, by_owner).abi_encode());
            put(state, token, allowance.into(), U256::MAX);
            total += plenty;
        }
        put(state, token, supply, total);
    }
}

async fn empty_ledger(identity: Identity) -> Vec<(String, Vec<u8>)> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("quittance.db");
    let ledger = Ledger::open(&path, identity).await.expect("an empty ledger");
    ledger.close().await;
    let mut files = Vec::new();
    for name in ["quittance.db", "quittance.db-wal"] {
        if let Ok(bytes) = std::fs::read(folder.path().join(name)) {
            files.push((name.to_owned(), bytes));
        }
    }
    files
}
