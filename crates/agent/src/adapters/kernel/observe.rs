//! Reads back all that this agent programs.

use std::collections::BTreeMap;

use buoy_api::FloatingIp;
use buoy_core::calc::NODE_SYSCTLS;
use buoy_core::desired::RouteKey;
use buoy_core::endpoint::{IfIndex, IfName};
use buoy_core::observed::{Ending, Observed, ObservedHop, ObservedLink};
use buoy_core::time::Mono;
use buoy_kernel::netlink::{OwnPorts, Socket};
use buoy_kernel::nft::{self, Element, Nft, Skeleton, Transaction};
use buoy_kernel::route::{Route, Target};
use buoy_kernel::{Result, link, route, sysctl};
use ipnet::IpNet;

use crate::clock;

/// Brings tables of another version, or taken apart by somebody, into a form that can be compared. What they hold stays,
/// so that no flow is hurt.
pub(crate) fn mend(nft: &mut Nft, own: &OwnPorts) -> Result<()> {
    if nft.skeleton()? == Skeleton::Different {
        nft::load(nft, own)?;
    }
    if nft.skeleton()? == Skeleton::Absent {
        return Ok(());
    }
    let dump = match nft.dump() {
        // A set that no rule refers to can be deleted by anybody.
        Err(error) if error.is_not_found() => {
            nft::load(nft, own)?;
            nft.dump()?
        }
        dump => dump?,
    };
    let del = dump.partial;
    nft.apply(&Transaction {
        del,
        ..Transaction::default()
    })
}

/// The kernel as it is now.
pub(crate) fn observe(socket: &mut Socket, nft: &mut Nft) -> Result<Observed> {
    let mut observed = Observed {
        links: links(socket)?,
        routes: routes(socket)?,
        sysctls: settings(),
        ..Observed::default()
    };
    if nft.skeleton()? == Skeleton::Current {
        observed.ruleset = true;
        let now = clock::mono();
        for element in nft.dump()?.elements {
            add(&mut observed, element, now);
        }
    }
    Ok(observed)
}

fn links(socket: &mut Socket) -> Result<BTreeMap<IfName, ObservedLink>> {
    let links = link::list_links(socket)?;
    let gateways = link::gateways_v6(socket)?;
    let links = links.into_iter().map(|link| {
        let observed = ObservedLink {
            index: IfIndex(link.ifindex.0),
            alias: link.alias,
            leaving: false,
            up: link.up,
            gateway_v6: gateways.contains(&link.ifindex),
        };
        (IfName(link.name), observed)
    });
    Ok(links.collect())
}

fn routes(socket: &mut Socket) -> Result<BTreeMap<RouteKey, ObservedHop>> {
    let routes = route::list(socket)?
        .into_iter()
        .filter(|route| route.table == route::MAIN_TABLE);
    let routes = routes.map(|route| {
        let hop = match route.target {
            Target::Link { ifindex, .. } => ObservedHop::Link(IfIndex(ifindex.0)),
            Target::Unreachable => ObservedHop::Unreachable,
        };
        (
            RouteKey {
                prefix: route.destination,
                metric: route.metric,
            },
            hop,
        )
    });
    Ok(routes.collect())
}

/// The floating IP to which a route of the routing daemon leads, if it is one of another node: a host route by a gateway.
pub(crate) fn learnt_by(route: &Route) -> Option<FloatingIp> {
    let is_host = route.destination.prefix_len() == route.destination.max_prefix_len();
    let elsewhere = matches!(route.target, Target::Link { gateway: Some(_), .. });
    if !is_host || !elsewhere || route.table != route::MAIN_TABLE {
        return None;
    }
    FloatingIp::try_from(route.destination.addr()).ok()
}

fn settings() -> BTreeMap<String, String> {
    NODE_SYSCTLS
        .into_iter()
        .filter_map(|(path, _)| Some((path.to_owned(), sysctl::read(path).ok()?)))
        .collect()
}

fn add(observed: &mut Observed, element: Element, now: Mono) {
    match element {
        Element::Link(index) => observed.filters.entry(IfIndex(index.0)).or_default().member = true,
        Element::Source(index, address) => source(observed, index, IpNet::from(address)),
        Element::SourcePrefix(index, prefix) => source(observed, index, prefix),
        Element::Nat { floating, internal } => {
            if let Ok(floating) = FloatingIp::try_from(floating) {
                observed.nat.insert(floating, internal);
            }
        }
        Element::Ending(floating, old) => {
            if let Ok(floating) = FloatingIp::try_from(floating) {
                observed.ending.insert((floating, old), Ending::Open);
            }
        }
        // The pairs themselves come before what puts their end off.
        Element::Draining(floating, old, time) => {
            let pair = FloatingIp::try_from(floating).map(|floating| (floating, old));
            if let Some(ending) = pair.ok().and_then(|pair| observed.ending.get_mut(&pair)) {
                *ending = Ending::Draining(now.after(time));
            }
        }
    }
}

fn source(observed: &mut Observed, index: buoy_kernel::IfIndex, prefix: IpNet) {
    observed
        .filters
        .entry(IfIndex(index.0))
        .or_default()
        .sources
        .insert(prefix);
}
