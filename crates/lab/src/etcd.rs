//! An etcd of three members, each a host of its own on the nodes' segment.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use crate::exec::{self, PATIENCE, Process, eventually, tail};
use crate::netns::Netns;
use crate::run::Run;
use crate::slot::Slot;

/// Addresses of the members.
const MEMBERS: [[&str; 2]; 3] = [
    ["192.0.2.101", "2001:db8::101"],
    ["192.0.2.102", "2001:db8::102"],
    ["192.0.2.103", "2001:db8::103"],
];
/// Addresses of the host from which the lab itself asks.
const DESK: [&str; 2] = ["192.0.2.100", "2001:db8::100"];

/// Three members.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Member>,
    desk: Netns,
    switch: OnceLock<(Netns, usize)>,
}

/// One member, running or not.
#[derive(Debug)]
pub struct Member {
    name: String,
    address: &'static str,
    process: Slot,
    directory: PathBuf,
    arguments: Mutex<Vec<String>>,
    netns: Netns,
}

impl Etcd {
    /// Makes the namespaces.
    pub(crate) fn make(run: &Run) -> Result<Self> {
        let members = MEMBERS.iter().enumerate().map(|(index, [address, _])| {
            let name = format!("etcd{}", index + 1);
            let directory = run.base().join(&name);
            std::fs::create_dir_all(&directory)?;
            Ok(Member {
                netns: Netns::make(run, &name)?,
                name,
                address,
                process: Slot::default(),
                arguments: Mutex::default(),
                directory,
            })
        });
        Ok(Self {
            members: members.collect::<Result<_>>()?,
            desk: Netns::make(run, "desk")?,
            switch: OnceLock::new(),
        })
    }

    pub(crate) fn hosts(&self) -> Vec<(&Netns, [&str; 2])> {
        let members = self.members.iter().map(|member| &member.netns).zip(MEMBERS);
        members.chain([(&self.desk, DESK)]).collect()
    }

    pub(crate) fn begin(&self, switch: &Netns, first: usize) -> Result<()> {
        self.switch.get_or_init(|| (switch.clone(), first));
        self.start_all()
    }

    /// Starts all members that do not run, at once, and waits until each of them serves.
    pub fn start_all(&self) -> Result<()> {
        for member in &self.members {
            member.launch()?;
        }
        self.members.iter().try_for_each(Member::wait_until_it_serves)
    }

    /// The members.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The host from which the lab asks, past every node.
    pub fn desk(&self) -> &Netns {
        &self.desk
    }

    /// How agents call it.
    pub fn url(&self) -> String {
        format!("etcd://{}", endpoints())
    }

    /// Pulls or plugs in the cable of a member: `down` or `up`.
    pub fn plug(&self, member: &Member, state: &str) -> Result<()> {
        let (switch, first) = self.switch.get().context("the members are not connected")?;
        let index = self.members.iter().position(|other| other.name == member.name);
        let port = first + index.with_context(|| format!("no member {}", member.name))?;
        switch.ip(&format!("link set port{port} {state}"))
    }

    /// The member that leads at present. Error: none does.
    pub fn leader(&self) -> Result<&Member> {
        eventually(PATIENCE, "a member leads", || {
            for member in self.members.iter().filter(|member| member.is_running()) {
                let status = member.ctl(&["endpoint", "status", "-w", "json"])?;
                let status: Value = serde_json::from_str(&status)?;
                let status = &status[0]["Status"];
                if status["leader"] == status["header"]["member_id"] {
                    return Ok(member);
                }
            }
            Err(anyhow!("none says that it does"))
        })
    }

    /// Runs etcdctl from the desk against all members. Returns what it printed. Error: it fails.
    pub fn ctl(&self, words: &[&str]) -> Result<String> {
        ctl(&self.desk, &endpoints(), words)
    }

    /// Writes a value past every agent. Error: it is refused.
    pub fn put(&self, key: &str, value: &str) -> Result<()> {
        let mut command = etcdctl(&self.desk, &endpoints());
        exec::run(command.args(["put", key]), value, PATIENCE)?
            .ok()
            .map(drop)
    }

    /// All keys and values, in order of the keys.
    pub fn pairs(&self) -> Result<Vec<(String, String)>> {
        let json: Value = serde_json::from_str(&self.ctl(&["get", "/", "--prefix", "-w", "json"])?)?;
        let rows = json["kvs"].as_array().map(Vec::as_slice).unwrap_or_default();
        rows.iter()
            .map(|row| Ok((text(&row["key"])?, text(&row["value"])?)))
            .collect()
    }

    /// The revision of the store.
    pub fn revision(&self) -> Result<u64> {
        let json: Value = serde_json::from_str(&self.ctl(&["get", "x", "-w", "json"])?)?;
        json["header"]["revision"]
            .as_u64()
            .with_context(|| format!("no revision: {json}"))
    }

    /// Saves a copy of everything.
    pub fn save(&self) -> Result<PathBuf> {
        let member = self.leader()?;
        let file = member.directory.join("copy");
        let _ = std::fs::remove_file(&file);
        member.ctl(&["snapshot", "save", &file.display().to_string()])?;
        Ok(file)
    }

    /// Puts a copy in the place of everything, as an operator would: all members stop, get the same copy as a new cluster,
    /// and start.
    pub fn restore(&self, copy: &std::path::Path) -> Result<()> {
        for member in &self.members {
            member.kill();
            let data = member.data();
            std::fs::remove_dir_all(&data).with_context(|| format!("cannot remove {}", data.display()))?;
            member.ctl(&[
                "snapshot",
                "restore",
                &copy.display().to_string(),
                "--name",
                &member.name,
                "--data-dir",
                &data.display().to_string(),
                "--initial-cluster",
                &initial_cluster(),
                "--initial-cluster-token",
                "restored",
                "--initial-advertise-peer-urls",
                &member.peer_url(),
            ])?;
        }
        self.start_all()
    }

    /// The ends of the members' logs.
    pub fn evidence(&self) -> String {
        let logs = self.members.iter().map(|member| {
            crate::lab::shown(
                &format!("{}: end of its log", member.name),
                Ok(member.log_tail(8)),
            )
        });
        logs.collect()
    }
}

impl Member {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Its address.
    pub fn address(&self) -> &'static str {
        self.address
    }

    /// More arguments, from its next start on.
    pub fn set_arguments(&self, arguments: &[&str]) {
        *lock(&self.arguments) = arguments.iter().map(|word| (*word).to_owned()).collect();
    }

    /// Starts it and waits until it serves.
    pub fn start(&self) -> Result<()> {
        self.launch()?;
        self.wait_until_it_serves()
    }

    /// Kills it at once; nothing if it does not run.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Lets it do nothing until [`Member::thaw`].
    pub fn freeze(&self) -> Result<()> {
        self.process.freeze().with_context(|| self.name.clone())
    }

    /// Lets it go on.
    pub fn thaw(&self) -> Result<()> {
        self.process.thaw().with_context(|| self.name.clone())
    }

    /// Runs etcdctl beside it. Returns what it printed. Error: it fails.
    pub fn ctl(&self, words: &[&str]) -> Result<String> {
        ctl(&self.netns, "127.0.0.1:2379", words)
    }

    /// Its process id. Error: it does not run.
    pub fn pid(&self) -> Result<u32> {
        self.process.pid().with_context(|| self.name.clone())
    }

    fn is_running(&self) -> bool {
        self.process.is_running()
    }

    fn launch(&self) -> Result<()> {
        if self.is_running() {
            return Ok(());
        }
        let log = self.directory.join("log");
        let mut command = self.command();
        self.process
            .restart(|| Process::start(self.netns.run(), &mut command, &log))
    }

    fn command(&self) -> Command {
        let clients = format!("http://{}:2379", self.address);
        let mut command = self.netns.command("etcd");
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .args(["--name", &self.name, "--data-dir"])
            .arg(self.data())
            .args([
                "--listen-client-urls",
                &format!("{clients},http://127.0.0.1:2379"),
            ])
            .args(["--advertise-client-urls", &clients])
            .args(["--listen-peer-urls", &self.peer_url()])
            .args(["--initial-advertise-peer-urls", &self.peer_url()])
            .args(["--initial-cluster", &initial_cluster()])
            .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
            .args(["--experimental-watch-progress-notify-interval", "200ms"])
            .arg("--unsafe-no-fsync")
            .args(lock(&self.arguments).iter());
        command
    }

    fn wait_until_it_serves(&self) -> Result<()> {
        eventually(PATIENCE, &format!("{} serves", self.name), || {
            ensure!(self.is_running(), "{} ended:\n{}", self.name, self.log_tail(8));
            self.ctl(&["--command-timeout", "1s", "get", "x"]).map(drop)
        })
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn peer_url(&self) -> String {
        format!("http://{}:2380", self.address)
    }

    fn log_tail(&self, lines: usize) -> String {
        tail(&self.directory.join("log"), lines)
    }
}

fn initial_cluster() -> String {
    let members = MEMBERS.iter().enumerate();
    let members = members.map(|(index, [address, _])| format!("etcd{}=http://{address}:2380", index + 1));
    members.collect::<Vec<_>>().join(",")
}

/// Where the members' clients connect.
fn endpoints() -> String {
    MEMBERS.map(|[address, _]| format!("{address}:2379")).join(",")
}

fn ctl(netns: &Netns, endpoints: &str, words: &[&str]) -> Result<String> {
    let mut command = etcdctl(netns, endpoints);
    Ok(exec::run(command.args(words), "", PATIENCE)?.ok()?.stdout)
}

fn etcdctl(netns: &Netns, endpoints: &str) -> Command {
    let mut command = netns.command("etcdctl");
    command.env("ETCDCTL_API", "3").args(["--endpoints", endpoints]);
    command
}

/// The text that etcdctl prints in base64.
fn text(value: &Value) -> Result<String> {
    let printed = value.as_str().unwrap_or_default();
    Ok(String::from_utf8(base64(printed)?)?)
}

fn base64(printed: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(printed.len() / 4 * 3);
    for group in printed.trim_end_matches('=').as_bytes().chunks(4) {
        let mut bits: u32 = 0;
        for letter in group {
            let digit = match letter {
                b'A'..=b'Z' => letter - b'A',
                b'a'..=b'z' => letter - b'a' + 26,
                b'0'..=b'9' => letter - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return Err(anyhow!("not base64: {printed}")),
            };
            bits = bits << 6 | u32::from(digit);
        }
        // A group of n letters holds n − 1 bytes, at its upper end.
        bits <<= 6 * (4 - group.len());
        bytes.extend(&bits.to_be_bytes()[1..group.len()]);
    }
    Ok(bytes)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read() {
        for (printed, text) in [
            ("", ""),
            ("YQ==", "a"),
            ("YWI=", "ab"),
            ("YWJj", "abc"),
            ("L2NhbGljby8+Pz8=", "/calico/>??"),
        ] {
            assert_eq!(base64(printed).unwrap(), text.as_bytes(), "{printed}");
        }
        assert!(base64("a b").is_err());
    }
}
