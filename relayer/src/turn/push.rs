//! Pushing credits to payout addresses.

use std::collections::BTreeMap;

use alloy::{primitives::Address, sol_types::SolCall};
use contracts::Settlement;
use ledger::{Millis, ProviderNumber, Units, book::Obligation};

use super::{
    Relayer, Report, View,
    bisection::Bisection,
    send::{Worth, time},
};
use crate::{
    Error, Result,
    sender::{
        MAX_GAS,
        fees::Urgency,
        plan::{MAX_IN_FLIGHT, Wait},
        refusal,
    },
};

/// Most claims in one transaction.
const BATCH_CLAIMS: usize = 200;
/// How long a credit waits that the token refused to pay, at first and at most.
const BACKOFF: (Millis, Millis) = (60_000, 24 * 3_600_000);

/// Credits that a token refused to pay: how often, and when they are tried again.
pub(super) type Backoff = BTreeMap<(Address, ProviderNumber), (u32, Millis)>;

impl Relayer {
    /// Pushes credits of at least the token's threshold to their payout addresses.
    pub(super) async fn push(&self, view: &View, report: &mut Report) -> Result<()> {
        if view.is_frozen() {
            return Ok(());
        }
        let mut by_token: BTreeMap<Address, Vec<ProviderNumber>> = BTreeMap::new();
        for credit in self.reader.credits().await? {
            let Some(token) = self.config.token(credit.token) else { continue };
            let is_due = credit.units.get() >= token.push_threshold_units;
            let key = (credit.token, credit.provider);
            if is_due && !view.busy.claims.contains(&key) && !self.rests(key, view.now) {
                by_token.entry(credit.token).or_default().push(credit.provider);
            }
        }
        // Claims are worth less for their gas than statements, which may not wait for them.
        let is_delegated = view.standing.plan.waiting.contains(&Wait::Delegated);
        let kept_free = if is_delegated { 0 } else { MAX_IN_FLIGHT / 2 };
        for (token, providers) in by_token {
            for providers in providers.chunks(BATCH_CLAIMS) {
                if !self.has_room(view, kept_free, report, "a claim batch") {
                    return Ok(());
                }
                self.push_batch(view, token, providers, report).await?;
            }
        }
        Ok(())
    }

    async fn push_batch(
        &self,
        view: &View,
        token: Address,
        providers: &[ProviderNumber],
        report: &mut Report,
    ) -> Result<()> {
        let mut willing = Vec::new();
        let mut units = Units::ZERO;
        let mut bisection = Bisection::new(providers.to_vec());
        while let Some(group) = bisection.next() {
            match self.simulate_claim(token, group, view).await? {
                Ok(paid) => {
                    for (provider, paid) in group.iter().zip(paid) {
                        if paid == 0 {
                            let why = "the token refuses to pay it";
                            self.rest((token, *provider), why, view.now, report);
                        } else {
                            willing.push(*provider);
                            units = Units::new(units.get().saturating_add(paid));
                        }
                    }
                    bisection.pass();
                }
                Err(reason) => bisection.fail(reason),
            }
        }
        for (provider, reason) in bisection.poison {
            self.rest((token, provider), &reason, view.now, report);
        }
        if willing.is_empty() {
            return Ok(());
        }
        let input = Settlement::claimCall { token, providers: willing.clone() }.abi_encode();
        let value = Some(self.micro_usd(token, units).await?);
        let worth = Worth { value, deadline: None, urgency: Some(Urgency::Calm) };
        self.send(view, &Obligation::Claim(token, willing), input.into(), &worth, report).await
    }

    /// What a claim would pay each provider, at the block that the turn decides by; or why it would fail.
    async fn simulate_claim(
        &self,
        token: Address,
        providers: &[ProviderNumber],
        view: &View,
    ) -> Result<std::result::Result<Vec<u64>, String>> {
        let contract = Settlement::new(self.config.chain.contract, &self.provider);
        let call = contract.claim(token, providers.to_vec());
        let call = call.from(self.sender.address()).gas(MAX_GAS);
        match call.block(view.block()).call().await {
            Ok(paid) => Ok(Ok(paid)),
            Err(alloy::contract::Error::TransportError(error)) => match refusal(&error) {
                Some(reason) => Ok(Err(reason)),
                None => Err(Error::call("claim")(alloy::contract::Error::TransportError(error))),
            },
            Err(error) => Err(Error::call("claim")(error)),
        }
    }

    /// Whether a credit that was refused waits to be tried again.
    fn rests(&self, key: (Address, ProviderNumber), now: Millis) -> bool {
        let Ok(backoff) = self.backoff.lock() else { return false };
        backoff.get(&key).is_some_and(|(_, until)| now < *until)
    }

    /// Lets a credit that was refused wait, each time twice as long, and says so.
    fn rest(&self, key: (Address, ProviderNumber), why: &str, now: Millis, report: &mut Report) {
        let Ok(mut backoff) = self.backoff.lock() else { return };
        let (times, until) = backoff.entry(key).or_insert((0, now));
        let pause = BACKOFF.0.saturating_mul(1 << (*times).min(20)).min(BACKOFF.1);
        *times += 1;
        *until = now.saturating_add(pause);
        let until = time(*until);
        drop(backoff);
        let (token, provider) = key;
        let subject = format!("the credit of provider {provider} in {token}");
        self.wait(report, now, &subject, &format!("{why}; it is tried again from {until} on"));
    }
}
