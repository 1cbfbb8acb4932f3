//! Facts: what the chain says. The indexer's side of the ledger.

use alloy::primitives::{Address, B256};
use contracts::eip712::DepositKey;
use sqlx::{Sqlite, SqliteConnection, Transaction};

use crate::{
    Error, Identity, Ledger, Millis, ProviderNumber, Result, Unit, Units, read,
    sql::{self, Columns, integer},
    statement, store,
};

/// A block, as far as the ledger needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: B256,
    /// Hash of the block before it.
    pub parent: B256,
    /// Seconds since 1970.
    pub time: u64,
}

impl Block {
    /// When it was made, ms since 1970.
    pub fn time_ms(&self) -> Millis {
        i64::try_from(self.time).unwrap_or(i64::MAX).saturating_mul(1000)
    }
}

/// One event of the contract.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields are those of the events in the Solidity interfaces")]
pub enum Event {
    TokenRegistered {
        token: Address,
        decimals: u8,
    },
    Funded {
        key: DepositKey,
        sender: Address,
        units: Units,
    },
    Thawed {
        deposit: B256,
        units: Units,
        ends: u64,
    },
    Withdrawn {
        deposit: B256,
        recipient: Address,
        units: Units,
    },
    Settled {
        deposit: B256,
        epoch: u32,
        spent: Units,
        manifest: B256,
        rows: Vec<u8>,
    },
    Skipped {
        deposit: B256,
        digest: B256,
        reason: u8,
    },
    Registered {
        provider: ProviderNumber,
        payout: Address,
    },
    PayoutSet {
        provider: ProviderNumber,
        payout: Address,
        claim_nonce: u64,
    },
    Claimed {
        provider: ProviderNumber,
        token: Address,
        recipient: Address,
        units: Units,
        claim_nonce: u64,
    },
    ClaimFailed {
        provider: ProviderNumber,
        token: Address,
        units: Units,
    },
}

/// An event and where in its block it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// Index of the log in its block.
    pub log_index: u64,
    /// Transaction that caused it.
    pub tx_hash: B256,
    /// The event.
    pub event: Event,
}

/// A block with the contract's events in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexedBlock {
    /// The block.
    pub block: Block,
    /// Its events, in order.
    pub facts: Vec<Fact>,
}

/// The indexer's capability: it alone writes facts.
#[derive(Debug, Clone)]
pub struct ChainWriter(pub(crate) Ledger);

impl ChainWriter {
    /// The writer of a ledger. A process has one.
    pub const fn new(ledger: Ledger) -> Self {
        Self(ledger)
    }

    /// The last indexed block.
    pub async fn checkpoint(&self) -> Result<Option<Block>> {
        let mut conn = self.0.reader().acquire().await?;
        read::checkpoint(&mut conn).await
    }

    /// The last indexed block at or below `number`. Below finality, blocks without events may be missing.
    pub async fn block_at_or_below(&self, number: u64) -> Result<Option<Block>> {
        let mut conn = self.0.reader().acquire().await?;
        read::block_at_or_below(&mut conn, number).await
    }

    /// Highest indexed block that is final, 0 before there is one.
    pub async fn finalised(&self) -> Result<u64> {
        let mut conn = self.0.reader().acquire().await?;
        read::finalised(&mut conn).await
    }

    /// Appends blocks, ascending, in one commit. A block right after the checkpoint must name it as its parent; a gap is
    /// for the caller to justify, by finality or by headers it has checked.
    pub async fn apply(&self, blocks: &[IndexedBlock]) -> Result<()> {
        let mut tx = self.0.begin().await?;
        self.append(&mut tx, blocks).await?;
        store::commit(tx, "blocks").await
    }

    pub(crate) async fn append(
        &self,
        tx: &mut Transaction<'static, Sqlite>,
        blocks: &[IndexedBlock],
    ) -> Result<()> {
        let mut last = read::checkpoint(&mut *tx).await?;
        for IndexedBlock { block, facts } in blocks {
            let follows = last.is_none_or(|last| {
                block.number > last.number
                    && (block.number > last.number + 1 || block.parent == last.hash)
            });
            if !follows {
                let Block { number, parent, .. } = *block;
                return Err(Error::NotTheNextBlock { number, parent });
            }
            insert_block(&mut *tx, block).await?;
            for fact in facts {
                insert_fact(tx, self.0.identity(), block.number, fact).await?;
            }
            last = Some(*block);
        }
        Ok(())
    }

    /// Undoes every block above `fork`: their facts go, and every status that rested on them falls back by itself.
    pub async fn rollback_to(&self, fork: u64) -> Result<()> {
        let mut tx = self.0.begin().await?;
        let finalised = read::finalised(&mut tx).await?;
        if fork < finalised {
            return Err(Error::FinalityViolated { fork, finalised });
        }
        sqlx::query("delete from block where number > ?")
            .bind(integer(fork)?)
            .execute(&mut *tx)
            .await?;
        store::commit(tx, "rollback").await
    }

    /// Marks every indexed block up to `number` as final. Never moves back. Items that are now finally paid leave the
    /// open ones, and blocks that no longer serve a fork search are dropped.
    pub async fn set_finalised(&self, number: u64) -> Result<()> {
        let mut tx = self.0.begin().await?;
        let before = read::finalised(&mut tx).await?;
        let indexed =
            read::block_at_or_below(&mut tx, number).await?.map_or(0, |block| block.number);
        if indexed <= before {
            return Ok(());
        }
        sqlx::query("update chain set finalised = ?")
            .bind(integer(indexed)?)
            .execute(&mut *tx)
            .await?;
        close_items(&mut tx, before, indexed).await?;
        drop_empty_blocks(&mut tx, before, indexed).await?;
        store::commit(tx, "finality").await
    }
}

async fn insert_block(tx: &mut SqliteConnection, block: &Block) -> Result<()> {
    sqlx::query("insert into block (number, hash, parent, time) values (?, ?, ?, ?)")
        .bind(integer(block.number)?)
        .bind(block.hash.to_vec())
        .bind(block.parent.to_vec())
        .bind(integer(block.time)?)
        .execute(tx)
        .await?;
    Ok(())
}

/// Inserts one fact, and the content it refers to if it is new.
#[allow(clippy::too_many_lines, reason = "one arm per event, each a single statement")]
async fn insert_fact(
    tx: &mut Transaction<'static, Sqlite>,
    identity: &Identity,
    block: u64,
    fact: &Fact,
) -> Result<()> {
    let place = (integer(block)?, integer(fact.log_index)?);
    let query = match &fact.event {
        Event::TokenRegistered { token, decimals } => {
            let unit = integer(Unit::of_decimals(*decimals)?.base_units())?;
            sqlx::query("insert into token_registered (block, log_index, token, decimals, unit) values (?, ?, ?, ?, ?)")
                .bind(place.0)
                .bind(place.1)
                .bind(token.to_vec())
                .bind(i64::from(*decimals))
                .bind(unit)
        }
        Event::Funded { key, sender, units } => {
            insert_deposit(tx, key).await?;
            sqlx::query("insert into funded (block, log_index, deposit, sender, units) values (?, ?, ?, ?, ?)")
                .bind(place.0)
                .bind(place.1)
                .bind(key.id().to_vec())
                .bind(sender.to_vec())
                .bind(sql::units(*units))
        }
        Event::Thawed { deposit, units, ends } => {
            sqlx::query("insert into thawed (block, log_index, deposit, units, ends) values (?, ?, ?, ?, ?)")
                .bind(place.0)
                .bind(place.1)
                .bind(deposit.to_vec())
                .bind(sql::units(*units))
                .bind(integer(*ends)?)
        }
        Event::Withdrawn { deposit, recipient, units } => {
            sqlx::query("insert into withdrawn (block, log_index, deposit, recipient, units) values (?, ?, ?, ?, ?)")
                .bind(place.0)
                .bind(place.1)
                .bind(deposit.to_vec())
                .bind(recipient.to_vec())
                .bind(sql::units(*units))
        }
        Event::Settled { deposit, epoch, spent, manifest, rows } => {
            let content = Content {
                deposit: *deposit,
                epoch: *epoch,
                spent: *spent,
                manifest: *manifest,
                digest: statement::digest(&identity.domain(), *deposit, *epoch, *spent, (*manifest, rows)),
            };
            let id = ensure_statement(tx, &content, rows).await?;
            sqlx::query("insert into settled (block, log_index, statement, tx_hash) values (?, ?, ?, ?)")
                .bind(place.0)
                .bind(place.1)
                .bind(id)
                .bind(fact.tx_hash.to_vec())
        }
        Event::Skipped { deposit, digest, reason } => {
            sqlx::query("insert into skipped (block, log_index, deposit, digest, reason) values (?, ?, ?, ?, ?)")
                .bind(place.0)
                .bind(place.1)
                .bind(deposit.to_vec())
                .bind(digest.to_vec())
                .bind(i64::from(*reason))
        }
        Event::Registered { provider, payout } => {
            sqlx::query("insert into registered (block, log_index, provider, payout) values (?, ?, ?, ?)")
                .bind(place.0)
                .bind(place.1)
                .bind(i64::from(*provider))
                .bind(payout.to_vec())
        }
        Event::PayoutSet { provider, payout, claim_nonce } => {
            sqlx::query("insert into payout_set (block, log_index, provider, payout, claim_nonce) values (?, ?, ?, ?, ?)")
                .bind(place.0)
                .bind(place.1)
                .bind(i64::from(*provider))
                .bind(payout.to_vec())
                .bind(integer(*claim_nonce)?)
        }
        Event::Claimed { provider, token, recipient, units, claim_nonce } => {
            sqlx::query(
                "insert into claimed (block, log_index, provider, token, recipient, units, claim_nonce)
                 values (?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(place.0)
            .bind(place.1)
            .bind(i64::from(*provider))
            .bind(token.to_vec())
            .bind(recipient.to_vec())
            .bind(sql::units(*units))
            .bind(integer(*claim_nonce)?)
        }
        Event::ClaimFailed { provider, token, units } => {
            sqlx::query("insert into claim_failed (block, log_index, provider, token, units) values (?, ?, ?, ?, ?)")
                .bind(place.0)
                .bind(place.1)
                .bind(i64::from(*provider))
                .bind(token.to_vec())
                .bind(sql::units(*units))
        }
    };
    query.execute(&mut **tx).await?;
    Ok(())
}

/// Inserts a deposit's key if it is new.
pub(crate) async fn insert_deposit(tx: &mut SqliteConnection, key: &DepositKey) -> Result<()> {
    sqlx::query(
        "insert into deposit (id, requestor, signer, cosigner, token, salt) values (?, ?, ?, ?, ?, ?)
         on conflict do nothing",
    )
    .bind(key.id().to_vec())
    .bind(key.requestor.to_vec())
    .bind(key.signer.to_vec())
    .bind(key.cosigner.to_vec())
    .bind(key.token.to_vec())
    .bind(key.salt.to_vec())
    .execute(tx)
    .await?;
    Ok(())
}

/// Everything about a statement but its rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Content {
    pub(crate) deposit: B256,
    pub(crate) epoch: u32,
    pub(crate) spent: Units,
    pub(crate) manifest: B256,
    pub(crate) digest: B256,
}

/// Row id of a statement seen on chain; one that this ledger did not propose is stored without leaves.
async fn ensure_statement(
    tx: &mut SqliteConnection,
    content: &Content,
    rows: &[u8],
) -> Result<i64> {
    let known = sqlx::query("select id from statement where digest = ?")
        .bind(content.digest.to_vec())
        .fetch_optional(&mut *tx)
        .await?;
    if let Some(row) = known {
        return row.int("id");
    }
    let id = insert_statement(tx, content, None).await?;
    for (provider, units) in contracts::rows::decode(rows)? {
        sqlx::query("insert into \"row\" (statement, provider, units) values (?, ?, ?)")
            .bind(id)
            .bind(i64::from(provider))
            .bind(sql::units(Units::new(units)))
            .execute(&mut *tx)
            .await?;
    }
    Ok(id)
}

/// Inserts the statement itself; its rows are the caller's. `ours` is the operator's fee in ten-thousandths if this ledger
/// proposed it.
pub(crate) async fn insert_statement(
    tx: &mut SqliteConnection,
    content: &Content,
    ours: Option<u16>,
) -> Result<i64> {
    let done = sqlx::query(
        "insert into statement (deposit, epoch, spent, manifest, digest, ours, fee_bps)
         values (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(content.deposit.to_vec())
    .bind(i64::from(content.epoch))
    .bind(sql::units(content.spent))
    .bind(content.manifest.to_vec())
    .bind(content.digest.to_vec())
    .bind(i64::from(ours.is_some()))
    .bind(ours.map(i64::from))
    .execute(tx)
    .await?;
    Ok(done.last_insert_rowid())
}

/// Brings the open ones up to date with blocks `before..=now` being final: an item may be done when a statement that names it
/// is paid, or is dead because another one has settled its epoch.
async fn close_items(tx: &mut SqliteConnection, before: u64, now: u64) -> Result<()> {
    let touched = sqlx::query(
        "select distinct l.item from settled s join statement f on f.id = s.statement
         join statement t on t.deposit = f.deposit and t.epoch = f.epoch
         join leaf l on l.statement = t.id join open o on o.item = l.item
         where s.block > ? and s.block <= ?",
    )
    .bind(integer(before)?)
    .bind(integer(now)?)
    .fetch_all(&mut *tx)
    .await?;
    for row in touched {
        read::refresh_open(tx, row.int("item")?).await?;
    }
    Ok(())
}

/// Drops final blocks that no fact hangs on. The newest final one stays: it is where a fork search ends.
async fn drop_empty_blocks(tx: &mut SqliteConnection, before: u64, now: u64) -> Result<()> {
    sqlx::query(
        "delete from block where number >= ? and number < ?
         and not exists (select 1 from token_registered f where f.block = number)
         and not exists (select 1 from funded f where f.block = number)
         and not exists (select 1 from thawed f where f.block = number)
         and not exists (select 1 from withdrawn f where f.block = number)
         and not exists (select 1 from settled f where f.block = number)
         and not exists (select 1 from skipped f where f.block = number)
         and not exists (select 1 from registered f where f.block = number)
         and not exists (select 1 from payout_set f where f.block = number)
         and not exists (select 1 from claimed f where f.block = number)
         and not exists (select 1 from claim_failed f where f.block = number)",
    )
    .bind(integer(before)?)
    .bind(integer(now)?)
    .execute(tx)
    .await?;
    Ok(())
}
