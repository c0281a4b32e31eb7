//! Records by way of a [`Line`]: typed, each with its revision.

use buoy_api::ip::Family;
use buoy_api::ipam::{Block, Handle};
use buoy_core::store::{Key, Prefix, Record, Reply, Revision, StoreOp, Value};
use ipnet::IpNet;

use super::line::{Down, Line};

/// A record with its revision.
pub(crate) type At<T> = (T, Revision);

impl Line<'_> {
    pub(crate) fn block(&self, cidr: IpNet) -> Result<Option<At<Block>>, Down> {
        let found = self.get(Key::Block(cidr))?;
        Ok(found.map(|(value, revision)| match value {
            Value::Block(block) => (block, revision),
            other => panic!("{other:?}"),
        }))
    }

    pub(crate) fn handle(&self, id: &str) -> Result<Option<At<Handle>>, Down> {
        let found = self.get(Key::Handle(id.to_owned()))?;
        Ok(found.map(|(value, revision)| match value {
            Value::Handle(handle) => (handle, revision),
            other => panic!("{other:?}"),
        }))
    }

    pub(crate) fn blocks(&self) -> Result<Vec<At<Block>>, Down> {
        let records = self.list(Prefix::Blocks(Family::V4))?;
        let blocks = records.into_iter().map(|record| match record.value {
            Ok(Value::Block(block)) => (block, record.revision),
            other => panic!("{other:?}"),
        });
        Ok(blocks.collect())
    }

    pub(crate) fn get(&self, key: Key) -> Result<Option<At<Value>>, Down> {
        match self.run(&StoreOp::Get(key))? {
            Reply::Record(record) => Ok(record.map(|record| (record.value.unwrap(), record.revision))),
            _ => Err(Down),
        }
    }

    pub(crate) fn list(&self, prefix: Prefix) -> Result<Vec<Record>, Down> {
        match self.run(&StoreOp::List(prefix))? {
            Reply::List(records, _) => Ok(records),
            _ => Err(Down),
        }
    }

    pub(crate) fn create(&self, key: Key, value: Value) -> Result<bool, Down> {
        self.write(StoreOp::Create(key, value))
    }

    pub(crate) fn update(&self, key: Key, value: Value, revision: Revision) -> Result<bool, Down> {
        self.write(StoreOp::Update(key, value, revision))
    }

    pub(crate) fn delete(&self, key: Key, revision: Revision) -> Result<bool, Down> {
        self.write(StoreOp::Delete(key, revision))
    }

    /// Whether nobody was quicker.
    pub(crate) fn write(&self, op: StoreOp) -> Result<bool, Down> {
        match self.run(&op)? {
            Reply::Written(_) | Reply::Deleted => Ok(true),
            Reply::Conflict => Ok(false),
            _ => Err(Down),
        }
    }
}
