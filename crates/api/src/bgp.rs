//! What BGP records say in text: the address of a peer, and times that the protocol carries in seconds.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use jiff::SignedDuration;

/// AS number of nodes in a cluster that names none (RFC 6996: the first private one).
pub const DEFAULT_AS_NUMBER: u32 = 64512;
/// The port that BGP speakers listen on.
pub const BGP_PORT: u16 = 179;

/// Seconds between keepalives; three of them are a hold time.
pub const KEEPALIVE_SECONDS: RangeInclusive<u16> = 1..=21_845;
/// Seconds of a hold time (RFC 4271, section 4.2). Zero would mean that nobody ever notices a dead peer.
pub const HOLD_SECONDS: RangeInclusive<u16> = 3..=65_535;
/// Seconds of a restart time: twelve bits (RFC 4724, section 3).
pub const RESTART_SECONDS: RangeInclusive<u16> = 0..=4_095;

/// Where a BGP peer listens: `192.0.2.1`, `192.0.2.1:1790`, `2001:db8::1`, `[2001:db8::1]:1790`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerAddress {
    /// Its address: unicast, not loopback, never IPv4-mapped.
    pub address: IpAddr,
    /// Its port, never 0.
    pub port: u16,
}

/// Why a text is not the address of a peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerAddressError {
    /// Neither an address nor an address with a port.
    #[error(
        "not the address of a peer: {0:?}\nwrite it as 192.0.2.1, 192.0.2.1:1790, 2001:db8::1 or [2001:db8::1]:1790"
    )]
    Syntax(String),
    /// `::ffff:a.b.c.d`.
    #[error("IPv4-mapped IPv6 address: {0}\nwrite it as IPv4")]
    Mapped(IpAddr),
    /// Unspecified, loopback, multicast or broadcast.
    #[error("not an address that a peer can have: {0}\nname the address that the peer sends from")]
    NotUnicast(IpAddr),
    /// A link-local address means something only together with a link.
    #[error("link-local address: {0}\nname an address that is the same on every link")]
    LinkLocal(IpAddr),
}

impl FromStr for PeerAddress {
    type Err = PeerAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, port) = match text.parse::<IpAddr>() {
            Ok(address) => (address, BGP_PORT),
            Err(_) => match text.parse::<SocketAddr>() {
                Ok(socket) if socket.port() != 0 => (socket.ip(), socket.port()),
                _ => return Err(PeerAddressError::Syntax(text.to_owned())),
            },
        };
        usable(address).map(|()| Self { address, port })
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.port == BGP_PORT {
            self.address.fmt(f)
        } else {
            SocketAddr::new(self.address, self.port).fmt(f)
        }
    }
}

fn usable(address: IpAddr) -> Result<(), PeerAddressError> {
    let link_local = match address {
        IpAddr::V4(address) => {
            if address.is_broadcast() {
                return Err(PeerAddressError::NotUnicast(address.into()));
            }
            address.is_link_local()
        }
        IpAddr::V6(v6) => {
            if v6.to_ipv4_mapped().is_some() {
                return Err(PeerAddressError::Mapped(address));
            }
            v6.is_unicast_link_local()
        }
    };
    if link_local {
        Err(PeerAddressError::LinkLocal(address))
    } else if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
        Err(PeerAddressError::NotUnicast(address))
    } else {
        Ok(())
    }
}

/// Why a text is not a time that BGP can carry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecondsError {
    /// Not a length of time.
    #[error("not a length of time: {0:?}\nwrite it as 30s or 2m")]
    Syntax(String),
    /// A part of a second, which the protocol has no room for.
    #[error("not whole seconds: {0}\nwrite it as 30s or 2m")]
    Fraction(String),
    /// Outside what the protocol or the purpose allows.
    #[error("out of range: {text}\nuse {least}s to {most}s")]
    Range {
        /// What was asked for.
        text: String,
        /// Shortest.
        least: u16,
        /// Longest.
        most: u16,
    },
}

/// A length of time in whole seconds, within `allowed`.
pub fn seconds(text: &str, allowed: &RangeInclusive<u16>) -> Result<u16, SecondsError> {
    let duration: SignedDuration = text
        .trim()
        .parse()
        .map_err(|_| SecondsError::Syntax(text.to_owned()))?;
    if duration.subsec_nanos() != 0 {
        return Err(SecondsError::Fraction(text.to_owned()));
    }
    u16::try_from(duration.as_secs())
        .ok()
        .filter(|seconds| allowed.contains(seconds))
        .ok_or_else(|| SecondsError::Range {
            text: text.to_owned(),
            least: *allowed.start(),
            most: *allowed.end(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_an_address_and_perhaps_a_port() {
        for (text, address, port) in [
            ("192.0.2.1", "192.0.2.1", 179),
            ("192.0.2.1:1790", "192.0.2.1", 1790),
            ("2001:db8::1", "2001:db8::1", 179),
            ("[2001:db8::1]:1790", "2001:db8::1", 1790),
        ] {
            let peer: PeerAddress = text.parse().unwrap();
            assert_eq!((peer.address, peer.port), (address.parse().unwrap(), port));
            assert_eq!(peer.to_string(), text);
        }
        let usual: PeerAddress = "[2001:db8::1]:179".parse().unwrap();
        assert_eq!(usual.to_string(), "2001:db8::1");
    }

    #[test]
    fn what_is_no_address_of_a_peer_says_why() {
        for (text, begins) in [
            ("", "not the address of a peer: \"\"\nwrite it as 192.0.2.1, "),
            ("router.example", "not the address of a peer"),
            ("192.0.2.1/32", "not the address of a peer"),
            ("192.0.2.1:0", "not the address of a peer"),
            ("192.0.2.1:70000", "not the address of a peer"),
            ("[2001:db8::1]", "not the address of a peer"),
            ("fe80::1%eth0", "not the address of a peer"),
            ("::ffff:192.0.2.1", "IPv4-mapped"),
            ("fe80::1", "link-local address: fe80::1"),
            ("169.254.1.1", "link-local address"),
            ("0.0.0.0", "not an address that a peer can have"),
            ("127.0.0.1:1790", "not an address that a peer can have"),
            ("255.255.255.255", "not an address that a peer can have"),
            ("ff02::1", "not an address that a peer can have"),
        ] {
            let message = text.parse::<PeerAddress>().unwrap_err().to_string();
            assert!(message.starts_with(begins), "{text}: {message}");
        }
    }

    #[test]
    fn times_are_whole_seconds_that_fit() {
        assert_eq!(seconds("9s", &HOLD_SECONDS), Ok(9));
        assert_eq!(seconds("1m30s", &KEEPALIVE_SECONDS), Ok(90));
        assert_eq!(seconds("65535s", &HOLD_SECONDS), Ok(65_535));
        assert_eq!(seconds("0s", &RESTART_SECONDS), Ok(0));
        for (text, allowed, message) in [
            (
                "9",
                HOLD_SECONDS,
                "not a length of time: \"9\"\nwrite it as 30s or 2m",
            ),
            (
                "",
                HOLD_SECONDS,
                "not a length of time: \"\"\nwrite it as 30s or 2m",
            ),
            (
                "1500ms",
                KEEPALIVE_SECONDS,
                "not whole seconds: 1500ms\nwrite it as 30s or 2m",
            ),
            ("0s", HOLD_SECONDS, "out of range: 0s\nuse 3s to 65535s"),
            ("-9s", HOLD_SECONDS, "out of range: -9s\nuse 3s to 65535s"),
            ("2h", RESTART_SECONDS, "out of range: 2h\nuse 0s to 4095s"),
            ("65536s", HOLD_SECONDS, "out of range: 65536s\nuse 3s to 65535s"),
        ] {
            assert_eq!(seconds(text, &allowed).unwrap_err().to_string(), message);
        }
    }
}
