//! A daemon of a node, as a process: started as a service manager would, stopped, killed, frozen.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::exec::{PATIENCE, Process, indented};
use crate::run::Run;

/// A daemon that has said that it is ready. Dropping it kills it.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    process: Process,
    took: Duration,
}

impl Daemon {
    /// Starts a daemon and waits until it says READY by sd_notify(3). Its log is `<directory>/<name>.log`. Error: it ends
    /// before, or says nothing; with the end of its log.
    pub fn start(run: &Run, name: &str, command: &mut Command, directory: &Path) -> Result<Self> {
        let path = directory.join(format!("{name}.ready"));
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).with_context(|| format!("cannot bind {}", path.display()))?;
        socket.set_read_timeout(Some(Duration::from_millis(5)))?;
        let begun = Instant::now();
        command.env("NOTIFY_SOCKET", &path);
        let mut daemon = Self {
            name: name.to_owned(),
            process: Process::start(run, command, &directory.join(format!("{name}.log")))?,
            took: Duration::ZERO,
        };
        while !says_ready(&socket) {
            let ended = !daemon.process.is_running();
            if ended || begun.elapsed() > PATIENCE {
                let how = if ended { "ended" } else { "said nothing" };
                bail!("the {name} {how} before it was ready\n{}", daemon.end_of_log());
            }
        }
        daemon.took = begun.elapsed();
        Ok(daemon)
    }

    /// From its start until it was ready.
    pub fn took(&self) -> Duration {
        self.took
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
            "the {} did not stop in order: {status}\n{}",
            self.name,
            self.end_of_log()
        );
        Ok(())
    }

    /// Kills it at once (`kill -9`).
    pub fn kill(mut self) {
        self.process.kill();
    }

    /// Lets it do nothing until [`Daemon::thaw`].
    pub fn freeze(&self) -> Result<()> {
        self.process.signal(Signal::SIGSTOP)
    }

    /// Lets it go on.
    pub fn thaw(&self) -> Result<()> {
        self.process.signal(Signal::SIGCONT)
    }

    fn end_of_log(&self) -> String {
        format!("the end of its log:\n{}", indented(&self.process.log_tail(12)))
    }
}

/// Whether a message says so; waits for one a few milliseconds.
fn says_ready(socket: &UnixDatagram) -> bool {
    let mut message = [0; 1024];
    let length = socket.recv(&mut message).unwrap_or(0);
    String::from_utf8_lossy(&message[..length])
        .lines()
        .any(|line| line == "READY=1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_ends_early_shows_its_log() {
        let run = Run::begin().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo bad configuration; exit 1"]);
        let error = Daemon::start(&run, "thing", &mut command, run.base())
            .unwrap_err()
            .to_string();
        assert!(error.contains("the thing ended before it was ready"), "{error}");
        assert!(error.contains("bad configuration"), "{error}");
    }
}
