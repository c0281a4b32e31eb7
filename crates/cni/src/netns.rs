//! The network namespace that a runtime names by its path.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::thread;

use buoy_cni_spec::{CniError, ErrorCode};
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

/// This process's own network namespace.
const OWN: &str = "/proc/self/ns/net";

/// A namespace that is not the plugin's own.
#[derive(Debug)]
pub(crate) struct Netns {
    file: File,
}

impl Netns {
    /// Opens a namespace. Errors: code 3 if it is gone, 8 if it is none or the plugin's own, 5 otherwise.
    pub(crate) fn open(path: &str) -> Result<Self, CniError> {
        let io_error = |error: io::Error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => CniError::new(
                ErrorCode::UNKNOWN_CONTAINER,
                format!("network namespace does not exist: {path}"),
            )
            .with_hint("the container is gone, or CNI_NETNS is wrong"),
            _ => CniError::new(
                ErrorCode::IO,
                format!("cannot open network namespace: {path}: {error}"),
            ),
        };
        // Without O_NONBLOCK opening a fifo would wait for its other end.
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(path)
            .map_err(io_error)?;
        let invalid = |msg: &str| CniError::new(ErrorCode::INVALID_NETNS, format!("{msg}: {path}"));
        if fstatfs(&file)
            .map_err(|errno| io_error(errno.into()))?
            .filesystem_type()
            != NSFS_MAGIC
        {
            return Err(
                invalid("not a network namespace").with_hint("CNI_NETNS must be the path of a namespace")
            );
        }
        if identity(&file).map_err(io_error)?
            == File::open(OWN).and_then(|own| identity(&own)).map_err(io_error)?
        {
            return Err(
                invalid("plugin's netns and netns from CNI_NETNS should not be the same")
                    .with_hint("a container in the host's network needs no CNI plugin"),
            );
        }
        Ok(Self { file })
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Runs a function inside the namespace, on a thread of its own: entering changes that thread alone, so nothing
    /// has to be undone.
    pub(crate) fn run<T: Send>(&self, function: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let enter = || {
            setns(self.as_fd(), CloneFlags::CLONE_NEWNET)?;
            function()
        };
        thread::scope(|scope| {
            let thread = thread::Builder::new()
                .name("in-netns".into())
                .spawn_scoped(scope, enter)?;
            thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("thread in network namespace panicked")))
        })
    }
}

/// What a namespace is known by: device and inode.
fn identity(file: &File) -> io::Result<(u64, u64)> {
    file.metadata().map(|metadata| (metadata.dev(), metadata.ino()))
}
