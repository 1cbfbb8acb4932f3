//! The demo as a person or a script runs it.

use std::process::Stdio;

use alloy::{
    eips::BlockNumberOrTag,
    primitives::Address,
    providers::{Provider, ProviderBuilder},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

use crate::env::{PATIENCE, assert_success, eventually, quittance};

const SMALL: [&str; 5] = ["demo", "--json", "--machines", "60", "--days=3"];

#[tokio::test]
async fn two_runs_on_the_same_input_end_in_the_same_figures() {
    let first = quittance(&SMALL).output().await.unwrap();
    let second = quittance(&SMALL).output().await.unwrap();
    assert_success(&first);
    assert!(!first.stdout.is_empty());
    assert_eq!(String::from_utf8_lossy(&first.stdout), String::from_utf8_lossy(&second.stdout));
    let other = quittance(&SMALL).args(["--seed", "2"]).output().await.unwrap();
    assert_ne!(first.stdout, other.stdout);
}

#[tokio::test]
async fn runs_on_the_users_own_files() {
    let folder = tempfile::tempdir().unwrap();
    let generated = quittance(&[
        "generate",
        "--format",
        "workloads",
        "--machines",
        "20",
        "--days",
        "2",
        "--out",
    ])
    .arg(folder.path())
    .output()
    .await
    .unwrap();
    assert_success(&generated);
    let files = ["20261118.workloads.jsonl", "20261119.workloads.jsonl"]
        .map(|name| folder.path().join(name));
    let output = quittance(&["demo", "--json", "--input"]).args(files).output().await.unwrap();
    assert_success(&output);
    let figures: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(figures["rows"].as_u64().unwrap() > 0);
    assert_eq!(
        figures["files"][0][1]["outcomes"]["unaddressed"],
        serde_json::Value::Null,
        "every machine is addressed"
    );
}

#[tokio::test]
async fn a_file_that_is_no_input_is_refused_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = crate::env::write(&folder.path().join("20261120-20261121.json"), "{not json");
    let output = quittance(&["demo", "--exit", "--input"]).arg(path).output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(complaint.contains("20261120-20261121.json: it is not a JSON array"), "{complaint}");
}

#[tokio::test]
async fn ends_at_an_interrupt_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let mut child = quittance(&["demo", "--machines", "20"])
        .env("TMPDIR", temporary.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let url = loop {
        let line = lines.next_line().await.unwrap().unwrap();
        if let Some((_, url)) = line.split_once("started a local chain at ") {
            break url.to_owned();
        }
    };
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    while !output.next_line().await.unwrap().unwrap().contains("until Ctrl-C") {}

    Command::new("kill").args(["-INT", &child.id().unwrap().to_string()]).status().await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, child.wait()).await.expect("an end");
    assert!(ended.unwrap().success());
    let port = url.rsplit(':').next().unwrap().to_owned();
    eventually("the chain's end", async || {
        std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_err().then_some(())
    })
    .await;
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn the_chain_that_is_kept_knows_the_state_of_its_final_block() {
    let folder = tempfile::tempdir().unwrap();
    let small = ["demo", "--exit", "--machines", "20", "--keep"];
    let output = quittance(&small).arg(folder.path().join("kept")).output().await.unwrap();
    assert_success(&output);
    let told = String::from_utf8(output.stderr).unwrap();
    let line = told.lines().find(|line| line.contains("--load-state")).expect("a command");
    let words: Vec<_> = line.trim_end_matches('&').split_whitespace().collect();
    let [program, "--port", port, ..] = words[..] else { panic!("{line}") };
    let mut chain = Command::new(program);
    let _chain = chain.args(&words[1..]).kill_on_drop(true).spawn().unwrap();

    let url = format!("http://127.0.0.1:{port}").parse().unwrap();
    let provider = ProviderBuilder::new().connect_http(url);
    let finalised = eventually("a final block", async || {
        provider.get_block_by_number(BlockNumberOrTag::Finalized).await.ok().flatten()
    })
    .await;
    // The sender asks for it before each of its turns.
    let then = provider.get_transaction_count(Address::ZERO).number(finalised.header.number);
    assert_eq!(then.await.unwrap(), 0);
}

#[tokio::test]
async fn the_samples_in_the_documentation_are_what_generate_writes() {
    let samples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/samples");
    for format in ["earnings", "workloads"] {
        let folder = tempfile::tempdir().unwrap();
        let output = quittance(&[
            "generate",
            "--machines",
            "20",
            "--organisations",
            "4",
            "--format",
            format,
            "--out",
        ])
        .arg(folder.path())
        .output()
        .await
        .unwrap();
        assert_success(&output);
        for file in std::fs::read_dir(folder.path()).unwrap() {
            let file = file.unwrap();
            let sample = std::fs::read(samples.join(file.file_name())).unwrap();
            assert!(
                std::fs::read(file.path()).unwrap() == sample,
                "{:?} differs",
                file.file_name()
            );
        }
    }
}
