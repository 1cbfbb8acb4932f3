//! What statements, deposits and credits come to: invariants that need arithmetic.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use alloy::primitives::{Address, B256};
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use super::Found;
use crate::{
    Amount, ProviderNumber, Result, Unit, Units,
    manifest::{FEE, Leaf},
    read::{self, Carried},
    rules::{self, DepositEvent, DepositState},
    sql::Columns,
    statement::Row,
};

/// Statements whose rows and leaves are looked at together.
const PAGE: usize = 64;

/// A stored statement, as far as it matters here.
struct Stored {
    id: i64,
    deposit: B256,
    epoch: u32,
    spent: Units,
    is_ours: bool,
    is_imported: bool,
    fee_bps: Option<u16>,
    /// Block and log index of the fact that settled it.
    settled: Option<(u64, u64)>,
    token: Option<Address>,
    unit: Option<Unit>,
}

/// L7 to L12, L14 and L19.
pub(super) async fn check(conn: &mut SqliteConnection, found: &mut Found) -> Result<()> {
    let statements = statements(conn).await?;
    let mut books = Books {
        found,
        deposits: BTreeMap::new(),
        before: BTreeMap::new(),
        totals: statements.iter().map(|s| (s.deposit, s.epoch, s.spent)).collect(),
        carries: BTreeMap::new(),
        credits: BTreeMap::new(),
    };
    books.deposits(conn).await?;
    let claims = sqlx::query(
        "select block, log_index, provider, token, units from claimed order by block, log_index",
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut claims = claims.iter().peekable();
    for page in statements.chunks(PAGE) {
        let ids = page.iter().map(|statement| statement.id.to_string()).collect::<Vec<_>>();
        let ids = format!("[{}]", ids.join(","));
        let mut rows = rows(conn, &ids).await?;
        let mut leaves = leaves(conn, &ids).await?;
        for statement in page {
            let rows = rows.remove(&statement.id).unwrap_or_default();
            if let Some(place) = statement.settled {
                while let Some(claim) = claims.peek() {
                    if (claim.u64("block")?, claim.u64("log_index")?) > place {
                        break;
                    }
                    books.claim(claim)?;
                    claims.next();
                }
                books.credit(statement, &rows);
            }
            let total = rows.iter().try_fold(Units::ZERO, |sum, row| sum.add(row.units)).ok();
            let pinned = total.and_then(|total| statement.spent.sub(total).ok());
            books.spent(statement, pinned);
            if statement.is_ours {
                books.leaves(
                    statement,
                    &rows,
                    &leaves.remove(&statement.id).unwrap_or_default(),
                )?;
            }
            // What was known when one was stated that was brought back is lost.
            if statement.is_ours && !statement.is_imported {
                books.predecessor(statement, pinned);
                books.carries(conn, statement, &rows, pinned).await?;
            }
        }
    }
    claims.try_for_each(|claim| books.claim(claim))
}

struct Books<'a> {
    found: &'a mut Found,
    /// Where each deposit stands at the checkpoint.
    deposits: BTreeMap<B256, DepositState>,
    /// Total spent before each settled statement.
    before: BTreeMap<i64, Units>,
    /// Deposit, epoch and spent of every statement known.
    totals: BTreeSet<(B256, u32, Units)>,
    carries: BTreeMap<B256, BTreeMap<ProviderNumber, Carried>>,
    credits: BTreeMap<(Address, ProviderNumber), i128>,
}

impl Books<'_> {
    /// L7 and L9: the deposits' events, in the order of the chain, by the contract's own arithmetic.
    async fn deposits(&mut self, conn: &mut SqliteConnection) -> Result<()> {
        let events = sqlx::query(
            "select block, log_index, 0 as kind, deposit, units, 0 as number, 0 as statement from funded
             union all select block, log_index, 1, deposit, units, ends, 0 from thawed
             union all select block, log_index, 2, deposit, units, 0, 0 from withdrawn
             union all select s.block, s.log_index, 3, t.deposit, t.spent, t.epoch, t.id
                 from settled s join statement t on t.id = s.statement
             order by block, log_index",
        )
        .fetch_all(conn)
        .await?;
        for row in events {
            let (deposit, units) = (row.b256("deposit")?, row.units("units")?);
            let state = self.deposits.entry(deposit).or_default();
            let event = match row.int("kind")? {
                0 => DepositEvent::Funded(units, true),
                1 => DepositEvent::Thawed(units, row.u64("number")?),
                2 => DepositEvent::Withdrawn(units),
                _ => {
                    let (id, epoch) = (row.int("statement")?, row.u32("number")?);
                    if Some(epoch) != state.epoch.checked_add(1) {
                        let problem = format!("it settled epoch {epoch} after {}", state.epoch);
                        self.found.add(7, format!("statement {id}"), problem);
                    }
                    self.before.insert(id, state.spent);
                    DepositEvent::Settled(epoch, units)
                }
            };
            if let Ok(after) = state.after(event) {
                *state = after;
            } else {
                let (block, log) = (row.int("block")?, row.int("log_index")?);
                let problem = format!("{event:?} does not fit a balance of {}", state.balance);
                self.found.add(9, format!("deposit {deposit} at block {block} log {log}"), problem);
            }
        }
        Ok(())
    }

    /// L8: that the total grew by what the rows come to. `pinned` is the total without them.
    fn spent(&mut self, statement: &Stored, pinned: Option<Units>) {
        if let Some(before) = self.before.get(&statement.id)
            && pinned != Some(*before)
        {
            let problem = format!(
                "its total of {} less its rows is {}, the deposit had spent {before}",
                statement.spent,
                shown(pinned)
            );
            self.found.add(8, format!("statement {}", statement.id), problem);
        }
    }

    fn credit(&mut self, statement: &Stored, rows: &[Row]) {
        let token = statement.token.unwrap_or_default();
        for row in rows {
            let credit = self.credits.entry((token, row.provider)).or_default();
            *credit = credit.saturating_add(row.units.get().into());
        }
    }

    /// L10: that a claim was covered by the credit that it took, there and then.
    fn claim(&mut self, claim: &SqliteRow) -> Result<()> {
        let (token, provider) = (claim.address("token")?, claim.u32("provider")?);
        let units = i128::from(claim.units("units")?.get());
        let credit = self.credits.entry((token, provider)).or_default();
        if *credit < units {
            let (block, log) = (claim.int("block")?, claim.int("log_index")?);
            let problem = format!("{units} units were claimed of a credit of {credit}");
            self.found.add(10, format!("claimed at block {block} log {log}"), problem);
        }
        *credit = credit.saturating_sub(units);
        Ok(())
    }

    /// L14: that the total which a statement of ours pins is that of a statement we know.
    fn predecessor(&mut self, statement: &Stored, pinned: Option<Units>) {
        let before = statement.epoch.checked_sub(1);
        let is_known = match (pinned, before) {
            (Some(pinned), Some(0)) => pinned == Units::ZERO,
            (Some(pinned), Some(before)) => {
                self.totals.contains(&(statement.deposit, before, pinned))
            }
            _ => false,
        };
        if !is_known {
            let problem = format!(
                "it follows a total of {}, which no statement of the epoch before it has",
                shown(pinned)
            );
            self.found.add(14, format!("statement {}", statement.id), problem);
        }
    }

    /// L11 and L19: that rows, carries and fee follow from the leaves.
    fn leaves(&mut self, statement: &Stored, rows: &[Row], leaves: &[Leaf]) -> Result<()> {
        let id = statement.id;
        let Some(unit) = statement.unit else {
            self.found.add(11, format!("statement {id}"), "the token of its deposit is not known");
            return Ok(());
        };
        let follow = rules::rows_of(leaves, unit)?;
        let name = |row: &Row| format!("row of statement {id}, provider {}", row.provider);
        for row in rows.iter().filter(|row| !follow.contains(row)) {
            self.found.add(11, name(row), format!("{row:?} does not follow from its leaves"));
        }
        for row in follow.iter().filter(|row| !rows.iter().any(|r| r.provider == row.provider)) {
            self.found.add(11, name(row), "missing, although leaves name the provider");
        }
        let work = leaves.iter().filter(|leaf| leaf.paid.is_some());
        let work = work.fold(0_i128, |sum, leaf| sum.saturating_add(leaf.amount));
        let fee = leaves.iter().find(|leaf| leaf.workload == FEE);
        if let (Some(fee), Some(bps)) = (fee, statement.fee_bps) {
            let share = Amount::new(work.max(0).unsigned_abs()).share(bps)?;
            if share.signed()? != fee.amount {
                let problem = format!("the fee is {}, {bps} bps come to {share}", fee.amount);
                self.found.add(19, format!("leaf of statement {id}"), problem);
            }
        }
        Ok(())
    }

    /// L12, for a statement that could settle next: that it brings in what is carried, where that is known.
    async fn carries(
        &mut self,
        conn: &mut SqliteConnection,
        statement: &Stored,
        rows: &[Row],
        pinned: Option<Units>,
    ) -> Result<()> {
        let state = self.deposits.get(&statement.deposit).copied().unwrap_or_default();
        let is_next = Some(statement.epoch) == state.epoch.checked_add(1)
            && pinned == Some(state.spent)
            && statement.settled.is_none();
        if !is_next {
            return Ok(());
        }
        let carries = match self.carries.entry(statement.deposit) {
            Entry::Occupied(read) => read.into_mut(),
            Entry::Vacant(unread) => unread.insert(read::carried(conn, statement.deposit).await?),
        };
        for row in rows {
            let owed = match carries.get(&row.provider) {
                Some(Carried { is_cut_off: true, .. } | Carried { amount: None, .. }) => continue,
                Some(Carried { amount: Some(amount), .. }) => *amount,
                None => Amount::ZERO,
            };
            if row.carry_in != owed {
                let name = format!("row of statement {}, provider {}", statement.id, row.provider);
                let problem = format!("carry in is {}, carried is {owed}", row.carry_in);
                self.found.add(12, name, problem);
            }
        }
        Ok(())
    }
}

fn shown(total: Option<Units>) -> String {
    total.map_or_else(|| "less than nothing".into(), |total| total.to_string())
}

/// Every statement, settled ones first, in the order of the chain.
async fn statements(conn: &mut SqliteConnection) -> Result<Vec<Stored>> {
    let rows = sqlx::query(
        "select t.id, t.deposit, t.epoch, t.spent, t.ours, t.fee_bps,
            exists (select 1 from imported m where m.statement = t.id) as imported, s.block, s.log_index, d.token, k.decimals
         from statement t left join settled s on s.statement = t.id left join deposit d on d.id = t.deposit
         left join token_registered k on k.token = d.token
         order by s.block is null, s.block, s.log_index, t.id",
    )
    .fetch_all(conn)
    .await?;
    let mut statements = Vec::with_capacity(rows.len());
    for row in rows {
        let settled = match row.maybe_int("block")? {
            Some(_) => Some((row.u64("block")?, row.u64("log_index")?)),
            None => None,
        };
        let decimals = row.maybe_int("decimals")?.and_then(|decimals| u8::try_from(decimals).ok());
        statements.push(Stored {
            id: row.int("id")?,
            deposit: row.b256("deposit")?,
            epoch: row.u32("epoch")?,
            spent: row.units("spent")?,
            is_ours: row.flag("ours")?,
            is_imported: row.flag("imported")?,
            fee_bps: row.maybe_int("fee_bps")?.and_then(|bps| u16::try_from(bps).ok()),
            settled,
            token: decimals.map(|_| row.address("token")).transpose()?,
            unit: decimals.map(Unit::of_decimals).transpose()?,
        });
    }
    Ok(statements)
}

/// Rows of the statements whose ids stand in a JSON array.
async fn rows(conn: &mut SqliteConnection, ids: &str) -> Result<BTreeMap<i64, Vec<Row>>> {
    let stored = sqlx::query(
        "select statement, provider, units, coalesce(carry_in, zeroblob(16)) as carry_in,
            coalesce(carry_out, zeroblob(16)) as carry_out
         from \"row\" where statement in (select value from json_each(?)) order by statement, provider",
    )
    .bind(ids)
    .fetch_all(conn)
    .await?;
    let mut rows: BTreeMap<i64, Vec<Row>> = BTreeMap::new();
    for row in stored {
        rows.entry(row.int("statement")?).or_default().push(Row {
            provider: row.u32("provider")?,
            units: row.units("units")?,
            carry_in: row.amount("carry_in")?,
            carry_out: row.amount("carry_out")?,
        });
    }
    Ok(rows)
}

/// Leaves of the statements whose ids stand in a JSON array, in their order.
pub(super) async fn leaves(
    conn: &mut SqliteConnection,
    ids: &str,
) -> Result<BTreeMap<i64, Vec<Leaf>>> {
    let stored = sqlx::query(
        "select statement, item, revision, settled, workload, provider, amount
         from leaf where statement in (select value from json_each(?)) order by statement, position",
    )
    .bind(ids)
    .fetch_all(conn)
    .await?;
    let mut leaves: BTreeMap<i64, Vec<Leaf>> = BTreeMap::new();
    for row in stored {
        leaves.entry(row.int("statement")?).or_default().push(read::leaf_of(&row)?);
    }
    Ok(leaves)
}
