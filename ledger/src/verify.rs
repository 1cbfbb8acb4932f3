//! Checking what is stored against what it follows from. Every difference names the row at fault.

use std::{collections::BTreeMap, fmt};

use alloy::primitives::keccak256;
use serde::Serialize;
use sqlx::SqliteConnection;

use crate::{
    Decimal, Ledger, Result, Unit,
    chain::{Block, Event, Fact, IndexedBlock},
    invariants::{self, Violation},
    manifest::{Secret, Tree},
    read, rules,
    sql::Columns,
    statement,
    workload::{Rate, Record},
};

/// Something stored that does not follow from what it should follow from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Table and key of the row.
    pub row: String,
    /// What is stored, and what it should be.
    pub problem: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.row, self.problem)
    }
}

fn differ(row: impl Into<String>, problem: impl Into<String>) -> Difference {
    Difference { row: row.into(), problem: problem.into() }
}

/// Compares the ledger's facts up to block `to` with what the chain's logs say. Blocks without events are ignored.
pub async fn facts(ledger: &Ledger, chain: &[IndexedBlock], to: u64) -> Result<Vec<Difference>> {
    let mut conn = ledger.reader().begin().await?;
    let mut stored = stored_facts(&mut conn).await?;
    stored.retain(|(block, _), _| *block <= to);
    let mut differences = Vec::new();
    let mut expected: BTreeMap<(u64, u64), (&Block, &Fact)> = BTreeMap::new();
    for IndexedBlock { block, facts } in chain {
        for fact in facts {
            expected.insert((block.number, fact.log_index), (block, fact));
        }
        compare_block(&mut conn, block, &mut differences).await?;
    }
    for (place, (table, shown)) in &stored {
        let row = format!("{table} at block {} log {}", place.0, place.1);
        match expected.remove(place) {
            None => differences.push(differ(row, format!("the chain has no such event: {shown}"))),
            Some((_, fact)) => {
                let (_, truth) = show(&fact.event);
                if *shown != truth {
                    differences
                        .push(differ(row, format!("stored {shown}, the chain says {truth}")));
                }
            }
        }
    }
    for (place, (_, fact)) in expected {
        let (table, truth) = show(&fact.event);
        let row = format!("{table} at block {} log {}", place.0, place.1);
        differences.push(differ(row, format!("missing, the chain says {truth}")));
    }
    Ok(differences)
}

async fn compare_block(
    conn: &mut SqliteConnection,
    block: &Block,
    differences: &mut Vec<Difference>,
) -> Result<()> {
    let stored = read::block_at_or_below(conn, block.number).await?;
    if stored != Some(*block) {
        let row = format!("block {}", block.number);
        differences.push(differ(row, format!("stored {stored:?}, the chain says {block:?}")));
    }
    Ok(())
}

/// Table of an event, and its content in one line, the same for stored and for read ones.
fn show(event: &Event) -> (&'static str, String) {
    let table = match event {
        Event::TokenRegistered { .. } => "token_registered",
        Event::Funded { .. } => "funded",
        Event::Thawed { .. } => "thawed",
        Event::Withdrawn { .. } => "withdrawn",
        Event::Settled { .. } => "settled",
        Event::Skipped { .. } => "skipped",
        Event::Registered { .. } => "registered",
        Event::PayoutSet { .. } => "payout_set",
        Event::Claimed { .. } => "claimed",
        Event::ClaimFailed { .. } => "claim_failed",
    };
    (table, format!("{event:?}"))
}

/// Every stored fact by place, as [`show`] prints it.
async fn stored_facts(
    conn: &mut SqliteConnection,
) -> Result<BTreeMap<(u64, u64), (&'static str, String)>> {
    let mut facts = BTreeMap::new();
    for (query, event) in FACTS {
        for row in sqlx::query(query).fetch_all(&mut *conn).await? {
            let event = event(&row)?;
            let event = match event {
                Event::Settled { deposit, epoch, spent, manifest, .. } => {
                    let rows = statement::pack(&read::rows(conn, row.int("statement")?).await?)?;
                    Event::Settled { deposit, epoch, spent, manifest, rows }
                }
                other => other,
            };
            facts.insert((row.u64("block")?, row.u64("log_index")?), show(&event));
        }
    }
    Ok(facts)
}

type ReadEvent = fn(&sqlx::sqlite::SqliteRow) -> Result<Event>;

/// How each table of facts is read back as events.
const FACTS: [(&str, ReadEvent); 10] = [
    ("select * from token_registered", |row| {
        let decimals =
            u8::try_from(row.int("decimals")?).map_err(|_| crate::Error::Corrupt("decimals"))?;
        if Unit::of_decimals(decimals)?.base_units() != row.u64("unit")? {
            return Err(crate::Error::Corrupt("unit of a token"));
        }
        Ok(Event::TokenRegistered { token: row.address("token")?, decimals })
    }),
    ("select f.*, d.* from funded f join deposit d on d.id = f.deposit", |row| {
        let key = contracts::eip712::DepositKey {
            requestor: row.address("requestor")?,
            signer: row.address("signer")?,
            cosigner: row.address("cosigner")?,
            token: row.address("token")?,
            salt: row.b256("salt")?,
        };
        Ok(Event::Funded { key, sender: row.address("sender")?, units: row.units("units")? })
    }),
    ("select * from thawed", |row| {
        Ok(Event::Thawed {
            deposit: row.b256("deposit")?,
            units: row.units("units")?,
            ends: row.u64("ends")?,
        })
    }),
    ("select * from withdrawn", |row| {
        let (deposit, recipient) = (row.b256("deposit")?, row.address("recipient")?);
        Ok(Event::Withdrawn { deposit, recipient, units: row.units("units")? })
    }),
    (
        "select s.*, t.deposit, t.epoch, t.spent, t.manifest from settled s join statement t on t.id = s.statement",
        |row| {
            Ok(Event::Settled {
                deposit: row.b256("deposit")?,
                epoch: row.u32("epoch")?,
                spent: row.units("spent")?,
                manifest: row.b256("manifest")?,
                rows: Vec::new(),
            })
        },
    ),
    ("select * from skipped", |row| {
        let reason =
            u8::try_from(row.int("reason")?).map_err(|_| crate::Error::Corrupt("reason"))?;
        Ok(Event::Skipped { deposit: row.b256("deposit")?, digest: row.b256("digest")?, reason })
    }),
    ("select * from registered", |row| {
        Ok(Event::Registered { provider: row.u32("provider")?, payout: row.address("payout")? })
    }),
    ("select * from payout_set", |row| {
        let (provider, payout) = (row.u32("provider")?, row.address("payout")?);
        Ok(Event::PayoutSet { provider, payout, claim_nonce: row.u64("claim_nonce")? })
    }),
    ("select * from claimed", |row| {
        Ok(Event::Claimed {
            provider: row.u32("provider")?,
            token: row.address("token")?,
            recipient: row.address("recipient")?,
            units: row.units("units")?,
            claim_nonce: row.u64("claim_nonce")?,
        })
    }),
    ("select * from claim_failed", |row| {
        let (provider, token) = (row.u32("provider")?, row.address("token")?);
        Ok(Event::ClaimFailed { provider, token, units: row.units("units")? })
    }),
];

/// Checks that a statement of ours follows from its leaves: rows, carries, manifest root.
pub(crate) async fn statement_differences(
    conn: &mut SqliteConnection,
    id: i64,
) -> Result<Vec<Difference>> {
    let (statement, _) = read::statement(conn, id).await?;
    let leaves: Vec<_> =
        read::named_leaves(conn, id).await?.into_iter().map(|named| named.leaf).collect();
    let rows = read::rows(conn, id).await?;
    let token = read::registered(conn, statement.key.token).await?;
    let unit = token.ok_or(crate::Error::Corrupt("token of a statement"))?.0.unit;
    let mut differences = Vec::new();
    let root = Tree::new(&leaves).root();
    if root != statement.manifest {
        let problem =
            format!("its leaves have the root {root}, its manifest is {}", statement.manifest);
        differences.push(differ(format!("leaf of statement {id}"), problem));
    }
    let follow = rules::rows_of(&leaves, unit)?;
    for row in &rows {
        if !follow.contains(row) {
            let name = format!("row of statement {id}, provider {}", row.provider);
            differences
                .push(differ(name, format!("stored {row:?} does not follow from its leaves")));
        }
    }
    if rows.len() != follow.len() {
        let problem =
            format!("{} rows are stored, its leaves come to {}", rows.len(), follow.len());
        differences.push(differ(format!("row of statement {id}"), problem));
    }
    Ok(differences)
}

/// Checks that every promise and intent follows from what it rests on: records from their bodies, amounts from prices and
/// rates, ids from the secret, and everything that the invariants say.
pub async fn book(ledger: &Ledger, secret: &Secret) -> Result<Vec<Difference>> {
    // One transaction, so that everything is seen as of one moment while others write.
    let mut conn = ledger.reader().begin().await?;
    let mut differences = records(&mut conn).await?;
    differences.extend(workload_ids(&mut conn, secret).await?);
    drop(conn);
    let mut violations = invariants::violations(ledger).await?;
    violations.extend(invariants::deep_violations(ledger).await?);
    let differ =
        |Violation { invariant, row, problem }| differ(row, format!("{problem} ({invariant})"));
    differences.extend(violations.into_iter().map(differ));
    Ok(differences)
}

async fn records(conn: &mut SqliteConnection) -> Result<Vec<Difference>> {
    let rows = sqlx::query(
        "select i.*, w.revision, w.content, w.body, a.amount, a.rate, a.rate_source, a.rate_at, t.decimals
         from workload w join item i on i.id = w.item
         left join accepted a on a.item = w.item and a.revision = w.revision
         left join organisation o on o.name = i.organisation left join token_registered t on t.token = o.token",
    )
    .fetch_all(conn)
    .await?;
    let mut differences = Vec::new();
    for row in rows {
        let (item, revision) = (row.int("id")?, row.u32("revision")?);
        let name = format!("workload of item {item}, revision {revision}");
        let body = row.text("body")?;
        let Ok(record) = Record::from_body(&body) else {
            differences.push(differ(name, "its body is not a record"));
            continue;
        };
        if keccak256(&body) != row.b256("content")? || record.revision.revision != revision {
            differences
                .push(differ(name, "its body does not have the stored content hash and revision"));
            continue;
        }
        let fixed = &record.item;
        let is_same = fixed.source == row.text("source")?
            && fixed.external_id == row.text("external_id")?
            && fixed.organisation == row.text("organisation")?
            && fixed.machine == row.text("machine")?
            && fixed.started_ms == row.int("started_ms")?
            && fixed.stopped_ms == row.int("stopped_ms")?
            && fixed.fixed()? == row.b256("fixed")?;
        if !is_same {
            differences.push(differ(format!("item {item}"), "it is not what its record says"));
        }
        if let (Some(rate), Some(decimals)) = (row.maybe_text("rate")?, row.maybe_int("decimals")?)
        {
            let decimals = u8::try_from(decimals).map_err(|_| crate::Error::Corrupt("decimals"))?;
            let accepted = format!("accepted of item {item}, revision {revision}");
            let Ok(usd_per_token) = rate.parse::<Decimal>() else {
                differences.push(differ(accepted, format!("its rate {rate:?} is not a decimal")));
                continue;
            };
            let source = row.maybe_text("rate_source")?.unwrap_or_default();
            let rate = Rate {
                usd_per_token,
                source,
                at_ms: row.maybe_int("rate_at")?.unwrap_or_default(),
            };
            let (stored, follows) = (row.amount("amount")?, record.amount(&rate, decimals)?);
            if stored != follows {
                let problem =
                    format!("stored {stored} base units, record and rate come to {follows}");
                differences.push(differ(accepted, problem));
            }
        }
    }
    Ok(differences)
}

/// Checks that leaves name their workloads by the ids that the secret gives them.
async fn workload_ids(conn: &mut SqliteConnection, secret: &Secret) -> Result<Vec<Difference>> {
    let rows = sqlx::query(
        "select l.statement, l.position, l.revision, l.workload, i.organisation, i.source, i.external_id
         from leaf l join item i on i.id = l.item order by l.statement, l.position",
    )
    .fetch_all(conn)
    .await?;
    let mut differences = Vec::new();
    for row in rows {
        let secret = secret.of_organisation(&row.text("organisation")?);
        let (source, external_id) = (row.text("source")?, row.text("external_id")?);
        let id = secret.workload_id(&source, &external_id, row.u32("revision")?);
        let stored = row.b256("workload")?;
        if id != stored {
            let (position, statement) = (row.int("position")?, row.int("statement")?);
            let problem = format!("stored id {stored}, its workload has {id}");
            differences.push(differ(format!("leaf {position} of statement {statement}"), problem));
        }
    }
    Ok(differences)
}
