//! Slots: one tx nonce for one obligation, and every attempt at it, on disk before it is sent.

use std::collections::BTreeSet;

use alloy::primitives::Address;
use sqlx::SqliteConnection;

use super::{BookWriter, Obligation, TxReceipt};
use crate::{
    Amount, Result,
    read::Attempt,
    sql::{self, integer},
    store,
};

impl BookWriter {
    /// Opens a slot for an obligation, with the first attempt at it, before anything is sent.
    pub async fn open_slot(
        &self,
        sender: Address,
        tx_nonce: u64,
        obligation: &Obligation,
        attempt: &Attempt,
    ) -> Result<i64> {
        let mut tx = self.0.begin().await?;
        let slot = sqlx::query("insert into slot (sender, tx_nonce, kind, at) values (?, ?, ?, ?)")
            .bind(sender.to_vec())
            .bind(integer(tx_nonce)?)
            .bind(obligation.kind().name())
            .bind(attempt.at)
            .execute(&mut *tx)
            .await?
            .last_insert_rowid();
        insert_obligation(&mut tx, slot, obligation).await?;
        insert_attempt(&mut tx, slot, attempt).await?;
        store::commit(tx, "slot").await?;
        Ok(slot)
    }

    /// Records another attempt for a slot, before it is sent.
    pub async fn add_attempt(&self, slot: i64, attempt: &Attempt) -> Result<()> {
        let mut tx = self.0.begin().await?;
        insert_attempt(&mut tx, slot, attempt).await?;
        store::commit(tx, "attempt").await
    }

    /// Records what a tx receipt said, a hint for fee reports.
    pub async fn add_tx_receipt(&self, receipt: &TxReceipt) -> Result<()> {
        let mut tx = self.0.begin().await?;
        sqlx::query(
            "insert into tx_receipt (attempt, block_hash, block, succeeded, gas_used, fee) values (?, ?, ?, ?, ?, ?)
             on conflict do nothing",
        )
        .bind(receipt.attempt)
        .bind(receipt.block_hash.to_vec())
        .bind(integer(receipt.block)?)
        .bind(i64::from(receipt.succeeded))
        .bind(integer(receipt.gas_used)?)
        .bind(sql::amount(Amount::new(receipt.fee)))
        .execute(&mut *tx)
        .await?;
        store::commit(tx, "tx-receipt").await
    }
}

async fn insert_obligation(
    conn: &mut SqliteConnection,
    slot: i64,
    obligation: &Obligation,
) -> Result<()> {
    match obligation {
        Obligation::Settle(statements) => {
            for statement in statements.iter().copied().collect::<BTreeSet<_>>() {
                sqlx::query("insert into carried_statement (slot, statement) values (?, ?)")
                    .bind(slot)
                    .bind(statement)
                    .execute(&mut *conn)
                    .await?;
            }
        }
        Obligation::Claim(token, providers) => {
            for provider in providers.iter().copied().collect::<BTreeSet<_>>() {
                sqlx::query("insert into carried_claim (slot, token, provider) values (?, ?, ?)")
                    .bind(slot)
                    .bind(token.to_vec())
                    .bind(i64::from(provider))
                    .execute(&mut *conn)
                    .await?;
            }
        }
        Obligation::Register(addresses) => {
            for address in addresses.iter().copied().collect::<BTreeSet<_>>() {
                sqlx::query("insert into carried_registration (slot, address) values (?, ?)")
                    .bind(slot)
                    .bind(address.to_vec())
                    .execute(&mut *conn)
                    .await?;
            }
        }
    }
    Ok(())
}

async fn insert_attempt(conn: &mut SqliteConnection, slot: i64, attempt: &Attempt) -> Result<()> {
    sqlx::query("insert into attempt (slot, hash, raw, max_fee, tip, gas_limit, at) values (?, ?, ?, ?, ?, ?, ?)")
        .bind(slot)
        .bind(attempt.hash.to_vec())
        .bind(&attempt.raw)
        .bind(sql::amount(Amount::new(attempt.max_fee)))
        .bind(sql::amount(Amount::new(attempt.tip)))
        .bind(integer(attempt.gas_limit)?)
        .bind(attempt.at)
        .execute(conn)
        .await?;
    Ok(())
}
