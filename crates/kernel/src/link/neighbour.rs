//! Permanent neighbour entries: the host need not ask a workload for its Ethernet address.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::RouteType,
};
use nix::errno::Errno;

use crate::{
    IfIndex, Mac,
    error::{Doing, Result},
    netlink::Socket,
};

/// Says for good that `address` has `mac` on this link, replacing what the kernel knew.
///
/// # Errors
/// When the link is gone.
pub fn put_neighbour(socket: &mut Socket, ifindex: IfIndex, address: IpAddr, mac: Mac) -> Result<()> {
    let mut message = entry(ifindex, address);
    message.header.state = NeighbourState::Permanent;
    message
        .attributes
        .push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    socket
        .execute(
            &RouteNetlinkMessage::NewNeighbour(message),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
        .doing(|| format!("put neighbour {address} on link {ifindex}"))
}

/// Forgets what [`put_neighbour`] said. That nothing was known, or that the link is gone, is success.
///
/// # Errors
/// When the kernel refuses for another reason.
pub fn del_neighbour(socket: &mut Socket, ifindex: IfIndex, address: IpAddr) -> Result<()> {
    let request = RouteNetlinkMessage::DelNeighbour(entry(ifindex, address));
    match socket.execute(&request, 0) {
        Err(failure) if matches!(failure.errno(), Some(Errno::ENOENT | Errno::ENODEV)) => Ok(()),
        outcome => outcome.doing(|| format!("delete neighbour {address} on link {ifindex}")),
    }
}

/// The request for a permanent entry.
pub(super) fn permanent(ifindex: IfIndex, address: IpAddr, mac: Mac) -> RouteNetlinkMessage {
    let mut message = entry(ifindex, address);
    message.header.state = NeighbourState::Permanent;
    message
        .attributes
        .push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    RouteNetlinkMessage::NewNeighbour(message)
}

fn entry(ifindex: IfIndex, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = ifindex.0;
    message.header.kind = RouteType::Unicast;
    let (family, address) = match address {
        IpAddr::V4(v4) => (AddressFamily::Inet, NeighbourAddress::Inet(v4)),
        IpAddr::V6(v6) => (AddressFamily::Inet6, NeighbourAddress::Inet6(v6)),
    };
    message.header.family = family;
    message.attributes = vec![NeighbourAttribute::Destination(address)];
    message
}
