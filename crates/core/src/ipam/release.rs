//! Release of addresses by their handle, and correction of a handle that counts too much.
//!
//! The handle is read first, then every block that it names is written, then the handle at the revision that was read.
//! A block that gives nothing to the handle, though the handle counts something there, is written unchanged: whoever
//! was about to give from it meets a conflict, reads the handle again and does not give what nobody would find.

use std::net::IpAddr;

use buoy_api::ipam::{Block, Handle};
use ipnet::IpNet;

use super::access::At;
use super::error::IpamError;
use super::protocol::{Protocol, Store, machine};
use super::{block, handle};
use crate::store::{Key, Record, Value};

machine! {
    /// Frees everything that a handle has. A handle that is not there has nothing: that is success. Blocks of a host
    /// stay; a block without affinity goes with its last address.
    ReleaseHandle: Result<Released, IpamError>
}

impl ReleaseHandle {
    /// For the handle with this ID.
    pub fn new(handle: String) -> Self {
        Self(Protocol::new(|mut store| async move {
            settle(&mut store, &handle, What::All).await
        }))
    }
}

machine! {
    /// Frees one address of a handle. If it is not the handle's any more, that is success.
    ReleaseAddress: Result<Released, IpamError>
}

impl ReleaseAddress {
    /// With a sequence number it is freed only if it was not given anew since.
    pub fn new(address: IpAddr, handle: String, stamp: Option<u64>) -> Self {
        Self(Protocol::new(move |mut store| async move {
            settle(&mut store, &handle, What::One(address, stamp)).await
        }))
    }
}

/// What was freed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Released {
    /// The addresses. After a lost answer some may be missing here.
    pub addresses: Vec<IpAddr>,
    /// Blocks as they were written.
    pub written: Vec<Record>,
}

/// What a handle is to lose.
#[derive(Clone, Copy, Debug)]
pub(super) enum What<'a> {
    /// Every address.
    All,
    /// None; the count is corrected.
    Nothing,
    /// These, each only if it was given with this sequence number.
    Own(&'a [(IpAddr, u64)]),
    /// This one; it is an error if it was given anew since.
    One(IpAddr, Option<u64>),
}

/// Frees addresses of a handle and makes it count what is left.
pub(super) async fn settle(store: &mut Store, id: &str, what: What<'_>) -> Result<Released, IpamError> {
    let mut released = Released::default();
    let key = handle::key(id);
    loop {
        let found: Option<At<Handle>> = store.get(&key).await?;
        let Some(found) = found else {
            return Ok(released);
        };
        let mut left = found.record.clone();
        for (cidr, counted) in &found.record.blocks {
            match sweep(store, id, *cidr, *counted, what, &mut released).await? {
                0 => left.blocks.remove(cidr),
                remaining => left.blocks.insert(*cidr, remaining),
            };
        }
        let settled = if left.blocks.is_empty() {
            store.delete(&key, found.revision).await?
        } else if left != found.record {
            store.update(&key, left, found.revision).await?.is_some()
        } else {
            true
        };
        if settled {
            return Ok(released);
        }
    }
}

/// Does the part of [`settle`] in one block. Returns how many of its addresses the handle still has.
async fn sweep(
    store: &mut Store,
    id: &str,
    cidr: IpNet,
    counted: u32,
    what: What<'_>,
    released: &mut Released,
) -> Result<u32, IpamError> {
    let key = Key::Block(cidr);
    loop {
        let found: Option<At<Block>> = store.get(&key).await?;
        let Some(mut found) = found else {
            return Ok(0);
        };
        let ordinals = chosen(&found.record, id, what)?;
        if ordinals.is_empty() && handle::count_in(&found.record, id) == counted {
            return Ok(counted);
        }
        block::free(&mut found.record, &ordinals);
        let addresses = ordinals
            .iter()
            .filter_map(|ordinal| found.record.address(*ordinal))
            .collect::<Vec<_>>();
        let remaining = handle::count_in(&found.record, id);
        let written = if found.record.is_empty() && found.record.affinity.is_none() {
            store.delete(&key, found.revision).await?
        } else {
            let written = store.update_block(found).await?;
            released.written.extend(written.as_ref().map(block_record));
            written.is_some()
        };
        if written {
            released.addresses.extend(addresses);
            return Ok(remaining);
        }
    }
}

fn chosen(block: &Block, id: &str, what: What<'_>) -> Result<Vec<usize>, IpamError> {
    let own = block.ordinals_of(id);
    match what {
        What::All => Ok(own.collect()),
        What::Nothing => Ok(Vec::new()),
        What::Own(given) => {
            let is_given = |ordinal: &usize| {
                let at = block.address(*ordinal).zip(block::stamp_of(block, *ordinal));
                at.is_some_and(|at| given.contains(&at))
            };
            Ok(own.filter(is_given).collect())
        }
        What::One(address, stamp) => {
            let Some(ordinal) = own
                .into_iter()
                .find(|ordinal| block.address(*ordinal) == Some(address))
            else {
                return Ok(Vec::new());
            };
            match (stamp, block::stamp_of(block, ordinal)) {
                (Some(asked), Some(found)) if asked != found => Err(IpamError::Stamped { address, found }),
                _ => Ok(vec![ordinal]),
            }
        }
    }
}

/// A block that was written, as a watch would bring it.
pub(super) fn block_record(written: &At<Block>) -> Record {
    Record {
        key: Key::Block(written.record.cidr),
        revision: written.revision,
        value: Ok(Value::Block(written.record.clone())),
    }
}
