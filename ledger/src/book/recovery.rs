//! Recovery: noticing what was signed and is not known here, and bringing it back from manifests.
//!
//! A restored or lost database costs availability, never money: while the chain or a folder of manifests knows a statement
//! that this ledger did not propose, nothing is paid from its deposit or from another of the same organisation.

use alloy::primitives::B256;
use sqlx::SqliteConnection;

use super::{
    BookWriter,
    intake::{NewItem, insert_item, stated_amount},
    statements::{insert_leaves, insert_own},
};
use crate::{
    Error, Millis, Result,
    audit::{self, Event},
    chain::{Content, insert_deposit},
    manifest::{CARRY, FEE, Leaf, Paid, Secret, Tree},
    read, rules,
    sql::{self, Columns, integer},
    statement::{self, Row, Statement},
    store,
};

/// A statement that somebody else than this ledger knows, and where it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Its deposit.
    pub deposit: B256,
    /// Its epoch.
    pub epoch: u32,
    /// Its digest.
    pub digest: B256,
    /// For people: the name of a file.
    pub seen: String,
    /// The organisation that its manifest names, where that can be read.
    pub organisation: Option<String>,
}

/// The work behind a leaf of a manifest, as far as its natural key and what no revision may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// Who reported it.
    pub source: String,
    /// The source's own id.
    pub external_id: String,
    /// The revision that the leaf pays for.
    pub revision: u32,
    /// What statements had settled of the work when the leaf was stated, base units; `None` if the manifest does not say.
    pub settled: Option<i128>,
    /// Which machine did it.
    pub machine: String,
    /// Start of the work.
    pub started_ms: Millis,
    /// End of the work.
    pub stopped_ms: Millis,
    /// Hash over everything that a revision may not change.
    pub fixed: B256,
}

/// A statement with everything that its manifest says of it.
#[derive(Debug, Clone)]
pub struct Import {
    /// The statement.
    pub statement: Statement,
    /// The digest that the manifest names.
    pub digest: B256,
    /// Its rows, carries included.
    pub rows: Vec<Row>,
    /// Its leaves, in their order, and the work behind each; none behind a carry or a fee.
    pub leaves: Vec<(Leaf, Option<Work>)>,
    /// The organisation that its deposit paid for.
    pub organisation: String,
    /// The operator's fee, ten-thousandths.
    pub fee_bps: u16,
}

impl BookWriter {
    /// Notices statements that were seen outside and are not known here, and those that the chain has settled. Each
    /// freezes its deposit from now on, for whom its manifest names too, and is told in the audit log once. Returns how many
    /// are new.
    pub async fn notice(&self, seen: &[Sighting], now: Millis) -> Result<usize> {
        let mut conn = self.0.reader().acquire().await?;
        let mut unknown = settled_by_others(&mut conn).await?;
        for sighting in seen {
            if !read::is_own(&mut conn, sighting.digest).await? {
                unknown.push(sighting.clone());
            }
        }
        drop(conn);
        if unknown.is_empty() {
            return Ok(0);
        }
        let mut tx = self.0.begin().await?;
        let noticed = insert_unknown(&mut tx, unknown, now).await?;
        store::commit(tx, "notice").await?;
        Ok(noticed)
    }

    /// Brings back a statement from its manifest: its leaves, and the items behind them, so that what it paid is known.
    /// Returns false if it is known already. Its signature need not exist.
    ///
    /// Refused if digest, root, rows and workload ids do not follow from what the manifest says, or if the statement could
    /// settle and would pay once more what others have paid.
    pub async fn import(&self, import: &Import, secret: &Secret, now: Millis) -> Result<bool> {
        let mut tx = self.0.begin().await?;
        if read::is_own(&mut tx, import.digest).await? {
            return Ok(false);
        }
        if import.statement.digest(&self.0.identity().domain()) != import.digest {
            return Err(unimportable(import, "its content does not have its digest"));
        }
        refuse_false(&mut tx, import, secret).await?;
        insert_deposit(&mut tx, &import.statement.key).await?;
        insert_paid_for(&mut tx, import.statement.key.id(), &import.organisation).await?;
        let id = insert_own(&mut tx, &content(import), import.fee_bps, &import.rows).await?;
        let mut leaves = Vec::with_capacity(import.leaves.len());
        let mut items = Vec::new();
        for (leaf, work) in &import.leaves {
            let paid = match work {
                Some(work) => {
                    let item = ensure_item(&mut tx, import, work).await?;
                    items.push(item);
                    Some(Paid { item, revision: work.revision, settled: work.settled })
                }
                None => None,
            };
            leaves.push(Leaf { paid, ..leaf.clone() });
        }
        insert_leaves(&mut tx, id, &leaves).await?;
        refuse_overpaying(&mut tx, id, import).await?;
        let checkpoint = read::checkpoint(&mut tx).await?;
        sqlx::query("insert into imported (statement, until_block, at) values (?, ?, ?)")
            .bind(id)
            .bind(integer(checkpoint.map_or(0, |block| block.number))?)
            .bind(now)
            .execute(&mut *tx)
            .await?;
        for item in items {
            restate(&mut tx, item, id).await?;
            read::refresh_open(&mut tx, item).await?;
        }
        let detail = format!("epoch {}, statement {}", import.statement.epoch, import.digest);
        let deposit = import.statement.key.id().to_string();
        tell(&mut tx, ("operator", "import"), &deposit, &detail, now).await?;
        store::commit(tx, "import").await?;
        Ok(true)
    }

    /// Takes the operator's word that what a frozen deposit's unknown epochs paid ended before `until`: work that ended before
    /// of the organisations that it freezes is regarded as paid, and what is known of by now of those epochs freezes nothing any
    /// more. The organisations are the ones that it ever paid for, or all if that is not known. Returns the highest of the epochs.
    pub async fn cut_off(
        &self,
        deposit: B256,
        until: Millis,
        reason: &str,
        now: Millis,
    ) -> Result<u32> {
        let mut tx = self.0.begin().await?;
        let settled = settled_by_others(&mut tx).await?;
        insert_unknown(&mut tx, settled, now).await?;
        let at = after_what_was_noticed(&mut tx, deposit, now).await?;
        let mut frozen = Vec::new();
        for row in sqlx::query("select name from organisation").fetch_all(&mut *tx).await? {
            let name = row.text("name")?;
            let unknown = read::unknown(&mut tx, &name).await?;
            let epochs = unknown.iter().filter(|freeze| freeze.deposit == deposit).map(|f| f.epoch);
            frozen.extend(epochs.max().map(|epoch| (name, epoch)));
        }
        let Some(epoch) = frozen.iter().map(|(_, epoch)| *epoch).max() else {
            return Err(nothing_to_cut_off(&mut tx, deposit).await?);
        };
        for (organisation, _) in &frozen {
            let cut = (deposit, epoch, until);
            cut_off_one(&mut tx, organisation, cut, (reason, at)).await?;
        }
        let detail = format!(
            "to epoch {epoch}, work that ended before {until} ms is regarded as paid: {reason}"
        );
        tell(&mut tx, ("operator", "cut-off"), &deposit.to_string(), &detail, at).await?;
        store::commit(tx, "cut-off").await?;
        Ok(epoch)
    }
}

/// Remembers statements that are not known here and tells of those that are new, after every cut-off by whatever clock: none
/// covers them. Returns how many are new.
async fn insert_unknown(
    conn: &mut SqliteConnection,
    unknown: Vec<Sighting>,
    now: Millis,
) -> Result<usize> {
    let last = sqlx::query("select max(at) as at from cut_off").fetch_one(&mut *conn).await?;
    let now = last.maybe_int("at")?.map_or(now, |last| now.max(last.saturating_add(1)));
    let mut noticed = 0;
    for Sighting { deposit, epoch, digest, seen, organisation } in unknown {
        let done = sqlx::query(
            "insert into unknown_statement (digest, deposit, epoch, seen, at) values (?, ?, ?, ?, ?)
             on conflict do nothing",
        )
        .bind(digest.to_vec())
        .bind(deposit.to_vec())
        .bind(i64::from(epoch))
        .bind(&seen)
        .bind(now)
        .execute(&mut *conn)
        .await?;
        if let Some(organisation) = organisation {
            insert_paid_for(conn, deposit, &organisation).await?;
        }
        if done.rows_affected() > 0 {
            noticed += 1;
            let detail = format!("epoch {epoch}, statement {digest}, seen in {seen}");
            tell(conn, ("relayer", "freeze"), &deposit.to_string(), &detail, now).await?;
        }
    }
    Ok(noticed)
}

/// Time of a cut-off, which covers all that was noticed of its deposit before, by whatever clock and name of a file.
async fn after_what_was_noticed(
    conn: &mut SqliteConnection,
    deposit: B256,
    now: Millis,
) -> Result<Millis> {
    let last = sqlx::query(
        "select max(at) as at from unknown_statement
         where deposit = ?1 or digest in (select digest from statement where deposit = ?1)",
    )
    .bind(deposit.to_vec())
    .fetch_one(conn)
    .await?;
    Ok(last.maybe_int("at")?.map_or(now, |last| last.max(now)))
}

/// Remembers that a deposit has paid for an organisation, if that is one of the configuration's.
async fn insert_paid_for(
    conn: &mut SqliteConnection,
    deposit: B256,
    organisation: &str,
) -> Result<()> {
    sqlx::query(
        "insert or ignore into paid_for (deposit, organisation) select ?, name from organisation where name = ?",
    )
    .bind(deposit.to_vec())
    .bind(organisation)
    .execute(conn)
    .await?;
    Ok(())
}

/// Why nothing can be cut off of a deposit that freezes nobody.
async fn nothing_to_cut_off(conn: &mut SqliteConnection, deposit: B256) -> Result<Error> {
    let paid_for = sqlx::query("select 1 from paid_for where deposit = ? limit 1")
        .bind(deposit.to_vec())
        .fetch_optional(conn)
        .await?;
    Ok(Error::Unimportable(if paid_for.is_some() {
        format!("nothing of deposit {deposit} is unknown; there is nothing to cut off")
    } else {
        format!("deposit {deposit} pays for no organisation of the configuration")
    }))
}

/// Records a cut-off for one organisation, whose work that ended before it is regarded as paid from now on.
async fn cut_off_one(
    conn: &mut SqliteConnection,
    organisation: &str,
    (deposit, epoch, until): (B256, u32, Millis),
    (reason, at): (&str, Millis),
) -> Result<()> {
    sqlx::query(
        "insert into cut_off (deposit, organisation, epoch, until_ms, reason, at) values (?, ?, ?, ?, ?, ?)",
    )
    .bind(deposit.to_vec())
    .bind(organisation)
    .bind(i64::from(epoch))
    .bind(until)
    .bind(reason)
    .bind(at)
    .execute(&mut *conn)
    .await?;
    let items = sqlx::query(
        "select o.item from open o join item i on i.id = o.item where i.organisation = ? and i.stopped_ms < ?",
    )
    .bind(organisation)
    .bind(until)
    .fetch_all(&mut *conn)
    .await?;
    for row in items {
        read::refresh_open(conn, row.int("item")?).await?;
    }
    Ok(())
}

pub(super) async fn tell(
    conn: &mut SqliteConnection,
    (actor, action): (&str, &str),
    subject: &str,
    detail: &str,
    at: Millis,
) -> Result<()> {
    audit::append(conn, &Event { at, actor, action, subject, detail }).await
}

fn unimportable(import: &Import, why: &str) -> Error {
    let (digest, deposit) = (import.digest, import.statement.key.id());
    Error::Unimportable(format!("statement {digest} of deposit {deposit}: {why}"))
}

/// Settled statements that this ledger did not propose and has not noticed yet, of deposits that paid for an organisation or
/// name a key that attests here.
async fn settled_by_others(conn: &mut SqliteConnection) -> Result<Vec<Sighting>> {
    let rows = sqlx::query(
        "select t.deposit, t.epoch, t.digest, s.block from settled s join statement t on t.id = s.statement
         where t.deposit in (
                select deposit from paid_for
                union select id from deposit where signer in (select attester from organisation))
            and t.ours = 0 and not exists (select 1 from unknown_statement u where u.digest = t.digest)
         order by s.block, s.log_index",
    )
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Sighting {
                deposit: row.b256("deposit")?,
                epoch: row.u32("epoch")?,
                digest: row.b256("digest")?,
                seen: format!("block {}", row.u64("block")?),
                organisation: None,
            })
        })
        .collect()
}

fn content(Import { statement, digest, .. }: &Import) -> Content {
    Content {
        deposit: statement.key.id(),
        epoch: statement.epoch,
        spent: statement.spent,
        manifest: statement.manifest,
        digest: *digest,
    }
}

/// Refuses a manifest whose parts do not follow from each other.
async fn refuse_false(conn: &mut SqliteConnection, import: &Import, secret: &Secret) -> Result<()> {
    let refuse = |why: &str| Err(unimportable(import, why));
    let Some((token, _)) = read::registered(conn, import.statement.key.token).await? else {
        return refuse("its token is not known yet; let serve read the chain first");
    };
    let leaves: Vec<_> = import.leaves.iter().map(|(leaf, _)| leaf.clone()).collect();
    if Tree::new(&leaves).root() != import.statement.manifest {
        return refuse("its leaves do not have its root");
    }
    if rules::rows_of(&leaves, token.unit)? != import.rows
        || statement::pack(&import.rows)? != import.statement.rows
    {
        return refuse("its rows do not follow from its leaves");
    }
    let secret = secret.of_organisation(&import.organisation);
    for (leaf, work) in &import.leaves {
        let Some(Work { source, external_id, revision, .. }) = work else {
            if [CARRY, FEE].contains(&leaf.workload) {
                continue;
            }
            return refuse("a leaf does not say which work it pays");
        };
        if secret.workload_id(source, external_id, *revision) != leaf.workload {
            return refuse(
                "a leaf is not the work that it names under this installation's secret; restore keys/secret first",
            );
        }
    }
    let is_known = sqlx::query("select 1 from organisation where name = ?")
        .bind(&import.organisation)
        .fetch_optional(&mut *conn)
        .await?
        .is_some();
    if !is_known {
        return refuse("its organisation is not in the configuration");
    }
    let rival = sqlx::query(
        "select 1 from statement where deposit = ? and epoch = ? and spent = ? and ours = 1",
    )
    .bind(import.statement.key.id().to_vec())
    .bind(i64::from(import.statement.epoch))
    .bind(sql::units(import.statement.spent))
    .fetch_optional(&mut *conn)
    .await?;
    if rival.is_some() {
        return refuse("this ledger has another candidate of the same epoch and sum");
    }
    Ok(())
}

/// Refuses a manifest of a statement that could settle, be it after a reorg, and would pay work once more: it was taken in
/// again, and stated or paid, while nobody here knew of this one.
async fn refuse_overpaying(conn: &mut SqliteConnection, id: i64, import: &Import) -> Result<()> {
    let finalised = read::finalised(conn).await?;
    let state = read::deposit_state_at(conn, import.statement.key.id(), finalised).await?;
    if import.statement.epoch <= state.epoch {
        return Ok(());
    }
    match read::paid_again(conn, id).await? {
        Some(why) => Err(unimportable(
            import,
            &format!("{why}; see what its deposit has settled, then run recover again"),
        )),
        None => Ok(()),
    }
}

/// What statements have said of a revision stands, also where it was accepted here before they were brought back, at whatever
/// rate.
async fn restate(conn: &mut SqliteConnection, item: i64, statement: i64) -> Result<()> {
    let accepted =
        sqlx::query(concat!("select revision, amount from ", read::promised!(), " where item = ?"))
            .bind(item)
            .fetch_all(&mut *conn)
            .await?;
    for row in accepted {
        let revision = row.u32("revision")?;
        let stated = stated_amount(conn, item, revision).await?;
        if let Some(stated) = stated.filter(|stated| row.amount("amount").ok() != Some(*stated)) {
            sqlx::query(
                "insert into restated (item, revision, amount, statement) values (?, ?, ?, ?)",
            )
            .bind(item)
            .bind(i64::from(revision))
            .bind(sql::amount(stated))
            .bind(statement)
            .execute(&mut *conn)
            .await?;
        }
    }
    Ok(())
}

/// Row id of the item behind a leaf. A new one waits for its record, which has to match it.
async fn ensure_item(conn: &mut SqliteConnection, import: &Import, work: &Work) -> Result<i64> {
    if let Some(known) = read::known_item(conn, &work.source, &work.external_id).await? {
        if known.fixed != work.fixed {
            let Work { source, external_id, .. } = work;
            let why =
                format!("work {external_id:?} of source {source:?} is known here as another one");
            return Err(unimportable(import, &why));
        }
        return Ok(known.id);
    }
    let item = NewItem {
        source: &work.source,
        external_id: &work.external_id,
        organisation: &import.organisation,
        machine: &work.machine,
        started_ms: work.started_ms,
        stopped_ms: work.stopped_ms,
        fixed: work.fixed,
    };
    insert_item(conn, &item).await
}
