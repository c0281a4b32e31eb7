use std::collections::BTreeMap;

use buoy_api::annotations::POOL_FLOATING_IPS;
use buoy_api::ip::Family;
use buoy_api::meta::ObjectMeta;
use buoy_api::names::floating_handle;
use buoy_api::v3::{AllowedUse, AssignmentMode, Profile, ProfileSpec};

use super::*;
use crate::fixtures::{FLOATING, block, floating, node, pool, put, time, view};
use crate::store::Value;

/// What a namespace hears after the view was told of something.
fn answer(namespace: &str, tell: impl FnOnce(&mut View)) -> String {
    let mut view = view();
    tell(&mut view);
    match check(&view, namespace, floating(FLOATING)) {
        Ok(()) => "granted".to_owned(),
        Err(refusal) => refusal.to_string(),
    }
}

fn with_pool(change: impl FnOnce(&mut IpPool)) -> impl FnOnce(&mut View) {
    move |view| {
        let mut pool = pool("172.16.1.0/24");
        change(&mut pool);
        put(view, Value::Pool(pool));
    }
}

fn annotated(text: &str) -> impl FnOnce(&mut IpPool) {
    move |pool| pool.metadata.annotations = BTreeMap::from([(POOL_FLOATING_IPS.to_owned(), text.to_owned())])
}

#[test]
fn a_pool_that_covers_the_address_grants_it() {
    assert_eq!(answer("shop", |_| ()), "granted");
    assert_eq!(answer("bank", |_| ()), "granted");
}

#[test]
fn a_range_that_is_set_aside_is_for_floating_ips_too() {
    assert_eq!(
        answer("shop", with_pool(|pool| pool.spec.disabled = true)),
        "granted"
    );
    let manual = with_pool(|pool| pool.spec.assignment_mode = AssignmentMode::Manual);
    assert_eq!(answer("shop", manual), "granted");
}

#[test]
fn an_address_outside_every_pool_is_refused() {
    let elsewhere = |view: &mut View| drop(put(view, Value::Pool(pool("192.168.0.0/24"))));
    assert_eq!(
        answer("shop", elsewhere),
        "outside every IP pool\ncreate an IPPool that covers it (it may be disabled)"
    );
}

#[test]
fn a_pool_for_something_else_is_refused() {
    let refused = "IP pool floating takes no floating IPs\n\
                   change its allowedUses or its annotation buoy.dev/floatingIPs";
    let uses = |uses: &[AllowedUse]| {
        let uses = uses.to_vec();
        with_pool(move |pool| pool.spec.allowed_uses = uses)
    };
    assert_eq!(answer("shop", uses(&[AllowedUse::Tunnel])), refused);
    assert_eq!(answer("shop", uses(&[AllowedUse::LoadBalancer])), refused);
    assert_eq!(
        answer("shop", uses(&[AllowedUse::Tunnel, AllowedUse::Workload])),
        "granted"
    );
}

#[test]
fn the_annotation_of_a_pool_has_the_last_word() {
    let denied = answer("shop", with_pool(annotated("Deny")));
    assert!(
        denied.starts_with("IP pool floating takes no floating IPs"),
        "{denied}"
    );
    for text in ["Allow", "Only"] {
        let despite = with_pool(move |pool| {
            annotated(text)(pool);
            pool.spec.allowed_uses = vec![AllowedUse::Tunnel];
        });
        assert_eq!(answer("shop", despite), "granted", "{text}");
    }
    assert_eq!(answer("shop", with_pool(annotated("perhaps"))), "granted");
}

#[test]
fn a_namespace_selector_is_held_against_the_names_and_labels_of_a_namespace() {
    let selects = |text: &str| {
        let text = Some(text.to_owned());
        with_pool(move |pool| pool.spec.namespace_selector = text)
    };
    assert_eq!(
        answer("shop", selects("projectcalico.org/name == 'shop'")),
        "granted"
    );
    assert_eq!(
        answer("shop", selects("kubernetes.io/metadata.name == 'shop'")),
        "granted"
    );
    assert_eq!(
        answer("bank", selects("projectcalico.org/name == 'shop'")),
        "IP pool floating does not allow the namespace: bank\nchange its namespaceSelector"
    );
    let gold = |label: &'static str| {
        move |view: &mut View| {
            let labels_to_apply = BTreeMap::from([(label.to_owned(), "gold".to_owned())]);
            let spec = ProfileSpec {
                labels_to_apply,
                ..ProfileSpec::default()
            };
            put(
                view,
                Value::Profile(Profile::new(ObjectMeta::named("kns.shop"), spec)),
            );
            selects("tier == 'gold'")(view);
        }
    };
    // Calico's own profiles mark labels that come from the namespace.
    for label in ["tier", "pcns.tier"] {
        assert_eq!(answer("shop", gold(label)), "granted");
    }
    assert!(answer("bank", gold("tier")).contains("does not allow the namespace: bank"));
}

#[test]
fn a_selector_that_does_not_parse_grants_nothing_and_says_where() {
    let bad = answer(
        "shop",
        with_pool(|pool| pool.spec.namespace_selector = Some("tier = gold".to_owned())),
    );
    assert!(
        bad.starts_with("namespaceSelector of IP pool floating: "),
        "{bad}"
    );
}

#[test]
fn the_address_of_a_node_is_refused() {
    let has_it = |view: &mut View| drop(put(view, Value::Node(node("n2", "172.16.1.3/24"))));
    assert_eq!(answer("shop", has_it), "the address of a node: n2");
    let neighbour = |view: &mut View| drop(put(view, Value::Node(node("n2", "172.16.1.4/24"))));
    assert_eq!(answer("shop", neighbour), "granted");
}

#[test]
fn an_address_that_somebody_has_is_refused_and_says_who() {
    let held = |handle: Option<&str>, says: &[(&str, &str)]| {
        let block = block("172.16.1.0/29", 3, handle, says);
        answer("shop", |view| drop(put(view, Value::Block(block))))
    };
    let pod = [("pod", "db-0"), ("namespace", "bank"), ("node", "n2")];
    assert_eq!(
        held(Some("net.c9"), &pod),
        "in use as a workload's own address: net.c9 (bank/db-0/n2)"
    );
    assert_eq!(
        held(Some("net.c9"), &[]),
        "in use as a workload's own address: net.c9"
    );
    assert_eq!(held(None, &[]), "in use as a workload's own address: no handle");
    assert_eq!(
        held(Some(&floating_handle(floating(FLOATING).addr())), &[]),
        "granted"
    );
}

#[test]
fn an_address_that_a_node_without_an_agent_serves_is_nobodys() {
    let mut contested = crate::fixtures::binding(None);
    contested.status.conditions = crate::cluster::contested(&["n9".to_owned()])
        .into_iter()
        .collect();
    assert_eq!(
        answer("shop", |view| drop(put(view, Value::Binding(contested)))),
        "contested: workloads on nodes without an agent ask for it: n9\n\
         install the agent on that node, or take the request off the workload"
    );
}

#[test]
fn every_other_refusal_says_what_to_do() {
    for (refusal, text) in [
        (Refusal::NotRunning, "the workload is not running"),
        (
            Refusal::GateOff,
            "requested feature is not enabled: floating_ips\n\
             set \"feature_control\": {\"floating_ips\": true} in the network configuration, or floatingIPs: Enabled in \
             FelixConfiguration default",
        ),
        (
            Refusal::NoAddressOfFamily(Family::V6),
            "the workload has no IPv6 address",
        ),
        (
            Refusal::BadRecord {
                reason: "no spec".to_owned(),
            },
            "its binding cannot be read: no spec",
        ),
        (
            Refusal::HeldBy {
                namespace: "bank".to_owned(),
                until: None,
            },
            "owned in another namespace: bank",
        ),
        (
            Refusal::HeldBy {
                namespace: "bank".to_owned(),
                until: Some(time(60)),
            },
            "held for another namespace: bank, until 1970-01-01T00:01:00Z\nbuoyctl fip release ends the hold",
        ),
    ] {
        assert_eq!(refusal.to_string(), text);
    }
}
