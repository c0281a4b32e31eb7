//! From the setting `datastore` to a store.

use std::path::Path;
use std::sync::Arc;

use buoy_core::store::{FailureKind, StoreError};

use crate::Datastore;
use crate::sqlite::{Options, Sqlite};

/// Opens the store that a setting names: `sqlite:///path`. Makes it if it is not there.
pub fn open(url: &str) -> Result<Arc<dyn Datastore>, StoreError> {
    if let Some(path) = url.strip_prefix("sqlite://") {
        if !path.starts_with('/') {
            return Err(invalid(format!(
                "datastore is not an absolute path: {url}\nwrite it as sqlite:///var/lib/buoy/buoy.db"
            )));
        }
        return Ok(Arc::new(Sqlite::open(Path::new(path), Options::default())?));
    }
    if url.starts_with("etcd://") || url.starts_with("kubernetes:") {
        return Err(invalid(format!(
            "datastore is not in this build: {url}\nit has sqlite:///path"
        )));
    }
    Err(invalid(format!(
        "unknown datastore: {url}\nwrite it as sqlite:///path"
    )))
}

fn invalid(message: String) -> StoreError {
    StoreError {
        kind: FailureKind::Invalid,
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_opened_says_what_can() {
        for url in [
            "etcd://10.0.0.1:2379",
            "kubernetes:",
            "sqlite://buoy.db",
            "/var/lib/buoy.db",
        ] {
            let error = open(url).unwrap_err();
            assert_eq!(error.kind, FailureKind::Invalid);
            assert!(error.message.contains(url), "{error}");
            assert!(error.message.contains("sqlite:///"), "{error}");
        }
    }

    #[test]
    fn a_path_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", dir.path().join("deep/er/buoy.db").display());
        assert_eq!(open(&url).unwrap().name(), url);
    }
}
