//! A kernel in a few maps, with the rules of the real one, and written without a look at [`Observed`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use buoy_api::ip::FloatingIp;
use buoy_core::desired::{Hop, RouteKey};
use buoy_core::endpoint::{AttachmentId, IfIndex, IfName};
use buoy_core::observed::{Ending, Filter, Observed, ObservedHop, ObservedLink};
use buoy_core::op::{Effect, Element, EndFlows, LinkRef, NftTransaction, Op};
use buoy_core::time::Mono;
use ipnet::IpNet;

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) alias: Option<String>,
    pub(crate) up: bool,
    /// Has the address of a workload's IPv6 gateway.
    pub(crate) gateway: bool,
}

/// How the tables are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tables {
    #[default]
    Absent,
    /// Of another version: the sets can be kept.
    Old,
    /// Of a version whose sets cannot be kept.
    Strange,
    Current,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Kernel {
    pub(crate) tables: Tables,
    pub(crate) sysctls: BTreeMap<String, String>,
    pub(crate) links: BTreeMap<IfName, Link>,
    pub(crate) members: BTreeSet<u32>,
    pub(crate) sources: BTreeSet<(u32, IpNet)>,
    pub(crate) nat: BTreeMap<FloatingIp, IpAddr>,
    pub(crate) ending: BTreeSet<(FloatingIp, IpAddr)>,
    /// Until when the kernel remembers them.
    pub(crate) draining: BTreeMap<(FloatingIp, IpAddr), Mono>,
    pub(crate) routes: BTreeMap<RouteKey, Option<u32>>,
    pub(crate) ended: Vec<EndFlows>,
    /// Configuration of the routing daemon.
    pub(crate) bird: Option<String>,
    last_index: u32,
}

impl Kernel {
    /// Does one operation, all or nothing.
    pub(crate) fn execute(&mut self, op: &Op, now: Mono) -> Result<Effect, String> {
        match op {
            Op::LoadRuleset => return Ok(self.load()),
            Op::SetSysctl(path, value) => {
                self.sysctls.insert(path.clone(), value.clone());
            }
            Op::AddLink(name, link) => {
                let index = self.add_link(name, Some(link.attachment.alias()))?;
                let gateway = link.addresses.iter().any(IpAddr::is_ipv6);
                self.links
                    .entry(name.clone())
                    .and_modify(|link| link.gateway = gateway);
                return Ok(Effect::Link(IfIndex(index)));
            }
            Op::RaiseLink(name, index, gateway) => {
                let link = self.links.get_mut(name).filter(|link| link.index == index.0);
                let link = link.ok_or(format!("no such link: {name}"))?;
                assert!(is_ours(link), "a stranger's link was raised: {name}");
                link.up = true;
                link.gateway |= gateway;
            }
            Op::LoadBird(text) => self.bird = Some(text.clone()),
            Op::DelLink(name, index) => {
                let there = self.links.get(name).filter(|link| link.index == index.0);
                assert!(there.is_none_or(is_ours), "a stranger's link was deleted: {name}");
                if there.is_some() {
                    self.del_link(name);
                }
            }
            Op::Nft(transaction) => self.nft(transaction, now)?,
            Op::PutRoute(key, Hop::Unreachable) => {
                self.routes.insert(*key, None);
            }
            Op::PutRoute(key, Hop::Link(name)) => {
                let link = self.links.get(name).ok_or(format!("no such link: {name}"))?;
                assert!(is_ours(link), "a route to a stranger's link: {name}");
                if !link.up {
                    return Err(format!("network is down: {name}"));
                }
                self.routes.insert(*key, Some(link.index));
            }
            Op::DelRoute(key) => {
                self.routes.remove(key);
            }
            Op::EndFlows(end) => self.ended.push(end.clone()),
        }
        Ok(Effect::Done)
    }

    pub(crate) fn add_link(&mut self, name: &IfName, alias: Option<String>) -> Result<u32, String> {
        if self.links.contains_key(name) {
            return Err(format!("file exists: {name}"));
        }
        self.last_index += 1;
        let index = self.last_index;
        let link = Link {
            index,
            alias,
            up: true,
            gateway: false,
        };
        self.links.insert(name.clone(), link);
        Ok(index)
    }

    /// The routes to a link go with it; what nftables knows of its index stays.
    pub(crate) fn del_link(&mut self, name: &IfName) {
        if let Some(link) = self.links.remove(name) {
            self.routes.retain(|_, index| *index != Some(link.index));
        }
    }

    /// Its routes go, and its IPv6 addresses.
    pub(crate) fn set_down(&mut self, name: &IfName) -> Option<u32> {
        let link = self.links.get_mut(name)?;
        (link.up, link.gateway) = (false, false);
        let index = link.index;
        self.routes.retain(|_, to| *to != Some(index));
        Some(index)
    }

    /// Its addresses do not come back, nor its routes.
    pub(crate) fn set_up(&mut self, name: &IfName) {
        self.links.entry(name.clone()).and_modify(|link| link.up = true);
    }

    fn load(&mut self) -> Effect {
        let found = std::mem::replace(&mut self.tables, Tables::Current);
        if found != Tables::Strange {
            return Effect::Done;
        }
        self.empty();
        Effect::Emptied
    }

    pub(crate) fn empty(&mut self) {
        self.members.clear();
        self.sources.clear();
        self.nat.clear();
        self.ending.clear();
        self.draining.clear();
    }

    fn nft(&mut self, transaction: &NftTransaction, now: Mono) -> Result<(), String> {
        if self.tables != Tables::Current {
            return Err("no such table".to_owned());
        }
        let mut next = self.clone();
        for element in &transaction.del {
            next.del_element(element);
        }
        for element in &transaction.add {
            next.add_element(element, now)?;
        }
        *self = next;
        Ok(())
    }

    /// Index of a link. One that was not made has no elements: they are left out.
    fn index(&self, link: &LinkRef) -> Option<u32> {
        match link {
            LinkRef::Index(index) => Some(index.0),
            LinkRef::Name(name) => self.links.get(name).map(|link| link.index),
        }
    }

    fn del_element(&mut self, element: &Element) {
        match element {
            Element::Member(link) => {
                self.index(link).map(|index| self.members.remove(&index));
            }
            Element::Source(link, prefix) => {
                self.index(link)
                    .map(|index| self.sources.remove(&(index, *prefix)));
            }
            Element::Nat(floating, _) => {
                self.nat.remove(floating);
            }
            Element::Ending(floating, old) => {
                self.ending.remove(&(*floating, *old));
            }
            Element::Draining(floating, old, _) => {
                self.draining.remove(&(*floating, *old));
            }
        }
    }

    fn add_element(&mut self, element: &Element, now: Mono) -> Result<(), String> {
        match element {
            Element::Member(link) => {
                let Some(index) = self.index(link) else {
                    return Ok(());
                };
                self.refuse_strangers(index);
                self.members.insert(index);
            }
            Element::Source(link, prefix) => {
                let Some(index) = self.index(link) else {
                    return Ok(());
                };
                self.refuse_strangers(index);
                self.add_source(index, *prefix)?;
            }
            Element::Nat(floating, internal) => {
                if self.nat.get(floating).is_some_and(|found| found != internal) {
                    return Err(format!("file exists: {floating}"));
                }
                self.nat.insert(*floating, *internal);
            }
            Element::Ending(floating, old) => {
                self.ending.insert((*floating, *old));
            }
            // One that is there keeps its time.
            Element::Draining(floating, old, time) => {
                let pair = (*floating, *old);
                if !self.is_draining(pair, now) {
                    self.draining.insert(pair, now.after(*time));
                }
            }
        }
        Ok(())
    }

    /// Prefixes are intervals and must not overlap; addresses are in a set of their own.
    fn add_source(&mut self, index: u32, prefix: IpNet) -> Result<(), String> {
        let is_host = |prefix: &IpNet| prefix.prefix_len() == prefix.max_prefix_len();
        let overlaps = |other: &IpNet| {
            *other != prefix && !is_host(other) && (other.contains(&prefix) || prefix.contains(other))
        };
        let taken = self
            .sources
            .iter()
            .any(|(of, other)| *of == index && overlaps(other));
        if taken && !is_host(&prefix) {
            return Err(format!("interval overlaps with an existing one: {prefix}"));
        }
        self.sources.insert((index, prefix));
        Ok(())
    }

    pub(crate) fn is_draining(&self, pair: (FloatingIp, IpAddr), now: Mono) -> bool {
        self.draining.get(&pair).is_some_and(|until| now < *until)
    }

    fn refuse_strangers(&self, index: u32) {
        let strange = self
            .links
            .iter()
            .find(|(_, link)| link.index == index && !is_ours(link));
        assert!(
            strange.is_none(),
            "a stranger's link is treated as a workload's: {strange:?}"
        );
    }

    /// All that an agent can see after a restart.
    pub(crate) fn read(&self, now: Mono) -> Observed {
        let mut filters: BTreeMap<IfIndex, Filter> = BTreeMap::new();
        for index in &self.members {
            filters.entry(IfIndex(*index)).or_default().member = true;
        }
        for (index, prefix) in &self.sources {
            filters
                .entry(IfIndex(*index))
                .or_default()
                .sources
                .insert(*prefix);
        }
        let links = self.links.iter().map(|(name, link)| {
            let index = IfIndex(link.index);
            (
                name.clone(),
                ObservedLink {
                    index,
                    alias: link.alias.clone(),
                    leaving: false,
                    up: link.up,
                    gateway_v6: link.gateway,
                },
            )
        });
        let hop = |index: &Option<u32>| match index {
            Some(index) => ObservedHop::Link(IfIndex(*index)),
            None => ObservedHop::Unreachable,
        };
        let ending = |pair: &(FloatingIp, IpAddr)| match self.draining.get(pair) {
            Some(until) if now < *until => Ending::Draining(*until),
            _ => Ending::Open,
        };
        Observed {
            ruleset: self.tables == Tables::Current,
            sysctls: self.sysctls.clone(),
            links: links.collect(),
            filters,
            routes: self
                .routes
                .iter()
                .map(|(key, index)| (*key, hop(index)))
                .collect(),
            nat: self.nat.clone(),
            ending: self.ending.iter().map(|pair| (*pair, ending(pair))).collect(),
            bird: self.bird.clone(),
        }
    }
}

pub(crate) fn is_ours(link: &Link) -> bool {
    link.alias.as_deref().and_then(AttachmentId::from_alias).is_some()
}
