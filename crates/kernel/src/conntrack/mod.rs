//! Connection tracking: finding and ending the flows of an address.
//!
//! Three ways, of which the caller takes the cheapest that serves:
//! - [`end_called`] has the kernel itself end what was called by one address and leads to another (IPv4, since 6.9): 0.5 ms.
//! - [`of_connections`] finds the flows of known TCP connections by their tuples: some microseconds each.
//! - [`find`] walks the table: about 15 ms for 262,144 buckets, the kernel's default on larger machines, however few flows
//!   there are, and of IPv6 some 3 µs more for each flow, for it sends all of them: 0.15 s for 50,000. Give it all
//!   addresses at once.
//!
//! Deletion of single flows ([`end`]) gives the kernel back the very tuple, zone and id that it sent, so it works for every
//! protocol and means that flow only.
//!
//! The kernel compares IPv6 addresses of a filter the wrong way round (seen in 6.18: it sends all but the one asked for),
//! so filters are used for IPv4 alone, and all that is found is looked at again here.

mod flow;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use nix::errno::Errno;

pub use self::flow::{Flow, Tuple};
use self::flow::{api, message};
use crate::{
    Family,
    error::{Doing, Result},
    netlink::{
        Failure, Socket,
        wire::{Message, Received},
    },
    sockdiag::{self, Connection},
};

/// From this many addresses on, the whole table is read once instead of once per address.
const MANY: usize = 4;

/// From this many connections on, a walk costs less than looking each one up.
const LOOK_UPS: usize = 1500;

/// Where a flow's packets go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leads {
    /// Anywhere.
    Anywhere,
    /// To this address. A flow that was never translated leads to its own destination.
    To(IpAddr),
    /// To any other than these addresses.
    NotTo(BTreeSet<IpAddr>),
}

/// Flows by the address that their sender called, and by where they lead.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector {
    /// The original destination: a floating IP.
    pub called: IpAddr,
    /// Where they lead.
    pub leads: Leads,
}

impl Selector {
    /// Whether it means this flow.
    pub fn means(&self, flow: &Flow) -> bool {
        let target = flow.reply.source;
        flow.original.destination == self.called
            && match &self.leads {
                Leads::Anywhere => true,
                Leads::To(address) => target == *address,
                Leads::NotTo(addresses) => !addresses.contains(&target),
            }
    }
}

/// Finds the flows that any of the selectors means, in the namespace of this netfilter socket.
///
/// Flows whose first packet is still on its way are not yet in the table; look again a little later.
///
/// # Errors
/// When the kernel refuses, or the table keeps changing.
pub fn find(socket: &mut Socket, selectors: &[Selector]) -> Result<Vec<Flow>> {
    let mut by_address: BTreeMap<IpAddr, Vec<&Selector>> = BTreeMap::new();
    for selector in selectors {
        by_address.entry(selector.called).or_default().push(selector);
    }
    let is_meant = |flow: &Flow| {
        let selectors = by_address.get(&flow.original.destination);
        selectors.is_some_and(|selectors| selectors.iter().any(|selector| selector.means(flow)))
    };
    let mut flows = Vec::new();
    for request in walks(&by_address.keys().copied().collect::<Vec<_>>()) {
        let read_meant = |received: &Received<'_>| flow::read(received).filter(|flow| is_meant(flow));
        flows.extend(socket.dump(request, read_meant).doing(|| "list tracked flows")?);
    }
    Ok(flows)
}

/// Ends the flows that a selector means, without telling which they were.
///
/// # Errors
/// When the kernel refuses, or the table keeps changing.
pub fn end_called(socket: &mut Socket, selector: &Selector) -> Result<()> {
    if let Some(request) = flush(selector) {
        match socket.request(request, |_| None::<()>) {
            Ok(_) => return Ok(()),
            // A kernel before 6.9 takes it for the incomplete tuple of one flow.
            Err(failure) if failure.errno() == Some(Errno::EINVAL) => {}
            Err(failure) => return Err(failure).doing(|| format!("end the flows of {}", selector.called)),
        }
    }
    let flows = find(socket, std::slice::from_ref(selector))?;
    end(socket, &flows).map(|_| ())
}

/// Ends the flows that were called by one address and lead to a workload, after resetting the workload's TCP sockets that
/// take part in them. `sockets` is a sock_diag socket of the workload's namespace. Returns how many were reset.
///
/// # Errors
/// When the kernel refuses, or a list keeps changing. Flows are ended even if sockets cannot be reset.
pub fn end_with_resets(
    socket: &mut Socket,
    sockets: &mut Socket,
    called: IpAddr,
    workload: IpAddr,
) -> Result<usize> {
    let selector = Selector {
        called,
        leads: Leads::To(workload),
    };
    let reset = sockdiag::connections_of(sockets, workload).and_then(|all| {
        let mut flows = match all.len() {
            0..LOOK_UPS => of_connections(socket, &all)?,
            _ => find(socket, std::slice::from_ref(&selector))?,
        };
        flows.retain(|flow| selector.means(flow));
        sockdiag::reset_tcp(sockets, &connections(&flows))
    });
    end_called(socket, &selector)?;
    reset
}

/// The tracked flows of TCP connections that have their sockets behind the translation.
///
/// # Errors
/// When the kernel refuses.
pub fn of_connections(socket: &mut Socket, connections: &[Connection]) -> Result<Vec<Flow>> {
    let mut flows = Vec::new();
    for connection in connections {
        match socket.request(flow::lookup(connection), flow::read) {
            Ok(found) => flows.extend(found),
            Err(failure) if is_gone(&failure) => {}
            Err(failure) => {
                return Err(failure).doing(|| format!("look up the flow of {}", connection.peer));
            }
        }
    }
    Ok(flows)
}

/// The TCP connections among flows, as the sockets see them to which they lead.
pub fn connections(flows: &[Flow]) -> Vec<Connection> {
    let ends = |flow: &Flow| Connection {
        local: SocketAddr::new(flow.reply.source, flow.reply.source_port),
        peer: SocketAddr::new(flow.reply.destination, flow.reply.destination_port),
    };
    flows.iter().filter(|flow| flow.is_tcp()).map(ends).collect()
}

/// Ends flows. Returns how many of them were still there.
///
/// # Errors
/// When the kernel refuses one for another reason than absence; the others are ended all the same.
pub fn end(socket: &mut Socket, flows: &[Flow]) -> Result<usize> {
    let mut messages: Vec<Message> = flows.iter().map(Flow::deletion).collect();
    let outcomes = socket
        .batch(&mut messages)
        .doing(|| format!("end {} flows", flows.len()))?;
    let (mut ended, mut refused) = (0, Ok(()));
    for (flow, outcome) in flows.iter().zip(outcomes) {
        match outcome {
            Ok(()) => ended += 1,
            Err(failure) if is_gone(&failure) => {}
            Err(failure) => refused = Err(failure).doing(|| format!("end flow {flow}")),
        }
    }
    refused.map(|()| ended)
}

fn is_gone(failure: &Failure) -> bool {
    failure.errno() == Some(Errno::ENOENT)
}

/// One walk per address where the kernel can filter, else one per family.
fn walks(addresses: &[IpAddr]) -> Vec<Message> {
    let v4: Vec<Ipv4Addr> = addresses
        .iter()
        .filter_map(|address| match address {
            IpAddr::V4(v4) => Some(*v4),
            IpAddr::V6(_) => None,
        })
        .collect();
    let everything = |family| message(api::GET, family);
    let mut walks: Vec<Message> = match v4.len() {
        0..MANY => v4
            .iter()
            .map(|address| filtered(api::GET, *address, None))
            .collect(),
        _ => vec![everything(Family::V4)],
    };
    if v4.len() < addresses.len() {
        walks.push(everything(Family::V6));
    }
    walks
}

/// The request that has the kernel end what the selector means, where the kernel can tell.
fn flush(selector: &Selector) -> Option<Message> {
    match (selector.called, &selector.leads) {
        (IpAddr::V4(called), Leads::Anywhere) => Some(filtered(api::DELETE, called, None)),
        (IpAddr::V4(called), Leads::To(IpAddr::V4(target))) => {
            Some(filtered(api::DELETE, called, Some(*target)))
        }
        _ => None,
    }
}

/// A request about the flows with this original destination and, if given, this source of replies.
fn filtered(kind: u16, called: Ipv4Addr, target: Option<Ipv4Addr>) -> Message {
    let address = |kind, address: Ipv4Addr| {
        move |tuple: Message| tuple.nest(api::TUPLE_IP, |ip| ip.attribute(kind, &address.octets()))
    };
    let mut request =
        message(kind, Family::V4).nest(api::TUPLE_ORIGINAL, address(api::IP_V4_DESTINATION, called));
    let mut reply_flags = 0u32;
    if let Some(target) = target {
        request = request.nest(api::TUPLE_REPLY, address(api::IP_V4_SOURCE, target));
        reply_flags = api::FILTER_BY_SOURCE;
    }
    request.nest(api::FILTER, |filter| {
        filter
            .attribute(api::FILTER_ORIGINAL, &api::FILTER_BY_DESTINATION.to_ne_bytes())
            .attribute(api::FILTER_REPLY, &reply_flags.to_ne_bytes())
    })
}
