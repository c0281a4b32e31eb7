//! A datastore that answers readings and takes no writes, from anybody; and how soon a silent owner is replaced.

use std::time::Duration;

use buoy_core::floating::candidates;
use buoy_core::store::{Reply, StoreOp};

use super::agent::Process;
use super::run::FAIR;
use super::task::Stage;
use super::world::{World, away};

/// Within this time somebody else has the addresses of an owner whose agent fell silent: its lease, a tenth, and a second.
const REPLACED: Duration = Duration::from_millis(7600);
/// How long an operation waits for a lock.
const PATIENCE: [u64; 4] = [0, 0, 300, 2000];

impl World {
    /// From now on, for a while, nobody can write.
    pub(crate) fn take_no_writes(&mut self, time: Duration) {
        self.outage = Some(self.now + time);
        self.tell(|_| format!("nobody can write for {time:?}"));
    }

    /// What waits for an outage to end goes on when it has ended.
    pub(crate) fn take_writes_again(&mut self) {
        if self.outage.is_some_and(|until| until <= self.now) {
            self.outage = None;
            self.tell(|_| "writes are taken again".to_owned());
            for task in self.agents.iter_mut().flat_map(|agent| &mut agent.tasks) {
                task.patience = None;
            }
        }
    }

    /// A write that comes in an outage waits for a while and fails; or nobody knows, and it may happen later.
    pub(crate) fn wait_to_write(&mut self, who: usize, at: usize, operation: StoreOp) -> Stage {
        let now = self.now;
        let patience = self.rng.pick(&PATIENCE).copied().unwrap_or_default();
        let task = &mut self.agents[who].tasks[at];
        let until = *task.patience.get_or_insert(now + Duration::from_millis(patience));
        if now < until {
            return Stage::Asked(operation);
        }
        task.patience = None;
        if self.rng.chance(self.weather.unknown) {
            if self.rng.chance(self.weather.late) {
                self.limbo.push((who, operation));
            }
            return Stage::Returning(Reply::Unknown);
        }
        Stage::Returning(away())
    }

    /// An agent's first operation that can go on now.
    pub(crate) fn movable(&self, who: usize) -> Option<usize> {
        let waits = |patience: Option<Duration>| patience.is_some_and(|until| self.now < until);
        let locked = self.outage.is_some();
        let agent = &self.agents[who];
        let mut tasks = agent.tasks.iter();
        tasks
            .position(|task| !(locked && task.writes() && waits(task.patience)))
            .filter(|_| agent.moves())
    }

    /// How long until an operation gives up waiting.
    pub(crate) fn next_patience(&self) -> Option<Duration> {
        let tasks = self.agents.iter().flat_map(|agent| &agent.tasks);
        tasks
            .filter_map(|task| task.patience?.checked_sub(self.now))
            .filter(|left| !left.is_zero())
            .min()
    }

    /// Everybody lives, and now and then nobody can write. Between two outages there is time for one attempt.
    pub(crate) fn outlive_outages(&mut self) -> Result<(), String> {
        const OUTAGES: [u64; 6] = [900, 2500, 4000, 7000, 9000, 13_000];
        self.all_live = true;
        // Whose writes fail one after the other though the store takes everybody's is as good as dead.
        self.weather.failed = 0;
        for _ in 0..1 + self.rng.below(3) {
            let outage = self.rng.pick(&OUTAGES).copied().unwrap_or_default();
            let time = Duration::from_millis(outage + self.rng.below(700) as u64);
            self.take_no_writes(time);
            self.live_for(time)?;
            self.take_writes_again();
            let pause = 700 + self.rng.below(3000) as u64;
            self.live_for(Duration::from_millis(pause))?;
        }
        self.live_for(2 * REPLACED)?;
        self.all_live = false;
        Ok(())
    }

    /// An agent falls silent, and what its node owned goes to whoever stands by. Where a twin's lease was left over, its
    /// node takes that first.
    pub(crate) fn replace_in_time(&mut self) -> Result<(), String> {
        if self.weather.twin > 0 {
            return Ok(());
        }
        // A revocation that fails begins the count anew.
        self.weather = FAIR;
        let pause = self.rng.below(2500) as u64;
        self.live_for(Duration::from_millis(pause))?;
        let who = self.rng.below(self.agents.len());
        self.tell(|world| format!("{} falls silent", world.agents[who].identity));
        self.agents[who].process = Process::Frozen;
        self.live_for(REPLACED)?;
        let node = self.agents[who].node().to_owned();
        for floating in self.floating.iter().copied() {
            let others = self.agents.iter().filter(|agent| agent.loops());
            let mut standbys = others.flat_map(|agent| candidates::of(&agent.view, floating, "shop"));
            let owned = self.owner_of(floating).is_some_and(|owner| owner.node == node);
            if owned && standbys.any(|standby| standby.ready) {
                return Err(format!("{floating}: still {node}'s, which is silent"));
            }
        }
        Ok(())
    }
}
