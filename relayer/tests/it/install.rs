//! `init` and `deploy` on a fresh chain.

use std::{
    path::Path,
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use alloy::{
    primitives::{Address, B256},
    providers::Provider,
};
use ledger::{Ledger, read::Reader};
use serde_json::{Value, json};

use crate::{
    env::{Env, assert_success, quittance, rpc},
    proxy::{BREAK, proxy, refusal},
};

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Returns what it prints.
async fn init(env: &Env) -> String {
    let payout = Address::repeat_byte(0x77).to_string();
    let output =
        env.run("init", &["--rpc-url", &env.anvil.url, "--operator-payout", &payout]).await;
    assert_success(&output);
    String::from_utf8(output.stdout).unwrap()
}

/// The value that `init` printed beside `name`.
fn told_by_init<'a>(told: &'a str, name: &str) -> &'a str {
    let mut words = told.split_whitespace().skip_while(|word| *word != name);
    words.nth(1).unwrap()
}

#[tokio::test]
async fn deploy_refuses_a_sender_without_gas_money() {
    let env = Env::new().await;
    init(&env).await;
    let output = env.run("deploy", &[]).await;
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("send it some first"));
}

#[tokio::test]
async fn deploy_puts_both_contracts_on_the_chain_once_and_writes_what_verifies_them() {
    let env = Env::new().await;
    let told = init(&env).await;
    let chain = env.provider();
    let config = env.config();
    let sender = told_by_init(&told, "sender");
    rpc(&chain, "anvil_setBalance", &format!("[\"{sender}\", \"0xde0b6b3a7640000\"]")).await;

    let early = env.run("serve", &[]).await;
    assert_eq!(early.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&early.stderr).contains("run quittance deploy first"));

    let first = env.run("deploy", &[]).await;
    assert_success(&first);
    let listed = read(&env.dir().join("verification/contracts.json"));
    assert_eq!(listed["chain_id"], config.chain.id);
    for contract in listed["contracts"].as_array().unwrap() {
        let address: Address = contract["address"].as_str().unwrap().parse().unwrap();
        assert!(!chain.get_code_at(address).await.unwrap().is_empty(), "{contract}");
        let input = contract["standard_input"].as_str().unwrap();
        let (file, _) = contract["contract"].as_str().unwrap().split_once(':').unwrap();
        let input = read(&env.dir().join("verification").join(input));
        assert!(input["sources"][file]["content"].is_string(), "{contract}");
        assert!(contract["compiler"].as_str().unwrap().starts_with("0.8.37+commit."), "{contract}");
    }
    assert_eq!(listed["contracts"][0]["address"], config.chain.contract.to_string());

    let again = env.run("deploy", &[]).await;
    assert_success(&again);
    let told = String::from_utf8_lossy(&again.stdout);
    assert!(told.contains("found the contract") && told.contains("found the deposit helper"));
}

/// Goal: a deployment that breaks off tells no key, and may be repeated as it is documented.
/// Method: the connection breaks after the first transaction was sent, so that the process ends; then it goes on.
/// What would break it: accounting for transactions only when all went well; an error printed as it came.
#[tokio::test]
async fn a_deployment_that_breaks_off_tells_no_key_and_leaves_the_sender_free() {
    let env = Env::new().await;
    let told = init(&env).await;
    let sender: Address = told_by_init(&told, "sender").parse().unwrap();
    let params = format!("[\"{sender}\", \"0xde0b6b3a7640000\"]");
    rpc(&env.provider(), "anvil_setBalance", &params).await;
    let is_broken = Arc::new(AtomicBool::new(false));
    let broken = is_broken.clone();
    let url = proxy(&env.anvil.url, move |request| {
        let is_sent = request["method"] == "eth_sendRawTransaction";
        let was_broken = broken.fetch_or(is_sent, Ordering::Relaxed);
        was_broken.then_some(BREAK)
    });
    let mut config = env.config();
    let direct = config.chain.rpc_url.clone();
    config.chain.rpc_url = Some(format!("{}/v2/API-KEY", url.await));
    config.write().unwrap();
    let output = env.run("deploy", &[]).await;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(!text.contains("API-KEY"), "{text}");
    assert!(is_broken.load(Ordering::Relaxed));

    config.chain.rpc_url = direct;
    config.write().unwrap();
    assert_success(&env.run("deploy", &[]).await);
    let path = config.path(&config.files.database);
    let reader = Reader::new(Ledger::open_read_only(&path).await.unwrap());
    let sent = env.provider().get_transaction_count(sender).await.unwrap();
    assert_eq!(reader.memory(sender).await.unwrap().next(), sent, "serve would be frozen");
}

/// What would break it: taking a variable that is set to nothing, as by a script whose secret is missing, for a password.
#[tokio::test]
async fn an_empty_password_encrypts_and_opens_nothing() {
    let env = Env::new().await;
    let with_none = async |arguments: &[&str]| {
        let mut command = quittance(arguments);
        command.env("QUITTANCE_PASSWORD", "").arg("--dir").arg(env.dir());
        let output = command.output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let is_told =
            said.contains("QUITTANCE_PASSWORD is empty; set it to the password or unset it");
        assert!(output.status.code() == Some(3) && is_told, "{said}");
    };
    with_none(&["init", "--rpc-url", &env.anvil.url]).await;
    assert!(!env.dir().join("keys").exists());
    init(&env).await;
    with_none(&["deploy"]).await;
    std::fs::write(env.dir().join("keys/password"), "\n").unwrap();
    let output = env.run("deploy", &[]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(3) && said.contains("keys/password: it is empty"),
        "{said}"
    );
}

/// What would break it: paying for a contract before it is known to be the one that the configuration names.
#[tokio::test]
async fn a_deployment_of_another_contract_than_the_configured_one_sends_nothing() {
    let env = Env::new().await;
    let told = init(&env).await;
    let sender: Address = told_by_init(&told, "sender").parse().unwrap();
    let params = format!("[\"{sender}\", \"0xde0b6b3a7640000\"]");
    rpc(&env.provider(), "anvil_setBalance", &params).await;
    let mut config = env.config();
    config.chain.contract = Address::repeat_byte(0x33);
    config.write().unwrap();
    let output = env.run("deploy", &[]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(3) && said.contains("chain.contract is"), "{said}");
    assert_eq!(env.provider().get_transaction_count(sender).await.unwrap(), 0);
    assert!(!config.path(&config.files.database).exists());
}

/// A key in an endpoint's address, as providers put it there. Nothing may print it.
const KEY: &str = "canary-endpoint-key-5d7f1c";

/// An endpoint before the chain that refuses one kind of request, and repeats its own address in it.
async fn indiscreet(env: &Env, method: &'static str) -> String {
    let rule = move |request: &Value| {
        (request["method"] == method).then(|| refusal(&format!("no plan for /v2/{KEY}")))
    };
    format!("{}/v2/{KEY}", proxy(&env.anvil.url, rule).await)
}

/// That a command fails at its endpoint and prints the refusal without the key.
fn assert_hides_the_key(output: &Output, method: &str) {
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    let text = text.join("\n");
    assert_eq!(output.status.code(), Some(4), "{method}: {text}");
    assert!(text.contains("no plan for") && !text.contains(KEY), "{method}: {text}");
}

#[tokio::test]
async fn an_endpoint_that_repeats_its_address_makes_init_and_deploy_print_no_key() {
    let env = Env::new().await;
    for method in ["eth_chainId", "eth_getBlockByNumber", "eth_blockNumber", "eth_getCode"] {
        let url = indiscreet(&env, method).await;
        assert_hides_the_key(&env.run("init", &["--rpc-url", &url]).await, method);
    }
    let told = init(&env).await;
    let params = format!("[\"{}\", \"0xde0b6b3a7640000\"]", told_by_init(&told, "sender"));
    rpc(&env.provider(), "anvil_setBalance", &params).await;
    let mut config = env.config();
    for method in [
        "eth_chainId",
        "eth_getBalance",
        "eth_getTransactionCount",
        "eth_getCode",
        "eth_estimateGas",
        "eth_sendRawTransaction",
    ] {
        config.chain.rpc_url = Some(indiscreet(&env, method).await);
        config.write().unwrap();
        assert_hides_the_key(&env.run("deploy", &[]).await, method);
    }
}

/// Goal: what another chain says of the sender is never taken for what this one does.
/// What would break it: asking for the chain's id only when a transaction is signed.
#[tokio::test]
async fn a_deployment_through_an_endpoint_of_another_chain_accounts_for_nothing() {
    let env = Env::new().await;
    let told = init(&env).await;
    let sender: Address = told_by_init(&told, "sender").parse().unwrap();
    let params = format!("[\"{sender}\", \"0xde0b6b3a7640000\"]");
    rpc(&env.provider(), "anvil_setBalance", &params).await;
    let other = proxy(&env.anvil.url, |request| {
        (request["method"] == "eth_chainId").then(|| json!({ "result": "0x1" }))
    });
    let mut config = env.config();
    config.chain.rpc_url = Some(other.await);
    config.write().unwrap();
    let output = env.run("deploy", &[]).await;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{text}");
    let path = config.path(&config.files.database);
    let reader = Reader::new(Ledger::open_read_only(&path).await.unwrap());
    assert_eq!(reader.memory(sender).await.unwrap().next(), 0, "{text}");
    assert!(text.contains("chain 1"), "{text}");
}

/// Goal: an installation names its chain by block 0, whatever the endpoint that it was made with has kept.
/// Method: an endpoint that dropped its oldest blocks, as geth with pruned history, then one that does not tell block 0.
/// What would break it: taking what an endpoint calls its earliest block for the first one of the chain.
#[tokio::test]
async fn init_names_the_chain_by_block_0_or_not_at_all() {
    let env = Env::new().await;
    let chain = env.provider();
    rpc(&chain, "evm_mine", "[]").await;
    let [first, second] = ["[\"0x0\", false]", "[\"0x1\", false]"]
        .map(async |params| rpc(&chain, "eth_getBlockByNumber", params).await);
    let (first, second) = (first.await, second.await);
    let asks = |request: &Value, block: &str| {
        request["method"] == "eth_getBlockByNumber" && request["params"][0] == block
    };
    let without_first = proxy(&env.anvil.url, move |request| {
        let is_first = asks(request, "earliest") || asks(request, "0x0");
        is_first.then(|| json!({ "result": null }))
    })
    .await;
    let refused = env.run("init", &["--rpc-url", &without_first]).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("block 0"), "{said}");
    assert!(!env.dir().join("quittance.toml").exists());

    let pruned = proxy(&env.anvil.url, move |request| {
        asks(request, "earliest").then(|| json!({ "result": second }))
    })
    .await;
    assert_success(&env.run("init", &["--rpc-url", &pruned]).await);
    assert_eq!(json!(env.config().chain.genesis), first["hash"]);
}

/// What would break it: an installation whose fees go to nobody, or that no command reads.
#[tokio::test]
async fn init_refuses_a_payout_address_that_nobody_can_be_paid_at() {
    let env = Env::new().await;
    let good = "0x90F79bf6EB2c4f870365E785982E1f101E93b906";
    let not_whole = "is not an address: 0x and 40 hex digits, checksum intact, not zero";
    for (bad, code, reason) in [
        (good.replace("90F7", "90f7"), 2, not_whole),
        (good.replace("90F7", "91F7"), 2, not_whole),
        (Address::ZERO.to_string(), 2, not_whole),
        (
            contracts::deploy::address_of(contracts::deploy::THAW_PERIOD, B256::ZERO).to_string(),
            3,
            "policy.operator_payout is the contract itself, which cannot be paid",
        ),
    ] {
        let arguments = ["--rpc-url", &env.anvil.url, "--operator-payout", &bad];
        let output = env.run("init", &arguments).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(reason), "{said}");
        assert!(code != 2 || said.contains(&bad) && said.contains("--operator-payout"), "{said}");
        assert!(!env.dir().exists(), "{bad}");
    }
}
