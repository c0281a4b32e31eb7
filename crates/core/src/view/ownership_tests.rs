use buoy_api::binding::{Offer, Owner, Target};
use buoy_api::lease::NodeLeaseSpec;
use buoy_api::meta::ObjectMeta;
use buoy_api::names::binding_name;

use super::*;
use crate::fixtures::{FLOATING, binding, floating, mine, now, pod, theirs_on as on, view};
use crate::floating::lease::Held;
use crate::store::{Delta, Key, Value};

fn address() -> FloatingIp {
    floating(FLOATING)
}

fn owned(by: &Candidate, epoch: u64, term: u64) -> Binding {
    let mut binding = binding(None);
    binding.spec.owner = Some(by.as_owner(Term(term)));
    binding.spec.released = None;
    binding.spec.epoch = Epoch(epoch);
    binding
}

fn offered(to: &Candidate, from: &str, epoch: u64) -> Binding {
    let mut binding = binding(None);
    binding.spec.epoch = Epoch(epoch);
    binding.spec.offer = Some(Offer {
        to: Target {
            node: Some(to.node.clone()),
            workload: to.workload.clone(),
            endpoint: Some(to.endpoint.clone()),
        },
        from: from.to_owned(),
    });
    binding.status.candidates = vec![to.clone()];
    binding
}

fn learn(view: &mut View, revision: u64, second: u64, binding: Option<&Binding>) -> BTreeSet<Subject> {
    let delta = Delta {
        key: Key::Binding(binding_name(address().addr())),
        revision: Revision(revision),
        value: binding.map(|binding| Ok(Value::Binding(binding.clone()))),
    };
    view.apply(delta, now(second).mono)
}

fn held(term: u64, began: u64) -> Own {
    Own::Held(Held {
        term: Term(term),
        revision: Revision(1),
        began: now(began).mono,
    })
}

fn lease(holder: Option<&str>, term: u64, revision: u64) -> Option<(NodeLease, Revision)> {
    let spec = NodeLeaseSpec {
        holder: holder.map(str::to_owned),
        term: Term(term),
        duration_seconds: 6,
        ..NodeLeaseSpec::default()
    };
    Some((NodeLease::new(ObjectMeta::named("n2"), spec), Revision(revision)))
}

fn other(node: &str) -> Subject {
    Subject::OtherNode(node.to_owned())
}

#[test]
fn a_node_is_awaited_while_it_owns_what_somebody_here_asks_for() {
    let mut view = view();
    let dirty = learn(&mut view, 5, 1, Some(&owned(&on("n2"), 7, 1)));
    assert!(dirty.contains(&other("n2")), "{dirty:?}");
    assert_eq!(view.awaited_of("n2").collect::<Vec<_>>(), [address()]);
    view.sighted("n2", lease(Some("agent-of-n2"), 1, 3), now(2).mono);
    let dirty = learn(&mut view, 6, 3, Some(&owned(&on("n3"), 8, 1)));
    assert!(dirty.contains(&other("n2")) && dirty.contains(&other("n3")));
    assert_eq!(view.awaited_of("n2").count(), 0);
    assert_eq!(
        view.sighting("n2"),
        None,
        "what was seen is out of date when it is awaited again"
    );
    let dirty = view.remove_attachment(&pod("web-0", 7).id);
    assert!(dirty.contains(&other("n3")));
    assert_eq!(view.awaited_of("n3").count(), 0);
}

#[test]
fn an_owner_with_another_term_is_awaited_anew() {
    let mut view = view();
    learn(&mut view, 5, 1, Some(&owned(&on("n2"), 7, 1)));
    let dirty = learn(&mut view, 6, 2, Some(&owned(&on("n2"), 7, 3)));
    assert!(dirty.contains(&other("n2")), "{dirty:?}");
}

#[test]
fn the_first_that_is_owned_asks_for_a_lease_and_the_last_lets_it_go() {
    let mut view = view();
    let dirty = learn(&mut view, 5, 1, Some(&owned(&mine(), 7, 0)));
    assert!(view.owns() && dirty.contains(&Subject::Lease), "{dirty:?}");
    let dirty = learn(&mut view, 6, 2, Some(&owned(&mine(), 7, 1)));
    assert!(!dirty.contains(&Subject::Lease), "{dirty:?}");
    let dirty = learn(&mut view, 7, 3, None);
    assert!(!view.owns() && dirty.contains(&Subject::Lease), "{dirty:?}");
}

#[test]
fn the_floor_of_terms_is_the_highest_that_an_owner_here_ever_had() {
    let mut view = view();
    learn(&mut view, 5, 1, Some(&owned(&mine(), 7, 4)));
    learn(&mut view, 6, 1, Some(&owned(&mine(), 8, 3)));
    learn(&mut view, 7, 1, Some(&owned(&on("n2"), 9, 9)));
    learn(&mut view, 8, 1, None);
    assert_eq!(view.term_floor(), Term(4));
}

#[test]
fn confirmed_is_who_owns_it_under_a_lease_that_is_live() {
    let mut view = view();
    let confirmed = |view: &View, second| view.is_confirmed(address(), now(second).mono);
    view.set_own_lease(held(2, 10));
    assert!(!confirmed(&view, 11), "nobody's");
    learn(&mut view, 5, 10, Some(&owned(&mine(), 7, 2)));
    assert!(confirmed(&view, 15));
    assert!(!confirmed(&view, 16), "run out");
    view.set_own_lease(held(4, 16));
    assert!(!confirmed(&view, 17), "revoked meanwhile, and not stamped yet");
    learn(&mut view, 6, 17, Some(&owned(&mine(), 7, 4)));
    assert!(confirmed(&view, 17));
    learn(&mut view, 7, 17, Some(&owned(&on("n2"), 8, 4)));
    assert!(!confirmed(&view, 17), "another node's");
}

#[test]
fn who_gives_is_not_confirmed_until_a_later_revision() {
    let mut view = view();
    view.set_own_lease(held(2, 10));
    learn(&mut view, 5, 10, Some(&owned(&mine(), 7, 2)));
    view.begin_giving(address());
    assert!(view.is_giving(address()));
    assert!(!view.is_confirmed(address(), now(11).mono));
    // A candidate came in between: the write that was tied to the revision before has failed.
    learn(&mut view, 6, 11, Some(&owned(&mine(), 7, 2)));
    assert!(!view.is_giving(address()));
    assert!(view.is_confirmed(address(), now(11).mono));
}

#[test]
fn who_was_taken_from_by_force_does_not_trust_its_clock() {
    let mut view = view();
    view.set_own_lease(held(2, 10));
    learn(&mut view, 5, 10, Some(&owned(&mine(), 7, 2)));
    learn(&mut view, 6, 11, Some(&offered(&on("n2"), "n1", 8)));
    learn(&mut view, 7, 11, Some(&owned(&on("n2"), 9, 1)));
    assert_eq!(
        view.own_lease().live_term(now(11).mono),
        Some(Term(2)),
        "it was given"
    );
    learn(&mut view, 8, 12, Some(&owned(&mine(), 10, 2)));
    let dirty = learn(&mut view, 9, 12, Some(&owned(&on("n2"), 11, 1)));
    assert_eq!(view.own_lease().live_term(now(12).mono), None);
    assert!(dirty.contains(&Subject::Lease), "{dirty:?}");
}

#[test]
fn an_offer_that_went_back_makes_its_candidate_deaf_for_a_while() {
    let mut view = view();
    let meant = on("n2");
    learn(&mut view, 5, 1, Some(&offered(&meant, "n1", 7)));
    let mut back = owned(&mine(), 8, 0);
    back.status.candidates = vec![meant.clone()];
    learn(&mut view, 6, 10, Some(&back));
    assert_eq!(view.deaf(address(), now(69).mono), [&meant]);
    assert_eq!(view.hears_again(address(), now(69).mono), Some(now(70).mono));
    assert_eq!(view.deaf(address(), now(70).mono), Vec::<&Candidate>::new());
    assert_eq!(view.hears_again(address(), now(70).mono), None);
}

#[test]
fn an_offer_that_a_third_took_makes_its_candidate_deaf_too() {
    let mut view = view();
    let (first, second) = (on("n2"), on("n3"));
    let mut taken = owned(&mine(), 8, 0);
    taken.status.candidates = vec![first.clone(), second.clone()];
    learn(&mut view, 5, 1, Some(&offered(&first, "n4", 7)));
    learn(&mut view, 6, 2, Some(&taken));
    let mut offer = offered(&second, "n1", 9);
    offer.status.candidates = taken.status.candidates.clone();
    learn(&mut view, 7, 3, Some(&offer));
    learn(
        &mut view,
        8,
        6,
        Some(&Binding {
            spec: owned(&mine(), 10, 0).spec,
            ..taken.clone()
        }),
    );
    assert_eq!(view.deaf(address(), now(7).mono), [&first, &second]);
    // One says something else of itself, the other takes it after all.
    let mut changed = first.clone();
    changed.priority = 1;
    let mut last = owned(&second, 11, 0);
    last.status.candidates = vec![changed, second];
    learn(&mut view, 9, 8, Some(&last));
    assert_eq!(view.deaf(address(), now(8).mono), Vec::<&Candidate>::new());
}

#[test]
fn nobody_hears_on_a_node_from_which_an_address_was_taken_by_force() {
    let mut view = view();
    let silent = on("n2");
    let mut before = owned(&silent, 5, 1);
    before.status.candidates = vec![silent.clone(), mine()];
    learn(&mut view, 1, 0, Some(&before));
    let mut after = owned(&mine(), 6, 1);
    after.status.candidates = before.status.candidates.clone();
    learn(&mut view, 2, 9, Some(&after));
    assert_eq!(view.deaf(address(), now(10).mono), [&silent]);
    // It says something of itself again.
    after.status.candidates[0].ready = false;
    learn(&mut view, 3, 11, Some(&after));
    assert_eq!(view.deaf(address(), now(12).mono), Vec::<&Candidate>::new());
}

#[test]
fn who_takes_what_it_was_offered_is_not_deaf() {
    let mut view = view();
    let meant = on("n2");
    learn(&mut view, 5, 1, Some(&offered(&meant, "n1", 7)));
    let mut taken = owned(&meant, 8, 1);
    taken.status.candidates = vec![meant];
    learn(&mut view, 6, 2, Some(&taken));
    assert_eq!(view.deaf(address(), now(2).mono), Vec::<&Candidate>::new());
}

#[test]
fn a_withdrawal_ends_with_what_it_was_for() {
    let mut view = view();
    learn(&mut view, 5, 1, Some(&owned(&mine(), 7, 0)));
    assert_eq!(
        view.set_withdrawal(address(), Some(Withdrawal::Done)),
        BTreeSet::from([Subject::Binding(address())])
    );
    learn(&mut view, 6, 1, Some(&owned(&mine(), 7, 1)));
    assert_eq!(view.withdrawal(address()), Some(Withdrawal::Done));
    learn(&mut view, 7, 1, Some(&offered(&on("n2"), "n1", 8)));
    assert_eq!(view.withdrawal(address()), None);
    view.set_withdrawal(address(), Some(Withdrawal::Begun));
    learn(&mut view, 8, 1, None);
    assert_eq!(view.withdrawal(address()), None);
}

#[test]
fn a_foreign_holder_is_watched_as_another_node_until_it_is_gone() {
    let mut view = view();
    learn(&mut view, 5, 1, Some(&owned(&mine(), 7, 0)));
    let dirty = view.set_own_lease(Own::Foreign("twin".to_owned()));
    assert!(dirty.contains(&other("n1")) && dirty.contains(&Subject::Binding(address())));
    assert!(view.is_foreign("n1") && !view.is_foreign("n2"));
    assert_eq!(view.awaited_of("n1").count(), 1);
    view.sighted("n1", lease(Some("twin"), 1, 3), now(2).mono);
    assert!(view.is_foreign("n1"));
    let dirty = view.sighted("n1", lease(None, 2, 4), now(9).mono);
    assert!(!view.is_foreign("n1") && dirty.contains(&Subject::Lease));
    assert_eq!(view.awaited_of("n1").count(), 0);
}

#[test]
fn what_a_foreign_holder_owns_here_makes_it_watched() {
    let mut view = view();
    view.set_own_lease(Own::Foreign("twin".to_owned()));
    let stranger = Owner {
        workload: "web-9".to_owned(),
        ..mine().as_owner(Term(1))
    };
    let mut theirs = owned(&mine(), 7, 1);
    theirs.spec.owner = Some(stranger);
    let dirty = learn(&mut view, 5, 1, Some(&theirs));
    assert!(dirty.contains(&other("n1")), "{dirty:?}");
}

#[test]
fn a_turn_begins_when_its_epoch_is_first_seen() {
    let mut view = view();
    assert_eq!(view.turn_of(address()), Mono::default());
    learn(&mut view, 5, 4, Some(&owned(&on("n2"), 7, 1)));
    learn(&mut view, 6, 5, Some(&owned(&on("n2"), 7, 2)));
    assert_eq!(view.turn_of(address()), now(4).mono);
    learn(&mut view, 7, 6, Some(&offered(&mine(), "n2", 8)));
    assert_eq!(view.turn_of(address()), now(6).mono);
}
