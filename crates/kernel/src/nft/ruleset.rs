//! The skeleton: tables, chains, rules and empty sets, loaded as text by `nft`.
//!
//! An empty chain whose name is a hash of the text marks the version, so one netlink request tells whether a table
//! is ours and current.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io::{self, Write as _},
    process::{Child, Command, Stdio},
};

use nix::errno::Errno;

use super::{
    Nft, TABLE, api, batch,
    batch::{kind_of, message},
};
use crate::{
    Family,
    error::{Doing, Error, Result},
    netlink::{
        OwnPorts, Socket,
        wire::{Received, text},
    },
};

/// The text for one family.
const TEMPLATE: &str = include_str!("skeleton.nft");
/// What IPv6 lets a workload send besides: neighbour discovery has no other source yet.
const MORE_V6: &str = "add rule ip6 buoy check_source ip6 saddr fe80::/10 accept
add rule ip6 buoy check_source ip6 saddr :: accept";
/// Markers of any version begin with this.
const MARKER_PREFIX: &str = "buoy_v1_";
/// The chains of the template.
const CHAINS: [&str; 5] = [
    "check_source",
    "dnat_in",
    "dnat_out",
    "snat_hairpin",
    "check_translated",
];
/// Name of the expression that converts to network order.
const CONVERSION: &[u8] = b"byteorder\0";
/// Found in `PATH`.
const PROGRAM: &str = "nft";
/// The oldest `nft` whose language has all that the text uses.
const OLDEST_NFT: (u32, u32, u32) = (1, 0, 0);

/// What is in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skeleton {
    /// Neither table.
    Absent,
    /// Both tables, of this version.
    Current,
    /// Something else: one table only, another version, chains missing or too many.
    Different,
}

/// What loading meant for the elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loaded {
    /// Sets and maps hold what they held.
    Kept,
    /// The tables were of a form that could not be kept; sets and maps are empty now.
    Emptied,
}

/// Loads the skeleton: makes what is missing, restores every rule, removes what is not ours from the tables, and keeps
/// the elements if it can. One transaction, so no packet sees a half of it.
///
/// `own` learns the port by which `nft` makes the change.
///
/// # Errors
/// [`Error::NftMissing`], [`Error::NftTooOld`], [`Error::NftRefused`].
pub fn load(nft: &mut Nft, own: &OwnPorts) -> Result<Loaded> {
    check_version(PROGRAM)?;
    let present = chains(&mut nft.socket)?;
    let loaded = match run(&script(&present), own) {
        Ok(()) => Loaded::Kept,
        // A set of another type cannot be changed into ours.
        Err(Error::NftRefused { stderr }) => {
            tracing::info!(stderr, "the tables cannot be kept and are made anew");
            run(&from_nothing(), own)?;
            Loaded::Emptied
        }
        Err(error) => return Err(error),
    };
    check_index_order(&mut nft.socket)?;
    Ok(loaded)
}

/// Makes sure that this `nft` wrote the lookup of an interface index among intervals as the elements are: some versions
/// convert the index to network order first, some do not.
fn check_index_order(socket: &mut Socket) -> Result<()> {
    let converts = |received: &Received<'_>| {
        received
            .payload
            .windows(CONVERSION.len())
            .any(|words| words == CONVERSION)
            .then_some(())
    };
    for family in Family::BOTH {
        let request = message(api::GET_RULE, 0, family).text(api::TABLE_NAME, TABLE);
        let found = socket
            .dump(request, converts)
            .doing(|| format!("list the rules of table {TABLE}"))?;
        if found.is_empty() {
            return Err(Error::NftTooOld {
                found: "it does not convert interface indexes".to_owned(),
            });
        }
    }
    Ok(())
}

/// Compares what is in the kernel with the text.
pub(super) fn inspect(socket: &mut Socket) -> Result<Skeleton> {
    let present = chains(socket)?;
    if present == expected_chains() {
        return Ok(Skeleton::Current);
    }
    let any_table = !present.is_empty() || Family::BOTH.iter().any(|family| has_table(socket, *family));
    Ok(if any_table {
        Skeleton::Different
    } else {
        Skeleton::Absent
    })
}

fn has_table(socket: &mut Socket, family: Family) -> bool {
    let request = message(api::GET_TABLE, 0, family).text(api::TABLE_NAME, TABLE);
    socket.request(request, |_| None::<()>).is_ok()
}

/// Chains of both tables.
fn chains(socket: &mut Socket) -> Result<BTreeSet<(Family, String)>> {
    let mut all = BTreeSet::new();
    for family in Family::BOTH {
        let found = match socket.dump(message(api::GET_CHAIN, 0, family), read_chain) {
            Err(failure) if failure.errno() == Some(Errno::ENOENT) => Vec::new(),
            outcome => outcome.doing(|| format!("list the chains of table {TABLE}"))?,
        };
        all.extend(found.into_iter().map(|name| (family, name)));
    }
    Ok(all)
}

fn read_chain(received: &Received<'_>) -> Option<String> {
    let attributes = received.attributes(batch::HEADER);
    let is_ours = kind_of(received.kind) == Some(api::NEW_CHAIN)
        && attributes.get(api::TABLE_NAME).map(text).as_deref() == Some(TABLE);
    if is_ours {
        attributes.get(api::CHAIN_NAME).map(text)
    } else {
        None
    }
}

fn expected_chains() -> BTreeSet<(Family, String)> {
    let marker = marker();
    let names = || CHAINS.iter().copied().chain([marker.as_str()]);
    Family::BOTH
        .into_iter()
        .flat_map(|family| names().map(move |name| (family, name.to_owned())))
        .collect()
}

/// The text that makes the skeleton out of what is there.
fn script(present: &BTreeSet<(Family, String)>) -> String {
    let expected = expected_chains();
    let marker = marker();
    let mut script = String::new();
    for family in Family::BOTH {
        script += &skeleton(family);
        let ip = keyword(family);
        let _ = writeln!(script, "add chain {ip} {TABLE} {marker}");
        let strange: Vec<_> = present
            .iter()
            .filter(|chain| chain.0 == family && !expected.contains(chain))
            .collect();
        // First all rules, since a strange chain may be used by another.
        for verb in ["flush", "delete"] {
            for (_, chain) in &strange {
                let _ = writeln!(script, "{verb} chain {ip} {TABLE} {chain}");
            }
        }
    }
    script
}

/// The text that makes the skeleton whatever is there.
fn from_nothing() -> String {
    let mut cleared = String::new();
    for family in Family::BOTH {
        let ip = keyword(family);
        let _ = writeln!(cleared, "add table {ip} {TABLE}\ndelete table {ip} {TABLE}");
    }
    cleared + &script(&BTreeSet::new())
}

/// The template for one family.
fn skeleton(family: Family) -> String {
    let (address, more) = match family {
        Family::V4 => ("ipv4_addr", ""),
        Family::V6 => ("ipv6_addr", MORE_V6),
    };
    TEMPLATE
        .replace("{ip}", keyword(family))
        .replace("{addr}", address)
        .replace("{check_source_more}", more)
}

fn keyword(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// Name of the marker chain: FNV-1a of the text.
fn marker() -> String {
    let text = skeleton(Family::V4) + &skeleton(Family::V6);
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, octet| {
        (hash ^ u64::from(octet)).wrapping_mul(0x100_0000_01b3)
    });
    format!("{MARKER_PREFIX}{hash:016x}")
}

fn check_version(program: &str) -> Result<()> {
    let output = match Command::new(program).arg("--version").output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::NftMissing),
        outcome => outcome.doing(|| "run nft --version")?,
    };
    let said = String::from_utf8_lossy(&output.stdout);
    match version_of(&said) {
        Some(version) if version >= OLDEST_NFT => Ok(()),
        _ => Err(Error::NftTooOld {
            found: said.trim().to_owned(),
        }),
    }
}

/// Reads `nftables v1.0.6 (Lester Gooch #5)`.
fn version_of(said: &str) -> Option<(u32, u32, u32)> {
    let number = said.split_whitespace().find_map(|word| word.strip_prefix('v'))?;
    let mut parts = number.split('.').map(|part| part.parse().ok());
    Some((
        parts.next()??,
        parts.next()??,
        parts.next().flatten().unwrap_or(0),
    ))
}

/// Runs `nft -f -` with this text in the calling thread's network namespace.
fn run(script: &str, own: &OwnPorts) -> Result<()> {
    let spawned = Command::new(PROGRAM)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::NftMissing),
        outcome => outcome.doing(|| "run nft")?,
    };
    // A process's first netlink socket has its process id as port. It does nothing before it has the text.
    own.add(child.id());
    let written = write_all(&mut child, script);
    let output = child.wait_with_output().doing(|| "wait for nft")?;
    if !output.status.success() {
        return Err(Error::NftRefused {
            stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    written.doing(|| "hand nft the ruleset")
}

/// Writes the text and closes the pipe.
fn write_all(child: &mut Child, script: &str) -> io::Result<()> {
    match child.stdin.take() {
        Some(mut stdin) => stdin.write_all(script.as_bytes()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_has_no_open_place_and_all_its_chains() {
        for family in Family::BOTH {
            let text = skeleton(family);
            for place in ["{ip}", "{addr}", "{check_source_more}"] {
                assert!(!text.contains(place), "{place} is open");
            }
            for chain in CHAINS {
                assert!(
                    text.contains(&format!("add chain {} {TABLE} {chain} ", keyword(family))),
                    "{chain}"
                );
            }
            assert_eq!(text.matches("add chain").count(), CHAINS.len());
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

    #[test]
    fn strange_chains_are_flushed_before_they_are_deleted() {
        let strange = |name: &str| (Family::V4, name.to_owned());
        let script = script(&[strange("a"), strange("b"), strange("dnat_in")].into());
        let at = |line: &str| script.find(line).unwrap_or_else(|| panic!("{line} is missing"));
        assert!(at("flush chain ip buoy b") < at("delete chain ip buoy a"));
        assert!(!script.contains("delete chain ip buoy dnat_in"));
    }

    #[test]
    fn a_missing_program_is_told() {
        assert!(matches!(check_version("/nowhere/nft"), Err(Error::NftMissing)));
    }

    #[test]
    fn an_old_program_is_told_with_what_it_says() {
        // `echo --version` is a program of no version at all.
        let refused = check_version("echo").unwrap_err();
        assert!(
            matches!(&refused, Error::NftTooOld { found } if !found.is_empty()),
            "{refused}"
        );
        assert!(
            refused.to_string().contains("install nftables"),
            "it says what to do: {refused}"
        );
    }

    #[test]
    fn versions_of_nft() {
        assert_eq!(version_of("nftables v1.0.6 (Lester Gooch #5)"), Some((1, 0, 6)));
        assert_eq!(version_of("nftables v1.1 (x)"), Some((1, 1, 0)));
        assert_eq!(version_of("nft: broken"), None);
        assert!(version_of("nftables v0.9.8 (E.D.S.)").unwrap() < OLDEST_NFT);
    }
}
