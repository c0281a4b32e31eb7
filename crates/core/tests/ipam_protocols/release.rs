//! Release by handle, and reservations of floating IPs.

use std::net::IpAddr;

use buoy_api::ipam::AffinityOwner;
use buoy_core::ipam::{
    GiveUpBlock, IpamError, ReleaseAddress, ReleaseReservation, ReserveFloating, ReserveRequest,
};
use buoy_core::store::{Key, Next, Reply, Steps};

use crate::cluster::{Cluster, ip, net, texts};

#[test]
fn release_frees_what_the_handle_has_and_keeps_the_blocks_of_hosts() {
    let mut cluster = Cluster::new();
    cluster.assign("n1", "net.a", 1, 1).unwrap();
    cluster.choose("n1", "net.a", &["10.0.0.12"]).unwrap();
    cluster.assign("n1", "net.b", 1, 0).unwrap();
    assert_eq!(
        cluster.release("net.a"),
        ["10.0.0.4", "10.0.0.12", "fd00::4"].map(ip)
    );
    assert_eq!(cluster.handle("net.a"), None);
    assert_eq!(cluster.block("10.0.0.4/30").unwrap().unallocated, [2, 3, 0]);
    assert!(cluster.block("10.0.0.12/30").unwrap().is_empty());
    assert_eq!(cluster.release("net.a"), Vec::<IpAddr>::new());
    assert_eq!(cluster.log, ["get handle net.a"]);
    assert_eq!(cluster.handle("net.b").unwrap().len(), 1);
}

#[test]
fn one_address_of_a_handle_can_be_released() {
    let mut cluster = Cluster::new();
    cluster.assign("n1", "net.a", 2, 0).unwrap();
    let stamp = cluster
        .block("10.0.0.4/30")
        .unwrap()
        .sequence_number_for_allocation[&1];
    let release = |address, handle: &str, stamp| ReleaseAddress::new(ip(address), handle.to_owned(), stamp);
    cluster.run(release("10.0.0.5", "net.b", None)).unwrap();
    let stamped = cluster
        .run(release("10.0.0.5", "net.a", Some(stamp + 1)))
        .unwrap_err();
    assert!(matches!(stamped, IpamError::Stamped { found, .. } if found == stamp));
    assert_eq!(cluster.handle("net.a").unwrap()[&net("10.0.0.4/30")], 2);
    let released = cluster.run(release("10.0.0.5", "net.a", Some(stamp))).unwrap();
    assert_eq!(released.addresses, [ip("10.0.0.5")]);
    assert_eq!(cluster.handle("net.a").unwrap()[&net("10.0.0.4/30")], 1);
}

#[test]
fn a_reservation_names_its_binding_and_nobody_else() {
    let mut cluster = Cluster::new();
    cluster.snapshot.pools[0].spec.disabled = true;
    cluster.reserve("10.0.0.9").unwrap();
    let block = cluster.block("10.0.0.8/30").unwrap();
    assert_eq!((block.affinity.clone(), block.affinity_claim_time), (None, None));
    let attribute = block.holder(1).unwrap();
    assert_eq!(attribute.handle.as_deref(), Some("buoy-fip-10-0-0-9"));
    let secondary = [("binding", "10-0-0-9"), ("type", "floatingIP")];
    assert_eq!(
        attribute.secondary,
        secondary
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    );

    cluster.snapshot.pools[0].spec.disabled = false;
    let error = cluster.choose("n1", "net.a", &["10.0.0.9"]).unwrap_err();
    insta::assert_snapshot!(error, @"
    resource already exists: 10.0.0.9 with error: Address already assigned in block
    it is a floating IP, held by binding: 10-0-0-9
    ");
    assert_eq!(error.holder().unwrap().floating_ip(), Some("10-0-0-9"));
}

#[test]
fn a_reservation_lies_in_whoevers_block_and_is_refused_for_what_is_given() {
    let mut cluster = Cluster::new();
    cluster.snapshot.config.strict_affinity = true;
    cluster.assign("n1", "net.a", 1, 0).unwrap();
    cluster.reserve("10.0.0.5").unwrap();
    let error = cluster.reserve("10.0.0.4").unwrap_err();
    assert!(error.is_in_use());
    assert_eq!(error.holder().unwrap().handle.as_deref(), Some("net.a"));
    assert_eq!(cluster.handle("buoy-fip-10-0-0-4"), None);
    assert!(cluster.reserve("192.0.2.1").unwrap_err().is_refused());
    assert_eq!(
        texts(&cluster.assign("n1", "net.b", 1, 0).unwrap()),
        ["10.0.0.6/30"]
    );
}

#[test]
fn each_claim_stamps_anew_and_only_the_last_stamp_releases() {
    let mut cluster = Cluster::new();
    let address = "fd00::5".parse().unwrap();
    let first = cluster.reserve("fd00::5").unwrap();
    let second = cluster.reserve("fd00::5").unwrap();
    assert!(second > first);
    assert_eq!(cluster.log, ["get block fd00::4/126", "update block fd00::4/126"]);
    let error = cluster.run(ReleaseReservation::new(address, first)).unwrap_err();
    assert!(error.is_stamped() && !error.is_retryable());
    assert!(cluster.block("fd00::4/126").is_some());
    let released = cluster.run(ReleaseReservation::new(address, second)).unwrap();
    assert_eq!(released.addresses, [ip("fd00::5")]);
    assert!(
        cluster.store.iter().next().is_none(),
        "neither block nor handle is left"
    );
    cluster.run(ReleaseReservation::new(address, second)).unwrap();
}

#[test]
fn a_block_is_given_up_whole_if_it_is_empty_and_else_without_its_owner() {
    let mut cluster = Cluster::new();
    cluster.assign("n1", "net.a", 1, 1).unwrap();
    let owner = || AffinityOwner::Host("n1".to_owned());
    let (v4, v6) = ("10.0.0.4/30", "fd00::4/126");
    cluster.release("net.a");
    cluster.assign("n1", "net.b", 0, 1).unwrap();
    for cidr in [v4, v6] {
        cluster.run(GiveUpBlock::new(owner(), net(cidr))).unwrap();
    }
    assert_eq!(cluster.block(v4), None);
    let kept = cluster.block(v6).unwrap();
    assert_eq!((kept.affinity.clone(), kept.affinity_claim_time), (None, None));
    assert_eq!(kept.ordinals_of("net.b").count(), 1);
    for cidr in [v4, v6].map(net) {
        let owner = owner();
        assert_eq!(cluster.store.value(&Key::Affinity { owner, cidr }), None);
    }

    // Another's block is left alone, and only the claim goes.
    cluster.assign("n2", "net.c", 1, 0).unwrap();
    let theirs = cluster.block(v4).unwrap();
    assert_eq!(theirs.affinity, Some(AffinityOwner::Host("n2".to_owned())));
    cluster.run(GiveUpBlock::new(owner(), net(v4))).unwrap();
    assert_eq!(cluster.block(v4), Some(theirs));
}

#[test]
fn a_block_that_is_known_is_read_only_where_that_is_old() {
    let mut cluster = Cluster::new();
    let cidr = "10.0.0.8/30";
    cluster.choose("n1", "net.a", &["10.0.0.9"]).unwrap();
    let known = cluster.store.get(&Key::Block(net(cidr)));
    let reserve = |cluster: &mut Cluster, address: &str| {
        let request = ReserveRequest {
            known: known.clone(),
            ..cluster.reserving(address)
        };
        cluster.run(ReserveFloating::new(request)).unwrap();
        let ordinal = usize::from(address.parse::<std::net::Ipv4Addr>().unwrap().octets()[3] % 4);
        let prefix = if address == "10.0.0.5" {
            "10.0.0.4/30"
        } else {
            cidr
        };
        let block = cluster.block(prefix).unwrap();
        let handle = format!("buoy-fip-{}", address.replace('.', "-"));
        assert_eq!(block.holder(ordinal).unwrap().handle, Some(handle));
    };
    reserve(&mut cluster, "10.0.0.10");
    assert_eq!(
        cluster.log,
        ["create handle buoy-fip-10-0-0-10", "update block 10.0.0.8/30"]
    );
    // Now it is old.
    reserve(&mut cluster, "10.0.0.11");
    assert!(cluster.log.contains(&"get block 10.0.0.8/30".to_owned()));
    // It names somebody who has gone.
    cluster.release("net.a");
    reserve(&mut cluster, "10.0.0.9");
    // It is another.
    reserve(&mut cluster, "10.0.0.5");
}

#[test]
fn an_owner_that_makes_its_block_meanwhile_loses_no_claim() {
    let mut cluster = Cluster::new();
    let owner = AffinityOwner::Host("n1".to_owned());
    let cidr = net("10.0.0.4/30");
    let mut give_up = GiveUpBlock::new(owner.clone(), cidr);
    let Next::Do(first) = give_up.step(Reply::Start) else {
        panic!("it reads")
    };
    let mut reply = cluster.store.apply(first);
    assert_eq!(reply, Reply::Record(None), "there is no block yet");
    cluster.assign("n1", "net.a", 1, 0).unwrap();
    while let Next::Do(operation) = give_up.step(reply) {
        reply = cluster.store.apply(operation);
    }
    let block = cluster.block("10.0.0.4/30").unwrap();
    assert_eq!(block.ordinals_of("net.a").count(), 1);
    let claim = cluster.store.value(&Key::Affinity {
        owner: owner.clone(),
        cidr,
    });
    assert_eq!(
        block.affinity == Some(owner),
        claim.is_some(),
        "neither is without the other"
    );
}
