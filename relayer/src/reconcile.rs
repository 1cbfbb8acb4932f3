//! `reconcile`: the ledger against the contract's state. `verify`: the ledger against the contract's logs and itself.

use std::collections::BTreeMap;

use alloy::{
    eips::BlockId,
    primitives::{Address, B256},
    providers::{DynProvider, Provider},
};
use contracts::{Settlement, TestToken};
use indexer::Endpoint;
use ledger::{
    Amount, Ledger, Units,
    chain::ChainWriter,
    read::Reader,
    verify::{self, Difference},
    workload::Token,
};
use serde::Serialize;

use crate::{Error, Result, config::Config, keys::Keys};

/// Money of one token, in base units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenBalance {
    /// The token.
    pub token: Address,
    /// Its symbol, if configured.
    pub symbol: String,
    /// Deposited so far.
    pub money_in: Amount,
    /// Paid to wallets by claims.
    pub claimed: Amount,
    /// Paid back to requestors.
    pub withdrawn: Amount,
    /// Left in deposits.
    pub in_deposits: Amount,
    /// Credited to providers and not claimed.
    pub in_credits: Amount,
    /// What the contract holds of the token.
    pub held: Amount,
    /// Remainders below one unit that deposits owe providers; part of what is left in deposits.
    pub carried: Amount,
}

/// Result of reconciling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reconciliation {
    /// Block at which both sides were read.
    pub block: u64,
    /// Money by token.
    pub tokens: Vec<TokenBalance>,
    /// Deposits compared.
    pub deposits: usize,
    /// Credits compared.
    pub credits: usize,
    /// What differs; nothing if all is well.
    pub differences: Vec<String>,
}

impl Reconciliation {
    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!(
            "at block {}: {} deposits and {} credits compared",
            self.block, self.deposits, self.credits
        );
        for balance in &self.tokens {
            let TokenBalance {
                symbol,
                money_in,
                claimed,
                withdrawn,
                in_deposits,
                in_credits,
                held,
                carried,
                ..
            } = balance;
            text.push_str(&format!(
                "\n{symbol} (base units)\n  in {money_in}\n  = claimed {claimed} + withdrawn {withdrawn} + deposits \
                 {in_deposits} + credits {in_credits}\n  held by the contract {held}, carried {carried}"
            ));
        }
        text + &differences_text(self.differences.iter().map(String::as_str))
    }
}

fn differences_text<'a>(differences: impl Iterator<Item = &'a str>) -> String {
    let text: String = differences.map(|difference| format!("\n  {difference}")).collect();
    if text.is_empty() { "\nno differences".into() } else { format!("\nDIFFERENCES{text}") }
}

/// Compares every deposit, every credit and every token balance with the contract, at the ledger's checkpoint.
pub async fn reconcile(
    config: &Config,
    ledger: &Ledger,
    provider: &DynProvider,
) -> Result<Reconciliation> {
    let reader = Reader::new(ledger.clone());
    let checkpoint = ChainWriter::new(ledger.clone())
        .checkpoint()
        .await?
        .ok_or_else(|| Error::Usage("nothing is indexed yet; run quittance serve first".into()))?;
    let mut desk = Desk {
        contract: Settlement::new(config.chain.contract, provider.clone()),
        provider: provider.clone(),
        at: BlockId::hash(checkpoint.hash),
        differences: Vec::new(),
    };
    let mut sides: BTreeMap<Address, Sides> = BTreeMap::new();
    let deposits = desk.deposits(&reader, &mut sides).await?;
    let credits = desk.credits(&reader, &mut sides).await?;
    let mut tokens = Vec::new();
    for token in reader.tokens().await? {
        let sides = sides.remove(&token.address).unwrap_or_default();
        tokens.push(desk.token(config, &token, sides).await?);
    }
    Ok(Reconciliation {
        block: checkpoint.number,
        tokens,
        deposits,
        credits,
        differences: desk.differences,
    })
}

/// Sums of one token in units, by the ledger.
#[derive(Default)]
struct Sides {
    money_in: Units,
    withdrawn: Units,
    in_deposits: Units,
    in_credits: Units,
    claimed: Units,
    carried: Amount,
}

struct Desk {
    contract: Settlement::SettlementInstance<DynProvider>,
    provider: DynProvider,
    at: BlockId,
    differences: Vec<String>,
}

impl Desk {
    async fn deposits(
        &mut self,
        reader: &Reader,
        sides: &mut BTreeMap<Address, Sides>,
    ) -> Result<usize> {
        let deposits = reader.deposits().await?;
        for (id, key) in &deposits {
            let ours = reader.deposit_state(*id).await?;
            let chain = self
                .contract
                .depositOf(*id)
                .block(self.at)
                .call()
                .await
                .map_err(Error::call("depositOf"))?;
            let ours_shown = (
                ours.balance.get(),
                ours.thawing.get(),
                ours.spent.get(),
                ours.epoch,
                ours.thaw_ends,
            );
            let chain_shown =
                (chain.balance, chain.thawing, chain.spent, chain.epoch, u64::from(chain.thawEnds));
            self.compare(
                &format!("deposit {id} (balance, thawing, spent, epoch, thaw ends)"),
                ours_shown,
                chain_shown,
            );

            let side = sides.entry(key.token).or_default();
            side.in_deposits = side.in_deposits.add(ours.balance)?;
            side.withdrawn = side.withdrawn.add(ours.withdrawn)?;
            side.money_in =
                side.money_in.add(ours.balance.add(ours.spent)?.add(ours.withdrawn)?)?;
            for carry in reader.carries(*id).await?.into_values() {
                side.carried = side.carried.add(carry)?;
            }
        }
        Ok(deposits.len())
    }

    async fn credits(
        &mut self,
        reader: &Reader,
        sides: &mut BTreeMap<Address, Sides>,
    ) -> Result<usize> {
        let mut credits: BTreeMap<(Address, u32), Units> = BTreeMap::new();
        for row in reader.settled_rows().await? {
            let credit = credits.entry((row.token, row.provider)).or_default();
            *credit = credit.add(row.units)?;
        }
        for claim in reader.claims().await? {
            let credit = credits.entry((claim.token, claim.provider)).or_default();
            *credit = credit.sub(claim.units)?;
            let side = sides.entry(claim.token).or_default();
            side.claimed = side.claimed.add(claim.units)?;
        }
        for ((token, provider), ours) in &credits {
            let chain = self
                .contract
                .creditOf(*token, *provider)
                .block(self.at)
                .call()
                .await
                .map_err(Error::call("creditOf"))?;
            self.compare(&format!("credit of provider {provider} in {token}"), ours.get(), chain);
            let side = sides.entry(*token).or_default();
            side.in_credits = side.in_credits.add(*ours)?;
        }
        let ours = reader.provider_count().await?;
        let chain = self
            .contract
            .providerCount()
            .block(self.at)
            .call()
            .await
            .map_err(Error::call("providerCount"))?;
        self.compare("number of providers", ours, chain);
        Ok(credits.len())
    }

    async fn token(
        &mut self,
        config: &Config,
        token: &Token,
        sides: Sides,
    ) -> Result<TokenBalance> {
        let erc20 = TestToken::new(token.address, self.provider.clone());
        let held = erc20
            .balanceOf(*self.contract.address())
            .block(self.at)
            .call()
            .await
            .map_err(Error::call("balanceOf"))?;
        let amount = |units| token.unit.amount(units);
        let balance = TokenBalance {
            token: token.address,
            symbol: config
                .token(token.address)
                .map_or_else(|| "?".into(), |token| token.symbol.clone()),
            money_in: amount(sides.money_in),
            claimed: amount(sides.claimed),
            withdrawn: amount(sides.withdrawn),
            in_deposits: amount(sides.in_deposits),
            in_credits: amount(sides.in_credits),
            held: Amount::new(held.try_into().unwrap_or(u128::MAX)),
            carried: sides.carried,
        };
        let owed = balance.in_deposits.add(balance.in_credits)?;
        if balance.held < owed {
            let problem = format!(
                "the contract holds {} of {}, it owes {owed}",
                balance.held, balance.symbol
            );
            self.differences.push(problem);
        }
        let out = balance.claimed.add(balance.withdrawn)?.add(owed)?;
        if balance.money_in != out {
            let problem = format!(
                "{} of {} came in, {out} went out or remain",
                balance.money_in, balance.symbol
            );
            self.differences.push(problem);
        }
        Ok(balance)
    }

    fn compare<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, ours: T, chain: T) {
        if ours != chain {
            self.differences
                .push(format!("{what}: the ledger says {ours:?}, the contract {chain:?}"));
        }
    }
}

/// Result of verifying.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Last block that was read.
    pub block: u64,
    /// Events read from the chain.
    pub events: u64,
    /// Journal over those events.
    pub journal: B256,
    /// What differs; nothing if all is well.
    pub differences: Vec<Difference>,
}

impl Verification {
    /// For people.
    pub fn text(&self) -> String {
        let differences: Vec<_> = self.differences.iter().map(ToString::to_string).collect();
        format!("{} events up to block {}, journal {}", self.events, self.block, self.journal)
            + &differences_text(differences.iter().map(String::as_str))
    }
}

/// Rebuilds all facts from the contract's logs alone, proves them complete by the contract's journal, compares them with
/// the ledger, and checks that everything else in the ledger follows from what it rests on.
pub async fn verify(
    config: &Config,
    keys: &Keys,
    ledger: &Ledger,
    endpoint: &Endpoint,
) -> Result<Verification> {
    let checkpoint = ChainWriter::new(ledger.clone())
        .checkpoint()
        .await?
        .ok_or_else(|| Error::Usage("nothing is indexed yet; run quittance serve first".into()))?;
    let replay = indexer::replay::replay(endpoint, config.chain.start_block, &checkpoint).await?;
    let mut differences = verify::facts(ledger, &replay.blocks).await?;
    if replay.journal != replay.contract_journal {
        differences.push(Difference {
            row: "the endpoint's logs".into(),
            problem: format!(
                "they fold to {}, the contract's journal is {}: the endpoint omits, invents or reorders events",
                replay.journal.word(),
                replay.contract_journal.word()
            ),
        });
    }
    differences.extend(verify::book(ledger, &keys.secret, config.tariff().fee_bps).await?);
    let (block, events, journal) = (checkpoint.number, replay.journal.count, replay.journal.word());
    Ok(Verification { block, events, journal, differences })
}

/// Time of the newest block, ms since 1970.
pub async fn chain_time(provider: &DynProvider) -> Result<i64> {
    let block = provider
        .get_block(BlockId::latest())
        .await
        .map_err(Error::endpoint("eth_getBlockByNumber"))?;
    let seconds = block.map_or(0, |block| block.header.inner.timestamp);
    Ok(i64::try_from(seconds).unwrap_or(0).saturating_mul(1000))
}
