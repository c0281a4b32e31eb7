//! What a workload's link is: the inputs and the constants that Calico's users and tools know.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::{IfIndex, Mac, netlink::Socket};

/// Ethernet address of every workload link's host side.
pub const HOST_MAC: Mac = Mac([0xee; 6]);
/// The gateway that a workload sees; the host answers for it by proxy ARP.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The IPv6 gateway: the link-local address that belongs to [`HOST_MAC`].
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee);

/// A veth between the host and a workload's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodLink {
    /// Name of the host side, 15 octets at most.
    pub host_name: String,
    /// Name inside the workload's namespace, usually `eth0`.
    pub pod_name: String,
    /// Alias of the host side; begins with [`super::ALIAS_PREFIX`].
    pub alias: String,
    /// Octets per packet; `None` leaves the kernel's default.
    pub mtu: Option<u32>,
    /// Send and receive queues of each side; 0 counts as 1.
    pub queues: u32,
    /// Ethernet address of the inner side; `None` lets the kernel choose.
    pub pod_mac: Option<Mac>,
    /// Addresses of the workload, each given alone (`/32`, `/128`).
    pub addresses: Vec<IpAddr>,
    /// Destinations that the workload reaches through the host. Those of a family without an address are left
    /// out.
    pub routes: Vec<IpNet>,
    /// Whether the workload may forward packets.
    pub forwarding: bool,
}

impl PodLink {
    /// Whether it has an address of IPv6.
    pub(super) fn has_v6(&self) -> bool {
        self.addresses.iter().any(IpAddr::is_ipv6)
    }

    /// Whether it has an address of IPv4.
    pub(super) fn has_v4(&self) -> bool {
        self.addresses.iter().any(IpAddr::is_ipv4)
    }
}

/// A workload link that was made and is usable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedLink {
    /// Index of the host side.
    pub host_ifindex: IfIndex,
    /// Name of the host side.
    pub host_name: String,
    /// Ethernet address inside.
    pub pod_mac: Mac,
    /// Octets per packet.
    pub mtu: u32,
}

/// One side of a link: its index, and a socket of its namespace.
pub(super) struct Side<'a> {
    pub(super) socket: &'a mut Socket,
    pub(super) ifindex: IfIndex,
    pub(super) name: &'a str,
}
