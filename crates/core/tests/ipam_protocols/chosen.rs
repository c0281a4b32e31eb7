//! Chosen addresses: whose block, who has it, strict affinity.

use buoy_api::ipam::AffinityOwner;
use buoy_core::ipam::{IpamError, block};
use buoy_core::store::{Key, Value};

use crate::cluster::{Cluster, ip, net, texts};

#[test]
fn a_chosen_address_claims_its_block_and_is_given_once() {
    let mut cluster = Cluster::new();
    let assigned = cluster
        .choose("n1", "net.web-0", &["fd00::9", "10.0.0.9"])
        .unwrap();
    assert_eq!(texts(&assigned), ["10.0.0.9/30", "fd00::9/126"]);
    assert_eq!(
        cluster.block("10.0.0.8/30").unwrap().affinity,
        Some(AffinityOwner::Host("n1".to_owned()))
    );
    assert_eq!(cluster.block("10.0.0.8/30").unwrap().unallocated, [0, 2, 3]);

    let again = cluster
        .choose("n1", "net.web-0", &["10.0.0.9", "fd00::9"])
        .unwrap();
    assert_eq!(texts(&again), texts(&assigned));
    assert_eq!(cluster.handle("net.web-0").unwrap()[&net("10.0.0.8/30")], 1);

    let error = cluster.choose("n2", "net.web-1", &["10.0.0.9"]).unwrap_err();
    assert!(error.is_in_use());
    insta::assert_snapshot!(error, @"
    resource already exists: 10.0.0.9 with error: Address already assigned in block
    held by pod: shop/web-0 on node n1
    ");
    assert_eq!(cluster.handle("net.web-1"), None);
}

#[test]
fn chosen_addresses_are_all_or_nothing() {
    let mut cluster = Cluster::new();
    cluster.choose("n2", "net.other", &["fd00::9"]).unwrap();
    assert!(
        cluster
            .choose("n1", "net.a", &["10.0.0.9", "fd00::9"])
            .unwrap_err()
            .is_in_use()
    );
    assert_eq!(cluster.handle("net.a"), None);
    assert!(cluster.block("10.0.0.8/30").unwrap().is_empty());
    assert!(
        cluster
            .choose("n1", "net.a", &["10.0.0.9", "10.1.0.9"])
            .unwrap_err()
            .is_refused()
    );
    assert_eq!(
        cluster.log,
        Vec::<String>::new(),
        "pools are looked at before anything is written"
    );
}

#[test]
fn an_address_in_a_foreign_block_is_borrowed_unless_affinity_is_strict() {
    let mut cluster = Cluster::new();
    cluster.choose("n1", "net.a", &["10.0.0.8"]).unwrap();
    cluster.choose("n2", "net.b", &["10.0.0.9"]).unwrap();
    assert_eq!(
        cluster.block("10.0.0.8/30").unwrap().affinity,
        Some(AffinityOwner::Host("n1".to_owned()))
    );
    cluster.snapshot.config.strict_affinity = true;
    let error = cluster.choose("n2", "net.c", &["10.0.0.10"]).unwrap_err();
    insta::assert_snapshot!(error, @"
    Block host affinity does not match
    10.0.0.10 lies in block 10.0.0.8/30 of host:n1; strict affinity is on: choose an address from a block of this node, or run the workload there
    ");
    assert!(error.is_refused());
    cluster.choose("n1", "net.c", &["10.0.0.10"]).unwrap();
}

#[test]
fn beyond_the_block_limit_a_chosen_address_lies_in_a_block_of_nobody() {
    let mut cluster = Cluster::new();
    cluster.snapshot.config.max_blocks_per_host = 1;
    cluster.choose("n1", "net.a", &["10.0.0.0"]).unwrap();
    cluster.choose("n1", "net.b", &["10.0.0.8"]).unwrap();
    assert_eq!(cluster.block("10.0.0.8/30").unwrap().affinity, None);
    cluster.snapshot.config.strict_affinity = true;
    assert!(matches!(
        cluster.choose("n1", "net.c", &["10.0.0.12"]),
        Err(IpamError::BlockLimit { limit: 1 })
    ));
    assert_eq!(cluster.release("net.b"), [ip("10.0.0.8")]);
    assert_eq!(
        cluster.block("10.0.0.8/30"),
        None,
        "a block of nobody goes with its last address"
    );
}

#[test]
fn reserved_and_manual_addresses_can_be_chosen() {
    let mut cluster = Cluster::new();
    cluster.snapshot.reserved = vec![net("10.0.0.0/28")];
    cluster.snapshot.pools[0].spec.assignment_mode = buoy_api::v3::AssignmentMode::Manual;
    cluster.choose("n1", "net.a", &["10.0.0.9"]).unwrap();
}

#[test]
fn an_empty_block_of_nobody_keeps_nobody_away() {
    let orphan = |cluster: &mut Cluster, cidr: &str| {
        let record = block::new(net(cidr), None, cluster.now);
        cluster.put(Key::Block(net(cidr)), Value::Block(record));
    };
    let mut cluster = Cluster::new();
    cluster.snapshot.config.strict_affinity = true;
    orphan(&mut cluster, "10.0.0.8/30");
    cluster.choose("n1", "net.a", &["10.0.0.9"]).unwrap();
    assert_eq!(
        cluster.block("10.0.0.8/30").unwrap().affinity,
        Some(AffinityOwner::Host("n1".to_owned()))
    );
    for cidr in ["10.0.0.0/30", "10.0.0.4/30", "10.0.0.12/30"] {
        orphan(&mut cluster, cidr);
    }
    assert_eq!(cluster.assign("n2", "net.b", 12, 0).unwrap().addresses.len(), 12);
}
