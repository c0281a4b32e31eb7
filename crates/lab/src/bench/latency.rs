//! From a commit in the store to the kernel, and to the client.

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use buoy_api::Binding;
use buoy_api::binding::{Candidate, Move, Target};
use buoy_core::store::{Reply, StoreOp, Value};

use super::bed::Bed;
use super::events::Events;
use super::load::UDP;
use super::population::{FRONT, OTHER, Population, binding};
use super::report::{Aim, Report, Row};
use super::{Scale, machine, progress};
use crate::netns::Netns;
use crate::probe::any_like;

/// Patience with one change on a busy machine.
const SOON: Duration = Duration::from_secs(10);
/// A pause in which the agent can come to its end with the change before.
const PAUSE: Duration = Duration::from_millis(15);
/// Between the questions of a client.
const BETWEEN: Duration = Duration::from_micros(300);
/// How long a client waits for an answer before it asks again.
const NO_ANSWER: Duration = Duration::from_millis(2);

/// One record changes: the owner of one floating IP among all. And one request is added, from which the owner follows.
pub(super) fn changes(
    bed: &Bed,
    population: &Population<'_>,
    scale: &Scale,
    report: &mut Report,
) -> Result<()> {
    progress("  changes, one at a time")?;
    machine::rest(bed.agent()?)?;
    let events = Events::subscribe(bed.node.netns())?;
    let mut took = Vec::new();
    for floating in population.shared().into_iter().cycle().take(scale.changes) {
        took.push(change_owner(bed, &events, floating, population)?);
        thread::sleep(PAUSE);
    }
    let level = population.level();
    report.add(
        Row::times(format!("change/owner/{level}"), &took)
            .aim(Aim::P50(3.0))
            .aim(Aim::P99(10.0)),
    );
    let extra = population.address(level + 1);
    let internal = population.other().address(extra)?;
    let mut took = Vec::new();
    for _ in 0..scale.changes.div_ceil(4) {
        let begun = Instant::now();
        population.set_extra(extra, true)?;
        took.push(
            events
                .programmed(extra, internal, SOON)?
                .saturating_duration_since(begun),
        );
        population.set_extra(extra, false)?;
        thread::sleep(PAUSE * 4);
    }
    report.add(Row::times(format!("change/request/{level}"), &took));
    machine::rest(bed.agent()?)
}

/// Writes another owner into a binding, as an agent does it, and waits for the kernel.
fn change_owner(
    bed: &Bed,
    events: &Events,
    floating: IpAddr,
    population: &Population<'_>,
) -> Result<Duration> {
    events.clear();
    let mut internal = floating;
    let begun = edit(bed, floating, |binding| {
        let owner = binding.spec.owner.clone().context("a binding without an owner")?;
        let [front, other] = [population.front(), population.other()];
        let next = if owner.workload == front.name() {
            other
        } else {
            front
        };
        let candidate = candidate(binding, next.name())?;
        internal = next.address(floating)?;
        binding.spec.owner = Some(candidate.as_owner(owner.term));
        binding.spec.epoch = binding.spec.epoch.next();
        Ok(())
    })?;
    Ok(events
        .programmed(floating, internal, SOON)?
        .saturating_duration_since(begun))
}

fn candidate<'a>(binding: &'a Binding, name: &str) -> Result<&'a Candidate> {
    let mut candidates = binding.status.candidates.iter();
    candidates
        .find(|candidate| candidate.workload == name)
        .with_context(|| format!("{name} is no candidate for {}", binding.spec.address))
}

/// Changes a binding; returns when the commit that succeeded was begun.
fn edit(bed: &Bed, floating: IpAddr, mut change: impl FnMut(&mut Binding) -> Result<()>) -> Result<Instant> {
    let patience = Instant::now();
    while patience.elapsed() < SOON {
        let record = binding(bed, floating)?;
        let Ok(Value::Binding(mut found)) = record.value else {
            bail!("the binding of {floating} does not decode");
        };
        change(&mut found)?;
        let update = StoreOp::Update(record.key, Value::Binding(found), record.revision);
        let begun = Instant::now();
        match bed.store.run(&update) {
            Reply::Written(_) => return Ok(begun),
            Reply::Conflict => {}
            other => bail!("cannot change the binding of {floating}: {other:?}"),
        }
    }
    bail!("the binding of {floating} keeps changing")
}

/// Moves the first floating IP from one workload to the other and back, under questions of two clients.
pub(super) fn moves(
    bed: &Bed,
    population: &Population<'_>,
    scale: &Scale,
    report: &mut Report,
) -> Result<()> {
    progress("  moves")?;
    machine::rest(bed.agent()?)?;
    let floating = population.floating();
    let clients = [
        Client::start(&bed.client, floating, false)?,
        Client::start(&bed.client, floating, true)?,
    ];
    for client in &clients {
        client.first_answer(FRONT, None)?;
    }
    let mut took = [Vec::new(), Vec::new()];
    for number in 0..scale.moves {
        let (next, name) = match number % 2 {
            0 => (OTHER, population.other().name()),
            _ => (FRONT, population.front().name()),
        };
        let begun = edit(bed, floating, |binding| {
            candidate(binding, name)?;
            binding.spec.requested_move = Some(Move {
                id: format!("bench-{number}"),
                to: Target {
                    node: None,
                    workload: name.to_owned(),
                    endpoint: None,
                },
                exclusive: false,
                drain: None,
            });
            Ok(())
        })?;
        for (client, took) in clients.iter().zip(&mut took) {
            took.push(
                client
                    .first_answer(next, Some(begun))?
                    .saturating_duration_since(begun),
            );
        }
        thread::sleep(PAUSE);
    }
    let level = population.level();
    let [fresh, kept] = &took;
    let row = Row::times(format!("move/new-flows/{level}"), fresh);
    report.add(row.aim(Aim::P50(8.0)).aim(Aim::P99(25.0)));
    let row = Row::times(format!("move/kept-flow/{level}"), kept);
    report.add(row.aim(Aim::P50(8.0)).aim(Aim::P99(25.0)));
    Ok(())
}

/// A client that asks all the time and tells when somebody else begins to answer. Dropping it stops it.
#[derive(Debug)]
struct Client {
    answers: Receiver<(u8, Instant)>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Client {
    /// Starts it, with one port for all questions or another one for each.
    fn start(netns: &Netns, to: IpAddr, keeps_port: bool) -> Result<Self> {
        let (sender, answers) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&stop);
        let thread = netns.spawn("client", move || {
            ask_on(to, keeps_port, &theirs, &sender).context("a client that asks all the time")
        })?;
        Ok(Self {
            answers,
            stop,
            thread: Some(thread),
        })
    }

    /// When this workload began to answer. What was known before `since` does not count: a question from a port that
    /// was used before may have been answered by the last workload once more.
    fn first_answer(&self, name: u8, since: Option<Instant>) -> Result<Instant> {
        let begun = Instant::now();
        while begun.elapsed() < SOON {
            let (who, at) = self.answers.recv_timeout(SOON).context("nobody else answers")?;
            if who == name && since.is_none_or(|since| at > since) {
                return Ok(at);
            }
        }
        bail!("the other workload does not answer");
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn ask_on(to: IpAddr, keeps_port: bool, stop: &AtomicBool, changes: &Sender<(u8, Instant)>) -> Result<()> {
    let mut socket = open(to)?;
    let mut last = None;
    let mut answer = [0; 16];
    while !stop.load(Ordering::Relaxed) {
        if !keeps_port {
            socket = open(to)?;
        }
        // What cannot be sent now, and what is not answered, is asked again.
        if socket.send(b"?").is_ok() && socket.recv(&mut answer).is_ok() {
            let now = Instant::now();
            if last.replace(answer[0]) != Some(answer[0]) && changes.send((answer[0], now)).is_err() {
                break;
            }
        }
        thread::sleep(BETWEEN);
    }
    Ok(())
}

fn open(to: IpAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((any_like(to), 0))?;
    socket.connect((to, UDP))?;
    socket.set_read_timeout(Some(NO_ANSWER))?;
    Ok(socket)
}
