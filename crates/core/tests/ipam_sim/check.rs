//! What must hold after every single operation.

use std::net::IpAddr;

use buoy_api::ip::Family;
use buoy_api::ipam::{AffinityState, Block};
use buoy_core::store::{Key, Value};
use ipnet::IpNet;

use super::store::SimStore;

/// The block of an address: every pool of the model has blocks of four.
pub(crate) fn block_of(address: IpAddr) -> IpNet {
    let prefix_len = Family::of(address).bits() - 2;
    IpNet::new(address, prefix_len).unwrap().trunc()
}

/// The handle that an address is given to, with its sequence number.
pub(crate) fn holder(store: &SimStore, address: IpAddr) -> Option<(&str, u64)> {
    let block = block(store, &block_of(address))?;
    let ordinal = block.ordinal(address)?;
    let stamp = *block.sequence_number_for_allocation.get(&ordinal)?;
    Some((block.holder(ordinal)?.handle.as_deref()?, stamp))
}

/// How many addresses a block gives to a handle.
pub(crate) fn given(store: &SimStore, cidr: &IpNet, id: &str) -> u32 {
    block(store, cidr).map_or(0, |block| block.ordinals_of(id).count() as u32)
}

/// How many addresses a handle counts in a block.
pub(crate) fn counted(store: &SimStore, cidr: &IpNet, id: &str) -> Option<u32> {
    match store.value(&Key::Handle(id.to_owned()))? {
        Value::Handle(handle) => handle.blocks.get(cidr).copied(),
        _ => None,
    }
}

fn block<'a>(store: &'a SimStore, cidr: &IpNet) -> Option<&'a Block> {
    match store.value(&Key::Block(*cidr))? {
        Value::Block(block) => Some(block),
        _ => None,
    }
}

/// I1 within the records, and the part of I2 that holds at every moment: what is given is found by its handle.
pub(crate) fn records(store: &SimStore) -> Result<(), String> {
    for (key, value) in store.iter() {
        match (key, value) {
            (Key::Block(cidr), Value::Block(block)) => {
                well_formed(block).map_err(|defect| format!("block {cidr}: {defect}: {block:?}"))?;
                found_by_handle(store, block)?;
            }
            (Key::Affinity { owner, cidr }, Value::Affinity(affinity)) => {
                let has_it =
                    || block(store, cidr).is_some_and(|block| block.affinity.as_ref() == Some(owner));
                if affinity.state == AffinityState::Confirmed && !has_it() {
                    return Err(format!(
                        "{owner} has a confirmed affinity to {cidr}, which is not its block"
                    ));
                }
            }
            (Key::Handle(_), Value::Handle(_)) => {}
            other => return Err(format!("IPAM keeps no such record: {other:?}")),
        }
    }
    Ok(())
}

fn found_by_handle(store: &SimStore, block: &Block) -> Result<(), String> {
    let mut last = None;
    for (ordinal, holder) in block.allocated() {
        let id = holder.handle.as_deref().unwrap_or_default();
        if last.replace(id) == Some(id) {
            continue;
        }
        let (counted, given) = (counted(store, &block.cidr, id), given(store, &block.cidr, id));
        if counted.is_none_or(|counted| counted < given) {
            return Err(format!(
                "ordinal {ordinal} of block {} is given to handle {id}, which counts {counted:?} of {given}",
                block.cidr
            ));
        }
    }
    Ok(())
}

/// Every ordinal is given or free, and not both; every attribute is used; whatever is given has a sequence number.
fn well_formed(block: &Block) -> Result<(), String> {
    if let Some(defect) = block.defect() {
        return Err(defect);
    }
    let stamp = |ordinal: usize| block.sequence_number_for_allocation.get(&ordinal).copied();
    for (ordinal, index) in block.allocations.iter().enumerate() {
        let queued = block.unallocated.iter().filter(|free| **free == ordinal).count();
        if queued != usize::from(index.is_none()) {
            return Err(format!(
                "ordinal {ordinal} is given to {index:?} and stands {queued} times in the queue"
            ));
        }
        let fits = match (index, stamp(ordinal)) {
            (Some(_), Some(stamp)) => stamp < block.sequence_number,
            (None, None) => true,
            _ => false,
        };
        if !fits {
            return Err(format!(
                "ordinal {ordinal} has a wrong sequence number: {:?}",
                stamp(ordinal)
            ));
        }
    }
    if block
        .unallocated
        .iter()
        .any(|free| *free >= block.allocations.len())
    {
        return Err("a free ordinal beyond the block".to_owned());
    }
    let unused = (0..block.attributes.len()).find(|index| !block.allocations.contains(&Some(*index)));
    unused.map_or(Ok(()), |index| Err(format!("nobody uses attribute {index}")))
}
