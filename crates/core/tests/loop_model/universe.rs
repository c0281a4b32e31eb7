//! A world small enough for its parts to meet often: three pods with two containers each, a few floating IPs.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use buoy_api::binding::Term;
use buoy_api::ip::FloatingIp;
use buoy_api::names::{EndpointName, Orchestrator, floating_handle, pod_link};
use buoy_core::endpoint::{
    AddressRequest, Attachment, AttachmentId, EndpointId, IfName, Netns, Phase, Request, WireFamily,
};
use buoy_core::floating::lease::{Held, Own};
use buoy_core::store::Revision;
use buoy_core::subject::Subject;
use buoy_core::time::{Mono, Now};
use buoy_core::view::{Gate, Routing, Settings, View};
use ipnet::IpNet;
use jiff::Timestamp;

pub(crate) const NODE: &str = "n1";
pub(crate) const ELSEWHERE: &str = "n2";
pub(crate) const HOLD: Duration = Duration::from_secs(600);

/// Namespace and name. The first two compete.
pub(crate) const PODS: [(&str, &str); 3] = [("shop", "web-0"), ("shop", "web-1"), ("bank", "db-0")];
pub(crate) const CONTAINERS: usize = 2;

/// Two to be had, one that a block may give to somebody, one that a node may have, IPv6, one outside every pool.
pub(crate) const FLOATING: [&str; 6] = [
    "172.16.1.1",
    "172.16.1.2",
    "172.16.1.3",
    "10.0.0.7",
    "2001:db8::1",
    "192.0.2.1",
];

pub(crate) const SOURCES: [&[&str]; 6] = [
    &[],
    &["10.8.0.0/16"],
    &["10.8.0.0/16", "10.8.1.0/24", "10.8.3.1/32"],
    &["10.0.0.0/8"],
    &["2001:db8:f::/48", "10.9.0.0/16"],
    &["10.8.0.0/17", "10.8.128.0/17"],
];

pub(crate) fn floating(index: usize) -> FloatingIp {
    FLOATING[index % FLOATING.len()].parse().unwrap()
}

pub(crate) fn all_floating() -> impl Iterator<Item = FloatingIp> {
    (0..FLOATING.len()).map(floating)
}

pub(crate) fn subset(mask: u8) -> Vec<FloatingIp> {
    all_floating()
        .enumerate()
        .filter(|(index, _)| mask & (1 << index) != 0)
        .map(|(_, f)| f)
        .collect()
}

pub(crate) fn endpoint(pod: usize) -> EndpointId {
    let (namespace, name) = PODS[pod % PODS.len()];
    let record = EndpointName::new(NODE, Orchestrator::K8s, name, "eth0").unwrap();
    EndpointId {
        namespace: namespace.to_owned(),
        name: record.to_string(),
    }
}

pub(crate) fn attachment_id(pod: usize, container: usize) -> AttachmentId {
    AttachmentId {
        container: format!("p{pod}c{container}"),
        ifname: "eth0".to_owned(),
    }
}

pub(crate) fn link_name(pod: usize) -> IfName {
    let (namespace, name) = PODS[pod % PODS.len()];
    IfName(pod_link(namespace, name))
}

/// Two addresses that a container may have, of each family.
pub(crate) fn own_v4(pod: usize, container: usize, other: bool) -> IpAddr {
    IpAddr::from([
        10,
        65,
        0,
        10 + (pod * 4 + container * 2 + usize::from(other)) as u8,
    ])
}

pub(crate) fn own_v6(pod: usize, container: usize) -> IpAddr {
    format!("fd65::{:x}", 10 + pod * 4 + container).parse().unwrap()
}

pub(crate) fn prefixes(index: usize) -> Vec<IpNet> {
    SOURCES[index % SOURCES.len()]
        .iter()
        .map(|text| text.parse().unwrap())
        .collect()
}

pub(crate) fn time(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub(crate) fn all_subjects() -> Vec<Subject> {
    let attachments = (0..PODS.len()).flat_map(|pod| (0..CONTAINERS).map(move |c| attachment_id(pod, c)));
    std::iter::once(Subject::Node)
        .chain(attachments.map(Subject::Attachment))
        .chain((0..PODS.len()).map(|pod| Subject::Endpoint(endpoint(pod))))
        .chain(all_floating().map(Subject::Binding))
        .collect()
}

/// Both clocks at a wall-clock time.
pub(crate) fn both(wall: Timestamp) -> Now {
    let second = u64::try_from(wall.as_second()).unwrap();
    Now {
        wall,
        mono: Mono(Duration::from_secs(second)),
    }
}

/// A node that holds its lease for good: who owns what across nodes is another model's business.
pub(crate) fn view() -> View {
    let mut view = View::new(Settings {
        node: NODE.to_owned(),
        floating: Gate::Auto,
        hold: HOLD,
        version: "0.1.0".to_owned(),
        routing: Routing::Kernel,
        identity: "agent-of-n1".to_owned(),
        yield_time: Duration::from_secs(3),
    });
    view.set_own_lease(Own::Held(Held {
        term: Term(0),
        revision: Revision(1),
        began: Mono(Duration::from_secs(1 << 40)),
    }));
    view
}

/// A running container that asks for nothing.
pub(crate) fn attachment(pod: usize, container: usize) -> Attachment {
    let (_, name) = PODS[pod % PODS.len()];
    let id = attachment_id(pod, container);
    Attachment {
        endpoint: endpoint(pod),
        request: Request {
            network: "net".to_owned(),
            orchestrator: "k8s".to_owned(),
            workload: name.to_owned(),
            uid: uid(pod, container),
            link: true,
            host_ifname: link_name(pod),
            netns: Netns {
                path: format!("/run/netns/{}", id.container),
                device: 4,
                inode: 100,
            },
            mac: None,
            mtu: None,
            queues: 1,
            forwarding: false,
            addresses: AddressRequest::Automatic {
                families: vec![WireFamily::V4, WireFamily::V6],
                ipv4_pools: Vec::new(),
                ipv6_pools: Vec::new(),
            },
            floating: Vec::new(),
            gate: true,
            priority: 0,
            exclusive: false,
            drain: Duration::ZERO,
            source_prefixes: Vec::new(),
            labels: BTreeMap::new(),
        },
        id,
        order: container as u64,
        since: time(container as i64),
        phase: Phase::Up,
        addresses: Some(vec![
            own_v4(pod, container, false).into(),
            own_v6(pod, container).into(),
        ]),
    }
}

pub(crate) fn uid(pod: usize, container: usize) -> String {
    format!("uid-{pod}-{container}")
}

pub(crate) fn handle_of(floating: FloatingIp) -> String {
    floating_handle(floating.addr())
}
