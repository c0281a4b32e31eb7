//! The configuration of the routing daemon BIRD: its rows, and their text.
//!
//! A row is a section of the text, keyed by [`Section`]; a row that cannot be used says why and has no text, so that one
//! bad record never stops the rest. [`render`] is the union of all rows. How BIRD is started and told is the agent's.

mod filters;
mod render;
mod symbol;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use buoy_api::ip::Family;
use ipnet::IpNet;

pub use self::render::render;
pub use self::symbol::symbols;

/// Metric of every route that BIRD writes into the kernel.
pub const BIRD_METRIC: u32 = 32;
/// Routes accepted from one external peer. More are ignored, and the session stays: so a flood harms neither this node
/// nor what it announces.
pub const IMPORT_LIMIT: u32 = 10_000;

/// Names one section of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// What the whole daemon needs; without it there is no configuration.
    Router,
    /// A pool, by name.
    Pool(String),
    /// A block of this node, by prefix.
    Block(IpNet),
    /// The session of a family with another node of the mesh, by name.
    Mesh(String, Family),
    /// The session with an external peer, by the name of its record.
    Peer(String),
}

/// One section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BirdRow {
    /// The daemon itself.
    Router(Router),
    /// A pool: what lies in it is not accepted from outside, and announced if the pool allows.
    Pool(Pool),
    /// A block of this node, announced as a whole.
    Block,
    /// A session.
    Session(Box<Session>),
    /// No session, for this reason.
    LeftOut(String),
}

/// The daemon itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Router {
    /// Tells this node apart in BGP.
    pub id: Ipv4Addr,
    /// What is logged.
    pub log: LogLevel,
}

/// What the daemon logs, as `logSeverityScreen` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What happens.
    #[default]
    Info,
    /// What somebody should look at.
    Warning,
    /// What went wrong.
    Error,
    /// What ends the daemon.
    Fatal,
    /// Nothing.
    None,
}

/// A pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its prefix.
    pub cidr: IpNet,
    /// Whether what lies in it is announced.
    pub exported: bool,
}

/// Who is at the other end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Another node of the cluster, which is believed.
    Node,
    /// Somebody outside, who has no say about our pools.
    External,
}

/// How far away a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// On a network of this node.
    Direct,
    /// Behind routers.
    Routed,
    /// Behind at most so many, which its packets must prove.
    Within(u8),
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Who is there.
    pub side: Side,
    /// Source address; the kernel's choice, if none.
    pub local: Option<IpAddr>,
    /// Port on which this node listens.
    pub local_port: u16,
    /// AS number of this node in the session.
    pub local_as: u32,
    /// Address of the peer.
    pub remote: IpAddr,
    /// Port on which the peer listens.
    pub remote_port: u16,
    /// AS number of the peer.
    pub remote_as: u32,
    /// How far away it is.
    pub reach: Reach,
    /// Whether the TTL of its packets is checked.
    pub ttl_security: bool,
    /// Seconds without a word after which it counts as gone.
    pub hold: Option<u16>,
    /// Seconds between two keepalives.
    pub keepalive: Option<u16>,
    /// Seconds for which the peer shall keep our routes while we restart.
    pub restart: Option<u16>,
    /// Whether BFD watches it.
    pub bfd: bool,
    /// TCP MD5 password.
    pub password: Option<Secret>,
}

impl Session {
    /// Family of its addresses and of the routes it carries.
    pub fn family(&self) -> Family {
        Family::of(self.remote)
    }
}

/// A password. It is in the configuration, and in nothing that is shown or logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// Longest TCP MD5 key of the kernel, in bytes.
const MAX_SECRET: usize = 80;

impl Secret {
    /// A password that the daemon's configuration can hold. Error: why it cannot.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("it is empty".to_owned());
        }
        if text.len() > MAX_SECRET {
            return Err(format!("it is longer than {MAX_SECRET} bytes"));
        }
        // The configuration's strings know no escapes.
        if text.contains(|c: char| c == '"' || c.is_control()) {
            return Err("it has a quotation mark or a control character".to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Router => f.write_str("routing daemon"),
            Self::Pool(name) => write!(f, "routing of pool {name}"),
            Self::Block(cidr) => write!(f, "announcement of block {cidr}"),
            Self::Mesh(node, family) => write!(f, "{family} session with node {node}"),
            Self::Peer(name) => write!(f, "session with BGP peer {name}"),
        }
    }
}

impl fmt::Display for BirdRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Router(router) => write!(f, "router id {}", router.id),
            Self::Pool(pool) if pool.exported => write!(f, "{} is announced", pool.cidr),
            Self::Pool(pool) => write!(f, "{} is not announced", pool.cidr),
            Self::Block => f.write_str("announced"),
            Self::Session(session) => write!(
                f,
                "{} as {}, we as {}",
                session.remote, session.remote_as, session.local_as
            ),
            Self::LeftOut(why) => write!(f, "left out: {why}"),
        }
    }
}
