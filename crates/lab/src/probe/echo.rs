//! ICMP and ICMPv6 echo: the packets, and the raw socket for them.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result};
use socket2::{Domain, Socket};

use super::raw::{payload, raw_socket};

/// Protocol numbers of the echo protocols.
const ICMP: i32 = 1;
const ICMPV6: i32 = 58;

/// Types of echo request and reply: (IPv4, IPv6).
const ECHO_REQUEST: (u8, u8) = (8, 128);
const ECHO_REPLY: (u8, u8) = (0, 129);

/// Who asks by echo, in one family: replies to others are not its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Echo {
    v4: bool,
    id: u16,
}

impl Echo {
    /// One with an identifier of its own.
    pub(crate) fn new(family: Domain) -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(1);
        Self {
            v4: family == Domain::IPV4,
            id: NEXT.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// A socket for it in the namespace of the calling thread.
    pub(crate) fn socket(self) -> Result<Socket> {
        let (domain, protocol) = if self.v4 {
            (Domain::IPV4, ICMP)
        } else {
            (Domain::IPV6, ICMPV6)
        };
        raw_socket(domain, protocol).context("cannot open a socket for ping")
    }

    /// The packet of a question.
    pub(crate) fn request(self, number: u32) -> Vec<u8> {
        let kind = if self.v4 { ECHO_REQUEST.0 } else { ECHO_REQUEST.1 };
        let mut packet = vec![kind, 0, 0, 0];
        packet.extend(self.id.to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(number.to_be_bytes());
        // The kernel fills in the checksum of ICMPv6, which covers addresses; that of ICMP is ours.
        if self.v4 {
            let sum = internet_checksum(&packet);
            packet[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        packet
    }

    /// The number in a reply to this one; `None` for all the other ICMP that a raw socket hears.
    pub(crate) fn number(self, packet: &[u8], from: IpAddr) -> Option<u32> {
        let message = payload(packet, from)?;
        let kind = if self.v4 { ECHO_REPLY.0 } else { ECHO_REPLY.1 };
        (*message.first()? == kind && message.get(4..6)? == self.id.to_be_bytes()).then_some(())?;
        Some(u32::from_be_bytes(message.get(8..12)?.try_into().ok()?))
    }
}

/// The checksum of RFC 1071 over an even number of bytes.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(u16::try_from(folded & 0xffff)
        .unwrap_or(0)
        .wrapping_add(u16::try_from(folded >> 16).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_rfc() {
        // RFC 1071, section 3: the sum is ddf2, the checksum its complement.
        assert_eq!(
            internet_checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            !0xddf2
        );
    }
}
