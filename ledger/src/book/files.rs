//! Source files: which days each covers, and what it held, so that no other name or source pays its work again.

use sqlx::SqliteConnection;

use super::SourceFile;
use crate::{
    Error, Millis, Result,
    audit::{self, Event},
    sql::Columns,
};

/// A file that something of source `?1` was kept of, over days that `?2` to `?3` overlap without being the same. Ids that begin
/// with days, as `?4` says, tell it, if a file of these days is remembered or a manifest brought one of them: a record by itself
/// may have any id. What manifests bring may be of such a record, and counts only with organisation and machine in its id, as those
/// of files have. It goes by the index, from one label to the next, and over other ids by as much as begins alike. No label
/// ends in a later century than the file's.
const OVERLAPPING: &str = "
with recursive known (id) as (
    select min(external_id) from item
    where source = ?1 and external_id > substr(?2, 1, 1) and external_id < ?3
    union all
    select (
        select min(external_id) from item
        where source = ?1 and external_id < ?3 and external_id > case
            when known.id glob ?4 then substr(known.id, 1, 17) || '0'
            when known.id < substr(known.id, 1, 8) || '-' || ?2 then substr(known.id, 1, 8) || '-' || ?2
            when known.id < substr(known.id, 1, 8) || '-' || (substr(?3, 1, 2) + 1) then known.id
            else max(known.id, substr(known.id, 1, 8) || char(0x10ffff)) end)
    from known where known.id is not null)
select substr(known.id, 1, 17) || '.json' as name from known
where known.id glob ?4 and substr(known.id, 10, 8) > ?2 and substr(known.id, 1, 17) <> ?2 || '-' || ?3 and (
    exists (select 1 from source_file where source = ?1 and first_day || '-' || until_day = substr(known.id, 1, 17))
    or exists (
        select 1 from item i join leaf l on l.item = i.id join imported m on m.statement = l.statement
        where i.source = ?1 and i.external_id >= known.id and i.external_id < substr(known.id, 1, 17) || '0'
            and substr(i.external_id, 18, length(i.organisation) + 2) = '/' || i.organisation || '/'
            and substr(i.external_id, -length(i.machine) - 1) = '/' || i.machine))
limit 1";

/// Refuses a file that overlaps another of its source without covering the same days, and one with the content of another
/// source or of other days: its records would be new under another label. Days are labels; money goes by the records' stamps.
///
/// The other one counts if something of it was kept. That its name is remembered is not enough: older versions remembered files
/// of which nothing was kept. Nor is it needed: after a loss, nothing but the work that manifests bring back tells of it.
pub(super) async fn refuse_known(conn: &mut SqliteConnection, file: &SourceFile) -> Result<()> {
    let day = "[0-9]".repeat(8);
    let other = sqlx::query(OVERLAPPING)
        .bind(&file.source)
        .bind(&file.first_day)
        .bind(&file.until_day)
        .bind(format!("{day}-{day}/*"))
        .fetch_optional(&mut *conn)
        .await?;
    let name = file.name.clone();
    if let Some(other) = other {
        let (first, until) = (file.first_day.clone(), file.until_day.clone());
        return Err(Error::FileOverlap { name, first, until, other: other.text("name")? });
    }
    let same = sqlx::query(
        "select source, name from source_file f where sha256 = ?4
         and not (source = ?1 and first_day = ?2 and until_day = ?3)
         and exists (
            select 1 from item i
            where i.source = f.source and i.external_id > f.first_day || '-' || f.until_day || '/'
                and i.external_id < f.first_day || '-' || f.until_day || '0')
         limit 1",
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
