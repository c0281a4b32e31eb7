//! The envelope that all resources share.

use std::fmt::Debug;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::meta::{Extra, ObjectMeta};

/// What distinguishes one kind of resource from another. Implemented by the `spec` type.
pub trait Kind: Clone + Debug + PartialEq + Serialize + DeserializeOwned {
    /// Type of `status`; [`Extra`] where this project has none of its own.
    type Status: Clone + Debug + Default + PartialEq + Serialize + DeserializeOwned;
    /// `apiVersion`.
    const API_VERSION: &'static str;
    /// `kind`.
    const KIND: &'static str;
    /// Lower-case plural, as in URLs and keys.
    const PLURAL: &'static str;
    /// Whether it lives in a namespace.
    const NAMESPACED: bool = false;
}

/// `projectcalico.org/v3`.
pub const CALICO_V3: &str = "projectcalico.org/v3";
/// `buoy.dev/v1alpha1`.
pub const BUOY_V1ALPHA1: &str = "buoy.dev/v1alpha1";

/// A resource: metadata, spec and status.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource<S: Kind> {
    /// Name, labels, annotations.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: S,
    /// What is.
    pub status: S::Status,
    /// Unknown top-level fields.
    pub extra: Extra,
}

impl<S: Kind> Resource<S> {
    /// A resource with an empty status.
    pub fn new(metadata: ObjectMeta, spec: S) -> Self {
        Self {
            metadata,
            spec,
            status: S::Status::default(),
            extra: Extra::new(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire<S, T> {
    kind: String,
    api_version: String,
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    spec: Option<S>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<T>,
    #[serde(flatten)]
    extra: Extra,
}

impl<S: Kind> Serialize for Resource<S> {
    fn serialize<W: Serializer>(&self, serializer: W) -> Result<W::Ok, W::Error> {
        Wire {
            kind: S::KIND.to_owned(),
            api_version: S::API_VERSION.to_owned(),
            metadata: self.metadata.clone(),
            spec: Some(&self.spec),
            status: (self.status != S::Status::default()).then_some(&self.status),
            extra: self.extra.clone(),
        }
        .serialize(serializer)
    }
}

impl<'de, S: Kind> Deserialize<'de> for Resource<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Wire::<S, S::Status>::deserialize(deserializer)?;
        if wire.kind != S::KIND || wire.api_version != S::API_VERSION {
            return Err(serde::de::Error::custom(format!(
                "expected {} of {}, found {} of {}",
                S::KIND,
                S::API_VERSION,
                wire.kind,
                wire.api_version
            )));
        }
        let spec = match wire.spec {
            Some(spec) => spec,
            None => {
                S::deserialize(serde_json::Value::Object(Extra::new())).map_err(serde::de::Error::custom)?
            }
        };
        Ok(Self {
            metadata: wire.metadata,
            spec,
            status: wire.status.unwrap_or_default(),
            extra: wire.extra,
        })
    }
}
