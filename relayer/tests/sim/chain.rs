//! The simulated chain: blocks with real headers and tx receipts, the contract's bytecode, a pool with replacement rules,
//! finality, forks.
//!
//! Nothing here draws: who mines what and when comes in from outside.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use alloy::{
    consensus::{
        BlockHeader, Eip658Value, Header, Receipt, ReceiptEnvelope, ReceiptWithBloom, Transaction,
        TxEnvelope, TxReceipt,
        constants::EMPTY_WITHDRAWALS,
        proofs::{calculate_receipt_root, calculate_transaction_root},
        transaction::Recovered,
    },
    eips::eip1559::{BaseFeeParams, calc_next_block_base_fee},
    primitives::{Address, B256, Bloom, Bytes, Log, U256, keccak256},
    rpc::types::{Log as RpcLog, TransactionReceipt},
};

use revm::state::AccountInfo;

use crate::evm::{self, BLOCK_GAS, Ended, State, Surroundings};

/// EIP-155 chain id, anvil's.
pub(crate) const CHAIN_ID: u64 = 31_337;
/// Tip that the simulated miners ask for and that `eth_maxPriorityFeePerGas` names, wei per gas.
pub(crate) const TIP: u128 = 1_000_000_000;
/// Lowest base fee, wei per gas.
const MIN_BASE_FEE: u64 = 7;

/// A signed transaction and who signed it.
pub(crate) type Tx = Arc<Recovered<TxEnvelope>>;

/// A block with all that follows from it.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) header: Header,
    pub(crate) hash: B256,
    pub(crate) txs: Vec<Tx>,
    pub(crate) receipts: Vec<TransactionReceipt>,
    pub(crate) state: Arc<State>,
}

impl Block {
    pub(crate) const fn number(&self) -> u64 {
        self.header.number
    }

    pub(crate) fn logs(&self) -> impl Iterator<Item = &RpcLog> {
        self.receipts.iter().flat_map(|receipt| receipt.inner.logs())
    }

    pub(crate) fn surroundings(&self) -> Surroundings {
        Surroundings {
            number: self.header.number,
            time: self.header.timestamp,
            base_fee: self.header.base_fee_per_gas.unwrap_or_default(),
        }
    }

    pub(crate) fn account(&self, address: Address) -> (u64, U256) {
        let account = self.state.cache.accounts.get(&address);
        account.map_or((0, U256::ZERO), |account| (account.info.nonce, account.info.balance))
    }
}

/// Why the pool refuses a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Known,
    NonceTooLow,
    Underpriced,
    NoMoney,
}

impl Refusal {
    pub(crate) const fn message(self) -> &'static str {
        match self {
            Self::Known => "already known",
            Self::NonceTooLow => "nonce too low",
            Self::Underpriced => "replacement transaction underpriced",
            Self::NoMoney => "insufficient funds for gas * price + value",
        }
    }
}

/// The chain as everybody would see it with perfect eyes.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    /// Canonical blocks from number 0.
    pub(crate) blocks: Arc<Vec<Arc<Block>>>,
    /// Waiting transactions.
    pub(crate) pool: BTreeMap<(Address, u64), Tx>,
    /// Every transaction that any pool has ever taken.
    pub(crate) seen: BTreeMap<B256, Tx>,
    pub(crate) finalised: u64,
    /// Makes every block differ from its siblings.
    salt: u64,
}

impl Chain {
    /// A chain of one block with this state.
    pub(crate) fn new(state: State, time: u64) -> Self {
        let header = Header {
            gas_limit: BLOCK_GAS,
            timestamp: time,
            base_fee_per_gas: Some(1_000_000_000),
            ..Default::default()
        };
        let hash = header.hash_slow();
        let block = Block { header, hash, txs: vec![], receipts: vec![], state: Arc::new(state) };
        Self {
            blocks: Arc::new(vec![Arc::new(block)]),
            pool: BTreeMap::new(),
            seen: BTreeMap::new(),
            finalised: 0,
            salt: 0,
        }
    }

    pub(crate) fn head(&self) -> &Arc<Block> {
        self.blocks.last().expect("a chain has block 0")
    }

    pub(crate) fn height(&self) -> u64 {
        self.head().number()
    }

    /// Takes a transaction into the pool as nodes do: the same tx nonce again only for a tenth more on both fields.
    pub(crate) fn submit(&mut self, tx: Tx) -> Result<B256, Refusal> {
        let hash = *tx.tx_hash();
        let place = (tx.signer(), tx.nonce());
        let (nonce, balance) = self.head().account(tx.signer());
        if tx.nonce() < nonce {
            return Err(Refusal::NonceTooLow);
        }
        let cost = U256::from(tx.gas_limit()) * U256::from(tx.max_fee_per_gas()) + tx.value();
        if cost > balance {
            return Err(Refusal::NoMoney);
        }
        if let Some(old) = self.pool.get(&place) {
            if *old.tx_hash() == hash {
                return Err(Refusal::Known);
            }
            let enough = |new: u128, old: u128| new >= old + old.div_ceil(10);
            let tip = |tx: &Tx| tx.max_priority_fee_per_gas().unwrap_or(tx.max_fee_per_gas());
            if !enough(tx.max_fee_per_gas(), old.max_fee_per_gas()) || !enough(tip(&tx), tip(old)) {
                return Err(Refusal::Underpriced);
            }
        }
        self.seen.insert(hash, tx.clone());
        self.pool.insert(place, tx);
        Ok(hash)
    }

    /// Puts a transaction into the pool whatever the rules say.
    pub(crate) fn force(&mut self, tx: Tx) {
        self.seen.insert(*tx.tx_hash(), tx.clone());
        self.pool.insert((tx.signer(), tx.nonce()), tx);
    }

    /// Waiting transactions that may be mined next, best tip first, each sender's in the order of tx nonces.
    pub(crate) fn ready(&self, base_fee: u64, is_left_out: &dyn Fn(&Tx) -> bool) -> Vec<Tx> {
        let head = self.head();
        let mut next: BTreeMap<Address, u64> = BTreeMap::new();
        let mut blocked = BTreeSet::new();
        let mut lanes: BTreeMap<Address, Vec<Tx>> = BTreeMap::new();
        for ((sender, nonce), tx) in &self.pool {
            let expected = *next.entry(*sender).or_insert_with(|| head.account(*sender).0);
            if *nonce < expected || blocked.contains(sender) {
                continue;
            }
            if *nonce != expected || tx.max_fee_per_gas() < u128::from(base_fee) || is_left_out(tx)
            {
                blocked.insert(*sender);
                continue;
            }
            next.insert(*sender, nonce + 1);
            lanes.entry(*sender).or_default().push(tx.clone());
        }
        // Across senders by the tip of the first; ties by address, so that nothing depends on chance.
        let mut lanes: Vec<_> = lanes.into_values().collect();
        let tip = |lane: &Vec<Tx>| lane[0].effective_tip_per_gas(base_fee).unwrap_or(0);
        lanes.sort_by_key(|lane| std::cmp::Reverse(tip(lane)));
        lanes.into_iter().flatten().collect()
    }

    /// Puts another state behind the newest block, for a setting.
    pub(crate) fn set_state(&mut self, state: State) {
        let blocks = Arc::make_mut(&mut self.blocks);
        let old = blocks.pop().expect("a chain has block 0");
        let block = Block {
            header: old.header.clone(),
            hash: old.hash,
            txs: old.txs.clone(),
            receipts: old.receipts.clone(),
            state: Arc::new(state),
        };
        blocks.push(Arc::new(block));
    }

    /// Gives an account so much, in the newest block's state and what follows.
    pub(crate) fn set_balance(&mut self, account: Address, balance: U256) {
        let mut state = (*self.head().state).clone();
        let nonce = self.head().account(account).0;
        state.insert_account_info(account, AccountInfo { nonce, balance, ..Default::default() });
        self.set_state(state);
    }

    /// Base fee of the block after the newest one.
    pub(crate) fn next_base_fee(&self) -> u64 {
        base_fee_after(&self.head().header)
    }

    /// Appends a block of these transactions, leaving out what cannot be mined, and takes what was consumed from the pool.
    pub(crate) fn mine(&mut self, txs: &[Tx], time: u64, base_fee: u64) -> Arc<Block> {
        self.salt += 1;
        let block = Arc::new(build(self.head(), txs, time, base_fee, self.salt));
        Arc::make_mut(&mut self.blocks).push(block.clone());
        self.pool.retain(|(sender, nonce), _| *nonce >= block.account(*sender).0);
        block
    }

    /// Takes the newest `depth` blocks off. Their transactions are not in the pool again by that.
    pub(crate) fn roll_back(&mut self, depth: u64) -> Vec<Arc<Block>> {
        let keep = self.blocks.len() - usize::try_from(depth).expect("a depth");
        assert!(keep as u64 > self.finalised, "nobody undoes a final block");
        Arc::make_mut(&mut self.blocks).split_off(keep)
    }

    /// Makes blocks final, up to this number; what is final stays so.
    pub(crate) fn finalise(&mut self, number: u64) {
        self.finalised = self.finalised.max(number.min(self.height()));
    }
}

/// Base fee of the block after one with this header (EIP-1559).
pub(crate) fn base_fee_after(header: &Header) -> u64 {
    let base_fee = header.base_fee_per_gas.unwrap_or_default();
    let params = BaseFeeParams::ethereum();
    calc_next_block_base_fee(header.gas_used, header.gas_limit, base_fee, params).max(MIN_BASE_FEE)
}

fn build(parent: &Block, txs: &[Tx], time: u64, base_fee: u64, salt: u64) -> Block {
    let number = parent.number() + 1;
    let around = Surroundings { number, time, base_fee };
    let mut state = parent.state.clone();
    let (mut mined, mut ended): (Vec<Tx>, Vec<Ended>) = Default::default();
    let mut gas_used = 0;
    for tx in txs {
        if gas_used + tx.gas_limit() > BLOCK_GAS {
            continue;
        }
        if let Some(end) = evm::mine(Arc::make_mut(&mut state), tx, around) {
            gas_used += end.gas_used;
            mined.push(tx.clone());
            ended.push(end);
        }
    }
    let consensus = consensus_receipts(&mined, &ended);
    let bloom = consensus.iter().fold(Bloom::ZERO, |bloom, receipt| bloom | receipt.bloom());
    let envelopes: Vec<TxEnvelope> = mined.iter().map(|tx| tx.inner().clone()).collect();
    let header = Header {
        parent_hash: parent.hash,
        transactions_root: calculate_transaction_root(&envelopes),
        receipts_root: calculate_receipt_root(&consensus),
        logs_bloom: bloom,
        number,
        gas_limit: BLOCK_GAS,
        gas_used,
        timestamp: time,
        base_fee_per_gas: Some(base_fee),
        withdrawals_root: Some(EMPTY_WITHDRAWALS),
        blob_gas_used: Some(0),
        excess_blob_gas: Some(0),
        parent_beacon_block_root: Some(B256::ZERO),
        requests_hash: Some(alloy::eips::eip7685::EMPTY_REQUESTS_HASH),
        extra_data: Bytes::copy_from_slice(&salt.to_be_bytes()),
        ..Default::default()
    };
    let hash = header.hash_slow();
    let receipts = rpc_receipts(&mined, &ended, &consensus, (&header, hash));
    Block { header, hash, txs: mined, receipts, state }
}

fn consensus_receipts(txs: &[Tx], ended: &[Ended]) -> Vec<ReceiptEnvelope<Log>> {
    let mut cumulative = 0;
    let receipt = |(tx, end): (&Tx, &Ended)| {
        cumulative += end.gas_used;
        let receipt = Receipt {
            status: Eip658Value::Eip658(end.succeeded),
            cumulative_gas_used: cumulative,
            logs: end.logs.clone(),
        };
        envelope(tx, ReceiptWithBloom { logs_bloom: receipt.bloom_slow(), receipt })
    };
    txs.iter().zip(ended).map(receipt).collect()
}

fn envelope<L>(tx: &Tx, receipt: ReceiptWithBloom<Receipt<L>>) -> ReceiptEnvelope<L> {
    if tx.is_eip1559() {
        ReceiptEnvelope::Eip1559(receipt)
    } else {
        ReceiptEnvelope::Legacy(receipt)
    }
}

/// The same tx receipts as JSON-RPC tells them.
fn rpc_receipts(
    txs: &[Tx],
    ended: &[Ended],
    consensus: &[ReceiptEnvelope<Log>],
    (header, block_hash): (&Header, B256),
) -> Vec<TransactionReceipt> {
    let mut log_index = 0;
    let mut receipts = Vec::with_capacity(txs.len());
    for (index, ((tx, end), receipt)) in txs.iter().zip(ended).zip(consensus).enumerate() {
        let logs = end.logs.iter().map(|log| {
            log_index += 1;
            RpcLog {
                inner: log.clone(),
                block_hash: Some(block_hash),
                block_number: Some(header.number),
                block_timestamp: Some(header.timestamp),
                transaction_hash: Some(*tx.tx_hash()),
                transaction_index: Some(index as u64),
                log_index: Some(log_index - 1),
                removed: false,
            }
        });
        let inner = Receipt {
            status: Eip658Value::Eip658(end.succeeded),
            cumulative_gas_used: receipt.cumulative_gas_used(),
            logs: logs.collect(),
        };
        receipts.push(TransactionReceipt {
            inner: envelope(tx, ReceiptWithBloom { receipt: inner, logs_bloom: receipt.bloom() }),
            transaction_hash: *tx.tx_hash(),
            transaction_index: Some(index as u64),
            block_hash: Some(block_hash),
            block_number: Some(header.number),
            gas_used: end.gas_used,
            effective_gas_price: tx.effective_gas_price(header.base_fee_per_gas()),
            blob_gas_used: None,
            blob_gas_price: None,
            from: tx.signer(),
            to: tx.to(),
            contract_address: end.created,
        });
    }
    receipts
}

/// A transaction of an account whose key does not matter: recovered without having been signed.
pub(crate) fn unsigned(tx: alloy::consensus::TxEip1559, from: Address) -> Tx {
    use alloy::{consensus::Signed, primitives::Signature};
    let signature = Signature::new(U256::from_be_slice(from.as_slice()), U256::from(1), false);
    let mut identity = from.to_vec();
    identity.extend(alloy::rlp::encode(&tx));
    let envelope = TxEnvelope::Eip1559(Signed::new_unchecked(tx, signature, keccak256(identity)));
    Arc::new(Recovered::new_unchecked(envelope, from))
}
