//! How a request for a floating IP stands.

use buoy_api::ip::FloatingIp;
use buoy_api::names;

use crate::endpoint::EndpointId;
use crate::floating::rights::Refusal;
use crate::floating::{candidates, decide};
use crate::store::Key;
use crate::view::View;

/// How one endpoint's request for one floating IP stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has it.
    Owner,
    /// Another workload of its namespace has it.
    Standby {
        /// The owner's node.
        node: String,
        /// The owner's name.
        workload: String,
    },
    /// It may not have it now.
    Refused(Refusal),
    /// Not decided yet.
    Undecided,
}

/// How the request of an endpoint of this node stands.
pub fn standing(view: &View, endpoint: &EndpointId, floating: FloatingIp) -> Standing {
    let candidate = match candidates::candidate(view, floating, endpoint) {
        Ok(candidate) => candidate,
        // It has just come, or is about to go.
        Err(Refusal::NotRunning) => return Standing::Undecided,
        Err(refusal) => return Standing::Refused(refusal),
    };
    if let Some(bad) = view.bad.get(&Key::Binding(names::binding_name(floating.addr()))) {
        return Standing::Refused(Refusal::BadRecord {
            reason: bad.reason.clone(),
        });
    }
    let Some(binding) = view.bindings.get(&floating) else {
        return Standing::Undecided;
    };
    let namespace = &binding.spec.namespace;
    match &binding.spec.owner {
        owner if *namespace != endpoint.namespace => {
            let until = owner
                .is_none()
                .then(|| decide::hold_ends(binding, view.settings.hold));
            Standing::Refused(Refusal::HeldBy {
                namespace: namespace.clone(),
                until,
            })
        }
        Some(owner) if candidate.is(owner) && candidate.internal_ip == owner.internal_ip => Standing::Owner,
        // What it was before has it still, and it will follow.
        Some(owner) if candidate.continues(owner) => Standing::Undecided,
        Some(owner) => Standing::Standby {
            node: owner.node.clone(),
            workload: owner.workload.clone(),
        },
        None => Standing::Undecided,
    }
}

#[cfg(test)]
#[path = "standing_tests.rs"]
mod tests;
