//! Compare-and-swap of one record, and a list of many.

use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use buoy_api::ObjectMeta;
use buoy_api::v3::{IpReservation, IpReservationSpec};
use buoy_core::store::{Key, Prefix, Reply, Revision, StoreOp, Value};
use buoy_datastore::Datastore;
use ipnet::IpNet;

use super::{Ground, create, written};
use crate::bench::report::{Report, Row};

/// Updates in one sample.
const SAMPLE: usize = 20;
/// How often everything is listed.
const LISTS: usize = 7;
/// Who writes the records that are listed.
const WRITERS: usize = 4;

pub(super) fn measure(ground: &Ground, report: &mut Report) -> Result<()> {
    let store = &*ground.store;
    let key = Key::Reservation("counter".to_owned());
    let mut at = create(store, key.clone(), reservation("counter", 0))?;
    let mut rates = Vec::new();
    for sample in 0..ground.scale.updates.div_ceil(SAMPLE) {
        let begun = Instant::now();
        for step in 0..SAMPLE {
            at = update(store, &key, sample * SAMPLE + step, at)?;
        }
        rates.push(SAMPLE as f64 / begun.elapsed().as_secs_f64());
    }
    report.add(Row::rates(ground.row("cas"), "1/s", &rates));
    list(ground, report)
}

fn list(ground: &Ground, report: &mut Report) -> Result<()> {
    let listed = ground.scale.listed;
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|first| scope.spawn(move || fill(ground, (first..listed).step_by(WRITERS))))
            .collect();
        let mut writers = writers.into_iter();
        writers.try_for_each(|writer| writer.join().map_err(|_| anyhow!("a writer panicked"))?)
    })?;
    let mut took = Vec::new();
    for _ in 0..LISTS {
        let begun = Instant::now();
        let reply = ground.store.run(&StoreOp::List(Prefix::Reservations));
        took.push(begun.elapsed());
        let found = match reply {
            Reply::List(records, _) => records.len(),
            other => return Err(anyhow!("no list: {other:?}")),
        };
        ensure!(found > listed, "{found} records of {listed}");
    }
    report.add(Row::times(ground.row(&format!("list/{listed}")), &took));
    Ok(())
}

fn fill(ground: &Ground, numbers: impl Iterator<Item = usize>) -> Result<()> {
    let store = ground.open()?;
    for number in numbers {
        let name = format!("p{number}");
        create(
            &*store,
            Key::Reservation(name.clone()),
            reservation(&name, number),
        )?;
    }
    Ok(())
}

/// Writes another number into a reservation.
pub(super) fn update(store: &dyn Datastore, key: &Key, number: usize, at: Revision) -> Result<Revision> {
    let Key::Reservation(name) = key else {
        return Err(anyhow!("not a reservation: {key}"));
    };
    written(store.run(&StoreOp::Update(key.clone(), reservation(name, number), at)))
}

/// A reservation that carries a number.
pub(super) fn reservation(name: &str, number: usize) -> Value {
    let mut spec = IpReservationSpec::default();
    let carried = u32::try_from(number).unwrap_or(u32::MAX);
    spec.reserved_cidrs
        .push(IpNet::from(IpAddr::V4(Ipv4Addr::from(carried))));
    Value::Reservation(IpReservation::new(ObjectMeta::named(name), spec))
}
