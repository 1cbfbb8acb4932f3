//! Deterministic simulation: the real ledger, indexer and relayer over a simulated chain and network, with faults, crashes
//! between any two steps, and a judge who knows everything. A seed decides a run to the last bit.
//!
//! `QUITTANCE_SIM_SEED=<n>` runs one seed, `QUITTANCE_SIM_TRACE=1` prints what happens. `QUITTANCE_SIM_SEEDS=<n>` runs so
//! many, `QUITTANCE_TEST_DEEP=1` a hundred thousand.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "tests fail by panicking and tell how"
)]

mod actors;
mod chain;
mod compare;
mod evm;
mod faults;
mod judge;
mod marks;
mod net;
mod opinion;
mod process;
mod rpc;
mod setting;
mod trace;
mod witness;
mod world;

use std::{
    collections::BTreeMap,
    io::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use trace::{Counts, Marks};
use world::World;

/// Steps of the fault phase.
const STEPS: u64 = 500;
/// What `scripts/test` runs. So many seeds have to reach every branch.
const FAST_SEEDS: u64 = 2_000;
const DEEP_SEEDS: u64 = 100_000;
/// How often a run says how far it is.
const TOLD_SEEDS: usize = 100;

/// Seeds that found a mistake, and which.
const REGRESSIONS: &[(u64, &str)] = &[
    (7, "a range of logs from a node that fell behind meanwhile stopped the indexer for good"),
    (25, "work corrected downwards after payment was unsound once its statement was imported"),
    (400, "the judge did not net what was paid too much of work that is held, as the ledger does"),
    (1002, "a payout address named again after the clock had been ahead acted as late as before"),
    (
        1084,
        "a recovery that was interrupted behind a foreign transaction left a hole between slots",
    ),
    (
        1131,
        "what another candidate of its epoch had paid was added to what an imported revision came to",
    ),
];

/// What one run left behind.
#[derive(Debug)]
struct Outcome {
    seed: u64,
    hash: u64,
    counts: Counts,
    marks: Marks,
    verdict: Option<String>,
    tail: String,
    step: u64,
}

/// Runs one seed.
fn run(seed: u64) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut world = World::new(seed);
    let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(world.run(STEPS))));
    if ended.is_err() {
        world.fail("a panic, whose message stands above".into());
    }
    let step = world.step;
    let trace = std::mem::take(&mut world.net.outside().trace);
    ledger::point::observe(None);
    ledger::point::set_clock(None);
    // Connections close in the background.
    drop(runtime.enter());
    drop(world);
    Outcome {
        seed,
        hash: trace.hash(),
        counts: trace.counts,
        marks: trace.marks.clone(),
        tail: trace.tail(),
        verdict: trace.verdict,
        step,
    }
}

/// Sums over many runs, and the first that failed.
#[derive(Debug, Default)]
struct Sum {
    counts: Counts,
    marks: Marks,
    /// Hash of each seed's trace.
    hashes: BTreeMap<u64, u64>,
    failed: Vec<Outcome>,
}

/// Runs seeds on all cores, until some fail.
fn run_all(seeds: &[u64]) -> Sum {
    let next = AtomicUsize::new(0);
    let (sum, began) = (Mutex::new(Sum::default()), Instant::now());
    // One per core: of two on a core, each would take four tenths more of it, for whatever a core keeps at hand.
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = |worker| {
        stay_on_one_core(worker);
        while let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
            let outcome = run(seed);
            let mut sum = sum.lock().unwrap();
            sum.counts.add(&outcome.counts);
            sum.hashes.insert(seed, outcome.hash);
            for (mark, count) in &outcome.marks {
                *sum.marks.entry(mark.clone()).or_default() += count;
            }
            if let Some(verdict) = &outcome.verdict {
                eprintln!("seed {seed} fails at step {}: {verdict}", outcome.step);
                sum.failed.push(outcome);
                if sum.failed.len() >= failures_wanted() {
                    next.store(seeds.len(), Ordering::Relaxed);
                }
            }
            if sum.hashes.len() % TOLD_SEEDS == 0 {
                tell(&sum, seeds.len(), began);
            }
        }
    };
    std::thread::scope(|scope| {
        for worker in 0..threads {
            scope.spawn(move || work(worker));
        }
    });
    sum.into_inner().unwrap()
}

/// Keeps the calling thread, and SQLite's threads that it begins, on one core. A run hands over to them and back tens of
/// thousands of times, and a fifth of its time would go to waking another core.
#[cfg(target_os = "linux")]
fn stay_on_one_core(worker: usize) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let Ok(allowed) = sched_getaffinity(None) else { return };
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
    let mut one = CpuSet::new();
    one.set(cores[worker % cores.len()]);
    // Where it is not allowed, a run only takes longer.
    sched_setaffinity(None, &one).unwrap_or_default();
}

#[cfg(not(target_os = "linux"))]
const fn stay_on_one_core(_worker: usize) {}

/// Tells, past the harness that keeps what tests print, how far a long run is.
fn tell(sum: &Sum, all: usize, began: Instant) {
    let (done, failed) = (sum.hashes.len(), sum.failed.len());
    let line = format!("{done} of {all} seeds, {failed} failed, {:.0?}\n", began.elapsed());
    drop(std::io::stderr().write_all(line.as_bytes()));
}

/// Failing seeds to collect before the rest is given up.
fn failures_wanted() -> usize {
    variable("QUITTANCE_SIM_FAILURES").unwrap_or(1)
}

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

fn seeds() -> Vec<u64> {
    if let Some(seed) = variable("QUITTANCE_SIM_SEED") {
        return vec![seed];
    }
    let deep = std::env::var_os("QUITTANCE_TEST_DEEP").is_some();
    let count =
        variable("QUITTANCE_SIM_SEEDS").unwrap_or(if deep { DEEP_SEEDS } else { FAST_SEEDS });
    let from: u64 = variable("QUITTANCE_SIM_FROM").unwrap_or(0);
    (from..from + count).collect()
}

fn report(sum: &Sum) -> String {
    sum.failed.iter().map(report_one).collect()
}

fn report_one(outcome: &Outcome) -> String {
    let Outcome { seed, step, tail, .. } = outcome;
    let verdict = outcome.verdict.as_deref().unwrap_or_default();
    format!(
        "seed {seed} fails at step {step}: {verdict}\n{tail}  QUITTANCE_SIM_SEED={seed} runs it again\n"
    )
}

#[test]
fn no_fault_loses_or_doubles_a_base_unit() {
    let (seeds, began) = (seeds(), Instant::now());
    let sum = run_all(&seeds);
    let counts = sum.counts;
    for (mark, count) in &sum.marks {
        println!("{count:9}  {mark}");
    }
    println!(
        "{} seeds, {} steps, {} indexer turns, {} relayer turns, {} requests, {} crashes, {} reorgs, {} faults, \
         {} statements, {} payouts, {} claims in {:.1?}",
        counts.seeds,
        counts.steps,
        counts.indexer_turns,
        counts.relayer_turns,
        counts.requests,
        counts.crashes,
        counts.reorgs,
        counts.faults,
        counts.statements,
        counts.payouts,
        counts.claims,
        began.elapsed()
    );
    assert!(sum.failed.is_empty(), "{}", report(&sum));
    println!("base units lost 0, doubled 0");
    let missing = marks::missing(&sum.marks);
    println!("branches not reached: {missing:?}");
    let is_owed = |mark: &&String| marks::is_owed(mark, counts.seeds);
    let owed: Vec<_> = missing.iter().filter(is_owed).collect();
    assert!(owed.is_empty(), "branches that no run reached: {owed:?}");
}

#[test]
fn seeds_that_found_something_stay_mended() {
    for (seed, what) in REGRESSIONS {
        let outcome = run(*seed);
        assert!(outcome.verdict.is_none(), "{what}:\n{}", report_one(&outcome));
    }
}

#[test]
fn the_same_seed_leaves_the_same_trace() {
    let seeds: Vec<u64> = (0..16).collect();
    // Side by side, so that the pace of the machine differs from one time to the other.
    let (once, again) = (run_all(&seeds), run_all(&seeds));
    assert_eq!(once.hashes.len(), seeds.len(), "{}", report(&once));
    assert_eq!(once.hashes, again.hashes);
}
