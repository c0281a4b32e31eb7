//! Addresses and families.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, in the order in which they are listed everywhere.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// The family of a prefix.
    pub fn of_net(prefix: &IpNet) -> Self {
        Self::of(prefix.addr())
    }

    /// Length of an address in bits: 32 or 128.
    pub fn bits(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

/// The /32 or /128 of one address.
pub fn host_prefix(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

/// Why a text or address is not a usable unicast address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not an IP address at all.
    #[error("not an IP address: {0}")]
    Syntax(String),
    /// `::ffff:a.b.c.d`: two spellings of one address would be two owners.
    #[error("IPv4-mapped IPv6 address: {0}\nwrite it as IPv4")]
    Mapped(IpAddr),
    /// Unspecified, loopback, multicast, link-local or broadcast.
    #[error("not a unicast address that can be routed: {0}\nchoose one inside an IPPool")]
    NotRoutable(IpAddr),
}

/// A floating IP: a routable unicast address, never IPv4-mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "IpAddr", into = "IpAddr")]
pub struct FloatingIp(IpAddr);

impl FloatingIp {
    /// The address.
    pub fn addr(self) -> IpAddr {
        self.0
    }

    /// Its family.
    pub fn family(self) -> Family {
        Family::of(self.0)
    }
}

impl TryFrom<IpAddr> for FloatingIp {
    type Error = AddressError;

    fn try_from(address: IpAddr) -> Result<Self, AddressError> {
        let routable = match address {
            IpAddr::V4(v4) => {
                !(v4.is_unspecified()
                    || v4.is_loopback()
                    || v4.is_multicast()
                    || v4.is_broadcast()
                    || v4.is_link_local())
            }
            IpAddr::V6(v6) => {
                if v6.to_ipv4_mapped().is_some() {
                    return Err(AddressError::Mapped(address));
                }
                let link_local = v6.segments()[0] & 0xffc0 == 0xfe80;
                !(v6.is_unspecified() || v6.is_loopback() || v6.is_multicast() || link_local)
            }
        };
        if routable {
            Ok(Self(address))
        } else {
            Err(AddressError::NotRoutable(address))
        }
    }
}

impl FromStr for FloatingIp {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let address: IpAddr = text.parse().map_err(|_| AddressError::Syntax(text.to_owned()))?;
        Self::try_from(address)
    }
}

impl From<FloatingIp> for IpAddr {
    fn from(floating: FloatingIp) -> IpAddr {
        floating.0
    }
}

impl fmt::Display for FloatingIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_spelling() {
        assert_eq!(
            "::ffff:10.0.0.1".parse::<FloatingIp>(),
            Err(AddressError::Mapped("::ffff:10.0.0.1".parse().unwrap()))
        );
        let long: FloatingIp = "2001:DB8:0:0::1".parse().unwrap();
        assert_eq!(long.to_string(), "2001:db8::1");
    }

    #[test]
    fn what_cannot_be_routed_cannot_float() {
        for text in [
            "0.0.0.0",
            "127.0.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "169.254.1.1",
            "::",
            "::1",
            "ff02::1",
            "fe80::1",
        ] {
            assert!(
                matches!(text.parse::<FloatingIp>(), Err(AddressError::NotRoutable(_))),
                "{text}"
            );
        }
        assert!(matches!(
            "10.0.0.1/32".parse::<FloatingIp>(),
            Err(AddressError::Syntax(_))
        ));
    }
}
