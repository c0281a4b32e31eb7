use buoy_api::binding::Target;
use buoy_api::names::floating_handle;

use super::*;
use crate::edit::Change;
use crate::endpoint::{AttachmentId, Request};
use crate::fixtures::{
    FLOATING, binding, block, candidate, empty_view, endpoint_key, floating, mine, node, now, pod, put,
    record, spoil, theirs, view,
};
use crate::floating::claim::binding_key;
use crate::records;
use crate::store::{Delta, Key, Revision, Value};

fn of_pod(view: &View, attachment: &Attachment) -> Option<Duty> {
    owed(view, &Subject::Attachment(attachment.id.clone()), now(2000)).duty
}

fn of_address(view: &View, second: u64) -> Owed {
    owed(view, &Subject::Binding(floating(FLOATING)), now(second))
}

#[test]
fn an_attachment_gets_addresses_then_a_record_and_in_the_end_loses_both() {
    let mut view = view();
    let mut attachment = pod("web-0", 7);
    attachment.addresses = None;
    view.put_attachment(attachment.clone());
    assert_eq!(
        of_pod(&view, &attachment),
        Some(Duty::Allocate(Box::new(attachment.clone())))
    );
    let mut attachment = pod("web-0", 7);
    view.put_attachment(attachment.clone());
    assert_eq!(
        of_pod(&view, &attachment),
        Some(Duty::Publish(Box::new(attachment.clone())))
    );
    put(&mut view, Value::Endpoint(record(&attachment, &[])));
    assert_eq!(of_pod(&view, &attachment), None);
    attachment.phase = Phase::Removing;
    view.put_attachment(attachment.clone());
    assert_eq!(of_pod(&view, &attachment), None, "the kernel comes first");
    attachment.phase = Phase::Down;
    view.put_attachment(attachment.clone());
    assert_eq!(
        of_pod(&view, &attachment),
        Some(Duty::Retire(Box::new(attachment)))
    );
}

#[test]
fn an_older_attachment_of_an_endpoint_is_owed_nothing_but_its_end() {
    let mut view = view();
    let older = pod("web-0", 7);
    let mut newer = pod("web-0", 8);
    newer.id = AttachmentId {
        container: "c-newer".to_owned(),
        ..older.id.clone()
    };
    newer.order = 2;
    view.put_attachment(newer.clone());
    assert_eq!(of_pod(&view, &older), None);
    assert_eq!(of_pod(&view, &newer), Some(Duty::Publish(Box::new(newer))));
}

#[test]
fn a_record_on_its_way_is_not_written_again_because_the_link_came_up() {
    let (mut view, mut work) = (view(), Work::default());
    let mut attachment = pod("web-0", 7);
    attachment.phase = Phase::Adding;
    view.put_attachment(attachment.clone());
    let subject = Subject::Attachment(attachment.id.clone());
    work.look_at([subject.clone()]);
    let begun = work.turn(&view, now(2000));
    assert!(matches!(begun[..], [(_, Duty::Publish(_))]), "{begun:?}");
    work.ended(&subject, None, now(2000).mono);
    attachment.phase = Phase::Linked;
    view.put_attachment(attachment.clone());
    assert_eq!(work.turn(&view, now(2000)), []);
    let again = work.turn(&view, now(2002));
    assert_eq!(
        again,
        [(subject, Duty::Publish(Box::new(attachment)))],
        "it did not come"
    );
}

#[test]
fn an_attachment_without_a_link_has_no_record() {
    let mut view = view();
    let mut attachment = pod("web-0", 7);
    attachment.request.link = false;
    view.put_attachment(attachment.clone());
    assert_eq!(of_pod(&view, &attachment), None);
    attachment.addresses = None;
    view.put_attachment(attachment.clone());
    assert_eq!(
        of_pod(&view, &attachment),
        Some(Duty::Allocate(Box::new(attachment)))
    );
}

#[test]
fn the_node_marks_its_record_and_makes_a_new_store_ready() {
    let mut view = empty_view();
    view.addresses = vec!["10.0.0.1/24".parse().unwrap()];
    let of_node = |view: &View| owed(view, &Subject::Node, now(2000)).duty;
    assert_eq!(of_node(&view), Some(Duty::Node(view.addresses.clone())));
    let Change::Put(marked) = records::node(None, "n1", "0.1.0", &view.addresses) else {
        panic!()
    };
    put(&mut view, *marked);
    assert_eq!(of_node(&view), Some(Duty::Cluster));
    let Change::Put(ready) = records::cluster(None, "guid") else {
        panic!()
    };
    put(&mut view, *ready);
    assert_eq!(of_node(&view), None);
    put(&mut view, Value::Node(node("n1", "10.0.0.2/24")));
    assert_eq!(of_node(&view), Some(Duty::Node(view.addresses.clone())));
    spoil(&mut view, Key::Node("n1".to_owned()));
    assert_eq!(of_node(&view), None, "what does not decode is not written over");
}

#[test]
fn two_agents_of_one_name_do_not_fight_over_its_record() {
    let mut view = empty_view();
    let Change::Put(cluster) = records::cluster(None, "guid") else {
        panic!()
    };
    put(&mut view, *cluster);
    view.set_addresses(vec!["10.0.0.1/24".parse().unwrap()]);
    let of_node = |view: &View, second| owed(view, &Subject::Node, now(second));
    let write = Owed::from(Duty::Node(view.addresses.clone()));
    let mut revision = 0;
    let mut learn = |view: &mut View, address: &str, second| {
        revision += 1;
        let mine = records::node(None, "n1", "0.1.0", &[address.parse().unwrap()]);
        let Change::Put(value) = mine else { panic!() };
        let delta = Delta {
            key: Key::Node("n1".to_owned()),
            revision: Revision(revision),
            value: Some(Ok(*value)),
        };
        view.apply(delta, now(second).mono);
    };
    learn(&mut view, "10.0.0.2/24", 1);
    assert_eq!(of_node(&view, 1), write, "what it finds it mends");
    for second in [2, 4, 6] {
        learn(&mut view, "10.0.0.1/24", second);
        assert_eq!(of_node(&view, second), Owed::default());
        learn(&mut view, "10.0.0.2/24", second + 1);
        assert_eq!(of_node(&view, second + 1), write);
    }
    learn(&mut view, "10.0.0.1/24", 8);
    learn(&mut view, "10.0.0.2/24", 9);
    assert_eq!(of_node(&view, 9), Owed::later(now(63).mono), "the fourth time");
    assert_eq!(view.truce(now(9).mono), Some(now(63).mono));
    assert_eq!(of_node(&view, 63), write);
    learn(&mut view, "10.0.0.1/24", 63);
    assert_eq!(view.truce(now(63).mono), None);
    learn(&mut view, "10.0.0.2/24", 64);
    assert_eq!(of_node(&view, 64), write, "from here on it is counted anew");
}

#[test]
fn the_oldest_of_all_namespaces_makes_the_binding() {
    let mut view = view();
    let mut older = pod("db-0", 3);
    older.endpoint.namespace = "bank".to_owned();
    view.put_attachment(older.clone());
    let owner = candidate(&older).as_owner(buoy_api::binding::Term(0));
    let first = Duty::FirstClaim {
        floating: floating(FLOATING),
        namespace: "bank".to_owned(),
        owner,
        floor: Epoch(0),
    };
    assert_eq!(of_address(&view, 2000), Owed::from(first));
}

#[test]
fn an_owner_that_is_attached_anew_keeps_its_address_until_that_has_a_link() {
    let mut view = view();
    let (older, mut newer) = (pod("web-0", 7), pod("web-0", 8));
    put(&mut view, Value::Binding(binding(Some(&candidate(&older)))));
    newer.id.container = "c-newer".to_owned();
    newer.request.uid = "uid-newer".to_owned();
    newer.order = older.order + 1;
    newer.phase = Phase::Adding;
    newer.addresses = None;
    let duty = |view: &mut View, newer: &Attachment| {
        view.put_attachment(newer.clone());
        of_address(view, 2000).duty
    };
    let is_silent = |duty: &Option<Duty>| matches!(duty, None | Some(Duty::Candidates { .. }));
    assert!(is_silent(&duty(&mut view, &newer)), "it waits");
    let unwilling = Attachment {
        request: Request {
            floating: Vec::new(),
            ..newer.request.clone()
        },
        ..newer.clone()
    };
    let released = duty(&mut view, &unwilling);
    assert!(matches!(released, Some(Duty::Release { .. })), "{released:?}");
    newer.phase = Phase::Linked;
    newer.addresses = pod("web-0", 8).addresses;
    let handed = duty(&mut view, &newer);
    let expected = candidate(&newer).as_owner(buoy_api::binding::Term(0));
    assert!(
        matches!(&handed, Some(Duty::Claim { owner, .. }) if *owner == expected),
        "{handed:?}"
    );
}

/// The claim of whom it is meant for is tied to the record as it was offered.
#[test]
fn who_offered_an_address_says_nothing_until_it_is_taken() {
    let mut view = view();
    let said = |owed: Owed| match owed.duty {
        Some(Duty::Candidates { candidates, .. }) => (candidates, owed.grace),
        other => panic!("{other:?}"),
    };
    let mut offered = binding(None);
    offered.spec.offer = Some(Offer {
        to: Target {
            node: Some("n2".to_owned()),
            workload: "db-0".to_owned(),
            endpoint: None,
        },
        from: "n1".to_owned(),
    });
    put(&mut view, Value::Binding(offered.clone()));
    assert_eq!(said(of_address(&view, 0)), (vec![mine()], SETTLING));
    put(&mut view, Value::Binding(binding(Some(&theirs()))));
    assert_eq!(said(of_address(&view, 0)), (vec![mine()], Duration::ZERO));
    // What another node offers is not for this one to wait for.
    offered.spec.offer.as_mut().unwrap().from = "n3".to_owned();
    put(&mut view, Value::Binding(offered));
    assert_eq!(said(of_address(&view, 0)), (vec![mine()], Duration::ZERO));
}

#[test]
fn a_binding_that_does_not_decode_is_left_alone() {
    let mut view = view();
    spoil(&mut view, binding_key(floating(FLOATING)));
    assert_eq!(of_address(&view, 2000), Owed::default());
}

#[test]
fn an_address_that_nobody_wants_is_held_and_then_collected_with_its_reservation() {
    let mut view = empty_view();
    let seen = binding(None);
    put(&mut view, Value::Binding(seen.clone()));
    assert_eq!(
        of_address(&view, 1599),
        Owed {
            again: Some(now(1600).mono),
            ..Owed::default()
        }
    );
    let handle = floating_handle(floating(FLOATING).addr());
    put(
        &mut view,
        Value::Block(block("172.16.1.0/29", 3, Some(&handle), &[])),
    );
    let collect = Duty::Collect {
        floating: floating(FLOATING),
        seen: Box::new((seen, crate::store::Revision(3))),
        reservation: Some(4),
    };
    assert_eq!(of_address(&view, 1600), Owed::from(collect));
}

#[test]
fn a_reservation_without_a_binding_is_freed_after_a_grace_unless_somebody_asks() {
    let mut view = empty_view();
    let handle = floating_handle(floating(FLOATING).addr());
    put(
        &mut view,
        Value::Block(block("172.16.1.0/29", 3, Some(&handle), &[])),
    );
    let free = Duty::Free {
        floating: floating(FLOATING),
        stamp: 4,
    };
    assert_eq!(
        of_address(&view, 0),
        Owed {
            duty: Some(free),
            again: None,
            grace: ORPHAN_GRACE,
            needs_lease: false,
        }
    );
    // It asks, though no pool lets it have the address.
    view.put_attachment(pod("web-0", 7));
    assert_eq!(of_address(&view, 0), Owed::default());
}

#[test]
fn a_live_edit_takes_a_request_back() {
    let mut view = view();
    let attachment = pod("web-0", 7);
    assert!(of_address(&view, 0).duty.is_some());
    let dirty = put(&mut view, Value::Endpoint(record(&attachment, &[])));
    assert!(dirty.contains(&Subject::Binding(floating(FLOATING))));
    assert_eq!(of_address(&view, 0), Owed::default());
    assert_eq!(endpoint_key(&attachment), records::endpoint_key(&attachment));
}
