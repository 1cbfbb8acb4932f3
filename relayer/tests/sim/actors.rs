//! Everybody around the relayer: sources of work, requestors, providers, strangers, the operator.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use alloy::{
    consensus::{SignableTransaction, Transaction, TxEnvelope, transaction::Recovered},
    network::TxSignerSync,
    primitives::{Address, Bytes, TxKind, U256},
    sol_types::SolCall,
};
use contracts::Settlement;
use ledger::{
    read::Reader,
    rules::Verdict,
    workload::{Evidence, Item, Kind, Outcome, Price, Rate, Record, Revision, WorkResult},
};
use rand::Rng;
use relayer::{manifests::Manifests, recover::recover};

use crate::{
    chain::unsigned,
    judge::{WorkKey, base_units},
    setting::{self, DECIMALS, Setting, organisation, requestor, stranger, transaction},
    world::{WRITE_PLACES, Work, World, address_of_machine},
};

/// Machines of a world.
const MACHINES: usize = 12;
/// Pieces of work of a world.
const MAX_WORKS: usize = 60;
const SOURCE: &str = "salad";

impl World {
    /// A source sends records: new ones, the same again, corrections, and what contradicts itself.
    pub(crate) async fn take_in(&mut self) {
        if !self.is_up().await {
            return;
        }
        let mut records = std::mem::take(&mut self.unanswered);
        for _ in 0..self.rng.random_range(1..=4) {
            records.extend(self.next_record());
        }
        self.send_records(records).await;
    }

    fn next_record(&mut self) -> Option<Record> {
        let chance = self.rng.random_range(0..100);
        if self.works.is_empty() || (chance < 55 && self.works.len() < MAX_WORKS) {
            return Some(self.new_record());
        }
        let nth = self.rng.random_range(0..self.works.len());
        let work = self.works.values().nth(nth)?.clone();
        Some(match chance {
            0..70 => {
                self.mark("the same record was sent again");
                work.newest
            }
            70..85 => self.revised(&work),
            85..93 => self.conflicting(&work),
            _ => self.misfit(),
        })
    }

    fn new_record(&mut self) -> Record {
        let number = self.works.len();
        let owner = self.rng.random_range(0..2);
        let machine = self.rng.random_range(0..MACHINES);
        let ((price, rate), evidence) = (self.price(owner), self.evidence());
        let result = match self.rng.random_range(0..12) {
            0 => WorkResult::Failed,
            1 => WorkResult::Interrupted,
            _ => WorkResult::Completed,
        };
        let ended = self.now() - self.rng.random_range(0..600_000);
        let record = Record {
            item: Item {
                source: SOURCE.into(),
                external_id: format!("w{number}"),
                organisation: organisation(owner).into(),
                machine: format!("machine-{machine}"),
                kind: Kind::Batch,
                container_group: None,
                gpu_class: None,
                vcpu: None,
                memory_mb: None,
                priority: None,
                country: None,
                started_ms: ended - 60_000,
                stopped_ms: ended,
            },
            revision: Revision { revision: 0, result, price, rate, evidence },
            payout: None,
        };
        let has_differed = record.hold_reason().is_some();
        let decided = BTreeSet::new();
        let work =
            Work { newest: record.clone(), token: owner, is_held: false, has_differed, decided };
        self.works.insert(key(&record), work);
        self.owe(&record);
        record
    }

    /// Up to half a USD, at least a unit; now and then in base units, with the rate that led to them.
    fn price(&mut self, token: usize) -> (Price, Option<Rate>) {
        let micro_usd = self.rng.random_range(100..500_000_u64);
        if self.rng.random_bool(0.2) {
            let amount = ledger::Amount::new(base_units(micro_usd, token) + 7);
            let rate = Rate {
                usd_per_token: "0.5".parse().expect("a decimal"),
                source: "source".into(),
                at_ms: self.now(),
            };
            return (Price::Token(amount), Some(rate));
        }
        let text = format!("{}.{:06}", micro_usd / 1_000_000, micro_usd % 1_000_000);
        (Price::Usd(text.parse().expect("a decimal")), None)
    }

    fn evidence(&mut self) -> Evidence {
        if !self.rng.random_bool(0.1) {
            return Evidence::default();
        }
        let digest = Some(alloy::primitives::B256::repeat_byte(1));
        let differs = self.rng.random_bool(0.5);
        let mirror_digest = Some(alloy::primitives::B256::repeat_byte(if differs { 2 } else { 1 }));
        if differs {
            self.mark("mirrored work differed");
        }
        Evidence { digest, mirror_digest, ..Evidence::default() }
    }

    fn revised(&mut self, work: &Work) -> Record {
        let mut record = work.newest.clone();
        record.revision.revision += self.rng.random_range(1..=2);
        (record.revision.price, record.revision.rate) = self.price(work.token);
        record.revision.evidence = self.evidence();
        if self.rng.random_bool(0.1) {
            record.revision.result = WorkResult::Failed;
        } else {
            record.revision.result = WorkResult::Completed;
        }
        let (key, before) = (key(&record), work.newest.revision.revision);
        let owed = self.owe(&record);
        let was = self.judge.owed[&key].amounts.get(&before).copied().unwrap_or_default();
        let paid = self.judge.books().paid.get(&key).map_or(0, |paid| paid.sum);
        self.mark(match (owed < was, paid > 0) {
            (true, true) => "a correction downwards after payment",
            (true, false) => "a correction downwards before payment",
            (false, true) => "a correction upwards after payment",
            (false, false) => "a correction upwards before payment",
        });
        let known = self.works.get_mut(&key).expect("known work");
        known.has_differed |= record.hold_reason().is_some();
        known.newest = record.clone();
        record
    }

    /// The same revision with another amount: a conflict, to be refused.
    fn conflicting(&mut self, work: &Work) -> Record {
        let mut record = work.newest.clone();
        record.revision.price = Price::Usd("0.999999".parse().expect("a decimal"));
        record
    }

    /// A record that is to be refused outright.
    fn misfit(&mut self) -> Record {
        let mut record = self.works.values().next().expect("there is work").newest.clone();
        record.item.organisation = "nobody".into();
        record.item.external_id = format!("misfit-{}", self.step);
        record
    }

    /// Remembers what a record is worth, by the judge's own arithmetic.
    fn owe(&mut self, record: &Record) -> u128 {
        let token = usize::from(record.item.organisation == organisation(1));
        let amount = match (&record.revision.result, &record.revision.price) {
            (WorkResult::Completed, Price::Token(amount)) => amount.base_units(),
            (WorkResult::Completed, Price::Usd(usd)) => {
                let text = usd.to_string();
                let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
                let micro: u64 = format!("{whole}{part:0<6}").parse().expect("millionths");
                base_units(micro, token)
            }
            _ => 0,
        };
        let owed = self.judge.owed.entry(key(record)).or_default();
        owed.amounts.insert(record.revision.revision, amount);
        amount
    }

    async fn send_records(&mut self, records: Vec<Record>) {
        for record in &records {
            if !self.sent.contains(record) {
                self.sent.push(record.clone());
            }
        }
        self.arm(WRITE_PLACES);
        let (tariff, now) = (self.process.tariff(), self.now());
        let Some(running) = &self.process.running else { return };
        let answered = self.net.until_cut(running.book.take_in(&records, &tariff, now)).await;
        self.net.cut_after(None);
        match answered {
            Ok(Ok(outcomes)) => {
                // Not before: what a crash kept from being stored is known once it is sent again.
                self.said.records(&records);
                for (record, outcome) in records.iter().zip(outcomes) {
                    self.hear(record, &outcome);
                }
            }
            Ok(Err(error)) => self.fail(format!("intake: {}", indexer::chain_of(&error))),
            Err(place) => {
                self.unanswered = records;
                self.crash(&place);
            }
        }
    }

    fn hear(&mut self, record: &Record, outcome: &Outcome) {
        let (id, revision) = (&record.item.external_id, record.revision.revision);
        self.say(format!("intake {id}/{revision}: {outcome:?}"));
        self.mark(match outcome {
            Outcome::Accepted { .. } => "a record was accepted",
            Outcome::Unaddressed { .. } => "a record was unaddressed",
            Outcome::Unfunded { .. } => "a record was unfunded",
            Outcome::Released { .. } => "a record of released work was kept",
            Outcome::Duplicate => "a record was a duplicate",
            Outcome::Conflict { .. } => "a record was a conflict",
            Outcome::Rejected { .. } => "a record was rejected",
            #[allow(unreachable_patterns, reason = "outcomes may be added")]
            _ => "another outcome",
        });
        let is_misfit = !self.works.contains_key(&key(record));
        if is_misfit && outcome.is_kept() {
            self.fail(format!("{id} was taken for an organisation that nobody knows"));
        }
        if outcome.is_kept() {
            self.kept.insert((key(record), revision));
        }
        let is_conflict =
            record.revision.price == Price::Usd("0.999999".parse().expect("a decimal"));
        if is_conflict && outcome.is_kept() {
            self.fail(format!("{id}/{revision} was taken although another one is known"));
        }
    }

    /// Somebody does something.
    pub(crate) async fn act(&mut self) {
        match self.rng.random_range(0..100) {
            0..18 => self.fund(),
            18..23 => self.thaw(),
            23..28 => self.withdraw(),
            28..46 => self.name_machine().await,
            46..66 => self.close().await,
            66..76 => self.submit_for_us(),
            76..83 => self.claim_for_somebody(),
            83..87 => self.register_something(),
            87..90 => self.thaw_junk(),
            90..95 => self.decide().await,
            95..97 => self.refill_sender(),
            97 => self.back_up().await,
            98 if self.rng.random_bool(0.2) => self.adopt().await,
            98 => self.repair().await,
            _ => self.fund_others(),
        }
    }

    fn call(&self, from: Address, input: impl SolCall) {
        let settlement = Setting::get().settlement;
        self.transact(from, settlement, input.abi_encode().into());
    }

    fn transact(&self, from: Address, to: Address, input: Bytes) {
        let chain = &mut self.net.outside().chain;
        let mut nonce = chain.head().account(from).0;
        while chain.pool.contains_key(&(from, nonce)) {
            nonce += 1;
        }
        let tx = transaction(nonce, TxKind::Call(to), input, U256::ZERO);
        chain.force(unsigned(tx, from));
    }

    fn random_deposit(&mut self) -> (usize, contracts::eip712::DepositKey) {
        let owner = self.rng.random_range(0..2);
        let keys = &self.deposits[owner];
        (owner, keys[self.rng.random_range(0..keys.len())].clone())
    }

    fn fund(&mut self) {
        let (owner, key) = self.random_deposit();
        let tokens = self.rng.random_range(1..4_u64);
        let units = tokens * 10_u64.pow(u32::from(DECIMALS[owner].min(6)));
        self.say(format!("{} funds {units} units", organisation(owner)));
        self.call(requestor(owner), Settlement::depositCall { key: key.into(), units });
    }

    fn thaw(&mut self) {
        let (owner, key) = self.random_deposit();
        let id = key.id();
        let whole = self.judge.books().balance(id);
        let units =
            if self.rng.random_bool(0.4) { whole } else { self.rng.random_range(0..2_000_000) };
        self.say(format!("{} thaws {units} units of {id}", organisation(owner)));
        self.call(requestor(owner), Settlement::thawCall { key: key.into(), units });
    }

    fn withdraw(&mut self) {
        let (owner, key) = self.random_deposit();
        self.say(format!("{} withdraws from {}", organisation(owner), key.id()));
        let to = requestor(owner);
        self.call(to, Settlement::withdrawCall { key: key.into(), to });
    }

    fn fund_others(&mut self) {
        let (_, key) = self.random_deposit();
        self.say("a stranger funds a deposit of somebody else".into());
        self.mark("a stranger funded a deposit");
        self.call(stranger(1), Settlement::depositCall { key: key.into(), units: 1000 });
    }

    /// Thaws of deposits that nobody ever funded.
    fn thaw_junk(&mut self) {
        let (_, mut key) = self.random_deposit();
        key.requestor = stranger(2);
        self.mark("a stranger thawed junk");
        self.call(stranger(2), Settlement::thawCall { key: key.into(), units: 0 });
    }

    /// A stranger takes a `settle` that it saw in a pool and sends it itself, whole, in part, or spoiled.
    fn submit_for_us(&mut self) {
        let sender = setting::sender().address();
        let calls: Vec<Settlement::settleCall> = {
            let outside = self.net.outside();
            let ours = outside.broadcast.iter().filter_map(|hash| outside.chain.seen.get(hash));
            ours.filter(|tx| tx.signer() == sender)
                .filter_map(|tx| Settlement::settleCall::abi_decode(tx.input()).ok())
                .collect()
        };
        if calls.is_empty() {
            return;
        }
        // The newest ones are the ones that may still settle.
        let from_end = self.rng.random_range(0..calls.len().min(4));
        let mut call = calls[calls.len() - 1 - from_end].clone();
        match self.rng.random_range(0..4) {
            0 => {
                let keep = self.rng.random_range(0..call.statements.len());
                let kept = call.statements.swap_remove(keep);
                call.statements = vec![kept];
            }
            1 => {
                call.statements[0].manifest.0[0] ^= 1;
                self.mark("a stranger submitted a spoiled statement");
            }
            _ => {}
        }
        self.say("a stranger submits our statements".into());
        self.mark("a stranger submitted our statements");
        self.call(stranger(1), call);
    }

    fn claim_for_somebody(&mut self) {
        let providers = u32::try_from(self.judge.books().providers.len()).expect("few");
        if providers == 0 {
            return;
        }
        let token = Setting::get().tokens[self.rng.random_range(0..2)];
        let count = self.rng.random_range(1..4);
        let numbers = (0..count).map(|_| self.rng.random_range(1..=providers + 1)).collect();
        self.say(format!("a stranger claims for {numbers:?}"));
        self.call(stranger(1), Settlement::claimCall { token, providers: numbers });
    }

    /// A stranger registers an address, which may be one that we are about to register.
    fn register_something(&mut self) {
        let machine = self.rng.random_range(0..MACHINES);
        let is_ours = self.rng.random_bool(0.5);
        let address = if is_ours { address_of_machine(machine) } else { stranger(3) };
        if is_ours {
            self.mark("a stranger registered a machine's address");
        }
        self.say(format!("a stranger registers {address}"));
        self.call(stranger(2), Settlement::registerCall { payouts: vec![address] });
    }

    /// A machine gets its owner's address, or another one.
    async fn name_machine(&mut self) {
        let machine = self.rng.random_range(0..MACHINES);
        let is_change = self.payees.contains_key(&machine) && self.rng.random_bool(0.1);
        let address = if is_change {
            self.mark("a machine changed hands");
            setting::owner(12 + machine % 4)
        } else if self.payees.contains_key(&machine) {
            return;
        } else {
            address_of_machine(machine)
        };
        self.set_payee(machine, address).await;
    }

    async fn set_payee(&mut self, machine: usize, address: Address) {
        if !self.is_up().await {
            return;
        }
        self.arm(WRITE_PLACES);
        let now = self.now();
        let Some(running) = &self.process.running else { return };
        let name = format!("machine-{machine}");
        self.said.payee(&name, address);
        let named = self.net.until_cut(running.book.set_payee(&name, address, (0, now))).await;
        self.net.cut_after(None);
        match named {
            Ok(Ok(_)) => {
                self.say(format!("{name} is paid at {address}"));
                self.payees.insert(machine, address);
            }
            Ok(Err(error)) => self.fail(format!("payee: {}", indexer::chain_of(&error))),
            Err(place) => self.crash(&place),
        }
    }

    /// The operator closes what ended so far.
    async fn close(&mut self) {
        if !self.is_up().await {
            return;
        }
        self.arm(WRITE_PLACES);
        let now = self.now();
        let until = now - self.rng.random_range(0..900_000);
        let Some(running) = &self.process.running else { return };
        let closed = self.net.until_cut(running.book.close_until(until, now)).await;
        self.net.cut_after(None);
        match closed {
            Ok(Ok(())) => self.say(format!("closed until {until}")),
            Ok(Err(error)) => self.fail(format!("closing: {}", indexer::chain_of(&error))),
            Err(place) => self.crash(&place),
        }
    }

    /// Row ids of items by natural key.
    async fn items(&self) -> Vec<(WorkKey, i64)> {
        let query = "select source, external_id, id from item order by id";
        let rows = self.witness.rows(query).await;
        rows.into_iter().map(|(source, id, item)| ((source, id), item)).collect()
    }

    /// The operator holds, disputes, releases or pays a piece of work.
    async fn decide(&mut self) {
        if !self.is_up().await {
            return;
        }
        let items = self.items().await;
        if items.is_empty() {
            return;
        }
        let (key, item) = items[self.rng.random_range(0..items.len())].clone();
        let verdict = ["hold", "dispute", "release", "pay", "pay"][self.rng.random_range(0..5)];
        self.decide_about(&key, item, verdict).await;
    }

    async fn decide_about(&mut self, key: &WorkKey, item: i64, verdict: &str) {
        self.arm(WRITE_PLACES);
        let now = self.now();
        let Some(running) = &self.process.running else { return };
        let decision = Verdict::from_name(verdict).expect("a verdict");
        if let Some(work) = self.works.get_mut(key) {
            work.decided.insert(decision.name());
        }
        let times = (self.process.tariff().fee_bps, now);
        let decided = self
            .net
            .until_cut(running.book.decide(item, decision, "the operator says so", times))
            .await;
        self.net.cut_after(None);
        match decided {
            Ok(Ok(())) => {
                self.say(format!("{verdict} {}", key.1));
                self.mark("the operator decided");
            }
            Ok(Err(ledger::Error::Undecidable(why))) => {
                self.say(format!("{verdict} {} is refused: {why}", key.1));
            }
            Ok(Err(error)) => self.fail(format!("decision: {}", indexer::chain_of(&error))),
            Err(place) => self.crash(&place),
        }
    }

    async fn back_up(&mut self) {
        if self.mix.amnesia == 0 || !self.is_up().await {
            return;
        }
        match self.process.back_up().await {
            Ok(violations) if violations.is_empty() => self.mark("a backup was taken"),
            Ok(violations) => self.fail(format!("a backup is unsound: {violations:?}")),
            Err(error) => self.fail(format!("backup: {}", indexer::chain_of(&error))),
        }
    }

    /// The database is lost. Sources send everything again, and the operator names the machines' addresses again.
    pub(crate) fn lose_database(&mut self) {
        let wants_backup = self.rng.random_bool(0.6);
        let is_backup = self.process.lose(wants_backup);
        self.said.forget();
        let what = if is_backup {
            "an older backup took the database's place"
        } else {
            "the database was lost"
        };
        self.say(what.into());
        self.mark(what);
        self.kept.clear();
        self.payees.clear();
        self.unanswered = self.sent.clone();
        self.forget_finality();
    }

    /// Somebody who has the sending account's key uses it.
    pub(crate) fn use_stolen_key(&mut self) {
        let sender = setting::sender();
        let mut outside = self.net.outside();
        let nonce = outside.chain.head().account(sender.address()).0;
        let mut tx = transaction(nonce, TxKind::Call(stranger(3)), Bytes::new(), U256::ZERO);
        tx.gas_limit = 21_000;
        let signature = sender.sign_transaction_sync(&mut tx).expect("a key signs");
        let envelope = TxEnvelope::Eip1559(tx.into_signed(signature));
        outside.chain.force(Arc::new(Recovered::new_unchecked(envelope, sender.address())));
        drop(outside);
        self.say(format!("somebody else sends tx nonce {nonce}"));
        self.mark("the sender's key was stolen");
    }

    /// The operator does what a frozen relayer asks for.
    pub(crate) async fn repair(&mut self) {
        if !(self.needs.manifests || self.needs.sender) || !self.is_up().await {
            return;
        }
        self.arm(WRITE_PLACES);
        self.arm_operator();
        let now = self.now();
        let Some(running) = &self.process.running else { return };
        let (config, reader) = (&self.process.config, Reader::new(running.ledger.clone()));
        let (needs, secret) = (self.needs, setting::secret());
        let sender = running.sender(config);
        let done = self.net.until_cut(async {
            let mut said = Vec::new();
            if needs.manifests {
                let manifests = Manifests::new(config, secret.clone());
                let found = recover(&manifests, &secret, &running.book, &reader, now).await?;
                said.push(("manifests", found.imported, found.refused.join("\n")));
            }
            if needs.sender {
                said.push(match sender.recover(now).await {
                    Ok(found) => ("transactions", found.imported + found.other, String::new()),
                    // It is not final yet, or the endpoint does not tell; the operator tries again.
                    Err(relayer::Error::Usage(_) | relayer::Error::Stalled(_)) => {
                        ("transactions that wait", 0, String::new())
                    }
                    Err(error) => return Err(error),
                });
            }
            Ok(said)
        });
        let done = done.await;
        self.net.cut_after(None);
        match done {
            Ok(Ok(said)) => {
                self.say(format!("the operator repairs: {said:?}"));
                let mut is_early = false;
                for (what, count, refused) in said {
                    for reason in refused.lines() {
                        // The operator does that, and tries again.
                        if reason.contains("let serve read the chain first") {
                            is_early = true;
                        } else {
                            self.fail(format!("a manifest of our own is refused: {reason}"));
                        }
                    }
                    if count > 0 {
                        self.mark(&format!("{what} were recovered"));
                    }
                }
                if !is_early {
                    self.needs = Default::default();
                }
            }
            Ok(Err(error)) if error.is_transient() => {
                self.say(format!("repair: {}", indexer::chain_of(&error)));
            }
            Ok(Err(error)) => self.fail(format!("repair: {}", indexer::chain_of(&error))),
            Err(place) => self.crash(&place),
        }
    }

    /// The operator gives its word for the transactions of the sending account.
    pub(crate) async fn adopt(&mut self) {
        if !self.needs.sender || !self.is_up().await {
            return;
        }
        self.arm_operator();
        let now = self.now();
        let Some(running) = &self.process.running else { return };
        let sender = running.sender(&self.process.config);
        let done = self.net.until_cut(sender.adopt("the operator knows them", now)).await;
        self.net.cut_after(None);
        match done {
            Ok(Ok(until)) => {
                self.say(format!("the operator adopts tx nonces below {until}"));
                self.mark("the operator adopted transactions");
                self.needs.sender = false;
            }
            // A node that lags; the operator tries again.
            Ok(Err(error)) if error.is_transient() || matches!(error, relayer::Error::Usage(_)) => {
                self.say(format!("adopt: {}", indexer::chain_of(&error)));
            }
            Ok(Err(error)) => self.fail(format!("adopt: {}", indexer::chain_of(&error))),
            Err(place) => self.crash(&place),
        }
    }

    /// Learns from the ledger what is kept from being paid, and whether somebody who may has decided so.
    pub(crate) async fn heed_decisions(&mut self) {
        let query = "select i.source, i.external_id,
                case d.verdict when 'hold' then 0 when 'dispute' then 1 when 'release' then 2 else 3 end
                + case when d.reason like 'deposit %' then 10 when d.reason like 'output digests %' then 20 else 0 end
             from decision d join item i on i.id = d.item order by d.id";
        let mut last: BTreeMap<WorkKey, i64> = BTreeMap::new();
        for (source, id, said) in self.witness.rows(query).await {
            let key = (source, id);
            let Some(work) = self.works.get(&key) else {
                return self.fail(format!("{key:?} was decided about and is not known"));
            };
            let verdict =
                ["hold", "dispute", "release", "pay"][usize::try_from(said % 10).unwrap()];
            let was_held = last.get(&key).is_some_and(|last| *last < 2);
            let may_be = match said / 10 {
                0 => work.decided.contains(verdict),
                1 => was_held,
                _ => work.has_differed,
            };
            if !may_be {
                return self.fail(format!("{key:?}: {verdict}, which nobody has reason to decide"));
            }
            if said / 10 == 1 {
                self.mark(match verdict {
                    "pay" => "held work was paid before a thaw ended",
                    _ => "held work was let go before a thaw ended",
                });
            }
            last.insert(key, said % 10);
        }
        for (key, work) in &mut self.works {
            work.is_held = last.get(key).is_some_and(|last| *last != 3);
        }
    }

    /// The sending account has next to nothing.
    pub(crate) fn empty_sender(&mut self) {
        self.set_sender_balance(U256::from(1_000_000_000_000_u64));
        self.say("the sender runs dry".into());
        self.mark("the sender ran dry");
    }

    pub(crate) fn refill_sender(&mut self) {
        self.set_sender_balance(U256::from(10).pow(U256::from(24)));
        self.say("the sender is refilled".into());
    }

    fn set_sender_balance(&self, balance: U256) {
        self.net.outside().chain.set_balance(setting::sender().address(), balance);
    }

    /// What people do in the end, so that everything can be paid: fund, name addresses, decide, close.
    pub(crate) async fn prepare_end(&mut self) {
        self.refill_sender();
        for owner in 0..2 {
            for key in self.deposits[owner].clone() {
                let units = 100_000_000;
                self.call(
                    requestor(owner),
                    Settlement::depositCall { key: key.clone().into(), units },
                );
                self.call(requestor(owner), Settlement::thawCall { key: key.into(), units: 0 });
            }
        }
        if !self.is_up().await {
            return self.fail("the process does not begin without faults".into());
        }
        let records = std::mem::take(&mut self.unanswered);
        self.send_records(records).await;
        // Again for those that have one: an answer may have got lost in a crash.
        for machine in 0..MACHINES {
            let address = self.payees.get(&machine).copied();
            self.set_payee(machine, address.unwrap_or_else(|| address_of_machine(machine))).await;
        }
        // Whatever is kept from being paid by now, for whatever reason, is paid, save a few.
        let query = "select i.source, i.external_id, i.id from item i join decision d on d.item = i.id
             where d.id = (select max(id) from decision where item = i.id) and d.verdict <> 'pay' order by i.id";
        for (source, id, item) in self.witness.rows(query).await {
            if self.rng.random_bool(0.8) {
                self.decide_about(&(source, id), item, "pay").await;
            } else {
                self.mark("work stayed held to the end");
            }
        }
        let Some(running) = &self.process.running else { return };
        if let Err(error) = running.book.close_until(self.now() + 100_000_000, self.now()).await {
            self.fail(format!("closing: {}", indexer::chain_of(&error)));
        }
    }
}

fn key(record: &Record) -> WorkKey {
    (record.item.source.clone(), record.item.external_id.clone())
}
