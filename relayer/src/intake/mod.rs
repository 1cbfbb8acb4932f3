//! Intake of files: bytes in, a verdict per record out.
//!
//! Each format is an adapter that turns one record's text into a [`Record`] or says which field is wrong and why. Numbers
//! are read as text, never through floats. A file that is not its format at all is refused whole; in any other, a bad
//! record never costs its neighbours.

mod earnings;
mod fields;
mod payees;
mod workloads;

use std::{collections::BTreeMap, path::Path};

use alloy::primitives::{Address, B256, keccak256};
use jiff::Timestamp;
use ledger::{
    Amount, Ledger, Millis,
    book::{BookWriter, Naming, SourceFile, Tariff},
    read::Reader,
    workload::{Outcome, Record},
};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, config::Config, doctor, keys, manifests::Manifests, remote::Remote};

pub use earnings::days_of;

/// Most bytes that a file may have: a day of a million machines.
const MAX_FILE_BYTES: usize = 256 << 20;
/// Records per commit.
const CHUNK: usize = 5_000;
/// Most records of one outcome that a report spells out.
const MAX_DETAILS: usize = 10;

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The field at fault.
    pub field: String,
    /// What is wrong with it, and what would be right.
    pub reason: String,
}

impl Rejection {
    fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}

/// A machine and its payout address.
type Payee = (String, Address);

/// A file, parsed: one entry per record, in order.
#[derive(Debug)]
pub enum Parsed {
    /// Work.
    Work {
        /// Days that the file covers, if its name says so.
        file: Option<SourceFile>,
        /// The records.
        records: Vec<Result<Record, Rejection>>,
    },
    /// Payout addresses of machines.
    Payees {
        /// Hash of the file's bytes.
        content: B256,
        /// The lines.
        entries: Vec<Result<(String, Address), Rejection>>,
    },
}

/// What taking a file in came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Records in the file.
    pub records: u64,
    /// How many met each outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// The first records that were not taken as they are, with place and reason.
    pub details: Vec<String>,
    /// How many more there are.
    pub more_details: u64,
    /// Newest end of work among the records that were taken, ms.
    pub last_stop_ms: Option<Millis>,
}

impl Report {
    /// How many records met an outcome.
    pub fn count(&self, outcome: &str) -> u64 {
        self.outcomes.get(outcome).copied().unwrap_or(0)
    }

    /// For people: counts first, then what was not taken as it is.
    pub fn text(&self, name: &str) -> String {
        let mut text = format!("{name}: {} records", self.records);
        for (outcome, count) in &self.outcomes {
            text.push_str(&format!(", {count} {outcome}"));
        }
        for detail in &self.details {
            text.push_str(&format!("\n  {detail}"));
        }
        if self.more_details > 0 {
            text.push_str(&format!("\n  and {} more", self.more_details));
        }
        text
    }

    fn add(&mut self, index: usize, outcome: &Outcome) {
        let (name, detail) = match outcome {
            Outcome::Accepted { .. } => ("accepted", None),
            Outcome::Unaddressed { .. } => ("unaddressed", None),
            Outcome::Unfunded { missing } if *missing == Amount::ZERO => (
                "unfunded",
                Some("its organisation is frozen, or its token or rate not known yet".into()),
            ),
            Outcome::Unfunded { missing } => {
                ("unfunded", Some(format!("{missing} base units are missing")))
            }
            Outcome::Released { amount } => (
                "released",
                Some(format!(
                    "nothing is owed for its {amount} base units: the work was released, or a cut-off takes it for paid"
                )),
            ),
            Outcome::Duplicate => ("duplicate", None),
            Outcome::Conflict { reason } => ("conflict", Some(reason.clone())),
            Outcome::Rejected { field, reason } => {
                ("rejected", Some(format!("field {field}: {reason}")))
            }
        };
        self.count_one(index, name, detail);
    }

    fn count_one(&mut self, index: usize, name: &str, detail: Option<String>) {
        self.records += 1;
        *self.outcomes.entry(name.to_owned()).or_default() += 1;
        let Some(detail) = detail else { return };
        // Unfunded work is told by the thousand; it must not push out what somebody has to mend.
        let kind = format!(": {name}: ");
        if self.details.iter().filter(|known| known.contains(&kind)).count() < MAX_DETAILS {
            self.details.push(format!("record {}: {name}: {detail}", index + 1));
        } else {
            self.more_details += 1;
        }
    }

    fn name(&mut self, index: usize, (machine, address): &Payee, naming: Naming) {
        let detail = match naming {
            Naming::New => return self.count_one(index, "accepted", None),
            Naming::Known => None,
            Naming::Replaced(newest) => Some(format!(
                "this file was taken in before, and {newest} was named for {machine:?} since, which stays; to name {address} \
                 again, hand in a file that differs, by an empty line even"
            )),
        };
        self.count_one(index, "duplicate", detail);
    }

    fn reject(&mut self, index: usize, rejection: &Rejection) {
        let Rejection { field, reason } = rejection.clone();
        self.add(index, &Outcome::Rejected { field, reason });
    }
}

/// Where files are handed in: this process's own ledger, or the running server's.
#[derive(Debug)]
pub enum Desk {
    /// This process writes the ledger.
    Local {
        /// Configuration of the installation.
        config: Box<Config>,
        /// Writer of its ledger.
        book: BookWriter,
        /// Where its orders are copied to.
        manifests: Box<Manifests>,
    },
    /// `quittance serve` does.
    Remote(Remote),
}

impl Desk {
    /// A desk over an open ledger.
    pub async fn local(config: &Config, ledger: Ledger) -> Result<Self> {
        let (book, reader) = (BookWriter::new(ledger.clone()), Reader::new(ledger.clone()));
        let now = Timestamp::now().as_millisecond();
        doctor::refuse_if_halted(config, &ledger, now).await?;
        book.set_organisations(&config.ledger_organisations(), config.policy.attester, now).await?;
        // What a known manifest pays is not accepted once more.
        let manifests = Manifests::new(config, keys::secret(config)?);
        manifests.notice(&reader, &book, now).await?;
        Ok(Self::Local { config: Box::new(config.clone()), book, manifests: Box::new(manifests) })
    }

    /// A desk at the running server.
    pub const fn remote(remote: Remote) -> Self {
        Self::Remote(remote)
    }

    /// Hands a file in.
    pub async fn take_in(&mut self, name: &str, bytes: Vec<u8>) -> Result<Report> {
        match self {
            Self::Remote(remote) => remote.take_in(name, bytes).await,
            Self::Local { config, book, manifests } => {
                let parsed = parse(name, &bytes, &config.policy.earnings_source)?;
                let now = Timestamp::now().as_millisecond();
                let report = take_in(book, &parsed, &config.tariff(), now).await?;
                manifests.keep_orders(book, now).await?;
                Ok(report)
            }
        }
    }

    /// Orders that everything payable that ended by `until` be settled, by now at the latest: one record with a wrong end would
    /// close what is still to come, and a closing cannot be taken back.
    pub async fn close_until(&self, until: Millis) -> Result<()> {
        let now = Timestamp::now().as_millisecond();
        let until = until.min(now);
        match self {
            Self::Remote(remote) => remote.close_until(until).await,
            Self::Local { book, .. } => Ok(book.close_until(until, now).await?),
        }
    }
}

/// Parses a file by its name: `YYYYMMDD-YYYYMMDD.json` are daily earnings, `*.jsonl` holds one `workload/1` or `payee/1`
/// record per line. `earnings_source` names the source of earnings files.
pub fn parse(name: &str, bytes: &[u8], earnings_source: &str) -> Result<Parsed> {
    let refuse = |reason: String| Error::Input { name: name.to_owned(), reason };
    if bytes.len() > MAX_FILE_BYTES {
        return Err(refuse(format!(
            "{} bytes are too many; split it below {MAX_FILE_BYTES}",
            bytes.len()
        )));
    }
    let text =
        std::str::from_utf8(bytes).map_err(|error| refuse(format!("it is not UTF-8: {error}")))?;
    let base = Path::new(name).file_name().and_then(|name| name.to_str()).unwrap_or(name);
    if let Some((first_day, until_day)) = days_of(base) {
        let records =
            earnings::parse(text, &first_day, &until_day, earnings_source).map_err(refuse)?;
        let (source, sha256) = (earnings_source.to_owned(), keccak256(bytes));
        let file = SourceFile { source, name: base.to_owned(), first_day, until_day, sha256 };
        return Ok(Parsed::Work { file: Some(file), records });
    }
    if !base.ends_with(".jsonl") {
        return Err(refuse(
            "it is neither a daily earnings file (YYYYMMDD-YYYYMMDD.json, until exclusive) nor JSON lines (*.jsonl)".into(),
        ));
    }
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.first().is_some_and(|line| payees::is_payee(line)) {
        let entries = lines.into_iter().map(payees::parse).collect();
        return Ok(Parsed::Payees { content: keccak256(bytes), entries });
    }
    Ok(Parsed::Work { file: None, records: lines.into_iter().map(workloads::parse).collect() })
}

/// Takes a parsed file in. Taking the same file in again changes nothing.
pub async fn take_in(
    book: &BookWriter,
    parsed: &Parsed,
    tariff: &Tariff,
    now: Millis,
) -> Result<Report> {
    match parsed {
        Parsed::Payees { content, entries } => {
            take_payees(book, (*content, entries), (tariff.address_delay, now)).await
        }
        Parsed::Work { file, records } => {
            take_work(book, (file.as_ref(), records), tariff, now).await
        }
    }
}

async fn take_work(
    book: &BookWriter,
    (file, records): (Option<&SourceFile>, &[Result<Record, Rejection>]),
    tariff: &Tariff,
    now: Millis,
) -> Result<Report> {
    let mut report = Report::default();
    for (chunk_index, chunk) in records.chunks(CHUNK).enumerate() {
        let good: Vec<_> = chunk.iter().flatten().cloned().collect();
        let outcomes = match file {
            Some(file) => book.take_in_file(file, &good, tariff, now).await?,
            None => book.take_in(&good, tariff, now).await?,
        };
        let mut outcomes = outcomes.into_iter();
        for (index, record) in chunk.iter().enumerate() {
            let index = chunk_index * CHUNK + index;
            match record {
                Err(rejection) => report.reject(index, rejection),
                Ok(record) => {
                    let Some(outcome) = outcomes.next() else { continue };
                    report.add(index, &outcome);
                    if outcome.is_kept() {
                        report.last_stop_ms = report.last_stop_ms.max(Some(record.item.stopped_ms));
                    }
                }
            }
        }
    }
    Ok(report)
}

async fn take_payees(
    book: &BookWriter,
    (content, entries): (B256, &[Result<Payee, Rejection>]),
    times: (Millis, Millis),
) -> Result<Report> {
    let mut report = Report::default();
    let is_payable = |entry: &&Payee| entry.1 != book.contract();
    for (part, chunk) in entries.chunks(CHUNK).enumerate() {
        let good: Vec<_> = chunk.iter().flatten().filter(is_payable).cloned().collect();
        let mut namings = book.name_payees((content, part), &good, times).await?.into_iter();
        for (index, entry) in chunk.iter().enumerate() {
            let index = part * CHUNK + index;
            match entry {
                Err(rejection) => report.reject(index, rejection),
                Ok(entry) if is_payable(&entry) => {
                    let Some(naming) = namings.next() else { continue };
                    report.name(index, entry, naming);
                }
                Ok((_, address)) => {
                    let reason = format!("{address} is the contract itself, which cannot be paid");
                    report.reject(index, &Rejection::new("address", reason));
                }
            }
        }
    }
    Ok(report)
}
