//! The contract's running hash over its events, as `IJournal.sol` defines it.

use alloy::primitives::{B256, FixedBytes, LogData, keccak256};

/// Count and hash of all events so far. Starts at zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Journal {
    /// Number of events.
    pub count: u64,
    /// Upper 24 bytes of the running hash.
    pub hash: FixedBytes<24>,
}

impl Journal {
    /// The journal after one more event, given as its raw log.
    #[must_use]
    pub fn fold(self, log: &LogData) -> Self {
        self.fold_entry(entry(log))
    }

    /// The journal after one more event, given as its entry's hash.
    #[must_use]
    pub fn fold_entry(self, entry: B256) -> Self {
        let next = keccak256([self.word(), entry].concat());
        Self { count: self.count.wrapping_add(1), hash: FixedBytes::from_slice(&next[..24]) }
    }

    /// The storage word: hash in the upper 24 bytes, count in the lower 8.
    pub fn word(self) -> B256 {
        let mut word = [0; 32];
        word[..24].copy_from_slice(self.hash.as_slice());
        word[24..].copy_from_slice(&self.count.to_be_bytes());
        B256::new(word)
    }

    /// Reads a storage word.
    pub fn from_word(word: B256) -> Self {
        let (hash, count) = word.split_at(24);
        let count = count.iter().fold(0, |count, &byte| count << 8 | u64::from(byte));
        Self { count, hash: FixedBytes::from_slice(hash) }
    }
}

/// Hash of an event's entry: its topics and data, one after the other.
pub fn entry(log: &LogData) -> B256 {
    let mut entry: Vec<u8> = log.topics().iter().flatten().copied().collect();
    entry.extend_from_slice(&log.data);
    keccak256(entry)
}
