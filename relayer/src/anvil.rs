//! A local chain for the demo: anvil as a child process that dies with us.

use std::{
    env,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use alloy::providers::{DynProvider, Provider, ProviderBuilder};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use crate::{Error, Result};

/// Mnemonic of the local chain's accounts; known to everybody, so never for real money.
pub const MNEMONIC: &str = "test test test test test test test test test test test junk";
/// Time of the local chain's first block, seconds since 1970.
pub const GENESIS_TIME: u64 = 1_795_000_000;
/// Environment variable that names the anvil to use.
const VARIABLE: &str = "QUITTANCE_ANVIL";

/// A running anvil. Killed when dropped.
#[derive(Debug)]
pub struct Anvil {
    child: Child,
    /// Its endpoint.
    pub url: String,
    provider: DynProvider,
    /// Where it keeps the states of earlier blocks; dropped after the process.
    _states: TempDir,
}

impl Anvil {
    /// Starts anvil on a free port and waits until it answers. With `state`, it writes its chain there when stopped.
    pub async fn start(state: Option<&Path>) -> Result<Self> {
        let port = free_port()?;
        let program = program();
        // Its own choice is a folder of the user's home that it does not clear away when it is killed.
        let states = tempfile::tempdir().map_err(|error| {
            Error::Anvil(format!("no folder for the states of its blocks: {error}"))
        })?;
        let mut command = Command::new(&program);
        command
            .args(arguments(port))
            .arg("--cache-path")
            .arg(states.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some(state) = state {
            // The state of earlier blocks as well, since the final one is among them.
            command.arg("--preserve-historical-states").arg("--dump-state").arg(state);
        }
        // Its own group: Ctrl-C reaches this process only, which then stops it in order.
        let child = command.process_group(0).kill_on_drop(true).spawn().map_err(|error| {
            let name = program.display();
            Error::Anvil(format!(
                "cannot start {name}: {error}; run scripts/setup or set {VARIABLE}"
            ))
        })?;
        let url = format!("http://127.0.0.1:{port}");
        let address = url.parse().map_err(|_| Error::Anvil("url".into()))?;
        let provider = ProviderBuilder::new().connect_http(address).erased();
        let mut anvil = Self { child, url, provider, _states: states };
        anvil.wait().await?;
        Ok(anvil)
    }

    /// Its chain. All clones use one HTTP client: making one reads the system's certificates.
    pub fn provider(&self) -> DynProvider {
        self.provider.clone()
    }

    /// The command that starts a chain like this one from a written state.
    pub fn command_line(state: &Path, port: u16) -> String {
        format!(
            "{} {} --load-state {}",
            program().display(),
            arguments(port).join(" "),
            state.display()
        )
    }

    /// Stops it in order, so that it writes its state.
    pub async fn stop(mut self) -> Result<()> {
        let Some(pid) = self.child.id() else { return Ok(()) };
        let sent = Command::new("kill").args(["-INT", &pid.to_string()]).status().await;
        if sent.is_ok_and(|status| status.success())
            && timeout(Duration::from_secs(20), self.child.wait()).await.is_ok()
        {
            return Ok(());
        }
        Err(Error::Anvil("it did not stop when asked to".into()))
    }

    async fn wait(&mut self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.provider.get_chain_id().await.is_err() {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(Error::Anvil(format!("it ended at once: {status}")));
            }
            if Instant::now() > deadline {
                return Err(Error::Anvil("it does not answer".into()));
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

fn arguments(port: u16) -> Vec<String> {
    let timestamp = GENESIS_TIME.to_string();
    let port = port.to_string();
    // One slot per epoch: blocks are final two blocks later instead of sixty-four.
    [
        "--port",
        &port,
        "--slots-in-an-epoch",
        "1",
        "--timestamp",
        &timestamp,
        "--order",
        "fifo",
        "--silent",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn program() -> PathBuf {
    env::var_os(VARIABLE).map_or_else(|| PathBuf::from("anvil"), PathBuf::from)
}

/// A port of the loopback interface that nobody listens on now.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener
        .map(|address| address.port())
        .map_err(|error| Error::Anvil(format!("no free port: {error}")))
}
