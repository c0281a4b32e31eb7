//! Automatic assignment: which operations, which block, which limits.

use std::collections::BTreeMap;

use buoy_api::ipam::{AffinityOwner, AffinityState, IpamConfig};
use buoy_api::meta::ObjectMeta;
use buoy_api::v3::{IpPool, IpPoolSpec};
use buoy_core::ipam::{AutoAssign, block};
use buoy_core::store::{Key, Value};
use jiff::{SignedDuration, Timestamp};

use crate::cluster::{Cluster, affinity, net, texts};

#[test]
fn the_cold_path_claims_a_block_in_calicos_order() {
    let mut cluster = Cluster::new();
    let assigned = cluster.assign("n1", "net.a", 1, 0).unwrap();
    assert_eq!(texts(&assigned), ["10.0.0.4/30"]);
    insta::assert_snapshot!(cluster.log.join("\n"), @"
    get handle net.a
    list Affinities(Host(\"n1\"))
    list Blocks(V4)
    create affinity host:n1 10.0.0.4/30 Pending
    get block 10.0.0.4/30
    create block 10.0.0.4/30
    update affinity host:n1 10.0.0.4/30 Confirmed
    create handle net.a
    update block 10.0.0.4/30
    ");
}

#[test]
fn the_warm_path_is_two_writes() {
    let mut cluster = Cluster::new();
    let first = cluster.assign("n1", "net.a", 1, 1).unwrap();
    let mut request = cluster.auto("n1", "net.b", 1, 0);
    request.cached = first.written.clone();
    let second = cluster.run(AutoAssign::new(request)).unwrap();
    assert_eq!(cluster.log, ["create handle net.b", "update block 10.0.0.4/30"]);
    assert_eq!(texts(&second), ["10.0.0.5/30"]);

    let mut request = cluster.auto("n1", "net.c", 1, 1);
    request.cached = second
        .written
        .into_iter()
        .chain(first.written.into_iter().skip(1))
        .collect();
    let third = cluster.run(AutoAssign::new(request)).unwrap();
    assert_eq!(
        cluster.log,
        [
            "create handle net.c",
            "update block 10.0.0.4/30",
            "update block fd00::4/126"
        ]
    );
    assert_eq!(texts(&third), ["10.0.0.6/30", "fd00::5/126"]);
    assert_eq!(
        cluster.handle("net.c").unwrap(),
        BTreeMap::from([(net("10.0.0.4/30"), 1), (net("fd00::4/126"), 1)])
    );
}

#[test]
fn a_stale_cache_costs_time_and_nothing_else() {
    let mut cluster = Cluster::new();
    let stale = cluster.assign("n1", "net.a", 1, 0).unwrap().written;
    cluster.assign("n1", "net.b", 1, 0).unwrap();
    let mut request = cluster.auto("n1", "net.c", 1, 0);
    request.cached = stale;
    let assigned = cluster.run(AutoAssign::new(request)).unwrap();
    assert_eq!(texts(&assigned), ["10.0.0.6/30"]);
    assert_eq!(
        cluster.handle("net.c").unwrap(),
        BTreeMap::from([(net("10.0.0.4/30"), 1)])
    );
}

#[test]
fn a_handle_never_counts_a_block_that_was_filled_by_others() {
    let mut cluster = Cluster::new();
    let stale = cluster.assign("n1", "net.a", 1, 0).unwrap().written;
    cluster.assign("n1", "net.b", 3, 0).unwrap();
    let mut request = cluster.auto("n1", "net.c", 1, 0);
    request.cached = stale;
    assert_eq!(
        texts(&cluster.run(AutoAssign::new(request)).unwrap()),
        ["10.0.0.8/30"]
    );
    assert_eq!(
        cluster.handle("net.c").unwrap(),
        BTreeMap::from([(net("10.0.0.8/30"), 1)])
    );
}

#[test]
fn foreign_and_doubtful_blocks_in_the_cache_are_not_used() {
    let mut cluster = Cluster::new();
    cluster.assign("n1", "net.a", 1, 0).unwrap();
    let mut request = cluster.auto("n2", "net.b", 1, 0);
    request.cached = cluster.records();
    assert_eq!(
        texts(&cluster.run(AutoAssign::new(request)).unwrap()),
        ["10.0.0.8/30"]
    );

    let key = Key::Affinity {
        owner: AffinityOwner::Host("n1".to_owned()),
        cidr: net("10.0.0.4/30"),
    };
    cluster.put(key, Value::Affinity(affinity(AffinityState::PendingDeletion)));
    let mut request = cluster.auto("n1", "net.c", 1, 0);
    request.cached = cluster.records();
    assert_eq!(
        texts(&cluster.run(AutoAssign::new(request)).unwrap()),
        ["10.0.0.5/30"]
    );
    assert!(
        cluster
            .log
            .contains(&"update affinity host:n1 10.0.0.4/30 Confirmed".to_owned())
    );
}

#[test]
fn asking_again_gives_the_same_addresses() {
    let mut cluster = Cluster::new();
    let first = cluster.assign("n1", "net.a", 1, 1).unwrap();
    let mut again = cluster.auto("n1", "net.a", 1, 1);
    again.cached = first.written.clone();
    assert_eq!(
        texts(&cluster.run(AutoAssign::new(again)).unwrap()),
        texts(&first)
    );
    let more = cluster.assign("n1", "net.a", 2, 1).unwrap();
    assert_eq!(texts(&more), ["10.0.0.4/30", "10.0.0.5/30", "fd00::4/126"]);
    assert_eq!(cluster.handle("net.a").unwrap()[&net("10.0.0.4/30")], 2);
}

#[test]
fn if_one_family_has_nothing_the_other_is_given_back() {
    let mut cluster = Cluster::new();
    cluster.assign("n2", "net.full", 0, 16).unwrap();
    let error = cluster.assign("n1", "net.a", 1, 1).unwrap_err();
    insta::assert_snapshot!(error, @"
    failed to request IPv6 addresses: Assigned 0 out of 1 requested IPv6 addresses; No IPs available in pools: [fd00::/124]
    pool v6 (fd00::/124): this node's blocks are full, and every other is taken or reserved
    ");
    assert!(error.is_exhausted() && !error.is_retryable());
    assert_eq!(cluster.handle("net.a"), None);
    assert!(cluster.block("10.0.0.4/30").unwrap().is_empty());
}

#[test]
fn limits_are_kept() {
    let mut cluster = Cluster::new();
    cluster.snapshot.config.max_blocks_per_host = 1;
    cluster.assign("n1", "net.a", 4, 0).unwrap();
    let error = cluster.assign("n1", "net.b", 1, 0).unwrap_err();
    assert!(error.is_exhausted());
    assert!(
        error
            .to_string()
            .ends_with("\ncannot allocate new block due to per host block limit: 1 (maxBlocksPerHost)")
    );
    cluster
        .assign("n1", "net.c", 0, 1)
        .expect("each family has its own limit");

    cluster.snapshot.config = IpamConfig {
        auto_allocate_blocks: false,
        strict_affinity: true,
        ..IpamConfig::default()
    };
    let error = cluster.assign("n1", "net.b", 1, 0).unwrap_err();
    assert!(error.to_string().contains("autoAllocateBlocks is off"), "{error}");
}

#[test]
fn reserved_ranges_are_skipped_however_large() {
    let mut cluster = Cluster::new();
    cluster.snapshot.pools = vec![IpPool::new(
        ObjectMeta::named("v6"),
        IpPoolSpec::new(net("fd00:65::/64")),
    )];
    cluster.snapshot.reserved = vec![
        net("fd00:65::/65"),
        net("fd00:65:0:0:8000::/66"),
        net("fd00:65:0:0:c000::/67"),
    ];
    let assigned = cluster.assign("n1", "net.a", 0, 1).unwrap();
    assert!(
        net("fd00:65:0:0:e000::/67").contains(&assigned.addresses[0].addr()),
        "{assigned:?}"
    );

    let mut cluster = Cluster::new();
    cluster.snapshot.reserved = vec![
        net("10.0.0.0/29"),
        net("10.0.0.8/31"),
        net("10.0.0.10/31"),
        net("10.0.0.12/31"),
    ];
    assert_eq!(
        texts(&cluster.assign("n1", "net.a", 2, 0).unwrap()),
        ["10.0.0.14/30", "10.0.0.15/30"]
    );
    assert!(cluster.assign("n1", "net.b", 1, 0).unwrap_err().is_exhausted());
}

#[test]
fn an_idle_block_changes_hands_after_a_minute() {
    let mut cluster = Cluster::new();
    cluster.assign("n1", "net.a", 16, 0).unwrap();
    cluster.release("net.a");
    assert!(cluster.assign("n2", "net.b", 1, 0).unwrap_err().is_exhausted());
    cluster.now = cluster.now.checked_add(SignedDuration::from_secs(60)).unwrap();
    assert_eq!(
        texts(&cluster.assign("n2", "net.b", 1, 0).unwrap()),
        ["10.0.0.0/30"]
    );
    insta::assert_snapshot!(cluster.log[3..].join("\n"), @"
    get affinity host:n1 10.0.0.0/30
    update affinity host:n1 10.0.0.0/30 PendingDeletion
    delete block 10.0.0.0/30
    delete affinity host:n1 10.0.0.0/30
    create affinity host:n2 10.0.0.0/30 Pending
    get block 10.0.0.0/30
    create block 10.0.0.0/30
    update affinity host:n2 10.0.0.0/30 Confirmed
    create handle net.b
    update block 10.0.0.0/30
    ");
}

#[test]
fn a_block_of_something_that_is_no_node_is_never_taken() {
    let mut cluster = Cluster::new();
    for cidr in ["10.0.0.0/30", "10.0.0.4/30", "10.0.0.8/30", "10.0.0.12/30"].map(net) {
        let owner = AffinityOwner::Virtual("load-balancer".to_owned());
        let record = block::new(cidr, Some(owner), Timestamp::UNIX_EPOCH);
        cluster.put(Key::Block(cidr), Value::Block(record));
    }
    assert!(cluster.assign("n1", "net.a", 1, 0).unwrap_err().is_exhausted());
}

#[test]
fn whoever_asks_for_nothing_is_given_nothing() {
    let mut cluster = Cluster::new();
    assert!(cluster.assign("n1", "net.a", 0, 0).unwrap().addresses.is_empty());
    assert!(cluster.log.is_empty());
}
