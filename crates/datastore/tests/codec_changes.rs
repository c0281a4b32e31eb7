//! What operations make of stored records, and that any record survives its bytes.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::collections::BTreeMap;

use buoy_api::binding::{BindingSpec, Candidate, Condition, Owner, Term};
use buoy_api::ipam::{AffinityOwner, Attribute, Block, Handle};
use buoy_api::v3::{IpPool, IpPoolSpec};
use buoy_api::{Binding, Extra, ObjectMeta};
use buoy_core::store::{Bad, Key, Part, Revision, StoreOp, Value, Writer};
use buoy_datastore::codec::{Change, Moment, change, decode, encode};
use ipnet::{IpNet, Ipv4Net};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

const NOW: &str = "2026-03-01T08:00:00.75Z";
const AT: Revision = Revision(7);

fn moment() -> Moment {
    Moment {
        now: NOW.parse().unwrap(),
        uid: "new-uid".to_owned(),
    }
}

fn pool() -> IpPool {
    let mut pool = IpPool::new(
        ObjectMeta::named("front"),
        IpPoolSpec::new("10.20.0.0/16".parse().unwrap()),
    );
    pool.status.insert("written".to_owned(), json!("by a client"));
    pool.metadata
        .extra
        .insert("resourceVersion".to_owned(), json!("12"));
    pool
}

fn pool_key() -> Key {
    Key::Pool("front".to_owned())
}

fn put(change: Result<Change, Bad>) -> Json {
    match change {
        Ok(Change::Put(bytes)) => serde_json::from_slice(&bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn creation_gives_identity_and_no_status() {
    let json = put(change(
        &StoreOp::Create(pool_key(), Value::Pool(pool())),
        None,
        moment,
    ));
    assert_eq!(json["metadata"]["uid"], "new-uid");
    assert_eq!(json["metadata"]["creationTimestamp"], "2026-03-01T08:00:00Z");
    assert_eq!(json["metadata"].get("resourceVersion"), None);
    assert_eq!(json.get("status"), None);

    let mut restored = pool();
    restored.metadata.uid = Some("old-uid".to_owned());
    let json = put(change(
        &StoreOp::Create(pool_key(), Value::Pool(restored)),
        None,
        moment,
    ));
    assert_eq!(json["metadata"]["uid"], "old-uid");
}

#[test]
fn an_update_keeps_identity_and_status() {
    let stored = json!({
        "metadata": {"name": "front", "uid": "old-uid", "creationTimestamp": "2020-01-01T00:00:00Z", "labels": {"gone": ""}},
        "status": {"conditions": ["kept"]}
    })
    .to_string();
    let op = StoreOp::Update(pool_key(), Value::Pool(pool()), AT);
    let json = put(change(&op, Some((stored.as_bytes(), AT)), moment));
    assert_eq!(json["metadata"]["uid"], "old-uid");
    assert_eq!(json["metadata"]["creationTimestamp"], "2020-01-01T00:00:00Z");
    assert_eq!(json["metadata"].get("labels"), None);
    assert_eq!(json["status"], json!({"conditions": ["kept"]}));
    assert_eq!(json["spec"]["cidr"], "10.20.0.0/16");

    let json = put(change(&op, Some((b"garbage", AT)), moment));
    assert_eq!(json["spec"]["cidr"], "10.20.0.0/16", "garbage can be replaced");
}

#[test]
fn an_operation_on_another_state_is_a_conflict() {
    let value = Value::Pool(pool());
    let stored = encode(&value).unwrap();
    let other = Some((stored.as_slice(), Revision(8)));
    for (op, stored) in [
        (StoreOp::Create(pool_key(), value.clone()), other),
        (StoreOp::Update(pool_key(), value.clone(), AT), other),
        (StoreOp::Update(pool_key(), value.clone(), AT), None),
        (StoreOp::Delete(pool_key(), AT), other),
        (StoreOp::Delete(pool_key(), AT), None),
        (
            StoreOp::Apply(binding_key(), Writer("n1".into()), Part::default()),
            None,
        ),
    ] {
        assert_eq!(change(&op, stored, moment), Ok(Change::Conflict), "{op:?}");
    }
}

#[test]
fn what_could_not_be_read_is_not_written() {
    let misnamed = StoreOp::Create(Key::Pool("other".into()), Value::Pool(pool()));
    assert!(change(&misnamed, None, moment).is_err());
    let miskeyed = StoreOp::Create(Key::Profile("front".into()), Value::Pool(pool()));
    assert!(change(&miskeyed, None, moment).is_err());
    for address in ["172.16.1.4", "::ffff:172.16.1.3", "127.0.0.1"] {
        let mut wrong = binding(None);
        wrong.spec.address = address.parse().unwrap();
        let op = StoreOp::Create(binding_key(), Value::Binding(wrong));
        assert!(change(&op, None, moment).is_err(), "{address}");
    }
}

#[test]
fn a_binding_whose_name_is_not_its_address_is_bad() {
    let mut wrong = binding(None);
    wrong.spec.address = "172.16.1.4".parse().unwrap();
    let bytes = encode(&Value::Binding(wrong)).unwrap();
    let bad = decode(&binding_key(), &bytes).unwrap_err();
    assert!(
        bad.reason.contains("172-16-1-3") && bad.reason.contains("172-16-1-4"),
        "{bad}"
    );
}

fn binding_key() -> Key {
    Key::Binding("172-16-1-3".to_owned())
}

fn binding(owner: Option<&str>) -> Binding {
    let candidate = owner.map(|node| candidate(node, "w0"));
    Binding::new(
        ObjectMeta::named("172-16-1-3"),
        BindingSpec {
            address: "172.16.1.3".parse().unwrap(),
            namespace: "shop".to_owned(),
            owner: candidate.map(|candidate| -> Owner { candidate.as_owner(Term(1)) }),
            ..BindingSpec::default()
        },
    )
}

fn candidate(node: &str, workload: &str) -> Candidate {
    Candidate {
        node: node.to_owned(),
        workload: workload.to_owned(),
        endpoint: "eth0".to_owned(),
        uid: String::new(),
        internal_ip: "10.65.0.1".parse().unwrap(),
        ready: true,
        priority: 0,
        since: NOW.parse().unwrap(),
    }
}

fn condition(kind: &str) -> Condition {
    Condition {
        kind: kind.to_owned(),
        status: "True".to_owned(),
        reason: String::new(),
        message: String::new(),
    }
}

/// Applies a part to a binding; `None` if nothing changes.
fn apply(binding: &mut Binding, node: &str, workloads: &[&str], conditions: &[&str]) -> bool {
    let part = Part {
        candidates: workloads
            .iter()
            .map(|workload| candidate(node, workload))
            .collect(),
        conditions: conditions.iter().map(|kind| condition(kind)).collect(),
    };
    let stored = encode(&Value::Binding(binding.clone())).unwrap();
    let op = StoreOp::Apply(binding_key(), Writer(node.to_owned()), part);
    match change(&op, Some((&stored, AT)), moment).unwrap() {
        Change::Put(bytes) => {
            let Ok(Value::Binding(after)) = decode(&binding_key(), &bytes) else {
                panic!("{bytes:?}");
            };
            *binding = after;
            true
        }
        Change::Nothing(AT) => false,
        other => panic!("{other:?}"),
    }
}

fn who(binding: &Binding) -> Vec<String> {
    let candidates = binding.status.candidates.iter();
    candidates
        .map(|candidate| format!("{}/{}", candidate.node, candidate.workload))
        .collect()
}

#[test]
fn each_node_writes_its_own_part() {
    let mut binding = binding(Some("n1"));
    assert!(apply(&mut binding, "n2", &["b", "a"], &[]));
    assert!(apply(&mut binding, "n1", &["w0"], &["Accepted", "Programmed"]));
    assert_eq!(who(&binding), ["n1/w0", "n2/a", "n2/b"]);
    assert!(
        !apply(&mut binding, "n2", &["a", "b"], &[]),
        "nothing new is not written"
    );
    assert!(apply(&mut binding, "n2", &["b"], &[]));
    assert_eq!(who(&binding), ["n1/w0", "n2/b"]);
    assert_eq!(
        binding.status.conditions.len(),
        2,
        "a standby takes no conditions away"
    );
    assert!(apply(&mut binding, "n1", &[], &[]));
    assert_eq!(who(&binding), ["n2/b"]);
    assert!(binding.status.conditions.is_empty());
}

#[test]
fn without_an_owner_no_conditions_stay() {
    let mut binding = binding(None);
    assert!(apply(&mut binding, "n1", &["w0"], &["Accepted"]));
    assert!(apply(&mut binding, "n2", &["w1"], &[]));
    assert!(binding.status.conditions.is_empty());
}

#[test]
fn one_condition_is_the_controllers_and_no_node_takes_it_away() {
    for owner in [Some("n1"), None] {
        let mut binding = binding(owner);
        assert!(apply(&mut binding, "buoy-controller", &[], &["Contested"]));
        assert!(apply(&mut binding, "n1", &["w0"], &["Accepted"]));
        assert!(apply(&mut binding, "n1", &[], &[]));
        let kinds = |binding: &Binding| {
            let kinds = binding
                .status
                .conditions
                .iter()
                .map(|condition| condition.kind.clone());
            kinds.collect::<Vec<_>>()
        };
        assert_eq!(kinds(&binding), ["Contested"]);
        assert!(apply(&mut binding, "n1", &["w0"], &["Accepted"]));
        assert!(apply(&mut binding, "buoy-controller", &[], &[]));
        assert_eq!(kinds(&binding), ["Accepted"], "nor does it take what is theirs");
    }
}

#[test]
fn a_part_with_somebody_elses_candidate_is_refused() {
    let stored = encode(&Value::Binding(binding(None))).unwrap();
    let part = Part {
        candidates: vec![candidate("n1", "w0")],
        conditions: Vec::new(),
    };
    let op = StoreOp::Apply(binding_key(), Writer("n2".into()), part);
    assert!(change(&op, Some((&stored, AT)), moment).is_err());
}

fn extra() -> impl Strategy<Value = Extra> {
    let json = prop_oneof![
        any::<u64>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        ".*".prop_map(Json::from),
        prop::collection::vec(any::<bool>(), 0..3).prop_map(Json::from),
    ];
    prop::collection::btree_map("x-[a-z]{1,8}", json, 0..3).prop_map(|map| map.into_iter().collect())
}

fn attribute() -> impl Strategy<Value = Attribute> {
    let time = prop::option::of(0_i64..4_000_000_000)
        .prop_map(|second| second.map(|second| Timestamp::from_second(second).unwrap()));
    let secondary = prop::collection::btree_map("[a-z]{1,6}", ".*", 0..4);
    (prop::option::of(".*"), secondary, time, extra()).prop_map(|(handle, secondary, released_at, extra)| {
        Attribute {
            handle,
            secondary,
            released_at,
            extra,
        }
    })
}

prop_compose! {
    fn block()(
        address in any::<u32>(),
        length in 26_u8..=32,
        affinity in prop::option::of("[a-z.:]{1,20}"),
        attributes in prop::collection::vec(attribute(), 1..5),
        given in prop::collection::vec(prop::option::of(any::<prop::sample::Index>()), 64),
        numbers in prop::collection::btree_map(0_usize..64, any::<u64>(), 0..8),
        sequence_number in any::<u64>(),
        deleted in any::<bool>(),
        extra in extra(),
    ) -> Block {
        let size = 1 << (32 - length);
        let allocations: Vec<Option<usize>> = given[..size]
            .iter()
            .map(|index| index.map(|index| index.index(attributes.len())))
            .collect();
        Block {
            cidr: IpNet::V4(Ipv4Net::new(address.into(), length).unwrap().trunc()),
            affinity: affinity.map(AffinityOwner::Host),
            affinity_claim_time: None,
            unallocated: (0..size).rev().filter(|ordinal| allocations[*ordinal].is_none()).collect(),
            allocations,
            attributes,
            sequence_number,
            sequence_number_for_allocation: numbers,
            deleted,
            extra,
        }
    }
}

proptest! {
    #[test]
    fn any_block_survives_its_bytes(block in block()) {
        let key = Key::Block(block.cidr);
        let value = Value::Block(block);
        prop_assert_eq!(decode(&key, &encode(&value).unwrap()), Ok(value));
    }

    #[test]
    fn any_handle_survives_its_bytes(
        counts in prop::collection::btree_map((any::<[u8; 16]>(), 0_u8..=128), any::<u32>(), 0..5),
        deleted in any::<bool>(),
        extra in extra(),
    ) {
        let blocks: BTreeMap<IpNet, u32> = counts
            .into_iter()
            .map(|((address, length), count)| (IpNet::new(address.into(), length).unwrap().trunc(), count))
            .collect();
        let value = Value::Handle(Handle { blocks, deleted, extra });
        prop_assert_eq!(decode(&Key::Handle("h".into()), &encode(&value).unwrap()), Ok(value));
    }

    #[test]
    fn any_bytes_are_a_value_or_a_reason(bytes in prop::collection::vec(any::<u8>(), 0..60), text in r#"[\{\}\[\]",:a-z0-9]{0,60}"#) {
        let keys = [
            pool_key(),
            binding_key(),
            Key::Handle("h".into()),
            Key::IpamConfig,
            Key::Block("10.0.0.0/30".parse().unwrap()),
        ];
        for key in keys {
            for bytes in [bytes.as_slice(), text.as_bytes()] {
                if let Err(bad) = decode(&key, bytes) {
                    prop_assert!(!bad.reason.is_empty());
                }
            }
        }
    }

    #[test]
    fn the_order_in_which_nodes_write_does_not_matter(
        writes in prop::collection::vec((0_usize..4, prop::sample::subsequence(vec!["a", "b", "c"], 0..=3)), 1..8),
    ) {
        let nodes = ["n0", "n1", "n2", "n3"];
        let mut in_turn = binding(None);
        for (node, workloads) in &writes {
            apply(&mut in_turn, nodes[*node], workloads, &[]);
        }
        let last: BTreeMap<usize, &Vec<&str>> = writes.iter().map(|(node, workloads)| (*node, workloads)).collect();
        let mut at_once = binding(None);
        for (node, workloads) in last.iter().rev() {
            apply(&mut at_once, nodes[*node], workloads, &[]);
        }
        prop_assert_eq!(in_turn.status, at_once.status);
    }
}
