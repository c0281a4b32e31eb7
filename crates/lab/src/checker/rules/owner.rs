//! On the owner's node: the address is translated to the workload, by a route of its epoch to the workload's link, and no
//! flow leads to anybody else.

use ipnet::IpNet;

use crate::checker::facts::{Binding, Facts, METRIC_BASE, Node, OURS, Owner, Table, best_route};
use crate::cluster::Standing;

/// What is wrong with addresses on the nodes of their owners.
pub(super) fn wrong(facts: &Facts) -> Vec<String> {
    let mut wrong = Vec::new();
    for binding in &facts.records.bindings {
        let Some((owner, node)) = facts.owner_of(binding) else {
            continue;
        };
        if node.standing != Standing::Live {
            continue;
        }
        let at = format!("{}: {}", owner.who.node, binding.address);
        let found = [
            translation(binding, owner, node),
            route(facts, binding, owner, node),
            flows(binding, owner, node),
        ];
        wrong.extend(found.concat().into_iter().map(|what| format!("{at}: {what}")));
    }
    wrong
}

fn translation(binding: &Binding, owner: &Owner, node: &Node) -> Vec<String> {
    let mut wrong = Vec::new();
    match node.kernel.translated.get(&binding.address) {
        Some(internal) if *internal == owner.internal => {}
        Some(internal) => wrong.push(format!(
            "translated to {internal}, its owner has {}",
            owner.internal
        )),
        None => wrong.push("owned here and not translated".to_owned()),
    }
    if !node.kernel.floating.contains(&binding.address) {
        wrong.push("owned here and not in the set of floating IPs".to_owned());
    }
    wrong
}

fn route(facts: &Facts, binding: &Binding, owner: &Owner, node: &Node) -> Vec<String> {
    let Some(endpoint) = facts.records.endpoint(binding, &owner.who) else {
        return vec![format!(
            "its owner {} has no workload endpoint",
            owner.who.workload
        )];
    };
    let mut wrong = Vec::new();
    if !endpoint.addresses.contains(&owner.internal) {
        wrong.push(format!(
            "{} is no address of {}",
            owner.internal, owner.who.workload
        ));
    }
    let kernel = &node.kernel;
    let link = endpoint.link.as_str();
    if !kernel
        .links
        .contains(&(Table::of(binding.address), link.to_owned()))
    {
        wrong.push(format!("{link} is not in the set of links"));
    }
    if !kernel.up.contains(link) {
        wrong.push(format!("{link} is not up"));
    }
    let metric = METRIC_BASE.saturating_sub(binding.epoch);
    match best_route(&kernel.routes, binding.address) {
        Some(route) if route.to != IpNet::from(binding.address) || route.protocol != OURS => {
            wrong.push(format!("another route is better than the owner's: {}", route.to));
        }
        Some(route) if route.device.as_deref() != Some(link) => {
            let device = route.device.as_deref().unwrap_or("nowhere");
            wrong.push(format!("its route leads to {device}, the owner is behind {link}"));
        }
        Some(route) if route.metric != metric => wrong.push(format!(
            "its route has metric {}, that of epoch {} is {metric}",
            route.metric, binding.epoch
        )),
        Some(_) => {}
        None => wrong.push("no route".to_owned()),
    }
    let own = best_route(&kernel.routes, owner.internal).and_then(|route| route.device.as_deref());
    if own != Some(link) {
        let own = own.unwrap_or("nowhere");
        wrong.push(format!(
            "the route to {} leads to {own}, not to {link}",
            owner.internal
        ));
    }
    wrong
}

/// A flow that is answered by somebody else, or under the floating IP itself: untranslated, it reaches nobody.
fn flows(binding: &Binding, owner: &Owner, node: &Node) -> Vec<String> {
    let flows = node.kernel.flows.iter();
    flows
        .filter(|flow| flow.destination == binding.address && flow.answers != owner.internal)
        .filter(|flow| !node.kernel.draining.contains(&(binding.address, flow.answers)))
        .map(|flow| {
            let who = if flow.answers == binding.address {
                "nobody".to_owned()
            } else {
                flow.answers.to_string()
            };
            format!(
                "a flow from {} ({}) leads to {who}, the owner has {}",
                flow.source, flow.protocol, owner.internal
            )
        })
        .collect()
}
