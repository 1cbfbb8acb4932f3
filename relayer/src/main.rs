//! `quittance`: settle compute work on chain.

use std::{io::IsTerminal, process::ExitCode};

use clap::Parser;
use relayer::{chain_of, cli::Cli, screen::complain};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("QUITTANCE_LOG")
        .unwrap_or_else(|_| EnvFilter::new("warn,relayer=info,indexer=info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match Cli::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format!("quittance: {}", chain_of(&error)));
            ExitCode::from(error.exit_code())
        }
    }
}
