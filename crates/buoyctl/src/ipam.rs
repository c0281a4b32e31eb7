//! `ipam show`: what is in use, what is free, and who has an address.

mod count;

use std::collections::BTreeMap;
use std::net::IpAddr;

use buoy_api::ipam::{Attribute, Block};
use buoy_api::v3::{IpPool, IpReservation};
use buoy_api::{Family, names};
use ipnet::IpNet;
use jiff::Timestamp;
use serde::Serialize;

use crate::failure::Failure;
use crate::output::{Format, Output};
use crate::store::Store;
use crate::table::Table;
use count::{Counts, allocated, count, of_total, short};

/// Use of a pool.
#[derive(Debug, Serialize)]
struct PoolUse {
    name: String,
    cidr: IpNet,
    #[serde(flatten)]
    counts: Counts,
    #[serde(skip_serializing_if = "Option::is_none")]
    blocks: Option<Vec<BlockUse>>,
}

/// Use of a block.
#[derive(Debug, Serialize)]
struct BlockUse {
    cidr: IpNet,
    #[serde(flatten)]
    counts: Counts,
}

/// Who has an address.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Holder {
    ip: String,
    in_use: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<String>,
    /// The binding, if the address is reserved as a floating IP.
    #[serde(skip_serializing_if = "Option::is_none")]
    binding: Option<String>,
    /// Since when it cools down.
    #[serde(skip_serializing_if = "Option::is_none")]
    released_at: Option<Timestamp>,
    attributes: BTreeMap<String, String>,
}

/// Shows how much of each pool is in use, and of each block, if asked.
pub(crate) fn show(store: &Store, with_blocks: bool, format: Format) -> Result<Output, Failure> {
    let pools = store.pools()?;
    let reservations = store.reservations()?;
    let mut blocks = Vec::new();
    let mut warnings: Vec<String> = pools.warnings().chain(reservations.warnings()).collect();
    for family in Family::ALL {
        let listed = store.blocks(family)?;
        warnings.extend(listed.warnings());
        blocks.extend(listed.items);
    }
    let usage = usage(&pools.items, &reservations.items, &blocks, with_blocks);
    let output = Output::render(format, &usage, || table(&usage).boxed())?;
    Ok(output.warning(warnings))
}

/// Shows who has an address.
pub(crate) fn show_address(store: &Store, ip: IpAddr, format: Format) -> Result<Output, Failure> {
    let blocks = store.blocks(Family::of(ip))?;
    let holder = holder(ip, &blocks.items);
    let output = Output::render(format, &holder, || holder_text(&holder))?;
    Ok(output.warning(blocks.warnings()))
}

fn usage(
    pools: &[IpPool],
    reservations: &[IpReservation],
    blocks: &[Block],
    with_blocks: bool,
) -> Vec<PoolUse> {
    let reserved: Vec<IpNet> = reservations
        .iter()
        .flat_map(|reservation| reservation.spec.reserved_cidrs.iter().copied())
        .collect();
    pools
        .iter()
        .map(|pool| {
            let inside: Vec<&Block> = blocks
                .iter()
                .filter(|block| pool.spec.cidr.contains(&block.cidr))
                .collect();
            let of_block = |block: &&Block| BlockUse {
                cidr: block.cidr,
                counts: count(&block.cidr, &[block], &reserved),
            };
            PoolUse {
                name: pool.name().to_owned(),
                cidr: pool.spec.cidr,
                counts: count(&pool.spec.cidr, &inside, &reserved),
                blocks: with_blocks.then(|| inside.iter().map(of_block).collect()),
            }
        })
        .collect()
}

fn table(usage: &[PoolUse]) -> Table {
    let mut table = Table::new(&[
        "GROUPING",
        "CIDR",
        "IPS TOTAL",
        "IPS IN USE",
        "IPS RESERVED",
        "IPS FREE",
    ]);
    let row = |grouping: &str, cidr: &IpNet, counts: &Counts| {
        [
            grouping.to_owned(),
            cidr.to_string(),
            short(counts.total),
            of_total(counts.in_use, counts.total),
            short(counts.reserved),
            of_total(counts.free, counts.total),
        ]
    };
    for pool in usage {
        table.row(row("IP Pool", &pool.cidr, &pool.counts));
        for block in pool.blocks.iter().flatten() {
            table.row(row("Block", &block.cidr, &block.counts));
        }
    }
    table
}

fn holder(ip: IpAddr, blocks: &[Block]) -> Holder {
    let attribute = blocks
        .iter()
        .flat_map(allocated)
        .find_map(|(address, attribute)| (address == ip).then_some(attribute));
    let Some(Attribute {
        handle,
        secondary,
        released_at,
        ..
    }) = attribute
    else {
        return Holder {
            ip: ip.to_string(),
            ..Holder::default()
        };
    };
    let floating = handle.as_deref().and_then(names::address_of_floating_handle);
    Holder {
        ip: ip.to_string(),
        in_use: released_at.is_none(),
        handle: handle.clone(),
        binding: floating.map(names::binding_name),
        released_at: *released_at,
        attributes: secondary.clone(),
    }
}

fn holder_text(holder: &Holder) -> String {
    let ip = &holder.ip;
    if let Some(since) = holder.released_at {
        return format!("IP {ip} was released at {since} and cools down");
    }
    if !holder.in_use {
        return format!("IP {ip} is not assigned");
    }
    let mut lines = vec![format!("IP {ip} is in use")];
    if let Some(binding) = &holder.binding {
        lines.push(format!(
            "Reserved as a floating IP: FloatingIPBinding {binding} (buoyctl fip why {ip})"
        ));
    }
    lines.push(format!("Handle: {}", holder.handle.as_deref().unwrap_or("none")));
    if !holder.attributes.is_empty() {
        lines.push("Attributes:".to_owned());
        lines.extend(
            holder
                .attributes
                .iter()
                .map(|(name, value)| format!("  {name}: {value}")),
        );
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use buoy_api::ObjectMeta;
    use buoy_api::v3::{IpPoolSpec, IpReservationSpec};

    use super::*;

    fn block(cidr: &str, allocations: &[(usize, usize)], attributes: Vec<Attribute>) -> Block {
        let cidr: IpNet = cidr.parse().unwrap();
        let mut block = Block {
            cidr,
            affinity: None,
            affinity_claim_time: None,
            allocations: vec![None; 64],
            unallocated: Vec::new(),
            attributes,
            sequence_number: 1,
            sequence_number_for_allocation: BTreeMap::new(),
            deleted: false,
            extra: buoy_api::Extra::new(),
        };
        for (ordinal, attribute) in allocations {
            block.allocations[*ordinal] = Some(*attribute);
        }
        block
    }

    fn attribute(handle: &str, pairs: &[(&str, &str)]) -> Attribute {
        Attribute {
            handle: Some(handle.to_owned()),
            secondary: pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..Attribute::default()
        }
    }

    fn pool(name: &str, cidr: &str) -> IpPool {
        IpPool::new(ObjectMeta::named(name), IpPoolSpec::new(cidr.parse().unwrap()))
    }

    #[test]
    fn pools_and_their_blocks() {
        let pools = [pool("p", "10.65.0.0/16"), pool("s", "fd80::/64")];
        let reservation = IpReservation::new(
            ObjectMeta::named("r"),
            IpReservationSpec {
                // The first address of the /30 is in use, and the /32 lies in it.
                reserved_cidrs: vec!["10.65.0.0/30".parse().unwrap(), "10.65.0.1/32".parse().unwrap()],
                ..IpReservationSpec::default()
            },
        );
        let blocks = [block(
            "10.65.0.0/26",
            &[(0, 0), (7, 0), (8, 0)],
            vec![attribute("h", &[])],
        )];
        let usage = usage(&pools, &[reservation], &blocks, true);
        assert_eq!(
            table(&usage).boxed(),
            "\
+----------+--------------+------------+------------+--------------+-------------------+
| GROUPING |     CIDR     | IPS TOTAL  | IPS IN USE | IPS RESERVED |     IPS FREE      |
+----------+--------------+------------+------------+--------------+-------------------+
| IP Pool  | 10.65.0.0/16 |      65536 | 3 (0%)     |            3 | 65530 (100%)      |
| Block    | 10.65.0.0/26 |         64 | 3 (5%)     |            3 | 58 (91%)          |
| IP Pool  | fd80::/64    | 1.8447e+19 | 0 (0%)     |            0 | 1.8447e+19 (100%) |
+----------+--------------+------------+------------+--------------+-------------------+
"
        );
        let json = serde_json::to_value(&usage).unwrap();
        assert_eq!(json[0]["inUse"], 3);
        assert_eq!(json[0]["blocks"][0]["free"], 58);
        assert!(json[1]["total"].as_f64().unwrap() > 1e19);
    }

    #[test]
    fn an_address_is_a_pods_a_floating_ips_cooling_or_nobodys() {
        let cooling = Attribute {
            released_at: Some(Timestamp::UNIX_EPOCH),
            ..Attribute::default()
        };
        let blocks = [block(
            "10.65.0.0/26",
            &[(7, 0), (8, 1), (9, 2)],
            vec![
                attribute("net1.c0ffee", &[("namespace", "demo"), ("pod", "web-0")]),
                attribute("buoy-fip-10-65-0-8", &[("type", "floatingIP")]),
                cooling,
            ],
        )];
        let text = |ip: &str| holder_text(&holder(ip.parse().unwrap(), &blocks));
        assert_eq!(
            text("10.65.0.7"),
            "IP 10.65.0.7 is in use\nHandle: net1.c0ffee\nAttributes:\n  namespace: demo\n  pod: web-0"
        );
        assert_eq!(
            text("10.65.0.8"),
            "IP 10.65.0.8 is in use\n\
             Reserved as a floating IP: FloatingIPBinding 10-65-0-8 (buoyctl fip why 10.65.0.8)\n\
             Handle: buoy-fip-10-65-0-8\nAttributes:\n  type: floatingIP"
        );
        assert_eq!(
            text("10.65.0.9"),
            "IP 10.65.0.9 was released at 1970-01-01T00:00:00Z and cools down"
        );
        assert_eq!(text("10.65.0.10"), "IP 10.65.0.10 is not assigned");
        assert_eq!(text("fd00::1"), "IP fd00::1 is not assigned");
    }
}
