//! A real etcd of one member or three, each on an address of its own, for as long as a test lasts.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use buoy_datastore::Datastore;
use buoy_datastore::etcd::{Etcd, Options};
use buoy_kubeserver::copy_directory;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Longest that a start may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A member of an etcd, which runs; stopped and removed when dropped.
pub(crate) struct Server {
    child: Child,
    member: Member,
    /// Where its clients connect.
    pub(crate) address: SocketAddr,
}

/// What a member is started with.
struct Member {
    name: String,
    scheme: &'static str,
    address: SocketAddr,
    peers: SocketAddr,
    /// All members, as each of them is told.
    cluster: String,
    more: Vec<String>,
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

    fn begin(scheme: &'static str, host: IpAddr, more: &[String]) -> Self {
        let [address, peers] = buoy_kubeserver::free(host).unwrap();
        let mut server = Self::of(Member {
            name: "one".to_owned(),
            scheme,
            address,
            peers,
            cluster: format!("one=http://{peers}"),
            more: more.to_vec(),
            directory: directory(),
        });
        server.wait_until_it_serves();
        server
    }

    /// Starts three members of one cluster.
    pub(crate) fn start_three(more: &[&str]) -> [Self; 3] {
        let hosts = [own_address(), own_address(), own_address()];
        let addresses = hosts.map(|host| buoy_kubeserver::free::<2>(host).unwrap());
        let peers = addresses.map(|[_, peers]| peers);
        let names = ["one", "two", "three"];
        let cluster = names
            .iter()
            .zip(peers)
            .map(|(name, peers)| format!("{name}=http://{peers}"));
        let cluster: Vec<String> = cluster.collect();
        let mut servers = [0, 1, 2].map(|index| {
            Self::of(Member {
                name: names[index].to_owned(),
                scheme: "http",
                address: addresses[index][0],
                peers: peers[index],
                cluster: cluster.join(","),
                more: more.iter().map(|arg| (*arg).to_owned()).collect(),
                directory: directory(),
            })
        });
        servers.iter_mut().for_each(Self::wait_until_it_serves);
        servers
    }

    fn of(member: Member) -> Self {
        Self {
            child: member.spawn(),
            address: member.address,
            member,
        }
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again with what it has, and waits until it serves.
    pub(crate) fn start_again(&mut self) {
        self.kill();
        self.child = self.member.spawn();
        self.wait_until_it_serves();
    }

    /// Lets it do nothing, or go on.
    pub(crate) fn freeze(&self, is_frozen: bool) {
        let signal = if is_frozen {
            Signal::SIGSTOP
        } else {
            Signal::SIGCONT
        };
        let pid = i32::try_from(self.child.id()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Whether it leads its cluster.
    pub(crate) fn leads(&self) -> bool {
        let text = self.ctl(&["endpoint", "status", "-w", "json"]);
        text.is_some_and(|text| {
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            let status = &json[0]["Status"];
            status["leader"] == status["header"]["member_id"]
        })
    }

    /// Saves a copy of everything.
    pub(crate) fn save(&self) -> PathBuf {
        let copy = self.member.directory.path().join("copy");
        assert!(self.ctl(&["snapshot", "save", copy.to_str().unwrap()]).is_some());
        copy
    }

    /// Puts a copy in the place of everything, as an operator would: it makes another cluster of it.
    pub(crate) fn restore(&mut self, copy: &Path) {
        self.kill();
        let data = self.member.data();
        std::fs::remove_dir_all(&data).unwrap();
        let done = self.ctl(&[
            "snapshot",
            "restore",
            copy.to_str().unwrap(),
            "--name",
            &self.member.name,
            "--data-dir",
            data.to_str().unwrap(),
            "--initial-cluster",
            &self.member.cluster,
            "--initial-cluster-token",
            "restored",
            "--initial-advertise-peer-urls",
            &format!("http://{}", self.member.peers),
        ]);
        assert!(done.is_some());
        self.start_again();
    }

    /// Its data as files, of now; it stops for a moment.
    pub(crate) fn copy_files(&mut self) -> PathBuf {
        let copy = self.member.directory.path().join("files");
        self.kill();
        copy_directory(&self.member.data(), &copy).unwrap();
        self.start_again();
        copy
    }

    /// Puts files of before in the place of its data: it is the same cluster, at a former time.
    pub(crate) fn put_files_back(&mut self, copy: &Path) {
        self.kill();
        std::fs::remove_dir_all(self.member.data()).unwrap();
        copy_directory(copy, &self.member.data()).unwrap();
        self.start_again();
    }

    /// One that speaks TLS is only asked whether it listens.
    fn wait_until_it_serves(&mut self) {
        let is_secure = self.member.scheme == "https";
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address).is_err() || !(is_secure || self.ctl(&["get", "x"]).is_some()) {
            let gone = self.child.try_wait().unwrap();
            assert!(
                gone.is_none() && Instant::now() < deadline,
                "etcd does not serve: {gone:?}\n{}",
                std::fs::read_to_string(self.member.directory.path().join("log")).unwrap_or_default()
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
        assert!(self.try_put(path, bytes));
    }

    /// Writes past the datastore, if there is room.
    pub(crate) fn try_put(&self, path: &str, bytes: &[u8]) -> bool {
        let file = self.member.directory.path().join("value");
        std::fs::write(&file, bytes).unwrap();
        let mut put = self.etcdctl(&["put", path]);
        put.stdin(File::open(file).unwrap());
        put.output().unwrap().status.success()
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
        self.kill();
    }
}

/// How a client calls all members.
pub(crate) fn url_of(servers: &[Server]) -> String {
    let addresses: Vec<String> = servers.iter().map(|server| server.address.to_string()).collect();
    format!("etcd://{}", addresses.join(","))
}

fn directory() -> TempDir {
    buoy_kubeserver::directory().unwrap()
}

/// An address of the loopback link that no other test has, of this run or another.
pub(crate) fn own_address() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    IpAddr::V4(Ipv4Addr::new(127, high, low, number))
}

pub(crate) fn free(host: IpAddr) -> SocketAddr {
    let [address] = buoy_kubeserver::free(host).unwrap();
    address
}

impl Member {
    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn spawn(&self) -> Child {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.directory.path().join("log"))
            .unwrap();
        let clients = format!("{}://{}", self.scheme, self.address);
        let peers = format!("http://{}", self.peers);
        // With the test process its servers end, too.
        Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "etcd", "--name", &self.name, "--data-dir"])
            .arg(self.data())
            .args([
                "--listen-client-urls",
                &clients,
                "--advertise-client-urls",
                &clients,
            ])
            .args([
                "--listen-peer-urls",
                &peers,
                "--initial-advertise-peer-urls",
                &peers,
            ])
            .args(["--initial-cluster", &self.cluster])
            .args(["--heartbeat-interval", "10", "--election-timeout", "100"])
            .args(["--experimental-watch-progress-notify-interval", "200ms"])
            .arg("--unsafe-no-fsync")
            .args(&self.more)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("etcd cannot be started: install etcd-server and etcd-client (scripts/deps lab)")
    }
}
