//! The command line.

use std::{
    fs,
    path::{Path, PathBuf},
};

use alloy::primitives::{Address, B256};
use clap::{Args, Parser, Subcommand, ValueEnum};
use indexer::{EndpointReport, Endpoints};
use jiff::{Timestamp, civil::Date};
use ledger::{Ledger, audit, book::BookWriter, chain::ChainWriter, read::Reader, rules::Verdict};
use serde::Serialize;

use crate::{
    Error, Result, address, case,
    config::Config,
    decide::{self, Decision},
    demo,
    doctor::{self, Depth},
    generate::{self, Shape},
    install, intake,
    keys::{self, Keys},
    manifests::Manifests,
    opinion::{self, Opinion},
    reconcile::{self, Verification},
    recover::{self, CutOff},
    remote::Remote,
    screen::{Screen, print},
    sender::Sender,
    serve,
    status::Status,
    trust,
};

/// Settles compute work on chain: deposits in, mirrored workloads credited, providers paid.
#[derive(Debug, Parser)]
#[command(name = "quittance", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the whole way once on a local chain, and print the figures.
    Demo(DemoArgs),
    /// Make an installation: configuration and keys. Prints the next step.
    Init(InitArgs),
    /// Put the contract on the chain and register the configured tokens. Safe to repeat.
    Deploy(Folder),
    /// Run indexer, relayer and HTTP server until told to stop.
    Serve(Folder),
    /// Take files of work or of payout addresses in.
    Ingest(IngestArgs),
    /// Decide about one piece of work: hold it, release its money, dispute it, or pay it.
    Decide(DecideArgs),
    /// Bring back from manifests what the database does not know, or set a cut-off where there are none.
    Recover(RecoverArgs),
    /// Prove how one piece of work was paid: leaf, statement, transaction, claim.
    Proof(ProofArgs),
    /// Show how far everything is: money, work, deposits, credits.
    Status(ReportArgs),
    /// Compare the ledger with the contract's state, to the base unit.
    Reconcile(ReportArgs),
    /// Rebuild everything from the contract's logs and compare; check that all else follows.
    Verify(VerifyArgs),
    /// Look at the endpoints: their states, heads and last errors. Or trust one again that lied.
    Endpoints(EndpointsArgs),
    /// Find every row that breaks an invariant of the ledger.
    Doctor(ReportArgs),
    /// List the audit log, and check its chain.
    Audit(ReportArgs),
    /// Copy the database into a new file, also while a server writes to it.
    Backup(BackupArgs),
    /// Account for transactions of the sending account that this ledger did not send.
    Sender(SenderArgs),
    /// Write realistic input files.
    Generate(GenerateArgs),
}

#[derive(Debug, Args)]
struct EndpointsArgs {
    #[command(flatten)]
    report: ReportArgs,
    /// Trust this operator's endpoints again.
    #[arg(long, value_name = "OPERATOR", requires = "reason")]
    clear: Option<String>,
    /// Why.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Debug, Args)]
struct SenderArgs {
    #[command(subcommand)]
    command: SenderCommand,
}

#[derive(Debug, Subcommand)]
enum SenderCommand {
    /// After somebody else used the account: account for everything that it has sent, and go on after it.
    Adopt {
        #[command(flatten)]
        folder: Folder,
        /// What was found out about those transactions, for the record.
        #[arg(long)]
        reason: String,
    },
    /// After a lost or restored database: find the transactions that it does not know and take them in.
    Recover(Folder),
}

#[derive(Debug, Args)]
struct Folder {
    /// Folder of the installation.
    #[arg(long, default_value = ".", env = "QUITTANCE_DIR")]
    dir: PathBuf,
}

#[derive(Debug, Args)]
struct ReportArgs {
    #[command(flatten)]
    folder: Folder,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct BackupArgs {
    #[command(flatten)]
    folder: Folder,
    /// The file to make. It must not exist yet.
    file: PathBuf,
}

#[derive(Debug, Args)]
struct VerifyArgs {
    #[command(flatten)]
    report: ReportArgs,
    /// Besides, compute what each statement should have paid from these workload files, in the order in which they were
    /// taken in, and compare.
    #[arg(long, num_args = 1.., value_name = "FILE")]
    workloads: Vec<PathBuf>,
}

#[derive(Debug, Args)]
struct DemoArgs {
    /// Run on these files instead of generated ones.
    #[arg(long, num_args = 1.., value_name = "FILE")]
    input: Vec<PathBuf>,
    /// Machines a day.
    #[arg(long, default_value_t = 500)]
    machines: u32,
    /// Days.
    #[arg(long, default_value_t = 3)]
    days: u32,
    /// Organisations.
    #[arg(long, default_value_t = 8)]
    organisations: u32,
    /// Seed of the generated input.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print the final figures as one JSON object and nothing else; implies --exit.
    #[arg(long)]
    json: bool,
    /// Leave database, chain state and configuration in this new folder.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// End when done instead of serving the result until Ctrl-C.
    #[arg(long)]
    exit: bool,
    /// Push credits of at least so many units; smaller ones stay claimable.
    #[arg(long, default_value_t = 50_000, value_name = "UNITS")]
    push_threshold: u64,
    /// Use a running anvil instead of starting one.
    #[arg(long, value_name = "URL")]
    rpc_url: Option<String>,
}

#[derive(Debug, Args)]
struct InitArgs {
    #[command(flatten)]
    folder: Folder,
    /// JSON-RPC endpoint of the chain. What the environment says cannot be read in a list of processes.
    #[arg(long, env = "QUITTANCE_RPC_URL", hide_env_values = true)]
    rpc_url: String,
    /// Where the operator's fee is paid.
    #[arg(long, value_parser = address::parse)]
    operator_payout: Option<Address>,
    /// So many blocks below the head are final, for chains without a `finalized` tag.
    #[arg(long, value_name = "BLOCKS")]
    finality_depth: Option<u64>,
}

#[derive(Debug, Args)]
struct IngestArgs {
    #[command(flatten)]
    folder: Folder,
    /// Daily earnings (`YYYYMMDD-YYYYMMDD.json`) or JSON lines of `workload/1` or `payee/1`.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Afterwards, order that everything payable in these files be settled.
    #[arg(long)]
    close: bool,
    /// Print one JSON object per file.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct DecideArgs {
    #[command(flatten)]
    folder: Folder,
    /// What is decided.
    #[arg(value_enum)]
    verdict: VerdictArg,
    /// Who reported the work.
    #[arg(long)]
    source: String,
    /// The source's own id of it.
    #[arg(long)]
    external_id: String,
    /// Why; kept with the decision.
    #[arg(long)]
    reason: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum VerdictArg {
    /// It waits for a review, and its money with it.
    Hold,
    /// Its money is let go: it is not paid.
    Release,
    /// Its requestor objects, within the holdback.
    Dispute,
    /// It is paid, whatever was said before.
    Pay,
}

impl From<VerdictArg> for Verdict {
    fn from(verdict: VerdictArg) -> Self {
        match verdict {
            VerdictArg::Hold => Self::Hold,
            VerdictArg::Release => Self::Release,
            VerdictArg::Dispute => Self::Dispute,
            VerdictArg::Pay => Self::Pay,
        }
    }
}

#[derive(Debug, Args)]
struct RecoverArgs {
    #[command(flatten)]
    folder: Folder,
    /// Import nothing; regard work of this deposit's organisation that ended before --until as paid.
    #[arg(long, value_name = "DEPOSIT", requires_all = ["until", "reason"])]
    cut_off: Option<B256>,
    /// The time of the cut-off, such as 2026-11-20T07:00:00Z.
    #[arg(long, value_name = "TIME", requires = "cut_off")]
    until: Option<Timestamp>,
    /// Why; kept in the audit log.
    #[arg(long, requires = "cut_off")]
    reason: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ProofArgs {
    #[command(flatten)]
    folder: Folder,
    /// Who reported the work.
    #[arg(long)]
    source: String,
    /// The source's own id of it.
    #[arg(long)]
    external_id: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct GenerateArgs {
    /// Folder for the files.
    #[arg(long, default_value = ".")]
    out: PathBuf,
    /// Which format.
    #[arg(long, value_enum, default_value_t = Format::Earnings)]
    format: Format,
    /// Same seed, same files.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// First day.
    #[arg(long, default_value = "2026-11-18")]
    first_day: Date,
    /// Days, one file each.
    #[arg(long, default_value_t = 1)]
    days: u32,
    /// Machines a day.
    #[arg(long, default_value_t = 500)]
    machines: u32,
    /// Organisations.
    #[arg(long, default_value_t = 8)]
    organisations: u32,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// The pilot's daily earnings.
    Earnings,
    /// `workload/1`, one record per line.
    Workloads,
}

/// An installation, opened for reading.
struct Installation {
    config: Config,
    ledger: Ledger,
    endpoints: Endpoints,
}

impl Installation {
    async fn open(folder: &Path) -> Result<Self> {
        let (config, ledger) = open_to_read(folder).await?;
        let endpoints = trusted_endpoints(&config, &ledger).await?;
        Ok(Self { config, ledger, endpoints })
    }
}

impl Cli {
    /// Carries the command out.
    pub async fn run(self) -> Result<()> {
        match self.command {
            Command::Demo(args) => Box::pin(run_demo(args)).await,
            Command::Init(args) => {
                let finality =
                    args.finality_depth.map_or(indexer::Finality::Tag, indexer::Finality::Depth);
                let next =
                    install::init(&args.folder.dir, &args.rpc_url, args.operator_payout, finality)
                        .await?;
                print(next);
                Ok(())
            }
            Command::Deploy(folder) => {
                print(install::deploy(&Config::read(&folder.dir)?).await?);
                Ok(())
            }
            Command::Serve(folder) => serve::run(Config::read(&folder.dir)?).await,
            Command::Ingest(args) => ingest(args).await,
            Command::Decide(args) => run_decide(args).await,
            Command::Recover(args) => run_recover(args).await,
            Command::Proof(args) => run_proof(args).await,
            Command::Status(args) => status(args).await,
            Command::Reconcile(args) => run_reconcile(args).await,
            Command::Verify(args) => run_verify(args).await,
            Command::Endpoints(args) => run_endpoints(args).await,
            Command::Doctor(args) => run_doctor(args).await,
            Command::Audit(args) => run_audit(args).await,
            Command::Backup(args) => run_backup(args).await,
            Command::Sender(args) => run_sender(args.command).await,
            Command::Generate(args) => generate_files(&args),
        }
    }
}

async fn run_endpoints(EndpointsArgs { report, clear, reason }: EndpointsArgs) -> Result<()> {
    let clearing = clear.zip(reason);
    if let Some((operator, reason)) = &clearing {
        let config = Config::read(&report.folder.dir)?;
        match open_to_write(&config).await? {
            Writer::Ledger(ledger) => {
                let now = Timestamp::now().as_millisecond();
                let cleared =
                    trust::clear(&config.endpoints()?, ledger.clone(), operator, reason, now).await;
                ledger.close().await;
                cleared?;
            }
            Writer::Server(remote) => remote.clear_endpoint(operator, reason).await?,
        }
    }
    let Installation { endpoints, .. } = Installation::open(&report.folder.dir).await?;
    let agreed = endpoints.look().await;
    let listed = endpoints.report();
    if report.json {
        print(serde_json::to_string(&listed)?);
    } else {
        print(endpoints_text(&listed));
    }
    // What was asked for is done, whatever the others say; the list tells.
    if clearing.is_none() {
        agreed?;
    }
    Ok(())
}

fn endpoints_text(listed: &[EndpointReport]) -> String {
    let shown =
        |number: Option<u64>| number.map_or_else(|| "-".into(), |number| number.to_string());
    let mut text = format!(
        "{:<16} {:<12} {:>10} {:>10} {:>6}  last problem",
        "operator", "state", "newest", "final", "lag"
    );
    for EndpointReport { operator, state, latest, finalised, lag, reason } in listed {
        let (latest, finalised) = (shown(*latest), shown(*finalised));
        let (state, reason) = (state.to_string(), reason.as_deref().unwrap_or("none"));
        text.push_str(&format!(
            "\n{operator:<16} {state:<12} {latest:>10} {finalised:>10} {lag:>6}  {reason}"
        ));
    }
    text
}

async fn run_demo(args: DemoArgs) -> Result<()> {
    let options = demo::Options {
        input: args.input,
        machines: args.machines,
        days: args.days,
        organisations: args.organisations,
        seed: args.seed,
        keep: args.keep,
        rpc_url: args.rpc_url,
        push_threshold: args.push_threshold,
    };
    let screen = Screen::new(args.json);
    // One listener for all of it, so that no interrupt falls between two.
    let mut interrupts = serve::Interrupts::listen()?;
    let finished = tokio::select! {
        finished = demo::run(&options, &screen) => finished?,
        () = interrupts.next() => return Err(Error::Interrupted),
    };
    screen.finish();
    if args.json {
        print(serde_json::to_string(&finished.figures)?);
    } else {
        print(finished.figures.text());
    }
    let agrees = finished.figures.agrees();
    finished.end((!args.exit && !args.json && agrees).then_some(interrupts)).await?;
    if agrees { Ok(()) } else { Err(Error::Differences("the demo does not reconcile".into())) }
}

async fn ingest(args: IngestArgs) -> Result<()> {
    let config = Config::read(&args.folder.dir)?;
    let mut desk = match open_to_write(&config).await? {
        Writer::Ledger(ledger) => intake::Desk::local(&config, ledger).await?,
        Writer::Server(remote) => intake::Desk::remote(remote),
    };
    let mut last_stop = None;
    for path in &args.files {
        let bytes = fs::read(path).map_err(Error::file(path))?;
        let name =
            path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let report = desk.take_in(&name, bytes).await?;
        last_stop = last_stop.max(report.last_stop_ms);
        print(if args.json { serde_json::to_string(&report)? } else { report.text(&name) });
    }
    if let Some(until) = last_stop.filter(|_| args.close) {
        desk.close_until(until).await?;
    }
    Ok(())
}

async fn run_decide(args: DecideArgs) -> Result<()> {
    let config = Config::read(&args.folder.dir)?;
    let decision = Decision {
        source: args.source,
        external_id: args.external_id,
        verdict: args.verdict.into(),
        reason: args.reason,
    };
    match open_to_write(&config).await? {
        Writer::Ledger(ledger) => {
            let now = Timestamp::now().as_millisecond();
            doctor::refuse_if_halted(&config, &ledger, now).await?;
            let (book, reader) = (BookWriter::new(ledger.clone()), Reader::new(ledger));
            let manifests = Manifests::new(&config, keys::secret(&config)?);
            manifests.notice(&reader, &book, now).await?;
            decide::decide(&config, &book, &reader, &decision, now).await?;
            manifests.keep_orders(&book, now).await?;
        }
        Writer::Server(remote) => remote.decide(&decision).await?,
    }
    print(format!("{}: {}", decision.external_id, decision.verdict.name()));
    Ok(())
}

async fn run_recover(args: RecoverArgs) -> Result<()> {
    let config = Config::read(&args.folder.dir)?;
    let cut_off = match (args.cut_off, args.until, args.reason) {
        (Some(deposit), Some(until), Some(reason)) => {
            Some(CutOff { deposit, until_ms: until.as_millisecond(), reason })
        }
        _ => None,
    };
    let recovery = match open_to_write(&config).await? {
        Writer::Ledger(ledger) => {
            let (book, reader) = (BookWriter::new(ledger.clone()), Reader::new(ledger));
            let now = Timestamp::now().as_millisecond();
            let organisations = config.ledger_organisations();
            book.set_organisations(&organisations, config.policy.attester, now).await?;
            let secret = keys::secret(&config)?;
            let manifests = Manifests::new(&config, secret.clone());
            match &cut_off {
                Some(cut_off) => recover::cut_off(cut_off, &manifests, &book, &reader, now).await?,
                None => recover::recover(&manifests, &secret, &book, &reader, now).await?,
            }
        }
        Writer::Server(remote) => remote.recover(cut_off.as_ref()).await?,
    };
    print(if args.json { serde_json::to_string(&recovery)? } else { recovery.text() });
    Ok(())
}

async fn run_proof(args: ProofArgs) -> Result<()> {
    let (_, ledger) = open_to_read(&args.folder.dir).await?;
    let proof = Reader::new(ledger).proof(&args.source, &args.external_id).await?;
    let Some(proof) = proof else {
        let (source, external_id) = (args.source, args.external_id);
        return Err(Error::Usage(format!("there is no work {external_id:?} of source {source:?}")));
    };
    print(if args.json { serde_json::to_string(&proof)? } else { proof.to_string() });
    Ok(())
}

async fn status(args: ReportArgs) -> Result<()> {
    let Installation { config, ledger, .. } = Installation::open(&args.folder.dir).await?;
    let status = Status::gather(&config, &ledger).await?;
    print(if args.json { serde_json::to_string(&status)? } else { status.text() });
    Ok(())
}

async fn run_reconcile(args: ReportArgs) -> Result<()> {
    let Installation { config, ledger, endpoints } = Installation::open(&args.folder.dir).await?;
    let result = reconcile::reconcile(&config, &ledger, &endpoints.provider()).await?;
    print(if args.json { serde_json::to_string(&result)? } else { result.text() });
    match result.differences.len() {
        0 => Ok(()),
        n => Err(Error::Differences(format!("{n} differences between ledger and contract"))),
    }
}

async fn run_verify(VerifyArgs { report, workloads }: VerifyArgs) -> Result<()> {
    let Installation { config, ledger, endpoints } = Installation::open(&report.folder.dir).await?;
    let verification =
        reconcile::verify(&config, &Keys::open(&config)?, &ledger, &endpoints).await?;
    let opinion = if workloads.is_empty() {
        None
    } else {
        let case = case::gather(&config, &ledger, &endpoints, &workloads).await?;
        Some(opinion::judge(&case))
    };
    let second = opinion.as_ref().map_or(0, |opinion| opinion.differences.len());
    let differences = verification.differences.len() + second;
    print(match (report.json, &opinion) {
        (true, _) => serde_json::to_string(&Verified { verification, opinion })?,
        (false, None) => verification.text(),
        (false, Some(opinion)) => format!("{}\n{}", verification.text(), opinion.text()),
    });
    match differences {
        0 => Ok(()),
        n => Err(Error::Differences(format!("{n} differences"))),
    }
}

async fn run_doctor(args: ReportArgs) -> Result<()> {
    let (config, ledger) = open_to_read(&args.folder.dir).await?;
    let found = doctor::examine(&config, &ledger, Depth::Deep).await?;
    if args.json {
        print(serde_json::to_string(&serde_json::json!({ "violations": found }))?);
    } else {
        found.iter().for_each(|violation| print(violation.to_string()));
    }
    match found.len() {
        0 if args.json => Ok(()),
        0 => {
            print("the ledger is sound: no invariant is broken");
            Ok(())
        }
        n => Err(Error::Differences(format!("{n} rows break an invariant"))),
    }
}

async fn run_audit(args: ReportArgs) -> Result<()> {
    let (_, ledger) = open_to_read(&args.folder.dir).await?;
    for entry in audit::entries(&ledger).await? {
        if args.json {
            print(serde_json::to_string(&entry)?);
        } else {
            let at = Timestamp::from_millisecond(entry.at)
                .map_or_else(|_| entry.at.to_string(), |at| at.to_string());
            let audit::Entry { seq, actor, action, subject, detail, hash, .. } = entry;
            print(format!("{seq}  {at}  {actor}: {action} {subject}: {detail}\n    {hash}"));
        }
    }
    match audit::verify(&ledger).await?.as_slice() {
        [] => Ok(()),
        [(seq, problem), ..] => Err(Error::Differences(format!("entry {seq}: {problem}"))),
    }
}

async fn run_backup(args: BackupArgs) -> Result<()> {
    let (config, ledger) = open_to_read(&args.folder.dir).await?;
    let mut found = ledger.backup(&args.file).await?;
    // Served from, the copy halts for the same manifests as the database.
    found.extend(doctor::unpublished(&config, &ledger).await?);
    if let Some(first) = found.first() {
        let reason = format!("the copy breaks {} invariants, the first is {first}", found.len());
        return Err(Error::Differences(reason));
    }
    print(format!("{} is synced and sound", args.file.display()));
    Ok(())
}

/// An installation's ledger, opened for reading; no endpoint is needed.
async fn open_to_read(folder: &Path) -> Result<(Config, Ledger)> {
    let config = Config::read(folder)?;
    let ledger = Ledger::open_read_only(&config.path(&config.files.database)).await?;
    Ok((config, ledger))
}

/// The configured endpoints. Those of operators that the ledger has marked are asked nothing.
async fn trusted_endpoints(config: &Config, ledger: &Ledger) -> Result<Endpoints> {
    let endpoints = config.endpoints()?;
    for (operator, lie) in ChainWriter::new(ledger.clone()).lying_operators().await? {
        endpoints.distrust(&operator, &lie);
    }
    Ok(endpoints)
}

/// Who writes an installation's ledger.
enum Writer {
    /// This process.
    Ledger(Ledger),
    /// A running server, which the work is handed to.
    Server(Remote),
}

async fn open_to_write(config: &Config) -> Result<Writer> {
    match Ledger::open(&config.path(&config.files.database), config.identity()).await {
        Ok(ledger) => Ok(Writer::Ledger(ledger)),
        Err(ledger::Error::Locked(_)) => Ok(Writer::Server(Remote::new(config)?)),
        Err(error) => Err(error.into()),
    }
}

async fn run_sender(command: SenderCommand) -> Result<()> {
    let (SenderCommand::Adopt { folder, .. } | SenderCommand::Recover(folder)) = &command;
    let config = Config::read(&folder.dir)?;
    let ledger = Ledger::open(&config.path(&config.files.database), config.identity()).await?;
    let endpoints = trusted_endpoints(&config, &ledger).await?;
    let (reader, book) = (Reader::new(ledger.clone()), BookWriter::new(ledger));
    let (keys, limits) = (Keys::open(&config)?, config.sending_limits());
    // One endpoint alone is not asked otherwise which chain it serves, and what is adopted stays.
    endpoints.look().await?;
    let sender = Sender::new(endpoints.provider(), keys.sender, limits, reader, book);
    let now = jiff::Timestamp::now().as_millisecond();
    let address = sender.address();
    match command {
        SenderCommand::Adopt { reason, .. } => {
            if reason.trim().is_empty() {
                return Err(Error::Usage(
                    "--reason is empty; say what those transactions were".into(),
                ));
            }
            let until = sender.adopt(&reason, now).await?;
            print(format!("{address} goes on with tx nonce {until}; start quittance serve"));
        }
        SenderCommand::Recover(_) => {
            let recovered = sender.recover(now).await?;
            print(format!(
                "{address}: took in {} transactions of this contract and accounted for {} others; it goes on with tx nonce {}",
                recovered.imported, recovered.other, recovered.until
            ));
        }
    }
    Ok(())
}

/// What `verify` prints as JSON.
#[derive(Serialize)]
struct Verified {
    #[serde(flatten)]
    verification: Verification,
    #[serde(skip_serializing_if = "Option::is_none")]
    opinion: Option<Opinion>,
}

fn generate_files(args: &GenerateArgs) -> Result<()> {
    let shape = Shape {
        seed: args.seed,
        first_day: args.first_day,
        days: args.days,
        machines: args.machines,
        organisations: args.organisations,
    };
    let mut files = match args.format {
        Format::Earnings => generate::earnings(&shape),
        Format::Workloads => generate::workloads(&shape),
    };
    files.push(generate::payees(&shape));
    fs::create_dir_all(&args.out).map_err(Error::file(&args.out))?;
    for file in files {
        let path = args.out.join(&file.name);
        fs::write(&path, &file.content).map_err(Error::file(&path))?;
        print(format!("{} ({} bytes)", path.display(), file.content.len()));
    }
    Ok(())
}
