//! The same operation, the same records: what IPAM leaves in the store is what Calico's plugins leave there, but for
//! times and sequence numbers, of which only the steps are compared.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use buoy_api::ObjectMeta;
use buoy_api::ip::Family;
use buoy_api::v3::{IpPool, IpPoolSpec};
use buoy_core::ipam::{
    Ask, Asker, AssignAddress, AssignAddressRequest, AutoAssign, AutoAssignRequest, Grant, ReleaseHandle,
    Snapshot,
};
use buoy_datastore::sqlite::{Options, Sqlite};
use buoy_datastore::{Datastore, drive};
use rusqlite::Connection;
use serde_json::{Value as Json, json};

/// Records by their paths.
type Records = BTreeMap<String, Json>;

/// What a plugin is asked to do.
enum Act {
    /// One address of a family, for a handle, on a node; the attributes that it writes.
    Assign(Family, &'static str, Json),
    /// This address.
    AssignThis(&'static str, &'static str, Json),
    /// Everything that a handle has.
    Release(&'static str),
}

/// A store in a file, with what a pool and an act need.
struct Store {
    directory: tempfile::TempDir,
    store: Sqlite,
}

impl Store {
    fn with(records: &Records) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&directory.path().join("buoy.db"), Options::default()).unwrap();
        let raw = raw(directory.path());
        for (path, record) in records {
            let bytes = record.to_string().into_bytes();
            let next = "INSERT INTO log (revision, key, value) SELECT max(revision) + 1, ?1, ?2 FROM log";
            raw.execute(next, rusqlite::params![path, bytes]).unwrap();
            let now = "REPLACE INTO kv (key, value, created, modified) SELECT ?1, ?2, max(revision), max(revision) FROM log";
            raw.execute(now, rusqlite::params![path, bytes]).unwrap();
        }
        Self { directory, store }
    }

    fn records(&self) -> Records {
        let raw = raw(self.directory.path());
        let mut statement = raw.prepare("SELECT key, CAST(value AS TEXT) FROM kv").unwrap();
        let rows = statement
            .query_map((), |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))
            .unwrap();
        rows.map(|row| {
            let (path, bytes) = row.unwrap();
            (path, serde_json::from_str(&bytes).unwrap())
        })
        .collect()
    }

    fn act(&self, act: &Act, pools: &[&str]) {
        let store: &dyn Datastore = &self.store;
        match act {
            Act::Assign(family, handle, says) => {
                let ask = |of: Family| Ask::of(usize::from(of == *family));
                let request = AutoAssignRequest {
                    snapshot: snapshot(pools),
                    asker: asker(says),
                    grant: grant(handle, says),
                    v4: ask(Family::V4),
                    v6: ask(Family::V6),
                    cached: Vec::new(),
                    seed: 0,
                    now: jiff::Timestamp::now(),
                };
                drive(store, AutoAssign::new(request)).unwrap();
            }
            Act::AssignThis(address, handle, says) => {
                let request = AssignAddressRequest {
                    snapshot: snapshot(pools),
                    asker: asker(says),
                    grant: grant(handle, says),
                    addresses: vec![address.parse().unwrap()],
                    now: jiff::Timestamp::now(),
                };
                drive(store, AssignAddress::new(request)).unwrap();
            }
            Act::Release(handle) => {
                drive(store, ReleaseHandle::new((*handle).to_owned())).unwrap();
            }
        }
    }
}

fn raw(directory: &Path) -> Connection {
    Connection::open(directory.join("buoy.db")).unwrap()
}

fn snapshot(pools: &[&str]) -> Arc<Snapshot> {
    let pools = pools.iter().map(|cidr| {
        let mut spec = IpPoolSpec::new(cidr.parse().unwrap());
        spec.block_size = Some(if cidr.contains(':') { 126 } else { 30 });
        IpPool::new(ObjectMeta::named("pool"), spec)
    });
    Arc::new(Snapshot {
        pools: pools.collect(),
        ..Snapshot::default()
    })
}

fn asker(says: &Json) -> Asker {
    Asker {
        host: says["node"].as_str().unwrap().to_owned(),
        node_labels: BTreeMap::new(),
        namespace_labels: BTreeMap::new(),
    }
}

fn grant(handle: &str, says: &Json) -> Grant {
    Grant {
        handle: handle.to_owned(),
        attributes: serde_json::from_value(says.clone()).unwrap(),
    }
}

/// Without times; sequence numbers counted from the block's own.
fn comparable(records: Records) -> Records {
    let mut records = records;
    for record in records.values_mut() {
        let Some(number) = record["sequenceNumber"].as_u64() else {
            continue;
        };
        record["sequenceNumber"] = json!("n");
        if let Some(each) = record["sequenceNumberForAllocation"].as_object_mut() {
            for given in each.values_mut() {
                *given = json!(number - given.as_u64().unwrap());
            }
        }
        if let Some(time) = record.get_mut("affinity_claim_time") {
            *time = json!("then");
        }
    }
    records
}

fn leaves(act: Act, before: &[(&str, Json)], after: &[(&str, Json)]) {
    let records = |pairs: &[(&str, Json)]| -> Records {
        let pairs = pairs
            .iter()
            .map(|(path, record)| ((*path).to_owned(), record.clone()));
        pairs.collect()
    };
    let store = Store::with(&records(before));
    store.act(&act, &["10.20.30.0/24", "fd00:9::/120"]);
    assert_eq!(comparable(store.records()), comparable(records(after)));
}

const BLOCK: &str = "/calico/ipam/v2/assignment/ipv4/block/10.20.30.4-30";
const AFFINITY: &str = "/calico/ipam/v2/host/alpha/ipv4/block/10.20.30.4-30";
const FIRST: u64 = 1_795_222_770_930_025_600;

fn pod(name: &str) -> Json {
    json!({"namespace": "shop", "node": "alpha", "pod": name, "timestamp": "2026-03-01 08:00:01.5 +0000 UTC"})
}

/// A block of alpha's with these allocations, free ordinals, attributes, its sequence number and those of its ordinals.
fn block(allocations: Json, unallocated: Json, attributes: Json, number: u64, each: Json) -> Json {
    json!({
        "cidr": "10.20.30.4/30", "affinity": "host:alpha", "affinity_claim_time": "2026-03-01T08:00:00Z",
        "allocations": allocations, "unallocated": unallocated, "attributes": attributes,
        "sequenceNumber": number, "sequenceNumberForAllocation": each, "deleted": false
    })
}

fn handle(count: u64) -> Json {
    json!({"block": {"10.20.30.4/30": count}, "deleted": false})
}

fn confirmed() -> Json {
    json!({"state": "confirmed", "deleted": false})
}

fn held(handle: &str, pod_name: &str) -> Json {
    json!({"handle_id": handle, "secondary": pod(pod_name)})
}

#[test]
fn the_longest_free_address_of_an_own_block() {
    let empty = block(
        json!([null, null, null, null]),
        json!([2, 3, 0, 1]),
        json!([]),
        FIRST,
        json!({}),
    );
    let given = block(
        json!([null, null, 0, null]),
        json!([3, 0, 1]),
        json!([held("net.c1", "web-0")]),
        FIRST + 1,
        json!({"2": FIRST}),
    );
    leaves(
        Act::Assign(Family::V4, "net.c1", pod("web-0")),
        &[(BLOCK, empty), (AFFINITY, confirmed())],
        &[
            (BLOCK, given),
            (AFFINITY, confirmed()),
            ("/calico/ipam/v2/handle/net.c1", handle(1)),
        ],
    );
}

/// Here Calico gives another address: it does not look whether the handle has one.
#[test]
fn asked_again_a_handle_keeps_what_it_has() {
    let one = block(
        json!([0, null, null, null]),
        json!([1, 2, 3]),
        json!([held("net.c1", "web-0")]),
        FIRST + 1,
        json!({"0": FIRST}),
    );
    let mut later = pod("web-0");
    later["timestamp"] = json!("2026-03-01 09:00:00.25 +0000 UTC");
    let mut again = one.clone();
    again["sequenceNumber"] = json!(FIRST + 2);
    let path = "/calico/ipam/v2/handle/net.c1";
    leaves(
        Act::Assign(Family::V4, "net.c1", later),
        &[(BLOCK, one), (AFFINITY, confirmed()), (path, handle(1))],
        &[(BLOCK, again), (AFFINITY, confirmed()), (path, handle(1))],
    );
}

#[test]
fn a_chosen_address_makes_its_block() {
    let made = block(
        json!([null, null, null, 0]),
        json!([0, 1, 2]),
        json!([{"handle_id": "net.c1", "secondary": {"node": "alpha", "timestamp": "t"}}]),
        FIRST + 1,
        json!({"3": FIRST}),
    );
    leaves(
        Act::AssignThis("10.20.30.7", "net.c1", json!({"node": "alpha", "timestamp": "t"})),
        &[],
        &[
            (BLOCK, made),
            (AFFINITY, confirmed()),
            ("/calico/ipam/v2/handle/net.c1", handle(1)),
        ],
    );
}

#[test]
fn a_chosen_address_is_borrowed_from_another_node() {
    let before = block(
        json!([0, null, null, null]),
        json!([1, 2, 3]),
        json!([held("net.c1", "web-0")]),
        FIRST + 1,
        json!({"0": FIRST}),
    );
    let theirs = json!({"node": "beta", "timestamp": "t"});
    let borrowed = block(
        json!([0, null, 1, null]),
        json!([1, 3]),
        json!([held("net.c1", "web-0"), {"handle_id": "net.c2", "secondary": theirs}]),
        FIRST + 2,
        json!({"0": FIRST, "2": FIRST + 1}),
    );
    let path = "/calico/ipam/v2/handle/net.c1";
    leaves(
        Act::AssignThis("10.20.30.6", "net.c2", theirs.clone()),
        &[(BLOCK, before), (AFFINITY, confirmed()), (path, handle(1))],
        &[
            (BLOCK, borrowed),
            (AFFINITY, confirmed()),
            (path, handle(1)),
            ("/calico/ipam/v2/handle/net.c2", handle(1)),
        ],
    );
}

#[test]
fn a_release_queues_the_address_last_and_numbers_the_holders_anew() {
    let before = block(
        json!([0, 1, null, 0]),
        json!([2]),
        json!([held("net.c1", "web-0"), held("net.c2", "web-1")]),
        FIRST + 3,
        json!({"0": FIRST, "1": FIRST + 1, "3": FIRST + 2}),
    );
    let after = block(
        json!([null, 0, null, null]),
        json!([2, 0, 3]),
        json!([held("net.c2", "web-1")]),
        FIRST + 4,
        json!({"1": FIRST + 1}),
    );
    let path = "/calico/ipam/v2/handle/net.c2";
    leaves(
        Act::Release("net.c1"),
        &[
            (BLOCK, before),
            (AFFINITY, confirmed()),
            ("/calico/ipam/v2/handle/net.c1", handle(2)),
            (path, handle(1)),
        ],
        &[(BLOCK, after), (AFFINITY, confirmed()), (path, handle(1))],
    );
}

#[test]
fn the_last_address_of_a_block_that_is_nobodys_takes_it_along() {
    let mut orphan = block(
        json!([0, null, null, null]),
        json!([1, 2, 3]),
        json!([held("net.c1", "web-0")]),
        FIRST + 1,
        json!({"0": FIRST}),
    );
    orphan["affinity"] = Json::Null;
    leaves(
        Act::Release("net.c1"),
        &[(BLOCK, orphan), ("/calico/ipam/v2/handle/net.c1", handle(1))],
        &[],
    );
}

#[test]
fn an_address_of_ipv6() {
    let path = "/calico/ipam/v2/assignment/ipv6/block/fd00:9::4-126";
    let mut empty = block(
        json!([null, null, null, null]),
        json!([0, 1, 2, 3]),
        json!([]),
        FIRST,
        json!({}),
    );
    empty["cidr"] = json!("fd00:9::4/126");
    let mut given = block(
        json!([0, null, null, null]),
        json!([1, 2, 3]),
        json!([held("net.c1", "web-0")]),
        FIRST + 1,
        json!({"0": FIRST}),
    );
    given["cidr"] = json!("fd00:9::4/126");
    let affinity = "/calico/ipam/v2/host/alpha/ipv6/block/fd00:9::4-126";
    leaves(
        Act::Assign(Family::V6, "net.c1", pod("web-0")),
        &[(path, empty), (affinity, confirmed())],
        &[
            (path, given),
            (affinity, confirmed()),
            (
                "/calico/ipam/v2/handle/net.c1",
                json!({"block": {"fd00:9::4/126": 1}, "deleted": false}),
            ),
        ],
    );
}
