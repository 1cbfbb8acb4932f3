//! What consumed a tx nonce: an attempt of ours, a foreign transaction, or unknown.
//!
//! Asked of final blocks only. A tx receipt tells where to look; that the block has the transaction is what enough operators
//! say. An endpoint that does not find a transaction has told nothing: then the block is searched in which the account's count
//! passed the tx nonce, and what stands there decides: a transaction of the account, or anybody's that carries an
//! authorization of the account (EIP-7702), which consumes a tx nonce as well. Without either, nothing changes.

use alloy::{
    consensus::{Transaction as _, TxEnvelope},
    eips::{BlockId, BlockNumberOrTag, eip2718::Encodable2718, eip7702::SignedAuthorization},
    network::primitives::BlockTransactions,
    primitives::{Address, B256, Bytes, TxKind, U256, keccak256},
    providers::Provider,
    rpc::types::{Block as RpcBlock, Transaction, TransactionReceipt},
    sol_types::SolCall,
};
use contracts::{Settlement, eip712::DepositKey};
use ledger::{
    Millis, ProviderNumber,
    book::{Obligation, Outcome, TxReceipt},
    chain::Block,
    read::{Anchors, Attempt, AttemptKind, Slot},
};
use serde_json::Value;

use super::{Sender, plan::Counts};
use crate::{Error, Result};

/// Most transactions that one recovery takes in; more are no accident.
const MAX_RECOVERED: u64 = 10_000;

/// A transaction in a block that consumed a tx nonce of the sender.
#[derive(Debug, Clone)]
struct Mined {
    hash: B256,
    block: u64,
    block_hash: B256,
    envelope: TxEnvelope,
    /// Whether the sender signed it; otherwise it carries an authorization that the sender signed.
    is_own: bool,
}

/// Claims that came to nothing when they were mined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InVain {
    /// What their transaction carried.
    pub obligation: Obligation,
    /// Of these the token refused each by itself; empty if the transaction failed as a whole.
    pub refused: Vec<(Address, ProviderNumber)>,
    /// Why, for people.
    pub reason: String,
}

/// What [`Sender::recover`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Transactions taken in as slots.
    pub imported: u64,
    /// Transactions that carried nothing of this ledger's, accounted for by the adoption alone.
    pub other: u64,
    /// Tx nonces below are accounted for now.
    pub until: u64,
}

impl Sender {
    /// Records what consumed each open slot whose tx nonce is finally consumed, as far as the chain tells. Answers that fail
    /// are left for a later turn. Returns claims that came to nothing.
    pub async fn resolve(
        &self,
        anchors: &Anchors,
        counts: Counts,
        now: Millis,
    ) -> Result<Vec<InVain>> {
        let mut in_vain = Vec::new();
        let Some(finalised) = anchors.finalised else { return Ok(in_vain) };
        let slots = self.reader.open_slots(self.address()).await?;
        if slots.is_empty() {
            return Ok(in_vain);
        }
        let Counts { finalised: consumed, indexed, .. } = counts;
        let mut below = self.reader.ledger().identity().start_block;
        for slot in slots.iter().filter(|slot| slot.tx_nonce < consumed) {
            let found = or_later(self.outcome(slot, below, &finalised).await)?;
            if let Some(outcome) = found.flatten() {
                below = outcome.block.saturating_sub(1);
                self.book.add_outcome(&outcome, now).await?;
                in_vain.extend(self.in_vain(slot, &outcome).await?);
            }
        }
        or_later(self.collect_receipts(indexed).await)?;
        Ok(in_vain)
    }

    /// Claims of a slot that came to nothing when it was mined. A simulation does not tell: a payout address may have code that
    /// tells one from a transaction.
    async fn in_vain(&self, slot: &Slot, outcome: &Outcome) -> Result<Option<InVain>> {
        let Obligation::Claim(token, providers) = &slot.obligation else { return Ok(None) };
        let mined = slot.attempts.iter().find(|attempt| Some(attempt.id) == outcome.attempt);
        if mined.is_none_or(|mined| mined.kind != AttemptKind::Work) {
            return Ok(None);
        }
        let (obligation, block) = (slot.obligation.clone(), outcome.block);
        if !outcome.succeeded {
            let reason = format!("transaction {} of block {block} failed with it", outcome.hash);
            return Ok(Some(InVain { obligation, refused: Vec::new(), reason }));
        }
        let mut refused = self.reader.refused_claims(block).await?;
        refused.retain(|(of, provider)| of == token && providers.contains(provider));
        let reason = format!("the token refused to pay it in block {block}");
        Ok((!refused.is_empty()).then_some(InVain { obligation, refused, reason }))
    }

    /// Takes transactions in that this ledger does not know and final blocks hold, as slots that are over, and accounts for
    /// them. What they settled is told by the contract's events, as always.
    pub async fn recover(&self, now: Millis) -> Result<Recovered> {
        let anchors = self.reader.anchors().await?.ok_or_else(nothing_indexed)?;
        let finalised = anchors.finalised.ok_or_else(nothing_indexed)?;
        let counts = self.counts(&anchors).await?;
        let from = self.reader.memory(self.address()).await?.next();
        if counts.latest > counts.finalised {
            return Err(Error::Usage(format!(
                "transactions of {} up to tx nonce {} are not final yet; wait until they are, then recover",
                self.address(),
                counts.latest - 1
            )));
        }
        if counts.finalised.saturating_sub(from) > MAX_RECOVERED {
            return Err(Error::Usage(format!(
                "{} has {} transactions that this ledger does not know, more than {MAX_RECOVERED}; use quittance sender adopt",
                self.address(),
                counts.finalised - from
            )));
        }
        let mut recovered = Recovered { until: counts.finalised, ..Recovered::default() };
        let mut below = 0;
        for tx_nonce in from..counts.finalised {
            if self.reader.has_slot(self.address(), tx_nonce).await? {
                continue;
            }
            let mined = self.find(tx_nonce, below, finalised.number).await?.ok_or_else(|| {
                Error::Stalled(format!(
                    "the endpoint does not tell which transaction had tx nonce {tx_nonce}"
                ))
            })?;
            below = mined.block.saturating_sub(1);
            if self.import(tx_nonce, &mined, now).await? {
                recovered.imported += 1;
            } else {
                recovered.other += 1;
                // Before the next slot is taken in: whatever interrupts this leaves no hole between slots.
                let reason = format!("transaction {} carries nothing of this ledger's", mined.hash);
                self.book.adopt(self.address(), tx_nonce + 1, &reason, now).await?;
            }
        }
        let reason =
            format!("recovered {} transactions, {} others", recovered.imported, recovered.other);
        self.book.adopt(self.address(), counts.finalised, &reason, now).await?;
        Ok(recovered)
    }

    /// Accounts for every tx nonce that the newest block has consumed, because the operator says so. Returns the first
    /// that is not. A count below what final blocks have consumed is that of another chain or of an endpoint that lags.
    pub async fn adopt(&self, reason: &str, now: Millis) -> Result<u64> {
        let count = self.provider.get_transaction_count(self.address());
        let until = count.await.map_err(Error::endpoint("eth_getTransactionCount"))?;
        let ended = self.reader.memory(self.address()).await?.ended;
        if until < ended {
            return Err(Error::Usage(format!(
                "the endpoint counts {until} transactions of {}, and {ended} were consumed in final blocks; try again when it \
                 has caught up, or with another one",
                self.address()
            )));
        }
        self.book.adopt(self.address(), until, reason, now).await?;
        Ok(until)
    }

    /// What consumed a slot's tx nonce, which is finally consumed.
    async fn outcome(&self, slot: &Slot, below: u64, finalised: &Block) -> Result<Option<Outcome>> {
        for attempt in slot.attempts.iter().rev() {
            let Some(receipt) = self.receipt(attempt.hash).await? else { continue };
            let Some((block, block_hash)) = place_of(&receipt) else { continue };
            let place = (block, block_hash);
            if block <= finalised.number && self.holds(place, attempt.hash).await? {
                self.book.add_tx_receipt(&hint(attempt.id, &receipt, place)).await?;
                let (attempt, hash) = (Some(attempt.id), attempt.hash);
                let succeeded = receipt.status();
                return Ok(Some(Outcome {
                    slot: slot.id,
                    attempt,
                    hash,
                    block,
                    block_hash,
                    succeeded,
                }));
            }
        }
        let Some(mined) = self.find(slot.tx_nonce, below, finalised.number).await? else {
            return Ok(None);
        };
        let Some(receipt) = self.receipt_of(&mined).await? else { return Ok(None) };
        let ours = slot.attempts.iter().find(|attempt| attempt.hash == mined.hash);
        let Mined { hash, block, block_hash, .. } = mined;
        let (attempt, succeeded) = (ours.map(|attempt| attempt.id), receipt.status());
        if let Some(attempt) = attempt {
            self.book.add_tx_receipt(&hint(attempt, &receipt, (block, block_hash))).await?;
        } else {
            tracing::error!(tx_nonce = slot.tx_nonce, %hash, block, "a foreign transaction of the sender");
        }
        Ok(Some(Outcome { slot: slot.id, attempt, hash, block, block_hash, succeeded }))
    }

    /// The transaction that consumed a tx nonce which is consumed at block `until` and was not before `below`: the first block
    /// at which the account has consumed it is found by halving the range, so that a long past costs few calls.
    async fn find(&self, tx_nonce: u64, below: u64, until: u64) -> Result<Option<Mined>> {
        let count_at = async |number: u64| {
            let call = self.provider.get_transaction_count(self.address());
            let call = call.block_id(BlockId::number(number));
            call.await.map_err(Error::endpoint("eth_getTransactionCount"))
        };
        if count_at(until).await? <= tx_nonce {
            return Ok(None);
        }
        // Consumed at `high`, not consumed before `low`.
        let (mut low, mut high) = (below.min(until), until);
        while low < high {
            let middle = low + (high - low) / 2;
            if count_at(middle).await? > tx_nonce { high = middle } else { low = middle + 1 }
        }
        let Some(block) = self.block_at(high).await? else { return Ok(None) };
        let (number, block_hash) = (block.header.inner.number, block.header.hash);
        let BlockTransactions::Full(transactions) = block.transactions else { return Ok(None) };
        let envelopes: Vec<_> = transactions.into_iter().filter_map(envelope).collect();
        let is_own = |envelope: &TxEnvelope| {
            envelope.nonce() == tx_nonce && is_signed_by(envelope, self.address())
        };
        // What stands in a block was valid there: one of its own with this tx nonce is what consumed it.
        let own = envelopes.iter().find(|envelope| is_own(envelope));
        let carries = |envelope: &TxEnvelope| {
            let mut given = envelope.authorization_list().unwrap_or_default().iter();
            given.any(|one| one.nonce == tx_nonce && self.has_authorized(one))
        };
        let found = own.or_else(|| envelopes.iter().find(|envelope| carries(envelope)));
        let mined = |envelope: &TxEnvelope| {
            let (hash, envelope) = (keccak256(envelope.encoded_2718()), envelope.clone());
            Mined { hash, block: number, block_hash, envelope, is_own: own.is_some() }
        };
        Ok(found.map(mined))
    }

    /// Whether an authorization is the sender's and of this chain or of any.
    fn has_authorized(&self, given: &SignedAuthorization) -> bool {
        let is_here = given.chain_id.is_zero() || given.chain_id == U256::from(self.chain_id);
        is_here && given.recover_authority().is_ok_and(|authority| authority == self.address())
    }

    /// The block at a height with its transactions, each as the endpoint tells it: one of a type that is not read here, as
    /// chains with system transactions have in every block, spoils no other.
    async fn block_at(&self, number: u64) -> Result<Option<RpcBlock<Value>>> {
        let params = (BlockNumberOrTag::Number(number), true);
        let call = self.provider.raw_request("eth_getBlockByNumber".into(), params);
        call.await.map_err(Error::endpoint("eth_getBlockByNumber"))
    }

    /// Takes a mined transaction in as a slot that is over. False if it carries nothing that this ledger knows.
    async fn import(&self, tx_nonce: u64, mined: &Mined, now: Millis) -> Result<bool> {
        // This ledger signs no other form.
        let is_call = mined.is_own && mined.envelope.kind() == TxKind::Call(self.contract);
        let (true, Some(tip)) = (is_call, mined.envelope.max_priority_fee_per_gas()) else {
            return Ok(false);
        };
        let Some(obligation) = self.obligation_of(mined.envelope.input()).await? else {
            return Ok(false);
        };
        let Some(receipt) = self.receipt_of(mined).await? else {
            return Err(Error::Stalled(format!(
                "the endpoint has no tx receipt of {}",
                mined.hash
            )));
        };
        let attempt = Attempt {
            id: 0,
            kind: AttemptKind::Work,
            hash: mined.hash,
            raw: mined.envelope.encoded_2718(),
            max_fee: mined.envelope.max_fee_per_gas(),
            tip,
            gas_limit: mined.envelope.gas_limit(),
            at: now,
        };
        let place = (self.address(), tx_nonce);
        let receipt = hint(0, &receipt, (mined.block, mined.block_hash));
        self.book.import_slot(place, &obligation, &attempt, &receipt).await?;
        Ok(true)
    }

    /// What calldata of the contract carries, if it is one of the calls that a sender makes.
    async fn obligation_of(&self, input: &Bytes) -> Result<Option<Obligation>> {
        if let Ok(call) = Settlement::registerCall::abi_decode(input) {
            return Ok(Some(Obligation::Register(call.payouts)));
        }
        if let Ok(call) = Settlement::claimCall::abi_decode(input) {
            return Ok(Some(Obligation::Claim(call.token, call.providers)));
        }
        let Ok(call) = Settlement::settleCall::abi_decode(input) else { return Ok(None) };
        let mut statements = Vec::new();
        for given in call.statements {
            let deposit = DepositKey::from(given.key).id();
            let known = self.reader.statement_with(deposit, given.epoch, given.manifest).await?;
            statements.extend(known);
        }
        Ok(Some(Obligation::Settle(statements)))
    }

    /// Stores what tx receipts say about slots consumed at the checkpoint, for fee reports.
    async fn collect_receipts(&self, below: u64) -> Result<()> {
        for (attempt, hash) in self.reader.attempts_without_receipt(self.address(), below).await? {
            let Some(receipt) = self.receipt(hash).await? else { continue };
            if let Some(place) = place_of(&receipt)
                && self.holds(place, hash).await?
            {
                self.book.add_tx_receipt(&hint(attempt, &receipt, place)).await?;
            }
        }
        Ok(())
    }

    async fn receipt(&self, hash: B256) -> Result<Option<TransactionReceipt>> {
        let call = self.provider.get_transaction_receipt(hash);
        call.await.map_err(Error::endpoint("eth_getTransactionReceipt"))
    }

    /// The tx receipt of a transaction that was found in a block, if it is of that block.
    async fn receipt_of(&self, mined: &Mined) -> Result<Option<TransactionReceipt>> {
        let receipt = self.receipt(mined.hash).await?;
        let place = Some((mined.block, mined.block_hash));
        Ok(receipt.filter(|receipt| place_of(receipt) == place))
    }

    /// Whether the chain has this block at its height and the block has the transaction: a tx receipt may name any block.
    async fn holds(&self, (number, block_hash): (u64, B256), tx: B256) -> Result<bool> {
        let block = self
            .provider
            .get_block_by_number(BlockNumberOrTag::Number(number))
            .await
            .map_err(Error::endpoint("eth_getBlockByNumber"))?;
        Ok(block.is_some_and(|block| {
            block.header.hash == block_hash && block.transactions.hashes().any(|hash| hash == tx)
        }))
    }
}

/// Leaves what failed for a later turn if that may fare better.
fn or_later<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_transient() => {
            tracing::debug!("left for a later turn: {}", crate::chain_of(&error));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn nothing_indexed() -> Error {
    Error::Usage("nothing final is indexed yet; run quittance serve until it is".into())
}

fn place_of(receipt: &TransactionReceipt) -> Option<(u64, B256)> {
    Some((receipt.block_number?, receipt.block_hash?))
}

/// Whether an account signed a transaction, whatever the endpoint says of whom it is from.
fn is_signed_by(envelope: &TxEnvelope, account: Address) -> bool {
    let signed = envelope.signature_hash();
    let signer = envelope.signature().recover_address_from_prehash(&signed);
    signer.is_ok_and(|signer| signer == account)
}

/// A transaction of a block, if it is of a type that is read here.
fn envelope(tx: Value) -> Option<TxEnvelope> {
    serde_json::from_value::<Transaction>(tx).ok().map(|tx| tx.inner.into_inner())
}

/// What a tx receipt says, as the ledger keeps it.
fn hint(attempt: i64, receipt: &TransactionReceipt, (block, block_hash): (u64, B256)) -> TxReceipt {
    let fee = u128::from(receipt.gas_used).saturating_mul(receipt.effective_gas_price);
    let (succeeded, gas_used) = (receipt.status(), receipt.gas_used);
    TxReceipt { attempt, block_hash, block, succeeded, gas_used, fee }
}

#[cfg(test)]
mod tests {
    use alloy::transports::TransportErrorKind;

    use super::*;

    #[test]
    fn only_what_a_later_turn_may_find_is_left_for_it() {
        let silence = Error::endpoint("eth_getBlockByNumber")(TransportErrorKind::backend_gone());
        assert_eq!(or_later::<u8>(Err(silence)).unwrap(), None);
        assert_eq!(or_later(Ok(7)).unwrap(), Some(7));
        let broken = or_later::<u8>(Err(Error::Ledger(ledger::Error::Corrupt("slot"))));
        assert!(matches!(broken, Err(Error::Ledger(_))), "{broken:?}");
    }
}
