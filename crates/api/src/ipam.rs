//! IPAM records as every backend means them. How each backend spells them is its codec's business.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use jiff::Timestamp;

use crate::ip::Family;
use crate::meta::Extra;

/// Blocks a host may hold where the settings name no number.
pub const DEFAULT_BLOCK_LIMIT: usize = 20;

/// Longest host part of a block, in bits: 4096 addresses.
const MAX_BLOCK_BITS: u8 = 12;

/// The address `n` after the first of a prefix; `None` outside of it.
pub fn nth_address(prefix: &IpNet, n: u128) -> Option<IpAddr> {
    let host_bits = u32::from(prefix.max_prefix_len() - prefix.prefix_len());
    if n.checked_shr(host_bits).unwrap_or(0) != 0 {
        return None;
    }
    Some(match prefix.network() {
        IpAddr::V4(base) => Ipv4Addr::from_bits(base.to_bits() | u32::try_from(n).ok()?).into(),
        IpAddr::V6(base) => Ipv6Addr::from_bits(base.to_bits() | n).into(),
    })
}

/// How far an address is from the first of a prefix; `None` outside of it.
pub fn distance(prefix: &IpNet, address: IpAddr) -> Option<u128> {
    if !prefix.contains(&address) {
        return None;
    }
    match (prefix.network(), address) {
        (IpAddr::V4(base), IpAddr::V4(address)) => Some((address.to_bits() - base.to_bits()).into()),
        (IpAddr::V6(base), IpAddr::V6(address)) => Some(address.to_bits() - base.to_bits()),
        _ => None,
    }
}

/// Number of addresses of a block; `None` for a prefix that is too short to be a block.
pub fn block_capacity(cidr: &IpNet) -> Option<usize> {
    let bits = cidr.max_prefix_len() - cidr.prefix_len();
    (bits <= MAX_BLOCK_BITS).then(|| 1 << bits)
}

/// Who holds a block: Calico's `host:<node>` or `virtual:<name>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AffinityOwner {
    /// A node.
    Host(String),
    /// Something that is not a node, such as `load-balancer`.
    Virtual(String),
}

impl AffinityOwner {
    /// Reads `host:<node>` or `virtual:<name>`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':')? {
            ("host", name) => Some(Self::Host(name.to_owned())),
            ("virtual", name) => Some(Self::Virtual(name.to_owned())),
            _ => None,
        }
    }

    /// `host` or `virtual`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Host(_) => "host",
            Self::Virtual(_) => "virtual",
        }
    }

    /// Name without the kind.
    pub fn name(&self) -> &str {
        match self {
            Self::Host(name) | Self::Virtual(name) => name,
        }
    }
}

impl fmt::Display for AffinityOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind(), self.name())
    }
}

/// A block of addresses: which are given, to whom.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Prefix of the block. Ordinal `n` is the address `cidr.network + n`.
    pub cidr: IpNet,
    /// Who allocates from it by preference; `None` for an orphan.
    pub affinity: Option<AffinityOwner>,
    /// When the affinity was claimed.
    pub affinity_claim_time: Option<Timestamp>,
    /// By ordinal: index into `attributes`, or free.
    pub allocations: Vec<Option<usize>>,
    /// Free ordinals, oldest first.
    pub unallocated: Vec<usize>,
    /// Who has addresses of this block.
    pub attributes: Vec<Attribute>,
    /// Rises by one with every write.
    pub sequence_number: u64,
    /// By ordinal: the block's sequence number when the ordinal was last given.
    pub sequence_number_for_allocation: BTreeMap<usize, u64>,
    /// First step of a two-step deletion.
    pub deleted: bool,
    /// Unknown fields.
    pub extra: Extra,
}

impl Block {
    /// IPv4 or IPv6.
    pub fn family(&self) -> Family {
        Family::of_net(&self.cidr)
    }

    /// The address of an ordinal; `None` beyond the block.
    pub fn address(&self, ordinal: usize) -> Option<IpAddr> {
        nth_address(&self.cidr, u128::try_from(ordinal).ok()?)
    }

    /// The ordinal of an address; `None` outside of the block.
    pub fn ordinal(&self, address: IpAddr) -> Option<usize> {
        usize::try_from(distance(&self.cidr, address)?).ok()
    }

    /// Who has the address with this ordinal; `None` if it is free.
    pub fn holder(&self, ordinal: usize) -> Option<&Attribute> {
        self.attributes.get((*self.allocations.get(ordinal)?)?)
    }

    /// Ordinals that are given, with who has them.
    pub fn allocated(&self) -> impl Iterator<Item = (usize, &Attribute)> {
        (0..self.allocations.len()).filter_map(|ordinal| Some((ordinal, self.holder(ordinal)?)))
    }

    /// Ordinals that are given to a handle.
    pub fn ordinals_of<'a>(&'a self, handle: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.allocated()
            .filter(|(_, holder)| holder.has_handle(handle))
            .map(|(ordinal, _)| ordinal)
    }

    /// Whether no address of it is given.
    pub fn is_empty(&self) -> bool {
        self.allocations.iter().all(Option::is_none)
    }

    /// What is wrong with it, if it is not a block that can be worked with: it is for people.
    pub fn defect(&self) -> Option<String> {
        let Some(capacity) = block_capacity(&self.cidr) else {
            return Some(format!("too large to be a block: {}", self.cidr));
        };
        if self.allocations.len() != capacity {
            let found = self.allocations.len();
            return Some(format!("allocations of {capacity} addresses expected: {found}"));
        }
        let dangling = self
            .allocations
            .iter()
            .flatten()
            .find(|index| **index >= self.attributes.len());
        dangling.map(|index| format!("no attribute with index: {index}"))
    }
}

/// Who has an address. Addresses of one request share one attribute.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attribute {
    /// Handle the address is released by.
    pub handle: Option<String>,
    /// `pod`, `namespace`, `node`, `timestamp`, `type`, …
    pub secondary: BTreeMap<String, String>,
    /// Set while the address cools down after its release.
    pub released_at: Option<Timestamp>,
    /// Unknown fields.
    pub extra: Extra,
}

impl Attribute {
    /// Whether it is held by a handle. Some runtimes end a handle in a carriage return and more; Calico compares what
    /// is before it.
    pub fn has_handle(&self, handle: &str) -> bool {
        let clean = |text: &str| text.split('\r').next().map(str::to_owned);
        self.handle
            .as_deref()
            .is_some_and(|own| own == handle || clean(own) == clean(handle))
    }
}

/// State of an affinity. Calico reads an empty state as confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AffinityState {
    /// Announced; the block may not exist yet.
    Pending,
    /// The block exists and is this owner's.
    Confirmed,
    /// Being given up.
    PendingDeletion,
}

/// A claim of a block by an owner.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockAffinity {
    /// How far the claim has come.
    pub state: AffinityState,
    /// First step of a two-step deletion.
    pub deleted: bool,
    /// Unknown fields.
    pub extra: Extra,
}

/// Where the addresses of one handle are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Handle {
    /// Number of addresses by block.
    pub blocks: BTreeMap<IpNet, u32>,
    /// First step of a two-step deletion.
    pub deleted: bool,
    /// Unknown fields.
    pub extra: Extra,
}

/// Settings of IPAM for the whole cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct IpamConfig {
    /// Addresses only from blocks with the node's own affinity.
    pub strict_affinity: bool,
    /// Claim new blocks as needed.
    pub auto_allocate_blocks: bool,
    /// Blocks a host may hold; 0 means the default of 20.
    pub max_blocks_per_host: u32,
    /// Seconds for which a released address is not given again.
    pub cooldown_seconds: u32,
    /// Unknown fields.
    pub extra: Extra,
}

impl Default for IpamConfig {
    fn default() -> Self {
        Self {
            strict_affinity: false,
            auto_allocate_blocks: true,
            max_blocks_per_host: 0,
            cooldown_seconds: 0,
            extra: Extra::new(),
        }
    }
}

impl IpamConfig {
    /// Blocks that a host may hold per family.
    pub fn block_limit(&self) -> usize {
        match usize::try_from(self.max_blocks_per_host) {
            Ok(limit) if limit > 0 => limit,
            _ => DEFAULT_BLOCK_LIMIT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn ordinals_are_distances_in_both_families() {
        for (prefix, n, address) in [
            ("10.65.3.0/26", 7, "10.65.3.7"),
            ("10.65.3.0/26", 63, "10.65.3.63"),
            ("255.255.255.255/32", 0, "255.255.255.255"),
            ("0.0.0.0/0", u128::from(u32::MAX), "255.255.255.255"),
            ("fd00:65::bec0/122", 47, "fd00:65::beef"),
            ("::/0", u128::MAX, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ] {
            assert_eq!(nth_address(&net(prefix), n), Some(ip(address)));
            assert_eq!(distance(&net(prefix), ip(address)), Some(n));
        }
        assert_eq!(nth_address(&net("10.65.3.0/26"), 64), None);
        assert_eq!(nth_address(&net("fd00::/122"), 64), None);
        assert_eq!(distance(&net("10.65.3.0/26"), ip("10.65.3.64")), None);
        assert_eq!(distance(&net("10.65.3.0/26"), ip("fd00::1")), None);
    }

    #[test]
    fn a_block_is_at_most_as_large_as_calico_allows() {
        assert_eq!(block_capacity(&net("10.0.0.0/20")), Some(4096));
        assert_eq!(block_capacity(&net("10.0.0.0/32")), Some(1));
        assert_eq!(block_capacity(&net("fd00::/116")), Some(4096));
        assert_eq!(block_capacity(&net("fd00::/64")), None);
    }

    #[test]
    fn handles_compare_up_to_a_carriage_return() {
        let attribute = Attribute {
            handle: Some("net1.c1\r\nX".to_owned()),
            ..Attribute::default()
        };
        assert!(attribute.has_handle("net1.c1"));
        assert!(!attribute.has_handle("net1.c"));
        assert!(!Attribute::default().has_handle(""));
    }

    #[test]
    fn no_block_limit_means_twenty() {
        assert_eq!(IpamConfig::default().block_limit(), 20);
        let config = IpamConfig {
            max_blocks_per_host: 3,
            ..IpamConfig::default()
        };
        assert_eq!(config.block_limit(), 3);
    }
}
