//! Sending transactions: one tx nonce slot per obligation, until something finally consumes it.
//!
//! Whether an obligation is fulfilled is told by facts alone. The sender only keeps tx nonces moving: [`plan`] decides,
//! this module reads what it decides by and carries it out. Bytes are on disk before they leave. What consumed a slot is
//! read from final blocks ([`outcome`]); until then it is unknown, and what the slot carries stays busy.

pub mod fees;
pub mod outcome;
pub mod plan;

use std::{collections::BTreeMap, sync::Mutex};

use alloy::{
    consensus::{SignableTransaction, Transaction, TxEip1559, TxEnvelope},
    eips::{
        BlockId, BlockNumberOrTag,
        eip2718::{Decodable2718, Encodable2718},
    },
    primitives::{Address, B256, Bytes, TxKind, U256, keccak256},
    providers::{DynProvider, Provider},
    rpc::types::TransactionRequest,
    transports::{RpcError, TransportErrorKind},
};
use indexer::{asks_for_patience, is_known, is_refusal, without_url};
use ledger::{
    Millis,
    book::{BookWriter, Lease, Obligation},
    read::{Anchors, Attempt, AttemptKind, Reader, Slot},
};
use tokio::sync::OnceCell;

use self::{
    fees::{Fees, Prices, Urgency},
    plan::{Action, Bound, Counts, Limits, Pending, Plan, Refusal, View, Wait, plan},
};
use crate::{Error, Result, keys::TxKey};

/// Gas of one transaction is limited by EIP-7825.
pub(crate) const MAX_GAS: u64 = 16_777_216;
/// Gas of a transaction that does nothing.
const CANCEL_GAS: u64 = 21_000;
/// Blocks whose tips are looked at.
const HISTORY: u64 = 10;
/// How the code of an account begins that is an EIP-7702 delegation.
const DELEGATION: [u8; 3] = [0xef, 0x01, 0x00];

/// The sending account.
#[derive(Debug)]
pub struct Sender {
    provider: DynProvider,
    key: TxKey,
    chain_id: u64,
    contract: Address,
    limits: Limits,
    reader: Reader,
    book: BookWriter,
    lease: OnceCell<Lease>,
    /// Newest attempts that the pool refused, and why, by slot.
    refused: Mutex<BTreeMap<i64, (B256, Refusal)>>,
    /// Since when the lowest slot's newest attempt is declined though it pays what gas costs.
    declined: Mutex<Option<(B256, Millis)>>,
}

/// What a sender knows and has decided in a turn.
#[derive(Debug)]
pub struct Standing {
    /// Consumed tx nonces.
    pub counts: Counts,
    /// What gas costs.
    pub prices: Prices,
    /// The account's balance, wei.
    pub balance: U256,
    /// Slots of which it is not known what finally consumed their tx nonce, ascending.
    pub slots: Vec<Slot>,
    /// What is done.
    pub plan: Plan,
}

/// What came of carrying out a plan.
#[derive(Debug, Default)]
pub struct Acted {
    /// Slots of which a replacement was stored, by row id.
    pub replaced: Vec<i64>,
    /// Why the signer failed, if it did.
    pub failed: Option<String>,
}

impl Standing {
    /// What a transaction carries that is cancelled because no node takes it, and what they say, once the cancellation is
    /// stored.
    pub fn given_up(&self, acted: &Acted) -> Option<(&Obligation, &str)> {
        let (id, reason) = self.plan.given_up.as_ref()?;
        let slot = self.slots.iter().find(|slot| slot.id == *id && acted.replaced.contains(id))?;
        Some((&slot.obligation, reason))
    }
}

/// What a slot is opened with: what its transaction carries and may cost.
#[derive(Debug)]
pub struct Opening<'a> {
    /// Whether it carries the obligation or nothing.
    pub kind: AttemptKind,
    /// The obligation.
    pub obligation: &'a Obligation,
    /// Calldata for the contract.
    pub input: Bytes,
    /// Gas limit.
    pub gas_limit: u64,
    /// What bounds its fees.
    pub bound: Bound,
}

impl Sender {
    /// A sender for the ledger's contract.
    pub fn new(
        provider: DynProvider,
        key: TxKey,
        limits: Limits,
        reader: Reader,
        book: BookWriter,
    ) -> Self {
        let identity = *reader.ledger().identity();
        let (chain_id, contract) = (identity.chain_id, identity.contract);
        let (lease, refused, declined) = (OnceCell::new(), Mutex::default(), Mutex::default());
        Self { provider, key, chain_id, contract, limits, reader, book, lease, refused, declined }
    }

    /// The account's address.
    pub const fn address(&self) -> Address {
        self.key.address()
    }

    /// What bounds the sender.
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// Reads what else the sender decides by besides counts and open slots, as of a block, and decides. `bounds` tells what the
    /// fees of slots are bounded by, by row id, and those of a transaction that found no room.
    pub async fn stand(
        &self,
        (counts, slots): (Counts, Vec<Slot>),
        (now, at): (Millis, BlockId),
        prices: Prices,
        (bounds, roomless): (&BTreeMap<i64, Bound>, Option<Bound>),
    ) -> Result<Standing> {
        let mut pending = Vec::new();
        let lowest = slots.iter().find(|slot| slot.tx_nonce >= counts.latest).map(|slot| slot.id);
        for slot in slots.iter().filter(|slot| slot.tx_nonce >= counts.latest) {
            let newest = slot.attempts.last();
            let gas = newest.map_or(0, |newest| newest.gas_limit);
            let usual = Bound::at_price(self.limits.cap, gas, Urgency::Normal);
            // What does nothing is not judged by what it was to carry, which may be worth nothing any more.
            let is_work = newest.is_some_and(|newest| newest.kind == AttemptKind::Work);
            let bound = bounds.get(&slot.id).filter(|_| is_work).copied().unwrap_or(usual);
            pending.push(self.pending(slot, bound, now, lowest == Some(slot.id)).await?);
        }
        self.note_declined(pending.first_mut(), prices, now);
        let balance = self.provider.get_balance(self.address()).block_id(at);
        let balance = balance.await.map_err(Error::endpoint("eth_getBalance"))?;
        // What was mined since the block of the balance has not been taken from it.
        let mined =
            slots.iter().filter(|slot| (counts.indexed..counts.latest).contains(&slot.tx_nonce));
        let is_unexplained = |slot: &&Slot| slot.tx_nonce < counts.finalised;
        let view = View {
            now,
            counts,
            memory: self.reader.memory(self.address()).await?,
            pending,
            roomless,
            unexplained: slots.iter().filter(is_unexplained).map(|slot| slot.tx_nonce).collect(),
            prices,
            balance: balance.saturating_sub(cost_of(mined)),
            is_delegated: self.is_delegated(at).await?,
            limits: self.limits,
        };
        Ok(Standing { counts, prices, balance, slots, plan: plan(&view) })
    }

    /// Carries out what was decided about open slots. A slot for which the signer fails keeps the attempts that it has, which
    /// are sent again.
    pub async fn act(&self, standing: &Standing, now: Millis) -> Result<Acted> {
        let mut acted = Acted::default();
        for action in &standing.plan.actions {
            let (Action::Rebroadcast(id) | Action::Bump(id, _) | Action::Cancel(id, _)) = *action;
            let Some(slot) = standing.slots.iter().find(|slot| slot.id == id) else { continue };
            let Some(newest) = slot.attempts.last() else { continue };
            let attempt = match *action {
                Action::Rebroadcast(_) => {
                    self.rebroadcast(slot).await;
                    continue;
                }
                Action::Bump(_, fees) => {
                    let (to, input) = content_of(newest)?;
                    self.sign(slot.tx_nonce, (newest.kind, to, input), newest.gas_limit, fees, now)
                        .await
                }
                Action::Cancel(_, fees) => {
                    self.sign(slot.tx_nonce, self.nothing(), CANCEL_GAS, fees, now).await
                }
            };
            let attempt = match attempt {
                Ok(attempt) => attempt,
                Err(error @ Error::Signer(_)) => {
                    self.rebroadcast(slot).await;
                    acted.failed = Some(error.to_string());
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.book.add_attempt(self.lease().await?, slot.id, &attempt).await?;
            tracing::info!(
                old = %newest.hash, new = %attempt.hash, max_fee = attempt.max_fee, tip = attempt.tip,
                kind = attempt.kind.name(), "replaced a transaction"
            );
            acted.replaced.push(slot.id);
            self.broadcast(slot.id, &attempt, true).await;
        }
        Ok(acted)
    }

    /// Sends all attempts of a slot again: the pool may take an older one that the balance still covers. Where it has one, it
    /// does not matter that it refuses the newest, but as underpriced.
    async fn rebroadcast(&self, slot: &Slot) {
        let newest = slot.attempts.last();
        let mut is_held = false;
        for attempt in slot.attempts.iter().rev() {
            let answer = self.broadcast(slot.id, attempt, Some(attempt) == newest).await;
            is_held |= answer == Answer::Taken;
        }
        if is_held && let Ok(mut refused) = self.refused.lock() {
            refused
                .retain(|id, (_, refusal)| *id != slot.id || refusal.answer == Answer::Underpriced);
        }
    }

    /// Opens a slot for an obligation and sends its first attempt. The bytes are on disk before they leave. Returns why it
    /// waits if it does.
    pub async fn open(
        &self,
        standing: &Standing,
        opening: Opening<'_>,
        now: Millis,
    ) -> Result<Option<String>> {
        let slots = self.reader.open_slots(self.address()).await?;
        let pending = slots.iter().filter(|slot| slot.tx_nonce >= standing.counts.latest);
        let opened = pending.filter(|slot| !standing.slots.iter().any(|old| old.id == slot.id));
        if opened.count() >= standing.plan.room {
            return Ok(Some("it waits for transactions before it".into()));
        }
        let fees =
            standing.prices.fees(opening.bound.urgency, opening.bound.cap().min(self.limits.cap));
        // What was mined since the block of the balance has not been taken from it.
        let unpaid = slots.iter().filter(|slot| slot.tx_nonce >= standing.counts.indexed);
        let needed = cost_of(unpaid).saturating_add(cost(opening.gas_limit, fees.max_fee));
        if standing.balance < needed {
            let wait = Wait::Balance { balance: standing.balance, needed };
            return Ok(Some(wait.text(self.address())));
        }
        let tx_nonce = plan::next_nonce(standing.counts.latest, &slots);
        let content = match opening.kind {
            AttemptKind::Work => (AttemptKind::Work, TxKind::Call(self.contract), opening.input),
            AttemptKind::Cancel => self.nothing(),
        };
        let attempt = match self.sign(tx_nonce, content, opening.gas_limit, fees, now).await {
            Ok(attempt) => attempt,
            Err(error @ Error::Signer(_)) => return Ok(Some(error.to_string())),
            Err(error) => return Err(error),
        };
        let place = (self.address(), tx_nonce);
        let opened = self.book.open_slot(self.lease().await?, place, opening.obligation, &attempt);
        let slot = match opened.await {
            Ok(slot) => slot,
            Err(error @ ledger::Error::Busy { .. }) => return Ok(Some(error.to_string())),
            Err(error) => return Err(error.into()),
        };
        self.broadcast(slot, &attempt, true).await;
        Ok(None)
    }

    /// Fills the gap before the open slots, if this turn has opened nothing for it, by a slot that carries nothing: what stands
    /// behind it could not be mined, and all that is due may stand there. Returns why it waits if it does.
    pub async fn fill_gap(&self, standing: &Standing, now: Millis) -> Result<Option<String>> {
        let gap = standing.plan.waiting.iter().find_map(|wait| match wait {
            Wait::Gap(tx_nonce) => Some(*tx_nonce),
            _ => None,
        });
        let Some(tx_nonce) = gap else { return Ok(None) };
        if self.reader.has_slot(self.address(), tx_nonce).await? {
            return Ok(None);
        }
        let (kind, obligation) = (AttemptKind::Cancel, &Obligation::Settle(Vec::new()));
        let bound = Bound::at_price(self.limits.cap, CANCEL_GAS, Urgency::Normal);
        let (input, gas_limit) = (Bytes::new(), CANCEL_GAS);
        self.open(standing, Opening { kind, obligation, input, gas_limit, bound }, now).await
    }

    /// What an attempt does that only consumes its tx nonce.
    const fn nothing(&self) -> (AttemptKind, TxKind, Bytes) {
        (AttemptKind::Cancel, TxKind::Call(self.address()), Bytes::new())
    }

    /// What gas costs: the next base fee from the newest header, tips from the last blocks. Where the node does not serve their
    /// history, or none had tips, it is asked for its advice; where most had none, that is a limit, since no others compete.
    /// With the newest block's time, ms.
    pub async fn prices(&self) -> Result<(Prices, Millis)> {
        let block = self
            .provider
            .get_block_by_number(BlockNumberOrTag::Latest)
            .await
            .map_err(Error::endpoint("eth_getBlockByNumber"))?;
        let header =
            block.ok_or_else(|| Error::endpoint("eth_getBlockByNumber")(RpcError::NullResp))?;
        let header = header.header.inner;
        let time = Millis::try_from(header.timestamp.saturating_mul(1000)).unwrap_or(Millis::MAX);
        let base = u128::from(header.base_fee_per_gas.unwrap_or_default());
        let base = fees::next_base_fee(base, header.gas_used, header.gas_limit);
        let rewards = self.rewards().await?;
        let tips = fees::tips(&rewards);
        if let Some(tips) = tips.filter(|_| !fees::is_quiet(&rewards)) {
            return Ok((Prices { base, tips }, time));
        }
        let prices = match (tips, self.provider.get_max_priority_fee_per_gas().await) {
            (None, Ok(advice)) => Prices::flat(base, advice),
            (Some(tips), Ok(advice)) if advice > 0 => {
                Prices { base, tips: tips.map(|tip| tip.min(advice)) }
            }
            (Some(tips), _) => Prices { base, tips },
            (None, Err(error)) => return Err(Error::endpoint("eth_maxPriorityFeePerGas")(error)),
        };
        Ok((prices, time))
    }

    /// What was tipped in the last blocks, by percentile; nothing where the node does not serve their history.
    async fn rewards(&self) -> Result<Vec<Vec<u128>>> {
        let history = self
            .provider
            .get_fee_history(HISTORY, BlockNumberOrTag::Latest, &fees::PERCENTILES)
            .await;
        match history {
            Ok(history) => Ok(history.reward.unwrap_or_default()),
            Err(error) if error.is_error_resp() => Ok(Vec::new()),
            Err(error) => Err(Error::endpoint("eth_feeHistory")(error)),
        }
    }

    /// Gas that a call of the contract needs at a block, with a fifth to spare, or why it would fail.
    pub async fn gas_limit(
        &self,
        input: &Bytes,
        at: BlockId,
    ) -> Result<std::result::Result<u64, String>> {
        let request = TransactionRequest::default()
            .from(self.address())
            .to(self.contract)
            .input(input.clone().into());
        match self.provider.estimate_gas(request).block(at).await {
            Ok(gas) if gas > MAX_GAS => {
                Ok(Err(format!("it needs {gas} gas, a transaction has {MAX_GAS}")))
            }
            Ok(gas) => Ok(Ok(gas.saturating_add(gas / 5).min(MAX_GAS))),
            Err(error) => match refusal(&error) {
                Some(reason) => Ok(Err(reason)),
                None => Err(Error::endpoint("eth_estimateGas")(error)),
            },
        }
    }

    /// Consumed tx nonces, at the blocks that the ledger knows and at the newest one.
    pub(crate) async fn counts(&self, anchors: &Anchors) -> Result<Counts> {
        let count = |block: BlockId| {
            let call = self.provider.get_transaction_count(self.address()).block_id(block);
            async move { call.await.map_err(Error::endpoint("eth_getTransactionCount")) }
        };
        let finalised = match anchors.finalised {
            Some(block) => count(block.hash.into()).await?,
            None => 0,
        };
        let indexed = count(anchors.checkpoint.hash.into()).await?;
        let latest = count(BlockId::latest()).await?;
        Ok(Counts { finalised, indexed, latest })
    }

    /// What is known of a slot that is not consumed. Whether its content could still have an effect is asked only where
    /// something would be done about it.
    async fn pending(
        &self,
        slot: &Slot,
        bound: Bound,
        now: Millis,
        is_lowest: bool,
    ) -> Result<Pending> {
        let newest = slot.attempts.last();
        let is_known = match newest {
            Some(newest) => self.is_known(newest.hash).await?,
            None => false,
        };
        let age = newest.map(|newest| now.saturating_sub(newest.at).saturating_abs());
        let is_old = age.is_some_and(|age| age >= self.limits.bump_after_ms);
        let is_void =
            is_lowest && (is_old || !is_known) && self.reader.is_void(&slot.obligation).await?;
        let refusal = newest.and_then(|newest| self.refusal_of(slot.id, newest.hash));
        let declined_for = 0;
        Ok(Pending { slot: slot.clone(), is_known, is_void, refusal, declined_for, bound })
    }

    /// Tells for how long the lowest has been declined though it pays what gas costs.
    fn note_declined(&self, lowest: Option<&mut Pending>, prices: Prices, now: Millis) {
        let Ok(mut declined) = self.declined.lock() else { return };
        let before = declined.take();
        let Some(lowest) = lowest else { return };
        *declined = lowest.declined_since(before, prices, now);
        lowest.declined_for = declined.map_or(0, |(_, since)| now.saturating_sub(since));
    }

    /// Why the pool refused an attempt when it was sent last.
    fn refusal_of(&self, slot: i64, attempt: B256) -> Option<Refusal> {
        let refused = self.refused.lock().ok()?;
        let (hash, refusal) = refused.get(&slot)?;
        (*hash == attempt).then(|| refusal.clone())
    }

    async fn is_known(&self, hash: B256) -> Result<bool> {
        let found = self
            .provider
            .get_transaction_by_hash(hash)
            .await
            .map_err(Error::endpoint("eth_getTransactionByHash"))?;
        Ok(found.is_some())
    }

    async fn is_delegated(&self, at: BlockId) -> Result<bool> {
        let code = self.provider.get_code_at(self.address()).block_id(at);
        Ok(code.await.map_err(Error::endpoint("eth_getCode"))?.starts_with(&DELEGATION))
    }

    async fn lease(&self) -> Result<Lease> {
        let lease = self.lease.get_or_try_init(|| self.book.take_lease()).await?;
        Ok(*lease)
    }

    /// Takes the lease on sending, if this process has not taken it yet.
    pub async fn take_lease(&self) -> Result<()> {
        self.lease().await.map(drop)
    }

    /// Sends signed bytes. No answer is taken for a failure of the obligation: the chain decides. Why the pool refuses the
    /// newest attempt is remembered: by that it is replaced.
    async fn broadcast(&self, slot: i64, attempt: &Attempt, is_newest: bool) -> Answer {
        let (answer, reason) = match self.provider.send_raw_transaction(&attempt.raw).await {
            Ok(_) => (Answer::Taken, String::new()),
            Err(error) => {
                let (answer, reason) = (Answer::of(&error), reason_of(error));
                tracing::debug!(hash = %attempt.hash, ?answer, "broadcast: {reason}");
                (answer, reason)
            }
        };
        if let (true, Ok(mut refused)) = (is_newest, self.refused.lock()) {
            match answer {
                Answer::Underpriced
                | Answer::LowTip
                | Answer::NoFunds
                | Answer::Declined
                | Answer::Refused => {
                    refused.insert(slot, (attempt.hash, Refusal { answer, reason }));
                }
                Answer::Taken | Answer::TxNonceTooLow => drop(refused.remove(&slot)),
                Answer::Unknown => {}
            }
        }
        answer
    }

    async fn sign(
        &self,
        nonce: u64,
        (kind, to, input): (AttemptKind, TxKind, Bytes),
        gas_limit: u64,
        fees: Fees,
        at: Millis,
    ) -> Result<Attempt> {
        let tx = TxEip1559 {
            chain_id: self.chain_id,
            nonce,
            gas_limit,
            max_fee_per_gas: fees.max_fee,
            max_priority_fee_per_gas: fees.tip,
            to,
            input,
            ..Default::default()
        };
        let signature = self.key.sign(tx.signature_hash()).await?;
        let raw = tx.into_signed(signature).encoded_2718();
        let hash = keccak256(&raw);
        let (max_fee, tip) = (fees.max_fee, fees.tip);
        Ok(Attempt { id: 0, kind, hash, raw, max_fee, tip, gas_limit, at })
    }
}

/// What a node says to a transaction that is sent to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It has it, now or before.
    Taken,
    /// Something consumed the tx nonce; the chain tells what.
    TxNonceTooLow,
    /// The pool has another of the same tx nonce that this one does not outbid.
    Underpriced,
    /// The pool asks for a higher tip, and has nothing of the same tx nonce that would have to be outbid.
    LowTip,
    /// The balance does not cover it.
    NoFunds,
    /// The node does not take it at present: it pays too little, or a reason that is not known here.
    Declined,
    /// The node does not take it by a limit of its own, which no fee and no time changes.
    Refused,
    /// Nothing, or nothing about the transaction: the node may have it or not.
    Unknown,
}

/// Limits of geth, its descendants, Nethermind, Besu and Reth that a transaction does not come to be within.
const LIMITS: [&str; 11] = [
    "exceeds the configured cap",
    "fee cap exceeded",
    "gaslimitexceeded",
    "maxtxsizeexceeded",
    "exceeds block gas limit",
    "exceeds maximum gas limit",
    "gas limit too high",
    "gas limit is too high",
    "oversized data",
    "intrinsic gas",
    "type not supported",
];

/// JSON-RPC 2.0: an error inside the server.
const INTERNAL_ERROR: i64 = -32603;

impl Answer {
    /// Reads a failed broadcast. Nodes agree on no codes, hence the words.
    pub fn of(error: &RpcError<TransportErrorKind>) -> Self {
        let Some(answer) = error.as_error_resp() else { return Self::Unknown };
        let text = answer.message.to_lowercase();
        let says = |words: &[&str]| words.iter().any(|words| text.contains(words));
        if is_known(answer) {
            Self::Taken
        } else if says(&["nonce too low", "nonce is too low", "old nonce"]) {
            Self::TxNonceTooLow
        } else if says(&LIMITS) {
            // Some say what they need in the words that others use of tips.
            Self::Refused
        } else if says(&["replacement", "too low to replace"]) {
            Self::Underpriced
        } else if says(&["underpriced", "gas tip cap", "tip needed"]) {
            Self::LowTip
        } else if says(&["insufficient funds", "insufficient balance"]) {
            Self::NoFunds
        } else if asks_for_patience(answer)
            || answer.code == INTERNAL_ERROR
            || says(&["internal error"])
        {
            Self::Unknown
        } else {
            Self::Declined
        }
    }
}

/// Most characters of what a node says that are passed on.
const MAX_REASON: usize = 200;

/// What a node says, for people: one line of it.
fn reason_of(error: RpcError<TransportErrorKind>) -> String {
    match error {
        RpcError::ErrorResp(answer) => {
            answer.message.lines().next().unwrap_or_default().chars().take(MAX_REASON).collect()
        }
        other => without_url(other).to_string(),
    }
}

/// Why the contract would refuse a call, if that is what the node says. Anything else it says, of limits or of blocks that
/// it does not have, tells nothing about the call.
pub(crate) fn refusal(error: &RpcError<TransportErrorKind>) -> Option<String> {
    let answer = error.as_error_resp()?;
    is_refusal(answer).then(|| answer.message.to_string())
}

/// The most that gas can cost, wei.
fn cost(gas: u64, max_fee: u128) -> U256 {
    U256::from(gas).saturating_mul(U256::from(max_fee))
}

/// The most that the newest attempts of slots can cost, wei.
fn cost_of<'a>(slots: impl Iterator<Item = &'a Slot>) -> U256 {
    slots
        .filter_map(|slot| slot.attempts.last())
        .map(|newest| cost(newest.gas_limit, newest.max_fee))
        .fold(U256::ZERO, U256::saturating_add)
}

/// Recipient and calldata of a stored attempt.
fn content_of(attempt: &Attempt) -> Result<(TxKind, Bytes)> {
    let envelope = TxEnvelope::decode_2718(&mut attempt.raw.as_slice())
        .map_err(|_| Error::Ledger(ledger::Error::Corrupt("signed transaction")))?;
    Ok((envelope.kind(), envelope.input().clone()))
}

impl Wait {
    /// For people: what waits, why, and what ends it.
    pub fn text(&self, sender: Address) -> String {
        match self {
            Self::UnknownTransactions { from, until } => format!(
                "the sender {sender} is frozen: this ledger does not know its transactions with tx nonces {from} to {}; if the \
                 database is older than they are, run quittance sender recover; if somebody else sent them, stop that and \
                 run quittance sender adopt",
                until.saturating_sub(1)
            ),
            Self::ForeignTransaction { tx_nonce, hash } => format!(
                "the sender {sender} is frozen: its tx nonce {tx_nonce} was consumed by {hash}, which this ledger did not \
                 sign; find out who has the key, then run quittance sender adopt"
            ),
            Self::StaleEndpoint => {
                "transactions wait: the endpoint's newest block is older than what is known".into()
            }
            Self::Unexplained(tx_nonce) => format!(
                "what tx nonce {tx_nonce} carries waits: it is finally consumed, and the endpoint does not tell by which \
                 transaction"
            ),
            Self::Refused { hash, reason } => {
                format!("transaction {hash} waits: no node takes it, and one says: {reason}")
            }
            Self::AtCap { hash, cap } => format!(
                "transaction {hash} waits until gas is cheaper: it cannot be replaced within the bound of {cap} wei per gas"
            ),
            Self::Balance { balance, needed } => format!(
                "the sender {sender} has {balance} wei and needs {needed} with what is under way; send it {} wei more",
                needed.saturating_sub(*balance)
            ),
            Self::Delegated => format!(
                "the sender {sender} has delegated its account (EIP-7702): one transaction at a time until that is undone"
            ),
            Self::Gap(tx_nonce) => {
                format!(
                    "transactions wait for tx nonce {tx_nonce}, which the next batch gets, or else a transaction that \
                     does nothing"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use alloy::rpc::json_rpc::ErrorPayload;

    use super::*;

    #[test]
    fn nodes_words_are_read_for_what_ends_a_refusal() {
        for (message, answer) in [
            ("already known", Answer::Taken),
            ("nonce too low: next nonce 7, tx nonce 6", Answer::TxNonceTooLow),
            ("replacement transaction underpriced", Answer::Underpriced),
            ("replacement fee too low", Answer::Underpriced),
            ("gas price too low to replace", Answer::Underpriced),
            ("transaction underpriced: gas tip cap 0, minimum needed 1", Answer::LowTip),
            (
                "transaction gas price below minimum: gas tip cap 0, minimum needed 1",
                Answer::LowTip,
            ),
            ("transaction underpriced: tip needed 25000000000, tip permitted 1", Answer::LowTip),
            ("transaction underpriced", Answer::LowTip),
            ("intrinsic gas too low: gas 21000, minimum needed 53000", Answer::Refused),
            ("existing tx with same hash", Answer::Taken),
            ("insufficient funds for gas * price + value", Answer::NoFunds),
            ("max fee per gas less than block base fee: address 0x01", Answer::Declined),
            ("FeeTooLow, MaxFeePerGas too low", Answer::Declined),
            ("tx fee (1.20 ether) exceeds the configured cap (1.00 ether)", Answer::Refused),
            ("Transaction fee cap exceeded", Answer::Refused),
            ("GasLimitExceeded, Gas limit: 1, gas limit of rejected tx: 2", Answer::Refused),
            ("MaxTxSizeExceeded, Max Size: 1, Size of rejected tx: 2", Answer::Refused),
            ("exceeds block gas limit", Answer::Refused),
            ("intrinsic gas too low", Answer::Refused),
            ("oversized data", Answer::Refused),
            ("txpool is full", Answer::Declined),
            ("nonce too high", Answer::Declined),
            ("rate limit exceeded", Answer::Unknown),
            ("Internal error", Answer::Unknown),
        ] {
            let payload = ErrorPayload { code: -32000, message: message.into(), data: None };
            assert_eq!(Answer::of(&RpcError::ErrorResp(payload)), answer, "{message}");
        }
        let broken = TransportErrorKind::custom_str("connection refused");
        assert_eq!(Answer::of(&broken), Answer::Unknown);
    }
}
