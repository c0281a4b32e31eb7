//! Leases. A renewal waits for nothing else, and neither do readings: a write that is slow is no gap between them.

use buoy_core::floating::lease::{self, Held, Holder, KeepLease, Kept, Own, RevokeLease, lease_of};
use buoy_core::store::Reply;
use buoy_datastore::{Datastore, drive, get};

use crate::clock;
use crate::inputs::Outcome;

/// Takes or renews this node's lease.
pub(super) fn kept(store: &dyn Datastore, keep: KeepLease) -> Outcome {
    match drive(store, keep) {
        Ok(Kept::Held(held)) => Outcome::Lease(Own::Held(held), clock::mono()),
        Ok(Kept::Foreign(holder)) => Outcome::Lease(Own::Foreign(holder), clock::mono()),
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

/// Leaves this node's lease. Where that is not sure it counts as left: the next taking reads it.
pub(super) fn left(store: &dyn Datastore, holder: &Holder, held: &Held) -> Outcome {
    match store.run(&lease::leave(holder, held)) {
        Reply::Failed(error) => Outcome::Failed(error.to_string()),
        _ => Outcome::Lease(Own::Nothing, clock::mono()),
    }
}

/// Reads a node's lease.
pub(super) fn read(store: &dyn Datastore, node: &str) -> Outcome {
    sighted(get(store, lease::key(node)).and_then(lease_of))
}

/// Revokes a node's lease, or learns that it lives.
pub(super) fn revoked(store: &dyn Datastore, revoke: RevokeLease) -> Outcome {
    sighted(drive(store, revoke))
}

fn sighted<E: std::fmt::Display>(
    found: Result<Option<(buoy_api::NodeLease, buoy_core::store::Revision)>, E>,
) -> Outcome {
    match found {
        Ok(lease) => Outcome::Sighted(Box::new(lease), clock::mono()),
        Err(error) => Outcome::Failed(error.to_string()),
    }
}
