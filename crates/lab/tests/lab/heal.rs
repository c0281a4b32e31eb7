//! What somebody breaks heals, and what somebody loses is found.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use buoy_api::names;
use buoy_lab::exec::eventually;
use buoy_lab::lab::Lab;
use buoy_lab::leaks::assert_nothing_leaked;
use buoy_lab::node::Node;
use buoy_lab::probe::{self, Via};
use buoy_lab::records::Records;
use buoy_lab::traffic::Traffic;
use buoy_lab::workload::{Spec, Workload};
use rusqlite::{Connection, params};

const FLOATING: &str = "172.16.1.3";
const FLOATING_V6: &str = "fd16::3";
const SOON: Duration = Duration::from_secs(20);
/// No record.
const GARBAGE: &str = "{\"spec\":garbage";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn answers(lab: &Lab) -> Result<()> {
    probe::ask(&lab.client, Via::Udp, ip(FLOATING), SOON).map(drop)
}

/// Overwrites the one record whose key ends so, as a careless hand would. Returns what it was.
fn overwrite(node: &Node, key: &str, value: &str) -> Result<String> {
    let store = Connection::open(node.store().file()?)?;
    store.busy_timeout(SOON)?;
    let like = format!("%{key}");
    let before = store.query_row("SELECT value FROM kv WHERE key LIKE ?1", [&like], |row| {
        row.get(0)
    })?;
    let changed = store.execute("UPDATE kv SET value = ?1 WHERE key LIKE ?2", params![value, like])?;
    ensure!(changed == 1, "{changed} records end in {key}");
    Ok(before)
}

#[test]
fn rules_that_somebody_flushes_come_back() {
    Lab::start().unwrap().test(|lab| {
        let node = &lab.node;
        let _web = Workload::start(node, Spec::pod("shop", "web-0").floating(&[FLOATING]))?;
        answers(lab)?;
        for chain in ["dnat_in", "check_source"] {
            node.netns()
                .exec(&format!("nft flush chain ip buoy {chain}"))?
                .ok()?;
            eventually(SOON, "the rules are back", || {
                let listed = node
                    .netns()
                    .exec(&format!("nft list chain ip buoy {chain}"))?
                    .ok()?;
                ensure!(listed.stdout.contains("@links"), "{}", listed.stdout);
                Ok(())
            })?;
        }
        answers(lab)
    });
}

/// Down, down and up again, and down while no agent looks: each time every address works again.
#[test]
fn a_link_that_somebody_sets_down_is_raised() {
    Lab::start().unwrap().test(|lab| {
        let node = &lab.node;
        let spec = Spec::pod("shop", "web-0").floating(&[FLOATING, FLOATING_V6]);
        let web = Workload::start(node, spec)?;
        let bystander = Workload::start(node, Spec::pod("shop", "web-1"))?;
        let others = Traffic::start(&lab.client, bystander.addresses()[0])?;
        let own = web.addresses().iter().copied();
        let all: Vec<IpAddr> = [ip(FLOATING), ip(FLOATING_V6)].into_iter().chain(own).collect();
        let answers = |when: &str| {
            all.iter().try_for_each(|to| {
                let answer = probe::ask(&lab.client, Via::Tcp, *to, SOON);
                answer.map(drop).with_context(|| format!("{to}, {when}"))
            })
        };
        answers("before")?;
        let link = names::pod_link("shop", "web-0");
        node.netns().ip(&format!("link set {link} down"))?;
        answers("after it was set down")?;
        node.netns()
            .ip(&format!("link set {link} down\nlink set {link} up"))?;
        answers("after it was set down and up")?;
        for lines in ["link set {} down", "link set {} down\nlink set {} up"] {
            node.kill_agent();
            node.netns().ip(&lines.replace("{}", &link))?;
            node.start_agent()?;
            answers("after an agent's absence")?;
        }
        others.unharmed()?;
        assert_nothing_leaked(node, &[&web, &bystander])
    });
}

#[test]
fn i2_a_del_frees_what_the_agent_forgot() {
    Lab::start().unwrap().test(|lab| {
        let node = &lab.node;
        let web = Workload::start(node, Spec::pod("shop", "web-0").floating(&[FLOATING]))?;
        node.stop_agent()?;
        node.cleanup()?.ok()?;
        std::fs::remove_dir_all(node.state().join("attachments"))?;
        node.start_agent()?;
        web.del()?.ok()?;
        assert_nothing_leaked(node, &[])
    });
}

#[test]
fn i6_records_that_become_garbage_take_nothing_away_also_after_a_restart() {
    Lab::start().unwrap().test(|lab| {
        let node = &lab.node;
        let _web = Workload::start(node, Spec::pod("shop", "web-0").floating(&[FLOATING]))?;
        let traffic = Traffic::start(&lab.client, ip(FLOATING))?;
        let before = Records::read(node.store())?;
        let owner = before
            .binding(ip(FLOATING))
            .context("no binding")?
            .spec
            .owner
            .clone();
        let (pool, binding) = (
            "ippools/floating-v4",
            format!("floatingipbindings/{}", names::binding_name(ip(FLOATING))),
        );
        let good_pool = overwrite(node, pool, GARBAGE)?;
        node.kill_agent();
        node.start_agent()?;
        answers(lab)?;
        let after = Records::read(node.store())?;
        ensure!(
            after.binding(ip(FLOATING)).context("no binding")?.spec.owner == owner,
            "the owner changed"
        );
        let good_binding = overwrite(node, &binding, GARBAGE)?;
        node.kill_agent();
        node.start_agent()?;
        answers(lab)?;
        traffic.unharmed()?;
        // Nobody can tell whether garbage agrees with anything.
        overwrite(node, pool, &good_pool)?;
        overwrite(node, &binding, &good_binding)?;
        node.kill_agent();
        node.start_agent().map(drop)
    });
}

#[test]
fn a_failed_add_claims_nothing() {
    Lab::start().unwrap().test(|lab| {
        let node = &lab.node;
        let name = names::pod_link("shop", "web-0");
        node.netns()
            .exec(&format!("ip link add {name} type bridge"))?
            .ok()?;
        let mut web = Workload::prepare(node, Spec::pod("shop", "web-0").floating(&[FLOATING]))?;
        web.add()?.refusal()?;
        let records = Records::read(node.store())?;
        ensure!(records.binding(ip(FLOATING)).is_none(), "a binding was made");
        node.netns().exec(&format!("ip link del {name}"))?.ok()?;
        assert_nothing_leaked(node, &[])
    });
}

#[test]
fn two_agents_do_not_share_a_state_directory() {
    Lab::start().unwrap().test(|lab| {
        let node = &lab.node;
        let finished = buoy_lab::exec::run(&mut node.agent_command(&[]), "", SOON)?;
        ensure!(!finished.status.success(), "it runs");
        ensure!(
            finished.stderr.contains("another agent has this state directory"),
            "{}",
            finished.stderr
        );
        Ok(())
    });
}
