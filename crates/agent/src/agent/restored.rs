//! A datastore that was restored from a copy: what the loop does about it and says of it.

use std::collections::{BTreeMap, BTreeSet};

use buoy_core::subject::Subject;
use buoy_core::time::Now;
use buoy_core::view::RESTORE_HOLD;
use tracing::{info, warn};

use super::Agent;

impl Agent {
    /// The datastore may say that something is free, or another's, which this node has.
    pub(super) fn restored(&mut self) {
        let concerned = self.view.restored();
        self.note_restore(concerned);
    }

    fn note_restore(&mut self, concerned: BTreeSet<Subject>) {
        self.metrics.datastore.restores.inc();
        self.released.clear();
        warn!(
            "the datastore was restored from a copy: nothing is allocated until {RESTORE_HOLD:?} after it was read, and this node writes again what it has"
        );
        self.dirty.extend(concerned);
    }

    /// Once all records are read, and so is the kernel: looks whether the datastore went back while no agent ran here.
    pub(super) fn recollect(&mut self, now: Now) {
        if self.recollected || !self.contact.synced {
            return;
        }
        let Some(claimed) = self.network.claimed() else {
            return;
        };
        let concerned = self.view.recollect(claimed, self.was_restored, now.mono);
        self.recollected = true;
        if let Some(concerned) = concerned {
            self.note_restore(concerned);
        }
        if self.contact.lost.is_some() {
            self.view.contact_lost();
        }
    }

    /// Notes how far the datastore is. Of one that was restored not before the others had their time: an agent that begins
    /// again meanwhile has to wait, too.
    pub(super) fn note_mark(&mut self) {
        if self.recollected && !self.view.is_held() {
            self.marks.note();
        }
    }

    /// Looks whether the others had their time, and what this node remembers in vain.
    pub(super) fn look_at_hold(&mut self, now: Now) {
        if self.view.held_until().is_some_and(|until| until <= now.mono) {
            self.dirty.extend(self.view.end_hold(now.mono));
            self.release_revenants(now);
            info!("addresses are allocated again");
        }
        self.dirty.extend(self.view.forget(now.mono));
        self.tell_of_losses();
    }

    fn release_revenants(&mut self, now: Now) {
        for revenant in self.view.revenants() {
            info!(
                "gone before the datastore was restored, and released again: {}",
                revenant.container
            );
            self.remove(&revenant.into(), now);
        }
    }

    fn tell_of_losses(&mut self) {
        let lost: BTreeMap<_, _> = self.view.lost_by_restore().collect();
        for (floating, owner) in lost.iter().filter(|(floating, _)| !self.lost.contains(floating)) {
            warn!("{floating} was this node's before the datastore was restored, and is of {owner} now");
        }
        self.lost = lost.into_keys().collect();
    }
}
