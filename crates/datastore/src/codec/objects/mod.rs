//! Records as objects of the Kubernetes API.
//!
//! Most records are custom resources of their own (`custom`); some are derived from what Kubernetes has anyway: Nodes
//! (`node`), WorkloadEndpoints from pods (`pod`), Profiles from namespaces, leases from leases (`native`).
//!
//! Every object is turned into the JSON that other stores keep, and that is read by the same code: what a record may say
//! does not depend on where it is. An object that is nobody's record has no key and is passed over.

mod affinity;
mod custom;
mod event;
mod ipam;
mod native;
mod node;
mod place;
mod pod;

#[cfg(test)]
mod tests;

use buoy_api::meta::Extra;
use buoy_core::store::{Bad, Key, Prefix, Record, Revision, Value};
use serde_json::Value as Json;

pub use event::{event, repetition};
pub use native::{status_part, uid};
pub use place::{ApiResource, CalicoGroup, Collection, Layout, Place};

use super::bad;
use super::record::{Parts, check, encode_parts};

/// An object as it was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The key of its record.
    pub key: Key,
    /// Its `resourceVersion`.
    pub revision: Revision,
    /// The record; `None` if the object stands for none at present, as a pod without addresses does.
    pub value: Option<Result<Value, Bad>>,
}

impl Found {
    /// The record, if the object stands for one.
    pub fn record(self) -> Option<Record> {
        let Self { key, revision, value } = self;
        value.map(|value| Record { key, revision, value })
    }
}

/// How a record is written.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// As an object of its own.
    Object(Extra),
    /// Into an object that others made, by a patch of its status subresource.
    Patch(Extra),
    /// Not at all: others keep it.
    Foreign(&'static str),
}

/// Where the record of a key is. Fails if a name cannot be that of an object.
pub fn place(key: &Key, layout: &Layout) -> Result<Place, Bad> {
    place::of(key, layout)
}

/// Where the records of a prefix are. Others may be there too, which the prefix does not cover.
pub fn collection(prefix: &Prefix, layout: &Layout) -> Collection {
    place::collection(prefix, layout)
}

/// Where the object is whose [`uid`] is the cluster's.
pub fn identity() -> Collection {
    place::identity()
}

/// Reads an object; `None` if it is nobody's record.
pub fn read(resource: ApiResource, object: &Extra) -> Option<Found> {
    let revision = revision(object)?;
    let (key, stored) = match resource.canonical() {
        place::PODS => pod::read(object)?,
        place::NODES => node::read(object)?,
        place::NAMESPACES => native::read_namespace(object)?,
        place::LEASES => native::read_lease(object)?,
        place::BLOCKS | place::AFFINITIES | place::HANDLES | place::IPAM_CONFIGS => {
            ipam::read(resource.canonical(), object)?
        }
        _ => custom::read(resource, object)?,
    };
    let value = stored.map(|stored| {
        let stored = stored?;
        let bytes = super::record::to_bytes(&stored)?;
        super::decode(&key, &bytes)
    });
    Some(Found { key, revision, value })
}

/// The record of a key, from the object in its place. An object that is not readable as that record, and that nobody but
/// this project and Calico makes, is a bad record: were it none, it would be made again and again in vain.
pub fn record(key: &Key, resource: ApiResource, object: &Extra) -> Option<Record> {
    let reason = match read(resource, object) {
        Some(found) if found.key == *key => return found.record(),
        _ if is_derived(key) => return None,
        Some(Found {
            value: Some(Err(bad)),
            ..
        }) => bad,
        Some(found) => bad(format!(
            "the {} of this name is that of {}",
            resource.kind, found.key
        )),
        None => bad(format!(
            "the {} of this name is no record of this project",
            resource.kind
        )),
    };
    Some(Record {
        key: key.clone(),
        revision: revision(object)?,
        value: Err(reason),
    })
}

/// What creating a record writes that is an object of its own, of this resource.
pub fn creation(resource: ApiResource, key: &Key, value: &Value) -> Result<Form, Bad> {
    form(resource, key, value, None)
}

/// What an update writes, on the object of this revision: like a creation. `into` is the object that is there, for records that
/// live in others' objects.
pub fn update(
    resource: ApiResource,
    key: &Key,
    value: &Value,
    into: Option<&Extra>,
    at: Revision,
) -> Result<Form, Bad> {
    Ok(match form(resource, key, value, into)? {
        Form::Object(object) => Form::Object(pinned(object, at)),
        Form::Patch(patch) => Form::Patch(pinned(patch, at)),
        foreign @ Form::Foreign(_) => foreign,
    })
}

/// What takes a record out of an object that others made; `None` if the object itself is deleted.
pub fn removal(key: &Key, at: Revision) -> Option<Form> {
    match key {
        Key::Endpoint { .. } => Some(Form::Patch(pinned(pod::removal(), at))),
        Key::Node(_) => Some(Form::Foreign(node::OWNED)),
        Key::Profile(_) => Some(Form::Foreign(native::PROFILE_OWNED)),
        _ => None,
    }
}

/// Whether a record lives in an object that others made.
pub fn is_derived(key: &Key) -> bool {
    matches!(key, Key::Endpoint { .. } | Key::Node(_) | Key::Profile(_))
}

fn form(resource: ApiResource, key: &Key, value: &Value, into: Option<&Extra>) -> Result<Form, Bad> {
    check(key, value)?;
    let of_ipam = |object| Form::Object(ipam::within(resource, object));
    Ok(match (key, value) {
        (_, Value::Node(node)) => Form::Patch(node::patch(node, into)?),
        (_, Value::Endpoint(endpoint)) => Form::Patch(pod::patch(endpoint)),
        (_, Value::Profile(_)) => Form::Foreign(native::PROFILE_OWNED),
        (_, Value::Lease(lease)) => Form::Object(native::lease(lease)?),
        (Key::Affinity { owner, cidr }, Value::Affinity(_)) => {
            of_ipam(affinity::object(owner, cidr, plain(value)?))
        }
        (Key::Block(_) | Key::Handle(_) | Key::IpamConfig, _) => of_ipam(ipam::object(key, plain(value)?)?),
        _ => Form::Object(custom::object(resource, self::resource(value)?)?),
    })
}

/// A record without envelope, as JSON.
fn plain(value: &Value) -> Result<Extra, Bad> {
    match encode_parts(value)? {
        Parts::Plain(bytes) => serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string())),
        Parts::Resource(_) => Err(bad("a resource where none is expected")),
    }
}

fn resource(value: &Value) -> Result<Extra, Bad> {
    match encode_parts(value)? {
        Parts::Resource(object) => Ok(object),
        Parts::Plain(_) => Err(bad("a resource is expected")),
    }
}

/// The same, to be written only on an object of this revision.
fn pinned(mut object: Extra, at: Revision) -> Extra {
    let metadata = object
        .entry("metadata")
        .or_insert_with(|| Json::Object(Extra::new()));
    if let Json::Object(metadata) = metadata {
        metadata.insert("resourceVersion".to_owned(), at.to_string().into());
    }
    object
}

/// Revision of an object, as the server says it.
pub fn revision(object: &Extra) -> Option<Revision> {
    let text = object.get("metadata")?.get("resourceVersion")?.as_str()?;
    text.parse().ok().map(Revision)
}

fn metadata(object: &Extra) -> Option<&Extra> {
    object.get("metadata")?.as_object()
}

fn name(object: &Extra) -> Option<&str> {
    metadata(object)?.get("name")?.as_str()
}

/// Labels or annotations of an object.
fn strings(object: &Extra, field: &str) -> std::collections::BTreeMap<String, String> {
    let map = metadata(object).and_then(|metadata| metadata.get(field)?.as_object());
    let pairs = map.into_iter().flatten();
    pairs
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// The metadata that every derived record has.
fn derived_metadata(object: &Extra, name: &str) -> Extra {
    let mut derived = Extra::new();
    derived.insert("name".to_owned(), name.into());
    for field in ["uid", "creationTimestamp"] {
        if let Some(value) = metadata(object).and_then(|metadata| metadata.get(field)) {
            derived.insert(field.to_owned(), value.clone());
        }
    }
    derived
}
