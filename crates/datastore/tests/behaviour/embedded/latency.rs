//! How fast: printed, and bounded so loosely that only a mistake exceeds it.

use std::time::{Duration, Instant};

use buoy_core::store::{Prefix, Revision};
use buoy_datastore::Datastore;
use buoy_datastore::sqlite::{Options, Sqlite};

use super::writer::{Writer, nanoseconds};
use crate::tools::{create, get, key, list, update};

fn percentiles(what: &str, mut times: Vec<Duration>) -> Duration {
    times.sort();
    let half = times[times.len() / 2];
    println!("{what}: p50 {half:?}, p99 {:?}", times[times.len() * 99 / 100]);
    half
}

#[test]
fn single_operations() {
    const TIMES: u64 = 2000;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("buoy.db");
    let store = Sqlite::open(&path, Options::default()).unwrap();
    let mut at = Revision(0);
    let timed = |act: &mut dyn FnMut(u64)| -> Vec<Duration> {
        let one = |number| {
            let begun = Instant::now();
            act(number);
            begun.elapsed()
        };
        (0..TIMES).map(one).collect()
    };
    let creates = timed(&mut |number| at = create(&store, &format!("p{number}"), number));
    let name = format!("p{}", TIMES - 1);
    let updates = timed(&mut |number| at = update(&store, &name, number, at));
    let gets = timed(&mut |number| assert!(get(&store, &key(&format!("p{number}"))).is_some()));
    let opens = timed(&mut |_| drop(Sqlite::open(&path, Options::default()).unwrap()));
    let begun = Instant::now();
    assert_eq!(list(&store, Prefix::Profiles).0.len() as u64, TIMES);
    println!("list of {TIMES}: {:?}", begun.elapsed());
    for (what, times) in [
        ("create", creates),
        ("update", updates),
        ("get", gets),
        ("open", opens),
    ] {
        assert!(percentiles(what, times) < Duration::from_millis(20));
    }
}

#[test]
fn a_watch_wakes_for_another_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("buoy.db");
    let store = Sqlite::open(&path, Options::default()).unwrap();
    let mut watch = store.watch(&[Prefix::Profiles], Revision(0)).unwrap();
    let mut writer = Writer::start(&path, "paced 500");
    let arrived: Vec<u64> = std::iter::from_fn(|| {
        let events = watch.next(Duration::from_secs(10)).unwrap();
        let now = nanoseconds();
        Some(events.into_iter().map(move |_| now))
    })
    .flatten()
    .take(500)
    .collect();
    let (mut from_begin, mut from_answer) = (Vec::new(), Vec::new());
    for at in arrived {
        let words = writer.report().unwrap();
        from_begin.push(Duration::from_nanos(at.saturating_sub(words[1])));
        from_answer.push(Duration::from_nanos(at.saturating_sub(words[2])));
    }
    writer.finish();
    let half = percentiles(
        "from the begin of another process's write to the event",
        from_begin,
    );
    percentiles(
        "from the answer to another process's write to the event",
        from_answer,
    );
    assert!(half < Duration::from_millis(50), "{half:?}");
}
