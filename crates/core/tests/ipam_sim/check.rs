//! What must hold after every single operation.

use std::collections::BTreeMap;
use std::net::IpAddr;

use buoy_api::ipam::{AffinityOwner, AffinityState, Block, BlockAffinity, Handle};
use buoy_core::store::{Key, Value};
use ipnet::IpNet;

use super::store::SimStore;

/// What the records say, sorted by kind.
#[derive(Debug, Default)]
pub(crate) struct Records<'a> {
    pub blocks: BTreeMap<IpNet, &'a Block>,
    pub handles: BTreeMap<&'a str, &'a Handle>,
    pub affinities: BTreeMap<(&'a AffinityOwner, IpNet), &'a BlockAffinity>,
}

impl<'a> Records<'a> {
    pub(crate) fn of(store: &'a SimStore) -> Self {
        let mut records = Self::default();
        for (key, value) in store.iter() {
            match (key, value) {
                (Key::Block(cidr), Value::Block(block)) => drop(records.blocks.insert(*cidr, block)),
                (Key::Handle(id), Value::Handle(handle)) => drop(records.handles.insert(id, handle)),
                (Key::Affinity { owner, cidr }, Value::Affinity(affinity)) => {
                    records.affinities.insert((owner, *cidr), affinity);
                }
                other => panic!("IPAM keeps no such record: {other:?}"),
            }
        }
        records
    }

    /// The handle that an address is given to, with its sequence number.
    pub(crate) fn holder(&self, address: IpAddr) -> Option<(&'a str, u64)> {
        let block = self.blocks.values().find(|block| block.cidr.contains(&address))?;
        let ordinal = block.ordinal(address)?;
        let stamp = *block.sequence_number_for_allocation.get(&ordinal)?;
        Some((block.holder(ordinal)?.handle.as_deref()?, stamp))
    }

    /// How many addresses a block gives to a handle.
    pub(crate) fn given(&self, cidr: &IpNet, id: &str) -> u32 {
        self.blocks
            .get(cidr)
            .map_or(0, |block| block.ordinals_of(id).count() as u32)
    }

    /// I1 within the records, and the part of I2 that holds at every moment: what is given is found by its handle.
    pub(crate) fn check(&self) -> Result<(), String> {
        for block in self.blocks.values() {
            well_formed(block).map_err(|defect| format!("block {}: {defect}: {block:?}", block.cidr))?;
            self.found_by_handle(block)?;
        }
        for ((owner, cidr), affinity) in &self.affinities {
            let block = self.blocks.get(cidr);
            if affinity.state == AffinityState::Confirmed
                && block.is_none_or(|block| block.affinity.as_ref() != Some(*owner))
            {
                return Err(format!(
                    "{owner} has a confirmed affinity to {cidr}, which is not its block"
                ));
            }
        }
        Ok(())
    }

    fn found_by_handle(&self, block: &Block) -> Result<(), String> {
        for (ordinal, holder) in block.allocated() {
            let id = holder.handle.as_deref().unwrap_or_default();
            let counted = self
                .handles
                .get(id)
                .and_then(|handle| handle.blocks.get(&block.cidr));
            let given = self.given(&block.cidr, id);
            if counted.is_none_or(|counted| *counted < given) {
                return Err(format!(
                    "ordinal {ordinal} of block {} is given to handle {id}, which counts {counted:?} of {given}",
                    block.cidr
                ));
            }
        }
        Ok(())
    }
}

/// Every ordinal is given or free, and not both; every attribute is used; whatever is given has a sequence number.
fn well_formed(block: &Block) -> Result<(), String> {
    if let Some(defect) = block.defect() {
        return Err(defect);
    }
    let mut times = vec![0; block.allocations.len()];
    for ordinal in &block.unallocated {
        *times.get_mut(*ordinal).ok_or("a free ordinal beyond the block")? += 1;
    }
    let mut used = vec![false; block.attributes.len()];
    for (ordinal, index) in block.allocations.iter().enumerate() {
        let stamp = block.sequence_number_for_allocation.get(&ordinal);
        match index {
            Some(index) => {
                times[ordinal] += 1;
                used[*index] = true;
                if stamp.is_none_or(|stamp| *stamp >= block.sequence_number) {
                    return Err(format!("ordinal {ordinal} was given at {stamp:?}"));
                }
            }
            None if stamp.is_some() => return Err(format!("free ordinal {ordinal} has a sequence number")),
            None => {}
        }
    }
    if times.iter().any(|times| *times != 1) {
        return Err("an ordinal is both given and free, or neither".to_owned());
    }
    match used.iter().all(|used| *used) {
        true => Ok(()),
        false => Err("an attribute that nobody uses".to_owned()),
    }
}
