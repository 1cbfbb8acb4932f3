//! `verify` on a database that somebody altered by hand.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    mpsc::{Receiver, channel},
};

use ledger::{Ledger, chain::ChainWriter};
use relayer::{config::EndpointConfig, keys::Keys, reconcile::verify};
use serde_json::json;
use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::sync::oneshot;

use crate::{
    env::{Env, assert_success, quittance},
    proxy::proxy,
    sender::World,
};

/// An alteration, and how the row at fault has to be named.
const ALTERATIONS: [(&str, &str); 14] = [
    ("update funded set units = x'00000000000000ff' where rowid_first", "funded at block"),
    ("update claimed set recipient = zeroblob(20) where rowid_first", "claimed at block"),
    ("update registered set payout = randomblob(20) where rowid_first", "registered at block"),
    ("delete from settled where rowid_first", "settled at block"),
    (
        "update block set hash = randomblob(32) where number = (select block from settled limit 1)",
        "block ",
    ),
    (
        "update \"row\" set units = x'0000000000000001' where statement = 1 and rowid_first",
        "row of statement 1",
    ),
    (
        "update \"row\" set carry_out = x'00000000000000000000000000000001' where statement = 1 and rowid_first",
        "row of statement 1",
    ),
    (
        "update leaf set amount = x'00000000000000000000000000000001' where statement = 1 and position = 0",
        "of statement 1",
    ),
    ("update statement set manifest = randomblob(32) where id = 1", "statement 1"),
    ("update statement set digest = randomblob(32) where id = 1", "statement 1"),
    (
        "update signature set signature = randomblob(65) where statement = 1",
        "signature of statement 1",
    ),
    ("update workload set body = replace(body, '0.', '1.') where item = 1", "workload of item 1"),
    ("update item set machine = 'mine' where id = 1", "item 1"),
    (
        "update accepted set amount = x'00000000000000000000000000000001' where item = 1",
        "accepted of item 1",
    ),
];

#[tokio::test]
async fn finds_and_names_a_row_that_was_altered_by_hand() {
    let env = Env::after_demo(30).await;
    assert_success(&env.run("verify", &[]).await);
    let database = env.dir().join("quittance.db");
    let pristine = std::fs::read(&database).unwrap();
    for (alteration, name) in ALTERATIONS {
        std::fs::write(&database, &pristine).unwrap();
        alter(&database, alteration).await;
        let output = env.run("verify", &[]).await;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(
            output.status.code(),
            Some(5),
            "{alteration}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(text.contains(name), "{alteration}: {text}");
    }
}

async fn alter(database: &std::path::Path, alteration: &'static str) {
    let options = SqliteConnectOptions::new().filename(database).foreign_keys(false);
    let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
    // Whoever can write to the file can take its triggers away, and put them back.
    let triggers = sqlx::query("select name, sql from sqlite_schema where type = 'trigger'")
        .fetch_all(&mut conn)
        .await
        .unwrap();
    for trigger in &triggers {
        let sql = format!("drop trigger {}", trigger.get::<String, _>("name"));
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut conn).await.unwrap();
    }
    // Stands for "one row of the table, whichever comes first".
    let first = "(block, log_index) = (select block, log_index from TABLE order by block, log_index limit 1)";
    let words: Vec<_> = alteration.split(' ').collect();
    let table = words[usize::from(words[0] == "delete") + 1];
    let first = if table == "\"row\"" {
        "provider = (select min(provider) from \"row\" where statement = 1)".to_owned()
    } else {
        first.replace("TABLE", table)
    };
    let sql = alteration.replace("rowid_first", &first);
    let done = sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut conn).await.unwrap();
    assert!(done.rows_affected() > 0, "{alteration} altered nothing");
    for trigger in &triggers {
        let sql = sqlx::AssertSqlSafe(trigger.get::<String, _>("sql"));
        sqlx::query(sql).execute(&mut conn).await.unwrap();
    }
    conn.close().await.unwrap();
}

#[tokio::test]
async fn a_second_opinion_from_the_files_alone_finds_a_workload_that_was_paid_otherwise() {
    let env = Env::after_demo(40).await;
    let folder = env.folder.path().join("files");
    let mut generate = quittance(&["generate", "--machines=40", "--days=3", "--organisations=4"]);
    assert_success(&generate.arg("--out").arg(&folder).output().await.unwrap());
    let mut files: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let names: Vec<_> = files.iter().map(|path| path.to_str().unwrap()).collect();
    let workloads = [&["--workloads"], &names[..]].concat();

    let dearer = std::fs::read_to_string(&files[0]).unwrap();
    let (before, after) = dearer.split_once(",0.").unwrap();
    std::fs::write(&files[0], format!("{before},1.{after}")).unwrap();
    let output = env.run("verify", &workloads).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(5), "{text}");
    assert!(
        text.contains("epoch 1, workload salad/") && text.contains("; it should be "),
        "{text}"
    );

    std::fs::write(&files[0], &dearer).unwrap();
    let verified = env.json("verify", &workloads).await;
    let opinion = &verified["opinion"];
    assert!(opinion["statements"].as_u64().unwrap() > 4, "{opinion}");
    // What is open is what the demo leaves without a payout address.
    let open = opinion["open"].as_array().unwrap();
    assert!(open.iter().all(|work| work["reason"].as_str().unwrap().starts_with("unaddressed: ")));
    let workloads = opinion["workloads"].as_u64().unwrap();
    assert_eq!(opinion["paid"].as_u64().unwrap() + open.len() as u64, workloads);
    assert!(workloads > 100 && !open.is_empty());
    assert!(verified["journal"].is_string());
}

/// Goal: one endpoint that leaves logs out makes no difference between ledger and chain, and is not asked once it is marked.
/// What would break it: taking the logs of whichever endpoint comes first.
#[tokio::test]
async fn an_endpoint_that_leaves_logs_out_is_no_difference_where_another_serves_them() {
    let env = Env::after_demo(12).await;
    let asked = Arc::new(AtomicU32::new(0));
    let count = asked.clone();
    let url = proxy(&env.anvil.url, move |request| {
        count.fetch_add(1, Relaxed);
        (request["method"] == "eth_getLogs").then(|| json!({ "result": [] }))
    });
    let mut config = env.config();
    let urls = [url.await, env.anvil.url.clone(), env.anvil.url.clone()];
    let named = ["anna", "bert", "cleo"].into_iter().zip(urls);
    config.endpoints =
        named.map(|(name, url)| EndpointConfig { operator: name.into(), url }).collect();
    config.chain.rpc_url = None;
    config.write().unwrap();
    assert_success(&env.run("verify", &[]).await);
    assert!(asked.swap(0, Relaxed) > 0);

    let ledger = Ledger::open(&env.dir().join("quittance.db"), config.identity()).await.unwrap();
    let writer = ChainWriter::new(ledger.clone());
    writer.mark_endpoint("anna", true, "it left logs out", 0).await.unwrap();
    drop(writer);
    ledger.close().await;
    for command in ["verify", "reconcile"] {
        assert_success(&env.run(command, &[]).await);
        assert_eq!(asked.load(Relaxed), 0, "{command}");
    }
    let mut recover = quittance(&["sender", "recover", "--dir"]);
    assert_success(&recover.arg(env.dir()).output().await.unwrap());
    assert_eq!(asked.load(Relaxed), 0, "sender recover");
}

/// Goal: a second opinion judges by all that happened, or not at all.
/// Method: the only endpoint has logs until the ledger is verified, which the proof of the journal ends, and none for the second
/// opinion, which reads them anew.
/// What would break it: taking logs that do not fold to the contract's journal for the chain.
#[tokio::test]
async fn no_second_opinion_is_given_on_logs_that_are_not_complete() {
    let env = Env::after_demo(12).await;
    let is_verified = AtomicBool::new(false);
    let url = proxy(&env.anvil.url, move |request| {
        let is_left_out = request["method"] == "eth_getLogs" && is_verified.load(Relaxed);
        is_verified.fetch_or(request["method"] == "eth_getProof", Relaxed);
        is_left_out.then(|| json!({ "result": [] }))
    });
    let mut config = env.config();
    config.chain.rpc_url = Some(url.await);
    config.write().unwrap();
    let payees = env.folder.path().join("payees.jsonl");
    std::fs::write(&payees, "").unwrap();
    let output = env.run("verify", &["--workloads", payees.to_str().unwrap()]).await;
    let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(4), "{told}");
    assert!(told.contains("do not fold to the contract's journal"), "{told}");
}

/// Goal: a reorg while `verify` reads is no difference between ledger and chain.
/// Method: the endpoint, which still knows the block that the ledger has left, as nodes do for a while, keeps the proof of the
/// journal back until the ledger has rolled that block back, which settles a statement.
/// What would break it: comparing the chain as it is with the ledger as it was, or the other way round.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_reorg_of_the_checkpoint_while_it_is_verified_is_no_difference() {
    let mut world = World::new().await;
    world.work(0, 1).await;
    assert_eq!(world.turn().await.sent, 1);
    world.mine(1).await;
    let settled = world.settled().await;

    let (asked, is_asked) = oneshot::channel();
    let (answer, may_answer) = channel();
    let hold = Mutex::new(Some((asked, may_answer)));
    let hold = move || -> Option<Receiver<()>> {
        let (asked, may_answer) = hold.lock().unwrap().take()?;
        asked.send(()).unwrap();
        Some(may_answer)
    };
    let url = proxy(&world.env.anvil.url, move |request| {
        if request["method"] == "eth_getProof" {
            // Before this is forwarded, and the first time only.
            if let Some(may_answer) = hold() {
                may_answer.recv().unwrap();
            }
        }
        None
    });
    let mut config = world.config.clone();
    config.chain.rpc_url = Some(url.await);
    let ledger = world.live.ledger.clone();
    let verified = tokio::spawn(async move {
        let (keys, endpoints) = (Keys::open(&config).unwrap(), config.endpoints().unwrap());
        verify(&config, &keys, &ledger, &endpoints).await
    });
    is_asked.await.unwrap();
    let chain = ChainWriter::new(world.live.ledger.clone());
    let left = chain.checkpoint().await.unwrap().unwrap();
    chain.rollback_to(left.number - 1).await.unwrap();
    assert_eq!(world.settled().await, settled - 1);
    answer.send(()).unwrap();
    let verification = verified.await.unwrap().unwrap();
    assert_eq!(verification.differences, []);
}
