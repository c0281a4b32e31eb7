//! The loop: hears, looks at what stands, and does what has stood long enough.

use std::sync::Arc;
use std::time::{Duration, Instant};

use buoy_core::cluster::{Chore, Cluster, Ripening, Settings};
use buoy_core::store::{Delta, StoreError};
use buoy_core::time::{Mono, Now};
use buoy_core::view::RESTORE_HOLD;
use buoy_daemon::clock;
use buoy_datastore::{Datastore, list};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use tracing::{info, warn};

use crate::chores;
use crate::election::Standing;
use crate::inputs::Input;
use crate::shown::Shown;

/// Pause between two looks.
const LOOK: Duration = Duration::from_secs(2);
/// Between two looks passes no more than this but where the machine or this process stood still: longer than any look takes,
/// and shorter than any grace that is of use.
const STOOD_STILL: Duration = Duration::from_secs(60);
/// Nothing is done for so long after a restore was noticed: agents write again first what they have.
const AFTER_RESTORE: Duration = RESTORE_HOLD.saturating_mul(3);

/// Looks after a cluster.
#[derive(Debug)]
pub(crate) struct Keeper {
    store: Arc<dyn Datastore>,
    settings: Settings,
    cluster: Cluster,
    ripening: Ripening<Chore>,
    elected: Standing,
    shown: Shown,
    works: Option<bool>,
    looked: Mono,
    synced: bool,
    quiet_until: Mono,
}

impl Keeper {
    pub(crate) fn new(
        settings: Settings,
        store: Arc<dyn Datastore>,
        elected: Standing,
        shown: Shown,
    ) -> Self {
        Self {
            store,
            cluster: Cluster::new(settings.clone()),
            settings,
            ripening: Ripening::default(),
            elected,
            shown,
            works: None,
            looked: clock::mono(),
            synced: false,
            quiet_until: Mono::default(),
        }
    }

    /// Goes on until the end.
    pub(crate) fn run(mut self, queue: &Receiver<Input>) {
        let mut next = Instant::now() + LOOK;
        loop {
            match queue.recv_deadline(next) {
                Ok(Input::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(input) => self.hear(input, clock::mono()),
                Err(RecvTimeoutError::Timeout) => {
                    self.look(clock::now());
                    next = Instant::now() + LOOK;
                }
            }
        }
    }

    fn hear(&mut self, input: Input, now: Mono) {
        match input {
            Input::Delta(delta) => self.cluster.apply(delta),
            Input::Synced => {
                self.synced = true;
                self.shown.contact(None);
            }
            Input::Lost(error) => {
                warn!("no contact with the datastore: {error}");
                self.synced = false;
                self.shown.contact(Some(&error));
                self.ripening.begin_anew();
            }
            Input::Restored => {
                warn!("the datastore was restored from a copy: nothing is done for {AFTER_RESTORE:?}");
                self.quiet_until = now.after(AFTER_RESTORE);
            }
            Input::Stop => {}
        }
    }

    fn look(&mut self, now: Now) {
        let stood_still = now.mono.since(std::mem::replace(&mut self.looked, now.mono)) > STOOD_STILL;
        let works = self.tell_whether_it_works(now.mono);
        self.shown.looked(now.mono, works);
        if !works || !self.synced || now.mono < self.quiet_until || stood_still {
            self.ripening.begin_anew();
            self.shown.stand(0, 0);
            return;
        }
        let standing = self.cluster.standing(now.wall);
        self.shown.stand(standing.len(), self.cluster.contested());
        let ripe = self.ripening.ripe(&standing, now.mono);
        // Where nobody can write, nobody is taken for dead.
        if !ripe.is_empty()
            && self.elected.get().proves_writes(now.mono)
            && let Err(error) = self.work(&ripe, now)
        {
            warn!("left for later: {error}");
        }
    }

    fn tell_whether_it_works(&mut self, now: Mono) -> bool {
        let works = self.elected.get().works(now);
        if self.works.replace(works) != Some(works) {
            let how = if works {
                "works"
            } else {
                "stands by: another controller works, or nobody can"
            };
            info!("{how}");
        }
        works
    }

    /// Reads everything again, and does what stands there, too.
    fn work(&mut self, ripe: &[Chore], now: Now) -> Result<(), StoreError> {
        let fresh = read(self.store.as_ref(), &self.settings)?;
        let standing = fresh.standing(now.wall);
        for chore in ripe.iter().filter(|chore| standing.contains_key(chore)) {
            if !self.elected.get().works(clock::mono()) {
                warn!("does not hold the lease any more: the rest is another's, or for later");
                return Ok(());
            }
            let done = chores::done(self.store.as_ref(), &fresh, chore, now);
            self.shown.turned(clock::mono());
            self.shown.did(chore, done.is_ok());
            match done {
                Ok(()) => info!("{chore}"),
                Err(error) => warn!("{chore}: {error:#}"),
            }
        }
        Ok(())
    }
}

/// The cluster as the store itself says it is.
fn read(store: &dyn Datastore, settings: &Settings) -> Result<Cluster, StoreError> {
    let mut cluster = Cluster::new(settings.clone());
    for prefix in Cluster::interest() {
        let (records, _) = list(store, prefix)?;
        for record in records {
            cluster.apply(Delta {
                key: record.key,
                revision: record.revision,
                value: Some(record.value),
            });
        }
    }
    Ok(cluster)
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
