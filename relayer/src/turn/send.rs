//! Sending an obligation: what it is worth, what it may cost, and what it waits for.

use std::collections::BTreeMap;

use alloy::primitives::{Address, Bytes};
use jiff::Timestamp;
use ledger::{Amount, Millis, Units, book::Obligation, read::AttemptKind};

use super::{Relayer, Report, View, later};
use crate::{
    Result,
    sender::{
        Opening,
        fees::{self, Urgency},
        plan::Bound,
    },
};

/// What has not waited for so long begins to wait anew.
const FORGET: Millis = 600_000;

/// Since when things wait: the first and the last time that each was noticed, by what it is.
pub(super) type Since = BTreeMap<String, (Millis, Millis)>;

/// What an obligation moves, and until when it has to.
#[derive(Debug, Clone, Default)]
pub(super) struct Worth {
    /// Millionths of a USD; `None` where fees are not judged by value.
    pub(super) value: Option<u128>,
    /// When money that it moves could leave otherwise, less a margin; ms.
    pub(super) deadline: Option<Millis>,
    /// How soon it goes without a deadline.
    pub(super) urgency: Option<Urgency>,
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
        let subject = format!("a {} batch", obligation.kind().name());
        if view.is_frozen() || !self.has_room(view, 0, report, &subject) {
            return Ok(());
        }
        let gas_limit = match self.sender.gas_limit(&input, view.block()).await? {
            Ok(gas_limit) => gas_limit,
            Err(reason) => {
                self.wait(report, view.now, &subject, &format!("it would fail: {reason}"));
                return Ok(());
            }
        };
        let bound = self.bound(worth, gas_limit, later(view.now, &view.anchors))?;
        if view.standing.prices.now(bound.urgency) > bound.cap {
            let why = self.too_dear(worth, bound, gas_limit, view)?;
            self.wait(report, view.now, &subject, &why);
            return Ok(());
        }
        let opening = Opening { kind: AttemptKind::Work, obligation, input, gas_limit, bound };
        match self.sender.open(&view.standing, opening, view.now).await? {
            None => report.sent += 1,
            Some(reason) => self.wait(report, view.now, &subject, &reason),
        }
        Ok(())
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

    /// What an obligation moves, at the checkpoint.
    pub(super) async fn worth(&self, obligation: &Obligation) -> Result<Worth> {
        match obligation {
            Obligation::Settle(statements) => {
                let mut worth =
                    Worth { value: Some(0), urgency: Some(Urgency::Normal), ..Worth::default() };
                for statement in statements {
                    let one =
                        self.worth_of(&self.reader.signed_statement(*statement).await?).await?;
                    worth = worth.with(&one);
                }
                Ok(worth)
            }
            Obligation::Claim(token, providers) => {
                let mut units = 0_u64;
                for provider in providers {
                    let credit = self.reader.credit(*token, *provider).await?;
                    units = units.saturating_add(credit.get());
                }
                let value = Some(self.micro_usd(*token, Units::new(units)).await?);
                Ok(Worth { value, deadline: None, urgency: Some(Urgency::Calm) })
            }
            Obligation::Register(_) => Ok(Worth::default()),
        }
    }

    /// What a statement moves, or what an empty one frees for another deposit; and when what its deposit holds could be
    /// withdrawn, less a margin.
    pub(super) async fn worth_of(&self, signed: &ledger::read::SignedStatement) -> Result<Worth> {
        let rows = contracts::rows::decode(&signed.statement.rows).map_err(ledger::Error::from)?;
        let units = rows.iter().fold(0_u64, |sum, (_, units)| sum.saturating_add(*units));
        let deposit = signed.statement.key.id();
        let units = match units {
            0 => self.reader.at_stake(deposit).await?,
            moved => Units::new(moved),
        };
        let value = self.micro_usd(signed.statement.key.token, units).await?;
        let state = self.reader.deposit_state(deposit).await?;
        let margin = i64::from(self.config.policy.settle_margin_hours).saturating_mul(3_600_000);
        let ends = i64::try_from(state.thaw_ends).unwrap_or(i64::MAX).saturating_mul(1000);
        let deadline = (state.thawing > Units::ZERO).then(|| ends.saturating_sub(margin));
        Ok(Worth { value: Some(value), deadline, urgency: Some(Urgency::Normal) })
    }

    /// What bounds the fees of so much gas: the configured price, and the share of the value, which rises as a deadline
    /// nears.
    pub(super) fn bound(&self, worth: &Worth, gas: u64, now: Millis) -> Result<Bound> {
        let left = worth.deadline.map(|deadline| deadline.saturating_sub(now));
        let urgency = match left {
            Some(left) if left < fees::PRESSURE => Urgency::Pressing,
            _ => worth.urgency.unwrap_or(Urgency::Normal),
        };
        let absolute = self.sender.limits().cap;
        let (Some(native), Some(value)) = (&self.config.policy.native_usd, worth.value) else {
            return Ok(Bound { cap: absolute, urgency });
        };
        let allowed = fees::allowed(value, self.config.policy.max_fee_bps, left)?;
        let cap = fees::price_within(allowed, gas, native).min(absolute);
        Ok(Bound { cap, urgency })
    }

    /// Why a batch costs too much now, and what would let it go.
    fn too_dear(&self, worth: &Worth, bound: Bound, gas: u64, view: &View) -> Result<String> {
        let price = view.standing.prices.now(bound.urgency);
        let Some((native, value)) = self.config.policy.native_usd.as_ref().zip(worth.value) else {
            return Ok(format!(
                "gas costs {price} wei, policy.max_gas_gwei allows {}; it goes when gas is cheaper",
                bound.cap
            ));
        };
        let cost = native.value_of(Amount::new(u128::from(gas).saturating_mul(price)), 18)?;
        let pressure = worth.deadline.map_or_else(String::new, |deadline| {
            format!(
                ", or as the bound rises to the whole value between {} and {}",
                time(deadline.saturating_sub(fees::PRESSURE)),
                time(deadline)
            )
        });
        Ok(format!(
            "it would cost {cost} millionths of a USD, more than {} bps of the {value} that it moves; it goes when gas costs \
             at most {} wei instead of {price}{pressure}",
            self.config.policy.max_fee_bps, bound.cap
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

impl Worth {
    /// Both together: the sum of what they move, the nearer deadline.
    pub(super) fn with(&self, other: &Self) -> Self {
        let sum = |(a, b): (u128, u128)| a.saturating_add(b);
        Self {
            value: self.value.zip(other.value).map(sum),
            deadline: self.deadline.into_iter().chain(other.deadline).min(),
            urgency: self.urgency.max(other.urgency),
        }
    }
}

/// A time for people, UTC.
pub(super) fn time(ms: Millis) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| time.to_string())
}
