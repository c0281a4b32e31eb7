//! Whether the server is the one that it was.
//!
//! Its answers do not say so, other than etcd's. But a list says how far the store behind it has come, the namespace
//! `kube-system` has an identity that is the cluster's, and a lease is written every few seconds: what is older in
//! it than what this client wrote was put back. So a client *looks* when it begins to watch, whenever an answer to a
//! watch ends, and, before it writes, when a connection broke: no API server outlives a restore of its store.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use buoy_core::store::{Key, Revision};
use serde_json::Value as Json;

use super::Shared;
use super::trouble::Trouble;
use crate::codec::objects;
use crate::history::{History, replaced};

/// What is known of the server.
#[derive(Debug, Default)]
pub(super) struct Standing {
    pub(super) history: History,
    /// How often a connection broke, or never came to be.
    doubts: AtomicU64,
    /// How often it had by the last look that was answered.
    cleared: AtomicU64,
    lease: Mutex<Option<Written>>,
}

/// The lease that this client wrote last.
#[derive(Clone, Debug)]
struct Written {
    key: Key,
    at: Revision,
    /// How often the store had been another by then.
    replaced: u64,
}

impl Standing {
    /// A connection broke, or never came to be.
    pub(super) fn doubt(&self) {
        self.doubts.fetch_add(1, Ordering::SeqCst);
    }

    fn is_doubted(&self) -> bool {
        self.doubts.load(Ordering::SeqCst) > self.cleared.load(Ordering::SeqCst)
    }

    fn lease(&self) -> MutexGuard<'_, Option<Written>> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Sees that this is still the store that was read. What is done before that is known is not done.
    pub(super) async fn see_that_it_stands(&self) -> Result<(), Trouble> {
        let standing = &self.standing;
        if standing.is_doubted() {
            self.look().await.map_err(Trouble::not_done)?;
        }
        if standing.history.is_accepted() {
            Ok(())
        } else {
            Err(Trouble::NotDone(replaced()))
        }
    }

    /// Asks how far the store has come, and whether it is the same.
    pub(super) async fn look(&self) -> Result<Revision, Trouble> {
        let standing = &self.standing;
        let (history, doubts) = (&standing.history, standing.doubts.load(Ordering::SeqCst));
        let (began, known) = (history.begin(), history.replaced());
        let page = self.page(&objects::identity(), 1, None).await?;
        let cluster = page.items.first().and_then(Json::as_object);
        let cluster = cluster.and_then(objects::uid);
        history.heard(cluster, page.at, began);
        if history.replaced() == known {
            self.look_at_lease(page.at).await?;
        }
        // Doubts that came meanwhile stay; until here, whoever wants to write looks for itself.
        standing.cleared.fetch_max(doubts, Ordering::SeqCst);
        Ok(page.at)
    }

    async fn look_at_lease(&self, at: Revision) -> Result<(), Trouble> {
        let standing = &self.standing;
        let Some(written) = standing.lease().clone() else {
            return Ok(());
        };
        let Ok(place) = objects::place(&written.key, &self.layout) else {
            return Ok(());
        };
        let found = self.object(&place).await?;
        let found = found.and_then(|object| objects::revision(&object));
        let is_older = found.is_some_and(|found| found < written.at);
        if is_older && written.replaced == standing.history.replaced() {
            standing.history.went_back(at);
        }
        Ok(())
    }

    /// Takes in that a record was written.
    pub(super) fn note_written(&self, key: &Key, at: Revision) {
        let history = &self.standing.history;
        history.came_to(at);
        if matches!(key, Key::Lease(_)) {
            *self.standing.lease() = Some(Written {
                key: key.clone(),
                at,
                replaced: history.replaced(),
            });
        }
    }
}
