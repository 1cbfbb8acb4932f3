//! Sending an obligation: what it is worth, what it may cost, and what it waits for.

use std::{collections::BTreeMap, slice};

use alloy::primitives::{Address, B256, Bytes};
use jiff::Timestamp;
use ledger::{Amount, Millis, Units, book::Obligation, read::AttemptKind, rules::DepositState};

use super::{Relayer, Report, View};
use crate::{
    Result,
    sender::{
        Opening,
        fees::{self, Urgency},
        plan::Bound,
    },
};

/// What has not waited for so long begins to wait anew; longer than credits are not looked at.
const FORGET: Millis = 3_600_000;

/// Since when things wait: the first and the last time that each was noticed, by what it is.
pub(super) type Since = BTreeMap<String, (Millis, Millis)>;

/// What an obligation moves, or a statement of a batch, and until when it has to.
#[derive(Debug, Clone, Default)]
pub(super) struct Worth {
    /// Millionths of a USD; `None` where fees are not judged by value.
    pub(super) value: Option<u128>,
    /// When money that it needs could leave otherwise, less a margin; ms.
    pub(super) deadline: Option<Millis>,
    /// How soon it goes without a deadline.
    pub(super) urgency: Option<Urgency>,
}

impl Worth {
    /// What is left until its deadline, ms.
    fn left(&self, now: Millis) -> Option<Millis> {
        self.deadline.map(|deadline| deadline.saturating_sub(now))
    }

    /// Whether its deadline is near.
    pub(super) fn is_pressing(&self, now: Millis) -> bool {
        self.left(now).is_some_and(|left| left < fees::PRESSURE)
    }
}

impl Relayer {
    /// Sends an obligation if there is room, its fee is bounded and paid for; otherwise says why it waits, and until when.
    pub(super) async fn send(
        &self,
        view: &View,
        obligation: &Obligation,
        input: Bytes,
        worth: &Worth,
        report: &mut Report,
    ) -> Result<()> {
        let worth = slice::from_ref(worth);
        if let Some(why) = self.send_if_cheap(view, obligation, input, worth, report).await? {
            self.wait(report, view.now, &subject_of(obligation), &why);
        }
        Ok(())
    }

    /// The same for an obligation of several parts, but for one case: if it is too dear now, that is not said but returned.
    pub(super) async fn send_if_cheap(
        &self,
        view: &View,
        obligation: &Obligation,
        input: Bytes,
        parts: &[Worth],
        report: &mut Report,
    ) -> Result<Option<String>> {
        let subject = subject_of(obligation);
        if view.is_frozen() || !self.has_room(view, 0, report, &subject) {
            return Ok(None);
        }
        let gas_limit = match self.sender.gas_limit(&input, view.block()).await? {
            Ok(gas_limit) => gas_limit,
            Err(reason) => {
                self.wait(report, view.now, &subject, &format!("it would fail: {reason}"));
                return Ok(None);
            }
        };
        let bound = self.bound(parts, gas_limit, view.later)?;
        if self.is_too_dear(bound, view) {
            return self.too_dear(parts, bound, gas_limit, view).map(Some);
        }
        let opening = Opening { kind: AttemptKind::Work, obligation, input, gas_limit, bound };
        match self.sender.open(&view.standing, opening, view.now).await? {
            None => report.sent += 1,
            Some(reason) => self.wait(report, view.now, &subject, &reason),
        }
        Ok(None)
    }

    /// Whether another slot may be opened in this turn so that some stay `free`; says so if not.
    pub(super) fn has_room(
        &self,
        view: &View,
        free: usize,
        report: &mut Report,
        subject: &str,
    ) -> bool {
        let has_room = report.sent.saturating_add(free) < view.standing.plan.room;
        if !has_room {
            self.wait(report, view.now, subject, "it goes when a transaction before it is mined");
        }
        has_room
    }

    /// Reports that something waits, since when and why. `subject` tells it from everything else.
    pub(super) fn wait(&self, report: &mut Report, now: Millis, subject: &str, why: &str) {
        let Ok(mut since) = self.since.lock() else { return };
        since.retain(|_, (_, last)| now.saturating_sub(*last) < FORGET);
        let (first, last) = since.entry(subject.to_owned()).or_insert((now, now));
        *last = now;
        report.waiting.push(format!("{subject} waits since {}: {why}", time(*first)));
    }

    /// What an obligation moves, at the checkpoint: each statement for itself, and nothing for one whose epoch is over.
    pub(super) async fn worth(&self, obligation: &Obligation) -> Result<Vec<Worth>> {
        match obligation {
            Obligation::Settle(statements) => {
                let mut parts = Vec::new();
                for statement in statements {
                    if self.reader.is_void(&Obligation::Settle(vec![*statement])).await? {
                        continue;
                    }
                    let signed = self.reader.signed_statement(*statement).await?;
                    parts.push(self.worth_of(&signed).await?);
                }
                Ok(parts)
            }
            Obligation::Claim(token, providers) => {
                let mut units = 0_u64;
                for provider in providers {
                    let credit = self.reader.credit(*token, *provider).await?;
                    units = units.saturating_add(credit.get());
                }
                let value = Some(self.micro_usd(*token, Units::new(units)).await?);
                Ok(vec![Worth { value, deadline: None, urgency: Some(Urgency::Calm) }])
            }
            Obligation::Register(_) => Ok(vec![Worth::default()]),
        }
    }

    /// What a statement moves, or what an empty one frees for another deposit; and, if a withdrawal of what thaws would leave
    /// too little for it, or for what waits behind it, when that could come, less a margin.
    pub(super) async fn worth_of(&self, signed: &ledger::read::SignedStatement) -> Result<Worth> {
        let rows = contracts::rows::decode(&signed.statement.rows).map_err(ledger::Error::from)?;
        let moved = rows.iter().fold(0_u64, |sum, (_, units)| sum.saturating_add(*units));
        let deposit = signed.statement.key.id();
        let state = self.reader.deposit_state(deposit).await?;
        let units =
            if moved == 0 { self.reader.at_stake(deposit).await? } else { Units::new(moved) };
        let value = self.micro_usd(signed.statement.key.token, units).await?;
        let margin = i64::from(self.config.policy.settle_margin_hours).saturating_mul(3_600_000);
        let ends = i64::try_from(state.thaw_ends).unwrap_or(i64::MAX).saturating_mul(1000);
        let is_threatened = state.is_thawing()
            && (moved > stays(&state).get() || self.leaves_too_little(deposit).await?);
        let deadline = is_threatened.then(|| ends.saturating_sub(margin));
        Ok(Worth { value: Some(value), deadline, urgency: Some(Urgency::Normal) })
    }

    /// Whether what stays in the deposits of whom this one pays for is less than what is owed: while a statement is under way,
    /// what else is owed waits for it.
    async fn leaves_too_little(&self, deposit: B256) -> Result<bool> {
        let mut organisations = self.config.organisations.iter();
        let Some(payer) = organisations.find(|known| known.deposits.contains(&deposit)) else {
            return Ok(false);
        };
        let Some(books) = self.reader.books(&payer.name).await? else { return Ok(false) };
        let Some(token) = books.token else { return Ok(false) };
        let owed = books.position.reserved;
        let fee = owed.share(self.config.tariff().fee_bps)?;
        let owed = token.unit.split(owed.add(fee)?)?.0;
        let usable = books.deposits.iter().filter(|deposit| deposit.is_usable);
        let left =
            usable.fold(0_u64, |sum, deposit| sum.saturating_add(stays(&deposit.state).get()));
        Ok(owed.get() > left)
    }

    /// What bounds the fees of so much gas: what the parts may cost, each by itself: a share of its value, which rises as its
    /// own deadline nears.
    pub(super) fn bound(&self, parts: &[Worth], gas: u64, now: Millis) -> Result<Bound> {
        let usual = parts.iter().filter_map(|part| part.urgency).max();
        let urgency = if parts.iter().any(|part| part.is_pressing(now)) {
            Urgency::Pressing
        } else {
            usual.unwrap_or(Urgency::Normal)
        };
        let Some((native, _)) = self.config.policy.native_usd.as_ref().zip(value_of(parts)) else {
            return Ok(Bound::at_price(self.sender.limits().cap, gas, urgency));
        };
        let mut allowed = 0_u128;
        for part in parts {
            let value = part.value.unwrap_or_default();
            let own = fees::allowed(value, self.config.policy.max_fee_bps, part.left(now))?;
            allowed = allowed.saturating_add(own);
        }
        Ok(Bound { allowed: fees::wei_within(allowed, native), gas, urgency, is_judged: true })
    }

    /// Whether gas costs more now than a bound and the configuration allow.
    pub(super) fn is_too_dear(&self, bound: Bound, view: &View) -> bool {
        view.standing.prices.now(bound.urgency) > bound.cap().min(self.sender.limits().cap)
    }

    /// Why a batch costs too much now, and what would let it go.
    pub(super) fn too_dear(
        &self,
        parts: &[Worth],
        bound: Bound,
        gas: u64,
        view: &View,
    ) -> Result<String> {
        let price = view.standing.prices.now(bound.urgency);
        let cap = bound.cap().min(self.sender.limits().cap);
        let Some((native, value)) = self.config.policy.native_usd.as_ref().zip(value_of(parts))
        else {
            return Ok(format!(
                "gas costs {price} wei, policy.max_gas_gwei allows {cap}; it goes when gas is cheaper"
            ));
        };
        let cost = native.value_of(Amount::new(u128::from(gas).saturating_mul(price)), 18)?;
        let deadline = parts.iter().filter_map(|part| part.deadline).min();
        let pressure = deadline.map_or_else(String::new, |deadline| {
            format!(
                ", or as the bound of what a thaw threatens rises to its whole value between {} and {}",
                time(deadline.saturating_sub(fees::PRESSURE)),
                time(deadline)
            )
        });
        Ok(format!(
            "it would cost {cost} millionths of a USD, more than {} bps of the {value} that it moves; it goes when gas costs \
             at most {cap} wei instead of {price}{pressure}",
            self.config.policy.max_fee_bps
        ))
    }

    /// What a provider must be owed in a token, base units, for a row to be worth its gas now; nothing where fees are not judged.
    pub(super) async fn least_row(&self, token: Address, view: &View) -> Result<Amount> {
        let Some(config) = self.config.token(token) else { return Ok(Amount::ZERO) };
        let tokens = self.reader.tokens().await?;
        let Some(token) = tokens.iter().find(|known| known.address == token) else {
            return Ok(Amount::ZERO);
        };
        let policy = &self.config.policy;
        let price = view.standing.prices.now(Urgency::Normal);
        let least = fees::least_row(price, policy.native_usd.as_ref(), policy.max_fee_bps)?;
        Ok(least
            .map_or(Amount::ZERO, |least| config.usd_per_token.most_within(least, token.decimals)))
    }

    /// What units of a token are worth at its configured rate, in millionths of a USD.
    pub(super) async fn micro_usd(&self, token: Address, units: Units) -> Result<u128> {
        let Some(config) = self.config.token(token) else { return Ok(0) };
        let tokens = self.reader.tokens().await?;
        let Some(token) = tokens.iter().find(|known| known.address == token) else { return Ok(0) };
        Ok(config.usd_per_token.value_of(token.unit.amount(units), token.decimals)?)
    }
}

/// What a withdrawal of all that thaws would leave in a deposit.
fn stays(state: &DepositState) -> Units {
    Units::new(state.balance.get().saturating_sub(state.thawing.get()))
}

/// What parts move together; `None` where fees are not judged by value.
fn value_of(parts: &[Worth]) -> Option<u128> {
    parts.iter().try_fold(0_u128, |sum, part| part.value.map(|value| sum.saturating_add(value)))
}

/// What an obligation is called where it waits.
fn subject_of(obligation: &Obligation) -> String {
    format!("a {} batch", obligation.kind().name())
}

/// A time for people, UTC.
pub(super) fn time(ms: Millis) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| time.to_string())
}
