//! A real Kubernetes API server with an etcd behind it, for as long as a test lasts.
//!
//! Invariants: both listen on one address of the loopback link that the caller names, keep what they write in a directory of
//! their own, and are killed with the process that started them at the latest. Who speaks to it is known by a token; what
//! they may do is up to RBAC.
//!
//! Not here: nodes, schedulers, controllers. Objects stay as they were written.

#![forbid(unsafe_code)]

mod binary;
mod process;

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

pub use binary::binary;
use process::Process;

/// Longest that a start may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Who may do everything.
pub const ADMIN: &str = "admin";

/// Tells whom the server knows, each with the token `<user>-token`: name, user, groups.
const USERS: &str = "admin-token,admin,1,system:masters\n\
    agent-token,system:serviceaccount:buoy-system:buoy-agent,2,\"system:serviceaccounts,system:serviceaccounts:buoy-system\"\n\
    controller-token,system:serviceaccount:buoy-system:buoy-controller,5,\"system:serviceaccounts,system:serviceaccounts:buoy-system\"\n\
    operator-token,operator,3,buoy-operators\n\
    nobody-token,nobody,4,\n";

/// What the audit log tells of: each request once, without bodies.
const AUDIT: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
    "rules": [{"level": "None", "users": ["system:apiserver"]}, {"level": "Metadata"}]}"#;

/// A running API server.
#[derive(Debug)]
pub struct ApiServer {
    directory: TempDir,
    /// Where it listens, by TLS.
    pub address: SocketAddr,
    etcd_address: SocketAddr,
    server: Option<Process>,
    etcd: Process,
}

impl ApiServer {
    /// Starts one on an address that nobody else uses, and waits until it serves.
    pub fn start(host: IpAddr) -> Result<Self> {
        let directory = directory()?;
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text);
        write("users", USERS)?;
        write("audit-policy", AUDIT)?;
        openssl_key(&directory.path().join("accounts.key"))?;
        let etcd_address = free(host)?;
        let etcd = start_etcd(directory.path(), etcd_address, free(host)?)?;
        let mut started = Self {
            address: free(host)?,
            etcd_address,
            server: None,
            etcd,
            directory,
        };
        for user in ["admin", "agent", "controller", "operator", "nobody"] {
            started.write_kubeconfig(user)?;
        }
        started.start_server()?;
        Ok(started)
    }

    /// Kills the server and starts another in its place, which knows nothing of the past but what etcd has.
    pub fn replace(&mut self) -> Result<()> {
        self.stop();
        self.start_server()
    }

    /// Kills the server; etcd stays.
    pub fn stop(&mut self) {
        self.server = None;
    }

    /// Starts the server that was stopped.
    pub fn start_server(&mut self) -> Result<()> {
        let mut server = start_apiserver(self.directory.path(), self.address, self.etcd_address)?;
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address).is_err()
            || self.kubectl(&["get", "--raw", "/readyz"], "").is_err()
        {
            if let Some(status) = server.ended() {
                bail!("kube-apiserver ended: {status}\n{}", server.log());
            }
            if Instant::now() > deadline {
                bail!("kube-apiserver does not serve\n{}", server.log());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.server = Some(server);
        Ok(())
    }

    /// Process IDs of etcd and, while it runs, the server.
    pub fn pids(&self) -> Vec<u32> {
        let processes = std::iter::once(&self.etcd).chain(&self.server);
        processes.map(Process::id).collect()
    }

    /// The kubeconfig of a user: [`ADMIN`], `agent`, `controller`, `operator` or `nobody`.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.directory.path().join(format!("kubeconfig-{user}"))
    }

    /// Runs kubectl as [`ADMIN`]; what it printed.
    pub fn kubectl(&self, args: &[&str], input: &str) -> Result<String> {
        let mut command = Command::new(binary()?);
        command
            .arg("kubectl")
            .args(args)
            .env("KUBECONFIG", self.kubeconfig(ADMIN))
            .env("HOME", self.directory.path());
        process::output(command, input)
    }

    /// Creates objects from files or directories of YAML, and waits until definitions among them are in force.
    pub fn create(&self, paths: &[&Path]) -> Result<()> {
        for path in paths {
            self.kubectl(&["create", "-f", &path.display().to_string()], "")?;
        }
        if !self.kubectl(&["get", "crd", "-o", "name"], "")?.is_empty() {
            self.kubectl(&["wait", "--for=condition=Established", "crd", "--all"], "")?;
        }
        Ok(())
    }

    /// Makes etcd forget all changes but the newest.
    pub fn compact(&self) -> Result<()> {
        let mut command = Command::new("etcdctl");
        command.args([
            "--endpoints",
            &self.etcd_address.to_string(),
            "get",
            "x",
            "-w",
            "json",
        ]);
        let found: Json = serde_json::from_str(&process::output(command, "")?)?;
        let newest = found["header"]["revision"].to_string();
        let mut command = Command::new("etcdctl");
        command.args([
            "--endpoints",
            &self.etcd_address.to_string(),
            "compact",
            "--physical",
            &newest,
        ]);
        process::output(command, "").map(drop)
    }

    /// What the audit log has told so far.
    pub fn audit(&self) -> Result<Vec<Json>> {
        let text = std::fs::read_to_string(self.directory.path().join("audit.log"))?;
        let events = text.lines().map(serde_json::from_str);
        events
            .collect::<Result<_, _>>()
            .context("the audit log is not JSON")
    }

    fn write_kubeconfig(&self, user: &str) -> Result<()> {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
            "clusters": [{"name": "test", "cluster": {
                "server": format!("https://{}", self.address),
                "certificate-authority": self.directory.path().join("certs/apiserver.crt"),
            }}],
            "users": [{"name": user, "user": {"token": format!("{user}-token")}}],
        });
        Ok(std::fs::write(self.kubeconfig(user), config.to_string())?)
    }
}

/// The server first: without its etcd it can hang when told to end. Neither is asked.
impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn start_etcd(directory: &Path, clients: SocketAddr, peers: SocketAddr) -> Result<Process> {
    let (clients, peers) = (format!("http://{clients}"), format!("http://{peers}"));
    let args = [
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
    ];
    Process::start("etcd", &args, &directory.join("etcd.log"))
}

fn start_apiserver(directory: &Path, address: SocketAddr, etcd: SocketAddr) -> Result<Process> {
    let file = |name: &str| directory.join(name).display().to_string();
    let args = [
        format!("--etcd-servers=http://{etcd}"),
        format!("--bind-address={}", address.ip()),
        format!("--secure-port={}", address.port()),
        // Nobody is told where it is; the loopback address would be refused here.
        "--advertise-address=192.0.2.1".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        format!("--cert-dir={}", file("certs")),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", file("accounts.key")),
        format!("--service-account-signing-key-file={}", file("accounts.key")),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        format!("--token-auth-file={}", file("users")),
        "--authorization-mode=RBAC".to_owned(),
        // Nobody makes the accounts that pods would need.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
        format!("--audit-policy-file={}", file("audit-policy")),
        format!("--audit-log-path={}", file("audit.log")),
    ];
    Process::start("kube-apiserver", &args, &directory.join("apiserver.log"))
}

/// In memory, where there is such a place: a test needs no disk.
fn directory() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    Ok(if memory.is_dir() {
        tempfile::tempdir_in(memory)?
    } else {
        tempfile::tempdir()?
    })
}

fn free(host: IpAddr) -> Result<SocketAddr> {
    Ok(TcpListener::bind((host, 0))?.local_addr()?)
}

fn openssl_key(path: &Path) -> Result<()> {
    let mut command = Command::new("openssl");
    command.args([
        "genpkey",
        "-algorithm",
        "RSA",
        "-pkeyopt",
        "rsa_keygen_bits:2048",
        "-out",
    ]);
    command.arg(path).stderr(Stdio::null());
    process::output(command, "").map(drop)
}
