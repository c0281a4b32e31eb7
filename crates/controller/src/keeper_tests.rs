//! A keeper on an embedded store, which looks when the test says that it is time.

use buoy_api::binding::Term;
use buoy_api::lease::{NodeLease, NodeLeaseSpec};
use buoy_api::meta::ObjectMeta;
use buoy_api::v3::{Node, NodeSpec};
use buoy_core::floating::lease::Steady;
use buoy_core::store::{Key, Reply, StoreOp, Value};
use buoy_datastore::get;

use super::*;
use crate::election::Elected;

/// How long what a node left is kept.
const GRACE: u64 = 10;

/// Node n2 is gone, and its lease is there still.
struct Bed {
    _directory: tempfile::TempDir,
    store: Arc<dyn Datastore>,
    elected: Standing,
    keeper: Keeper,
    begun: Now,
}

impl Bed {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", directory.path().join("buoy.db").display());
        let store = buoy_datastore::open(&url).unwrap();
        let settings = Settings {
            grace: Duration::from_secs(GRACE),
            node_grace: Duration::from_secs(GRACE),
            hold: Duration::from_secs(GRACE),
        };
        let begun = clock::now();
        let elected = Standing::default();
        let mut bed = Self {
            _directory: directory,
            keeper: Keeper::new(settings.clone(), store.clone(), elected.clone(), Shown::new()),
            store,
            elected,
            begun,
        };
        bed.add_node("n1");
        let spec = NodeLeaseSpec {
            holder: Some("agent-of-n2".to_owned()),
            term: Term(2),
            duration_seconds: 6,
            ..NodeLeaseSpec::default()
        };
        let lease = NodeLease::new(ObjectMeta::named("n2"), spec);
        bed.create(Key::Lease("n2".to_owned()), Value::Lease(lease));
        bed.keeper.cluster = read(bed.store.as_ref(), &settings).unwrap();
        bed.keeper.hear(Input::Synced, begun.mono);
        bed
    }

    fn create(&self, key: Key, value: Value) {
        let reply = self.store.run(&StoreOp::Create(key, value));
        assert!(matches!(reply, Reply::Written(_)), "{reply:?}");
    }

    fn add_node(&self, name: &str) {
        let node = Node::new(ObjectMeta::named(name), NodeSpec::default());
        self.create(Key::Node(name.to_owned()), Value::Node(node));
    }

    fn at(&self, second: u64) -> Now {
        let since = Duration::from_secs(second);
        Now {
            wall: self.begun.wall + since,
            mono: self.begun.mono.after(since),
        }
    }

    fn hear(&mut self, input: Input, second: u64) {
        let now = self.at(second);
        self.keeper.hear(input, now.mono);
    }

    /// The keeper looks; it holds the lease, and has renewed it all the while.
    fn look(&mut self, second: u64) {
        let now = self.at(second);
        let ago = |seconds| Mono(now.mono.0.saturating_sub(Duration::from_secs(seconds)));
        let renewals = [6, 4, 2].into_iter().map(ago);
        let steady = renewals.fold(None, |before, at| Some(Steady::renewed(before, at, at)));
        self.look_as(second, steady);
    }

    fn look_as(&mut self, second: u64, steady: Option<Steady>) {
        let now = self.at(second);
        self.elected.set(Elected {
            until: Some(now.mono.after(Duration::from_secs(3600))),
            steady,
        });
        self.keeper.look(now);
    }

    fn has_lease(&self) -> bool {
        get(self.store.as_ref(), Key::Lease("n2".to_owned()))
            .unwrap()
            .is_some()
    }
}

#[test]
fn what_stands_for_its_grace_is_done() {
    let mut bed = Bed::new();
    bed.look(1);
    bed.look(GRACE);
    assert!(bed.has_lease());
    bed.look(1 + GRACE);
    assert!(!bed.has_lease());
}

#[test]
fn nothing_is_done_for_long_after_a_restore() {
    let mut bed = Bed::new();
    bed.look(1);
    bed.hear(Input::Restored, 2);
    let over = 2 + AFTER_RESTORE.as_secs();
    for second in (3..over + GRACE).step_by(5) {
        bed.look(second);
        assert!(bed.has_lease(), "after {second} s");
    }
    bed.look(over + GRACE + 5);
    assert!(!bed.has_lease());
}

#[test]
fn after_contact_was_lost_everything_must_stand_anew() {
    let mut bed = Bed::new();
    bed.look(1);
    bed.hear(Input::Lost("away".to_owned()), 2);
    bed.look(2 + GRACE);
    assert!(bed.has_lease(), "what it knows is of the past");
    bed.hear(Input::Synced, 2 + GRACE);
    bed.look(3 + GRACE);
    // Gone and back between two looks.
    bed.hear(Input::Lost("away".to_owned()), 4 + GRACE);
    bed.hear(Input::Synced, 4 + GRACE);
    bed.look(3 + 2 * GRACE);
    assert!(bed.has_lease());
    bed.look(3 + 3 * GRACE);
    assert!(!bed.has_lease());
}

#[test]
fn what_the_store_itself_does_not_say_is_not_done() {
    let mut bed = Bed::new();
    bed.look(1);
    // The watch is late: it has not told of this.
    bed.add_node("n2");
    bed.look(1 + GRACE);
    assert!(bed.has_lease());
    let node = get(bed.store.as_ref(), Key::Node("n2".to_owned()))
        .unwrap()
        .unwrap();
    let gone = bed.store.run(&StoreOp::Delete(node.key, node.revision));
    assert_eq!(gone, Reply::Deleted);
    bed.look(2 + GRACE);
    assert!(!bed.has_lease(), "nothing else kept it");
}

#[test]
fn who_stood_still_begins_anew() {
    let mut bed = Bed::new();
    bed.look(1);
    let later = 2 + STOOD_STILL.as_secs();
    bed.look(later);
    bed.look(later + 1);
    assert!(bed.has_lease());
    bed.look(later + 1 + GRACE);
    assert!(!bed.has_lease());
}

#[test]
fn who_does_not_hold_the_lease_or_cannot_write_does_nothing() {
    let mut bed = Bed::new();
    bed.look(1);
    bed.look_as(1 + GRACE, None);
    assert!(bed.has_lease(), "nobody knows that nodes could write");
    bed.elected.set(Elected::default());
    bed.keeper.look(bed.at(2 + GRACE));
    assert!(bed.has_lease());
    // While it stood by, nothing has ripened.
    bed.look(3 + GRACE);
    bed.look(2 + 2 * GRACE);
    assert!(bed.has_lease());
    bed.look(3 + 2 * GRACE);
    assert!(!bed.has_lease());
}
