//! Whom a change of a record concerns.

use std::collections::BTreeSet;
use std::ops::Bound;

use buoy_api::binding::Binding;
use buoy_api::ip::FloatingIp;
use ipnet::IpNet;

use super::{Routing, View};
use crate::endpoint::EndpointId;
use crate::floating;
use crate::floating::reserved_by;
use crate::store::Key;
use crate::subject::Subject;

impl View {
    /// Whom a record concerns, as far as is known now. Called before and after a change, so that both its old and its
    /// new meaning are looked at again.
    pub(super) fn concerned(&self, key: &Key) -> BTreeSet<Subject> {
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
            Key::Binding(name) => subjects.extend(floating::of_binding(name).map(Subject::Binding)),
            Key::Pool(_) | Key::Profile(_) | Key::Felix(_) => {
                subjects.extend(self.floating_in_use().map(Subject::Binding));
                if let Key::Pool(name) = key {
                    subjects.insert(Subject::Pool(name.clone()));
                    // Own addresses that lie in a pool must be given by a block.
                    let pool = self.pools.get(name);
                    subjects.extend(
                        pool.into_iter()
                            .flat_map(|pool| self.workloads_within(pool.spec.cidr)),
                    );
                }
            }
            Key::Node(name) => {
                subjects.extend(self.node_addresses(name).into_iter().map(Subject::Binding));
                if *name == self.settings.node {
                    subjects.insert(Subject::Node);
                    subjects.extend(self.sessions());
                } else {
                    subjects.extend(self.nodes_like(name));
                    subjects.extend(self.sessions().filter(|s| matches!(s, Subject::Peer(_))));
                }
            }
            Key::ClusterInformation(_) => {
                subjects.insert(Subject::Node);
            }
            // A block says who has an address: it may be a floating IP that somebody waits for.
            // And it holds the reservations, which go with their bindings or, without one, may be leaks.
            Key::Block(cidr) => {
                subjects.extend(self.asked_within(cidr).map(Subject::Binding));
                // Or one that a workload of this node owns and no longer asks for.
                subjects.extend(self.owned_within(cidr).into_iter().map(Subject::Binding));
                // And it gives workloads of this node their own addresses, or does not any more.
                subjects.extend(self.workloads_within(*cidr));
                let reserved = self.blocks.get(cidr).into_iter().flat_map(reserved_by);
                subjects.extend(reserved.map(Subject::Binding));
            }
            Key::EpochFloor => {
                let unbound = self
                    .asking
                    .keys()
                    .filter(|floating| !self.bindings.contains(floating));
                subjects.extend(unbound.copied().map(Subject::Binding));
            }
            // Two with one address are settled by their order: each concerns all.
            Key::BgpPeer(name) => {
                subjects.insert(Subject::Peer(name.clone()));
                subjects.extend(self.sessions().filter(|s| matches!(s, Subject::Peer(_))));
            }
            Key::BgpConfiguration(_) => {
                subjects.insert(Subject::Node);
                subjects.extend(self.sessions());
            }
            Key::Affinity { cidr, .. } if self.settings.routing == Routing::Bird => {
                subjects.insert(Subject::Block(*cidr));
                subjects.extend(self.endpoints_within(*cidr).map(Subject::Endpoint));
            }
            Key::Affinity { .. } | Key::Reservation(_) | Key::Handle(_) | Key::IpamConfig | Key::Lease(_) => {
            }
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

    /// Endpoints with an own address in a block.
    fn endpoints_within(&self, cidr: IpNet) -> impl Iterator<Item = EndpointId> {
        self.attachments_within(cidr)
            .map(|attachment| attachment.endpoint.clone())
    }

    /// Workloads of this node with an own address in a block or a pool.
    fn workloads_within(&self, cidr: IpNet) -> impl Iterator<Item = Subject> {
        self.attachments_within(cidr)
            .map(|attachment| Subject::Attachment(attachment.id.clone()))
    }

    /// Floating IPs in a block that workloads of this node own.
    fn owned_within(&self, cidr: &IpNet) -> Vec<FloatingIp> {
        let Ok(last) = FloatingIp::try_from(cidr.broadcast()) else {
            return Vec::new();
        };
        let is_owned = |binding: &Binding| {
            let owner = binding.spec.owner.as_ref();
            owner.is_some_and(|owner| owner.node == self.settings.node)
        };
        let bound = self.bindings.up_to(&last).rev();
        bound
            .take_while(|(floating, _)| floating.addr() >= cidr.network())
            .filter(|(_, binding)| is_owned(binding))
            .map(|(floating, _)| *floating)
            .collect()
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
}
