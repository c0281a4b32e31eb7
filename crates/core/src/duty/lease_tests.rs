use buoy_api::binding::Candidate;
use buoy_api::lease::{NodeLease, NodeLeaseSpec};
use buoy_api::meta::ObjectMeta;

use super::*;
use crate::duty::owed;
use crate::fixtures::{FLOATING, binding, floating, mine, now, pod, put, theirs, view};
use crate::floating::lease::Held;
use crate::store::{Revision, Value};
use crate::subject::Subject;
use crate::time::Mono;

fn of_own(view: &View, second: u64) -> Owed {
    owed(view, &Subject::Lease, now(second))
}

fn of(view: &View, node: &str, second: u64) -> Owed {
    owed(view, &Subject::OtherNode(node.to_owned()), now(second))
}

fn held(term: u64, began: u64) -> Held {
    Held {
        term: Term(term),
        revision: Revision(1),
        began: now(began).mono,
    }
}

/// The binding of the address that `web-0` asks for, with an owner of this term.
fn owned(by: &Candidate, term: u64) -> Value {
    let mut owned = binding(Some(by));
    owned.spec.owner = Some(by.as_owner(Term(term)));
    Value::Binding(owned)
}

fn read(view: &mut View, node: &str, holder: Option<&str>, term: u64, second: u64) {
    let spec = NodeLeaseSpec {
        holder: holder.map(str::to_owned),
        term: Term(term),
        duration_seconds: 6,
        ..NodeLeaseSpec::default()
    };
    let lease = NodeLease::new(ObjectMeta::named(node), spec);
    view.sighted(node, Some((lease, Revision(term))), now(second).mono);
}

#[test]
fn a_lease_is_taken_when_somebody_waits_for_it_and_renewed_in_time() {
    let mut view = view();
    view.set_own_lease(Own::Nothing);
    assert_eq!(of_own(&view, 1), Owed::default());
    view.lease_wanted = true;
    assert_eq!(of_own(&view, 1), Duty::KeepLease(None).into());
    view.set_own_lease(Own::Held(held(1, 10)));
    assert_eq!(of_own(&view, 11), Owed::later(now(12).mono));
    assert_eq!(of_own(&view, 12), Duty::KeepLease(Some(held(1, 10))).into());
}

/// The copy may be of a time when it was held.
#[test]
fn after_a_restore_the_lease_is_taken_once_and_left() {
    let mut view = view();
    view.set_own_lease(Own::Nothing);
    view.restored();
    assert_eq!(of_own(&view, 1), Duty::KeepLease(None).into());
    view.set_own_lease(Own::Held(held(2, 1)));
    assert_eq!(of_own(&view, 2).duty, Some(Duty::LeaveLease(held(2, 1))));
    view.set_own_lease(Own::Nothing);
    assert_eq!(of_own(&view, 3), Owed::default());
}

#[test]
fn a_lease_is_renewed_while_something_is_owned_and_left_a_while_after() {
    let mut view = view();
    view.set_own_lease(Own::Held(held(1, 10)));
    put(&mut view, owned(&mine(), 1));
    assert_eq!(of_own(&view, 12).duty, Some(Duty::KeepLease(Some(held(1, 10)))));
    put(&mut view, Value::Binding(binding(None)));
    let left = of_own(&view, 12);
    assert_eq!(left.duty, Some(Duty::LeaveLease(held(1, 10))));
    assert_eq!(left.grace, LEAVE_GRACE);
}

#[test]
fn a_lease_below_an_owner_of_this_node_is_taken_anew_at_once() {
    let mut view = view();
    view.set_own_lease(Own::Held(held(1, 10)));
    put(&mut view, owned(&mine(), 3));
    assert_eq!(of_own(&view, 10).duty, Some(Duty::KeepLease(Some(held(1, 10)))));
}

/// This node's lease, taken or renewed at a second.
fn renew(view: &mut View, second: u64) {
    view.own_lease_kept(Own::Held(held(1, second)), now(second).mono);
}

/// A view of a node that stands by for `n2`, which has been silent from second 1 to 8.
fn observer() -> View {
    let mut view = view();
    put(&mut view, owned(&theirs(), 1));
    for second in 1..=8 {
        read(&mut view, "n2", Some("agent-of-n2"), 1, second);
    }
    view
}

/// Whether it revokes the lease of `n2` at a second, if it reads the same until then.
fn revokes(view: &View, second: u64) -> bool {
    let mut view = view.clone();
    let seen = view.sighting("n2").cloned().unwrap();
    for read in 0..=second {
        if now(read).mono > seen.last {
            view.sighted("n2", seen.lease.clone(), now(read).mono);
        }
    }
    matches!(of(&view, "n2", second).duty, Some(Duty::RevokeLease { .. }))
}

#[test]
fn a_lease_is_read_while_somebody_stands_by_until_it_can_be_revoked() {
    let mut view = view();
    assert_eq!(of(&view, "n2", 1), Owed::default());
    put(&mut view, owned(&theirs(), 1));
    renew(&mut view, 3);
    renew(&mut view, 5);
    let node = || "n2".to_owned();
    assert_eq!(
        of(&view, "n2", 1),
        Duty::ReadLease {
            node: node(),
            after: None
        }
        .into()
    );
    for second in 1..=7 {
        read(&mut view, "n2", Some("agent-of-n2"), 1, second);
        let owed = of(&view, "n2", second);
        let next = now(second).mono.after(lease::READING);
        assert_eq!((owed.duty, owed.again), (None, Some(next)));
        assert_eq!(owed.needs_lease, second > 3, "at second {second}");
    }
    read(&mut view, "n2", Some("agent-of-n2"), 1, 8);
    let Some(Duty::RevokeLease { owner, seen, .. }) = of(&view, "n2", 8).duty else {
        panic!("it has stood for seven seconds")
    };
    assert_eq!((owner, seen.since), (Term(1), now(1).mono));
    read(&mut view, "n2", None, 2, 8);
    assert_eq!(
        of(&view, "n2", 9),
        Owed::default(),
        "it stands for nobody any more"
    );
}

#[test]
fn a_lease_is_read_again_when_it_will_have_stood_long_enough() {
    let mut view = observer();
    let millis = |millis| Mono(Duration::from_millis(millis));
    let found = view.sighting("n2").and_then(|seen| seen.lease.clone());
    view.sighted("n2", None, millis(9000));
    view.sighted("n2", found.clone(), millis(9500));
    for ended in (10_000..=16_000).step_by(500) {
        view.sighted("n2", found.clone(), millis(ended));
    }
    assert_eq!(of(&view, "n2", 16).again, Some(millis(16_100)));
}

#[test]
fn nobody_is_revoked_by_a_node_whose_own_writes_fail() {
    let mut view = observer();
    view.set_own_lease(Own::Nothing);
    let owed = of(&view, "n2", 8);
    assert!(owed.needs_lease && !revokes(&view, 8));
    // It held its lease when the outage began, and renews it when that is over.
    view.set_own_lease(Own::Nothing);
    renew(&mut view, 1);
    renew(&mut view, 3);
    assert!(!revokes(&view, 8), "no renewal for five seconds");
    renew(&mut view, 8);
    assert!(
        !revokes(&view, 8) && !revokes(&view, 10),
        "writes are taken again just now"
    );
    assert!(!revokes(&view, 11), "one write proves no more than itself");
    renew(&mut view, 10);
    assert!(!revokes(&view, 10) && revokes(&view, 11));
    assert!(!revokes(&view, 14), "no renewal for four seconds");
}

#[test]
fn what_was_counted_before_contact_was_lost_is_no_reason_later() {
    let mut view = observer();
    for second in [5, 7, 9, 11] {
        renew(&mut view, second);
    }
    assert!(revokes(&view, 11));
    let owed = of(&view, "n2", 11);
    assert!(
        matches!(owed.duty, Some(Duty::ReadLease { .. })),
        "not read for three seconds"
    );
}

#[test]
fn a_lease_that_was_long_in_the_writing_counts_from_when_it_was_written() {
    let mut view = observer();
    view.own_lease_kept(Own::Held(held(1, 5)), now(7).mono);
    renew(&mut view, 7);
    assert!(!revokes(&view, 10), "both may have been written in one moment");
    renew(&mut view, 9);
    assert!(!revokes(&view, 9) && revokes(&view, 10));
}

#[test]
fn a_revocation_that_failed_or_may_have_failed_begins_the_count_anew() {
    let proven = || {
        let mut view = observer();
        renew(&mut view, 5);
        renew(&mut view, 7);
        assert!(revokes(&view, 8));
        view
    };
    let mut view = proven();
    view.not_revoked("n2", now(8).mono);
    assert!(!revokes(&view, 8));
    assert_eq!(view.sighting("n2").unwrap().since, now(8).mono);
    let mut view = proven();
    let found = view.sighting("n2").and_then(|seen| seen.lease.clone());
    view.revoked("n2", found, now(9).mono);
    assert!(!revokes(&view, 9), "its write may be on its way");
    let mut view = proven();
    view.revoked("n2", None, now(9).mono);
    assert_eq!(view.sighting("n2").unwrap().begun, lease::Begun::Changed);
}

#[test]
fn a_lease_is_not_revoked_for_somebody_who_may_not_have_the_address() {
    let mut view = view();
    put(&mut view, owned(&theirs(), 1));
    let mut elsewhere = binding(Some(&theirs()));
    elsewhere.spec.namespace = "bank".to_owned();
    put(&mut view, Value::Binding(elsewhere));
    for second in 1..=9 {
        read(&mut view, "n2", Some("agent-of-n2"), 1, second);
    }
    renew(&mut view, 5);
    renew(&mut view, 7);
    assert!(!revokes(&view, 9) && !of(&view, "n2", 9).needs_lease);
}

#[test]
fn what_was_asked_for_and_is_not_any_more_is_watched_no_more() {
    let mut view = view();
    put(&mut view, owned(&theirs(), 1));
    read(&mut view, "n2", Some("agent-of-n2"), 1, 1);
    view.remove_attachment(&pod("web-0", 7).id);
    assert_eq!(of(&view, "n2", 9), Owed::default());
}

#[test]
fn a_foreign_holder_is_watched_for_what_this_node_wants_or_owns() {
    let mut view = view();
    view.remove_attachment(&pod("web-0", 7).id);
    view.set_own_lease(Own::Foreign("twin".to_owned()));
    assert_eq!(of_own(&view, 1), Owed::default());
    assert_eq!(
        of(&view, "n1", 1),
        Owed::default(),
        "nobody here has any use for it"
    );
    view.lease_wanted = true;
    assert!(matches!(of(&view, "n1", 1).duty, Some(Duty::ReadLease { .. })));
    view.lease_wanted = false;
    put(&mut view, owned(&mine(), 1));
    for second in 1..=8 {
        assert!(of(&view, "n1", second).duty.is_some());
        read(&mut view, "n1", Some("twin"), 1, second);
    }
    assert!(matches!(of(&view, "n1", 8).duty, Some(Duty::RevokeLease { .. })));
}

#[test]
fn an_exclusive_offer_waits_until_the_kernel_has_nothing_of_it() {
    use crate::view::Withdrawal;
    use buoy_api::binding::{Move, Target};
    let mut view = view();
    let address = floating(FLOATING);
    let mut asked = binding(Some(&mine()));
    asked.spec.requested_move = Some(Move {
        id: "1".to_owned(),
        to: Target {
            node: None,
            workload: "db-0".to_owned(),
            endpoint: None,
        },
        exclusive: true,
        drain: None,
    });
    asked.status.candidates = vec![theirs()];
    put(&mut view, Value::Binding(asked.clone()));
    let next = |view: &View| owed(view, &Subject::Binding(address), now(2000)).duty;
    assert_eq!(next(&view), Some(Duty::Withdraw(address)));
    view.set_withdrawal(address, Some(Withdrawal::Begun));
    assert_eq!(next(&view), None);
    view.set_withdrawal(address, Some(Withdrawal::Done));
    assert!(matches!(next(&view), Some(Duty::Offer { .. })));
    // Whom it was meant for is gone.
    asked.status.candidates = vec![mine()];
    put(&mut view, Value::Binding(asked));
    assert_eq!(next(&view), Some(Duty::Restore(address)));
}
