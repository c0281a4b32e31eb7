//! Records of one kind, with the last good value of those that do not decode.

use std::collections::BTreeMap;
use std::net::IpAddr;

use buoy_api::ipam::Block;
use ipnet::IpNet;

use crate::store::{Bad, Revision, Value};

/// A record and what is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot<T> {
    /// Revision of the record as it is now.
    pub revision: Revision,
    /// Its last good value.
    pub value: Option<T>,
    /// Why the record as it is now does not decode.
    pub bad: Option<Bad>,
}

/// Records of one kind.
#[derive(Clone, Debug)]
pub struct Records<K, T> {
    slots: BTreeMap<K, Slot<T>>,
}

impl<K, T> Default for Records<K, T> {
    fn default() -> Self {
        Self {
            slots: BTreeMap::new(),
        }
    }
}

impl<K: Ord, T> Records<K, T> {
    /// A good value.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&T>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.slots.get(key)?.value.as_ref()
    }

    /// A good value with the revision of the record; none while the record does not decode, for it must not be
    /// written over.
    pub fn versioned<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(&T, Revision)>
    where
        K: std::borrow::Borrow<Q>,
    {
        let slot = self.slots.get(key)?;
        match slot.bad {
            None => Some((slot.value.as_ref()?, slot.revision)),
            Some(_) => None,
        }
    }

    /// Whether there is a record, good or bad.
    pub fn contains<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: std::borrow::Borrow<Q>,
    {
        self.slots.contains_key(key)
    }

    /// All good values, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &T)> {
        self.slots
            .iter()
            .filter_map(|(key, slot)| Some((key, slot.value.as_ref()?)))
    }

    /// Good values up to and including a key.
    pub fn up_to(&self, key: &K) -> impl DoubleEndedIterator<Item = (&K, &T)> {
        self.slots
            .range(..=key)
            .filter_map(|(key, slot)| Some((key, slot.value.as_ref()?)))
    }

    /// All good values.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.iter().map(|(_, value)| value)
    }

    /// Whether there is none, good or bad.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Takes in what a record says now; `None`: it is gone. One of another kind does not decode as one of this.
    pub(crate) fn set(&mut self, key: K, revision: Revision, value: Option<Result<Value, Bad>>)
    where
        T: TryFrom<Value, Error = Bad>,
    {
        match value.map(|value| value.and_then(T::try_from)) {
            None => {
                self.slots.remove(&key);
            }
            Some(Ok(value)) => {
                self.slots.insert(
                    key,
                    Slot {
                        revision,
                        value: Some(value),
                        bad: None,
                    },
                );
            }
            Some(Err(bad)) => {
                let slot = self.slots.entry(key).or_insert(Slot {
                    revision,
                    value: None,
                    bad: None,
                });
                slot.revision = revision;
                slot.bad = Some(bad);
            }
        }
    }
}

impl Records<IpNet, Block> {
    /// The block that holds an address, if there is one.
    pub fn holding(&self, address: IpAddr) -> Option<&Block> {
        // Blocks do not overlap: only the last one that begins at or before the address can hold it.
        let (_, block) = self.up_to(&IpNet::from(address)).next_back()?;
        block.cidr.contains(&address).then_some(block)
    }
}
