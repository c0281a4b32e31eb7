//! What must hold of every plan, and of the kernel after it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use buoy_api::ip::FloatingIp;
use buoy_core::bird::render;
use buoy_core::desired::{
    FLOATING_METRIC_BASE, FLOATING_METRIC_RANGE, Hop, NodeDesired, RouteKey, Row, RowKey,
};
use buoy_core::endpoint::{IfIndex, IfName};
use buoy_core::observed::Observed;
use buoy_core::op::{Element, EndFlows, NftTransaction, Op, Pass};
use buoy_core::time::Mono;

use crate::kernel::{Kernel, Link, is_ours};

/// Floating IP of a route, by the metric that only these have.
fn floating_of(key: &RouteKey) -> Option<FloatingIp> {
    let range = FLOATING_METRIC_BASE - FLOATING_METRIC_RANGE..=FLOATING_METRIC_BASE;
    range
        .contains(&key.metric)
        .then(|| FloatingIp::try_from(key.prefix.addr()).ok())?
}

/// Routes by which packets reach a workload with the floating IP as their destination.
pub(crate) fn exposed(kernel: &Kernel) -> BTreeSet<(RouteKey, u32)> {
    let leads = kernel
        .routes
        .iter()
        .filter_map(|(key, index)| Some((*key, (*index)?, floating_of(key)?)));
    leads
        .filter(|(_, index, floating)| !kernel.nat.contains_key(floating) || !kernel.members.contains(index))
        .map(|(key, index, _)| (key, index))
        .collect()
}

/// The order that holds whatever changed.
pub(crate) fn order(ops: &[Op], observed: &Observed) -> Result<(), String> {
    let transactions: Vec<(usize, &NftTransaction)> = ops
        .iter()
        .enumerate()
        .filter_map(|(at, op)| if let Op::Nft(t) = op { Some((at, t)) } else { None })
        .collect();
    if transactions.len() > 2 {
        return Err("more than two transactions".to_owned());
    }
    let mut adds: BTreeMap<FloatingIp, usize> = BTreeMap::new();
    let mut dels: BTreeMap<FloatingIp, usize> = BTreeMap::new();
    for (at, transaction) in &transactions {
        nat_pairs(transaction)?;
        adds.extend(nats(&transaction.add).map(|floating| (floating, *at)));
        let gone = nats(&transaction.del).filter(|floating| !nats(&transaction.add).any(|f| f == *floating));
        dels.extend(gone.map(|floating| (floating, *at)));
    }
    let strangers: BTreeSet<IfIndex> = observed
        .links
        .values()
        .filter(|link| link.attachment().is_none())
        .map(|link| link.index)
        .collect();
    let mut made: BTreeSet<&IfName> = BTreeSet::new();
    for (at, op) in ops.iter().enumerate() {
        let changed = |floating: &FloatingIp| adds.get(floating).or(dels.get(floating)).copied();
        let wrong = match op {
            Op::PutRoute(key, Hop::Link(_)) => floating_of(key)
                .and_then(|f| adds.get(&f))
                .is_some_and(|nat| *nat > at),
            Op::DelRoute(key) => floating_of(key)
                .and_then(|f| dels.get(&f))
                .is_some_and(|nat| *nat < at),
            Op::AddLink(name, _) => !made.insert(name),
            Op::DelLink(name, index) => made.contains(name) || strangers.contains(index),
            Op::EndFlows(end) if end.pass == Pass::First => {
                changed(&end.floating).is_some_and(|nat| nat > at)
            }
            _ => false,
        };
        if wrong {
            return Err(format!("out of order: {op}"));
        }
    }
    Ok(())
}

fn nats(elements: &[Element]) -> impl Iterator<Item = FloatingIp> + '_ {
    elements.iter().filter_map(|e| {
        if let Element::Nat(floating, _) = e {
            Some(*floating)
        } else {
            None
        }
    })
}

/// What ends is written down in the transaction that changes it.
fn nat_pairs(transaction: &NftTransaction) -> Result<(), String> {
    let touched = nats(&transaction.add).chain(nats(&transaction.del));
    let noted = |floating| {
        transaction
            .add
            .iter()
            .any(|e| matches!(e, Element::Ending(f, _) if *f == floating))
    };
    match touched.into_iter().find(|floating| !noted(*floating)) {
        Some(floating) => Err(format!("{floating} changes and nothing remembers its old flows")),
        None => Ok(()),
    }
}

/// Flows that are drained are not among those that end.
pub(crate) fn spared(end: &EndFlows, kernel: &Kernel, now: Mono) -> Result<(), String> {
    let pairs = kernel.draining.keys().filter(|pair| pair.0 == end.floating);
    let mut drained = pairs.filter(|pair| kernel.ending.contains(pair) && kernel.is_draining(**pair, now));
    let touched = |old: &IpAddr| !end.keep.contains(old) || end.gone.iter().any(|(gone, _)| gone == old);
    match drained.find(|(_, old)| touched(old)) {
        Some((floating, old)) => Err(format!("flows of {floating} to {old} do not go on: {end:?}")),
        None => Ok(()),
    }
}

/// What the kernel should have, but for what strangers' links stand in the way of.
pub(crate) fn programmed(desired: &NodeDesired, kernel: &Kernel) -> Result<(), String> {
    let ours = |name: &IfName| kernel.links.get(name).filter(|link| is_ours(link));
    let blocked = |name: &IfName| kernel.links.get(name).is_some_and(|link| !is_ours(link));
    let mut wanted = Kernel::default();
    for (_, row, _) in desired.rows() {
        match row {
            Row::Sysctl(path, value) => {
                wanted.sysctls.insert(path.clone(), value.clone());
            }
            Row::Link(name, _) if blocked(name) => {}
            Row::Link(name, link) => {
                let found = ours(name).ok_or(format!("no link: {name}"))?;
                if found.alias.as_deref() != Some(link.attachment.alias().as_str()) {
                    return Err(format!("link of another attachment: {name}, {:?}", found.alias));
                }
                let wanted_link = Link {
                    up: true,
                    // One too many does no harm.
                    gateway: found.gateway || link.addresses.iter().any(IpAddr::is_ipv6),
                    ..found.clone()
                };
                wanted.links.insert(name.clone(), wanted_link);
                wanted.members.insert(found.index);
                wanted
                    .sources
                    .extend(link.sources.iter().map(|prefix| (found.index, *prefix)));
            }
            Row::Route(_, Hop::Link(name)) if blocked(name) => {}
            Row::Route(key, Hop::Link(name)) => {
                wanted.routes.insert(*key, ours(name).map(|link| link.index));
            }
            Row::Route(key, Hop::Unreachable) => {
                wanted.routes.insert(*key, None);
            }
            // One text for all: what it should be is what is rendered.
            Row::Bird(..) => {}
            Row::Nat(floating, nat) => {
                wanted.nat.insert(*floating, nat.internal);
            }
        }
    }
    // What nobody knows stays.
    let known = |key: &RowKey| !desired.is_frozen(key);
    let mut nat = kernel.nat.clone();
    nat.retain(|floating, _| known(&RowKey::Nat(*floating)));
    let mut routes = kernel.routes.clone();
    routes.retain(|key, _| known(&RowKey::Route(*key)));
    let links = kernel
        .links
        .iter()
        .filter(|(_, link)| is_ours(link))
        .map(|(n, l)| (n.clone(), l.clone()));
    same("links", &wanted.links, &links.collect())?;
    same("members", &wanted.members, &kernel.members)?;
    same("sources", &wanted.sources, &kernel.sources)?;
    same("translations", &wanted.nat, &nat)?;
    same("routes", &wanted.routes, &routes)?;
    same("flows to end", &wanted.ending, &kernel.ending)?;
    let routing = render(desired.bird().map(|(section, row, _)| (section, row)));
    same("routing", &routing, &kernel.bird)?;
    same("sysctls", &wanted.sysctls, &kernel.sysctls)
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, wanted: &T, found: &T) -> Result<(), String> {
    if wanted == found {
        Ok(())
    } else {
        Err(format!("{what}: wanted {wanted:#?}, found {found:#?}"))
    }
}
