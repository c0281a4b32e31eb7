//! Which addresses this node has.

use std::net::IpAddr;

use anyhow::{Context, Result};
use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

use crate::settings::NodeIp;

/// Addresses of this node with their prefix lengths, one per family at most.
pub(crate) fn find(wanted: &NodeIp) -> Result<Vec<IpNet>> {
    let found = all().context("addresses of this node")?;
    let matching = found.into_iter().filter(|(name, prefix)| match wanted {
        NodeIp::Auto => !name.starts_with("cali") && is_global(prefix.addr()),
        NodeIp::Addresses(addresses) => addresses.contains(&prefix.addr()),
        NodeIp::Interface(interface) => name == interface && is_global(prefix.addr()),
        NodeIp::Cidr(cidr) => cidr.contains(&prefix.addr()),
    });
    let mut addresses: Vec<IpNet> = Vec::new();
    for (_, prefix) in matching {
        if !addresses
            .iter()
            .any(|known| known.addr().is_ipv4() == prefix.addr().is_ipv4())
        {
            addresses.push(prefix);
        }
    }
    Ok(addresses)
}

fn all() -> Result<Vec<(String, IpNet)>> {
    let prefixes = getifaddrs()?.filter_map(|entry| {
        let address = address_of(entry.address.as_ref()?)?;
        let mask = address_of(entry.netmask.as_ref()?)?;
        Some((entry.interface_name, IpNet::with_netmask(address, mask).ok()?))
    });
    Ok(prefixes.collect())
}

fn address_of(storage: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = storage.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
    v4.or_else(|| storage.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
}

fn is_global(address: IpAddr) -> bool {
    buoy_api::FloatingIp::try_from(address).is_ok()
}
