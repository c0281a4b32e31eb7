//! What the collector of Calico's frees and what it does not, one thing after another: it frees nothing of this project's
//! only if it frees what it should.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use buoy_api::ip::FloatingIp;
use buoy_api::ipam::{AffinityOwner, IpamConfig};
use buoy_api::names::floating_handle;
use buoy_core::ipam::{AutoAssign, ReserveFloating};
use buoy_core::store::{Key, Next, Prefix, Reply, Steps, StoreOp, Value};
use buoy_datastore::Datastore;
use jiff::Timestamp;

use super::calico::Calico;
use super::collector::{Collector, RULES, Rules};
use super::cooling::Cooling;
use super::line::{Dice, Line};
use super::node::{assign_by, publish, request, says, take_down};
use crate::tools::{Backend, list, written};

/// Scans are due so often.
const HALF: Duration = RULES.grace.checked_div(2).unwrap();
/// As long as addresses can cool down.
const COOLDOWN: Duration = Duration::from_mins(20);

/// A cluster, and a collector that goes round in it.
struct Scene<'a> {
    store: &'a dyn Datastore,
    collector: Collector<'a>,
    began: Timestamp,
    now: Duration,
}

impl<'a> Scene<'a> {
    fn of(store: &'a dyn Datastore, rules: Rules) -> Self {
        let began = Timestamp::now();
        Self {
            store,
            collector: Collector::new(store, rules, began),
            began,
            now: Duration::ZERO,
        }
    }

    fn line(&self) -> Line<'a> {
        let line = Line::new(self.store, Dice::new(1));
        line.set_bad(false);
        line
    }

    /// What the next scan frees.
    fn scan(&mut self) -> BTreeSet<String> {
        self.scan_after(HALF)
    }

    fn scan_after(&mut self, pause: Duration) -> BTreeSet<String> {
        self.now += pause;
        let mut freed = BTreeSet::new();
        self.collector.scan(self.now, |_, handle| {
            freed.insert(handle.to_owned());
        });
        freed
    }

    /// What each of so many scans frees.
    fn scans<const N: usize>(&mut self) -> [BTreeSet<String>; N] {
        std::array::from_fn(|_| self.scan())
    }

    /// A pod gets an address by this project.
    fn add(&self, node: &str, pod: &str) -> IpAddr {
        assign_by(&self.line(), node, pod).unwrap().unwrap()
    }

    /// Somebody gets an address by Calico, and says this of himself.
    fn give(&self, node: &str, handle: &str, says: &BTreeMap<String, String>) -> IpAddr {
        self.calico(node).assign(handle, says).unwrap().unwrap()
    }

    /// One of Calico's nodes. What it releases cools down, if that is what the cluster is set to.
    fn calico(&self, node: &str) -> Calico<'a> {
        let config = self.line().get(Key::IpamConfig).unwrap();
        let lasts = if config.is_some() {
            COOLDOWN
        } else {
            Duration::ZERO
        };
        let now = self.began + self.now;
        Calico {
            cooling: Cooling { now, lasts },
            ..super::calico(self.line(), node)
        }
    }

    /// Addresses that are given, and to whom. Those that cool down are nobody's.
    fn given(&self) -> BTreeMap<IpAddr, String> {
        let blocks = self.line().blocks().unwrap();
        let given = blocks.iter().flat_map(|(block, _)| {
            let name = |handle: &Option<String>| handle.clone().unwrap_or_default();
            block
                .allocated()
                .map(move |(ordinal, holder)| (block.address(ordinal).unwrap(), name(&holder.handle)))
        });
        given.collect()
    }

    fn has(&self, handle: &str) -> bool {
        self.given().values().any(|other| other == handle)
    }

    /// How many blocks a host has.
    fn blocks(&self, host: &str) -> usize {
        let owner = AffinityOwner::Host(host.to_owned());
        let affinities = list(self.store, Prefix::Affinities(owner.clone())).0.len();
        let blocks = self.line().blocks().unwrap();
        let own = blocks
            .iter()
            .filter(|(block, _)| block.affinity.as_ref() == Some(&owner));
        assert_eq!(own.count(), affinities, "{host}");
        affinities
    }
}

fn pods(backend: &dyn Backend, pods: &[(&str, &str)]) -> Arc<dyn Datastore> {
    let owned = |(node, pod): &(&str, &str)| ((*node).to_owned(), (*pod).to_owned());
    backend.make_pods("shop", &pods.iter().map(owned).collect::<Vec<_>>());
    backend.open()
}

fn handles<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

/// Attributes of who is no pod.
fn note(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

pub(crate) fn what_is_leaked_is_collected(backend: &dyn Backend) {
    let store = pods(
        backend,
        &[
            ("n0", "lives"),
            ("n0", "late"),
            ("n0", "other"),
            ("away", "stays"),
        ],
    );
    backend.make_nodes(&["n0", "n1"]);
    let mut scene = Scene::of(&*store, RULES);
    let lives = scene.add("n0", "lives");
    publish(&*store, ("n0", "lives"), &[lives]);
    let (late, _) = (scene.add("n0", "late"), scene.add("n0", "dead"));
    scene.add("n0", "other");
    publish(&*store, ("n0", "other"), &["10.99.0.1".parse().unwrap()]);
    scene.add("gone", "lost");
    scene.give(
        "gone",
        "tunnel-gone",
        &note(&[("node", "gone"), ("type", "vxlanTunnelAddress")]),
    );
    scene.give(
        "n1",
        "tunnel-n1",
        &note(&[("node", "n1"), ("type", "vxlanTunnelAddress")]),
    );
    // The one says nothing of himself, the other is none of the collector's business: for its sake it keeps what n1 has.
    scene.give("n1", "bare", &note(&[]));
    scene.give("n1", "by-hand", &note(&[("node", "n1"), ("note", "by hand")]));
    // Nobody knows this node, but something of it lives.
    let stays = scene.give("away", "stays", &says("away", "stays"));
    publish(&*store, ("away", "stays"), &[stays]);
    scene.give(
        "away",
        "tunnel-away",
        &note(&[("node", "away"), ("type", "vxlanTunnelAddress")]),
    );

    assert_eq!(
        scene.scan(),
        handles(["lost", "tunnel-gone"]),
        "their node is gone"
    );
    assert_eq!(scene.blocks("gone"), 0);
    assert_eq!(
        scene.scans(),
        [handles([]), handles([])],
        "their grace is not over"
    );
    publish(&*store, ("n0", "late"), &[late]);
    assert_eq!(scene.scan(), handles(["dead", "other"]));
    take_down(&*store, ("n0", "late"));
    let nothing = [const { BTreeSet::new() }; 3];
    assert_eq!(scene.scans(), nothing, "its grace began anew");
    assert_eq!(scene.scan(), handles(["late"]));
    backend.remove_node("n1");
    assert_eq!(scene.scans(), nothing);
    let left = ["bare", "by-hand", "lives", "stays", "tunnel-away", "tunnel-n1"];
    assert_eq!(
        scene.given().into_values().collect::<BTreeSet<_>>(),
        handles(left)
    );
}

pub(crate) fn a_handle_is_collected_as_a_whole(backend: &dyn Backend) {
    let store = pods(backend, &[("n0", "two")]);
    backend.make_nodes(&["n0"]);
    let mut scene = Scene::of(&*store, RULES);
    let first = scene.give("n0", "two", &says("n0", "two"));
    scene.give("n0", "two", &says("n0", "two"));
    publish(&*store, ("n0", "two"), &[first]);
    let nothing = [const { BTreeSet::new() }; 6];
    assert_eq!(scene.scans(), nothing, "one of its addresses lives");
    assert_eq!(scene.given().len(), 2);
    take_down(&*store, ("n0", "two"));
    let [.., last] = scene.scans::<4>();
    assert_eq!(last, handles(["two"]));
    assert_eq!(scene.given(), BTreeMap::new());
}

pub(crate) fn leaks_are_collected_in_batches(backend: &dyn Backend) {
    let store = backend.open();
    let mut scene = Scene::of(&*store, Rules { batch: 2, ..RULES });
    for pod in ["a", "b", "c"] {
        scene.add("gone", pod);
    }
    assert_eq!(scene.scans(), [handles(["a", "b"]), handles(["c"])]);
    assert_eq!(scene.blocks("gone"), 0);
}

/// Addresses of pods, from the first step of an ADD on; floating IPs, wherever they are.
pub(crate) fn nothing_of_ours_is_collected(backend: &dyn Backend) {
    let store = pods(backend, &[("n0", "claims"), ("n0", "slow")]);
    backend.make_nodes(&["n0"]);
    let mut scene = Scene::of(&*store, RULES);
    // All that the node has is in use: for the first pod it claims a block, which is empty for a moment.
    let others: Vec<IpAddr> = (0..16).map(|_| scene.give("n0", "others", &note(&[]))).collect();
    let lost = scene.add("gone", "lost");
    let beside = |address: IpAddr| match address {
        IpAddr::V4(address) => IpAddr::from(std::net::Ipv4Addr::from(u32::from(address) ^ 8)),
        IpAddr::V6(_) => panic!("{address}"),
    };
    let floating = [beside(lost), "10.77.0.200".parse().unwrap()];
    for address in floating {
        scene.reserve_slowly(address);
    }
    assert!(!scene.has("lost"), "the collector did not go round");
    let ours = ["claims", "slow"].map(|pod| {
        let address = scene.add_slowly("n0", pod);
        publish(&*store, ("n0", pod), &[address]);
        (address, pod.to_owned())
    });
    assert_eq!(scene.scans(), [const { BTreeSet::new() }; 6]);

    let others = others.into_iter().map(|address| (address, "others".to_owned()));
    let mut expected: BTreeMap<IpAddr, String> = others.chain(ours).collect();
    expected.extend(floating.map(|address| (address, floating_handle(address))));
    assert_eq!(scene.given(), expected);
    for handle in expected.values() {
        let record = scene.line().handle(handle).unwrap();
        assert!(record.is_some(), "{handle}");
    }
}

impl Scene<'_> {
    /// A floating IP is reserved, with a whole grace after each step.
    fn reserve_slowly(&mut self, address: IpAddr) {
        let address = FloatingIp::try_from(address).unwrap();
        let machine = ReserveFloating::new(super::reservation(address));
        self.slowly(machine, RULES.grace * 2, u32::MAX).unwrap();
    }

    /// A pod gets an address, with a scan after each step and then for as long as its grace lasts.
    fn add_slowly(&mut self, node: &str, pod: &str) -> IpAddr {
        const SCANS: u32 = 24;
        let ends = self.now + RULES.grace;
        let machine = AutoAssign::new(request(node, pod));
        let assigned = self.slowly(machine, RULES.grace / SCANS, SCANS).unwrap();
        while self.now < ends {
            self.scan_after(RULES.grace / SCANS);
        }
        assigned.addresses[0].addr()
    }

    fn slowly<S: Steps>(&mut self, mut machine: S, pause: Duration, mut scans: u32) -> S::Out {
        let mut reply = Reply::Start;
        loop {
            match machine.step(reply) {
                Next::Do(op) => reply = self.store.run(&op),
                Next::Done(out) => return out,
            }
            if scans > 0 {
                scans -= 1;
                self.scan_after(pause);
            }
        }
    }
}

pub(crate) fn cold_addresses_are_freed(backend: &dyn Backend) {
    let store = backend.open();
    let config = IpamConfig {
        cooldown_seconds: u32::try_from(COOLDOWN.as_secs()).unwrap(),
        ..IpamConfig::default()
    };
    written(store.run(&StoreOp::Create(Key::IpamConfig, Value::IpamConfig(config))));
    backend.make_nodes(&["n0"]);
    let mut scene = Scene::of(&*store, RULES);
    let released = scene.give("n0", "released", &note(&[]));
    scene.give("n0", "stays", &note(&[]));
    let leaked = scene.give("n0", "leaked", &says("gone", "leaked"));
    scene.calico("n0").release("released").unwrap();
    assert_eq!(scene.scan(), handles(["leaked"]));
    assert_eq!(scene.given()[&leaked], "", "what is collected cools down, too");
    scene.scan();
    assert_eq!(scene.given()[&released], "", "it is not cold yet");
    scene.scan();
    assert!(!scene.given().contains_key(&released));
    assert!(scene.given().contains_key(&leaked));
    scene.scan();
    assert_eq!(scene.given().into_values().collect::<Vec<_>>(), ["stays"]);
}

pub(crate) fn blocks_that_stay_empty_are_given_up(backend: &dyn Backend) {
    let store = backend.open();
    backend.make_nodes(&["n0", "n1"]);
    let mut scene = Scene::of(&*store, RULES);
    for node in ["n0", "n1"] {
        for address in 0..17 {
            let handle = format!("{node}-{}", address / 16);
            scene.give(node, &handle, &note(&[]));
        }
    }
    scene.calico("n0").release("n0-0").unwrap();
    scene.calico("n0").release("n0-1").unwrap();
    scene.calico("n1").release("n1-1").unwrap();
    scene.scan();
    assert_eq!((scene.blocks("n0"), scene.blocks("n1")), (2, 2));
    // Once in use in between, it has not stayed empty.
    scene.give("n1", "again", &note(&[]));
    scene.scan();
    assert_eq!((scene.blocks("n0"), scene.blocks("n1")), (1, 2));
    scene.calico("n1").release("again").unwrap();
    scene.scan();
    assert_eq!(scene.blocks("n1"), 2);
    scene.scans::<3>();
    assert_eq!((scene.blocks("n0"), scene.blocks("n1")), (1, 1));
}
