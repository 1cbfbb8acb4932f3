//! The ledger against what is read again from the logs alone, through endpoints that lie.

use indexer::{Error, Finality, Indexer, replay::verify};
use ledger::{chain::ChainWriter, verify::Difference};

use crate::{
    chain::{Lie, endpoints},
    lies::{FINALITY, OLD, World, settle},
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
        let verified = verify(&self.endpoints, &self.ledger, 1, &checkpoint).await;
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
