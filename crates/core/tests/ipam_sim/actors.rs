//! What the simulated hosts work on: containers with a handle each, floating IPs, and the protocols under way.

use std::net::IpAddr;

use buoy_api::ip::FloatingIp;
use buoy_core::store::{Record, StoreOp};

use super::machine::Machine;

/// What a container asks for.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    Auto { v4: usize, v6: usize },
    Addresses(Vec<IpAddr>),
}

impl Wish {
    pub(crate) fn count(&self) -> usize {
        match self {
            Self::Auto { v4, v6 } => v4 + v6,
            Self::Addresses(addresses) => addresses.len(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Never given anything, as far as anybody knows.
    New,
    /// It was answered with its addresses and uses them.
    Live,
    /// An ADD or DEL ended in a crash or an error: it may have addresses.
    Broken,
    /// A DEL was answered.
    Gone,
}

#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub handle: String,
    pub host: usize,
    pub wish: Wish,
    pub phase: Phase,
    /// As last answered; a late DEL still knows them.
    pub addresses: Vec<IpAddr>,
    /// Protocols under way for its handle.
    pub busy: usize,
    /// Two protocols ran for its handle at the same time: nobody may rely on its addresses.
    pub doomed: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Floating {
    pub address: FloatingIp,
    /// The newest stamp that was answered and that nobody began to release.
    pub live: Option<u64>,
    /// Every stamp that was answered: a collector may have seen any of them.
    pub stamps: Vec<u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub name: String,
    /// Its affine blocks, as its watch last showed them.
    pub cache: Vec<Record>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Add(usize),
    Delete(usize),
    Reserve(usize),
    Release(usize),
    GiveUp,
}

pub(crate) struct Process {
    pub purpose: Purpose,
    pub host: usize,
    pub machine: Machine,
    pub next: StoreOp,
    /// An operation of it failed, so it could not tidy up.
    pub failed: bool,
}
