//! `buoy-lab demo`: what a floating IP is and does, told first on one node and a client, then on three nodes and a router;
//! every claim is checked.

mod fail_over;
mod faults;
pub mod kubernetes;
mod network;
mod reach;
mod remove;
mod request;
mod steer;
mod story;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::{CLIENT, Lab, NODE_IPS};
use crate::probe::{self, Answer, Via};
use crate::store::Kind;
use crate::workload::Workload;
use network::Network;
use story::Story;

/// Namespace of all the pods.
const NAMESPACE: &str = "shop";
/// The floating IPs of the story.
const FLOATING: [&str; 2] = ["172.16.1.3", "fd16::3"];
/// The fixed addresses that the first pod asks for.
const FIXED: [&str; 2] = ["10.65.0.10", "fd65::10"];
/// Patience with anything that should happen at once, on a busy machine.
const SOON: Duration = Duration::from_secs(10);
/// How often probes ask.
const OFTEN: Duration = Duration::from_millis(10);

/// What the steps work on.
#[derive(Debug)]
struct Stage {
    workloads: BTreeMap<String, Workload>,
    lab: Lab,
    story: Story,
}

/// Tells it. Fails with the evidence as soon as something does not hold.
pub fn run() -> Result<ExitCode> {
    let store = Kind::of_environment("BUOY_DEMO_STORE")?;
    let lab = Lab::bare_on(store)?;
    let story = Story::begin();
    introduce(&story, store)?;
    let mut stage = Stage {
        workloads: BTreeMap::new(),
        lab,
        story,
    };
    match tell(&mut stage) {
        Ok(()) => {}
        Err(error) => {
            stage.lab.run().keep_directory();
            stage.story.failed(&error, &stage.lab.evidence())?;
            return Ok(ExitCode::FAILURE);
        }
    }
    go_on(remove::close(stage)?, store)
}

/// The second part.
fn go_on(story: Story, store: Kind) -> Result<ExitCode> {
    let mut network = Network::make(story, store)?;
    if let Err(error) = network.tell() {
        network.failed(&error)?;
        return Ok(ExitCode::FAILURE);
    }
    network::close(network)?;
    Ok(ExitCode::SUCCESS)
}

fn tell(stage: &mut Stage) -> Result<()> {
    request::tell(stage)?;
    reach::tell(stage)?;
    reach::tell_inside(stage)?;
    fail_over::tell(stage)?;
    steer::tell(stage)?;
    faults::tell(stage)?;
    remove::tell(stage)
}

fn introduce(story: &Story, store: Kind) -> Result<()> {
    story.line(
        "\
A floating IP is an address that fronts one workload at a time and can move to another.
Here are a client, a switch and one node, each in a network namespace of this machine:",
    )?;
    story.line(&format!(
        "
   client {} ── switch ── node n1 {}   (and the same in IPv6)
                                     ├─ buoy-agent: programs links, routes and NAT
                                     └─ pods, attached by the CNI plugin 'calico', which here is Buoy's",
        CLIENT[0], NODE_IPS[0]
    ))?;
    match store {
        Kind::Sqlite => Ok(()),
        Kind::Etcd => story.line(
            "   The datastore is an etcd of three members, etcd1 to etcd3, each in a namespace on the same switch.",
        ),
    }
}

impl Stage {
    fn workload(&self, name: &str) -> Result<&Workload> {
        self.workloads
            .get(name)
            .with_context(|| format!("no workload {name}"))
    }

    /// Asks from the client, until there is an answer.
    fn ask(&self, via: Via, to: &str) -> Result<Answer> {
        probe::ask(&self.lab.client, via, to.parse()?, SOON)
    }

    /// Runs `buoyctl` and shows command and output.
    fn show_ctl(&self, line: &str) -> Result<String> {
        let output = self.lab.node.ctl(line)?;
        self.story.command(&format!("buoyctl {line}"), &output)?;
        Ok(output)
    }

    /// Runs a program on the node and shows command and output.
    fn show_on_node(&self, line: &str) -> Result<String> {
        let output = self.lab.node.netns().exec(line)?.stdout;
        self.story.command(line, &output)?;
        Ok(output)
    }
}

fn ip(text: &str) -> Result<IpAddr> {
    text.parse().with_context(|| format!("not an address: {text}"))
}
