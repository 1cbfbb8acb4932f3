//! Bringing statements back from manifests: what is refused, and why.

use std::collections::BTreeSet;

use alloy::primitives::{Address, B256};
use contracts::eip712::DepositKey;
use ledger::{
    Error, Units, audit,
    book::{Import, Organisation, Sighting},
    chain::Event,
    manifest::{CARRY, Tree},
    read::SignedStatement,
    rules::{self, Next, Proposal, Prospect},
    statement,
};

use crate::{
    invariants::Damage,
    traps::{books, funded, propose, sign, state, take},
    world::{
        FEE_BPS, ORGANISATION, World, attester, deposit_key, identity, record, secret, settle,
        tariff, token,
    },
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

/// A ledger with a signed statement of the first of two deposits over work 1, and that statement's manifest.
pub(crate) async fn signed_once() -> (World, SignedStatement, Import) {
    let world = funded(100_000_000, 100_000_000).await;
    take(&world, &[record(1, 2, 0, 1_000_000)]).await;
    let signed = state(&world, 1, None).await;
    let manifest = world.reader.export(signed.id).await.unwrap();
    (world, signed, manifest)
}

/// Makes root and digest those of what the manifest says.
fn seal(import: &mut Import) {
    let leaves: Vec<_> = import.leaves.iter().map(|(leaf, _)| leaf.clone()).collect();
    import.statement.manifest = Tree::new(&leaves).root();
    import.digest = import.statement.digest(&identity().domain());
}

/// The manifest as an earlier release wrote it, which does not say what had settled of its work before.
fn untold(import: &Import) -> Import {
    let mut untold = import.clone();
    for work in untold.leaves.iter_mut().filter_map(|(_, work)| work.as_mut()) {
        work.settled = None;
    }
    untold
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
        import.statement.rows = statement::pack(&import.rows).unwrap();
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

/// What would break it: looking at what settled, and not at what can.
#[tokio::test]
async fn refuses_a_manifest_over_work_that_can_settle_elsewhere() {
    let (world, _, manifest) = signed_once().await;

    let mut lost = world.after_loss(None).await;
    take(&lost, &[record(1, 2, 0, 1_000_000)]).await;
    let elsewhere = state(&lost, 2, None).await;
    let said = refusal(&lost, &manifest).await;
    assert!(said.contains("is in epoch 1 of deposit") && said.contains("can settle"), "{said}");
    // The operator takes it for paid by the one that is missing: the other is not signed any more.
    let cut = lost.after_loss(Some(lost.backup().path())).await;
    let seen = sighting(&manifest, Some(ORGANISATION));
    assert_eq!(cut.book.notice(&[seen], 0).await.unwrap(), 1);
    cut.book.cut_off(deposit_key(1).id(), 2, "it may have been paid", 0).await.unwrap();
    let said = cut.book.sign_statement(elsewhere.id, &attester()).await.unwrap_err().to_string();
    assert!(said.contains("is regarded as paid since a cut-off"), "{said}");
    assert_eq!(cut.reader.ready_deposits().await.unwrap(), [], "nor is it sent");
    // An empty statement retires the epoch, and nothing but the manifest pays the work then.
    let deposit = lost.reader.deposit_state(deposit_key(2).id()).await.unwrap();
    let empty = Proposal::default();
    let retiring =
        lost.book.record_statement(deposit_key(2).id(), &deposit, &empty, FEE_BPS).await.unwrap();
    assert_ne!(retiring.id, elsewhere.id);
    let retiring = lost.book.sign_statement(retiring.id, &attester()).await.unwrap();
    settle(&mut lost, &retiring).await;
    lost.finalise(0).await;
    assert!(lost.book.import(&manifest, &secret(), 0).await.unwrap());
}

/// What would break it: taking the revision of a leaf for all that tells whether it pays once more.
#[tokio::test]
async fn refuses_a_manifest_of_the_whole_where_a_part_was_paid_meanwhile() {
    let day = [record(1, 2, 0, 1_000_000), record(1, 2, 1, 1_500_000)];
    let world = funded(100_000_000, 100_000_000).await;
    take(&world, &day).await;
    let whole = state(&world, 1, None).await;
    let manifest = world.reader.export(whole.id).await.unwrap();
    let mut lost = world.after_loss(None).await;
    take(&lost, &day[..1]).await;
    let part = state(&lost, 2, None).await;
    settle(&mut lost, &part).await;
    lost.finalise(0).await;
    for manifest in [&manifest, &untold(&manifest)] {
        let said = refusal(&lost, manifest).await;
        assert!(said.contains("was paid meanwhile, and it would pay it again"), "{said}");
    }

    // What adds to a part that it knows of is brought back, whichever of the two comes first, and comes to both.
    take(&lost, &day).await;
    let rest = state(&lost, 1, None).await;
    let part = lost.reader.export(part.id).await.unwrap();
    let added = lost.reader.export(rest.id).await.unwrap();
    let old = [untold(&part), untold(&added)];
    for order in [[&part, &added], [&added, &part], [&old[0], &old[1]], [&old[1], &old[0]]] {
        let mut again = lost.after_loss(None).await;
        for manifest in order {
            assert!(again.book.import(manifest, &secret(), 0).await.unwrap());
        }
        let id = statement_id(&again, &rest).await;
        let signed = again.book.sign_statement(id, &attester()).await.unwrap();
        settle(&mut again, &signed).await;
        again.finalise(0).await;
        take(&again, &day).await;
        assert_eq!(books(&again).await.open, []);
    }
}

/// What would break it: looking at what pays, and not at what takes back.
#[tokio::test]
async fn refuses_a_manifest_that_takes_back_what_can_be_taken_back_elsewhere() {
    let mut world = funded(100_000_000, 100_000_000).await;
    take(&world, &[record(1, 2, 0, 1_000_000)]).await;
    let paid = state(&world, 1, None).await;
    settle(&mut world, &paid).await;
    world.finalise(0).await;
    let day = [record(1, 2, 1, 400_000), record(5, 2, 0, 2_000_000), record(6, 2, 0, 2_000_000)];
    take(&world, &day).await;
    let backup = world.backup();
    let netted = state(&world, 1, Some(&["1", "5"])).await;
    let manifest = world.reader.export(netted.id).await.unwrap();
    assert!(manifest.leaves.iter().any(|(leaf, _)| leaf.amount < 0));

    for settles in [false, true] {
        let mut lost = world.after_loss(Some(backup.path())).await;
        let own = state(&lost, 2, Some(&["1", "6"])).await;
        let said = refusal(&lost, &manifest).await;
        assert!(said.contains("work \"1\"") && said.contains("can settle"), "{said}");
        assert_sound(&lost, "refused").await;
        if settles {
            settle(&mut lost, &own).await;
            lost.finalise(0).await;
            for manifest in [&manifest, &untold(&manifest)] {
                let said = refusal(&lost, manifest).await;
                assert!(said.contains("would take it back again"), "{said}");
            }
            settle(&mut lost, &netted).await;
        } else {
            let deposit = lost.reader.deposit_state(deposit_key(2).id()).await.unwrap();
            let retiring = sign(&lost, 2, (deposit, Proposal::default())).await;
            settle(&mut lost, &retiring).await;
        }
        lost.finalise(0).await;
        assert!(lost.book.import(&manifest, &secret(), 0).await.unwrap());
        assert_sound(&lost, "brought back").await;
    }
}

/// What would break it: refusing whatever takes back once more, though the work was paid again in between.
#[tokio::test]
async fn a_manifest_that_takes_back_what_was_paid_again_is_brought_back() {
    let mut world = funded(100_000_000, 100_000_000).await;
    let revisions = [1_000_000, 400_000, 1_000_000, 500_000];
    for (revision, (amount, deposit)) in (0..).zip(revisions.into_iter().zip([1, 1, 1, 2])) {
        let other = record(10 + u64::from(revision), 2, 0, 2_000_000);
        take(&world, &[record(1, 2, revision, amount), other]).await;
        let backup = world.backup();
        let signed = state(&world, deposit, None).await;
        if deposit == 1 {
            settle(&mut world, &signed).await;
            world.finalise(0).await;
            continue;
        }
        let manifest = world.reader.export(signed.id).await.unwrap();
        assert!(manifest.leaves.iter().any(|(leaf, _)| leaf.amount < 0));
        let lost = world.after_loss(Some(backup.path())).await;
        assert!(lost.book.import(&manifest, &secret(), 0).await.unwrap());
        assert_sound(&lost, "brought back").await;
    }
}

/// What would break it: taking what is not read yet for what could settle besides.
#[tokio::test]
async fn manifests_are_brought_back_before_the_blocks_that_settled_them_are_read() {
    let day = [record(1, 2, 0, 1_000_000), record(1, 2, 1, 1_500_000)];
    for deposits in [[1, 1], [1, 2]] {
        let mut world = funded(100_000_000, 100_000_000).await;
        let mut manifests = Vec::new();
        for (revision, deposit) in day.iter().zip(deposits) {
            take(&world, std::slice::from_ref(revision)).await;
            let paid = state(&world, deposit, None).await;
            settle(&mut world, &paid).await;
            world.finalise(0).await;
            manifests.push(world.reader.export(paid.id).await.unwrap());
        }
        let lost = world.after_loss_behind(1).await;
        for manifest in manifests.iter().rev().chain(&manifests) {
            let is_known = lost.reader.is_own(manifest.digest).await.unwrap();
            assert_eq!(lost.book.import(manifest, &secret(), 0).await.unwrap(), !is_known);
            assert_sound(&lost, "not read yet").await;
        }
        lost.read_on(&world).await;
        take(&lost, &day).await;
        lost.book.accept_unfunded(ORGANISATION, &tariff(), 0).await.unwrap();
        assert_eq!(books(&lost).await.open, []);
    }
}

async fn statement_id(world: &World, signed: &SignedStatement) -> i64 {
    let candidates = world.reader.next_candidates(signed.statement.key.id()).await.unwrap();
    candidates.iter().find(|candidate| candidate.spent == signed.statement.spent).unwrap().id
}

/// What would break it: signing what was brought back before the manifest that says that others have paid it.
#[tokio::test]
async fn what_a_second_loss_brings_back_before_what_paid_it_is_not_signed_and_stops_nobody() {
    let (world, _, manifest) = signed_once().await;
    let mut lost = world.after_loss(None).await;
    take(&lost, &[record(1, 2, 0, 1_000_000)]).await;
    let paid = state(&lost, 2, None).await;
    settle(&mut lost, &paid).await;
    let paid = lost.reader.export(paid.id).await.unwrap();
    for manifests in [
        [manifest.clone(), paid.clone()],
        [untold(&manifest), paid.clone()],
        [untold(&manifest), untold(&paid)],
    ] {
        let again = lost.after_loss(None).await;
        assert_stopped_and_paid_once(again, &manifests).await;
    }
}

/// Checks that of the statements of these manifests over work 1, of which the second has settled, the first pays nothing any more.
async fn assert_stopped_and_paid_once(mut again: World, manifests: &[Import; 2]) {
    assert!(again.book.import(&manifests[0], &secret(), 0).await.unwrap());
    let said = refusal(&again, &manifests[1]).await;
    assert!(said.contains("which can settle or has not settled finally"), "{said}");
    again.finalise(0).await;
    assert!(again.book.import(&manifests[1], &secret(), 0).await.unwrap());
    let candidate = again.reader.next_candidates(deposit_key(1).id()).await.unwrap().remove(0);
    assert_eq!((candidate.pays_again, candidate.fits), (true, false));
    let said = again.book.sign_statement(candidate.id, &attester()).await.unwrap_err().to_string();
    assert!(said.contains("was paid meanwhile, and it would pay it again"), "{said}");
    // Nothing else being due, an empty statement ends what could still settle.
    let known = rules::Candidate {
        spent: candidate.spent,
        total: candidate.total,
        is_signed: candidate.is_signed,
        is_sent: false,
        has_waited: false,
        pays_again: candidate.pays_again,
    };
    let state_of = again.reader.deposit_state(deposit_key(1).id()).await.unwrap();
    let prospect = Prospect { state: state_of, fresh: Units::ZERO, can_move: true };
    assert_eq!(rules::next_candidate(&[known], &prospect), Next::Retire);
    take(&again, &[record(3, 4, 0, 1_000_000)]).await;
    let next = state(&again, 1, None).await;
    settle(&mut again, &next).await;
    again.finalise(0).await;
    assert_eq!(again.reader.next_candidates(deposit_key(1).id()).await.unwrap(), []);
    take(&again, &[record(1, 2, 0, 1_000_000)]).await;
    let open = books(&again).await.open;
    assert!(open.iter().all(|item| item.external_id != "1"), "{open:?}");
}

/// What would break it: taking what was paid besides for what had been paid before, where the manifest does not say.
#[tokio::test]
async fn an_old_manifest_that_is_out_is_no_reason_to_pay_its_work_again() {
    let (world, _, manifest) = signed_once().await;
    let mut lost = world.after_loss(None).await;
    take(&lost, &[record(1, 2, 0, 1_000_000)]).await;
    for (deposit, work) in [(2, None), (1, Some(record(3, 4, 0, 2_000_000)))] {
        take(&lost, work.as_slice()).await;
        let signed = state(&lost, deposit, None).await;
        settle(&mut lost, &signed).await;
        lost.finalise(0).await;
    }
    for manifest in [manifest.clone(), untold(&manifest)] {
        let again = lost.after_loss(Some(lost.backup().path())).await;
        assert!(again.book.import(&manifest, &secret(), 0).await.unwrap());
        assert_eq!(books(&again).await.open, []);
        assert_sound(&again, "its epoch is another's").await;
    }
}

/// What would break it: bringing back, and signing, whatever was signed once.
#[tokio::test]
async fn refuses_a_manifest_that_would_pay_again_what_was_paid_while_it_was_missing() {
    let (world, signed, manifest) = signed_once().await;

    let mut lost = world.after_loss(None).await;
    take(&lost, &[record(1, 2, 0, 1_000_000)]).await;
    let other = state(&lost, 2, None).await;
    settle(&mut lost, &other).await;
    lost.finalise(0).await;
    let said = refusal(&lost, &manifest).await;
    assert!(said.contains("was paid meanwhile, and it would pay it again"), "{said}");

    // What has settled is brought back whatever it paid.
    let mut fresh = world.after_loss(None).await;
    take(&fresh, &[record(1, 2, 0, 1_000_000)]).await;
    assert!(fresh.book.import(&manifest, &secret(), 0).await.unwrap());
    settle(&mut fresh, &signed).await;
}

/// A ledger that paid work 1 from the second deposit while the manifest of a statement of the first was lost, and that has read
/// since that the first one has settled as well; that manifest, and the second one's.
async fn paid_twice() -> (World, [Import; 2]) {
    let (world, signed, manifest) = signed_once().await;
    let mut lost = world.after_loss(None).await;
    take(&lost, &[record(1, 2, 0, 1_000_000)]).await;
    let again = state(&lost, 2, None).await;
    settle(&mut lost, &again).await;
    lost.finalise(0).await;
    let said = refusal(&lost, &manifest).await;
    assert!(said.contains("see what its deposit has settled, then run recover again"), "{said}");
    settle(&mut lost, &signed).await;
    lost.finalise(0).await;
    assert_eq!(lost.book.notice(&[], 0).await.unwrap(), 1);
    let manifests = [manifest, lost.reader.export(again.id).await.unwrap()];
    (lost, manifests)
}

/// What would break it: believing that what the chain has shown once has settled.
#[tokio::test]
async fn refuses_a_manifest_of_what_a_reorg_undid_over_work_that_can_settle_elsewhere() {
    let (world, signed, manifest) = signed_once().await;
    let mut lost = world.after_loss(None).await;
    take(&lost, &[record(1, 2, 0, 1_000_000)]).await;
    state(&lost, 2, None).await;
    settle(&mut lost, &signed).await;
    for is_settled in [true, false] {
        let said = refusal(&lost, &manifest).await;
        assert!(said.contains("which can settle or has not settled finally"), "{said}");
        assert_sound(&lost, "refused").await;
        if is_settled {
            assert_eq!(lost.reorg(1).await, 1);
        }
    }
    settle(&mut lost, &signed).await;
    lost.finalise(0).await;
    assert!(lost.book.import(&manifest, &secret(), 0).await.unwrap());
    assert_sound(&lost, "it has settled again").await;
}

/// What a manifest pays for work.
fn paid_for_work(import: &Import) -> i128 {
    import.leaves.iter().filter(|(_, work)| work.is_some()).map(|(leaf, _)| leaf.amount).sum()
}

/// Checks that work 1 was paid so much too much, and that the next work of the same machine is paid so much less.
async fn assert_netted(world: &mut World, excess: i128) {
    assert_sound(world, "what was paid twice is known").await;
    let open = books(world).await.open;
    assert_eq!(open.iter().map(|item| item.due().unwrap()).collect::<Vec<_>>(), [-excess]);
    take(world, &[record(5, 2, 0, 3_000_000)]).await;
    let due: Vec<_> = books(world).await.open.iter().map(|item| item.due().unwrap()).collect();
    let next = state(world, 1, None).await;
    let leaves = world.reader.named_leaves(next.id).await.unwrap();
    let work = leaves.iter().filter(|named| named.name.is_some()).map(|named| named.leaf.amount);
    assert_eq!(work.collect::<BTreeSet<_>>(), due.into_iter().collect());
    settle(world, &next).await;
    world.finalise(0).await;
    assert_eq!(books(world).await.open, []);
    assert_sound(world, "it is netted").await;
}

/// What would break it: taking what a statement that was lost has paid besides for a payment of this ledger.
#[tokio::test]
async fn what_a_lost_statement_paid_besides_is_owed_back_and_stops_nobody() {
    for is_told in [true, false] {
        let (mut lost, [first, _]) = paid_twice().await;
        let first = if is_told { first } else { untold(&first) };
        assert!(lost.book.import(&first, &secret(), 0).await.unwrap());
        assert_netted(&mut lost, paid_for_work(&first)).await;
    }

    // So it is where it is told by nothing but manifests, in whichever order they come.
    let (lost, manifests) = paid_twice().await;
    let [first, second] = &manifests;
    let old = [untold(first), untold(second)];
    for [one, other] in [
        [first, second],
        [second, first],
        [&old[0], second],
        [second, &old[0]],
        [&old[0], &old[1]],
        [&old[1], &old[0]],
    ] {
        for blocks in [1, lost.blocks.len()] {
            let mut again = lost.after_loss_behind(blocks).await;
            // Before the blocks are read and final, one of the two is refused.
            assert!(again.book.import(one, &secret(), 0).await.unwrap());
            refusal(&again, other).await;
            again.read_on(&lost).await;
            again.book.import(other, &secret(), 0).await.unwrap();
            take(&again, &[record(1, 2, 0, 1_000_000)]).await;
            again.book.accept_unfunded(ORGANISATION, &tariff(), 0).await.unwrap();
            assert_netted(&mut again, paid_for_work(&manifests[0])).await;
        }
    }
}

/// What would break it: looking for a second payment of the same revision only.
#[tokio::test]
async fn what_a_lost_statement_paid_of_another_revision_is_owed_back_and_stops_nobody() {
    let day = [record(1, 2, 0, 1_000_000), record(1, 2, 1, 1_500_000)];
    for [first, second] in [[&day[..1], &day], [&day, &day[..1]]] {
        let world = funded(100_000_000, 100_000_000).await;
        take(&world, first).await;
        let signed = state(&world, 1, None).await;
        let manifest = world.reader.export(signed.id).await.unwrap();
        let mut lost = world.after_loss(None).await;
        take(&lost, second).await;
        let again = state(&lost, 2, None).await;
        settle(&mut lost, &again).await;
        settle(&mut lost, &signed).await;
        lost.finalise(0).await;
        let again = lost.reader.export(again.id).await.unwrap();
        for manifest in [manifest.clone(), untold(&manifest)] {
            let mut lost = lost.after_loss(Some(lost.backup().path())).await;
            assert!(lost.book.import(&manifest, &secret(), 0).await.unwrap());
            assert_sound(&lost, "the record may be missing").await;
            take(&lost, &day).await;
            let excess = paid_for_work(&manifest).min(paid_for_work(&again));
            assert_netted(&mut lost, excess).await;
        }
    }
}

/// What would break it: letting everything pass that concerns work which a statement brought back has paid.
#[tokio::test]
async fn what_this_ledger_paid_twice_is_found_whatever_was_brought_back_besides() {
    // Both are of this ledger; or the second was stated when it was known what the first one had paid; or there is a third.
    let first = "(select id from statement where deposit = (select deposit from funding where position = 0))";
    let second = "(select id from statement where deposit = (select deposit from funding where position = 1))";
    let damages = [
        "delete from imported".to_owned(),
        format!(
            "update leaf set settled = (select amount from leaf where statement = {first} and item is not null)
             where statement = {second} and item is not null"
        ),
        format!(
            "update leaf set amount = x'0000000000000000ffffffffffffffff' where statement = {second} and item is not null"
        ),
    ];
    for sql in damages {
        let (lost, [first, _]) = paid_twice().await;
        assert!(lost.book.import(&first, &secret(), 0).await.unwrap());
        assert_sound(&lost, "before any damage").await;
        let mut damage = Damage::to(&lost).await;
        assert_eq!(damage.run(&sql).await.unwrap(), 1, "{sql}");
        let found = ledger::invariants::violations(&lost.ledger).await.unwrap();
        assert!(found.iter().any(|found| found.invariant == "L17"), "{sql}: {found:?}");
    }

    // Of two that were both brought back, one is the payment.
    let (lost, manifests) = paid_twice().await;
    let again = lost.after_loss(None).await;
    for manifest in &manifests {
        assert!(again.book.import(manifest, &secret(), 0).await.unwrap());
    }
    take(&again, &[record(1, 2, 0, 1_000_000)]).await;
    assert_sound(&again, "before any damage").await;
    let mut damage = Damage::to(&again).await;
    let sql = "update leaf set amount = x'0000000000000000ffffffffffffffff'
         where item is not null and statement = (select max(statement) from leaf where item is not null)";
    assert_eq!(damage.run(sql).await.unwrap(), 1);
    let found = ledger::invariants::violations(&again.ledger).await.unwrap();
    assert!(found.iter().any(|found| found.invariant == "L17"), "{found:?}");
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
        organisation: None,
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

/// What would break it: counting what was brought back, or what may settle yet, among the epochs that are cut off.
#[tokio::test]
async fn what_settles_after_a_cut_off_of_its_epoch_freezes_whatever_was_known_of_that_epoch() {
    let mut world = funded(100_000_000, 0).await;
    take(&world, &[record(1, 2, 0, 1_000_000)]).await;
    let first = state(&world, 1, None).await;
    settle(&mut world, &first).await;
    world.finalise(0).await;
    take(&world, &[record(2, 3, 0, 1_000_000)]).await;
    let smaller = state(&world, 1, None).await;
    take(&world, &[record(3, 4, 0, 1_000_000)]).await;
    let larger = state(&world, 1, None).await;
    let smaller = world.reader.export(smaller.id).await.unwrap();
    let deposit = deposit_key(1).id();

    for is_imported in [true, false] {
        let mut lost = world.after_loss(None).await;
        lost.mine(Vec::new()).await;
        if is_imported {
            assert!(lost.book.import(&smaller, &secret(), 0).await.unwrap());
        } else {
            lost.book.notice(&[sighting(&smaller, Some(ORGANISATION))], 0).await.unwrap();
        }
        let epoch = lost.book.cut_off(deposit, 2, "epoch 1 is lost", 0).await.unwrap();
        assert_eq!(epoch, if is_imported { 1 } else { 2 }, "what was brought back is known");
        lost.finalise(0).await;
        assert_eq!(books(&lost).await.freezes, []);
        let said = lost.book.cut_off(deposit, 2, "again", 0).await.unwrap_err().to_string();
        assert!(said.contains("nothing to cut off"), "{said}");

        settle(&mut lost, &larger).await;
        lost.finalise(0).await;
        for _ in 0..2 {
            assert!(are_frozen(&lost).await[0], "imported: {is_imported}");
            lost.book.notice(&[], 0).await.unwrap();
        }
        assert_eq!(lost.book.cut_off(deposit, 4, "it is lost", 0).await.unwrap(), 2);
        assert_eq!(books(&lost).await.freezes, []);
    }
}

/// What would break it: freezing for a candidate that can never settle, since another one has for good.
#[tokio::test]
async fn the_manifest_of_a_rival_that_is_out_freezes_no_epoch_that_is_cut_off() {
    let (mut world, first, _) = signed_once().await;
    settle(&mut world, &first).await;
    world.finalise(0).await;
    take(&world, &[record(2, 3, 0, 1_000_000)]).await;
    let rival = state(&world, 1, None).await;
    take(&world, &[record(3, 4, 0, 1_000_000)]).await;
    let larger = state(&world, 1, None).await;
    let deposit = deposit_key(1).id();
    let sightings = [&rival, &larger].map(|signed| signed.id);
    let [rival, own] = [
        world.reader.export(sightings[0]).await.unwrap(),
        world.reader.export(sightings[1]).await.unwrap(),
    ];

    let mut lost = world.after_loss(None).await;
    settle(&mut lost, &larger).await;
    lost.finalise(0).await;
    assert!(books(&lost).await.freezes.iter().any(|freeze| freeze.epoch == 2));
    assert_eq!(lost.book.cut_off(deposit, 2, "it is lost", 0).await.unwrap(), 2);
    assert_eq!(lost.book.notice(&[sighting(&rival, Some(ORGANISATION))], 0).await.unwrap(), 1);
    assert_eq!(books(&lost).await.freezes, []);

    // What has settled stays unknown, whoever else is out; also if its deposit is of nobody who is known here.
    let mut lost = world.after_loss(None).await;
    lost.book.notice(&[sighting(&rival, None), sighting(&own, None)], 0).await.unwrap();
    settle(&mut lost, &larger).await;
    lost.finalise(0).await;
    assert!(books(&lost).await.freezes.iter().any(|freeze| freeze.epoch == 2));
}

/// What would break it: believing where a file's name says that a statement belongs.
#[tokio::test]
async fn a_cut_off_covers_what_settled_by_its_deposit_and_not_by_the_name_of_a_file() {
    let (world, signed, manifest) = signed_once().await;
    let mut lost = world.after_loss(None).await;
    let (own, other) = (deposit_key(1).id(), deposit_key(2).id());
    let misnamed = Sighting { deposit: other, ..sighting(&manifest, None) };
    assert_eq!(lost.book.notice(&[misnamed], 7).await.unwrap(), 1);
    settle(&mut lost, &signed).await;
    lost.finalise(0).await;
    let frozen = async |lost: &World| {
        let freezes = books(lost).await.freezes;
        freezes.iter().map(|freeze| freeze.deposit).collect::<BTreeSet<_>>()
    };
    assert_eq!(frozen(&lost).await, BTreeSet::from([own, other]));
    lost.book.cut_off(other, 2, "a name", 0).await.unwrap();
    assert_eq!(frozen(&lost).await, BTreeSet::from([own]));
    lost.book.cut_off(own, 2, "it is lost", 0).await.unwrap();
    assert_eq!(frozen(&lost).await, BTreeSet::new());
}

#[tokio::test]
async fn a_cut_off_for_a_deposit_that_pays_for_nobody_is_refused() {
    let world = World::new().await;
    let error = world.book.cut_off(deposit_key(9).id(), 0, "no manifests", 0).await.unwrap_err();
    assert!(error.to_string().contains("pays for no organisation"), "{error}");
}

#[tokio::test]
async fn what_was_recorded_of_a_deposit_that_is_configured_no_more_is_not_signed_while_its_organisation_is_frozen()
 {
    let world = funded(100_000_000, 100_000_000).await;
    take(&world, &[record(1, 2, 0, 1_000_000)]).await;
    let (state, proposal) = propose(&world, 1, None).await;
    let deposit = deposit_key(1).id();
    let recorded = world.book.record_statement(deposit, &state, &proposal, FEE_BPS).await.unwrap();
    let other = deposit_key(2);
    let acme =
        Organisation { name: ORGANISATION.into(), token: token(), deposits: vec![other.id()] };
    world.book.set_organisations(&[acme], other.signer, 0).await.unwrap();
    let (digest, seen) = (B256::repeat_byte(9), "a manifest".into());
    let sighting = Sighting { deposit: other.id(), epoch: 1, digest, seen, organisation: None };
    world.book.notice(&[sighting], 0).await.unwrap();
    let refused = world.book.sign_statement(recorded.id, &attester()).await;
    assert!(matches!(refused, Err(Error::Unsignable(_))), "{refused:?}");
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

/// A second organisation, beside [`ORGANISATION`].
const OTHER: &str = "other";

/// Makes these the deposits of both organisations.
async fn configure(world: &World, first: &[u8], second: &[u8]) {
    let organisation = |name: &str, deposits: &[u8]| Organisation {
        name: name.into(),
        token: token(),
        deposits: deposits.iter().map(|number| deposit_key(*number).id()).collect(),
    };
    let organisations = [organisation(ORGANISATION, first), organisation(OTHER, second)];
    let attester = statement::address_of(attester().verifying_key());
    world.book.set_organisations(&organisations, attester, 0).await.unwrap();
}

/// A ledger that is lost after a statement of the first deposit was signed, which now pays for [`OTHER`] or for nobody, and
/// that statement's manifest.
async fn lost_and_configured_anew(pays_for_other: bool) -> (World, Import) {
    let (world, _, manifest) = signed_once().await;
    let lost = world.after_loss_with(None, &[2]).await;
    configure(&lost, &[2], if pays_for_other { &[1] } else { &[] }).await;
    (lost, manifest)
}

fn sighting(manifest: &Import, organisation: Option<&str>) -> Sighting {
    Sighting {
        deposit: manifest.statement.key.id(),
        epoch: manifest.statement.epoch,
        digest: manifest.digest,
        seen: "a file".into(),
        organisation: organisation.map(Into::into),
    }
}

/// Whether nothing may be stated for either organisation.
async fn are_frozen(world: &World) -> [bool; 2] {
    let mut frozen = [false; 2];
    for (is_frozen, name) in frozen.iter_mut().zip([ORGANISATION, OTHER]) {
        *is_frozen = !world.reader.freezes(name).await.unwrap().is_empty();
    }
    frozen
}

#[tokio::test]
async fn a_manifest_freezes_the_organisation_that_it_names_whomever_its_deposit_pays_for_now() {
    let (lost, manifest) = lost_and_configured_anew(false).await;
    lost.book.notice(&[sighting(&manifest, Some(ORGANISATION))], 0).await.unwrap();
    assert_eq!(are_frozen(&lost).await, [true, false]);

    let (lost, manifest) = lost_and_configured_anew(true).await;
    lost.book.notice(&[sighting(&manifest, Some(ORGANISATION))], 0).await.unwrap();
    assert_eq!(are_frozen(&lost).await, [true, true], "what is unknown may be of either");
    assert!(lost.book.import(&manifest, &secret(), 0).await.unwrap());
    assert_eq!(are_frozen(&lost).await, [false, false]);
}

#[tokio::test]
async fn a_manifest_that_can_be_read_later_freezes_whom_it_names_from_then_on() {
    let (lost, manifest) = lost_and_configured_anew(true).await;
    lost.book.notice(&[sighting(&manifest, None)], 0).await.unwrap();
    assert_eq!(are_frozen(&lost).await, [false, true]);
    assert_eq!(lost.book.cut_off(deposit_key(1).id(), 0, "it is lost", 0).await.unwrap(), 1);
    assert_eq!(are_frozen(&lost).await, [false, false]);
    // What was said of one organisation's work says nothing about another's.
    let named = sighting(&manifest, Some(ORGANISATION));
    assert_eq!(lost.book.notice(&[named], 0).await.unwrap(), 0, "it is told once");
    assert_eq!(are_frozen(&lost).await, [true, false]);
    assert_eq!(lost.book.cut_off(deposit_key(1).id(), 0, "it is lost", 0).await.unwrap(), 1);
    assert_eq!(are_frozen(&lost).await, [false, false]);
}

#[tokio::test]
async fn a_manifest_that_nobody_can_read_freezes_everybody_until_it_is_brought_back_or_cut_off() {
    for names in [None, Some("nobody")] {
        let (mut lost, manifest) = lost_and_configured_anew(false).await;
        lost.book.notice(&[sighting(&manifest, names)], 0).await.unwrap();
        assert_eq!(are_frozen(&lost).await, [true, true]);
        lost.mine(Vec::new()).await;
        assert!(lost.book.import(&manifest, &secret(), 0).await.unwrap());
        assert_eq!(are_frozen(&lost).await, [true, false], "the rest of what it paid waits");
        lost.finalise(0).await;
        assert_eq!(are_frozen(&lost).await, [false, false]);
    }
    let (lost, manifest) = lost_and_configured_anew(false).await;
    lost.book.notice(&[sighting(&manifest, None)], 0).await.unwrap();
    assert_eq!(lost.book.cut_off(deposit_key(1).id(), 10, "it is lost", 0).await.unwrap(), 1);
    assert_eq!(are_frozen(&lost).await, [false, false]);
    take(&lost, &[record(1, 2, 0, 1_000_000)]).await;
    let books = lost.reader.books(ORGANISATION).await.unwrap().unwrap();
    assert_eq!(books.open, [], "the work ended before the cut-off");
}

#[tokio::test]
async fn a_settled_statement_of_the_attesters_deposit_freezes_everybody_until_it_is_explained() {
    let (mut lost, manifest) = lost_and_configured_anew(false).await;
    lost.settle(manifest.statement.clone()).await;
    assert_eq!(are_frozen(&lost).await, [true, true]);
    assert_eq!(lost.book.notice(&[], 0).await.unwrap(), 1);
    lost.book.notice(&[sighting(&manifest, Some(ORGANISATION))], 0).await.unwrap();
    assert_eq!(are_frozen(&lost).await, [true, false], "its manifest names whom it paid for");
    lost.finalise(0).await;
    assert!(lost.book.import(&manifest, &secret(), 0).await.unwrap());
    assert_eq!(are_frozen(&lost).await, [false, false]);
}

#[tokio::test]
async fn a_settled_statement_of_somebody_elses_deposit_freezes_nobody() {
    let mut world = funded(100_000_000, 100_000_000).await;
    configure(&world, &[1], &[2]).await;
    let key = DepositKey { signer: Address::repeat_byte(0x51), ..deposit_key(3) };
    let units = Units::new(100);
    world.mine(vec![Event::Funded { sender: key.requestor, key: key.clone(), units }]).await;
    let (spent, manifest, rows) = (Units::ZERO, B256::ZERO, Vec::new());
    let deposit = key.id();
    world.mine(vec![Event::Settled { deposit, epoch: 1, spent, manifest, rows }]).await;
    assert_eq!(world.book.notice(&[], 0).await.unwrap(), 0);
    assert_eq!(are_frozen(&world).await, [false, false]);
}

/// A ledger that is lost after three statements of one deposit settled, each with a carry for the one after it, and their
/// manifests.
async fn lost_after_three() -> (World, Vec<Import>) {
    let mut world = funded(100_000_000, 0).await;
    let mut manifests = Vec::new();
    for work in 1..=3 {
        take(&world, &[record(work, 2, 0, 1_000_000)]).await;
        let paid = state(&world, 1, None).await;
        settle(&mut world, &paid).await;
        world.finalise(0).await;
        manifests.push(world.reader.export(paid.id).await.unwrap());
    }
    (world.after_loss(None).await, manifests)
}

async fn assert_sound(world: &World, when: &str) {
    let found = ledger::invariants::violations(&world.ledger).await.unwrap();
    assert_eq!(found, [], "{when}");
}

/// The carry that a statement brings in for machine 2.
async fn carry_in(world: &World, statement: i64) -> i128 {
    let leaves = world.reader.named_leaves(statement).await.unwrap();
    let mut carries = leaves.iter().map(|named| &named.leaf);
    carries.find(|leaf| leaf.workload == CARRY && leaf.provider == 2).map_or(0, |leaf| leaf.amount)
}

/// Brings back some of the three manifests, cuts off the rest, and states new work.
async fn state_after_some(part: u8) -> (World, Vec<Import>, SignedStatement) {
    let (lost, manifests) = lost_after_three().await;
    for (epoch, manifest) in manifests.iter().enumerate().filter(|(at, _)| part & (1 << at) != 0) {
        assert!(lost.book.import(manifest, &secret(), 0).await.unwrap());
        assert_sound(&lost, &format!("part {part}, after epoch {}", epoch + 1)).await;
    }
    if part != 7 {
        lost.book.cut_off(deposit_key(1).id(), 10, "the rest is lost", 0).await.unwrap();
    }
    take(&lost, &[record(20, 2, 0, 1_000_000)]).await;
    let next = state(&lost, 1, None).await;
    assert_sound(&lost, &format!("part {part}, stated")).await;
    (lost, manifests, next)
}

#[tokio::test]
async fn whichever_manifests_are_brought_back_the_ledger_is_sound_and_no_carry_is_paid_twice() {
    for part in 0..8 {
        let (mut lost, manifests, next) = state_after_some(part).await;
        // What the last statement carried out is owed if it is known, and nothing before it is.
        let last = manifests[2].rows.iter().find(|row| row.provider == 2).unwrap();
        let expected = if part & 4 != 0 { last.carry_out.signed().unwrap() } else { 0 };
        assert_eq!(carry_in(&lost, next.id).await, expected, "part {part}");
        settle(&mut lost, &next).await;
        lost.finalise(0).await;
        assert_sound(&lost, &format!("part {part}, settled")).await;
    }
}

#[tokio::test]
async fn manifests_that_turn_up_after_a_cut_off_leave_the_ledger_sound() {
    for part in 0..7 {
        let (mut lost, manifests, next) = state_after_some(part).await;
        for manifest in &manifests {
            lost.book.import(manifest, &secret(), 0).await.unwrap();
            assert_sound(&lost, &format!("part {part}, all of it")).await;
        }
        settle(&mut lost, &next).await;
        lost.finalise(0).await;
        assert_sound(&lost, &format!("part {part}, settled")).await;
        // A second loss takes the cut-off along, which is in no file.
        let again = lost.after_loss(None).await;
        let own = lost.reader.export(next.id).await.unwrap();
        for manifest in manifests.iter().chain([&own]) {
            assert!(again.book.import(manifest, &secret(), 0).await.unwrap());
            assert_sound(&again, &format!("part {part}, lost again")).await;
        }
    }
}

/// What would break it: asking of what was brought back what nobody can know any more.
#[tokio::test]
async fn a_candidate_whose_predecessor_was_lost_is_brought_back_and_stops_nobody() {
    let mut world = funded(100_000_000, 0).await;
    take(&world, &[record(1, 2, 0, 1_000_000), record(2, 3, 0, 1_000_000)]).await;
    let undone = state(&world, 1, Some(&["1"])).await;
    let settled = state(&world, 1, None).await;
    settle(&mut world, &undone).await;
    take(&world, &[record(3, 4, 0, 1_000_000)]).await;
    let successor = state(&world, 1, Some(&["3"])).await;
    world.reorg(1).await;
    settle(&mut world, &settled).await;
    world.finalise(0).await;

    let lost = world.after_loss(None).await;
    for statement in [&settled, &successor] {
        let manifest = world.reader.export(statement.id).await.unwrap();
        assert!(lost.book.import(&manifest, &secret(), 0).await.unwrap());
    }
    assert_sound(&lost, "what it follows is lost").await;
}

/// What would break it: inserting what the chain has shown once.
#[tokio::test]
async fn a_statement_that_a_reorg_dropped_is_stated_again_though_the_chain_showed_it_first() {
    let (world, signed, _) = signed_once().await;
    let mut lost = world.after_loss(None).await;
    settle(&mut lost, &signed).await;
    assert_eq!(lost.book.notice(&[], 0).await.unwrap(), 1);
    assert_eq!(lost.reorg(1).await, 1);
    lost.book.cut_off(deposit_key(1).id(), 1, "it paid nothing", 0).await.unwrap();
    take(&lost, &[record(1, 2, 0, 1_000_000)]).await;
    let again = state(&lost, 1, None).await;
    assert_eq!(again.digest, signed.digest);
    assert_sound(&lost, "stated again").await;
    settle(&mut lost, &again).await;
    lost.finalise(0).await;
    assert_eq!(books(&lost).await.open, []);
}
