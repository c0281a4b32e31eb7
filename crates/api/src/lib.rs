//! Resources of `projectcalico.org/v3` and `buoy.dev/v1alpha1`, the annotations and names that go with them, and
//! their validation.
//!
//! Invariants: everything here is plain data. A record that is read and written again loses nothing (unknown fields
//! are kept in `extra`). An IPv4-mapped IPv6 address cannot be built as a [`FloatingIp`].
//!
//! Not here: keys and the exact JSON of a datastore (`buoy-datastore`'s codec), and anything that does I/O.

pub mod annotations;
pub mod bgp;
pub mod binding;
pub mod ip;
pub mod ipam;
pub mod lease;
pub mod meta;
pub mod names;
pub mod resource;
pub mod selector;
pub mod v3;
pub mod validate;

pub use binding::{Binding, Candidate, Condition, Epoch, Move, Owner, Term};
pub use ip::{Family, FloatingIp};
pub use lease::NodeLease;
pub use meta::{Extra, ObjectMeta};
pub use resource::{Kind, Resource};
