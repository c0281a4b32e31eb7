//! Certificates: those that are right, and the others.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use buoy_core::store::{FailureKind, Prefix, Reply, Revision, StoreOp};
use buoy_datastore::etcd::{Etcd, Options};
use buoy_datastore::{Datastore, WatchError};
use tempfile::TempDir;

use crate::server::Server;
use crate::tools::{create, get, key, value};

/// An authority that signs certificates.
pub(crate) struct Authority {
    directory: TempDir,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let authority = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        let args = [
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ];
        let extensions = ["-subj", &format!("/CN={name}"), "-days", "2"];
        let (cert, key) = (authority.path("ca.pem"), authority.path("ca.key"));
        openssl(&args, &extensions, &[("-keyout", &key), ("-out", &cert)]);
        authority
    }

    /// A file beside its own, which are `ca.pem` and `ca.key`.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes a certificate for these names, valid for so many days; both files, without ending.
    pub(crate) fn sign(&self, name: &str, alternative: &str, days: &str) -> PathBuf {
        self.sign_for(name, &format!("/CN={name}"), alternative, days)
    }

    /// The same, for a subject; `name` is only that of the files. What is valid for no day is not at all.
    pub(crate) fn sign_for(&self, name: &str, subject: &str, alternative: &str, days: &str) -> PathBuf {
        let stem = self.path(name);
        let (key, request) = (stem.with_extension("key"), stem.with_extension("csr"));
        let args = [
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ];
        let subject = ["-subj", subject];
        openssl(&args, &subject, &[("-keyout", &key), ("-out", &request)]);
        let extensions = stem.with_extension("ext");
        let usage = "extendedKeyUsage=serverAuth,clientAuth";
        std::fs::write(&extensions, format!("subjectAltName={alternative}\n{usage}\n")).unwrap();
        openssl(
            &["x509", "-req", "-CAcreateserial"],
            &["-days", days],
            &[
                ("-in", &request),
                ("-CA", &self.path("ca.pem")),
                ("-CAkey", &self.path("ca.key")),
                ("-extfile", &extensions),
                ("-out", &stem.with_extension("pem")),
            ],
        );
        if days == "0" {
            // It is valid for this second, still.
            std::thread::sleep(Duration::from_millis(1100));
        }
        stem
    }
}

fn openssl(args: &[&str], more: &[&str], files: &[(&str, &Path)]) {
    let mut command = Command::new("openssl");
    command.args(args).args(more);
    for (option, path) in files {
        command.arg(option).arg(path);
    }
    let output = command
        .output()
        .expect("openssl cannot be started: install it (scripts/deps lab)");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// An etcd with a certificate of this authority for the address that it has, or another, which lets in whom this
/// authority knows.
fn server(authority: &Authority, alternative: Option<&str>, days: &str) -> Server {
    Server::start_secure(|host| {
        let alternative = alternative.map_or_else(|| format!("IP:{host}"), str::to_owned);
        // etcd reads its files again for every connection: no two servers share them.
        let name = format!("server-{host}").replace('.', "-");
        let stem = authority.sign(&name, &alternative, days);
        let text = |path: PathBuf| path.display().to_string();
        vec![
            "--client-cert-auth".to_owned(),
            format!("--trusted-ca-file={}", text(authority.path("ca.pem"))),
            format!("--cert-file={}", text(stem.with_extension("pem"))),
            format!("--key-file={}", text(stem.with_extension("key"))),
        ]
    })
}

/// A client that knows the members by this authority, and shows a certificate.
fn open(server: &Server, authority: &Authority, client: Option<&Path>) -> Etcd {
    let identity = client.map(|stem| {
        let file = |extension| stem.with_extension(extension).display().to_string();
        format!("&cert={}&key={}", file("pem"), file("key"))
    });
    let ca = authority.path("ca.pem").display().to_string();
    let identity = identity.unwrap_or_default();
    open_url(&format!("etcd://{}?ca={ca}{identity}", server.address))
}

fn open_url(url: &str) -> Etcd {
    Etcd::open(url, |_| None, Options::default()).unwrap()
}

fn failure(store: &dyn Datastore, kind: FailureKind) -> String {
    match store.run(&StoreOp::Get(key("a"))) {
        Reply::Failed(error) => {
            assert_eq!(error.kind, kind, "{error}");
            error.message
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_shows_the_right_certificate_is_let_in() {
    let authority = Authority::new("ours");
    let server = server(&authority, None, "2");
    let client = authority.sign("client", "DNS:client", "2");
    let store = open(&server, &authority, Some(&client));
    create(&store, "a", 1);
    assert!(get(&store, &key("a")).is_some());
    assert!(store.watch(&[(Prefix::Reservations, Revision(0))]).is_ok());
}

#[test]
fn who_shows_none_or_a_stranger_s_is_refused() {
    let (authority, stranger) = (Authority::new("ours"), Authority::new("theirs"));
    let server = server(&authority, None, "2");
    let strange = stranger.sign("client", "DNS:client", "2");
    for client in [None, Some(strange.as_path())] {
        // Whether the client hears why the server hangs up is a matter of luck.
        match open(&server, &authority, client).run(&StoreOp::Get(key("a"))) {
            Reply::Failed(error) => assert!(error.message.contains("this client's certificate"), "{error}"),
            other => panic!("{other:?}"),
        }
    }
    // Without TLS there is nothing that either of them understands.
    failure(&open_url(&server.url()), FailureKind::Unavailable);
}

#[test]
fn a_server_with_a_wrong_certificate_is_refused() {
    let (authority, stranger) = (Authority::new("ours"), Authority::new("theirs"));
    let client = authority.sign("client", "DNS:client", "2");
    let (right, to_do) = ("2", "see that ca signed the members' certificates");
    for (server, known, reason, to_do) in [
        (server(&authority, None, right), &stranger, "UnknownIssuer", to_do),
        (
            server(&authority, Some("DNS:elsewhere"), right),
            &authority,
            "not valid for name",
            to_do,
        ),
        (
            server(&authority, None, "0"),
            &authority,
            "certificate expired",
            "renew the members' certificates",
        ),
    ] {
        let said = failure(&open(&server, known, Some(&client)), FailureKind::Refused);
        assert!(said.contains(reason) && said.contains(to_do), "{said}");
    }
}

#[test]
fn who_shows_an_expired_certificate_is_told_so() {
    let authority = Authority::new("ours");
    let server = server(&authority, None, "2");
    let client = authority.sign("client", "DNS:client", "0");
    let store = open(&server, &authority, Some(&client));
    for op in [StoreOp::Get(key("a")), StoreOp::Create(key("a"), value("a", 1))] {
        // Whether the client hears why the server hangs up is a matter of luck; it knows all the same.
        match store.run(&op) {
            Reply::Failed(error) => is_told(&error.message, &client),
            Reply::Unknown if matches!(op, StoreOp::Create(..)) => {}
            other => panic!("{other:?}"),
        }
    }
    match store.watch(&[(Prefix::Reservations, Revision(1))]) {
        Err(WatchError::Store(error)) => is_told(&error.message, &client),
        other => panic!("{other:?}"),
    }
    // A new one counts at once.
    let renewed = authority.sign("renewed", "DNS:client", "2");
    for extension in ["pem", "key"] {
        std::fs::copy(
            renewed.with_extension(extension),
            client.with_extension(extension),
        )
        .unwrap();
    }
    create(&store, "a", 1);
}

fn is_told(said: &str, client: &Path) {
    println!("{said}");
    let expected = format!(
        "this client's certificate has expired: {}.pem, at ",
        client.display()
    );
    assert!(said.contains(&expected), "{said}");
    assert!(said.contains("\nrenew it"), "{said}");
}

#[test]
fn files_that_are_no_certificates_are_named() {
    let authority = Authority::new("ours");
    let missing = authority.path("missing.pem");
    let said = failure(
        &open_url(&format!("etcd://127.0.0.1:1?ca={}", missing.display())),
        FailureKind::Refused,
    );
    assert!(
        said.contains(&format!(
            "CA certificate of etcd cannot be read: {}",
            missing.display()
        )),
        "{said}"
    );
    let garbage = authority.path("garbage.pem");
    std::fs::write(&garbage, "no certificate").unwrap();
    let garbage = garbage.display();
    let url = format!("etcd://127.0.0.1:1?ca={garbage}&cert={garbage}&key={garbage}");
    let said = failure(&open_url(&url), FailureKind::Refused);
    assert!(
        said.contains("see that ca, cert and key name the right files"),
        "{said}"
    );
}
