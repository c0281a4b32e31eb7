use buoy_api::binding::EpochFloorSpec;
use buoy_api::meta::{Extra, ObjectMeta};

use super::*;
use crate::endpoint::Phase;
use crate::fixtures::{
    FLOATING, binding, block, candidate, empty_view, endpoint, endpoint_key, floating, mine, pod, pool, put,
    record, spoil, view,
};
use crate::store::Revision;

fn address() -> Subject {
    Subject::Binding(floating(FLOATING))
}

#[test]
fn a_record_that_stops_decoding_keeps_its_last_value_and_is_reported() {
    let mut view = view();
    let key = Key::Pool("floating".to_owned());
    spoil(&mut view, key.clone());
    assert_eq!(
        view.pools.get("floating").map(|pool| pool.spec.cidr),
        Some("172.16.1.0/24".parse().unwrap())
    );
    assert_eq!(
        view.bad.get(&key).map(|bad| bad.reason.as_str()),
        Some("line 3: not a number")
    );
    assert!(
        view.pools.versioned("floating").is_none(),
        "it must not be written over"
    );
    put(&mut view, Value::Pool(pool("172.17.0.0/24")));
    assert!(view.bad.is_empty() && view.pools.versioned("floating").is_some());
}

#[test]
fn one_that_never_decoded_is_there_without_a_value() {
    let mut view = empty_view();
    spoil(&mut view, Key::Pool("floating".to_owned()));
    assert!(view.pools.contains("floating") && view.pools.get("floating").is_none());
    view.apply(
        Delta {
            key: Key::Pool("floating".to_owned()),
            revision: Revision(9),
            value: None,
        },
        crate::time::Mono::default(),
    );
    assert!(!view.pools.contains("floating") && view.bad.is_empty());
}

#[test]
fn endpoints_of_other_nodes_are_not_kept() {
    let mut view = empty_view();
    let mut elsewhere = record(&pod("web-0", 7), &[]);
    elsewhere.spec.node = "n2".to_owned();
    put(&mut view, Value::Endpoint(elsewhere.clone()));
    assert!(!view.endpoints.contains(&endpoint("web-0")));
    put(&mut view, Value::Endpoint(record(&pod("web-0", 7), &[])));
    assert!(view.endpoints.contains(&endpoint("web-0")));
    put(&mut view, Value::Endpoint(elsewhere));
    assert!(!view.endpoints.contains(&endpoint("web-0")), "it moved away");
}

#[test]
fn the_record_of_an_earlier_container_says_nothing_about_this_one() {
    let mut view = view();
    let attachment = pod("web-0", 7);
    let mut before = record(&attachment, &[("10.65.0.7", "172.16.1.9")]);
    before.spec.container_id = "c-before".to_owned();
    put(&mut view, Value::Endpoint(before));
    assert!(view.record_of(&attachment).is_none());
    assert_eq!(
        view.asked_by(&attachment.endpoint).collect::<Vec<_>>(),
        vec![floating(FLOATING)]
    );
    put(
        &mut view,
        Value::Endpoint(record(
            &attachment,
            &[("10.65.0.7", "172.16.1.9"), ("", "gibberish")],
        )),
    );
    assert_eq!(
        view.asked_by(&attachment.endpoint).collect::<Vec<_>>(),
        vec![floating("172.16.1.9")]
    );
    assert_eq!(view.asking(floating(FLOATING)).count(), 0);
}

#[test]
fn requests_that_cannot_be_read_take_nothing_away() {
    let mut view = view();
    let attachment = pod("web-0", 7);
    let asked = |view: &View| view.asked_by(&attachment.endpoint).collect::<Vec<_>>();
    for (nats, expected) in [
        (&[("10.65.0.7", "172.16.1.9")][..], vec![floating("172.16.1.9")]),
        (&[("", "no list")], vec![floating("172.16.1.9")]),
        (&[], vec![]),
        (&[("", "no list")], vec![]),
    ] {
        put(&mut view, Value::Endpoint(record(&attachment, nats)));
        assert_eq!(asked(&view), expected);
    }
}

#[test]
fn the_newest_attachment_that_stays_is_the_endpoints() {
    let mut view = view();
    let older = pod("web-0", 7);
    let mut newer = pod("web-0", 8);
    newer.id.container = "c-newer".to_owned();
    newer.order = 2;
    view.put_attachment(newer.clone());
    assert!(view.is_current(&newer) && !view.is_current(&older));
    newer.phase = Phase::Removing;
    let dirty = view.put_attachment(newer.clone());
    assert!(view.is_current(&older));
    assert!(dirty.contains(&Subject::Attachment(older.id.clone())));
    view.remove_attachment(&newer.id);
    assert!(view.is_current(&older));
    assert_eq!(
        view.netns_of("10.65.0.7".parse().unwrap()),
        Some(older.request.netns)
    );
    assert_eq!(view.netns_of("10.65.0.8".parse().unwrap()), None);
}

#[test]
fn a_container_that_comes_again_under_another_name_leaves_the_first() {
    let mut view = view();
    let mut renamed = pod("web-0", 7);
    renamed.endpoint = endpoint("web-9");
    let dirty = view.put_attachment(renamed);
    assert!(view.attachment_of(&endpoint("web-0")).is_none());
    assert!(view.attachment_of(&endpoint("web-9")).is_some());
    assert!(dirty.contains(&Subject::Endpoint(endpoint("web-0"))));
}

#[test]
fn an_owner_that_asks_no_more_still_concerns_its_address() {
    let mut view = view();
    let attachment = pod("web-0", 7);
    put(&mut view, Value::Binding(binding(Some(&candidate(&attachment)))));
    put(&mut view, Value::Endpoint(record(&attachment, &[])));
    assert!(view.remove_attachment(&attachment.id).contains(&address()));
    put(&mut view, Value::Binding(binding(None)));
    view.put_attachment(attachment.clone());
    put(&mut view, Value::Endpoint(record(&attachment, &[])));
    assert!(!view.remove_attachment(&attachment.id).contains(&address()));
}

#[test]
fn a_change_concerns_those_that_depend_on_it() {
    let mut view = view();
    let attachment = pod("web-0", 7);
    assert!(put(&mut view, Value::Pool(pool("172.16.0.0/16"))).contains(&address()));
    assert!(put(&mut view, Value::Block(block("172.16.1.0/29", 1, None, &[]))).contains(&address()));
    assert!(!put(&mut view, Value::Block(block("172.16.2.0/29", 1, None, &[]))).contains(&address()));
    let own = put(&mut view, Value::Endpoint(record(&attachment, &[])));
    assert!(own.contains(&Subject::Endpoint(attachment.endpoint.clone())));
    assert!(own.contains(&Subject::Attachment(attachment.id.clone())));
    let spec = EpochFloorSpec {
        epoch: Epoch(3),
        extra: Extra::new(),
    };
    let floor = EpochFloor::new(ObjectMeta::named("default"), spec);
    assert!(
        put(&mut view, Value::EpochFloor(floor)).is_empty(),
        "nobody asks any more"
    );
    assert_eq!(view.epoch_floor(), Epoch(3));
}

#[test]
fn the_block_of_an_address_is_the_one_that_holds_it() {
    let mut view = empty_view();
    for cidr in ["172.16.1.0/29", "172.16.1.16/29"] {
        put(&mut view, Value::Block(block(cidr, 1, None, &[])));
    }
    let holds = |text: &str| {
        view.block_of(text.parse().unwrap())
            .map(|block| block.cidr.to_string())
    };
    for (address, block) in [
        ("172.16.0.255", None),
        ("172.16.1.0", Some("172.16.1.0/29")),
        ("172.16.1.7", Some("172.16.1.0/29")),
        ("172.16.1.8", None),
        ("172.16.1.23", Some("172.16.1.16/29")),
        ("2001:db8::1", None),
    ] {
        assert_eq!(holds(address).as_deref(), block, "{address}");
    }
}

#[test]
fn a_binding_under_a_name_that_is_no_address_is_passed_over() {
    let mut view = empty_view();
    let value = Some(Ok(Value::Binding(binding(None))));
    let key = Key::Binding("172-16-1-03".to_owned());
    assert!(
        view.apply(
            Delta {
                key,
                revision: Revision(1),
                value
            },
            crate::time::Mono::default()
        )
        .is_empty()
    );
    assert_eq!(view.bindings.iter().count(), 0);
}

#[test]
fn a_garbled_endpoint_record_leaves_the_requests_in_force() {
    let mut view = view();
    let attachment = pod("web-0", 7);
    put(
        &mut view,
        Value::Endpoint(record(&attachment, &[("10.65.0.7", "172.16.1.9")])),
    );
    spoil(&mut view, endpoint_key(&attachment));
    assert_eq!(
        view.asked_by(&attachment.endpoint).collect::<Vec<_>>(),
        vec![floating("172.16.1.9")]
    );
}

#[test]
fn the_first_address_that_is_owned_and_the_last_concern_the_lease() {
    let mut view = view();
    let owner = candidate(&pod("web-0", 7));
    let lease = |dirty: BTreeSet<Subject>| dirty.contains(&Subject::Lease);
    assert!(!lease(put(&mut view, Value::Binding(binding(None)))));
    assert!(
        lease(put(&mut view, Value::Binding(binding(Some(&owner))))),
        "renewed from now on"
    );
    assert!(!lease(put(&mut view, Value::Binding(binding(Some(&owner))))));
    assert!(
        lease(put(&mut view, Value::Binding(binding(None)))),
        "left after a while"
    );
}

#[test]
fn a_block_concerns_an_address_that_is_owned_here_and_no_longer_asked_for() {
    let mut view = view();
    put(&mut view, Value::Binding(binding(Some(&mine()))));
    put(&mut view, Value::Endpoint(record(&pod("web-0", 7), &[])));
    let somebody = block("172.16.1.0/29", 3, Some("net.somebody"), &[]);
    let dirty = put(&mut view, Value::Block(somebody));
    assert!(dirty.contains(&address()), "{dirty:?}");
}
