use std::time::Duration;

use buoy_api::annotations::{READINESS, Readiness};

use super::*;
use crate::fixtures::{FLOATING, binding, candidate, endpoint, floating, pod, put, record, view};
use crate::floating::candidates;
use crate::store::{Delta, Key, Revision, Value};

const YIELD: Duration = Duration::from_secs(3);

/// A view in which a record says this of the workload, at this second.
fn say(view: &mut View, readiness: Option<Readiness>, second: u64) -> BTreeSet<Subject> {
    let mut record = record(&pod("web-0", 7), &[("10.65.0.7", FLOATING)]);
    if let Some(readiness) = readiness {
        let annotations = &mut record.metadata.annotations;
        annotations.insert(READINESS.to_owned(), readiness.as_str().to_owned());
    }
    let id = endpoint("web-0");
    let delta = Delta {
        key: Key::Endpoint {
            namespace: id.namespace,
            name: id.name,
        },
        revision: Revision(second + 10),
        value: Some(Ok(Value::Endpoint(record))),
    };
    view.apply(delta, at(second))
}

fn at(second: u64) -> Mono {
    Mono(Duration::from_secs(second))
}

/// Where the workload has the address.
fn fresh() -> View {
    let mut view = unowned();
    put(
        &mut view,
        Value::Binding(binding(Some(&candidate(&pod("web-0", 7))))),
    );
    view
}

/// Where nobody has it.
fn unowned() -> View {
    let mut view = view();
    view.settings.yield_time = YIELD;
    view
}

fn is_ready(view: &View) -> bool {
    let candidates = candidates::of(view, floating(FLOATING), "shop");
    assert_eq!(candidates.len(), 1, "it stays a candidate");
    candidates[0].ready
}

#[test]
fn a_workload_of_which_nothing_is_said_is_ready() {
    let mut view = fresh();
    assert!(is_ready(&view));
    say(&mut view, None, 1);
    assert!(is_ready(&view));
    assert_eq!(view.readiness_due(), None);
}

#[test]
fn one_that_was_never_ready_gets_no_time() {
    let mut view = fresh();
    let dirty = say(&mut view, Some(Readiness::NotReady), 1);
    assert!(!is_ready(&view));
    assert!(dirty.contains(&Subject::Binding(floating(FLOATING))));
    say(&mut view, Some(Readiness::Ready), 2);
    assert!(is_ready(&view));
}

#[test]
fn a_moment_of_weakness_is_forgiven_and_a_longer_one_is_not() {
    let mut view = fresh();
    say(&mut view, Some(Readiness::Ready), 1);
    say(&mut view, Some(Readiness::NotReady), 2);
    say(&mut view, Some(Readiness::Ready), 4);
    assert_eq!(view.readiness_due(), None);
    say(&mut view, Some(Readiness::NotReady), 5);
    // Other changes of the record do not prolong it.
    say(&mut view, Some(Readiness::NotReady), 7);
    assert_eq!(view.readiness_due(), Some(at(8)));
    assert_eq!(view.look_at_readiness(at(7)), BTreeSet::new());
    assert!(is_ready(&view));
    let dirty = view.look_at_readiness(at(8));
    assert_eq!(dirty, BTreeSet::from([Subject::Binding(floating(FLOATING))]));
    assert!(!is_ready(&view));
    assert_eq!(view.readiness_due(), None);
}

#[test]
fn one_that_is_being_deleted_is_not_ready_at_once() {
    let mut view = fresh();
    say(&mut view, Some(Readiness::Ready), 1);
    say(&mut view, Some(Readiness::Going), 2);
    assert!(!is_ready(&view));
}

#[test]
fn only_an_owner_gets_time() {
    let mut view = unowned();
    say(&mut view, Some(Readiness::Ready), 1);
    assert!(is_ready(&view));
    say(&mut view, Some(Readiness::NotReady), 2);
    assert!(!is_ready(&view));
    say(&mut view, Some(Readiness::Ready), 3);
    assert!(is_ready(&view));
}
