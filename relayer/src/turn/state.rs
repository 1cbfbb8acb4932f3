//! Accepting what had waited for money, proposing what is payable, signing it.

use std::collections::BTreeSet;

use ledger::{
    Millis,
    read::{Books, FundingDeposit, UnsettledStatement},
    rules::{self, Fee, Limits, Proposal, Purse},
};

use super::{Relayer, Report, View};
use crate::{Error, Result};

impl Relayer {
    /// Accepts what had waited for money, then proposes and signs what is payable.
    pub(super) async fn state(&self, view: &View, report: &mut Report) -> Result<()> {
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
        let fee = self.fee().await?;
        let closings = self.reader.closings().await?;
        for name in self.reader.organisations().await? {
            report.accepted += self.book.accept_unfunded(&name, &tariff, view.now).await?;
            match fee {
                Some(fee) => {
                    self.state_organisation(&name, &unsettled, fee, &closings, report).await?
                }
                None => report
                    .waiting
                    .push("statements wait until the operator's registration is final".into()),
            }
        }
        Ok(())
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

    /// Proposes and signs the next statement of each deposit that has none under way.
    async fn state_organisation(
        &self,
        name: &str,
        unsettled: &[UnsettledStatement],
        fee: Fee,
        closings: &[(i64, Millis)],
        report: &mut Report,
    ) -> Result<()> {
        let Some(mut books) = self.reader.books(name).await? else { return Ok(()) };
        let Some(token) = books.token else { return Ok(()) };
        if let Some(reason) = self.frozen(name, &books).await? {
            report.waiting.push(reason);
            return Ok(());
        }
        for deposit in books.deposits.clone() {
            let is_under_way = |statement: &UnsettledStatement| {
                statement.deposit == deposit.id && !statement.is_overtaken
            };
            if unsettled.iter().any(is_under_way) {
                continue;
            }
            if let Some(reason) = self.unusable(&deposit, &books) {
                report.waiting.push(reason);
                continue;
            }
            let purse = Purse {
                unit: token.unit,
                spendable: deposit.state.spendable(),
                carries: deposit.carries.clone(),
            };
            let Some(proposal) = self.proposal(name, &books, &purse, fee, closings)? else {
                continue;
            };
            match self.sign(&mut books, &deposit, &proposal).await {
                Ok(()) => report.signed += 1,
                // The deposit moved on while this was proposed; the next turn sees it as it is.
                Err(Error::Ledger(ledger::Error::Unsignable(reason))) => {
                    report.waiting.push(reason)
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
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

    /// Why nothing can be stated for an organisation, if nothing can: a settled statement of one of its deposits is not known
    /// here, and what it paid would be paid again, by this deposit or the next.
    async fn frozen(&self, name: &str, books: &Books) -> Result<Option<String>> {
        for deposit in &books.deposits {
            if let Some(epoch) = self.reader.foreign_epoch(deposit.id).await? {
                let id = deposit.id;
                return Ok(Some(format!(
                    "organisation {name:?} is frozen: this ledger does not know what epoch {epoch} of deposit {id} paid for"
                )));
            }
        }
        Ok(None)
    }

    /// The first closing that leaves something to pay decides what is proposed.
    fn proposal(
        &self,
        name: &str,
        books: &Books,
        purse: &Purse,
        fee: Fee,
        closings: &[(i64, Millis)],
    ) -> Result<Option<Proposal>> {
        let secret = self.attester.secret_of(name);
        let mut payables = Vec::new();
        let mut stops = Vec::new();
        // Oldest first, so that what a closing covers is a prefix.
        for item in &books.open {
            if let Some(payable) = item.to_payable(&secret)? {
                payables.push(payable);
                stops.push(item.stopped_ms);
            }
        }
        let mut tried = 0;
        for (_, until) in closings {
            let covered = stops.partition_point(|stop| stop <= until);
            if covered > tried {
                tried = covered;
                let proposal = rules::propose(&payables[..covered], purse, fee, Limits::default())?;
                if !proposal.rows.is_empty() {
                    return Ok(Some(proposal));
                }
            }
        }
        Ok(None)
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
