//! Pushing credits to payout addresses.

use std::collections::BTreeMap;

use alloy::{primitives::Address, sol_types::SolCall};
use contracts::Settlement;
use ledger::{ProviderNumber, book::Obligation};

use super::{Relayer, Report, View};
use crate::{Error, Result};

/// Most claims in one transaction.
const BATCH_CLAIMS: usize = 200;

impl Relayer {
    /// Pushes credits of at least the token's threshold to their payout addresses.
    pub(super) async fn push(&self, view: &View, report: &mut Report) -> Result<()> {
        let mut by_token: BTreeMap<Address, Vec<(ProviderNumber, u64)>> = BTreeMap::new();
        for credit in self.reader.credits().await? {
            let Some(token) = self.config.token(credit.token) else { continue };
            let is_due = credit.units.get() >= token.push_threshold_units;
            if is_due && !view.busy_claims.contains(&(credit.token, credit.provider)) {
                by_token
                    .entry(credit.token)
                    .or_default()
                    .push((credit.provider, credit.units.get()));
            }
        }
        for (token, credits) in by_token {
            for credits in credits.chunks(BATCH_CLAIMS) {
                self.push_batch(view, token, credits, report).await?;
            }
        }
        Ok(())
    }

    async fn push_batch(
        &self,
        view: &View,
        token: Address,
        credits: &[(ProviderNumber, u64)],
        report: &mut Report,
    ) -> Result<()> {
        let contract = Settlement::new(self.config.chain.contract, &self.provider);
        let providers: Vec<_> = credits.iter().map(|(provider, _)| *provider).collect();
        let paid =
            contract.claim(token, providers.clone()).call().await.map_err(Error::call("claim"))?;
        let mut willing = Vec::new();
        let mut units = 0_u64;
        for (provider, paid) in providers.into_iter().zip(paid) {
            if paid == 0 {
                report
                    .waiting
                    .push(format!("the token {token} refuses to pay provider {provider}"));
            } else {
                willing.push(provider);
                units = units.saturating_add(paid);
            }
        }
        if willing.is_empty() {
            return Ok(());
        }
        let input = Settlement::claimCall { token, providers: willing.clone() }.abi_encode();
        let value = self.micro_usd(token, ledger::Units::new(units)).await?;
        self.send(view, &Obligation::Claim(token, willing), input.into(), Some(value), report).await
    }
}
