//! Ends flows: first the former workload's sockets, so that a peer that only reads is told; then what is tracked.
//!
//! Looking through all that is tracked takes the kernel some 15 ms, however little that is. So a few addresses are ended
//! one by one, by what is known of where their flows lead; only many at once, and the second pass over an address that
//! had no owner here, look through everything.

use std::net::IpAddr;

use anyhow::{Context, Result};
use buoy_core::endpoint::Netns;
use buoy_core::op::{Effect, EndFlows, Pass};
use buoy_kernel::conntrack::{self, Leads, Selector};
use buoy_kernel::netlink::{Protocol, Socket};
use buoy_kernel::netns::in_netns;
use tracing::debug;

use super::Namespaces;
use crate::inputs::OpError;

/// From this many addresses on, everything is looked through once.
const MANY: usize = 64;

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

    /// Ends the flows of some addresses.
    pub(super) fn end(&mut self, ends: &[&EndFlows]) -> Vec<Result<Effect, OpError>> {
        let (whole, single): (Vec<&EndFlows>, Vec<&EndFlows>) = ends
            .iter()
            .partition(|end| ends.len() >= MANY || is_searching(end));
        let mut result = self.end_all(&whole);
        for end in single {
            result = result.and(self.end_known(end));
        }
        let result = result
            .map(|()| Effect::Done)
            .map_err(|error| OpError::from(&error));
        vec![result; ends.len()]
    }

    /// Ends flows by where they are known to lead: to a former workload, or nowhere because they were never translated.
    fn end_known(&mut self, end: &EndFlows) -> buoy_kernel::Result<()> {
        let floating = end.floating.addr();
        let mut result = Ok(());
        for (address, netns) in &end.gone {
            let reset = netns
                .as_ref()
                .filter(|_| end.pass == Pass::First)
                .map(|n| self.reset(floating, *address, n));
            if reset != Some(true) {
                result = result.and(self.end_leading(floating, *address));
            }
        }
        // For IPv6 the kernel looks through everything each time; what is left is for the second pass.
        if floating.is_ipv6() && !end.gone.is_empty() {
            return result;
        }
        result.and(self.end_leading(floating, floating))
    }

    fn end_leading(&mut self, called: IpAddr, to: IpAddr) -> buoy_kernel::Result<()> {
        conntrack::end_called(
            &mut self.socket,
            &Selector {
                called,
                leads: Leads::To(to),
            },
        )
    }

    /// Resets a former workload's sockets and ends its flows. A workload that is gone has no sockets: that its namespace
    /// cannot be entered is no failure.
    fn reset(&mut self, floating: IpAddr, address: IpAddr, netns: &Netns) -> bool {
        let sockets = self
            .namespaces
            .open(netns)
            .and_then(|n| in_netns(&n, || Socket::open(Protocol::SockDiag)));
        let reset = sockets.and_then(|mut sockets| {
            conntrack::end_with_resets(&mut self.socket, &mut sockets, floating, address)
        });
        match &reset {
            Ok(count) => debug!("{count} sockets of {address} reset"),
            Err(error) => debug!("sockets of {address} are not reset: {error}"),
        }
        reset.is_ok()
    }

    /// Looks through everything once.
    fn end_all(&mut self, ends: &[&EndFlows]) -> buoy_kernel::Result<()> {
        if ends.is_empty() {
            return Ok(());
        }
        for end in ends {
            for (address, netns) in &end.gone {
                if let (Pass::First, Some(netns)) = (end.pass, netns) {
                    self.reset(end.floating.addr(), *address, netns);
                }
            }
        }
        let selectors: Vec<Selector> = ends.iter().map(|end| all_but_kept(end)).collect();
        let flows = conntrack::find(&mut self.socket, &selectors)?;
        conntrack::end(&mut self.socket, &flows).map(|_| ())
    }
}

/// Whether it is not known where flows may lead, since the address had no owner here before, or knowing saves nothing.
fn is_searching(end: &EndFlows) -> bool {
    end.pass == Pass::Second && (end.gone.is_empty() || end.floating.addr().is_ipv6())
}

fn all_but_kept(end: &EndFlows) -> Selector {
    Selector {
        called: end.floating.addr(),
        leads: Leads::NotTo(end.keep.clone()),
    }
}
