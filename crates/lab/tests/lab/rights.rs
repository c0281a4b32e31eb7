//! Who may have an address: pools, namespaces, holds, the gate; and fixed addresses, which are not floating.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use buoy_lab::ask::{answered_by, listed, listed_as, silent, why_says};
use buoy_lab::exec::eventually;
use buoy_lab::lab::{CLIENT, Lab, POOLS};
use buoy_lab::leaks::assert_nothing_leaked;
use buoy_lab::netns::Netns;
use buoy_lab::probe::{self, Via};
use buoy_lab::workload::{Spec, Workload};
use serde_json::{Value, json};

const V4: &str = "172.16.1.3";
const SOON: Duration = Duration::from_secs(20);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn shop(name: &str) -> Spec {
    Spec::pod("shop", name)
}

#[test]
fn another_namespace_is_refused_with_the_reason_and_gets_it_once_it_is_free() {
    Lab::start().unwrap().test(|lab| {
        let owner = Workload::start(&lab.node, shop("web-0").floating(&[V4]))?;
        let other = Workload::start(&lab.node, Spec::pod("bank", "vault").floating(&[V4]))?;
        answered_by(&lab.client, Via::Tcp, V4, "web-0")?;
        why_says(&lab.node, V4, &["bank", "shop"])?;
        owner.delete()?;
        silent(&lab.client, V4)?;
        listed_as(&lab.node, V4, "it is held for shop", |row| {
            row["state"] == "Held" && row["namespace"] == "shop"
        })?;
        lab.node.ctl(&format!("fip release {V4}"))?;
        answered_by(&lab.client, Via::Tcp, V4, "vault")?;
        assert_nothing_leaked(&lab.node, &[&other])
    });
}

#[test]
fn a_hold_ends_by_itself() {
    let lab = Lab::bare().unwrap();
    lab.node.set(|settings| settings.hold = "2s".to_owned());
    lab.node.start_agent().unwrap();
    lab.node.apply(POOLS).unwrap();
    lab.test(|lab| {
        let web = Workload::start(&lab.node, shop("web-0").floating(&[V4]))?;
        let owned = |row: &Value| row["owner"] == "web-0";
        let epoch = listed_as(&lab.node, V4, "web-0 has it", owned)?["epoch"].as_u64();
        let deleted = Instant::now();
        web.delete()?;
        eventually(Duration::from_secs(60), "the hold ends", || {
            ensure!(listed(&lab.node, V4).is_err(), "still listed");
            Ok(())
        })?;
        ensure!(deleted.elapsed() >= Duration::from_secs(2), "collected too early");
        assert_nothing_leaked(&lab.node, &[])?;
        let _again = Workload::start(&lab.node, shop("web-0").floating(&[V4]))?;
        let again = listed_as(&lab.node, V4, "web-0 has it again", owned)?;
        ensure!(again["epoch"].as_u64() > epoch, "an epoch came again");
        Ok(())
    });
}

#[test]
fn an_address_outside_every_pool_waits_for_a_pool() {
    const OUTSIDE: &str = "172.16.9.9";
    Lab::start().unwrap().test(|lab| {
        let _web = Workload::start(&lab.node, shop("web-0").floating(&[OUTSIDE, V4]))?;
        answered_by(&lab.client, Via::Tcp, V4, "web-0")?;
        why_says(&lab.node, OUTSIDE, &["pool"])?;
        silent(&lab.client, OUTSIDE)?;
        lab.node.apply(
            "{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: late}, \
             spec: {cidr: 172.16.9.0/24, assignmentMode: Manual}}",
        )?;
        answered_by(&lab.client, Via::Tcp, OUTSIDE, "web-0").map(drop)
    });
}

#[test]
fn a_pool_whose_selector_does_not_match_gives_nothing() {
    Lab::start().unwrap().test(|lab| {
        lab.node.apply(
            "{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: banks}, \
             spec: {cidr: 172.16.8.0/24, assignmentMode: Manual, \
             namespaceSelector: projectcalico.org/name == 'bank'}}",
        )?;
        let _web = Workload::start(&lab.node, shop("web-0").floating(&["172.16.8.1"]))?;
        let _bank = Workload::start(&lab.node, Spec::pod("bank", "vault").floating(&["172.16.8.2"]))?;
        answered_by(&lab.client, Via::Tcp, "172.16.8.2", "vault")?;
        why_says(&lab.node, "172.16.8.1", &["shop"])?;
        silent(&lab.client, "172.16.8.1")
    });
}

#[test]
fn some_pods_own_address_is_no_floating_ip() {
    const OWN: &str = "10.65.0.20";
    Lab::start().unwrap().test(|lab| {
        let victim = Workload::start(&lab.node, shop("victim").fixed(&[OWN]))?;
        let thief = Workload::start(&lab.node, shop("thief").floating(&[OWN]))?;
        why_says(&lab.node, OWN, &["victim"])?;
        answered_by(&lab.client, Via::Udp, OWN, "victim")?;
        assert_nothing_leaked(&lab.node, &[&victim, &thief])
    });
}

#[test]
fn a_floating_ip_is_no_fixed_address() {
    Lab::start().unwrap().test(|lab| {
        let owner = Workload::start(&lab.node, shop("web-0").floating(&[V4]))?;
        let mut thief = Workload::prepare(&lab.node, shop("thief").fixed(&[V4]))?;
        let refusal = thief.add()?.refusal()?;
        ensure!(
            format!("{} {}", refusal.msg, refusal.details).contains(V4),
            "{refusal:?}"
        );
        answered_by(&lab.client, Via::Tcp, V4, "web-0")?;
        thief.del()?.ok()?;
        assert_nothing_leaked(&lab.node, &[&owner])
    });
}

#[test]
fn two_pods_with_the_same_fixed_address() {
    const FIXED: [&str; 2] = ["10.65.0.10", "fd65::10"];
    Lab::start().unwrap().test(|lab| {
        let first = Workload::start(&lab.node, shop("web-0").fixed(&FIXED))?;
        ensure!(
            first.addresses() == [ip(FIXED[0]), ip(FIXED[1])],
            "{:?}",
            first.addresses()
        );
        let mut second = Workload::prepare(&lab.node, shop("web-1").fixed(&FIXED))?;
        let refusal = second.add()?.refusal()?;
        ensure!(refusal.msg.contains(FIXED[0]), "{refusal:?}");
        answered_by(&lab.client, Via::Tcp, FIXED[0], "web-0")?;
        assert_nothing_leaked(&lab.node, &[&first])?;
        first.delete()?;
        eventually(SOON, "the address is free", || {
            let answered = second.add()?;
            if answered.result.is_err() {
                second.del()?.ok()?;
            }
            answered.ok().map(drop)
        })?;
        second.serve()?;
        answered_by(&lab.client, Via::Tcp, FIXED[0], "web-1")?;
        assert_nothing_leaked(&lab.node, &[&second])
    });
}

#[test]
fn fixed_addresses_come_in_every_form_of_a_runtime() {
    Lab::start().unwrap().test(|lab| {
        let forms = [
            ("10.65.0.11", shop("annotation").fixed(&["10.65.0.11"])),
            ("10.65.0.12", shop("args").arg("IP", "10.65.0.12")),
            ("10.65.0.13", Spec::container("plain").arg("IP", "10.65.0.13")),
            (
                "10.65.0.14",
                shop("capability").config("runtimeConfig", json!({"ips": ["10.65.0.14/16"]})),
            ),
            (
                "10.65.0.15",
                shop("convention").config("args", json!({"cni": {"ips": ["10.65.0.15"]}})),
            ),
        ];
        let mut live = Vec::new();
        for (fixed, spec) in forms {
            let workload = Workload::start(&lab.node, spec)?;
            ensure!(
                workload.addresses() == [ip(fixed)],
                "{}: {:?}",
                workload.name(),
                workload.addresses()
            );
            answered_by(&lab.client, Via::Udp, fixed, workload.name())?;
            live.push(workload);
        }
        assert_nothing_leaked(&lab.node, &live.iter().collect::<Vec<_>>())
    });
}

#[test]
fn the_gate_is_shut_unless_somebody_opens_it() {
    let shut = |name: &str| shop(name).floating(&[V4]).config("feature_control", Value::Null);
    Lab::start().unwrap().test(|lab| {
        let mut web = Workload::prepare(&lab.node, shut("web-0"))?;
        let refusal = web.add()?.refusal()?;
        ensure!(
            refusal
                .msg
                .contains("requested feature is not enabled: floating_ips"),
            "{refusal:?}"
        );
        web.del()?.ok()?;
        assert_nothing_leaked(&lab.node, &[])?;

        lab.node.apply(
            "{apiVersion: projectcalico.org/v3, kind: FelixConfiguration, metadata: {name: default}, \
             spec: {floatingIPs: Enabled}}",
        )?;
        eventually(SOON, "the gate is open", || {
            let answered = web.add()?;
            if answered.result.is_err() {
                web.del()?.ok()?;
            }
            answered.ok().map(drop)
        })?;
        web.serve()?;
        answered_by(&lab.client, Via::Tcp, V4, "web-0").map(drop)
    });
}

#[test]
fn the_agents_own_setting_overrides_the_gate() {
    let lab = Lab::bare().unwrap();
    lab.node.set(|settings| settings.floating_ips = "off".to_owned());
    lab.node.start_agent().unwrap();
    lab.node.apply(POOLS).unwrap();
    lab.test(|lab| {
        let mut web = Workload::prepare(&lab.node, shop("web-0").floating(&[V4]))?;
        let refusal = web.add()?.refusal()?;
        ensure!(refusal.msg.contains("not enabled"), "{refusal:?}");
        web.del()?.ok()?;
        lab.node.stop_agent()?;
        lab.node.set(|settings| settings.floating_ips = "on".to_owned());
        lab.node.start_agent()?;
        let open = shop("web-1")
            .floating(&[V4])
            .config("feature_control", Value::Null);
        let _web = Workload::start(&lab.node, open)?;
        answered_by(&lab.client, Via::Tcp, V4, "web-1").map(drop)
    });
}

#[test]
fn a_workload_sends_only_from_its_own_addresses() {
    const OTHER: &str = "198.51.100.7";
    Lab::start().unwrap().test(|lab| {
        lab.client.ip(&format!("route add {OTHER}/32 via 192.0.2.1"))?;
        let listen = probe::Server::start(&lab.client, "client")?;
        let spoof = |name: &str| shop(name).floating(&[V4]);
        let web = Workload::start(&lab.node, spoof("web-0"))?;
        let allowed = Workload::start(
            &lab.node,
            spoof("web-1").annotation("allowedSourcePrefixes", &format!("[\"{OTHER}/32\"]")),
        )?;
        let seen = |from: &Workload, source: &str| -> Result<u64> {
            let before = received(&lab.client)?;
            from.netns().ip(&format!("address replace {source}/32 dev lo"))?;
            let line = format!("ping -c 3 -i 0.1 -W 1 -I {source} {}", CLIENT[0]);
            // Answers find no way back: what counts is what arrives.
            let _ = from.netns().exec(&line);
            Ok(received(&lab.client)? - before)
        };
        ensure!(
            seen(&allowed, OTHER)? == 3,
            "an allowed prefix was not let through"
        );
        ensure!(seen(&web, OTHER)? == 0, "a foreign source came through");
        ensure!(
            seen(&web, &allowed.addresses()[0].to_string())? == 0,
            "another pod's source came through"
        );
        let counter = lab.node.netns().exec("nft list counter ip buoy spoofed")?.stdout;
        ensure!(
            !counter.contains("packets 0 "),
            "what was dropped is not counted: {counter}"
        );
        drop(listen);
        Ok(())
    });
}

/// ICMP echo requests that a host has received.
fn received(host: &Netns) -> Result<u64> {
    let shown = host.exec("nstat -asz IcmpInEchos")?.stdout;
    let count = shown.lines().find_map(|line| line.strip_prefix("IcmpInEchos"));
    let number = count
        .and_then(|rest| rest.split_whitespace().next())
        .context("no count of echo requests")?;
    Ok(number.parse()?)
}
