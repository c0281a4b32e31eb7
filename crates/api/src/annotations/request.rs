//! What a pod's annotations ask of a CNI ADD.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::reader::Reader;
use super::{
    ALLOWED_SOURCE_PREFIXES, AnnotationErrors, FLOATING_IP_DRAIN, FLOATING_IP_MOVE, FLOATING_IP_PRIORITY,
    FLOATING_IPS, HW_ADDR, IP_ADDRS, IP_ADDRS_NO_IPAM, IP_FAMILIES, IPV4_POOLS, IPV6_POOLS, Problem, values,
};
use crate::ip::{Family, FloatingIp};

/// What a pod's annotations ask of a CNI ADD.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodRequest {
    /// Chosen addresses, at most one of each family, never empty.
    pub ip_addrs: Option<Vec<IpAddr>>,
    /// The same, past IPAM. Never together with `ip_addrs`.
    pub ip_addrs_no_ipam: Option<Vec<IpAddr>>,
    /// Floating IPs in the order asked, each once.
    pub floating_ips: Vec<FloatingIp>,
    /// Names or prefixes of pools. An empty list restricts nothing, but beats the namespace's.
    pub ipv4_pools: Option<Vec<String>>,
    /// Names or prefixes of pools. An empty list restricts nothing, but beats the namespace's.
    pub ipv6_pools: Option<Vec<String>>,
    /// Families wanted, never empty.
    pub ip_families: Option<BTreeSet<Family>>,
    /// MAC address inside the pod: six octets, of one interface.
    pub hw_addr: Option<[u8; 6]>,
    /// Masked prefixes the pod may send from besides its own addresses.
    pub allowed_source_prefixes: Vec<IpNet>,
    /// Preference among candidates.
    pub priority: i32,
    /// Withdraw first, give afterwards.
    pub exclusive_move: bool,
    /// How long old flows go on after a move.
    pub drain: Duration,
}

impl PodRequest {
    /// Reads a pod's annotations; those of others are passed over, and an empty value is an absent one.
    ///
    /// Error: everything that is wrong, not only the first.
    pub fn parse(annotations: &BTreeMap<String, String>) -> Result<Self, AnnotationErrors> {
        let mut reader = Reader::new(annotations);
        let request = Self {
            ip_addrs: reader.read(IP_ADDRS, values::chosen_addresses),
            ip_addrs_no_ipam: reader.read(IP_ADDRS_NO_IPAM, values::chosen_addresses),
            floating_ips: reader
                .read(FLOATING_IPS, values::floating_ips)
                .unwrap_or_default(),
            ipv4_pools: reader.read(IPV4_POOLS, values::strings),
            ipv6_pools: reader.read(IPV6_POOLS, values::strings),
            ip_families: reader.read(IP_FAMILIES, values::families),
            hw_addr: reader.read(HW_ADDR, values::mac),
            allowed_source_prefixes: reader
                .read(ALLOWED_SOURCE_PREFIXES, values::prefixes)
                .unwrap_or_default(),
            priority: reader
                .read(FLOATING_IP_PRIORITY, values::priority)
                .unwrap_or_default(),
            exclusive_move: reader
                .read(FLOATING_IP_MOVE, values::exclusive)
                .unwrap_or_default(),
            drain: reader.read(FLOATING_IP_DRAIN, values::drain).unwrap_or_default(),
        };
        if request.ip_addrs.is_some() && request.ip_addrs_no_ipam.is_some() {
            reader.fail(IP_ADDRS, Problem::BothKinds);
        }
        reader.finish(request)
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
