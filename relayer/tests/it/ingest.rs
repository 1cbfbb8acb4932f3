//! Files as an operator hands them in: a verdict per record, and the same file again changes nothing.

use jiff::Timestamp;
use ledger::{Ledger, read::Reader};

use tokio::process::Command;

use crate::{
    env::{Env, assert_success, eventually, quittance, terminate, write},
    halt::status,
};

/// One entry per verdict that a daily file can meet, in an installation that knows `org-01` and the demo's machines.
fn entries(known: &str) -> String {
    let entry = |organisation: &str, machine: &str, start: u64, stop: &str, usd: &str| {
        format!(
            r#"{{"key":["{organisation}","sdxl","{machine}"],"value":[{start},{stop},{usd},8,16384,null]}}"#
        )
    };
    let (start, stop) = (1_763_596_800_000, "1763600400000");
    [
        entry("org-01", known, start, stop, "0.01"),
        entry("org-01", "a machine without address", start, stop, "0.02"),
        entry("org-01", known, start, stop, "0.01"),
        entry("org-01", known, start, stop, "0.03"),
        entry("nobody", known, start, stop, "0.01"),
        entry("org-01", "m5", start, stop, "1e-2"),
        entry("org-01", "m6", start, "1763590000000", "0.01"),
        entry("org-01", "m7", start, stop, "-0.01"),
        entry("org-01", "m8", start, stop, "\"0.01\""),
        r#"{"key":["org-01","sdxl"],"value":[]}"#.to_owned(),
        entry("org-01", "dear", start, stop, "99999"),
    ]
    .join(",\n")
}

#[tokio::test]
async fn every_record_gets_its_verdict_and_the_same_file_again_changes_nothing() {
    let env = Env::after_demo(30).await;
    let payees = relayer::generate::payees(&relayer::generate::Shape {
        seed: 1,
        first_day: "2026-11-18".parse().unwrap(),
        days: 1,
        machines: 30,
        organisations: 4,
    });
    let line: serde_json::Value =
        serde_json::from_str(payees.content.lines().next().unwrap()).unwrap();
    let known = line["machine"].as_str().unwrap();
    let name = "20261201-20261202.json";
    let file = write(&env.folder.path().join(name), &format!("[{}]", entries(known)));

    let first = env.json("ingest", &[file.to_str().unwrap()]).await;
    let expected = serde_json::json!({
        "accepted": 1, "unaddressed": 1, "duplicate": 1, "conflict": 1, "rejected": 6, "unfunded": 1
    });
    assert_eq!(first["outcomes"], expected, "{first}");
    let details = first["details"].to_string();
    for field in [
        "field organisation",
        "field invoice_usd",
        "field stop",
        "field key",
        "base units are missing",
    ] {
        assert!(details.contains(field), "{field}: {details}");
    }
    let before = env.json("status", &[]).await;

    let second = env.json("ingest", &[file.to_str().unwrap()]).await;
    assert_eq!(second["outcomes"]["duplicate"], 4, "{second}");
    assert_eq!(second["outcomes"]["accepted"], serde_json::Value::Null);
    assert_eq!(env.json("status", &[]).await, before);
}

#[tokio::test]
async fn a_file_that_overlaps_another_or_is_cut_off_is_refused_whole() {
    let env = Env::after_demo(30).await;
    let before = env.json("status", &[]).await;
    let entry =
        r#"[{"key":["org-01","sdxl","m"],"value":[1763596800000,1763600400000,0.01,8,1,null]}]"#;
    let overlapping = write(&env.folder.path().join("20261117-20261119.json"), entry);
    let cut_off =
        write(&env.folder.path().join("20261205-20261206.json"), &entry[..entry.len() - 4]);
    let unknown = write(&env.folder.path().join("work.csv"), "a,b");
    for (file, reason) in
        [(overlapping, "overlap"), (cut_off, "not a JSON array"), (unknown, "neither")]
    {
        let output = env.run("ingest", &[file.to_str().unwrap()]).await;
        assert!(!output.status.success());
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(complaint.contains(reason), "{complaint}");
    }
    assert_eq!(env.json("status", &[]).await, before);
}

/// What would break it: closing everything that is still to come because one record names a wrong end.
#[tokio::test]
async fn a_file_closes_what_has_ended_and_nothing_that_is_still_to_come() {
    let env = Env::after_demo(12).await;
    let line = r#"{"schema":"workload/1","source":"test","external_id":"1","organisation":"org-01","machine":"new","provider":"0x00000000000000000000000000000000000a11ce","kind":"render","started_at":"2098-12-31T23:00:00Z","ended_at":"2099-01-01T00:00:00Z","result":"completed","price":{"currency":"USD","amount":"0.050000"}}"#;
    let file = write(&env.folder.path().join("future.jsonl"), line);
    let report = env.json("ingest", &["--close", file.to_str().unwrap()]).await;
    assert_eq!(report["outcomes"]["accepted"], 1, "{report}");
    let ledger = Ledger::open_read_only(&env.dir().join("quittance.db")).await.unwrap();
    let closings = Reader::new(ledger).closings().await.unwrap();
    let last = closings.iter().map(|(_, until)| *until).max().unwrap();
    assert!(last <= Timestamp::now().as_millisecond(), "closed until {last}");
}

/// Goal: whoever hands files in learns that the disk is what fails, and can hand them in again.
/// Method: a server that may not write beyond a size, as on a disk that is full, and more work than that holds; then another one.
#[tokio::test]
async fn a_disk_that_takes_no_more_is_told_to_whoever_hands_work_in() {
    let env = Env::after_demo(12).await;
    let mut generate = quittance(&["generate", "--machines=400", "--days=1", "--organisations=4"]);
    generate.args(["--first-day", "2026-11-21", "--out"]).arg(env.folder.path());
    assert_success(&generate.output().await.unwrap());
    let work = env.folder.path().join("20261121-20261122.json");
    let mut server = Command::new("bash")
        .args(["-c", "trap '' XFSZ; ulimit -f 300; exec \"$@\"", "bash"])
        .args([env!("CARGO_BIN_EXE_quittance"), "serve", "--dir"])
        .arg(env.dir())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    eventually("the server", async || status(&env).await).await;
    let refused = env.run("ingest", &[work.to_str().unwrap()]).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("503") && said.contains("the database cannot be written"), "{said}");
    server.kill().await.unwrap();

    let server = env.serve();
    eventually("the server", async || status(&env).await).await;
    let report = env.json("ingest", &[work.to_str().unwrap()]).await;
    assert!(report["outcomes"]["accepted"].as_u64().unwrap() > 0, "{report}");
    assert!(terminate(server).await.success());
}

impl Env {
    /// A file in the folder beside the installation.
    fn file(&self, name: &str, content: &str) -> String {
        write(&self.folder.path().join(name), content).display().to_string()
    }

    /// Hands in a file that is refused whole, and returns what is said of it.
    async fn refused(&self, file: &str) -> String {
        let output = self.run("ingest", &[file]).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        said
    }
}

/// A daily earnings file with one entry.
fn day(organisation: &str, machine: &str) -> String {
    format!(
        r#"[{{"key":["{organisation}","sdxl","{machine}"],"value":[1763596800000,1763600400000,0.01,8,1,null]}}]"#
    )
}

/// Goal: a wrong name costs nobody the right one.
/// Method: files that keep nothing, over the days of one that does.
/// What would break it: remembering a file's days before its records.
#[tokio::test]
async fn a_day_file_of_which_nothing_was_kept_takes_no_days() {
    let env = Env::after_demo(6).await;
    let long = env.file("20261201-20261220.json", &day("nobody", "m"));
    let report = env.json("ingest", &[&long]).await;
    assert_eq!(report["outcomes"]["rejected"], 1, "{report}");
    let empty = env.file("20261201-20261221.json", "[]");
    assert_eq!(env.json("ingest", &[&empty]).await["records"], 0);

    let right = env.file("20261202-20261203.json", &day("org-01", "m"));
    let report = env.json("ingest", &[&right]).await;
    assert_eq!(report["records"], 1, "{report}");
    assert_eq!(report["outcomes"]["rejected"], serde_json::Value::Null, "{report}");
    let told = env.refused(&env.file("20261201-20261220.json", &day("nobody", "m"))).await;
    assert!(told.contains("overlap 20261202-20261203.json"), "{told}");
    assert_eq!(env.json("ingest", &[&right]).await["outcomes"]["duplicate"], 1);
}

#[tokio::test]
async fn a_day_file_of_more_than_a_month_is_refused_whole() {
    let env = Env::after_demo(6).await;
    let told = env.refused(&env.file("20261201-20271202.json", &day("org-01", "m"))).await;
    assert!(told.contains("it covers 366 days; a daily earnings file covers at most 31"), "{told}");
    let told = env.refused(&env.file("20261201-20270102.json", &day("org-01", "m"))).await;
    assert!(told.contains("it covers 32 days"), "{told}");
    let month = env.file("20261201-20270101.json", &day("org-01", "m"));
    assert_eq!(env.json("ingest", &[&month]).await["records"], 1);
}

/// What would break it: work known by its label alone, so that another label pays it again.
#[tokio::test]
async fn the_content_of_a_day_file_is_taken_in_under_one_source_and_name() {
    let env = Env::after_demo(6).await;
    let file = env.file("20261201-20261202.json", &day("org-01", "m"));
    env.json("ingest", &[&file]).await;
    let before = env.json("status", &[]).await;
    let renamed = env.file("20261203-20261204.json", &day("org-01", "m"));
    let told = env.refused(&renamed).await;
    let known = "20261201-20261202.json of source \"salad\", which was taken in";
    assert!(told.contains(known) && told.contains("leave it out"), "{told}");

    let mut config = env.config();
    config.policy.earnings_source = "salad-2".into();
    config.write().unwrap();
    let told = env.refused(&file).await;
    assert!(told.contains(known) && told.contains("of source \"salad-2\""), "{told}");
    assert_eq!(env.json("status", &[]).await, before);
    let other = env.file("20261201-20261202.json", &day("org-01", "another machine"));
    assert_eq!(env.json("ingest", &[&other]).await["records"], 1);
    assert_eq!(
        env.json("ingest", &[&env.file("20261205-20261206.json", "[]")]).await["records"],
        0
    );
}

/// Goal: who hands a file in once more undoes nothing that was said since.
/// Method: a payout address, another one, and the first file again; then the same line on purpose.
#[tokio::test]
async fn a_payee_file_that_comes_again_names_no_replaced_address() {
    let env = Env::after_demo(6).await;
    let line = |digit: &str| {
        let address = format!("0x{}", digit.repeat(40));
        serde_json::json!({ "schema": "payee/1", "machine": "m", "address": address }).to_string()
    };
    let (first, second) = (env.file("1.jsonl", &line("1")), env.file("2.jsonl", &line("2")));
    let orders = env.dir().join("manifests/orders.jsonl");
    for file in [&first, &second] {
        assert_eq!(env.json("ingest", &[file]).await["outcomes"]["accepted"], 1);
    }
    let before = std::fs::read_to_string(&orders).unwrap();
    let report = env.json("ingest", &[&first]).await;
    assert_eq!(report["outcomes"], serde_json::json!({ "duplicate": 1 }), "{report}");
    let told = report["details"][0].as_str().unwrap();
    let stays = format!("0x{} was named for \"m\" since, which stays", "2".repeat(40));
    assert!(told.starts_with("record 1: duplicate: ") && told.contains(&stays), "{told}");
    assert_eq!(std::fs::read_to_string(&orders).unwrap(), before);

    let meant = env.file("meant.jsonl", &format!("\n{}", line("1")));
    assert_eq!(env.json("ingest", &[&meant]).await["outcomes"]["accepted"], 1);
}
