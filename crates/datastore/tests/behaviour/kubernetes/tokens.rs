//! Who a store is to the server: by tokens of a service account that end while it is in use, when their file says the next
//! one or a little before, and by Calico's variables.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use buoy_core::store::{FailureKind, Prefix, Reply, StoreOp};
use buoy_datastore::Feed;
use buoy_datastore::kubernetes::{Kubernetes, Options};
use buoy_kubeserver::{ADMIN, AGENT};
use serde_json::{Value as Json, json};

use super::backend::{ApiServerBackend, DEPLOY, api_server, client, own_api_server};
use super::failure;
use crate::follows::Following;
use crate::tools::{Backend, create, key, list};

/// How long a server takes to see that a token has ended: it believes an answer of its own for ten seconds.
const SEEN: Duration = Duration::from_secs(60);

#[test]
fn a_store_outlives_its_token() {
    let backend = own_api_server();
    backend
        .server()
        .create(&[&Path::new(DEPLOY).join("rbac.yaml")])
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    put(&file, &backend.server().token("first").unwrap());
    let store = client(&url(&backend, &file), Options::default());
    let following = Following::begin(store.clone());
    following.until_synced();

    // It is renewed in time: nobody notices.
    put(&file, &backend.server().token("second").unwrap());
    backend.server().end_token("first").unwrap();
    let deadline = Instant::now() + SEEN;
    while credentials(&backend) < 2 {
        list(&*store, Prefix::Reservations);
        assert!(Instant::now() < deadline, "the file is not read again");
        std::thread::sleep(Duration::from_millis(250));
    }

    // It is late: that is said, and the next one is used as soon as it is there.
    backend.server().end_token("second").unwrap();
    let deadline = Instant::now() + SEEN;
    let read = StoreOp::List(Prefix::Reservations);
    while matches!(store.run(&read), Reply::List(..)) {
        assert!(Instant::now() < deadline, "it is still believed");
        std::thread::sleep(Duration::from_millis(250));
    }
    let message = failure(&*store, &read, FailureKind::Refused);
    assert!(
        message.contains("Unauthorized\nsee that token or certificate are valid"),
        "{message}"
    );
    put(&file, &backend.server().token("third").unwrap());
    list(&*store, Prefix::Reservations);
    assert_eq!(credentials(&backend), 3);

    // A watch that began with the first goes on, and begins anew with the last.
    backend.server().replace().unwrap();
    create(&*backend.open(), "a", 1);
    while !matches!(following.next(), Feed::Delta(delta) if delta.key == key("a")) {}
}

#[test]
fn calicos_variables_say_where_the_server_is_and_who_asks() {
    let backend = api_server();
    let (address, kubeconfig) = {
        let server = backend.server();
        (server.address, server.kubeconfig(ADMIN))
    };
    let authority = kubeconfig.with_file_name("certs/apiserver.crt");
    let open = |token: &str| {
        let env = |name: &str| match name {
            "K8S_API_ENDPOINT" => Some(format!("https://{address}")),
            "K8S_CA_FILE" => Some(authority.display().to_string()),
            "CALICO_K8S_API_TOKEN" => Some(token.to_owned()),
            _ => None,
        };
        Kubernetes::open("kubernetes:?qps=0", env, Options::default()).unwrap()
    };
    list(&open("admin-token"), Prefix::Reservations);
    let read = StoreOp::List(Prefix::Reservations);
    let message = failure(&open("another"), &read, FailureKind::Refused);
    assert!(message.contains("Unauthorized"), "{message}");
}

/// As a kubelet does: in one step.
fn put(file: &Path, token: &str) {
    let next = file.with_extension("next");
    std::fs::write(&next, token).unwrap();
    std::fs::rename(next, file).unwrap();
}

/// By a kubeconfig that names the token's file.
fn url(backend: &ApiServerBackend, file: &Path) -> String {
    let server = backend.server();
    let text = std::fs::read_to_string(server.kubeconfig(ADMIN)).unwrap();
    let mut config: Json = serde_json::from_str(&text).unwrap();
    config["users"][0]["user"] = json!({"tokenFile": file});
    let path = file.with_extension("kubeconfig");
    std::fs::write(&path, config.to_string()).unwrap();
    format!("kubernetes:{}?qps=0", path.display())
}

/// With how many tokens the account was let in.
fn credentials(backend: &ApiServerBackend) -> usize {
    let events = backend.server().audit().unwrap();
    let own = events.iter().filter(|event| event["user"]["username"] == AGENT);
    let credentials = own.filter_map(|event| {
        let extra = &event["user"]["extra"]["authentication.kubernetes.io/credential-id"];
        extra[0].as_str()
    });
    credentials.collect::<BTreeSet<_>>().len()
}
