//! Everything this node knows: records of the datastore and attachments of the runtime.
//!
//! Fed only by deltas. A record that stops decoding keeps its last good value in force and is reported.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::time::Duration;

use buoy_api::binding::{Binding, Epoch, EpochFloor, Owner};
use buoy_api::ip::FloatingIp;
use buoy_api::ipam::{AffinityOwner, Block, BlockAffinity, IpamConfig};
use buoy_api::names::{self, EndpointName, Orchestrator};
use buoy_api::v3::{
    ClusterInformation, FelixConfiguration, IpPool, IpReservation, Node, Profile, WorkloadEndpoint,
};
use ipnet::IpNet;

use crate::endpoint::{Attachment, AttachmentId, EndpointId, Netns};
use crate::floating::collect;
use crate::store::{Bad, Delta, Key, Revision, Value};
use crate::subject::Subject;

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
}

/// A record and what is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot<T> {
    /// Revision of the record as it is now.
    pub revision: Revision,
    /// Its last good value.
    pub value: Option<T>,
    /// Why the record as it is now does not decode.
    pub bad: Option<Bad>,
}

/// Records of one kind.
#[derive(Clone, Debug)]
pub struct Records<K, T> {
    slots: BTreeMap<K, Slot<T>>,
}

impl<K, T> Default for Records<K, T> {
    fn default() -> Self {
        Self {
            slots: BTreeMap::new(),
        }
    }
}

impl<K: Ord, T> Records<K, T> {
    /// A good value.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&T>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.slots.get(key)?.value.as_ref()
    }

    /// A good value with the revision of the record; none while the record does not decode, for it must not be
    /// written over.
    pub fn versioned<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(&T, Revision)>
    where
        K: std::borrow::Borrow<Q>,
    {
        let slot = self.slots.get(key)?;
        match slot.bad {
            None => Some((slot.value.as_ref()?, slot.revision)),
            Some(_) => None,
        }
    }

    /// Whether there is a record, good or bad.
    pub fn contains<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: std::borrow::Borrow<Q>,
    {
        self.slots.contains_key(key)
    }

    /// All good values, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &T)> {
        self.slots
            .iter()
            .filter_map(|(key, slot)| Some((key, slot.value.as_ref()?)))
    }

    /// Good values up to and including a key.
    pub fn up_to(&self, key: &K) -> impl DoubleEndedIterator<Item = (&K, &T)> {
        self.slots
            .range(..=key)
            .filter_map(|(key, slot)| Some((key, slot.value.as_ref()?)))
    }

    /// All good values.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.iter().map(|(_, value)| value)
    }

    fn set(&mut self, key: K, revision: Revision, value: Option<Result<T, Bad>>) {
        match value {
            None => {
                self.slots.remove(&key);
            }
            Some(Ok(value)) => {
                self.slots.insert(
                    key,
                    Slot {
                        revision,
                        value: Some(value),
                        bad: None,
                    },
                );
            }
            Some(Err(bad)) => {
                let slot = self.slots.entry(key).or_insert(Slot {
                    revision,
                    value: None,
                    bad: None,
                });
                slot.revision = revision;
                slot.bad = Some(bad);
            }
        }
    }
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
    /// Addresses that this node has, one per family at most.
    pub addresses: Vec<IpNet>,
    attachments: BTreeMap<AttachmentId, Attachment>,
    by_endpoint: BTreeMap<EndpointId, BTreeSet<AttachmentId>>,
    asked: BTreeMap<EndpointId, BTreeSet<FloatingIp>>,
    asking: BTreeMap<FloatingIp, BTreeSet<EndpointId>>,
    owned: BTreeMap<EndpointId, BTreeSet<FloatingIp>>,
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
            blocks: Records::default(),
            affinities: Records::default(),
            bindings: Records::default(),
            ipam: Records::default(),
            floor: Records::default(),
            bad: BTreeMap::new(),
            addresses: Vec::new(),
            attachments: BTreeMap::new(),
            by_endpoint: BTreeMap::new(),
            asked: BTreeMap::new(),
            asking: BTreeMap::new(),
            owned: BTreeMap::new(),
        }
    }

    /// Takes a change of a record in and says whom it may concern.
    pub fn apply(&mut self, delta: Delta) -> BTreeSet<Subject> {
        let mut dirty = self.concerned(&delta.key);
        match &delta.value {
            Some(Err(bad)) => self.bad.insert(delta.key.clone(), bad.clone()),
            _ => self.bad.remove(&delta.key),
        };
        let key = delta.key.clone();
        self.store(delta);
        if let Key::Endpoint { namespace, name } = &key {
            let id = EndpointId {
                namespace: namespace.clone(),
                name: name.clone(),
            };
            dirty.append(&mut self.reindex(&id));
        }
        dirty.append(&mut self.concerned(&key));
        dirty
    }

    fn store(&mut self, delta: Delta) {
        macro_rules! set {
            ($records:expr, $key:expr, $variant:ident) => {
                $records.set(
                    $key,
                    delta.revision,
                    delta.value.map(|value| match value {
                        Ok(Value::$variant(value)) => Ok(value),
                        Ok(_) => Err(Bad {
                            reason: "a record of another kind under this key".to_owned(),
                        }),
                        Err(bad) => Err(bad),
                    }),
                )
            };
        }
        match delta.key {
            Key::Pool(name) => set!(self.pools, name, Pool),
            Key::Reservation(name) => set!(self.reservations, name, Reservation),
            Key::Node(name) => set!(self.nodes, name, Node),
            Key::Endpoint { namespace, name } => {
                let id = EndpointId { namespace, name };
                match delta.value {
                    Some(Ok(Value::Endpoint(record))) if record.spec.node != self.settings.node => {
                        self.endpoints.set(id, delta.revision, None);
                    }
                    Some(Err(_)) if !self.is_known(&id) => {}
                    _ => set!(self.endpoints, id, Endpoint),
                }
            }
            Key::Felix(name) => set!(self.felix, name, Felix),
            Key::ClusterInformation(name) => set!(self.cluster, name, ClusterInformation),
            Key::Profile(name) => set!(self.profiles, name, Profile),
            Key::Block(cidr) => set!(self.blocks, cidr, Block),
            Key::Affinity { owner, cidr } => {
                if owner == AffinityOwner::Host(self.settings.node.clone()) {
                    set!(self.affinities, cidr, Affinity);
                }
            }
            Key::IpamConfig => set!(self.ipam, (), IpamConfig),
            Key::Binding(name) => {
                if let Some(floating) = floating_of_name(&name) {
                    self.forget_owner(floating);
                    set!(self.bindings, floating, Binding);
                    self.note_owner(floating);
                }
            }
            Key::EpochFloor => set!(self.floor, (), EpochFloor),
            Key::Handle(_) => {}
        }
    }

    /// Endpoints of other nodes are not kept: nothing here depends on them, and there are many. One that does not
    /// decode does not say whose it is.
    fn is_known(&self, id: &EndpointId) -> bool {
        self.endpoints.contains(id) || self.by_endpoint.contains_key(id)
    }

    fn note_owner(&mut self, floating: FloatingIp) {
        for endpoint in self.endpoints_of_owner(floating) {
            self.owned.entry(endpoint).or_default().insert(floating);
        }
    }

    fn forget_owner(&mut self, floating: FloatingIp) {
        for endpoint in self.endpoints_of_owner(floating) {
            if let Some(owned) = self.owned.get_mut(&endpoint) {
                owned.remove(&floating);
                if owned.is_empty() {
                    self.owned.remove(&endpoint);
                }
            }
        }
    }

    /// Endpoints of this node that a binding's owner may be.
    fn endpoints_of_owner(&self, floating: FloatingIp) -> Vec<EndpointId> {
        let Some(binding) = self.bindings.get(&floating) else {
            return Vec::new();
        };
        let owner = binding
            .spec
            .owner
            .as_ref()
            .filter(|owner| owner.node == self.settings.node);
        owner
            .into_iter()
            .flat_map(|owner| endpoints_named(&binding.spec.namespace, owner))
            .collect()
    }

    /// Whom a record concerns, as far as is known now. Called before and after a change, so that both its old and its
    /// new meaning are looked at again.
    fn concerned(&self, key: &Key) -> BTreeSet<Subject> {
        let mut subjects = BTreeSet::new();
        match key {
            Key::Endpoint { namespace, name } => {
                let id = EndpointId {
                    namespace: namespace.clone(),
                    name: name.clone(),
                };
                subjects.extend(
                    self.attachments_of(&id)
                        .map(|a| Subject::Attachment(a.id.clone())),
                );
                subjects.insert(Subject::Endpoint(id));
            }
            Key::Binding(name) => subjects.extend(floating_of_name(name).map(Subject::Binding)),
            Key::Pool(_) | Key::Profile(_) | Key::Felix(_) => {
                subjects.extend(self.floating_in_use().map(Subject::Binding));
            }
            Key::Node(name) => {
                subjects.extend(self.node_addresses(name).into_iter().map(Subject::Binding));
                if *name == self.settings.node {
                    subjects.insert(Subject::Node);
                }
            }
            Key::ClusterInformation(_) => {
                subjects.insert(Subject::Node);
            }
            // A block says who has an address: it may be a floating IP that somebody waits for.
            // And it holds the reservations, which go with their bindings or, without one, may be leaks.
            Key::Block(cidr) => {
                subjects.extend(self.asked_within(cidr).map(Subject::Binding));
                let reserved = self.blocks.get(cidr).into_iter().flat_map(collect::reserved_by);
                subjects.extend(reserved.map(Subject::Binding));
            }
            Key::EpochFloor => {
                let unbound = self
                    .asking
                    .keys()
                    .filter(|floating| !self.bindings.contains(floating));
                subjects.extend(unbound.copied().map(Subject::Binding));
            }
            Key::Reservation(_) | Key::Affinity { .. } | Key::Handle(_) | Key::IpamConfig => {}
        }
        subjects
    }

    fn node_addresses(&self, name: &str) -> BTreeSet<FloatingIp> {
        let Some(bgp) = self.nodes.get(name).and_then(|node| node.spec.bgp.as_ref()) else {
            return BTreeSet::new();
        };
        [&bgp.ipv4_address, &bgp.ipv6_address]
            .into_iter()
            .flatten()
            .filter_map(|prefix| FloatingIp::try_from(prefix.addr()).ok())
            .collect()
    }

    /// Floating IPs that have a binding or that somebody on this node asks for; one that is both comes twice.
    pub fn floating_in_use(&self) -> impl Iterator<Item = FloatingIp> + '_ {
        self.bindings
            .iter()
            .map(|(floating, _)| *floating)
            .chain(self.asking.keys().copied())
    }

    fn asked_within(&self, cidr: &IpNet) -> impl Iterator<Item = FloatingIp> + '_ {
        let cidr = *cidr;
        let first = FloatingIp::try_from(cidr.network()).ok();
        self.asking
            .range((first.map_or(Bound::Unbounded, Bound::Included), Bound::Unbounded))
            .map(|(floating, _)| *floating)
            .take_while(move |floating| floating.addr() <= cidr.broadcast())
            .filter(move |floating| cidr.contains(&floating.addr()))
    }

    /// Endpoints of this node that ask for a floating IP.
    pub fn asking(&self, floating: FloatingIp) -> impl Iterator<Item = &EndpointId> {
        self.asking.get(&floating).into_iter().flatten()
    }

    /// Floating IPs that an endpoint of this node asks for.
    pub fn asked_by(&self, endpoint: &EndpointId) -> impl Iterator<Item = FloatingIp> + '_ {
        self.asked.get(endpoint).into_iter().flatten().copied()
    }

    /// Looks again at what an endpoint asks for: in its record or, before there is one, in its ADD.
    fn reindex(&mut self, endpoint: &EndpointId) -> BTreeSet<Subject> {
        let now = match self.attachment_of(endpoint) {
            None => BTreeSet::new(),
            Some(attachment) => match self.record_of(attachment) {
                Some(record) => record
                    .spec
                    .ip_nats
                    .iter()
                    .filter_map(|nat| nat.external_ip.parse().ok())
                    .collect(),
                None => attachment.request.floating.iter().copied().collect(),
            },
        };
        let before = self.asked.remove(endpoint).unwrap_or_default();
        for floating in before.difference(&now) {
            if let Some(endpoints) = self.asking.get_mut(floating) {
                endpoints.remove(endpoint);
                if endpoints.is_empty() {
                    self.asking.remove(floating);
                }
            }
        }
        for floating in &now {
            self.asking.entry(*floating).or_default().insert(endpoint.clone());
        }
        let dirty = before.union(&now).copied().map(Subject::Binding).collect();
        if !now.is_empty() {
            self.asked.insert(endpoint.clone(), now);
        }
        dirty
    }

    /// The WorkloadEndpoint record of an attachment, if it is this attachment's.
    pub fn record_of(&self, attachment: &Attachment) -> Option<&WorkloadEndpoint> {
        self.endpoints
            .get(&attachment.endpoint)
            .filter(|record| record.spec.container_id == attachment.id.container)
    }

    /// Adds or replaces an attachment and says whom it concerns.
    pub fn put_attachment(&mut self, attachment: Attachment) -> BTreeSet<Subject> {
        let (id, endpoint) = (attachment.id.clone(), attachment.endpoint.clone());
        // A runtime may ask for the same container under another name.
        let renamed = self
            .attachments
            .get(&id)
            .is_some_and(|before| before.endpoint != endpoint);
        let mut dirty = if renamed {
            self.remove_attachment(&id)
        } else {
            BTreeSet::new()
        };
        self.by_endpoint
            .entry(endpoint.clone())
            .or_default()
            .insert(id.clone());
        self.attachments.insert(id.clone(), attachment);
        dirty.append(&mut self.concerned_by(id, endpoint));
        dirty
    }

    /// Removes an attachment and says whom that concerns.
    pub fn remove_attachment(&mut self, id: &AttachmentId) -> BTreeSet<Subject> {
        let Some(attachment) = self.attachments.remove(id) else {
            return BTreeSet::new();
        };
        if let Some(ids) = self.by_endpoint.get_mut(&attachment.endpoint) {
            ids.remove(id);
            if ids.is_empty() {
                self.by_endpoint.remove(&attachment.endpoint);
            }
        }
        self.concerned_by(id.clone(), attachment.endpoint)
    }

    fn concerned_by(&mut self, id: AttachmentId, endpoint: EndpointId) -> BTreeSet<Subject> {
        let mut dirty = self.reindex(&endpoint);
        dirty.extend(
            self.owned
                .get(&endpoint)
                .into_iter()
                .flatten()
                .copied()
                .map(Subject::Binding),
        );
        dirty.extend(
            self.attachments_of(&endpoint)
                .map(|a| Subject::Attachment(a.id.clone())),
        );
        dirty.insert(Subject::Attachment(id));
        dirty.insert(Subject::Endpoint(endpoint));
        dirty
    }

    /// An attachment.
    pub fn attachment(&self, id: &AttachmentId) -> Option<&Attachment> {
        self.attachments.get(id)
    }

    /// All attachments.
    pub fn attachments(&self) -> impl Iterator<Item = &Attachment> {
        self.attachments.values()
    }

    fn attachments_of(&self, endpoint: &EndpointId) -> impl Iterator<Item = &Attachment> {
        self.by_endpoint
            .get(endpoint)
            .into_iter()
            .flatten()
            .filter_map(|id| self.attachments.get(id))
    }

    /// The attachment that an endpoint has now: the newest that is not being removed.
    pub fn attachment_of(&self, endpoint: &EndpointId) -> Option<&Attachment> {
        self.attachments_of(endpoint)
            .filter(|a| !a.is_leaving())
            .max_by_key(|a| a.order)
    }

    /// The attachment whose workload an owner names, if it is on this node and runs.
    pub fn attachment_of_owner(&self, namespace: &str, owner: &Owner) -> Option<&Attachment> {
        if owner.node != self.settings.node {
            return None;
        }
        endpoints_named(namespace, owner).find_map(|endpoint| {
            self.attachment_of(&endpoint)
                .filter(|a| a.is_wanted() && a.request.uid == owner.uid)
        })
    }

    /// Where the namespace of an internal address is, running or just taken down.
    pub fn netns_of(&self, internal: IpAddr) -> Option<Netns> {
        let mut there = self
            .attachments
            .values()
            .filter(|a| a.own_addresses().any(|own| own == internal));
        there.next().map(|a| a.request.netns.clone())
    }

    /// Labels of a namespace for selectors: its names, and what its profile applies.
    pub fn namespace_labels(&self, namespace: &str) -> BTreeMap<String, String> {
        let profile = self.profiles.get(format!("kns.{namespace}").as_str());
        let applied = profile
            .map(|profile| profile.spec.labels_to_apply.clone())
            .unwrap_or_default();
        let names = ["projectcalico.org/name", "kubernetes.io/metadata.name"];
        applied
            .into_iter()
            .chain(names.map(|key| (key.to_owned(), namespace.to_owned())))
            .collect()
    }

    /// Whether an attachment is its endpoint's.
    pub fn is_current(&self, attachment: &Attachment) -> bool {
        self.attachment_of(&attachment.endpoint)
            .is_some_and(|current| current.id == attachment.id)
    }

    /// The block that holds an address, if there is one.
    pub fn block_of(&self, address: IpAddr) -> Option<&Block> {
        // Blocks do not overlap: only the last one that begins at or before the address can hold it.
        let (_, block) = self.blocks.up_to(&IpNet::from(address)).next_back()?;
        block.cidr.contains(&address).then_some(block)
    }

    /// Epoch below which no new binding may begin.
    pub fn epoch_floor(&self) -> Epoch {
        self.floor
            .get(&())
            .map(|floor| floor.spec.epoch)
            .unwrap_or_default()
    }
}

/// Endpoints that an owner may be: its record does not say who runs the workload.
fn endpoints_named(namespace: &str, owner: &Owner) -> impl Iterator<Item = EndpointId> {
    [Orchestrator::K8s, Orchestrator::Cni]
        .into_iter()
        .filter_map(move |orchestrator| {
            let name = EndpointName::new(&owner.node, orchestrator, &owner.workload, &owner.endpoint).ok()?;
            Some(EndpointId {
                namespace: namespace.to_owned(),
                name: name.to_string(),
            })
        })
}

fn floating_of_name(name: &str) -> Option<FloatingIp> {
    names::address_of_binding(name).and_then(|address| FloatingIp::try_from(address).ok())
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
