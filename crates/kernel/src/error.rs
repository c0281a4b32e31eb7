//! The one error type of this crate, with the predicates that callers decide by.

use std::{io, path::PathBuf};

use nix::errno::Errno;

use crate::{IfIndex, netlink::Failure};

/// Result of an operation on the kernel.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and with which object.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a netlink request, or the answer did not come.
    #[error("{doing}: {failure}")]
    Netlink {
        /// What was attempted, with the name of the object.
        doing: String,
        /// The kernel's answer.
        #[source]
        failure: Failure,
    },
    /// A file of the kernel could not be opened, read or written, or a system call failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was attempted, with the name of the object.
        doing: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The host side's name is taken. Whether by a link of ours tells the alias.
    #[error("link {name} exists: index {ifindex}, alias {}\nit is somebody else's: rename or delete it", alias.as_deref().unwrap_or("none"))]
    LinkExists {
        /// Name asked for.
        name: String,
        /// Index of the link that has it.
        ifindex: IfIndex,
        /// Its alias; those of Buoy begin with [`crate::link::ALIAS_PREFIX`].
        alias: Option<String>,
    },
    /// The namespace already has a link of that name.
    #[error(
        "interface {name} exists in the workload's namespace\nname another one, or let whatever made it go first"
    )]
    PodLinkExists {
        /// Name asked for.
        name: String,
    },
    /// The link that has this name is not the one the caller means.
    #[error("link {name} is another one now: {found}")]
    LinkDiffers {
        /// Name asked for.
        name: String,
        /// What was found.
        found: String,
    },
    /// A link did not become usable in time.
    #[error("link {name} is not usable: {missing}")]
    NotUsable {
        /// Name of the link.
        name: String,
        /// What was waited for.
        missing: String,
    },
    /// There is no network namespace at this path.
    #[error("network namespace is gone: {}", path.display())]
    NetnsGone {
        /// Path that was opened.
        path: PathBuf,
    },
    /// No `nft` in `PATH`.
    #[error("program nft not found in PATH\ninstall the package nftables, version 1.0.0 or newer")]
    NftMissing,
    /// `nft` is older than the language that the ruleset uses.
    #[error("program nft is too old: {found}\ninstall nftables version 1.0.0 or newer")]
    NftTooOld {
        /// What `nft --version` said.
        found: String,
    },
    /// `nft` refused the ruleset.
    #[error("nft refused the ruleset: {stderr}")]
    NftRefused {
        /// What it wrote to standard error.
        stderr: String,
    },
    /// Somebody else changed the tables: what was to be changed is not as it was read.
    #[error("nftables changed underneath: {doing}: {failure}\nread the ruleset again")]
    Changed {
        /// What was attempted.
        doing: String,
        /// The kernel's answer.
        #[source]
        failure: Failure,
    },
    /// A value cannot be what the operation needs.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// A system call or file operation that failed.
    pub(crate) fn io(doing: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io {
            doing: doing.into(),
            source: source.into(),
        }
    }

    /// The error number that the kernel gave, if it was the kernel that refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Netlink { failure, .. } | Self::Changed { failure, .. } => failure.errno(),
            Self::Io { source, .. } => source.raw_os_error().map(Errno::from_raw),
            _ => None,
        }
    }

    /// The object of the operation does not exist.
    pub fn is_not_found(&self) -> bool {
        let gone = [
            Errno::ENOENT,
            Errno::ENODEV,
            Errno::ESRCH,
            Errno::EADDRNOTAVAIL,
            Errno::ENXIO,
        ];
        matches!(self, Self::NetnsGone { .. }) || self.errno().is_some_and(|errno| gone.contains(&errno))
    }

    /// What was to be made exists already.
    pub fn is_exists(&self) -> bool {
        matches!(self, Self::LinkExists { .. } | Self::PodLinkExists { .. })
            || self.errno() == Some(Errno::EEXIST)
    }

    /// The same call may succeed later, without anybody changing what was asked for.
    pub fn is_retryable(&self) -> bool {
        let passing = [
            Errno::EAGAIN,
            Errno::EBUSY,
            Errno::EINTR,
            Errno::ENOBUFS,
            Errno::ENOMEM,
            Errno::ETIMEDOUT,
        ];
        match self {
            Self::Netlink { failure, .. } if failure.is_passing() => true,
            Self::Changed { .. } | Self::NotUsable { .. } => true,
            _ => self.errno().is_some_and(|errno| passing.contains(&errno)),
        }
    }
}

/// Names what was attempted when a request fails.
pub(crate) trait Doing<T> {
    /// Turns a low-level failure into an [`Error`]; the text is only made when needed.
    fn doing<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T> Doing<T> for Result<T, Failure> {
    fn doing<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|failure| Error::Netlink {
            doing: what().into(),
            failure,
        })
    }
}

impl<T> Doing<T> for io::Result<T> {
    fn doing<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|source| Error::io(what(), source))
    }
}

impl<T> Doing<T> for nix::Result<T> {
    fn doing<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|errno| Error::io(what(), errno))
    }
}
