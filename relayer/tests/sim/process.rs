//! The process under test: the real ledger on a real file, the real indexer and relayer over it. It can end anywhere, and
//! begins again from its files.

use std::{
    fs,
    path::{Path, PathBuf},
    rc::Rc,
};

use indexer::{Endpoints, Indexer, Upstream};
use ledger::{
    Ledger, Millis,
    book::{BookWriter, Tariff},
    invariants::Violation,
    point,
    read::Reader,
};
use relayer::{config::Config, sender::Sender, turn::Relayer};

use crate::{
    net::Net,
    setting::{self, Setting},
    witness::Witness,
};

/// A running process.
pub(crate) struct Running {
    pub(crate) ledger: Ledger,
    pub(crate) book: BookWriter,
    pub(crate) indexer: Indexer,
    pub(crate) relayer: Relayer,
    endpoints: Endpoints,
}

impl Running {
    /// What `quittance sender` works with.
    pub(crate) fn sender(&self, config: &Config) -> Sender {
        let (reader, book) = (Reader::new(self.ledger.clone()), self.book.clone());
        let (key, limits) = (setting::keys().sender, config.sending_limits());
        Sender::new(self.endpoints.provider(), key, limits, reader, book)
    }
}

/// The files of an installation, and the process over them, if it is up.
pub(crate) struct Process {
    pub(crate) running: Option<Running>,
    pub(crate) config: Config,
    folder: PathBuf,
    /// Times that it began; each run has its own copy of the file, so that what still holds the old one cannot write.
    runs: u32,
    /// The newest backup.
    backup: Option<PathBuf>,
    net: Net,
    witness: Witness,
}

impl Process {
    pub(crate) fn new(config: Config, net: Net, witness: Witness) -> Self {
        let folder = config.folder.clone();
        let first = folder.join("run-0");
        fs::create_dir_all(&first).expect("a writable folder");
        Setting::get().copy_ledger(&first);
        let observed = net.clone();
        point::observe(Some(Rc::new(move |name, side| observed.pass(name, side))));
        Self { running: None, config, folder, runs: 0, backup: None, net, witness }
    }

    fn database(&self) -> PathBuf {
        self.folder.join(format!("run-{}", self.runs)).join("quittance.db")
    }

    pub(crate) fn tariff(&self) -> Tariff {
        self.config.tariff()
    }

    /// Begins, as `serve` does. Fails where the network does.
    pub(crate) async fn start(&mut self) -> Result<(), relayer::Error> {
        let config = self.config.clone();
        let ledger = Ledger::open(&self.database(), config.identity()).await?;
        self.witness.look_at(&self.database()).await;
        let book = BookWriter::new(ledger.clone());
        book.set_organisations(&config.ledger_organisations(), config.policy.attester, 0).await?;
        let nodes = self.net.outside().nodes.len();
        let upstream = |node: usize| Upstream {
            operator: ["alpha", "beta", "gamma"][node].into(),
            provider: self.net.provider(node),
            hidden: Vec::new(),
        };
        let chain = &config.chain;
        let upstreams = (0..nodes).map(upstream).collect();
        let endpoints = Endpoints::new(upstreams, chain.contract, chain.finality);
        endpoints.expect_chain(chain.id, chain.genesis);
        let indexer = Indexer::new(endpoints.clone(), ledger.clone()).await?;
        let relayer = Relayer::new(config, setting::keys(), ledger.clone(), endpoints.clone());
        relayer.notice(0).await?;
        self.running = Some(Running { ledger, book, indexer, relayer, endpoints });
        Ok(())
    }

    /// Ends without a word: nothing is closed, nothing is finished. The files stay as they are at this moment.
    pub(crate) fn crash(&mut self) {
        let old = self.database();
        self.runs += 1;
        let new = self.database();
        fs::create_dir_all(new.parent().expect("a folder")).expect("a writable folder");
        // The index of the log (`-shm`) is memory that a crash of the host loses.
        for name in ["quittance.db", "quittance.db-wal"] {
            copy(&old.with_file_name(name), &new.with_file_name(name));
        }
        self.running = None;
        drop(fs::remove_dir_all(old.parent().expect("a folder")));
    }

    /// Takes a backup while it runs, and says which invariants it breaks.
    pub(crate) async fn back_up(&mut self) -> Result<Vec<Violation>, ledger::Error> {
        let Some(running) = &self.running else { return Ok(Vec::new()) };
        let path = self.folder.join("backup.db");
        drop(fs::remove_file(&path));
        let found = running.ledger.backup(&path).await?;
        self.backup = Some(path);
        Ok(found)
    }

    /// Ends, and loses the database. Its place takes the newest backup, if that is wanted and there is one, or an empty file.
    /// Returns whether it was a backup.
    pub(crate) fn lose(&mut self, wants_backup: bool) -> bool {
        self.crash();
        let file = self.database();
        let folder = file.parent().expect("a folder");
        for name in ["quittance.db", "quittance.db-wal"] {
            drop(fs::remove_file(folder.join(name)));
        }
        match self.backup.as_ref().filter(|_| wants_backup) {
            Some(backup) => copy(backup, &file),
            None => Setting::get().copy_ledger(folder),
        }
        self.backup.is_some() && wants_backup
    }
}

fn copy(from: &Path, to: &Path) {
    if from.exists() {
        fs::copy(from, to).expect("a writable folder");
    }
}

/// The host's clock.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Clock {
    /// How far it is off, ms.
    pub(crate) skew: Millis,
}

impl Clock {
    pub(crate) fn now(self, chain_time: u64) -> Millis {
        i64::try_from(chain_time).expect("a time") * 1000 + self.skew
    }
}
