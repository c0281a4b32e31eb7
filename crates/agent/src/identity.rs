//! Who this agent is, apart from its node's name: two agents may be given one name by mistake.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};

/// The file's name.
const FILE: &str = "identity";

/// Whether an agent has worked with a state directory before.
pub(crate) fn is_made(state_dir: &Path) -> bool {
    state_dir.join(FILE).exists()
}

/// The identity kept in a state directory; made once, if there is none. It holds the node's lease.
pub(crate) fn of(state_dir: &Path) -> Result<String> {
    let path = state_dir.join(FILE);
    match fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        // Written half by an agent that was killed: nothing holds a lease by it.
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("read: {}", path.display())),
    }
    let identity = uuid::Uuid::new_v4().simple().to_string();
    let new = path.with_extension("new");
    fs::write(&new, &identity)
        .and_then(|()| fs::rename(&new, &path))
        .with_context(|| format!("write: {}", path.display()))?;
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_made_once_and_anew_where_half_of_one_was_left() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_made(dir.path()));
        let made = of(dir.path()).unwrap();
        assert!(is_made(dir.path()));
        assert_eq!(of(dir.path()).unwrap(), made);
        fs::write(dir.path().join(FILE), "").unwrap();
        assert_ne!(of(dir.path()).unwrap(), made);
        assert!(of(&dir.path().join("nowhere")).is_err());
    }
}
