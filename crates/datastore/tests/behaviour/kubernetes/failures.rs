//! Servers that are away, frozen, new, or do not know us.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use buoy_core::store::{FailureKind, Key, Prefix, Reply, Revision, StoreOp};
use buoy_datastore::kubernetes::{Kubernetes, Options};
use buoy_datastore::{Datastore, Feed};
use buoy_kubeserver::ADMIN;

use super::backend::{api_server, own_api_server};
use super::failure;
use crate::faults::limits::large;
use crate::faults::silence::nothing_works;
use crate::faults::tls::Authority;
use crate::follows::Following;
use crate::tools::{Backend, create, get, key, list, value, written};

const TIMEOUT: Duration = Duration::from_secs(1);

fn hasty(url: &str) -> Kubernetes {
    let options = Options {
        timeout: TIMEOUT,
        ..Options::default()
    };
    Kubernetes::open(url, |_| None, options).unwrap()
}

pub(super) fn signal(signal: &str, pid: u32) {
    let status = Command::new("kill").args([signal, &pid.to_string()]).status();
    assert!(status.unwrap().success());
}

#[test]
fn a_server_that_is_frozen_or_gone_is_given_up_and_found_again() {
    let backend = own_api_server();
    let url = format!("kubernetes:{}", backend.server().kubeconfig(ADMIN).display());
    let store = hasty(&url);
    let at = create(&*backend.open(), "a", 1);
    let server = backend.server().pids()[1];
    signal("-STOP", server);
    nothing_works(&store);
    signal("-CONT", server);
    assert_eq!(found_again(&store), at);

    backend.server().stop();
    nothing_works(&store);
    let missing = StoreOp::Create(key("b"), value("b", 1));
    let message = failure(&store, &missing, FailureKind::Unavailable);
    assert!(
        message.contains("Connection refused"),
        "it surely did not happen: {message}"
    );
    backend.server().start_server().unwrap();
    assert_eq!(found_again(&store), at);
    assert_eq!(get(&*backend.open(), &key("b")), None);
}

/// Revision of `a`, once the server answers in time.
fn found_again(store: &dyn Datastore) -> Revision {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match store.run(&StoreOp::Get(key("a"))) {
            Reply::Record(record) => return record.unwrap().revision,
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Another server has no memory of what came before it: whoever watched lists again, and takes in the difference.
#[test]
fn a_follower_goes_on_at_another_server_without_loss_or_repetition() {
    let backend = own_api_server();
    create(&*backend.open(), "a", 1);
    let store = backend.open();
    let following = Following::begin(Arc::clone(&store));
    assert_eq!(following.until_synced().0, [(key("a"), true)]);
    let next = || loop {
        match following.next() {
            Feed::Delta(delta) => break (delta.key, delta.revision),
            Feed::Lost(_) | Feed::Synced(_) => {}
            Feed::Restored => panic!("it is the same store"),
        }
    };
    let second = create(&*backend.open(), "b", 2);
    assert_eq!(next(), (key("b"), second));
    backend.server().replace().unwrap();
    for name in ["c", "d"] {
        let newest = create(&*backend.open(), name, 3);
        assert_eq!(next(), (key(name), newest));
    }
    assert_eq!(store.replaced(), 0);
}

#[test]
fn records_of_the_largest_size_are_kept_and_listed() {
    let backend = api_server();
    let store = backend.open();
    // Together more than is taken in at a time.
    for number in 0..30 {
        written(store.run(&large(&format!("p{number:02}"), 1_200_000)));
    }
    let (records, _) = list(&*store, Prefix::Reservations);
    let names: Vec<_> = records.into_iter().map(|record| record.key).collect();
    let expected: Vec<_> = (0..30).map(|number| key(&format!("p{number:02}"))).collect();
    assert_eq!(names, expected);
    // More than the store behind the server takes, and more than the server itself.
    for bytes in [2_000_000, 4_000_000] {
        let message = failure(&*store, &large("more", bytes), FailureKind::Invalid);
        assert!(message.contains("too large"), "{message}");
    }
    assert_eq!(get(&*store, &key("more")), None);
}

#[test]
fn who_is_not_known_says_so_and_comes_back_with_new_credentials() {
    let backend = api_server();
    let good = std::fs::read_to_string(backend.server().kubeconfig(ADMIN)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kubeconfig");
    std::fs::write(&path, good.replace("admin-token", "expired")).unwrap();
    let store = hasty(&format!("kubernetes:{}", path.display()));
    let get = StoreOp::Get(key("a"));
    let message = failure(&store, &get, FailureKind::Refused);
    assert!(message.contains("Unauthorized"), "{message}");
    std::fs::write(&path, &good).unwrap();
    assert_eq!(store.run(&get), Reply::Record(None));

    // Whom nobody vouches for is not spoken to.
    let stranger = Authority::new("other");
    let certificate = stranger.path("ca.pem");
    let trusted = backend
        .server()
        .kubeconfig(ADMIN)
        .with_file_name("certs/apiserver.crt");
    let other = good.replace(&trusted.display().to_string(), &certificate.display().to_string());
    assert_ne!(other, good);
    std::fs::write(&path, other).unwrap();
    let store = hasty(&format!("kubernetes:{}", path.display()));
    let message = failure(&store, &get, FailureKind::Refused);
    assert!(message.contains("invalid peer certificate"), "{message}");

    std::fs::write(&path, "garbage").unwrap();
    let store = hasty(&format!("kubernetes:{}", path.display()));
    let message = failure(&store, &StoreOp::Get(Key::EpochFloor), FailureKind::Refused);
    assert!(message.contains("kubeconfig cannot be used: "), "{message}");
}
