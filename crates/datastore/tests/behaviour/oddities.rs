//! Records that do not fit each other, as broken tools and careless hands leave them: each is said, and none of them gives
//! an address twice or stops the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use buoy_api::ObjectMeta;
use buoy_api::ip::Family;
use buoy_api::v3::{IpPool, IpPoolSpec};
use buoy_core::ipam::{Ask, Asker, AutoAssign, AutoAssignRequest, Grant, IpamError, ReleaseHandle, Snapshot};
use buoy_core::store::{Key, Prefix};
use buoy_datastore::{Datastore, drive};
use serde_json::{Value as Json, json};

use crate::tools::{Bytes, get, list};

const BLOCKS: &str = "/calico/ipam/v2/assignment/ipv4/block";

/// One address for a handle, on node `alpha`, from these pools with blocks of four.
fn assign(store: &dyn Datastore, pools: &[&str], handle: &str) -> Result<IpAddr, IpamError> {
    let pools = pools.iter().map(|cidr| {
        let mut spec = IpPoolSpec::new(cidr.parse().unwrap());
        spec.block_size = Some(30);
        IpPool::new(ObjectMeta::named(*cidr), spec)
    });
    let request = AutoAssignRequest {
        snapshot: Arc::new(Snapshot {
            pools: pools.collect(),
            ..Snapshot::default()
        }),
        asker: Asker {
            host: "alpha".to_owned(),
            node_labels: BTreeMap::new(),
            namespace_labels: BTreeMap::new(),
        },
        grant: Grant {
            handle: handle.to_owned(),
            attributes: BTreeMap::new(),
        },
        v4: Ask::of(1),
        v6: Ask::of(0),
        cached: Vec::new(),
        seed: 0,
        now: jiff::Timestamp::now(),
    };
    let assigned = drive(store, AutoAssign::new(request))?;
    Ok(assigned.addresses[0].addr())
}

fn block(cidr: &str, affinity: &str) -> Json {
    json!({
        "cidr": cidr, "affinity": affinity, "allocations": [0, null, null, null], "unallocated": [1, 2, 3],
        "attributes": [{"handle_id": "net.old", "secondary": {}}], "sequenceNumber": 7,
        "sequenceNumberForAllocation": {"0": 6}, "deleted": false
    })
}

fn put(backend: &dyn Bytes, path: &str, record: &Json) {
    backend.put_raw(path, record.to_string().as_bytes());
}

fn block_of(store: &dyn Datastore, cidr: &str) -> bool {
    get(store, &Key::Block(cidr.parse().unwrap())).is_some()
}

pub(crate) fn pools_that_overlap_give_no_address_twice(backend: &dyn Bytes) {
    let store = backend.open();
    let pools = ["10.77.0.0/28", "10.77.0.0/27", "10.77.0.16/28"];
    let mut given = BTreeSet::new();
    for number in 0..32 {
        let address = assign(&*store, &pools, &format!("net.c{number}")).unwrap();
        assert!(given.insert(address), "{address} is given twice");
    }
    let error = assign(&*store, &pools, "net.more").unwrap_err();
    assert!(matches!(error, IpamError::Exhausted { .. }), "{error}");
    assert_eq!(list(&*store, Prefix::Blocks(Family::V4)).0.len(), 8);
}

pub(crate) fn a_block_outside_of_every_pool_gives_nothing_and_is_released(backend: &dyn Bytes) {
    put(
        backend,
        &format!("{BLOCKS}/10.99.0.0-30"),
        &block("10.99.0.0/30", "host:alpha"),
    );
    let confirmed = json!({"state": "confirmed", "deleted": false});
    put(
        backend,
        "/calico/ipam/v2/host/alpha/ipv4/block/10.99.0.0-30",
        &confirmed,
    );
    let old = json!({"block": {"10.99.0.0/30": 1}, "deleted": false});
    put(backend, "/calico/ipam/v2/handle/net.old", &old);
    let store = backend.open();
    let address = assign(&*store, &["10.77.0.0/24"], "net.new").unwrap();
    assert!(address.to_string().starts_with("10.77.0."), "{address}");
    let released = drive(&*store, ReleaseHandle::new("net.old".to_owned())).unwrap();
    assert_eq!(released.addresses, ["10.99.0.0".parse::<IpAddr>().unwrap()]);
    assert!(get(&*store, &Key::Handle("net.old".to_owned())).is_none());
}

pub(crate) fn an_affinity_without_its_block_is_made_whole_or_given_up(backend: &dyn Bytes) {
    let path = |cidr: &str| format!("/calico/ipam/v2/host/alpha/ipv4/block/{cidr}");
    put(
        backend,
        &path("10.77.0.8-30"),
        &json!({"state": "confirmed", "deleted": false}),
    );
    // Whose block is another's.
    put(
        backend,
        &path("10.77.0.12-30"),
        &json!({"state": "pending", "deleted": false}),
    );
    put(
        backend,
        &format!("{BLOCKS}/10.77.0.12-30"),
        &block("10.77.0.12/30", "host:beta"),
    );
    let store = backend.open();
    for number in 0..4 {
        let address = assign(&*store, &["10.77.0.0/24"], &format!("net.c{number}")).unwrap();
        let expected = format!("10.77.0.{}", 8 + number);
        assert_eq!(address.to_string(), expected);
    }
    assert!(block_of(&*store, "10.77.0.8/30"));
    let fifth = assign(&*store, &["10.77.0.0/24"], "net.c4").unwrap();
    assert!(
        !["10.77.0.12", "10.77.0.13"].contains(&fifth.to_string().as_str()),
        "{fifth} is beta's"
    );
}

pub(crate) fn a_record_whose_name_does_not_fit_it_is_said_and_hides_no_other(backend: &dyn Bytes) {
    let binding = |address: &str, name: &str| {
        json!({
            "kind": "FloatingIPBinding", "apiVersion": "buoy.dev/v1alpha1", "metadata": {"name": name},
            "spec": {"address": address, "namespace": "shop", "epoch": 3}
        })
    };
    let bindings = "/buoy/v1alpha1/floatingipbindings";
    put(
        backend,
        &format!("{bindings}/172-16-1-3"),
        &binding("172.16.1.4", "172-16-1-3"),
    );
    put(
        backend,
        &format!("{bindings}/172-16-1-5"),
        &binding("172.16.1.5", "172-16-1-5"),
    );
    put(
        backend,
        &format!("{BLOCKS}/10.77.0.0-30"),
        &block("10.99.0.0/30", "host:alpha"),
    );
    let store = backend.open();
    let (records, _) = list(&*store, Prefix::Bindings);
    let [wrong, right] = &records[..] else {
        panic!("{records:?}")
    };
    let reason = &wrong.value.as_ref().unwrap_err().reason;
    assert!(
        reason.contains("172-16-1-4"),
        "it says which name would fit: {reason}"
    );
    assert!(right.value.is_ok());
    let error = assign(&*store, &["10.77.0.0/30"], "net.c1").unwrap_err();
    assert!(
        matches!(error, IpamError::Exhausted { .. }),
        "its block is not to be trusted: {error}"
    );
    let address = assign(&*store, &["10.77.0.0/30", "10.78.0.0/24"], "net.c1");
    assert!(
        address.is_ok_and(|address| address.to_string().starts_with("10.78.")),
        "it stops the rest"
    );
}
