//! `serve`: indexer, relayer and HTTP server as tasks over one ledger. If one ends, all end.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, Request, State},
    http::{
        HeaderMap, Method, StatusCode,
        header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE},
    },
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use contracts::Settlement;
use indexer::{Endpoints, Indexer, Standing};
use jiff::Timestamp;
use ledger::{Ledger, Millis, book::BookWriter, read::Reader};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::{self, JoinError, JoinSet},
    time::{sleep, timeout},
};

use crate::{
    Error, Result, chain_of,
    config::{Config, Policy},
    decide::{self, Decision},
    doctor::Doctor,
    intake,
    keys::{self, Keys},
    manifests::Manifests,
    recover::{self, CutOff},
    remote,
    status::Status,
    trust,
    turn::{MAX_CHAIN_LAG, Relayer, Report, settle_input},
};

/// How long tasks have to end in order once one has, or the process is asked to.
const GRACE: Duration = Duration::from_secs(8);

/// How long credits are not looked at, at most, while something else is under way.
const LONGEST_WITHOUT_CLAIMS: Duration = Duration::from_secs(600);

/// Most that a closing may be ahead of both clocks: one in another unit of time would close all that is still to come, and
/// cannot be taken back.
const LONGEST_AHEAD: Millis = 3_600_000;

/// Largest request body.
const MAX_BODY: usize = 256 << 20;

/// Runs an installation until SIGINT or SIGTERM.
pub async fn run(config: Config) -> Result<()> {
    // First of all, so that a request to stop that comes during the start is not lost.
    let mut interrupts = Interrupts::listen()?;
    let endpoints = config.endpoints()?;
    if endpoints.needed() == 1 {
        tracing::warn!(
            operators = endpoints.operators(),
            "one endpoint alone says what is final; name several operators in [[endpoint]]"
        );
    }
    let database = config.path(&config.files.database);
    let ledger = Ledger::open(&database, config.identity()).await?;
    if Reader::new(ledger.clone()).anchors().await?.is_none() {
        find_contract(&config, &endpoints).await?;
    }
    let book = BookWriter::new(ledger.clone());
    book.set_organisations(&config.ledger_organisations(), config.policy.attester, now()).await?;
    let indexer = Indexer::new(endpoints.clone(), ledger.clone()).await?;
    let standing = indexer.standing();
    let keys = Keys::open(&config)?;
    let relayer = Relayer::new(config.clone(), keys, ledger.clone(), endpoints.clone());
    let manifests = relayer.manifests();
    // Before anything is taken in: what a known manifest pays is not accepted once more.
    match relayer.notice(now()).await {
        // Each turn tries again, and promises and signs nothing before.
        Err(error @ Error::File { .. }) => tracing::error!("manifests: {}", chain_of(&error)),
        noticed => drop(noticed?),
    }

    let mut doctor = Doctor::new(config.clone(), ledger.clone(), book.clone());
    let (halt, halted) = watch::channel(doctor.visit(now()).await?);

    let (stop, stopped) = watch::channel(false);
    let (report, reports) = watch::channel(Report::default());
    let mut tasks = JoinSet::new();
    let (indexing, pause) = (stopped.clone(), config.pace.idle());
    let index = async move { indexer::run(indexer, pause, indexing).await.map_err(Error::from) };
    let mut names = BTreeMap::from([(tasks.spawn(index).id(), "indexer")]);
    let desk =
        Desk { relayer, doctor, config: config.clone(), ledger: ledger.clone(), report, halt };
    let relaying = stopped.clone();
    names.insert(tasks.spawn(relay(desk, relaying)).id(), "relayer");
    let app = App {
        config,
        ledger: ledger.clone(),
        book,
        manifests,
        reports,
        halted,
        endpoints,
        standing,
    };
    names.insert(tasks.spawn(listen(app, stopped)).id(), "HTTP server");

    let ended = tokio::select! {
        () = interrupts.next() => None,
        ended = tasks.join_next_with_id() => ended,
    };
    stop.send_replace(true);
    let outcome = ended.map_or(Ok(()), |ended| Err(why_it_ended(&names, &database, ended)));
    // Whoever neither reads its answer nor hangs up does not keep the process from ending; nor is anything lost if a turn is
    // cut off, as by a crash.
    let rest = async { while tasks.join_next().await.is_some() {} };
    if timeout(GRACE, rest).await.is_err() {
        tasks.shutdown().await;
    }
    ledger.close().await;
    outcome
}

/// What is told of a task that ended without being asked to, by panicking even.
fn why_it_ended(
    names: &BTreeMap<task::Id, &'static str>,
    database: &std::path::Path,
    ended: std::result::Result<(task::Id, Result<()>), JoinError>,
) -> Error {
    let (id, reason) = match ended {
        Ok((id, Err(error))) => {
            // SQLite does not say which file it means.
            let place = |problem| format!("{}: {problem}: ", database.display());
            (id, error.disk_problem().map_or_else(String::new, place) + &chain_of(&error))
        }
        Ok((id, Ok(()))) => (id, "without a reason".into()),
        Err(error) => (error.id(), error.to_string()),
    };
    Error::Task { task: names.get(&id).copied().unwrap_or("task"), reason }
}

/// Fails if there is no contract. Asked before anything is indexed only: later, an endpoint that says so is mistaken. Asked by
/// a call, whose empty answer by one endpoint lets the next be asked.
async fn find_contract(config: &Config, endpoints: &Endpoints) -> Result<()> {
    let address = config.chain.contract;
    match Settlement::new(address, endpoints.provider()).journal().call().await {
        Err(alloy::contract::Error::ZeroData(..)) => Err(Error::Usage(format!(
            "there is no contract at {address}; run quittance deploy first"
        ))),
        answer => answer.map(drop).map_err(Error::call("journal")),
    }
}

/// Requests to stop the process, SIGINT and SIGTERM, noticed from when this is made.
#[derive(Debug)]
pub struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    /// Starts to listen.
    pub fn listen() -> Result<Self> {
        let failed = |error: std::io::Error| Error::Task {
            task: "signal handler",
            reason: error.to_string(),
        };
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
        })
    }

    /// Resolves at the first request.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Where the relayer's task works, and whom it tells.
struct Desk {
    relayer: Relayer,
    doctor: Doctor,
    config: Config,
    ledger: Ledger,
    report: watch::Sender<Report>,
    halt: watch::Sender<Option<String>>,
}

/// What became of a turn.
enum Taken {
    /// The ledger breaks an invariant: nothing is accepted, proposed, signed or sent.
    Halted(String),
    /// It came to its end.
    Done(Report),
}

impl Desk {
    async fn turn(&mut self, may_push: bool) -> Result<Taken> {
        let now = now();
        let halted = self.doctor.visit(now).await?;
        self.halt.send_replace(halted.clone());
        if let Some(reason) = halted {
            return Ok(Taken::Halted(reason));
        }
        let waiting = close_by_schedule(&self.config, &self.ledger, now).await?;
        let mut report = match self.relayer.turn(now, may_push).await {
            Err(error) if is_of_rows(&error) => return self.blame_rows(error, now).await,
            other => other?,
        };
        report.waiting.extend(waiting);
        Ok(Taken::Done(report))
    }

    /// Halts for rows by which a turn failed, if they break an invariant: what the indexer repairs once it is final, and a
    /// person can, ends no process.
    async fn blame_rows(&mut self, error: Error, now: Millis) -> Result<Taken> {
        tracing::error!("a turn failed by rows of the ledger: {}", chain_of(&error));
        self.doctor.doubt();
        let halted = self.doctor.visit(now).await?;
        self.halt.send_replace(halted.clone());
        halted.map(Taken::Halted).ok_or(error)
    }
}

/// Whether it is rows of the ledger that do not come out.
const fn is_of_rows(error: &Error) -> bool {
    matches!(error, Error::Ledger(ledger::Error::Overflow(_) | ledger::Error::Corrupt(_)))
}

/// Takes the relayer's turns. What the next turn can mend is logged; anything else ends the process.
async fn relay(mut desk: Desk, mut stopped: watch::Receiver<bool>) -> Result<()> {
    let mut claims = Claims { began: Instant::now(), pushed: None };
    let mut may_push = false;
    // What the last turn that came to its end waits for.
    let mut waiting = Vec::new();
    while !*stopped.borrow() {
        match desk.turn(may_push).await {
            Ok(Taken::Halted(reason)) => {
                let waiting = vec![format!("halted, no money moves: {reason}")];
                desk.report.send_replace(Report { waiting, ..Report::default() });
            }
            Ok(Taken::Done(turn)) => {
                let now = Instant::now();
                if may_push {
                    claims.pushed = Some(now);
                }
                may_push = claims.are_due(turn.is_idle(), desk.config.pace.push(), now);
                for reason in news(&desk.report.borrow().waiting, &turn.waiting) {
                    tracing::info!("{reason}");
                }
                waiting.clone_from(&turn.waiting);
                desk.report.send_replace(turn);
            }
            Err(error) if error.is_transient() => {
                let reasons = [&waiting[..], &[chain_of(&error)]].concat();
                for reason in news(&desk.report.borrow().waiting, &reasons) {
                    tracing::warn!("{reason}");
                }
                desk.report.send_replace(Report { waiting: reasons, ..Report::default() });
            }
            Err(error) => return Err(error),
        }
        pause(desk.config.pace.idle(), &mut stopped).await;
    }
    Ok(())
}

/// When credits are looked at, to push them. Claims wait until everything is stated: a provider is then paid once instead of
/// several times. They do not wait for ever, where something is always under way or is stuck.
struct Claims {
    began: Instant,
    /// The last look. The first comes as soon as there is nothing else to do: a process that is restarted often pays all the same.
    pushed: Option<Instant>,
}

impl Claims {
    /// Whether they are due, `is_idle` telling whether nothing else is to do or under way.
    fn are_due(&self, is_idle: bool, pace: Duration, now: Instant) -> bool {
        let since = |last: Instant| now.duration_since(last);
        since(self.pushed.unwrap_or(self.began)) >= pace.max(LONGEST_WITHOUT_CLAIMS)
            || is_idle && self.pushed.is_none_or(|last| since(last) > pace)
    }
}

/// The reasons that were not there before. What comes after a colon may change from turn to turn without being news.
fn news<'a>(before: &[String], now: &'a [String]) -> Vec<&'a String> {
    let subject = |reason: &str| reason.split(": ").next().unwrap_or_default().to_owned();
    let known: Vec<_> = before.iter().map(|reason| subject(reason)).collect();
    now.iter().filter(|reason| !known.contains(&subject(reason))).collect()
}

async fn pause(duration: Duration, stopped: &mut watch::Receiver<bool>) {
    tokio::select! {
        () = sleep(duration) => {}
        // Whoever would stop this task has ended or has just said so; the loop looks.
        _ = stopped.changed() => {}
    }
}

/// Closes what ended before the holdback, at the configured rhythm. Returns what keeps it back, if anything does.
async fn close_by_schedule(
    config: &Config,
    ledger: &Ledger,
    now: Millis,
) -> Result<Option<String>> {
    if config.policy.close_every_minutes == 0 {
        return Ok(None);
    }
    let Some(anchors) = Reader::new(ledger.clone()).anchors().await? else { return Ok(None) };
    let chain = anchors.checkpoint.time_ms();
    let Some(until) = due_closing(&config.policy, now, chain) else { return Ok(None) };
    BookWriter::new(ledger.clone()).close_until(until, now).await?;
    Ok((now > chain.saturating_add(MAX_CHAIN_LAG)).then(|| {
        "scheduled closings wait: the last indexed block is more than an hour older than this host's clock".to_owned()
    }))
}

/// The time up to which work is due to be closed. A closing cannot be taken back: a clock that is far ahead of the chain's
/// does not order one.
fn due_closing(policy: &Policy, now: Millis, chain: Millis) -> Option<Millis> {
    let every = i64::from(policy.close_every_minutes) * 60_000;
    let holdback = i64::from(policy.holdback_hours) * 3_600_000;
    let latest = now.min(chain.saturating_add(MAX_CHAIN_LAG));
    latest.saturating_sub(holdback).checked_div(every)?.checked_mul(every)
}

fn now() -> Millis {
    Timestamp::now().as_millisecond()
}

/// What HTTP handlers work with.
#[derive(Debug, Clone)]
struct App {
    config: Config,
    ledger: Ledger,
    book: BookWriter,
    manifests: Arc<Manifests>,
    reports: watch::Receiver<Report>,
    endpoints: Endpoints,
    standing: watch::Receiver<Standing>,
    /// Why money must not move, if it must not.
    halted: watch::Receiver<Option<String>>,
}

impl App {
    /// Refuses what would promise or move money while the ledger breaks an invariant.
    fn refuse_if_halted(&self) -> std::result::Result<(), (StatusCode, String)> {
        match &*self.halted.borrow() {
            None => Ok(()),
            Some(reason) => Err((StatusCode::SERVICE_UNAVAILABLE, format!("halted: {reason}"))),
        }
    }

    /// Refuses what would be said before what a copy of the orders tells, which comes back first, and what would be promised of
    /// work that a manifest may have paid.
    async fn refuse_until_folders_are_read(&self) -> std::result::Result<(), (StatusCode, String)> {
        if self.manifests.are_read() {
            return Ok(());
        }
        let reader = Reader::new(self.ledger.clone());
        match self.manifests.notice(&reader, &self.book, now()).await {
            Err(error) if !self.manifests.are_read() => {
                let reason = format!(
                    "the orders and manifests of every folder are to be read first: {}",
                    chain_of(&error)
                );
                Err((StatusCode::SERVICE_UNAVAILABLE, reason))
            }
            _ => Ok(()),
        }
    }

    /// Copies what was just said into the folders of the manifests. What cannot be copied yet, the next turn tries again, and
    /// says so.
    async fn copy_orders(&self) {
        if let Err(error) = self.manifests.keep_orders(&self.book, now()).await {
            tracing::warn!("{}", chain_of(&error));
        }
    }
}

/// Serves the status of a finished demo until interrupted.
pub(crate) async fn listen_until(
    mut interrupts: Interrupts,
    config: Config,
    ledger: Ledger,
) -> Result<()> {
    let (stop, stopped) = watch::channel(false);
    let (_report, reports) = watch::channel(Report::default());
    let (_standing, standing) = watch::channel(Standing::default());
    let (_halt, halted) = watch::channel(None);
    let (book, endpoints) = (BookWriter::new(ledger.clone()), config.endpoints()?);
    let manifests = Arc::new(Manifests::new(&config, keys::secret(&config)?));
    let app = App { config, ledger, book, manifests, reports, halted, endpoints, standing };
    let server = tokio::spawn(listen(app, stopped));
    interrupts.next().await;
    stop.send_replace(true);
    server.await.map_err(|error| Error::Task { task: "HTTP server", reason: error.to_string() })?
}

async fn listen(app: App, mut stopped: watch::Receiver<bool>) -> Result<()> {
    let address = app.config.http.listen.clone();
    let failed = |error: std::io::Error| Error::Task {
        task: "HTTP server",
        reason: format!("{address}: {error}"),
    };
    let token: Arc<str> = remote::token(&app.config)?.into();
    let listener = TcpListener::bind(&address).await.map_err(failed)?;
    tracing::info!("listening on http://{address}");
    let router = Router::new()
        .route("/health/live", get(|| async { "alive" }))
        .route("/health/ready", get(ready))
        .route("/v1/config", get(public_config))
        .route("/v1/status", get(status))
        .route("/v1/statements", get(statements))
        .route("/v1/ingest/files/{name}", post(ingest))
        .route("/v1/closings/{until_ms}", post(close))
        .route("/v1/endpoints/{operator}/clear", post(clear_endpoint))
        .route("/v1/decisions", post(decisions))
        .route("/v1/recovery", post(recovery))
        .route("/v1/recovery/cut-offs", post(cut_offs))
        .route("/v1/proofs/{source}/{external_id}", get(proof))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn(check_headers))
        .layer(from_fn_with_state(token, check_token))
        .with_state(app);
    let shutdown = async move {
        while !*stopped.borrow() {
            if stopped.changed().await.is_err() {
                break;
            }
        }
    };
    let failed =
        |error: std::io::Error| Error::Task { task: "HTTP server", reason: error.to_string() };
    axum::serve(listener, router).with_graceful_shutdown(shutdown).await.map_err(failed)
}

type Context = State<App>;
type Answer = std::result::Result<Json<Value>, (StatusCode, String)>;

/// Ready once something is indexed, while the final block moves, and while money may move.
async fn ready(State(app): Context) -> Answer {
    app.refuse_if_halted()?;
    let standing = app.standing.borrow().clone();
    if standing.is_alarmed {
        return Err((StatusCode::SERVICE_UNAVAILABLE, standing.waiting.join("\n")));
    }
    let progress = Reader::new(app.ledger).progress().await.map_err(internal)?;
    if progress.checkpoint == 0 {
        return Err((StatusCode::SERVICE_UNAVAILABLE, "nothing is indexed yet".into()));
    }
    Ok(Json(json!(progress)))
}

async fn public_config(State(app): Context) -> Json<Value> {
    let tokens: Vec<_> = app
        .config
        .tokens
        .iter()
        .map(|token| json!({ "address": token.address, "symbol": token.symbol, "usd_per_token": token.usd_per_token }))
        .collect();
    Json(json!({
        "chain_id": app.config.chain.id,
        "contract": app.config.chain.contract,
        "fee_bps": app.config.tariff().fee_bps,
        "max_fee_bps": app.config.policy.max_fee_bps,
        "holdback_hours": app.config.policy.holdback_hours,
        "tokens": tokens,
    }))
}

async fn status(State(app): Context) -> Answer {
    let status = Status::gather(&app.config, &app.ledger).await.map_err(internal)?;
    let mut waiting = app.standing.borrow().waiting.clone();
    waiting.extend(app.reports.borrow().waiting.iter().cloned());
    let endpoints = app.endpoints.report();
    Ok(Json(json!({ "status": status, "waiting": waiting, "endpoints": endpoints })))
}

/// Trusts an operator's endpoints again; the body says why.
async fn clear_endpoint(
    State(app): Context,
    Path(operator): Path<String>,
    reason: String,
) -> Answer {
    let cleared = trust::clear(&app.endpoints, app.ledger, &operator, &reason, now()).await;
    cleared.map_err(refused)?;
    Ok(Json(json!({ "operator": operator })))
}

/// Signed statements that may be settled, each with the calldata that does it: anybody may send it.
async fn statements(State(app): Context) -> Answer {
    let reader = Reader::new(app.ledger);
    let mut listed = Vec::new();
    for id in reader.submittable().await.map_err(internal)? {
        let signed = reader.signed_statement(id).await.map_err(internal)?;
        listed.push(json!({
            "deposit": signed.statement.key.id(),
            "epoch": signed.statement.epoch,
            "spent": signed.statement.spent,
            "digest": signed.digest,
            "calldata": settle_input(&[&signed]),
        }));
    }
    Ok(Json(json!({ "contract": app.config.chain.contract, "statements": listed })))
}

async fn ingest(State(app): Context, Path(name): Path<String>, body: Bytes) -> Answer {
    app.refuse_if_halted()?;
    app.refuse_until_folders_are_read().await?;
    let refused = |error: Error| match error {
        Error::Input { .. }
        | Error::Ledger(ledger::Error::FileOverlap { .. } | ledger::Error::FileAgain { .. }) => {
            (StatusCode::UNPROCESSABLE_ENTITY, chain_of(&error))
        }
        other => internal(other),
    };
    let parsed =
        intake::parse(&name, &body, &app.config.policy.earnings_source).map_err(refused)?;
    let report =
        intake::take_in(&app.book, &parsed, &app.config.tariff(), now()).await.map_err(refused)?;
    app.copy_orders().await;
    Ok(Json(json!(report)))
}

async fn close(State(app): Context, Path(until): Path<Millis>) -> Answer {
    app.refuse_if_halted()?;
    let now = now();
    let anchors = Reader::new(app.ledger).anchors().await.map_err(internal)?;
    let chain = anchors.map_or(now, |anchors| anchors.checkpoint.time_ms());
    // One of the two clocks may be behind.
    let latest = now.max(chain).saturating_add(LONGEST_AHEAD);
    if until > latest {
        let reason = format!(
            "until_ms is {until}; it must be at most {latest}, an hour from now in milliseconds since 1970"
        );
        return Err((StatusCode::UNPROCESSABLE_ENTITY, reason));
    }
    app.book.close_until(until, now).await.map_err(internal)?;
    Ok(Json(json!({ "until_ms": until })))
}

async fn decisions(State(app): Context, body: Bytes) -> Answer {
    app.refuse_if_halted()?;
    app.refuse_until_folders_are_read().await?;
    let decision: Decision = from_json(&body)?;
    let reader = Reader::new(app.ledger.clone());
    decide::decide(&app.config, &app.book, &reader, &decision, now()).await.map_err(refused)?;
    app.copy_orders().await;
    Ok(Json(json!(decision)))
}

async fn recovery(State(app): Context) -> Answer {
    let secret = keys::secret(&app.config).map_err(internal)?;
    let reader = Reader::new(app.ledger);
    let recovered = recover::recover(&app.manifests, &secret, &app.book, &reader, now()).await;
    Ok(Json(json!(recovered.map_err(refused)?)))
}

async fn cut_offs(State(app): Context, body: Bytes) -> Answer {
    let cut_off: CutOff = from_json(&body)?;
    let reader = Reader::new(app.ledger);
    let recovered = recover::cut_off(&cut_off, &app.manifests, &app.book, &reader, now()).await;
    Ok(Json(json!(recovered.map_err(refused)?)))
}

/// The proof of one piece of work. Its natural key is the secret that it takes to ask.
async fn proof(State(app): Context, Path((source, external_id)): Path<(String, String)>) -> Answer {
    match Reader::new(app.ledger).proof(&source, &external_id).await.map_err(internal)? {
        Some(proof) => Ok(Json(json!(proof))),
        None => Err((StatusCode::NOT_FOUND, "there is no such work".into())),
    }
}

fn from_json<T: DeserializeOwned>(body: &[u8]) -> std::result::Result<T, (StatusCode, String)> {
    serde_json::from_slice(body)
        .map_err(|error| (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))
}

/// What the caller did wrong is told; internals stay in the log.
fn refused(error: Error) -> (StatusCode, String) {
    match error {
        Error::Usage(_)
        | Error::Ledger(ledger::Error::Undecidable(_) | ledger::Error::Unimportable(_)) => {
            (StatusCode::UNPROCESSABLE_ENTITY, chain_of(&error))
        }
        other => internal(other),
    }
}

/// Refuses who shows no token, before anything of a body is read: only reading needs none.
async fn check_token(State(token): State<Arc<str>>, request: Request, next: Next) -> Response {
    if request.method() == Method::GET || request.method() == Method::HEAD {
        return next.run(request).await;
    }
    match authorise(request.headers(), &token) {
        Err(refusal) => refusal.into_response(),
        Ok(()) => next.run(request).await,
    }
}

/// Refuses a body that cannot be taken before it is read.
async fn check_headers(request: Request, next: Next) -> Response {
    match body_problem(request.headers()) {
        Some(refusal) => refusal.into_response(),
        None => next.run(request).await,
    }
}

/// Why a body cannot be taken, if its headers say so.
fn body_problem(headers: &HeaderMap) -> Option<(StatusCode, String)> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let length = text(CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    if let Some(length) = length.filter(|length| *length > MAX_BODY as u64) {
        let reason =
            format!("a body has at most {MAX_BODY} bytes, this one has {length}; split the file");
        return Some((StatusCode::PAYLOAD_TOO_LARGE, reason));
    }
    if let Some(coding) =
        text(CONTENT_ENCODING).filter(|coding| !coding.eq_ignore_ascii_case("identity"))
    {
        let reason = format!("content-encoding {coding:?} is not read; send the file as it is");
        return Some((StatusCode::UNSUPPORTED_MEDIA_TYPE, reason));
    }
    let kind = text(CONTENT_TYPE).unwrap_or_default().to_ascii_lowercase();
    kind.starts_with("multipart/").then(|| {
        let reason =
            "a form is not read; send the file itself as the body, as curl --data-binary does";
        (StatusCode::UNSUPPORTED_MEDIA_TYPE, reason.into())
    })
}

/// Compares hashes, so that timing tells nothing about the token.
fn authorise(headers: &HeaderMap, token: &str) -> std::result::Result<(), (StatusCode, String)> {
    let shown = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    let hash = alloy::primitives::keccak256::<&str>;
    match shown {
        Some(shown) if hash(shown) == hash(token) => Ok(()),
        _ => Err((
            StatusCode::UNAUTHORIZED,
            "show the token in keys/api-token as a bearer token".into(),
        )),
    }
}

/// Internals stay in the log. A disk that takes nothing is no secret: whoever hands work in has to do so again.
fn internal(error: impl Into<Error>) -> (StatusCode, String) {
    let error = error.into();
    tracing::error!("{}", chain_of(&error));
    if let Some(problem) = error.disk_problem() {
        let reason = format!(
            "the database cannot be written: {problem}; make room, then send this again: what is kept is recognised"
        );
        return (StatusCode::SERVICE_UNAVAILABLE, reason);
    }
    (StatusCode::INTERNAL_SERVER_ERROR, "internal error; see the server's log".into())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use sqlx::{Connection, SqliteConnection};

    use super::*;

    #[test]
    fn a_clock_that_is_ahead_closes_no_more_than_the_chains_does() {
        const HOUR: Millis = 3_600_000;
        let policy = Policy { close_every_minutes: 60, holdback_hours: 72, ..Policy::default() };
        let chain = 1_000 * HOUR;
        for (clock, until) in [(0, 928), (1, 929), (30 * 24, 929), (-1, 927), (-1_000, -72)] {
            let due = due_closing(&policy, chain + clock * HOUR, chain);
            assert_eq!(due, Some(until * HOUR), "a clock {clock} hours ahead");
        }
        let by_hand = Policy { close_every_minutes: 0, ..policy };
        assert_eq!(due_closing(&by_hand, chain, chain), None);
    }

    #[test]
    fn claims_wait_for_what_is_under_way_and_not_for_what_is_stuck() {
        let began = Instant::now();
        let (pace, second) = (Duration::from_secs(5), Duration::from_secs(1));
        let after = |pushed: Option<u32>, is_idle, seconds: u32| {
            let claims = Claims { began, pushed: pushed.map(|at| began + second * at) };
            claims.are_due(is_idle, pace, began + second * seconds)
        };
        assert!(after(None, true, 0), "the first look");
        assert!(!after(None, false, 599) && after(None, false, 600));
        assert!(!after(Some(600), true, 605) && after(Some(600), true, 606));
        assert!(!after(Some(600), false, 1_199) && after(Some(600), false, 1_200));
    }

    #[tokio::test]
    async fn a_task_that_panics_is_named() {
        let mut tasks = JoinSet::new();
        let panics = async { panic!("out of range") };
        let names = BTreeMap::from([(tasks.spawn(panics).id(), "relayer")]);
        let told = tasks.join_next_with_id().await.unwrap();
        let told = why_it_ended(&names, std::path::Path::new("db"), told).to_string();
        assert!(
            told.starts_with("the relayer stopped: ") && told.contains("out of range"),
            "{told}"
        );
    }

    #[tokio::test]
    async fn a_task_that_ends_over_a_full_disk_names_the_file() {
        let mut conn = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::query("create table t (x)").execute(&mut conn).await.unwrap();
        sqlx::query("pragma max_page_count = 3").execute(&mut conn).await.unwrap();
        let full = sqlx::query("insert into t values (zeroblob(100000))").execute(&mut conn).await;
        let mut tasks = JoinSet::new();
        let fails = async { Err(ledger::Error::from(full.unwrap_err()).into()) };
        let names = BTreeMap::from([(tasks.spawn(fails).id(), "indexer")]);
        let told = tasks.join_next_with_id().await.unwrap();
        let told =
            why_it_ended(&names, std::path::Path::new("inst/quittance.db"), told).to_string();
        let expected = "the indexer stopped: inst/quittance.db: the disk is full: ledger: database";
        assert!(told.starts_with(expected), "{told}");
    }

    #[tokio::test]
    async fn a_body_that_cannot_be_taken_is_refused_for_what_its_headers_say() {
        let router = Router::new()
            .route("/closings/{until_ms}", post(async |Path(_): Path<Millis>, body: Bytes| body))
            .layer(DefaultBodyLimit::max(64))
            .layer(from_fn(check_headers));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        let client = reqwest::Client::new();
        let post = |path: &str, header: Option<(&'static str, &'static str)>, length: usize| {
            let request = client.post(format!("{url}{path}")).body("x".repeat(length));
            match header {
                Some((name, value)) => request.header(name, value).send(),
                None => request.send(),
            }
        };
        for (path, header, length, status) in [
            ("/closings/5", Some(("content-encoding", "gzip")), 3, 415),
            ("/closings/5", Some(("content-type", "Multipart/form-data; boundary=x")), 3, 415),
            ("/closings/5", None, 65, 413),
            ("/closings/soon", None, 3, 400),
            ("/closings/9223372036854775808", None, 3, 400),
            ("/elsewhere", None, 3, 404),
            ("/closings/5", Some(("content-encoding", "identity")), 64, 200),
            ("/closings/5", Some(("content-type", "application/x-www-form-urlencoded")), 64, 200),
        ] {
            let answer = post(path, header, length).await.unwrap();
            assert_eq!(answer.status().as_u16(), status, "{path} {header:?} {length}");
        }
        server.abort();
    }

    #[test]
    fn a_body_that_says_that_it_is_too_long_is_not_read() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(MAX_BODY as u64));
        assert_eq!(body_problem(&headers), None);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(MAX_BODY as u64 + 1));
        let reason = "a body has at most 268435456 bytes, this one has 268435457; split the file";
        assert_eq!(body_problem(&headers), Some((StatusCode::PAYLOAD_TOO_LARGE, reason.into())));
    }
}
