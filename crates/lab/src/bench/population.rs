//! So many floating IPs on one node, owned by its workloads.
//!
//! Two workloads ask for a few of them, the first floating IP among these, and one of the two has them all: those are
//! moved and changed. The rest belongs to a crowd of workloads. Whatever is asked for is written into the workloads'
//! records, as `buoyctl fip attach` does it, and everything else is the agent's doing.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use buoy_api::FloatingIp;
use buoy_api::v3::{IpNat, WorkloadEndpoint};
use buoy_core::edit::{Change, Edit};
use buoy_core::store::{Key, Prefix, Reply, StoreOp, Value};
use buoy_datastore::drive;

use super::bed::{BarePath, Bed, prepare};
use super::load::Server;
use super::{Scale, machine};
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
        let records = self.records()?;
        let begun = Instant::now();
        for (name, wanted) in self.wanted() {
            let record = records
                .get(&name)
                .with_context(|| format!("no record of {name}"))?;
            self.ask(record, &wanted)?;
        }
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

    /// The records of all workloads, by the names of their pods.
    fn records(&self) -> Result<BTreeMap<String, WorkloadEndpoint>> {
        let Reply::List(list, _) = self.bed.store.run(&StoreOp::List(Prefix::Endpoints)) else {
            bail!("cannot list workload endpoints");
        };
        let endpoints = list.into_iter().filter_map(|record| match record.value {
            Ok(Value::Endpoint(endpoint)) => Some((endpoint.spec.pod.clone(), endpoint)),
            _ => None,
        });
        Ok(endpoints.collect())
    }

    fn ask(&self, record: &WorkloadEndpoint, wanted: &[IpAddr]) -> Result<()> {
        let own = record
            .spec
            .ip_networks
            .first()
            .context("a workload without an address")?;
        let requests: Vec<IpNat> = wanted
            .iter()
            .map(|floating| IpNat::new(own.addr(), *floating))
            .collect();
        let key = Key::Endpoint {
            namespace: record.metadata.namespace.clone().unwrap_or_default(),
            name: record.metadata.name.clone(),
        };
        let asking = |found: Option<&Value>| match found {
            Some(Value::Endpoint(found)) => {
                let mut asking = found.clone();
                asking.spec.ip_nats.clone_from(&requests);
                Change::Put(Box::new(Value::Endpoint(asking)))
            }
            _ => Change::Keep,
        };
        Ok(drive(self.bed.store.as_ref(), Edit::new(key, asking))?)
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
        let name = self.other.name();
        let records = self.records()?;
        let record = records.get(name).context("no record of a workload")?;
        let mut wanted = self.both();
        wanted.extend(asked.then_some(floating));
        self.ask(record, &wanted)
    }
}

/// The key and the value of a floating IP's binding, and its revision.
pub(super) fn binding(bed: &Bed, floating: IpAddr) -> Result<buoy_core::store::Record> {
    let floating: FloatingIp = floating.to_string().parse()?;
    let key = buoy_core::floating::claim::binding_key(floating);
    match bed.store.run(&StoreOp::Get(key)) {
        Reply::Record(Some(record)) => Ok(record),
        other => bail!("no binding of {floating:?}: {other:?}"),
    }
}
