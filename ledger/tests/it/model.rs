//! Random operations, reorgs included, against a small model in memory. After each step the ledger's balances are the
//! model's, and its own invariants hold. The seed is in the message of a failure.

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::B256;
use ledger::{
    Amount, Unit, Units,
    chain::{Event, IndexedBlock},
    invariants,
    read::SignedStatement,
    rules::{self, DepositState, Fee, Limits, Purse},
    verify,
    workload::Outcome,
};
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use crate::world::{
    FEE_BPS, OPERATOR, ORGANISATION, World, attester, deposit_key, record, secret, tariff, token,
};

const UNIT: u128 = 1_000_000_000_000;
const DEPOSITS: [u8; 2] = [1, 2];

/// What the test knows without the ledger: the canonical blocks, and what was promised.
#[derive(Default)]
struct Model {
    /// Accepted amount per work, by its number.
    accepted: BTreeMap<u64, u128>,
    /// The highest amount that was ever accepted per work.
    highest: BTreeMap<u64, u128>,
    /// Work that a record came in for: machine and highest revision.
    records: BTreeMap<u64, (u32, u32)>,
    /// Signed statements with what they pay per work, in the order of signing.
    signed: Vec<(SignedStatement, BTreeMap<u64, i128>)>,
}

/// A deposit as the contract keeps it, rebuilt from events: balance, thawing, spent, epoch.
#[derive(Debug, Default, PartialEq)]
struct Deposit {
    balance: u64,
    thawing: u64,
    spent: u64,
    epoch: u32,
    funded_final: u64,
    withdrawn: u64,
}

fn replay(blocks: &[IndexedBlock], finalised: u64, id: B256) -> Deposit {
    let mut deposit = Deposit::default();
    for IndexedBlock { block, facts } in blocks {
        for fact in facts {
            match &fact.event {
                Event::Funded { key, units, .. } if key.id() == id => {
                    deposit.balance += units.get();
                    deposit.funded_final += if block.number <= finalised { units.get() } else { 0 };
                }
                Event::Thawed { deposit: of, units, .. } if *of == id => {
                    deposit.thawing = units.get()
                }
                Event::Withdrawn { deposit: of, units, .. } if *of == id => {
                    deposit.balance -= units.get();
                    deposit.withdrawn += units.get();
                    deposit.thawing = 0;
                }
                Event::Settled { deposit: of, epoch, spent, .. } if *of == id => {
                    deposit.balance -= spent.get() - deposit.spent;
                    deposit.spent = spent.get();
                    deposit.epoch = *epoch;
                    deposit.thawing = deposit.thawing.min(deposit.balance);
                }
                _ => {}
            }
        }
    }
    deposit
}

fn credits(blocks: &[IndexedBlock]) -> BTreeMap<u32, u64> {
    let mut credits = BTreeMap::new();
    for fact in blocks.iter().flat_map(|indexed| &indexed.facts) {
        match &fact.event {
            Event::Settled { rows, .. } => {
                for (provider, units) in contracts::rows::decode(rows).unwrap() {
                    *credits.entry(provider).or_default() += units;
                }
            }
            Event::Claimed { provider, units, .. } => {
                *credits.entry(*provider).or_default() -= units.get()
            }
            _ => {}
        }
    }
    credits.retain(|_, units| *units > 0);
    credits
}

impl Model {
    /// Whether a statement is in the canonical chain.
    fn is_settled(blocks: &[IndexedBlock], signed: &SignedStatement) -> bool {
        blocks.iter().flat_map(|indexed| &indexed.facts).any(|fact| {
            matches!(&fact.event, Event::Settled { deposit, epoch, manifest, .. }
                if *deposit == signed.statement.key.id() && *epoch == signed.statement.epoch
                    && *manifest == signed.statement.manifest)
        })
    }

    /// What settled statements paid for a piece of work.
    fn settled(&self, blocks: &[IndexedBlock], work: u64) -> i128 {
        let settled = self.signed.iter().filter(|(signed, _)| Self::is_settled(blocks, signed));
        settled.filter_map(|(_, paid)| paid.get(&work)).sum()
    }
}

struct Run {
    world: World,
    model: Model,
    rng: ChaCha8Rng,
    next_work: u64,
    /// Deposits that ever named a piece of work.
    places: BTreeMap<u64, BTreeSet<B256>>,
    /// How often work was named by another deposit than before, an epoch was retired by an empty statement, and a candidate
    /// had rivals.
    moved: usize,
    retired: usize,
    rivals: usize,
}

impl Run {
    async fn new(seed: u64) -> Self {
        let world = World::new().await;
        let rng = ChaCha8Rng::seed_from_u64(seed);
        let (model, places) = (Model::default(), BTreeMap::new());
        Self { world, model, rng, next_work: 1, places, moved: 0, retired: 0, rivals: 0 }
    }

    async fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..16 => {
                let (deposit, units) = (self.any_deposit(), self.rng.random_range(1..40_000_000));
                self.world.fund(deposit, units).await;
            }
            16..40 => self.take_in_new().await,
            40..48 => self.take_in_again().await,
            48..62 => self.state().await,
            62..74 => self.settle().await,
            74..80 => self.claim().await,
            80..84 => self.thaw().await,
            84..86 => self.withdraw().await,
            86..88 => self.empty().await,
            88..94 => self.world.finalise(self.rng.random_range(0..4)).await,
            94..98 => {
                let depth = self.rng.random_range(1..5);
                self.world.reorg(depth).await;
            }
            _ => {
                self.world.book.accept_unfunded(ORGANISATION, &tariff(), 0).await.unwrap();
                self.read_accepted().await;
            }
        }
    }

    fn any_deposit(&mut self) -> u8 {
        DEPOSITS.choose(&mut self.rng).copied().unwrap()
    }

    async fn take_in_new(&mut self) {
        let (work, machine) = (self.next_work, self.rng.random_range(2..6));
        self.next_work += 1;
        self.take_in(work, machine, 0).await;
    }

    /// A known record again, or a revision of it.
    async fn take_in_again(&mut self) {
        let known: Vec<_> =
            self.model.records.iter().map(|(work, known)| (*work, *known)).collect();
        let Some((work, (machine, revision))) = known.choose(&mut self.rng).copied() else {
            return;
        };
        self.take_in(work, machine, revision + 1).await;
    }

    async fn take_in(&mut self, work: u64, machine: u32, revision: u32) {
        let record = record(work, machine, revision, self.rng.random_range(1..2_000_000));
        let before = self.available().await;
        let outcomes =
            self.world.book.take_in(std::slice::from_ref(&record), &tariff(), 0).await.unwrap();
        assert!(!matches!(
            outcomes[0],
            Outcome::Duplicate | Outcome::Rejected { .. } | Outcome::Conflict { .. }
        ));
        self.model.records.insert(work, (machine, revision));
        if let Outcome::Accepted { amount } | Outcome::Unaddressed { amount } = outcomes[0] {
            self.accept(work, amount.base_units());
            assert!(before < 0 || self.available().await >= 0, "accepted more than there is");
        }
        // Once more changes nothing.
        let again = self.world.book.take_in(&[record], &tariff(), 0).await.unwrap();
        assert_eq!(again, [Outcome::Duplicate]);
    }

    fn accept(&mut self, work: u64, amount: u128) {
        self.model.accepted.insert(work, amount);
        let highest = self.model.highest.entry(work).or_default();
        *highest = amount.max(*highest);
    }

    async fn available(&self) -> i128 {
        let books = self.world.reader.books(ORGANISATION).await.unwrap().unwrap();
        books.available(FEE_BPS).unwrap()
    }

    /// Learns what the ledger has accepted by itself; that it was entitled to is checked by `available`.
    async fn read_accepted(&mut self) {
        for item in self.world.reader.books(ORGANISATION).await.unwrap().unwrap().open {
            if let Some((_, amount)) = item.accepted {
                self.accept(item.external_id.parse().unwrap(), amount.base_units());
            }
        }
    }

    /// Records and signs another candidate for a deposit's next epoch: what it can pay now, or nothing where no candidate
    /// can settle and the epoch has to be retired.
    async fn state(&mut self) {
        let number = self.any_deposit();
        self.state_of(number).await;
    }

    /// Empties a deposit, under its candidates if it has any, and states what is left to state.
    async fn empty(&mut self) {
        let number = self.any_deposit();
        let key = deposit_key(number);
        let balance = Units::new(replay(&self.world.blocks, 0, key.id()).balance);
        let (deposit, recipient) = (key.id(), key.requestor);
        let thawed = Event::Thawed { deposit, units: balance, ends: 1 };
        let withdrawn = Event::Withdrawn { deposit, recipient, units: balance };
        self.world.mine(vec![thawed, withdrawn]).await;
        self.state_of(number).await;
    }

    async fn state_of(&mut self, number: u8) {
        let id = deposit_key(number).id();
        let candidates = self.world.reader.next_candidates(id).await.unwrap();
        let books = self.world.reader.books(ORGANISATION).await.unwrap().unwrap();
        let secret = secret().of_organisation(ORGANISATION);
        let state = self.world.reader.deposit_state(id).await.unwrap();
        let place = (id, state.epoch + 1);
        let mut payables: Vec<_> =
            books.open.iter().filter_map(|item| item.to_payable(&secret, place).unwrap()).collect();
        if self.rng.random_ratio(1, 3) {
            payables.truncate(payables.len().div_ceil(2));
        }
        let purse = Purse {
            unit: Unit::of_decimals(18).unwrap(),
            spendable: state.spendable(),
            carries: self.world.reader.carries(id).await.unwrap(),
            is_thawing: state.is_thawing(),
        };
        let policy = (Fee { bps: FEE_BPS, operator: Some(OPERATOR) }, Limits::default());
        let taken = candidates.iter().map(|candidate| candidate.spent).collect();
        let spent = (state.spent, &taken);
        let proposal = rules::propose_apart(&payables, &purse, policy, spent).unwrap();
        let is_stuck = !candidates.is_empty() && !candidates.iter().any(|known| known.fits);
        if proposal.rows.is_empty() && (!is_stuck || taken.contains(&state.spent)) {
            return;
        }
        self.retired += usize::from(proposal.rows.is_empty());
        self.rivals += usize::from(!candidates.is_empty());
        assert!(
            proposal.total().unwrap() <= state.spendable(),
            "a statement spends money that is not final"
        );
        let mut paid = BTreeMap::new();
        for leaf in &proposal.leaves {
            let Some(of) = leaf.paid else { continue };
            let item = books.open.iter().find(|item| item.item == of.item).unwrap();
            let work = item.external_id.parse().unwrap();
            assert!(paid.insert(work, leaf.amount).is_none(), "work appears twice");
            let places = self.places.entry(work).or_default();
            self.moved += usize::from(places.iter().any(|known| *known != id));
            places.insert(id);
        }
        let signed =
            self.world.book.record_statement(id, &state, &proposal, FEE_BPS).await.unwrap();
        let signed = self.world.book.sign_statement(signed.id, &attester()).await.unwrap();
        self.model.signed.push((signed, paid));
    }

    /// Puts a signed statement on the chain if it follows its deposit's last one.
    async fn settle(&mut self) {
        let finalised = self.world.chain.finalised().await.unwrap();
        let ready: Vec<_> = self
            .model
            .signed
            .iter()
            .map(|(signed, _)| signed.statement.clone())
            .filter(|statement| {
                let deposit = replay(&self.world.blocks, finalised, statement.key.id());
                let total = statement.spent.get().checked_sub(deposit.spent);
                statement.epoch == deposit.epoch + 1
                    && total.is_some_and(|total| total <= deposit.balance)
            })
            .collect();
        let Some(statement) = ready.choose(&mut self.rng).cloned() else { return };
        let deposit = replay(&self.world.blocks, finalised, statement.key.id());
        let rows = contracts::rows::decode(&statement.rows).unwrap();
        let total: u64 = rows.iter().map(|(_, units)| units).sum();
        if deposit.spent + total != statement.spent.get() {
            return; // Its signature pins another predecessor.
        }
        self.world.settle(statement).await;
    }

    async fn claim(&mut self) {
        let credits: Vec<_> = credits(&self.world.blocks).into_iter().collect();
        let Some((provider, units)) = credits.choose(&mut self.rng).copied() else { return };
        let recipient = crate::world::payout(provider);
        let units = Units::new(units);
        self.world
            .mine(vec![Event::Claimed {
                provider,
                token: token(),
                recipient,
                units,
                claim_nonce: 0,
            }])
            .await;
    }

    async fn thaw(&mut self) {
        let id = deposit_key(self.any_deposit()).id();
        let balance = replay(&self.world.blocks, 0, id).balance;
        if balance > 0 {
            let is_all = self.rng.random_ratio(1, 2);
            let units = if is_all { balance } else { self.rng.random_range(0..=balance) };
            let units = Units::new(units);
            self.world.mine(vec![Event::Thawed { deposit: id, units, ends: 1 }]).await;
        }
    }

    async fn withdraw(&mut self) {
        let key = deposit_key(self.any_deposit());
        let thawing = replay(&self.world.blocks, 0, key.id()).thawing;
        if thawing > 0 {
            let units = Units::new(thawing);
            let event = Event::Withdrawn { deposit: key.id(), recipient: key.requestor, units };
            self.world.mine(vec![event]).await;
        }
    }

    async fn check(&self) {
        let finalised = self.world.chain.finalised().await.unwrap();
        let mut position = (0_u128, 0_u128);
        for number in DEPOSITS {
            let id = deposit_key(number).id();
            let model = replay(&self.world.blocks, finalised, id);
            let DepositState { balance, thawing, spent, epoch, deposited_final, withdrawn, .. } =
                self.world.reader.deposit_state(id).await.unwrap();
            let ledger = Deposit {
                balance: balance.get(),
                thawing: thawing.get(),
                spent: spent.get(),
                epoch,
                funded_final: deposited_final.get().try_into().unwrap(),
                withdrawn: withdrawn.get().try_into().unwrap(),
            };
            assert_eq!(ledger, model, "deposit {number}");
            position.0 += u128::from(model.funded_final) * UNIT;
            position.1 += u128::from(model.withdrawn + model.thawing + model.spent) * UNIT;
        }
        let ledger: BTreeMap<_, _> = self
            .world
            .reader
            .credits()
            .await
            .unwrap()
            .iter()
            .map(|c| (c.provider, c.units.get()))
            .collect();
        assert_eq!(ledger, credits(&self.world.blocks));
        self.check_work(position).await;
        assert_eq!(
            verify::facts(&self.world.ledger, &self.world.blocks, u64::MAX).await.unwrap(),
            []
        );
        assert_eq!(invariants::violations(&self.world.ledger).await.unwrap(), []);
    }

    /// What is due and what is available, from promises and settled statements.
    async fn check_work(&self, (deposited, debits): (u128, u128)) {
        let books = self.world.reader.books(ORGANISATION).await.unwrap().unwrap();
        let mut reserved = 0;
        let open: BTreeMap<u64, _> =
            books.open.iter().map(|item| (item.external_id.parse().unwrap(), item)).collect();
        for (work, accepted) in &self.model.accepted {
            let settled = self.model.settled(&self.world.blocks, *work);
            let highest = i128::try_from(self.model.highest[work]).unwrap();
            assert!(settled <= highest, "work {work} was paid {settled} of {highest}");
            let due = i128::try_from(*accepted).unwrap() - settled;
            match open.get(work) {
                Some(item) => {
                    assert_eq!(item.due().unwrap(), due, "work {work}");
                    reserved += item.reserved().unwrap().base_units();
                    assert!(item.reserved().unwrap().base_units() >= due.max(0).unsigned_abs());
                }
                None => assert_eq!(due, 0, "work {work} is not open and not paid"),
            }
        }
        let carried = books.position.carried.base_units();
        let fee = Amount::new(reserved).share(FEE_BPS).unwrap().base_units();
        let available = i128::try_from(deposited).unwrap()
            - i128::try_from(debits + carried + reserved + fee).unwrap();
        assert_eq!(books.available(FEE_BPS).unwrap(), available);
    }
}

#[tokio::test]
async fn random_operations_agree_with_a_model_in_memory() {
    let (seeds, steps) =
        if std::env::var_os("QUITTANCE_TEST_DEEP").is_some() { (200, 400) } else { (8, 120) };
    let (mut settled, mut moved, mut retired, mut rivals) = (0, 0, 0, 0);
    for seed in 0..seeds {
        println!("seed {seed}");
        let mut run = Run::new(seed).await;
        for _ in 0..steps {
            run.step().await;
            run.check().await;
        }
        assert_eq!(verify::book(&run.world.ledger, &secret()).await.unwrap(), []);
        assert_eq!(invariants::violations(&run.world.ledger).await.unwrap(), []);
        moved += run.moved;
        retired += run.retired;
        rivals += run.rivals;
        settled += run
            .model
            .signed
            .iter()
            .filter(|(s, _)| Model::is_settled(&run.world.blocks, s))
            .count();
    }
    println!("{settled} settled, {rivals} with rivals, {retired} empty, {moved} moved");
    assert!(settled > 20, "only {settled} statements were settled; the run tests too little");
    assert!(rivals > 8 && retired > 0 && moved > 0, "{rivals}, {retired}, {moved}: too few");
}
