//! Versions of the CNI specification that Buoy speaks.
//!
//! A version that is not in [`CniVersion::ALL`] cannot be built, so code behind the parser never meets one.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

use crate::error::{CniError, ErrorCode};

/// A version of the CNI specification; ordered by age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CniVersion {
    /// 0.1.0: result with `ip4` and `ip6`.
    V0_1_0,
    /// 0.2.0: as 0.1.0, with VERSION; what an absent `cniVersion` means.
    V0_2_0,
    /// 0.3.0: result with `interfaces` and `ips`.
    V0_3_0,
    /// 0.3.1: as 0.3.0, with plugin lists.
    V0_3_1,
    /// 0.4.0: adds CHECK.
    V0_4_0,
    /// 1.0.0: `ips` without the key `version`.
    V1_0_0,
    /// 1.1.0: adds GC and STATUS.
    V1_1_0,
}

impl CniVersion {
    /// Every supported version, oldest first: what VERSION advertises.
    pub const ALL: [Self; 7] = [
        Self::V0_1_0,
        Self::V0_2_0,
        Self::V0_3_0,
        Self::V0_3_1,
        Self::V0_4_0,
        Self::V1_0_0,
        Self::V1_1_0,
    ];

    /// The newest supported version.
    pub const LATEST: Self = Self::V1_1_0;

    /// The text of the version, as in `cniVersion`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// Whether results of this version have the form with `ip4` and `ip6`.
    pub const fn has_legacy_result(self) -> bool {
        matches!(self, Self::V0_1_0 | Self::V0_2_0)
    }

    /// Whether CHECK exists in this version.
    pub fn allows_check(self) -> bool {
        self >= Self::V0_4_0
    }

    /// Whether GC and STATUS exist in this version.
    pub fn allows_gc_and_status(self) -> bool {
        self >= Self::V1_1_0
    }
}

impl fmt::Display for CniVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for CniVersion {
    type Err = CniError;

    /// Parses `cniVersion`; the empty string means 0.2.0. Error: code 1, naming what is supported.
    fn from_str(text: &str) -> Result<Self, CniError> {
        if text.is_empty() {
            return Ok(Self::V0_2_0);
        }
        Self::ALL
            .into_iter()
            .find(|version| version.as_str() == text)
            .ok_or_else(|| {
                let supported = Self::ALL.map(Self::as_str).join(", ");
                CniError::new(ErrorCode::INCOMPATIBLE_VERSION, "incompatible CNI versions")
                    .with_hint(format!("config is {text:?}, plugin supports: {supported}"))
            })
    }
}

/// The answer to the VERSION command.
pub fn version_output() -> Value {
    json!({
        "cniVersion": CniVersion::LATEST.as_str(),
        "supportedVersions": CniVersion::ALL.map(CniVersion::as_str),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_parses_to_itself_and_is_ordered() {
        for version in CniVersion::ALL {
            assert_eq!(version.as_str().parse(), Ok(version));
        }
        assert!(CniVersion::ALL.is_sorted());
        assert_eq!(CniVersion::ALL.last(), Some(&CniVersion::LATEST));
    }

    #[test]
    fn an_absent_version_is_0_2_0() {
        assert_eq!("".parse(), Ok(CniVersion::V0_2_0));
    }

    #[test]
    fn an_unknown_version_is_code_1_and_names_both_sides() {
        for text in ["1.2.0", "2.0.0", "0.0.0", "1.0", "v1.0.0", " 1.0.0"] {
            let error = text.parse::<CniVersion>().unwrap_err();
            assert_eq!(error.code, ErrorCode::INCOMPATIBLE_VERSION);
            assert!(
                error.details.contains(text) && error.details.contains("1.1.0"),
                "{error:?}"
            );
        }
    }

    #[test]
    fn commands_follow_the_version() {
        assert!(!CniVersion::V0_3_1.allows_check() && CniVersion::V0_4_0.allows_check());
        assert!(!CniVersion::V1_0_0.allows_gc_and_status() && CniVersion::V1_1_0.allows_gc_and_status());
    }

    #[test]
    fn version_output_lists_what_is_supported() {
        assert_eq!(
            version_output(),
            json!({"cniVersion": "1.1.0",
                   "supportedVersions": ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]})
        );
    }
}
