//! Setting up the two sides of a new link.
//!
//! IPv4 settings of the host side, coming up, addresses and the alias go as one batch of netlink messages; IPv6
//! settings exist only as files. Files are written before the link comes up, so it comes up with them.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope},
    link::{AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute},
};

use super::{
    link_message, neighbour,
    pod::{GATEWAY_V4, GATEWAY_V6, HOST_MAC, PodLink, Side},
    up_message,
};
use crate::{
    IfIndex,
    error::{Doing, Result},
    netlink::wire::{self, Message},
    route::{self, MAIN_TABLE, Route, Target},
    sysctl,
};

/// Index of the loopback interface in every namespace.
const LOOPBACK: IfIndex = IfIndex(1);
/// Make it, and refuse if it is there.
const CREATE: u16 = NLM_F_CREATE | NLM_F_EXCL;
/// `IFLA_INET_CONF`: nested settings of IPv4 (`include/uapi/linux/if_link.h`).
const INET_CONF: u16 = 1;
/// IPv4 settings of the host side: `forwarding`, `proxy_arp`, `send_redirects`, `route_localnet`
/// (numbers of `include/uapi/linux/ip.h`).
const HOST_CONF_V4: [(u16, u32); 4] = [(1, 1), (3, 1), (6, 0), (26, 1)];
/// IPv6 settings of the host side, in the order of writing.
const HOST_CONF_V6: [(&str, &str); 5] = [
    ("accept_dad", "0"),
    ("disable_ipv6", "0"),
    ("proxy_ndp", "1"),
    ("forwarding", "1"),
    ("accept_ra", "0"),
];

/// A request with its flags, and what it does, for an error's text.
pub(super) struct Step {
    what: String,
    request: RouteNetlinkMessage,
    flags: u16,
}

impl Step {
    pub(super) fn new(what: impl Into<String>, request: RouteNetlinkMessage, flags: u16) -> Self {
        Self {
            what: what.into(),
            request,
            flags,
        }
    }

    /// What is there already is no failure.
    pub(super) fn replacing(self) -> Self {
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        Self { flags, ..self }
    }
}

/// Runs in the host's namespace.
pub(super) fn host_side(side: Side<'_>, link: &PodLink) -> Result<()> {
    let Side { ifindex, name, .. } = side;
    unless_absent(sysctl::ensure(&format!("net/ipv4/neigh/{name}/proxy_delay"), "0"))?;
    if link.has_v6() {
        for (key, value) in HOST_CONF_V6 {
            sysctl::ensure(&format!("net/ipv6/conf/{name}/{key}"), value)?;
        }
    } else {
        unless_absent(sysctl::ensure(&format!("net/ipv6/conf/{name}/accept_ra"), "0"))?;
    }
    let mut steps = vec![
        Step::new("settings", settings(ifindex, link), 0),
        Step::new("up", up_message(ifindex), 0),
    ];
    if link.has_v6() {
        steps.push(address(ifindex, GATEWAY_V6.into()));
    }
    // Last: a link that has its alias was up, and one that has it and is down was set down by somebody.
    let alias = vec![LinkAttribute::IfAlias(link.alias.clone())];
    let alias = RouteNetlinkMessage::SetLink(link_message(Some(ifindex), alias));
    steps.push(Step::new("alias", alias, 0));
    run(side, steps)
}

/// The settings that netlink can make.
fn settings(ifindex: IfIndex, link: &PodLink) -> RouteNetlinkMessage {
    let values = wire::encode(HOST_CONF_V4.map(|(key, value)| (key, value.to_ne_bytes())));
    let conf = AfSpecInet::Other(DefaultNla::new(INET_CONF, values));
    let mut families = vec![AfSpecUnspec::Inet(vec![conf])];
    if link.has_v6() {
        // The one link-local address is given explicitly, whatever this host makes by default.
        families.push(AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(
            In6AddrGenMode::None,
        )]));
    }
    let attributes = vec![LinkAttribute::AfSpecUnspec(families)];
    RouteNetlinkMessage::SetLink(link_message(Some(ifindex), attributes))
}

/// Runs inside the workload's namespace.
pub(super) fn pod_side(side: Side<'_>, link: &PodLink) -> Result<()> {
    let Side { ifindex, name, .. } = side;
    let forwarding = if link.forwarding { "1" } else { "0" };
    sysctl::ensure("net/ipv4/ip_forward", forwarding)?;
    if link.has_v6() {
        for place in ["all", "default", "lo", name] {
            sysctl::ensure(&format!("net/ipv6/conf/{place}/disable_ipv6"), "0")?;
        }
        sysctl::ensure(&format!("net/ipv6/conf/{name}/accept_dad"), "0")?;
        sysctl::ensure("net/ipv6/conf/all/forwarding", forwarding)?;
    }
    let mut steps = vec![
        Step::new("loopback up", up_message(LOOPBACK), 0),
        Step::new("up", up_message(ifindex), 0),
    ];
    for (gateway, wanted) in [
        (GATEWAY_V4.into(), link.has_v4()),
        (GATEWAY_V6.into(), link.has_v6()),
    ] {
        if wanted {
            steps.push(known_gateway(ifindex, gateway));
        }
    }
    steps.extend(inner_routes(ifindex, link).iter().map(|route| {
        Step::new(
            format!("route {}", route.destination),
            route.message(route::BOOT),
            CREATE,
        )
    }));
    steps.extend(link.addresses.iter().map(|ip| address(ifindex, *ip)));
    run(side, steps)
}

/// The gateway's Ethernet address never changes, so the workload need not ask for it; and the host answers by
/// proxy only while it has some route to the gateway's address.
fn known_gateway(ifindex: IfIndex, gateway: IpAddr) -> Step {
    let entry = neighbour::permanent(ifindex, gateway, HOST_MAC);
    Step::new(format!("neighbour {gateway}"), entry, 0).replacing()
}

/// The gateway on the link, then everything through it.
fn inner_routes(ifindex: IfIndex, link: &PodLink) -> Vec<Route> {
    let through = |destination, gateway| {
        let target = Target::Link { ifindex, gateway };
        Route {
            destination,
            table: MAIN_TABLE,
            metric: 0,
            target,
        }
    };
    let mut routes = Vec::with_capacity(link.routes.len() + 1);
    if link.has_v4() {
        routes.push(through(IpNet::from(IpAddr::from(GATEWAY_V4)), None));
    }
    for destination in &link.routes {
        let (wanted, gateway) = match destination {
            IpNet::V4(_) => (link.has_v4(), GATEWAY_V4.into()),
            IpNet::V6(_) => (link.has_v6(), GATEWAY_V6.into()),
        };
        if wanted {
            routes.push(through(*destination, Some(gateway)));
        }
    }
    routes
}

/// One address, by itself, at once usable. The host's link-local address has its usual `/64`.
pub(super) fn address(ifindex: IfIndex, address: IpAddr) -> Step {
    let is_link_local = address == IpAddr::V6(GATEWAY_V6);
    let mut message = AddressMessage::default();
    message.header.index = ifindex.0;
    message.header.scope = if is_link_local {
        AddressScope::Link
    } else {
        AddressScope::Universe
    };
    message.attributes = vec![
        AddressAttribute::Local(address),
        AddressAttribute::Address(address),
    ];
    match address {
        IpAddr::V4(_) => {
            message.header.family = AddressFamily::Inet;
            message.header.prefix_len = 32;
        }
        IpAddr::V6(_) => {
            message.header.family = AddressFamily::Inet6;
            message.header.prefix_len = if is_link_local { 64 } else { 128 };
            message.header.flags = AddressHeaderFlags::Nodad;
            message
                .attributes
                .push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
    }
    Step::new(
        format!("address {address}"),
        RouteNetlinkMessage::NewAddress(message),
        CREATE,
    )
}

/// Sends the steps as one batch; the first refusal is the error.
pub(super) fn run(side: Side<'_>, steps: Vec<Step>) -> Result<()> {
    let mut messages: Vec<_> = steps
        .iter()
        .map(|step| Message::route(&step.request, step.flags))
        .collect();
    let outcomes = side
        .socket
        .batch(&mut messages)
        .doing(|| format!("set up link {}", side.name))?;
    for (step, outcome) in steps.into_iter().zip(outcomes) {
        outcome.doing(|| format!("set up link {}: {}", side.name, step.what))?;
    }
    Ok(())
}

/// A kernel without IPv6 has no such settings, and needs none.
fn unless_absent(outcome: Result<String>) -> Result<()> {
    match outcome {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
