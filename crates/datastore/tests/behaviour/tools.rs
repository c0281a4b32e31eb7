//! What the behaviours are written with.

use std::sync::Arc;
use std::time::{Duration, Instant};

use buoy_api::ObjectMeta;
use buoy_api::v3::{IpPool, IpReservation, IpReservationSpec, Node, NodeSpec};
use buoy_core::ipam::{Ask, Asker, AutoAssignRequest, Grant, Snapshot};
use buoy_core::store::{Key, Record, Reply, Revision, StoreOp, Value};
use buoy_datastore::{Datastore, Event, Watch};
use serde_json::Value as Json;

/// A store under test, empty at first.
pub(crate) trait Backend: Sync {
    /// One more client of the store.
    fn open(&self) -> Arc<dyn Datastore>;
    /// Writes, past the codec, the record `b` so that it does not decode, and beside it something that is no record. Says
    /// what is to be heard of the record.
    fn put_bad(&self) -> &'static str;
    /// Forgets all changes but the newest.
    fn compact(&self);
    /// Sees to it that endpoints of these pods, by node and name, can be written.
    fn make_pods(&self, _namespace: &str, _pods: &[(String, String)]) {}
    /// Makes nodes.
    fn make_nodes(&self, names: &[&str]) {
        for name in names {
            let node = Value::Node(Node::new(ObjectMeta::named(*name), NodeSpec::default()));
            let create = StoreOp::Create(Key::Node((*name).to_owned()), node);
            written(self.open().run(&create));
        }
    }
    /// Takes a node away.
    fn remove_node(&self, name: &str) {
        let (store, key) = (self.open(), Key::Node(name.to_owned()));
        let at = get(&*store, &key).unwrap().revision;
        assert_eq!(store.run(&StoreOp::Delete(key, at)), Reply::Deleted);
    }
    /// Longest time after which a quiet watch says how far it is.
    fn heartbeat(&self) -> Duration {
        Duration::from_secs(20)
    }
}

/// A store into which records can be written as somebody else would: past the codec.
pub(crate) trait Raw: Backend {
    /// Writes a record of IPAM that is not there yet.
    fn put_raw(&self, what: &Ipam<'_>, record: &Json);
}

/// A record of IPAM as Calico calls it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ipam<'a> {
    /// The block of this prefix.
    Block(&'a str),
    /// That this host has the block.
    Affinity(&'a str, &'a str),
    /// A handle by its ID.
    Handle(&'a str),
}

impl Ipam<'_> {
    /// Where it is in stores that keep bytes under paths.
    pub(crate) fn path(&self) -> String {
        let ipam = "/calico/ipam/v2";
        match self {
            Self::Block(cidr) => format!("{ipam}/assignment/ipv4/block/{}", cidr.replace('/', "-")),
            Self::Affinity(host, cidr) => {
                format!("{ipam}/host/{host}/ipv4/block/{}", cidr.replace('/', "-"))
            }
            Self::Handle(id) => format!("{ipam}/handle/{id}"),
        }
    }
}

/// A store that keeps bytes under paths.
pub(crate) trait Bytes: Raw {
    /// Writes any bytes.
    fn put_bytes(&self, path: &str, bytes: &[u8]);
}

/// What a workload on a host asks for: so many addresses of IPv4 and IPv6 from these pools.
pub(crate) fn addresses(
    pools: Vec<IpPool>,
    (host, handle): (&str, &str),
    (v4, v6): (usize, usize),
) -> AutoAssignRequest {
    AutoAssignRequest {
        snapshot: Arc::new(Snapshot {
            pools,
            ..Snapshot::default()
        }),
        asker: Asker {
            host: host.to_owned(),
            ..Asker::default()
        },
        grant: Grant {
            handle: handle.to_owned(),
            ..Grant::default()
        },
        v4: Ask::of(v4),
        v6: Ask::of(v6),
        cached: Vec::new(),
        seed: 1,
        now: jiff::Timestamp::now(),
    }
}

/// Key of the reservation `name`.
pub(crate) fn key(name: &str) -> Key {
    Key::Reservation(name.to_owned())
}

/// A reservation that carries a number.
pub(crate) fn value(name: &str, number: u64) -> Value {
    let mut metadata = ObjectMeta::named(name);
    metadata.labels.insert("n".to_owned(), number.to_string());
    Value::Reservation(IpReservation::new(metadata, IpReservationSpec::default()))
}

/// The number of a reservation made by [`value`].
pub(crate) fn number(record: &Record) -> u64 {
    match &record.value {
        Ok(Value::Reservation(reservation)) => reservation.metadata.labels["n"].parse().unwrap(),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn create(store: &dyn Datastore, name: &str, number: u64) -> Revision {
    written(store.run(&StoreOp::Create(key(name), value(name, number))))
}

pub(crate) fn update(store: &dyn Datastore, name: &str, number: u64, at: Revision) -> Revision {
    written(store.run(&StoreOp::Update(key(name), value(name, number), at)))
}

pub(crate) fn delete(store: &dyn Datastore, name: &str, at: Revision) {
    assert_eq!(store.run(&StoreOp::Delete(key(name), at)), Reply::Deleted);
}

pub(crate) fn written(reply: Reply) -> Revision {
    match reply {
        Reply::Written(revision) => revision,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn get(store: &dyn Datastore, key: &Key) -> Option<Record> {
    match store.run(&StoreOp::Get(key.clone())) {
        Reply::Record(record) => record,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn list(store: &dyn Datastore, prefix: buoy_core::store::Prefix) -> (Vec<Record>, Revision) {
    match store.run(&StoreOp::List(prefix)) {
        Reply::List(records, revision) => (records, revision),
        other => panic!("{other:?}"),
    }
}

/// Events until one of this revision or higher.
pub(crate) fn events_until(watch: &mut dyn Watch, last: Revision) -> Vec<Event> {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut events = Vec::new();
    while events.last().is_none_or(|event: &Event| event.revision() < last) {
        assert!(
            Instant::now() < deadline,
            "nothing up to {last}: {} events",
            events.len()
        );
        events.extend(watch.next(Duration::from_secs(1)).unwrap());
    }
    events
}
