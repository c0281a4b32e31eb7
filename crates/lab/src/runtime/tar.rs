//! A writer of tar archives (POSIX ustar): directories, files, symbolic links, all of root.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};

const BLOCK: usize = 512;

/// An archive being written.
#[derive(Debug, Default)]
pub(crate) struct Tar {
    bytes: Vec<u8>,
}

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a directory.
    pub(crate) fn directory(&mut self, path: &str) -> Result<&mut Self> {
        self.entry(b'5', path, 0o755, "", &[])
    }

    /// Adds a file.
    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<&mut Self> {
        self.entry(b'0', path, mode, "", content)
    }

    /// Adds a symbolic link.
    pub(crate) fn symlink(&mut self, path: &str, target: &str) -> Result<&mut Self> {
        self.entry(b'2', path, 0o777, target, &[])
    }

    /// Adds what is in a directory, in order of the names, below `prefix` (empty, or with a slash at its end).
    pub(crate) fn content_of(&mut self, directory: &Path, prefix: &str) -> Result<&mut Self> {
        let listed: std::io::Result<Vec<_>> = fs::read_dir(directory)
            .with_context(|| format!("cannot read {}", directory.display()))?
            .collect();
        let mut entries = listed?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let found = entry.metadata()?;
            if found.is_dir() {
                self.directory(&path)?
                    .content_of(&entry.path(), &format!("{path}/"))?;
            } else if found.is_symlink() {
                self.symlink(&path, &fs::read_link(entry.path())?.to_string_lossy())?;
            } else {
                self.file(
                    &path,
                    found.permissions().mode() & 0o7777,
                    &fs::read(entry.path())?,
                )?;
            }
        }
        Ok(self)
    }

    /// The archive, with the two empty blocks that end it.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes
    }

    fn entry(&mut self, kind: u8, path: &str, mode: u32, target: &str, content: &[u8]) -> Result<&mut Self> {
        ensure!(
            path.len() <= 100 && target.len() <= 100,
            "path too long for tar: {path}"
        );
        let mut header = [0; BLOCK];
        put(&mut header, 0, path.as_bytes());
        put(&mut header, 100, format!("{mode:07o}").as_bytes());
        put(&mut header, 108, b"0000000");
        put(&mut header, 116, b"0000000");
        put(&mut header, 124, format!("{:011o}", content.len()).as_bytes());
        put(&mut header, 136, b"00000000000");
        // The checksum counts its own field as blanks.
        put(&mut header, 148, b"        ");
        put(&mut header, 156, &[kind]);
        put(&mut header, 157, target.as_bytes());
        put(&mut header, 257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        put(&mut header, 148, format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK), 0);
        Ok(self)
    }
}

fn put(header: &mut [u8; BLOCK], at: usize, field: &[u8]) {
    header[at..at + field.len()].copy_from_slice(field);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    #[test]
    fn gnu_tar_reads_it() {
        let mut tar = Tar::new();
        tar.directory("bin").unwrap();
        tar.file("bin/tool", 0o755, &[7; 700]).unwrap();
        tar.symlink("bin/name", "tool").unwrap();
        let mut child = Command::new("tar")
            .args(["-tvf", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&tar.finish()).unwrap();
        let output = child.wait_with_output().unwrap();
        let listed = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success());
        let lines: Vec<&str> = listed.lines().collect();
        assert_eq!(lines.len(), 3, "{listed}");
        assert!(
            lines[0].starts_with("drwxr-xr-x") && lines[0].ends_with(" bin"),
            "{listed}"
        );
        assert!(
            lines[1].starts_with("-rwxr-xr-x") && lines[1].contains(" 700 "),
            "{listed}"
        );
        assert!(lines[2].ends_with("bin/name -> tool"), "{listed}");
    }

    #[test]
    fn a_long_path_is_refused() {
        assert!(Tar::new().directory(&"x".repeat(101)).is_err());
    }
}
