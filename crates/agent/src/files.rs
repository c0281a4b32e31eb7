//! Files that others may have put where ours should be.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;

/// The largest file that is read.
const LARGEST: u64 = 1 << 20;

/// Reads a plain file of a reasonable size. Never waits: a pipe, a device or a link is an error.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > LARGEST {
        return Err(io::Error::other("not a plain file of at most 1 MiB"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Holds a state directory for one process, until the file is closed: two agents would undo each other's work.
///
/// The lock is the process's own (fcntl(2)): what it forks does not hold it on when it is killed, so the next agent can
/// begin at once.
pub(crate) fn hold(state_dir: &Path) -> Result<File> {
    let path = state_dir.join("lock");
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    let file = options
        .open(&path)
        .with_context(|| format!("open: {}", path.display()))?;
    let whole = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_SETLK(&whole)).map_err(|errno| {
        anyhow::anyhow!(
            "another agent has this state directory: {}: {errno}\nstop it, or set another state-dir",
            state_dir.display()
        )
    })?;
    Ok(file)
}
