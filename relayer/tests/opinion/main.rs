//! The second opinion against the product's own rules, and against planted faults.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod faults;
mod world;

use relayer::opinion::judge;

use crate::world::World;

/// How many random worlds are judged.
fn seeds() -> u64 {
    if std::env::var_os("QUITTANCE_TEST_DEEP").is_some() { 20_000 } else { 80 }
}

#[test]
fn agrees_with_the_rules_to_the_base_unit_on_random_worlds() {
    let (mut statements, mut paid, mut open, mut carried) = (0, 0, 0, 0);
    for seed in 0..seeds() {
        let world = World::run(seed);
        let opinion = judge(&world.case);
        assert!(opinion.differences.is_empty(), "seed {seed}: {}", opinion.text());
        statements += opinion.statements;
        paid += opinion.paid;
        open += opinion.open.len();
        carried += opinion.totals.values().filter(|total| !total.carried.is_zero()).count();
        assert_eq!(opinion.statements, world.case.manifests.len() as u64, "seed {seed}");
        assert_eq!(opinion.workloads, world.items() as u64, "seed {seed}");
        assert_eq!(opinion.open.len(), world.unpaid(), "seed {seed}: {}", opinion.text());
    }
    assert!(statements > 2 * seeds() && paid > 20 * seeds() && open > 0 && carried > 0);
}
