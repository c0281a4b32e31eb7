//! The difference between what should be and what is, as operations in an order that is always safe.
//!
//! A plan does not know what kind of change happened. Order is a property of the operation: what others stand on comes
//! first when things are made and last when they are taken down.

mod flows;
mod scope;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use buoy_api::ip::FloatingIp;

use crate::bird;
use crate::desired::{Hop, Nat, NodeDesired, PodLink, RouteKey, Row, RowKey};
use crate::endpoint::{IfIndex, IfName, Netns};
use crate::observed::{Filter, Observed, ObservedHop};
use crate::op::{Element, LinkRef, NftTransaction, Op};
use crate::time::Mono;

/// Time after which flows are ended a second time.
pub const SECOND_PASS: Duration = Duration::from_millis(200);

/// What is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything, also what the kernel has and nobody wants.
    All,
    /// These rows.
    Keys(BTreeSet<RowKey>),
}

/// Operations, and when to plan again although nothing changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In order of their phases.
    pub ops: Vec<Op>,
    /// When the next plan may hold something by the mere passing of time.
    pub wake: Option<Mono>,
}

/// Says in which namespace an internal address of this node is, so that a former workload's sockets can be reset.
pub type NetnsOf<'a> = &'a dyn Fn(IpAddr) -> Option<Netns>;

/// Compares and orders.
pub fn plan(desired: &NodeDesired, observed: &Observed, scope: &Scope, netns_of: NetnsOf, now: Mono) -> Plan {
    let mut draft = Draft {
        desired,
        observed,
        netns_of,
        now,
        making: NftTransaction::default(),
        taking: NftTransaction::default(),
        ops: Vec::new(),
        made: BTreeSet::new(),
        looked_at: BTreeSet::new(),
        ended: BTreeSet::new(),
        routing: false,
        drained: BTreeSet::new(),
    };
    if !observed.ruleset {
        draft.ops.push((Phase::Ground, Op::LoadRuleset));
    }
    let keys = draft.keys(scope);
    for key in &keys {
        draft.visit(key);
    }
    draft.looked_at = keys;
    if *scope == Scope::All {
        draft.orphans();
    }
    if draft.routing {
        draft.bird();
    }
    let wake = draft.ending();
    draft.finish(wake)
}

/// Place of an operation in a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// What everything stands on, and what an earlier plan left to finish.
    Ground,
    /// Links whose name is needed again.
    Clear,
    /// Links.
    Links,
    /// Elements that are added or changed.
    Making,
    /// Routes that are added: from here on traffic comes.
    Attract,
    /// What other machines are told.
    Announce,
    /// Routes that are removed: from here on traffic stays away.
    Repel,
    /// Elements that are removed.
    Taking,
    /// Flows that must not go on.
    Flows,
    /// Links that nobody needs.
    Unlink,
}

struct Draft<'a> {
    desired: &'a NodeDesired,
    observed: &'a Observed,
    netns_of: NetnsOf<'a>,
    now: Mono,
    making: NftTransaction,
    taking: NftTransaction,
    ops: Vec<(Phase, Op)>,
    made: BTreeSet<IfName>,
    looked_at: BTreeSet<RowKey>,
    /// Pairs whose flows end from this plan on.
    ended: BTreeSet<(FloatingIp, IpAddr)>,
    routing: bool,
    /// Pairs whose flows go on for a while.
    drained: BTreeSet<(FloatingIp, IpAddr)>,
}

impl Draft<'_> {
    fn visit(&mut self, key: &RowKey) {
        if self.desired.is_frozen(key) {
            return;
        }
        let wanted = self.desired.get(key).map(|(row, _)| row);
        match (key, wanted) {
            (RowKey::Sysctl(path), Some(Row::Sysctl(_, value))) => {
                if self.observed.sysctls.get(path) != Some(value) {
                    self.ops
                        .push((Phase::Ground, Op::SetSysctl(path.clone(), value.clone())));
                }
            }
            (RowKey::Link(name), Some(Row::Link(_, link))) => self.link(name, link),
            (RowKey::Link(name), _) => self.unlink(name),
            (RowKey::Route(key), Some(Row::Route(_, hop))) => self.route(*key, hop),
            (RowKey::Route(key), _) => {
                if self.observed.routes.contains_key(key) {
                    self.ops.push((Phase::Repel, Op::DelRoute(*key)));
                }
            }
            (RowKey::Nat(floating), Some(Row::Nat(_, nat))) => self.translate(*floating, nat),
            (RowKey::Nat(floating), _) => self.untranslate(*floating),
            // Sections make one text, whichever of them changed.
            (RowKey::Bird(_), _) => self.routing = true,
            // A setting that nobody wants any more keeps its value until clean-up.
            (RowKey::Sysctl(_), _) => {}
        }
    }

    fn link(&mut self, name: &IfName, link: &PodLink) {
        let Some(observed) = self.observed.links.get(name) else {
            return self.make_link(name, link);
        };
        if observed.leaving {
            return;
        }
        match observed.attachment() {
            Some(attachment) if attachment == link.attachment => {
                if !observed.carries(&link.addresses) {
                    let v6 = link.addresses.iter().any(IpAddr::is_ipv6);
                    self.ops
                        .push((Phase::Links, Op::RaiseLink(name.clone(), observed.index, v6)));
                }
                self.filter(
                    observed.index,
                    &Filter {
                        member: true,
                        sources: link.sources.clone(),
                    },
                );
            }
            Some(_) => {
                self.filter(observed.index, &Filter::default());
                self.ops
                    .push((Phase::Clear, Op::DelLink(name.clone(), observed.index)));
                self.make_link(name, link);
            }
            // Not ours: making ours fails, says whose it is, and touches nothing.
            None => self
                .ops
                .push((Phase::Links, Op::AddLink(name.clone(), link.clone()))),
        }
    }

    fn make_link(&mut self, name: &IfName, link: &PodLink) {
        self.made.insert(name.clone());
        self.ops
            .push((Phase::Links, Op::AddLink(name.clone(), link.clone())));
        self.making.add.push(Element::Member(LinkRef::Name(name.clone())));
        let sources = link
            .sources
            .iter()
            .map(|prefix| Element::Source(LinkRef::Name(name.clone()), *prefix));
        self.making.add.extend(sources);
    }

    fn unlink(&mut self, name: &IfName) {
        let Some(observed) = self.observed.links.get(name) else {
            return;
        };
        if observed.leaving || observed.attachment().is_none() {
            return;
        }
        // They would go with the link, and must not lead to it when it is no workload's any more.
        let unknown = self.observed.routes_to(observed.index);
        let unknown = unknown.filter(|key| self.desired.is_frozen(&RowKey::Route(*key)));
        self.ops
            .extend(unknown.map(|key| (Phase::Repel, Op::DelRoute(key))));
        self.filter(observed.index, &Filter::default());
        self.ops
            .push((Phase::Unlink, Op::DelLink(name.clone(), observed.index)));
    }

    /// Brings what the packet filter knows of a link to what it should know.
    fn filter(&mut self, index: IfIndex, wanted: &Filter) {
        let nothing = Filter::default();
        let found = self.observed.filters.get(&index).unwrap_or(&nothing);
        let link = || LinkRef::Index(index);
        if wanted.member && !found.member {
            self.making.add.push(Element::Member(link()));
        }
        if found.member && !wanted.member {
            self.taking.del.push(Element::Member(link()));
        }
        self.making.add.extend(
            wanted
                .sources
                .difference(&found.sources)
                .map(|p| Element::Source(link(), *p)),
        );
        // Prefixes of one link must not overlap: what comes and what goes changes in one transaction.
        let taking = if wanted.member {
            &mut self.making
        } else {
            &mut self.taking
        };
        taking.del.extend(
            found
                .sources
                .difference(&wanted.sources)
                .map(|p| Element::Source(link(), *p)),
        );
    }

    /// A route follows its link: links were looked at before.
    fn route(&mut self, key: RouteKey, hop: &Hop) {
        let wanted = match hop {
            Hop::Unreachable => Some(ObservedHop::Unreachable),
            Hop::Link(name) if self.made.contains(name) => None,
            Hop::Link(name) => match self.present(name) {
                Some(index) => Some(ObservedHop::Link(index)),
                None => return self.await_link(key, name),
            },
        };
        if wanted.is_none() || self.observed.routes.get(&key).copied() != wanted {
            self.ops.push((Phase::Attract, Op::PutRoute(key, hop.clone())));
            self.end_what_led_elsewhere(key);
        }
    }

    /// The name is still another link's, or nobody's. What comes in its place brings its routes along; one that leads
    /// elsewhere meanwhile is wrong in any case.
    fn await_link(&mut self, key: RouteKey, name: &IfName) {
        let there = self
            .observed
            .links
            .get(name)
            .map(|link| ObservedHop::Link(link.index));
        let leads = self.observed.routes.get(&key).copied();
        if leads.is_some() && leads != there {
            self.ops.push((Phase::Repel, Op::DelRoute(key)));
        }
    }

    /// The routing daemon's configuration.
    fn bird(&mut self) {
        let rows = self.desired.bird().map(|(section, row, _)| (section, row));
        let wanted = bird::render(rows).filter(|text| self.observed.bird.as_ref() != Some(text));
        self.ops
            .extend(wanted.map(|text| (Phase::Announce, Op::LoadBird(text))));
    }

    fn translate(&mut self, floating: FloatingIp, nat: &Nat) {
        let internal = nat.internal;
        match self.observed.nat.get(&floating) {
            Some(found) if *found == internal => {}
            Some(old) => {
                self.making.del.push(Element::Nat(floating, *old));
                self.making.add.push(Element::Nat(floating, internal));
                self.hand_over(floating, *old, nat);
            }
            None => {
                self.making.add.push(Element::Nat(floating, internal));
                // Flows from before the address was translated have the floating IP itself as their reply source.
                self.begin_ending(floating, floating.addr());
            }
        }
    }

    fn untranslate(&mut self, floating: FloatingIp) {
        if let Some(old) = self.observed.nat.get(&floating) {
            self.taking.del.push(Element::Nat(floating, *old));
            self.taking.add.push(Element::Ending(floating, *old));
            self.ended.insert((floating, *old));
        }
    }

    /// What the packet filter knows of links that are no more.
    fn orphans(&mut self) {
        let links = self
            .observed
            .links
            .values()
            .filter(|link| link.attachment().is_some());
        let ours: BTreeSet<IfIndex> = links.map(|link| link.index).collect();
        let filtered: Vec<IfIndex> = self.observed.filters.keys().copied().collect();
        for index in filtered.into_iter().filter(|index| !ours.contains(index)) {
            self.filter(index, &Filter::default());
        }
    }

    fn finish(mut self, wake: Option<Mono>) -> Plan {
        for (phase, transaction) in [(Phase::Making, self.making), (Phase::Taking, self.taking)] {
            if !transaction.is_empty() {
                self.ops.push((phase, Op::Nft(transaction)));
            }
        }
        self.ops.sort_by_key(|(phase, _)| *phase);
        Plan {
            ops: self.ops.into_iter().map(|(_, op)| op).collect(),
            wake,
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
