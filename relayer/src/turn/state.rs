//! Accepting what had waited for money, proposing what is payable, signing it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::PoisonError,
};

use alloy::primitives::B256;
use ledger::{
    Amount, Millis, Unit, Units,
    read::{Books, FundingDeposit, NextCandidate, UnsettledStatement},
    rules::{self, Fee, Limits, Next, Proposal, Purse},
};

use super::{Relayer, Report, View};
use crate::{Error, Result, chain_of};

/// What stating for one organisation needs to know besides its books.
struct Desk<'a> {
    name: &'a str,
    unit: Unit,
    fee: Fee,
    closings: &'a [(i64, Millis)],
    /// What a provider must be owed, base units, for a row to be worth its gas.
    least: Amount,
}

impl Desk<'_> {
    /// What a provider must be owed: anything while the requestor takes money out.
    const fn least(&self, purse: &Purse) -> Amount {
        if purse.is_thawing { Amount::ZERO } else { self.least }
    }

    fn purse(&self, deposit: &FundingDeposit) -> Purse {
        Purse {
            unit: self.unit,
            spendable: deposit.state.spendable(),
            carries: deposit.carries.clone(),
            is_thawing: deposit.state.is_thawing(),
        }
    }
}

impl Relayer {
    /// Accepts what had waited for money, then proposes and signs what is payable.
    pub(super) async fn state(&self, view: &View, report: &mut Report) -> Result<()> {
        if let Err(error) = self.attester.notice(view.now).await {
            // What else was signed is not known: nothing is promised or signed, and what is signed already goes on.
            if !matches!(error, Error::File { .. }) {
                return Err(error);
            }
            report.waiting.push(format!("statements wait for the manifests: {}", chain_of(&error)));
            return Ok(());
        }
        match self.attester.manifests().complete_copies().await {
            // A folder that cannot be listed now is told by what wants to write into it.
            Err(error) => {
                report.waiting.push(format!("copies of manifests wait: {}", chain_of(&error)))
            }
            Ok(lacked) => report.waiting.extend(lacked),
        }
        let tariff = self.config.tariff();
        let unsettled = self.reader.unsettled_statements().await?;
        for statement in
            unsettled.iter().filter(|statement| !statement.is_signed && !statement.is_overtaken)
        {
            match self.attester.sign(statement.id).await {
                Ok(_) => report.signed += 1,
                Err(Error::Ledger(ledger::Error::Unsignable(reason))) => {
                    report.waiting.push(reason)
                }
                Err(error) => return Err(error),
            }
        }
        report.waiting.extend(self.stranded(&unsettled).await?);
        let fee = self.fee().await?;
        if fee.is_none() {
            let reason = "statements wait until the operator's registration is final";
            report.waiting.push(reason.into());
        }
        let closings = self.reader.closings().await?;
        for name in self.reader.organisations().await? {
            report.accepted += self.book.accept_unfunded(&name, &tariff, view.now).await?;
            if let Some(fee) = fee {
                self.state_organisation((&name, view), fee, &closings, report).await?;
            }
        }
        Ok(())
    }

    /// Why work waits that only statements name which cannot settle, of deposits that pay for nobody any more.
    async fn stranded(&self, unsettled: &[UnsettledStatement]) -> Result<Vec<String>> {
        let is_configured = |deposit: &B256| {
            self.config.organisations.iter().any(|known| known.deposits.contains(deposit))
        };
        let open = unsettled.iter().filter(|statement| !statement.is_overtaken);
        let deposits: BTreeSet<_> = open.map(|statement| statement.deposit).collect();
        let mut reasons = Vec::new();
        for deposit in deposits.into_iter().filter(|deposit| !is_configured(deposit)) {
            let candidates = self.reader.next_candidates(deposit).await?;
            if !candidates.is_empty() && !candidates.iter().any(|candidate| candidate.fits) {
                reasons.push(format!(
                    "a statement of deposit {deposit}, which is configured for nobody, cannot settle or may not: its work waits \
                     until the deposit is named again, beside one that can pay"
                ));
            }
        }
        Ok(reasons)
    }

    /// The operator's fee; `None` while its registration is not final.
    async fn fee(&self) -> Result<Option<Fee>> {
        let bps = self.config.tariff().fee_bps;
        match self.config.policy.operator_payout {
            Some(payout) if bps > 0 => {
                let operator = self.reader.final_number_of(payout).await?;
                Ok(operator.map(|operator| Fee { bps, operator: Some(operator) }))
            }
            _ => Ok(Some(Fee { bps: 0, operator: None })),
        }
    }

    /// Proposes and signs, for each deposit, the next statement that is worth having.
    async fn state_organisation(
        &self,
        (name, view): (&str, &View),
        fee: Fee,
        closings: &[(i64, Millis)],
        report: &mut Report,
    ) -> Result<()> {
        let Some(mut books) = self.reader.books(name).await? else { return Ok(()) };
        let Some(token) = books.token else { return Ok(()) };
        report.waiting.extend(unaddressed(name, &books)?);
        if books.deposits.iter().any(|deposit| deposit.is_usable && deposit.state.is_thawing()) {
            let margin = u64::from(self.config.policy.settle_margin_hours) * 3600;
            let bounds = (margin, self.config.tariff().fee_bps);
            if self.book.decide_before_thaw_ends(name, bounds, view.now).await? > 0
                && let Some(decided) = self.reader.books(name).await?
            {
                books = decided;
            }
        }
        if let Some(freeze) = books.freezes.first() {
            report.waiting.push(format!("organisation {name:?} is frozen: {}", freeze.reason));
            return Ok(());
        }
        let least = self.least_row(books.pays_in, view).await?;
        let desk = Desk { name, unit: token.unit, fee, closings, least };
        let mut free = BTreeMap::new();
        let mut outgrown = BTreeSet::new();
        for deposit in books.deposits.clone() {
            if let Some(reason) = self.unusable(&deposit, &books) {
                report.waiting.push(reason);
                continue;
            }
            let candidates = self.reader.next_candidates(deposit.id).await?;
            let next = self.next_statement(&desk, &books, (&deposit, &candidates), view)?;
            let taken = candidates.iter().filter(|candidate| candidate.fits).map(|c| c.total).max();
            if taken.is_none() && next.is_none() {
                outgrown.insert((deposit.id, deposit.state.epoch.saturating_add(1)));
            }
            let mut taken = taken.unwrap_or_default();
            if let Some(proposal) = next {
                taken = taken.max(proposal.total()?);
                match self.sign(&mut books, &deposit, &proposal).await {
                    Ok(()) => report.signed += 1,
                    // The deposit moved on while this was proposed; the next turn sees it as it is.
                    Err(Error::Ledger(ledger::Error::Unsignable(reason))) => {
                        report.waiting.push(reason)
                    }
                    Err(error) => return Err(error),
                }
            }
            let left = deposit.state.spendable().get().saturating_sub(taken.get());
            free.insert(deposit.id, left);
        }
        report.waiting.extend(too_large(&books, (token.unit, fee), &free, &outgrown)?);
        if let Some(reason) = too_small(&books, &desk)? {
            self.wait(report, view.now, &format!("work of organisation {name:?}"), &reason);
        }
        Ok(())
    }

    /// The next statement of a deposit that is worth having, if one is.
    fn next_statement(
        &self,
        desk: &Desk<'_>,
        books: &Books,
        (deposit, candidates): (&FundingDeposit, &[NextCandidate]),
        view: &View,
    ) -> Result<Option<Proposal>> {
        let has_settleable = candidates.iter().any(|candidate| candidate.fits);
        let taken = candidates.iter().map(|candidate| candidate.spent).collect();
        let proposal = self.proposal(desk, books, deposit, (has_settleable, &taken))?;
        let known: Vec<_> = candidates
            .iter()
            .map(|candidate| rules::Candidate {
                spent: candidate.spent,
                total: candidate.total,
                is_signed: candidate.is_signed,
                is_sent: view.busy.statements.contains(&candidate.id),
                has_waited: self.was_unsent(candidate.id),
                pays_again: candidate.pays_again,
            })
            .collect();
        // Another organisation's work is to be paid by its own deposits, and no books here tell whether they can.
        let is_of_another = |candidate: &NextCandidate| {
            candidate.organisation.as_deref().is_some_and(|name| name != desk.name)
        };
        let has_to_move =
            candidates.iter().any(|candidate| candidate.pays_again || is_of_another(candidate));
        let prospect = rules::Prospect {
            state: deposit.state,
            fresh: proposal.total()?,
            can_move: !candidates.is_empty()
                && !has_settleable
                && (has_to_move || self.can_move(desk, books, deposit)?),
        };
        Ok(match rules::next_candidate(&known, &prospect) {
            Next::Nothing => None,
            Next::State => Some(proposal),
            Next::Retire => Some(Proposal::default()),
        })
    }

    /// Whether an earlier turn found this candidate unsent, as this one does: it waits for something.
    fn was_unsent(&self, candidate: i64) -> bool {
        let mut unsent = self.unsent.lock().unwrap_or_else(PoisonError::into_inner);
        !unsent.insert(candidate)
    }

    /// Why no statement can be made for a deposit, if none can.
    fn unusable(&self, deposit: &FundingDeposit, books: &Books) -> Option<String> {
        let Some(key) = &deposit.key else {
            return Some(format!("deposit {} has not been seen on chain", deposit.id));
        };
        let (id, attester, token) = (deposit.id, self.attester.address(), books.pays_in);
        (!deposit.is_usable).then(|| {
            format!(
                "deposit {id} holds {} and names {} and {} as its keys; it pays for nobody, since only deposits of {token} \
                 that name the attester {attester} alone can be stated",
                key.token, key.signer, key.cosigner
            )
        })
    }

    /// The first closing that leaves something to pay decides what is proposed. Where a candidate waits, the last closing does,
    /// so that a larger one can take its place; where the requestor thaws, everything is stated at once.
    fn proposal(
        &self,
        desk: &Desk<'_>,
        books: &Books,
        deposit: &FundingDeposit,
        (has_settleable, taken): (bool, &BTreeSet<Units>),
    ) -> Result<Proposal> {
        let secret = self.attester.secret_of(desk.name);
        let place = (deposit.id, deposit.state.epoch.saturating_add(1));
        let mut payables = Vec::new();
        let mut stops = Vec::new();
        // Oldest first, so that what a closing covers is a prefix.
        for item in &books.open {
            if let Some(payable) = item.to_payable(&secret, place)? {
                payables.push(payable);
                stops.push(item.stopped_ms);
            }
        }
        let purse = desk.purse(deposit);
        let least = desk.least(&purse);
        // Before that many no row is worth its gas.
        let Some(first) = rules::first_worth_a_row(&payables, &purse, least)? else {
            return Ok(Proposal::default());
        };
        let propose = |covered: usize| {
            let (policy, spent) = ((desk.fee, Limits::default()), (deposit.state.spent, taken));
            let payables = rules::worth_a_row(&payables[..covered], &purse, least)?;
            rules::propose_apart(&payables, &purse, policy, spent)
        };
        if deposit.state.is_thawing() {
            return Ok(propose(payables.len())?);
        }
        let last = desk.closings.iter().map(|(_, until)| *until).max();
        let mut tried = 0;
        for (_, until) in desk.closings {
            let until = if has_settleable { last.unwrap_or(*until) } else { *until };
            let covered = stops.partition_point(|stop| *stop <= until);
            if covered > tried && covered >= first {
                tried = covered;
                let proposal = propose(covered)?;
                if !proposal.rows.is_empty() {
                    return Ok(proposal);
                }
            }
        }
        Ok(Proposal::default())
    }

    /// Whether another deposit could pay some of the work that candidates of this one name, once its epoch is retired.
    fn can_move(&self, desk: &Desk<'_>, books: &Books, from: &FundingDeposit) -> Result<bool> {
        let secret = self.attester.secret_of(desk.name);
        let place = (from.id, from.state.epoch.saturating_add(1));
        let mut payables = Vec::new();
        for item in books.open.iter().filter(|item| !item.live.is_empty()) {
            payables.extend(item.to_payable(&secret, place)?);
        }
        for to in books.deposits.iter().filter(|to| to.is_usable && to.id != from.id) {
            // With what else is owed to them there, small rows may be worth their gas.
            let purse = desk.purse(to);
            if !rules::propose(&payables, &purse, desk.fee, Limits::default())?.rows.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Records a proposal, takes what it names out of the books at hand, and signs it. In this order: whether or not the
    /// signature succeeds, the recorded statement may be signed later, so that no other may name the same work.
    async fn sign(
        &self,
        books: &mut Books,
        deposit: &FundingDeposit,
        proposal: &Proposal,
    ) -> Result<()> {
        let fee_bps = self.config.tariff().fee_bps;
        let statement =
            self.book.record_statement(deposit.id, &deposit.state, proposal, fee_bps).await?;
        let named: BTreeSet<_> =
            proposal.leaves.iter().filter_map(|leaf| leaf.paid).map(|paid| paid.item).collect();
        books.open.retain(|item| !named.contains(&item.item));
        self.attester.sign(statement.id).await.map(drop)
    }
}

/// What machines without a number lose when a requestor withdraws, and by when.
fn unaddressed(name: &str, books: &Books) -> Result<Option<String>> {
    let thawing = books.deposits.iter().filter(|d| d.is_usable && d.state.is_thawing());
    let Some(first) = thawing.min_by_key(|deposit| deposit.state.thaw_ends) else {
        return Ok(None);
    };
    let mut lost = Amount::ZERO;
    let mut machines = BTreeSet::new();
    for item in books.open.iter().filter(|item| item.provider.is_none()) {
        let due = item.due()?.max(0).unsigned_abs();
        if due > 0 {
            lost = lost.add(Amount::new(due))?;
            machines.insert(&item.machine);
        }
    }
    Ok((!machines.is_empty()).then(|| {
        format!(
            "organisation {name:?} thaws deposit {}: {lost} base units of {} machines without a final registration are lost \
             to them once it withdraws, from {} on (seconds since 1970)",
            first.id,
            machines.len(),
            first.state.thaw_ends
        )
    }))
}

/// Why closed work waits that no candidate names: a row of what its provider is owed is not worth its gas.
fn too_small(books: &Books, desk: &Desk<'_>) -> Result<Option<String>> {
    let least = desk.least;
    let Some(last) = desk.closings.iter().map(|(_, until)| *until).max() else { return Ok(None) };
    let mut owed: BTreeMap<_, i128> = BTreeMap::new();
    for item in books.open.iter().filter(|item| item.live.is_empty() && item.stopped_ms <= last) {
        if let Some((_, provider, due)) = item.payable(Default::default())? {
            let owed = owed.entry(provider).or_default();
            *owed = owed.saturating_add(due);
        }
    }
    let is_small = |owed: &i128| *owed > 0 && owed.unsigned_abs() < least.base_units();
    let small = owed.into_values().filter(is_small).count();
    Ok((small > 0).then(|| {
        format!(
            "rows that wait: {small}; each would move less than {least} base units, from which on its gas is within \
             policy.max_fee_bps now; they go when more is owed, when gas is cheaper, or when the requestor thaws"
        )
    }))
}

/// Why the oldest payable work waits although it was accepted: no deposit alone has enough left for it. `free` is what each
/// has left beside its candidates, in units; `outgrown` are deposits and epochs that no candidate fits any more and that get
/// no other: what only those name waits as if nothing named it.
fn too_large(
    books: &Books,
    (unit, fee): (Unit, Fee),
    free: &BTreeMap<B256, u64>,
    outgrown: &BTreeSet<(B256, u32)>,
) -> Result<Option<String>> {
    let mut oldest = None;
    for item in &books.open {
        let mut places = item.live.iter().map(|live| (live.deposit, live.epoch));
        let place = places.next();
        if !place.into_iter().chain(places).all(|place| outgrown.contains(&place)) {
            continue;
        }
        let payable = item.payable(place.unwrap_or_default())?;
        if let Some((_, _, due)) = payable.filter(|(_, _, due)| *due > 0) {
            oldest = Some((item, Amount::new(due.unsigned_abs())));
            break;
        }
    }
    let Some((item, due)) = oldest else { return Ok(None) };
    let bps = if fee.operator.is_some() { fee.bps } else { 0 };
    let need = unit.split(due)?.0.add(unit.split(due.share(bps)?)?.0)?.get();
    let most = free.values().copied().max().unwrap_or(0);
    let sum = free.values().fold(0, |sum: u64, units| sum.saturating_add(*units));
    let name = format!("work {:?} of source {:?}", item.external_id, item.source);
    Ok(match () {
        () if need <= most => None,
        () if need <= sum => Some(format!(
            "{name} needs {need} units; together the deposits have {sum} left, but none has more than {most}, and a statement \
             spends one deposit: put the money into one"
        )),
        () => Some(format!("{name} needs {need} units, and the deposits have {sum} left")),
    })
}
