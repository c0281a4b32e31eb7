//! Workloads' links.

use std::thread;

use buoy_core::desired::PodLink;
use buoy_core::endpoint::{IfIndex, IfName};
use buoy_core::op::Effect;
use buoy_kernel::link::{self, Expected};
use buoy_kernel::netlink::{OwnPorts, Protocol, Socket};
use buoy_kernel::{Error, Mac};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Namespaces;
use crate::inputs::OpError;

/// Links made at the same time.
const AT_ONCE: usize = 4;

/// A link to make.
pub(super) type Order = (IfName, PodLink);

/// Makes links, some at a time; results are in the order of the links.
pub(super) fn create_all(
    sockets: &mut Vec<Socket>,
    own: &OwnPorts,
    namespaces: &Namespaces,
    links: &[Order],
) -> Vec<Result<Effect, OpError>> {
    let lanes = links.len().clamp(1, AT_ONCE);
    while sockets.len() < lanes {
        match Socket::open(Protocol::Route) {
            Ok(socket) => {
                own.add(socket.port());
                sockets.push(socket);
            }
            Err(error) => return links.iter().map(|_| Err(OpError::from(&error))).collect(),
        }
    }
    if let ([link], [socket, ..]) = (links, sockets.as_mut_slice()) {
        return vec![create(socket, namespaces, link)];
    }
    let share = links.len().div_ceil(lanes);
    thread::scope(|scope| {
        let lanes: Vec<_> = links
            .chunks(share)
            .zip(sockets.iter_mut())
            .map(|(links, socket)| {
                let lane = scope.spawn(move || {
                    links
                        .iter()
                        .map(|l| create(socket, namespaces, l))
                        .collect::<Vec<_>>()
                });
                (links.len(), lane)
            })
            .collect();
        lanes
            .into_iter()
            .flat_map(|(count, lane)| lane.join().unwrap_or_else(|_| vec![Err(panicked()); count]))
            .collect()
    })
}

fn create(socket: &mut Socket, namespaces: &Namespaces, (name, pod): &Order) -> Result<Effect, OpError> {
    let netns = namespaces.open(&pod.netns)?;
    let made = link::create_pod_link(socket, &netns, &spec(name, pod))?;
    Ok(Effect::Link(IfIndex(made.host_ifindex.0)))
}

fn spec(name: &IfName, pod: &PodLink) -> link::PodLink {
    let everywhere = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
    link::PodLink {
        host_name: name.0.clone(),
        pod_name: pod.attachment.ifname.clone(),
        alias: pod.attachment.alias(),
        mtu: pod.mtu,
        queues: pod.queues,
        pod_mac: pod.mac.map(Mac),
        addresses: pod.addresses.clone(),
        routes: everywhere.to_vec(),
        forwarding: pod.forwarding,
    }
}

/// Sets a link up again.
pub(super) fn raise(
    socket: &mut Socket,
    name: &IfName,
    index: IfIndex,
    gateway_v6: bool,
) -> Result<Effect, OpError> {
    link::raise_pod_link(socket, &name.0, buoy_kernel::IfIndex(index.0), gateway_v6)?;
    Ok(Effect::Done)
}

/// Deletes a link if it still is the one meant.
pub(super) fn delete(socket: &mut Socket, name: &IfName, index: IfIndex) -> Result<(), OpError> {
    let expected = Expected {
        ifindex: Some(buoy_kernel::IfIndex(index.0)),
        alias: None,
    };
    match link::delete_link(socket, &name.0, expected) {
        Ok(_) | Err(Error::LinkDiffers { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn panicked() -> OpError {
    OpError {
        message: "a thread that makes links panicked".to_owned(),
        namespace_gone: false,
    }
}
