//! The built controller on an embedded store: what is gone is freed, what lives is not.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use buoy_api::binding::{Binding, BindingSpec, Candidate, Epoch, Term};
use buoy_api::ip::FloatingIp;
use buoy_api::ipam::{AffinityOwner, Block};
use buoy_api::lease::{NodeLease, NodeLeaseSpec};
use buoy_api::meta::ObjectMeta;
use buoy_api::names::binding_name;
use buoy_api::v3::{IpPool, IpPoolSpec, Node, NodeSpec, WorkloadEndpoint, WorkloadEndpointSpec};
use buoy_core::cluster::ELECTION;
use buoy_core::ipam::{
    Ask, Asker, AutoAssign, AutoAssignRequest, Grant, ReserveFloating, ReserveRequest, Snapshot,
};
use buoy_core::store::{Key, Part, Prefix, Record, Reply, StoreOp, Value, Writer};
use buoy_datastore::{Datastore, drive};
use jiff::Timestamp;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PATIENCE: Duration = Duration::from_secs(90);
const FLOATING: &str = "10.65.1.3";

/// A running controller; killed when dropped.
struct Controller(Child);

impl Controller {
    fn start(store: &str, log: &Path) -> Self {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_buoy-controller"))
            .args(["--datastore", store])
            .args(["--leak-grace", "4s", "--node-grace", "2s"])
            .args(["--floating-ip-hold", "5s"])
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self(child)
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), signal).unwrap();
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A store, and who looks after it.
struct Bed {
    directory: tempfile::TempDir,
    url: String,
    store: Arc<dyn Datastore>,
}

impl Bed {
    /// A pool, and the nodes n1 and n2.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", directory.path().join("buoy.db").display());
        let store = buoy_datastore::open(&url).unwrap();
        let bed = Self {
            directory,
            url,
            store,
        };
        let pool = IpPool::new(ObjectMeta::named("pool"), pool());
        bed.create(Key::Pool("pool".to_owned()), Value::Pool(pool));
        for name in ["n1", "n2"] {
            let node = Node::new(ObjectMeta::named(name), NodeSpec::default());
            bed.create(Key::Node(name.to_owned()), Value::Node(node));
        }
        bed
    }

    fn controller(&self) -> Controller {
        Controller::start(&self.url, &self.log())
    }

    fn log(&self) -> std::path::PathBuf {
        self.directory.path().join("log")
    }

    fn create(&self, key: Key, value: Value) {
        let reply = self.store.run(&StoreOp::Create(key.clone(), value));
        assert!(matches!(reply, Reply::Written(_)), "{key}: {reply:?}");
    }

    fn get(&self, key: Key) -> Option<Record> {
        match self.store.run(&StoreOp::Get(key)) {
            Reply::Record(record) => record,
            other => panic!("{other:?}"),
        }
    }

    fn delete(&self, key: Key) {
        let revision = self.get(key.clone()).unwrap().revision;
        assert_eq!(self.store.run(&StoreOp::Delete(key, revision)), Reply::Deleted);
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::new(Snapshot {
            pools: vec![IpPool::new(ObjectMeta::named("pool"), pool())],
            ..Snapshot::default()
        })
    }

    /// Gives an address to a pod, as an ADD on a node does.
    fn assign(&self, node: &str, pod: &str) -> ipnet::IpNet {
        let says = [("node", node), ("namespace", "shop"), ("pod", pod)];
        let request = AutoAssignRequest {
            snapshot: self.snapshot(),
            asker: Asker {
                host: node.to_owned(),
                ..Asker::default()
            },
            grant: Grant {
                handle: handle(pod),
                attributes: says.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            },
            v4: Ask::of(1),
            v6: Ask::of(0),
            cached: Vec::new(),
            seed: 1,
            now: Timestamp::now(),
        };
        let assigned = drive(self.store.as_ref(), AutoAssign::new(request)).unwrap();
        ipnet::IpNet::from(assigned.addresses[0].addr())
    }

    fn publish(&self, node: &str, pod: &str, address: ipnet::IpNet) {
        let spec = WorkloadEndpointSpec {
            node: node.to_owned(),
            pod: pod.to_owned(),
            ip_networks: vec![address],
            ..WorkloadEndpointSpec::default()
        };
        let name = format!("{node}-k8s-{pod}-eth0");
        let record = WorkloadEndpoint::new(ObjectMeta::namespaced("shop", &name), spec);
        let key = Key::Endpoint {
            namespace: "shop".to_owned(),
            name,
        };
        self.create(key, Value::Endpoint(record));
    }

    /// A floating IP with its reservation, owned by a pod on n2.
    fn bind(&self, pod: &str) {
        let address: FloatingIp = FLOATING.parse().unwrap();
        let request = ReserveRequest {
            snapshot: self.snapshot(),
            address,
            now: Timestamp::now(),
        };
        drive(self.store.as_ref(), ReserveFloating::new(request)).unwrap();
        let candidate = Candidate {
            node: "n2".to_owned(),
            workload: pod.to_owned(),
            endpoint: "eth0".to_owned(),
            uid: "uid".to_owned(),
            internal_ip: "10.65.0.9".parse().unwrap(),
            ready: true,
            priority: 0,
            since: Timestamp::now(),
        };
        let spec = BindingSpec {
            address: address.addr(),
            namespace: "shop".to_owned(),
            owner: Some(candidate.as_owner(Term(2))),
            epoch: Epoch(7),
            ..BindingSpec::default()
        };
        let key = Key::Binding(binding_name(address.addr()));
        let binding = Binding::new(ObjectMeta::named(binding_name(address.addr())), spec);
        self.create(key.clone(), Value::Binding(binding));
        let part = Part {
            candidates: vec![candidate],
            conditions: Vec::new(),
        };
        let apply = StoreOp::Apply(key, Writer("n2".to_owned()), part);
        assert!(matches!(self.store.run(&apply), Reply::Written(_)));
        let spec = NodeLeaseSpec {
            holder: Some("agent-of-n2".to_owned()),
            term: Term(2),
            duration_seconds: 6,
            ..NodeLeaseSpec::default()
        };
        let lease = NodeLease::new(ObjectMeta::named("n2"), spec);
        self.create(Key::Lease("n2".to_owned()), Value::Lease(lease));
    }

    fn blocks(&self) -> BTreeMap<ipnet::IpNet, Block> {
        let prefix = Prefix::Blocks(buoy_api::ip::Family::V4);
        let Reply::List(records, _) = self.store.run(&StoreOp::List(prefix)) else {
            panic!("no list")
        };
        let blocks = records.into_iter().filter_map(|record| match record.value {
            Ok(Value::Block(block)) => Some((block.cidr, block)),
            _ => None,
        });
        blocks.collect()
    }

    /// Whether a pod's handle has anything.
    fn has(&self, pod: &str) -> bool {
        let given = self
            .blocks()
            .values()
            .map(|block| block.ordinals_of(&handle(pod)).count())
            .sum::<usize>();
        assert_eq!(given > 0, self.get(Key::Handle(handle(pod))).is_some());
        given > 0
    }

    fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            assert!(Instant::now() < deadline, "not so in time: {what}\n{log}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn holder(&self) -> Option<String> {
        match self.get(Key::Lease(ELECTION.to_owned()))?.value.unwrap() {
            Value::Lease(lease) => lease.spec.holder,
            other => panic!("{other:?}"),
        }
    }
}

fn pool() -> IpPoolSpec {
    let mut spec = IpPoolSpec::new("10.65.0.0/16".parse().unwrap());
    spec.block_size = Some(26);
    spec
}

fn handle(pod: &str) -> String {
    format!("net.c-{pod}")
}

#[test]
fn what_pods_and_nodes_left_is_freed_and_what_lives_is_not() {
    let bed = Bed::new();
    bed.publish("n1", "lives", bed.assign("n1", "lives"));
    bed.assign("n1", "leaked");
    bed.assign("n2", "of-n2");
    bed.bind("web-0");
    let _controller = bed.controller();
    bed.until("the leak is freed", || !bed.has("leaked"));
    bed.until("the other too: its pod has no endpoint", || !bed.has("of-n2"));
    assert!(bed.has("lives"));
    let binding = Key::Binding(binding_name(FLOATING.parse().unwrap()));
    let is_bound = || bed.get(binding.clone()).is_some();
    assert!(is_bound() && bed.get(Key::Lease("n2".to_owned())).is_some());

    bed.delete(Key::Node("n2".to_owned()));
    let of_n2 = AffinityOwner::Host("n2".to_owned());
    bed.until("its block is gone", || {
        !bed.blocks()
            .values()
            .any(|block| block.affinity.as_ref() == Some(&of_n2))
    });
    bed.until("the address is nobody's, and then not held any more", || {
        !is_bound()
    });
    bed.until("its reservation is gone", || {
        bed.get(Key::Handle("buoy-fip-10-65-1-3".to_owned())).is_none()
    });
    bed.until("its lease is gone", || {
        bed.get(Key::Lease("n2".to_owned())).is_none()
    });
    let floor = match bed.get(Key::EpochFloor).unwrap().value.unwrap() {
        Value::EpochFloor(floor) => floor.spec.epoch,
        other => panic!("{other:?}"),
    };
    assert_eq!(floor, Epoch(8), "one above the owner's: nobody is an owner, too");
    assert!(bed.has("lives"));
    let Reply::List(claims, _) = bed.store.run(&StoreOp::List(Prefix::AllAffinities)) else {
        panic!("no list")
    };
    assert_eq!(claims.len(), 1, "{claims:?}");
}

#[test]
fn of_two_controllers_one_works_and_the_other_takes_over() {
    let bed = Bed::new();
    let first = bed.controller();
    bed.until("one is elected", || bed.holder().is_some());
    let holder = bed.holder();
    let second = bed.controller();
    // Killed: its lease must run out.
    first.signal(Signal::SIGKILL);
    bed.until("the other took over", || {
        bed.holder().is_some() && bed.holder() != holder
    });
    bed.assign("n1", "leaked");
    bed.until("it works", || !bed.has("leaked"));
    // Ended in order: it leaves the lease to others.
    second.signal(Signal::SIGTERM);
    bed.until("the lease is nobody's", || bed.holder().is_none());
}

#[test]
fn a_pod_that_comes_back_in_time_keeps_its_address() {
    let bed = Bed::new();
    let address = bed.assign("n1", "slow");
    let controller = bed.controller();
    bed.until("it works", || bed.holder().is_some());
    bed.publish("n1", "slow", address);
    // A second leak shows that a grace has passed since.
    bed.assign("n1", "leaked");
    bed.until("the leak is freed", || !bed.has("leaked"));
    assert!(bed.has("slow"));
    drop(controller);
}
