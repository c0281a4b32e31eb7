use buoy_api::names::floating_handle;

use super::*;
use crate::fixtures::{FLOATING, binding, block, candidate, empty_view, floating, pod, put};
use crate::floating::reserved_by;

fn floor(epoch: u64) -> Value {
    Value::EpochFloor(EpochFloor::new(
        ObjectMeta::named("default"),
        EpochFloorSpec {
            epoch: Epoch(epoch),
            extra: Extra::new(),
        },
    ))
}

#[test]
fn the_floor_only_rises() {
    assert_eq!(raised(None, Epoch(4)), Change::Put(Box::new(floor(4))));
    assert_eq!(raised(Some(&floor(3)), Epoch(4)), Change::Put(Box::new(floor(4))));
    assert_eq!(raised(Some(&floor(4)), Epoch(4)), Change::Keep);
    assert_eq!(raised(Some(&floor(5)), Epoch(4)), Change::Keep);
}

#[test]
fn a_binding_is_deleted_only_as_it_was_seen_and_while_nobody_stands_by() {
    let seen = binding(None);
    assert_eq!(
        deleted(Some(&Value::Binding(seen.clone())), &seen),
        Change::Delete
    );
    let owner = candidate(&pod("web-0", 7));
    let mut claimed = binding(Some(&owner));
    claimed.spec.epoch = Epoch(8);
    assert_eq!(deleted(Some(&Value::Binding(claimed)), &seen), Change::Keep);
    let mut wanted = seen.clone();
    wanted.status.candidates = vec![owner];
    assert_eq!(deleted(Some(&Value::Binding(wanted)), &seen), Change::Keep);
    let mut made_again = seen.clone();
    made_again.metadata.uid = Some("other".to_owned());
    assert_eq!(deleted(Some(&Value::Binding(made_again)), &seen), Change::Keep);
    assert_eq!(deleted(None, &seen), Change::Keep);
}

#[test]
fn a_reservation_is_known_by_its_handle_and_has_a_stamp() {
    let address = floating(FLOATING);
    let handle = floating_handle(address.addr());
    let mut view = empty_view();
    assert_eq!(reservation(&view, address), None);
    put(
        &mut view,
        Value::Block(block("172.16.1.0/29", 3, Some("net.c1"), &[])),
    );
    assert_eq!(reservation(&view, address), None);
    let mine = block("172.16.1.0/29", 3, Some(&handle), &[]);
    assert_eq!(reserved_by(&mine).collect::<Vec<_>>(), vec![address]);
    put(&mut view, Value::Block(mine));
    assert_eq!(reservation(&view, address), Some(4));
    let misplaced = block("172.16.1.0/29", 2, Some(&handle), &[]);
    assert_eq!(reserved_by(&misplaced).count(), 0);
}
