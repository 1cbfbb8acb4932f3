//! The ledger against what is read again from the logs alone, through endpoints that lie.

use indexer::{Error, Finality, Indexer, replay::verify};
use ledger::{chain::ChainWriter, verify::Difference};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::{
    chain::{Lie, Serving, endpoints},
    lies::{BLOCKS, FINALITY, OLD, World, settle},
};

/// A ledger that was indexed through the first of three endpoints alone.
async fn indexed(lie: Option<Lie>) -> World {
    let world = World::new([lie, None, None]).await;
    let alone = endpoints(&[("anna", &world.servers[0])], Finality::Depth(FINALITY));
    let mut indexer = Indexer::new(alone, world.ledger.clone()).await.unwrap();
    assert!(settle(&mut indexer, 1).await.is_none());
    world
}

impl World {
    /// What differs between the ledger and the chain, as the endpoints tell it that lie so from now on.
    async fn differences(&self, lies: [Option<Lie>; 3]) -> Result<Vec<Difference>, Error> {
        for (server, lie) in self.servers.iter().zip(lies) {
            server.lock().lie = lie;
        }
        let checkpoint = ChainWriter::new(self.ledger.clone()).checkpoint().await.unwrap().unwrap();
        let (range, until) = ((1, &checkpoint), checkpoint.number);
        let verified = verify(&self.endpoints, &self.ledger, range, until).await;
        verified.map(|(_, differences)| differences)
    }
}

/// Goal: where an event happened, which no journal tells, is no difference by one endpoint's word, and is one by that of enough.
/// What would break it: taking the logs of the first endpoint that fold to the journal; taking those of the last one that is left.
#[tokio::test]
async fn a_log_in_another_place_is_a_difference_only_where_enough_operators_have_it_there() {
    let (displaces, omits) = (Some(Lie::Displaces(OLD)), Some(Lie::Omits(OLD)));
    let fails = Some(Lie::RefusesLogsOf(OLD));
    // Each of the three logs is where none should be, and missing where it should be.
    for (ours, lies, told) in [
        (None, [displaces, None, None], Some(0)),
        (None, [displaces, omits, None], Some(0)),
        (None, [displaces, fails, None], Some(0)),
        (None, [displaces, omits, omits], None),
        (None, [displaces, fails, omits], None),
        (None, [omits, omits, omits], Some(0)),
        (displaces, [None, None, None], Some(6)),
        (displaces, [omits, None, None], Some(6)),
        (displaces, [None, fails, None], Some(6)),
        (displaces, [omits, None, omits], None),
    ] {
        let world = indexed(ours).await;
        let found = world.differences(lies).await;
        assert_eq!(found.as_ref().ok().map(Vec::len), told, "{ours:?} {lies:?}: {found:?}");
        if let Err(error) = found {
            let said = error.to_string();
            assert!(said.starts_with("no 2 of 3 operators agree on 6 differences"), "{said}");
            assert!(said.contains("at block 20 log"), "{said}");
            assert!(error.is_transient());
        }
    }
}

/// Goal: a log of no known event, which one of three invents, is that endpoint's fault and ends nothing.
#[tokio::test]
async fn an_event_that_one_of_three_invents_does_not_keep_the_others_from_being_read() {
    let invents = Some(Lie::InventsAnotherEvent(OLD));
    let world = indexed(None).await;
    for lies in [[invents, None, None], [invents, invents, None]] {
        let found = world.differences(lies).await;
        assert!(found.as_ref().is_ok_and(Vec::is_empty), "{lies:?}: {found:?}");
    }
    let error = world.differences([invents; 3]).await.unwrap_err();
    assert!(error.is_transient());
    assert!(error.to_string().contains("is not an event of the contract"), "{error}");
}

/// So many blocks are final before the newest one.
const FINAL: u64 = BLOCKS - FINALITY;

impl World {
    /// A chain, and its ledger as a version left it that kept no journals, with this block as its last final one.
    async fn of_old(finalised: u64) -> Self {
        let world = Self::new([None; 3]).await;
        let tree = world.tree.lock().unwrap().clone();
        let at = |number| tree.indexed(tree.at(world.head, number).unwrap());
        let blocks: Vec<_> = (1..=BLOCKS).map(at).collect();
        let writer = ChainWriter::new(world.ledger.clone());
        writer.apply(&blocks).await.unwrap();
        writer.set_finalised(finalised).await.unwrap();
        assert!(writer.lacks_journal().await.unwrap());
        world
    }

    fn serve(&self, change: impl Fn(&mut Serving)) {
        self.servers.iter().for_each(|server| change(&mut server.lock()));
    }
}

/// Goal: a database that kept no journals is opened and followed, whatever became of its last block meanwhile.
/// What would break it: reading again up to the last block, which may have left the chain, or be one whose state nobody keeps.
#[tokio::test]
async fn journals_are_adopted_though_the_last_block_left_the_chain_or_nobody_keeps_its_state() {
    let nothing: fn(&mut World) = |_| {};
    let reorg: fn(&mut World) = |world| {
        world.serve(|server| server.knows_one_branch = true);
        world.reorg(3);
    };
    let prune: fn(&mut World) = |world| {
        world.serve(|server| server.keeps_state_of = Some(2 * FINALITY));
        world.grow(4 * FINALITY);
    };
    for (finalised, name, happens) in [
        (FINAL, "nothing", nothing),
        (FINAL, "a reorg", reorg),
        (FINAL, "pruning", prune),
        (OLD, "pruning", prune),
        (0, "a reorg", reorg),
    ] {
        let mut world = World::of_old(finalised).await;
        happens(&mut world);
        let opened = Indexer::new(world.endpoints.clone(), world.ledger.clone()).await;
        let mut indexer = opened.unwrap_or_else(|error| panic!("{name} {finalised}: {error}"));
        assert!(settle(&mut indexer, 1).await.is_none(), "{name} {finalised}");
        world.assert_is_head().await;
    }
}

/// Goal: a chain that is seen shorter than what is final in the ledger keeps no journals from being adopted.
#[tokio::test]
async fn journals_are_adopted_while_the_endpoints_trail_the_ledger() {
    let world = World::of_old(FINAL).await;
    let trailing = world.tree.lock().unwrap().at(world.head, FINAL + 1).unwrap();
    world.serve(|server| server.head = trailing);
    let mut indexer = world.indexer().await;
    settle(&mut indexer, 1).await;
    world.serve(|server| server.head = world.head);
    assert!(settle(&mut indexer, 1).await.is_none());
    world.assert_is_head().await;
}

/// Goal: journals are adopted for what the chain says only.
#[tokio::test]
async fn no_journals_are_adopted_for_final_facts_that_are_not_on_the_chain() {
    for block in [OLD, FINAL + 1] {
        let world = World::of_old(FINAL).await;
        let fork = {
            let mut tree = world.tree.lock().unwrap();
            let below = tree.at(world.head, block - 1).unwrap();
            tree.grow_by(below, BLOCKS, &mut ChaCha8Rng::seed_from_u64(2))
        };
        world.serve(|server| server.head = fork);
        let opened = Indexer::new(world.endpoints.clone(), world.ledger.clone()).await;
        let refuses = matches!(opened, Err(Error::Incomplete { .. }));
        assert_eq!(refuses, block <= FINAL, "{block}: {:?}", opened.err());
    }
}
