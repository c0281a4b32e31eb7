//! Routes: putting, deleting and listing, in batches.
//!
//! A route's key is (table, destination, metric). Only routes of [`crate::ROUTE_PROTOCOL`] are ever replaced or
//! deleted: a stranger's route with the same key stays, and putting over it is refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Parseable};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use nix::errno::Errno;

use crate::{
    Family, IfIndex, ROUTE_PROTOCOL,
    error::{Doing, Error, Result},
    netlink::{
        Failure, Socket,
        wire::{Message, Received},
    },
};

/// The main routing table.
pub const MAIN_TABLE: u32 = 254;
/// What IPv6 makes of metric 0; such a route is read back with this one.
pub const DEFAULT_METRIC_V6: u32 = 1024;
/// Protocol of routes made by hand or at boot, which those inside a workload are.
pub(crate) const BOOT: u8 = 3;
/// `RTM_NEWROUTE`.
const NEW_ROUTE: u16 = 24;

/// A route of one next hop, or of none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// Routing table.
    pub table: u32,
    /// Preference among routes to one destination; lower wins. IPv6 knows no 0, see [`DEFAULT_METRIC_V6`].
    pub metric: u32,
    /// What happens to its packets.
    pub target: Target,
}

/// What a route does with packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// They leave by a link, to a gateway or directly.
    Link {
        /// The link.
        ifindex: IfIndex,
        /// The next hop; without one the destination is on the link.
        gateway: Option<IpAddr>,
    },
    /// The sender is told that there is no way.
    Unreachable,
}

/// What makes a route the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteKey {
    /// Routing table.
    pub table: u32,
    /// Where to.
    pub destination: IpNet,
    /// Metric.
    pub metric: u32,
}

impl Route {
    /// Its key.
    pub fn key(&self) -> RouteKey {
        RouteKey {
            table: self.table,
            destination: self.destination,
            metric: self.metric,
        }
    }

    /// The request that makes it, with this protocol number.
    pub(crate) fn message(&self, protocol: u8) -> RouteNetlinkMessage {
        let mut message = skeleton(&self.key(), protocol);
        match self.target {
            Target::Unreachable => message.header.kind = RouteType::Unreachable,
            Target::Link { ifindex, gateway } => {
                message.header.kind = RouteType::Unicast;
                message.header.scope = match (gateway, self.destination) {
                    (None, IpNet::V4(_)) => RouteScope::Link,
                    _ => RouteScope::Universe,
                };
                message.attributes.push(RouteAttribute::Oif(ifindex.0));
                message
                    .attributes
                    .extend(gateway.map(|ip| RouteAttribute::Gateway(route_address(ip))));
            }
        }
        RouteNetlinkMessage::NewRoute(message)
    }

    /// The request that deletes it and no other.
    ///
    /// To IPv4 metric 0 means any metric, so there the link tells which route is meant.
    fn deletion(&self, protocol: u8) -> RouteNetlinkMessage {
        let mut message = skeleton(&self.key(), protocol);
        message.header.scope = RouteScope::NoWhere;
        if let (0, Target::Link { ifindex, .. }) = (self.metric, self.target) {
            message.attributes.push(RouteAttribute::Oif(ifindex.0));
        }
        RouteNetlinkMessage::DelRoute(message)
    }
}

/// Makes routes, replacing ours of the same key; each one's outcome is told.
///
/// # Errors
/// The whole fails only when the socket does. A route fails with [`Error::is_exists`] when a stranger's has its
/// key, with [`Error::is_not_found`] when its link is gone.
pub fn put(socket: &mut Socket, routes: &[Route]) -> Result<Vec<Result<()>>> {
    let mut outcomes = submit(socket, routes, "put", NLM_F_CREATE | NLM_F_EXCL, make)?;
    let taken: Vec<usize> = (0..routes.len())
        .filter(|index| outcomes[*index].as_ref().is_err_and(Error::is_exists))
        .collect();
    if taken.is_empty() {
        return Ok(outcomes);
    }
    let ours: BTreeMap<RouteKey, Target> = list(socket)?
        .into_iter()
        .map(|route| (route.key(), route.target))
        .collect();
    let mut replace = Vec::new();
    for index in taken {
        match ours.get(&routes[index].key()) {
            Some(present) if *present == routes[index].target => outcomes[index] = Ok(()),
            Some(_) => replace.push(index),
            None => {}
        }
    }
    let again: Vec<Route> = replace.iter().map(|index| routes[*index]).collect();
    let replaced = submit(socket, &again, "replace", NLM_F_CREATE | NLM_F_REPLACE, make)?;
    for (index, outcome) in replace.into_iter().zip(replaced) {
        outcomes[index] = outcome;
    }
    Ok(outcomes)
}

/// Deletes routes of ours; each one's outcome is told, and that it is gone already is success.
///
/// # Errors
/// The whole fails only when the socket does.
pub fn del(socket: &mut Socket, routes: &[Route]) -> Result<Vec<Result<()>>> {
    del_of(socket, ROUTE_PROTOCOL, routes)
}

/// Deletes routes of a protocol, as [`del`] does ours.
///
/// # Errors
/// The whole fails only when the socket does.
pub fn del_of(socket: &mut Socket, protocol: u8, routes: &[Route]) -> Result<Vec<Result<()>>> {
    let mut outcomes = submit(socket, routes, "delete", 0, |route| route.deletion(protocol))?;
    for outcome in &mut outcomes {
        if outcome.as_ref().is_err_and(Error::is_not_found) {
            *outcome = Ok(());
        }
    }
    Ok(outcomes)
}

/// All routes of ours, in all tables, both families.
///
/// # Errors
/// When the kernel refuses, or the list keeps changing.
pub fn list(socket: &mut Socket) -> Result<Vec<Route>> {
    list_of(socket, ROUTE_PROTOCOL)
}

/// All routes of a protocol, in all tables, both families.
///
/// # Errors
/// When the kernel refuses, or the list keeps changing.
pub fn list_of(socket: &mut Socket, protocol: u8) -> Result<Vec<Route>> {
    let mut routes = Vec::new();
    for family in Family::BOTH {
        let mut message = RouteMessage::default();
        message.header.address_family = address_family(family);
        message.header.protocol = RouteProtocol::from(protocol);
        let found = socket.dump(request_of(message), read).doing(|| "list routes")?;
        // A kernel before 4.20 does not filter.
        routes.extend(found.into_iter().filter(|(found, _)| *found == protocol));
    }
    Ok(routes.into_iter().map(|(_, route)| route).collect())
}

/// Unicast routes of the main table that leave by this link, whoever made them.
pub(crate) fn through(socket: &mut Socket, ifindex: IfIndex) -> Result<BTreeSet<(IpNet, Option<IpAddr>)>> {
    let mut routes = BTreeSet::new();
    for family in Family::BOTH {
        let mut message = RouteMessage::default();
        message.header.address_family = address_family(family);
        message.header.table = MAIN_TABLE as u8;
        message.attributes = vec![RouteAttribute::Oif(ifindex.0)];
        let found = match socket.dump(request_of(message), read) {
            // A namespace in which nothing was routed yet has no such table.
            Err(failure) if failure.errno() == Some(Errno::ENOENT) => Vec::new(),
            outcome => outcome.doing(|| format!("list routes through link {ifindex}"))?,
        };
        routes.extend(found.into_iter().filter_map(|(_, route)| match route.target {
            Target::Link {
                ifindex: link,
                gateway,
            } if link == ifindex => Some((route.destination, gateway)),
            _ => None,
        }));
    }
    Ok(routes)
}

/// Whether the kernel takes packets to this address for its own.
pub(crate) fn is_local(socket: &mut Socket, address: IpAddr, ifindex: IfIndex) -> Result<bool> {
    let mut message = RouteMessage::default();
    message.header.address_family = address_family(Family::of(address));
    message.header.destination_prefix_length = if address.is_ipv4() { 32 } else { 128 };
    message.attributes = vec![
        RouteAttribute::Destination(route_address(address)),
        RouteAttribute::Oif(ifindex.0),
    ];
    let read_kind = |received: &Received<'_>| {
        (received.kind == NEW_ROUTE).then(|| received.payload.get(7) == Some(&u8::from(RouteType::Local)))
    };
    match socket.request(request_of(message), read_kind) {
        Ok(found) => Ok(found.contains(&true)),
        Err(failure) if matches!(failure.errno(), Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH)) => {
            Ok(false)
        }
        Err(failure) => Err(failure).doing(|| format!("look up the route to {address}")),
    }
}

fn make(route: &Route) -> RouteNetlinkMessage {
    route.message(ROUTE_PROTOCOL)
}

fn submit(
    socket: &mut Socket,
    routes: &[Route],
    verb: &str,
    flags: u16,
    message: impl Fn(&Route) -> RouteNetlinkMessage,
) -> Result<Vec<Result<()>>> {
    if let Some(bad) = routes
        .iter()
        .find(|route| route.metric == 0 && !route.destination.addr().is_ipv4())
    {
        return Err(Error::Invalid(format!(
            "route {}: ipv6 has no metric 0, use {DEFAULT_METRIC_V6}",
            bad.destination
        )));
    }
    let mut messages: Vec<_> = routes
        .iter()
        .map(|route| Message::route(&message(route), flags))
        .collect();
    let outcomes = socket
        .batch(&mut messages)
        .doing(|| format!("{verb} {} routes", routes.len()))?;
    let named = |(route, outcome): (&Route, Result<(), Failure>)| {
        outcome.doing(|| format!("{verb} route {} metric {}", route.destination, route.metric))
    };
    Ok(routes.iter().zip(outcomes).map(named).collect())
}

fn request_of(message: RouteMessage) -> Message {
    Message::route(&RouteNetlinkMessage::GetRoute(message), 0)
}

fn skeleton(key: &RouteKey, protocol: u8) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = address_family(Family::of(key.destination.addr()));
    message.header.destination_prefix_length = key.destination.prefix_len();
    message.header.table = u8::try_from(key.table).unwrap_or(0);
    message.header.protocol = RouteProtocol::from(protocol);
    message.attributes = vec![
        RouteAttribute::Destination(route_address(key.destination.addr())),
        RouteAttribute::Table(key.table),
    ];
    if key.metric != 0 {
        message.attributes.push(RouteAttribute::Priority(key.metric));
    }
    message
}

/// Reads a route message; routes that are not of this form (multipath, local …) are left out.
pub(crate) fn read(received: &Received<'_>) -> Option<(u8, Route)> {
    if received.kind != NEW_ROUTE {
        return None;
    }
    parse(received.payload)
}

/// Reads the body of a route message, new or deleted.
pub(crate) fn parse(payload: &[u8]) -> Option<(u8, Route)> {
    let message = RouteMessage::parse(payload)
        .inspect_err(|error| tracing::debug!(%error, "a route's message does not decode"))
        .ok()?;
    let mut destination = match message.header.address_family {
        AddressFamily::Inet => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let (mut table, mut metric) = (u32::from(message.header.table), 0);
    let (mut link, mut gateway) = (None, None);
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(found) => destination = ip_of(found)?,
            RouteAttribute::Gateway(found) => gateway = ip_of(found),
            RouteAttribute::Oif(index) => link = Some(IfIndex(index)),
            RouteAttribute::Priority(found) => metric = found,
            RouteAttribute::Table(found) => table = found,
            _ => {}
        }
    }
    let target = match message.header.kind {
        RouteType::Unicast => Target::Link {
            ifindex: link?,
            gateway,
        },
        RouteType::Unreachable => Target::Unreachable,
        _ => return None,
    };
    let destination = IpNet::new(destination, message.header.destination_prefix_length).ok()?;
    Some((
        message.header.protocol.into(),
        Route {
            destination,
            table,
            metric,
            target,
        },
    ))
}

fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(v4) => RouteAddress::Inet(v4),
        IpAddr::V6(v6) => RouteAddress::Inet6(v6),
    }
}

fn ip_of(address: RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(v4.into()),
        RouteAddress::Inet6(v6) => Some(v6.into()),
        _ => None,
    }
}
