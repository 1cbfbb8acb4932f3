//! Faults planted into a world that is right: each is found, and named with its deposit, epoch, workload and what it should
//! be.

use std::collections::BTreeMap;

use alloy::primitives::{Address, B256, I256, U256};
use ledger::manifest::{CARRY, FEE, Leaf as ProductLeaf, Secret, Tree};
use relayer::opinion::{Case, Decision, Event, Leaf, Verdict, judge};

use crate::world::{OPERATOR, World, settled_event, sign};

/// A fault: its name, how it is planted, and what the difference has to say.
type Fault = (&'static str, fn(&mut World) -> Expected);

/// What the opinion has to say of a fault.
struct Expected {
    place: Option<(B256, u32)>,
    workload: Option<String>,
    problem: String,
}

impl Expected {
    fn of(manifest: &relayer::opinion::Manifest, problem: impl Into<String>) -> Self {
        let place = Some((manifest.deposit, manifest.epoch));
        Self { place, workload: None, problem: problem.into() }
    }

    fn work(mut self, leaf: &Leaf) -> Self {
        let (source, external_id, revision) = leaf.name.clone().unwrap();
        self.workload = Some(format!("{source}/{external_id} revision {revision}"));
        self
    }
}

const FAULTS: [Fault; 28] = [
    ("an amount is one base unit too high", |world| {
        let (index, at) = last_work(&world.case, 18);
        let should = world.case.manifests[index].leaves[at].amount;
        restate(&mut world.case, index, |leaves| leaves[at].amount += I256::ONE);
        let manifest = &world.case.manifests[index];
        Expected::of(manifest, format!("it should be {should}")).work(&manifest.leaves[at])
    }),
    ("an amount is one unit too low", |world| {
        let (index, at) = last_work(&world.case, 6);
        let should = world.case.manifests[index].leaves[at].amount;
        restate(&mut world.case, index, |leaves| leaves[at].amount -= I256::ONE);
        let manifest = &world.case.manifests[index];
        Expected::of(manifest, format!("it should be {should}")).work(&manifest.leaves[at])
    }),
    ("a leaf is missing in a manifest", |world| {
        let (index, at) = last_work(&world.case, 18);
        world.case.manifests[index].leaves.remove(at);
        let manifest = &world.case.manifests[index];
        Expected::of(manifest, format!("says root {}, its leaves have", manifest.root))
    }),
    ("a workload is left out altogether", |world| {
        let (index, at) = last_work(&world.case, 18);
        let leaf = world.case.manifests[index].leaves[at].clone();
        restate(&mut world.case, index, |leaves| drop(leaves.remove(at)));
        let problem =
            format!("{} base units are due to provider {} and unpaid", leaf.amount, leaf.provider);
        Expected { place: None, workload: None, problem }.work(&leaf)
    }),
    ("a workload is paid twice under two statements", |world| {
        let (index, _) = last_work(&world.case, 18);
        let first = first_of(&world.case, index);
        let leaf = works(&world.case, first)[0].clone();
        let repeat = leaf.clone();
        restate(&mut world.case, index, |leaves| leaves.push(repeat));
        Expected::of(&world.case.manifests[index], "so it should be 0").work(&leaf)
    }),
    ("a workload is paid twice in one statement", |world| {
        let (index, at) = last_work(&world.case, 18);
        let leaf = world.case.manifests[index].leaves[at].clone();
        let repeat = leaf.clone();
        restate(&mut world.case, index, |leaves| leaves.push(repeat));
        Expected::of(&world.case.manifests[index], "it should stand there once").work(&leaf)
    }),
    ("a workload is paid by another organisation", |world| {
        let (index, at) = last_work(&world.case, 6);
        let (other, _) = last_work(&world.case, 18);
        let leaf = world.case.manifests[index].leaves[at].clone();
        let moved = leaf.clone();
        restate(&mut world.case, index, |leaves| drop(leaves.remove(at)));
        restate(&mut world.case, other, |leaves| leaves.push(moved));
        Expected::of(&world.case.manifests[other], "\"acme\" pays for it; it should be \"globex\"")
            .work(&leaf)
    }),
    ("a workload that no file names is paid", |world| {
        let (index, at) = last_work(&world.case, 18);
        let mut leaf = world.case.manifests[index].leaves[at].clone();
        leaf.workload = B256::repeat_byte(0x99);
        leaf.name = Some(("salad".into(), "never".into(), 0));
        let stray = leaf.clone();
        restate(&mut world.case, index, |leaves| leaves.push(stray));
        Expected::of(&world.case.manifests[index], "no workload file names it").work(&leaf)
    }),
    ("the fee is a base unit too high", |world| {
        let (index, at) = last(&world.case, FEE);
        let should = world.case.manifests[index].leaves[at].amount;
        restate_only(&mut world.case, index, |leaves| leaves[at].amount += I256::ONE);
        Expected::of(&world.case.manifests[index], format!("bps should be [{should}] in one"))
    }),
    ("the fee is taken twice", |world| {
        let (index, at) = last(&world.case, FEE);
        restate_only(&mut world.case, index, |leaves| leaves.push(leaves[at].clone()));
        Expected::of(&world.case.manifests[index], "in 2 leaves")
    }),
    ("the fee is left out", |world| {
        let (index, at) = last(&world.case, FEE);
        let should = world.case.manifests[index].leaves[at].amount;
        restate_only(&mut world.case, index, |leaves| drop(leaves.remove(at)));
        Expected::of(&world.case.manifests[index], "a fee of 0 in 0 leaves on").and(should)
    }),
    ("the fee goes to a machine", |world| {
        let (index, at) = last(&world.case, FEE);
        restate_only(&mut world.case, index, |leaves| leaves[at].provider = 5);
        Expected::of(&world.case.manifests[index], "goes to provider 5; it should go to Some(1)")
    }),
    ("a carry is a base unit too high", |world| {
        let (index, at) = last(&world.case, CARRY);
        let should = world.case.manifests[index].leaves[at].amount;
        restate_only(&mut world.case, index, |leaves| leaves[at].amount += I256::ONE);
        Expected::of(&world.case.manifests[index], format!("it should be {should} in one"))
    }),
    ("a carry is dropped", |world| {
        let (index, at) = last(&world.case, CARRY);
        let should = world.case.manifests[index].leaves[at].amount;
        restate_only(&mut world.case, index, |leaves| drop(leaves.remove(at)));
        Expected::of(
            &world.case.manifests[index],
            format!("a carry of 0 in 0 leaves; it should be {should} in one"),
        )
    }),
    ("another provider is paid", |world| {
        let (index, at) = last_work(&world.case, 18);
        let right = world.case.manifests[index].leaves[at].provider;
        let wrong = if right == 7 { 8 } else { 7 };
        restate(&mut world.case, index, |leaves| leaves[at].provider = wrong);
        let manifest = &world.case.manifests[index];
        let problem = format!("provider {wrong} is paid; it should be {right}");
        Expected::of(manifest, problem).work(&manifest.leaves[at])
    }),
    ("the secret of another organisation is used", |world| {
        let (index, at) = last_work(&world.case, 18);
        let (source, external_id, revision) =
            world.case.manifests[index].leaves[at].name.clone().unwrap();
        let secret = Secret::new(world.case.secret).of_organisation("globex");
        let id = secret.workload_id(&source, &external_id, revision);
        restate(&mut world.case, index, |leaves| leaves[at].workload = id);
        let manifest = &world.case.manifests[index];
        Expected::of(manifest, "does not follow from the organisation's secret")
            .work(&manifest.leaves[at])
    }),
    ("a row is rounded up", |world| {
        let (index, at) = last(&world.case, CARRY);
        let provider = world.case.manifests[index].leaves[at].provider;
        let mut should = 0;
        rewrite(&mut world.case, index, |rows| {
            let row = rows.iter_mut().find(|row| row.0 == provider).unwrap();
            should = row.1;
            row.1 += 1;
        });
        Expected::of(&world.case.manifests[index], format!("so it should be {should}"))
    }),
    ("work is paid that an operator holds", |world| {
        let (index, at) = last_work(&world.case, 18);
        let leaf = world.case.manifests[index].leaves[at].clone();
        let (source, external_id, _) = leaf.name.clone().unwrap();
        let verdict = Verdict::Hold;
        world.case.decisions.push(Decision { source, external_id, verdict, at_ms: Some(5) });
        world.case.manifests[index].at_ms = Some(6);
        Expected::of(&world.case.manifests[index], "it is held, so it should not be paid")
            .work(&leaf)
    }),
    ("work is paid whose digests differ", |world| {
        let line = with_digests_that_differ(&record("held", 0, "completed", "0.5"));
        paid_after(world, &[line], "held", "it is held, so it should not be paid")
    }),
    ("a lower revision is paid though a higher one was known", |world| {
        let lines = [record("late", 1, "completed", "0.3"), record("late", 0, "completed", "0.5")];
        world.take_in(&lines[1..]);
        let expected = paid_after(world, &[], "late", "it should be revision 1, which was known");
        // The file had both from the start.
        let said = lines.join("\n");
        let file = relayer::opinion::file("day.jsonl", said.as_bytes(), "salad").unwrap();
        world.case.files.last_mut().unwrap().file = file.clone();
        let files = world.case.files.len();
        world.case.files[files - 2].file = file;
        expected
    }),
    ("work that failed is paid", |world| {
        let line = record("failed", 0, "completed", "0.5");
        let expected = paid_after(world, &[line], "failed", "it should be 0");
        let failed = record("failed", 0, "failed", "0.5");
        let file = relayer::opinion::file("day.jsonl", failed.as_bytes(), "salad").unwrap();
        world.case.files.last_mut().unwrap().file = file;
        expected
    }),
    ("a revision that changes nothing is paid the difference of two rates", |world| {
        world.take_in(&[record("again", 0, "completed", "0.5")]);
        world.state(0);
        let token = world.case.organisations[0].token;
        let rate = relayer::opinion::Decimal::read("0.2").unwrap();
        world.case.rates.get_mut(&token).unwrap().push(rate);
        world.take_in(&[record("again", 1, "completed", "0.5")]);
        world.misprice("again", 2_500_000_000_000_000_000);
        paid_after(world, &[], "again", "paid it whole, so it should be 0")
    }),
    ("an epoch is passed over", |world| {
        let (index, _) = last_work(&world.case, 18);
        let epoch = world.case.manifests[index].epoch;
        move_event(&mut world.case, index, |event| {
            let Event::Settled { epoch, .. } = event else { panic!() };
            *epoch += 1;
        });
        let mut expected =
            Expected::of(&world.case.manifests[index], format!("it should be epoch {epoch}"));
        expected.place = expected.place.map(|(deposit, epoch)| (deposit, epoch + 1));
        expected
    }),
    ("a digest is another chain's", |world| {
        let (index, _) = last_work(&world.case, 18);
        let should = world.case.manifests[index].digest;
        world.case.manifests[index].digest = B256::repeat_byte(3);
        Expected::of(&world.case.manifests[index], format!("it should be {should}"))
    }),
    ("a manifest is lost", |world| {
        let (index, _) = last_work(&world.case, 18);
        let manifest = world.case.manifests.remove(index);
        Expected::of(&manifest, "no manifest with root")
    }),
    ("two candidates bring spent to the same total", |world| {
        let (index, _) = last_work(&world.case, 18);
        let twin = world.case.manifests[index].clone();
        world.case.manifests.push(twin);
        Expected::of(&world.case.manifests[index], "it must differ")
    }),
    ("more is spent than the deposit holds", |world| {
        let (index, _) = last_work(&world.case, 18);
        let manifest = world.case.manifests[index].clone();
        for event in &mut world.case.events {
            match event {
                Event::Deposited { key, units } if *key == manifest.key => {
                    *units = manifest.spent - 1;
                }
                _ => {}
            }
        }
        Expected::of(&manifest, "more than the deposit held")
    }),
    ("a claim takes more than the credit", |world| {
        let token = world.case.organisations[0].token;
        world.case.events.push(Event::Claimed { provider: 2, token, units: 1 << 50 });
        Expected {
            place: None,
            workload: None,
            problem: format!("provider 2 claimed {} units", 1_u64 << 50),
        }
    }),
];

#[test]
fn every_planted_fault_is_found_and_named() {
    for (name, plant) in FAULTS {
        let mut world = World::run(SEED);
        assert_eq!(judge(&world.case).differences, [], "the world is right before {name}");
        let expected = plant(&mut world);
        let opinion = judge(&world.case);
        let is_it = |difference: &&relayer::opinion::Difference| {
            difference.deposit.zip(difference.epoch) == expected.place
                && difference.workload == expected.workload
                && difference.problem.contains(&expected.problem)
        };
        assert!(
            opinion.differences.iter().any(|difference| is_it(&difference)),
            "{name}: no difference says {:?} {:?} {:?}\n{}",
            expected.place,
            expected.workload,
            expected.problem,
            opinion.text()
        );
    }
}

#[test]
fn evidence_that_comes_after_a_payment_makes_no_difference_of_it() {
    let mut world = World::run(SEED);
    world.take_in(&[record("later", 0, "completed", "0.5")]);
    world.state(0);
    let later = record("later", 1, "completed", "0.5");
    world.take_in(&[with_digests_that_differ(&later)]);
    let opinion = judge(&world.case);
    assert!(opinion.differences.is_empty(), "{}", opinion.text());
}

/// A world in which every fault can be planted: carries, fees and second epochs are there.
const SEED: u64 = 3;

impl Expected {
    /// The problem has to name a number besides.
    fn and(mut self, should: I256) -> Self {
        self.problem = format!("{} ", self.problem).trim_end().to_owned();
        assert!(should > I256::ZERO);
        self
    }
}

/// A line of `workload/1` for machine 4 of acme.
fn record(id: &str, revision: u32, result: &str, usd: &str) -> String {
    format!(
        r#"{{"schema":"workload/1","source":"salad","external_id":"{id}","revision":{revision},"organisation":"acme","machine":"m4","kind":"render","started_at":"2026-11-20T07:00:00Z","ended_at":"2026-11-20T09:00:00Z","result":"{result}","price":{{"currency":"USD","amount":"{usd}"}}}}"#
    )
}

fn with_digests_that_differ(record: &str) -> String {
    let (digest, mirror) = ("1".repeat(64), "2".repeat(64));
    let evidence =
        format!(r#"}},"evidence":{{"digest":"0x{digest}","mirror_digest":"0x{mirror}"}}}}"#);
    record.replace("}}", &evidence)
}

/// Takes records in, has the product's rules pay everything, and expects the opinion to object to the leaf of one.
fn paid_after(world: &mut World, lines: &[String], id: &str, problem: &str) -> Expected {
    world.take_in(lines);
    world.state(0);
    let manifest = world.case.manifests.last().unwrap();
    let leaf = manifest
        .leaves
        .iter()
        .find(|leaf| leaf.name.as_ref().is_some_and(|name| name.1 == id))
        .unwrap();
    Expected::of(manifest, problem).work(leaf)
}

fn decimals(case: &Case, token: Address) -> u8 {
    case.events
        .iter()
        .find_map(|event| match event {
            Event::TokenRegistered { token: known, decimals } if *known == token => Some(*decimals),
            _ => None,
        })
        .unwrap()
}

/// The last manifest of the first organisation whose token has so many decimals, and a workload's leaf of it.
fn last_work(case: &Case, of: u8) -> (usize, usize) {
    let organisation = case.organisations.iter().find(|o| decimals(case, o.token) == of).unwrap();
    let index = case
        .manifests
        .iter()
        .rposition(|manifest| manifest.deposit == organisation.deposits[0])
        .unwrap();
    let is_plain = |leaf: &Leaf| {
        let is_first = |manifest: &relayer::opinion::Manifest| {
            manifest
                .leaves
                .iter()
                .filter(|other| {
                    other.name.as_ref().map(|n| &n.1) == leaf.name.as_ref().map(|n| &n.1)
                })
                .count()
        };
        leaf.name.is_some()
            && leaf.amount > I256::try_from(1_000).unwrap()
            && case.manifests.iter().map(is_first).sum::<usize>() == 1
    };
    let at = case.manifests[index].leaves.iter().position(is_plain).unwrap();
    (index, at)
}

/// The last manifest that has a leaf with this id, and the leaf.
fn last(case: &Case, id: B256) -> (usize, usize) {
    let find = |index: usize| {
        let at = case.manifests[index].leaves.iter().position(|leaf| leaf.workload == id)?;
        Some((index, at))
    };
    (0..case.manifests.len()).rev().find_map(find).unwrap()
}

fn first_of(case: &Case, index: usize) -> usize {
    let deposit = case.manifests[index].deposit;
    let first = case.manifests.iter().position(|manifest| manifest.deposit == deposit).unwrap();
    assert_ne!(first, index);
    first
}

fn works(case: &Case, index: usize) -> Vec<&Leaf> {
    let is_last = |leaf: &&Leaf| {
        let same =
            |other: &&Leaf| other.name.as_ref().map(|n| &n.1) == leaf.name.as_ref().map(|n| &n.1);
        leaf.name.is_some()
            && case.manifests.iter().flat_map(|manifest| &manifest.leaves).filter(same).count() == 1
    };
    case.manifests[index].leaves.iter().filter(is_last).collect()
}

/// Changes workload leaves and makes everything else follow from them, fee included.
fn restate(case: &mut Case, index: usize, change: impl FnOnce(&mut Vec<Leaf>)) {
    let bps = U256::from(case.fee_bps[0]);
    restate_only(case, index, |leaves| {
        change(leaves);
        let work: I256 = leaves
            .iter()
            .filter(|leaf| leaf.workload != CARRY && leaf.workload != FEE)
            .map(|leaf| leaf.amount)
            .sum();
        let fee = U256::try_from(work).unwrap() * bps / U256::from(10_000);
        if let Some(leaf) = leaves.iter_mut().find(|leaf| leaf.workload == FEE) {
            leaf.amount = I256::try_from(fee).unwrap();
            assert_eq!(leaf.provider, OPERATOR);
        }
    });
}

/// Changes leaves and makes rows, root, digest and event follow from them.
fn restate_only(case: &mut Case, index: usize, change: impl FnOnce(&mut Vec<Leaf>)) {
    change(&mut case.manifests[index].leaves);
    let unit = 10_i128.pow(u32::from(decimals(case, case.manifests[index].key.token) - 6));
    let mut sums: BTreeMap<u32, i128> = BTreeMap::new();
    for leaf in &case.manifests[index].leaves {
        *sums.entry(leaf.provider).or_default() += i128::try_from(leaf.amount).unwrap();
    }
    let units = |sum: i128| u64::try_from(sum / unit).unwrap();
    let new: Vec<_> = sums
        .into_iter()
        .map(|(provider, sum)| (provider, units(sum)))
        .filter(|row| row.1 > 0)
        .collect();
    rewrite(case, index, |rows| *rows = new);
}

/// Changes rows and makes total, root, digest and event follow.
fn rewrite(case: &mut Case, index: usize, change: impl FnOnce(&mut Vec<(u32, u64)>)) {
    let manifest = &mut case.manifests[index];
    let before: u64 = manifest.rows.iter().map(|row| row.1).sum();
    let old = settled_event(manifest);
    change(&mut manifest.rows);
    manifest.spent = manifest.spent - before + manifest.rows.iter().map(|row| row.1).sum::<u64>();
    let leaves: Vec<_> = manifest
        .leaves
        .iter()
        .map(|leaf| ProductLeaf {
            workload: leaf.workload,
            provider: leaf.provider,
            amount: i128::try_from(leaf.amount).unwrap(),
            paid: None,
        })
        .collect();
    manifest.root = Tree::new(&leaves).root();
    sign(case, index);
    let new = settled_event(&case.manifests[index]);
    *case.events.iter_mut().find(|event| **event == old).unwrap() = new;
}

fn move_event(case: &mut Case, index: usize, change: impl FnOnce(&mut Event)) {
    let old = settled_event(&case.manifests[index]);
    change(case.events.iter_mut().find(|event| **event == old).unwrap());
}

/// Settles by an organisation's deposit, then gives it another deposit.
fn moved() -> (World, relayer::opinion::Opinion) {
    let mut world = World::run(SEED);
    world.take_in(&[record("once", 0, "completed", "0.5")]);
    world.state(0);
    let before = judge(&world.case);
    assert_eq!(before.differences, []);
    world.move_to(0, B256::repeat_byte(0x77));
    (world, before)
}

/// What would break it: knowing whom a deposit paid for by the configuration alone, which has forgotten it.
#[test]
fn what_a_deposit_paid_counts_when_it_is_configured_no_more() {
    let (mut world, before) = moved();
    let opinion = judge(&world.case);
    assert_eq!(opinion.differences, []);
    assert_eq!((opinion.paid, opinion.statements), (before.paid, before.statements));
    assert_eq!(opinion.open, before.open);

    // The other organisation has the deposit now.
    let deposit = world.case.manifests[0].deposit;
    world.case.organisations[1].deposits.push(deposit);
    assert_eq!(judge(&world.case).differences, []);
    world.case.organisations[1].deposits.pop();

    world.forget("once");
    let expected = paid_after(&mut world, &[], "once", "again; epoch");
    let opinion = judge(&world.case);
    let [again, whole] = &opinion.differences[..] else { panic!("{}", opinion.text()) };
    assert_eq!(again.deposit.zip(again.epoch), expected.place);
    assert_eq!(again.workload, expected.workload);
    assert!(again.problem.contains(&expected.problem), "{again}");
    assert!(whole.problem.contains("were ever accepted"), "{whole}");
}

/// What would break it: passing over what nobody is known to have paid for, as what strangers settle.
#[test]
fn what_an_organisation_paid_that_is_configured_no_more_is_said_not_to_be_judged() {
    let mut world = World::run(SEED);
    let lost = world.case.organisations.remove(0);
    let is_its = |manifest: &&relayer::opinion::Manifest| manifest.organisation == lost.name;
    let paid = world.case.manifests.iter().filter(is_its).count();
    let told = format!("names organisation {:?}, which is not configured", lost.name);
    let opinion = judge(&world.case);
    let named = opinion.differences.iter().filter(|difference| difference.problem.contains(&told));
    assert!(paid > 0 && named.count() == paid, "{}", opinion.text());
}

/// What would break it: believing a manifest, whose digest does not cover the organisation that it names.
#[test]
fn a_manifest_that_names_another_organisation_hides_no_payment() {
    for (named, should) in [
        ("globex", "\"globex\" pays for it; it should be \"acme\""),
        ("nobody", "the manifest names organisation \"nobody\"; it should be \"acme\""),
        ("", "the manifest names organisation \"\"; it should be \"acme\""),
    ] {
        let (mut world, before) = moved();
        let deposit = world.case.manifests[0].deposit;
        for manifest in &mut world.case.manifests {
            if manifest.deposit == deposit {
                named.clone_into(&mut manifest.organisation);
            }
        }
        world.forget("once");
        let expected = paid_after(&mut world, &[], "once", "again; epoch");
        let opinion = judge(&world.case);
        let told = opinion.text();
        assert!(told.contains(should), "{told}");
        assert!(
            opinion.differences.iter().any(|difference| {
                difference.workload == expected.workload
                    && difference.problem.contains("again; epoch")
            }),
            "{told}"
        );
        assert_eq!(opinion.statements, before.statements + 1);
    }
}
