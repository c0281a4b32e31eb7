//! Who owns a floating IP.
//!
//! A request is a line in a workload's record; the grant is the binding. Nothing here does I/O or reads a clock.

pub mod candidates;
pub mod claim;
pub mod collect;
pub mod conditions;
pub mod decide;
pub mod lease;
pub mod order;
pub mod rights;
pub mod standing;

use buoy_api::ip::FloatingIp;
use buoy_api::ipam::Block;
use buoy_api::names;

/// The floating IP whose binding has this name; `None` if no binding has.
pub fn of_binding(name: &str) -> Option<FloatingIp> {
    names::address_of_binding(name)?.try_into().ok()
}

/// Floating IPs that a block reserves.
pub fn reserved_by(block: &Block) -> impl Iterator<Item = FloatingIp> + '_ {
    block.allocated().filter_map(|(ordinal, attribute)| {
        let floating = names::address_of_floating_handle(attribute.handle.as_deref()?)?;
        FloatingIp::try_from(floating)
            .ok()
            .filter(|_| block.ordinal(floating) == Some(ordinal))
    })
}
