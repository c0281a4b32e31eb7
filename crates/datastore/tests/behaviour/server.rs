//! A real etcd of one member, on an address of its own, for as long as a test lasts.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use buoy_datastore::Datastore;
use buoy_datastore::etcd::{Etcd, Options};
use tempfile::TempDir;

/// Longest that a start may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running etcd; stopped and removed when dropped.
pub(crate) struct Server {
    child: Child,
    /// Where its clients connect.
    pub(crate) address: SocketAddr,
    directory: TempDir,
}

impl Server {
    /// Starts one that keeps nothing.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with more arguments.
    pub(crate) fn start_with(more: &[&str]) -> Self {
        let more: Vec<String> = more.iter().map(|arg| (*arg).to_owned()).collect();
        Self::begin("http", own_address(), &more)
    }

    /// Starts one that speaks TLS; its arguments may depend on its address.
    pub(crate) fn start_secure(more: impl FnOnce(IpAddr) -> Vec<String>) -> Self {
        let host = own_address();
        Self::begin("https", host, &more(host))
    }

    fn begin(scheme: &str, host: IpAddr, more: &[String]) -> Self {
        let directory = directory();
        let address = free(host);
        let child = spawn(
            directory.path(),
            &format!("{scheme}://{address}"),
            free(host),
            more,
        );
        let mut server = Self {
            child,
            address,
            directory,
        };
        server.wait_until_it_serves(scheme == "https");
        server
    }

    /// One that speaks TLS is only asked whether it listens.
    fn wait_until_it_serves(&mut self, is_secure: bool) {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address).is_err() || !(is_secure || self.ctl(&["get", "x"]).is_some()) {
            let gone = self.child.try_wait().unwrap();
            assert!(
                gone.is_none() && Instant::now() < deadline,
                "etcd does not serve: {gone:?}\n{}",
                std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// How the datastore is called.
    pub(crate) fn url(&self) -> String {
        format!("etcd://{}", self.address)
    }

    /// A client of it.
    pub(crate) fn store(&self) -> Arc<dyn Datastore> {
        client(&self.url())
    }

    /// Writes past the datastore.
    pub(crate) fn put(&self, path: &str, bytes: &[u8]) {
        let file = self.directory.path().join("value");
        std::fs::write(&file, bytes).unwrap();
        let mut put = self.etcdctl(&["put", path]);
        put.stdin(File::open(file).unwrap());
        assert!(put.output().unwrap().status.success());
    }

    /// Forgets all changes but the newest.
    pub(crate) fn compact(&self) {
        let newest = self.revision().to_string();
        assert!(self.ctl(&["compact", "--physical", &newest]).is_some());
    }

    fn revision(&self) -> i64 {
        let text = self.ctl(&["get", "x", "-w", "json"]).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        json["header"]["revision"].as_i64().unwrap()
    }

    /// Runs etcdctl; what it said, if it succeeded.
    pub(crate) fn ctl(&self, args: &[&str]) -> Option<String> {
        let output = self.etcdctl(args).output().unwrap();
        output
            .status
            .success()
            .then(|| String::from_utf8(output.stdout).unwrap())
    }

    fn etcdctl(&self, args: &[&str]) -> Command {
        let mut command = Command::new("etcdctl");
        command
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.address.to_string()])
            .args(args)
            .stderr(Stdio::null());
        command
    }
}

/// A client of the etcd that a URL names, whatever the environment says.
pub(crate) fn client(url: &str) -> Arc<dyn Datastore> {
    Arc::new(Etcd::open(url, |_| None, Options::default()).unwrap())
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In memory, where there is such a place: a test needs no disk.
fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

/// An address of the loopback link that no other test has, of this run or another.
pub(crate) fn own_address() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    IpAddr::V4(Ipv4Addr::new(127, high, low, number))
}

pub(crate) fn free(host: IpAddr) -> SocketAddr {
    TcpListener::bind((host, 0)).unwrap().local_addr().unwrap()
}

fn spawn(directory: &Path, clients: &str, peers: SocketAddr, more: &[String]) -> Child {
    let log = File::create(directory.join("log")).unwrap();
    let peers = format!("http://{peers}");
    // With the test process its servers end, too.
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "etcd", "--name", "one", "--data-dir"])
        .arg(directory.join("data"))
        .args([
            "--listen-client-urls",
            clients,
            "--advertise-client-urls",
            clients,
        ])
        .args([
            "--listen-peer-urls",
            &peers,
            "--initial-advertise-peer-urls",
            &peers,
        ])
        .args(["--initial-cluster", &format!("one={peers}")])
        .args([
            "--heartbeat-interval",
            "10",
            "--election-timeout",
            "100",
            "--unsafe-no-fsync",
        ])
        .args(["--experimental-watch-progress-notify-interval", "200ms"])
        .args(more)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .expect("etcd cannot be started: install etcd-server and etcd-client (scripts/deps lab)")
}
