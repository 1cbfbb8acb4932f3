//! Manifests as files: what each statement pays for, outside the database, in every configured folder.
//!
//! A signature never leaves before its manifest is a synced file in each of them, so that a lost database costs time and
//! no money.

use std::{
    collections::BTreeSet,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use alloy::primitives::{Address, B256};
use contracts::eip712::DepositKey;
use ledger::{
    Amount, Millis, ProviderNumber, Units,
    book::{BookWriter, Import, Sighting, Work},
    manifest::{Leaf, Secret, Tree},
    point::{self, Side},
    read::Reader,
    statement::{self, Row, Statement},
};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    config::Config,
    files::{Access, write_whole},
    orders::Orders,
};

/// What the first field of a manifest says.
const SCHEMA: &str = "manifest/1";

/// Most files that a turn writes into a copy: each is synced, and a turn has other things to do.
const AT_ONCE: usize = 50;

/// The folders that hold manifests, the first one and its copies.
#[derive(Debug)]
pub struct Manifests {
    folders: Vec<PathBuf>,
    orders: Orders,
    /// Names of files that were looked at.
    seen: Mutex<BTreeSet<String>>,
    /// Whether what is in every folder was noticed once.
    is_noticed: AtomicBool,
    /// Held while a file is written: two writers of one would meet at its draft.
    writing: tokio::sync::Mutex<()>,
}

/// A manifest as its file holds it.
#[derive(Debug, Serialize, Deserialize)]
struct Content {
    schema: String,
    digest: B256,
    organisation: String,
    fee_bps: u16,
    deposit: B256,
    requestor: Address,
    signer: Address,
    cosigner: Address,
    token: Address,
    salt: B256,
    epoch: u32,
    spent: Units,
    root: B256,
    rows: Vec<RowEntry>,
    leaves: Vec<LeafEntry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct RowEntry {
    provider: ProviderNumber,
    units: Units,
    carry_in: Amount,
    carry_out: Amount,
}

/// A leaf; a carry or a fee has no work behind it.
#[derive(Debug, Serialize, Deserialize)]
struct LeafEntry {
    workload: B256,
    provider: ProviderNumber,
    amount: String,
    #[serde(flatten)]
    work: Option<WorkEntry>,
}

/// The work behind a leaf: its natural key, and what no revision may change.
#[derive(Debug, Serialize, Deserialize)]
struct WorkEntry {
    source: String,
    external_id: String,
    revision: u32,
    /// What had settled of it before, base units; manifests of earlier releases do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    settled: Option<String>,
    machine: String,
    started_ms: Millis,
    stopped_ms: Millis,
    fixed: B256,
}

impl Manifests {
    /// The folders of an installation.
    pub fn new(config: &Config, secret: Secret) -> Self {
        let copies = config.files.manifest_copies.iter();
        let folders = std::iter::once(&config.files.manifests).chain(copies);
        Self::in_folders(folders.map(|folder| config.path(folder)).collect(), secret)
    }

    fn in_folders(folders: Vec<PathBuf>, secret: Secret) -> Self {
        Self {
            orders: Orders::new(&folders, secret),
            folders,
            seen: Mutex::default(),
            is_noticed: AtomicBool::new(false),
            writing: tokio::sync::Mutex::default(),
        }
    }

    /// Writes a statement's manifest into every folder, named by deposit, epoch and digest, and syncs it. Refuses if one
    /// of them cannot be written.
    pub async fn publish(&self, import: &Import) -> Result<()> {
        let name = name_of(import);
        for folder in &self.folders {
            self.write(folder, import).await.map_err(|error| {
                let reason = format!(
                    "the manifest {name} cannot be written into {}: {}; no signature leaves before it is there",
                    folder.display(),
                    crate::chain_of(&error)
                );
                Error::Ledger(ledger::Error::Unsignable(reason))
            })?;
        }
        Ok(())
    }

    /// Writes the manifest of every statement that was signed or brought back here into each folder that lacks it, from the
    /// ledger, which holds all of it: a signature whose manifest nobody has would halt money for good. Returns how many
    /// files, and what could not be written, which keeps nothing else from it.
    pub async fn rewrite(&self, reader: &Reader) -> Result<(u64, Vec<String>)> {
        let published = reader.published_digests().await?;
        let (mut written, mut problems) = (0, Vec::new());
        for folder in &self.folders {
            let names = match names_in(folder) {
                Ok(names) => names,
                Err(error) => {
                    problems.push(crate::chain_of(&error));
                    continue;
                }
            };
            for (id, deposit, epoch, digest) in &published {
                if names.contains(&file_name(*deposit, *epoch, *digest)) {
                    continue;
                }
                match self.rewrite_one(reader, *id, folder).await {
                    Ok(()) => written += 1,
                    Err(error) => {
                        problems.push(format!("statement {digest}: {}", crate::chain_of(&error)));
                    }
                }
            }
        }
        Ok((written, problems))
    }

    async fn rewrite_one(&self, reader: &Reader, statement: i64, folder: &Path) -> Result<()> {
        let import = reader.export(statement).await?;
        refuse_damaged(reader, &import)?;
        self.write(folder, &import).await
    }

    /// Writes into the copies what only the first folder has, so many files at a time, and says what each lacked.
    pub async fn complete_copies(&self) -> Result<Vec<String>> {
        let mut told = Vec::new();
        let [first, copies @ ..] = &self.folders[..] else { return Ok(told) };
        if copies.is_empty() {
            return Ok(told);
        }
        let names = names_in(first)?;
        for copy in copies {
            let held = names_in(copy)?;
            let lacked = names.difference(&held).filter_map(|name| sighting(name));
            let lacked: Vec<_> = lacked.collect();
            if lacked.is_empty() {
                continue;
            }
            let problem = self.copy(&lacked, copy).await;
            told.push(format!(
                "the copy of the manifests in {} is being completed: files that it lacked: {}, of which a turn writes {AT_ONCE}; if \
                 its disk is not mounted, stop serve and mount it{}",
                copy.display(),
                lacked.len(),
                problem.map_or_else(String::new, |problem| format!("; {}", crate::chain_of(&problem)))
            ));
        }
        Ok(told)
    }

    /// Copies the first of these manifests into a folder. One that cannot be copied keeps no other from it; the last error is
    /// returned.
    async fn copy(&self, files: &[Sighting], folder: &Path) -> Option<Error> {
        let mut problem = None;
        for file in files.iter().take(AT_ONCE) {
            let copied = match self.read(file) {
                Ok(import) => self.write(folder, &import).await,
                Err(error) => Err(error),
            };
            problem = copied.err().or(problem);
        }
        problem
    }

    /// Writes a manifest into a folder, and syncs it.
    async fn write(&self, folder: &Path, import: &Import) -> Result<()> {
        let content = serde_json::to_vec(&Content::from(import))?;
        let _writing = self.writing.lock().await;
        point::reach("file manifest", Side::Before).await;
        let written = write_whole(&folder.join(name_of(import)), &content, Access::Usual);
        point::reach("file manifest", Side::After).await;
        written
    }

    /// Takes orders that went away while the server runs for lost, so that they are written anew instead of being waited for.
    pub async fn give_up_lost_orders(&self) {
        self.orders.give_up_what_is_gone().await;
    }

    /// Brings payout addresses and decisions back that only the folders tell, and copies what is new into them.
    pub async fn keep_orders(&self, book: &BookWriter, now: Millis) -> Result<()> {
        self.orders.keep(book, now).await
    }

    /// Whether payout addresses and decisions were brought back from every folder, and its manifests noticed. Until then nobody
    /// may say more, nor be promised anything.
    pub fn are_read(&self) -> bool {
        self.orders.are_read() && self.is_noticed.load(Ordering::Relaxed)
    }

    /// Keeps the orders, and notices the manifests that appeared in the folders and whose statements are not known here, with
    /// whom they paid for, and what the chain has settled; see [`BookWriter::notice`]. Returns how many statements are new.
    /// What fails, an order or a folder, fails it at its end: what else can be known is noticed all the same.
    pub async fn notice(&self, reader: &Reader, book: &BookWriter, now: Millis) -> Result<usize> {
        let kept = self.keep_orders(book, now).await;
        let (mut sightings, listed) = self.unseen();
        for sighting in &mut sightings {
            if !reader.is_own(sighting.digest).await? {
                // A damaged manifest has told that there is a statement all the same.
                let read = self.read(sighting).ok();
                sighting.organisation = read.map(|import| import.organisation);
            }
        }
        let noticed = book.notice(&sightings, now).await?;
        self.see(sightings);
        listed?;
        self.is_noticed.store(true, Ordering::Relaxed);
        kept.map(|()| noticed)
    }

    /// Every manifest that was not reported before, of the folders that can be listed.
    fn unseen(&self) -> (Vec<Sighting>, Result<()>) {
        let mut names = BTreeSet::new();
        let mut listed = Ok(());
        for folder in &self.folders {
            listed = listed.and(names_in(folder).map(|found| names.extend(found)));
        }
        let seen = self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let unseen = names.iter().filter(|name| !seen.contains(*name));
        (unseen.filter_map(|name| sighting(name)).collect(), listed)
    }

    /// Remembers what was noticed, once that is stored.
    fn see(&self, sightings: Vec<Sighting>) {
        let mut seen = self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        seen.extend(sightings.into_iter().map(|sighting| sighting.seen));
    }

    /// Every manifest in the folders, one per name.
    pub fn list(&self) -> Result<Vec<Sighting>> {
        let mut names = BTreeSet::new();
        for folder in &self.folders {
            names.extend(names_in(folder)?);
        }
        Ok(names.iter().filter_map(|name| sighting(name)).collect())
    }

    /// What a manifest says, from the first folder that has it whole.
    pub fn read(&self, sighting: &Sighting) -> Result<Import> {
        let failed = |reason: String| Error::Input { name: sighting.seen.clone(), reason };
        let mut reason = "no folder holds it".to_owned();
        for folder in &self.folders {
            let path = folder.join(&sighting.seen);
            let read = match fs::read(&path) {
                Ok(bytes) => parse(&bytes, sighting),
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => Err(error.to_string()),
            };
            match read {
                Ok(import) => return Ok(import),
                Err(problem) => reason = format!("{}: {problem}", path.display()),
            }
        }
        Err(failed(reason))
    }
}

/// Refuses to publish what the ledger does not hold as it was signed: root and digest have to follow from it.
fn refuse_damaged(reader: &Reader, import: &Import) -> Result<()> {
    let leaves: Vec<_> = import.leaves.iter().map(|(leaf, _)| leaf.clone()).collect();
    let is_whole = Tree::new(&leaves).root() == import.statement.manifest
        && import.statement.digest(&reader.ledger().identity().domain()) == import.digest;
    is_whole.then_some(()).ok_or_else(|| ledger::Error::Corrupt("signed statement").into())
}

fn name_of(import: &Import) -> String {
    file_name(import.statement.key.id(), import.statement.epoch, import.digest)
}

/// Name of a manifest's file.
pub(crate) fn file_name(deposit: B256, epoch: u32, digest: B256) -> String {
    format!("{deposit}-{epoch}-{digest}.json")
}

/// Names of the files in a folder; none if there is no such folder.
pub(crate) fn names_in(folder: &Path) -> Result<BTreeSet<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(Error::file(folder)(error)),
    };
    entries
        .map(|entry| {
            Ok(entry.map_err(Error::file(folder))?.file_name().to_string_lossy().into_owned())
        })
        .collect()
}

impl From<&Import> for Content {
    fn from(import: &Import) -> Self {
        let Statement { key, epoch, spent, manifest, .. } = &import.statement;
        let row = |row: &Row| RowEntry {
            provider: row.provider,
            units: row.units,
            carry_in: row.carry_in,
            carry_out: row.carry_out,
        };
        let leaf = |(leaf, work): &(Leaf, Option<Work>)| LeafEntry {
            workload: leaf.workload,
            provider: leaf.provider,
            amount: leaf.amount.to_string(),
            work: work.as_ref().map(|work| WorkEntry {
                source: work.source.clone(),
                external_id: work.external_id.clone(),
                revision: work.revision,
                settled: work.settled.map(|settled| settled.to_string()),
                machine: work.machine.clone(),
                started_ms: work.started_ms,
                stopped_ms: work.stopped_ms,
                fixed: work.fixed,
            }),
        };
        Self {
            schema: SCHEMA.to_owned(),
            digest: import.digest,
            organisation: import.organisation.clone(),
            fee_bps: import.fee_bps,
            deposit: key.id(),
            requestor: key.requestor,
            signer: key.signer,
            cosigner: key.cosigner,
            token: key.token,
            salt: key.salt,
            epoch: *epoch,
            spent: *spent,
            root: *manifest,
            rows: import.rows.iter().map(row).collect(),
            leaves: import.leaves.iter().map(leaf).collect(),
        }
    }
}

/// Deposit, epoch and digest of a file name; `None` for any other file.
fn sighting(name: &str) -> Option<Sighting> {
    let mut parts = name.strip_suffix(".json")?.splitn(3, '-');
    let (deposit, epoch, digest) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Sighting {
        deposit: deposit.parse().ok()?,
        epoch: epoch.parse().ok()?,
        digest: digest.parse().ok()?,
        seen: name.to_owned(),
        organisation: None,
    })
}

fn work_of(entry: WorkEntry) -> std::result::Result<Work, String> {
    let base_units =
        |text: String| text.parse().map_err(|_| format!("settled is {text:?}, not base units"));
    Ok(Work {
        source: entry.source,
        external_id: entry.external_id,
        revision: entry.revision,
        settled: entry.settled.map(base_units).transpose()?,
        machine: entry.machine,
        started_ms: entry.started_ms,
        stopped_ms: entry.stopped_ms,
        fixed: entry.fixed,
    })
}

/// Reads a manifest. Whether its parts follow from each other is for the ledger to check.
fn parse(bytes: &[u8], sighting: &Sighting) -> std::result::Result<Import, String> {
    let content: Content = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if content.schema != SCHEMA {
        return Err(format!("its schema is {:?}, not {SCHEMA:?}", content.schema));
    }
    let Content { requestor, signer, cosigner, token, salt, .. } = content;
    let key = DepositKey { requestor, signer, cosigner, token, salt };
    if (key.id(), content.epoch, content.digest)
        != (sighting.deposit, sighting.epoch, sighting.digest)
    {
        return Err("its name is not made of its deposit, epoch and digest".into());
    }
    let rows: Vec<_> = content
        .rows
        .iter()
        .map(|row| Row {
            provider: row.provider,
            units: row.units,
            carry_in: row.carry_in,
            carry_out: row.carry_out,
        })
        .collect();
    let mut leaves = Vec::with_capacity(content.leaves.len());
    for (index, LeafEntry { workload, provider, amount, work }) in
        content.leaves.into_iter().enumerate()
    {
        let amount = amount
            .parse()
            .map_err(|_| format!("the amount of leaf {index} is {amount:?}, not base units"))?;
        let work =
            work.map(work_of).transpose().map_err(|error| format!("leaf {index}: {error}"))?;
        leaves.push((Leaf { workload, provider, amount, paid: None }, work));
    }
    let packed = statement::pack(&rows).map_err(|error| error.to_string())?;
    let statement = Statement {
        key,
        epoch: content.epoch,
        spent: content.spent,
        manifest: content.root,
        rows: packed,
    };
    let (organisation, fee_bps) = (content.organisation, content.fee_bps);
    Ok(Import { statement, digest: content.digest, rows, leaves, organisation, fee_bps })
}

#[cfg(test)]
mod tests {
    use ledger::{Ledger, book::Organisation};

    use super::*;

    #[test]
    fn other_files_are_no_manifests() {
        let hash = B256::repeat_byte(1);
        for name in [
            "notes.txt".to_owned(),
            format!("{hash}-1-{hash}.json.draft"),
            format!("{hash}-x-{hash}.json"),
            format!("{hash}-1.json"),
        ] {
            assert_eq!(sighting(&name), None, "{name}");
        }
        let seen = format!("{hash}-7-{hash}.json");
        let (deposit, digest, organisation) = (hash, hash, None);
        let expected = Sighting { deposit, epoch: 7, digest, seen: seen.clone(), organisation };
        assert_eq!(sighting(&seen), Some(expected));
    }
    const PAYERS: [&str; 2] = ["acme", "other"];

    /// A ledger without a past, whose organisations pay from no deposit.
    async fn empty_ledger(folder: &Path) -> (Reader, BookWriter) {
        let zero = Address::ZERO;
        let (chain_id, genesis, start_block) = (1, B256::ZERO, 0);
        let identity = ledger::Identity { chain_id, contract: zero, genesis, start_block };
        let ledger = Ledger::open(&folder.join("ledger.db"), identity).await.unwrap();
        let book = BookWriter::new(ledger.clone());
        let organisations = PAYERS.map(|name| {
            let (name, deposits) = (name.to_owned(), Vec::new());
            Organisation { name, token: zero, deposits }
        });
        book.set_organisations(&organisations, zero, 0).await.unwrap();
        (Reader::new(ledger), book)
    }

    /// Bytes of a manifest of the first payer, and the name of its file.
    fn manifest() -> (Vec<u8>, String) {
        let (zero, digest) = (Address::ZERO, B256::repeat_byte(1));
        let key = DepositKey {
            requestor: zero,
            signer: zero,
            cosigner: zero,
            token: zero,
            salt: B256::ZERO,
        };
        let name = file_name(key.id(), 1, digest);
        let (spent, manifest, rows) = (Units::ZERO, B256::ZERO, Vec::new());
        let import = Import {
            statement: Statement { key, epoch: 1, spent, manifest, rows },
            digest,
            rows: Vec::new(),
            leaves: Vec::new(),
            organisation: PAYERS[0].into(),
            fee_bps: 0,
        };
        (serde_json::to_vec(&Content::from(&import)).unwrap(), name)
    }

    #[tokio::test]
    async fn a_manifest_freezes_whom_it_names_and_a_damaged_one_everybody() {
        let (whole, name) = manifest();
        for (bytes, expected) in [(&whole[..], [true, false]), (&whole[..50], [true, true])] {
            let folder = tempfile::tempdir().unwrap();
            let (reader, book) = empty_ledger(folder.path()).await;
            let folders = vec![folder.path().join("manifests")];
            fs::create_dir(&folders[0]).unwrap();
            fs::write(folders[0].join(&name), bytes).unwrap();
            let manifests = Manifests::in_folders(folders, Secret::new(B256::ZERO));
            assert_eq!(manifests.notice(&reader, &book, 0).await.unwrap(), 1);
            assert_eq!(manifests.notice(&reader, &book, 0).await.unwrap(), 0, "it is told once");
            for (payer, is_frozen) in PAYERS.into_iter().zip(expected) {
                let freezes = reader.freezes(payer).await.unwrap();
                assert_eq!(!freezes.is_empty(), is_frozen, "{payer}: {freezes:?}");
            }
        }
    }
}
