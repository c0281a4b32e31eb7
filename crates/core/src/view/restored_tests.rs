use buoy_api::binding::{Candidate, EpochFloor, EpochFloorSpec, Term};
use buoy_api::meta::ObjectMeta;

use super::*;
use crate::duty::{Duty, Owed, owed};
use crate::edit::Change;
use crate::fixtures::{
    FLOATING, binding, block, endpoint_key, floating, mine, now, pod, pool, put, record, theirs, view,
};
use crate::floating::claim;
use crate::floating::lease::{Held, Own};
use crate::records;
use crate::store::{Key, Revision};

const BEGAN: u64 = 100;

fn address() -> FloatingIp {
    floating(FLOATING)
}

/// A view that knows who owned the address, and whose store was restored then.
fn restored(owner: Option<&Candidate>) -> View {
    let mut view = view();
    put(&mut view, Value::Binding(binding(owner)));
    view.restored();
    view
}

fn hold_the_lease(view: &mut View, term: u64) {
    view.set_own_lease(Own::Held(Held {
        term: Term(term),
        revision: Revision(1),
        began: now(BEGAN).mono,
    }));
}

/// The store has this instead, or nothing.
fn says(view: &mut View, says: Option<Binding>) {
    let delta = Delta {
        key: claim::binding_key(address()),
        revision: Revision(2),
        value: says.map(|binding| Ok(Value::Binding(binding))),
    };
    view.apply(delta, now(BEGAN).mono);
}

fn at(epoch: u64, owner: Option<&Candidate>) -> Binding {
    let mut binding = binding(owner);
    binding.spec.epoch = Epoch(epoch);
    binding
}

fn due(view: &View, second: u64) -> Owed {
    owed(view, &Subject::Binding(address()), now(second))
}

fn end(view: &mut View) {
    view.end_hold(now(BEGAN + RESTORE_HOLD.as_secs()).mono);
}

#[test]
fn what_the_store_forgot_stays_in_force_and_is_written_again() {
    for instead in [
        None,
        Some(at(5, Some(&theirs()))),
        Some(at(7, None)),
        Some(at(3, None)),
    ] {
        let mut view = restored(Some(&mine()));
        assert_eq!(due(&view, BEGAN), Owed::default(), "nothing was heard yet");
        says(&mut view, instead);
        assert_eq!(view.bindings.get(&address()), Some(&binding(Some(&mine()))));
        assert!(
            due(&view, BEGAN).needs_lease,
            "only an owner whose lease stands writes"
        );
        hold_the_lease(&mut view, 4);
        assert!(!view.is_confirmed(address(), now(BEGAN).mono));
        let again = Duty::Reassert {
            floating: address(),
            before: Box::new(binding(Some(&mine()))),
            above: Epoch(7),
            term: Term(4),
            overrules: true,
        };
        assert_eq!(due(&view, BEGAN), again.into());
        says(&mut view, Some(at(8, Some(&mine()))));
        assert_eq!(due(&view, BEGAN), Owed::default());
        assert_eq!(
            view.bindings.get(&address()).map(|b| b.spec.epoch),
            Some(Epoch(8))
        );
    }
}

#[test]
fn nothing_is_over_before_everything_was_heard() {
    let mut view = restored(Some(&mine()));
    let at = |second: u64| now(second).mono;
    assert!(view.is_held());
    assert_eq!(view.held_until(), None, "time alone ends nothing");
    assert_eq!(
        view.may_allocate(at(BEGAN + 60)),
        Err(IpamError::Restored { left: None })
    );
    view.contact_lost();
    assert_eq!(view.held_until(), None);
    view.listed(at(BEGAN + 60));
    assert_eq!(view.held_until(), Some(at(BEGAN + 60).after(RESTORE_HOLD)));
    let left = Some(RESTORE_HOLD - Duration::from_secs(5));
    assert_eq!(
        view.may_allocate(at(BEGAN + 65)),
        Err(IpamError::Restored { left })
    );
    view.listed(at(BEGAN + 70));
    assert_eq!(view.held_until(), Some(at(BEGAN + 60).after(RESTORE_HOLD)));
    view.contact_lost();
    assert!(view.is_held());
    assert_eq!(view.held_until(), None, "nobody wrote meanwhile");
    view.listed(at(BEGAN + 90));
    assert_eq!(view.held_until(), Some(at(BEGAN + 90).after(RESTORE_HOLD)));
    view.end_hold(at(BEGAN + 110));
    view.contact_lost();
    view.listed(at(BEGAN + 120));
    assert!(!view.is_held(), "an outage is no restore");
    assert_eq!(view.may_allocate(at(BEGAN + 120)), Ok(()));
}

#[test]
fn a_record_that_says_the_same_is_left_alone() {
    let mut view = restored(Some(&mine()));
    hold_the_lease(&mut view, 0);
    says(&mut view, Some(binding(Some(&mine()))));
    assert_eq!(due(&view, BEGAN), Owed::default());
    end(&mut view);
    assert!(!matches!(
        due(&view, BEGAN + 30).duty,
        Some(Duty::Reassert { .. })
    ));
}

#[test]
fn while_others_write_again_what_they_have_nothing_is_taken() {
    let mut view = restored(Some(&theirs()));
    hold_the_lease(&mut view, 1);
    says(&mut view, None);
    assert_eq!(due(&view, BEGAN + 1), Owed::default());
    assert_eq!(
        owed(&view, &Subject::OtherNode("n2".to_owned()), now(BEGAN + 1)),
        Owed::default()
    );
    assert_eq!(
        view.bindings.get(&address()).and_then(|b| b.spec.owner.clone()),
        Some(theirs().as_owner(Term(0))),
        "routes to it stay"
    );
    end(&mut view);
    assert_eq!(view.bindings.get(&address()), None);
    let Some(Duty::FirstClaim { floor, .. }) = due(&view, BEGAN + 1).duty else {
        panic!("nobody wrote it again: {:?}", due(&view, BEGAN + 1))
    };
    assert_eq!(floor, Epoch(7), "epochs never fall");
}

#[test]
fn whoever_the_store_names_in_the_end_lifts_the_epoch() {
    let mut view = restored(Some(&theirs()));
    says(&mut view, Some(at(5, Some(&mine()))));
    end(&mut view);
    hold_the_lease(&mut view, 2);
    let lifted = Duty::Reassert {
        floating: address(),
        before: Box::new(at(5, Some(&mine()))),
        above: Epoch(7),
        term: Term(2),
        overrules: false,
    };
    assert_eq!(due(&view, BEGAN + 1), lifted.into());
    says(&mut view, Some(at(8, Some(&mine()))));
    assert!(!matches!(due(&view, BEGAN + 1).duty, Some(Duty::Reassert { .. })));
}

#[test]
fn a_newer_owner_is_believed_and_the_loss_is_told() {
    let mut view = restored(Some(&mine()));
    says(&mut view, Some(at(9, Some(&theirs()))));
    assert_eq!(
        view.bindings.get(&address()).map(|b| b.spec.epoch),
        Some(Epoch(9))
    );
    let lost: Vec<_> = view.lost_by_restore().collect();
    assert_eq!(lost, [(address(), "db-0 on node n2".to_owned())]);
}

#[test]
fn what_could_not_be_written_in_time_waits_until_somebody_else_has_it() {
    let mut view = restored(Some(&mine()));
    says(&mut view, None);
    end(&mut view);
    assert!(due(&view, BEGAN + 60).needs_lease);
    assert!(view.bindings.get(&address()).is_some(), "it stays programmed");
    says(&mut view, Some(at(1, Some(&theirs()))));
    assert_eq!(
        view.bindings.get(&address()).map(|b| b.spec.epoch),
        Some(Epoch(1))
    );
    assert_eq!(view.lost_by_restore().count(), 1);
    assert_eq!(view.epoch_floor_of(address()), Epoch(7), "epochs never fall");
}

#[test]
fn what_is_somebody_elses_when_the_hold_ends_is_told() {
    let mut view = restored(Some(&mine()));
    says(&mut view, Some(at(5, Some(&theirs()))));
    assert_eq!(view.lost_by_restore().count(), 0, "it may be written again");
    end(&mut view);
    let lost: Vec<_> = view.lost_by_restore().collect();
    assert_eq!(lost, [(address(), "db-0 on node n2".to_owned())]);
    says(&mut view, Some(at(8, Some(&mine()))));
    assert_eq!(view.lost_by_restore().count(), 0, "it is back");
}

#[test]
fn nothing_is_remembered_for_a_workload_that_is_gone() {
    for ends_first in [true, false] {
        let mut view = restored(Some(&mine()));
        says(&mut view, None);
        if ends_first {
            end(&mut view);
        }
        view.remove_attachment(&pod("web-0", 7).id);
        assert_eq!(view.forget(now(BEGAN).mono).is_empty(), !ends_first);
        if !ends_first {
            assert!(view.bindings.contains(&address()), "somebody may know more");
            end(&mut view);
        }
        assert!(!view.bindings.contains(&address()), "it is nobody's");
        assert_eq!(view.epoch_floor_of(address()), Epoch(7), "epochs never fall");
        assert_eq!(view.forget(now(BEGAN).mono), BTreeSet::new());
    }
}

#[test]
fn a_second_restore_takes_nothing_from_what_is_remembered() {
    let floor = |view: &mut View, epoch: u64| {
        let spec = EpochFloorSpec {
            epoch: Epoch(epoch),
            ..EpochFloorSpec::default()
        };
        let floor = EpochFloor::new(ObjectMeta::named("default"), spec);
        put(view, Value::EpochFloor(floor));
    };
    let mut view = view();
    floor(&mut view, 9);
    put(&mut view, Value::Binding(binding(Some(&mine()))));
    view.restored();
    floor(&mut view, 3);
    says(&mut view, None);
    view.restored();
    hold_the_lease(&mut view, 4);
    let Some(Duty::Reassert { before, above, .. }) = due(&view, BEGAN).duty else {
        panic!("what the first copy lacked is told no second time")
    };
    assert_eq!((*before, above), (binding(Some(&mine())), Epoch(7)));
    assert_eq!(view.epoch_floor_of(address()), Epoch(9));
}

#[test]
fn a_record_is_lifted_above_what_is_remembered() {
    let write = |found: Option<Binding>, overrules| {
        let found = found.map(Value::Binding);
        claim::reasserted(
            found.as_ref(),
            &binding(Some(&mine())),
            Epoch(7),
            Term(3),
            overrules,
        )
    };
    for (found, overrules) in [
        (None, false),
        (Some(at(7, None)), false),
        (Some(at(2, Some(&mine()))), false),
        (Some(at(7, Some(&theirs()))), true),
    ] {
        let Change::Put(written) = write(found.clone(), overrules) else {
            panic!("kept: {found:?}")
        };
        let Value::Binding(written) = *written else {
            panic!("a binding")
        };
        assert_eq!(written.spec.epoch, Epoch(8));
        assert_eq!(written.spec.owner, Some(mine().as_owner(Term(3))));
        assert_eq!(written.spec.released, None);
    }
    assert_eq!(write(Some(at(7, Some(&theirs()))), false), Change::Keep);
    assert_eq!(write(Some(at(8, Some(&theirs()))), true), Change::Keep);
}

#[test]
fn an_endpoint_is_published_again_as_it_was() {
    let pod = pod("web-0", 7);
    let before = record(&pod, &[("10.65.0.7", FLOATING), ("10.65.0.7", "172.16.1.4")]);
    let older = record(&pod, &[]);
    for instead in [None, Some(older)] {
        let mut view = view();
        put(&mut view, Value::Endpoint(before.clone()));
        view.restored();
        let tell = |view: &mut View, value: Option<WorkloadEndpoint>| {
            let delta = Delta {
                key: endpoint_key(&pod),
                revision: Revision(2),
                value: value.map(|record| Ok(Value::Endpoint(record))),
            };
            view.apply(delta, now(BEGAN).mono);
        };
        tell(&mut view, instead.clone());
        assert_eq!(
            view.asked_by(&pod.endpoint).count(),
            2,
            "it asks for what it asked for"
        );
        let subject = Subject::Attachment(pod.id.clone());
        let again = Duty::Republish(Box::new(before.clone()));
        assert_eq!(owed(&view, &subject, now(BEGAN)), again.into());
        let found = instead.map(Value::Endpoint);
        let Change::Put(written) = records::republished(found.as_ref(), &before) else {
            panic!("it is not as it was")
        };
        assert_eq!(records::republished(Some(&written), &before), Change::Keep);
        tell(&mut view, Some(before.clone()));
        assert_eq!(owed(&view, &subject, now(BEGAN)), Owed::default());
        end(&mut view);
        let edited = record(&pod, &[]);
        tell(&mut view, Some(edited));
        assert_eq!(view.asked_by(&pod.endpoint).count(), 0, "later edits count");
    }
}

#[test]
fn the_record_of_another_container_is_not_written_over() {
    let before = pod("web-0", 7);
    for is_held in [true, false] {
        let mut view = view();
        put(&mut view, Value::Endpoint(record(&before, &[])));
        view.restored();
        let tell = |view: &mut View, value: Option<WorkloadEndpoint>| {
            let delta = Delta {
                key: endpoint_key(&before),
                revision: Revision(2),
                value: value.map(|record| Ok(Value::Endpoint(record))),
            };
            view.apply(delta, now(BEGAN).mono);
        };
        tell(&mut view, None);
        if !is_held {
            end(&mut view);
        }
        let mut anew = before.clone();
        anew.id.container = "c-anew".to_owned();
        anew.order += 1;
        view.put_attachment(anew.clone());
        assert_eq!(view.to_republish(&anew), None);
        tell(&mut view, Some(record(&anew, &[("10.65.0.7", FLOATING)])));
        assert_eq!(view.asked_by(&anew.endpoint).count(), 1, "it counts");
        let subject = Subject::Attachment(anew.id.clone());
        assert_eq!(owed(&view, &subject, now(BEGAN)), Owed::default());
    }
}

#[test]
fn the_record_of_a_container_that_is_gone_is_as_the_store_says() {
    let pod = pod("web-0", 7);
    let mut view = view();
    put(&mut view, Value::Endpoint(record(&pod, &[])));
    view.restored();
    let delta = Delta {
        key: endpoint_key(&pod),
        revision: Revision(2),
        value: None,
    };
    view.apply(delta, now(BEGAN).mono);
    view.remove_attachment(&pod.id);
    assert!(view.endpoints.contains(&pod.endpoint));
    end(&mut view);
    assert!(!view.endpoints.contains(&pod.endpoint));
}

#[test]
fn an_address_that_no_block_gives_is_taken_again() {
    let pod = pod("web-0", 7);
    let subject = Subject::Attachment(pod.id.clone());
    let mut view = view();
    put(&mut view, Value::Endpoint(record(&pod, &[])));
    assert_eq!(
        owed(&view, &subject, now(1)),
        Owed::default(),
        "no pool, no block"
    );
    let mut workloads = pool("10.65.0.0/16");
    workloads.metadata.name = "workloads".to_owned();
    let dirty = put(&mut view, Value::Pool(workloads));
    assert!(dirty.contains(&subject));
    let again = owed(&view, &subject, now(1));
    assert_eq!(again.duty, Some(Duty::Reallocate(Box::new(pod.clone()))));
    assert!(!again.grace.is_zero(), "it may be on its way");
    view.restored();
    assert!(owed(&view, &subject, now(BEGAN)).grace.is_zero());
    put(
        &mut view,
        Value::Block(block("10.65.0.0/26", 7, Some("net.other"), &[])),
    );
    assert!(owed(&view, &subject, now(BEGAN)).duty.is_some());
    let handle = pod.request.handle(&pod.id);
    put(
        &mut view,
        Value::Block(block("10.65.0.0/26", 7, Some(&handle), &[])),
    );
    assert_eq!(owed(&view, &subject, now(BEGAN)), Owed::default());
    let elsewhere = put(&mut view, Value::Block(block("10.65.0.64/26", 7, None, &[])));
    assert!(!elsewhere.contains(&subject), "no block of its own");
    let lost = put(&mut view, Value::Block(block("10.65.0.0/26", 8, None, &[])));
    assert!(lost.contains(&subject), "who loses an address looks for it");
    assert!(owed(&view, &subject, now(BEGAN)).duty.is_some());
    let moved = Attachment {
        addresses: Some(vec!["10.65.0.70/26".parse().unwrap()]),
        ..pod.clone()
    };
    view.put_attachment(moved);
    let before = put(&mut view, Value::Block(block("10.65.0.0/26", 9, None, &[])));
    assert!(!before.contains(&subject), "it has another address now");
    view.remove_attachment(&pod.id);
    let after = put(&mut view, Value::Block(block("10.65.0.64/26", 9, None, &[])));
    assert!(!after.contains(&subject), "it is gone");
}

#[test]
fn workloads_that_come_back_with_the_copy_are_told() {
    let says =
        |pod: &str| [("namespace", "shop"), ("node", "n1"), ("pod", pod)].map(|(k, v)| (k, v.to_owned()));
    let given = |cidr: &str, handle: &str, says: &[(&str, String)]| {
        let says: Vec<(&str, &str)> = says.iter().map(|(k, v)| (*k, v.as_str())).collect();
        Value::Block(block(cidr, 7, Some(handle), &says))
    };
    let mut view = view();
    put(&mut view, given("10.65.0.64/26", "net.c-known", &says("known-0")));
    view.restored();
    assert_eq!(view.revenants(), BTreeSet::new());
    let tunnel = [
        ("node", "n1".to_owned()),
        ("type", "vxlanTunnelAddress".to_owned()),
    ];
    let elsewhere = [("node", "n2".to_owned()), ("pod", "x".to_owned())];
    for (cidr, handle, says) in [
        ("10.65.0.0/26", "net.c-web-0", &says("web-0")[..]),
        ("10.65.0.64/26", "net.c-known", &says("known-0")),
        ("10.65.0.128/26", "my.net.c-gone", &says("gone-0")),
        ("10.65.0.192/26", "vxlan-tunnel-addr-n1.x", &tunnel),
        ("10.65.1.0/26", "net.c-other", &elsewhere),
    ] {
        put(&mut view, given(cidr, handle, says));
    }
    let gone = Revenant {
        network: "my.net".to_owned(),
        container: "c-gone".to_owned(),
        ifname: "eth0".to_owned(),
        pod: Some(("shop".to_owned(), "gone-0".to_owned())),
    };
    let revenants = BTreeSet::from([gone]);
    assert_eq!(
        view.revenants(),
        revenants,
        "the others live, or are not this node's"
    );
    view.restored();
    assert_eq!(view.revenants(), revenants, "a second restore makes nobody live");
}

#[test]
fn a_key_names_its_record() {
    let pod = pod("web-0", 7);
    let Key::Endpoint { namespace, name } = records::key_of(&record(&pod, &[])) else {
        panic!("an endpoint's key")
    };
    assert_eq!((namespace, name), (pod.endpoint.namespace, pod.endpoint.name));
}
