//! Users, passwords and rights.

use std::time::Duration;

use buoy_core::store::{FailureKind, Key, Reply, StoreOp};
use buoy_datastore::Datastore;
use buoy_datastore::etcd::{Etcd, Options};

use crate::server::Server;
use crate::tools::{create, get, key, update, value};

/// An etcd that knows `calico`, who may use all of Calico's keys and none of Buoy's, and `buoy`, who may use both.
fn with_users() -> Server {
    let server = Server::start_with(&["--auth-token-ttl", "1", "--bcrypt-cost", "4"]);
    for args in [
        &["user", "add", "root:secret"][..],
        &["user", "grant-role", "root", "root"],
        &["role", "add", "calico"],
        &[
            "role",
            "grant-permission",
            "--prefix=true",
            "calico",
            "readwrite",
            "/calico/",
        ],
        &["role", "add", "buoy"],
        &[
            "role",
            "grant-permission",
            "--prefix=true",
            "buoy",
            "readwrite",
            "/buoy/",
        ],
        &["user", "add", "calico:pass:word"],
        &["user", "grant-role", "calico", "calico"],
        &["user", "add", "buoy:other"],
        &["user", "grant-role", "buoy", "calico"],
        &["user", "grant-role", "buoy", "buoy"],
        &["auth", "enable"],
    ] {
        assert!(server.ctl(args).is_some(), "{args:?}");
    }
    server
}

fn as_user(server: &Server, user: &str) -> Etcd {
    let url = format!("etcd://{user}@{}", server.address);
    Etcd::open(&url, |_| None, Options::default()).unwrap()
}

fn refusal(reply: Reply) -> String {
    match reply {
        Reply::Failed(error) => {
            assert_eq!(error.kind, FailureKind::Refused, "{error}");
            error.message
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_user_with_a_password_is_let_in_again_when_its_token_expires() {
    let server = with_users();
    let store = as_user(&server, "calico:pass%3Aword");
    let mut at = create(&store, "a", 0);
    // Long enough for the token to expire, and nothing but the watch to notice.
    std::thread::sleep(Duration::from_millis(3500));
    let from = [(buoy_core::store::Prefix::Reservations, at)];
    let mut watch = store.watch(&from).unwrap();
    for step in 1..4 {
        std::thread::sleep(Duration::from_millis(2500));
        at = update(&store, "a", step, at);
    }
    assert_eq!(crate::tools::events_until(watch.as_mut(), at).len(), 3);
}

#[test]
fn who_is_not_known_is_told_so() {
    let server = with_users();
    let get = StoreOp::Get(key("a"));
    let said = refusal(as_user(&server, "calico:wrong").run(&get));
    assert!(said.contains("authentication failed"), "{said}");
    assert!(!said.contains("wrong"), "the password is not shown: {said}");
    let said = refusal(server.store().run(&get));
    assert!(said.contains("etcd wants a user, and none is named"), "{said}");
}

#[test]
fn who_lacks_rights_is_told_which() {
    let server = with_users();
    let calico = as_user(&server, "calico:pass%3Aword");
    let said = refusal(calico.run(&StoreOp::Get(Key::EpochFloor)));
    assert!(said.contains("permission denied"), "{said}");
    assert!(said.contains("/calico/ and /buoy/"), "{said}");
    let bindings = [(buoy_core::store::Prefix::Bindings, buoy_core::store::Revision(0))];
    let said = calico.watch(&bindings).unwrap_err().to_string();
    assert!(said.contains("/calico/ and /buoy/"), "{said}");
    let buoy = as_user(&server, "buoy:other");
    assert_eq!(buoy.run(&StoreOp::Get(Key::EpochFloor)), Reply::Record(None));
    assert!(buoy.watch(&bindings).is_ok());
}

#[test]
fn a_password_may_be_in_a_file_or_of_no_use() {
    let server = Server::start();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "secret\n").unwrap();
    let url = format!(
        "etcd://me@{}?password-file={}",
        server.address,
        file.path().display()
    );
    let store = Etcd::open(&url, |_| None, Options::default()).unwrap();
    // This one knows no users yet.
    create(&store, "a", 1);
    assert!(get(&store, &key("a")).is_some());
    for args in [
        &["user", "add", "root:secret"][..],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "me:secret"],
        &["user", "grant-role", "me", "root"],
        &["auth", "enable"],
    ] {
        assert!(server.ctl(args).is_some(), "{args:?}");
    }
    let again = Etcd::open(&url, |_| None, Options::default()).unwrap();
    create(&again, "b", 2);
    std::fs::remove_file(file.path()).unwrap();
    let late = Etcd::open(&url, |_| None, Options::default()).unwrap();
    let said = refusal(late.run(&StoreOp::Create(key("c"), value("c", 3))));
    assert!(said.contains("password for etcd cannot be read: /"), "{said}");
}
