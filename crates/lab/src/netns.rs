//! Network namespaces of the run: named ones, as `ip netns` knows them, with links between them.
//!
//! Code of this process works inside a namespace on a thread of its own, so no other thread is ever moved. Programs are
//! started by `nsenter --net`, which, unlike `ip netns exec`, leaves mounts as they are. The machine's own namespace is
//! never entered and nothing is ever made in it: links are made from inside one namespace straight into another.

use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow, ensure};
use ipnet::IpNet;
use nix::sched::{CloneFlags, setns};

use crate::exec::{self, Finished, PATIENCE};
use crate::made::{NETNS_DIRECTORY, remove_namespace};
use crate::run::Run;

/// A named network namespace. Clones are the same one; it goes when the last is dropped.
#[derive(Clone, Debug)]
pub struct Netns {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    path: PathBuf,
    /// Keeps the run, and with it the directories, until its namespaces are gone.
    run: Run,
}

impl Netns {
    /// Makes a namespace with its loopback up. `name` must be unique in the run.
    pub fn make(run: &Run, name: &str) -> Result<Self> {
        let full = run.namespace_name(name);
        run.made_namespace(&full);
        let path = Path::new(NETNS_DIRECTORY).join(&full);
        exec::run(Command::new("ip").args(["netns", "add", &full]), "", PATIENCE)?.ok()?;
        let netns = Self {
            inner: Arc::new(Inner {
                name: full,
                path,
                run: run.clone(),
            }),
        };
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// Its full name, under which `ip netns` lists it.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its path, as runtimes hand it to CNI.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// The run it belongs to.
    pub fn run(&self) -> &Run {
        &self.inner.run
    }

    /// How a person steps into it.
    pub fn how_to_enter(&self) -> String {
        format!("nsenter --net={}", self.path().display())
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--");
        command.arg(program);
        command
    }

    /// Runs a program inside, to its end. `line` is split at white space. Error: it fails.
    pub fn exec(&self, line: &str) -> Result<Finished> {
        let mut words = line.split_whitespace();
        let program = words.next().context("no program named")?;
        exec::run(self.command(program).args(words), "", PATIENCE)?.ok()
    }

    /// Gives lines to `ip -batch` inside. Error: one of them fails.
    pub fn ip(&self, batch: &str) -> Result<()> {
        let command = &mut self.command("ip");
        exec::run(command.args(["-batch", "-"]), &format!("{batch}\n"), PATIENCE)?
            .ok()
            .map(|_| ())
            .with_context(|| format!("ip -batch in {}:\n{batch}", self.name()))
    }

    /// Gives a ruleset to `nft -f` inside. Error: it is not accepted.
    pub fn nft(&self, ruleset: &str) -> Result<()> {
        let command = &mut self.command("nft");
        exec::run(command.args(["-f", "-"]), ruleset, PATIENCE)?
            .ok()
            .map(|_| ())
    }

    /// Calls `work` on a new thread inside, and waits for it.
    pub fn enter<T, F>(&self, work: F) -> Result<T>
    where
        T: Send,
        F: FnOnce() -> Result<T> + Send,
    {
        let namespace = self.open()?;
        let inside = || {
            go_into(&namespace, self.name())?;
            work()
        };
        thread::scope(|scope| scope.spawn(inside).join())
            .map_err(|_| anyhow!("a thread in {} panicked", self.name()))?
    }

    /// Starts a thread inside.
    pub fn spawn<T, F>(&self, name: &str, work: F) -> Result<JoinHandle<Result<T>>>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T> + Send + 'static,
    {
        let (namespace, full) = (self.open()?, self.name().to_owned());
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            go_into(&namespace, &full)?;
            work()
        })?;
        Ok(thread)
    }

    fn open(&self) -> Result<File> {
        File::open(self.path()).with_context(|| format!("cannot open {}", self.name()))
    }

    /// Sets a sysctl inside: `net/ipv4/ip_forward`, `1`.
    pub fn set_sysctl(&self, key: &str, value: &str) -> Result<()> {
        let (path, value) = (format!("/proc/sys/{key}"), value.to_owned());
        self.enter(move || std::fs::write(&path, value).with_context(|| format!("cannot write {path}")))
    }

    /// Connects it with another namespace by a veth pair, both ends up.
    pub fn link(&self, ifname: &str, peer: &Self, peer_ifname: &str) -> Result<()> {
        let there = peer.path().display();
        self.ip(&format!(
            "link add {ifname} type veth peer name {peer_ifname} netns {there}\nlink set {ifname} up"
        ))?;
        peer.ip(&format!("link set {peer_ifname} up"))
    }

    /// Gives an interface an address, usable at once.
    pub fn add_address(&self, ifname: &str, address: IpNet) -> Result<()> {
        let nodad = if address.addr().is_ipv6() { " nodad" } else { "" };
        self.ip(&format!("address add {address} dev {ifname}{nodad}"))
    }

    /// Waits until every link that is up has its carrier, and the kernel has checked the addresses that it gave itself:
    /// before that they come and go in dumps.
    pub fn wait_for_addresses(&self) -> Result<()> {
        exec::eventually(PATIENCE, "links and addresses come to rest", || {
            let shown = self.exec("ip address show up")?.stdout;
            ensure!(
                !shown.contains("NO-CARRIER") && !shown.contains("tentative"),
                "not yet:\n{shown}"
            );
            Ok(())
        })
    }

    /// Adds a route.
    pub fn add_route(&self, to: IpNet, via: IpAddr) -> Result<()> {
        self.ip(&format!("route add {to} via {via}"))
    }
}

/// Takes the thread that calls it into a namespace.
fn go_into(namespace: &File, name: &str) -> Result<()> {
    setns(namespace, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {name}"))
}

impl Drop for Inner {
    fn drop(&mut self) {
        // When a test fails, its workloads are dropped before anybody knows; the run removes them if nothing fails.
        if !crate::run::keep_everything() {
            remove_namespace(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_linked_and_go_away() {
        let run = Run::begin().unwrap();
        let base = run.base().to_owned();
        let (a, b) = (Netns::make(&run, "a").unwrap(), Netns::make(&run, "b").unwrap());
        a.link("eth0", &b, "eth0").unwrap();
        a.add_address("eth0", "192.0.2.1/24".parse().unwrap()).unwrap();
        b.add_address("eth0", "192.0.2.2/24".parse().unwrap()).unwrap();
        b.add_address("eth0", "2001:db8::2/64".parse().unwrap()).unwrap();
        let shown = b.exec("ip -br address show dev eth0").unwrap().stdout;
        assert!(
            shown.contains("192.0.2.2/24") && shown.contains("2001:db8::2/64"),
            "{shown}"
        );
        let paths = [a.path().to_owned(), b.path().to_owned()];
        assert!(paths.iter().all(|path| path.exists()));
        drop((a, b));
        assert!(paths.iter().all(|path| !path.exists()));
        assert!(base.exists());
        drop(run);
        assert!(!base.exists());
    }

    #[test]
    fn a_panic_leaves_nothing() {
        let made = std::thread::spawn(|| {
            let run = Run::begin().unwrap();
            let netns = Netns::make(&run, "a").unwrap();
            let log = run.base().join("sleep.log");
            let process = crate::exec::Process::start(&run, netns.command("sleep").arg("60"), &log).unwrap();
            std::panic::panic_any((netns.path().to_owned(), run.base().to_owned(), process.pid()));
        })
        .join()
        .unwrap_err();
        let (netns, base, pid) = *made.downcast::<(PathBuf, PathBuf, u32)>().unwrap();
        assert!(!netns.exists() && !base.exists());
        assert!(crate::made::Thing::process(pid).is_none());
    }

    #[test]
    fn a_daemon_that_outlives_its_maker_goes_with_its_namespace() {
        let run = Run::begin().unwrap();
        let netns = Netns::make(&run, "a").unwrap();
        let mut command = netns.command("sh");
        command.args(["-c", "setsid sleep 60 >/dev/null 2>&1 &"]);
        exec::run(&mut command, "", PATIENCE).unwrap().ok().unwrap();
        let inside = exec::eventually(PATIENCE, "it runs", || {
            let inside = crate::made::processes_in(netns.path());
            ensure!(inside.iter().any(|(_, name)| name == "sleep"), "{inside:?}");
            Ok(inside)
        })
        .unwrap();
        drop((netns, run));
        for (pid, name) in inside {
            exec::eventually(PATIENCE, "it is gone", || {
                let pid = u32::try_from(pid)?;
                ensure!(crate::made::Thing::process(pid).is_none(), "{name} lives: {pid}");
                Ok(())
            })
            .unwrap();
        }
    }

    #[test]
    fn threads_inside_leave_the_others_outside() {
        let run = Run::begin().unwrap();
        let netns = Netns::make(&run, "a").unwrap();
        let own = || std::fs::read_link("/proc/thread-self/ns/net").map_err(anyhow::Error::from);
        let outside = own().unwrap();
        let inside = netns.enter(own).unwrap();
        assert_ne!(inside, outside);
        assert_eq!(own().unwrap(), outside);
    }
}
