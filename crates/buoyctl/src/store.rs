//! The datastore as commands use it: read, list, and change one record by compare-and-swap.

use std::sync::Arc;
use std::time::Instant;

use buoy_api::ipam::Block;
use buoy_api::v3::{IpPool, IpReservation, WorkloadEndpoint};
use buoy_api::{Binding, Family};
use buoy_core::store::{Bad, Key, Prefix, Record, Reply, Revision, Steps, StoreOp, Value};
use buoy_datastore::{Datastore, Watch, WatchError};

use crate::failure::Failure;

/// How often a change begins anew because somebody else changed the record.
const ATTEMPTS: u32 = 32;

/// An open datastore.
#[derive(Debug)]
pub(crate) struct Store {
    inner: Arc<dyn Datastore>,
}

/// What to do with a record that was read.
#[derive(Debug)]
pub(crate) enum Edit<T> {
    /// Write it.
    Put(Box<Value>, T),
    /// Delete it.
    Delete(T),
    /// Nothing: it is as it should be.
    Keep(T),
}

/// Records of one type, and what could not be read.
#[derive(Debug)]
pub(crate) struct Listed<T> {
    /// Those that decode, in order of their keys.
    pub items: Vec<T>,
    /// Those that do not, and why.
    pub bad: Vec<(Key, Bad)>,
}

impl<T> Listed<T> {
    /// A message about each record that does not decode.
    pub(crate) fn warnings(&self) -> impl Iterator<Item = String> {
        self.bad.iter().map(|(key, bad)| format!("{key}: {bad}"))
    }
}

impl Store {
    /// Opens a datastore by its URL.
    pub(crate) fn open(url: &str) -> Result<Self, Failure> {
        Ok(Self {
            inner: buoy_datastore::open(url)?,
        })
    }

    /// How messages call it.
    pub(crate) fn name(&self) -> &str {
        self.inner.name()
    }

    /// Reads a record.
    pub(crate) fn get(&self, key: &Key) -> Result<Option<Record>, Failure> {
        match self.run(&StoreOp::Get(key.clone()))? {
            Reply::Record(record) => Ok(record),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Reads a set of records at one revision.
    pub(crate) fn list(&self, prefix: Prefix) -> Result<(Vec<Record>, Revision), Failure> {
        match self.run(&StoreOp::List(prefix))? {
            Reply::List(records, revision) => Ok((records, revision)),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Reads a record, lets `edit` decide, and writes, until no other writer came in between.
    pub(crate) fn change<T>(
        &self,
        key: &Key,
        mut edit: impl FnMut(Option<&Record>) -> Result<Edit<T>, Failure>,
    ) -> Result<T, Failure> {
        let mut maybe_deleted = None;
        for _ in 0..ATTEMPTS {
            let record = self.get(key)?;
            if record.is_none()
                && let Some(out) = maybe_deleted
            {
                return Ok(out);
            }
            let (op, out) = match (edit(record.as_ref())?, &record) {
                (Edit::Keep(out), _) | (Edit::Delete(out), None) => return Ok(out),
                (Edit::Put(value, out), Some(record)) => {
                    (StoreOp::Update(key.clone(), *value, record.revision), out)
                }
                (Edit::Put(value, out), None) => (StoreOp::Create(key.clone(), *value), out),
                (Edit::Delete(out), Some(record)) => (StoreOp::Delete(key.clone(), record.revision), out),
            };
            match self.run(&op)? {
                Reply::Written(_) | Reply::Deleted => return Ok(out),
                Reply::Conflict => maybe_deleted = None,
                Reply::Unknown => maybe_deleted = matches!(op, StoreOp::Delete(..)).then_some(out),
                other => return Err(self.unexpected(&other)),
            }
        }
        Err(Failure::new(format!("record keeps changing: {key}\ntry again")))
    }

    /// Runs a protocol of the core to its end.
    pub(crate) fn drive<S: Steps>(&self, machine: S) -> S::Out {
        buoy_datastore::drive(&*self.inner, machine)
    }

    /// Waits until `look` is content with a record, at most until `deadline`; then `None`.
    pub(crate) fn wait<T>(
        &self,
        key: &Key,
        set: Prefix,
        deadline: Instant,
        mut look: impl FnMut(Option<&Record>) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        let mut watch = self.watch(&set)?;
        loop {
            let record = self.get(key)?;
            if let Some(out) = look(record.as_ref()) {
                return Ok(Some(out));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            match watch.next(left) {
                Ok(_) => {}
                Err(WatchError::Compacted) => watch = self.watch(&set)?,
                Err(WatchError::Store(error)) => return Err(error.into()),
            }
        }
    }

    /// A watch of what changes from now on.
    fn watch(&self, set: &Prefix) -> Result<Box<dyn Watch>, Failure> {
        let (_, now) = self.list(set.clone())?;
        let watch = self.inner.watch(&[(set.clone(), now)]);
        watch.map_err(|error| Failure::new(format!("{}: {error}\ntry again", self.name())))
    }

    /// All IPPools.
    pub(crate) fn pools(&self) -> Result<Listed<IpPool>, Failure> {
        self.typed(Prefix::Pools, |value| match value {
            Value::Pool(pool) => Some(pool),
            _ => None,
        })
    }

    /// All IPReservations.
    pub(crate) fn reservations(&self) -> Result<Listed<IpReservation>, Failure> {
        self.typed(Prefix::Reservations, |value| match value {
            Value::Reservation(reservation) => Some(reservation),
            _ => None,
        })
    }

    /// All WorkloadEndpoints of all namespaces.
    pub(crate) fn endpoints(&self) -> Result<Listed<WorkloadEndpoint>, Failure> {
        self.typed(Prefix::Endpoints, |value| match value {
            Value::Endpoint(endpoint) => Some(endpoint),
            _ => None,
        })
    }

    /// All FloatingIPBindings.
    pub(crate) fn bindings(&self) -> Result<Listed<Binding>, Failure> {
        self.typed(Prefix::Bindings, |value| match value {
            Value::Binding(binding) => Some(binding),
            _ => None,
        })
    }

    /// All IPAM blocks of a family.
    pub(crate) fn blocks(&self, family: Family) -> Result<Listed<Block>, Failure> {
        self.typed(Prefix::Blocks(family), |value| match value {
            Value::Block(block) => Some(block),
            _ => None,
        })
    }

    fn typed<T>(&self, prefix: Prefix, pick: impl Fn(Value) -> Option<T>) -> Result<Listed<T>, Failure> {
        let (records, _) = self.list(prefix)?;
        let mut listed = Listed {
            items: Vec::new(),
            bad: Vec::new(),
        };
        for Record { key, value, .. } in records {
            match value {
                Ok(value) => listed.items.extend(pick(value)),
                Err(bad) => listed.bad.push((key, bad)),
            }
        }
        Ok(listed)
    }

    fn run(&self, op: &StoreOp) -> Result<Reply, Failure> {
        match self.inner.run(op) {
            Reply::Failed(error) => Err(error.into()),
            reply => Ok(reply),
        }
    }

    fn unexpected(&self, reply: &Reply) -> Failure {
        Failure::new(format!(
            "datastore gave no usable answer: {}: {reply:?}\ntry again",
            self.name()
        ))
    }
}
