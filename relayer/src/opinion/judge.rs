//! The walk over the contract's events: balances, numbers, credits, and each settled statement in its turn.

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::{Address, B256, I256, U256};

use super::{
    Case, DepositKey, Difference, Event, Manifest, Opinion, Organisation,
    books::{Books, Name},
    hash::{self, Signed},
    money::{signed, ten_to},
};

/// A deposit as the events leave it.
#[derive(Debug, Clone, Default)]
pub(super) struct Deposit {
    pub(super) key: Option<DepositKey>,
    pub(super) balance: u64,
    pub(super) spent: u64,
    pub(super) epoch: u32,
    /// Remainders that it owes, by provider.
    pub(super) carries: BTreeMap<u32, U256>,
    /// Whether all its settled statements could be judged.
    pub(super) is_unknown: bool,
}

/// What settled statements paid for a workload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paid {
    pub(super) sum: I256,
    pub(super) revision: u32,
    pub(super) provider: u32,
    /// Deposit and epoch of the last leaf.
    pub(super) by: (B256, u32),
}

/// Everything that the walk keeps.
pub(super) struct Judge<'a> {
    pub(super) case: &'a Case,
    pub(super) books: Books<'a>,
    pub(super) decimals: BTreeMap<Address, u8>,
    pub(super) deposits: BTreeMap<B256, Deposit>,
    /// Lowest number registered for an address.
    pub(super) numbers: BTreeMap<Address, u32>,
    credits: BTreeMap<(u32, Address), u64>,
    pub(super) paid: BTreeMap<Name, Paid>,
    pub(super) opinion: Opinion,
}

/// A settled statement as its event has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settled<'a> {
    pub(super) deposit: B256,
    pub(super) epoch: u32,
    pub(super) spent: u64,
    pub(super) root: B256,
    pub(super) rows: &'a [u8],
}

pub(super) fn judge(case: &Case) -> Opinion {
    let decimals: BTreeMap<Address, u8> = case
        .events
        .iter()
        .filter_map(|event| match event {
            Event::TokenRegistered { token, decimals } => Some((*token, *decimals)),
            _ => None,
        })
        .collect();
    let mut judge = Judge {
        case,
        books: Books::new(case, decimals.clone()),
        decimals,
        deposits: BTreeMap::new(),
        numbers: BTreeMap::new(),
        credits: BTreeMap::new(),
        paid: BTreeMap::new(),
        opinion: Opinion::default(),
    };
    judge.manifests();
    for event in &case.events {
        judge.event(event);
    }
    judge.conclude();
    judge.opinion
}

impl<'a> Judge<'a> {
    /// Checks each manifest by itself: root, deposit, digest, and that no two of an epoch could be taken for each other.
    fn manifests(&mut self) {
        let mut totals = BTreeSet::new();
        for manifest in &self.case.manifests {
            let (deposit, epoch) = (manifest.deposit, manifest.epoch);
            let mut differ = |problem: String| {
                let (deposit, epoch) = (Some(deposit), Some(epoch));
                self.opinion.differences.push(Difference {
                    deposit,
                    epoch,
                    workload: None,
                    problem,
                });
            };
            let id = manifest.key.id();
            if id != deposit {
                differ(format!("the manifest's key is that of deposit {id}"));
            }
            let root = hash::root(&manifest.leaves);
            if root != manifest.root {
                differ(format!("the manifest says root {}, its leaves have {root}", manifest.root));
            }
            let rows = hash::pack(&manifest.rows);
            let said = Signed { deposit, epoch, spent: manifest.spent, root, rows: &rows };
            let digest = hash::digest(self.case.chain_id, self.case.contract, &said);
            if digest != manifest.digest {
                differ(format!(
                    "the manifest says digest {}, it should be {digest}",
                    manifest.digest
                ));
            }
            if !totals.insert((deposit, epoch, manifest.spent)) {
                differ(format!("two manifests bring spent to {}; it must differ", manifest.spent));
            }
        }
    }

    fn event(&mut self, event: &'a Event) {
        match event {
            Event::TokenRegistered { .. } => {}
            Event::Registered { provider, payout } => {
                let number = self.numbers.entry(*payout).or_insert(*provider);
                *number = (*number).min(*provider);
            }
            Event::Deposited { key, units } => {
                let deposit = self.deposits.entry(key.id()).or_default();
                deposit.key = Some(*key);
                deposit.balance = deposit.balance.saturating_add(*units);
                self.total(key.token, *units, |total| &mut total.deposited);
            }
            Event::Withdrawn { deposit: id, units } => {
                let deposit = self.deposits.entry(*id).or_default();
                let left = deposit.balance.checked_sub(*units);
                deposit.balance = left.unwrap_or_default();
                let token = deposit.key.map(|key| key.token);
                if left.is_none() {
                    self.differ(
                        Some((*id, None)),
                        None,
                        format!("{units} units were withdrawn, more than it held"),
                    );
                }
                if let Some(token) = token {
                    self.total(token, *units, |total| &mut total.withdrawn);
                }
            }
            Event::Settled { deposit, epoch, spent, root, rows } => {
                let settled =
                    Settled { deposit: *deposit, epoch: *epoch, spent: *spent, root: *root, rows };
                self.settled(settled);
            }
            Event::Claimed { provider, token, units } => {
                let credit = self.credits.entry((*provider, *token)).or_default();
                let left = credit.checked_sub(*units);
                *credit = left.unwrap_or_default();
                if left.is_none() {
                    let problem = format!(
                        "provider {provider} claimed {units} units of {token}, more than its credit"
                    );
                    self.differ(None, None, problem);
                }
                self.total(*token, *units, |total| &mut total.claimed);
            }
        }
    }

    /// Takes a settled statement into the deposit and the credits, and judges it if it is of an organisation of ours.
    fn settled(&mut self, settled: Settled<'a>) {
        let place = Some((settled.deposit, Some(settled.epoch)));
        let rows = hash::rows(settled.rows).unwrap_or_else(|problem| {
            self.differ(place, None, problem);
            Vec::new()
        });
        let sum = rows.iter().fold(0_u64, |sum, (_, units)| sum.saturating_add(*units));
        let deposit = self.deposits.entry(settled.deposit).or_default();
        let (epoch, spent) = (deposit.epoch.saturating_add(1), deposit.spent.saturating_add(sum));
        let left = deposit.balance.checked_sub(sum);
        (deposit.epoch, deposit.spent) = (settled.epoch, settled.spent);
        deposit.balance = left.unwrap_or_default();
        let token = deposit.key.map(|key| key.token);
        if (settled.epoch, settled.spent) != (epoch, spent) {
            let problem = format!(
                "it settled with spent {}; it should be epoch {epoch} with spent {spent}",
                settled.spent
            );
            self.differ(place, None, problem);
        }
        if left.is_none() {
            self.differ(
                place,
                None,
                format!("its rows come to {sum} units, more than the deposit held"),
            );
        }
        let Some(token) = token else { return };
        for (provider, units) in &rows {
            let credit = self.credits.entry((*provider, token)).or_default();
            *credit = credit.saturating_add(*units);
        }
        let manifest = self.case.manifests.iter().find(|manifest| {
            (manifest.deposit, manifest.epoch, manifest.spent)
                == (settled.deposit, settled.epoch, settled.spent)
                && manifest.root == settled.root
        });
        let Some(organisation) = self.payer_of(settled.deposit, manifest) else {
            if let Some(manifest) = manifest {
                let problem = format!(
                    "what it paid is not judged: its manifest names organisation {:?}, which is not configured",
                    manifest.organisation
                );
                self.differ(place, None, problem);
            }
            return;
        };
        if let Some(named) = manifest.map(|manifest| &manifest.organisation)
            && *named != organisation.name
        {
            let problem = format!(
                "the manifest names organisation {named:?}; it should be {:?}",
                organisation.name
            );
            self.differ(place, None, problem);
        }
        match manifest {
            Some(manifest) => self.statement(manifest, &settled, &rows, organisation),
            None if rows.is_empty() && settled.root == B256::ZERO => {}
            None => {
                let problem = format!(
                    "no manifest with root {} is at hand; its file should be {}-{}-….json",
                    settled.root, settled.deposit, settled.epoch
                );
                self.differ(place, None, problem);
                self.deposits.entry(settled.deposit).or_default().is_unknown = true;
            }
        }
    }

    /// Whose statement one is: the organisation's that its manifest names, since a deposit may be configured no more, or for
    /// another one. What the manifest names is not signed: if nobody is called so, it is the organisation that has the deposit,
    /// or whose work is paid. The ids of the work follow from the organisation, so that a false name shows there.
    fn payer_of(&self, deposit: B256, manifest: Option<&Manifest>) -> Option<&'a Organisation> {
        let organisations = &self.case.organisations;
        let named = manifest.and_then(|manifest| {
            organisations.iter().find(|known| known.name == manifest.organisation)
        });
        let listed = || organisations.iter().find(|known| known.deposits.contains(&deposit));
        let of_work = || {
            let mut leaves = manifest?.leaves.iter();
            let (name, _) = leaves.find_map(|leaf| self.books.ids.get(&leaf.workload))?;
            self.books.items.get(name).map(|item| self.books.payer(item))
        };
        named.or_else(listed).or_else(of_work)
    }

    /// Base units of a unit of a token.
    pub(super) fn unit(&self, token: Address) -> U256 {
        ten_to(usize::from(
            self.decimals.get(&token).copied().unwrap_or_default().saturating_sub(6),
        ))
    }

    /// Adds units to one of a token's totals.
    pub(super) fn total(
        &mut self,
        token: Address,
        units: u64,
        of: impl Fn(&mut super::Total) -> &mut I256,
    ) {
        let amount = signed(self.unit(token) * U256::from(units));
        *of(self.opinion.totals.entry(token).or_default()) += amount;
    }

    pub(super) fn differ(
        &mut self,
        place: Option<(B256, Option<u32>)>,
        workload: Option<String>,
        problem: String,
    ) {
        let (deposit, epoch) = (place.map(|place| place.0), place.and_then(|place| place.1));
        self.opinion.differences.push(Difference { deposit, epoch, workload, problem });
    }
}
