//! What a build without the feature for tests must not hold. `scripts/test` makes that build, and asks for what is ignored
//! here: a feature that is on where nobody asked for it does not take the test away.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

#[cfg_attr(
    feature = "crash-points",
    ignore = "this build has the feature; `scripts/test` makes one without"
)]
#[test]
fn a_build_without_the_feature_knows_no_place_at_which_it_ends() {
    let program = std::fs::read(env!("CARGO_BIN_EXE_quittance")).unwrap();
    let holds = |needle: &str| program.windows(needle.len()).any(|part| part == needle.as_bytes());
    assert!(holds("QUITTANCE_PASSWORD"), "the search finds nothing at all");
    for variable in ["QUITTANCE_CRASH_AT", "QUITTANCE_CRASH_LOG", "QUITTANCE_PANIC_AT"] {
        assert!(!holds(variable), "{variable}");
    }
}
