//! Records that do not fit each other, as broken tools and careless hands leave them: each is said, and none of them gives
//! an address twice or stops the rest.

use std::collections::BTreeSet;
use std::net::IpAddr;

use buoy_api::ObjectMeta;
use buoy_api::ip::Family;
use buoy_api::ipam::AffinityOwner;
use buoy_api::v3::{IpPool, IpPoolSpec};
use buoy_core::ipam::{AutoAssign, IpamError, ReleaseHandle};
use buoy_core::store::{Key, Prefix, Record};
use buoy_datastore::{Datastore, Event, drive};
use serde_json::{Value as Json, json};

use crate::tools::{Bytes, Ipam, Raw, addresses, events_until, get, list};

const ALPHA: &str = "alpha";

/// One address for a handle, on node `alpha`, from these pools with blocks of four.
fn assign(store: &dyn Datastore, pools: &[&str], handle: &str) -> Result<IpAddr, IpamError> {
    let pools = pools.iter().map(|cidr| {
        let mut spec = IpPoolSpec::new(cidr.parse().unwrap());
        spec.block_size = Some(30);
        IpPool::new(ObjectMeta::named(*cidr), spec)
    });
    let request = addresses(pools.collect(), (ALPHA, handle), (1, 0));
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

fn block_of(store: &dyn Datastore, cidr: &str) -> bool {
    get(store, &Key::Block(cidr.parse().unwrap())).is_some()
}

pub(crate) fn pools_that_overlap_give_no_address_twice(backend: &dyn Raw) {
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

pub(crate) fn a_block_outside_of_every_pool_gives_nothing_and_is_released(backend: &dyn Raw) {
    let outside = "10.99.0.0/30";
    backend.put_raw(&Ipam::Block(outside), &block(outside, "host:alpha"));
    let confirmed = json!({"state": "confirmed", "deleted": false});
    backend.put_raw(&Ipam::Affinity(ALPHA, outside), &confirmed);
    let old = json!({"block": {outside: 1}, "deleted": false});
    backend.put_raw(&Ipam::Handle("net.old"), &old);
    let store = backend.open();
    let address = assign(&*store, &["10.77.0.0/24"], "net.new").unwrap();
    assert!(address.to_string().starts_with("10.77.0."), "{address}");
    let released = drive(&*store, ReleaseHandle::new("net.old".to_owned())).unwrap();
    assert_eq!(released.addresses, ["10.99.0.0".parse::<IpAddr>().unwrap()]);
    assert!(get(&*store, &Key::Handle("net.old".to_owned())).is_none());
}

pub(crate) fn an_affinity_without_its_block_is_made_whole_or_given_up(backend: &dyn Raw) {
    let own = "10.77.0.8/30";
    let confirmed = json!({"state": "confirmed", "deleted": false});
    backend.put_raw(&Ipam::Affinity(ALPHA, own), &confirmed);
    // Whose block is another's.
    let other = "10.77.0.12/30";
    let pending = json!({"state": "pending", "deleted": false});
    backend.put_raw(&Ipam::Affinity(ALPHA, other), &pending);
    backend.put_raw(&Ipam::Block(other), &block(other, "host:beta"));
    let store = backend.open();
    for number in 0..4 {
        let address = assign(&*store, &["10.77.0.0/24"], &format!("net.c{number}")).unwrap();
        let expected = format!("10.77.0.{}", 8 + number);
        assert_eq!(address.to_string(), expected);
    }
    assert!(block_of(&*store, own));
    let fifth = assign(&*store, &["10.77.0.0/24"], "net.c4").unwrap();
    assert!(
        !["10.77.0.12", "10.77.0.13"].contains(&fifth.to_string().as_str()),
        "{fifth} is beta's"
    );
}

pub(crate) fn a_binding_whose_name_does_not_fit_is_said_and_hides_no_other(backend: &dyn Bytes) {
    let put = |name: &str, address: &str| {
        let binding = json!({
            "kind": "FloatingIPBinding", "apiVersion": "buoy.dev/v1alpha1", "metadata": {"name": name},
            "spec": {"address": address, "namespace": "shop", "epoch": 3}
        });
        let path = format!("/buoy/v1alpha1/floatingipbindings/{name}");
        backend.put_bytes(&path, binding.to_string().as_bytes());
    };
    put("172-16-1-3", "172.16.1.4");
    put("172-16-1-5", "172.16.1.5");
    let (records, _) = list(&*backend.open(), Prefix::Bindings);
    let [wrong, right] = &records[..] else {
        panic!("{records:?}")
    };
    let reason = &wrong.value.as_ref().unwrap_err().reason;
    assert!(
        reason.contains("172-16-1-4"),
        "it says which name would fit: {reason}"
    );
    assert!(right.value.is_ok());
}

pub(crate) fn a_block_whose_name_does_not_fit_gives_nothing(backend: &dyn Raw) {
    let named = "10.77.0.0/30";
    backend.put_raw(&Ipam::Block(named), &block("10.99.0.0/30", "host:alpha"));
    gives_nothing_and_stops_nobody(&*backend.open(), named);
}

pub(crate) fn a_malformed_block_is_said_and_gives_nothing(backend: &dyn Raw) {
    let store = backend.open();
    let (_, from) = list(&*store, Prefix::Blocks(Family::V4));
    let mut watch = store.watch(&[(Prefix::Blocks(Family::V4), from)]).unwrap();
    let cidr = "10.77.0.0/30";
    backend.put_raw(&Ipam::Block(cidr), &json!({"cidr": "garbage", "allocations": 7}));
    gives_nothing_and_stops_nobody(&*store, cidr);
    let (records, at) = list(&*store, Prefix::Blocks(Family::V4));
    let bad = bad(&records, &Key::Block(cidr.parse().unwrap()));
    assert!(
        events_until(watch.as_mut(), at).contains(&Event::Put(bad)),
        "a watch says it, too"
    );
}

/// The block of this prefix is said to be bad, and not to be trusted: nothing is given from it, and others give.
fn gives_nothing_and_stops_nobody(store: &dyn Datastore, cidr: &str) {
    let (records, _) = list(store, Prefix::Blocks(Family::V4));
    let key = Key::Block(cidr.parse().unwrap());
    let listed = bad(&records, &key);
    assert_eq!(get(store, &key), Some(listed), "a get and a list say the same");
    let error = assign(store, &[cidr], "net.c1").unwrap_err();
    assert!(matches!(error, IpamError::Exhausted { .. }), "{error}");
    let address = assign(store, &[cidr, "10.78.0.0/24"], "net.c1").unwrap();
    assert!(address.to_string().starts_with("10.78."), "{address}");
}

/// The record of a key, which does not decode.
fn bad(records: &[Record], key: &Key) -> Record {
    let found = records.iter().find(|record| record.key == *key);
    let found = found.unwrap_or_else(|| panic!("{key} is not among {records:?}"));
    assert!(found.value.is_err(), "{found:?}");
    found.clone()
}

pub(crate) fn a_malformed_affinity_is_said_and_hides_no_other(backend: &dyn Raw) {
    let (good, malformed) = ("10.77.0.0/30", "10.77.0.4/30");
    let confirmed = json!({"state": "confirmed", "deleted": false});
    backend.put_raw(&Ipam::Affinity(ALPHA, good), &confirmed);
    backend.put_raw(&Ipam::Affinity(ALPHA, malformed), &json!({"state": 7, "cidr": 7}));
    let store = backend.open();
    let owner = AffinityOwner::Host(ALPHA.to_owned());
    let (records, _) = list(&*store, Prefix::Affinities(owner.clone()));
    let cidr = malformed.parse().unwrap();
    let key = Key::Affinity { owner, cidr };
    assert_eq!(get(&*store, &key), Some(bad(&records, &key)));
    assert_eq!(records.iter().filter(|record| record.value.is_ok()).count(), 1);
    let address = assign(&*store, &["10.77.0.0/24"], "net.c1").unwrap();
    assert_eq!(address.to_string(), "10.77.0.0");
    // Nobody can tell whose that block is.
    let error = assign(&*store, &[malformed], "net.c2").unwrap_err();
    assert!(matches!(error, IpamError::Exhausted { .. }), "{error}");
}

pub(crate) fn a_malformed_handle_is_said_and_gets_nothing(backend: &dyn Raw) {
    backend.put_raw(&Ipam::Handle("net.c1"), &json!({"block": 7}));
    let store = backend.open();
    let (records, _) = list(&*store, Prefix::Handles);
    let key = Key::Handle("net.c1".to_owned());
    assert_eq!(get(&*store, &key), Some(bad(&records, &key)));
    let error = assign(&*store, &["10.77.0.0/24"], "net.c1").unwrap_err();
    assert!(!error.is_retryable(), "to ask again helps nobody: {error}");
    assert!(assign(&*store, &["10.77.0.0/24"], "net.c2").is_ok());
}
