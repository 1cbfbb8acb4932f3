//! Pushing credits to payout addresses.

use std::{cmp::Reverse, collections::BTreeMap, slice};

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

/// A credit: its token, and whose it is.
type Key = (Address, ProviderNumber);

/// Credits that a token refused to pay.
pub(super) type Backoff = BTreeMap<Key, Rest>;

/// How often in a row a credit was refused, when it is tried again, and why it was refused last.
#[derive(Debug, Clone)]
pub(super) struct Rest {
    times: u32,
    until: Millis,
    why: String,
}

/// Providers whose credits one transaction pushes, and what that pays each, units.
type Batch = Vec<(ProviderNumber, u64)>;

impl Relayer {
    /// Pushes credits of at least the token's threshold to the payout addresses of providers that deposits here paid.
    pub(super) async fn push(&self, view: &View, report: &mut Report) -> Result<()> {
        if view.is_frozen() {
            return Ok(());
        }
        let mut by_token: BTreeMap<Address, Vec<ProviderNumber>> = BTreeMap::new();
        for credit in self.reader.own_credits().await? {
            let Some(token) = self.config.token(credit.token) else { continue };
            let is_due = credit.units.get() >= token.push_threshold_units;
            let key = (credit.token, credit.provider);
            if is_due && !view.busy.claims.contains(&key) && !self.rests(key, view.now, report) {
                by_token.entry(credit.token).or_default().push(credit.provider);
            }
        }
        for (token, providers) in by_token {
            // Neighbours share a word of storage.
            for providers in providers.chunks(BATCH_CLAIMS) {
                if !self.has_room(view, kept_free(view), report, "a claim batch") {
                    return Ok(());
                }
                for willing in self.willing(view, token, providers, report).await? {
                    if !self.has_room(view, kept_free(view), report, "a claim batch") {
                        return Ok(());
                    }
                    self.push_batch(view, token, willing, report).await?;
                }
            }
        }
        Ok(())
    }

    /// The batches of claims that a simulation lets through: all that pay something together if they can, or else as they
    /// passed, those together that may. What pays nothing rests.
    async fn willing(
        &self,
        view: &View,
        token: Address,
        providers: &[ProviderNumber],
        report: &mut Report,
    ) -> Result<Vec<Batch>> {
        let mut bisection = Bisection::new(providers.to_vec());
        let mut batches = Vec::new();
        while let Some(group) = bisection.next() {
            let obligation = Obligation::Claim(token, group.to_vec());
            if let Some(reason) = self.apart().why(&obligation, view.now, Urgency::Calm) {
                bisection.fail(reason);
                continue;
            }
            match self.simulate_claim(token, group, view).await? {
                Ok(paid) => {
                    let paid: Vec<_> = group.iter().copied().zip(paid).collect();
                    batches.push(self.paying(view, token, &paid, report).await?);
                    bisection.pass();
                }
                Err(reason) => bisection.fail(reason),
            }
        }
        for (provider, reason) in bisection.poison {
            self.rest((token, provider), &reason, view.now, report);
        }
        batches.retain(|batch| !batch.is_empty());
        // There are several only where all together failed, or came to nothing before.
        if batches.len() < 2 {
            return Ok(batches);
        }
        let may_join = |batch: &Batch| !self.apart().parts_any(token, batch, view.now);
        let (joined, mut batches): (Vec<_>, Vec<_>) = batches.into_iter().partition(may_join);
        let all = joined.concat();
        if joined.len() > 1 && self.simulate_claim(token, &providers_of(&all), view).await?.is_ok()
        {
            // A look has room for a few only.
            batches.insert(0, all);
        } else {
            batches.extend(joined);
        }
        Ok(batches)
    }

    /// The claims that pay something. One that pays nothing, though there is a credit, is refused by the token and rests; where
    /// the credit is younger than the block, there is nothing to say yet.
    async fn paying(
        &self,
        view: &View,
        token: Address,
        paid: &[(ProviderNumber, u64)],
        report: &mut Report,
    ) -> Result<Batch> {
        let mut batch = Batch::default();
        for (provider, paid) in paid {
            let key = (token, *provider);
            if *paid > 0 {
                batch.push((*provider, *paid));
                self.forget(key);
            } else if self.credit_at(key, view).await? > 0 {
                self.rest(key, "the token refuses to pay it", view.now, report);
            }
        }
        Ok(batch)
    }

    /// Pushes credits together, or, where that is too dear, as many of the largest as are not, halving; says what the others wait
    /// for.
    async fn push_batch(
        &self,
        view: &View,
        token: Address,
        mut batch: Batch,
        report: &mut Report,
    ) -> Result<()> {
        batch.sort_by_key(|(provider, units)| (Reverse(*units), *provider));
        let mut too_dear = None;
        while !batch.is_empty() {
            let units = batch.iter().fold(0_u64, |sum, (_, units)| sum.saturating_add(*units));
            let providers = providers_of(&batch);
            let input = Settlement::claimCall { token, providers: providers.clone() }.abi_encode();
            let value = Some(self.micro_usd(token, Units::new(units)).await?);
            let worth = Worth { value, deadline: None, urgency: Some(Urgency::Calm) };
            let obligation = Obligation::Claim(token, providers);
            let sent = self.send_if_cheap(
                view,
                &obligation,
                input.into(),
                slice::from_ref(&worth),
                report,
            );
            let Some(why) = sent.await? else { break };
            too_dear.get_or_insert(why);
            batch.truncate(batch.len() / 2);
        }
        if let Some(why) = too_dear {
            self.wait(report, view.now, "a claim batch", &why);
        }
        Ok(())
    }

    /// What the contract holds for a provider at the block that the turn decides by, units.
    async fn credit_at(&self, (token, provider): Key, view: &View) -> Result<u64> {
        let contract = Settlement::new(self.config.chain.contract, &self.provider);
        let call = contract.creditOf(token, provider).block(view.block());
        call.call().await.map_err(Error::call("creditOf"))
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

    /// Whether a credit that was refused waits to be tried again; says so.
    fn rests(&self, key: Key, now: Millis, report: &mut Report) -> bool {
        let waits = self.apart().claim_waits(key, now);
        if let Some((why, until)) = waits {
            self.tell(key, &Rest { times: 0, until, why }, now, report);
            return true;
        }
        let Ok(backoff) = self.backoff.lock() else { return false };
        let Some(rest) = backoff.get(&key).filter(|rest| now < rest.until).cloned() else {
            return false;
        };
        drop(backoff);
        self.tell(key, &rest, now, report);
        true
    }

    /// Lets a credit that was refused wait, each time twice as long, and says so.
    fn rest(&self, key: Key, why: &str, now: Millis, report: &mut Report) {
        let Ok(mut backoff) = self.backoff.lock() else { return };
        let times = backoff.get(&key).map_or(0, |rest| rest.times);
        let pause = BACKOFF.0.saturating_mul(1 << times.min(20)).min(BACKOFF.1);
        let until = now.saturating_add(pause);
        let rest = Rest { times: times.saturating_add(1), until, why: why.to_owned() };
        backoff.insert(key, rest.clone());
        drop(backoff);
        self.tell(key, &rest, now, report);
    }

    fn tell(&self, (token, provider): Key, rest: &Rest, now: Millis, report: &mut Report) {
        let subject = format!("the credit of provider {provider} in {token}");
        let why = format!("{}; it is tried again from {} on", rest.why, time(rest.until));
        self.wait(report, now, &subject, &why);
    }

    /// A credit is paid again: the next refusal is a first one.
    fn forget(&self, key: Key) {
        if let Ok(mut backoff) = self.backoff.lock() {
            backoff.remove(&key);
        }
    }
}

fn providers_of(batch: &[(ProviderNumber, u64)]) -> Vec<ProviderNumber> {
    batch.iter().map(|(provider, _)| *provider).collect()
}

/// How many slots claims leave free. They are worth less for their gas than statements, which may not wait for them.
fn kept_free(view: &View) -> usize {
    let is_delegated = view.standing.plan.waiting.contains(&Wait::Delegated);
    if is_delegated { 0 } else { MAX_IN_FLIGHT / 2 }
}
