//! The bytecode that is deployed is the bytecode that forge tests.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::{
    io::Write,
    process::{Command, Stdio},
};

use contracts::{
    DepositHelper, Settlement,
    deploy::{DEPOSIT_HELPER_INPUT, SETTLEMENT_INPUT, VerificationInput},
};
use serde_json::Value;

/// Needs forge's output folder in `QUITTANCE_FORGE_OUT`, which scripts/test provides; cargo alone cannot make it.
#[test]
fn forge_and_the_bindings_compile_to_the_same_bytecode() {
    let Some(out) = std::env::var_os("QUITTANCE_FORGE_OUT") else {
        eprintln!("QUITTANCE_FORGE_OUT is not set: run scripts/test to compare with forge");
        return;
    };
    for (name, bytecode) in
        [("Settlement", &Settlement::BYTECODE), ("DepositHelper", &DepositHelper::BYTECODE)]
    {
        let path = std::path::Path::new(&out).join(format!("{name}.sol/{name}.json"));
        let artifact = std::fs::read_to_string(path).expect("forge's artifact");
        assert!(artifact.contains(&format!("\"{bytecode}\"")), "forge compiled another {name}");
    }
}

/// What the compiler makes of a verification input, as an explorer would ask it.
fn compiled(input: VerificationInput) -> String {
    let mut solc = Command::new("../scripts/solc")
        .arg("--standard-json")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("scripts/solc");
    solc.stdin.take().unwrap().write_all(input.standard_json.as_bytes()).unwrap();
    let output: Value =
        serde_json::from_slice(&solc.wait_with_output().unwrap().stdout).expect("JSON");
    let (file, name) = input.contract.split_once(':').unwrap();
    let object = &output["contracts"][file][name]["evm"]["bytecode"]["object"];
    format!("0x{}", object.as_str().expect("bytecode"))
}

#[test]
fn verification_inputs_compile_to_what_is_deployed() {
    assert_eq!(compiled(SETTLEMENT_INPUT), Settlement::BYTECODE.to_string());
    assert_eq!(compiled(DEPOSIT_HELPER_INPUT), DepositHelper::BYTECODE.to_string());
}
