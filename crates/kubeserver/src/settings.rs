//! What an etcd and an API server are told, here and wherever else the tests run them.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use serde_json::{Value as Json, json};

use crate::process;

/// What the audit log tells of: each request once, without bodies.
const AUDIT: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
    "rules": [{"level": "None", "users": ["system:apiserver"]}, {"level": "Metadata"}]}"#;

/// Writes the files that [`apiserver`] names, but for `users` (`token,name,id,"groups"`, a line each).
pub fn write_files(directory: &Path) -> Result<()> {
    std::fs::write(directory.join("audit-policy"), AUDIT)?;
    openssl(
        &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        &["-out"],
        &directory.join("accounts.key"),
    )
}

/// Arguments of an etcd that keeps its data in `directory`, and does not wait for a disk.
pub fn etcd(directory: &Path, clients: SocketAddr, peers: SocketAddr) -> Vec<String> {
    let (clients, peers) = (format!("http://{clients}"), format!("http://{peers}"));
    vec![
        "--name=one".to_owned(),
        format!("--data-dir={}", directory.join("data").display()),
        format!("--listen-client-urls={clients}"),
        format!("--advertise-client-urls={clients}"),
        format!("--listen-peer-urls={peers}"),
        format!("--initial-advertise-peer-urls={peers}"),
        format!("--initial-cluster=one={peers}"),
        "--heartbeat-interval=10".to_owned(),
        "--election-timeout=100".to_owned(),
        "--unsafe-no-fsync".to_owned(),
        "--watch-progress-notify-interval=200ms".to_owned(),
    ]
}

/// Arguments that every API server of the tests has: where it listens and keeps things, and whom it knows.
pub fn apiserver(directory: &Path, address: SocketAddr, etcd: SocketAddr) -> Vec<String> {
    let file = |name: &str| directory.join(name).display().to_string();
    vec![
        format!("--etcd-servers=http://{etcd}"),
        format!("--bind-address={}", address.ip()),
        format!("--secure-port={}", address.port()),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", file("accounts.key")),
        format!("--service-account-signing-key-file={}", file("accounts.key")),
        format!("--token-auth-file={}", file("users")),
        format!("--audit-policy-file={}", file("audit-policy")),
        format!("--audit-log-path={}", file("audit.log")),
    ]
}

/// How a user who has a token finds a server.
pub fn kubeconfig(server: &str, authority: &Path, user: &str, token: &str) -> Json {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
        "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority": authority}}],
        "users": [{"name": user, "user": {"token": token}}],
    })
}

/// Makes an authority, `ca.crt`, and by it the certificate of a server, `server.crt` with `server.key`, for names such as
/// `IP:192.0.2.1` and `DNS:kubernetes`.
pub fn write_certificate(directory: &Path, names: &[&str]) -> Result<()> {
    let key = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "30",
    ];
    let file = |name: &str| directory.join(name).display().to_string();
    let authority = [&["req", "-x509", "-subj", "/CN=buoy-lab"], &key[..]].concat();
    openssl(
        &authority,
        &["-keyout", &file("ca.key"), "-out"],
        &directory.join("ca.crt"),
    )?;
    let names = format!("subjectAltName={}", names.join(","));
    let server = [
        &["req", "-x509", "-subj", "/CN=kube-apiserver", "-addext", &names],
        &key[..],
    ]
    .concat();
    let (ca, ca_key, own_key) = (file("ca.crt"), file("ca.key"), file("server.key"));
    let by = [
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-CA",
        &ca,
        "-CAkey",
        &ca_key,
        "-keyout",
        &own_key,
        "-out",
    ];
    openssl(&server, &by, &directory.join("server.crt"))
}

fn openssl(words: &[&str], more: &[&str], out: &Path) -> Result<()> {
    let mut command = Command::new("openssl");
    command.args(words).args(more).arg(out);
    process::output(command, "").map(drop)
}
