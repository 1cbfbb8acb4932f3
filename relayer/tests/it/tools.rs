//! A tool that nobody here wrote, cast, reads the same figures and drives the contract from an unrelated account.

use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;

use crate::env::{Env, assert_success, eventually, terminate, write};

/// The tenth account of the well-known mnemonic: gas, and nothing to do with the installation.
const STRANGER: &str = "0x2a871d0798f97d79848a013d4936a73bf4cc922c825d33c1cf7073dff6d409c6";

async fn cast(env: &Env, arguments: &[&str]) -> String {
    let program = std::env::var_os("QUITTANCE_CAST").unwrap_or_else(|| "cast".into());
    let output = Command::new(program)
        .args(arguments)
        .args(["--rpc-url", &env.anvil.url])
        .stderr(Stdio::piped())
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The first word of each part of cast's output, which appends a readable form to large numbers.
fn numbers(text: &str) -> Vec<String> {
    let parts = text.trim_matches(['(', ')']).split(", ");
    parts.map(|part| part.split(' ').next().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn cast_reads_what_status_shows() {
    let env = Env::new().await;
    assert_success(&env.demo(60).args(["--push-threshold", "3000000"]).output().await.unwrap());
    let status = env.json("status", &[]).await;
    let contract = status["contract"].as_str().unwrap();
    let organisations = status["organisations"].as_object().unwrap();
    assert!(!organisations.is_empty());
    for organisation in organisations.values() {
        for deposit in organisation["deposits"].as_array().unwrap() {
            let signature = "depositOf(bytes32)((uint64,uint64,uint64,uint32,uint32))";
            let read =
                cast(&env, &["call", contract, signature, deposit["id"].as_str().unwrap()]).await;
            let text = |field: &str| deposit[field].as_str().unwrap().to_owned();
            let shown =
                [text("balance"), text("thawing"), text("spent"), deposit["epoch"].to_string()];
            assert_eq!(numbers(&read)[..4], shown);
        }
    }
    let credits = status["credits"].as_array().unwrap();
    assert!(!credits.is_empty());
    for credit in credits {
        let (token, provider) = (credit["token"].as_str().unwrap(), credit["provider"].to_string());
        let read =
            cast(&env, &["call", contract, "creditOf(address,uint32)(uint64)", token, &provider])
                .await;
        assert_eq!(numbers(&read)[0], credit["units"].as_str().unwrap());
    }
}

/// Makes the installation's sender too thrifty to settle, so that a signed statement waits for somebody else.
fn forbid_sending(env: &Env) {
    let mut config = env.config();
    config.policy.native_usd = None;
    config.policy.max_gas_gwei = 0;
    config.write().unwrap();
}

async fn get(env: &Env, path: &str) -> Option<Value> {
    reqwest::get(env.url(path)).await.ok()?.json().await.ok()
}

#[tokio::test]
async fn a_stranger_settles_and_claims_with_cast_and_the_ledger_sees_it() {
    let env = Env::new().await;
    assert_success(&env.demo(60).args(["--push-threshold", "3000000"]).output().await.unwrap());
    forbid_sending(&env);
    let status = env.json("status", &[]).await;
    let contract = status["contract"].as_str().unwrap().to_owned();
    let (organisation, before) =
        status["organisations"].as_object().unwrap().iter().next().unwrap();
    let deposit = &before["deposits"][0];

    let _mining = env.keep_mining();
    let server = env.serve();
    eventually("the server", async || get(&env, "/health/ready").await).await;
    let file = write(&env.folder.path().join("more.jsonl"), &more_work(organisation));
    let report = env.json("ingest", &["--close", file.to_str().unwrap()]).await;
    assert_eq!(report["outcomes"]["accepted"], 1, "{report}");
    let listed = eventually("a signed statement", async || {
        get(&env, "/v1/statements").await.filter(|listed| listed["statements"][0].is_object())
    })
    .await;
    let statement = &listed["statements"][0];
    assert_eq!(statement["deposit"], deposit["id"]);
    let waiting = eventually("the reason why it waits", async || {
        get(&env, "/v1/status")
            .await
            .map(|status| status["waiting"].to_string())
            .filter(|w| w.contains("gas costs"))
    })
    .await;
    assert!(waiting.contains("policy.max_gas_gwei allows 0"), "{waiting}");

    cast(
        &env,
        &["send", &contract, statement["calldata"].as_str().unwrap(), "--private-key", STRANGER],
    )
    .await;
    let epoch = deposit["epoch"].as_u64().unwrap();
    eventually("the settled statement", async || {
        let status = env.json("status", &[]).await;
        let now = &status["organisations"][organisation.as_str()]["deposits"][0];
        (now["epoch"].as_u64() == Some(epoch + 1) && now["spent"] == statement["spent"])
            .then_some(())
    })
    .await;

    let credit = &env.json("status", &[]).await["credits"][0];
    let (token, provider) = (credit["token"].as_str().unwrap(), credit["provider"].to_string());
    let providers = format!("[{provider}]");
    cast(
        &env,
        &[
            "send",
            &contract,
            "claim(address,uint32[])",
            token,
            &providers,
            "--private-key",
            STRANGER,
        ],
    )
    .await;
    eventually("the claim", async || {
        let status = env.json("status", &[]).await;
        let left = status["credits"]
            .as_array()?
            .iter()
            .any(|left| left["provider"] == credit["provider"] && left["token"] == credit["token"]);
        (!left).then_some(())
    })
    .await;
    assert!(terminate(server).await.success());
    env.json("reconcile", &[]).await;
    env.json("verify", &[]).await;
}

/// A record of the organisation, whose new machine belongs to an owner that has a number.
fn more_work(organisation: &str) -> String {
    let payout = relayer::generate::payout_address("owner 1 of seed 1");
    format!(
        r#"{{"schema":"workload/1","source":"test","external_id":"1","organisation":"{organisation}","machine":"new","provider":"{payout}","kind":"render","started_at":"2026-11-20T07:00:00Z","ended_at":"2026-11-20T09:00:00Z","result":"completed","price":{{"currency":"USD","amount":"0.050000"}}}}"#
    ) + "\n"
}
