//! `recover`: brings back from manifests what a lost or restored database does not know.

use std::mem;

use alloy::primitives::B256;
use jiff::Timestamp;
use ledger::{
    Millis,
    book::BookWriter,
    manifest::Secret,
    read::{Freeze, Reader},
};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, chain_of, manifests::Manifests};

/// What recovering came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// Statements that were brought back.
    pub imported: u64,
    /// Manifests that were not, and why.
    pub refused: Vec<String>,
    /// Files of manifests that a folder lacked, and that were written anew from the ledger.
    pub rewritten: u64,
    /// What could not be written, and why.
    pub unwritten: Vec<String>,
    /// What stays frozen, and why.
    pub frozen: Vec<String>,
}

impl Recovery {
    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} statements brought back from their manifests\n{} missing manifests written anew",
            self.imported, self.rewritten
        );
        let lists = [
            ("refused", &self.refused),
            ("not written", &self.unwritten),
            ("frozen", &self.frozen),
        ];
        for (name, lines) in lists {
            for line in lines {
                text.push_str(&format!("\n  {name}: {line}"));
            }
        }
        if self.frozen.is_empty() {
            text.push_str("\nnothing is frozen");
        }
        text
    }
}

/// A cut-off as it is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CutOff {
    /// The frozen deposit.
    pub deposit: B256,
    /// Work that ended before this time, ms, is regarded as paid.
    pub until_ms: Millis,
    /// Why; kept in the audit log.
    pub reason: String,
}

/// Imports every manifest that the ledger does not know, and writes those anew that it knows and a folder lacks. Doing so
/// again changes nothing.
pub async fn recover(
    manifests: &Manifests,
    secret: &Secret,
    book: &BookWriter,
    reader: &Reader,
    now: Millis,
) -> Result<Recovery> {
    let mut recovery = Recovery::default();
    // Orders come before what they are about; those that went away under a running server are not waited for any more.
    manifests.give_up_lost_orders().await;
    manifests.keep_orders(book, now).await?;
    let mut left = manifests.list()?;
    left.sort_by_key(|sighting| (sighting.deposit, sighting.epoch));
    // What one manifest says may be what lets another be believed, in whichever order they come.
    loop {
        let before = recovery.imported;
        recovery.refused.clear();
        for sighting in mem::take(&mut left) {
            if reader.is_own(sighting.digest).await? {
                continue;
            }
            let imported = match manifests.read(&sighting) {
                Ok(import) => book.import(&import, secret, now).await.map_err(Into::into),
                Err(error) => Err(error),
            };
            match imported {
                Ok(is_new) => recovery.imported += u64::from(is_new),
                Err(
                    error @ (Error::Input { .. } | Error::Ledger(ledger::Error::Unimportable(_))),
                ) => {
                    recovery.refused.push(chain_of(&error));
                    left.push(sighting);
                }
                Err(error) => return Err(error),
            }
        }
        if recovery.imported == before || left.is_empty() {
            break;
        }
    }
    (recovery.rewritten, recovery.unwritten) = manifests.rewrite(reader).await?;
    recovery.frozen = frozen(reader).await?;
    Ok(recovery)
}

/// Regards work as paid by what is not known of a deposit; see [`BookWriter::cut_off`]. The manifests are lost then, so that
/// those of what is known are written anew: without them money stays halted.
pub async fn cut_off(
    cut_off: &CutOff,
    manifests: &Manifests,
    book: &BookWriter,
    reader: &Reader,
    now: Millis,
) -> Result<Recovery> {
    let CutOff { deposit, until_ms, reason } = cut_off;
    if reason.trim().is_empty() {
        return Err(Error::Usage("reason is empty; say why, it is kept in the audit log".into()));
    }
    if *until_ms > now {
        return Err(Error::Usage(format!(
            "until is {}, in the future; name a time up to which work may have been paid, now at the latest",
            Timestamp::from_millisecond(*until_ms)
                .map_or_else(|_| until_ms.to_string(), |time| time.to_string())
        )));
    }
    book.cut_off(*deposit, *until_ms, reason, now).await?;
    manifests.give_up_lost_orders().await;
    let (rewritten, unwritten) = manifests.rewrite(reader).await?;
    Ok(Recovery { rewritten, unwritten, frozen: frozen(reader).await?, ..Recovery::default() })
}

async fn frozen(reader: &Reader) -> Result<Vec<String>> {
    let mut frozen = Vec::new();
    for name in reader.organisations().await? {
        let freezes = reader.freezes(&name).await?;
        let line = |Freeze { reason, .. }: Freeze| format!("organisation {name:?}: {reason}");
        frozen.extend(freezes.into_iter().map(line));
    }
    Ok(frozen)
}
