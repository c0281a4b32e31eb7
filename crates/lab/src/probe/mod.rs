//! Clients that talk to an address and write down what comes back.
//!
//! A [`Probe`] talks all the time, from a thread inside a namespace, and counts what is lost and who answers; [`ask`] asks
//! once; [`Rounds`] pings many addresses; a [`Reader`] opens a TCP connection and only ever reads.

mod answer;
mod echo;
mod raw;
mod reader;
mod rounds;
mod sctp;
mod serve;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

pub use answer::Answer;
pub use raw::RawProtocol;
pub use reader::{Ending, Reader};
pub use rounds::Rounds;
pub use serve::{Server, serve_here};
pub use wire::{PORT, Via};
pub(crate) use wire::{any_like, bound, domain_of};

use crate::netns::Netns;
use wire::Wire;

/// How long a probe that was stopped waits for answers that are on their way.
const GRACE: Duration = Duration::from_secs(3);

/// How often a probe looks whether it is to stop.
const ATTENTION: Duration = Duration::from_millis(20);

/// What a probe has seen.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Questions sent.
    pub sent: u32,
    /// Questions answered.
    pub answered: u32,
    /// Answers by workload; under the empty name those of the kernel.
    pub by: BTreeMap<String, u32>,
    /// Source addresses that the workloads saw.
    pub saw: BTreeSet<IpAddr>,
    /// When another workload began to answer, and its name; the first answer of all begins the list.
    pub changes: Vec<(Instant, String)>,
    /// Longest time from one answer to the next.
    pub longest_gap: Duration,
    /// Errors of the socket, and how often.
    pub errors: BTreeMap<String, u32>,
    /// Why a stream came to its end before it was stopped.
    pub ended: Option<String>,
    open: BTreeSet<u32>,
    last: Option<Instant>,
    newest: u32,
}

impl Tally {
    /// Questions without an answer. While the probe runs, those on their way count too.
    pub fn lost(&self) -> u32 {
        self.sent - self.answered
    }

    /// Questions without an answer where a later one has been answered: what is on its way does not count.
    pub fn overtaken(&self) -> usize {
        self.open.range(..self.newest).count()
    }

    /// When this workload answered for the first time.
    pub fn first_answer_by(&self, who: &str) -> Option<Instant> {
        self.changes
            .iter()
            .find(|(_, name)| name == who)
            .map(|(at, _)| *at)
    }

    fn note(&mut self, answer: Answer) {
        if !self.open.remove(&answer.number) {
            return;
        }
        let now = Instant::now();
        self.answered += 1;
        self.newest = self.newest.max(answer.number);
        if self.changes.last().is_none_or(|(_, name)| *name != answer.who) {
            self.changes.push((now, answer.who.clone()));
        }
        *self.by.entry(answer.who).or_default() += 1;
        self.saw.extend(answer.saw);
        if let Some(last) = self.last.replace(now) {
            self.longest_gap = self.longest_gap.max(now - last);
        }
    }

    fn note_error(&mut self, error: &std::io::Error) {
        *self.errors.entry(error.to_string()).or_default() += 1;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} answered, longest gap {:?}",
            self.answered, self.sent, self.longest_gap
        )?;
        for (who, count) in self.by.iter().filter(|(who, _)| !who.is_empty()) {
            write!(f, ", {count} by {who}")?;
        }
        if !self.open.is_empty() {
            let first: Vec<u32> = self.open.iter().take(10).copied().collect();
            write!(f, ", unanswered from {first:?}")?;
        }
        for (error, count) in &self.errors {
            write!(f, ", {count} × {error}")?;
        }
        if let Some(ended) = &self.ended {
            write!(f, ", ended: {ended}")?;
        }
        Ok(())
    }
}

/// A client that asks at an interval. Dropping it stops it.
#[derive(Debug)]
pub struct Probe {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    what: String,
}

#[derive(Debug, Default)]
struct Shared {
    tally: Mutex<Tally>,
    stop: Mutex<Option<Instant>>,
}

impl Probe {
    /// Starts asking `to` from inside a namespace. Error: the conversation cannot be opened, which for TCP means that no
    /// connection came about.
    pub fn start(netns: &Netns, via: Via, to: IpAddr, every: Duration) -> Result<Self> {
        let wire = netns.enter(move || wire::open(via, to))?;
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("probe".to_owned())
            .spawn(move || drive(wire, every, &theirs))?;
        Ok(Self {
            shared,
            thread: Some(thread),
            what: format!("{} to {to}", via.name()),
        })
    }

    /// What it has seen until now.
    pub fn tally(&self) -> Tally {
        lock(&self.shared.tally).clone()
    }

    /// Waits until what it has seen is enough, and returns that. Error: it is not within `limit`.
    pub fn wait(&self, limit: Duration, what: &str, enough: impl Fn(&Tally) -> bool) -> Result<Tally> {
        let begun = Instant::now();
        loop {
            let tally = self.tally();
            if enough(&tally) {
                return Ok(tally);
            }
            if begun.elapsed() > limit {
                bail!("{}: waited {limit:?} in vain: {what}\n  {tally}", self.what);
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until `count` more questions have been answered.
    pub fn wait_for_more(&self, count: u32, limit: Duration) -> Result<Tally> {
        let goal = self.tally().answered + count;
        self.wait(limit, &format!("{count} more answers"), |tally| {
            tally.answered >= goal
        })
    }

    /// Stops asking, and does not wait: for who stops several.
    pub fn halt(&self) {
        lock(&self.shared.stop).get_or_insert_with(Instant::now);
    }

    /// Stops asking, gives what is on its way some seconds to arrive, and returns what it has seen.
    pub fn stop(mut self) -> Result<Tally> {
        self.end()?;
        Ok(self.tally())
    }

    fn end(&mut self) -> Result<()> {
        self.halt();
        match self.thread.take() {
            Some(thread) => thread
                .join()
                .map_err(|_| anyhow!("{}: the probe panicked", self.what)),
            None => Ok(()),
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A probe's life: ask when it is time, listen in between.
fn drive(mut wire: Box<dyn Wire>, every: Duration, shared: &Shared) {
    let mut number = 0;
    let mut next = Instant::now();
    loop {
        let stopped = *lock(&shared.stop);
        if stopped.is_some_and(|at| at.elapsed() > GRACE || lock(&shared.tally).open.is_empty()) {
            return;
        }
        let now = Instant::now();
        let mut result = Ok(None);
        if stopped.is_none() && now >= next {
            number += 1;
            // After a pause of the machine, no burst.
            next = (next + every).max(now);
            let mut tally = lock(&shared.tally);
            tally.sent = number;
            tally.open.insert(number);
            drop(tally);
            result = wire.send(number).map(|()| None);
        }
        if result.is_ok() {
            let wait = next.saturating_duration_since(now).min(ATTENTION);
            result = wire.receive(if stopped.is_some() { ATTENTION } else { wait });
        }
        let mut tally = lock(&shared.tally);
        match result {
            Ok(None) => {}
            Ok(Some(answer)) => tally.note(answer),
            Err(error) if wire.is_stream() => {
                tally.ended = Some(error.to_string());
                return;
            }
            Err(error) => tally.note_error(&error),
        }
    }
}

/// Asks once, and again every 50 ms, until there is an answer. Error: none within `limit`.
pub fn ask(netns: &Netns, via: Via, to: IpAddr, limit: Duration) -> Result<Answer> {
    netns
        .enter(move || {
            let begun = Instant::now();
            let mut last = anyhow!("it says nothing");
            let mut number = 0;
            while begun.elapsed() < limit {
                number += 1;
                match ask_once(via, to, number) {
                    Ok(Some(answer)) => return Ok(answer),
                    Ok(None) => {}
                    Err(error) => last = error,
                }
            }
            Err(last).with_context(|| format!("no answer within {limit:?}"))
        })
        .with_context(|| format!("{} from {} to {to}", via.name(), netns.name()))
}

/// One question and the wait for its answer, in the namespace of the calling thread.
fn ask_once(via: Via, to: IpAddr, number: u32) -> Result<Option<Answer>> {
    let wait = Duration::from_millis(50);
    let begun = Instant::now();
    let attempt = || -> Result<Option<Answer>> {
        let mut wire = wire::open(via, to)?;
        wire.send(number)?;
        while begun.elapsed() < wait {
            let rest = wait.saturating_sub(begun.elapsed()).max(Duration::from_millis(1));
            if let Some(answer) = wire.receive(rest)? {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    };
    let result = attempt();
    if result.is_err() {
        thread::sleep(wait.saturating_sub(begun.elapsed()));
    }
    result
}

/// Checks that nobody answers: asks for `period`. Error: somebody does, and who.
pub fn nobody_answers(netns: &Netns, via: Via, to: IpAddr, period: Duration) -> Result<()> {
    match ask(netns, via, to, period) {
        Err(_) => Ok(()),
        Ok(answer) => bail!("{} to {to} is answered, by '{}'", via.name(), answer.who),
    }
}

#[cfg(test)]
mod tests;
