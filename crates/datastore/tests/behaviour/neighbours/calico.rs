//! How Calico allocates: a model of its behaviour, written from its description, which shares no code with this project's
//! IPAM. An answer that is lost is an error to it, and its caller begins again.

use std::collections::BTreeMap;
use std::net::IpAddr;

use buoy_api::ipam::{AffinityOwner, AffinityState, Attribute, Block, BlockAffinity, Handle};
use buoy_core::store::{Key, Prefix, Record, Reply, Revision, StoreOp, Value};
use ipnet::IpNet;

use super::line::{Down, Line};

/// Conflicts after which it gives up.
const RETRIES: u32 = 100;
/// Blocks that a host claims at most.
const MAX_BLOCKS: usize = 20;

pub(crate) struct Calico<'a> {
    pub(crate) line: Line<'a>,
    pub(crate) host: String,
    pub(crate) pool: IpNet,
    pub(crate) block_len: u8,
}

/// A record with its revision.
type At<T> = (T, Revision);

impl Calico<'_> {
    /// One address for a handle. `None`: there is none.
    pub(crate) fn assign(
        &self,
        handle: &str,
        says: &BTreeMap<String, String>,
    ) -> Result<Option<IpAddr>, Down> {
        for _ in 0..RETRIES {
            let Some(block) = self.find_or_claim()? else {
                return self.borrow(handle, says);
            };
            if let Some(address) = self.give(block, handle, says)? {
                return Ok(Some(address));
            }
        }
        Err(Down)
    }

    /// Frees what a handle has.
    pub(crate) fn release(&self, handle: &str) -> Result<(), Down> {
        let Some((record, _)) = self.handle(handle)? else {
            return Ok(());
        };
        for cidr in record.blocks.keys() {
            self.release_from(*cidr, |block| block.ordinals_of(handle).collect(), handle)?;
        }
        Ok(())
    }

    /// Frees ordinals of a block, and then counts the handle down.
    pub(crate) fn release_from(
        &self,
        cidr: IpNet,
        which: impl Fn(&Block) -> Vec<usize>,
        handle: &str,
    ) -> Result<usize, Down> {
        for _ in 0..RETRIES {
            let Some((mut block, revision)) = self.block(cidr)? else {
                return Ok(0);
            };
            let ordinals = which(&block);
            if ordinals.is_empty() {
                return Ok(0);
            }
            free(&mut block, &ordinals);
            let written = if block.affinity.is_none() && block.allocations.iter().all(Option::is_none) {
                self.delete(Key::Block(cidr), revision)?
            } else {
                self.update(Key::Block(cidr), Value::Block(block), revision)?
            };
            if written {
                self.count(handle, cidr, -i64::try_from(ordinals.len()).unwrap())?;
                return Ok(ordinals.len());
            }
        }
        Err(Down)
    }

    /// Gives an affine block up that is empty.
    pub(crate) fn give_up(&self, cidr: IpNet) -> Result<(), Down> {
        let Some((affinity, revision)) = self.affinity(cidr)? else {
            return Ok(());
        };
        let Some((block, _)) = self.block(cidr)? else {
            return Ok(());
        };
        if block.affinity != Some(self.owner()) || block.allocations.iter().any(Option::is_some) {
            return Ok(());
        }
        let leaving = self.set_state(cidr, affinity, revision, AffinityState::PendingDeletion)?;
        let Some(leaving) = leaving else {
            return Ok(());
        };
        // What the block is now counts: somebody may have an address of it since.
        let Some((mut block, at)) = self.block(cidr)? else {
            return self.delete(self.affinity_key(cidr), leaving).map(drop);
        };
        let gone = if block.allocations.iter().all(Option::is_none) {
            self.delete(Key::Block(cidr), at)?
        } else {
            block.affinity = None;
            block.sequence_number += 1;
            self.update(Key::Block(cidr), Value::Block(block), at)?
        };
        if gone {
            self.delete(self.affinity_key(cidr), leaving)?;
        }
        Ok(())
    }

    fn owner(&self) -> AffinityOwner {
        AffinityOwner::Host(self.host.clone())
    }

    /// An own block with a free address, or a new one.
    fn find_or_claim(&self) -> Result<Option<At<Block>>, Down> {
        let own = self.list(Prefix::Affinities(self.owner()))?;
        let mut count = 0;
        for record in own {
            let Key::Affinity { cidr, .. } = record.key else {
                continue;
            };
            if let Some(block) = self.block_of_affinity(cidr)? {
                count += 1;
                if !block.0.unallocated.is_empty() {
                    return Ok(Some(block));
                }
            }
        }
        if count >= MAX_BLOCKS {
            return Ok(None);
        }
        let taken: Vec<IpNet> = self.blocks()?.into_iter().map(|(block, _)| block.cidr).collect();
        let free = self.walk().into_iter().find(|cidr| !taken.contains(cidr));
        match free {
            None => Ok(None),
            Some(cidr) => match self.claim(cidr)? {
                Some(block) => Ok(Some(block)),
                None => self.find_or_claim(),
            },
        }
    }

    /// All blocks of the pool, beginning somewhere.
    fn walk(&self) -> Vec<IpNet> {
        let mut all: Vec<IpNet> = self.pool.subnets(self.block_len).unwrap().collect();
        let first = self.host.bytes().map(usize::from).sum::<usize>() % all.len();
        all.rotate_left(first);
        all
    }

    fn block_of_affinity(&self, cidr: IpNet) -> Result<Option<At<Block>>, Down> {
        let Some((affinity, revision)) = self.affinity(cidr)? else {
            return Ok(None);
        };
        let Some((mut block, at)) = self.block(cidr)? else {
            if self
                .set_state(cidr, affinity, revision, AffinityState::Pending)?
                .is_some()
            {
                return self.make_block(cidr);
            }
            return Ok(None);
        };
        if block.affinity != Some(self.owner()) {
            self.delete(self.affinity_key(cidr), revision)?;
            return Ok(None);
        }
        if affinity.state == AffinityState::Confirmed {
            return Ok(Some((block, at)));
        }
        // Written unchanged, for whoever is about to give it up to meet a conflict.
        block.sequence_number += 1;
        let pending = self.set_state(cidr, affinity, revision, AffinityState::Pending)?;
        if pending.is_none() || !self.update(Key::Block(cidr), Value::Block(block), at)? {
            return Ok(None);
        }
        self.confirm(cidr)
    }

    fn claim(&self, cidr: IpNet) -> Result<Option<At<Block>>, Down> {
        let pending = BlockAffinity {
            state: AffinityState::Pending,
            deleted: false,
            extra: Default::default(),
        };
        let created = self.create(self.affinity_key(cidr), Value::Affinity(pending))?;
        if !created {
            let Some((affinity, revision)) = self.affinity(cidr)? else {
                return Ok(None);
            };
            if affinity.state != AffinityState::Confirmed
                && self
                    .set_state(cidr, affinity, revision, AffinityState::Pending)?
                    .is_none()
            {
                return Ok(None);
            }
        }
        self.make_block(cidr)
    }

    fn make_block(&self, cidr: IpNet) -> Result<Option<At<Block>>, Down> {
        let size = 1 << (cidr.max_prefix_len() - cidr.prefix_len());
        let block = Block {
            cidr,
            affinity: Some(self.owner()),
            affinity_claim_time: None,
            allocations: vec![None; size],
            unallocated: (0..size).collect(),
            attributes: Vec::new(),
            sequence_number: 1_700_000_000_000_000_000 + self.line.below(1 << 40),
            sequence_number_for_allocation: BTreeMap::new(),
            deleted: false,
            extra: Default::default(),
        };
        if !self.create(Key::Block(cidr), Value::Block(block))? {
            let found = self.block(cidr)?;
            if found.is_none_or(|(found, _)| found.affinity != Some(self.owner())) {
                self.drop_affinity(cidr)?;
                return Ok(None);
            }
        }
        self.confirm(cidr)
    }

    fn confirm(&self, cidr: IpNet) -> Result<Option<At<Block>>, Down> {
        let Some((affinity, revision)) = self.affinity(cidr)? else {
            return Ok(None);
        };
        let is_confirmed = affinity.state == AffinityState::Confirmed;
        if !is_confirmed
            && self
                .set_state(cidr, affinity, revision, AffinityState::Confirmed)?
                .is_none()
        {
            return Ok(None);
        }
        let block = self.block(cidr)?;
        Ok(block.filter(|(block, _)| block.affinity == Some(self.owner())))
    }

    fn borrow(&self, handle: &str, says: &BTreeMap<String, String>) -> Result<Option<IpAddr>, Down> {
        for cidr in self.walk() {
            for _ in 0..RETRIES {
                let Some(block) = self
                    .block(cidr)?
                    .filter(|(block, _)| !block.unallocated.is_empty())
                else {
                    break;
                };
                if let Some(address) = self.give(block, handle, says)? {
                    return Ok(Some(address));
                }
            }
        }
        Ok(None)
    }

    /// The first free address, if nobody is quicker: the handle first, then the block.
    fn give(
        &self,
        (mut block, revision): At<Block>,
        handle: &str,
        says: &BTreeMap<String, String>,
    ) -> Result<Option<IpAddr>, Down> {
        let cidr = block.cidr;
        let ordinal = block.unallocated.remove(0);
        block.allocations[ordinal] = Some(block.attributes.len());
        block.attributes.push(Attribute {
            handle: Some(handle.to_owned()),
            secondary: says.clone(),
            ..Attribute::default()
        });
        let number = block.sequence_number;
        block.sequence_number_for_allocation.insert(ordinal, number);
        block.sequence_number += 1;
        let address = block.address(ordinal);
        self.count(handle, cidr, 1)?;
        if self.update(Key::Block(cidr), Value::Block(block), revision)? {
            return Ok(address);
        }
        self.count(handle, cidr, -1)?;
        Ok(None)
    }

    /// Counts a handle up or down; one that has nothing goes.
    fn count(&self, handle: &str, cidr: IpNet, by: i64) -> Result<(), Down> {
        for _ in 0..RETRIES {
            let key = Key::Handle(handle.to_owned());
            let found = self.handle(handle)?;
            let (mut record, revision) = match found {
                Some((record, revision)) => (record, Some(revision)),
                None if by < 0 => return Ok(()),
                None => (Handle::default(), None),
            };
            let now = i64::from(record.blocks.get(&cidr).copied().unwrap_or(0)) + by;
            match u32::try_from(now) {
                Ok(now) if now > 0 => record.blocks.insert(cidr, now),
                _ => record.blocks.remove(&cidr),
            };
            let written = match revision {
                Some(revision) if record.blocks.is_empty() => self.delete(key, revision)?,
                Some(revision) => self.update(key, Value::Handle(record), revision)?,
                None => self.create(key, Value::Handle(record))?,
            };
            if written {
                return Ok(());
            }
        }
        Err(Down)
    }

    fn affinity_key(&self, cidr: IpNet) -> Key {
        Key::Affinity {
            owner: self.owner(),
            cidr,
        }
    }

    fn set_state(
        &self,
        cidr: IpNet,
        mut affinity: BlockAffinity,
        revision: Revision,
        state: AffinityState,
    ) -> Result<Option<Revision>, Down> {
        affinity.state = state;
        let op = StoreOp::Update(self.affinity_key(cidr), Value::Affinity(affinity), revision);
        match self.line.run(&op)? {
            Reply::Written(revision) => Ok(Some(revision)),
            Reply::Conflict => Ok(None),
            _ => Err(Down),
        }
    }

    fn drop_affinity(&self, cidr: IpNet) -> Result<(), Down> {
        if let Some((_, revision)) = self.affinity(cidr)? {
            self.delete(self.affinity_key(cidr), revision)?;
        }
        Ok(())
    }

    fn block(&self, cidr: IpNet) -> Result<Option<At<Block>>, Down> {
        let found = self.get(Key::Block(cidr))?;
        Ok(found.map(|(value, revision)| match value {
            Value::Block(block) => (block, revision),
            other => panic!("{other:?}"),
        }))
    }

    fn affinity(&self, cidr: IpNet) -> Result<Option<At<BlockAffinity>>, Down> {
        let found = self.get(self.affinity_key(cidr))?;
        Ok(found.map(|(value, revision)| match value {
            Value::Affinity(affinity) => (affinity, revision),
            other => panic!("{other:?}"),
        }))
    }

    fn handle(&self, id: &str) -> Result<Option<At<Handle>>, Down> {
        let found = self.get(Key::Handle(id.to_owned()))?;
        Ok(found.map(|(value, revision)| match value {
            Value::Handle(handle) => (handle, revision),
            other => panic!("{other:?}"),
        }))
    }

    pub(crate) fn blocks(&self) -> Result<Vec<At<Block>>, Down> {
        let records = self.list(Prefix::Blocks(buoy_api::ip::Family::V4))?;
        let blocks = records.into_iter().map(|record| match record.value {
            Ok(Value::Block(block)) => (block, record.revision),
            other => panic!("{other:?}"),
        });
        Ok(blocks.collect())
    }

    fn get(&self, key: Key) -> Result<Option<At<Value>>, Down> {
        match self.line.run(&StoreOp::Get(key))? {
            Reply::Record(record) => Ok(record.map(|record| (record.value.unwrap(), record.revision))),
            _ => Err(Down),
        }
    }

    fn list(&self, prefix: Prefix) -> Result<Vec<Record>, Down> {
        match self.line.run(&StoreOp::List(prefix))? {
            Reply::List(records, _) => Ok(records),
            _ => Err(Down),
        }
    }

    fn create(&self, key: Key, value: Value) -> Result<bool, Down> {
        self.write(StoreOp::Create(key, value))
    }

    fn update(&self, key: Key, value: Value, revision: Revision) -> Result<bool, Down> {
        self.write(StoreOp::Update(key, value, revision))
    }

    fn delete(&self, key: Key, revision: Revision) -> Result<bool, Down> {
        self.write(StoreOp::Delete(key, revision))
    }

    /// Whether nobody was quicker.
    fn write(&self, op: StoreOp) -> Result<bool, Down> {
        match self.line.run(&op)? {
            Reply::Written(_) | Reply::Deleted => Ok(true),
            Reply::Conflict => Ok(false),
            _ => Err(Down),
        }
    }
}

/// Ordinals go to the end of the queue; attributes that nobody needs go, and the others are numbered anew.
fn free(block: &mut Block, ordinals: &[usize]) {
    for ordinal in ordinals {
        block.allocations[*ordinal] = None;
        block.unallocated.push(*ordinal);
        block.sequence_number_for_allocation.remove(ordinal);
    }
    let mut kept = Vec::new();
    for slot in block.allocations.iter_mut().flatten() {
        let attribute = block.attributes[*slot].clone();
        let known = kept.iter().position(|other| *other == attribute);
        *slot = known.unwrap_or_else(|| {
            kept.push(attribute);
            kept.len() - 1
        });
    }
    block.attributes = kept;
    block.sequence_number += 1;
}
