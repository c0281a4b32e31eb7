//! What nodes that are gone have left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use buoy_api::binding::Term;
use buoy_api::ip::FloatingIp;
use buoy_api::ipam::AffinityOwner;

use super::{Chore, Cluster, ELECTION};

/// How long an address whose owner lost it is left to candidates of other nodes.
const TAKEN: Duration = Duration::from_secs(10);

pub(super) fn standing(cluster: &Cluster) -> BTreeMap<Chore, Duration> {
    let grace = cluster.settings.node_grace;
    let mut standing = BTreeMap::new();
    standing.extend(affinities(cluster).map(|chore| (chore, grace)));
    for (floating, binding) in cluster.bindings.iter() {
        let writers = binding.status.candidates.iter().map(|candidate| &candidate.node);
        let gone: BTreeSet<&String> = writers.filter(|node| cluster.is_gone(node)).collect();
        standing.extend(gone.into_iter().map(|node| {
            let chore = Chore::ForgetCandidates {
                floating: *floating,
                node: node.clone(),
            };
            (chore, grace)
        }));
    }
    standing.extend(lost(cluster).map(|chore| (chore, TAKEN)));
    standing.extend(leases(cluster).map(|chore| (chore, grace)));
    standing
}

/// Blocks and claims of blocks.
fn affinities(cluster: &Cluster) -> impl Iterator<Item = Chore> {
    let claims = cluster.affinities.iter().cloned();
    let blocks = cluster.blocks.values();
    let blocks = blocks.filter_map(|block| Some((block.affinity.clone()?, block.cidr)));
    claims
        .chain(blocks)
        .filter(|(owner, _)| matches!(owner, AffinityOwner::Host(node) if cluster.is_gone(node)))
        .map(|(owner, cidr)| Chore::GiveUpBlock { owner, cidr })
}

/// Owners on nodes that are gone, with their addresses.
fn owners(cluster: &Cluster) -> impl Iterator<Item = (&str, Term, FloatingIp)> {
    cluster.bindings.iter().filter_map(|(floating, binding)| {
        let owner = binding.spec.owner.as_ref()?;
        let node = owner.node.as_str();
        cluster.is_gone(node).then_some((node, owner.term, *floating))
    })
}

/// Addresses whose owner's lease was revoked, and that nobody took.
fn lost(cluster: &Cluster) -> impl Iterator<Item = Chore> {
    owners(cluster).filter_map(|(node, term, floating)| {
        let (lease, _) = cluster.leases.versioned(node)?;
        let (_, revision) = cluster.bindings.versioned(&floating)?;
        (lease.spec.term > term).then_some(Chore::Disown { floating, revision })
    })
}

/// A lease that stands for an owner is revoked first; one that stands for none is deleted. One that is renewed has
/// another revision each time, and never stands for long.
fn leases(cluster: &Cluster) -> impl Iterator<Item = Chore> {
    let mut terms = BTreeMap::<&str, Term>::new();
    for (node, term, _) in owners(cluster) {
        let highest = terms.entry(node).or_insert(term);
        *highest = (*highest).max(term);
    }
    let idle: Vec<Chore> = cluster
        .leases
        .iter()
        .filter(|(node, _)| *node != ELECTION && cluster.is_gone(node) && !terms.contains_key(node.as_str()))
        .filter_map(|(node, _)| {
            let (_, revision) = cluster.leases.versioned(node)?;
            let node = node.clone();
            Some(Chore::DeleteLease { node, revision })
        })
        .collect();
    let revocations = terms.into_iter().filter_map(|(node, owner)| {
        let lease = cluster.leases.versioned(node);
        if lease.is_none() && cluster.leases.contains(node) {
            return None;
        }
        let stands = lease.is_none_or(|(lease, _)| lease.spec.term <= owner);
        stands.then(|| Chore::RevokeLease {
            node: node.to_owned(),
            revision: lease.map(|(_, revision)| revision),
            owner,
        })
    });
    idle.into_iter().chain(revocations)
}
