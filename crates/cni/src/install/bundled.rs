//! Plugins of other projects that the image brings along (`portmap`, `loopback`): a node that lacks them gets them, and
//! those that it has are left alone, unless they came from here.
//!
//! Which did is in a record beside them: a name and the inode for each, so that a file which somebody replaced is known
//! to be no longer ours.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error::{Doing, Result};
use super::{PROGRAM, files, place};

/// The record's name.
const RECORD: &str = ".buoy-bundled";

/// What came from here.
#[derive(Debug)]
pub(super) struct Bundled {
    directory: PathBuf,
    inodes: BTreeMap<String, u64>,
}

/// Names and contents of the plugins that the image brings.
pub(super) fn sources(directory: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut sources = Vec::new();
    for path in files(directory)? {
        if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
            sources.push((name.to_owned(), fs::read(&path).doing("read", &path)?));
        }
    }
    Ok(sources)
}

impl Bundled {
    /// Reads the record of a directory of plugins.
    pub(super) fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(RECORD);
        let text = match fs::read_to_string(&path) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                String::new()
            }
            text => text.doing("read", &path)?,
        };
        let line = |line: &str| {
            let (name, inode) = line.split_once(' ')?;
            let is_name = !name.is_empty() && !name.contains('/') && name != "..";
            is_name.then_some((name.to_owned(), inode.parse().ok()?))
        };
        Ok(Self {
            directory: directory.to_owned(),
            inodes: text.lines().filter_map(line).collect(),
        })
    }

    /// Puts a plugin there if there is none of its name, or an older one from here. True if it is new.
    pub(super) fn install(&mut self, name: &str, program: &[u8]) -> Result<bool> {
        let path = self.directory.join(name);
        let is_there = fs::symlink_metadata(&path).is_ok();
        if is_there && !self.is_from_here(name) {
            return Ok(false);
        }
        if is_there && fs::read(&path).doing("read", &path)? == program {
            return Ok(false);
        }
        if is_there {
            // It is not to be kept as if it were a stranger's.
            fs::remove_file(&path).doing("remove", &path)?;
        }
        place::put(&path, PROGRAM, program)?;
        let inode = inode(&path).unwrap_or_default();
        self.inodes.insert(name.to_owned(), inode);
        self.write()?;
        Ok(true)
    }

    /// Removes all that came from here, and the record. Returns what was removed.
    pub(super) fn remove(self) -> Result<Vec<PathBuf>> {
        let own = self.inodes.keys().filter(|name| self.is_from_here(name));
        let paths: Vec<PathBuf> = own.map(|name| self.directory.join(name)).collect();
        for path in &paths {
            fs::remove_file(path).doing("remove", path)?;
        }
        let record = self.directory.join(RECORD);
        match fs::remove_file(&record) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error).doing("remove", &record)?,
            _ => {}
        }
        Ok(paths)
    }

    fn is_from_here(&self, name: &str) -> bool {
        let known = self.inodes.get(name);
        known.is_some() && inode(&self.directory.join(name)).as_ref() == known
    }

    fn write(&self) -> Result<()> {
        let lines = self
            .inodes
            .iter()
            .map(|(name, inode)| format!("{name} {inode}\n"));
        let path = self.directory.join(RECORD);
        let unfinished = self.directory.join(format!("{RECORD}{}", place::UNFINISHED));
        fs::write(&unfinished, lines.collect::<String>())
            .and_then(|()| fs::rename(&unfinished, &path))
            .doing("write", &path)
    }
}

fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|found| found.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_gets_what_it_lacks_and_keeps_what_is_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("loopback"), "the node's").unwrap();
        let mut bundled = Bundled::read(dir.path()).unwrap();
        assert!(bundled.install("portmap", b"1").unwrap());
        assert!(!bundled.install("loopback", b"1").unwrap());
        let mut bundled = Bundled::read(dir.path()).unwrap();
        assert!(!bundled.install("portmap", b"1").unwrap());
        assert!(bundled.install("portmap", b"2").unwrap());
        assert_eq!(fs::read(path("portmap")).unwrap(), b"2");
        let removed = Bundled::read(dir.path()).unwrap().remove().unwrap();
        assert_eq!(removed, [path("portmap")]);
        let left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(left, ["loopback"]);
    }

    #[test]
    fn what_somebody_replaced_is_theirs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("portmap");
        Bundled::read(dir.path())
            .unwrap()
            .install("portmap", b"1")
            .unwrap();
        fs::write(dir.path().join("new"), "a package's").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        let mut bundled = Bundled::read(dir.path()).unwrap();
        assert!(!bundled.install("portmap", b"2").unwrap());
        assert!(bundled.remove().unwrap().is_empty());
        assert_eq!(fs::read(&path).unwrap(), b"a package's");
    }
}
