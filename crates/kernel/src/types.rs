//! Small value types shared by the modules.

use std::{fmt, net::IpAddr, str::FromStr};

/// Index of a network interface; unique within one network namespace, never 0 for a real link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfIndex(pub u32);

impl fmt::Display for IfIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Ethernet address, printed as `aa:bb:cc:dd:ee:ff`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The text is not six hexadecimal octets separated by colons.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an ethernet address: {0}")]
pub struct ParseMacError(String);

impl FromStr for Mac {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || ParseMacError(text.to_owned());
        let mut octets = [0u8; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(refused)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| refused())?;
        }
        if parts.next().is_some() {
            Err(refused())
        } else {
            Ok(Self(octets))
        }
    }
}

/// IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families, IPv4 first.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// Family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// `AF_INET` or `AF_INET6`, which is `NFPROTO_IPV4` or `NFPROTO_IPV6` too.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }
}

/// Octets of an address in network order: 4 or 16.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Reads an address of 4 or 16 octets.
pub(crate) fn address(octets: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(octets) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(octets).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_prints_and_parses_back() {
        let mac = Mac([0xee, 0xee, 0, 1, 0x0a, 0xff]);
        assert_eq!(mac.to_string(), "ee:ee:00:01:0a:ff");
        assert_eq!(mac.to_string().parse(), Ok(mac));
    }

    #[test]
    fn mac_refuses_what_is_not_six_octets() {
        for text in [
            "",
            "ee:ee",
            "ee:ee:ee:ee:ee:ee:ee",
            "ee:ee:ee:ee:ee:zz",
            "+e:ee:ee:ee:ee:e",
            "eeeeeeeeeeee",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text} must not parse");
        }
    }

    #[test]
    fn addresses_are_four_or_sixteen_octets() {
        for text in ["10.65.0.10", "2001:db8::1"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(address(&octets(ip)), Some(ip));
        }
        assert_eq!(address(&[1, 2, 3]), None);
    }
}
