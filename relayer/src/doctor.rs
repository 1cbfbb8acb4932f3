//! Whether the ledger is sound, and what stops when it is not: money, never reading.

use std::time::{Duration, Instant};

use ledger::{
    Ledger, Millis, audit,
    book::BookWriter,
    invariants::{self, Violation},
    read::Reader,
};

use crate::{Error, Result, chain_of, config::Config, manifests};

/// Pause between checks while something is wrong.
const RECHECK: Duration = Duration::from_secs(30);

/// How thoroughly a ledger is examined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// What is cheap: L1 to L29, L36 and L37.
    Quick,
    /// All of it: hashes, signatures and signed bytes too, and every page of the file.
    Deep,
}

/// Every row that breaks an invariant, the manifests folder included (L36).
pub async fn examine(config: &Config, ledger: &Ledger, depth: Depth) -> Result<Vec<Violation>> {
    let mut found = invariants::violations(ledger).await?;
    if depth == Depth::Deep {
        found.extend(invariants::deep_violations(ledger).await?);
    }
    found.extend(unpublished(config, ledger).await?);
    Ok(found)
}

/// L36: that the manifest of every signature is a file in the manifests folder. Of a folder that cannot be listed, nobody can
/// say so.
pub(crate) async fn unpublished(config: &Config, ledger: &Ledger) -> Result<Vec<Violation>> {
    // Before the files: a server beside this publishes first and signs then.
    let signed = Reader::new(ledger.clone()).signed_digests().await?;
    let names = match manifests::names_in(&config.path(&config.files.manifests)) {
        Ok(names) => names,
        Err(error) => {
            return Ok(vec![Violation {
                invariant: "L36".into(),
                row: "the manifests folder".into(),
                problem: format!("it cannot be listed: {}", chain_of(&error)),
            }]);
        }
    };
    let mut found = Vec::new();
    for (id, deposit, epoch, digest) in signed {
        let name = manifests::file_name(deposit, epoch, digest);
        if !names.contains(&name) {
            found.push(Violation {
                invariant: "L36".into(),
                row: format!("signature of statement {id}"),
                problem: format!(
                    "its manifest {name} is not in the manifests folder; quittance recover writes it anew"
                ),
            });
        }
    }
    Ok(found)
}

/// One line that says why money stands still: the first violations, and how many there are.
fn reason(found: &[Violation]) -> Option<String> {
    const SHOWN: usize = 5;
    let shown: Vec<_> = found.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = found.len().saturating_sub(SHOWN);
    match found {
        [] => None,
        _ if more == 0 => Some(shown.join("; ")),
        _ => Some(format!("{}; and {more} more", shown.join("; "))),
    }
}

/// Refuses to promise money while that is halted: somebody found the ledger unsound, and it is taken at its word again only
/// after another look.
pub async fn refuse_if_halted(config: &Config, ledger: &Ledger, now: Millis) -> Result<()> {
    if audit::halt(ledger).await?.is_none() {
        return Ok(());
    }
    let mut doctor = Doctor::new(config.clone(), ledger.clone(), BookWriter::new(ledger.clone()));
    doctor.visit(now).await?.map_or(Ok(()), |reason| Err(Error::Halted(reason)))
}

/// Examines a ledger from time to time, and remembers why money must not move.
#[derive(Debug)]
pub struct Doctor {
    config: Config,
    ledger: Ledger,
    book: BookWriter,
    examined: Option<Instant>,
    halted: Option<String>,
}

impl Doctor {
    /// A doctor who has not looked yet.
    pub const fn new(config: Config, ledger: Ledger, book: BookWriter) -> Self {
        Self { config, ledger, book, examined: None, halted: None }
    }

    /// Has the next visit examine the ledger, however short ago that was done.
    pub const fn doubt(&mut self) {
        self.examined = None;
    }

    /// Examines the ledger if it is time to, and says why money must not move, if it must not. A halt, and its lifting, is
    /// told in the audit log.
    pub async fn visit(&mut self, now: Millis) -> Result<Option<String>> {
        let every = Duration::from_secs(self.config.policy.check_every_seconds.into());
        let pause = if self.halted.is_some() { RECHECK.min(every) } else { every };
        if self.examined.is_some_and(|examined| examined.elapsed() < pause) {
            return Ok(self.halted.clone());
        }
        let halted = reason(&examine(&self.config, &self.ledger, Depth::Quick).await?);
        self.examined = Some(Instant::now());
        if self.book.set_halt(halted.as_deref(), now).await? {
            match &halted {
                Some(reason) => tracing::error!("halted, no money moves: {reason}"),
                None => tracing::warn!("the ledger is sound again"),
            }
        }
        // What the indexer found is lifted by the indexer.
        self.halted = audit::halt(&self.ledger).await?;
        Ok(self.halted.clone())
    }
}
