//! Parts of a status whose writing is not answered.

use std::time::{Duration, Instant};

use buoy_api::ObjectMeta;
use buoy_api::binding::{Binding, BindingSpec, Candidate};
use buoy_core::store::{Key, Part, Record, Reply, StoreOp, Value, Writer};
use buoy_datastore::Datastore;
use buoy_datastore::etcd::{Etcd, Options};

use super::pages::PATIENCE;
use super::proxy::{Mode, Proxy};
use crate::records::candidate;
use crate::server::Server;
use crate::tools::{get, written};

/// So long that only a request with the whole record in it is longer than [`SHORT`], and yet goes out at once.
const PADDING: usize = 20_000;
const SHORT: usize = 10_000;

fn binding() -> Key {
    Key::Binding("172-16-1-3".to_owned())
}

fn make(store: &dyn Datastore) {
    let mut metadata = ObjectMeta::named("172-16-1-3");
    let padding = "x".repeat(PADDING);
    metadata.annotations.insert("padding".to_owned(), padding);
    let spec = BindingSpec {
        address: "172.16.1.3".parse().unwrap(),
        ..BindingSpec::default()
    };
    let record = Value::Binding(Binding::new(metadata, spec));
    written(store.run(&StoreOp::Create(binding(), record)));
}

/// The part of a node: one candidate, or none.
fn part(node: &str, priority: Option<i32>) -> StoreOp {
    let candidates = priority.map(|priority| candidate(node, priority));
    let part = Part {
        candidates: candidates.into_iter().collect(),
        conditions: Vec::new(),
    };
    StoreOp::Apply(binding(), Writer(node.to_owned()), part)
}

fn candidates(record: &Record) -> Vec<Candidate> {
    match &record.value {
        Ok(Value::Binding(found)) => found.status.candidates.clone(),
        other => panic!("{other:?}"),
    }
}

/// How the relay loses something: its answer, by telling it how, or itself.
pub(crate) type Lose<'a> = &'a dyn Fn(&Proxy);

/// Parts are written behind a relay that loses answers, or what is asked; each is written again.
pub(crate) fn converge(
    direct: &dyn Datastore,
    (proxy, store): (&Proxy, &dyn Datastore),
    lose_answer: Lose<'_>,
) {
    make(direct);
    written(direct.run(&part("n1", Some(1))));
    let found = || get(direct, &binding()).unwrap();
    // Connected, and sure of its store.
    written(store.run(&part("n2", Some(0))));
    let steps = [
        (part("n2", Some(7)), vec![candidate("n1", 1), candidate("n2", 7)]),
        (part("n2", None), vec![candidate("n1", 1)]),
    ];
    for (op, expected) in steps {
        lose_answer(proxy);
        let has_happened = || candidates(&found()) == expected;
        assert_eq!(unanswered(proxy, store, &op, has_happened), Reply::Unknown);
        let first = found();
        // There is nothing left to write.
        assert_eq!(again(store, &op), Reply::Written(first.revision));
        assert_eq!(found(), first);
    }
    for (priority, of_other) in [(3, 2), (4, 5)] {
        let begun = Instant::now();
        proxy.set(Mode::Stall);
        let waited = || begun.elapsed() > Duration::from_millis(300);
        let op = part("n2", Some(priority));
        match unanswered(proxy, store, &op, waited) {
            Reply::Unknown | Reply::Failed(_) => {}
            other => panic!("{other:?}"),
        }
        // Somebody else writes his part in between.
        written(direct.run(&part("n1", Some(of_other))));
        written(again(store, &op));
        let expected = [candidate("n1", of_other), candidate("n2", priority)];
        assert_eq!(candidates(&found()), expected);
    }
}

/// Carries an operation out until something is so, and then breaks its connection.
fn unanswered(proxy: &Proxy, store: &dyn Datastore, op: &StoreOp, until: impl Fn() -> bool) -> Reply {
    let deadline = Instant::now() + PATIENCE;
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| store.run(op));
        while !until() {
            assert!(Instant::now() < deadline, "it does not happen: {op:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        proxy.cut();
        proxy.set(Mode::Pass);
        asking.join().unwrap()
    })
}

/// The same once more, once the client has noticed that its connection is gone.
fn again(store: &dyn Datastore, op: &StoreOp) -> Reply {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match store.run(op) {
            Reply::Failed(_) | Reply::Unknown if Instant::now() < deadline => {}
            reply => return reply,
        }
    }
}

#[test]
fn a_part_whose_answer_is_lost_is_written_again_and_not_twice() {
    let server = Server::start();
    let proxy = Proxy::to(server.address);
    let options = Options { timeout: PATIENCE };
    let store = Etcd::open(&proxy.url(), |_| None, options).unwrap();
    // What was there is read first, and that is answered.
    let lose: Lose<'_> = &|proxy| proxy.mute_after_asking(SHORT);
    converge(&*server.store(), (&proxy, &store), lose);
}
