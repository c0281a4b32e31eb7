//! IPAM: Calico's pools, blocks, affinities and handles, and the protocols that give and take addresses.
//!
//! Every protocol is a [`Steps`](crate::store::Steps) machine: [`AutoAssign`], [`AssignAddress`], [`ReleaseHandle`],
//! [`ReleaseAddress`], [`ReserveFloating`], [`ReleaseReservation`], [`GiveUpBlock`]. Any number of them may run at the same time, beside
//! Calico's nodes, and any may be dropped between two operations.
//!
//! Invariants, which hold after every single operation:
//! - an allocation lives in one place, its block, and changes only by compare-and-swap on that block;
//! - the handle of an allocation has a record that names the block and counts at least as many addresses as the block
//!   gives to the handle: so whatever a crash leaves is found by its handle;
//! - only the host that a block names can have a confirmed affinity to it.
//!
//! Three rules keep them. *Giving* reads the block, then writes the handle, then the block. *Taking* reads the handle,
//! then writes every block that it names (also one that gives nothing to the handle), then the handle at the revision
//! it read. So of a giver and a taker of one handle, one meets a conflict. And an address is only ever freed by its
//! handle, never by the bare address.
//!
//! Not here yet, and where it would go: borrowing from other nodes' blocks (a last resort in `search`), cool-down (an
//! attribute with `released_at` keeps its ordinal in `block`), release of blocks that no pool selects any more
//! (`affinity`).

mod access;
mod affinity;
mod assign;
mod assign_address;
pub mod block;
mod error;
mod gift;
mod give_up;
mod handle;
pub mod pool;
mod protocol;
mod range;
mod release;
mod request;
mod reserve;
mod search;

pub use assign::AutoAssign;
pub use assign_address::AssignAddress;
pub use error::{BINDING, FLOATING_IP, Holder, IpamError, Shortage, TYPE};
pub use give_up::GiveUpBlock;
pub use pool::PoolError;
pub use range::Range;
pub use release::{ReleaseAddress, ReleaseHandle, Released};
pub use request::{Ask, Asker, AssignAddressRequest, Assigned, AutoAssignRequest, Grant, Snapshot};
pub use reserve::{ReleaseReservation, Reservation, ReserveFloating, ReserveRequest};
