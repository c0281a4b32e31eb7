//! Whom a row of the desired state, an operation or a piece of work is about.

use std::fmt;

use buoy_api::ip::FloatingIp;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::endpoint::{AttachmentId, EndpointId};

/// The thing that something is about. Reports read it; nothing is decided by it but who wins a tie.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Subject {
    /// This node itself.
    Node,
    /// One ADD.
    Attachment(AttachmentId),
    /// A workload's interface.
    Endpoint(EndpointId),
    /// A floating IP.
    Binding(FloatingIp),
    /// An IP pool.
    Pool(String),
    /// An IPAM block of this node.
    Block(IpNet),
    /// Another node.
    OtherNode(String),
    /// A BGP peer outside the mesh.
    Peer(String),
    /// This node's lease.
    Lease,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("this node"),
            Self::Attachment(id) => write!(f, "attachment {id}"),
            Self::Endpoint(id) => write!(f, "endpoint {id}"),
            Self::Binding(floating) => write!(f, "floating IP {floating}"),
            Self::Pool(name) => write!(f, "IP pool {name}"),
            Self::Block(cidr) => write!(f, "IPAM block {cidr}"),
            Self::OtherNode(name) => write!(f, "node {name}"),
            Self::Peer(name) => write!(f, "BGP peer {name}"),
            Self::Lease => f.write_str("this node's lease"),
        }
    }
}
