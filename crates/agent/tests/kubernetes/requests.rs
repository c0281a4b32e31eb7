//! What the start of a pod costs the API server, as its audit log tells.

use buoy_api::annotations::FLOATING_IPS;
use buoy_cni_spec::agent::Response;
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
fn an_add_costs_four_requests_and_each_floating_ip_four_more_and_a_second_del_none() {
    let bed = Bed::begun(&["--floating-ips", "on"], &POOLS);
    let (one, both) = (["4"].as_slice(), ["4", "6"].as_slice());
    let cases = [
        // It claims the blocks.
        ("first of the node", &["172.16.1.1"][..], both),
        ("one family", &[], one),
        ("two families", &[], both),
        ("one floating IP", &["172.16.1.3"], one),
        (
            "three floating IPs",
            &["172.16.1.4", "172.16.1.5", "172.16.1.6"],
            both,
        ),
    ];
    let pods = cases.map(|(what, floating, _)| {
        let annotations = json!({FLOATING_IPS: json!(floating).to_string()});
        Pod::new(&bed, &what.to_lowercase().replace(' ', "-"), annotations)
    });
    // From here on the agent has seen the pods.
    let mut meter = Meter::start(&bed);
    for (index, ((what, floating, families), pod)) in cases.iter().zip(&pods).enumerate() {
        let asked = meter.cost(|| pod.add(&bed, ipam(families)));
        let (beside, waited): (Asked, Asked) = asked.into_iter().partition(|(what, _)| is_beside(what));
        show(what, &waited);
        show("  beside it", &beside);
        let claimed = floating.len() as u64;
        let allowed = OF_AN_ADD + claimed * OF_A_FLOATING_IP;
        assert!(index == 0 || total(&waited) <= allowed, "{what}: {waited:?}");
        let allowed = claimed * BESIDE_A_FLOATING_IP;
        assert!(total(&beside) <= allowed, "{what}: {beside:?}");
    }
    repeated(&bed, &mut meter, &pods[1]);
}

/// Runtimes say DEL twice. The second costs nothing, unless the container was added anew.
fn repeated(bed: &Bed, meter: &mut Meter<'_>, pod: &Pod) {
    let first = meter.cost(|| pod.del(bed));
    show("DEL", &first);
    assert!(total(&first) > 0);
    assert_eq!(meter.cost(|| pod.del(bed)), Asked::new());
    pod.add(bed, ipam(&["4"])).unwrap();
    let again = meter.cost(|| pod.del(bed));
    assert!(total(&again) > total(&first), "{again:?}");
}

fn ipam(families: &[&str]) -> Json {
    let wants = |family| families.contains(&family).to_string();
    json!({"type": "calico-ipam", "assign_ipv4": wants("4"), "assign_ipv6": wants("6")})
}

/// What nobody waits for: the status of a floating IP, and what the pod's people are told.
fn is_beside((verb, resource): &(String, String)) -> bool {
    (verb == "patch" && resource == "floatingipbindings.buoy.dev") || resource == "events.events.k8s.io"
}

/// Tells what the agent asks for, when it has come to rest.
struct Meter<'a> {
    bed: &'a Bed,
    before: Asked,
}

impl<'a> Meter<'a> {
    fn start(bed: &'a Bed) -> Self {
        let before = bed.asked();
        Self { bed, before }
    }

    /// What it asks for from here on because of this.
    fn cost(&mut self, act: impl FnOnce() -> Response) -> Asked {
        act().unwrap();
        let now = self.bed.asked();
        let before = std::mem::replace(&mut self.before, now.clone());
        let since = |(what, count): (_, u64)| {
            let count = count - before.get(&what).copied().unwrap_or(0);
            (count > 0).then_some((what, count))
        };
        now.into_iter().filter_map(since).collect()
    }
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
