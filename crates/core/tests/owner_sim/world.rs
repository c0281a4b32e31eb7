//! The cluster and its smallest steps.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use buoy_api::ip::FloatingIp;
use buoy_core::floating::claim::binding_key;
use buoy_core::store::{Delta, FailureKind, Key, Next, Reply, StoreError, StoreOp, Value};
use jiff::{SignedDuration, Timestamp};

use super::agent::{Agent, Listing};
use super::check::{History, Pen};
use super::rng::Rng;
use super::run::{Flaw, Watch, Weather};
use super::store::StoreSim;
use super::task::{Outcome, Stage, is_write};
use super::universe::{floating, node_name, pool};

/// Milliseconds by which a node's wall clock is fast or slow at most: of the order of what the clocks decide.
const SKEW: usize = 2500;

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) weather: Weather,
    pub(crate) flaw: Flaw,
    pub(crate) watch: Watch,
    pub(crate) now: Duration,
    pub(crate) store: StoreSim,
    pub(crate) agents: Vec<Agent>,
    /// Until when the datastore answers readings and takes no writes.
    pub(crate) outage: Option<Duration>,
    /// All agents live and are connected: nothing may be taken from anybody.
    pub(crate) all_live: bool,
    /// When what is wrong with an agent ends.
    pub(crate) troubles: Vec<Option<Duration>>,
    pub(crate) floating: Vec<FloatingIp>,
    /// Their bindings.
    pub(crate) keys: BTreeMap<FloatingIp, Key>,
    /// Writes whose answer was lost and that will happen later.
    pub(crate) limbo: Vec<(usize, StoreOp)>,
    pub(crate) history: History,
    pub(crate) incarnations: u16,
    pub(crate) trace: Option<String>,
    /// What the store is restored from.
    pub(crate) copy: StoreSim,
    /// It was.
    pub(crate) is_restored: bool,
}

impl World {
    pub(crate) fn new(seed: u64, weather: Weather) -> Self {
        let mut rng = Rng::new(seed);
        let nodes = 2 + rng.below(3);
        let addresses = 1 + rng.below(3);
        let agents: Vec<Agent> = (0..nodes)
            .map(|index| {
                let clock = Duration::from_millis(rng.below(1_000_000) as u64);
                let node = node_name(index);
                let skew = rng.below(2 * SKEW) as i64 - SKEW as i64;
                let mut agent = Agent::new(&node, &format!("agent-of-{node}"), clock);
                agent.skew = SignedDuration::from_millis(skew);
                agent
            })
            .collect();
        let mut store = StoreSim {
            now: Timestamp::from_second(1_000_000).unwrap(),
            ..StoreSim::default()
        };
        let (key, value) = pool();
        store.write(key, value);
        Self {
            rng,
            weather,
            flaw: Flaw::None,
            watch: Watch::All,
            now: Duration::ZERO,
            outage: None,
            all_live: false,
            store,
            troubles: agents.iter().map(|_| None).collect(),
            agents,
            floating: (0..addresses).map(floating).collect(),
            keys: (0..addresses)
                .map(floating)
                .map(|floating| (floating, binding_key(floating)))
                .collect(),
            limbo: Vec::new(),
            history: History::default(),
            incarnations: 0,
            trace: None,
            copy: StoreSim::default(),
            is_restored: false,
        }
    }

    /// What the wall clock of an agent's node shows.
    pub(crate) fn wall(&self, who: usize) -> Timestamp {
        self.store.now + self.agents[who].skew
    }

    pub(crate) fn tell(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.trace.is_none() {
            return;
        }
        let line = line(self);
        let now = self.now.as_millis();
        if let Some(trace) = &mut self.trace {
            let _ = writeln!(trace, "{now:>6} {line}");
        }
    }

    /// Time goes on, on every machine that is not paused.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.store.now += SignedDuration::try_from(time).unwrap();
        for agent in &mut self.agents {
            if !agent.is_paused {
                agent.clock += time;
            }
        }
    }

    /// Someone does something, if they can.
    pub(crate) fn any_step(&mut self) -> Result<(), String> {
        let who = self.rng.below(self.agents.len());
        match self.rng.below(8) {
            0 | 1 => self.turn(who),
            2 | 3 => {
                let count = 1 + self.rng.below(4);
                self.learn(who, count);
            }
            4 if !self.limbo.is_empty() && self.outage.is_none() && self.rng.chance(100) => {
                let at = self.rng.below(self.limbo.len());
                let (writer, operation) = self.limbo.swap_remove(at);
                self.tell(|world| format!("late, of {}: {operation:?}", world.agents[writer].identity));
                self.execute(Pen::Agent(writer), operation)?;
                self.forgive_low(writer);
            }
            5 => self.withdraw(who),
            _ if !self.agents[who].tasks.is_empty() => {
                let task = self.rng.below(self.agents[who].tasks.len());
                self.step(who, task)?;
            }
            _ => {}
        }
        self.check_confirmed()
    }

    pub(crate) fn turn(&mut self, who: usize) {
        if !self.agents[who].loops() {
            return;
        }
        let (wall, flaw) = (self.wall(who), self.flaw);
        let agent = &mut self.agents[who];
        agent.turn(wall, flaw);
        let begun: Vec<String> = if self.trace.is_some() {
            agent
                .waiting
                .iter()
                .map(|job| format!("{:?}", job.duty))
                .collect()
        } else {
            Vec::new()
        };
        agent.employ(wall, flaw);
        for duty in begun {
            self.tell(|world| format!("{} owes {duty}", world.agents[who].identity));
        }
    }

    fn withdraw(&mut self, who: usize) {
        if self.agents[who].loops()
            && let Some(floating) = self.agents[who].withdrawing.first().copied()
        {
            self.agents[who].withdrawn(floating);
        }
    }

    /// Lists, or takes in the next changes.
    pub(crate) fn learn(&mut self, who: usize, count: usize) {
        let agent = &mut self.agents[who];
        if !agent.loops() {
            return;
        }
        let now = agent.mono();
        let read = agent.link.requests && agent.link.answers;
        match agent.listing {
            Listing::Nothing if read => {
                for delta in self.store.snapshot().filter(|delta| !is_binding(delta)) {
                    agent.dirty.extend(agent.view.apply(delta, now));
                }
                agent.listing = Listing::AllButBindings;
                agent.learnt = self.store.log.len();
            }
            Listing::AllButBindings if read => {
                for delta in self.store.snapshot().filter(is_binding) {
                    agent.dirty.extend(agent.view.apply(delta, now));
                }
                let is_restored = agent.listed(self.store.revision);
                assert!(!is_restored || self.is_restored, "no store went back");
            }
            Listing::All(listed) if agent.link.watch => {
                for delta in self.store.log.iter().skip(agent.learnt).take(count) {
                    if !is_binding(delta) || delta.revision.0 > listed {
                        agent.dirty.extend(agent.view.apply(delta.clone(), now));
                    }
                    agent.learnt += 1;
                }
            }
            _ => {}
        }
    }

    /// One operation of a duty goes one step further.
    pub(crate) fn step(&mut self, who: usize, at: usize) -> Result<(), String> {
        let agent = &mut self.agents[who];
        let moves = agent.moves();
        let task = &mut agent.tasks[at];
        match std::mem::replace(&mut task.stage, Stage::Answered(Reply::Start)) {
            Stage::Answered(reply) if moves => {
                let now = agent.mono();
                if !matches!(reply, Reply::Start | Reply::Unknown | Reply::Failed(_)) {
                    agent.note_contact();
                }
                match (agent.tasks[at].machine)(reply, now) {
                    Next::Do(operation) => {
                        self.agents[who].tasks[at].stage = Stage::Asked(operation);
                        Ok(())
                    }
                    Next::Done(outcome) => {
                        let task = self.agents[who].tasks.remove(at);
                        self.tell(|world| {
                            format!("{} {}: {outcome:?}", world.agents[who].identity, task.subject)
                        });
                        match &outcome {
                            _ if !task.is_first_claim => {}
                            Outcome::Failed(_) => self.forgive_low(who),
                            _ => self.check_lifted(who, &task.subject)?,
                        }
                        self.agents[who].inbox.push_back((task.subject, outcome));
                        let (wall, flaw) = (self.wall(who), self.flaw);
                        self.agents[who].employ(wall, flaw);
                        Ok(())
                    }
                }
            }
            Stage::Asked(operation) if self.outage.is_some() && is_write(&operation) => {
                let stage = self.wait_to_write(who, at, operation);
                self.agents[who].tasks[at].stage = stage;
                Ok(())
            }
            Stage::Asked(operation) => {
                let stage = self.carry(who, operation)?;
                self.agents[who].tasks[at].stage = stage;
                Ok(())
            }
            Stage::Returning(reply) if moves => {
                let stage = self.bring(who, reply);
                self.agents[who].tasks[at].stage = stage;
                Ok(())
            }
            stage => {
                task.stage = stage;
                Ok(())
            }
        }
    }

    /// An operation on its way to the datastore.
    fn carry(&mut self, who: usize, operation: StoreOp) -> Result<Stage, String> {
        let is_write = is_write(&operation);
        if !self.agents[who].link.requests {
            return Ok(match self.rng.below(8) {
                0 if is_write => Stage::Returning(Reply::Unknown),
                0 | 1 => Stage::Returning(away()),
                _ => Stage::Asked(operation),
            });
        }
        if self.rng.chance(self.weather.failed) {
            return Ok(Stage::Returning(away()));
        }
        if is_write && self.rng.chance(self.weather.late) {
            self.limbo.push((who, operation));
            return Ok(Stage::Returning(Reply::Unknown));
        }
        self.execute(Pen::Agent(who), operation).map(Stage::Returning)
    }

    /// An answer on its way back. One that does not come may look like a lost answer or like a failure.
    fn bring(&mut self, who: usize, reply: Reply) -> Stage {
        let never_came = matches!(reply, Reply::Unknown | Reply::Failed(_));
        if never_came {
            return Stage::Answered(reply);
        }
        let is_cut = !self.agents[who].link.answers;
        if is_cut && !self.rng.chance(250) {
            return Stage::Returning(reply);
        }
        if is_cut || self.rng.chance(self.weather.unknown) {
            let fails = matches!(reply, Reply::Record(_)) || self.rng.chance(300);
            return Stage::Answered(if fails { away() } else { Reply::Unknown });
        }
        Stage::Answered(reply)
    }

    /// The datastore carries an operation out, and what it wrote is checked.
    pub(crate) fn execute(&mut self, pen: Pen, operation: StoreOp) -> Result<Reply, String> {
        let operation = match operation {
            StoreOp::Update(key @ Key::Lease(_), Value::Lease(lease), revision)
                if self.flaw == Flaw::RenewalIgnoresRevision && lease.spec.holder.is_some() =>
            {
                let present = self.store.get(&key).map_or(revision, |record| record.revision);
                StoreOp::Update(key, Value::Lease(lease), present)
            }
            operation => operation,
        };
        let key = match &operation {
            StoreOp::Get(_) | StoreOp::List(_) => return Ok(self.store.run(operation)),
            StoreOp::Create(key, _)
            | StoreOp::Update(key, ..)
            | StoreOp::Delete(key, _)
            | StoreOp::Apply(key, ..) => key.clone(),
        };
        let before = self.store.get(&key);
        let told = self.trace.is_some().then(|| format!("{operation:?}"));
        let reply = self.store.run(operation);
        if let Some(told) = told {
            let name = match pen {
                Pen::Agent(who) => self.agents[who].identity.clone(),
                Pen::Person => "somebody".to_owned(),
            };
            self.tell(|_| format!("{name} {reply:?}: {told}"));
        }
        if matches!(reply, Reply::Written(_) | Reply::Deleted) {
            let checked = self.written(pen, &key, before);
            if self.watch == Watch::All {
                checked?;
            }
        }
        Ok(reply)
    }
}

pub(crate) fn is_binding(delta: &Delta) -> bool {
    matches!(delta.key, Key::Binding(_))
}

pub(crate) fn away() -> Reply {
    Reply::Failed(StoreError {
        kind: FailureKind::Unavailable,
        message: "the store is away".to_owned(),
    })
}
