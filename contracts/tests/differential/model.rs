//! The contract as its interfaces describe it, with unpacked state and wide numbers.
//!
//! It shares no code with the contract and none of its tricks. What it takes from the bindings is under test as well:
//! EIP-712 digests, the journal and the form of rows.

use std::collections::BTreeMap;

use alloy::{
    primitives::{Address, B256, Bytes, Log, LogData, Signature, U256, keccak256},
    sol_types::{Eip712Domain, SolError, SolEvent, SolStruct, SolValue},
};
use contracts::{
    Settlement::{self, SettlementCalls, SettlementEvents},
    TestToken, eip712,
    journal::Journal,
    rows,
};

use crate::chain::Answer;

/// `ISettlement.Outcome`.
pub(crate) const SETTLED: u8 = 0;
const WRONG_EPOCH: u8 = 1;
const MALFORMED_ROWS: u8 = 2;
const UNKNOWN_PROVIDER: u8 = 3;
const INSUFFICIENT_BALANCE: u8 = 4;
const BAD_SIGNATURE: u8 = 5;
const BAD_COSIGNATURE: u8 = 6;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Deposit {
    pub(crate) balance: u128,
    pub(crate) thawing: u128,
    pub(crate) spent: u128,
    pub(crate) epoch: u64,
    pub(crate) thaw_ends: u64,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Token {
    pub(crate) decimals: u32,
    pub(crate) unit: Option<u64>,
    pub(crate) balances: BTreeMap<Address, U256>,
    /// What the settlement contract may take from whom; an allowance without bound is never used up.
    pub(crate) allowances: BTreeMap<Address, U256>,
}

#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) chain_id: u64,
    pub(crate) settlement: Address,
    pub(crate) thaw_period: u32,
    pub(crate) now: u64,
    pub(crate) tokens: BTreeMap<Address, Token>,
    pub(crate) deposits: BTreeMap<B256, Deposit>,
    pub(crate) provider_count: u64,
    /// Payout address and claim nonce.
    pub(crate) providers: BTreeMap<u32, (Address, u64)>,
    pub(crate) credits: BTreeMap<(Address, u32), u128>,
    /// Contracts that answer ERC-1271, and whether their answer is yes.
    pub(crate) wallets: BTreeMap<Address, bool>,
    pub(crate) journal: Journal,
    logs: Vec<Log>,
}

type Outcome<T> = Result<T, Vec<u8>>;

fn require<E: SolError>(condition: bool, error: E) -> Outcome<()> {
    if condition { Ok(()) } else { Err(error.abi_encode()) }
}

impl Model {
    pub(crate) fn new(chain_id: u64, settlement: Address, thaw_period: u32, now: u64) -> Self {
        Self {
            chain_id,
            settlement,
            thaw_period,
            now,
            tokens: BTreeMap::new(),
            deposits: BTreeMap::new(),
            provider_count: 0,
            providers: BTreeMap::new(),
            credits: BTreeMap::new(),
            wallets: BTreeMap::new(),
            journal: Journal::default(),
            logs: Vec::new(),
        }
    }

    /// What the contract must answer. A call that reverts changes nothing.
    pub(crate) fn call(&mut self, from: Address, call: &SettlementCalls) -> Answer {
        let before = self.clone();
        match self.dispatch(from, call) {
            Ok(output) => {
                let logs = std::mem::take(&mut self.logs);
                for log in logs.iter().filter(|log| log.address == self.settlement) {
                    self.journal = self.journal.fold(&log.data);
                }
                Answer::Returned(output.into(), logs)
            }
            Err(error) => {
                *self = before;
                Answer::Reverted(error.into())
            }
        }
    }

    pub(crate) fn domain(&self) -> Eip712Domain {
        eip712::domain(self.chain_id, self.settlement)
    }

    pub(crate) fn deposit_of(&self, id: B256) -> Deposit {
        self.deposits.get(&id).copied().unwrap_or_default()
    }

    pub(crate) fn credit_of(&self, token: Address, provider: u32) -> u128 {
        self.credits.get(&(token, provider)).copied().unwrap_or_default()
    }

    pub(crate) fn payout_of(&self, provider: u32) -> (Address, u64) {
        self.providers.get(&provider).copied().unwrap_or_default()
    }

    fn dispatch(&mut self, from: Address, call: &SettlementCalls) -> Outcome<Vec<u8>> {
        match call {
            SettlementCalls::registerToken(c) => self.register_token(c.token),
            SettlementCalls::deposit(c) => self.deposit(from, &c.key, c.units),
            SettlementCalls::thaw(c) => self.thaw(from, &c.key, c.units),
            SettlementCalls::withdraw(c) => self.withdraw(from, &c.key, c.to),
            SettlementCalls::register(c) => self.register(&c.payouts),
            SettlementCalls::claim(c) => self.claim(c.token, &c.providers),
            SettlementCalls::claimTo(c) => self.claim_to(from, c),
            SettlementCalls::setPayout(c) => self.set_payout(from, c),
            SettlementCalls::settle(c) => self.settle(&c.statements),
            view => panic!("not a call that changes state: {view:?}"),
        }
    }

    fn register_token(&mut self, token: Address) -> Outcome<Vec<u8>> {
        let registered = self.tokens.get(&token).is_some_and(|entry| entry.unit.is_some());
        require(!registered, Settlement::TokenAlreadyRegistered { token })?;
        let Some(entry) = self.tokens.get_mut(&token) else {
            return Err(Settlement::NotAToken { token }.abi_encode());
        };
        let decimals = u8::try_from(entry.decimals).expect("a token's decimals");
        require(decimals <= 24, Settlement::TooManyDecimals { token, decimals })?;
        let unit = 10_u64.pow(entry.decimals.saturating_sub(6));
        entry.unit = Some(unit);
        self.emit(Settlement::TokenRegistered { token, decimals, unit });
        Ok(Vec::new())
    }

    fn deposit(
        &mut self,
        from: Address,
        key: &Settlement::DepositKey,
        units: u64,
    ) -> Outcome<Vec<u8>> {
        let complete = !key.requestor.is_zero() && !key.signer.is_zero();
        require(complete, Settlement::IncompleteKey {})?;
        require(units != 0, Settlement::ZeroUnits {})?;
        let unit = self.unit(key.token)?;
        let id = id(key);
        let mut state = self.deposit_of(id);
        let room = u128::from(u64::MAX) - (state.balance + state.spent);
        let too_large =
            Settlement::DepositTooLarge { units: U256::from(units), room: U256::from(room) };
        require(u128::from(units) <= room, too_large)?;
        state.balance += u128::from(units);
        self.deposits.insert(id, state);
        self.emit(Settlement::Deposited { id, key: key.clone(), from, units });
        self.pull(key.token, from, U256::from(units) * unit)?;
        Ok(Vec::new())
    }

    fn thaw(
        &mut self,
        from: Address,
        key: &Settlement::DepositKey,
        units: u64,
    ) -> Outcome<Vec<u8>> {
        self.require_requestor(from, key)?;
        let id = id(key);
        let mut state = self.deposit_of(id);
        let exceeds = Settlement::ThawExceedsBalance {
            units,
            balance: u64::try_from(state.balance).unwrap(),
        };
        require(u128::from(units) <= state.balance, exceeds)?;
        state.thawing = u128::from(units);
        let end = (self.now + u64::from(self.thaw_period)).min(u64::from(u32::MAX));
        state.thaw_ends = if units == 0 { 0 } else { end };
        self.deposits.insert(id, state);
        self.emit(Settlement::Thawed { id, units, ends: u32::try_from(state.thaw_ends).unwrap() });
        Ok(Vec::new())
    }

    fn withdraw(
        &mut self,
        from: Address,
        key: &Settlement::DepositKey,
        to: Address,
    ) -> Outcome<Vec<u8>> {
        self.require_requestor(from, key)?;
        self.require_destination(to)?;
        let id = id(key);
        let mut state = self.deposit_of(id);
        require(state.thawing != 0, Settlement::NothingThawing {})?;
        let ends = u32::try_from(state.thaw_ends).unwrap();
        require(self.now >= state.thaw_ends, Settlement::StillThawing { ends })?;
        let units = state.thawing;
        state.balance -= units;
        state.thawing = 0;
        state.thaw_ends = 0;
        self.deposits.insert(id, state);
        self.emit(Settlement::Withdrawn { id, to, units: u64::try_from(units).unwrap() });
        let unit = self.unit(key.token)?;
        self.pay(key.token, to, U256::from(units) * unit)?;
        Ok(Vec::new())
    }

    fn register(&mut self, payouts: &[Address]) -> Outcome<Vec<u8>> {
        let room = u64::from(u32::MAX) - self.provider_count;
        let fits = u64::try_from(payouts.len()).unwrap() <= room;
        require(fits, Settlement::TooManyProviders {})?;
        // With all numbers taken the first free one would be 2^32, of which 32 bits remain.
        let first = U256::from((self.provider_count + 1) & u64::from(u32::MAX));
        for &payout in payouts {
            self.require_destination(payout)?;
            self.provider_count += 1;
            let provider = u32::try_from(self.provider_count).unwrap();
            self.providers.insert(provider, (payout, self.payout_of(provider).1));
            self.emit(Settlement::Registered { provider, payout });
        }
        Ok(first.abi_encode())
    }

    fn claim(&mut self, token: Address, providers: &[u32]) -> Outcome<Vec<u8>> {
        let unit = self.unit(token)?;
        let mut paid = Vec::new();
        for &provider in providers {
            let units = u64::try_from(self.credit_of(token, provider)).unwrap();
            let (payout, nonce) = self.payout_of(provider);
            if units == 0 || payout.is_zero() {
                paid.push(0);
            } else if self.pay(token, payout, U256::from(units) * unit).is_ok() {
                self.credits.insert((token, provider), 0);
                self.emit(Settlement::Claimed {
                    provider,
                    token,
                    to: payout,
                    units,
                    claimNonce: nonce,
                });
                paid.push(units);
            } else {
                self.emit(Settlement::ClaimFailed { provider, token, units });
                paid.push(0);
            }
        }
        Ok(paid.abi_encode())
    }

    fn claim_to(&mut self, from: Address, call: &Settlement::claimToCall) -> Outcome<Vec<u8>> {
        let Settlement::claimToCall { provider, token, to, deadline, signature } = call;
        let (provider, token, to) = (*provider, *token, *to);
        self.require_destination(to)?;
        let unit = self.unit(token)?;
        let (_, nonce) = self.payout_of(provider);
        let message = eip712::ClaimTo { provider, token, to, nonce, deadline: *deadline };
        let digest = message.eip712_signing_hash(&self.domain());
        self.authorize(from, provider, digest, *deadline, signature)?;
        let units = u64::try_from(self.credit_of(token, provider)).unwrap();
        require(units != 0, Settlement::NothingToClaim { provider, token })?;
        self.credits.insert((token, provider), 0);
        self.providers.get_mut(&provider).expect("an authorised provider").1 += 1;
        self.emit(Settlement::Claimed { provider, token, to, units, claimNonce: nonce + 1 });
        self.pay(token, to, U256::from(units) * unit)?;
        Ok(U256::from(units).abi_encode())
    }

    fn set_payout(&mut self, from: Address, call: &Settlement::setPayoutCall) -> Outcome<Vec<u8>> {
        let Settlement::setPayoutCall { provider, payout, deadline, signature } = call;
        let (provider, payout) = (*provider, *payout);
        self.require_destination(payout)?;
        let (_, nonce) = self.payout_of(provider);
        let message = eip712::SetPayout { provider, payout, nonce, deadline: *deadline };
        let digest = message.eip712_signing_hash(&self.domain());
        self.authorize(from, provider, digest, *deadline, signature)?;
        self.providers.insert(provider, (payout, nonce + 1));
        self.emit(Settlement::PayoutSet { provider, payout, claimNonce: nonce + 1 });
        Ok(Vec::new())
    }

    fn settle(&mut self, statements: &[Settlement::Statement]) -> Outcome<Vec<u8>> {
        let mut outcomes = Vec::new();
        for statement in statements {
            let id = id(&statement.key);
            let state = self.deposit_of(id);
            let (outcome, spent, rows) = self.check(statement, state);
            outcomes.push(U256::from(outcome));
            if outcome != SETTLED {
                let digest = self.digest(statement, spent);
                self.emit(Settlement::Skipped { id, digest, reason: outcome });
                continue;
            }
            let balance = state.balance - (spent - state.spent);
            let thawing = state.thawing.min(balance);
            let epoch = state.epoch + 1;
            self.deposits.insert(id, Deposit { balance, thawing, spent, epoch, ..state });
            for (provider, units) in rows {
                let credit = self.credits.entry((statement.key.token, provider)).or_default();
                *credit += u128::from(units);
                require(*credit < 1 << 63, Settlement::CreditOverflow {})?;
            }
            self.emit(Settlement::Settled {
                id,
                epoch: statement.epoch,
                spent: u64::try_from(spent).unwrap(),
                manifest: statement.manifest,
                rows: statement.rows.clone(),
            });
        }
        Ok(outcomes.abi_encode())
    }

    /// What becomes of a statement, the `spent` that its digest counts, and its rows.
    fn check(
        &self,
        statement: &Settlement::Statement,
        state: Deposit,
    ) -> (u8, u128, Vec<(u32, u64)>) {
        if u64::from(statement.epoch) != state.epoch + 1 {
            return (WRONG_EPOCH, 0, Vec::new());
        }
        let Some(rows) = read_rows(&statement.rows) else {
            return (MALFORMED_ROWS, 0, Vec::new());
        };
        if rows.iter().any(|(provider, _)| u64::from(*provider) > self.provider_count) {
            return (UNKNOWN_PROVIDER, 0, Vec::new());
        }
        let total: u128 = rows.iter().map(|(_, units)| u128::from(*units)).sum();
        let spent = state.spent + total;
        let key = &statement.key;
        let digest = self.digest(statement, spent);
        let outcome = if total > state.balance {
            INSUFFICIENT_BALANCE
        } else if !self.has_signed(key.signer, digest, &statement.signature) {
            BAD_SIGNATURE
        } else if !key.cosigner.is_zero()
            && !self.has_signed(key.cosigner, digest, &statement.cosignature)
        {
            BAD_COSIGNATURE
        } else {
            SETTLED
        };
        (outcome, spent, rows)
    }

    /// What the signers of a statement sign.
    pub(crate) fn digest(&self, statement: &Settlement::Statement, spent: u128) -> B256 {
        let Settlement::Statement { key, epoch, manifest, rows, .. } = statement;
        if let Ok(spent) = u64::try_from(spent) {
            let (key, rows) = (key.clone().into(), rows.clone());
            let message =
                eip712::Statement { key, epoch: *epoch, spent, manifest: *manifest, rows };
            return message.eip712_signing_hash(&self.domain());
        }
        // A sum that does not fit the message's field counts in full; see `ISettlement.Skipped`.
        let typehash = keccak256(eip712::Statement::eip712_encode_type().as_bytes());
        let spent = U256::from(spent);
        let fields = (typehash, id(key), *epoch, spent, *manifest, keccak256(rows)).abi_encode();
        let message = [self.domain().separator(), keccak256(fields)].concat();
        keccak256([[0x19, 0x01].as_slice(), &message].concat())
    }

    fn authorize(
        &self,
        from: Address,
        provider: u32,
        digest: B256,
        deadline: u64,
        signature: &[u8],
    ) -> Outcome<()> {
        let (payout, _) = self.payout_of(provider);
        require(!payout.is_zero(), Settlement::UnknownProvider { provider })?;
        if from == payout {
            return Ok(());
        }
        require(self.now <= deadline, Settlement::SignatureExpired { deadline })?;
        let signed = self.has_signed(payout, digest, signature);
        require(signed, Settlement::NotPayout { provider, payout })
    }

    fn has_signed(&self, account: Address, digest: B256, signature: &[u8]) -> bool {
        recover(digest, signature) == Some(account)
            || self.wallets.get(&account).copied().unwrap_or(false)
    }

    fn unit(&self, token: Address) -> Outcome<U256> {
        let unit = self.tokens.get(&token).and_then(|entry| entry.unit);
        unit.map(U256::from).ok_or(Settlement::TokenNotRegistered { token }.abi_encode())
    }

    fn require_requestor(&self, from: Address, key: &Settlement::DepositKey) -> Outcome<()> {
        let error = Settlement::NotRequestor { caller: from, requestor: key.requestor };
        require(from == key.requestor, error)
    }

    fn require_destination(&self, to: Address) -> Outcome<()> {
        require(!to.is_zero() && to != self.settlement, Settlement::BadDestination { to })
    }

    /// Takes base units from an account, by the allowance that it gave.
    fn pull(&mut self, token: Address, from: Address, amount: U256) -> Outcome<()> {
        let spender = self.settlement;
        let entry = self.tokens.get_mut(&token).expect("a registered token");
        let allowance = entry.allowances.entry(from).or_default();
        let short = TestToken::ERC20InsufficientAllowance {
            spender,
            allowance: *allowance,
            needed: amount,
        };
        require(*allowance >= amount, short)?;
        if *allowance != U256::MAX {
            *allowance -= amount;
        }
        self.transfer(token, from, spender, amount)
    }

    fn pay(&mut self, token: Address, to: Address, amount: U256) -> Outcome<()> {
        self.transfer(token, self.settlement, to, amount)
    }

    fn transfer(
        &mut self,
        token: Address,
        from: Address,
        to: Address,
        amount: U256,
    ) -> Outcome<()> {
        let balances = &mut self.tokens.get_mut(&token).expect("a registered token").balances;
        let held = balances.get(&from).copied().unwrap_or_default();
        let short =
            TestToken::ERC20InsufficientBalance { sender: from, balance: held, needed: amount };
        require(held >= amount, short)?;
        balances.insert(from, held - amount);
        *balances.entry(to).or_default() += amount;
        let event = TestToken::Transfer { from, to, value: amount };
        self.logs.push(Log { address: token, data: event.encode_log_data() });
        Ok(())
    }

    fn emit<E: SolEvent>(&mut self, event: E) {
        let data: LogData = event.encode_log_data();
        self.logs.push(Log { address: self.settlement, data });
    }
}

/// Id of a deposit.
pub(crate) fn id(key: &Settlement::DepositKey) -> B256 {
    eip712::DepositKey::from(key.clone()).id()
}

/// Rows read byte by byte. [`rows::decode`] must agree, and pack them again into the same bytes.
fn read_rows(bytes: &Bytes) -> Option<Vec<(u32, u64)>> {
    let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |sum, byte| sum * 256 + u64::from(*byte));
    let mut read = Vec::new();
    let mut last = 0;
    let mut well_formed = bytes.len().is_multiple_of(10);
    for row in bytes.chunks(10).filter(|row| row.len() == 10) {
        let (provider, units) = (number(&row[..4]), number(&row[4..]));
        well_formed &= provider > last && units > 0;
        last = provider;
        read.push((u32::try_from(provider).unwrap(), units));
    }
    let read = well_formed.then_some(read);
    let decoded = rows::decode(bytes);
    assert_eq!(decoded.as_deref().ok(), read.as_deref(), "rows::decode of {bytes}");
    if let Some(rows) = &read {
        assert_eq!(rows::encode(rows).as_deref(), Ok(bytes.as_ref()), "rows::encode of {rows:?}");
    }
    read
}

/// Whose signature this is: 65 bytes, low `s`, `v` of 27 or 28.
fn recover(digest: B256, signature: &[u8]) -> Option<Address> {
    let [rs @ .., v @ (27 | 28)] = signature else { return None };
    let rs: &[u8; 64] = rs.try_into().ok()?;
    let signature = Signature::from_bytes_and_parity(rs, *v == 28);
    if signature.normalize_s().is_some() {
        return None;
    }
    signature.recover_address_from_prehash(&digest).ok()
}

/// The contract's events among logs, decoded.
pub(crate) fn events(logs: &[Log], settlement: Address) -> Vec<SettlementEvents> {
    use alloy::sol_types::SolEventInterface;
    let own = logs.iter().filter(|log| log.address == settlement);
    own.map(|log| SettlementEvents::decode_log(log).expect("an event of the interface").data)
        .collect()
}
