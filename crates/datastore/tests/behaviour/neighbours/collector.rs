//! How Calico collects: addresses of pods that are not there any more, and blocks that stay empty.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use buoy_api::ipam::{AffinityOwner, Block};
use buoy_core::store::{Prefix, Reply, StoreOp, Value};
use ipnet::IpNet;

use super::calico::Calico;
use super::line::Line;

/// An allocation that looks leaked: block, ordinal, handle, sequence number.
type Leak = (IpNet, usize, String, u64);

pub(crate) struct Collector<'a> {
    pub(crate) line: Line<'a>,
    pub(crate) pool: IpNet,
    pub(crate) block_len: u8,
    suspects: BTreeSet<Leak>,
    empty: BTreeSet<IpNet>,
}

/// Where pods are, and which addresses they have.
type Pods = BTreeMap<(String, String), (String, Vec<IpAddr>)>;

impl<'a> Collector<'a> {
    pub(crate) fn new(line: Line<'a>, pool: IpNet, block_len: u8) -> Self {
        line.set_bad(false);
        Self {
            line,
            pool,
            block_len,
            suspects: BTreeSet::new(),
            empty: BTreeSet::new(),
        }
    }

    /// One scan: what looked leaked the last time, too, and has no grace any more, is freed. Calls `frees` with each before.
    pub(crate) fn scan(
        &mut self,
        has_grace: impl Fn(&str) -> bool,
        mut frees: impl FnMut(IpAddr, &str),
    ) -> usize {
        let hand = self.hand("nobody".to_owned());
        let blocks = hand.blocks().unwrap();
        let pods = self.pods();
        let leaks: BTreeSet<Leak> = blocks
            .iter()
            .flat_map(|(block, _)| leaks(block, &pods))
            .filter(|(_, _, handle, _)| !has_grace(handle))
            .collect();
        let mut freed = 0;
        for (cidr, ordinal, handle, number) in leaks.intersection(&self.suspects) {
            let still = |block: &Block| -> Vec<usize> {
                let holder = block.holder(*ordinal).and_then(|holder| holder.handle.as_ref());
                let same = holder == Some(handle)
                    && block.sequence_number_for_allocation.get(ordinal) == Some(number);
                same.then_some(*ordinal).into_iter().collect()
            };
            if let Some(address) = buoy_api::ipam::nth_address(cidr, *ordinal as u128) {
                frees(address, handle);
            }
            freed += hand.release_from(*cidr, still, handle).unwrap();
        }
        self.suspects = leaks;
        self.give_up_empty(blocks.into_iter().map(|(block, _)| block).collect());
        freed
    }

    /// Blocks that were empty twice, but for one of each node.
    fn give_up_empty(&mut self, blocks: Vec<Block>) {
        let mut kept = BTreeSet::new();
        let mut empty = BTreeSet::new();
        for block in blocks {
            let Some(AffinityOwner::Host(host)) = &block.affinity else {
                continue;
            };
            if block.allocations.iter().any(Option::is_some) || kept.insert(host.clone()) {
                kept.insert(host.clone());
                continue;
            }
            if self.empty.contains(&block.cidr) {
                self.hand(host.clone()).give_up(block.cidr).unwrap();
            }
            empty.insert(block.cidr);
        }
        self.empty = empty;
    }

    fn hand(&self, host: String) -> Calico<'a> {
        let line = Line::new(self.line.store, super::line::Dice::new(self.line.below(1 << 20)));
        line.set_bad(false);
        Calico {
            line,
            host,
            pool: self.pool,
            block_len: self.block_len,
        }
    }

    fn pods(&self) -> Pods {
        let Ok(Reply::List(records, _)) = self.line.run(&StoreOp::List(Prefix::Endpoints)) else {
            panic!("no list of endpoints")
        };
        let pods = records.into_iter().filter_map(|record| match record.value {
            Ok(Value::Endpoint(record)) => {
                let addresses = record.spec.ip_networks.iter().map(|net| net.addr()).collect();
                let namespace = record.metadata.namespace.unwrap_or_default();
                Some(((namespace, record.spec.pod), (record.spec.node, addresses)))
            }
            _ => None,
        });
        pods.collect()
    }
}

/// Allocations that name a pod which is not on that node, or does not have that address. One that names none is somebody's
/// business.
fn leaks(block: &Block, pods: &Pods) -> Vec<Leak> {
    let given = block.allocated().filter_map(|(ordinal, holder)| {
        let says = |key: &str| holder.secondary.get(key).cloned();
        let pod = (says("namespace")?, says("pod")?);
        let address = block.address(ordinal)?;
        let lives = pods.get(&pod).is_some_and(|(node, addresses)| {
            Some(node) == says("node").as_ref() && addresses.contains(&address)
        });
        let number = block.sequence_number_for_allocation.get(&ordinal)?;
        (!lives).then(|| {
            (
                block.cidr,
                ordinal,
                holder.handle.clone().unwrap_or_default(),
                *number,
            )
        })
    });
    given.collect()
}
