use super::*;
use crate::endpoint::{Attachment, Phase};
use crate::fixtures::{FLOATING, binding, candidate, endpoint, floating, pod, put, spoil, time, view};
use crate::floating::claim::binding_key;
use crate::store::Value;

fn stands(view: &View, name: &str) -> Standing {
    standing(view, &endpoint(name), floating(FLOATING))
}

fn with_binding(owner: Option<&Attachment>, namespace: &str) -> View {
    let mut view = view();
    view.put_attachment(pod("web-1", 8));
    let mut made = binding(owner.map(candidate).as_ref());
    made.spec.namespace = namespace.to_owned();
    put(&mut view, Value::Binding(made));
    view
}

#[test]
fn nothing_is_decided_before_there_is_an_owner() {
    assert_eq!(stands(&view(), "web-0"), Standing::Undecided);
    assert_eq!(stands(&with_binding(None, "shop"), "web-0"), Standing::Undecided);
}

#[test]
fn one_has_it_and_the_other_stands_by() {
    let view = with_binding(Some(&pod("web-1", 8)), "shop");
    assert_eq!(stands(&view, "web-1"), Standing::Owner);
    let behind = Standing::Standby {
        node: "n1".to_owned(),
        workload: "web-1".to_owned(),
    };
    assert_eq!(stands(&view, "web-0"), behind);
}

#[test]
fn what_a_workload_was_before_has_it_until_it_follows() {
    let mut before = pod("web-0", 7);
    before.request.uid = "uid-of-before".to_owned();
    assert_eq!(
        stands(&with_binding(Some(&before), "shop"), "web-0"),
        Standing::Undecided
    );
    let elsewhere = pod("web-0", 9);
    assert_eq!(
        stands(&with_binding(Some(&elsewhere), "shop"), "web-0"),
        Standing::Undecided,
        "the same, at another address"
    );
}

#[test]
fn another_namespaces_address_is_refused_while_it_is_owned_or_held() {
    let refused = |until| {
        Standing::Refused(Refusal::HeldBy {
            namespace: "bank".to_owned(),
            until,
        })
    };
    assert_eq!(
        stands(&with_binding(Some(&pod("web-1", 8)), "bank"), "web-0"),
        refused(None)
    );
    assert_eq!(
        stands(&with_binding(None, "bank"), "web-0"),
        refused(Some(time(1600)))
    );
}

#[test]
fn a_binding_that_cannot_be_read_is_told_although_its_last_value_is_in_force() {
    let mut view = with_binding(Some(&pod("web-0", 7)), "shop");
    spoil(&mut view, binding_key(floating(FLOATING)));
    let reason = "line 3: not a number".to_owned();
    assert_eq!(
        stands(&view, "web-0"),
        Standing::Refused(Refusal::BadRecord { reason })
    );
    assert!(view.bindings.get(&floating(FLOATING)).is_some());
}

#[test]
fn who_is_no_candidate_hears_why_first() {
    let mut view = with_binding(Some(&pod("web-1", 8)), "shop");
    let mut gated = pod("web-0", 7);
    gated.request.gate = false;
    view.put_attachment(gated);
    assert_eq!(stands(&view, "web-0"), Standing::Refused(Refusal::GateOff));
}

#[test]
fn nothing_is_decided_for_one_that_comes_or_goes() {
    for phase in [Phase::Adding, Phase::Removing, Phase::Down] {
        let mut view = with_binding(Some(&pod("web-1", 8)), "shop");
        let mut moving = pod("web-0", 7);
        moving.phase = phase;
        view.put_attachment(moving);
        assert_eq!(stands(&view, "web-0"), Standing::Undecided, "{phase:?}");
    }
}
