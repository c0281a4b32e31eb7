//! What the CNI plugin wrote down while no agent answered.

use std::fs;
use std::path::{Path, PathBuf};

use buoy_cni_spec::agent::{Body, DelRequest, IpamRequest, SpoolRecord};
use buoy_core::endpoint::AttachmentId;
use tracing::warn;

/// The records in the spool. One that does not parse is reported and set aside.
pub(crate) fn records(dir: &Path) -> Vec<(AttachmentId, PathBuf)> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut records = Vec::new();
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        // A name that begins with a dot is a file that is being written, or one that was set aside.
        let hidden = path
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden || path.is_dir() {
            continue;
        }
        match read(&path) {
            Ok(id) => records.push((id, path)),
            Err(error) => {
                warn!(file = %path.display(), "spool record set aside: {error:#}");
                set_aside(&path);
            }
        }
    }
    records
}

fn read(path: &Path) -> anyhow::Result<AttachmentId> {
    let record: SpoolRecord = serde_json::from_slice(&fs::read(path)?)?;
    match record.into_body() {
        Body::Del(DelRequest {
            container_id, ifname, ..
        })
        | Body::IpamDel(IpamRequest {
            container_id, ifname, ..
        }) => Ok(AttachmentId {
            container: container_id,
            ifname,
        }),
        _ => anyhow::bail!("not a DEL"),
    }
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
