//! Resources: whole JSON with metadata, spec and status.

use buoy_api::meta::Extra;
use buoy_api::{Kind, ObjectMeta, Resource};
use buoy_core::store::Bad;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::bad;

/// The revision as clients of other stores see it. It is beside the record, never in it.
const RESOURCE_VERSION: &str = "resourceVersion";

pub(super) fn decode<S: Kind>(bytes: &[u8]) -> Result<Resource<S>, Bad> {
    let mut resource: Resource<S> =
        serde_json::from_slice(bytes).map_err(|error| explain_resource::<S>(bytes, &error))?;
    resource.metadata.extra.remove(RESOURCE_VERSION);
    Ok(resource)
}

pub(super) fn encode<S: Kind>(resource: &Resource<S>) -> Result<Extra, Bad> {
    match serde_json::to_value(resource) {
        Ok(Json::Object(mut object)) => {
            if let Some(Json::Object(metadata)) = object.get_mut("metadata") {
                metadata.remove(RESOURCE_VERSION);
            }
            Ok(object)
        }
        Ok(other) => Err(bad(format!("not an object: {other}"))),
        Err(error) => Err(bad(error.to_string())),
    }
}

/// Checks that metadata say what the key says.
pub(super) fn check_name<S: Kind>(
    resource: &Resource<S>,
    namespace: Option<&str>,
    name: &str,
) -> Result<(), Bad> {
    let metadata = &resource.metadata;
    if metadata.name != name {
        return Err(bad(format!(
            "metadata.name: {:?} in the record of {name:?}",
            metadata.name
        )));
    }
    if metadata.namespace.as_deref() != namespace {
        return Err(bad(format!(
            "metadata.namespace: {:?} in a record of {:?}",
            metadata.namespace.as_deref().unwrap_or_default(),
            namespace.unwrap_or_default()
        )));
    }
    Ok(())
}

fn explain_resource<S: Kind>(bytes: &[u8], error: &serde_json::Error) -> Bad {
    let object = match parse_object(bytes) {
        Ok(object) => object,
        Err(reason) => return reason,
    };
    let part = |name: &str| object.get(name).filter(|part| !part.is_null());
    let culprit = culprit::<ObjectMeta>("metadata", part("metadata"))
        .or_else(|| culprit::<S>("spec", part("spec")))
        .or_else(|| culprit::<S::Status>("status", part("status")));
    bad(culprit.unwrap_or_else(|| error.to_string()))
}

/// Reads a record that has no envelope.
pub(super) fn decode_plain<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Bad> {
    serde_json::from_slice(bytes).map_err(|error| match parse_object(bytes) {
        Ok(object) => bad(culprit::<T>("", Some(&Json::Object(object))).unwrap_or_else(|| error.to_string())),
        Err(reason) => reason,
    })
}

fn parse_object(bytes: &[u8]) -> Result<Extra, Bad> {
    match serde_json::from_slice(bytes) {
        Ok(Json::Object(object)) => Ok(object),
        Ok(_) => Err(bad("not a JSON object")),
        Err(error) => Err(bad(format!("not JSON: {error}"))),
    }
}

/// Which field of an object keeps it from being a `T`, and why. serde's own message loses the field, because unknown
/// fields are collected beside the known ones; so each field is tried alone.
fn culprit<T: DeserializeOwned>(at: &str, value: Option<&Json>) -> Option<String> {
    let value = value?;
    let whole = complaint::<T>(value.clone())?;
    let Json::Object(fields) = value else {
        return Some(format!("{at}: {whole}"));
    };
    let dot = if at.is_empty() { "" } else { "." };
    for (name, field) in fields {
        let alone = Extra::from_iter([(name.clone(), field.clone())]);
        let Some(reason) = complaint::<T>(alone.into()) else {
            continue;
        };
        // Alone, a field also lacks its neighbours. What is missing is missing in it if all is well without it.
        let is_lacking = reason.starts_with("missing field");
        let mut others = fields.clone();
        others.remove(name);
        if !is_lacking || complaint::<T>(others.into()).is_none() {
            return Some(format!("{at}{dot}{name}: {reason}"));
        }
    }
    let colon = if at.is_empty() { "" } else { ": " };
    Some(format!("{at}{colon}{whole}"))
}

fn complaint<T: DeserializeOwned>(value: Json) -> Option<String> {
    T::deserialize(value).err().map(|error| error.to_string())
}
