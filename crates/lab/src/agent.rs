//! The agent of a node, as a process: started as a service manager would, stopped, killed, frozen.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::exec::{PATIENCE, Process, indented};
use crate::run::Run;

/// An agent that has said that it is ready.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    /// From its start until it was ready.
    pub took: Duration,
}

impl Agent {
    /// Starts an agent and waits until it says READY by sd_notify(3). Error: it ends before, or says nothing; with the
    /// end of its log.
    pub fn start(run: &Run, command: &mut Command, directory: &Path) -> Result<Self> {
        let path = directory.join("notify.sock");
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).with_context(|| format!("cannot bind {}", path.display()))?;
        socket.set_read_timeout(Some(Duration::from_millis(5)))?;
        let begun = Instant::now();
        command.env("NOTIFY_SOCKET", &path);
        let mut process = Process::start(run, command, &directory.join("agent.log"))?;
        loop {
            let mut message = [0; 1024];
            let length = socket.recv(&mut message).unwrap_or(0);
            if String::from_utf8_lossy(&message[..length])
                .lines()
                .any(|line| line == "READY=1")
            {
                return Ok(Self {
                    process,
                    took: begun.elapsed(),
                });
            }
            let ended = !process.is_running();
            if ended || begun.elapsed() > PATIENCE {
                let how = if ended { "ended" } else { "said nothing" };
                bail!(
                    "the agent {how} before it was ready; the end of its log:\n{}",
                    indented(&process.log_tail(12))
                );
            }
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Stops it in order, by SIGTERM. Error: it ends otherwise than with success.
    pub fn stop(mut self) -> Result<()> {
        self.process.signal(Signal::SIGTERM)?;
        let status = self.process.wait(PATIENCE)?;
        ensure!(
            status.success(),
            "the agent did not stop in order: {status}\n{}",
            indented(&self.process.log_tail(12))
        );
        Ok(())
    }

    /// Kills it at once (`kill -9`).
    pub fn kill(mut self) {
        self.process.kill();
    }

    /// Lets it do nothing until [`Agent::thaw`].
    pub fn freeze(&self) -> Result<()> {
        self.process.signal(Signal::SIGSTOP)
    }

    /// Lets it go on.
    pub fn thaw(&self) -> Result<()> {
        self.process.signal(Signal::SIGCONT)
    }
}
