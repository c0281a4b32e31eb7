//! `deploy/image/Containerfile` without an engine: its files are copied, and its command is run, below a directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use buoy_lab::exec;
use serde_json::Value as Json;

const CONTAINERFILE: &str = include_str!("../../../../../deploy/image/Containerfile");

/// Packages may have to be fetched.
const BUILD: Duration = Duration::from_secs(300);

/// An image as a container of it finds it.
#[derive(Debug)]
pub(crate) struct Unpacked {
    pub(crate) root: PathBuf,
    pub(crate) environment: Json,
    pub(crate) entrypoint: Json,
}

impl Unpacked {
    /// Unpacks the layers of an OCI archive into a directory.
    pub(crate) fn from_archive(archive: &Path, directory: &Path) -> Result<Self> {
        let (layout, root) = (directory.join("layout"), directory.join("root"));
        unpack(archive, &layout)?;
        let index = json(&layout.join("index.json"))?;
        let manifest = json(&blob(&layout, &index["manifests"][0])?)?;
        for layer in manifest["layers"].as_array().context("no layers")? {
            unpack(&blob(&layout, layer)?, &root)?;
        }
        let mut config = json(&blob(&layout, &manifest["config"])?)?;
        Ok(Self {
            root,
            environment: config["config"]["Env"].take(),
            entrypoint: config["config"]["Entrypoint"].take(),
        })
    }
}

/// Does what the lines say; `programs` are those in BUILT.
pub(crate) fn build(programs: &Path, directory: &Path) -> Result<Unpacked> {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let below = |path: &str| format!("{}{path}", directory.display());
    let mut made = Unpacked {
        root: PathBuf::new(),
        environment: Json::Null,
        entrypoint: Json::Null,
    };
    for line in CONTAINERFILE.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["COPY", "--from=build", root, "/"] => made.root = below(root).into(),
            ["COPY", "${BUILT}", to] => copy(&programs.join("."), &below(to))?,
            ["COPY", from, to] => copy(&tree.join(from), &below(to))?,
            ["RUN", program, what, built, root] => {
                let mut command = Command::new(below(program));
                command.arg(what).args([below(built), below(root)]);
                exec::run(&mut command, "", BUILD)?.ok()?;
            }
            ["ENV", variable] => made.environment = vec![variable].into(),
            ["ENTRYPOINT", list] => made.entrypoint = serde_json::from_str(list)?,
            [] | ["#" | "FROM" | "ARG" | "LABEL", ..] => {}
            _ => bail!("a line that this test does not know: {line}"),
        }
    }
    Ok(made)
}

/// Into a directory, which is made.
fn copy(from: &Path, directory: &str) -> Result<()> {
    fs::create_dir_all(directory)?;
    let mut command = Command::new("cp");
    command.arg("-R").arg(from).arg(directory);
    exec::run(&mut command, "", BUILD)?.ok().map(drop)
}

fn unpack(archive: &Path, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)?;
    let mut command = Command::new("tar");
    command.arg("-xf").arg(archive).arg("-C").arg(directory);
    exec::run(&mut command, "", BUILD)?.ok().map(drop)
}

/// Where a layout has what a descriptor names.
fn blob(layout: &Path, descriptor: &Json) -> Result<PathBuf> {
    let digest = descriptor["digest"].as_str().context("no digest")?;
    Ok(layout.join("blobs").join(digest.replace(':', "/")))
}

fn json(path: &Path) -> Result<Json> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(serde_json::from_str(&text)?)
}
