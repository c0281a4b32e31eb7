//! A real container runtime on a node: containerd and runc from Debian, in the node's own network and mount namespaces
//! and control groups.

mod cgroup;
mod confined;
pub(crate) mod containerd;
pub(crate) mod machine;
pub(crate) mod oci;
mod tar;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::exec::{self, Finished, PATIENCE, Process, eventually, tail};
use crate::netns::Netns;
use containerd::{CONTAINER_PATIENCE, Client, Containerd};
use machine::{Machine, Places};

pub use confined::{Confined, Mount};

/// The name of the image that containers run.
pub const IMAGE: &str = "docker.io/buoy-lab/busybox:1";

/// containerd, with one image. Dropping it kills it and all its containers.
#[derive(Debug)]
pub struct Runtime {
    containerd: Containerd,
    machine: Machine,
}

/// The directories of a node that a runtime reads.
#[derive(Clone, Copy, Debug)]
pub struct CniDirectories<'a> {
    /// What is `/etc/cni/net.d` for it.
    pub configuration: &'a Path,
    /// What is `/opt/cni/bin` for it.
    pub plugins: &'a Path,
}

impl Runtime {
    /// Starts containerd in a namespace and imports the image. Everything it keeps is below `directory`. Error: a Debian
    /// package is missing, or containerd does not start; with the end of its log.
    pub fn start(netns: &Netns, directory: &Path, cni: CniDirectories<'_>) -> Result<Self> {
        let places = Places::default()
            .with(cni.configuration, "/etc/cni/net.d")
            .with(cni.plugins, "/opt/cni/bin");
        let machine = Machine::start(netns, "machine", &directory.join("machine"), &places)?;
        let containerd = Containerd::start(&machine, Client::Ctr, directory)?;
        let archive = machine.directory().join("image.tar");
        fs::write(&archive, oci::Image::busybox(IMAGE)?.archive()?)?;
        containerd.import(&machine, &archive)?;
        Ok(Self { containerd, machine })
    }

    /// A command that will run on the node.
    pub fn command(&self, program: &str) -> Command {
        self.machine.command(program)
    }

    /// Runs `ctr` on the node to its end, however it ends.
    pub fn ctr(&self, words: &[&str]) -> Result<Finished> {
        self.containerd.ctr(&self.machine, words)
    }

    /// Runs a container with the node's CNI network, until its task runs. Error: it does not; with what `ctr` said.
    pub fn run(&self, name: &str, script: &str) -> Result<Container<'_>> {
        let log = self.machine.directory().join(format!("{name}.log"));
        let mut command = self.containerd.ctr_command(&self.machine);
        command.args(["run", "--rm", "--cni", IMAGE, name, "sh", "-c", script]);
        let ctr = Process::start(self.machine.netns().run(), &mut command, &log)?;
        let mut container = Container {
            runtime: self,
            name: name.to_owned(),
            ctr,
            log,
        };
        container.wait_until_running()?;
        Ok(container)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if !self.machine.netns().run().stays() {
            self.containerd.kill();
            let _ = self.machine.cut_power();
        }
    }
}

/// A running container.
#[derive(Debug)]
pub struct Container<'a> {
    runtime: &'a Runtime,
    name: String,
    ctr: Process,
    log: PathBuf,
}

impl Container<'_> {
    /// Its ID.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a program of this machine in its network namespace; `line` is split at white space. Error: it fails.
    ///
    /// `ctr task exec` may end before it has passed on what the command wrote.
    pub fn exec(&self, line: &str) -> Result<Finished> {
        let tasks = self.runtime.ctr(&["task", "list"])?.ok()?.stdout;
        let mut rows = tasks.lines().map(|row| row.split_whitespace());
        let pid = rows
            .find_map(|mut row| (row.next() == Some(&self.name)).then(|| row.next())?)
            .with_context(|| format!("container {} has no task:\n{tasks}", self.name))?;
        let mut command = Command::new("nsenter");
        command.args(["--target", pid, "--net", "--"]);
        exec::run(command.args(line.split_whitespace()), "", PATIENCE)?.ok()
    }

    /// Kills it, and waits until the runtime has detached and removed it. Error: that fails; with what `ctr` said.
    pub fn kill(mut self) -> Result<()> {
        self.runtime
            .ctr(&["task", "kill", "--signal", "SIGKILL", &self.name])?
            .ok()?;
        let status = self.ctr.wait(CONTAINER_PATIENCE)?;
        let said = tail(&self.log, 10);
        // The status is the container's; a failure to detach is what `ctr` itself says.
        ensure!(
            !said.contains("ctr:") && !said.contains("failed"),
            "container {} did not end in order: {status}\n{said}",
            self.name
        );
        Ok(())
    }

    /// The CNI network is set up before the process of the container starts.
    fn wait_until_running(&mut self) -> Result<()> {
        let (runtime, name, ctr, log) = (self.runtime, self.name.clone(), &mut self.ctr, &self.log);
        eventually(PATIENCE, &format!("container {name} runs"), || {
            if !ctr.is_running() {
                return Ok(Err(anyhow::anyhow!(
                    "container {name} did not start:\n{}",
                    tail(log, 10)
                )));
            }
            let tasks = runtime.ctr(&["task", "list"])?.ok()?.stdout;
            let running = tasks
                .lines()
                .any(|line| line.starts_with(&name) && line.contains("RUNNING"));
            ensure!(running, "not yet:\n{tasks}");
            Ok(Ok(()))
        })?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Run;

    /// The runtime and the image, with plugins that are not Buoy's.
    #[test]
    fn containers_run_with_a_network_and_leave_nothing() {
        let run = Run::begin().unwrap();
        let base = run.base().to_owned();
        let netns = Netns::make(&run, "n").unwrap();
        let net_d = base.join("net.d");
        fs::create_dir_all(&net_d).unwrap();
        let list = serde_json::json!({"name": "t", "cniVersion": "0.3.0", "plugins": [
            {"type": "ptp", "ipam": {"type": "host-local", "dataDir": base.join("ipam"),
             "ranges": [[{"subnet": "10.9.0.0/24"}]]}},
        ]});
        fs::write(net_d.join("10-t.conflist"), list.to_string()).unwrap();
        let cni = CniDirectories {
            configuration: &net_d,
            plugins: Path::new("/usr/lib/cni"),
        };
        let runtime = Runtime::start(&netns, &base, cni).unwrap();
        let groups = fs::read_to_string(base.join("machine/cgroups")).unwrap();
        let container = runtime.run("web-0", "exec httpd -f -p 80 -h /www").unwrap();
        let addresses = container.exec("ip -4 address show dev eth0").unwrap().stdout;
        assert!(addresses.contains("10.9.0.2/24"), "{addresses}");
        netns.exec("ping -c 1 -W 5 10.9.0.2").unwrap();
        container.kill().unwrap();
        assert!(!base.join("ipam/t/10.9.0.2").exists(), "the runtime detached it");
        drop(runtime);
        drop((netns, run));
        assert!(!base.exists());
        let paths: Vec<&str> = groups.lines().filter_map(|line| line.split(' ').nth(3)).collect();
        assert!(
            !paths.is_empty() && paths.iter().all(|path| !Path::new(path).exists()),
            "{groups}"
        );
    }
}
