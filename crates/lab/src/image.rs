//! Buoy's image from the programs under test, by `scripts/image`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::binaries::Binaries;
use crate::exec::{self, PATIENCE};

/// Its name in `deploy/buoy.yaml`.
pub const NAME: &str = concat!("localhost/buoy:", env!("CARGO_PKG_VERSION"));

/// Packages may have to be fetched.
const BUILD: Duration = Duration::from_secs(300);

/// An image that was built.
#[derive(Clone, Debug)]
pub struct Built {
    /// The OCI archive.
    pub archive: PathBuf,
    /// What the script said of it.
    pub said: String,
}

/// Builds it below a directory, by a shell that runs `setting` first.
pub fn build(directory: &Path, setting: &str) -> Result<Built> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/image");
    programs(&directory.join("built"))?;
    let archive = directory.join("buoy.oci.tar");
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{setting}; exec \"$0\" \"$@\"")])
        .arg(script)
        .arg("archive")
        .arg(directory.join("built"))
        .arg(&archive)
        .env("IMAGE", NAME);
    let said = exec::run(&mut command, "", BUILD)?.ok()?.stdout;
    Ok(Built { archive, said })
}

/// The programs of this build, without what is for debuggers.
fn programs(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)?;
    let found = Binaries::find()?;
    let controller = found.agent.with_file_name("buoy-controller");
    for program in [&found.agent, &found.cni, &found.ctl, &controller] {
        let mut strip = Command::new("strip");
        strip
            .arg("-o")
            .arg(directory.join(program.file_name().context("a program without a name")?))
            .arg(program);
        exec::run(&mut strip, "", PATIENCE)?.ok()?;
    }
    Ok(())
}
