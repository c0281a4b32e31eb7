//! Handle records: where the addresses of one handle are.
//!
//! A handle counts at least what its blocks give to it. Counts are set from the block that is about to be written, not
//! added up, so a retry never counts twice. They fall only in `release`, which writes the blocks first.

use std::collections::BTreeMap;

use buoy_api::ipam::{Block, Handle};
use ipnet::IpNet;

use super::access::At;
use super::error::IpamError;
use super::protocol::Store;
use crate::store::Key;

/// Addresses by block.
pub(super) type Counts = BTreeMap<IpNet, u32>;

/// Key of a handle's record.
pub(super) fn key(id: &str) -> Key {
    Key::Handle(id.to_owned())
}

/// How many addresses a block gives to a handle.
pub(super) fn count_in(block: &Block, id: &str) -> u32 {
    u32::try_from(block.ordinals_of(id).count()).unwrap_or(u32::MAX)
}

/// Makes the handle count at least this much, before the blocks are written. It writes also where nothing changes: a
/// release that read the record before must not delete it. `None`: read again.
pub(super) async fn raise(
    store: &mut Store,
    id: &str,
    known: Option<&At<Handle>>,
    counts: &Counts,
) -> Result<Option<At<Handle>>, IpamError> {
    let mut record = known.map(|known| known.record.clone()).unwrap_or_default();
    for (cidr, count) in counts {
        let counted = record.blocks.entry(*cidr).or_default();
        *counted = (*counted).max(*count);
    }
    let written = match known {
        Some(known) => store.update(&key(id), record.clone(), known.revision).await?,
        None => store.create(&key(id), record.clone()).await?,
    };
    Ok(written.map(|revision| At { record, revision }))
}
