//! The store is restored from an older copy under a running cluster: traffic does not notice, nothing is given twice, and the
//! store says again what the nodes have.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use buoy_api::names;
use buoy_lab::ask::{answered_by, owner, shows, status_says, why_says};
use buoy_lab::cluster::Cluster;
use buoy_lab::exec::eventually;
use buoy_lab::faults::Seen;
use buoy_lab::lab::Lab;
use buoy_lab::leaks::wrong_records;
use buoy_lab::node::{NETWORK, Node};
use buoy_lab::probe::Via;
use buoy_lab::records::Records;
use buoy_lab::store::{Kind, Store};
use buoy_lab::traffic::Traffic;
use buoy_lab::workload::{Spec, Workload};
use rusqlite::Connection;
use serde_json::json;

const V4: &str = "172.16.1.3";
const V6: &str = "fd16::3";
/// Claimed after the copy was made.
const LATE: &str = "172.16.1.9";
const SOON: Duration = Duration::from_secs(30);
/// Longer than nothing is allocated.
const HOLD: Duration = Duration::from_secs(40);

/// What there is in the end, some of which the copy does not know.
struct Shop {
    workloads: Vec<Workload>,
    copy: PathBuf,
}

/// Workloads, a copy of the store, and then changes of every kind: the copy has one that is gone, and lacks others.
fn shop(cluster: &Cluster) -> Result<Shop> {
    let [n1, n2, n3] = &cluster.nodes[..] else {
        anyhow::bail!("three nodes");
    };
    let spec = |name: &str| Spec::pod("shop", name).floating(&[V4, V6]);
    let mut workloads = vec![
        Workload::start(n1, spec("web-1"))?,
        Workload::start(n2, spec("web-2"))?,
    ];
    let gone = Workload::start(n1, Spec::pod("shop", "gone"))?;
    let copy = cluster.store().etcd()?.save()?;
    gone.delete()?;
    // A first address of a node makes its block; the other nodes have theirs.
    workloads.push(Workload::start(n3, Spec::pod("shop", "late").floating(&[LATE]))?);
    workloads.push(Workload::start(n1, Spec::pod("shop", "plain"))?);
    n1.ctl(&format!("fip move {V4} --to web-2"))?;
    answered_by(&cluster.client, Via::Tcp, V4, "web-2")?;
    answered_by(&cluster.client, Via::Tcp, LATE, "late")?;
    Ok(Shop { workloads, copy })
}

/// What `.backup` of the sqlite3 shell does.
fn save(file: &Path) -> Result<PathBuf> {
    let copy = file.with_extension("copy");
    Connection::open(file)?.execute("VACUUM INTO ?1", [copy.display().to_string()])?;
    Ok(copy)
}

/// Every living workload's addresses are given to it, and only to it.
fn is_allocated(store: &Store, workloads: &[Workload]) -> Result<()> {
    eventually(SOON, "everything is allocated again", || {
        let records = Records::read(store)?;
        let given = records.allocations();
        for workload in workloads {
            let handle = names::workload_handle(NETWORK, &workload.container_id);
            for address in workload.addresses() {
                let found: Vec<_> = given.iter().filter(|given| given.ip == *address).collect();
                let right = found.len() == 1 && found[0].handle.as_ref() == Some(&handle);
                ensure!(right, "{address} of {}: {found:?}", workload.name());
            }
            let published = |container: &str| {
                let mut endpoints = records.endpoints.iter();
                endpoints.any(|endpoint| endpoint.spec.container_id == container)
            };
            ensure!(
                published(&workload.container_id),
                "{} is not published",
                workload.name()
            );
        }
        Ok(())
    })
}

/// What the copy brought back is gone again.
fn nothing_else_is_left(store: &Store, workloads: &[Workload]) -> Result<()> {
    eventually(SOON, "what is gone is released again", || {
        let records = Records::read(store)?;
        let live = workloads
            .iter()
            .map(|workload| (workload.container_id.clone(), workload.addresses().to_vec()));
        let wrong = wrong_records(&records, &live.collect());
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    })
}

type Owned = (String, u64);

/// Who owns the addresses, and in which epoch.
fn owners(cluster: &Cluster) -> Result<[Owned; 3]> {
    let of = |floating| owner(&cluster.nodes[0], floating);
    Ok([of(V4)?, of(V6)?, of(LATE)?])
}

/// What the copy does not know was written again, above the epoch of before; the rest is as it was.
fn is_owned_as_before(cluster: &Cluster, [v4, v6, late]: [Owned; 3]) -> Result<()> {
    eventually(SOON, "the owners of before own again", || {
        let now = owners(cluster)?;
        let again = |now: &Owned, before: &Owned| now.0 == before.0 && now.1 > before.1;
        ensure!(again(&now[0], &v4), "{V4}: {now:?}, {v4:?} before");
        ensure!(now[1] == v6, "{V6}: {now:?}, {v6:?} before");
        ensure!(again(&now[2], &late), "{LATE}: {now:?}, {late:?} before");
        Ok(())
    })
}

fn traffic(cluster: &Cluster) -> [Result<Traffic>; 3] {
    [V4, V6, LATE].map(|floating| {
        let floating: IpAddr = floating.parse()?;
        Traffic::start(&cluster.client, floating)
    })
}

/// ADD and STATUS say that they may be asked again, and why; later they succeed.
fn add_waits(cluster: &Cluster) -> Result<Workload> {
    let mut early = Workload::prepare(
        &cluster.nodes[0],
        Spec::pod("shop", "early").config("cniVersion", json!("1.1.0")),
    )?;
    for answered in [early.add()?, early.call("STATUS")?] {
        let refusal = answered.refusal()?;
        ensure!(refusal.code == 11, "code {}: {}", refusal.code, refusal.msg);
        ensure!(refusal.msg.contains("restored from a copy"), "{}", refusal.msg);
    }
    early.del()?.ok()?;
    eventually(HOLD, "addresses are allocated again", || {
        let added = early.add()?;
        added.ok().map(drop)
    })?;
    early.call("STATUS")?.ok()?;
    Ok(early)
}

#[test]
fn a_restored_store_learns_again_what_the_nodes_have() {
    Cluster::start_on(Kind::Etcd).unwrap().test(|cluster| {
        let Shop { mut workloads, copy } = shop(cluster)?;
        let before = owners(cluster)?;
        let traffic = traffic(cluster);
        cluster.store().etcd()?.restore(&copy)?;
        for node in &cluster.nodes {
            shows(node, Seen::RESTORED)?;
        }
        is_allocated(cluster.store(), &workloads)?;
        workloads.push(add_waits(cluster)?);
        is_allocated(cluster.store(), &workloads)?;
        is_owned_as_before(cluster, before)?;
        for traffic in traffic {
            let traffic = traffic?;
            traffic.progress()?;
            traffic.unharmed()?;
        }
        for node in &cluster.nodes {
            let status = node.ctl("node status")?;
            ensure!(!status.contains("restored"), "{status}");
        }
        nothing_else_is_left(cluster.store(), &workloads)?;
        cluster.check()
    });
}

/// Nobody remembers what was there but the kernels, and files how far the store had come: the address that moved is its
/// last owner's again, also where the former owner, whom the copy names, is quicker.
#[test]
fn agents_that_were_stopped_for_a_restore_learn_again_what_their_kernels_have() {
    Cluster::start_on(Kind::Etcd).unwrap().test(|cluster| {
        let Shop { mut workloads, copy } = shop(cluster)?;
        let before = owners(cluster)?;
        let traffic = traffic(cluster);
        cluster.nodes.iter().try_for_each(Node::stop_agent)?;
        cluster.store().etcd()?.restore(&copy)?;
        for node in &cluster.nodes {
            node.start_agent()?;
        }
        for node in &cluster.nodes {
            shows(node, Seen::RESTORED)?;
        }
        is_owned_as_before(cluster, before)?;
        is_allocated(cluster.store(), &workloads)?;
        let late = eventually(HOLD, "addresses are given on n3 again", || {
            Workload::start(&cluster.nodes[2], Spec::pod("shop", "later"))
        })?;
        workloads.push(late);
        for traffic in traffic {
            let traffic = traffic?;
            traffic.progress()?;
            traffic.unharmed()?;
        }
        for (floating, who) in [(V4, "web-2"), (V6, "web-1"), (LATE, "late")] {
            answered_by(&cluster.client, Via::Tcp, floating, who)?;
        }
        cluster.check()
    });
}

/// Its agent stood still while the others wrote again what they have: the address is a standby's by then.
#[test]
fn who_comes_too_late_after_a_restore_says_what_he_lost() {
    Cluster::start_on(Kind::Etcd).unwrap().test(|cluster| {
        let [n1, n2, _] = &cluster.nodes[..] else {
            anyhow::bail!("three nodes");
        };
        let copy = cluster.store().etcd()?.save()?;
        let spec = |name: &str| Spec::pod("shop", name).floating(&[V4]);
        let _web = Workload::start(n1, spec("web-1"))?;
        let _standby = Workload::start(n2, spec("web-2"))?;
        answered_by(&cluster.client, Via::Tcp, V4, "web-1")?;
        let before = owner(n2, V4)?;
        cluster.freeze(n1)?;
        cluster.store().etcd()?.restore(&copy)?;
        shows(n2, Seen::RESTORED)?;
        let taken = eventually(HOLD, "the standby has the address", || {
            let now = owner(n2, V4)?;
            ensure!(now.0 == "web-2", "{now:?}");
            Ok(now)
        })?;
        ensure!(taken.1 > before.1, "{taken:?}, {before:?} before");
        cluster.thaw(n1)?;
        let lost = "was this node's before the datastore was restored, and is of web-2";
        status_says(n1, &[&format!("{V4}: {lost}")])?;
        why_says(n1, V4, &["was this node's before the datastore was restored"])?;
        let log = fs::read_to_string(n1.log())?;
        ensure!(log.contains(&format!("{V4} {lost}")), "its log does not say so");
        answered_by(&cluster.client, Via::Tcp, V4, "web-2")?;
        answered_by(n1.netns(), Via::Tcp, V4, "web-2")?;
        cluster.check()
    });
}

/// An agent that was stopped for it knows nothing of what was there before but what its node has, and how far the file was.
#[test]
fn a_file_that_was_put_back_learns_again_what_the_node_has() {
    Lab::start().unwrap().test(|lab| {
        let (node, file) = (&lab.node, lab.node.store().file()?);
        let spec = |name: &str| Spec::pod("shop", name).floating(&[V4, V6]);
        let mut workloads = vec![Workload::start(node, spec("web-1"))?];
        workloads.push(Workload::start(node, spec("web-2"))?);
        let gone = Workload::start(node, Spec::pod("shop", "gone"))?;
        let copy = save(file)?;
        gone.del()?.ok()?;
        workloads.push(Workload::start(
            node,
            Spec::pod("shop", "late").floating(&[LATE]),
        )?);
        workloads.push(Workload::start(node, Spec::pod("shop", "plain"))?);
        answered_by(&lab.client, Via::Tcp, LATE, "late")?;
        let traffic = Traffic::start(&lab.client, V4.parse()?)?;

        node.stop_agent()?;
        for log in ["db-wal", "db-shm"] {
            let _ = fs::remove_file(file.with_extension(log));
        }
        fs::rename(&copy, file)?;
        node.start_agent()?;
        shows(node, Seen::RESTORED)?;
        is_allocated(node.store(), &workloads)?;
        // Nobody remembers that it went; its DEL says so once more.
        gone.del()?.ok()?;
        nothing_else_is_left(node.store(), &workloads)?;
        for (floating, who) in [(V4, "web-1"), (V6, "web-1"), (LATE, "late")] {
            answered_by(&lab.client, Via::Tcp, floating, who)?;
        }
        traffic.progress()?;
        traffic.unharmed().map(drop)
    });
}
