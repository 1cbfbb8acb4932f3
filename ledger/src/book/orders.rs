//! Orders: what people said and nothing else tells. They come back from copies kept beside the database when that is lost.

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::Address;
use serde::{Deserialize, Serialize};
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use super::{
    BookWriter,
    decisions::{insert_decision, subject_of, told_of_decision},
    insert_payee, told_of_payee,
};
use crate::{Error, Millis, Result, read, rules::Verdict, sql::Columns, store};

/// Who acts when an order is brought back, in the audit log.
const ACTOR: &str = "recovery";

/// What a person ordered: who is paid for a machine, or what becomes of a piece of work.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    /// A machine's payout address.
    Payee {
        /// The machine.
        machine: String,
        /// Where its earnings go.
        address: Address,
        /// From when it acts, ms, by the time of blocks.
        effective_ms: Millis,
        /// When it was named, ms.
        at_ms: Millis,
    },
    /// A decision about a piece of work.
    Decision {
        /// Who reported it.
        source: String,
        /// The source's own id.
        external_id: String,
        /// What was decided.
        verdict: Verdict,
        /// Why.
        reason: String,
        /// When, ms.
        at_ms: Millis,
    },
}

impl Order {
    /// The same, said at another time, ms.
    fn at(&self, time: Millis) -> Self {
        let mut order = self.clone();
        match &mut order {
            Self::Payee { at_ms, .. } | Self::Decision { at_ms, .. } => *at_ms = time,
        }
        order
    }

    /// When it was said, ms.
    const fn time(&self) -> Millis {
        match self {
            Self::Payee { at_ms, .. } | Self::Decision { at_ms, .. } => *at_ms,
        }
    }

    /// What it is about.
    fn subject(&self) -> (&str, Option<&str>) {
        match self {
            Self::Payee { machine, .. } => (machine, None),
            Self::Decision { source, external_id, .. } => (source, Some(external_id)),
        }
    }
}

/// Subject, detail and time of an entry of the audit log.
type Told = (String, String, Millis);

/// How far a copy of the orders has come: the last payee and the last decision in it, by row id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    payee: i64,
    decision: i64,
}

impl Copied {
    /// Of an empty copy.
    pub const NONE: Self = Self { payee: 0, decision: 0 };
}

impl BookWriter {
    /// The orders after what was copied, oldest first of each kind, and how far a copy has come with them.
    pub async fn orders(&self, copied: Copied) -> Result<(Vec<Order>, Copied)> {
        let mut tx = self.0.reader().begin().await?;
        let (mut orders, mut reached) = (Vec::new(), copied);
        for row in sqlx::query("select * from payee where id > ? order by id")
            .bind(copied.payee)
            .fetch_all(&mut *tx)
            .await?
        {
            reached.payee = row.int("id")?;
            orders.push(payee(&row)?);
        }
        for row in sqlx::query(
            "select d.id, i.source, i.external_id, d.verdict, d.reason, d.at
             from decision d join item i on i.id = d.item where d.id > ? order by d.id",
        )
        .bind(copied.decision)
        .fetch_all(&mut *tx)
        .await?
        {
            reached.decision = row.int("id")?;
            orders.push(decision(&row)?);
        }
        Ok((orders, reached))
    }

    /// Brings back the orders that are not known here, given oldest first. One about work that is not known is remembered until
    /// that is taken in. What somebody said here last of the same is said again where it came after all of them, so that it stays
    /// the last. Returns how many were new.
    pub async fn bring_back(&self, orders: &[Order], now: Millis) -> Result<usize> {
        let mut told: BTreeMap<_, Vec<&Order>> = BTreeMap::new();
        for order in orders {
            let told = told.entry(order.subject()).or_default();
            // A line that comes twice has its first place.
            if !told.contains(&order) {
                told.push(order);
            }
        }
        let mut tx = self.0.begin().await?;
        let (mut new, mut subjects, mut later) = (0, BTreeSet::new(), Vec::new());
        for order in orders {
            if is_known(&mut tx, order).await? {
                continue;
            }
            if subjects.insert(order.subject())
                && let Some(last) = last(&mut tx, order).await?
                && stays_last(&mut tx, &last.0, &told[&order.subject()]).await?
            {
                later.push(last);
            }
            insert(&mut tx, order).await?;
            new += 1;
        }
        if !later.is_empty() {
            let said = said_by_people(&mut tx).await?;
            later.retain(|(_, told)| told.as_ref().is_none_or(|told| said.contains(told)));
        }
        for (order, _) in &later {
            insert(&mut tx, &order.at(now)).await?;
        }
        if new > 0 {
            store::commit(tx, "orders").await?;
        }
        Ok(new)
    }
}

/// Whether what was said here last of something stays the last where a copy tells these orders of the same, one of them new.
async fn stays_last(conn: &mut SqliteConnection, last: &Order, told: &[&Order]) -> Result<bool> {
    // A place in the copy tells more than a time: between two orders the clock may have been set back.
    if let Some(newest) = told.last().filter(|_| told.contains(&last)) {
        if *newest == last {
            return Ok(true);
        }
        if !is_known(conn, newest).await? {
            return Ok(false);
        }
    }
    Ok(told.iter().all(|order| order.time() <= last.time()))
}

async fn is_known(conn: &mut SqliteConnection, order: &Order) -> Result<bool> {
    let query = match order {
        Order::Payee { machine, address, effective_ms, at_ms } => sqlx::query(
            "select 1 from payee where machine = ? and address = ? and effective_ms = ? and at = ?",
        )
        .bind(machine)
        .bind(address.to_vec())
        .bind(effective_ms)
        .bind(at_ms),
        Order::Decision { source, external_id, verdict, reason, at_ms } => sqlx::query(
            "select 1 from decision d join item i on i.id = d.item
             where i.source = ?1 and i.external_id = ?2 and d.verdict = ?3 and d.reason = ?4 and d.at = ?5
             union all select 1 from remembered
             where (source, external_id, verdict, reason, at) = (?1, ?2, ?3, ?4, ?5)",
        )
        .bind(source)
        .bind(external_id)
        .bind(verdict.name())
        .bind(reason)
        .bind(at_ms),
    };
    Ok(query.fetch_optional(conn).await?.is_some())
}

/// What was said here last of what an order is about, and how the audit log tells it; it does not tell what is only remembered.
async fn last(conn: &mut SqliteConnection, order: &Order) -> Result<Option<(Order, Option<Told>)>> {
    match order {
        Order::Payee { machine, .. } => {
            let row = sqlx::query("select * from payee where machine = ? order by id desc limit 1")
                .bind(machine)
                .fetch_optional(conn)
                .await?;
            let Some(row) = row else { return Ok(None) };
            let (address, effective) = (row.address("address")?, row.int("effective_ms")?);
            let told = (machine.clone(), told_of_payee(address, effective), row.int("at")?);
            Ok(Some((payee(&row)?, Some(told))))
        }
        Order::Decision { source, external_id, .. } => {
            let row = sqlx::query(
                "select i.source, i.external_id, d.verdict, d.reason, d.at, d.id, i.id as item
                 from decision d join item i on i.id = d.item where i.source = ?1 and i.external_id = ?2
                 union all select source, external_id, verdict, reason, at, id, null from remembered
                 where source = ?1 and external_id = ?2
                    and not exists (select 1 from item where source = ?1 and external_id = ?2)
                 order by 6 desc limit 1",
            )
            .bind(source)
            .bind(external_id)
            .fetch_optional(conn)
            .await?;
            let Some(row) = row else { return Ok(None) };
            let detail = told_of_decision(&row.text("verdict")?, &row.text("reason")?);
            let at = row.int("at")?;
            let told = row.maybe_int("item")?.map(|item| (subject_of(item), detail, at));
            Ok(Some((decision(&row)?, told)))
        }
    }
}

/// What people said, by what the audit log tells of it: the rest follows from records by itself, a hold because of digests as
/// well as the address that a record named.
async fn said_by_people(conn: &mut SqliteConnection) -> Result<BTreeSet<Told>> {
    let rows = sqlx::query(
        "select subject, detail, at from audit
         where action = 'payee' and actor in ('operator', 'address delay', 'recovery')
            or action = 'decision' and actor in ('operator', 'recovery')",
    )
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| Ok((row.text("subject")?, row.text("detail")?, row.int("at")?))).collect()
}

async fn insert(conn: &mut SqliteConnection, order: &Order) -> Result<()> {
    match order {
        Order::Payee { machine, address, effective_ms, at_ms } => {
            insert_payee(conn, (machine, *address), ACTOR, (*effective_ms, *at_ms)).await
        }
        Order::Decision { source, external_id, verdict, reason, at_ms } => {
            let Some(item) = read::known_item(conn, source, external_id).await? else {
                return remember(conn, (source, external_id), (*verdict, reason), *at_ms).await;
            };
            insert_decision(conn, item.id, (*verdict, reason), ACTOR, *at_ms).await?;
            read::refresh_open(conn, item.id).await
        }
    }
}

/// Remembers a decision about work that is not known yet.
async fn remember(
    conn: &mut SqliteConnection,
    (source, external_id): (&str, &str),
    (verdict, reason): (Verdict, &str),
    at: Millis,
) -> Result<()> {
    sqlx::query(
        "insert into remembered (source, external_id, verdict, reason, at) values (?, ?, ?, ?, ?)",
    )
    .bind(source)
    .bind(external_id)
    .bind(verdict.name())
    .bind(reason)
    .bind(at)
    .execute(conn)
    .await?;
    Ok(())
}

/// Decides about new work what was decided about it before it was lost.
pub(super) async fn decide_as_remembered(
    conn: &mut SqliteConnection,
    item: i64,
    (source, external_id): (&str, &str),
) -> Result<()> {
    let remembered = sqlx::query(
        "select source, external_id, verdict, reason, at from remembered
         where source = ? and external_id = ? order by id",
    )
    .bind(source)
    .bind(external_id)
    .fetch_all(&mut *conn)
    .await?;
    for row in remembered {
        let Order::Decision { verdict, reason, at_ms, .. } = decision(&row)? else { continue };
        insert_decision(conn, item, (verdict, &reason), ACTOR, at_ms).await?;
    }
    Ok(())
}

fn payee(row: &SqliteRow) -> Result<Order> {
    Ok(Order::Payee {
        machine: row.text("machine")?,
        address: row.address("address")?,
        effective_ms: row.int("effective_ms")?,
        at_ms: row.int("at")?,
    })
}

fn decision(row: &SqliteRow) -> Result<Order> {
    let verdict = Verdict::from_name(&row.text("verdict")?).ok_or(Error::Corrupt("verdict"))?;
    Ok(Order::Decision {
        source: row.text("source")?,
        external_id: row.text("external_id")?,
        verdict,
        reason: row.text("reason")?,
        at_ms: row.int("at")?,
    })
}
