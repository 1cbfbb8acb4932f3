//! The invariants of the ledger, numbered as in `docs/protocol.md`. Each one finds the rows at fault.
//!
//! [`violations`] checks what is cheap: sets of rows against sets of rows, fit to be run after every step of a test and every
//! hour. [`deep_violations`] hashes, recovers keys and decodes what was signed. Each looks at one snapshot.

mod deep;
mod items;
mod money;
mod queries;

use std::{collections::BTreeMap, fmt, sync::LazyLock};

use serde::Serialize;
use sqlx::SqliteConnection;

use crate::{Amount, Error, Ledger, Result, audit, sql::Columns};

/// A row that breaks an invariant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Number of the invariant, as in `L7`.
    pub invariant: String,
    /// Table and key of the row at fault.
    pub row: String,
    /// What is wrong with it.
    pub problem: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.invariant, self.row, self.problem)
    }
}

/// Items that are looked at together.
const PAGE_ITEMS: u32 = 5_000;

/// Every row that breaks one of L1 to L29, in one snapshot, at most a hundred of each; nothing if all is well.
pub async fn violations(ledger: &Ledger) -> Result<Vec<Violation>> {
    readable(quick(ledger).await)
}

/// Every row that breaks one of L30 to L35, which need hashing, recovering of keys, decoding, or reading the whole file.
pub async fn deep_violations(ledger: &Ledger) -> Result<Vec<Violation>> {
    readable(thorough(ledger).await)
}

/// What cannot be read back is a violation, not an accident.
fn readable(found: Result<Vec<Violation>>) -> Result<Vec<Violation>> {
    match found {
        Err(error @ (Error::Corrupt(_) | Error::Overflow(_))) => Ok(vec![Violation {
            invariant: "L35".into(),
            row: "the database".into(),
            problem: error.to_string(),
        }]),
        found => found,
    }
}

async fn quick(ledger: &Ledger) -> Result<Vec<Violation>> {
    let mut tx = ledger.reader().begin().await?;
    let mut found = Found::default();
    found.by_query(&mut tx).await?;
    money::check(&mut tx, &mut found).await?;
    found.items(&mut tx).await?;
    found.bumps(&mut tx).await?;
    for (seq, problem) in audit::breaks(&mut tx).await? {
        found.add(29, format!("audit {seq}"), problem);
    }
    Ok(found.violations)
}

async fn thorough(ledger: &Ledger) -> Result<Vec<Violation>> {
    let mut tx = ledger.reader().begin().await?;
    let mut found = Found::default();
    deep::check(&mut tx, ledger.identity(), &mut found).await?;
    Ok(found.violations)
}

/// What is checked by sets of rows alone, as one statement, so that it costs one answer.
static BY_QUERY: LazyLock<String> = LazyLock::new(|| {
    let parts = queries::QUERIES
        .iter()
        .map(|(number, query)| format!("select {number} as number, place, problem from ({query})"));
    parts.collect::<Vec<_>>().join(" union all ")
});

/// What was found so far, at most [`MOST`] rows of each invariant.
#[derive(Default)]
struct Found {
    violations: Vec<Violation>,
    counts: BTreeMap<u32, usize>,
}

/// Most rows at fault that are named for one invariant.
const MOST: usize = 100;

impl Found {
    fn add(&mut self, number: u32, row: impl Into<String>, problem: impl Into<String>) {
        let count = self.counts.entry(number).or_default();
        *count += 1;
        if *count <= MOST {
            let (invariant, row, problem) = (format!("L{number}"), row.into(), problem.into());
            self.violations.push(Violation { invariant, row, problem });
        }
    }

    async fn by_query(&mut self, conn: &mut SqliteConnection) -> Result<()> {
        for row in sqlx::query(BY_QUERY.as_str()).fetch_all(conn).await? {
            self.add(row.u32("number")?, row.text("place")?, row.text("problem")?);
        }
        Ok(())
    }

    /// L17 and L23: what items were paid and accepted for, and whether they are among the open ones.
    async fn items(&mut self, conn: &mut SqliteConnection) -> Result<()> {
        let mut after = 0;
        loop {
            let page = items::standings(conn, after, PAGE_ITEMS).await?;
            for standing in &page {
                self.item(conn, standing).await?;
            }
            match page.last() {
                Some(last) if page.len() == PAGE_ITEMS as usize => after = last.item,
                _ => return Ok(()),
            }
        }
    }

    async fn item(
        &mut self,
        conn: &mut SqliteConnection,
        standing: &items::Standing,
    ) -> Result<()> {
        let items::Standing { item, paid, highest, is_listed, is_open, .. } = *standing;
        if let Some(highest) = highest
            && paid > highest.signed()?
            && paid > items::most_payable(conn, item, highest).await?
        {
            let problem =
                format!("{paid} base units are settled, at most {highest} were ever accepted");
            self.add(17, format!("item {item}"), problem);
        }
        let row = format!("open, item {item}");
        if is_listed && !is_open {
            self.add(23, row, "listed, although nothing about it is open");
        } else if is_open && !is_listed {
            self.add(23, row, "missing, although it is not finally paid");
        }
        Ok(())
    }

    /// L27: that each attempt pays an eighth more than the one before it in the same slot, or as much with a higher tip: what no
    /// pool took for its tip alone has nothing to outbid.
    async fn bumps(&mut self, conn: &mut SqliteConnection) -> Result<()> {
        let rows = sqlx::query(
            "select * from (select id, max_fee, tip,
                lag(max_fee) over (partition by slot order by id) as max_fee_before,
                lag(tip) over (partition by slot order by id) as tip_before
                from attempt where slot in (select slot from attempt group by slot having count(*) > 1))
             where max_fee_before is not null",
        )
        .fetch_all(conn)
        .await?;
        let is_raised = |before: Amount, now: Amount| {
            let (before, now) = (before.base_units(), now.base_units());
            now > before && now - before >= before.div_ceil(8)
        };
        for row in rows {
            let fees = (row.amount("max_fee_before")?, row.amount("max_fee")?);
            let tips = (row.amount("tip_before")?, row.amount("tip")?);
            let has_more_tip = fees.1 == fees.0 && tips.1 > tips.0;
            let outbids = is_raised(fees.0, fees.1) && is_raised(tips.0, tips.1);
            if !(outbids || has_more_tip) {
                let problem = format!(
                    "it pays {} and {} wei per gas after {} and {}, not an eighth more of both, nor more tip alone",
                    fees.1, tips.1, fees.0, tips.0
                );
                self.add(27, format!("attempt {}", row.int("id")?), problem);
            }
        }
        Ok(())
    }
}
