//! The image by `scripts/image`, and containers of it by containerd, confined as `deploy/buoy.yaml` says.

mod containerfile;
mod manifest;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use buoy_lab::binaries::Binaries;
use buoy_lab::dump::Dump;
use buoy_lab::exec::{self, PATIENCE, Process, eventually};
use buoy_lab::image::{self, NAME as IMAGE};
use buoy_lab::kube::operator::with_floating_ips;
use buoy_lab::lab::{Lab, POOLS};
use buoy_lab::netns::Netns;
use buoy_lab::probe::{Probe, Via};
use buoy_lab::run::Run;
use buoy_lab::runtime::{CniDirectories, Confined, Runtime};
use containerfile::Unpacked;
use manifest::DaemonSet;

const FLOATING: &str = "172.16.1.3";
const SOON: Duration = Duration::from_secs(30);

/// The image, built once for all tests.
fn archive() -> Result<Vec<u8>> {
    static ARCHIVE: OnceLock<Result<Vec<u8>>> = OnceLock::new();
    let built = ARCHIVE.get_or_init(|| {
        let run = Run::begin()?;
        Ok(fs::read(image::build(run.base(), "true")?.archive)?)
    });
    match built {
        Ok(bytes) => Ok(bytes.clone()),
        Err(error) => anyhow::bail!("{error:#}"),
    }
}

/// A node with containerd that has the image, and nothing of Buoy.
fn machine(run: &Run, netns: &Netns, directory: &Path) -> Result<Runtime> {
    for name in ["etc-cni", "opt-cni", "state", "calico-config"] {
        fs::create_dir_all(directory.join(name))?;
    }
    let cni = CniDirectories {
        configuration: &directory.join("etc-cni"),
        plugins: &directory.join("opt-cni"),
    };
    let runtime = Runtime::start(netns, directory, cni)?;
    let file = run.base().join("buoy.oci.tar");
    fs::write(&file, archive()?)?;
    runtime.import(&file)?;
    exec::run(
        runtime.command("mkdir").args(["/run/buoy", "/run/netns"]),
        "",
        PATIENCE,
    )?
    .ok()?;
    Ok(runtime)
}

#[test]
fn the_same_inputs_give_the_same_image() {
    let test = || -> Result<()> {
        let run = Run::begin()?;
        let setting = "umask 077; export TZ=Asia/Tokyo LC_ALL=de_DE.UTF-8; cd /";
        let image::Built { archive: other, said } = image::build(run.base(), setting)?;
        ensure!(fs::read(other)? == archive()?, "two builds differ\n{said}");
        for part in [IMAGE, "digest:  sha256:", "packed", "usr/bin/buoy-agent"] {
            ensure!(said.contains(part), "{said}");
        }
        Ok(())
    };
    test().unwrap();
}

#[test]
fn a_builder_makes_the_same_root_file_system() {
    let test = || -> Result<()> {
        let run = Run::begin()?;
        let image::Built { archive, .. } = image::build(run.base(), "true")?;
        let ours = Unpacked::from_archive(&archive, &run.base().join("ours"))?;
        let theirs = containerfile::build(&run.base().join("built"), &run.base().join("theirs"))?;
        let mut diff = Command::new("diff");
        diff.args(["--recursive", "--no-dereference"])
            .args([&ours.root, &theirs.root]);
        exec::run(&mut diff, "", PATIENCE)?.ok()?;
        ensure!(
            ours.environment == theirs.environment && ours.entrypoint == theirs.entrypoint,
            "{ours:?}\n{theirs:?}"
        );
        Ok(())
    };
    test().unwrap();
}

#[test]
fn its_programs_run_where_nothing_can_be_written() {
    let test = || -> Result<()> {
        let run = Run::begin()?;
        let netns = Netns::make(&run, "n1")?;
        let runtime = machine(&run, &netns, run.base())?;
        for (command, expected) in [
            (&["buoy-agent", "--version"][..], "buoy-agent "),
            (&["buoy-cni", "--version"], "buoy-cni "),
            (&["buoy-controller", "--version"], "buoy-controller "),
            (&["buoyctl", "--version"], "buoyctl "),
            (&["bird", "--version"], "BIRD version 2."),
            (&["nft", "--version"], "nftables v1."),
            (&["/usr/lib/cni/portmap"], "CNI portmap plugin"),
        ] {
            let finished = runtime.run_confined(IMAGE, "c", &Confined::default(), command)?;
            let said = format!("{}{}", finished.stdout, finished.stderr);
            ensure!(said.contains(expected), "{command:?}: {finished:?}");
        }
        Ok(())
    };
    test().unwrap();
}

#[test]
fn a_node_is_served_from_confined_containers_and_clean_afterwards() {
    Lab::bare().unwrap().test(|lab| {
        let directory = lab.node.directory().to_owned();
        let runtime = machine(lab.run(), lab.node.netns(), &directory)?;
        let manifest = DaemonSet::read()?;
        for (key, text) in manifest.calico_config()? {
            let text = match key.as_str() {
                "cni_network_config" => with_floating_ips(&text)?,
                _ => text,
            };
            fs::write(directory.join("calico-config").join(key), text)?;
        }
        let (install, words) = manifest.container("install", &directory)?;
        runtime.run_confined(IMAGE, "install", &install, &words)?.ok()?;

        let start = |name: &str| start_agent(&runtime, &manifest, &directory, name);
        let mut agent = start("agent-1")?;
        apply(&directory, POOLS)?;
        let web = runtime.run("web", "echo web > /www/name; exec httpd -f -p 80 -h /www")?;
        inside(
            &runtime,
            "agent-1",
            &["buoyctl", "fip", "attach", FLOATING, "default-web"],
        )?;
        let served = || {
            eventually(SOON, "the container answers", || {
                let page = lab
                    .client
                    .exec(&format!("busybox wget -q -O - http://{FLOATING}/name"))?;
                ensure!(page.stdout.trim() == "web", "{page:?}");
                Ok(())
            })
        };
        served()?;
        let bird = |name: &str| {
            let words = ["birdcl", "-s", "/run/buoy/bird.ctl", "show", "status"];
            eventually(SOON, "BIRD answers", || inside(&runtime, name, &words))
        };
        bird("agent-1")?;

        // Its container is killed, with BIRD; then another has its place.
        let pings = Probe::start(
            &lab.client,
            Via::Ping,
            FLOATING.parse()?,
            Duration::from_millis(10),
        )?;
        end(&runtime, "agent-1", &mut agent)?;
        agent = start("agent-2")?;
        bird("agent-2")?;
        served()?;
        let tally = pings.stop()?;
        ensure!(
            tally.lost() == 0,
            "the container's restart was noticed: {tally:?}"
        );

        web.kill()?;
        end(&runtime, "agent-2", &mut agent)?;
        let (mut cleanup, _) = manifest.container("agent", &directory)?;
        cleanup.capabilities.retain(|name| name != "NET_BIND_SERVICE");
        runtime
            .run_confined(IMAGE, "cleanup", &cleanup, &["buoy-agent", "cleanup"])?
            .ok()?;
        runtime
            .run_confined(IMAGE, "uninstall", &install, &["buoy-cni", "uninstall"])?
            .ok()?;
        for name in ["etc-cni", "opt-cni"] {
            let left: Vec<_> = fs::read_dir(directory.join(name))?.collect();
            ensure!(left.is_empty(), "{left:?}");
        }
        eventually(SOON, "the node is as it was", || {
            let difference = lab.before.difference(&Dump::take(lab.node.netns())?);
            ensure!(difference.is_empty(), "{difference}");
            Ok(())
        })
    });
}

/// Starts an agent's container, and waits until it serves.
fn start_agent(runtime: &Runtime, manifest: &DaemonSet, directory: &Path, name: &str) -> Result<Process> {
    let (confined, words) = manifest.container("agent", directory)?;
    let mut agent = runtime.start_confined(IMAGE, name, &confined, &words)?;
    eventually(SOON, "the agent serves", || {
        ensure!(agent.is_running(), "{}", agent.log_tail(10));
        inside(runtime, name, &["buoyctl", "node", "status"])
    })
    .with_context(|| agent.log_tail(20))?;
    Ok(agent)
}

/// Ends a container at once, as a runtime does in the end.
fn end(runtime: &Runtime, name: &str, process: &mut Process) -> Result<()> {
    runtime
        .ctr(&["task", "kill", "--signal", "SIGKILL", name])?
        .ok()?;
    process.wait(SOON)?;
    Ok(())
}

/// Runs a program of the image in a container. What it writes may get lost.
fn inside(runtime: &Runtime, name: &str, command: &[&str]) -> Result<()> {
    let words = [&["task", "exec", "--exec-id", "look", name], command].concat();
    runtime.ctr(&words)?.ok()?;
    Ok(())
}

/// Writes records into the store that the agent has.
fn apply(directory: &Path, text: &str) -> Result<()> {
    let mut command = Command::new(Binaries::find()?.ctl);
    command
        .arg(format!(
            "--datastore=sqlite://{}",
            directory.join("state/buoy.db").display()
        ))
        .args(["apply", "-f", "-"]);
    exec::run(&mut command, text, PATIENCE)?.ok()?;
    Ok(())
}
