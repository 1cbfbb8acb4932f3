//! What a run leaves behind: a hash over everything that happened, the last lines of it, marks and counts.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::LazyLock,
};

/// `QUITTANCE_SIM_TRACE=1` prints every line.
static IS_LOUD: LazyLock<bool> =
    LazyLock::new(|| std::env::var_os("QUITTANCE_SIM_TRACE").is_some());

/// Lines that are kept for people.
const TAIL: usize = 80;

/// How often each mark was reached.
pub(crate) type Marks = BTreeMap<String, u64>;

/// Sums over one run or many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) seeds: u64,
    pub(crate) steps: u64,
    pub(crate) indexer_turns: u64,
    pub(crate) relayer_turns: u64,
    pub(crate) requests: u64,
    pub(crate) crashes: u64,
    pub(crate) reorgs: u64,
    pub(crate) faults: u64,
    pub(crate) statements: u64,
    pub(crate) payouts: u64,
    pub(crate) claims: u64,
}

impl Counts {
    pub(crate) const fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.steps += other.steps;
        self.indexer_turns += other.indexer_turns;
        self.relayer_turns += other.relayer_turns;
        self.requests += other.requests;
        self.crashes += other.crashes;
        self.reorgs += other.reorgs;
        self.faults += other.faults;
        self.statements += other.statements;
        self.payouts += other.payouts;
        self.claims += other.claims;
    }
}

#[derive(Debug, Default)]
pub(crate) struct Trace {
    hasher: DefaultHasher,
    tail: VecDeque<String>,
    pub(crate) marks: Marks,
    pub(crate) counts: Counts,
    /// Set once something is wrong; the first finding counts.
    pub(crate) verdict: Option<String>,
}

impl Trace {
    pub(crate) fn line(&mut self, line: String) {
        line.hash(&mut self.hasher);
        if *IS_LOUD {
            eprintln!("{line}");
        }
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    /// Prints more where every line is printed; the hash is not of it.
    pub(crate) fn detail(&self, text: impl FnOnce() -> String) {
        if *IS_LOUD {
            let text = text();
            eprintln!("{}", text.get(..400).unwrap_or(&text));
        }
    }

    pub(crate) fn mark(&mut self, name: &str) {
        match self.marks.get_mut(name) {
            Some(count) => *count += 1,
            None => drop(self.marks.insert(name.to_owned(), 1)),
        }
    }

    pub(crate) fn fail(&mut self, why: String) {
        self.line(format!("FAILED: {why}"));
        self.verdict.get_or_insert(why);
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hasher.finish()
    }

    pub(crate) fn tail(&self) -> String {
        self.tail.iter().map(|line| format!("    {line}\n")).collect()
    }
}
