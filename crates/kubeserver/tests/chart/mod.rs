//! The chart, rendered by Helm.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value as Json;

/// A file below `deploy`.
pub(crate) fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../deploy")
        .join(name)
}

/// Renders the chart, as a release in a namespace. Error: what Helm says.
pub(crate) fn render(namespace: &str, values: &[&str]) -> Result<String, String> {
    let output = Command::new(buoy_kubeserver::helm().unwrap())
        .args(["template", "buoy"])
        .arg(deploy("helm/buoy"))
        .args(["--kube-version", "1.34.0", "--namespace", namespace])
        .args(values.iter().flat_map(|value| ["--set", value]))
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(without_sources(&String::from_utf8(output.stdout).unwrap())),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

/// Without the comments that say which template something is of.
fn without_sources(text: &str) -> String {
    text.split_inclusive('\n')
        .filter(|line| !line.starts_with("# Source: "))
        .collect()
}

/// The objects of a manifest.
pub(crate) fn objects(text: &str) -> Vec<Json> {
    documents(text)
        .map(|document| serde_saphyr::from_str(document).unwrap())
        .collect()
}

/// The documents of a manifest that say something, as text.
pub(crate) fn documents(text: &str) -> impl Iterator<Item = &str> {
    text.split("---\n").filter(|document| {
        document
            .lines()
            .any(|line| !line.starts_with('#') && !line.is_empty())
    })
}
