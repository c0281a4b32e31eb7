//! The protocol between the CNI binary (and `buoyctl`) and the agent of the node.
//!
//! One request and one response per connection to a unix stream socket, each a [`frame`](crate::frame). A network
//! namespace's descriptor is sent with the first bytes of the request. A client that closes before it has the
//! response takes its request back: the agent undoes an ADD.
//!
//! A request carries the version of the protocol, which is read before anything else of it, so that two sides of
//! different versions can tell people so. There is one such version at a time: binary and agent come in one package.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{CniError, ErrorCode};
use crate::ident;
use crate::netconf::Attachment;

/// The version of this protocol.
pub const PROTOCOL_VERSION: u32 = 1;

/// Where the agent listens unless a setting says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/buoy/agent.sock";

/// Where requests wait that no agent could take, unless a setting says otherwise.
pub const DEFAULT_SPOOL: &str = "/var/lib/buoy/spool";

/// A request to the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// [`PROTOCOL_VERSION`] of the client.
    pub protocol: u32,
    /// Name and version of the client's program, for messages and logs.
    pub client: String,
    /// What is asked.
    pub body: Body,
}

/// What is asked of the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// Attach a container; with the namespace's descriptor. Response: the CNI result, rendered for the version of the
    /// configuration.
    Add(AddRequest),
    /// Detach a container; with the namespace's descriptor if there still is one. Response: `null`.
    Del(PluginRequest),
    /// Is the attachment as it should be? With the namespace's descriptor. Response: `null`.
    Check(AddRequest),
    /// Detach every container of the network that is not in the list. Response: `null`.
    Gc {
        /// Name of the network.
        network: String,
        /// What stays.
        valid: Vec<Attachment>,
    },
    /// Could the agent serve an ADD now? Response: `null`.
    Status,
    /// `calico-ipam` ADD: addresses alone. Response: the CNI result, rendered.
    IpamAdd(PluginRequest),
    /// `calico-ipam` DEL. Response: `null`.
    IpamDel(PluginRequest),
    /// A question of `buoyctl`. Response: a document that depends on the question.
    Inspect(Inspect),
}

/// ADD or CHECK of the main plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AddRequest {
    /// `CNI_CONTAINERID`, checked.
    pub container_id: String,
    /// `CNI_IFNAME`, checked.
    pub ifname: String,
    /// `CNI_NETNS`: the path by which the agent may find the namespace again after a restart.
    pub netns_path: String,
    /// `CNI_ARGS` as they came.
    pub args: String,
    /// `CNI_PATH` as it came.
    pub path: String,
    /// The network configuration as it came.
    pub config: Value,
    /// The result of a third-party IPAM plugin, as it came; `None` if addresses are the agent's to give.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegated: Option<Value>,
    /// Milliseconds that the client will still wait.
    pub deadline_ms: u64,
}

/// DEL of the main plugin, and ADD and DEL of `calico-ipam`: for these the agent needs no namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PluginRequest {
    /// `CNI_CONTAINERID`, checked.
    pub container_id: String,
    /// `CNI_IFNAME`, checked.
    pub ifname: String,
    /// `CNI_NETNS`, if the runtime named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns_path: Option<String>,
    /// `CNI_ARGS` as they came.
    pub args: String,
    /// `CNI_PATH` as it came.
    pub path: String,
    /// The network configuration as it came.
    pub config: Value,
    /// Milliseconds that the client will still wait.
    pub deadline_ms: u64,
}

/// A question about the agent's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inspect {
    /// The operations that the agent would do now.
    Plan,
    /// What is known about an address, and why it is so.
    Why {
        /// The address.
        ip: IpAddr,
    },
    /// The node's condition.
    NodeStatus,
}

/// The agent's answer: `{"Ok": …}` or `{"Err": {"code": …, "msg": …, "details": …}}`.
pub type Response = Result<Value, CniError>;

impl Request {
    /// A request of this version of the protocol; `client` is the program's name and version.
    pub fn new(client: impl Into<String>, body: Body) -> Self {
        Self {
            protocol: PROTOCOL_VERSION,
            client: client.into(),
            body,
        }
    }
}

impl Body {
    /// What is asked, in a word.
    pub fn command(&self) -> &'static str {
        match self {
            Self::Add(_) => "add",
            Self::Del(_) => "del",
            Self::Check(_) => "check",
            Self::Gc { .. } => "gc",
            Self::Status => "status",
            Self::IpamAdd(_) => "ipam_add",
            Self::IpamDel(_) => "ipam_del",
            Self::Inspect(_) => "inspect",
        }
    }

    /// Says how long the client will still wait, where the request has a deadline.
    pub fn set_deadline_ms(&mut self, deadline_ms: u64) {
        match self {
            Self::Add(request) | Self::Check(request) => request.deadline_ms = deadline_ms,
            Self::Del(request) | Self::IpamAdd(request) | Self::IpamDel(request) => {
                request.deadline_ms = deadline_ms;
            }
            Self::Gc { .. } | Self::Status | Self::Inspect(_) => {}
        }
    }
}

/// Reads a request's body of bytes, the agent's side; `agent` is its program's name and version.
///
/// Errors, ready to be sent back: code 6 if it is no request; code 1 if it is of another version.
pub fn decode_request(bytes: &[u8], agent: &str) -> Result<Request, CniError> {
    let malformed = |error: serde_json::Error| {
        CniError::new(ErrorCode::DECODE, format!("not a request to the agent: {error}"))
            .with_hint("use the CNI plugins and buoyctl that came with this agent")
    };
    let document: Value = serde_json::from_slice(bytes).map_err(malformed)?;
    let protocol = document.get("protocol").and_then(Value::as_u64);
    if let Some(theirs) = protocol.filter(|theirs| *theirs != u64::from(PROTOCOL_VERSION)) {
        let client = document
            .get("client")
            .and_then(Value::as_str)
            .unwrap_or("the client");
        return Err(version_mismatch(client, theirs, agent));
    }
    serde_json::from_value(document).map_err(malformed)
}

/// Reads a response's body of bytes, the client's side. Error: code 6 if it is no response.
pub fn decode_response(bytes: &[u8]) -> Result<Response, CniError> {
    serde_json::from_slice(bytes).map_err(|error| {
        CniError::new(
            ErrorCode::DECODE,
            format!("the agent's answer does not decode: {error}"),
        )
        .with_hint("is it buoy-agent that listens on this socket, and of the same version as this plugin?")
    })
}

/// What the agent answers to a client of another version.
fn version_mismatch(client: &str, theirs: u64, agent: &str) -> CniError {
    let (older, how) = if theirs < u64::from(PROTOCOL_VERSION) {
        (client, "upgrade the CNI plugins and buoyctl on this node")
    } else {
        (
            agent,
            "upgrade buoy-agent on this node, or restart it if it was upgraded while it ran",
        )
    };
    CniError::new(
        ErrorCode::INCOMPATIBLE_VERSION,
        format!("protocol versions differ: {client} speaks {theirs}, {agent} speaks {PROTOCOL_VERSION}"),
    )
    .with_hint(format!("{older} is the older one; {how}"))
}

/// A DEL that no agent could take: the content of a file in the spool directory.
///
/// It has no version of its own: an agent drains what any older binary left. The binary writes the record, then looks
/// for the agent once more, and the agent listens before it drains: so one of the two finds the other. An ADD of the
/// same container and interface that succeeds removes the record, for it takes over what the record would free.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SpoolRecord {
    /// DEL of the main plugin.
    Del(PluginRequest),
    /// DEL of `calico-ipam`.
    IpamDel(PluginRequest),
}

impl SpoolRecord {
    /// The record's file name, without directory. `:` is in no container ID, so the two kinds never meet.
    pub fn file_name(&self) -> String {
        match self {
            Self::Del(del) => ident::attachment_file_name(&del.container_id, &del.ifname),
            Self::IpamDel(del) => format!(
                "ipam:{}",
                ident::attachment_file_name(&del.container_id, &del.ifname)
            ),
        }
    }

    /// The request that the agent carries out in its place.
    pub fn into_body(self) -> Body {
        match self {
            Self::Del(del) => Body::Del(del),
            Self::IpamDel(del) => Body::IpamDel(del),
        }
    }
}

#[cfg(test)]
#[path = "agent_tests.rs"]
mod tests;
