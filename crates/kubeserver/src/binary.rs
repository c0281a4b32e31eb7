//! The program that all components are part of.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

/// Kubernetes and etcd, one program: built by `scripts/kube-binary` if it is not there yet, which takes minutes.
pub fn binary() -> Result<&'static PathBuf> {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    if let Some(found) = BINARY.get() {
        return Ok(found);
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/kube-binary");
    let output = Command::new(script)
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("scripts/kube-binary cannot be started")?;
    if !output.status.success() {
        bail!("scripts/kube-binary failed: {}", output.status);
    }
    let path = String::from_utf8(output.stdout)?;
    Ok(BINARY.get_or_init(|| PathBuf::from(path.trim())))
}
