//! The book: promises and intents. The relayer's side of the ledger.

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::{Address, B256};
use k256::ecdsa::SigningKey;
use sqlx::SqliteConnection;

use crate::{
    Amount, Error, Ledger, Millis, ProviderNumber, Result,
    chain::{Content, insert_statement},
    manifest::{CARRY, Tree},
    read::{self, Attempt, Books, SignedStatement, SlotKind},
    rules::{self, Proposal},
    sql::{self, Columns, integer},
    statement::{self, Statement},
    verify,
    workload::{Outcome, Rate, Record},
};

/// Most base units that one record may come to: a million whole tokens of 24 decimals.
const MAX_AMOUNT: Amount = Amount::new(1_000_000_000_000_000_000_000_000_000_000);

/// The relayer's capability: it alone writes promises and intents.
#[derive(Debug, Clone)]
pub struct BookWriter(Ledger);

/// What acceptance needs to know besides the ledger.
#[derive(Debug, Clone)]
pub struct Tariff {
    /// The operator's fee, ten-thousandths.
    pub fee_bps: u16,
    /// Rate of each token that is paid in.
    pub rates: BTreeMap<Address, Rate>,
}

/// A source file, as far as it matters for money.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Whose file it is.
    pub source: String,
    /// Its name, without folders.
    pub name: String,
    /// First day that it covers, `YYYYMMDD`.
    pub first_day: String,
    /// First day that it does not cover any more, `YYYYMMDD`.
    pub until_day: String,
    /// Hash of its bytes.
    pub sha256: B256,
}

/// What a slot is for, with what it carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obligation {
    /// Statements, by row id.
    Settle(Vec<i64>),
    /// Claims of providers in one token.
    Claim(Address, Vec<ProviderNumber>),
    /// Registrations of payout addresses.
    Register(Vec<Address>),
}

impl Obligation {
    /// Its kind.
    pub const fn kind(&self) -> SlotKind {
        match self {
            Self::Settle(_) => SlotKind::Settle,
            Self::Claim(..) => SlotKind::Claim,
            Self::Register(_) => SlotKind::Register,
        }
    }
}

/// An organisation as the operator configures it.
#[derive(Debug, Clone)]
pub struct Organisation {
    /// Its name.
    pub name: String,
    /// The token that it pays in.
    pub token: Address,
    /// Its deposits, in the order in which they pay.
    pub deposits: Vec<B256>,
}

/// What the tx receipt of an attempt said.
#[derive(Debug, Clone, Copy)]
pub struct TxReceipt {
    /// Row id of the attempt.
    pub attempt: i64,
    /// Hash of the block that holds it.
    pub block_hash: B256,
    /// Number of that block.
    pub block: u64,
    /// Whether it went through.
    pub succeeded: bool,
    /// Gas used.
    pub gas_used: u64,
    /// Fee paid, wei.
    pub fee: u128,
}

impl BookWriter {
    /// The writer of a ledger. A process has one.
    pub const fn new(ledger: Ledger) -> Self {
        Self(ledger)
    }

    /// Address of the contract, which is no payout address.
    pub const fn contract(&self) -> Address {
        self.0.identity().contract
    }

    /// Makes the organisations and their deposits those of the configuration, payable by statements of `attester`. What was
    /// accepted stays.
    pub async fn set_organisations(
        &self,
        organisations: &[Organisation],
        attester: Address,
    ) -> Result<()> {
        let mut tx = self.0.begin().await?;
        sqlx::query("delete from funding").execute(&mut *tx).await?;
        for Organisation { name, token, deposits } in organisations {
            sqlx::query(
                "insert into organisation (name, token, attester) values (?, ?, ?)
                 on conflict (name) do update set attester = excluded.attester, token = case
                    when exists (select 1 from item where organisation = excluded.name) then token
                    else excluded.token end",
            )
            .bind(name)
            .bind(token.to_vec())
            .bind(attester.to_vec())
            .execute(&mut *tx)
            .await?;
            for (position, deposit) in deposits.iter().enumerate() {
                sqlx::query(
                    "insert into funding (organisation, position, deposit) values (?, ?, ?)",
                )
                .bind(name)
                .bind(integer(position as u64)?)
                .bind(deposit.to_vec())
                .execute(&mut *tx)
                .await?;
            }
        }
        Ok(tx.commit().await?)
    }

    /// Remembers a source file. The same file again is fine; one that overlaps another of its source without covering
    /// the same days is refused. Days are labels; money goes by the records' stamps.
    pub async fn add_source_file(&self, file: &SourceFile, now: Millis) -> Result<()> {
        let mut tx = self.0.begin().await?;
        let other = sqlx::query(
            "select name from source_file where source = ?1 and first_day < ?3 and until_day > ?2
             and not (first_day = ?2 and until_day = ?3) limit 1",
        )
        .bind(&file.source)
        .bind(&file.first_day)
        .bind(&file.until_day)
        .fetch_optional(&mut *tx)
        .await?;
        if let Some(other) = other {
            let (first, until) = (file.first_day.clone(), file.until_day.clone());
            return Err(Error::FileOverlap {
                name: file.name.clone(),
                first,
                until,
                other: other.text("name")?,
            });
        }
        sqlx::query(
            "insert into source_file (source, first_day, until_day, sha256, name, at) values (?, ?, ?, ?, ?, ?)
             on conflict do nothing",
        )
        .bind(&file.source)
        .bind(&file.first_day)
        .bind(&file.until_day)
        .bind(file.sha256.to_vec())
        .bind(&file.name)
        .bind(now)
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }

    /// Names the address that a machine's earnings belong to. Returns whether that is new.
    pub async fn set_payee(&self, machine: &str, address: Address, now: Millis) -> Result<bool> {
        let mut tx = self.0.begin().await?;
        let is_new = payee_of(&mut tx, machine).await? != Some(address);
        if is_new {
            insert_payee(&mut tx, machine, address, now).await?;
        }
        tx.commit().await?;
        Ok(is_new)
    }

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
        tx.commit().await?;
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
        tx.commit().await?;
        Ok(accepted)
    }

    /// Records a decision about an item: `hold`, `release`, `dispute` or `pay`; the last one counts.
    pub async fn decide(&self, item: i64, verdict: &str, reason: &str, now: Millis) -> Result<()> {
        let mut tx = self.0.begin().await?;
        insert_decision(&mut tx, item, verdict, reason, now).await?;
        Ok(tx.commit().await?)
    }

    /// Orders that everything payable that ended by `until` be stated. Ordering the same again changes nothing.
    pub async fn close_until(&self, until: Millis, now: Millis) -> Result<()> {
        let mut tx = self.0.begin().await?;
        sqlx::query(
            "insert into closing (until_ms, at) select ?1, ?2
             where not exists (select 1 from closing where until_ms >= ?1)",
        )
        .bind(until)
        .bind(now)
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }

    /// Records the next statement of a deposit: rows, leaves, manifest root and digest. Returns what is to be signed.
    ///
    /// Refused if the deposit moved on since the proposal was made, or if another candidate of its epoch exists.
    pub async fn record_statement(
        &self,
        deposit: B256,
        state: &rules::DepositState,
        proposal: &Proposal,
        fee_bps: u16,
    ) -> Result<SignedStatement> {
        let mut tx = self.0.begin().await?;
        let current = read::deposit_state(&mut tx, deposit).await?;
        if (current.epoch, current.spent) != (state.epoch, state.spent) {
            return Err(Error::Unsignable(format!(
                "deposit {deposit} moved on to epoch {}",
                current.epoch
            )));
        }
        let key = read::deposit_key(&mut tx, deposit)
            .await?
            .ok_or(Error::Corrupt("deposit of a proposal"))?;
        let statement = Statement {
            key,
            epoch: state.epoch.checked_add(1).ok_or(Error::Overflow("epoch"))?,
            spent: state.spent.add(proposal.total()?)?,
            manifest: Tree::new(&proposal.leaves).root(),
            rows: statement::pack(&proposal.rows)?,
        };
        let digest = statement.digest(&self.0.identity().domain());
        let candidates =
            sqlx::query("select 1 from statement where deposit = ? and epoch = ? and ours = 1")
                .bind(deposit.to_vec())
                .bind(i64::from(statement.epoch))
                .fetch_all(&mut *tx)
                .await?;
        if !candidates.is_empty() {
            return Err(Error::Unsignable(format!(
                "deposit {deposit} has a candidate for epoch {} already",
                statement.epoch
            )));
        }
        refuse_stale(&mut tx, deposit, proposal).await?;
        let content = Content {
            deposit,
            epoch: statement.epoch,
            spent: statement.spent,
            manifest: statement.manifest,
            digest,
        };
        let id = insert_statement(&mut tx, &content, Some(fee_bps)).await?;
        insert_rows(&mut tx, id, proposal).await?;
        insert_leaves(&mut tx, id, proposal).await?;
        tx.commit().await?;
        Ok(SignedStatement {
            id,
            statement,
            digest,
            signature: Vec::new(),
            cosignature: Vec::new(),
        })
    }

    /// Signs a recorded statement with the attester's key and stores the signature.
    ///
    /// Enforces the signers' rules that one candidate at a time leaves open: digest, manifest root and rows follow from
    /// the stored leaves, the epoch is the deposit's next, and the key is one that the deposit names.
    pub async fn sign_statement(&self, id: i64, key: &SigningKey) -> Result<SignedStatement> {
        let mut tx = self.0.begin().await?;
        let (statement, digest) = read::statement(&mut tx, id).await?;
        let state = read::deposit_state(&mut tx, statement.key.id()).await?;
        let signer = statement::address_of(key.verifying_key());
        let refuse = |why: String| Err(Error::Unsignable(why));
        if statement.digest(&self.0.identity().domain()) != digest {
            return refuse(format!("statement {id} does not have the digest {digest}"));
        }
        if let Some(difference) = verify::statement_differences(&mut tx, id).await?.first() {
            return refuse(difference.to_string());
        }
        if Some(statement.epoch) != state.epoch.checked_add(1) {
            return refuse(format!(
                "statement {id} is for epoch {}, the deposit is at {}",
                statement.epoch, state.epoch
            ));
        }
        if ![statement.key.signer, statement.key.cosigner].contains(&signer) {
            return refuse(format!(
                "deposit {} does not name the key {signer}",
                statement.key.id()
            ));
        }
        let signature = statement::sign(key, digest)?;
        sqlx::query("insert into signature (statement, signer, signature) values (?, ?, ?) on conflict do nothing")
            .bind(id)
            .bind(signer.to_vec())
            .bind(signature.to_vec())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        read::Reader::new(self.0.clone()).signed_statement(id).await
    }

    /// Opens a slot for an obligation, with the first attempt at it, before anything is sent.
    pub async fn open_slot(
        &self,
        sender: Address,
        tx_nonce: u64,
        obligation: &Obligation,
        attempt: &Attempt,
    ) -> Result<i64> {
        let mut tx = self.0.begin().await?;
        let slot = sqlx::query("insert into slot (sender, tx_nonce, kind, at) values (?, ?, ?, ?)")
            .bind(sender.to_vec())
            .bind(integer(tx_nonce)?)
            .bind(obligation.kind().name())
            .bind(attempt.at)
            .execute(&mut *tx)
            .await?
            .last_insert_rowid();
        insert_obligation(&mut tx, slot, obligation).await?;
        insert_attempt(&mut tx, slot, attempt).await?;
        tx.commit().await?;
        Ok(slot)
    }

    /// Records another attempt for a slot, before it is sent.
    pub async fn add_attempt(&self, slot: i64, attempt: &Attempt) -> Result<()> {
        let mut tx = self.0.begin().await?;
        insert_attempt(&mut tx, slot, attempt).await?;
        Ok(tx.commit().await?)
    }

    /// Records what a tx receipt said, a hint for fee reports.
    pub async fn add_tx_receipt(&self, receipt: &TxReceipt) -> Result<()> {
        let mut tx = self.0.begin().await?;
        sqlx::query(
            "insert into tx_receipt (attempt, block_hash, block, succeeded, gas_used, fee) values (?, ?, ?, ?, ?, ?)
             on conflict do nothing",
        )
        .bind(receipt.attempt)
        .bind(receipt.block_hash.to_vec())
        .bind(integer(receipt.block)?)
        .bind(i64::from(receipt.succeeded))
        .bind(integer(receipt.gas_used)?)
        .bind(sql::amount(Amount::new(receipt.fee)))
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }
}

/// Refuses a proposal that does not follow from the books as they are now: it was made from what was read before, and the
/// indexer may have written since.
async fn refuse_stale(
    conn: &mut SqliteConnection,
    deposit: B256,
    proposal: &Proposal,
) -> Result<()> {
    let refuse = |why: String| {
        Err(Error::Unsignable(format!("deposit {deposit}: {why}; the next turn proposes anew")))
    };
    let row = sqlx::query("select organisation from funding where deposit = ?")
        .bind(deposit.to_vec())
        .fetch_optional(&mut *conn)
        .await?;
    let Some(row) = row else { return refuse("it pays for nobody".into()) };
    let books = read::books(conn, &row.text("organisation")?)
        .await?
        .ok_or(Error::Corrupt("organisation"))?;
    let Some(purse) = books.deposits.iter().find(|known| known.id == deposit && known.is_usable)
    else {
        return refuse("it cannot be paid from".into());
    };
    if proposal.total()? > purse.state.spendable() {
        return refuse("the rows exceed what is final and unspent".into());
    }
    let open: BTreeMap<_, _> = books.open.iter().map(|item| (item.item, item)).collect();
    for leaf in &proposal.leaves {
        let expected = match leaf.paid {
            Some(paid) => match open.get(&paid.item) {
                Some(item) => item.payable()?,
                None => None,
            }
            .filter(|(_, revision, _)| *revision == paid.revision)
            .map(|(provider, _, due)| (provider, due)),
            None if leaf.workload == CARRY => {
                let carry = purse.carries.get(&leaf.provider).copied().unwrap_or_default();
                Some((leaf.provider, carry.signed()?))
            }
            None => Some((leaf.provider, leaf.amount)),
        };
        if expected != Some((leaf.provider, leaf.amount)) {
            return refuse(format!("leaf {} is not due as proposed", leaf.workload));
        }
    }
    Ok(())
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
            insert_decision(self.conn, item, "hold", &reason, self.now).await?;
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
            None => insert_payee(self.conn, machine, address, self.now).await?,
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
        if amount > Amount::ZERO || before.is_some() {
            insert_open(self.conn, item).await?;
        }
        Ok(Acceptance::Accepted(amount))
    }

    async fn wait(&mut self, item: i64, missing: Amount) -> Result<Acceptance> {
        insert_open(self.conn, item).await?;
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
    verdict: &str,
    reason: &str,
    now: Millis,
) -> Result<()> {
    sqlx::query("insert into decision (item, verdict, reason, at) values (?, ?, ?, ?)")
        .bind(item)
        .bind(verdict)
        .bind(reason)
        .bind(now)
        .execute(conn)
        .await?;
    Ok(())
}

async fn payee_of(conn: &mut SqliteConnection, machine: &str) -> Result<Option<Address>> {
    let row = sqlx::query("select address from payee where machine = ? order by id desc limit 1")
        .bind(machine)
        .fetch_optional(conn)
        .await?;
    row.map(|row| row.address("address")).transpose()
}

async fn insert_payee(
    conn: &mut SqliteConnection,
    machine: &str,
    address: Address,
    now: Millis,
) -> Result<()> {
    sqlx::query("insert into payee (machine, address, at) values (?, ?, ?)")
        .bind(machine)
        .bind(address.to_vec())
        .bind(now)
        .execute(conn)
        .await?;
    Ok(())
}

async fn insert_rows(
    conn: &mut SqliteConnection,
    statement: i64,
    proposal: &Proposal,
) -> Result<()> {
    for row in &proposal.rows {
        sqlx::query("insert into \"row\" (statement, provider, units, carry_in, carry_out) values (?, ?, ?, ?, ?)")
            .bind(statement)
            .bind(i64::from(row.provider))
            .bind(sql::units(row.units))
            .bind(sql::amount(row.carry_in))
            .bind(sql::amount(row.carry_out))
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}

async fn insert_leaves(
    conn: &mut SqliteConnection,
    statement: i64,
    proposal: &Proposal,
) -> Result<()> {
    for (position, leaf) in proposal.leaves.iter().enumerate() {
        sqlx::query(
            "insert into leaf (statement, position, item, revision, workload, provider, amount)
             values (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(statement)
        .bind(integer(position as u64)?)
        .bind(leaf.paid.map(|paid| paid.item))
        .bind(leaf.paid.map(|paid| i64::from(paid.revision)))
        .bind(leaf.workload.to_vec())
        .bind(i64::from(leaf.provider))
        .bind(sql::signed(leaf.amount))
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

async fn insert_obligation(
    conn: &mut SqliteConnection,
    slot: i64,
    obligation: &Obligation,
) -> Result<()> {
    match obligation {
        Obligation::Settle(statements) => {
            for statement in statements.iter().copied().collect::<BTreeSet<_>>() {
                sqlx::query("insert into carried_statement (slot, statement) values (?, ?)")
                    .bind(slot)
                    .bind(statement)
                    .execute(&mut *conn)
                    .await?;
            }
        }
        Obligation::Claim(token, providers) => {
            for provider in providers.iter().copied().collect::<BTreeSet<_>>() {
                sqlx::query("insert into carried_claim (slot, token, provider) values (?, ?, ?)")
                    .bind(slot)
                    .bind(token.to_vec())
                    .bind(i64::from(provider))
                    .execute(&mut *conn)
                    .await?;
            }
        }
        Obligation::Register(addresses) => {
            for address in addresses.iter().copied().collect::<BTreeSet<_>>() {
                sqlx::query("insert into carried_registration (slot, address) values (?, ?)")
                    .bind(slot)
                    .bind(address.to_vec())
                    .execute(&mut *conn)
                    .await?;
            }
        }
    }
    Ok(())
}

async fn insert_attempt(conn: &mut SqliteConnection, slot: i64, attempt: &Attempt) -> Result<()> {
    sqlx::query("insert into attempt (slot, hash, raw, max_fee, tip, gas_limit, at) values (?, ?, ?, ?, ?, ?, ?)")
        .bind(slot)
        .bind(attempt.hash.to_vec())
        .bind(&attempt.raw)
        .bind(sql::amount(Amount::new(attempt.max_fee)))
        .bind(sql::amount(Amount::new(attempt.tip)))
        .bind(integer(attempt.gas_limit)?)
        .bind(attempt.at)
        .execute(conn)
        .await?;
    Ok(())
}
