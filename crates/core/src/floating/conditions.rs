//! What the owner's node says of an address in its binding: that its workload may have it, that the kernel has it, and that
//! others hear of it.
//!
//! A condition says nothing that changes by itself, like times and numbers: it is written when it changes, and as many are
//! written as there are addresses.

use buoy_api::binding::{Binding, Condition, Owner};
use buoy_api::ip::FloatingIp;

use super::candidates;
use super::rights::Refusal;
use crate::view::{Daemon, Programmed, Routing, View};

/// The workload that owns the address may have it.
pub const ACCEPTED: &str = "Accepted";
/// The address is announced to others.
pub const ADVERTISED: &str = "Advertised";
/// The kernel of the owner's node has all of it.
pub const PROGRAMMED: &str = "Programmed";

/// What this node has to say of an address. Nothing, unless its owner runs here.
pub fn of(view: &View, floating: FloatingIp, binding: &Binding) -> Vec<Condition> {
    let owner = binding.spec.owner.as_ref();
    let owner = owner.filter(|_| !view.is_foreign(&view.settings.node));
    let Some(accepted) = owner.and_then(|owner| accepted(view, floating, binding, owner)) else {
        return Vec::new();
    };
    vec![accepted, advertised(view, floating), programmed(view, floating)]
}

/// Whether a binding's status says otherwise.
pub fn are_news(binding: &Binding, conditions: &[Condition]) -> bool {
    let own = [ACCEPTED, ADVERTISED, PROGRAMMED];
    let said = binding.status.conditions.iter();
    let mut said: Vec<&Condition> = said.filter(|c| own.contains(&c.kind.as_str())).collect();
    said.sort();
    !said.into_iter().eq(conditions)
}

fn accepted(view: &View, floating: FloatingIp, binding: &Binding, owner: &Owner) -> Option<Condition> {
    let attachment = view.attachment_of_owner(&binding.spec.namespace, owner)?;
    Some(
        match candidates::candidate(view, floating, &attachment.endpoint) {
            Ok(_) => condition(ACCEPTED, "True", "Allowed", "its workload may have it"),
            Err(refusal) => condition(ACCEPTED, "False", reason(&refusal), &refusal.to_string()),
        },
    )
}

fn reason(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::NotRunning => "NotRunning",
        Refusal::GateOff => "FloatingIPsOff",
        Refusal::NoAddressOfFamily(_) => "NoAddressOfFamily",
        Refusal::OutsidePools | Refusal::PoolUnreadable { .. } => "OutsidePools",
        Refusal::NamespaceNotAllowed { .. } => "NamespaceNotAllowed",
        Refusal::UseNotAllowed { .. } => "UseNotAllowed",
        Refusal::BadSelector { .. } => "BadSelector",
        Refusal::NodeAddress { .. } => "NodeAddress",
        Refusal::InUse { .. } => "InUse",
        Refusal::Contested { .. } => "Contested",
        Refusal::BadRecord { .. } => "BadRecord",
        Refusal::HeldBy { .. } => "HeldByOther",
    }
}

fn programmed(view: &View, floating: FloatingIp) -> Condition {
    let no = |reason, message: &str| condition(PROGRAMMED, "False", reason, message);
    match view.programmed(floating) {
        Some(Programmed::Yes) => condition(
            PROGRAMMED,
            "True",
            "Programmed",
            "its translation and its route are in the kernel",
        ),
        Some(Programmed::Failed(why)) => no("Failed", why),
        None if view.withdrawal(floating).is_some() => {
            no("Withdrawn", "it was taken out of the kernel before it moves")
        }
        Some(Programmed::Pending) | None => no("Pending", "the kernel does not have all of it yet"),
    }
}

fn advertised(view: &View, floating: FloatingIp) -> Condition {
    let no = |reason, message| condition(ADVERTISED, "False", reason, message);
    if view.programmed(floating) != Some(&Programmed::Yes) {
        return no("NotProgrammed", "what the kernel does not have is not announced");
    }
    match (view.settings.routing, &view.daemon) {
        (Routing::Kernel, _) => condition(
            ADVERTISED,
            "Unknown",
            "LeftToOthers",
            "this node programs routes, and somebody else announces them",
        ),
        (Routing::Bird, Daemon::NotReady { .. }) => no(
            "RoutingDaemonNotReady",
            "BIRD is not ready: see buoyctl node status on its node",
        ),
        (Routing::Bird, Daemon::Ready) if !view.is_heard() => no(
            "NoSession",
            "BIRD has no established session: see buoyctl node status on its node",
        ),
        (Routing::Bird, Daemon::Ready) => condition(
            ADVERTISED,
            "True",
            "Announced",
            "BIRD announces it to its sessions",
        ),
    }
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Condition {
    Condition {
        kind: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
    }
}

#[cfg(test)]
#[path = "conditions_tests.rs"]
mod tests;
