//! Ends flows: first the former workload's sockets, so that a peer that only reads is told; then what is tracked.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context, Result};
use buoy_core::endpoint::Netns;
use buoy_core::op::{Effect, EndFlows};
use buoy_kernel::conntrack::{self, Flow, Leads, Selector};
use buoy_kernel::netlink::{Protocol, Socket};
use buoy_kernel::netns::in_netns;
use buoy_kernel::sockdiag;
use tracing::debug;

use super::Namespaces;
use crate::inputs::OpError;

/// The connection to what tracks flows.
#[derive(Debug)]
pub(super) struct Flows {
    socket: Socket,
    namespaces: Namespaces,
}

impl Flows {
    /// Opens it in the namespace of this thread.
    pub(super) fn open(namespaces: Namespaces) -> Result<Self> {
        let socket = Socket::open(Protocol::Netfilter).context("open conntrack")?;
        Ok(Self { socket, namespaces })
    }

    /// Ends the flows of some addresses, all at once: what is tracked is looked through once.
    pub(super) fn end(&mut self, ends: &[&EndFlows]) -> Vec<Result<Effect, OpError>> {
        let result = self.end_all(ends).map_err(|error| OpError::from(&error));
        vec![result.map(|()| Effect::Done); ends.len()]
    }

    fn end_all(&mut self, ends: &[&EndFlows]) -> buoy_kernel::Result<()> {
        let selectors: Vec<Selector> = ends.iter().map(|end| selector(end)).collect();
        let flows = conntrack::find(&mut self.socket, &selectors)?;
        if flows.is_empty() {
            return Ok(());
        }
        let gone: BTreeSet<&(IpAddr, Option<Netns>)> = ends.iter().flat_map(|end| &end.gone).collect();
        for (address, netns) in gone {
            if let Some(netns) = netns {
                self.reset_sockets(*address, netns, &flows);
            }
        }
        conntrack::end(&mut self.socket, &flows).map(|_| ())
    }

    /// A workload that is gone has no sockets: that its namespace cannot be entered is no failure.
    fn reset_sockets(&self, address: IpAddr, netns: &Netns, flows: &[Flow]) {
        let mut connections = conntrack::connections(flows);
        connections.retain(|connection| connection.local.ip() == address);
        if connections.is_empty() {
            return;
        }
        let reset = self.namespaces.open(netns).and_then(|netns| {
            in_netns(&netns, || {
                sockdiag::reset_tcp(&mut Socket::open(Protocol::SockDiag)?, &connections)
            })
        });
        match reset {
            Ok(count) => debug!("{count} sockets of {address} reset"),
            Err(error) => debug!("sockets of {address} are not reset: {error}"),
        }
    }
}

fn selector(end: &EndFlows) -> Selector {
    let leads = end.keep.map_or(Leads::Anywhere, Leads::NotTo);
    Selector {
        called: end.floating.addr(),
        leads,
    }
}
