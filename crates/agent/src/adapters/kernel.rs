//! Carries out operations: one call to the kernel for each, in the order of the plan.
//!
//! One thread applies plans; links are made by a few at a time, since each takes milliseconds; links that nobody needs
//! are deleted by a thread of their own, since the kernel waits before it lets them go.

mod apply;
mod flows;
mod links;
mod namespaces;
mod observe;
mod sysctls;

use std::path::Path;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use buoy_core::endpoint::{IfIndex, IfName, Netns};
use buoy_kernel::netlink::{OwnPorts, Protocol, Socket};
use buoy_kernel::nft::Nft;
use crossbeam_channel::{Receiver, Sender, bounded};

pub(crate) use apply::Hands;
pub(crate) use namespaces::Namespaces;
pub(crate) use observe::learnt_by;
pub(crate) use sysctls::Originals;

use crate::adapters::bird::Bird;
use crate::inputs::{Input, ReadBack};
use crate::metrics::Metrics;
use crate::network::Batch;

/// Orders that may wait: the loop has one plan under way at a time, and one reading.
const QUEUE: usize = 4;
/// Links that may wait to be deleted.
const UNLINK_QUEUE: usize = 4096;

#[derive(Debug)]
enum Order {
    Read,
    Apply(Batch),
}

/// The kernel of this node.
#[derive(Debug)]
pub(crate) struct KernelAdapter {
    orders: Sender<Order>,
    unlink: Sender<(IfName, IfIndex)>,
    bird: Option<Bird>,
    namespaces: Namespaces,
}

impl KernelAdapter {
    /// Starts the threads, in the namespace of this process.
    pub(crate) fn start(
        state_dir: &Path,
        bird: Option<Bird>,
        own: &OwnPorts,
        metrics: &Metrics,
        inputs: &Sender<Input>,
    ) -> Result<Self> {
        let namespaces = Namespaces::default();
        let (orders, queue) = bounded(QUEUE);
        let unlink = start_unlinking(own, inputs)?;
        let originals = Originals::open(state_dir)?;
        let hands = Hands::new(own.clone(), namespaces.clone(), originals, bird.clone())?;
        let worker = Worker {
            hands,
            unlink: unlink.clone(),
            metrics: metrics.clone(),
            inputs: inputs.clone(),
        };
        thread::Builder::new()
            .name("kernel".to_owned())
            .spawn(move || worker.work(&queue))?;
        Ok(Self {
            orders,
            unlink,
            bird,
            namespaces,
        })
    }

    /// What waits for which thread.
    pub(crate) fn queues(&self) -> impl Iterator<Item = (&'static str, usize)> {
        let own = [("kernel", self.orders.len()), ("unlink", self.unlink.len())];
        let bird = self.bird.iter().map(|bird| ("bird", bird.waiting()));
        own.into_iter().chain(bird)
    }

    /// Asks for the kernel to be read back.
    pub(crate) fn read(&self) {
        self.orders.send(Order::Read).ok();
    }

    /// Has operations carried out.
    pub(crate) fn apply(&self, batch: Batch) {
        self.orders.send(Order::Apply(batch)).ok();
    }

    /// Keeps a namespace open that a client handed over.
    pub(crate) fn know(&self, netns: buoy_kernel::netns::Netns) {
        self.namespaces.keep(netns);
    }

    /// Lets a namespace go.
    pub(crate) fn forget(&self, netns: &Netns) {
        self.namespaces.release(netns);
    }
}

struct Worker {
    hands: Hands,
    unlink: Sender<(IfName, IfIndex)>,
    metrics: Metrics,
    inputs: Sender<Input>,
}

impl Worker {
    fn read(&mut self) -> buoy_kernel::Result<ReadBack> {
        Ok(ReadBack {
            observed: self.hands.observe()?,
            learnt: self.hands.learnt()?,
        })
    }

    fn work(mut self, orders: &Receiver<Order>) {
        for order in orders {
            let input = match order {
                Order::Read => Input::Read(Box::new(self.read().map_err(|e| e.to_string()))),
                Order::Apply(batch) => {
                    let begun = Instant::now();
                    let applied = self.hands.apply(batch.ops);
                    self.metrics.node.applied(&applied, begun.elapsed());
                    for link in batch.unlink {
                        // The thread lives as long as this one.
                        self.unlink.send(link).ok();
                    }
                    Input::Applied(applied)
                }
            };
            if self.inputs.send(input).is_err() {
                return;
            }
        }
    }
}

fn start_unlinking(own: &OwnPorts, inputs: &Sender<Input>) -> Result<Sender<(IfName, IfIndex)>> {
    let (sender, links) = bounded::<(IfName, IfIndex)>(UNLINK_QUEUE);
    let mut socket = Socket::open(Protocol::Route).context("open netlink")?;
    own.add(socket.port());
    let inputs = inputs.clone();
    thread::Builder::new().name("unlink".to_owned()).spawn(move || {
        for (name, index) in links {
            let result = links::delete(&mut socket, &name, index).map_err(|e| e.message);
            if inputs.send(Input::Unlinked(name, index, result)).is_err() {
                return;
            }
        }
    })?;
    Ok(sender)
}

/// Opens a connection to nftables whose changes count as ours.
pub(crate) fn open_nft(own: &OwnPorts) -> Result<Nft> {
    let nft = Nft::open().context("open nftables")?;
    own.add(nft.port());
    Ok(nft)
}
