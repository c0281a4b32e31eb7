//! A lab leaves nothing on the machine, however it ends.

use std::io::{BufRead, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use buoy_lab::exec::eventually;
use buoy_lab::lab::Lab;
use buoy_lab::sweep::{Which, sweep};
use buoy_lab::workload::{Spec, Workload};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const SOON: Duration = Duration::from_secs(30);

/// `buoy-lab up`, once it has said what there is.
struct Up {
    child: Child,
    namespaces: Vec<PathBuf>,
    base: PathBuf,
}

impl Up {
    fn start() -> Result<Self> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_buoy-lab"))
            .arg("up")
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().context("no output")?;
        let mut up = Self {
            namespaces: Vec::new(),
            base: std::env::temp_dir().join(format!("buoy-lab-{}x0", child.id())),
            child,
        };
        for line in BufReader::new(output).lines() {
            let line = line?;
            let entered = line.split("nsenter --net=").nth(1);
            up.namespaces
                .extend(entered.and_then(|rest| rest.split(' ').next()).map(PathBuf::from));
            if line.starts_with("Ctrl-C") {
                break;
            }
        }
        ensure!(up.namespaces.len() >= 3, "the guide names no namespaces");
        ensure!(
            up.namespaces.iter().all(|path| path.exists()) && up.base.exists(),
            "nothing is there"
        );
        Ok(up)
    }

    fn agent(&self) -> Result<Pid> {
        let journal = std::fs::read_to_string(self.base.join("made"))?;
        let line = journal
            .lines()
            .rfind(|line| line.starts_with("process "))
            .context("no agent")?;
        let pid = line.split(' ').nth(1).context("no process id")?.parse()?;
        Ok(Pid::from_raw(pid))
    }

    fn end(&mut self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)?;
        self.child.wait()?;
        Ok(())
    }

    fn left(&self) -> Vec<&Path> {
        let paths = self.namespaces.iter().chain([&self.base]);
        paths.map(PathBuf::as_path).filter(|path| path.exists()).collect()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.end(Signal::SIGTERM);
    }
}

/// Whether there is such a process. What nobody has waited for does not live.
fn lives(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}

#[test]
fn an_interrupt_removes_everything() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut up = Up::start().unwrap();
        let agent = up.agent().unwrap();
        up.end(signal).unwrap();
        assert_eq!(up.left(), Vec::<&Path>::new(), "after {signal}");
        assert!(!lives(agent), "the agent lives on after {signal}");
    }
}

#[test]
fn a_panic_removes_all_but_the_logs() {
    let (mut namespaces, mut logs, mut agent) = (Vec::new(), PathBuf::new(), None);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        Lab::start().unwrap().test(|lab| {
            let web = Workload::start(&lab.node, Spec::pod("shop", "web-0"))?;
            let all = [lab.node.netns(), &lab.client, web.netns()];
            namespaces = all.map(|netns| netns.path().to_owned()).to_vec();
            lab.run().base().clone_into(&mut logs);
            agent = Some(lab.node.with_agent(|agent| Ok(agent.pid()))?);
            panic!("planted");
        });
    }));
    assert!(outcome.is_err(), "the panic does not come through");
    let left: Vec<_> = namespaces.iter().filter(|path| path.exists()).collect();
    assert_eq!((namespaces.len(), left), (3, Vec::new()));
    let agent = i32::try_from(agent.unwrap()).unwrap();
    assert!(!lives(Pid::from_raw(agent)), "the agent lives on");
    std::fs::remove_dir_all(logs).unwrap();
}

#[test]
fn what_a_killed_lab_leaves_is_swept_and_what_lives_is_not() {
    let living = Up::start().unwrap();
    let mut killed = Up::start().unwrap();
    let agent = killed.agent().unwrap();
    killed.end(Signal::SIGKILL).unwrap();
    eventually(SOON, "the leftovers are swept", || {
        // Another lab that begins at this moment sweeps too.
        sweep(&Which::Forgotten);
        ensure!(killed.left().is_empty(), "{:?}", killed.left());
        ensure!(!lives(agent), "the agent lives on");
        Ok(())
    })
    .unwrap();
    assert_eq!(
        living.left().len(),
        living.namespaces.len() + 1,
        "a living lab was swept"
    );
}

#[test]
fn a_demo_that_fails_shows_why_and_stays_if_somebody_wants_to_look() {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_buoy-lab"))
        .arg("demo")
        .env("BUOY_LAB_KEEP", "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let run = format!("{}x0", demo.id());
    let base = std::env::temp_dir().join(format!("buoy-lab-{run}"));
    let agent = eventually(SOON, "the demo's agent starts", || {
        let journal = std::fs::read_to_string(base.join("made"))?;
        let line = journal.lines().filter(|line| line.starts_with("process ")).nth(1);
        Ok(line
            .context("not yet")?
            .split(' ')
            .nth(1)
            .context("no id")?
            .parse()?)
    })
    .unwrap();
    kill(Pid::from_raw(agent), Signal::SIGKILL).unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut demo.stdout.take().unwrap(), &mut said).unwrap();
    let status = demo.wait().unwrap();
    let entered = said
        .lines()
        .find_map(|line| line.strip_prefix("step in: nsenter --net="));
    let stayed = entered.map(|path| Path::new(path).exists());
    sweep(&Which::Run(run));
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(
        said.contains('✗') && said.contains("end of the agent's log"),
        "{said}"
    );
    assert_eq!(stayed, Some(true), "{said}");
    assert!(!base.exists());
}
