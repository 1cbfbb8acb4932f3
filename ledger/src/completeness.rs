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
    next: Place,
}

/// Where comparisons go on. What facts touch in a stretch of blocks is compared before what they touch in the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Place {
    /// What facts touched up to here is compared.
    block: u64,
    /// Last block of the stretch after it, of which the first `account` accounts are compared.
    until: u64,
    account: u64,
    /// Where the rotating sample goes on.
    sample: u64,
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

    /// Last of the blocks of which everything that facts touched is compared with the contract; 0 before the first comparison.
    pub async fn compared_to(&self) -> Result<u64> {
        let mut conn = self.0.reader().acquire().await?;
        Ok(place(&mut conn).await?.block)
    }

    /// What is to be compared with the contract at the final block `block`: what differed before, at most `changed` accounts
    /// that facts have touched and that were not compared since, and the next `sampled` of all. What facts touched besides is
    /// left to the comparisons after it.
    pub async fn comparison(&self, block: u64, changed: u64, sampled: u64) -> Result<Comparison> {
        let mut tx = self.0.reader().begin().await?;
        let mut next = place(&mut tx).await?;
        let mut accounts = differing(&mut tx).await?;
        if next.until <= next.block {
            next.until = stretch(&mut tx, (next.block, block), changed).await?;
            next.account = 0;
        }
        let one_more = changed.saturating_add(1);
        let mut touched =
            touched(&mut tx, (next.block, next.until), (next.account, one_more)).await?;
        if touched.len() as u64 > changed {
            touched.pop();
            next.account = next.account.saturating_add(changed);
        } else {
            (next.block, next.account) = (next.until, 0);
        }
        accounts.extend(touched);
        let sample = sample(&mut tx, next.sample, sampled).await?;
        next.sample = if sample.is_empty() { 0 } else { next.sample.saturating_add(sampled) };
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
        Ok(Comparison { block, holdings, next })
    }

    /// Says in the audit log that money must not move, from a block of this time on, seconds, because an account differs. That
    /// holds until a comparison which includes it finds no difference.
    pub async fn halt(&self, account: &Account, reason: &str, time: u64) -> Result<()> {
        let mut tx = self.0.begin().await?;
        let (id, token, provider) = match account {
            Account::Deposit(id) => (Some(id.to_vec()), None, None),
            Account::Credit(token, provider) => (None, Some(token.to_vec()), Some(*provider)),
        };
        sqlx::query(
            "insert into differing (id, token, provider) select ?1, ?2, ?3 where not exists (
                select 1 from differing where id is ?1 and token is ?2 and provider is ?3)",
        )
        .bind(id)
        .bind(token)
        .bind(provider)
        .execute(&mut *tx)
        .await?;
        audit::set_halt(&mut tx, INDEXER, Some(reason), millis(time)?).await?;
        store::commit(tx, "halt").await
    }

    /// Takes note that a comparison at a block of this time, seconds, found no difference. That lifts a halt if it included
    /// everything that differed.
    pub async fn compared(&self, comparison: &Comparison, time: u64) -> Result<()> {
        let mut tx = self.0.begin().await?;
        let Place { block, until, account, sample } = comparison.next;
        sqlx::query(
            "insert into comparison (one, block, until_block, next_account, next_sample) values (1, ?, ?, ?, ?)
             on conflict do update set block = excluded.block, until_block = excluded.until_block,
                next_account = excluded.next_account, next_sample = excluded.next_sample",
        )
        .bind(integer(block)?)
        .bind(integer(until)?)
        .bind(integer(account)?)
        .bind(integer(sample)?)
        .execute(&mut *tx)
        .await?;
        let is_included =
            |account: &Account| comparison.holdings.iter().any(|(included, _)| included == account);
        if differing(&mut tx).await?.iter().all(is_included) {
            sqlx::query("delete from differing").execute(&mut *tx).await?;
            audit::set_halt(&mut tx, INDEXER, None, millis(time)?).await?;
        }
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

/// Where comparisons go on.
async fn place(conn: &mut SqliteConnection) -> Result<Place> {
    let last = sqlx::query("select * from comparison").fetch_optional(conn).await?;
    let Some(row) = last else { return Ok(Place::default()) };
    Ok(Place {
        block: row.u64("block")?,
        until: row.u64("until_block")?,
        account: row.u64("next_account")?,
        sample: row.u64("next_sample")?,
    })
}

/// Accounts of which the contract showed something else.
async fn differing(conn: &mut SqliteConnection) -> Result<Vec<Account>> {
    let rows = sqlx::query("select id, token, provider from differing").fetch_all(conn).await?;
    rows.iter().map(account).collect()
}

/// Last block of the next stretch after `above`, at most `to`: as far as so many facts go that touch accounts, so that what is
/// looked at for one comparison stays within bounds however much is left.
async fn stretch(conn: &mut SqliteConnection, (above, to): (u64, u64), facts: u64) -> Result<u64> {
    let row = sqlx::query(
        "select block from funded where block > ?1 and block <= ?2
         union all select block from thawed where block > ?1 and block <= ?2
         union all select block from withdrawn where block > ?1 and block <= ?2
         union all select block from settled where block > ?1 and block <= ?2
         union all select block from claimed where block > ?1 and block <= ?2
         order by 1 limit 1 offset ?3",
    )
    .bind(integer(above)?)
    .bind(integer(to)?)
    .bind(integer(facts)?)
    .fetch_optional(conn)
    .await?;
    row.map_or(Ok(to), |row| row.u64("block"))
}

/// Accounts that facts of the blocks after `above` up to `to` touched, deposits first: so many from a place among them.
async fn touched(
    conn: &mut SqliteConnection,
    (above, to): (u64, u64),
    (offset, count): (u64, u64),
) -> Result<Vec<Account>> {
    let rows = sqlx::query(
        "select * from (
             select deposit as id, null as token, null as provider from funded where block > ?1 and block <= ?2
             union select deposit, null, null from thawed where block > ?1 and block <= ?2
             union select deposit, null, null from withdrawn where block > ?1 and block <= ?2
             union select t.deposit, null, null from settled s join statement t on t.id = s.statement
                 where s.block > ?1 and s.block <= ?2
             union select null, d.token, r.provider from settled s join statement t on t.id = s.statement
                 join deposit d on d.id = t.deposit join \"row\" r on r.statement = t.id
                 where s.block > ?1 and s.block <= ?2
             union select null, token, provider from claimed where block > ?1 and block <= ?2)
         order by id is null, id, token, provider limit ?3 offset ?4",
    )
    .bind(integer(above)?)
    .bind(integer(to)?)
    .bind(integer(count)?)
    .bind(integer(offset)?)
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
