//! What must be so in the end.

use std::collections::{BTreeMap, BTreeSet};

use buoy_api::ip::Family;
use buoy_api::ipam::{AffinityOwner, AffinityState, Block};
use buoy_core::store::{Key, Prefix, Value};
use buoy_datastore::Datastore;
use ipnet::IpNet;

use super::Truth;
use crate::tools::list;

/// Exactly what is used is given; blocks, affinities and handles fit.
pub(crate) fn everything_agrees(store: &dyn Datastore, truth: &Truth) {
    let (records, _) = list(store, Prefix::Blocks(Family::V4));
    let blocks: Vec<Block> = records
        .into_iter()
        .map(|record| match record.value {
            Ok(Value::Block(block)) => block,
            other => panic!("{other:?}"),
        })
        .collect();
    let mut given = BTreeMap::new();
    let mut counts: BTreeMap<(String, IpNet), u32> = BTreeMap::new();
    for block in &blocks {
        assert_eq!(block.defect(), None);
        let free: BTreeSet<usize> = block.unallocated.iter().copied().collect();
        for (ordinal, holder) in block.allocated() {
            assert!(
                !free.contains(&ordinal),
                "{}: {ordinal} is free and given",
                block.cidr
            );
            let handle = holder.handle.clone().unwrap();
            *counts.entry((handle.clone(), block.cidr)).or_default() += 1;
            assert_eq!(given.insert(block.address(ordinal).unwrap(), handle), None);
        }
        assert_eq!(free.len() + block.allocated().count(), block.allocations.len());
    }
    assert_eq!(given, truth.used);
    handles_agree(store, &counts, &truth.abandoned);
    affinities_agree(store, &blocks);
}

/// A handle whose node died between counting and giving counts too much until it is released; one of Calico's for ever.
fn handles_agree(
    store: &dyn Datastore,
    counts: &BTreeMap<(String, IpNet), u32>,
    abandoned: &BTreeSet<String>,
) {
    let (records, _) = list(store, Prefix::Handles);
    let mut found = BTreeMap::new();
    for record in records {
        let (Key::Handle(id), Ok(Value::Handle(handle))) = (record.key, record.value) else {
            panic!("a handle")
        };
        for (cidr, count) in handle.blocks {
            found.insert((id.clone(), cidr), count);
        }
    }
    for (key, count) in counts {
        assert!(
            found.get(key) >= Some(count),
            "{key:?}: {:?} for {count}",
            found.get(key)
        );
    }
    for (key, count) in found {
        let is_calico = ["net.n1-", "net.n3-", "net.n5-"]
            .iter()
            .any(|node| key.0.starts_with(node));
        let expected = counts.get(&key).copied().unwrap_or(0);
        assert!(
            is_calico || abandoned.contains(&key.0) || count == expected,
            "{key:?}: {count}, and has {expected}"
        );
    }
}

/// A confirmed affinity has its block, and a block's host knows of it.
fn affinities_agree(store: &dyn Datastore, blocks: &[Block]) {
    let mut known = BTreeSet::new();
    for index in 0..=6 {
        let owner = AffinityOwner::Host(format!("n{index}"));
        let (records, _) = list(store, Prefix::Affinities(owner.clone()));
        for record in records {
            let (Key::Affinity { cidr, .. }, Ok(Value::Affinity(affinity))) = (record.key, record.value)
            else {
                panic!("an affinity")
            };
            let block = blocks.iter().find(|block| block.cidr == cidr);
            let is_own = block.is_some_and(|block| block.affinity.as_ref() == Some(&owner));
            let is_confirmed = affinity.state == AffinityState::Confirmed;
            assert!(is_own || !is_confirmed, "{owner} believes to have {cidr}");
            if is_own {
                known.insert(cidr);
            }
        }
    }
    for block in blocks.iter().filter(|block| block.affinity.is_some()) {
        assert!(known.contains(&block.cidr), "no affinity for {}", block.cidr);
    }
}
