//! What the start of a pod costs the API server, as its audit log tells.

use buoy_api::annotations::FLOATING_IPS;
use serde_json::{Value as Json, json};

use crate::bed::{Asked, Bed, Pod};

const POOLS: [&str; 3] = [
    r#"{"apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool", "metadata": {"name": "pods"},
        "spec": {"cidr": "10.65.0.0/24", "blockSize": 26, "ipipMode": "Never", "vxlanMode": "Never"}}"#,
    r#"{"apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool", "metadata": {"name": "pods6"},
        "spec": {"cidr": "fd80::/112", "blockSize": 122, "ipipMode": "Never", "vxlanMode": "Never"}}"#,
    r#"{"apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool", "metadata": {"name": "floating"},
        "spec": {"cidr": "172.16.1.0/24", "blockSize": 26, "ipipMode": "Never", "vxlanMode": "Never",
            "assignmentMode": "Manual"}}"#,
];

/// Requests that an ADD may cost in a block that is known, and each floating IP that nobody had.
const OF_AN_ADD: u64 = 4;
const OF_A_FLOATING_IP: u64 = 4;

/// Two writes of its status at most, as its conditions change, and an event.
const BESIDE_A_FLOATING_IP: u64 = 3;

#[test]
fn the_second_del_of_a_container_costs_nothing() {
    let bed = Bed::begun(&["--floating-ips", "on"], &POOLS);
    let ipam = json!({"type": "calico-ipam"});
    let pod = Pod::new(&bed, "web-0", json!({}));
    pod.add(&bed, ipam.clone()).unwrap();
    let first = cost(&bed, || pod.del(&bed).unwrap());
    show("DEL", &first);
    assert!(
        first
            .keys()
            .any(|(verb, resource)| verb == "patch" && resource == "pods")
    );
    let second = cost(&bed, || pod.del(&bed).unwrap());
    assert_eq!(second, Asked::new());
    // It may be there again.
    pod.add(&bed, ipam).unwrap();
    assert_eq!(cost(&bed, || pod.del(&bed).unwrap()), first);
}

#[test]
fn an_add_costs_four_requests_and_each_floating_ip_four_more() {
    let bed = Bed::begun(&["--floating-ips", "on"], &POOLS);
    let both = json!({"type": "calico-ipam", "assign_ipv6": "true"});
    let one = json!({"type": "calico-ipam"});
    // The first of all claims the blocks.
    let first = start(&bed, "first", &["172.16.1.1"], &both);
    show("first of the node", &first);
    for (name, floating, ipam) in [
        ("one-family", &[][..], &one),
        ("two-families", &[], &both),
        ("one-floating-ip", &["172.16.1.3"], &one),
        (
            "three-floating-ips",
            &["172.16.1.4", "172.16.1.5", "172.16.1.6"],
            &both,
        ),
    ] {
        let asked = start(&bed, name, floating, ipam);
        let (beside, waited): (Asked, Asked) = asked.into_iter().partition(|(what, _)| is_beside(what));
        show(name, &waited);
        show("  beside it", &beside);
        let claimed = floating.len() as u64;
        let allowed = OF_AN_ADD + claimed * OF_A_FLOATING_IP;
        assert!(total(&waited) <= allowed, "{name}: {waited:?}");
        assert!(
            total(&beside) <= claimed * BESIDE_A_FLOATING_IP,
            "{name}: {beside:?}"
        );
    }
}

/// What nobody waits for: the status of a floating IP, and what the pod's people are told.
fn is_beside((verb, resource): &(String, String)) -> bool {
    (verb == "patch" && resource == "floatingipbindings.buoy.dev") || resource == "events.events.k8s.io"
}

/// Starts a pod; what that cost until all was said.
fn start(bed: &Bed, name: &str, floating: &[&str], ipam: &Json) -> Asked {
    let annotations = json!({FLOATING_IPS: json!(floating).to_string()});
    let pod = Pod::new(bed, name, annotations);
    cost(bed, || pod.add(bed, ipam.clone()).unwrap())
}

/// What the agent asks for because of this, until it comes to rest. Before that it sees what has changed so far.
fn cost(bed: &Bed, act: impl FnOnce() -> Json) -> Asked {
    let before = bed.asked();
    act();
    let mut asked = bed.asked();
    for (what, count) in &mut asked {
        *count -= before.get(what).copied().unwrap_or(0);
    }
    asked.retain(|_, count| *count > 0);
    asked
}

fn total(asked: &Asked) -> u64 {
    asked.values().sum()
}

fn show(what: &str, asked: &Asked) {
    println!("{:>2} {what}", total(asked));
    for ((verb, resource), count) in asked {
        println!("     {count} {verb} {resource}");
    }
}
