//! Goal: a ledger that breaks an invariant moves no money, and reading goes on.
//! Method: a real server over a database that somebody altered by hand, with work to pay; then the alteration is undone.
//! What would break it: a turn taken in spite of a violation, intake that promises, an indexer that stops, a halt that stays.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use alloy::{hex, primitives::B256, sol_types::SolCall};
use contracts::Settlement;
use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Child,
    time::{sleep, timeout},
};

use crate::{
    env::{Env, PATIENCE, assert_success, eventually, terminate, write},
    proxy::{proxy, refusal},
};

/// What is done to the database, and undone.
const DAMAGE: &str = "insert into open (item) values (1)";
const REPAIR: &str = "delete from open where item = 1";

async fn sql(env: &Env, sql: &'static str) {
    let options = SqliteConnectOptions::new().filename(env.dir().join("quittance.db"));
    let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
    let done = sqlx::query(sql).execute(&mut conn).await.unwrap();
    assert_eq!(done.rows_affected(), 1, "{sql}");
    conn.close().await.unwrap();
}

/// What was ever promised, signed or sent: any of these grows when money moves.
async fn intents(env: &Env) -> Vec<i64> {
    let queries = [
        "select count(*) from accepted",
        "select count(*) from statement",
        "select count(*) from signature",
        "select count(*) from slot",
        "select count(*) from attempt",
    ];
    numbers(env, &queries).await
}

/// The number that each query has in the database.
pub(crate) async fn numbers(env: &Env, queries: &[&'static str]) -> Vec<i64> {
    let options =
        SqliteConnectOptions::new().filename(env.dir().join("quittance.db")).read_only(true);
    let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
    let mut numbers = Vec::new();
    for query in queries {
        numbers.push(sqlx::query_scalar(*query).fetch_one(&mut conn).await.unwrap());
    }
    conn.close().await.unwrap();
    numbers
}

pub(crate) async fn status(env: &Env) -> Option<Value> {
    reqwest::get(env.url("/v1/status")).await.ok()?.json().await.ok()
}

async fn until_halted(env: &Env) {
    eventually("a halt that names invariant and row", async || {
        let status = status(env).await?;
        let says = |value: &Value| value.to_string().contains("L23 open, item 1: listed");
        (says(&status["status"]["halted"]) && says(&status["waiting"])).then_some(())
    })
    .await;
}

pub(crate) async fn until_lifted(env: &Env) {
    eventually("the halt to be lifted", async || {
        status(env).await?["status"]["halted"].is_null().then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_what_the_relayer_waits_for() {
    let env = Env::after_demo(20).await;
    let server = env.serve();
    eventually("a server without a complaint", async || {
        let status = status(&env).await?;
        (status["waiting"].as_array()?.is_empty()).then_some(())
    })
    .await;
    let url = env.url("/v1/status");
    let Env { anvil, folder: _folder } = env;
    anvil.stop().await.unwrap();
    eventually("the reason", async || {
        let status: Value = reqwest::get(&url).await.ok()?.json().await.ok()?;
        let told = status["waiting"].as_array()?;
        let says = |reason: &Value| {
            reason.as_str().is_some_and(|reason| reason.contains("failed at eth_"))
        };
        told.iter().any(says).then_some(())
    })
    .await;
    assert!(terminate(server).await.success());
}

/// A halt outlives the server that found its reason: the commands that write without one promise nothing.
async fn assert_outlives(env: &Env, server: Child, file: &Path) {
    sql(env, DAMAGE).await;
    until_halted(env).await;
    assert!(terminate(server).await.success());
    let named = ["--source", "salad", "--external-id", "1", "--reason", "none"];
    for (command, arguments) in
        [("decide", [&["release"], &named[..]].concat()), ("ingest", vec![file.to_str().unwrap()])]
    {
        let refused = env.run(command, &arguments).await;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(5), "{command}: {said}");
        assert!(said.contains("halted: L23"), "{command}: {said}");
    }
    sql(env, REPAIR).await;
}

#[tokio::test]
async fn a_damaged_ledger_sends_nothing_and_goes_on_reading_until_it_is_repaired() {
    let env = Env::after_demo(20).await;
    let config = env.dir().join("quittance.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace("check_every_seconds = 3600", "check_every_seconds = 1");
    assert!(text.contains("check_every_seconds = 1\n"));
    write(&config, &text);
    env.generate_more("20", "2").await;
    let first = env.folder.path().join("20261121-20261122.json");
    let second = env.folder.path().join("20261122-20261123.json");
    // Work that would be stated and sent at once.
    let payees = env.folder.path().join("payees.jsonl");
    env.json("ingest", &[payees.to_str().unwrap()]).await;
    let report = env.json("ingest", &["--close", first.to_str().unwrap()]).await;
    assert!(report["outcomes"]["accepted"].as_u64().unwrap() > 0, "{report}");
    sql(&env, DAMAGE).await;
    let doctor = env.run("doctor", &["--json"]).await;
    assert_eq!(doctor.status.code(), Some(5));
    let found: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    assert_eq!(found["violations"][0]["invariant"], "L23");
    assert_eq!(found["violations"][0]["row"], "open, item 1");
    let before = intents(&env).await;

    let _mining = env.keep_mining();
    let server = env.serve();
    until_halted(&env).await;
    let refused = env.run("ingest", &[second.to_str().unwrap()]).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(5), "{said}");
    assert!(said.contains("halted: L23"), "{said}");
    // What explains an unknown epoch promises nothing, and may be what the halt waits for.
    let deposit = env.config().organisations[0].deposits[0].to_string();
    let cut_off = ["--cut-off", &deposit, "--until", "2026-11-20T07:00:00Z", "--reason", "lost"];
    let said = env.run("recover", &cut_off).await;
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("nothing to cut off") && !said.contains("halted"), "{said}");
    let ready = reqwest::get(env.url("/health/ready")).await.unwrap();
    assert_eq!(ready.status(), 503);
    assert!(ready.text().await.unwrap().contains("halted: L23"));
    let head = status(&env).await.unwrap()["status"]["progress"]["checkpoint"].as_u64().unwrap();
    sleep(Duration::from_secs(3)).await;
    let later = status(&env).await.unwrap()["status"]["progress"]["checkpoint"].as_u64().unwrap();
    assert!(later > head, "the indexer stands still");
    assert_eq!(intents(&env).await, before, "money moved");

    sql(&env, REPAIR).await;
    until_lifted(&env).await;
    eventually("what waited to be sent", async || {
        let now = intents(&env).await;
        now.iter().zip(&before).skip(1).all(|(now, before)| now > before).then_some(())
    })
    .await;
    // The same while it runs.
    sql(&env, DAMAGE).await;
    until_halted(&env).await;
    sql(&env, REPAIR).await;
    until_lifted(&env).await;
    env.json("ingest", &["--close", second.to_str().unwrap()]).await;
    assert_outlives(&env, server, &second).await;
    assert_success(&env.run("doctor", &[]).await);
    let told = env.run("audit", &["--json"]).await;
    assert_success(&told);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    for (action, times) in [("\"action\":\"halt\"", 3), ("\"action\":\"halt lifted\"", 2)] {
        assert_eq!(told.matches(action).count(), times, "{told}");
    }
}

/// What would break it: taking orders while those that were said before wait to be read, and come back as the newer ones.
#[tokio::test]
async fn nothing_is_ordered_until_the_orders_that_were_said_before_are_read() {
    let env = Env::after_demo(20).await;
    let orders = env.dir().join("manifests/orders.jsonl");
    let aside = env.folder.path().join("aside");
    std::fs::rename(&orders, &aside).unwrap();
    std::fs::create_dir(&orders).unwrap();
    let server = env.serve();
    eventually("the reason", async || {
        let waiting = status(&env).await?["waiting"].to_string();
        waiting.contains("statements wait for the manifests").then_some(())
    })
    .await;
    let address = "0x90f79bf6eb2c4f870365e785982e1f101e93b906";
    let line = json!({ "schema": "payee/1", "machine": "new", "address": address }).to_string();
    let file = write(&env.folder.path().join("payees.jsonl"), &line);
    let named = ["release", "--source", "salad", "--external-id", "1", "--reason", "none"];
    let calls = [("ingest", vec![file.to_str().unwrap()]), ("decide", named.to_vec())];
    for (command, arguments) in &calls {
        let refused = env.run(command, arguments).await;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains("are to be read first") && said.contains("orders.jsonl"), "{said}");
    }

    std::fs::remove_dir(&orders).unwrap();
    std::fs::rename(&aside, &orders).unwrap();
    assert_success(&env.run("ingest", &calls[0].1).await);
    let kept = std::fs::read_to_string(&orders).unwrap();
    assert!(kept.contains(r#""machine":"new""#), "it is copied before the answer: {kept}");
    let refused = env.run("decide", &calls[1].1).await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("there is no work"));
    assert!(terminate(server).await.success());
}

#[tokio::test]
async fn a_request_without_the_token_changes_nothing() {
    let env = Env::after_demo(12).await;
    let (_mining, server) = (env.keep_mining(), env.serve());
    eventually("the server", async || status(&env).await).await;
    let promises = async || {
        let queries = [
            "select count(*) from workload",
            "select count(*) from closing",
            "select count(*) from decision",
            "select count(*) from cut_off",
            "select count(*) from endpoint_mark",
            "select count(*) from audit",
        ];
        numbers(&env, &queries).await
    };
    let before = promises().await;
    let client = reqwest::Client::new();
    for path in [
        "/v1/ingest/files/more.jsonl",
        "/v1/closings/9000000000000",
        "/v1/decisions",
        "/v1/recovery",
        "/v1/recovery/cut-offs",
        "/v1/endpoints/default/clear",
    ] {
        for token in [None, Some(""), Some("0000"), Some("Bearer")] {
            let request = client.post(env.url(path)).body("{}");
            let request = match token {
                Some(token) => request.bearer_auth(token),
                None => request,
            };
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), 401, "{path} {token:?}");
        }
    }
    assert_eq!(promises().await, before);
    assert!(terminate(server).await.success());
}

/// What would break it: a time in microseconds, by which everything that is still to come is closed for ever, holdback or not.
#[tokio::test]
async fn a_closing_beyond_the_next_hour_is_refused() {
    let env = Env::after_demo(6).await;
    let server = env.serve();
    eventually("the server", async || status(&env).await).await;
    let token = std::fs::read_to_string(env.dir().join("keys/api-token")).unwrap();
    let close = async |until: i64| {
        let request = reqwest::Client::new().post(env.url(&format!("/v1/closings/{until}")));
        let answer = request.bearer_auth(token.trim()).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let closings = async || numbers(&env, &["select count(*) from closing"]).await;
    let before = closings().await;
    let now = jiff::Timestamp::now().as_millisecond();
    for until in [now + 2 * 3_600_000, now * 1_000, i64::MAX] {
        let (code, said) = close(until).await;
        assert_eq!(code, 422, "{said}");
        let should = format!("until_ms is {until}; it must be at most ");
        assert!(said.starts_with(&should) && said.contains("milliseconds since 1970"), "{said}");
    }
    assert_eq!(closings().await, before);
    for until in [now, now + 1_800_000] {
        assert_eq!(close(until).await.0, 200);
    }
    assert_eq!(closings().await[0], before[0] + 2);
    assert!(terminate(server).await.success());
}

/// Goal: nobody without the token makes the server keep a body.
/// Method: a body of the largest size is declared, and none of it sent: whoever is refused at once was not waited for.
#[tokio::test]
async fn a_request_without_the_token_is_refused_before_its_body_is_read() {
    let env = Env::after_demo(6).await;
    let server = env.serve();
    eventually("the server", async || status(&env).await).await;
    for path in [
        "ingest/files/more.jsonl",
        "decisions",
        "recovery",
        "recovery/cut-offs",
        "closings/1",
        "endpoints/default/clear",
    ] {
        for token in ["", "authorization: Bearer 0000\r\n"] {
            let mut client = TcpStream::connect(env.config().http.listen).await.unwrap();
            let request = format!(
                "POST /v1/{path} HTTP/1.1\r\nhost: localhost\r\n{token}content-length: 268435456\r\n\r\n"
            );
            client.write_all(request.as_bytes()).await.unwrap();
            let mut begin = [0; 12];
            let read = timeout(Duration::from_secs(20), client.read_exact(&mut begin)).await;
            read.unwrap_or_else(|_| panic!("{path} waits for the body")).unwrap();
            assert_eq!(&begin, b"HTTP/1.1 401", "{path}");
        }
    }
    assert!(terminate(server).await.success());
}

/// What would break it: a mark in the ledger about an operator that nobody has, or one that nobody can explain later.
#[tokio::test]
async fn only_a_known_operators_endpoints_are_trusted_again_and_for_a_reason() {
    let env = Env::after_demo(6).await;
    let server = env.serve();
    eventually("the server", async || status(&env).await).await;
    for (operator, reason, why) in [
        ("nobody", "asked them", "no operator \"nobody\""),
        ("default", "", "reason is empty"),
        ("default", "  ", "reason is empty"),
    ] {
        let output = env.run("endpoints", &["--clear", operator, "--reason", reason]).await;
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && told.contains(why), "{told}");
    }
    assert_success(&env.run("endpoints", &["--clear", "default", "--reason", "asked"]).await);
    assert!(terminate(server).await.success());
    let output = env.run("endpoints", &["--clear", "nobody", "--reason", "asked"]).await;
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && told.contains("no operator"), "{told}");
}

#[tokio::test]
async fn a_backup_beside_a_running_server_serves_on_as_the_database() {
    let env = Env::after_demo(20).await;
    let _mining = env.keep_mining();
    let server = env.serve();
    eventually("the server", async || status(&env).await.map(drop)).await;
    let copy = env.folder.path().join("copy.db");
    assert_success(&env.run("backup", &[copy.to_str().unwrap()]).await);
    let again = env.run("backup", &[copy.to_str().unwrap()]).await;
    assert_eq!(again.status.code(), Some(1), "an existing file was overwritten");
    assert!(terminate(server).await.success());
    let database = env.dir().join("quittance.db");
    for suffix in ["-wal", "-shm"] {
        drop(std::fs::remove_file(env.dir().join(format!("quittance.db{suffix}"))));
    }
    std::fs::copy(&copy, &database).unwrap();
    let server = env.serve();
    eventually("the restored server", async || status(&env).await.map(drop)).await;
    assert!(terminate(server).await.success());
    assert_success(&env.run("doctor", &[]).await);
    assert_success(&env.run("verify", &[]).await);
}

/// Goal: a client that neither finishes its request nor hangs up does not keep the process from ending.
/// Method: a body of which half comes, then the request to stop.
/// What would break it: waiting for every connection.
#[tokio::test]
async fn a_request_that_never_ends_does_not_keep_the_server_from_ending() {
    let env = Env::after_demo(6).await;
    let server = env.serve();
    eventually("the server", async || status(&env).await).await;
    let token = std::fs::read_to_string(env.dir().join("keys/api-token")).unwrap();
    let mut client = TcpStream::connect(env.config().http.listen).await.unwrap();
    let request = format!(
        "POST /v1/ingest/files/more.jsonl HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-length: 100\r\n\r\nhalf",
        token.trim()
    );
    client.write_all(request.as_bytes()).await.unwrap();
    sleep(Duration::from_millis(300)).await;
    let ended = timeout(PATIENCE / 3, terminate(server)).await.expect("the server does not end");
    assert!(ended.success());
    drop(client);
}

/// Goal: a database that somebody else keeps locked is waited for, as turns do.
/// Method: a write transaction of another process, longer than a writer waits, beside a server that closes by schedule.
#[tokio::test]
async fn a_server_outlives_a_lock_that_is_held_longer_than_it_waits() {
    let env = Env::after_demo(6).await;
    let mut config = env.config();
    config.policy.close_every_minutes = 1;
    config.write().unwrap();
    let mut server = env.serve();
    eventually("its status", async || status(&env).await).await;
    let options = SqliteConnectOptions::new().filename(env.dir().join("quittance.db"));
    let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query("begin immediate").execute(&mut conn).await.unwrap();
    eventually("what it waits for", async || {
        assert_eq!(server.try_wait().unwrap(), None, "it ended");
        let waiting = status(&env).await?["waiting"].to_string();
        waiting.contains("database is locked").then_some(())
    })
    .await;
    sqlx::query("rollback").execute(&mut conn).await.unwrap();
    eventually("its turns", async || {
        let waiting = status(&env).await?["waiting"].to_string();
        (!waiting.contains("database is locked")).then_some(())
    })
    .await;
    terminate(server).await;
}

/// Goal: rows that do not come out halt money when a turn meets them, and whoever operates it can read why.
/// Method: a claim of more than came, written behind the back of a server that examined its ledger before.
/// What would break it: ending by them; numbers that fail as a whole for one of them.
#[tokio::test]
async fn rows_by_which_a_turn_fails_halt_money_at_once_and_end_no_server() {
    let env = Env::after_demo(12).await;
    let mut server = env.serve();
    eventually("a server without a complaint", async || {
        let status = status(&env).await?;
        status["waiting"].as_array()?.is_empty().then_some(())
    })
    .await;
    let claim = "insert into claimed (block, log_index, provider, token, recipient, units, claim_nonce)
         select block, 999, provider, token, recipient, x'7fffffffffffffff', claim_nonce from claimed limit 1";
    sql(&env, claim).await;
    eventually("a halt that names the rows", async || {
        assert_eq!(server.try_wait().unwrap(), None, "it ended");
        let status = status(&env).await?;
        status["status"]["halted"].as_str()?.contains("L10").then_some(())
    })
    .await;
    assert!(terminate(server).await.success());
}

/// Goal: money stands still while the contract holds something else than the ledger, whatever is restarted in between.
/// Method: an endpoint that tells a credit that nobody has, then says nothing of credits, then tells the truth.
/// What would break it: a difference that ends the process only, a look at the ledger alone that lifts it, a halt that stays.
#[tokio::test]
async fn a_difference_from_the_contract_halts_until_a_comparison_finds_none() {
    let env = Env::after_demo(20).await;
    let lie = json!({ "result": B256::with_last_byte(123) });
    let told = Arc::new(Mutex::new(Some(lie)));
    let asked = Arc::new(AtomicU64::new(0));
    let url = proxy(&env.anvil.url, {
        let (told, asked) = (told.clone(), asked.clone());
        let credit_of = hex::encode_prefixed(Settlement::creditOfCall::SELECTOR);
        move |request| {
            let input = request["params"][0]["input"].as_str()?;
            if !input.starts_with(&credit_of) {
                return None;
            }
            asked.fetch_add(1, Ordering::Relaxed);
            told.lock().unwrap().clone()
        }
    })
    .await;
    let mut config = env.config();
    config.chain.rpc_url = Some(url);
    config.write().unwrap();
    let _mining = env.keep_mining();
    let halted = async || {
        let status = env.json("status", &[]).await;
        status["halted"].as_str().map(str::to_owned)
    };
    let mut server = env.serve();
    assert_eq!(server.wait().await.unwrap().code(), Some(1));
    let reason = halted().await.expect("a halt");
    assert!(reason.ends_with("units in the ledger and 123 units in the contract"), "{reason}");

    *told.lock().unwrap() = Some(refusal("not now"));
    let server = env.serve();
    eventually("the server", async || status(&env).await).await;
    let before = asked.load(Ordering::Relaxed);
    let more = async || (asked.load(Ordering::Relaxed) > before + 3).then_some(());
    eventually("comparisons that come to nothing", more).await;
    assert_eq!(halted().await, Some(reason), "a restart lifted the halt");
    let ready = reqwest::get(env.url("/health/ready")).await.unwrap();
    assert_eq!(ready.status(), 503);

    *told.lock().unwrap() = None;
    let lifted = async || halted().await.is_none().then_some(());
    eventually("a comparison that finds no difference", lifted).await;
    assert!(terminate(server).await.success());
}

/// Goal: a folder of manifests that cannot be listed stops money, and neither the server nor its reading.
/// Method: a file in its place before the server starts, then the folder again, then the file while it runs.
/// What would break it: taking what the system says of the folder for an accident of the process.
#[tokio::test]
async fn a_folder_of_manifests_that_cannot_be_listed_halts_money_and_ends_no_server() {
    let env = Env::after_demo(12).await;
    let mut config = env.config();
    config.policy.check_every_seconds = 1;
    config.write().unwrap();
    let (folder, aside) = (env.dir().join("manifests"), env.dir().join("aside"));
    let name = folder.display().to_string();
    let hide = || {
        std::fs::rename(&folder, &aside).unwrap();
        write(&folder, "");
    };
    let restore = || {
        std::fs::remove_file(&folder).unwrap();
        std::fs::rename(&aside, &folder).unwrap();
    };
    let told = async || {
        let halted = status(&env).await?["status"]["halted"].as_str()?.to_owned();
        (halted.contains("L36") && halted.contains(&name)).then_some(())
    };
    hide();
    let doctor = env.run("doctor", &[]).await;
    let said = [doctor.stdout, doctor.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert_eq!(doctor.status.code(), Some(5), "{said}");
    assert!(said.contains("L36") && said.contains(&name), "{said}");

    let _mining = env.keep_mining();
    let mut server = env.serve();
    for _ in 0..2 {
        eventually("a halt that names the folder", async || {
            assert_eq!(server.try_wait().unwrap(), None, "it ended");
            told().await
        })
        .await;
        let ready = reqwest::get(env.url("/health/ready")).await.unwrap();
        assert_eq!(ready.status(), 503);
        restore();
        until_lifted(&env).await;
        hide();
    }
    restore();
    assert!(terminate(server).await.success());
}
