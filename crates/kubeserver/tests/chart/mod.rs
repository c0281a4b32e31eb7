//! The chart, rendered by Helm's engine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value as Json;

/// A file below `deploy`.
pub(crate) fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../deploy")
        .join(name)
}

/// Renders the chart, as a release in a namespace. Error: what Helm says.
pub(crate) fn render(namespace: &str, values: &[&str]) -> Result<String, String> {
    let output = Command::new(engine())
        .arg(deploy("helm/buoy"))
        .args(["buoy", namespace])
        .args(values)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(said),
    }
}

/// The objects of a manifest.
pub(crate) fn objects(text: &str) -> Vec<Json> {
    text.split("---\n")
        .filter(|document| {
            document
                .lines()
                .any(|line| !line.starts_with('#') && !line.is_empty())
        })
        .map(|document| serde_saphyr::from_str(document).unwrap())
        .collect()
}

/// The program, built if it is not there yet.
fn engine() -> &'static PathBuf {
    static ENGINE: OnceLock<PathBuf> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/helm-binary");
        let output = Command::new(script).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
    })
}
