//! Where the programs under test are: beside the program that runs the lab.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The programs of one build.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// `buoy-agent`.
    pub agent: PathBuf,
    /// `buoy-cni`, which goes by the names `calico` and `calico-ipam`.
    pub cni: PathBuf,
    /// `buoyctl`.
    pub ctl: PathBuf,
    /// `buoy-lab`.
    pub lab: PathBuf,
}

impl Binaries {
    /// Finds them by where this program is; test programs are in `deps` below it. Error: one is not built.
    pub fn find() -> Result<Self> {
        let here = env::current_exe().context("cannot find this program")?;
        let mut directory = here.parent().context("this program has no directory")?;
        if directory.ends_with("deps") {
            directory = directory.parent().unwrap_or(directory);
        }
        Ok(Self {
            agent: built(directory, "buoy-agent")?,
            cni: built(directory, "buoy-cni")?,
            ctl: built(directory, "buoyctl")?,
            lab: built(directory, "buoy-lab")?,
        })
    }
}

fn built(directory: &Path, name: &str) -> Result<PathBuf> {
    let path = directory.join(name);
    ensure!(
        path.is_file(),
        "program not built: {}\n  build it with: cargo build -p buoy-agent -p buoy-cni -p buoyctl -p buoy-lab{}",
        path.display(),
        if directory.ends_with("release") {
            " --release"
        } else {
            ""
        }
    );
    Ok(path)
}
