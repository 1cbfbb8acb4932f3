//! Reading slots: what was signed for which tx nonce, what it carries, and what became of it.

use alloy::primitives::{Address, B256};
use serde::Serialize;
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use super::{Reader, block_at_or_below, checkpoint, finalised};
use crate::{
    Error, ProviderNumber, Result, Units,
    book::Obligation,
    chain::Block,
    sql::{Columns, integer},
};

/// A tx nonce, what it is for, and what was signed for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Row id.
    pub id: i64,
    /// The tx nonce.
    pub tx_nonce: u64,
    /// What it carries.
    pub obligation: Obligation,
    /// When it was opened, ms.
    pub at: i64,
    /// Every attempt, oldest first.
    pub attempts: Vec<Attempt>,
}

/// What a slot is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotKind {
    /// A batch of statements.
    Settle,
    /// A batch of claims.
    Claim,
    /// A batch of registrations.
    Register,
}

impl SlotKind {
    /// Its name in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Settle => "settle",
            Self::Claim => "claim",
            Self::Register => "register",
        }
    }

    fn from_name(name: &str) -> Result<Self> {
        match name {
            "settle" => Ok(Self::Settle),
            "claim" => Ok(Self::Claim),
            "register" => Ok(Self::Register),
            _ => Err(Error::Corrupt("kind of a slot")),
        }
    }
}

/// What an attempt does if it is mined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptKind {
    /// What the slot carries.
    Work,
    /// Nothing; it consumes the tx nonce in place of what the slot carries.
    Cancel,
}

impl AttemptKind {
    /// Its name in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Work => "work",
            Self::Cancel => "cancel",
        }
    }
}

/// One signed transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Row id.
    pub id: i64,
    /// Whether it carries the slot's work or nothing.
    pub kind: AttemptKind,
    /// Its hash.
    pub hash: B256,
    /// The signed bytes.
    pub raw: Vec<u8>,
    /// `maxFeePerGas` in wei.
    pub max_fee: u128,
    /// `maxPriorityFeePerGas` in wei.
    pub tip: u128,
    /// Gas limit.
    pub gas_limit: u64,
    /// When it was signed, ms.
    pub at: i64,
}

/// The blocks at which a sender asks the chain, so that its answers fit what the ledger knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchors {
    /// The last indexed block.
    pub checkpoint: Block,
    /// The last indexed block that is final, once there is one.
    pub finalised: Option<Block>,
}

/// What a ledger remembers of a sender besides its slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Tx nonces below are accounted for by slots: the highest that has one, plus one.
    pub slotted: u64,
    /// Tx nonces below were adopted by the operator.
    pub adopted: u64,
    /// Tx nonces below were consumed in final blocks: the highest of a slot that is over, plus one.
    pub ended: u64,
    /// The lowest tx nonce, not adopted, that a transaction consumed in a final block which this ledger had not signed.
    pub foreign: Option<(u64, B256)>,
}

impl Memory {
    /// The lowest tx nonce that neither a slot nor an adoption accounts for.
    pub fn next(&self) -> u64 {
        self.slotted.max(self.adopted)
    }
}

impl Reader {
    /// The last indexed and the last final block; `None` before anything is indexed.
    pub async fn anchors(&self) -> Result<Option<Anchors>> {
        let mut tx = self.0.reader().begin().await?;
        let Some(checkpoint) = checkpoint(&mut tx).await? else {
            return Ok(None);
        };
        let number = finalised(&mut tx).await?;
        let finalised = block_at_or_below(&mut tx, number).await?;
        Ok(Some(Anchors { checkpoint, finalised }))
    }

    /// Slots of a sender of which it is not known what finally consumed their tx nonce, ascending. What they carry is busy.
    pub async fn open_slots(&self, sender: Address) -> Result<Vec<Slot>> {
        let mut tx = self.0.reader().begin().await?;
        let rows = sqlx::query(
            "select s.id, s.tx_nonce, s.kind, s.at from slot s left join outcome o on o.slot = s.id
             where s.sender = ? and o.slot is null order by s.tx_nonce",
        )
        .bind(sender.to_vec())
        .fetch_all(&mut *tx)
        .await?;
        let mut slots = Vec::new();
        for row in rows {
            slots.push(slot(&mut tx, &row).await?);
        }
        Ok(slots)
    }

    /// What the ledger remembers of a sender besides its slots.
    pub async fn memory(&self, sender: Address) -> Result<Memory> {
        let mut tx = self.0.reader().begin().await?;
        let slotted = count_up_to(
            &mut tx,
            "select max(tx_nonce) + 1 as n from slot where sender = ?",
            sender,
        );
        let slotted = slotted.await?;
        let adopted = count_up_to(
            &mut tx,
            "select max(tx_nonce) as n from adoption where sender = ?",
            sender,
        );
        let adopted = adopted.await?;
        let ended = count_up_to(
            &mut tx,
            "select max(s.tx_nonce) + 1 as n from outcome o join slot s on s.id = o.slot where s.sender = ?",
            sender,
        );
        let ended = ended.await?;
        let row = sqlx::query(
            "select s.tx_nonce, o.hash from outcome o join slot s on s.id = o.slot
             where o.attempt is null and s.sender = ? and s.tx_nonce >= ? order by s.tx_nonce limit 1",
        )
        .bind(sender.to_vec())
        .bind(integer(adopted)?)
        .fetch_optional(&mut *tx)
        .await?;
        let foreign = row.map(|row| Ok::<_, Error>((row.u64("tx_nonce")?, row.b256("hash")?)));
        Ok(Memory { slotted, adopted, ended, foreign: foreign.transpose()? })
    }

    /// Whether a slot of the sender has this tx nonce.
    pub async fn has_slot(&self, sender: Address, tx_nonce: u64) -> Result<bool> {
        let row = sqlx::query("select 1 from slot where sender = ? and tx_nonce = ?")
            .bind(sender.to_vec())
            .bind(integer(tx_nonce)?)
            .fetch_optional(self.0.reader())
            .await?;
        Ok(row.is_some())
    }

    /// Whether nothing that a slot carries can have an effect on the state at the checkpoint: the epochs of its statements
    /// are settled, the credits of its claims are empty, its addresses are registered.
    pub async fn is_void(&self, obligation: &Obligation) -> Result<bool> {
        let mut tx = self.0.reader().begin().await?;
        match obligation {
            Obligation::Settle(statements) => {
                for statement in statements {
                    if !is_over(&mut tx, *statement).await? {
                        return Ok(false);
                    }
                }
            }
            Obligation::Claim(token, providers) => {
                for provider in providers {
                    if credit(&mut tx, *token, *provider).await? > Units::ZERO {
                        return Ok(false);
                    }
                }
            }
            Obligation::Register(addresses) => {
                for address in addresses {
                    if !is_registered(&mut tx, *address).await? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    /// Units that a provider can claim at the checkpoint.
    pub async fn credit(&self, token: Address, provider: ProviderNumber) -> Result<Units> {
        let mut tx = self.0.reader().begin().await?;
        credit(&mut tx, token, provider).await
    }

    /// Credits that the token refused to pay in a block: of which token, and whose. Anybody can have it asked to.
    pub async fn refused_claims(&self, block: u64) -> Result<Vec<(Address, ProviderNumber)>> {
        let rows = sqlx::query("select token, provider from claim_failed where block = ?")
            .bind(integer(block)?)
            .fetch_all(self.0.reader())
            .await?;
        rows.iter().map(|row| Ok((row.address("token")?, row.u32("provider")?))).collect()
    }

    /// The last block in which a transaction that carried a statement consumed its tx nonce, among final ones.
    pub async fn last_carried(&self, statement: i64) -> Result<Option<u64>> {
        let row = sqlx::query(
            "select max(o.block) as n from outcome o join carried_statement c on c.slot = o.slot where c.statement = ?",
        )
        .bind(statement)
        .fetch_one(self.0.reader())
        .await?;
        row.maybe_int("n")?
            .map(|n| u64::try_from(n).map_err(|_| Error::Corrupt("block")))
            .transpose()
    }

    /// Row id of the statement of a deposit's epoch with a manifest root.
    pub async fn statement_with(
        &self,
        deposit: B256,
        epoch: u32,
        manifest: B256,
    ) -> Result<Option<i64>> {
        let row = sqlx::query(
            "select id from statement where deposit = ? and epoch = ? and manifest = ?",
        )
        .bind(deposit.to_vec())
        .bind(i64::from(epoch))
        .bind(manifest.to_vec())
        .fetch_optional(self.0.reader())
        .await?;
        row.map(|row| row.int("id")).transpose()
    }

    /// Attempts of slots below a tx nonce of which no tx receipt is known: row id and hash.
    pub async fn attempts_without_receipt(
        &self,
        sender: Address,
        below: u64,
    ) -> Result<Vec<(i64, B256)>> {
        let rows = sqlx::query(
            "select a.id, a.hash from slot s join attempt a on a.slot = s.id left join outcome o on o.slot = s.id
             where s.sender = ? and s.tx_nonce < ? and o.slot is null and not exists (
                 select 1 from tx_receipt r join attempt b on b.id = r.attempt where b.slot = s.id)
             order by a.id",
        )
        .bind(sender.to_vec())
        .bind(integer(below)?)
        .fetch_all(self.0.reader())
        .await?;
        rows.iter().map(|row| Ok((row.int("id")?, row.b256("hash")?))).collect()
    }
}

async fn slot(conn: &mut SqliteConnection, row: &SqliteRow) -> Result<Slot> {
    let id = row.int("id")?;
    let attempts = sqlx::query("select * from attempt where slot = ? order by id")
        .bind(id)
        .fetch_all(&mut *conn)
        .await?;
    Ok(Slot {
        id,
        tx_nonce: row.u64("tx_nonce")?,
        obligation: obligation(conn, id, SlotKind::from_name(&row.text("kind")?)?).await?,
        at: row.int("at")?,
        attempts: attempts.iter().map(attempt).collect::<Result<_>>()?,
    })
}

async fn obligation(conn: &mut SqliteConnection, slot: i64, kind: SlotKind) -> Result<Obligation> {
    let query = match kind {
        SlotKind::Settle => {
            "select statement from carried_statement where slot = ? order by statement"
        }
        SlotKind::Claim => {
            "select token, provider from carried_claim where slot = ? order by provider"
        }
        SlotKind::Register => {
            "select address from carried_registration where slot = ? order by address"
        }
    };
    let rows = sqlx::query(query).bind(slot).fetch_all(conn).await?;
    match kind {
        SlotKind::Settle => Ok(Obligation::Settle(
            rows.iter().map(|row| row.int("statement")).collect::<Result<_>>()?,
        )),
        SlotKind::Claim => {
            let token = rows.first().map_or(Ok(Address::ZERO), |row| row.address("token"))?;
            let providers = rows.iter().map(|row| row.u32("provider")).collect::<Result<_>>()?;
            Ok(Obligation::Claim(token, providers))
        }
        SlotKind::Register => Ok(Obligation::Register(
            rows.iter().map(|row| row.address("address")).collect::<Result<_>>()?,
        )),
    }
}

fn attempt(row: &SqliteRow) -> Result<Attempt> {
    let kind = match row.text("kind")?.as_str() {
        "work" => AttemptKind::Work,
        "cancel" => AttemptKind::Cancel,
        _ => return Err(Error::Corrupt("kind of an attempt")),
    };
    Ok(Attempt {
        id: row.int("id")?,
        kind,
        hash: row.b256("hash")?,
        raw: row.blob("raw")?,
        max_fee: row.amount("max_fee")?.base_units(),
        tip: row.amount("tip")?.base_units(),
        gas_limit: row.u64("gas_limit")?,
        at: row.int("at")?,
    })
}

async fn count_up_to(
    conn: &mut SqliteConnection,
    query: &'static str,
    sender: Address,
) -> Result<u64> {
    let row = sqlx::query(query).bind(sender.to_vec()).fetch_one(conn).await?;
    let count = row.maybe_int("n")?.unwrap_or_default();
    u64::try_from(count).map_err(|_| Error::Corrupt("tx nonce"))
}

/// Whether the epoch of a statement is settled, by itself or by another.
async fn is_over(conn: &mut SqliteConnection, statement: i64) -> Result<bool> {
    let row = sqlx::query(
        "select 1 from statement t join statement o on o.deposit = t.deposit and o.epoch = t.epoch
         join settled s on s.statement = o.id where t.id = ?",
    )
    .bind(statement)
    .fetch_optional(conn)
    .await?;
    Ok(row.is_some())
}

/// Units that a provider can claim: the rows settled after its last claim, which took everything before.
async fn credit(
    conn: &mut SqliteConnection,
    token: Address,
    provider: ProviderNumber,
) -> Result<Units> {
    let last = sqlx::query(
        "select block, log_index from claimed where provider = ? and token = ? order by block desc, log_index desc limit 1",
    )
    .bind(i64::from(provider))
    .bind(token.to_vec())
    .fetch_optional(&mut *conn)
    .await?;
    let last =
        last.map_or(Ok((0, 0)), |row| Ok::<_, Error>((row.int("block")?, row.int("log_index")?)))?;
    let rows = sqlx::query(
        "select r.units from \"row\" r join settled s on s.statement = r.statement
         join statement t on t.id = s.statement join deposit d on d.id = t.deposit
         where r.provider = ? and d.token = ? and (s.block, s.log_index) > (?, ?)",
    )
    .bind(i64::from(provider))
    .bind(token.to_vec())
    .bind(last.0)
    .bind(last.1)
    .fetch_all(conn)
    .await?;
    rows.iter().try_fold(Units::ZERO, |sum, row| sum.add(row.units("units")?))
}

async fn is_registered(conn: &mut SqliteConnection, payout: Address) -> Result<bool> {
    let row = sqlx::query("select 1 from registered where payout = ? limit 1")
        .bind(payout.to_vec())
        .fetch_optional(conn)
        .await?;
    Ok(row.is_some())
}
