//! Loading the skeleton as text, by `nft`.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io::{self, Write as _},
    process::{Child, Command, Stdio},
};

use super::{
    Nft, TABLE,
    inspect::{self, Chain},
    template::{keyword, skeleton},
};
use crate::{
    Family,
    error::{Doing, Error, Result},
    netlink::{OwnPorts, Socket},
};

/// Name of the expression that converts to network order.
const CONVERSION: &[u8] = b"byteorder\0";
/// Found in `PATH`.
const PROGRAM: &str = "nft";
/// The oldest `nft` whose language has all that the text uses.
const OLDEST_NFT: (u32, u32, u32) = (1, 0, 0);

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
    let present = inspect::chains(&mut nft.socket)?;
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
    let converts = |rule: &Vec<u8>| rule.windows(CONVERSION.len()).any(|words| words == CONVERSION);
    for family in Family::BOTH {
        if !inspect::rules(socket, family)?.values().flatten().any(converts) {
            return Err(Error::NftTooOld {
                found: "it does not convert interface indexes".to_owned(),
            });
        }
    }
    Ok(())
}

/// The text that makes the skeleton out of what is there.
fn script(present: &BTreeSet<Chain>) -> String {
    let expected = inspect::expected_chains();
    let strange: Vec<_> = present.difference(&expected).collect();
    let mut script = String::new();
    // All rules first, since a strange chain may be used by any other. A chain in another place cannot be moved, only
    // made again.
    for chain in present {
        clear(&mut script, "flush", chain);
    }
    for chain in strange {
        clear(&mut script, "delete", chain);
    }
    for family in Family::BOTH {
        script += &skeleton(family);
    }
    script
}

fn clear(script: &mut String, verb: &str, chain: &Chain) {
    let ip = keyword(chain.family);
    let _ = writeln!(script, "{verb} chain {ip} {TABLE} {}", chain.name);
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
    fn all_rules_go_before_a_chain_is_deleted() {
        let strange = |name: &str| Chain {
            family: Family::V4,
            name: name.to_owned(),
            place: None,
        };
        let mut present = inspect::expected_chains();
        present.extend([strange("a"), strange("b")]);
        let script = script(&present);
        let at = |line: &str| script.find(line).unwrap_or_else(|| panic!("{line} is missing"));
        assert!(at("flush chain ip buoy b") < at("delete chain ip buoy a"));
        assert!(at("flush chain ip buoy dnat_in") < at("delete chain ip buoy a"));
        assert_eq!(script.matches("delete chain").count(), 2);
    }

    #[test]
    fn a_chain_in_another_place_is_made_again() {
        let unhooked = Chain {
            family: Family::V6,
            name: "dnat_in".to_owned(),
            place: None,
        };
        let script = script(&[unhooked].into());
        let at = |line: &str| script.find(line).unwrap_or_else(|| panic!("{line} is missing"));
        assert!(at("delete chain ip6 buoy dnat_in") < at("add chain ip6 buoy dnat_in"));
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
