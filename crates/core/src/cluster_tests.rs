use buoy_api::binding::Candidate;
use buoy_api::ipam::Attribute;
use buoy_api::lease::NodeLeaseSpec;
use buoy_api::meta::ObjectMeta;

use super::*;
use crate::fixtures::{FLOATING, binding, block, candidate, floating, key_of, node, pod, record, time};
use crate::store::{Bad, Value};

const POD: &str = "10.65.0.7";
const SHOP: [(&str, &str); 3] = [("namespace", "shop"), ("pod", "web-0"), ("node", "n1")];
const MINUTE: Duration = Duration::from_secs(60);

/// Nodes n1 and n2.
fn cluster() -> Cluster {
    let mut cluster = Cluster::new(Settings {
        grace: 15 * MINUTE,
        node_grace: 5 * MINUTE,
        hold: 10 * MINUTE,
    });
    put(&mut cluster, Value::Node(node("n1", "192.0.2.1/24")));
    put(&mut cluster, Value::Node(node("n2", "192.0.2.2/24")));
    cluster
}

fn put(cluster: &mut Cluster, value: Value) {
    tell(cluster, key_of(&value), Some(Ok(value)));
}

fn tell(cluster: &mut Cluster, key: Key, value: Option<Result<Value, Bad>>) {
    cluster.apply(Delta {
        key,
        revision: Revision(3),
        value,
    });
}

fn forget_node(cluster: &mut Cluster, name: &str) {
    tell(cluster, Key::Node(name.to_owned()), None);
}

/// A block in which [`POD`] is given, with these attributes.
fn given(says: &[(&str, &str)]) -> Block {
    block("10.65.0.0/29", 7, Some("net.c-web-0"), says)
}

fn published(addresses: &[&str]) -> Value {
    published_by("c-web-0", addresses)
}

fn published_by(container: &str, addresses: &[&str]) -> Value {
    let mut record = record(&pod("web-0", 7), &[]);
    record.spec.container_id = container.to_owned();
    record.spec.pod = "web-0".to_owned();
    record.spec.ip_networks = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Value::Endpoint(record)
}

/// What stands at second 1600, when the hold of the fixtures' binding ends.
fn standing(cluster: &Cluster) -> Vec<(Chore, u64)> {
    let standing = cluster.standing(time(1600)).into_iter();
    standing
        .map(|(chore, grace)| (chore, grace.as_secs() / 60))
        .collect()
}

fn freed() -> Chore {
    Chore::FreeAddresses {
        handle: "net.c-web-0".to_owned(),
        addresses: vec![(POD.parse().unwrap(), 4)],
    }
}

fn lease(name: &str, term: u64) -> Value {
    Value::Lease(NodeLease::new(
        ObjectMeta::named(name),
        NodeLeaseSpec {
            term: Term(term),
            ..NodeLeaseSpec::default()
        },
    ))
}

#[test]
fn an_address_that_no_pod_has_is_a_leak() {
    let mut cluster = cluster();
    put(&mut cluster, Value::Block(given(&SHOP)));
    assert_eq!(standing(&cluster), [(freed(), 15)]);
    // The pod of that name has another container by now.
    put(&mut cluster, published_by("c-later", &["10.65.0.6/32"]));
    assert_eq!(standing(&cluster), [(freed(), 15)]);
    put(&mut cluster, published(&["10.65.0.7/32"]));
    assert_eq!(standing(&cluster), []);
    // On its way.
    put(&mut cluster, published(&[]));
    assert_eq!(standing(&cluster), []);
    let gone = key_of(&published(&[]));
    tell(&mut cluster, gone.clone(), None);
    assert_eq!(standing(&cluster), [(freed(), 15)]);
    let bad = Bad {
        reason: "garbage".to_owned(),
    };
    tell(&mut cluster, gone, Some(Err(bad)));
    assert_eq!(standing(&cluster), [], "it may say anything");
}

#[test]
fn what_was_given_to_another_interface_of_a_living_container_is_kept() {
    let mut cluster = cluster();
    let second = block("10.65.0.0/29", 7, Some("storage.c-web-0"), &SHOP);
    put(&mut cluster, Value::Block(second));
    put(&mut cluster, published(&["10.65.0.6/32"]));
    assert_eq!(standing(&cluster), []);
    let before = block("10.65.0.0/29", 7, Some("storage.c-before"), &SHOP);
    put(&mut cluster, Value::Block(before));
    assert_eq!(standing(&cluster).len(), 1, "that container is no more");
}

#[test]
fn a_pod_of_that_name_on_another_node_is_another() {
    let mut cluster = cluster();
    put(&mut cluster, published(&["10.65.0.7/32"]));
    let elsewhere = [("namespace", "shop"), ("pod", "web-0"), ("node", "n2")];
    put(&mut cluster, Value::Block(given(&elsewhere)));
    assert_eq!(standing(&cluster), [(freed(), 15)]);
}

#[test]
fn what_was_given_on_a_node_that_is_gone_is_freed_sooner() {
    let mut cluster = cluster();
    put(&mut cluster, Value::Block(given(&SHOP)));
    forget_node(&mut cluster, "n1");
    assert_eq!(standing(&cluster), [(freed(), 5)]);
    for says in [
        [("node", "n1")].as_slice(),
        &[("node", "n1"), ("type", "ipipTunnelAddress")],
    ] {
        put(&mut cluster, Value::Block(given(says)));
        assert_eq!(standing(&cluster), [(freed(), 5)], "{says:?}");
    }
    forget_node(&mut cluster, "n2");
    assert_eq!(standing(&cluster), [], "a store without nodes says nothing");
}

#[test]
fn what_is_nobodys_that_can_be_asked_for_stays() {
    let mut cluster = cluster();
    let of_machine: Vec<_> = SHOP.into_iter().chain([("vmi-name", "vm")]).collect();
    for says in [
        [].as_slice(),
        &[("node", "n1")],
        &[("node", "n1"), ("type", "ipipTunnelAddress")],
        &[("node", "gone"), ("type", "service")],
        &of_machine,
    ] {
        put(&mut cluster, Value::Block(given(says)));
        assert_eq!(standing(&cluster), [], "{says:?}");
    }
    let mut cooling = given(&SHOP);
    cooling.attributes[0].released_at = Some(time(1));
    let mut unstamped = given(&SHOP);
    unstamped.sequence_number_for_allocation.clear();
    for block in [cooling, unstamped, self::block("10.65.0.0/29", 7, None, &SHOP)] {
        put(&mut cluster, Value::Block(block));
        assert_eq!(standing(&cluster), []);
    }
}

#[test]
fn addresses_of_a_handle_are_freed_together_or_not_at_all() {
    let mut cluster = cluster();
    let mut two = given(&SHOP);
    two.allocations[6] = Some(0);
    two.sequence_number_for_allocation.insert(6, 3);
    put(&mut cluster, Value::Block(two.clone()));
    let both = Chore::FreeAddresses {
        handle: "net.c-web-0".to_owned(),
        addresses: vec![("10.65.0.6".parse().unwrap(), 3), (POD.parse().unwrap(), 4)],
    };
    assert_eq!(standing(&cluster), [(both, 15)]);
    two.attributes.push(Attribute {
        secondary: [].into(),
        ..two.attributes[0].clone()
    });
    two.allocations[6] = Some(1);
    put(&mut cluster, Value::Block(two));
    assert_eq!(standing(&cluster), [], "one of them is in use");
}

#[test]
fn a_reservation_without_a_binding_is_freed_and_one_with_it_is_not() {
    let mut cluster = cluster();
    let says = [("type", "floatingIP"), ("binding", "172-16-1-3")];
    let block = block("172.16.1.0/29", 3, Some("buoy-fip-172-16-1-3"), &says);
    put(&mut cluster, Value::Block(block));
    let chore = Chore::FreeReservation {
        floating: floating(FLOATING),
        stamp: 4,
    };
    assert_eq!(standing(&cluster), [(chore, 1)]);
    let owner = candidate(&pod("web-0", 7));
    put(&mut cluster, Value::Binding(binding(Some(&owner))));
    assert_eq!(standing(&cluster), []);
}

#[test]
fn a_binding_that_nobody_wants_is_collected_after_its_hold() {
    let mut cluster = cluster();
    put(&mut cluster, Value::Binding(binding(None)));
    let chore = Chore::Collect {
        floating: floating(FLOATING),
        revision: Revision(3),
    };
    assert_eq!(standing(&cluster), [(chore, 0)]);
    assert!(cluster.standing(time(1599)).is_empty());
    let mut wanted = binding(None);
    wanted.status.candidates.push(candidate(&pod("web-0", 7)));
    put(&mut cluster, Value::Binding(wanted));
    assert_eq!(standing(&cluster), []);
}

#[test]
fn claims_of_blocks_by_nodes_that_are_gone_are_given_up() {
    let mut cluster = cluster();
    let host = |name: &str| AffinityOwner::Host(name.to_owned());
    let cidr: IpNet = "10.65.0.0/29".parse().unwrap();
    let mut empty = given(&SHOP);
    empty.allocations[7] = None;
    empty.affinity = Some(host("n1"));
    put(&mut cluster, Value::Block(empty));
    for owner in [host("n3"), host("n1"), AffinityOwner::Virtual("n3".to_owned())] {
        let claim = buoy_api::ipam::BlockAffinity {
            state: buoy_api::ipam::AffinityState::Pending,
            deleted: false,
            extra: buoy_api::meta::Extra::new(),
        };
        let key = Key::Affinity { owner, cidr };
        tell(&mut cluster, key, Some(Ok(Value::Affinity(claim))));
    }
    let given_up = |name: &str| {
        let owner = host(name);
        (Chore::GiveUpBlock { owner, cidr }, 5)
    };
    assert_eq!(standing(&cluster), [given_up("n3")]);
    forget_node(&mut cluster, "n1");
    assert_eq!(standing(&cluster), [given_up("n1"), given_up("n3")]);
}

/// The binding, owned on n1 with term 0, and a candidate there.
fn owned(cluster: &mut Cluster) -> Candidate {
    let owner = candidate(&pod("web-0", 7));
    let mut binding = binding(Some(&owner));
    binding.status.candidates.push(owner.clone());
    put(cluster, Value::Binding(binding));
    owner
}

#[test]
fn an_owner_on_a_node_that_is_gone_loses_its_lease_and_then_its_address() {
    let mut cluster = cluster();
    let floating = floating(FLOATING);
    owned(&mut cluster);
    put(&mut cluster, lease("n1", 0));
    assert_eq!(standing(&cluster), []);
    forget_node(&mut cluster, "n1");
    let forget = Chore::ForgetCandidates {
        floating,
        node: "n1".to_owned(),
    };
    let revoke = |revision| Chore::RevokeLease {
        node: "n1".to_owned(),
        revision,
        owner: Term(0),
    };
    assert_eq!(
        standing(&cluster),
        [(forget.clone(), 5), (revoke(Some(Revision(3))), 5)]
    );
    tell(&mut cluster, Key::Lease("n1".to_owned()), None);
    assert_eq!(standing(&cluster), [(forget.clone(), 5), (revoke(None), 5)]);
    put(&mut cluster, lease("n1", 1));
    let disown = Chore::Disown {
        floating,
        revision: Revision(3),
    };
    assert_eq!(standing(&cluster), [(forget, 5), (disown, 0)]);
    let graces = cluster.standing(time(1600));
    assert!(graces.values().any(|grace| *grace == Duration::from_secs(10)));
}

#[test]
fn leases_of_nodes_that_are_gone_are_deleted_once_they_stand_for_nothing() {
    let mut cluster = cluster();
    for name in ["n1", "n3", ELECTION] {
        put(&mut cluster, lease(name, 2));
    }
    let delete = Chore::DeleteLease {
        node: "n3".to_owned(),
        revision: Revision(3),
    };
    assert_eq!(standing(&cluster), [(delete, 5)]);
    let bad = Bad {
        reason: "garbage".to_owned(),
    };
    tell(&mut cluster, Key::Lease("n3".to_owned()), Some(Err(bad)));
    owned(&mut cluster);
    assert_eq!(standing(&cluster), []);
}

#[test]
fn an_address_that_is_asked_for_on_a_node_without_an_agent_is_contested() {
    let mut cluster = cluster();
    owned(&mut cluster);
    let asks = record(&pod("web-0", 7), &[("10.65.0.7", FLOATING)]);
    put(&mut cluster, Value::Endpoint(asks));
    let nodes = |nodes: &[&str]| Chore::Contest {
        floating: floating(FLOATING),
        nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
    };
    assert_eq!(standing(&cluster), [(nodes(&["n1"]), 0)]);
    let mut binding = cluster.binding(floating(FLOATING)).unwrap().0.clone();
    binding.status.conditions.extend(contested(&["n1".to_owned()]));
    put(&mut cluster, Value::Binding(binding.clone()));
    assert_eq!(standing(&cluster), [], "it is said");
    // An agent begins there.
    let mut marked = node("n1", "192.0.2.1/24");
    let mark = (buoy_api::annotations::AGENT.to_owned(), "0.1.0".to_owned());
    marked.metadata.annotations.extend([mark]);
    put(&mut cluster, Value::Node(marked));
    assert_eq!(standing(&cluster), [(nodes(&[]), 0)]);
    binding.status.conditions.clear();
    put(&mut cluster, Value::Binding(binding));
    assert_eq!(standing(&cluster), []);
}

#[test]
fn a_record_that_cannot_be_read_ends_no_contest() {
    let mut cluster = cluster();
    let mut said = binding(None);
    said.status.conditions.extend(contested(&["n1".to_owned()]));
    put(&mut cluster, Value::Binding(said));
    let asks = Value::Endpoint(record(&pod("web-0", 7), &[("10.65.0.7", FLOATING)]));
    let key = key_of(&asks);
    put(&mut cluster, asks);
    let bad = || Bad {
        reason: "garbage".to_owned(),
    };
    tell(&mut cluster, key.clone(), Some(Err(bad())));
    assert_eq!(standing(&cluster), []);
    tell(&mut cluster, key, None);
    assert_eq!(standing(&cluster).len(), 1);
}

#[test]
fn a_binding_that_is_contested_is_not_collected() {
    let mut cluster = cluster();
    let mut contested = binding(None);
    contested
        .status
        .conditions
        .extend(super::contested(&["n1".to_owned()]));
    put(&mut cluster, Value::Binding(contested));
    let asks = record(&pod("web-0", 7), &[("10.65.0.7", FLOATING)]);
    put(&mut cluster, Value::Endpoint(asks));
    assert_eq!(standing(&cluster), []);
}
