//! The commonest store protocol: read a record, say what it should be, write it if nobody was quicker.

use crate::store::{Key, Next, Record, Reply, Revision, Steps, StoreError, StoreOp, Value};

/// Conflicts after which an edit gives up and leaves it to its caller to look again.
const TRIES: u32 = 16;

/// What a record should be.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// As it is.
    Keep,
    /// This.
    Put(Box<Value>),
    /// Absent.
    Delete,
}

/// Why an edit did not come to an end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The datastore failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The record does not decode, and must not be written over.
    #[error("{key}: {reason}\nmend or delete the record")]
    Bad {
        /// Which record.
        key: Key,
        /// What is wrong with it.
        reason: String,
    },
    /// Others kept changing the record.
    #[error("changed by others {TRIES} times in a row: {0}")]
    Contended(Key),
}

/// Edits one record by compare-and-swap. `change` is asked again each time the record turns out to be another.
#[derive(Debug)]
pub struct Edit<F> {
    key: Key,
    change: F,
    known: Option<Option<(Value, Revision)>>,
    tries: u32,
}

impl<F: FnMut(Option<&Value>) -> Change> Edit<F> {
    /// Reads first.
    pub fn new(key: Key, change: F) -> Self {
        Self {
            key,
            change,
            known: None,
            tries: 0,
        }
    }

    /// Begins with what the caller knows of the record, and reads only if that is out of date.
    pub fn knowing(key: Key, known: Option<(Value, Revision)>, change: F) -> Self {
        Self {
            key,
            change,
            known: Some(known),
            tries: 0,
        }
    }

    fn write(&mut self) -> Next<Result<(), EditError>> {
        let Some(known) = self.known.take() else {
            return Next::Do(StoreOp::Get(self.key.clone()));
        };
        let change = (self.change)(known.as_ref().map(|(value, _)| value));
        let key = self.key.clone();
        match (change, known) {
            (Change::Keep, _) | (Change::Delete, None) => Next::Done(Ok(())),
            (Change::Put(value), None) => Next::Do(StoreOp::Create(key, *value)),
            (Change::Put(value), Some((_, revision))) => Next::Do(StoreOp::Update(key, *value, revision)),
            (Change::Delete, Some((_, revision))) => Next::Do(StoreOp::Delete(key, revision)),
        }
    }

    fn read(&mut self, record: Option<Record>) -> Next<Result<(), EditError>> {
        let known = match record {
            None => None,
            Some(Record {
                value: Ok(value),
                revision,
                ..
            }) => Some((value, revision)),
            Some(Record {
                value: Err(bad), key, ..
            }) => {
                return Next::Done(Err(EditError::Bad {
                    key,
                    reason: bad.reason,
                }));
            }
        };
        self.known = Some(known);
        self.write()
    }
}

impl<F: FnMut(Option<&Value>) -> Change> Steps for Edit<F> {
    type Out = Result<(), EditError>;

    fn step(&mut self, reply: Reply) -> Next<Self::Out> {
        match reply {
            Reply::Start => self.write(),
            Reply::Record(record) => self.read(record),
            Reply::Conflict | Reply::Unknown => {
                self.tries += 1;
                if self.tries >= TRIES {
                    return Next::Done(Err(EditError::Contended(self.key.clone())));
                }
                Next::Do(StoreOp::Get(self.key.clone()))
            }
            Reply::Failed(error) => Next::Done(Err(error.into())),
            Reply::Written(_) | Reply::Deleted | Reply::List(..) => Next::Done(Ok(())),
        }
    }
}

#[cfg(test)]
#[path = "edit_tests.rs"]
mod tests;
