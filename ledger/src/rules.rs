//! Every rule about money, as pure functions: no database, no clock, no network, no randomness.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use alloy::primitives::{Address, B256};
use serde::{Deserialize, Serialize};

use crate::{
    Amount, Error, ProviderNumber, Result, Turnover, Unit, Units,
    manifest::{CARRY, FEE, Leaf, Paid, Secret},
    statement::Row,
};

/// What happened to a deposit, in the order of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DepositEvent {
    /// Money came in; whether in a final block.
    Funded(Units, bool),
    /// The thawing amount was set.
    Thawed(Units, u64),
    /// What had thawed went out.
    Withdrawn(Units),
    /// A statement of this epoch brought the total spent to this.
    Settled(u32, Units),
}

/// A deposit as the contract has it at the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct DepositState {
    /// Units held, what is thawing included.
    pub balance: Units,
    /// Units on their way out.
    pub thawing: Units,
    /// Units spent so far.
    pub spent: Units,
    /// Statements settled so far.
    pub epoch: u32,
    /// When what is thawing can be withdrawn, seconds since 1970.
    pub thaw_ends: u64,
    /// Units ever deposited.
    pub deposited: Turnover,
    /// Units ever deposited in blocks that are final.
    pub deposited_final: Turnover,
    /// Units ever withdrawn.
    pub withdrawn: Turnover,
}

impl DepositState {
    /// The state after one more event, by the contract's own arithmetic.
    pub fn after(mut self, event: DepositEvent) -> Result<Self> {
        match event {
            DepositEvent::Funded(units, is_final) => {
                self.balance = self.balance.add(units)?;
                self.deposited = self.deposited.add(units)?;
                if is_final {
                    self.deposited_final = self.deposited_final.add(units)?;
                }
            }
            DepositEvent::Thawed(units, ends) => {
                self.thawing = units;
                self.thaw_ends = ends;
            }
            DepositEvent::Withdrawn(units) => {
                self.balance = self.balance.sub(units)?;
                self.withdrawn = self.withdrawn.add(units)?;
                self.thawing = Units::ZERO;
                self.thaw_ends = 0;
            }
            DepositEvent::Settled(epoch, spent) => {
                self.balance = self.balance.sub(spent.sub(self.spent)?)?;
                self.spent = spent;
                self.epoch = epoch;
                self.thawing = self.thawing.min(self.balance);
            }
        }
        Ok(self)
    }

    /// Whether its requestor is taking money out.
    pub fn is_thawing(&self) -> bool {
        self.thawing > Units::ZERO
    }

    /// What a statement may spend: only money whose deposit is final, thawing or not.
    pub fn spendable(&self) -> Units {
        let gone = self.withdrawn.add(self.spent);
        gone.and_then(|gone| self.deposited_final.less(gone)).unwrap_or(Units::ZERO)
    }
}

/// An organisation's money in its token, in base units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Position {
    /// Deposited in blocks that are final.
    pub deposited: Amount,
    /// Withdrawn.
    pub withdrawn: Amount,
    /// On its way out.
    pub thawing: Amount,
    /// Paid by settled statements.
    pub settled: Amount,
    /// Remainders below one unit that settled statements still owe.
    pub carried: Amount,
    /// Owed for accepted work that is not settled, without the fee.
    pub reserved: Amount,
}

/// What an organisation can still spend: `deposited − withdrawn − thawing − settled − carried − reserved − fee`, where
/// the fee is `fee_bps` of what is reserved. Negative when debits overtook a promise.
///
/// The only place that computes it; everything that shows the number asks here.
pub fn available(position: &Position, fee_bps: u16) -> Result<i128> {
    let mut left = position.deposited.signed()?;
    let fee = position.reserved.share(fee_bps)?;
    for debit in [
        position.withdrawn,
        position.thawing,
        position.settled,
        position.carried,
        position.reserved,
        fee,
    ] {
        left = left.checked_sub(debit.signed()?).ok_or(Error::Overflow("available amount"))?;
    }
    Ok(left)
}

/// What accepting `extra` more base units would lack, the fee on everything reserved included; zero if it is covered.
pub fn missing(position: &Position, extra: Amount, fee_bps: u16) -> Result<Amount> {
    let after = Position { reserved: position.reserved.add(extra)?, ..*position };
    Ok(Amount::new(available(&after, fee_bps)?.min(0).unsigned_abs()))
}

/// What was decided about an item. The last decision counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It waits for a review, and its money with it.
    Hold,
    /// Its money is let go: it is not paid.
    Release,
    /// Its requestor objects; it waits, and its money with it.
    Dispute,
    /// It is paid, whatever was said before.
    Pay,
}

impl Verdict {
    /// Its name in the database and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Dispute => "dispute",
            Self::Pay => "pay",
        }
    }

    /// The verdict of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Hold, Self::Release, Self::Dispute, Self::Pay]
            .into_iter()
            .find(|verdict| verdict.name() == name)
    }
}

/// What the candidates of one deposit and epoch say of an item, from when all other keys could have them until a final
/// statement retires the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Naming {
    /// The deposit.
    pub deposit: B256,
    /// The epoch.
    pub epoch: u32,
    /// The most that one of its candidates names for the item; 0 if all of them take back.
    pub largest: i128,
    /// The least that one of its candidates names for the item: the most that is taken back; 0 if none of them takes back.
    pub smallest: i128,
    /// What the candidate that settled the epoch, not finally yet, names; 0 if there is none or it does not.
    pub settled: i128,
}

/// An item that is not finally paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenItem {
    /// Row id of the item.
    pub item: i64,
    /// Its source.
    pub source: String,
    /// The source's id.
    pub external_id: String,
    /// The machine that did it.
    pub machine: String,
    /// When the work ended, ms.
    pub stopped_ms: i64,
    /// Highest accepted revision and its amount; `None` while unfunded.
    pub accepted: Option<(u32, Amount)>,
    /// Whether a revision above that waits for money.
    pub waits: bool,
    /// Σ of its leaves in settled statements.
    pub settled: i128,
    /// Highest revision that a settled leaf names.
    pub paid_revision: Option<u32>,
    /// Where it is live, by deposit and epoch.
    pub live: Vec<Naming>,
    /// Number of its provider, once the registration is final.
    pub provider: Option<ProviderNumber>,
    /// Number of the provider that its last settled leaf paid.
    pub paid_provider: Option<ProviderNumber>,
    /// The last decision about it.
    pub verdict: Option<Verdict>,
    /// Whether both sides reported a digest of the output, and the same.
    pub has_equal_digests: bool,
    /// Whether it ended before a cut-off of its organisation and is regarded as paid.
    pub is_cut_off: bool,
}

impl OpenItem {
    /// What is still owed, a difference: the highest accepted revision − Σ settled leaves. Negative if too much was paid.
    ///
    /// Nothing is owed for work that is regarded as paid, or of which a later revision was paid than is known here. What was
    /// let go is not paid; what was paid too much of it is owed back all the same.
    pub fn due(&self) -> Result<i128> {
        let Some((revision, amount)) = self.accepted else { return Ok(0) };
        let is_outdated = self.paid_revision.is_some_and(|paid| paid > revision);
        if self.is_cut_off || is_outdated {
            return Ok(0);
        }
        let due =
            amount.signed()?.checked_sub(self.settled).ok_or(Error::Overflow("amount due"))?;
        Ok(if self.verdict == Some(Verdict::Release) { due.min(0) } else { due })
    }

    /// Whether a decision keeps it from being paid.
    pub const fn is_held(&self) -> bool {
        matches!(self.verdict, Some(Verdict::Hold | Verdict::Dispute))
    }

    /// Whom the next leaf concerns: the machine's provider, or the one that was paid if something is owed back.
    pub fn payee(&self) -> Result<Option<ProviderNumber>> {
        Ok(if self.due()? < 0 { self.paid_provider } else { self.provider })
    }

    /// What a candidate of this deposit and epoch can state for it now: provider, revision and base units.
    ///
    /// Nothing while it is live elsewhere, since both could settle; other candidates of the same epoch cannot.
    pub fn payable(
        &self,
        (deposit, epoch): (B256, u32),
    ) -> Result<Option<(ProviderNumber, u32, i128)>> {
        let (Some(provider), Some((revision, _)), due) =
            (self.payee()?, self.accepted, self.due()?)
        else {
            return Ok(None);
        };
        let is_free = self.live.iter().all(|live| (live.deposit, live.epoch) == (deposit, epoch));
        let is_owed = due < 0 || due > 0 && !self.is_held();
        Ok((is_free && is_owed).then_some((provider, revision, due)))
    }

    /// The same as it enters a proposal, under the id that the organisation's secret gives it.
    pub fn to_payable(&self, secret: &Secret, place: (B256, u32)) -> Result<Option<Payable>> {
        let Some((provider, revision, due)) = self.payable(place)? else { return Ok(None) };
        let workload = secret.workload_id(&self.source, &self.external_id, revision);
        let paid = Paid { item: self.item, revision, settled: Some(self.settled) };
        Ok(Some(Payable { paid, workload, provider, due }))
    }

    /// The least that will have settled of it: where candidates that can settle take back, what the one leaves that takes most.
    pub fn least_settled(&self) -> Result<i128> {
        let mut least = self.settled;
        for live in self.live.iter().filter(|live| live.smallest < 0) {
            let less = live.smallest.checked_sub(live.settled);
            let sum = less.and_then(|less| least.checked_add(less));
            least = sum.ok_or(Error::Overflow("sum of leaves"))?;
        }
        Ok(least)
    }

    /// What the item keeps reserved: the larger of what is due and what a live statement can still take beyond what has
    /// settled.
    pub fn reserved(&self) -> Result<Amount> {
        let mut held = self.due()?.max(0);
        for live in &self.live {
            let more = live.largest.checked_sub(live.settled).ok_or(Error::Overflow("reserved"))?;
            held = held.max(more);
        }
        Ok(Amount::new(held.unsigned_abs()))
    }
}

/// What becomes of held work whose money is about to leave with its requestor: where both sides reported the same digest of
/// the output it is paid, otherwise its money is let go. `None` if there is nothing to decide.
pub fn verdict_at_thaw(item: &OpenItem) -> Result<Option<Verdict>> {
    if !item.is_held() || !item.live.is_empty() || item.due()? <= 0 {
        return Ok(None);
    }
    Ok(Some(if item.has_equal_digests { Verdict::Pay } else { Verdict::Release }))
}

/// A piece of work that can go into a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payable {
    /// Item and revision.
    pub paid: Paid,
    /// Salted id of the workload.
    pub workload: B256,
    /// Who is paid.
    pub provider: ProviderNumber,
    /// Base units due; negative where too much was paid.
    pub due: i128,
}

/// The operator's fee.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fee {
    /// Ten-thousandths of the statement's workload leaves.
    pub bps: u16,
    /// Number under which the operator is paid; without one there is no fee.
    pub operator: Option<ProviderNumber>,
}

/// Bounds of one statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most rows, the operator's included.
    pub max_rows: usize,
    /// Most workload leaves.
    pub max_leaves: usize,
    /// Most gas, by [`gas_bound`].
    pub max_gas: u64,
}

impl Default for Limits {
    /// 8,000 rows are 80 kB of the 96 KiB that a statement may have; 50,000 leaves bound a proof's depth to 16; a
    /// transaction has 16.7M gas (EIP-7825).
    fn default() -> Self {
        Self { max_rows: 8_000, max_leaves: 50_000, max_gas: 12_000_000 }
    }
}

/// Upper bound of the gas that a statement adds to a transaction: signatures and event, every word of credits as if it
/// were new (22,100), and 10 bytes of calldata, log and work for each row. `contracts/test/Gas.t.sol` holds it against
/// the contract.
pub fn gas_bound(rows: usize, words: usize) -> u64 {
    let (rows, words) = (rows as u64, words as u64);
    60_000_u64.saturating_add(words.saturating_mul(22_500)).saturating_add(rows.saturating_mul(600))
}

/// The word of credits that a provider's credit lies in; four providers share one.
pub const fn word_of(provider: ProviderNumber) -> u32 {
    provider >> 2
}

/// What a deposit can pay with.
#[derive(Debug, Clone)]
pub struct Purse {
    /// Unit of its token.
    pub unit: Unit,
    /// Most units that the statement may spend.
    pub spendable: Units,
    /// Remainders that the deposit owes, by provider.
    pub carries: BTreeMap<ProviderNumber, Amount>,
    /// Whether the requestor is taking money out, so that what is not stated now may never be paid.
    pub is_thawing: bool,
}

/// An unsigned statement: its rows and the leaves behind them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proposal {
    /// Rows, ascending by provider.
    pub rows: Vec<Row>,
    /// Leaves, ascending by provider.
    pub leaves: Vec<Leaf>,
}

impl Proposal {
    /// Sum of the rows.
    pub fn total(&self) -> Result<Units> {
        self.rows.iter().try_fold(Units::ZERO, |total, row| total.add(row.units))
    }
}

/// Proposes a statement: `payables` in the order given, oldest first, until the purse or a limit is exhausted; all that fit
/// if the deposit thaws.
///
/// Providers that net below one unit are left out, with all their leaves; so is a fee that does.
pub fn propose(payables: &[Payable], purse: &Purse, fee: Fee, limits: Limits) -> Result<Proposal> {
    let chosen = choose(payables, purse, fee, limits)?;
    let mut leaves: BTreeMap<ProviderNumber, Vec<Leaf>> = BTreeMap::new();
    for payable in chosen {
        leaves.entry(payable.provider).or_default().push(Leaf {
            workload: payable.workload,
            provider: payable.provider,
            amount: payable.due,
            paid: Some(payable.paid),
        });
    }
    for (provider, leaves) in &mut leaves {
        if let Some(carry) = purse.carries.get(provider).filter(|carry| **carry != Amount::ZERO) {
            leaves.insert(0, plain_leaf(CARRY, *provider, *carry)?);
        }
    }
    leaves.retain(
        |_, leaves| matches!(units_of(leaves, purse.unit), Ok((units, _)) if units > Units::ZERO),
    );
    add_fee(&mut leaves, purse, fee)?;

    let leaves: Vec<_> = leaves.into_values().flatten().collect();
    Ok(Proposal { rows: rows_of(&leaves, purse.unit)?, leaves })
}

/// The payables of providers that are owed at least `least` in all, what was carried included. A row costs gas: what is owed
/// to the others waits until it has grown, and nothing else waits for it.
pub fn worth_a_row<'a>(
    payables: &'a [Payable],
    purse: &Purse,
    least: Amount,
) -> Result<Cow<'a, [Payable]>> {
    if least == Amount::ZERO {
        return Ok(payables.into());
    }
    let mut owed = carried(purse)?;
    for payable in payables {
        owe(&mut owed, payable)?;
    }
    let is_worth_it = |payable: &&Payable| is_at_least(owed.get(&payable.provider), least);
    Ok(payables.iter().filter(is_worth_it).cloned().collect())
}

/// How many payables, in their order, it takes until a provider is owed at least `least`, if any ever is. Fewer make no row.
pub fn first_worth_a_row(
    payables: &[Payable],
    purse: &Purse,
    least: Amount,
) -> Result<Option<usize>> {
    let mut owed = carried(purse)?;
    for (index, payable) in payables.iter().enumerate() {
        owe(&mut owed, payable)?;
        if is_at_least(owed.get(&payable.provider), least) {
            return Ok(Some(index.saturating_add(1)));
        }
    }
    Ok(None)
}

/// What each provider was left with by statements before.
fn carried(purse: &Purse) -> Result<BTreeMap<ProviderNumber, i128>> {
    let carries = purse.carries.iter();
    carries.map(|(provider, carry)| Ok((*provider, carry.signed()?))).collect()
}

fn owe(owed: &mut BTreeMap<ProviderNumber, i128>, payable: &Payable) -> Result<()> {
    let owed = owed.entry(payable.provider).or_default();
    *owed = owed.checked_add(payable.due).ok_or(Error::Overflow("sum of leaves"))?;
    Ok(())
}

fn is_at_least(owed: Option<&i128>, least: Amount) -> bool {
    owed.is_some_and(|owed| u128::try_from(*owed).unwrap_or(0) >= least.base_units())
}

/// The rows that leaves come to: per provider ⌊Σ leaves ÷ unit⌋, the remainder being the carry. Leaves of one provider
/// stand together, providers ascend. This is also the check that an attester makes before it signs.
pub fn rows_of(leaves: &[Leaf], unit: Unit) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for leaves in leaves.chunk_by(|a, b| a.provider == b.provider) {
        let Some(first) = leaves.first() else { continue };
        let (units, carry_out) = units_of(leaves, unit)?;
        let carry_in = leaves
            .iter()
            .filter(|leaf| leaf.workload == CARRY)
            .map(|leaf| leaf.amount)
            .sum::<i128>();
        rows.push(Row {
            provider: first.provider,
            units,
            carry_in: Amount::new(carry_in.unsigned_abs()),
            carry_out,
        });
    }
    Ok(rows)
}

/// The operator's fee on leaves: ⌊bps × Σ workload leaves⌋.
pub fn fee_of<'a>(leaves: impl IntoIterator<Item = &'a Leaf>, bps: u16) -> Result<Amount> {
    let work = leaves.into_iter().filter(|leaf| leaf.paid.is_some()).map(|leaf| leaf.amount);
    Amount::new(sum(work)?.max(0).unsigned_abs()).share(bps)
}

/// What of a proposal exceeds the limits, if anything does.
pub fn excess(proposal: &Proposal, limits: Limits) -> Option<String> {
    let rows = proposal.rows.len();
    let leaves = proposal.leaves.iter().filter(|leaf| leaf.paid.is_some()).count();
    let words: BTreeSet<_> = proposal.rows.iter().map(|row| word_of(row.provider)).collect();
    let gas = gas_bound(rows, words.len());
    match () {
        () if rows > limits.max_rows => Some(format!("{rows} rows exceed {}", limits.max_rows)),
        () if leaves > limits.max_leaves => {
            Some(format!("{leaves} workloads exceed {}", limits.max_leaves))
        }
        () if gas > limits.max_gas => Some(format!("{gas} gas exceeds {}", limits.max_gas)),
        () => None,
    }
}

/// Whole units of one provider's leaves, and the remainder. Negative sums come to nothing.
fn units_of(leaves: &[Leaf], unit: Unit) -> Result<(Units, Amount)> {
    let sum = sum(leaves.iter().map(|leaf| leaf.amount))?;
    unit.split(Amount::new(sum.max(0).unsigned_abs()))
}

fn sum(amounts: impl Iterator<Item = i128>) -> Result<i128> {
    amounts.into_iter().try_fold(0_i128, i128::checked_add).ok_or(Error::Overflow("sum of leaves"))
}

fn plain_leaf(workload: B256, provider: ProviderNumber, amount: Amount) -> Result<Leaf> {
    Ok(Leaf { workload, provider, amount: amount.signed()?, paid: None })
}

/// Adds ⌊bps × Σ workload leaves⌋ for the operator, unless its row would come to nothing.
fn add_fee(
    leaves: &mut BTreeMap<ProviderNumber, Vec<Leaf>>,
    purse: &Purse,
    fee: Fee,
) -> Result<()> {
    let Some(operator) = fee.operator else { return Ok(()) };
    let amount = fee_of(leaves.values().flatten(), fee.bps)?;
    if amount == Amount::ZERO {
        return Ok(());
    }
    let mut own = leaves.get(&operator).cloned().unwrap_or_default();
    if own.is_empty()
        && let Some(carry) = purse.carries.get(&operator).filter(|carry| **carry != Amount::ZERO)
    {
        own.push(plain_leaf(CARRY, operator, *carry)?);
    }
    own.push(plain_leaf(FEE, operator, amount)?);
    if units_of(&own, purse.unit)?.0 > Units::ZERO {
        leaves.insert(operator, own);
    }
    Ok(())
}

/// The payables that fit, in order; stops at the first that does not, so that nothing overtakes older work. While the deposit
/// thaws it goes on, for what is left out then may find no money any more.
fn choose<'a>(
    payables: &'a [Payable],
    purse: &Purse,
    fee: Fee,
    limits: Limits,
) -> Result<Vec<&'a Payable>> {
    let mut cost = Cost::new(purse, fee);
    let mut chosen = Vec::new();
    for payable in payables {
        // Leaves of one provider net together. Where a statement cannot hold them all, the others do not wait for it.
        if cost.is_clogged(payable.provider, limits)? {
            continue;
        }
        if cost.try_add(payable, limits)? {
            chosen.push(payable);
        } else if !purse.is_thawing {
            break;
        }
    }
    Ok(chosen)
}

/// A provider's payables chosen so far.
#[derive(Clone, Copy, Default)]
struct Net {
    sum: i128,
    leaves: usize,
}

/// What a provider adds to a statement; nothing while it nets below one unit, since it is left out then.
#[derive(Clone, Copy, Default)]
struct Share {
    rows: usize,
    leaves: usize,
    /// Units of its row.
    units: u64,
    /// Its positive sum without the carry, which bounds what it adds to the base of the fee.
    base: u128,
}

impl Share {
    /// This sum of shares with one of them replaced.
    fn replace(self, old: Self, new: Self) -> Result<Self> {
        let overflow = || Error::Overflow("cost of a statement");
        Ok(Self {
            rows: self.rows - old.rows + new.rows,
            leaves: self.leaves - old.leaves + new.leaves,
            units: (self.units - old.units).checked_add(new.units).ok_or_else(overflow)?,
            base: (self.base - old.base).checked_add(new.base).ok_or_else(overflow)?,
        })
    }
}

/// What the payables chosen so far can cost at most.
struct Cost<'a> {
    purse: &'a Purse,
    fee: Fee,
    nets: BTreeMap<ProviderNumber, Net>,
    /// Rows in each word of credits that one touches.
    words: BTreeMap<u32, usize>,
    /// Σ of all shares, the fee left out.
    total: Share,
}

impl<'a> Cost<'a> {
    fn new(purse: &'a Purse, fee: Fee) -> Self {
        let (nets, words, total) = (BTreeMap::new(), BTreeMap::new(), Share::default());
        Self { purse, fee, nets, words, total }
    }

    /// Whether a provider nets below one unit with as many leaves as a statement takes.
    fn is_clogged(&self, provider: ProviderNumber, limits: Limits) -> Result<bool> {
        let net = self.net(provider);
        Ok(net.leaves >= limits.max_leaves && self.share(provider, net)?.rows == 0)
    }

    /// Adds a payable and returns true, or leaves everything as it was and returns false if it does not fit.
    fn try_add(&mut self, payable: &Payable, limits: Limits) -> Result<bool> {
        let (provider, word) = (payable.provider, word_of(payable.provider));
        let old = self.net(provider);
        let sum = old.sum.checked_add(payable.due).ok_or(Error::Overflow("cost of a statement"))?;
        let new = Net { sum, leaves: old.leaves + 1 };
        let (before, after) = (self.share(provider, old)?, self.share(provider, new)?);
        let total = self.total.replace(before, after)?;
        let in_word = self.words.get(&word).copied().unwrap_or(0);
        let in_word_after = in_word - before.rows + after.rows;
        let words = self.words.len() - usize::from(in_word > 0) + usize::from(in_word_after > 0);

        self.nets.insert(provider, new);
        if after.units > contracts::rows::MAX_UNITS || !self.fits(total, words, limits)? {
            self.nets.insert(provider, old);
            return Ok(false);
        }
        match in_word_after {
            0 => self.words.remove(&word),
            rows => self.words.insert(word, rows),
        };
        self.total = total;
        Ok(true)
    }

    fn fits(&self, total: Share, words: usize, limits: Limits) -> Result<bool> {
        // The operator's row may touch a word of its own.
        let (rows, words) = (total.rows + usize::from(self.fee.operator.is_some()), words + 1);
        let (fee, own) = self.fee_units(total.base)?;
        let units = total.units.checked_add(fee);
        Ok(rows <= limits.max_rows
            && own <= contracts::rows::MAX_UNITS
            && total.leaves <= limits.max_leaves
            && gas_bound(rows, words) <= limits.max_gas
            && units.ok_or(Error::Overflow("cost of a statement"))? <= self.purse.spendable.get())
    }

    fn net(&self, provider: ProviderNumber) -> Net {
        self.nets.get(&provider).copied().unwrap_or_default()
    }

    fn share(&self, provider: ProviderNumber, net: Net) -> Result<Share> {
        let units = self.row_units(provider, net.sum)?;
        if units == 0 || net.leaves == 0 {
            return Ok(Share::default());
        }
        let base = net.sum.max(0).unsigned_abs();
        Ok(Share { rows: 1, leaves: net.leaves, units, base })
    }

    fn row_units(&self, provider: ProviderNumber, sum: i128) -> Result<u64> {
        let carry = self.purse.carries.get(&provider).copied().unwrap_or_default().signed()?;
        let owed = sum.checked_add(carry).ok_or(Error::Overflow("sum of leaves"))?;
        Ok(self.purse.unit.split(Amount::new(owed.max(0).unsigned_abs()))?.0.get())
    }

    /// Units by which the fee can raise the operator's row, and what the row comes to then. What the operator owes back does
    /// not lower them, since such leaves may be left out.
    fn fee_units(&self, base: u128) -> Result<(u64, u64)> {
        let Some(operator) = self.fee.operator else { return Ok((0, 0)) };
        let fee = Amount::new(base).share(self.fee.bps)?;
        let own = self.net(operator).sum.max(0);
        let with = self.row_units(operator, own.saturating_add(fee.signed()?))?;
        Ok((with.saturating_sub(self.row_units(operator, own)?), with))
    }
}

/// A statement recorded for the next epoch of a deposit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// What the deposit will have spent once it is settled.
    pub spent: Units,
    /// Σ of its rows.
    pub total: Units,
    /// Whether all its signatures are there.
    pub is_signed: bool,
    /// Whether a transaction under way carries it.
    pub is_sent: bool,
    /// Whether an earlier turn could have sent it and did not.
    pub has_waited: bool,
    /// Whether it names work that others have paid since it was stated, or can pay.
    pub pays_again: bool,
}

impl Candidate {
    /// Whether it may settle on the deposit as it is: it follows what was spent, there is enough, and nobody else pays its work.
    pub fn fits(&self, state: &DepositState) -> bool {
        !self.pays_again
            && self.spent.get().checked_sub(self.total.get()) == Some(state.spent.get())
            && self.total <= state.balance
    }
}

/// What is to be recorded for the next epoch of a deposit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing: what is there is good enough, or nothing can be done.
    Nothing,
    /// The statement that can be made now.
    State,
    /// An empty statement, which retires the epoch, so that its work can move to another deposit once that is final.
    Retire,
}

/// How a deposit that has candidates goes on.
#[derive(Debug, Clone, Copy)]
pub struct Prospect {
    /// The deposit as it is.
    pub state: DepositState,
    /// Total of the statement that could be made now; zero if none can.
    pub fresh: Units,
    /// Whether another deposit could pay work that the candidates name, or is to, since this one pays for another organisation by
    /// now, or one of them pays what others have paid.
    pub can_move: bool,
}

/// Decides whether another candidate is worth having.
///
/// One that settles is kept until it is sent or a larger one is worth it: larger by a quarter, so that a long wait
/// under the fee policy makes few candidates; by anything once the requestor thaws. Where none can settle, a smaller
/// one takes its place, or an empty one if the work can move.
pub fn next_candidate(candidates: &[Candidate], prospect: &Prospect) -> Next {
    let Prospect { state, fresh, can_move } = prospect;
    let mut best: Option<Units> = None;
    for candidate in candidates.iter().filter(|candidate| candidate.fits(state)) {
        let is_idle = candidate.has_waited || state.is_thawing();
        if !candidate.is_signed || candidate.is_sent || !is_idle {
            return Next::Nothing;
        }
        best = best.max(Some(candidate.total));
    }
    let is_worth_it = match best {
        None => *fresh > Units::ZERO,
        Some(best) => {
            let growth = if state.is_thawing() { 1 } else { (best.get() / 4).max(1) };
            fresh.get() >= best.get().saturating_add(growth)
        }
    };
    match best {
        _ if is_worth_it => Next::State,
        None if !candidates.is_empty() && *can_move => Next::Retire,
        _ => Next::Nothing,
    }
}

/// Proposes a statement whose total brings the deposit to none of the sums in `taken`, those of its other candidates: a
/// successor's signature pins a sum, and with it one statement. Newest work is left out until the sum is free.
pub fn propose_apart(
    payables: &[Payable],
    purse: &Purse,
    (fee, limits): (Fee, Limits),
    (spent, taken): (Units, &BTreeSet<Units>),
) -> Result<Proposal> {
    let mut payables = payables;
    loop {
        let proposal = propose(payables, purse, fee, limits)?;
        if proposal.rows.is_empty() || !taken.contains(&spent.add(proposal.total()?)?) {
            return Ok(proposal);
        }
        let named: BTreeSet<_> =
            proposal.leaves.iter().filter_map(|leaf| leaf.paid).map(|paid| paid.item).collect();
        let last = payables.iter().rposition(|payable| named.contains(&payable.paid.item));
        payables = &payables[..last.unwrap_or(0)];
    }
}

/// A credit that a provider can claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Credit {
    /// Whose it is.
    pub provider: ProviderNumber,
    /// In which token.
    pub token: Address,
    /// How much.
    pub units: Units,
}

/// A number that pays to another address than the one that is named for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MovedPayout {
    /// The number.
    pub provider: ProviderNumber,
    /// The address that is named, under which it was registered.
    pub named: Address,
    /// Where it pays.
    pub payout: Address,
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn payable(item: i64, provider: u32, due: i128) -> Payable {
        let workload = B256::left_padding_from(&(item + 100).to_be_bytes());
        let paid = Paid { item, revision: 0, settled: Some(0) };
        Payable { paid, workload, provider, due }
    }

    fn purse(decimals: u8, spendable: u64) -> Purse {
        let unit = Unit::of_decimals(decimals).unwrap();
        let (spendable, carries) = (Units::new(spendable), BTreeMap::new());
        Purse { unit, spendable, carries, is_thawing: false }
    }

    const NO_FEE: Fee = Fee { bps: 0, operator: None };

    fn units(proposal: &Proposal) -> Vec<(u32, u64)> {
        proposal.rows.iter().map(|row| (row.provider, row.units.get())).collect()
    }

    #[test]
    fn what_a_provider_is_owed_in_all_decides_whether_it_gets_a_row() {
        let payables = [
            payable(1, 1, 60),
            payable(2, 2, 99),
            payable(3, 1, 40),
            payable(4, 3, 150),
            payable(5, 3, -51),
            payable(6, 4, 93),
            payable(7, 5, -200),
        ];
        let carries = BTreeMap::from([(4, Amount::new(7)), (2, Amount::ZERO)]);
        let purse = Purse { carries, ..purse(6, 1000) };
        let items = |least| -> Vec<_> {
            let worth = worth_a_row(&payables, &purse, Amount::new(least)).unwrap();
            worth.iter().map(|payable| payable.paid.item).collect()
        };
        assert_eq!(items(0), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(items(99), [1, 2, 3, 4, 5, 6]);
        assert_eq!(items(100), [1, 3, 6]);
        assert_eq!(items(101), [] as [i64; 0]);
        assert_eq!(items(u128::MAX), [] as [i64; 0]);
        let first = |least| first_worth_a_row(&payables, &purse, Amount::new(least)).unwrap();
        assert_eq!(
            [0, 60, 99, 100, 150, 151].map(first),
            [1, 1, 2, 3, 4, 0].map(|n| (n > 0).then_some(n))
        );
    }

    #[test]
    fn stops_at_the_first_work_that_the_deposit_cannot_pay() {
        let work = [payable(1, 1, 60), payable(2, 2, 50), payable(3, 3, 10)];
        let proposal = propose(&work, &purse(6, 100), NO_FEE, Limits::default()).unwrap();
        assert_eq!(units(&proposal), [(1, 60)]);
    }

    #[test]
    fn work_that_fits_is_stated_beside_older_work_that_does_not_once_the_deposit_thaws() {
        let work = [payable(1, 1, 150), payable(2, 2, 40), payable(3, 1, 61), payable(4, 3, 60)];
        for (is_thawing, rows) in [(false, vec![]), (true, vec![(2, 40), (3, 60)])] {
            let purse = Purse { is_thawing, ..purse(6, 100) };
            let proposal = propose(&work, &purse, NO_FEE, Limits::default()).unwrap();
            assert_eq!(units(&proposal), rows);
        }
    }

    #[test]
    fn a_one_percent_fee_fits_an_exactly_funded_deposit() {
        let fee = Fee { bps: 100, operator: Some(9) };
        let work = [payable(1, 1, 60), payable(2, 2, 40)];
        let proposal = propose(&work, &purse(6, 101), fee, Limits::default()).unwrap();
        assert_eq!(units(&proposal), [(1, 60), (2, 40), (9, 1)]);
        let proposal = propose(&work, &purse(6, 100), fee, Limits::default()).unwrap();
        assert_eq!(units(&proposal), [(1, 60)]);
    }

    #[test]
    fn work_of_one_provider_fills_a_deposit_with_its_fee_to_the_last_unit() {
        let fee = Fee { bps: 1000, operator: Some(9) };
        let work = [payable(1, 1, 60), payable(2, 1, 40)];
        let proposal = propose(&work, &purse(6, 110), fee, Limits::default()).unwrap();
        assert_eq!(units(&proposal), [(1, 100), (9, 10)]);
        assert_eq!(proposal.total().unwrap(), Units::new(110));
        let proposal = propose(&work, &purse(6, 109), fee, Limits::default()).unwrap();
        assert_eq!(units(&proposal), [(1, 60), (9, 6)]);
    }

    #[test]
    fn a_row_takes_the_most_units_that_the_contract_can_and_no_more() {
        let most = contracts::rows::MAX_UNITS;
        for (due, rows) in [(most, vec![(1, most)]), (most + 1, vec![])] {
            let work = [payable(1, 1, due.into())];
            let proposal = propose(&work, &purse(6, u64::MAX), NO_FEE, Limits::default()).unwrap();
            assert_eq!(units(&proposal), rows);
        }
    }

    #[test]
    fn the_operators_row_takes_the_most_units_that_the_contract_can_and_no_more() {
        let most = contracts::rows::MAX_UNITS;
        let fee = Fee { bps: 10_000, operator: Some(9) };
        let half = i128::from(most / 2);
        for (more, rows) in [(1, 3), (2, 2)] {
            let work = [payable(1, 1, half), payable(2, 2, half + more)];
            let proposal = propose(&work, &purse(6, u64::MAX), fee, Limits::default()).unwrap();
            assert_eq!(proposal.rows.len(), rows, "{more}");
            assert!(proposal.rows.iter().all(|row| row.units.get() <= most));
        }
    }

    #[test]
    fn a_fee_takes_what_the_operator_is_owed_along_and_stays_out_below_one_unit() {
        let unit = 1_000_000_000_000;
        let fee = Fee { bps: 100, operator: Some(9) };
        let propose_for = |due, carry| {
            let carries = BTreeMap::from([(9, Amount::new(carry))]);
            let purse = Purse { carries, ..purse(18, 1000) };
            propose(&[payable(1, 1, due)], &purse, fee, Limits::default()).unwrap()
        };
        let with_carry = propose_for(100 * unit, 5);
        assert_eq!(units(&with_carry), [(1, 100), (9, 1)]);
        assert_eq!(with_carry.leaves.len(), 3);
        assert_eq!(with_carry.rows[1].carry_out, Amount::new(5));
        assert_eq!(propose_for(100 * unit, 0).leaves.len(), 2, "there is nothing to take along");
        let small = propose_for(unit, 5);
        assert_eq!((units(&small), small.leaves.len()), (vec![(1, 1)], 1));
    }

    #[test]
    fn a_statement_whose_sum_is_taken_leaves_the_newest_work_out() {
        let work = [payable(1, 1, 60), payable(2, 2, 40)];
        for (taken, rows) in [
            (vec![], vec![(1, 60), (2, 40)]),
            (vec![160, 100], vec![(1, 60), (2, 40)]),
            (vec![200], vec![(1, 60)]),
            (vec![200, 160], vec![]),
        ] {
            let taken = taken.into_iter().map(Units::new).collect();
            let how = (NO_FEE, Limits::default());
            let spent = Units::new(100);
            let proposal = propose_apart(&work, &purse(6, 1000), how, (spent, &taken)).unwrap();
            assert_eq!(units(&proposal), rows, "{taken:?}");
        }
    }

    #[test]
    fn providers_that_net_below_one_unit_wait_with_all_their_leaves() {
        let work = [payable(1, 1, 100), payable(2, 1, -100), payable(3, 2, 7), payable(4, 3, -5)];
        let proposal = propose(&work, &purse(6, 1000), NO_FEE, Limits::default()).unwrap();
        assert_eq!(units(&proposal), [(2, 7)]);
        assert_eq!(proposal.leaves.len(), 1);
    }

    #[test]
    fn what_is_owed_back_nets_against_later_work() {
        let work = [payable(1, 1, -30), payable(2, 1, 100)];
        let proposal = propose(&work, &purse(6, 70), NO_FEE, Limits::default()).unwrap();
        assert_eq!(units(&proposal), [(1, 70)]);
    }

    #[test]
    fn a_remainder_is_carried_and_comes_back_as_a_leaf() {
        let unit = 1_000_000_000_000;
        let mut purse = purse(18, 1000);
        let first =
            propose(&[payable(1, 1, 2 * unit + 7)], &purse, NO_FEE, Limits::default()).unwrap();
        assert_eq!(units(&first), [(1, 2)]);
        assert_eq!(first.rows[0].carry_out, Amount::new(7));

        purse.carries.insert(1, first.rows[0].carry_out);
        let second =
            propose(&[payable(2, 1, unit - 7)], &purse, NO_FEE, Limits::default()).unwrap();
        assert_eq!(units(&second), [(1, 1)]);
        assert_eq!(
            (second.rows[0].carry_in, second.rows[0].carry_out),
            (Amount::new(7), Amount::ZERO)
        );
        assert_eq!(second.leaves[0], plain_leaf(CARRY, 1, Amount::new(7)).unwrap());
    }

    #[test]
    fn limits_bound_rows_and_leaves() {
        let work: Vec<_> = (1..=10).map(|n| payable(n, u32::try_from(n).unwrap(), 10)).collect();
        let few_rows = Limits { max_rows: 3, ..Limits::default() };
        let fee = Fee { bps: 1000, operator: Some(99) };
        assert_eq!(propose(&work, &purse(6, 1000), fee, few_rows).unwrap().rows.len(), 3);
        let few_leaves = Limits { max_leaves: 4, ..Limits::default() };
        assert_eq!(propose(&work, &purse(6, 1000), NO_FEE, few_leaves).unwrap().rows.len(), 4);
    }

    #[test]
    fn gas_bounds_a_statement_of_scattered_new_providers() {
        let work: Vec<_> =
            (1..=2000).map(|n| payable(n, u32::try_from(n).unwrap() * 4, 10)).collect();
        let proposal = propose(&work, &purse(6, 100_000), NO_FEE, Limits::default()).unwrap();
        assert!(
            proposal.rows.len() > 400
                && gas_bound(proposal.rows.len(), proposal.rows.len()) <= 12_000_000
        );
    }

    /// `count` payables of `due` each, by providers of which no two share a word of credits.
    fn scattered(from: i64, count: i64, due: i128) -> impl Iterator<Item = Payable> {
        (1..=count).map(move |n| payable(from + n, u32::try_from(n).unwrap() * 4, due))
    }

    #[test]
    fn work_behind_corrections_of_more_providers_than_fit_is_stated() {
        let work: Vec<_> = scattered(0, 600, -1).chain(scattered(600, 600, 100)).collect();
        let proposal = propose(&work, &purse(6, 100_000), NO_FEE, Limits::default()).unwrap();
        assert!(proposal.rows.len() > 500, "{} rows", proposal.rows.len());
        assert!(proposal.rows.iter().all(|row| row.units == Units::new(99)));
        assert_eq!(proposal.leaves.len(), 2 * proposal.rows.len());
        assert_eq!(excess(&proposal, Limits::default()), None);
    }

    #[test]
    fn work_behind_more_providers_that_owe_back_than_fit_is_stated() {
        let mut work: Vec<_> = scattered(0, 600, -1).collect();
        work.push(payable(601, 1, 100));
        let proposal = propose(&work, &purse(6, 100), NO_FEE, Limits::default()).unwrap();
        assert_eq!((units(&proposal), proposal.leaves.len()), (vec![(1, 100)], 1));
    }

    #[test]
    fn work_behind_more_leaves_below_one_unit_than_fit_is_stated() {
        let unit = 1_000_000_000_000;
        let fee = Fee { bps: 10_000, operator: Some(9) };
        let mut work: Vec<_> = (1..=9).map(|n| payable(n, 1, unit / 10)).collect();
        work.extend((10..=18).map(|n| payable(n, 2, unit / 10)));
        work.push(payable(19, 3, unit));
        let limits = Limits { max_leaves: 4, ..Limits::default() };
        let proposal = propose(&work, &purse(18, 2), fee, limits).unwrap();
        assert_eq!(units(&proposal), [(3, 1), (9, 1)], "the fee is that of what is stated");
    }

    #[test]
    fn leaves_below_one_unit_count_once_their_provider_has_a_row() {
        let work = [payable(1, 1, -1), payable(2, 1, -1), payable(3, 2, 5), payable(4, 1, 9)];
        for (max_leaves, rows) in [(3, vec![(2, 5)]), (4, vec![(1, 7), (2, 5)])] {
            let limits = Limits { max_leaves, ..Limits::default() };
            let proposal = propose(&work, &purse(6, 100), NO_FEE, limits).unwrap();
            assert_eq!(units(&proposal), rows);
            assert_eq!(excess(&proposal, limits), None);
        }
    }

    #[test]
    fn a_provider_that_falls_below_one_unit_makes_room() {
        let work = [payable(1, 4, 10), payable(2, 4, -10), payable(3, 8, 5)];
        let one = Limits { max_rows: 1, max_leaves: 2, max_gas: gas_bound(1, 2) };
        let proposal = propose(&work, &purse(6, 10), NO_FEE, one).unwrap();
        assert_eq!(units(&proposal), [(8, 5)]);
        let carries = BTreeMap::from([(4, Amount::new(9))]);
        let with_carry = Purse { carries, ..purse(7, 15) };
        let work = [payable(1, 4, 100), payable(2, 4, -99), payable(3, 8, 50)];
        let proposal = propose(&work, &with_carry, NO_FEE, one).unwrap();
        assert_eq!(units(&proposal), [(4, 1)], "its carry keeps it");
    }

    #[test]
    fn a_provider_with_more_leaves_below_one_unit_than_fit_holds_nobody_up() {
        let mut work: Vec<_> = (1..=5).map(|n| payable(n, 1, -1)).collect();
        work.extend([payable(6, 1, 100), payable(7, 2, 8)]);
        let limits = Limits { max_leaves: 5, ..Limits::default() };
        let proposal = propose(&work, &purse(6, 200), NO_FEE, limits).unwrap();
        assert_eq!(units(&proposal), [(2, 8)]);
    }

    #[test]
    fn the_operators_own_remainder_and_its_fee_cost_what_they_come_to_together() {
        let unit = 1_000_000_000_000;
        let fee = Fee { bps: 10_000, operator: Some(9) };
        let work = [payable(1, 1, unit), payable(2, 9, unit + unit / 2)];
        let proposal = propose(&work, &purse(18, 4), fee, Limits::default()).unwrap();
        assert_eq!(units(&proposal), [(1, 1), (9, 1)], "both would come to 1 + ⌊1.5 + 2.5⌋");
        let proposal = propose(&work, &purse(18, 5), fee, Limits::default()).unwrap();
        assert_eq!(units(&proposal), [(1, 1), (9, 4)]);
    }

    #[test]
    fn random_proposals_keep_their_limits_and_their_purse() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut stated = 0;
        for _ in 0..5_000 {
            let unit = Unit::of_decimals(rng.random_range(6..8)).unwrap();
            let carry = Amount::new(unit.amount(Units::new(1)).base_units() - 1);
            let carries =
                (0..rng.random_range(0..10)).map(|_| (rng.random_range(1..40), carry)).collect();
            let spendable = Units::new(rng.random_range(0..80));
            let is_thawing = rng.random();
            let purse = Purse { unit, spendable, carries, is_thawing };
            let work: Vec<_> = (0..rng.random_range(0..80))
                .map(|n| payable(n, rng.random_range(1..40), rng.random_range(-30..60)))
                .collect();
            let (max_rows, words) = (rng.random_range(0..12), rng.random_range(0..8));
            let max_gas = gas_bound(max_rows, words);
            let limits = Limits { max_rows, max_leaves: rng.random_range(0..25), max_gas };
            let fee = Fee { bps: rng.random_range(0..2_000), operator: Some(7) };
            let proposal = propose(&work, &purse, fee, limits).unwrap();
            assert_eq!(excess(&proposal, limits), None);
            assert!(proposal.total().unwrap() <= spendable);
            stated += usize::from(!proposal.rows.is_empty());
        }
        assert!(stated > 1_000, "{stated} proposals have rows");
    }

    #[test]
    fn four_providers_share_a_word_of_credits() {
        for (provider, word) in [(0, 0), (3, 0), (4, 1), (7, 1), (8, 2), (u32::MAX, u32::MAX / 4)] {
            assert_eq!(word_of(provider), word, "{provider}");
        }
    }

    #[test]
    fn a_statement_fills_the_gas_limit_exactly() {
        let work: Vec<_> = (1..=3).map(|n| payable(n, 3 + u32::try_from(n).unwrap(), 10)).collect();
        // One word that the three providers share, and one that the operator's row may touch.
        let exact = gas_bound(3, 2);
        for (max_gas, rows) in [(exact, 3), (exact - 1, 2)] {
            let limits = Limits { max_gas, ..Limits::default() };
            let proposal = propose(&work, &purse(6, 1000), NO_FEE, limits).unwrap();
            assert_eq!(proposal.rows.len(), rows);
        }
    }

    #[test]
    fn every_debit_lowers_what_is_available() {
        let one = Amount::new(1);
        let rich = Position { deposited: Amount::new(100), ..Default::default() };
        for poorer in [
            Position { withdrawn: one, ..rich },
            Position { thawing: one, ..rich },
            Position { settled: one, ..rich },
            Position { carried: one, ..rich },
            Position { reserved: one, ..rich },
        ] {
            assert_eq!(available(&poorer, 0).unwrap(), 99, "{poorer:?}");
        }
    }

    #[test]
    fn available_counts_the_fee_of_what_is_reserved() {
        let position = Position {
            deposited: Amount::new(101),
            reserved: Amount::new(100),
            ..Default::default()
        };
        assert_eq!(available(&position, 100).unwrap(), 0);
        assert_eq!(missing(&position, Amount::new(100), 100).unwrap(), Amount::new(101));
    }

    /// Accepted at revision 1 for 100, of provider 7; nothing paid, nothing live.
    fn item() -> OpenItem {
        OpenItem {
            item: 1,
            source: "source".into(),
            external_id: "id".into(),
            machine: "machine".into(),
            stopped_ms: 0,
            accepted: Some((1, Amount::new(100))),
            waits: false,
            settled: 0,
            paid_revision: None,
            live: Vec::new(),
            provider: Some(7),
            paid_provider: Some(8),
            verdict: None,
            has_equal_digests: false,
            is_cut_off: false,
        }
    }

    const HERE: (B256, u32) = (B256::ZERO, 3);

    fn naming((deposit, epoch): (B256, u32), largest: i128, settled: i128) -> Naming {
        Naming { deposit, epoch, largest, smallest: 0, settled }
    }

    fn held(verdict: Verdict) -> OpenItem {
        OpenItem { verdict: Some(verdict), ..item() }
    }

    #[test]
    fn what_is_due_is_a_difference_unless_it_was_let_go_or_paid_later() {
        let paid =
            |settled, revision| OpenItem { settled, paid_revision: Some(revision), ..item() };
        for (name, item, due) in [
            ("new", item(), 100),
            ("unfunded", OpenItem { accepted: None, ..item() }, 0),
            ("partly paid", paid(60, 0), 40),
            ("too much paid", paid(130, 0), -30),
            ("what was paid before it was dropped by a reorg", paid(60, 1), 40),
            ("paid by a revision that is not known", paid(60, 2), 0),
            ("held", held(Verdict::Hold), 100),
            ("let go", held(Verdict::Release), 0),
            ("let go, too much paid", OpenItem { settled: 130, ..held(Verdict::Release) }, -30),
            ("cut off", OpenItem { is_cut_off: true, ..item() }, 0),
        ] {
            assert_eq!(item.due().unwrap(), due, "{name}");
        }
        let most = OpenItem { settled: i128::MIN, ..item() };
        assert!(most.due().is_err());
    }

    #[test]
    fn work_is_payable_if_something_is_due_and_no_other_statement_could_pay_it() {
        let live = |place| OpenItem { live: vec![naming(place, 100, 0)], ..item() };
        let elsewhere = B256::repeat_byte(1);
        let whole = Some((7, 1, 100));
        for (name, item, payable) in [
            ("new", item(), whole),
            ("live in another candidate of the epoch", live(HERE), whole),
            ("live in another deposit", live((elsewhere, HERE.1)), None),
            ("live in another epoch", live((HERE.0, HERE.1 + 1)), None),
            ("held", held(Verdict::Hold), None),
            ("disputed", held(Verdict::Dispute), None),
            (
                "held, too much paid",
                OpenItem { settled: 130, ..held(Verdict::Hold) },
                Some((8, 1, -30)),
            ),
            ("to be paid whatever was said", held(Verdict::Pay), whole),
            ("paid", OpenItem { settled: 100, ..item() }, None),
            ("paid too much", OpenItem { settled: 130, ..item() }, Some((8, 1, -30))),
            ("without a provider", OpenItem { provider: None, ..item() }, None),
            ("unfunded", OpenItem { accepted: None, ..item() }, None),
        ] {
            assert_eq!(item.payable(HERE).unwrap(), payable, "{name}");
        }
        let secret = Secret::new(B256::ZERO);
        let payable = item().to_payable(&secret, HERE).unwrap().unwrap();
        assert_eq!(payable.workload, secret.workload_id("source", "id", 1));
        assert_eq!((payable.provider, payable.due), (7, 100));
        let paid = OpenItem { settled: 100, ..item() };
        assert_eq!(paid.payee().unwrap(), Some(7), "nothing is owed back");
    }

    #[test]
    fn the_larger_of_what_is_due_and_what_can_still_be_taken_stays_reserved() {
        let named = |settled, live| OpenItem { settled, live, ..item() };
        for (name, item, reserved) in [
            ("new", named(0, vec![]), 100),
            ("owed back", named(130, vec![]), 0),
            ("named for more before", named(0, vec![naming(HERE, 150, 0)]), 150),
            ("named for less", named(0, vec![naming(HERE, 60, 0)]), 100),
            ("settled, not finally", named(100, vec![naming(HERE, 100, 100)]), 0),
            ("a smaller candidate settled", named(60, vec![naming(HERE, 100, 60)]), 40),
            ("a candidate takes back", named(130, vec![naming(HERE, 0, -30)]), 30),
        ] {
            assert_eq!(item.reserved().unwrap(), Amount::new(reserved), "{name}");
        }
    }

    #[test]
    fn the_least_that_will_have_settled_is_what_is_left_by_what_takes_back() {
        let back = |smallest, settled| Naming { smallest, ..naming(HERE, 0, settled) };
        for (name, live, least) in [
            ("nothing is live", vec![], 100),
            ("a candidate pays", vec![naming(HERE, 50, 0)], 100),
            ("it has settled, not finally", vec![naming(HERE, 50, 50)], 100),
            ("a candidate takes back", vec![back(-60, 0)], 40),
            ("it has settled, not finally", vec![back(-60, -60)], 100),
            ("one that takes less has", vec![back(-60, -30)], 70),
            ("one that pays has", vec![back(-60, 50)], -10),
            ("in two places", vec![back(-60, 0), back(-20, 0)], 20),
        ] {
            let item = OpenItem { settled: 100, live, ..item() };
            assert_eq!(item.least_settled().unwrap(), least, "{name}");
        }
        let most = OpenItem { settled: i128::MIN, live: vec![back(-1, 0)], ..item() };
        assert!(most.least_settled().is_err());
    }

    #[test]
    fn held_work_is_decided_before_its_money_leaves() {
        let equal = |verdict| OpenItem { has_equal_digests: true, ..held(verdict) };
        for (name, item, verdict) in [
            ("held", held(Verdict::Hold), Some(Verdict::Release)),
            ("held, both reported the same", equal(Verdict::Hold), Some(Verdict::Pay)),
            ("disputed, both reported the same", equal(Verdict::Dispute), Some(Verdict::Pay)),
            ("not held", item(), None),
            ("nothing due", OpenItem { settled: 100, ..held(Verdict::Hold) }, None),
            ("owed back", OpenItem { settled: 130, ..held(Verdict::Hold) }, None),
            ("live", OpenItem { live: vec![naming(HERE, 1, 0)], ..held(Verdict::Hold) }, None),
        ] {
            assert_eq!(verdict_at_thaw(&item).unwrap(), verdict, "{name}");
        }
    }

    #[test]
    fn verdicts_are_found_by_their_names() {
        for verdict in [Verdict::Hold, Verdict::Release, Verdict::Dispute, Verdict::Pay] {
            assert_eq!(Verdict::from_name(verdict.name()), Some(verdict));
        }
        assert_eq!(Verdict::from_name(""), None);
    }

    #[test]
    fn a_deposit_follows_the_contracts_arithmetic() {
        let u = Units::new;
        let events = [
            DepositEvent::Funded(u(100), true),
            DepositEvent::Funded(u(50), false),
            DepositEvent::Settled(1, u(30)),
            DepositEvent::Thawed(u(110), 77),
            DepositEvent::Settled(2, u(60)),
        ];
        let after = |count: usize| {
            events[..count]
                .iter()
                .try_fold(DepositState::default(), |state, event| state.after(*event))
        };
        let state = after(5).unwrap();
        let expected = DepositState {
            balance: u(90),
            thawing: u(90),
            spent: u(60),
            epoch: 2,
            thaw_ends: 77,
            deposited: Turnover::new(150),
            deposited_final: Turnover::new(100),
            withdrawn: Turnover::default(),
        };
        assert_eq!(state, expected);
        assert!(state.is_thawing() && !after(3).unwrap().is_thawing());
        assert_eq!(state.spendable(), u(40), "what is not final cannot be spent");

        let state = state.after(DepositEvent::Withdrawn(u(90))).unwrap();
        let (thawing, thaw_ends) = (Units::ZERO, 0);
        let (balance, withdrawn) = (Units::ZERO, Turnover::new(90));
        assert_eq!(state, DepositState { balance, withdrawn, thawing, thaw_ends, ..expected });
        assert_eq!(state.spendable(), Units::ZERO);
        assert!(state.after(DepositEvent::Withdrawn(u(1))).is_err());
        assert!(state.after(DepositEvent::Settled(3, u(59))).is_err(), "what is spent only grows");
    }

    /// A candidate of `total` units on a deposit that has spent 100.
    fn candidate(total: u64) -> Candidate {
        Candidate {
            spent: Units::new(100 + total),
            total: Units::new(total),
            is_signed: true,
            is_sent: false,
            has_waited: true,
            pays_again: false,
        }
    }

    fn prospect(balance: u64, thawing: u64, fresh: u64) -> Prospect {
        let (balance, thawing) = (Units::new(balance), Units::new(thawing));
        let state = DepositState { balance, thawing, spent: Units::new(100), ..Default::default() };
        Prospect { state, fresh: Units::new(fresh), can_move: true }
    }

    #[test]
    fn a_candidate_fits_if_it_follows_what_was_spent_and_there_is_enough() {
        let fits = |candidate: Candidate| candidate.fits(&prospect(40, 0, 0).state);
        assert!(fits(candidate(40)));
        assert!(!fits(candidate(41)));
        assert!(!fits(Candidate { spent: Units::new(139), ..candidate(40) }));
        assert!(!fits(Candidate { spent: Units::new(39), ..candidate(40) }));
        assert!(!fits(Candidate { pays_again: true, ..candidate(40) }));
    }

    #[test]
    fn another_candidate_is_made_when_it_is_worth_it() {
        use Next::{Nothing, Retire, State};
        let whole = candidate(100);
        for (name, candidates, prospect, next) in [
            ("the first", vec![], prospect(500, 0, 10), State),
            ("no work", vec![], prospect(500, 0, 0), Nothing),
            ("less than a quarter more", vec![whole], prospect(500, 0, 124), Nothing),
            ("a quarter more", vec![whole], prospect(500, 0, 125), State),
            ("no more before a thaw ends", vec![whole], prospect(500, 1, 100), Nothing),
            ("anything more before a thaw ends", vec![whole], prospect(500, 1, 101), State),
            ("no more than little", vec![candidate(3)], prospect(500, 0, 3), Nothing),
            ("more than little", vec![candidate(3)], prospect(500, 0, 4), State),
            ("the largest counts", vec![whole, candidate(40)], prospect(500, 0, 60), Nothing),
            (
                "one that waits for a signature",
                vec![Candidate { is_signed: false, ..whole }],
                prospect(500, 1, 400),
                Nothing,
            ),
            (
                "one on its way",
                vec![Candidate { is_sent: true, ..whole }],
                prospect(500, 1, 400),
                Nothing,
            ),
            (
                "one that had no chance to go yet",
                vec![Candidate { has_waited: false, ..whole }],
                prospect(500, 0, 400),
                Nothing,
            ),
            (
                "the same before a thaw ends",
                vec![Candidate { has_waited: false, ..whole }],
                prospect(500, 1, 400),
                State,
            ),
            ("a smaller one in place of what fails", vec![whole], prospect(50, 0, 5), State),
            ("none in place of what fails", vec![whole], prospect(50, 0, 0), Retire),
            (
                "work that cannot move",
                vec![whole],
                Prospect { can_move: false, ..prospect(50, 0, 0) },
                Nothing,
            ),
        ] {
            assert_eq!(next_candidate(&candidates, &prospect), next, "{name}");
        }
    }

    #[test]
    fn what_exceeds_a_limit_is_named() {
        let work: Vec<_> = (1..=3).map(|n| payable(n, u32::try_from(n).unwrap() * 4, 10)).collect();
        let proposal = propose(&work, &purse(6, 1000), NO_FEE, Limits::default()).unwrap();
        let gas = gas_bound(3, 3);
        assert_eq!(gas, 60_000 + 3 * 22_500 + 3 * 600);
        let exact = Limits { max_rows: 3, max_leaves: 3, max_gas: gas };
        assert_eq!(excess(&proposal, exact), None);
        for (limits, told) in [
            (Limits { max_rows: 2, ..exact }, "3 rows exceed 2"),
            (Limits { max_leaves: 2, ..exact }, "3 workloads exceed 2"),
            (Limits { max_gas: gas - 1, ..exact }, "129300 gas exceeds 129299"),
        ] {
            assert_eq!(excess(&proposal, limits).as_deref(), Some(told));
        }
    }
}
