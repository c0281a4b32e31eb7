//! An agent in a pod: it finds the server by its environment, and knows itself by files that the kubelet renews.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use buoy_kubeserver::{ADMIN, ApiServer};
use serde_json::json;

use crate::bed::{Bed, NODE, agent_command};

/// Starts a program where the files of a service account are those of a directory, and all else is as here.
const IN_A_POD: &str = r#"mount -t tmpfs tmpfs /run && mkdir -p /run/secrets/kubernetes.io &&
    ln -s "$1" /run/secrets/kubernetes.io/serviceaccount && shift && exec "$@""#;

#[test]
fn an_agent_in_a_pod_outlives_its_token() {
    let mut bed = Bed::begin_by(Ipv4Addr::LOCALHOST, in_a_pod);
    bed.create(NODE);
    let version = json!(env!("CARGO_PKG_VERSION"));
    let mark = "/metadata/annotations/buoy.dev~1agent";
    bed.until_is("node/n1", mark, &version);

    put(bed.directory(), &bed.server.token("second").unwrap());
    bed.server.end_token("first").unwrap();
    // The server believes the first for a while. One that takes its place never heard of it.
    bed.server.replace().unwrap();
    let forget = ["annotate", "node", "n1", "buoy.dev/agent-"];
    bed.server.kubectl(&forget, "").unwrap();
    bed.until_is("node/n1", mark, &version);
}

/// The agent as a pod's container starts it.
pub(crate) fn in_a_pod(server: &ApiServer, directory: &Path) -> Command {
    let account = account(directory);
    std::fs::create_dir(&account).unwrap();
    let authority = server.kubeconfig(ADMIN).with_file_name("certs/apiserver.crt");
    std::fs::copy(authority, account.join("ca.crt")).unwrap();
    std::fs::write(account.join("namespace"), "buoy-system").unwrap();
    put(directory, &server.token("first").unwrap());
    let agent = agent_command(server, directory);
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c", IN_A_POD, "sh"])
        .arg(account)
        .arg(agent.get_program())
        .args(agent.get_args())
        .env_remove("KUBECONFIG")
        .env("KUBERNETES_SERVICE_HOST", server.address.ip().to_string())
        .env("KUBERNETES_SERVICE_PORT", server.address.port().to_string());
    command
}

fn account(directory: &Path) -> PathBuf {
    directory.join("account")
}

/// Renews the token's file in one step, as a kubelet does.
fn put(directory: &Path, token: &str) {
    let account = account(directory);
    std::fs::write(account.join("next"), token).unwrap();
    std::fs::rename(account.join("next"), account.join("token")).unwrap();
}
