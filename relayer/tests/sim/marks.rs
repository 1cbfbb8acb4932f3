//! Branches that two thousand runs have to reach. One that is not reached any more is one that is not tested any more.

use crate::trace::Marks;

/// Faults of the network and of its nodes.
const NETWORK: [&str; 20] = [
    "a request was lost",
    "an answer was lost",
    "a request met a rate limit",
    "an answer was garbled",
    "null hid what is there",
    "a node took the transaction and said no",
    "a node said yes and dropped the transaction",
    "a transaction arrived twice",
    "a transaction arrived late",
    "a node fell behind",
    "a node was on another fork",
    "a node named another chain",
    "a node left a log out",
    "a node told logs in another order",
    "a node altered a log",
    "a node lied about the journal",
    "an indexer turn met an error",
    "a relayer turn met an error",
    "a liar was named",
    "what a named liar had told was repaired",
];

/// Faults of chain, host and people.
const CHAIN: [&str; 22] = [
    "reorg of less than 8 blocks",
    "reorg of 8 to 31 blocks",
    "reorg of 32 to 64 blocks",
    "a reorg left the chain shorter",
    "a reorg dropped a settled statement",
    "a reorg kept or moved what was settled",
    "a reorg brought another attempt back",
    "a reorg lost a transaction",
    "the indexer rolled back",
    "finality stood still",
    "the pool forgot a transaction",
    "miners left our transactions out",
    "gas became many times dearer",
    "the clock went back",
    "the clock jumped ahead",
    "the sender ran dry",
    "the database was lost",
    "an older backup took the database's place",
    "a backup was taken",
    "the sender's key was stolen",
    "a stranger submitted our statements",
    "a stranger submitted a spoiled statement",
];

/// What the sender does, and what becomes of it.
const SENDER: [&str; 25] = [
    "a first attempt was sent",
    "a replacement was sent",
    "a cancellation was sent",
    "a cancellation was mined",
    "an older attempt was mined",
    "an older attempt was refused",
    "sent again what the pool knew",
    "sent again what was mined",
    "the pool refused for want of gas money",
    "a batch waited for gas money",
    "a transaction of ours failed",
    "a statement of ours was skipped on chain",
    "we settled a statement",
    "we pushed a credit",
    "we registered a provider",
    "a stranger settled our statement",
    "a stranger claimed for a provider",
    "a stranger registered an address",
    "a stranger registered a machine's address",
    "the sender met unknown transactions",
    "the sender met a foreign transaction",
    "transactions were recovered",
    "the operator adopted transactions",
    "a transaction was sent",
    "something was in flight",
];

/// What the ledger decides.
const LEDGER: [&str; 32] = [
    "a record was accepted",
    "a record was unaddressed",
    "a record was unfunded",
    "a record of released work was kept",
    "a record was a duplicate",
    "a record was a conflict",
    "a record was rejected",
    "unfunded work was accepted later",
    "a correction downwards after payment",
    "a correction downwards before payment",
    "a correction upwards after payment",
    "a correction upwards before payment",
    "mirrored work differed",
    "the operator decided",
    "work stayed held to the end",
    "held work was paid before a thaw ended",
    "held work was let go before a thaw ended",
    "a machine changed hands",
    "a deposit was funded",
    "a deposit thawed",
    "a requestor withdrew",
    "an empty statement retired an epoch",
    "two statements were signed in one turn",
    "a deposit was not on chain",
    "statements waited for the operator's number",
    "an organisation was frozen",
    "manifests were recovered",
    "imported statements waited for finality",
    "everything payable was settled and final",
    "ledger and chain were reconciled",
    "the second opinion agreed to the base unit",
    "a statement was signed",
];

/// Commits on either side of which a run has to end.
const COMMITS: [&str; 12] = [
    "accept-unfunded",
    "blocks",
    "closing",
    "comparison",
    "decision",
    "finality",
    "lease",
    "outcome",
    "payee",
    "slot",
    "take-in",
    "tx-receipt",
];

/// Requests on either side of which a run has to end.
const REQUESTS: [&str; 13] = [
    "eth_call",
    "eth_estimateGas",
    "eth_feeHistory",
    "eth_getBalance",
    "eth_getBlockByNumber",
    "eth_getBlockReceipts",
    "eth_getCode",
    "eth_getLogs",
    "eth_getProof",
    "eth_getStorageAt",
    "eth_getTransactionCount",
    "eth_getTransactionReceipt",
    "eth_sendRawTransaction",
];

/// Places that are rarer, with the side on which a run has to end.
const RARE: [&str; 6] = [
    "after commit import",
    "after commit rollback",
    "before commit statement",
    "after file orders",
    "before file manifest",
    "before rpc eth_getTransactionByHash",
];

/// What the fast tier's seeds reach by chance only, so that any change may take it from them: the deep tier has to reach it. Tests
/// of their own show what happens there: the sweep, and `relayer sender::work_whose_deposit_was_emptied_…`.
const BY_CHANCE: [&str; 2] =
    ["a transaction of ours failed", "an empty statement retired an epoch"];

/// Whether so many seeds have to reach a mark.
pub(crate) fn is_owed(mark: &str, by_seeds: u64) -> bool {
    by_seeds >= super::DEEP_SEEDS || by_seeds >= super::FAST_SEEDS && !BY_CHANCE.contains(&mark)
}

/// What should have been reached and was not.
pub(crate) fn missing(marks: &Marks) -> Vec<String> {
    let plain = [&NETWORK[..], &CHAIN, &SENDER, &LEDGER].concat();
    let commits = COMMITS.iter().map(|name| format!("commit {name}"));
    let requests = REQUESTS.iter().map(|name| format!("rpc {name}"));
    let crashes = commits
        .chain(requests)
        .flat_map(|place| ["before", "after"].map(|side| format!("crash {side} {place}")))
        .chain(RARE.iter().map(|place| format!("crash {place}")));
    plain
        .into_iter()
        .map(str::to_owned)
        .chain(crashes)
        .filter(|mark| !marks.contains_key(mark))
        .collect()
}
