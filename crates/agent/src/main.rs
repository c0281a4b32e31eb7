//! `buoy-agent`: the agent of a node.

use std::process::ExitCode;

use buoy_agent::{Given, Preflight, Settings};
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
    /// Look whether Buoy may begin in this Kubernetes cluster
    Preflight(Preflight),
    /// The routing daemon that the agent looks after
    Bird {
        #[command(subcommand)]
        command: BirdCommand,
    },
}

#[derive(Debug, Subcommand)]
enum BirdCommand {
    /// End it in order: routes stay, and a running agent starts it again at once, as after an upgrade
    Stop,
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
    buoy_daemon::log_to_stderr(&settings.log, settings.log_format)?;
    match cli.command {
        None => buoy_agent::run(cli.given, settings),
        Some(Command::Cleanup) => buoy_agent::cleanup(&settings),
        Some(Command::Preflight(asked)) => buoy_agent::preflight(&settings, &asked),
        Some(Command::Bird {
            command: BirdCommand::Stop,
        }) => buoy_agent::stop_bird(&settings),
    }
}
