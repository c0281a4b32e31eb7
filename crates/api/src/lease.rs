//! `NodeLease`: a node's right to own floating IPs, and how others can tell that it is gone.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::binding::Term;
use crate::meta::Extra;
use crate::resource::{BUOY_V1ALPHA1, Kind, Resource};

/// The lease of one node, named after it. An owner whose term is lower than the lease's term has lost its addresses.
pub type NodeLease = Resource<NodeLeaseSpec>;

/// `spec` of a [`NodeLease`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeLeaseSpec {
    /// Identity of the agent that holds it, made once and kept in its state directory; nobody after a revocation or
    /// after the node's last release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// Rises by one with every taking and every revocation, never falls, and stays as it is at a renewal.
    #[serde(default)]
    pub term: Term,
    /// Seconds that one revision must have stood before somebody may revoke the lease; longer after an orderly stop.
    #[serde(default)]
    pub duration_seconds: u64,
    /// When it was renewed last, by the holder's clock: for people, nothing is decided by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewed: Option<Timestamp>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Kind for NodeLeaseSpec {
    type Status = Extra;
    const API_VERSION: &'static str = BUOY_V1ALPHA1;
    const KIND: &'static str = "NodeLease";
    const PLURAL: &'static str = "nodeleases";
}
