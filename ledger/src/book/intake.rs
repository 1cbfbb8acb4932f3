//! Taking work in: each record's outcome, and acceptance when the organisation's money covers it.

use std::collections::BTreeMap;

use alloy::primitives::{Address, B256};
use sqlx::SqliteConnection;

use super::{BookWriter, Tariff, insert_payee, payee_of};
use crate::{
    Amount, Error, Millis, Result,
    audit::{self, Event},
    read::{self, Books},
    rules,
    sql::{self, Columns},
    store,
    workload::{Outcome, Rate, Record},
};

/// Most base units that one record may come to: a million whole tokens of 24 decimals.
const MAX_AMOUNT: Amount = Amount::new(1_000_000_000_000_000_000_000_000_000_000);

impl BookWriter {
    /// Takes records in, all in one commit, and says what became of each. Taking the same record in again changes
    /// nothing.
    pub async fn take_in(
        &self,
        records: &[Record],
        tariff: &Tariff,
        now: Millis,
    ) -> Result<Vec<Outcome>> {
        let mut tx = self.0.begin().await?;
        let contract = self.contract();
        let mut desk = Desk { conn: &mut tx, tariff, now, contract, books: BTreeMap::new() };
        let mut outcomes = Vec::with_capacity(records.len());
        for record in records {
            outcomes.push(desk.take_in(record).await?);
        }
        store::commit(tx, "take-in").await?;
        Ok(outcomes)
    }

    /// Accepts unfunded work that the organisation's money covers by now, oldest first. Returns how many.
    pub async fn accept_unfunded(
        &self,
        organisation: &str,
        tariff: &Tariff,
        now: Millis,
    ) -> Result<u64> {
        let mut tx = self.0.begin().await?;
        let waiting = sqlx::query(
            "select w.body from open o join item i on i.id = o.item
             join workload w on w.item = i.id and w.revision = (select max(revision) from workload where item = i.id)
             where i.organisation = ? and w.revision > coalesce((select max(revision) from accepted where item = i.id), -1)
             order by i.stopped_ms, i.source, i.external_id",
        )
        .bind(organisation)
        .fetch_all(&mut *tx)
        .await?;
        let contract = self.contract();
        let mut desk = Desk { conn: &mut tx, tariff, now, contract, books: BTreeMap::new() };
        let mut accepted = 0;
        for row in waiting {
            let record = Record::from_body(&row.text("body")?)?;
            let item = desk.item(&record).await?.ok_or(Error::Corrupt("open item"))?.id;
            accepted +=
                u64::from(matches!(desk.accept(item, &record).await?, Acceptance::Accepted(_)));
        }
        store::commit(tx, "accept-unfunded").await?;
        Ok(accepted)
    }

    /// Records a decision about an item: `hold`, `release`, `dispute` or `pay`; the last one counts.
    pub async fn decide(&self, item: i64, verdict: &str, reason: &str, now: Millis) -> Result<()> {
        let mut tx = self.0.begin().await?;
        insert_decision(&mut tx, item, (verdict, reason), "operator", now).await?;
        store::commit(tx, "decision").await
    }
}

/// What is known of an item already.
struct KnownItem {
    id: i64,
    fixed: B256,
    organisation: String,
}

/// What [`Desk::accept`] came to.
enum Acceptance {
    Accepted(Amount),
    Missing(Amount),
}

/// Takes records in within one transaction, with each organisation's books read once.
struct Desk<'a> {
    conn: &'a mut SqliteConnection,
    tariff: &'a Tariff,
    now: Millis,
    contract: Address,
    books: BTreeMap<String, Option<Books>>,
}

impl Desk<'_> {
    async fn take_in(&mut self, record: &Record) -> Result<Outcome> {
        if self.books(&record.item.organisation).await?.is_none() {
            return Ok(Outcome::Rejected {
                field: "organisation".into(),
                reason: format!(
                    "{:?} is not known; add it to the configuration with its token and deposits",
                    record.item.organisation
                ),
            });
        }
        let known = self.item(record).await?;
        if let Some(known) = &known
            && let Some(outcome) = self.compare(known, record).await?
        {
            return Ok(outcome);
        }
        if let Some(rejection) = self.price_problem(record).await? {
            return Ok(rejection);
        }
        if let Some(reason) = self.payout_conflict(record).await? {
            return Ok(Outcome::Rejected { field: "provider".into(), reason });
        }
        let item = match known {
            Some(known) => known.id,
            None => self.insert_item(record).await?,
        };
        self.insert_workload(item, record).await?;
        let is_newest = accepted(self.conn, item)
            .await?
            .is_none_or(|(highest, _)| highest < record.revision.revision);
        if let Some(reason) = record.hold_reason().filter(|_| is_newest) {
            insert_decision(self.conn, item, ("hold", &reason), "intake", self.now).await?;
        }
        match self.accept(item, record).await? {
            Acceptance::Missing(missing) => Ok(Outcome::Unfunded { missing }),
            Acceptance::Accepted(amount) => {
                let machine = &record.item.machine;
                let is_addressed = payee_of(self.conn, machine).await?.is_some();
                let is_paid = amount > Amount::ZERO;
                Ok(if is_addressed || !is_paid {
                    Outcome::Accepted { amount }
                } else {
                    Outcome::Unaddressed { amount }
                })
            }
        }
    }

    async fn books(&mut self, organisation: &str) -> Result<Option<&mut Books>> {
        if !self.books.contains_key(organisation) {
            let books = read::books(self.conn, organisation).await?;
            self.books.insert(organisation.to_owned(), books);
        }
        Ok(self.books.get_mut(organisation).and_then(Option::as_mut))
    }

    /// The rejection of a record whose amount is beyond belief, or beyond arithmetic.
    async fn price_problem(&mut self, record: &Record) -> Result<Option<Outcome>> {
        let tariff = self.tariff;
        let Some(token) =
            self.books(&record.item.organisation).await?.and_then(|books| books.token)
        else {
            return Ok(None);
        };
        let rate = record.revision.rate.as_ref().or_else(|| tariff.rates.get(&token.address));
        let Some(rate) = rate else { return Ok(None) };
        let amount = record.amount(rate, token.decimals);
        Ok(match amount {
            Ok(amount) if amount <= MAX_AMOUNT => None,
            Ok(_) | Err(_) => Some(Outcome::Rejected {
                field: "price".into(),
                reason: format!(
                    "it comes to more than {MAX_AMOUNT} base units, which is not believed"
                ),
            }),
        })
    }

    /// Why the payout address that the record names cannot be used, if it names one. The first one named is taken.
    async fn payout_conflict(&mut self, record: &Record) -> Result<Option<String>> {
        let Some(address) = record.payout else { return Ok(None) };
        if address == self.contract {
            return Ok(Some(format!("{address} is the contract itself, which cannot be paid")));
        }
        let machine = &record.item.machine;
        match payee_of(self.conn, machine).await? {
            None => {
                insert_payee(self.conn, (machine, address), &record.item.source, self.now).await?
            }
            Some(known) if known == address => {}
            Some(known) => {
                return Ok(Some(format!(
                    "{address} is not the payout address of machine {machine}, which is {known}"
                )));
            }
        }
        Ok(None)
    }

    async fn item(&mut self, record: &Record) -> Result<Option<KnownItem>> {
        let row = sqlx::query(
            "select id, fixed, organisation from item where source = ? and external_id = ?",
        )
        .bind(&record.item.source)
        .bind(&record.item.external_id)
        .fetch_optional(&mut *self.conn)
        .await?;
        row.map(|row| {
            Ok(KnownItem {
                id: row.int("id")?,
                fixed: row.b256("fixed")?,
                organisation: row.text("organisation")?,
            })
        })
        .transpose()
    }

    /// The outcome of a record whose item is known, or `None` if it is a new revision.
    async fn compare(&mut self, known: &KnownItem, record: &Record) -> Result<Option<Outcome>> {
        let revision = record.revision.revision;
        let same = sqlx::query("select content from workload where item = ? and revision = ?")
            .bind(known.id)
            .bind(i64::from(revision))
            .fetch_optional(&mut *self.conn)
            .await?;
        let content = record.content()?;
        if let Some(row) = same {
            let before = row.b256("content")?;
            return Ok(Some(if before == content {
                Outcome::Duplicate
            } else {
                let reason = format!(
                    "revision {revision} is known with content {before}, this one has {content}"
                );
                Outcome::Conflict { reason }
            }));
        }
        let fixed = record.item.fixed()?;
        if known.fixed == fixed {
            return Ok(None);
        }
        let reason = format!(
            "revision {revision} changes more than amount, result and evidence: fixed part {fixed}, known is {} of {}",
            known.fixed, known.organisation
        );
        Ok(Some(Outcome::Conflict { reason }))
    }

    async fn insert_item(&mut self, record: &Record) -> Result<i64> {
        let item = &record.item;
        let done = sqlx::query(
            "insert into item (source, external_id, organisation, machine, started_ms, stopped_ms, fixed)
             values (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&item.source)
        .bind(&item.external_id)
        .bind(&item.organisation)
        .bind(&item.machine)
        .bind(item.started_ms)
        .bind(item.stopped_ms)
        .bind(item.fixed()?.to_vec())
        .execute(&mut *self.conn)
        .await?;
        Ok(done.last_insert_rowid())
    }

    async fn insert_workload(&mut self, item: i64, record: &Record) -> Result<()> {
        sqlx::query(
            "insert into workload (item, revision, content, body, at) values (?, ?, ?, ?, ?)",
        )
        .bind(item)
        .bind(i64::from(record.revision.revision))
        .bind(record.content()?.to_vec())
        .bind(record.body()?)
        .bind(self.now)
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }

    /// Accepts a record that is stored already, if the organisation's money covers what it adds to what is reserved. A
    /// revision below the highest accepted one stays without effect.
    async fn accept(&mut self, item: i64, record: &Record) -> Result<Acceptance> {
        let (tariff, now, revision) = (self.tariff, self.now, &record.revision);
        let before = accepted(self.conn, item).await?;
        let Some(books) = self.books(&record.item.organisation).await? else {
            return Err(Error::Corrupt("organisation"));
        };
        let Some(token) = books.token else { return self.wait(item, Amount::ZERO).await };
        let rate = revision.rate.as_ref().or_else(|| tariff.rates.get(&token.address));
        let Some(rate) = rate else { return self.wait(item, Amount::ZERO).await };
        // A record that was kept before the token was known may come to anything.
        let amount = match record.amount(rate, token.decimals) {
            Ok(amount) if amount <= MAX_AMOUNT => amount,
            Ok(_) | Err(_) => return self.wait(item, Amount::ZERO).await,
        };
        if before.is_some_and(|(highest, _)| highest > revision.revision) {
            return Ok(Acceptance::Accepted(Amount::ZERO));
        }
        let reserved = before.map_or(Amount::ZERO, |(_, amount)| amount);
        let extra = amount.checked_sub(reserved).unwrap_or_default();
        let missing = rules::missing(&books.position, extra, tariff.fee_bps)?;
        if missing > Amount::ZERO && extra > Amount::ZERO {
            return self.wait(item, missing).await;
        }
        books.position.reserved = books.position.reserved.add(extra)?;
        insert_accepted(self.conn, item, record, amount, rate, now).await?;
        match before {
            None if amount > Amount::ZERO => insert_open(self.conn, item).await?,
            // It may be listed still, as what had waited for money.
            _ => read::refresh_open(self.conn, item).await?,
        }
        Ok(Acceptance::Accepted(amount))
    }

    async fn wait(&mut self, item: i64, missing: Amount) -> Result<Acceptance> {
        read::refresh_open(self.conn, item).await?;
        Ok(Acceptance::Missing(missing))
    }
}

/// Highest accepted revision of an item, and its amount.
async fn accepted(conn: &mut SqliteConnection, item: i64) -> Result<Option<(u32, Amount)>> {
    let row = sqlx::query(
        "select revision, amount from accepted where item = ? order by revision desc limit 1",
    )
    .bind(item)
    .fetch_optional(conn)
    .await?;
    row.map(|row| Ok((row.u32("revision")?, row.amount("amount")?))).transpose()
}

async fn insert_accepted(
    conn: &mut SqliteConnection,
    item: i64,
    record: &Record,
    amount: Amount,
    rate: &Rate,
    now: Millis,
) -> Result<()> {
    sqlx::query(
        "insert into accepted (item, revision, amount, rate, rate_source, rate_at, at) values (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(item)
    .bind(i64::from(record.revision.revision))
    .bind(sql::amount(amount))
    .bind(rate.usd_per_token.to_string())
    .bind(&rate.source)
    .bind(rate.at_ms)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(())
}

async fn insert_open(conn: &mut SqliteConnection, item: i64) -> Result<()> {
    sqlx::query("insert into open (item) values (?) on conflict do nothing")
        .bind(item)
        .execute(conn)
        .await?;
    Ok(())
}

async fn insert_decision(
    conn: &mut SqliteConnection,
    item: i64,
    (verdict, reason): (&str, &str),
    actor: &str,
    now: Millis,
) -> Result<()> {
    let (subject, detail) = (format!("item {item}"), format!("{verdict}: {reason}"));
    let event = Event { at: now, actor, action: "decision", subject: &subject, detail: &detail };
    audit::append(conn, &event).await?;
    sqlx::query("insert into decision (item, verdict, reason, at) values (?, ?, ?, ?)")
        .bind(item)
        .bind(verdict)
        .bind(reason)
        .bind(now)
        .execute(conn)
        .await?;
    Ok(())
}
