//! Waking watches, in this process and in others.
//!
//! After its commit a writer touches a side file, and watches wait for that by inotify. The `-wal` file would not do:
//! its event comes before the commit can be seen.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use inotify::{EventMask, Inotify, WatchMask};
use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

/// The side file of a store.
#[derive(Clone, Debug)]
pub(super) struct Bell {
    path: PathBuf,
}

impl Bell {
    pub(super) fn beside(store: &Path) -> Self {
        let mut path = OsString::from(store);
        path.push(".wake");
        Self { path: path.into() }
    }

    /// Wakes all watches. What goes wrong is no error of the write that rings: watches look by themselves once a
    /// second.
    pub(super) fn ring(&self) {
        let touched = match self.touch() {
            Err(Errno::ENOENT) => self.make(),
            result => result.map_err(io::Error::from),
        };
        if let Err(error) = touched {
            tracing::debug!(path = %self.path.display(), %error, "cannot touch");
        }
    }

    pub(super) fn listen(&self) -> Listener {
        let inotify = self.subscribe();
        if let Err(error) = &inotify {
            tracing::warn!(
                path = %self.path.display(), %error,
                "cannot wait for changes of the store and looks often instead; \
                 raise fs.inotify.max_user_instances if it is used up"
            );
        }
        Listener {
            bell: self.clone(),
            inotify: inotify.ok(),
        }
    }

    fn subscribe(&self) -> io::Result<Inotify> {
        let inotify = Inotify::init()?;
        self.attach(&inotify)?;
        Ok(inotify)
    }

    fn attach(&self, inotify: &Inotify) -> io::Result<()> {
        self.make()?;
        let mask = WatchMask::ATTRIB | WatchMask::DELETE_SELF | WatchMask::MOVE_SELF;
        inotify.watches().add(&self.path, mask)?;
        Ok(())
    }

    /// Both times at once: needs no space on the file system, and is one event.
    fn touch(&self) -> Result<(), Errno> {
        let now = TimeSpec::UTIME_NOW;
        utimensat(AT_FDCWD, &self.path, &now, &now, UtimensatFlags::FollowSymlink)
    }

    fn make(&self) -> io::Result<()> {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.path)
            .map(drop)
    }
}

/// Waits for the bell of a store.
#[derive(Debug)]
pub(super) struct Listener {
    bell: Bell,
    inotify: Option<Inotify>,
}

impl Listener {
    /// How long to wait before looking at the store unasked.
    pub(super) fn patience(&self) -> Duration {
        match self.inotify {
            // A writer may be killed between its commit and the bell.
            Some(_) => Duration::from_secs(1),
            None => Duration::from_millis(50),
        }
    }

    /// Waits until the bell has rung since the last call, at most this long. Says whether it rang.
    pub(super) fn wait(&mut self, timeout: Duration) -> bool {
        let Some(inotify) = &mut self.inotify else {
            std::thread::sleep(timeout);
            return false;
        };
        // Whole milliseconds, rounded up: zero would be a hot loop at the end of every wait.
        let millis = timeout.as_millis().saturating_add(1);
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
        if !matches!(poll(&mut fds, timeout), Ok(1)) {
            return false;
        }
        if drain(inotify) {
            // The side file was removed. Whatever happens until the next one is heard is found by looking.
            self.inotify = self.bell.subscribe().ok();
        }
        true
    }
}

/// Takes all events; says whether the file is gone.
fn drain(inotify: &mut Inotify) -> bool {
    let mut gone = false;
    let mut buffer = [0; 1024];
    while let Ok(events) = inotify.read_events(&mut buffer) {
        let before = gone;
        let mut any = false;
        for event in events {
            any = true;
            gone |= !event.mask.contains(EventMask::ATTRIB);
        }
        if !any {
            return before;
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn it_is_heard_once_and_without_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let bell = Bell::beside(&dir.path().join("buoy.db"));
        let mut listener = bell.listen();
        assert!(!listener.wait(SHORT));
        bell.ring();
        bell.ring();
        assert!(listener.wait(LONG));
        assert!(!listener.wait(SHORT));
    }

    #[test]
    fn it_is_heard_again_after_the_side_file_was_removed() {
        let dir = tempfile::tempdir().unwrap();
        let bell = Bell::beside(&dir.path().join("buoy.db"));
        let mut listener = bell.listen();
        fs::remove_file(&bell.path).unwrap();
        assert!(listener.wait(LONG), "the removal itself wakes");
        bell.ring();
        assert!(listener.wait(LONG));
        let mode = fs::metadata(&bell.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
