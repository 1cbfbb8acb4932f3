//! Rebuilding everything from the contract's logs alone.

use std::vec;

use alloy::{
    primitives::{B256, keccak256},
    rpc::types::Log,
};
use contracts::journal::Journal;
use ledger::{
    Ledger,
    chain::{Block, IndexedBlock},
    completeness::BlockJournal,
    verify::{Difference, facts},
};

use crate::{
    Endpoints, Error, Result, decode,
    endpoint::{Endpoint, Header},
    endpoints::Health,
    follow::of_facts,
    history::History,
    proof,
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

impl Replay {
    /// Fails if what was read up to this block does not fold to the contract's journal.
    pub(crate) fn complete(self, to: &Block) -> Result<Self> {
        if self.is_complete() {
            return Ok(self);
        }
        let (read, counted) = (self.journal.count, self.contract_journal.count);
        let problem = format!("{read} events are read up to it, the contract counts {counted}");
        Err(Error::Incomplete { block: to.number, problem })
    }

    fn is_complete(&self) -> bool {
        self.journal == self.contract_journal
    }

    /// What it says up to a block.
    fn up_to(mut self, last: u64) -> Self {
        self.blocks.retain(|indexed| indexed.block.number <= last);
        self.journals.retain(|journal| journal.block <= last);
        self
    }
}

/// Blocks per log range.
const SPAN: u64 = 2_000;

/// Reads every event of the contract from `from` to the block `to`, and the contract's journal at `to`. Fails if the logs of no
/// endpoint fold to it.
pub async fn replay(endpoints: &Endpoints, from: u64, to: &Block) -> Result<Replay> {
    let mut replays = Replays::new(endpoints, from, to).await?;
    match replays.next().await? {
        Some((_, replay)) => Ok(replay),
        None => replays.unfolded()?.complete(to),
    }
}

/// Reads like [`replay`], and compares the ledger's facts up to a block `until` with what was read of them, which is what is returned
/// of it. The journal proves what happened, and not in which places: what one endpoint has in other places than the ledger is
/// a difference only if enough operators have it so. What does not fold to the journal is returned if it is so at every endpoint,
/// and compared only where one operator is enough.
pub async fn verify(
    endpoints: &Endpoints,
    ledger: &Ledger,
    (from, to): (u64, &Block),
    until: u64,
) -> Result<(Replay, Vec<Difference>)> {
    let mut replays = Replays::new(endpoints, from, to).await?;
    let (mut votes, mut first) = (Vec::new(), None);
    while let Some((endpoint, replay)) = replays.next().await? {
        let replay = replay.up_to(until);
        let differences = facts(ledger, &replay.blocks, until).await?;
        votes.push((endpoint.operator().to_owned(), digest(&differences)));
        let named = votes.iter().map(|(operator, digest)| (operator.as_str(), *digest));
        if differences.is_empty() || endpoints.agreed(named) == Some(digest(&differences)) {
            return Ok((replay, differences));
        }
        first.get_or_insert((endpoint, differences));
    }
    if let Some((endpoint, differences)) = first {
        return Err(unagreed(endpoints, &endpoint, &differences));
    }
    let replay = replays.unfolded()?.up_to(until);
    let differences = match endpoints.needed() {
        0 | 1 => facts(ledger, &replay.blocks, until).await?,
        _ => Vec::new(),
    };
    Ok((replay, differences))
}

fn digest(differences: &[Difference]) -> B256 {
    let texts: Vec<_> = differences.iter().map(ToString::to_string).collect();
    keccak256(texts.join("\n"))
}

fn unagreed(endpoints: &Endpoints, endpoint: &Endpoint, differences: &[Difference]) -> Error {
    let (count, operator) = (differences.len(), endpoint.operator());
    let first = differences.first().map(ToString::to_string).unwrap_or_default();
    endpoints.no_agreement(&format!(
        "on {count} differences between the ledger and the logs of {operator} ({first})"
    ))
}

/// What the endpoints that agree on the final block replay, one after the other.
struct Replays<'a> {
    endpoints: &'a Endpoints,
    agreeing: vec::IntoIter<(Endpoint, Header)>,
    range: (u64, &'a Block),
    failure: Option<Error>,
    /// What does not fold to the contract's journal.
    unfolded: Option<Replay>,
}

impl<'a> Replays<'a> {
    async fn new(endpoints: &'a Endpoints, from: u64, to: &'a Block) -> Result<Self> {
        let agreeing = endpoints.survey().await?.agreeing.into_iter();
        Ok(Self { endpoints, agreeing, range: (from, to), failure: None, unfolded: None })
    }

    /// The next one that folds to the contract's journal.
    async fn next(&mut self) -> Result<Option<(Endpoint, Replay)>> {
        let (from, to) = self.range;
        for (endpoint, _) in self.agreeing.by_ref() {
            match replay_from(self.endpoints, &endpoint, from, to).await {
                Err(error) if error.is_of_endpoint() => {
                    endpoint.distrust(&error);
                    self.failure = Some(error);
                }
                Ok(replay) if !replay.is_complete() => self.unfolded = Some(replay),
                done => return done.map(|replay| Some((endpoint, replay))),
            }
        }
        Ok(None)
    }

    /// What is left where none folded.
    fn unfolded(self) -> Result<Replay> {
        match (self.failure, self.unfolded) {
            // One that failed may have had what the others left out.
            (Some(error), _) => Err(error),
            (None, Some(replay)) => Ok(replay),
            (None, None) => Err(self.endpoints.no_agreement("on the final block")),
        }
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
            let facts = facts.collect::<Result<_>>().map_err(|error| of_facts(endpoint, error))?;
            blocks.push(IndexedBlock { block, facts });
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
