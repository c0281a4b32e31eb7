//! Plugins of other projects that the image brings along (`portmap`, `loopback`): a node that lacks them gets them, and
//! those that it has are left alone, unless they came from here.
//!
//! Which did is in a record beside them: a name and a [`Trace`] for each, so that a file which somebody replaced or wrote
//! over is known to be no longer ours. A program is in the record before it is at its place, beside the one that is there
//! until then: whenever an installation ends, what is there is known.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::error::{Doing, Result};
use super::place::{self, Unfinished};
use super::{PROGRAM, files};

/// The record's name.
const RECORD: &str = ".buoy-bundled";
/// Everybody may know what came from here.
const PUBLIC: u32 = 0o644;

/// What came from here.
#[derive(Debug)]
pub(super) struct Bundled {
    directory: PathBuf,
    traces: BTreeMap<String, BTreeSet<Trace>>,
}

/// What a file keeps when it is renamed, and what whoever replaces it or writes into it changes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Trace {
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds since 1970.
    modified: (i64, i64),
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
        let mut traces: BTreeMap<String, BTreeSet<Trace>> = BTreeMap::new();
        let words = text.lines().filter_map(|line| line.split_once(' '));
        for (name, trace) in words.filter(|(name, _)| is_name(name)) {
            if let Ok(trace) = trace.parse() {
                traces.entry(name.to_owned()).or_default().insert(trace);
            }
        }
        Ok(Self {
            directory: directory.to_owned(),
            traces,
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
        let (unfinished, trace) = self.prepare(name, program)?;
        unfinished.put_in_place()?;
        self.traces.insert(name.to_owned(), BTreeSet::from([trace]));
        self.write()?;
        Ok(true)
    }

    /// All but the last step: the record knows the program that is there and the one that is to be.
    fn prepare(&mut self, name: &str, program: &[u8]) -> Result<(Unfinished, Trace)> {
        let unfinished = Unfinished::write(&self.directory.join(name), PROGRAM, program)?;
        let trace = Trace::of(&unfinished.metadata()?);
        self.traces
            .entry(name.to_owned())
            .or_default()
            .insert(trace.clone());
        self.write()?;
        Ok((unfinished, trace))
    }

    /// Removes all that came from here, and the record. Returns what was removed.
    pub(super) fn remove(self) -> Result<Vec<PathBuf>> {
        let own = self.traces.keys().filter(|name| self.is_from_here(name));
        let paths: Vec<PathBuf> = own.map(|name| self.directory.join(name)).collect();
        for path in &paths {
            fs::remove_file(path).doing("remove", path)?;
        }
        let record = self.directory.join(RECORD);
        place::remove_any(&record).doing("remove", &record)?;
        Ok(paths)
    }

    fn is_from_here(&self, name: &str) -> bool {
        let found = fs::symlink_metadata(self.directory.join(name));
        let traces = self.traces.get(name);
        traces.is_some_and(|traces| found.is_ok_and(|found| traces.contains(&Trace::of(&found))))
    }

    fn write(&self) -> Result<()> {
        let each = self.traces.iter();
        let lines =
            each.flat_map(|(name, traces)| traces.iter().map(move |trace| format!("{name} {trace}\n")));
        let lines: String = lines.collect();
        Unfinished::write(&self.directory.join(RECORD), PUBLIC, lines.as_bytes())?.put_in_place()
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('/') && name != ".."
}

impl Trace {
    fn of(found: &Metadata) -> Self {
        Self {
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
        }
    }
}

/// As the record has it: four numbers.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanoseconds) = self.modified;
        write!(f, "{} {} {seconds} {nanoseconds}", self.inode, self.size)
    }
}

impl FromStr for Trace {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let numbers: Vec<i64> = text.split(' ').map_while(|word| word.parse().ok()).collect();
        let [inode, size, seconds, nanoseconds] = numbers[..] else {
            return Err(());
        };
        Ok(Self {
            inode: inode.try_into().map_err(drop)?,
            size: size.try_into().map_err(drop)?,
            modified: (seconds, nanoseconds),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let paths = files(directory).unwrap();
        let names = paths.iter().filter_map(|path| path.file_name()?.to_str());
        names.map(str::to_owned).collect()
    }

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
        assert_eq!(names(dir.path()), ["loopback"]);
    }

    #[test]
    fn what_somebody_replaced_or_wrote_over_is_theirs() {
        let replaced = |path: &Path| {
            let new = path.with_extension("new");
            fs::write(&new, "a package's").unwrap();
            fs::rename(new, path).unwrap();
        };
        let written_over = |path: &Path| fs::write(path, "a package's").unwrap();
        let ways: [&dyn Fn(&Path); 2] = [&replaced, &written_over];
        for change in ways {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("portmap");
            let mut bundled = Bundled::read(dir.path()).unwrap();
            assert!(bundled.install("portmap", b"1").unwrap());
            change(&path);
            let mut bundled = Bundled::read(dir.path()).unwrap();
            assert!(!bundled.install("portmap", b"2").unwrap());
            assert!(bundled.remove().unwrap().is_empty());
            assert_eq!(fs::read(&path).unwrap(), b"a package's");
        }
    }

    #[test]
    fn an_installation_that_ends_half_way_knows_what_is_there() {
        for is_in_place in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let mut bundled = Bundled::read(dir.path()).unwrap();
            assert!(bundled.install("portmap", b"1").unwrap());
            let (unfinished, _) = bundled.prepare("portmap", b"2").unwrap();
            match is_in_place {
                true => unfinished.put_in_place().unwrap(),
                // As if it were killed.
                false => std::mem::forget(unfinished),
            }
            let mut bundled = Bundled::read(dir.path()).unwrap();
            assert_eq!(bundled.traces["portmap"].len(), 2);
            assert!(bundled.install("portmap", b"3").unwrap());
            assert_eq!(bundled.traces["portmap"].len(), 1);
            assert_eq!(names(dir.path()), [RECORD, "portmap"]);
        }
    }

    #[test]
    fn what_no_record_says_is_nobody_s() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("portmap"), "1").unwrap();
        for text in [
            "portmap 12\n",
            "portmap 1 2 3 x\n",
            "portmap\n",
            "../portmap 1 2 3 4\n",
        ] {
            fs::write(dir.path().join(RECORD), text).unwrap();
            assert!(Bundled::read(dir.path()).unwrap().traces.is_empty(), "{text}");
        }
    }
}
