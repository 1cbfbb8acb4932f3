//! Slots: one tx nonce for one obligation, and every attempt at it, on disk before it is sent.

use std::collections::BTreeSet;

use alloy::primitives::{Address, B256};
use sqlx::SqliteConnection;

use super::{BookWriter, Obligation, TxReceipt};
use crate::{
    Amount, Error, Millis, Result,
    audit::{self, Event},
    read::Attempt,
    sql::{self, Columns, integer},
    store,
};

/// The right of one process to commit slots and attempts. Whoever takes it later ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease(i64);

/// What consumed the tx nonce of a slot in a final block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Row id of the slot.
    pub slot: i64,
    /// Row id of the attempt that was mined; `None` if this ledger had not signed it.
    pub attempt: Option<i64>,
    /// Hash of the transaction.
    pub hash: B256,
    /// Number of its block.
    pub block: u64,
    /// Hash of its block.
    pub block_hash: B256,
    /// Whether it went through, which says nothing about what it was for.
    pub succeeded: bool,
}

impl BookWriter {
    /// Takes the lease on sending. A process that held it before cannot commit slots or attempts any more.
    pub async fn take_lease(&self) -> Result<Lease> {
        let mut tx = self.0.begin().await?;
        let row = sqlx::query(
            "insert into lease (one, epoch) values (1, 1) on conflict (one) do update set epoch = epoch + 1
             returning epoch",
        )
        .fetch_one(&mut *tx)
        .await?;
        let lease = Lease(row.int("epoch")?);
        store::commit(tx, "lease").await?;
        Ok(lease)
    }

    /// Opens a slot for an obligation, with the first attempt at it, before anything is sent. Refused while another slot that
    /// carries part of it could still take effect, and for a process that lost its lease.
    pub async fn open_slot(
        &self,
        lease: Lease,
        (sender, tx_nonce): (Address, u64),
        obligation: &Obligation,
        attempt: &Attempt,
    ) -> Result<i64> {
        let mut tx = self.0.begin().await?;
        check_lease(&mut tx, lease).await?;
        refuse_busy(&mut tx, sender, obligation).await?;
        let slot = insert_slot(&mut tx, (sender, tx_nonce), obligation, attempt).await?;
        store::commit(tx, "slot").await?;
        Ok(slot)
    }

    /// Records another attempt for a slot, before it is sent. Refused for a process that lost its lease.
    pub async fn add_attempt(&self, lease: Lease, slot: i64, attempt: &Attempt) -> Result<()> {
        let mut tx = self.0.begin().await?;
        check_lease(&mut tx, lease).await?;
        insert_attempt(&mut tx, slot, attempt).await?;
        store::commit(tx, "attempt").await
    }

    /// Records what consumed the tx nonce of a slot, in a block that is final. What the slot carries is free from here on.
    /// One by a transaction that this ledger had not signed is audited.
    pub async fn add_outcome(&self, outcome: &Outcome, now: Millis) -> Result<()> {
        let mut tx = self.0.begin().await?;
        if outcome.attempt.is_none() {
            let event = Event {
                at: now,
                actor: "relayer",
                action: "foreign transaction",
                subject: &format!("slot {}", outcome.slot),
                detail: &format!(
                    "{} in block {} consumed its tx nonce",
                    outcome.hash, outcome.block
                ),
            };
            audit::append(&mut tx, &event).await?;
        }
        insert_outcome(&mut tx, outcome).await?;
        store::commit(tx, "outcome").await
    }

    /// Accounts for every tx nonce of a sender below `tx_nonce`, whatever consumed it; audited.
    pub async fn adopt(
        &self,
        sender: Address,
        tx_nonce: u64,
        reason: &str,
        now: Millis,
    ) -> Result<()> {
        let mut tx = self.0.begin().await?;
        let event = Event {
            at: now,
            actor: "operator",
            action: "adopt",
            subject: &format!("sender {sender}"),
            detail: &format!("tx nonces below {tx_nonce}: {reason}"),
        };
        audit::append(&mut tx, &event).await?;
        sqlx::query("insert into adoption (sender, tx_nonce, reason, at) values (?, ?, ?, ?)")
            .bind(sender.to_vec())
            .bind(integer(tx_nonce)?)
            .bind(reason)
            .bind(now)
            .execute(&mut *tx)
            .await?;
        store::commit(tx, "adoption").await
    }

    /// Takes a slot in that a ledger lost to us had opened, with the transaction that finally consumed its tx nonce.
    pub async fn import_slot(
        &self,
        (sender, tx_nonce): (Address, u64),
        obligation: &Obligation,
        attempt: &Attempt,
        mined: &TxReceipt,
    ) -> Result<()> {
        let mut tx = self.0.begin().await?;
        let slot = insert_slot(&mut tx, (sender, tx_nonce), obligation, attempt).await?;
        let row = sqlx::query("select id from attempt where hash = ?")
            .bind(attempt.hash.to_vec())
            .fetch_one(&mut *tx)
            .await?;
        let id = row.int("id")?;
        let TxReceipt { block, block_hash, succeeded, .. } = *mined;
        let hash = attempt.hash;
        insert_outcome(
            &mut tx,
            &Outcome { slot, attempt: Some(id), hash, block, block_hash, succeeded },
        )
        .await?;
        insert_receipt(&mut tx, &TxReceipt { attempt: id, ..*mined }).await?;
        store::commit(tx, "import-slot").await
    }

    /// Records what a tx receipt said, a hint for fee reports.
    pub async fn add_tx_receipt(&self, receipt: &TxReceipt) -> Result<()> {
        let mut tx = self.0.begin().await?;
        insert_receipt(&mut tx, receipt).await?;
        store::commit(tx, "tx-receipt").await
    }
}

async fn check_lease(conn: &mut SqliteConnection, lease: Lease) -> Result<()> {
    let row = sqlx::query("select epoch from lease").fetch_one(conn).await?;
    if row.int("epoch")? == lease.0 { Ok(()) } else { Err(Error::Fenced) }
}

/// Refuses an obligation of which a slot carries a part whose tx nonce nothing has finally consumed.
async fn refuse_busy(
    conn: &mut SqliteConnection,
    sender: Address,
    obligation: &Obligation,
) -> Result<()> {
    let Obligation::Settle(statements) = obligation else { return Ok(()) };
    for statement in statements {
        let row = sqlx::query(
            "select s.tx_nonce from carried_statement c join slot s on s.id = c.slot
             left join outcome o on o.slot = s.id
             where c.statement = ? and s.sender = ? and o.slot is null limit 1",
        )
        .bind(statement)
        .bind(sender.to_vec())
        .fetch_optional(&mut *conn)
        .await?;
        if let Some(row) = row {
            let tx_nonce = row.u64("tx_nonce")?;
            return Err(Error::Busy { statement: *statement, tx_nonce });
        }
    }
    Ok(())
}

async fn insert_slot(
    conn: &mut SqliteConnection,
    (sender, tx_nonce): (Address, u64),
    obligation: &Obligation,
    attempt: &Attempt,
) -> Result<i64> {
    let slot = sqlx::query("insert into slot (sender, tx_nonce, kind, at) values (?, ?, ?, ?)")
        .bind(sender.to_vec())
        .bind(integer(tx_nonce)?)
        .bind(obligation.kind().name())
        .bind(attempt.at)
        .execute(&mut *conn)
        .await?
        .last_insert_rowid();
    insert_obligation(conn, slot, obligation).await?;
    insert_attempt(conn, slot, attempt).await?;
    Ok(slot)
}

async fn insert_outcome(conn: &mut SqliteConnection, outcome: &Outcome) -> Result<()> {
    sqlx::query(
        "insert into outcome (slot, attempt, hash, block, block_hash, succeeded) values (?, ?, ?, ?, ?, ?)
         on conflict do nothing",
    )
    .bind(outcome.slot)
    .bind(outcome.attempt)
    .bind(outcome.hash.to_vec())
    .bind(integer(outcome.block)?)
    .bind(outcome.block_hash.to_vec())
    .bind(i64::from(outcome.succeeded))
    .execute(conn)
    .await?;
    Ok(())
}

async fn insert_receipt(conn: &mut SqliteConnection, receipt: &TxReceipt) -> Result<()> {
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
    .execute(conn)
    .await?;
    Ok(())
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
    sqlx::query("insert into attempt (slot, kind, hash, raw, max_fee, tip, gas_limit, at) values (?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(slot)
        .bind(attempt.kind.name())
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
