//! Attachments as files: what must be known of a workload when the agent comes back.
//!
//! A file is written before the first operation for an attachment and removed after the last. It is replaced whole, by
//! a rename, so a reader never sees half of one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use buoy_cni_spec::ident::attachment_file_name;
use buoy_core::endpoint::{Attachment, AttachmentId, Phase};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::files;

/// The directory of attachments.
#[derive(Debug)]
pub(crate) struct Files {
    dir: PathBuf,
    boot_id: String,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    boot_id: String,
    attachment: Attachment,
}

impl Files {
    /// Opens the directory, making it if need be.
    pub(crate) fn open(state_dir: &Path) -> Result<Self> {
        let dir = state_dir.join("attachments");
        fs::create_dir_all(&dir).with_context(|| format!("make directory: {}", dir.display()))?;
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("read boot id")?;
        Ok(Self {
            dir,
            boot_id: boot_id.trim().to_owned(),
        })
    }

    /// All attachments. Those of an earlier boot have nothing in the kernel any more. A file that does not parse is
    /// reported and set aside.
    pub(crate) fn load(&self) -> Result<BTreeMap<AttachmentId, Attachment>> {
        let mut attachments = BTreeMap::new();
        let entries = fs::read_dir(&self.dir).with_context(|| format!("list: {}", self.dir.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match self.read(&path) {
                Ok(attachment) => {
                    attachments.insert(attachment.id.clone(), attachment);
                }
                Err(error) => {
                    warn!(file = %path.display(), "attachment file set aside: {error:#}");
                    fs::rename(&path, path.with_extension("bad")).ok();
                }
            }
        }
        Ok(attachments)
    }

    fn read(&self, path: &Path) -> Result<Attachment> {
        let stored: Stored = serde_json::from_slice(&files::read(path)?)?;
        let mut attachment = stored.attachment;
        if stored.boot_id != self.boot_id {
            attachment.phase = Phase::Down;
        }
        Ok(attachment)
    }

    /// Writes an attachment as it is now.
    pub(crate) fn save(&self, attachment: &Attachment) -> Result<()> {
        let path = self.path(&attachment.id);
        let stored = Stored {
            boot_id: self.boot_id.clone(),
            attachment: attachment.clone(),
        };
        let temporary = path.with_extension("tmp");
        let text = serde_json::to_vec(&stored)?;
        fs::write(&temporary, text)
            .and_then(|()| fs::rename(&temporary, &path))
            .with_context(|| {
                format!(
                    "write attachment: {}\nmake room or mend the file system",
                    path.display()
                )
            })
    }

    /// Removes the file of an attachment that is gone.
    pub(crate) fn remove(&self, id: &AttachmentId) {
        let path = self.path(id);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            warn!(file = %path.display(), "attachment file stays: {error}");
        }
    }

    fn path(&self, id: &AttachmentId) -> PathBuf {
        self.dir.join(attachment_file_name(&id.container, &id.ifname))
    }
}
