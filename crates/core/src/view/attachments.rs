//! Attachments, what they ask for, and which floating IPs their workloads own: kept by key both ways, so that a change
//! costs what it concerns.

use std::collections::BTreeSet;
use std::net::IpAddr;

use buoy_api::binding::Owner;
use buoy_api::ip::FloatingIp;
use buoy_api::names::{EndpointName, Orchestrator};
use buoy_api::v3::WorkloadEndpoint;

use super::View;
use crate::endpoint::{Attachment, AttachmentId, EndpointId, Netns};
use crate::subject::Subject;

impl View {
    /// Endpoints of this node that ask for a floating IP.
    pub fn asking(&self, floating: FloatingIp) -> impl Iterator<Item = &EndpointId> {
        self.asking.get(&floating).into_iter().flatten()
    }

    /// Floating IPs that an endpoint of this node asks for.
    pub fn asked_by(&self, endpoint: &EndpointId) -> impl Iterator<Item = FloatingIp> + '_ {
        self.asked.get(endpoint).into_iter().flatten().copied()
    }

    /// Looks again at what an endpoint asks for: in its record or, before there is one, in its ADD.
    pub(super) fn reindex(&mut self, endpoint: &EndpointId) -> BTreeSet<Subject> {
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

    /// Whether an attachment is its endpoint's.
    pub fn is_current(&self, attachment: &Attachment) -> bool {
        self.attachment_of(&attachment.endpoint)
            .is_some_and(|current| current.id == attachment.id)
    }

    pub(super) fn note_owner(&mut self, floating: FloatingIp) {
        for endpoint in self.endpoints_of_owner(floating) {
            self.owned.entry(endpoint).or_default().insert(floating);
        }
    }

    pub(super) fn forget_owner(&mut self, floating: FloatingIp) {
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
