//! Operations: what is to be done to the kernel, as values that can be printed, compared and repeated.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use buoy_api::ip::FloatingIp;
use ipnet::IpNet;

use crate::desired::{Hop, PodLink, RouteKey};
use crate::endpoint::{IfIndex, IfName, Netns};

/// A link that is there, or one that an operation of the same plan makes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkRef {
    /// Made by this plan.
    Name(IfName),
    /// There.
    Index(IfIndex),
}

/// An element of the packet filter's sets and maps.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    /// A workload's link.
    Member(LinkRef),
    /// What may be sent from a link.
    Source(LinkRef, IpNet),
    /// A translation, with what its hairpin needs.
    Nat(FloatingIp, IpAddr),
    /// Flows of this floating IP to this former internal address are being ended. The floating IP itself in the second
    /// place means flows that were never translated.
    Ending(FloatingIp, IpAddr),
    /// The end of such flows is put off for so long; the kernel itself forgets it then. One that is deleted had so much
    /// time left.
    Draining(FloatingIp, IpAddr, Duration),
}

/// Changes of elements that take effect at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NftTransaction {
    /// Deleted first.
    pub del: Vec<Element>,
    /// Added afterwards.
    pub add: Vec<Element>,
}

impl NftTransaction {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.del.is_empty() && self.add.is_empty()
    }
}

/// Which of the two passes over the tracked flows. Entries that were not yet confirmed are invisible to the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pass {
    /// In the same plan as the change.
    First,
    /// A moment later.
    Second,
}

/// Ends the tracked flows of a floating IP, but for those to its present internal address and to former ones that are
/// drained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndFlows {
    /// Original destination of the flows.
    pub floating: FloatingIp,
    /// Internal addresses whose flows stay.
    pub keep: BTreeSet<IpAddr>,
    /// Former workload: its address, and its namespace where its sockets are reset first.
    pub gone: Vec<(IpAddr, Option<Netns>)>,
    /// Which pass.
    pub pass: Pass,
}

/// One change to the kernel of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Tables, chains, sets and maps in this version's form; what the sets and maps hold stays, if it can.
    LoadRuleset,
    /// A kernel setting.
    SetSysctl(String, String),
    /// A workload's link with all that is inside its namespace.
    AddLink(IfName, PodLink),
    /// Sets a link of ours up that somebody set down, and gives it the gateway's IPv6 address again if it should have it.
    RaiseLink(IfName, IfIndex, bool),
    /// Takes a link of ours down.
    DelLink(IfName, IfIndex),
    /// Elements of sets and maps.
    Nft(NftTransaction),
    /// Adds or replaces a route.
    PutRoute(RouteKey, Hop),
    /// Removes a route.
    DelRoute(RouteKey),
    /// Ends flows.
    EndFlows(EndFlows),
    /// Gives the routing daemon this configuration.
    LoadBird(String),
}

impl Op {
    /// What kind of operation it is, in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::LoadRuleset => "load_ruleset",
            Self::SetSysctl(..) => "set_sysctl",
            Self::AddLink(..) => "add_link",
            Self::RaiseLink(..) => "raise_link",
            Self::DelLink(..) => "delete_link",
            Self::Nft(_) => "nft",
            Self::PutRoute(..) => "put_route",
            Self::DelRoute(_) => "delete_route",
            Self::EndFlows(_) => "end_flows",
            Self::LoadBird(_) => "load_bird",
        }
    }
}

/// What an operation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// What it says.
    Done,
    /// Made a link with this index.
    Link(IfIndex),
    /// What it says, and sets and maps are empty now.
    Emptied,
}

impl fmt::Display for LinkRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Index(index) => write!(f, "link#{}", index.0),
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(link) => write!(f, "workload link {link}"),
            Self::Source(link, prefix) => write!(f, "source {prefix} on {link}"),
            Self::Nat(floating, internal) => write!(f, "{floating} to {internal}"),
            Self::Ending(floating, old) => write!(f, "ending {floating} to {old}"),
            Self::Draining(floating, old, time) => {
                write!(f, "draining {floating} to {old} for {time:.1?}")
            }
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LoadRuleset => f.write_str("load ruleset"),
            Self::SetSysctl(path, value) => write!(f, "set sysctl {path}: {value}"),
            Self::AddLink(name, link) => write!(f, "add link {name} for {}", link.endpoint),
            Self::RaiseLink(name, index, _) => write!(f, "raise link {name}: index {}", index.0),
            Self::DelLink(name, index) => write!(f, "delete link {name}: index {}", index.0),
            Self::Nft(transaction) => {
                let del = transaction.del.iter().map(|e| format!("-{e}"));
                let add = transaction.add.iter().map(|e| format!("+{e}"));
                write!(f, "nft {}", del.chain(add).collect::<Vec<_>>().join(", "))
            }
            Self::PutRoute(key, Hop::Link(name)) => {
                write!(f, "put route {} dev {name} metric {}", key.prefix, key.metric)
            }
            Self::PutRoute(key, Hop::Unreachable) => {
                write!(f, "put route unreachable {} metric {}", key.prefix, key.metric)
            }
            Self::DelRoute(key) => write!(f, "delete route {} metric {}", key.prefix, key.metric),
            // Not the text: there are passwords in it.
            Self::LoadBird(text) => write!(f, "load routing configuration: {} lines", text.lines().count()),
            Self::EndFlows(end) => {
                write!(f, "end flows of {}", end.floating)?;
                let kept: Vec<String> = end.keep.iter().map(ToString::to_string).collect();
                if kept.is_empty() {
                    return Ok(());
                }
                write!(f, " but those to {}", kept.join(" and "))
            }
        }
    }
}
