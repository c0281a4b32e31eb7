//! A workload's link, and the routes to its own addresses.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::desired::{BORROWED_METRIC, Hop, OWN_METRIC, PodLink, RouteKey, Row};
use crate::endpoint::{Attachment, EndpointId};
use crate::view::{Routing, View};

pub(super) fn rows(view: &View, id: &EndpointId) -> Vec<Row> {
    let Some(attachment) = view.attachment_of(id).filter(|a| a.is_wanted()) else {
        return Vec::new();
    };
    let name = attachment.request.host_ifname.clone();
    let routes = attachment.own_addresses().map(|address| {
        Row::Route(
            RouteKey::host(address, metric(view, address)),
            Hop::Link(name.clone()),
        )
    });
    std::iter::once(Row::Link(name.clone(), Box::new(link(view, attachment))))
        .chain(routes)
        .collect()
}

/// An address outside this node's blocks is found by its own route alone. Where somebody else announces routes, it is his
/// to know.
fn metric(view: &View, address: IpAddr) -> u32 {
    match view.settings.routing {
        Routing::Bird if view.own_block_of(address).is_none() => BORROWED_METRIC,
        Routing::Bird | Routing::Kernel => OWN_METRIC,
    }
}

fn link(view: &View, attachment: &Attachment) -> PodLink {
    let request = &attachment.request;
    let prefixes = match view.record_of(attachment) {
        Some(record) => &record.spec.allow_spoofed_source_prefixes,
        None => &request.source_prefixes,
    };
    PodLink {
        endpoint: attachment.endpoint.clone(),
        attachment: attachment.id.clone(),
        netns: request.netns.clone(),
        mac: request.mac,
        mtu: request.mtu,
        queues: request.queues,
        forwarding: request.forwarding,
        addresses: attachment.own_addresses().collect(),
        sources: attachment
            .own_addresses()
            .map(IpNet::from)
            // The packet filter refuses prefixes that overlap.
            .chain(IpNet::aggregate(&prefixes.iter().map(IpNet::trunc).collect()))
            .collect(),
        drain: request.drain,
    }
}
