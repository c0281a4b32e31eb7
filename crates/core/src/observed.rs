//! What the kernel of this node has, of all that this agent programs.
//!
//! Read back whole at start and after somebody else's change; otherwise carried forward by the effects of operations.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use buoy_api::binding::Epoch;
use buoy_api::ip::FloatingIp;
use ipnet::IpNet;

use crate::desired::{RouteKey, RowKey};
use crate::endpoint::{AttachmentId, IfIndex, IfName};
use crate::op::{Effect, Element, EndFlows, LinkRef, NftTransaction, Op, Pass};
use crate::time::Mono;

/// A link of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedLink {
    /// Its index.
    pub index: IfIndex,
    /// Its alias: ours says for which attachment it was made.
    pub alias: Option<String>,
    /// Its deletion is under way; the name is not free yet.
    pub leaving: bool,
    /// It was not set down since it was made or raised.
    pub up: bool,
    /// It has the link-local address that is the gateway of a workload's IPv6. A link that is set down loses it, and
    /// coming up alone does not bring it back.
    pub gateway_v6: bool,
}

impl ObservedLink {
    /// The attachment it was made for, if it is ours.
    pub fn attachment(&self) -> Option<AttachmentId> {
        AttachmentId::from_alias(self.alias.as_deref()?)
    }

    /// Whether a workload with these addresses is reached by it.
    pub fn carries(&self, addresses: &[IpAddr]) -> bool {
        self.up && (self.gateway_v6 || addresses.iter().all(IpAddr::is_ipv4))
    }
}

/// What the packet filter knows of a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// It is a workload's link.
    pub member: bool,
    /// What may be sent from it.
    pub sources: BTreeSet<IpNet>,
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObservedHop {
    /// To a link.
    Link(IfIndex),
    /// Nowhere.
    Unreachable,
}

/// How far the ending of flows has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// They go on until this time.
    Draining(Mono),
    /// Nothing was ended yet.
    Open,
    /// The first pass was at this time.
    FirstPass(Mono),
}

/// A floating IP that is served here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The address.
    pub floating: FloatingIp,
    /// Of its newest route to a workload.
    pub epoch: Epoch,
    /// What it is translated to.
    pub internal: IpAddr,
}

/// What the kernel has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Whether tables, chains, sets and maps are there, in this version's form.
    pub ruleset: bool,
    /// Settings that this agent cares for.
    pub sysctls: BTreeMap<String, String>,
    /// All links, by name.
    pub links: BTreeMap<IfName, ObservedLink>,
    /// By link: what the packet filter knows of it.
    pub filters: BTreeMap<IfIndex, Filter>,
    /// Routes of our protocol number.
    pub routes: BTreeMap<RouteKey, ObservedHop>,
    /// Translations.
    pub nat: BTreeMap<FloatingIp, IpAddr>,
    /// Pairs of floating IP and former internal address whose flows are being ended.
    pub ending: BTreeMap<(FloatingIp, IpAddr), Ending>,
    /// Configuration that the routing daemon was given last.
    pub bird: Option<String>,
}

impl Observed {
    /// Index of a link that is there to stay.
    pub fn index_of(&self, name: &IfName) -> Option<IfIndex> {
        self.links
            .get(name)
            .filter(|link| !link.leaving)
            .map(|link| link.index)
    }

    /// Keys of all that is there and might have to go.
    pub fn keys(&self) -> BTreeSet<RowKey> {
        let links = self.links.iter().filter(|(_, link)| link.attachment().is_some());
        links
            .map(|(name, _)| RowKey::Link(name.clone()))
            .chain(self.routes.keys().map(|key| RowKey::Route(*key)))
            .chain(self.nat.keys().map(|floating| RowKey::Nat(*floating)))
            .collect()
    }

    /// Keys of the routes that lead to a link.
    pub fn routes_to(&self, index: IfIndex) -> impl Iterator<Item = RouteKey> + '_ {
        self.routes
            .iter()
            .filter(move |(_, hop)| **hop == ObservedHop::Link(index))
            .map(|(key, _)| *key)
    }

    /// Keys of the routes to one address.
    pub fn routes_of(&self, address: IpAddr) -> impl Iterator<Item = RouteKey> + '_ {
        let range = RouteKey::host(address, 0)..=RouteKey::host(address, u32::MAX);
        self.routes.range(range).map(|(key, _)| *key)
    }

    /// Floating IPs that are served here: translated, and routed to a link.
    pub fn claimed(&self) -> impl Iterator<Item = Claimed> + '_ {
        self.nat.iter().filter_map(|(floating, internal)| {
            let routes = self.routes_of(floating.addr());
            let to_link = routes.filter(|key| matches!(self.routes.get(key), Some(ObservedHop::Link(_))));
            Some(Claimed {
                floating: *floating,
                epoch: to_link.filter_map(|key| key.epoch()).max()?,
                internal: *internal,
            })
        })
    }

    /// Takes in what an operation did and says which keys have to be looked at again because of it.
    pub fn absorb(&mut self, op: &Op, effect: &Effect, now: Mono) -> BTreeSet<RowKey> {
        match (op, effect) {
            (Op::LoadRuleset, Effect::Emptied) => return self.empty_ruleset(),
            (Op::LoadRuleset, _) => self.ruleset = true,
            (Op::SetSysctl(path, value), _) => {
                self.sysctls.insert(path.clone(), value.clone());
            }
            (Op::AddLink(name, link), Effect::Link(index)) => {
                let alias = Some(link.attachment.alias());
                self.links.insert(
                    name.clone(),
                    ObservedLink {
                        index: *index,
                        alias,
                        leaving: false,
                        up: true,
                        gateway_v6: link.addresses.iter().any(IpAddr::is_ipv6),
                    },
                );
            }
            (Op::RaiseLink(name, index, gateway_v6), _) => {
                if let Some(link) = self.link_mut(name, *index) {
                    link.up = true;
                    link.gateway_v6 |= gateway_v6;
                }
            }
            (Op::DelLink(name, index), _) => return self.forget_link(name, *index),
            (Op::Nft(transaction), _) => self.absorb_nft(transaction, now),
            (Op::PutRoute(key, hop), _) => {
                if let Some(hop) = self.resolve_hop(hop) {
                    self.routes.insert(*key, hop);
                }
            }
            (Op::DelRoute(key), _) => {
                self.routes.remove(key);
            }
            (Op::LoadBird(text), _) => self.bird = Some(text.clone()),
            (Op::EndFlows(end), _) => self.absorb_end(end, now),
            (Op::AddLink(..), _) => {}
        }
        BTreeSet::new()
    }

    /// Takes note that a link's deletion was begun.
    pub fn begin_leaving(&mut self, name: &IfName) {
        if let Some(link) = self.links.get_mut(name) {
            link.leaving = true;
        }
    }

    /// Takes note that a link is gone, and its routes with it.
    pub fn forget_link(&mut self, name: &IfName, index: IfIndex) -> BTreeSet<RowKey> {
        if self.link_mut(name, index).is_some() {
            self.links.remove(name);
        }
        self.forget_routes(name, index)
    }

    /// Takes note that somebody set a link down: the kernel takes its routes away, and its IPv6 addresses.
    pub fn link_fell(&mut self, name: &IfName, index: IfIndex) -> BTreeSet<RowKey> {
        let Some(link) = self.link_mut(name, index) else {
            return BTreeSet::new();
        };
        link.up = false;
        link.gateway_v6 = false;
        self.forget_routes(name, index)
    }

    fn link_mut(&mut self, name: &IfName, index: IfIndex) -> Option<&mut ObservedLink> {
        self.links.get_mut(name).filter(|link| link.index == index)
    }

    fn forget_routes(&mut self, name: &IfName, index: IfIndex) -> BTreeSet<RowKey> {
        let keys: BTreeSet<RouteKey> = self.routes_to(index).collect();
        for key in &keys {
            self.routes.remove(key);
        }
        keys.into_iter()
            .map(RowKey::Route)
            .chain([RowKey::Link(name.clone())])
            .collect()
    }

    fn empty_ruleset(&mut self) -> BTreeSet<RowKey> {
        let filters = std::mem::take(&mut self.filters);
        let links = self
            .links
            .iter()
            .filter(|(_, link)| filters.contains_key(&link.index));
        let links = links.map(|(name, _)| RowKey::Link(name.clone()));
        let nat = std::mem::take(&mut self.nat);
        self.ruleset = true;
        self.ending.clear();
        links.chain(nat.into_keys().map(RowKey::Nat)).collect()
    }

    fn resolve_hop(&self, hop: &crate::desired::Hop) -> Option<ObservedHop> {
        match hop {
            crate::desired::Hop::Link(name) => Some(ObservedHop::Link(self.own_link(name)?)),
            crate::desired::Hop::Unreachable => Some(ObservedHop::Unreachable),
        }
    }

    fn resolve(&self, link: &LinkRef) -> Option<IfIndex> {
        match link {
            LinkRef::Index(index) => Some(*index),
            LinkRef::Name(name) => self.own_link(name),
        }
    }

    /// The index of a link that an operation names. Operations name links that plans make: a stranger of that name is
    /// why one was not made.
    fn own_link(&self, name: &IfName) -> Option<IfIndex> {
        let link = self.links.get(name).filter(|link| link.attachment().is_some())?;
        Some(link.index)
    }

    fn absorb_nft(&mut self, transaction: &NftTransaction, now: Mono) {
        for element in &transaction.del {
            self.drop_element(element);
        }
        for element in &transaction.add {
            self.add_element(element, now);
        }
    }

    fn drop_element(&mut self, element: &Element) {
        match element {
            Element::Member(link) => {
                if let Some(filter) = self.resolve(link).and_then(|index| self.filters.get_mut(&index)) {
                    filter.member = false;
                }
            }
            Element::Source(link, prefix) => {
                if let Some(filter) = self.resolve(link).and_then(|index| self.filters.get_mut(&index)) {
                    filter.sources.remove(prefix);
                }
            }
            Element::Nat(floating, _) => {
                self.nat.remove(floating);
            }
            Element::Ending(floating, old) => {
                self.ending.remove(&(*floating, *old));
            }
            Element::Draining(floating, old, _) => {
                if let Some(ending @ Ending::Draining(_)) = self.ending.get_mut(&(*floating, *old)) {
                    *ending = Ending::Open;
                }
            }
        }
        self.filters.retain(|_, filter| *filter != Filter::default());
    }

    fn add_element(&mut self, element: &Element, now: Mono) {
        match element {
            Element::Member(link) => {
                if let Some(index) = self.resolve(link) {
                    self.filters.entry(index).or_default().member = true;
                }
            }
            Element::Source(link, prefix) => {
                if let Some(index) = self.resolve(link) {
                    self.filters.entry(index).or_default().sources.insert(*prefix);
                }
            }
            Element::Nat(floating, internal) => {
                self.nat.insert(*floating, *internal);
            }
            Element::Ending(floating, old) => {
                self.ending.insert((*floating, *old), Ending::Open);
            }
            // It comes with the pair whose end it puts off, and says nothing without it.
            Element::Draining(floating, old, time) => {
                if let Some(ending) = self.ending.get_mut(&(*floating, *old)) {
                    *ending = Ending::Draining(now.after(*time));
                }
            }
        }
    }

    fn absorb_end(&mut self, end: &EndFlows, now: Mono) {
        if end.pass == Pass::Second {
            return;
        }
        let first = (end.floating, IpAddr::from([0; 4]));
        let pairs = self
            .ending
            .range_mut(first..)
            .take_while(|((of, _), _)| *of == end.floating);
        let owner = self.nat.get(&end.floating);
        for ((_, old), ending) in pairs {
            let goes_on = end.keep.contains(old) && owner != Some(old);
            if !goes_on || !matches!(ending, Ending::Draining(_)) {
                *ending = Ending::FirstPass(now);
            }
        }
    }
}

#[cfg(test)]
#[path = "observed_tests.rs"]
mod tests;
