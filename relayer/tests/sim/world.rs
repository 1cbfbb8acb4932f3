//! One run: a seed decides everything.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use alloy::{
    consensus::Transaction,
    primitives::{Address, B256},
};
use contracts::eip712::DepositKey;
use indexer::Turn;
use ledger::{point, read::Reader, workload::Record};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::{
    chain::{Block, Tx},
    faults::Mix,
    judge::{Books, Judge, WorkKey, unit},
    net::Net,
    opinion::{self, Said},
    process::{Clock, Process},
    setting::{self, Setting},
    trace::Trace,
    witness::Witness,
};

/// Turns after the faults within which everything payable has to be settled and final.
const LIVENESS_TURNS: u32 = 200;

/// Places of a turn, and of a single write, at which it may be cut.
const TURN_PLACES: u32 = 40;
pub(crate) const WRITE_PLACES: u32 = 3;
/// Places of what an operator does to repair something.
const OPERATOR_PLACES: u32 = 16;

/// Places that few runs of the indexer, of the relayer and of operators come to, at which some are cut on purpose.
const INDEXER_SELDOM: [&str; 1] = ["commit rollback"];
const RELAYER_SELDOM: [&str; 11] = [
    "commit outcome",
    "commit signature",
    "commit slot",
    "commit statement",
    "commit thaw-decisions",
    "commit tx-receipt",
    "file manifest",
    "file orders",
    "rpc eth_estimateGas",
    "rpc eth_getTransactionByHash",
    "rpc eth_sendRawTransaction",
];
const OPERATOR_SELDOM: [&str; 2] = ["commit adoption", "commit import"];

/// Bytes that must be free in memory for worlds to be kept there.
#[cfg(target_os = "linux")]
const ROOM: u64 = 1 << 28;

/// What is owed: by which organisation and to which address, base units, and for which work.
type Owed = ((usize, Address), i128, Vec<WorkKey>);

/// Work that its source has sent, or is about to send again because it got no answer.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    pub(crate) newest: Record,
    pub(crate) token: usize,
    /// Whether the last decision about it, of which the ledger tells, keeps it from being paid.
    pub(crate) is_held: bool,
    /// Whether the output digests of one of its records ever differed.
    pub(crate) has_differed: bool,
    /// What the operator ever decided about it, acknowledged or not.
    pub(crate) decided: BTreeSet<&'static str>,
}

impl Work {
    fn machine(&self) -> usize {
        let number = self.newest.item.machine.trim_start_matches("machine-");
        number.parse().expect("a number of a machine")
    }
}

/// What a relayer that holds everything back asks its operator for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Needs {
    /// Bringing statements back from manifests.
    pub(crate) manifests: bool,
    /// Explaining transactions of the sending account.
    pub(crate) sender: bool,
}

pub(crate) struct World {
    pub(crate) rng: ChaCha8Rng,
    /// Chance of its own for cuts of what operators do, so that everything else of a seed happens as it did without them.
    cuts: ChaCha8Rng,
    pub(crate) mix: Mix,
    pub(crate) net: Net,
    pub(crate) witness: Witness,
    pub(crate) process: Process,
    pub(crate) judge: Judge,
    pub(crate) clock: Clock,
    /// Deposits of each organisation, in the order in which they pay.
    pub(crate) deposits: [Vec<DepositKey>; 2],
    pub(crate) works: BTreeMap<WorkKey, Work>,
    /// Records without an answer; their source sends them again.
    pub(crate) unanswered: Vec<Record>,
    /// Every record that was ever sent, in order.
    pub(crate) sent: Vec<Record>,
    /// What the relayer has asked its operator for.
    pub(crate) needs: Needs,
    /// Records whose answer was that they are kept.
    pub(crate) kept: BTreeSet<(WorkKey, u32)>,
    /// Where each machine is paid.
    pub(crate) payees: BTreeMap<usize, Address>,
    /// Everything that was said to the relayer, for the second opinion.
    pub(crate) said: Said,
    fee_bps: u16,
    lag: u64,
    stalled_for: u32,
    pub(crate) censored_for: u32,
    spike: Option<(u64, u32)>,
    pub(crate) step: u64,
    /// Time by which the process measures pauses; it passes with the steps.
    time: Instant,
    last_finalised: u64,
    /// The highest that the chain ever was.
    highest: u64,
    _folder: TempDir,
}

/// A folder in memory, where there is room for what several worlds write: memory that is a folder may be as small as that of a
/// container.
fn folder() -> TempDir {
    #[cfg(target_os = "linux")]
    if let Ok(memory) = rustix::fs::statvfs("/dev/shm")
        && memory.f_bavail.saturating_mul(memory.f_frsize) >= ROOM
    {
        return tempfile::tempdir_in("/dev/shm").expect("a folder");
    }
    tempfile::tempdir().expect("a folder")
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let setting = Setting::get();
        let mix = Mix::draw(&mut rng);
        let folder = folder();
        let fee_bps = [0, 100, 137][rng.random_range(0..3)];
        let deposits = [0, 1].map(|organisation| {
            let count = if organisation == 0 { 2 } else { 1 };
            (0..count).map(|number| setting.deposit_key(organisation, number)).collect::<Vec<_>>()
        });
        let ids: Vec<Vec<B256>> =
            deposits.iter().map(|keys| keys.iter().map(DepositKey::id).collect()).collect();
        let mut config = setting.config(folder.path(), fee_bps, &ids);
        config.policy.bump_after_seconds = rng.random_range(20..120);
        let witness = Witness::new(config.path(&config.files.manifests));
        let nodes = if rng.random_bool(0.25) { 1 } else { 3 };
        let net = Net::new(setting.chain.clone(), mix.clone(), nodes, seed, witness.clone());
        let process = Process::new(config, net.clone(), witness.clone());
        let judge = Judge::new(fee_bps);
        Self {
            lag: [2, 4, 8, 20, 64][rng.random_range(0..5)],
            rng,
            cuts: ChaCha8Rng::seed_from_u64(seed ^ 0x6f70_6572_6174_6f72),
            mix,
            net,
            witness,
            process,
            judge,
            clock: Clock::default(),
            deposits,
            works: BTreeMap::new(),
            unanswered: Vec::new(),
            sent: Vec::new(),
            needs: Needs::default(),
            kept: BTreeSet::new(),
            payees: BTreeMap::new(),
            said: Said::default(),
            fee_bps,
            stalled_for: 0,
            censored_for: 0,
            spike: None,
            step: 0,
            time: Instant::now(),
            last_finalised: 0,
            highest: setting.chain.height(),
            _folder: folder,
        }
    }

    /// The fault phase, then the liveness phase. The verdict is in the trace.
    pub(crate) async fn run(&mut self, steps: u64) {
        self.net.outside().is_faulty = true;
        self.net.outside().trace.counts.seeds = 1;
        while self.step < steps && !self.is_over() {
            self.step += 1;
            self.net.outside().trace.counts.steps += 1;
            self.take_step().await;
            self.check().await;
        }
        if !self.is_over() {
            self.settle_down().await;
        }
        let books = self.judge.books();
        let counts = &mut self.net.outside().trace.counts;
        counts.statements = books.statements;
        counts.payouts = books.payouts;
        counts.claims = books.claims;
    }

    pub(crate) fn is_over(&self) -> bool {
        self.net.outside().trace.verdict.is_some()
    }

    pub(crate) fn fail(&self, why: String) {
        self.net.outside().trace.fail(why);
    }

    pub(crate) fn say(&self, line: String) {
        let line = format!("{:4} {line}", self.step);
        self.net.outside().trace.line(line);
    }

    pub(crate) fn mark(&self, name: &str) {
        self.net.outside().trace.mark(name);
    }

    /// Time passes for the process.
    fn pass_time(&mut self, time: Duration) {
        self.time += time;
        point::set_clock(Some(self.time));
    }

    async fn take_step(&mut self) {
        self.pass_time(Duration::from_millis(500));
        self.strike();
        match self.rng.random_range(0..100) {
            0..40 => self.mine_some(),
            40..56 => self.index().await,
            56..66 => self.relay().await,
            66..80 => self.take_in().await,
            _ => self.act().await,
        }
    }

    /// Faults of chain and host.
    fn strike(&mut self) {
        let mut strikes = |rate: u32| Mix::strikes(rate, &mut self.rng);
        let (reorg, stall, spike) =
            (strikes(self.mix.reorg), strikes(self.mix.stall), strikes(self.mix.spike));
        let (forgotten, censored) = (strikes(self.mix.forgotten), strikes(self.mix.censored));
        let (clock, dry) = (strikes(self.mix.clock), strikes(self.mix.dry));
        let (amnesia, foreign) = (strikes(self.mix.amnesia), strikes(self.mix.foreign));
        let all = [reorg, stall, spike, forgotten, censored, clock, dry, amnesia, foreign];
        let struck = all.iter().filter(|struck| **struck).count();
        self.net.outside().trace.counts.faults += struck as u64;
        if reorg {
            self.reorganise();
        }
        if stall {
            self.stalled_for = self.rng.random_range(3..30);
            self.mark("finality stood still");
        }
        if spike {
            self.spike = Some((self.rng.random_range(20..200), self.rng.random_range(1..12)));
            self.mark("gas became many times dearer");
        }
        if censored {
            self.censored_for = self.rng.random_range(2..15);
            self.mark("miners left our transactions out");
        }
        if forgotten {
            self.forget();
        }
        if clock {
            let jump = self.rng.random_range(-86_400_000..=86_400_000);
            self.clock.skew = jump;
            self.say(format!("the clock is {jump} ms off"));
            self.mark(if jump < 0 { "the clock went back" } else { "the clock jumped ahead" });
        }
        if dry {
            self.empty_sender();
        }
        if amnesia {
            self.lose_database();
        }
        if foreign {
            self.use_stolen_key();
        }
    }

    /// What was final to a database that is lost.
    pub(crate) const fn forget_finality(&mut self) {
        self.last_finalised = 0;
    }

    /// The pool forgets one of the waiting transactions.
    fn forget(&mut self) {
        let mut outside = self.net.outside();
        let places: Vec<_> = outside.chain.pool.keys().copied().collect();
        if places.is_empty() {
            return;
        }
        let place = places[self.rng.random_range(0..places.len())];
        outside.chain.pool.remove(&place);
        outside.trace.mark("the pool forgot a transaction");
        outside.trace.line(format!("the pool forgot {} of {}", place.1, place.0));
    }

    pub(crate) fn mine_some(&mut self) {
        let blocks = if self.rng.random_bool(0.15) { self.rng.random_range(2..7) } else { 1 };
        for _ in 0..blocks {
            // Most blocks come in their rhythm; some after a quiet hour.
            let pause = if self.rng.random_bool(0.02) { 3600 } else { 12 };
            self.arrive();
            self.mine(pause);
        }
        self.finalise();
        self.review();
    }

    /// Transactions that were on their way reach the pool.
    fn arrive(&mut self) {
        let mut outside = self.net.outside();
        for tx in std::mem::take(&mut outside.late) {
            if let Err(refusal) = outside.chain.submit(tx) {
                outside.trace.line(format!("late, and refused: {}", refusal.message()));
            }
        }
    }

    /// One block of what is ready.
    pub(crate) fn mine(&mut self, pause: u64) {
        self.pass_time(Duration::from_secs(pause));
        let sender = setting::sender().address();
        let is_censored = self.censored_for > 0;
        self.censored_for = self.censored_for.saturating_sub(1);
        let mut outside = self.net.outside();
        let mut base_fee = outside.chain.next_base_fee();
        if let Some((factor, left)) = &mut self.spike {
            base_fee = (1_000_000_000 * *factor).max(base_fee);
            *left -= 1;
            if *left == 0 {
                self.spike = None;
            }
        } else {
            // What a spike left behind would take hundreds of blocks to fall.
            base_fee = base_fee.min(2_000_000_000);
        }
        let is_left_out = |tx: &Tx| is_censored && tx.signer() == sender;
        let txs = outside.chain.ready(base_fee, &is_left_out);
        let time = outside.chain.head().header.timestamp + pause;
        let block = outside.chain.mine(&txs, time, base_fee);
        outside.trace.line(format!(
            "block {} {} with {} transactions, base fee {base_fee}",
            block.number(),
            block.hash,
            block.txs.len()
        ));
        drop(outside);
        self.highest = self.highest.max(block.number());
        self.notice(&block);
    }

    /// Marks of a mined block.
    fn notice(&self, block: &Block) {
        let sender = setting::sender().address();
        let mut outside = self.net.outside();
        for tx in block.txs.iter().filter(|tx| tx.signer() == sender) {
            let newest = outside.broadcast.iter().rev().find_map(|hash| {
                let sent = outside.chain.seen.get(hash)?;
                (sent.nonce() == tx.nonce()).then_some(*hash)
            });
            outside.trace.mark("ours was mined");
            if tx.to() == Some(sender) {
                outside.trace.mark("a cancellation was mined");
            }
            if newest.is_some_and(|newest| newest != *tx.tx_hash()) {
                outside.trace.mark("an older attempt was mined");
            }
        }
        for receipt in &block.receipts {
            let is_ours = receipt.from == sender;
            outside.trace.mark(match (receipt.status(), is_ours) {
                (true, true) => "a transaction of ours went through",
                (false, true) => "a transaction of ours failed",
                (true, false) => "a transaction of others went through",
                (false, false) => "a transaction of others failed",
            });
            for log in receipt.inner.logs() {
                notice_event(&mut outside.trace, log, is_ours);
            }
        }
    }

    /// Makes blocks final, unless finality stands still.
    fn finalise(&mut self) {
        if self.stalled_for > 0 {
            self.stalled_for -= 1;
            return;
        }
        let lag = self.lag;
        let chain = &mut self.net.outside().chain;
        let number = chain.height().saturating_sub(lag);
        chain.finalise(number);
    }

    pub(crate) fn review(&mut self) {
        let outside = &mut *self.net.outside();
        self.judge.review(&outside.chain, &self.witness, &mut outside.trace);
    }

    /// Replaces the newest blocks by others.
    fn reorganise(&mut self) {
        let room = {
            let chain = &self.net.outside().chain;
            // Several reorgs between two looks count as one, and the indexer stops where that one is deeper than 64 blocks.
            let followed = 64_u64.saturating_sub(self.highest - chain.height());
            followed.min(chain.height() - chain.finalised)
        };
        if room < 2 {
            return;
        }
        let deepest = if self.rng.random_bool(0.7) { room.min(6) } else { room };
        let depth = self.rng.random_range(1..deepest);
        let length = self.rng.random_range(0..=depth + 2);
        let (removed, before) = {
            let mut outside = self.net.outside();
            let before = self.judge.books().statements;
            outside.trace.counts.reorgs += 1;
            (outside.chain.roll_back(depth), before)
        };
        self.say(format!("reorg: {depth} blocks leave, {length} come"));
        self.mark(match depth {
            0..8 => "reorg of less than 8 blocks",
            8..32 => "reorg of 8 to 31 blocks",
            _ => "reorg of 32 to 64 blocks",
        });
        for tx in removed.iter().flat_map(|block| &block.txs) {
            self.rehome(tx);
        }
        let time = self.net.outside().chain.head().header.timestamp;
        // The other branch saw the same hours.
        let end = removed.last().map_or(time, |block| block.header.timestamp);
        for left in (1..=length).rev() {
            let now = self.net.outside().chain.head().header.timestamp;
            self.mine((end.saturating_sub(now) / left).max(1));
        }
        if length < depth {
            self.mark("a reorg left the chain shorter");
        }
        self.review();
        if self.judge.books().statements < before {
            self.mark("a reorg dropped a settled statement");
        } else if removed.iter().any(|block| block.logs().count() > 0) && length > 0 {
            self.mark("a reorg kept or moved what was settled");
        }
    }

    /// What becomes of a transaction whose block left the chain.
    fn rehome(&mut self, tx: &Tx) {
        let chance = self.rng.random_range(0..10);
        let mut outside = self.net.outside();
        let older = outside.chain.seen.values().find(|other| {
            other.signer() == tx.signer()
                && other.nonce() == tx.nonce()
                && other.tx_hash() != tx.tx_hash()
        });
        let older = older.cloned();
        match (chance, older) {
            (0..3, Some(older)) => {
                outside.chain.force(older);
                outside.trace.mark("a reorg brought another attempt back");
            }
            (3..5, _) => outside.trace.mark("a reorg lost a transaction"),
            _ => outside.chain.force(tx.clone()),
        }
    }

    /// One turn of the indexer, which may be cut.
    pub(crate) async fn index(&mut self) {
        if !self.is_up().await {
            return;
        }
        self.arm(TURN_PLACES);
        self.seek(&INDEXER_SELDOM, 0.1);
        let Some(running) = &mut self.process.running else { return };
        let turn = self.net.until_cut(running.indexer.turn()).await;
        self.net.cut_after(None);
        self.net.outside().trace.counts.indexer_turns += 1;
        if self.mix.lie > 0 && self.liars().await > 0 {
            self.mark("a liar was named");
        }
        match turn {
            Ok(Ok(turn)) => {
                self.say(format!("indexer: {turn:?}"));
                if matches!(turn, Turn::RolledBack(_)) {
                    self.mark("the indexer rolled back");
                }
            }
            Ok(Err(error)) if error.is_transient() => {
                self.say(format!("indexer: {}", indexer::chain_of(&error)));
                self.mark("an indexer turn met an error");
            }
            Ok(Err(error)) => self.fail(format!("the indexer ends: {}", indexer::chain_of(&error))),
            Err(place) => self.crash(&place),
        }
    }

    /// One turn of the relayer, which may be cut.
    pub(crate) async fn relay(&mut self) {
        if !self.is_up().await {
            return;
        }
        let push = self.rng.random_bool(0.4);
        self.relay_once(push).await;
    }

    async fn relay_once(&mut self, push: bool) -> Option<relayer::turn::Report> {
        // Signing and sending come late in a turn.
        let is_late = self.rng.random_bool(0.5);
        self.arm(if is_late { 4 * TURN_PLACES } else { TURN_PLACES });
        self.seek(&RELAYER_SELDOM, 0.2);
        let now = self.now();
        let running = self.process.running.as_ref()?;
        let turn = self.net.until_cut(running.relayer.turn(now, push)).await;
        self.net.cut_after(None);
        self.note_statements().await;
        self.net.outside().trace.counts.relayer_turns += 1;
        match turn {
            Ok(Ok(report)) => {
                self.say(format!("relayer: {report:?}"));
                self.note_report(&report);
                return Some(report);
            }
            Ok(Err(error)) if error.is_transient() => {
                self.say(format!("relayer: {}", indexer::chain_of(&error)));
                self.mark("a relayer turn met an error");
            }
            Ok(Err(error)) => self.fail(format!("the relayer ends: {}", indexer::chain_of(&error))),
            Err(place) => self.crash(&place),
        }
        None
    }

    fn note_report(&mut self, report: &relayer::turn::Report) {
        let is_said = |text: &str| report.waiting.iter().any(|reason| reason.contains(text));
        self.needs = Needs {
            manifests: is_said("is frozen: epoch"),
            sender: is_said("run quittance sender"),
        };
        let marks = [
            (report.accepted > 0, "unfunded work was accepted later"),
            (report.signed > 0, "a statement was signed"),
            (report.signed > 1, "two statements were signed in one turn"),
            (report.sent > 0, "a transaction was sent"),
            (report.in_flight > 0, "something was in flight"),
        ];
        for (_, mark) in marks.iter().filter(|(is_so, _)| *is_so) {
            self.mark(mark);
        }
        let reasons = [
            ("would be skipped", "a simulation took a statement out"),
            ("waits for gas below the cap", "a transaction waited at the fee cap"),
            ("wei and needs", "a batch waited for gas money"),
            ("would revert", "a batch would have reverted"),
            ("has not been seen on chain", "a deposit was not on chain"),
            (
                "until the operator's registration is final",
                "statements waited for the operator's number",
            ),
            ("waits for transactions before it", "a batch waited for room"),
            ("would compete with", "a manifest of another candidate stood in the way"),
            ("moved on", "a deposit moved on meanwhile"),
            ("is frozen: epoch", "an organisation was frozen"),
            ("this ledger does not know its transactions", "the sender met unknown transactions"),
            ("which this ledger did not sign", "the sender met a foreign transaction"),
            ("was imported, and waits", "imported statements waited for finality"),
        ];
        for reason in &report.waiting {
            for (text, mark) in reasons {
                if reason.contains(text) {
                    self.mark(mark);
                }
            }
        }
    }

    pub(crate) fn now(&self) -> i64 {
        let time = self.net.outside().chain.head().header.timestamp;
        self.clock.now(time)
    }

    /// Draws whether the next run is cut, and at which of so many places.
    pub(crate) fn arm(&mut self, most: u32) {
        let is_faulty = self.net.outside().is_faulty;
        let places = (is_faulty && Mix::strikes(self.mix.crash, &mut self.rng))
            .then(|| self.rng.random_range(0..most));
        self.net.cut_after(places);
    }

    /// Draws whether what an operator does to repair something is cut, if it is not to be cut anyway. That is rare, so that half of
    /// it is cut where anything is.
    pub(crate) fn arm_operator(&mut self) {
        let outside = self.net.outside();
        let may_be_cut = outside.is_faulty && !outside.will_be_cut() && self.mix.crash > 0;
        drop(outside);
        if may_be_cut && self.cuts.random_bool(0.5) {
            self.net.cut_after(Some(self.cuts.random_range(0..OPERATOR_PLACES)));
        }
        self.seek(&OPERATOR_SELDOM, 0.6);
    }

    /// Draws whether the next run is cut at one of some places that few come to, if it is not to be cut anyway.
    fn seek(&mut self, seldom: &[&str], chance: f64) {
        let outside = self.net.outside();
        let may_be_cut = outside.is_faulty && !outside.will_be_cut() && self.mix.crash > 0;
        drop(outside);
        if may_be_cut && self.cuts.random_bool(chance) {
            let place = seldom[self.cuts.random_range(0..seldom.len())];
            let side = ["before", "after"][self.cuts.random_range(0..2)];
            self.net.cut_at(format!("{side} {place}"));
        }
    }

    pub(crate) fn crash(&mut self, place: &str) {
        self.process.crash();
        self.say(format!("crash {place}"));
        let mut outside = self.net.outside();
        outside.trace.counts.crashes += 1;
        outside.trace.counts.faults += 1;
        outside.trace.mark(&format!("crash {place}"));
    }

    /// Starts the process if it is down.
    pub(crate) async fn is_up(&mut self) -> bool {
        if self.process.running.is_some() {
            return true;
        }
        let net = self.net.clone();
        match net.until_cut(self.process.start()).await {
            Ok(Ok(())) => {
                self.say("the process begins".into());
                self.check_kept().await;
                true
            }
            Ok(Err(error)) => {
                self.say(format!("the process cannot begin: {}", indexer::chain_of(&error)));
                self.mark("the process could not begin");
                false
            }
            Err(place) => {
                self.crash(&place);
                false
            }
        }
    }

    /// Notes for the second opinion when statements were stated.
    async fn note_statements(&mut self) {
        let query = "select hex(digest), '', id from statement where ours = 1 order by id";
        let digests = self.witness.rows(query).await.into_iter();
        self.said.state(digests.map(|(digest, _, _)| digest.parse().expect("a digest")));
    }

    /// Operators whose endpoints are known to have lied.
    async fn liars(&self) -> i64 {
        self.witness
            .number("select count(distinct operator) from endpoint_mark where is_lying = 1")
            .await
    }

    /// Every record whose answer was that it is kept is there.
    async fn check_kept(&self) {
        let query = "select i.source, i.external_id, w.revision from workload w join item i on i.id = w.item";
        let there: BTreeSet<_> = self.witness.rows(query).await.into_iter().collect();
        for ((source, id), revision) in &self.kept {
            let row = (source.clone(), id.clone(), i64::from(*revision));
            if !there.contains(&row) {
                self.fail(format!("{row:?} was acknowledged and is gone"));
            }
        }
    }

    /// What has to hold after every step.
    async fn check(&mut self) {
        if self.process.running.is_none() || self.is_over() {
            return;
        }
        let finalised = self.witness.number("select finalised from chain").await;
        let finalised = u64::try_from(finalised).unwrap_or_default();
        if finalised < self.last_finalised {
            self.fail(format!("finality went back from {} to {finalised}", self.last_finalised));
        }
        if finalised > self.net.outside().chain.finalised {
            self.fail(format!("block {finalised} counts as final and is not"));
        }
        self.last_finalised = finalised;
        // Invariants of a file to which nothing was written hold as they did.
        if self.witness.is_news().await {
            self.check_ledger().await;
        }
    }

    /// The ledger's own invariants.
    async fn check_ledger(&self) {
        let Some(running) = &self.process.running else { return };
        match ledger::invariants::violations(&running.ledger).await {
            Ok(violations) if violations.is_empty() => {}
            Ok(violations) => self.fail(format!("{violations:?}")),
            Err(error) => self.fail(format!("invariants: {}", indexer::chain_of(&error))),
        }
    }

    /// No faults any more: everything payable has to be settled and final within a bounded number of turns.
    async fn settle_down(&mut self) {
        self.say("the faults end".into());
        {
            let mut outside = self.net.outside();
            outside.is_faulty = false;
            for node in &mut outside.nodes {
                *node = Default::default();
            }
        }
        (self.mix, self.spike, self.censored_for, self.stalled_for) = (Mix::default(), None, 0, 0);
        self.clock.skew = 0;
        // Whoever operates it looks at the endpoints that it distrusts, and starts it again.
        self.process.crash();
        self.prepare_end().await;
        for turn in 0..LIVENESS_TURNS {
            if self.is_over() {
                return;
            }
            self.step += 1;
            self.net.outside().trace.counts.steps += 1;
            // As many as make what happens final in a few turns.
            for _ in 0..2 + self.lag / 4 {
                self.arrive();
                self.mine(12);
            }
            self.finalise();
            self.review();
            for _ in 0..2 {
                self.index().await;
            }
            let is_up = self.is_up().await;
            if is_up {
                self.relay_once(turn % 4 == 3).await;
            }
            self.repair().await;
            // What is not explained after a while has to be taken on the operator's word.
            if turn % 20 == 19 {
                self.adopt().await;
            }
            self.check().await;
            self.heed_decisions().await;
            if self.is_settled() {
                self.mark("everything payable was settled and final");
                break;
            }
            if turn + 1 == LIVENESS_TURNS {
                let owed = self.unsettled(&self.final_books());
                let kept = self.explain(&owed).await;
                self.fail(format!(
                    "after {LIVENESS_TURNS} turns without faults {} payouts are owed: {owed:?}\n{kept}",
                    owed.len()
                ));
            }
        }
        if !self.is_over() {
            self.reconcile().await;
        }
    }

    fn final_books(&self) -> std::sync::Arc<Books> {
        self.judge.books_at(self.net.outside().chain.finalised)
    }

    fn is_settled(&self) -> bool {
        self.unanswered.is_empty() && self.unsettled(&self.final_books()).is_empty()
    }

    /// What is owed and not paid, by organisation and payout address, with the work that it is owed for. What was paid too
    /// much nets within an organisation, held or not; what nets below one unit waits.
    fn unsettled(&self, books: &Books) -> Vec<Owed> {
        let mut nets: BTreeMap<(usize, Address), (i128, Vec<WorkKey>)> = BTreeMap::new();
        for (key, work) in &self.works {
            let Some(owed) = self.judge.owed.get(key) else { continue };
            let owed = owed.amounts.get(&work.newest.revision.revision).copied().unwrap_or(0);
            let paid = books.paid.get(key).copied().unwrap_or_default();
            let due = i128::try_from(owed).expect("an amount") - paid.sum;
            let payee = if due < 0 {
                books.providers.get(paid.provider as usize - 1).copied()
            } else {
                self.payees.get(&work.machine()).copied()
            };
            let is_open = due < 0 || due > 0 && !work.is_held;
            let (Some(payee), true) = (payee, is_open) else { continue };
            let (net, works) = nets.entry((work.token, payee)).or_default();
            *net += due;
            works.push(key.clone());
        }
        let unit = |token: usize| unit(Setting::get().tokens[token]);
        nets.into_iter()
            .filter(|((token, _), (net, _))| *net >= i128::try_from(unit(*token)).expect("a unit"))
            .map(|(of, (net, works))| (of, net, works))
            .collect()
    }

    /// What the ledger knows of work that is owed, for people.
    async fn explain(&self, owed: &[Owed]) -> String {
        let Some(running) = &self.process.running else { return "it is down".into() };
        let reader = Reader::new(running.ledger.clone());
        let mut text = String::new();
        for organisation in [0, 1].map(setting::organisation) {
            let Ok(Some(books)) = reader.books(organisation).await else { continue };
            for deposit in &books.deposits {
                text += &format!("  {}: {:?}\n", deposit.id, deposit.state);
            }
            let is_owed = |id: &str| {
                owed.iter().any(|(_, _, works)| works.iter().any(|(_, work)| work == id))
            };
            for item in books.open.iter().filter(|item| is_owed(&item.external_id)) {
                text += &format!("  {item:?}\n");
            }
        }
        text
    }

    /// Ledger and chain agree to the base unit.
    async fn reconcile(&mut self) {
        for _ in 0..3 {
            self.index().await;
        }
        self.check_ledger().await;
        let Some(running) = &self.process.running else { return self.fail("it is down".into()) };
        match ledger::invariants::deep_violations(&running.ledger).await {
            Ok(violations) if violations.is_empty() => {}
            other => return self.fail(format!("{other:?}")),
        }
        let provider = self.net.provider(0);
        match relayer::reconcile::reconcile(&self.process.config, &running.ledger, &provider).await
        {
            Ok(reconciliation) if reconciliation.differences.is_empty() => {
                self.mark("ledger and chain were reconciled");
                if self.liars().await > 0 {
                    self.mark("what a named liar had told was repaired");
                }
            }
            Ok(reconciliation) => return self.fail(reconciliation.text()),
            Err(error) => {
                return self.fail(format!("reconcile: {}", indexer::chain_of(&error)));
            }
        }
        self.ask_again().await;
    }

    /// The second opinion agrees to the base unit.
    async fn ask_again(&self) {
        let query = "select i.source, i.external_id, case d.verdict when 'pay' then 1 when 'release' then 2 else 0 end
             from decision d join item i on i.id = d.item order by d.id";
        let mut decisions = Vec::new();
        // What a lost database said before it was lost is told by its operator.
        for (key, _) in self.works.iter().filter(|(_, work)| work.decided.contains("pay")) {
            decisions.push(opinion::decision(key, "pay"));
        }
        for (source, id, verdict) in self.witness.rows(query).await {
            let verdict = ["hold", "pay", "release"][usize::try_from(verdict).expect("a code")];
            decisions.push(opinion::decision(&(source, id), verdict));
        }
        let deposits = self.deposits.iter().map(|keys| keys.iter().map(DepositKey::id).collect());
        let deposits: Vec<Vec<B256>> = deposits.collect();
        let (fee_bps, chain) = (self.fee_bps, self.net.outside().chain.clone());
        let asked = self.said.opinion(&chain, &self.witness, decisions, (fee_bps, &deposits));
        match asked.map(|opinion| opinion::differences(&opinion, &self.judge.books())) {
            Ok(differences) if differences.is_empty() => {
                self.mark("the second opinion agreed to the base unit");
            }
            Ok(differences) => self.fail(format!("second opinion: {}", differences.join("\n"))),
            Err(problem) => self.fail(format!("second opinion: {problem}")),
        }
    }
}

fn notice_event(trace: &mut Trace, log: &alloy::rpc::types::Log, is_ours: bool) {
    use alloy::sol_types::SolEventInterface;
    use contracts::Settlement::SettlementEvents;
    let Ok(event) = SettlementEvents::decode_log(&log.inner) else { return };
    if matches!(&event.data, SettlementEvents::Settled(settled) if settled.rows.is_empty()) {
        trace.mark("an empty statement retired an epoch");
    }
    trace.mark(match (event.data, is_ours) {
        (SettlementEvents::Settled(_), true) => "we settled a statement",
        (SettlementEvents::Settled(_), false) => "a stranger settled our statement",
        (SettlementEvents::Skipped(_), true) => "a statement of ours was skipped on chain",
        (SettlementEvents::Skipped(_), false) => "a stranger had a statement skipped",
        (SettlementEvents::Claimed(_), true) => "we pushed a credit",
        (SettlementEvents::Claimed(_), false) => "a stranger claimed for a provider",
        (SettlementEvents::Registered(_), true) => "we registered a provider",
        (SettlementEvents::Registered(_), false) => "a stranger registered an address",
        (SettlementEvents::Thawed(_), _) => "a deposit thawed",
        (SettlementEvents::Withdrawn(_), _) => "a requestor withdrew",
        (SettlementEvents::Deposited(_), _) => "a deposit was funded",
        (SettlementEvents::PayoutSet(_), _) => "a provider changed its payout address",
        (SettlementEvents::ClaimFailed(_), _) => "a claim failed",
        _ => "another event",
    });
}

pub(crate) fn address_of_machine(machine: usize) -> Address {
    // Some owners have two machines.
    setting::owner(machine * 2 / 3)
}
