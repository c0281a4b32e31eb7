//! The datastore as the core sees it: typed keys and values, one operation at a time, and multi-step protocols as
//! values.
//!
//! A protocol is a [`Steps`] machine with exactly one operation outstanding. A crash is dropping the value; an
//! interleaving is a choice of which value steps next; a lost answer is [`Reply::Unknown`], which every machine
//! accepts by reading again.

mod value;

use std::fmt;

use buoy_api::binding::{BindingSpec, Candidate, Condition};
use buoy_api::ip::Family;
use buoy_api::ipam::AffinityOwner;
use buoy_api::lease::NodeLeaseSpec;
use buoy_api::resource::Kind;
use buoy_api::v3::{
    BgpConfigurationSpec, BgpPeerSpec, ClusterInformationSpec, FelixConfigurationSpec, IpPoolSpec,
    IpReservationSpec, NodeSpec, ProfileSpec, WorkloadEndpointSpec,
};
use ipnet::IpNet;

pub use self::value::Value;

/// Version of a record, and of the store as a whole: rises with every write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names one record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// IPPool by name.
    Pool(String),
    /// IPReservation by name.
    Reservation(String),
    /// Node by name.
    Node(String),
    /// WorkloadEndpoint.
    Endpoint {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// FelixConfiguration by name.
    Felix(String),
    /// ClusterInformation by name.
    ClusterInformation(String),
    /// Profile by name.
    Profile(String),
    /// BGPPeer by name.
    BgpPeer(String),
    /// BGPConfiguration by name.
    BgpConfiguration(String),
    /// IPAM block by prefix.
    Block(IpNet),
    /// Affinity of an owner to a block.
    Affinity {
        /// Who claims the block.
        owner: AffinityOwner,
        /// Prefix of the block.
        cidr: IpNet,
    },
    /// IPAM handle by ID.
    Handle(String),
    /// The cluster's IPAM settings.
    IpamConfig,
    /// FloatingIPBinding by name.
    Binding(String),
    /// The epoch floor of the store.
    EpochFloor,
    /// NodeLease by the node's name.
    Lease(String),
}

/// As people call the record, for messages: its kind and name.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool(name) => write!(f, "{} {name}", IpPoolSpec::KIND),
            Self::Reservation(name) => write!(f, "{} {name}", IpReservationSpec::KIND),
            Self::Node(name) => write!(f, "{} {name}", NodeSpec::KIND),
            Self::Endpoint { namespace, name } => {
                write!(f, "{} {namespace}/{name}", WorkloadEndpointSpec::KIND)
            }
            Self::Felix(name) => write!(f, "{} {name}", FelixConfigurationSpec::KIND),
            Self::ClusterInformation(name) => write!(f, "{} {name}", ClusterInformationSpec::KIND),
            Self::Profile(name) => write!(f, "{} {name}", ProfileSpec::KIND),
            Self::BgpPeer(name) => write!(f, "{} {name}", BgpPeerSpec::KIND),
            Self::BgpConfiguration(name) => write!(f, "{} {name}", BgpConfigurationSpec::KIND),
            Self::Block(cidr) => write!(f, "IPAM block {cidr}"),
            Self::Affinity { owner, cidr } => write!(f, "affinity of {owner} to {cidr}"),
            Self::Handle(id) => write!(f, "IPAM handle {id}"),
            Self::IpamConfig => f.write_str("IPAM configuration"),
            Self::Binding(name) => write!(f, "{} {name}", BindingSpec::KIND),
            Self::EpochFloor => f.write_str("epoch floor"),
            Self::Lease(name) => write!(f, "{} {name}", NodeLeaseSpec::KIND),
        }
    }
}

/// A set of keys that can be listed and watched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Prefix {
    /// All IPPools.
    Pools,
    /// All IPReservations.
    Reservations,
    /// All Nodes.
    Nodes,
    /// All WorkloadEndpoints.
    Endpoints,
    /// All FelixConfigurations.
    Felix,
    /// All ClusterInformations.
    ClusterInformations,
    /// All Profiles.
    Profiles,
    /// All BGPPeers.
    BgpPeers,
    /// All BGPConfigurations.
    BgpConfigurations,
    /// All IPAM blocks of a family.
    Blocks(Family),
    /// All affinities of one owner, both families.
    Affinities(AffinityOwner),
    /// Every affinity of every owner.
    AllAffinities,
    /// All IPAM handles.
    Handles,
    /// The IPAM settings.
    IpamConfig,
    /// All FloatingIPBindings.
    Bindings,
    /// The epoch floor.
    EpochFloor,
    /// All NodeLeases.
    Leases,
}

impl Prefix {
    /// Whether a key lies in this set.
    pub fn covers(&self, key: &Key) -> bool {
        match (self, key) {
            (Self::Pools, Key::Pool(_))
            | (Self::Reservations, Key::Reservation(_))
            | (Self::Nodes, Key::Node(_))
            | (Self::Endpoints, Key::Endpoint { .. })
            | (Self::Felix, Key::Felix(_))
            | (Self::ClusterInformations, Key::ClusterInformation(_))
            | (Self::Profiles, Key::Profile(_))
            | (Self::BgpPeers, Key::BgpPeer(_))
            | (Self::BgpConfigurations, Key::BgpConfiguration(_))
            | (Self::AllAffinities, Key::Affinity { .. })
            | (Self::Handles, Key::Handle(_))
            | (Self::IpamConfig, Key::IpamConfig)
            | (Self::Bindings, Key::Binding(_))
            | (Self::EpochFloor, Key::EpochFloor)
            | (Self::Leases, Key::Lease(_)) => true,
            (Self::Blocks(family), Key::Block(cidr)) => Family::of_net(cidr) == *family,
            (Self::Affinities(wanted), Key::Affinity { owner, .. }) => owner == wanted,
            _ => false,
        }
    }
}

/// A record as it was read. One that does not decode says why, and hides no other.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Which.
    pub key: Key,
    /// Revision of its last change.
    pub revision: Revision,
    /// What it says, or why that is not known.
    pub value: Result<Value, Bad>,
}

/// One change of a record, as a view takes it in.
#[derive(Clone, Debug, PartialEq)]
pub struct Delta {
    /// Which.
    pub key: Key,
    /// Revision of the change.
    pub revision: Revision,
    /// What it says now, or why that is not known; `None` once it is deleted.
    pub value: Option<Result<Value, Bad>>,
}

/// Why a record does not decode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record does not decode: {reason}")]
pub struct Bad {
    /// What is wrong, for people.
    pub reason: String,
}

/// One writer's part of a status. An empty part removes what the writer had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The writer's candidates.
    pub candidates: Vec<Candidate>,
    /// Conditions, if the writer is the owner's node.
    pub conditions: Vec<Condition>,
}

/// Who writes a part: the name of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Writer(pub String);

/// One operation on the datastore.
///
/// `Create` and `Update` write metadata and spec and never touch status; `Apply` sets one writer's part of status
/// without a revision.
#[derive(Clone, Debug, PartialEq)]
pub enum StoreOp {
    /// Read one record.
    Get(Key),
    /// Read a set of records at one revision.
    List(Prefix),
    /// Write a record that must not exist.
    Create(Key, Value),
    /// Write a record that must have this revision.
    Update(Key, Value, Revision),
    /// Delete a record that must have this revision.
    Delete(Key, Revision),
    /// Set this writer's part of the status of a binding.
    Apply(Key, Writer, Part),
}

/// Answer to a [`StoreOp`].
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "most replies are records, and each is moved once"
)]
pub enum Reply {
    /// Given to a machine once, before its first operation.
    Start,
    /// To `Get`: the record, if there is one.
    Record(Option<Record>),
    /// To `List`: records in order of their keys, and the revision at which they were read.
    List(Vec<Record>, Revision),
    /// To `Create`, `Update`, `Apply`: the revision of the write.
    Written(Revision),
    /// To `Delete`.
    Deleted,
    /// The record was not as the operation said: it exists, does not exist, or has another revision. Nothing happened.
    Conflict,
    /// The answer was lost: it happened or it did not.
    Unknown,
    /// It did not happen.
    Failed(StoreError),
}

/// Why an operation failed. The message names the datastore and says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    /// What kind of failure.
    pub kind: FailureKind,
    /// For people.
    pub message: String,
}

/// Kinds of failure of a datastore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// Not reached, locked or busy: worth trying again.
    Unavailable,
    /// Disk full, quota, read-only: worth trying again after somebody acted.
    Refused,
    /// The operation itself is wrong: not worth trying again.
    Invalid,
}

impl StoreError {
    /// Somebody else wrote a record again and again.
    pub fn contended(key: &Key) -> Self {
        Self {
            kind: FailureKind::Unavailable,
            message: format!("others write it all the time: {key}"),
        }
    }

    /// A record that an operation needs does not decode.
    pub fn unreadable(key: &Key, reason: &str) -> Self {
        Self {
            kind: FailureKind::Refused,
            message: format!("{key} cannot be read: {reason}\nmend or delete it"),
        }
    }

    /// Whether the same operation may succeed later.
    pub fn is_retryable(&self) -> bool {
        self.kind != FailureKind::Invalid
    }
}

/// What a machine wants next.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "most are operations, and each is moved once"
)]
pub enum Next<O> {
    /// Run this and bring the reply.
    Do(StoreOp),
    /// Finished.
    Done(O),
}

impl<O> Next<O> {
    /// The same with another end.
    pub fn map<P>(self, end: impl FnOnce(O) -> P) -> Next<P> {
        match self {
            Self::Do(operation) => Next::Do(operation),
            Self::Done(out) => Next::Done(end(out)),
        }
    }
}

/// A store protocol as a value. Exactly one operation is outstanding; the caller does the I/O.
pub trait Steps {
    /// What it ends with.
    type Out;

    /// Takes the reply to the last operation (first: [`Reply::Start`]) and says what is next.
    fn step(&mut self, reply: Reply) -> Next<Self::Out>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_as_people_name_their_records() {
        let name = || "x".to_owned();
        for (key, text) in [
            (Key::Pool(name()), "IPPool x"),
            (Key::Reservation(name()), "IPReservation x"),
            (Key::Node(name()), "Node x"),
            (
                Key::Endpoint {
                    namespace: "shop".to_owned(),
                    name: "n1-k8s-web--0-eth0".to_owned(),
                },
                "WorkloadEndpoint shop/n1-k8s-web--0-eth0",
            ),
            (Key::Felix(name()), "FelixConfiguration x"),
            (Key::ClusterInformation(name()), "ClusterInformation x"),
            (Key::Profile(name()), "Profile x"),
            (
                Key::Block("10.0.0.0/26".parse().unwrap()),
                "IPAM block 10.0.0.0/26",
            ),
            (
                Key::Affinity {
                    owner: AffinityOwner::Host("n1".to_owned()),
                    cidr: "10.0.0.0/26".parse().unwrap(),
                },
                "affinity of host:n1 to 10.0.0.0/26",
            ),
            (Key::Handle(name()), "IPAM handle x"),
            (Key::IpamConfig, "IPAM configuration"),
            (
                Key::Binding("172-16-1-3".to_owned()),
                "FloatingIPBinding 172-16-1-3",
            ),
            (Key::EpochFloor, "epoch floor"),
            (Key::Lease("n1".to_owned()), "NodeLease n1"),
            (Key::BgpPeer(name()), "BGPPeer x"),
            (Key::BgpConfiguration(name()), "BGPConfiguration x"),
        ] {
            assert_eq!(key.to_string(), text);
        }
    }
}
