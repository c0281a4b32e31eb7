//! The records of ownership fit each other: names, candidates, owners, leases.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::SignedDuration;

use crate::checker::facts::{Binding, Facts, Owner};
use crate::cluster::Standing;

/// A node that owns nothing keeps its lease for a while, in case that the next claim is near.
const LEAVE_WITHIN: SignedDuration = SignedDuration::from_secs(25);

/// What is wrong with bindings and leases.
pub(super) fn wrong(facts: &Facts) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut addresses = BTreeSet::new();
    for binding in &facts.records.bindings {
        let mut found = candidates(facts, binding);
        found.extend(requests(facts, binding));
        if !addresses.insert(binding.address) {
            found.push("two bindings have this address".to_owned());
        }
        if binding.name != name_of(binding.address) {
            found.push(format!("its binding has another's name: {}", binding.name));
        }
        match &binding.owner {
            Some(owner) => found.extend(owner_and_lease(facts, binding, owner)),
            None => found.extend(vacant(facts, binding)),
        }
        wrong.extend(
            found
                .into_iter()
                .map(|what| format!("{}: {what}", binding.address)),
        );
    }
    wrong.extend(idle_leases(facts));
    wrong
}

/// The canonical name of an address: dots as dashes, or all eight groups.
fn name_of(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string().replace('.', "-"),
        IpAddr::V6(v6) => v6.segments().map(|group| format!("{group:x}")).join("-"),
    }
}

fn is_live(facts: &Facts, node: &str) -> bool {
    let found = facts.nodes.get(node);
    found.is_some_and(|node| node.standing == Standing::Live)
}

/// A candidate is a workload that asks, as its own node says. What a node wrote that is frozen may be out of date.
fn candidates(facts: &Facts, binding: &Binding) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for candidate in &binding.candidates {
        let who = &candidate.who;
        let name = format!("{} on {}", who.workload, who.node);
        if !seen.insert(who) {
            wrong.push(format!("a candidate twice: {name}"));
        }
        if !is_live(facts, &who.node) {
            continue;
        }
        let endpoint = facts.records.endpoint(binding, who);
        match endpoint.and_then(|endpoint| endpoint.asks.get(&binding.address)) {
            Some(internal) if *internal == candidate.internal => {}
            Some(internal) => wrong.push(format!(
                "candidate {name} says {}, it asks for {internal}",
                candidate.internal
            )),
            None => wrong.push(format!("candidate {name} does not ask for it")),
        }
        if endpoint.is_some_and(|endpoint| endpoint.namespace != binding.namespace) {
            wrong.push(format!("candidate {name} is of another namespace"));
        }
    }
    wrong
}

/// Who asks and is of the namespace is a candidate.
fn requests(facts: &Facts, binding: &Binding) -> Vec<String> {
    let endpoints = facts.records.endpoints.iter();
    endpoints
        .filter(|endpoint| endpoint.namespace == binding.namespace && is_live(facts, &endpoint.who.node))
        .filter(|endpoint| endpoint.asks.contains_key(&binding.address))
        .filter(|endpoint| {
            binding
                .candidates
                .iter()
                .all(|candidate| candidate.who != endpoint.who)
        })
        .map(|endpoint| format!("{} asks for it and is no candidate", endpoint.who.workload))
        .collect()
}

/// An owner is a candidate, and its node's lease is of its term.
fn owner_and_lease(facts: &Facts, binding: &Binding, owner: &Owner) -> Vec<String> {
    let node = &owner.who.node;
    let mut wrong = Vec::new();
    if is_live(facts, node)
        && binding
            .candidates
            .iter()
            .all(|candidate| candidate.who != owner.who)
    {
        wrong.push(format!(
            "its owner {} on {node} is no candidate",
            owner.who.workload
        ));
    }
    if binding.epoch == 0 {
        wrong.push("it has an owner and epoch 0".to_owned());
    }
    match facts.records.leases.get(node) {
        None => wrong.push(format!("{node} owns it without a lease")),
        Some(lease) if lease.term < owner.term => wrong.push(format!(
            "its owner claims term {}, the lease of {node} has {}",
            owner.term, lease.term
        )),
        Some(lease) if is_live(facts, node) => {
            if lease.holder.is_none() {
                wrong.push(format!("{node} owns it, and nobody holds its lease"));
            }
            if lease.term != owner.term {
                wrong.push(format!(
                    "its owner has term {}, the lease of {node} has {}: lost and not taken back",
                    owner.term, lease.term
                ));
            }
        }
        Some(_) => {}
    }
    wrong
}

/// Nobody owns it although somebody could.
fn vacant(facts: &Facts, binding: &Binding) -> Option<String> {
    let mut candidates = binding.candidates.iter();
    let ready = candidates.find(|candidate| candidate.ready && is_live(facts, &candidate.who.node))?;
    Some(format!(
        "nobody owns it, and {} on {} is ready",
        ready.who.workload, ready.who.node
    ))
}

/// Nodes without addresses hold no lease.
fn idle_leases(facts: &Facts) -> Vec<String> {
    let owns = |node: &str| {
        let mut bindings = facts.records.bindings.iter();
        bindings.any(|binding| binding.owner.as_ref().is_some_and(|owner| owner.who.node == node))
    };
    let leases = facts.records.leases.iter();
    leases
        .filter(|(node, lease)| lease.holder.is_some() && is_live(facts, node) && !owns(node))
        .filter(|(_, lease)| {
            lease
                .renewed
                .is_some_and(|renewed| facts.now.duration_since(renewed) > LEAVE_WITHIN)
        })
        .map(|(node, _)| format!("{node} owns nothing and holds its lease"))
        .collect()
}
