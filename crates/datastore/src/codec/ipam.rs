//! IPAM records as Calico's etcd has them: no envelope, field names of their own.

use std::collections::{BTreeMap, BTreeSet};

use buoy_api::ip::Family;
use buoy_api::ipam::{AffinityOwner, AffinityState, Attribute, Block, BlockAffinity, Handle, IpamConfig};
use buoy_api::meta::Extra;
use buoy_core::store::Bad;
use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use super::bad;
use super::resource::decode_plain;

/// Bits of the largest block that is read: 65,536 addresses, sixteen times the largest that Calico makes.
const MAX_BLOCK_BITS: u8 = 16;

#[derive(Serialize, Deserialize)]
struct BlockWire {
    cidr: IpNet,
    #[serde(default)]
    affinity: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    affinity_claim_time: Option<Timestamp>,
    allocations: Vec<Option<usize>>,
    #[serde(default, deserialize_with = "null_is_empty")]
    unallocated: Vec<usize>,
    #[serde(default, deserialize_with = "null_is_empty")]
    attributes: Vec<AttributeWire>,
    #[serde(default, rename = "sequenceNumber")]
    sequence_number: u64,
    #[serde(
        default,
        rename = "sequenceNumberForAllocation",
        deserialize_with = "null_is_empty"
    )]
    sequence_number_for_allocation: BTreeMap<usize, u64>,
    #[serde(default)]
    deleted: bool,
    /// How old versions spelled the affinity to a node: read, never written.
    #[serde(default, rename = "hostAffinity", skip_serializing)]
    host_affinity: Option<String>,
    #[serde(flatten)]
    extra: Extra,
}

#[derive(Serialize, Deserialize)]
struct AttributeWire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    handle_id: Option<String>,
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    secondary: BTreeMap<String, String>,
    #[serde(default, rename = "releasedAt", skip_serializing_if = "Option::is_none")]
    released_at: Option<Timestamp>,
    #[serde(flatten)]
    extra: Extra,
}

#[derive(Serialize, Deserialize)]
struct AffinityWire {
    #[serde(default)]
    state: String,
    #[serde(default)]
    deleted: bool,
    #[serde(flatten)]
    extra: Extra,
}

#[derive(Serialize, Deserialize)]
struct HandleWire {
    #[serde(default, deserialize_with = "null_is_empty")]
    block: BTreeMap<IpNet, u32>,
    #[serde(default)]
    deleted: bool,
    #[serde(flatten)]
    extra: Extra,
}

#[derive(Serialize, Deserialize)]
struct ConfigWire {
    #[serde(default)]
    strict_affinity: bool,
    #[serde(default = "yes")]
    auto_allocate_blocks: bool,
    #[serde(default, rename = "maxBlocksPerHost")]
    max_blocks_per_host: u32,
    #[serde(default, rename = "ipCooldownSeconds")]
    cooldown_seconds: u32,
    #[serde(flatten)]
    extra: Extra,
}

fn yes() -> bool {
    true
}

/// Go writes an empty list or map that was never made as `null`.
fn null_is_empty<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

pub(super) fn decode_block(bytes: &[u8]) -> Result<Block, Bad> {
    let wire: BlockWire = decode_plain(bytes)?;
    let affinity = match (wire.affinity, wire.host_affinity) {
        (Some(text), _) => Some(AffinityOwner::parse(&text).ok_or_else(|| {
            bad(format!(
                "affinity: neither host:<node> nor virtual:<name>: {text}"
            ))
        })?),
        (None, Some(node)) => Some(AffinityOwner::Host(node)),
        (None, None) => None,
    };
    let attributes = wire.attributes.into_iter().map(|attribute| Attribute {
        handle: attribute.handle_id,
        secondary: attribute.secondary,
        released_at: attribute.released_at,
        extra: attribute.extra,
    });
    Ok(Block {
        cidr: wire.cidr,
        affinity,
        affinity_claim_time: wire.affinity_claim_time,
        allocations: wire.allocations,
        unallocated: wire.unallocated,
        attributes: attributes.collect(),
        sequence_number: wire.sequence_number,
        sequence_number_for_allocation: wire.sequence_number_for_allocation,
        deleted: wire.deleted,
        extra: wire.extra,
    })
}

/// Checks what everything that indexes into a block relies on. Whoever trusted a block that contradicts itself would
/// give an address twice.
pub(super) fn check_block(cidr: &IpNet, block: &Block) -> Result<(), Bad> {
    if block.cidr != *cidr {
        return Err(bad(format!("cidr: {} in the record of {cidr}", block.cidr)));
    }
    let host_bits = Family::of_net(cidr).bits() - cidr.prefix_len();
    if host_bits > MAX_BLOCK_BITS || block.allocations.len() != 1 << host_bits {
        return Err(bad(format!(
            "allocations: {} of them in a block of {cidr}",
            block.allocations.len()
        )));
    }
    for (ordinal, index) in block.allocations.iter().enumerate() {
        if let Some(index) = index
            && *index >= block.attributes.len()
        {
            return Err(bad(format!(
                "allocations: ordinal {ordinal} has attribute {index} of {}",
                block.attributes.len()
            )));
        }
    }
    let mut seen = BTreeSet::new();
    for ordinal in &block.unallocated {
        if !seen.insert(ordinal) || block.allocations.get(*ordinal) != Some(&None) {
            return Err(bad(format!(
                "unallocated: ordinal {ordinal} is listed twice, allocated, or beyond the block"
            )));
        }
    }
    Ok(())
}

pub(super) fn encode_block(block: &Block) -> Result<Vec<u8>, Bad> {
    let attributes = block.attributes.iter().map(|attribute| AttributeWire {
        handle_id: attribute.handle.clone(),
        secondary: attribute.secondary.clone(),
        released_at: attribute.released_at,
        extra: attribute.extra.clone(),
    });
    to_bytes(&BlockWire {
        cidr: block.cidr,
        affinity: block.affinity.as_ref().map(ToString::to_string),
        affinity_claim_time: block.affinity_claim_time,
        allocations: block.allocations.clone(),
        unallocated: block.unallocated.clone(),
        attributes: attributes.collect(),
        sequence_number: block.sequence_number,
        sequence_number_for_allocation: block.sequence_number_for_allocation.clone(),
        deleted: block.deleted,
        host_affinity: None,
        extra: block.extra.clone(),
    })
}

/// An empty record is a confirmed affinity, and so is one with an empty state.
pub(super) fn decode_affinity(bytes: &[u8]) -> Result<BlockAffinity, Bad> {
    let wire: AffinityWire = decode_plain(if bytes.is_empty() { b"{}" } else { bytes })?;
    let state = match wire.state.as_str() {
        "" | "confirmed" => AffinityState::Confirmed,
        "pending" => AffinityState::Pending,
        "pendingDeletion" => AffinityState::PendingDeletion,
        other => {
            return Err(bad(format!(
                "state: none of pending, confirmed, pendingDeletion: {other}"
            )));
        }
    };
    Ok(BlockAffinity {
        state,
        deleted: wire.deleted,
        extra: wire.extra,
    })
}

pub(super) fn encode_affinity(affinity: &BlockAffinity) -> Result<Vec<u8>, Bad> {
    let state = match affinity.state {
        AffinityState::Pending => "pending",
        AffinityState::Confirmed => "confirmed",
        AffinityState::PendingDeletion => "pendingDeletion",
    };
    to_bytes(&AffinityWire {
        state: state.to_owned(),
        deleted: affinity.deleted,
        extra: affinity.extra.clone(),
    })
}

pub(super) fn decode_handle(bytes: &[u8]) -> Result<Handle, Bad> {
    let wire: HandleWire = decode_plain(bytes)?;
    Ok(Handle {
        blocks: wire.block,
        deleted: wire.deleted,
        extra: wire.extra,
    })
}

pub(super) fn encode_handle(handle: &Handle) -> Result<Vec<u8>, Bad> {
    to_bytes(&HandleWire {
        block: handle.blocks.clone(),
        deleted: handle.deleted,
        extra: handle.extra.clone(),
    })
}

pub(super) fn decode_config(bytes: &[u8]) -> Result<IpamConfig, Bad> {
    let wire: ConfigWire = decode_plain(bytes)?;
    Ok(IpamConfig {
        strict_affinity: wire.strict_affinity,
        auto_allocate_blocks: wire.auto_allocate_blocks,
        max_blocks_per_host: wire.max_blocks_per_host,
        cooldown_seconds: wire.cooldown_seconds,
        extra: wire.extra,
    })
}

pub(super) fn encode_config(config: &IpamConfig) -> Result<Vec<u8>, Bad> {
    to_bytes(&ConfigWire {
        strict_affinity: config.strict_affinity,
        auto_allocate_blocks: config.auto_allocate_blocks,
        max_blocks_per_host: config.max_blocks_per_host,
        cooldown_seconds: config.cooldown_seconds,
        extra: config.extra.clone(),
    })
}

fn to_bytes(wire: &impl Serialize) -> Result<Vec<u8>, Bad> {
    serde_json::to_vec(wire).map_err(|error| bad(error.to_string()))
}
