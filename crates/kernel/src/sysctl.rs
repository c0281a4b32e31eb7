//! Sysctls of the calling thread's network namespace, as files below `/proc/sys`.
//!
//! A container without privileges sees them read-only. Its manifest mounts the node's `/proc/sys/net` at
//! [`MOUNTED`], which shows the thread's namespace as well.
//!
//! `/proc/sys/net` shows the namespace of the thread that opens a file, so a workload's are written inside
//! [`crate::netns::in_netns`]. Keys are given with slashes (`net/ipv4/conf/eth0.10/forwarding`), where a dot is
//! part of a name, or with dots (`net.ipv4.ip_forward`), where a slash stands for a dot as `sysctl(8)` has it.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use crate::error::{Doing, Error, Result};

/// Where sysctls are.
const ROOT: &str = "/proc/sys";

/// Where they are mounted in a container; of these there is only `net`.
pub const MOUNTED: &str = "/host/proc/sys";

/// What begins the keys of network namespaces.
const NET: &str = "net";

/// Reads a value, without the line's end.
///
/// # Errors
/// [`Error::is_not_found`] when this kernel or namespace has no such key.
pub fn read(key: &str) -> Result<String> {
    let path = path_of(key)?;
    let mut value = String::new();
    File::open(&path)
        .and_then(|mut file| file.read_to_string(&mut value))
        .doing(|| format!("read sysctl {key}"))?;
    value.truncate(value.trim_end().len());
    Ok(value)
}

/// Writes a value.
///
/// # Errors
/// [`Error::is_not_found`] when this kernel or namespace has no such key.
pub fn write(key: &str, value: &str) -> Result<()> {
    let path = path_of(key)?;
    OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .doing(|| format!("set sysctl {key} to {value}"))
}

/// Writes a value unless it is there already, and tells the one that was there before.
///
/// Some keys (`forwarding`, `disable_ipv6`) take the kernel's global network lock when written, even with the
/// value they have; reading does not.
///
/// # Errors
/// As [`write`].
pub fn ensure(key: &str, value: &str) -> Result<String> {
    let before = read(key)?;
    if before != value {
        write(key, value)?;
    }
    Ok(before)
}

/// Path of a key; refuses what would lead out of `/proc/sys`.
fn path_of(key: &str) -> Result<PathBuf> {
    let first_separator = key.chars().find(|c| matches!(c, '.' | '/'));
    let slashed: String = match first_separator {
        Some('.') => key.chars().map(swap_separator).collect(),
        _ => key.to_owned(),
    };
    let is_name = |part: &str| !part.is_empty() && part != "." && part != "..";
    if slashed.split('/').all(is_name) && !slashed.contains('\0') {
        Ok(root_of(&slashed).join(slashed))
    } else {
        Err(Error::Invalid(format!("not a sysctl key: {key:?}")))
    }
}

fn root_of(slashed: &str) -> &'static Path {
    static NET_ROOT: OnceLock<&str> = OnceLock::new();
    let is_mounted = || Path::new(MOUNTED).join(NET).is_dir();
    let net_root = NET_ROOT.get_or_init(|| if is_mounted() { MOUNTED } else { ROOT });
    let is_net = slashed.split('/').next() == Some(NET);
    Path::new(if is_net { *net_root } else { ROOT })
}

fn swap_separator(c: char) -> char {
    match c {
        '.' => '/',
        '/' => '.',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(key: &str) -> Option<String> {
        path_of(key).ok().map(|path| path.display().to_string())
    }

    #[test]
    fn keys_with_dots_and_with_slashes_name_the_same_file() {
        let file = Some("/proc/sys/net/ipv4/ip_forward".to_owned());
        assert_eq!(path("net.ipv4.ip_forward"), file);
        assert_eq!(path("net/ipv4/ip_forward"), file);
    }

    #[test]
    fn an_interface_name_may_have_a_dot() {
        let file = Some("/proc/sys/net/ipv4/conf/eth0.10/forwarding".to_owned());
        assert_eq!(path("net/ipv4/conf/eth0.10/forwarding"), file);
        assert_eq!(path("net.ipv4.conf.eth0/10.forwarding"), file);
    }

    #[test]
    fn a_key_cannot_lead_out() {
        for key in [
            "",
            "/etc/passwd",
            "net/../../etc/passwd",
            "net//ipv4",
            "net.ipv4..x",
            "net/ipv4/\0",
        ] {
            assert_eq!(path(key), None, "{key:?} must be refused");
        }
    }
}
