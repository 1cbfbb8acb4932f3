//! Orders as a file beside the manifests: payout addresses and decisions, which nothing else tells when the database is lost.
//!
//! One order per line, each under a seal that only this installation can make, since they say whom money goes to. What a crash
//! left unfinished is no line, and is written again from the database.

use std::{
    collections::BTreeSet,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use alloy::primitives::B256;
use ledger::{
    book::{BookWriter, Copied, Order},
    manifest::Secret,
    point::{self, Side},
};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::{Error, Result, files::append_whole};

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
    secret: Secret,
}

/// A copy of the orders.
#[derive(Debug)]
struct OrderFile {
    path: PathBuf,
    /// Whether what was in it was brought back.
    is_read: bool,
    /// What was in it when it was read, until it was written to.
    held: BTreeSet<Order>,
    /// How far it has come.
    copied: Copied,
}

impl Orders {
    /// The copies in these folders.
    pub(crate) fn new(folders: &[PathBuf], secret: Secret) -> Self {
        let file = |folder: &PathBuf| OrderFile {
            path: folder.join(FILE),
            is_read: false,
            held: BTreeSet::new(),
            copied: Copied::default(),
        };
        Self { files: Mutex::new(folders.iter().map(file).collect()), secret }
    }

    /// Brings back from the copies, once, what the ledger does not know, and writes into each what it lacks. A line that is
    /// written twice is one order. Nothing may be ordered before this succeeded once, since what is brought back later counts
    /// as said later. Fails if a copy cannot be read, or, with the others written all the same, if one cannot be written.
    pub(crate) async fn keep(&self, book: &BookWriter) -> Result<()> {
        let mut files = self.files.lock().await;
        for file in files.iter_mut().filter(|file| !file.is_read) {
            let held = self.read(&file.path)?;
            book.bring_back(&held).await?;
            file.held = held.into_iter().collect();
            file.is_read = true;
        }
        let mut outcome = Ok(());
        for file in files.iter_mut() {
            outcome = outcome.and(self.write(file, book).await);
        }
        outcome
    }

    /// Writes into a copy what it lacks.
    async fn write(&self, file: &mut OrderFile, book: &BookWriter) -> Result<()> {
        let (orders, reached) = book.orders(file.copied).await?;
        let lacking = orders.iter().filter(|order| !file.held.contains(*order));
        let text = lacking.map(|order| self.line(order)).collect::<Result<String>>()?;
        if !text.is_empty() {
            point::reach("file orders", Side::Before).await;
            let written = append_whole(&file.path, text.as_bytes());
            point::reach("file orders", Side::After).await;
            written?;
        }
        file.copied = reached;
        file.held.clear();
        Ok(())
    }

    fn line(&self, order: &Order) -> Result<String> {
        let seal = self.secret.seal(&serde_json::to_vec(order)?);
        Ok(serde_json::to_string(&Line { order: order.clone(), seal })? + "\n")
    }

    /// The orders of a file that bear our seal, in their order; none if there is no such file.
    fn read(&self, file: &Path) -> Result<Vec<Order>> {
        let text = match fs::read(file) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::file(file)(error)),
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
                    file.display()
                ),
            }
        }
        Ok(orders)
    }
}
