//! `FloatingIpBinding`: which workload a floating IP fronts, and who stands by.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::meta::Extra;
use crate::resource::{BUOY_V1ALPHA1, Kind, Resource};

/// Counts the owners of one address: rises by one with every change of owner and never falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch after this one.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// Counts the times a node's lease was taken anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Term(pub u64);

/// A floating IP in use, or held for its namespace.
pub type Binding = Resource<BindingSpec>;

/// `spec` of a [`Binding`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct BindingSpec {
    /// The floating IP. The record's name must be its canonical form.
    #[serde(default = "unspecified")]
    pub address: IpAddr,
    /// Workloads of this namespace may be candidates.
    #[serde(default)]
    pub namespace: String,
    /// Whom the address fronts; nobody after a release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// Whom the last owner meant when it gave the address away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<Offer>,
    /// When `owner` became empty: begins the namespace's hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>", extend("format" = "date-time")))]
    pub released: Option<Timestamp>,
    /// Number of the present owner.
    #[serde(default)]
    pub epoch: Epoch,
    /// A move that a person asked for.
    #[serde(default, rename = "move", skip_serializing_if = "Option::is_none")]
    pub requested_move: Option<Move>,
    /// Everything else.
    #[serde(flatten)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    pub extra: Extra,
}

fn unspecified() -> IpAddr {
    IpAddr::from([0, 0, 0, 0])
}

impl Default for BindingSpec {
    fn default() -> Self {
        Self {
            address: unspecified(),
            namespace: String::new(),
            owner: None,
            offer: None,
            released: None,
            epoch: Epoch(0),
            requested_move: None,
            extra: Extra::new(),
        }
    }
}

/// The workload that an address fronts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// Node it runs on.
    pub node: String,
    /// Pod name, or container ID outside Kubernetes.
    pub workload: String,
    /// Interface inside the workload.
    pub endpoint: String,
    /// Address of the workload that traffic is translated to.
    #[serde(rename = "internalIP")]
    pub internal_ip: IpAddr,
    /// Identity of this incarnation of the workload: pod UID, or container ID.
    #[serde(default)]
    pub uid: String,
    /// Term of the node's lease when it claimed.
    #[serde(default)]
    pub term: Term,
}

impl Owner {
    /// Whether this owner is the workload that a person or an offer names.
    pub fn matches(&self, target: &Target) -> bool {
        target.names(&self.node, &self.workload, &self.endpoint)
    }
}

/// A workload somewhere, as people name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Node; any, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Pod name or container ID.
    pub workload: String,
    /// Interface inside the workload; any, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

impl Target {
    fn names(&self, node: &str, workload: &str, endpoint: &str) -> bool {
        self.workload == workload
            && self.node.as_deref().is_none_or(|named| named == node)
            && self.endpoint.as_deref().is_none_or(|named| named == endpoint)
    }
}

/// An address on its way to another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Offer {
    /// Whom it is meant for.
    #[serde(flatten)]
    pub to: Target,
    /// The node that gave it away; it takes it back if nobody comes for it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub from: String,
}

/// A move that a person asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Move {
    /// Distinguishes one request from the next.
    pub id: String,
    /// Where to.
    pub to: Target,
    /// Withdraw first, announce afterwards.
    #[serde(default)]
    pub exclusive: bool,
    /// How long established flows to the old owner go on where both are on one node, such as `30s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<String>,
}

/// `status` of a [`Binding`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BindingStatus {
    /// Who asks for the address and may have it; each written only by its node's agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Candidate>,
    /// `Accepted`, `Programmed`, `Advertised`, written by the owner's node; `Contested`, written by the controller.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Everything else.
    #[serde(flatten)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    pub extra: Extra,
}

/// A workload that asks for the address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    /// Node it runs on; only this node's agent writes the candidate.
    pub node: String,
    /// Pod name, or container ID outside Kubernetes.
    pub workload: String,
    /// Interface inside the workload.
    pub endpoint: String,
    /// Identity of this incarnation of the workload.
    #[serde(default)]
    pub uid: String,
    /// Address that traffic would be translated to.
    #[serde(rename = "internalIP")]
    pub internal_ip: IpAddr,
    /// Whether it can serve now.
    pub ready: bool,
    /// Higher is preferred (`buoy.dev/floatingIPPriority`).
    #[serde(default)]
    pub priority: i32,
    /// Since when it asks.
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "date-time")))]
    pub since: Timestamp,
}

impl Candidate {
    /// Whether this candidate is the owner named.
    pub fn is(&self, owner: &Owner) -> bool {
        self.continues(owner) && self.uid == owner.uid
    }

    /// Whether this candidate is the owner or its next incarnation.
    pub fn continues(&self, owner: &Owner) -> bool {
        self.node == owner.node && self.workload == owner.workload && self.endpoint == owner.endpoint
    }

    /// Whether this candidate is the one a person or an offer names.
    pub fn matches(&self, target: &Target) -> bool {
        target.names(&self.node, &self.workload, &self.endpoint)
    }

    /// The owner this candidate becomes.
    pub fn as_owner(&self, term: Term) -> Owner {
        Owner {
            node: self.node.clone(),
            workload: self.workload.clone(),
            endpoint: self.endpoint.clone(),
            internal_ip: self.internal_ip,
            uid: self.uid.clone(),
            term,
        }
    }
}

/// Type of the condition that says that nodes without an agent of this project may serve the address, too: nobody claims it
/// meanwhile. Its message names them.
pub const CONTESTED: &str = "Contested";
/// The writer of [`CONTESTED`], which is no node.
pub const CONTROLLER: &str = "buoy-controller";

impl BindingStatus {
    /// Why nobody may claim the address, if [`CONTESTED`] is true.
    pub fn contested(&self) -> Option<&str> {
        let condition = self
            .conditions
            .iter()
            .find(|condition| condition.kind == CONTESTED)?;
        (condition.status == "True").then_some(condition.message.as_str())
    }
}

/// A statement about a binding, as Kubernetes conditions are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Accepted`, `Programmed`, `Advertised`, `Contested`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word.
    #[serde(default)]
    pub reason: String,
    /// For people.
    #[serde(default)]
    pub message: String,
}

impl Kind for BindingSpec {
    type Status = BindingStatus;
    const API_VERSION: &'static str = BUOY_V1ALPHA1;
    const KIND: &'static str = "FloatingIPBinding";
    const PLURAL: &'static str = "floatingipbindings";
}

/// The highest epoch that a deleted binding had: new bindings begin above it. One record a store, named `default`.
pub type EpochFloor = Resource<EpochFloorSpec>;

/// `spec` of an [`EpochFloor`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EpochFloorSpec {
    /// New bindings begin at this plus one.
    #[serde(default)]
    pub epoch: Epoch,
    /// Everything else.
    #[serde(flatten)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    pub extra: Extra,
}

impl Kind for EpochFloorSpec {
    type Status = Extra;
    const API_VERSION: &'static str = BUOY_V1ALPHA1;
    const KIND: &'static str = "EpochFloor";
    const PLURAL: &'static str = "epochfloors";
}
