//! What the CNI plugin wrote down while no agent answered.

use std::fs;
use std::path::{Path, PathBuf};

use buoy_cni_spec::agent::SpoolRecord;
use tracing::warn;

use crate::files;
use crate::request::Removal;

/// The records in the spool. One that does not parse is reported and set aside.
pub(crate) fn records(dir: &Path) -> Vec<(Removal, PathBuf)> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut records = Vec::new();
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        // A name that begins with a dot is a file that is being written, or one that was set aside.
        let hidden = path
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden {
            continue;
        }
        match read(&path) {
            Ok(removal) => records.push((removal, path)),
            Err(error) => {
                warn!(file = %path.display(), "spool record set aside: {error:#}");
                set_aside(&path);
            }
        }
    }
    records
}

fn read(path: &Path) -> anyhow::Result<Removal> {
    let record: SpoolRecord = serde_json::from_slice(&files::read(path)?)?;
    Ok(match record {
        SpoolRecord::Del(del) => Removal::new(del, true),
        SpoolRecord::IpamDel(del) => Removal::new(del, false),
    })
}

fn set_aside(path: &Path) {
    if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
        fs::rename(path, path.with_file_name(format!(".bad-{name}"))).ok();
    }
}

/// Removes a record that was carried out.
pub(crate) fn done(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        warn!(file = %path.display(), "spool record stays: {error}");
    }
}
