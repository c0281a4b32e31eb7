//! Nothing is given twice (I1), nothing leaks (I2): what the store, the node's kernel and the agent's directory hold is
//! compared with the workloads that live.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use buoy_api::names;
use ipnet::IpNet;
use serde_json::Value;

use crate::exec::eventually;
use crate::node::{NETWORK, Node};
use crate::records::Records;
use crate::workload::Workload;

/// What was given up is freed within this time: the agent's collector runs every few seconds.
const GRACE: Duration = Duration::from_secs(60);

/// Checks that exactly these workloads hold something, in the store and on the node. Error: what is wrong, a line each,
/// still after the grace time of garbage collection.
pub fn assert_nothing_leaked(node: &Node, live: &[&Workload]) -> Result<()> {
    let live: BTreeMap<String, Vec<IpAddr>> = live
        .iter()
        .map(|workload| (workload.container_id.clone(), workload.addresses().to_vec()))
        .collect();
    eventually(GRACE, "nothing is leaked", || {
        let records = Records::read(node.store())?;
        let mut wrong = wrong_records(&records, &live);
        wrong.extend(wrong_on_node(node, &records, &live)?);
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    })
}

/// What is wrong with the records, given the addresses of living containers.
pub fn wrong_records(records: &Records, live: &BTreeMap<String, Vec<IpAddr>>) -> Vec<String> {
    let mut wrong = overlapping_blocks(records);
    let mut expected: BTreeMap<IpAddr, String> = BTreeMap::new();
    for (container, addresses) in live {
        for ip in addresses {
            if let Some(other) = expected.insert(*ip, names::workload_handle(NETWORK, container)) {
                wrong.push(format!(
                    "{ip} is given twice: to container {container} and {other}"
                ));
            }
        }
    }
    let bound = records.bindings.iter().map(|binding| binding.spec.address);
    expected.extend(bound.map(|ip| (ip, names::floating_handle(ip))));
    let mut given: BTreeMap<IpAddr, String> = BTreeMap::new();
    for allocation in records.allocations() {
        let handle = allocation.handle.unwrap_or_default();
        if expected.get(&allocation.ip) != Some(&handle) {
            wrong.push(format!(
                "allocation without owner: {} of '{handle}'",
                allocation.ip
            ));
        }
        if let Some(other) = given.insert(allocation.ip, handle) {
            wrong.push(format!("allocated twice: {} (also by '{other}')", allocation.ip));
        }
    }
    for (ip, handle) in &expected {
        if !given.contains_key(ip) {
            wrong.push(format!("in use and not allocated: {ip} of '{handle}'"));
        }
    }
    wrong.extend(wrong_handles(records, &given));
    wrong.extend(wrong_endpoints(records, live));
    wrong.extend(records.bad.iter().map(|key| format!("does not decode: {key:?}")));
    wrong
}

fn overlapping_blocks(records: &Records) -> Vec<String> {
    let overlap = |a: &IpNet, b: &IpNet| a.contains(b) || b.contains(a);
    let pairs = records
        .blocks
        .iter()
        .enumerate()
        .flat_map(|(index, block)| records.blocks[..index].iter().map(move |other| (block, other)));
    pairs
        .filter(|(block, other)| overlap(&block.cidr, &other.cidr))
        .map(|(block, other)| format!("blocks overlap: {} and {}", block.cidr, other.cidr))
        .collect()
}

/// Handles that count something else than what is given by them.
fn wrong_handles(records: &Records, given: &BTreeMap<IpAddr, String>) -> Vec<String> {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for handle in given.values() {
        *counts.entry(handle).or_default() += 1;
    }
    let mut wrong = Vec::new();
    for (id, handle) in &records.handles {
        let says: u32 = handle.blocks.values().sum();
        let has = counts.remove(id.as_str()).unwrap_or(0);
        if says != has || has == 0 {
            wrong.push(format!("handle {id} counts {says} addresses and has {has}"));
        }
    }
    wrong.extend(counts.keys().map(|id| format!("no handle record: {id}")));
    wrong
}

fn wrong_endpoints(records: &Records, live: &BTreeMap<String, Vec<IpAddr>>) -> Vec<String> {
    let found: BTreeSet<&str> = records
        .endpoints
        .iter()
        .map(|endpoint| endpoint.spec.container_id.as_str())
        .collect();
    let expected: BTreeSet<&str> = live.keys().map(String::as_str).collect();
    let dead = found
        .difference(&expected)
        .map(|id| format!("endpoint record of no workload: {id}"));
    let missing = expected
        .difference(&found)
        .map(|id| format!("no endpoint record: {id}"));
    dead.chain(missing).collect()
}

/// What is wrong with the node: links, routes, translations and files of workloads that are not there.
fn wrong_on_node(
    node: &Node,
    records: &Records,
    live: &BTreeMap<String, Vec<IpAddr>>,
) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let links = names_in(&node.netns().exec("ip -j link show")?.stdout, "ifname")?;
    let ours = links
        .iter()
        .filter(|name| name.starts_with(names::LINK_PREFIX))
        .count();
    if ours != live.len() {
        wrong.push(format!("{ours} workload links for {} workloads", live.len()));
    }
    let own: BTreeSet<IpAddr> = live.values().flatten().copied().collect();
    let floating: BTreeSet<IpAddr> = records
        .bindings
        .iter()
        .filter(|binding| binding.spec.owner.is_some())
        .map(|binding| binding.spec.address)
        .collect();
    for command in ["ip -j -4 route show proto 177", "ip -j -6 route show proto 177"] {
        for destination in names_in(&node.netns().exec(command)?.stdout, "dst")? {
            let to = destination.parse().ok();
            if !to.is_some_and(|ip| own.contains(&ip) || floating.contains(&ip)) {
                wrong.push(format!("route to nobody: {destination}"));
            }
        }
    }
    for (directory, expected) in [(node.state().join("attachments"), live.len()), (node.spool(), 0)] {
        let found = count_files(&directory);
        if found != expected {
            wrong.push(format!(
                "{found} files in {}, not {expected}",
                directory.display()
            ));
        }
    }
    Ok(wrong)
}

/// One field of each object in a JSON list of `ip`.
fn names_in(printed: &str, field: &str) -> Result<Vec<String>> {
    if printed.trim().is_empty() {
        return Ok(Vec::new());
    }
    let list: Vec<Value> = serde_json::from_str(printed)?;
    Ok(list
        .iter()
        .filter_map(|row| row[field].as_str().map(str::to_owned))
        .collect())
}

fn count_files(directory: &Path) -> usize {
    fs::read_dir(directory).map_or(0, |entries| {
        entries
            .flatten()
            .filter(|entry| entry.path().extension().is_some_and(|end| end == "json"))
            .count()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_api::ipam::{Attribute, Block, Handle};
    use std::collections::BTreeMap;

    const CONTAINER: &str = "c0ffee";

    fn block(cidr: &str, given: &[(usize, &str)]) -> Block {
        let mut allocations = vec![None; 64];
        let mut attributes = Vec::new();
        for (ordinal, handle) in given {
            allocations[*ordinal] = Some(attributes.len());
            attributes.push(Attribute {
                handle: Some((*handle).to_owned()),
                ..Attribute::default()
            });
        }
        Block {
            cidr: cidr.parse().unwrap(),
            affinity: None,
            affinity_claim_time: None,
            allocations,
            unallocated: Vec::new(),
            attributes,
            sequence_number: 1,
            sequence_number_for_allocation: BTreeMap::new(),
            deleted: false,
            extra: Default::default(),
        }
    }

    fn endpoint(container: &str) -> buoy_api::v3::WorkloadEndpoint {
        let mut endpoint = buoy_api::v3::WorkloadEndpoint::new(Default::default(), Default::default());
        endpoint.spec.container_id = container.to_owned();
        endpoint
    }

    fn records(given: &[(usize, &str)]) -> Records {
        let mut records = Records {
            blocks: vec![block("10.65.0.0/26", given)],
            endpoints: vec![endpoint(CONTAINER)],
            ..Records::default()
        };
        for (_, handle) in given {
            let count = Handle {
                blocks: BTreeMap::from([("10.65.0.0/26".parse().unwrap(), 1)]),
                ..Handle::default()
            };
            records.handles.insert((*handle).to_owned(), count);
        }
        records
    }

    fn live() -> BTreeMap<String, Vec<IpAddr>> {
        BTreeMap::from([(CONTAINER.to_owned(), vec!["10.65.0.3".parse().unwrap()])])
    }

    #[test]
    fn what_is_right_is_not_reported() {
        let records = records(&[(3, "k8s-pod-network.c0ffee")]);
        assert_eq!(wrong_records(&records, &live()), Vec::<String>::new());
    }

    #[test]
    fn every_kind_of_leak_is_found() {
        let right = (3, "k8s-pod-network.c0ffee");
        let mut overlapping = records(&[right]);
        overlapping.blocks.push(block("10.65.0.0/27", &[]));
        let mut miscounted = records(&[right]);
        miscounted
            .handles
            .insert("k8s-pod-network.gone".to_owned(), Handle::default());
        let mut orphan = records(&[right]);
        orphan.endpoints.push(endpoint("gone"));
        let cases = [
            (
                records(&[right, (9, "k8s-pod-network.gone")]),
                "allocation without owner: 10.65.0.9",
            ),
            (
                records(&[(3, "k8s-pod-network.gone")]),
                "allocation without owner: 10.65.0.3",
            ),
            (records(&[]), "in use and not allocated: 10.65.0.3"),
            (overlapping, "blocks overlap"),
            (miscounted, "handle k8s-pod-network.gone counts 0 addresses"),
            (orphan, "endpoint record of no workload: gone"),
        ];
        for (records, expected) in cases {
            let wrong = wrong_records(&records, &live());
            assert!(
                wrong.iter().any(|line| line.contains(expected)),
                "{expected}: {wrong:?}"
            );
        }
        let twice = BTreeMap::from([
            (CONTAINER.to_owned(), vec!["10.65.0.3".parse().unwrap()]),
            ("other".to_owned(), vec!["10.65.0.3".parse().unwrap()]),
        ]);
        let wrong = wrong_records(&records(&[right]), &twice);
        assert!(wrong.iter().any(|line| line.contains("given twice")), "{wrong:?}");
    }
}
