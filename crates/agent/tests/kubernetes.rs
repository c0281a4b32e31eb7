//! The built agent on a real API server, with exactly its rights, in a network namespace of its own.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use buoy_kubeserver::{ADMIN, ApiServer};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value as Json, json};

const PATIENCE: Duration = Duration::from_secs(60);
const NODE: &str = r#"{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}"#;

/// A running agent; killed when dropped.
struct Agent(Child);

impl Agent {
    fn start(server: &ApiServer, directory: &Path) -> Self {
        let log = std::fs::File::create(directory.join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_buoy-agent"))
            .args([
                "--node-name",
                "n1",
                "--node-ip",
                "192.0.2.1",
                "--routing",
                "kernel",
            ])
            .args(["--datastore", "kubernetes:"])
            .arg("--socket")
            .arg(directory.join("socket"))
            .arg("--state-dir")
            .arg(directory.join("state"))
            .arg("--run-dir")
            .arg(directory.join("run"))
            .env("KUBECONFIG", server.kubeconfig("agent"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_agent_begins_notes_its_node_and_outlives_its_server() {
    // What this thread starts is where it is: server, agent and all they do to the network.
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace can only be made by root");
    for args in [
        ["link", "set", "lo", "up"].as_slice(),
        &["address", "add", "192.0.2.1/24", "dev", "lo"],
    ] {
        assert!(Command::new("ip").args(args).status().unwrap().success());
    }
    let mut server = ApiServer::start(IpAddr::V4(Ipv4Addr::LOCALHOST)).unwrap();
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    server
        .create(&[&deploy.join("crds"), &deploy.join("rbac.yaml")])
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let agent = Agent::start(&server, directory.path());

    // Until there is a node to note it on, it waits.
    server.kubectl(&["create", "-f", "-"], NODE).unwrap();
    let address = "/metadata/annotations/projectcalico.org~1IPv4Address";
    until(
        &server,
        "node/n1",
        address,
        &json!("192.0.2.1/24"),
        directory.path(),
    );
    let cluster = "clusterinformations.crd.projectcalico.org/default";
    until(
        &server,
        cluster,
        "/spec/datastoreReady",
        &json!(true),
        directory.path(),
    );

    // Before the server changes: one that has just begun does not know yet who may do what.
    was_denied_nothing(&server);

    // Another server in its place: what somebody changes is seen, and put right.
    server.replace().unwrap();
    let forget = ["annotate", "node", "n1", "buoy.dev/agent-"];
    server.kubectl(&forget, "").unwrap();
    let version = json!(env!("CARGO_PKG_VERSION"));
    until(
        &server,
        "node/n1",
        "/metadata/annotations/buoy.dev~1agent",
        &version,
        directory.path(),
    );
    drop(agent);
}

/// It used its rights and no others, and asked for the pods of its node alone.
fn was_denied_nothing(server: &ApiServer) {
    let events = server.audit().unwrap();
    let own: Vec<&Json> = events
        .iter()
        .filter(|event| event["user"]["username"] == "system:serviceaccount:buoy-system:buoy-agent")
        .collect();
    assert!(
        own.iter().all(|event| event["responseStatus"]["code"] != 403),
        "{own:#?}"
    );
    let pods: Vec<&str> = own
        .iter()
        .filter(|event| event["objectRef"]["resource"] == "pods")
        .filter_map(|event| event["requestURI"].as_str())
        .collect();
    assert!(
        !pods.is_empty() && pods.iter().all(|uri| uri.contains("spec%2EnodeName%3Dn1")),
        "{pods:?}"
    );
}

/// Waits until a field of an object is as expected.
fn until(server: &ApiServer, object: &str, pointer: &str, expected: &Json, directory: &Path) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = server
            .kubectl(&["get", object, "-o", "json"], "")
            .unwrap_or_default();
        let found: Json = serde_json::from_str(&found).unwrap_or_default();
        if found.pointer(pointer).is_some_and(|value| value == expected) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{object} as {ADMIN} sees it: {found:#}\n{}",
            std::fs::read_to_string(directory.join("log")).unwrap_or_default()
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}
