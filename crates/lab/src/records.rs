//! The records of a lab's store, read past every agent.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use buoy_api::Binding;
use buoy_api::ip::Family;
use buoy_api::ipam::{Block, Handle};
use buoy_api::v3::WorkloadEndpoint;
use buoy_core::store::{Key, Prefix, Record, Reply, StoreOp, Value};

use crate::store::Store;

/// What a store says about addresses.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// IPAM blocks, in order of their prefixes.
    pub blocks: Vec<Block>,
    /// IPAM handles.
    pub handles: BTreeMap<String, Handle>,
    /// Bindings, in order of their names.
    pub bindings: Vec<Binding>,
    /// Workload endpoints.
    pub endpoints: Vec<WorkloadEndpoint>,
    /// Records that do not decode.
    pub bad: Vec<Key>,
}

/// An address that IPAM has given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Allocation {
    /// The address.
    pub ip: IpAddr,
    /// The handle that holds it; `None` if nobody does.
    pub handle: Option<String>,
}

impl Records {
    /// Reads them. Error: the store does not answer.
    pub fn read(store: &Store) -> Result<Self> {
        let store = store.open()?;
        let mut records = Self::default();
        for prefix in [
            Prefix::Blocks(Family::V4),
            Prefix::Blocks(Family::V6),
            Prefix::Handles,
            Prefix::Bindings,
            Prefix::Endpoints,
        ] {
            match store.run(&StoreOp::List(prefix)) {
                Reply::List(list, _) => list.into_iter().for_each(|record| records.take(record)),
                Reply::Failed(error) => return Err(error).context("cannot list records"),
                other => bail!("cannot list records: {other:?}"),
            }
        }
        Ok(records)
    }

    /// Every address that a block says is given.
    pub fn allocations(&self) -> Vec<Allocation> {
        self.blocks.iter().flat_map(allocations_of).collect()
    }

    /// The binding of a floating IP.
    pub fn binding(&self, floating: IpAddr) -> Option<&Binding> {
        self.bindings
            .iter()
            .find(|binding| binding.spec.address == floating)
    }

    fn take(&mut self, record: Record) {
        match (record.key, record.value) {
            (_, Ok(Value::Block(block))) => self.blocks.push(block),
            (Key::Handle(id), Ok(Value::Handle(handle))) => {
                self.handles.insert(id, handle);
            }
            (_, Ok(Value::Binding(binding))) => self.bindings.push(binding),
            (_, Ok(Value::Endpoint(endpoint))) => self.endpoints.push(endpoint),
            (key, _) => self.bad.push(key),
        }
    }
}

fn allocations_of(block: &Block) -> Vec<Allocation> {
    let given = block.allocations.iter().enumerate();
    given
        .filter_map(|(ordinal, attribute)| {
            let attribute = block.attributes.get((*attribute)?);
            Some(Allocation {
                ip: nth(block.cidr.network(), ordinal),
                handle: attribute.and_then(|attribute| attribute.handle.clone()),
            })
        })
        .collect()
}

/// The address that many behind the first of a block. Blocks do not reach the end of their family.
fn nth(first: IpAddr, ordinal: usize) -> IpAddr {
    match first {
        IpAddr::V4(v4) => IpAddr::from((u32::from(v4).wrapping_add(ordinal as u32)).to_be_bytes()),
        IpAddr::V6(v6) => IpAddr::from((u128::from(v6).wrapping_add(ordinal as u128)).to_be_bytes()),
    }
}
