//! The most memory that a plugin ever has.
//!
//! What `wait4` tells would count the memory of the process that started it. So the plugin finds its standard output
//! full: it is held at its very end, and its own counter is read there.

use std::fs;
use std::io::{Read, Write, pipe};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::fcntl::{FcntlArg, fcntl};

/// The least that a pipe holds.
const ROOM: usize = 4096;
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a plugin that prints a result to its end; returns its peak memory in MB. To be called inside the namespace it
/// shall run in.
pub(super) fn peak(mut command: Command, stdin: &str) -> Result<f64> {
    let (mut reader, mut writer) = pipe()?;
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(ROOM as i32))?;
    writer.write_all(&[b' '; ROOM])?;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(writer)
        .stderr(Stdio::null())
        .spawn()?;
    // The command keeps a copy of the pipe's end.
    drop(command);
    child
        .stdin
        .take()
        .context("no standard input")?
        .write_all(stdin.as_bytes())?;
    let held = wait_until_held(child.id());
    let peak = crate::exec::memory(child.id(), "VmHWM");
    let mut printed = String::new();
    reader.read_to_string(&mut printed)?;
    let status = child.wait()?;
    held?;
    ensure!(status.success(), "a plugin failed: {}", printed.trim());
    Ok(peak? as f64 * 1024.0 / 1e6)
}

fn wait_until_held(pid: u32) -> Result<()> {
    let begun = Instant::now();
    while !is_held(pid) {
        ensure!(begun.elapsed() < PATIENCE, "a plugin prints nothing");
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Whether one of its threads waits for room in a pipe.
fn is_held(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    tasks
        .filter_map(|task| fs::read_to_string(task.path().join("wchan")).ok())
        .any(|place| place.contains("pipe_write"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_measured_and_comes_to_its_end() {
        let mut command = Command::new("sh");
        command.args(["-c", "read line; echo $line"]);
        let peak = peak(command, "hello\n").unwrap();
        assert!((0.1..50.0).contains(&peak), "{peak} MB");
        let mut command = Command::new("sh");
        command.args(["-c", "echo no; exit 3"]);
        assert!(super::peak(command, "").unwrap_err().to_string().contains("no"));
    }
}
