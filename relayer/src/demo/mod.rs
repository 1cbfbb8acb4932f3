//! `quittance demo`: the whole way once, on a local chain, with realistic input.
//!
//! Everything is real: contracts, transactions, ledger, statements, signatures. Only time is told by the chain's blocks,
//! and turns are taken one after the other, so that two runs on the same input end in the same figures.

mod setup;
mod summary;

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use alloy::{
    primitives::B256,
    providers::{DynProvider, Provider},
};
use indexer::{Endpoints, Indexer, Turn};
use jiff::{Timestamp, civil::Date};
use ledger::{
    Ledger, Millis,
    book::BookWriter,
    read::{Reader, Table},
};
use tempfile::TempDir;

pub use self::summary::Figures;
use self::{setup::Chain, summary::Timing};
use crate::{
    Error, Result,
    anvil::Anvil,
    config::Config,
    generate::{self, Shape},
    intake::{self, Parsed},
    keys::Keys,
    reconcile,
    screen::{Screen, complain, print},
    serve,
    turn::Relayer,
};

/// How many blocks without anything to do end a stage: more than finality takes.
const QUIET_BLOCKS: u32 = 4;
/// How many turns a stage may take before it is called stalled.
const MAX_TURNS: u32 = 10_000;

/// What the demo is asked to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// Files to run on instead of generated ones.
    pub input: Vec<PathBuf>,
    /// Machines a day, if generated.
    pub machines: u32,
    /// Days, if generated.
    pub days: u32,
    /// Organisations, if generated.
    pub organisations: u32,
    /// Seed, if generated.
    pub seed: u64,
    /// Where to leave database, chain state and configuration; a temporary folder otherwise.
    pub keep: Option<PathBuf>,
    /// A running anvil to use instead of starting one.
    pub rpc_url: Option<String>,
    /// Credits of at least so many units are pushed.
    pub push_threshold: u64,
}

/// A finished demo: its figures, and what still runs.
#[derive(Debug)]
pub struct Finished {
    /// The final figures.
    pub figures: Figures,
    /// Configuration of the installation that was made.
    pub config: Config,
    /// Its ledger.
    pub ledger: Ledger,
    /// The chain, if the demo started it.
    pub anvil: Option<Anvil>,
    // Removed with everything in it when dropped.
    _folder: Option<TempDir>,
}

impl Finished {
    /// Serves the result until interrupted, or ends at once without `interrupts`. What was to be kept is written,
    /// everything else removed.
    pub async fn end(self, interrupts: Option<serve::Interrupts>) -> Result<()> {
        if let Some(interrupts) = interrupts {
            let address = &self.config.http.listen;
            print(format!("serving http://{address}/v1/status until Ctrl-C"));
            serve::listen_until(interrupts, self.config.clone(), self.ledger.clone()).await?;
        }
        self.ledger.close().await;
        let Some(anvil) = self.anvil else { return Ok(()) };
        anvil.stop().await?;
        if self._folder.is_none() {
            let (state, folder) =
                (self.config.folder.join(setup::STATE_FILE), self.config.folder.display());
            complain(format!(
                "kept in {folder}; to go on:\n  {} &\n  quittance serve --dir {folder}",
                Anvil::command_line(
                    &state,
                    port_of(self.config.chain.rpc_url.as_deref().unwrap_or_default())
                )
            ));
        }
        Ok(())
    }
}

fn port_of(url: &str) -> u16 {
    url.rsplit(':').next().and_then(|port| port.trim_end_matches('/').parse().ok()).unwrap_or(8545)
}

/// An input file with its parsed content.
struct Input {
    name: String,
    parsed: Parsed,
}

/// Runs the demo to its end.
pub async fn run(options: &Options, screen: &Screen) -> Result<Finished> {
    let began = Instant::now();
    let temporary = match options.keep {
        Some(_) => None,
        None => Some(tempfile::tempdir().map_err(Error::file(Path::new("temporary folder")))?),
    };
    let folder = match (&options.keep, &temporary) {
        (Some(keep), _) => keep.clone(),
        (None, Some(temporary)) => temporary.path().to_owned(),
        (None, None) => return Err(Error::Usage("the demo needs a folder".into())),
    };
    let inputs = inputs(options)?;
    let (anvil, url) = start_chain(options, &folder, screen).await?;
    let chain =
        setup::Chain::prepare(&url, &folder, &inputs, options.push_threshold, screen).await?;
    let mut demo = Demo::open(chain, screen).await?;
    let reports = demo.ingest(&inputs).await?;
    let settling = Instant::now();
    demo.close(&reports).await?;
    let timing = Timing { total: began.elapsed(), settling: settling.elapsed() };
    let figures = demo.figures(reports, timing).await?;
    Ok(Finished {
        figures,
        config: demo.chain.config.clone(),
        ledger: demo.ledger.clone(),
        anvil,
        _folder: temporary,
    })
}

/// The files to run on: the user's, or generated ones with the payout addresses of their machines.
fn inputs(options: &Options) -> Result<Vec<Input>> {
    let source = "salad";
    let parse = |name: String, bytes: &[u8]| {
        Ok(Input { parsed: intake::parse(&name, bytes, source)?, name })
    };
    if !options.input.is_empty() {
        return options
            .input
            .iter()
            .map(|path| {
                let name = path
                    .file_name()
                    .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
                parse(name, &std::fs::read(path).map_err(Error::file(path))?)
            })
            .collect();
    }
    let shape = Shape {
        seed: options.seed,
        first_day: Date::constant(2026, 11, 18),
        days: options.days,
        machines: options.machines,
        organisations: options.organisations,
    };
    let payees = generate::payees(&shape);
    let files = std::iter::once(payees).chain(generate::earnings(&shape));
    files.map(|file| parse(file.name, file.content.as_bytes())).collect()
}

async fn start_chain(
    options: &Options,
    folder: &Path,
    screen: &Screen,
) -> Result<(Option<Anvil>, String)> {
    if let Some(url) = &options.rpc_url {
        return Ok((None, url.clone()));
    }
    let state = folder.join(setup::STATE_FILE);
    let anvil = Anvil::start(options.keep.as_ref().map(|_| state.as_path())).await?;
    screen.done(format!("started a local chain at {}", anvil.url));
    let url = anvil.url.clone();
    Ok((Some(anvil), url))
}

/// A demo in progress.
struct Demo<'a> {
    chain: Chain,
    ledger: Ledger,
    reader: Reader,
    book: BookWriter,
    indexer: Indexer,
    relayer: Relayer,
    endpoints: Endpoints,
    screen: &'a Screen,
}

impl<'a> Demo<'a> {
    async fn open(chain: Chain, screen: &'a Screen) -> Result<Self> {
        let config = chain.config.clone();
        let ledger = Ledger::open(&config.path(&config.files.database), config.identity()).await?;
        let (reader, book) = (Reader::new(ledger.clone()), BookWriter::new(ledger.clone()));
        book.set_organisations(
            &config.ledger_organisations(),
            config.policy.attester,
            Timestamp::now().as_millisecond(),
        )
        .await?;
        let endpoints = config.endpoints()?;
        let indexer = Indexer::new(endpoints.clone(), ledger.clone()).await?;
        let keys = Keys::open(&config)?;
        let relayer = Relayer::new(config, keys, ledger.clone(), endpoints.clone());
        let mut demo = Self { chain, ledger, reader, book, indexer, relayer, endpoints, screen };
        demo.index().await?;
        Ok(demo)
    }

    /// Takes all files in: payout addresses first, registered in final blocks, then the days.
    async fn ingest(&mut self, inputs: &[Input]) -> Result<Vec<(String, intake::Report)>> {
        let (payees, days): (Vec<_>, Vec<_>) =
            inputs.iter().partition(|input| matches!(input.parsed, Parsed::Payees { .. }));
        let mut reports = Vec::new();
        for input in payees {
            reports.push(self.take_in(input).await?);
        }
        self.name_remaining_machines(inputs, !reports.is_empty()).await?;
        self.drive(false).await?;
        let providers = self.reader.provider_count().await?;
        self.screen.done(format!("registered {providers} payout addresses"));
        for input in days {
            reports.push(self.take_in(input).await?);
        }
        Ok(reports)
    }

    async fn take_in(&self, input: &Input) -> Result<(String, intake::Report)> {
        let tariff = self.chain.config.tariff();
        let report = intake::take_in(&self.book, &input.parsed, &tariff, self.now().await?).await?;
        self.screen.done(format!("took in {}: {}", input.name, summary::outcomes(&report)));
        Ok((input.name.clone(), report))
    }

    /// Gives every machine an address, unless a file of payout addresses says which have one.
    async fn name_remaining_machines(&self, inputs: &[Input], is_given: bool) -> Result<()> {
        if is_given {
            return Ok(());
        }
        let now = self.now().await?;
        for record in inputs.iter().flat_map(Input::records) {
            if record.payout.is_none() {
                let address = generate::payout_address(&record.item.machine);
                self.book.set_payee(&record.item.machine, address, (0, now)).await?;
            }
        }
        Ok(())
    }

    /// Closes one day after the other, then pushes what was credited.
    async fn close(&mut self, reports: &[(String, intake::Report)]) -> Result<()> {
        let now = self.now().await?;
        let mut until = Millis::MIN;
        for (_, report) in reports {
            let Some(last) = report.last_stop_ms else { continue };
            until = until.max(last);
            self.book.close_until(until, now).await?;
        }
        let waiting = self.drive(false).await?;
        if self.reader.unsettled_statements().await?.iter().any(|statement| !statement.is_overtaken)
        {
            return Err(Error::Stalled(format!(
                "statements are left unsettled: {}",
                waiting.join("; ")
            )));
        }
        let statements = self.reader.count(Table::Settled).await?;
        self.screen.done(format!("settled {statements} statements"));
        self.drive(true).await?;
        self.chain.mine_by_itself(true).await?;
        let claims = self.reader.count(Table::Claims).await?;
        self.screen.done(format!("pushed {claims} payouts"));
        Ok(())
    }

    /// Takes turns until nothing has happened for a few blocks. Returns what waits then, and why.
    async fn drive(&mut self, push: bool) -> Result<Vec<String>> {
        let mut quiet = 0;
        for _ in 0..MAX_TURNS {
            self.index().await?;
            let report = self.relayer.turn(self.now().await?, push).await?;
            let settled = self.reader.count(Table::Settled).await?;
            let claims = self.reader.count(Table::Claims).await?;
            self.screen.working(format!("{settled} statements settled, {claims} payouts pushed"));
            if report.is_idle() {
                quiet += 1;
                if quiet > QUIET_BLOCKS {
                    return Ok(report.waiting);
                }
            } else {
                quiet = 0;
            }
            self.chain.mine().await?;
        }
        Err(Error::Stalled(format!("still not idle after {MAX_TURNS} turns")))
    }

    async fn index(&mut self) -> Result<()> {
        while self.indexer.turn().await? != Turn::Idle {}
        Ok(())
    }

    async fn now(&self) -> Result<Millis> {
        reconcile::chain_time(&self.chain.provider).await
    }

    async fn figures(
        &self,
        reports: Vec<(String, intake::Report)>,
        timing: Timing,
    ) -> Result<Figures> {
        let config = &self.chain.config;
        let reconciliation =
            reconcile::reconcile(config, &self.ledger, &self.chain.provider).await?;
        let keys = Keys::open(config)?;
        let verification = reconcile::verify(config, &keys, &self.ledger, &self.endpoints).await?;
        Figures::gather(config, &self.reader, reports, reconciliation, verification, timing).await
    }
}

impl Input {
    fn records(&self) -> impl Iterator<Item = &ledger::workload::Record> {
        let records = match &self.parsed {
            Parsed::Work { records, .. } => records.as_slice(),
            Parsed::Payees { .. } => &[],
        };
        records.iter().flatten()
    }
}

/// Salt of an organisation's deposit.
fn deposit_salt(organisation: &str) -> B256 {
    alloy::primitives::keccak256(organisation)
}

/// Chain id of a provider.
async fn chain_id(provider: &DynProvider) -> Result<u64> {
    provider.get_chain_id().await.map_err(Error::endpoint("eth_chainId"))
}
