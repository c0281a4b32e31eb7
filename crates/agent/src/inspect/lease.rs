//! What is known of leases.

use buoy_api::FloatingIp;
use buoy_core::floating::lease::Own;
use buoy_core::time::Now;
use buoy_core::view::Daemon;
use serde_json::Value;

use super::fact;
use crate::agent::Agent;

/// This node's lease in one line.
pub(super) fn own(agent: &Agent, now: Now) -> String {
    match agent.view.own_lease() {
        Own::Nothing if agent.view.owns() || agent.view.lease_wanted => "not taken yet".to_owned(),
        Own::Nothing => "none: this node owns no floating IP".to_owned(),
        Own::Foreign(holder) => {
            format!("held by another agent under this node's name: {holder}\nname the nodes differently")
        }
        Own::Held(held) => {
            let ago = now.mono.since(held.began).as_secs();
            let confirmed = if held.is_live(now.mono) {
                "confirmed"
            } else {
                "unconfirmed"
            };
            format!("term {}, renewed {ago} s ago: {confirmed}", held.term.0)
        }
    }
}

/// Why nothing is claimed on this node now, whoever asks.
pub(super) fn obstacle(agent: &Agent, now: Now) -> Option<Value> {
    if let Daemon::NotReady { why, .. } = &agent.view.daemon {
        return Some(fact(
            "routing",
            format!("nothing is claimed before BIRD is ready: {why}"),
        ));
    }
    matches!(agent.view.own_lease(), Own::Foreign(_)).then(|| fact("lease", own(agent, now)))
}

/// What bears upon who owns an address: how sure this node is of it, and what it sees of the owner's node.
pub(super) fn facts(agent: &Agent, floating: FloatingIp, now: Now) -> Vec<Value> {
    let mut facts = Vec::new();
    let binding = agent.view.bindings.get(&floating);
    let Some(owner) = binding.and_then(|binding| binding.spec.owner.as_ref()) else {
        return facts;
    };
    if owner.node == agent.settings.node_name {
        let given = agent.view.is_giving(floating);
        let says = match (given, agent.view.is_confirmed(floating, now.mono)) {
            (true, _) => "is being given away".to_owned(),
            (false, true) => format!("confirmed, term {}", owner.term.0),
            (false, false) => format!(
                "unconfirmed: owner's term {}, lease: {}",
                owner.term.0,
                own(agent, now)
            ),
        };
        facts.push(fact("ownership", says));
    } else if let Some(seen) = agent.view.sighting(&owner.node) {
        let stands = now.mono.since(seen.since).as_secs();
        let says = match seen.term() {
            Some(term) if term > owner.term => format!("revoked, term {}", term.0),
            Some(term) => format!("term {}, unchanged for {stands} s", term.0),
            None => format!("no such record for {stands} s"),
        };
        facts.push(fact(format!("lease of {}", owner.node), says));
    }
    facts
}
