//! Secrets that records name, as files: `<directory>/<secret>/<key>`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use buoy_api::v3::SecretKeyRef;
use buoy_core::bird::Secret;

use crate::files;

/// Reads those that are named. What is wrong with one is said in its place.
pub(crate) fn read(
    directory: &Path,
    named: BTreeSet<SecretKeyRef>,
) -> BTreeMap<SecretKeyRef, Result<Secret, String>> {
    named
        .into_iter()
        .map(|key| {
            let secret = read_one(directory, &key);
            (key, secret)
        })
        .collect()
}

fn read_one(directory: &Path, key: &SecretKeyRef) -> Result<Secret, String> {
    let file = path(directory, key).ok_or("not names of a directory and a file")?;
    // In Kubernetes a secret's files are links.
    let real = file
        .canonicalize()
        .map_err(|e| format!("no file {}: {e}", file.display()))?;
    let bytes = files::read(&real).map_err(|e| format!("read: {}: {e}", file.display()))?;
    let text = String::from_utf8(bytes).map_err(|_| format!("not text: {}", file.display()))?;
    Secret::new(text.trim_end_matches(['\n', '\r']))
}

/// Names are of one part each: a record reaches no other file.
fn path(directory: &Path, key: &SecretKeyRef) -> Option<PathBuf> {
    let is_plain = |name: &str| {
        let mut parts = Path::new(name).components();
        matches!(parts.next(), Some(Component::Normal(part)) if part == name) && parts.next().is_none()
    };
    (is_plain(&key.name) && is_plain(&key.key)).then(|| directory.join(&key.name).join(&key.key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, key: &str) -> SecretKeyRef {
        SecretKeyRef {
            name: name.to_owned(),
            key: key.to_owned(),
        }
    }

    #[test]
    fn a_record_reaches_no_other_file() {
        let directory = Path::new("/etc/buoy/secrets");
        let good = path(directory, &key("bgp", "password"));
        assert_eq!(good, Some("/etc/buoy/secrets/bgp/password".into()));
        for (name, entry) in [
            ("..", "x"),
            ("a/b", "x"),
            ("/etc", "shadow"),
            ("a", ""),
            (".", "x"),
            ("a", "b/"),
        ] {
            assert_eq!(path(directory, &key(name, entry)), None, "{name} {entry}");
        }
    }

    #[test]
    fn what_is_wrong_with_one_is_said() {
        let directory = std::env::temp_dir().join(format!("buoy-secrets-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(directory.join("bgp")).unwrap();
        std::fs::write(directory.join("bgp/good"), "s3cret\n").unwrap();
        std::fs::write(directory.join("bgp/bad"), "\"; quit").unwrap();
        let named = ["good", "bad", "absent"].map(|entry| key("bgp", entry));
        let read = read(&directory, BTreeSet::from(named.clone()));
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(read[&named[0]], Secret::new("s3cret"));
        assert!(
            read[&named[1]]
                .as_ref()
                .is_err_and(|why| why.contains("quotation mark"))
        );
        assert!(read[&named[2]].as_ref().is_err_and(|why| why.contains("no file")));
    }
}
