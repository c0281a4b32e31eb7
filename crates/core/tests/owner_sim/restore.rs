//! The store is restored from a copy, and everybody who lives notices it, each in time: what they have stays theirs.

use std::collections::BTreeMap;
use std::time::Duration;

use buoy_api::binding::{Binding, Epoch, Owner};
use buoy_api::ip::FloatingIp;
use buoy_core::store::{Delta, Key, Revision};
use buoy_core::view::RESTORE_HOLD;

use super::agent::{Agent, Listing, Process};
use super::rest::BOUND;
use super::run::{Flaw, Watch};
use super::task::Stage;
use super::world::{World, away};

/// Within so many milliseconds everybody notices.
const NOTICED: usize = 8000;

impl World {
    /// Somebody makes a copy of the store.
    pub(crate) fn copy(&mut self) {
        self.copy = self.store.clone();
    }

    /// The store is as it was, and nobody knows. Until the hold is over nothing changes hands; then all comes to rest again.
    pub(crate) fn restore(&mut self) -> Result<(), String> {
        self.tell(|_| "the store is restored".to_owned());
        let before = self.owners();
        self.store.records = self.copy.records.clone();
        self.store.revision = self.copy.revision;
        self.is_restored = true;
        self.history.forget_records();
        // What was written before is no rule for what is written again; that nobody has what another has always is.
        self.watch = Watch::ConfirmedAlone;
        let begun = self.now;
        let mut notices: Vec<(Duration, usize)> = Vec::new();
        let mut restarts: Vec<(Duration, usize)> = Vec::new();
        for who in 0..self.agents.len() {
            // Whoever has not noticed yet can neither read nor write.
            self.agents[who].process = Process::Frozen;
            let after = Duration::from_millis(self.rng.below(NOTICED) as u64);
            notices.push((begun + after, who));
            if self.rng.chance(200) {
                let later = Duration::from_millis(self.rng.below(NOTICED) as u64);
                restarts.push((begun + after + later, who));
            }
        }
        notices.sort();
        restarts.sort();
        let mut restarts = restarts.into_iter().peekable();
        for (at, who) in notices {
            while let Some((earlier, who)) = restarts.next_if(|(when, _)| *when < at) {
                self.live_for(earlier.saturating_sub(self.now))?;
                self.begin_anew(who);
            }
            self.live_for(at.saturating_sub(self.now))?;
            self.notice(who);
        }
        for (at, who) in restarts {
            self.live_for(at.saturating_sub(self.now))?;
            self.begin_anew(who);
        }
        self.live_for((begun + RESTORE_HOLD).saturating_sub(self.now))?;
        self.watch = Watch::All;
        self.check_kept(&before)?;
        self.live_for(Duration::from_millis(NOTICED as u64) + BOUND)?;
        self.check_rest()
    }

    fn owners(&self) -> BTreeMap<FloatingIp, (Owner, Epoch)> {
        let bindings = self.store.bindings();
        let owned = |binding: &Binding| {
            let floating = FloatingIp::try_from(binding.spec.address).ok()?;
            Some((floating, (binding.spec.owner.clone()?, binding.spec.epoch)))
        };
        bindings.filter_map(owned).collect()
    }

    /// Another process takes an agent's place. It has what the kernel has and, in a file, how far the store had come before
    /// the restore.
    fn begin_anew(&mut self, who: usize) {
        self.tell(|world| format!("{} begins anew", world.agents[who].identity));
        let agent = &mut self.agents[who];
        agent.end();
        agent.process = Process::Running;
        agent.was_restored = true;
    }

    /// An agent hears that the store was restored, and all that it says; or another process takes its place, which
    /// has nothing but what the kernel has and how far the store had come.
    fn notice(&mut self, who: usize) {
        if self.rng.chance(300) {
            return self.begin_anew(who);
        }
        self.tell(|world| format!("{} notices", world.agents[who].identity));
        let agent = &mut self.agents[who];
        agent.process = Process::Running;
        for task in &mut agent.tasks {
            if matches!(task.stage, Stage::Asked(_)) {
                task.stage = Stage::Returning(away());
            }
        }
        let now = agent.mono();
        agent.dirty.extend(agent.view.restored());
        let gone: Vec<Delta> = known(agent, &self.keys)
            .filter(|key| !self.store.records.contains_key(key))
            .map(|key| Delta {
                key,
                revision: Revision(self.store.revision),
                value: None,
            })
            .collect();
        for delta in gone.into_iter().chain(self.store.snapshot()) {
            agent.dirty.extend(agent.view.apply(delta, now));
        }
        agent.learnt = self.store.log.len();
        agent.listing = Listing::All(self.store.revision);
        agent.view.listed(now);
        agent.work.retry_now();
        if self.flaw == Flaw::WaitsForNobody {
            agent.dirty.extend(agent.view.end_hold(now));
        }
    }

    /// Everybody has what they had, and no epoch fell.
    fn check_kept(&self, before: &BTreeMap<FloatingIp, (Owner, Epoch)>) -> Result<(), String> {
        let now = self.owners();
        for (floating, (owner, epoch)) in before {
            let kept = now.get(floating).filter(|(now, higher)| {
                (&now.node, &now.workload, &now.uid) == (&owner.node, &owner.workload, &owner.uid)
                    && higher >= epoch
            });
            if kept.is_none() {
                let now = self.store.get(&self.keys[floating]).map(|record| record.value);
                return Err(format!(
                    "{floating}: lost by a restore: {owner:#?} {epoch:?}\n{now:#?}"
                ));
            }
        }
        Ok(())
    }
}

/// Keys of records that an agent knows and that a copy may lack.
fn known<'a>(agent: &'a Agent, keys: &'a BTreeMap<FloatingIp, Key>) -> impl Iterator<Item = Key> + 'a {
    let bindings = agent.view.bindings.iter();
    let bindings = bindings.filter_map(|(floating, _)| keys.get(floating).cloned());
    bindings.chain(agent.view.floor.get(&()).map(|_| Key::EpochFloor))
}
