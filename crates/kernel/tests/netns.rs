//! Entering network namespaces.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs::File;

use buoy_kernel::{
    Error,
    netns::{Netns, in_netns},
    sysctl,
};
use common::TestNs;

#[test]
fn work_runs_inside_and_the_caller_stays_outside() {
    let ns = TestNs::new();
    let before = Netns::current().unwrap().id();
    let inside = in_netns(&ns.netns, || Ok(Netns::current()?.id())).unwrap();
    assert_eq!(inside, ns.netns.id());
    assert_eq!(Netns::current().unwrap().id(), before);
}

#[test]
fn an_error_inside_comes_out() {
    let ns = TestNs::new();
    let refused = in_netns(&ns.netns, || sysctl::read("net/ipv4/conf/absent/forwarding")).unwrap_err();
    assert!(
        refused.is_not_found() && refused.to_string().contains("absent"),
        "{refused}"
    );
}

#[test]
fn a_namespace_is_known_by_its_identity() {
    let (one, other) = (TestNs::new(), TestNs::new());
    assert_eq!(Netns::open(one.path()).unwrap().id(), one.netns.id());
    assert_eq!(one.netns.try_clone().unwrap().id(), one.netns.id());
    assert_ne!(one.netns.id(), other.netns.id());
}

#[test]
fn what_is_no_namespace_is_told() {
    let absent = Netns::open("/var/run/netns/buoy-absent").unwrap_err();
    assert!(
        matches!(absent, Error::NetnsGone { .. }) && absent.is_not_found(),
        "{absent}"
    );
    // What is left at a path of /var/run/netns when the mount is gone.
    assert!(matches!(
        Netns::open("/proc/version"),
        Err(Error::NetnsGone { .. })
    ));
    let file = File::open("/proc/version").unwrap();
    assert!(matches!(Netns::from_fd(file.into()), Err(Error::Invalid(_))));
}

#[test]
fn sysctls_are_those_of_the_namespace() {
    let (one, other) = (TestNs::new(), TestNs::new());
    let key = "net.ipv4.conf.lo.log_martians";
    let before = one.run(|| sysctl::ensure(key, "1")).unwrap();
    assert_eq!(before, "0");
    assert_eq!(one.run(|| sysctl::ensure(key, "1")).unwrap(), "1");
    assert_eq!(other.run(|| sysctl::read(key)).unwrap(), "0");
}
