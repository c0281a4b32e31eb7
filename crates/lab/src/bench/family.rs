//! The two families of addresses, and which ones the bench uses of each.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use serde_json::{Value, json};

use crate::lab::{CLIENT, NODE_IPS};

/// What a bed speaks. One family at a time: what is measured of one shall not pay for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// Addresses of two hosts of one network, with its prefix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Network {
    pub(super) prefix: &'static str,
    bits: u8,
    pub(super) hosts: [&'static str; 2],
}

impl Network {
    /// One of the two, as an interface gets it.
    pub(super) fn on_link(&self, host: usize) -> Result<ipnet::IpNet> {
        Ok(ipnet::IpNet::new(self.hosts[host].parse()?, self.bits)?)
    }

    /// One of the two.
    pub(super) fn host(&self, host: usize) -> Result<IpAddr> {
        Ok(self.hosts[host].parse()?)
    }
}

impl Family {
    fn pick<T>(self, v4: T, v6: T) -> T {
        match self {
            Self::V4 => v4,
            Self::V6 => v6,
        }
    }

    /// What the names of its rows have behind the kind of load.
    pub(super) fn suffix(self) -> &'static str {
        self.pick("", "-v6")
    }

    /// "Any address".
    pub(super) fn any(self) -> IpAddr {
        self.pick(Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into())
    }

    /// Client and node.
    pub(super) fn front(self) -> Network {
        let index = self.pick(0, 1);
        Network {
            prefix: self.pick("192.0.2.0/24", "2001:db8::/64"),
            bits: self.pick(24, 64),
            hosts: [CLIENT[index], NODE_IPS[index]],
        }
    }

    /// Client and bare router.
    pub(super) fn before_router(self) -> Network {
        Network {
            prefix: self.pick("198.51.100.0/24", "2001:db8:1::/64"),
            bits: self.pick(24, 64),
            hosts: self.pick(
                ["198.51.100.10", "198.51.100.1"],
                ["2001:db8:1::10", "2001:db8:1::1"],
            ),
        }
    }

    /// The first workload and the bare router.
    pub(super) fn behind_router(self) -> Network {
        Network {
            prefix: self.pick("203.0.113.0/24", "2001:db8:2::/64"),
            bits: self.pick(24, 64),
            hosts: self.pick(["203.0.113.2", "203.0.113.1"], ["2001:db8:2::2", "2001:db8:2::1"]),
        }
    }

    /// Prefixes of the workloads and of the floating IPs, which the client routes by way of the node.
    pub(super) fn pools(self) -> [&'static str; 2] {
        self.pick(["10.65.0.0/16", "172.16.0.0/16"], ["fd65::/112", "fd16::/64"])
    }

    /// A floating IP by its number.
    pub(super) fn floating(self, number: usize) -> IpAddr {
        let v4 = u32::from(Ipv4Addr::new(172, 16, 1, 0)) + number as u32;
        let v6 = u128::from(Ipv6Addr::new(0xfd16, 0, 0, 0, 0, 0, 1, 0)) + number as u128;
        self.pick(Ipv4Addr::from(v4).into(), Ipv6Addr::from(v6).into())
    }

    /// How every floating IP begins in nft's lists.
    pub(super) fn floating_begins(self) -> &'static str {
        self.pick("172.16.", "fd16:")
    }

    /// nft's name of the family.
    pub(super) fn table(self) -> &'static str {
        self.pick("ip", "ip6")
    }

    /// The plugin's key that asks for an address of this family and none of the other.
    pub(super) fn ipam(self) -> Value {
        let asked = |wanted: bool| wanted.to_string();
        json!({
            "type": "calico-ipam",
            "assign_ipv4": asked(self == Self::V4),
            "assign_ipv6": asked(self == Self::V6),
        })
    }

    /// The sysctl that lets a host forward.
    pub(super) fn forwarding(self) -> &'static str {
        self.pick("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_of_its_family_and_where_it_is_said_to_be() {
        for family in [Family::V4, Family::V6] {
            for network in [family.front(), family.before_router(), family.behind_router()] {
                let prefix: ipnet::IpNet = network.prefix.parse().unwrap();
                for host in [0, 1] {
                    assert_eq!(network.on_link(host).unwrap().trunc(), prefix);
                }
            }
            let pool: ipnet::IpNet = family.pools()[1].parse().unwrap();
            for number in [0, 1, 10_001] {
                let floating = family.floating(number);
                assert!(pool.contains(&floating), "{floating}");
                assert!(floating.to_string().starts_with(family.floating_begins()));
                assert_eq!(floating.is_ipv4(), family.any().is_ipv4());
            }
        }
    }
}
