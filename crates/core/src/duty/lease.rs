//! What is owed for leases: this node's own, and those that it watches.

use std::time::Duration;

use buoy_api::binding::Term;

use super::{Duty, Owed};
use crate::floating::lease::{self, Own};
use crate::time::Now;
use crate::view::View;

/// How long a node that owns nothing keeps its lease: the next claim may be near.
const LEAVE_GRACE: Duration = Duration::from_secs(10);

/// This node's lease is taken before its first claim, renewed while it owns something, and left after its last release.
pub(super) fn own(view: &View, now: Now) -> Owed {
    let wanted = view.lease_wanted || view.owns();
    match view.own_lease() {
        // It is watched, as another node's.
        Own::Foreign(_) => Owed::default(),
        Own::Nothing if wanted => Duty::KeepLease(None).into(),
        Own::Nothing => Owed::default(),
        Own::Held(held) if wanted => {
            let due = held.began.after(lease::RENEWAL);
            if now.mono < due && held.term >= view.term_floor() {
                Owed::later(due)
            } else {
                Duty::KeepLease(Some(held.clone())).into()
            }
        }
        Own::Held(held) => Owed {
            duty: Some(Duty::LeaveLease(held.clone())),
            grace: LEAVE_GRACE,
            ..Owed::default()
        },
    }
}

/// The lease of a node is read again and again while somebody here stands by for what its workloads own, until it can be
/// revoked.
pub(super) fn watched(view: &View, node: &str, now: Now) -> Owed {
    let Some(owner) = highest_in_force(view, node) else {
        return Owed::default();
    };
    let node = node.to_owned();
    match view.sighting(&node) {
        None => Duty::ReadLease { node, after: None }.into(),
        Some(seen) if seen.is_revocable() => Duty::RevokeLease {
            node,
            seen: Box::new(seen.clone()),
            owner,
        }
        .into(),
        Some(seen) => {
            let due = seen.last.after(lease::READING);
            if now.mono < due {
                return Owed::later(due);
            }
            Duty::ReadLease {
                node,
                after: Some(seen.last),
            }
            .into()
        }
    }
}

/// Highest term of the owners on a node that somebody here stands by for and whose lease, as it was read last, still
/// stands for them. A foreign holder of this node's own lease is watched like another node.
fn highest_in_force(view: &View, node: &str) -> Option<Term> {
    let seen = view.sighting(node);
    let terms = view.awaited_of(node).filter_map(|floating| {
        let owner = view.bindings.get(&floating)?.spec.owner.as_ref()?;
        Some(owner.term)
    });
    let in_force = terms.filter(|term| !seen.is_some_and(|seen| seen.outranks(*term)));
    let foreign = view.is_foreign(node) && view.lease_wanted;
    in_force.chain(foreign.then_some(Term(0))).max()
}
