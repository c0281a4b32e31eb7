//! What happens to an API server and its etcd under a running cluster: traffic does not suffer, nothing is taken from anybody
//! whose agent lives and reaches the store, every agent says how it stands, and soon after the end all is as before.
//!
//! A node counts as dead only after most of a minute, as in a real cluster: what is seen is what Buoy does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use buoy_lab::ask::silent;
use buoy_lab::exec::{eventually, memory};
use buoy_lab::faults::{Lost, Seen, cut_off, let_in, slow_down};
use buoy_lab::kube::{Buoy, Cluster, Cni, ControlPlane, Gate, Manifest, Node, Options, Pod};
use buoy_lab::probe::{self, Via};
use buoy_lab::traffic::Traffic;

use crate::guides::annotate;
use crate::service::reached;

const HERE: &str = "faults";
const FLOATING: [&str; 2] = ["172.16.1.3", "fd16::3"];
/// A pod that asks for [`FRESH`] after each fault.
const GUEST: &str = "guest";
const FRESH: &str = "172.16.1.9";
/// Longer than a lease that nobody renews.
const LONGER_THAN_A_LEASE: Duration = Duration::from_secs(9);
/// Within this time after the API server answers again, agents are ready and addresses are claimed.
const RETURN: Duration = Duration::from_secs(5);
/// Nothing is claimed for so long after a restore was noticed.
const HOLD: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_secs(60);

/// A cluster with a Deployment that asks for both addresses.
struct Scene<'a> {
    cluster: &'a Cluster,
    buoy: Buoy<'a>,
}

#[test]
fn faults_of_the_api_server_take_nothing() {
    let options = Options {
        cni: Cni::None,
        node_grace: Duration::from_secs(50),
        ..Options::default()
    };
    Cluster::start(&options).unwrap().test(|cluster| {
        let scene = Scene::set(cluster)?;
        let all = scene.faults();
        all.inspect_err(|_| eprintln!("{}", scene.buoy.evidence()))
    });
}

impl<'a> Scene<'a> {
    fn set(cluster: &'a Cluster) -> Result<Self> {
        cluster.import_server()?;
        let buoy = Buoy::install(cluster, Gate::Open)?;
        cluster.namespace(HERE)?;
        let web = Manifest::new(HERE, "web").floating(&FLOATING).spread();
        cluster.apply(&web.deployment(3, "RollingUpdate").to_string())?;
        cluster.apply(&Manifest::new(HERE, GUEST).on("n1").pod().to_string())?;
        cluster.wait_for_pods(HERE, 4)?;
        let scene = Self { cluster, buoy };
        let owner = scene.owner()?;
        for floating in FLOATING {
            reached(cluster, floating, &owner.name)?;
        }
        Ok(scene)
    }

    fn faults(&self) -> Result<()> {
        self.away()?;
        self.full()?;
        self.restored()?;
        self.started_without()?;
        self.slow()?;
        self.standby_cut_off()?;
        // The last: the address moves.
        self.owner_cut_off()?;
        self.a_pod_starts()
    }

    fn away(&self) -> Result<()> {
        let everybody: Vec<_> = self.cluster.nodes().iter().collect();
        self.endured(
            "stopped, and back with its data",
            (&everybody, Seen::NO_CONTACT),
            |control| {
                control.kill_store();
                Ok(())
            },
            |control, ()| control.start_store(&[]),
        )?;
        self.endured(
            "frozen",
            (&everybody, Seen::NO_CONTACT),
            |control| control.apiserver.freeze(),
            |control, ()| control.apiserver.thaw(),
        )
    }

    fn slow(&self) -> Result<()> {
        let everybody: Vec<_> = self.cluster.nodes().iter().collect();
        let over = AtomicBool::new(false);
        let etcd = &self.cluster.control.etcd;
        thread::scope(|scope| {
            let slowed = self.endured(
                "its etcd slow: 200 ms",
                (&everybody, Seen::IN_CONTACT),
                |_| Ok(scope.spawn(|| slow_down(&over, || etcd.freeze(), || etcd.thaw()))),
                |_, slowing| {
                    over.store(true, Ordering::Relaxed);
                    slowing.join().map_err(|_| anyhow!("it panicked"))?
                },
            );
            over.store(true, Ordering::Relaxed);
            slowed
        })
    }

    fn standby_cut_off(&self) -> Result<()> {
        let owner = self.owner()?;
        let mut others = self.cluster.nodes().iter();
        let standby = others
            .find(|node| node.name() != owner.node)
            .context("no standby")?;
        let [address, _] = standby.addresses();
        for (what, lost) in [
            ("a standby's requests are lost", Lost::Requests),
            ("answers to a standby are lost", Lost::Answers),
            ("a standby is cut off", Lost::Both),
        ] {
            self.endured(
                what,
                (&[standby], Seen::NO_CONTACT),
                |control| cut_off(control.netns(), address, lost),
                |control, ()| let_in(control.netns()),
            )?;
        }
        Ok(())
    }

    /// The owner's agent starts where nobody answers.
    fn started_without(&self) -> Result<()> {
        let owner = self.cluster.node(&self.owner()?.node)?;
        let agent = self.buoy.agent(owner.name())?;
        self.endured(
            "an agent started without it",
            (&[owner], Seen::NOT_READ),
            |control| {
                control.kill_store();
                agent.kill();
                agent.start()
            },
            |control, ()| control.start_store(&[]),
        )
    }

    /// It is started with little room, and somebody else takes all of it.
    fn full(&self) -> Result<()> {
        let control = &self.cluster.control;
        control.kill_store();
        control.start_store(&["--quota-backend-bytes=40000000"])?;
        self.is_in_use("started with little room", RETURN)?;
        let owner = self.cluster.node(&self.owner()?.node)?;
        self.endured(
            "full",
            (&[owner], Seen::FULL),
            |control| {
                let blob = "x".repeat(1_000_000);
                let mut numbers = 0..100;
                let filled = numbers.find(|number| {
                    let key = format!("/somebody/else/{number}");
                    control.etcdctl(&["put", &key], &blob).is_err()
                });
                filled.context("there is room for everything").map(drop)
            },
            |control, ()| {
                control.etcdctl(&["del", "--prefix", "/somebody/"], "")?;
                let revision = control.etcdctl(&["get", "x", "-w", "json"], "")?;
                let revision: serde_json::Value = serde_json::from_str(&revision)?;
                control.etcdctl(&["compact", &revision["header"]["revision"].to_string()], "")?;
                control.etcdctl(&["defrag"], "")?;
                control.etcdctl(&["alarm", "disarm"], "").map(drop)
            },
        )
    }

    /// Everything that came after the copy is forgotten, and then learnt again from the agents.
    fn restored(&self) -> Result<()> {
        let everybody: Vec<_> = self.cluster.nodes().iter().collect();
        let copy = self.cluster.control.copy_store()?;
        self.is_in_use("stopped for the copy", RETURN)?;
        let before = self.owner()?;
        let traffic = self.traffic()?;
        self.cluster.control.restore_store(&copy)?;
        self.shows(&everybody, Seen::RESTORED).context("restored")?;
        self.is_in_use("restored from a copy", HOLD + RETURN)?;
        unharmed(traffic).context("restored")?;
        ensure!(self.owner()?.uid == before.uid, "the owner is another");
        self.cluster.check().context("restored")
    }

    /// Its lease is revoked, and a standby has the address. Meanwhile its node forwards, for it has learnt the newer route.
    fn owner_cut_off(&self) -> Result<()> {
        let before = self.owner()?;
        let node = self.cluster.node(&before.node)?;
        let control = &self.cluster.control;
        let begun = Instant::now();
        cut_off(control.netns(), node.addresses()[0], Lost::Both)?;
        self.shows(&[node], Seen::NO_CONTACT)?;
        for floating in FLOATING {
            for from in [&self.cluster.client, node.netns()] {
                eventually(SOON, &format!("another answers at {floating}"), || {
                    let answer = probe::ask(from, Via::Tcp, floating.parse()?, Duration::from_secs(1))?;
                    ensure!(answer.who != before.name, "{} answers", answer.who);
                    Ok(())
                })?;
            }
        }
        eprintln!(
            "the owner is cut off: another answers after {:?}",
            begun.elapsed()
        );
        for address in &before.addresses {
            reached(self.cluster, &address.to_string(), &before.name)?;
        }
        let_in(control.netns())?;
        self.is_in_use("the owner was cut off", RETURN)?;
        ensure!(self.owner()?.uid != before.uid, "it is back at {}", before.name);
        self.cluster.check()
    }

    /// A fault that takes nothing: begins, is seen at these nodes, lasts, ends; and nobody's address moved.
    fn endured<T>(
        &self,
        what: &str,
        (nodes, seen): (&[&Node], Seen),
        begin: impl FnOnce(&ControlPlane) -> Result<T>,
        end: impl FnOnce(&ControlPlane, T) -> Result<()>,
    ) -> Result<()> {
        let control = &self.cluster.control;
        let before = (self.owner()?.uid, self.buoy.owner(FLOATING[0])?);
        let traffic = self.traffic()?;
        let memory = self.memory()?;
        let begun = Instant::now();
        let held = begin(control).with_context(|| format!("{what}: begins"))?;
        let shown = self.shows(nodes, seen);
        thread::sleep(LONGER_THAN_A_LEASE.saturating_sub(begun.elapsed()));
        let shown = shown.and_then(|()| self.goes_on(nodes, seen));
        end(control, held).with_context(|| format!("{what}: ends"))?;
        shown.with_context(|| what.to_owned())?;
        self.is_in_use(what, RETURN)?;
        let grown = self.memory()?.saturating_sub(memory);
        eprintln!("{what}: {grown} KiB more memory");
        ensure!(grown < 64 << 10, "{what}: the agents' memory grew by {grown} KiB");
        unharmed(traffic).with_context(|| what.to_owned())?;
        let after = (self.owner()?.uid, self.buoy.owner(FLOATING[0])?);
        ensure!(after == before, "{what}: {before:?} before, {after:?} after");
        self.cluster.check().with_context(|| what.to_owned())
    }

    /// It is seen still; and where all goes on, an address is claimed meanwhile.
    fn goes_on(&self, nodes: &[&Node], seen: Seen) -> Result<()> {
        self.shows(nodes, seen).context("at its end")?;
        if seen == Seen::IN_CONTACT {
            let guest = self.cluster.pod(HERE, GUEST)?;
            annotate(self.cluster, &guest, &format!("floatingIPs=[\"{FRESH}\"]"))?;
            reached(self.cluster, FRESH, GUEST)?;
            annotate(self.cluster, &guest, "floatingIPs-")?;
            silent(&self.cluster.client, FRESH)?;
        }
        Ok(())
    }

    /// Waits until agents say this of themselves, in each of the ways to see it.
    fn shows(&self, nodes: &[&Node], seen: Seen) -> Result<()> {
        let mut nodes = nodes.iter();
        nodes.try_for_each(|node| {
            seen.at(&node.agent_api(), || self.buoy.status(node))
                .with_context(|| node.name().to_owned())
        })
    }

    /// From when the API server answers until every agent is ready, and an address is claimed and answered, it is not long. The
    /// pod that gets it is there already: a kubelet may take most of a minute until it asks an API server again that was away.
    fn is_in_use(&self, what: &str, within: Duration) -> Result<()> {
        let guest = eventually(SOON, "the API server answers", || self.cluster.pod(HERE, GUEST))?;
        let begun = Instant::now();
        annotate(self.cluster, &guest, &format!("floatingIPs=[\"{FRESH}\"]"))?;
        let everybody: Vec<_> = self.cluster.nodes().iter().collect();
        for node in &everybody {
            eventually(SOON, node.name(), || node.agent_api().text("/readyz"))?;
        }
        reached(self.cluster, FRESH, GUEST)?;
        let took = begun.elapsed();
        eprintln!("{what}: in use {took:?} after its end");
        ensure!(took < within, "{what}: in use only {took:?} after its end");
        self.shows(&everybody, Seen::IN_CONTACT)?;
        annotate(self.cluster, &guest, "floatingIPs-")?;
        silent(&self.cluster.client, FRESH)
    }

    /// A pod is made, gets an address, and goes.
    fn a_pod_starts(&self) -> Result<()> {
        let begun = Instant::now();
        let fresh = Manifest::new(HERE, "fresh").floating(&[FRESH]);
        self.cluster.apply(&fresh.pod().to_string())?;
        let pod = self.cluster.wait_for_pod(HERE, "fresh")?;
        reached(self.cluster, FRESH, "fresh")?;
        eprintln!("a pod started in {:?}", begun.elapsed());
        self.cluster.api().delete(&pod.path())?;
        self.cluster.wait_until_gone(&pod)
    }

    /// The pod that answers at the first address.
    fn owner(&self) -> Result<Pod> {
        let answer = probe::ask(&self.cluster.client, Via::Tcp, FLOATING[0].parse()?, SOON)?;
        self.cluster.pod(HERE, &answer.who)
    }

    fn traffic(&self) -> Result<Vec<Traffic>> {
        let start = |floating: &str| Traffic::start(&self.cluster.client, floating.parse()?);
        FLOATING.into_iter().map(start).collect()
    }

    /// Resident memory of all agents together, in KiB.
    fn memory(&self) -> Result<u64> {
        let nodes = self.cluster.nodes().iter();
        let each = nodes.map(|node| memory(self.buoy.agent(node.name())?.pid()?, "VmRSS"));
        each.sum()
    }
}

fn unharmed(traffic: Vec<Traffic>) -> Result<()> {
    for one in traffic {
        one.progress()?;
        one.unharmed()?;
    }
    Ok(())
}
