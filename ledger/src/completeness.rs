//! What proves facts complete: the journal beside them, the operators that were caught lying, the comparison with the
//! contract's state. Written by the indexer.

use std::collections::BTreeMap;

use alloy::primitives::{Address, B256, FixedBytes};
use contracts::journal::Journal;
use sqlx::{Row, Sqlite, SqliteConnection, Transaction, sqlite::SqliteRow};

use crate::{
    Error, Millis, ProviderNumber, Result, Units,
    audit::{self, INDEXER},
    chain::{ChainWriter, IndexedBlock},
    read,
    rules::DepositState,
    sql::{Columns, integer},
    store,
};

/// The contract's journal after a block, folded from the logs that were indexed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockJournal {
    /// Number of the block.
    pub block: u64,
    /// The journal after it.
    pub journal: Journal,
    /// Hashes of its entries, in order.
    pub entries: Vec<B256>,
    /// Operator of the endpoint that the logs came from.
    pub source: String,
}

/// A deposit or a credit whose state the contract tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Account {
    /// A deposit, by its id.
    Deposit(B256),
    /// A provider's credit in a token.
    Credit(Address, ProviderNumber),
}

/// What an account holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holding {
    /// A deposit's state.
    Deposit(DepositState),
    /// A provider's units.
    Credit(Units),
}

/// What is due to be compared with the contract's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// The final block as of which.
    pub block: u64,
    /// Accounts, and what they hold as of that block.
    pub holdings: Vec<(Account, Holding)>,
    next_sample: u64,
}

impl ChainWriter {
    /// Appends blocks like [`apply`](Self::apply), with what proves them complete, in the same commit.
    pub async fn apply_proved(
        &self,
        blocks: &[IndexedBlock],
        journals: &[BlockJournal],
    ) -> Result<()> {
        let mut tx = self.0.begin().await?;
        self.append(&mut tx, blocks).await?;
        insert_journals(&mut tx, journals).await?;
        store::commit(tx, "blocks").await
    }

    /// Adds what proves blocks complete that were indexed before that was kept.
    pub async fn adopt_journals(&self, journals: &[BlockJournal]) -> Result<()> {
        let mut tx = self.0.begin().await?;
        insert_journals(&mut tx, journals).await?;
        store::commit(tx, "journals").await
    }

    /// Whether anything is indexed of which no journal was kept, because an earlier version indexed it.
    pub async fn lacks_journal(&self) -> Result<bool> {
        let row = sqlx::query(
            "select exists (select 1 from block) and not exists (select 1 from journal) as lacks",
        )
        .fetch_one(self.0.reader())
        .await?;
        row.flag("lacks")
    }

    /// The journal after the last indexed block at or below `number`.
    pub async fn journal_at(&self, number: u64) -> Result<Journal> {
        let row = sqlx::query("select * from journal where block <= ? order by block desc limit 1")
            .bind(integer(number)?)
            .fetch_optional(self.0.reader())
            .await?;
        Ok(row.as_ref().map(block_journal).transpose()?.map(|row| row.journal).unwrap_or_default())
    }

    /// What was kept of the blocks after `above` up to `to`, ascending.
    pub async fn journals(&self, above: u64, to: u64) -> Result<Vec<BlockJournal>> {
        let rows =
            sqlx::query("select * from journal where block > ? and block <= ? order by block")
                .bind(integer(above)?)
                .bind(integer(to)?)
                .fetch_all(self.0.reader())
                .await?;
        rows.iter().map(block_journal).collect()
    }

    /// Takes note that an operator's endpoint lied, or that it is trusted again. `time` is the chain's, in seconds.
    pub async fn mark_endpoint(
        &self,
        operator: &str,
        is_lying: bool,
        reason: &str,
        time: u64,
    ) -> Result<()> {
        let mut tx = self.0.begin().await?;
        sqlx::query(
            "insert into endpoint_mark (operator, is_lying, reason, time) values (?, ?, ?, ?)",
        )
        .bind(operator)
        .bind(i64::from(is_lying))
        .bind(reason)
        .bind(integer(time)?)
        .execute(&mut *tx)
        .await?;
        store::commit(tx, "endpoint mark").await
    }

    /// Operators whose endpoints lied and that nobody has cleared since, with what they did.
    pub async fn lying_operators(&self) -> Result<BTreeMap<String, String>> {
        let rows = sqlx::query(
            "select operator, reason, is_lying from endpoint_mark m
             where id = (select max(id) from endpoint_mark o where o.operator = m.operator)",
        )
        .fetch_all(self.0.reader())
        .await?;
        let mut lying = BTreeMap::new();
        for row in rows {
            if row.flag("is_lying")? {
                lying.insert(row.text("operator")?, row.text("reason")?);
            }
        }
        Ok(lying)
    }

    /// What is to be compared with the contract at the final block `block`: at most `changed` accounts that facts have
    /// touched since the last comparison, and the next `sampled` of all.
    pub async fn comparison(&self, block: u64, changed: u64, sampled: u64) -> Result<Comparison> {
        let mut tx = self.0.reader().begin().await?;
        let last = sqlx::query("select block, next_sample from comparison")
            .fetch_optional(&mut *tx)
            .await?;
        let (before, offset) = match last {
            Some(row) => (row.u64("block")?, row.u64("next_sample")?),
            None => (0, 0),
        };
        let mut accounts: Vec<Account> = Vec::new();
        let touched = touched(&mut tx, before, block).await?;
        accounts.extend(touched.into_iter().take(usize::try_from(changed).unwrap_or(usize::MAX)));
        let sample = sample(&mut tx, offset, sampled).await?;
        let next_sample = if sample.is_empty() { 0 } else { offset.saturating_add(sampled) };
        accounts.extend(sample);
        accounts.sort_unstable();
        accounts.dedup();
        let mut holdings = Vec::with_capacity(accounts.len());
        for account in accounts {
            let holding = match account {
                Account::Deposit(id) => {
                    Holding::Deposit(read::deposit_state_at(&mut tx, id, block).await?)
                }
                Account::Credit(token, provider) => {
                    Holding::Credit(read::credit_at(&mut tx, (token, provider), block).await?)
                }
            };
            holdings.push((account, holding));
        }
        Ok(Comparison { block, holdings, next_sample })
    }

    /// Says in the audit log that money must not move, from a block of this time on, seconds, until a comparison finds no
    /// difference.
    pub async fn halt(&self, reason: &str, time: u64) -> Result<()> {
        let mut tx = self.0.begin().await?;
        audit::set_halt(&mut tx, INDEXER, Some(reason), millis(time)?).await?;
        store::commit(tx, "halt").await
    }

    /// Takes note that a comparison at a block of this time, seconds, found no difference.
    pub async fn compared(&self, comparison: &Comparison, time: u64) -> Result<()> {
        let mut tx = self.0.begin().await?;
        sqlx::query(
            "insert into comparison (one, block, next_sample) values (1, ?, ?)
             on conflict do update set block = excluded.block, next_sample = excluded.next_sample",
        )
        .bind(integer(comparison.block)?)
        .bind(integer(comparison.next_sample)?)
        .execute(&mut *tx)
        .await?;
        audit::set_halt(&mut tx, INDEXER, None, millis(time)?).await?;
        store::commit(tx, "comparison").await
    }
}

fn millis(time: u64) -> Result<Millis> {
    Ok(i64::try_from(time).map_err(|_| Error::Overflow("time"))?.saturating_mul(1000))
}

async fn insert_journals(
    tx: &mut Transaction<'static, Sqlite>,
    journals: &[BlockJournal],
) -> Result<()> {
    for BlockJournal { block, journal, entries, source } in journals {
        sqlx::query(
            "insert into journal (block, count, hash, entries, source) values (?, ?, ?, ?, ?)",
        )
        .bind(integer(*block)?)
        .bind(integer(journal.count)?)
        .bind(journal.hash.to_vec())
        .bind(entries.concat())
        .bind(source.as_str())
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}

fn block_journal(row: &SqliteRow) -> Result<BlockJournal> {
    Ok(BlockJournal {
        block: row.u64("block")?,
        journal: Journal { count: row.u64("count")?, hash: FixedBytes::new(row.bytes("hash")?) },
        entries: row.blob("entries")?.chunks_exact(32).map(B256::from_slice).collect(),
        source: row.text("source")?,
    })
}

/// Accounts that facts of the blocks after `above` up to `to` touched.
async fn touched(conn: &mut SqliteConnection, above: u64, to: u64) -> Result<Vec<Account>> {
    let rows = sqlx::query(
        "select deposit as id, null as token, null as provider from funded where block > ?1 and block <= ?2
         union select deposit, null, null from thawed where block > ?1 and block <= ?2
         union select deposit, null, null from withdrawn where block > ?1 and block <= ?2
         union select t.deposit, null, null from settled s join statement t on t.id = s.statement
             where s.block > ?1 and s.block <= ?2
         union select null, d.token, r.provider from settled s join statement t on t.id = s.statement
             join deposit d on d.id = t.deposit join \"row\" r on r.statement = t.id
             where s.block > ?1 and s.block <= ?2
         union select null, token, provider from claimed where block > ?1 and block <= ?2
         order by 1, 2, 3",
    )
    .bind(integer(above)?)
    .bind(integer(to)?)
    .fetch_all(conn)
    .await?;
    rows.iter().map(account).collect()
}

/// So many accounts from a place in the order of all.
async fn sample(conn: &mut SqliteConnection, offset: u64, count: u64) -> Result<Vec<Account>> {
    let rows = sqlx::query(
        "select id, null as token, null as provider from deposit
         union select null, d.token, r.provider from settled s join statement t on t.id = s.statement
             join deposit d on d.id = t.deposit join \"row\" r on r.statement = t.id
         order by 1, 2, 3 limit ?1 offset ?2",
    )
    .bind(integer(count)?)
    .bind(integer(offset)?)
    .fetch_all(conn)
    .await?;
    rows.iter().map(account).collect()
}

fn account(row: &SqliteRow) -> Result<Account> {
    if row.try_get::<Option<Vec<u8>>, _>("id")?.is_some() {
        return Ok(Account::Deposit(row.b256("id")?));
    }
    let provider = row.maybe_int("provider")?.ok_or(Error::Corrupt("provider"))?;
    let provider = u32::try_from(provider).map_err(|_| Error::Corrupt("provider"))?;
    Ok(Account::Credit(row.address("token")?, provider))
}
