//! Certificates of clients and of the server: those that are right, and those that were.

use std::path::Path;

use buoy_core::store::{FailureKind, Key, Prefix, Reply, Revision, StoreOp};
use buoy_datastore::kubernetes::{Kubernetes, Options};
use buoy_datastore::{Datastore, WatchError};
use buoy_kubeserver::ADMIN;
use k8s_openapi::ByteString;
use serde_json::{Value as Json, json};

use super::backend::{ApiServerBackend, api_server_with};
use super::failure;
use crate::faults::tls::Authority;
use crate::tools::create;

/// By which name a server shows the certificate that has expired.
const OLD_NAME: &str = "old.example";

/// A server that knows clients by certificates of this authority, and has an old one itself, beside its own.
fn server(authority: &Authority) -> ApiServerBackend {
    let old = authority.sign("old", &format!("DNS:{OLD_NAME}"), "0");
    let old = old.display();
    api_server_with(&[
        &format!("--client-ca-file={}", authority.path("ca.pem").display()),
        &format!("--tls-sni-cert-key={old}.pem,{old}.key:{OLD_NAME}"),
    ])
}

/// A kubeconfig of the administrator's, but for some of it.
fn kubeconfig(backend: &ApiServerBackend, change: impl FnOnce(&mut Json)) -> String {
    let server = backend.server();
    let text = std::fs::read_to_string(server.kubeconfig(ADMIN)).unwrap();
    let mut config: Json = serde_json::from_str(&text).unwrap();
    change(&mut config);
    let path = server.kubeconfig("by-certificate");
    std::fs::write(&path, config.to_string()).unwrap();
    format!("kubernetes:{}?qps=0", path.display())
}

fn open(url: &str) -> Kubernetes {
    Kubernetes::open(url, |_| None, Options::default()).unwrap()
}

/// Who shows this certificate: by the names of its files, or with them in the kubeconfig.
fn user(stem: &Path, is_within: bool) -> Json {
    let file = |extension| stem.with_extension(extension);
    let data = |extension| json!(ByteString(std::fs::read(file(extension)).unwrap()));
    if is_within {
        json!({"client-certificate-data": data("pem"), "client-key-data": data("key")})
    } else {
        json!({"client-certificate": file("pem"), "client-key": file("key")})
    }
}

#[test]
fn who_shows_an_expired_certificate_is_told_so() {
    let authority = Authority::new("clients");
    let backend = server(&authority);
    let sign = |name, days| authority.sign_for(name, "/CN=somebody/O=system:masters", "DNS:client", days);
    let (good, old) = (sign("good", "2"), sign("expired", "0"));
    for is_within in [false, true] {
        let with = |stem: &Path| {
            kubeconfig(&backend, |config| {
                config["users"][0]["user"] = user(stem, is_within)
            })
        };
        let store = open(&with(&old));
        let mut said = vec![failure(
            &store,
            &StoreOp::Get(Key::EpochFloor),
            FailureKind::Refused,
        )];
        match store.watch(&[(Prefix::Reservations, Revision(1))]) {
            Err(WatchError::Store(error)) => said.push(error.message),
            other => panic!("{other:?}"),
        }
        for said in said {
            println!("{said}");
            assert!(
                said.contains("this client's certificate has expired, at 20"),
                "{said}"
            );
            assert!(
                said.ends_with("\nrenew it in the kubeconfig, which is read again"),
                "{said}"
            );
        }
        // A new one counts at once.
        with(&good);
        assert_eq!(store.run(&StoreOp::Get(Key::EpochFloor)), Reply::Record(None));
    }
    create(&open(&kubeconfig(&backend, |_| ())), "a", 1);
}

#[test]
fn a_server_whose_certificate_has_expired_is_refused() {
    let authority = Authority::new("servers");
    let backend = server(&authority);
    let url = kubeconfig(&backend, |config| {
        let cluster = &mut config["clusters"][0]["cluster"];
        cluster["certificate-authority"] = json!(authority.path("ca.pem"));
        cluster["tls-server-name"] = OLD_NAME.into();
    });
    let said = failure(&open(&url), &StoreOp::Get(Key::EpochFloor), FailureKind::Refused);
    println!("{said}");
    assert!(said.contains("certificate expired"), "{said}");
    assert!(said.contains("\nrenew the API server's certificate"), "{said}");
}
