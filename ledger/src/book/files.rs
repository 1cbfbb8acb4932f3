//! Source files: which days each covers, and what it held, so that no other name or source pays its work again.

use sqlx::SqliteConnection;

use super::SourceFile;
use crate::{
    Error, Millis, Result,
    audit::{self, Event},
    sql::Columns,
};

/// Refuses a file that overlaps another of its source without covering the same days, and one with the content of another
/// source or of other days: its records would be new under another label. Days are labels; money goes by the records' stamps.
pub(super) async fn refuse_known(conn: &mut SqliteConnection, file: &SourceFile) -> Result<()> {
    let other = sqlx::query(
        "select name from source_file where source = ?1 and first_day < ?3 and until_day > ?2
         and not (first_day = ?2 and until_day = ?3) limit 1",
    )
    .bind(&file.source)
    .bind(&file.first_day)
    .bind(&file.until_day)
    .fetch_optional(&mut *conn)
    .await?;
    let name = file.name.clone();
    if let Some(other) = other {
        let (first, until) = (file.first_day.clone(), file.until_day.clone());
        return Err(Error::FileOverlap { name, first, until, other: other.text("name")? });
    }
    let same = sqlx::query(
        "select source, name from source_file where sha256 = ?4
         and not (source = ?1 and first_day = ?2 and until_day = ?3) limit 1",
    )
    .bind(&file.source)
    .bind(&file.first_day)
    .bind(&file.until_day)
    .bind(file.sha256.to_vec())
    .fetch_optional(conn)
    .await?;
    let Some(same) = same else { return Ok(()) };
    let (other, other_of) = (same.text("name")?, same.text("source")?);
    Err(Error::FileAgain { name, of: file.source.clone(), other, other_of })
}

/// Remembers a file. The same one again is fine.
pub(super) async fn remember(
    conn: &mut SqliteConnection,
    file: &SourceFile,
    now: Millis,
) -> Result<()> {
    let done = sqlx::query(
        "insert into source_file (source, first_day, until_day, sha256, name, at) values (?, ?, ?, ?, ?, ?)
         on conflict do nothing",
    )
    .bind(&file.source)
    .bind(&file.first_day)
    .bind(&file.until_day)
    .bind(file.sha256.to_vec())
    .bind(&file.name)
    .bind(now)
    .execute(&mut *conn)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(());
    }
    let detail =
        format!("{} days {} to {}, {}", file.name, file.first_day, file.until_day, file.sha256);
    let (actor, action, subject) = ("intake", "source file", file.source.as_str());
    audit::append(conn, &Event { at: now, actor, action, subject, detail: &detail }).await
}
