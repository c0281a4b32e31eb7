//! The routing daemon, and what it depends on and brings about.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use buoy_api::ip::FloatingIp;
use buoy_api::ipam::AffinityState;
use buoy_api::v3::{Node, SecretKeyRef};
use ipnet::IpNet;

use super::{Daemon, Routing, View};
use crate::bird::Secret;
use crate::subject::Subject;
use crate::time::Mono;

/// Name of the BGPConfiguration that is the cluster's.
pub const BGP_DEFAULT: &str = "default";
/// How long a routing daemon is well before it counts no more that it was away.
const STEADY: Duration = Duration::from_secs(10);
/// So often it may go away before that: one that comes back for moments only is away all the time. It may be killed, ended
/// in order and die once more, and be back in a moment each time.
const OFTEN: u32 = 4;

/// How the routing daemon was lately.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Health {
    /// When it went away first, since it was well for long, and when it did last.
    away: Option<(Mono, Mono)>,
    /// How often.
    times: u32,
    /// Since when it is well, if it was not away since.
    well: Option<Mono>,
    /// It was away for so long that this node's workloads cannot serve.
    unready: bool,
}

impl Health {
    fn note(&mut self, before: &Daemon, now: &Daemon, at: Mono) {
        match (before, now) {
            (_, Daemon::Ready) => {
                self.well.get_or_insert(at);
                self.unready &= self.is_unsteady();
            }
            (Daemon::NotReady { is_away: true, .. }, _) | (_, Daemon::NotReady { is_away: false, .. }) => {}
            (_, Daemon::NotReady { is_away: true, .. }) => self.goes_away(at),
        }
    }

    /// Before it was ever there it begins, and that is not counted.
    fn goes_away(&mut self, at: Mono) {
        let (begins, well) = (self.well.is_none() && self.away.is_none(), self.well.take());
        if begins || well.is_some_and(|well| at >= well.after(STEADY)) {
            *self = Self::default();
        }
        self.times += u32::from(!begins);
        let first = self.away.map_or(at, |(first, _)| first);
        self.away = Some((first, at));
    }

    fn is_unsteady(&self) -> bool {
        self.times >= OFTEN
    }

    /// Since when it is away, but for moments.
    fn away_since(&self) -> Option<Mono> {
        let (first, last) = self.away?;
        Some(if self.is_unsteady() { first } else { last })
    }
}

impl View {
    /// Takes in how the routing daemon is and says whom that concerns.
    pub fn set_daemon(&mut self, daemon: Daemon, now: Mono) -> BTreeSet<Subject> {
        let before = std::mem::replace(&mut self.daemon, daemon);
        if before == self.daemon {
            return BTreeSet::new();
        }
        self.health.note(&before, &self.daemon, now);
        self.asking.keys().copied().map(Subject::Binding).collect()
    }

    /// Takes in the addresses of this node and says whom that concerns.
    pub fn set_addresses(&mut self, addresses: Vec<IpNet>) -> BTreeSet<Subject> {
        self.addresses = addresses;
        self.sessions().chain([Subject::Node]).collect()
    }

    /// Whether what this node claims would be announced.
    pub fn can_announce(&self) -> bool {
        self.daemon == Daemon::Ready
    }

    /// Whether this node's workloads can serve: a routing daemon that is away for a moment is no reason to move an address.
    pub fn is_ready(&self) -> bool {
        !self.health.unready
    }

    /// When to look at the routing daemon though nothing is heard of it: when it will have been away for so long that this
    /// node's workloads count as not ready, or well for so long that they count as ready again.
    pub(super) fn daemon_due(&self) -> Option<Mono> {
        match &self.daemon {
            Daemon::NotReady { is_away: true, .. } if !self.health.unready => {
                let since = self.health.away_since()?;
                Some(since.after(self.settings.yield_time))
            }
            Daemon::Ready if self.health.unready => Some(self.health.well?.after(STEADY)),
            _ => None,
        }
    }

    /// Looks whether the routing daemon has been away for too long, or well for long enough, and says whom that concerns.
    pub(super) fn look_at_daemon(&mut self, now: Mono) -> BTreeSet<Subject> {
        if self.daemon_due().is_none_or(|at| now < at) {
            return BTreeSet::new();
        }
        self.health.unready = !self.health.unready;
        self.asking.keys().copied().map(Subject::Binding).collect()
    }

    /// The machine is going down: says whom that concerns.
    pub fn leave(&mut self) -> BTreeSet<Subject> {
        self.leaving = true;
        self.asking.keys().copied().map(Subject::Binding).collect()
    }

    /// Whether the kernel has a route to this address from the routing daemon: it leads to a newer owner elsewhere.
    pub fn is_learnt(&self, floating: FloatingIp) -> bool {
        self.learnt.contains(&floating)
    }

    /// Takes in that the routing daemon brought, or took back, a host route to an address; says whom that concerns.
    pub fn set_learnt(&mut self, floating: FloatingIp, is: bool) -> BTreeSet<Subject> {
        let changed = if is {
            self.learnt.insert(floating)
        } else {
            self.learnt.remove(&floating)
        };
        changed
            .then_some(Subject::Binding(floating))
            .into_iter()
            .collect()
    }

    /// Takes in all host routes of the routing daemon at once; says whom what changed concerns.
    pub fn replace_learnt(&mut self, learnt: BTreeSet<FloatingIp>) -> BTreeSet<Subject> {
        let before = std::mem::replace(&mut self.learnt, learnt);
        before
            .symmetric_difference(&self.learnt)
            .copied()
            .map(Subject::Binding)
            .collect()
    }

    /// Where the passwords of BGP sessions are, as far as records name them.
    pub fn secrets_named(&self) -> BTreeSet<SecretKeyRef> {
        let mesh = self.bgp.get(BGP_DEFAULT);
        let mesh = mesh.and_then(|bgp| bgp.spec.node_mesh_password.as_ref());
        let peers = self.peers.values().filter_map(|peer| peer.spec.password.as_ref());
        mesh.into_iter()
            .chain(peers)
            .filter_map(|password| password.secret_key_ref.clone())
            .collect()
    }

    /// Takes in the passwords of BGP sessions, or why one is not to be had; says whom that concerns.
    pub fn set_secrets(
        &mut self,
        secrets: BTreeMap<SecretKeyRef, Result<Secret, String>>,
    ) -> BTreeSet<Subject> {
        if secrets == self.secrets {
            return BTreeSet::new();
        }
        self.secrets = secrets;
        self.sessions().collect()
    }

    /// The block of this node that holds an address.
    pub fn own_block_of(&self, address: IpAddr) -> Option<IpNet> {
        // Blocks do not overlap: only the last one that begins at or before the address can hold it.
        let (cidr, _) = self.affinities.up_to(&IpNet::from(address)).next_back()?;
        (cidr.contains(&address) && self.is_own_block(cidr)).then_some(*cidr)
    }

    /// Whether a block is confirmed to be this node's.
    pub fn is_own_block(&self, cidr: &IpNet) -> bool {
        self.affinities
            .get(cidr)
            .is_some_and(|affinity| affinity.state == AffinityState::Confirmed && !affinity.deleted)
    }

    /// Everybody with whom there may be a BGP session.
    pub(super) fn sessions(&self) -> impl Iterator<Item = Subject> + '_ {
        let nodes = self.nodes.iter().map(|(name, _)| name);
        let nodes = nodes.filter(|name| **name != self.settings.node);
        let nodes = nodes.cloned().map(Subject::OtherNode);
        nodes
            .chain(self.peers.iter().map(|(name, _)| Subject::Peer(name.clone())))
            .filter(|_| self.settings.routing == Routing::Bird)
    }

    /// Nodes whose session depends on a node's record: the node itself, and those with an address of its.
    pub(super) fn nodes_like(&self, name: &str) -> BTreeSet<Subject> {
        let addresses = |node: &Node| -> Vec<IpAddr> {
            let bgp = node.spec.bgp.iter();
            bgp.flat_map(|bgp| [bgp.ipv4_address, bgp.ipv6_address])
                .flatten()
                .map(|prefix| prefix.addr())
                .collect()
        };
        let own = self.nodes.get(name).map(addresses).unwrap_or_default();
        let like = self
            .nodes
            .iter()
            .filter(|(other, node)| *other == name || addresses(node).iter().any(|a| own.contains(a)));
        like.map(|(other, _)| Subject::OtherNode(other.clone()))
            .chain([Subject::OtherNode(name.to_owned())])
            .collect()
    }
}

#[cfg(test)]
#[path = "routing_tests.rs"]
mod tests;
