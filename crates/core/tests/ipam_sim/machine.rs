//! The protocols behind one type, and a wrong one that the model must catch.

use std::net::IpAddr;

use buoy_core::ipam::{
    AssignAddress, Assigned, AutoAssign, GiveUpBlock, IpamError, ReleaseHandle, ReleaseReservation, Released,
    Reservation, ReserveFloating, block,
};
use buoy_core::store::{Key, Next, Reply, Steps, StoreOp, Value};
use ipnet::IpNet;

#[expect(clippy::large_enum_variant, reason = "a few live at a time")]
pub(crate) enum Machine {
    Auto(AutoAssign),
    Address(AssignAddress),
    Release(ReleaseHandle),
    Reserve(ReserveFloating),
    ReleaseReservation(ReleaseReservation),
    GiveUp(GiveUpBlock),
    Bare(ReleaseBareAddress),
}

#[expect(clippy::large_enum_variant, reason = "each is looked at once")]
pub(crate) enum Outcome {
    Assigned(Result<Assigned, IpamError>),
    Released(Result<Released, IpamError>),
    Reserved(Result<Reservation, IpamError>),
    GivenUp(Result<(), IpamError>),
}

impl Machine {
    pub(crate) fn step(&mut self, reply: Reply) -> Next<Outcome> {
        match self {
            Self::Auto(machine) => wrap(machine.step(reply), Outcome::Assigned),
            Self::Address(machine) => wrap(machine.step(reply), Outcome::Assigned),
            Self::Release(machine) => wrap(machine.step(reply), Outcome::Released),
            Self::Reserve(machine) => wrap(machine.step(reply), Outcome::Reserved),
            Self::ReleaseReservation(machine) => wrap(machine.step(reply), Outcome::Released),
            Self::GiveUp(machine) => wrap(machine.step(reply), Outcome::GivenUp),
            Self::Bare(machine) => wrap(machine.step(reply), Outcome::Released),
        }
    }
}

fn wrap<O>(next: Next<O>, outcome: fn(O) -> Outcome) -> Next<Outcome> {
    match next {
        Next::Do(operation) => Next::Do(operation),
        Next::Done(out) => Next::Done(outcome(out)),
    }
}

/// Wrong on purpose: frees an address whoever has it, as a release by bare address does (sharp edge 13). It leaves the
/// handle to nobody, as if its holder were known to be gone.
pub(crate) struct ReleaseBareAddress {
    pub address: IpAddr,
    pub block: IpNet,
}

impl Steps for ReleaseBareAddress {
    type Out = Result<Released, IpamError>;

    fn step(&mut self, reply: Reply) -> Next<Self::Out> {
        let read = Next::Do(StoreOp::Get(Key::Block(self.block)));
        match reply {
            Reply::Start | Reply::Conflict | Reply::Unknown => read,
            Reply::Record(Some(found)) => {
                let Ok(Value::Block(mut record)) = found.value else {
                    return Next::Done(Ok(Released::default()));
                };
                let ordinals: Vec<usize> = record.ordinal(self.address).into_iter().collect();
                block::free(&mut record, &ordinals);
                record.sequence_number += 1;
                Next::Do(StoreOp::Update(found.key, Value::Block(record), found.revision))
            }
            Reply::Failed(error) => Next::Done(Err(error.into())),
            _ => Next::Done(Ok(Released::default())),
        }
    }
}
