//! The definitions of our records: there, missing, old.

use buoy_api::ObjectMeta;
use buoy_api::binding::{Binding, BindingSpec, Owner, Term};
use buoy_core::store::{FailureKind, Key, Prefix, Revision, StoreOp, Value};
use buoy_datastore::WatchError;

use super::backend::{api_server, bare_api_server, own_api_server};
use super::failure;
use crate::tools::Backend;

fn owned() -> StoreOp {
    let spec = BindingSpec {
        address: "172.16.1.3".parse().unwrap(),
        namespace: "shop".to_owned(),
        owner: Some(Owner {
            node: "n1".to_owned(),
            workload: "web-0".to_owned(),
            endpoint: "eth0".to_owned(),
            internal_ip: "10.65.0.7".parse().unwrap(),
            uid: "u".to_owned(),
            term: Term(1),
        }),
        ..BindingSpec::default()
    };
    let binding = Binding::new(ObjectMeta::named("172-16-1-3"), spec);
    StoreOp::Create(Key::Binding("172-16-1-3".to_owned()), Value::Binding(binding))
}

#[test]
fn a_server_without_definitions_says_which_are_missing() {
    let backend = bare_api_server();
    let store = backend.open();
    let message = failure(&*store, &StoreOp::List(Prefix::Pools), FailureKind::Refused);
    assert!(
        message.contains("does not know ippools.crd.projectcalico.org\n"),
        "{message}"
    );
    assert!(message.ends_with("kubectl create -f deploy/crds"), "{message}");
    failure(&*store, &owned(), FailureKind::Refused);
    failure(&*store, &StoreOp::Get(Key::EpochFloor), FailureKind::Refused);
    match store.watch(&[(Prefix::Bindings, Revision(1))]) {
        Err(WatchError::Store(error)) => {
            assert!(error.message.contains("floatingipbindings.buoy.dev"), "{error}")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_older_definition_is_said_to_be_old_and_loses_nothing() {
    let backend = own_api_server();
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/owner/properties/term";
    let patch = format!(r#"[{{"op": "remove", "path": "{path}"}}]"#);
    let crd = "crd/floatingipbindings.buoy.dev";
    let patched = backend
        .server()
        .kubectl(&["patch", crd, "--type=json", "-p", &patch], "");
    patched.unwrap();
    let store = backend.open();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    // The server takes a new definition when it sees it.
    loop {
        match store.run(&owned()) {
            buoy_core::store::Reply::Failed(error) => {
                assert!(
                    error.message.contains("unknown field \"spec.owner.term\""),
                    "{error}"
                );
                assert!(
                    error
                        .message
                        .contains("definition of floatingipbindings.buoy.dev is older"),
                    "{error}"
                );
                // The directory has Calico's as well, which are not this project's to overwrite.
                assert!(
                    error
                        .message
                        .ends_with("\nrenew it: kubectl apply -f deploy/crds/buoy.yaml"),
                    "{error}"
                );
                return;
            }
            buoy_core::store::Reply::Written(at) => {
                let delete = StoreOp::Delete(Key::Binding("172-16-1-3".to_owned()), at);
                assert_eq!(store.run(&delete), buoy_core::store::Reply::Deleted);
            }
            other => panic!("{other:?}"),
        }
        assert!(std::time::Instant::now() < deadline, "it is not taken");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn the_server_itself_refuses_what_cannot_be() {
    let backend = api_server();
    let binding = |name: &str, address: &str, epoch: u32| {
        format!(
            r#"{{"apiVersion": "buoy.dev/v1alpha1", "kind": "FloatingIPBinding", "metadata": {{"name": "{name}"}},
            "spec": {{"address": "{address}", "namespace": "shop", "epoch": {epoch}}}}}"#
        )
    };
    let kubectl = |verb: &str, object: &str| backend.server().kubectl(&[verb, "-f", "-"], object);
    for (name, address, reason) in [
        ("172-16-1-4", "172.16.1.3", "the name must be the address"),
        ("172-16-1-3", "172.16.1.300", "not an IP address"),
        (
            "2001-db8-0-0-0-0-0-01",
            "2001:db8::1",
            "the name must be the address",
        ),
        ("web-0", "2001:db8::1", "the name must be the address"),
    ] {
        let error = kubectl("create", &binding(name, address, 1)).unwrap_err();
        assert!(error.to_string().contains(reason), "{name} {address}: {error}");
    }
    kubectl("create", &binding("2001-db8-0-0-0-0-0-1", "2001:db8::1", 1)).unwrap();
    kubectl("create", &binding("172-16-1-3", "172.16.1.3", 5)).unwrap();
    kubectl("apply", &binding("172-16-1-3", "172.16.1.3", 6)).unwrap();
    let error = kubectl("apply", &binding("172-16-1-3", "172.16.1.3", 4)).unwrap_err();
    assert!(error.to_string().contains("epochs never fall"), "{error}");
    let status = r#"{"spec": {"owner": {"node": "n1", "workload": "web-0", "endpoint": "eth0", "internalIP": "10.65.0.7",
                              "uid": "u", "term": 1}},
                     "status": {"conditions": [
                        {"type": "Programmed", "status": "True", "reason": "Programmed", "message": ""},
                        {"type": "Advertised", "status": "False", "reason": "NoSession", "message": ""}]}}"#;
    let patch = ["patch", "fipb", "172-16-1-3", "--type=merge", "-p", status];
    backend.server().kubectl(&patch, "").unwrap();
    let of_status = [patch.as_slice(), &["--subresource=status"]].concat();
    backend.server().kubectl(&of_status, "").unwrap();
    let rows = |words: &[&str]| -> Vec<Vec<String>> {
        let table = backend.server().kubectl(words, "").unwrap();
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
        table.lines().map(words).collect()
    };
    let table = rows(&["get", "fipb"]);
    let heading = "NAME ADDRESS NAMESPACE OWNER NODE STATE EPOCH AGE";
    assert_eq!(table[0].join(" "), heading);
    let row = "172-16-1-3 172.16.1.3 shop web-0 n1 Programmed 6";
    assert_eq!(table[1][..7].join(" "), row);
    let wide = rows(&["get", "fipb", "172-16-1-3", "-o", "wide"]);
    let heading = "NAME ADDRESS NAMESPACE OWNER NODE STATE EPOCH INTERNAL ACCEPTED PROGRAMMED ADVERTISED AGE";
    assert_eq!(wide[0].join(" "), heading);
    // Nothing is in the column of a condition that nobody wrote.
    assert_eq!(wide[1][7..10], ["10.65.0.7", "True", "False"]);
    let all = backend
        .server()
        .kubectl(&["get", "buoy", "-o", "name"], "")
        .unwrap();
    assert_eq!(all.lines().count(), 2, "{all}");
}
