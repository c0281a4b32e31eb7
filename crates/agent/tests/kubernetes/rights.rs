//! The built agent uses each right that it has, and no other.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use buoy_api::annotations::FLOATING_IPS;
use buoy_api::ipam::{AffinityOwner, AffinityState, BlockAffinity};
use buoy_core::ipam::block;
use buoy_core::store::{Key, Reply, StoreOp, Value};
use buoy_kubeserver::{ADMIN, AGENT};
use serde_json::json;

use crate::bed::{Bed, Pod};

/// The only block of the first is another node's when the agent begins.
const POOLS: [&str; 3] = [
    r#"{"apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool", "metadata": {"name": "pods"},
        "spec": {"cidr": "10.65.0.0/26", "blockSize": 26, "ipipMode": "Never", "vxlanMode": "Never"}}"#,
    r#"{"apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool", "metadata": {"name": "pods6"},
        "spec": {"cidr": "fd80::/112", "blockSize": 122, "ipipMode": "Never", "vxlanMode": "Never"}}"#,
    r#"{"apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool", "metadata": {"name": "floating"},
        "spec": {"cidr": "172.16.1.0/24", "blockSize": 26, "ipipMode": "Never", "vxlanMode": "Never",
            "assignmentMode": "Manual"}}"#,
];
const CONFIG: &str = r#"{"apiVersion": "v1", "kind": "ConfigMap",
    "metadata": {"name": "calico-config", "namespace": "kube-system"}, "data": {"cni_network_config": "{}"}}"#;

const FLOATING: &str = "172.16.1.3";
const BINDING: &str = "floatingipbindings.buoy.dev/172-16-1-3";

/// When a warning that repeats itself is written again, and not only counted.
const REPEATED: Duration = Duration::from_secs(31);

#[test]
fn an_agent_uses_each_of_its_rights_and_no_other() {
    let bed = Bed::begun(&["--floating-ips", "on", "--floating-ip-hold", "1s"], &POOLS);
    leave_an_empty_block(&bed);
    let wrong = Pod::new(&bed, "wrong", json!({FLOATING_IPS: "none at all"}));
    is_refused(&bed, &wrong);
    let told = Instant::now();
    passes_preflight(&bed);

    // A block is taken from the node that has it, and one is new; the floor of epochs is made, and then raised.
    let made = lives_and_goes(&bed, "web-0");
    assert!(lives_and_goes(&bed, "web-1") > made);
    // Whatever an agent before this one may have left is looked for.
    Pod::new(&bed, "stranger", json!({})).del(&bed).unwrap();

    thread::sleep(REPEATED.saturating_sub(told.elapsed()));
    is_refused(&bed, &wrong);
    bed.until("the refusal is counted", || {
        let failed = bed.event("AttachFailed");
        (failed["series"]["count"] == 2).then_some(()).ok_or(failed)
    });
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/rbac.yaml");
    bed.server.uses_exactly(AGENT, &manifest).unwrap();
}

/// The pool's only block is another node's, who has no use for it.
fn leave_an_empty_block(bed: &Bed) {
    let admin = format!("kubernetes:{}", bed.server.kubeconfig(ADMIN).display());
    let store = buoy_datastore::open(&admin).unwrap();
    let owner = AffinityOwner::Host("n2".to_owned());
    let cidr = "10.65.0.0/26".parse().unwrap();
    let long_ago = "2026-01-01T00:00:00Z".parse().unwrap();
    let block = block::new(cidr, Some(owner.clone()), long_ago);
    let affinity = BlockAffinity {
        state: AffinityState::Confirmed,
        deleted: false,
        extra: Default::default(),
    };
    for (key, value) in [
        (Key::Affinity { owner, cidr }, Value::Affinity(affinity)),
        (Key::Block(cidr), Value::Block(block)),
    ] {
        let made = store.run(&StoreOp::Create(key, value));
        assert!(matches!(made, Reply::Written(_)), "{made:?}");
    }
}

/// An ADD that asks for what cannot be read, and the pod is told.
fn is_refused(bed: &Bed, pod: &Pod) {
    pod.add(bed, json!({"type": "calico-ipam"})).unwrap_err();
    bed.event("AttachFailed");
}

/// What is looked at before an agent begins.
fn passes_preflight(bed: &Bed) {
    bed.create(CONFIG);
    let preflight = bed
        .agent_command()
        .args(["preflight", "--calico-config"])
        .arg(bed.directory())
        .output()
        .unwrap();
    assert!(preflight.status.success(), "{preflight:?}");
    assert!(bed.directory().join("cni_network_config").exists());
}

/// A pod with a floating IP comes and goes, and the address is given up when nobody has asked for it for a while. The floor of
/// epochs after that.
fn lives_and_goes(bed: &Bed, name: &str) -> u64 {
    let pod = Pod::new(bed, name, json!({FLOATING_IPS: json!([FLOATING]).to_string()}));
    pod.add(bed, json!({"type": "calico-ipam", "assign_ipv6": "true"}))
        .unwrap();
    let owner = bed.get(BINDING)["spec"]["owner"].clone();
    assert_eq!(owner["workload"], name);
    bed.until_is(BINDING, "/status/candidates/0/workload", &json!(name));
    pod.del(bed).unwrap();
    bed.until("the binding is gone", || {
        let binding = bed.get(BINDING);
        binding.is_null().then_some(()).ok_or(binding)
    });
    bed.get("epochfloors.buoy.dev/default")["spec"]["epoch"]
        .as_u64()
        .unwrap()
}
