//! What the sources said, by workload: the record of each revision, and who is paid where.

use std::collections::BTreeMap;

use alloy::primitives::{Address, B256, U256};

use super::{
    Case, Organisation, hash,
    money::Decimal,
    records::{File, Price, Said, Work},
};

/// Most units that one record may come to: one less than the six bytes of a row hold.
const MAX_UNITS: u64 = (1 << 48) - 2;
/// Records that are committed together.
const STEP: usize = 5_000;

/// A workload file as it was taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadFile {
    /// Source of the file, if its name labels days.
    pub source: String,
    /// What it says.
    pub file: File,
    /// When it was taken in, ms, if that is known.
    pub at_ms: Option<i64>,
}

/// Whether daily earnings are refused whole because of a file that was taken in: they overlap it without covering the same
/// days, or have its content under another label.
fn is_refused_beside(known: &WorkloadFile, file: &WorkloadFile) -> bool {
    let Some(((from, to), (first, until))) = known.file.days.as_ref().zip(file.file.days.as_ref())
    else {
        return false;
    };
    let (is_same_source, is_same_label) =
        (known.source == file.source, (from, to) == (first, until));
    let overlaps = is_same_source && !is_same_label && from < until && first < to;
    overlaps || (known.file.content == file.file.content && !(is_same_source && is_same_label))
}

/// What was decided about a workload. The last decision counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Source of the workload.
    pub source: String,
    /// Its external id.
    pub external_id: String,
    /// What.
    pub verdict: Verdict,
    /// When, ms, if that is known.
    pub at_ms: Option<i64>,
}

/// What can be decided about a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It waits.
    Hold,
    /// Its money is let go.
    Release,
    /// It is paid.
    Pay,
}

/// Source and external id.
pub(super) type Name = (String, String);

/// A workload with all that was said of it.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) organisation: usize,
    pub(super) machine: String,
    pub(super) stopped_ms: i64,
    fixed: String,
    pub(super) revisions: BTreeMap<u32, Revision>,
}

impl Item {
    /// The rates that lower revisions named for USD, the nearest first.
    fn rates_below(&self, revision: u32) -> Vec<Decimal> {
        let lower = self.revisions.range(..revision).rev().map(|(_, known)| &known.work);
        let in_usd = lower.filter(|work| matches!(work.price, Price::Usd(_)));
        in_usd.filter_map(|work| work.rate).collect()
    }

    /// Whether every revision above `from` up to `to` says the same of result and price as `from`, and names no rate, so that
    /// it adds nothing.
    pub(super) fn adds_nothing(&self, from: u32, to: u32) -> bool {
        let Some(first) = self.revisions.get(&from).filter(|_| from < to) else { return false };
        let is_same = |later: &Revision| {
            let (before, after) = (&first.work, &later.work);
            (before.is_completed, before.price) == (after.is_completed, after.price)
                && after.rate.is_none()
        };
        self.revisions.range(from + 1..=to).all(|(_, later)| is_same(later))
    }
}

/// One revision, where and when it was taken in.
#[derive(Debug)]
pub(super) struct Revision {
    pub(super) id: B256,
    pub(super) work: Work,
    pub(super) place: (usize, usize),
    pub(super) at_ms: Option<i64>,
}

/// Everything that was said and taken.
#[derive(Debug)]
pub(super) struct Books<'a> {
    case: &'a Case,
    pub(super) items: BTreeMap<Name, Item>,
    /// Every address that was named for a machine, in order.
    pub(super) payees: BTreeMap<String, Vec<Address>>,
    /// Workload ids.
    pub(super) ids: BTreeMap<B256, (Name, u32)>,
    decimals: BTreeMap<Address, u8>,
}

impl<'a> Books<'a> {
    /// Takes all files in, in order.
    pub(super) fn new(case: &'a Case, decimals: BTreeMap<Address, u8>) -> Self {
        let mut books = Self {
            case,
            items: BTreeMap::new(),
            payees: BTreeMap::new(),
            ids: BTreeMap::new(),
            decimals,
        };
        // Files of which something was kept.
        let mut kept: Vec<&WorkloadFile> = Vec::new();
        for (number, file) in case.files.iter().enumerate() {
            if kept.iter().any(|known| is_refused_beside(known, file)) {
                continue;
            }
            let mut is_kept = false;
            for (index, said) in file.file.records.iter().enumerate() {
                match said {
                    Ok(Said::Payee(machine, address)) if *address != case.contract => {
                        books.payees.entry(machine.clone()).or_default().push(*address);
                    }
                    Ok(Said::Work(work)) => {
                        is_kept |= books.take(work, (number, index / STEP), file.at_ms);
                    }
                    Ok(Said::Payee(..)) | Err(_) => {}
                }
            }
            if is_kept {
                kept.push(file);
            }
        }
        books
    }

    /// Takes a record, unless it repeats or contradicts what was said before. Returns whether it is there afterwards.
    fn take(&mut self, work: &Work, place: (usize, usize), at_ms: Option<i64>) -> bool {
        let organisations = &self.case.organisations;
        let owner = organisations.iter().position(|known| known.name == work.organisation);
        let Some(organisation) = owner else { return false };
        let name = (work.source.clone(), work.external_id.clone());
        if let Some(item) = self.items.get(&name)
            && (item.revisions.contains_key(&work.revision) || item.fixed != work.fixed)
        {
            let known = item.revisions.get(&work.revision);
            return known.is_some_and(|known| known.work.content == work.content);
        }
        let earlier = self.items.get(&name).map(|item| item.rates_below(work.revision));
        let amounts = self.prices(organisation, work, earlier.unwrap_or_default());
        if amounts.is_some_and(|amounts| amounts.is_empty()) {
            return false;
        }
        if let Some(payout) = work.payout {
            if payout == self.case.contract {
                return false;
            }
            let named = self.payees.entry(work.machine.clone()).or_insert_with(|| vec![payout]);
            if !named.contains(&payout) {
                return false;
            }
        }
        let item = self.items.entry(name.clone()).or_insert_with(|| Item {
            organisation,
            machine: work.machine.clone(),
            stopped_ms: work.stopped_ms,
            fixed: work.fixed.clone(),
            revisions: BTreeMap::new(),
        });
        let key = (name.0.as_str(), name.1.as_str(), work.revision);
        let id = hash::workload_id(self.case.secret, &work.organisation, key);
        item.revisions.insert(work.revision, Revision { id, work: work.clone(), place, at_ms });
        self.ids.insert(id, (name, work.revision));
        true
    }

    /// An item's organisation.
    pub(super) fn payer(&self, item: &Item) -> &'a Organisation {
        &self.case.organisations[item.organisation]
    }

    /// What a revision may come to in base units, one amount for each rate that may have led to it; none if all are beyond
    /// belief, `None` if it cannot be priced.
    pub(super) fn amounts(&self, item: &Item, work: &Work) -> Option<Vec<U256>> {
        self.prices(item.organisation, work, item.rates_below(work.revision))
    }

    /// The same of a record without a rate of its own that follows others with `earlier` ones. USD is converted once, so that
    /// what was in force for an earlier revision may have stayed.
    fn prices(
        &self,
        organisation: usize,
        work: &Work,
        mut earlier: Vec<Decimal>,
    ) -> Option<Vec<U256>> {
        let token = self.case.organisations[organisation].token;
        let decimals = *self.decimals.get(&token)?;
        earlier.extend(self.case.rates.get(&token).into_iter().flatten());
        let rates = work.rate.map_or(earlier, |own| vec![own]);
        if rates.is_empty() {
            return None;
        }
        let amount = |rate: &Decimal| match work.price {
            _ if !work.is_completed => Some(U256::ZERO),
            Price::Token(amount) => Some(amount),
            Price::Usd(usd) => usd.buys(rate, decimals),
        };
        let unit = U256::from(10).pow(U256::from(decimals.max(6) - 6));
        let is_believed = |amount: &U256| *amount <= U256::from(MAX_UNITS) * unit;
        let mut amounts: Vec<_> = rates.iter().filter_map(amount).filter(is_believed).collect();
        amounts.dedup();
        Some(amounts)
    }
}
