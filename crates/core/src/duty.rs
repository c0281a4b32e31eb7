//! What this node owes the datastore: writes that follow from what it knows.
//!
//! A duty is a value. It is done by somebody else, and what came of it returns as a delta; only newly assigned addresses
//! come back by themselves, for no record names them yet.

mod binding;
mod lease;
mod queue;

use std::time::Duration;

pub use queue::{AT_ONCE, Failure, Work};

use buoy_api::binding::{Binding, Candidate, Condition, Epoch, Offer, Owner, Term};
use buoy_api::ip::FloatingIp;
use buoy_api::v3::WorkloadEndpoint;
use ipnet::IpNet;

use crate::endpoint::{Attachment, Phase};
use crate::floating::claim::Seen;
use crate::floating::decide::Reason;
use crate::floating::lease::{Held, Sighting};
use crate::subject::Subject;
use crate::time::{Mono, Now};
use crate::view::View;

/// How long a reservation may stand without a binding: a claim that was begun makes its binding in a moment, or stamps
/// the reservation anew.
pub const ORPHAN_GRACE: Duration = Duration::from_secs(60);

/// How long what is said of an address must stand before it is written.
const SETTLING: Duration = Duration::from_millis(300);

/// How long an address may be in no block before it is taken again: what was just assigned is on its way here.
const LOST_GRACE: Duration = Duration::from_secs(5);

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
    /// Write a WorkloadEndpoint of this node as it was before the store was restored from a copy.
    Republish(Box<WorkloadEndpoint>),
    /// Take the attachment's own addresses again: no block says that it has them.
    Reallocate(Box<Attachment>),
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
    /// Write this node's new term into a binding that its workload still owns.
    Restamp {
        /// The address.
        floating: FloatingIp,
        /// The binding that was decided on.
        seen: Box<Seen>,
        /// The term.
        term: Term,
    },
    /// Write a binding as it was before the store was restored from a copy.
    Reassert {
        /// The address.
        floating: FloatingIp,
        /// The binding as this node remembers it.
        before: Box<Binding>,
        /// Highest epoch that this node remembers.
        above: Epoch,
        /// This node's term.
        term: Term,
        /// Whether a record that names another owner is one of the past.
        overrules: bool,
    },
    /// Empty a binding's owner, for a candidate of another node.
    Offer {
        /// The address.
        floating: FloatingIp,
        /// The binding that was decided on.
        seen: Box<Seen>,
        /// Whom it is meant for.
        offer: Offer,
    },
    /// Take an address out of the kernel, before it is given away.
    Withdraw(FloatingIp),
    /// Put an address back that was to be given away and is not.
    Restore(FloatingIp),
    /// Empty a binding's owner.
    Release {
        /// The address.
        floating: FloatingIp,
        /// The binding that was decided on.
        seen: Box<Seen>,
    },
    /// Write this node's part of a binding's status.
    Candidates {
        /// The address.
        floating: FloatingIp,
        /// All of this node's.
        candidates: Vec<Candidate>,
        /// What it says of an address that it owns.
        conditions: Vec<Condition>,
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
    /// Take this node's lease, or renew it.
    KeepLease(Option<Held>),
    /// Make this node's lease last while its agent is away on purpose.
    ProlongLease(Held),
    /// Leave this node's lease without holder.
    LeaveLease(Held),
    /// Read another node's lease.
    ReadLease {
        /// The node.
        node: String,
        /// When it was read last.
        after: Option<Mono>,
    },
    /// Revoke another node's lease.
    RevokeLease {
        /// The node.
        node: String,
        /// The lease as it has stood for long enough.
        seen: Box<Sighting>,
        /// Highest term of the owners it stands for.
        owner: Term,
    },
}

impl Duty {
    /// Whether it would write again what that one, which was done, has written. An attachment's life goes on meanwhile.
    fn repeats(&self, done: &Self) -> bool {
        match (self, done) {
            (Self::Publish(this), Self::Publish(done)) => {
                let done = Attachment {
                    phase: this.phase,
                    ..Attachment::clone(done)
                };
                **this == done
            }
            _ => self == done,
        }
    }

    /// What kind of work it is, in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Node(_) => "node",
            Self::Cluster => "cluster",
            Self::Allocate(_) => "allocate",
            Self::Publish(_) => "publish",
            Self::Republish(_) => "republish",
            Self::Reallocate(_) => "reallocate",
            Self::Retire(_) => "retire",
            Self::FirstClaim { .. } => "first_claim",
            Self::Claim { .. } => "claim",
            Self::Restamp { .. } => "restamp",
            Self::Reassert { .. } => "reassert",
            Self::Offer { .. } => "offer",
            Self::Withdraw(_) => "withdraw",
            Self::Restore(_) => "restore",
            Self::Release { .. } => "release",
            Self::Candidates { .. } => "candidates",
            Self::Collect { .. } => "collect",
            Self::Free { .. } => "free",
            Self::KeepLease(_) => "keep_lease",
            Self::ProlongLease(_) => "prolong_lease",
            Self::LeaveLease(_) => "leave_lease",
            Self::ReadLease { .. } => "read_lease",
            Self::RevokeLease { .. } => "revoke_lease",
        }
    }
}

/// What is to be done for a subject now, and when to look again although nothing changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Owed {
    /// The next piece of work.
    pub duty: Option<Duty>,
    /// When to look again.
    pub again: Option<Mono>,
    /// How long it must have been owed without a change before it is done.
    pub grace: Duration,
    /// It waits for this node's lease.
    pub needs_lease: bool,
}

impl Owed {
    fn later(again: Mono) -> Self {
        Self {
            again: Some(again),
            ..Self::default()
        }
    }

    fn lease() -> Self {
        Self {
            needs_lease: true,
            ..Self::default()
        }
    }
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
pub fn owed(view: &View, subject: &Subject, now: Now) -> Owed {
    match subject {
        Subject::Endpoint(_) | Subject::Pool(_) | Subject::Block(_) | Subject::Peer(_) => Owed::default(),
        Subject::OtherNode(node) => lease::watched(view, node, now),
        Subject::Lease => lease::own(view, now),
        Subject::Node => for_node(view, now),
        Subject::Attachment(id) => {
            let attachment = view.attachment(id);
            attachment.map_or(Owed::default(), |attachment| for_attachment(view, attachment))
        }
        Subject::Binding(floating) => binding::owed(view, *floating, now),
    }
}

fn for_node(view: &View, now: Now) -> Owed {
    // The node of this name is another agent's.
    if view.is_foreign(&view.settings.node) {
        return Owed::default();
    }
    if !view.node_is_right() {
        return match view.truce(now.mono) {
            Some(end) => Owed::later(end),
            None => Duty::Node(view.addresses.clone()).into(),
        };
    }
    if view.cluster.contains("default") {
        Owed::default()
    } else {
        Duty::Cluster.into()
    }
}

fn for_attachment(view: &View, attachment: &Attachment) -> Owed {
    let boxed = || Box::new(attachment.clone());
    match attachment.phase {
        Phase::Down => Duty::Retire(boxed()).into(),
        Phase::Removing => Owed::default(),
        _ if !view.is_current(attachment) => Owed::default(),
        _ if attachment.addresses.is_none() => Duty::Allocate(boxed()).into(),
        _ if attachment.request.link && view.record_of(attachment).is_none() => Duty::Publish(boxed()).into(),
        _ => match view.to_republish(attachment) {
            Some(record) => Duty::Republish(Box::new(record.clone())).into(),
            None if attachment.phase == Phase::Up && has_lost_addresses(view, attachment) => Owed {
                duty: Some(Duty::Reallocate(boxed())),
                grace: if view.is_held() {
                    Duration::ZERO
                } else {
                    LOST_GRACE
                },
                ..Owed::default()
            },
            None => Owed::default(),
        },
    }
}

/// Whether an address of an attachment lies in a pool, and no block says that it is the attachment's.
fn has_lost_addresses(view: &View, attachment: &Attachment) -> bool {
    if attachment.request.is_given() {
        return false;
    }
    let handle = attachment.request.handle(&attachment.id);
    attachment.own_addresses().any(|address| {
        let block = view.block_of(address);
        let holder = block.and_then(|block| block.holder(block.ordinal(address)?));
        !holder.is_some_and(|holder| holder.has_handle(&handle))
            && view.pools.values().any(|pool| pool.spec.cidr.contains(&address))
    })
}

#[cfg(test)]
#[path = "duty_tests.rs"]
mod tests;
