//! Names that a runtime gives: container, interface, network, namespace and pod.
//!
//! The rules and the messages follow the CNI specification and its reference library, with one addition: a bound on
//! the length of a container's name, because it becomes part of a file name and of a link's alias.

use crate::error::{CniError, ErrorCode};

/// Longest accepted container ID, in bytes: with interface name and suffix it must fit a file name of 255 bytes.
pub const MAX_CONTAINER_ID: usize = 190;

/// Longest accepted interface name, in bytes (the kernel's `IFNAMSIZ` without the final zero).
pub const MAX_IFNAME: usize = 15;

/// Longest accepted name of a pod or of a namespace, in bytes.
pub const MAX_NAME: usize = 253;

/// Checks `CNI_CONTAINERID`. Error: code 4.
pub fn check_container_id(id: &str) -> Result<(), CniError> {
    let bad = |msg: &str, hint: &str| Err(CniError::new(ErrorCode::INVALID_ENVIRONMENT, msg).with_hint(hint));
    if id.is_empty() {
        return bad("missing containerID", "set CNI_CONTAINERID");
    }
    if !is_word(id) {
        return bad("invalid characters in containerID", id);
    }
    if id.len() > MAX_CONTAINER_ID {
        return bad(
            "containerID is too long",
            &format!("at most {MAX_CONTAINER_ID} characters"),
        );
    }
    Ok(())
}

/// Checks `CNI_IFNAME`. Error: code 4.
pub fn check_ifname(name: &str) -> Result<(), CniError> {
    let bad = |msg: &str, hint: &str| Err(CniError::new(ErrorCode::INVALID_ENVIRONMENT, msg).with_hint(hint));
    if name.is_empty() {
        return bad("interface name is empty", "set CNI_IFNAME");
    }
    if name.len() > MAX_IFNAME {
        return bad(
            "interface name is too long",
            "interface name should be less than 16 characters",
        );
    }
    if name == "." || name == ".." {
        return bad("interface name is . or ..", "set CNI_IFNAME to another name");
    }
    if name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control()) {
        return bad(
            "interface name contains / or : or whitespace characters",
            "set CNI_IFNAME to another name",
        );
    }
    Ok(())
}

/// Checks `name` of the network configuration. Error: code 7.
pub fn check_network_name(name: &str) -> Result<(), CniError> {
    let bad = |msg: &str, hint: &str| Err(CniError::new(ErrorCode::INVALID_CONFIG, msg).with_hint(hint));
    if name.is_empty() {
        return bad(
            "missing network name",
            "set the key `name` of the network configuration",
        );
    }
    if !is_word(name) {
        return bad("invalid characters found in network name", name);
    }
    Ok(())
}

/// Whether a namespace's or a pod's name is safe as a part of a record's key.
pub fn is_name(name: &str) -> bool {
    is_word(name) && name.len() <= MAX_NAME
}

/// The file name, without directory, of whatever is kept about one attachment: unambiguous, because the last `-` of
/// the stem always separates container and interface.
///
/// Both names must have passed [`check_container_id`] and [`check_ifname`].
pub fn attachment_file_name(container_id: &str, ifname: &str) -> String {
    let ifname = ifname.replace('%', "%25").replace('-', "%2D");
    format!("{container_id}-{ifname}.json")
}

/// A letter or digit, then letters, digits, `_`, `.` and `-`.
fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_ids() {
        for good in ["a", "0123abc", "default-0f.e_d", &"f".repeat(MAX_CONTAINER_ID)] {
            assert_eq!(check_container_id(good), Ok(()));
        }
        for bad in [
            "",
            "-a",
            ".",
            "../up",
            "a/b",
            "a b",
            "ä",
            "a\0",
            &"f".repeat(MAX_CONTAINER_ID + 1),
        ] {
            assert_eq!(
                check_container_id(bad).unwrap_err().code,
                ErrorCode::INVALID_ENVIRONMENT,
                "{bad:?}"
            );
        }
    }

    #[test]
    fn interface_names() {
        for good in ["eth0", "net-1", "a.b", "123456789012345"] {
            assert_eq!(check_ifname(good), Ok(()));
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a:b",
            "a b",
            "a\n",
            "a\0",
            "1234567890123456",
        ] {
            assert_eq!(
                check_ifname(bad).unwrap_err().code,
                ErrorCode::INVALID_ENVIRONMENT,
                "{bad:?}"
            );
        }
    }

    #[test]
    fn network_names() {
        assert_eq!(check_network_name("pods.v1_a-b"), Ok(()));
        assert_eq!(check_network_name("").unwrap_err().msg, "missing network name");
        assert_eq!(
            check_network_name("bad name!").unwrap_err().code,
            ErrorCode::INVALID_CONFIG
        );
    }

    #[test]
    fn attachment_files_of_different_attachments_differ() {
        assert_eq!(attachment_file_name("c1", "eth0"), "c1-eth0.json");
        assert_ne!(attachment_file_name("a-b", "c"), attachment_file_name("a", "b-c"));
        assert_ne!(attachment_file_name("a", "%2D"), attachment_file_name("a", "-"));
        let longest = attachment_file_name(&"c".repeat(MAX_CONTAINER_ID), &"-".repeat(MAX_IFNAME));
        assert!(longest.len() <= 245, "{}", longest.len());
    }
}
