//! Nobody takes anything from anybody while nothing is known of anybody: the store is away, all agents start again at once,
//! one node is alone, an agent is upgraded.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use buoy_lab::ask::{owner, status_says, why_says};
use buoy_lab::cluster::Cluster;
use buoy_lab::locker::Locker;
use buoy_lab::store::Kind;
use buoy_lab::traffic::Traffic;
use buoy_lab::workload::{Spec, Workload};

const V4: &str = "172.16.1.3";
const V6: &str = "fd16::3";
/// Longer than any lease that nobody renews.
const LONGER_THAN_A_LEASE: Duration = Duration::from_secs(10);

/// One owner on n1, standbys on the other nodes.
fn shop(cluster: &Cluster) -> Result<Vec<Workload>> {
    let spec = |name: &str| Spec::pod("shop", name).floating(&[V4, V6]);
    let nodes = cluster.nodes.iter().zip(["web-1", "web-2", "web-3"]);
    nodes
        .map(|(node, name)| Workload::start(node, spec(name)))
        .collect()
}

/// Runs something while clients talk to the owner on n1; then nothing was lost, and the owner and its epoch are the same.
fn unmoved(cluster: &Cluster, what: &str, happens: impl FnOnce() -> Result<()>) -> Result<()> {
    let n1 = &cluster.nodes[0];
    let before = owner(n1, V4)?;
    let traffic = [V4, V6].map(|floating| {
        let floating: IpAddr = floating.parse()?;
        Traffic::start(&cluster.client, floating)
    });
    happens()?;
    for traffic in traffic {
        let traffic = traffic?;
        traffic.progress()?;
        traffic.unharmed()?;
    }
    let after = owner(n1, V4)?;
    ensure!(after == before, "{what}: {before:?} before, {after:?} after");
    why_says(n1, V4, &["fronts shop/web-1"])?;
    cluster.check()
}

buoy_lab::on_each_store! {
    a_store_that_is_away_for_a_minute_takes_nothing_from_anybody,
    an_address_stays_while_agents_come_and_go,
}

fn a_store_that_is_away_for_a_minute_takes_nothing_from_anybody(store: Kind) {
    Cluster::start_on(store).unwrap().test(|cluster| {
        let _shop = shop(cluster)?;
        let n1 = &cluster.nodes[0];
        status_says(n1, &["2 owned"])?;
        unmoved(cluster, "the store was away", || {
            let locker = Locker::hold(cluster.run(), cluster.store())?;
            thread::sleep(Duration::from_secs(60));
            ensure!(locker.held() >= Duration::from_secs(60));
            status_says(n1, &["unconfirmed"])?;
            drop(locker);
            // Who counted while nothing could be renewed would revoke now.
            thread::sleep(LONGER_THAN_A_LEASE);
            let status = status_says(n1, &["2 owned"])?;
            ensure!(!status.contains("unconfirmed"), "{status}");
            Ok(())
        })
    });
}

fn an_address_stays_while_agents_come_and_go(store: Kind) {
    Cluster::start_on(store).unwrap().test(|cluster| {
        let _shop = shop(cluster)?;
        let [n1, n2, n3] = &cluster.nodes[..] else {
            anyhow::bail!("three nodes");
        };
        unmoved(cluster, "all agents were killed and started at once", || {
            for node in &cluster.nodes {
                cluster.kill(node);
            }
            thread::sleep(LONGER_THAN_A_LEASE);
            thread::scope(|scope| {
                for node in &cluster.nodes {
                    scope.spawn(|| cluster.start_agent(node));
                }
            });
            thread::sleep(LONGER_THAN_A_LEASE);
            let status = status_says(n1, &["2 owned"])?;
            ensure!(!status.contains("unconfirmed"), "{status}");
            status_says(n2, &["0 owned"]).map(drop)
        })?;
        unmoved(cluster, "the owner's agent was upgraded", || {
            cluster.stop(n1)?;
            thread::sleep(LONGER_THAN_A_LEASE);
            cluster.start_agent(n1)
        })?;
        unmoved(cluster, "one node was alone, its agent stood still", || {
            cluster.kill(n2);
            cluster.kill(n3);
            cluster.freeze(n1)?;
            thread::sleep(LONGER_THAN_A_LEASE);
            cluster.thaw(n1)?;
            thread::sleep(Duration::from_secs(3));
            let status = status_says(n1, &["2 owned"])?;
            ensure!(!status.contains("unconfirmed"), "{status}");
            why_says(n1, V4, &["fronts shop/web-1"])?;
            cluster.start_agent(n2)?;
            cluster.start_agent(n3)
        })
    });
}
