//! Everything this node knows: records of the datastore and attachments of the runtime.
//!
//! Fed only by deltas. A record that stops decoding keeps its last good value in force and is reported.

mod attachments;
mod concern;
mod interest;
mod observed;
mod own_node;
mod ownership;
mod readiness;
mod records;
mod restored;
mod routing;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use buoy_api::binding::{Binding, Epoch, EpochFloor};
use buoy_api::ip::FloatingIp;
use buoy_api::ipam::{AffinityOwner, Block, BlockAffinity, IpamConfig};
use buoy_api::names;
use buoy_api::v3::{
    BgpConfiguration, BgpPeer, ClusterInformation, FelixConfiguration, IpPool, IpReservation, Node, Profile,
    SecretKeyRef, WorkloadEndpoint,
};
use ipnet::IpNet;

use self::attachments::Workload;
pub use self::interest::interest;
pub use self::observed::Programmed;
use self::observed::Seen;
use self::own_node::OwnNode;
use self::ownership::Ownership;
pub use self::ownership::Withdrawal;
use self::readiness::Serving;
pub use self::records::{Records, Slot};
use self::restored::Restored;
pub use self::restored::{RESTORE_HOLD, Revenant};
pub use self::routing::BGP_DEFAULT;
use self::routing::Health;
use crate::bird::Secret;
use crate::endpoint::{Attachment, AttachmentId, EndpointId};
use crate::floating;
use crate::store::{Bad, Delta, Key, Value};
use crate::subject::Subject;
use crate::time::Mono;

/// Whether floating IPs are on for a workload, as the agent's setting says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// As the network configuration or FelixConfiguration says.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// Who brings this node's routes to others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Routing {
    /// Somebody else: routes are programmed, and that is all.
    #[default]
    Kernel,
    /// The routing daemon that the agent looks after.
    Bird,
}

/// How the routing daemon is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// It answers and is not in recovery; or there is none to wait for.
    Ready,
    /// It is not there, does not answer, or is in recovery: nothing that this node claims would be announced.
    NotReady {
        /// Why, for people.
        why: String,
        /// Whether it is away; otherwise it is in recovery, when its routes are in force as before.
        is_away: bool,
    },
}

/// Settings of the agent that decisions depend on.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Name of this node.
    pub node: String,
    /// Gate for floating IPs.
    pub floating: Gate,
    /// How long a namespace keeps a released floating IP.
    pub hold: Duration,
    /// Version of this agent, which marks the node's record.
    pub version: String,
    /// Identity of this agent, which holds the node's lease.
    pub identity: String,
    /// Who announces routes.
    pub routing: Routing,
    /// How long the routing daemon may be away before this node's workloads count as not ready, and how long a workload may
    /// be not ready before it counts as such.
    pub yield_time: Duration,
}

/// What this node knows.
#[derive(Clone, Debug)]
pub struct View {
    /// Settings of the agent.
    pub settings: Settings,
    /// IPPools by name.
    pub pools: Records<String, IpPool>,
    /// IPReservations by name.
    pub reservations: Records<String, IpReservation>,
    /// Nodes by name.
    pub nodes: Records<String, Node>,
    /// WorkloadEndpoints.
    pub endpoints: Records<EndpointId, WorkloadEndpoint>,
    /// FelixConfigurations by name.
    pub felix: Records<String, FelixConfiguration>,
    /// ClusterInformations by name.
    pub cluster: Records<String, ClusterInformation>,
    /// Profiles by name.
    pub profiles: Records<String, Profile>,
    /// BGPPeers by name.
    pub peers: Records<String, BgpPeer>,
    /// BGPConfigurations by name.
    pub bgp: Records<String, BgpConfiguration>,
    /// IPAM blocks by prefix.
    pub blocks: Records<IpNet, Block>,
    /// Affinities of this node by prefix.
    pub affinities: Records<IpNet, BlockAffinity>,
    /// FloatingIPBindings by address.
    pub bindings: Records<FloatingIp, Binding>,
    /// IPAM settings; at most one record.
    pub ipam: Records<(), IpamConfig>,
    /// Epoch floor; at most one record.
    pub floor: Records<(), EpochFloor>,
    /// Records that do not decode, and why.
    pub bad: BTreeMap<Key, Bad>,
    /// Addresses that this node has, one per family at most. Changed by [`View::set_addresses`].
    pub addresses: Vec<IpNet>,
    /// Passwords of BGP sessions, by where they are. Changed by [`View::set_secrets`].
    pub secrets: BTreeMap<SecretKeyRef, Result<Secret, String>>,
    /// How the routing daemon is. Changed by [`View::set_daemon`].
    pub daemon: Daemon,
    /// Somebody waits for this node to take or renew its lease.
    pub lease_wanted: bool,
    /// The machine is going down: nothing here is a candidate any more.
    pub leaving: bool,
    health: Health,
    serving: Serving,
    ownership: Ownership,
    own_node: OwnNode,
    restored: Restored,
    seen: Seen,
    learnt: BTreeSet<FloatingIp>,
    attachments: BTreeMap<AttachmentId, Attachment>,
    by_endpoint: BTreeMap<EndpointId, BTreeSet<AttachmentId>>,
    by_address: BTreeMap<IpAddr, BTreeSet<AttachmentId>>,
    readable: BTreeMap<EndpointId, (String, BTreeSet<FloatingIp>)>,
    asked: BTreeMap<EndpointId, BTreeSet<FloatingIp>>,
    asking: BTreeMap<FloatingIp, BTreeSet<EndpointId>>,
    by_workload: BTreeMap<Workload, BTreeSet<EndpointId>>,
    owned: BTreeMap<Workload, BTreeSet<FloatingIp>>,
}

impl View {
    /// A node that knows nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            pools: Records::default(),
            reservations: Records::default(),
            nodes: Records::default(),
            endpoints: Records::default(),
            felix: Records::default(),
            cluster: Records::default(),
            profiles: Records::default(),
            peers: Records::default(),
            bgp: Records::default(),
            blocks: Records::default(),
            affinities: Records::default(),
            bindings: Records::default(),
            ipam: Records::default(),
            floor: Records::default(),
            bad: BTreeMap::new(),
            addresses: Vec::new(),
            secrets: BTreeMap::new(),
            daemon: Daemon::Ready,
            lease_wanted: false,
            leaving: false,
            health: Health::default(),
            serving: Serving::default(),
            ownership: Ownership::default(),
            own_node: OwnNode::default(),
            restored: Restored::default(),
            seen: Seen::default(),
            learnt: BTreeSet::new(),
            attachments: BTreeMap::new(),
            by_endpoint: BTreeMap::new(),
            by_address: BTreeMap::new(),
            readable: BTreeMap::new(),
            asked: BTreeMap::new(),
            asking: BTreeMap::new(),
            by_workload: BTreeMap::new(),
            owned: BTreeMap::new(),
        }
    }

    /// Takes a change of a record in, as it comes, and says whom it may concern.
    pub fn apply(&mut self, delta: Delta, now: Mono) -> BTreeSet<Subject> {
        let mut dirty = self.concerned(&delta.key);
        let owned = self.owns();
        match &delta.value {
            Some(Err(bad)) => self.bad.insert(delta.key.clone(), bad.clone()),
            _ => self.bad.remove(&delta.key),
        };
        let key = delta.key.clone();
        dirty.append(&mut self.store(delta, now));
        if let Key::Endpoint { namespace, name } = &key {
            let id = EndpointId {
                namespace: namespace.clone(),
                name: name.clone(),
            };
            self.note_requests(&id);
            dirty.extend(self.reindex(&id));
            self.note_readiness(&id, now);
        }
        dirty.extend(self.concerned(&key));
        if matches!(&key, Key::Node(name) if *name == self.settings.node) {
            self.note_own_node(now);
        }
        if self.owns() != owned {
            dirty.insert(Subject::Lease);
        }
        dirty
    }

    fn store(&mut self, delta: Delta, now: Mono) -> BTreeSet<Subject> {
        match delta.key.clone() {
            Key::Pool(name) => self.pools.set(name, delta.revision, delta.value),
            Key::Reservation(name) => self.reservations.set(name, delta.revision, delta.value),
            Key::Node(name) => self.nodes.set(name, delta.revision, delta.value),
            Key::Endpoint { namespace, name } => {
                let id = EndpointId { namespace, name };
                if self.is_forgotten(&id, &delta) {
                    return BTreeSet::new();
                }
                match delta.value {
                    Some(Ok(Value::Endpoint(record))) if record.spec.node != self.settings.node => {
                        self.endpoints.set(id, delta.revision, None);
                    }
                    Some(Err(_)) if !self.is_known(&id) => {}
                    _ => self.endpoints.set(id, delta.revision, delta.value),
                }
            }
            Key::Felix(name) => self.felix.set(name, delta.revision, delta.value),
            Key::ClusterInformation(name) => self.cluster.set(name, delta.revision, delta.value),
            Key::Profile(name) => self.profiles.set(name, delta.revision, delta.value),
            Key::BgpPeer(name) => self.peers.set(name, delta.revision, delta.value),
            Key::BgpConfiguration(name) => self.bgp.set(name, delta.revision, delta.value),
            Key::Block(cidr) => self.blocks.set(cidr, delta.revision, delta.value),
            Key::Affinity { owner, cidr } => {
                if owner == AffinityOwner::Host(self.settings.node.clone()) {
                    self.affinities.set(cidr, delta.revision, delta.value);
                }
            }
            Key::IpamConfig => self.ipam.set((), delta.revision, delta.value),
            Key::Binding(name) => {
                if let Some(floating) = floating::of_binding(&name) {
                    if self.is_behind(floating, &delta) {
                        return BTreeSet::new();
                    }
                    let before = self.bindings.get(&floating).cloned();
                    let owned = self.owns();
                    self.forget_owner(floating);
                    self.bindings.set(floating, delta.revision, delta.value);
                    self.note_owner(floating);
                    let mut dirty = self.note_turn(floating, before.as_ref(), now);
                    // The first that is owned asks for renewals, and after the last there are none.
                    dirty.extend((owned != self.owns()).then_some(Subject::Lease));
                    return dirty;
                }
            }
            Key::EpochFloor => self.floor.set((), delta.revision, delta.value),
            // Leases are read when they are needed, and not followed.
            Key::Handle(_) | Key::Lease(_) => {}
        }
        BTreeSet::new()
    }

    /// Endpoints of other nodes are not kept: nothing here depends on them, and there are many. One that does not
    /// decode does not say whose it is.
    fn is_known(&self, id: &EndpointId) -> bool {
        self.endpoints.contains(id) || self.by_endpoint.contains_key(id)
    }

    /// Labels of a namespace for selectors: its names, and what its profile applies.
    pub fn namespace_labels(&self, namespace: &str) -> BTreeMap<String, String> {
        let profile = self.profiles.get(names::namespace_profile(namespace).as_str());
        let applied = profile
            .map(|profile| profile.spec.labels_to_apply.clone())
            .unwrap_or_default();
        let names = ["projectcalico.org/name", "kubernetes.io/metadata.name"];
        // Calico marks them, for they are applied to workloads beside the workloads' own.
        let plain = |(key, value): (String, String)| match key.strip_prefix("pcns.") {
            Some(key) => (key.to_owned(), value),
            None => (key, value),
        };
        applied
            .into_iter()
            .map(plain)
            .chain(names.map(|key| (key.to_owned(), namespace.to_owned())))
            .collect()
    }

    /// The block that holds an address, if there is one.
    pub fn block_of(&self, address: IpAddr) -> Option<&Block> {
        self.blocks.holding(address)
    }

    /// Epoch below which no new binding may begin.
    pub fn epoch_floor(&self) -> Epoch {
        self.floor
            .get(&())
            .map(|floor| floor.spec.epoch)
            .unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
