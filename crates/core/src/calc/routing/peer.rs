//! Sessions with peers outside the mesh.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use buoy_api::ip::{Family, FloatingIp};
use buoy_api::selector::Selector;
use buoy_api::v3::{BgpPeer, BgpPeerSpec};

use super::session::{self, Common, Ends, seconds};
use super::{as_number_of, is_routed, mesh_is_on, node_of, own_address, own_node};
use crate::bird::{BirdRow, Reach, Section, Session, Side};
use crate::desired::Row;
use crate::view::View;

/// Fields that choose or filter: a session that leaves them out would not be what was asked for.
const UNSUPPORTED: [&str; 5] = [
    "filters",
    "localWorkloadSelector",
    "peerSelector",
    "reachableBy",
    "reversePeering",
];
/// Longest time that BGP can say for a graceful restart, in seconds.
const LONGEST_RESTART: u16 = 4095;

/// The session that a BGPPeer asks of this node.
pub(in crate::calc) fn peer(view: &View, name: &str) -> Vec<Row> {
    let Some(peer) = view.peers.get(name).filter(|_| is_routed(view)) else {
        return Vec::new();
    };
    let row = match selects(view, peer) {
        Ok(false) => return Vec::new(),
        Ok(true) => peer_session(view, name, peer),
        Err(why) => Err(why),
    };
    let row = row.map_or_else(BirdRow::LeftOut, |session| BirdRow::Session(Box::new(session)));
    vec![Row::Bird(Section::Peer(name.to_owned()), row)]
}

/// Whether this node shall have the session.
fn selects(view: &View, peer: &BgpPeer) -> Result<bool, String> {
    let BgpPeerSpec {
        node, node_selector, ..
    } = &peer.spec;
    match (node.is_empty(), node_selector.is_empty()) {
        (true, true) => Ok(true),
        (false, true) => Ok(*node == view.settings.node),
        (false, false) if *node == view.settings.node => {
            Err("it names a node and a node selector\nleave one of them out".to_owned())
        }
        (false, false) => Ok(false),
        (true, false) => {
            let selector: Selector = node_selector
                .parse()
                .map_err(|error| format!("nodeSelector: {error}"))?;
            Ok(own_node(view).is_some_and(|node| selector.matches(&node.metadata.labels)))
        }
    }
}

fn peer_session(view: &View, name: &str, peer: &BgpPeer) -> Result<Session, String> {
    let spec = &peer.spec;
    let unknown = UNSUPPORTED
        .iter()
        // An empty value says nothing.
        .find(|field| {
            spec.extra.get(**field).is_some_and(|value| {
                !value.is_null()
                    && value.as_str() != Some("")
                    && value.as_array().is_none_or(|all| !all.is_empty())
            })
        });
    if let Some(field) = unknown {
        return Err(format!("this version does not know {field}"));
    }
    let (remote, remote_port) = remote(&spec.peer_ip)?;
    let side = side(view, name, remote)?;
    let own = own_address(view, Family::of(remote));
    let local = match spec.source_address.as_deref() {
        Some("None") => None,
        None | Some("UseNodeIP") => match own {
            Some(own) => Some(own.addr()),
            None => return Err(format!("this node has no {} address", Family::of(remote))),
        },
        Some(other) => return Err(format!("sourceAddress: UseNodeIP or None, not {other:?}")),
    };
    let ends = Ends {
        side,
        own,
        local,
        local_as: local_as(view, spec)?,
        remote,
        remote_port,
        remote_as: spec
            .as_number
            .filter(|number| *number != 0)
            .ok_or("asNumber is missing")?,
    };
    let common = Common {
        metadata: Some(&peer.metadata.annotations),
        password: spec.password.as_ref(),
    };
    with_options(session::session(view, &ends, &common)?, spec)
}

fn local_as(view: &View, spec: &BgpPeerSpec) -> Result<u32, String> {
    match spec.local_as_number {
        Some(0) => Err("localASNumber is 0".to_owned()),
        Some(number) => Ok(number),
        None => as_number_of(view, &view.settings.node),
    }
}

fn with_options(mut session: Session, spec: &BgpPeerSpec) -> Result<Session, String> {
    if let Some(text) = &spec.keepalive_time {
        let keepalive = seconds("keepaliveTime", text, 1)?;
        session.keepalive = Some(keepalive);
        session.hold = session.hold.or(Some(keepalive.saturating_mul(3)));
    }
    if let Some(text) = &spec.max_restart_time {
        let restart = seconds("maxRestartTime", text, 1)?;
        if restart > LONGEST_RESTART {
            return Err(format!(
                "maxRestartTime: at most {LONGEST_RESTART}s, not {text:?}"
            ));
        }
        session.restart = Some(restart);
    }
    if let Some(hops) = spec.ttl_security.filter(|hops| *hops > 0) {
        session.ttl_security = true;
        if hops > 1 || session.reach != Reach::Direct {
            session.reach = Reach::Within(hops);
        }
    }
    Ok(session)
}

/// Who is at an address. Error: somebody with whom there is a session already, or who cannot have one.
fn side(view: &View, name: &str, remote: IpAddr) -> Result<Side, String> {
    let first = view.peers.iter().find(|(other, peer)| {
        other.as_str() < name
            && self::remote(&peer.spec.peer_ip).is_ok_and(|(address, _)| address == remote)
            && selects(view, peer) == Ok(true)
    });
    if let Some((first, _)) = first {
        return Err(format!("BGP peer {first} has the same address: {remote}"));
    }
    match node_of(view, remote) {
        Some(node) if node == view.settings.node => Err(format!("it is this node's own address: {remote}")),
        Some(node) if mesh_is_on(view) => Err(format!(
            "{remote} is node {node}, with which the mesh has a session\nto have sessions of your own, set nodeToNodeMeshEnabled: false"
        )),
        Some(_) => Ok(Side::Node),
        None => Ok(Side::External),
    }
}

/// Address and port of a peer.
fn remote(text: &str) -> Result<(IpAddr, u16), String> {
    let wrong = || format!("peerIP: an address, address:port or [address]:port, not {text:?}");
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let (address, port) = match (text.parse::<IpAddr>(), text.parse::<SocketAddr>()) {
        (Ok(address), _) => (address, super::DEFAULT_PORT),
        (_, Ok(socket)) => (socket.ip(), socket.port()),
        _ => {
            let address: Ipv6Addr = bare.ok_or_else(wrong)?.parse().map_err(|_| wrong())?;
            (address.into(), super::DEFAULT_PORT)
        }
    };
    FloatingIp::try_from(address).map_err(|_| format!("peerIP: not an address of a peer: {address}"))?;
    if port == 0 {
        Err(wrong())
    } else {
        Ok((address, port))
    }
}
