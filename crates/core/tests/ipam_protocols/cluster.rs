//! A small cluster, with short words for what is done to it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use buoy_api::ipam::{AffinityState, Block, BlockAffinity};
use buoy_api::meta::{Extra, ObjectMeta};
use buoy_api::v3::{IpPool, IpPoolSpec};
use buoy_core::ipam::{
    Ask, Asker, AssignAddress, AssignAddressRequest, Assigned, AutoAssign, AutoAssignRequest, Grant,
    IpamError, ReleaseHandle, ReserveFloating, ReserveRequest, Snapshot,
};
use buoy_core::store::{Key, Next, Record, Reply, Steps, StoreOp, Value};
use ipnet::IpNet;
use jiff::Timestamp;

use crate::store::SimStore;

/// Its walk begins at the second block of a pool.
pub(crate) const SEED: u64 = 1;

/// A cluster with two pools of four blocks of four, and a log of what was done to its store.
pub(crate) struct Cluster {
    pub(crate) store: SimStore,
    pub(crate) snapshot: Snapshot,
    pub(crate) now: Timestamp,
    pub(crate) log: Vec<String>,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let pools = [("v4", "10.0.0.0/28"), ("v6", "fd00::/124")].map(|(name, cidr)| {
            let mut spec = IpPoolSpec::new(net(cidr));
            spec.block_size = Some(spec.cidr.max_prefix_len() - 2);
            IpPool::new(ObjectMeta::named(name), spec)
        });
        Self {
            store: SimStore::default(),
            snapshot: Snapshot {
                pools: pools.into(),
                ..Snapshot::default()
            },
            now: "2026-11-21T01:00:00Z".parse().unwrap(),
            log: Vec::new(),
        }
    }

    pub(crate) fn auto(&self, host: &str, handle: &str, v4: usize, v6: usize) -> AutoAssignRequest {
        AutoAssignRequest {
            snapshot: Arc::new(self.snapshot.clone()),
            asker: asker(host),
            grant: grant(handle),
            v4: Ask::of(v4),
            v6: Ask::of(v6),
            cached: Vec::new(),
            seed: SEED,
            now: self.now,
        }
    }

    pub(crate) fn chosen(&self, host: &str, handle: &str, addresses: &[&str]) -> AssignAddressRequest {
        AssignAddressRequest {
            snapshot: Arc::new(self.snapshot.clone()),
            asker: asker(host),
            grant: grant(handle),
            addresses: addresses.iter().map(|address| ip(address)).collect(),
            now: self.now,
        }
    }

    pub(crate) fn reserving(&self, address: &str) -> ReserveRequest {
        ReserveRequest {
            known: None,
            snapshot: Arc::new(self.snapshot.clone()),
            address: address.parse().unwrap(),
            now: self.now,
        }
    }

    pub(crate) fn assign(
        &mut self,
        host: &str,
        handle: &str,
        v4: usize,
        v6: usize,
    ) -> Result<Assigned, IpamError> {
        self.run(AutoAssign::new(self.auto(host, handle, v4, v6)))
    }

    pub(crate) fn choose(
        &mut self,
        host: &str,
        handle: &str,
        addresses: &[&str],
    ) -> Result<Assigned, IpamError> {
        self.run(AssignAddress::new(self.chosen(host, handle, addresses)))
    }

    pub(crate) fn reserve(&mut self, address: &str) -> Result<u64, IpamError> {
        self.run(ReserveFloating::new(self.reserving(address)))
            .map(|reservation| reservation.stamp)
    }

    pub(crate) fn release(&mut self, handle: &str) -> Vec<IpAddr> {
        self.run(ReleaseHandle::new(handle.to_owned())).unwrap().addresses
    }

    pub(crate) fn run<M: Steps>(&mut self, machine: M) -> M::Out {
        self.run_until(machine, usize::MAX).unwrap()
    }

    /// Runs at most so many operations; `None`: it died there.
    pub(crate) fn run_until<M: Steps>(&mut self, mut machine: M, operations: usize) -> Option<M::Out> {
        self.log.clear();
        let mut reply = Reply::Start;
        for _ in 0..=operations {
            match machine.step(reply) {
                Next::Done(out) => return Some(out),
                Next::Do(_) if self.log.len() == operations => return None,
                Next::Do(operation) => {
                    self.log.push(brief(&operation));
                    reply = self.store.apply(operation);
                }
            }
        }
        None
    }

    pub(crate) fn block(&self, cidr: &str) -> Option<Block> {
        match self.store.value(&Key::Block(net(cidr))) {
            Some(Value::Block(block)) => Some(block.clone()),
            _ => None,
        }
    }

    pub(crate) fn handle(&self, id: &str) -> Option<BTreeMap<IpNet, u32>> {
        match self.store.value(&Key::Handle(id.to_owned())) {
            Some(Value::Handle(handle)) => Some(handle.blocks.clone()),
            _ => None,
        }
    }

    pub(crate) fn put(&mut self, key: Key, value: Value) {
        let operation = match self.store.revision_of(&key) {
            Some(revision) => StoreOp::Update(key, value, revision),
            None => StoreOp::Create(key, value),
        };
        assert!(matches!(self.store.apply(operation), Reply::Written(_)));
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        self.store
            .iter()
            .filter_map(|(key, _)| self.store.get(key))
            .collect()
    }

    /// Nothing is given and no handle is left.
    pub(crate) fn is_free(&self) -> bool {
        self.store.iter().all(|(_, value)| match value {
            Value::Block(block) => block.is_empty(),
            Value::Handle(_) => false,
            _ => true,
        })
    }
}

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn asker(host: &str) -> Asker {
    Asker {
        host: host.to_owned(),
        ..Asker::default()
    }
}

pub(crate) fn grant(handle: &str) -> Grant {
    let pod = handle.trim_start_matches("net.");
    let attributes = [("namespace", "shop"), ("pod", pod), ("node", "n1")];
    Grant {
        handle: handle.to_owned(),
        attributes: attributes
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
    }
}

pub(crate) fn brief(operation: &StoreOp) -> String {
    match operation {
        StoreOp::Get(key) => format!("get {}", short(key)),
        StoreOp::List(prefix) => format!("list {prefix:?}"),
        StoreOp::Create(key, value) => format!("create {}{}", short(key), state(value)),
        StoreOp::Update(key, value, _) => format!("update {}{}", short(key), state(value)),
        StoreOp::Delete(key, _) => format!("delete {}", short(key)),
        StoreOp::Apply(..) => "apply".to_owned(),
    }
}

pub(crate) fn short(key: &Key) -> String {
    match key {
        Key::Block(cidr) => format!("block {cidr}"),
        Key::Affinity { owner, cidr } => format!("affinity {owner} {cidr}"),
        Key::Handle(id) => format!("handle {id}"),
        other => format!("{other:?}"),
    }
}

pub(crate) fn state(value: &Value) -> String {
    match value {
        Value::Affinity(affinity) => format!(" {:?}", affinity.state),
        _ => String::new(),
    }
}

pub(crate) fn texts(assigned: &Assigned) -> Vec<String> {
    assigned.addresses.iter().map(IpNet::to_string).collect()
}

pub(crate) fn affinity(state: AffinityState) -> BlockAffinity {
    BlockAffinity {
        state,
        deleted: false,
        extra: Extra::new(),
    }
}
