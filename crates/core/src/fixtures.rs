//! What unit tests begin with: one pod on node `n1`, a pool for its floating IPs, and how to tell a view of more.

use std::collections::BTreeMap;
use std::time::Duration;

use buoy_api::binding::{Binding, BindingSpec, Candidate, Epoch, Term};
use buoy_api::ip::FloatingIp;
use buoy_api::ipam::{Attribute, Block};
use buoy_api::meta::{Extra, ObjectMeta};
use buoy_api::names::binding_name;
use buoy_api::v3::{
    IpNat, IpPool, IpPoolSpec, Node, NodeBgp, NodeSpec, WorkloadEndpoint, WorkloadEndpointSpec,
};
use ipnet::IpNet;
use jiff::Timestamp;

use crate::endpoint::{AddressRequest, Attachment, AttachmentId, EndpointId, IfName, Netns, Phase, Request};
use crate::floating::lease::{Held, Own};
use crate::records;
use crate::store::{Bad, Delta, Key, Revision, Value};
use crate::time::{Mono, Now};
use crate::view::{Gate, Routing, Settings, View};

/// The floating IP of most tests.
pub(crate) const FLOATING: &str = "172.16.1.3";

pub(crate) fn floating(text: &str) -> FloatingIp {
    text.parse().unwrap()
}

pub(crate) fn time(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// Both clocks at a second.
pub(crate) fn now(second: u64) -> Now {
    Now {
        wall: Timestamp::from_second(i64::try_from(second).unwrap()).unwrap(),
        mono: Mono(Duration::from_secs(second)),
    }
}

/// A view of node `n1` that knows nothing and holds its lease.
pub(crate) fn empty_view() -> View {
    let hold = Duration::from_secs(600);
    let mut view = View::new(Settings {
        node: "n1".to_owned(),
        floating: Gate::Auto,
        hold,
        version: "0.1.0".to_owned(),
        routing: Routing::Kernel,
        identity: "agent-of-n1".to_owned(),
        yield_time: Duration::from_secs(3),
    });
    // A lease that nobody can revoke: what is asked is something else.
    view.set_own_lease(Own::Held(Held {
        term: Term(0),
        revision: Revision(1),
        began: Mono(Duration::from_secs(1 << 40)),
    }));
    view
}

/// A view with a pool `floating` and the pod `shop/web-0`, which asks for [`FLOATING`].
pub(crate) fn view() -> View {
    let mut view = empty_view();
    put(&mut view, Value::Pool(pool("172.16.1.0/24")));
    view.put_attachment(pod("web-0", 7));
    view
}

/// A running pod of namespace `shop` with the address `10.65.0.<host>`.
pub(crate) fn pod(name: &str, host: u8) -> Attachment {
    Attachment {
        id: AttachmentId {
            container: format!("c-{name}"),
            ifname: "eth0".to_owned(),
        },
        endpoint: endpoint(name),
        request: Request {
            network: "net".to_owned(),
            orchestrator: "k8s".to_owned(),
            workload: name.to_owned(),
            uid: format!("uid-{name}"),
            link: true,
            host_ifname: IfName(format!("cali-{name}")),
            netns: Netns {
                path: format!("/run/netns/{name}"),
                device: 4,
                inode: u64::from(host),
            },
            mac: None,
            mtu: None,
            queues: 1,
            forwarding: false,
            addresses: AddressRequest::Specific(Vec::new()),
            floating: vec![floating(FLOATING)],
            gate: true,
            priority: 0,
            exclusive: false,
            drain: Duration::ZERO,
            source_prefixes: Vec::new(),
            labels: BTreeMap::new(),
        },
        order: 1,
        since: time(i64::from(host)),
        phase: Phase::Up,
        addresses: Some(vec![format!("10.65.0.{host}/26").parse().unwrap()]),
    }
}

pub(crate) fn endpoint(name: &str) -> EndpointId {
    let name = format!("n1-k8s-{}-eth0", name.replace('-', "--"));
    EndpointId {
        namespace: "shop".to_owned(),
        name,
    }
}

pub(crate) fn pool(cidr: &str) -> IpPool {
    IpPool::new(
        ObjectMeta::named("floating"),
        IpPoolSpec::new(cidr.parse().unwrap()),
    )
}

pub(crate) fn node(name: &str, address: &str) -> Node {
    let bgp = NodeBgp {
        ipv4_address: Some(address.parse().unwrap()),
        ..NodeBgp::default()
    };
    Node::new(
        ObjectMeta::named(name),
        NodeSpec {
            bgp: Some(bgp),
            ..NodeSpec::default()
        },
    )
}

/// The record of a pod, with these requests for floating IPs.
pub(crate) fn record(attachment: &Attachment, nats: &[(&str, &str)]) -> WorkloadEndpoint {
    let nats = nats.iter().map(|(internal, external)| IpNat {
        internal_ip: (*internal).to_owned(),
        external_ip: (*external).to_owned(),
    });
    let spec = WorkloadEndpointSpec {
        node: "n1".to_owned(),
        container_id: attachment.id.container.clone(),
        ip_nats: nats.collect(),
        ..WorkloadEndpointSpec::default()
    };
    WorkloadEndpoint::new(
        ObjectMeta::namespaced(&attachment.endpoint.namespace, &attachment.endpoint.name),
        spec,
    )
}

/// A block in which one address is held by a handle.
pub(crate) fn block(cidr: &str, ordinal: usize, handle: Option<&str>, says: &[(&str, &str)]) -> Block {
    let cidr: IpNet = cidr.parse().unwrap();
    let mut allocations = vec![None; 1 << (cidr.max_prefix_len() - cidr.prefix_len())];
    allocations[ordinal] = Some(0);
    let secondary = says
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let holder = Attribute {
        handle: handle.map(str::to_owned),
        secondary,
        ..Attribute::default()
    };
    Block {
        cidr,
        affinity: None,
        affinity_claim_time: None,
        allocations,
        unallocated: Vec::new(),
        attributes: vec![holder],
        sequence_number: 5,
        sequence_number_for_allocation: BTreeMap::from([(ordinal, 4)]),
        deleted: false,
        extra: Extra::new(),
    }
}

/// The binding of [`FLOATING`] in namespace `shop`, released at second 1000 if it has no owner.
pub(crate) fn binding(owner: Option<&Candidate>) -> Binding {
    let address = floating(FLOATING).addr();
    let spec = BindingSpec {
        address,
        namespace: "shop".to_owned(),
        owner: owner.map(|candidate| candidate.as_owner(Term(0))),
        released: owner.is_none().then(|| time(1000)),
        epoch: Epoch(7),
        ..BindingSpec::default()
    };
    Binding::new(ObjectMeta::named(binding_name(address)), spec)
}

/// The candidate of this node.
pub(crate) fn mine() -> Candidate {
    candidate(&pod("web-0", 7))
}

/// A candidate of another node.
pub(crate) fn theirs_on(node: &str) -> Candidate {
    Candidate {
        node: node.to_owned(),
        ..candidate(&pod("db-0", 9))
    }
}

/// A candidate of the node `n2`.
pub(crate) fn theirs() -> Candidate {
    theirs_on("n2")
}

/// The candidate that a pod is.
pub(crate) fn candidate(attachment: &Attachment) -> Candidate {
    Candidate {
        node: "n1".to_owned(),
        workload: attachment.request.workload.clone(),
        endpoint: attachment.id.ifname.clone(),
        uid: attachment.request.uid.clone(),
        internal_ip: attachment.own_addresses().next().unwrap(),
        ready: true,
        priority: attachment.request.priority,
        since: attachment.since,
    }
}

/// Tells a view of a record under its own key.
pub(crate) fn put(view: &mut View, value: Value) -> std::collections::BTreeSet<crate::subject::Subject> {
    let key = key_of(&value);
    view.apply(
        Delta {
            key,
            revision: Revision(3),
            value: Some(Ok(value)),
        },
        Mono::default(),
    )
}

/// Tells a view that a record does not decode any more.
pub(crate) fn spoil(view: &mut View, key: Key) {
    let bad = Bad {
        reason: "line 3: not a number".to_owned(),
    };
    view.apply(
        Delta {
            key,
            revision: Revision(4),
            value: Some(Err(bad)),
        },
        Mono::default(),
    );
}

pub(crate) fn endpoint_key(attachment: &Attachment) -> Key {
    records::endpoint_key(attachment)
}

pub(crate) fn key_of(value: &Value) -> Key {
    match value {
        Value::Pool(pool) => Key::Pool(pool.name().to_owned()),
        Value::Node(node) => Key::Node(node.name().to_owned()),
        Value::Felix(felix) => Key::Felix(felix.name().to_owned()),
        Value::Profile(profile) => Key::Profile(profile.name().to_owned()),
        Value::ClusterInformation(cluster) => Key::ClusterInformation(cluster.name().to_owned()),
        Value::BgpPeer(peer) => Key::BgpPeer(peer.name().to_owned()),
        Value::Block(block) => Key::Block(block.cidr),
        Value::Binding(binding) => Key::Binding(binding.name().to_owned()),
        Value::EpochFloor(_) => Key::EpochFloor,
        Value::Lease(lease) => Key::Lease(lease.name().to_owned()),
        Value::Endpoint(record) => Key::Endpoint {
            namespace: record.metadata.namespace.clone().unwrap_or_default(),
            name: record.name().to_owned(),
        },
        other => panic!("no key for {other:?}"),
    }
}
