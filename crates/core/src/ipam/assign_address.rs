//! Assignment of chosen addresses.
//!
//! An address in a block that nobody has makes the block this node's; in another node's block it is borrowed, unless
//! affinity is strict.

use std::net::IpAddr;

use buoy_api::ip::Family;
use buoy_api::ipam::{AffinityOwner, Block, Handle};
use ipnet::IpNet;

use super::access::At;
use super::error::{Holder, IpamError};
use super::gift::Gift;
use super::pool::{self, PoolError, Refused, Why};
use super::protocol::{Protocol, Store, machine};
use super::range::Range;
use super::release::block_record;
use super::request::{AssignAddressRequest, Assigned};
use super::{affinity, block, handle};
use crate::store::{Key, Prefix};

machine! {
    /// Gives a workload the addresses it chose, all or none. Asking again under the same handle is success.
    AssignAddress: Result<Assigned, IpamError>
}

impl AssignAddress {
    /// Begins an assignment.
    pub fn new(request: AssignAddressRequest) -> Self {
        Self(Protocol::new(|store| assign(store, request)))
    }
}

async fn assign(mut store: Store, request: AssignAddressRequest) -> Result<Assigned, IpamError> {
    let chosen = chosen(&request)?;
    let mut job = Job {
        request: &request,
        owner: AffinityOwner::Host(request.asker.host.clone()),
        gift: Gift::default(),
        known: None,
    };
    for (address, block) in &chosen {
        if let Err(error) = job.give(&mut store, *address, *block).await {
            job.gift.undo(&mut store, &request.grant.handle, &error).await;
            return Err(error);
        }
    }
    let with_block = |(address, block): &(IpAddr, IpNet)| IpNet::new(*address, block.prefix_len()).ok();
    Ok(Assigned {
        addresses: chosen.iter().filter_map(with_block).collect(),
        written: job.gift.written.values().map(block_record).collect(),
    })
}

/// The block of each address, IPv4 first. The rules of all pools are looked at before anything is written.
fn chosen(request: &AssignAddressRequest) -> Result<Vec<(IpAddr, IpNet)>, PoolError> {
    let mut chosen = Vec::new();
    for address in &request.addresses {
        let pool = pool::for_address(&request.snapshot.pools, *address, &request.asker)?;
        let block = Range::of(pool).and_then(|range| range.block_of(*address));
        let Some(block) = block else {
            let (cidr, block_len) = (pool.spec.cidr, pool.spec.block_len());
            let why = Why::BlockSize { cidr, block_len };
            return Err(PoolError::Refused(Refused::new(pool, Some(*address), why)));
        };
        chosen.push((*address, block));
    }
    chosen.sort_unstable();
    chosen.dedup();
    Ok(chosen)
}

struct Job<'a> {
    request: &'a AssignAddressRequest,
    owner: AffinityOwner,
    gift: Gift,
    known: Option<At<Handle>>,
}

impl Job<'_> {
    async fn give(&mut self, store: &mut Store, address: IpAddr, cidr: IpNet) -> Result<(), IpamError> {
        let grant = &self.request.grant;
        loop {
            let Some(mut image) = self.block(store, cidr).await? else {
                continue;
            };
            let holder = image
                .record
                .ordinal(address)
                .and_then(|ordinal| image.record.holder(ordinal));
            match holder {
                // Written, since a release that was given up may still have a write under way.
                Some(holder) if holder.has_handle(&grant.handle) => {
                    if self.gift.keep(store, image).await? {
                        return Ok(());
                    }
                    continue;
                }
                Some(holder) => {
                    let holder = Holder::from(holder);
                    return Err(IpamError::InUse { address, holder });
                }
                None => {}
            }
            if self.request.snapshot.config.strict_affinity
                && image.record.affinity.as_ref() != Some(&self.owner)
            {
                return Err(IpamError::StrictAffinity {
                    address,
                    block: cidr,
                    owner: image.record.affinity,
                });
            }
            block::give_address(&mut image.record, address, grant);
            if self
                .gift
                .write(store, &grant.handle, &mut self.known, image, &[address])
                .await?
                .is_some()
            {
                return Ok(());
            }
            self.known = store.get(&handle::key(&grant.handle)).await?;
        }
    }

    /// The block as it is now, or newly made. `None`: again.
    async fn block(&self, store: &mut Store, cidr: IpNet) -> Result<Option<At<Block>>, IpamError> {
        let key = Key::Block(cidr);
        let found: Option<At<Block>> = store.get(&key).await?;
        if let Some(found) = found {
            if found.record.affinity.is_some() || !found.record.is_empty() {
                return Ok(Some(found));
            }
            // Left by a reservation that never came: it would keep every node from the block.
            if !store.delete(&key, found.revision).await? {
                return Ok(None);
            }
        }
        if self.may_claim(store, cidr).await? {
            return affinity::claim(store, &self.owner, cidr, self.request.now).await;
        }
        let config = &self.request.snapshot.config;
        if config.strict_affinity {
            let limit = config.block_limit();
            return Err(IpamError::BlockLimit { limit });
        }
        store.create_block(cidr, None, self.request.now).await
    }

    /// Whether this node may hold one more block, or has begun to claim this one.
    async fn may_claim(&self, store: &mut Store, cidr: IpNet) -> Result<bool, IpamError> {
        let family = Family::of_net(&cidr);
        let records = store.list(Prefix::Affinities(self.owner.clone())).await?;
        let of_family = records.iter().filter_map(|record| match &record.key {
            Key::Affinity { cidr, .. } if Family::of_net(cidr) == family => Some(*cidr),
            _ => None,
        });
        let held: Vec<IpNet> = of_family.collect();
        Ok(held.contains(&cidr) || held.len() < self.request.snapshot.config.block_limit())
    }
}
