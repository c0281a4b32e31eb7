//! A cluster small enough for its parts to meet often.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use buoy_api::ip::FloatingIp;
use buoy_api::meta::ObjectMeta;
use buoy_api::names::{EndpointName, Orchestrator};
use buoy_api::v3::{IpPool, IpPoolSpec};
use buoy_core::endpoint::{
    AddressRequest, Attachment, AttachmentId, EndpointId, IfName, Netns, Phase, Request,
};
use buoy_core::store::{Key, Value};
use buoy_core::view::{Gate, Routing, Settings};
use jiff::Timestamp;

/// Short, so that bindings are collected and made again.
pub(crate) const HOLD: Duration = Duration::from_secs(4);
/// Workloads that a node may have.
pub(crate) const WORKLOADS: usize = 2;

pub(crate) fn floating(index: usize) -> FloatingIp {
    FloatingIp::try_from(IpAddr::from([172, 16, 1, 1 + index as u8])).unwrap()
}

pub(crate) fn node_name(index: usize) -> String {
    format!("n{}", index + 1)
}

pub(crate) fn settings(node: &str, identity: &str) -> Settings {
    Settings {
        node: node.to_owned(),
        floating: Gate::On,
        hold: HOLD,
        version: "0.1.0".to_owned(),
        identity: identity.to_owned(),
        routing: Routing::Bird,
        yield_time: Duration::from_secs(3),
    }
}

pub(crate) fn pool() -> (Key, Value) {
    let spec = IpPoolSpec::new("172.16.1.0/24".parse().unwrap());
    let pool = IpPool::new(ObjectMeta::named("floating"), spec);
    (Key::Pool("floating".to_owned()), Value::Pool(pool))
}

/// What a workload asks for.
pub(crate) struct Wish {
    pub(crate) node: String,
    pub(crate) workload: usize,
    /// Number of this incarnation, and of its address.
    pub(crate) incarnation: u16,
    pub(crate) floating: Vec<FloatingIp>,
    pub(crate) priority: i32,
    pub(crate) exclusive: bool,
    pub(crate) since: Timestamp,
}

/// A running workload.
pub(crate) fn attachment(wish: Wish) -> Attachment {
    let workload = format!("web-{}", wish.workload);
    let name = EndpointName::new(&wish.node, Orchestrator::K8s, &workload, "eth0").unwrap();
    Attachment {
        id: AttachmentId {
            container: format!("c{}", wish.incarnation),
            ifname: "eth0".to_owned(),
        },
        endpoint: EndpointId {
            namespace: "shop".to_owned(),
            name: name.to_string(),
        },
        request: Request {
            network: "net".to_owned(),
            orchestrator: "k8s".to_owned(),
            workload,
            uid: format!("uid-{}", wish.incarnation),
            link: true,
            host_ifname: IfName("cali0".to_owned()),
            netns: Netns {
                path: "/run/netns/x".to_owned(),
                device: 4,
                inode: 100,
            },
            mac: None,
            mtu: None,
            queues: 1,
            forwarding: false,
            addresses: AddressRequest::Specific(Vec::new()),
            floating: wish.floating,
            gate: true,
            priority: wish.priority,
            exclusive: wish.exclusive,
            drain: Duration::ZERO,
            source_prefixes: Vec::new(),
            labels: BTreeMap::new(),
        },
        order: u64::from(wish.incarnation),
        since: wish.since,
        phase: Phase::Up,
        addresses: Some(vec![own_address(wish.incarnation).into()]),
    }
}

/// An address that nobody had before.
pub(crate) fn own_address(number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    IpAddr::from([10, 65, high, low])
}
