//! What this node should look like: rows, each with its key and whom it is about.
//!
//! The whole is the union of every subject's rows. Two subjects that want one key differently are settled here, in one
//! place, by the order of subjects; so neither the order of inputs nor of calculation matters.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use buoy_api::binding::Epoch;
use buoy_api::ip::{Family, FloatingIp};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::bird::{BirdRow, Section};
use crate::endpoint::{AttachmentId, EndpointId, IfName, Netns};
use crate::subject::Subject;

/// Protocol number of every route that this agent writes.
pub const ROUTE_PROTOCOL: u8 = 177;
/// Metric from which floating IPs count down: their metric is this minus the epoch.
pub const FLOATING_METRIC_BASE: u32 = 1_000_000_000;
/// Epochs that metrics can tell apart; above, routes rest on the newest's turn being last.
pub const FLOATING_METRIC_RANGE: u32 = 1 << 28;
/// Metric of a workload's own address.
pub const OWN_METRIC: u32 = 1024;
/// Metric of a workload's own address that lies in no block of this node: nobody finds it by a block's route, so it is
/// announced by itself. The routing daemon knows such routes by this alone.
pub const BORROWED_METRIC: u32 = 1023;
/// Metric of the route that keeps packets for an unowned address from bouncing. Any other route wins.
pub const UNOWNED_METRIC: u32 = u32::MAX;

/// Metric of a floating IP's route: a newer epoch is preferred.
pub fn floating_metric(epoch: Epoch) -> u32 {
    let epoch = u32::try_from(epoch.0)
        .unwrap_or(u32::MAX)
        .min(FLOATING_METRIC_RANGE);
    FLOATING_METRIC_BASE - epoch
}

/// A workload's link, as it is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodLink {
    /// Endpoint it belongs to.
    pub endpoint: EndpointId,
    /// ADD that it was made for; another one makes it anew.
    pub attachment: AttachmentId,
    /// Namespace of the workload.
    pub netns: Netns,
    /// MAC address inside.
    pub mac: Option<[u8; 6]>,
    /// MTU.
    pub mtu: Option<u32>,
    /// Queues.
    pub queues: u32,
    /// Whether the workload forwards packets.
    pub forwarding: bool,
    /// Addresses inside.
    pub addresses: Vec<IpAddr>,
    /// What it may send from: its addresses and what it is allowed besides. Changes without a new link.
    pub sources: BTreeSet<IpNet>,
    /// How long established flows go on when a floating IP leaves the workload for another of this node.
    pub drain: Duration,
}

/// Destination, family and preference of a route in the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RouteKey {
    /// Destination.
    pub prefix: IpNet,
    /// Lower is preferred.
    pub metric: u32,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Hop {
    /// To the hosts on a link.
    Link(IfName),
    /// Nowhere: the sender is told.
    Unreachable,
}

/// Translation of a floating IP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nat {
    /// Address it is translated to.
    pub internal: IpAddr,
    /// Endpoint that has that address.
    pub endpoint: EndpointId,
    /// Number of the owner.
    pub epoch: Epoch,
    /// How long flows to the owner before go on, where whoever moved it here said so; else that owner's link says it.
    pub drain: Option<Duration>,
}

/// One thing that should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// A kernel setting of this node.
    Sysctl(String, String),
    /// A workload's link.
    Link(IfName, Box<PodLink>),
    /// A route.
    Route(RouteKey, Hop),
    /// A translation.
    Nat(FloatingIp, Nat),
    /// A section of the routing daemon's configuration.
    Bird(Section, BirdRow),
}

/// Names one row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowKey {
    /// By path, `net/ipv4/ip_forward`.
    Sysctl(String),
    /// By name on this node.
    Link(IfName),
    /// By destination and metric.
    Route(RouteKey),
    /// By floating IP.
    Nat(FloatingIp),
    /// By section.
    Bird(Section),
}

impl Row {
    /// Its key.
    pub fn key(&self) -> RowKey {
        match self {
            Self::Sysctl(path, _) => RowKey::Sysctl(path.clone()),
            Self::Link(name, _) => RowKey::Link(name.clone()),
            Self::Route(key, _) => RowKey::Route(*key),
            Self::Nat(floating, _) => RowKey::Nat(*floating),
            Self::Bird(section, _) => RowKey::Bird(section.clone()),
        }
    }
}

impl RouteKey {
    /// A host route.
    pub fn host(address: IpAddr, metric: u32) -> Self {
        Self {
            prefix: IpNet::from(address),
            metric,
        }
    }

    /// Whether it is a floating IP's, by its metric.
    pub fn is_floating(&self) -> bool {
        (FLOATING_METRIC_BASE - FLOATING_METRIC_RANGE..=FLOATING_METRIC_BASE).contains(&self.metric)
    }

    /// Epoch of a floating IP's route.
    pub fn epoch(&self) -> Option<Epoch> {
        self.is_floating()
            .then(|| Epoch(u64::from(FLOATING_METRIC_BASE - self.metric)))
    }

    /// Family of the route.
    pub fn family(&self) -> Family {
        Family::of_net(&self.prefix)
    }
}

impl fmt::Display for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sysctl(path) => write!(f, "sysctl {path}"),
            Self::Link(name) => write!(f, "link {name}"),
            Self::Route(key) => write!(f, "route {} metric {}", key.prefix, key.metric),
            Self::Nat(floating) => write!(f, "translation of {floating}"),
            Self::Bird(section) => section.fmt(f),
        }
    }
}

/// What the whole node should look like.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeDesired {
    /// In order of subjects: nearly always one, for which a tree would be a hundred times too large.
    claims: BTreeMap<RowKey, Vec<(Subject, Row)>>,
    keys: BTreeMap<Subject, Vec<RowKey>>,
    frozen: BTreeSet<FloatingIp>,
    via: BTreeMap<IfName, BTreeSet<(RouteKey, Subject)>>,
}

impl NodeDesired {
    /// Replaces the rows of a subject and says which keys that changed.
    pub fn replace(&mut self, subject: &Subject, rows: Vec<Row>) -> BTreeSet<RowKey> {
        let mut changed = BTreeSet::new();
        let mut keys: Vec<RowKey> = rows.iter().map(Row::key).collect();
        keys.sort();
        for key in self.keys.remove(subject).unwrap_or_default() {
            if keys.binary_search(&key).is_err() && self.withdraw(subject, &key) {
                changed.insert(key);
            }
        }
        for row in rows {
            let key = row.key();
            if self.claim_of(subject, &key) != Some(&row) {
                self.withdraw(subject, &key);
                self.claim(subject, row);
                changed.insert(key);
            }
        }
        if !keys.is_empty() {
            self.keys.insert(subject.clone(), keys);
        }
        changed
    }

    fn claim(&mut self, subject: &Subject, row: Row) {
        if let Row::Route(key, Hop::Link(name)) = &row {
            self.via
                .entry(name.clone())
                .or_default()
                .insert((*key, subject.clone()));
        }
        let claims = self
            .claims
            .entry(row.key())
            .or_insert_with(|| Vec::with_capacity(1));
        let before = claims.partition_point(|(other, _)| other < subject);
        claims.insert(before, (subject.clone(), row));
    }

    fn claim_of(&self, subject: &Subject, key: &RowKey) -> Option<&Row> {
        let mut claims = self.claims.get(key)?.iter();
        claims.find(|(other, _)| other == subject).map(|(_, row)| row)
    }

    fn withdraw(&mut self, subject: &Subject, key: &RowKey) -> bool {
        let Some(claims) = self.claims.get_mut(key) else {
            return false;
        };
        let Some(place) = claims.iter().position(|(other, _)| other == subject) else {
            return false;
        };
        let (_, row) = claims.remove(place);
        if claims.is_empty() {
            self.claims.remove(key);
        }
        if let Row::Route(key, Hop::Link(name)) = row
            && let Some(routes) = self.via.get_mut(&name)
        {
            routes.remove(&(key, subject.clone()));
            if routes.is_empty() {
                self.via.remove(&name);
            }
        }
        true
    }

    /// Keys of the routes that should lead to a link.
    pub fn routes_via(&self, link: &IfName) -> impl Iterator<Item = RouteKey> + '_ {
        self.via.get(link).into_iter().flatten().map(|(key, _)| *key)
    }

    /// What the kernel has of a floating IP stays as it is, for nobody knows what it should be; or that is over. Says
    /// which keys that changed.
    pub fn freeze(&mut self, floating: FloatingIp, frozen: bool) -> BTreeSet<RowKey> {
        if frozen {
            self.frozen.insert(floating);
            return BTreeSet::new();
        }
        let thawed = self.frozen.remove(&floating);
        thawed.then_some(RowKey::Nat(floating)).into_iter().collect()
    }

    /// Whether a row belongs to a floating IP that stays as it is.
    pub fn is_frozen(&self, key: &RowKey) -> bool {
        match key {
            RowKey::Nat(floating) => self.frozen.contains(floating),
            RowKey::Route(key) => {
                key.is_floating()
                    && FloatingIp::try_from(key.prefix.addr())
                        .is_ok_and(|floating| self.frozen.contains(&floating))
            }
            RowKey::Sysctl(_) | RowKey::Link(_) | RowKey::Bird(_) => false,
        }
    }

    /// The row of a key, and whom it is about.
    pub fn get(&self, key: &RowKey) -> Option<(&Row, &Subject)> {
        let (subject, row) = self.claims.get(key)?.first()?;
        Some((row, subject))
    }

    /// The link that leads to an address of a workload's own, if there should be one.
    pub fn link_of(&self, own: IpAddr) -> Option<(&IfName, &PodLink)> {
        let (Row::Route(_, Hop::Link(name)), _) =
            self.get(&RowKey::Route(RouteKey::host(own, OWN_METRIC)))?
        else {
            return None;
        };
        match self.get(&RowKey::Link(name.clone()))? {
            (Row::Link(name, link), _) => Some((name, link)),
            _ => None,
        }
    }

    /// The translation of a floating IP.
    pub fn nat(&self, floating: FloatingIp) -> Option<&Nat> {
        match self.get(&RowKey::Nat(floating))? {
            (Row::Nat(_, nat), _) => Some(nat),
            _ => None,
        }
    }

    /// Floating IPs that are translated here.
    pub fn translated(&self) -> impl Iterator<Item = FloatingIp> + '_ {
        self.claims.keys().filter_map(|key| match key {
            RowKey::Nat(floating) => Some(*floating),
            _ => None,
        })
    }

    /// All rows in order of their keys.
    pub fn rows(&self) -> impl Iterator<Item = (&RowKey, &Row, &Subject)> {
        self.claims.iter().filter_map(|(key, claims)| {
            let (subject, row) = claims.first()?;
            Some((key, row, subject))
        })
    }

    /// The sections of the routing daemon's configuration, in order.
    pub fn bird(&self) -> impl Iterator<Item = (&Section, &BirdRow, &Subject)> {
        let sections = self.claims.range(RowKey::Bird(Section::Router)..);
        sections.filter_map(|(_, claims)| match claims.first()? {
            (subject, Row::Bird(section, row)) => Some((section, row, subject)),
            _ => None,
        })
    }

    /// Keys of a subject's rows.
    pub fn keys_of(&self, subject: &Subject) -> impl Iterator<Item = &RowKey> {
        self.keys.get(subject).into_iter().flatten()
    }
}

#[cfg(test)]
#[path = "desired_tests.rs"]
mod tests;
