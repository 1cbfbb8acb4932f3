//! Logs folded into journals, and what is untrue of them where they do not fold to the contract's own.

use std::collections::BTreeMap;

use alloy::{
    primitives::{B256, keccak256},
    rpc::types::Log,
};
use contracts::journal::{self, Journal};
use ledger::completeness::BlockJournal;

/// Journals of a stretch of blocks, folded from the logs that an endpoint served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct History {
    /// The journal before the stretch.
    pub(crate) base: Journal,
    /// Blocks of it, ascending; those without logs may be missing.
    pub(crate) blocks: Vec<BlockJournal>,
}

impl History {
    pub(crate) const fn after(base: Journal) -> Self {
        Self { base, blocks: Vec::new() }
    }

    /// The journal after the last block.
    pub(crate) fn last(&self) -> Journal {
        self.blocks.last().map_or(self.base, |block| block.journal)
    }

    /// Adds a block's logs.
    pub(crate) fn push(&mut self, block: u64, logs: &[Log], source: &str) {
        let entries = entries(logs);
        let journal = fold(self.last(), &entries);
        self.blocks.push(BlockJournal { block, journal, entries, source: source.to_owned() });
    }

    /// The journal after a block.
    pub(crate) fn at(&self, number: u64) -> Journal {
        let before = self.blocks.partition_point(|block| block.block <= number);
        before.checked_sub(1).map_or(self.base, |last| self.blocks[last].journal)
    }

    /// What was served of a block, if it is in here.
    pub(crate) fn of(&self, number: u64) -> Option<&BlockJournal> {
        self.blocks.iter().find(|block| block.block == number)
    }
}

/// Hashes of the logs' entries.
pub(crate) fn entries(logs: &[Log]) -> Vec<B256> {
    logs.iter().map(|log| journal::entry(&log.inner.data)).collect()
}

/// A hash of everything that is kept of logs.
pub(crate) fn digest(logs: &[Log]) -> B256 {
    let mut bytes = Vec::new();
    for log in logs {
        bytes.extend(journal::entry(&log.inner.data));
        bytes.extend(log.block_number.unwrap_or_default().to_be_bytes());
        bytes.extend(log.transaction_hash.unwrap_or_default());
        bytes.extend(log.log_index.unwrap_or_default().to_be_bytes());
    }
    keccak256(bytes)
}

/// The journal after some more entries.
pub(crate) fn fold(journal: Journal, entries: &[B256]) -> Journal {
    entries.iter().fold(journal, |journal, entry| journal.fold_entry(*entry))
}

/// What is untrue of a block's logs, told by the true ones.
pub(crate) fn untruth(served: &[B256], truth: &[B256]) -> String {
    let mut surplus: BTreeMap<B256, i64> = BTreeMap::new();
    for entry in served {
        *surplus.entry(*entry).or_default() += 1;
    }
    for entry in truth {
        *surplus.entry(*entry).or_default() -= 1;
    }
    let count = |wanted: fn(i64) -> bool| {
        let counts = surplus.values().filter(|count| wanted(**count));
        counts.map(|count| count.unsigned_abs()).sum::<u64>()
    };
    let (invented, missing) = (count(|count| count > 0), count(|count| count < 0));
    match (missing, invented) {
        (0, 0) if served == truth => "nothing".into(),
        (0, 0) => "logs reordered".into(),
        (missing, 0) if served.is_empty() => format!("all logs omitted ({missing})"),
        (missing, 0) => format!("{missing} of {} logs omitted", truth.len()),
        (0, invented) => format!("{invented} logs invented"),
        (missing, invented) if missing == invented && served.len() == truth.len() => {
            format!("{missing} logs altered")
        }
        (missing, invented) => format!("{missing} logs omitted and {invented} invented"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &str) -> Vec<B256> {
        text.bytes().map(B256::repeat_byte).collect()
    }

    #[test]
    fn an_untruth_is_named_for_what_it_is() {
        for (served, truth, name) in [
            ("ab", "abc", "1 of 3 logs omitted"),
            ("", "abc", "all logs omitted (3)"),
            ("abxc", "abc", "1 logs invented"),
            ("aab", "ab", "1 logs invented"),
            ("acb", "abc", "logs reordered"),
            ("axc", "abc", "1 logs altered"),
            ("x", "abc", "3 logs omitted and 1 invented"),
            ("abc", "abc", "nothing"),
        ] {
            assert_eq!(untruth(&entries(served), &entries(truth)), name, "{served} for {truth}");
        }
    }

    #[test]
    fn a_history_knows_the_journal_after_every_block() {
        let base = fold(Journal::default(), &entries("q"));
        let first = fold(base, &entries("ab"));
        let mut history = History::after(base);
        history.blocks.push(BlockJournal {
            block: 7,
            journal: first,
            entries: entries("ab"),
            source: "x".into(),
        });
        assert_eq!((history.at(6), history.at(7), history.at(9)), (base, first, first));
        assert_eq!(history.last(), first);
        assert_ne!(first, fold(base, &entries("ba")), "the order counts");
    }
}
