//! The skeleton as text: tables, chains, rules and empty sets.
//!
//! The marker is a chain whose name is a hash of the text. It tells the version, and holds every rule once more; see
//! [`super::inspect`].

use std::fmt::Write as _;

use super::TABLE;
use crate::Family;

/// The text for one family.
const TEMPLATE: &str = include_str!("skeleton.nft");
/// What IPv6 lets a workload send besides: neighbour discovery has no other source yet.
const MORE_V6: &str = "add rule ip6 buoy check_source ip6 saddr fe80::/10 accept
add rule ip6 buoy check_source ip6 saddr :: accept";
/// Markers of any version begin with this.
const MARKER_PREFIX: &str = "buoy_v1_";
/// Says to whoever lists the table why the rules are there twice.
const MARKER_COMMENT: &str = "no packet comes here: the agent compares the other chains with these rules";

/// A chain of the template. All of them accept what reaches their end.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) name: &'static str,
    /// `filter` or `nat`.
    pub(super) kind: &'static str,
    pub(super) hook: Hook,
    pub(super) priority: i32,
}

/// Where packets enter a chain; the kernel's numbers (`include/uapi/linux/netfilter.h`).
#[derive(Debug, Clone, Copy)]
pub(super) enum Hook {
    Prerouting = 0,
    Output = 3,
    Postrouting = 4,
}

/// The chains of the template.
pub(super) const CHAINS: [Chain; 5] = [
    chain("check_source", "filter", Hook::Prerouting, -300),
    chain("dnat_in", "nat", Hook::Prerouting, -110),
    chain("dnat_out", "nat", Hook::Output, -110),
    chain("snat_hairpin", "nat", Hook::Postrouting, 90),
    chain("check_translated", "filter", Hook::Postrouting, 0),
];

const fn chain(name: &'static str, kind: &'static str, hook: Hook, priority: i32) -> Chain {
    Chain {
        name,
        kind,
        hook,
        priority,
    }
}

/// The whole text for one family. It can be loaded onto itself.
pub(super) fn skeleton(family: Family) -> String {
    let (ip, marker) = (keyword(family), marker());
    let mut text = filled(family);
    let _ = writeln!(
        text,
        "add chain {ip} {TABLE} {marker} {{ comment \"{MARKER_COMMENT}\"; }}\nflush chain {ip} {TABLE} {marker}"
    );
    for rule in CHAINS.iter().flat_map(|chain| rules(family, chain.name)) {
        let _ = writeln!(text, "add rule {ip} {TABLE} {marker} {rule}");
    }
    text
}

/// The rules of one chain, in order.
pub(super) fn rules(family: Family, chain: &str) -> Vec<String> {
    let begin = format!("add rule {} {TABLE} {chain} ", keyword(family));
    filled(family)
        .lines()
        .filter_map(|line| line.strip_prefix(&begin))
        .map(str::to_owned)
        .collect()
}

/// Name of the marker: FNV-1a of the text.
pub(super) fn marker() -> String {
    let text = filled(Family::V4) + &filled(Family::V6);
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, octet| {
        (hash ^ u64::from(octet)).wrapping_mul(0x100_0000_01b3)
    });
    format!("{MARKER_PREFIX}{hash:016x}")
}

/// The family as `nft` calls it.
pub(super) fn keyword(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// The template for one family.
fn filled(family: Family) -> String {
    let (address, more) = match family {
        Family::V4 => ("ipv4_addr", ""),
        Family::V6 => ("ipv6_addr", MORE_V6),
    };
    TEMPLATE
        .replace("{ip}", keyword(family))
        .replace("{addr}", address)
        .replace("{check_source_more}", more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_has_no_open_place_and_all_its_chains() {
        for family in Family::BOTH {
            let text = filled(family);
            for place in ["{ip}", "{addr}", "{check_source_more}"] {
                assert!(!text.contains(place), "{place} is open");
            }
            for chain in &CHAINS {
                let Chain {
                    name, kind, priority, ..
                } = chain;
                let hook = match chain.hook {
                    Hook::Prerouting => "prerouting",
                    Hook::Output => "output",
                    Hook::Postrouting => "postrouting",
                };
                let line = format!(
                    "add chain {} {TABLE} {name} {{ type {kind} hook {hook} priority {priority}; policy accept; }}",
                    keyword(family)
                );
                assert!(text.contains(&line), "{line}");
            }
            assert_eq!(text.matches("add chain").count(), CHAINS.len());
        }
    }

    #[test]
    fn the_marker_has_every_rule_once_more() {
        for family in Family::BOTH {
            let copies = format!("add rule {} {TABLE} {} ", keyword(family), marker());
            let (again, once): (Vec<_>, Vec<_>) = skeleton(family)
                .lines()
                .filter(|line| line.starts_with("add rule"))
                .map(str::to_owned)
                .partition(|line| line.starts_with(&copies));
            assert_eq!(again.len(), once.len());
            assert!(once.len() > CHAINS.len());
        }
    }

    /// An anonymous set would have another name in the marker, a counter without a name another value.
    #[test]
    fn equal_rules_are_equal_in_the_kernel() {
        for family in Family::BOTH {
            for rule in CHAINS.iter().flat_map(|chain| rules(family, chain.name)) {
                assert!(!rule.contains(['{', '}']), "{rule}");
                let counters = rule.matches("counter").count();
                assert_eq!(counters, rule.matches("counter name").count(), "{rule}");
            }
        }
    }

    #[test]
    fn no_rule_matches_a_protocol() {
        for line in TEMPLATE.lines().filter(|line| line.starts_with("add rule")) {
            for word in ["tcp", "udp", "icmp", "protocol", "l4proto", "dport", "sport"] {
                assert!(!line.contains(word), "{line}");
            }
        }
    }
}
