//! Reading sets and maps back.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::Duration,
};

use super::{
    TABLE, api, batch,
    batch::message,
    element::{Element, Raw, Set, prefix_of, split_link, split_pair},
};
use crate::{
    Family, IfIndex,
    error::{Doing, Result},
    netlink::{
        Failure, Socket,
        wire::{Attributes, Received, big_endian},
    },
    types,
};

/// What the tables hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dump {
    /// Elements that are there with all their parts.
    pub elements: BTreeSet<Element>,
    /// Elements of which a part is missing, since somebody else deleted it. Adding such a one completes it;
    /// deleting it takes the rest away.
    pub partial: BTreeSet<Element>,
}

impl Dump {
    /// Puts the parts together.
    pub(super) fn assemble(parts: BTreeSet<Raw>) -> Self {
        let floating: BTreeMap<_, _> = parts
            .iter()
            .filter(|raw| raw.set == Set::Fips)
            .map(|raw| ((raw.family, &raw.key), raw))
            .collect();
        let mut dump = Self::default();
        for raw in &parts {
            let element = match raw.set {
                // Without the map's part nobody knows the address; the set's part alone translates to itself.
                Set::Floating if !floating.contains_key(&(raw.family, &raw.key)) => types::address(&raw.key)
                    .map(|floating| Element::Nat {
                        floating,
                        internal: floating,
                    }),
                Set::Floating => continue,
                _ => meaning(raw),
            };
            let Some(element) = element else { continue };
            let complete = element
                .raw()
                .is_ok_and(|needed| needed.iter().all(|part| parts.contains(part)));
            if complete {
                dump.elements.insert(element);
            } else {
                dump.partial.insert(element);
            }
        }
        dump
    }
}

/// The element of which this is the telling part.
fn meaning(raw: &Raw) -> Option<Element> {
    match raw.set {
        Set::Links => Some(Element::Link(IfIndex(u32::from_ne_bytes(
            raw.key.as_slice().try_into().ok()?,
        )))),
        Set::Fips => {
            let internal = types::address(raw.data.as_deref()?)?;
            Some(Element::Nat {
                floating: types::address(&raw.key)?,
                internal,
            })
        }
        Set::Floating => None,
        Set::Sources => {
            split_link(&raw.key, u32::from_ne_bytes).map(|(link, address)| Element::Source(link, address))
        }
        Set::SourcePrefixes => {
            let (link, first) = split_link(&raw.key, u32::from_be_bytes)?;
            let (_, last) = split_link(raw.key_end.as_deref()?, u32::from_be_bytes)?;
            Some(Element::SourcePrefix(link, prefix_of(first, last)?))
        }
        Set::Ending => split_pair(&raw.key).map(|(floating, internal)| Element::Ending(floating, internal)),
        Set::Draining => {
            // One that never ends is not of our making, and counts as partial.
            let time = Duration::from_millis(raw.time.unwrap_or_default());
            split_pair(&raw.key).map(|(floating, internal)| Element::Draining(floating, internal, time))
        }
    }
}

/// How often a set is read whose table the kernel is resizing, and the pause between. The kernel does that in the
/// background, within milliseconds of a large change; a busy machine takes its time.
const RESIZING: (u32, Duration) = (200, Duration::from_millis(5));

/// Reads all elements of one set.
///
/// The kernel continues a list after as many elements as it has listed. Where it moves them to a larger or smaller table
/// meanwhile, it leaves some out without a word, and lists others twice in their stead: by that it is known.
pub(super) fn read_set(socket: &mut Socket, family: Family, set: Set) -> Result<BTreeSet<Raw>> {
    let (attempts, pause) = RESIZING;
    for _ in 0..attempts {
        let listed = list_set(socket, family, set)?;
        let count = listed.len();
        let distinct: BTreeSet<Raw> = listed.into_iter().collect();
        if distinct.len() == count {
            return Ok(distinct);
        }
        thread::sleep(pause);
    }
    Err(Failure::Interrupted).doing(|| listing(set))
}

fn list_set(socket: &mut Socket, family: Family, set: Set) -> Result<Vec<Raw>> {
    let request = message(api::GET_SET_ELEMENT, 0, family)
        .text(api::TABLE_NAME, TABLE)
        .text(api::LIST_SET, set.name());
    let lists = socket
        .dump(request, |received| Some(read_list(received, family, set)))
        .doing(|| listing(set))?;
    Ok(lists.into_iter().flatten().collect())
}

fn listing(set: Set) -> String {
    format!("list set {} of table {TABLE}", set.name())
}

fn read_list(received: &Received<'_>, family: Family, set: Set) -> Vec<Raw> {
    received
        .attributes(batch::HEADER)
        .inside(api::LIST_ELEMENTS)
        .filter(|(kind, _)| *kind == api::LIST_ELEMENT)
        .filter_map(|(_, element)| read_element(Attributes(element), family, set))
        .collect()
}

fn read_element(element: Attributes<'_>, family: Family, set: Set) -> Option<Raw> {
    let value = |kind| element.inside(kind).get(api::DATA_VALUE).map(<[u8]>::to_vec);
    Some(Raw {
        family,
        set,
        key: value(api::ELEMENT_KEY)?,
        key_end: value(api::ELEMENT_KEY_END),
        data: value(api::ELEMENT_DATA),
        time: element.get(api::ELEMENT_EXPIRATION).and_then(big_endian),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_are_alone_are_partial() {
        let link = Element::Link(IfIndex(7));
        let nat = Element::Nat {
            floating: [172, 16, 1, 3].into(),
            internal: [10, 65, 0, 1].into(),
        };
        let whole: BTreeSet<Raw> = [link, nat]
            .iter()
            .flat_map(|element| element.raw().unwrap())
            .collect();
        let dump = Dump::assemble(whole.clone());
        assert_eq!(
            dump,
            Dump {
                elements: [link, nat].into(),
                partial: BTreeSet::new()
            }
        );
        for part in &whole {
            let mut rest = whole.clone();
            rest.remove(part);
            let dump = Dump::assemble(rest);
            assert_eq!(
                (dump.elements.len(), dump.partial.len()),
                (1, 1),
                "without {part:?}"
            );
        }
    }
}
