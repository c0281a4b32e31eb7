//! A store with nodes, pods and what IPAM gave them, and the built controller on it.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use buoy_api::annotations::{AGENT, FLOATING_IPS};
use buoy_api::binding::{Binding, BindingSpec, Candidate, Epoch, Term};
use buoy_api::ip::FloatingIp;
use buoy_api::ipam::Block;
use buoy_api::lease::{NodeLease, NodeLeaseSpec};
use buoy_api::meta::ObjectMeta;
use buoy_api::names::binding_name;
use buoy_api::v3::{IpNat, IpPool, IpPoolSpec, Node, NodeSpec, WorkloadEndpoint, WorkloadEndpointSpec};
use buoy_core::cluster::ELECTION;
use buoy_core::ipam::{
    Ask, Asker, AutoAssign, AutoAssignRequest, Grant, ReserveFloating, ReserveRequest, Snapshot,
};
use buoy_core::store::{Key, Part, Prefix, Record, Reply, StoreOp, Value, Writer};
use buoy_datastore::{Datastore, drive};
use buoy_kubeserver::{ADMIN, ApiServer};
use jiff::Timestamp;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(90);
pub(crate) const FLOATING: &str = "10.65.1.3";
pub(crate) const OTHER_FLOATING: &str = "10.65.1.4";

/// A running controller; killed when dropped.
pub(crate) struct Controller {
    child: Child,
    log: PathBuf,
}

impl Controller {
    fn start(store: &str, log: PathBuf) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_buoy-controller"))
            .args(["--datastore", store])
            .args(["--leak-grace", "4s", "--node-grace", "2s"])
            .args(["--floating-ip-hold", "5s"])
            .stdin(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, log }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Whether this is in its log.
    pub(crate) fn said(&self, what: &str) -> bool {
        std::fs::read_to_string(&self.log).unwrap().contains(what)
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the store is made of.
enum Place {
    File,
    Kubernetes(Box<ApiServer>),
}

/// A store, and who looks after it.
pub(crate) struct Bed {
    directory: tempfile::TempDir,
    url: String,
    pub(crate) store: Arc<dyn Datastore>,
    place: Place,
}

impl Bed {
    /// An embedded store with a pool, and the nodes n1 and n2.
    pub(crate) fn embedded() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", directory.path().join("buoy.db").display());
        Self::filled(directory, (url.clone(), url), Place::File)
    }

    /// The same in a real API server, where the controller has its own rights and no more.
    pub(crate) fn kubernetes() -> Self {
        let server = ApiServer::start(IpAddr::V4(Ipv4Addr::new(127, 0, 77, 1))).unwrap();
        let paths = ["crds", "rbac.yaml", "rbac-controller.yaml"].map(|name| deploy().join(name));
        server
            .create(&paths.each_ref().map(|path| path.as_path()))
            .unwrap();
        let url = |user| format!("kubernetes:{}", server.kubeconfig(user).display());
        let urls = (url(ADMIN), url("controller"));
        Self::filled(
            tempfile::tempdir().unwrap(),
            urls,
            Place::Kubernetes(Box::new(server)),
        )
    }

    /// `urls`: of the test, and of the controller.
    fn filled(directory: tempfile::TempDir, urls: (String, String), place: Place) -> Self {
        let bed = Self {
            directory,
            store: buoy_datastore::open(&urls.0).unwrap(),
            url: urls.1,
            place,
        };
        let pool = IpPool::new(ObjectMeta::named("pool"), pool());
        bed.create(Key::Pool("pool".to_owned()), Value::Pool(pool));
        for name in ["n1", "n2"] {
            bed.add_node(name);
        }
        bed
    }

    fn add_node(&self, name: &str) {
        match &self.place {
            Place::File => {
                let node = Node::new(ObjectMeta::named(name), NodeSpec::default());
                self.create(Key::Node(name.to_owned()), Value::Node(node));
            }
            Place::Kubernetes(server) => {
                let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
                server.kubectl(&["create", "-f", "-"], &node.to_string()).unwrap();
            }
        }
    }

    pub(crate) fn forget_node(&self, name: &str) {
        match &self.place {
            Place::File => self.delete(Key::Node(name.to_owned())),
            Place::Kubernetes(server) => drop(server.kubectl(&["delete", "node", name], "").unwrap()),
        }
    }

    fn add_pod(&self, node: &str, pod: &str, floating: &[&str]) {
        let Place::Kubernetes(server) = &self.place else {
            return;
        };
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "namespace": "default",
                "annotations": {FLOATING_IPS: json!(floating).to_string()}},
            "spec": {"nodeName": node, "containers": [{"name": "main", "image": "main"}]},
        });
        server.kubectl(&["create", "-f", "-"], &pod.to_string()).unwrap();
    }

    /// Sees that the controller used each of its rights, and no other.
    pub(crate) fn rights_are_exact(&self) {
        let Place::Kubernetes(server) = &self.place else {
            panic!("nobody has rights in a file")
        };
        let user = "system:serviceaccount:buoy-system:buoy-controller";
        let manifest = deploy().join("rbac-controller.yaml");
        server.uses_exactly(user, &manifest).unwrap();
    }

    pub(crate) fn controller(&self) -> Controller {
        let number = self.logs().count();
        Controller::start(&self.url, self.directory.path().join(format!("log-{number}")))
    }

    fn logs(&self) -> impl Iterator<Item = PathBuf> {
        let logs = (0..).map(|number| self.directory.path().join(format!("log-{number}")));
        logs.take_while(|log| log.exists())
    }

    pub(crate) fn create(&self, key: Key, value: Value) {
        let reply = self.store.run(&StoreOp::Create(key.clone(), value));
        assert!(matches!(reply, Reply::Written(_)), "{key}: {reply:?}");
    }

    pub(crate) fn get(&self, key: Key) -> Option<Record> {
        match self.store.run(&StoreOp::Get(key)) {
            Reply::Record(record) => record,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn delete(&self, key: Key) {
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
    pub(crate) fn assign(&self, node: &str, pod: &str) -> ipnet::IpNet {
        self.assign_some(node, pod, 1)
    }

    /// The same for so many; the first of them.
    pub(crate) fn assign_some(&self, node: &str, pod: &str, number: usize) -> ipnet::IpNet {
        let says = [("node", node), ("namespace", "default"), ("pod", pod)];
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
            v4: Ask::of(number),
            v6: Ask::of(0),
            cached: Vec::new(),
            seed: 1,
            now: Timestamp::now(),
        };
        let assigned = drive(self.store.as_ref(), AutoAssign::new(request)).unwrap();
        ipnet::IpNet::from(assigned.addresses[0].addr())
    }

    pub(crate) fn publish(&self, node: &str, pod: &str, address: ipnet::IpNet) {
        self.publish_with(node, pod, address, &[]);
    }

    /// The same for a pod that asks for a floating IP.
    pub(crate) fn publish_asking(&self, node: &str, pod: &str, address: ipnet::IpNet, floating: &str) {
        self.publish_with(node, pod, address, &[floating]);
    }

    /// A node has an agent.
    pub(crate) fn mark(&self, name: &str) {
        match &self.place {
            Place::File => {
                let record = self.get(Key::Node(name.to_owned())).unwrap();
                let Ok(Value::Node(mut node)) = record.value else {
                    panic!("no node")
                };
                node.metadata
                    .annotations
                    .insert(AGENT.to_owned(), "0.1.0".to_owned());
                let update = StoreOp::Update(record.key, Value::Node(node), record.revision);
                assert!(matches!(self.store.run(&update), Reply::Written(_)));
            }
            Place::Kubernetes(server) => {
                let mark = format!("{AGENT}=0.1.0");
                server.kubectl(&["annotate", "node", name, &mark], "").unwrap();
            }
        }
    }

    /// Why nobody may claim the floating IP.
    pub(crate) fn contested(&self) -> Option<String> {
        let name = binding_name(FLOATING.parse().unwrap());
        match self.get(Key::Binding(name))?.value.unwrap() {
            Value::Binding(binding) => binding.status.contested().map(str::to_owned),
            other => panic!("{other:?}"),
        }
    }

    fn publish_with(&self, node: &str, pod: &str, address: ipnet::IpNet, floating: &[&str]) {
        self.add_pod(node, pod, floating);
        let spec = WorkloadEndpointSpec {
            node: node.to_owned(),
            container_id: format!("c-{pod}"),
            pod: pod.to_owned(),
            ip_networks: vec![address],
            ip_nats: floating
                .iter()
                .map(|floating| IpNat {
                    internal_ip: address.addr().to_string(),
                    external_ip: (*floating).to_owned(),
                })
                .collect(),
            ..WorkloadEndpointSpec::default()
        };
        let name = format!("{node}-k8s-{pod}-eth0");
        let record = WorkloadEndpoint::new(ObjectMeta::namespaced("default", &name), spec);
        let key = Key::Endpoint {
            namespace: "default".to_owned(),
            name,
        };
        self.create(key, Value::Endpoint(record));
    }

    /// Two floating IPs with their reservations, owned by a pod on n2.
    pub(crate) fn bind(&self, pod: &str) {
        self.bind_one(FLOATING, pod, Epoch(7));
        self.bind_one(OTHER_FLOATING, pod, Epoch(9));
        let spec = NodeLeaseSpec {
            holder: Some("agent-of-n2".to_owned()),
            term: Term(2),
            duration_seconds: 6,
            ..NodeLeaseSpec::default()
        };
        let lease = NodeLease::new(ObjectMeta::named("n2"), spec);
        self.create(Key::Lease("n2".to_owned()), Value::Lease(lease));
    }

    fn bind_one(&self, floating: &str, pod: &str, epoch: Epoch) {
        let address: FloatingIp = floating.parse().unwrap();
        let request = ReserveRequest {
            known: None,
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
            namespace: "default".to_owned(),
            owner: Some(candidate.as_owner(Term(2))),
            epoch,
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
    }

    pub(crate) fn blocks(&self) -> BTreeMap<ipnet::IpNet, Block> {
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
    pub(crate) fn has(&self, pod: &str) -> bool {
        let given = self
            .blocks()
            .values()
            .map(|block| block.ordinals_of(&handle(pod)).count())
            .sum::<usize>();
        assert_eq!(given > 0, self.get(Key::Handle(handle(pod))).is_some());
        given > 0
    }

    pub(crate) fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            let logs = || self.logs().filter_map(|log| std::fs::read_to_string(log).ok());
            assert!(
                Instant::now() < deadline,
                "not so in time: {what}\n{}",
                logs().collect::<String>()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    pub(crate) fn holder(&self) -> Option<String> {
        match self.get(Key::Lease(ELECTION.to_owned()))?.value.unwrap() {
            Value::Lease(lease) => lease.spec.holder,
            other => panic!("{other:?}"),
        }
    }
}

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

fn pool() -> IpPoolSpec {
    let mut spec = IpPoolSpec::new("10.65.0.0/16".parse().unwrap());
    spec.block_size = Some(26);
    spec
}

fn handle(pod: &str) -> String {
    format!("net.c-{pod}")
}
