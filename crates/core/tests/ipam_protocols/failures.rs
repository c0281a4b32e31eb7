//! Deaths at every point, stores that fail, records that are garbage.

use std::collections::BTreeMap;

use buoy_api::ipam::{AffinityOwner, AffinityState, Handle};
use buoy_api::meta::Extra;
use buoy_core::ipam::{AutoAssign, IpamError, ReleaseHandle, ReserveFloating, block};
use buoy_core::store::{
    Bad, FailureKind, Key, Next, Record, Reply, Revision, Steps, StoreError, StoreOp, Value,
};
use jiff::SignedDuration;

use crate::cluster::{Cluster, affinity, net, texts};

#[test]
fn a_deletion_that_somebody_began_is_finished() {
    let mut cluster = Cluster::new();
    let handle = Handle {
        deleted: true,
        blocks: [(net("10.0.0.4/30"), 3)].into(),
        extra: Extra::new(),
    };
    cluster.put(Key::Handle("net.a".to_owned()), Value::Handle(handle));
    let mut gone = block::new(
        net("10.0.0.4/30"),
        Some(AffinityOwner::Host("n2".to_owned())),
        cluster.now,
    );
    gone.deleted = true;
    cluster.put(Key::Block(gone.cidr), Value::Block(gone));
    cluster.choose("n1", "net.a", &["10.0.0.4"]).unwrap();
    assert_eq!(
        cluster.handle("net.a").unwrap(),
        BTreeMap::from([(net("10.0.0.4/30"), 1)])
    );
    assert_eq!(
        cluster.block("10.0.0.4/30").unwrap().affinity,
        Some(AffinityOwner::Host("n1".to_owned()))
    );
}

/// Where a protocol dies after its k-th operation, for every k: the handle finds what it left, and it is in nobody's
/// way.
#[test]
fn every_crash_point_is_recovered() {
    type Begin = fn(&Cluster) -> AutoAssign;
    let begins: [Begin; 2] = [
        |cluster| AutoAssign::new(cluster.auto("n1", "net.a", 3, 3)),
        |cluster| AutoAssign::new(cluster.auto("n1", "net.a", 6, 1)),
    ];
    for begin in begins {
        for operations in 0..40 {
            let mut cluster = Cluster::new();
            let out = cluster.run_until(begin(&cluster), operations);
            let given = cluster
                .store
                .iter()
                .any(|(_, value)| matches!(value, Value::Block(block) if !block.is_empty()));
            assert!(!given || cluster.handle("net.a").is_some(), "after {operations}");
            let again = cluster.run(begin(&cluster)).unwrap();
            let counted: u32 = cluster.handle("net.a").unwrap().values().sum();
            assert_eq!(counted as usize, again.addresses.len(), "after {operations}");
            if let Some(out) = out {
                assert_eq!(texts(&out.unwrap()), texts(&again));
            }
            let mut releases = 0;
            while cluster
                .run_until(ReleaseHandle::new("net.a".to_owned()), releases)
                .is_none()
            {
                releases += 1;
                assert!(releases < 40);
            }
            assert!(cluster.is_free(), "after {operations} and {releases}");
            cluster.now = cluster.now.checked_add(SignedDuration::from_mins(2)).unwrap();
            assert_eq!(cluster.assign("n2", "net.b", 16, 16).unwrap().addresses.len(), 32);
        }
    }
}

#[test]
fn a_store_that_fails_ends_the_protocol_with_its_own_words() {
    let mut machine = AutoAssign::new(Cluster::new().auto("n1", "net.a", 1, 0));
    assert!(matches!(machine.step(Reply::Start), Next::Do(_)));
    let failure = StoreError {
        kind: FailureKind::Unavailable,
        message: "store: locked".to_owned(),
    };
    let Next::Done(Err(error)) = machine.step(Reply::Failed(failure)) else {
        panic!("it goes on");
    };
    assert_eq!(error.to_string(), "store: locked");
    assert!(error.is_retryable() && error.is_unavailable());
    assert_eq!(
        machine.step(Reply::Conflict),
        Next::Done(Err(error)),
        "it stays ended"
    );
}

#[test]
fn endless_conflicts_end() {
    let mut machine = ReserveFloating::new(Cluster::new().reserving("10.0.0.9"));
    let mut next = machine.step(Reply::Start);
    for _ in 0..1000 {
        let reply = match next {
            Next::Done(result) => {
                assert!(matches!(result, Err(IpamError::Contended { setbacks: 100 })));
                assert!(result.unwrap_err().is_retryable());
                return;
            }
            Next::Do(StoreOp::Get(_)) => Reply::Record(None),
            Next::Do(_) => Reply::Unknown,
        };
        next = machine.step(reply);
    }
    panic!("it does not end");
}

#[test]
fn a_record_that_is_garbage_stops_only_who_needs_it() {
    let mut cluster = Cluster::new();
    let mut damaged = block::new(
        net("10.0.0.4/30"),
        Some(AffinityOwner::Host("n1".to_owned())),
        cluster.now,
    );
    damaged.allocations = vec![Some(9)];
    cluster.put(Key::Block(damaged.cidr), Value::Block(damaged));
    let key = Key::Affinity {
        owner: AffinityOwner::Host("n1".to_owned()),
        cidr: net("10.0.0.4/30"),
    };
    for state in [None, Some(AffinityState::Pending), Some(AffinityState::Confirmed)] {
        if let Some(state) = state {
            cluster.put(key.clone(), Value::Affinity(affinity(state)));
        }
        let assigned = cluster.assign("n1", &format!("net.{state:?}"), 1, 0).unwrap();
        assert!(
            net("10.0.0.8/30").contains(&assigned.addresses[0].addr()),
            "{state:?}: {assigned:?}"
        );
    }
    let error = cluster.choose("n1", "net.b", &["10.0.0.5"]).unwrap_err();
    assert!(
        matches!(
            &error,
            IpamError::BadRecord {
                key: Key::Block(_),
                ..
            }
        ),
        "{error}"
    );
    assert!(!error.is_retryable());

    let mut machine = ReleaseHandle::new("net.a".to_owned());
    machine.step(Reply::Start);
    let unreadable = Record {
        key: Key::Handle("net.a".to_owned()),
        revision: Revision(1),
        value: Err(Bad {
            reason: "not JSON".to_owned(),
        }),
    };
    let Next::Done(Err(error)) = machine.step(Reply::Record(Some(unreadable))) else {
        panic!("it goes on");
    };
    assert!(error.to_string().contains("not JSON"), "{error}");
    let mut machine = ReleaseHandle::new("net.a".to_owned());
    machine.step(Reply::Start);
    assert!(
        matches!(machine.step(Reply::Deleted), Next::Done(Err(IpamError::Store(_)))),
        "a reply that does not fit"
    );
}
