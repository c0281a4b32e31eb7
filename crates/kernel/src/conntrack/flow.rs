//! A tracked flow, read from the kernel and given back to it.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use crate::{
    Family,
    netlink::wire::{Attributes, Message, Received},
    sockdiag::{Connection, TCP},
    types,
};

/// Message types and attributes (`include/uapi/linux/netfilter/nfnetlink_conntrack.h`).
pub(super) mod api {
    pub(in super::super) const NEW: u16 = 0;
    pub(in super::super) const GET: u16 = 1;
    pub(in super::super) const DELETE: u16 = 2;

    pub(in super::super) const TUPLE_ORIGINAL: u16 = 1;
    pub(in super::super) const TUPLE_REPLY: u16 = 2;
    pub(in super::super) const ID: u16 = 12;
    pub(in super::super) const ZONE: u16 = 18;
    pub(in super::super) const FILTER: u16 = 25;

    pub(in super::super) const TUPLE_IP: u16 = 1;
    pub(in super::super) const TUPLE_PROTOCOL: u16 = 2;
    pub(in super::super) const IP_V4_SOURCE: u16 = 1;
    pub(in super::super) const IP_V4_DESTINATION: u16 = 2;
    pub(in super::super) const IP_V6_SOURCE: u16 = 3;
    pub(in super::super) const IP_V6_DESTINATION: u16 = 4;
    pub(in super::super) const PROTOCOL_NUMBER: u16 = 1;
    pub(in super::super) const SOURCE_PORT: u16 = 2;
    pub(in super::super) const DESTINATION_PORT: u16 = 3;

    pub(in super::super) const FILTER_ORIGINAL: u16 = 1;
    pub(in super::super) const FILTER_REPLY: u16 = 2;
    /// Compare the source address and nothing else.
    pub(in super::super) const FILTER_BY_SOURCE: u32 = 1;
    /// Compare the destination address and nothing else.
    pub(in super::super) const FILTER_BY_DESTINATION: u32 = 1 << 1;
}

/// `NFNL_SUBSYS_CTNETLINK`, in the upper octet of a message's type.
const SUBSYSTEM: u16 = 1;
/// Length of `struct nfgenmsg`.
const HEADER: usize = 4;

/// Addresses and ports of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// Who sends.
    pub source: IpAddr,
    /// Who receives.
    pub destination: IpAddr,
    /// The sender's port; 0 where the protocol has none.
    pub source_port: u16,
    /// The receiver's port; 0 where the protocol has none.
    pub destination_port: u16,
}

/// A tracked flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// IP protocol number.
    pub protocol: u8,
    /// The direction of its first packet, as its sender sent it.
    pub original: Tuple,
    /// The other direction, as the answering side sends it: its source is where the flow leads.
    pub reply: Tuple,
    handle: Handle,
}

/// What the kernel knows the flow by.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Handle {
    tuple: Vec<u8>,
    zone: Option<Vec<u8>>,
    id: Option<Vec<u8>>,
}

impl Flow {
    /// Whether it is of TCP, so that sockets belong to it.
    pub fn is_tcp(&self) -> bool {
        self.protocol == TCP
    }

    /// The request that ends it.
    pub(super) fn deletion(&self) -> Message {
        let mut request = message(api::DELETE, Family::of(self.original.source));
        let tuple = request.open(api::TUPLE_ORIGINAL);
        request = request.raw(&self.handle.tuple);
        request.close(tuple);
        for (kind, value) in [(api::ZONE, &self.handle.zone), (api::ID, &self.handle.id)] {
            if let Some(value) = value {
                request.push(kind, value);
            }
        }
        request
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tuple {
            source,
            destination,
            source_port,
            destination_port,
        } = self.original;
        write!(f, "protocol {} from {source} port {source_port} ", self.protocol)?;
        write!(
            f,
            "to {destination} port {destination_port}, leading to {}",
            self.reply.source
        )
    }
}

/// Begins a message about flows of this family. Version 1 makes the kernel heed the family in every request.
pub(super) fn message(kind: u16, family: Family) -> Message {
    Message::new(SUBSYSTEM << 8 | kind, 0).raw(&[family.number(), 1, 0, 0])
}

/// The request for the flow of a connection, by the direction in which its socket sends.
pub(super) fn lookup(connection: &Connection) -> Message {
    let Connection { local, peer } = connection;
    let (source, destination) = match local {
        SocketAddr::V4(_) => (api::IP_V4_SOURCE, api::IP_V4_DESTINATION),
        SocketAddr::V6(_) => (api::IP_V6_SOURCE, api::IP_V6_DESTINATION),
    };
    message(api::GET, Family::of(local.ip())).nest(api::TUPLE_REPLY, |tuple| {
        tuple
            .nest(api::TUPLE_IP, |ip| {
                ip.attribute(source, &types::octets(local.ip()))
                    .attribute(destination, &types::octets(peer.ip()))
            })
            .nest(api::TUPLE_PROTOCOL, |protocol| {
                protocol
                    .attribute(api::PROTOCOL_NUMBER, &[TCP])
                    .attribute(api::SOURCE_PORT, &local.port().to_be_bytes())
                    .attribute(api::DESTINATION_PORT, &peer.port().to_be_bytes())
            })
    })
}

/// Reads a flow.
pub(super) fn read(received: &Received<'_>) -> Option<Flow> {
    if received.kind != SUBSYSTEM << 8 | api::NEW {
        return None;
    }
    let attributes = received.attributes(HEADER);
    let (protocol, original) = tuple(attributes.inside(api::TUPLE_ORIGINAL))?;
    let (_, reply) = tuple(attributes.inside(api::TUPLE_REPLY))?;
    let value = |kind| attributes.get(kind).map(<[u8]>::to_vec);
    let handle = Handle {
        tuple: value(api::TUPLE_ORIGINAL)?,
        zone: value(api::ZONE),
        id: value(api::ID),
    };
    Some(Flow {
        protocol,
        original,
        reply,
        handle,
    })
}

fn tuple(attributes: Attributes<'_>) -> Option<(u8, Tuple)> {
    let ip = attributes.inside(api::TUPLE_IP);
    let address = |v4, v6| types::address(ip.get(v4).or_else(|| ip.get(v6))?);
    let protocol = attributes.inside(api::TUPLE_PROTOCOL);
    let port = |kind| {
        protocol
            .get(kind)
            .and_then(|value| value.try_into().ok())
            .map_or(0, u16::from_be_bytes)
    };
    let tuple = Tuple {
        source: address(api::IP_V4_SOURCE, api::IP_V6_SOURCE)?,
        destination: address(api::IP_V4_DESTINATION, api::IP_V6_DESTINATION)?,
        source_port: port(api::SOURCE_PORT),
        destination_port: port(api::DESTINATION_PORT),
    };
    Some((*protocol.get(api::PROTOCOL_NUMBER)?.first()?, tuple))
}
