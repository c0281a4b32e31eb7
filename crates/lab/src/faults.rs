//! Faults of a datastore that tests of several datastores have in common.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::netns::Netns;

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
