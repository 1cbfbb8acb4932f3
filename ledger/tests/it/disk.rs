//! Disks that fill up, fail, lie or cannot be written to: the error is clear, and what was acknowledged is there afterwards.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::Path,
    process::{Command, Stdio},
};

use ledger::{
    Error, Identity, Ledger,
    book::{BookWriter, SourceFile},
    chain::ChainWriter,
    invariants,
    read::{Reader, Table},
    rules::Verdict,
    verify,
    workload::Outcome,
};
use sqlx::{Connection, SqliteConnection, migrate::Migrator, sqlite::SqliteConnectOptions};

use crate::{
    invariants::{Damage, sound_world},
    recovery::signed_once,
    traps::{books, funded, state, take},
    world::{
        FEE_BPS, ORGANISATION, World, day_file, identity, record, reopen, secret, settle, tariff,
        work_of,
    },
};

/// Closes a world's ledger and leaves its file.
async fn closed(world: World) -> crate::world::Folder {
    let World { folder, ledger, chain, book, reader, .. } = world;
    drop((chain, book, reader));
    ledger.close().await;
    folder
}

async fn raw(file: &Path, sql: &str) {
    let mut conn =
        SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(file)).await.unwrap();
    sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
}

#[tokio::test]
async fn refuses_the_file_of_a_newer_program() {
    let folder = closed(funded(100_000_000, 0).await).await;
    raw(
        &folder.file(),
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
         values (9999, 'later', 1, x'00', 0)",
    )
    .await;
    for error in [
        reopen(&folder.file()).await.unwrap_err(),
        Ledger::open_read_only(&folder.file()).await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::Schema { found: 9999, .. }), "{error}");
        assert!(error.to_string().contains("or a newer one"), "{error}");
    }
    raw(&folder.file(), "delete from _sqlx_migrations where version = 9999").await;
}

/// The program's migrations, in order.
fn steps() -> Vec<fs::DirEntry> {
    let mut steps: Vec<_> = fs::read_dir("../migrations").unwrap().flatten().collect();
    steps.retain(|entry| entry.path().extension().is_some_and(|extension| extension == "sql"));
    steps.sort_by_key(fs::DirEntry::file_name);
    steps
}

/// Makes a file as the program made it when it had so many migrations.
async fn older(file: &Path, count: usize) {
    let folder = tempfile::tempdir().unwrap();
    for step in &steps()[..count] {
        fs::copy(step.path(), folder.path().join(step.file_name())).unwrap();
    }
    let options = SqliteConnectOptions::new().filename(file).create_if_missing(true);
    let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
    Migrator::new(folder.path()).await.unwrap().run(&mut conn).await.unwrap();
    conn.close().await.unwrap();
}

#[tokio::test]
async fn says_that_an_older_file_has_to_be_migrated_and_migrates_it() {
    let newest = i64::try_from(steps().len()).unwrap();
    for (version, count) in (1..newest).zip(1..) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ledger.db");
        older(&file, count).await;
        let refused = Ledger::open_read_only(&file).await;
        let Err(Error::Schema { found, known, hint }) = refused else { panic!("{refused:?}") };
        assert_eq!((found, known), (version, newest));
        assert_eq!(hint, "quittance serve brings it up to date");
        reopen(&file).await.unwrap().close().await;
        Ledger::open_read_only(&file).await.unwrap().close().await;
    }
}

/// What would break it: a second registration of a token, which one endpoint made up above the final blocks.
#[tokio::test]
async fn a_file_with_two_registrations_of_a_token_is_migrated_to_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ledger.db");
    older(&file, 13).await;
    let Identity { chain_id, contract, genesis, start_block } = identity();
    let chain = format!("1, {chain_id}, x'{contract:x}', x'{genesis:x}', {start_block}, 1");
    raw(&file, &format!("insert into chain values ({chain})")).await;
    for (number, token, decimals) in [(1, 7, 6), (2, 8, 6), (3, 7, 3), (4, 9, 6)] {
        let hash = format!("{number:064x}");
        raw(&file, &format!("insert into block values ({number}, x'{hash}', x'{hash}', 0)")).await;
        let registered = format!("{number}, 0, x'{token:040x}', {decimals}, 1");
        raw(&file, &format!("insert into token_registered values ({registered})")).await;
    }
    let ledger = reopen(&file).await.unwrap();
    let tokens = Reader::new(ledger.clone()).tokens().await.unwrap();
    let known: Vec<_> = tokens.iter().map(|token| (token.address[19], token.decimals)).collect();
    assert_eq!(known, [(7, 6)], "what is not final is read again, whichever was invented");
    assert_eq!(ChainWriter::new(ledger).checkpoint().await.unwrap().unwrap().number, 1);
}

/// What would break it: a debt of work that was let go, which counted as nothing before.
#[tokio::test]
async fn a_debt_that_was_let_go_is_open_again_after_its_migration() {
    let mut world = funded(9_000_000, 0).await;
    take(&world, &[record(1, 2, 0, 247_000)]).await;
    let item = books(&world).await.open[0].item;
    let signed = state(&world, 1, None).await;
    settle(&mut world, &signed).await;
    world.finalise(0).await;
    take(&world, &[record(1, 2, 1, 494_000)]).await;
    world.book.decide(item, Verdict::Release, "reviewed", (FEE_BPS, 0)).await.unwrap();
    take(&world, &[record(1, 2, 2, 123_500)]).await;
    assert_open_after_migration(world).await;

    // Paid twice, and restated upwards since.
    let (world, signed, manifest) = signed_once().await;
    let mut lost = world.after_loss(None).await;
    take(&lost, &[record(1, 2, 0, 1_000_000)]).await;
    let again = state(&lost, 2, None).await;
    settle(&mut lost, &again).await;
    lost.finalise(0).await;
    take(&lost, &[record(1, 2, 1, 1_200_000)]).await;
    let item = books(&lost).await.open[0].item;
    lost.book.decide(item, Verdict::Release, "reviewed", (FEE_BPS, 0)).await.unwrap();
    settle(&mut lost, &signed).await;
    lost.finalise(0).await;
    assert!(lost.book.import(&manifest, &secret(), 0).await.unwrap());
    assert_open_after_migration(lost).await;
}

/// Checks that the one debt of a ledger, which a file of schema 14 did not list, is open after its migration.
async fn assert_open_after_migration(world: World) {
    let open = books(&world).await.open;
    assert!(matches!(&open[..], [debt] if debt.due().unwrap() < 0), "{open:?}");
    let folder = closed(world).await;
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("ledger.db");
    aged(&folder.file(), &file, 14).await;
    raw(&file, "delete from open").await;
    let ledger = reopen(&file).await.unwrap();
    assert_eq!(invariants::violations(&ledger).await.unwrap(), []);
    let listed = Reader::new(ledger).books(ORGANISATION).await.unwrap().unwrap().open;
    assert_eq!(listed, open);
}

/// What would break it: a cut-off that covers what was noticed before it, where nobody had to notice anything, or did later.
#[tokio::test]
async fn what_a_cut_off_covered_freezes_nothing_after_its_migration() {
    let unnoticed = "delete from unknown_statement";
    let noticed_later = "update unknown_statement set at = 9";
    let misnamed = "update unknown_statement set at = 9, deposit = zeroblob(32), epoch = 7";
    for before in [unnoticed, noticed_later, misnamed] {
        let (world, signed, _) = signed_once().await;
        let mut lost = world.after_loss(None).await;
        settle(&mut lost, &signed).await;
        lost.finalise(0).await;
        let deposit = signed.statement.key.id();
        assert_eq!(lost.book.cut_off(deposit, 2, "it is lost", 5).await.unwrap(), 1);
        assert_eq!(Damage::to(&lost).await.run(before).await.unwrap(), 1);
        let folder = closed(lost).await;

        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("ledger.db");
        aged(&folder.file(), &file, 14).await;
        let ledger = reopen(&file).await.unwrap();
        let is_frozen = |freezes: Vec<ledger::read::Freeze>| {
            freezes.iter().any(|freeze| freeze.deposit == deposit)
        };
        let reader = Reader::new(ledger.clone());
        assert!(!is_frozen(reader.freezes(ORGANISATION).await.unwrap()), "{before}");
        assert_eq!(invariants::violations(&ledger).await.unwrap(), [], "{before}");
        let mut conn = SqliteConnection::connect(&file.display().to_string()).await.unwrap();
        let updated = sqlx::query("update unknown_statement set at = 1").execute(&mut conn).await;
        assert!(updated.unwrap_err().to_string().contains("append-only"), "{before}");
    }
}

/// What would break it: believing that a file of which an older version remembered the days was kept.
#[tokio::test]
async fn days_of_which_an_older_version_kept_nothing_are_free_after_its_migration() {
    let folder = closed(funded(100_000_000, 0).await).await;
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("ledger.db");
    aged(&folder.file(), &file, 14).await;
    let right = day_file("20261120", "20261121");
    let misnamed = format!(
        "insert into source_file (source, first_day, until_day, sha256, name, at)
         values ('salad', '20260101', '20270101', x'{:x}', '20260101-20270101.json', 0)",
        right.sha256
    );
    raw(&file, &misnamed).await;
    let book = BookWriter::new(reopen(&file).await.unwrap());
    let works = [work_of(&right, 1)];
    let taken = book.take_in_file(&right, &works, &tariff(), 0).await.unwrap();
    assert!(matches!(&taken[..], [Outcome::Accepted { .. }]), "{taken:?}");
    let misnamed = SourceFile { sha256: right.sha256, ..day_file("20261201", "20261202") };
    let again = book.take_in_file(&misnamed, &[work_of(&misnamed, 1)], &tariff(), 0).await;
    assert!(matches!(again, Err(Error::FileAgain { .. })), "{again:?}");
}

/// Opens a file beside the one of a sound ledger, which is attached as `sound`.
async fn beside(sound: &Path, file: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(file).foreign_keys(false);
    let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
    let attach = sqlx::query("attach ? as sound").bind(sound.display().to_string());
    attach.execute(&mut conn).await.unwrap();
    conn
}

/// The file's tables with their columns, those that there are no more left out.
async fn tables(conn: &mut SqliteConnection) -> Vec<(String, String)> {
    let query = "select t.name, group_concat(c.name) from main.sqlite_master t join pragma_table_info(t.name, 'main') c
         where t.type = 'table' and t.name <> '_sqlx_migrations' and t.name in (select name from sound.sqlite_master)
         group by t.name";
    sqlx::query_as(query).fetch_all(conn).await.unwrap()
}

async fn count(conn: &mut SqliteConnection, from: String) -> i64 {
    let query = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("select count(*) from {from}")));
    query.fetch_one(conn).await.unwrap()
}

/// Puts the rows of a ledger into a file as the program made it when it had so many migrations: what its tables can hold of
/// them. Returns the tables.
async fn aged(sound: &Path, file: &Path, version: usize) -> Vec<String> {
    older(file, version).await;
    let mut conn = beside(sound, file).await;
    let tables = tables(&mut conn).await;
    for (table, columns) in &tables {
        let sql = format!("insert into {table} ({columns}) select {columns} from sound.{table}");
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut conn).await.unwrap();
    }
    assert_eq!(count(&mut conn, "pragma_foreign_key_check".into()).await, 0);
    conn.close().await.unwrap();
    tables.into_iter().map(|(table, _)| table).collect()
}

/// Tables of those named that say something else in one file than in the other. What had settled before a leaf is not known of
/// leaves that are older than its column.
async fn differing(sound: &Path, file: &Path, named: &[String]) -> Vec<String> {
    let mut conn = beside(sound, file).await;
    let mut differing = Vec::new();
    for (table, columns) in tables(&mut conn).await {
        let columns: Vec<_> = columns.split(',').filter(|column| *column != "settled").collect();
        let rows = |file| format!("select {} from {file}.{table}", columns.join(","));
        let (ours, theirs) = (rows("main"), rows("sound"));
        let others = count(&mut conn, format!("({ours} except {theirs})")).await
            + count(&mut conn, format!("({theirs} except {ours})")).await;
        if others > 0 && named.contains(&table) {
            differing.push(table);
        }
    }
    conn.close().await.unwrap();
    differing
}

/// Goal: a ledger with a past is the same ledger after each migration.
/// Method: the rows of a sound ledger in files of each earlier version, from the one that began the audit log on; opened by
/// this one, with every invariant, all money as it was, and every row.
/// What would break it: a column whose default does not say what was so before, a table that does not take over what was known.
#[tokio::test]
async fn a_ledger_with_a_past_is_the_same_after_every_migration() {
    let world = sound_world().await;
    let before = money(&world.ledger).await;
    let folder = closed(world).await;
    for version in 3..steps().len() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("ledger.db");
        let mut kept = aged(&folder.file(), &file, version).await;
        let ledger = reopen(&file).await.unwrap();
        let mut found = invariants::violations(&ledger).await.unwrap();
        found.extend(invariants::deep_violations(&ledger).await.unwrap());
        assert_eq!(found, [], "from version {version}");
        assert_eq!(money(&ledger).await, before, "from version {version}");
        ledger.close().await;
        // It is filled from what was there.
        kept.push("paid_for".into());
        assert_eq!(
            differing(&folder.file(), &file, &kept).await,
            [""; 0],
            "from version {version}"
        );
    }
}

/// Goal: a process killed while it migrates leaves a file that is old or new, and nothing between.
/// Method: kill one that makes a new file, at different moments; each migration has to be whole or not there.
#[tokio::test]
async fn a_file_whose_migration_was_killed_opens_as_if_nothing_had_happened() {
    let mut unfinished = 0;
    for moment in 0..24 {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ledger.db");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "disk::child_that_writes_until_it_fails"])
            .env(CHILD, &file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // From the moment at which the file appears on.
        while !file.exists() {
            std::thread::yield_now();
        }
        std::thread::sleep(std::time::Duration::from_micros(moment * 900));
        child.kill().unwrap();
        child.wait().unwrap();
        let options = SqliteConnectOptions::new().filename(&file);
        let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
        let done = sqlx::query_scalar::<_, i64>("select count(*) from _sqlx_migrations");
        let done = done.fetch_one(&mut conn).await.unwrap_or_default();
        conn.close().await.unwrap();
        let ledger = reopen(&file).await.unwrap();
        assert_eq!(invariants::violations(&ledger).await.unwrap(), []);
        let now = migrations(&ledger, &file).await;
        unfinished += usize::from(done < now);
        ledger.close().await;
    }
    println!("{unfinished} of 24 kills came before the last migration");
    assert!(unfinished >= 3, "only {unfinished} kills hit a migration");
}

async fn migrations(_open: &Ledger, file: &Path) -> i64 {
    let options = SqliteConnectOptions::new().filename(file).read_only(true);
    let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
    let n = sqlx::query_scalar("select count(*) from _sqlx_migrations").fetch_one(&mut conn).await;
    conn.close().await.unwrap();
    n.unwrap()
}

#[tokio::test]
async fn a_locked_database_is_waited_for_and_then_said() {
    let world = funded(100_000_000, 0).await;
    let mut other = Damage::without_dropping(&world).await;
    other.run("begin immediate").await.unwrap();
    let book = world.book.clone();
    let waiting =
        tokio::spawn(async move { book.take_in(&[record(1, 2, 0, 10)], &tariff(), 0).await });
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert!(!waiting.is_finished());
    other.run("commit").await.unwrap();
    assert!(matches!(waiting.await.unwrap().unwrap()[0], Outcome::Accepted { .. }));

    other.run("begin immediate").await.unwrap();
    let error = world.book.take_in(&[record(2, 2, 0, 10)], &tariff(), 0).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert!(format!("{error:?}").contains("database is locked"), "{error:?}");
    other.run("commit").await.unwrap();
}

#[tokio::test]
async fn a_damaged_page_is_refused_at_opening() {
    let folder = closed(sound_world().await).await;
    folder.is_damaged();
    let sound = fs::read(folder.file()).unwrap();
    let page = usize::from(u16::from_be_bytes([sound[16], sound[17]]));
    let mut refused = 0;
    let mut pages = 0;
    // The header of a page says what it is; a page that lies about it cannot be read.
    for start in (page..sound.len()).step_by(page) {
        if sound[start] == 0 {
            continue; // Free, or the rest of a long row.
        }
        let mut damaged = sound.clone();
        damaged[start] ^= 0xff;
        fs::write(folder.file(), &damaged).unwrap();
        pages += 1;
        match reopen(&folder.file()).await {
            Err(Error::Damaged { .. } | Error::Database(_) | Error::Migration(_)) => refused += 1,
            Err(error) => panic!("page at {start}: {error}"),
            Ok(ledger) => ledger.close().await,
        }
    }
    assert_eq!(refused, pages, "a damaged page was believed");
}

/// SQLite keeps no checksums of its pages, so that a flipped bit within a value passes its check. What it meant is covered by
/// hashes (records, manifests, digests, attempts, audit log), by arithmetic, or by the chain; each flip here has to be told by
/// some check, or to change nothing that is said.
#[tokio::test]
async fn a_flipped_bit_anywhere_is_told_or_changes_nothing_that_money_depends_on() {
    let world = sound_world().await;
    let blocks = world.blocks.clone();
    let before = money(&world.ledger).await;
    let folder = closed(world).await;
    folder.is_damaged();
    let sound = fs::read(folder.file()).unwrap();
    let (mut told, mut silent) = (0, 0);
    for position in (101..sound.len()).step_by(sound.len() / 400) {
        let mut flipped = sound.clone();
        flipped[position] ^= 1 << (position % 8);
        fs::write(folder.file(), &flipped).unwrap();
        let Ok(ledger) = reopen(&folder.file()).await else {
            told += 1;
            continue;
        };
        let is_told = match verify::book(&ledger, &secret()).await {
            Ok(differences) => {
                !differences.is_empty()
                    || !verify::facts(&ledger, &blocks, u64::MAX)
                        .await
                        .is_ok_and(|differences| differences.is_empty())
            }
            Err(_) => true,
        };
        if is_told {
            told += 1;
        } else {
            silent += 1;
            assert_eq!(money(&ledger).await, before, "bit at {position} changed money unnoticed");
        }
        ledger.close().await;
    }
    println!("{told} flips were told, {silent} changed no money");
    // Most of a small file is room for more.
    assert!(told > 20, "only {told} flips were told");
}

#[tokio::test]
async fn a_flipped_bit_in_what_defines_a_table_is_refused_at_opening() {
    let folder = closed(sound_world().await).await;
    folder.is_damaged();
    let mut bytes = fs::read(folder.file()).unwrap();
    let definition = b"CREATE TABLE claimed (";
    let at = bytes.windows(definition.len()).position(|part| part == definition).unwrap();
    // A letter of a column that nothing else names becomes a byte that is no text.
    let column = bytes[at..].windows(11).position(|part| part == b"claim_nonce").unwrap();
    bytes[at + column + 8] ^= 0x80;
    fs::write(folder.file(), &bytes).unwrap();
    let refused = reopen(&folder.file()).await;
    let Err(Error::Damaged { problem, .. }) = refused else { panic!("{refused:?}") };
    assert!(problem.contains("claimed"), "{problem}");
}

/// Everything that is paid by.
async fn money(ledger: &Ledger) -> String {
    let reader = Reader::new(ledger.clone());
    let mut said = String::new();
    for name in reader.organisations().await.unwrap() {
        let books = reader.books(&name).await.unwrap().unwrap();
        said.push_str(&format!("{:?} {:?} {:?}", books.position, books.deposits, books.open));
    }
    said.push_str(&format!("{:?}", reader.credits().await.unwrap()));
    said
}

#[tokio::test]
async fn a_file_that_cannot_be_written_says_so() {
    let folder = closed(funded(100_000_000, 0).await).await;
    let read_only = fs::Permissions::from_mode(0o400);
    fs::set_permissions(folder.file(), read_only).unwrap();
    let is_root = fs::OpenOptions::new().write(true).open(folder.file()).is_ok();
    let opened = reopen(&folder.file()).await;
    fs::set_permissions(folder.file(), fs::Permissions::from_mode(0o600)).unwrap();
    if is_root {
        println!("skipped: this user may write to files that nobody may write to");
        return;
    }
    assert!(matches!(opened, Err(Error::Database(_) | Error::Migration(_))));
}

#[tokio::test]
async fn a_backup_taken_while_somebody_writes_is_whole_and_goes_on() {
    let world = funded(100_000_000, 0).await;
    let copy = world.folder.path().join("copy.db");
    let book = world.book.clone();
    let writing = tokio::spawn(async move {
        for work in 0..200 {
            book.take_in(&[record(work, 2, 0, 10)], &tariff(), 0).await.unwrap();
        }
    });
    world.book.take_in(&[record(900, 2, 0, 10)], &tariff(), 0).await.unwrap();
    assert_eq!(world.ledger.backup(&copy).await.unwrap(), []);
    let is_overtaken = !writing.is_finished();
    writing.await.unwrap();
    assert!(is_overtaken, "nobody wrote meanwhile");
    let error = world.ledger.backup(&copy).await.unwrap_err();
    assert!(matches!(error, Error::File { .. }), "an existing file was overwritten: {error}");

    let restored = reopen(&copy).await.unwrap();
    assert_eq!(verify::book(&restored, &secret()).await.unwrap(), []);
    assert_eq!(verify::facts(&restored, &world.blocks, u64::MAX).await.unwrap(), []);
    let reader = Reader::new(restored.clone());
    let n = reader.count(Table::Workloads).await.unwrap();
    assert!((1..=201).contains(&n), "{n}");
    let again = BookWriter::new(restored.clone())
        .take_in(&[record(900, 2, 0, 10)], &tariff(), 0)
        .await
        .unwrap();
    assert_eq!(again, [Outcome::Duplicate]);
    drop(reader);
    restored.close().await;
}

#[tokio::test]
async fn a_backup_of_an_unsound_ledger_says_what_is_wrong() {
    let world = sound_world().await;
    Damage::to(&world).await.run("delete from open where item = 41").await.unwrap();
    let found = world.ledger.backup(&world.folder.path().join("copy.db")).await.unwrap();
    assert_eq!(found[0].invariant, "L23");
}

/// What would break it: no copy at all of a database that needs one most.
#[tokio::test]
async fn a_backup_of_a_row_that_cannot_be_read_back_is_made_and_says_so() {
    let world = sound_world().await;
    let mut damage = Damage::to(&world).await;
    damage.run("pragma ignore_check_constraints = on").await.unwrap();
    damage.run("update accepted set amount = x'00' where item = 1").await.unwrap();
    let copy = world.folder.path().join("copy.db");
    let found = world.ledger.backup(&copy).await.unwrap();
    let is_told = |found: &invariants::Violation| {
        found.invariant == "L35" && found.problem.contains("malformed amount")
    };
    assert!(found.iter().any(is_told), "{found:?}");
    assert!(copy.exists());
}

/// What the child process below acknowledges goes here, one line a record.
const CHILD: &str = "QUITTANCE_TEST_DISK_CHILD";

/// Not a test of its own: what the tests below run as a process under a failing disk. Takes records in one by one, and says
/// which were acknowledged.
#[tokio::test]
async fn child_that_writes_until_it_fails() {
    let Some(file) = std::env::var_os(CHILD) else { return };
    let ledger = match reopen(Path::new(&file)).await {
        Ok(ledger) => ledger,
        Err(error) => {
            eprintln!("FAILED {error:?}");
            std::process::exit(17);
        }
    };
    let book = BookWriter::new(ledger);
    for work in 0..400 {
        match book.take_in(&[record(work, 2, 0, 10)], &tariff(), 0).await {
            Ok(outcomes) => {
                assert!(matches!(outcomes[0], Outcome::Accepted { .. } | Outcome::Duplicate))
            }
            Err(error) => {
                eprintln!("FAILED {error:?}");
                std::process::exit(17);
            }
        }
        eprintln!("ACKNOWLEDGED {work}");
    }
    std::process::exit(0);
}

/// Runs the child, and checks that what it acknowledged is there when the disk is well again. Returns what it said.
async fn run_child(folder: &crate::world::Folder, prepare: impl FnOnce(&mut Command)) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "disk::child_that_writes_until_it_fails", "--nocapture"])
        .env(CHILD, folder.file())
        .stdout(Stdio::null());
    prepare(&mut command);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let ended = output.status;
    assert!(
        ended.code() == Some(17) || ended.code() == Some(0),
        "it ended with {ended} (signal {:?}): {said}",
        ended.signal()
    );
    assert_eq!(ended.code() == Some(17), said.contains("FAILED"), "{said}");
    let acknowledged: Vec<u64> = said
        .lines()
        .filter_map(|line| line.strip_prefix("ACKNOWLEDGED "))
        .map(|work| work.parse().unwrap())
        .collect();
    let ledger = reopen(&folder.file()).await.unwrap();
    assert_eq!(invariants::violations(&ledger).await.unwrap(), []);
    let book = BookWriter::new(ledger.clone());
    for work in acknowledged {
        let again = book.take_in(&[record(work, 2, 0, 10)], &tariff(), 0).await.unwrap();
        assert_eq!(again, [Outcome::Duplicate], "record {work} was acknowledged and is lost");
    }
    drop(book);
    ledger.close().await;
    said
}

/// A limit on the size of files stands for a full disk: the write that would pass it fails, each time elsewhere.
#[tokio::test]
async fn a_disk_that_fills_up_at_any_write_loses_nothing_that_was_acknowledged() {
    let mut failed_at = std::collections::BTreeSet::new();
    for extra in (1..60).step_by(3) {
        let folder = closed(funded(100_000_000, 0).await).await;
        let blocks = extra * 40;
        let said = run_child(&folder, |command| {
            let program = command.get_program().to_owned();
            let arguments: Vec<_> = command.get_args().map(std::ffi::OsStr::to_owned).collect();
            let mut limited = Command::new("sh");
            // Blocks of 512 bytes; the signal that comes with the limit is ignored, so that the write fails instead.
            limited
                .arg("-c")
                .arg(format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\""))
                .arg("sh")
                .arg(program)
                .args(arguments)
                .env(CHILD, folder.file())
                .stdout(Stdio::null());
            *command = limited;
        })
        .await;
        if said.contains("FAILED") {
            failed_at.insert(said.matches("ACKNOWLEDGED").count());
        }
    }
    println!("failed after {failed_at:?} acknowledged records");
    assert!(failed_at.len() >= 8, "the limit hit the same place each time: {failed_at:?}");
}

/// A library that is loaded before the system's and makes one call fail: SQLite then sees a broken disk.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/types.h>
static int due(const char *name) {
    static int counts[2];
    const char *call = getenv("FAIL_CALL"), *at = getenv("FAIL_AT");
    int which = name[0] == 'p';
    if (!call || !at || call[0] != name[0]) return 0;
    return ++counts[which] >= atoi(at);
}
ssize_t pwrite64(int fd, const void *bytes, size_t n, off_t at) {
    static ssize_t (*real)(int, const void *, size_t, off_t);
    if (!real) real = (ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite64");
    if (due("pwrite")) { errno = EIO; return -1; }
    return real(fd, bytes, n, at);
}
ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at) { return pwrite64(fd, bytes, n, at); }
int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    if (due("fsync")) { errno = EIO; return -1; }
    return real(fd);
}
int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    if (due("fsync")) { errno = EIO; return -1; }
    return real(fd);
}
"#;

#[tokio::test]
async fn a_disk_that_fails_to_write_or_to_sync_loses_nothing_that_was_acknowledged() {
    let scratch = tempfile::tempdir().unwrap();
    let (source, library) = (scratch.path().join("shim.c"), scratch.path().join("shim.so"));
    fs::write(&source, SHIM).unwrap();
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&source)
        .arg("-ldl")
        .status();
    if !compiled.is_ok_and(|status| status.success()) {
        println!("skipped: there is no C compiler cc that makes shared libraries");
        return;
    }
    let mut failures = 0;
    for (call, step) in [("pwrite", 23), ("fsync", 3)] {
        for at in (1..=200).step_by(step * 4) {
            let folder = closed(funded(100_000_000, 0).await).await;
            let said = run_child(&folder, |command| {
                command
                    .env("LD_PRELOAD", &library)
                    .env("FAIL_CALL", call)
                    .env("FAIL_AT", at.to_string());
            })
            .await;
            if said.contains("FAILED") {
                failures += 1;
                assert!(said.contains("disk I/O error"), "{call} {at}: {said}");
            }
        }
    }
    println!("{failures} runs met the failure");
    assert!(failures >= 12, "only {failures} runs met the failure");
}
