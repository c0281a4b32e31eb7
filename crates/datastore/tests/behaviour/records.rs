//! Single operations.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use buoy_api::ObjectMeta;
use buoy_api::binding::{Binding, BindingSpec, Candidate};
use buoy_api::ip::Family;
use buoy_api::ipam::{AffinityOwner, AffinityState, BlockAffinity};
use buoy_core::store::{FailureKind, Key, Part, Prefix, Reply, Revision, StoreOp, Value, Writer};
use buoy_datastore::Event;

use crate::tools::{Backend, create, delete, events_until, get, key, list, number, update, value, written};

pub(crate) fn a_write_needs_the_state_it_was_meant_for(backend: &dyn Backend) {
    let store = backend.open();
    assert_eq!(get(&*store, &key("a")), None);
    let missing = Revision(1);
    assert_eq!(
        store.run(&StoreOp::Update(key("a"), value("a", 0), missing)),
        Reply::Conflict
    );
    assert_eq!(store.run(&StoreOp::Delete(key("a"), missing)), Reply::Conflict);

    let first = create(&*store, "a", 1);
    assert_eq!(
        store.run(&StoreOp::Create(key("a"), value("a", 9))),
        Reply::Conflict
    );
    let second = update(&*store, "a", 2, first);
    assert!(second > first);
    assert_eq!(
        store.run(&StoreOp::Update(key("a"), value("a", 9), first)),
        Reply::Conflict
    );
    assert_eq!(store.run(&StoreOp::Delete(key("a"), first)), Reply::Conflict);
    let record = get(&*backend.open(), &key("a")).unwrap();
    assert_eq!((number(&record), record.revision), (2, second));

    delete(&*store, "a", second);
    assert_eq!(get(&*store, &key("a")), None);
    let again = create(&*store, "a", 3);
    assert!(again > second, "a record made again has a revision of its own");
    assert_eq!(
        store.run(&StoreOp::Update(key("a"), value("a", 9), second)),
        Reply::Conflict
    );
    let uid = |record: Option<buoy_core::store::Record>| match record.unwrap().value {
        Ok(Value::Reservation(reservation)) => reservation.metadata.uid.unwrap(),
        other => panic!("{other:?}"),
    };
    assert_ne!(uid(get(&*store, &key("a"))), uid(Some(record)));
}

pub(crate) fn revisions_rise_through_the_whole_store(backend: &dyn Backend) {
    let (one, other) = (backend.open(), backend.open());
    let mut last = list(&*one, Prefix::Reservations).1;
    for step in 0..50 {
        let store = if step % 2 == 0 { &one } else { &other };
        let revision = create(&**store, &format!("p{step}"), step);
        assert!(revision > last);
        last = list(&*one, Prefix::BgpPeers).1;
        assert!(
            last >= revision,
            "also of a prefix that nothing was written to: {last} after {revision}"
        );
    }
}

pub(crate) fn a_list_has_its_prefix_in_order(backend: &dyn Backend) {
    let store = backend.open();
    let affinity = |owner: &AffinityOwner, cidr: &str| {
        let key = Key::Affinity {
            owner: owner.clone(),
            cidr: cidr.parse().unwrap(),
        };
        let value = Value::Affinity(BlockAffinity {
            state: AffinityState::Confirmed,
            deleted: false,
            extra: Default::default(),
        });
        written(store.run(&StoreOp::Create(key.clone(), value)));
        key
    };
    let [n1, n10, lb] = [
        AffinityOwner::Host("n1".into()),
        AffinityOwner::Host("n10".into()),
        AffinityOwner::Virtual("n1".into()),
    ];
    let mut of_n1 = vec![
        affinity(&n1, "10.9.0.0/26"),
        affinity(&n1, "fd00::40/122"),
        affinity(&n1, "10.10.0.0/26"),
    ];
    let mut all = vec![affinity(&n10, "10.9.1.0/26"), affinity(&lb, "10.9.2.0/26")];
    create(&*store, "n1", 1);
    all.extend(of_n1.iter().cloned());
    all.sort();
    of_n1.sort();

    let keys = |prefix: Prefix| -> Vec<Key> {
        let (records, _) = list(&*store, prefix);
        records.into_iter().map(|record| record.key).collect()
    };
    assert_eq!(keys(Prefix::Affinities(n1)), of_n1);
    assert_eq!(keys(Prefix::AllAffinities), all);
    assert_eq!(keys(Prefix::Reservations), [key("n1")]);
    assert!(keys(Prefix::Blocks(Family::V4)).is_empty());
}

/// Also one that comes in several pages.
pub(crate) fn a_list_is_one_moment(backend: &dyn Backend) {
    const NAMES: u64 = 1_200;
    let store = backend.open();
    let (_, first) = list(&*store, Prefix::Reservations);
    let stop = AtomicBool::new(false);
    let lists = std::thread::scope(|scope| {
        scope.spawn(|| {
            let store = backend.open();
            let mut at = BTreeMap::new();
            for step in (0_u64..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                let name = format!("p{}", step * 7 % NAMES);
                match at.remove(&name) {
                    None => drop(at.insert(name.clone(), create(&*store, &name, step))),
                    Some(at) if step % 3 == 0 => delete(&*store, &name, at),
                    Some(old) => drop(at.insert(name.clone(), update(&*store, &name, step, old))),
                }
            }
        });
        let mut lists = Vec::new();
        let mut last = first;
        while last < Revision(first.0 + 2 * NAMES) || lists.len() < 40 {
            lists.push(list(&*store, Prefix::Reservations));
            last = lists[lists.len() - 1].1;
        }
        stop.store(true, Ordering::Relaxed);
        lists
    });
    let last = create(&*store, "last", 0);
    assert!(lists.iter().any(|(records, _)| records.len() > 1_000));

    let mut watch = store.watch(&[(Prefix::Reservations, first)]).unwrap();
    let mut events = events_until(watch.as_mut(), last).into_iter().peekable();
    let mut state = BTreeMap::new();
    for (records, revision) in lists {
        while let Some(event) = events.next_if(|event| event.revision() <= revision) {
            match event {
                Event::Put(record) => drop(state.insert(record.key.clone(), record)),
                Event::Deleted(key, _) => drop(state.remove(&key)),
            }
        }
        let replayed: Vec<_> = state.values().cloned().collect();
        assert_eq!(records, replayed, "at revision {revision}");
    }
}

pub(crate) fn ten_thousand_records_are_listed(backend: &dyn Backend) {
    let store = backend.open();
    for number in 0..10_000 {
        create(&*store, &format!("p{number}"), number);
    }
    let (records, _) = list(&*store, Prefix::Reservations);
    let mut numbers: Vec<u64> = records.iter().map(number).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..10_000));
}

pub(crate) fn what_does_not_decode_hides_nothing_and_can_be_replaced(backend: &dyn Backend) {
    let store = backend.open();
    let before = create(&*store, "a", 1);
    let complaint = backend.put_bad();
    let last = create(&*store, "c", 3);

    let (records, _) = list(&*store, Prefix::Reservations);
    let names: Vec<_> = records.iter().map(|record| record.key.clone()).collect();
    assert_eq!(names, [key("a"), key("b"), key("c")]);
    let bad = &records[1];
    assert!(bad.value.as_ref().unwrap_err().reason.contains(complaint));
    assert_eq!(get(&*store, &key("b")).as_ref(), Some(bad));

    let mut watch = store.watch(&[(Prefix::Reservations, before)]).unwrap();
    let events = events_until(watch.as_mut(), last);
    assert_eq!(events, [Event::Put(bad.clone()), Event::Put(records[2].clone())]);

    update(&*store, "b", 2, bad.revision);
    assert_eq!(number(&get(&*store, &key("b")).unwrap()), 2);
}

pub(crate) fn spec_and_status_do_not_touch_each_other(backend: &dyn Backend) {
    let store = backend.open();
    let key = Key::Binding("172-16-1-3".into());
    let mut binding = Binding::new(
        ObjectMeta::named("172-16-1-3"),
        BindingSpec {
            address: "172.16.1.3".parse().unwrap(),
            namespace: "shop".into(),
            ..BindingSpec::default()
        },
    );
    let candidate = candidate("n1", 0);
    let part = Part {
        candidates: vec![candidate.clone()],
        conditions: Vec::new(),
    };
    let apply = StoreOp::Apply(key.clone(), Writer("n1".into()), part);
    assert_eq!(store.run(&apply), Reply::Conflict, "there is no binding yet");
    binding.status.candidates.push(self::candidate("n9", 9));
    let created = written(store.run(&StoreOp::Create(key.clone(), Value::Binding(binding.clone()))));
    let applied = written(store.run(&apply));
    assert!(applied > created);
    assert_eq!(written(store.run(&apply)), applied, "the same again is no write");

    binding.spec.namespace = "other".into();
    let conflict = StoreOp::Update(key.clone(), Value::Binding(binding.clone()), created);
    assert_eq!(store.run(&conflict), Reply::Conflict);
    let updated = written(store.run(&StoreOp::Update(key.clone(), Value::Binding(binding), applied)));
    let record = get(&*store, &key).unwrap();
    assert_eq!(record.revision, updated);
    let Ok(Value::Binding(found)) = record.value else {
        panic!("{record:?}");
    };
    assert_eq!(found.spec.namespace, "other");
    assert_eq!(found.status.candidates, [candidate]);
    assert!(found.metadata.uid.is_some() && found.metadata.creation_timestamp.is_some());

    written(store.run(&StoreOp::Apply(key.clone(), Writer("n1".into()), Part::default())));
    let Ok(Value::Binding(left)) = get(&*store, &key).unwrap().value else {
        panic!("no binding is left");
    };
    assert_eq!(left.status.candidates, []);
}

pub(crate) fn candidate(node: &str, priority: i32) -> Candidate {
    Candidate {
        node: node.to_owned(),
        workload: "web-0".to_owned(),
        endpoint: "eth0".to_owned(),
        uid: String::new(),
        internal_ip: "10.65.0.1".parse().unwrap(),
        ready: true,
        priority,
        since: "2026-03-01T08:00:00Z".parse().unwrap(),
    }
}

pub(crate) fn what_cannot_be_kept_is_refused(backend: &dyn Backend) {
    let store = backend.open();
    for op in [
        StoreOp::Create(key("a/b"), value("a/b", 1)),
        StoreOp::Create(key("a"), value("b", 1)),
        StoreOp::Create(Key::Pool("a".into()), value("a", 1)),
        StoreOp::Get(key("")),
    ] {
        match store.run(&op) {
            Reply::Failed(error) => {
                assert_eq!(error.kind, FailureKind::Invalid, "{op:?}");
                assert!(error.message.contains(store.name()), "{error}");
            }
            other => panic!("{op:?}: {other:?}"),
        }
    }
    assert_eq!(list(&*store, Prefix::Reservations).0, []);
}
