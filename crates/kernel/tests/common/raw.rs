//! Packets of protocols that have no sockets of their own.

use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

use super::{SOON, TestNs, ip};

/// A raw IPv4 socket of a namespace.
pub struct Raw(Socket);

impl Raw {
    pub fn open(ns: &TestNs, protocol: u8) -> Self {
        let open = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(i32::from(protocol))));
        let socket = ns.run(open).expect("open a raw socket");
        socket.set_read_timeout(Some(SOON)).expect("set a timeout");
        Self(socket)
    }

    pub fn send(&self, to: &str, payload: &[u8]) {
        let to = SocketAddr::new(ip(to), 0);
        self.0.send_to(payload, &to.into()).expect("send a raw packet");
    }

    /// The next packet, with its IPv4 header; `None` when none came.
    pub fn receive(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 256];
        let length = std::io::Read::read(&mut &self.0, &mut buffer).ok()?;
        buffer.truncate(length);
        Some(buffer)
    }
}

/// What a protocol carries first. Connection tracking takes nothing but INIT for the beginning of SCTP (RFC 9260, 3.3.2).
pub fn first_of(protocol: u8) -> Vec<u8> {
    match protocol {
        132 => sctp_init(),
        47 => vec![0, 0, 8, 0, 1, 2, 3, 4],
        _ => b"ahoy".to_vec(),
    }
}

fn sctp_init() -> Vec<u8> {
    let ports_and_tag = [0x10, 0, 0x20, 0, 0, 0, 0, 0];
    let init = [1, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0xff, 0xff, 0, 1, 0, 1, 0, 0, 0, 1];
    let checksum = crc32c(&[&ports_and_tag[..], &[0; 4], &init].concat()).to_le_bytes();
    [&ports_and_tag[..], &checksum, &init].concat()
}

fn crc32c(octets: &[u8]) -> u32 {
    let step = |crc: u32, _| {
        if crc & 1 == 1 {
            crc >> 1 ^ 0x82f6_3b78
        } else {
            crc >> 1
        }
    };
    !octets
        .iter()
        .fold(!0, |crc, octet| (0..8).fold(crc ^ u32::from(*octet), step))
}
