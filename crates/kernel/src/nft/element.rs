//! Elements as Buoy means them, and as the sets and maps hold them.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ipnet::IpNet;
use netlink_packet_core::NLM_F_CREATE;

use super::{
    Deletion, TABLE, api,
    batch::{Batch, message},
};
use crate::{
    Family, IfIndex,
    error::{Error, Result},
    netlink::wire::Message,
    types,
};

/// A list of elements must stay below 64 KiB, the longest attribute.
const LIST_LIMIT: usize = 60_000;

/// One thing that the ruleset knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Element {
    /// This link leads to a workload. Stands in both tables.
    Link(IfIndex),
    /// This address may come from this link, and is one of its workload's own.
    Source(IfIndex, IpAddr),
    /// This prefix, given masked, may come from this link. Prefixes of one link must not overlap.
    SourcePrefix(IfIndex, IpNet),
    /// This floating IP is translated to this address where its route leads to a workload.
    Nat {
        /// The floating IP.
        floating: IpAddr,
        /// The workload's own address, of the same family.
        internal: IpAddr,
    },
    /// Flows of this floating IP that still lead to this address are being ended.
    Ending(IpAddr, IpAddr),
    /// For so long they go on; then the kernel drops the element. Counted in milliseconds.
    Draining(IpAddr, IpAddr, Duration),
}

/// What changes together. Deletions come first, so an address may be in both with different values.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transaction {
    /// Elements to add.
    pub add: BTreeSet<Element>,
    /// Elements to delete.
    pub del: BTreeSet<Element>,
}

/// The sets and maps of each table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Set {
    Links,
    Fips,
    Floating,
    Sources,
    SourcePrefixes,
    Ending,
    Draining,
}

impl Set {
    pub(super) const ALL: [Self; 7] = [
        Self::Links,
        Self::Fips,
        Self::Floating,
        Self::Sources,
        Self::SourcePrefixes,
        Self::Ending,
        Self::Draining,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Links => "links",
            Self::Fips => "fips",
            Self::Floating => "floating",
            Self::Sources => "sources",
            Self::SourcePrefixes => "source_prefixes",
            Self::Ending => "ending",
            Self::Draining => "draining",
        }
    }
}

/// An element of one set, in octets as the kernel compares them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Raw {
    pub(super) family: Family,
    pub(super) set: Set,
    pub(super) key: Vec<u8>,
    /// Last key of an interval.
    pub(super) key_end: Option<Vec<u8>>,
    /// Value of a map.
    pub(super) data: Option<Vec<u8>>,
    /// For how long it is there, in milliseconds.
    pub(super) time: Option<u64>,
}

impl Raw {
    fn new(family: Family, set: Set, key: Vec<u8>) -> Self {
        Self {
            family,
            set,
            key,
            key_end: None,
            data: None,
            time: None,
        }
    }

    /// Appends it to a list of elements. A deletion goes by the key alone.
    fn write(&self, list: &mut Message, with_data: bool) {
        let element = list.open(api::LIST_ELEMENT);
        let parts = [
            (api::ELEMENT_KEY, Some(&self.key)),
            (api::ELEMENT_KEY_END, self.key_end.as_ref()),
            (api::ELEMENT_DATA, self.data.as_ref().filter(|_| with_data)),
        ];
        for (kind, octets) in parts {
            if let Some(octets) = octets {
                let part = list.open(kind);
                list.push(api::DATA_VALUE, octets);
                list.close(part);
            }
        }
        if let Some(time) = self.time.filter(|_| with_data) {
            list.push(api::ELEMENT_TIMEOUT, &time.to_be_bytes());
        }
        list.close(element);
    }
}

impl Element {
    /// The parts it consists of.
    pub(super) fn raw(&self) -> Result<Vec<Raw>> {
        Ok(match *self {
            Self::Link(link) => Family::BOTH
                .map(|family| Raw::new(family, Set::Links, index(link)))
                .to_vec(),
            Self::Source(link, address) => {
                vec![Raw::new(
                    Family::of(address),
                    Set::Sources,
                    join(index(link), address),
                )]
            }
            Self::SourcePrefix(link, prefix) => vec![Raw {
                key_end: Some(join(index_of_interval(link), prefix.broadcast())),
                ..Raw::new(
                    Family::of(prefix.addr()),
                    Set::SourcePrefixes,
                    join(index_of_interval(link), prefix.network()),
                )
            }],
            Self::Nat { floating, internal } => {
                let family = same_family(floating, internal)?;
                let key = types::octets(floating);
                let data = Some(types::octets(internal));
                vec![
                    Raw {
                        data,
                        ..Raw::new(family, Set::Fips, key.clone())
                    },
                    Raw::new(family, Set::Floating, key),
                ]
            }
            Self::Ending(floating, internal) => vec![pair(Set::Ending, floating, internal)?],
            Self::Draining(floating, internal, time) => vec![Raw {
                // None at all would mean for ever.
                time: Some(u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)),
                ..pair(Set::Draining, floating, internal)?
            }],
        })
    }
}

impl Transaction {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.del.is_empty()
    }

    /// The parts to add and to delete; those in both stay as they are.
    pub(super) fn raw(&self) -> Result<RawTransaction> {
        let parts = |elements: &BTreeSet<Element>| -> Result<BTreeSet<Raw>> {
            let lists: Vec<Vec<Raw>> = elements.iter().map(Element::raw).collect::<Result<_>>()?;
            Ok(lists.into_iter().flatten().collect())
        };
        let (add, del) = (parts(&self.add)?, parts(&self.del)?);
        let in_del = |raw: &&Raw| !add.contains(*raw);
        let del = del.iter().filter(in_del).cloned().collect();
        Ok(RawTransaction { add, del })
    }
}

/// A transaction in parts, ordered by family and set.
#[derive(Debug)]
pub(super) struct RawTransaction {
    add: BTreeSet<Raw>,
    del: BTreeSet<Raw>,
}

impl RawTransaction {
    pub(super) fn is_empty(&self) -> bool {
        self.add.is_empty() && self.del.is_empty()
    }

    pub(super) fn deletes(&self) -> bool {
        !self.del.is_empty()
    }

    pub(super) fn batch(&self, deletion: Deletion) -> Batch {
        let delete = match deletion {
            Deletion::Destroy => api::DESTROY_SET_ELEMENT,
            Deletion::Delete => api::DELETE_SET_ELEMENT,
        };
        let mut batch = Batch::default();
        write_lists(&mut batch, &self.del, delete, 0, false);
        write_lists(&mut batch, &self.add, api::NEW_SET_ELEMENT, NLM_F_CREATE, true);
        batch
    }
}

/// Writes elements as lists, each of one set and below the limit.
fn write_lists(batch: &mut Batch, elements: &BTreeSet<Raw>, kind: u16, flags: u16, with_data: bool) {
    let mut open: Option<(Family, Set, Message, usize)> = None;
    for raw in elements {
        let fits = |(family, set, list, _): &(Family, Set, Message, usize)| {
            (*family, *set) == (raw.family, raw.set) && list.len() < LIST_LIMIT
        };
        if !open.as_ref().is_some_and(fits) {
            finish(batch, open.take());
        }
        let (_, _, list, _) = open.get_or_insert_with(|| {
            let mut list = message(kind, flags, raw.family)
                .text(api::TABLE_NAME, TABLE)
                .text(api::LIST_SET, raw.set.name());
            let start = list.open(api::LIST_ELEMENTS);
            (raw.family, raw.set, list, start)
        });
        raw.write(list, with_data);
    }
    finish(batch, open);
}

fn finish(batch: &mut Batch, open: Option<(Family, Set, Message, usize)>) {
    if let Some((_, _, mut list, start)) = open {
        list.close(start);
        batch.push(list);
    }
}

/// An interface index as the kernel compares it: in the machine's own order.
fn index(link: IfIndex) -> Vec<u8> {
    link.0.to_ne_bytes().to_vec()
}

/// An interface index in a set of intervals, where `nft` has every rule convert to network order.
fn index_of_interval(link: IfIndex) -> Vec<u8> {
    link.0.to_be_bytes().to_vec()
}

fn join(mut first: Vec<u8>, second: IpAddr) -> Vec<u8> {
    first.extend(types::octets(second));
    first
}

fn pair(set: Set, floating: IpAddr, internal: IpAddr) -> Result<Raw> {
    let family = same_family(floating, internal)?;
    Ok(Raw::new(family, set, join(types::octets(floating), internal)))
}

fn same_family(floating: IpAddr, internal: IpAddr) -> Result<Family> {
    if floating.is_ipv4() == internal.is_ipv4() {
        Ok(Family::of(floating))
    } else {
        Err(Error::Invalid(format!(
            "floating ip {floating} and address {internal} are of different families"
        )))
    }
}

/// Splits a key of interface index and address; the index is in the order that the set has.
pub(super) fn split_link(key: &[u8], order: fn([u8; 4]) -> u32) -> Option<(IfIndex, IpAddr)> {
    let (link, address) = key.split_at_checked(4)?;
    Some((IfIndex(order(link.try_into().ok()?)), types::address(address)?))
}

/// Splits a key of two addresses of one family.
pub(super) fn split_pair(key: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let (first, second) = key.split_at_checked(key.len() / 2)?;
    Some((types::address(first)?, types::address(second)?))
}

/// The prefix from first to last address, if it is one.
pub(super) fn prefix_of(first: IpAddr, last: IpAddr) -> Option<IpNet> {
    let length = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => common_v4(first, last),
        (IpAddr::V6(first), IpAddr::V6(last)) => common_v6(first, last),
        _ => return None,
    };
    let prefix = IpNet::new(first, length as u8).ok()?;
    (prefix.network() == first && prefix.broadcast() == last).then_some(prefix)
}

fn common_v4(first: Ipv4Addr, last: Ipv4Addr) -> u32 {
    (first.to_bits() ^ last.to_bits()).leading_zeros()
}

fn common_v6(first: Ipv6Addr, last: Ipv6Addr) -> u32 {
    (first.to_bits() ^ last.to_bits()).leading_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn mixed_families_are_refused() {
        let mixed = Element::Nat {
            floating: ip("172.16.1.3"),
            internal: ip("fd00::1"),
        };
        assert!(matches!(mixed.raw(), Err(Error::Invalid(_))));
        assert!(matches!(
            Element::Ending(ip("fd00::1"), ip("10.0.0.1")).raw(),
            Err(Error::Invalid(_))
        ));
    }

    #[test]
    fn a_moved_address_stays_in_the_set_of_floating_ips() {
        let to = |internal| Element::Nat {
            floating: ip("172.16.1.3"),
            internal: ip(internal),
        };
        let transaction = Transaction {
            add: [to("10.65.0.2")].into(),
            del: [to("10.65.0.1")].into(),
        };
        let raw = transaction.raw().unwrap();
        assert!(raw.del.iter().all(|part| part.set == Set::Fips), "{raw:?}");
    }

    #[test]
    fn long_lists_are_split_below_the_attributes_limit() {
        let add = (0..10_000).map(|index| {
            let address = IpAddr::V4(Ipv4Addr::from_bits(0xac10_0000 + index));
            Element::Nat {
                floating: address,
                internal: address,
            }
        });
        let raw = Transaction {
            add: add.collect(),
            del: BTreeSet::new(),
        }
        .raw()
        .unwrap();
        let batch = raw.batch(Deletion::Destroy);
        assert!(
            batch.lengths().all(|length| length < 65_536),
            "{:?}",
            batch.lengths().collect::<Vec<_>>()
        );
        assert!(batch.lengths().count() > 5);
    }

    #[test]
    fn intervals_that_are_prefixes_read_back() {
        for text in [
            "10.0.0.0/8",
            "0.0.0.0/0",
            "10.1.2.3/32",
            "2001:db8::/32",
            "::/0",
            "fd00::1/128",
        ] {
            let prefix: IpNet = text.parse().unwrap();
            assert_eq!(prefix_of(prefix.network(), prefix.broadcast()), Some(prefix));
        }
        assert_eq!(prefix_of(ip("10.0.0.1"), ip("10.0.0.2")), None);
    }
}
