//! What can happen to what a node knows, at random.

use std::collections::BTreeMap;
use std::time::Duration;

use buoy_api::annotations::POOL_FLOATING_IPS;
use buoy_api::binding::{
    Binding, BindingSpec, Candidate, Epoch, EpochFloor, EpochFloorSpec, Move, Owner, Target, Term,
};
use buoy_api::ipam::{Attribute, Block};
use buoy_api::meta::{Extra, ObjectMeta};
use buoy_api::names::binding_name;
use buoy_api::v3::{
    AllowedUse, ClusterInformation, ClusterInformationSpec, FelixConfiguration, FelixConfigurationSpec,
    IpNat, IpPool, IpPoolSpec, Node, NodeBgp, NodeSpec, Profile, ProfileSpec, WorkloadEndpoint,
    WorkloadEndpointSpec,
};
use buoy_core::endpoint::{Attachment, AttachmentId, Phase};
use buoy_core::store::{Bad, Delta, Key, Revision, Value};
use buoy_core::subject::Subject;
use buoy_core::time::Mono;
use buoy_core::view::View;
use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::select;

use crate::universe::{
    CONTAINERS, ELSEWHERE, FLOATING, NODE, PODS, SOURCES, attachment, attachment_id, endpoint, floating,
    handle_of, own_v4, own_v6, prefixes, subset, time, uid,
};

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    Record(Key, Option<Result<Box<Value>, Bad>>),
    Attach(Box<Attachment>),
    Detach(AttachmentId),
}

/// What an input is about: inputs about one thing keep their order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum About {
    Record(Key),
    Attachment(AttachmentId),
}

impl Input {
    pub(crate) fn about(&self) -> About {
        match self {
            Self::Record(key, _) => About::Record(key.clone()),
            Self::Attach(attachment) => About::Attachment(attachment.id.clone()),
            Self::Detach(id) => About::Attachment(id.clone()),
        }
    }

    pub(crate) fn feed(&self, view: &mut View, revision: u64) -> std::collections::BTreeSet<Subject> {
        match self {
            Self::Record(key, value) => view.apply(
                Delta {
                    key: key.clone(),
                    revision: Revision(revision),
                    value: value.clone().map(|value| value.map(|value| *value)),
                },
                Mono::default(),
            ),
            Self::Attach(attachment) => view.put_attachment((**attachment).clone()),
            Self::Detach(id) => view.remove_attachment(id),
        }
    }
}

/// Anything.
pub(crate) fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        6 => attach(),
        2 => (pod(), container()).prop_map(|(p, c)| Input::Detach(attachment_id(p, c))),
        4 => workload_endpoint(),
        6 => binding(),
        2 => pool(),
        2 => block(),
        1 => node(),
        1 => profile(),
        1 => felix(),
        1 => floor(),
        1 => cluster(),
        2 => unreadable(),
    ]
}

pub(crate) fn pod() -> std::ops::Range<usize> {
    0..PODS.len()
}

pub(crate) fn container() -> std::ops::Range<usize> {
    0..CONTAINERS
}

fn put(key: Key, value: Value) -> Input {
    Input::Record(key, Some(Ok(Box::new(value))))
}

/// A record, or its deletion.
fn put_or_delete(key: Key, value: Option<Value>) -> Input {
    Input::Record(key, value.map(|value| Ok(Box::new(value))))
}

pub(crate) fn attach() -> impl Strategy<Value = Input> {
    let phase = prop_oneof![
        1 => Just(Phase::Adding),
        1 => Just(Phase::Linked),
        6 => Just(Phase::Up),
        1 => Just(Phase::Removing),
        1 => Just(Phase::Down)
    ];
    let drain = select(&[0, 0, 250, 700][..]);
    let asks = (any::<u8>(), any::<bool>(), -1..2i32, 0..SOURCES.len(), drain);
    let addresses = prop_oneof![1 => Just(None), 5 => (any::<bool>(), any::<bool>()).prop_map(Some)];
    (pod(), container(), 0..4u64, phase, asks, addresses).prop_map(|(p, c, order, phase, asks, addresses)| {
        let (mask, gate, priority, sources, drain) = asks;
        let mut made = attachment(p, c);
        made.order = order;
        made.phase = phase;
        made.request.floating = subset(mask);
        made.request.gate = gate;
        made.request.priority = priority;
        made.request.drain = Duration::from_millis(drain);
        made.request.source_prefixes = prefixes(sources);
        made.addresses = addresses.map(|(other, dual)| {
            let v4 = IpNet::from(own_v4(p, c, other));
            let v6 = dual.then(|| IpNet::from(own_v6(p, c)));
            std::iter::once(v4).chain(v6).collect()
        });
        Input::Attach(Box::new(made))
    })
}

/// Two pods run, and one has a floating IP; then the other has it. What the first asked for, in milliseconds, is how long
/// its flows go on.
pub(crate) fn hand_over(index: usize, back: bool, drain: u64, epoch: u64) -> [Vec<Input>; 2] {
    let (from, to) = if back { (1, 0) } else { (0, 1) };
    let runs = |pod, drain| {
        let mut made = attachment(pod, 1);
        made.order = 3;
        made.request.drain = Duration::from_millis(drain);
        Input::Attach(Box::new(made))
    };
    let owns = |pod: usize, epoch| {
        let address = floating(index).addr();
        let spec = BindingSpec {
            address,
            namespace: PODS[pod].0.to_owned(),
            owner: Some(owner_of(pod, 1, 4, address.is_ipv4())),
            epoch: Epoch(epoch),
            ..BindingSpec::default()
        };
        let name = binding_name(address);
        let binding = Binding::new(ObjectMeta::named(&name), spec);
        put(Key::Binding(name), Value::Binding(binding))
    };
    let before = vec![runs(from, drain), runs(to, drain), owns(from, epoch)];
    [before, vec![owns(to, epoch + 1)]]
}

/// A live edit, a record of the container before, one of another node, or none.
fn workload_endpoint() -> impl Strategy<Value = Input> {
    let asks = proptest::collection::vec((0..FLOATING.len(), 0..4usize), 0..3);
    let node = prop_oneof![8 => Just(NODE), 1 => Just(ELSEWHERE)];
    (pod(), container(), node, asks, 0..SOURCES.len(), 0..8u8).prop_map(
        |(p, c, node, asks, sources, rare)| {
            let id = endpoint(p);
            let key = Key::Endpoint {
                namespace: id.namespace.clone(),
                name: id.name.clone(),
            };
            if rare == 0 {
                return put_or_delete(key, None);
            }
            let spec = WorkloadEndpointSpec {
                node: node.to_owned(),
                container_id: attachment_id(p, c).container,
                ip_nats: asks
                    .into_iter()
                    .map(|(f, internal)| ip_nat(p, c, f, internal))
                    .collect(),
                allow_spoofed_source_prefixes: prefixes(sources),
                ..WorkloadEndpointSpec::default()
            };
            let metadata = ObjectMeta::namespaced(&id.namespace, &id.name);
            put(key, Value::Endpoint(WorkloadEndpoint::new(metadata, spec)))
        },
    )
}

fn ip_nat(pod: usize, container: usize, index: usize, internal: usize) -> IpNat {
    let external = floating(index).addr();
    match internal {
        0 => IpNat::new(own_v4(pod, container, false), external),
        1 => IpNat::new(own_v6(pod, container), external),
        2 => IpNat {
            internal_ip: "nonsense".into(),
            external_ip: external.to_string(),
        },
        _ => IpNat {
            internal_ip: String::new(),
            external_ip: "224.0.0.1".into(),
        },
    }
}

fn binding() -> impl Strategy<Value = Input> {
    let owner = prop_oneof![
        1 => Just(None),
        5 => (pod(), container(), 0..5u8).prop_map(|(p, c, how)| Some((p, c, how))),
    ];
    let drain = select(&[None, None, Some("0s"), Some("300ms"), Some("soon")][..]);
    let moved = prop_oneof![Just(None), drain.prop_map(Some)];
    let rest = (1..6u64, moved, any::<bool>(), 0..8u8);
    (0..FLOATING.len(), owner, select(&["shop", "bank"][..]), rest).prop_map(
        |(index, owner, namespace, (epoch, moved, published, rare))| {
            let address = floating(index).addr();
            let name = binding_name(address);
            if rare == 0 {
                return put_or_delete(Key::Binding(name), None);
            }
            let to = Target {
                node: None,
                workload: PODS[0].1.to_owned(),
                endpoint: None,
            };
            let mut binding = Binding::new(
                ObjectMeta::named(&name),
                BindingSpec {
                    address,
                    // Most owners are of the namespace, so that they count.
                    namespace: owner.map_or(namespace, |(p, ..)| PODS[p].0).to_owned(),
                    owner: owner.map(|(p, c, how)| owner_of(p, c, how, address.is_ipv4())),
                    released: owner.is_none().then(|| time(1000)),
                    epoch: Epoch(epoch),
                    requested_move: moved.map(|drain| Move {
                        id: "1".to_owned(),
                        to,
                        exclusive: false,
                        drain: drain.map(str::to_owned),
                    }),
                    ..BindingSpec::default()
                },
            );
            if published {
                binding.status.candidates = vec![somebody(address.is_ipv4())];
            }
            put(Key::Binding(name), Value::Binding(binding))
        },
    )
}

fn owner_of(pod: usize, container: usize, how: u8, v4: bool) -> Owner {
    let internal = |other| {
        if v4 {
            own_v4(pod, container, other)
        } else {
            own_v6(pod, container)
        }
    };
    Owner {
        node: if how == 0 { ELSEWHERE } else { NODE }.to_owned(),
        workload: PODS[pod].1.to_owned(),
        endpoint: "eth0".to_owned(),
        internal_ip: internal(how == 1),
        uid: if how == 2 {
            "gone".to_owned()
        } else {
            uid(pod, container)
        },
        term: Term(0),
    }
}

fn somebody(v4: bool) -> Candidate {
    Candidate {
        node: NODE.to_owned(),
        workload: PODS[0].1.to_owned(),
        endpoint: "eth0".to_owned(),
        uid: uid(0, 0),
        internal_ip: if v4 { own_v4(0, 0, false) } else { own_v6(0, 0) },
        ready: true,
        priority: 0,
        since: time(0),
    }
}

fn pool() -> impl Strategy<Value = Input> {
    let pools = select(
        &[
            ("floating", "172.16.1.0/24"),
            ("six", "2001:db8::/64"),
            ("nodes", "10.0.0.0/24"),
        ][..],
    );
    let selectors: &'static [Option<&'static str>] = &[
        None,
        Some(""),
        Some("projectcalico.org/name == 'shop'"),
        Some("tier == 'gold'"),
        Some("(("),
    ];
    let says = select(&[None, None, None, Some("Deny"), Some("Only"), Some("gibberish")][..]);
    (pools, select(selectors), says, any::<bool>(), 0..8u8).prop_map(
        |(pool, selector, says, tunnel, rare)| {
            let key = Key::Pool(pool.0.to_owned());
            if rare == 0 {
                return put_or_delete(key, None);
            }
            let mut made = IpPool::new(
                ObjectMeta::named(pool.0),
                IpPoolSpec::new(pool.1.parse().unwrap()),
            );
            made.spec.namespace_selector = selector.map(str::to_owned);
            made.spec.allowed_uses = if tunnel && rare < 3 {
                vec![AllowedUse::Tunnel]
            } else {
                Vec::new()
            };
            let says = says.map(|text| (POOL_FLOATING_IPS.to_owned(), text.to_owned()));
            made.metadata.annotations = says.into_iter().collect();
            put(key, Value::Pool(made))
        },
    )
}

/// A block in which each floating IP of it is free, reserved, or somebody's own.
fn block() -> impl Strategy<Value = Input> {
    (proptest::collection::vec(0..3u8, 4), 1..5u64, 0..8u8).prop_map(|(given, sequence, rare)| {
        let cidr: IpNet = "172.16.1.0/30".parse().unwrap();
        put_or_delete(
            Key::Block(cidr),
            (rare > 0).then(|| Value::Block(block_with(cidr, &given, sequence))),
        )
    })
}

fn block_with(cidr: IpNet, given: &[u8], sequence: u64) -> Block {
    let mut block = Block {
        cidr,
        affinity: None,
        affinity_claim_time: None,
        allocations: vec![None; given.len()],
        unallocated: Vec::new(),
        attributes: Vec::new(),
        sequence_number: sequence,
        sequence_number_for_allocation: BTreeMap::new(),
        deleted: false,
        extra: Extra::new(),
    };
    for (ordinal, how) in given.iter().enumerate() {
        let handle = match how {
            0 => continue,
            1 => handle_of(floating(ordinal + FLOATING.len() - 1)),
            _ => "net.somebody".to_owned(),
        };
        block.allocations[ordinal] = Some(block.attributes.len());
        block.attributes.push(Attribute {
            handle: Some(handle),
            ..Attribute::default()
        });
        block.sequence_number_for_allocation.insert(ordinal, sequence);
    }
    block
}

fn node() -> impl Strategy<Value = Input> {
    let addresses = select(
        &[
            None,
            Some("10.0.0.7/24"),
            Some("172.16.1.2/24"),
            Some("10.0.0.9/24"),
        ][..],
    );
    (select(&[NODE, ELSEWHERE][..]), addresses, 0..6u8).prop_map(|(name, address, rare)| {
        let bgp = address.map(|text| NodeBgp {
            ipv4_address: Some(text.parse().unwrap()),
            ..NodeBgp::default()
        });
        let made = Node::new(
            ObjectMeta::named(name),
            NodeSpec {
                bgp,
                ..NodeSpec::default()
            },
        );
        put_or_delete(
            Key::Node(name.to_owned()),
            (rare > 0).then_some(Value::Node(made)),
        )
    })
}

fn profile() -> impl Strategy<Value = Input> {
    select(&["gold", "silver"][..]).prop_map(|tier| {
        let labels_to_apply = BTreeMap::from([("tier".to_owned(), tier.to_owned())]);
        let spec = ProfileSpec {
            labels_to_apply,
            ..ProfileSpec::default()
        };
        put(
            Key::Profile("kns.shop".to_owned()),
            Value::Profile(Profile::new(ObjectMeta::named("kns.shop"), spec)),
        )
    })
}

fn felix() -> impl Strategy<Value = Input> {
    select(&[None, Some("Enabled"), Some("Disabled")][..]).prop_map(|says| {
        let spec = FelixConfigurationSpec {
            floating_ips: says.map(str::to_owned),
            ..Default::default()
        };
        let made = FelixConfiguration::new(ObjectMeta::named("default"), spec);
        put(Key::Felix("default".to_owned()), Value::Felix(made))
    })
}

fn floor() -> impl Strategy<Value = Input> {
    (1..9u64).prop_map(|epoch| {
        let spec = EpochFloorSpec {
            epoch: Epoch(epoch),
            ..EpochFloorSpec::default()
        };
        put(
            Key::EpochFloor,
            Value::EpochFloor(EpochFloor::new(ObjectMeta::named("default"), spec)),
        )
    })
}

fn cluster() -> impl Strategy<Value = Input> {
    any::<bool>().prop_map(|there| {
        let spec = ClusterInformationSpec::default();
        let made = Value::ClusterInformation(ClusterInformation::new(ObjectMeta::named("default"), spec));
        put_or_delete(
            Key::ClusterInformation("default".to_owned()),
            there.then_some(made),
        )
    })
}

/// A record that stops decoding.
fn unreadable() -> impl Strategy<Value = Input> {
    let bindings = (0..FLOATING.len()).prop_map(|index| Key::Binding(binding_name(floating(index).addr())));
    let endpoints = pod().prop_map(|p| {
        let id = endpoint(p);
        Key::Endpoint {
            namespace: id.namespace,
            name: id.name,
        }
    });
    let others = select(vec![
        Key::Pool("floating".to_owned()),
        Key::Block("172.16.1.0/30".parse().unwrap()),
        Key::Node(NODE.to_owned()),
        Key::Profile("kns.shop".to_owned()),
        Key::Felix("default".to_owned()),
        Key::EpochFloor,
    ]);
    prop_oneof![2 => bindings, 1 => endpoints, 1 => others].prop_map(|key| {
        Input::Record(
            key,
            Some(Err(Bad {
                reason: "garbage".to_owned(),
            })),
        )
    })
}
