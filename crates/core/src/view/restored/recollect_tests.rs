use buoy_api::binding::{Candidate, Epoch, Owner};

use super::*;
use crate::calc::rows;
use crate::desired::Row;
use crate::duty::{Duty, Owed, owed};
use crate::fixtures::{FLOATING, binding, block, floating, mine, now, pod, put, spoil, theirs, view};
use crate::floating::lease::{Held, Own};

const BEGAN: u64 = 100;

fn address() -> FloatingIp {
    floating(FLOATING)
}

/// The kernel's route has this epoch.
fn served(epoch: u64) -> Claimed {
    Claimed {
        floating: address(),
        epoch: Epoch(epoch),
        internal: "10.65.0.7".parse().unwrap(),
    }
}

fn recollect(view: &mut View, claimed: Claimed) -> Option<BTreeSet<Subject>> {
    view.recollect([claimed], false, now(BEGAN).mono)
}

fn due(view: &mut View) -> Owed {
    view.set_own_lease(Own::Held(Held {
        term: Term(4),
        revision: Revision(1),
        began: now(BEGAN).mono,
    }));
    owed(view, &Subject::Binding(address()), now(BEGAN))
}

fn owner(view: &View) -> Option<&Owner> {
    view.bindings.get(&address())?.spec.owner.as_ref()
}

#[test]
fn a_store_that_is_as_far_as_the_kernel_was_not_restored() {
    for said in [7, 8] {
        let mut view = view();
        let mut known = binding(Some(&theirs()));
        known.spec.epoch = Epoch(said);
        put(&mut view, Value::Binding(known.clone()));
        assert_eq!(recollect(&mut view, served(7)), None);
        assert_eq!(view.bindings.get(&address()), Some(&known));
        assert!(!view.is_held());
    }
}

#[test]
fn what_the_kernel_has_and_the_store_forgot_stays_and_is_written_again() {
    let others = |owner: Candidate| Some(binding(Some(&owner)));
    for said in [None, others(theirs()), others(mine()), Some(binding(None))] {
        let mut view = view();
        if let Some(said) = said.clone() {
            put(&mut view, Value::Binding(said));
        }
        let concerned = recollect(&mut view, served(9)).unwrap();
        assert!(concerned.contains(&Subject::Binding(address())), "{said:?}");
        assert!(view.is_held() && view.held_until().is_some());
        assert_eq!(owner(&view), Some(&mine().as_owner(Term(0))));
        let Some(Duty::Reassert { above, overrules, .. }) = due(&mut view).duty else {
            panic!("it is written again: {said:?}")
        };
        assert_eq!((above, overrules), (Epoch(9), true));
        let programmed = rows(&view, &Subject::Binding(address()));
        assert!(
            programmed
                .iter()
                .any(|row| matches!(row, Row::Route(key, _) if key.epoch() == Some(Epoch(9)))),
            "it stays in the kernel: {programmed:?}"
        );
    }
}

#[test]
fn of_a_workload_that_is_gone_the_epoch_is_remembered() {
    let mut view = view();
    view.remove_attachment(&pod("web-0", 7).id);
    put(&mut view, Value::Binding(binding(Some(&theirs()))));
    assert!(recollect(&mut view, served(9)).is_some());
    assert_eq!(
        owner(&view),
        Some(&theirs().as_owner(Term(0))),
        "as the store says"
    );
    assert_eq!(view.epoch_floor_of(address()), Epoch(9));
    assert_eq!(due(&mut view), Owed::default());
}

#[test]
fn a_record_that_does_not_decode_proves_nothing() {
    let mut view = view();
    spoil(&mut view, binding_key(address()));
    assert_eq!(recollect(&mut view, served(9)), None);
}

#[test]
fn what_is_known_to_be_restored_is_waited_for() {
    let mut view = view();
    let said = binding(Some(&theirs()));
    put(&mut view, Value::Binding(said.clone()));
    let says = [("node", "n1"), ("namespace", "shop"), ("pod", "web-9")];
    put(
        &mut view,
        Value::Block(block("10.65.0.0/26", 9, Some("net.c-web-9"), &says)),
    );
    assert!(view.recollect([], true, now(BEGAN).mono).is_some());
    assert!(view.is_held());
    assert_eq!(due(&mut view), Owed::default(), "nothing is taken");
    assert_eq!(view.bindings.get(&address()), Some(&said), "as the store says");
    assert_eq!(
        view.revenants(),
        BTreeSet::new(),
        "somebody else may have made it"
    );
}
