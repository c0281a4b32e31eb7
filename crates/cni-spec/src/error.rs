//! The CNI error: what a plugin prints on standard output when it fails.
//!
//! Source: CNI specification 1.1.0, section 5 "Result types", "Error". `msg` says what is wrong, `details` what to do.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A CNI error code: 1–99 belong to the specification, 100 and above to plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ErrorCode(pub u32);

impl ErrorCode {
    /// The plugin does not speak the version of the configuration.
    pub const INCOMPATIBLE_VERSION: Self = Self(1);
    /// A key of the configuration is understood but not supported with this value.
    pub const UNSUPPORTED_FIELD: Self = Self(2);
    /// The container is not known, or does not exist.
    pub const UNKNOWN_CONTAINER: Self = Self(3);
    /// An environment variable of the CNI is missing or bad.
    pub const INVALID_ENVIRONMENT: Self = Self(4);
    /// Reading or writing failed.
    pub const IO: Self = Self(5);
    /// A document did not decode.
    pub const DECODE: Self = Self(6);
    /// The network configuration is not valid.
    pub const INVALID_CONFIG: Self = Self(7);
    /// The network namespace cannot be used (a code of the reference library).
    pub const INVALID_NETNS: Self = Self(8);
    /// A passing condition; the runtime should try again.
    pub const TRY_AGAIN_LATER: Self = Self(11);
    /// STATUS: the plugin cannot serve ADD.
    pub const NOT_AVAILABLE: Self = Self(50);
    /// STATUS: the plugin cannot serve ADD, and existing containers may have limited connectivity.
    pub const NOT_AVAILABLE_LIMITED: Self = Self(51);
    /// Everything else.
    pub const GENERIC: Self = Self(999);
}

/// A failure in the CNI's own form. It is the error type of everything that a container runtime gets to see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct CniError {
    /// Which kind of failure.
    pub code: ErrorCode,
    /// What is wrong: lower case, value after a colon.
    pub msg: String,
    /// What to do about it, or more of the cause; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

impl CniError {
    /// An error without a hint.
    pub fn new(code: ErrorCode, msg: impl Into<String>) -> Self {
        Self {
            code,
            msg: msg.into(),
            details: String::new(),
        }
    }

    /// An error of code 999.
    pub fn generic(msg: impl Into<String>) -> Self {
        Self::new(ErrorCode::GENERIC, msg)
    }

    /// An error of code 11: nothing is wrong with the request, the time is.
    pub fn try_again(msg: impl Into<String>) -> Self {
        Self::new(ErrorCode::TRY_AGAIN_LATER, msg)
    }

    /// The same error with `details`, which say what to do.
    #[must_use]
    pub fn with_hint(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// The error as the document that goes to standard output; `cni_version` as the request had it.
    pub fn to_json(&self, cni_version: &str) -> Value {
        let mut document = json!({"cniVersion": cni_version, "code": self.code, "msg": self.msg});
        if !self.details.is_empty() {
            document["details"] = Value::from(self.details.as_str());
        }
        document
    }

    /// Reads an error that another plugin printed, if the document is one (it has a `code` other than 0).
    pub fn from_json(document: &Value) -> Option<Self> {
        let code = document
            .get("code")?
            .as_u64()
            .and_then(|code| u32::try_from(code).ok())?;
        let text = |key| {
            document
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        (code != 0).then(|| Self {
            code: ErrorCode(code),
            msg: text("msg"),
            details: text("details"),
        })
    }

    /// Whether the runtime should simply try again.
    pub fn is_retryable(&self) -> bool {
        self.code == ErrorCode::TRY_AGAIN_LATER
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.msg)?;
        match self.details.as_str() {
            "" => Ok(()),
            details => write!(f, "\n{details}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_with_and_without_details() {
        let error = CniError::try_again("no agent: /a/b.sock").with_hint("start it");
        assert_eq!(
            error.to_json("0.4.0"),
            json!({"cniVersion": "0.4.0", "code": 11, "msg": "no agent: /a/b.sock", "details": "start it"})
        );
        assert_eq!(
            CniError::generic("x").to_json("1.0.0"),
            json!({"cniVersion": "1.0.0", "code": 999, "msg": "x"})
        );
        assert_eq!(error.to_string(), "no agent: /a/b.sock\nstart it");
    }

    #[test]
    fn reads_back_what_it_renders_and_nothing_else() {
        let error = CniError::new(ErrorCode::IO, "m").with_hint("d");
        assert_eq!(CniError::from_json(&error.to_json("1.0.0")), Some(error));
        for other in [
            json!({"cniVersion": "1.0.0", "ips": []}),
            json!({"code": 0}),
            json!({"code": "7"}),
            json!([7]),
        ] {
            assert_eq!(CniError::from_json(&other), None);
        }
    }
}
