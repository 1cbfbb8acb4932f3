//! The relayer's turn: accept what can be accepted, state what is payable, sign it, send it, push what was credited.
//!
//! Each turn reads the ledger, decides by pure rules, commits, and only then acts. It is safe to repeat and safe to cut
//! off anywhere: the next turn, of this process or the next one, finds what is left to do in the ledger.

mod push;
mod settle;
mod state;

use std::collections::BTreeSet;

use alloy::{
    eips::BlockId,
    primitives::{Address, Bytes},
    providers::DynProvider,
    sol_types::SolCall,
};
use contracts::Settlement;
use indexer::Endpoints;
use ledger::{
    Amount, Ledger, Millis, ProviderNumber,
    book::{BookWriter, Obligation},
    read::Reader,
};

pub use self::settle::outcome_name;
pub(crate) use self::settle::settle_input;
use crate::{
    Result,
    attester::Attester,
    config::Config,
    keys::Keys,
    sender::{
        Sender,
        plan::{self, GasPrice},
    },
};

/// Most registrations in one transaction.
const BATCH_REGISTRATIONS: usize = 150;

/// What a turn came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Workloads accepted that had waited for money.
    pub accepted: u64,
    /// Statements signed.
    pub signed: usize,
    /// Transactions sent for the first time.
    pub sent: usize,
    /// Obligations sent and not yet seen in an indexed block.
    pub in_flight: usize,
    /// What waits, and why.
    pub waiting: Vec<String>,
}

impl Report {
    /// Whether the turn found nothing to do and nothing under way.
    pub const fn is_idle(&self) -> bool {
        self.accepted == 0 && self.signed == 0 && self.sent == 0 && self.in_flight == 0
    }
}

/// Everything that a turn works with.
#[derive(Debug)]
pub struct Relayer {
    config: Config,
    reader: Reader,
    book: BookWriter,
    attester: Attester,
    sender: Sender,
    provider: DynProvider,
}

/// What one turn has read at its start.
struct View {
    nonces: crate::sender::Nonces,
    price: GasPrice,
    now: Millis,
    /// Statements, claims and registrations that a transaction carries whose block is not indexed yet.
    busy_statements: BTreeSet<i64>,
    busy_claims: BTreeSet<(Address, ProviderNumber)>,
    busy_registrations: BTreeSet<Address>,
}

impl Relayer {
    /// A relayer over an open ledger.
    pub fn new(config: Config, keys: Keys, ledger: Ledger, endpoints: Endpoints) -> Self {
        let provider = endpoints.provider();
        let limits = plan::Limits {
            cap: u128::from(config.policy.max_gas_gwei) * 1_000_000_000,
            bump_after_ms: i64::from(config.policy.bump_after_seconds) * 1000,
        };
        let (reader, book) = (Reader::new(ledger.clone()), BookWriter::new(ledger));
        let sender =
            Sender::new(provider.clone(), keys.sender, limits, reader.clone(), book.clone());
        let manifests = config.path(&config.files.manifests);
        let attester =
            Attester::new(keys.attester, keys.secret, manifests, reader.clone(), book.clone());
        Self { config, reader, book, attester, sender, provider }
    }

    /// One turn at time `now`. Claims are pushed only if `push` is set, as that reads every credit.
    pub async fn turn(&self, now: Millis, push: bool) -> Result<Report> {
        let mut report = Report::default();
        let view = self.view(now).await?;
        report.waiting.extend(self.sender.drive(view.nonces, view.price, now).await?);
        self.sender.collect_receipts(view.nonces).await?;
        self.register(&view, &mut report).await?;
        self.state(&view, &mut report).await?;
        self.settle(&view, &mut report).await?;
        if push {
            self.push(&view, &mut report).await?;
        }
        report.in_flight =
            view.busy_statements.len() + view.busy_claims.len() + view.busy_registrations.len();
        Ok(report)
    }

    async fn view(&self, now: Millis) -> Result<View> {
        let progress = self.reader.progress().await?;
        let nonces = self.sender.nonces(BlockId::number(progress.checkpoint)).await?;
        let (sender, from) = (self.sender.address(), nonces.indexed);
        Ok(View {
            nonces,
            price: self.sender.gas_price().await?,
            now,
            busy_statements: self
                .reader
                .carried_statements(sender, from)
                .await?
                .into_iter()
                .collect(),
            busy_claims: self.reader.carried_claims(sender, from).await?.into_iter().collect(),
            busy_registrations: self
                .reader
                .carried_registrations(sender, from)
                .await?
                .into_iter()
                .collect(),
        })
    }
    /// Registers payout addresses that have no number yet.
    async fn register(&self, view: &View, report: &mut Report) -> Result<()> {
        let mut addresses = self.reader.unregistered_payees().await?;
        if let Some(operator) = self.config.policy.operator_payout
            && self.reader.final_number_of(operator).await?.is_none()
            && !self.reader.payouts().await?.values().any(|payout| *payout == operator)
        {
            addresses.insert(0, operator);
        }
        let contract = self.config.chain.contract;
        addresses
            .retain(|address| *address != contract && !view.busy_registrations.contains(address));
        for addresses in addresses.chunks(BATCH_REGISTRATIONS) {
            let input = Settlement::registerCall { payouts: addresses.to_vec() }.abi_encode();
            self.send(view, &Obligation::Register(addresses.to_vec()), input.into(), None, report)
                .await?;
        }
        Ok(())
    }
    /// Sends an obligation if there is room and its fee is bounded; otherwise says why it waits. `value` is what it moves,
    /// in millionths of a USD, or `None` where no bound applies.
    async fn send(
        &self,
        view: &View,
        obligation: &Obligation,
        input: Bytes,
        value: Option<u128>,
        report: &mut Report,
    ) -> Result<()> {
        let what = obligation.kind().name();
        if !self.sender.has_room(view.nonces).await? {
            report.waiting.push(format!("a {what} batch waits for transactions before it"));
            return Ok(());
        }
        let Some(gas_limit) = self.sender.gas_limit(&input).await? else {
            report
                .waiting
                .push(format!("a {what} batch would revert or exceed the gas of a transaction"));
            return Ok(());
        };
        if let Some(reason) = self.fee_bound(gas_limit, view.price, value)? {
            report.waiting.push(format!("a {what} batch waits: {reason}"));
            return Ok(());
        }
        if let Some(reason) = self.sender.shortage(gas_limit, view.price).await? {
            report.waiting.push(format!("a {what} batch waits: {reason}"));
            return Ok(());
        }
        self.sender.open(view.nonces, obligation, input, gas_limit, (view.price, view.now)).await?;
        report.sent += 1;
        Ok(())
    }

    /// Why a batch would cost too much for what it moves, if it would.
    fn fee_bound(&self, gas: u64, price: GasPrice, value: Option<u128>) -> Result<Option<String>> {
        let (Some(native), Some(value)) = (&self.config.policy.native_usd, value) else {
            return Ok(None);
        };
        let wei = u128::from(gas).saturating_mul(price.base.saturating_add(price.tip));
        let cost = native.value_of(Amount::new(wei), 18)?;
        let allowed = Amount::new(value).share(self.config.policy.max_fee_bps)?.base_units();
        Ok((cost > allowed).then(|| {
            format!(
                "it would cost {cost} millionths of a USD, more than {} bps of the {value} that it moves",
                self.config.policy.max_fee_bps
            )
        }))
    }
    /// What units of a token are worth at its configured rate, in millionths of a USD.
    async fn micro_usd(&self, token: Address, units: ledger::Units) -> Result<u128> {
        let Some(config) = self.config.token(token) else { return Ok(0) };
        let tokens = self.reader.tokens().await?;
        let Some(token) = tokens.iter().find(|known| known.address == token) else { return Ok(0) };
        Ok(config.usd_per_token.value_of(token.unit.amount(units), token.decimals)?)
    }
}
