//! Where items stand, a page of them at a time.

use std::collections::BTreeMap;

use sqlx::SqliteConnection;

use crate::{
    Amount, Error, Result,
    read::{PlacedLeaf, promised},
    sql::Columns,
};

/// Where an item stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    /// Row id of the item.
    pub(super) item: i64,
    /// Whether it is among the open ones.
    pub(super) is_listed: bool,
    /// Whether it has to be: a revision waits for money, a statement that names it is undecided, or it is not finally paid.
    pub(super) is_open: bool,
    /// Σ of its leaves in settled statements.
    pub(super) paid: i128,
    /// The highest amount that was ever accepted for it; `None` if a revision was paid that was not accepted here, as after
    /// an import.
    pub(super) highest: Option<Amount>,
}

/// Where items above row id `after` stand, at most `limit` of them, in order.
pub(super) async fn standings(
    conn: &mut SqliteConnection,
    after: i64,
    limit: u32,
) -> Result<Vec<Standing>> {
    let rows = sqlx::query(concat!(
        "select i.id, o.item is not null as listed,
            (select max(revision) from workload w where w.item = i.id) as newest,
            (select max(revision) from accepted a where a.item = i.id) as revision,
            (select amount from ",
        promised!(),
        " a where a.item = i.id order by revision desc limit 1) as amount,
            (select max(amount) from ",
        promised!(),
        " a where a.item = i.id) as highest,
            coalesce((select verdict from decision d where d.item = i.id order by d.id desc limit 1), '') = 'release'
                as let_go,
            i.stopped_ms < coalesce((select max(until_ms) from cut_off c where c.organisation = i.organisation), 0)
                as cut_off
         from item i left join open o on o.item = i.id where i.id > ? order by i.id limit ?",
    ))
    .bind(after)
    .bind(limit)
    .fetch_all(&mut *conn)
    .await?;
    let last = rows.last().map_or(Ok(after), |row| row.int("id"))?;
    let mut stated = leaves_between(conn, after, last).await?;
    let mut standings = Vec::with_capacity(rows.len());
    for row in rows {
        let item = row.int("id")?;
        let leaves = stated.remove(&item).unwrap_or_default();
        let accepted = row.maybe_int("revision")?;
        let (amount, highest) = match accepted {
            Some(_) => (row.amount("amount")?, row.amount("highest")?),
            None => (Amount::ZERO, Amount::ZERO),
        };
        let is_listed = row.flag("listed")?;
        let waits = row.maybe_int("newest")? > accepted;
        let is_known = accepted >= leaves.revision;
        let is_owed =
            accepted.is_some() && accepted >= leaves.final_revision && !row.flag("cut_off")?;
        let (amount, paid) = (amount.signed()?, leaves.paid_finally);
        let is_due = is_owed && if row.flag("let_go")? { amount < paid } else { amount != paid };
        standings.push(Standing {
            item,
            is_listed,
            is_open: waits || leaves.is_undecided || is_due,
            paid: leaves.paid,
            highest: (is_known && !leaves.is_brought_back).then_some(highest),
        });
    }
    Ok(standings)
}

/// What statements of ours and of others say of an item.
#[derive(Debug, Clone, Copy, Default)]
struct Leaves {
    paid: i128,
    paid_finally: i128,
    /// Highest revision in a settled statement, and in a final one.
    revision: Option<i64>,
    final_revision: Option<i64>,
    /// Whether a statement names it whose epoch nothing has finally settled.
    is_undecided: bool,
    /// Whether an imported statement has settled a revision of it that was not accepted here.
    is_brought_back: bool,
}

/// What leaves of items above row id `after` up to `last` come to.
async fn leaves_between(
    conn: &mut SqliteConnection,
    after: i64,
    last: i64,
) -> Result<BTreeMap<i64, Leaves>> {
    let rows = sqlx::query(
        "select l.item, l.revision, l.amount, s.block is not null as settled,
            coalesce(s.block <= chain.finalised, 0) as final,
            not exists (
                select 1 from statement t2 join settled s2 on s2.statement = t2.id
                where t2.deposit = t.deposit and t2.epoch = t.epoch and s2.block <= chain.finalised) as undecided,
            exists (select 1 from imported m where m.statement = l.statement)
                and not exists (select 1 from accepted a where a.item = l.item and a.revision = l.revision)
                as brought_back
         from leaf l join statement t on t.id = l.statement left join settled s on s.statement = t.id, chain
         where l.item > ? and l.item <= ?",
    )
    .bind(after)
    .bind(last)
    .fetch_all(conn)
    .await?;
    let mut leaves: BTreeMap<i64, Leaves> = BTreeMap::new();
    for row in rows {
        let entry = leaves.entry(row.int("item")?).or_default();
        let amount = row.signed("amount")?;
        let add = |sum: i128| sum.checked_add(amount).ok_or(Error::Overflow("sum of leaves"));
        if row.flag("settled")? {
            entry.paid = add(entry.paid)?;
            entry.revision = entry.revision.max(row.maybe_int("revision")?);
            entry.is_brought_back |= row.flag("brought_back")?;
        }
        if row.flag("final")? {
            entry.paid_finally = add(entry.paid_finally)?;
            entry.final_revision = entry.final_revision.max(row.maybe_int("revision")?);
        }
        entry.is_undecided |= row.flag("undecided")?;
    }
    Ok(leaves)
}

/// Most that may have settled of an item of which more has than `highest`, the most that its acceptances come to now.
///
/// What a statement paid that was lost is no payment of this ledger where another one paid the work as well and neither knew of
/// the other: a debt, and not a mistake. Everything else is, whatever was brought back besides.
pub(super) async fn most_payable(
    conn: &mut SqliteConnection,
    item: i64,
    highest: Amount,
) -> Result<i128> {
    let rows = sqlx::query(
        "select l.amount, l.settled as told, t.deposit, t.epoch,
            exists (select 1 from imported m where m.statement = t.id) as imported
         from leaf l join statement t on t.id = l.statement join settled s on s.statement = t.id where l.item = ?",
    )
    .bind(item)
    .fetch_all(&mut *conn)
    .await?;
    let (mut ours, mut imported) = (Vec::new(), Vec::new());
    for row in &rows {
        let leaf = PlacedLeaf::of(row)?;
        if leaf.amount > 0 {
            if row.flag("imported")? { imported.push(leaf) } else { ours.push(leaf) }
        }
    }
    let is_apart =
        |leaf: &&PlacedLeaf| ours.iter().chain(&imported).any(|other| other.is_apart_from(leaf));
    let besides: Vec<_> = imported.iter().filter(is_apart).collect();
    // Of those that were all brought back, one is the payment, and the others are besides it.
    let is_ours_apart = besides.iter().any(|leaf| ours.iter().any(|own| own.is_apart_from(leaf)));
    let payment = besides.iter().map(|leaf| leaf.amount).max().filter(|_| !is_ours_apart);
    let mut sum = 0_i128.checked_sub(payment.unwrap_or(0));
    for leaf in besides {
        sum = sum.and_then(|sum| sum.checked_add(leaf.amount));
    }
    let besides = sum.ok_or(Error::Overflow("sum of leaves"))?;
    if besides == 0 {
        return highest.signed();
    }
    // What was brought back may have said that it comes to less than was accepted, and paid, here before.
    let accepted = sqlx::query("select max(amount) as amount from accepted where item = ?")
        .bind(item)
        .fetch_one(conn)
        .await?
        .amount("amount")?;
    highest.max(accepted).signed()?.checked_add(besides).ok_or(Error::Overflow("sum of leaves"))
}
