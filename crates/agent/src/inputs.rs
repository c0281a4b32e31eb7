//! All that can happen to an agent, as one stream into one loop.

pub(crate) mod kernel;
pub(crate) mod listener;
pub(crate) mod signals;
pub(crate) mod store;

use std::collections::BTreeSet;

use buoy_api::{FloatingIp, NodeLease};
use buoy_cni_spec::agent::{Body, Response};
use buoy_core::endpoint::{IfIndex, IfName};
use buoy_core::floating::lease::Own;
use buoy_core::ipam::IpamError;
use buoy_core::observed::Observed;
use buoy_core::op::{Effect, Op};
use buoy_core::store::{Delta, Revision};
use buoy_core::subject::Subject;
use buoy_core::time::Mono;
use buoy_kernel::Error;
use buoy_kernel::netns::Netns;
use crossbeam_channel::Sender;
use ipnet::IpNet;
use tokio::sync::oneshot;

use crate::adapters::bird::Report;
use crate::inspect::Glance;

/// Inputs that may wait for the loop. Who brings more waits in turn.
pub(crate) const QUEUE: usize = 1024;

/// One thing that happened.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "moved once, from a bounded queue")]
pub(crate) enum Input {
    /// A client asks for something.
    Call(Call),
    /// Somebody wants to know how things are.
    Glance(oneshot::Sender<Glance>),
    /// A client went away without an answer.
    Gone(CallId),
    /// A record changed.
    Delta(Delta),
    /// All records are known as they are now.
    Synced,
    /// The datastore does not answer.
    Lost(String),
    /// The datastore is not where it was: it was restored from a copy.
    Restored,
    /// Operations were carried out.
    Applied(Vec<Applied>),
    /// A link whose deletion was begun is gone, or is not.
    Unlinked(IfName, IfIndex, Result<(), String>),
    /// The kernel was read back whole.
    Read(Box<Result<ReadBack, String>>),
    /// The routing daemon brought a route to a floating IP of another node, or took it back.
    Learnt(FloatingIp, bool),
    /// The routing daemon is like this now.
    Bird(Report),
    /// A piece of work on the datastore is done.
    Performed(Subject, Outcome),
    /// A link is gone that nobody here deleted.
    LinkGone(IfName, IfIndex),
    /// Somebody set a workload's link down.
    LinkDown(IfName, IfIndex),
    /// A route of ours to this link is gone, and nobody here deleted it.
    RouteGone(IfIndex),
    /// Somebody else changed what this agent programs, or events were missed.
    Foreign(&'static str),
    /// Read the settings again.
    Reload,
    /// Stop, and leave everything programmed.
    Stop,
}

/// What the kernel has: of what this agent programs, and of the routing daemon's.
#[derive(Debug)]
pub(crate) struct ReadBack {
    pub(crate) observed: Observed,
    pub(crate) learnt: BTreeSet<FloatingIp>,
}

/// An operation and what came of it.
#[derive(Debug)]
pub(crate) struct Applied {
    pub(crate) op: Op,
    pub(crate) result: Result<Effect, OpError>,
}

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OpError {
    /// For people.
    pub(crate) message: String,
    /// The workload's namespace is gone: trying again is of no use.
    pub(crate) namespace_gone: bool,
}

impl From<&Error> for OpError {
    fn from(error: &Error) -> Self {
        Self {
            message: error.to_string(),
            namespace_gone: matches!(error, Error::NetnsGone { .. }),
        }
    }
}

impl From<Error> for OpError {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

/// What came of a duty.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The attachment's own addresses, with the prefix lengths of their blocks.
    Assigned(Result<Vec<IpNet>, IpamError>),
    /// This node's lease, as it is now, and when keeping it ended.
    Lease(Own, Mono),
    /// A node's lease, as it was when a reading of it ended.
    Sighted(Box<Option<(NodeLease, Revision)>>, Mono),
    /// It was carried out; its records say what came of it.
    Done,
    /// It was not.
    Failed(String),
}

/// Tells calls apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CallId(pub(crate) u64);

/// A client's request, waiting for its answer.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) id: CallId,
    pub(crate) body: Body,
    pub(crate) netns: Option<Netns>,
    pub(crate) reply: Sender<Response>,
}
