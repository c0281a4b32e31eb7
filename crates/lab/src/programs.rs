//! A directory of programs that is an agent's whole `PATH`: without some, or with others in their place.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::node::Node;

/// What an agent calls besides BIRD.
const CALLED: [&str; 3] = ["nft", "nsenter", "sh"];

/// The only programs that a node's agent finds, from its next start on.
#[derive(Clone, Debug)]
pub struct Programs {
    directory: PathBuf,
}

impl Programs {
    /// Gives a node's agent what it calls, without BIRD.
    pub fn of(node: &Node) -> Result<Self> {
        let programs = Self {
            directory: node.directory().join("path"),
        };
        fs::create_dir_all(&programs.directory)?;
        for program in CALLED {
            programs.put(program)?;
        }
        node.set(|settings| settings.path = Some(programs.directory.clone()));
        Ok(programs)
    }

    /// Puts the machine's own program there.
    pub fn put(&self, program: &str) -> Result<()> {
        let file = self.directory.join(program);
        let _ = fs::remove_file(&file);
        symlink(found(program)?, &file).with_context(|| format!("cannot link {}", file.display()))
    }

    /// Puts a script there under the name of a program.
    pub fn write(&self, program: &str, text: &str) -> Result<()> {
        let file = self.directory.join(program);
        let _ = fs::remove_file(&file);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(fs::set_permissions(file, fs::Permissions::from_mode(0o755))?)
    }
}

/// Where a program of the machine is.
pub fn found(program: &str) -> Result<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let places = path.split(':').chain(["/usr/sbin", "/sbin"]);
    let mut files = places.map(|place| Path::new(place).join(program));
    let found = files.find(|file| file.exists());
    found.with_context(|| format!("no program {program}"))
}
