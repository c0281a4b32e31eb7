//! Leases of many nodes: how fast they are renewed at most, and what it costs when each is renewed every two seconds.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use buoy_api::ObjectMeta;
use buoy_api::binding::Term;
use buoy_api::lease::{NodeLease, NodeLeaseSpec};
use buoy_core::floating::lease::RENEWAL;
use buoy_core::store::{Key, Revision, StoreOp, Value};
use buoy_datastore::Datastore;
use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

use super::{Ground, create, written};
use crate::bench::machine;
use crate::bench::report::{Report, Row};

/// Clients that renew them together.
const CLIENTS: usize = 8;

pub(super) fn measure(ground: &Ground, report: &mut Report) -> Result<()> {
    let (nodes, watched) = ground.scale.leases;
    let leases = each_client(nodes, |first| {
        let store = ground.open()?;
        let mine = (first..nodes).step_by(CLIENTS);
        mine.map(|number| {
            let name = format!("node-{number}");
            let at = create(&*store, Key::Lease(name.clone()), lease(&name))?;
            Ok((name, at))
        })
        .collect::<Result<Vec<_>>>()
    })?;
    let begun = Instant::now();
    let leases = renewed(ground, leases, None)?;
    let rate = nodes as f64 / begun.elapsed().as_secs_f64();
    report.add(Row::rates(ground.row("lease-writes"), "1/s", &[rate]));
    cost(ground, leases, watched, report)
}

/// Processor time of the store, and of who writes, while each node renews its lease as agents do.
fn cost(ground: &Ground, leases: Leases, watched: Duration, report: &mut Report) -> Result<()> {
    let nodes = ground.scale.leases.0;
    let spent = || {
        let each = ground.processes.iter().map(|pid| machine::processor_time(*pid));
        // Threads of this program that have ended count, too.
        let own = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?;
        anyhow::Ok(each.sum::<Result<Duration>>()? + Duration::from(own))
    };
    let (before, begun) = (spent()?, Instant::now());
    let mut leases = leases;
    while begun.elapsed() < watched {
        leases = renewed(ground, leases, Some(RENEWAL))?;
    }
    let share = (spent()? - before).as_secs_f64() / begun.elapsed().as_secs_f64();
    report.add(Row::costs(
        ground.row(&format!("lease-cpu/{nodes}")),
        "% of a core",
        &[share * 100.0],
    ));
    Ok(())
}

/// The leases of each client, with their revisions.
type Leases = Vec<Vec<(String, Revision)>>;

/// Renews all of them once: as fast as that goes, or spread over a time.
fn renewed(ground: &Ground, leases: Leases, over: Option<Duration>) -> Result<Leases> {
    let leases = &leases;
    each_client(CLIENTS, |client| {
        let store = ground.open()?;
        let mine = leases.get(client).map(Vec::as_slice).unwrap_or_default();
        let begun = Instant::now();
        let mut renewed = Vec::with_capacity(mine.len());
        for (number, (name, at)) in mine.iter().enumerate() {
            if let Some(over) = over {
                let due = over.mul_f64(number as f64 / mine.len() as f64);
                thread::sleep(due.saturating_sub(begun.elapsed()));
            }
            renewed.push((name.clone(), renew(&*store, name, *at)?));
        }
        if let Some(over) = over {
            thread::sleep(over.saturating_sub(begun.elapsed()));
        }
        Ok(renewed)
    })
}

fn each_client<T: Send>(count: usize, work: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    thread::scope(|scope| {
        let work = &work;
        let clients: Vec<_> = (0..CLIENTS.min(count))
            .map(|client| scope.spawn(move || work(client)))
            .collect();
        let ended = clients
            .into_iter()
            .map(|client| client.join().map_err(|_| anyhow!("a client panicked"))?);
        ended.collect()
    })
}

fn renew(store: &dyn Datastore, name: &str, at: Revision) -> Result<Revision> {
    written(store.run(&StoreOp::Update(Key::Lease(name.to_owned()), lease(name), at)))
}

fn lease(node: &str) -> Value {
    let spec = NodeLeaseSpec {
        holder: Some(format!("agent-of-{node}")),
        term: Term(1),
        duration_seconds: 6,
        renewed: Some(Timestamp::now()),
        ..NodeLeaseSpec::default()
    };
    Value::Lease(NodeLease::new(ObjectMeta::named(node), spec))
}
