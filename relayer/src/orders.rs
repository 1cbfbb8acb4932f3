//! Orders as a file beside the manifests: payout addresses and decisions, which nothing else tells when the database is lost.
//!
//! One order per line, each under a seal that only this installation can make, since they say whom money goes to. What a crash
//! left unfinished is no line, and is written again from the database.

use std::{
    collections::BTreeSet,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use alloy::primitives::B256;
use ledger::{
    book::{BookWriter, Copied, Order},
    manifest::Secret,
    point::{self, Side},
};
use serde::{Deserialize, Serialize};

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
    files: Vec<PathBuf>,
    secret: Secret,
    /// How far they have come; `None` before they were read.
    copied: Mutex<Option<Copied>>,
}

impl Orders {
    /// The copies in these folders.
    pub(crate) fn new(folders: &[PathBuf], secret: Secret) -> Self {
        let files = folders.iter().map(|folder| folder.join(FILE)).collect();
        Self { files, secret, copied: Mutex::default() }
    }

    /// Brings back from the copies, once, what the ledger does not know, and writes into each what it lacks. A line that is
    /// written twice, as when another copy could not be, is one order.
    pub(crate) async fn keep(&self, book: &BookWriter) -> Result<()> {
        let copied = *self.copied.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = Vec::new();
        if copied.is_none() {
            for file in &self.files {
                let held = self.read(file)?;
                book.bring_back(&held).await?;
                known.push(held.into_iter().collect::<BTreeSet<_>>());
            }
        }
        let (orders, reached) = book.orders(copied.unwrap_or_default()).await?;
        known.resize_with(self.files.len(), BTreeSet::new);
        for (file, known) in self.files.iter().zip(&known) {
            let lacking = orders.iter().filter(|order| !known.contains(*order));
            let text = lacking.map(|order| self.line(order)).collect::<Result<String>>()?;
            if !text.is_empty() {
                point::reach("file orders", Side::Before).await;
                let written = append_whole(file, text.as_bytes());
                point::reach("file orders", Side::After).await;
                written?;
            }
        }
        *self.copied.lock().unwrap_or_else(PoisonError::into_inner) = Some(reached);
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
