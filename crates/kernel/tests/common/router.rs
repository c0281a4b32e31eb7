//! A node between a client and workloads, with the ruleset loaded.

use buoy_kernel::{
    IfIndex,
    link::CreatedLink,
    netlink::{OwnPorts, Protocol, Socket},
    nft::{self, Element, Nft, Transaction},
    route::{self, MAIN_TABLE, Route, Target},
};

use super::{TestNs, create, eventually, ip, join, pod_link};

/// Addresses of the client and of the node's side towards it.
pub const CLIENT: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
pub const NODE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
/// The floating IPs.
pub const FLOATING: [&str; 2] = ["172.16.1.3", "2001:db8:1::3"];

/// Client, node, and the netlink connections of the node.
pub struct Router {
    pub client: TestNs,
    pub node: TestNs,
    pub nft: Nft,
    pub routes: Socket,
    pub own: OwnPorts,
    next_metric: u32,
}

/// A workload at the node.
pub struct Workload {
    pub ns: TestNs,
    pub link: CreatedLink,
    /// Its own addresses, IPv4 and IPv6.
    pub addresses: [String; 2],
}

impl Router {
    /// A node that forwards, with strict reverse path checks, and a client that routes everything through it.
    pub fn new() -> Self {
        let (client, node) = (TestNs::new(), TestNs::new());
        join(&client, "eth0", &node, "up0");
        for (ns, link, addresses) in [(&client, "eth0", CLIENT), (&node, "up0", NODE)] {
            ns.address(&format!("{}/24", addresses[0]), link);
            ns.address(&format!("{}/64", addresses[1]), link);
        }
        client.ip(&format!("route add default via {}", NODE[0]));
        client.ip(&format!("-6 route add default via {}", NODE[1]));
        for key in [
            "ipv4.ip_forward",
            "ipv4.conf.all.rp_filter",
            "ipv6.conf.all.forwarding",
        ] {
            node.cmd(&format!("sysctl -q -w net.{key}=1"));
        }
        let own = OwnPorts::default();
        let mut nft = node.run(Nft::open).expect("open nftables");
        own.add(nft.port());
        node.run(|| nft::load(&mut nft, &own)).expect("load the ruleset");
        let routes = node.socket(Protocol::Route);
        own.add(routes.port());
        Self {
            client,
            node,
            nft,
            routes,
            own,
            next_metric: 999_999_999,
        }
    }

    /// A workload with the addresses `10.65.0.<number>` and `fd00:65::<number>`.
    pub fn workload(&mut self, number: u8) -> Workload {
        let ns = TestNs::new();
        let addresses = [format!("10.65.0.{number}"), format!("fd00:65::{number}")];
        let spec = pod_link(
            &format!("cali{number}"),
            &[addresses[0].as_str(), addresses[1].as_str()],
        );
        let link = create(&self.node, &ns, &spec).expect("create a workload's link");
        let sources = addresses
            .iter()
            .map(|text| Element::Source(link.host_ifindex, ip(text)));
        self.add([Element::Link(link.host_ifindex)].into_iter().chain(sources));
        for address in &addresses {
            let metric = if address.contains(':') {
                route::DEFAULT_METRIC_V6
            } else {
                0
            };
            self.route(address, metric, link.host_ifindex);
        }
        Workload { ns, link, addresses }
    }

    /// Floating IPs of both families for a workload: translation and route.
    pub fn float(&mut self, workload: &Workload) {
        self.add(nats(workload));
        self.next_metric -= 1;
        for floating in FLOATING {
            self.route(floating, self.next_metric, workload.link.host_ifindex);
        }
    }

    /// Moves the floating IPs from one workload to another.
    pub fn move_floating(&mut self, from: &Workload, to: &Workload) {
        let change = Transaction {
            add: nats(to).into(),
            del: nats(from).into(),
        };
        self.nft.apply(&change).expect("change the translation");
        self.next_metric -= 1;
        for floating in FLOATING {
            self.route(floating, self.next_metric, to.link.host_ifindex);
        }
    }

    pub fn add(&mut self, elements: impl IntoIterator<Item = Element>) {
        let transaction = Transaction {
            add: elements.into_iter().collect(),
            ..Transaction::default()
        };
        self.nft.apply(&transaction).expect("add elements");
    }

    fn route(&mut self, address: &str, metric: u32, ifindex: IfIndex) {
        let target = Target::Link {
            ifindex,
            gateway: None,
        };
        let route = Route {
            destination: ip(address).into(),
            table: MAIN_TABLE,
            metric,
            target,
        };
        route::put(&mut self.routes, &[route])
            .expect("put a route")
            .remove(0)
            .expect("put a route");
    }

    /// Waits until a named counter of both families has counted so many packets.
    pub fn counts(&mut self, name: &str, packets: u64) {
        eventually(&format!("{name} counts {packets}"), || {
            let counted = self.counted(name);
            assert!(counted <= packets, "{name} counts {counted}, not {packets}");
            counted == packets
        });
    }

    /// Packets that a named counter of both families counted.
    pub fn counted(&mut self, name: &str) -> u64 {
        let counters = self.nft.counters().expect("read the counters");
        counters
            .iter()
            .filter(|((_, found), _)| found == name)
            .map(|(_, counter)| counter.packets)
            .sum()
    }
}

fn nats(workload: &Workload) -> [Element; 2] {
    [0, 1].map(|family| Element::Nat {
        floating: ip(FLOATING[family]),
        internal: ip(&workload.addresses[family]),
    })
}

/// `address:port` as the family writes it.
pub fn at(address: &str, port: u16) -> String {
    if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}

/// Any address of a family (0: IPv4, 1: IPv6), with this port.
pub fn any(family: usize, port: u16) -> String {
    at(["0.0.0.0", "::"][family], port)
}
