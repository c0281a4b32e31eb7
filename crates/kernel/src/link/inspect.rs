//! Reading links back: the host's list, and the inside of a workload's namespace.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use netlink_packet_core::Parseable;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{InfoKind, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage, State},
};
use nix::errno::Errno;

use super::{GATEWAY_V6, link_message};
use crate::{
    IfIndex, Mac,
    error::{Doing, Result},
    netlink::{
        Protocol, Socket,
        wire::{Message, Received},
    },
    netns::{Netns, in_netns},
    route,
};

/// `RTM_NEWLINK`.
pub(crate) const NEW_LINK: u16 = 16;
/// `RTM_NEWADDR`.
const NEW_ADDRESS: u16 = 20;

/// A link as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub ifindex: IfIndex,
    /// Its name.
    pub name: String,
    /// Its alias, if it has one.
    pub alias: Option<String>,
    /// Its Ethernet address, if it is an Ethernet link.
    pub mac: Option<Mac>,
    /// Octets per packet.
    pub mtu: u32,
    /// Whether somebody brought it up; not whether it has a carrier.
    pub up: bool,
    /// Kind, such as `veth` or `bridge`; physical links have none.
    pub kind: Option<String>,
    /// Index of the other side of a veth, in the namespace that `peer_netns` names.
    pub peer: Option<IfIndex>,
    /// This namespace's number for the namespace of the other side; none if it is this one.
    pub peer_netns: Option<i32>,
    /// Operational state, of which `Up` means that packets pass.
    pub(crate) state: State,
}

/// What is inside a workload's namespace, at one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodLinkState {
    /// The interface.
    pub link: Link,
    /// Its addresses with their prefix lengths, the link-local one among them.
    pub addresses: BTreeSet<IpNet>,
    /// Main table: destinations that leave by it, with their gateways.
    pub routes: BTreeSet<(IpNet, Option<IpAddr>)>,
}

/// All links of the socket's namespace, in the kernel's order.
///
/// # Errors
/// When the kernel refuses, or the list keeps changing.
pub fn list_links(socket: &mut Socket) -> Result<Vec<Link>> {
    socket
        .dump(Message::route(&query(None, None), 0), read_link)
        .doing(|| "list links")
}

/// The link of this name, if there is one.
///
/// # Errors
/// When the kernel refuses for another reason than absence.
pub fn find_link(socket: &mut Socket, name: &str) -> Result<Option<Link>> {
    get(socket, &query(None, Some(name)), || format!("find link {name}"))
}

/// The link of this index, if there is one.
pub(super) fn link_by_index(socket: &mut Socket, ifindex: IfIndex) -> Result<Option<Link>> {
    get(socket, &query(Some(ifindex), None), || {
        format!("find link of index {ifindex}")
    })
}

/// Reads an interface inside a namespace: `None` when there is none of this name.
///
/// # Errors
/// When the namespace cannot be entered or the kernel refuses.
pub fn read_pod_link(netns: &Netns, ifname: &str) -> Result<Option<PodLinkState>> {
    in_netns(netns, || {
        let mut socket = Socket::open(Protocol::Route)?;
        let Some(link) = find_link(&mut socket, ifname)? else {
            return Ok(None);
        };
        let addresses = addresses_of(&mut socket, link.ifindex)?;
        let routes = route::through(&mut socket, link.ifindex)?;
        Ok(Some(PodLinkState {
            link,
            addresses,
            routes,
        }))
    })
}

/// The links of the socket's namespace that have the address of workloads' IPv6 gateway.
///
/// # Errors
/// When the kernel refuses, or the list keeps changing.
pub fn gateways_v6(socket: &mut Socket) -> Result<BTreeSet<IfIndex>> {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet6;
    let mut found = addresses(socket, message)?;
    found.retain(|(_, address)| address.addr() == IpAddr::from(GATEWAY_V6));
    Ok(found.into_iter().map(|(index, _)| index).collect())
}

fn addresses_of(socket: &mut Socket, ifindex: IfIndex) -> Result<BTreeSet<IpNet>> {
    let mut message = AddressMessage::default();
    message.header.index = ifindex.0;
    let mut found = addresses(socket, message)?;
    found.retain(|(index, _)| *index == ifindex);
    Ok(found.into_iter().map(|(_, address)| address).collect())
}

fn addresses(socket: &mut Socket, of: AddressMessage) -> Result<Vec<(IfIndex, IpNet)>> {
    let request = Message::route(&RouteNetlinkMessage::GetAddress(of), 0);
    socket.dump(request, read_address).doing(|| "list addresses")
}

/// The request for one link or for all; the counters, half of the answer, are left out.
fn query(ifindex: Option<IfIndex>, name: Option<&str>) -> RouteNetlinkMessage {
    let mut attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
    attributes.extend(name.map(|name| LinkAttribute::IfName(name.to_owned())));
    RouteNetlinkMessage::GetLink(link_message(ifindex, attributes))
}

fn get(
    socket: &mut Socket,
    query: &RouteNetlinkMessage,
    doing: impl FnOnce() -> String,
) -> Result<Option<Link>> {
    match socket.request(Message::route(query, 0), read_link) {
        Ok(found) => Ok(found.into_iter().next()),
        // A name that is too long is refused as out of range: no link can have it.
        Err(failure) if matches!(failure.errno(), Some(Errno::ENODEV | Errno::ERANGE)) => Ok(None),
        Err(failure) => Err(failure).doing(doing),
    }
}

/// Reads a link message; one that does not decode is not a link of ours.
pub(crate) fn read_link(received: &Received<'_>) -> Option<Link> {
    if received.kind != NEW_LINK {
        return None;
    }
    let message = LinkMessage::parse(received.payload)
        .inspect_err(|error| tracing::debug!(%error, "a link's message does not decode"))
        .ok()?;
    link_of(message)
}

/// Reads the parts that matter; a message without a name is not a link.
pub(crate) fn link_of(message: LinkMessage) -> Option<Link> {
    let mut link = Link {
        ifindex: IfIndex(message.header.index),
        name: String::new(),
        alias: None,
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        kind: None,
        peer: None,
        peer_netns: None,
        state: State::Unknown,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::Address(octets) => link.mac = octets.try_into().ok().map(Mac),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::OperState(state) => link.state = state,
            LinkAttribute::Link(peer) => link.peer = Some(IfIndex(peer)),
            LinkAttribute::LinkNetNsId(id) => link.peer_netns = Some(id),
            LinkAttribute::LinkInfo(info) => link.kind = info.iter().find_map(kind_of),
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

fn kind_of(info: &LinkInfo) -> Option<String> {
    match info {
        LinkInfo::Kind(InfoKind::Other(kind)) => Some(kind.clone()),
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    }
}

fn read_address(received: &Received<'_>) -> Option<(IfIndex, IpNet)> {
    if received.kind != NEW_ADDRESS {
        return None;
    }
    let message = AddressMessage::parse(received.payload).ok()?;
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(local) => address = Some(*local),
            AddressAttribute::Address(other) => address = address.or(Some(*other)),
            _ => {}
        }
    }
    let address = IpNet::new(address?, message.header.prefix_len).ok()?;
    Some((IfIndex(message.header.index), address))
}
