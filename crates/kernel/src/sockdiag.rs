//! Listing and destroying TCP sockets of a workload, so that their peers get a reset.
//!
//! Deleting the tracked flow alone would leave a peer that only reads waiting for ever. The reset that the kernel sends
//! for a destroyed socket must pass the translation, so sockets are destroyed before their flows are ended.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use nix::errno::Errno;

use crate::{
    Family,
    error::{Doing, Result},
    netlink::{
        Failure, Socket,
        wire::{Message, Received},
    },
    types::{address, octets},
};

/// `IPPROTO_TCP`.
pub(crate) const TCP: u8 = 6;
/// `SOCK_DIAG_BY_FAMILY` and `SOCK_DESTROY` (`include/uapi/linux/sock_diag.h`).
const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
/// `TCP_LISTEN`.
const LISTEN: u8 = 10;
/// A bit for each state.
const ANY_STATE: u32 = u32::MAX;
/// All states but `TCP_TIME_WAIT`, `TCP_CLOSE` and `TCP_LISTEN`.
const CONNECTED: u32 = !(1 << 6 | 1 << 7 | 1 << LISTEN);
/// No particular socket is meant by its cookie.
const NO_COOKIE: [u8; 8] = [0xff; 8];

/// A TCP connection, as the side that has its socket sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection {
    /// This side.
    pub local: SocketAddr,
    /// The other side.
    pub peer: SocketAddr,
}

/// The TCP connections of one local address in the namespace of this socket, also those of IPv6 sockets that carry
/// IPv4. Costs in proportion to the sockets of the namespace.
///
/// # Errors
/// When the kernel refuses, or the list keeps changing.
pub fn connections_of(socket: &mut Socket, local: IpAddr) -> Result<Vec<Connection>> {
    let families = if local.is_ipv4() {
        &Family::BOTH[..]
    } else {
        &[Family::V6][..]
    };
    let nobody = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
    let all = Connection {
        local: nobody,
        peer: nobody,
    };
    let mut connections = Vec::new();
    for family in families {
        let list = request(BY_FAMILY, *family, CONNECTED, &all, NO_COOKIE);
        let of_local = |received: &Received<'_>| {
            read(received)
                .map(|found| found.connection)
                .filter(|connection| connection.local.ip() == local)
        };
        connections.extend(socket.dump(list, of_local).doing(|| "list tcp sockets")?);
    }
    Ok(connections)
}

/// Destroys the sockets of these connections in the namespace of this socket; their peers get a reset. Returns how many
/// there were.
///
/// # Errors
/// When the kernel refuses one for another reason than absence; the others are destroyed all the same.
pub fn reset_tcp(socket: &mut Socket, connections: &[Connection]) -> Result<usize> {
    let mut destroyed = 0;
    let mut refused = Ok(());
    for connection in connections {
        match destroy(socket, connection) {
            Ok(was_there) => destroyed += usize::from(was_there),
            Err(failure) => refused = Err(failure).doing(|| describe(connection)),
        }
    }
    refused.map(|()| destroyed)
}

/// Looks the socket up first: when the connection has just ended, the kernel takes its addresses for those of the
/// listening socket, which must stay. The cookie makes sure that the one destroyed is the one that was seen.
fn destroy(socket: &mut Socket, connection: &Connection) -> Result<bool, Failure> {
    let family = Family::of(connection.local.ip());
    let found = match socket.request(request(BY_FAMILY, family, ANY_STATE, connection, NO_COOKIE), read) {
        Err(failure) if is_gone(&failure) => return Ok(false),
        outcome => outcome?.into_iter().next(),
    };
    let Some(found) = found.filter(|found| found.state != LISTEN) else {
        return Ok(false);
    };
    let request = request(DESTROY, family, ANY_STATE, connection, found.cookie);
    match socket.request(request, |_| None::<()>) {
        Err(failure) if is_gone(&failure) => Ok(false),
        outcome => outcome.map(|_| true),
    }
}

fn is_gone(failure: &Failure) -> bool {
    matches!(failure.errno(), Some(Errno::ENOENT | Errno::ESTALE))
}

fn describe(connection: &Connection) -> String {
    format!(
        "destroy the socket of {} with {}",
        connection.local, connection.peer
    )
}

/// What the kernel says of a socket.
struct Found {
    state: u8,
    connection: Connection,
    cookie: [u8; 8],
}

/// Reads `struct inet_diag_msg`: family, state, timer, retransmissions, then the socket's identity: two ports, two
/// addresses of 16 octets, the interface, the cookie.
fn read(received: &Received<'_>) -> Option<Found> {
    if received.kind != BY_FAMILY {
        return None;
    }
    let body = received.payload;
    let octets = if *body.first()? == Family::V4.number() {
        4
    } else {
        16
    };
    let end = |port_at: usize, address_at: usize| {
        let port = u16::from_be_bytes(body.get(port_at..port_at + 2)?.try_into().ok()?);
        let ip = address(body.get(address_at..address_at + octets)?)?;
        Some(SocketAddr::new(ip.to_canonical(), port))
    };
    let connection = Connection {
        local: end(4, 8)?,
        peer: end(6, 24)?,
    };
    Some(Found {
        state: *body.get(1)?,
        connection,
        cookie: body.get(44..52)?.try_into().ok()?,
    })
}

/// Writes `struct inet_diag_req_v2`.
fn request(kind: u16, family: Family, states: u32, connection: &Connection, cookie: [u8; 8]) -> Message {
    let ends = [connection.local, connection.peer];
    let mut body = vec![family.number(), TCP, 0, 0];
    body.extend_from_slice(&states.to_ne_bytes());
    body.extend(ends.iter().flat_map(|end| end.port().to_be_bytes()));
    for end in ends {
        let mut address = octets(end.ip());
        address.resize(16, 0);
        body.extend_from_slice(&address);
    }
    body.extend_from_slice(&[0; 4]); // Any interface.
    body.extend_from_slice(&cookie);
    Message::new(kind, 0).raw(&body)
}
