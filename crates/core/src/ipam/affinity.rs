//! The claim of a block by a host (`docs` of Calico: `design/ipam`): announce the affinity as pending, create the block,
//! confirm the affinity. A crash after any step leaves what the next claim by the same host goes on from, and what
//! keeps no other host from the block.
//!
//! Whoever takes a block away makes the affinity `pendingDeletion` first and deletes the block at the revision it read.
//! So whoever keeps it makes the affinity pending again and writes the block before confirming: one of the two meets a
//! conflict.

use buoy_api::ipam::{AffinityOwner, AffinityState, Block, BlockAffinity};
use buoy_api::meta::Extra;
use ipnet::IpNet;
use jiff::Timestamp;

use super::access::At;
use super::error::IpamError;
use super::protocol::Store;
use crate::store::{Key, Revision};

/// Key of the affinity of an owner to a block.
pub(super) fn key(owner: &AffinityOwner, cidr: IpNet) -> Key {
    Key::Affinity {
        owner: owner.clone(),
        cidr,
    }
}

/// Makes a block this owner's, or finishes an earlier claim. `None`: somebody else has it, and nothing of the claim is
/// left.
pub(super) async fn claim(
    store: &mut Store,
    owner: &AffinityOwner,
    cidr: IpNet,
    now: Timestamp,
) -> Result<Option<At<Block>>, IpamError> {
    let (affinity, block_key) = (key(owner, cidr), Key::Block(cidr));
    loop {
        let Some((state, revision)) = announce(store, &affinity).await? else {
            continue;
        };
        let found: Option<At<Block>> = store.get(&block_key).await?;
        match found {
            Some(found) if found.record.affinity.as_ref() != Some(owner) => {
                if store.delete(&affinity, revision).await? {
                    return Ok(None);
                }
            }
            Some(found) if state == AffinityState::Confirmed => return Ok(Some(found)),
            Some(found) => {
                // Written unchanged, so that a release of the block which has read it meets a conflict.
                let Some(kept) = store.update_block(found).await? else {
                    continue;
                };
                if set(store, &affinity, AffinityState::Confirmed, revision)
                    .await?
                    .is_some()
                {
                    return Ok(Some(kept));
                }
            }
            None => {
                let Some(revision) = pending(store, &affinity, state, revision).await? else {
                    continue;
                };
                let Some(created) = store.create_block(cidr, Some(owner.clone()), now).await? else {
                    continue;
                };
                if set(store, &affinity, AffinityState::Confirmed, revision)
                    .await?
                    .is_some()
                {
                    return Ok(Some(created));
                }
            }
        }
    }
}

/// Opens a block that an affinity of this owner names. `None`: the affinity was stale, and is gone.
pub(super) async fn open(
    store: &mut Store,
    owner: &AffinityOwner,
    cidr: IpNet,
    state: AffinityState,
    now: Timestamp,
) -> Result<Option<At<Block>>, IpamError> {
    if state == AffinityState::Confirmed {
        let found: Option<At<Block>> = store.get(&Key::Block(cidr)).await?;
        if let Some(found) = found
            && found.record.affinity.as_ref() == Some(owner)
        {
            return Ok(Some(found));
        }
    }
    claim(store, owner, cidr, now).await
}

/// Deletes an empty block, and takes it away from the host that has it. `false`: it is not empty any more, or somebody
/// was faster.
pub(super) async fn reclaim(store: &mut Store, victim: &At<Block>) -> Result<bool, IpamError> {
    let block_key = Key::Block(victim.record.cidr);
    let Some(owner) = &victim.record.affinity else {
        return store.delete(&block_key, victim.revision).await;
    };
    let affinity = key(owner, victim.record.cidr);
    let found: Option<At<BlockAffinity>> = store.get(&affinity).await?;
    let Some(found) = found else {
        return store.delete(&block_key, victim.revision).await;
    };
    let Some(leaving) = set(store, &affinity, AffinityState::PendingDeletion, found.revision).await? else {
        return Ok(false);
    };
    if store.delete(&block_key, victim.revision).await? {
        // If this is lost, the host finds its affinity without a block and goes on from there.
        store.delete(&affinity, leaving).await?;
        return Ok(true);
    }
    let kept: Option<At<Block>> = store.get(&block_key).await?;
    let kept = kept.filter(|kept| kept.record.affinity.as_ref() == Some(owner));
    // Written first, since another taker may be about to delete it under the same affinity.
    if let Some(kept) = kept
        && store.update_block(kept).await?.is_some()
    {
        set(store, &affinity, AffinityState::Confirmed, leaving).await?;
    }
    Ok(false)
}

/// The affinity's record exists, pending unless it was confirmed. `None`: again.
async fn announce(store: &mut Store, affinity: &Key) -> Result<Option<(AffinityState, Revision)>, IpamError> {
    if let Some(revision) = store.create(affinity, record(AffinityState::Pending)).await? {
        return Ok(Some((AffinityState::Pending, revision)));
    }
    let found: Option<At<BlockAffinity>> = store.get(affinity).await?;
    match found {
        Some(found) if found.record.state == AffinityState::Confirmed => {
            Ok(Some((AffinityState::Confirmed, found.revision)))
        }
        Some(found) => {
            let written = set(store, affinity, AffinityState::Pending, found.revision).await?;
            Ok(written.map(|revision| (AffinityState::Pending, revision)))
        }
        None => Ok(None),
    }
}

/// A block is created only under an affinity that is pending. `None`: again.
async fn pending(
    store: &mut Store,
    affinity: &Key,
    state: AffinityState,
    revision: Revision,
) -> Result<Option<Revision>, IpamError> {
    match state {
        AffinityState::Pending => Ok(Some(revision)),
        _ => set(store, affinity, AffinityState::Pending, revision).await,
    }
}

pub(super) async fn set(
    store: &mut Store,
    affinity: &Key,
    state: AffinityState,
    revision: Revision,
) -> Result<Option<Revision>, IpamError> {
    store.update(affinity, record(state), revision).await
}

fn record(state: AffinityState) -> BlockAffinity {
    BlockAffinity {
        state,
        deleted: false,
        extra: Extra::new(),
    }
}
