//! Images that every node has, and any further one as an OCI archive.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Cluster;
use crate::binaries::Binaries;
use crate::runtime::oci::Image;

/// What holds a pod's namespaces.
pub(crate) const PAUSE: &str = "docker.io/buoy-lab/pause:1";

/// A shell with the usual commands, for pods of tests.
pub const BUSYBOX: &str = crate::runtime::IMAGE;

/// The same with servers that answer every question with the pod's name ([`crate::probe::Server`]): made by
/// [`Cluster::import_server`].
pub const SERVER: &str = "docker.io/buoy-lab/server:1";

impl Cluster {
    /// Gives all nodes the image [`SERVER`].
    pub fn import_server(&self) -> Result<()> {
        let lab = Binaries::find()?.lab;
        let image = Image::with_programs(SERVER, &["/bin/buoy-lab", "serve"], &[&lab])?;
        self.import(&write(image, &self.run().base().join("images/server.tar"))?)
    }
}

/// Writes the archives of what every node has.
pub(crate) fn standard(directory: &Path) -> Result<Vec<PathBuf>> {
    let images = [
        ("pause.tar", Image::pause(PAUSE)?),
        ("busybox.tar", Image::busybox(BUSYBOX)?),
    ];
    let written = images
        .into_iter()
        .map(|(file, image)| write(image, &directory.join(file)));
    written.collect()
}

/// Writes an archive with a directory's content as the root file system, all of root.
pub fn from_directory(name: &str, command: &[&str], root: &Path, archive: &Path) -> Result<()> {
    write(Image::of_directory(name, command, root)?, archive).map(drop)
}

fn write(image: Image, archive: &Path) -> Result<PathBuf> {
    if let Some(directory) = archive.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(archive, image.archive()?).with_context(|| format!("cannot write {}", archive.display()))?;
    Ok(archive.to_owned())
}
