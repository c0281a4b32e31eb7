//! Affinities: named by owner and prefix, found by labels.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use buoy_api::ip::Family;
use buoy_api::ipam::AffinityOwner;
use buoy_api::meta::Extra;
use buoy_api::names::{cidr_name, cidr_of_name};
use ipnet::IpNet;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use sha3::Sha3_256;

use super::place::{self, AFFINITIES};

/// Names that would reach this length are cut, and made unique by a hash.
const LONGEST: usize = 253;
/// Characters of that hash.
const HASH: usize = 11;

const HOST_HASH: &str = "projectcalico.org/hostname-hash";
const TYPE: &str = "projectcalico.org/affinity-type";
const IP_VERSION: &str = "projectcalico.org/ip-version";

/// The name of an affinity's object, exactly as Calico makes it.
pub(super) fn name(owner: &AffinityOwner, cidr: &IpNet) -> String {
    let (host, cidr_name) = (owner.name(), cidr_name(cidr));
    let plain = format!("{host}-{cidr_name}");
    if plain.len() < LONGEST {
        return plain;
    }
    let digest = Sha256::digest(format!("{host}+{cidr_name}").as_bytes());
    let mut hash = String::new();
    for byte in digest {
        // Writing to a string cannot fail.
        let _ = write!(hash, "{byte:02x}");
    }
    let kept = (LONGEST - 1).saturating_sub(cidr_name.len() + HASH + 2);
    let cut: String = host.chars().take(kept).collect();
    format!("{cut}-{cidr_name}-{}", &hash[..HASH])
}

/// Owner and prefix by the name of an object and its labels alone, if these have one meaning.
pub(super) fn of_name(name: &str, labels: &BTreeMap<String, String>) -> Option<(AffinityOwner, IpNet)> {
    let kind = labels.get(TYPE).map_or("host", String::as_str);
    let hash = labels.get(HOST_HASH);
    let mut meanings = name.match_indices('-').filter_map(|(at, _)| {
        let (host, cidr) = (&name[..at], cidr_of_name(&name[at + 1..])?);
        let is_its_hash = hash.is_none_or(|hash| *hash == host_hash(host));
        Some((place::owner(kind, host).filter(|_| is_its_hash)?, cidr))
    });
    let meaning = meanings.next()?;
    meanings.next().is_none().then_some(meaning)
}

/// Selects the affinities of one owner.
pub(super) fn selector(owner: &AffinityOwner) -> String {
    format!("{HOST_HASH}={},{TYPE}={}", host_hash(owner.name()), owner.kind())
}

/// The object of an affinity, from its record.
pub(super) fn object(owner: &AffinityOwner, cidr: &IpNet, mut record: Extra) -> Extra {
    // This kind alone has the flag as text.
    let is_deleted = record.get("deleted") == Some(&Json::Bool(true));
    record.insert("deleted".to_owned(), is_deleted.to_string().into());
    record.insert("node".to_owned(), owner.name().into());
    record.insert("type".to_owned(), owner.kind().into());
    record.insert("cidr".to_owned(), cidr.to_string().into());
    let version = match Family::of_net(cidr) {
        Family::V4 => "4",
        Family::V6 => "6",
    };
    let labels = json!({
        HOST_HASH: host_hash(owner.name()),
        TYPE: owner.kind(),
        IP_VERSION: version,
    });
    super::ipam::envelope(AFFINITIES, &name(owner, cidr), Some(labels), record)
}

fn host_hash(host: &str) -> String {
    base32(&Sha3_256::digest(host.as_bytes()))
}

/// RFC 4648, without padding.
fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut text = String::new();
    for chunk in bytes.chunks(5) {
        let mut group = [0; 8];
        group[3..3 + chunk.len()].copy_from_slice(chunk);
        let bits = u64::from_be_bytes(group);
        for place in 0..(chunk.len() * 8).div_ceil(5) {
            let digit = (bits >> (35 - 5 * place)) & 31;
            text.push(char::from(ALPHABET[usize::try_from(digit).unwrap_or(0)]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base32_is_that_of_the_rfc() {
        for (plain, text) in [("", ""), ("f", "MY"), ("fo", "MZXQ"), ("foobar", "MZXW6YTBOI")] {
            assert_eq!(base32(plain.as_bytes()), text);
        }
    }

    #[test]
    fn a_long_name_is_cut_and_hashed() {
        let cidr = "10.65.0.0/26".parse().unwrap();
        let of = |host: String| name(&AffinityOwner::Host(host), &cidr);
        assert_eq!(of("node-a".to_owned()), "node-a-10-65-0-0-26");
        assert_eq!(of("n".repeat(239)).len(), 252);
        let (one, other) = (of("n".repeat(240)), of("n".repeat(250)));
        assert_eq!((one.len(), other.len()), (252, 252));
        assert_ne!(one, other);
        assert!(one.starts_with("nnn") && one.contains("-10-65-0-0-26-"), "{one}");
    }

    #[test]
    fn a_name_is_read_where_it_has_one_meaning() {
        let host = |name: &str| AffinityOwner::Host(name.to_owned());
        let none = BTreeMap::new();
        for (name, owner, cidr) in [
            ("node-1-10-65-0-0-26", "node-1", "10.65.0.0/26"),
            ("n1-fd80---122", "n1", "fd80::/122"),
        ] {
            assert_eq!(of_name(name, &none), Some((host(owner), cidr.parse().unwrap())));
        }
        for name in ["node-1", "10-65-0-0-26", "node-1-10-65-0-1-26"] {
            assert_eq!(of_name(name, &none), None, "{name}");
        }
        // Either node-fd80 or node.
        let both = "node-fd80-fd81---122";
        assert_eq!(of_name(both, &none), None);
        let labels = BTreeMap::from([(HOST_HASH.to_owned(), host_hash("node-fd80"))]);
        assert_eq!(
            of_name(both, &labels),
            Some((host("node-fd80"), "fd81::/122".parse().unwrap()))
        );
        let labels = BTreeMap::from([(HOST_HASH.to_owned(), host_hash("other"))]);
        assert_eq!(of_name("n1-10-65-0-0-26", &labels), None);
    }

    #[test]
    fn labels_fit_kubernetes() {
        let owner = AffinityOwner::Host("n1".to_owned());
        let labels = selector(&owner);
        let hash = labels.split(['=', ',']).nth(1).unwrap();
        assert_eq!(hash.len(), 52, "{labels}");
        assert!(
            labels.ends_with(",projectcalico.org/affinity-type=host"),
            "{labels}"
        );
    }
}
