//! Attachments, what they ask for, and which floating IPs their workloads own: kept by key both ways, so that a change
//! costs what it concerns.

use std::collections::BTreeSet;
use std::net::IpAddr;

use buoy_api::binding::Owner;
use buoy_api::ip::FloatingIp;
use buoy_api::v3::WorkloadEndpoint;
use ipnet::IpNet;

use super::View;
use crate::endpoint::{Attachment, AttachmentId, EndpointId, Netns};
use crate::subject::Subject;

/// An interface of a workload of this node, as an owner names it: its namespace, the workload, the interface. An endpoint's
/// own name has the node's, which may have been another when the endpoint was made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Workload(String, String, String);

impl Workload {
    fn of(attachment: &Attachment) -> Self {
        Self(
            attachment.endpoint.namespace.clone(),
            attachment.request.workload.clone(),
            attachment.id.ifname.clone(),
        )
    }

    fn of_owner(namespace: &str, owner: &Owner) -> Self {
        Self(
            namespace.to_owned(),
            owner.workload.clone(),
            owner.endpoint.clone(),
        )
    }
}

/// The floating IPs that a record asks for, as far as they can be read; `None` if it asks and nothing of that can be.
fn requests(record: &WorkloadEndpoint) -> Option<BTreeSet<FloatingIp>> {
    let nats = &record.spec.ip_nats;
    let read: BTreeSet<_> = nats
        .iter()
        .filter_map(|nat| nat.external_ip.parse().ok())
        .collect();
    (nats.is_empty() || !read.is_empty()).then_some(read)
}

impl View {
    /// Endpoints of this node that ask for a floating IP.
    pub fn asking(&self, floating: FloatingIp) -> impl Iterator<Item = &EndpointId> {
        self.asking.get(&floating).into_iter().flatten()
    }

    /// Floating IPs that an endpoint of this node asks for.
    pub fn asked_by(&self, endpoint: &EndpointId) -> impl Iterator<Item = FloatingIp> + '_ {
        self.asked.get(endpoint).into_iter().flatten().copied()
    }

    /// Remembers what an endpoint's record asks for, as far as that can be read.
    pub(super) fn note_requests(&mut self, endpoint: &EndpointId) {
        let Some(record) = self.endpoints.get(endpoint) else {
            self.readable.remove(endpoint);
            return;
        };
        if let Some(requests) = requests(record) {
            let readable = (record.spec.container_id.clone(), requests);
            self.readable.insert(endpoint.clone(), readable);
        }
    }

    /// Looks again at what an endpoint asks for: in its record as it could be read last or, before there is one, in its ADD.
    pub(super) fn reindex(&mut self, endpoint: &EndpointId) -> BTreeSet<Subject> {
        let now = match self.attachment_of(endpoint) {
            None => BTreeSet::new(),
            Some(attachment) => match self.readable.get(endpoint) {
                Some((container, requests)) if *container == attachment.id.container => requests.clone(),
                _ => attachment.request.floating.iter().copied().collect(),
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
        let mut dirty: BTreeSet<Subject> = before.union(&now).copied().map(Subject::Binding).collect();
        for floating in before.symmetric_difference(&now) {
            dirty.extend(self.look_whom_it_awaits(*floating));
        }
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
        let workload = Workload::of(&attachment);
        self.by_workload
            .entry(workload.clone())
            .or_default()
            .insert(endpoint.clone());
        self.index_addresses(&attachment);
        if let Some(before) = self.attachments.insert(id.clone(), attachment) {
            self.forget_addresses(&before);
        }
        dirty.append(&mut self.concerned_by(id, endpoint, &workload));
        dirty
    }

    /// Removes an attachment and says whom that concerns.
    pub fn remove_attachment(&mut self, id: &AttachmentId) -> BTreeSet<Subject> {
        let Some(attachment) = self.attachments.remove(id) else {
            return BTreeSet::new();
        };
        self.forget_addresses(&attachment);
        if let Some(ids) = self.by_endpoint.get_mut(&attachment.endpoint) {
            ids.remove(id);
            if ids.is_empty() {
                self.by_endpoint.remove(&attachment.endpoint);
            }
        }
        let workload = Workload::of(&attachment);
        if !self.by_endpoint.contains_key(&attachment.endpoint)
            && let Some(endpoints) = self.by_workload.get_mut(&workload)
        {
            endpoints.remove(&attachment.endpoint);
            if endpoints.is_empty() {
                self.by_workload.remove(&workload);
            }
        }
        self.concerned_by(id.clone(), attachment.endpoint, &workload)
    }

    fn index_addresses(&mut self, attachment: &Attachment) {
        for address in attachment.own_addresses() {
            let ids = self.by_address.entry(address).or_default();
            ids.insert(attachment.id.clone());
        }
    }

    /// An attachment does not have these addresses any more, unless it has them now.
    fn forget_addresses(&mut self, before: &Attachment) {
        let now = self.attachments.get(&before.id);
        let now: Vec<IpAddr> = now.into_iter().flat_map(Attachment::own_addresses).collect();
        for address in before.own_addresses().filter(|address| !now.contains(address)) {
            if let Some(ids) = self.by_address.get_mut(&address) {
                ids.remove(&before.id);
                if ids.is_empty() {
                    self.by_address.remove(&address);
                }
            }
        }
    }

    /// Attachments with an own address within a prefix; one with two of them comes twice.
    pub(super) fn attachments_within(&self, prefix: IpNet) -> impl Iterator<Item = &Attachment> {
        self.by_address
            .range(prefix.network()..=prefix.broadcast())
            .flat_map(|(_, ids)| ids)
            .filter_map(|id| self.attachments.get(id))
    }

    fn concerned_by(
        &mut self,
        id: AttachmentId,
        endpoint: EndpointId,
        workload: &Workload,
    ) -> BTreeSet<Subject> {
        let mut dirty = self.reindex(&endpoint);
        dirty.extend(
            self.owned
                .get(workload)
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

    pub(super) fn attachments_of(&self, endpoint: &EndpointId) -> impl Iterator<Item = &Attachment> {
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
        self.attachments_of_name(namespace, owner)
            .find(|a| a.is_wanted() && a.request.uid == owner.uid)
    }

    /// Attachments of this node that are called as an owner is, also of an earlier or a later incarnation.
    pub fn attachments_of_name(&self, namespace: &str, owner: &Owner) -> impl Iterator<Item = &Attachment> {
        let name = (owner.node == self.settings.node).then(|| Workload::of_owner(namespace, owner));
        let endpoints = name.and_then(|name| self.by_workload.get(&name));
        let endpoints = endpoints.into_iter().flatten();
        endpoints.filter_map(|endpoint| self.attachment_of(endpoint))
    }

    /// Where the namespace of an internal address is, running or just taken down.
    pub fn netns_of(&self, internal: IpAddr) -> Option<Netns> {
        let id = self.by_address.get(&internal)?.first()?;
        Some(self.attachments.get(id)?.request.netns.clone())
    }

    /// Whether an attachment is its endpoint's.
    pub fn is_current(&self, attachment: &Attachment) -> bool {
        self.attachment_of(&attachment.endpoint)
            .is_some_and(|current| current.id == attachment.id)
    }

    pub(super) fn note_owner(&mut self, floating: FloatingIp) {
        if let Some(workload) = self.owner_here(floating) {
            self.owned.entry(workload).or_default().insert(floating);
        }
    }

    pub(super) fn forget_owner(&mut self, floating: FloatingIp) {
        let Some(workload) = self.owner_here(floating) else {
            return;
        };
        if let Some(owned) = self.owned.get_mut(&workload) {
            owned.remove(&floating);
            if owned.is_empty() {
                self.owned.remove(&workload);
            }
        }
    }

    /// The workload of this node that a binding's owner is.
    fn owner_here(&self, floating: FloatingIp) -> Option<Workload> {
        let binding = self.bindings.get(&floating)?;
        let owner = binding.spec.owner.as_ref()?;
        (owner.node == self.settings.node).then(|| Workload::of_owner(&binding.spec.namespace, owner))
    }
}
