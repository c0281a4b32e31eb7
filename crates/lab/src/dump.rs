//! A namespace's network state as text, to be compared: what Buoy makes must be gone after it, and what it did not make
//! must not change.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::exec::eventually;
use crate::netns::Netns;

/// Sections of sorted lines. Counters, indexes and time are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dump {
    sections: BTreeMap<String, Vec<String>>,
}

/// Sections by the command that gives them, and the keys of its JSON that are no state.
const JSON_COMMANDS: [(&str, &str); 8] = [
    ("links", "ip -j -d link show"),
    ("addresses", "ip -j address show"),
    ("routes v4", "ip -j -4 route show table all"),
    ("routes v6", "ip -j -6 route show table all"),
    ("rules v4", "ip -j -4 rule show"),
    ("rules v6", "ip -j -6 rule show"),
    ("neighbours", "ip -j neighbour show nud permanent"),
    ("proxies", "ip -j neighbour show proxy"),
];

/// Keys that change by themselves or mean nothing outside one moment.
const VOLATILE: [&str; 8] = [
    "ifindex",
    "link_index",
    "link_netnsid",
    "valid_life_time",
    "preferred_life_time",
    "stats64",
    "expires",
    "users",
];

/// Directories of sysctls, and which files in them count; an empty list means all.
const SYSCTLS: [(&str, &[&str]); 6] = [
    (
        "/proc/sys/net/ipv4",
        &["ip_forward", "ip_nonlocal_bind", "fwmark_reflect"],
    ),
    (
        "/proc/sys/net/ipv4/conf/*",
        &[
            "accept_local",
            "accept_redirects",
            "arp_announce",
            "arp_ignore",
            "forwarding",
            "proxy_arp",
            "route_localnet",
            "rp_filter",
            "send_redirects",
            "src_valid_mark",
        ],
    ),
    (
        "/proc/sys/net/ipv4/neigh/*",
        &["proxy_delay", "gc_thresh1", "gc_thresh2", "gc_thresh3"],
    ),
    (
        "/proc/sys/net/ipv6/conf/*",
        &[
            "accept_dad",
            "accept_ra",
            "accept_redirects",
            "disable_ipv6",
            "forwarding",
            "proxy_ndp",
        ],
    ),
    ("/proc/sys/net/ipv6/neigh/*", &["proxy_delay"]),
    (
        "/proc/sys/net/netfilter",
        &[
            "nf_conntrack_tcp_loose",
            "nf_conntrack_tcp_be_liberal",
            "nf_conntrack_acct",
        ],
    ),
];

/// How long a namespace may take to come to rest on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

impl Dump {
    /// Takes the state of a namespace once nothing changes any more.
    pub fn at_rest(netns: &Netns) -> Result<Self> {
        netns.wait_for_addresses()?;
        let mut last = Self::take(netns)?;
        eventually(PATIENCE, &format!("{} comes to rest", netns.name()), || {
            let before = std::mem::replace(&mut last, Self::take(netns)?);
            let difference = before.difference(&last);
            ensure!(difference.is_empty(), "{difference}");
            Ok(())
        })?;
        Ok(last)
    }

    /// Takes the state of a namespace.
    pub fn take(netns: &Netns) -> Result<Self> {
        let mut dump = Self::default();
        for (section, command) in JSON_COMMANDS {
            let printed = netns.exec(command)?.stdout;
            let lines = rows(&printed).with_context(|| format!("{command} in {}", netns.name()))?;
            dump.sections.insert(section.to_owned(), lines);
        }
        let ruleset = netns.exec("nft --stateless list ruleset")?.stdout;
        dump.sections.insert(
            "nftables".to_owned(),
            ruleset.lines().map(str::to_owned).collect(),
        );
        let sysctls = netns.enter(|| {
            Ok(SYSCTLS
                .iter()
                .flat_map(|(at, names)| sysctls(at, names))
                .collect())
        })?;
        dump.sections.insert("sysctls".to_owned(), sysctls);
        Ok(dump)
    }

    /// The lines of a section.
    pub fn section(&self, name: &str) -> &[String] {
        self.sections.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// The number of lines.
    pub fn len(&self) -> usize {
        self.sections.values().map(Vec::len).sum()
    }

    /// Whether there are no lines.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is different in `now`, a line each: `-` gone, `+` new; nothing if all is the same.
    pub fn difference(&self, now: &Self) -> String {
        let mut text = String::new();
        for (section, before) in &self.sections {
            let after = now.section(section);
            let gone = before
                .iter()
                .filter(|line| !after.contains(line))
                .map(|line| ('-', line));
            let new = after
                .iter()
                .filter(|line| !before.contains(line))
                .map(|line| ('+', line));
            for (sign, line) in gone.chain(new) {
                // Writing to a string does not fail.
                let _ = writeln!(text, "{sign} {section}: {line}");
            }
        }
        text
    }
}

/// The elements of a JSON list, one sorted line each.
fn rows(printed: &str) -> Result<Vec<String>> {
    if printed.trim().is_empty() {
        return Ok(Vec::new());
    }
    let list: Value = serde_json::from_str(printed)?;
    let mut rows: Vec<String> = list
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
        .iter()
        .map(|row| without_volatile(row).to_string())
        .filter(|row| row != "{}")
        .collect();
    rows.sort();
    Ok(rows)
}

fn without_volatile(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(key, _)| !VOLATILE.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), without_volatile(value)))
            .collect(),
        Value::Array(items) => items.iter().map(without_volatile).collect(),
        other => other.clone(),
    }
}

/// `path = value` of the sysctls in a directory; `*` at its end stands for every directory there.
fn sysctls(directory: &str, names: &[&str]) -> Vec<String> {
    let Some(parent) = directory.strip_suffix("/*") else {
        return names.iter().filter_map(|name| sysctl(directory, name)).collect();
    };
    let mut lines: Vec<String> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some(format!("{parent}/{}", entry.file_name().to_str()?)))
        .flat_map(|directory| names.iter().filter_map(move |name| sysctl(&directory, name)))
        .collect();
    lines.sort();
    lines
}

fn sysctl(directory: &str, name: &str) -> Option<String> {
    let value = fs::read_to_string(format!("{directory}/{name}")).ok()?;
    Some(format!("{directory}/{name} = {}", value.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Run;

    #[test]
    fn a_dump_shows_each_change_and_nothing_else() {
        let run = Run::begin().unwrap();
        let (a, b) = (Netns::make(&run, "a").unwrap(), Netns::make(&run, "b").unwrap());
        a.link("eth0", &b, "eth0").unwrap();
        let before = Dump::at_rest(&a).unwrap();
        for (change, back, seen) in [
            (
                "ip address add 192.0.2.1/24 dev eth0",
                "ip address del 192.0.2.1/24 dev eth0",
                "192.0.2.1",
            ),
            (
                "ip route add blackhole 10.0.0.0/8",
                "ip route del blackhole 10.0.0.0/8",
                "blackhole",
            ),
            (
                "ip -6 rule add from 2001:db8::/64 table 7",
                "ip -6 rule del table 7",
                "2001:db8::",
            ),
            (
                "ip neighbour add 192.0.2.7 lladdr 02:00:00:00:00:07 nud permanent dev eth0",
                "ip neighbour del 192.0.2.7 dev eth0",
                "192.0.2.7",
            ),
            (
                "nft add table ip foreign",
                "nft delete table ip foreign",
                "table ip foreign",
            ),
            ("ip link set eth0 mtu 1400", "ip link set eth0 mtu 1500", "1400"),
            (
                "sysctl -qw net.ipv4.conf.eth0.proxy_arp=1",
                "sysctl -qw net.ipv4.conf.eth0.proxy_arp=0",
                "proxy_arp = 1",
            ),
        ] {
            a.exec(change).unwrap();
            let difference = before.difference(&Dump::take(&a).unwrap());
            assert!(difference.contains(seen), "{change}: {difference}");
            a.exec(back).unwrap();
            assert_eq!(before.difference(&Dump::take(&a).unwrap()), "", "{back}");
        }
    }
}
