//! `status`: how far everything is, what is owed, and what waits.

use std::{collections::BTreeMap, fmt::Write};

use alloy::primitives::{Address, B256};
use ledger::{
    Ledger, Units,
    read::{Progress, Reader, Table},
    rules::{Credit, MovedPayout, Position},
};
use serde::Serialize;

use crate::{
    Result,
    config::Config,
    screen::{grouped, with_decimals},
};

/// Everything that `status` shows.
#[derive(Debug, Serialize)]
pub struct Status {
    /// Chain and contract.
    pub chain_id: u64,
    /// The contract.
    pub contract: Address,
    /// Why no money moves, if an examination found the ledger unsound.
    pub halted: Option<String>,
    /// How far the ledger has come.
    pub progress: Progress,
    /// Organisations, by name.
    pub organisations: BTreeMap<String, OrganisationStatus>,
    /// Credits that are not claimed.
    pub credits: Vec<Credit>,
    /// Addresses that are named here and whose owners have moved on chain.
    pub moved_payouts: Vec<MovedPayout>,
    /// Number of providers.
    pub providers: u32,
    /// Records kept.
    pub workloads: u64,
    /// Statements settled.
    pub settled: u64,
    /// Statements of ours that are not.
    pub unsettled: usize,
    /// Statements ever skipped.
    pub skipped: u64,
    /// Claims paid.
    pub claims: u64,
}

/// An organisation's money and work.
#[derive(Debug, Serialize)]
pub struct OrganisationStatus {
    /// Its token.
    pub token: Option<Address>,
    /// Symbol of the token.
    pub symbol: String,
    /// Decimals of the token.
    pub decimals: u8,
    /// Its money, base units.
    pub position: Position,
    /// What it can still spend, base units; a decimal string.
    pub available: String,
    /// Its deposits.
    pub deposits: Vec<DepositStatus>,
    /// Work accepted and not yet in a statement.
    pub payable: usize,
    /// Work in statements that are not finally settled.
    pub stated: usize,
    /// Work whose machine has no number yet.
    pub unaddressed: usize,
    /// Work that waits for money.
    pub unfunded: usize,
    /// Work held or disputed.
    pub held: usize,
    /// Work of which too much was paid, which nets against later work.
    pub owed_back: usize,
}

/// A deposit as the contract has it.
#[derive(Debug, Serialize)]
pub struct DepositStatus {
    /// Its id.
    pub id: B256,
    /// Units held.
    pub balance: Units,
    /// Units on their way out.
    pub thawing: Units,
    /// Units spent.
    pub spent: Units,
    /// Statements settled.
    pub epoch: u32,
}

impl Status {
    /// Reads everything from a ledger.
    pub async fn gather(config: &Config, ledger: &Ledger) -> Result<Self> {
        let reader = Reader::new(ledger.clone());
        let mut organisations = BTreeMap::new();
        for name in reader.organisations().await? {
            if let Some(status) = organisation(config, &reader, &name).await? {
                organisations.insert(name, status);
            }
        }
        Ok(Self {
            chain_id: ledger.identity().chain_id,
            contract: ledger.identity().contract,
            halted: ledger::audit::halt(ledger).await?,
            progress: reader.progress().await?,
            organisations,
            credits: reader.credits().await?,
            moved_payouts: reader.moved_payouts(config.policy.operator_payout).await?,
            providers: reader.provider_count().await?,
            workloads: reader.count(Table::Workloads).await?,
            settled: reader.count(Table::Settled).await?,
            unsettled: reader
                .unsettled_statements()
                .await?
                .iter()
                .filter(|s| !s.is_overtaken)
                .count(),
            skipped: reader.count(Table::Skipped).await?,
            claims: reader.count(Table::Claims).await?,
        })
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).unwrap_or_default();
        text.trim_end().to_owned()
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let Progress { checkpoint, finalised, .. } = self.progress;
        writeln!(out, "chain {}  contract {}", self.chain_id, self.contract)?;
        writeln!(out, "indexed to block {checkpoint}, final to {finalised}")?;
        if let Some(reason) = &self.halted {
            writeln!(out, "HALTED, no money moves: {reason}")?;
        }
        writeln!(
            out,
            "{} workloads, {} statements settled, {} under way, {} ever skipped, {} providers, {} payouts",
            grouped(self.workloads.into()),
            self.settled,
            self.unsettled,
            self.skipped,
            self.providers,
            self.claims
        )?;
        for (name, organisation) in &self.organisations {
            organisation.write(name, out)?;
        }
        writeln!(out, "\ncredits not claimed: {}", self.credits.len())?;
        for credit in self.credits.iter().take(10) {
            writeln!(
                out,
                "  provider {:<6} {:>16} units of {}",
                credit.provider, credit.units, credit.token
            )?;
        }
        if self.credits.len() > 10 {
            writeln!(out, "  and {} more; --json shows all", self.credits.len() - 10)?;
        }
        if !self.moved_payouts.is_empty() {
            writeln!(out, "\npayout addresses moved on chain: {}", self.moved_payouts.len())?;
        }
        for moved in self.moved_payouts.iter().take(10) {
            let MovedPayout { provider, named, payout } = moved;
            writeln!(out, "  provider {provider:<6} named {named}, paid at {payout}")?;
        }
        Ok(())
    }
}

impl OrganisationStatus {
    fn write(&self, name: &str, out: &mut String) -> std::fmt::Result {
        let shown = |amount: ledger::Amount| with_decimals(amount.base_units(), self.decimals);
        let available: i128 = self.available.parse().unwrap_or_default();
        let sign = if available < 0 { "-" } else { "" };
        let available = with_decimals(available.unsigned_abs(), self.decimals);
        writeln!(out, "\n{name}  {sign}{available} {} available", self.symbol)?;
        writeln!(
            out,
            "  deposited {}  settled {}  reserved {}  thawing {}",
            shown(self.position.deposited),
            shown(self.position.settled),
            shown(self.position.reserved),
            shown(self.position.thawing)
        )?;
        writeln!(
            out,
            "  work: {} payable, {} stated, {} unaddressed, {} unfunded, {} held, {} owed back",
            self.payable, self.stated, self.unaddressed, self.unfunded, self.held, self.owed_back
        )?;
        for deposit in &self.deposits {
            let DepositStatus { id, balance, thawing, spent, epoch } = deposit;
            writeln!(out, "  deposit {id}")?;
            writeln!(
                out,
                "    balance {balance}  thawing {thawing}  spent {spent} units, epoch {epoch}"
            )?;
        }
        Ok(())
    }
}

async fn organisation(
    config: &Config,
    reader: &Reader,
    name: &str,
) -> Result<Option<OrganisationStatus>> {
    let Some(books) = reader.books(name).await? else { return Ok(None) };
    let symbol = books
        .token
        .and_then(|token| config.token(token.address))
        .map_or("?", |token| &token.symbol);
    let mut status = OrganisationStatus {
        token: books.token.map(|token| token.address),
        symbol: symbol.to_owned(),
        decimals: books.token.map_or(0, |token| token.decimals),
        position: books.position,
        available: books.available(config.tariff().fee_bps)?.to_string(),
        deposits: Vec::new(),
        payable: 0,
        stated: 0,
        unaddressed: 0,
        unfunded: 0,
        held: 0,
        owed_back: 0,
    };
    for deposit in &books.deposits {
        let ledger::rules::DepositState { balance, thawing, spent, epoch, .. } = deposit.state;
        status.deposits.push(DepositStatus { id: deposit.id, balance, thawing, spent, epoch });
    }
    for item in &books.open {
        let due = item.due()?;
        *match () {
            () if !item.live.is_empty() => &mut status.stated,
            () if due == 0 && item.waits => &mut status.unfunded,
            () if due == 0 => continue,
            () if due < 0 => &mut status.owed_back,
            () if item.is_held() => &mut status.held,
            () if item.payee()?.is_none() => &mut status.unaddressed,
            () => &mut status.payable,
        } += 1;
    }
    Ok(Some(status))
}
