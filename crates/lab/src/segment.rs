//! The network of a cluster: a segment with its nodes, a router that leads out of it, and a client beyond the router.

use std::net::IpAddr;

use anyhow::Result;

use crate::lab::{connect, give_addresses};
use crate::netns::Netns;
use crate::router::{NODE_AS, Router};
use crate::run::Run;

/// Addresses of the nodes, in order of their names: `n1`, `n2`, `n3`.
pub const NODES: [[&str; 2]; 3] = [
    ["192.0.2.1", "2001:db8::1"],
    ["192.0.2.2", "2001:db8::2"],
    ["192.0.2.3", "2001:db8::3"],
];
/// Addresses of the router on the nodes' segment.
pub const ROUTER: [&str; 2] = ["192.0.2.254", "2001:db8::fe"];
/// Addresses of the router on the client's segment.
const OUTSIDE: [&str; 2] = ["198.51.100.1", "2001:db8:1::1"];
/// Addresses of the client.
pub const CLIENT: [&str; 2] = ["198.51.100.10", "2001:db8:1::10"];

/// What is around the nodes.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) router: Router,
    pub(crate) client: Netns,
    pub(crate) switch: Netns,
}

impl Segment {
    /// Connects nodes (`port0` and so on), the router (the next port) and other hosts. The nodes' and the client's default
    /// routes lead to the router, which has no BIRD yet.
    pub(crate) fn make(run: &Run, nodes: &[&Netns], others: &[(&Netns, [&str; 2])]) -> Result<Self> {
        let router = Router::make(run, "router", [ROUTER[0].parse()?, ROUTER[1].parse()?])?;
        let (client, switch) = (Netns::make(run, "client")?, Netns::make(run, "switch")?);
        let members = nodes.iter().copied().zip(NODES);
        let members: Vec<_> = members.chain([(router.netns(), ROUTER)]).collect();
        connect(&switch, &[&members[..], others].concat())?;
        router.netns().link("eth1", &client, "eth0")?;
        give_addresses(router.netns(), "eth1", OUTSIDE)?;
        give_addresses(&client, "eth0", CLIENT)?;
        default_route(&client, OUTSIDE)?;
        for node in nodes {
            default_route(node, ROUTER)?;
        }
        for netns in [&client, router.netns()] {
            netns.wait_for_addresses()?;
        }
        Ok(Self {
            router,
            client,
            switch,
        })
    }
}

/// The router's neighbours: every node, in both families.
pub(crate) fn peers() -> Vec<(String, IpAddr, u32)> {
    let named = NODES.iter().enumerate().flat_map(|(index, addresses)| {
        let families = ["v4", "v6"].into_iter().zip(addresses);
        families.map(move |(family, address)| (format!("n{}_{family}", index + 1), *address))
    });
    named
        .filter_map(|(name, address)| Some((name, address.parse().ok()?, NODE_AS)))
        .collect()
}

fn default_route(netns: &Netns, [v4, v6]: [&str; 2]) -> Result<()> {
    netns.ip(&format!("route add default via {v4}\nroute add default via {v6}"))
}
