//! Network namespaces: opening, identity, and running work inside one.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    thread,
};

use nix::{
    sched::{CloneFlags, setns},
    sys::stat::fstat,
};

use crate::error::{Doing, Error, Result};

/// Work inside a namespace needs little stack.
const STACK: usize = 256 * 1024;
/// Magic number of the file system that namespace files are on (`include/uapi/linux/magic.h`).
const NSFS: i64 = 0x6e73_6673;

/// An open network namespace. Holding it keeps the namespace alive.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
    id: NetnsId,
}

/// What makes a network namespace the same one: device and inode of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetnsId {
    /// Device number of the file system `nsfs`.
    pub device: u64,
    /// Inode number; the kernel may use it again after the namespace is gone.
    pub inode: u64,
}

impl Netns {
    /// Opens the namespace at a path such as `/var/run/netns/x` or `/proc/1/ns/net`.
    ///
    /// # Errors
    /// [`Error::NetnsGone`] when there is none at this path: absent, or a plain file whose mount is gone.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let gone = || Error::NetnsGone {
            path: path.to_owned(),
        };
        match File::open(path) {
            Ok(file) => Self::from_fd(file.into()).map_err(|_| gone()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(gone()),
            Err(error) => Err(Error::io(
                format!("open network namespace {}", path.display()),
                error,
            )),
        }
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// When `/proc` is not mounted or no descriptor is left.
    pub fn current() -> Result<Self> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// Takes an open descriptor, for example one that came over a socket.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is not a namespace.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        let kind = nix::sys::statfs::fstatfs(&fd).doing(|| "look at a network namespace")?;
        if kind.filesystem_type().0 != NSFS {
            return Err(Error::Invalid(
                "the descriptor is not a network namespace".to_owned(),
            ));
        }
        let stat = fstat(&fd).doing(|| "look at a network namespace")?;
        Ok(Self {
            fd,
            id: NetnsId {
                device: stat.st_dev,
                inode: stat.st_ino,
            },
        })
    }

    /// Identity; equal for all descriptors of one namespace.
    pub fn id(&self) -> NetnsId {
        self.id
    }

    /// Another descriptor of the same namespace.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn try_clone(&self) -> Result<Self> {
        let fd = self
            .fd
            .try_clone()
            .doing(|| "duplicate a network namespace's descriptor")?;
        Ok(Self { fd, id: self.id })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Runs `work` inside the namespace, on a thread of its own that ends with it, and waits for it.
///
/// The calling thread stays where it is, so nothing needs to be restored and nothing can be left in the wrong
/// place. Costs about 50 µs. A netlink socket that `work` returns stays in the namespace it was opened in.
///
/// # Errors
/// What `work` returned, or that the namespace could not be entered.
pub fn in_netns<T: Send>(netns: impl AsFd, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let fd = netns.as_fd();
    thread::scope(|scope| spawn_in(scope, fd, work).and_then(join))
}

/// Like [`in_netns`], but the caller goes on meanwhile and [`join`]s later.
pub(crate) fn spawn_in<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    netns: BorrowedFd<'scope>,
    work: impl FnOnce() -> Result<T> + Send + 'scope,
) -> Result<thread::ScopedJoinHandle<'scope, Result<T>>> {
    let enter_and_work = move || {
        setns(netns, CloneFlags::CLONE_NEWNET).doing(|| "enter a network namespace")?;
        work()
    };
    thread::Builder::new()
        .name("in-netns".to_owned())
        .stack_size(STACK)
        .spawn_scoped(scope, enter_and_work)
        .doing(|| "start a thread for a network namespace")
}

/// Waits for a thread of [`spawn_in`]; a panic in it goes on in the caller.
pub(crate) fn join<T>(handle: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    handle
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
