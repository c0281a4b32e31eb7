//! Nodes that go and come in order: a machine that goes down gives away what it has, and what drains goes on while it lasts.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use buoy_lab::ask::{answered_by, owner};
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
