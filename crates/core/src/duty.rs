//! What this node owes the datastore: writes that follow from what it knows.
//!
//! A duty is a value. It is done by somebody else, and what came of it returns as a delta; only newly assigned addresses
//! come back by themselves, for no record names them yet.

use std::time::Duration;

use buoy_api::binding::{Candidate, Epoch, Owner};
use buoy_api::ip::FloatingIp;
use ipnet::IpNet;
use jiff::Timestamp;

use crate::edit::Change;
use crate::endpoint::{Attachment, Phase};
use crate::floating::claim::Seen;
use crate::floating::decide::{self, Case, Decision, Reason};
use crate::floating::{candidates, collect};
use crate::records;
use crate::store::Value;
use crate::subject::Subject;
use crate::view::View;

/// How long a reservation may stand without a binding: a claim that was begun makes its binding in a moment, or stamps
/// the reservation anew.
pub const ORPHAN_GRACE: Duration = Duration::from_secs(60);

/// One piece of work on the datastore.
#[derive(Clone, Debug, PartialEq)]
pub enum Duty {
    /// Mark this node's record and write its addresses.
    Node(Vec<IpNet>),
    /// Make the ClusterInformation of a new store.
    Cluster,
    /// Assign the attachment's own addresses.
    Allocate(Box<Attachment>),
    /// Write the attachment's WorkloadEndpoint.
    Publish(Box<Attachment>),
    /// Release the attachment's addresses and delete its WorkloadEndpoint.
    Retire(Box<Attachment>),
    /// Reserve an address that has no binding and make one.
    FirstClaim {
        /// The address.
        floating: FloatingIp,
        /// Namespace of the binding.
        namespace: String,
        /// Its first owner.
        owner: Owner,
        /// Epoch floor as far as known.
        floor: Epoch,
    },
    /// Stamp the reservation and write another owner into a binding.
    Claim {
        /// The address.
        floating: FloatingIp,
        /// The binding that was decided on.
        seen: Box<Seen>,
        /// The new owner.
        owner: Owner,
        /// Why.
        reason: Reason,
    },
    /// Empty a binding's owner.
    Release {
        /// The address.
        floating: FloatingIp,
        /// The binding that was decided on.
        seen: Box<Seen>,
    },
    /// Write this node's candidates into a binding's status.
    Candidates {
        /// The address.
        floating: FloatingIp,
        /// All of this node's.
        candidates: Vec<Candidate>,
    },
    /// Delete a binding that nobody wants, and its reservation.
    Collect {
        /// The address.
        floating: FloatingIp,
        /// The binding that was decided on.
        seen: Box<Seen>,
        /// Sequence number of its reservation.
        reservation: Option<u64>,
    },
    /// Free a reservation that has no binding.
    Free {
        /// The address.
        floating: FloatingIp,
        /// Its sequence number.
        stamp: u64,
    },
}

/// What is to be done for a subject now, and when to look again although nothing changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Owed {
    /// The next piece of work.
    pub duty: Option<Duty>,
    /// When to look again.
    pub again: Option<Timestamp>,
    /// How long it must have been owed without a change before it is done.
    pub grace: Duration,
}

impl From<Duty> for Owed {
    fn from(duty: Duty) -> Self {
        Self {
            duty: Some(duty),
            ..Self::default()
        }
    }
}

/// What is owed for a subject.
pub fn owed(view: &View, subject: &Subject, now: Timestamp) -> Owed {
    match subject {
        Subject::Endpoint(_) | Subject::Pool(_) | Subject::Block(_) | Subject::Peer(_) => Owed::default(),
        Subject::OtherNode(_) | Subject::Lease => Owed::default(),
        Subject::Node => Owed {
            duty: for_node(view),
            ..Owed::default()
        },
        Subject::Attachment(id) => {
            let duty = view
                .attachment(id)
                .and_then(|attachment| for_attachment(view, attachment));
            Owed {
                duty,
                ..Owed::default()
            }
        }
        Subject::Binding(floating) => for_binding(view, *floating, now),
    }
}

fn for_node(view: &View) -> Option<Duty> {
    let name = &view.settings.node;
    let found = view
        .nodes
        .versioned(name)
        .map(|(node, _)| Value::Node(node.clone()));
    if found.is_some() || !view.nodes.contains(name) {
        let change = records::node(found.as_ref(), name, &view.settings.version, &view.addresses);
        if change != Change::Keep {
            return Some(Duty::Node(view.addresses.clone()));
        }
    }
    (!view.cluster.contains("default")).then_some(Duty::Cluster)
}

fn for_attachment(view: &View, attachment: &Attachment) -> Option<Duty> {
    let boxed = || Box::new(attachment.clone());
    match attachment.phase {
        Phase::Down => Some(Duty::Retire(boxed())),
        Phase::Removing => None,
        _ if !view.is_current(attachment) => None,
        _ if attachment.addresses.is_none() => Some(Duty::Allocate(boxed())),
        _ if attachment.request.link && view.record_of(attachment).is_none() => Some(Duty::Publish(boxed())),
        _ => None,
    }
}

fn for_binding(view: &View, floating: FloatingIp, now: Timestamp) -> Owed {
    let Some((binding, revision)) = view.bindings.versioned(&floating) else {
        return if view.bindings.contains(&floating) {
            Owed::default()
        } else {
            first(view, floating)
        };
    };
    let seen = || Box::new((binding.clone(), revision));
    let mine = candidates::of(view, floating, &binding.spec.namespace);
    let case = Case {
        binding: Some(binding),
        node: &view.settings.node,
        mine: &mine,
        hold: view.settings.hold,
    };
    match decide::decide(&case, now) {
        Decision::Hold => Owed::default(),
        Decision::Wait(until) => Owed {
            again: Some(until),
            ..Owed::default()
        },
        Decision::Claim(owner, reason) => Duty::Claim {
            floating,
            seen: seen(),
            owner,
            reason,
        }
        .into(),
        Decision::Release => Duty::Release {
            floating,
            seen: seen(),
        }
        .into(),
        Decision::Publish(candidates) => Duty::Candidates { floating, candidates }.into(),
        Decision::Collect => Duty::Collect {
            floating,
            seen: seen(),
            reservation: collect::reservation(view, floating),
        }
        .into(),
    }
}

/// A reservation without a binding, that nobody here asks for, is a leak once it has stood for a while.
fn orphan(view: &View, floating: FloatingIp) -> Owed {
    let asked = view.asking(floating).next().is_some();
    match collect::reservation(view, floating) {
        Some(stamp) if !asked => Owed {
            duty: Some(Duty::Free { floating, stamp }),
            grace: ORPHAN_GRACE,
            ..Owed::default()
        },
        _ => Owed::default(),
    }
}

/// A binding that does not exist yet is made for the oldest candidate, whatever its namespace.
fn first(view: &View, floating: FloatingIp) -> Owed {
    let all = candidates::namespaces(view, floating);
    let all = all.iter().flat_map(|namespace| {
        candidates::of(view, floating, namespace)
            .into_iter()
            .map(move |c| (c.since, namespace, c))
    });
    let Some((_, namespace, candidate)) = all.min_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1))) else {
        return orphan(view, floating);
    };
    let case = Case {
        binding: None,
        node: &view.settings.node,
        mine: &[candidate],
        hold: view.settings.hold,
    };
    match decide::decide(&case, Timestamp::UNIX_EPOCH) {
        Decision::Claim(owner, _) => {
            let floor = view.epoch_floor();
            Duty::FirstClaim {
                floating,
                namespace: namespace.clone(),
                owner,
                floor,
            }
            .into()
        }
        _ => Owed::default(),
    }
}

#[cfg(test)]
#[path = "duty_tests.rs"]
mod tests;
