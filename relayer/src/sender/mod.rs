//! Sending transactions: one tx nonce per obligation, signed bytes on disk before they leave.
//!
//! Whether an obligation is fulfilled is told by facts alone. The sender only keeps tx nonces moving: every slot whose
//! nonce the chain has not consumed is sent again, replaced by one that pays more when it ages, and found again after a
//! crash or a reorg, because open slots are a query: those with a nonce at or above the account's.

pub mod plan;

use alloy::{
    consensus::{SignableTransaction, TxEip1559},
    eips::{BlockId, BlockNumberOrTag, eip2718::Encodable2718},
    network::TxSignerSync,
    primitives::{Address, Bytes, TxKind, U256, keccak256},
    providers::{DynProvider, Provider},
    rpc::types::TransactionRequest,
    signers::local::PrivateKeySigner,
};
use indexer::without_url;
use ledger::{
    Millis,
    book::{BookWriter, Obligation, TxReceipt},
    read::{Attempt, Reader, Slot},
};

use self::plan::{Action, Fees, GasPrice, Limits, plan};
use crate::{Error, Result};

/// Most transactions in flight; nodes keep about 16 per account.
const MAX_IN_FLIGHT: usize = 8;
/// Gas of one transaction is limited by EIP-7825.
const MAX_GAS: u64 = 16_777_216;

/// Tx nonces of the sending account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nonces {
    /// Consumed at the ledger's checkpoint: whatever these carried, facts tell what became of it.
    pub indexed: u64,
    /// Consumed at the newest block.
    pub latest: u64,
}

/// The sending account.
#[derive(Debug)]
pub struct Sender {
    provider: DynProvider,
    signer: PrivateKeySigner,
    chain_id: u64,
    contract: Address,
    limits: Limits,
    reader: Reader,
    book: BookWriter,
}

impl Sender {
    /// A sender for the ledger's contract.
    pub fn new(
        provider: DynProvider,
        signer: PrivateKeySigner,
        limits: Limits,
        reader: Reader,
        book: BookWriter,
    ) -> Self {
        let identity = *reader.ledger().identity();
        let (chain_id, contract) = (identity.chain_id, identity.contract);
        Self { provider, signer, chain_id, contract, limits, reader, book }
    }

    /// The account's address.
    pub const fn address(&self) -> Address {
        self.signer.address()
    }

    /// The account's nonces at the checkpoint and at the newest block.
    pub async fn nonces(&self, checkpoint: BlockId) -> Result<Nonces> {
        let count = |block| {
            let call = self.provider.get_transaction_count(self.address()).block_id(block);
            async move { call.await.map_err(Error::endpoint("eth_getTransactionCount")) }
        };
        let indexed = count(checkpoint).await?;
        let latest = count(BlockId::latest()).await?;
        Ok(Nonces { indexed: indexed.min(latest), latest })
    }

    /// What gas costs now.
    pub async fn gas_price(&self) -> Result<GasPrice> {
        let block = self
            .provider
            .get_block_by_number(BlockNumberOrTag::Latest)
            .await
            .map_err(Error::endpoint("eth_getBlockByNumber"))?;
        let base = block.and_then(|block| block.header.inner.base_fee_per_gas).unwrap_or_default();
        let tip = self
            .provider
            .get_max_priority_fee_per_gas()
            .await
            .map_err(Error::endpoint("eth_maxPriorityFeePerGas"))?;
        Ok(GasPrice { base: u128::from(base), tip })
    }

    /// Gas that a call of the contract needs, with a fifth to spare. `None` if it would revert or not fit.
    pub async fn gas_limit(&self, input: &Bytes) -> Result<Option<u64>> {
        let request = TransactionRequest::default()
            .from(self.address())
            .to(self.contract)
            .input(input.clone().into());
        match self.provider.estimate_gas(request).await {
            Ok(gas) => {
                let limit = gas.saturating_add(gas / 5);
                Ok((gas <= MAX_GAS).then_some(limit.min(MAX_GAS)))
            }
            Err(error) if error.is_error_resp() => Ok(None),
            Err(error) => Err(Error::endpoint("eth_estimateGas")(error)),
        }
    }

    /// What the account lacks to pay for so much gas, if it lacks anything.
    pub async fn shortage(&self, gas_limit: u64, price: GasPrice) -> Result<Option<String>> {
        let call = self.provider.get_balance(self.address());
        let balance = call.await.map_err(Error::endpoint("eth_getBalance"))?;
        let needed = u128::from(gas_limit).saturating_mul(price.fees(self.limits.cap).max_fee);
        let is_short = balance < U256::from(needed);
        Ok(is_short
            .then(|| format!("the sender {} has {balance} wei, it needs {needed}", self.address())))
    }

    /// Keeps open slots moving: the lowest is sent again or replaced, the others are sent again if they got lost. Returns
    /// what keeps the lowest one, if anything does.
    pub async fn drive(
        &self,
        nonces: Nonces,
        price: GasPrice,
        now: Millis,
    ) -> Result<Option<String>> {
        let slots = self.reader.slots(self.address(), nonces.latest).await?;
        let mut waiting = None;
        for (index, slot) in slots.iter().enumerate() {
            let Some(newest) = slot.attempts.last() else { continue };
            let is_known = self.is_known(slot).await?;
            let action = if index == 0 {
                plan(newest, is_known, now, price, self.limits)
            } else if is_known {
                Action::Wait
            } else {
                Action::Rebroadcast
            };
            match action {
                Action::Wait => {}
                // All of them: the pool may take an older one that the balance still covers.
                Action::Rebroadcast => {
                    for attempt in slot.attempts.iter().rev() {
                        self.broadcast(attempt).await;
                    }
                }
                Action::Bump(fees) => self.bump(slot, newest, fees, now).await?,
                Action::AtCap => {
                    waiting = Some(format!(
                        "transaction {} waits for gas below the cap of {} wei",
                        newest.hash, self.limits.cap
                    ));
                }
            }
        }
        Ok(waiting)
    }

    /// Whether another slot may be opened.
    pub async fn has_room(&self, nonces: Nonces) -> Result<bool> {
        Ok(self.reader.slots(self.address(), nonces.latest).await?.len() < MAX_IN_FLIGHT)
    }

    /// Opens a slot for an obligation and sends its first attempt. The bytes are on disk before they leave.
    pub async fn open(
        &self,
        nonces: Nonces,
        obligation: &Obligation,
        input: Bytes,
        gas_limit: u64,
        (price, now): (GasPrice, Millis),
    ) -> Result<()> {
        let last = self.reader.last_nonce(self.address()).await?;
        let tx_nonce = last.map_or(nonces.latest, |last| nonces.latest.max(last + 1));
        let attempt = self.sign(tx_nonce, input, gas_limit, price.fees(self.limits.cap), now)?;
        self.book.open_slot(self.address(), tx_nonce, obligation, &attempt).await?;
        self.broadcast(&attempt).await;
        Ok(())
    }

    /// Stores what tx receipts say about consumed slots, for fee reports.
    pub async fn collect_receipts(&self, nonces: Nonces) -> Result<()> {
        for (attempt, hash) in
            self.reader.attempts_without_receipt(self.address(), nonces.indexed).await?
        {
            let receipt = self
                .provider
                .get_transaction_receipt(hash)
                .await
                .map_err(Error::endpoint("eth_getTransactionReceipt"))?;
            let Some(receipt) = receipt else { continue };
            let (Some(block), Some(block_hash)) = (receipt.block_number, receipt.block_hash) else {
                continue;
            };
            let fee = u128::from(receipt.gas_used).saturating_mul(receipt.effective_gas_price);
            let (succeeded, gas_used) = (receipt.status(), receipt.gas_used);
            self.book
                .add_tx_receipt(&TxReceipt { attempt, block_hash, block, succeeded, gas_used, fee })
                .await?;
        }
        Ok(())
    }

    async fn is_known(&self, slot: &Slot) -> Result<bool> {
        let Some(newest) = slot.attempts.last() else { return Ok(false) };
        let found = self
            .provider
            .get_transaction_by_hash(newest.hash)
            .await
            .map_err(Error::endpoint("eth_getTransactionByHash"))?;
        Ok(found.is_some())
    }

    /// Sends signed bytes. The outcome is not interpreted: whatever the endpoint says, the nonce decides.
    async fn broadcast(&self, attempt: &Attempt) {
        if let Err(error) = self.provider.send_raw_transaction(&attempt.raw).await {
            tracing::debug!(hash = %attempt.hash, "broadcast: {}", without_url(error));
        }
    }

    async fn bump(&self, slot: &Slot, newest: &Attempt, fees: Fees, now: Millis) -> Result<()> {
        let input = input_of(newest)?;
        let attempt = self.sign(slot.tx_nonce, input, newest.gas_limit, fees, now)?;
        self.book.add_attempt(slot.id, &attempt).await?;
        tracing::info!(old = %newest.hash, new = %attempt.hash, max_fee = fees.max_fee, "replaced a transaction");
        self.broadcast(&attempt).await;
        Ok(())
    }

    fn sign(
        &self,
        nonce: u64,
        input: Bytes,
        gas_limit: u64,
        fees: Fees,
        at: Millis,
    ) -> Result<Attempt> {
        let mut tx = TxEip1559 {
            chain_id: self.chain_id,
            nonce,
            gas_limit,
            max_fee_per_gas: fees.max_fee,
            max_priority_fee_per_gas: fees.tip,
            to: TxKind::Call(self.contract),
            input,
            ..Default::default()
        };
        let signature = self
            .signer
            .sign_transaction_sync(&mut tx)
            .map_err(|error| Error::Key { path: "sender".into(), reason: error.to_string() })?;
        let raw = tx.into_signed(signature).encoded_2718();
        let hash = keccak256(&raw);
        Ok(Attempt { id: 0, hash, raw, max_fee: fees.max_fee, tip: fees.tip, gas_limit, at })
    }
}

/// Calldata of a stored attempt.
fn input_of(attempt: &Attempt) -> Result<Bytes> {
    use alloy::{
        consensus::{Transaction, TxEnvelope},
        eips::eip2718::Decodable2718,
    };
    let envelope = TxEnvelope::decode_2718(&mut attempt.raw.as_slice())
        .map_err(|_| Error::Ledger(ledger::Error::Corrupt("signed transaction")))?;
    Ok(envelope.input().clone())
}
