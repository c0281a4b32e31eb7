//! The rights in `deploy/rbac.yaml` are those that an agent uses: none is missing, none is too many.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use buoy_api::ObjectMeta;
use buoy_api::binding::{Epoch, Owner, Term};
use buoy_api::ip::{Family, FloatingIp};
use buoy_api::ipam::{AffinityOwner, AffinityState, BlockAffinity};
use buoy_api::v3::{IpPool, IpPoolSpec};
use buoy_core::edit::{Change, Edit};
use buoy_core::floating::claim::{self, FirstClaim};
use buoy_core::floating::collect;
use buoy_core::floating::lease::{Holder, KeepLease, Kept};
use buoy_core::ipam::{AutoAssign, ReleaseHandle, ReserveFloating, ReserveRequest, block};
use buoy_core::news::{Note, Workload};
use buoy_core::records;
use buoy_core::store::{FailureKind, Key, Part, Prefix, Reply, StoreOp, Value, Writer};
use buoy_core::time::Mono;
use buoy_core::view;
use buoy_datastore::{Datastore, Feed, drive, follow};
use buoy_kubeserver::AGENT;

use super::backend::{ApiServerBackend, DEPLOY, own_api_server};
use super::endpoints::{endpoint, key, pod};
use super::failure;
use super::nodes::NODE;
use crate::records::candidate;
use crate::tools::{Backend, addresses, get, list, written};

#[test]
fn an_agent_needs_exactly_the_rights_that_it_is_given() {
    let backend = own_api_server();
    let rights = Path::new(DEPLOY).join("rbac.yaml");
    backend.server().create(&[&rights]).unwrap();
    backend.create(NODE);
    backend.create(&pod("web", "n1", "{}"));
    let pools = pools();
    let admin = backend.open();
    for pool in &pools {
        let key = Key::Pool(pool.name().to_owned());
        written(admin.run(&StoreOp::Create(key, Value::Pool(pool.clone()))));
    }
    leave_an_empty_block(&*admin);

    let store = backend.open_as("agent");
    follow_everything(&store);
    live(&*store, pools);
    let told = backend
        .server()
        .kubectl(&["get", "events.events.k8s.io", "-o", "name"], "")
        .unwrap();
    assert_eq!(told.lines().count(), 2, "{told}");
    let cluster = backend.cluster("agent");
    cluster.policies().unwrap();
    assert_eq!(cluster.config_map("kube-system", "calico-config"), Ok(None));

    backend.server().uses_exactly(AGENT, &rights).unwrap();
}

/// As an agent does it: lists and watches all that it wants to know.
fn follow_everything(store: &Arc<dyn Datastore>) {
    let interest = view::interest("n1");
    let stop = AtomicBool::new(false);
    let mut keys = BTreeSet::new();
    follow(&**store, &interest, &stop, &mut |feed| match feed {
        Feed::Delta(delta) => {
            keys.insert(delta.key);
            ControlFlow::Continue(())
        }
        Feed::Synced(_) => ControlFlow::Break(()),
        Feed::Lost(error) => panic!("{error}"),
        Feed::Restored => panic!("it is the same store"),
    });
    assert!(keys.contains(&Key::Pool("p".to_owned())) && keys.contains(&Key::Node("n1".to_owned())));
    assert!(keys.contains(&Key::Profile("kns.default".to_owned())), "{keys:?}");
}

/// A day in the life of an agent, by the core's own protocols.
fn live(store: &dyn Datastore, pools: Vec<IpPool>) {
    let now = jiff::Timestamp::now();
    let edit =
        |key: Key, change: &dyn Fn(Option<&Value>) -> Change| drive(store, Edit::new(key, change)).unwrap();
    edit(Key::Node("n1".to_owned()), &|found| {
        records::node(found, "n1", "1.0", &[])
    });
    let cluster = || Key::ClusterInformation("default".to_owned());
    edit(cluster(), &|found| records::cluster(found, "guid"));

    // A workload of its own address.
    let request = addresses(pools, ("n1", "net.c0ffee"), (1, 1));
    let snapshot = Arc::clone(&request.snapshot);
    let given = drive(store, AutoAssign::new(request)).unwrap();
    assert_eq!(given.addresses.len(), 2);
    let address = format!("{}/32", given.addresses[0].addr());
    written(store.run(&StoreOp::Create(key("web"), endpoint("web", "c0ffee", &address))));

    // Its lease, and a floating IP.
    let holder = Holder {
        node: "n1".to_owned(),
        identity: "me".to_owned(),
        wall: now,
        mono: Mono(Duration::from_secs(1)),
    };
    let Ok(Kept::Held(held)) = drive(store, KeepLease::new(holder.clone(), None, Term(0))) else {
        panic!("no lease")
    };
    drive(store, KeepLease::new(holder, Some(held), Term(0))).unwrap();
    let floating: FloatingIp = "10.65.0.60".parse().unwrap();
    let request = ReserveRequest {
        known: None,
        snapshot,
        address: floating,
        now,
    };
    drive(store, ReserveFloating::new(request)).unwrap();
    let owner = Owner {
        node: "n1".to_owned(),
        workload: "web".to_owned(),
        endpoint: "eth0".to_owned(),
        internal_ip: given.addresses[0].addr(),
        uid: "u".to_owned(),
        term: Term(1),
    };
    let claim = FirstClaim::new(floating, "default".to_owned(), owner, Epoch(0));
    drive(store, claim).unwrap();
    let binding = claim::binding_key(floating);
    let part = Part {
        candidates: vec![candidate("n1", 0)],
        conditions: Vec::new(),
    };
    written(store.run(&StoreOp::Apply(binding.clone(), Writer("n1".to_owned()), part)));
    let Some(Ok(Value::Binding(seen))) = get(store, &binding).map(|record| record.value) else {
        panic!("no binding")
    };
    edit(binding.clone(), &|found| claim::restamped(found, &seen, Term(2)));
    for count in [1, 2] {
        store.tell(&note(now, count)).unwrap();
    }
    // The first of these was never written.
    let later = Note {
        number: 2,
        ..note(now, 3)
    };
    store.tell(&later).unwrap();

    // All of it goes again.
    for epoch in [Epoch(3), Epoch(4)] {
        edit(Key::EpochFloor, &|found| collect::raised(found, epoch));
    }
    edit(binding, &|found| match found {
        Some(_) => Change::Delete,
        None => Change::Keep,
    });
    for handle in [
        "net.c0ffee".to_owned(),
        buoy_api::names::floating_handle(floating.addr()),
    ] {
        drive(store, ReleaseHandle::new(handle)).unwrap();
    }
    let affinities = Prefix::Affinities(AffinityOwner::Host("n1".to_owned()));
    for prefix in [affinities, Prefix::Blocks(Family::V4), Prefix::Blocks(Family::V6)] {
        for record in list(store, prefix).0 {
            assert_eq!(
                store.run(&StoreOp::Delete(record.key, record.revision)),
                Reply::Deleted
            );
        }
    }
    let web = get(store, &key("web")).unwrap();
    assert_eq!(store.run(&StoreOp::Delete(web.key, web.revision)), Reply::Deleted);
}

fn note(now: jiff::Timestamp, count: u32) -> Note {
    Note {
        about: Workload {
            namespace: "default".to_owned(),
            name: "web".to_owned(),
            uid: "u".to_owned(),
            is_pod: true,
        },
        number: 1,
        reason: "FloatingIPGranted",
        warning: false,
        message: "it fronts this workload".to_owned(),
        first: now,
        last: now,
        count,
    }
}

fn pools() -> Vec<IpPool> {
    let pool =
        |name: &str, cidr: &str| IpPool::new(ObjectMeta::named(name), IpPoolSpec::new(cidr.parse().unwrap()));
    vec![pool("p", "10.65.0.0/26"), pool("p6", "fd80::/122")]
}

/// The only block of the first pool is another node's, who has no use for it: it is taken over.
fn leave_an_empty_block(store: &dyn Datastore) {
    let owner = AffinityOwner::Host("n2".to_owned());
    let cidr = "10.65.0.0/26".parse().unwrap();
    let long_ago = "2026-01-01T00:00:00Z".parse().unwrap();
    let block = block::new(cidr, Some(owner.clone()), long_ago);
    let affinity = BlockAffinity {
        state: AffinityState::Confirmed,
        deleted: false,
        extra: Default::default(),
    };
    for (key, value) in [
        (Key::Affinity { owner, cidr }, Value::Affinity(affinity)),
        (Key::Block(cidr), Value::Block(block)),
    ] {
        written(store.run(&StoreOp::Create(key, value)));
    }
}

#[test]
fn a_missing_right_is_named() {
    let backend = own_api_server();
    let store = backend.open_as("nobody");
    let message = failure(&*store, &StoreOp::List(Prefix::Pools), FailureKind::Refused);
    for part in [
        "User \"nobody\" cannot list resource \"ippools\"",
        "see deploy/rbac*.yaml",
    ] {
        assert!(message.contains(part), "{message}");
    }
    let delete = StoreOp::Delete(
        Key::Binding("172-16-1-3".to_owned()),
        buoy_core::store::Revision(1),
    );
    let message = failure(&*store, &delete, FailureKind::Refused);
    assert!(
        message.contains("cannot delete resource \"floatingipbindings\""),
        "{message}"
    );
    take_away(&backend);
}

/// One verb is missing from the agent's rights: the message names it, and the others work on.
fn take_away(backend: &ApiServerBackend) {
    let manifest = std::fs::read_to_string(Path::new(DEPLOY).join("rbac.yaml")).unwrap();
    let without = manifest.replace(
        "resources: [namespaces]\n  verbs: [list, watch]",
        "resources: [namespaces]\n  verbs: [list]",
    );
    assert_ne!(manifest, without);
    backend.create(&without);
    let store = backend.open_as("agent");
    let (_, from) = list(&*store, Prefix::Profiles);
    match store.watch(&[(Prefix::Pools, from), (Prefix::Profiles, from)]) {
        Err(error) => assert!(
            error.to_string().contains("cannot watch resource \"namespaces\""),
            "{error}"
        ),
        Ok(watch) => panic!("{watch:?}"),
    }
    assert!(store.watch(&[(Prefix::Pools, from)]).is_ok());
}
