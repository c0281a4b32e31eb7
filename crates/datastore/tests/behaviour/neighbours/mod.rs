//! Calico and this project allocate from one prefix at the same time, on six nodes that die and lose answers, while a
//! collector of Calico's goes round: no address is given twice, and nothing that lives is freed.

mod calico;
mod collector;
mod line;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use buoy_api::ObjectMeta;
use buoy_api::ip::{Family, FloatingIp};
use buoy_api::ipam::{AffinityOwner, AffinityState, Block};
use buoy_api::names::{EndpointName, Orchestrator};
use buoy_api::v3::{IpPool, IpPoolSpec, WorkloadEndpoint, WorkloadEndpointSpec};
use buoy_core::ipam::{
    Ask, Asker, AutoAssign, AutoAssignRequest, Grant, IpamError, ReleaseHandle, ReserveFloating,
    ReserveRequest, Snapshot,
};
use buoy_core::store::{Key, Prefix, Reply, StoreOp, Value};
use buoy_datastore::{Datastore, drive};
use ipnet::IpNet;
use jiff::Timestamp;

use crate::tools::{Backend, list};
use calico::Calico;
use collector::Collector;
use line::{Dice, Down, Line};

const POOL: &str = "10.77.0.0/24";
const BLOCK_LEN: u8 = 28;
const ROUNDS: u64 = 150;
/// Addresses that a node has at most: all six want more than there are.
const MOST: usize = 48;

fn handle(node: &str, round: u64) -> String {
    format!("net.{node}-{round}")
}

/// What is known to be so, whatever the store says.
#[derive(Default)]
struct Truth {
    /// Who uses an address.
    used: BTreeMap<IpAddr, String>,
    /// Handles that are being given to, or freed: for the collector, their grace is not over.
    moving: BTreeSet<String>,
    /// Nobody will free what these have: their node died with them.
    abandoned: BTreeSet<String>,
}

enum Kind<'a> {
    Calico(Calico<'a>),
    Buoy(Line<'a>),
}

/// A node: a writer, and the runtime that calls it.
struct Node<'a> {
    name: String,
    kind: Kind<'a>,
    truth: &'a Mutex<Truth>,
    has: Vec<(String, IpAddr)>,
}

fn pool() -> IpNet {
    POOL.parse().unwrap()
}

fn snapshot() -> Arc<Snapshot> {
    let mut spec = IpPoolSpec::new(pool());
    spec.block_size = Some(BLOCK_LEN);
    Arc::new(Snapshot {
        pools: vec![IpPool::new(ObjectMeta::named("shared"), spec)],
        ..Snapshot::default()
    })
}

/// Who an address is for, as plugins write it.
fn says(node: &str, handle: &str) -> BTreeMap<String, String> {
    let pairs = [
        ("namespace", "shop"),
        ("node", node),
        ("pod", handle),
        ("timestamp", "2026-03-01 08:00:01.5 +0000 UTC"),
    ];
    pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

impl Node<'_> {
    fn line(&self) -> &Line<'_> {
        match &self.kind {
            Kind::Calico(calico) => &calico.line,
            Kind::Buoy(line) => line,
        }
    }

    fn live(&mut self) {
        for round in 0..ROUNDS {
            let dies = self.line().below(100);
            if self.has.len() < MOST && (self.has.is_empty() || dies < 80) {
                self.add(&handle(&self.name, round));
            } else {
                let index = usize::try_from(self.line().below(self.has.len() as u64)).unwrap();
                let (handle, address) = self.has.swap_remove(index);
                self.del(&handle, address);
            }
        }
    }

    fn add(&mut self, handle: &str) {
        self.truth.lock().unwrap().moving.insert(handle.to_owned());
        match self.assign(handle) {
            Ok(Some(address)) => {
                self.publish(handle, address);
                let mut truth = self.truth.lock().unwrap();
                let other = truth.used.insert(address, handle.to_owned());
                assert_eq!(other, None, "{address} is given twice, also to {handle}");
                truth.moving.remove(handle);
                self.has.push((handle.to_owned(), address));
            }
            // The runtime undoes what failed; some nodes are never heard of again.
            _ if self.line().below(2) == 0 => {
                let mut truth = self.truth.lock().unwrap();
                truth.abandoned.insert(handle.to_owned());
                truth.moving.remove(handle);
            }
            _ => self.release(handle),
        }
    }

    fn del(&self, handle: &str, address: IpAddr) {
        {
            let mut truth = self.truth.lock().unwrap();
            truth.moving.insert(handle.to_owned());
            truth.used.remove(&address);
        }
        let key = endpoint_key(&self.name, handle);
        if let Reply::Record(Some(record)) = self.line().store.run(&StoreOp::Get(key.clone())) {
            assert_eq!(
                self.line().store.run(&StoreOp::Delete(key, record.revision)),
                Reply::Deleted
            );
        }
        self.release(handle);
    }

    /// Asks again until it is done, on a good day at last.
    fn release(&self, handle: &str) {
        for attempt in 0.. {
            self.line().set_bad(attempt < 3);
            let done = match &self.kind {
                Kind::Calico(calico) => calico.release(handle),
                Kind::Buoy(line) => match line.drive(ReleaseHandle::new(handle.to_owned())) {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(error)) => {
                        assert!(error.is_retryable(), "{error}");
                        Err(Down)
                    }
                    Err(Down) => Err(Down),
                },
            };
            if done.is_ok() {
                break;
            }
            assert!(attempt < 50, "{handle} cannot be released");
        }
        self.line().set_bad(true);
        self.truth.lock().unwrap().moving.remove(handle);
    }

    fn assign(&self, handle: &str) -> Result<Option<IpAddr>, Down> {
        match &self.kind {
            Kind::Calico(calico) => calico.assign(handle, &says(&self.name, handle)),
            Kind::Buoy(line) => assign_by(line, &self.name, handle),
        }
    }

    fn publish(&self, handle: &str, address: IpAddr) {
        let spec = WorkloadEndpointSpec {
            orchestrator: "k8s".to_owned(),
            node: self.name.clone(),
            pod: handle.to_owned(),
            endpoint: "eth0".to_owned(),
            ip_networks: vec![address.into()],
            ..WorkloadEndpointSpec::default()
        };
        let metadata = ObjectMeta::namespaced("shop", endpoint_name(&self.name, handle));
        let record = WorkloadEndpoint::new(metadata, spec);
        let create = StoreOp::Create(endpoint_key(&self.name, handle), Value::Endpoint(record));
        let created = self.line().store.run(&create);
        assert!(matches!(created, Reply::Written(_)), "{created:?}");
    }
}

/// By this project.
fn assign_by(line: &Line<'_>, node: &str, handle: &str) -> Result<Option<IpAddr>, Down> {
    let request = AutoAssignRequest {
        snapshot: snapshot(),
        asker: asker(node),
        grant: Grant {
            handle: handle.to_owned(),
            attributes: says(node, handle),
        },
        v4: Ask::of(1),
        v6: Ask::of(0),
        cached: Vec::new(),
        seed: node.bytes().map(u64::from).sum(),
        now: Timestamp::now(),
    };
    match line.drive(AutoAssign::new(request))? {
        Ok(assigned) => Ok(assigned.addresses.first().map(IpNet::addr)),
        Err(IpamError::Exhausted { .. }) => Ok(None),
        Err(error) => {
            assert!(error.is_retryable(), "{error}");
            Err(Down)
        }
    }
}

/// Each handle is that of a pod.
fn endpoint_name(node: &str, handle: &str) -> String {
    let name = EndpointName::new(node, Orchestrator::K8s, handle, "eth0");
    name.unwrap().to_string()
}

fn endpoint_key(node: &str, handle: &str) -> Key {
    Key::Endpoint {
        namespace: "shop".to_owned(),
        name: endpoint_name(node, handle),
    }
}

fn asker(host: &str) -> Asker {
    Asker {
        host: host.to_owned(),
        node_labels: BTreeMap::new(),
        namespace_labels: BTreeMap::new(),
    }
}

/// Floating IPs of this project, reserved for as long as their bindings live; and their handles.
fn reserve(store: &dyn Datastore) -> BTreeMap<IpAddr, String> {
    let reserved = ["10.77.0.3", "10.77.0.100", "10.77.0.255"].map(|text| {
        let address: FloatingIp = text.parse().unwrap();
        let request = ReserveRequest {
            known: None,
            snapshot: snapshot(),
            address,
            now: Timestamp::now(),
        };
        drive(store, ReserveFloating::new(request)).unwrap();
        (address.addr(), buoy_api::names::floating_handle(address.addr()))
    });
    reserved.into()
}

/// An address of a pod that is not there.
fn leak(store: &dyn Datastore) {
    let line = Line::new(store, Dice::new(1));
    line.set_bad(false);
    let assigned = assign_by(&line, "n6", "net.leak");
    assert!(matches!(assigned, Ok(Some(_))), "{assigned:?}");
}

pub(crate) fn writers_of_two_kinds_share_a_prefix(backend: &dyn Backend) {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let pods = (0..6).flat_map(|node| {
        let node = format!("n{node}");
        (0..ROUNDS).map(move |round| (node.clone(), handle(&node, round)))
    });
    backend.make_pods("shop", &pods.collect::<Vec<_>>());
    let truth = Mutex::new(Truth::default());
    let reserved = reserve(&*backend.open());
    truth.lock().unwrap().used.extend(reserved);
    leak(&*backend.open());
    let over = AtomicBool::new(false);
    let collected = std::thread::scope(|scope| {
        let nodes: Vec<_> = (0..6)
            .map(|index| {
                let truth = &truth;
                scope.spawn(move || one_node(backend, truth, index, seed))
            })
            .collect();
        let collecting = scope.spawn(|| collect(backend, &truth, &over, seed));
        let ended: Vec<_> = nodes.into_iter().map(|node| node.join()).collect();
        over.store(true, Ordering::SeqCst);
        let collected = collecting.join().unwrap();
        for end in ended {
            end.unwrap();
        }
        collected
    });
    let truth = truth.into_inner().unwrap();
    let used = truth.used.len();
    println!(
        "{used} addresses in use, {collected} collected, {} abandoned",
        truth.abandoned.len()
    );
    assert!(used > 150, "there was little to fight for: {used}");
    assert!(collected > 0, "the collector never found what nobody has");
    everything_agrees(&*backend.open(), &truth);
}

fn one_node(backend: &dyn Backend, truth: &Mutex<Truth>, index: u64, seed: u64) {
    let store = backend.open();
    let name = format!("n{index}");
    let line = Line::new(&*store, Dice::new(seed * 7 + index));
    let kind = if index.is_multiple_of(2) {
        Kind::Buoy(line)
    } else {
        Kind::Calico(Calico {
            line,
            host: name.clone(),
            pool: pool(),
            block_len: BLOCK_LEN,
        })
    };
    let mut node = Node {
        name,
        kind,
        truth,
        has: Vec::new(),
    };
    node.live();
}

/// Scans until all is over, and then until nothing is left to free.
fn collect(backend: &dyn Backend, truth: &Mutex<Truth>, over: &AtomicBool, seed: u64) -> usize {
    let store = backend.open();
    let mut collector = Collector::new(Line::new(&*store, Dice::new(seed)), pool(), BLOCK_LEN);
    let (mut freed, mut idle) = (0, 0);
    while idle < 3 {
        let was_over = over.load(Ordering::SeqCst);
        let now = collector.scan(
            |handle| truth.lock().unwrap().moving.contains(handle),
            |address, handle| {
                let used = truth.lock().unwrap().used.get(&address).cloned();
                assert_ne!(used.as_deref(), Some(handle), "{address} lives");
            },
        );
        freed += now;
        idle = if was_over && now == 0 { idle + 1 } else { 0 };
        std::thread::sleep(Duration::from_millis(5));
    }
    freed
}

/// Exactly what is used is given; blocks, affinities and handles fit.
fn everything_agrees(store: &dyn Datastore, truth: &Truth) {
    let (records, _) = list(store, Prefix::Blocks(Family::V4));
    let blocks: Vec<Block> = records
        .into_iter()
        .map(|record| match record.value {
            Ok(Value::Block(block)) => block,
            other => panic!("{other:?}"),
        })
        .collect();
    let mut given = BTreeMap::new();
    let mut counts: BTreeMap<(String, IpNet), u32> = BTreeMap::new();
    for block in &blocks {
        assert_eq!(block.defect(), None);
        let free: BTreeSet<usize> = block.unallocated.iter().copied().collect();
        for (ordinal, holder) in block.allocated() {
            assert!(
                !free.contains(&ordinal),
                "{}: {ordinal} is free and given",
                block.cidr
            );
            let handle = holder.handle.clone().unwrap();
            *counts.entry((handle.clone(), block.cidr)).or_default() += 1;
            assert_eq!(given.insert(block.address(ordinal).unwrap(), handle), None);
        }
        assert_eq!(free.len() + block.allocated().count(), block.allocations.len());
    }
    assert_eq!(given, truth.used);
    handles_agree(store, &counts, &truth.abandoned);
    affinities_agree(store, &blocks);
}

/// A handle whose node died between counting and giving counts too much until it is released; one of Calico's for ever.
fn handles_agree(
    store: &dyn Datastore,
    counts: &BTreeMap<(String, IpNet), u32>,
    abandoned: &BTreeSet<String>,
) {
    let (records, _) = list(store, Prefix::Handles);
    let mut found = BTreeMap::new();
    for record in records {
        let (Key::Handle(id), Ok(Value::Handle(handle))) = (record.key, record.value) else {
            panic!("a handle")
        };
        for (cidr, count) in handle.blocks {
            found.insert((id.clone(), cidr), count);
        }
    }
    for (key, count) in counts {
        assert!(
            found.get(key) >= Some(count),
            "{key:?}: {:?} for {count}",
            found.get(key)
        );
    }
    for (key, count) in found {
        let is_calico = ["net.n1-", "net.n3-", "net.n5-"]
            .iter()
            .any(|node| key.0.starts_with(node));
        let expected = counts.get(&key).copied().unwrap_or(0);
        assert!(
            is_calico || abandoned.contains(&key.0) || count == expected,
            "{key:?}: {count}, and has {expected}"
        );
    }
}

/// A confirmed affinity has its block, and a block's host knows of it.
fn affinities_agree(store: &dyn Datastore, blocks: &[Block]) {
    let mut known = BTreeSet::new();
    for index in 0..=6 {
        let owner = AffinityOwner::Host(format!("n{index}"));
        let (records, _) = list(store, Prefix::Affinities(owner.clone()));
        for record in records {
            let (Key::Affinity { cidr, .. }, Ok(Value::Affinity(affinity))) = (record.key, record.value)
            else {
                panic!("an affinity")
            };
            let block = blocks.iter().find(|block| block.cidr == cidr);
            let is_own = block.is_some_and(|block| block.affinity.as_ref() == Some(&owner));
            let is_confirmed = affinity.state == AffinityState::Confirmed;
            assert!(is_own || !is_confirmed, "{owner} believes to have {cidr}");
            if is_own {
                known.insert(cidr);
            }
        }
    }
    for block in blocks.iter().filter(|block| block.affinity.is_some()) {
        assert!(known.contains(&block.cidr), "no affinity for {}", block.cidr);
    }
}
