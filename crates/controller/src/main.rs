//! `buoy-controller`: looks after a cluster's records.

use std::process::ExitCode;

use buoy_controller::{Given, Settings};
use clap::Parser;

/// Frees what pods and nodes that are gone have left in the datastore. Of several, one does it.
#[derive(Debug, Parser)]
#[command(name = "buoy-controller", version)]
struct Cli {
    #[command(flatten)]
    given: Given,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("buoy-controller: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let settings = Settings::complete(cli.given)?;
    buoy_daemon::log_to_stderr(&settings.log, settings.log_format)?;
    buoy_controller::run(&settings)
}
