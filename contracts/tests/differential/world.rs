//! One seeded sequence of calls, sent to the contract and to the model alike.

use std::collections::{BTreeMap, BTreeSet};

use alloy::{
    primitives::{Address, B256, U256, hex},
    signers::local::PrivateKeySigner,
    sol_types::{SolCall, SolInterface, SolValue},
};
use contracts::{
    Settlement::{
        self, DepositKey, SettlementCalls, SettlementErrors, SettlementEvents, Statement,
    },
    TestToken, rows,
};
use rand::{Rng, RngCore, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use crate::{
    chain::{Answer, Chain, init_code},
    model::{self, Model, SETTLED},
};

pub(crate) const THAW_PERIOD: u32 = 7 * 24 * 60 * 60;

pub(crate) struct World {
    seed: u64,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) chain: Chain,
    pub(crate) model: Model,
    pub(crate) keys: Vec<PrivateKeySigner>,
    pub(crate) funders: Vec<Address>,
    pub(crate) requestors: Vec<Address>,
    pub(crate) deposits: Vec<DepositKey>,
    pub(crate) tokens: Vec<Address>,
    /// Statements of earlier batches, to be sent again.
    pub(crate) sent: Vec<Statement>,
    /// Whether state was written past the contract, so that its books need not balance.
    pub(crate) forged: bool,
    /// How often each outcome, event and error came up.
    pub(crate) seen: BTreeMap<String, u64>,
}

/// What a call can have changed.
#[derive(Default)]
struct Touched {
    deposits: BTreeSet<B256>,
    credits: BTreeSet<(Address, u32)>,
    providers: BTreeSet<u32>,
    balances: BTreeSet<(Address, Address)>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let chain_id = *[1, 137, 31337, u64::from(u32::MAX) + 7].choose(&mut rng).unwrap();
        // Some worlds live in 2106, when a thaw's end stops fitting its field.
        let now =
            if rng.random_ratio(1, 8) { u64::from(u32::MAX) - 500_000 } else { 1_700_000_000 };
        let mut chain = Chain::new(chain_id);
        chain.set_time(now);
        let settlement = chain.deploy(init_code(THAW_PERIOD));
        let model = Model::new(chain_id, settlement, THAW_PERIOD, now);
        let keys = (1..=6).map(|n| PrivateKeySigner::from_bytes(&B256::repeat_byte(n)).unwrap());
        let mut world = Self {
            seed,
            chain,
            model,
            keys: keys.collect(),
            funders: (0..3).map(|_| random_address(&mut rng)).collect(),
            requestors: (0..2).map(|_| random_address(&mut rng)).collect(),
            rng,
            deposits: Vec::new(),
            tokens: Vec::new(),
            sent: Vec::new(),
            forged: false,
            seen: BTreeMap::new(),
        };
        world.add_wallets();
        world.add_tokens();
        world.add_deposits();
        if world.rng.random_ratio(1, 4) {
            world.forge_brink();
        }
        world
    }

    /// Sends some calls of other kinds, then one batch of statements.
    pub(crate) fn step(&mut self) {
        for _ in 0..self.rng.random_range(0..=2) {
            self.other_call();
        }
        let mut states = BTreeMap::new();
        let count = self.rng.random_range(1..=5);
        let statements: Vec<_> = (0..count).map(|_| self.statement(&mut states)).collect();
        self.sent.extend(statements.iter().cloned());
        let from = self.stranger();
        self.call(from, SettlementCalls::settle(Settlement::settleCall { statements }));
    }

    /// Compares everything that the model knows, and the books.
    pub(crate) fn finish(&mut self) {
        let mut touched = Touched {
            deposits: self.model.deposits.keys().copied().collect(),
            credits: self.model.credits.keys().copied().collect(),
            providers: self.model.providers.keys().copied().collect(),
            balances: BTreeSet::new(),
        };
        for (&token, entry) in &self.model.tokens {
            touched.balances.extend(entry.balances.keys().map(|account| (token, *account)));
        }
        self.compare(&touched);
        if self.forged {
            return;
        }
        for (&address, token) in &self.model.tokens {
            let own = self.deposits.iter().filter(|key| key.token == address);
            let deposited: u128 =
                own.map(|key| self.model.deposit_of(model::id(key)).balance).sum();
            let credits = self.model.credits.iter().filter(|((token, _), _)| *token == address);
            let credited: u128 = credits.map(|(_, units)| *units).sum();
            let owed = U256::from(deposited + credited) * U256::from(token.unit.unwrap_or(0));
            let held = token.balances.get(&self.model.settlement).copied().unwrap_or_default();
            assert_eq!(held, owed, "I1: what the contract holds of {address}");
        }
    }

    /// Makes the same call to the contract and to the model, and compares.
    pub(crate) fn call(&mut self, from: Address, call: SettlementCalls) {
        let touched = self.touched(from, &call);
        let digests = self.digests(&call);
        let expected = self.model.call(from, &call);
        let data = call.abi_encode().into();
        let actual = self.chain.call(from, self.model.settlement, data);
        assert_eq!(actual, expected, "seed {}: {from} called {call:?}", self.seed);
        self.count(&call, &actual);
        for (view, digest) in digests {
            let answer = self.view(self.model.settlement, view);
            assert_eq!(answer, digest.abi_encode(), "statementDigest in {call:?}");
        }
        self.compare(&touched);
    }

    fn compare(&mut self, touched: &Touched) {
        let settlement = self.model.settlement;
        let slot = self.chain.storage(settlement, U256::ZERO);
        assert_eq!(B256::from(slot), self.model.journal.word(), "I11: the journal");
        let answer = self.view(settlement, Settlement::providerCountCall {});
        assert_eq!(answer, U256::from(self.model.provider_count).abi_encode(), "providerCount");
        for &id in &touched.deposits {
            let state = self.model.deposit_of(id);
            let fields = [
                state.balance,
                state.thawing,
                state.spent,
                state.epoch.into(),
                state.thaw_ends.into(),
            ];
            let answer = self.view(settlement, Settlement::depositOfCall { id });
            assert_eq!(answer, fields.map(U256::from).abi_encode(), "depositOf {id}");
        }
        for &(token, provider) in &touched.credits {
            let answer = self.view(settlement, Settlement::creditOfCall { token, provider });
            let credit = U256::from(self.model.credit_of(token, provider));
            assert_eq!(answer, credit.abi_encode(), "creditOf {token}, {provider}");
        }
        for &provider in &touched.providers {
            let answer = self.view(settlement, Settlement::payoutOfCall { provider });
            assert_eq!(answer, self.model.payout_of(provider).abi_encode(), "payoutOf {provider}");
        }
        for &(token, account) in &touched.balances {
            let answer = self.view(token, TestToken::balanceOfCall { account });
            let balance = self.model.tokens[&token].balances.get(&account).copied();
            assert_eq!(answer, balance.unwrap_or_default().abi_encode(), "balance of {account}");
        }
    }

    fn view(&mut self, to: Address, call: impl SolCall) -> Vec<u8> {
        match self.chain.call(Address::ZERO, to, call.abi_encode().into()) {
            Answer::Returned(output, logs) if logs.is_empty() => output.into(),
            other => panic!("a view answered {other:?}"),
        }
    }

    fn touched(&self, from: Address, call: &SettlementCalls) -> Touched {
        let settlement = self.model.settlement;
        let mut touched = Touched::default();
        let mut moved = |token: Address, accounts: &[Address]| {
            if self.model.tokens.contains_key(&token) {
                touched.balances.extend(accounts.iter().map(|account| (token, *account)));
            }
        };
        match call {
            SettlementCalls::deposit(c) => {
                moved(c.key.token, &[from, settlement]);
                touched.deposits.insert(model::id(&c.key));
            }
            SettlementCalls::thaw(c) => {
                touched.deposits.insert(model::id(&c.key));
            }
            SettlementCalls::withdraw(c) => {
                moved(c.key.token, &[c.to, settlement]);
                touched.deposits.insert(model::id(&c.key));
            }
            SettlementCalls::register(c) => {
                let first = self.model.provider_count.saturating_sub(1);
                let numbers = first..first + 3 + c.payouts.len() as u64;
                touched.providers.extend(numbers.filter_map(|number| u32::try_from(number).ok()));
            }
            SettlementCalls::claim(c) => {
                for &provider in &c.providers {
                    moved(c.token, &[self.model.payout_of(provider).0, settlement]);
                    touched.credits.insert((c.token, provider));
                    touched.providers.insert(provider);
                }
            }
            SettlementCalls::claimTo(c) => {
                moved(c.token, &[c.to, settlement]);
                touched.credits.insert((c.token, c.provider));
                touched.providers.insert(c.provider);
            }
            SettlementCalls::setPayout(c) => {
                touched.providers.insert(c.provider);
            }
            SettlementCalls::settle(c) => {
                for statement in &c.statements {
                    touched.deposits.insert(model::id(&statement.key));
                    let rows = rows::decode(&statement.rows).unwrap_or_default();
                    let named = rows.iter().map(|(provider, _)| *provider);
                    // The neighbours share words with the named ones. The end of the world compares all.
                    let near = named.flat_map(|provider| [provider, provider ^ 1, provider ^ 2]);
                    touched
                        .credits
                        .extend(near.take(150).map(|number| (statement.key.token, number)));
                }
            }
            _ => {}
        }
        touched
    }

    /// The contract's and the model's digests of the statements, at a `spent` of the message's width.
    fn digests(&self, call: &SettlementCalls) -> Vec<(Settlement::statementDigestCall, B256)> {
        let SettlementCalls::settle(c) = call else { return Vec::new() };
        let digest = |statement: &Statement| {
            let Statement { key, epoch, manifest, rows, .. } = statement.clone();
            let spent = u64::try_from(self.model.deposit_of(model::id(&key)).spent).unwrap();
            let digest = self.model.digest(statement, spent.into());
            (Settlement::statementDigestCall { key, epoch, spent, manifest, rows }, digest)
        };
        c.statements.iter().map(digest).collect()
    }

    fn count(&mut self, call: &SettlementCalls, answer: &Answer) {
        let mut count = |what: String| *self.seen.entry(what).or_default() += 1;
        match answer {
            Answer::Returned(output, logs) => {
                for event in model::events(logs, self.model.settlement) {
                    if let SettlementEvents::Skipped(skipped) = &event {
                        count(format!("skipped {}", skipped.reason));
                    }
                    let name = format!("{event:?}");
                    count(format!("event {}", name.split('(').next().unwrap_or_default()));
                }
                if let SettlementCalls::settle(c) = call {
                    let outcomes = Vec::<U256>::abi_decode(output).expect("outcomes");
                    assert_eq!(outcomes.len(), c.statements.len());
                    let settled =
                        outcomes.iter().filter(|outcome| **outcome == U256::from(SETTLED));
                    count(format!("batches with {} settled", settled.count().min(2)));
                }
            }
            Answer::Reverted(error) => {
                let selector: [u8; 4] = error[..4].try_into().expect("an error's selector");
                let name = SettlementErrors::name_by_selector(selector);
                let name = name.map_or_else(|| hex::encode(selector), ToString::to_string);
                count(format!("error {name}"));
            }
        }
    }
}

pub(crate) fn random_address(rng: &mut impl RngCore) -> Address {
    let mut bytes = [0; 20];
    rng.fill_bytes(&mut bytes);
    Address::new(bytes)
}

pub(crate) fn random_word(rng: &mut impl RngCore) -> B256 {
    let mut bytes = [0; 32];
    rng.fill_bytes(&mut bytes);
    B256::new(bytes)
}
