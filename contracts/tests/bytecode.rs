//! The bytecode that is deployed is the bytecode that forge tests.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use contracts::Settlement;

/// Needs forge's output folder in `QUITTANCE_FORGE_OUT`, which scripts/test provides; cargo alone cannot make it.
#[test]
fn forge_and_the_bindings_compile_to_the_same_bytecode() {
    let Some(out) = std::env::var_os("QUITTANCE_FORGE_OUT") else {
        eprintln!("QUITTANCE_FORGE_OUT is not set: run scripts/test to compare with forge");
        return;
    };
    let path = std::path::Path::new(&out).join("Settlement.sol/Settlement.json");
    let artifact = std::fs::read_to_string(path).expect("forge's artifact");
    let bytecode = format!("\"{}\"", Settlement::BYTECODE);
    assert!(artifact.contains(&bytecode), "forge compiled something else");
}
