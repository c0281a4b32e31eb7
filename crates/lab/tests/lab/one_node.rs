//! The invariants of one node, by their names in the design: what a restart, a lost store, a stranger and a removal must
//! leave alone.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::fs;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use buoy_lab::ask::shows;
use buoy_lab::dice::Dice;
use buoy_lab::dump::Dump;
use buoy_lab::exec::eventually;
use buoy_lab::faults::Seen;
use buoy_lab::lab::Lab;
use buoy_lab::leaks::assert_nothing_leaked;
use buoy_lab::locker::Locker;
use buoy_lab::node::Node;
use buoy_lab::probe::{self, Via};
use buoy_lab::store::Kind;
use buoy_lab::traffic::Traffic;
use buoy_lab::workload::{Spec, Workload};

const V4: &str = "172.16.1.3";
const V6: &str = "fd16::3";
const SOON: Duration = Duration::from_secs(20);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn shop(name: &str) -> Spec {
    Spec::pod("shop", name)
}

/// Fails with what is different.
fn assert_same(before: &Dump, node: &Node, when: &str) -> Result<()> {
    let difference = before.difference(&Dump::take(node.netns())?);
    ensure!(difference.is_empty(), "{when}:\n{difference}");
    Ok(())
}

buoy_lab::on_each_store! {
    i1_no_address_twice_under_kill,
    i5_agent_restart_keeps_flows,
    i5_a_killed_agent_finishes_what_it_had_begun,
    i6_store_held_changes_nothing,
    i6_store_away_changes_nothing,
    i8_cleanup_restores_node,
}

/// Eight runtimes at once, and an agent that is killed again and again.
fn i1_no_address_twice_under_kill(store: Kind) {
    Lab::start_on(store).unwrap().test(|lab| {
        let seed = u64::from(std::process::id()) ^ 0x9e37_79b9_7f4a_7c15;
        eprintln!("seed {seed}");
        let killer = Killer::default();
        let survivors = thread::scope(|scope| {
            let killer = &killer;
            let runtimes: Vec<_> = (0..8)
                .map(|index| scope.spawn(move || runtime(&lab.node, index, killer, Dice::new(seed + index))))
                .collect();
            let killing = scope.spawn(|| killer.keep_killing(&lab.node, Dice::new(seed)));
            let survivors: Result<Vec<Vec<Workload>>> = runtimes
                .into_iter()
                .map(|runtime| {
                    runtime
                        .join()
                        .map_err(|_| anyhow::anyhow!("a runtime panicked"))?
                })
                .collect();
            killer.over.store(true, Ordering::Relaxed);
            killing
                .join()
                .map_err(|_| anyhow::anyhow!("the killer panicked"))??;
            survivors
        })?;
        let live: Vec<&Workload> = survivors.iter().flatten().collect();
        ensure!(!live.is_empty(), "no workload survived");
        assert_nothing_leaked(&lab.node, &live)?;
        for workload in survivors.into_iter().flatten() {
            workload.delete()?;
        }
        assert_nothing_leaked(&lab.node, &[])
    });
}

/// A runtime's life: workloads come, some go, some are asked for twice; until the agent has been killed some times.
fn runtime(node: &Node, index: u64, killer: &Killer, mut dice: Dice) -> Result<Vec<Workload>> {
    let mut live: Vec<Workload> = Vec::new();
    for round in 0.. {
        if round >= 10 && killer.kills.load(Ordering::Relaxed) >= 3 {
            break;
        }
        let mut workload = Workload::prepare(node, shop(&format!("pod-{index}-{round}")))?;
        let mut answered = workload.add()?;
        // A runtime asks again when it is told to; so does one that was restarted itself.
        while answered.result.as_ref().is_err_and(|refusal| refusal.code == 11) || dice.one_in(6) {
            ensure!(!killer.failed.load(Ordering::Relaxed), "there is no agent");
            answered = workload.add()?;
        }
        answered
            .ok()
            .with_context(|| format!("ADD of {}", workload.name()))?;
        live.push(workload);
        if dice.one_in(2) {
            let victim = live.swap_remove(dice.below(live.len()));
            victim.delete()?;
        }
    }
    Ok(live)
}

/// Who kills the agent while runtimes are at work.
#[derive(Default)]
struct Killer {
    kills: AtomicU32,
    /// The runtimes are done.
    over: AtomicBool,
    /// The agent did not start again.
    failed: AtomicBool,
}

impl Killer {
    /// Kills the agent at moments that nobody chose, until it is over. Leaves it running.
    fn keep_killing(&self, node: &Node, mut dice: Dice) -> Result<()> {
        while !self.over.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(20 + dice.below(400) as u64));
            node.kill_agent();
            self.kills.fetch_add(1, Ordering::Relaxed);
            node.start_agent()
                .inspect_err(|_| self.failed.store(true, Ordering::Relaxed))?;
        }
        Ok(())
    }
}

fn i5_agent_restart_keeps_flows(store: Kind) {
    Lab::start_on(store).unwrap().test(|lab| {
        let web = Workload::start(&lab.node, shop("web-0").floating(&[V4, V6]))?;
        let _standby = Workload::start(&lab.node, shop("web-1").floating(&[V4, V6]))?;
        let own = web.address(ip(V4))?;
        let traffic = [V4, V6]
            .map(ip)
            .into_iter()
            .chain([own])
            .map(|to| Traffic::start(&lab.client, to))
            .collect::<Result<Vec<_>>>()?;
        let hairpin = Traffic::start(web.netns(), ip(V4))?;
        let before = Dump::at_rest(lab.node.netns())?;
        let progress = || traffic.iter().chain([&hairpin]).try_for_each(Traffic::progress);

        for _ in 0..3 {
            lab.node.kill_agent();
            progress()?;
            lab.node.start_agent()?;
            progress()?;
        }
        lab.node.stop_agent()?;
        progress()?;
        assert_same(&before, &lab.node, "an orderly stop changed something")?;
        lab.node.start_agent()?;
        progress()?;
        lab.node.with_agent(|agent| agent.freeze())?;
        progress()?;
        lab.node.with_agent(|agent| agent.thaw())?;
        progress()?;
        assert_same(&before, &lab.node, "after the restarts")?;
        for traffic in traffic.into_iter().chain([hairpin]) {
            traffic.unharmed()?;
        }
        Ok(())
    });
}

fn i5_a_killed_agent_finishes_what_it_had_begun(store: Kind) {
    Lab::start_on(store).unwrap().test(|lab| {
        let first = Workload::start(&lab.node, shop("web-0").floating(&[V4]))?;
        let second = Workload::start(&lab.node, shop("web-1").floating(&[V4]))?;
        lab.node.kill_agent();
        first.delete()?;
        lab.node.start_agent()?;
        eventually(SOON, "web-1 has taken over", || {
            let answer = probe::ask(&lab.client, Via::Udp, ip(V4), Duration::from_secs(1))?;
            ensure!(answer.who == "web-1", "{} answers", answer.who);
            Ok(())
        })?;
        assert_nothing_leaked(&lab.node, &[&second])
    });
}

fn i6_store_held_changes_nothing(store: Kind) {
    Lab::start_on(store).unwrap().test(|lab| {
        let web = Workload::start(&lab.node, shop("web-0").floating(&[V4, V6]))?;
        let other = Workload::start(&lab.node, shop("other"))?;
        let more = Workload::start(&lab.node, shop("more").floating(&[V4]))?;
        let traffic = Traffic::start(&lab.client, ip(V4))?;
        let locker = Locker::hold(lab.run(), lab.node.store())?;
        for workload in [other, more] {
            workload.delete_by_agent()?;
        }
        let during = Dump::at_rest(lab.node.netns())?;
        while locker.held() < Duration::from_secs(10) {
            traffic.progress()?;
        }
        assert_same(&during, &lab.node, "while the store was held")?;
        drop(locker);
        assert_nothing_leaked(&lab.node, &[&web])?;
        traffic.unharmed()?;
        Ok(())
    });
}

fn i6_store_away_changes_nothing(store: Kind) {
    Lab::start_on(store).unwrap().test(|lab| {
        let node = &lab.node;
        let web = Workload::start(node, shop("web-0").floating(&[V4, V6]))?;
        let others = [
            Workload::start(node, shop("a"))?,
            Workload::start(node, shop("b"))?,
        ];
        let traffic = Traffic::start(&lab.client, ip(V4))?;
        let before = Dump::at_rest(node.netns())?;
        // A file is gone for good only for an agent that starts: who has it open, has it.
        node.kill_agent();
        node.store().go_away()?;
        let mut agent = node.launch_agent()?;
        if store == Kind::Etcd {
            shows(node, Seen::NOT_READ)?;
        }
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(3) {
            traffic.progress()?;
        }
        assert_same(&before, node, "while the store was away")?;
        for workload in others {
            workload.delete()?;
        }
        node.store().come_back()?;
        if store == Kind::Etcd {
            let back = Instant::now();
            shows(node, Seen::IN_CONTACT)?;
            ensure!(
                back.elapsed() < Duration::from_secs(5),
                "only after {:?}",
                back.elapsed()
            );
        }
        agent.kill();
        node.start_agent()?;
        assert_nothing_leaked(node, &[&web])?;
        traffic.unharmed()?;
        Ok(())
    });
}

#[test]
fn i7_foreign_state_untouched() {
    let lab = Lab::bare().unwrap();
    lab.test(|lab| {
        let node = &lab.node;
        be_a_stranger(node)?;
        let foreign = Dump::at_rest(node.netns())?;
        let note = node.state().join("notes.txt");
        fs::write(&note, "somebody's")?;
        node.start_agent()?;
        node.apply(buoy_lab::lab::POOLS)?;
        let web = Workload::start(node, shop("web-0").floating(&[V4, V6]))?;
        let standby = Workload::start(node, shop("web-1").floating(&[V4, V6]))?;
        stands(&foreign, node, "with workloads")?;
        node.kill_agent();
        node.start_agent()?;
        stands(&foreign, node, "after a restart")?;
        for workload in [web, standby] {
            workload.delete()?;
        }
        node.stop_agent()?;
        node.cleanup()?;
        assert_same(&foreign, node, "after everything is removed")?;
        ensure!(
            fs::read_to_string(&note)? == "somebody's",
            "a foreign file was changed"
        );
        Ok(())
    });
}

/// What others have on a node: some of it looks like Buoy's or Calico's.
fn be_a_stranger(node: &Node) -> Result<()> {
    node.netns()
        .ip("link add cali0123456789a type veth peer name elsewhere\n\
         link set cali0123456789a up\n\
         link set elsewhere up\n\
         address add 10.65.200.1/32 dev elsewhere\n\
         route add 172.16.200.0/24 via 192.0.2.254\n\
         route add 10.65.201.1/32 dev cali0123456789a\n\
         route add 10.65.202.0/24 via 192.0.2.254 metric 999999990\n\
         route add blackhole 10.65.203.0/24 proto 80\n\
         route add 172.16.1.3/32 via 192.0.2.254 table 177\n\
         rule add from 10.65.200.0/24 table 177\n\
         neighbour add 192.0.2.99 lladdr 02:00:00:00:00:99 nud permanent dev eth0\n\
         route add fd16:0:0:1::/64 via 2001:db8::fe")?;
    node.netns().nft(
        "table ip filter {
             chain FORWARD { type filter hook forward priority 0; policy accept; }
         }
         table ip nat {
             chain PREROUTING { type nat hook prerouting priority -100; }
             chain KUBE-SERVICES { ip daddr 10.96.0.1 dnat to 10.65.200.1; }
         }
         table inet buoyant {
             map fips { type ipv4_addr : ipv4_addr; elements = { 172.16.1.3 : 10.0.0.1 }; }
         }
         table ip6 calico {
             set links { type ifname; elements = { \"cali0123456789a\" }; }
         }",
    )
}

/// Checks that every foreign line still stands; sysctls are a node's to set.
fn stands(foreign: &Dump, node: &Node, when: &str) -> Result<()> {
    let difference = foreign.difference(&Dump::at_rest(node.netns())?);
    let gone: Vec<&str> = difference
        .lines()
        .filter(|line| line.starts_with('-') && !line.contains("sysctls:"))
        .collect();
    ensure!(gone.is_empty(), "{when}:\n{}", gone.join("\n"));
    Ok(())
}

fn i8_cleanup_restores_node(store: Kind) {
    Lab::start_on(store).unwrap().test(|lab| {
        let node = &lab.node;
        let mut workloads = Vec::new();
        for name in ["web-0", "web-1", "web-2"] {
            workloads.push(Workload::start(node, shop(name).floating(&[V4, V6]))?);
        }
        workloads.push(Workload::start(node, Spec::container("plain"))?);
        node.ctl(&format!("fip move {V4} --to web-2"))?;
        node.kill_agent();
        node.start_agent()?;
        ensure!(
            !lab.before.difference(&Dump::take(node.netns())?).is_empty(),
            "a dump that shows nothing of Buoy proves nothing"
        );
        for workload in workloads {
            workload.delete()?;
        }
        assert_nothing_leaked(node, &[])?;
        node.stop_agent()?;
        node.cleanup()?;
        eventually(SOON, "the node is as it was", || {
            assert_same(&lab.before, node, "after cleanup")
        })?;
        node.cleanup().context("a second cleanup finds nothing to do")?;
        Ok(())
    });
}

#[test]
fn i8_a_sysctl_that_somebody_changed_since_is_theirs() {
    const KEY: &str = "net/ipv4/ip_forward";
    let value = |dump: &Dump| {
        let prefix = format!("/proc/sys/{KEY} = ");
        let line = dump
            .section("sysctls")
            .iter()
            .find_map(|line| line.strip_prefix(&prefix));
        line.map(str::to_owned).context("no such sysctl in the dump")
    };
    Lab::start().unwrap().test(|lab| {
        let node = &lab.node;
        let web = Workload::start(node, shop("web-0").floating(&[V4]))?;
        ensure!(value(&lab.before)? == "0", "the lab's node forwards by itself");
        ensure!(
            value(&Dump::at_rest(node.netns())?)? == "1",
            "the agent does not let its node forward"
        );
        // Any number but 0 means yes: somebody has set it since, to another yes.
        node.netns().set_sysctl(KEY, "2")?;
        web.delete()?;
        node.stop_agent()?;
        node.cleanup()?;
        let kept = value(&Dump::take(node.netns())?)?;
        ensure!(kept == "2", "it was 2, set by somebody else, and is {kept}");
        Ok(())
    });
}
