//! `make install DESTDIR=…`, and what it installs: the unit's own command line, the plugins and `buoyctl`, each with the
//! paths that they have when nobody sets any.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use buoy_lab::ask::answered_by;
use buoy_lab::binaries::Binaries;
use buoy_lab::daemon::Daemon;
use buoy_lab::dump::Dump;
use buoy_lab::exec::{self, Finished, PATIENCE, Process, eventually};
use buoy_lab::lab::{Lab, POOLS};
use buoy_lab::netns::Netns;
use buoy_lab::probe::{Server, Via};
use buoy_lab::run::Run;
use serde_json::{Value, json};

const FLOATING: &str = "172.16.1.3";
const SOON: Duration = Duration::from_secs(30);

const SETTINGS: &str = "etc/buoy/agent.yaml";
const AGENT: &str = "usr/bin/buoy-agent";
const UNIT: &str = "usr/lib/systemd/system/buoy-agent.service";
const CONTROLLER: &str = "usr/lib/systemd/system/buoy-controller.service";

/// What is installed, and with which rights.
const FILES: [(&str, u32); 9] = [
    (SETTINGS, 0o644),
    ("etc/iproute2/rt_protos.d/buoy.conf", 0o644),
    ("opt/cni/bin/calico", 0o755),
    ("opt/cni/bin/calico-ipam", 0o755),
    (AGENT, 0o755),
    ("usr/bin/buoy-controller", 0o755),
    ("usr/bin/buoyctl", 0o755),
    (UNIT, 0o644),
    (CONTROLLER, 0o644),
];

/// A directory into which Buoy is installed, as if it were a machine's root.
struct Installed(PathBuf);

impl Installed {
    fn into(root: &Path) -> Result<Self> {
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let agent = Binaries::find()?.agent;
        let built = agent.parent().context("a directory of programs")?;
        let mut make = Command::new("make");
        make.arg("--no-print-directory").arg("-C").arg(tree);
        make.arg("install-built")
            .arg(format!("BUILT={}", built.display()))
            .arg(format!("DESTDIR={}", root.display()));
        exec::run(&mut make, "", PATIENCE)?.ok()?;
        Ok(Self(root.to_owned()))
    }

    /// Every file below, with its rights.
    fn files(&self) -> Result<BTreeSet<(String, u32)>> {
        let find = ["-type", "f", "-printf", "%P %m\n"];
        let found = exec::run(Command::new("find").arg(&self.0).args(find), "", PATIENCE)?.ok()?;
        found
            .stdout
            .lines()
            .map(|line| {
                let (path, mode) = line.split_once(' ').context("a path and its mode")?;
                Ok((path.to_owned(), u32::from_str_radix(mode, 8)?))
            })
            .collect()
    }

    fn text(&self, unit: &str) -> Result<String> {
        Ok(fs::read_to_string(self.0.join(unit))?)
    }

    /// The value of a key of a unit, which must be there once.
    fn says(&self, unit: &str, key: &str) -> Result<String> {
        let unit = self.text(unit)?;
        let prefix = format!("{key}=");
        let mut values = unit.lines().filter_map(|line| line.strip_prefix(&prefix));
        let value = values.next().with_context(|| format!("the unit has no {key}"))?;
        ensure!(values.next().is_none(), "the unit has {key} twice");
        Ok(value.to_owned())
    }
}

/// A machine with an installation: its mounts, in the network namespace of a lab's node.
struct Machine {
    holder: Process,
}

impl Machine {
    fn with(installed: &Installed, netns: &Netns) -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/install/enter.sh");
        let mut command = netns.command("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh"])
            .arg(script)
            .arg(&installed.0)
            .args(["sleep", "infinity"]);
        let log = netns.run().base().join("machine.log");
        let mut holder = Process::start(netns.run(), &mut command, &log)?;
        let pid = holder.pid();
        eventually(PATIENCE, "the machine is there", || {
            ensure!(holder.is_running(), "{}", holder.log_tail(5));
            ensure!(
                fs::read_to_string(format!("/proc/{pid}/comm"))?.trim() == "sleep",
                "not yet"
            );
            Ok(())
        })?;
        Ok(Self { holder })
    }

    /// A command that will run on it, with the environment of a service.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.holder.pid()))
            .args(["--mount", "--net", "--"])
            .args(words)
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            );
        command
    }

    /// Runs a program on it to its end, however it ends.
    fn run(&self, words: &[&str], stdin: &str) -> Result<Finished> {
        exec::run(&mut self.command(words), stdin, PATIENCE)
    }

    /// Calls the plugin as a runtime does, and returns what it printed.
    fn cni(&self, verb: &str, netns: &Path) -> Result<Value> {
        let network = json!({
            "cniVersion": "1.0.0",
            "name": "pods",
            "type": "calico",
            "ipam": {"type": "calico-ipam"},
            "feature_control": {"floating_ips": true},
            "runtimeConfig": {"io.kubernetes.cri.pod-annotations": {
                "cni.projectcalico.org/floatingIPs": json!([FLOATING]).to_string(),
            }},
        });
        let mut command = self.command(&["/opt/cni/bin/calico"]);
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", "c0ffee")
            .env("CNI_NETNS", netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/opt/cni/bin");
        let printed = exec::run(&mut command, &network.to_string(), PATIENCE)?
            .ok()?
            .stdout;
        Ok(if printed.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&printed)?
        })
    }
}

#[test]
fn an_installation_is_whole_and_may_be_repeated() {
    let test = || -> Result<()> {
        let run = Run::begin()?;
        let root = run.base().join("root");
        let installed = Installed::into(&root)?;
        let expected: BTreeSet<(String, u32)> = FILES
            .map(|(path, mode)| (path.to_owned(), mode))
            .into_iter()
            .collect();
        ensure!(installed.files()? == expected, "{:?}", installed.files()?);

        // Settings are the operator's from the first time on; the rest is replaced.
        let (settings, agent) = (root.join(SETTINGS), root.join(AGENT));
        fs::write(&settings, "nodeName: mine\n")?;
        fs::write(&agent, "an older version")?;
        fs::set_permissions(&agent, fs::Permissions::from_mode(0o700))?;
        Installed::into(&root)?;
        ensure!(
            fs::read_to_string(&settings)? == "nodeName: mine\n",
            "the settings were replaced"
        );
        ensure!(fs::metadata(&agent)?.len() > 1000, "the agent was not replaced");
        ensure!(installed.files()? == expected, "{:?}", installed.files()?);
        Ok(())
    };
    test().unwrap();
}

#[test]
fn the_units_are_what_a_service_manager_accepts() {
    let test = || -> Result<()> {
        let run = Run::begin()?;
        let installed = Installed::into(&run.base().join("root"))?;
        // What runs in a namespace ends with it.
        let netns = Netns::make(&run, "n1")?;
        let machine = Machine::with(&installed, &netns)?;
        let verify = |unit: &str| machine.run(&["systemd-analyze", "verify", unit], "");
        for unit in [UNIT, CONTROLLER] {
            let found = verify(&format!("/{unit}"))?;
            let said = format!("{}{}", found.stdout, found.stderr);
            ensure!(found.status.success() && !said.contains("buoy-"), "{found:?}");
        }
        // What it says about a unit that is not right, so that silence means something.
        let text = installed
            .text(UNIT)?
            .replace("KillMode", "KillMod")
            .replace("/usr/bin/", "/usr/nowhere/");
        let wrong = run.base().join("wrong.service");
        fs::write(&wrong, text)?;
        let found = verify(&wrong.to_string_lossy())?;
        for word in ["KillMod", "/usr/nowhere/buoy-agent"] {
            ensure!(found.stderr.contains(word), "no '{word}' in: {found:?}");
        }

        // SIGTERM, and for the agent alone: BIRD outlives it.
        ensure!(
            installed.says(UNIT, "KillMode")? == "process",
            "the unit ends more than the agent"
        );
        ensure!(
            !installed.text(UNIT)?.contains("KillSignal"),
            "the unit sends something else than SIGTERM"
        );
        ensure!(
            installed.says(UNIT, "Type")? == "notify",
            "nobody waits until the agent is ready"
        );
        Ok(())
    };
    test().unwrap();
}

#[test]
fn what_is_installed_serves_a_workload_and_bird_outlives_the_agent() {
    Lab::bare().unwrap().test(|lab| {
        let installed = Installed::into(&lab.run().base().join("root"))?;
        fs::write(installed.0.join(SETTINGS), "nodeName: n1\nrouting: bird\n")?;
        let machine = Machine::with(&installed, lab.node.netns())?;
        let line = installed.says(UNIT, "ExecStart")?;
        let words: Vec<&str> = line.split(' ').collect();
        let start = || Daemon::start(lab.run(), "agent", &mut machine.command(&words), lab.run().base());
        let mut agent = start()?;
        machine.run(&["buoyctl", "apply", "-f", "-"], POOLS)?.ok()?;

        let pod = Netns::make(lab.run(), "pod")?;
        // The machine has a /run of its own; a descriptor is found by everybody.
        let file = File::open(pod.path())?;
        let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
        let result = machine.cni("ADD", &path)?;
        ensure!(result["ips"][0]["address"].is_string(), "{result}");
        let _server = Server::start(&pod, "pod")?;
        answered_by(&lab.client, Via::Tcp, FLOATING, "pod")?;
        a_controller_looks_after_it(lab.run(), &installed, &machine)?;

        let reload = installed
            .says(UNIT, "ExecReload")?
            .replace("$MAINPID", &agent.pid().to_string());
        machine.run(&reload.split(' ').collect::<Vec<_>>(), "")?.ok()?;
        machine.run(&["buoyctl", "node", "status"], "")?.ok()?;
        ensure!(agent.is_running(), "SIGHUP ended the agent");

        let before = bird(&machine)?;
        agent.stop()?;
        ensure!(bird(&machine)? == before, "BIRD was ended with its agent");
        answered_by(&lab.client, Via::Tcp, FLOATING, "pod")?;
        machine.cni("DEL", &path)?;
        agent = start()?;
        ensure!(
            bird(&machine)? == before,
            "the next agent did not adopt the running BIRD"
        );
        eventually(SOON, "the DEL is carried out", || {
            let left = machine.run(&["ls", "/var/lib/buoy/spool", "/var/lib/buoy/attachments"], "")?;
            ensure!(!left.stdout.contains(".json"), "{}", left.stdout);
            Ok(())
        })?;
        agent.stop()?;
        machine.run(&["buoy-agent", "cleanup"], "")?.ok()?;
        ensure!(bird(&machine).is_err(), "BIRD runs on after cleanup");
        eventually(SOON, "the node is as it was", || {
            let difference = lab.before.difference(&Dump::take(lab.node.netns())?);
            ensure!(difference.is_empty(), "{difference}");
            Ok(())
        })
    });
}

/// By its unit's own command line, on the store that agents have by default.
fn a_controller_looks_after_it(run: &Run, installed: &Installed, machine: &Machine) -> Result<()> {
    let line = installed.says(CONTROLLER, "ExecStart")?;
    let mut command = machine.command(&[&line]);
    command.env("BUOY_LISTEN", "127.0.0.1:9178");
    let _controller = Process::start(run, &mut command, &run.base().join("controller.log"))?;
    let ask = [
        "busybox",
        "wget",
        "-q",
        "-O",
        "-",
        "http://127.0.0.1:9178/metrics",
    ];
    eventually(SOON, "the controller works", || {
        let said = machine.run(&ask, "")?.ok()?.stdout;
        ensure!(said.contains("\nbuoy_controller_works 1\n"), "{said}");
        Ok(())
    })?;
    Ok(())
}

/// The process that answers on BIRD's control socket.
fn bird(machine: &Machine) -> Result<String> {
    machine
        .run(&["birdc", "-s", "/run/buoy/bird.ctl", "show", "status"], "")?
        .ok()?;
    Ok(machine.run(&["cat", "/run/buoy/bird.pid"], "")?.ok()?.stdout)
}
