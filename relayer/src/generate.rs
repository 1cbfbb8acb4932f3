//! Realistic input, seeded: the same seed gives the same bytes.
//!
//! Distributions are those that the pilot's public data suggests: machine classes and prices per hour, session lengths
//! from minutes to whole days, a few organisations that pay most, owners with one machine or a farm, two-hour slices,
//! interruptions, late records, duplicates, corrections and broken records.
#![allow(
    clippy::float_arithmetic,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "draws synthetic input; what becomes money is parsed from text like anybody else's"
)]

use alloy::primitives::{Address, B256, keccak256};
use jiff::{Timestamp, civil::Date, tz::Offset};
use rand::{Rng, SeedableRng, distr::weighted::WeightedIndex, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, LogNormal};
use serde_json::json;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;
/// Shortest and longest slice of a session that is reported as one workload.
const SLICE: std::ops::RangeInclusive<i64> = 10 * MINUTE_MS..=2 * HOUR_MS;

/// What to generate.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Same seed, same bytes.
    pub seed: u64,
    /// First day.
    pub first_day: Date,
    /// Number of days, one file each.
    pub days: u32,
    /// Machines that report on a day.
    pub machines: u32,
    /// Organisations that pay.
    pub organisations: u32,
}

/// A generated file.
#[derive(Debug, Clone)]
pub struct File {
    /// Its name, without a folder.
    pub name: String,
    /// Its content.
    pub content: String,
}

/// A class of machine: name, share in percent, USD per hour by rising priority.
struct Class(&'static str, u32, [f64; 4]);

const CLASSES: [Class; 8] = [
    Class("RTX 3060 (12 GB)", 25, [0.03, 0.047, 0.06, 0.08]),
    Class("RTX 3080 (10 GB)", 20, [0.05, 0.07, 0.09, 0.11]),
    Class("RTX 3090 (24 GB)", 15, [0.08, 0.09, 0.1, 0.12]),
    Class("RTX 4080 (16 GB)", 12, [0.1, 0.12, 0.15, 0.18]),
    Class("RTX 4090 (24 GB)", 15, [0.16, 0.18, 0.23, 0.3]),
    Class("RTX 5090 (32 GB)", 5, [0.2, 0.25, 0.29, 0.35]),
    Class("GTX 1660 Super (6 GB)", 5, [0.02, 0.03, 0.035, 0.04]),
    Class("CPU", 3, [0.048, 0.048, 0.048, 0.048]),
];
const PRIORITIES: [(&str, u32); 4] = [("batch", 45), ("low", 20), ("medium", 15), ("high", 20)];
const KINDS: [(&str, u32); 5] =
    [("inference", 45), ("render", 20), ("simulation", 15), ("transcription", 10), ("batch", 10)];
const RESULTS: [(&str, u32); 3] = [("completed", 96), ("interrupted", 3), ("failed", 1)];
const COUNTRIES: [(&str, u32); 10] = [
    ("US", 45),
    ("CA", 10),
    ("GB", 8),
    ("DE", 7),
    ("PL", 6),
    ("AU", 6),
    ("BR", 6),
    ("FR", 5),
    ("PH", 4),
    ("IN", 3),
];
const GROUPS: [&str; 6] =
    ["sdxl-prod", "llama-chat", "blender-farm", "whisper-batch", "docking-sim", "embed-nightly"];

struct Machine {
    uuid: String,
    class: usize,
    country: &'static str,
}

/// One stay of a machine with one organisation on one day.
struct Session {
    machine: usize,
    organisation: usize,
    group: &'static str,
    priority: usize,
    start: i64,
    stop: i64,
}

struct World {
    rng: ChaCha8Rng,
    machines: Vec<Machine>,
    organisations: Vec<String>,
    shares: WeightedIndex<f64>,
}

/// The pilot's daily earnings files.
pub fn earnings(shape: &Shape) -> Vec<File> {
    let mut world = World::new(shape);
    (0..shape.days)
        .map(|day| {
            let date = day_of(shape, day);
            let mut entries: Vec<_> =
                world.sessions(date).iter().map(|session| world.earning(session)).collect();
            world.spoil(&mut entries, |entry, flaw| match flaw {
                0 => entry.replacen("],\"value\":[1", "],\"value\":[-1", 1),
                1 => entry.replacen("0.", "1e-1", 1),
                _ => entry.replacen("],\"value\"", ",\"x\"],\"value\"", 1),
            });
            let name = format!("{}-{}.json", label(date), label(day_of(shape, day + 1)));
            File { name, content: format!("[\n{}\n]\n", entries.join(",\n")) }
        })
        .collect()
}

/// `workload/1` files, one record per slice of a session.
pub fn workloads(shape: &Shape) -> Vec<File> {
    let mut world = World::new(shape);
    let mut late = Vec::new();
    (0..shape.days)
        .map(|day| {
            let date = day_of(shape, day);
            let mut lines = std::mem::take(&mut late);
            for session in world.sessions(date) {
                for line in world.slices(&session, date) {
                    if world.rng.random_ratio(1, 50) { late.push(line) } else { lines.push(line) }
                }
            }
            world.correct(&mut lines);
            world.spoil(&mut lines, |line, flaw| match flaw {
                0 => line.replacen("\"amount\":\"", "\"amount\":\"-", 1),
                1 => line.replacen("\"ended_at\":\"2", "\"ended_at\":\"1", 1),
                _ => line.replacen("\"kind\":", "\"sort\":", 1),
            });
            File {
                name: format!("{}.workloads.jsonl", label(date)),
                content: lines.join("\n") + "\n",
            }
        })
        .collect()
}

/// Payout addresses of machines: most owners have one machine, some a farm, and 8 % of machines have none yet.
pub fn payees(shape: &Shape) -> File {
    let mut world = World::new(shape);
    let mut lines = Vec::new();
    let (mut owner, mut left) = (0_u32, 0_u32);
    for machine in &world.machines {
        if left == 0 {
            owner += 1;
            left = match world.rng.random_range(0..100) {
                0..85 => 1,
                85..97 => world.rng.random_range(2..=5),
                _ => world.rng.random_range(6..=60),
            };
        }
        left -= 1;
        if world.rng.random_ratio(92, 100) {
            let address = payout_address(&format!("owner {owner} of seed {}", shape.seed));
            let line = json!({ "schema": "payee/1", "machine": machine.uuid, "address": address });
            lines.push(line.to_string());
        }
    }
    File { name: "payees.jsonl".into(), content: lines.join("\n") + "\n" }
}

/// An address that nobody holds the key of, for trying things out.
pub fn payout_address(name: &str) -> Address {
    Address::from_slice(&keccak256(name)[12..])
}

impl World {
    fn new(shape: &Shape) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(shape.seed);
        let classes: Vec<_> = (0..CLASSES.len()).collect();
        let machines = (0..shape.machines)
            .map(|_| Machine {
                uuid: uuid(rng.random()),
                class: classes
                    .choose_weighted(&mut rng, |class| CLASSES[*class].1)
                    .copied()
                    .unwrap_or(0),
                country: choose(&mut rng, &COUNTRIES),
            })
            .collect();
        let organisations = (1..=shape.organisations).map(|n| format!("org-{n:02}")).collect();
        // Pareto with the exponent at which a fifth of them pays four fifths.
        let shares = (1..=shape.organisations.max(1)).map(|n| f64::from(n).powf(-1.16));
        let shares = WeightedIndex::new(shares).unwrap_or_else(|_| unreachable_weights());
        Self { rng, machines, organisations, shares }
    }

    /// Each machine's sessions on a day; one in five machines moves to another organisation in between.
    fn sessions(&mut self, date: Date) -> Vec<Session> {
        let mut sessions = Vec::new();
        for machine in 0..self.machines.len() {
            let length = self.session_length();
            let start = day_start(date) + self.rng.random_range(0..=DAY_MS - length);
            let parts = if self.rng.random_ratio(1, 5) && length > HOUR_MS { 2 } else { 1 };
            let first_group = self.rng.random_range(0..GROUPS.len());
            for part in 0..parts {
                let organisation = self.shares.sample(&mut self.rng);
                // The second part goes to another group, since a file has one entry per key.
                let group = GROUPS[(first_group + usize::from(part > 0)) % GROUPS.len()];
                let priority = index(&mut self.rng, &PRIORITIES);
                let from = start + length / parts * part;
                sessions.push(Session {
                    machine,
                    organisation,
                    group,
                    priority,
                    start: from,
                    stop: from + length / parts,
                });
            }
        }
        sessions
    }

    fn session_length(&mut self) -> i64 {
        let length = match self.rng.random_range(0..4) {
            0 => self.rng.random_range(10 * MINUTE_MS..2 * HOUR_MS),
            1 => self.rng.random_range(20 * HOUR_MS..DAY_MS),
            _ => {
                let hours = LogNormal::new(7_f64.ln(), 0.6)
                    .map_or(7.0, |hours| hours.sample(&mut self.rng));
                (hours * HOUR_MS as f64) as i64
            }
        };
        length.clamp(10 * MINUTE_MS, DAY_MS)
    }

    fn earning(&self, session: &Session) -> String {
        let machine = &self.machines[session.machine];
        let hours = (session.stop - session.start) as f64 / HOUR_MS as f64;
        let usd = CLASSES[machine.class].2[session.priority] * hours;
        let class = if CLASSES[machine.class].0 == "CPU" {
            "null".to_owned()
        } else {
            format!(
                "\"{}\"",
                uuid(keccak256(CLASSES[machine.class].0).0[..16].try_into().unwrap_or_default())
            )
        };
        format!(
            r#"{{"key":["{}","{}","{}"],"value":[{},{},{usd},8,16384,{class}]}}"#,
            self.organisations[session.organisation],
            session.group,
            machine.uuid,
            session.start,
            session.stop
        )
    }

    fn slices(&mut self, session: &Session, date: Date) -> Vec<String> {
        let machine = &self.machines[session.machine];
        let per_hour = CLASSES[machine.class].2[session.priority];
        let (mut lines, mut start) = (Vec::new(), session.start);
        while session.stop - start >= *SLICE.start() {
            let stop = session.stop.min(start + SLICE.end());
            let usd = per_hour * (stop - start) as f64 / HOUR_MS as f64;
            let digest = B256::new(self.rng.random());
            let gpu = if CLASSES[machine.class].0 == "CPU" {
                json!(null)
            } else {
                json!(CLASSES[machine.class].0)
            };
            let line = json!({
                "schema": "workload/1", "source": "salad",
                "external_id": format!("{date}/{}/{}/{}", session.group, machine.uuid, lines.len()),
                "revision": 0, "organisation": self.organisations[session.organisation],
                "machine": machine.uuid, "kind": choose(&mut self.rng, &KINDS),
                "container_group": session.group, "gpu_class": gpu, "vcpu": 8, "memory_mb": 16384,
                "priority": PRIORITIES[session.priority].0, "country": machine.country,
                "started_at": time(start), "ended_at": time(stop), "result": choose(&mut self.rng, &RESULTS),
                "price": { "currency": "USD", "per_hour": format!("{per_hour:.6}"), "amount": format!("{usd:.6}") },
                "evidence": { "salad_job_ids": [uuid(self.rng.random())], "digest": digest, "mirror_digest": digest },
            });
            lines.push(line.to_string());
            start = stop;
        }
        lines
    }

    /// Adds corrections to one record in five hundred: the amount is halved by a later revision.
    fn correct(&mut self, lines: &mut Vec<String>) {
        for index in 0..lines.len() {
            if self.rng.random_ratio(1, 500) {
                let Ok(mut line) = serde_json::from_str::<serde_json::Value>(&lines[index]) else {
                    continue;
                };
                let usd: f64 = line["price"]["amount"]
                    .as_str()
                    .and_then(|usd| usd.parse().ok())
                    .unwrap_or(0.0);
                line["revision"] = json!(1);
                line["price"]["amount"] = json!(format!("{:.6}", usd / 2.0));
                lines.push(line.to_string());
            }
        }
    }

    /// Repeats one record in two hundred and breaks one in a thousand, at least one, in one of three ways.
    fn spoil(&mut self, records: &mut Vec<String>, break_record: impl Fn(&str, u32) -> String) {
        let count = records.len();
        for _ in 0..count.div_ceil(200) {
            let index = self.rng.random_range(0..count.max(1));
            records.extend(records.get(index).cloned());
        }
        for _ in 0..count.div_ceil(1000) {
            let index = self.rng.random_range(0..count.max(1));
            let flaw = self.rng.random_range(0..3);
            if let Some(record) = records.get_mut(index) {
                *record = break_record(record, flaw);
            }
        }
    }
}

fn unreachable_weights() -> WeightedIndex<f64> {
    // A single weight of one is valid.
    WeightedIndex::new([1.0]).unwrap_or_else(|_| unreachable_weights())
}

fn index(rng: &mut ChaCha8Rng, words: &[(&'static str, u32)]) -> usize {
    let places: Vec<_> = (0..words.len()).collect();
    places.choose_weighted(rng, |place| words[*place].1).copied().unwrap_or(0)
}

fn choose(rng: &mut ChaCha8Rng, words: &[(&'static str, u32)]) -> &'static str {
    words[index(rng, words)].0
}

/// A version 4 UUID over 16 random bytes.
fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = alloy::hex::encode(bytes);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

fn day_of(shape: &Shape, day: u32) -> Date {
    shape.first_day.checked_add(jiff::Span::new().days(i64::from(day))).unwrap_or(Date::MAX)
}

fn label(date: Date) -> String {
    date.strftime("%Y%m%d").to_string()
}

/// Midnight in Mountain Standard Time, ms since 1970.
fn day_start(date: Date) -> i64 {
    let midnight = date.at(0, 0, 0, 0);
    Offset::constant(-7).to_timestamp(midnight).map_or(0, Timestamp::as_millisecond)
}

fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}
