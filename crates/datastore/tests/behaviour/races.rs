//! Several writers at once.

use buoy_api::ObjectMeta;
use buoy_api::binding::{Binding, BindingSpec, Candidate};
use buoy_core::store::{Key, Part, Prefix, Reply, StoreOp, Value, Writer};
use buoy_datastore::Datastore;

use crate::records::candidate;
use crate::tools::{Backend, create, get, key, list, number, value, written};

/// Raises the counter so many times; returns the number of conflicts.
pub(crate) fn count_up(store: &dyn Datastore, name: &str, times: u64) -> u64 {
    let read = || {
        let record = get(store, &key(name)).unwrap();
        (number(&record), record.revision)
    };
    let (mut written, mut conflicts) = (0, 0);
    let mut known = read();
    while written < times {
        let next = known.0 + 1;
        known = match store.run(&StoreOp::Update(key(name), value(name, next), known.1)) {
            Reply::Written(at) => {
                written += 1;
                (next, at)
            }
            Reply::Conflict => {
                conflicts += 1;
                read()
            }
            other => panic!("{other:?}"),
        };
    }
    conflicts
}

pub(crate) fn two_writers_lose_no_step_of_one_counter(backend: &dyn Backend) {
    const EACH: u64 = 5000;
    let store = backend.open();
    create(&*store, "counter", 0);
    let conflicts: u64 = std::thread::scope(|scope| {
        let writers = [(), ()].map(|()| scope.spawn(|| count_up(&*backend.open(), "counter", EACH)));
        writers.into_iter().map(|writer| writer.join().unwrap()).sum()
    });
    println!("{} writes by two threads, {conflicts} conflicts", 2 * EACH);
    let record = get(&*store, &key("counter")).unwrap();
    assert_eq!(number(&record), 2 * EACH);
    let (records, revision) = list(&*store, Prefix::Reservations);
    assert_eq!(records, std::slice::from_ref(&record));
    assert!(record.revision <= revision);
}

pub(crate) fn one_of_many_creators_wins(backend: &dyn Backend) {
    let names: Vec<String> = (0..200).map(|number| format!("p{number}")).collect();
    let won: Vec<Vec<bool>> = std::thread::scope(|scope| {
        let creators = [1, 2, 3, 4].map(|number| {
            let names = &names;
            scope.spawn(move || {
                let store = backend.open();
                let create = |name: &String| match store.run(&StoreOp::Create(key(name), value(name, number)))
                {
                    Reply::Written(_) => true,
                    Reply::Conflict => false,
                    other => panic!("{other:?}"),
                };
                names.iter().map(create).collect()
            })
        });
        creators
            .map(|creator| creator.join().unwrap())
            .into_iter()
            .collect()
    });
    let store = backend.open();
    for (index, name) in names.iter().enumerate() {
        let winners: Vec<usize> = (0..4).filter(|creator| won[*creator][index]).collect();
        assert_eq!(winners.len(), 1, "{name}");
        let record = get(&*store, &key(name)).unwrap();
        assert_eq!(number(&record), winners[0] as u64 + 1);
    }
}

pub(crate) fn parts_of_many_writers_merge(backend: &dyn Backend) {
    let nodes = ["n1", "n2", "n3"];
    let store = backend.open();
    let binding_key = Key::Binding("172-16-1-3".into());
    let binding = Binding::new(
        ObjectMeta::named("172-16-1-3"),
        BindingSpec {
            address: "172.16.1.3".parse().unwrap(),
            ..BindingSpec::default()
        },
    );
    written(store.run(&StoreOp::Create(binding_key.clone(), Value::Binding(binding))));
    std::thread::scope(|scope| {
        for node in nodes {
            let key = &binding_key;
            scope.spawn(move || {
                let store = backend.open();
                for priority in 0..200 {
                    let part = Part {
                        candidates: vec![candidate(node, priority)],
                        conditions: Vec::new(),
                    };
                    written(store.run(&StoreOp::Apply(key.clone(), Writer(node.into()), part)));
                }
            });
        }
    });
    let candidates = || match get(&*store, &binding_key).map(|record| record.value) {
        Some(Ok(Value::Binding(found))) => found.status.candidates,
        other => panic!("no binding: {other:?}"),
    };
    assert_eq!(candidates(), nodes.map(|node| candidate(node, 199)));
    // Each takes its part away, the last one too.
    for (index, node) in nodes.iter().enumerate() {
        let op = StoreOp::Apply(binding_key.clone(), Writer((*node).into()), Part::default());
        written(store.run(&op));
        let rest: Vec<Candidate> = nodes[index + 1..]
            .iter()
            .map(|node| candidate(node, 199))
            .collect();
        assert_eq!(candidates(), rest);
    }
}
