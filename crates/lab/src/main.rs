//! The program `buoy-lab`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use buoy_lab::checker::{self, Place, Places, Source};
use buoy_lab::store::Store;
use buoy_lab::{bench, demo, kube, locker, probe, sweep, up};
use clap::{Parser, Subcommand};

/// Networks of namespaces on this machine, with real nodes and clients. Never touches the machine's own network.
#[derive(Debug, Parser)]
#[command(name = "buoy-lab", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tell the story of a floating IP, each step checked (half a minute).
    Demo,
    /// Measure, beside what it is compared with (minutes).
    Bench {
        /// Some parts only: agent, dataplane, move, change, cold, cni, network, stores, kubernetes.
        #[arg(long, value_name = "NAMES", value_delimiter = ',')]
        only: Vec<String>,
        /// Few samples: shows that it works, and says little about speed.
        #[arg(long)]
        quick: bool,
        /// Where the results go, instead of bench/results.json in cargo's target directory.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Make a node and a client to play with; Ctrl-C removes them.
    Up,
    /// A real Kubernetes, to look at or to play with.
    Kube {
        #[command(subcommand)]
        command: KubeCommand,
    },
    /// Check what nodes, a router and the store have against the invariants, and show what does not agree.
    Check {
        /// The embedded store's file.
        #[arg(long, value_name = "FILE")]
        store: PathBuf,
        /// A node: its name, its network namespace, and the control socket of its BIRD if it has one.
        #[arg(long = "node", value_name = "NAME=NETNS[,SOCKET]")]
        nodes: Vec<Place>,
        /// The router outside.
        #[arg(long, value_name = "NAME=NETNS,SOCKET")]
        router: Option<Place>,
    },
    /// Remove what failed tests and killed runs left.
    Sweep,
    /// Answer questions of the lab's clients, until it is told to stop.
    #[command(hide = true)]
    Serve {
        /// The name that is given as an answer; the host's, if none is given.
        name: Option<String>,
    },
    /// Keep a store to oneself until standard input ends.
    #[command(hide = true)]
    HoldStore {
        /// The store's file.
        store: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum KubeCommand {
    /// Make three nodes with a control plane, a router and a client; Ctrl-C removes them.
    Up {
        /// How many nodes: one to three.
        #[arg(long, value_name = "COUNT", default_value_t = 3)]
        nodes: usize,
        /// Without a network for pods: nodes are ready once you install one.
        #[arg(long)]
        no_cni: bool,
        /// Let kube-proxy use nftables instead of iptables.
        #[arg(long)]
        nftables: bool,
    },
    /// Tell how Buoy is installed and what it does there, each step checked (a minute or two).
    Demo,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Demo => return demo::run(),
        Command::Bench { only, quick, out } => bench::run(&bench::Options { only, quick, out })?,
        Command::Up => up::run()?,
        Command::Kube {
            command: KubeCommand::Demo,
        } => return demo::kubernetes::run(),
        Command::Kube {
            command:
                KubeCommand::Up {
                    nodes,
                    no_cni,
                    nftables,
                },
        } => kube_up(nodes, no_cni, nftables)?,
        Command::Check { store, nodes, router } => {
            let places = Places {
                records: Source::Store(Store::File(store)),
                nodes,
                router,
            };
            return checker::report(&places);
        }
        Command::Sweep => {
            let swept = sweep::sweep(&sweep::Which::All);
            eprintln!(
                "removed {} runs and {} forgotten namespaces",
                swept.runs.len(),
                swept.namespaces.len()
            );
        }
        Command::Serve { name } => probe::serve_here(name)?,
        Command::HoldStore { store } => locker::hold_until_eof(&store)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn kube_up(nodes: usize, no_cni: bool, nftables: bool) -> Result<()> {
    let cni = if no_cni { kube::Cni::None } else { kube::Cni::Stock };
    let proxy = if nftables {
        kube::ProxyMode::Nftables
    } else {
        kube::ProxyMode::Iptables
    };
    kube::up::run(&kube::Options {
        nodes,
        cni,
        proxy,
        ..kube::Options::default()
    })
}
