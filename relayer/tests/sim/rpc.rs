//! What an honest node answers about the part of the chain that it has.

use std::{collections::BTreeMap, sync::Arc};

use alloy::{
    consensus::{Transaction, TxEnvelope, transaction::Recovered},
    eips::{BlockId, BlockNumberOrTag, eip2718::Decodable2718},
    primitives::{Address, B256, Bytes, TxKind, U64, U256},
    rpc::types::{
        Block as RpcBlock, BlockTransactions, Filter, FilterBlockOption, Header as RpcHeader, Log,
        Transaction as RpcTransaction, TransactionRequest,
    },
};
use revm::DatabaseRef;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    chain::{Block, CHAIN_ID, Chain, TIP, Tx},
    evm::{self, BLOCK_GAS, Ended, TX_GAS},
};

/// An error answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: i64,
    pub(crate) message: String,
    pub(crate) data: Option<Bytes>,
}

pub(crate) type Answer = Result<Value, Failure>;

pub(crate) fn failure(code: i64, message: impl Into<String>) -> Failure {
    Failure { code, message: message.into(), data: None }
}

/// The blocks that one node has.
#[derive(Debug, Clone)]
pub(crate) struct View {
    blocks: Arc<Vec<Arc<Block>>>,
    /// Number of blocks that count; the rest is not there yet.
    length: usize,
    finalised: u64,
}

impl View {
    /// Everything.
    pub(crate) fn of(chain: &Chain) -> Self {
        let blocks = chain.blocks.clone();
        Self { length: blocks.len(), finalised: chain.finalised, blocks }
    }

    /// The same without the newest blocks.
    pub(crate) fn behind(&self, by: usize) -> Self {
        let length = self.length.saturating_sub(by).max(1);
        let finalised = self.finalised.min(length as u64 - 1);
        Self { blocks: self.blocks.clone(), length, finalised }
    }

    pub(crate) fn head(&self) -> &Arc<Block> {
        &self.blocks[self.length - 1]
    }

    fn at(&self, number: u64) -> Option<&Arc<Block>> {
        let index = usize::try_from(number).ok()?;
        self.blocks[..self.length].get(index)
    }

    pub(crate) fn by_hash(&self, hash: B256) -> Option<&Arc<Block>> {
        self.blocks[..self.length].iter().rev().find(|block| block.hash == hash)
    }

    fn by_tag(&self, tag: BlockNumberOrTag) -> Option<&Arc<Block>> {
        match tag {
            BlockNumberOrTag::Number(number) => self.at(number),
            BlockNumberOrTag::Earliest => self.at(0),
            BlockNumberOrTag::Finalized | BlockNumberOrTag::Safe => self.at(self.finalised),
            BlockNumberOrTag::Latest | BlockNumberOrTag::Pending => Some(self.head()),
        }
    }

    fn by_id(&self, id: BlockId) -> Result<&Arc<Block>, Failure> {
        let found = match id {
            BlockId::Hash(hash) => self.by_hash(hash.block_hash),
            BlockId::Number(tag) => self.by_tag(tag),
        };
        found.ok_or_else(|| failure(-32000, "unknown block"))
    }

    /// Block and index of a mined transaction.
    fn find(&self, hash: B256) -> Option<(&Arc<Block>, usize)> {
        self.blocks[..self.length].iter().rev().find_map(|block| {
            let index = block.txs.iter().position(|tx| *tx.tx_hash() == hash)?;
            Some((block, index))
        })
    }
}

/// Parameters of a request.
struct Params(Vec<Value>);

impl Params {
    fn get<T: DeserializeOwned>(&self, index: usize) -> Result<T, Failure> {
        self.maybe(index)?.ok_or_else(|| failure(-32602, format!("parameter {index} is missing")))
    }

    fn maybe<T: DeserializeOwned>(&self, index: usize) -> Result<Option<T>, Failure> {
        match self.0.get(index) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value.clone())
                .map(Some)
                .map_err(|error| failure(-32602, format!("parameter {index}: {error}"))),
        }
    }

    fn block<'a>(&self, view: &'a View, index: usize) -> Result<&'a Arc<Block>, Failure> {
        view.by_id(self.maybe::<BlockId>(index)?.unwrap_or_default())
    }
}

/// Reads a signed transaction.
pub(crate) fn decode(raw: &[u8]) -> Result<Tx, Failure> {
    let envelope = TxEnvelope::decode_2718(&mut &*raw)
        .map_err(|error| failure(-32602, format!("not a transaction: {error}")))?;
    let signer = envelope.signature().recover_address_from_prehash(&envelope.signature_hash());
    let signer = signer.map_err(|_| failure(-32602, "the signature recovers to nobody"))?;
    Ok(Arc::new(Recovered::new_unchecked(envelope, signer)))
}

/// Answers a request that changes nothing.
pub(crate) fn answer(
    view: &View,
    pool: &BTreeMap<(Address, u64), Tx>,
    method: &str,
    params: &Value,
) -> Answer {
    let params = Params(params.as_array().cloned().unwrap_or_default());
    match method {
        "eth_chainId" => to_json(U64::from(CHAIN_ID)),
        "net_version" => to_json(CHAIN_ID.to_string()),
        "eth_blockNumber" => to_json(U64::from(view.head().number())),
        "eth_getBlockByNumber" => {
            let tag = params.get(0)?;
            block(view.by_tag(tag), params.maybe(1)?.unwrap_or(false))
        }
        "eth_getBlockByHash" => {
            block(view.by_hash(params.get(0)?), params.maybe(1)?.unwrap_or(false))
        }
        "eth_getBlockReceipts" => match view.by_id(params.get(0)?) {
            Ok(block) => to_json(&block.receipts),
            Err(_) => Ok(Value::Null),
        },
        "eth_getLogs" => logs(view, &params.get(0)?),
        "eth_getTransactionReceipt" => {
            let found = view.find(params.get(0)?);
            to_json(found.map(|(block, index)| &block.receipts[index]))
        }
        "eth_getTransactionByHash" => transaction(view, pool, params.get(0)?),
        "eth_getTransactionCount" => {
            let (address, id) = (params.get(0)?, params.maybe::<BlockId>(1)?.unwrap_or_default());
            to_json(U64::from(count(view, pool, address, id)?))
        }
        "eth_getBalance" => to_json(params.block(view, 1)?.account(params.get(0)?).1),
        "eth_getCode" => {
            let state = &params.block(view, 1)?.state;
            let address: Address = params.get(0)?;
            let account = state.cache.accounts.get(&address);
            let code =
                account.and_then(|account| state.cache.contracts.get(&account.info.code_hash));
            to_json(code.map_or_else(Bytes::new, |code| code.original_bytes()))
        }
        "eth_getStorageAt" => {
            let (address, slot): (Address, U256) = (params.get(0)?, params.get(1)?);
            let value = params.block(view, 2)?.state.storage_ref(address, slot);
            to_json(B256::from(value.expect("memory answers")))
        }
        "eth_call" => {
            let ended = call(params.block(view, 1)?, &params.get(0)?, None)?;
            if ended.succeeded { to_json(ended.output) } else { Err(reverted(&ended)) }
        }
        "eth_estimateGas" => to_json(U64::from(estimate(params.block(view, 1)?, &params.get(0)?)?)),
        "eth_gasPrice" => {
            let base = view.head().header.base_fee_per_gas.unwrap_or_default();
            to_json(U256::from(u128::from(base) + TIP))
        }
        "eth_maxPriorityFeePerGas" => to_json(U256::from(TIP)),
        "eth_feeHistory" => fee_history(view, &params),
        "eth_syncing" => Ok(Value::Bool(false)),
        _ => Err(failure(-32601, format!("the method {method} does not exist"))),
    }
}

fn to_json(value: impl Serialize) -> Answer {
    Ok(serde_json::to_value(value).expect("answers are JSON"))
}

fn block(block: Option<&Arc<Block>>, is_full: bool) -> Answer {
    let Some(block) = block else { return Ok(Value::Null) };
    let transactions = if is_full {
        let tx = |(index, tx)| rpc_transaction(tx, Some((block, index)));
        BlockTransactions::Full(block.txs.iter().enumerate().map(tx).collect())
    } else {
        BlockTransactions::Hashes(block.txs.iter().map(|tx| *tx.tx_hash()).collect())
    };
    let header = RpcHeader {
        hash: block.hash,
        inner: block.header.clone(),
        total_difficulty: None,
        size: None,
    };
    to_json(RpcBlock {
        header,
        uncles: vec![],
        transactions,
        withdrawals: Some(Default::default()),
    })
}

fn rpc_transaction(tx: &Tx, place: Option<(&Arc<Block>, usize)>) -> RpcTransaction {
    let base_fee = place.and_then(|(block, _)| block.header.base_fee_per_gas);
    RpcTransaction {
        inner: (**tx).clone(),
        block_hash: place.map(|(block, _)| block.hash),
        block_number: place.map(|(block, _)| block.number()),
        transaction_index: place.map(|(_, index)| index as u64),
        effective_gas_price: Some(tx.effective_gas_price(base_fee)),
        block_timestamp: place.map(|(block, _)| block.header.timestamp),
    }
}

fn transaction(view: &View, pool: &BTreeMap<(Address, u64), Tx>, hash: B256) -> Answer {
    if let Some((block, index)) = view.find(hash) {
        return to_json(rpc_transaction(&block.txs[index], Some((block, index))));
    }
    let waiting = pool.values().find(|tx| *tx.tx_hash() == hash);
    to_json(waiting.map(|tx| rpc_transaction(tx, None)))
}

fn count(
    view: &View,
    pool: &BTreeMap<(Address, u64), Tx>,
    address: Address,
    id: BlockId,
) -> Result<u64, Failure> {
    let mut nonce = view.by_id(id)?.account(address).0;
    if id == BlockId::pending() {
        while pool.contains_key(&(address, nonce)) {
            nonce += 1;
        }
    }
    Ok(nonce)
}

fn logs(view: &View, filter: &Filter) -> Answer {
    let matches =
        |log: &&Log| filter.matches_address(log.address()) && filter.matches_topics(log.topics());
    let of = |block: &Arc<Block>| block.logs().filter(matches).cloned().collect::<Vec<_>>();
    match filter.block_option {
        FilterBlockOption::AtBlockHash(hash) => match view.by_hash(hash) {
            Some(block) => to_json(of(block)),
            None => Err(failure(-32000, "unknown block")),
        },
        FilterBlockOption::Range { from_block, to_block } => {
            let number = |tag: Option<BlockNumberOrTag>| match tag {
                Some(BlockNumberOrTag::Number(number)) => number,
                tag => view.by_tag(tag.unwrap_or_default()).map_or(0, |block| block.number()),
            };
            let (from, to) = (number(from_block), number(to_block));
            if from > to {
                return Err(failure(-32602, "the range ends before it begins"));
            }
            let found: Vec<_> = (from..=to.min(view.head().number()))
                .filter_map(|number| view.at(number))
                .flat_map(of)
                .collect();
            to_json(found)
        }
    }
}

fn call(block: &Block, request: &TransactionRequest, gas: Option<u64>) -> Result<Ended, Failure> {
    let input = request.input.input().cloned().unwrap_or_default();
    let gas = gas.or(request.gas).unwrap_or(BLOCK_GAS).min(TX_GAS);
    let to = request.to.unwrap_or(TxKind::Create);
    let value = request.value.unwrap_or_default();
    let from = request.from.unwrap_or_default();
    evm::call(&block.state, from, (to, input, value), gas, block.surroundings())
        .map_err(|error| failure(-32000, error))
}

fn reverted(ended: &Ended) -> Failure {
    if ended.halted {
        return failure(-32000, "out of gas");
    }
    Failure { code: 3, message: "execution reverted".into(), data: Some(ended.output.clone()) }
}

/// Least gas limit, within a hundredth, with which the call does what it does with plenty.
fn estimate(block: &Block, request: &TransactionRequest) -> Result<u64, Failure> {
    let plenty = call(block, request, None)?;
    if !plenty.succeeded {
        return Err(reverted(&plenty));
    }
    // The 64th that a caller keeps, once, is most of what is needed above what is spent.
    let mut low = plenty.gas_used.saturating_sub(1);
    let mut high = TX_GAS;
    let mut guess = (plenty.gas_spent + plenty.gas_spent / 63 + 2300).min(TX_GAS);
    while high - low > 1 + low / 100 {
        if call(block, request, Some(guess)).is_ok_and(|ended| ended.succeeded) {
            high = guess;
            // Near enough: finding the last gas costs more runs than it is worth.
            if high <= plenty.gas_spent + plenty.gas_spent / 20 + 5000 {
                break;
            }
        } else {
            low = guess;
        }
        guess = low + (high - low) / 2;
    }
    Ok(high)
}

fn fee_history(view: &View, params: &Params) -> Answer {
    let count: u64 = params.get::<U64>(0)?.to();
    let newest = params.get::<BlockNumberOrTag>(1)?;
    let newest = view.by_tag(newest).ok_or_else(|| failure(-32000, "unknown block"))?.number();
    let percentiles: Vec<f64> = params.maybe(2)?.unwrap_or_default();
    let oldest = (newest + 1).saturating_sub(count.max(1));
    let blocks: Vec<_> = (oldest..=newest).filter_map(|number| view.at(number)).collect();
    let mut base_fees: Vec<_> =
        blocks.iter().map(|block| U256::from(block.surroundings().base_fee)).collect();
    let next = view.at(newest).map_or(0, |block| crate::chain::base_fee_after(&block.header));
    base_fees.push(U256::from(next));
    let reward: Vec<_> = percentiles.iter().map(|_| U256::from(TIP)).collect();
    let rewards: Vec<_> = blocks.iter().map(|_| reward.clone()).collect();
    #[allow(
        clippy::float_arithmetic,
        reason = "a share for people to look at; nothing that is money"
    )]
    let ratio = |block: &&Arc<Block>| {
        let (used, limit) = (block.header.gas_used, block.header.gas_limit);
        f64::from(u32::try_from(used * 1000 / limit).unwrap_or(1000)) / 1000.0
    };
    Ok(json!({
        "oldestBlock": U64::from(oldest),
        "baseFeePerGas": base_fees,
        "gasUsedRatio": blocks.iter().map(ratio).collect::<Vec<_>>(),
        "baseFeePerBlobGas": base_fees.iter().map(|_| U256::from(1)).collect::<Vec<_>>(),
        "blobGasUsedRatio": blocks.iter().map(|_| 0.0).collect::<Vec<_>>(),
        "reward": rewards,
    }))
}
