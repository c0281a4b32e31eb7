//! BIRD and agents die and come back, while addresses live and are claimed.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use buoy_lab::ask::{answered_by, owner, status_says, why_says};
use buoy_lab::bird::established;
use buoy_lab::cluster::{Cluster, ROUTER};
use buoy_lab::exec::{self, PATIENCE, eventually};
use buoy_lab::node::Node;
use buoy_lab::probe::Via;
use buoy_lab::programs::Programs;
use buoy_lab::traffic::Traffic;
use buoy_lab::workload::{Spec, Workload};

const V4: &str = "172.16.1.3";
const V6: &str = "fd16::3";
const OTHER: &str = "172.16.1.4";
const SOON: Duration = Duration::from_secs(20);

fn web(node: &Node, name: &str, floating: &[&str]) -> Result<Workload> {
    Workload::start(node, Spec::pod("shop", name).floating(floating))
}

#[test]
fn bird_and_agents_come_and_go() {
    Cluster::start().unwrap().test(|cluster| {
        let _owner = web(&cluster.nodes[0], "web-1", &[V4, V6])?;
        let _standby = web(&cluster.nodes[1], "web-2", &[V4, V6])?;
        the_mesh_is_switched_off_and_on(cluster)?;
        restarts_lose_nothing(cluster)?;
        nothing_is_claimed_without_bird(cluster)?;
        a_restart_does_not_wait_for_the_dead(cluster)
    });
}

/// Nodes without a mesh have sessions with the router alone, and reach each other's addresses by way of it; the client
/// notices nothing.
fn the_mesh_is_switched_off_and_on(cluster: &Cluster) -> Result<()> {
    let n3 = &cluster.nodes[2];
    let traffic = Traffic::start(&cluster.client, V4.parse()?)?;
    mesh(n3, false)?;
    eventually(SOON, "only the sessions with the router stand", || {
        for node in &cluster.nodes {
            let table = node.birdc("show protocols")?;
            ensure!(established(&table).len() == 2, "{}: {table}", node.name());
            let status = node.ctl("node status")?;
            ensure!(!status.contains("node-to-node mesh"), "{status}");
        }
        Ok(())
    })?;
    for floating in [V4, V6] {
        eventually(SOON, "what the mesh brought is gone", || {
            let route = n3.netns().exec(&format!("ip route get {floating}"))?.ok()?.stdout;
            ensure!(
                ROUTER
                    .iter()
                    .any(|router| route.contains(&format!("via {router} "))),
                "{route}"
            );
            Ok(())
        })?;
        for from in [&cluster.client, n3.netns()] {
            answered_by(from, Via::Tcp, floating, "web-1")?;
        }
    }
    mesh(n3, true)?;
    cluster.wait_for_sessions()?;
    status_says(n3, &["node-to-node mesh"])?;
    traffic.unharmed()?;
    cluster.check()
}

fn mesh(node: &Node, enabled: bool) -> Result<()> {
    let record = format!(
        "{{apiVersion: projectcalico.org/v3, kind: BGPConfiguration, metadata: {{name: default}}, \
         spec: {{nodeToNodeMeshEnabled: {enabled}}}}}"
    );
    node.apply(&record).map(drop)
}

/// I5: `kill -9` of BIRD, and BIRD and agent restarted in order, on the owner's node and on another.
fn restarts_lose_nothing(cluster: &Cluster) -> Result<()> {
    let before = owner(&cluster.nodes[0], V4)?;
    let traffic = [V4, V6].map(|floating| {
        let floating: IpAddr = floating.parse()?;
        Traffic::start(&cluster.client, floating)
    });
    for node in &cluster.nodes[..2] {
        node.kill_bird()?;
        restarted(cluster, node)?;
        exec::run(&mut node.agent_command(&["bird", "stop"]), "", PATIENCE)?.ok()?;
        restarted(cluster, node)?;
        cluster.stop(node)?;
        cluster.start_agent(node)?;
    }
    for traffic in traffic {
        let traffic = traffic?;
        traffic.progress()?;
        traffic.unharmed()?;
    }
    ensure!(owner(&cluster.nodes[0], V4)? == before, "it moved");
    cluster.check()
}

fn restarted(cluster: &Cluster, node: &Node) -> Result<()> {
    cluster.wait_for_sessions()?;
    status_says(node, &["BIRD 2.0.12: ready"]).map(drop)
}

/// A candidate on a node whose BIRD does not answer is not ready, and says so; it claims once BIRD is there.
fn nothing_is_claimed_without_bird(cluster: &Cluster) -> Result<()> {
    let n3 = &cluster.nodes[2];
    cluster.stop(n3)?;
    n3.kill_bird()?;
    let programs = Programs::of(n3)?;
    cluster.start_agent(n3)?;
    let _waiting = web(n3, "web-3", &[OTHER])?;
    status_says(n3, &["no program bird"])?;
    let (who, _) = owner(n3, OTHER).unwrap_or_default();
    ensure!(who.is_empty(), "claimed by {who} without BIRD");
    why_says(
        n3,
        OTHER,
        &[
            "asks for it; not decided yet",
            "nothing is claimed before BIRD is ready: ",
            "no program bird",
        ],
    )?;
    programs.put("bird")?;
    answered_by(&cluster.client, Via::Tcp, OTHER, "web-3")?;
    cluster.wait_for_sessions()?;
    cluster.check()
}

/// With a peer that does not come back, BIRD announces what is new within its wait.
fn a_restart_does_not_wait_for_the_dead(cluster: &Cluster) -> Result<()> {
    let [n1, n2, n3] = &cluster.nodes[..] else {
        anyhow::bail!("three nodes");
    };
    cluster.cut(n3)?;
    n1.kill_bird()?;
    let begun = Instant::now();
    let _new = web(n1, "web-4", &["172.16.1.5"])?;
    status_says(n1, &["BIRD was restarted and waits for its peers"])?;
    answered_by(&cluster.client, Via::Tcp, "172.16.1.5", "web-4")?;
    let took = begun.elapsed();
    ensure!(took < Duration::from_secs(12), "announced after {took:?}");
    answered_by(n2.netns(), Via::Tcp, "172.16.1.5", "web-4")?;
    // BIRD waited for the dead longer than an owner may be not ready: it may have yielded.
    let (who, _) = owner(n2, V4)?;
    answered_by(&cluster.client, Via::Tcp, V4, &who)?;
    cluster.restore(n3)?;
    cluster.wait_for_sessions()?;
    cluster.check()
}

#[test]
fn an_address_without_standby_is_unreachable_and_comes_back() {
    Cluster::start().unwrap().test(|cluster| {
        let [n1, n2, _] = &cluster.nodes[..] else {
            anyhow::bail!("three nodes");
        };
        let _owner = web(n1, "web-1", &[V4])?;
        answered_by(&cluster.client, Via::Tcp, V4, "web-1")?;
        cluster.cut(n1)?;
        eventually(SOON, "n2 drops the route", || {
            let shown = n2.netns().exec(&format!("ip route show {V4}"))?.stdout;
            ensure!(!shown.contains("192.0.2.1"), "{shown}");
            Ok(())
        })?;
        cluster.check()?;
        cluster.restore(n1)?;
        answered_by(&cluster.client, Via::Tcp, V4, "web-1")?;
        cluster.wait_for_sessions()?;
        cluster.check()
    });
}
