//! Faults of a datastore that tests of several datastores have in common, and how agents show them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};

use crate::api::Api;
use crate::exec::eventually;
use crate::netns::Netns;

/// An agent says how it stands within this time, on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// How an agent says that it stands, in each of the ways to see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// A part of `buoyctl node status`.
    pub status: &'static str,
    /// A part of what `/readyz` says, where it is not ready.
    pub unready: Option<&'static str>,
    /// A metric with its value.
    pub metric: &'static str,
}

impl Seen {
    /// All is well.
    pub const IN_CONTACT: Self = Self {
        status: "in contact",
        unready: None,
        metric: "buoy_datastore_up 1",
    };
    /// Nobody answers any more.
    pub const NO_CONTACT: Self = Self {
        status: "no contact",
        unready: Some("no contact with the datastore"),
        metric: "buoy_datastore_up 0",
    };
    /// Nobody has answered since it was started.
    pub const NOT_READ: Self = Self {
        status: "no contact",
        unready: Some("the datastore was not read yet"),
        metric: "buoy_datastore_synced 0",
    };
    /// An etcd is full.
    pub const FULL: Self = Self {
        status: "database space exceeded",
        unready: Some("the datastore takes no writes"),
        metric: "buoy_datastore_writes_failing 1",
    };
    /// Somebody else has a file to himself.
    pub const LOCKED: Self = Self {
        status: "locked by another process",
        ..Self::FULL
    };
    /// A file's disk is full.
    pub const NO_SPACE: Self = Self {
        status: "no space left for the store",
        ..Self::FULL
    };
    /// It knows less than before.
    pub const RESTORED: Self = Self {
        status: "restored from a copy",
        unready: Some("restored from a copy"),
        metric: "buoy_datastore_restores_total 1",
    };

    /// Waits until an agent, whose `node status` is asked by `status`, says so in each of these ways.
    pub fn at(self, agent: &Api, status: impl Fn() -> Result<String>) -> Result<()> {
        eventually(SOON, &format!("an agent says: {}", self.status), || {
            let status = status()?;
            ensure!(status.contains(self.status), "{status}");
            let ready = agent.text("/readyz").map_err(|error| format!("{error:#}"));
            match (self.unready, ready) {
                (None, Ok(_)) => {}
                (Some(why), Err(said)) if said.contains(why) => {}
                (_, ready) => return Err(anyhow!("ready: {ready:?}")),
            }
            let metrics = agent.text("/metrics")?;
            let has = metrics.lines().any(|line| line == self.metric);
            ensure!(has, "no {} in:\n{metrics}", self.metric);
            Ok(())
        })
    }
}

/// Which packets between a node and the host of a datastore are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// From the node.
    Requests,
    /// To the node.
    Answers,
    /// In both directions.
    Both,
}

/// Cuts the node with this address off from a host, and from nothing else.
pub fn cut_off(host: &Netns, address: &str, lost: Lost) -> Result<()> {
    let requests =
        format!("chain requests {{ type filter hook input priority 0\nip saddr {address} drop\n}}\n");
    let answers =
        format!("chain answers {{ type filter hook output priority 0\nip daddr {address} drop\n}}\n");
    let chains = match lost {
        Lost::Requests => requests,
        Lost::Answers => answers,
        Lost::Both => requests + &answers,
    };
    host.nft(&format!("table ip cut {{\n{chains}}}\n"))
}

/// Ends what [`cut_off`] began.
pub fn let_in(host: &Netns) -> Result<()> {
    host.nft("delete table ip cut\n")
}

/// Lets something stand still for 200 ms, again and again until it is over.
pub fn slow_down(
    over: &AtomicBool,
    freeze: impl Fn() -> Result<()>,
    thaw: impl Fn() -> Result<()>,
) -> Result<()> {
    while !over.load(Ordering::Relaxed) {
        freeze()?;
        thread::sleep(Duration::from_millis(200));
        thaw()?;
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
