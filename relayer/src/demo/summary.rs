//! The demo's final figures, for people and as JSON.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use alloy::primitives::B256;
use ledger::{
    Amount, Decimal,
    read::{Reader, Spending, Table},
    workload::Token,
};
use serde::Serialize;

use crate::{
    Result,
    config::Config,
    intake::Report,
    reconcile::{Reconciliation, TokenBalance, Verification},
    screen::{grouped, with_decimals},
};

/// Gas price at which fees are stated: an ordinary day on Polygon. The local chain's own price means nothing.
const STATED_GWEI: u128 = 40;

/// How long the demo took. Not part of the JSON, which is the same for every run on the same input.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    /// From start to end.
    pub total: Duration,
    /// From closing the first day to the last payout.
    pub settling: Duration,
}

/// Final figures of a demo.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// What became of each file, in order.
    pub files: Vec<(String, Report)>,
    /// Statements settled.
    pub statements: u64,
    /// Rows in them.
    pub rows: u64,
    /// Transactions by kind: number, gas, fee in wei.
    pub transactions: BTreeMap<String, Spending>,
    /// Gas of all settling transactions, divided by the rows, rounded up.
    pub gas_per_row: u64,
    /// The same of the last settling transaction alone, whose providers were mostly credited before.
    pub last_gas_per_row: u64,
    /// What was settled, millionths of a USD at the configured rates.
    pub value_micro_usd: u128,
    /// What fees come to at a stated gas price and price of the native coin.
    pub fees: Fees,
    /// Providers that money arrived at.
    pub providers_paid: usize,
    /// Money by token, and what differs between ledger and contract.
    pub reconciliation: Reconciliation,
    /// What differs between ledger, logs and promises.
    pub verification: Verification,
    /// Decimals of each token, by symbol, for printing.
    #[serde(skip)]
    decimals: BTreeMap<String, u8>,
    /// How long it took.
    #[serde(skip)]
    timing: Timing,
}

/// Fees at a stated gas price, in hundredths of a basis point of the value settled.
#[derive(Debug, Clone, Serialize)]
pub struct Fees {
    /// The stated gas price, gwei.
    pub at_gwei: u128,
    /// The stated price of the native coin, USD.
    pub at_native_usd: Decimal,
    /// Settling transactions.
    pub settle_centi_bps: u128,
    /// Claims.
    pub claim_centi_bps: u128,
}

impl Figures {
    /// Gathers the figures of a finished demo.
    pub(super) async fn gather(
        config: &Config,
        reader: &Reader,
        files: Vec<(String, Report)>,
        reconciliation: Reconciliation,
        verification: Verification,
        timing: Timing,
    ) -> Result<Self> {
        let tokens = reader.tokens().await?;
        let transactions = reader.spending().await?;
        let rows = reader.count(Table::Rows).await?;
        let value = value(config, &tokens, &reconciliation.tokens)?;
        let gas = |kind: &str| transactions.get(kind).map_or(0, |spending| spending.gas);
        let native = config.policy.native_usd.clone().unwrap_or("0".parse()?);
        let centi_bps = |kind: &str| -> Result<u128> {
            let wei = u128::from(gas(kind)) * STATED_GWEI * 1_000_000_000;
            let cost = native.value_of(Amount::new(wei), 18)?;
            Ok((cost * 1_000_000).checked_div(value).unwrap_or(0))
        };
        let fees = Fees {
            at_gwei: STATED_GWEI,
            settle_centi_bps: centi_bps("settle")?,
            claim_centi_bps: centi_bps("claim")?,
            at_native_usd: native.clone(),
        };
        let paid: std::collections::BTreeSet<_> =
            reader.claims().await?.into_iter().map(|claim| claim.provider).collect();
        let symbol = |token: &Token| {
            config.token(token.address).map_or("?", |token| token.symbol.as_str()).to_owned()
        };
        Ok(Self {
            files,
            statements: reader.count(Table::Settled).await?,
            rows,
            gas_per_row: gas("settle").div_ceil(rows.max(1)),
            last_gas_per_row: reader
                .last_settle()
                .await?
                .map_or(0, |(gas, rows)| gas.div_ceil(rows.max(1))),
            transactions,
            value_micro_usd: value,
            fees,
            providers_paid: paid.len(),
            reconciliation,
            verification,
            decimals: tokens.iter().map(|token| (symbol(token), token.decimals)).collect(),
            timing,
        })
    }

    /// Whether everything agrees.
    pub fn agrees(&self) -> bool {
        self.reconciliation.differences.is_empty() && self.verification.differences.is_empty()
    }

    /// The figures as a person wants to see them.
    pub fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).unwrap_or_default();
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let records: u64 = self.files.iter().map(|(_, report)| report.records).sum();
        writeln!(
            out,
            "\nrecords          {} in {} files",
            grouped(records.into()),
            self.files.len()
        )?;
        for (name, report) in &self.files {
            writeln!(out, "  {name:<24} {}", outcomes(report))?;
            for detail in report.details.iter().take(3) {
                writeln!(out, "    {detail}")?;
            }
        }
        writeln!(
            out,
            "statements       {} settled, {} rows",
            self.statements,
            grouped(self.rows.into())
        )?;
        for (kind, spending) in &self.transactions {
            let gas = grouped(spending.gas.into());
            writeln!(out, "  {kind:<14} {} transactions, {gas} gas", spending.transactions)?;
        }
        let (all, last) = (grouped(self.gas_per_row.into()), grouped(self.last_gas_per_row.into()));
        writeln!(out, "gas per row      {all} in all, {last} in the last settling transaction")?;
        let bps = |centi: u128| format!("{}.{:02}", centi / 100, centi % 100);
        writeln!(
            out,
            "fees             {} bps to settle, {} bps to push, of {} USD moved (at {} gwei and {} USD per coin)",
            bps(self.fees.settle_centi_bps),
            bps(self.fees.claim_centi_bps),
            with_decimals(self.value_micro_usd, 6),
            self.fees.at_gwei,
            self.fees.at_native_usd,
        )?;
        writeln!(out, "providers paid   {}", self.providers_paid)?;
        for balance in &self.reconciliation.tokens {
            self.write_token(out, balance)?;
        }
        let Reconciliation { block, deposits, credits, differences, .. } = &self.reconciliation;
        writeln!(
            out,
            "reconciled       at block {block}: {deposits} deposits, {credits} credits, {}",
            count(differences.len())
        )?;
        let Verification { events, journal, differences, .. } = &self.verification;
        writeln!(
            out,
            "verified         {events} events from logs alone, journal {}, {}",
            short(journal),
            count(differences.len())
        )?;
        for difference in &self.reconciliation.differences {
            writeln!(out, "  {difference}")?;
        }
        for difference in &self.verification.differences {
            writeln!(out, "  {difference}")?;
        }
        writeln!(
            out,
            "took             {:.1} s, {:.1} s of it for closing, settling and pushing",
            self.timing.total.as_secs_f64(),
            self.timing.settling.as_secs_f64()
        )
    }

    fn write_token(&self, out: &mut String, balance: &TokenBalance) -> std::fmt::Result {
        let decimals = self.decimals.get(&balance.symbol).copied().unwrap_or(0);
        let shown =
            |amount: Amount| format!("{:>32}", with_decimals(amount.base_units(), decimals));
        let out_and_left =
            [balance.claimed, balance.withdrawn, balance.in_deposits, balance.in_credits]
                .iter()
                .map(|amount| amount.base_units())
                .sum::<u128>();
        let difference = balance.money_in.base_units().abs_diff(out_and_left);
        writeln!(out, "{:<8} money in {}", balance.symbol, shown(balance.money_in))?;
        writeln!(out, "         paid out {}", shown(balance.claimed))?;
        writeln!(out, "         deposits {}", shown(balance.in_deposits))?;
        writeln!(out, "         credits  {}", shown(balance.in_credits))?;
        writeln!(out, "         difference {:>30}", difference)
    }
}

/// Outcomes of a file in one line.
pub(super) fn outcomes(report: &Report) -> String {
    let parts: Vec<_> = report
        .outcomes
        .iter()
        .map(|(name, count)| format!("{} {name}", grouped((*count).into())))
        .collect();
    if parts.is_empty() { "nothing in it".into() } else { parts.join(", ") }
}

/// What was settled, in millionths of a USD: all that left the deposits.
fn value(config: &Config, tokens: &[Token], balances: &[TokenBalance]) -> Result<u128> {
    let mut value = 0_u128;
    for balance in balances {
        let Some(rate) = config.token(balance.token) else { continue };
        let decimals = tokens
            .iter()
            .find(|token| token.address == balance.token)
            .map_or(0, |token| token.decimals);
        let settled = balance.claimed.add(balance.in_credits)?;
        value = value.saturating_add(rate.usd_per_token.value_of(settled, decimals)?);
    }
    Ok(value)
}

fn count(differences: usize) -> String {
    match differences {
        0 => "no differences".into(),
        n => format!("{n} DIFFERENCES"),
    }
}

fn short(hash: &B256) -> String {
    let text = hash.to_string();
    format!("{}…", &text[..14])
}
