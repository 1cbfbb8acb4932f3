//! What a program that is built as users build it must not hold. `scripts/test` builds it, with nothing that only tests need,
//! and names it.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

#[test]
#[ignore = "`scripts/test` builds the program and names it in QUITTANCE_PLAIN_PROGRAM"]
fn a_build_without_the_feature_knows_no_place_at_which_it_ends() {
    let program = std::env::var_os("QUITTANCE_PLAIN_PROGRAM").unwrap();
    let program = std::fs::read(program).unwrap();
    let holds = |needle: &str| program.windows(needle.len()).any(|part| part == needle.as_bytes());
    assert!(holds("QUITTANCE_PASSWORD"), "the search finds nothing at all");
    for variable in ["QUITTANCE_CRASH_AT", "QUITTANCE_CRASH_LOG", "QUITTANCE_PANIC_AT"] {
        assert!(!holds(variable), "{variable}");
    }
}
