//! How Calico collects: a model of its controller, written from its description. It knows a pod by the endpoint that is
//! published for it: one that has none yet is to it a pod that is gone, which is harder on writers than the real one, that
//! sees the pod itself. Virtual machines and Windows are not in it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use buoy_api::ipam::{AffinityOwner, Block};
use buoy_api::names::{EndpointName, Orchestrator};
use buoy_core::store::{Key, Prefix, Record, Value};
use buoy_datastore::Datastore;
use ipnet::IpNet;
use jiff::Timestamp;

use super::calico::Calico;
use super::cooling::Cooling;
use super::line::{Dice, Line};

/// How it is set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// How long an address must look leaked on a node that is there.
    pub(crate) grace: Duration,
    /// Addresses that are freed in one scan, at most.
    pub(crate) batch: usize,
}

/// As it comes.
pub(crate) const RULES: Rules = Rules {
    grace: Duration::from_mins(15),
    batch: 10_000,
};

/// Tunnels of a node have addresses of these types.
const TUNNELS: [&str; 5] = [
    "ipipTunnelAddress",
    "vxlanTunnelAddress",
    "vxlanV6TunnelAddress",
    "wireguardTunnelAddress",
    "wireguardV6TunnelAddress",
];

/// An address that a block gives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Allocation {
    cidr: IpNet,
    ordinal: usize,
    address: IpAddr,
    handle: String,
    number: u64,
    says: BTreeMap<String, String>,
}

/// An allocation that looks leaked.
#[derive(Clone, Copy, Debug)]
struct Suspicion {
    since: Duration,
    is_confirmed: bool,
}

/// Addresses of pods, by the keys of their endpoints.
type Pods = BTreeMap<Key, Vec<IpAddr>>;

pub(crate) struct Collector<'a> {
    store: &'a dyn Datastore,
    line: Line<'a>,
    rules: Rules,
    /// When its clock began.
    began: Timestamp,
    /// What becomes of what it frees, as of the last scan.
    cooling: Cooling,
    suspects: BTreeMap<Allocation, Suspicion>,
    empty: BTreeSet<IpNet>,
}

impl<'a> Collector<'a> {
    pub(crate) fn new(store: &'a dyn Datastore, rules: Rules, began: Timestamp) -> Self {
        Self {
            store,
            line: good_line(store),
            rules,
            began,
            cooling: Cooling::NONE,
            suspects: BTreeMap::new(),
            empty: BTreeSet::new(),
        }
    }

    /// Allocations that look leaked at present.
    pub(crate) fn suspects(&self) -> usize {
        self.suspects.len()
    }

    /// One scan, due each half of a grace. How many addresses it freed; calls `frees` with each before.
    pub(crate) fn scan(&mut self, now: Duration, frees: impl FnMut(IpAddr, &str)) -> usize {
        self.cooling = Cooling {
            now: self.began + now,
            lasts: self.cooldown(),
        };
        let (pods, nodes) = (self.pods(), self.nodes());
        let blocks = self.line.blocks().unwrap();
        let blocks: Vec<Block> = blocks.into_iter().map(|(block, _)| block).collect();
        let given: Vec<Allocation> = blocks.iter().flat_map(allocations).collect();
        self.suspects.retain(|suspect, _| given.contains(suspect));
        let left = self.judge(now, &given, &blocks, (&pods, &nodes));
        let freed = self.release(&given, &nodes, frees);
        self.give_up_empty(&blocks);
        for host in left {
            self.hand(&host).give_up_all().unwrap();
        }
        for block in blocks.iter().filter(|block| has_cooling(block)) {
            self.hand("nobody").thaw(block.cidr).unwrap();
        }
        freed
    }

    /// Which allocations look leaked, and which surely are. The nodes that are gone and have nothing that lives.
    fn judge(
        &mut self,
        now: Duration,
        given: &[Allocation],
        blocks: &[Block],
        (pods, nodes): (&Pods, &BTreeSet<String>),
    ) -> BTreeSet<String> {
        let (mut kept, mut tunnels) = (BTreeSet::new(), Vec::new());
        // Whose node nobody says is nobody's business.
        for allocation in given.iter().filter(|allocation| !allocation.node().is_empty()) {
            let is_there = nodes.contains(allocation.node());
            if allocation.is_of_a_tunnel() {
                tunnels.push(allocation);
            } else if allocation.is_valid(pods) {
                self.suspects.remove(allocation);
                kept.insert(allocation.node());
            } else {
                self.suspect(now, allocation, !is_there);
            }
        }
        let hosts = blocks
            .iter()
            .filter_map(host)
            .chain(given.iter().map(Allocation::node));
        let left: BTreeSet<&str> = hosts
            .filter(|host| !host.is_empty() && !nodes.contains(*host) && !kept.contains(host))
            .collect();
        for tunnel in tunnels.into_iter().filter(|tunnel| left.contains(tunnel.node())) {
            self.suspect(now, tunnel, true);
        }
        left.into_iter().map(str::to_owned).collect()
    }

    fn suspect(&mut self, now: Duration, allocation: &Allocation, is_sure: bool) {
        let known = self.suspects.entry(allocation.clone()).or_insert(Suspicion {
            since: now,
            is_confirmed: false,
        });
        known.is_confirmed |= is_sure || now.saturating_sub(known.since) > self.rules.grace;
    }

    /// Frees what is leaked for sure, still, and with all that its handle has.
    fn release(
        &mut self,
        given: &[Allocation],
        nodes: &BTreeSet<String>,
        mut frees: impl FnMut(IpAddr, &str),
    ) -> usize {
        let mut batch: BTreeMap<IpNet, Vec<&Allocation>> = BTreeMap::new();
        let mut left = self.rules.batch;
        for leak in given {
            if left == 0 || !self.is_confirmed(leak) {
                continue;
            }
            if nodes.contains(leak.node()) && leak.is_valid(&self.pod(leak)) {
                self.suspects.remove(leak);
                continue;
            }
            let mut siblings = given.iter().filter(|other| other.handle == leak.handle);
            if siblings.all(|sibling| self.is_confirmed(sibling)) {
                batch.entry(leak.cidr).or_default().push(leak);
                left -= 1;
            }
        }
        let (hand, mut freed) = (self.hand("nobody"), 0);
        for (cidr, leaks) in batch {
            for leak in &leaks {
                frees(leak.address, &leak.handle);
            }
            freed += hand
                .release_from(cidr, |block| still_given(block, &leaks))
                .unwrap();
        }
        freed
    }

    fn is_confirmed(&self, allocation: &Allocation) -> bool {
        let known = self.suspects.get(allocation);
        known.is_some_and(|suspicion| suspicion.is_confirmed)
    }

    /// Blocks that were empty twice, but for the last of each node.
    fn give_up_empty(&mut self, blocks: &[Block]) {
        let mut has: BTreeMap<&str, usize> = BTreeMap::new();
        for host in blocks.iter().filter_map(host) {
            *has.entry(host).or_default() += 1;
        }
        let mut empty = BTreeSet::new();
        for block in blocks.iter().filter(|block| block.is_empty()) {
            let Some(host) = host(block) else { continue };
            let count = has.entry(host).or_default();
            if *count <= 1 {
                continue;
            }
            if self.empty.contains(&block.cidr) {
                self.hand(host).give_up(block.cidr).unwrap();
                *count -= 1;
            } else {
                empty.insert(block.cidr);
            }
        }
        self.empty = empty;
    }

    /// Somebody who works for a host; nothing happens to him on his way.
    fn hand(&self, host: &str) -> Calico<'a> {
        Calico {
            line: good_line(self.store),
            host: host.to_owned(),
            pool: super::pool(),
            block_len: super::BLOCK_LEN,
            cooling: self.cooling,
        }
    }

    fn cooldown(&self) -> Duration {
        match self.line.get(Key::IpamConfig).unwrap() {
            Some((Value::IpamConfig(config), _)) => Duration::from_secs(config.cooldown_seconds.into()),
            None => Duration::ZERO,
            Some(other) => panic!("{other:?}"),
        }
    }

    fn nodes(&self) -> BTreeSet<String> {
        let records = self.line.list(Prefix::Nodes).unwrap();
        let names = records.into_iter().filter_map(|record| match record.key {
            Key::Node(name) => Some(name),
            _ => None,
        });
        names.collect()
    }

    fn pods(&self) -> Pods {
        let records = self.line.list(Prefix::Endpoints).unwrap();
        records.into_iter().filter_map(addresses).collect()
    }

    /// The pod that an allocation names, as it is now.
    fn pod(&self, allocation: &Allocation) -> Pods {
        let key = allocation.endpoint();
        let found = key.and_then(|key| Some((key.clone(), self.line.get(key).unwrap()?)));
        let record = found.map(|(key, (value, revision))| Record {
            key,
            revision,
            value: Ok(value),
        });
        record.into_iter().filter_map(addresses).collect()
    }
}

impl Allocation {
    fn says(&self, key: &str) -> &str {
        self.says.get(key).map_or("", String::as_str)
    }

    fn node(&self) -> &str {
        self.says("node")
    }

    fn is_of_a_tunnel(&self) -> bool {
        TUNNELS.contains(&self.says("type"))
    }

    /// Whether the pod that it names is on that node and has the address, or none yet. Whoever names no pod is believed.
    fn is_valid(&self, pods: &Pods) -> bool {
        if self.says("namespace").is_empty() || self.says("pod").is_empty() {
            return true;
        }
        let pod = self.endpoint().and_then(|key| pods.get(&key));
        pod.is_some_and(|addresses| addresses.is_empty() || addresses.contains(&self.address))
    }

    fn endpoint(&self) -> Option<Key> {
        let name = EndpointName::new(self.node(), Orchestrator::K8s, self.says("pod"), "eth0").ok()?;
        Some(Key::Endpoint {
            namespace: self.says("namespace").to_owned(),
            name: name.to_string(),
        })
    }
}

fn good_line(store: &dyn Datastore) -> Line<'_> {
    let line = Line::new(store, Dice::new(1));
    line.set_bad(false);
    line
}

fn host(block: &Block) -> Option<&str> {
    match block.affinity.as_ref()? {
        AffinityOwner::Host(host) => Some(host),
        AffinityOwner::Virtual(_) => None,
    }
}

/// What a block gives. What cools down is nobody's.
fn allocations(block: &Block) -> impl Iterator<Item = Allocation> {
    let numbers = &block.sequence_number_for_allocation;
    let number = |ordinal| numbers.get(&ordinal).copied().unwrap_or_default();
    let given = block
        .allocated()
        .filter(|(_, holder)| holder.released_at.is_none());
    given.filter_map(move |(ordinal, holder)| {
        Some(Allocation {
            cidr: block.cidr,
            ordinal,
            address: block.address(ordinal)?,
            handle: holder.handle.clone()?,
            number: number(ordinal),
            says: holder.secondary.clone(),
        })
    })
}

fn has_cooling(block: &Block) -> bool {
    block.allocated().any(|(_, holder)| holder.released_at.is_some())
}

/// Ordinals of what is to be freed, without what is free. None at all where somebody else has one of them by now.
fn still_given(block: &Block, leaks: &[&Allocation]) -> Vec<usize> {
    let now: Vec<Allocation> = allocations(block).collect();
    let is_taken = |leak: &&Allocation| {
        now.iter()
            .any(|other| other.ordinal == leak.ordinal && other != *leak)
    };
    if leaks.iter().any(is_taken) {
        return Vec::new();
    }
    let still = leaks.iter().filter(|leak| now.contains(leak));
    still.map(|leak| leak.ordinal).collect()
}

/// Addresses of an endpoint.
fn addresses(record: Record) -> Option<(Key, Vec<IpAddr>)> {
    match record.value {
        Ok(Value::Endpoint(endpoint)) => {
            let networks = &endpoint.spec.ip_networks;
            Some((record.key, networks.iter().map(IpNet::addr).collect()))
        }
        _ => None,
    }
}
