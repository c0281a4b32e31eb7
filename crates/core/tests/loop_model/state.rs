//! I4, first half: what should be, and what is owed, are functions of what is known.

use std::collections::{BTreeMap, VecDeque};

use buoy_core::desired::NodeDesired;
use buoy_core::duty::{self, Owed};
use buoy_core::subject::Subject;
use buoy_core::view::View;
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree;

use crate::cases;
use crate::inputs::{About, Input, input};
use crate::node::recalculate;
use crate::universe::{all_subjects, both, time, view};

fn from_scratch(view: &View) -> NodeDesired {
    let mut desired = NodeDesired::default();
    for subject in all_subjects() {
        recalculate(&mut desired, view, &subject);
    }
    desired
}

fn owed(view: &View, now: Timestamp) -> BTreeMap<Subject, Owed> {
    all_subjects()
        .into_iter()
        .map(|subject| (subject.clone(), duty::owed(view, &subject, both(now))))
        .collect()
}

/// The same inputs in another order: those about one thing stay in order, and some come twice.
fn reordered(inputs: &[(u64, Input)], order: &[Index], twice: &[Index]) -> Vec<(u64, Input)> {
    let mut queues: BTreeMap<About, VecDeque<(u64, Input)>> = BTreeMap::new();
    for (revision, input) in inputs {
        queues
            .entry(input.about())
            .or_default()
            .push_back((*revision, input.clone()));
    }
    let mut result = Vec::new();
    for index in order {
        let Some(about) = queues.keys().nth(index.index(queues.len().max(1))).cloned() else {
            break;
        };
        let queue = queues.get_mut(&about).unwrap();
        result.extend(queue.pop_front());
        if queue.is_empty() {
            queues.remove(&about);
        }
    }
    result.extend(queues.into_values().flatten());
    for index in twice {
        let at = index.index(result.len().max(1));
        if let Some(again) = result.get(at).cloned() {
            result.insert(at, again);
        }
    }
    result
}

fn known(inputs: &[(u64, Input)]) -> View {
    let mut view = view();
    for (revision, input) in inputs {
        input.feed(&mut view, *revision);
    }
    view
}

fn numbered(inputs: Vec<Input>) -> Vec<(u64, Input)> {
    (1..).zip(inputs).collect()
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn i4_any_order_gives_the_same(
        inputs in proptest::collection::vec(input(), 1..40),
        order in proptest::collection::vec(any::<Index>(), 40),
        twice in proptest::collection::vec(any::<Index>(), 0..6),
    ) {
        let inputs = numbered(inputs);
        let other = reordered(&inputs, &order, &twice);
        let (one, other) = (known(&inputs), known(&other));
        prop_assert_eq!(from_scratch(&one), from_scratch(&other));
        prop_assert_eq!(owed(&one, time(1300)), owed(&other, time(1300)));
        prop_assert_eq!(one.bad, other.bad);
    }

    #[test]
    fn i4_incremental_equals_from_scratch(inputs in proptest::collection::vec(input(), 1..40)) {
        let now = time(1300);
        let mut view = view();
        let mut desired = from_scratch(&view);
        let mut before = owed(&view, now);
        for (revision, input) in numbered(inputs) {
            let dirty = input.feed(&mut view, revision);
            for subject in &dirty {
                recalculate(&mut desired, &view, subject);
            }
            prop_assert_eq!(&desired, &from_scratch(&view), "after {:?}", input);
            let after = owed(&view, now);
            for (subject, owed) in &after {
                let unseen = !dirty.contains(subject) && before.get(subject) != Some(owed);
                prop_assert!(!unseen, "owed for {} changed unseen by {:?}: {:?}", subject, input, owed);
            }
            before = after;
        }
    }

    #[test]
    fn i9_no_record_makes_the_core_panic(inputs in proptest::collection::vec(input(), 1..60)) {
        let view = known(&numbered(inputs));
        for seconds in [0, 1300, i64::from(u32::MAX)] {
            owed(&view, time(seconds));
        }
    }
}

#[test]
fn i4_the_generator_reaches_what_matters() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = proptest::collection::vec(input(), 30..40);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..400 {
        let inputs = numbered(strategy.new_tree(&mut runner).unwrap().current());
        let view = known(&inputs);
        for (key, ..) in from_scratch(&view).rows() {
            seen.insert(
                format!("{key:?}")
                    .split('(')
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
            );
        }
        for owed in owed(&view, time(1700)).into_values() {
            let duty = owed.duty.map(|duty| format!("{duty:?}"));
            seen.extend(duty.and_then(|text| text.split([' ', '(']).next().map(str::to_owned)));
        }
    }
    let duties = [
        "Node",
        "Cluster",
        "Allocate",
        "Publish",
        "Retire",
        "FirstClaim",
        "Claim",
        "Release",
        "Candidates",
    ];
    let wanted = duties
        .into_iter()
        .chain(["Collect", "Free", "Sysctl", "Link", "Route", "Nat"]);
    let missing: Vec<&str> = wanted.filter(|name| !seen.contains(*name)).collect();
    assert!(missing.is_empty(), "never seen: {missing:?}");
}
