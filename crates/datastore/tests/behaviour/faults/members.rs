//! An etcd of three members, some of which fail.

use std::time::{Duration, Instant};

use buoy_core::store::{FailureKind, Prefix, Reply, Revision, StoreOp};
use buoy_datastore::{Datastore, Event, Watch};

use crate::server::{Server, client, url_of};
use crate::tools::{create, events_until, get, key, list, update, value};

const PATIENCE: Duration = Duration::from_secs(30);

/// Writes until it is done, as a caller would that reads again when an answer was lost.
fn write_at_last(store: &dyn Datastore, name: &str) -> Revision {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match store.run(&StoreOp::Create(key(name), value(name, 1))) {
            Reply::Written(revision) => return revision,
            Reply::Conflict => return get(store, &key(name)).unwrap().revision,
            Reply::Unknown => {}
            Reply::Failed(error) => assert_eq!(error.kind, FailureKind::Unavailable, "{error}"),
            other => panic!("{other:?}"),
        }
        assert!(Instant::now() < deadline, "nothing is written any more");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A watch that begins again wherever it ended, as a follower does.
struct Watching<'a> {
    store: &'a dyn Datastore,
    watch: Option<Box<dyn Watch>>,
    from: Revision,
    seen: Vec<Revision>,
}

impl<'a> Watching<'a> {
    fn begin(store: &'a dyn Datastore) -> Self {
        let (_, from) = list(store, Prefix::Reservations);
        Self {
            store,
            watch: None,
            from,
            seen: Vec::new(),
        }
    }

    /// Follows until this revision came, exactly once like all before it.
    fn until(&mut self, last: Revision) {
        let deadline = Instant::now() + PATIENCE;
        while self.seen.last() < Some(&last) {
            assert!(
                Instant::now() < deadline,
                "up to {:?}, not {last}",
                self.seen.last()
            );
            let interest = [(Prefix::Reservations, self.from)];
            if self.watch.is_none() {
                self.watch = self.store.watch(&interest).ok();
            }
            let next = self
                .watch
                .as_mut()
                .map(|watch| watch.next(Duration::from_millis(200)));
            match next {
                Some(Ok(events)) => self.seen.extend(events.iter().map(Event::revision)),
                _ => self.watch = None,
            }
            self.from = self.seen.last().copied().unwrap_or(self.from).max(self.from);
        }
        assert!(self.seen.is_sorted_by(|a, b| a < b), "{:?}", self.seen);
    }
}

fn leader(servers: &[Server]) -> usize {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(leader) = servers.iter().position(Server::leads) {
            return leader;
        }
        assert!(Instant::now() < deadline, "nobody leads");
    }
}

#[test]
fn a_leader_that_dies_or_freezes_is_done_without() {
    let mut servers = Server::start_three(&[]);
    let store = client(&url_of(&servers));
    let mut watching = Watching::begin(&*store);
    for round in 0..4 {
        let led = leader(&servers);
        let freezes = round % 2 == 1;
        if freezes {
            servers[led].freeze(true);
        } else {
            servers[led].kill();
        }
        for step in 0..5 {
            let last = write_at_last(&*store, &format!("p{round}-{step}"));
            watching.until(last);
        }
        if freezes {
            servers[led].freeze(false);
        } else {
            servers[led].start_again();
        }
    }
    let (records, _) = list(&*store, Prefix::Reservations);
    assert_eq!(records.len(), 20);
    assert_eq!(watching.seen.len(), 20);
}

#[test]
fn without_a_quorum_nothing_is_written_and_everything_comes_back_with_it() {
    let servers = Server::start_three(&[]);
    let store = client(&url_of(&servers));
    let a = create(&*store, "a", 1);
    let mut watching = Watching::begin(&*store);
    for server in &servers[..2] {
        server.freeze(true);
    }
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(8) {
        match store.run(&StoreOp::Update(key("a"), value("a", 2), a)) {
            Reply::Unknown => {}
            Reply::Failed(error) => assert_eq!(error.kind, FailureKind::Unavailable, "{error}"),
            other => panic!("one member of three wrote: {other:?}"),
        }
    }
    for server in &servers[..2] {
        server.freeze(false);
    }
    let back = Instant::now();
    let last = write_at_last(&*store, "b");
    watching.until(last);
    assert!(back.elapsed() < Duration::from_secs(5), "{:?}", back.elapsed());
    // A write whose answer was lost may have happened, once.
    let now = get(&*store, &key("a")).unwrap().revision;
    assert!(watching.seen.iter().filter(|seen| **seen == now).count() == usize::from(now != a));
}

#[test]
fn compaction_and_defragmentation_do_not_disturb_a_watch_that_keeps_up() {
    let servers = Server::start_three(&[]);
    let store = client(&url_of(&servers));
    let (_, from) = list(&*store, Prefix::Reservations);
    let mut watch = store.watch(&[(Prefix::Reservations, from)]).unwrap();
    let mut at = create(&*store, "p", 0);
    let mut count = 1;
    for round in 1..=4 {
        for step in 0..50 {
            at = update(&*store, "p", round * 50 + step, at);
            count += 1;
        }
        let events = events_until(watch.as_mut(), at);
        count -= events.len();
        servers[0].compact();
        for server in &servers {
            assert!(server.ctl(&["defrag"]).is_some());
        }
    }
    assert_eq!(count, 0, "some changes were lost or came twice");
}

#[test]
fn a_full_store_is_read_and_says_how_to_make_room() {
    let servers = Server::start_three(&["--quota-backend-bytes", "2000000"]);
    let store = client(&url_of(&servers));
    let mut at = create(&*store, "small", 0);
    let mut watch = store.watch(&[(Prefix::Reservations, at)]).unwrap();
    let blob = vec![b'x'; 200_000];
    let filled = (0..40).find(|number| !servers[0].try_put(&format!("/somebody/else/{number}"), &blob));
    assert!(filled.is_some(), "there is room for everything");
    match store.run(&StoreOp::Update(key("small"), value("small", 1), at)) {
        Reply::Failed(error) => {
            assert_eq!(error.kind, FailureKind::Refused);
            assert!(error.message.contains("database space exceeded"), "{error}");
            assert!(error.message.contains("etcdctl alarm disarm"), "{error}");
        }
        other => panic!("there is no room: {other:?}"),
    }
    assert_eq!(get(&*store, &key("small")).unwrap().revision, at, "it is read");
    assert!(watch.next(Duration::from_millis(50)).is_ok());
    assert!(servers[0].ctl(&["del", "--prefix", "/somebody/"]).is_some());
    servers[0].compact();
    for server in &servers {
        assert!(server.ctl(&["defrag"]).is_some());
    }
    assert!(servers[0].ctl(&["alarm", "disarm"]).is_some());
    let deadline = Instant::now() + PATIENCE;
    at = loop {
        match store.run(&StoreOp::Update(key("small"), value("small", 2), at)) {
            Reply::Written(revision) => break revision,
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
    };
    events_until(watch.as_mut(), at);
}
