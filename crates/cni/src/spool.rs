//! The spool: DELs that no agent could take, one file each, for the agent to carry out when it starts.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use buoy_cni_spec::agent::SpoolRecord;
use buoy_cni_spec::{CniError, ErrorCode, ident};

/// A spool directory; it comes into being with the first record.
#[derive(Clone, Debug)]
pub(crate) struct Spool {
    directory: PathBuf,
}

impl Spool {
    /// The spool in this directory.
    pub(crate) fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    /// Leaves a record, whole or not at all. Error: code 5, naming the file.
    pub(crate) fn write(&self, record: &SpoolRecord) -> Result<(), CniError> {
        let path = self.directory.join(record.file_name());
        self.write_to(&path, record).map_err(|error| {
            CniError::new(
                ErrorCode::IO,
                format!(
                    "cannot leave the request for the agent: {}: {error}",
                    path.display()
                ),
            )
            .with_hint("start buoy-agent, or make room for this file; then the runtime's next DEL succeeds")
        })
    }

    /// Removes a record that has been carried out.
    pub(crate) fn remove(&self, record: &SpoolRecord) {
        let _ = fs::remove_file(self.directory.join(record.file_name()));
    }

    /// Removes the main plugin's record of an attachment that exists anew.
    pub(crate) fn forget(&self, container_id: &str, ifname: &str) {
        let _ = fs::remove_file(
            self.directory
                .join(ident::attachment_file_name(container_id, ifname)),
        );
    }

    fn write_to(&self, path: &Path, record: &SpoolRecord) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)?;
        // The agent passes over names that begin with a dot.
        let unfinished = self.directory.join(format!(".{}.tmp", std::process::id()));
        let write = || {
            // The configuration may hold credentials of a datastore.
            let mut options = OpenOptions::new();
            let mut file = options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&unfinished)?;
            file.write_all(&serde_json::to_vec(record)?)?;
            fs::rename(&unfinished, path)
        };
        write().inspect_err(|_| drop(fs::remove_file(&unfinished)))
    }
}
