use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use buoy_api::binding::{Binding, BindingSpec, Epoch, Offer, Owner, Target, Term};
use buoy_api::meta::ObjectMeta;
use buoy_api::v3::IpPool;
use buoy_core::endpoint::Attachment;
use buoy_core::store::{Delta, Prefix, Revision};
use buoy_core::view::{Gate, Routing, Settings};
use buoy_datastore::sqlite::{Options, Sqlite};
use buoy_datastore::{Watch, WatchError};
use serde_json::json;

use super::*;

const SOON: Duration = Duration::from_secs(30);

/// A store in which statuses are written when somebody lets them, and all else at once.
#[derive(Debug)]
struct Slow {
    lets: Receiver<()>,
}

impl Datastore for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    fn run(&self, op: &StoreOp) -> Reply {
        if matches!(op, StoreOp::Apply(..)) {
            self.lets.recv().ok();
        }
        Reply::Written(Revision(9))
    }

    fn watch(&self, _: &[(Prefix, Revision)]) -> Result<Box<dyn Watch>, WatchError> {
        Err(WatchError::Compacted)
    }
}

fn view() -> View {
    View::new(Settings {
        node: "n1".to_owned(),
        floating: Gate::Auto,
        hold: Duration::ZERO,
        version: "0.1.0".to_owned(),
        identity: "a".to_owned(),
        routing: Routing::Kernel,
        yield_time: Duration::ZERO,
    })
}

fn floating(last: u8) -> FloatingIp {
    FloatingIp::try_from(std::net::IpAddr::from([172, 16, 1, last])).unwrap()
}

fn offer(floating: FloatingIp) -> Duty {
    let binding = Binding::new(ObjectMeta::named("172-16-1-200"), BindingSpec::default());
    Duty::Offer {
        floating,
        seen: Box::new((binding, Revision(7))),
        offer: Offer {
            to: Target {
                node: Some("n2".to_owned()),
                workload: "web-1".to_owned(),
                endpoint: None,
            },
            from: "n1".to_owned(),
        },
    }
}

/// A node is drained: much is to be said of addresses that stay without owner, and one has somebody who stands by.
#[test]
fn an_address_is_given_away_whatever_is_to_be_said_of_others() {
    let (let_one, lets) = bounded(64);
    let (inputs, ended) = bounded(64);
    let store: Arc<dyn Datastore> = Arc::new(Slow { lets });
    let adapter = StoreAdapter::start(&store, &Metrics::new(), &inputs).unwrap();
    let (view, now) = (view(), clock::now());
    let said = 8;
    for last in 1..=said {
        let duty = Duty::Candidates {
            floating: floating(last),
            candidates: Vec::new(),
            conditions: Vec::new(),
        };
        adapter.perform(Subject::Binding(floating(last)), duty, &view, now);
    }
    let moved = Subject::Binding(floating(200));
    adapter.perform(moved.clone(), offer(floating(200)), &view, now);
    let first = ended.recv_timeout(SOON).unwrap();
    assert!(matches!(first, Input::Performed(subject, Outcome::Done) if subject == moved));
    for _ in 0..said {
        let_one.send(()).unwrap();
        assert!(matches!(
            ended.recv_timeout(SOON).unwrap(),
            Input::Performed(_, Outcome::Done)
        ));
    }
}

fn attachment() -> Attachment {
    serde_json::from_value(json!({
        "id": {"container": "c1", "ifname": "eth0"},
        "endpoint": {"namespace": "shop", "name": "n1-k8s-web--0-eth0"},
        "request": {
            "network": "k8s-pod-network", "orchestrator": "k8s", "workload": "web-0", "uid": "u1", "link": true,
            "host_ifname": "cali1", "netns": {"path": "/run/netns/c1", "device": 1, "inode": 2}, "mac": null, "mtu": null,
            "queues": 1, "forwarding": false, "floating": [], "gate": true, "priority": 0, "source_prefixes": [],
            "labels": {}, "addresses": {"Automatic": {"families": ["V4"], "ipv4_pools": [], "ipv6_pools": []}},
        },
        "order": 1, "since": "2026-01-01T00:00:00Z", "phase": "Adding", "addresses": null,
    }))
    .unwrap()
}

/// Its watch has not brought the pool yet when the first workload comes.
#[test]
fn a_pool_that_was_just_made_gives_addresses() {
    let directory = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&directory.path().join("store.db"), Options::default()).unwrap();
    let store: Arc<dyn Datastore> = Arc::new(store);
    let (inputs, ended) = bounded(64);
    let adapter = StoreAdapter::start(&store, &Metrics::new(), &inputs).unwrap();
    let (view, now) = (view(), clock::now());
    let subject = Subject::Attachment(attachment().id);
    let assigned = || {
        adapter.perform(
            subject.clone(),
            Duty::Allocate(Box::new(attachment())),
            &view,
            now,
        );
        match ended.recv_timeout(SOON).unwrap() {
            Input::Performed(_, Outcome::Assigned(assigned)) => assigned,
            other => panic!("{other:?}"),
        }
    };
    let error = assigned().unwrap_err().to_string();
    assert!(error.starts_with("cannot find a qualified ippool"), "{error}");

    let spec = serde_json::from_value(json!({"cidr": "10.65.0.0/16"})).unwrap();
    let pool = Value::Pool(IpPool::new(ObjectMeta::named("pods"), spec));
    let made = store.run(&StoreOp::Create(Key::Pool("pods".to_owned()), pool));
    assert!(matches!(made, Reply::Written(_)), "{made:?}");
    assert_eq!(assigned().unwrap().len(), 1);
}

/// A store that takes its time, and counts who came too late.
#[derive(Debug)]
struct Contended {
    store: Sqlite,
    conflicts: AtomicU32,
}

impl Datastore for Contended {
    fn name(&self) -> &str {
        self.store.name()
    }

    fn run(&self, op: &StoreOp) -> Reply {
        std::thread::sleep(Duration::from_millis(5));
        let reply = self.store.run(op);
        if reply == Reply::Conflict {
            self.conflicts.fetch_add(1, Ordering::Relaxed);
        }
        reply
    }

    fn watch(&self, interest: &[(Prefix, Revision)]) -> Result<Box<dyn Watch>, WatchError> {
        self.store.watch(interest)
    }
}

#[test]
fn claims_of_one_block_do_not_get_in_each_others_way() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(Contended {
        store: Sqlite::open(&directory.path().join("store.db"), Options::default()).unwrap(),
        conflicts: AtomicU32::new(0),
    });
    let (inputs, ended) = bounded(64);
    let shared: Arc<dyn Datastore> = Arc::<Contended>::clone(&store);
    let adapter = StoreAdapter::start(&shared, &Metrics::new(), &inputs).unwrap();
    let (mut view, now) = (view(), clock::now());
    let spec = serde_json::from_value(json!({"cidr": "172.16.1.0/24", "assignmentMode": "Manual"})).unwrap();
    let delta = Delta {
        key: Key::Pool("floating".to_owned()),
        revision: Revision(1),
        value: Some(Ok(Value::Pool(IpPool::new(ObjectMeta::named("floating"), spec)))),
    };
    view.apply(delta, now.mono);
    let owner = Owner {
        node: "n1".to_owned(),
        workload: "web-0".to_owned(),
        endpoint: "eth0".to_owned(),
        internal_ip: "10.65.0.7".parse().unwrap(),
        uid: "u".to_owned(),
        term: Term(1),
    };
    let claimed = 1..=8;
    for last in claimed.clone() {
        let duty = Duty::FirstClaim {
            floating: floating(last),
            namespace: "shop".to_owned(),
            owner: owner.clone(),
            floor: Epoch(0),
        };
        adapter.perform(Subject::Binding(floating(last)), duty, &view, now);
    }
    for _ in claimed {
        let claimed = ended.recv_timeout(SOON).unwrap();
        assert!(
            matches!(claimed, Input::Performed(_, Outcome::Done)),
            "{claimed:?}"
        );
    }
    assert_eq!(store.conflicts.load(Ordering::Relaxed), 0);
}
