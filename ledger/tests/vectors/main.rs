//! The golden vectors in `contracts/vectors`: this code makes them, Solidity and viem check them without it.
//!
//! `QUITTANCE_WRITE_VECTORS=1` writes the files; otherwise the committed ones must be what this code makes, and what they
//! list as refused must be refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::too_many_lines,
    reason = "tests fail by panicking; vectors are listed one by one"
)]

mod ids;
mod journal;
mod manifests;
mod messages;
mod rows;

use std::path::PathBuf;

use alloy::primitives::{Address, B256, address};
use serde_json::{Value, json};

/// Where the contract of most vectors is: any address will do.
const SETTLEMENT: Address = address!("5e77fe3e27000000000000000000000000000001");
const TOKEN: Address = address!("70ce000000000000000000000000000000000001");

fn path(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../contracts/vectors");
    folder.join(format!("{name}.json"))
}

/// Writes `made`, or compares it with the committed file.
fn write_or_compare(name: &str, made: &Value) {
    let text = serde_json::to_string_pretty(made).unwrap() + "\n";
    if std::env::var_os("QUITTANCE_WRITE_VECTORS").is_some() {
        std::fs::write(path(name), text).unwrap();
        return;
    }
    assert!(read(name) == *made, "{name}.json is not what this code makes; see vectors/README.md");
}

fn read(name: &str) -> Value {
    let text = std::fs::read_to_string(path(name)).expect("a committed file of vectors");
    serde_json::from_str(&text).expect("JSON")
}

fn private_key(n: u8) -> B256 {
    B256::repeat_byte(n)
}

fn key_json(key: &contracts::eip712::DepositKey) -> Value {
    json!({
        "requestor": key.requestor, "signer": key.signer, "cosigner": key.cosigner,
        "token": key.token, "salt": key.salt,
    })
}
