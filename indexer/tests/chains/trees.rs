//! Goal: whatever the chain's head does, the ledger ends as if it had read the final branch once.
//! Method: random trees of blocks, among whose branches the head switches at random, down to the deepest reorg that is
//! followed; after each switch the ledger is compared with a replay of the branch.
//! What would break it: a fact that outlives its block, a block whose parent was not looked at, a journal that is not
//! rolled back.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use indexer::{Finality, Indexer, Settings, Turn};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::chain::{Server, Tree, assert_is, endpoints, ledger};

/// Depths that trees are grown to; most are shallow, as reorgs are.
const DEPTHS: [u64; 10] = [1, 1, 2, 2, 3, 4, 7, 16, 32, 64];

#[derive(Debug, Default)]
struct Counts {
    switches: AtomicU64,
    rollbacks: AtomicU64,
    deepest: AtomicU64,
    facts: AtomicU64,
}

#[test]
fn the_ledger_equals_a_replay_of_the_branch_that_won() {
    let is_deep = std::env::var_os("QUITTANCE_TEST_DEEP").is_some();
    let (trees, longest) = if is_deep { (50_000, 256) } else { (1_000, 64) };
    let began = Instant::now();
    let (next, counts) = (AtomicU64::new(0), Counts::default());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= trees {
                        break;
                    }
                    runtime.block_on(grow_and_follow(seed, longest, &counts));
                }
            });
        }
    });
    println!("{trees} trees in {:?}: {counts:?}", began.elapsed());
    assert_eq!(counts.deepest.into_inner(), longest, "no reorg was as deep as is allowed");
    assert!(counts.rollbacks.into_inner() > trees, "too few reorgs");
}

async fn grow_and_follow(seed: u64, longest: u64, counts: &Counts) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let depth = DEPTHS[rng.random_range(0..DEPTHS.len())] * longest / 64;
    let depth = depth.max(1);
    let mut tree = Tree::new();
    let mut head = tree.grow_by(0, depth + 3, &mut rng);
    let (_folder, ledger) = ledger(tree.nodes[0].hash).await;
    let tree = Arc::new(Mutex::new(tree));
    let server = Server::new(&tree, head, None);
    server.lock().serves_receipts = rng.random();
    let settings = Settings { max_reorg_depth: depth, ..Settings::default() };
    let endpoints = endpoints(&[("one", &server)], Finality::Depth(depth)).with_settings(settings);
    let mut indexer = Indexer::new(endpoints, ledger.clone()).await.unwrap();
    let mut top = 0;
    follow(&mut indexer, seed, &mut top).await;
    for _ in 0..rng.random_range(3..8) {
        let snapshot = {
            let mut tree = tree.lock().unwrap();
            let top = tree.number(head);
            let undone = if rng.random_bool(0.3) { depth } else { rng.random_range(0..=depth) };
            // Some heads come from a branch that lies abandoned since.
            let fork = tree.at(head, top - undone).unwrap();
            head = tree.grow_by(fork, undone + rng.random_range(0..3), &mut rng);
            counts.switches.fetch_add(1, Ordering::Relaxed);
            tree.clone()
        };
        server.lock().head = head;
        let rolled = follow(&mut indexer, seed, &mut top).await;
        if let Some(depth) = rolled {
            counts.rollbacks.fetch_add(1, Ordering::Relaxed);
            counts.deepest.fetch_max(depth, Ordering::Relaxed);
        }
        assert_is(&ledger, &snapshot, head).await;
        let facts: usize = snapshot.replay(head).iter().map(|block| block.facts.len()).sum();
        counts.facts.fetch_add(facts as u64, Ordering::Relaxed);
    }
    ledger.close().await;
}

/// Takes turns until nothing is left to do. Returns how deep it rolled back, from the `top` that it keeps.
async fn follow(indexer: &mut Indexer, seed: u64, top: &mut u64) -> Option<u64> {
    let mut deepest = None;
    for _ in 0..1_000 {
        match indexer.turn().await.unwrap_or_else(|error| panic!("seed {seed}: {error}")) {
            Turn::Idle => return deepest,
            Turn::Advanced(block) => *top = block,
            Turn::RolledBack(fork) => {
                deepest = deepest.max(Some(*top - fork));
                *top = fork;
            }
        }
    }
    panic!("seed {seed}: the head is never reached");
}
