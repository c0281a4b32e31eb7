//! `buoy-agent`: the agent of a node.

use std::process::ExitCode;

use buoy_agent::{Given, Settings};
use clap::{Parser, Subcommand};

/// Programs floating IPs and fixed IPs on this node.
#[derive(Debug, Parser)]
#[command(name = "buoy-agent", version)]
struct Cli {
    #[command(flatten)]
    given: Given,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Remove all that an agent made on this node
    Cleanup,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("buoy-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let settings = Settings::load(&cli.given)?;
    buoy_agent::log_to_stderr(&settings)?;
    match cli.command {
        None => buoy_agent::run(cli.given, settings),
        Some(Command::Cleanup) => buoy_agent::cleanup(&settings),
    }
}
