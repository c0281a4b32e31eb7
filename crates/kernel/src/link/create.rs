//! Making a workload's link, usable at once.
//!
//! The veth is made inside the workload's namespace with its peer directly in the host's. From then on both
//! sides are set up at the same time, the inner one by a thread inside the namespace.

use std::{
    os::fd::{AsFd, AsRawFd},
    sync::mpsc,
    thread,
};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo},
};
use nix::{errno::Errno, net::if_::if_nametoindex};

use super::{
    delete_by_index, find_link, link_message,
    pod::{CreatedLink, HOST_MAC, PodLink, Side},
    setup, usable,
};
use crate::{
    IfIndex,
    error::{Doing, Error, Result},
    netlink::{Protocol, Socket},
    netns::{Netns, join, spawn_in},
};

/// Makes a workload's link: both sides up, addresses and routes inside, settings on both sides.
///
/// `socket` is of the host's namespace, and the calling thread must be in it. On return the link carries packets:
/// no duplicate address detection runs and both queues are open. Whatever fails, nothing of it stays.
///
/// # Errors
/// [`Error::LinkExists`] and [`Error::PodLinkExists`] when a name is taken; nothing is changed then.
pub fn create_pod_link(socket: &mut Socket, netns: &Netns, link: &PodLink) -> Result<CreatedLink> {
    let host = Netns::current()?;
    if host.id() == netns.id() {
        return Err(Error::Invalid(format!(
            "the namespace of {} is the host's own",
            link.host_name
        )));
    }
    let (made, wait_for_made) = mpsc::sync_channel(1);
    let (host_side, pod_side) = thread::scope(|scope| {
        let inside = spawn_in(scope, netns.as_fd(), move || {
            let mut inside = Socket::open(Protocol::Route)?;
            make_veth(&mut inside, &host, link)?;
            // The receiver waits until the sender is gone, so this cannot fail.
            let _ = made.send(());
            let ifindex = index_of(&link.pod_name)?;
            setup::pod_side(
                Side {
                    socket: &mut inside,
                    ifindex,
                    name: &link.pod_name,
                },
                link,
            )?;
            Ok((inside, ifindex))
        });
        let host_side = wait_for_made.recv().ok().map(|()| {
            let ifindex = index_of(&link.host_name)?;
            setup::host_side(
                Side {
                    socket,
                    ifindex,
                    name: &link.host_name,
                },
                link,
            )?;
            Ok(ifindex)
        });
        (host_side, inside.and_then(join))
    });
    let Some(host_side) = host_side else {
        return Err(why_not_made(socket, link, pod_side.err()));
    };
    let created = host_side.and_then(|ifindex| {
        let (mut inside, pod_ifindex) = pod_side?;
        let host = Side {
            socket,
            ifindex,
            name: &link.host_name,
        };
        let pod = Side {
            socket: &mut inside,
            ifindex: pod_ifindex,
            name: &link.pod_name,
        };
        usable::wait(host, pod, link)
    });
    if created.is_err() {
        undo(socket, link);
    }
    created
}

/// The veth, its peer in the host's namespace.
fn make_veth(inside: &mut Socket, host: &Netns, link: &PodLink) -> Result<()> {
    let queues = link.queues.max(1);
    let common = |name: &str| {
        let mut attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::NumTxQueues(queues),
            LinkAttribute::NumRxQueues(queues),
        ];
        attributes.extend(link.mtu.map(LinkAttribute::Mtu));
        attributes
    };
    let mut peer = common(&link.host_name);
    peer.push(LinkAttribute::Address(HOST_MAC.0.to_vec()));
    peer.push(LinkAttribute::NetNsFd(host.as_fd().as_raw_fd()));
    let mut attributes = common(&link.pod_name);
    attributes.extend(link.pod_mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(link_message(None, peer)))),
    ]));
    let request = RouteNetlinkMessage::NewLink(link_message(None, attributes));
    inside.execute(&request, NLM_F_CREATE | NLM_F_EXCL).doing(|| {
        format!(
            "create link {} with {} in the workload's namespace",
            link.host_name, link.pod_name
        )
    })
}

/// Tells which of the two names is taken.
fn why_not_made(socket: &mut Socket, link: &PodLink, refused: Option<Error>) -> Error {
    let Some(refused) = refused else {
        return Error::Invalid(format!("link {} was not made", link.host_name));
    };
    if refused.errno() != Some(Errno::EEXIST) {
        return refused;
    }
    match find_link(socket, &link.host_name) {
        Ok(Some(found)) => Error::LinkExists {
            name: found.name,
            ifindex: found.ifindex,
            alias: found.alias,
        },
        Ok(None) => Error::PodLinkExists {
            name: link.pod_name.clone(),
        },
        Err(error) => error,
    }
}

/// Takes a half-made link away. What fails here is of no use to the caller, who has the first error.
fn undo(socket: &mut Socket, link: &PodLink) {
    let removed =
        index_of(&link.host_name).and_then(|ifindex| delete_by_index(socket, ifindex, &link.host_name));
    if let Err(error) = removed {
        tracing::warn!(link = link.host_name, %error, "a half-made link stays");
    }
}

/// Index of a link in the calling thread's namespace.
fn index_of(name: &str) -> Result<IfIndex> {
    if_nametoindex(name)
        .map(IfIndex)
        .doing(|| format!("find link {name}"))
}
