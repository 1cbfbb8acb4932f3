//! The judge: knows every record that was ever sent in and every manifest that was ever published, follows the canonical
//! chain by its own arithmetic, and says at once when somebody was paid what is not due.

use std::{collections::BTreeMap, fs, sync::Arc};

use alloy::{
    primitives::{Address, B256, U256, keccak256},
    sol_types::{SolEventInterface, SolValue},
};
use contracts::{Settlement::SettlementEvents, eip712::DepositKey};
use revm::DatabaseRef;
use serde_json::Value;

use crate::{
    chain::{Block, Chain},
    setting::{DECIMALS, RATE_MILLIS, Setting},
    trace::Trace,
    witness::Witness,
};

/// Source and external id.
pub(crate) type WorkKey = (String, String);

/// What is owed for a piece of work, by revision, in base units.
#[derive(Debug, Clone, Default)]
pub(crate) struct Owed {
    pub(crate) amounts: BTreeMap<u32, u128>,
}

/// A leaf of a published manifest.
#[derive(Debug, Clone)]
struct Leaf {
    workload: B256,
    provider: u32,
    amount: i128,
    work: Option<(WorkKey, u32)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Deposit {
    token: Address,
    balance: u64,
    spent: u64,
    epoch: u32,
}

/// What was paid for a piece of work: Σ of its leaves, and to whom the last one was.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Paid {
    pub(crate) sum: i128,
    pub(crate) provider: u32,
}

/// The accounts of the contract after one block, kept by the events alone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Books {
    deposits: BTreeMap<B256, Deposit>,
    credits: BTreeMap<(Address, u32), u64>,
    carries: BTreeMap<(B256, u32), i128>,
    pub(crate) paid: BTreeMap<WorkKey, Paid>,
    /// Units by token: deposited, withdrawn, claimed.
    flows: BTreeMap<Address, [u64; 3]>,
    /// Address under which each provider was registered, from number 1.
    pub(crate) providers: Vec<Address>,
    pub(crate) statements: u64,
    pub(crate) payouts: u64,
    pub(crate) claims: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Judge {
    pub(crate) owed: BTreeMap<WorkKey, Owed>,
    fee_bps: u128,
    /// Manifests by root.
    manifests: BTreeMap<B256, Vec<Leaf>>,
    /// Accounts after each block that has events, and that block.
    history: Vec<(u64, B256, Arc<Books>)>,
    /// Last block that was judged.
    judged: Option<(u64, B256)>,
}

/// Base units of an amount in millionths of a USD, rounded down.
pub(crate) fn base_units(micro_usd: u64, token: usize) -> u128 {
    let scale = U256::from(10).pow(U256::from(DECIMALS[token]));
    let value = U256::from(micro_usd) * scale * U256::from(1000);
    (value / (U256::from(RATE_MILLIS[token]) * U256::from(1_000_000))).to()
}

/// Base units of one unit of a token.
pub(crate) fn unit(token: Address) -> u128 {
    let setting = Setting::get();
    let index = usize::from(setting.tokens[1] == token);
    10_u128.pow(u32::from(DECIMALS[index]).saturating_sub(6))
}

impl Judge {
    pub(crate) fn new(fee_bps: u16) -> Self {
        Self { fee_bps: fee_bps.into(), ..Self::default() }
    }

    /// Accounts at the newest judged block.
    pub(crate) fn books(&self) -> Arc<Books> {
        self.history.last().map(|(_, _, books)| books.clone()).unwrap_or_default()
    }

    /// Accounts as of a block number.
    pub(crate) fn books_at(&self, number: u64) -> Arc<Books> {
        let found = self.history.iter().rev().find(|(at, _, _)| *at <= number);
        found.map(|(_, _, books)| books.clone()).unwrap_or_default()
    }

    /// Judges what became canonical since it was last asked.
    pub(crate) fn review(&mut self, chain: &Chain, witness: &Witness, trace: &mut Trace) {
        let is_canonical = |number: u64, hash: B256| {
            usize::try_from(number)
                .ok()
                .and_then(|index| chain.blocks.get(index))
                .is_some_and(|block| block.hash == hash)
        };
        let mut from = 0;
        if let Some((number, hash)) = self.judged {
            if is_canonical(number, hash) {
                from = number + 1;
            } else {
                while let Some((number, hash, _)) = self.history.last() {
                    if is_canonical(*number, *hash) {
                        from = number + 1;
                        break;
                    }
                    self.history.pop();
                }
            }
        }
        let start = usize::try_from(from).expect("a number of a block");
        for block in &chain.blocks[start.min(chain.blocks.len())..] {
            if block.logs().any(|log| log.address() == Setting::get().settlement)
                && let Err(problem) = self.judge(block, witness)
            {
                trace.fail(format!("block {}: {problem}", block.number()));
            }
        }
        self.judged = Some((chain.height(), chain.head().hash));
    }

    fn judge(&mut self, block: &Block, witness: &Witness) -> Result<(), String> {
        let mut books = (*self.books()).clone();
        let settlement = Setting::get().settlement;
        for log in block.logs().filter(|log| log.address() == settlement) {
            let event =
                SettlementEvents::decode_log(&log.inner).map_err(|error| error.to_string())?;
            self.enter(&mut books, event.data, witness)?;
        }
        books.check_solvency(block)?;
        self.history.push((block.number(), block.hash, Arc::new(books)));
        Ok(())
    }

    fn enter(
        &mut self,
        books: &mut Books,
        event: SettlementEvents,
        witness: &Witness,
    ) -> Result<(), String> {
        match event {
            SettlementEvents::Deposited(event) => {
                let key: DepositKey = event.key.into();
                let deposit = books.deposits.entry(key.id()).or_default();
                deposit.token = key.token;
                deposit.balance += event.units;
                books.flows.entry(key.token).or_default()[0] += event.units;
            }
            SettlementEvents::Withdrawn(event) => {
                let deposit =
                    books.deposits.get_mut(&event.id).ok_or("a withdrawal from nowhere")?;
                deposit.balance =
                    deposit.balance.checked_sub(event.units).ok_or("more went out than was in")?;
                books.flows.entry(deposit.token).or_default()[1] += event.units;
            }
            SettlementEvents::Claimed(event) => {
                let credit = books.credits.entry((event.token, event.provider)).or_default();
                *credit = credit.checked_sub(event.units).ok_or("a claim above the credit")?;
                books.flows.entry(event.token).or_default()[2] += event.units;
                books.claims += 1;
            }
            SettlementEvents::Registered(event) => books.providers.push(event.payout),
            SettlementEvents::Settled(event) => {
                self.settle(
                    books,
                    (event.id, event.epoch, event.spent),
                    event.manifest,
                    &event.rows,
                    witness,
                )?;
            }
            _ => {}
        }
        Ok(())
    }

    fn settle(
        &mut self,
        books: &mut Books,
        (id, epoch, spent): (B256, u32, u64),
        root: B256,
        rows: &[u8],
        witness: &Witness,
    ) -> Result<(), String> {
        let rows = contracts::rows::decode(rows).map_err(|error| error.to_string())?;
        let deposit = books.deposits.get_mut(&id).ok_or("a statement of no deposit")?;
        let total: u64 = rows.iter().map(|(_, units)| units).sum();
        if epoch != deposit.epoch + 1 || spent != deposit.spent + total {
            return Err(format!("epoch {epoch} of {id} does not follow {}", deposit.epoch));
        }
        deposit.balance =
            deposit.balance.checked_sub(total).ok_or("a statement above the balance")?;
        (deposit.epoch, deposit.spent) = (epoch, spent);
        let token = deposit.token;
        for (provider, units) in &rows {
            *books.credits.entry((token, *provider)).or_default() += units;
        }
        books.statements += 1;
        books.payouts += rows.len() as u64;

        let leaves = self.manifest(root, (id, epoch), witness)?.clone();
        let mut sums: BTreeMap<u32, i128> = BTreeMap::new();
        let (mut work, mut fee) = (0_i128, 0_i128);
        for leaf in &leaves {
            *sums.entry(leaf.provider).or_default() += leaf.amount;
            match &leaf.work {
                Some(paid) => {
                    work += leaf.amount;
                    self.pay(books, leaf, paid)?;
                }
                None if leaf.workload == B256::ZERO => {
                    let carry = books.carries.remove(&(id, leaf.provider)).unwrap_or_default();
                    if carry != leaf.amount {
                        return Err(format!("carry {} came in, {carry} was left", leaf.amount));
                    }
                }
                None => fee += leaf.amount,
            }
        }
        if let Some(provider) =
            sums.keys().find(|provider| books.carries.contains_key(&(id, **provider)))
        {
            return Err(format!("the carry of provider {provider} did not come back"));
        }
        let due = work.max(0).unsigned_abs() * self.fee_bps / 10_000;
        if fee != 0 && fee.unsigned_abs() != due {
            return Err(format!("a fee of {fee} was taken, {due} is due"));
        }
        let unit = unit(token);
        let expected: Vec<(u32, u64)> = sums
            .iter()
            .map(|(provider, sum)| {
                (*provider, u64::try_from(sum.max(&0).unsigned_abs() / unit).unwrap_or(u64::MAX))
            })
            .collect();
        if expected != rows {
            return Err(format!("rows {rows:?} do not follow from the leaves, {expected:?} do"));
        }
        for (provider, sum) in sums {
            let carry = i128::try_from(sum.unsigned_abs() % unit).expect("a remainder");
            if carry > 0 {
                books.carries.insert((id, provider), carry);
            } else {
                books.carries.remove(&(id, provider));
            }
        }
        Ok(())
    }

    /// A leaf pays the difference between what its revision is worth and what was paid before, to the unit.
    fn pay(
        &self,
        books: &mut Books,
        leaf: &Leaf,
        (key, revision): &(WorkKey, u32),
    ) -> Result<(), String> {
        let owed =
            self.owed.get(key).ok_or_else(|| format!("{key:?} was paid and never sent in"))?;
        let worth = owed.amounts.get(revision).copied();
        let worth =
            worth.ok_or_else(|| format!("revision {revision} of {key:?} was never sent in"))?;
        let before = books.paid.get(key).copied().unwrap_or_default();
        let sum = before.sum + leaf.amount;
        if sum != i128::try_from(worth).expect("an amount") {
            return Err(format!(
                "DOUBLED OR LOST: {key:?} revision {revision} is worth {worth}; {before:?} was paid, now {} more",
                leaf.amount
            ));
        }
        books.paid.insert(key.clone(), Paid { sum, provider: leaf.provider });
        Ok(())
    }

    fn manifest(
        &mut self,
        root: B256,
        (id, epoch): (B256, u32),
        witness: &Witness,
    ) -> Result<&Vec<Leaf>, String> {
        if !self.manifests.contains_key(&root) {
            let prefix = format!("{id}-{epoch}-");
            let entries = fs::read_dir(witness.manifests()).map_err(|error| error.to_string())?;
            for entry in entries.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.starts_with(&prefix) && name.ends_with(".json") {
                    let bytes = fs::read(entry.path()).map_err(|error| error.to_string())?;
                    let (found, leaves) = parse(&bytes)?;
                    self.manifests.insert(found, leaves);
                }
            }
        }
        self.manifests
            .get(&root)
            .ok_or_else(|| format!("epoch {epoch} of {id} settled and its manifest is nowhere"))
    }
}

/// Root and leaves of a published manifest.
fn parse(bytes: &[u8]) -> Result<(B256, Vec<Leaf>), String> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let root = serde_json::from_value(value["root"].clone()).map_err(|error| error.to_string())?;
    let mut leaves = Vec::new();
    for leaf in value["leaves"].as_array().ok_or("a manifest without leaves")? {
        let text = |name: &str| leaf[name].as_str().map(str::to_owned);
        let work = match (text("source"), text("external_id"), leaf["revision"].as_u64()) {
            (Some(source), Some(id), Some(revision)) => {
                Some(((source, id), u32::try_from(revision).map_err(|error| error.to_string())?))
            }
            _ => None,
        };
        leaves.push(Leaf {
            workload: serde_json::from_value(leaf["workload"].clone())
                .map_err(|error| error.to_string())?,
            provider: serde_json::from_value(leaf["provider"].clone())
                .map_err(|error| error.to_string())?,
            amount: text("amount").and_then(|amount| amount.parse().ok()).ok_or("an amount")?,
            work,
        });
    }
    Ok((root, leaves))
}

impl Books {
    /// What went in, out and to wallets of a token, and what deposits and credits hold, base units.
    pub(crate) fn totals(&self, token: Address) -> [u128; 5] {
        let [deposited, withdrawn, claimed] = self.flows.get(&token).copied().unwrap_or_default();
        let (balances, credits) = self.held(token);
        [deposited, withdrawn, claimed, balances, credits]
            .map(|units| u128::from(units) * unit(token))
    }

    /// Units that a deposit holds.
    pub(crate) fn balance(&self, deposit: B256) -> u64 {
        self.deposits.get(&deposit).map_or(0, |deposit| deposit.balance)
    }

    /// Units of a token in deposits and in credits.
    fn held(&self, token: Address) -> (u64, u64) {
        let deposits = self.deposits.values().filter(|deposit| deposit.token == token);
        let credits = self.credits.iter().filter(|((of, _), _)| *of == token);
        (deposits.map(|deposit| deposit.balance).sum(), credits.map(|(_, units)| units).sum())
    }

    /// What the contract holds is what it owes, and what came in went out or is there still: to the base unit.
    fn check_solvency(&self, block: &Block) -> Result<(), String> {
        let setting = Setting::get();
        for token in setting.tokens {
            let (balances, credits) = self.held(token);
            let [deposited, withdrawn, claimed] =
                self.flows.get(&token).copied().unwrap_or_default();
            if deposited != withdrawn + claimed + balances + credits {
                return Err(format!(
                    "{deposited} came in, {withdrawn} + {claimed} went out, {balances} + {credits} remain"
                ));
            }
            let slot = keccak256((setting.settlement, U256::ZERO).abi_encode());
            let held = block.state.storage_ref(token, slot.into()).expect("memory answers");
            let owed = U256::from(balances + credits) * U256::from(unit(token));
            if held != owed {
                return Err(format!("the contract holds {held} of {token} and owes {owed}"));
            }
        }
        Ok(())
    }
}
