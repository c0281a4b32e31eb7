//! The daemon as a process.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::Place;
use super::report::{is_supported, unsupported, version_of};
use crate::files;

/// The program.
const PROGRAM: &str = "bird";
/// How long the program may take to read a configuration, or to put itself into the background.
const PATIENCE: Duration = Duration::from_secs(5);
/// Characters of what the program says that are shown.
const SHOWN: usize = 400;

/// Looks whether the program is there, in a version that this agent can drive.
pub(super) fn check_version(place: &Place) -> Result<(), String> {
    let (_, said) = run(place, &["--version"])?;
    match version_of(&said) {
        Some(version) if is_supported(&version) => Ok(()),
        Some(version) => Err(unsupported(&version)),
        None => Err(unsupported(said.trim())),
    }
}

/// Has the program read a configuration and do nothing else.
pub(super) fn check_config(place: &Place, file: &Path) -> Result<(), String> {
    let path = file.display().to_string();
    let (status, said) = run(place, &["-p", "-c", &path])?;
    if status.success() {
        return Ok(());
    }
    Err(format!(
        "BIRD does not accept the configuration: {}",
        said.replace(&path, "bird.conf").trim()
    ))
}

/// Starts the daemon, which puts itself into a session of its own. After a crash of its forerunner it waits for its
/// peers before it changes what the kernel has.
pub(super) fn start(place: &Place) -> Result<(), String> {
    let file = |path: std::path::PathBuf| path.display().to_string();
    let (config, control, pid) = (file(place.config()), file(place.control()), file(place.pid()));
    let (status, said) = run(place, &["-R", "-c", &config, "-s", &control, "-P", &pid])?;
    if status.success() {
        return Ok(());
    }
    Err(format!("BIRD does not start: {}", said.trim()))
}

/// Runs the program to its end; what it says goes by a file, which a daemon that it leaves behind cannot keep us waiting
/// for.
fn run(place: &Place, arguments: &[&str]) -> Result<(ExitStatus, String), String> {
    let path = place.file("bird.out");
    let failed = |e: std::io::Error| format!("run {PROGRAM}: {e}");
    let out = File::create(&path).map_err(failed)?;
    let mut command = Command::new(PROGRAM);
    command
        .args(arguments)
        .current_dir(place.directory())
        .stdin(Stdio::null())
        .stdout(out.try_clone().map_err(failed)?)
        .stderr(out);
    let mut child = command.spawn().map_err(|e| {
        if e.kind() == std::io::ErrorKind::NotFound {
            format!("no program {PROGRAM}\ninstall the package bird2, or set routing: kernel")
        } else {
            failed(e)
        }
    })?;
    let status = end_of(&mut child);
    let said = fs::read(&path).unwrap_or_default();
    let said: String = String::from_utf8_lossy(&said).chars().take(SHOWN).collect();
    let status = status.map_err(|why| format!("run {PROGRAM}: {why}: {}", said.trim()))?;
    Ok((status, said))
}

fn end_of(child: &mut Child) -> Result<ExitStatus, String> {
    let begun = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if begun.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(2)),
            Ok(None) => {
                child.kill().ok();
                child.wait().ok();
                return Err(format!("it takes longer than {PATIENCE:?}"));
            }
            Err(e) => return Err(e.to_string()),
        }
    }
}

/// The daemon's process, if it runs: the one that its file names, and that was started with our control socket.
pub(super) fn running(place: &Place) -> Option<Pid> {
    let text = files::read(&place.pid()).ok()?;
    let pid: i32 = String::from_utf8_lossy(&text)
        .trim()
        .parse()
        .ok()
        .filter(|pid| *pid > 1)?;
    // An agent that is the first process of a container inherits the daemon.
    waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)).ok();
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let control = place.control().display().to_string();
    let mut words = line.split(|byte| *byte == 0);
    words
        .any(|word| word == control.as_bytes())
        .then(|| Pid::from_raw(pid))
}

/// Ends a daemon that does not answer. Its routes stay, and its peers keep theirs, as after any crash.
pub(super) fn end(pid: Pid) {
    kill(pid, Signal::SIGKILL).ok();
}

/// Writes a file that only this user may read, beside its place.
pub(super) fn write(path: &Path, text: &str) -> Result<(), String> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true).mode(0o600);
    let written = options.open(path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_data()
    });
    written.map_err(|e| format!("write: {}: {e}", path.display()))
}
