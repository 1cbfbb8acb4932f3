//! One settled statement: its rows from its leaves, its leaves from the records.

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::{B256, I256, U256};

use super::{
    Leaf, Manifest, Organisation,
    books::{Decision, Item, Name, Verdict},
    hash,
    judge::{Judge, Paid, Settled},
    money::signed,
};

/// Leaf id of a carry.
const CARRY: B256 = B256::ZERO;
/// Leaf id of the fee.
const FEE: B256 = B256::with_last_byte(1);

/// What a leaf of a workload should have been.
struct Should {
    amounts: Vec<I256>,
    providers: Vec<u32>,
}

impl<'a> Judge<'a> {
    pub(super) fn statement(
        &mut self,
        manifest: &'a Manifest,
        settled: &Settled<'_>,
        rows: &[(u32, u64)],
        organisation: &Organisation,
    ) {
        self.opinion.statements += 1;
        let place = Some((settled.deposit, Some(settled.epoch)));
        if manifest.key.token != organisation.token {
            let problem = format!(
                "it pays in {}, {:?} pays in {}",
                manifest.key.token, organisation.name, organisation.token
            );
            self.differ(place, None, problem);
        }
        if manifest.rows != rows {
            self.differ(place, None, "the manifest's rows are not those that settled".into());
        }
        let mut by_provider: BTreeMap<u32, Vec<&Leaf>> = BTreeMap::new();
        for leaf in &manifest.leaves {
            by_provider.entry(leaf.provider).or_default().push(leaf);
        }
        self.rows(settled, rows, &by_provider);
        self.fee(manifest, &by_provider);
        self.carries(settled, &by_provider);

        let mut named = BTreeSet::new();
        for leaf in &manifest.leaves {
            if leaf.workload == CARRY || leaf.workload == FEE {
                continue;
            }
            let Some((name, revision)) = self.books.ids.get(&leaf.workload).cloned() else {
                self.unknown(manifest, leaf);
                continue;
            };
            let workload = show(&name, revision);
            if !named.insert(name.clone()) {
                self.differ(
                    place,
                    Some(workload.clone()),
                    "it is paid twice in one statement; it should stand there once".into(),
                );
            }
            self.leaf(manifest, leaf, (&name, revision), organisation);
            let paid = self.paid.entry(name).or_insert(Paid {
                sum: I256::ZERO,
                revision,
                provider: leaf.provider,
                by: (manifest.deposit, manifest.epoch),
            });
            paid.sum += leaf.amount;
            (paid.revision, paid.provider) = (revision, leaf.provider);
            paid.by = (manifest.deposit, manifest.epoch);
            self.opinion.totals.entry(organisation.token).or_default().work += leaf.amount;
        }
    }

    /// Compares each row with what its provider's leaves come to.
    fn rows(
        &mut self,
        settled: &Settled<'_>,
        rows: &[(u32, u64)],
        leaves: &BTreeMap<u32, Vec<&Leaf>>,
    ) {
        let place = Some((settled.deposit, Some(settled.epoch)));
        let rows: BTreeMap<u32, u64> = rows.iter().copied().collect();
        let token = self.token_of(settled.deposit);
        let unit = self.unit(token);
        let providers: BTreeSet<u32> = rows.keys().chain(leaves.keys()).copied().collect();
        for provider in providers {
            let row = rows.get(&provider).copied().unwrap_or_default();
            let leaves = leaves.get(&provider).map_or(&[][..], Vec::as_slice);
            let sum: I256 = leaves.iter().map(|leaf| leaf.amount).sum();
            let (units, _) = hash::split(sum, unit);
            if units != row {
                let problem = format!(
                    "provider {provider} has a row of {row} units; its leaves come to {sum} base units, so it should be {units}"
                );
                self.differ(place, None, problem);
            } else if units == 0 {
                let problem = format!(
                    "provider {provider} nets {sum} base units, below one unit; its leaves should have waited"
                );
                self.differ(place, None, problem);
            }
            self.total(token, row, |total| &mut total.credited);
        }
    }

    /// Checks that each provider's remainder comes in as one leaf, and keeps what goes out.
    fn carries(&mut self, settled: &Settled<'_>, leaves: &BTreeMap<u32, Vec<&Leaf>>) {
        let place = Some((settled.deposit, Some(settled.epoch)));
        let token = self.token_of(settled.deposit);
        let unit = self.unit(token);
        for (provider, leaves) in leaves {
            let known = self
                .deposits
                .get(&settled.deposit)
                .and_then(|deposit| deposit.carries.get(provider));
            let should = signed(known.copied().unwrap_or_default());
            let carries: Vec<_> = leaves.iter().filter(|leaf| leaf.workload == CARRY).collect();
            let is: I256 = carries.iter().map(|leaf| leaf.amount).sum();
            if is != should || carries.len() > 1 {
                let problem = format!(
                    "provider {provider} brings in a carry of {is} in {} leaves; it should be {should} in one",
                    carries.len()
                );
                self.differ(place, None, problem);
            }
            let sum: I256 = leaves.iter().map(|leaf| leaf.amount).sum();
            let (_, out) = hash::split(sum, unit);
            self.deposits.entry(settled.deposit).or_default().carries.insert(*provider, out);
            self.opinion.totals.entry(token).or_default().carried += signed(out) - is;
        }
    }

    /// Checks the fee: its share of the workload leaves, rounded down, to the operator alone.
    fn fee(&mut self, manifest: &Manifest, leaves: &BTreeMap<u32, Vec<&Leaf>>) {
        let place = Some((manifest.deposit, Some(manifest.epoch)));
        let is_work = |leaf: &&Leaf| leaf.workload != CARRY && leaf.workload != FEE;
        let work: I256 = manifest.leaves.iter().filter(is_work).map(|leaf| leaf.amount).sum();
        let work = U256::try_from(work).unwrap_or_default();
        let fees: Vec<_> = manifest.leaves.iter().filter(|leaf| leaf.workload == FEE).collect();
        let is: I256 = fees.iter().map(|leaf| leaf.amount).sum();
        self.opinion.totals.entry(manifest.key.token).or_default().fee += is;
        let Some(operator) = self.case.operator else {
            if !fees.is_empty() {
                self.differ(place, None, format!("it takes a fee of {is}; there should be none"));
            }
            return;
        };
        let number = self.numbers.get(&operator).copied();
        if let Some(fee) = fees.iter().find(|fee| Some(fee.provider) != number) {
            let problem = format!(
                "the fee goes to provider {}; it should go to {number:?}, the operator",
                fee.provider
            );
            self.differ(place, None, problem);
        }
        let shares: Vec<_> = self
            .case
            .fee_bps
            .iter()
            .map(|bps| work * U256::from(*bps) / U256::from(10_000))
            .collect();
        let unit = self.unit(manifest.key.token);
        // A fee whose row would come to nothing is left out.
        let comes_to_nothing = |share: U256, number: u32| {
            let own = leaves.get(&number).map_or(&[][..], Vec::as_slice);
            let own = match own {
                [] => self.carry_of(manifest.deposit, number),
                own => own.iter().map(|leaf| leaf.amount).sum(),
            };
            hash::split(own + signed(share), unit).0 == 0
        };
        let may_lack = shares.iter().any(|share| {
            share.is_zero() || number.is_some_and(|number| comes_to_nothing(*share, number))
        });
        let is_right = match fees.len() {
            0 => shares.is_empty() || may_lack,
            1 => shares.iter().any(|share| signed(*share) == is && !share.is_zero()),
            _ => false,
        };
        if !is_right {
            let problem = format!(
                "it takes a fee of {is} in {} leaves on {work} of work; {:?} bps should be {shares:?} in one",
                fees.len(),
                self.case.fee_bps
            );
            self.differ(place, None, problem);
        }
    }

    fn carry_of(&self, deposit: B256, provider: u32) -> I256 {
        let known = self.deposits.get(&deposit).and_then(|deposit| deposit.carries.get(&provider));
        signed(known.copied().unwrap_or_default())
    }

    /// Says what is known of a leaf that no record explains.
    fn unknown(&mut self, manifest: &Manifest, leaf: &Leaf) {
        let place = Some((manifest.deposit, Some(manifest.epoch)));
        let known = leaf.name.as_ref().is_some_and(|(source, external_id, revision)| {
            let item = self.books.items.get(&(source.clone(), external_id.clone()));
            item.is_some_and(|item| item.revisions.contains_key(revision))
        });
        let workload = leaf.name.as_ref().map_or_else(
            || leaf.workload.to_string(),
            |(source, external_id, revision)| {
                show(&(source.clone(), external_id.clone()), *revision)
            },
        );
        let problem = if known {
            format!(
                "its id is {}, which does not follow from the organisation's secret and its key",
                leaf.workload
            )
        } else {
            format!(
                "{} base units are paid for it; no workload file names it, so it should not be paid",
                leaf.amount
            )
        };
        self.differ(place, Some(workload), problem);
    }

    /// Checks a workload's leaf against its records and what was paid before.
    fn leaf(
        &mut self,
        manifest: &Manifest,
        leaf: &Leaf,
        (name, revision): (&Name, u32),
        organisation: &Organisation,
    ) {
        let place = Some((manifest.deposit, Some(manifest.epoch)));
        let Some(item) = self.books.items.get(name) else { return };
        let mut problems = Vec::new();
        let payer = self.books.payer(item);
        if payer.name != organisation.name {
            problems.push(format!(
                "{:?} pays for it; it should be {:?}",
                organisation.name, payer.name
            ));
        }
        if let Some((source, external_id, named)) = &leaf.name
            && (source != &name.0 || external_id != &name.1 || *named != revision)
        {
            problems.push(format!("the manifest calls it {source}/{external_id} revision {named}"));
        }
        problems.extend(self.late(item, revision, manifest));
        let before = self.paid.get(name).copied();
        if let Some(before) = before.filter(|before| before.revision > revision) {
            problems.push(format!(
                "revision {revision} is paid after revision {}; the higher one should stand",
                before.revision
            ));
        }
        let should = self.should(item, revision, before);
        if !should.amounts.contains(&leaf.amount) {
            problems.push(match before {
                Some(paid) if should.amounts.contains(&I256::ZERO) => format!(
                    "it is paid {} again; epoch {} of deposit {} paid it whole, so it should be 0",
                    leaf.amount, paid.by.1, paid.by.0
                ),
                _ => format!("it is paid {}; it should be {}", leaf.amount, list(&should.amounts)),
            });
        } else if leaf.amount.is_zero() {
            problems.push("it is paid 0; it should not be named".into());
        }
        if !should.providers.contains(&leaf.provider) {
            problems.push(format!(
                "provider {} is paid; it should be {}",
                leaf.provider,
                list(&should.providers)
            ));
        }
        // What is taken back nets whatever was decided.
        if !leaf.amount.is_negative() && self.was_held(name, item, revision, manifest.at_ms) {
            problems.push("it is held, so it should not be paid".into());
        }
        for problem in problems {
            self.differ(place, Some(show(name, revision)), problem);
        }
    }

    /// What a leaf should be, for each rate that was in force, and the providers that it may name.
    fn should(&self, item: &Item, revision: u32, before: Option<Paid>) -> Should {
        let sum = before.map_or(I256::ZERO, |paid| paid.sum);
        let amounts = item
            .revisions
            .get(&revision)
            .and_then(|known| self.books.amounts(item, &known.work))
            .unwrap_or_default();
        let amounts: Vec<I256> = match before {
            // Whatever the rate is by now.
            Some(paid) if item.adds_nothing(paid.revision, revision) => vec![I256::ZERO],
            _ => amounts.into_iter().map(|amount| signed(amount) - sum).collect(),
        };
        let addresses = self.books.payees.get(&item.machine).map_or(&[][..], Vec::as_slice);
        let mut providers: Vec<u32> =
            addresses.iter().filter_map(|address| self.numbers.get(address)).copied().collect();
        if let Some(paid) = before
            && amounts.iter().any(I256::is_negative)
        {
            providers = vec![paid.provider];
        }
        Should { amounts, providers }
    }

    /// Why a leaf should have named a higher revision: one that costs no more was known when the statement was made.
    fn late(&self, item: &Item, revision: u32, manifest: &Manifest) -> Option<String> {
        let paid = item.revisions.get(&revision)?;
        let most = self.books.amounts(item, &paid.work)?.into_iter().max()?;
        let is_known = |(number, other): &(&u32, &super::books::Revision)| {
            let amounts = self.books.amounts(item, &other.work).unwrap_or_default();
            let costs_no_more = amounts.iter().max().is_some_and(|amount| *amount <= most);
            let was_there = other.place == paid.place
                || other.at_ms.zip(manifest.at_ms).is_some_and(|(said, stated)| {
                    said < stated && manifest.forgot_ms.is_none_or(|forgot| said > forgot)
                });
            **number > revision && costs_no_more && was_there
        };
        let (higher, _) = item.revisions.iter().rev().find(is_known)?;
        Some(format!(
            "revision {revision} is paid; it should be revision {higher}, which was known"
        ))
    }

    /// Whether a workload was kept from being paid when a statement named a revision of it. What came at a time that is not
    /// known may have come later: a hold, and digests of a revision above.
    fn was_held(&self, name: &Name, item: &Item, revision: u32, at_ms: Option<i64>) -> bool {
        let is_before = |number: u32, said: Option<i64>| {
            said.zip(at_ms).map_or(number <= revision, |(said, stated)| said <= stated)
        };
        let decisions = self.decisions_of(name).filter(|decision| {
            let times = decision.at_ms.zip(at_ms);
            times.map_or(decision.verdict == Verdict::Pay, |(said, stated)| said <= stated)
        });
        let differs = item
            .revisions
            .iter()
            .any(|(number, known)| known.work.digests_differ && is_before(*number, known.at_ms));
        decisions.last().map_or(differs, |decision| decision.verdict != Verdict::Pay)
    }

    /// What keeps a workload from being paid now, if a decision or its digests do.
    pub(super) fn held(&self, name: &Name, item: &Item) -> Option<&'static str> {
        let differs = item.revisions.values().any(|revision| revision.work.digests_differ);
        match self.decisions_of(name).last().map(|decision| decision.verdict) {
            Some(Verdict::Pay) => None,
            Some(Verdict::Release) => Some("released: its money was let go"),
            Some(Verdict::Hold) => Some("held"),
            None => differs.then_some("held"),
        }
    }

    fn decisions_of(&self, name: &Name) -> impl Iterator<Item = &'a Decision> {
        let (source, external_id) = name.clone();
        self.case.decisions.iter().filter(move |decision| {
            decision.source == source && decision.external_id == external_id
        })
    }

    pub(super) fn token_of(&self, deposit: B256) -> alloy::primitives::Address {
        self.deposits
            .get(&deposit)
            .and_then(|deposit| deposit.key)
            .map(|key| key.token)
            .unwrap_or_default()
    }
}

/// A workload's name for people.
pub(super) fn show((source, external_id): &Name, revision: u32) -> String {
    format!("{source}/{external_id} revision {revision}")
}

fn list<T: ToString>(values: &[T]) -> String {
    let values: Vec<_> = values.iter().map(ToString::to_string).collect();
    if values.is_empty() { "nothing".into() } else { values.join(" or ") }
}
