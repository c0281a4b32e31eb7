//! One schedule: who steps next, who crashes, which answer is lost. Everything follows from the seed.

use std::fmt::Write as _;
use std::sync::Arc;

use buoy_api::ip::Family;
use buoy_api::ipam::IpamConfig;
use buoy_api::names::address_of_floating_handle;
use buoy_core::ipam::{
    Ask, Asker, AutoAssign, AutoAssignRequest, Grant, ReleaseHandle, ReleaseReservation, Snapshot,
};
use buoy_core::store::{FailureKind, Key, Next, Reply, Steps, StoreError, StoreOp, Value};
use jiff::SignedDuration;

use super::actors::{Phase, Process};
use super::check::holder;
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

struct Run {
    world: World,
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
        let choice = world.rng.below(16);
        let wanted = match choice {
            0..=5 => {
                let container = world.new_container();
                return world.add(container);
            }
            6..=8 => Phase::Live,
            9 | 10 => Phase::Broken,
            11 => Phase::Gone,
            12 | 13 => return self.act_on_floating(),
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
        let reply = self.answer(index);
        let written = matches!(reply, Reply::Written(_) | Reply::Deleted | Reply::Unknown);
        self.tell(|world| {
            let process = &world.processes[index];
            format!("{}: {:?} -> {}", name(process), process.next, brief(&reply))
        });
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

    fn answer(&mut self, index: usize) -> Reply {
        let operation = self.world.processes[index].next.clone();
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
                if is_same_but_for_its_number(store.get(&key).map(|found| found.value), &value) =>
            {
                return Reply::Written(revision);
            }
            (_, operation) => operation,
        };
        store.apply(operation)
    }

    /// A collector frees what belongs to nobody, found by the handles alone; then everybody goes.
    fn tidy_up(&mut self) -> Result<(), String> {
        let live = |world: &World, id: &str| {
            world
                .containers
                .iter()
                .any(|container| container.phase == Phase::Live && container.handle == id)
                || world.floating.iter().any(|floating| {
                    floating.live.is_some() && address_of_floating_handle(id) == Some(floating.address.addr())
                })
        };
        for id in self.handles() {
            if !live(&self.world, &id) {
                self.collect(&id)?;
            }
        }
        self.world.check()?;
        self.world.containers.clear();
        self.world
            .floating
            .iter_mut()
            .for_each(|floating| floating.live = None);
        for id in self.handles() {
            self.collect(&id)?;
        }
        for (key, value) in self.world.store.iter() {
            match value {
                Value::Handle(_) => return Err(format!("left: {key:?}")),
                Value::Block(block) if !block.is_empty() => {
                    return Err(format!("addresses are left: {block:?}"));
                }
                _ => {}
            }
        }
        // It takes as long as all the rest.
        if self.world.rng.chance(250) {
            self.everything_can_be_given_again()
        } else {
            Ok(())
        }
    }

    fn handles(&self) -> Vec<String> {
        let of_handle = |(key, _): (&Key, _)| match key {
            Key::Handle(id) => Some(id.clone()),
            _ => None,
        };
        self.world.store.iter().filter_map(of_handle).collect()
    }

    fn collect(&mut self, id: &str) -> Result<(), String> {
        self.tell(|_| format!("collect {id}"));
        let released = match address_of_floating_handle(id) {
            None => self.drive(ReleaseHandle::new(id.to_owned()))?,
            Some(address) => {
                let stamp = holder(&self.world.store, address).map_or(0, |(_, stamp)| stamp);
                let address = address.try_into().map_err(|error| format!("{error}"))?;
                self.drive(ReleaseReservation::new(address, stamp))?
            }
        };
        released
            .map(drop)
            .map_err(|error| format!("{id} cannot be released: {error}"))
    }

    /// Nothing that died keeps a new host from any address.
    fn everything_can_be_given_again(&mut self) -> Result<(), String> {
        let snapshot = Snapshot {
            config: IpamConfig::default(),
            ..(*self.world.snapshot).clone()
        };
        let room = |family: Family| {
            let pools = snapshot.pools.iter().map(|pool| pool.spec.cidr);
            let hosts = pools
                .filter(|cidr| Family::of_net(cidr) == family)
                .flat_map(all_of);
            hosts
                .filter(|address| !snapshot.reserved.iter().any(|range| range.contains(address)))
                .count()
        };
        let (v4, v6) = (room(Family::V4), room(Family::V6));
        let handle = "net.last".to_owned();
        let later = self
            .world
            .now
            .checked_add(SignedDuration::from_mins(5))
            .map_err(|error| error.to_string())?;
        let request = AutoAssignRequest {
            snapshot: Arc::new(snapshot),
            asker: Asker {
                host: "new".to_owned(),
                ..Asker::default()
            },
            grant: Grant {
                handle: handle.clone(),
                ..Grant::default()
            },
            v4: Ask::of(v4),
            v6: Ask::of(v6),
            cached: Vec::new(),
            seed: self.world.rng.next(),
            now: later,
        };
        let assigned = self.drive(AutoAssign::new(request))?;
        let assigned = assigned.map_err(|error| format!("a new host does not get every address: {error}"))?;
        if assigned.addresses.len() != v4 + v6 {
            return Err(format!(
                "a new host was given {} of {}",
                assigned.addresses.len(),
                v4 + v6
            ));
        }
        self.drive(ReleaseHandle::new(handle))?
            .map_err(|error| error.to_string())?;
        match self.handles().first() {
            Some(left) => Err(format!("handle {left} is left")),
            None => Ok(()),
        }
    }

    /// Runs a protocol alone, in fair weather.
    fn drive<M: Steps>(&mut self, mut machine: M) -> Result<M::Out, String> {
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
                    self.world.check()?;
                }
            }
        }
        Err("a protocol alone does not end".to_owned())
    }

    fn tell(&mut self, line: impl FnOnce(&World) -> String) {
        if let Some(trace) = &mut self.trace {
            let _ = writeln!(trace, "{}", line(&self.world));
        }
    }
}

fn all_of(cidr: ipnet::IpNet) -> impl Iterator<Item = std::net::IpAddr> {
    (0..).map_while(move |n| buoy_api::ipam::nth_address(&cidr, n))
}

fn is_same_but_for_its_number(found: Option<Result<Value, buoy_core::store::Bad>>, value: &Value) -> bool {
    match (found, value) {
        (Some(Ok(Value::Block(mut found))), Value::Block(new)) => {
            found.sequence_number = new.sequence_number;
            found == *new
        }
        _ => false,
    }
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
