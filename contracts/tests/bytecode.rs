//! The bytecode that is deployed is the bytecode that forge tests.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use contracts::{DepositHelper, Settlement};

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
