//! What things cost in requests, as the client and as the server's audit log count them; and how fast they may come.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use buoy_api::ObjectMeta;
use buoy_api::binding::{Epoch, Owner, Term};
use buoy_api::ip::FloatingIp;
use buoy_api::v3::{IpPool, IpPoolSpec};
use buoy_core::edit::{Change, Edit};
use buoy_core::floating::claim::{self, FirstClaim};
use buoy_core::ipam::{Assigned, AutoAssign, AutoAssignRequest, ReserveFloating, ReserveRequest, Snapshot};
use buoy_core::store::{FailureKind, Key, Part, Prefix, Record, Reply, Revision, StoreOp, Writer};
use buoy_datastore::kubernetes::Options;
use buoy_datastore::{Datastore, drive};
use buoy_kubeserver::{ADMIN, AGENT};
use jiff::Timestamp;

use super::backend::{ApiServerBackend, DEPLOY, api_server, client, own_api_server};
use super::endpoints::{endpoint, key, pod};
use super::failure;
use crate::records::candidate;
use crate::tools::{addresses, events_until, get, list, written};

fn pools() -> Vec<IpPool> {
    let pool =
        |name: &str, cidr: &str| IpPool::new(ObjectMeta::named(name), IpPoolSpec::new(cidr.parse().unwrap()));
    vec![pool("p", "10.65.0.0/24"), pool("f", "172.16.1.0/24")]
}

/// An ADD as an agent does it: an address from a block that it knows, and the endpoint.
fn add(store: &dyn Datastore, pod: &str, known: Vec<Record>) -> Assigned {
    let request = AutoAssignRequest {
        cached: known,
        ..addresses(pools(), ("n1", &format!("net.{pod}")), (1, 0))
    };
    let assigned = drive(store, AutoAssign::new(request)).unwrap();
    let address = format!("{}/32", assigned.addresses[0].addr());
    let publish = Edit::new(key(pod), |found| {
        assert_eq!(found, None);
        Change::Put(Box::new(endpoint(pod, pod, &address)))
    });
    drive(store, publish).unwrap();
    assigned
}

/// A floating IP that nobody had before.
fn claim(store: &dyn Datastore, pod: &str, floating: &str, known: Option<Record>) -> Record {
    let floating: FloatingIp = floating.parse().unwrap();
    let request = ReserveRequest {
        snapshot: Arc::new(Snapshot {
            pools: pools(),
            ..Snapshot::default()
        }),
        address: floating,
        known,
        now: Timestamp::now(),
    };
    let reservation = drive(store, ReserveFloating::new(request)).unwrap();
    let owner = Owner {
        node: "n1".to_owned(),
        workload: pod.to_owned(),
        endpoint: "eth0".to_owned(),
        internal_ip: "10.65.0.7".parse().unwrap(),
        uid: "u".to_owned(),
        term: Term(1),
    };
    let claim = FirstClaim::new(floating, "default".to_owned(), owner, Epoch(0));
    drive(store, claim).unwrap();
    reservation.written
}

/// What was sent meanwhile, and how much that is.
fn cost(store: &dyn Datastore, what: &str, act: impl FnOnce()) -> u64 {
    let before = store.requests();
    act();
    let mut sent = store.requests();
    for (of, count) in &mut sent {
        *count -= before.get(of).copied().unwrap_or(0);
    }
    sent.retain(|_, count| *count > 0);
    println!("{what}: {sent:?}");
    sent.values().sum()
}

fn backend_with_pods() -> ApiServerBackend {
    let backend = own_api_server();
    backend
        .server()
        .create(&[&Path::new(DEPLOY).join("rbac.yaml")])
        .unwrap();
    for name in ["web0", "web1", "web2", "web3"] {
        backend.create(&pod(name, "n1", "{}"));
    }
    backend
}

#[test]
fn an_add_costs_four_requests_and_a_floating_ip_four_more() {
    let backend = backend_with_pods();
    let options = Options {
        node: Some("n1".to_owned()),
        ..Options::default()
    };
    let store = backend.open_with("agent", options);
    let store = &*store;
    // The first of all claims the block.
    let mut known = Vec::new();
    let first = cost(store, "first ADD", || {
        known = add(store, "web0", Vec::new()).written
    });
    for pod in ["web1", "web2"] {
        let added = cost(store, "ADD", || known = add(store, pod, known.clone()).written);
        assert!(added <= 4, "{added}");
        assert!(added < first);
    }
    assert!(get(store, &key("web2")).is_some());
    // A block that was not known is read, and made.
    let block = claim(store, "web1", "172.16.1.3", None);
    let claimed = cost(store, "floating IP", || {
        claim(store, "web1", "172.16.1.4", Some(block.clone()));
    });
    assert!(claimed <= 4, "{claimed}");
    // One that is known as it was is read again.
    claim(store, "web1", "172.16.1.5", Some(block));
    let part = Part {
        candidates: vec![candidate("n1", 0)],
        conditions: Vec::new(),
    };
    let binding = claim::binding_key("172.16.1.4".parse().unwrap());
    written(store.run(&StoreOp::Apply(binding, Writer("n1".to_owned()), part)));
    let of_text = |((verb, resource), count): ((&str, String), u64)| ((verb.to_owned(), resource), count);
    let sent: BTreeMap<_, _> = store.requests().into_iter().map(of_text).collect();
    let asked = backend.server().asked_by(AGENT).unwrap();
    assert_eq!(sent, asked, "the server counts the same");
}

#[test]
fn a_pod_that_was_seen_is_not_read_again_for_its_endpoint() {
    let backend = backend_with_pods();
    let store = backend.open_as("agent");
    let (_, from) = list(&*store, Prefix::Endpoints);
    let create = |pod: &str| {
        let endpoint = endpoint(pod, pod, "10.65.0.7/32");
        written(store.run(&StoreOp::Create(key(pod), endpoint)));
    };
    let annotate = |pod: &str| {
        let words = ["annotate", "pod", pod, "team=web"];
        backend.server().kubectl(&words, "").unwrap();
    };
    assert_eq!(cost(&*store, "seen", || create("web0")), 1);
    annotate("web1");
    assert_eq!(cost(&*store, "changed since", || create("web1")), 3);
    annotate("web2");
    let newest = ["get", "pod", "web2", "-o", "jsonpath={.metadata.resourceVersion}"];
    let newest = backend.server().kubectl(&newest, "").unwrap();
    let mut watch = store.watch(&[(Prefix::Endpoints, from)]).unwrap();
    events_until(watch.as_mut(), Revision(newest.parse().unwrap()));
    assert_eq!(cost(&*store, "seen by a watch", || create("web2")), 1);

    // Whoever was seen and is gone is asked for, and not found.
    let delete = ["delete", "pod", "web3", "--force", "--grace-period=0"];
    backend.server().kubectl(&delete, "").unwrap();
    let late = StoreOp::Create(key("web3"), endpoint("web3", "web3", "10.65.0.7/32"));
    let message = failure(&*store, &late, FailureKind::Refused);
    assert!(message.contains("Kubernetes has no Pod"), "{message}");
}

#[test]
fn requests_come_as_fast_as_they_are_allowed_to() {
    let backend = api_server();
    let namespace = r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "buoy-system"}}"#;
    backend.create(namespace);
    let kubeconfig = backend.server().kubeconfig(ADMIN);
    let url = format!("kubernetes:{}?qps=20&burst=5", kubeconfig.display());
    let store = client(&url, Options::default());
    list(&*store, Prefix::Reservations);
    let begun = Instant::now();
    for _ in 0..24 {
        list(&*store, Prefix::Reservations);
    }
    // 25 in all, of which 5 do not wait for 50 ms each.
    let taken = begun.elapsed();
    assert!(taken >= Duration::from_millis(950), "{taken:?}");
    let begun = Instant::now();
    for _ in 0..10 {
        let lease = StoreOp::Get(Key::Lease("n1".to_owned()));
        assert_eq!(store.run(&lease), Reply::Record(None));
    }
    assert!(
        begun.elapsed() < Duration::from_millis(450),
        "leases have no time"
    );
}
