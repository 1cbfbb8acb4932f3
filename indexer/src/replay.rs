//! Rebuilding everything from the contract's logs alone.

use alloy::{
    eips::BlockId,
    primitives::{B256, U256},
    providers::Provider,
};
use contracts::journal::Journal;
use ledger::chain::{Block, IndexedBlock};

use crate::{Endpoints, Result, decode, endpoint::Endpoint};

/// What the chain says up to one block.
#[derive(Debug, Clone)]
pub struct Replay {
    /// Blocks with events, ascending.
    pub blocks: Vec<IndexedBlock>,
    /// Fold over all events.
    pub journal: Journal,
    /// The contract's own journal at the last block.
    pub contract_journal: Journal,
}

/// Blocks per log range.
const SPAN: u64 = 2_000;

/// Reads every event of the contract from `from` to the block `to`, and the contract's journal at `to`.
pub async fn replay(endpoints: &Endpoints, from: u64, to: &Block) -> Result<Replay> {
    let survey = endpoints.survey().await?;
    let mut last = None;
    for (endpoint, _) in &survey.agreeing {
        match replay_from(endpoint, from, to).await {
            Err(error) if error.is_of_endpoint() => {
                endpoint.distrust(&error);
                last = Some(error);
            }
            done => return done,
        }
    }
    Err(last.unwrap_or_else(|| endpoints.no_agreement("on the final block")))
}

async fn replay_from(endpoint: &Endpoint, from: u64, to: &Block) -> Result<Replay> {
    let mut blocks: Vec<IndexedBlock> = Vec::new();
    let mut journal = Journal::default();
    let mut first = from;
    while first <= to.number {
        let last = to.number.min(first.saturating_add(SPAN - 1));
        let logs = endpoint.logs_between(first, last).await?;
        for logs in logs.chunk_by(|a, b| a.block_hash == b.block_hash) {
            let hash = logs.first().and_then(|log| log.block_hash).unwrap_or_default();
            let block = endpoint.block_by_hash(hash).await?.block;
            let mut facts = Vec::with_capacity(logs.len());
            for log in logs {
                journal = journal.fold(&log.inner.data);
                facts.push(decode::fact(log, endpoint.contract())?);
            }
            blocks.push(IndexedBlock { block, facts });
        }
        first = last + 1;
    }
    let contract_journal = journal_at(endpoint, to.hash).await?;
    Ok(Replay { blocks, journal, contract_journal })
}

/// The contract's journal in the state of a block: storage slot 0.
pub(crate) async fn journal_at(endpoint: &Endpoint, block: B256) -> Result<Journal> {
    let word = endpoint
        .provider()
        .get_storage_at(endpoint.contract(), U256::ZERO)
        .block_id(BlockId::hash(block))
        .await
        .map_err(endpoint.failed("eth_getStorageAt"))?;
    Ok(Journal::from_word(word.into()))
}
