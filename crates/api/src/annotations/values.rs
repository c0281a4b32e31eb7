//! Values of annotations: from text to what it means.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use jiff::SignedDuration;

use super::{MAX_DRAIN, MAX_FLOATING_IPS, Problem};
use crate::ip::{AddressError, Family, FloatingIp};

pub(super) fn strings(text: &str) -> Result<Vec<String>, Problem> {
    serde_json::from_str(text).map_err(|error| Problem::Json(error.to_string()))
}

fn address(text: &str) -> Result<FloatingIp, Problem> {
    text.parse().map_err(|error| match error {
        AddressError::Syntax(text) => Problem::Syntax(text),
        other => Problem::Address(other),
    })
}

/// Reads the addresses that a pod chose, as [`IP_ADDRS`](super::IP_ADDRS) has them: a JSON list. They come in order of
/// their families.
///
/// Error: there is none, or one is no address, or the second of its family.
pub fn chosen_addresses(text: &str) -> Result<Vec<IpAddr>, Problem> {
    let mut chosen: BTreeMap<Family, IpAddr> = BTreeMap::new();
    let list = strings(text)?;
    if list.is_empty() {
        return Err(Problem::Empty);
    }
    for entry in &list {
        let address = address(entry)?;
        if chosen.insert(address.family(), address.addr()).is_some() {
            return Err(Problem::SecondOfFamily(address.family()));
        }
    }
    Ok(chosen.into_values().collect())
}

pub(super) fn floating_ips(text: &str) -> Result<Vec<FloatingIp>, Problem> {
    let mut floating = Vec::new();
    let mut seen = BTreeSet::new();
    for entry in strings(text)? {
        let address = address(&entry)?;
        if seen.insert(address) {
            floating.push(address);
        }
    }
    if floating.len() > MAX_FLOATING_IPS {
        return Err(Problem::TooManyFloating(floating.len()));
    }
    Ok(floating)
}

pub(super) fn families(text: &str) -> Result<BTreeSet<Family>, Problem> {
    let families: BTreeSet<Family> = strings(text)?
        .into_iter()
        .map(|name| match name.as_str() {
            "IPv4" => Ok(Family::V4),
            "IPv6" => Ok(Family::V6),
            _ => Err(Problem::Family(name)),
        })
        .collect::<Result<_, _>>()?;
    if families.is_empty() {
        return Err(Problem::Empty);
    }
    Ok(families)
}

pub(super) fn mac(text: &str) -> Result<[u8; 6], Problem> {
    let refuse = || Problem::Mac(text.to_owned());
    let octets: Vec<u8> = text
        .trim()
        .split(if text.contains('-') { '-' } else { ':' })
        .map(|part| match part.as_bytes() {
            [a, b] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => u8::from_str_radix(part, 16).ok(),
            _ => None,
        })
        .collect::<Option<_>>()
        .ok_or_else(refuse)?;
    let octets: [u8; 6] = octets.try_into().map_err(|_| refuse())?;
    let of_a_group = octets[0] & 1 == 1;
    if of_a_group || octets == [0; 6] {
        return Err(refuse());
    }
    Ok(octets)
}

/// Reads [`ALLOWED_SOURCE_PREFIXES`](super::ALLOWED_SOURCE_PREFIXES): masked prefixes.
///
/// Error: it is no list of texts, or one of them is no prefix.
pub fn prefixes(text: &str) -> Result<Vec<IpNet>, Problem> {
    strings(text)?
        .into_iter()
        .map(|entry| {
            IpNet::from_str(&entry)
                .map(|prefix| prefix.trunc())
                .map_err(|_| Problem::Prefix(entry))
        })
        .collect()
}

pub(super) fn priority(text: &str) -> Result<i32, Problem> {
    text.trim().parse().map_err(|_| Problem::Number(text.to_owned()))
}

pub(super) fn exclusive(text: &str) -> Result<bool, Problem> {
    match text {
        "exclusive" => Ok(true),
        _ => Err(Problem::Move(text.to_owned())),
    }
}

/// Reads how long established flows go on, such as `30s`: of [`FLOATING_IP_DRAIN`], or of a move that a person asks for.
///
/// Error: it is no length of time, or longer than [`MAX_DRAIN`].
pub fn drain(text: &str) -> Result<Duration, Problem> {
    let refuse = || Problem::Duration(text.to_owned());
    let duration: SignedDuration = text.trim().parse().map_err(|_| refuse())?;
    let duration = Duration::try_from(duration).map_err(|_| refuse())?;
    if duration > MAX_DRAIN {
        return Err(Problem::TooLongDrain(text.to_owned()));
    }
    Ok(duration)
}
