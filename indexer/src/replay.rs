//! Rebuilding everything from the contract's logs alone.

use alloy::rpc::types::Log;
use contracts::journal::Journal;
use ledger::{
    chain::{Block, IndexedBlock},
    completeness::BlockJournal,
};

use crate::{
    Endpoints, Result, decode, endpoint::Endpoint, endpoints::Health, history::History, proof,
};

/// What the chain says up to one block.
#[derive(Debug, Clone)]
pub struct Replay {
    /// Blocks with events, ascending.
    pub blocks: Vec<IndexedBlock>,
    /// Fold over all events, after each of those blocks.
    pub journals: Vec<BlockJournal>,
    /// Fold over all events.
    pub journal: Journal,
    /// The contract's own journal at the last block.
    pub contract_journal: Journal,
}

/// Blocks per log range.
const SPAN: u64 = 2_000;

/// Reads every event of the contract from `from` to the block `to`, and the contract's journal at `to`. What does not fold to it
/// is returned if it is so at every endpoint.
pub async fn replay(endpoints: &Endpoints, from: u64, to: &Block) -> Result<Replay> {
    let survey = endpoints.survey().await?;
    let (mut last, mut unfolded) = (None, None);
    for (endpoint, _) in &survey.agreeing {
        match replay_from(endpoints, endpoint, from, to).await {
            Err(error) if error.is_of_endpoint() => {
                endpoint.distrust(&error);
                last = Some(error);
            }
            Ok(replay) if replay.journal != replay.contract_journal => unfolded = Some(replay),
            done => return done,
        }
    }
    match (last, unfolded) {
        // One that failed may have had what the others left out.
        (Some(error), _) => Err(error),
        (None, Some(replay)) => Ok(replay),
        (None, None) => Err(endpoints.no_agreement("on the final block")),
    }
}

/// The contract's logs of some blocks; those of one alone by its hash, as the indexer asks for them.
async fn logs(endpoint: &Endpoint, first: u64, last: u64) -> Result<Vec<Log>> {
    if first < last {
        return endpoint.logs_between(first, last).await;
    }
    let header = endpoint.block_there(last.into()).await?;
    endpoint.logs_of(&header.block).await
}

async fn replay_from(
    endpoints: &Endpoints,
    endpoint: &Endpoint,
    from: u64,
    to: &Block,
) -> Result<Replay> {
    let mut blocks: Vec<IndexedBlock> = Vec::new();
    let mut history = History::after(Journal::default());
    let mut first = from;
    while first <= to.number {
        let span = endpoint.health(|health| health.span()).min(SPAN);
        let last = to.number.min(first.saturating_add(span - 1));
        let logs = match logs(endpoint, first, last).await {
            Ok(logs) => logs,
            Err(error) if first < last && endpoint.narrow(&error, last - first + 1) => continue,
            Err(error) => return Err(error),
        };
        endpoint.health(Health::widen);
        for logs in logs.chunk_by(|a, b| a.block_hash == b.block_hash) {
            let hash = logs.first().and_then(|log| log.block_hash).unwrap_or_default();
            let block = endpoint.block_by_hash(hash).await?.block;
            let facts = logs.iter().map(|log| decode::fact(log, endpoint.contract()));
            blocks.push(IndexedBlock { block, facts: facts.collect::<Result<_>>()? });
            history.push(block.number, logs, endpoint.operator());
        }
        first = last + 1;
    }
    let header = endpoint.block_by_hash(to.hash).await?;
    let contract_journal = proof::journal(endpoints, endpoint, &header).await?;
    let contract_journal =
        contract_journal.ok_or_else(|| endpoints.no_agreement("on the contract's journal"))?;
    let journal = history.last();
    Ok(Replay { blocks, journals: history.blocks, journal, contract_journal })
}
