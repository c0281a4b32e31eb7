//! The built controller, on an embedded store and on a real API server: what is gone is freed, what lives is not.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

mod bed;

use buoy_api::binding::Epoch;
use buoy_api::ipam::AffinityOwner;
use buoy_api::names::binding_name;
use buoy_core::store::{Key, Prefix, Reply, StoreOp, Value};
use nix::sys::signal::Signal;

use crate::bed::{Bed, FLOATING, OTHER_FLOATING};

#[test]
fn what_pods_and_nodes_left_in_a_file_is_freed_and_what_lives_is_not() {
    let bed = Bed::embedded();
    bed.bind("web-0");
    frees_what_is_gone(&bed);
}

#[test]
fn an_address_that_a_node_without_an_agent_serves_is_contested() {
    let bed = Bed::embedded();
    bed.bind("web-0");
    contests_what_others_serve(&bed);
}

#[test]
fn in_kubernetes_it_does_the_same_with_exactly_its_rights() {
    let bed = Bed::kubernetes();
    bed.bind("web-0");
    contests_what_others_serve(&bed);
    frees_what_is_gone(&bed);
    bed.rights_are_exact();
}

fn frees_what_is_gone(bed: &Bed) {
    bed.publish("n1", "lives", bed.assign("n1", "lives"));
    bed.assign_some("n1", "leaked", 2);
    bed.assign("n2", "of-n2");
    let _controller = bed.controller();
    bed.until("the leak is freed", || !bed.has("leaked"));
    bed.until("the other too: its pod has no endpoint", || !bed.has("of-n2"));
    assert!(bed.has("lives"));
    let bindings =
        [FLOATING, OTHER_FLOATING].map(|floating| Key::Binding(binding_name(floating.parse().unwrap())));
    let is_bound = || bindings.iter().any(|binding| bed.get(binding.clone()).is_some());
    assert!(is_bound() && bed.get(Key::Lease("n2".to_owned())).is_some());

    bed.forget_node("n2");
    let of_n2 = AffinityOwner::Host("n2".to_owned());
    bed.until("its block is gone", || {
        !bed.blocks()
            .values()
            .any(|block| block.affinity.as_ref() == Some(&of_n2))
    });
    bed.until("the addresses are nobody's, and then not held any more", || {
        !is_bound()
    });
    bed.until("their reservations are gone", || {
        let mut handles = ["buoy-fip-10-65-1-3", "buoy-fip-10-65-1-4"].into_iter();
        handles.all(|handle| bed.get(Key::Handle(handle.to_owned())).is_none())
    });
    bed.until("its lease is gone", || {
        bed.get(Key::Lease("n2".to_owned())).is_none()
    });
    let floor = match bed.get(Key::EpochFloor).unwrap().value.unwrap() {
        Value::EpochFloor(floor) => floor.spec.epoch,
        other => panic!("{other:?}"),
    };
    assert_eq!(floor, Epoch(10), "one above the owner's: nobody is an owner, too");
    assert!(bed.has("lives"));
    let Reply::List(claims, _) = bed.store.run(&StoreOp::List(Prefix::AllAffinities)) else {
        panic!("no list")
    };
    assert_eq!(claims.len(), 1, "{claims:?}");
}

fn contests_what_others_serve(bed: &Bed) {
    let address = bed.assign("n1", "plain");
    bed.publish_asking("n1", "plain", address, FLOATING);
    let _controller = bed.controller();
    bed.until("it is said", || {
        bed.contested().is_some_and(|why| why.contains("n1"))
    });
    bed.mark("n1");
    bed.until("it is taken back", || bed.contested().is_none());
}

#[test]
fn of_two_controllers_one_works_and_the_other_takes_over() {
    let bed = Bed::embedded();
    let first = bed.controller();
    bed.until("one is elected", || bed.holder().is_some());
    let holder = bed.holder();
    let second = bed.controller();
    bed.until("the other stands by", || second.said("stands by"));
    bed.assign("n1", "leaked");
    bed.until("one of them works", || !bed.has("leaked"));
    bed.until("it is the first", || first.said("nobody uses"));
    assert!(!second.said("nobody uses"));
    assert_eq!(bed.holder(), holder);
    // Killed: its lease must run out.
    first.signal(Signal::SIGKILL);
    bed.until("the other took over", || {
        bed.holder().is_some() && bed.holder() != holder
    });
    bed.assign("n1", "leaked");
    bed.until("it works", || !bed.has("leaked"));
    // Ended in order: it leaves the lease to others.
    second.signal(Signal::SIGTERM);
    bed.until("the lease is nobody's", || bed.holder().is_none());
}

#[test]
fn a_pod_that_comes_back_in_time_keeps_its_address() {
    let bed = Bed::embedded();
    let address = bed.assign("n1", "slow");
    let controller = bed.controller();
    bed.until("it works", || bed.holder().is_some());
    bed.publish("n1", "slow", address);
    // A second leak shows that a grace has passed since.
    bed.assign("n1", "leaked");
    bed.until("the leak is freed", || !bed.has("leaked"));
    assert!(bed.has("slow"));
    drop(controller);
}
