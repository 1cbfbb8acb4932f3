//! Following the chain: one decision per turn.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use alloy::{primitives::B256, rpc::types::Log};
use contracts::journal::Journal;
use ledger::{
    Ledger,
    chain::{Block, ChainWriter, IndexedBlock},
    completeness::{Account, BlockJournal},
    point,
};
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, sleep},
};

use crate::{
    Endpoints, Error, Result, compare, decode,
    endpoint::{Endpoint, Header, range_refusal},
    endpoints::{Health, Survey, Unagreed},
    history::{self, History},
    proof,
    replay::verify,
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

/// What keeps the indexer, for people and for alarms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// The final block that enough operators agree on.
    pub finalised: Option<u64>,
    /// Why it waits, if it does.
    pub waiting: Vec<String>,
    /// Whether the final block stands still or went back, or nothing becomes final in the ledger.
    pub is_alarmed: bool,
}

/// Follows one contract into one ledger.
#[derive(Debug)]
pub struct Indexer {
    endpoints: Endpoints,
    writer: ChainWriter,
    start_block: u64,
    standing: watch::Sender<Standing>,
    /// The newest final block, and since when it is that one.
    final_since: (u64, Instant),
    /// The highest block that a turn came to.
    reached: u64,
    /// Since when turns fail, and none comes higher.
    failing_since: Option<Instant>,
    /// Operators whose lies are in the ledger.
    marked: BTreeSet<String>,
    /// How often in a row what is stored and what is served did not lead to the contract's journal.
    doubts: AtomicU32,
    /// The final block at which a comparison came to nothing, or which was final at the start.
    untold_at: AtomicU64,
    /// Accounts that were compared as of a final block, and which one: what touched them before it is compared as well.
    told: Mutex<(u64, BTreeSet<Account>)>,
}

/// So often is a range asked for again before what is stored below it is given up.
const DOUBTS: u32 = 3;

impl Indexer {
    /// An indexer of the contract that the ledger belongs to. Fails if too few operators serve its chain, which is told by
    /// the chain's id and first block.
    pub async fn new(endpoints: Endpoints, ledger: Ledger) -> Result<Self> {
        let identity = *ledger.identity();
        endpoints.expect_chain(identity.chain_id, identity.genesis);
        endpoints.identify().await?;
        let mut indexer = Self {
            endpoints,
            writer: ChainWriter::new(ledger.clone()),
            start_block: identity.start_block,
            standing: watch::Sender::default(),
            final_since: (0, point::now()),
            reached: 0,
            failing_since: None,
            marked: BTreeSet::new(),
            doubts: AtomicU32::new(0),
            untold_at: AtomicU64::new(0),
            told: Mutex::default(),
        };
        // What differed when a run ended differs still: it reads on until there is more to compare.
        *indexer.untold_at.get_mut() = indexer.writer.finalised().await?;
        indexer.sync_marks().await?;
        indexer.adopt_journals(&ledger).await?;
        Ok(indexer)
    }

    /// What keeps it, as of its last turn.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// One turn: looks at the endpoints, and does what [`step`] says with the first one that can, in one commit.
    pub async fn turn(&mut self) -> Result<Turn> {
        self.sync_marks().await?;
        let survey = self.endpoints.survey().await;
        let alarm = self.alarm(survey.as_ref().ok()).await?;
        let finalised = survey.as_ref().ok().map(|survey| survey.finalised.block.number);
        let turn = match survey {
            Ok(survey) => self.turn_on(&survey).await,
            Err(error) => Err(error),
        };
        self.sync_marks().await?;
        if turn.is_ok() {
            self.doubts.store(0, Ordering::Relaxed);
        }
        self.note(&turn);
        let is_alarmed = alarm.is_some();
        let problem =
            turn.as_ref().err().map(|error| format!("the indexer waits: {}", chain_of(error)));
        let waiting = alarm.into_iter().chain(problem).chain(self.untold().await?).collect();
        self.standing.send_replace(Standing { finalised, waiting, is_alarmed });
        turn
    }

    /// Takes note of whether turns get anywhere. What is indexed again was reached before.
    fn note(&mut self, turn: &Result<Turn>) {
        match turn {
            Ok(Turn::Idle) => self.failing_since = None,
            Ok(Turn::Advanced(block)) if *block > self.reached => {
                (self.reached, self.failing_since) = (*block, None);
            }
            Ok(_) => {}
            Err(_) => {
                self.failing_since.get_or_insert_with(point::now);
            }
        }
    }

    async fn turn_on(&self, survey: &Survey) -> Result<Turn> {
        let mut suspects = Vec::new();
        let mut last = None;
        for (endpoint, latest) in &survey.agreeing {
            match self.pass(survey, endpoint, &latest.block).await {
                Err(error) if error.is_of_endpoint() => {
                    tracing::debug!("{}", chain_of(&error));
                    endpoint.distrust(&error);
                    // What another operator's endpoint served earlier may be what does not verify.
                    if let Error::Unverified { operator, hash, .. } = &error
                        && operator == endpoint.operator()
                    {
                        suspects.push((endpoint, *hash, error.to_string()));
                    }
                    last = Some(error);
                }
                Ok(turn) => {
                    for (suspect, hash, problem) in suspects {
                        convict(suspect, &survey.agreeing, hash, problem).await;
                    }
                    return Ok(turn);
                }
                failed => return failed,
            }
        }
        // A survey names at least one endpoint that agrees.
        Err(last.unwrap_or_else(|| self.endpoints.no_agreement("on the final block")))
    }

    /// One pass, with one endpoint from beginning to end.
    async fn pass(&self, survey: &Survey, endpoint: &Endpoint, latest: &Block) -> Result<Turn> {
        let checkpoint = self.writer.checkpoint().await?;
        let at_checkpoint = match &checkpoint {
            Some(block) if block.number <= latest.number => {
                Some(block_at(endpoint, block.number).await?)
            }
            _ => None,
        };
        let finalised = survey.finalised.block;
        let head = Head { latest: latest.number, finalised: finalised.number, at_checkpoint };
        let span = endpoint.health(|health| health.span());
        let mut next = step(checkpoint.as_ref(), self.start_block, &head, span);
        let stored = self.writer.block_at_or_below(finalised.number).await?;
        let departs =
            |block: &Block| block.number == finalised.number && block.hash != finalised.hash;
        if stored.as_ref().is_some_and(departs) {
            next = Step::FindFork;
        }
        let turn = match (next, checkpoint) {
            (Step::FindFork, Some(checkpoint)) => {
                let fork = self.fork_point(endpoint, &checkpoint, latest).await?;
                self.writer.rollback_to(fork).await?;
                return Ok(Turn::RolledBack(fork));
            }
            (Step::CatchUp { from, to }, checkpoint) => {
                self.catch_up(survey, endpoint, checkpoint.as_ref(), (from, to)).await?
            }
            (Step::Follow { from, to }, checkpoint) => {
                self.follow(endpoint, checkpoint.as_ref(), (from, to)).await?
            }
            (Step::Wait | Step::FindFork, _) => Turn::Idle,
        };
        let repaired = self.finalise(survey, endpoint).await?;
        Ok(repaired.unwrap_or(turn))
    }

    /// Highest stored block that is on the endpoint's chain still. Nothing final is given up, and nothing deeper than is
    /// followed; enough operators have to agree before the indexer stops for either.
    async fn fork_point(
        &self,
        endpoint: &Endpoint,
        checkpoint: &Block,
        latest: &Block,
    ) -> Result<u64> {
        // Where enough operators do not tell yet what stands there, nothing is undone.
        if self.endpoints.needed() > 1 && checkpoint.number <= latest.number {
            let agreed = self.endpoints.agreed_at(checkpoint.number).await?;
            if agreed.block.hash == checkpoint.hash {
                let theirs = block_at(endpoint, checkpoint.number).await?;
                return Err(endpoint.departs(&theirs, checkpoint));
            }
        }
        let finalised = self.writer.finalised().await?;
        let max = self.endpoints.settings().max_reorg_depth;
        let mut candidate = self.writer.block_at_or_below(latest.number).await?;
        while let Some(block) = candidate {
            let theirs = block_at(endpoint, block.number).await?.hash;
            if theirs == block.hash {
                if block.number < checkpoint.number {
                    return Ok(block.number);
                }
                let problem = "its newest blocks do not lead to the final block that it agrees on";
                return Err(endpoint.inconsistent(problem.into()));
            }
            let (number, ours) = (block.number, block.hash);
            let is_too_deep = checkpoint.number - number >= max;
            if number <= finalised || is_too_deep {
                let agreed = self.endpoints.agreed_at(number).await?.block.hash;
                if agreed != theirs {
                    let problem =
                        format!("its block {number} is {theirs}, the others agree on {agreed}");
                    // Only others convict it, and of what it says again only.
                    if number <= finalised
                        && self.endpoints.operators() > 1
                        && block_at(endpoint, number).await?.hash == theirs
                    {
                        endpoint.lied(problem.clone());
                    }
                    return Err(endpoint.inconsistent(problem));
                }
                return Err(if number <= finalised {
                    Error::FinalBlockChanged { number, ours, theirs }
                } else {
                    Error::ReorgTooDeep { max, number, ours, theirs }
                });
            }
            candidate = match number.checked_sub(1) {
                Some(below) => self.writer.block_at_or_below(below).await?,
                None => None,
            };
        }
        Ok(self.start_block.saturating_sub(1))
    }

    /// Indexes final blocks by one range of logs, a wider one next time if all of it got through, and a narrower one if it did
    /// not: a range asks once and again for each block that has logs, and is stored as a whole or not at all.
    async fn catch_up(
        &self,
        survey: &Survey,
        endpoint: &Endpoint,
        checkpoint: Option<&Block>,
        (from, to): (u64, u64),
    ) -> Result<Turn> {
        let blocks = to - from + 1;
        let turn = self.index_range(survey, endpoint, checkpoint, (from, to)).await;
        match &turn {
            Ok(Turn::Advanced(_)) => endpoint.health(Health::widen),
            Err(error) if error.is_of_width() => endpoint.narrow_after(error, blocks),
            _ => {}
        }
        turn
    }

    /// Indexes final blocks by one range of logs. What does not fold to the contract's journal at the end of the range is not
    /// stored. The journal proves neither where a log stands nor what old blocks hold whose state nobody keeps: where nothing
    /// else does, enough operators have to serve the same.
    async fn index_range(
        &self,
        survey: &Survey,
        endpoint: &Endpoint,
        checkpoint: Option<&Block>,
        (from, to): (u64, u64),
    ) -> Result<Turn> {
        let end = self.final_at(survey, to).await?;
        // Ranges are looked up in an index, which may lack what the block has.
        let logs = match to - from {
            0 => endpoint.logs_of(&end.block).await?,
            _ => endpoint.logs_between(from, to).await?,
        };
        self.check_parent(survey, endpoint, checkpoint, from).await?;

        let before = from.saturating_sub(1);
        let mut history = History::after(self.writer.journal_at(before).await?);
        let (mut found, mut is_proved) = (Vec::new(), true);
        let mut blocks: Vec<_> = logs.chunk_by(|a, b| a.block_number == b.block_number).collect();
        if from == to && blocks.is_empty() {
            blocks.push(&[]);
        }
        for served in blocks {
            let number = served.first().and_then(|log| log.block_number).unwrap_or(to);
            let header = match number == to {
                true => end.clone(),
                false => self.final_at(survey, number).await?,
            };
            if served.iter().any(|log| log.block_hash != Some(header.block.hash)) {
                let problem = format!("its logs of block {number} name another block");
                return Err(endpoint.inconsistent(problem));
            }
            let logs = match proof::proved_logs(endpoint, &header).await? {
                Some(logs) if !proof::are_of_state_sync(served, &header) => logs,
                _ => {
                    is_proved = false;
                    served.to_vec()
                }
            };
            history.push(number, &logs, endpoint.operator());
            found.push((header.block, logs));
        }
        let theirs = proof::journal(&self.endpoints, endpoint, &end).await?;
        if let Some(theirs) = theirs.filter(|theirs| *theirs != history.last()) {
            return self.repair(survey, endpoint, history.blocks, (before, to, theirs)).await;
        }
        let is_told = theirs.is_some();
        is_proved &= is_told;
        let is_sure =
            is_proved || self.check_agreed(endpoint, &logs, (from, &end.block), is_told).await?;
        if found.last().is_none_or(|(last, _)| last.number < to) {
            found.push((end.block, Vec::new()));
            history.push(to, &[], endpoint.operator());
        }
        // What is not proved may be anything.
        let at_fault = |error| if is_sure { error } else { of_facts(endpoint, error) };
        let blocks = found.iter().map(|(block, logs)| self.indexed(*block, logs));
        let blocks = blocks.collect::<Result<Vec<_>>>().map_err(at_fault)?;
        let applied = self.writer.apply_proved(&blocks, &history.blocks).await;
        applied.map_err(|error| at_fault(error.into()))?;
        if theirs.is_some() {
            self.writer.set_finalised(to).await?;
        }
        Ok(Turn::Advanced(to))
    }

    /// Fails if the block after the checkpoint, as enough operators have it, does not follow it: the endpoint alone said that the
    /// checkpoint still stands.
    async fn check_parent(
        &self,
        survey: &Survey,
        endpoint: &Endpoint,
        checkpoint: Option<&Block>,
        from: u64,
    ) -> Result<()> {
        let Some(checkpoint) = checkpoint else { return Ok(()) };
        let first = self.final_at(survey, from).await?.block;
        if first.parent == checkpoint.hash {
            return Ok(());
        }
        Err(endpoint.breaks_off(checkpoint.hash, &first))
    }

    /// The final block at a height, as enough operators have it.
    async fn final_at(&self, survey: &Survey, number: u64) -> Result<Header> {
        if number == survey.finalised.block.number {
            return Ok(survey.finalised.clone());
        }
        self.endpoints.agreed_at(number).await
    }

    /// Whether enough operators serve the same logs of a range; fails if they serve others, or if a single one does whose entries
    /// are as true, or, where one operator is not enough and the journal does not tell the entries either, or fewer blocks would
    /// do, if too few serve any.
    async fn check_agreed(
        &self,
        endpoint: &Endpoint,
        logs: &[Log],
        (from, end): (u64, &Block),
        is_told: bool,
    ) -> Result<bool> {
        if self.endpoints.needed() <= 1 {
            return Ok(false);
        }
        let to = end.number;
        let what = format!("logs of blocks {from} to {to}");
        let differs =
            |from: &str| endpoint.inconsistent(format!("its {what} are not those that {from}"));
        let agreed = match to - from {
            0 => self.endpoints.agreed_logs(end).await,
            _ => self.endpoints.agreed_range((from, to)).await,
        };
        let Unagreed { served, refusals } = match agreed {
            Ok(agreed) if agreed == history::digest(logs) => return Ok(true),
            Ok(_) => return Err(differs("the others serve")),
            Err(unagreed) => unagreed,
        };
        let is_refused = from < to && refusals.iter().any(|error| range_refusal(error).is_some());
        // Where they do not serve the first block alone either, it was not for the width.
        let fewer_do = is_refused && self.endpoints.agreed_range((from, from)).await.is_ok();
        if is_told && !fewer_do {
            // Of others that place the same entries elsewhere, the journal does not tell who is right.
            let contradicts = |theirs: &[Log]| {
                history::entries(theirs) == history::entries(logs)
                    && history::digest(theirs) != history::digest(logs)
            };
            let other = served.iter().find(|(_, theirs)| contradicts(theirs));
            return other.map_or(Ok(false), |(other, _)| Err(differs(&format!("{other} serves"))));
        }
        let _is_narrower = refusals.iter().any(|error| endpoint.narrow(error, to - from + 1));
        Err(self.endpoints.no_agreement(&format!("on the {what}")))
    }

    /// Indexes blocks one by one, each with the logs of its own hash. What one operator alone says of them is not followed:
    /// others have to have the last one, and where nothing proves its logs, to serve the same.
    async fn follow(
        &self,
        endpoint: &Endpoint,
        checkpoint: Option<&Block>,
        (from, to): (u64, u64),
    ) -> Result<Turn> {
        let mut parent = checkpoint.map(|block| block.hash);
        let mut history = History::after(self.writer.journal_at(from.saturating_sub(1)).await?);
        let mut blocks: Vec<IndexedBlock> = Vec::new();
        for number in from..=to {
            match self.next_unfinal(endpoint, number, parent, &mut history).await {
                Ok(Some(indexed)) => {
                    parent = Some(indexed.block.hash);
                    blocks.push(indexed);
                }
                Ok(None) => break,
                // What was read before that is good. The next turn begins with this block.
                Err(error) if error.is_of_endpoint() && !blocks.is_empty() => {
                    tracing::debug!("{}", chain_of(&error));
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        let backed = self.backed(endpoint, &blocks).await?;
        blocks.truncate(backed);
        history.blocks.truncate(backed);
        let Some(last) = blocks.last().map(|indexed| indexed.block.number) else {
            return Ok(Turn::Idle);
        };
        let applied = self.writer.apply_proved(&blocks, &history.blocks).await;
        applied.map_err(|error| self.of_unproved(endpoint, error.into()))?;
        Ok(Turn::Advanced(last))
    }

    /// What is indexed of the block at a height that is not final and follows its parent, if enough operators have it.
    async fn next_unfinal(
        &self,
        endpoint: &Endpoint,
        number: u64,
        parent: Option<B256>,
        history: &mut History,
    ) -> Result<Option<IndexedBlock>> {
        let header = endpoint.block_there(number.into()).await?;
        if let Some(parent) = parent.filter(|parent| *parent != header.block.parent) {
            // The chain moved while it was read; or another endpoint has what follows the checkpoint, or knows that it is gone.
            return Err(endpoint.breaks_off(parent, &header.block));
        }
        let indexed = self.unfinal(endpoint, &header, history).await?;
        if indexed.is_none() {
            // Those that do not serve them may have another block there, which is not waited for.
            self.is_backed(endpoint, &header.block).await?;
        }
        Ok(indexed)
    }

    /// What is indexed of a block that is not final, if enough operators serve the same or it is proved.
    async fn unfinal(
        &self,
        endpoint: &Endpoint,
        header: &Header,
        history: &mut History,
    ) -> Result<Option<IndexedBlock>> {
        let logs = match proof::proved_logs(endpoint, header).await? {
            Some(logs) => logs,
            None => {
                let logs = endpoint.logs_of(&header.block).await?;
                if self.endpoints.needed() > 1 {
                    let Ok(agreed) = self.endpoints.agreed_logs(&header.block).await else {
                        return Ok(None);
                    };
                    if agreed != history::digest(&logs) {
                        let number = header.block.number;
                        return Err(endpoint.inconsistent(format!(
                            "its logs of block {number} are not those that the others serve"
                        )));
                    }
                }
                logs
            }
        };
        history.push(header.block.number, &logs, endpoint.operator());
        match self.indexed(header.block, &logs) {
            Ok(indexed) => Ok(Some(indexed)),
            // What is proved is so by the header, which is the endpoint's own word until others have the block.
            Err(error)
                if self.endpoints.needed() > 1
                    && self.is_backed(endpoint, &header.block).await? =>
            {
                Err(error)
            }
            Err(error) => Err(of_facts(endpoint, error)),
        }
    }

    /// Whether enough operators have the block. Fails if they have another at its height, rather than none yet.
    async fn is_backed(&self, endpoint: &Endpoint, block: &Block) -> Result<bool> {
        // Those that trail do not have the newest ones yet.
        let Ok(agreed) = self.endpoints.agreed_at(block.number).await else { return Ok(false) };
        if self.endpoints.ballot(&agreed.block) == self.endpoints.ballot(block) {
            return Ok(true);
        }
        Err(endpoint.departs(block, &agreed.block))
    }

    /// How many of the blocks enough operators have, from the first one on.
    async fn backed(&self, endpoint: &Endpoint, blocks: &[IndexedBlock]) -> Result<usize> {
        if self.endpoints.needed() <= 1 {
            return Ok(blocks.len());
        }
        if !endpoint.computes_hashes() {
            // A block says nothing of those below it.
            for (index, IndexedBlock { block, .. }) in blocks.iter().enumerate() {
                if !self.is_backed(endpoint, block).await? {
                    return Ok(index);
                }
            }
            return Ok(blocks.len());
        }
        for (index, IndexedBlock { block, .. }) in blocks.iter().enumerate().rev() {
            if self.is_backed(endpoint, block).await? {
                return Ok(index + 1);
            }
        }
        Ok(0)
    }

    /// What cannot be decoded or stored of blocks that are not final is the endpoint's fault, where it alone serves them.
    fn of_unproved(&self, endpoint: &Endpoint, error: Error) -> Error {
        if self.endpoints.needed() <= 1 { of_facts(endpoint, error) } else { error }
    }

    /// Makes the agreed final block final in the ledger if the journal up to it is the contract's, and compares what is final
    /// with the contract. If the journal is another one, finds the first block that is untrue and rolls back below it.
    async fn finalise(&self, survey: &Survey, endpoint: &Endpoint) -> Result<Option<Turn>> {
        let number = survey.finalised.block.number;
        let stored = self.writer.block_at_or_below(number).await?;
        let known = self.writer.finalised().await?;
        if known > number || stored != Some(survey.finalised.block) {
            return Ok(None);
        }
        if known < number {
            let theirs = proof::journal(&self.endpoints, endpoint, &survey.finalised).await?;
            let theirs =
                theirs.ok_or_else(|| self.endpoints.no_agreement("on the contract's journal"))?;
            if self.writer.journal_at(number).await? != theirs {
                let all = (number, number, theirs);
                return self.repair(survey, endpoint, Vec::new(), all).await.map(Some);
            }
            self.writer.set_finalised(number).await?;
        }
        self.compare(survey).await?;
        Ok(None)
    }

    /// Compares what is final and was not compared yet, whatever made it final. What too few tell of, or what differs, is asked
    /// for again at the next final block.
    async fn compare(&self, survey: &Survey) -> Result<()> {
        let number = survey.finalised.block.number;
        let is_compared = self.writer.compared_to().await? >= number;
        if is_compared || self.untold_at.swap(number, Ordering::Relaxed) == number {
            return Ok(());
        }
        let agreeing: Vec<_> =
            survey.agreeing.iter().map(|(endpoint, _)| endpoint.clone()).collect();
        let header = &survey.finalised;
        let mut told = self.told.lock().await;
        if told.0 != number {
            *told = (number, BTreeSet::new());
        }
        let told = &mut told.1;
        if compare::compare(&self.writer, &self.endpoints, &agreeing, header, told).await? {
            self.untold_at.store(0, Ordering::Relaxed);
        }
        Ok(())
    }

    /// How far comparisons have come, while they wait for the next final block.
    async fn untold(&self) -> Result<Option<String>> {
        if self.untold_at.load(Ordering::Relaxed) == 0 {
            return Ok(None);
        }
        let (compared, known) = (self.writer.compared_to().await?, self.writer.finalised().await?);
        Ok((compared < known).then(|| {
            format!("balances and credits are compared with the contract up to block {compared} of {known}; the rest waits for the next final block")
        }))
    }

    /// Finds what is untrue of the blocks up to `to`, whose journal is `theirs`, and rolls back below it. Of them, those after
    /// `stored` were only served, and what stands in the ledger without a proof, above its final blocks, may be untrue as well.
    async fn repair(
        &self,
        survey: &Survey,
        endpoint: &Endpoint,
        served: Vec<BlockJournal>,
        (stored, to, theirs): (u64, u64, Journal),
    ) -> Result<Turn> {
        let known = self.writer.finalised().await?.max(self.start_block.saturating_sub(1));
        let mut history = History::after(self.writer.journal_at(known).await?);
        history.blocks = self.writer.journals(known, stored).await?;
        history.blocks.extend(served);
        let found = self.find_untruth((survey, endpoint), &history, (known, to), theirs).await?;
        let Some(found) = found else {
            return self.index_again(survey, endpoint, (known, stored, to), theirs).await;
        };
        let block = found.header.block.number;
        let source = history.of(block).map_or(endpoint.operator(), |block| &block.source);
        let is_lie = self.blame(&found, source).await;
        if block > stored && !is_lie {
            // Asked for alone, it is asked for by its hash.
            let before = (block - stored - 1).max(1);
            endpoint.health(|health| health.narrow(to - stored, Some(before)));
            return Err(endpoint.inconsistent(format!("{} of block {block}", found.what)));
        }
        if block > stored {
            let (operator, hash) = (source.to_owned(), found.header.block.hash);
            return Err(Error::Unverified { operator, block, hash, problem: found.what });
        }
        let fork = block.saturating_sub(1);
        tracing::warn!(block, "{} by {source}; indexing it again", found.what);
        self.writer.rollback_to(fork).await?;
        Ok(Turn::RolledBack(fork))
    }

    /// What is done where the blocks in between do not tell their journals, so that the untrue one is not found: what was only
    /// served is not taken, if that is to blame; otherwise, if that is so again and again, everything above the final blocks is
    /// indexed anew.
    async fn index_again(
        &self,
        survey: &Survey,
        endpoint: &Endpoint,
        (known, stored, to): (u64, u64, u64),
        theirs: Journal,
    ) -> Result<Turn> {
        let range = (stored.saturating_add(1), to);
        if stored == known || self.is_served_by_another(survey, range, theirs).await? {
            let (from, to) = range;
            let problem = "do not fold to the contract's journal";
            return Err(
                endpoint.inconsistent(format!("its logs of blocks {from} to {to} {problem}"))
            );
        }
        let doubts = self.doubts.fetch_add(1, Ordering::Relaxed) + 1;
        if doubts < DOUBTS {
            let problem = format!(
                "that was so {doubts} times; after {DOUBTS} those after block {known} are indexed again"
            );
            return Err(Error::Incomplete { block: to, problem });
        }
        self.doubts.store(0, Ordering::Relaxed);
        self.writer.rollback_to(known).await?;
        let problem = format!("those after block {known} are indexed again");
        Err(Error::Incomplete { block: to, problem })
    }

    /// Whether an endpoint serves logs of these blocks that lead from the stored journal to the contract's. Fails if none does
    /// and one does not answer.
    async fn is_served_by_another(
        &self,
        survey: &Survey,
        (from, to): (u64, u64),
        theirs: Journal,
    ) -> Result<bool> {
        let before = self.writer.journal_at(from.saturating_sub(1)).await?;
        let mut silent = None;
        for (endpoint, _) in survey.agreeing.iter().filter(|_| from <= to) {
            match endpoint.logs_between(from, to).await {
                Ok(logs) if history::fold(before, &history::entries(&logs)) == theirs => {
                    return Ok(true);
                }
                Ok(_) => {}
                Err(error) => silent = Some(error),
            }
        }
        silent.map_or(Ok(false), Err)
    }

    /// The first block after `good` whose logs do not fold to the contract's journal, by bisection, and what is untrue of
    /// them; nothing where a block in between does not tell its journal. Fails if no endpoint serves true ones.
    async fn find_untruth(
        &self,
        (survey, asked): (&Survey, &Endpoint),
        history: &History,
        (mut good, mut bad): (u64, u64),
        mut theirs: Journal,
    ) -> Result<Option<Untruth>> {
        let incomplete = |block: u64, theirs: Journal| Error::Incomplete {
            block,
            problem: format!(
                "{} events are indexed up to it, the contract counts {}",
                history.at(block).count,
                theirs.count
            ),
        };
        while bad - good > 1 {
            let middle = good + (bad - good) / 2;
            let header = self.endpoints.agreed_at(middle).await?;
            let at_middle = proof::journal(&self.endpoints, asked, &header).await?;
            let Some(at_middle) = at_middle else { return Ok(None) };
            if at_middle == history.at(middle) {
                good = middle;
            } else {
                (bad, theirs) = (middle, at_middle);
            }
        }
        let header = self.endpoints.agreed_at(bad).await?;
        let before = history.at(good);
        let served = history.of(bad).map(|block| block.entries.as_slice()).unwrap_or_default();
        for (endpoint, _) in &survey.agreeing {
            // Whatever keeps an endpoint from answering, another may.
            let Ok(logs) = proof::logs(endpoint, &header).await else { continue };
            let truth = history::entries(&logs);
            if history::fold(before, &truth) == theirs && truth != served {
                let what = history::untruth(served, &truth);
                let told_by = endpoint.operator().to_owned();
                return Ok(Some(Untruth { header, truth, what, told_by }));
            }
        }
        Err(incomplete(bad, theirs))
    }

    /// Marks the operator whose endpoint served what is untrue, if it does so again when it is asked for the block by its hash:
    /// before, it may have been on another branch, or not have had the logs of a new block yet. One that serves the truth as well
    /// contradicts itself, as nodes behind one address may. Returns whether it lied.
    async fn blame(&self, found: &Untruth, source: &str) -> bool {
        let Untruth { header, truth, what, told_by } = found;
        let block = header.block.number;
        if told_by == source {
            tracing::warn!(operator = source, "{what} of block {block}, and not every time");
            return false;
        }
        let mut is_lie = false;
        for member in self.endpoints.members().iter().filter(|member| member.operator() == source) {
            is_lie |= match proof::logs(member, header).await {
                Ok(logs) => history::entries(&logs) != *truth,
                Err(error) => matches!(error, Error::Unverified { .. }),
            };
        }
        if !is_lie {
            tracing::warn!(operator = source, "{what} of block {block}, and not when asked again");
            return false;
        }
        for member in self.endpoints.members().iter().filter(|member| member.operator() == source) {
            member
                .lied(format!("{what} of block {block}; {told_by} serves what the journal proves"));
        }
        true
    }

    /// Why the final block is a reason for alarm, if it is: that of the endpoints, or that of the ledger, which stays behind it while
    /// turns fail.
    async fn alarm(&mut self, survey: Option<&Survey>) -> Result<Option<String>> {
        let now = point::now();
        let Some(survey) = survey else {
            return Ok(self.stands_still(0, now));
        };
        let finalised = survey.finalised.block;
        if finalised.number > self.final_since.0 {
            self.final_since = (finalised.number, now);
        }
        let known = self.writer.finalised().await?;
        if finalised.number < known {
            let number = finalised.number;
            return Ok(Some(format!("the final block went back from {known} to {number}")));
        }
        // One endpoint alone may tell any time.
        let agreeing = survey.agreeing.iter();
        let times = agreeing.map(|(endpoint, latest)| (endpoint.operator(), latest.block.time));
        let newest = self.endpoints.reached(times).unwrap_or_default();
        let behind = newest.saturating_sub(finalised.time);
        Ok(self.stands_still(behind, now).or_else(|| self.fails(known, now)))
    }

    /// `behind`: seconds between the final and the newest block.
    fn stands_still(&self, behind: u64, now: Instant) -> Option<String> {
        let limit = self.endpoints.settings().finality_alarm;
        let (number, since) = self.final_since;
        let stood = now.saturating_duration_since(since).max(Duration::from_secs(behind));
        (stood > limit).then(|| {
            format!("the final block stands at {number}, for {} minutes", stood.as_secs() / 60)
        })
    }

    /// `known`: the ledger's final block.
    fn fails(&self, known: u64, now: Instant) -> Option<String> {
        let failed = now.saturating_duration_since(self.failing_since?);
        (failed > self.endpoints.settings().finality_alarm).then(|| {
            let minutes = failed.as_secs() / 60;
            format!("nothing became final in the ledger after block {known} for {minutes} minutes")
        })
    }

    /// Brings the ledger's marks of lying operators and the endpoints' health together: new lies are stored, and what an
    /// operator of this installation has cleared is forgotten.
    async fn sync_marks(&mut self) -> Result<()> {
        let mut stored = self.writer.lying_operators().await?;
        for member in self.endpoints.members() {
            let operator = member.operator();
            let (lie, latest) = member.health(|health| (health.lie.clone(), health.latest));
            match (lie, stored.get(operator)) {
                (None, Some(reason)) => {
                    let reason = reason.clone();
                    member.health(|health| health.lie = Some(reason));
                }
                (Some(_), None) if self.marked.contains(operator) => {
                    tracing::warn!(operator, "endpoint is trusted again");
                    member.health(|health| *health = Health::default());
                }
                (Some(reason), None) => {
                    let time = latest.map_or(0, |block| block.time);
                    self.writer.mark_endpoint(operator, true, &reason, time).await?;
                    stored.insert(operator.to_owned(), reason);
                }
                _ => {}
            }
        }
        self.marked = stored.into_keys().collect();
        Ok(())
    }

    /// Folds the journal of final blocks that an earlier version indexed, which kept none. What is not final is given up, to be
    /// read again: it may have left the chain since. As what is final in the ledger may be so old that nobody keeps its state, the
    /// journal is read at the newest final block.
    async fn adopt_journals(&self, ledger: &Ledger) -> Result<()> {
        if !self.writer.lacks_journal().await? {
            return Ok(());
        }
        let known = self.writer.finalised().await?;
        self.writer.rollback_to(known).await?;
        let Some(checkpoint) = self.writer.checkpoint().await? else { return Ok(()) };
        let newest = self.endpoints.survey().await?.finalised.block;
        let to = if newest.number > known { newest } else { checkpoint };
        let range = (self.start_block, &to);
        let (replay, differences) = verify(&self.endpoints, ledger, range, known).await?;
        let replay = replay.complete(&to)?;
        if !differences.is_empty() {
            let problem = format!("{} facts of the ledger are not on the chain", differences.len());
            return Err(Error::Incomplete { block: known, problem });
        }
        Ok(self.writer.adopt_journals(&replay.journals).await?)
    }

    fn indexed(&self, block: Block, logs: &[Log]) -> Result<IndexedBlock> {
        let contract = self.endpoints.contract();
        let facts = logs.iter().map(|log| decode::fact(log, contract)).collect::<Result<_>>()?;
        Ok(IndexedBlock { block, facts })
    }
}

/// What cannot be decoded or stored of what one endpoint alone says is its fault.
pub(crate) fn of_facts(endpoint: &Endpoint, error: Error) -> Error {
    let is_of_facts = match &error {
        Error::UnknownEvent { .. } => true,
        Error::Ledger(error) => error.is_of_facts(),
        _ => false,
    };
    if is_of_facts { endpoint.inconsistent(chain_of(&error)) } else { error }
}

/// Marks an endpoint that serves what does not verify, if it does so again when it is asked for that block by its hash: before,
/// a balancer may have asked a node that was about to have the block. What another operator's endpoint serves of that block has
/// to verify, or else it may be a quirk of the chain.
async fn convict(suspect: &Endpoint, agreeing: &[(Endpoint, Header)], hash: B256, problem: String) {
    // One that is marked already is asked nothing more.
    if !suspect.health(|health| health.is_trusted()) {
        return;
    }
    for (other, _) in agreeing.iter().filter(|(other, _)| other.operator() != suspect.operator()) {
        if proof::is_belied(suspect, other, hash).await {
            return suspect.lied(problem);
        }
    }
    tracing::warn!(operator = suspect.operator(), "{problem}; that is not shown to be a lie");
}

/// What was untrue of a block's logs.
#[derive(Debug)]
struct Untruth {
    header: Header,
    /// Entries of its true logs.
    truth: Vec<B256>,
    what: String,
    /// Operator of the endpoint that served the truth.
    told_by: String,
}

async fn block_at(endpoint: &Endpoint, number: u64) -> Result<Block> {
    Ok(endpoint.block_there(number.into()).await?.block)
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
