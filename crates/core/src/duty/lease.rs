//! What is owed for leases: this node's own, and those that it watches.

use std::time::Duration;

use buoy_api::binding::{Binding, Term};
use buoy_api::ip::FloatingIp;

use super::{Duty, Owed};
use crate::floating::candidates;
use crate::floating::lease::{self, Own, Sighting};
use crate::time::Now;
use crate::view::View;

/// How long a node that owns nothing keeps its lease: the next claim may be near.
const LEAVE_GRACE: Duration = Duration::from_secs(10);

/// This node's lease is taken before its first claim, renewed while it owns something, and left after its last release. A
/// store that was restored may have it held, so it is taken, and left.
pub(super) fn own(view: &View, now: Now) -> Owed {
    let wanted = view.lease_wanted || view.owns() || view.is_own_lease_unknown();
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
/// revoked. A foreign holder of this node's own lease is watched like another node.
pub(super) fn watched(view: &View, node: &str, now: Now) -> Owed {
    // Leases of before a restore say nothing, and their holders need time to notice.
    if view.is_held() {
        return Owed::default();
    }
    let foreign = view.is_foreign(node) && (view.lease_wanted || view.owns());
    if !foreign && in_force(view, node).next().is_none() {
        return Owed::default();
    }
    let Some(seen) = view.sighting(node) else {
        let node = node.to_owned();
        return Duty::ReadLease { node, after: None }.into();
    };
    let owner = highest_stood_by_for(view, node).or(foreign.then_some(Term(0)));
    // While another agent holds this node's lease there is none to show by that the datastore takes writes.
    let proven = foreign || view.can_write(now.mono);
    if let Some(owner) = owner.filter(|_| proven && seen.is_revocable(now.mono)) {
        return Duty::RevokeLease {
            node: node.to_owned(),
            seen: Box::new(seen.clone()),
            owner,
        }
        .into();
    }
    Owed {
        needs_lease: !foreign && owner.is_some() && seen.needs_proof(),
        ..reading(node, seen, now)
    }
}

/// The next reading of a lease: in a while, or when it will have stood long enough.
fn reading(node: &str, seen: &Sighting, now: Now) -> Owed {
    let next = seen.last.after(lease::READING);
    let next = if seen.is_due() { next } else { next.min(seen.due()) };
    if now.mono < next {
        return Owed::later(next);
    }
    Duty::ReadLease {
        node: node.to_owned(),
        after: Some(seen.last),
    }
    .into()
}

/// Bindings of a node's workloads that somebody here asks for, and for whose owners its lease, as it was read last, still
/// stands.
fn in_force<'a>(view: &'a View, node: &'a str) -> impl Iterator<Item = (FloatingIp, &'a Binding, Term)> {
    let seen = view.sighting(node);
    view.awaited_of(node)
        .filter_map(|floating| {
            let binding = view.bindings.get(&floating)?;
            Some((floating, binding, binding.spec.owner.as_ref()?.term))
        })
        .filter(move |(_, _, term)| !seen.is_some_and(|seen| seen.outranks(*term)))
}

/// Highest term of the owners there whose addresses somebody here may have.
fn highest_stood_by_for(view: &View, node: &str) -> Option<Term> {
    in_force(view, node)
        .filter(|(floating, binding, _)| !candidates::of(view, *floating, &binding.spec.namespace).is_empty())
        .map(|(_, _, term)| term)
        .max()
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
