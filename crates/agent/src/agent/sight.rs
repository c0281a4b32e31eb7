//! What the loop shows of itself to those who look at it from outside.

use std::time::Duration;

use buoy_core::time::Mono;

use super::Agent;

impl Agent {
    /// For how long what is known of the datastore may have been out of date.
    pub(crate) fn sync_age(&self, now: Mono) -> Duration {
        match (&self.contact.lost, self.contact.synced) {
            (Some(lost), true) => now.since(lost.since),
            (_, false) => now.since(self.started),
            (None, true) => Duration::ZERO,
        }
    }

    /// Why the datastore takes no writes, if it has not for a while.
    pub(crate) fn writes_refused(&self, now: Mono) -> Option<String> {
        self.measured.refuses(now)
    }

    /// Whether the first full comparison was applied.
    pub(crate) fn is_announced(&self) -> bool {
        self.announced
    }

    /// Requests of CNI plugins that are not answered yet.
    pub(crate) fn waiting(&self) -> usize {
        self.answers.waiting()
    }

    /// What waits in the queues between the loop and the threads around it.
    pub(crate) fn queues(&self) -> Vec<(&'static str, usize)> {
        let inputs = [("inputs", self.waiting_inputs)];
        let notes = [("notes", self.notes.waiting())];
        inputs
            .into_iter()
            .chain(self.kernel.queues())
            .chain(self.store.queues())
            .chain(notes)
            .collect()
    }
}
