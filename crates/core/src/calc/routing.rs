//! Sections of the routing daemon's configuration.
//!
//! What a record asks for and cannot be had makes a row that says why, and stops nothing else.

mod peer;
mod session;

use std::net::{IpAddr, Ipv4Addr};

use buoy_api::ip::Family;
use buoy_api::v3::{BgpConfiguration, Node};
use ipnet::IpNet;

use self::session::{Common, Ends};
use crate::bird::{BirdRow, LogLevel, Pool, Router, Section, Session, Side};
use crate::desired::Row;
use crate::view::{BGP_DEFAULT, Routing, View};

pub(super) use self::peer::peer;

/// AS number of the cluster, unless its records say otherwise.
const DEFAULT_AS: u32 = 64512;
/// Port of BGP.
const DEFAULT_PORT: u16 = 179;
/// Hold time of the mesh in seconds: a node that is gone for so long has lost its routes elsewhere.
const MESH_HOLD: u16 = 9;

/// The daemon itself.
pub(super) fn router(view: &View) -> Option<Row> {
    if view.settings.routing == Routing::Kernel {
        return None;
    }
    let level = config(view).and_then(|bgp| bgp.spec.log_severity_screen.as_deref());
    let router = Router {
        id: router_id(view),
        log: log_level(level),
    };
    Some(Row::Bird(Section::Router, BirdRow::Router(router)))
}

/// A pool, announced or not.
pub(super) fn pool(view: &View, name: &str) -> Vec<Row> {
    let pool = view.pools.get(name).filter(|_| is_routed(view));
    let row = pool.map(|pool| {
        let pool = Pool {
            cidr: pool.spec.cidr.trunc(),
            exported: !pool.spec.disable_bgp_export,
        };
        Row::Bird(Section::Pool(name.to_owned()), BirdRow::Pool(pool))
    });
    row.into_iter().collect()
}

/// A block of this node, announced as a whole.
pub(super) fn block(view: &View, cidr: &IpNet) -> Vec<Row> {
    if !is_routed(view) || !view.is_own_block(cidr) {
        return Vec::new();
    }
    vec![Row::Bird(Section::Block(*cidr), BirdRow::Block)]
}

/// Sessions with another node of the mesh, one per family.
pub(super) fn mesh(view: &View, name: &str) -> Vec<Row> {
    let Some(node) = view.nodes.get(name) else {
        return Vec::new();
    };
    if !is_routed(view) || !mesh_is_on(view) || name == view.settings.node {
        return Vec::new();
    }
    let of_family = |family| {
        let row = match (own_address(view, family), address(node, family)) {
            (None, None) => return None,
            (Some(_), None) => Err(format!("node {name} has no {family} address")),
            (None, Some(_)) => Err(format!("this node has no {family} address")),
            (Some(own), Some(other)) => mesh_session(view, name, own, other.addr()),
        };
        let row = row.map_or_else(BirdRow::LeftOut, |session| BirdRow::Session(Box::new(session)));
        Some(Row::Bird(Section::Mesh(name.to_owned(), family), row))
    };
    Family::ALL.into_iter().filter_map(of_family).collect()
}

fn mesh_session(view: &View, name: &str, own: IpNet, other: IpAddr) -> Result<Session, String> {
    if other == own.addr() {
        return Err(format!(
            "node {name} has this node's own address: {other}\nif that node is no more, delete its record"
        ));
    }
    if let Some(first) = node_of(view, other).filter(|first| *first != name) {
        return Err(format!("node {first} has the same address: {other}"));
    }
    let ends = Ends {
        side: Side::Node,
        own: Some(own),
        local: Some(own.addr()),
        local_as: as_number_of(view, &view.settings.node)?,
        remote: other,
        remote_port: listen_port(view),
        remote_as: as_number_of(view, name)?,
    };
    let default = config(view);
    let metadata = default.map(|bgp| &bgp.metadata.annotations);
    let password = default.and_then(|bgp| bgp.spec.node_mesh_password.as_ref());
    let mut session = session::session(view, &ends, &Common { metadata, password })?;
    session.hold = session.hold.or(Some(MESH_HOLD));
    Ok(session)
}

/// AS number of a node, as its record or the cluster's says.
pub fn as_number(view: &View, node: &Node) -> u32 {
    let own = node.spec.bgp.as_ref().and_then(|bgp| bgp.as_number);
    own.or_else(|| config(view)?.spec.as_number).unwrap_or(DEFAULT_AS)
}

fn as_number_of(view: &View, name: &str) -> Result<u32, String> {
    let node = view.nodes.get(name).map(|node| as_number(view, node));
    match node {
        Some(0) => Err(format!("the AS number of node {name} is 0")),
        Some(number) => Ok(number),
        None => Err(format!("node {name} has no record")),
    }
}

/// The first node with an address, by name; this node counts.
fn node_of(view: &View, wanted: IpAddr) -> Option<&str> {
    let has = |node: &Node| address(node, Family::of(wanted)).is_some_and(|prefix| prefix.addr() == wanted);
    let mut nodes = view.nodes.iter().filter(|(_, node)| has(node));
    nodes.next().map(|(name, _)| name.as_str())
}

fn address(node: &Node, family: Family) -> Option<IpNet> {
    let bgp = node.spec.bgp.as_ref()?;
    let prefix = match family {
        Family::V4 => bgp.ipv4_address,
        Family::V6 => bgp.ipv6_address,
    };
    prefix.filter(|prefix| Family::of_net(prefix) == family)
}

/// This node's address: as the agent finds it, for the record may be another agent's under the same name.
fn own_address(view: &View, family: Family) -> Option<IpNet> {
    let found = view.addresses.iter().copied();
    found
        .filter(|prefix| Family::of_net(prefix) == family)
        .chain(own_node(view).and_then(|node| address(node, family)))
        .next()
}

fn own_node(view: &View) -> Option<&Node> {
    view.nodes.get(view.settings.node.as_str())
}

fn config(view: &View) -> Option<&BgpConfiguration> {
    view.bgp.get(BGP_DEFAULT)
}

fn is_routed(view: &View) -> bool {
    view.settings.routing == Routing::Bird
}

fn mesh_is_on(view: &View) -> bool {
    config(view)
        .and_then(|bgp| bgp.spec.node_to_node_mesh_enabled)
        .unwrap_or(true)
}

fn listen_port(view: &View) -> u16 {
    config(view)
        .and_then(|bgp| bgp.spec.listen_port)
        .filter(|port| *port != 0)
        .unwrap_or(DEFAULT_PORT)
}

/// The node's IPv4 address or, without one, what its name comes to.
fn router_id(view: &View) -> Ipv4Addr {
    let v4 = own_address(view, Family::V4);
    match v4.map(|prefix| prefix.addr()) {
        Some(IpAddr::V4(v4)) if !v4.is_unspecified() => v4,
        _ => Ipv4Addr::from(hash(&view.settings.node).max(1)),
    }
}

/// FNV-1a.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash: u32, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

fn log_level(text: Option<&str>) -> LogLevel {
    match text {
        Some("Debug") => LogLevel::Debug,
        Some("Warning") => LogLevel::Warning,
        Some("Error") => LogLevel::Error,
        Some("Fatal") => LogLevel::Fatal,
        Some("None") => LogLevel::None,
        _ => LogLevel::Info,
    }
}
