//! Network namespaces for tests. They have no name and live as long as a descriptor is open, so nothing stays behind,
//! whatever ends the test. A failing command says how to step into its namespace while the test still runs.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "tests"
)]

pub mod raw;
pub mod router;

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, TcpListener, UdpSocket},
    os::fd::{AsFd, AsRawFd},
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use buoy_kernel::{
    IfIndex, Result,
    link::{self, CreatedLink, PodLink},
    netlink::{Protocol, Socket},
    netns::{Netns, in_netns},
};
use nix::sched::{CloneFlags, unshare};

/// How long a busy machine may take for what must come.
pub const SOON: Duration = Duration::from_secs(20);
/// How long a test listens for what must not come.
pub const SHORT: Duration = Duration::from_millis(300);

/// A network namespace of the test, with its loopback up.
#[derive(Debug)]
pub struct TestNs {
    pub netns: Netns,
}

impl TestNs {
    pub fn new() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test needs root: it makes network namespaces"
        );
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("unshare a network namespace");
            Netns::current().expect("open the new namespace")
        });
        let ns = Self {
            netns: made.join().expect("make a namespace"),
        };
        ns.ip("link set lo up");
        ns
    }

    /// A path by which other processes find it.
    pub fn path(&self) -> String {
        format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.netns.as_fd().as_raw_fd()
        )
    }

    /// Runs a closure inside.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_netns(&self.netns, || Ok(work())).expect("enter the namespace")
    }

    /// Opens a socket inside.
    pub fn socket(&self, protocol: Protocol) -> Socket {
        self.run(|| Socket::open(protocol))
            .expect("open a netlink socket")
    }

    /// Runs a program inside.
    pub fn output(&self, command: &str) -> Output {
        let mut words = command.split_whitespace();
        let program = words.next().expect("a program");
        self.run(|| {
            Command::new(program)
                .args(words)
                .output()
                .expect("start a program")
        })
    }

    /// Runs a program inside that must succeed; returns what it wrote.
    pub fn cmd(&self, command: &str) -> String {
        let output = self.output(command);
        assert!(
            output.status.success(),
            "{command}: {}\n{}\nstep in: nsenter --net={}",
            output.status,
            String::from_utf8_lossy(&output.stderr),
            self.path()
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs `ip` inside.
    pub fn ip(&self, arguments: &str) -> String {
        self.cmd(&format!("ip {arguments}"))
    }

    /// Gives a link an address that works at once.
    ///
    /// The kernel says yes to an IPv6 address before it delivers anything to it: a work item does the rest, and on a busy
    /// machine the first packet is quicker.
    pub fn address(&self, address: &str, link: &str) {
        if !address.contains(':') {
            self.ip(&format!("addr add {address} dev {link}"));
            return;
        }
        self.ip(&format!("addr add {address} dev {link} nodad"));
        let alone = address.split('/').next().expect("an address");
        eventually(&format!("{alone} is delivered to"), || {
            self.ip(&format!("-6 route show table local type local {alone}"))
                .contains(alone)
        });
    }

    /// Whether `ip` answers one echo request.
    pub fn pings(&self, ip: &str) -> bool {
        self.output(&format!("ping -n -c 1 -W 20 {ip}")).status.success()
    }

    /// Whether no answer comes to one echo request with these arguments of `ping`.
    pub fn pings_in_vain(&self, arguments: &str) -> bool {
        !self
            .output(&format!("ping -n -c 1 -W 1 {arguments}"))
            .status
            .success()
    }
}

/// Joins two namespaces by a veth pair with these names.
pub fn join(a: &TestNs, a_name: &str, b: &TestNs, b_name: &str) {
    a.ip(&format!(
        "link add {a_name} type veth peer name {b_name} netns {}",
        b.path()
    ));
    for (ns, name) in [(a, a_name), (b, b_name)] {
        // A forwarder asks for neighbours only when its own address is past duplicate detection.
        ns.cmd(&format!("sysctl -q -w net.ipv6.conf.{name}.accept_dad=0"));
        ns.ip(&format!("link set {name} up"));
    }
}

/// A workload's link with the usual routes.
pub fn pod_link(host_name: &str, addresses: &[&str]) -> PodLink {
    PodLink {
        host_name: host_name.to_owned(),
        pod_name: "eth0".to_owned(),
        alias: format!("{}{host_name}/eth0", link::ALIAS_PREFIX),
        mtu: Some(1450),
        queues: 1,
        pod_mac: None,
        addresses: addresses
            .iter()
            .map(|text| text.parse().expect("an address"))
            .collect(),
        routes: ["0.0.0.0/0", "::/0"]
            .map(|text| text.parse().expect("a prefix"))
            .to_vec(),
        forwarding: false,
    }
}

/// Makes a workload's link from inside the node's namespace.
pub fn create(node: &TestNs, pod: &TestNs, spec: &PodLink) -> Result<CreatedLink> {
    node.run(|| {
        let mut socket = Socket::open(Protocol::Route)?;
        link::create_pod_link(&mut socket, &pod.netns, spec)
    })
}

/// Index of a link by name.
pub fn ifindex(ns: &TestNs, name: &str) -> IfIndex {
    let mut socket = ns.socket(Protocol::Route);
    link::find_link(&mut socket, name)
        .expect("ask for a link")
        .expect("the link exists")
        .ifindex
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A UDP socket inside a namespace, with patience for what must come.
pub fn udp(ns: &TestNs, address: &str) -> UdpSocket {
    let socket = bound(ns, || UdpSocket::bind(address));
    socket.set_read_timeout(Some(SOON)).expect("set a timeout");
    socket
}

/// A TCP socket that listens inside a namespace.
pub fn listener(ns: &TestNs, address: &str) -> TcpListener {
    bound(ns, || TcpListener::bind(address))
}

/// Binds a socket inside a namespace.
///
/// A port that was just closed may be taken for a moment: a process that another test starts has it until it runs its
/// program.
fn bound<T: Send>(ns: &TestNs, bind: impl Fn() -> io::Result<T> + Sync) -> T {
    ns.run(|| {
        let begin = Instant::now();
        loop {
            match bind() {
                Err(error) if error.kind() == ErrorKind::AddrInUse && begin.elapsed() < SOON => {
                    thread::sleep(Duration::from_millis(5));
                }
                bound => return bound.expect("bind"),
            }
        }
    })
}

/// Whether a datagram comes that must not come.
pub fn hears(socket: &UdpSocket) -> bool {
    let patience = socket.read_timeout().expect("read the timeout");
    socket.set_read_timeout(Some(SHORT)).expect("set a timeout");
    let heard = socket.recv_from(&mut [0; 64]).is_ok();
    socket.set_read_timeout(patience).expect("set the timeout again");
    heard
}

/// Asks again until it is so.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < SOON, "in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
