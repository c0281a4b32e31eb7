//! Keys and JSON of a store that is laid out as Calico's etcd: the only place that knows either.
//!
//! Invariants: what is read and written again loses nothing (unknown fields stay; 64-bit numbers are exact); what is
//! written can be read; a record whose content does not fit its key is [`Bad`]. `metadata.resourceVersion` is never
//! stored: the revision is beside the record.
//!
//! Not here: transactions. [`change`] says what an operation makes of a record; the backend makes it so.

mod change;
mod ipam;
mod key;
pub mod objects;
mod record;
mod resource;

pub use change::{Change, Moment, change, keeps_stored};
pub use key::{Range, key, known_key, path, ranges};
pub use record::{decode, encode, record};

use buoy_core::store::Bad;

/// A [`Bad`] with this reason.
fn bad(reason: impl Into<String>) -> Bad {
    Bad {
        reason: reason.into(),
    }
}
