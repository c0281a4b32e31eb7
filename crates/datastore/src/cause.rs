//! Why a server's client failed, before it is an error of a store.

use std::fmt::Display;

use buoy_core::store::{FailureKind, StoreError};

/// What kind of failure, and why, for people: the reason, and a hint on its own line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(crate) kind: FailureKind,
    pub(crate) reason: String,
}

impl Cause {
    pub(crate) fn unavailable(reason: impl Display, hint: &str) -> Self {
        Self {
            kind: FailureKind::Unavailable,
            reason: format!("{reason}\n{hint}"),
        }
    }

    pub(crate) fn refused(reason: impl Display) -> Self {
        Self {
            kind: FailureKind::Refused,
            reason: reason.to_string(),
        }
    }

    pub(crate) fn invalid(reason: impl Display) -> Self {
        Self {
            kind: FailureKind::Invalid,
            reason: reason.to_string(),
        }
    }

    /// A record that is not kept for its size.
    pub(crate) fn too_large(reason: impl Display) -> Self {
        Self::invalid(format!(
            "the record is too large: {reason}\nmake several records of it"
        ))
    }

    /// As an error of the store of this name.
    pub(crate) fn of(self, store: &str) -> StoreError {
        StoreError {
            kind: self.kind,
            message: format!("{store}: {}", self.reason),
        }
    }
}

/// An error and what it comes from, each once: the parts often repeat their sources.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let part = error.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        source = error.source();
    }
    text
}
