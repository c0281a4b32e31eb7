//! Nodes that go and come: a machine that goes down gives away what it has, what drains goes on while it lasts, and one that
//! lost its power has nothing when it is back.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use buoy_lab::ask::{answered_by, given_up, owner};
use buoy_lab::cluster::Cluster;
use buoy_lab::exec::{PATIENCE, eventually};
use buoy_lab::node::Node;
use buoy_lab::probe::Via;
use buoy_lab::programs::Programs;
use buoy_lab::traffic::Witnesses;
use buoy_lab::workload::{Spec, Workload};

const V4: &str = "172.16.1.3";
const V6: &str = "fd16::3";
/// What nobody stands by for.
const ALONE: &str = "172.16.1.4";
const SOON: Duration = Duration::from_secs(20);

fn web(node: &Node, name: &str, floating: &[&str]) -> Result<Workload> {
    Workload::start(node, Spec::pod("shop", name).floating(floating))
}

/// The lease of a node that only restarts lasts a minute; this one is not waited for.
#[test]
fn a_machine_that_goes_down_gives_away_what_it_has() {
    Cluster::start().unwrap().test(|cluster| {
        let [n1, n2, _] = &cluster.nodes[..] else {
            anyhow::bail!("three nodes");
        };
        let programs = Programs::of(n1)?;
        programs.put("bird")?;
        programs.write("systemctl", "#!/bin/sh\necho running\n")?;
        cluster.stop(n1)?;
        cluster.start_agent(n1)?;
        let _owner = web(n1, "web-1", &[V4, V6, ALONE])?;
        let _standby = web(n2, "web-2", &[V4, V6])?;
        answered_by(&cluster.client, Via::Tcp, ALONE, "web-1")?;

        programs.write("systemctl", "#!/bin/sh\necho stopping\n")?;
        let witnesses = Witnesses::start(&cluster.client, V4.parse()?)?;
        let begun = Instant::now();
        cluster.stop(n1)?;
        let seen = witnesses.moved_and_heard(begun, "web-2", SOON, Duration::from_millis(500))?;
        eprintln!("goes down: {seen}");
        ensure!(seen.first_answer < Duration::from_secs(2), "not at once: {seen}");
        answered_by(&cluster.client, Via::Tcp, V6, "web-2")?;

        programs.write("systemctl", "#!/bin/sh\necho running\n")?;
        cluster.start_agent(n1)?;
        answered_by(&cluster.client, Via::Tcp, ALONE, "web-1")?;
        eventually(PATIENCE, "the standby that took over stays the owner", || {
            let (who, _) = owner(n1, V4)?;
            ensure!(who == "web-2", "{who} owns it");
            Ok(())
        })?;
        cluster.check()
    });
}

/// The addresses of a workload that was there before the power was cut.
const FIXED: [&str; 2] = ["10.65.7.7", "fd65::7:7"];

/// All that was on the machine is gone but for the files on its disk, which are of another boot.
fn lose_power(cluster: &Cluster, node: &Node) -> Result<()> {
    cluster.kill(node);
    node.kill_bird()?;
    fs::remove_dir_all(node.directory().join("run"))?;
    fs::create_dir(node.directory().join("run"))?;
    let links = node.netns().exec("ip -br link show type veth")?.stdout;
    let names = links.lines().filter_map(|line| line.split('@').next());
    for name in names.filter(|name| name.starts_with("cali")) {
        node.netns().ip(&format!("link delete {name}"))?;
    }
    node.netns().nft("flush ruleset\n")?;
    node.netns().exec("conntrack --flush")?;
    for family in ["-4", "-6"] {
        node.netns().exec(&format!("ip {family} route flush proto 177"))?;
    }
    for entry in fs::read_dir(node.state().join("attachments"))? {
        let file = entry?.path();
        let mut stored: serde_json::Value = serde_json::from_slice(&fs::read(&file)?)?;
        ensure!(stored["boot_id"].is_string(), "no boot id: {stored:#}");
        stored["boot_id"] = "00000000-0000-0000-0000-000000000000".into();
        fs::write(&file, stored.to_string())?;
    }
    Ok(())
}

/// It is back before its lease would have been revoked, so that nobody else frees anything.
#[test]
fn a_machine_that_lost_its_power_gives_up_what_its_workloads_had() {
    Cluster::start().unwrap().test(|cluster| {
        let [n1, n2, _] = &cluster.nodes[..] else {
            anyhow::bail!("three nodes");
        };
        let spec = Spec::pod("shop", "web-1")
            .floating(&[V4, V6, ALONE])
            .fixed(&FIXED);
        let owner = Workload::start(n1, spec)?;
        let plain = Workload::start(n1, Spec::pod("shop", "plain"))?;
        let _standby = web(n2, "web-2", &[V4, V6])?;
        answered_by(&cluster.client, Via::Tcp, ALONE, "web-1")?;

        lose_power(cluster, n1)?;
        cluster.start_agent(n1)?;
        for floating in [V4, V6] {
            answered_by(&cluster.client, Via::Tcp, floating, "web-2")?;
        }
        given_up(n1, ALONE)?;
        // The runtime clears away what it finds of the boot before.
        for gone in [owner, plain] {
            gone.delete_by_agent()?;
        }
        cluster.check()?;
        let again = Spec::pod("shop", "web-3").floating(&[ALONE]).fixed(&FIXED);
        let _again = Workload::start(n1, again)?;
        answered_by(&cluster.client, Via::Udp, ALONE, "web-3")?;
        cluster.check()
    });
}
