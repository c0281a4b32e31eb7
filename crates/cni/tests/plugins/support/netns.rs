//! Network namespaces without a name: they live as long as a descriptor is open, so nothing stays behind, whatever ends
//! the test.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, unshare};

/// A network namespace of the test's own; gone when dropped.
pub(crate) struct Netns {
    /// Keeps it.
    _file: File,
    path: PathBuf,
}

impl Netns {
    pub(crate) fn new() -> Self {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .expect("cannot make a network namespace: these tests must run as root");
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        let file = made.join().unwrap();
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        Self {
            _file: file,
            path: path.into(),
        }
    }

    /// A path by which other processes find it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Device and inode.
    pub(crate) fn identity(&self) -> (u64, u64) {
        let metadata = fs::metadata(&self.path).unwrap();
        (metadata.dev(), metadata.ino())
    }

    /// Runs `ip` inside the namespace and returns what it printed.
    pub(crate) fn ip(&self, args: &str) -> String {
        let output = Command::new("nsenter")
            .arg(format!("--net={}", self.path.display()))
            .arg("ip")
            .args(args.split_whitespace())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "ip {args}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn has_link(&self, name: &str) -> bool {
        self.ip("-o link")
            .lines()
            .any(|line| line.contains(&format!(" {name}@")) || line.contains(&format!(" {name}:")))
    }
}
