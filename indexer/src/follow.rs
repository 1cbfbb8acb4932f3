//! Following the chain: one decision per turn.

use std::time::Duration;

use alloy::{eips::BlockNumberOrTag, rpc::types::Log};
use ledger::{
    Ledger,
    chain::{Block, ChainWriter, IndexedBlock},
};
use tokio::{sync::watch, time::sleep};

use crate::{
    Endpoints, Result, decode,
    endpoint::{Endpoint, Header},
    endpoints::Health,
};

/// Most blocks that are followed one by one in a turn.
const FOLLOW_BLOCKS: u64 = 32;

/// What a turn came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nothing to do: the ledger is at the head.
    Idle,
    /// Blocks were indexed, up to this one.
    Advanced(u64),
    /// A reorg was undone, down to this block.
    RolledBack(u64),
}

/// Where the chain stands, as one endpoint says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Number of the newest block.
    pub latest: u64,
    /// Number of the newest final block.
    pub finalised: u64,
    /// The block that the chain has now at the checkpoint's height, if it reaches that far.
    pub at_checkpoint: Option<Block>,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Wait,
    /// The checkpoint is not on the chain any more: look for the fork point.
    FindFork,
    /// Index final blocks, in one range of logs.
    CatchUp {
        /// First block.
        from: u64,
        /// Last block.
        to: u64,
    },
    /// Index blocks that may still be undone, one by one.
    Follow {
        /// First block.
        from: u64,
        /// Last block.
        to: u64,
    },
}

/// Decides what to do from the checkpoint and the head. Pure.
///
/// `span` is the number of blocks that a range may have. A chain that ends below the checkpoint is a stale endpoint or a
/// reorg in the making; both are waited out.
pub fn step(checkpoint: Option<&Block>, start_block: u64, head: &Head, span: u64) -> Step {
    if let Some(checkpoint) = checkpoint {
        match head.at_checkpoint {
            Some(block) if block.hash != checkpoint.hash => return Step::FindFork,
            None if head.latest >= checkpoint.number => return Step::Wait,
            _ => {}
        }
    }
    let from = checkpoint.map_or(start_block, |block| block.number + 1);
    let within = |last: u64, blocks: u64| last.min(from.saturating_add(blocks.saturating_sub(1)));
    if from <= head.finalised {
        Step::CatchUp { from, to: within(head.finalised, span) }
    } else if from <= head.latest {
        Step::Follow { from, to: within(head.latest, FOLLOW_BLOCKS) }
    } else {
        Step::Wait
    }
}

/// Follows one contract into one ledger.
#[derive(Debug)]
pub struct Indexer {
    endpoints: Endpoints,
    writer: ChainWriter,
    start_block: u64,
}

impl Indexer {
    /// An indexer of the contract that the ledger belongs to. Fails if too few operators serve its chain, which is told by
    /// the chain's id and first block.
    pub async fn new(endpoints: Endpoints, ledger: Ledger) -> Result<Self> {
        let identity = *ledger.identity();
        endpoints.expect_chain(identity.chain_id, identity.genesis);
        endpoints.identify().await?;
        let start_block = identity.start_block;
        Ok(Self { endpoints, writer: ChainWriter::new(ledger), start_block })
    }

    /// One turn: looks at the endpoints, and does what [`step`] says with the first one that can, in one commit.
    pub async fn turn(&mut self) -> Result<Turn> {
        let survey = self.endpoints.survey().await?;
        let mut last = None;
        for (endpoint, latest) in &survey.agreeing {
            match self.pass(endpoint, latest, &survey.finalised).await {
                Err(error) if error.is_of_endpoint() => {
                    tracing::debug!("{}", chain_of(&error));
                    endpoint.distrust(&error);
                    last = Some(error);
                }
                done => return done,
            }
        }
        // A survey names at least one endpoint that agrees.
        Err(last.unwrap_or_else(|| self.endpoints.no_agreement("on the final block")))
    }

    /// One pass, with one endpoint from beginning to end.
    async fn pass(&self, endpoint: &Endpoint, latest: &Header, finalised: &Header) -> Result<Turn> {
        let checkpoint = self.writer.checkpoint().await?;
        let latest = latest.block;
        let at_checkpoint = match &checkpoint {
            Some(block) if block.number <= latest.number => {
                let number = BlockNumberOrTag::Number(block.number);
                Some(endpoint.block_there(number).await?.block)
            }
            _ => None,
        };
        let finalised = finalised.block.number;
        let head = Head { latest: latest.number, finalised, at_checkpoint };
        let is_on_chain = checkpoint.as_ref().is_none_or(|checkpoint| {
            at_checkpoint.is_some_and(|block| block.hash == checkpoint.hash)
        });
        let span = endpoint.health(|health| health.span());
        let turn = match step(checkpoint.as_ref(), self.start_block, &head, span) {
            Step::Wait => Turn::Idle,
            Step::FindFork => {
                let fork = self.fork_point(endpoint, checkpoint).await?;
                self.writer.rollback_to(fork).await?;
                return Ok(Turn::RolledBack(fork));
            }
            Step::CatchUp { from, to } => {
                self.catch_up(endpoint, checkpoint.as_ref(), (from, to)).await?
            }
            Step::Follow { from, to } => {
                self.follow(endpoint, checkpoint.as_ref(), (from, to)).await?
            }
        };
        // What is indexed may be of another fork until the checkpoint is seen on this one.
        if is_on_chain {
            self.writer.set_finalised(finalised).await?;
        }
        Ok(turn)
    }

    /// Highest stored block that is on the chain still. The ledger refuses to go below what is final.
    async fn fork_point(&self, endpoint: &Endpoint, checkpoint: Option<Block>) -> Result<u64> {
        let mut candidate = checkpoint;
        while let Some(block) = candidate {
            if block_at(endpoint, block.number).await?.hash == block.hash {
                return Ok(block.number);
            }
            let below = block.number.checked_sub(1);
            candidate = match below {
                Some(below) => self.writer.block_at_or_below(below).await?,
                None => None,
            };
        }
        Ok(self.start_block.saturating_sub(1))
    }

    /// Indexes final blocks by one range of logs, narrower next time if the endpoint refuses.
    async fn catch_up(
        &self,
        endpoint: &Endpoint,
        checkpoint: Option<&Block>,
        (from, to): (u64, u64),
    ) -> Result<Turn> {
        let logs = match endpoint.logs_between(from, to).await {
            Ok(logs) => logs,
            Err(error) => {
                if from < to {
                    endpoint.health(|health| health.narrow(to - from + 1, None));
                }
                return Err(error);
            }
        };
        endpoint.health(Health::widen);
        check_parent(endpoint, checkpoint, from).await?;

        let mut blocks = Vec::new();
        for logs in logs.chunk_by(|a, b| a.block_hash == b.block_hash) {
            let Some(hash) = logs.first().and_then(|log| log.block_hash) else { continue };
            let block = endpoint.block_by_hash(hash).await?.block;
            blocks.push(self.indexed(block, logs)?);
        }
        if blocks.last().is_none_or(|last| last.block.number < to) {
            let block = block_at(endpoint, to).await?;
            blocks.push(IndexedBlock { block, facts: Vec::new() });
        }
        self.writer.apply(&blocks).await?;
        Ok(Turn::Advanced(to))
    }

    /// Indexes blocks one by one, each with the logs of its own hash.
    async fn follow(
        &self,
        endpoint: &Endpoint,
        checkpoint: Option<&Block>,
        (from, to): (u64, u64),
    ) -> Result<Turn> {
        let mut parent = checkpoint.map(|block| block.hash);
        let mut blocks = Vec::new();
        for number in from..=to {
            let block = block_at(endpoint, number).await?;
            if parent.is_some_and(|parent| parent != block.parent) {
                // The chain moved while it was read; what was read before that point is good.
                break;
            }
            let logs = endpoint.logs_of(&block).await?;
            parent = Some(block.hash);
            blocks.push(self.indexed(block, &logs)?);
        }
        let Some(last) = blocks.last().map(|indexed| indexed.block.number) else {
            return Ok(Turn::Idle);
        };
        self.writer.apply(&blocks).await?;
        Ok(Turn::Advanced(last))
    }

    fn indexed(&self, block: Block, logs: &[Log]) -> Result<IndexedBlock> {
        let contract = self.endpoints.contract();
        let facts = logs.iter().map(|log| decode::fact(log, contract)).collect::<Result<_>>()?;
        Ok(IndexedBlock { block, facts })
    }
}

async fn block_at(endpoint: &Endpoint, number: u64) -> Result<Block> {
    Ok(endpoint.block_there(number.into()).await?.block)
}

async fn check_parent(endpoint: &Endpoint, checkpoint: Option<&Block>, from: u64) -> Result<()> {
    let Some(checkpoint) = checkpoint else { return Ok(()) };
    let parent = block_at(endpoint, from).await?.parent;
    if parent == checkpoint.hash {
        return Ok(());
    }
    Err(endpoint.inconsistent(format!(
        "block {from} follows {parent}, the checkpoint is {}",
        checkpoint.hash
    )))
}

/// Takes turns until told to stop, with a pause after each that failed or had nothing to do. What the next turn can mend is
/// logged; anything else ends the run.
pub async fn run(
    mut indexer: Indexer,
    pause: Duration,
    mut shutdown: watch::Receiver<bool>,
) -> Result<()> {
    while !*shutdown.borrow() {
        match indexer.turn().await {
            Ok(Turn::Idle) => {}
            Ok(Turn::Advanced(block)) => {
                tracing::debug!(block, "indexed");
                continue;
            }
            Ok(Turn::RolledBack(block)) => {
                tracing::warn!(block, "rolled back to the fork point of a reorg");
                continue;
            }
            Err(error) if error.is_transient() => tracing::warn!("{}", chain_of(&error)),
            Err(error) => return Err(error),
        }
        tokio::select! {
            () = sleep(pause) => {}
            changed = shutdown.changed() => if changed.is_err() { break },
        }
    }
    Ok(())
}

/// An error with its sources, on one line.
pub fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use alloy::primitives::B256;

    use super::*;

    fn block(number: u64, hash: u8) -> Block {
        Block { number, hash: B256::repeat_byte(hash), parent: B256::ZERO, time: 0 }
    }

    fn head(latest: u64, finalised: u64, at_checkpoint: Option<Block>) -> Head {
        Head { latest, finalised, at_checkpoint }
    }

    #[test]
    fn a_checkpoint_that_left_the_chain_starts_a_fork_search() {
        let head = head(20, 0, Some(block(10, 2)));
        assert_eq!(step(Some(&block(10, 1)), 5, &head, 100), Step::FindFork);
    }

    #[test]
    fn an_endpoint_that_forgot_the_checkpoint_is_waited_for() {
        assert_eq!(step(Some(&block(10, 1)), 5, &head(12, 0, None), 100), Step::Wait);
        assert_eq!(step(Some(&block(10, 1)), 5, &head(8, 0, None), 100), Step::Wait);
    }

    #[test]
    fn starts_at_the_deployment_and_catches_up_in_ranges() {
        assert_eq!(step(None, 5, &head(500, 400, None), 100), Step::CatchUp { from: 5, to: 104 });
        let head = head(500, 400, Some(block(390, 1)));
        assert_eq!(step(Some(&block(390, 1)), 5, &head, 100), Step::CatchUp { from: 391, to: 400 });
    }

    #[test]
    fn follows_what_may_be_undone_block_by_block() {
        let head = head(500, 400, Some(block(400, 1)));
        assert_eq!(step(Some(&block(400, 1)), 5, &head, 100), Step::Follow { from: 401, to: 432 });
    }

    #[test]
    fn waits_at_the_head() {
        let head = head(10, 8, Some(block(10, 1)));
        assert_eq!(step(Some(&block(10, 1)), 5, &head, 100), Step::Wait);
    }
}
