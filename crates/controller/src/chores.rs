//! Chores, done. What takes something from somebody is tied to what was read: whatever changed since is left alone, and looked
//! at again. Parts of a status are written whole, and whoever they are of writes them again if they are wrong.

use anyhow::{Context, Result, anyhow, bail};
use buoy_api::ip::FloatingIp;
use buoy_core::cluster::{Chore, Cluster, ELECTION, contested};
use buoy_core::floating::claim;
use buoy_core::floating::collect::{self, Collect, Free};
use buoy_core::floating::lease::{self, Begun, RevokeLease, Sighting};
use buoy_core::ipam::{GiveUpBlock, IpamError, ReleaseAddress, Released};
use buoy_core::store::{Part, Reply, Revision, StoreOp, Writer};
use buoy_core::time::Now;
use buoy_datastore::{Datastore, drive};

/// Does one. `cluster` is what was read last.
pub(crate) fn done(store: &dyn Datastore, cluster: &Cluster, chore: &Chore, now: Now) -> Result<()> {
    match chore {
        Chore::FreeAddresses { handle, addresses } => addresses.iter().try_for_each(|(address, stamp)| {
            let release = ReleaseAddress::new(*address, handle.clone(), Some(*stamp));
            freed(drive(store, release))
        }),
        Chore::FreeReservation { floating, stamp } => Ok(drive(store, Free::new(*floating, *stamp))?),
        Chore::GiveUpBlock { owner, cidr } => Ok(drive(store, GiveUpBlock::new(owner.clone(), *cidr))?),
        Chore::ForgetCandidates { floating, node } => {
            let writer = Writer(node.clone());
            settled(store.run(&StoreOp::Apply(
                claim::binding_key(*floating),
                writer,
                Part::default(),
            )))
        }
        Chore::Contest { floating, nodes } => {
            let part = Part {
                candidates: Vec::new(),
                conditions: contested(nodes).into_iter().collect(),
            };
            let writer = Writer(ELECTION.to_owned());
            settled(store.run(&StoreOp::Apply(claim::binding_key(*floating), writer, part)))
        }
        Chore::RevokeLease { node, owner, .. } => {
            let seen = Sighting {
                lease: cluster
                    .lease(node)
                    .map(|(lease, revision)| (lease.clone(), revision)),
                since: now.mono,
                last: now.mono,
                begun: Begun::First,
            };
            drive(store, RevokeLease::new(node.clone(), &seen, *owner))?;
            Ok(())
        }
        Chore::Disown { floating, revision } => {
            let seen = seen(cluster, *floating, *revision)?;
            settled(store.run(&claim::given_away(&seen, None, now.wall)))
        }
        Chore::Collect { floating, revision } => {
            let (binding, _) = seen(cluster, *floating, *revision)?;
            let block = cluster.block_of(floating.addr());
            let reservation = block.and_then(|block| collect::reserved_in(block, *floating));
            Ok(drive(store, Collect::new(*floating, binding, reservation))?)
        }
        Chore::DeleteLease { node, revision } => {
            settled(store.run(&StoreOp::Delete(lease::key(node), *revision)))
        }
    }
}

fn seen(cluster: &Cluster, floating: FloatingIp, at: Revision) -> Result<claim::Seen> {
    let (binding, revision) = cluster.binding(floating).context("its binding is gone")?;
    if revision != at {
        bail!("its binding was written meanwhile");
    }
    Ok((binding.clone(), revision))
}

/// What was given anew since is somebody's.
fn freed(released: Result<Released, IpamError>) -> Result<()> {
    match released {
        Err(error) if !error.is_stamped() => Err(error.into()),
        _ => Ok(()),
    }
}

/// A conflict is an end, too: what the record is now will say what to do.
fn settled(reply: Reply) -> Result<()> {
    match reply {
        Reply::Failed(error) => Err(error.into()),
        Reply::Unknown => Err(anyhow!("the answer was lost")),
        _ => Ok(()),
    }
}
