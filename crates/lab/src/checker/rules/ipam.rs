//! Addresses are given once, to somebody who is there, and every floating IP is reserved.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::checker::facts::{Facts, Records};

/// Prefix of the handles that reserve floating IPs.
const RESERVES: &str = "buoy-fip-";

/// What is wrong with what IPAM has given.
pub(super) fn wrong(facts: &Facts) -> Vec<String> {
    let records = &facts.records;
    let mut given: BTreeMap<IpAddr, &str> = BTreeMap::new();
    let mut wrong = overlaps(records);
    for (address, handle) in records.blocks.iter().flat_map(|block| &block.given) {
        if let Some(other) = given.insert(*address, handle) {
            wrong.push(format!("{address} is given twice: to {other} and to {handle}"));
        }
    }
    wrong.extend(counts(records, &given));
    wrong.extend(own_addresses(records, &given));
    wrong.extend(reservations(records, &given));
    wrong
}

fn overlaps(records: &Records) -> Vec<String> {
    let blocks = records.blocks.iter().enumerate();
    let pairs =
        blocks.flat_map(|(index, block)| records.blocks[..index].iter().map(move |other| (block, other)));
    pairs
        .filter(|(a, b)| a.cidr.contains(&b.cidr) || b.cidr.contains(&a.cidr))
        .map(|(a, b)| format!("blocks overlap: {} and {}", a.cidr, b.cidr))
        .collect()
}

fn counts(records: &Records, given: &BTreeMap<IpAddr, &str>) -> Vec<String> {
    let mut has: BTreeMap<&str, u64> = BTreeMap::new();
    for handle in given.values() {
        *has.entry(handle).or_default() += 1;
    }
    let mut wrong = Vec::new();
    for (handle, says) in &records.handles {
        let has = has.remove(handle.as_str()).unwrap_or_default();
        if has != *says {
            wrong.push(format!("handle {handle} counts {says} addresses and has {has}"));
        }
    }
    wrong.extend(
        has.keys()
            .map(|handle| format!("addresses of a handle without record: {handle}")),
    );
    wrong
}

/// Every address of a workload is given to its container, and what is given to a container is some workload's.
fn own_addresses(records: &Records, given: &BTreeMap<IpAddr, &str>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut used: BTreeMap<IpAddr, &str> = BTreeMap::new();
    for endpoint in &records.endpoints {
        let name = endpoint.who.workload.as_str();
        for address in &endpoint.addresses {
            if let Some(other) = used.insert(*address, name) {
                wrong.push(format!("{address} is of two workloads: {other} and {name}"));
            }
            let by = given.get(address).copied().unwrap_or_default();
            if !by.ends_with(&endpoint.container) {
                wrong.push(format!("{address} of {name} is given to '{by}'"));
            }
        }
    }
    for (address, handle) in given {
        if !handle.starts_with(RESERVES) && !used.contains_key(address) {
            wrong.push(format!("{address} is given to '{handle}', which is no workload"));
        }
    }
    for binding in &records.bindings {
        if let Some(name) = used.get(&binding.address) {
            wrong.push(format!(
                "the floating IP {} is {name}'s own address",
                binding.address
            ));
        }
    }
    wrong
}

/// A floating IP that a pool covers is taken in IPAM, and nothing is reserved that is no floating IP.
fn reservations(records: &Records, given: &BTreeMap<IpAddr, &str>) -> Vec<String> {
    let mut wrong = Vec::new();
    for binding in &records.bindings {
        let is_covered = records
            .pools
            .iter()
            .any(|pool| pool.cidr.contains(&binding.address));
        let by = given.get(&binding.address).copied().unwrap_or_default();
        if is_covered && by != format!("{RESERVES}{}", binding.name) {
            wrong.push(format!(
                "{} is not reserved: it is given to '{by}'",
                binding.address
            ));
        }
    }
    let reserved = given.iter().filter(|(_, handle)| handle.starts_with(RESERVES));
    wrong.extend(
        reserved
            .filter(|(address, _)| records.binding(**address).is_none())
            .map(|(address, handle)| format!("{address} is reserved by '{handle}' and has no binding")),
    );
    wrong
}
