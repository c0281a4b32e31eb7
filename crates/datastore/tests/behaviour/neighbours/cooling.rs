//! What becomes of addresses that are released: they cool down, and then they are free.

use std::time::Duration;

use buoy_api::ipam::{Attribute, Block};
use jiff::Timestamp;

/// The time, and how long an address cools down.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cooling {
    pub(crate) now: Timestamp,
    pub(crate) lasts: Duration,
}

impl Cooling {
    /// Free at once.
    pub(crate) const NONE: Self = Self {
        now: Timestamp::UNIX_EPOCH,
        lasts: Duration::ZERO,
    };

    /// These ordinals are nobody's any more.
    pub(crate) fn take_back(&self, block: &mut Block, ordinals: &[usize]) {
        let released = block.attributes.len();
        block.attributes.push(Attribute {
            released_at: Some(self.now),
            ..Attribute::default()
        });
        for ordinal in ordinals {
            block.allocations[*ordinal] = Some(released);
        }
        self.thaw(block);
    }

    /// Ordinals that are cold go to the end of the queue; attributes that nobody needs go, and the others are numbered anew. How
    /// many were cold.
    pub(crate) fn thaw(&self, block: &mut Block) -> usize {
        let is_cold = |holder: &Attribute| {
            holder.released_at.is_some_and(|since| {
                self.now.duration_since(since).unsigned_abs() >= self.lasts && self.now >= since
            })
        };
        let cold: Vec<usize> = block
            .allocated()
            .filter(|(_, holder)| is_cold(holder))
            .map(|(ordinal, _)| ordinal)
            .collect();
        for ordinal in &cold {
            block.allocations[*ordinal] = None;
            block.unallocated.push(*ordinal);
            block.sequence_number_for_allocation.remove(ordinal);
        }
        let mut kept = Vec::new();
        for slot in block.allocations.iter_mut().flatten() {
            let attribute = block.attributes[*slot].clone();
            let known = kept.iter().position(|other| *other == attribute);
            *slot = known.unwrap_or_else(|| {
                kept.push(attribute);
                kept.len() - 1
            });
        }
        block.attributes = kept;
        cold.len()
    }
}
