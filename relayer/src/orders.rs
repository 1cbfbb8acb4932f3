//! Orders as a file beside the manifests: payout addresses and decisions, which nothing else tells when the database is lost.
//!
//! One order per line, each under a seal that only this installation can make, since they say whom money goes to. What a crash
//! left unfinished is no line, and is written again from the database.

use std::{
    collections::BTreeSet,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::SystemTime,
};

use alloy::primitives::B256;
use ledger::{
    Millis,
    book::{BookWriter, Copied, Order},
    manifest::Secret,
    point::{self, Side},
};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::{
    Error, Result,
    files::{Access, append_whole, write_whole},
};

/// Name of the file in each folder of manifests.
const FILE: &str = "orders.jsonl";

/// An order as its line holds it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    order: Order,
    seal: B256,
}

/// The copies of the orders.
#[derive(Debug)]
pub(crate) struct Orders {
    files: Mutex<Vec<OrderFile>>,
    /// Whether each copy was read once.
    are_read: AtomicBool,
    secret: Secret,
}

/// A copy of the orders.
#[derive(Debug)]
struct OrderFile {
    path: PathBuf,
    /// Whether what was in it was brought back once.
    is_read: bool,
    /// How it was left; `None` until it was read and written to.
    left: Option<Look>,
    /// What was in it when it was read, until it was written to.
    held: Vec<Order>,
    /// How far it has come.
    copied: Copied,
}

impl OrderFile {
    const fn new(path: PathBuf) -> Self {
        Self { path, is_read: false, left: None, held: Vec::new(), copied: Copied::NONE }
    }

    /// Whether nobody has changed it since it was written to.
    fn is_as_left(&self) -> bool {
        self.left.is_some() && self.left == look(&self.path)
    }

    /// Whether it was there and is not, or the folder that it was to be in: both may come back.
    fn is_gone(&self) -> bool {
        let was_there = matches!(self.left, Some(Look::There { .. }));
        let folder = self.path.parent().is_some_and(Path::is_dir);
        self.is_read && (was_there || !folder)
    }
}

impl Orders {
    /// The copies in these folders.
    pub(crate) fn new(folders: &[PathBuf], secret: Secret) -> Self {
        let files = folders.iter().map(|folder| OrderFile::new(folder.join(FILE)));
        Self { files: Mutex::new(files.collect()), are_read: AtomicBool::new(false), secret }
    }

    /// Whether every copy was read once. Nothing may be ordered before that, as what is brought back comes before it.
    pub(crate) fn are_read(&self) -> bool {
        self.are_read.load(Ordering::Relaxed)
    }

    /// Brings back from the copies what the ledger does not know, at first and wherever one was changed by others, and makes
    /// each say what the ledger says, in its order. A line that is written twice is one order. Fails if a copy cannot be read
    /// or written, with the others kept all the same.
    pub(crate) async fn keep(&self, book: &BookWriter, now: Millis) -> Result<()> {
        let mut files = self.files.lock().await;
        let mut outcome = Ok(());
        for file in files.iter_mut() {
            outcome = outcome.and(self.keep_one(file, book, now).await);
        }
        self.are_read.store(files.iter().all(|file| file.is_read), Ordering::Relaxed);
        outcome
    }

    /// Takes the copies that went away for lost: they are written anew instead of being waited for.
    pub(crate) async fn give_up_what_is_gone(&self) {
        for file in self.files.lock().await.iter_mut().filter(|file| file.is_gone()) {
            *file = OrderFile::new(file.path.clone());
        }
    }

    async fn keep_one(&self, file: &mut OrderFile, book: &BookWriter, now: Millis) -> Result<()> {
        if !file.is_as_left() {
            let held = self.read(file)?;
            book.bring_back(&held, now).await?;
            *file = OrderFile { is_read: true, held, ..OrderFile::new(file.path.clone()) };
        }
        self.write(file, book).await
    }

    /// Writes into a copy what it lacks: behind what is in it, or all of it anew where that is in another order.
    async fn write(&self, file: &mut OrderFile, book: &BookWriter) -> Result<()> {
        let (orders, reached) = book.orders(file.copied).await?;
        let held: BTreeSet<_> = file.held.iter().collect();
        let said: BTreeSet<_> = orders.iter().collect();
        let (unknown, known): (Vec<_>, Vec<_>) =
            file.held.iter().partition(|order| !said.contains(order));
        let is_in_order = is_beginning(&known, &orders);
        // Decisions about work that is not known are in the file alone.
        let lines: Vec<_> = if is_in_order {
            orders.iter().filter(|order| !held.contains(order)).collect()
        } else {
            orders.iter().chain(unknown).collect()
        };
        let text = lines.into_iter().map(|order| self.line(order)).collect::<Result<String>>()?;
        if !text.is_empty() {
            let write = |bytes| match is_in_order {
                true => append_whole(&file.path, bytes),
                false => write_whole(&file.path, bytes, Access::Usual),
            };
            point::reach("file orders", Side::Before).await;
            let written = write(text.as_bytes());
            point::reach("file orders", Side::After).await;
            written?;
        }
        (file.copied, file.left) = (reached, look(&file.path));
        file.held.clear();
        Ok(())
    }

    fn line(&self, order: &Order) -> Result<String> {
        let seal = self.secret.seal(&serde_json::to_vec(order)?);
        Ok(serde_json::to_string(&Line { order: order.clone(), seal })? + "\n")
    }

    /// The orders of a file that bear our seal, in their order, each once; none if there is no such file.
    fn read(&self, file: &OrderFile) -> Result<Vec<Order>> {
        let path = &file.path;
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound && !file.is_gone() => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(Error::file(path)(error)),
        };
        let mut orders = Vec::new();
        for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
            let line = line.trim_ascii();
            let sealed =
                serde_json::from_slice::<Line>(line).ok().filter(|Line { order, seal }| {
                    serde_json::to_vec(order).is_ok_and(|order| self.secret.seal(&order) == *seal)
                });
            match sealed {
                Some(Line { order, .. }) => orders.push(order),
                None if line.is_empty() => {}
                None => tracing::warn!(
                    "line {number} of {} is no order of this installation; it is passed over",
                    path.display()
                ),
            }
        }
        let mut known = BTreeSet::new();
        orders.retain(|order| known.insert(order.clone()));
        Ok(orders)
    }
}

/// What a look at a file tells of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// There is no file.
    Missing,
    /// Its size, bytes, and when it was written to.
    There { size: u64, modified: SystemTime },
}

/// Looks at a file; `None` if that tells nothing.
fn look(path: &Path) -> Option<Look> {
    match fs::metadata(path) {
        Ok(metadata) => {
            Some(Look::There { size: metadata.len(), modified: metadata.modified().ok()? })
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Some(Look::Missing),
        Err(_) => None,
    }
}

/// Whether orders are the first ones of all orders of their kind. The two kinds do not bear on each other.
fn is_beginning(orders: &[&Order], all: &[Order]) -> bool {
    let is_payee = |order: &&Order| matches!(order, Order::Payee { .. });
    let mut payees = all.iter().filter(is_payee);
    let mut decisions = all.iter().filter(|order| !is_payee(order));
    orders.iter().all(|order| {
        let next = if is_payee(order) { payees.next() } else { decisions.next() };
        next == Some(order)
    })
}
