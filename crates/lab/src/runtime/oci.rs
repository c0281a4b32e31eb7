//! A container image, made on the spot: Debian's static busybox in one layer, as an OCI archive.
//!
//! OCI image layout 1.0: `oci-layout`, `index.json`, and blobs named by their SHA-256.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::tar::Tar;

/// The image's name.
pub const IMAGE: &str = "docker.io/buoy-lab/busybox:1";

/// Where Debian's package `busybox-static` puts it.
const BUSYBOX: &str = "/bin/busybox";

/// Commands that get a name of their own in the image.
const APPLETS: [&str; 10] = [
    "cat", "echo", "hostname", "httpd", "ip", "mkdir", "nc", "ping", "sh", "wget",
];

/// The archive's bytes. Error: no busybox on this machine.
pub(super) fn archive() -> Result<Vec<u8>> {
    let busybox = fs::read(Path::new(BUSYBOX))
        .with_context(|| format!("cannot read {BUSYBOX}\n  install the package busybox-static"))?;
    let layer = layer(&busybox)?;
    let mut archive = Tar::new();
    archive.directory("blobs")?.directory("blobs/sha256")?;
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", digest(&layer))]},
    });
    let config = blob(
        &mut archive,
        "application/vnd.oci.image.config.v1+json",
        config.to_string().as_bytes(),
    )?;
    let layer = blob(&mut archive, "application/vnd.oci.image.layer.v1.tar", &layer)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config,
        "layers": [layer],
    });
    let mut manifest = blob(&mut archive, MANIFEST, manifest.to_string().as_bytes())?;
    manifest["annotations"] = json!({"io.containerd.image.name": IMAGE});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    archive
        .file("index.json", 0o644, index.to_string().as_bytes())?
        .file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(archive.finish())
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Adds a blob; returns its descriptor.
fn blob(archive: &mut Tar, kind: &str, bytes: &[u8]) -> Result<Value> {
    let digest = digest(bytes);
    archive.file(&format!("blobs/sha256/{digest}"), 0o644, bytes)?;
    Ok(json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len()}))
}

/// The root file system.
fn layer(busybox: &[u8]) -> Result<Vec<u8>> {
    let mut tar = Tar::new();
    for directory in ["bin", "dev", "etc", "proc", "sys", "tmp", "www"] {
        tar.directory(directory)?;
    }
    tar.file("bin/busybox", 0o755, busybox)?;
    for applet in APPLETS {
        tar.symlink(&format!("bin/{applet}"), "busybox")?;
    }
    Ok(tar.finish())
}

/// This machine's architecture in Go's words, which OCI uses.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
