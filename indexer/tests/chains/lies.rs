//! Endpoints that lie, fail and trail: nothing untrue becomes final, the liar is named, and another endpoint repairs it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use alloy::providers::Provider;
use indexer::{Endpoints, Error, Finality, HeaderHash, Indexer, Settings, State, Turn, chain_of};
use ledger::{Ledger, chain::ChainWriter};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::chain::{Lie, Server, Tree, assert_is, endpoints, ledger};

pub(crate) const FINALITY: u64 = 10;
pub(crate) const BLOCKS: u64 = 60;
/// A block that is read below finality, in a range.
pub(crate) const OLD: u64 = 20;
/// A block that is followed before it is final.
const NEW: u64 = 56;

pub(crate) struct World {
    rng: ChaCha8Rng,
    pub(crate) tree: Arc<Mutex<Tree>>,
    pub(crate) head: usize,
    pub(crate) servers: Vec<Server>,
    pub(crate) endpoints: Endpoints,
    pub(crate) ledger: Ledger,
    folder: TempDir,
}

impl World {
    /// Three operators, of which some lie. The blocks that are lied about have three events each.
    pub(crate) async fn new(lies: [Option<Lie>; 3]) -> Self {
        Self::of(&lies).await
    }

    pub(crate) async fn of(lies: &[Option<Lie>]) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut tree = Tree::new();
        let mut head = 0;
        for number in 1..=BLOCKS {
            let events =
                if [OLD, NEW].contains(&number) { 3 } else { usize::from(number % 3 == 0) };
            head = tree.grow(head, events, &mut rng);
        }
        let (folder, ledger) = ledger(tree.nodes[0].hash).await;
        let tree = Arc::new(Mutex::new(tree));
        let servers: Vec<_> = lies.iter().map(|lie| Server::new(&tree, head, *lie)).collect();
        let named: Vec<_> = ["anna", "bert", "cleo"].into_iter().zip(&servers).collect();
        let endpoints = endpoints(&named, Finality::Depth(FINALITY));
        Self { rng, tree, head, servers, endpoints, ledger, folder }
    }

    pub(crate) async fn indexer(&self) -> Indexer {
        Indexer::new(self.endpoints.clone(), self.ledger.clone()).await.unwrap()
    }

    /// Adds blocks, so that what is followed becomes final.
    pub(crate) fn grow(&mut self, blocks: u64) {
        let mut tree = self.tree.lock().unwrap();
        self.head = tree.grow_by(self.head, blocks, &mut self.rng);
        for server in &self.servers {
            server.lock().head = self.head;
        }
    }

    /// Adds a block that puts money into so many other deposits.
    pub(crate) fn grow_deposits(&mut self, deposits: u8) {
        self.head = self.tree.lock().unwrap().grow_deposits(self.head, deposits);
    }

    pub(crate) async fn assert_is_head(&self) {
        let tree = self.tree.lock().unwrap().clone();
        assert_is(&self.ledger, &tree, self.head).await;
    }

    /// That nothing final is untrue, and that the lie's block is not final.
    async fn assert_is_true_below(&self, block: u64) {
        let finalised = ChainWriter::new(self.ledger.clone()).finalised().await.unwrap();
        assert!(finalised < block, "block {block} became final");
        let mut truth = self.tree.lock().unwrap().replay(self.head);
        truth.retain(|indexed| indexed.block.number <= finalised);
        assert_eq!(ledger::verify::facts(&self.ledger, &truth, finalised).await.unwrap(), []);
    }

    pub(crate) fn states(&self) -> Vec<State> {
        self.endpoints.report().into_iter().map(|report| report.state).collect()
    }

    pub(crate) fn reason(&self, operator: usize) -> String {
        self.endpoints.report()[operator].reason.clone().unwrap_or_default()
    }
}

/// Turns until nothing is to be done, or until `errors` of them failed. Returns the last failure.
pub(crate) async fn settle(indexer: &mut Indexer, errors: u32) -> Option<Error> {
    let mut failures = 0;
    for _ in 0..500 {
        match indexer.turn().await {
            Ok(Turn::Idle) => return None,
            Ok(_) => {}
            Err(error) => {
                assert!(error.is_transient(), "{}", chain_of(&error));
                failures += 1;
                if failures == errors {
                    return Some(error);
                }
            }
        }
    }
    panic!("no end of turns");
}

/// Lies about a block, and how each is named.
fn lies_about(block: u64) -> [(Lie, &'static str); 5] {
    [
        (Lie::Omits(block), "1 of 3 logs omitted"),
        (Lie::OmitsAll(block), "all logs omitted (3)"),
        (Lie::Invents(block), "1 logs invented"),
        (Lie::Reorders(block), "logs reordered"),
        (Lie::Alters(block), "1 logs altered"),
    ]
}

#[tokio::test]
async fn a_lie_about_logs_is_found_named_and_repaired_from_another_endpoint() {
    // Of a block that is not final, a lie is stored only where one operator is enough.
    for (block, agreement) in [(OLD, None), (NEW, Some(1))] {
        for (lie, name) in lies_about(block) {
            let mut world = World::new([Some(lie), None, None]).await;
            let settings = Settings { agreement, ..Settings::default() };
            world.endpoints = world.endpoints.with_settings(settings);
            let mut indexer = world.indexer().await;
            settle(&mut indexer, 5).await;
            world.grow(FINALITY);
            assert!(settle(&mut indexer, 5).await.is_none(), "{lie:?}");
            world.assert_is_head().await;
            assert_eq!(world.states(), [State::Lying, State::Ok, State::Ok], "{lie:?}");
            let reason = world.reason(0);
            assert!(
                reason.contains(name) && reason.contains(&format!("of block {block}")),
                "{lie:?}: {reason}"
            );
            let finalised = ChainWriter::new(world.ledger.clone()).finalised().await.unwrap();
            assert_eq!(finalised, BLOCKS, "{lie:?}");
        }
    }
}

#[tokio::test]
async fn two_liars_of_three_make_the_indexer_stand_still() {
    for block in [OLD, NEW] {
        for (lie, _) in lies_about(block) {
            let mut world = World::new([Some(lie), Some(lie), None]).await;
            let mut indexer = world.indexer().await;
            settle(&mut indexer, 5).await;
            world.grow(FINALITY);
            let error = settle(&mut indexer, 5).await;
            // Both are caught, and one honest operator is fewer than have to agree.
            assert_eq!(world.states()[..2], [State::Lying, State::Lying], "{lie:?}");
            assert!(
                matches!(error, Some(Error::NoAgreement { needed: 2, .. })),
                "{lie:?}: {error:?}"
            );
            let waiting = indexer.standing().borrow().waiting.join("\n");
            assert!(
                waiting.contains("anna is LYING") && waiting.contains("bert is LYING"),
                "{waiting}"
            );
        }
    }
}

#[tokio::test]
async fn where_nobody_tells_the_truth_nothing_untrue_becomes_final_and_nobody_is_blamed() {
    for (lie, _) in lies_about(OLD).into_iter().chain(lies_about(NEW)) {
        let mut world = World::new([Some(lie); 3]).await;
        let mut indexer = world.indexer().await;
        settle(&mut indexer, 5).await;
        world.grow(FINALITY);
        let error = settle(&mut indexer, 5).await;
        let is_told = matches!(error, Some(Error::Incomplete { block: OLD | NEW, .. }));
        assert!(is_told, "{lie:?}: {error:?}");
        world
            .assert_is_true_below(if matches!(error, Some(Error::Incomplete { block: OLD, .. })) {
                OLD
            } else {
                NEW
            })
            .await;
        assert!(!world.states().contains(&State::Lying), "{lie:?}");
        // One of them comes to its senses.
        world.servers[2].lock().lie = None;
        settle(&mut indexer, 5).await;
        let finalised = ChainWriter::new(world.ledger.clone()).finalised().await.unwrap();
        assert!(finalised >= NEW || world.states().contains(&State::Lying), "{lie:?}");
    }
}

#[tokio::test]
async fn one_endpoint_alone_is_not_believed_and_is_believed_again_when_it_tells_the_truth() {
    for lie in [Lie::Omits(OLD), Lie::Invents(NEW)] {
        let mut world = World::of(&[Some(lie)]).await;
        let mut indexer = world.indexer().await;
        settle(&mut indexer, 3).await;
        world.grow(FINALITY);
        assert!(matches!(settle(&mut indexer, 3).await, Some(Error::Incomplete { .. })), "{lie:?}");
        world.servers[0].lock().lie = None;
        assert!(settle(&mut indexer, 5).await.is_none());
        world.assert_is_head().await;
    }
}

#[tokio::test]
async fn what_was_stored_without_a_proof_is_repaired_once_the_journal_is_served() {
    for lie in [Lie::OmitsAll(OLD), Lie::Omits(OLD), Lie::Alters(OLD)] {
        let mut world = World::of(&[Some(lie)]).await;
        let mut indexer = world.indexer().await;
        world.servers[0].lock().lacks_state = true;
        assert!(settle(&mut indexer, 1).await.is_some(), "no journal, nothing final");
        world.assert_is_true_below(OLD).await;
        {
            let mut server = world.servers[0].lock();
            (server.lie, server.lacks_state) = (None, false);
        }
        // The next range ends in a block whose journal tells that something below it is untrue.
        world.grow(5);
        assert!(settle(&mut indexer, 1).await.is_none(), "{lie:?}");
        world.assert_is_head().await;
    }
}

/// Blocks whose state a node keeps that is no archive.
const KEPT: u64 = 20;
/// More blocks than are read in one range.
const LONG: u64 = 2_500;

impl World {
    /// A long chain, whose endpoints keep the state of the newest blocks only: nothing proves what is old.
    async fn pruned(lies: &[Option<Lie>]) -> Self {
        let mut world = Self::of(lies).await;
        world.grow(LONG);
        for server in &world.servers {
            server.lock().keeps_state_of = Some(KEPT);
        }
        world
    }

    /// A block with events that is read in the last range.
    fn late(&self) -> u64 {
        let tree = self.tree.lock().unwrap();
        let has_events = |number: &u64| {
            tree.at(self.head, *number).is_some_and(|node| !tree.logs(node).is_empty())
        };
        (LONG - 300..LONG).find(has_events).unwrap()
    }
}

#[tokio::test]
async fn a_log_left_out_where_nobody_keeps_the_state_is_told_by_what_the_others_serve() {
    for lie in [Lie::Omits(OLD), Lie::OmitsAll(OLD), Lie::OmitsFromRanges(OLD)] {
        let world = World::pruned(&[Some(lie), None, None]).await;
        let mut indexer = world.indexer().await;
        assert!(settle(&mut indexer, 5).await.is_none(), "{lie:?}");
        world.assert_is_head().await;
    }
}

#[tokio::test]
async fn a_log_left_out_by_one_endpoint_alone_is_indexed_again_once_it_is_served() {
    let late = World::pruned(&[None]).await.late();
    for (lie, block) in
        [(Lie::OmitsFromRanges(OLD), OLD), (Lie::Alters(OLD), OLD), (Lie::OmitsAll(late), late)]
    {
        let world = World::pruned(&[Some(lie)]).await;
        let mut indexer = world.indexer().await;
        let error = settle(&mut indexer, 3).await;
        assert!(error.is_some(), "{lie:?}");
        world.assert_is_true_below(block).await;
        world.servers[0].lock().lie = None;
        assert!(settle(&mut indexer, 5).await.is_none(), "{lie:?}");
        world.assert_is_head().await;
    }
}

#[tokio::test]
async fn a_log_left_out_for_a_moment_costs_nothing_that_is_stored() {
    let world = World::pruned(&[None]).await;
    world.servers[0].lock().lie = Some(Lie::OmitsFromRanges(world.late()));
    let mut indexer = world.indexer().await;
    assert!(settle(&mut indexer, 1).await.is_some());
    world.servers[0].lock().lie = None;
    let writer = ChainWriter::new(world.ledger.clone());
    let stored = writer.checkpoint().await.unwrap().unwrap().number;
    assert!(stored > OLD, "{stored}");
    assert!(settle(&mut indexer, 1).await.is_none());
    world.assert_is_head().await;
}

#[tokio::test]
async fn an_endpoint_that_serves_narrow_ranges_only_does_not_slow_two_others_that_agree() {
    let world = World::pruned(&[None, None, Some(Lie::RefusesRangesAbove(10))]).await;
    let mut indexer = world.indexer().await;
    let mut turns = 0;
    while indexer.turn().await.unwrap() != Turn::Idle {
        turns += 1;
        assert!(turns < 20, "{turns} turns for {LONG} blocks");
    }
    world.assert_is_head().await;
}

#[tokio::test]
async fn a_true_log_in_a_place_where_none_can_stand_is_not_taken_from_one_of_three() {
    let world = World::new([Some(Lie::Misplaces(3)), None, None]).await;
    let mut indexer = world.indexer().await;
    assert!(settle(&mut indexer, 5).await.is_none());
    world.assert_is_head().await;
}

/// Goal: where a log stands is not taken from one of three because the others serve narrower ranges only.
#[tokio::test]
async fn a_true_log_in_a_false_place_is_not_taken_where_others_refuse_ranges_of_that_width() {
    let narrow = Some(Lie::RefusesRangesAbove(50));
    let mut world = World::new([Some(Lie::Displaces(OLD)), narrow, narrow]).await;
    world.grow(LONG / 5);
    let mut indexer = world.indexer().await;
    // A wider range is tried now and then, and not after each that got through.
    assert!(settle(&mut indexer, 4).await.is_none());
    world.assert_is_head().await;
}

/// Goal: where a log stands is not one operator's word while another one contradicts it, however few are asked.
#[tokio::test]
async fn a_true_log_in_a_false_place_is_not_taken_where_one_other_operator_contradicts_it() {
    let liar = Some(Lie::Displaces(OLD));
    for lies in [&[liar, None][..], &[None, liar], &[liar, None, None]] {
        for is_proved in [true, false] {
            let world = World::of(lies).await;
            world.endpoints.distrust("cleo", "it did");
            let honest = usize::from(lies[0].is_some());
            world.servers[honest].lock().serves_receipts = is_proved;
            let mut indexer = world.indexer().await;
            let error = settle(&mut indexer, 5).await;
            assert_eq!(error.is_none(), is_proved, "{lies:?}: {error:?}");
            if let Some(error) = error {
                world.assert_is_true_below(OLD).await;
                assert!(error.to_string().contains("are not those that"), "{error}");
                assert!(!world.states()[..2].contains(&State::Lying));
                world.servers[1 - honest].lock().lie = None;
                assert!(settle(&mut indexer, 5).await.is_none(), "{lies:?}");
            }
            world.assert_is_head().await;
        }
    }
}

#[tokio::test]
async fn logs_that_the_others_serve_at_no_width_are_taken_as_the_journal_tells_them() {
    let none = Some(Lie::RefusesRangesAbove(0));
    let mut world = World::new([None, none, none]).await;
    world.grow(LONG / 5);
    let mut indexer = world.indexer().await;
    let last = BLOCKS + LONG / 5 - FINALITY;
    assert_eq!(indexer.turn().await.unwrap(), Turn::Advanced(last), "all of them at once");
    assert!(settle(&mut indexer, 1).await.is_none());
    world.assert_is_head().await;
}

/// Goal: logs that are in no range, as an endpoint's index may lack them, are found in their block.
/// What would break it: asking for the same range again; voting on ranges only.
#[tokio::test]
async fn logs_that_no_range_has_are_taken_from_their_block() {
    for block in [1, 3, OLD, OLD + 1, BLOCKS - FINALITY] {
        for lies in
            [&[Some(Lie::OmitsFromRanges(block)); 3][..], &[Some(Lie::OmitsFromRanges(block))]]
        {
            for serves_receipts in [false, true] {
                let world = World::of(lies).await;
                for server in &world.servers {
                    server.lock().serves_receipts = serves_receipts;
                }
                let mut indexer = world.indexer().await;
                assert!(settle(&mut indexer, 5).await.is_none(), "{lies:?}");
                world.assert_is_head().await;
                assert!(!world.states().contains(&State::Lying), "{lies:?}");
            }
        }
    }
}

/// What would break it: believing the height that a log names which was asked for by its block's hash.
#[tokio::test]
async fn a_log_that_names_another_height_is_taken_from_another_endpoint() {
    let mut world = World::new([None; 3]).await;
    let mut indexer = world.indexer().await;
    assert!(settle(&mut indexer, 1).await.is_none());
    world.servers[0].lock().lie = Some(Lie::Heaves(BLOCKS + 1));
    // One block more than what is not final is a range by itself.
    for _ in 0..60 {
        world.grow(FINALITY + 1);
        assert!(settle(&mut indexer, 1).await.is_none());
    }
    world.assert_is_head().await;
}

/// Goal: a stranger stops nobody by a block with more of the contract's logs than endpoints serve at once.
#[tokio::test]
async fn logs_that_are_refused_for_their_number_are_taken_from_tx_receipts_of_any_type() {
    for block in [OLD, NEW] {
        for lies in [&[Some(Lie::RefusesLogsOf(block)); 3][..], &[Some(Lie::RefusesLogsOf(block))]]
        {
            let mut world = World::of(lies).await;
            for server in &world.servers {
                server.lock().serves_receipts = true;
            }
            let mut indexer = world.indexer().await;
            assert!(settle(&mut indexer, 20).await.is_none(), "{lies:?}");
            world.assert_is_head().await;
            world.grow(FINALITY);
            assert!(settle(&mut indexer, 20).await.is_none(), "{lies:?}");
            world.assert_is_head().await;
            assert!(world.states().iter().all(|state| *state == State::Ok), "{lies:?}");

            let writer = ChainWriter::new(world.ledger.clone());
            let checkpoint = writer.checkpoint().await.unwrap().unwrap();
            let replay = indexer::replay::replay(&world.endpoints, 1, &checkpoint).await.unwrap();
            assert_eq!(replay.journal, replay.contract_journal);
        }
    }
}

#[tokio::test]
async fn what_one_of_three_alone_says_of_a_block_is_not_followed() {
    for (lie, _) in lies_about(NEW) {
        let world = World::new([Some(lie), None, None]).await;
        let mut indexer = world.indexer().await;
        settle(&mut indexer, 5).await;
        world.assert_is_head().await;
        let reason = world.reason(0);
        assert!(reason.contains("are not those that the others serve"), "{lie:?}: {reason}");
    }
}

#[tokio::test]
async fn blocks_that_one_of_three_alone_has_are_not_followed() {
    let world = World::new([None, None, None]).await;
    let alone = {
        let mut tree = world.tree.lock().unwrap();
        let final_block = tree.at(world.head, BLOCKS - FINALITY).unwrap();
        // Longer than any reorg that is followed.
        tree.grow_by(final_block, 90, &mut ChaCha8Rng::seed_from_u64(2))
    };
    world.servers[0].lock().head = alone;
    let mut indexer = world.indexer().await;
    settle(&mut indexer, 5).await;
    world.assert_is_head().await;
    world.servers[0].lock().head = world.head;
    assert!(settle(&mut indexer, 1).await.is_none());
}

#[tokio::test]
async fn a_block_with_logs_that_one_of_three_alone_has_does_not_keep_the_others_from_being_followed()
 {
    let world = World::new([None, None, None]).await;
    let alone = {
        let mut tree = world.tree.lock().unwrap();
        let final_block = tree.at(world.head, BLOCKS - FINALITY).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let first = tree.grow(final_block, 3, &mut rng);
        tree.grow_by(first, FINALITY, &mut rng)
    };
    for server in &world.servers {
        server.lock().knows_one_branch = true;
    }
    world.servers[0].lock().head = alone;
    let mut indexer = world.indexer().await;
    assert!(settle(&mut indexer, 5).await.is_none());
    world.assert_is_head().await;
}

#[tokio::test]
async fn a_block_that_one_of_three_alone_has_ends_nothing_whatever_is_in_it() {
    let world = World::new([None, None, None]).await;
    let alone = {
        let mut tree = world.tree.lock().unwrap();
        let final_block = tree.at(world.head, BLOCKS - FINALITY).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let foreign = tree.grow_foreign(final_block, &mut rng);
        tree.grow_by(foreign, FINALITY - 1, &mut rng)
    };
    for server in &world.servers {
        // What it says of that block it proves by its own header.
        server.lock().serves_receipts = true;
    }
    world.servers[0].lock().head = alone;
    let mut indexer = world.indexer().await;
    assert!(settle(&mut indexer, 5).await.is_none());
    world.assert_is_head().await;
}

#[tokio::test]
async fn an_event_that_no_version_knows_ends_the_run_where_enough_operators_have_it() {
    let mut world = World::new([None, None, None]).await;
    let rng = &mut ChaCha8Rng::seed_from_u64(2);
    world.head = world.tree.lock().unwrap().grow_foreign(world.head, rng);
    for server in &world.servers {
        (server.lock().head, server.lock().serves_receipts) = (world.head, true);
    }
    let mut indexer = world.indexer().await;
    let error = loop {
        match indexer.turn().await {
            Ok(turn) => assert_ne!(turn, Turn::Idle),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::UnknownEvent { .. }), "{error:?}");
}

impl World {
    /// Has all endpoints leave a branch of so many blocks for another one.
    pub(crate) fn reorg(&mut self, blocks: u64) {
        let mut tree = self.tree.lock().unwrap();
        let base = tree.at(self.head, tree.number(self.head) - blocks).unwrap();
        self.head = tree.grow_by(base, blocks + 1, &mut ChaCha8Rng::seed_from_u64(3));
        for server in &self.servers {
            server.lock().head = self.head;
        }
    }
}

#[tokio::test]
async fn a_time_or_a_height_that_no_chain_has_ends_nothing_where_one_of_three_tells_it() {
    let lies = [
        (Lie::Heightens(BLOCKS + 1), "number"),
        (Lie::Dates { number: BLOCKS + 1, time: u64::MAX }, "time"),
    ];
    for (lie, field) in lies {
        let mut world = World::new([None, None, None]).await;
        let mut indexer = world.indexer().await;
        assert!(settle(&mut indexer, 1).await.is_none());
        world.reorg(2);
        world.servers[0].lock().lie = Some(lie);
        assert!(settle(&mut indexer, 5).await.is_none(), "{lie:?}");
        world.assert_is_head().await;
        let reason = world.reason(0);
        assert!(reason.contains(&format!("{field} of its block")), "{lie:?}: {reason}");
    }
}

#[tokio::test]
async fn the_final_block_stands_still_by_the_newest_one_that_enough_operators_have() {
    let late = Some(Lie::Dates { number: BLOCKS, time: 1_800_000_000 });
    // Blocks are two seconds apart.
    let behind = FINALITY * 2;
    for (lies, alarm_after, is_alarmed) in [
        ([late, None, None], behind, false),
        ([None, None, late], behind, false),
        ([late, late, None], behind, true),
        ([late, None, None], behind - 1, true),
        ([None, None, None], behind - 1, true),
    ] {
        let mut world = World::new(lies).await;
        let finality_alarm = Duration::from_secs(alarm_after);
        let settings = Settings { finality_alarm, ..Settings::default() };
        world.endpoints = world.endpoints.with_settings(settings);
        let mut indexer = world.indexer().await;
        settle(&mut indexer, 1).await;
        let standing = indexer.standing().borrow().clone();
        assert_eq!(standing.is_alarmed, is_alarmed, "{lies:?} {alarm_after}: {standing:?}");
    }
}

/// Goal: it is an alarm that nothing becomes final in the ledger, although the chain's final block moves on; not that there is
/// much to read.
#[cfg(feature = "crash-points")]
#[tokio::test]
async fn it_is_an_alarm_that_turns_fail_for_long_and_none_that_there_is_much_to_read() {
    let narrow = Some(Lie::RefusesRangesAbove(50));
    for (lie, is_alarmed) in [(Some(Lie::Omits(OLD)), true), (narrow, false)] {
        let mut world = World::pruned(&[lie; 3]).await;
        let finality_alarm = Duration::from_secs(30);
        let settings = Settings { finality_alarm, ..Settings::default() };
        world.endpoints = world.endpoints.with_settings(settings);
        let mut indexer = world.indexer().await;
        let mut now = ledger::point::now();
        for _ in 0..20 {
            let _failed = indexer.turn().await;
            world.grow(1);
            now += Duration::from_secs(5);
            ledger::point::set_clock(Some(now));
        }
        let standing = indexer.standing().borrow().clone();
        assert_eq!(standing.is_alarmed, is_alarmed, "{lie:?}: {standing:?}");
        let text = "nothing became final in the ledger after block 0";
        assert_eq!(standing.waiting.join(" ").contains(text), is_alarmed, "{standing:?}");
        ledger::point::set_clock(None);
    }
}

#[tokio::test]
async fn an_endpoint_that_contradicts_a_final_block_ends_nothing_whatever_time_it_tells() {
    let world = World::new([None, None, None]).await;
    let fork = {
        let mut tree = world.tree.lock().unwrap();
        let base = tree.at(world.head, BLOCKS - FINALITY - 5).unwrap();
        tree.grow_by(base, FINALITY + 5, &mut ChaCha8Rng::seed_from_u64(2))
    };
    {
        let mut server = world.servers[0].lock();
        (server.head, server.lie) = (fork, Some(Lie::Dates { number: BLOCKS, time: u64::MAX }));
    }
    let mut indexer = world.indexer().await;
    assert!(settle(&mut indexer, 5).await.is_none());
    world.assert_is_head().await;
    assert_ne!(world.states()[0], State::Ok);
}

impl World {
    /// Replaces the newest block, which has no logs, by another without any, and adds so many. The first of the endpoints goes
    /// on telling the replaced one, and that many blocks which follow it.
    async fn orphaned(kept: u64, blocks: u64) -> (Self, Indexer) {
        let mut world = Self::new([None, None, None]).await;
        let before = world.head;
        let orphan = world.tree.lock().unwrap().grow(before, 0, &mut world.rng);
        for server in &world.servers {
            server.lock().head = orphan;
        }
        let mut indexer = world.indexer().await;
        assert!(settle(&mut indexer, 1).await.is_none());
        let alone = {
            let mut tree = world.tree.lock().unwrap();
            let after = tree.grow(before, 0, &mut world.rng);
            world.head = tree.grow(after, 3, &mut world.rng);
            world.head = tree.grow_by(world.head, blocks, &mut world.rng);
            tree.grow(orphan, 0, &mut world.rng)
        };
        for server in &world.servers {
            server.lock().head = world.head;
        }
        let (from, to) = (BLOCKS + 1, BLOCKS + 1 + kept);
        world.servers[0].lock().lie = Some(Lie::Keeps { from, to, other: alone });
        (world, indexer)
    }
}

#[tokio::test]
async fn a_block_that_one_of_three_still_serves_after_a_reorg_does_not_keep_the_others_from_being_followed()
 {
    for kept in [0, 1] {
        // Of few blocks none is final that was replaced; of many, what follows the replaced one is.
        for blocks in [0, 1, FINALITY / 2, FINALITY + 5] {
            let (world, mut indexer) = World::orphaned(kept, blocks).await;
            assert!(settle(&mut indexer, 5).await.is_none(), "{kept} {blocks}");
            world.assert_is_head().await;
        }
    }
}

#[tokio::test]
async fn one_of_three_that_left_the_others_undoes_nothing() {
    // The third may not be able to say yet what stands there.
    for third in [None, Some(Lie::Trails(2))] {
        let world = World::new([None, None, None]).await;
        let mut indexer = world.indexer().await;
        assert!(settle(&mut indexer, 1).await.is_none());
        let alone = {
            let mut tree = world.tree.lock().unwrap();
            let final_block = tree.at(world.head, BLOCKS - FINALITY).unwrap();
            tree.grow_by(final_block, FINALITY + 5, &mut ChaCha8Rng::seed_from_u64(2))
        };
        world.servers[0].lock().head = alone;
        world.servers[2].lock().lie = third;
        for _ in 0..3 {
            let turn = indexer.turn().await;
            let is_still =
                turn.as_ref().map_or_else(Error::is_transient, |turn| *turn == Turn::Idle);
            assert!(is_still, "{turn:?}");
            world.assert_is_head().await;
        }
    }
}

#[tokio::test]
async fn what_an_endpoint_does_not_say_again_of_a_block_by_its_hash_is_no_lie() {
    let world = World::new([Some(Lie::OmitsFromRanges(OLD)), None, None]).await;
    let mut indexer = world.indexer().await;
    settle(&mut indexer, 5).await;
    world.assert_is_head().await;
    assert_ne!(world.states()[0], State::Lying);
    assert!(world.reason(0).contains("all logs omitted (3) of block 20"), "{}", world.reason(0));
}

#[tokio::test]
async fn what_an_endpoint_alone_contradicts_itself_in_is_no_lie() {
    for servers in [1, 2] {
        let mut world = World::of(&[None, None][..servers]).await;
        world.servers[0].lock().lie = Some(Lie::OmitsEveryOtherTime(OLD));
        // Two endpoints of one operator are as much behind one balancer as one.
        let named: Vec<_> = world.servers.iter().map(|server| ("anna", server)).collect();
        world.endpoints = endpoints(&named, Finality::Depth(FINALITY));
        let mut indexer = world.indexer().await;
        settle(&mut indexer, 3).await;
        assert!(!world.states().contains(&State::Lying), "{}", world.reason(0));
        world.servers[0].lock().lie = None;
        assert!(settle(&mut indexer, 5).await.is_none());
        world.assert_is_head().await;
    }
}

#[tokio::test]
async fn a_final_block_that_an_endpoint_alone_tells_differently_when_asked_again_is_no_lie() {
    let mut world = World::of(&[None]).await;
    let mut indexer = world.indexer().await;
    assert!(settle(&mut indexer, 1).await.is_none());
    let fork = {
        let mut tree = world.tree.lock().unwrap();
        let base = tree.at(world.head, BLOCKS - FINALITY - 5).unwrap();
        tree.grow_by(base, FINALITY + 5, &mut ChaCha8Rng::seed_from_u64(2))
    };
    {
        let mut server = world.servers[0].lock();
        server.lie = Some(Lie::Wavers { number: BLOCKS - FINALITY, other: server.head });
        server.head = fork;
    }
    for _ in 0..20 {
        let turn = indexer.turn().await;
        assert!(turn.as_ref().map_or_else(Error::is_transient, |_| true), "{turn:?}");
        assert_ne!(world.states()[0], State::Lying, "{}", world.reason(0));
    }
    world.servers[0].lock().lie = None;
    world.grow(1);
    assert!(settle(&mut indexer, 5).await.is_none());
    world.assert_is_head().await;
}

#[tokio::test]
async fn an_endpoint_that_proves_nothing_of_old_blocks_is_believed_as_far_as_the_journal_goes() {
    let mut world = World::of(&[Some(Lie::ProvesForOneBlockOnly)]).await;
    let mut indexer = world.indexer().await;
    assert!(settle(&mut indexer, 1).await.is_none());
    world.grow(FINALITY);
    assert!(settle(&mut indexer, 1).await.is_none());
    world.assert_is_head().await;
    let finalised = ChainWriter::new(world.ledger.clone()).finalised().await.unwrap();
    assert_eq!(finalised, BLOCKS);
}

#[tokio::test]
async fn an_endpoint_that_was_of_another_chain_for_a_moment_is_asked_again() {
    let world = World::new([Some(Lie::IsAnotherChain), None, None]).await;
    let mut indexer = world.indexer().await;
    assert!(settle(&mut indexer, 1).await.is_none());
    assert_eq!(world.states()[0], State::WrongChain);
    world.servers[0].lock().lie = None;
    sleep(Duration::from_millis(300)).await;
    indexer.turn().await.unwrap();
    assert_eq!(world.states(), [State::Ok; 3]);
}

#[tokio::test]
async fn a_log_that_cannot_be_stored_is_waited_out_where_one_endpoint_alone_serves_it() {
    for lie in [
        Lie::InventsAnotherEvent(NEW),
        Lie::InventsAnotherEvent(OLD),
        Lie::Repeats(NEW),
        Lie::Repeats(OLD),
    ] {
        let world = World::of(&[Some(lie)]).await;
        let mut indexer = world.indexer().await;
        assert!(settle(&mut indexer, 3).await.is_some(), "{lie:?}");
        world.servers[0].lock().lie = None;
        assert!(settle(&mut indexer, 5).await.is_none(), "{lie:?}");
        world.assert_is_head().await;
    }
}

#[tokio::test]
async fn forged_tx_receipts_are_not_taken_and_give_the_liar_away() {
    for block in [OLD, NEW] {
        let world = World::new([Some(Lie::ForgesReceipts(block)), None, None]).await;
        for server in &world.servers {
            server.lock().serves_receipts = true;
        }
        let mut indexer = world.indexer().await;
        assert!(settle(&mut indexer, 5).await.is_none());
        world.assert_is_head().await;
        assert_eq!(world.states(), [State::Lying, State::Ok, State::Ok]);
        assert!(
            world.reason(0).contains("tx receipts do not have the root"),
            "{}",
            world.reason(0)
        );
    }
}

#[tokio::test]
async fn tx_receipts_that_do_not_verify_once_or_are_not_there_yet_are_no_lie() {
    for block in [OLD, NEW] {
        for lie in [Lie::ForgesReceiptsOnce(block), Lie::HasNoReceipts(block)] {
            let world = World::new([Some(lie), None, None]).await;
            for server in &world.servers {
                server.lock().serves_receipts = true;
            }
            let mut indexer = world.indexer().await;
            assert!(settle(&mut indexer, 5).await.is_none(), "{lie:?}");
            world.assert_is_head().await;
            assert!(!world.states().contains(&State::Lying), "{lie:?}: {}", world.reason(0));
            let is_once = matches!(lie, Lie::ForgesReceiptsOnce(_));
            assert!(!is_once || world.states() == [State::Ok; 3], "{:?}", world.states());
        }
    }
}

/// Goal: tx receipts that the chain itself encodes in a way that is not known here make nobody a liar.
/// What would break it: taking it for a witness that another operator served some turn, whatever was in it.
#[tokio::test]
async fn tx_receipts_that_do_not_verify_are_a_lie_where_any_other_endpoint_proves_that_block() {
    for block in [OLD, NEW] {
        for is_proved in [false, true] {
            let world = World::new([Some(Lie::ForgesReceipts(block)), None, None]).await;
            world.servers[0].lock().serves_receipts = true;
            // Not the one that is asked next.
            world.servers[2].lock().serves_receipts = is_proved;
            let mut indexer = world.indexer().await;
            assert!(settle(&mut indexer, 5).await.is_none());
            world.assert_is_head().await;
            assert_eq!(world.states().contains(&State::Lying), is_proved, "{}", world.reason(0));
        }
    }
}

/// Goal: one endpoint alone proves the contract's journal, and only the true one.
#[tokio::test]
async fn a_forged_storage_proof_is_not_taken_and_gives_the_liar_away() {
    for (lie, state) in [(Some(Lie::ProvesWithout(OLD)), State::Lying), (None, State::Ok)] {
        let world = World::new([lie, None, None]).await;
        for server in &world.servers {
            let mut server = server.lock();
            // What is not proved is not told either.
            (server.serves_receipts, server.serves_proofs, server.lacks_state) = (true, true, true);
        }
        let mut indexer = world.indexer().await;
        assert!(settle(&mut indexer, 1).await.is_none(), "{lie:?}");
        world.assert_is_head().await;
        assert_eq!(world.states(), [state, State::Ok, State::Ok], "{}", world.reason(0));
        let problem = "its storage proof does not lead to its state root";
        assert_eq!(world.reason(0).contains(problem), lie.is_some(), "{}", world.reason(0));
    }
}

/// Goal: whoever proves the contract's journal, it is proved, whichever endpoint is asked first.
/// What would break it: taking a vote where the one that is asked has no state; ending at another one's forgery.
#[tokio::test]
async fn the_journal_that_one_endpoint_proves_is_taken_whoever_is_asked_first() {
    let forger = Some(Lie::ProvesWithout(OLD));
    for (lies, provers) in [
        (&[None, None][..], &[1][..]),
        (&[None, None, None], &[1]),
        (&[None, forger, None], &[1, 2]),
    ] {
        let world = World::of(lies).await;
        for (place, server) in world.servers.iter().enumerate() {
            let mut server = server.lock();
            (server.lacks_state, server.serves_proofs) = (true, provers.contains(&place));
        }
        let mut indexer = world.indexer().await;
        let error = settle(&mut indexer, 1).await;
        assert!(error.is_none(), "{lies:?}: {error:?}");
        world.assert_is_head().await;
        let finalised = ChainWriter::new(world.ledger.clone()).finalised().await.unwrap();
        assert_eq!(finalised, BLOCKS - FINALITY, "{lies:?}");
    }
}

/// Goal: what Polygon's blocks take over from Ethereum is followed as well, although no header knows of it.
#[tokio::test]
async fn logs_of_a_state_sync_are_proved_by_the_journal_where_the_header_proves_them_absent() {
    let next = BLOCKS + 1;
    for (lie, blocks) in [
        (None, FINALITY),
        (None, 0),
        (Some(Lie::HasNoReceipts(next)), FINALITY),
        (Some(Lie::HasNoReceipts(next)), 0),
    ] {
        let mut world = World::new([lie; 3]).await;
        for server in &world.servers {
            let mut server = server.lock();
            (server.serves_receipts, server.serves_proofs) = (true, true);
        }
        world.head = world.tree.lock().unwrap().grow_state_sync(world.head, 3, &mut world.rng);
        world.grow(blocks);
        let mut indexer = world.indexer().await;
        settle(&mut indexer, 1).await;
        world.grow(FINALITY + 1);
        assert!(settle(&mut indexer, 5).await.is_none(), "{lie:?}");
        world.assert_is_head().await;
        assert_eq!(world.states(), [State::Ok; 3], "{lie:?}: {}", world.reason(0));
    }
}

impl World {
    /// The same on a chain whose headers' hashes cannot be computed.
    fn without_hashes(mut self) -> Self {
        let settings = Settings { header_hash: HeaderHash::Trusted, ..Settings::default() };
        self.endpoints = self.endpoints.with_settings(settings);
        self
    }
}

#[tokio::test]
async fn the_time_that_one_of_three_tells_is_not_taken_where_hashes_are_not_computed() {
    for block in [OLD, BLOCKS - FINALITY, NEW, NEW + 1, BLOCKS] {
        for place in 0..3 {
            let mut lies = [None; 3];
            lies[place] = Some(Lie::Postdates(block));
            let mut world = World::new(lies).await.without_hashes();
            let mut indexer = world.indexer().await;
            for _ in 0..2 {
                assert!(settle(&mut indexer, 5).await.is_none(), "{block} {place}");
                world.assert_is_head().await;
                let writer = ChainWriter::new(world.ledger.clone());
                let checkpoint = writer.checkpoint().await.unwrap().unwrap();
                let tree = world.tree.lock().unwrap().clone();
                assert_eq!(checkpoint.time, tree.nodes[world.head].header.timestamp);
                world.grow(FINALITY);
            }
        }
    }
}

#[tokio::test]
async fn tx_receipts_prove_nothing_where_hashes_are_not_computed() {
    let world = World::pruned(&[Some(Lie::ForgesReceiptsAndHeader(OLD)), None, None]).await;
    let world = world.without_hashes();
    for server in &world.servers {
        server.lock().serves_receipts = true;
    }
    let mut indexer = world.indexer().await;
    while indexer.turn().await.unwrap() != Turn::Idle {
        let truth = world.tree.lock().unwrap().replay(world.head);
        let writer = ChainWriter::new(world.ledger.clone());
        let stored = writer.checkpoint().await.unwrap().unwrap().number;
        let truth: Vec<_> =
            truth.into_iter().filter(|indexed| indexed.block.number <= stored).collect();
        assert_eq!(ledger::verify::facts(&world.ledger, &truth, stored).await.unwrap(), []);
    }
    world.assert_is_head().await;
}

#[tokio::test]
async fn an_omitted_log_does_no_harm_where_tx_receipts_are_served() {
    let mut world = World::of(&[Some(Lie::Omits(NEW))]).await;
    world.servers[0].lock().serves_receipts = true;
    let mut indexer = world.indexer().await;
    assert!(settle(&mut indexer, 1).await.is_none());
    world.grow(FINALITY);
    assert!(settle(&mut indexer, 1).await.is_none());
    world.assert_is_head().await;
}

#[tokio::test]
async fn an_endpoint_that_trails_is_passed_over() {
    let world = World::new([Some(Lie::Trails(30)), None, None]).await;
    let mut indexer = world.indexer().await;
    assert!(settle(&mut indexer, 1).await.is_none());
    world.assert_is_head().await;
    assert_eq!(world.states(), [State::Lagging, State::Ok, State::Ok]);
    assert_eq!(world.endpoints.report()[0].lag, 30);
}

#[tokio::test]
async fn an_endpoint_whose_newest_block_is_final_may_move_on_while_it_is_looked_at() {
    for lies in [&[Some(Lie::MovesOn)][..], &[Some(Lie::MovesOn), None, None]] {
        let mut world = World::of(lies).await;
        let named: Vec<_> = ["anna", "bert", "cleo"].into_iter().zip(&world.servers).collect();
        world.endpoints = endpoints(&named, Finality::Tag);
        let mut indexer = world.indexer().await;
        assert!(settle(&mut indexer, 1).await.is_none());
        world.assert_is_head().await;
        assert!(world.states().iter().all(|state| *state == State::Ok), "{}", world.reason(0));
    }
}

#[tokio::test]
async fn null_answers_garbage_halves_and_foreign_answers_are_put_aside_and_the_next_endpoint_is_asked()
 {
    for lie in [Lie::HasNoBlocks, Lie::Garbles, Lie::LeavesFieldsOut, Lie::AnswersOthers] {
        let world = World::new([Some(lie), None, None]).await;
        let mut indexer = world.indexer().await;
        assert!(settle(&mut indexer, 1).await.is_none(), "{lie:?}");
        world.assert_is_head().await;
        assert_ne!(world.states()[0], State::Lying, "{lie:?} is no lie");
        assert_eq!(world.states()[1..], [State::Ok, State::Ok], "{lie:?}");
    }
    for lie in [Lie::HasNoBlocks, Lie::Garbles, Lie::LeavesFieldsOut, Lie::AnswersOthers] {
        let world = World::of(&[None]).await;
        let mut indexer = world.indexer().await;
        world.servers[0].lock().lie = Some(lie);
        assert!(settle(&mut indexer, 2).await.is_some(), "{lie:?}");
        let checkpoint = ChainWriter::new(world.ledger.clone()).checkpoint().await.unwrap();
        assert_eq!(checkpoint, None, "{lie:?} changed the ledger");
    }
}

#[tokio::test]
async fn an_endpoint_of_another_fork_contradicts_what_is_final_and_is_never_asked_again() {
    let world = World::new([None, None, None]).await;
    let fork = {
        let mut tree = world.tree.lock().unwrap();
        let base = tree.at(world.head, BLOCKS - FINALITY - 5).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        tree.grow_by(base, FINALITY + 5, &mut rng)
    };
    world.servers[0].lock().head = fork;
    let mut indexer = world.indexer().await;
    assert!(settle(&mut indexer, 1).await.is_none());
    world.assert_is_head().await;
    assert_eq!(world.states(), [State::Lying, State::Ok, State::Ok]);
    assert!(world.reason(0).contains("the other operators agree"), "{}", world.reason(0));
    let before = world.servers[0].lock().requests;
    settle(&mut indexer, 1).await;
    assert_eq!(world.servers[0].lock().requests, before);
}

#[tokio::test]
async fn a_mark_survives_a_restart_and_is_cleared_by_an_operator_only() {
    let mut world = World::new([Some(Lie::Omits(OLD)), None, None]).await;
    let mut indexer = world.indexer().await;
    settle(&mut indexer, 5).await;
    drop(indexer);
    world.servers[0].lock().lie = None;
    let named: Vec<_> = ["anna", "bert", "cleo"].into_iter().zip(&world.servers).collect();
    world.endpoints = endpoints(&named, Finality::Depth(FINALITY));
    let mut indexer = world.indexer().await;
    settle(&mut indexer, 1).await;
    assert_eq!(world.states()[0], State::Lying, "a restart clears nothing");

    let writer = ChainWriter::new(world.ledger.clone());
    writer.mark_endpoint("anna", false, "their node was repaired", 0).await.unwrap();
    settle(&mut indexer, 1).await;
    settle(&mut indexer, 1).await;
    assert_eq!(world.states(), [State::Ok; 3]);
    assert!(world.folder.path().exists());
}

#[tokio::test]
async fn another_chain_is_refused_and_stops_the_start_where_it_is_alone() {
    let world = World::new([Some(Lie::IsAnotherChain), None, None]).await;
    let mut indexer = world.indexer().await;
    assert!(settle(&mut indexer, 1).await.is_none());
    assert_eq!(world.states(), [State::WrongChain, State::Ok, State::Ok]);

    let world = World::of(&[Some(Lie::IsAnotherChain)]).await;
    let error = Indexer::new(world.endpoints.clone(), world.ledger.clone()).await.unwrap_err();
    assert!(matches!(error, Error::WrongChain { expected: 31_337, found: 1, .. }), "{error}");
}

#[tokio::test]
async fn an_endpoint_that_has_dropped_its_oldest_blocks_is_of_the_right_chain() {
    for lies in [&[None, None, None][..], &[None]] {
        let world = World::of(lies).await;
        world.servers[0].lock().oldest = OLD;
        let mut indexer =
            Indexer::new(world.endpoints.clone(), world.ledger.clone()).await.unwrap();
        assert!(settle(&mut indexer, 1).await.is_none());
        world.assert_is_head().await;
        assert!(world.states().iter().all(|state| *state == State::Ok), "{:?}", world.states());
    }
}

#[tokio::test]
async fn an_endpoint_that_asks_for_patience_is_left_alone() {
    let world = World::new([None, None, None]).await;
    let mut indexer = world.indexer().await;
    world.servers[0].lock().lie = Some(Lie::AsksForPatience);
    assert!(settle(&mut indexer, 1).await.is_none());
    world.assert_is_head().await;
    assert_eq!(world.states(), [State::RateLimited, State::Ok, State::Ok]);
    let asked = world.servers[0].lock().requests;
    indexer.turn().await.unwrap();
    assert_eq!(world.servers[0].lock().requests, asked, "it was asked while it wanted patience");
}

#[tokio::test]
async fn a_short_pause_of_the_only_endpoint_is_waited_out() {
    let world = World::of(&[None]).await;
    let mut indexer = world.indexer().await;
    settle(&mut indexer, 0).await;
    world.servers[0].lock().lie = Some(Lie::AsksForPatience);
    let relents = async {
        sleep(Duration::from_millis(300)).await;
        assert_eq!(world.states(), [State::RateLimited]);
        world.servers[0].lock().lie = None;
    };
    let provider = world.endpoints.provider();
    let (id, ()) = tokio::join!(provider.get_chain_id(), relents);
    assert_eq!(id.unwrap(), 31_337);
    assert_eq!(world.states(), [State::Ok]);
}

#[tokio::test]
async fn a_range_limit_is_learnt_from_the_refusal() {
    let world = World::of(&[Some(Lie::RefusesRangesAbove(7))]).await;
    let mut indexer = world.indexer().await;
    assert!(settle(&mut indexer, 20).await.is_none());
    world.assert_is_head().await;
    assert_eq!(world.servers[0].lock().ranges.iter().max(), Some(&7));
}

/// Goal: old blocks are read through an endpoint that fails now and then, although each block with logs takes requests.
/// What would break it: asking for as many blocks again, or for more, after a range that did not get through.
#[tokio::test]
async fn a_range_that_does_not_get_through_is_narrowed_to_one_that_does() {
    let mut world = World::of(&[None]).await;
    for number in BLOCKS + 1..=1_500 {
        let mut tree = world.tree.lock().unwrap();
        world.head = tree.grow(world.head, usize::from(number % 3 == 0), &mut world.rng);
    }
    {
        let mut server = world.servers[0].lock();
        (server.head, server.keeps_state_of) = (world.head, Some(KEPT));
        server.lie = Some(Lie::RefusesEvery(30));
    }
    let mut indexer = world.indexer().await;
    settle(&mut indexer, u32::MAX).await;
    world.assert_is_head().await;
    let ranges = world.servers[0].lock().ranges.clone();
    let narrow = ranges.iter().filter(|blocks| **blocks < 30).count();
    assert!(ranges[0] > 1_000 && narrow > ranges.len() / 2, "{ranges:?}");
}

#[tokio::test]
async fn blocks_that_were_read_before_a_request_failed_are_kept() {
    let world = World::of(&[None]).await;
    let mut indexer = world.indexer().await;
    assert_eq!(indexer.turn().await.unwrap(), Turn::Advanced(BLOCKS - FINALITY));
    world.servers[0].lock().lie = Some(Lie::RefusesEvery(9));
    settle(&mut indexer, 20).await;
    world.assert_is_head().await;
}
