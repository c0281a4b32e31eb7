//! A router outside the cluster: a namespace with Debian's BIRD 2 and a configuration of its own, which knows nothing of
//! Buoy. It compares MEDs, as any router does, and forwards between the nodes' segment and the clients.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::bird;
use crate::exec::{PATIENCE, Process, eventually, tail};
use crate::netns::Netns;
use crate::run::Run;

/// Its AS number.
pub const ROUTER_AS: u32 = 64_600;
/// The AS number of the nodes.
pub const NODE_AS: u32 = 64_512;

/// How the router is set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Seconds without a word after which a session is over.
    pub hold_time: u32,
    /// Whether it offers BFD.
    pub bfd: bool,
    /// What it announces to the nodes, led to itself.
    pub announced: Vec<IpNet>,
    /// Its neighbours: name, address, AS number.
    pub peers: Vec<(String, IpAddr, u32)>,
    /// Password of all sessions; none, if empty.
    pub password: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hold_time: 240,
            bfd: false,
            announced: Vec::new(),
            peers: Vec::new(),
            password: String::new(),
        }
    }
}

/// A router. Dropping it ends it.
#[derive(Debug)]
pub struct Router {
    bird: Mutex<Option<Process>>,
    settings: Mutex<Settings>,
    directory: PathBuf,
    netns: Netns,
    addresses: [IpAddr; 2],
}

impl Router {
    /// Makes its namespace, which forwards; without addresses, and without BIRD.
    pub fn make(run: &Run, name: &str, addresses: [IpAddr; 2]) -> Result<Self> {
        let netns = Netns::make(run, name)?;
        for (key, value) in [
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
            // A ping through it shall not be redirected past it.
            ("net/ipv4/conf/all/send_redirects", "0"),
            ("net/ipv4/conf/default/send_redirects", "0"),
        ] {
            netns.set_sysctl(key, value)?;
        }
        let directory = run.base().join(name);
        fs::create_dir_all(&directory)?;
        Ok(Self {
            bird: Mutex::default(),
            settings: Mutex::default(),
            directory,
            netns,
            addresses,
        })
    }

    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Its address of a family on the nodes' segment.
    pub fn address(&self, like: IpAddr) -> IpAddr {
        self.addresses[usize::from(like.is_ipv6())]
    }

    /// Its control socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("bird.ctl")
    }

    /// The process id of its BIRD. Error: it does not run.
    pub fn pid(&self) -> Result<u32> {
        let bird = lock(&self.bird);
        let bird = bird.as_ref().context("the router has no BIRD")?;
        Ok(bird.pid())
    }

    /// The end of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log(), lines)
    }

    fn log(&self) -> PathBuf {
        self.directory.join("bird.log")
    }

    /// Starts BIRD and waits until it answers.
    pub fn start(&self) -> Result<()> {
        let config = self.write_config()?;
        let mut command = self.netns.command("bird");
        command
            .args(["-f", "-s"])
            .arg(self.socket())
            .arg("-c")
            .arg(config);
        let process = Process::start(self.netns.run(), &mut command, &self.log())?;
        *lock(&self.bird) = Some(process);
        eventually(PATIENCE, "the router's BIRD answers", || {
            self.birdc("show status")
        })
        .with_context(|| self.log_tail(10))
        .map(|_| ())
    }

    /// Stops BIRD in order, as an upgrade of the router would: it says goodbye to its peers.
    pub fn stop(&self) -> Result<()> {
        if let Some(mut process) = lock(&self.bird).take() {
            process.signal(Signal::SIGTERM)?;
            process.wait(PATIENCE)?;
        }
        Ok(())
    }

    /// Changes how it is set, at once if it runs.
    pub fn set(&self, change: impl FnOnce(&mut Settings)) -> Result<()> {
        change(&mut lock(&self.settings));
        if lock(&self.bird).is_none() {
            return Ok(());
        }
        self.write_config()?;
        let said = self.birdc("configure")?;
        ensure!(
            said.contains("Reconfigured") || said.contains("Reconfiguration in progress"),
            "the router refuses its configuration: {said}"
        );
        Ok(())
    }

    /// Asks its BIRD; `line` is split at white space.
    pub fn birdc(&self, line: &str) -> Result<String> {
        bird::ask(&self.netns, &self.socket(), line)
    }

    /// Names of the sessions that stand.
    pub fn established(&self) -> Result<Vec<String>> {
        Ok(bird::established(&self.birdc("show protocols")?))
    }

    /// Where its kernel sends what is for an address by a route to this address alone. Error: there is no such route.
    pub fn next_hop(&self, to: IpAddr) -> Result<IpAddr> {
        let family = if to.is_ipv4() { "-4" } else { "-6" };
        let printed = self
            .netns
            .exec(&format!("ip -j {family} route show exact {to}"))?
            .stdout;
        let routes: Vec<Value> = match printed.trim() {
            "" => Vec::new(),
            text => serde_json::from_str(text)?,
        };
        let route = routes
            .first()
            .with_context(|| format!("the router has no route to {to}"))?;
        let gateway = route["gateway"].as_str().or(route["via"]["host"].as_str());
        let gateway =
            gateway.with_context(|| format!("the router's route to {to} leads nowhere: {route}"))?;
        Ok(gateway.parse()?)
    }

    fn write_config(&self) -> Result<PathBuf> {
        let path = self.directory.join("bird.conf");
        let text = config(&lock(&self.settings), self.addresses);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Its directory, with configuration and log.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// The configuration: what a network engineer would write for such a router, and no more; but for the wait after an
/// error, which is a minute and more by default: a node whose cable is plugged in again would be refused for so long.
fn config(settings: &Settings, addresses: [IpAddr; 2]) -> String {
    let mut text = format!(
        "log stderr all;\nrouter id {};\nprotocol device {{ }}\n",
        addresses[0]
    );
    for family in ["ipv4", "ipv6"] {
        text +=
            &format!("protocol kernel {{ {family} {{ import none; export where source = RTS_BGP; }}; }}\n");
        let of_family = |net: &&IpNet| net.addr().is_ipv4() == (family == "ipv4");
        let routes: String = settings
            .announced
            .iter()
            .filter(of_family)
            .map(|net| format!(" route {net} unreachable;"))
            .collect();
        text += &format!("protocol static {{ {family};{routes} }}\n");
    }
    if settings.bfd {
        text += "protocol bfd { interface \"eth0\" { interval 100 ms; multiplier 3; }; }\n";
    }
    for (name, peer, number) in &settings.peers {
        let (local, family) = if peer.is_ipv4() {
            (addresses[0], "ipv4")
        } else {
            (addresses[1], "ipv6")
        };
        let hold = settings.hold_time;
        let bfd = if settings.bfd { " bfd on;" } else { "" };
        let password = match settings.password.as_str() {
            "" => String::new(),
            password => format!(" password \"{password}\";"),
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "protocol bgp {name} {{ local {local} as {ROUTER_AS}; neighbor {peer} as {number}; direct; \
             hold time {hold}; error wait time 1, 5;{bfd}{password} {family} {{ import all; export where source = RTS_STATIC; }}; }}"
        );
    }
    text
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
