//! ADD and DEL as runtimes use them: what the workload gets, and what repetition, age and order must not change.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use buoy_api::names;
use buoy_lab::ask::answered_by;
use buoy_lab::lab::{CLIENT, Lab};
use buoy_lab::leaks::assert_nothing_leaked;
use buoy_lab::netns::Netns;
use buoy_lab::node::Node;
use buoy_lab::probe::{self, Via};
use buoy_lab::records::Records;
use buoy_lab::traffic::Traffic;
use buoy_lab::workload::{Spec, Workload};
use rusqlite::Connection;
use serde_json::{Value, json};

const V4: &str = "172.16.1.3";
const V6: &str = "fd16::3";
const SOON: Duration = Duration::from_secs(20);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn shop(name: &str) -> Spec {
    Spec::pod("shop", name)
}

#[test]
fn every_version_gets_a_result_of_its_own_form() {
    Lab::start().unwrap().test(|lab| {
        for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
            let spec = shop("web-0").config("cniVersion", json!(version));
            let mut workload = Workload::prepare(&lab.node, spec)?;
            let result = workload.add()?.ok()?;
            ensure!(result["cniVersion"] == version, "{result}");
            let link = names::pod_link("shop", "web-0");
            ensure!(result["interfaces"][0]["name"] == link.as_str(), "{result}");
            ensure!(result["interfaces"][1]["name"] == "eth0", "{result}");
            for address in result["ips"].as_array().context("addresses")? {
                ensure!(address["interface"] == 1, "{result}");
                // Before 1.0 an address says its family.
                let says = address.get("version").is_some();
                ensure!(says == version.starts_with('0'), "{result}");
            }
            ensure!(
                !result.to_string().contains(V4),
                "a floating IP is no result: {result}"
            );
            workload.delete()?;
        }
        assert_nothing_leaked(&lab.node, &[])
    });
}

#[test]
fn the_link_is_as_calico_makes_it() {
    Lab::start().unwrap().test(|lab| {
        let web = Workload::start(&lab.node, shop("web-0").annotation("hwAddr", "02:00:00:00:00:42"))?;
        let link = names::pod_link("shop", "web-0");
        let one = |netns: &Netns, command: &str| -> Result<Value> {
            let list: Value = serde_json::from_str(&netns.exec(command)?.stdout)?;
            Ok(list[0].clone())
        };
        let outside = one(lab.node.netns(), &format!("ip -j -d link show dev {link}"))?;
        ensure!(
            outside["address"] == "ee:ee:ee:ee:ee:ee" && outside["mtu"] == 1450,
            "{outside}"
        );
        ensure!(
            outside["ifalias"] == format!("buoy:{}/eth0", web.container_id),
            "{outside}"
        );
        let inside = one(web.netns(), "ip -j -d link show dev eth0")?;
        ensure!(
            inside["address"] == "02:00:00:00:00:42" && inside["mtu"] == 1450,
            "{inside}"
        );
        let routes = web.netns().exec("ip route show")?.stdout;
        ensure!(
            routes.contains("default via 169.254.1.1 dev eth0")
                && routes.contains("169.254.1.1 dev eth0 scope link"),
            "{routes}"
        );
        let routes = web.netns().exec("ip -6 route show default")?.stdout;
        ensure!(
            routes.contains("via fe80::ecee:eeff:feee:eeee dev eth0"),
            "{routes}"
        );
        for own in web.addresses() {
            let bits = if own.is_ipv4() { 32 } else { 128 };
            let shown = web.netns().exec("ip address show dev eth0")?.stdout;
            ensure!(shown.contains(&format!("{own}/{bits}")), "{shown}");
        }
        for (key, value) in [
            ("ipv4/conf/{}/proxy_arp", "1"),
            ("ipv4/conf/{}/forwarding", "1"),
            ("ipv4/conf/{}/send_redirects", "0"),
            ("ipv4/conf/{}/route_localnet", "1"),
            ("ipv6/conf/{}/proxy_ndp", "1"),
            ("ipv6/conf/{}/forwarding", "1"),
            ("ipv6/conf/{}/accept_ra", "0"),
        ] {
            let path = format!("/proc/sys/net/{}", key.replace("{}", &link));
            let is = lab
                .node
                .netns()
                .enter(move || Ok(std::fs::read_to_string(path)?))?;
            ensure!(is.trim() == value, "{key} is {is}");
        }
        Ok(())
    });
}

/// No retry anywhere: the first packet after ADD is answered.
#[test]
fn addresses_work_when_add_returns() {
    Lab::start().unwrap().test(|lab| {
        let mut live = Vec::new();
        for index in 0..20_u8 {
            let floating = [
                format!("172.16.1.{}", 100 + index),
                format!("fd16::{}", 100 + index),
            ];
            let spec = shop(&format!("web-{index}")).floating(&[&floating[0], &floating[1]]);
            let mut workload = Workload::prepare(&lab.node, spec)?;
            workload.add()?.ok()?;
            let own = workload.addresses().iter().map(ToString::to_string);
            for to in floating.into_iter().chain(own) {
                lab.client
                    .exec(&format!("ping -n -c 1 -W 5 {to}"))
                    .with_context(|| format!("{to} does not work when ADD has returned"))?;
            }
            for to in CLIENT {
                workload.netns().exec(&format!("ping -n -c 1 -W 5 {to}"))?;
            }
            live.push(workload);
        }
        assert_nothing_leaked(&lab.node, &live.iter().collect::<Vec<_>>())
    });
}

#[test]
fn add_and_del_may_be_repeated() {
    Lab::start().unwrap().test(|lab| {
        let mut web = Workload::prepare(&lab.node, shop("web-0").floating(&[V4]))?;
        web.del()?.ok().context("DEL of what never was")?;
        let first = web.add()?.ok()?;
        let again = web.add()?.ok()?;
        ensure!(
            first["ips"] == again["ips"],
            "an ADD again gave other addresses: {first} {again}"
        );
        web.serve()?;
        probe::ask(&lab.client, Via::Tcp, ip(V4), SOON)?;
        assert_nothing_leaked(&lab.node, &[&web])?;
        web.del()?.ok()?;
        web.del()?.ok().context("a second DEL")?;
        assert_nothing_leaked(&lab.node, &[])
    });
}

#[test]
fn a_late_del_of_an_older_sandbox_touches_nothing_of_the_newer() {
    Lab::start().unwrap().test(|lab| {
        let old = Workload::start(&lab.node, shop("web-0").floating(&[V4, V6]))?;
        let new = Workload::start(&lab.node, shop("web-0").floating(&[V4, V6]))?;
        ensure!(old.container_id != new.container_id, "two sandboxes of one pod");
        let traffic = Traffic::start(&lab.client, ip(V4))?;
        old.delete()?;
        traffic.progress()?;
        traffic.unharmed()?;
        let answer = probe::ask(&lab.client, Via::Tcp, ip(V6), SOON)?;
        ensure!(answer.who == "web-0", "{answer:?}");
        let records = Records::read(lab.node.store())?;
        let owner = records
            .binding(ip(V4))
            .and_then(|binding| binding.spec.owner.clone());
        let internal = owner.as_ref().map(|owner| owner.internal_ip);
        ensure!(internal == Some(new.address(ip(V4))?), "{owner:?}");
        assert_nothing_leaked(&lab.node, &[&new])
    });
}

/// As when a StatefulSet's pod is made anew before its old sandbox is gone, and somebody stands by.
#[test]
fn a_newer_sandbox_takes_the_floating_ip_over_in_one_step() {
    Lab::start().unwrap().test(|lab| {
        let old = Workload::start(&lab.node, shop("web-0").floating(&[V4]))?;
        let standby = Workload::start(&lab.node, shop("web-1").floating(&[V4]))?;
        answered_by(&lab.client, Via::Tcp, V4, "web-0")?;
        let new = Workload::start(&lab.node, shop("web-0").floating(&[V4]))?;
        let answer = probe::ask(&lab.client, Via::Tcp, ip(V4), SOON)?;
        ensure!(answer.who == "web-0", "{answer:?}");
        let internal = |workload: &Workload| anyhow::Ok(workload.address(ip(V4))?.to_string());
        let expected = [(1, Some(internal(&old)?)), (2, Some(internal(&new)?))];
        let turns = turns(&lab.node, ip(V4))?;
        ensure!(turns == expected, "{turns:?}, not {expected:?}");
        old.delete()?;
        assert_nothing_leaked(&lab.node, &[&new, &standby])
    });
}

/// Every epoch of a binding that was ever written, with its owner's internal address.
fn turns(node: &Node, floating: IpAddr) -> Result<Vec<(u64, Option<String>)>> {
    let store = Connection::open(node.store().file()?)?;
    let key = format!(
        "/buoy/v1alpha1/floatingipbindings/{}",
        names::binding_name(floating)
    );
    let mut query = store.prepare("SELECT value FROM log WHERE key = ?1 ORDER BY revision")?;
    let written = query.query_map([key], |row| row.get::<_, String>(0))?;
    let mut turns = Vec::new();
    for value in written {
        let binding: Value = serde_json::from_str(&value?)?;
        let epoch = binding["spec"]["epoch"].as_u64().context("an epoch")?;
        let owner = binding["spec"]["owner"]["internalIP"].as_str();
        turns.push((epoch, owner.map(str::to_owned)));
    }
    turns.dedup();
    Ok(turns)
}

#[test]
fn fifty_at_once() {
    Lab::start().unwrap().test(|lab| {
        let live: Vec<Workload> = std::thread::scope(|scope| {
            let starting: Vec<_> = (0..10)
                .map(|runtime| {
                    scope.spawn(move || -> Result<Vec<Workload>> {
                        (0..5)
                            .map(|index| {
                                let spec = shop(&format!("web-{runtime}-{index}")).floating(&[V4]);
                                let mut workload = Workload::prepare(&lab.node, spec)?;
                                workload.add()?.ok()?;
                                Ok(workload)
                            })
                            .collect()
                    })
                })
                .collect();
            let mut live = Vec::new();
            for runtime in starting {
                live.extend(runtime.join().unwrap()?);
            }
            anyhow::Ok(live)
        })?;
        assert_nothing_leaked(&lab.node, &live.iter().collect::<Vec<_>>())?;
        std::thread::scope(|scope| {
            let ending: Vec<_> = live
                .into_iter()
                .map(|workload| scope.spawn(move || workload.delete()))
                .collect();
            ending
                .into_iter()
                .try_for_each(|thread| thread.join().unwrap().map(drop))
        })?;
        assert_nothing_leaked(&lab.node, &[])
    });
}
