//! On every node that is not the owner's: an address leads to no workload, and nothing of an earlier owner is left.
//!
//! A frozen agent may leave behind what it had, as long as its node's BIRD has learnt the newer owner and the best route
//! leads there. Flows that its kernel tracked already keep their translation until it lives.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::checker::facts::{
    Binding, Facts, LAST_RESORT, METRIC_BASE, Node, OURS, best_route, host_routes, is_host,
};
use crate::cluster::Standing;

/// Metrics this far below the base mean floating IPs.
const METRICS: u64 = 1 << 28;

/// What is wrong with addresses where their owner is not.
pub(super) fn wrong(facts: &Facts) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, node) in &facts.nodes {
        let mut found = Vec::new();
        for binding in &facts.records.bindings {
            if binding.owner.as_ref().is_none_or(|owner| owner.who.node != *name) {
                found.extend(leads_to_workload(facts, binding, node));
                if node.standing == Standing::Live {
                    found.extend(flows(binding, node));
                    found.extend(last_resort(facts, name, binding, node));
                }
            }
        }
        if node.standing == Standing::Live {
            found.extend(leftovers(facts, name, node));
            found.extend(ending(node));
        }
        wrong.extend(found.into_iter().map(|what| format!("{name}: {what}")));
    }
    wrong
}

/// Where there is no newer owner that a frozen node's BIRD could have heard of, its kernel goes on as before.
fn leads_to_workload(facts: &Facts, binding: &Binding, node: &Node) -> Option<String> {
    let heard_of = facts
        .owner_of(binding)
        .is_some_and(|(_, owner)| owner.bird.is_some() && owner.standing == Standing::Live);
    let told = match node.standing {
        Standing::Live | Standing::Clean => true,
        Standing::Frozen => heard_of && node.bird.is_some(),
        Standing::Cut => false,
    };
    let route = best_route(&node.kernel.routes, binding.address)?;
    let device = route.device.as_deref().unwrap_or_default();
    (told && node.kernel.is_workload(device)).then(|| {
        format!(
            "{} leads to the workload behind {device}, its owner is {}",
            binding.address,
            owner_text(binding)
        )
    })
}

/// Forwarded untranslated, a flow is answered under the floating IP itself.
fn flows(binding: &Binding, node: &Node) -> Vec<String> {
    let flows = node.kernel.flows.iter();
    flows
        .filter(|flow| flow.destination == binding.address && flow.answers != binding.address)
        .map(|flow| {
            format!(
                "a flow from {} ({}) to {} leads to {}, its owner is {}",
                flow.source,
                flow.protocol,
                flow.destination,
                flow.answers,
                owner_text(binding)
            )
        })
        .collect()
}

/// Where somebody waits for an address, its packets do not bounce between this node and who sends them here: the last of
/// all routes says that it is unreachable. Without BIRD an owner elsewhere may be announced by a default route, which this
/// one must not hide.
fn last_resort(facts: &Facts, name: &str, binding: &Binding, node: &Node) -> Option<String> {
    let mut endpoints = facts.records.endpoints.iter();
    let waits = endpoints.any(|endpoint| {
        endpoint.who.node == name
            && endpoint.namespace == binding.namespace
            && endpoint.asks.contains_key(&binding.address)
    });
    let hides = binding.owner.is_some() && node.bird.is_none();
    let is_there = host_routes(&node.kernel.routes, binding.address)
        .any(|route| route.protocol == OURS && route.kind == "unreachable" && route.metric == LAST_RESORT);
    match (waits, is_there) {
        (true, false) if !hides => Some(format!(
            "somebody here waits for {}, and no route says that it is unreachable",
            binding.address
        )),
        (true, true) if hides => Some(format!(
            "{} is unreachable here, which hides the way to its owner",
            binding.address
        )),
        _ => None,
    }
}

fn owner_text(binding: &Binding) -> String {
    match &binding.owner {
        Some(owner) => format!("{} on {}", owner.who.workload, owner.who.node),
        None => "nobody".to_owned(),
    }
}

/// Translations and routes of addresses that nobody on this node owns.
fn leftovers(facts: &Facts, name: &str, node: &Node) -> Vec<String> {
    let bindings = facts.records.bindings.iter();
    let owned: BTreeSet<IpAddr> = bindings
        .filter(|binding| binding.owner.as_ref().is_some_and(|owner| owner.who.node == name))
        .map(|binding| binding.address)
        .collect();
    let kernel = &node.kernel;
    let translated: BTreeSet<IpAddr> = kernel
        .translated
        .keys()
        .chain(&kernel.floating)
        .copied()
        .collect();
    let mut wrong: Vec<String> = translated
        .difference(&owned)
        .map(|address| format!("{address} is translated and not owned here"))
        .collect();
    for route in kernel.routes.iter().filter(|route| route.protocol == OURS) {
        let address = route.to.addr();
        let of_floating = (METRIC_BASE - METRICS..=METRIC_BASE).contains(&route.metric);
        if of_floating && !(is_host(&route.to) && owned.contains(&address)) {
            wrong.push(format!(
                "a route of an address that is not owned here: {}",
                route.to
            ));
        }
        if route.metric == LAST_RESORT && !asks(facts, name, address) {
            wrong.push(format!("nobody here asks for {address}, and it is unreachable"));
        }
        if route.metric == LAST_RESORT && owned.contains(&address) {
            wrong.push(format!("owned here and unreachable: {address}"));
        }
    }
    wrong
}

fn asks(facts: &Facts, name: &str, address: IpAddr) -> bool {
    let mut endpoints = facts.records.endpoints.iter();
    endpoints.any(|endpoint| endpoint.who.node == name && endpoint.asks.contains_key(&address))
}

fn ending(node: &Node) -> Vec<String> {
    let pairs = node.kernel.ending.iter();
    pairs
        .map(|(floating, gone)| format!("flows to {floating} by way of {gone} are still being ended"))
        .collect()
}
