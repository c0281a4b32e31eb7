//! The datastore as it is followed: what it says, and whether it does.

use buoy_core::store::{Delta, Key};
use buoy_core::subject::Subject;
use buoy_core::time::Mono;
use tracing::{info, warn};

use super::Agent;
use crate::clock;

/// How the datastore is.
#[derive(Debug, Default)]
pub(crate) struct Contact {
    /// All records were known at least once.
    pub(crate) synced: bool,
    /// That there is no contact now.
    pub(crate) lost: Option<Lost>,
}

/// No contact with the datastore.
#[derive(Debug)]
pub(crate) struct Lost {
    /// Why, as it was said last.
    pub(crate) error: String,
    pub(crate) since: Mono,
}

impl Agent {
    pub(super) fn synced(&mut self, now: Mono) {
        if let Some(lost) = self.contact.lost.take() {
            info!("the datastore answers again, after: {}", lost.error);
        }
        self.work.retry_now();
        self.view.listed(now);
        if self.contact.synced {
            if self.view.is_held() {
                self.look_at_attachments();
            }
            return;
        }
        self.contact.synced = true;
        info!("all records are read");
        self.dirty.insert(Subject::Lease);
        self.dirty
            .extend(self.view.floating_in_use().map(Subject::Binding));
        self.look_at_attachments();
        self.network.compare_all();
        let now = clock::now();
        for (_, call) in std::mem::take(&mut self.answers.early) {
            self.call(call, now);
        }
    }

    fn look_at_attachments(&mut self) {
        for attachment in self.view.attachments() {
            self.dirty.insert(Subject::Attachment(attachment.id.clone()));
            self.dirty.insert(Subject::Endpoint(attachment.endpoint.clone()));
        }
    }

    pub(super) fn changed(&mut self, delta: Delta, now: Mono) {
        self.metrics.datastore.changed(&delta);
        let names_secrets = matches!(delta.key, Key::BgpPeer(_) | Key::BgpConfiguration(_));
        self.dirty.extend(self.view.apply(delta, now));
        if names_secrets {
            self.look_at_secrets();
        }
    }

    pub(super) fn lost(&mut self, error: String, now: Mono) {
        let before = self.contact.lost.as_ref();
        if before.is_none_or(|before| before.error != error) {
            warn!("no contact with the datastore; what is programmed stays: {error}");
        }
        if before.is_none() {
            self.metrics.datastore.losses.inc();
        }
        let since = before.map_or(now, |before| before.since);
        self.contact.lost = Some(Lost { error, since });
        self.view.contact_lost();
    }
}
