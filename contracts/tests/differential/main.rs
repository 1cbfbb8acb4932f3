//! The contract against a plain model of it: seeded sequences of calls go to both, and answers, logs, state, journal and
//! digests must agree.
//!
//! `QUITTANCE_TEST_DEEP=1` runs twenty times as many sequences. `QUITTANCE_FUZZ_SEED=<n>` runs one; a failure names it.
//! `QUITTANCE_SETTLEMENT=<artifact>` puts another contract in place of the bindings' one, a broken one for instance.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::too_many_lines,
    reason = "tests fail by panicking and tell how"
)]

mod calls;
mod chain;
mod model;
mod world;

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use world::World;

/// Batches of statements in one world.
const BATCHES: u64 = 100;
const FAST_WORLDS: u64 = 100;
const DEEP_WORLDS: u64 = 2000;

/// Seeds that found something once, in the contract, the model or the bindings.
const REGRESSIONS: [u64; 0] = [];

/// What every run must come across, so that agreement means something.
const EXPECTED: [&str; 33] = [
    "batches with 0 settled",
    "batches with 1 settled",
    "batches with 2 settled",
    "skipped 1",
    "skipped 2",
    "skipped 3",
    "skipped 4",
    "skipped 5",
    "skipped 6",
    "event Deposited",
    "event Thawed",
    "event Withdrawn",
    "event Registered",
    "event Claimed",
    "event ClaimFailed",
    "event PayoutSet",
    "event Settled",
    "event TokenRegistered",
    "error BadDestination",
    "error CreditOverflow",
    "error DepositTooLarge",
    "error IncompleteKey",
    "error NotAToken",
    "error NotPayout",
    "error NotRequestor",
    "error NothingThawing",
    "error NothingToClaim",
    "error SignatureExpired",
    "error StillThawing",
    "error ThawExceedsBalance",
    "error TooManyProviders",
    "error UnknownProvider",
    "error ZeroUnits",
];

type Seen = BTreeMap<String, u64>;

/// Runs one world; `None` if contract and model disagreed, after the panic's message.
fn run(seed: u64) -> Option<Seen> {
    let world = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(seed);
        for _ in 0..BATCHES {
            world.step();
        }
        world.finish();
        world
    }));
    world.ok().map(|world| world.seen)
}

/// Runs worlds on all cores, until one fails.
fn run_all(seeds: &[u64]) -> Seen {
    let next = AtomicUsize::new(0);
    let seen = Mutex::new(Seen::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        while let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
            let Some(of_one) = run(seed) else {
                next.store(seeds.len(), Ordering::Relaxed);
                return Some(seed);
            };
            let mut seen = seen.lock().expect("no thread panicked");
            for (what, count) in of_one {
                *seen.entry(what).or_default() += count;
            }
        }
        None
    };
    let failed: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().filter_map(|thread| thread.join().expect("caught")).collect()
    });
    assert!(
        failed.is_empty(),
        "contract and model disagree; QUITTANCE_FUZZ_SEED runs {failed:?} again"
    );
    seen.into_inner().expect("no thread panicked")
}

#[test]
fn the_contract_does_what_its_model_does() {
    if let Ok(seed) = std::env::var("QUITTANCE_FUZZ_SEED") {
        eprintln!("{:#?}", run_all(&[seed.parse().expect("a number")]));
        return;
    }
    let deep = std::env::var_os("QUITTANCE_TEST_DEEP").is_some();
    let worlds = if deep { DEEP_WORLDS } else { FAST_WORLDS };
    let seeds: Vec<_> = REGRESSIONS.into_iter().chain(0..worlds).collect();
    let seen = run_all(&seeds);
    eprintln!("{} batches: {seen:#?}", worlds * BATCHES);
    for what in EXPECTED {
        assert!(seen.contains_key(what), "no world came across: {what}");
    }
}
