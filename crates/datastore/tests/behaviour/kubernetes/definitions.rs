//! The definitions of our records: there, missing, old.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use buoy_api::ObjectMeta;
use buoy_api::binding::{Binding, BindingSpec, Owner, Term};
use buoy_api::v3::{IpPool, IpPoolSpec};
use buoy_core::ipam::{AutoAssign, ReleaseHandle};
use buoy_core::store::{FailureKind, Key, Prefix, Revision, StoreOp, Value};
use buoy_datastore::{WatchError, drive};
use serde_json::{Value as Json, json};

use super::backend::{ApiServerBackend, DEPLOY, api_server, bare_api_server, own_api_server};
use super::failure;
use crate::tools::{Backend, addresses, create, get, key, list, number, written};

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

/// One of Calico's definitions, as an older version of it has it: stricter than ours, with less in it, and with more beside it.
fn theirs(plural: &str, kind: &str, required: &[&str], properties: Json) -> Json {
    let singular = kind.to_lowercase();
    let spec = json!({"type": "object", "required": required, "properties": properties});
    let column = json!({"name": "Theirs", "type": "date", "jsonPath": ".metadata.creationTimestamp"});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.crd.projectcalico.org"),
            "labels": {"installed-by": "calico"}, "annotations": {"their.example/version": "v3.21"},
        },
        "spec": {
            "group": "crd.projectcalico.org", "scope": "Cluster", "preserveUnknownFields": false,
            "names": {"kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": singular},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "additionalPrinterColumns": [column],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"},
                    "spec": spec,
                }}},
            }],
        },
    })
}

fn older_definitions() -> Vec<Json> {
    let (text, flag, number) = (
        json!({"type": "string"}),
        json!({"type": "boolean"}),
        json!({"type": "integer"}),
    );
    let large = json!({"type": "integer", "format": "int64"});
    let texts = json!({"type": "object", "additionalProperties": text});
    let attribute = json!({"type": "object", "properties": {"handle_id": text, "secondary": texts}});
    let slots = json!({"type": "array", "items": {"type": "integer", "nullable": true}});
    let block = json!({
        "affinity": text, "cidr": text, "allocations": slots, "unallocated": {"type": "array", "items": number},
        "attributes": {"type": "array", "items": attribute}, "strictAffinity": flag, "deleted": flag,
        "sequenceNumber": large, "sequenceNumberForAllocation": {"type": "object", "additionalProperties": large},
    });
    let needed = [
        "allocations",
        "attributes",
        "cidr",
        "strictAffinity",
        "unallocated",
    ];
    let affinity = json!({"cidr": text, "deleted": text, "node": text, "state": text});
    let handle = json!({
        "block": {"type": "object", "additionalProperties": number}, "deleted": flag, "handleID": text,
    });
    let pool = json!({"cidr": text, "blockSize": number, "natOutgoing": flag, "nodeSelector": text});
    vec![
        theirs("ipamblocks", "IPAMBlock", &needed, block),
        theirs(
            "blockaffinities",
            "BlockAffinity",
            &["cidr", "deleted", "node", "state"],
            affinity,
        ),
        theirs("ipamhandles", "IPAMHandle", &["block", "handleID"], handle),
        theirs("ippools", "IPPool", &["cidr"], pool),
    ]
}

/// All definitions that there are, by name: what people wrote of them.
fn definitions(backend: &ApiServerBackend) -> BTreeMap<String, Json> {
    let text = backend
        .server()
        .kubectl(&["get", "crd", "-o", "json"], "")
        .unwrap();
    let found: Json = serde_json::from_str(&text).unwrap();
    let of = |item: &Json| {
        let metadata = &item["metadata"];
        let mine = ["uid", "generation", "labels", "annotations"].map(|field| metadata[field].clone());
        (
            metadata["name"].as_str().unwrap().to_owned(),
            json!([mine, item["spec"]]),
        )
    };
    found["items"].as_array().unwrap().iter().map(of).collect()
}

#[test]
fn definitions_of_calico_s_that_are_there_stay_as_they_are() {
    let backend = bare_api_server();
    let crds = Path::new(DEPLOY).join("crds").display().to_string();
    backend.create(&json!({"apiVersion": "v1", "kind": "List", "items": older_definitions()}).to_string());
    let theirs = definitions(&backend);
    assert_eq!(theirs.len(), 4);
    let said = backend
        .server()
        .kubectl(&["create", "-f", &crds], "")
        .unwrap_err()
        .to_string();
    for name in theirs.keys() {
        assert!(
            said.contains(&format!("\"{name}\" already exists")),
            "{name}: {said}"
        );
    }
    assert_eq!(said.matches("already exists").count(), theirs.len(), "{said}");
    let all = definitions(&backend);
    let kept: BTreeMap<_, _> = all
        .clone()
        .into_iter()
        .filter(|(name, _)| theirs.contains_key(name))
        .collect();
    assert_eq!(kept, theirs);
    let added: BTreeSet<&str> = all
        .keys()
        .filter(|name| !theirs.contains_key(*name))
        .map(String::as_str)
        .collect();
    let ours = std::fs::read_to_string(Path::new(DEPLOY).join("crds/calico.yaml")).unwrap()
        + &std::fs::read_to_string(Path::new(DEPLOY).join("crds/buoy.yaml")).unwrap();
    let names = ours.lines().filter_map(|line| line.strip_prefix("  name: "));
    assert_eq!(added, names.filter(|name| !theirs.contains_key(*name)).collect());
    let wait = ["wait", "--for=condition=Established", "crd", "--all"];
    backend.server().kubectl(&wait, "").unwrap();
    a_store_works(&backend);
    assert_eq!(definitions(&backend), all);
}

/// Records of their definitions and of ours, written, read and deleted.
fn a_store_works(backend: &ApiServerBackend) {
    let store = backend.open();
    let pool = IpPool::new(
        ObjectMeta::named("p"),
        IpPoolSpec::new("10.65.0.0/24".parse().unwrap()),
    );
    written(store.run(&StoreOp::Create(
        Key::Pool("p".to_owned()),
        Value::Pool(pool.clone()),
    )));
    let (pools, _) = list(&*store, Prefix::Pools);
    assert!(
        matches!(&pools[..], [record] if matches!(&record.value, Ok(Value::Pool(found)) if found.spec.cidr == pool.spec.cidr))
    );
    let assign = |handle: &str| {
        let request = addresses(vec![pool.clone()], ("n1", handle), (1, 0));
        drive(&*store, AutoAssign::new(request)).unwrap().addresses[0]
    };
    let given = [assign("net.a"), assign("net.b")];
    assert_ne!(given[0], given[1]);
    drive(&*store, ReleaseHandle::new("net.a".to_owned())).unwrap();
    assert_eq!(get(&*store, &Key::Handle("net.a".to_owned())), None);
    let (blocks, _) = list(&*store, Prefix::Blocks(buoy_api::Family::V4));
    let [Ok(Value::Block(block))] = blocks.iter().map(|record| &record.value).collect::<Vec<_>>()[..] else {
        panic!("{blocks:?}")
    };
    assert_eq!(block.ordinals_of("net.b").count(), 1);
    assert_eq!(block.allocated().count(), 1);
    create(&*store, "r", 7);
    assert_eq!(number(&get(&*store, &key("r")).unwrap()), 7);
    written(store.run(&owned()));
}
