//! The datastore with types: what every protocol does with a reply. A write that met a conflict and a write whose
//! answer was lost are the same to them: the record must be read again.

use buoy_api::ipam::{AffinityOwner, Block, BlockAffinity, Handle};
use ipnet::IpNet;
use jiff::Timestamp;

use super::block;
use super::error::IpamError;
use super::protocol::Store;
use crate::store::{Bad, FailureKind, Key, Prefix, Record, Reply, Revision, StoreError, StoreOp, Value};

/// Conflicts and lost answers after which a protocol gives up, as in Calico.
const MAX_SETBACKS: u32 = 100;

/// A record at the revision at which it was read or written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct At<T> {
    pub(super) record: T,
    pub(super) revision: Revision,
}

/// A kind of record that IPAM keeps.
pub(super) trait Stored: Sized {
    fn from_value(value: Value) -> Option<Self>;
    fn into_value(self) -> Value;
    /// First step of a two-step deletion.
    fn is_deleted(&self) -> bool;
    /// What is wrong with it.
    fn defect(&self) -> Option<String> {
        None
    }
}

macro_rules! stored {
    ($type:ident, $variant:ident $(, $defect:item)?) => {
        impl Stored for $type {
            fn from_value(value: Value) -> Option<Self> {
                match value {
                    Value::$variant(record) => Some(record),
                    _ => None,
                }
            }

            fn into_value(self) -> Value {
                Value::$variant(self)
            }

            fn is_deleted(&self) -> bool {
                self.deleted
            }
            $($defect)?
        }
    };
}

stored!(Handle, Handle);
stored!(BlockAffinity, Affinity);
stored!(
    Block,
    Block,
    fn defect(&self) -> Option<String> {
        Block::defect(self)
    }
);

impl Store {
    /// The record, if there is one. A deletion that somebody began is finished first.
    pub(super) async fn get<T: Stored>(&mut self, key: &Key) -> Result<Option<At<T>>, IpamError> {
        loop {
            let found = match self.run(StoreOp::Get(key.clone())).await {
                Reply::Record(Some(found)) => found,
                Reply::Record(None) => return Ok(None),
                other => {
                    self.setback(other)?;
                    continue;
                }
            };
            let revision = found.revision;
            let record = decode::<T>(found)?;
            if !record.is_deleted() {
                return Ok(Some(At { record, revision }));
            }
            self.delete(key, revision).await?;
        }
    }

    /// Creates a record; `None`: read again.
    pub(super) async fn create(
        &mut self,
        key: &Key,
        record: impl Stored,
    ) -> Result<Option<Revision>, IpamError> {
        let operation = StoreOp::Create(key.clone(), record.into_value());
        self.write(operation).await
    }

    /// Replaces a record at a revision; `None`: read again.
    pub(super) async fn update(
        &mut self,
        key: &Key,
        record: impl Stored,
        revision: Revision,
    ) -> Result<Option<Revision>, IpamError> {
        let operation = StoreOp::Update(key.clone(), record.into_value(), revision);
        self.write(operation).await
    }

    /// Replaces a block. Its sequence number rises with every write.
    pub(super) async fn update_block(&mut self, block: At<Block>) -> Result<Option<At<Block>>, IpamError> {
        let mut record = block.record;
        record.sequence_number = record.sequence_number.saturating_add(1);
        let key = Key::Block(record.cidr);
        let written = self.update(&key, record.clone(), block.revision).await?;
        Ok(written.map(|revision| At { record, revision }))
    }

    /// Creates an empty block; `None`: read again. Where this protocol made the same block before, and somebody deleted
    /// it since, there was a setback in between: so the new one does not repeat the sequence numbers of the old one.
    pub(super) async fn create_block(
        &mut self,
        cidr: IpNet,
        affinity: Option<AffinityOwner>,
        now: Timestamp,
    ) -> Result<Option<At<Block>>, IpamError> {
        let mut record = block::new(cidr, affinity, now);
        record.sequence_number = record.sequence_number.saturating_add(u64::from(self.setbacks));
        let written = self.create(&Key::Block(cidr), record.clone()).await?;
        Ok(written.map(|revision| At { record, revision }))
    }

    /// Deletes a record at a revision; `false`: read again.
    pub(super) async fn delete(&mut self, key: &Key, revision: Revision) -> Result<bool, IpamError> {
        match self.run(StoreOp::Delete(key.clone(), revision)).await {
            Reply::Deleted => Ok(true),
            other => self.setback(other).map(|()| false),
        }
    }

    /// A set of records. One that does not decode hides no other.
    pub(super) async fn list(&mut self, prefix: Prefix) -> Result<Vec<Record>, IpamError> {
        loop {
            match self.run(StoreOp::List(prefix.clone())).await {
                Reply::List(records, _) => return Ok(records),
                other => self.setback(other)?,
            }
        }
    }

    async fn write(&mut self, operation: StoreOp) -> Result<Option<Revision>, IpamError> {
        match self.run(operation).await {
            Reply::Written(revision) => Ok(Some(revision)),
            other => self.setback(other).map(|()| None),
        }
    }

    /// Counts a conflict or a lost answer; anything else ends the protocol.
    fn setback(&mut self, reply: Reply) -> Result<(), IpamError> {
        match reply {
            Reply::Conflict | Reply::Unknown if self.setbacks < MAX_SETBACKS => {
                self.setbacks += 1;
                Ok(())
            }
            Reply::Conflict | Reply::Unknown => Err(IpamError::Contended {
                setbacks: self.setbacks,
            }),
            Reply::Failed(error) => Err(error.into()),
            other => Err(IpamError::Store(StoreError {
                kind: FailureKind::Invalid,
                message: format!("the datastore gave a reply that does not fit the operation: {other:?}"),
            })),
        }
    }
}

/// What a record says, if it is usable.
pub(super) fn decode<T: Stored>(found: Record) -> Result<T, IpamError> {
    let Record { key, value, .. } = found;
    let bad = |reason: String| IpamError::BadRecord {
        key: key.clone(),
        bad: Bad { reason },
    };
    let value = value.map_err(|bad| IpamError::BadRecord {
        key: key.clone(),
        bad,
    })?;
    let record = T::from_value(value).ok_or_else(|| bad("another kind of record".to_owned()))?;
    match record.defect() {
        Some(defect) => Err(bad(defect)),
        None => Ok(record),
    }
}
