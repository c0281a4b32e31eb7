//! Calico's other API group.

use std::path::Path;

use buoy_api::ObjectMeta;
use buoy_api::v3::{IpPool, IpPoolSpec};
use buoy_core::ipam::{AutoAssign, ReleaseHandle};
use buoy_core::store::{Key, Prefix, StoreOp, Value};
use buoy_datastore::kubernetes::{Kubernetes, Options};
use buoy_datastore::{Event, drive};
use buoy_kubeserver::ADMIN;
use serde_json::Value as Json;

use super::backend::{DEPLOY, bare_api_server};
use crate::tools::{addresses, events_until, get, list, written};

#[test]
fn calico_s_records_are_in_the_group_that_it_uses() {
    let backend = bare_api_server();
    let crds = std::fs::read_to_string(Path::new(DEPLOY).join("crds/calico.yaml")).unwrap();
    let crds = crds
        .replace("crd.projectcalico.org", "projectcalico.org")
        .replace("- name: v1", "- name: v3")
        .replace("ipamconfig", "ipamconfiguration")
        .replace("IPAMConfig", "IPAMConfiguration");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("calico.yaml");
    std::fs::write(&path, crds).unwrap();
    backend.server().create(&[&path]).unwrap();

    let url = format!("kubernetes:{}", backend.server().kubeconfig(ADMIN).display());
    let env = |name: &str| (name == "CALICO_API_GROUP").then(|| "projectcalico.org/v3".to_owned());
    let store = Kubernetes::open(&url, env, Options::default()).unwrap();
    let (_, from) = list(&store, Prefix::Pools);
    let mut metadata = ObjectMeta::named("p");
    metadata.labels.insert("a".to_owned(), "b".to_owned());
    let pool = IpPool::new(metadata, IpPoolSpec::new("10.65.0.0/24".parse().unwrap()));
    let create = StoreOp::Create(Key::Pool("p".to_owned()), Value::Pool(pool.clone()));
    let mut watch = buoy_datastore::Datastore::watch(&store, &[(Prefix::Pools, from)]).unwrap();
    let at = written(buoy_datastore::Datastore::run(&store, &create));
    let record = get(&store, &Key::Pool("p".to_owned())).unwrap();
    assert_eq!(events_until(watch.as_mut(), at), [Event::Put(record)]);

    let request = addresses(vec![pool], ("n1", "net.c0ffee"), (1, 0));
    assert_eq!(
        drive(&store, AutoAssign::new(request)).unwrap().addresses.len(),
        1
    );
    let found = |object: &str| -> Json {
        let text = backend.server().kubectl(&["get", object, "-o", "json"], "");
        serde_json::from_str(&text.unwrap()).unwrap()
    };
    let pool = found("ippools.projectcalico.org/p");
    assert_eq!(pool["apiVersion"], "projectcalico.org/v3");
    assert_eq!(pool["metadata"]["labels"]["a"], "b");
    let affinity = found("blockaffinities.projectcalico.org");
    assert_eq!(affinity["items"][0]["spec"]["deleted"], false);
    assert_eq!(affinity["items"][0]["spec"]["state"], "confirmed");
    let released = drive(&store, ReleaseHandle::new("net.c0ffee".to_owned())).unwrap();
    assert_eq!(released.addresses.len(), 1);
    let (settings, _) = list(&store, Prefix::IpamConfig);
    assert!(settings.is_empty());
}
