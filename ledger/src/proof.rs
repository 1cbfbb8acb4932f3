//! Proofs: from one piece of work to the leaf, the statement, the transaction and the claim that paid it.

use std::fmt;

use alloy::{
    dyn_abi::Eip712Domain,
    primitives::{Address, B256},
};
use serde::Serialize;
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use crate::{
    Error, ProviderNumber, Result, Units,
    manifest::{Leaf, Tree, root_from_proof},
    read::{self, Reader},
    sql::Columns,
    verify,
};

/// Everything that was stated for a piece of work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// Who reported it.
    pub source: String,
    /// The source's own id.
    pub external_id: String,
    /// One entry per statement that names it, in the order of recording.
    pub payments: Vec<Payment>,
}

/// For people.
impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "work {:?} of source {:?}", self.external_id, self.source)?;
        if self.payments.is_empty() {
            f.write_str("\n  no statement names it")?;
        }
        self.payments.iter().try_for_each(|payment| payment.write(f))
    }
}

impl Payment {
    fn write(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { revision, base_units, provider, workload, manifest, .. } = self;
        let progress = self.progress.name();
        write!(
            out,
            "\n  revision {revision}: {base_units} base units to provider {provider}, {progress}"
        )?;
        write!(out, "\n    leaf {workload}")?;
        let count = self.siblings.len();
        write!(out, "\n    leads through {count} siblings to manifest {manifest}")?;
        let Self { digest, deposit, epoch, row, .. } = self;
        write!(
            out,
            "\n    statement {digest}: epoch {epoch} of deposit {deposit}, row of {row} units"
        )?;
        if let Some(Log { block, log_index, tx_hash }) = self.settled {
            write!(out, "\n    settled in block {block}, log {log_index}, transaction {tx_hash}")?;
        }
        if let Some(Claim { block, log_index, recipient, units }) = self.claimed {
            write!(
                out,
                "\n    claimed in block {block}, log {log_index}: {units} units to {recipient}"
            )?;
        }
        Ok(())
    }
}

/// How far a statement has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// Recorded, not signed.
    Proposed,
    /// Signed; anybody can settle it.
    Signed,
    /// In a block that is not final.
    Settled,
    /// In a final block.
    Final,
    /// Another statement has finally settled its epoch.
    Dead,
}

impl Progress {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Proposed => "proposed",
            Self::Signed => "signed",
            Self::Settled => "settled",
            Self::Final => "final",
            Self::Dead => "dead",
        }
    }
}

/// What one statement says of a piece of work, with the proof that it says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Payment {
    /// Revision that is paid for.
    pub revision: u32,
    /// Id of the workload in the leaf.
    pub workload: B256,
    /// Provider that is paid.
    pub provider: ProviderNumber,
    /// Base units, as decimal text; negative where it takes back.
    pub base_units: String,
    /// Sibling hashes from the leaf to the manifest's root.
    pub siblings: Vec<B256>,
    /// The manifest's root, which the signature covers.
    pub manifest: B256,
    /// Deposit that pays.
    pub deposit: B256,
    /// Epoch of the statement.
    pub epoch: u32,
    /// What the deposit has spent once it is settled.
    pub spent: Units,
    /// Digest that was signed.
    pub digest: B256,
    /// Units of the provider's row, in which the leaf is summed up.
    pub row: Units,
    /// How far the statement has come.
    pub progress: Progress,
    /// Where it was settled.
    pub settled: Option<Log>,
    /// Where the credit that it raised was first claimed afterwards; a claim takes the whole credit.
    pub claimed: Option<Claim>,
}

/// Where a log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Log {
    /// Its block.
    pub block: u64,
    /// Its index in the block.
    pub log_index: u64,
    /// The transaction that emitted it.
    pub tx_hash: B256,
}

/// A claim that paid a credit out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Claim {
    /// Its block.
    pub block: u64,
    /// Index of its log in the block.
    pub log_index: u64,
    /// Who got the tokens.
    pub recipient: Address,
    /// All that was claimed, units.
    pub units: Units,
}

impl Reader {
    /// The proof of a piece of work, checked: each leaf leads to its manifest's root, rows follow from the leaves, and the
    /// digest from all of it. `None` if the work is not known.
    pub async fn proof(&self, source: &str, external_id: &str) -> Result<Option<Proof>> {
        let mut tx = self.ledger().reader().begin().await?;
        let Some(item) = read::known_item(&mut tx, source, external_id).await? else {
            return Ok(None);
        };
        let rows = sqlx::query(
            "select l.statement, l.position, l.revision, s.block, s.log_index, s.tx_hash,
                exists (select 1 from signature g where g.statement = l.statement) as signed,
                s.block <= chain.finalised as final,
                exists (select 1 from settled s2 join statement t2 on t2.id = s2.statement
                    where t2.deposit = t.deposit and t2.epoch = t.epoch and s2.block <= chain.finalised) as retired
             from leaf l join statement t on t.id = l.statement left join settled s on s.statement = l.statement, chain
             where l.item = ? order by l.statement",
        )
        .bind(item.id)
        .fetch_all(&mut *tx)
        .await?;
        let domain = self.ledger().identity().domain();
        let mut payments = Vec::with_capacity(rows.len());
        for row in &rows {
            payments.push(payment(&mut tx, row, &domain).await?);
        }
        let (source, external_id) = (source.to_owned(), external_id.to_owned());
        Ok(Some(Proof { source, external_id, payments }))
    }
}

async fn payment(
    conn: &mut SqliteConnection,
    row: &SqliteRow,
    domain: &Eip712Domain,
) -> Result<Payment> {
    let id = row.int("statement")?;
    if let Some(difference) = verify::statement_differences(conn, id).await?.first() {
        return Err(Error::Unsignable(difference.to_string()));
    }
    let (statement, digest) = read::statement(conn, id).await?;
    if statement.digest(domain) != digest {
        return Err(Error::Corrupt("digest of a statement"));
    }
    let leaves: Vec<Leaf> =
        read::named_leaves(conn, id).await?.into_iter().map(|named| named.leaf).collect();
    let position =
        usize::try_from(row.int("position")?).map_err(|_| Error::Corrupt("position of a leaf"))?;
    let leaf = leaves.get(position).ok_or(Error::Corrupt("position of a leaf"))?;
    let siblings = Tree::new(&leaves).proof(leaf).ok_or(Error::Corrupt("leaf of a manifest"))?;
    if root_from_proof(leaf, &siblings) != statement.manifest {
        return Err(Error::Corrupt("manifest of a statement"));
    }
    let units = read::rows(conn, id).await?;
    let units = units.iter().find(|row| row.provider == leaf.provider).map(|row| row.units);
    let settled = match row.maybe_int("block")? {
        Some(_) => Some(Log {
            block: row.u64("block")?,
            log_index: row.u64("log_index")?,
            tx_hash: row.b256("tx_hash")?,
        }),
        None => None,
    };
    let progress = match settled {
        Some(_) if row.flag("final")? => Progress::Final,
        Some(_) => Progress::Settled,
        None if row.flag("retired")? => Progress::Dead,
        None if row.flag("signed")? => Progress::Signed,
        None => Progress::Proposed,
    };
    let claimed = match settled {
        Some(log) => claim_after(conn, &log, leaf.provider, statement.key.token).await?,
        None => None,
    };
    Ok(Payment {
        revision: row.u32("revision")?,
        workload: leaf.workload,
        provider: leaf.provider,
        base_units: leaf.amount.to_string(),
        siblings,
        manifest: statement.manifest,
        deposit: statement.key.id(),
        epoch: statement.epoch,
        spent: statement.spent,
        digest,
        row: units.ok_or(Error::Corrupt("row of a leaf"))?,
        progress,
        settled,
        claimed,
    })
}

async fn claim_after(
    conn: &mut SqliteConnection,
    log: &Log,
    provider: ProviderNumber,
    token: Address,
) -> Result<Option<Claim>> {
    let row = sqlx::query(
        "select block, log_index, recipient, units from claimed
         where provider = ?1 and token = ?2 and (block > ?3 or (block = ?3 and log_index > ?4))
         order by block, log_index limit 1",
    )
    .bind(i64::from(provider))
    .bind(token.to_vec())
    .bind(crate::sql::integer(log.block)?)
    .bind(crate::sql::integer(log.log_index)?)
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        Ok(Claim {
            block: row.u64("block")?,
            log_index: row.u64("log_index")?,
            recipient: row.address("recipient")?,
            units: row.units("units")?,
        })
    })
    .transpose()
}
