//! What happens inside one block, as Calico does it: the queue of free ordinals is taken from at its head and given
//! back to at its tail, so that the address that was free longest is given first; addresses of one request share an
//! attribute; an ordinal remembers the block's sequence number of when it was given.
//!
//! Nothing here writes: a block is read, changed by these functions, and written by compare-and-swap.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use buoy_api::ipam::{AffinityOwner, Attribute, Block, block_capacity};
use buoy_api::meta::Extra;
use ipnet::IpNet;
use jiff::Timestamp;

use super::request::Grant;

#[cfg(test)]
mod tests;

/// A block of which nothing is given. Its sequence number begins with the time, so that a block made again does not
/// repeat the numbers of the one before.
pub fn new(cidr: IpNet, affinity: Option<AffinityOwner>, now: Timestamp) -> Block {
    let capacity = block_capacity(&cidr).unwrap_or(0);
    Block {
        cidr,
        affinity_claim_time: affinity.as_ref().map(|_| whole_seconds(now)),
        affinity,
        allocations: vec![None; capacity],
        unallocated: (0..capacity).collect(),
        attributes: Vec::new(),
        sequence_number: u64::try_from(now.as_nanosecond()).unwrap_or(0),
        sequence_number_for_allocation: BTreeMap::new(),
        deleted: false,
        extra: Extra::new(),
    }
}

/// Whether an address could be given automatically.
pub fn has_room(block: &Block, reserved: &[IpNet]) -> bool {
    block
        .unallocated
        .iter()
        .any(|ordinal| open(block, *ordinal, reserved).is_some())
}

/// Gives up to `count` addresses from the head of the queue. Reserved ones stay where they are in it.
pub fn give_next(block: &mut Block, count: usize, grant: &Grant, reserved: &[IpNet]) -> Vec<IpAddr> {
    let mut given = Vec::new();
    let mut kept = Vec::with_capacity(block.unallocated.len());
    for ordinal in std::mem::take(&mut block.unallocated) {
        match open(block, ordinal, reserved) {
            Some(address) if given.len() < count => {
                mark(block, ordinal, grant);
                given.push(address);
            }
            _ => kept.push(ordinal),
        }
    }
    block.unallocated = kept;
    given
}

/// Gives one address. `false`: it is not in this block, or not free.
pub fn give_address(block: &mut Block, address: IpAddr, grant: &Grant) -> bool {
    match block.ordinal(address) {
        Some(ordinal) if matches!(block.allocations.get(ordinal), Some(None)) => {
            block.unallocated.retain(|free| *free != ordinal);
            mark(block, ordinal, grant);
            true
        }
        _ => false,
    }
}

/// Gives an address anew to whom it was given: its sequence number rises, and its attributes are those of the grant.
pub fn stamp(block: &mut Block, ordinal: usize, grant: &Grant) {
    if let Some(slot) = block.allocations.get_mut(ordinal) {
        *slot = None;
        mark(block, ordinal, grant);
        drop_unused_attributes(block);
    }
}

/// Frees ordinals, oldest first. They go to the tail of the queue; attributes that nobody uses any more go away.
pub fn free(block: &mut Block, ordinals: &[usize]) {
    for ordinal in ordinals {
        if let Some(slot) = block.allocations.get_mut(*ordinal)
            && slot.take().is_some()
        {
            block.sequence_number_for_allocation.remove(ordinal);
            block.unallocated.push(*ordinal);
        }
    }
    drop_unused_attributes(block);
}

/// The sequence number an address was given with.
pub fn stamp_of(block: &Block, ordinal: usize) -> Option<u64> {
    block.sequence_number_for_allocation.get(&ordinal).copied()
}

fn open(block: &Block, ordinal: usize, reserved: &[IpNet]) -> Option<IpAddr> {
    // A queue that lists what is given is damaged; what is given is decided by the allocations.
    let address = block
        .address(ordinal)
        .filter(|_| block.allocations.get(ordinal) == Some(&None))?;
    (!reserved.iter().any(|range| range.contains(&address))).then_some(address)
}

fn mark(block: &mut Block, ordinal: usize, grant: &Grant) {
    let attribute = Attribute {
        handle: Some(grant.handle.clone()),
        secondary: grant.attributes.clone(),
        ..Attribute::default()
    };
    let index = match block
        .attributes
        .iter()
        .position(|existing| *existing == attribute)
    {
        Some(index) => index,
        None => {
            block.attributes.push(attribute);
            block.attributes.len() - 1
        }
    };
    block.allocations[ordinal] = Some(index);
    block
        .sequence_number_for_allocation
        .insert(ordinal, block.sequence_number);
}

fn drop_unused_attributes(block: &mut Block) {
    let mut used = vec![false; block.attributes.len()];
    for index in block.allocations.iter().flatten() {
        if let Some(used) = used.get_mut(*index) {
            *used = true;
        }
    }
    if used.iter().all(|used| *used) {
        return;
    }
    let mut renumbered = Vec::with_capacity(used.len());
    let mut next = 0;
    for used in &used {
        renumbered.push(next);
        next += usize::from(*used);
    }
    for index in block.allocations.iter_mut().flatten() {
        if let Some(number) = renumbered.get(*index) {
            *index = *number;
        }
    }
    let mut used: VecDeque<bool> = used.into();
    block.attributes.retain(|_| used.pop_front().unwrap_or(true));
}

fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}
