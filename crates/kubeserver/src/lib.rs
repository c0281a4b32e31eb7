//! A real Kubernetes API server with an etcd behind it, for as long as a test lasts.
//!
//! Invariants: both listen on one address of the loopback link that the caller names, keep what they write in a directory of
//! their own, and are killed with the process that started them at the latest. Who speaks to it is known by a token; what
//! they may do is up to RBAC.
//!
//! Not here: nodes, schedulers, controllers. Objects stay as they were written.

#![forbid(unsafe_code)]

mod binary;
mod pool;
mod process;
mod proxy;
mod rights;
pub mod settings;

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value as Json;
use tempfile::TempDir;

pub use binary::{binary, helm};
pub use pool::{Lent, Pool};
use process::Process;
pub use proxy::ConnectProxy;

/// Longest that a start may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often others may take an address first.
const TRIES: u32 = 3;

/// What memory must have left for a server's files to be there, in bytes.
const ROOM: u64 = 2 << 30;

/// What [`ApiServer::empty`] takes away, by where etcd has it: all that the tests make in a server of a [`Pool`].
const MADE: [&str; 9] = [
    "buoy.dev/",
    "crd.projectcalico.org/",
    "pods/",
    "minions/",
    "events/",
    "leases/buoy-system/",
    "configmaps/kube-system/calico-config",
    "namespaces/buoy-system",
    "namespaces/shop",
];

/// Who may do everything.
pub const ADMIN: &str = "admin";

/// The service account of agents.
pub const AGENT: &str = "system:serviceaccount:buoy-system:buoy-agent";

/// Tells whom the server knows, each with the token `<user>-token`: name, user, groups.
const USERS: &str = "admin-token,admin,1,system:masters\n\
    agent-token,system:serviceaccount:buoy-system:buoy-agent,2,\"system:serviceaccounts,system:serviceaccounts:buoy-system\"\n\
    controller-token,system:serviceaccount:buoy-system:buoy-controller,5,\"system:serviceaccounts,system:serviceaccounts:buoy-system\"\n\
    operator-token,operator,3,buoy-operators\n\
    nobody-token,nobody,4,\n";

/// A running API server. Its parts go in this order: without its etcd it can hang when told to end, and both write into the
/// directory.
#[derive(Debug)]
pub struct ApiServer {
    server: Option<Process>,
    etcd: Option<Process>,
    was_stopped: bool,
    /// Where it listens, by TLS.
    pub address: SocketAddr,
    /// Where its etcd listens: for clients, and for members that it does not have.
    etcd_addresses: [SocketAddr; 2],
    more: Vec<String>,
    directory: TempDir,
}

impl ApiServer {
    /// Starts one on an address that nobody else uses, and waits until it serves.
    pub fn start(host: IpAddr) -> Result<Self> {
        Self::start_with(host, &[])
    }

    /// The same, with more arguments for the API server.
    pub fn start_with(host: IpAddr, more: &[&str]) -> Result<Self> {
        let mut tries = 0..TRIES;
        loop {
            match Self::start_once(host, more) {
                Err(error) if tries.next().is_some() && is_taken(&error) => {}
                started => return started,
            }
        }
    }

    fn start_once(host: IpAddr, more: &[&str]) -> Result<Self> {
        let [address, clients, peers] = free(host)?;
        let directory = directory()?;
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text);
        write("users", USERS)?;
        settings::write_files(directory.path())?;
        let mut started = Self {
            server: None,
            etcd: None,
            was_stopped: false,
            address,
            etcd_addresses: [clients, peers],
            more: more.iter().map(|arg| (*arg).to_owned()).collect(),
            directory,
        };
        for user in ["admin", "agent", "controller", "operator", "nobody"] {
            started.write_kubeconfig(user)?;
        }
        started.start_etcd()?;
        started.start_server()?;
        Ok(started)
    }

    fn start_etcd(&mut self) -> Result<()> {
        let [clients, peers] = self.etcd_addresses;
        self.etcd = Some(start_etcd(self.directory.path(), clients, peers)?);
        Ok(())
    }

    /// A copy of all that it knows. It stops for a moment.
    pub fn copy(&mut self) -> Result<PathBuf> {
        let copy = self.directory.path().join("copy");
        self.stop();
        self.etcd = None;
        copy_directory(&self.data(), &copy)?;
        self.start_etcd()?;
        self.start_server()?;
        Ok(copy)
    }

    /// Puts a copy in the place of all that it knows, as an operator would.
    pub fn restore(&mut self, copy: &Path) -> Result<()> {
        self.stop();
        self.etcd = None;
        std::fs::remove_dir_all(self.data())?;
        copy_directory(copy, &self.data())?;
        self.start_etcd()?;
        self.start_server()
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Kills the server and starts another in its place, which knows nothing of the past but what etcd has.
    pub fn replace(&mut self) -> Result<()> {
        self.stop();
        self.start_server()
    }

    /// Kills the server; etcd stays.
    pub fn stop(&mut self) {
        self.was_stopped = true;
        self.server = None;
    }

    /// Whether it was ever stopped.
    pub fn was_stopped(&self) -> bool {
        self.was_stopped
    }

    /// Starts the server that was stopped.
    pub fn start_server(&mut self) -> Result<()> {
        let etcd = self.etcd_addresses[0];
        let mut server = start_apiserver(self.directory.path(), self.address, etcd, &self.more)?;
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address).is_err()
            || self.kubectl(&["get", "--raw", "/readyz"], "").is_err()
        {
            if let Some(status) = server.ended() {
                bail!("kube-apiserver ended: {status}\n{}", server.log());
            }
            // A server without it says so only after 20 s, and not why.
            if let Some(etcd) = &mut self.etcd
                && let Some(status) = etcd.ended()
            {
                bail!("etcd ended: {status}\n{}", etcd.log());
            }
            if Instant::now() > deadline {
                bail!("kube-apiserver does not serve\n{}", server.log());
            }
            // Each question is a process, which takes from the server that it asks.
            std::thread::sleep(Duration::from_millis(150));
        }
        self.server = Some(server);
        Ok(())
    }

    /// Process IDs of etcd and, while it runs, the server.
    pub fn pids(&self) -> Vec<u32> {
        let processes = self.etcd.iter().chain(&self.server);
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

    /// A token of the agents' account, which is good for as long as a secret is there, of this name in the account's
    /// namespace. The secret is made.
    pub fn token(&self, secret: &str) -> Result<String> {
        let within = ["--namespace", "buoy-system"];
        self.kubectl(
            &[&["create", "secret", "generic", secret][..], &within].concat(),
            "",
        )?;
        let bound = ["--bound-object-kind", "Secret", "--bound-object-name", secret];
        self.kubectl(
            &[&["create", "token", "buoy-agent"][..], &bound, &within].concat(),
            "",
        )
    }

    /// Takes the secret of a token away.
    pub fn end_token(&self, secret: &str) -> Result<()> {
        let delete = ["delete", "secret", secret, "--namespace", "buoy-system"];
        self.kubectl(&delete, "").map(drop)
    }

    /// Creates objects from files or directories of YAML, and waits until definitions among them are in force.
    pub fn create(&self, paths: &[&Path]) -> Result<()> {
        for path in paths {
            self.kubectl(&["create", "-f", &path.display().to_string()], "")?;
        }
        if self.kubectl(&["get", "crd", "-o", "name"], "")?.is_empty() {
            return Ok(());
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.kubectl(&["wait", "--for=condition=Established", "crd", "--all"], "") {
                // It cannot wait for a definition of which the server has said nothing yet.
                Err(error) if error.to_string().contains("accessor error") && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(150));
                }
                waited => return waited.map(drop),
            }
        }
    }

    /// Makes etcd forget all changes but the newest.
    pub fn compact(&self) -> Result<()> {
        let found: Json = serde_json::from_str(&self.etcdctl(&["get", "x", "-w", "json"], "")?)?;
        let newest = found["header"]["revision"].to_string();
        self.etcdctl(&["compact", "--physical", &newest], "").map(drop)
    }

    /// Takes away what tests have made in it, in one step and past the server, which hears of it as of any change.
    pub fn empty(&self) -> Result<()> {
        let deletions = MADE.map(|made| format!("del --prefix /registry/{made}\n"));
        // No conditions; what is done if they hold; what else.
        let transaction = format!("\n{}\n\n", deletions.concat());
        self.etcdctl(&["txn"], &transaction)?;
        // All that has one revision. The server believes to have it when it has some of it, and answers with the rest; so
        // there is another revision that it waits for.
        self.etcdctl(&["put", "emptied", ""], "").map(drop)
    }

    fn etcdctl(&self, args: &[&str], input: &str) -> Result<String> {
        let endpoint = self.etcd_addresses[0].to_string();
        let mut command = Command::new("etcdctl");
        command.args(["--endpoints", &endpoint]).args(args);
        process::output(command, input)
    }

    /// What the audit log has told so far.
    pub fn audit(&self) -> Result<Vec<Json>> {
        let text = std::fs::read_to_string(self.directory.path().join("audit.log"))?;
        // The last line may be half written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let events = whole.lines().map(serde_json::from_str);
        events
            .collect::<Result<_, _>>()
            .context("the audit log is not JSON")
    }

    fn write_kubeconfig(&self, user: &str) -> Result<()> {
        let server = format!("https://{}", self.address);
        let authority = self.directory.path().join("certs/apiserver.crt");
        let config = settings::kubeconfig(&server, &authority, user, &format!("{user}-token"));
        Ok(std::fs::write(self.kubeconfig(user), config.to_string())?)
    }
}

fn start_etcd(directory: &Path, clients: SocketAddr, peers: SocketAddr) -> Result<Process> {
    let args = settings::etcd(directory, clients, peers);
    Process::start("etcd", &args, &directory.join("etcd.log"))
}

fn start_apiserver(
    directory: &Path,
    address: SocketAddr,
    etcd: SocketAddr,
    more: &[String],
) -> Result<Process> {
    let mut args = settings::apiserver(directory, address, etcd);
    args.extend([
        format!("--cert-dir={}", directory.join("certs").display()),
        // Nobody is told where it is; the loopback address would be refused here.
        "--advertise-address=192.0.2.1".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        "--authorization-mode=RBAC".to_owned(),
        // One client at a time needs no queues.
        "--enable-priority-and-fairness=false".to_owned(),
        // Nobody makes the accounts that pods would need.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
    ]);
    args.extend_from_slice(more);
    Process::start("kube-apiserver", &args, &directory.join("apiserver.log"))
}

/// A directory for a server of a test, which needs no disk: in memory, where there is room for that.
pub fn directory() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    Ok(if available(memory).is_some_and(|bytes| bytes >= ROOM) {
        tempfile::tempdir_in(memory)?
    } else {
        tempfile::tempdir()?
    })
}

/// Bytes that can be written there, if it is there at all.
fn available(path: &Path) -> Option<u64> {
    let mut command = Command::new("df");
    command.args(["--block-size=1", "--output=avail"]).arg(path);
    let output = process::output(command, "").ok()?;
    output.lines().nth(1)?.trim().parse().ok()
}

/// Copies a directory with all that is in it.
pub fn copy_directory(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_directory(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// Ports of an address that nobody listens on at present, each another.
pub fn free<const N: usize>(host: IpAddr) -> Result<[SocketAddr; N]> {
    // Kept until all are there: they are to differ.
    let mut listeners = Vec::with_capacity(N);
    let mut addresses = [SocketAddr::new(host, 0); N];
    for address in &mut addresses {
        let listener = TcpListener::bind((host, 0))?;
        *address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(addresses)
}

/// Whether somebody else took an address between its choice and its use.
fn is_taken(error: &anyhow::Error) -> bool {
    error.to_string().contains("address already in use")
}
