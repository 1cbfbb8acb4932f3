//! Bringing statements back from manifests: what is refused, and why.

use alloy::primitives::{Address, B256};
use ledger::{
    Units, audit,
    book::{Import, Sighting},
    manifest::Tree,
};

use crate::{
    traps::{funded, state, take},
    world::{ORGANISATION, World, deposit_key, identity, record, secret, settle},
};

/// A ledger that is lost after a statement over works 1 and 2 settled, and that statement's manifest.
async fn lost() -> (World, Import) {
    let mut world = funded(100_000_000, 0).await;
    take(&world, &[record(1, 2, 0, 1_000_000), record(2, 3, 0, 1_000_000)]).await;
    let paid = state(&world, 1, None).await;
    settle(&mut world, &paid).await;
    world.finalise(0).await;
    let manifest = world.reader.export(paid.id).await.unwrap();
    (world.after_loss(None).await, manifest)
}

/// Makes root and digest those of what the manifest says.
fn seal(import: &mut Import) {
    let leaves: Vec<_> = import.leaves.iter().map(|(leaf, _)| leaf.clone()).collect();
    import.statement.manifest = Tree::new(&leaves).root();
    import.digest = import.statement.digest(&identity().domain());
}

/// What the audit log tells of recovery, oldest first.
async fn told(world: &World) -> Vec<(String, String)> {
    let entries = audit::entries(&world.ledger).await.unwrap();
    let told = entries.into_iter().map(|entry| (entry.actor, entry.action));
    told.filter(|(_, action)| ["freeze", "import", "cut-off"].contains(&action.as_str())).collect()
}

fn expected(told: &[(&str, &str)]) -> Vec<(String, String)> {
    told.iter().map(|&(actor, action)| (actor.into(), action.into())).collect()
}

async fn refusal(world: &World, import: &Import) -> String {
    world.book.import(import, &secret(), 0).await.unwrap_err().to_string()
}

/// A change to a manifest, and what is said of it.
type Forgery = (&'static str, fn(&mut Import));

const FORGERIES: [Forgery; 9] = [
    ("does not have its digest", |import| import.statement.spent = Units::new(1)),
    ("do not have its root", |import| import.leaves[0].0.amount += 1),
    ("its rows do not follow", |import| import.rows[0].units = Units::new(1)),
    ("its rows do not follow", |import| {
        import.rows[0].units = Units::new(1);
        import.statement.rows = ledger::statement::pack(&import.rows).unwrap();
        seal(import);
    }),
    ("its rows do not follow", |import| {
        import.statement.rows.clear();
        seal(import);
    }),
    ("does not say which work it pays", |import| {
        import.leaves.iter_mut().find(|(_, work)| work.is_some()).unwrap().1 = None;
    }),
    ("restore keys/secret first", |import| {
        let work = import.leaves.iter_mut().find_map(|(_, work)| work.as_mut()).unwrap();
        work.revision += 1;
    }),
    ("its token is not known yet", |import| {
        import.statement.key.token = Address::repeat_byte(0x71);
        seal(import);
    }),
    ("is not in the configuration", |import| {
        import.organisation = "nobody".into();
        let secret = secret().of_organisation("nobody");
        for (leaf, work) in &mut import.leaves {
            if let Some(work) = work {
                leaf.workload = secret.workload_id(&work.source, &work.external_id, work.revision);
            }
        }
        seal(import);
    }),
];

#[tokio::test]
async fn refuses_a_manifest_whose_parts_do_not_follow_from_each_other() {
    let (lost, manifest) = lost().await;
    for (number, (expected, forge)) in FORGERIES.into_iter().enumerate() {
        let mut forged = manifest.clone();
        forge(&mut forged);
        let said = refusal(&lost, &forged).await;
        assert!(said.contains(expected), "forgery {number}: {said}");
    }
    assert_eq!(told(&lost).await, []);
    assert!(lost.book.import(&manifest, &secret(), 0).await.unwrap());
    assert_eq!(told(&lost).await, expected(&[("operator", "import")]));
}

#[tokio::test]
async fn refuses_a_manifest_over_work_that_is_known_as_another() {
    let (lost, manifest) = lost().await;
    take(&lost, &[record(1, 4, 0, 1_000_000)]).await;
    let said = refusal(&lost, &manifest).await;
    assert!(said.contains("work \"1\" of source \"salad\" is known here as another one"), "{said}");
}

#[tokio::test]
async fn refuses_a_manifest_beside_another_candidate_of_the_same_sum() {
    let world = funded(100_000_000, 0).await;
    take(&world, &[record(1, 2, 0, 1_000_000), record(2, 3, 0, 1_000_000)]).await;
    let other = world.after_loss(Some(world.backup().path())).await;
    let first = state(&world, 1, Some(&["1"])).await;
    let manifest = world.reader.export(first.id).await.unwrap();
    let second = state(&other, 1, Some(&["2"])).await;
    assert_eq!(first.statement.spent, second.statement.spent);
    let said = refusal(&other, &manifest).await;
    assert!(said.contains("another candidate of the same epoch and sum"), "{said}");
}

#[tokio::test]
async fn a_statement_seen_outside_freezes_its_organisation_until_it_is_brought_back() {
    let world = funded(100_000_000, 100_000_000).await;
    take(&world, &[record(1, 2, 0, 1_000_000)]).await;
    let own = state(&world, 1, None).await;
    let sighting = |digest, epoch| Sighting {
        deposit: deposit_key(2).id(),
        epoch,
        digest,
        seen: "a file".into(),
    };
    assert_eq!(world.book.notice(&[], 0).await.unwrap(), 0);
    assert_eq!(world.book.notice(&[sighting(own.digest, 1)], 0).await.unwrap(), 0, "it is ours");
    let seen = [sighting(B256::repeat_byte(1), 1), sighting(B256::repeat_byte(2), 2)];
    assert_eq!(world.book.notice(&seen, 0).await.unwrap(), 2);
    assert_eq!(world.book.notice(&seen, 0).await.unwrap(), 0, "it is told once");
    let books = world.reader.books(ORGANISATION).await.unwrap().unwrap();
    assert_eq!(books.freezes.len(), 2);
    let freeze = ("relayer", "freeze");
    assert_eq!(told(&world).await, expected(&[freeze, freeze]));
    assert_eq!(world.book.cut_off(deposit_key(2).id(), 0, "no manifests", 0).await.unwrap(), 2);
    assert_eq!(world.reader.books(ORGANISATION).await.unwrap().unwrap().freezes, []);
    assert_eq!(told(&world).await, expected(&[freeze, freeze, ("operator", "cut-off")]));
}

#[tokio::test]
async fn a_cut_off_for_a_deposit_that_pays_for_nobody_is_refused() {
    let world = World::new().await;
    let error = world.book.cut_off(deposit_key(9).id(), 0, "no manifests", 0).await.unwrap_err();
    assert!(error.to_string().contains("pays for no organisation"), "{error}");
}

#[tokio::test]
async fn a_deposit_that_is_configured_no_more_freezes_whom_it_paid_for() {
    let mut world = funded(100_000_000, 0).await;
    take(&world, &[record(1, 2, 0, 1_000_000)]).await;
    let backup = world.backup();
    let paid = state(&world, 1, None).await;
    settle(&mut world, &paid).await;
    world.finalise(0).await;

    let restored = world.after_loss_with(Some(backup.path()), &[2]).await;
    restored.book.notice(&[], 0).await.unwrap();
    let freezes = async || restored.reader.books(ORGANISATION).await.unwrap().unwrap().freezes;
    let deposit = deposit_key(1).id();
    assert_eq!(freezes().await.iter().map(|f| f.deposit).collect::<Vec<_>>(), [deposit]);
    assert_eq!(restored.book.cut_off(deposit, 1, "it paid nothing else", 0).await.unwrap(), 1);
    assert_eq!(freezes().await, []);
}
