//! Running other programs: to their end, with a time limit and an error that says which command failed and why; or
//! in the background, ended when their handle is dropped.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::run::Run;

/// How long an ordinary command may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A command that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The command line, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
    /// From just before it was started until its end was known.
    pub took: Duration,
}

impl Finished {
    /// Itself, if it succeeded. Error: names the command and shows what it wrote.
    pub fn ok(self) -> Result<Self> {
        if self.status.success() {
            return Ok(self);
        }
        bail!(
            "command failed: {}\n  {}\n{}{}",
            self.command,
            self.status,
            indented(&self.stderr),
            indented(&self.stdout)
        );
    }
}

/// Runs a command to its end, with `stdin` as its standard input. Error: it did not start, or not end within `limit`.
pub fn run(command: &mut Command, stdin: &str, limit: Duration) -> Result<Finished> {
    let line = line_of(command);
    let begun = Instant::now();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start: {line}"))?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    if let Some(mut pipe) = child.stdin.take() {
        // A command that does not read its input closes the pipe; how it ends tells the rest.
        let _ = pipe.write_all(stdin.as_bytes());
    }
    let (done, wait) = mpsc::channel();
    thread::spawn(move || {
        let output = child.wait_with_output();
        let _ = done.send((output, Instant::now()));
    });
    let Ok((output, ended)) = wait.recv_timeout(limit) else {
        let _ = signal::kill(pid, Signal::SIGKILL);
        bail!("command took longer than {limit:?}: {line}");
    };
    let output = output.with_context(|| format!("cannot wait for: {line}"))?;
    Ok(Finished {
        command: line,
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: ended - begun,
    })
}

/// A command's program and arguments as one line.
fn line_of(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The lines of a text, each set in by two.
pub fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

/// A program in the background. Dropping it kills it, unless a run that failed stays.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
    run: Run,
}

impl Process {
    /// Starts `command` with both outputs appended to the file `log`, in a process group of its own: an interrupt from
    /// the terminal is the lab's to handle, and it handles it by removing everything in order.
    pub fn start(run: &Run, command: &mut Command, log: &Path) -> Result<Self> {
        use std::os::unix::process::CommandExt as _;
        let line = line_of(command);
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot open the log: {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start: {line}"))?;
        run.made_process(child.id());
        Ok(Self {
            child,
            log: log.to_owned(),
            run: run.clone(),
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends it a signal. Error: it has ended and been waited for.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        signal::kill(pid, signal).with_context(|| format!("cannot send {signal} to process {pid}"))
    }

    /// Waits for its end. Error: it did not end within `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if begun.elapsed() > limit {
                bail!(
                    "process {} did not end within {limit:?}\n  its log: {}",
                    self.child.id(),
                    self.log.display()
                );
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends it at once, as `kill -9` does, and waits for its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The last lines of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.run.stays() {
            self.kill();
        }
    }
}

/// The last lines of a file; what is wrong with it if it cannot be read.
pub fn tail(file: &Path, lines: usize) -> String {
    match fs::read(file) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let all: Vec<&str> = text.lines().collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        }
        Err(error) => format!("({}: {error})", file.display()),
    }
}

/// Asks again and again, every few milliseconds, until the answer is there. Error: the last answer's, when `limit` is over.
pub fn eventually<T>(limit: Duration, what: &str, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) if begun.elapsed() > limit => {
                return Err(error.context(format!("waited {limit:?} in vain: {what}")));
            }
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// A field of `/proc/<pid>/status` in KiB, such as `VmRSS` or `VmHWM`. Error: there is no such process, or it has none.
pub fn memory(pid: u32, field: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|rest| rest.trim_start_matches(':').split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("process {pid} has no {field}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_names_itself_and_its_message() {
        let finished = run(
            Command::new("sh").args(["-c", "cat; echo wrong >&2; exit 3"]),
            "read\n",
            PATIENCE,
        )
        .unwrap();
        assert_eq!(finished.stdout, "read\n");
        let error = finished.ok().unwrap_err().to_string();
        assert!(error.contains("command failed: sh -c"), "{error}");
        assert!(error.contains("exit status: 3"), "{error}");
        assert!(error.contains("wrong"), "{error}");
    }

    #[test]
    fn a_command_that_hangs_is_ended() {
        let begun = Instant::now();
        let error = run(Command::new("sleep").arg("60"), "", Duration::from_millis(50)).unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(20));
        assert!(error.to_string().contains("took longer than 50ms: sleep 60"));
    }

    #[test]
    fn eventually_gives_the_last_error() {
        let mut asked = 0;
        let error = eventually(Duration::from_millis(20), "a thing", || {
            asked += 1;
            bail!("not yet: {asked}") as Result<()>
        })
        .unwrap_err();
        assert!(asked > 1);
        assert!(format!("{error:#}").contains(&format!("not yet: {asked}")));
    }
}
