//! From a write until a watcher has it. When the store commits it, nobody outside sees: after the request, before the answer.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use buoy_core::store::{Key, Prefix, Reply, Revision, StoreOp};

use super::records::{reservation, update};
use super::{Ground, create};
use crate::bench::report::{Report, Row};

/// How many watch.
const CROWDS: [usize; 2] = [1, 50];
/// Patience with a change, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn measure(ground: &Ground, report: &mut Report) -> Result<()> {
    for crowd in CROWDS {
        let key = Key::Reservation(format!("watched-by-{crowd}"));
        let Key::Reservation(name) = &key else { continue };
        let at = create(&*ground.store, key.clone(), reservation(name, 0))?;
        let delays = watched_by(ground, crowd, &key, at)?;
        report.add(Row::times(
            ground.row(&format!("watch/{crowd}")),
            &delays.of_answers,
        ));
        let row = ground.row(&format!("watch-from-request/{crowd}"));
        report.add(Row::times(row, &delays.of_requests));
    }
    Ok(())
}

/// What is more, and what is less, than from the commit until a watcher has it.
#[derive(Default)]
struct Delays {
    of_requests: Vec<Duration>,
    of_answers: Vec<Duration>,
}

fn watched_by(ground: &Ground, crowd: usize, key: &Key, mut at: Revision) -> Result<Delays> {
    let Reply::List(_, from) = ground.store.run(&StoreOp::List(Prefix::Reservations)) else {
        bail!("no list of reservations");
    };
    let (sender, arrivals) = mpsc::channel();
    let mut watches = Vec::new();
    for _ in 0..crowd {
        // Each on a client of its own, as the agents of many nodes are.
        let store = ground.open()?;
        let watch = store.watch(&[(Prefix::Reservations, from)])?;
        watches.push((store, watch));
    }
    thread::scope(|scope| {
        for (store, mut watch) in watches {
            let sender = sender.clone();
            scope.spawn(move || {
                while let Ok(events) = watch.next(Duration::from_secs(5)) {
                    let now = Instant::now();
                    let gone = events
                        .iter()
                        .any(|event| sender.send((event.revision(), now)).is_err());
                    if gone || events.is_empty() {
                        break;
                    }
                }
                drop(store);
            });
        }
        let mut delays = Delays::default();
        for number in 1..=ground.scale.changes {
            let asked = Instant::now();
            at = update(&*ground.store, key, number, at)?;
            let answered = Instant::now();
            for _ in 0..crowd {
                let (revision, seen) = arrivals
                    .recv_timeout(PATIENCE)
                    .context("a watcher is told nothing")?;
                if revision != at {
                    bail!("a watcher is told of {revision}, not of {at}");
                }
                delays.of_requests.push(seen.duration_since(asked));
                delays.of_answers.push(seen.saturating_duration_since(answered));
            }
        }
        drop(arrivals);
        Ok(delays)
    })
}
