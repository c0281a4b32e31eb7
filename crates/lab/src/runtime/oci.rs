//! Container images, made on the spot: one layer, as an OCI archive.
//!
//! OCI image layout 1.0: `oci-layout`, `index.json`, and blobs named by their SHA-256.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::tar::Tar;
use crate::exec::{self, PATIENCE};

/// Where Debian's package `busybox-static` puts it.
const BUSYBOX: &str = "/bin/busybox";

/// Commands that get a name of their own in the image.
const APPLETS: [&str; 27] = [
    "cat", "chmod", "cp", "date", "echo", "env", "false", "grep", "hostname", "httpd", "id", "ip", "kill",
    "ls", "mkdir", "mv", "nc", "nslookup", "ping", "ps", "rm", "sed", "sh", "sleep", "touch", "true", "wget",
];

/// An image: a root file system, and what runs in it.
#[derive(Debug)]
pub(crate) struct Image {
    name: String,
    command: Vec<String>,
    layer: Tar,
}

impl Image {
    /// Debian's static busybox, with a shell. Error: no busybox on this machine.
    pub(crate) fn busybox(name: &str) -> Result<Self> {
        let mut layer = busybox()?;
        for applet in APPLETS {
            layer.symlink(&format!("bin/{applet}"), "busybox")?;
        }
        Ok(Self::new(name, &["/bin/sh"], layer))
    }

    /// The same with programs of this machine in `/bin`, the libraries that they need, and a command. Error: as above, or a
    /// program or library cannot be read.
    pub(crate) fn with_programs(name: &str, command: &[&str], programs: &[&Path]) -> Result<Self> {
        let mut image = Self::busybox(name)?;
        let mut layer = image.layer;
        let mut libraries = BTreeSet::new();
        for program in programs {
            let file = program.file_name().unwrap_or_default().to_string_lossy();
            layer.file(&format!("bin/{file}"), 0o755, &read(program)?)?;
            libraries.extend(libraries_of(program)?);
        }
        for library in libraries {
            let path = library.to_string_lossy();
            layer.file(path.trim_start_matches('/'), 0o755, &read(&library)?)?;
        }
        image.layer = layer;
        image.command = words(command);
        Ok(image)
    }

    /// A process that does nothing, for ever. Error: no busybox on this machine.
    pub(crate) fn pause(name: &str) -> Result<Self> {
        Ok(Self::new(
            name,
            &["/bin/busybox", "sleep", "2147483647"],
            busybox()?,
        ))
    }

    /// A directory's content as the root file system; everything in it is root's.
    pub(crate) fn of_directory(name: &str, command: &[&str], root: &Path) -> Result<Self> {
        let mut layer = Tar::new();
        layer.content_of(root, "")?;
        Ok(Self::new(name, command, layer))
    }

    fn new(name: &str, command: &[&str], layer: Tar) -> Self {
        Self {
            name: name.to_owned(),
            command: words(command),
            layer,
        }
    }

    /// The archive's bytes.
    pub(crate) fn archive(self) -> Result<Vec<u8>> {
        let layer = self.layer.finish();
        let mut archive = Tar::new();
        archive.directory("blobs")?.directory("blobs/sha256")?;
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {"Cmd": self.command, "Env": ["PATH=/bin:/usr/bin:/sbin:/usr/sbin"]},
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
        manifest["annotations"] = json!({"io.containerd.image.name": self.name});
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        archive
            .file("index.json", 0o644, index.to_string().as_bytes())?
            .file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(archive.finish())
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Adds a blob; returns its descriptor.
fn blob(archive: &mut Tar, kind: &str, bytes: &[u8]) -> Result<Value> {
    let digest = digest(bytes);
    archive.file(&format!("blobs/sha256/{digest}"), 0o644, bytes)?;
    Ok(json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len()}))
}

fn words(command: &[&str]) -> Vec<String> {
    command.iter().map(|word| (*word).to_owned()).collect()
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// The shared libraries of a program, and what loads them.
fn libraries_of(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = exec::run(Command::new("ldd").arg(program), "", PATIENCE)?
        .ok()?
        .stdout;
    let words = listed.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(words.map(PathBuf::from).collect())
}

/// The root file system with nothing but busybox.
fn busybox() -> Result<Tar> {
    let busybox = fs::read(Path::new(BUSYBOX))
        .with_context(|| format!("cannot read {BUSYBOX}\n  install the package busybox-static"))?;
    let mut tar = Tar::new();
    for directory in ["bin", "dev", "etc", "proc", "sys", "tmp", "www"] {
        tar.directory(directory)?;
    }
    tar.file("bin/busybox", 0o755, &busybox)?;
    Ok(tar)
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
