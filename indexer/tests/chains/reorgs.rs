//! Reorgs of every depth that is followed and one more, a halted chain, a final block that stands still or goes back.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use indexer::{Error, Finality, Indexer, Settings, Turn};
use ledger::{Ledger, chain::ChainWriter};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;

use crate::chain::{Server, Tree, assert_is, endpoints, ledger};

struct World {
    rng: ChaCha8Rng,
    tree: Arc<Mutex<Tree>>,
    head: usize,
    server: Server,
    ledger: Ledger,
    indexer: Indexer,
    _folder: TempDir,
}

impl World {
    async fn new(blocks: u64, finality: u64, settings: Settings) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(blocks);
        let mut tree = Tree::new();
        let head = tree.grow_by(0, blocks, &mut rng);
        let (folder, ledger) = ledger(tree.nodes[0].hash).await;
        let tree = Arc::new(Mutex::new(tree));
        let server = Server::new(&tree, head, None);
        let endpoints =
            endpoints(&[("one", &server)], Finality::Depth(finality)).with_settings(settings);
        let indexer = Indexer::new(endpoints, ledger.clone()).await.unwrap();
        Self { rng, tree, head, server, ledger, indexer, _folder: folder }
    }

    /// Replaces so many blocks by others, and adds so many.
    fn reorg(&mut self, depth: u64, more: u64) {
        let mut tree = self.tree.lock().unwrap();
        let fork = tree.at(self.head, tree.number(self.head) - depth).unwrap();
        self.head = tree.grow_by(fork, depth + more, &mut self.rng);
        self.server.lock().head = self.head;
    }

    async fn settle(&mut self) -> Result<Vec<Turn>, Error> {
        let mut turns = Vec::new();
        loop {
            match self.indexer.turn().await? {
                Turn::Idle => return Ok(turns),
                turn => turns.push(turn),
            }
        }
    }

    async fn assert_is_head(&self) {
        let tree = self.tree.lock().unwrap().clone();
        assert_is(&self.ledger, &tree, self.head).await;
    }
}

#[tokio::test]
async fn a_reorg_deeper_than_is_followed_stops_with_both_hashes() {
    let mut world = World::new(200, 100, Settings::default()).await;
    world.settle().await.unwrap();
    let before = world.head;
    world.reorg(65, 1);
    let error = world.settle().await.unwrap_err();
    let (ours, theirs) = {
        let tree = world.tree.lock().unwrap();
        let at = |head| tree.nodes[tree.at(head, 136).unwrap()].hash;
        (at(before), at(world.head))
    };
    let said = error.to_string();
    assert!(matches!(error, Error::ReorgTooDeep { max: 64, number: 136, .. }), "{said}");
    assert!(said.contains(&ours.to_string()) && said.contains(&theirs.to_string()), "{said}");
    assert!(!error.is_transient());
    // Nothing was undone.
    let checkpoint = ChainWriter::new(world.ledger.clone()).checkpoint().await.unwrap().unwrap();
    assert_eq!(checkpoint.number, 200);
}

#[tokio::test]
async fn a_final_block_that_is_replaced_stops_with_both_hashes() {
    let mut world = World::new(50, 5, Settings::default()).await;
    world.settle().await.unwrap();
    world.reorg(6, 0);
    let error = world.settle().await.unwrap_err();
    assert!(matches!(error, Error::FinalBlockChanged { number: 45, .. }), "{error}");
    assert!(!error.is_transient());
}

#[tokio::test]
async fn reorgs_up_to_the_limit_are_rolled_back_and_rebuilt() {
    for depth in [1, 2, 7, 32, 64] {
        let mut world = World::new(120, 64, Settings::default()).await;
        world.settle().await.unwrap();
        world.reorg(depth, 1);
        let turns = world.settle().await.unwrap();
        assert_eq!(turns[0], Turn::RolledBack(120 - depth), "{depth}");
        world.assert_is_head().await;
    }
}

#[tokio::test]
async fn a_shorter_branch_is_waited_out() {
    let mut world = World::new(60, 20, Settings::default()).await;
    world.settle().await.unwrap();
    let tip = world.head;
    let fork = world.tree.lock().unwrap().at(tip, 55).unwrap();
    world.server.lock().head = fork;
    assert_eq!(world.settle().await.unwrap(), []);
    world.server.lock().head = tip;
    assert_eq!(world.settle().await.unwrap(), []);
    world.assert_is_head().await;
}

#[tokio::test]
async fn a_halt_and_five_hundred_blocks_at_once_are_taken_in_stride() {
    let mut world = World::new(40, 10, Settings::default()).await;
    world.settle().await.unwrap();
    assert_eq!(world.settle().await.unwrap(), [], "a halted chain leaves nothing to do");
    world.reorg(3, 500);
    world.settle().await.unwrap();
    world.assert_is_head().await;
}

#[tokio::test]
async fn a_final_block_that_stands_still_is_an_alarm_and_is_never_passed() {
    let finality_alarm = Duration::from_secs(30);
    let settings = Settings { finality_alarm, ..Settings::default() };
    // Blocks are two seconds apart: the final block is 40 seconds behind the head.
    let mut world = World::new(60, 20, settings).await;
    world.settle().await.unwrap();
    let standing = world.indexer.standing().borrow().clone();
    assert!(standing.is_alarmed && standing.waiting[0].contains("stands at 40"), "{standing:?}");
    let finalised = ChainWriter::new(world.ledger.clone()).finalised().await.unwrap();
    assert_eq!(finalised, 40, "a stall does not weaken finality");

    let settings = Settings { finality_alarm: Duration::from_secs(41), ..settings };
    let mut world = World::new(60, 20, settings).await;
    world.settle().await.unwrap();
    assert!(!world.indexer.standing().borrow().is_alarmed);
    // The chain is seen shorter than it was.
    let fork = world.tree.lock().unwrap().at(world.head, 50).unwrap();
    world.server.lock().head = fork;
    world.settle().await.unwrap();
    let standing = world.indexer.standing().borrow().clone();
    assert!(standing.waiting[0].contains("went back from 40 to 30"), "{standing:?}");
}
