//! So many floating IPs on one node, owned by its workloads.
//!
//! Two workloads ask for a few of them, the first floating IP among these, and one of the two has them all: those are
//! moved and changed. The rest belongs to a crowd of workloads. Whatever is asked for is written into the workloads'
//! records, as `buoyctl fip attach` does it, and everything else is the agent's doing.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::bed::{BarePath, Bed, prepare};
use super::load::Server;
use super::{Scale, machine, requests};
use crate::workload::Workload;

/// What the servers of the two workloads answer.
pub(super) const FRONT: u8 = b'f';
pub(super) const OTHER: u8 = b'o';

/// Patience with ten thousand addresses on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The workloads of a node, and what they ask for.
#[derive(Debug)]
pub(super) struct Population<'a> {
    bed: &'a Bed,
    /// Addresses that two ask for, besides the first.
    shared: usize,
    level: usize,
    plain: Option<IpAddr>,
    _servers: [Server; 2],
    front: Workload,
    other: Workload,
    crowd: Vec<Workload>,
}

impl<'a> Population<'a> {
    /// Attaches the workloads, which do not ask for anything yet.
    pub(super) fn begin(bed: &'a Bed, scale: &Scale) -> Result<Self> {
        let attached = |name: &str| -> Result<Workload> {
            let mut workload = prepare(&bed.node, bed.family, name)?;
            workload.add()?.ok().with_context(|| format!("ADD of {name}"))?;
            Ok(workload)
        };
        let (front, other) = (attached("front")?, attached("other")?);
        let crowd = (0..scale.crowd).map(|number| attached(&format!("crowd-{number}")));
        Ok(Self {
            bed,
            shared: scale.changes,
            level: 0,
            plain: None,
            _servers: [
                Server::start(front.netns(), bed.family, FRONT)?,
                Server::start(other.netns(), bed.family, OTHER)?,
            ],
            crowd: crowd.collect::<Result<_>>()?,
            front,
            other,
        })
    }

    /// How many floating IPs there are.
    pub(super) fn level(&self) -> usize {
        self.level
    }

    /// The workload that has the first floating IP.
    pub(super) fn front(&self) -> &Workload {
        &self.front
    }

    /// The workload that stands by for it.
    pub(super) fn other(&self) -> &Workload {
        &self.other
    }

    /// The first floating IP.
    pub(super) fn floating(&self) -> IpAddr {
        self.address(0)
    }

    /// Floating IPs that both workloads ask for, without the first.
    pub(super) fn shared(&self) -> Vec<IpAddr> {
        (1..self.level.min(self.shared + 1))
            .map(|number| self.address(number))
            .collect()
    }

    /// A floating IP by its number.
    pub(super) fn address(&self, number: usize) -> IpAddr {
        self.bed.family.floating(number)
    }

    /// What both of the two workloads ask for.
    fn both(&self) -> Vec<IpAddr> {
        std::iter::once(self.floating()).chain(self.shared()).collect()
    }

    /// The first workload's address behind the bare router.
    pub(super) fn connect(&mut self, path: &BarePath) -> Result<()> {
        self.plain = Some(path.lead_to(&self.front)?);
        Ok(())
    }

    /// The address that [`Population::connect`] made.
    pub(super) fn plain_address(&self) -> Result<IpAddr> {
        self.plain.context("there is no bare path")
    }

    /// Asks for so many floating IPs in all; returns how long it took until all were in the kernel.
    pub(super) fn grow(&mut self, level: usize) -> Result<Duration> {
        self.level = level;
        let begun = Instant::now();
        requests::ask_all(self.bed.store.as_ref(), &self.wanted())?;
        self.wait_for_kernel()?;
        let took = begun.elapsed();
        machine::rest(self.bed.agent()?)?;
        Ok(took)
    }

    /// What each workload asks for.
    fn wanted(&self) -> Vec<(String, Vec<IpAddr>)> {
        let mut wanted = vec![
            (self.front.name().to_owned(), self.both()),
            (self.other.name().to_owned(), self.both()),
        ];
        for (number, workload) in self.crowd.iter().enumerate() {
            let first = self.shared + 1 + number;
            let own = (first..self.level).step_by(self.crowd.len());
            let own = own.map(|number| self.address(number)).collect();
            wanted.push((workload.name().to_owned(), own));
        }
        wanted
    }

    /// Until the node translates all of them.
    fn wait_for_kernel(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let found = self.translated()?;
            if found == self.level {
                return Ok(());
            }
            ensure!(
                begun.elapsed() < PATIENCE,
                "{found} of {} floating IPs are in the kernel after {PATIENCE:?}",
                self.level
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// How many addresses the node translates.
    fn translated(&self) -> Result<usize> {
        let family = self.bed.family;
        let list = format!("nft list set {} buoy floating", family.table());
        let shown = self.bed.node.netns().exec(&list)?;
        Ok(shown.stdout.matches(family.floating_begins()).count())
    }

    /// Gives a floating IP's request to one workload more, or takes it away again.
    pub(super) fn set_extra(&self, floating: IpAddr, asked: bool) -> Result<()> {
        let mut wanted = self.both();
        wanted.extend(asked.then_some(floating));
        let asking = (self.other.name().to_owned(), wanted);
        requests::ask_all(self.bed.store.as_ref(), &[asking])
    }
}
