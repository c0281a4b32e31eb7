//! Workloads of this node that ask for a floating IP and may have it.

use std::net::IpAddr;

use buoy_api::binding::{Binding, Candidate, Move};
use buoy_api::ip::FloatingIp;

use crate::endpoint::{Attachment, EndpointId, Phase};
use crate::floating::rights::{self, Refusal};
use crate::view::{Gate, View};

/// Candidates of one namespace on this node, in order of their names.
pub fn of(view: &View, floating: FloatingIp, namespace: &str) -> Vec<Candidate> {
    if view.leaving {
        return Vec::new();
    }
    view.asking(floating)
        .filter(|endpoint| endpoint.namespace == namespace)
        .filter_map(|endpoint| candidate(view, floating, endpoint).ok())
        .collect()
}

/// Namespaces of this node that ask for a floating IP and have a workload that may have it.
pub fn namespaces(view: &View, floating: FloatingIp) -> Vec<String> {
    let mut names: Vec<String> = view
        .asking(floating)
        .filter(|endpoint| candidate(view, floating, endpoint).is_ok())
        .map(|endpoint| endpoint.namespace.clone())
        .collect();
    names.dedup();
    names
}

/// The candidate that an endpoint is, or why it is none.
pub fn candidate(view: &View, floating: FloatingIp, endpoint: &EndpointId) -> Result<Candidate, Refusal> {
    let attachment = view
        .attachment_of(endpoint)
        .filter(|a| a.is_reachable())
        .ok_or(Refusal::NotRunning)?;
    if !gate(view, attachment) {
        return Err(Refusal::GateOff);
    }
    let internal_ip =
        internal(view, attachment, floating).ok_or(Refusal::NoAddressOfFamily(floating.family()))?;
    let mut candidate = Candidate {
        node: view.settings.node.clone(),
        workload: attachment.request.workload.clone(),
        endpoint: attachment.id.ifname.clone(),
        uid: attachment.request.uid.clone(),
        internal_ip,
        ready: view.is_ready() && view.serves(endpoint),
        priority: attachment.request.priority,
        since: attachment.since,
    };
    let owns = owns(view, floating, &candidate);
    candidate.ready &= owns || !view.is_weak(endpoint);
    match rights::check(view, &endpoint.namespace, floating) {
        // What cannot be read gives nothing, and takes nothing away either.
        Err(Refusal::PoolUnreadable { .. }) if owns => Ok(candidate),
        checked => checked.map(|()| candidate),
    }
}

/// Whether the owner of a binding, a workload of this node, wants to be withdrawn before it gives the address away.
pub fn is_exclusive(view: &View, binding: &Binding) -> bool {
    let asked = |wish: &Move| wish.exclusive;
    let owner = binding.spec.owner.as_ref();
    let workload = owner.and_then(|owner| view.attachment_of_owner(&binding.spec.namespace, owner));
    workload.is_some_and(|attachment| attachment.request.exclusive)
        || binding.spec.requested_move.as_ref().is_some_and(asked)
}

/// Whether the workload that owns a binding is being attached anew on this node, and asks for the address again.
pub fn has_successor(view: &View, floating: FloatingIp, binding: &Binding) -> bool {
    let Some(owner) = &binding.spec.owner else {
        return false;
    };
    let comes = |attachment: &Attachment| attachment.phase == Phase::Adding && attachment.request.link;
    let asks = |attachment: &Attachment| view.asked_by(&attachment.endpoint).any(|asked| asked == floating);
    view.attachments_of_name(&binding.spec.namespace, owner)
        .any(|attachment| comes(attachment) && asks(attachment) && gate(view, attachment))
}

fn owns(view: &View, floating: FloatingIp, candidate: &Candidate) -> bool {
    let owner = view
        .bindings
        .get(&floating)
        .and_then(|binding| binding.spec.owner.as_ref());
    owner.is_some_and(|owner| candidate.is(owner))
}

/// Whether floating IPs are on for a workload. `Disabled` in FelixConfiguration is what Calico fills in by itself, so
/// it is no answer.
pub fn gate(view: &View, attachment: &Attachment) -> bool {
    match view.settings.floating {
        Gate::On => true,
        Gate::Off => false,
        Gate::Auto => attachment.request.gate || felix_gate(view),
    }
}

/// Whether FelixConfiguration switches floating IPs on for everybody.
pub fn felix_gate(view: &View) -> bool {
    view.felix
        .get("default")
        .and_then(|felix| felix.spec.floating_ips.as_deref())
        == Some("Enabled")
}

/// The address that a floating IP is translated to: the one its request names, else the workload's of that family.
fn internal(view: &View, attachment: &Attachment, floating: FloatingIp) -> Option<IpAddr> {
    let named = view.record_of(attachment).and_then(|record| {
        let nats = &record.spec.ip_nats;
        // Nearly everybody writes an address as it is written here, and parsing thousands of others takes long.
        let usual = floating.to_string();
        let asked = |external: &str| external.parse::<FloatingIp>() == Ok(floating);
        let nat = nats
            .iter()
            .find(|nat| nat.external_ip == usual)
            .or_else(|| nats.iter().find(|nat| asked(&nat.external_ip)))?;
        let internal: IpAddr = nat.internal_ip.parse().ok()?;
        attachment
            .own_addresses()
            .find(|own| *own == internal && own.is_ipv4() == floating.addr().is_ipv4())
    });
    named.or_else(|| attachment.address_of(floating.family()))
}

#[cfg(test)]
#[path = "candidates_tests.rs"]
mod tests;
