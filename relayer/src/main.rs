//! `quittance`: settle compute work on chain.

use std::{io::IsTerminal, process::ExitCode, str::FromStr};

use clap::Parser;
use relayer::{chain_of, cli::Cli, screen::complain};
use tracing_subscriber::{EnvFilter, filter::Directive};

/// Libraries that write addresses of endpoints, which hold their keys, whatever else is asked for.
const TELL_ADDRESSES: [&str; 8] = [
    "alloy_transport_http=off",
    "alloy_rpc_client=off",
    "alloy_transport=off",
    "h2=off",
    "hyper=off",
    "hyper_util=off",
    "reqwest=off",
    "rustls=off",
];

#[tokio::main]
async fn main() -> ExitCode {
    let mut filter = EnvFilter::try_from_env("QUITTANCE_LOG")
        .unwrap_or_else(|_| EnvFilter::new("warn,relayer=info,indexer=info"));
    for target in TELL_ADDRESSES {
        filter = filter.add_directive(Directive::from_str(target).unwrap_or_default());
    }
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
