//! Deletes a binding that nobody wants, in the order that keeps epochs from falling: the floor first, then the binding.
//! Its reservation in IPAM goes last, by the sequence number that it had before.

use std::collections::VecDeque;
use std::fmt;

use buoy_api::binding::{Binding, Epoch, EpochFloor, EpochFloorSpec};
use buoy_api::ip::FloatingIp;
use buoy_api::ipam::Block;
use buoy_api::meta::{Extra, ObjectMeta};
use buoy_api::names;

use super::claim::binding_key;
use crate::edit::{Change, Edit, EditError};
use crate::ipam::{IpamError, ReleaseReservation};
use crate::store::{Key, Next, Reply, Steps, StoreError, StoreOp, Value};
use crate::view::View;

/// Why a collection or a release did not come to its end.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CollectError {
    /// Floor or binding.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// The reservation.
    #[error(transparent)]
    Ipam(#[from] IpamError),
    /// The datastore failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Deletes a binding as it was seen, and its reservation.
pub struct Collect {
    stages: VecDeque<Stage>,
}

type Changing = Box<dyn FnMut(Option<&Value>) -> Change + Send>;

enum Stage {
    Edit(Box<Edit<Changing>>),
    Free(Free),
}

impl Collect {
    /// `reservation` is its sequence number, if there is one.
    pub fn new(floating: FloatingIp, seen: Binding, reservation: Option<u64>) -> Self {
        let epoch = seen.spec.epoch;
        let edit = |key, change: Changing| Stage::Edit(Box::new(Edit::new(key, change)));
        let raise = edit(Key::EpochFloor, Box::new(move |found| raised(found, epoch)));
        let delete = edit(
            binding_key(floating),
            Box::new(move |found| deleted(found, &seen)),
        );
        let free = reservation.map(|stamp| Stage::Free(Free::new(floating, stamp)));
        Self {
            stages: [raise, delete].into_iter().chain(free).collect(),
        }
    }
}

impl Steps for Collect {
    type Out = Result<(), CollectError>;

    fn step(&mut self, mut reply: Reply) -> Next<Self::Out> {
        while let Some(stage) = self.stages.front_mut() {
            let next = match stage {
                Stage::Edit(edit) => edit.step(reply).map(|out| out.map_err(CollectError::from)),
                Stage::Free(free) => free.step(reply),
            };
            match next {
                Next::Done(Ok(())) => self.stages.pop_front(),
                other => return other,
            };
            reply = Reply::Start;
        }
        Next::Done(Ok(()))
    }
}

impl fmt::Debug for Collect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} stages to go", self.stages.len())
    }
}

/// Frees the reservation of an address that has no binding, if it still has this sequence number. What is known of the
/// binding may be old, so it is read.
#[derive(Debug)]
pub struct Free {
    floating: FloatingIp,
    release: ReleaseReservation,
    is_absent: bool,
}

impl Free {
    /// With the sequence number that the caller saw.
    pub fn new(floating: FloatingIp, stamp: u64) -> Self {
        Self {
            floating,
            release: ReleaseReservation::new(floating, stamp),
            is_absent: false,
        }
    }

    fn release(&mut self, reply: Reply) -> Next<Result<(), CollectError>> {
        self.release.step(reply).map(|out| match out {
            // Somebody reserved it again meanwhile: it is theirs.
            Err(error) if !error.is_stamped() => Err(error.into()),
            _ => Ok(()),
        })
    }
}

impl Steps for Free {
    type Out = Result<(), CollectError>;

    fn step(&mut self, reply: Reply) -> Next<Self::Out> {
        if self.is_absent {
            return self.release(reply);
        }
        match reply {
            Reply::Record(None) => {
                self.is_absent = true;
                self.release(Reply::Start)
            }
            Reply::Record(Some(_)) => Next::Done(Ok(())),
            Reply::Failed(error) => Next::Done(Err(error.into())),
            _ => Next::Do(StoreOp::Get(binding_key(self.floating))),
        }
    }
}

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
fn deleted(found: Option<&Value>, seen: &Binding) -> Change {
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
