//! What can go wrong when addresses are given. First lines are Calico's where it has one, since tools and people look
//! for them; the lines after it say what to do.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use buoy_api::ip::Family;
use buoy_api::ipam::{AffinityOwner, Attribute};
use ipnet::IpNet;
use jiff::Timestamp;

use super::pool::PoolError;
use crate::store::{Bad, FailureKind, Key, StoreError};

/// Key of the attribute that says what an allocation is for.
pub const TYPE: &str = "type";
/// Value of [`TYPE`] for the reservation of a floating IP.
pub const FLOATING_IP: &str = "floatingIP";
/// Key of the attribute that names the binding of a reservation.
pub const BINDING: &str = "binding";

/// Why a protocol of IPAM did not do what was asked. Whatever it had begun is undone, or found by its handle.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum IpamError {
    /// No pool gives what is asked.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// Somebody else has the address.
    #[error("resource already exists: {address} with error: Address already assigned in block\n{holder}")]
    InUse {
        /// The address.
        address: IpAddr,
        /// Who has it.
        holder: Holder,
    },
    /// Strict affinity, and the address lies in a block that is not this node's.
    #[error(
        "Block host affinity does not match\n{address} lies in block {block} of {}; strict affinity is on: choose an \
         address from a block of this node, or run the workload there",
        owner_name(.owner.as_ref())
    )]
    StrictAffinity {
        /// The address.
        address: IpAddr,
        /// Its block.
        block: IpNet,
        /// Whose block it is.
        owner: Option<AffinityOwner>,
    },
    /// The node may hold no more blocks, and strict affinity forbids anything else.
    #[error(
        "cannot allocate new block due to per host block limit\nlimit of blocks per node: {limit}; raise \
         maxBlocksPerHost in IPAMConfiguration"
    )]
    BlockLimit {
        /// Blocks a node may hold.
        limit: usize,
    },
    /// No free address.
    #[error(
        "failed to request {family} addresses: Assigned {given} out of {wanted} requested {family} addresses; No IPs \
         available in pools: [{}]{}",
        pools_of(.shortages),
        hints_of(.shortages)
    )]
    Exhausted {
        /// IPv4 or IPv6.
        family: Family,
        /// Addresses asked for.
        wanted: usize,
        /// Addresses found; they are given back.
        given: usize,
        /// What was tried, pool by pool.
        shortages: Vec<Shortage>,
    },
    /// A reservation was stamped since the given sequence number.
    #[error(
        "reservation of {address} is newer than asked\nsequence number: {found}; somebody claimed the address since, so \
         it is kept"
    )]
    Stamped {
        /// The floating IP.
        address: IpAddr,
        /// Its present sequence number.
        found: u64,
    },
    /// Other writers were faster too many times in a row, or answers were lost.
    #[error("datastore records kept changing: gave up after {setbacks} conflicts\ntry again")]
    Contended {
        /// Conflicts and lost answers.
        setbacks: u32,
    },
    /// The datastore was restored from a copy: others may have what it says is free.
    #[error(
        "the datastore was restored from a copy: nothing is allocated yet\nit is allowed again {}, when every node had \
         time to write again what it has",
        hold_ends(*.left)
    )]
    Restored {
        /// For how long; `None` while that is not known, for the datastore has yet to be read.
        left: Option<Duration>,
    },
    /// The datastore failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record that is needed does not say what it must.
    #[error("{key}: {bad}\nrepair or delete the record")]
    BadRecord {
        /// Which.
        key: Key,
        /// Why.
        #[source]
        bad: Bad,
    },
}

impl IpamError {
    /// Whether the same request may succeed later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Contended { .. } | Self::Restored { .. } => true,
            Self::Store(error) => error.is_retryable(),
            _ => false,
        }
    }

    /// Whether somebody else has the address.
    pub fn is_in_use(&self) -> bool {
        matches!(self, Self::InUse { .. })
    }

    /// Whether there is no free address, or the node may take no more blocks.
    pub fn is_exhausted(&self) -> bool {
        matches!(self, Self::Exhausted { .. } | Self::BlockLimit { .. })
    }

    /// Whether the rules of the pools refuse what is asked.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Pool(_) | Self::StrictAffinity { .. })
    }

    /// Whether a reservation was stamped since.
    pub fn is_stamped(&self) -> bool {
        matches!(self, Self::Stamped { .. })
    }

    /// Whether the datastore could not be reached or would not take the write.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Store(error) if error.kind != FailureKind::Invalid)
    }

    /// Who has the address, if somebody has.
    pub fn holder(&self) -> Option<&Holder> {
        match self {
            Self::InUse { holder, .. } => Some(holder),
            _ => None,
        }
    }
}

/// Who has an address. Its text is a hint for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// The handle it is released by.
    pub handle: Option<String>,
    /// `pod`, `namespace`, `node`, `type`, …
    pub attributes: BTreeMap<String, String>,
    /// When it was released, if it is nobody's and only cools down.
    pub released_at: Option<Timestamp>,
}

impl Holder {
    /// The binding whose floating IP the address is, if it is one.
    pub fn floating_ip(&self) -> Option<&str> {
        let is_floating = self.attributes.get(TYPE).is_some_and(|kind| kind == FLOATING_IP);
        is_floating.then(|| self.attributes.get(BINDING).map_or("", String::as_str))
    }
}

impl From<&Attribute> for Holder {
    fn from(attribute: &Attribute) -> Self {
        Self {
            handle: attribute.handle.clone(),
            attributes: attribute.secondary.clone(),
            released_at: attribute.released_at,
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attribute = |key: &str| self.attributes.get(key);
        if let Some(binding) = self.floating_ip() {
            return write!(f, "it is a floating IP, held by binding: {binding}");
        }
        if let Some(released_at) = self.released_at {
            return write!(f, "it cools down, and is free later; released at: {released_at}");
        }
        match (attribute("namespace"), attribute("pod")) {
            (Some(namespace), Some(pod)) => write!(f, "held by pod: {namespace}/{pod}")?,
            _ => match &self.handle {
                Some(handle) => write!(f, "held by handle: {handle}")?,
                None => write!(f, "held without a handle")?,
            },
        }
        match attribute("node") {
            Some(node) => write!(f, " on node {node}"),
            None => Ok(()),
        }
    }
}

/// Why a pool, or the node, gave no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// This node's blocks of the pool are full.
    Full {
        /// Name of the pool.
        pool: String,
        /// Its prefix.
        cidr: IpNet,
        /// Whether every other block was found taken; otherwise none was looked for.
        others_taken: bool,
    },
    /// The node may hold no more blocks.
    BlockLimit {
        /// How many it may hold.
        limit: usize,
    },
    /// `autoAllocateBlocks` is off.
    NoNewBlocks,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full {
                pool,
                cidr,
                others_taken,
            } => {
                write!(f, "pool {pool} ({cidr}): this node's blocks are full")?;
                f.write_str(if *others_taken {
                    ", and every other is taken or reserved"
                } else {
                    ""
                })
            }
            Self::BlockLimit { limit } => write!(
                f,
                "cannot allocate new block due to per host block limit: {limit} (maxBlocksPerHost)"
            ),
            Self::NoNewBlocks => f.write_str(
                "a new block is not claimed, since autoAllocateBlocks is off in IPAMConfiguration",
            ),
        }
    }
}

fn hold_ends(left: Option<Duration>) -> String {
    left.map_or("a while after it was read".to_owned(), |left| {
        format!("in {} s", left.as_secs() + 1)
    })
}

fn pools_of(shortages: &[Shortage]) -> String {
    let cidrs = shortages.iter().filter_map(|shortage| match shortage {
        Shortage::Full { cidr, .. } => Some(cidr.to_string()),
        _ => None,
    });
    cidrs.collect::<Vec<_>>().join(" ")
}

fn hints_of(shortages: &[Shortage]) -> String {
    shortages.iter().map(|shortage| format!("\n{shortage}")).collect()
}

fn owner_name(owner: Option<&AffinityOwner>) -> String {
    owner.map_or_else(|| "nobody".to_owned(), AffinityOwner::to_string)
}
