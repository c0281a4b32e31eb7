//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use buoy_api::FloatingIp;
use buoy_cni_spec::agent::DEFAULT_SOCKET;
use clap::{Args, Parser, Subcommand};
use jiff::SignedDuration;

use crate::kind::KindName;
use crate::output::Format;

/// See and steer Buoy: resources, addresses and floating IPs.
#[derive(Debug, Parser)]
#[command(name = "buoyctl", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Where the records are: sqlite:///path, etcd://host:port,host:port or kubernetes:/path/to/kubeconfig.
    #[arg(
        long,
        global = true,
        env = "BUOY_DATASTORE",
        hide_env_values = true,
        default_value_t = buoy_datastore::default_url(),
        value_name = "URL"
    )]
    pub datastore: String,
    /// Where the agent of this node listens.
    #[arg(long, global = true, env = "BUOY_SOCKET", default_value = DEFAULT_SOCKET, value_name = "PATH")]
    pub socket: PathBuf,
    /// Form of what is printed on stdout.
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORM")]
    pub output: Format,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make resources that do not exist.
    Create(Files),
    /// Make resources, or replace them.
    Apply(Files),
    /// Show resources.
    Get(Get),
    /// Delete resources.
    Delete(Delete),
    /// See which addresses are in use.
    #[command(subcommand)]
    Ipam(Ipam),
    /// See and steer floating IPs.
    #[command(subcommand)]
    Fip(Fip),
    /// Ask the agent of this node.
    #[command(subcommand)]
    Node(Node),
}

/// Files of resources.
#[derive(Debug, Args)]
pub(crate) struct Files {
    /// YAML or JSON; - is stdin; may be given several times.
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    pub filename: Vec<String>,
    /// Namespace of resources that name none.
    #[arg(short, long, default_value = "default", value_name = "NAMESPACE")]
    pub namespace: String,
}

/// Which resources to show.
#[derive(Debug, Args)]
pub(crate) struct Get {
    /// Kind, such as ippool, node, wep, bgppeer, fipb.
    #[arg(value_parser = kind)]
    pub kind: KindName,
    /// Names; all, if there are none.
    pub names: Vec<String>,
    /// Of this namespace.
    #[arg(short, long, default_value = "default", value_name = "NAMESPACE")]
    pub namespace: String,
    /// Of all namespaces.
    #[arg(short = 'A', long, visible_short_alias = 'a', conflicts_with = "names")]
    pub all_namespaces: bool,
}

/// Which resources to delete.
#[derive(Debug, Args)]
#[command(override_usage = "buoyctl delete <KIND> <NAME>... | buoyctl delete -f <FILE>")]
pub(crate) struct Delete {
    /// Kind, such as ippool, node, wep, bgppeer.
    #[arg(value_parser = kind, requires = "names", required_unless_present = "filename")]
    pub kind: Option<KindName>,
    /// Names.
    pub names: Vec<String>,
    /// What these files name; - is stdin.
    #[arg(short, long = "filename", conflicts_with = "kind", value_name = "FILE")]
    pub filename: Vec<String>,
    /// Namespace of resources that name none.
    #[arg(short, long, default_value = "default", value_name = "NAMESPACE")]
    pub namespace: String,
    /// Pass over what does not exist.
    #[arg(short, long)]
    pub skip_not_exists: bool,
}

/// Questions about addresses.
#[derive(Debug, Subcommand)]
pub(crate) enum Ipam {
    /// Show how much of each pool is in use.
    Show {
        /// Also of each block.
        #[arg(long)]
        show_blocks: bool,
        /// Who has this address?
        #[arg(long, conflicts_with = "show_blocks", value_name = "ADDRESS")]
        ip: Option<IpAddr>,
    },
}

/// Verbs for floating IPs.
#[derive(Debug, Subcommand)]
pub(crate) enum Fip {
    /// List floating IPs: who owns them, who stands by.
    List {
        /// Of this namespace; of all, if none is named.
        #[arg(short, long, value_name = "NAMESPACE")]
        namespace: Option<String>,
    },
    /// Let a running workload ask for a floating IP.
    Attach {
        /// The floating IP.
        address: FloatingIp,
        #[command(flatten)]
        workload: Workload,
    },
    /// Take a workload's request back, or everybody's.
    Detach {
        /// The floating IP.
        address: FloatingIp,
        /// Pod, or container ID or its beginning; everybody who asks, if none is named.
        workload: Option<String>,
        /// Namespace of the workload.
        #[arg(short, long, value_name = "NAMESPACE")]
        namespace: Option<String>,
        /// Interface inside the workload, if it has several.
        #[arg(long, requires = "workload", value_name = "IFNAME")]
        endpoint: Option<String>,
    },
    /// Move a floating IP to another workload that asks for it.
    Move(Move),
    /// Give an address without owner up: its namespace no longer keeps it.
    Release {
        /// The floating IP.
        address: FloatingIp,
    },
    /// Explain who has an address and why.
    Why {
        /// The floating IP.
        address: FloatingIp,
    },
}

/// A workload, as people name it.
#[derive(Debug, Args)]
pub(crate) struct Workload {
    /// Pod, or container ID or its beginning.
    pub workload: String,
    /// Namespace of the workload.
    #[arg(short, long, default_value = "default", value_name = "NAMESPACE")]
    pub namespace: String,
    /// Interface inside the workload, if it has several.
    #[arg(long, value_name = "IFNAME")]
    pub endpoint: Option<String>,
}

/// A move that is wanted.
#[derive(Debug, Args)]
pub(crate) struct Move {
    /// The floating IP.
    pub address: FloatingIp,
    /// Pod or container ID.
    #[arg(long, value_name = "WORKLOAD")]
    pub to: String,
    /// Node of that workload, if it runs on several.
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,
    /// Interface inside the workload, if it asks with several.
    #[arg(long, value_name = "IFNAME")]
    pub endpoint: Option<String>,
    /// Withdraw it from the old owner before the new one has it.
    #[arg(long)]
    pub exclusive: bool,
    /// How long established flows to the old owner go on, where both are on one node.
    #[arg(long, value_parser = length, value_name = "TIME")]
    pub drain: Option<String>,
    /// How long to wait until it has moved.
    #[arg(long, default_value = "5s", value_parser = duration, value_name = "TIME")]
    pub timeout: Duration,
}

/// Questions to the agent.
#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    /// Show the condition of the agent and its node.
    Status,
    /// Show what the agent would do now.
    Plan,
}

fn kind(text: &str) -> Result<KindName, String> {
    text.parse()
}

fn duration(text: &str) -> Result<Duration, String> {
    let refuse = || format!("not a length of time: {text}\nwrite it as 5s or 2m");
    let duration: SignedDuration = text.parse().map_err(|_| refuse())?;
    Duration::try_from(duration).map_err(|_| refuse())
}

/// A length of time as it was written.
fn length(text: &str) -> Result<String, String> {
    duration(text).map(|_| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn usage_is_checked_before_anything_is_opened() {
        for wrong in [
            vec!["get", "pods"],
            vec!["get", "wep", "w", "-A"],
            vec!["delete"],
            vec!["delete", "ippool"],
            vec!["delete", "ippool", "p", "-f", "x"],
            vec!["apply"],
            vec!["fip", "attach", "10.0.0.1/32", "w"],
            vec!["fip", "attach", "::ffff:10.0.0.1", "w"],
            vec!["fip", "move", "10.0.0.1"],
            vec!["fip", "move", "10.0.0.1", "--to", "w", "--timeout", "-1s"],
            vec!["fip", "move", "10.0.0.1", "--to", "w", "--drain", "soon"],
            vec!["fip", "move", "10.0.0.1", "--to", "w", "--drain", "-5s"],
            vec!["ipam", "show", "--ip", "here"],
        ] {
            let args = ["buoyctl"].into_iter().chain(wrong.iter().copied());
            assert!(Cli::try_parse_from(args).is_err(), "{wrong:?}");
        }
    }
}
