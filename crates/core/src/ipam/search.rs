//! Where a node finds a free address: its own blocks, then a block that nobody has, then an empty one that somebody
//! has had for a while.

use std::collections::{BTreeMap, BTreeSet};

use buoy_api::ip::Family;
use buoy_api::ipam::{AffinityOwner, AffinityState, Block};
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};

use super::access::{At, decode};
use super::error::{IpamError, Shortage};
use super::protocol::Store;
use super::range::Range;
use super::request::Snapshot;
use super::{affinity, block};
use crate::store::{Key, Prefix, Record, Value};

/// An empty block of another node is taken from it when it was claimed this long ago.
const RECLAIM_AGE: SignedDuration = SignedDuration::from_secs(60);

/// This node's affinities of a family.
type Affinities = BTreeMap<IpNet, AffinityState>;

/// What a search ends with.
pub(super) enum Found {
    /// A block of this node with room.
    Block(At<Block>),
    /// None, and why.
    Nothing(Vec<Shortage>),
}

/// One family's search, which goes on where it was after a conflict.
pub(super) struct Search<'a> {
    pub(super) owner: &'a AffinityOwner,
    pub(super) snapshot: &'a Snapshot,
    pub(super) family: Family,
    pub(super) ranges: &'a [Range],
    pub(super) seed: u64,
    pub(super) now: Timestamp,
    /// Own blocks without room.
    full: BTreeSet<IpNet>,
    /// The block that was found last: after a conflict it most likely still has room.
    last: Option<IpNet>,
}

impl<'a> Search<'a> {
    pub(super) fn new(
        owner: &'a AffinityOwner,
        snapshot: &'a Snapshot,
        family: Family,
        ranges: &'a [Range],
        seed: u64,
        now: Timestamp,
    ) -> Self {
        Self {
            owner,
            snapshot,
            family,
            ranges,
            seed,
            now,
            full: BTreeSet::new(),
            last: None,
        }
    }

    /// A block of this node with room, as it is now.
    pub(super) async fn next(&mut self, store: &mut Store) -> Result<Found, IpamError> {
        let found = match self.own_again(store).await? {
            Some(found) => Found::Block(found),
            None => self.own_or_new(store).await?,
        };
        self.last = match &found {
            Found::Block(found) => Some(found.record.cidr),
            Found::Nothing(_) => None,
        };
        Ok(found)
    }

    async fn own_again(&mut self, store: &mut Store) -> Result<Option<At<Block>>, IpamError> {
        let Some(last) = self.last else {
            return Ok(None);
        };
        let found: Option<At<Block>> = usable(store.get(&Key::Block(last)).await)?;
        Ok(found.filter(|found| {
            found.record.affinity.as_ref() == Some(self.owner) && self.has_room(&found.record)
        }))
    }

    async fn own_or_new(&mut self, store: &mut Store) -> Result<Found, IpamError> {
        let mut affinities = self.affinities(store).await?;
        for (cidr, state) in affinities.clone() {
            if self.full.contains(&cidr) || !self.in_pools(&cidr) {
                continue;
            }
            match usable(affinity::open(store, self.owner, cidr, state, self.now).await)? {
                Some(found) if self.has_room(&found.record) => return Ok(Found::Block(found)),
                Some(_) => {
                    self.full.insert(cidr);
                }
                None => {
                    affinities.remove(&cidr);
                }
            }
        }
        let config = &self.snapshot.config;
        let limit = config.block_limit();
        if affinities.len() >= limit {
            return Ok(self.nothing(Some(Shortage::BlockLimit { limit })));
        }
        if !config.auto_allocate_blocks {
            return Ok(self.nothing(Some(Shortage::NoNewBlocks)));
        }
        match self.claim_new(store, &affinities).await? {
            Some(claimed) => Ok(Found::Block(claimed)),
            None => Ok(self.nothing(None)),
        }
    }

    async fn affinities(&self, store: &mut Store) -> Result<Affinities, IpamError> {
        let records = store.list(Prefix::Affinities(self.owner.clone())).await?;
        let of_family = records
            .into_iter()
            .filter_map(|record| match (record.key, record.value) {
                (Key::Affinity { cidr, .. }, Ok(Value::Affinity(affinity)))
                    if Family::of_net(&cidr) == self.family =>
                {
                    Some((cidr, affinity.state))
                }
                _ => None,
            });
        Ok(of_family.collect())
    }

    async fn claim_new(
        &self,
        store: &mut Store,
        affinities: &Affinities,
    ) -> Result<Option<At<Block>>, IpamError> {
        let records = store.list(Prefix::Blocks(self.family)).await?;
        // A claim that died may have left a block of this node without an affinity: it is claimed again.
        let others = records.iter().filter(|record| !self.is_own(record));
        let mut taken: BTreeSet<IpNet> = others
            .filter_map(cidr_of)
            .chain(affinities.keys().copied())
            .collect();
        while let Some(cidr) = self.free_block(&taken) {
            match usable(affinity::claim(store, self.owner, cidr, self.now).await)? {
                Some(claimed) if self.has_room(&claimed.record) => return Ok(Some(claimed)),
                _ => taken.insert(cidr),
            };
        }
        for victim in records.into_iter().filter_map(|record| self.idle(record)) {
            let cidr = victim.record.cidr;
            if usable(affinity::reclaim(store, &victim).await.map(Some))? != Some(true) {
                continue;
            }
            let claimed = usable(affinity::claim(store, self.owner, cidr, self.now).await)?;
            if let Some(claimed) = claimed.filter(|claimed| self.has_room(&claimed.record)) {
                return Ok(Some(claimed));
            }
        }
        Ok(None)
    }

    /// The first block in the order of the pools, from a start that the seed decides, which is not taken and not
    /// reserved as a whole.
    fn free_block(&self, taken: &BTreeSet<IpNet>) -> Option<IpNet> {
        self.ranges
            .iter()
            .find_map(|range| self.free_block_of(range, taken))
    }

    fn free_block_of(&self, range: &Range, taken: &BTreeSet<IpNet>) -> Option<IpNet> {
        let count = range.count();
        let start = u128::from(scatter(self.seed)) % count;
        let mut step = 0;
        while step < count {
            let index = (start + step) % count;
            let cidr = range.nth(index)?;
            let skip = match self.reserved_over(&cidr) {
                Some(reserved) => range.blocks_left(index, &reserved),
                None if taken.contains(&cidr) || self.is_reserved_in_pieces(&cidr) => 1,
                None => return Some(cidr),
            };
            step += skip;
        }
        None
    }

    /// An empty block that another host claimed long enough ago, or that nobody has.
    fn idle(&self, record: Record) -> Option<At<Block>> {
        let revision = record.revision;
        let record: Block = decode(record).ok()?;
        let to_take = match &record.affinity {
            None => true,
            Some(AffinityOwner::Virtual(_)) => false,
            Some(host) => {
                let claimed = record.affinity_claim_time;
                host != self.owner
                    && claimed.is_some_and(|since| self.now.duration_since(since) >= RECLAIM_AGE)
            }
        };
        let usable = to_take && record.is_empty() && self.in_pools(&record.cidr) && self.has_room(&record);
        usable.then_some(At { record, revision })
    }

    fn is_own(&self, record: &Record) -> bool {
        let block: Result<Block, _> = decode(record.clone());
        block.is_ok_and(|block| block.affinity.as_ref() == Some(self.owner))
    }

    fn has_room(&self, found: &Block) -> bool {
        block::has_room(found, &self.snapshot.reserved)
    }

    /// A reservation of the whole block. It may cover a great many blocks.
    fn reserved_over(&self, cidr: &IpNet) -> Option<IpNet> {
        self.snapshot
            .reserved
            .iter()
            .find(|range| range.contains(cidr))
            .copied()
    }

    fn is_reserved_in_pieces(&self, cidr: &IpNet) -> bool {
        let touched = self.snapshot.reserved.iter().any(|range| cidr.contains(range));
        touched && !self.has_room(&block::new(*cidr, None, self.now))
    }

    fn in_pools(&self, cidr: &IpNet) -> bool {
        self.ranges.iter().any(|range| range.has_block(cidr))
    }

    fn nothing(&self, reason: Option<Shortage>) -> Found {
        let others_taken = reason.is_none();
        let pools = self.ranges.iter().map(|range| Shortage::Full {
            pool: range.pool.clone(),
            cidr: range.cidr,
            others_taken,
        });
        Found::Nothing(pools.chain(reason).collect())
    }
}

/// A record that is garbage is passed by: it must not keep a node from all the others.
fn usable<T>(result: Result<Option<T>, IpamError>) -> Result<Option<T>, IpamError> {
    match result {
        Err(IpamError::BadRecord { .. }) => Ok(None),
        other => other,
    }
}

fn cidr_of(record: &Record) -> Option<IpNet> {
    match record.key {
        Key::Block(cidr) => Some(cidr),
        _ => None,
    }
}

/// Spreads seeds that lie close together (splitmix64).
fn scatter(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
