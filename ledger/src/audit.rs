//! The audit log: what people and the process decided, each entry chained to the one before it by its hash.
//!
//! An entry is written in the commit of what it tells. The chain shows that an entry was altered, removed or inserted by
//! whoever cannot also rewrite everything after it; it is no defence against somebody who rewrites the whole file, for
//! which a copy of the last hash has to be kept elsewhere (`quittance audit` prints it).

use alloy::primitives::{B256, keccak256};
use serde::Serialize;
use sqlx::SqliteConnection;

use crate::{Ledger, Millis, Result, book::BookWriter, sql::Columns, store};

/// Halts money while the ledger breaks an invariant.
const DOCTOR: &str = "doctor";
/// Halts money while the contract holds something else than the ledger.
pub(crate) const INDEXER: &str = "indexer";

/// What is told, without its place in the chain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Event<'a> {
    /// When, ms since 1970.
    pub(crate) at: Millis,
    /// Who decided: `configuration`, `operator`, `relayer`, or a source of records.
    pub(crate) actor: &'a str,
    /// What was done, one word or two: `decision`, `payee`, `freeze`.
    pub(crate) action: &'a str,
    /// To what: an item, a machine, a deposit.
    pub(crate) subject: &'a str,
    /// The rest, for people.
    pub(crate) detail: &'a str,
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its number, from 1, without holes.
    pub seq: u64,
    /// When, ms since 1970.
    pub at: Millis,
    /// Who decided.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// To what.
    pub subject: String,
    /// The rest, for people.
    pub detail: String,
    /// Hash of the entry before it, zero for the first.
    pub previous: B256,
    /// Hash over `previous` and everything else.
    pub hash: B256,
}

impl Entry {
    /// The hash that follows from everything else: `keccak256(previous ‖ seq ‖ at ‖ texts)`, numbers in 8 bytes
    /// big-endian, each text behind its length.
    pub fn follows(&self) -> B256 {
        let mut bytes = self.previous.to_vec();
        bytes.extend(self.seq.to_be_bytes());
        bytes.extend(self.at.to_be_bytes());
        for text in [&self.actor, &self.action, &self.subject, &self.detail] {
            bytes.extend((text.len() as u64).to_be_bytes());
            bytes.extend(text.as_bytes());
        }
        keccak256(bytes)
    }
}

/// Appends an entry within the caller's transaction.
pub(crate) async fn append(conn: &mut SqliteConnection, event: &Event<'_>) -> Result<()> {
    let last = sqlx::query("select seq, hash from audit order by seq desc limit 1")
        .fetch_optional(&mut *conn)
        .await?;
    let (seq, previous) = match last {
        Some(row) => (row.u64("seq")?.saturating_add(1), row.b256("hash")?),
        None => (1, B256::ZERO),
    };
    let mut entry = Entry {
        seq,
        at: event.at,
        actor: event.actor.to_owned(),
        action: event.action.to_owned(),
        subject: event.subject.to_owned(),
        detail: event.detail.to_owned(),
        previous,
        hash: B256::ZERO,
    };
    entry.hash = entry.follows();
    sqlx::query(
        "insert into audit (seq, at, actor, action, subject, detail, previous, hash) values (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(crate::sql::integer(entry.seq)?)
    .bind(entry.at)
    .bind(entry.actor)
    .bind(entry.action)
    .bind(entry.subject)
    .bind(entry.detail)
    .bind(entry.previous.to_vec())
    .bind(entry.hash.to_vec())
    .execute(conn)
    .await?;
    Ok(())
}

/// Every entry, oldest first.
pub async fn entries(ledger: &Ledger) -> Result<Vec<Entry>> {
    read(&mut *ledger.reader().acquire().await?).await
}

/// Why money must not move, if somebody said so and did not take it back.
pub async fn halt(ledger: &Ledger) -> Result<Option<String>> {
    let mut conn = ledger.reader().acquire().await?;
    for actor in [DOCTOR, INDEXER] {
        if let Some(reason) = halt_by(&mut conn, actor).await? {
            return Ok(Some(reason));
        }
    }
    Ok(None)
}

/// Why money must not move, by the newest entry of one who can say so.
async fn halt_by(conn: &mut SqliteConnection, actor: &str) -> Result<Option<String>> {
    let row = sqlx::query(
        "select action, detail from audit where actor = ? and action in ('halt', 'halt lifted')
         order by seq desc limit 1",
    )
    .bind(actor)
    .fetch_optional(conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(if row.text("action")? == "halt" { Some(row.text("detail")?) } else { None })
}

/// Tells that money must not move, or that for all that this actor knows it may again. Returns whether that is new.
pub(crate) async fn set_halt(
    conn: &mut SqliteConnection,
    actor: &str,
    reason: Option<&str>,
    at: Millis,
) -> Result<bool> {
    if halt_by(conn, actor).await?.as_deref() == reason {
        return Ok(false);
    }
    let action = if reason.is_some() { "halt" } else { "halt lifted" };
    let detail = reason.unwrap_or_default();
    append(conn, &Event { at, actor, action, subject: "money", detail }).await?;
    Ok(true)
}

impl BookWriter {
    /// Tells in the audit log that the ledger is unsound and money must not move, or that it is sound again; what the indexer
    /// found stays. Returns whether that is new.
    pub async fn set_halt(&self, reason: Option<&str>, now: Millis) -> Result<bool> {
        let mut tx = self.ledger().begin().await?;
        let is_new = set_halt(&mut tx, DOCTOR, reason, now).await?;
        if is_new {
            store::commit(tx, "halt").await?;
        }
        Ok(is_new)
    }
}

/// Where the chain is broken: the entry at fault, and why. Nothing if it is whole.
pub async fn verify(ledger: &Ledger) -> Result<Vec<(u64, String)>> {
    breaks(&mut *ledger.reader().acquire().await?).await
}

pub(crate) async fn breaks(conn: &mut SqliteConnection) -> Result<Vec<(u64, String)>> {
    let mut breaks = Vec::new();
    let (mut seq, mut previous) = (0_u64, B256::ZERO);
    for entry in read(conn).await? {
        if entry.seq != seq.saturating_add(1) {
            breaks.push((entry.seq, format!("the entries after {seq} and before it are missing")));
        } else if entry.previous != previous {
            breaks.push((entry.seq, "the entry before it was altered or inserted".into()));
        }
        if entry.hash != entry.follows() {
            breaks.push((entry.seq, "its content does not have its hash".into()));
        }
        (seq, previous) = (entry.seq, entry.hash);
    }
    let written = sqlx::query("select seq from sqlite_sequence where name = 'audit'")
        .fetch_optional(&mut *conn)
        .await?
        .map_or(Ok(0), |row| row.u64("seq"))?;
    if written != seq {
        breaks.push((
            written,
            format!("entries up to {written} were written, the last one is {seq}"),
        ));
    }
    Ok(breaks)
}

async fn read(conn: &mut SqliteConnection) -> Result<Vec<Entry>> {
    let rows = sqlx::query("select * from audit order by seq").fetch_all(conn).await?;
    rows.iter()
        .map(|row| {
            Ok(Entry {
                seq: row.u64("seq")?,
                at: row.int("at")?,
                actor: row.text("actor")?,
                action: row.text("action")?,
                subject: row.text("subject")?,
                detail: row.text("detail")?,
                previous: row.b256("previous")?,
                hash: row.b256("hash")?,
            })
        })
        .collect()
}
