//! A datastore in a map: every operation happens at once, and the revision rises with every write.

use std::collections::BTreeMap;

use buoy_core::store::{Key, Record, Reply, Revision, StoreOp, Value};

#[derive(Clone, Debug, Default)]
pub(crate) struct SimStore {
    revision: u64,
    records: BTreeMap<Key, (Revision, Value)>,
}

impl SimStore {
    pub(crate) fn apply(&mut self, operation: StoreOp) -> Reply {
        match operation {
            StoreOp::Get(key) => Reply::Record(self.get(&key)),
            StoreOp::List(prefix) => {
                let covered = self.records.keys().filter(|key| prefix.covers(key));
                let records = covered.filter_map(|key| self.get(key)).collect();
                Reply::List(records, Revision(self.revision))
            }
            StoreOp::Create(key, value) => match self.records.contains_key(&key) {
                true => Reply::Conflict,
                false => self.put(key, value),
            },
            StoreOp::Update(key, value, revision) => match self.revision_of(&key) == Some(revision) {
                true => self.put(key, value),
                false => Reply::Conflict,
            },
            StoreOp::Delete(key, revision) => match self.revision_of(&key) == Some(revision) {
                true => {
                    self.revision += 1;
                    self.records.remove(&key);
                    Reply::Deleted
                }
                false => Reply::Conflict,
            },
            StoreOp::Apply(..) => panic!("IPAM has no status"),
        }
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Record> {
        self.records.get(key).map(|(revision, value)| Record {
            key: key.clone(),
            revision: *revision,
            value: Ok(value.clone()),
        })
    }

    pub(crate) fn value(&self, key: &Key) -> Option<&Value> {
        self.records.get(key).map(|(_, value)| value)
    }

    pub(crate) fn revision_of(&self, key: &Key) -> Option<Revision> {
        self.records.get(key).map(|(revision, _)| *revision)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &Value)> {
        self.records.iter().map(|(key, (_, value))| (key, value))
    }

    fn put(&mut self, key: Key, value: Value) -> Reply {
        self.revision += 1;
        self.records.insert(key, (Revision(self.revision), value));
        Reply::Written(Revision(self.revision))
    }
}
