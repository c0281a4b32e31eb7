//! How Calico allocates: a model of its behaviour, written from its description, which shares no code with this project's
//! IPAM. An answer that is lost is an error to it, and its caller begins again.

use std::collections::BTreeMap;
use std::net::IpAddr;

use buoy_api::ipam::{AffinityOwner, AffinityState, Attribute, Block, BlockAffinity, Handle};
use buoy_core::store::{Key, Prefix, Reply, Revision, StoreOp, Value};
use ipnet::IpNet;

use super::cooling::Cooling;
use super::ledger::At;
use super::line::{Down, Line};

/// Conflicts after which it gives up.
pub(super) const RETRIES: u32 = 100;
/// Blocks that a host claims at most.
const MAX_BLOCKS: usize = 20;

pub(crate) struct Calico<'a> {
    pub(crate) line: Line<'a>,
    pub(crate) host: String,
    pub(crate) pool: IpNet,
    pub(crate) block_len: u8,
    /// What becomes of addresses that it releases.
    pub(crate) cooling: Cooling,
}

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

    pub(super) fn owner(&self) -> AffinityOwner {
        AffinityOwner::Host(self.host.clone())
    }

    /// An own block with a free address, or a new one.
    fn find_or_claim(&self) -> Result<Option<At<Block>>, Down> {
        let own = self.line.list(Prefix::Affinities(self.owner()))?;
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
        let taken: Vec<IpNet> = self
            .line
            .blocks()?
            .into_iter()
            .map(|(block, _)| block.cidr)
            .collect();
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
        let Some((mut block, at)) = self.line.block(cidr)? else {
            if self
                .set_state(cidr, affinity, revision, AffinityState::Pending)?
                .is_some()
            {
                return self.make_block(cidr);
            }
            return Ok(None);
        };
        if block.affinity != Some(self.owner()) {
            self.line.delete(self.affinity_key(cidr), revision)?;
            return Ok(None);
        }
        if affinity.state == AffinityState::Confirmed {
            return Ok(Some((block, at)));
        }
        // Written unchanged, for whoever is about to give it up to meet a conflict.
        block.sequence_number += 1;
        let pending = self.set_state(cidr, affinity, revision, AffinityState::Pending)?;
        if pending.is_none() || !self.line.update(Key::Block(cidr), Value::Block(block), at)? {
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
        let created = self
            .line
            .create(self.affinity_key(cidr), Value::Affinity(pending))?;
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
        if !self.line.create(Key::Block(cidr), Value::Block(block))? {
            let found = self.line.block(cidr)?;
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
        let block = self.line.block(cidr)?;
        Ok(block.filter(|(block, _)| block.affinity == Some(self.owner())))
    }

    fn borrow(&self, handle: &str, says: &BTreeMap<String, String>) -> Result<Option<IpAddr>, Down> {
        for cidr in self.walk() {
            for _ in 0..RETRIES {
                let Some(block) = self
                    .line
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
        if self
            .line
            .update(Key::Block(cidr), Value::Block(block), revision)?
        {
            return Ok(address);
        }
        self.count(handle, cidr, -1)?;
        Ok(None)
    }

    /// Counts a handle up or down; one that has nothing goes.
    pub(super) fn count(&self, handle: &str, cidr: IpNet, by: i64) -> Result<(), Down> {
        for _ in 0..RETRIES {
            let key = Key::Handle(handle.to_owned());
            let found = self.line.handle(handle)?;
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
                Some(revision) if record.blocks.is_empty() => self.line.delete(key, revision)?,
                Some(revision) => self.line.update(key, Value::Handle(record), revision)?,
                None => self.line.create(key, Value::Handle(record))?,
            };
            if written {
                return Ok(());
            }
        }
        Err(Down)
    }

    pub(super) fn affinity_key(&self, cidr: IpNet) -> Key {
        Key::Affinity {
            owner: self.owner(),
            cidr,
        }
    }

    pub(super) fn set_state(
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
            self.line.delete(self.affinity_key(cidr), revision)?;
        }
        Ok(())
    }

    pub(super) fn affinity(&self, cidr: IpNet) -> Result<Option<At<BlockAffinity>>, Down> {
        let found = self.line.get(self.affinity_key(cidr))?;
        Ok(found.map(|(value, revision)| match value {
            Value::Affinity(affinity) => (affinity, revision),
            other => panic!("{other:?}"),
        }))
    }
}
