//! A small world whose statements the product's pure rules propose: organisations, machines, days of work, revisions.

use std::collections::BTreeMap;

use alloy::primitives::{Address, B256, I256};
use contracts::eip712;
use ledger::{
    Amount, Decimal, Unit, Units,
    manifest::{Paid, Secret, Tree},
    rules::{self, Fee, Limits, Payable, Purse},
    statement::Statement,
    workload::{Price, Rate, Record},
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use relayer::{
    intake::{self, Parsed},
    opinion::{self, Case, DepositKey, Event, Leaf, Manifest, Organisation, WorkloadFile},
};

/// The operator's number.
pub(crate) const OPERATOR: u32 = 1;
const OPERATOR_PAYOUT: Address = Address::repeat_byte(0xee);
const CHAIN: u64 = 137;
const CONTRACT: Address = Address::repeat_byte(0xcc);
const SECRET: B256 = B256::repeat_byte(0x5e);
/// Token, decimals, USD per token.
const TOKENS: [(Address, u8, &str); 2] =
    [(Address::repeat_byte(0xa1), 18, "0.247"), (Address::repeat_byte(0xa2), 6, "1.01")];

/// What the product's side of the world knows of a workload.
struct Known {
    record: Record,
    /// At which USD of it were converted last.
    rate: Option<Rate>,
    amount: i128,
    settled: i128,
    provider: u32,
}

/// The product's side of a deposit.
#[derive(Default)]
struct Till {
    key: DepositKey,
    epoch: u32,
    spent: u64,
    carries: BTreeMap<u32, Amount>,
}

/// A world that has run, and the case that it leaves.
pub(crate) struct World {
    pub(crate) case: Case,
    rng: ChaCha8Rng,
    known: BTreeMap<(String, String), Known>,
    tills: Vec<Till>,
    day: u32,
}

impl World {
    /// Some days of work, each stated after it was taken in.
    pub(crate) fn run(seed: u64) -> Self {
        let mut world = Self::new(seed);
        for _ in 0..world.rng.random_range(2..5) {
            let lines = world.lines();
            world.take_in(&lines);
            for organisation in 0..world.tills.len() {
                world.state(organisation);
            }
        }
        world
    }

    fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut case = Case {
            chain_id: CHAIN,
            contract: CONTRACT,
            secret: SECRET,
            operator: Some(OPERATOR_PAYOUT),
            fee_bps: vec![rng.random_range(0..=300)],
            is_over: true,
            ..Case::default()
        };
        case.events.push(Event::Registered { provider: OPERATOR, payout: OPERATOR_PAYOUT });
        for (token, decimals, rate) in TOKENS {
            case.events.push(Event::TokenRegistered { token, decimals });
            case.rates.insert(token, vec![opinion::Decimal::read(rate).unwrap()]);
        }
        let mut tills = Vec::new();
        for (index, name) in ["acme", "globex", "initech"].into_iter().enumerate() {
            let (token, ..) = TOKENS[index % 2];
            let byte = u8::try_from(index).unwrap();
            let key = DepositKey {
                requestor: Address::repeat_byte(byte + 1),
                signer: Address::repeat_byte(0xaa),
                cosigner: Address::ZERO,
                token,
                salt: B256::repeat_byte(byte),
            };
            case.events.push(Event::Deposited { key, units: 1 << 40 });
            let deposits = vec![key.id()];
            case.organisations.push(Organisation { name: name.into(), token, deposits });
            tills.push(Till { key, ..Till::default() });
        }
        let mut payees = Vec::new();
        for machine in 1..=MACHINES {
            let payout = Address::repeat_byte(u8::try_from(machine).unwrap());
            case.events.push(Event::Registered { provider: machine + 1, payout });
            payees.push(format!(
                r#"{{"schema":"payee/1","machine":"m{machine}","address":"{}"}}"#,
                payout.to_string().to_lowercase()
            ));
        }
        let mut world = Self { case, rng, known: BTreeMap::new(), tills, day: 0 };
        world.file(&payees);
        world
    }

    /// Records of one day: new work, revisions of old work, duplicates, conflicts, held and failed work.
    fn lines(&mut self) -> Vec<String> {
        self.day += 1;
        let mut lines = Vec::new();
        for number in 0..self.rng.random_range(10..25) {
            let id = format!("d{}/{number}", self.day);
            let line = self.line(&id, 0);
            lines.push(line);
        }
        let olds: Vec<_> =
            self.known.iter().map(|((_, id), known)| (id.clone(), known.record.clone())).collect();
        for (id, record) in olds {
            match self.rng.random_range(0..12) {
                0 => {
                    let line = self.line(&id, record.revision.revision + 1);
                    lines.push(line);
                }
                // Another record under a known key: a conflict, which changes nothing.
                1 => {
                    let line = self.line(&id, record.revision.revision);
                    lines.push(line);
                }
                _ => {}
            }
        }
        lines
    }

    /// One record. What a revision may not change follows from the id alone.
    fn line(&mut self, id: &str, revision: u32) -> String {
        let fixed = id.bytes().fold(7_u32, |hash, byte| hash.wrapping_mul(31) + u32::from(byte));
        let organisation = ["acme", "globex", "initech"][fixed as usize % 3];
        let machine = fixed / 3 % MACHINES + 1;
        let result = if self.rng.random_range(0..10) == 0 { "failed" } else { "completed" };
        let cents = self.rng.random_range(0..2_000_000_u64);
        let digits = self.rng.random_range(0..10_000_000_u64);
        let price = match self.rng.random_range(0..4) {
            0 => format!(
                r#""amount":"{}{digits:07}","rate":{{"usd_per_token":"0.3","source":"s","at":"2026-11-20T07:00:00Z"}}"#,
                cents % 1_000
            ),
            1 => format!(
                r#""price":{{"currency":"USD","amount":"{}.{digits:07}"}},"rate":{{"usd_per_token":"0.1{digits:07}","source":"s","at":"2026-11-20T07:00:00Z"}}"#,
                cents % 100
            ),
            _ => format!(r#""price":{{"currency":"USD","amount":"0.{cents:07}{digits:07}"}}"#),
        };
        format!(
            r#"{{"schema":"workload/1","source":"salad","external_id":"{id}","revision":{revision},"organisation":"{organisation}","machine":"m{machine}","kind":"render","started_at":"2026-11-{:02}T07:00:00Z","ended_at":"2026-11-{:02}T09:00:00Z","result":"{result}",{price}}}"#,
            self.day_of(id),
            self.day_of(id),
        )
    }

    fn day_of(&self, id: &str) -> u32 {
        id.trim_start_matches('d').split('/').next().unwrap().parse().unwrap()
    }

    fn file(&mut self, lines: &[String]) {
        let file = opinion::file("day.jsonl", lines.join("\n").as_bytes(), "salad").unwrap();
        self.case.files.push(WorkloadFile { source: "salad".into(), file, at_ms: None });
    }

    /// Takes records in on both sides: the product's parser and arithmetic here, the opinion's in the case.
    pub(crate) fn take_in(&mut self, lines: &[String]) {
        self.file(lines);
        let Parsed::Work { records, .. } =
            intake::parse("day.jsonl", lines.join("\n").as_bytes(), "salad").unwrap()
        else {
            panic!("not work")
        };
        for record in records {
            let record = record.unwrap();
            let key = (record.item.source.clone(), record.item.external_id.clone());
            let organisation = self.organisation(&record.item.organisation);
            let (_, decimals, usd) = TOKENS[organisation % 2];
            let usd_per_token: Decimal = usd.parse().unwrap();
            let rate = Rate { usd_per_token, source: String::new(), at_ms: 0 };
            let known = self.known.get(&key);
            let before = known.and_then(|known| known.rate.clone());
            let rate = record.revision.rate.clone().or(before.clone()).unwrap_or(rate);
            let amount = record.amount(&rate, decimals).unwrap().signed().unwrap();
            let provider = record.item.machine[1..].parse::<u32>().unwrap() + 1;
            if known.is_some_and(|known| known.record.revision.revision >= record.revision.revision)
            {
                continue;
            }
            let settled = known.map_or(0, |known| known.settled);
            let is_converted = matches!(record.revision.price, Price::Usd(_));
            let rate = if is_converted { Some(rate) } else { before };
            self.known.insert(key, Known { record, rate, amount, settled, provider });
        }
    }

    /// Makes a workload come to another amount than its record says.
    pub(crate) fn misprice(&mut self, id: &str, amount: i128) {
        self.known.get_mut(&("salad".into(), id.into())).unwrap().amount = amount;
    }

    /// Makes an organisation pay from a new deposit, and from the old one no more.
    pub(crate) fn move_to(&mut self, organisation: usize, salt: B256) {
        let key = DepositKey { salt, ..self.tills[organisation].key };
        self.case.events.push(Event::Deposited { key, units: 1 << 40 });
        self.case.organisations[organisation].deposits = vec![key.id()];
        self.tills[organisation] = Till { key, ..Till::default() };
    }

    /// Makes the product forget that it has paid a workload.
    pub(crate) fn forget(&mut self, id: &str) {
        self.known.get_mut(&("salad".into(), id.into())).unwrap().settled = 0;
    }

    fn organisation(&self, name: &str) -> usize {
        self.case.organisations.iter().position(|known| known.name == name).unwrap()
    }

    /// Proposes by the product's rules and settles what was proposed, until nothing is left.
    pub(crate) fn state(&mut self, organisation: usize) {
        let name = self.case.organisations[organisation].name.clone();
        let secret = Secret::new(SECRET).of_organisation(&name);
        let (_, decimals, _) = TOKENS[organisation % 2];
        let unit = Unit::of_decimals(decimals).unwrap();
        let mut keys = Vec::new();
        let mut payables = Vec::new();
        for (key, known) in &self.known {
            let due = known.amount - known.settled;
            if known.record.item.organisation != name || due == 0 {
                continue;
            }
            let revision = known.record.revision.revision;
            let item = i64::try_from(keys.len()).unwrap();
            let paid = Paid { item, revision, settled: Some(known.settled) };
            let workload = secret.workload_id(&key.0, &key.1, revision);
            payables.push(Payable { paid, workload, provider: known.provider, due });
            keys.push(key.clone());
        }
        let till = &self.tills[organisation];
        let carries = till.carries.clone();
        let purse = Purse { unit, spendable: Units::new(1 << 39), carries, is_thawing: false };
        let bps = self.case.fee_bps[0];
        let fee = Fee { bps, operator: Some(OPERATOR) };
        let proposal = rules::propose(&payables, &purse, fee, Limits::default()).unwrap();
        if proposal.rows.is_empty() {
            return;
        }
        let mut leaves = Vec::new();
        for leaf in &proposal.leaves {
            let name = leaf.paid.map(|paid| {
                let key = &keys[usize::try_from(paid.item).unwrap()];
                self.known.get_mut(key).unwrap().settled += leaf.amount;
                (key.0.clone(), key.1.clone(), paid.revision)
            });
            let amount = I256::try_from(leaf.amount).unwrap();
            leaves.push(Leaf { workload: leaf.workload, provider: leaf.provider, amount, name });
        }
        let till = &mut self.tills[organisation];
        for row in &proposal.rows {
            till.carries.insert(row.provider, row.carry_out);
        }
        till.epoch += 1;
        till.spent += proposal.total().unwrap().get();
        let rows = proposal.rows.iter().map(|row| (row.provider, row.units.get())).collect();
        let manifest = Manifest {
            organisation: name,
            deposit: till.key.id(),
            key: till.key,
            epoch: till.epoch,
            spent: till.spent,
            root: Tree::new(&proposal.leaves).root(),
            rows,
            leaves,
            ..Manifest::default()
        };
        self.case.manifests.push(manifest);
        let last = self.case.manifests.len() - 1;
        sign(&mut self.case, last);
        let event = settled_event(&self.case.manifests[last]);
        self.case.events.push(event);
    }

    /// Workloads that were taken in.
    pub(crate) fn items(&self) -> usize {
        self.known.len()
    }

    /// Workloads that are not paid exactly.
    pub(crate) fn unpaid(&self) -> usize {
        self.known.values().filter(|known| known.amount != known.settled).count()
    }
}

const MACHINES: u32 = 12;

/// Gives a manifest the digest of what it says, by the product's own hashing.
pub(crate) fn sign(case: &mut Case, index: usize) {
    let manifest = &mut case.manifests[index];
    let DepositKey { requestor, signer, cosigner, token, salt } = manifest.key;
    let statement = Statement {
        key: eip712::DepositKey { requestor, signer, cosigner, token, salt },
        epoch: manifest.epoch,
        spent: Units::new(manifest.spent),
        manifest: manifest.root,
        rows: contracts::rows::encode(&manifest.rows).unwrap(),
    };
    manifest.digest = statement.digest(&eip712::domain(CHAIN, CONTRACT));
    assert_eq!(statement.key.id(), manifest.deposit);
}

pub(crate) fn settled_event(manifest: &Manifest) -> Event {
    Event::Settled {
        deposit: manifest.deposit,
        epoch: manifest.epoch,
        spent: manifest.spent,
        root: manifest.root,
        rows: contracts::rows::encode(&manifest.rows).unwrap(),
    }
}
