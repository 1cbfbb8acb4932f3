//! What a world does: its accounts, tokens and deposits, and calls of every kind, valid and broken.

use std::collections::BTreeMap;

use alloy::{
    primitives::{Address, B256, Bytes, U256, hex},
    signers::SignerSync,
    sol_types::{SolCall, SolConstructor, SolStruct},
};
use contracts::{
    Settlement::{self, DepositKey, SettlementCalls},
    TestToken, eip712,
};
use rand::{Rng, seq::IndexedRandom};

use crate::{
    chain::{Answer, mapping},
    model::{self, Deposit, Token},
    world::{World, random_address, random_word},
};

/// Storage slots of the contract that a world on the brink writes to.
const DEPOSITS: u64 = 2;
const PROVIDER_COUNT: u64 = 5;
const CREDITS: u64 = 7;
/// Slot of OpenZeppelin's ERC-20 balances.
const BALANCES: u64 = 0;

/// Answers every question with the magic value of ERC-1271: PUSH4 1626ba7e, PUSH1 e0, SHL, PUSH0, MSTORE, RETURN.
const YES: [u8; 14] = hex!("631626ba7e60e01b5f5260205ff3");
/// Answers every question with zero.
const NO: [u8; 5] = hex!("60205ff300");
/// Refuses every question.
const REFUSES: [u8; 3] = hex!("5f5ffd");

const YES_WALLET: Address = Address::repeat_byte(0xa1);
const NO_WALLET: Address = Address::repeat_byte(0xa2);
const REFUSING_WALLET: Address = Address::repeat_byte(0xa3);
/// Pays nothing to anybody that the contract knows.
const NOBODY: Address = Address::repeat_byte(0xee);

/// Rows of a long statement: each third of them can add up to more than 2^56 units.
const LONG: usize = 780;

/// Keys by their use; the others are providers'.
const ATTESTER: usize = 0;
const AGENT: usize = 1;

impl World {
    pub(crate) fn add_wallets(&mut self) {
        for (wallet, code, answer) in [
            (YES_WALLET, &YES[..], true),
            (NO_WALLET, &NO[..], false),
            (REFUSING_WALLET, &REFUSES[..], false),
        ] {
            self.chain.put_code(wallet, Bytes::copy_from_slice(code));
            self.model.wallets.insert(wallet, answer);
        }
    }

    /// Tokens of 6, 18, 24, 0 and 25 decimals; the first three are registered from the start. Of the funders one gave
    /// an allowance without bound, one a small one, one has neither.
    pub(crate) fn add_tokens(&mut self) {
        let held = U256::MAX >> 8;
        for decimals in [6, 18, 24, 0, 25] {
            let arguments = TestToken::constructorCall {
                name: "Test".into(),
                symbol: "T".into(),
                decimals_: decimals,
            };
            let init_code = [TestToken::BYTECODE.as_ref(), &arguments.abi_encode()].concat();
            let token = self.chain.deploy(init_code.into());
            let mut entry = Token { decimals: decimals.into(), ..Default::default() };
            let small = U256::from(10_u64.pow(u32::from(decimals.min(18))));
            for (funder, allowance) in [(self.funders[0], U256::MAX), (self.funders[1], small)] {
                let mint = TestToken::mintCall { to: funder, amount: held };
                let spender = self.model.settlement;
                let approve = TestToken::approveCall { spender, value: allowance };
                for data in [mint.abi_encode(), approve.abi_encode()] {
                    let answer = self.chain.call(funder, token, data.into());
                    assert!(matches!(answer, Answer::Returned(..)));
                }
                entry.balances.insert(funder, held);
                entry.allowances.insert(funder, allowance);
            }
            self.model.tokens.insert(token, entry);
            self.tokens.push(token);
        }
        let [six, eighteen, twenty_four, ..] = self.tokens[..] else { panic!("five tokens") };
        for token in [six, eighteen, twenty_four] {
            self.call(
                NOBODY,
                SettlementCalls::registerToken(Settlement::registerTokenCall { token }),
            );
        }
    }

    /// Hosted, bound and own deposits, such that wallets sign, and one that nobody can sign for.
    pub(crate) fn add_deposits(&mut self) {
        let (attester, agent) = (self.keys[ATTESTER].address(), self.keys[AGENT].address());
        for (signer, cosigner) in [
            (attester, Address::ZERO),
            (attester, Address::ZERO),
            (agent, attester),
            (agent, attester),
            (agent, agent),
            (YES_WALLET, attester),
            (agent, *[NO_WALLET, REFUSING_WALLET].choose(&mut self.rng).unwrap()),
        ] {
            let requestor = *self.requestors.choose(&mut self.rng).unwrap();
            let token = self.tokens[..4].choose_weighted(&mut self.rng, |token| {
                if *token == self.tokens[3] { 1 } else { 5 }
            });
            let (token, salt) = (*token.unwrap(), random_word(&mut self.rng));
            self.deposits.push(DepositKey { requestor, signer, cosigner, token, salt });
        }
        let count = self.rng.random_range(0..=40);
        self.register(count);
        for key in self.deposits.clone() {
            let units = self.units(u64::MAX);
            let from = self.funders[0];
            self.call(from, SettlementCalls::deposit(Settlement::depositCall { key, units }));
        }
    }

    /// Writes state that calls reach only after years: counters near the end of their fields.
    pub(crate) fn forge_brink(&mut self) {
        self.forged = true;
        let settlement = self.model.settlement;
        for key in self.deposits.clone() {
            let id = model::id(&key);
            let spent = u64::MAX - self.units(1 << 50);
            let balance = self.rng.random_range(0..=u64::MAX - spent);
            let left = if self.rng.random_ratio(1, 3) { 0..3 } else { 1000..2000 };
            let epoch = u32::MAX - self.rng.random_range(left);
            let state = [balance.into(), 0, spent.into(), epoch.into()];
            let word = state
                .iter()
                .rev()
                .fold(U256::ZERO, |word, field: &u128| word << 64 | U256::from(*field));
            self.chain.set_storage(settlement, mapping(id, DEPOSITS), word);
            let (balance, spent) = (balance.into(), spent.into());
            let deposit = Deposit { balance, spent, epoch: epoch.into(), ..Default::default() };
            self.model.deposits.insert(id, deposit);
        }
        for &token in &self.tokens[..3] {
            let lanes: [u64; 4] =
                std::array::from_fn(|_| (1 << 63) - 1 - self.rng.random_range(0..1 << 40));
            let word = lanes
                .iter()
                .rev()
                .fold(U256::ZERO, |word, units| word << 64 | U256::from(*units | 1 << 63));
            let place = self.rng.random_range(0..=1_u32);
            let slot = mapping(token.into_word(), CREDITS) + U256::from(place);
            self.chain.set_storage(settlement, slot, word);
            for (lane, units) in (place * 4..).zip(lanes) {
                self.model.credits.insert((token, lane), units.into());
            }
        }
        if self.rng.random_ratio(1, 2) {
            let count = u32::MAX - self.rng.random_range(0..3);
            self.chain.set_storage(settlement, U256::from(PROVIDER_COUNT), U256::from(count));
            self.model.provider_count = count.into();
        }
    }

    pub(crate) fn stranger(&mut self) -> Address {
        *[NOBODY, self.requestors[0], self.keys[ATTESTER].address()].choose(&mut self.rng).unwrap()
    }

    /// An amount that is small, of any size, or at an edge.
    fn units(&mut self, most: u64) -> u64 {
        let most = most.max(1);
        let units = match self.rng.random_range(0..8) {
            0 => 1,
            1 => most,
            2 => (1 << 48) - 1,
            3 => 1 << self.rng.random_range(0..64),
            4 => self.rng.random_range(1..=most),
            _ => self.rng.random_range(1..1_000_000),
        };
        units.clamp(1, most)
    }

    fn register(&mut self, count: usize) {
        let mut payouts = Vec::new();
        for _ in 0..count {
            let key = self.rng.random_range(2..self.keys.len());
            payouts.push(match self.rng.random_range(0..8) {
                0 => YES_WALLET,
                1 => REFUSING_WALLET,
                2 => random_address(&mut self.rng),
                _ => self.keys[key].address(),
            });
        }
        if count > 0 && self.rng.random_ratio(1, 10) {
            let bad = [Address::ZERO, self.model.settlement];
            let place = self.rng.random_range(0..count);
            payouts[place] = *bad.choose(&mut self.rng).unwrap();
        }
        let from = self.stranger();
        self.call(from, SettlementCalls::register(Settlement::registerCall { payouts }));
    }

    /// A number that is mostly registered, now and then unknown or zero.
    fn provider(&mut self) -> u32 {
        let count = u32::try_from(self.model.provider_count).unwrap();
        match self.rng.random_range(0..12) {
            0 => 0,
            1 => count.saturating_add(1),
            2 => self.rng.random(),
            _ => self.rng.random_range(0..=count.min(60)),
        }
    }

    fn any_token(&mut self) -> Address {
        if self.rng.random_ratio(1, 12) {
            NOBODY
        } else {
            *self.tokens.choose(&mut self.rng).unwrap()
        }
    }

    fn destination(&mut self) -> Address {
        match self.rng.random_range(0..10) {
            0 => Address::ZERO,
            1 => self.model.settlement,
            _ => random_address(&mut self.rng),
        }
    }

    pub(crate) fn other_call(&mut self) {
        match self.rng.random_range(0..16) {
            0..=2 => self.fund(),
            3 | 4 => self.thaw(),
            5 | 6 => self.withdraw(),
            7 => {
                let count = self.rng.random_range(0..4);
                self.register(count);
            }
            8 => {
                let (from, token) = (self.stranger(), self.any_token());
                let call = Settlement::registerTokenCall { token };
                self.call(from, SettlementCalls::registerToken(call));
            }
            9 | 10 => {
                let (from, token) = (self.stranger(), self.any_token());
                let count = self.rng.random_range(0..8);
                let providers = (0..count).map(|_| self.provider()).collect();
                self.call(from, SettlementCalls::claim(Settlement::claimCall { token, providers }));
            }
            11 | 12 => self.claim_to(),
            13 => self.set_payout(),
            14 => self.lose_money(),
            _ => {
                let passed = *[1, 3600, 86_400, 8 * 86_400].choose(&mut self.rng).unwrap();
                self.model.now += passed;
                self.chain.set_time(self.model.now);
            }
        }
    }

    fn fund(&mut self) {
        let mut key = self.deposits.choose(&mut self.rng).unwrap().clone();
        match self.rng.random_range(0..20) {
            0 => key.requestor = Address::ZERO,
            1 => key.signer = Address::ZERO,
            2 => key.token = self.any_token(),
            _ => {}
        }
        let state = self.model.deposit_of(model::id(&key));
        let room = u64::try_from(u128::from(u64::MAX) - state.balance - state.spent).unwrap();
        let units = match self.rng.random_range(0..10) {
            0 => 0,
            1 => room.saturating_add(1),
            2 => room,
            _ => self.units(u64::MAX),
        };
        let from = self.funders[*[0, 0, 0, 1, 2].choose(&mut self.rng).unwrap()];
        self.call(from, SettlementCalls::deposit(Settlement::depositCall { key, units }));
    }

    fn requestor_of(&mut self, key: &DepositKey) -> Address {
        if self.rng.random_ratio(1, 8) { self.stranger() } else { key.requestor }
    }

    fn thaw(&mut self) {
        let key = self.deposits.choose(&mut self.rng).unwrap().clone();
        let balance = u64::try_from(self.model.deposit_of(model::id(&key)).balance).unwrap();
        let units = match self.rng.random_range(0..6) {
            0 => 0,
            1 => balance.saturating_add(1),
            2 => balance,
            _ => self.rng.random_range(0..=balance),
        };
        let from = self.requestor_of(&key);
        self.call(from, SettlementCalls::thaw(Settlement::thawCall { key, units }));
    }

    /// Withdraws, sometimes at the very second at which the thaw ends or the one before.
    fn withdraw(&mut self) {
        let thawing = |key: &&DepositKey| self.model.deposit_of(model::id(key)).thawing > 0;
        let candidates: Vec<_> = self.deposits.iter().filter(thawing).cloned().collect();
        let key = candidates.choose(&mut self.rng).unwrap_or(&self.deposits[0]).clone();
        let ends = self.model.deposit_of(model::id(&key)).thaw_ends;
        let target = ends.saturating_sub(self.rng.random_range(0..=1));
        if self.rng.random_ratio(2, 3) && target > self.model.now {
            self.model.now = target;
            self.chain.set_time(target);
        }
        let (from, to) = (self.requestor_of(&key), self.destination());
        self.call(from, SettlementCalls::withdraw(Settlement::withdrawCall { key, to }));
    }

    fn claim_to(&mut self) {
        let (provider, token, to) = (self.provider(), self.any_token(), self.destination());
        let (_, nonce) = self.model.payout_of(provider);
        let (from, deadline) = self.caller_and_deadline(provider);
        let nonce = if self.rng.random_ratio(1, 10) { nonce + 1 } else { nonce };
        let message = eip712::ClaimTo { provider, token, to, nonce, deadline };
        let digest = message.eip712_signing_hash(&self.model.domain());
        let signature = self.payout_signature(provider, digest);
        let call = Settlement::claimToCall { provider, token, to, deadline, signature };
        self.call(from, SettlementCalls::claimTo(call));
    }

    fn set_payout(&mut self) {
        let (provider, payout) = (self.provider(), self.destination());
        let (_, nonce) = self.model.payout_of(provider);
        let (from, deadline) = self.caller_and_deadline(provider);
        let nonce = if self.rng.random_ratio(1, 10) { nonce + 1 } else { nonce };
        let message = eip712::SetPayout { provider, payout, nonce, deadline };
        let digest = message.eip712_signing_hash(&self.model.domain());
        let signature = self.payout_signature(provider, digest);
        let call = Settlement::setPayoutCall { provider, payout, deadline, signature };
        self.call(from, SettlementCalls::setPayout(call));
    }

    fn caller_and_deadline(&mut self, provider: u32) -> (Address, u64) {
        let (payout, _) = self.model.payout_of(provider);
        let from = if self.rng.random_ratio(1, 3) && !payout.is_zero() { payout } else { NOBODY };
        let now = self.model.now;
        let deadlines = [now, now - 1, now + 3600, u64::MAX, 0];
        (
            from,
            *deadlines
                .choose_weighted(&mut self.rng, |deadline| if *deadline >= now { 3 } else { 1 })
                .unwrap(),
        )
    }

    /// By the payout address if its key is known; sometimes by another, sometimes mangled.
    fn payout_signature(&mut self, provider: u32, digest: B256) -> Bytes {
        let (payout, _) = self.model.payout_of(provider);
        let own = self.keys.iter().position(|key| key.address() == payout);
        let key = if self.rng.random_ratio(1, 8) { ATTESTER } else { own.unwrap_or(ATTESTER) };
        let mut signature = self.sign(key, digest);
        if self.rng.random_ratio(1, 6) {
            self.mangle(&mut signature);
        }
        signature.into()
    }

    /// A token that loses the contract's money, or finds it again. Its transfers fail meanwhile.
    fn lose_money(&mut self) {
        self.forged = true;
        let token = *self.tokens[..4].choose(&mut self.rng).unwrap();
        let settlement = self.model.settlement;
        let balances = &mut self.model.tokens.get_mut(&token).unwrap().balances;
        let lost = balances.get(&settlement).is_none_or(|held| held.is_zero());
        let held = if lost { U256::MAX >> 10 } else { U256::ZERO };
        balances.insert(settlement, held);
        self.chain.set_storage(token, mapping(settlement.into_word(), BALANCES), held);
    }

    fn sign(&self, key: usize, digest: B256) -> Vec<u8> {
        self.keys[key].sign_hash_sync(&digest).expect("a signature").as_bytes().to_vec()
    }

    fn key_of(&self, account: Address) -> usize {
        self.keys.iter().position(|key| key.address() == account).unwrap_or(ATTESTER)
    }

    /// The next statement of a deposit as `states` has it, valid or broken in one way.
    pub(crate) fn statement(
        &mut self,
        states: &mut BTreeMap<B256, Deposit>,
    ) -> Settlement::Statement {
        if self.rng.random_ratio(1, 20)
            && let Some(again) = self.sent.choose(&mut self.rng)
        {
            return again.clone();
        }
        let key = self.deposits.choose(&mut self.rng).unwrap().clone();
        let id = model::id(&key);
        let state = states.get(&id).copied().unwrap_or_else(|| self.model.deposit_of(id));
        let flaw = self.rng.random_range(0..40);
        let mut rows = self.rows(u64::try_from(state.balance).unwrap());
        // After the last epoch comes none; what is sent then is wrong in any case.
        let mut epoch = u32::try_from(state.epoch + 1).unwrap_or(0);
        match flaw {
            0 => {
                epoch = *[0, epoch.wrapping_sub(1), epoch.wrapping_add(1), u32::MAX]
                    .choose(&mut self.rng)
                    .unwrap()
            }
            1 | 2 => self.break_rows(&mut rows),
            3 => {
                rows.push((u32::try_from(self.model.provider_count).unwrap().saturating_add(1), 1))
            }
            4 | 5 => self.overdraw(&mut rows, state.balance),
            _ if rows.len() >= LONG && self.rng.random() => {
                rows.iter_mut().for_each(|row| row.1 = (1 << 48) - 1);
            }
            _ => {}
        }
        let total: u128 = rows.iter().map(|(_, units)| u128::from(*units)).sum();
        let mut packed: Vec<u8> = rows
            .iter()
            .flat_map(|(provider, units)| {
                [&provider.to_be_bytes()[..], &units.to_be_bytes()[2..]].concat()
            })
            .collect();
        match flaw {
            6 => packed.truncate(packed.len().saturating_sub(self.rng.random_range(1..10))),
            7 => packed.extend(vec![1; self.rng.random_range(1..10)]),
            _ => {}
        }
        let manifest = random_word(&mut self.rng);
        let mut statement = Settlement::Statement {
            key,
            epoch,
            manifest,
            rows: packed.into(),
            signature: Bytes::new(),
            cosignature: Bytes::new(),
        };
        self.sign_statement(&mut statement, state.spent + total, flaw);
        if flaw >= 15 && total <= state.balance {
            let (balance, spent) = (state.balance - total, state.spent + total);
            states.insert(id, Deposit { balance, spent, epoch: state.epoch + 1, ..state });
        }
        statement
    }

    fn sign_statement(&mut self, statement: &mut Settlement::Statement, spent: u128, flaw: u32) {
        let signed_spent = match flaw {
            8 => spent + 1,
            9 => spent.saturating_sub(1),
            _ => spent,
        };
        let mut digest = self.model.digest(statement, signed_spent);
        if flaw == 10 {
            let mut foreign = self.model.clone();
            match self.rng.random_range(0..2) {
                0 => foreign.chain_id += 1,
                _ => foreign.settlement = NOBODY,
            }
            digest = foreign.digest(statement, signed_spent);
        }
        let (signer, cosigner) =
            (self.key_of(statement.key.signer), self.key_of(statement.key.cosigner));
        let mut signature = self.sign(signer, digest);
        let mut cosignature =
            if statement.key.cosigner.is_zero() { Vec::new() } else { self.sign(cosigner, digest) };
        match flaw {
            11 if self.rng.random() => signature = self.sign(5, digest),
            11 => cosignature = self.sign(5, digest),
            12 => std::mem::swap(&mut signature, &mut cosignature),
            13 if self.rng.random() => self.mangle(&mut signature),
            13 => self.mangle(&mut cosignature),
            14 => cosignature.clear(),
            _ => {}
        }
        statement.signature = signature.into();
        statement.cosignature = cosignature.into();
        if flaw == 15 {
            self.flip(statement);
        }
    }

    /// Well-formed rows that the balance mostly covers, sometimes to the last unit.
    fn rows(&mut self, balance: u64) -> Vec<(u32, u64)> {
        let known = self.model.provider_count;
        let is_long = known > 1000 && self.rng.random_ratio(1, 30);
        let count = match self.rng.random_range(0..20) {
            _ if is_long => self.rng.random_range(LONG..=900),
            0 => 0,
            1..=8 => self.rng.random_range(1..=3),
            9..=18 => self.rng.random_range(4..=12),
            _ => self.rng.random_range(13..=60),
        };
        let (gap, share) =
            if is_long { (1, 1000) } else { (*[1, 2, 7].choose(&mut self.rng).unwrap(), 1) };
        let mut rows = Vec::new();
        let (mut provider, mut left) = (0, balance);
        for _ in 0..count {
            provider += self.rng.random_range(1..=gap);
            if provider > known || left == 0 {
                break;
            }
            let units = self.units((left / share).min((1 << 48) - 1)).min(left);
            left -= units;
            rows.push((u32::try_from(provider).unwrap(), units));
        }
        if let Some(last) = rows.last_mut()
            && self.rng.random_ratio(1, 15)
            && last.1 + left < 1 << 48
        {
            last.1 += left;
        }
        rows
    }

    fn break_rows(&mut self, rows: &mut [(u32, u64)]) {
        if rows.is_empty() {
            return;
        }
        let place = self.rng.random_range(0..rows.len());
        let other = self.rng.random_range(0..rows.len());
        match self.rng.random_range(0..5) {
            0 => rows[place].1 = 0,
            1 => rows.swap(place, other),
            2 => rows[place].0 = rows[other].0,
            3 => rows[0].0 = 0,
            _ => rows[place].0 = rows[place].0.wrapping_sub(1),
        }
    }

    /// Makes the rows pay one unit too much, or as much as rows can.
    fn overdraw(&mut self, rows: &mut [(u32, u64)], balance: u128) {
        let total: u128 = rows.iter().map(|(_, units)| u128::from(*units)).sum();
        let Some(last) = rows.last_mut() else { return };
        let exceeding = balance + 1 - (total - u128::from(last.1));
        match u64::try_from(exceeding) {
            Ok(units) if units < 1 << 48 && self.rng.random() => last.1 = units,
            _ => rows.iter_mut().for_each(|row| row.1 = (1 << 48) - 1),
        }
    }

    /// Flips one bit of anything that the statement carries.
    fn flip(&mut self, statement: &mut Settlement::Statement) {
        let target = self.rng.random_range(0..12);
        let bit = 1_u8 << self.rng.random_range(0..8);
        let mut flip_in = |bytes: &mut [u8]| {
            if !bytes.is_empty() {
                let place = self.rng.random_range(0..bytes.len());
                bytes[place] ^= bit;
            }
        };
        let mut flip_bytes = |bytes: &mut Bytes| {
            let mut copy = bytes.to_vec();
            flip_in(&mut copy);
            *bytes = copy.into();
        };
        match target {
            0 => flip_bytes(&mut statement.signature),
            1 => flip_bytes(&mut statement.cosignature),
            2..=4 => flip_bytes(&mut statement.rows),
            5 => flip_in(statement.key.requestor.as_mut_slice()),
            6 => flip_in(statement.key.signer.as_mut_slice()),
            7 => flip_in(statement.key.cosigner.as_mut_slice()),
            8 => flip_in(statement.key.token.as_mut_slice()),
            9 => flip_in(statement.key.salt.as_mut_slice()),
            10 => flip_in(statement.manifest.as_mut_slice()),
            _ => statement.epoch ^= u32::from(bit),
        }
    }

    /// Turns a signature into one that the contract must refuse, whoever signed.
    fn mangle(&mut self, signature: &mut Vec<u8>) {
        if signature.len() != 65 {
            return;
        }
        let order = U256::from_be_bytes(hex!(
            "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"
        ));
        match self.rng.random_range(0..9) {
            0 => {
                let s = U256::from_be_slice(&signature[32..64]);
                signature[32..64].copy_from_slice(&(order - s).to_be_bytes::<32>());
                signature[64] = 55 - signature[64];
            }
            1 => {
                // The compact form of EIP-2098.
                signature[32] |= (signature[64] - 27) << 7;
                signature.truncate(64);
            }
            2 => signature.truncate(self.rng.random_range(0..64)),
            3 => signature.push(0),
            4 => signature[64] -= 27,
            5 => signature[64] = self.rng.random(),
            6 => signature[..32].fill(0),
            7 => signature[32..64].fill(0),
            _ => self.rng.fill(&mut signature[..64]),
        }
    }
}
