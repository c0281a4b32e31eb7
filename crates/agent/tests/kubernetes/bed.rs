//! A real API server with the built agent of node `n1` on it, in a network namespace of their own; and pods that ask this
//! agent for what a runtime asks it for.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use buoy_cni::client::{Client, Deadline};
use buoy_cni_spec::agent::{AddRequest, Body, PluginRequest, Request, Response};
use buoy_kernel::netns::Netns;
use buoy_kubeserver::{ADMIN, AGENT, ApiServer};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value as Json, json};

pub(crate) const NODE: &str = r#"{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}"#;
/// The node's address.
pub(crate) const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// What says that an agent has begun.
const CLUSTER: &str = "clusterinformations.crd.projectcalico.org/default";

const PATIENCE: Duration = Duration::from_secs(90);
/// How long nothing must have been asked for all to be said.
const QUIET: Duration = Duration::from_secs(2);

/// A running agent; killed when dropped.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What was asked, by verb and resource, and how often.
pub(crate) type Asked = BTreeMap<(String, String), u64>;

/// Server and agent. The agent goes first.
pub(crate) struct Bed {
    _agent: Agent,
    pub(crate) server: ApiServer,
    directory: tempfile::TempDir,
}

impl Bed {
    /// A server that knows our records and rights, and an agent, which gets these words more.
    pub(crate) fn begin(more: &[&str]) -> Self {
        Self::begin_by(Ipv4Addr::LOCALHOST, |server, directory| {
            let mut command = agent_command(server, directory);
            command.args(more);
            command
        })
    }

    /// The same with a server at this address, and an agent that is started by another command, which may use a directory.
    pub(crate) fn begin_by(address: Ipv4Addr, agent: impl FnOnce(&ApiServer, &Path) -> Command) -> Self {
        // What this thread starts is where it is: server, agent and all they do to the network.
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        for args in [
            ["link", "set", "lo", "up"].as_slice(),
            &["address", "add", &format!("{OWN}/24"), "dev", "lo"],
        ] {
            assert!(Command::new("ip").args(args).status().unwrap().success());
        }
        let server = ApiServer::start(IpAddr::V4(address)).unwrap();
        server
            .create(&[&deploy().join("crds"), &deploy().join("rbac.yaml")])
            .unwrap();
        let directory = tempfile::tempdir().unwrap();
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let agent = agent(&server, directory.path()).stderr(log).spawn().unwrap();
        Self {
            _agent: Agent(agent),
            server,
            directory,
        }
    }

    /// The same with its node and other objects, when the agent has begun.
    pub(crate) fn begun(more: &[&str], objects: &[&str]) -> Self {
        let bed = Self::begin(more);
        for object in objects.iter().chain([&NODE]) {
            bed.create(object);
        }
        bed.until_is(CLUSTER, "/spec/datastoreReady", &json!(true));
        bed
    }

    /// The built agent with the same rights, for another command.
    pub(crate) fn agent_command(&self) -> Command {
        agent_command(&self.server, self.directory.path())
    }

    /// A directory of the test's own.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn create(&self, object: &str) {
        self.server.kubectl(&["create", "-f", "-"], object).unwrap();
    }

    /// An object as it is; `null` if there is none.
    pub(crate) fn get(&self, object: &str) -> Json {
        let found = self.server.kubectl(&["get", object, "-o", "json"], "");
        serde_json::from_str(&found.unwrap_or_default()).unwrap_or_default()
    }

    /// Waits until a field of an object is as expected.
    pub(crate) fn until_is(&self, object: &str, pointer: &str, expected: &Json) {
        self.until(&format!("{pointer} of {object} is {expected}"), || {
            let found = self.get(object);
            let is_so = found.pointer(pointer) == Some(expected);
            is_so.then_some(()).ok_or(found)
        });
    }

    /// Waits for an event of a reason.
    pub(crate) fn event(&self, reason: &str) -> Json {
        self.until(&format!("an event {reason}"), || {
            let found = self.get("events.events.k8s.io");
            let events = found["items"].as_array();
            let event = events.and_then(|events| events.iter().find(|event| event["reason"] == reason));
            event.cloned().ok_or(found)
        })
    }

    /// Waits until there is what is asked for. Otherwise: what there is instead.
    pub(crate) fn until<T>(&self, what: &str, mut look: impl FnMut() -> Result<T, Json>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match look() {
                Ok(found) => return found,
                Err(found) => assert!(
                    Instant::now() < deadline,
                    "not so, as {ADMIN} sees it: {what}: {found:#}\n{}",
                    std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
                ),
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// What the agent has asked for so far, when it has come to rest: without leases and watches.
    pub(crate) fn asked(&self) -> Asked {
        let so_far = || {
            let mut asked = self.server.asked_by(AGENT).unwrap();
            asked.retain(|(verb, resource), _| verb != "watch" && !resource.starts_with("leases"));
            asked
        };
        let mut before = so_far();
        self.until("the agent comes to rest", || {
            thread::sleep(QUIET);
            let now = so_far();
            if now == before {
                Ok(now)
            } else {
                Err(json!(format!("{:?}", std::mem::replace(&mut before, now))))
            }
        })
    }

    fn call(&self, body: Body, netns: Option<&Netns>) -> Response {
        let client = Client::new(self.directory.path().join("socket"));
        let mut request = Request::new("test", body);
        client
            .call_once(&mut request, netns.map(AsFd::as_fd), Deadline::after(PATIENCE))
            .unwrap()
    }
}

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

/// The built agent of node `n1`, which finds the server by a kubeconfig.
pub(crate) fn agent_command(server: &ApiServer, directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_buoy-agent"));
    let path = |name: &str| directory.join(name).display().to_string();
    command
        .args(["--node-name", "n1", "--node-ip", &OWN.to_string()])
        .args(["--routing", "kernel", "--datastore", "kubernetes:"])
        .args([
            "--socket",
            &path("socket"),
            "--state-dir",
            &path("state"),
            "--run-dir",
            &path("run"),
        ])
        .env("KUBECONFIG", server.kubeconfig("agent"))
        .stdin(Stdio::null());
    command
}

/// A pod of node `n1` that no kubelet runs, and its network namespace.
pub(crate) struct Pod {
    name: String,
    uid: String,
    annotations: Json,
    netns: Netns,
}

impl Pod {
    /// Makes it, with annotations.
    pub(crate) fn new(bed: &Bed, name: &str, annotations: Json) -> Self {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "annotations": annotations},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
        });
        bed.create(&pod.to_string());
        let found = bed.get(&format!("pod/{name}"));
        let unshared = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            Netns::current().unwrap()
        };
        Self {
            name: name.to_owned(),
            uid: found["metadata"]["uid"].as_str().unwrap().to_owned(),
            annotations,
            netns: thread::spawn(unshared).join().unwrap(),
        }
    }

    pub(crate) fn uid(&self) -> &str {
        &self.uid
    }

    /// ADD of the main plugin, with this configuration of addresses.
    pub(crate) fn add(&self, bed: &Bed, ipam: Json) -> Response {
        let PluginRequest {
            container_id,
            ifname,
            args,
            path,
            ..
        } = self.request(json!({}));
        let add = AddRequest {
            container_id,
            ifname,
            netns_path: format!(
                "/proc/{}/fd/{}",
                std::process::id(),
                self.netns.as_fd().as_raw_fd()
            ),
            args,
            path,
            config: self.config(&self.annotations, ipam),
            delegated: None,
            deadline_ms: 0,
        };
        bed.call(Body::Add(add), Some(&self.netns))
    }

    /// DEL of the main plugin.
    pub(crate) fn del(&self, bed: &Bed) -> Response {
        bed.call(
            Body::Del(self.request(self.annotations.clone())),
            Some(&self.netns),
        )
    }

    /// ADD of `calico-ipam`, where the runtime knows of these annotations.
    pub(crate) fn add_addresses(&self, bed: &Bed, annotations: Json) -> Response {
        bed.call(Body::IpamAdd(self.request(annotations)), None)
    }

    fn request(&self, annotations: Json) -> PluginRequest {
        let Self { name, uid, .. } = self;
        PluginRequest {
            container_id: format!("c0ffee-{name}"),
            ifname: "eth0".to_owned(),
            netns_path: None,
            args: format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={name};K8S_POD_UID={uid}"),
            path: String::new(),
            config: self.config(&annotations, json!({"type": "calico-ipam"})),
            deadline_ms: 0,
        }
    }

    fn config(&self, annotations: &Json, ipam: Json) -> Json {
        json!({
            "cniVersion": "1.0.0", "name": "pods", "type": "calico", "ipam": ipam,
            "runtimeConfig": {"io.kubernetes.cri.pod-annotations": annotations},
        })
    }
}
