//! Assignments: one node that knows its blocks, and six that fight for one pool.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use buoy_api::ObjectMeta;
use buoy_api::v3::{IpPool, IpPoolSpec};
use buoy_core::ipam::{Ask, Asker, Assigned, AutoAssign, AutoAssignRequest, Grant, Snapshot};
use buoy_core::store::{Key, Record};
use buoy_datastore::{Datastore, drive};
use jiff::Timestamp;

use super::Ground;
use crate::bench::report::{Report, Row};

/// Nodes that race.
const NODES: usize = 6;
/// Assignments in one sample.
const SAMPLE: usize = 20;

/// A node that assigns, and its blocks as it wrote them last.
struct Node<'a> {
    store: &'a dyn Datastore,
    name: String,
    pool: &'static str,
    blocks: BTreeMap<Key, Record>,
}

pub(super) fn measure(ground: &Ground, report: &mut Report) -> Result<()> {
    let mut node = Node::new(&*ground.store, "warm", "10.80.0.0/16");
    node.assign(0)?;
    let mut rates = Vec::new();
    let count = ground.scale.addresses;
    for sample in 0..count.div_ceil(SAMPLE) {
        let begun = Instant::now();
        for step in 1..=SAMPLE {
            node.assign(sample * SAMPLE + step)?;
        }
        rates.push(SAMPLE as f64 / begun.elapsed().as_secs_f64());
    }
    report.add(Row::rates(ground.row("ipam/warm"), "1/s", &rates));
    let rate = race(ground, count)?;
    report.add(Row::rates(
        ground.row(&format!("ipam/race-{NODES}")),
        "1/s",
        &[rate],
    ));
    Ok(())
}

/// All nodes together assign so many, from a pool that has a few blocks too few for each to be alone.
fn race(ground: &Ground, count: usize) -> Result<f64> {
    let each = count.div_ceil(NODES);
    let begun = Instant::now();
    thread::scope(|scope| {
        let nodes: Vec<_> = (0..NODES)
            .map(|number| {
                scope.spawn(move || {
                    let store = ground.open()?;
                    let mut node = Node::new(&*store, &format!("racer-{number}"), "10.81.0.0/22");
                    (0..each).try_for_each(|step| node.assign(step))
                })
            })
            .collect();
        let mut nodes = nodes.into_iter();
        nodes.try_for_each(|node| node.join().map_err(|_| anyhow!("a node panicked"))?)
    })?;
    Ok((each * NODES) as f64 / begun.elapsed().as_secs_f64())
}

impl<'a> Node<'a> {
    fn new(store: &'a dyn Datastore, name: &str, pool: &'static str) -> Self {
        Self {
            store,
            name: name.to_owned(),
            pool,
            blocks: BTreeMap::new(),
        }
    }

    fn assign(&mut self, number: usize) -> Result<()> {
        let pool = IpPool::new(ObjectMeta::named("measured"), IpPoolSpec::new(self.pool.parse()?));
        let request = AutoAssignRequest {
            snapshot: Arc::new(Snapshot {
                pools: vec![pool],
                ..Snapshot::default()
            }),
            asker: Asker {
                host: self.name.clone(),
                node_labels: BTreeMap::new(),
                namespace_labels: BTreeMap::new(),
            },
            grant: Grant {
                handle: format!("net.{}-{number}", self.name),
                attributes: BTreeMap::from([("node".to_owned(), self.name.clone())]),
            },
            v4: Ask::of(1),
            v6: Ask::of(0),
            cached: self.blocks.values().cloned().collect(),
            seed: self.name.bytes().map(u64::from).sum(),
            now: Timestamp::now(),
        };
        let assigned: Assigned = drive(self.store, AutoAssign::new(request))?;
        assigned.addresses.first().context("nothing was assigned")?;
        let written = assigned.written.into_iter();
        self.blocks
            .extend(written.map(|record| (record.key.clone(), record)));
        Ok(())
    }
}
