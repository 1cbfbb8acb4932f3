//! `reconcile`: the ledger against the contract's state. `verify`: the ledger against the contract's logs and itself.

use std::collections::BTreeMap;

use alloy::{
    eips::BlockId,
    primitives::{Address, B256},
    providers::{DynProvider, Provider},
};
use contracts::{Settlement, TestToken, eip712::DepositKey};
use indexer::Endpoints;
use ledger::{
    Amount, Ledger, ProviderNumber, Turnover,
    chain::{Block, ChainWriter},
    read::Reader,
    rules::{Credit, DepositState},
    verify::{self, Difference},
    workload::Token,
};
use serde::Serialize;

use crate::{
    Error, Result,
    config::{Config, TokenConfig},
    keys::Keys,
};

/// How often the ledger is read anew because it moved on meanwhile.
const MAX_READS: u32 = 20;

/// Money of one token, in base units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenBalance {
    /// The token.
    pub token: Address,
    /// Its symbol.
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

/// Compares every deposit, every credit and the balance of every configured token with the contract, at the ledger's
/// checkpoint. What other tokens do, which anyone may register, is nobody's money here.
pub async fn reconcile(
    config: &Config,
    ledger: &Ledger,
    provider: &DynProvider,
) -> Result<Reconciliation> {
    let books = Books::read(ledger).await?;
    let mut desk = Desk {
        contract: Settlement::new(config.chain.contract, provider.clone()),
        provider: provider.clone(),
        at: BlockId::hash(books.checkpoint.hash),
        differences: Vec::new(),
    };
    desk.deposits(&books).await?;
    desk.credits(&books).await?;
    let mut tokens = Vec::new();
    for token in &books.tokens {
        if let Some(TokenConfig { symbol, .. }) = config.token(token.address) {
            tokens.push(desk.token(symbol, token, &books).await?);
        }
    }
    Ok(Reconciliation {
        block: books.checkpoint.number,
        tokens,
        deposits: books.deposits.len(),
        credits: books.credits.len(),
        differences: desk.differences,
    })
}

/// The ledger's side of everything, as of one checkpoint.
struct Books {
    checkpoint: Block,
    tokens: Vec<Token>,
    deposits: Vec<(B256, DepositKey, DepositState, Amount)>,
    /// Credits, spent ones included.
    credits: Vec<Credit>,
    claimed: BTreeMap<Address, Turnover>,
    providers: ProviderNumber,
}

impl Books {
    /// Reads it all, again if the checkpoint moved meanwhile.
    async fn read(ledger: &Ledger) -> Result<Self> {
        let chain = ChainWriter::new(ledger.clone());
        for _ in 0..MAX_READS {
            let checkpoint = chain.checkpoint().await?.ok_or_else(not_indexed)?;
            let books = Self::read_once(ledger, checkpoint).await;
            if chain.checkpoint().await? == Some(checkpoint) {
                return books;
            }
        }
        Err(Error::Stalled(format!("the ledger moved on during each of {MAX_READS} readings")))
    }

    async fn read_once(ledger: &Ledger, checkpoint: Block) -> Result<Self> {
        let reader = Reader::new(ledger.clone());
        let mut deposits = Vec::new();
        for (id, key) in reader.deposits().await? {
            let mut carried = Amount::ZERO;
            for carry in reader.carries(id).await?.into_values() {
                carried = carried.add(carry)?;
            }
            deposits.push((id, key, reader.deposit_state(id).await?, carried));
        }
        let credits = reader.credits_ever().await?;
        let mut claimed: BTreeMap<_, Turnover> = BTreeMap::new();
        for claim in reader.claims().await? {
            let sum = claimed.entry(claim.token).or_default();
            *sum = sum.add(claim.units)?;
        }
        let (tokens, providers) = (reader.tokens().await?, reader.provider_count().await?);
        Ok(Self { checkpoint, tokens, deposits, credits, claimed, providers })
    }
}

fn not_indexed() -> Error {
    Error::Usage("nothing is indexed yet; run quittance serve first".into())
}

struct Desk {
    contract: Settlement::SettlementInstance<DynProvider>,
    provider: DynProvider,
    at: BlockId,
    differences: Vec<String>,
}

impl Desk {
    async fn deposits(&mut self, books: &Books) -> Result<()> {
        for (id, _, ours, _) in &books.deposits {
            let chain = self
                .contract
                .depositOf(*id)
                .block(self.at)
                .call()
                .await
                .map_err(Error::call("depositOf"))?;
            let ours = (
                ours.balance.get(),
                ours.thawing.get(),
                ours.spent.get(),
                ours.epoch,
                ours.thaw_ends,
            );
            let chain =
                (chain.balance, chain.thawing, chain.spent, chain.epoch, u64::from(chain.thawEnds));
            self.compare(
                &format!("deposit {id} (balance, thawing, spent, epoch, thaw ends)"),
                ours,
                chain,
            );
        }
        Ok(())
    }

    async fn credits(&mut self, books: &Books) -> Result<()> {
        for Credit { token, provider, units: ours } in &books.credits {
            let call = self.contract.creditOf(*token, *provider).block(self.at);
            let chain = call.call().await.map_err(Error::call("creditOf"))?;
            self.compare(&format!("credit of provider {provider} in {token}"), ours.get(), chain);
        }
        let chain = self
            .contract
            .providerCount()
            .block(self.at)
            .call()
            .await
            .map_err(Error::call("providerCount"))?;
        self.compare("number of providers", books.providers, chain);
        Ok(())
    }

    async fn token(&mut self, symbol: &str, token: &Token, books: &Books) -> Result<TokenBalance> {
        let erc20 = TestToken::new(token.address, self.provider.clone());
        let held = erc20
            .balanceOf(*self.contract.address())
            .block(self.at)
            .call()
            .await
            .map_err(Error::call("balanceOf"))?;
        let held = Amount::new(held.try_into().unwrap_or(u128::MAX));
        let balance = books.balance(symbol, token, held)?;
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

impl Books {
    /// Money of one token. What came in is counted from the deposits' events alone, so that it can differ from what went
    /// out and what is left.
    fn balance(&self, symbol: &str, token: &Token, held: Amount) -> Result<TokenBalance> {
        let mut balance = TokenBalance {
            token: token.address,
            symbol: symbol.to_owned(),
            money_in: Amount::ZERO,
            claimed: token
                .unit
                .turnover(self.claimed.get(&token.address).copied().unwrap_or_default())?,
            withdrawn: Amount::ZERO,
            in_deposits: Amount::ZERO,
            in_credits: Amount::ZERO,
            held,
            carried: Amount::ZERO,
        };
        for (_, key, state, carried) in &self.deposits {
            if key.token == token.address {
                balance.money_in = balance.money_in.add(token.unit.turnover(state.deposited)?)?;
                balance.withdrawn = balance.withdrawn.add(token.unit.turnover(state.withdrawn)?)?;
                balance.in_deposits = balance.in_deposits.add(token.unit.amount(state.balance))?;
                balance.carried = balance.carried.add(*carried)?;
            }
        }
        for credit in self.credits.iter().filter(|credit| credit.token == token.address) {
            balance.in_credits = balance.in_credits.add(token.unit.amount(credit.units))?;
        }
        Ok(balance)
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
/// the ledger, and checks that everything else in the ledger follows from what it rests on. Again if a reorg took the
/// checkpoint away meanwhile.
pub async fn verify(
    config: &Config,
    keys: &Keys,
    ledger: &Ledger,
    endpoints: &Endpoints,
) -> Result<Verification> {
    let chain = ChainWriter::new(ledger.clone());
    for _ in 0..MAX_READS {
        let checkpoint = chain.checkpoint().await?.ok_or_else(not_indexed)?;
        let verification = verify_to(&checkpoint, config, keys, ledger, endpoints).await;
        if is_on_chain(&chain, &checkpoint).await? {
            return verification;
        }
    }
    Err(Error::Stalled(format!(
        "a reorg took the checkpoint away during each of {MAX_READS} readings"
    )))
}

/// Whether the ledger still follows the chain of a block that was its checkpoint. Below finality, blocks without events are
/// not kept.
async fn is_on_chain(chain: &ChainWriter, block: &Block) -> Result<bool> {
    let found = chain.block_at_or_below(block.number).await?;
    let is_final = chain.finalised().await? >= block.number;
    Ok(found.is_some_and(|found| found == *block || (found.number < block.number && is_final)))
}

async fn verify_to(
    checkpoint: &Block,
    config: &Config,
    keys: &Keys,
    ledger: &Ledger,
    endpoints: &Endpoints,
) -> Result<Verification> {
    let (range, until) = ((config.chain.start_block, checkpoint), checkpoint.number);
    let (replay, mut differences) =
        indexer::replay::verify(endpoints, ledger, range, until).await?;
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
    differences.extend(verify::book(ledger, &keys.secret).await?);
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
