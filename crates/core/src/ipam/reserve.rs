//! Reservation of floating IPs, so that IPAM gives nobody an address that fronts a workload.
//!
//! A reservation names no pod, namespace or node: a collector that knows only those would free it. It lies in whatever
//! block covers the address, whoever has the block, and a missing block is made without affinity. Each claim of the
//! address stamps it anew; a collector releases it only by the stamp that it saw.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use buoy_api::ip::FloatingIp;
use buoy_api::ipam::{Block, Handle};
use buoy_api::names::{binding_name, floating_handle};
use ipnet::IpNet;
use jiff::Timestamp;

use super::access::{At, decode};
use super::error::{BINDING, FLOATING_IP, Holder, IpamError, TYPE};
use super::gift::Gift;
use super::pool::{PoolError, Refused, Why, covering};
use super::protocol::{Protocol, Store, machine};
use super::range::Range;
use super::release::{Released, What, block_record, settle};
use super::request::{Grant, Snapshot};
use super::{block, handle};
use crate::store::{Key, Record};

/// Request to [`ReserveFloating`].
#[derive(Clone, Debug, PartialEq)]
pub struct ReserveRequest {
    /// Pools: whichever covers the address says how large its block is. Their rules are not looked at here.
    pub snapshot: Arc<Snapshot>,
    /// The floating IP.
    pub address: FloatingIp,
    /// Its block as the caller knows it, which may be old: where it is not, the block need not be read.
    pub known: Option<Record>,
    /// When.
    pub now: Timestamp,
}

/// A reservation that stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Reservation {
    /// Its block.
    pub block: IpNet,
    /// Its sequence number, which rises whenever it is stamped.
    pub stamp: u64,
    /// The block as it was written.
    pub written: Record,
}

machine! {
    /// Reserves a floating IP, or stamps its reservation anew. Refused with the holder if the address is somebody's.
    ReserveFloating: Result<Reservation, IpamError>
}

impl ReserveFloating {
    /// Begins a reservation.
    pub fn new(request: ReserveRequest) -> Self {
        Self(Protocol::new(|store| reserve(store, request)))
    }
}

machine! {
    /// Releases the reservation of a floating IP. None at all is success; one that was stamped since is
    /// [`IpamError::Stamped`] and stays.
    ReleaseReservation: Result<Released, IpamError>
}

impl ReleaseReservation {
    /// With the sequence number that the caller saw.
    pub fn new(address: FloatingIp, stamp: u64) -> Self {
        Self(Protocol::new(move |mut store| async move {
            let address = address.addr();
            settle(
                &mut store,
                &floating_handle(address),
                What::One(address, Some(stamp)),
            )
            .await
        }))
    }
}

async fn reserve(mut store: Store, request: ReserveRequest) -> Result<Reservation, IpamError> {
    let address = request.address.addr();
    let cidr = block_of(&request.snapshot, address)?;
    let known = request.known.and_then(|record| usable(record, cidr));
    let grant = grant(address);
    let mut gift = Gift::default();
    match stamp(&mut store, &mut gift, &grant, (cidr, address), known, request.now).await {
        Ok(reservation) => Ok(reservation),
        Err(error) => {
            gift.undo(&mut store, &grant.handle, &error).await;
            Err(error)
        }
    }
}

/// A block as it is known, unless it says nothing.
fn usable(record: Record, cidr: IpNet) -> Option<At<Block>> {
    let is_it = record.key == Key::Block(cidr);
    let revision = record.revision;
    let record: Block = decode(record).ok()?;
    (is_it && !record.deleted).then_some(At { record, revision })
}

async fn stamp(
    store: &mut Store,
    gift: &mut Gift,
    grant: &Grant,
    (cidr, address): (IpNet, IpAddr),
    mut image: Option<At<Block>>,
    now: Timestamp,
) -> Result<Reservation, IpamError> {
    let mut known: Option<At<Handle>> = None;
    loop {
        let is_old = image.is_some();
        let read = match image.take() {
            None => block(store, cidr, now).await?,
            known => known,
        };
        let Some(mut image) = read else { continue };
        let stamp = image.record.sequence_number;
        let ordinal = image.record.ordinal(address);
        let holder = ordinal.and_then(|ordinal| image.record.holder(ordinal));
        let written = match (ordinal, holder) {
            (Some(ordinal), Some(holder)) if holder.has_handle(&grant.handle) => {
                // The handle counts it already, and stays while the block gives it.
                block::stamp(&mut image.record, ordinal, grant);
                store.update_block(image).await?
            }
            // By now it may be free.
            (_, Some(_)) if is_old => continue,
            (_, Some(holder)) => {
                let holder = Holder::from(holder);
                return Err(IpamError::InUse { address, holder });
            }
            _ => {
                block::give_address(&mut image.record, address, grant);
                let given = gift
                    .write(store, &grant.handle, &mut known, image, &[address])
                    .await?;
                given.and_then(|()| gift.written.remove(&cidr))
            }
        };
        if let Some(written) = written {
            let written = block_record(&written);
            return Ok(Reservation {
                block: cidr,
                stamp,
                written,
            });
        }
        known = store.get(&handle::key(&grant.handle)).await?;
    }
}

/// The block as it is now, or newly made without affinity. `None`: again.
async fn block(store: &mut Store, cidr: IpNet, now: Timestamp) -> Result<Option<At<Block>>, IpamError> {
    let key = Key::Block(cidr);
    let found: Option<At<Block>> = store.get(&key).await?;
    if found.is_some() {
        return Ok(found);
    }
    store.create_block(cidr, None, now).await
}

fn block_of(snapshot: &Snapshot, address: IpAddr) -> Result<IpNet, PoolError> {
    let Some(pool) = covering(&snapshot.pools, address) else {
        let hint = "no pool covers it, so there is nothing to reserve it in";
        return Err(PoolError::NotInPool { address, hint });
    };
    let block = Range::of(pool).and_then(|range| range.block_of(address));
    block.ok_or_else(|| {
        let (cidr, block_len) = (pool.spec.cidr, pool.spec.block_len());
        PoolError::Refused(Refused::new(
            pool,
            Some(address),
            Why::BlockSize { cidr, block_len },
        ))
    })
}

fn grant(address: IpAddr) -> Grant {
    let attributes = [(TYPE, FLOATING_IP.to_owned()), (BINDING, binding_name(address))];
    Grant {
        handle: floating_handle(address),
        attributes: attributes
            .map(|(key, value)| (key.to_owned(), value))
            .into_iter()
            .collect::<BTreeMap<_, _>>(),
    }
}
