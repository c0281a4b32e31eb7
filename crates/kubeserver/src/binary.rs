//! Programs that scripts build once per machine.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

/// Kubernetes and etcd, one program: built by `scripts/kube-binary` if it is not there yet, which takes minutes.
pub fn binary() -> Result<&'static PathBuf> {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    built(&BINARY, "kube-binary")
}

/// Helm: built by `scripts/helm-binary` if it is not there yet, which takes minutes.
pub fn helm() -> Result<&'static PathBuf> {
    static HELM: OnceLock<PathBuf> = OnceLock::new();
    built(&HELM, "helm-binary")
}

/// The program whose path a script prints.
fn built<'a>(known: &'a OnceLock<PathBuf>, script: &str) -> Result<&'a PathBuf> {
    if let Some(found) = known.get() {
        return Ok(found);
    }
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts");
    let output = Command::new(scripts.join(script))
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("scripts/{script} cannot be started"))?;
    ensure!(
        output.status.success(),
        "scripts/{script} failed: {}",
        output.status
    );
    let path = String::from_utf8(output.stdout)?;
    Ok(known.get_or_init(|| PathBuf::from(path.trim())))
}
