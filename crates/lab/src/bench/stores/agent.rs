//! What an agent takes on a store: ADD, a start with many workloads, memory with many workloads elsewhere.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use buoy_api::ObjectMeta;
use buoy_api::v3::{WorkloadEndpoint, WorkloadEndpointSpec};
use buoy_core::store::{Key, Value};

use super::{Ground, create};
use crate::bench::family::Family;
use crate::bench::report::{Aim, Report, Row};
use crate::bench::{bed, machine, progress};
use crate::node::Node;
use crate::workload::Workload;

/// ADDs under way at a time where it is not them that are measured.
const AT_ONCE: usize = 8;
/// Starts with all workloads.
const STARTS: usize = 5;

/// ADDs one after the other.
pub(super) fn adds(ground: &Ground, node: &Node, aim: Option<Aim>, report: &mut Report) -> Result<()> {
    let mut took = Vec::new();
    let names = names("add", ground.scale.adds);
    (ground.announces)(&names)?;
    for name in &names {
        let mut workload = bed::prepare(node, Family::V4, name)?;
        let answered = workload.add()?;
        took.push(answered.took);
        answered.ok()?;
        workload.delete()?;
    }
    let row = Row::times(ground.row("cni-add"), &took);
    report.add(match aim {
        None => row,
        Some(aim) => row.aim(aim),
    });
    Ok(())
}

fn names(what: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{what}-{number}")).collect()
}

/// From the start of the process until everything is programmed, in a kernel that has nothing but links.
pub(super) fn starts(ground: &Ground, node: &Node, report: &mut Report) -> Result<()> {
    let count = ground.scale.endpoints;
    progress(&format!("  {count} workloads"))?;
    let names = names("one", count);
    (ground.announces)(&names)?;
    let workloads = attach(node, &names)?;
    let mut took: Vec<Duration> = Vec::new();
    for _ in 0..STARTS {
        node.stop_agent()?;
        node.netns().nft("delete table ip buoy\ndelete table ip6 buoy")?;
        node.netns().exec("ip route flush proto 177")?;
        took.push(node.start_agent()?);
        let routes = node.netns().exec("ip -4 route show proto 177")?.stdout;
        let found = routes.lines().count();
        ensure!(found >= count, "ready with {found} routes of {count}");
    }
    report.add(Row::times(ground.row(&format!("agent-start/{count}")), &took));
    each(workloads, |workload| workload.delete().map(drop))
}

/// Workloads of the node, several at a time.
fn attach(node: &Node, names: &[String]) -> Result<Vec<Workload>> {
    let mut made = Vec::new();
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let make = || -> Result<Vec<Workload>> {
            let mut mine = Vec::new();
            loop {
                let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) else {
                    return Ok(mine);
                };
                let mut workload = bed::prepare(node, Family::V4, name)?;
                workload.add()?.ok()?;
                mine.push(workload);
            }
        };
        let makers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(make)).collect();
        for maker in makers {
            made.extend(maker.join().map_err(|_| anyhow!("a maker panicked"))??);
        }
        Ok(made)
    })
}

/// Does something with each, several at a time.
fn each<T: Send>(things: Vec<T>, work: impl Fn(T) -> Result<()> + Sync) -> Result<()> {
    let mut shares: Vec<Vec<T>> = (0..AT_ONCE).map(|_| Vec::new()).collect();
    for (number, thing) in things.into_iter().enumerate() {
        shares[number % AT_ONCE].push(thing);
    }
    let work = &work;
    thread::scope(|scope| {
        let hands: Vec<_> = shares
            .into_iter()
            .map(|share| scope.spawn(move || share.into_iter().try_for_each(work)))
            .collect();
        let mut hands = hands.into_iter();
        hands.try_for_each(|hand| hand.join().map_err(|_| anyhow!("a hand panicked"))?)
    })
}

/// Resident memory of an agent that was started beside many workloads of other nodes.
pub(super) fn memory(ground: &Ground, node: &Node, report: &mut Report) -> Result<()> {
    let count = ground.scale.others;
    let numbers: Vec<Vec<usize>> = (0..AT_ONCE)
        .map(|first| (first..count).step_by(AT_ONCE).collect())
        .collect();
    each(numbers, |numbers| {
        let store = ground.open()?;
        numbers.into_iter().try_for_each(|number| {
            let (key, value) = elsewhere(number)?;
            create(&*store, key, value).map(drop)
        })
    })?;
    node.stop_agent()?;
    node.start_agent()?;
    let pid = node.with_agent(|agent| Ok(agent.pid()))?;
    machine::rest(pid)?;
    let mebibytes = crate::exec::memory(pid, "VmRSS")? as f64 / 1024.0;
    report.add(Row::costs(
        ground.row(&format!("agent-memory/{count}")),
        "MiB",
        &[mebibytes],
    ));
    node.stop_agent()
}

/// A workload of another node, as its agent publishes it.
fn elsewhere(number: usize) -> Result<(Key, Value)> {
    let (name, namespace) = (format!("n{}-k8s-web--{number}-eth0", number % 100), "elsewhere");
    let spec = WorkloadEndpointSpec {
        orchestrator: "k8s".to_owned(),
        node: format!("n{}", 2 + number % 100),
        pod: format!("web-{number}"),
        endpoint: "eth0".to_owned(),
        container_id: format!("{number:064x}"),
        ip_networks: vec![format!("10.90.{}.{}/32", number / 250, number % 250).parse()?],
        interface_name: format!("cali{number:011x}"),
        profiles: vec!["kns.elsewhere".to_owned()],
        ..WorkloadEndpointSpec::default()
    };
    let record = WorkloadEndpoint::new(ObjectMeta::namespaced(namespace, &name), spec);
    let key = Key::Endpoint {
        namespace: namespace.to_owned(),
        name,
    };
    Ok((key, Value::Endpoint(record)))
}
