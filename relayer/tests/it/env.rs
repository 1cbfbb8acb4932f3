//! A chain, an installation on it, and the binary run as a process.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use alloy::providers::{DynProvider, Provider};
use indexer::Endpoints;
use relayer::anvil::Anvil;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    task::JoinHandle,
    time::{Instant, sleep},
};

/// Longest that a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// A running chain and a folder for an installation.
pub(crate) struct Env {
    pub(crate) anvil: Anvil,
    pub(crate) folder: TempDir,
}

impl Env {
    pub(crate) async fn new() -> Self {
        Self { anvil: Anvil::start(None).await.unwrap(), folder: tempfile::tempdir().unwrap() }
    }

    /// Puts days of work that the demo did not have into the folder, with their payout addresses.
    pub(crate) async fn generate_more(&self, machines: &str, days: &str) {
        let mut generate = quittance(&["generate", "--organisations", "4", "--seed", "7"]);
        generate.args(["--first-day", "2026-11-21", "--machines", machines, "--days", days]);
        assert_success(&generate.arg("--out").arg(self.folder.path()).output().await.unwrap());
    }

    /// An environment in which a small demo has run to its end.
    pub(crate) async fn after_demo(machines: u32) -> Self {
        let env = Self::new().await;
        let output = env.demo(machines).output().await.unwrap();
        assert_success(&output);
        env
    }

    /// The demo on this chain, leaving its installation in `dir`.
    pub(crate) fn demo(&self, machines: u32) -> Command {
        let mut command = quittance(&["demo", "--exit", "--days", "3", "--organisations", "4"]);
        command
            .args(["--machines", &machines.to_string(), "--rpc-url", &self.anvil.url, "--keep"])
            .arg(self.dir());
        command
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.folder.path().join("installation")
    }

    /// Runs a command on the installation.
    pub(crate) async fn run(&self, command: &str, arguments: &[&str]) -> Output {
        quittance(&[command, "--dir"]).arg(self.dir()).args(arguments).output().await.unwrap()
    }

    /// Runs a command that has to succeed, and reads its JSON.
    pub(crate) async fn json(&self, command: &str, arguments: &[&str]) -> Value {
        let arguments: Vec<_> = arguments.iter().copied().chain(["--json"]).collect();
        let output = self.run(command, &arguments).await;
        assert_success(&output);
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Like `json`, for commands that may fail for now.
    pub(crate) async fn json_if_any(&self, command: &str) -> Option<Value> {
        let output = self.run(command, &["--json"]).await;
        serde_json::from_slice(&output.stdout).ok().filter(|_| output.status.success())
    }

    pub(crate) fn serve(&self) -> Child {
        let mut command = quittance(&["serve", "--dir"]);
        command.arg(self.dir()).stdout(Stdio::null()).kill_on_drop(true).spawn().unwrap()
    }

    pub(crate) fn provider(&self) -> DynProvider {
        self.anvil.provider()
    }

    /// The installation's endpoints.
    pub(crate) fn endpoints(&self) -> Endpoints {
        self.config().endpoints().unwrap()
    }

    /// Mines blocks until the handle is dropped.
    pub(crate) fn keep_mining(&self) -> Mining {
        let provider = self.provider();
        Mining(tokio::spawn(async move {
            loop {
                rpc(&provider, "anvil_mine", "[1]").await;
                sleep(Duration::from_millis(150)).await;
            }
        }))
    }

    pub(crate) fn config(&self) -> relayer::config::Config {
        relayer::config::Config::read(&self.dir()).unwrap()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.config().http.listen)
    }
}

/// A task that mines until dropped.
pub(crate) struct Mining(JoinHandle<()>);

impl Drop for Mining {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(crate) fn quittance(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quittance"));
    command.args(arguments).kill_on_drop(true);
    command
}

pub(crate) fn assert_success(output: &Output) {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}: {err}\n{out}", output.status);
}

/// A raw RPC call that has to succeed.
pub(crate) async fn rpc(provider: &DynProvider, method: &'static str, params: &str) -> Value {
    let params = serde_json::value::RawValue::from_string(params.to_owned()).unwrap();
    let answer = provider.raw_request_dyn(method.into(), &params).await.unwrap();
    serde_json::from_str(answer.get()).unwrap()
}

/// Waits until `probe` answers with something.
pub(crate) async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = probe().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Stops a process in order and waits for its end.
pub(crate) async fn terminate(mut child: Child) -> std::process::ExitStatus {
    let pid = child.id().unwrap().to_string();
    Command::new("kill").args(["-TERM", &pid]).status().await.unwrap();
    child.wait().await.unwrap()
}

pub(crate) fn write(path: &Path, content: &str) -> PathBuf {
    std::fs::write(path, content).unwrap();
    path.to_owned()
}
