//! The book: promises and intents. The relayer's side of the ledger.

mod decisions;
mod files;
mod group;
mod intake;
mod orders;
mod recovery;
mod slots;
mod statements;

use std::collections::BTreeMap;

use alloy::primitives::{Address, B256};
use sqlx::SqliteConnection;

pub(crate) use self::group::Group;
pub use self::orders::{Copied, Order};
pub use self::recovery::{Import, Sighting, Work};
pub use self::slots::{Lease, Outcome};
use crate::{
    Ledger, Millis, ProviderNumber, Result,
    audit::{self, Event},
    read::{self, SlotKind},
    sql::{Columns, integer},
    store,
    workload::Rate,
};

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
    /// How long after it was named a machine's new payout address acts.
    pub address_delay: Millis,
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

/// What became of a line that names a payout address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// It says something new.
    New,
    /// It says what is known.
    Known,
    /// Its file was taken in before. This address was named since, and stays.
    Replaced(Address),
}

/// What a slot is for, with what it carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obligation {
    /// Statements, by row id; none where a slot only fills a gap between tx nonces.
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

    pub(crate) const fn ledger(&self) -> &Ledger {
        &self.0
    }

    /// Address of the contract, which is no payout address.
    pub const fn contract(&self) -> Address {
        self.0.identity().contract
    }

    /// Makes the organisations and their deposits those of the configuration, payable by statements of `attester`. What was
    /// accepted stays. A change is told in the audit log.
    pub async fn set_organisations(
        &self,
        organisations: &[Organisation],
        attester: Address,
        now: Millis,
    ) -> Result<()> {
        let mut tx = self.0.begin().await?;
        let before = funding_of_all(&mut tx).await?;
        sqlx::query("delete from funding").execute(&mut *tx).await?;
        for organisation in organisations {
            insert_organisation(&mut tx, organisation, attester).await?;
        }
        sqlx::query("insert or ignore into paid_for (deposit, organisation) select deposit, organisation from funding")
            .execute(&mut *tx)
            .await?;
        let after = funding_of_all(&mut tx).await?;
        if before == after {
            return Ok(());
        }
        for (name, terms) in &after {
            if before.get(name) != Some(terms) {
                let (actor, action) = ("configuration", "organisation");
                let event = Event { at: now, actor, action, subject: name, detail: terms };
                audit::append(&mut tx, &event).await?;
            }
        }
        store::commit(tx, "organisations").await
    }

    /// Names the address that a machine's earnings belong to. Returns whether that is new. A machine's first address acts at
    /// once; a later one acts `delay` after `now`, by the time of blocks, on what is unsigned by then. One that acts later
    /// than that, since it was named while the clock was ahead, is new as well and acts earlier. One that does not act yet
    /// never will once another is named, and the one that acts stays at once if that is named again.
    pub async fn set_payee(
        &self,
        machine: &str,
        address: Address,
        times: (Millis, Millis),
    ) -> Result<bool> {
        let mut tx = self.0.begin().await?;
        let is_new = name_payee(&mut tx, machine, address, times).await?;
        store::commit(tx, "payee").await?;
        Ok(is_new)
    }

    /// Names what one part of a file says, by the hash of the whole file, in one commit. The same part again undoes nothing that was
    /// named since: who hands a file in once more may not know whether it was taken. An address that was named last is named again,
    /// and acts earlier if it was named while the clock was ahead.
    pub async fn name_payees(
        &self,
        (content, part): (B256, usize),
        payees: &[(String, Address)],
        times: (Millis, Millis),
    ) -> Result<Vec<Naming>> {
        let mut tx = self.0.begin().await?;
        let is_first = sqlx::query(
            "insert into payee_file (content, part, at) values (?, ?, ?) on conflict do nothing",
        )
        .bind(content.to_vec())
        .bind(integer(part as u64)?)
        .bind(times.1)
        .execute(&mut *tx)
        .await?
        .rows_affected()
            > 0;
        let mut namings = Vec::with_capacity(payees.len());
        for (machine, address) in payees {
            let newest = payee_of(&mut tx, machine).await?;
            namings.push(match newest.filter(|newest| !is_first && newest != address) {
                Some(newest) => Naming::Replaced(newest),
                None if name_payee(&mut tx, machine, *address, times).await? => Naming::New,
                None => Naming::Known,
            });
        }
        store::commit(tx, "payee").await?;
        Ok(namings)
    }

    /// Orders that everything payable that ended by `until` be stated. Ordering the same again changes nothing.
    pub async fn close_until(&self, until: Millis, now: Millis) -> Result<()> {
        let mut tx = self.0.begin().await?;
        let done = sqlx::query(
            "insert into closing (until_ms, at) select ?1, ?2
             where not exists (select 1 from closing where until_ms >= ?1)",
        )
        .bind(until)
        .bind(now)
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(());
        }
        let (actor, action) = ("operator", "closing");
        let subject = until.to_string();
        let detail = "everything payable that ended until then is to be stated";
        audit::append(&mut tx, &Event { at: now, actor, action, subject: &subject, detail })
            .await?;
        store::commit(tx, "closing").await
    }
}

/// Names a machine's payout address, as [`BookWriter::set_payee`] says, and returns whether that is new.
async fn name_payee(
    conn: &mut SqliteConnection,
    machine: &str,
    address: Address,
    (delay, now): (Millis, Millis),
) -> Result<bool> {
    let known = newest_payee(conn, machine).await?;
    let block_time = read::now_ms(conn).await?;
    let acting = payee_at(conn, machine, block_time).await?;
    let effective = match acting {
        Some((acting, since)) if acting == address => since,
        // Neither of the two clocks may be behind.
        Some(_) => now.max(block_time).saturating_add(delay),
        None => 0,
    };
    let is_new =
        known.is_none_or(|(known, effective_ms)| known != address || effective_ms > effective);
    if is_new {
        // Named again, the acting address follows one that waits, which therefore never acts.
        let restored = acting.filter(|(acts, _)| acting != known && *acts != address);
        if let Some((acting, since)) = restored {
            insert_named(conn, (machine, acting), "address delay", (since, now)).await?;
        }
        insert_named(conn, (machine, address), "operator", (effective, now)).await?;
    }
    Ok(is_new)
}

/// Enters what was just named, at the first time from `now` on at which it differs from all that was named before: of two that are
/// equal, only the first would be in a copy.
async fn insert_named(
    conn: &mut SqliteConnection,
    (machine, address): (&str, Address),
    actor: &str,
    (effective, now): (Millis, Millis),
) -> Result<()> {
    let at = sqlx::query(
        "select coalesce(max(at), ?4 - 1) + 1 as at from payee
         where machine = ?1 and address = ?2 and effective_ms = ?3 and at >= ?4",
    )
    .bind(machine)
    .bind(address.to_vec())
    .bind(effective)
    .bind(now)
    .fetch_one(&mut *conn)
    .await?
    .int("at")?;
    insert_payee(conn, (machine, address), actor, (effective, at)).await
}

async fn insert_organisation(
    conn: &mut SqliteConnection,
    organisation: &Organisation,
    attester: Address,
) -> Result<()> {
    let Organisation { name, token, deposits } = organisation;
    sqlx::query(
        "insert into organisation (name, token, attester) values (?, ?, ?)
         on conflict (name) do update set attester = excluded.attester, token = case
            when exists (select 1 from item where organisation = excluded.name) then token
            else excluded.token end",
    )
    .bind(name)
    .bind(token.to_vec())
    .bind(attester.to_vec())
    .execute(&mut *conn)
    .await?;
    for (position, deposit) in deposits.iter().enumerate() {
        sqlx::query("insert into funding (organisation, position, deposit) values (?, ?, ?)")
            .bind(name)
            .bind(integer(position as u64)?)
            .bind(deposit.to_vec())
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}

/// What each organisation pays with, in one line for people, by its name.
async fn funding_of_all(conn: &mut SqliteConnection) -> Result<BTreeMap<String, String>> {
    let mut terms = BTreeMap::new();
    for row in sqlx::query("select * from organisation").fetch_all(&mut *conn).await? {
        let (token, attester) = (row.address("token")?, row.address("attester")?);
        terms.insert(row.text("name")?, format!("token {token}, attester {attester}, deposits"));
    }
    for row in
        sqlx::query("select organisation, deposit from funding order by organisation, position")
            .fetch_all(conn)
            .await?
    {
        if let Some(terms) = terms.get_mut(&row.text("organisation")?) {
            terms.push_str(&format!(" {}", row.b256("deposit")?));
        }
    }
    Ok(terms)
}

async fn payee_of(conn: &mut SqliteConnection, machine: &str) -> Result<Option<Address>> {
    Ok(newest_payee(conn, machine).await?.map(|(address, _)| address))
}

/// Whether an address was ever named for a machine.
async fn was_named(conn: &mut SqliteConnection, machine: &str, address: Address) -> Result<bool> {
    let named = sqlx::query("select 1 from payee where machine = ? and address = ?")
        .bind(machine)
        .bind(address.to_vec())
        .fetch_optional(conn)
        .await?;
    Ok(named.is_some())
}

/// The address that was named last for a machine, and from when it acts, ms.
async fn newest_payee(
    conn: &mut SqliteConnection,
    machine: &str,
) -> Result<Option<(Address, Millis)>> {
    payee_at(conn, machine, Millis::MAX).await
}

/// The address that a machine is paid at at a time, and since when, ms.
async fn payee_at(
    conn: &mut SqliteConnection,
    machine: &str,
    time: Millis,
) -> Result<Option<(Address, Millis)>> {
    let row = sqlx::query(
        "select address, effective_ms from payee where machine = ? and effective_ms <= ? order by id desc limit 1",
    )
    .bind(machine)
    .bind(time)
    .fetch_optional(conn)
    .await?;
    row.map(|row| Ok((row.address("address")?, row.int("effective_ms")?))).transpose()
}

/// A payee as the audit log tells it.
fn told_of_payee(address: Address, effective: Millis) -> String {
    format!("{address} acts from {effective}")
}

async fn insert_payee(
    conn: &mut SqliteConnection,
    (machine, address): (&str, Address),
    actor: &str,
    (effective, now): (Millis, Millis),
) -> Result<()> {
    let (subject, detail) = (machine, told_of_payee(address, effective));
    let event = Event { at: now, actor, action: "payee", subject, detail: &detail };
    audit::append(conn, &event).await?;
    sqlx::query("insert into payee (machine, address, effective_ms, at) values (?, ?, ?, ?)")
        .bind(machine)
        .bind(address.to_vec())
        .bind(effective)
        .bind(now)
        .execute(conn)
        .await?;
    Ok(())
}
