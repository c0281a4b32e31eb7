//! What is in the kernel, compared with what loading makes.
//!
//! The kernel keeps a rule as expressions, and which ones `nft` makes of a text depends on its version. So every rule is
//! loaded twice by one transaction: into the chain that packets pass, and into the marker, where none comes. The chains
//! are whole as long as both are equal. This needs no memory but the kernel's, so any process can tell, at any time.

use std::collections::{BTreeMap, BTreeSet};

use nix::errno::Errno;

use super::{
    TABLE, api, batch,
    batch::{kind_of, message},
    template,
    template::CHAINS,
};
use crate::{
    Family,
    error::{Doing, Result},
    netlink::{
        Socket,
        wire::{Received, big_endian, text},
    },
};

/// `NFT_TABLE_F_DORMANT`: no packet passes the table's chains.
const DORMANT: u64 = 1;
/// `NF_ACCEPT`.
const ACCEPT: u32 = 1;

/// What is in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skeleton {
    /// Neither table.
    Absent,
    /// Both tables, of this version, with every chain in its place and every rule as it was loaded.
    Current,
    /// Something else: one table only or put to sleep, another version, chains or rules missing, changed or too many.
    Different,
}

/// A chain as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Chain {
    pub(super) family: Family,
    pub(super) name: String,
    /// None if packets come only from other chains.
    pub(super) place: Option<Place>,
}

/// Where packets enter a chain, and what becomes of them at its end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    kind: String,
    hook: u32,
    priority: i32,
    policy: u32,
}

/// The expressions of each rule of a table, in order, by chain. Handles and comments are left out.
pub(super) type Rules = BTreeMap<String, Vec<Vec<u8>>>;

/// Compares what is in the kernel with what loading makes. Asks six times, whatever the sets hold.
pub(super) fn inspect(socket: &mut Socket) -> Result<Skeleton> {
    let mut flags = Vec::new();
    for family in Family::BOTH {
        flags.push(table_flags(socket, family)?);
    }
    if flags.iter().all(Option::is_none) {
        return Ok(Skeleton::Absent);
    }
    let awake = flags
        .iter()
        .all(|flags| flags.is_some_and(|flags| flags & DORMANT == 0));
    if !awake || chains(socket)? != expected_chains() {
        return Ok(Skeleton::Different);
    }
    for family in Family::BOTH {
        if !are_whole(family, &rules(socket, family)?) {
            return Ok(Skeleton::Different);
        }
    }
    Ok(Skeleton::Current)
}

/// Whether each chain has the rules that the marker has for it. The text tells how many, so that tables whose rules are
/// all gone are not taken for whole.
fn are_whole(family: Family, rules: &Rules) -> bool {
    let of = |chain: &str| rules.get(chain).map_or(&[][..], Vec::as_slice);
    let mut copies = of(&template::marker());
    for chain in &CHAINS {
        let count = template::rules(family, chain.name).len();
        match copies.split_at_checked(count) {
            Some((own, others)) if own == of(chain.name) => copies = others,
            _ => return false,
        }
    }
    copies.is_empty()
}

/// Flags of the table, none if it is absent.
fn table_flags(socket: &mut Socket, family: Family) -> Result<Option<u64>> {
    let request = message(api::GET_TABLE, 0, family).text(api::TABLE_NAME, TABLE);
    let read =
        |received: &Received<'_>| big_endian(received.attributes(batch::HEADER).get(api::TABLE_FLAGS)?);
    match socket.request(request, read) {
        Err(failure) if failure.errno() == Some(Errno::ENOENT) => Ok(None),
        outcome => {
            let found = outcome.doing(|| format!("look for table {TABLE}"))?;
            Ok(Some(found.first().copied().unwrap_or_default()))
        }
    }
}

/// Chains of both tables.
pub(super) fn chains(socket: &mut Socket) -> Result<BTreeSet<Chain>> {
    let mut all = BTreeSet::new();
    for family in Family::BOTH {
        let read = |received: &Received<'_>| read_chain(received, family);
        let found = match socket.dump(message(api::GET_CHAIN, 0, family), read) {
            Err(failure) if failure.errno() == Some(Errno::ENOENT) => Vec::new(),
            outcome => outcome.doing(|| format!("list the chains of table {TABLE}"))?,
        };
        all.extend(found);
    }
    Ok(all)
}

fn read_chain(received: &Received<'_>, family: Family) -> Option<Chain> {
    let attributes = received.attributes(batch::HEADER);
    let is_ours = kind_of(received.kind) == Some(api::NEW_CHAIN)
        && attributes.get(api::TABLE_NAME).map(text).as_deref() == Some(TABLE);
    if !is_ours {
        return None;
    }
    let hook = attributes.inside(api::CHAIN_HOOK);
    let number = |value: Option<&[u8]>| Some(u32::from_be_bytes(value?.try_into().ok()?));
    let place = number(hook.get(api::HOOK_NUMBER)).map(|at| Place {
        kind: attributes.get(api::CHAIN_TYPE).map(text).unwrap_or_default(),
        hook: at,
        priority: number(hook.get(api::HOOK_PRIORITY)).unwrap_or_default() as i32,
        policy: number(attributes.get(api::CHAIN_POLICY)).unwrap_or_default(),
    });
    Some(Chain {
        family,
        name: text(attributes.get(api::CHAIN_NAME)?),
        place,
    })
}

/// The chains that loading makes.
pub(super) fn expected_chains() -> BTreeSet<Chain> {
    let of_family = |family| {
        let hooked = CHAINS.iter().map(move |chain| Chain {
            family,
            name: chain.name.to_owned(),
            place: Some(Place {
                kind: chain.kind.to_owned(),
                hook: chain.hook as u32,
                priority: chain.priority,
                policy: ACCEPT,
            }),
        });
        let marker = Chain {
            family,
            name: template::marker(),
            place: None,
        };
        hooked.chain([marker])
    };
    Family::BOTH.into_iter().flat_map(of_family).collect()
}

/// Rules of one family's table.
pub(super) fn rules(socket: &mut Socket, family: Family) -> Result<Rules> {
    let request = message(api::GET_RULE, 0, family).text(api::TABLE_NAME, TABLE);
    let read = |received: &Received<'_>| {
        let attributes = received.attributes(batch::HEADER);
        let expressions = attributes.get(api::RULE_EXPRESSIONS).unwrap_or_default();
        Some((text(attributes.get(api::RULE_CHAIN)?), expressions.to_vec()))
    };
    let found = socket
        .dump(request, read)
        .doing(|| format!("list the rules of table {TABLE}"))?;
    let mut rules = Rules::new();
    for (chain, expressions) in found {
        rules.entry(chain).or_default().push(expressions);
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text instead of expressions, each chain's and all in the marker.
    fn loaded() -> Rules {
        let own = |chain: &str| -> Vec<Vec<u8>> {
            let rules = template::rules(Family::V4, chain).into_iter();
            rules.map(String::into_bytes).collect()
        };
        let copies = CHAINS.iter().flat_map(|chain| own(chain.name)).collect();
        let chains = CHAINS
            .iter()
            .map(|chain| (chain.name.to_owned(), own(chain.name)));
        chains.chain([(template::marker(), copies)]).collect()
    }

    #[test]
    fn rules_are_whole_only_as_they_were_loaded() {
        assert!(are_whole(Family::V4, &loaded()));
        assert!(!are_whole(Family::V4, &Rules::new()), "all flushed");
        assert!(
            !are_whole(Family::V6, &loaded()),
            "another family has other rules"
        );
        for chain in loaded().into_keys() {
            let broken = |change: fn(&mut Vec<Vec<u8>>)| {
                let mut rules = loaded();
                change(rules.get_mut(&chain).unwrap());
                !are_whole(Family::V4, &rules)
            };
            assert!(broken(Vec::clear), "{chain}: flushed");
            assert!(broken(|rules| drop(rules.pop())), "{chain}: the last deleted");
            assert!(
                broken(|rules| drop(rules.remove(0))),
                "{chain}: the first deleted"
            );
            assert!(broken(|rules| rules.insert(0, vec![1])), "{chain}: one inserted");
            assert!(broken(|rules| rules.push(vec![1])), "{chain}: one added");
            assert!(broken(|rules| rules[0] = vec![1]), "{chain}: one replaced");
        }
    }

    #[test]
    fn order_counts() {
        let mut rules = loaded();
        rules.get_mut("check_source").unwrap().reverse();
        assert!(!are_whole(Family::V4, &rules));
    }

    #[test]
    fn a_rule_in_the_next_chain_is_not_where_it_was() {
        let mut rules = loaded();
        let last = rules.get_mut("check_source").unwrap().pop().unwrap();
        rules.get_mut("dnat_in").unwrap().insert(0, last);
        assert!(!are_whole(Family::V4, &rules));
    }
}
