//! Orders as a file beside the manifests: payout addresses and decisions, which nothing else tells when the database is lost.
//!
//! One order per line, each under a seal that only this installation can make, since they say whom money goes to. What a crash
//! left unfinished is no line, and is written again from the database.

use std::{
    collections::BTreeMap,
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

/// How often each order stands in a copy: the same may have been said twice within a millisecond.
fn counted(orders: Vec<Order>) -> BTreeMap<Order, usize> {
    let mut counts = BTreeMap::new();
    for order in orders {
        *counts.entry(order).or_insert(0) += 1;
    }
    counts
}

/// Takes one of an order, if there is one left.
fn take(counts: &mut BTreeMap<Order, usize>, order: &Order) -> bool {
    let Some(left) = counts.get_mut(order).filter(|left| **left > 0) else { return false };
    *left -= 1;
    true
}

impl Orders {
    /// The copies in these folders.
    pub(crate) fn new(folders: &[PathBuf], secret: Secret) -> Self {
        let files = folders.iter().map(|folder| folder.join(FILE)).collect();
        Self { files, secret, copied: Mutex::default() }
    }

    /// Brings back from the copies, once, what the ledger does not know, and writes into each what it lacks. Returns how many
    /// orders were brought back.
    pub(crate) async fn keep(&self, book: &BookWriter) -> Result<usize> {
        let copied = *self.copied.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut brought_back, mut known) = (0, Vec::new());
        if copied.is_none() {
            for file in &self.files {
                let held = self.read(file)?;
                brought_back += book.bring_back(&held).await?;
                known.push(counted(held));
            }
        }
        let (orders, reached) = book.orders(copied.unwrap_or_default()).await?;
        known.resize_with(self.files.len(), BTreeMap::new);
        for (file, known) in self.files.iter().zip(&mut known) {
            let lacking = orders.iter().filter(|order| !take(known, order));
            let text = lacking.map(|order| self.line(order)).collect::<Result<String>>()?;
            if !text.is_empty() {
                point::reach("file orders", Side::Before).await;
                let written = append_whole(file, text.as_bytes());
                point::reach("file orders", Side::After).await;
                written?;
            }
        }
        *self.copied.lock().unwrap_or_else(PoisonError::into_inner) = Some(reached);
        Ok(brought_back)
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
