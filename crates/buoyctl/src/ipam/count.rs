//! Counting addresses.

use std::net::IpAddr;

use buoy_api::ipam::{Attribute, Block, nth_address};
use ipnet::IpNet;
use serde::{Serialize, Serializer};

/// How many addresses of a prefix are what. They add up: an address that is reserved and in use counts as in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Counts {
    /// All there are.
    #[serde(serialize_with = "number")]
    pub(super) total: u128,
    /// Given to somebody.
    #[serde(serialize_with = "number")]
    pub(super) in_use: u128,
    /// Kept from automatic assignment.
    #[serde(serialize_with = "number")]
    pub(super) reserved: u128,
    /// The rest.
    #[serde(serialize_with = "number")]
    pub(super) free: u128,
}

/// JSON has no integers above 64 bits that programs agree on.
#[expect(
    clippy::cast_precision_loss,
    reason = "a number of that size is read by people and programs as an estimate"
)]
fn number<S: Serializer>(number: &u128, serializer: S) -> Result<S::Ok, S::Error> {
    match u64::try_from(*number) {
        Ok(exact) => serializer.serialize_u64(exact),
        Err(_) => serializer.serialize_f64(*number as f64),
    }
}

/// Addresses of a block that are given, and to whom.
pub(super) fn allocated(block: &Block) -> impl Iterator<Item = (IpAddr, &Attribute)> {
    block
        .allocations
        .iter()
        .enumerate()
        .filter_map(|(ordinal, index)| {
            let address = nth_address(&block.cidr, u128::try_from(ordinal).ok()?)?;
            Some((address, block.attributes.get((*index)?)?))
        })
}

/// Counts the addresses of a prefix, whose blocks these are.
pub(super) fn count(prefix: &IpNet, blocks: &[&Block], reserved: &[IpNet]) -> Counts {
    let inside: Vec<IpNet> = reserved
        .iter()
        .map(IpNet::trunc)
        .filter_map(|range| {
            if prefix.contains(&range) {
                Some(range)
            } else {
                range.contains(prefix).then_some(*prefix)
            }
        })
        .collect();
    let ranges = IpNet::aggregate(&inside);
    let (mut in_use, mut both) = (0, 0);
    for (address, _) in blocks.iter().flat_map(|block| allocated(block)) {
        in_use += 1;
        both += u128::from(ranges.iter().any(|range| range.contains(&address)));
    }
    let total = size(prefix);
    let kept = ranges.iter().map(size).fold(0, u128::saturating_add);
    let reserved = kept.saturating_sub(both);
    Counts {
        total,
        in_use,
        reserved,
        free: total.saturating_sub(in_use).saturating_sub(reserved),
    }
}

fn size(prefix: &IpNet) -> u128 {
    let bits = u32::from(prefix.max_prefix_len() - prefix.prefix_len());
    1u128.checked_shl(bits).unwrap_or(u128::MAX)
}

/// A number in five significant digits, as C's `%.5g` has it.
#[expect(clippy::cast_precision_loss, reason = "five digits are shown")]
pub(super) fn short(number: u128) -> String {
    if number < 100_000 {
        return number.to_string();
    }
    let scientific = format!("{:.4e}", number as f64);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let mantissa = mantissa.trim_end_matches('0').trim_end_matches('.');
    format!("{mantissa}e+{exponent:0>2}")
}

/// A number with its share of the total: `25 (0%)`.
#[expect(clippy::cast_precision_loss, reason = "whole per cent are shown")]
pub(super) fn of_total(number: u128, total: u128) -> String {
    format!("{} ({:.0}%)", short(number), 100.0 * number as f64 / total as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_five_digits() {
        for (number, text) in [
            (0, "0"),
            (65_536, "65536"),
            (99_999, "99999"),
            (100_000, "1e+05"),
            (16_777_216, "1.6777e+07"),
            (1 << 64, "1.8447e+19"),
        ] {
            assert_eq!(short(number), text);
        }
        assert_eq!(of_total(25, 65_536), "25 (0%)");
        assert_eq!(of_total(1, 1), "1 (100%)");
    }

    #[test]
    fn a_reservation_around_the_prefix_reserves_all_of_it() {
        let counts = count(
            &"10.65.0.0/26".parse().unwrap(),
            &[],
            &["10.0.0.0/8".parse().unwrap()],
        );
        assert_eq!((counts.total, counts.reserved, counts.free), (64, 64, 0));
        let all = count(&"::/0".parse().unwrap(), &[], &[]);
        assert_eq!(all.free, u128::MAX);
    }
}
