//! One schedule: who steps next, who crashes, which answer is lost. Everything follows from the seed.

use std::fmt::Write as _;

use buoy_core::store::{FailureKind, Key, Next, Reply, Steps, StoreError, StoreOp, Value};

use super::actors::{Phase, Process};
use super::world::World;

/// A rule that is broken on purpose, to see that the model notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    /// A block is written whatever its revision.
    BlockIgnoresRevision,
    /// A handle is deleted whatever its revision.
    HandleIgnoresRevision,
    /// A handle is not written before its block.
    HandleIsNotWritten,
    /// A release does not write blocks that give nothing to its handle.
    ReleaseWritesNoEmptyBlock,
    /// A DEL frees the addresses it remembers, whoever has them.
    ReleaseByBareAddress,
}

/// How rough the weather is, in chances of a thousand per step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub crash: u64,
    pub unknown: u64,
    pub failed: u64,
    /// Operations whose answer was lost and that happen later.
    pub late: u64,
    /// A second protocol begins for a handle that has one.
    pub collide: u64,
}

/// Every host lives and every answer comes; only the others are in the way.
pub(crate) const CALM: Weather = Weather {
    crash: 0,
    unknown: 0,
    failed: 0,
    late: 0,
    collide: 20,
};
/// Answers are lost and operations fail.
pub(crate) const LOSSY: Weather = Weather {
    crash: 10,
    unknown: 80,
    failed: 10,
    late: 0,
    collide: 20,
};
/// Processes die between any two operations.
pub(crate) const DEADLY: Weather = Weather {
    crash: 100,
    unknown: 40,
    failed: 20,
    late: 0,
    collide: 20,
};
/// What was taken for lost happens after all.
pub(crate) const LATE: Weather = Weather {
    crash: 60,
    unknown: 20,
    failed: 10,
    late: 60,
    collide: 20,
};

const MIN_ACTIONS: usize = 6;
const MAX_ACTIONS: usize = 22;
const MAX_STEPS: usize = 20_000;

/// Runs one schedule. On failure: what went wrong.
pub(crate) fn schedule(seed: u64, weather: Weather, flaw: Flaw) -> Result<(), String> {
    Run::new(seed, weather, flaw, false)
        .all()
        .map_err(|(reason, _)| reason)
}

/// The same with every operation in words.
pub(crate) fn story(seed: u64, weather: Weather, flaw: Flaw) -> String {
    match Run::new(seed, weather, flaw, true).all() {
        Ok(()) => "nothing went wrong".to_owned(),
        Err((reason, trace)) => format!("{trace}{reason}"),
    }
}

pub(crate) struct Run {
    pub(crate) world: World,
    weather: Weather,
    /// Operations that will happen later, though their answer was lost.
    limbo: Vec<StoreOp>,
    trace: Option<String>,
}

impl Run {
    fn new(seed: u64, weather: Weather, flaw: Flaw, traced: bool) -> Self {
        Self {
            world: World::new(seed, flaw),
            weather,
            limbo: Vec::new(),
            trace: traced.then(String::new),
        }
    }

    fn all(mut self) -> Result<(), (String, String)> {
        let end = self
            .turmoil()
            .and_then(|()| self.calm_down())
            .and_then(|()| self.tidy_up());
        end.map_err(|reason| (reason, self.trace.unwrap_or_default()))
    }

    /// Hosts begin things and die in the middle of them.
    fn turmoil(&mut self) -> Result<(), String> {
        let mut actions = MIN_ACTIONS + self.world.rng.below(MAX_ACTIONS - MIN_ACTIONS);
        while actions > 0 {
            if self.world.processes.is_empty() || self.world.rng.chance(200) {
                actions -= 1;
                self.act();
            } else {
                self.any_step()?;
            }
        }
        Ok(())
    }

    /// What is under way ends, one way or the other.
    fn calm_down(&mut self) -> Result<(), String> {
        for _ in 0..MAX_STEPS {
            if self.world.processes.is_empty() {
                while !self.limbo.is_empty() {
                    self.land()?;
                }
                return Ok(());
            }
            self.any_step()?;
        }
        Err("protocols keep each other from ending".to_owned())
    }

    fn act(&mut self) {
        let world = &mut self.world;
        let choice = world.rng.below(17);
        let wanted = match choice {
            0..=5 => {
                let container = world.new_container();
                return world.add(container);
            }
            6..=8 => Phase::Live,
            9 | 10 => Phase::Broken,
            11 => Phase::Gone,
            12 | 13 => return self.act_on_floating(),
            16 => return world.give_up(),
            _ => {
                let host = world.rng.below(world.hosts.len());
                return world.refresh(host);
            }
        };
        let collide = world.rng.chance(self.weather.collide);
        let fits = |index: &usize| {
            let container = &world.containers[*index];
            collide != (container.busy == 0) && (collide || container.phase == wanted)
        };
        let candidates: Vec<usize> = (0..world.containers.len()).filter(fits).collect();
        let Some(container) = world.rng.pick(&candidates).copied() else {
            return;
        };
        let again = wanted != Phase::Gone && world.rng.chance(300);
        match again {
            true => world.add(container),
            false => world.delete(container),
        }
    }

    fn act_on_floating(&mut self) {
        let world = &mut self.world;
        let index = world.rng.below(world.floating.len());
        let stamps = world.floating[index].stamps.clone();
        match world.rng.pick(&stamps).copied() {
            Some(seen) if world.rng.chance(500) => world.release_reservation(index, seen),
            _ => world.reserve(index),
        }
    }

    /// Some process does one operation, or dies.
    fn any_step(&mut self) -> Result<(), String> {
        if !self.limbo.is_empty() && self.world.rng.chance(100) {
            return self.land();
        }
        let index = self.world.rng.below(self.world.processes.len());
        if self.world.rng.chance(self.weather.crash) {
            self.tell(|world| format!("{} dies", name(&world.processes[index])));
            self.world.crash(index);
            return Ok(());
        }
        let process = &mut self.world.processes[index];
        let told = self
            .trace
            .is_some()
            .then(|| format!("{}: {:?}", name(process), process.next));
        let operation = std::mem::replace(&mut process.next, StoreOp::Get(Key::IpamConfig));
        let reply = self.answer(operation);
        let written = may_have_written(&reply);
        if let Some(told) = told {
            self.tell(|_| format!("{told} -> {}", brief(&reply)));
        }
        self.world.processes[index].failed |= matches!(reply, Reply::Failed(_));
        match self.world.processes[index].machine.step(reply) {
            Next::Do(operation) => self.world.processes[index].next = operation,
            Next::Done(outcome) => {
                let process = self.world.processes.swap_remove(index);
                self.world.finish(process, outcome)?;
            }
        }
        if written { self.world.check() } else { Ok(()) }
    }

    fn answer(&mut self, operation: StoreOp) -> Reply {
        let is_write = !matches!(operation, StoreOp::Get(_) | StoreOp::List(_));
        let rng = &mut self.world.rng;
        if rng.chance(self.weather.failed) {
            return Reply::Failed(StoreError {
                kind: FailureKind::Unavailable,
                message: "the store is away".to_owned(),
            });
        }
        if is_write && rng.chance(self.weather.late) {
            self.limbo.push(operation);
            return Reply::Unknown;
        }
        if rng.chance(self.weather.unknown) {
            if rng.chance(500) {
                self.apply(operation);
            }
            return Reply::Unknown;
        }
        self.apply(operation)
    }

    /// An operation that was taken for lost happens.
    fn land(&mut self) -> Result<(), String> {
        let index = self.world.rng.below(self.limbo.len());
        let operation = self.limbo.swap_remove(index);
        self.tell(|_| format!("late: {operation:?}"));
        self.apply(operation);
        self.world.check()
    }

    fn apply(&mut self, operation: StoreOp) -> Reply {
        let store = &mut self.world.store;
        let operation = match (self.world.flaw, operation) {
            (Flaw::BlockIgnoresRevision, StoreOp::Update(key @ Key::Block(_), value, revision)) => {
                let present = store.revision_of(&key).unwrap_or(revision);
                StoreOp::Update(key, value, present)
            }
            (Flaw::HandleIgnoresRevision, StoreOp::Delete(key @ Key::Handle(_), revision)) => {
                let present = store.revision_of(&key).unwrap_or(revision);
                StoreOp::Delete(key, present)
            }
            (Flaw::HandleIsNotWritten, StoreOp::Update(Key::Handle(_), _, revision)) => {
                return Reply::Written(revision);
            }
            (Flaw::ReleaseWritesNoEmptyBlock, StoreOp::Update(key @ Key::Block(_), value, revision))
                if store.revision_of(&key) == Some(revision)
                    && is_same_but_for_its_number(store.value(&key), &value) =>
            {
                return Reply::Written(revision);
            }
            (_, operation) => operation,
        };
        store.apply(operation)
    }

    /// Runs a protocol alone, in fair weather.
    pub(crate) fn drive<M: Steps>(&mut self, mut machine: M) -> Result<M::Out, String> {
        let mut reply = Reply::Start;
        for _ in 0..MAX_STEPS {
            match machine.step(reply) {
                Next::Done(out) => return Ok(out),
                Next::Do(operation) => {
                    let told = self.trace.is_some().then(|| format!("alone: {operation:?}"));
                    reply = self.apply(operation);
                    if let Some(told) = told {
                        self.tell(|_| format!("{told} -> {}", brief(&reply)));
                    }
                    if may_have_written(&reply) {
                        self.world.check()?;
                    }
                }
            }
        }
        Err("a protocol alone does not end".to_owned())
    }

    pub(crate) fn tell(&mut self, line: impl FnOnce(&World) -> String) {
        if let Some(trace) = &mut self.trace {
            let _ = writeln!(trace, "{}", line(&self.world));
        }
    }
}

fn is_same_but_for_its_number(found: Option<&Value>, new: &Value) -> bool {
    match (found.cloned(), new) {
        (Some(Value::Block(mut found)), Value::Block(new)) => {
            found.sequence_number = new.sequence_number;
            found == *new
        }
        _ => false,
    }
}

fn may_have_written(reply: &Reply) -> bool {
    matches!(reply, Reply::Written(_) | Reply::Deleted | Reply::Unknown)
}

fn name(process: &Process) -> String {
    format!("n{} {:?}", process.host, process.purpose)
}

fn brief(reply: &Reply) -> String {
    match reply {
        Reply::Record(Some(record)) => format!("at {}", record.revision),
        Reply::List(records, _) => format!("{} records", records.len()),
        other => format!("{other:?}"),
    }
}
