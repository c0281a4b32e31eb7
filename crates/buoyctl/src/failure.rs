//! How a command fails: what people are told, and the exit code.

use buoy_core::store::{Bad, StoreError};

/// Why a command did not do what it was asked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// The command itself is wrong: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// It could not be done: exit code 1.
    #[error("{0}")]
    Failed(String),
}

impl Failure {
    /// A failure with a message of our own.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    /// The same failure, said of something.
    pub(crate) fn of(self, subject: &str) -> Self {
        match self {
            Self::Usage(message) => Self::Usage(format!("{subject}: {message}")),
            Self::Failed(message) => Self::Failed(format!("{subject}: {message}")),
        }
    }

    /// 1 or 2.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.message)
    }
}

impl From<Bad> for Failure {
    fn from(bad: Bad) -> Self {
        Self::Failed(bad.to_string())
    }
}
