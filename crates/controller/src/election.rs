//! Which of several controllers works: the one that holds a lease among those of nodes, under a name that no node has.
//!
//! It saves work and nothing more: two at once do no harm.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use buoy_api::binding::Term;
use buoy_core::cluster::ELECTION;
use buoy_core::floating::lease::{
    self, Begun, Holder, KeepLease, Kept, Own, RevokeLease, Sighting, Steady, lease_of,
};
use buoy_core::store::StoreError;
use buoy_core::time::Mono;
use buoy_daemon::clock;
use buoy_datastore::{Datastore, drive, get};

/// One controller and the lease.
#[derive(Debug)]
pub(crate) struct Election {
    identity: String,
    own: Own,
    steady: Option<Steady>,
    seen: Option<Sighting>,
}

/// What the last turn came to: the thread of the election writes it, the loop reads it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing(Arc<Mutex<Elected>>);

impl Standing {
    pub(crate) fn set(&self, elected: Elected) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = elected;
    }

    pub(crate) fn get(&self) -> Elected {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Elected {
    /// Until when this controller works; it renews that long before.
    pub(crate) until: Option<Mono>,
    /// Renewals without a gap.
    pub(crate) steady: Option<Steady>,
}

impl Elected {
    /// Whether this controller works.
    pub(crate) fn works(self, now: Mono) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Whether the datastore takes writes, and has for a while.
    pub(crate) fn proves_writes(self, now: Mono) -> bool {
        self.works(now) && self.steady.is_some_and(|steady| steady.proves_writes(now))
    }
}

impl Election {
    pub(crate) fn new(identity: String) -> Self {
        Self {
            identity,
            own: Own::Nothing,
            steady: None,
            seen: None,
        }
    }

    /// Renews the lease, takes it if it is nobody's, or waits until its holder has not renewed it for long.
    pub(crate) fn turn(&mut self, store: &dyn Datastore) -> Result<Elected, StoreError> {
        let known = match &self.own {
            Own::Held(held) => Some(held.clone()),
            Own::Nothing | Own::Foreign(_) => None,
        };
        match drive(store, KeepLease::new(self.holder(), known, Term(0)))? {
            Kept::Held(held) => {
                self.seen = None;
                self.steady = Some(Steady::renewed(self.steady, held.began, clock::mono()));
                self.own = Own::Held(held);
            }
            Kept::Foreign(other) => {
                self.steady = None;
                self.own = Own::Foreign(other);
                self.watch(store)?;
            }
        }
        Ok(self.elected())
    }

    /// Leaves the lease to others.
    pub(crate) fn leave(&mut self, store: &dyn Datastore) {
        if let Own::Held(held) = std::mem::take(&mut self.own) {
            store.run(&lease::leave(&self.holder(), &held));
        }
    }

    fn elected(&self) -> Elected {
        let until = match &self.own {
            Own::Held(held) => Some(held.began.after(lease::DURATION)),
            Own::Nothing | Own::Foreign(_) => None,
        };
        Elected {
            until,
            steady: self.steady,
        }
    }

    fn holder(&self) -> Holder {
        let now = clock::now();
        Holder {
            node: ELECTION.to_owned(),
            identity: self.identity.clone(),
            wall: now.wall,
            mono: now.mono,
        }
    }

    /// Readings may lie further apart than those of nodes' leases: who is revoked here loses nothing but work.
    fn watch(&mut self, store: &dyn Datastore) -> Result<(), StoreError> {
        let found = get(store, lease::key(ELECTION)).and_then(lease_of)?;
        let now = clock::mono();
        let since = match &self.seen {
            Some(seen) if seen.has_revision_of(found.as_ref()) => seen.since,
            _ => now,
        };
        let seen = Sighting {
            lease: found,
            since,
            last: now,
            begun: Begun::First,
        };
        if seen.is_due() {
            drive(store, RevokeLease::new(ELECTION.to_owned(), &seen, Term(0)))?;
        }
        self.seen = Some(seen);
        Ok(())
    }
}
