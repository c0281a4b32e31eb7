//! An API server behind a proxy.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use buoy_core::store::{FailureKind, Prefix, Reply, StoreOp};
use buoy_datastore::kubernetes::{Kubernetes, Options};
use buoy_datastore::{Datastore, Feed};
use buoy_kubeserver::{ADMIN, ConnectProxy};
use serde_json::{Value as Json, json};

use super::backend::{ApiServerBackend, api_server, client};
use super::failure;
use crate::follows::Following;
use crate::server::own_address;
use crate::tools::{Backend, create, key, list};

const LIST: StoreOp = StoreOp::List(Prefix::Reservations);

#[test]
fn a_store_is_reached_by_way_of_the_proxy_that_the_kubeconfig_names() {
    let backend = api_server();
    let proxy = before(&backend);
    let directory = tempfile::tempdir().unwrap();
    let named = format!("http://me:secret@{}", proxy.address);
    let path = kubeconfig(&backend, directory.path(), "api.example", Some(&named));
    let store = client(&format!("kubernetes:{path}?qps=0"), Options::default());
    let following = Following::begin(Arc::clone(&store));
    following.until_synced();
    create(&*backend.open(), "a", 1);
    assert!(matches!(following.next(), Feed::Delta(delta) if delta.key == key("a")));
    let asked = proxy.asked();
    for part in [
        "CONNECT api.example:6443 HTTP/1.1\r\n",
        // What comes of "me:secret".
        "Proxy-Authorization: Basic bWU6c2VjcmV0\r\n",
    ] {
        assert!(asked.iter().all(|asked| asked.contains(part)), "{asked:?}");
    }
    drop(following);

    // What it says when it does not do its part names it, and not the password.
    let address = proxy.address;
    let complains = |kind: FailureKind, of: &str| {
        let expected = format!("the proxy http://…@{address} {of}");
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match store.run(&LIST) {
                Reply::Failed(error) if error.message.contains(&expected) => {
                    assert_eq!(error.kind, kind, "{error}");
                    return;
                }
                // A connection of before may still be believed in, once.
                other => assert!(Instant::now() < deadline, "no {expected}: {other:?}"),
            }
        }
    };
    proxy.refuse("407 Proxy Authentication Required");
    complains(
        FailureKind::Refused,
        "wants to know who asks\nwrite user and password into its URL",
    );
    proxy.refuse("403 Forbidden");
    complains(
        FailureKind::Refused,
        "does not lead to the API server\nlet it pass CONNECT",
    );
    drop(proxy);
    complains(FailureKind::Unavailable, "does not answer: ");
}

#[test]
fn the_proxy_of_the_environment_counts_but_for_servers_on_this_machine() {
    let backend = api_server();
    let proxy = before(&backend);
    let directory = tempfile::tempdir().unwrap();
    let named = format!("http://{}", proxy.address);
    let open = |server: &str, of_kubeconfig: Option<&str>, of_environment: &str| {
        let path = kubeconfig(&backend, directory.path(), server, of_kubeconfig);
        let env = |name: &str| (name == "HTTPS_PROXY").then(|| of_environment.to_owned());
        Kubernetes::open(&format!("kubernetes:{path}?qps=0"), env, Options::default()).unwrap()
    };
    list(&open("api.example", None, &named), Prefix::Reservations);
    let asked = proxy.asked().len();
    assert!(asked > 0);

    // Nobody listens there.
    let nowhere = "http://127.0.0.1:9";
    list(&open("api.example", Some(&named), nowhere), Prefix::Reservations);
    assert!(proxy.asked().len() > asked, "the kubeconfig wins");
    let direct: Arc<dyn Datastore> = Arc::new(open("", None, nowhere));
    list(&*direct, Prefix::Reservations);
    let bad = open("api.example", None, "socks5://a:1080");
    let message = failure(&bad, &LIST, FailureKind::Refused);
    assert!(
        message.contains("not a proxy that can be used: socks5://a:1080\n"),
        "{message}"
    );
}

fn before(backend: &ApiServerBackend) -> ConnectProxy {
    ConnectProxy::start(own_address(), backend.server().address).unwrap()
}

/// A kubeconfig by which the server has another name, that only the proxy knows, or its own.
fn kubeconfig(backend: &ApiServerBackend, directory: &Path, name: &str, proxy: Option<&str>) -> String {
    let text = std::fs::read_to_string(backend.server().kubeconfig(ADMIN)).unwrap();
    let mut config: Json = serde_json::from_str(&text).unwrap();
    let cluster = &mut config["clusters"][0]["cluster"];
    if !name.is_empty() {
        cluster["server"] = format!("https://{name}:6443").into();
        cluster["tls-server-name"] = "kubernetes".into();
    }
    cluster["proxy-url"] = json!(proxy);
    let path = directory.join("kubeconfig");
    std::fs::write(&path, config.to_string()).unwrap();
    path.display().to_string()
}
