//! A node: a writer of either kind, and the runtime that calls it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;

use buoy_api::ObjectMeta;
use buoy_api::names::{EndpointName, Orchestrator};
use buoy_api::v3::{WorkloadEndpoint, WorkloadEndpointSpec};
use buoy_core::ipam::{Ask, Asker, AutoAssign, AutoAssignRequest, Grant, IpamError, ReleaseHandle};
use buoy_core::store::{Key, Reply, StoreOp, Value};
use buoy_datastore::Datastore;
use ipnet::IpNet;
use jiff::Timestamp;

use super::calico::Calico;
use super::clock::Clock;
use super::line::{Down, Line};
use super::{ROUNDS, Truth, handle, snapshot};
use crate::tools::{get, written};

/// Addresses that a node has at most: all six want more than there are.
const MOST: usize = 48;

pub(crate) enum Kind<'a> {
    Calico(Calico<'a>),
    Buoy(Line<'a>),
}

pub(crate) struct Node<'a> {
    pub(crate) name: String,
    pub(crate) kind: Kind<'a>,
    pub(crate) truth: &'a Mutex<Truth>,
    pub(crate) clock: &'a Clock,
    pub(crate) has: Vec<(String, IpAddr)>,
}

impl Node<'_> {
    fn line(&self) -> &Line<'_> {
        match &self.kind {
            Kind::Calico(calico) => &calico.line,
            Kind::Buoy(line) => line,
        }
    }

    pub(crate) fn live(&mut self) {
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
        let _at_work = self.clock.begin();
        match self.assign(handle) {
            Ok(Some(address)) => {
                publish(self.line().store, (&self.name, handle), &[address]);
                let mut truth = self.truth.lock().unwrap();
                let other = truth.used.insert(address, handle.to_owned());
                assert_eq!(other, None, "{address} is given twice, also to {handle}");
                self.has.push((handle.to_owned(), address));
            }
            // The runtime undoes what failed; some nodes are never heard of again.
            _ if self.line().below(2) == 0 => {
                self.truth.lock().unwrap().abandoned.insert(handle.to_owned());
            }
            _ => self.release(handle),
        }
    }

    fn del(&self, handle: &str, address: IpAddr) {
        self.truth.lock().unwrap().used.remove(&address);
        take_down(self.line().store, (&self.name, handle));
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
    }

    fn assign(&self, handle: &str) -> Result<Option<IpAddr>, Down> {
        match &self.kind {
            Kind::Calico(calico) => calico.assign(handle, &says(&self.name, handle)),
            Kind::Buoy(line) => assign_by(line, &self.name, handle),
        }
    }
}

/// By this project.
pub(crate) fn assign_by(line: &Line<'_>, node: &str, handle: &str) -> Result<Option<IpAddr>, Down> {
    match line.drive(AutoAssign::new(request(node, handle)))? {
        Ok(assigned) => Ok(assigned.addresses.first().map(IpNet::addr)),
        Err(IpamError::Exhausted { .. }) => Ok(None),
        Err(error) => {
            assert!(error.is_retryable(), "{error}");
            Err(Down)
        }
    }
}

/// One address for a pod on a node.
pub(crate) fn request(node: &str, handle: &str) -> AutoAssignRequest {
    AutoAssignRequest {
        snapshot: snapshot(),
        asker: Asker {
            host: node.to_owned(),
            ..Asker::default()
        },
        grant: Grant {
            handle: handle.to_owned(),
            attributes: says(node, handle),
        },
        v4: Ask::of(1),
        v6: Ask::of(0),
        cached: Vec::new(),
        seed: node.bytes().map(u64::from).sum(),
        now: Timestamp::now(),
    }
}

/// Who an address is for, as plugins write it: each handle is that of a pod.
pub(crate) fn says(node: &str, handle: &str) -> BTreeMap<String, String> {
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

/// Publishes the endpoint of a pod, by its node and its own name.
pub(crate) fn publish(store: &dyn Datastore, (node, pod): (&str, &str), addresses: &[IpAddr]) {
    let spec = WorkloadEndpointSpec {
        orchestrator: "k8s".to_owned(),
        node: node.to_owned(),
        pod: pod.to_owned(),
        endpoint: "eth0".to_owned(),
        ip_networks: addresses.iter().copied().map(IpNet::from).collect(),
        ..WorkloadEndpointSpec::default()
    };
    let metadata = ObjectMeta::namespaced("shop", endpoint_name(node, pod));
    let record = WorkloadEndpoint::new(metadata, spec);
    let create = StoreOp::Create(endpoint_key(node, pod), Value::Endpoint(record));
    written(store.run(&create));
}

/// Takes the endpoint of a pod away, if it has one.
pub(crate) fn take_down(store: &dyn Datastore, (node, pod): (&str, &str)) {
    let key = endpoint_key(node, pod);
    if let Some(record) = get(store, &key) {
        assert_eq!(store.run(&StoreOp::Delete(key, record.revision)), Reply::Deleted);
    }
}

fn endpoint_key(node: &str, pod: &str) -> Key {
    Key::Endpoint {
        namespace: "shop".to_owned(),
        name: endpoint_name(node, pod),
    }
}

fn endpoint_name(node: &str, pod: &str) -> String {
    let name = EndpointName::new(node, Orchestrator::K8s, pod, "eth0");
    name.unwrap().to_string()
}
