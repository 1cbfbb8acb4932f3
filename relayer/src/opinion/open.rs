//! The whole: what is paid, what is open and why, and whether all money is accounted for.

use std::collections::BTreeMap;

use alloy::primitives::{B256, I256, U256};

use super::{
    Difference, OpenWork,
    books::{Item, Name},
    judge::Judge,
    money::signed,
    statement::show,
};

/// Something that is due and that nothing keeps from being paid.
struct Payable {
    name: Name,
    revision: u32,
    due: I256,
    organisation: usize,
    provider: u32,
    stopped_ms: i64,
}

impl Judge<'_> {
    pub(super) fn conclude(&mut self) {
        let stated = self.stated();
        let mut payables = Vec::new();
        let mut owed_back: BTreeMap<(usize, u32), I256> = BTreeMap::new();
        let mut opinion = std::mem::take(&mut self.opinion);
        for (name, item) in &self.books.items {
            opinion.workloads += 1;
            let Some((revision, _)) = item.revisions.last_key_value() else { continue };
            let paid = self.paid.get(name).map_or(I256::ZERO, |paid| paid.sum);
            let amounts = self.amounts_of(item, *revision);
            if amounts.contains(&paid) {
                opinion.paid += 1;
                continue;
            }
            if paid > self.most(item) {
                opinion.differences.push(Difference {
                    workload: Some(show(name, *revision)),
                    problem: format!(
                        "{paid} base units are paid for it; at most {} were ever accepted",
                        self.most(item)
                    ),
                    ..Default::default()
                });
            }
            let due = amounts.first().copied().unwrap_or_default() - paid;
            if let Some(paid) = self.paid.get(name).filter(|_| due.is_negative()) {
                *owed_back.entry((item.organisation, paid.provider)).or_default() += due;
            }
            match self.obstacle(name, item, due, &stated) {
                Ok(provider) => payables.push(Payable {
                    name: name.clone(),
                    revision: *revision,
                    due,
                    organisation: item.organisation,
                    provider,
                    stopped_ms: item.stopped_ms,
                }),
                Err(reason) => {
                    opinion.open.push(OpenWork { workload: show(name, *revision), due, reason });
                }
            }
        }
        self.opinion = opinion;
        self.payables(payables, owed_back);
        self.totals();
    }

    /// Workloads that a manifest of an epoch still to come names: deposit and epoch.
    fn stated(&self) -> BTreeMap<B256, (B256, u32)> {
        let is_open = |deposit: &B256, epoch: u32| {
            self.deposits.get(deposit).is_none_or(|known| known.epoch < epoch)
        };
        self.case
            .manifests
            .iter()
            .filter(|manifest| is_open(&manifest.deposit, manifest.epoch))
            .flat_map(|manifest| {
                manifest
                    .leaves
                    .iter()
                    .map(|leaf| (leaf.workload, (manifest.deposit, manifest.epoch)))
            })
            .collect()
    }

    fn amounts_of(&self, item: &Item, revision: u32) -> Vec<I256> {
        let work = item.revisions.get(&revision).map(|revision| &revision.work);
        let amounts = work.and_then(|work| self.books.amounts(item, work));
        amounts.unwrap_or_default().into_iter().map(signed).collect()
    }

    /// The most that any revision comes to.
    fn most(&self, item: &Item) -> I256 {
        let amounts = item.revisions.keys().flat_map(|revision| self.amounts_of(item, *revision));
        amounts.max().unwrap_or_default()
    }

    /// What keeps a workload from being paid, or the provider that it waits to be paid to.
    fn obstacle(
        &self,
        name: &Name,
        item: &Item,
        due: I256,
        stated: &BTreeMap<B256, (B256, u32)>,
    ) -> Result<u32, String> {
        let ids = item.revisions.values().map(|revision| revision.id);
        if let Some((deposit, epoch)) = ids.filter_map(|id| stated.get(&id)).next() {
            return Err(format!(
                "stated in epoch {epoch} of deposit {deposit}, which is not settled"
            ));
        }
        if self
            .amounts_of(item, item.revisions.keys().last().copied().unwrap_or_default())
            .is_empty()
        {
            return Err("its token is not registered, or has no rate".into());
        }
        if let Some(reason) = self.held(name, item).filter(|_| !due.is_negative()) {
            return Err(reason.into());
        }
        let payer = self.books.payer(item);
        if payer
            .deposits
            .iter()
            .any(|id| self.deposits.get(id).is_some_and(|deposit| deposit.is_unknown))
        {
            return Err(format!("{:?} has a settled statement without a manifest", payer.name));
        }
        if due.is_negative() {
            return Err("owed back; nets against later work of the same provider".into());
        }
        let Some(address) = self.books.payees.get(&item.machine).and_then(|named| named.last())
        else {
            return Err(format!("unaddressed: machine {} has no payout address", item.machine));
        };
        let number = self.numbers.get(address).copied();
        let Some(provider) = number else {
            return Err(format!("payout address {address} is not registered"));
        };
        if self.case.closed_until.is_some_and(|until| item.stopped_ms > until) {
            return Err("no closing covers it yet".into());
        }
        Ok(provider)
    }

    /// Sorts what nothing but money or smallness keeps from being paid; `nets` holds what each provider owes back.
    fn payables(&mut self, mut payables: Vec<Payable>, mut nets: BTreeMap<(usize, u32), I256>) {
        payables.sort_by(|a, b| (a.stopped_ms, &a.name).cmp(&(b.stopped_ms, &b.name)));
        for payable in &payables {
            *nets.entry((payable.organisation, payable.provider)).or_default() += payable.due;
        }
        let bps = self.case.fee_bps.iter().max().copied().unwrap_or_default();
        // Once something waits for money, nothing younger of its organisation overtakes it.
        let mut empty: Vec<bool> = vec![false; self.case.organisations.len()];
        let mut left: Vec<U256> =
            (0..self.case.organisations.len()).map(|index| self.money(index)).collect();
        for payable in payables {
            let Payable { name, revision, due, organisation, provider, .. } = payable;
            let payer = &self.case.organisations[organisation];
            let unit = self.unit(payer.token);
            let base = U256::try_from(due).unwrap_or_default();
            let cost = base + base * U256::from(bps) / U256::from(10_000);
            let net = nets.get(&(organisation, provider)).copied().unwrap_or_default();
            let carry = payer
                .deposits
                .iter()
                .filter_map(|id| self.deposits.get(id)?.carries.get(&provider))
                .max();
            let is_small = net + signed(carry.copied().unwrap_or_default()) < signed(unit);
            let workload = show(&name, revision);
            let reason = if is_small {
                format!("provider {provider} nets below one unit")
            } else if empty[organisation] || left[organisation] < cost {
                empty[organisation] = true;
                format!("unfunded: {:?} has not enough in one deposit", payer.name)
            } else {
                left[organisation] -= cost;
                if self.case.is_over {
                    let problem = format!(
                        "{due} base units are due to provider {provider} and unpaid; nothing keeps them"
                    );
                    self.differ(None, Some(workload), problem);
                    continue;
                }
                "payable, not stated yet".into()
            };
            self.opinion.open.push(OpenWork { workload, due, reason });
        }
    }

    /// What the fullest deposit of an organisation holds, base units, less the remainders that it owes.
    fn money(&self, organisation: usize) -> U256 {
        let payer = &self.case.organisations[organisation];
        let deposits = payer.deposits.iter().filter_map(|id| self.deposits.get(id));
        let unit = self.unit(payer.token);
        let left = deposits.map(|deposit| {
            let owed: U256 = deposit.carries.values().copied().sum();
            (unit * U256::from(deposit.balance)).saturating_sub(owed)
        });
        left.max().unwrap_or_default()
    }

    /// Checks that what leaves name is what rows credited and what is carried.
    fn totals(&mut self) {
        for deposit in self.deposits.values() {
            if let Some(key) = deposit.key {
                let unit =
                    self.decimals.get(&key.token).map_or(0, |decimals| decimals.saturating_sub(6));
                let amount = super::money::ten_to(usize::from(unit)) * U256::from(deposit.balance);
                self.opinion.totals.entry(key.token).or_default().in_deposits += signed(amount);
            }
        }
        for (token, total) in self.opinion.totals.clone() {
            let (named, given) = (total.work + total.fee, total.credited + total.carried);
            if named != given {
                let problem = format!(
                    "of {token}, leaves of work and fee come to {named} base units; rows credit {} and {} are carried, which should be the same",
                    total.credited, total.carried
                );
                self.differ(None, None, problem);
            }
        }
    }
}
