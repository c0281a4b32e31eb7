//! Addresses as they are written in CNI documents: IP addresses with or without a prefix length, and MAC addresses.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A 48-bit hardware address that a workload interface may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

/// Text that is not an address of the wanted kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddrError {
    /// Not six hexadecimal octets.
    #[error("not a MAC address: {0:?}")]
    Mac(String),
    /// The address is a group's or all zeroes, which no interface can have.
    #[error("not the MAC address of one interface: {0}")]
    NotUnicast(MacAddr),
    /// Not an IPv4 or IPv6 address.
    #[error("not an IP address: {0:?}")]
    Ip(String),
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddr {
    type Err = AddrError;

    /// Parses six octets separated by `:` or `-`, of either case.
    fn from_str(text: &str) -> Result<Self, AddrError> {
        let malformed = || AddrError::Mac(text.to_owned());
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut octets = [0; 6];
        let mut parts = text.split(separator);
        for octet in &mut octets {
            let part = parts
                .next()
                .filter(|part| part.len() == 2)
                .ok_or_else(malformed)?;
            if !part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(malformed());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| malformed())?;
        }
        if parts.next().is_some() {
            return Err(malformed());
        }
        let mac = Self(octets);
        if octets[0] & 1 == 1 || octets == [0; 6] {
            Err(AddrError::NotUnicast(mac))
        } else {
            Ok(mac)
        }
    }
}

impl Serialize for MacAddr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Parses an IP address, with or without a prefix length, and returns the address alone.
///
/// The `ips` capability allows a prefix length; a workload's address is always a host's, so it says nothing here. An
/// IPv4-mapped IPv6 address is the IPv4 address.
pub fn parse_ip(text: &str) -> Result<IpAddr, AddrError> {
    let text = text.trim();
    text.parse::<IpAddr>()
        .or_else(|_| text.parse::<IpNet>().map(|net| net.addr()))
        .map(|ip| ip.to_canonical())
        .map_err(|_| AddrError::Ip(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses() {
        let mac: MacAddr = "0A:1b:2C:3d:4e:5f".parse().unwrap();
        assert_eq!(mac.to_string(), "0a:1b:2c:3d:4e:5f");
        assert_eq!("0a-1b-2c-3d-4e-5f".parse(), Ok(mac));
        for bad in [
            "",
            "zz:0c",
            "0a:1b:2c:3d:4e",
            "0a:1b:2c:3d:4e:5f:60",
            "0a:1b:2c:3d:4e:+f",
            "0a1b.2c3d.4e5f",
        ] {
            assert_eq!(bad.parse::<MacAddr>(), Err(AddrError::Mac(bad.to_owned())));
        }
        for group in ["01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"] {
            assert!(
                matches!(group.parse::<MacAddr>(), Err(AddrError::NotUnicast(_))),
                "{group}"
            );
        }
    }

    #[test]
    fn ip_addresses() {
        assert_eq!(parse_ip("192.0.2.7/24"), Ok(IpAddr::from([192, 0, 2, 7])));
        assert_eq!(parse_ip(" 2001:db8::5 "), Ok("2001:db8::5".parse().unwrap()));
        assert_eq!(parse_ip("::ffff:192.0.2.7"), Ok(IpAddr::from([192, 0, 2, 7])));
        for bad in ["", "192.0.2.700", "192.0.2.1/33", "web", "192.0.2.1/"] {
            assert!(parse_ip(bad).is_err(), "{bad}");
        }
    }
}
