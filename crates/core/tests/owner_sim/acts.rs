//! What befalls the cluster: workloads, people, failures.

use std::time::Duration;

use buoy_api::binding::{Move, Target};
use buoy_core::duty::Duty;
use buoy_core::edit::Change;
use buoy_core::endpoint::Phase;
use buoy_core::floating::claim::binding_key;
use buoy_core::floating::collect;
use buoy_core::floating::lease::Own;
use buoy_core::store::{Key, StoreOp, Value};
use buoy_core::subject::Subject;
use buoy_core::time::Now;
use buoy_core::view::Daemon;

use super::agent::{Agent, Link, Process, WHOLE};
use super::check::Pen;
use super::task::Stage;
use super::universe::{WORKLOADS, Wish, attachment, own_address};
use super::world::World;

/// Identity of a second agent under a node's name.
pub(crate) const TWIN: &str = "twin";

impl World {
    /// Something happens to somebody.
    pub(crate) fn act(&mut self) -> Result<(), String> {
        let who = self.rng.below(self.agents.len());
        match self.rng.below(24) {
            0..=5 => self.attach(who),
            6 | 7 => self.detach(who),
            8 => self.renumber(who),
            9..=11 if self.outage.is_none() => self.ask_for_a_move(),
            12 if self.outage.is_none() => return self.delete_binding(),
            13 => self.change_daemon(who),
            14 if self.rng.chance(self.weather.twin) => self.add_twin(),
            15 if self.rng.chance(self.weather.trouble) => {
                let millis = 200 + self.rng.below(12_000);
                self.take_no_writes(Duration::from_millis(millis as u64));
            }
            16 | 17 => self.finish_an_add(who),
            _ if self.rng.chance(self.weather.trouble) => {
                let who = self.victim(who);
                return self.trouble(who);
            }
            _ => {}
        }
        Ok(())
    }

    fn attach(&mut self, who: usize) {
        let floating = self.floating.clone();
        let asked = floating.into_iter().filter(|_| self.rng.chance(700)).collect();
        self.incarnations += 1;
        let mut made = attachment(Wish {
            node: self.agents[who].node().to_owned(),
            workload: self.rng.below(WORKLOADS),
            incarnation: self.incarnations,
            floating: asked,
            priority: self.rng.below(8).saturating_sub(5) as i32,
            exclusive: self.rng.chance(200),
            since: self.wall(who),
        });
        if self.rng.chance(400) {
            made.phase = Phase::Adding;
        }
        self.tell(|world| format!("{} attaches {made:?}", world.agents[who].identity));
        self.agents[who].replace(made);
    }

    /// An ADD that is on its way comes to its end: the workload is linked, or is not.
    fn finish_an_add(&mut self, who: usize) {
        let all = self.agents[who].view.attachments();
        let coming: Vec<_> = all.filter(|a| a.phase == Phase::Adding).cloned().collect();
        let Some(mut found) = self.rng.pick(&coming).cloned() else {
            return;
        };
        let fails = self.rng.chance(250);
        self.tell(|world| format!("{}: {} fails: {fails}", world.agents[who].identity, found.id));
        let agent = &mut self.agents[who];
        if fails {
            let dirty = agent.view.remove_attachment(&found.id);
            agent.dirty.extend(dirty);
        } else {
            found.phase = Phase::Up;
            agent.put(found);
        }
    }

    fn detach(&mut self, who: usize) {
        let ids: Vec<_> = self.agents[who]
            .view
            .attachments()
            .map(|a| a.id.clone())
            .collect();
        let Some(id) = self.rng.pick(&ids) else { return };
        let agent = &mut self.agents[who];
        // A runtime that takes a workload down waits for its agent; a spooled request is seen when that starts.
        if let Some(mut found) = agent.view.attachment(id).cloned() {
            found.phase = Phase::Removing;
            agent.put(found);
        }
        let dirty = agent.view.remove_attachment(id);
        agent.dirty.extend(dirty);
        self.tell(|world| format!("{} detaches {id}", world.agents[who].identity));
    }

    /// The same container comes back with another address, as after a restart of its machine.
    fn renumber(&mut self, who: usize) {
        let all: Vec<_> = self.agents[who].view.attachments().cloned().collect();
        let Some(mut found) = self.rng.pick(&all).cloned() else {
            return;
        };
        self.incarnations += 1;
        found.addresses = Some(vec![own_address(self.incarnations).into()]);
        self.agents[who].put(found);
    }

    fn ask_for_a_move(&mut self) {
        let Some(floating) = self.rng.pick(&self.floating).copied() else {
            return;
        };
        let Some(Value::Binding(binding)) = self.value(&binding_key(floating)) else {
            return;
        };
        let Some(to) = self.rng.pick(&binding.status.candidates).cloned() else {
            return;
        };
        let wish = Move {
            id: self.store.revision.to_string(),
            to: Target {
                node: Some(to.node),
                workload: to.workload,
                endpoint: None,
            },
            exclusive: self.rng.chance(400),
            drain: None,
        };
        self.tell(|_| format!("somebody moves {floating}: {wish:?}"));
        self.store.edit_binding(binding_key(floating), |binding| {
            binding.spec.requested_move = Some(wish)
        });
    }

    /// As `buoyctl` does: the floor first.
    fn delete_binding(&mut self) -> Result<(), String> {
        let Some(floating) = self.rng.pick(&self.floating).copied() else {
            return Ok(());
        };
        let key = binding_key(floating);
        let Some(Value::Binding(binding)) = self.value(&key) else {
            return Ok(());
        };
        if let Change::Put(floor) = collect::raised(self.value(&Key::EpochFloor).as_ref(), binding.spec.epoch)
        {
            self.store.write(Key::EpochFloor, *floor);
        }
        let revision = self.store.get(&key).unwrap().revision;
        self.execute(Pen::Person, StoreOp::Delete(key, revision))
            .map(drop)
    }

    fn value(&self, key: &Key) -> Option<Value> {
        self.store.get(key)?.value.ok()
    }

    fn change_daemon(&mut self, who: usize) {
        let agent = &mut self.agents[who];
        let daemon = if agent.view.can_announce() {
            Daemon::NotReady {
                why: "it ended".to_owned(),
                is_away: true,
            }
        } else {
            Daemon::Ready
        };
        agent.dirty.extend(agent.view.set_daemon(daemon, agent.mono()));
        self.tell(|world| {
            format!(
                "{}: {:?}",
                world.agents[who].identity, world.agents[who].view.daemon
            )
        });
    }

    /// A second agent under a node's name.
    fn add_twin(&mut self) {
        let nodes = self.troubles.iter().flatten().count();
        if self.agents.iter().any(|agent| agent.identity == TWIN) || nodes > 2 {
            return;
        }
        let of = self.rng.below(self.agents.len());
        let node = self.agents[of].node().to_owned();
        self.tell(|_| format!("a twin of {node}"));
        let clock = Duration::from_secs(self.rng.below(1000) as u64);
        self.agents.push(Agent::new(&node, TWIN, clock));
        self.troubles.push(None);
        self.attach(self.agents.len() - 1);
    }

    /// Whom trouble befalls: more often than not an owner's agent, for much hangs on that.
    fn victim(&mut self, otherwise: usize) -> usize {
        let owning = |agent: &Agent| self.floating.iter().any(|floating| agent.is_confirmed(*floating));
        let owners: Vec<usize> = (0..self.agents.len())
            .filter(|who| owning(&self.agents[*who]))
            .collect();
        match self.rng.pick(&owners) {
            Some(owner) if self.rng.chance(700) => *owner,
            _ => otherwise,
        }
    }

    fn trouble(&mut self, who: usize) -> Result<(), String> {
        // Where everybody is in trouble nobody sees it.
        let troubled = self.troubles.iter().flatten().count();
        if troubled > 0
            && !self
                .rng
                .chance(if self.troubles[who].is_some() { 100 } else { 250 })
        {
            return Ok(());
        }
        let long = self.rng.chance(500);
        let millis = if long {
            7000 + self.rng.below(9000)
        } else {
            200 + self.rng.below(4000)
        };
        self.troubles[who] = Some(self.now + Duration::from_millis(millis as u64));
        let kind = self.rng.below(10);
        self.tell(|world| format!("{}: trouble {kind} for {millis} ms", world.agents[who].identity));
        let agent = &mut self.agents[who];
        match kind {
            0 => {
                agent.link = Link {
                    requests: false,
                    answers: false,
                    watch: false,
                }
            }
            1 => agent.link.requests = false,
            2 => agent.link.answers = false,
            3 | 4 => agent.link.watch = false,
            5 if agent.process == Process::Running => agent.process = Process::Frozen,
            6 => {
                agent.is_paused = true;
                agent.paused_at = Some(agent.mono());
            }
            7 => agent.clock += Duration::from_millis(1100 + millis as u64),
            8 => self.crash(who)?,
            // A twin does not come back, and its lease would outlast the end.
            9 if self.agents[who].identity != TWIN => self.stop(who),
            _ => {}
        }
        Ok(())
    }

    /// The process dies; what is on its way to the datastore arrives, or does not.
    pub(crate) fn crash(&mut self, who: usize) -> Result<(), String> {
        self.limbo.retain(|(writer, _)| *writer != who);
        for task in std::mem::take(&mut self.agents[who].tasks) {
            if let Stage::Asked(operation) = task.stage
                && self.agents[who].link.requests
                && self.outage.is_none()
                && self.rng.chance(500)
            {
                self.execute(Pen::Agent(who), operation)?;
            }
        }
        self.forgive_low(who);
        self.agents[who].end();
        self.tell(|world| format!("{} is gone", world.agents[who].identity));
        Ok(())
    }

    /// An orderly stop: for an upgrade, or because the machine goes down.
    fn stop(&mut self, who: usize) {
        let now = Now {
            wall: self.wall(who),
            mono: self.agents[who].mono(),
        };
        let agent = &mut self.agents[who];
        if agent.process != Process::Running {
            return;
        }
        if self.rng.chance(400) {
            agent.dirty.extend(agent.view.leave());
            return;
        }
        if let Own::Held(held) = agent.view.own_lease().clone()
            && agent.view.owns()
        {
            agent.perform(Subject::Lease, Duty::ProlongLease(held), now);
            agent.employ(now.wall, self.flaw);
        }
        agent.process = Process::Stopping;
    }

    /// What was wrong with an agent is over.
    pub(crate) fn mend(&mut self, who: usize) -> Result<(), String> {
        self.troubles[who] = None;
        self.tell(|world| format!("{} is well again", world.agents[who].identity));
        let agent = &mut self.agents[who];
        agent.is_paused = false;
        let was_cut = !agent.link.watch;
        agent.link = WHOLE;
        if was_cut {
            agent.work.retry_now();
        }
        if agent.process == Process::Stopping || agent.view.leaving {
            self.crash(who)?;
        }
        self.agents[who].process = Process::Running;
        Ok(())
    }
}
