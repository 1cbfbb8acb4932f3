//! The relayer's turn: accept what can be accepted, state what is payable, sign it, send it, push what was credited.
//!
//! Each turn reads the ledger, decides by pure rules, commits, and only then acts. It is safe to repeat and safe to cut
//! off anywhere: the next turn, of this process or the next one, finds what is left to do in the ledger.

use std::collections::{BTreeMap, BTreeSet};

use alloy::{
    eips::BlockId,
    primitives::{Address, Bytes},
    providers::DynProvider,
    sol_types::SolCall,
};
use contracts::Settlement;
use ledger::{
    Amount, Ledger, Millis, ProviderNumber,
    book::{BookWriter, Obligation},
    read::{Books, FundingDeposit, Reader, SignedStatement, UnsettledStatement},
    rules::{self, Fee, Limits, Proposal, Purse},
};

use crate::{
    Error, Result,
    attester::Attester,
    config::Config,
    keys::Keys,
    sender::{
        Sender,
        plan::{self, GasPrice},
    },
};

/// Most statements in one transaction.
const BATCH_STATEMENTS: usize = 100;
/// Most calldata bytes of one transaction; nodes refuse 128 KiB.
const BATCH_BYTES: usize = 96 * 1024;
/// Gas that a transaction is packed for.
const BATCH_GAS: u64 = 12_000_000;
/// Most claims in one transaction.
const BATCH_CLAIMS: usize = 200;
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
    pub fn new(config: Config, keys: Keys, ledger: Ledger, provider: DynProvider) -> Self {
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

    /// Accepts what had waited for money, then proposes and signs what is payable.
    async fn state(&self, view: &View, report: &mut Report) -> Result<()> {
        let tariff = self.config.tariff();
        let unsettled = self.reader.unsettled_statements().await?;
        for statement in
            unsettled.iter().filter(|statement| !statement.is_signed && !statement.is_overtaken)
        {
            match self.attester.sign(statement.id).await {
                Ok(_) => report.signed += 1,
                Err(Error::Ledger(ledger::Error::Unsignable(reason))) => {
                    report.waiting.push(reason)
                }
                Err(error) => return Err(error),
            }
        }
        let fee = self.fee().await?;
        let closings = self.reader.closings().await?;
        for name in self.reader.organisations().await? {
            report.accepted += self.book.accept_unfunded(&name, &tariff, view.now).await?;
            match fee {
                Some(fee) => {
                    self.state_organisation(&name, &unsettled, fee, &closings, report).await?
                }
                None => report
                    .waiting
                    .push("statements wait until the operator's registration is final".into()),
            }
        }
        Ok(())
    }

    /// The operator's fee; `None` while its registration is not final.
    async fn fee(&self) -> Result<Option<Fee>> {
        let bps = self.config.tariff().fee_bps;
        match self.config.policy.operator_payout {
            Some(payout) if bps > 0 => {
                let operator = self.reader.final_number_of(payout).await?;
                Ok(operator.map(|operator| Fee { bps, operator: Some(operator) }))
            }
            _ => Ok(Some(Fee { bps: 0, operator: None })),
        }
    }

    /// Proposes and signs the next statement of each deposit that has none under way.
    async fn state_organisation(
        &self,
        name: &str,
        unsettled: &[UnsettledStatement],
        fee: Fee,
        closings: &[(i64, Millis)],
        report: &mut Report,
    ) -> Result<()> {
        let Some(mut books) = self.reader.books(name).await? else { return Ok(()) };
        let Some(token) = books.token else { return Ok(()) };
        if let Some(reason) = self.frozen(name, &books).await? {
            report.waiting.push(reason);
            return Ok(());
        }
        for deposit in books.deposits.clone() {
            let is_under_way = |statement: &UnsettledStatement| {
                statement.deposit == deposit.id && !statement.is_overtaken
            };
            if unsettled.iter().any(is_under_way) {
                continue;
            }
            if let Some(reason) = self.unusable(&deposit, &books) {
                report.waiting.push(reason);
                continue;
            }
            let purse = Purse {
                unit: token.unit,
                spendable: deposit.state.spendable(),
                carries: deposit.carries.clone(),
            };
            let Some(proposal) = self.proposal(name, &books, &purse, fee, closings)? else {
                continue;
            };
            match self.sign(&mut books, &deposit, &proposal).await {
                Ok(()) => report.signed += 1,
                // The deposit moved on while this was proposed; the next turn sees it as it is.
                Err(Error::Ledger(ledger::Error::Unsignable(reason))) => {
                    report.waiting.push(reason)
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Why no statement can be made for a deposit, if none can.
    fn unusable(&self, deposit: &FundingDeposit, books: &Books) -> Option<String> {
        let Some(key) = &deposit.key else {
            return Some(format!("deposit {} has not been seen on chain", deposit.id));
        };
        let (id, attester, token) = (deposit.id, self.attester.address(), books.pays_in);
        (!deposit.is_usable).then(|| {
            format!(
                "deposit {id} holds {} and names {} and {} as its keys; it pays for nobody, since only deposits of {token} \
                 that name the attester {attester} alone can be stated",
                key.token, key.signer, key.cosigner
            )
        })
    }

    /// Why nothing can be stated for an organisation, if nothing can: a settled statement of one of its deposits is not known
    /// here, and what it paid would be paid again, by this deposit or the next.
    async fn frozen(&self, name: &str, books: &Books) -> Result<Option<String>> {
        for deposit in &books.deposits {
            if let Some(epoch) = self.reader.foreign_epoch(deposit.id).await? {
                let id = deposit.id;
                return Ok(Some(format!(
                    "organisation {name:?} is frozen: this ledger does not know what epoch {epoch} of deposit {id} paid for"
                )));
            }
        }
        Ok(None)
    }

    /// The first closing that leaves something to pay decides what is proposed.
    fn proposal(
        &self,
        name: &str,
        books: &Books,
        purse: &Purse,
        fee: Fee,
        closings: &[(i64, Millis)],
    ) -> Result<Option<Proposal>> {
        let secret = self.attester.secret_of(name);
        let mut payables = Vec::new();
        let mut stops = Vec::new();
        // Oldest first, so that what a closing covers is a prefix.
        for item in &books.open {
            if let Some(payable) = item.to_payable(&secret)? {
                payables.push(payable);
                stops.push(item.stopped_ms);
            }
        }
        let mut tried = 0;
        for (_, until) in closings {
            let covered = stops.partition_point(|stop| stop <= until);
            if covered > tried {
                tried = covered;
                let proposal = rules::propose(&payables[..covered], purse, fee, Limits::default())?;
                if !proposal.rows.is_empty() {
                    return Ok(Some(proposal));
                }
            }
        }
        Ok(None)
    }

    /// Records a proposal, takes what it names out of the books at hand, and signs it. In this order: whether or not the
    /// signature succeeds, the recorded statement may be signed later, so that no other may name the same work.
    async fn sign(
        &self,
        books: &mut Books,
        deposit: &FundingDeposit,
        proposal: &Proposal,
    ) -> Result<()> {
        let fee_bps = self.config.tariff().fee_bps;
        let statement =
            self.book.record_statement(deposit.id, &deposit.state, proposal, fee_bps).await?;
        let named: BTreeSet<_> =
            proposal.leaves.iter().filter_map(|leaf| leaf.paid).map(|paid| paid.item).collect();
        books.open.retain(|item| !named.contains(&item.item));
        self.attester.sign(statement.id).await.map(drop)
    }

    /// Batches signed statements that follow their deposit's last one and that no transaction carries.
    async fn settle(&self, view: &View, report: &mut Report) -> Result<()> {
        let mut ready = Vec::new();
        for statement in self.reader.unsettled_statements().await? {
            if !statement.is_signed
                || statement.is_overtaken
                || view.busy_statements.contains(&statement.id)
            {
                continue;
            }
            let state = self.reader.deposit_state(statement.deposit).await?;
            if Some(statement.epoch) == state.epoch.checked_add(1) {
                ready.push(self.reader.signed_statement(statement.id).await?);
            }
        }
        for batch in pack(&ready) {
            let batch = self.without_skips(batch, report).await?;
            if batch.is_empty() {
                continue;
            }
            let ids = batch.iter().map(|statement| statement.id).collect();
            let value = self.value_of(&batch).await?;
            self.send(view, &Obligation::Settle(ids), settle_input(&batch), Some(value), report)
                .await?;
        }
        Ok(())
    }

    /// Takes out of a batch what a simulation says would be skipped, and says why.
    async fn without_skips<'a>(
        &self,
        batch: Vec<&'a SignedStatement>,
        report: &mut Report,
    ) -> Result<Vec<&'a SignedStatement>> {
        let contract = Settlement::new(self.config.chain.contract, &self.provider);
        let statements = batch.iter().map(|statement| to_contract(statement)).collect();
        let outcomes = contract.settle(statements).call().await.map_err(Error::call("settle"))?;
        let mut good = Vec::new();
        for (statement, outcome) in batch.into_iter().zip(outcomes) {
            if outcome == 0 {
                good.push(statement);
            } else {
                report.waiting.push(format!(
                    "statement {} of deposit {} would be skipped: {}",
                    statement.digest,
                    statement.statement.key.id(),
                    outcome_name(outcome)
                ));
            }
        }
        Ok(good)
    }

    /// Pushes credits of at least the token's threshold to their payout addresses.
    async fn push(&self, view: &View, report: &mut Report) -> Result<()> {
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

    async fn value_of(&self, batch: &[&SignedStatement]) -> Result<u128> {
        let mut value = 0_u128;
        for statement in batch {
            let units = contracts::rows::decode(&statement.statement.rows)
                .map_err(ledger::Error::from)?
                .iter()
                .fold(0_u64, |sum, (_, units)| sum.saturating_add(*units));
            let worth =
                self.micro_usd(statement.statement.key.token, ledger::Units::new(units)).await?;
            value = value.saturating_add(worth);
        }
        Ok(value)
    }

    /// What units of a token are worth at its configured rate, in millionths of a USD.
    async fn micro_usd(&self, token: Address, units: ledger::Units) -> Result<u128> {
        let Some(config) = self.config.token(token) else { return Ok(0) };
        let tokens = self.reader.tokens().await?;
        let Some(token) = tokens.iter().find(|known| known.address == token) else { return Ok(0) };
        Ok(config.usd_per_token.value_of(token.unit.amount(units), token.decimals)?)
    }
}

/// Packs statements into batches by number, bytes, and an upper bound of their gas.
fn pack(statements: &[SignedStatement]) -> Vec<Vec<&SignedStatement>> {
    let mut batches: Vec<Vec<&SignedStatement>> = Vec::new();
    let (mut bytes, mut gas) = (0, 0);
    for statement in statements {
        let size = statement.statement.rows.len()
            + statement.signature.len()
            + statement.cosignature.len()
            + 640;
        let cost = gas_bound(statement);
        let fits = batches.last().is_some_and(|batch| {
            batch.len() < BATCH_STATEMENTS && bytes + size <= BATCH_BYTES && gas + cost <= BATCH_GAS
        });
        if !fits {
            batches.push(Vec::new());
            (bytes, gas) = (0, 0);
        }
        (bytes, gas) = (bytes + size, gas + cost);
        if let Some(batch) = batches.last_mut() {
            batch.push(statement);
        }
    }
    batches
}

/// Upper bound of a statement's gas.
fn gas_bound(statement: &SignedStatement) -> u64 {
    let rows = contracts::rows::decode(&statement.statement.rows).unwrap_or_default();
    let words: BTreeSet<_> = rows.iter().map(|(provider, _)| rules::word_of(*provider)).collect();
    rules::gas_bound(rows.len(), words.len())
}

/// Calldata of `settle` for a batch.
pub(crate) fn settle_input(batch: &[&SignedStatement]) -> Bytes {
    let statements = batch.iter().map(|statement| to_contract(statement)).collect();
    Settlement::settleCall { statements }.abi_encode().into()
}

fn to_contract(signed: &SignedStatement) -> Settlement::Statement {
    Settlement::Statement {
        key: signed.statement.key.clone().into(),
        epoch: signed.statement.epoch,
        manifest: signed.statement.manifest,
        rows: signed.statement.rows.clone().into(),
        signature: signed.signature.clone().into(),
        cosignature: signed.cosignature.clone().into(),
    }
}

/// Name of `ISettlement.Outcome`.
pub const fn outcome_name(outcome: u8) -> &'static str {
    match outcome {
        0 => "settled",
        1 => "its epoch is not the deposit's next one",
        2 => "its rows are malformed",
        3 => "it names a provider that is not registered",
        4 => "the deposit does not hold that much",
        5 => "the signer's signature is wrong",
        6 => "the cosigner's signature is wrong",
        _ => "unknown reason",
    }
}
