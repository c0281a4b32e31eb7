//! A block is taken from an owner that is gone: from then on any host may have it, or what is given of it stays as it is,
//! in a block without owner.

use buoy_api::ipam::{AffinityOwner, AffinityState, Block, BlockAffinity};
use ipnet::IpNet;

use super::access::At;
use super::affinity;
use super::error::IpamError;
use super::protocol::{Protocol, Store, machine};
use crate::store::Key;

machine! {
    /// Takes a block from its owner, and its claim. If the block is another's, or none, only the claim goes.
    GiveUpBlock: Result<(), IpamError>
}

impl GiveUpBlock {
    /// Of this owner.
    pub fn new(owner: AffinityOwner, cidr: IpNet) -> Self {
        Self(Protocol::new(move |mut store| async move {
            give_up(&mut store, &owner, cidr).await
        }))
    }
}

/// The block is read first, then the claim says that it is being given up, then the block is written at the revision that
/// was read: so an owner that is not gone after all, and writes the block before it confirms its claim, meets a conflict, or
/// this does. The claim goes last: so whoever is interrupted is gone on from.
async fn give_up(store: &mut Store, owner: &AffinityOwner, cidr: IpNet) -> Result<(), IpamError> {
    let (claim, key) = (affinity::key(owner, cidr), Key::Block(cidr));
    loop {
        let own = block_of(store, &key, owner).await?;
        let claimed: Option<At<BlockAffinity>> = store.get(&claim).await?;
        let leaving = match claimed {
            None => None,
            Some(claimed) => {
                let leaving = AffinityState::PendingDeletion;
                let Some(leaving) = affinity::set(store, &claim, leaving, claimed.revision).await? else {
                    continue;
                };
                Some(leaving)
            }
        };
        let is_left = match own {
            Some(own) => leave(store, &key, own).await?,
            // It may have been made since, under a claim that this has taken.
            None => block_of(store, &key, owner).await?.is_none(),
        };
        let is_done = is_left
            && match leaving {
                Some(leaving) => store.delete(&claim, leaving).await?,
                None => true,
            };
        if is_done {
            return Ok(());
        }
    }
}

/// The block, if it is the owner's.
async fn block_of(
    store: &mut Store,
    key: &Key,
    owner: &AffinityOwner,
) -> Result<Option<At<Block>>, IpamError> {
    let found: Option<At<Block>> = store.get(key).await?;
    Ok(found.filter(|found| found.record.affinity.as_ref() == Some(owner)))
}

/// `false`: read again.
async fn leave(store: &mut Store, key: &Key, mut block: At<Block>) -> Result<bool, IpamError> {
    if block.record.is_empty() {
        return store.delete(key, block.revision).await;
    }
    block.record.affinity = None;
    block.record.affinity_claim_time = None;
    Ok(store.update_block(block).await?.is_some())
}
