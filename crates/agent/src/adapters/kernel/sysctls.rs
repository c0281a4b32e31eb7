//! Settings of this node, and what they were before: clean-up gives back what is still ours.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use buoy_kernel::sysctl;
use serde::{Deserialize, Serialize};
use tracing::warn;

/// What settings were before this agent changed them.
#[derive(Debug)]
pub(crate) struct Originals {
    file: PathBuf,
    known: BTreeMap<String, Original>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Original {
    before: String,
    ours: String,
}

impl Originals {
    /// Reads what earlier agents wrote down.
    pub(crate) fn open(state_dir: &Path) -> Result<Self> {
        let file = state_dir.join("sysctls.json");
        let known = match std::fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| format!("read: {}", file.display()))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(e) => return Err(e).with_context(|| format!("read: {}", file.display())),
        };
        Ok(Self { file, known })
    }

    /// Changes a setting, writing down first what it was.
    pub(crate) fn set(&mut self, path: &str, value: &str) -> Result<()> {
        let before = sysctl::read(path)?;
        if before == value {
            return Ok(());
        }
        let original = self.known.entry(path.to_owned()).or_insert(Original {
            before,
            ours: String::new(),
        });
        value.clone_into(&mut original.ours);
        self.save()?;
        sysctl::write(path, value)?;
        Ok(())
    }

    /// Gives back every setting that still has our value.
    pub(crate) fn restore(mut self) -> Result<()> {
        for (path, original) in std::mem::take(&mut self.known) {
            match sysctl::read(&path) {
                Ok(value) if value == original.ours => sysctl::write(&path, &original.before)?,
                Ok(value) => warn!("sysctl {path} stays: {value}, for somebody else set it"),
                Err(error) => warn!("{error}"),
            }
        }
        match std::fs::remove_file(&self.file) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(e).with_context(|| format!("remove: {}", self.file.display()))
            }
            _ => Ok(()),
        }
    }

    fn save(&self) -> Result<()> {
        let temporary = self.file.with_extension("tmp");
        std::fs::write(&temporary, serde_json::to_vec(&self.known)?)
            .and_then(|()| std::fs::rename(&temporary, &self.file))
            .with_context(|| format!("write: {}", self.file.display()))
    }
}
