//! Why an installation did not come to pass, and what to do about it.

use std::io::{self, ErrorKind};
use std::path::Path;

/// A failure, with a hint on a line of its own.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A variable of the environment is missing, or says what cannot be.
    #[error("{problem}\n{hint}")]
    Setting {
        /// What is wrong.
        problem: String,
        /// What to do.
        hint: &'static str,
    },
    /// The network configuration cannot be used.
    #[error("network configuration: {problem}\n{hint}")]
    Config {
        /// What is wrong.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// A file cannot be read or written.
    #[error("cannot {doing}: {source}\n{}", hint(source))]
    File {
        /// What was tried, with the path.
        doing: String,
        /// Why not.
        source: io::Error,
    },
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Says what was tried when a call for a file failed.
pub(crate) trait Doing<T> {
    /// `verb` and path complete "cannot …".
    fn doing(self, verb: &str, path: &Path) -> Result<T>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, verb: &str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::File {
            doing: format!("{verb} {}", path.display()),
            source,
        })
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::ReadOnlyFilesystem => "mount the node's directory writable, or name another one",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "make room on the node's file system; nothing was replaced"
        }
        ErrorKind::PermissionDenied => "run as root, with the node's directories mounted",
        ErrorKind::NotFound | ErrorKind::NotADirectory => {
            "mount the node's directories below /host, as deploy/buoy.yaml does"
        }
        _ => "look at the node's file system",
    }
}
