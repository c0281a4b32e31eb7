//! Reading a JSON object key by key, so that an error names the key and what was found there.
//!
//! `null` counts as absent everywhere, as it does for the reference library.

use std::fmt::Display;
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::error::{CniError, ErrorCode};

/// Where a document came from: decides how errors read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    /// What the document is, for people.
    pub(crate) what: &'static str,
    /// The code of errors about its values.
    pub(crate) code: ErrorCode,
    /// What to do about an error.
    pub(crate) hint: &'static str,
}

/// A JSON object with the path that led to it; without a map where the key was absent.
#[derive(Clone, Debug)]
pub(crate) struct Object<'a> {
    map: Option<&'a Map<String, Value>>,
    path: String,
    origin: Origin,
}

impl<'a> Object<'a> {
    pub(crate) fn root(document: &'a Value, origin: Origin) -> Result<Self, CniError> {
        let map = document.as_object().ok_or_else(|| {
            CniError::new(
                origin.code,
                format!("{} is not an object: {}", origin.what, short(document)),
            )
            .with_hint(origin.hint)
        })?;
        Ok(Self {
            map: Some(map),
            path: String::new(),
            origin,
        })
    }

    /// The value under `key`, unless it is absent or `null`.
    pub(crate) fn value(&self, key: &str) -> Option<&'a Value> {
        self.map?.get(key).filter(|value| !value.is_null())
    }

    /// The object under `key`; an empty one if it is absent.
    pub(crate) fn object(&self, key: &str) -> Result<Self, CniError> {
        let map = match self.value(key) {
            None => None,
            Some(value) => Some(
                value
                    .as_object()
                    .ok_or_else(|| self.error(key, "expected an object", value))?,
            ),
        };
        Ok(Self {
            map,
            path: self.join(key),
            origin: self.origin,
        })
    }

    /// The objects of the array under `key`.
    pub(crate) fn objects(&self, key: &str) -> Result<Vec<Self>, CniError> {
        self.array(key)?
            .iter()
            .enumerate()
            .map(|(index, value)| {
                let key = format!("{key}[{index}]");
                let map = value
                    .as_object()
                    .ok_or_else(|| self.error(&key, "expected an object", value))?;
                Ok(Self {
                    map: Some(map),
                    path: self.join(&key),
                    origin: self.origin,
                })
            })
            .collect()
    }

    /// The text under `key`; an empty text counts as absent.
    pub(crate) fn text(&self, key: &str) -> Result<Option<String>, CniError> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        let text = value
            .as_str()
            .ok_or_else(|| self.error(key, "expected a text", value))?;
        Ok(Some(text).filter(|text| !text.is_empty()).map(str::to_owned))
    }

    /// The texts of the array under `key`.
    pub(crate) fn texts(&self, key: &str) -> Result<Vec<String>, CniError> {
        self.array(key)?
            .iter()
            .enumerate()
            .map(|(index, value)| {
                let text = value.as_str().map(str::to_owned);
                text.ok_or_else(|| self.error(&format!("{key}[{index}]"), "expected a text", value))
            })
            .collect()
    }

    /// All entries of this object, as texts.
    pub(crate) fn all_texts(&self) -> Result<Vec<(String, String)>, CniError> {
        self.map
            .into_iter()
            .flatten()
            .map(|(key, value)| {
                let text = value
                    .as_str()
                    .ok_or_else(|| self.error(key, "expected a text", value))?;
                Ok((key.clone(), text.to_owned()))
            })
            .collect()
    }

    /// A boolean, or the texts "true" and "false" (Calico's IPAM keys are texts).
    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool, CniError> {
        match self.value(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(Value::String(text)) if text == "true" => Ok(true),
            Some(Value::String(text)) if text == "false" => Ok(false),
            Some(value) => Err(self.error(key, "expected true or false", value)),
        }
    }

    /// A whole number within `i64`.
    pub(crate) fn integer(&self, key: &str) -> Result<Option<i64>, CniError> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        value
            .as_i64()
            .map(Some)
            .ok_or_else(|| self.error(key, "expected a whole number", value))
    }

    /// A whole number that fits the wanted type.
    pub(crate) fn number<T: TryFrom<i64>>(&self, key: &str) -> Result<Option<T>, CniError> {
        let Some(number) = self.integer(key)? else {
            return Ok(None);
        };
        T::try_from(number)
            .map(Some)
            .map_err(|_| self.invalid(key, format!("out of range: {number}")))
    }

    /// The text under `key`, parsed.
    pub(crate) fn parsed<T>(&self, key: &str) -> Result<Option<T>, CniError>
    where
        T: FromStr,
        T::Err: Display,
    {
        let Some(text) = self.text(key)? else {
            return Ok(None);
        };
        text.parse()
            .map(Some)
            .map_err(|error| self.invalid(key, format!("{error}, got {text:?}")))
    }

    /// An error about the value under `key`.
    pub(crate) fn invalid(&self, key: &str, problem: impl Display) -> CniError {
        let Origin { what, code, hint } = self.origin;
        CniError::new(code, format!("invalid {what}: {}: {problem}", self.join(key))).with_hint(hint)
    }

    fn array(&self, key: &str) -> Result<&'a [Value], CniError> {
        let Some(value) = self.value(key) else {
            return Ok(&[]);
        };
        value
            .as_array()
            .map(Vec::as_slice)
            .ok_or_else(|| self.error(key, "expected a list", value))
    }

    fn error(&self, key: &str, expected: &str, got: &Value) -> CniError {
        self.invalid(key, format!("{expected}, got {}", short(got)))
    }

    fn join(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }
}

/// The value's text, cut to a length that suits a message.
fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}
