//! Nodes that are not what they seem: two agents with one name, a node renamed, a node whose address changed; and nodes
//! that program routes and leave announcing to somebody else.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use buoy_lab::ask::{answered_by, owner, status_says, why_says};
use buoy_lab::cluster::{Cluster, NODES, PEERS};
use buoy_lab::exec::{PATIENCE, eventually};
use buoy_lab::lab::POOLS;
use buoy_lab::node::Node;
use buoy_lab::probe::Via;
use buoy_lab::traffic::Traffic;
use buoy_lab::workload::{Spec, Workload};

const V4: &str = "172.16.1.3";
const V6: &str = "fd16::3";
const SOON: Duration = Duration::from_secs(20);

fn web(node: &Node, name: &str) -> Result<Workload> {
    Workload::start(node, Spec::pod("shop", name).floating(&[V4, V6]))
}

#[test]
fn two_agents_have_one_name() {
    Cluster::start().unwrap().test(|cluster| {
        let [n1, _, n3] = &cluster.nodes[..] else {
            anyhow::bail!("three nodes");
        };
        let _owner = web(n1, "web-1")?;
        status_says(n1, &["2 owned"])?;
        answered_by(&cluster.client, Via::Tcp, V4, "web-1")?;
        let before = owner(n1, V4)?;
        let traffic = Traffic::start(&cluster.client, V4.parse()?)?;
        cluster.stop(n3)?;
        n3.set(|settings| settings.node_name = Some("n1".to_owned()));
        n3.start_agent()?;
        // A lease that is renewed is nobody's to take, for as long as one lasts and more.
        std::thread::sleep(Duration::from_secs(10));
        status_says(n3, &["another agent"])?;
        ensure!(owner(n1, V4)? == before, "it changed hands");
        traffic.progress()?;
        n3.stop_agent()?;
        n3.set(|settings| settings.node_name = None);
        cluster.start_agent(n3)?;
        cluster.wait_for_sessions()?;
        traffic.progress()?;
        traffic.unharmed()?;
        cluster.check()
    });
}

#[test]
fn two_agents_of_one_name_that_own_nothing_leave_each_other_alone() {
    Cluster::start().unwrap().test(|cluster| {
        let [n1, _, n3] = &cluster.nodes[..] else {
            anyhow::bail!("three nodes");
        };
        let written = || -> Result<String> {
            let record: serde_json::Value = serde_json::from_str(&n1.ctl("get node n1 -o json")?)?;
            let revision = record["metadata"]["resourceVersion"].as_str();
            Ok(revision.context("it has no revision")?.to_owned())
        };
        cluster.stop(n3)?;
        n3.set(|settings| settings.node_name = Some("n1".to_owned()));
        n3.start_agent()?;
        eventually(SOON, "one of them gives way", || {
            let statuses = [n1.ctl("node status")?, n3.ctl("node status")?];
            let gives_way = |status: &&String| status.contains("writes over this record again and again");
            ensure!(statuses.iter().filter(gives_way).count() == 1, "{statuses:?}");
            Ok(())
        })?;
        let before = written()?;
        std::thread::sleep(Duration::from_secs(10));
        ensure!(written()? == before, "the record is written again and again");
        n3.stop_agent()?;
        n3.set(|settings| settings.node_name = None);
        cluster.start_agent(n3)?;
        // Only the addresses of who is there now lead to sessions.
        cluster.stop(n1)?;
        cluster.start_agent(n1)?;
        cluster.wait_for_sessions()?;
        cluster.check()
    });
}

#[test]
fn a_nodes_address_changes() {
    Cluster::start().unwrap().test(|cluster| {
        let n1 = &cluster.nodes[0];
        let _owner = web(n1, "web-1")?;
        answered_by(&cluster.client, Via::Tcp, V4, "web-1")?;
        let [old4, old6] = NODES[0];
        let [new4, new6] = ["192.0.2.101", "2001:db8::101"];
        // The kernel takes an address's secondaries away with it, and the routes by way of it.
        n1.netns().ip(&format!(
            "address del {old4}/24 dev eth0\naddress del {old6}/64 dev eth0\n\
             address add {new4}/24 dev eth0\naddress add {new6}/64 dev eth0 nodad"
        ))?;
        for router in buoy_lab::cluster::ROUTER {
            n1.netns().ip(&format!("route replace default via {router}"))?;
        }
        cluster.router.set(|settings| {
            for (name, address, _) in &mut settings.peers {
                match name.as_str() {
                    "n1_v4" => *address = [192, 0, 2, 101].into(),
                    "n1_v6" => *address = [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x101].into(),
                    _ => {}
                }
            }
        })?;
        cluster.stop(n1)?;
        cluster.start_agent(n1)?;
        cluster.wait_for_sessions()?;
        for floating in [V4, V6] {
            answered_by(&cluster.client, Via::Tcp, floating, "web-1")?;
            answered_by(cluster.nodes[1].netns(), Via::Tcp, floating, "web-1")?;
            why_says(n1, floating, &["fronts shop/web-1"])?;
        }
        status_says(&cluster.nodes[1], &[new4, new6])?;
        cluster.check()
    });
}

#[test]
fn a_node_is_renamed() {
    Cluster::start().unwrap().test(|cluster| {
        let [n1, n2, _] = &cluster.nodes[..] else {
            anyhow::bail!("three nodes");
        };
        let _owner = web(n1, "web-1")?;
        answered_by(&cluster.client, Via::Tcp, V4, "web-1")?;
        let _standby = web(n2, "web-2")?;
        let before = owner(n2, V4)?;
        cluster.kill(n1);
        n1.set(|settings| settings.node_name = Some("n1-new".to_owned()));
        cluster.start_agent(n1)?;
        // To all, itself among them, the old node is dead: whoever stands by takes over when its lease is over.
        eventually(SOON, "somebody takes over", || {
            let now = owner(n2, V4)?;
            ensure!(now.1 > before.1 && !now.0.is_empty(), "{now:?} after {before:?}");
            Ok(())
        })?;
        for floating in [V4, V6] {
            let (who, _) = owner(n2, floating)?;
            why_says(n2, floating, &[&format!("fronts shop/{who}")])?;
            for from in [&cluster.client, n1.netns(), n2.netns()] {
                answered_by(from, Via::Tcp, floating, &who)?;
            }
        }
        status_says(n1, &["node n1 has this node's own address", "delete its record"])?;
        cluster.check()
    });
}

/// Without BIRD on the nodes the router has routes that a person wrote, to every node in turn.
#[test]
fn nodes_program_routes_and_somebody_else_announces() {
    Cluster::bare().unwrap().test(|cluster| {
        for node in &cluster.nodes {
            node.set(|settings| "kernel".clone_into(&mut settings.routing));
        }
        cluster.start_agents()?;
        let [n1, n2, _] = &cluster.nodes[..] else {
            anyhow::bail!("three nodes");
        };
        n1.apply(POOLS)?;
        n1.apply(PEERS)?;
        let first = web(n1, "web-1")?;
        by_hand(cluster, 0)?;
        for floating in [V4, V6] {
            answered_by(&cluster.client, Via::Tcp, floating, "web-1")?;
        }
        let _second = web(n2, "web-2")?;
        n1.ctl(&format!("fip move {V4} --to web-2"))?;
        by_hand(cluster, 1)?;
        answered_by(&cluster.client, Via::Tcp, V4, "web-2")?;
        cluster.check()?;
        first.delete()?;
        answered_by(&cluster.client, Via::Tcp, V6, "web-2")?;
        let status = status_says(n1, &["kernel"])?;
        ensure!(!status.contains("Established"), "{status}");
        eventually(PATIENCE, "no BIRD runs", || {
            ensure!(n1.bird_pid().is_err(), "{:?}", n1.bird_pid());
            Ok(())
        })?;
        cluster.check()
    });
}

fn by_hand(cluster: &Cluster, node: usize) -> Result<()> {
    let [v4, v6] = NODES[node];
    let router = cluster.router.netns();
    router.ip(&format!(
        "route replace {V4}/32 via {v4}\nroute replace {V6}/128 via {v6}"
    ))
}
