use buoy_api::binding::{Move, Target};
use proptest::prelude::*;

use super::*;
use crate::fixtures::{binding, candidate, pod, time};

fn named(name: &str) -> Candidate {
    candidate(&pod(name, 7))
}

fn moved(binding: Binding, to: &str) -> Binding {
    let to = Target {
        node: None,
        workload: to.to_owned(),
        endpoint: None,
    };
    let mut binding = binding;
    binding.spec.requested_move = Some(Move {
        id: "1".to_owned(),
        to,
        exclusive: false,
        drain: None,
    });
    binding
}

fn winner(binding: &Binding, candidates: &[Candidate]) -> String {
    best(binding, candidates)
        .map(|c| c.workload.clone())
        .unwrap_or_default()
}

/// Each rule, against all the rules after it.
#[test]
fn ready_then_moved_then_priority_then_owner_then_age_then_name() {
    let (mut a, mut b) = (named("a"), named("b"));
    let free = binding(None);
    assert_eq!(winner(&free, &[b.clone(), a.clone()]), "a", "the name");
    b.since = time(1);
    assert_eq!(winner(&free, &[a.clone(), b.clone()]), "b", "the oldest");
    let owned = binding(Some(&a));
    assert_eq!(winner(&owned, &[a.clone(), b.clone()]), "a", "the owner");
    b.priority = 1;
    assert_eq!(winner(&owned, &[a.clone(), b.clone()]), "b", "the priority");
    let to_a = moved(owned, "a");
    assert_eq!(winner(&to_a, &[a.clone(), b.clone()]), "a", "a person's wish");
    a.ready = false;
    assert_eq!(winner(&to_a, &[a, b]), "b", "ready");
}

#[test]
fn a_wish_for_somebody_who_is_not_there_changes_nothing() {
    let (a, b) = (named("a"), named("b"));
    assert_eq!(winner(&moved(binding(Some(&b)), "c"), &[a, b]), "b");
    assert!(best(&binding(None), []).is_none());
}

fn any_candidate() -> impl Strategy<Value = Candidate> {
    (0..3usize, any::<bool>(), 0..2i32, 0..3i64).prop_map(|(name, ready, priority, since)| {
        let made = named(["a", "b", "c"][name]);
        Candidate {
            ready,
            priority,
            since: time(since),
            ..made
        }
    })
}

proptest! {
    #[test]
    fn the_order_is_total(
        a in any_candidate(),
        b in any_candidate(),
        c in any_candidate(),
        owner in any_candidate(),
        to in 0..4usize,
    ) {
        let owned = binding(Some(&owner));
        let owned = if to < 3 { moved(owned, ["a", "b", "c"][to]) } else { owned };
        let less = |x: &Candidate, y: &Candidate| compare(&owned, x, y) != Ordering::Greater;
        prop_assert_eq!(compare(&owned, &a, &b), compare(&owned, &b, &a).reverse());
        prop_assert!(!(less(&a, &b) && less(&b, &c)) || less(&a, &c));
        let one = best(&owned, [&a, &b, &c]).cloned();
        let other = best(&owned, [&c, &a, &b]).cloned();
        prop_assert_eq!(one.map(|x| compare(&owned, &x, &a)), other.map(|x| compare(&owned, &x, &a)));
    }
}
