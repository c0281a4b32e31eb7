//! Deletes a binding that nobody wants, in the order that keeps epochs from falling: the floor first, then the binding.
//! Its reservation in IPAM goes last, by the sequence number that it had before.

use buoy_api::binding::{Binding, Epoch, EpochFloor, EpochFloorSpec};
use buoy_api::ip::FloatingIp;
use buoy_api::ipam::Block;
use buoy_api::meta::{Extra, ObjectMeta};
use buoy_api::names;

use crate::edit::Change;
use crate::store::Value;
use crate::view::View;

/// The floor, raised to an epoch.
pub fn raised(found: Option<&Value>, epoch: Epoch) -> Change {
    let floor = match found {
        Some(Value::EpochFloor(floor)) if floor.spec.epoch >= epoch => return Change::Keep,
        Some(Value::EpochFloor(floor)) => EpochFloor {
            spec: EpochFloorSpec {
                epoch,
                ..floor.spec.clone()
            },
            ..floor.clone()
        },
        _ => EpochFloor::new(
            ObjectMeta::named("default"),
            EpochFloorSpec {
                epoch,
                extra: Extra::new(),
            },
        ),
    };
    Change::Put(Box::new(Value::EpochFloor(floor)))
}

/// The binding, gone, if it still is what was decided on.
pub fn deleted(found: Option<&Value>, seen: &Binding) -> Change {
    match found {
        Some(Value::Binding(found))
            if found.spec == seen.spec
                && found.metadata.uid == seen.metadata.uid
                && found.status.candidates.is_empty() =>
        {
            Change::Delete
        }
        _ => Change::Keep,
    }
}

/// Sequence number of an address's reservation as it stands in its block.
pub fn reservation(view: &View, floating: FloatingIp) -> Option<u64> {
    reserved_in(view.block_of(floating.addr())?, floating)
}

/// The same, in the block that covers the address.
pub fn reserved_in(block: &Block, floating: FloatingIp) -> Option<u64> {
    let ordinal = block.ordinal(floating.addr())?;
    let holder = block.holder(ordinal)?;
    if holder.handle.as_deref() != Some(names::floating_handle(floating.addr()).as_str()) {
        return None;
    }
    block.sequence_number_for_allocation.get(&ordinal).copied()
}

#[cfg(test)]
#[path = "collect_tests.rs"]
mod tests;
