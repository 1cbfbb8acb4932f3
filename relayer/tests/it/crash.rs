//! Goal: a process that is killed while it settles loses and doubles nothing.
//! Method: kill -9 the demo at ten random moments of its settling, go on with `serve`, compare with an undisturbed run.
//! What would break it: sending before storing, stating work twice, counting on memory.

use std::{process::Stdio, time::Duration};

use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    time::{Instant, sleep, timeout},
};

use crate::{
    env::{Env, PATIENCE, assert_success, eventually, terminate},
    halt::numbers,
};

const MACHINES: u32 = 60;
const MOMENTS: u32 = 10;

/// All that money depends on: deposits, credits, and what arrived in wallets. `None` while it cannot be told, as when
/// blocks are mined between two answers of the node.
async fn state(env: &Env) -> Option<Value> {
    let status = env.json_if_any("status").await?;
    let reconciliation = env.json_if_any("reconcile").await?;
    Some(json!({
        "organisations": status["organisations"],
        "credits": status["credits"],
        "settled": status["settled"],
        "tokens": reconciliation["tokens"],
    }))
}

/// Whether all work that was taken in is to be stated.
const IS_CLOSED: &str =
    "select coalesce(max(until_ms), 0) >= (select max(stopped_ms) from item) from closing";

/// Starts the demo and waits until its last file is taken in and all is closed: nobody else would order that.
async fn demo_until_settling(env: &Env) -> tokio::process::Child {
    let mut child =
        env.demo(MACHINES).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if line.contains("took in 20261120") {
            // Keeps the pipe open, so that the demo can go on talking.
            tokio::spawn(async move {
                while lines.next_line().await.is_ok_and(|line| line.is_some()) {}
            });
            let closed = async {
                while numbers(env, &[IS_CLOSED]).await != [1] {
                    sleep(Duration::from_millis(1)).await;
                }
            };
            timeout(PATIENCE, closed).await.unwrap();
            return child;
        }
    }
    panic!("the demo ended before it settled");
}

#[tokio::test]
async fn a_demo_killed_at_ten_random_moments_ends_like_an_undisturbed_one() {
    let undisturbed = Env::new().await;
    let mut child = demo_until_settling(&undisturbed).await;
    let began = Instant::now();
    assert!(child.wait().await.unwrap().success());
    let settling = began.elapsed();
    let expected = state(&undisturbed).await.unwrap();

    let (mut cut_short, mut latest) = (0, settling.mul_f64(0.45));
    for moment in 0..MOMENTS {
        let delay = latest.mul_f64(rand::rngs::StdRng::from_os_rng().random_range(0.0..1.0));
        println!("moment {moment}: killed after {delay:?} of {settling:?}");
        let env = Env::new().await;
        let mut child = demo_until_settling(&env).await;
        sleep(delay).await;
        child.kill().await.unwrap();
        if state(&env).await.as_ref() == Some(&expected) {
            // The machine has less to do than when the undisturbed run was timed.
            latest /= 2;
        } else {
            cut_short += 1;
        }

        let mining = env.keep_mining();
        let server = env.serve();
        eventually("the state of the undisturbed run", async || {
            state(&env).await.filter(|state| *state == expected)
        })
        .await;
        sleep(Duration::from_secs(1)).await;
        assert!(terminate(server).await.success());
        drop(mining);
        assert_eq!(state(&env).await, Some(expected.clone()), "it went on to another state");
        assert_success(&env.run("reconcile", &[]).await);
        assert_success(&env.run("verify", &[]).await);
    }
    assert!(cut_short >= MOMENTS / 3, "only {cut_short} of {MOMENTS} kills hit an unfinished run");
}

/// Goal: a lost database costs availability, never money.
/// Method: delete it after a demo, take the same work in again, close it, let the server go on for a while.
/// What would break it: paying work that a statement paid which the new ledger does not know.
#[tokio::test]
async fn a_lost_database_pays_nothing_twice() {
    let env = Env::new().await;
    let generated =
        crate::env::quittance(&["generate", "--machines", "20", "--organisations", "2", "--out"])
            .arg(env.folder.path())
            .output()
            .await
            .unwrap();
    assert_success(&generated);
    let file = env.folder.path().join("20261118-20261119.json");
    assert_success(&env.demo(20).arg("--input").arg(&file).output().await.unwrap());
    let before = money(&env).await;

    for name in ["quittance.db", "quittance.db-wal", "quittance.db-shm"] {
        if let Err(error) = std::fs::remove_file(env.dir().join(name)) {
            assert_ne!(name, "quittance.db", "{error}");
        }
    }
    let _mining = env.keep_mining();
    let server = env.serve();
    let waiting = async |text: &str| {
        eventually(text, async || {
            let answer =
                reqwest::get(env.url("/v1/status")).await.ok()?.json::<Value>().await.ok()?;
            answer["waiting"].to_string().contains(text).then_some(())
        })
        .await;
    };
    eventually("the ledger to catch up", async || {
        let status = env.json_if_any("status").await?;
        (status["settled"].as_u64()? > 0 && status["progress"]["finalised"].as_u64()? > 20)
            .then_some(())
    })
    .await;
    let payees = crate::env::write(&env.folder.path().join("again.jsonl"), &payees_of(&file));
    env.json("ingest", &[payees.to_str().unwrap()]).await;
    let report = env.json("ingest", &["--close", file.to_str().unwrap()]).await;
    assert!(
        report["outcomes"]["accepted"].as_u64().unwrap_or(0)
            + report["outcomes"]["unfunded"].as_u64().unwrap_or(0)
            > 0
    );
    waiting("is frozen").await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(money(&env).await, before);

    // The manifests bring back what was paid. The day is accepted again, and nothing of it is due.
    let recovery = env.json("recover", &[]).await;
    assert!(recovery["imported"].as_u64().unwrap() > 0, "{recovery}");
    assert_eq!(recovery["refused"], json!([]));
    let status = eventually("the freeze to end", async || {
        let status = env.json_if_any("status").await?;
        let organisations = status["organisations"].as_object()?.clone();
        organisations.values().all(|known| known["unfunded"] == 0).then_some(organisations)
    })
    .await;
    sleep(Duration::from_secs(3)).await;
    assert!(terminate(server).await.success());
    for (name, organisation) in status {
        assert_eq!(organisation["payable"], 0, "{name}");
    }
    assert_eq!(money(&env).await, before);
    assert_success(&env.run("verify", &[]).await);
    prove_one(&env, &file).await;
}

/// Every workload can be followed to the transaction that paid it.
async fn prove_one(env: &Env, file: &std::path::Path) {
    let bytes = std::fs::read(file).unwrap();
    let parsed = relayer::intake::parse("20261118-20261119.json", &bytes, "salad").unwrap();
    let relayer::intake::Parsed::Work { records, .. } = parsed else { panic!("not work") };
    let mut proved = 0;
    for record in records.iter().flatten() {
        let id = &record.item.external_id;
        let proof = env.json("proof", &["--source", "salad", "--external-id", id]).await;
        let Some(payment) = proof["payments"].get(0) else { continue };
        assert_eq!(payment["progress"], "final", "{proof}");
        assert!(payment["settled"]["tx_hash"].is_string(), "{proof}");
        proved += 1;
    }
    assert!(proved > 5, "only {proved} workloads have a proof");
}

/// All money by token. Remainders below one unit are known to a ledger only, and are lost with it.
async fn money(env: &Env) -> Value {
    let mut tokens = env.json("reconcile", &[]).await["tokens"].take();
    for token in tokens.as_array_mut().unwrap() {
        token["carried"].take();
    }
    tokens
}

/// The payout addresses that the demo gave to the machines of a file.
fn payees_of(file: &std::path::Path) -> String {
    let bytes = std::fs::read(file).unwrap();
    let parsed = relayer::intake::parse("20261118-20261119.json", &bytes, "salad").unwrap();
    let relayer::intake::Parsed::Work { records, .. } = parsed else { panic!("not work") };
    let line = |record: &ledger::workload::Record| {
        let machine = &record.item.machine;
        let address = relayer::generate::payout_address(machine);
        json!({ "schema": "payee/1", "machine": machine, "address": address }).to_string() + "\n"
    };
    records.iter().flatten().map(line).collect()
}
