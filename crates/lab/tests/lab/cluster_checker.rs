//! The independent checker looks at real kernels, BIRDs and records: faults that are planted there by hand are found. The
//! agents stand still meanwhile, for they would repair them.

use anyhow::{Result, bail, ensure};
use buoy_lab::ask::answered_by;
use buoy_lab::checker::{Checker, Places, Source};
use buoy_lab::cluster::Cluster;
use buoy_lab::probe::{self, Via};
use buoy_lab::workload::{Spec, Workload};
use rusqlite::Connection;

const V4: &str = "172.16.1.3";
const V6: &str = "fd16::3";

#[test]
fn planted_faults_are_found() {
    Cluster::start().unwrap().test(|cluster| {
        let [n1, n2, _] = &cluster.nodes[..] else {
            anyhow::bail!("three nodes");
        };
        let _owner = Workload::start(n1, Spec::pod("shop", "web-1").floating(&[V4, V6]))?;
        let standby = Workload::start(n2, Spec::pod("shop", "web-2").floating(&[V4, V6]))?;
        answered_by(&cluster.client, Via::Tcp, V4, "web-1")?;
        cluster.check()?;
        // They stand still, and the checker is not told.
        let places = cluster.places();
        for node in &cluster.nodes {
            node.with_agent(|agent| agent.freeze())?;
        }
        let links = n2.netns().exec("ip -br link show")?.stdout;
        let link = link_of(&links);
        let own = standby.addresses()[0];
        let kernel =
            |namespace: &buoy_lab::netns::Netns, plant: &str, undo: &str, expected: &str| -> Result<()> {
                namespace.exec(plant)?;
                let found = finds(&places, expected);
                namespace.exec(undo)?;
                found
            };
        kernel(
            n2.netns(),
            &format!("ip route add {V4}/32 dev {link} proto 177 metric 7"),
            &format!("ip route del {V4}/32 dev {link} proto 177 metric 7"),
            "n2: 172.16.1.3 leads to the workload behind",
        )?;
        kernel(
            n2.netns(),
            &format!("ip route add 172.16.1.99/32 dev {link} proto 177 metric 999999990"),
            "ip route del 172.16.1.99/32",
            "n2: a route of an address that is not owned here: 172.16.1.99/32",
        )?;
        kernel(
            n2.netns(),
            &format!("nft add element ip buoy fips {{ {V4} : {own} }}"),
            &format!("nft delete element ip buoy fips {{ {V4} }}"),
            "n2: 172.16.1.3 is translated and not owned here",
        )?;
        kernel(
            n1.netns(),
            &format!("nft delete element ip buoy floating {{ {V4} }}"),
            &format!("nft add element ip buoy floating {{ {V4} }}"),
            "n1: 172.16.1.3: owned here and not in the set of floating IPs",
        )?;
        kernel(
            n1.netns(),
            &format!("nft add element ip6 buoy ending {{ {V6} . fd65::99 }}"),
            &format!("nft delete element ip6 buoy ending {{ {V6} . fd65::99 }}"),
            "n1: flows to fd16::3 by way of fd65::99 are still being ended",
        )?;
        kernel(
            cluster.router.netns(),
            &format!("ip route replace {V4}/32 via 192.0.2.3 proto bird metric 32"),
            &format!("ip route replace {V4}/32 via 192.0.2.1 proto bird metric 32"),
            "the router sends 172.16.1.3 to 192.0.2.3",
        )?;
        record(
            &places,
            "172-16-1-3",
            r#""epoch":1"#,
            r#""epoch":2"#,
            "that of epoch 2 is 999999998",
        )?;
        record(
            &places,
            "172-16-1-3",
            r#""term":1"#,
            r#""term":9"#,
            "its owner claims term 9",
        )?;
        record(
            &places,
            "buoy-fip-172-16-1-3",
            ":1}",
            ":2}",
            "handle buoy-fip-172-16-1-3 counts 2 addresses",
        )?;
        a_flow_that_should_have_ended(cluster, &places)?;
        for node in &cluster.nodes {
            node.with_agent(|agent| agent.thaw())?;
        }
        cluster.check()
    });
}

fn finds(places: &Places, expected: &str) -> Result<()> {
    let wrong = Checker::default().check(places)?;
    ensure!(
        wrong.iter().any(|line| line.contains(expected)),
        "no '{expected}' in {wrong:#?}"
    );
    Ok(())
}

/// Changes the text of a record, past every agent, and changes it back.
fn record(places: &Places, name: &str, from: &str, to: &str, expected: &str) -> Result<()> {
    let Source::Store(store) = &places.records else {
        bail!("the records are in no store of the lab's");
    };
    let store = Connection::open(store.file()?)?;
    let edit = |from: &str, to: &str| {
        let changed = "UPDATE kv SET value = replace(value, ?1, ?2) WHERE key LIKE '%/' || ?3";
        store.execute(changed, (from, to, name))
    };
    ensure!(edit(from, to)? == 1, "no record of this name: {name}");
    let found = finds(places, expected);
    edit(to, from)?;
    found
}

/// The first workload's link in a list of links.
fn link_of(list: &str) -> &str {
    let mut names = list.lines().filter_map(|line| line.split(['@', ' ']).next());
    names.find(|name| name.starts_with("cali")).unwrap_or_default()
}

/// A translation that leads elsewhere for a moment leaves a flow behind it.
fn a_flow_that_should_have_ended(cluster: &Cluster, places: &Places) -> Result<()> {
    let netns = cluster.nodes[0].netns();
    let right = netns.exec("nft list map ip buoy fips")?.stdout;
    let own = right
        .split_once(&format!("{V4} : "))
        .and_then(|(_, rest)| rest.split([' ', ',', '}']).next())
        .unwrap_or_default()
        .to_owned();
    let set = |to: &str| {
        netns.nft(&format!(
            "delete element ip buoy fips {{ {V4} }}\nadd element ip buoy fips {{ {V4} : {to} }}\n"
        ))
    };
    set("10.65.0.99")?;
    probe::nobody_answers(
        &cluster.client,
        Via::UdpFrom(4999),
        V4.parse()?,
        std::time::Duration::from_millis(300),
    )?;
    set(&own)?;
    let found = finds(places, "leads to 10.65.0.99");
    netns.exec(&format!("conntrack -D -d {V4} -r 10.65.0.99"))?;
    found
}
