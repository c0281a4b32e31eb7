//! The control plane: etcd, API server, scheduler and controllers, on a host of their own on the nodes' segment.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use buoy_kubeserver::{copy_directory, settings};

use super::component::{Component, Place};
use crate::api::Api;
use crate::exec::{self, eventually};
use crate::netns::Netns;

/// Addresses of its host.
pub(crate) const CONTROL: [&str; 2] = ["192.0.2.10", "2001:db8::10"];

/// Where the API server listens.
const API: &str = "192.0.2.10:6443";

/// Where etcd listens, for the API server alone: clients and members.
const ETCD: [&str; 2] = ["127.0.0.1:2379", "127.0.0.1:2380"];

/// Addresses that Services get.
pub(crate) const SERVICES: &str = "10.96.0.0/16,fd96::/112";

/// The names of the API server's certificate: its own, that of its Service, and the machine's own, for a person there.
const NAMES: [&str; 7] = [
    "IP:192.0.2.10",
    "IP:2001:db8::10",
    "IP:10.96.0.1",
    "IP:fd96::1",
    "IP:127.0.0.1",
    "DNS:kubernetes.default.svc",
    "DNS:localhost",
];

/// The user who may do everything.
pub(crate) const ADMIN: &str = "admin";

/// Longest that a start may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The control plane.
#[derive(Debug)]
pub struct ControlPlane {
    /// etcd.
    pub etcd: Component,
    /// kube-apiserver.
    pub apiserver: Component,
    /// kube-scheduler.
    pub scheduler: Component,
    /// kube-controller-manager.
    pub controllers: Component,
    /// What lets the lab itself ask without certificates or namespaces.
    door: Component,
    netns: Netns,
    directory: PathBuf,
}

impl ControlPlane {
    /// Writes its files, and kubeconfigs for the administrator and these nodes.
    pub(crate) fn make(netns: &Netns, nodes: &[String], grace: Duration) -> Result<Self> {
        let directory = netns.run().base().join("control");
        fs::create_dir_all(&directory)?;
        fs::write(directory.join("users"), users(nodes))?;
        settings::write_files(&directory)?;
        settings::write_certificate(&directory, &NAMES)?;
        let place = Place::Namespace(netns.clone());
        let component = |name, arguments| Component::kubernetes(name, &place, arguments, &directory);
        let [clients, peers]: [SocketAddr; 2] = [ETCD[0].parse()?, ETCD[1].parse()?];
        let control = Self {
            etcd: component("etcd", settings::etcd(&directory, clients, peers))?,
            apiserver: component("kube-apiserver", apiserver(&directory, clients)?)?,
            scheduler: component("kube-scheduler", scheduler(&directory))?,
            controllers: component("kube-controller-manager", controllers(&directory, grace))?,
            door: component("kubectl", door(&directory))?,
            netns: netns.clone(),
            directory: directory.clone(),
        };
        for user in [ADMIN, PROXY].into_iter().chain(nodes.iter().map(String::as_str)) {
            let authority = directory.join("ca.crt");
            let config = settings::kubeconfig(&format!("https://{API}"), &authority, user, &token(user));
            fs::write(control.kubeconfig(user), config.to_string())?;
        }
        Ok(control)
    }

    /// Starts everything, and waits until the API server serves.
    pub(crate) fn start(&self) -> Result<()> {
        self.etcd.start()?;
        self.apiserver.start()?;
        self.door.start()?;
        self.wait_until_it_serves()?;
        self.scheduler.start()?;
        self.controllers.start()
    }

    /// Waits until the API server serves.
    pub fn wait_until_it_serves(&self) -> Result<()> {
        let api = self.api();
        eventually(PATIENCE, "the API server serves", || {
            for component in [&self.etcd, &self.apiserver, &self.door] {
                component.ensure_running()?;
            }
            // A connection alone costs less than a question that fails.
            self.netns
                .enter(|| Ok(TcpStream::connect_timeout(&API.parse()?, Duration::from_secs(1))?))?;
            let said = api.text("/readyz")?;
            ensure!(said == "ok", "it says: {said}");
            Ok(())
        })
    }

    /// Kills API server and etcd at once.
    pub fn kill_store(&self) {
        self.apiserver.kill();
        self.etcd.kill();
    }

    /// Starts etcd, with more arguments for this once, and API server again, and waits until they serve.
    pub fn start_store(&self, more: &[&str]) -> Result<()> {
        self.etcd.start_with(more)?;
        self.apiserver.start()?;
        self.wait_until_it_serves()
    }

    /// A copy of what etcd has. It stops for a moment.
    pub fn copy_store(&self) -> Result<PathBuf> {
        let copy = self.directory.join("copy");
        self.kill_store();
        copy_directory(&self.directory.join("data"), &copy)?;
        self.start_store(&[])?;
        Ok(copy)
    }

    /// Puts a copy in the place of what etcd has, as an operator would: the API server stops for it. Whoever else of the
    /// control plane remembers what is forgotten begins anew.
    pub fn restore_store(&self, copy: &Path) -> Result<()> {
        self.kill_store();
        let data = self.directory.join("data");
        fs::remove_dir_all(&data)?;
        copy_directory(copy, &data)?;
        self.start_store(&[])?;
        self.scheduler.start()?;
        self.controllers.start()
    }

    /// Runs etcdctl. Returns what it printed. Error: it fails.
    pub fn etcdctl(&self, words: &[&str], input: &str) -> Result<String> {
        let mut command = self.netns.command("etcdctl");
        command
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", ETCD[0]])
            .args(words);
        Ok(exec::run(&mut command, input, PATIENCE)?.ok()?.stdout)
    }

    /// Its host's namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The kubeconfig of the administrator or a node.
    pub(crate) fn kubeconfig(&self, user: &str) -> PathBuf {
        self.directory.join(format!("kubeconfig-{user}"))
    }

    /// The certificate by which clients know the API server.
    pub fn authority(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }

    /// The log that tells of each request.
    pub(super) fn audit_log(&self) -> PathBuf {
        self.directory.join("audit.log")
    }

    /// How clients in the lab call the API server.
    pub fn url(&self) -> String {
        format!("https://{API}")
    }

    /// The API as the administrator sees it.
    pub(crate) fn api(&self) -> Api {
        Api::behind(&self.directory.join(DOOR))
    }

    /// All components.
    pub(crate) fn components(&self) -> [&Component; 5] {
        [
            &self.etcd,
            &self.apiserver,
            &self.scheduler,
            &self.controllers,
            &self.door,
        ]
    }
}

/// Without its etcd an API server can hang when told to end; nobody is asked.
impl Drop for ControlPlane {
    fn drop(&mut self) {
        if !self.netns.run().stays() {
            for component in self.components().into_iter().rev() {
                component.kill();
            }
        }
    }
}

/// The user who all kube-proxies are.
pub(crate) const PROXY: &str = "proxy";

/// The socket of the door.
const DOOR: &str = "api.sock";

fn token(user: &str) -> String {
    format!("{user}-token")
}

/// Whom the API server knows by a token: the administrator, who the controllers are too, and each node's kubelet and proxy.
fn users(nodes: &[String]) -> String {
    let mut lines = format!("{},admin,1,system:masters\n", token(ADMIN));
    lines += &format!("{},system:kube-proxy,2\n", token(PROXY));
    for name in nodes {
        lines += &format!("{},system:node:{name},node-{name},system:nodes\n", token(name));
    }
    lines
}

fn apiserver(directory: &Path, etcd: SocketAddr) -> Result<Vec<String>> {
    let address: SocketAddr = API.parse()?;
    let file = |name: &str| directory.join(name).display().to_string();
    let mut args = settings::apiserver(directory, address, etcd);
    args.extend([
        format!("--advertise-address={}", address.ip()),
        format!("--tls-cert-file={}", file("server.crt")),
        format!("--tls-private-key-file={}", file("server.key")),
        format!("--cert-dir={}", file("certs")),
        format!("--service-cluster-ip-range={SERVICES}"),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        "--allow-privileged=true".to_owned(),
    ]);
    Ok(args)
}

/// What scheduler and controllers have in common: many questions at once, so that starting thirty pods takes no minute.
fn client(directory: &Path) -> Vec<String> {
    vec![
        format!("--kubeconfig={}/kubeconfig-{ADMIN}", directory.display()),
        format!("--cert-dir={}/certs", directory.display()),
        "--bind-address=127.0.0.1".to_owned(),
        "--leader-elect=false".to_owned(),
        "--kube-api-qps=500".to_owned(),
        "--kube-api-burst=1000".to_owned(),
    ]
}

fn scheduler(directory: &Path) -> Vec<String> {
    client(directory)
}

/// A dead node is noticed after this time.
fn controllers(directory: &Path, grace: Duration) -> Vec<String> {
    let file = |name: &str| directory.join(name).display().to_string();
    let mut args = client(directory);
    args.extend([
        format!("--root-ca-file={}", file("ca.crt")),
        format!("--service-account-private-key-file={}", file("accounts.key")),
        "--node-monitor-period=500ms".to_owned(),
        format!("--node-monitor-grace-period={}s", grace.as_secs()),
    ]);
    args
}

/// `kubectl proxy`: the API without TLS, on a socket that this process can reach.
fn door(directory: &Path) -> Vec<String> {
    vec![
        "proxy".to_owned(),
        format!("--kubeconfig={}/kubeconfig-{ADMIN}", directory.display()),
        format!("--unix-socket={}/{DOOR}", directory.display()),
    ]
}
