//! One run of a script: a server as a child process, files handed in, blocks mined, until everything is settled, claimed
//! and final. A disturbance may strike between any two steps; whatever it ends is started again.

use std::{
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use alloy::providers::{DynProvider, Provider};
use relayer::{config::Config, generate::File, intake, remote::Remote};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use crate::{
    env::{assert_success, quittance, rpc},
    ground::{FINALITY, Ground, holds},
};

/// Pause between two steps of the driver.
pub(crate) const STEP: Duration = Duration::from_millis(25);
/// Longest that one stage of a run may take, and one request.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);
/// Longest that a server may take to end, of itself or when asked to: far longer than it takes, because the machine may be
/// busy, and short enough to tell a server that does not end.
pub(crate) const END: Duration = Duration::from_secs(120);

/// What happens to a run from outside.
pub(crate) trait Disturbance {
    /// Environment of the process that is about to be started.
    fn environment(&mut self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Whether the server was to end like this.
    fn has_ended(&mut self, _end: ExitStatus) -> bool {
        false
    }

    /// Happens once in each step.
    async fn strike(&mut self, _run: &mut Run<'_>) {}
}

/// Nothing happens.
pub(crate) struct Calm;

impl Disturbance for Calm {}

/// A run in progress.
pub(crate) struct Run<'g> {
    ground: &'g Ground,
    folder: TempDir,
    config: Config,
    client: reqwest::Client,
    server: Option<Child>,
    /// The last refusal of what was handed in.
    refusal: Option<String>,
    /// Whether each step mines a block.
    pub(crate) is_mining: bool,
    /// How often the server was started.
    pub(crate) starts: u32,
    /// Longest that one stage may take.
    pub(crate) patience: Duration,
    /// Most blocks that the chain may be ahead of the server, if it waits for it.
    pub(crate) lead: Option<u64>,
}

impl<'g> Run<'g> {
    /// Puts the chain back and makes a fresh installation, with other endpoints if some are given.
    pub(crate) async fn new(ground: &'g Ground, endpoints: &[&str]) -> Self {
        ground.revert().await;
        let folder = tempfile::tempdir().unwrap();
        ground.copy_to(folder.path(), endpoints);
        let config = Config::read(folder.path()).unwrap();
        let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build().unwrap();
        Self {
            ground,
            folder,
            config,
            client,
            server: None,
            refusal: None,
            is_mining: true,
            starts: 0,
            patience: PATIENCE,
            lead: None,
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// The chain itself, whatever the server is told.
    pub(crate) fn chain(&self) -> DynProvider {
        self.ground.env.provider()
    }

    fn log(&self) -> PathBuf {
        self.dir().join("output.log")
    }

    /// Process id of the server, if it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.server.as_ref().and_then(Child::id)
    }

    /// Sends the server a signal, if it runs.
    pub(crate) async fn signal(&self, name: &str) {
        if let Some(pid) = self.pid() {
            let pid = pid.to_string();
            assert!(Command::new("kill").args([name, &pid]).status().await.unwrap().success());
        }
    }

    /// Plays the script to its end.
    pub(crate) async fn play(&mut self, disturbance: &mut impl Disturbance) {
        self.play_from(0, disturbance).await;
    }

    /// Plays the script from one of its files to its end. Payout addresses are handed in as often as wanted.
    pub(crate) async fn play_from(&mut self, first: usize, disturbance: &mut impl Disturbance) {
        let ground = self.ground;
        self.hand_in(&ground.script.payees, disturbance).await;
        self.until_registered(disturbance).await;
        for index in first..ground.script.files.len() {
            self.play_file(index, disturbance).await;
        }
        self.settled_down("claims", disturbance, |status| {
            is_stated(status) && status["credits"] == json!([])
        })
        .await;
    }

    /// Waits until every payout address has a final number.
    pub(crate) async fn until_registered(&mut self, disturbance: &mut impl Disturbance) {
        let providers = json!(self.ground.payouts.len());
        self.settled_down("registrations", disturbance, |status| status["providers"] == providers)
            .await;
    }

    /// Hands a file in, lets its events happen, and waits until all of it is settled.
    pub(crate) async fn play_file(&mut self, index: usize, disturbance: &mut impl Disturbance) {
        let file = &self.ground.script.files[index];
        let is_eventful = self.ground.script.is_eventful;
        self.is_mining = !(is_eventful && index == 2);
        self.hand_in(file, disturbance).await;
        match index {
            0 if is_eventful => self.reorg(disturbance).await,
            2 if is_eventful => self.raise_base_fee(disturbance).await,
            _ => {}
        }
        self.settled_down(&file.name, disturbance, is_stated).await;
        if is_eventful && index == 1 {
            self.fund_the_rest(disturbance).await;
        }
    }

    /// Sends the money that is missing, and waits until all that had waited for it is settled.
    async fn fund_the_rest(&mut self, disturbance: &mut impl Disturbance) {
        let status = self.until("the status", disturbance, async |run| run.status().await).await;
        assert!(sum(&status, "unfunded") > 0, "everything was funded: {status}");
        self.ground.top_up().await;
        self.settled_down("unfunded work", disturbance, |status| {
            is_stated(status) && sum(status, "unfunded") == 0
        })
        .await;
    }

    /// Waits for a first settled statement, then replaces the newest blocks by empty ones.
    async fn reorg(&mut self, disturbance: &mut impl Disturbance) {
        self.until("a settled statement", disturbance, async |run| {
            run.status().await.filter(|status| status["settled"] != 0)
        })
        .await;
        self.undo_blocks(FINALITY / 2).await;
    }

    /// Replaces so many of the newest blocks by empty ones.
    pub(crate) async fn undo_blocks(&self, depth: u64) {
        let chain = self.chain();
        rpc(&chain, "anvil_reorg", &format!("[{depth}, []]")).await;
    }

    /// Waits for a transaction in the pool, lets the base fee overtake it, and waits for its replacement.
    async fn raise_base_fee(&mut self, disturbance: &mut impl Disturbance) {
        let chain = self.chain();
        let pool = async || {
            let content = rpc(&chain, "txpool_content", "[]").await;
            (content["pending"] != json!({})).then(|| content["pending"].to_string())
        };
        let first = self.until("a transaction", disturbance, async |_| pool().await).await;
        rpc(&chain, "anvil_setNextBlockBaseFeePerGas", "[\"0x4a817c800\"]").await;
        rpc(&chain, "anvil_mine", "[1]").await;
        self.until("its replacement", disturbance, async |_| {
            pool().await.filter(|now| *now != first)
        })
        .await;
        self.is_mining = true;
    }

    /// Waits until the status is as wanted and final.
    async fn settled_down(
        &mut self,
        what: &str,
        disturbance: &mut impl Disturbance,
        is_wanted: impl Fn(&Value) -> bool,
    ) {
        let progress = |status: &Value, field: &str| status["progress"][field].as_u64().unwrap();
        loop {
            let reached = self
                .until(what, disturbance, async |run| {
                    run.status().await.filter(|status| is_wanted(status))
                })
                .await;
            let checkpoint = progress(&reached, "checkpoint");
            let blocks = json!([FINALITY]).to_string();
            rpc(&self.chain(), "anvil_mine", &blocks).await;
            let last = self
                .until(&format!("final {what}"), disturbance, async |run| {
                    let status = run.status().await;
                    status.filter(|status| progress(status, "finalised") >= checkpoint)
                })
                .await;
            if is_wanted(&last) {
                return;
            }
        }
    }

    /// Hands a file in and orders that everything in it be settled, as often as it takes.
    pub(crate) async fn hand_in(&mut self, file: &File, disturbance: &mut impl Disturbance) {
        let parsed = intake::parse(&file.name, file.content.as_bytes(), "salad").unwrap();
        let until = match parsed {
            intake::Parsed::Work { records, .. } => {
                records.iter().flatten().map(|record| record.item.stopped_ms).max()
            }
            intake::Parsed::Payees { .. } => None,
        };
        let bytes = file.content.as_bytes();
        self.until(&format!("{} to be taken in", file.name), disturbance, async |run| {
            let ask = async { Remote::new(&run.config)?.take_in(&file.name, bytes.to_vec()).await };
            let answer = timeout(PATIENCE, ask).await.unwrap();
            run.granted(answer)
        })
        .await;
        let Some(until) = until else { return };
        self.until(&format!("{} to be closed", file.name), disturbance, async |run| {
            let ask = async { Remote::new(&run.config)?.close_until(until).await };
            let answer = timeout(PATIENCE, ask).await.unwrap();
            run.granted(answer)
        })
        .await;
    }

    /// What the server granted; a refusal is kept for the report of a run that waits in vain.
    fn granted<T>(&mut self, answer: relayer::Result<T>) -> Option<T> {
        answer.inspect_err(|error| self.refusal = Some(relayer::chain_of(error))).ok()
    }

    /// Where everything stands, if the server says so.
    pub(crate) async fn status(&self) -> Option<Value> {
        self.answer().await.map(|mut answer| answer["status"].take())
    }

    /// What waits and why, if the server says so.
    pub(crate) async fn waiting(&self) -> Option<String> {
        self.answer().await.map(|answer| answer["waiting"].to_string())
    }

    async fn answer(&self) -> Option<Value> {
        let url = format!("http://{}/v1/status", self.config.http.listen);
        let text = self.client.get(url).send().await.ok()?.text().await.ok()?;
        self.ground.canaries.look_for("an HTTP body", text.as_bytes());
        let answer: Value = serde_json::from_str(&text).ok()?;
        answer["status"].is_object().then_some(answer)
    }

    /// Operators whose endpoints count as lying, if the server says so.
    pub(crate) async fn liars(&self) -> Vec<String> {
        let answer = self.answer().await.unwrap_or_default();
        let endpoints = answer["endpoints"].as_array().cloned().unwrap_or_default();
        let liars = endpoints.iter().filter(|endpoint| endpoint["state"] == "LYING");
        liars.map(|endpoint| endpoint["operator"].as_str().unwrap().to_owned()).collect()
    }

    /// Lets an operator's lies go, as the operator of the server does. Returns whether that was done.
    pub(crate) async fn let_lies_go(&self, operator: &str) -> bool {
        let Ok(remote) = Remote::new(&self.config) else { return false };
        remote.clear_endpoint(operator, "it was mended").await.is_ok()
    }

    /// Waits until what waits is said to wait for this reason.
    pub(crate) async fn until_waiting(&mut self, reason: &str, disturbance: &mut impl Disturbance) {
        let told = reason.replace('"', "\\\"");
        self.until(reason, disturbance, async |run| {
            run.waiting().await.filter(|waiting| waiting.contains(&told))
        })
        .await;
    }

    /// Steps until the probe answers with something.
    pub(crate) async fn until<T>(
        &mut self,
        what: &str,
        disturbance: &mut impl Disturbance,
        mut probe: impl AsyncFnMut(&mut Self) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + self.patience;
        loop {
            self.step(disturbance).await;
            if let Some(answer) = probe(self).await {
                return answer;
            }
            if Instant::now() > deadline {
                panic!("waited in vain for {what}\n{}", self.tail().await);
            }
        }
    }

    /// One step: a server that has ended is started again, the disturbance strikes, a block is mined.
    pub(crate) async fn step(&mut self, disturbance: &mut impl Disturbance) {
        if let Some(end) = self.server.as_mut().and_then(|server| server.try_wait().unwrap()) {
            self.server = None;
            if !disturbance.has_ended(end) {
                panic!("the server ended: {end} {:?}\n{}", end.signal(), self.tail().await);
            }
        }
        if self.server.is_none() {
            self.start(disturbance.environment());
        }
        disturbance.strike(self).await;
        if self.is_mining && self.is_followed().await {
            rpc(&self.chain(), "anvil_mine", "[1]").await;
        }
        sleep(STEP).await;
    }

    /// Whether the server has read as much of the chain as that waits for.
    async fn is_followed(&self) -> bool {
        let Some(lead) = self.lead else { return true };
        let Some(status) = self.status().await else { return false };
        let checkpoint = status["progress"]["checkpoint"].as_u64().unwrap();
        self.chain().get_block_number().await.unwrap() <= checkpoint + lead
    }

    fn start(&mut self, environment: Vec<(&'static str, String)>) {
        let log = std::fs::OpenOptions::new().append(true).create(true).open(self.log()).unwrap();
        let mut command = quittance(&["serve", "--dir"]);
        command.arg(self.folder.path()).envs(environment).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.server = Some(command.spawn().unwrap());
        self.starts += 1;
    }

    /// Asks the server to stop, which it does in order and soon.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        self.signal("-TERM").await;
        let Some(mut server) = self.server.take() else { return ExitStatus::default() };
        timeout(END, server.wait()).await.expect("it did not stop in time").unwrap()
    }

    /// Stops the server, checks everything that can be checked, and returns all money.
    pub(crate) async fn finish(mut self) -> Value {
        let end = self.stop().await;
        assert!(end.success(), "{end}\n{}", self.tail().await);
        self.command("doctor", &["--json"]).await;
        let mut checked = self.command("reconcile", &["--json"]).await;
        let mut files = vec!["--json".into(), "--workloads".into()];
        let script = &self.ground.script;
        for file in [&script.payees].into_iter().chain(&script.files) {
            let path = self.folder.path().join(&file.name);
            std::fs::write(&path, &file.content).unwrap();
            files.push(path.display().to_string());
        }
        let files: Vec<_> = files.iter().map(String::as_str).collect();
        let opinion = self.command("verify", &files).await["opinion"].take();
        assert!(opinion["paid"] != 0, "{opinion}");
        let mut open = opinion["open"].as_array().unwrap().iter();
        let is_unaddressed =
            |work: &Value| work["reason"].as_str().unwrap().starts_with("unaddressed");
        let unexplained = open.find(|work| !is_unaddressed(work));
        assert_eq!(unexplained, None, "open, though everything is settled\n{}", self.tail().await);
        self.look_for_secrets();
        let mut money = self.ground.money().await;
        let carried = |token: &mut Value| json!([token["symbol"], token["carried"]]);
        money["carried"] =
            checked["tokens"].as_array_mut().unwrap().iter_mut().map(carried).collect();
        money
    }

    /// Runs a command on the installation, which has to succeed and to find nothing, and reads its JSON, if it is any.
    pub(crate) async fn command(&self, command: &str, arguments: &[&str]) -> Value {
        let mut command = quittance(&command.split(' ').collect::<Vec<_>>());
        let output = command.arg("--dir").arg(self.dir()).args(arguments).output().await.unwrap();
        assert_success(&output);
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// No secret may be in anything that the server wrote, but where it belongs.
    fn look_for_secrets(&self) {
        let token = std::fs::read_to_string(self.dir().join("keys/api-token")).unwrap();
        let mut folders = vec![self.dir().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.ends_with("keys") || path.ends_with("quittance.toml") {
                    continue;
                } else if path.is_dir() {
                    folders.push(path);
                } else {
                    let content = std::fs::read(&path).unwrap();
                    let what = path.display().to_string();
                    self.ground.canaries.look_for(&what, &content);
                    assert!(!holds(&content, token.trim().as_bytes()), "{what} holds the token");
                }
            }
        }
    }

    /// Everything that the server printed.
    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// The last lines of the server's log, its status, and what it refused last.
    async fn tail(&self) -> String {
        let log = self.output();
        let lines: Vec<_> = log.lines().rev().take(30).collect();
        let lines: Vec<_> = lines.into_iter().rev().collect();
        let status = self.status().await.unwrap_or_default();
        format!("{}\n{status:#}\nrefused last: {:?}", lines.join("\n"), self.refusal)
    }
}

/// Whether everything that can be paid is settled.
fn is_stated(status: &Value) -> bool {
    status["settled"] != 0
        && status["unsettled"] == 0
        && sum(status, "payable") == 0
        && sum(status, "stated") == 0
}

/// Sum of a count over all organisations.
fn sum(status: &Value, field: &str) -> u64 {
    let organisations = status["organisations"].as_object().unwrap();
    organisations.values().map(|organisation| organisation[field].as_u64().unwrap()).sum()
}
