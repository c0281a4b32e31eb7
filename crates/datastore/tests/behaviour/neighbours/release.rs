//! How Calico frees addresses and gives blocks up.

use std::collections::BTreeMap;

use buoy_api::ipam::{AffinityState, Block};
use buoy_core::store::{Key, Prefix, Value};
use ipnet::IpNet;

use super::calico::{Calico, RETRIES};
use super::line::Down;

impl Calico<'_> {
    /// Frees what a handle has.
    pub(crate) fn release(&self, handle: &str) -> Result<(), Down> {
        let Some((record, _)) = self.line.handle(handle)? else {
            return Ok(());
        };
        for cidr in record.blocks.keys() {
            self.release_from(*cidr, |block| block.ordinals_of(handle).collect())?;
        }
        Ok(())
    }

    /// Takes ordinals of a block back, and then counts down the handles that had them.
    pub(crate) fn release_from(
        &self,
        cidr: IpNet,
        which: impl Fn(&Block) -> Vec<usize>,
    ) -> Result<usize, Down> {
        let taken = self.alter(cidr, |block| {
            let ordinals = which(block);
            let holders = ordinals.iter().filter_map(|ordinal| block.holder(*ordinal));
            let handles: Vec<String> = holders.filter_map(|holder| holder.handle.clone()).collect();
            self.cooling.take_back(block, &ordinals);
            (!ordinals.is_empty()).then_some(handles)
        })?;
        let taken = taken.unwrap_or_default();
        let mut counts: BTreeMap<&String, i64> = BTreeMap::new();
        for handle in &taken {
            *counts.entry(handle).or_default() += 1;
        }
        for (handle, count) in counts {
            self.count(handle, cidr, -count)?;
        }
        Ok(taken.len())
    }

    /// Frees what has cooled down.
    pub(crate) fn thaw(&self, cidr: IpNet) -> Result<(), Down> {
        let thawed = |block: &mut Block| (self.cooling.thaw(block) > 0).then_some(());
        self.alter(cidr, thawed).map(drop)
    }

    /// Changes a block, if there is something to change. One that is empty then, and nobody's, goes.
    fn alter<T>(&self, cidr: IpNet, change: impl Fn(&mut Block) -> Option<T>) -> Result<Option<T>, Down> {
        for _ in 0..RETRIES {
            let Some((mut block, revision)) = self.line.block(cidr)? else {
                return Ok(None);
            };
            let Some(changed) = change(&mut block) else {
                return Ok(None);
            };
            block.sequence_number += 1;
            let written = if block.affinity.is_none() && block.is_empty() {
                self.line.delete(Key::Block(cidr), revision)?
            } else {
                self.line
                    .update(Key::Block(cidr), Value::Block(block), revision)?
            };
            if written {
                return Ok(Some(changed));
            }
        }
        Err(Down)
    }

    /// Gives an affine block up that is empty.
    pub(crate) fn give_up(&self, cidr: IpNet) -> Result<(), Down> {
        let Some((affinity, revision)) = self.affinity(cidr)? else {
            return Ok(());
        };
        let Some((block, _)) = self.line.block(cidr)? else {
            return Ok(());
        };
        if block.affinity != Some(self.owner()) || !block.is_empty() {
            return Ok(());
        }
        let leaving = self.set_state(cidr, affinity, revision, AffinityState::PendingDeletion)?;
        let Some(leaving) = leaving else {
            return Ok(());
        };
        // What the block is now counts: somebody may have an address of it since.
        let Some((mut block, at)) = self.line.block(cidr)? else {
            return self.line.delete(self.affinity_key(cidr), leaving).map(drop);
        };
        let gone = if block.is_empty() {
            self.line.delete(Key::Block(cidr), at)?
        } else {
            block.affinity = None;
            block.sequence_number += 1;
            self.line.update(Key::Block(cidr), Value::Block(block), at)?
        };
        if gone {
            self.line.delete(self.affinity_key(cidr), leaving)?;
        }
        Ok(())
    }

    /// Gives all affine blocks up that are empty.
    pub(crate) fn give_up_all(&self) -> Result<(), Down> {
        for record in self.line.list(Prefix::Affinities(self.owner()))? {
            if let Key::Affinity { cidr, .. } = record.key {
                self.give_up(cidr)?;
            }
        }
        Ok(())
    }
}
