//! In the network: the router's kernel does what its BIRD has learnt; the router and the other nodes send what is for an
//! address to its owner's node, and for nobody's address to nobody.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::checker::facts::{
    BIRD, Binding, BirdRoute, Facts, Node, Router, best_route, host_routes, is_host,
};
use crate::cluster::Standing;

/// What is wrong with the routes by BGP.
pub(super) fn wrong(facts: &Facts) -> Vec<String> {
    let mut wrong = Vec::new();
    for binding in &facts.records.bindings {
        match facts.owner_of(binding) {
            Some((owner, node)) if node.standing != Standing::Cut && node.bird.is_some() => {
                wrong.extend(at_router(facts, binding, node));
                wrong.extend(at_nodes(facts, binding, &owner.who.node, node));
            }
            _ => {}
        }
    }
    wrong.extend(nobodys(facts));
    wrong.extend(facts.router.iter().flat_map(followed));
    wrong
}

/// What the router's BIRD has learnt from others is in its kernel, and of its BIRD there is nothing else.
fn followed(router: &Router) -> Vec<String> {
    let learnt = router.bird.iter().filter(|route| route.best);
    let learnt: BTreeMap<_, _> = learnt
        .filter_map(|route| Some((route.to, route.gateway?)))
        .collect();
    let kernel = router.routes.iter().filter(|route| route.protocol == BIRD);
    let kernel: BTreeMap<_, _> = kernel.map(|route| (route.to, route.gateway)).collect();
    let missing = learnt.iter().filter_map(|(to, hop)| match kernel.get(to) {
        Some(found) if *found == Some(*hop) => None,
        Some(found) => Some(format!(
            "the router's kernel sends {to} to {}, its BIRD has learnt {hop}",
            shown(*found)
        )),
        None => Some(format!(
            "the router's BIRD has learnt {to}, and its kernel has no route"
        )),
    });
    let unknown = kernel.keys().filter(|to| !learnt.contains_key(to));
    missing
        .chain(
            unknown.map(|to| format!("the router's kernel has a route to {to} that its BIRD has not learnt")),
        )
        .collect()
}

fn at_router(facts: &Facts, binding: &Binding, owner: &Node) -> Vec<String> {
    let Some(router) = facts
        .router
        .as_ref()
        .filter(|_| facts.is_exported(binding.address))
    else {
        return Vec::new();
    };
    let leads = |hop: Option<IpAddr>| hop.is_some_and(|hop| owner.kernel.addresses.contains(&hop));
    let mut wrong = Vec::new();
    let kernel = host_routes(&router.routes, binding.address).next();
    match kernel.map(|route| route.gateway) {
        Some(hop) if leads(hop) => {}
        Some(hop) => wrong.push(format!("the router sends {} to {}", binding.address, shown(hop))),
        None => wrong.push(format!("the router has no route to {}", binding.address)),
    }
    match best(&router.bird, binding.address).map(|route| route.gateway) {
        Some(hop) if !leads(hop) => {
            wrong.push(format!(
                "the router's BIRD prefers {} for {}",
                shown(hop),
                binding.address
            ));
        }
        _ => {}
    }
    wrong
}

fn at_nodes(facts: &Facts, binding: &Binding, owner: &str, node: &Node) -> Vec<String> {
    let connected = |other: &Node| other.standing != Standing::Cut && other.bird.is_some();
    let others = facts
        .nodes
        .iter()
        .filter(|(name, other)| *name != owner && connected(other));
    let mut wrong = Vec::new();
    for (name, other) in others {
        let leads = |hop: Option<IpAddr>| hop.is_some_and(|hop| node.kernel.addresses.contains(&hop));
        let route = best_route(&other.kernel.routes, binding.address);
        let learnt = route.filter(|route| route.protocol == BIRD && leads(route.gateway));
        if learnt.is_none() {
            let what = route.map_or_else(
                || "nowhere".to_owned(),
                |route| format!("by {} {}", route.kind, route.to),
            );
            wrong.push(format!("{name}: {} goes {what}, not to {owner}", binding.address));
        }
        let own = best(other.bird.as_deref().unwrap_or_default(), binding.address);
        if own.is_none_or(|route| !leads(route.gateway)) {
            let what = own.map_or("nothing", |route| route.protocol.as_str());
            wrong.push(format!("{name}: BIRD prefers {what} for {}", binding.address));
        }
    }
    wrong
}

/// Where somebody is frozen or cut off, its BIRD may go on announcing what it owned.
fn nobodys(facts: &Facts) -> Vec<String> {
    let Some(router) = &facts.router else {
        return Vec::new();
    };
    let goes_on = [Standing::Frozen, Standing::Cut];
    if facts.nodes.values().any(|node| goes_on.contains(&node.standing)) {
        return Vec::new();
    }
    let pools = &facts.records.pools;
    let of_pools = |to: &IpNet| pools.iter().any(|pool| pool.cidr.contains(to));
    routes_of(router)
        .filter(|to| is_host(to) && of_pools(to))
        .filter(|to| {
            let binding = facts.records.binding(to.addr());
            let is_owned = binding.is_some_and(|binding| binding.owner.is_some());
            !is_owned && !is_own_address(facts, to.addr())
        })
        .map(|to| format!("the router has a route to an address of nobody: {to}"))
        .collect()
}

fn routes_of(router: &Router) -> impl Iterator<Item = &IpNet> {
    router.routes.iter().map(|route| &route.to)
}

fn is_own_address(facts: &Facts, address: IpAddr) -> bool {
    let mut endpoints = facts.records.endpoints.iter();
    endpoints.any(|endpoint| endpoint.addresses.contains(&address))
}

fn best(routes: &[BirdRoute], address: IpAddr) -> Option<&BirdRoute> {
    routes
        .iter()
        .find(|route| route.best && route.to == IpNet::from(address))
}

fn shown(hop: Option<IpAddr>) -> String {
    hop.map_or_else(|| "nobody".to_owned(), |hop| hop.to_string())
}
