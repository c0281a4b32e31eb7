//! IPAM records as every backend means them. How each backend spells them is its codec's business.

use std::collections::BTreeMap;
use std::fmt;

use ipnet::IpNet;
use jiff::Timestamp;

use crate::meta::Extra;

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
