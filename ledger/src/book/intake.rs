//! Taking work in: each record's outcome, and acceptance when the organisation's money covers it.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use alloy::primitives::{Address, B256};
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use super::{
    BookWriter, SourceFile, Tariff, decisions::insert_decision, files, group::Call, insert_payee,
    orders::decide_as_remembered, payee_of, was_named,
};
use crate::{
    Amount, Error, Millis, Result, Unit, Units,
    read::{self, Books, KnownItem},
    rules::{self, Verdict},
    sql::{self, Columns},
    store,
    workload::{Outcome, Price, Rate, Record, Revision, Token},
};

/// The newest records of an organisation that no money covered so far, oldest work first, and whether the work had been let go
/// before they came.
const UNFUNDED: &str =
    "select w.body, coalesce((select d.verdict = 'release' and d.at < w.at from decision d
        where d.item = i.id order by d.id desc limit 1), 0) as was_let_go
     from open o join item i on i.id = o.item
     join workload w on w.item = i.id and w.revision = (select max(revision) from workload where item = i.id)
     where i.organisation = ? and w.revision > coalesce((select max(revision) from accepted where item = i.id), -1)
     order by i.stopped_ms, i.source, i.external_id";

/// Most base units that one record may come to: what a row of a statement can hold beside a remainder. Dearer work could never
/// be stated, nor what is behind it.
fn most_for_one(decimals: u8) -> Result<Amount> {
    let most = Units::new(contracts::rows::MAX_UNITS - 1);
    Ok(Unit::of_decimals(decimals)?.amount(most))
}

impl BookWriter {
    /// Takes records in, all in one commit, and says what became of each. Taking the same record in again changes
    /// nothing. Calls that come at the same time share a commit; a call that fails does not harm the others.
    pub async fn take_in(
        &self,
        records: &[Record],
        tariff: &Tariff,
        now: Millis,
    ) -> Result<Vec<Outcome>> {
        self.take_in_call(records, None, tariff, now).await
    }

    /// The same with records of a source file. It is remembered in the commit of the first of them that is kept, so that one
    /// of which nothing was kept takes no days. One that overlaps another of its source without covering the same days is
    /// refused, and so is one that was taken in under another source or other days.
    pub async fn take_in_file(
        &self,
        file: &SourceFile,
        records: &[Record],
        tariff: &Tariff,
        now: Millis,
    ) -> Result<Vec<Outcome>> {
        self.take_in_call(records, Some(file), tariff, now).await
    }

    async fn take_in_call(
        &self,
        records: &[Record],
        file: Option<&SourceFile>,
        tariff: &Tariff,
        now: Millis,
    ) -> Result<Vec<Outcome>> {
        let group = self.ledger().group();
        let call = group.add(records, file, tariff, now);
        let _turn = group.turn().await;
        loop {
            if let Some(answer) = call.take() {
                return answer;
            }
            self.take_in_calls(&group.next()).await;
        }
    }

    /// Takes in what several calls brought, in one commit. If that fails, each is taken in by itself, so that only the one
    /// at fault hears of it.
    async fn take_in_calls(&self, calls: &[Arc<Call>]) {
        match self.take_in_together(calls).await {
            Ok(answers) => {
                for (call, answer) in calls.iter().zip(answers) {
                    call.set(Ok(answer));
                }
            }
            Err(error) => match calls {
                [call] => call.set(Err(error)),
                _ => {
                    for call in calls {
                        let alone = self.take_in_together(std::slice::from_ref(call)).await;
                        call.set(alone.map(|answers| answers.into_iter().flatten().collect()));
                    }
                }
            },
        }
    }

    async fn take_in_together(&self, calls: &[Arc<Call>]) -> Result<Vec<Vec<Outcome>>> {
        let mut tx = self.0.begin().await?;
        let (contract, mut books) = (self.contract(), BTreeMap::new());
        let mut answers = Vec::with_capacity(calls.len());
        for call in calls {
            if let Some(file) = &call.file {
                files::refuse_known(&mut tx, file).await?;
            }
            let (tariff, now) = (&call.tariff, call.now);
            let mut desk = Desk { conn: &mut tx, tariff, now, contract, books };
            let mut outcomes = Vec::with_capacity(call.records.len());
            for record in &call.records {
                outcomes.push(desk.take_in(record).await?);
            }
            books = desk.books;
            if let Some(file) = &call.file
                && outcomes.iter().any(Outcome::is_kept)
            {
                files::remember(&mut tx, file, now).await?;
            }
            answers.push(outcomes);
        }
        store::commit(tx, "take-in").await?;
        Ok(answers)
    }

    /// Accepts unfunded work that the organisation's money covers by now, oldest first. Returns how many.
    pub async fn accept_unfunded(
        &self,
        organisation: &str,
        tariff: &Tariff,
        now: Millis,
    ) -> Result<u64> {
        // Nothing waits most of the time, and looking keeps no writer from writing.
        let first =
            sqlx::query(UNFUNDED).bind(organisation).fetch_optional(self.0.reader()).await?;
        if first.is_none() {
            return Ok(0);
        }
        let mut tx = self.0.begin().await?;
        let waiting = sqlx::query(UNFUNDED).bind(organisation).fetch_all(&mut *tx).await?;
        let contract = self.contract();
        let mut desk = Desk { conn: &mut tx, tariff, now, contract, books: BTreeMap::new() };
        let mut accepted = 0;
        for row in waiting {
            let record = Record::from_body(&row.text("body")?)?;
            let item = desk.item(&record).await?.ok_or(Error::Corrupt("open item"))?.id;
            let was_let_go = row.flag("was_let_go")?;
            let hold = reason_to_hold(desk.conn, item, &record).await?.filter(|_| was_let_go);
            let acceptance = desk.accept(item, &record, hold.as_deref()).await?;
            accepted += u64::from(!matches!(acceptance, Acceptance::Missing(_)));
        }
        store::commit(tx, "accept-unfunded").await?;
        Ok(accepted)
    }
}

/// An item that is not known yet.
pub(super) struct NewItem<'a> {
    pub(super) source: &'a str,
    pub(super) external_id: &'a str,
    pub(super) organisation: &'a str,
    pub(super) machine: &'a str,
    pub(super) started_ms: Millis,
    pub(super) stopped_ms: Millis,
    pub(super) fixed: B256,
}

/// Stores an item, with what was decided about it before it was lost, and returns its row id.
pub(super) async fn insert_item(conn: &mut SqliteConnection, item: &NewItem<'_>) -> Result<i64> {
    let done = sqlx::query(
        "insert into item (source, external_id, organisation, machine, started_ms, stopped_ms, fixed)
         values (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(item.source)
    .bind(item.external_id)
    .bind(item.organisation)
    .bind(item.machine)
    .bind(item.started_ms)
    .bind(item.stopped_ms)
    .bind(item.fixed.to_vec())
    .execute(&mut *conn)
    .await?;
    let id = done.last_insert_rowid();
    decide_as_remembered(conn, id, (item.source, item.external_id)).await?;
    Ok(id)
}

/// What [`Desk::accept`] came to.
enum Acceptance {
    Accepted(Amount),
    Released(Amount),
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
        let item = known.as_ref().map(|known| known.id);
        if let Some(rejection) = self.price_problem(item, record).await? {
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
        let hold = self.hold(item, record).await?;
        match self.accept(item, record, hold.as_deref()).await? {
            Acceptance::Missing(missing) => Ok(Outcome::Unfunded { missing }),
            Acceptance::Released(amount) => Ok(Outcome::Released { amount }),
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

    /// Holds work whose newest revision gives a reason to. Where it was let go, so that nothing is reserved for it, a hold would
    /// reserve money that may be promised to others by now: it has to come with the acceptance, and its reason is returned.
    async fn hold(&mut self, item: i64, record: &Record) -> Result<Option<String>> {
        let highest = accepted(self.conn, item).await?;
        let is_newest = highest.is_none_or(|highest| highest < record.revision.revision);
        let reason = reason_to_hold(self.conn, item, record).await?.filter(|_| is_newest);
        let Some(reason) = reason else { return Ok(None) };
        let open = read::open_item(self.conn, item).await?;
        if open.is_some_and(|open| open.verdict == Some(Verdict::Release)) {
            return Ok(Some(reason));
        }
        self.insert_hold(item, &reason).await?;
        Ok(None)
    }

    async fn insert_hold(&mut self, item: i64, reason: &str) -> Result<()> {
        insert_decision(self.conn, item, (Verdict::Hold, reason), "intake", self.now).await
    }

    async fn books(&mut self, organisation: &str) -> Result<Option<&mut Books>> {
        if !self.books.contains_key(organisation) {
            let books = read::books(self.conn, organisation).await?;
            self.books.insert(organisation.to_owned(), books);
        }
        Ok(self.books.get_mut(organisation).and_then(Option::as_mut))
    }

    /// The rejection of a record whose amount is beyond belief, or beyond arithmetic. `item` is its item, if that is known.
    async fn price_problem(
        &mut self,
        item: Option<i64>,
        record: &Record,
    ) -> Result<Option<Outcome>> {
        let Some(token) =
            self.books(&record.item.organisation).await?.and_then(|books| books.token)
        else {
            return Ok(None);
        };
        let Some(Basis::Rate(rate)) = self.basis(item, record, token.address).await? else {
            return Ok(None);
        };
        let most = most_for_one(token.decimals)?;
        Ok(match record.amount(&rate, token.decimals) {
            Ok(amount) if amount <= most => None,
            Ok(_) | Err(_) => Some(Outcome::Rejected {
                field: "price".into(),
                reason: format!(
                    "it comes to more than {most} base units, the most that a statement can pay for one piece of work"
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
        let Some(newest) = payee_of(self.conn, machine).await? else {
            let (source, times) = (&record.item.source, (0, self.now));
            insert_payee(self.conn, (machine, address), source, times).await?;
            return Ok(None);
        };
        // Where it was replaced since, the one that was named last is paid all the same.
        if was_named(self.conn, machine, address).await? {
            return Ok(None);
        }
        Ok(Some(format!(
            "{address} is not the payout address of machine {machine}, which is {newest}"
        )))
    }

    async fn item(&mut self, record: &Record) -> Result<Option<KnownItem>> {
        read::known_item(self.conn, &record.item.source, &record.item.external_id).await
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
        let new = NewItem {
            source: &item.source,
            external_id: &item.external_id,
            organisation: &item.organisation,
            machine: &item.machine,
            started_ms: item.started_ms,
            stopped_ms: item.stopped_ms,
            fixed: item.fixed()?,
        };
        insert_item(self.conn, &new).await
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
    /// revision below the highest accepted one stays without effect. `hold` is why the work is held from its acceptance on, if
    /// it had been let go.
    async fn accept(
        &mut self,
        item: i64,
        record: &Record,
        hold: Option<&str>,
    ) -> Result<Acceptance> {
        let revision = record.revision.revision;
        let before = accepted(self.conn, item).await?;
        let Some(books) = self.books(&record.item.organisation).await? else {
            return Err(Error::Corrupt("organisation"));
        };
        // While it is not known what was paid, it is not known what this adds.
        if !books.freezes.is_empty() {
            return self.wait(item, Amount::ZERO).await;
        }
        let Some(token) = books.token else { return self.wait(item, Amount::ZERO).await };
        if before.is_some_and(|highest| highest > revision) {
            return Ok(Acceptance::Accepted(Amount::ZERO));
        }
        let is_untouched =
            before.is_none() && !is_touched(self.conn, item, &record.item.organisation).await?;
        let revised = (!is_untouched).then_some(item);
        let priced = self.price(revised, record, &token).await?;
        let Some((amount, rate)) = priced else { return self.wait(item, Amount::ZERO).await };
        if is_untouched {
            let promised = self.promise(item, record, (amount, rate), amount).await?;
            if amount > Amount::ZERO {
                insert_open(self.conn, item).await?;
            } else {
                read::refresh_open(self.conn, item).await?;
            }
            return Ok(promised);
        }
        let mut open = read::open_item(self.conn, item).await?.ok_or(Error::Corrupt("item"))?;
        let reserved = open.reserved()?;
        open.accepted = Some((revision, amount));
        open.verdict = if hold.is_some() { Some(Verdict::Hold) } else { open.verdict };
        let extra = open.reserved()?.checked_sub(reserved).unwrap_or_default();
        let promised = self.promise(item, record, (amount, rate), extra).await?;
        if let (Some(reason), Acceptance::Accepted(_)) = (hold, &promised) {
            self.insert_hold(item, reason).await?;
        }
        read::refresh_open(self.conn, item).await?;
        let is_let_go = open.verdict == Some(Verdict::Release) || open.is_cut_off;
        Ok(match promised {
            Acceptance::Accepted(amount)
                if is_let_go && amount.signed()? > open.least_settled()? =>
            {
                Acceptance::Released(amount)
            }
            other => other,
        })
    }

    /// What a record comes to, and the rate that led to it; what a statement has said of its revision stands, whatever the rate
    /// is by now. `item` is its item, if anything else may tell. `None` if nothing tells, or if it comes to more than a
    /// statement can pay, as a record may that was kept before its token was known.
    async fn price(
        &mut self,
        item: Option<i64>,
        record: &Record,
        token: &Token,
    ) -> Result<Option<(Amount, Option<Rate>)>> {
        if let Some(item) = item
            && let Some(stated) = stated_amount(self.conn, item, record.revision.revision).await?
        {
            return Ok(Some((stated, None)));
        }
        let most = most_for_one(token.decimals)?;
        Ok(match self.basis(item, record, token.address).await? {
            Some(Basis::Amount(amount)) => Some((amount, None)),
            Some(Basis::Rate(rate)) => {
                let amount = record.amount(&rate, token.decimals).ok();
                amount.filter(|amount| *amount <= most).map(|amount| (amount, Some(rate)))
            }
            None => None,
        })
    }

    /// What the amount of a record rests on: its own rate, else what an earlier revision of its item rested on, if that is
    /// known, else the tariff.
    async fn basis(
        &mut self,
        item: Option<i64>,
        record: &Record,
        token: Address,
    ) -> Result<Option<Basis>> {
        if let Some(own) = &record.revision.rate {
            return Ok(Some(Basis::Rate(own.clone())));
        }
        if let Some(item) = item
            && let Some(earlier) = earlier_basis(self.conn, item, record).await?
        {
            return Ok(Some(earlier));
        }
        Ok(self.tariff.rates.get(&token).cloned().map(Basis::Rate))
    }

    /// Promises `amount` for a record, if the money covers the `extra` that this reserves.
    async fn promise(
        &mut self,
        item: i64,
        record: &Record,
        (amount, rate): (Amount, Option<Rate>),
        extra: Amount,
    ) -> Result<Acceptance> {
        let (fee_bps, now) = (self.tariff.fee_bps, self.now);
        let books = self.books(&record.item.organisation).await?;
        let books = books.ok_or(Error::Corrupt("organisation"))?;
        let missing = rules::missing(&books.position, extra, fee_bps)?;
        if missing > Amount::ZERO && extra > Amount::ZERO {
            return Ok(Acceptance::Missing(missing));
        }
        books.position.reserved = books.position.reserved.add(extra)?;
        let place = (item, record.revision.revision);
        insert_accepted(self.conn, place, amount, rate.as_ref(), now).await?;
        Ok(Acceptance::Accepted(amount))
    }

    async fn wait(&mut self, item: i64, missing: Amount) -> Result<Acceptance> {
        read::refresh_open(self.conn, item).await?;
        Ok(Acceptance::Missing(missing))
    }
}

/// Why a record's item is to be held, if it is. Where it was held for that before, as where decisions came back before the record
/// did, somebody may have decided since.
async fn reason_to_hold(
    conn: &mut SqliteConnection,
    item: i64,
    record: &Record,
) -> Result<Option<String>> {
    let Some(reason) = record.hold_reason() else { return Ok(None) };
    let was_held = sqlx::query(
        "select 1 from decision where item = ? and verdict = 'hold' and reason = ? limit 1",
    )
    .bind(item)
    .bind(&reason)
    .fetch_optional(conn)
    .await?
    .is_some();
    Ok((!was_held).then_some(reason))
}

/// The highest accepted revision of an item.
async fn accepted(conn: &mut SqliteConnection, item: i64) -> Result<Option<u32>> {
    let row =
        sqlx::query("select revision from accepted where item = ? order by revision desc limit 1")
            .bind(item)
            .fetch_optional(conn)
            .await?;
    row.map(|row| row.u32("revision")).transpose()
}

/// What the amount of a record rests on.
enum Basis {
    /// USD are converted at this rate.
    Rate(Rate),
    /// It comes to what another revision came to.
    Amount(Amount),
}

/// What the nearest lower revision that was priced in USD tells of a record: the rate at which it was accepted; or, if a
/// statement alone tells what it came to, the same for the same result and price. USD is converted once, so that a revision is
/// no reason to look at the token's price again.
async fn earlier_basis(
    conn: &mut SqliteConnection,
    item: i64,
    record: &Record,
) -> Result<Option<Basis>> {
    let lower = sqlx::query(concat!(
        "select w.body, a.revision, a.amount, a.rate, a.rate_source, a.rate_at
         from workload w left join ",
        read::promised!(),
        " a using (item, revision)
         where w.item = ? and w.revision < ? order by w.revision desc",
    ))
    .bind(item)
    .bind(i64::from(record.revision.revision))
    .fetch_all(&mut *conn)
    .await?;
    for row in lower {
        let Revision { revision, result, price, .. } =
            Record::from_body(&row.text("body")?)?.revision;
        if !matches!(price, Price::Usd(_)) {
            continue;
        }
        if let Some(rate) = row.maybe_text("rate")? {
            let usd_per_token = rate.parse().map_err(|_| Error::Corrupt("rate of a workload"))?;
            let (source, at_ms) = (row.text("rate_source")?, row.int("rate_at")?);
            return Ok(Some(Basis::Rate(Rate { usd_per_token, source, at_ms })));
        }
        if (&result, &price) != (&record.revision.result, &record.revision.price) {
            continue;
        }
        let amount = match row.maybe_int("revision")? {
            Some(_) => Some(row.amount("amount")?),
            None => stated_amount(conn, item, revision).await?,
        };
        if let Some(amount) = amount {
            return Ok(Some(Basis::Amount(amount)));
        }
    }
    Ok(None)
}

/// Whether anything else than its records says what an item comes to: statements, decisions, or a cut-off.
async fn is_touched(conn: &mut SqliteConnection, item: i64, organisation: &str) -> Result<bool> {
    sqlx::query(
        "select exists (select 1 from leaf where item = ?1) or exists (select 1 from decision where item = ?1)
            or exists (select 1 from cut_off where organisation = ?2) as touched",
    )
    .bind(item)
    .bind(organisation)
    .fetch_one(conn)
    .await?
    .flag("touched")
}

/// What a revision came to when a statement named it, if one did: its leaf, and what was paid when that was made. Two that did
/// not know of each other may differ. If one has finally settled, the first that did tells, and another one paid too much; else
/// the larger, since either can settle and both were promised. One that knows of more than both was stated after them.
///
/// Where the leaf does not tell what was paid, that is what had settled of lower revisions before a statement of the same deposit
/// and epoch did: an item is in statements of one epoch only until that is final. What another candidate of the epoch paid is no
/// part of it, nor is what was paid besides, after a loss: of the same revision, which is stated once otherwise; or by a leaf that
/// tells, as all do that were stated since.
pub(super) async fn stated_amount(
    conn: &mut SqliteConnection,
    item: i64,
    revision: u32,
) -> Result<Option<Amount>> {
    let leaves = sqlx::query(
        "select l.revision, l.amount, l.settled as told, s.block as paid, s.block <= chain.finalised as final,
            (select d.block from settled d join statement o on o.id = d.statement
             where o.deposit = t.deposit and o.epoch = t.epoch) as decided
         from leaf l join statement t on t.id = l.statement left join settled s on s.statement = l.statement, chain
         where l.item = ?",
    )
    .bind(item)
    .fetch_all(conn)
    .await?;
    let mut said = None;
    for leaf in &leaves {
        if leaf.u32("revision")? == revision {
            let is_final = leaf.maybe_int("final")? == Some(1);
            let paid = if is_final { leaf.maybe_int("paid")? } else { None };
            let (before, amount) = amount_by(leaf, &leaves)?;
            said = said.max(Some((before, Reverse(paid.unwrap_or(i64::MAX)), amount)));
        }
    }
    Ok(said.map(|(_, _, amount)| Amount::new(amount.max(0).unsigned_abs())))
}

/// What had been paid before a leaf of a work, of which these are all leaves, and what it says that the work comes to.
fn amount_by(leaf: &SqliteRow, leaves: &[SqliteRow]) -> Result<(i128, i128)> {
    let add = |sum: i128, paid| sum.checked_add(paid).ok_or(Error::Overflow("sum of leaves"));
    let before = match leaf.maybe_signed("told")? {
        Some(told) => told,
        None => {
            let decided = leaf.maybe_int("decided")?.unwrap_or(i64::MAX);
            let revision = leaf.u32("revision")?;
            let mut before = 0;
            for other in leaves {
                let was_known =
                    other.u32("revision")? < revision && other.maybe_signed("told")?.is_none();
                if was_known && other.maybe_int("paid")?.is_some_and(|paid| paid < decided) {
                    before = add(before, other.signed("amount")?)?;
                }
            }
            before
        }
    };
    Ok((before, add(before, leaf.signed("amount")?)?))
}

async fn insert_accepted(
    conn: &mut SqliteConnection,
    (item, revision): (i64, u32),
    amount: Amount,
    rate: Option<&Rate>,
    now: Millis,
) -> Result<()> {
    sqlx::query(
        "insert into accepted (item, revision, amount, rate, rate_source, rate_at, at) values (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(item)
    .bind(i64::from(revision))
    .bind(sql::amount(amount))
    .bind(rate.map(|rate| rate.usd_per_token.to_string()))
    .bind(rate.map(|rate| rate.source.as_str()))
    .bind(rate.map(|rate| rate.at_ms))
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
