//! Automatic assignment.
//!
//! Where the caller's cache is fresh it is two writes: the handle, then the block. Otherwise the handle and its blocks
//! are read, which also finds what the handle already has: asking again gives the same addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use buoy_api::ip::Family;
use buoy_api::ipam::{AffinityOwner, AffinityState, Block, Handle};
use ipnet::IpNet;

use super::access::{At, decode};
use super::block;
use super::error::{IpamError, Shortage};
use super::gift::Gift;
use super::handle::{self, Counts};
use super::pool::{self, PoolError};
use super::protocol::{Protocol, Store, machine};
use super::range::Range;
use super::release::{What, block_record, settle};
use super::request::{Assigned, AutoAssignRequest};
use super::search::{Found, Search};
use crate::store::{Key, Value};

machine! {
    /// Gives a workload addresses, all that it asks for or none. A handle that already has addresses keeps them, and
    /// they count.
    AutoAssign: Result<Assigned, IpamError>
}

impl AutoAssign {
    /// Begins an assignment.
    pub fn new(request: AutoAssignRequest) -> Self {
        Self(Protocol::new(|store| auto_assign(store, request)))
    }
}

async fn auto_assign(mut store: Store, request: AutoAssignRequest) -> Result<Assigned, IpamError> {
    let wanted = wanted(&request)?;
    if wanted.is_empty() {
        return Ok(Assigned::default());
    }
    let owner = AffinityOwner::Host(request.asker.host.clone());
    let mut job = Job {
        request: &request,
        owner: &owner,
        wanted: &wanted,
        gift: Gift::default(),
    };
    if let Some(held) = job.warm(&mut store).await? {
        return Ok(job.answer(&held));
    }
    match job.cold(&mut store).await {
        Ok(held) => Ok(job.answer(&held)),
        Err(error) => {
            job.gift.undo(&mut store, &request.grant.handle, &error).await;
            Err(error)
        }
    }
}

/// What is asked of one family.
struct Wanted {
    family: Family,
    count: usize,
    ranges: Vec<Range>,
}

fn wanted(request: &AutoAssignRequest) -> Result<Vec<Wanted>, PoolError> {
    let asked = Family::ALL
        .into_iter()
        .filter(|family| request.ask(*family).count > 0);
    asked
        .map(|family| {
            let (ask, pools) = (request.ask(family), &request.snapshot.pools);
            let chosen = match ask.pools.as_slice() {
                [] => pool::automatic(pools, family, &request.asker)?,
                named => pool::requested(pools, family, named, &request.asker)?,
            };
            Ok(Wanted {
                family,
                count: ask.count,
                ranges: chosen.into_iter().filter_map(Range::of).collect(),
            })
        })
        .collect()
}

/// Addresses that the handle has, by block.
type Held = BTreeMap<IpNet, Vec<IpAddr>>;

struct Job<'a> {
    request: &'a AutoAssignRequest,
    owner: &'a AffinityOwner,
    wanted: &'a [Wanted],
    gift: Gift,
}

impl<'a> Job<'a> {
    /// Two writes and no read. `None`: the cache does not have enough, or is stale, or the handle exists.
    async fn warm(&mut self, store: &mut Store) -> Result<Option<Held>, IpamError> {
        let id = &self.request.grant.handle;
        let Some(images) = self.images_from_cache() else {
            return Ok(None);
        };
        let counts: Counts = images
            .iter()
            .map(|(image, _)| (image.record.cidr, handle::count_in(&image.record, id)))
            .collect();
        if self.gift.raise(store, id, &mut None, &counts).await?.is_none() {
            return Ok(None);
        }
        let mut held = Held::new();
        for (image, addresses) in images {
            let cidr = image.record.cidr;
            if self.gift.write_block(store, image, &addresses).await?.is_none() {
                return Ok(None);
            }
            held.insert(cidr, addresses);
        }
        Ok(Some(held))
    }

    /// Cached blocks with the wanted addresses given, if they are enough.
    fn images_from_cache(&self) -> Option<Vec<(At<Block>, Vec<IpAddr>)>> {
        let (grant, reserved) = (&self.request.grant, &self.request.snapshot.reserved);
        let mut images = Vec::new();
        for wanted in self.wanted {
            let mut missing = wanted.count;
            for mut image in self.cached(wanted) {
                if missing == 0 {
                    break;
                }
                if image.record.ordinals_of(&grant.handle).next().is_some() {
                    return None;
                }
                let addresses = block::give_next(&mut image.record, missing, grant, reserved);
                if !addresses.is_empty() {
                    missing -= addresses.len();
                    images.push((image, addresses));
                }
            }
            if missing > 0 {
                return None;
            }
        }
        Some(images)
    }

    /// This node's cached blocks of the wanted pools; not those whose affinity is known to be in doubt.
    fn cached(&self, wanted: &Wanted) -> impl Iterator<Item = At<Block>> {
        let ours =
            |cidr: &IpNet| wanted.ranges.iter().any(|range| range.has_block(cidr)) && !self.in_doubt(cidr);
        let candidates = self
            .request
            .cached
            .iter()
            .filter(move |record| match &record.key {
                Key::Block(cidr) => ours(cidr),
                _ => false,
            });
        candidates.filter_map(|record| {
            let revision = record.revision;
            let record: Block = decode(record.clone()).ok()?;
            let usable = record.affinity.as_ref() == Some(self.owner) && !record.deleted;
            usable.then_some(At { record, revision })
        })
    }

    fn in_doubt(&self, block: &IpNet) -> bool {
        self.request
            .cached
            .iter()
            .any(|record| match (&record.key, &record.value) {
                (Key::Affinity { owner, cidr }, Ok(Value::Affinity(affinity))) => {
                    owner == self.owner && cidr == block && affinity.state != AffinityState::Confirmed
                }
                _ => false,
            })
    }

    /// Reads what there is, and adds what is missing.
    async fn cold(&mut self, store: &mut Store) -> Result<Held, IpamError> {
        let mut searches: Vec<Search<'_>> = self.wanted.iter().map(|wanted| self.search(wanted)).collect();
        loop {
            if let Some(held) = self.attempt(store, &mut searches).await? {
                return Ok(held);
            }
        }
    }

    fn search(&self, wanted: &'a Wanted) -> Search<'a> {
        let request = self.request;
        Search::new(
            self.owner,
            &request.snapshot,
            wanted.family,
            &wanted.ranges,
            request.seed,
            request.now,
        )
    }

    /// One run from the reading of the handle. `None`: again.
    async fn attempt(
        &mut self,
        store: &mut Store,
        searches: &mut [Search<'a>],
    ) -> Result<Option<Held>, IpamError> {
        let id = &self.request.grant.handle;
        let mut known: Option<At<Handle>> = store.get(&handle::key(id)).await?;
        let Some(mut held) = self.hold(store, known.as_ref()).await? else {
            return Ok(None);
        };
        for (wanted, search) in self.wanted.iter().zip(searches) {
            loop {
                let have = of_family(&held, wanted.family).count();
                if have >= wanted.count {
                    break;
                }
                let mut image = match search.next(store).await? {
                    Found::Block(image) => image,
                    Found::Nothing(shortages) => return Err(exhausted(wanted, have, shortages)),
                };
                let cidr = image.record.cidr;
                if image.record.ordinals_of(id).count() != held.get(&cidr).map_or(0, Vec::len) {
                    // A write whose answer was lost has happened after all.
                    return Ok(None);
                }
                let (grant, reserved) = (&self.request.grant, &self.request.snapshot.reserved);
                let given = block::give_next(&mut image.record, wanted.count - have, grant, reserved);
                if self
                    .gift
                    .write(store, id, &mut known, image, &given)
                    .await?
                    .is_none()
                {
                    return Ok(None);
                }
                held.entry(cidr).or_default().extend(given);
            }
        }
        self.correct(store, known.as_ref(), &held).await;
        Ok(Some(held))
    }

    /// What the handle has already. Each block is written once, unchanged: a release of the handle that was given up may
    /// still have a write under way, which must not come after our answer. `None`: again.
    async fn hold(
        &mut self,
        store: &mut Store,
        known: Option<&At<Handle>>,
    ) -> Result<Option<Held>, IpamError> {
        let mut held = Held::new();
        for cidr in known.iter().flat_map(|known| known.record.blocks.keys()) {
            let found: Option<At<Block>> = store.get(&Key::Block(*cidr)).await?;
            let Some(found) = found else {
                continue;
            };
            let ordinals = found.record.ordinals_of(&self.request.grant.handle);
            let addresses: Vec<IpAddr> = ordinals
                .filter_map(|ordinal| found.record.address(ordinal))
                .collect();
            if !addresses.is_empty() && !self.gift.keep(store, found).await? {
                return Ok(None);
            }
            held.insert(*cidr, addresses);
        }
        Ok(Some(held))
    }

    /// Corrects a handle that counts more than it has: a block that was written to it was given by others meanwhile.
    async fn correct(&mut self, store: &mut Store, known: Option<&At<Handle>>, held: &Held) {
        let counted = known.iter().flat_map(|known| &known.record.blocks);
        let have = |cidr: &IpNet| held.get(cidr).map_or(0, Vec::len);
        let over: Vec<IpNet> = counted
            .filter(|(cidr, count)| **count as usize > have(cidr))
            .map(|(cidr, _)| *cidr)
            .collect();
        if over.is_empty() {
            return;
        }
        // The addresses are given whether this works or not, and the release corrects it too.
        let _ = settle(store, &self.request.grant.handle, What::Nothing).await;
        self.gift.written.retain(|cidr, _| !over.contains(cidr));
    }

    /// Sorted, so that asking again gives the same answer.
    fn answer(&self, held: &Held) -> Assigned {
        let mut addresses = Vec::new();
        for wanted in self.wanted {
            let mut of_family: Vec<IpNet> = of_family(held, wanted.family).collect();
            of_family.sort_unstable();
            addresses.extend(of_family.into_iter().take(wanted.count));
        }
        Assigned {
            addresses,
            written: self.gift.written.values().map(block_record).collect(),
        }
    }
}

fn of_family(held: &Held, family: Family) -> impl Iterator<Item = IpNet> {
    let blocks = held
        .iter()
        .filter(move |(cidr, _)| Family::of_net(cidr) == family);
    blocks.flat_map(|(cidr, addresses)| {
        addresses
            .iter()
            .filter_map(|address| IpNet::new(*address, cidr.prefix_len()).ok())
    })
}

fn exhausted(wanted: &Wanted, given: usize, shortages: Vec<Shortage>) -> IpamError {
    IpamError::Exhausted {
        family: wanted.family,
        wanted: wanted.count,
        given,
        shortages,
    }
}
