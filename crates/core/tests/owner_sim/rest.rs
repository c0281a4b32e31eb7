//! The end: everybody is connected, clocks run, and every step that can be made is made.

use std::collections::BTreeSet;
use std::time::Duration;

use buoy_core::floating::candidates;
use buoy_core::view::Daemon;

use super::acts::TWIN;
use super::world::World;

/// Within this time every address that somebody can have is somebody's. The longest way is a pause after failures of
/// before, then a lease that must be revoked, then turns.
pub(crate) const BOUND: Duration = Duration::from_secs(30);
/// Steps at one instant, after which there will be no end of them.
const AT_ONCE: usize = 3000;

impl World {
    pub(crate) fn come_to_rest(&mut self) -> Result<(), String> {
        self.tell(|_| "from now on all is well".to_owned());
        if let Some(twin) = self.agents.iter().position(|agent| agent.identity == TWIN) {
            self.crash(twin)?;
            self.agents.remove(twin);
            self.troubles.remove(twin);
        }
        self.limbo.clear();
        for who in 0..self.agents.len() {
            self.mend(who)?;
            self.agents[who].work.retry_now();
            let agent = &mut self.agents[who];
            let now = agent.mono();
            agent.dirty.extend(agent.view.set_daemon(Daemon::Ready, now));
            agent.link_all();
        }
        self.outage = None;
        self.live_for(BOUND)?;
        self.check_rest()
    }

    /// For a while every step that can be made is made at once.
    pub(crate) fn live_for(&mut self, time: Duration) -> Result<(), String> {
        let end = self.now + time;
        while self.now < end {
            self.exhaust()?;
            self.pass_until_somebody_wakes(end);
        }
        self.exhaust()
    }

    fn exhaust(&mut self) -> Result<(), String> {
        let mut left = AT_ONCE;
        loop {
            let before = self.activity();
            let first = self.rng.below(self.agents.len());
            for who in 0..self.agents.len() {
                let who = (who + first) % self.agents.len();
                self.learn(who, usize::MAX);
                let gone: BTreeSet<_> = self.agents[who].withdrawing.clone();
                for floating in gone {
                    self.agents[who].withdrawn(floating);
                }
                self.turn(who);
                while let Some(task) = self.movable(who) {
                    left = left.checked_sub(1).ok_or("never at rest")?;
                    self.step(who, task)?;
                    self.check_confirmed()?;
                }
            }
            if !before && !self.activity() {
                return Ok(());
            }
            left = left.checked_sub(1).ok_or("never at rest")?;
        }
    }

    /// Whether somebody has something to do now.
    fn activity(&self) -> bool {
        let newest = self.store.log.len();
        (0..self.agents.len()).any(|who| {
            let agent = &self.agents[who];
            let wakes = agent.wake().is_some_and(|wake| wake <= agent.mono());
            agent.loops() && (agent.learnt < newest || self.movable(who).is_some() || wakes)
        })
    }

    fn pass_until_somebody_wakes(&mut self, end: Duration) {
        let living = self.agents.iter().filter(|agent| agent.loops());
        let wakes = living.filter_map(|agent| Some(agent.wake()?.since(agent.mono())));
        let pause = wakes
            .chain(self.next_patience())
            .min()
            .unwrap_or(BOUND)
            .max(Duration::from_millis(1));
        self.pass(pause.min(end.saturating_sub(self.now)));
    }

    /// Every address with a candidate has one owner, which is a candidate, and its agent is sure of it.
    pub(crate) fn check_rest(&self) -> Result<(), String> {
        for floating in self.floating.iter().copied() {
            let all: Vec<_> = self
                .agents
                .iter()
                .flat_map(|agent| candidates::of(&agent.view, floating, "shop"))
                .collect();
            let owner = self.owner_of(floating);
            let fits = |owner: &buoy_api::binding::Owner| all.iter().any(|candidate| candidate.is(owner));
            match owner {
                None if !all.is_empty() => return Err(format!("{floating}: nobody's, of {all:#?}")),
                Some(owner) if !fits(owner) => {
                    return Err(format!("{floating}: {owner:#?} is none of {all:#?}"));
                }
                _ => {}
            }
            let sure = self
                .agents
                .iter()
                .filter(|agent| agent.is_confirmed(floating))
                .count();
            if sure != usize::from(owner.is_some()) {
                return Err(format!("{floating}: {sure} are sure of {owner:#?}"));
            }
        }
        Ok(())
    }
}
