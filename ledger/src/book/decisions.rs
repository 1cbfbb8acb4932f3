//! Decisions about work: hold, release, dispute, pay. They are kept for ever, and the last one counts.

use sqlx::SqliteConnection;

use super::BookWriter;
use crate::{
    Amount, Error, Millis, Result,
    audit::{self, Event},
    read,
    rules::{self, OpenItem, Verdict},
    sql::Columns,
    store,
};

impl BookWriter {
    /// Records a decision about an item, with its reason.
    ///
    /// Refused where it could change nothing: what a live statement names can settle whatever is decided here, and what is paid
    /// is taken back by a revision only. Refused as well if it reserves money that is not there; `fee_bps` is the operator's fee
    /// on it. And a release, while a statement takes back of the work: more would be let go than is due now.
    pub async fn decide(
        &self,
        item: i64,
        verdict: Verdict,
        reason: &str,
        (fee_bps, now): (u16, Millis),
    ) -> Result<()> {
        let mut tx = self.0.begin().await?;
        refuse_void(&mut tx, item, verdict, fee_bps).await?;
        insert_decision(&mut tx, item, (verdict, reason), "operator", now).await?;
        read::refresh_open(&mut tx, item).await?;
        store::commit(tx, "decision").await
    }

    /// Decides what is still held of an organisation when a thaw of one of its deposits ends within `margin` seconds, by the
    /// time of blocks, and the money that stays does not cover what is reserved; see [`rules::verdict_at_thaw`]. Returns
    /// how many decisions that took: none while the organisation is frozen, since it is not known then what is covered.
    pub async fn decide_before_thaw_ends(
        &self,
        organisation: &str,
        (margin, fee_bps): (u64, u16),
        now: Millis,
    ) -> Result<u64> {
        let mut tx = self.0.begin().await?;
        let books = read::books(&mut tx, organisation).await?;
        let Some(books) = books.filter(|books| books.freezes.is_empty()) else { return Ok(0) };
        let block = read::checkpoint(&mut tx).await?;
        let soon = block.map_or(0, |block| block.time).saturating_add(margin);
        let ending = books.deposits.iter().find(|deposit| {
            deposit.is_usable && deposit.state.is_thawing() && deposit.state.thaw_ends <= soon
        });
        let Some(ending) = ending.filter(|_| books.available(fee_bps).is_ok_and(|left| left < 0))
        else {
            return Ok(0);
        };
        let mut decided = 0;
        for item in &books.open {
            let Some(verdict) = rules::verdict_at_thaw(item)? else { continue };
            let digests =
                if item.has_equal_digests { "are equal" } else { "are not known to be equal" };
            let reason = format!(
                "deposit {} can be withdrawn from {} on, and the output digests {digests}",
                ending.id, ending.state.thaw_ends
            );
            insert_decision(&mut tx, item.item, (verdict, &reason), "thaw rule", now).await?;
            read::refresh_open(&mut tx, item.item).await?;
            decided += 1;
        }
        store::commit(tx, "thaw-decisions").await?;
        Ok(decided)
    }
}

async fn refuse_void(
    conn: &mut SqliteConnection,
    item: i64,
    verdict: Verdict,
    fee_bps: u16,
) -> Result<()> {
    let refuse = |why: String| Err(Error::Undecidable(why));
    let Some(before) = read::open_item(conn, item).await? else {
        return refuse("there is no such work".into());
    };
    let after = OpenItem { verdict: Some(verdict), ..before.clone() };
    if verdict != Verdict::Pay
        && before.live.iter().any(|live| live.largest > live.settled || live.settled > 0)
    {
        return refuse("a statement that can settle names it; a revision corrects it".into());
    }
    if verdict == Verdict::Release && before.due()? < 0 {
        return refuse(
            "what was paid too much nets against later work; a revision changes what it comes to"
                .into(),
        );
    }
    if verdict == Verdict::Release && !before.live.is_empty() {
        return refuse(
            "a statement that can settle takes back of it, and more of it is due then; release it once that is final"
                .into(),
        );
    }
    if before.due()? == 0
        && after.due()? == 0
        && before.accepted.is_some_and(|(_, a)| a > Amount::ZERO)
    {
        return refuse("nothing is owed for it; a revision changes what it comes to".into());
    }
    let extra = after.reserved()?.checked_sub(before.reserved()?).unwrap_or_default();
    let row = sqlx::query("select organisation from item where id = ?")
        .bind(item)
        .fetch_one(&mut *conn)
        .await?;
    let books = read::books(conn, &row.text("organisation")?)
        .await?
        .ok_or(Error::Corrupt("organisation"))?;
    let missing = rules::missing(&books.position, extra, fee_bps)?;
    if extra > Amount::ZERO && missing > Amount::ZERO {
        return refuse(format!("{missing} base units are missing to reserve it again"));
    }
    Ok(())
}

/// An item as the audit log names it.
pub(super) fn subject_of(item: i64) -> String {
    format!("item {item}")
}

/// A decision as the audit log tells it.
pub(super) fn told_of_decision(verdict: &str, reason: &str) -> String {
    format!("{verdict}: {reason}")
}

/// Appends a decision, and tells it in the audit log.
pub(super) async fn insert_decision(
    conn: &mut SqliteConnection,
    item: i64,
    (verdict, reason): (Verdict, &str),
    actor: &str,
    now: Millis,
) -> Result<()> {
    let verdict = verdict.name();
    let (subject, detail) = (subject_of(item), told_of_decision(verdict, reason));
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
