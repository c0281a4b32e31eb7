//! A datastore in a map: every operation happens at once, and its changes are told in order.

use std::collections::BTreeMap;

use buoy_api::binding::Binding;
use buoy_core::store::{Delta, Key, Part, Record, Reply, Revision, StoreOp, Value, Writer};
use jiff::Timestamp;

#[derive(Clone, Debug, Default)]
pub(crate) struct StoreSim {
    pub(crate) records: BTreeMap<Key, (Revision, Value)>,
    /// Every change since the beginning.
    pub(crate) log: Vec<Delta>,
    pub(crate) now: Timestamp,
    pub(crate) revision: u64,
}

impl StoreSim {
    pub(crate) fn run(&mut self, operation: StoreOp) -> Reply {
        match operation {
            StoreOp::Get(key) => Reply::Record(self.get(&key)),
            StoreOp::List(prefix) => {
                let covered = self.records.keys().filter(|key| prefix.covers(key));
                Reply::List(
                    covered.filter_map(|key| self.get(key)).collect(),
                    Revision(self.revision),
                )
            }
            StoreOp::Create(key, value) => {
                if self.records.contains_key(&key) {
                    return Reply::Conflict;
                }
                let value = self.created(value);
                self.write(key, value)
            }
            StoreOp::Update(key, value, revision) => match self.records.get(&key) {
                Some((found, old)) if *found == revision => {
                    let value = with_status_of(old, value);
                    self.write(key, value)
                }
                _ => Reply::Conflict,
            },
            StoreOp::Delete(key, revision) => self.delete(&key, revision),
            StoreOp::Apply(key, writer, part) => self.apply(key, &writer, part),
        }
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Record> {
        let (revision, value) = self.records.get(key)?;
        Some(Record {
            key: key.clone(),
            revision: *revision,
            value: Ok(value.clone()),
        })
    }

    /// All records, as a list of changes.
    pub(crate) fn snapshot(&self) -> impl Iterator<Item = Delta> + '_ {
        self.records.iter().map(|(key, (revision, value))| Delta {
            key: key.clone(),
            revision: *revision,
            value: Some(Ok(value.clone())),
        })
    }

    pub(crate) fn bindings(&self) -> impl Iterator<Item = &Binding> {
        self.records.values().filter_map(|(_, value)| match value {
            Value::Binding(binding) => Some(binding),
            _ => None,
        })
    }

    /// Changes a binding as a person does: whatever its revision.
    pub(crate) fn edit_binding(&mut self, key: Key, change: impl FnOnce(&mut Binding)) {
        if let Some((_, Value::Binding(mut binding))) = self.records.get(&key).cloned() {
            change(&mut binding);
            self.write(key, Value::Binding(binding));
        }
    }

    pub(crate) fn write(&mut self, key: Key, value: Value) -> Reply {
        self.revision += 1;
        let revision = Revision(self.revision);
        self.log.push(Delta {
            key: key.clone(),
            revision,
            value: Some(Ok(value.clone())),
        });
        self.records.insert(key, (revision, value));
        Reply::Written(revision)
    }

    pub(crate) fn remove(&mut self, key: &Key) {
        self.revision += 1;
        self.records.remove(key);
        self.log.push(Delta {
            key: key.clone(),
            revision: Revision(self.revision),
            value: None,
        });
    }

    fn created(&self, value: Value) -> Value {
        match value {
            Value::Binding(mut binding) => {
                binding.metadata.uid = Some(format!("u{}", self.revision));
                binding.metadata.creation_timestamp = Some(self.now);
                binding.status = Default::default();
                Value::Binding(binding)
            }
            other => other,
        }
    }

    fn delete(&mut self, key: &Key, revision: Revision) -> Reply {
        if self.records.get(key).is_none_or(|(found, _)| *found != revision) {
            return Reply::Conflict;
        }
        self.remove(key);
        Reply::Deleted
    }

    fn apply(&mut self, key: Key, writer: &Writer, part: Part) -> Reply {
        let Some((_, Value::Binding(mut binding))) = self.records.get(&key).cloned() else {
            return Reply::Conflict;
        };
        binding
            .status
            .candidates
            .retain(|candidate| candidate.node != writer.0);
        binding.status.candidates.extend(part.candidates);
        // Conditions speak of the owner: they are its node's.
        let owner = binding.spec.owner.as_ref();
        if owner.is_none_or(|owner| owner.node == writer.0) {
            binding.status.conditions = part.conditions;
        }
        self.write(key, Value::Binding(binding))
    }
}

/// Metadata and spec are written; status stays.
fn with_status_of(old: &Value, new: Value) -> Value {
    match (old, new) {
        (Value::Binding(old), Value::Binding(mut new)) => {
            new.status = old.status.clone();
            Value::Binding(new)
        }
        (_, new) => new,
    }
}
