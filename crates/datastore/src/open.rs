//! From the setting `datastore` to a store.

use std::path::Path;
use std::sync::Arc;

use buoy_core::store::{FailureKind, StoreError};

use crate::etcd::{self, Etcd};
use crate::kubernetes::{self, Kubernetes};
use crate::redact::redacted;
use crate::sqlite::{self, Sqlite};
use crate::{Datastore, environment};

/// The store of one machine.
const EMBEDDED: &str = "sqlite:///var/lib/buoy/buoy.db";
/// An etcd that the environment names.
const ETCD: &str = "etcd:";
/// The Kubernetes API that the environment names.
const KUBERNETES: &str = "kubernetes:";

/// Opens the store that a setting names: `sqlite:///path`, which is made if it is not there and nobody has it locked, or
/// `etcd://host:port,…` or `kubernetes:/path/to/kubeconfig`, which are not asked yet whether they are there.
pub fn open(url: &str) -> Result<Arc<dyn Datastore>, StoreError> {
    open_for(url, None)
}

/// The same for the agent of a node: where the store can leave out endpoints of other nodes, it does.
pub fn open_for(url: &str, node: Option<&str>) -> Result<Arc<dyn Datastore>, StoreError> {
    if let Some(path) = url.strip_prefix("sqlite://") {
        if !path.starts_with('/') {
            return Err(invalid(format!(
                "datastore is not an absolute path: {}\nwrite it as sqlite:///var/lib/buoy/buoy.db",
                redacted(url)
            )));
        }
        return Ok(Arc::new(Sqlite::open(
            Path::new(path),
            sqlite::Options::default(),
        )?));
    }
    let env = |name: &str| std::env::var(name).ok();
    if url.starts_with("etcd:") {
        return Ok(Arc::new(Etcd::open(url, env, etcd::Options::default())?));
    }
    if url.starts_with("kubernetes:") {
        let options = kubernetes::Options {
            node: node.map(str::to_owned),
            ..kubernetes::Options::default()
        };
        return Ok(Arc::new(Kubernetes::open(url, env, options)?));
    }
    Err(invalid(format!(
        "unknown datastore: {}\nwrite it as sqlite:///path, etcd://host:port or kubernetes:/path/to/kubeconfig",
        redacted(url)
    )))
}

/// The store of whoever names none: the Kubernetes API or the etcd of Calico's environment variables, if they name one, or
/// else the embedded store.
pub fn default_url() -> String {
    default_by(|name| std::env::var(name).ok())
}

fn default_by(env: impl Fn(&str) -> Option<String>) -> String {
    let env = environment::of_calico(env);
    let names_etcd = || {
        let variables = ["ETCD_ENDPOINTS", "ETCD_AUTHORITY"];
        variables.into_iter().any(|name| env(name).is_some())
    };
    let default = match env("DATASTORE_TYPE").as_deref() {
        Some("etcdv3") => ETCD,
        Some("kubernetes") => KUBERNETES,
        None if names_etcd() => ETCD,
        _ => EMBEDDED,
    };
    default.to_owned()
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
        for url in ["consul:", "sqlite://buoy.db", "/var/lib/buoy.db"] {
            let error = open(url).unwrap_err();
            assert_eq!(error.kind, FailureKind::Invalid);
            assert!(error.message.contains(url), "{error}");
            assert!(error.message.contains("sqlite:///"), "{error}");
        }
    }

    #[test]
    fn no_message_shows_a_password() {
        for url in [
            "etcds://me:secret@a",
            "sqlite://me:secret@a",
            "kubernetes:https://me:secret@a",
            "kubernetes:/a?me:secret@a",
            "etcd://me:secret@a:b",
            "etcd://me:?secret@a",
            "etcd://me:secret@b@a:c",
            "etcd://me:secret%ff@a",
        ] {
            let error = open(url).unwrap_err();
            assert_eq!(error.kind, FailureKind::Invalid, "{url}");
            assert!(!error.message.contains("secret"), "{url}: {error}");
        }
    }

    #[test]
    fn an_etcd_is_prepared_and_not_asked() {
        let store = open("etcd://user:secret@192.0.2.1,192.0.2.2:4001?tls=off").unwrap();
        assert_eq!(store.name(), "etcd://192.0.2.1:2379,192.0.2.2:4001");
        let error = open("etcd://192.0.2.1:port").unwrap_err();
        assert_eq!(error.kind, FailureKind::Invalid);
        assert!(error.message.starts_with("not the address of an etcd"), "{error}");
    }

    #[test]
    fn an_api_server_is_prepared_and_not_asked() {
        assert_eq!(open("kubernetes:/a").unwrap().name(), "kubernetes:/a");
        let error = open("kubernetes:a").unwrap_err();
        assert_eq!(error.kind, FailureKind::Invalid);
    }

    #[test]
    fn calico_s_variables_name_the_store_of_whoever_names_none() {
        let default = |env: &[(&str, &str)]| {
            default_by(|wanted| {
                let found = env.iter().find(|(name, _)| *name == wanted);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        let endpoints = ("ETCD_ENDPOINTS", "http://a:2379");
        assert_eq!(default(&[]), "sqlite:///var/lib/buoy/buoy.db");
        assert_eq!(default(&[endpoints]), "etcd:");
        assert_eq!(default(&[("CALICO_ETCD_ENDPOINTS", "http://a:2379")]), "etcd:");
        assert_eq!(default(&[("DATASTORE_TYPE", "etcdv3")]), "etcd:");
        assert_eq!(
            default(&[("DATASTORE_TYPE", ""), ("ETCD_ENDPOINTS", "")]),
            EMBEDDED
        );
        assert_eq!(
            default(&[("DATASTORE_TYPE", "kubernetes"), endpoints]),
            KUBERNETES
        );
        assert_eq!(default(&[("DATASTORE_TYPE", "other"), endpoints]), EMBEDDED);
    }

    #[test]
    fn a_path_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", dir.path().join("deep/er/buoy.db").display());
        assert_eq!(open(&url).unwrap().name(), url);
    }
}
