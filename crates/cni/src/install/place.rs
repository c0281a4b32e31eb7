//! Files that come and go whole: nobody ever sees half of one, and what was there before is kept.
//!
//! A file is written beside its place under a name that no runtime reads, brought to the disk, and renamed. A stranger's
//! file at its place is kept under another name first, and given back at the end.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::error::{Doing, Result};
use super::render::MARK;

/// How the name of a kept file ends. Runtimes read `.conf`, `.conflist` and `.json`.
pub(crate) const KEPT: &str = ".before-buoy";
/// How the name of an unfinished file ends; it begins with a dot.
const UNFINISHED: &str = ".buoy-new";
/// How the name of a file that is about to be kept ends; it begins with a dot.
const UNKEPT: &str = ".buoy-old";

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// It was as it should be.
    Unchanged,
    /// It is there, or there anew.
    Written,
    /// It is there, and a stranger's file of this name is kept.
    Replaced,
}

/// A file that is whole, on the disk, and not at its place yet. Dropped before it is, it is removed.
#[derive(Debug)]
pub(super) struct Unfinished {
    path: PathBuf,
    place: PathBuf,
}

impl Unfinished {
    /// Writes a file beside its place.
    pub(super) fn write(place: &Path, mode: u32, content: &[u8]) -> Result<Self> {
        let unfinished = Self {
            path: beside(place, ".", UNFINISHED),
            place: place.to_owned(),
        };
        write(&unfinished.path, mode, content).doing("write", place)?;
        Ok(unfinished)
    }

    /// What the file system says of it; a rename changes none of inode, size and time of modification.
    pub(super) fn metadata(&self) -> Result<fs::Metadata> {
        fs::symlink_metadata(&self.path).doing("look at", &self.path)
    }

    /// Replaces what is at its place, which is never empty meanwhile.
    pub(super) fn put_in_place(self) -> Result<()> {
        fs::rename(&self.path, &self.place).doing("put in its place", &self.place)?;
        sync_directory(&self.place)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Nothing is there once it is in its place.
        let _ = fs::remove_file(&self.path);
    }
}

/// Puts a file at its place.
pub(crate) fn put(path: &Path, mode: u32, content: &[u8]) -> Result<Put> {
    if is_as_wanted(path, mode, content) {
        return Ok(Put::Unchanged);
    }
    let unfinished = Unfinished::write(path, mode, content)?;
    let is_kept = keep(path)?;
    unfinished.put_in_place()?;
    Ok(if is_kept { Put::Replaced } else { Put::Written })
}

/// Removes a file from its place; a stranger's is kept.
pub(crate) fn remove(path: &Path) -> Result<bool> {
    if !exists(path) {
        return Ok(false);
    }
    keep(path)?;
    fs::remove_file(path).doing("remove", path)?;
    sync_directory(path)?;
    Ok(true)
}

/// Gives back what was kept for a place, unless a stranger took the place since. True if it was given back.
pub(crate) fn give_back(path: &Path) -> Result<bool> {
    let kept = beside(path, "", KEPT);
    if !exists(&kept) {
        return Ok(false);
    }
    let is_taken = exists(path) && !is_ours(path).doing("read", path)?;
    match is_taken {
        true => fs::remove_file(&kept).doing("remove", &kept)?,
        false => fs::rename(&kept, path).doing("give back", path)?,
    }
    sync_directory(path)?;
    Ok(!is_taken)
}

/// The place that a kept file is from, by its own path.
pub(crate) fn place_of(kept: &Path) -> Option<PathBuf> {
    let name = kept.file_name()?.to_str()?.strip_suffix(KEPT)?;
    (!name.is_empty()).then(|| kept.with_file_name(name))
}

/// Whether a file is of our making.
pub(crate) fn is_ours(path: &Path) -> io::Result<bool> {
    let mark = MARK.as_bytes();
    let mut file = match File::open(path) {
        // A link that leads nowhere, in this container, is somebody else's.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    let (mut window, mut buffer) = (Vec::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(false),
            read => window.extend_from_slice(&buffer[..read]),
        }
        if window.windows(mark.len()).any(|part| part == mark) {
            return Ok(true);
        }
        // A mark may begin in this part and end in the next.
        window.drain(..window.len().saturating_sub(mark.len()));
    }
}

/// Keeps what is at a place, if it is a stranger's. The place is never empty meanwhile.
fn keep(path: &Path) -> Result<bool> {
    if !exists(path) || is_ours(path).doing("read", path)? {
        return Ok(false);
    }
    let (kept, unkept) = (beside(path, "", KEPT), beside(path, ".", UNKEPT));
    let link = || {
        remove_any(&unkept)?;
        fs::hard_link(path, &unkept)?;
        fs::rename(&unkept, &kept)?;
        // If this very file was kept before, rename does nothing.
        remove_any(&unkept)
    };
    link().doing("keep a copy of", path)?;
    Ok(true)
}

/// Whether a path is one that a killed installation may have left: nothing would be lost with it.
pub(crate) fn is_left_over(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| {
        name.starts_with('.') && [UNFINISHED, UNKEPT].iter().any(|end| name.ends_with(end))
    })
}

/// Removes a file that may not be there.
pub(super) fn remove_any(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// A name in the same directory.
fn beside(path: &Path, before: &str, after: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().display();
    path.with_file_name(format!("{before}{name}{after}"))
}

fn write(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)?;
    file.write_all(content)?;
    // Whatever the umask says.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

fn sync_directory(path: &Path) -> Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    File::open(directory)
        .and_then(|open| open.sync_all())
        .doing("sync", directory)
}

fn is_as_wanted(path: &Path, mode: u32, content: &[u8]) -> bool {
    let found = fs::symlink_metadata(path);
    found.is_ok_and(|found| {
        found.is_file()
            && found.permissions().mode() & 0o7777 == mode
            && found.len() == content.len() as u64
            && fs::read(path).is_ok_and(|there| there == content)
    })
}

/// Also a link that leads nowhere is there.
fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_stranger_s_file_is_kept_and_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.conflist");
        let (ours, newer) = (format!("{MARK} 1"), format!("{MARK} 2"));
        fs::write(&path, "theirs").unwrap();
        assert_eq!(put(&path, 0o600, ours.as_bytes()).unwrap(), Put::Replaced);
        assert_eq!(put(&path, 0o600, ours.as_bytes()).unwrap(), Put::Unchanged);
        assert_eq!(put(&path, 0o600, newer.as_bytes()).unwrap(), Put::Written);
        assert_eq!(names(dir.path()), ["a.conflist", "a.conflist.before-buoy"]);
        assert!(give_back(&path).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
        assert!(!give_back(&path).unwrap());
        assert_eq!(names(dir.path()), ["a.conflist"]);
    }

    /// Whenever a process was killed, the next has its way, and what is left over is known.
    #[test]
    fn what_was_begun_is_finished_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.conflist");
        fs::write(&path, "theirs").unwrap();
        assert!(keep(&path).unwrap());
        assert_eq!(put(&path, 0o600, MARK.as_bytes()).unwrap(), Put::Replaced);
        assert_eq!(names(dir.path()), ["a.conflist", "a.conflist.before-buoy"]);
        let (unfinished, unkept) = (beside(&path, ".", UNFINISHED), beside(&path, ".", UNKEPT));
        for left in [&unfinished, &unkept] {
            fs::write(left, "half").unwrap();
            assert!(is_left_over(left), "{left:?}");
        }
        assert!(!is_left_over(&path) && !is_left_over(&beside(&path, "", KEPT)));
        fs::write(&path, "theirs again").unwrap();
        assert_eq!(put(&path, 0o600, MARK.as_bytes()).unwrap(), Put::Replaced);
        assert_eq!(names(dir.path()), ["a.conflist", "a.conflist.before-buoy"]);
    }

    #[test]
    fn who_came_later_keeps_the_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.conflist");
        fs::write(&path, "first").unwrap();
        put(&path, 0o600, MARK.as_bytes()).unwrap();
        fs::write(&path, "second").unwrap();
        assert!(!give_back(&path).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        assert_eq!(names(dir.path()), ["a.conflist"]);
    }

    #[test]
    fn the_mode_counts_and_a_link_is_kept_as_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("calico");
        std::os::unix::fs::symlink("/nowhere/calico", &path).unwrap();
        assert_eq!(put(&path, 0o755, MARK.as_bytes()).unwrap(), Put::Replaced);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(put(&path, 0o755, MARK.as_bytes()).unwrap(), Put::Written);
        assert!(give_back(&path).unwrap());
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("/nowhere/calico"));
    }

    #[test]
    fn the_mark_is_found_wherever_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        for before in [0, 1, (1 << 20) - 5, 1 << 20, 3 << 20] {
            let mut content = vec![b'b'; before];
            assert!(put(&path, 0o755, &content).is_ok() && !is_ours(&path).unwrap());
            content.extend_from_slice(MARK.as_bytes());
            fs::write(&path, content).unwrap();
            assert!(is_ours(&path).unwrap(), "{before}");
        }
        assert!(!is_ours(&dir.path().join("none")).unwrap());
    }

    #[test]
    fn the_place_of_a_kept_file_is_known_by_its_name() {
        let place = |name: &str| place_of(Path::new(name));
        assert_eq!(place("/a/b.conf.before-buoy"), Some("/a/b.conf".into()));
        assert_eq!(place("/a/b.conf"), None);
        assert_eq!(place("/a/.before-buoy"), None);
    }
}
