//! Goal: a process that begins with an old database pays nothing that was paid since.
//! Method: a backup, one more settled statement, the backup again, and turns before the chain is read.
//! What would break it: signing by what the ledger knows, while the chain knows more.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use alloy::primitives::B256;
use indexer::Finality;
use serde_json::json;

use crate::{
    env::{Env, assert_success, eventually, rpc, terminate, write},
    halt::status,
    proxy::proxy,
    sender::{Live, World, says},
};

impl World {
    /// Puts a backup in the place of the database, which stays closed.
    async fn restore(&self, backup: &Path) {
        self.live.ledger.clone().close().await;
        for name in ["quittance.db-wal", "quittance.db-shm", "quittance.lock"] {
            std::fs::remove_file(self.env.dir().join(name)).unwrap_or_default();
        }
        std::fs::rename(backup, self.env.dir().join("quittance.db")).unwrap();
    }

    async fn back_up(&self) -> PathBuf {
        let backup = self.env.dir().join("backup.db");
        self.live.ledger.backup(&backup).await.unwrap();
        backup
    }
}

#[tokio::test]
async fn a_process_with_an_old_database_signs_nothing_before_it_has_read_what_was_final() {
    let mut world = World::new().await;
    let backup = world.back_up().await;
    world.work(0, 1).await;
    world.turn().await;
    world.finish().await;

    world.restore(&backup).await;
    world.live = Live::open(&world.config).await;
    world.live.endpoints.look().await.unwrap();
    world.work(1, 2).await;
    let report = world.turn().await;
    assert_eq!((report.signed, report.sent), (0, 0), "{report:?}");
    assert!(says(&report, "until the chain is read"), "{report:?}");

    world.index().await;
    let report = world.turn().await;
    assert!(!says(&report, "until the chain is read"), "{report:?}");
    assert_eq!(report.signed, 1, "another organisation is not concerned: {report:?}");
}

impl World {
    /// One whose database is older than what it has settled, and is closed.
    async fn with_an_old_database() -> Self {
        let mut world = Self::new().await;
        let backup = world.back_up().await;
        world.work(0, 1).await;
        world.turn().await;
        world.finish().await;
        world.restore(&backup).await;
        world
    }

    /// Begins, and takes a turn after each look at the endpoint, which waits for this; then goes on.
    async fn assert_signs_nothing_while_it_waits(&mut self, reasons: [&str; 2]) {
        self.live = Live::open(&self.config).await;
        self.work(1, 2).await;
        for waits_for in reasons {
            let _none_or_old = self.live.endpoints.look().await;
            let report = self.turn().await;
            assert_eq!((report.signed, report.sent), (0, 0), "{report:?}");
            assert!(says(&report, waits_for), "{report:?}");
        }
        self.index().await;
        assert_eq!(self.turn().await.signed, 1);
    }
}

/// Goal: an endpoint that has no final block for a moment, as one that starts has none, does not pass for one whose chain is
/// that young.
#[tokio::test]
async fn a_process_with_an_old_database_signs_nothing_while_its_endpoint_knows_no_final_block() {
    let mut world = World::with_an_old_database().await;
    // Of the only endpoint, each is asked for twice.
    let nulls = AtomicU32::new(2);
    let url = proxy(&world.env.anvil.url, move |request| {
        let is_null = request["params"][0] == "finalized"
            && nulls.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
        is_null.then(|| json!({ "result": null }))
    });
    world.config.chain.rpc_url = Some(url.await);
    world
        .assert_signs_nothing_while_it_waits([
            "until the endpoints agree",
            "until the chain is read",
        ])
        .await;
}

/// Goal: the word of a node that begins to sync, whose newest block is long past, does not pass for what was final at the
/// start, where blocks are final by their depth.
#[tokio::test]
async fn a_process_with_an_old_database_signs_nothing_by_a_final_block_below_its_own() {
    let mut world = World::with_an_old_database().await;
    let olds = AtomicU32::new(1);
    let old = rpc(&world.provider, "eth_getBlockByNumber", "[\"0x0\", false]").await;
    let url = proxy(&world.env.anvil.url, move |request| {
        let is_old = request["params"][0] == "latest"
            && request["method"] == "eth_getBlockByNumber"
            && olds.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
        is_old.then(|| json!({ "result": old }))
    });
    world.config.chain.rpc_url = Some(url.await);
    world.config.chain.finality = Finality::Depth(1);
    world
        .assert_signs_nothing_while_it_waits([
            "until the endpoints agree on block",
            "until the chain is read",
        ])
        .await;
}

#[tokio::test]
async fn work_that_a_manifest_in_the_folder_pays_is_not_accepted_once_more_after_a_backup() {
    let mut world = World::new().await;
    let backup = world.back_up().await;
    world.work(0, 1).await;
    world.turn().await;
    world.finish().await;
    world.restore(&backup).await;

    let payout = relayer::generate::payout_address("owner 1 of seed 1");
    let file = world.env.folder.path().join("again.jsonl");
    write(&file, &world.line_of(0, 1, payout));
    let output = world.env.run("ingest", &["--json", file.to_str().unwrap()]).await;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("unfunded") && !told.contains("accepted"), "{told}");
}

/// Goal: a backup whose manifests are lost as well is served from once a cut-off says what was paid.
/// What would break it: a freeze that ends over a halt that stays, for the signatures that the backup itself holds.
#[tokio::test]
async fn a_cut_off_writes_the_manifests_of_the_backups_own_signatures_anew() {
    let mut world = World::new().await;
    world.work(0, 1).await;
    world.turn().await;
    world.finish().await;
    let backup = world.back_up().await;
    world.work(0, 2).await;
    world.turn().await;
    world.finish().await;
    world.restore(&backup).await;
    world.live = Live::open(&world.config).await;
    world.index().await;
    world.turn().await;
    let folder = world.env.dir().join("manifests");
    let published = std::fs::read_dir(&folder).unwrap().count();
    std::fs::remove_dir_all(&folder).unwrap();
    world.live.ledger.clone().close().await;
    std::fs::remove_file(world.env.dir().join("quittance.lock")).unwrap();
    assert_eq!(world.env.run("doctor", &[]).await.status.code(), Some(5));

    // What cannot be written is told of a cut-off that is made all the same.
    let blocked = world.env.dir().join("a file");
    std::fs::write(&blocked, "").unwrap();
    world.config.files.manifest_copies.push(blocked.clone());
    world.config.write().unwrap();
    let deposit = world.config.organisations[0].deposits[0].to_string();
    let cut_off = ["--cut-off", &deposit, "--until", "2026-11-20T07:00:00Z", "--reason", "lost"];
    let told = world.env.json("recover", &cut_off).await;
    // All but the orders and the one that the backup does not know.
    assert_eq!(told["rewritten"], published - 2, "{told}");
    let [unwritten] = &told["unwritten"].as_array().unwrap()[..] else { panic!("{told}") };
    assert!(unwritten.as_str().unwrap().contains("a file"), "{told}");
    world.config.files.manifest_copies.clear();
    world.config.write().unwrap();
    assert_success(&world.env.run("doctor", &[]).await);
}

/// Goal: nothing is promised on books that do not know what their own folders tell, whichever folder fails.
/// Method: a database older than a statement that is signed and not mined, whose manifest the first folder has, and a copy that
/// cannot be made. The statement's work is taken in again.
/// What would break it: an error about orders before any manifest is noticed; intake that waits for orders only.
#[tokio::test]
async fn a_copy_that_cannot_be_made_keeps_no_manifest_from_freezing() {
    let mut world = World::new().await;
    let backup = world.back_up().await;
    world.work(0, 1).await;
    assert_eq!(world.turn().await.sent, 1);
    world.drop_all().await;
    world.restore(&backup).await;
    world.config.files.manifest_copies = vec!["copy".into()];
    world.config.write().unwrap();
    let dir = world.env.dir();
    std::os::unix::fs::symlink(dir.join("unmounted"), dir.join("copy")).unwrap();

    let server = world.env.serve();
    eventually("the server", async || status(&world.env).await).await;
    let payout = relayer::generate::payout_address("owner 1 of seed 1");
    let file = world.env.folder.path().join("again.jsonl");
    write(&file, &world.line_of(0, 1, payout));
    let report = world.env.json("ingest", &[file.to_str().unwrap()]).await;
    assert_eq!(report["outcomes"]["unfunded"], 1, "{report}");
    assert_eq!(report["outcomes"]["accepted"].as_u64().unwrap_or(0), 0, "{report}");
    assert!(terminate(server).await.success());
}

/// What would break it: a folder of manifests that nobody looks at, and a copy that is told to be sound and halts when it is served from.
#[tokio::test]
async fn a_backup_tells_the_manifests_that_it_would_halt_for() {
    let env = Env::after_demo(6).await;
    let manifests = env.dir().join("manifests");
    let mut files = std::fs::read_dir(&manifests).unwrap().map(|entry| entry.unwrap().path());
    let lost = files.find(|path| path.extension().is_some_and(|name| name == "json"));
    std::fs::remove_file(lost.unwrap()).unwrap();
    let copy = env.folder.path().join("copy.db");
    let output = env.run("backup", &[copy.to_str().unwrap()]).await;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(5), "{told}");
    assert!(told.contains("L36 signature of statement") && copy.exists(), "{told}");
}

/// What would break it: a name beside the copy that is taken for the program's own.
#[tokio::test]
async fn a_backup_removes_no_file_that_it_did_not_make() {
    let env = Env::after_demo(6).await;
    let (copy, foreign) = (env.folder.path().join("copy.db"), env.folder.path().join("copy.draft"));
    write(&foreign, "a draft of somebody's");
    assert_success(&env.run("backup", &[copy.to_str().unwrap()]).await);
    assert_eq!(std::fs::read_to_string(&foreign).unwrap(), "a draft of somebody's");
    let mut left: Vec<_> = std::fs::read_dir(env.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["copy.db", "copy.draft", "installation"]);
}

#[tokio::test]
async fn a_cut_off_in_the_future_is_refused() {
    let env = Env::after_demo(6).await;
    let deposit = format!("{:#x}", B256::ZERO);
    let cut_off = ["--cut-off", &deposit, "--reason", "a slip of the finger", "--until"];
    for (until, why) in [
        ("2999-01-01T00:00:00Z", "until is 2999-01-01T00:00:00Z, in the future"),
        ("2026-11-20T07:00:00Z", "pays for no organisation"),
    ] {
        let output = env.run("recover", &[&cut_off[..], &[until]].concat()).await;
        assert_eq!(output.status.code(), Some(2));
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains(why), "{told}");
    }
}
