//! Links: making a workload's, deleting, listing, and reading the inside of a namespace.

mod create;
mod inspect;
mod neighbour;
mod pod;
mod raise;
mod setup;
mod usable;

use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkFlags, LinkMessage},
};
use nix::errno::Errno;

pub(crate) use self::inspect::link_of;
pub use self::{
    create::create_pod_link,
    inspect::{Link, PodLinkState, find_link, gateways_v6, list_links, read_pod_link},
    neighbour::{del_neighbour, put_neighbour},
    pod::{CreatedLink, GATEWAY_V4, GATEWAY_V6, HOST_MAC, PodLink},
    raise::raise_pod_link,
};
use crate::{
    IfIndex,
    error::{Doing, Error, Result},
    netlink::{Protocol, Socket},
    netns::{Netns, in_netns},
};

/// The alias of every link that Buoy makes begins with this; `<container>/<ifname>` follows.
pub const ALIAS_PREFIX: &str = "buoy:";

/// What a link must be, for a deletion to mean it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expected<'a> {
    /// Its index, if known.
    pub ifindex: Option<IfIndex>,
    /// Its alias, if known.
    pub alias: Option<&'a str>,
}

/// Deletes a link of the socket's namespace, and with it the other side of a veth.
///
/// Takes 14 ms for a veth: the kernel waits until nobody can use the link any more. Returns whether there
/// was one.
///
/// # Errors
/// [`Error::LinkDiffers`] when the name is another link's now.
pub fn delete_link(socket: &mut Socket, name: &str, expected: Expected<'_>) -> Result<bool> {
    let Some(found) = find_link(socket, name)? else {
        return Ok(false);
    };
    let index_differs = expected.ifindex.is_some_and(|ifindex| ifindex != found.ifindex);
    let alias_differs = expected
        .alias
        .is_some_and(|alias| found.alias.as_deref() != Some(alias));
    if index_differs || alias_differs {
        let found = format!(
            "index {}, alias {}",
            found.ifindex,
            found.alias.as_deref().unwrap_or("none")
        );
        return Err(Error::LinkDiffers {
            name: name.to_owned(),
            found,
        });
    }
    delete_by_index(socket, found.ifindex, name)
}

/// Deletes an interface inside a workload's namespace. Returns whether there was one.
///
/// # Errors
/// When the namespace cannot be entered or the kernel refuses.
pub fn delete_in_netns(netns: &Netns, ifname: &str) -> Result<bool> {
    in_netns(netns, || {
        let mut socket = Socket::open(Protocol::Route)?;
        delete_link(&mut socket, ifname, Expected::default())
    })
}

fn delete_by_index(socket: &mut Socket, ifindex: IfIndex, name: &str) -> Result<bool> {
    let request = RouteNetlinkMessage::DelLink(link_message(Some(ifindex), Vec::new()));
    match socket.execute(&request, 0) {
        Ok(()) => Ok(true),
        Err(failure) if failure.errno() == Some(Errno::ENODEV) => Ok(false),
        refused => refused.map(|()| true).doing(|| format!("delete link {name}")),
    }
}

/// A link message; without an index the kernel goes by the name among the attributes.
fn link_message(ifindex: Option<IfIndex>, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = ifindex.map_or(0, |ifindex| ifindex.0);
    message.attributes = attributes;
    message
}

/// The request that brings a link up.
fn up_message(ifindex: IfIndex) -> RouteNetlinkMessage {
    let mut message = link_message(Some(ifindex), Vec::new());
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    RouteNetlinkMessage::SetLink(message)
}
