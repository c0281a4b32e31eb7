//! What the end of a protocol means for whoever asked for it, and what it must have done.

use std::net::IpAddr;

use buoy_core::ipam::{Assigned, IpamError, Reservation};
use buoy_core::store::{Key, Value};

use super::actors::{Phase, Process, Purpose};
use super::check::given;
use super::machine::Outcome;
use super::world::World;

impl World {
    pub(crate) fn settle_container(&mut self, index: usize, phase: Phase) {
        let container = &mut self.containers[index];
        container.busy -= 1;
        container.phase = match (container.doomed, container.phase) {
            (true, _) => Phase::Broken,
            // An ADD that is repeated and fails takes nothing from who has its addresses.
            (false, Phase::Live) => Phase::Live,
            _ => phase,
        };
    }

    /// A protocol ended.
    pub(crate) fn finish(&mut self, process: Process, outcome: Outcome) -> Result<(), String> {
        let lost_touch = process.failed;
        match (process.purpose, outcome) {
            (Purpose::Add(index), Outcome::Assigned(Ok(assigned))) => {
                self.added(index, process.host, &assigned)?
            }
            (Purpose::Add(index), Outcome::Assigned(Err(error))) => {
                self.not_added(index, &error, lost_touch)?
            }
            (Purpose::Delete(index), Outcome::Released(Ok(_))) => self.settle_container(index, Phase::Gone),
            (Purpose::Delete(index), Outcome::Released(Err(error))) => {
                self.settle_container(index, Phase::Broken);
                expected(&error, lost_touch)?;
            }
            (Purpose::Reserve(index), Outcome::Reserved(result)) => {
                self.reserved(index, result, lost_touch)?
            }
            (Purpose::Release(_), Outcome::Released(Err(IpamError::Stamped { .. }) | Ok(_))) => {}
            (Purpose::Release(_), Outcome::Released(Err(error))) => expected(&error, lost_touch)?,
            (Purpose::GiveUp, Outcome::GivenUp(Ok(()))) => {}
            (Purpose::GiveUp, Outcome::GivenUp(Err(error))) => expected(&error, lost_touch)?,
            _ => return Err("a protocol ended with another one's answer".to_owned()),
        }
        if let Purpose::Add(index) = process.purpose
            && !lost_touch
        {
            self.handle_is_exact(index)?;
        }
        Ok(())
    }

    fn added(&mut self, index: usize, host: usize, assigned: &Assigned) -> Result<(), String> {
        let addresses: Vec<IpAddr> = assigned.addresses.iter().map(|address| address.addr()).collect();
        let container = &self.containers[index];
        let (id, before) = (&container.handle, &container.addresses);
        if addresses.len() != container.wish.count() {
            return Err(format!(
                "{id} asked for {:?} and was given {addresses:?}",
                container.wish
            ));
        }
        if container.phase == Phase::Live && *before != addresses {
            return Err(format!(
                "{id} has {before:?}, asked again, and was given {addresses:?}"
            ));
        }
        for record in &assigned.written {
            let cache = &mut self.hosts[host].cache;
            cache.retain(|cached| cached.key != record.key);
            cache.push(record.clone());
        }
        self.containers[index].addresses = addresses;
        self.settle_container(index, Phase::Live);
        Ok(())
    }

    fn not_added(&mut self, index: usize, error: &IpamError, lost_touch: bool) -> Result<(), String> {
        let container = &self.containers[index];
        let anew = container.phase == Phase::New && !container.doomed && !lost_touch;
        if anew && self.store.value(&Key::Handle(container.handle.clone())).is_some() {
            return Err(format!(
                "{} was refused and keeps something: {error}",
                container.handle
            ));
        }
        self.settle_container(index, if anew { Phase::New } else { Phase::Broken });
        expected(error, lost_touch)
    }

    fn reserved(
        &mut self,
        index: usize,
        result: Result<Reservation, IpamError>,
        lost_touch: bool,
    ) -> Result<(), String> {
        let floating = &mut self.floating[index];
        match result {
            Ok(reservation) => {
                if floating.live.is_some_and(|live| live >= reservation.stamp) {
                    return Err(format!("the stamp of {} did not rise", floating.address));
                }
                floating.live = Some(reservation.stamp);
                floating.stamps.push(reservation.stamp);
                Ok(())
            }
            Err(error) => expected(&error, lost_touch),
        }
    }

    /// Sharp edge 12: no handle counts what it does not have.
    fn handle_is_exact(&self, index: usize) -> Result<(), String> {
        let container = &self.containers[index];
        if container.doomed {
            return Ok(());
        }
        let key = Key::Handle(container.handle.clone());
        let Some(Value::Handle(handle)) = self.store.value(&key) else {
            return Ok(());
        };
        for (cidr, count) in &handle.blocks {
            let given = given(&self.store, cidr, &container.handle);
            if *count != given {
                return Err(format!(
                    "{} counts {count} in {cidr}, which gives {given}",
                    container.handle
                ));
            }
        }
        Ok(())
    }
}

/// Nothing else may go wrong in this world.
fn expected(error: &IpamError, failed: bool) -> Result<(), String> {
    match error {
        IpamError::Store(_) if failed => Ok(()),
        error if error.is_exhausted() || error.is_in_use() => Ok(()),
        IpamError::StrictAffinity { .. } => Ok(()),
        error => Err(format!("unexpected: {error}")),
    }
}
