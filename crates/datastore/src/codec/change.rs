//! What an operation makes of a stored record. Pure, so that every backend that keeps bytes does the same.

use buoy_api::Condition;
use buoy_api::binding::{CONTESTED, CONTROLLER};
use buoy_api::meta::Extra;
use buoy_core::store::{Bad, Key, Part, Revision, StoreOp, Value, Writer};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value as Json;

use super::record::{Parts, check, encode_parts, to_bytes};
use super::{bad, decode, encode};

/// What to do with the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Write these bytes.
    Put(Vec<u8>),
    /// Delete it.
    Delete,
    /// It says so already, since this revision.
    Nothing(Revision),
    /// It is not as the operation says.
    Conflict,
}

/// What a record gets on its creation.
#[derive(Clone, Debug)]
pub struct Moment {
    /// When.
    pub now: Timestamp,
    /// A new `metadata.uid`.
    pub uid: String,
}

/// What a writing operation makes of the record as it is stored (bytes and revision), if it is. `moment` is called for
/// creations only. Fails if the operation cannot be carried out on any record; reads are no change.
pub fn change(
    op: &StoreOp,
    stored: Option<(&[u8], Revision)>,
    moment: impl FnOnce() -> Moment,
) -> Result<Change, Bad> {
    match (op, stored) {
        (StoreOp::Create(key, value), None) => Ok(Change::Put(created(key, value, &moment())?)),
        (StoreOp::Update(key, value, expected), Some((bytes, revision))) if revision == *expected => {
            Ok(Change::Put(updated(key, value, bytes)?))
        }
        (StoreOp::Delete(_, expected), Some((_, revision))) if revision == *expected => Ok(Change::Delete),
        (StoreOp::Apply(key, writer, part), Some((bytes, revision))) => {
            Ok(applied(key, bytes, writer, part)?.map_or(Change::Nothing(revision), Change::Put))
        }
        (StoreOp::Get(_) | StoreOp::List(_), stored) => {
            Ok(stored.map_or(Change::Conflict, |(_, revision)| Change::Nothing(revision)))
        }
        _ => Ok(Change::Conflict),
    }
}

/// Whether what a writing operation makes of a record depends on what is stored, beyond its revision.
pub fn keeps_stored(op: &StoreOp) -> bool {
    match op {
        StoreOp::Apply(..) => true,
        StoreOp::Update(_, value, _) => !matches!(
            value,
            Value::Block(_) | Value::Affinity(_) | Value::Handle(_) | Value::IpamConfig(_)
        ),
        StoreOp::Get(_) | StoreOp::List(_) | StoreOp::Create(..) | StoreOp::Delete(..) => false,
    }
}

/// Metadata and status that only the store sets.
#[derive(Default, Deserialize)]
struct Kept {
    #[serde(default)]
    metadata: Extra,
    #[serde(default)]
    status: Option<Json>,
}

fn created(key: &Key, value: &Value, moment: &Moment) -> Result<Vec<u8>, Bad> {
    check(key, value)?;
    let mut object = match encode_parts(value)? {
        Parts::Plain(bytes) => return Ok(bytes),
        Parts::Resource(object) => object,
    };
    object.remove("status");
    if let Some(Json::Object(metadata)) = object.get_mut("metadata") {
        // Whole seconds, as Kubernetes and Calico write it.
        let now = Timestamp::from_second(moment.now.as_second()).unwrap_or(moment.now);
        metadata.entry("uid").or_insert_with(|| moment.uid.clone().into());
        metadata
            .entry("creationTimestamp")
            .or_insert_with(|| now.to_string().into());
    }
    to_bytes(&object)
}

fn updated(key: &Key, value: &Value, stored: &[u8]) -> Result<Vec<u8>, Bad> {
    check(key, value)?;
    let mut object = match encode_parts(value)? {
        Parts::Plain(bytes) => return Ok(bytes),
        Parts::Resource(object) => object,
    };
    // A stored record that is garbage has nothing to keep, and may be replaced.
    let kept: Kept = serde_json::from_slice(stored).unwrap_or_default();
    object.remove("status");
    if let Some(status) = kept.status {
        object.insert("status".to_owned(), status);
    }
    if let Some(Json::Object(metadata)) = object.get_mut("metadata") {
        for field in ["uid", "creationTimestamp"] {
            if let Some(value) = kept.metadata.get(field) {
                metadata.insert(field.to_owned(), value.clone());
            }
        }
    }
    to_bytes(&object)
}

/// The record with one writer's part of its status set; `None` if it is the same.
fn applied(key: &Key, stored: &[u8], writer: &Writer, part: &Part) -> Result<Option<Vec<u8>>, Bad> {
    let Writer(node) = writer;
    if let Some(other) = part.candidates.iter().find(|candidate| candidate.node != *node) {
        return Err(bad(format!(
            "candidate of node {} in the part of {node}",
            other.node
        )));
    }
    let Value::Binding(mut binding) = decode(key, stored)? else {
        return Err(bad(format!("only bindings have a status in parts: {key:?}")));
    };
    let before = binding.clone();
    binding
        .status
        .candidates
        .retain(|candidate| candidate.node != *node);
    binding.status.candidates.extend(part.candidates.iter().cloned());
    binding.status.candidates.sort();
    let owner = binding.spec.owner.as_ref().map(|owner| owner.node.as_str());
    let conditions = conditions(&before.status.conditions, part, owner, node);
    binding.status.conditions = conditions;
    if binding == before {
        return Ok(None);
    }
    encode(&Value::Binding(binding)).map(Some)
}

/// One condition is the controller's. The others speak of the owner: its node writes them and takes them away; without an
/// owner there is nothing for them to speak of.
fn conditions(before: &[Condition], part: &Part, owner: Option<&str>, writer: &str) -> Vec<Condition> {
    let is_controller = writer == CONTROLLER;
    let is_owner = owner.is_none_or(|owner| owner == writer);
    if part.conditions.is_empty() && !is_controller && !is_owner {
        return before.to_vec();
    }
    let others = before
        .iter()
        .filter(|condition| (condition.kind == CONTESTED) != is_controller);
    others.chain(&part.conditions).cloned().collect()
}
