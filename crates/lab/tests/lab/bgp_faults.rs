//! What goes wrong with BIRD and its peers: routes stay, and `node status` says what is the matter.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use buoy_lab::ask::{status_says, why_says};
use buoy_lab::cluster::{Cluster, PEERS};
use buoy_lab::exec::{self, PATIENCE, eventually};
use buoy_lab::lab::POOLS;
use buoy_lab::node::Node;
use buoy_lab::programs::{Programs, found};
use buoy_lab::workload::{Spec, Workload};
use ipnet::IpNet;

/// BIRD starts, tries again, or gives up within this time.
const SOON: Duration = Duration::from_secs(30);
const FLOATING: &str = "172.16.1.50";

/// A route as the agent of a frozen node would have it, known to the router.
fn announced(cluster: &Cluster, node: &Node) -> Result<()> {
    cluster.freeze(node)?;
    node.netns()
        .ip("link add w0 type veth peer name w1\nlink set w0 up\nlink set w1 up")?;
    node.netns().exec(&format!(
        "ip route add {FLOATING} dev w0 proto 177 metric 999999990"
    ))?;
    eventually(SOON, "it is announced", || {
        cluster.router.next_hop(FLOATING.parse()?)
    })
    .map(|_| ())
}

/// A node's block, announced by its BIRD: present at the router and in the kernel of another node.
fn block_stays(cluster: &Cluster, other: &Node, block: &str, until: impl Fn() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    loop {
        let done = until().unwrap_or(false);
        let at_router = cluster
            .router
            .netns()
            .exec(&format!("ip route show {block}"))?
            .stdout;
        let at_other = other
            .netns()
            .exec(&format!("ip route show {block} proto bird"))?
            .stdout;
        ensure!(
            at_router.contains("via") && at_other.contains("via"),
            "the block was lost after {:?}",
            begun.elapsed()
        );
        if done {
            return Ok(());
        }
        ensure!(begun.elapsed() < SOON, "BIRD did not come back");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Gives a node a block, by an affinity as an allocation would leave it.
fn block_of(cluster: &Cluster, node: &Node) -> Result<String> {
    let workload = Workload::start(node, Spec::pod("shop", "web-0"))?;
    let address = workload.addresses().iter().find(|address| address.is_ipv4());
    let address = address.context("no IPv4 address")?.to_string();
    let block = {
        let shown = node.netns().exec("ip route show proto bird")?.stdout;
        let line = eventually(SOON, "the block is a route", || {
            let shown = node.netns().exec("ip route show proto bird")?.stdout;
            let line = shown.lines().find(|line| line.starts_with("unreachable 10.65."));
            line.map(str::to_owned).context(shown.clone())
        });
        line.with_context(|| format!("{address}: {shown}"))?
    };
    let block = block.split_whitespace().nth(1).context("no block")?.to_owned();
    eventually(SOON, "the block is known", || {
        let at_router = cluster
            .router
            .netns()
            .exec(&format!("ip route show {block}"))?
            .stdout;
        ensure!(at_router.contains("via"), "not at the router");
        Ok(())
    })?;
    // The namespace ends with the handle; the block stays.
    drop(workload);
    Ok(block)
}

#[test]
fn i5_the_daemon_dies_and_its_routes_stay() {
    Cluster::start().unwrap().test(|cluster| {
        let [n1, n2, _] = cluster.nodes.as_slice() else {
            unreachable!("a cluster has three nodes")
        };
        let block = block_of(cluster, n1)?;
        let back = |old: nix::unistd::Pid| {
            let now = n1.bird_pid()?;
            Ok(now != old
                && n1.ctl("node status")?.contains("ready")
                && cluster.wait_for_sessions_of(&[n1]).is_ok())
        };
        let old = n1.bird_pid()?;
        n1.kill_bird()?;
        block_stays(cluster, n2, &block, || back(old))?;
        // In order, as for an upgrade.
        let old = n1.bird_pid()?;
        exec::run(&mut n1.agent_command(&["bird", "stop"]), "", PATIENCE)?.ok()?;
        block_stays(cluster, n2, &block, || back(old))?;
        // The agent restarts and takes over the daemon that runs.
        let old = n1.bird_pid()?;
        n1.stop_agent()?;
        n1.start_agent()?;
        status_says(n1, &["ready", "Established"])?;
        ensure!(n1.bird_pid()? == old, "the running BIRD was not taken over");
        block_stays(cluster, n2, &block, || Ok(true))?;
        cluster.check()
    });
}

#[test]
fn a_rejected_configuration_leaves_the_old_one_running() {
    Cluster::bare().unwrap().test(|cluster| {
        let n1 = &cluster.nodes[0];
        let flag = n1.directory().join("reject");
        let program = format!(
            "#!/bin/sh\nif [ \"$1\" = -p ] && [ -e {} ]; then echo \"$3:7:1 syntax error, unexpected CF_SYM\" >&2; exit 1; fi\nexec {} \"$@\"\n",
            flag.display(),
            found("bird")?.display()
        );
        Programs::of(n1)?.write("bird", &program)?;
        cluster.start_agents()?;
        status_says(n1, &["Established"])?;
        let before = fs::read_to_string(n1.directory().join("run/bird.conf"))?;
        fs::write(&flag, "")?;
        n1.apply(PEERS)?;
        let status = status_says(n1, &["BIRD does not accept the configuration: bird.conf:7:1 syntax error"])?;
        ensure!(status.contains("Established") && status.contains("BIRD 2"), "{status}");
        ensure!(fs::read_to_string(n1.directory().join("run/bird.conf"))? == before, "the file changed");
        ensure!(!n1.birdc("show protocols")?.contains("peer_router"), "the peers are there");
        fs::remove_file(&flag)?;
        cluster.wait_for_sessions()?;
        let status = n1.ctl("node status")?;
        ensure!(!status.contains("does not accept"), "{status}");
        cluster.check()
    });
}

#[test]
fn a_missing_or_foreign_daemon_is_said() {
    Cluster::bare().unwrap().test(|cluster| {
        let n1 = &cluster.nodes[0];
        let programs = Programs::of(n1)?;
        n1.start_agent()?;
        status_says(n1, &["no program bird", "install the package bird2, or set routing: kernel"])?;
        // What would not be announced is not claimed.
        n1.apply(POOLS)?;
        let _web = Workload::start(n1, Spec::pod("shop", "web-0").floating(&["172.16.1.3"]))?;
        why_says(n1, "172.16.1.3", &["asks for it; not decided yet"])?;
        programs.write("bird", "#!/bin/sh\necho 'BIRD version 3.0.1' >&2\n")?;
        status_says(n1, &["BIRD is of another major version: 3.0.1", "install BIRD 2"])?;
        // One that dies whenever it is started.
        programs.write(
            "bird",
            "#!/bin/sh\ncase $1 in --version) echo 'BIRD version 2.0.12';; -R) echo 'cannot bind' >&2; exit 1;; esac\n",
        )?;
        status_says(n1, &["BIRD does not start: cannot bind", "within a minute"])?;
        // The right one comes, and all is well without a word to the agent.
        programs.put("bird")?;
        status_says(n1, &["BIRD 2", "ready", "Problems:       none"])?;
        eventually(SOON, "it is claimed", || why_says(n1, "172.16.1.3", &["fronts shop/web-0"]))?;
        n1.apply(PEERS)?;
        cluster.wait_for_sessions_of(&[n1])?;
        cluster.check()
    });
}

/// What `node status` says of the session with a peer.
fn line_of(node: &Node, peer: &str) -> Result<String> {
    let status = node.ctl("node status")?;
    let line = status.lines().find(|line| line.contains(&format!("{peer} ")));
    line.map(str::to_owned)
        .with_context(|| format!("no session with {peer}:\n{status}"))
}

#[test]
fn peers_that_do_not_agree_are_said() {
    Cluster::bare().unwrap().test(|cluster| {
        cluster.start_agents()?;
        let n1 = &cluster.nodes[0];
        n1.apply(&PEERS.replace("asNumber: 64600", "asNumber: 64999"))?;
        let status = status_says(n1, &["192.0.2.254", "2001:db8::fe", "global", "Bad peer AS"])?;
        ensure!(status.contains("node-to-node mesh"), "{status}");
        // Refused.
        n1.apply(PEERS)?;
        cluster.wait_for_sessions()?;
        cluster.router.stop()?;
        status_says(n1, &["192.0.2.254  | global", "Connection refused"])?;
        // A password that is not there, that is right, and that is wrong.
        let secured = PEERS.replace(
            "  asNumber:",
            "  password: {secretKeyRef: {name: bgp, key: password}}\n  asNumber:",
        );
        n1.apply(&secured)?;
        status_says(
            n1,
            &[
                "session with BGP peer router-v4: left out: password of secret \"bgp\"",
                "no file",
            ],
        )?;
        for node in &cluster.nodes {
            let secret = node.directory().join("secrets/bgp");
            fs::create_dir_all(&secret)?;
            fs::write(secret.join("password"), "right\n")?;
        }
        cluster
            .router
            .set(|settings| "right".clone_into(&mut settings.password))?;
        cluster.router.start()?;
        cluster.wait_for_sessions()?;
        fs::write(n1.directory().join("secrets/bgp/password"), "wrong\n")?;
        eventually(SOON, "the session with the wrong password is down", || {
            let line = line_of(n1, "192.0.2.254")?;
            ensure!(!line.contains("Established") && line.contains("start"), "{line}");
            ensure!(
                line.contains("a wrong password looks like: check that it is the peer's"),
                "{line}"
            );
            Ok(())
        })?;
        eventually(SOON, "whose password is right hears nothing of it", || {
            let line = line_of(&cluster.nodes[1], "192.0.2.254")?;
            ensure!(
                line.contains("Established") && !line.contains("password"),
                "{line}"
            );
            Ok(())
        })?;
        ensure!(!n1.ctl("node plan")?.contains("right"), "a password is shown");
        let log = fs::read_to_string(n1.log())?;
        ensure!(
            !log.contains("password \"") && !log.contains("wrong"),
            "a password is in the log"
        );
        cluster.check()
    });
}

/// 100,000 addresses of each family that no pool covers.
fn flood() -> impl Iterator<Item = IpNet> {
    let first = Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 0);
    (0..100_000u32).flat_map(move |number| {
        let v4 = Ipv4Addr::from(0x1400_0000 + number);
        let v6 = Ipv6Addr::from(u128::from(first) + u128::from(number));
        [IpAddr::from(v4), IpAddr::from(v6)].map(IpNet::from)
    })
}

#[test]
fn a_peer_has_no_say_about_our_pools_and_cannot_flood() {
    Cluster::start().unwrap().test(|cluster| {
        let n1 = &cluster.nodes[0];
        announced(cluster, n1)?;
        let announce = [
            "10.65.7.0/24",
            "172.16.1.9/32",
            "172.16.1.0/24",
            "fd16::9/128",
            "203.0.113.0/24",
        ];
        let announce: Result<Vec<_>, _> = announce.iter().map(|net| net.parse()).collect();
        let announce: Vec<IpNet> = announce?;
        cluster
            .router
            .set(|settings| settings.announced.clone_from(&announce))?;
        let own = |family: &str| {
            Ok(n1
                .netns()
                .exec(&format!("ip {family} route show proto bird"))?
                .stdout) as Result<String>
        };
        eventually(SOON, "what is not ours is learnt", || {
            ensure!(
                own("-4")?.contains("203.0.113.0/24 via 192.0.2.254"),
                "{}",
                own("-4")?
            );
            Ok(())
        })?;
        for net in ["10.65.7.0", "172.16.1.9", "172.16.1.0/24"] {
            ensure!(
                !own("-4")?.contains(net),
                "{net} is taken from the router: {}",
                own("-4")?
            );
        }
        ensure!(!own("-6")?.contains("fd16::9"), "{}", own("-6")?);

        cluster
            .router
            .set(|settings| settings.announced.extend(flood()))?;
        cluster.thaw(n1)?;
        for peer in ["192.0.2.254", "2001:db8::fe"] {
            eventually(
                SOON,
                "both sessions stand, and what is wrong with them is said",
                || {
                    let line = line_of(n1, peer)?;
                    for word in [
                        "Established: announces more than is taken",
                        "announces prefixes of our pools, which are not taken",
                    ] {
                        ensure!(line.contains(word), "{line}");
                    }
                    Ok(())
                },
            )?;
        }
        status_says(n1, &["ready"])?;
        let line = line_of(n1, "192.0.2.2")?;
        ensure!(!line.contains("our pools"), "a node is believed: {line}");
        for family in ["-4", "-6"] {
            let taken = own(family)?.lines().count();
            ensure!(
                (9_000..=10_100).contains(&taken),
                "{family}: {taken} routes are taken"
            );
        }
        cluster.wait_for_sessions()?;
        cluster.check()
    });
}
