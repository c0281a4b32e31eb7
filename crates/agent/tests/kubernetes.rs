//! The built agent on a real API server, with exactly its rights, in a network namespace of its own.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use buoy_cni_spec::agent::{Body, PluginRequest, Request, Response, decode_response};
use buoy_cni_spec::frame::{self, Decoder};
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

/// A server that knows our records and rights, and an agent of node `n1`, in a network namespace of their own.
fn begin() -> (ApiServer, tempfile::TempDir, Agent) {
    // What this thread starts is where it is: server, agent and all they do to the network.
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    for args in [
        ["link", "set", "lo", "up"].as_slice(),
        &["address", "add", "192.0.2.1/24", "dev", "lo"],
    ] {
        assert!(Command::new("ip").args(args).status().unwrap().success());
    }
    let server = ApiServer::start(IpAddr::V4(Ipv4Addr::LOCALHOST)).unwrap();
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    server
        .create(&[&deploy.join("crds"), &deploy.join("rbac.yaml")])
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let agent = Agent::start(&server, directory.path());
    (server, directory, agent)
}

#[test]
fn an_agent_begins_notes_its_node_and_outlives_its_server() {
    let (mut server, directory, agent) = begin();
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

const POOL: &str = r#"{"apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool", "metadata": {"name": "pods"},
    "spec": {"cidr": "10.65.0.0/24", "blockSize": 26, "ipipMode": "Never", "vxlanMode": "Never"}}"#;
const POD: &str = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-0", "namespace": "default"},
    "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}}"#;

#[test]
fn a_pod_is_told_what_is_wrong_with_its_requests() {
    let (server, directory, _agent) = begin();
    let directory = directory.path();
    for object in [NODE, POOL, POD] {
        server.kubectl(&["create", "-f", "-"], object).unwrap();
    }
    let cluster = "clusterinformations.crd.projectcalico.org/default";
    until(&server, cluster, "/spec/datastoreReady", &json!(true), directory);
    let uid = ["get", "pod", "web-0", "-o", "jsonpath={.metadata.uid}"];
    let uid = server.kubectl(&uid, "").unwrap();

    // An ADD that asks for what cannot be read fails, and the pod says why.
    let malformed = json!({"cni.projectcalico.org/floatingIPs": "172.16.1.3"});
    let error = add(directory, &uid, malformed).unwrap_err();
    assert!(error.msg.contains("cni.projectcalico.org/floatingIPs"), "{error}");
    let failed = event(&server, "AttachFailed", directory);
    assert_eq!(failed["type"], "Warning");
    let told = failed["note"].as_str().unwrap();
    assert!(told.contains(&error.msg), "{told}");
    assert_eq!(failed["regarding"]["uid"], uid);

    // One that asks for nothing special succeeds. What is written on the running pod afterwards is told, and nothing else
    // comes of it.
    add(directory, &uid, json!({})).unwrap();
    let annotate = |annotation: &str| {
        let words = ["annotate", "--overwrite", "pod", "web-0", annotation];
        server.kubectl(&words, "").unwrap();
    };
    annotate("cni.projectcalico.org/podIP=10.65.0.1/32");
    annotate("cni.projectcalico.org/containerID=c0ffee");
    annotate(r#"cni.projectcalico.org/ipAddrs=["10.65.0.9"]"#);
    let late = event(&server, "FixedIPIgnored", directory);
    assert!(late["note"].as_str().unwrap().contains("has no effect"), "{late}");
    annotate("cni.projectcalico.org/floatingIPs=[172.16");
    let malformed = event(&server, "FloatingIPMalformed", directory);
    assert!(
        malformed["note"].as_str().unwrap().contains("[172.16"),
        "{malformed}"
    );
    let described = server.kubectl(&["describe", "pod", "web-0"], "").unwrap();
    assert!(described.contains("FloatingIPMalformed"), "{described}");
    was_denied_nothing(&server);
}

/// Asks the agent for addresses for the pod, as `calico-ipam` does.
fn add(directory: &Path, uid: &str, annotations: Json) -> Response {
    let request = PluginRequest {
        container_id: "c0ffee".to_owned(),
        ifname: "eth0".to_owned(),
        netns_path: None,
        args: format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_UID={uid}"),
        path: String::new(),
        config: json!({
            "cniVersion": "1.0.0", "name": "pods", "type": "calico", "ipam": {"type": "calico-ipam"},
            "runtimeConfig": {"io.kubernetes.cri.pod-annotations": annotations},
        }),
        deadline_ms: 10_000,
    };
    let mut agent = UnixStream::connect(directory.join("socket")).unwrap();
    let request = frame::encode(&Request::new("test", Body::IpamAdd(request))).unwrap();
    agent.write_all(&request).unwrap();
    let mut answer = Vec::new();
    agent.read_to_end(&mut answer).unwrap();
    let mut decoder = Decoder::default();
    decoder.push(&answer);
    decode_response(&decoder.next_body().unwrap().unwrap()).unwrap()
}

/// Waits for an event of a reason.
fn event(server: &ApiServer, reason: &str, directory: &Path) -> Json {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = server
            .kubectl(&["get", "events.events.k8s.io", "-o", "json"], "")
            .unwrap();
        let found: Json = serde_json::from_str(&found).unwrap();
        let events = found["items"].as_array().unwrap();
        if let Some(event) = events.iter().find(|event| event["reason"] == reason) {
            return event.clone();
        }
        assert!(
            Instant::now() < deadline,
            "no {reason}: {found:#}\n{}",
            std::fs::read_to_string(directory.join("log")).unwrap_or_default()
        );
        std::thread::sleep(Duration::from_millis(200));
    }
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
