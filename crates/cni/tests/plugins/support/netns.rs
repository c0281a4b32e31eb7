//! Network namespaces that live as long as a process that does nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// A network namespace of the test's own; gone when dropped.
pub(crate) struct Netns {
    child: Child,
    path: PathBuf,
}

impl Netns {
    pub(crate) fn new() -> Self {
        let mut command = Command::new("unshare");
        let child = command
            .args(["--net", "sleep", "120"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let path = PathBuf::from(format!("/proc/{}/ns/net", child.id()));
        let this = Self { child, path };
        let own = identity("/proc/self/ns/net");
        for _ in 0..500 {
            if fs::metadata(&this.path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) != own) {
                return this;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("cannot make a network namespace: these tests must run as root");
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn identity(&self) -> (u64, u64) {
        identity(&self.path)
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

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn identity(path: impl AsRef<Path>) -> (u64, u64) {
    let metadata = fs::metadata(path).unwrap();
    (metadata.dev(), metadata.ino())
}
